"""A Runway: a task goes one step further each time that it is read.

`stranger-NAME` in a request says what becomes of it: see `ENDINGS` and `REFUSALS`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from .media import MADE
from .stranger import Asked, Refused, Said, Stranger, stamp


KEY = "key_" + "5e" * 64
VERSION = "2024-11-06"

# What a task of stranger-NAME says when it has ended, beside what all have.
ENDINGS: dict[str, dict[str, Any]] = {
    "nothing": {"output": []},
    "unsafe": {
        "status": "FAILED",
        "failure": "Your content was flagged by our moderation system.",
        "failureCode": "SAFETY.INPUT.TEXT",
        "cost": {"credits": 25},
    },
    "unsafe_output": {
        "status": "FAILED",
        "failure": "The output was withheld.",
        "failureCode": "SAFETY.OUTPUT.VIDEO",
        "cost": {"credits": 25},
    },
    "blurred": {
        "status": "FAILED",
        "failure": "An unexpected error occurred.",
        "failureCode": "INTERNAL.BAD_OUTPUT.CODE01",
        "cost": {"credits": 0},
    },
    "bad_asset": {
        "status": "FAILED",
        "failure": "The asset could not be decoded.",
        "failureCode": "ASSET.INVALID",
        "cost": {"credits": 0},
    },
    "uncoded": {"status": "FAILED", "failure": "Something went wrong.", "cost": {"credits": 0}},
    "stopped": {"status": "CANCELLED", "cost": {"credits": 12}},
}
# How a submission of stranger-NAME is turned down.
REFUSALS: dict[str, Said] = {
    "unpaid": (400, {"error": "You do not have enough credits to run this task."}, {}),
    "daily": (429, {"error": "You have reached your daily generation limit for this model."}, {}),
    "ingress": (502, "<html><center><h1>502 Bad Gateway</h1></center></html>", {}),
    "busy": (503, {"error": "Service unavailable"}, {}),
    "broken": (500, {"error": "Internal server error"}, {}),
}

# Path -> model -> what must be there; "" is every other model ([O] runway.md, Required arguments).
_PICTURE = "promptText ratio"
REQUIRED: dict[str, dict[str, str]] = {
    "text_to_image": {
        "gen4_image": _PICTURE,
        "gen4_image_turbo": f"{_PICTURE} referenceImages",
        "ideogram_4_5": "promptText",
        "": _PICTURE,
    },
    "text_to_video": {
        "gen4.5": "promptText ratio duration",
        "veo3.1": "promptText ratio",
        "veo3.1_fast": "promptText ratio",
        "kling3.0_pro": "ratio",
        "": "promptText",
    },
    "image_to_video": {
        "gen4.5": "promptImage promptText ratio duration",
        "gen4_turbo": "promptImage ratio",
        "veo3.1": "promptImage ratio",
        "veo3.1_fast": "promptImage ratio",
        "hailuo3": "promptImage promptText",
        "kling2.5_turbo_pro": "promptImage promptText",
        "": "promptImage",
    },
    "video_to_video": {
        "aleph2": "videoUri",
        "kling_4": "videoUri promptText",
        "gemini_omni_flash": "videoUri promptText",
        "hailuo3": "promptVideo promptText",
        "klingO3_pro": "promptVideo promptText",
        "": "promptVideo",
    },
    "character_performance": {"": "character reference"},
    "text_to_speech": {"seed_audio": "promptText", "": "promptText voice"},
    "sound_effect": {"mirelo_sfx_2_0": "promptText duration", "": "promptText"},
    "image_upscale": {"": "imageUri"},
    "video_upscale": {"": "videoUri"},
}
SUFFIX = {"text_to_image": ".png", "image_upscale": ".png", "text_to_speech": ".wav", "sound_effect": ".wav"}


class Runway(Stranger):
    """Runway's tasks.

    :param tombstones: whether what was deleted can still be asked for, and is then `CANCELLED`; both are in
        the vendor's documents.
    """

    def __init__(self, *, tombstones: bool = False) -> None:
        super().__init__()
        self.tombstones = tombstones
        self.tasks: dict[str, dict[str, Any]] = {}
        self.bodies: list[dict[str, Any]] = []

    def answer(self, asked: Asked) -> Said:
        """See `Stranger`."""
        if asked.segments[0] == "cdn":
            return 200, MADE[PurePosixPath(asked.segments[-1]).suffix](), {}
        if not re.fullmatch(r"Bearer key_[0-9a-f]{128}", asked.headers.get("authorization", "")):
            raise Refused(401, {"error": "The API key is missing or malformed."})
        if asked.headers["authorization"] != f"Bearer {KEY}":
            raise Refused(401, {"error": "The API key is not valid."})
        if asked.headers.get("x-runway-version") != VERSION:
            raise Refused(400, {"error": "Header X-Runway-Version is missing or unknown."})
        match (asked.method, *asked.segments):
            case ("GET", "v1", "organization"):
                return 200, {"creditBalance": 4120, "tier": TIER, "usage": {"models": {}}}, {}
            case ("GET", "v1", "tasks", id_):
                return 200, self.step(id_), {}
            case ("DELETE", "v1", "tasks", id_):
                return self.delete(id_)
            case ("POST", "v1", path) if path in REQUIRED:
                return self.submit(path, asked)
            case (_, "v1", "tasks" | "organization", *_):
                raise Refused(405, {"error": "Method not allowed."})
        raise Refused(404, {"error": "Not found."})

    def submit(self, path: str, asked: Asked) -> Said:
        """A new task, if its body is one of its model's."""
        if asked.word in REFUSALS:
            return REFUSALS[asked.word]
        body = asked.body
        wanted = REQUIRED[path]
        if not isinstance(body.get("model"), str):
            raise Refused(400, {"error": "Validation of body failed: model: Required"})
        required = wanted.get(body["model"], wanted[""]).split()
        wrong = [f"{name}: Required" for name in required if name not in body]
        if path != "sound_effect" and type(body.get("duration", 1)) is not int:
            wrong.append("duration: must be a whole number")
        wrong += [
            f"{name}: {form[1]}" for name, form in FORMS.items() if name in body and not form[0](body[name])
        ]
        if wrong:
            raise Refused(400, {"error": f"Validation of body failed: {'; '.join(wrong)}"})
        id_ = str(uuid.uuid4())
        url = f"{self.url}/cdn/{id_}{SUFFIX.get(path, '.mp4')}?_jwt=eyJhbGciOiJIUzI1NiJ9.e30.c2ln"
        self.bodies.append(body)
        self.tasks[id_] = {
            "document": {
                "id": id_,
                "createdAt": stamp(),
                "status": "PENDING",
                "estimatedCost": {"credits": 24.5},
            },
            "ending": {"status": "SUCCEEDED", "cost": {"credits": 25}}
            | {"output": [f"{url}{number}" for number in range(body.get("outputCount", 1))]}
            | ENDINGS.get(asked.word, {}),
            "waits": asked.word == "throttled",
        }
        if self.tasks[id_]["ending"]["status"] != "SUCCEEDED":
            del self.tasks[id_]["ending"]["output"]
        reply = {"id": id_, "estimatedCost": {"credits": 24.5}}
        return 200, None if asked.word == "lost" else reply, {}

    def known(self, id_: str) -> dict[str, Any]:
        """The task of this id."""
        if id_ not in self.tasks:
            raise Refused(404, {"error": "Task not found."})
        return self.tasks[id_]

    def step(self, id_: str) -> dict[str, Any]:
        """One step: pending, perhaps throttled, running, and what its word says."""
        task = self.known(id_)
        document: dict[str, Any] = task["document"]
        if document["status"] == "PENDING" and task["waits"]:
            document["status"] = "THROTTLED"
        elif document["status"] in ("PENDING", "THROTTLED"):
            document |= {"status": "RUNNING", "progress": 0.25}
        elif document["status"] == "RUNNING":
            for name in ("progress", "estimatedCost"):
                del document[name]
            document |= task["ending"]
        return document

    def delete(self, id_: str) -> Said:
        """Stops what has not ended, and forgets what has."""
        document = self.known(id_)["document"]
        if self.tombstones and "estimatedCost" in document:
            del document["estimatedCost"]
            document.pop("progress", None)
            document |= {"status": "CANCELLED", "cost": {"credits": 0}}
        else:
            del self.tasks[id_]
        return 204, b"", {}


