"""What OpenAI's own client does with the simulator; run in that client's own environment."""

from __future__ import annotations

import json
import sys
import warnings
from importlib.metadata import version
from typing import Any

from openai import APIStatusError, OpenAI


# The vendor has shut its own service down, and says so with every call; others go on serving this shape.
warnings.simplefilter("ignore", DeprecationWarning)


def refusal(ask: Any) -> dict[str, Any]:
    """What the client makes of a refusal."""
    try:
        ask()
    except APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "code": error.code}
    return {}


def main() -> dict[str, Any]:
    """Makes films, also of a picture and of each other, and tells what it saw."""
    client = OpenAI(max_retries=0)
    first = client.videos.create(prompt="a red mug", model="sora-2", seconds="8", size="1280x720")
    film = client.videos.poll(first.id, poll_interval_ms=50)
    content = client.videos.download_content(film.id).read()
    still = client.videos.download_content(film.id, variant="thumbnail").read()
    begun = client.videos.create_and_poll(
        prompt="it turns",
        extra_body={"input_reference": {"image_url": "https://example.com/mug.png"}},
        poll_interval_ms=50,
    )
    held = client.videos.create(prompt="it stops", input_reference=("mug.png", still, "image/png"))
    again = client.videos.remix(film.id, prompt="at night")
    failed = client.videos.create_and_poll(prompt="a mug [sim:fail=moderation]", poll_interval_ms=50)
    for number in range(25):
        client.videos.create(prompt=f"mug {number} [sim:seconds=600]")
    listed = [one.id for one in client.videos.list(limit=10)]
    ascending = [one.id for one in client.videos.list(limit=10, order="asc")]
    gone = client.videos.delete(begun.id)
    stranger, poor = (OpenAI(api_key=key, max_retries=0) for key in ("sim-bad-key", "sim-no-funds"))
    return {
        "version": version("openai"),
        "first": first.to_dict(mode="json"),
        "film": film.to_dict(mode="json"),
        "magic": content[4:8].decode(),
        "still": still[:4].hex(),
        "begun": begun.status,
        "held": held.status,
        "remixed": again.remixed_from_video_id,
        "failed": failed.error.to_dict(mode="json") if failed.error else None,
        "listed": listed,
        "ascending": ascending,
        "deleted": gone.to_dict(mode="json"),
        "unknown": refusal(lambda: client.videos.retrieve("video_" + "0" * 48)),
        "early": refusal(lambda: client.videos.download_content(listed[0])),
        "invalid": refusal(lambda: client.videos.create(prompt="")),
        "bad_key": refusal(lambda: stranger.videos.create(prompt="a mug")),
        "no_money": refusal(lambda: poor.videos.create(prompt="a mug")),
        # The client repeats this by itself, although it was accepted the first time.
        "paid_twice": OpenAI(max_retries=1).videos.create(prompt="a mug [sim:error-after-accept=502*1]").id,
    }


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
