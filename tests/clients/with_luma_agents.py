"""What the client of Luma's newer API does with the simulator; run in that client's own environment."""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import httpx
from luma_agents import APIStatusError, Luma


def refusal(ask: Any) -> dict[str, Any]:
    """What the client makes of a refusal."""
    try:
        ask()
    except APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code}
    return {}


def main() -> dict[str, Any]:
    """Makes pictures and films, and tells what it saw."""
    client = Luma(max_retries=0)

    def ended(id_: str) -> list[Any]:
        """A generation as it is at each look until it has ended."""
        seen = [client.generations.get(id_)]
        while seen[-1].state not in ("completed", "failed"):
            time.sleep(0.05)
            seen.append(client.generations.get(id_))
        return seen

    still = client.generations.create(model="uni-1", prompt="a red mug", aspect_ratio="16:9")
    picture = ended(still.id)[-1]
    film = client.generations.create(
        model="ray-3.2",
        type="video",
        prompt="it turns",
        video={"duration": "5s", "resolution": "720p", "start_frame": {"url": picture.output[0].url}},
    )
    looks = ended(film.id)
    edited = client.generations.create(
        model="ray-3.2",
        type="video_edit",
        prompt="at night",
        source={"url": "https://example.com/mug.mp4", "media_type": "video/mp4"},
    )
    failed = client.generations.create(model="uni-1", prompt="a mug [sim:fail=moderation]")
    stranger, poor = (Luma(auth_token=key, max_retries=0) for key in ("sim-bad-key", "sim-no-funds"))
    return {
        "version": version("luma-agents"),
        "picture": picture.output[0].url,
        "magic": httpx.get(picture.output[0].url).content[:4].hex(),
        "states": list(dict.fromkeys(one.state for one in looks)),
        "film": looks[-1].to_dict(mode="json"),
        "edited": ended(edited.id)[-1].output[0].type,
        "failed": ended(failed.id)[-1].failure_code,
        "unknown": refusal(lambda: client.generations.get("123e4567-e89b-42d3-a456-426614174000")),
        "bad_key": refusal(lambda: stranger.generations.create(prompt="a mug", model="uni-1")),
        "no_money": refusal(lambda: poor.generations.create(prompt="a mug", model="uni-1")),
    }


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