TIER = {
    "maxMonthlyCreditSpend": 10000,
    "models": {"gen4.5": {"maxConcurrentGenerations": 2, "maxDailyGenerations": 100}},
}


def is_uri(value: Any) -> bool:
    """Whether it is what Runway fetches, has, or is given."""
    return isinstance(value, str) and bool(re.match(r"https://[\w-]+(\.[\w-]+)+/|data:|runway://", value))


def are_frames(value: Any) -> bool:
    """Whether it is a picture, or pictures with their places."""
    return is_uri(value) or (
        isinstance(value, list)
        and bool(value)
        and all(is_uri(one.get("uri")) and one.get("position") in ("first", "last") for one in value)
    )


def is_person(value: Any) -> bool:
    """Whether it is a picture or a film of somebody."""
    return isinstance(value, dict) and value.get("type") in ("image", "video") and is_uri(value.get("uri"))


# Name -> whether a value is good, and what it must be.
_URI = is_uri, "must be an https URL with a domain name, a data or a runway URI"
FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "promptText": (
        lambda value: isinstance(value, str) and 0 < len(value.encode("utf-16-le")) // 2 <= 1000,
        "must be a text of 1 to 1000 characters",
    ),
    "ratio": (
        lambda value: isinstance(value, str) and bool(re.fullmatch(r"[1-9]\d{2,3}:[1-9]\d{2,3}", value)),
        "must be one of 1280:720, 720:1280",
    ),
    "duration": (lambda value: type(value) in (int, float) and 0.5 <= value <= 60, "must be a number"),
    "outputCount": (lambda value: type(value) is int, "must be a whole number"),
    "seed": (lambda value: type(value) is int, "must be a whole number"),
    "promptImage": (are_frames, "must be a URI, or a list of URIs with their positions, first or last"),
    **dict.fromkeys(("videoUri", "promptVideo", "imageUri", "audioUri"), _URI),
    **dict.fromkeys(("character", "reference"), (is_person, "must be an object with type and uri")),
    "voice": (lambda value: isinstance(value, dict) and "type" in value, "must be an object with a type"),
}
