"""What fal's own client does with the simulator; run in that client's environment, told by variables."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib.metadata import version
from typing import Any

import fal_client
import fal_client.client
import httpx


FLUX = "fal-ai/flux/dev"
VIDEO = "fal-ai/kling-video/v2.1/standard/image-to-video"

# The client puts https before a host that it is told: this is all that is changed of it.
fal_client.client.QUEUE_URL_FORMAT = os.environ["FAL_QUEUE_URL"]


def failure(ask: Any) -> dict[str, Any]:
    """What the client makes of a refusal, and of a request that failed."""
    try:
        ask()
    except fal_client.FalClientHTTPError as error:
        return {"status": error.status_code, "type": error.error_type, "detail": error.message}
    return {}


async def in_a_loop() -> Any:
    """The client's other half."""
    client = fal_client.AsyncClient()
    handle = await client.submit(FLUX, {"prompt": "a white mug"})
    return await handle.get(interval=0.05)


def main() -> dict[str, Any]:
    """Asks for pictures and films in every way that the client has, and tells what it saw."""
    client = fal_client.SyncClient()
    handle = client.submit(FLUX, {"prompt": "a red mug", "num_images": 2}, priority="low")
    events = [type(event).__name__ for event in handle.iter_events(with_logs=True, interval=0.05)]
    result = handle.get()

    updates: list[str] = []
    film = client.subscribe(
        VIDEO,
        {"prompt": "it turns", "image_url": result["images"][0]["url"]},
        with_logs=True,
        on_queue_update=lambda update: updates.append(type(update).__name__),
    )
    client.submit(
        "acme/own-model", {"any": "thing"}, path="/v2/paint", webhook_url="https://example.com/hook"
    )

    slow = client.submit(FLUX, {"prompt": "a mug [sim:seconds=600]"})
    by_id = type(client.status(FLUX, slow.request_id)).__name__
    client.cancel(FLUX, slow.request_id)
    stopped = client.status(FLUX, slow.request_id)

    stranger = fal_client.SyncClient(key="sim-bad-key")
    poor = fal_client.SyncClient(key="sim-no-funds")
    return {
        "version": version("fal-client"),
        "events": events,
        "result": result,
        "magic": httpx.get(result["images"][0]["url"]).content[:4].hex(),
        "film": film,
        "updates": updates,
        "by_id": by_id,
        "stopped": [type(stopped).__name__, stopped.error, stopped.error_type],
        "cancelled": failure(slow.get),
        "cancelled_twice": failure(slow.cancel),
        "in_a_loop": asyncio.run(in_a_loop()),
        "missing": failure(lambda: client.subscribe(FLUX, {"seed": 7})),
        "flagged": failure(lambda: client.subscribe(FLUX, {"prompt": "a mug [sim:fail=moderation]"})),
        "dropped": failure(lambda: client.subscribe(FLUX, {"prompt": "a mug [sim:fail=provider]"})),
        "bad_key": failure(lambda: stranger.submit(FLUX, {"prompt": "a mug"})),
        "no_money": failure(lambda: poor.submit(FLUX, {"prompt": "a mug"})),
        # The client sends these again by itself, although they were accepted the first time.
        "paid_twice": [
            client.submit(FLUX, {"prompt": f"a mug {word}"}).request_id
            for word in ("[sim:lose-reply*1]", "[sim:error-after-accept=502*1]")
        ],
    }


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
