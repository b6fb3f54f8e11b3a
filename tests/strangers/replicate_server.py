"""A Replicate: a prediction goes one step further each time that it is read.

The model's name says what becomes of it: see `ENDINGS` and `REFUSALS`.
"""

from __future__ import annotations

import base64
import re
import secrets
from typing import Any
from urllib.parse import urlencode

from .stranger import Asked, Refused, Said, Stranger, moment, stamp


TOKEN = "r8_of_a_stranger"
PAGE = 4
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
DELIVERY = "https://replicate.delivery/xezq/abc"

# What a finished prediction of stranger/NAME says, beside what all have.
ENDINGS: dict[str, dict[str, Any]] = {
    "list": {"output": [f"{DELIVERY}/out-0.webp", f"{DELIVERY}/out-1.webp"]},
    "text": {"output": f"{DELIVERY}/out.mp4"},
    "object": {"output": {"audio": f"{DELIVERY}/out.wav", "spectrogram": f"{DELIVERY}/out.png", "bpm": 120}},
    "words": {"output": "a poem about a lighthouse"},
    "number": {"output": 0.73},
    "null": {"output": None},
    "removed": {"output": None, "input": {}, "logs": "", "data_removed": True},
    "failed": {"status": "failed", "error": "CUDA out of memory."},
    "nsfw": {"status": "failed", "error": "NSFW content detected."},
    "canceled": {"status": "canceled"},
    "aborted": {"status": "aborted"},
}
# How a submission of stranger/NAME is turned down.
REFUSALS: dict[str, tuple[int, dict[str, Any]]] = {
    "unpaid": (
        402,
        {"title": "Insufficient credit", "detail": "You have insufficient credit.", "status": 402},
    ),
    "unknown": (404, {"detail": "The requested resource could not be found.", "status": 404}),
    "throttled": (429, {"detail": "Request was throttled. Your rate limit resets in ~30s."}),
    "broken": (500, {"title": "Internal server error", "status": 500}),
    "invalid": (
        422,
        {
            "title": "Input validation failed",
            "detail": "- input.steps: Invalid type. Expected: integer, given: string\n",
            "status": 422,
            "invalid_fields": [
                {"type": "invalid_type", "field": "input.steps", "description": "Expected: integer"}
            ],
        },
    ),
}


class Replicate(Stranger):
    """Replicate's predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.predictions: list[dict[str, Any]] = []

    def answer(self, asked: Asked) -> Said:
        """See `Stranger`."""
        return *self.said(asked), {}

    def said(self, asked: Asked) -> tuple[int, Any]:
        """Status and body."""
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            detail = "You did not pass a valid authentication token"
            raise Refused(401, {"title": "Unauthenticated", "detail": detail, "status": 401})
        match (asked.method, *asked.segments):
            case ("POST", "v1", "predictions"):
                return self.create(asked, None)
            case ("POST", "v1", "models" | "deployments", owner, name, "predictions"):
                return self.create(asked, f"{owner}/{name}")
            case ("GET", "v1", "predictions"):
                return 200, self.page(asked.query)
            case ("GET", "v1", "predictions", id_):
                prediction = self.known(id_)
                advance(prediction)
                return 200, prediction
            case ("POST", "v1", "predictions", id_, "cancel"):
                prediction = self.known(id_)
                if prediction["status"] in ("starting", "processing"):
                    prediction |= {"status": "canceled", "completed_at": stamp()}
                return 200, prediction
            case ("GET", "v1", "account"):
                return 200, {"type": "organization", "username": "acme", "name": "Acme", "github_url": ""}
        raise Refused(404, {"detail": "The requested resource could not be found.", "status": 404})

    def known(self, id_: str) -> dict[str, Any]:
        """The prediction of this id."""
        for prediction in self.predictions:
            if prediction["id"] == id_:
                return prediction
        raise Refused(404, {"title": "Not found", "detail": "Prediction not found", "status": 404})

    def create(self, asked: Asked, model: str | None) -> tuple[int, Any]:
        """A new prediction, by a version or by a model's path."""
        body = asked.body
        version = body.get("version")
        missing = [
            name
            for name, value in (("input", body.get("input")), ("version", model or version))
            if value is None
        ]
        if missing:
            fields = [
                {"type": "required", "field": name, "description": f"{name} is required"} for name in missing
            ]
            detail = "".join(f"- {name} is required\n" for name in missing)
            raise Refused(
                422, {"title": "Invalid", "detail": detail, "status": 422, "invalid_fields": fields}
            )
        if model is None:
            found = re.fullmatch(r"(?:([^/:]+/[^/:]+)(?::([0-9a-f]{64}))?|([0-9a-f]{64}))", version)
            if found is None:
                raise Refused(422, {"title": "Invalid version or not permitted", "status": 422})
            model, version = found[1] or "stranger/list", found[2] or found[3] or "hidden"
        name = model.partition("/")[2]
        if name in REFUSALS:
            raise Refused(*REFUSALS[name])
        id_ = "".join(secrets.choice(ALPHABET) for _ in range(26))
        url = f"{self.url}/v1/predictions/{id_}"
        prediction = {
            "id": id_,
            "model": model,
            "version": version or "hidden",
            "input": body["input"],
            "logs": "",
            "output": None,
            "data_removed": False,
            "error": None,
            "source": "api",
            "status": "starting",
            "created_at": stamp(),
            "urls": {"get": url, "cancel": f"{url}/cancel", "web": f"https://replicate.com/p/{id_}"},
        }
        self.predictions.append(prediction)
        wait = re.fullmatch(r"wait(=\d+)?", asked.headers.get("prefer", ""))
        if wait and name != "slow":
            advance(prediction)
            advance(prediction)
        return (202 if wait and name == "slow" else 201), None if name == "lost" else prediction

    def page(self, query: dict[str, str]) -> dict[str, Any]:
        """The newest first, few to a page, each page with the address of the next one."""
        found = self.predictions[::-1]
        for word in ("created_after", "created_before"):
            if word in query:
                since = moment(query[word])
                if since.tzinfo is None:
                    raise Refused(
                        422, {"title": "Invalid", "detail": f"{word} has no time zone", "status": 422}
                    )
                found = [
                    one for one in found if (moment(one["created_at"]) >= since) == (word == "created_after")
                ]
        start = int(base64.urlsafe_b64decode(query["cursor"]).decode()[2:]) if "cursor" in query else 0
        following = None
        if len(found) > start + PAGE:
            cursor = base64.urlsafe_b64encode(f"o={start + PAGE}".encode()).decode()
            following = f"{self.url}/v1/predictions?{urlencode({**query, 'cursor': cursor})}"
        results = [
            {word: value for word, value in one.items() if word != "logs"}
            for one in found[start : start + PAGE]
        ]
        return {"previous": None, "next": following, "results": results}


def advance(prediction: dict[str, Any]) -> None:
    """One step: starting, processing, and what its model's name says."""
    if prediction["status"] == "starting":
        prediction |= {"status": "processing", "started_at": stamp(), "logs": " 50%|##   | 2/4"}
        if prediction["model"] == "stranger/list":
            prediction["output"] = [f"{DELIVERY}/out-0.webp"]
    elif prediction["status"] == "processing":
        ending = ENDINGS.get(prediction["model"].partition("/")[2], ENDINGS["text"])
        spent = {"predict_time": 4.2, "total_time": 4.9}
        prediction |= {"status": "succeeded", "completed_at": stamp(), "metrics": spent, **ending}
        if prediction["status"] != "succeeded":
            prediction["output"] = None
