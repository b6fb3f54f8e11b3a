"""Veo by the Gemini API and by Vertex: an operation goes one step further each time that it is read.

The Gemini API takes the key, Vertex a token, and each is at its own paths. `stranger-NAME` in a request says
what becomes of it: see `ENDINGS` and `REFUSALS`.
"""

from __future__ import annotations

import base64
import re
import secrets
import uuid
from typing import Any

from .media import film
from .stranger import Asked, Refused, Said, Stranger


KEY = "AIzaSyOf_a-stranger0123456789012345678"
TOKEN = "ya29.of-a-stranger"
PROJECT, LOCATION = "films-1", "europe-west4"

FILTERED = "The video was filtered because it may violate our usage guidelines. Support codes: 58061214"
# What an operation of stranger-NAME says when it is done.
ENDINGS: dict[str, dict[str, Any]] = {
    "invalid": {"error": {"code": 3, "message": "The image cannot be decoded.", "details": []}},
    "exhausted": {"error": {"code": 8, "message": "The model is overloaded."}},
    "internal": {
        "error": {"code": 13, "message": "Video generation failed due to an internal server issue."}
    },
    "unavailable": {"error": {"code": 14, "message": "The service is unavailable."}},
    "neither": {},
    "empty": {"response": {}},
}


def error(code: int, status: str, message: str, *details: Any) -> Any:
    """An error's body."""
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


# How a submission of stranger-NAME is turned down.
REFUSALS: dict[str, Said] = {
    "throttled": (
        429,
        error(
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota.",
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"},
        ),
        {},
    ),
    "forbidden": (403, error(403, "PERMISSION_DENIED", "Permission denied on the resource."), {}),
    "unknown": (404, error(404, "NOT_FOUND", "models/x is not found for API version v1beta."), {}),
    "ingress": (502, "<html><title>Error 502 (Server Error)!!1</title></html>", {}),
    "busy": (503, error(503, "UNAVAILABLE", "The service is currently unavailable."), {}),
    "broken": (500, error(500, "INTERNAL", "An internal error has occurred."), {}),
}
BAD_KEY = error(
    400,
    "INVALID_ARGUMENT",
    "API key not valid. Please pass a valid API key.",
    {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
    },
)

_BOTH = {"sampleCount", "durationSeconds", "aspectRatio", "resolution", "personGeneration", "negativePrompt"}
PARAMETERS = {
    "gemini": _BOTH,
    "vertex": _BOTH
    | {
        "storageUri",
        "fps",
        "seed",
        "pubsubTopic",
        "enhancePrompt",
        "generateAudio",
        "compressionQuality",
        "resizeMode",
    },
}
WHOLE = ("sampleCount", "durationSeconds", "seed", "fps")


