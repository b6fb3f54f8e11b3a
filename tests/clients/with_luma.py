"""What Luma's own client does with the simulator; run in that client's own environment."""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import httpx
from lumaai import APIStatusError, LumaAI


def refusal(ask: Any) -> dict[str, Any]:
    """What the client makes of a refusal."""
    try:
        ask()
    except APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "body": error.body}
    return {}


def ended(client: LumaAI, id_: str) -> list[Any]:
    """A generation as it is at each look until it has ended."""
    seen = [client.generations.get(id_)]
    while seen[-1].state not in ("completed", "failed"):
        time.sleep(0.05)
        seen.append(client.generations.get(id_))
    return seen


def main() -> dict[str, Any]:
    """Makes films and pictures, one of the other, and tells what it saw."""
    client = LumaAI(max_retries=0)
    still = client.generations.image.create(model="photon-1", prompt="a red mug", aspect_ratio="16:9")
    picture = ended(client, still.id)[-1]
    film = client.generations.create(
        model="ray-2",
        prompt="it turns",
        duration="5s",
        resolution="720p",
        keyframes={"frame0": {"type": "image", "url": picture.assets.image}},
        callback_url="https://example.com/hook?ref=7",
    )
    looks = ended(client, film.id)
    longer = client.generations.video.create(
        model="ray-2", prompt="it stops", keyframes={"frame0": {"type": "generation", "id": film.id}}
    )
    larger = client.generations.upscale(film.id, resolution="1080p")
    failed = client.generations.video.create(model="ray-2", prompt="a mug [sim:fail=moderation]")
    for number in range(30):
        client.generations.image.create(model="photon-flash-1", prompt=f"mug {number}")
    page = client.generations.list(limit=20, offset=0)
    following = client.generations.list(limit=20, offset=20)
    stranger, poor = (LumaAI(auth_token=key, max_retries=0) for key in ("sim-bad-key", "sim-no-funds"))
    return {
        "version": version("lumaai"),
        "picture": picture.assets.image,
        "magic": httpx.get(picture.assets.image).content[:4].hex(),
        "states": list(dict.fromkeys(one.state for one in looks)),
        "film": looks[-1].assets.video,
        "echo": looks[-1].to_dict(mode="json")["request"],
        "created": looks[-1].created_at.isoformat(),
        "longer": ended(client, longer.id)[-1].assets.video,
        "larger": ended(client, larger.id)[-1].assets.video,
        "failed": ended(client, failed.id)[-1].failure_reason,
        "pages": [[one.id for one in page.generations], [one.id for one in following.generations]],
        "more": [page.has_more, following.has_more],
        "credits": client.credits.get().credit_balance,
        "unknown": refusal(lambda: client.generations.get("123e4567-e89b-42d3-a456-426614174000")),
        "invalid": refusal(lambda: client.generations.create(model="ray-2", prompt="x", duration=5)),  # type: ignore[arg-type]  # what is wrong with it
        "bad_key": refusal(lambda: stranger.generations.image.create(model="photon-1", prompt="a mug")),
        "no_money": refusal(lambda: poor.generations.image.create(model="photon-1", prompt="a mug")),
        # The client repeats this by itself, although it was accepted the first time.
        "paid_twice": LumaAI(max_retries=1)
        .generations.image.create(model="photon-1", prompt="a mug [sim:error-after-accept=502*1]")
        .id,
    }


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
