"""What Google's client, in the last version with Veo by the Gemini API, does with the simulator."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from importlib.metadata import version
from typing import Any

from google import genai
from google.genai import errors, types


VEO = "veo-3.1-generate-preview"


def client_of(key: str) -> genai.Client:
    """A client with this key."""
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=os.environ["SIMULATOR_URL"]))


def refusal(ask: Any) -> dict[str, Any]:
    """What the client makes of a refusal."""
    try:
        ask()
    except errors.APIError as error:
        return {"class": type(error).__name__, "code": error.code, "status": error.status}
    return {}


def main() -> dict[str, Any]:
    """Makes films, downloads one, and tells what it saw."""
    client = client_of("any-key")

    def made(prompt: str, **config: Any) -> list[Any]:
        """Every look at an operation until it is done."""
        seen = [
            client.models.generate_videos(
                model=VEO, prompt=prompt, config=types.GenerateVideosConfig(**config)
            )
        ]
        while not seen[-1].done:
            time.sleep(0.05)
            seen.append(client.operations.get(seen[-1]))
        return seen

    looks = made("a red mug", duration_seconds=8, aspect_ratio="16:9", negative_prompt="rain")
    (film,) = looks[-1].response.generated_videos
    # The client finds a file's name in an address of https alone.
    content = client.files.download(file=re.search(r"files/[a-z0-9]+", film.video.uri)[0])  # type: ignore[index]  # fails where it is not there
    begun = client.models.generate_videos(
        model=VEO, prompt="it turns", image=types.Image(image_bytes=b"\x89PNG", mime_type="image/png")
    )
    filtered = made("a mug [sim:fail=moderation]")[-1]
    broken = made("a mug [sim:fail=provider]")[-1]
    stranger = client_of("sim-bad-key")
    return {
        "version": version("google-genai"),
        "names": [one.name for one in (looks[0], begun)],
        "done": [bool(one.done) for one in looks],
        "address": film.video.uri,
        "magic": content[4:8].decode(),
        "filtered": [
            filtered.response.rai_media_filtered_count,
            filtered.response.rai_media_filtered_reasons,
            filtered.response.generated_videos,
        ],
        "error": broken.error,
        "unknown": refusal(
            lambda: client.operations.get(types.GenerateVideosOperation(name=f"models/{VEO}/operations/0000"))
        ),
        "throttled": refusal(
            lambda: client.models.generate_videos(model=VEO, prompt="a mug [sim:reject=rate]")
        ),
        "bad_key": refusal(lambda: stranger.models.generate_videos(model=VEO, prompt="a mug")),
    }


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