class Veo(Stranger):
    """Both roads to Veo.

    :param sends_to: where the Gemini API's files are; its own address if that is empty.
    :param inline: whether the Gemini API's films stand in the operation itself.
    """

    def __init__(self, *, sends_to: str = "", inline: bool = False) -> None:
        super().__init__()
        self.sends_to, self.inline = sends_to, inline
        self.operations: dict[str, dict[str, Any]] = {}
        self.bodies: list[dict[str, Any]] = []
        self.files: set[str] = set()

    def answer(self, asked: Asked) -> Said:
        """See `Stranger`."""
        version, *segments = asked.segments
        if version == "storage":
            return self.stored(asked)
        if not re.fullmatch(r"v1(?:alpha|beta)?1?", version):
            raise Refused(404, "<html><title>Error 404 (Not Found)!!1</title></html>")
        vertex = segments[0] in ("projects", "publishers")
        return self.vertex(asked, segments) if vertex else self.gemini(asked, segments)

    def stored(self, asked: Asked) -> Said:
        """What Google's storage has, for whom it belongs to."""
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            raise Refused(403, "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>")
        return 200, film(), {"Content-Type": "video/mp4"}

    def gemini(self, asked: Asked, segments: list[str]) -> Said:
        """What the Gemini API says."""
        key = asked.headers.get("x-goog-api-key", asked.query.get("key"))
        if key is None:
            raise Refused(403, error(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers."))
        if key != KEY:
            raise Refused(400, BAD_KEY)
        name = "/".join(segments)
        if asked.method == "POST" and re.fullmatch(r"models/[\w.-]+:predictLongRunning", name):
            return self.submit(asked, name.partition(":")[0], "gemini")
        if asked.method == "GET" and name in ("models", "models/veo-3.1-generate-preview"):
            return 200, {"models": [{"name": "models/veo-3.1-generate-preview"}]}, {}
        if asked.method == "GET" and name in self.operations:
            return 200, self.step(name), {}
        if asked.method == "GET" and name in self.files:
            if self.sends_to:
                return 302, b"", {"Location": f"{self.sends_to}/download/{name}?alt=media"}
            return 200, film(), {"Content-Type": "video/mp4"}
        raise Refused(404, error(404, "NOT_FOUND", "Requested entity was not found."))

    def vertex(self, asked: Asked, segments: list[str]) -> Said:
        """What Vertex says."""
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            message = "Request had invalid authentication credentials."
            raise Refused(401, error(401, "UNAUTHENTICATED", message))
        name, _, verb = "/".join(segments).partition(":")
        here = f"projects/{PROJECT}/locations/{LOCATION}/publishers/google/models/"
        if asked.method == "GET" and name.startswith(("publishers/google/models", here)):
            return 200, {"name": name, "publisherModels": []}, {}
        if not name.startswith(here):
            raise Refused(403, error(403, "PERMISSION_DENIED", f"Permission denied on resource {name}."))
        if (asked.method, verb) == ("POST", "predictLongRunning"):
            return self.submit(asked, name, "vertex")
        if (asked.method, verb) == ("POST", "fetchPredictOperation"):
            operation = asked.body.get("operationName", "")
            if operation in self.operations and operation.startswith(f"{name}/operations/"):
                return 200, self.step(operation), {}
            raise Refused(404, error(404, "NOT_FOUND", f"Operation {operation} not found."))
        raise Refused(404, error(404, "NOT_FOUND", "Not found."))

    def submit(self, asked: Asked, resource: str, road: str) -> Said:
        """A new operation."""
        if asked.word in REFUSALS:
            return REFUSALS[asked.word]
        body = asked.body
        wrong = wrong_with(body, road)
        if wrong:
            raise Refused(400, error(400, "INVALID_ARGUMENT", f"Invalid JSON payload received. {wrong}"))
        own = str(uuid.uuid4()) if road == "vertex" else secrets.token_hex(6)
        name = f"{resource}/operations/{own}"
        self.bodies.append(body)
        self.operations[name] = {"road": road, "asked": asked, "reads": 0}
        return 200, None if asked.word == "lost" else {"name": name}, {}

    def step(self, name: str) -> dict[str, Any]:
        """One step: nothing is said, then still nothing, then all."""
        operation = self.operations[name]
        operation["reads"] += 1
        if operation["reads"] < 2:
            return {"name": name, "metadata": {"@type": "type.googleapis.com/x.Metadata"}}
        if "ending" not in operation:
            made = {"response": self.made(operation["asked"], operation["road"])}
            operation["ending"] = ENDINGS.get(operation["asked"].word, made)
        return {"name": name, "done": True, **operation["ending"]}

    def made(self, asked: Asked, road: str) -> dict[str, Any]:
        """What was made, without what was filtered."""
        parameters = asked.body.get("parameters", {})
        count = parameters.get("sampleCount", 1)
        filtered = {"filtered": count, "partly": 1}.get(asked.word, 0)
        told = (
            {"raiMediaFilteredCount": filtered, "raiMediaFilteredReasons": [FILTERED] * filtered}
            if filtered
            else {}
        )
        videos = [self.video(road, parameters, index) for index in range(count - filtered)]
        if road == "vertex":
            kind = "type.googleapis.com/cloud.ai.large_models.vision.GenerateVideoResponse"
            return {"@type": kind, **({"videos": videos} if videos else {}), **told}
        samples = [{"video": video} for video in videos]
        return {"generateVideoResponse": {**({"generatedSamples": samples} if samples else {}), **told}}

    def video(self, road: str, parameters: dict[str, Any], index: int) -> dict[str, Any]:
        """One film, where it is or as it is."""
        content = base64.b64encode(film()).decode()
        if road == "vertex" and "storageUri" in parameters:
            folder = parameters["storageUri"].rstrip("/")
            return {"gcsUri": f"{folder}/{secrets.token_hex(4)}/sample_{index}.mp4", "mimeType": "video/mp4"}
        if road == "vertex":
            return {"bytesBase64Encoded": content, "mimeType": "video/mp4"}
        if self.inline:
            return {"encodedVideo": content, "encoding": "video/mp4"}
        name = f"files/{secrets.token_hex(6)}:download"
        self.files.add(name)
        return {"uri": f"{self.url}/v1beta/{name}?alt=media"}


class Storage(Stranger):
    """Where a redirect leads: it gives the film to everybody who knows its address."""

    def answer(self, asked: Asked) -> Said:
        """See `Stranger`."""
        return 200, film(), {"Content-Type": "video/mp4"}


def wrong_with(body: Any, road: str) -> str:
    """What is wrong with a submission's body; empty if nothing is."""
    instances = body.get("instances") if isinstance(body, dict) else None
    if not isinstance(instances, list) or len(instances) != 1:
        return "instances must be a list of one"
    (instance,), parameters = instances, body.get("parameters", {})
    if not {"prompt", "image", "video"} & set(instance) or not isinstance(instance.get("prompt", ""), str):
        return "one of prompt (a string), image and video is required"
    strange = set(instance) - {"prompt", "image", "lastFrame", "video", "referenceImages", "mask"}
    strange |= set(parameters) - PARAMETERS[road]
    if strange:
        return f'Unknown name "{min(strange)}"'
    for name in WHOLE:
        if name in parameters and type(parameters[name]) is not int:
            return f"{name} must be a whole number"
    for name in ("image", "lastFrame", "video"):
        if name in instance and not is_media(instance[name], road, name):
            return f"{name} must have gcsUri or bytes with mimeType"
    return "lastFrame needs image" if "lastFrame" in instance and "image" not in instance else ""


def is_media(value: Any, road: str, name: str) -> bool:
    """Whether it is a picture or a film as this road takes it."""
    if road == "gemini" and name == "video":
        return isinstance(value, dict) and ("uri" in value or {"encodedVideo", "encoding"} <= set(value))
    inline = isinstance(value, dict) and {"bytesBase64Encoded", "mimeType"} <= set(value)
    if inline:
        return bool(base64.b64decode(value["bytesBase64Encoded"], validate=True))
    return road == "vertex" and str(value.get("gcsUri", "")).startswith("gs://") and "mimeType" in value
