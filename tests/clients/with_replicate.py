"""What Replicate's own client does with the simulator; run in that client's own environment."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

import httpx
import replicate
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError


FLUX = "black-forest-labs/flux-schnell"
PINNED = "stability-ai/sdxl:7762fd07cf82c948538e41f63f77d685e02b063e37e496e96eefd46c929f9bdc"


def refusal(ask: Any) -> dict[str, Any]:
    """What the client makes of a refusal."""
    try:
        ask()
    except ReplicateError as error:
        return {"status": error.status, "title": error.title, "detail": error.detail}
    return {}


def failure(ask: Any) -> str:
    """What the client makes of a prediction that ended failed."""
    try:
        ask()
    except ModelError as error:
        return str(error)
    return ""


def main() -> dict[str, Any]:
    """Runs models in every way that the client has, and tells what it saw."""
    by_model = replicate.run(FLUX, input={"prompt": "a red mug", "num_outputs": 2}, use_file_output=False)
    by_version = replicate.run(PINNED, input={"prompt": "a blue mug"}, use_file_output=False)
    patient = replicate.run("google/veo-3", input={"prompt": "it turns"}, wait=False, use_file_output=False)

    polled = replicate.predictions.create(model=FLUX, input={"prompt": "a green mug"})
    at_first = polled.status
    polled.wait()

    slow = replicate.predictions.create(version=PINNED, input={"prompt": "a mug [sim:seconds=600]"})
    slow.cancel()
    slow.reload()
    polled.cancel()
    polled.reload()

    failed = failure(lambda: replicate.run(FLUX, input={"prompt": "a mug [sim:fail=moderation]"}))

    for number in range(120):
        replicate.predictions.create(model=FLUX, input={"prompt": f"mug {number} [sim:seconds=600]"})
    pages = list(replicate.paginate(replicate.predictions.list))
    stranger = Client(api_token="sim-bad-key")
    return {
        "version": version("replicate"),
        "by_model": by_model,
        "by_version": by_version,
        "patient": patient,
        "magic": httpx.get(by_model[0]).content[:4].hex(),
        "polled": [at_first, polled.status, polled.output, polled.metrics],
        "cancelled": slow.status,
        "failed": failed,
        "pages": [[prediction.id for prediction in page.results] for page in pages],
        "account": Client().accounts.current().type,
        "invalid": refusal(lambda: replicate.run(FLUX, input={"seed": 7})),
        "bad_key": refusal(lambda: stranger.run(FLUX, input={"prompt": "a mug"})),
        "throttled": refusal(lambda: replicate.run(FLUX, input={"prompt": "a mug [sim:reject=rate]"})),
    }


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
