"""What Google's own client does with the simulator as with Vertex; run in that client's own environment."""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import version
from typing import Any

from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials


VEO = "veo-3.1-generate-001"


def client_of(token: str) -> genai.Client:
    """A client with this token."""
    return genai.Client(
        vertexai=True,
        project="films-1",
        location="europe-west4",
        credentials=Credentials(token),
        http_options=types.HttpOptions(base_url=os.environ["SIMULATOR_URL"]),
    )


def refusal(ask: Any) -> dict[str, Any]:
    """What the client makes of a refusal."""
    try:
        ask()
    except errors.APIError as error:
        return {"class": type(error).__name__, "code": error.code, "status": error.status}
    return {}


def main() -> dict[str, Any]:
    """Makes films, inline and in a bucket, and tells what it saw."""
    client = client_of("ya29.anything")

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

    inline = made("a red mug", number_of_videos=2, duration_seconds=8, aspect_ratio="16:9", seed=7)
    stored = made("a blue mug", output_gcs_uri="gs://films/today/")[-1]
    filtered = made("a mug [sim:fail=moderation]")[-1]
    broken = made("a mug [sim:fail=provider]")[-1]
    begun = client.models.generate_videos(
        model=VEO,
        prompt="it turns",
        image=types.Image(image_bytes=b"\x89PNG", mime_type="image/png"),
    )
    longer = client.models.generate_videos(
        model=VEO,
        prompt="it stops",
        video=types.Video(uri="gs://films/today/sample_0.mp4", mime_type="video/mp4"),
    )
    stranger = client_of("sim-bad-key")
    return {
        "version": version("google-genai"),
        "names": [one.name for one in (inline[0], begun, longer)],
        "done": [bool(one.done) for one in inline],
        "films": [one.video.video_bytes[4:8].decode() for one in inline[-1].response.generated_videos],
        "places": [one.video.uri for one in stored.response.generated_videos],
        "filtered": [
            filtered.response.rai_media_filtered_count,
            filtered.response.rai_media_filtered_reasons,
            filtered.response.generated_videos,
        ],
        "error": broken.error,
        "unknown": refusal(
            lambda: client.operations.get(
                types.GenerateVideosOperation(name=f"{inline[0].name.rpartition('/')[0]}/{'0' * 8}")
            )
        ),
        "throttled": refusal(
            lambda: client.models.generate_videos(model=VEO, prompt="a mug [sim:reject=rate]")
        ),
        "bad_key": refusal(lambda: stranger.models.generate_videos(model=VEO, prompt="a mug")),
    }


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
