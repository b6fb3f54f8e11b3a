"""A Luma with both of its APIs: a generation goes one step further each time that it is read.

Dream Machine is at `/dream-machine/v1`, Agents below that at `/agents`. `stranger-NAME` in a request says
what becomes of it: see `ENDINGS`, `AGENTS_ENDINGS` and `REFUSALS`.
"""

from __future__ import annotations

import re
import uuid
from pathlib import PurePosixPath
from typing import Any

from .media import MADE
from .stranger import Asked, Refused, Said, Stranger, stamp


KEY = "luma-7d3c0a52-of-a-stranger"
RATIOS = {"1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21"}
KINDS = {"image", "image_edit", "video", "video_edit", "video_reframe", "layering"}

# What a generation of Dream Machine says when it has ended, beside what all have.
ENDINGS: dict[str, dict[str, Any]] = {
    "moderated": {"state": "failed", "failure_reason": "The output was rejected by our moderation."},
    "failed": {"state": "failed", "failure_reason": "The keyframe could not be downloaded."},
    "silent": {"state": "failed"},
    "nothing": {"assets": None},
    "unfinished": {"assets": {"progress_video": "https://storage.cdn-luma.com/x/progress.mp4"}},
}
# The same of Agents.
AGENTS_ENDINGS: dict[str, dict[str, Any]] = {
    "moderated": {
        "state": "failed",
        "failure_code": "content_moderated",
        "failure_reason": "It was rejected.",
    },
    "failed": {"state": "failed", "failure_code": "generation_failed", "failure_reason": "No luck."},
    "spent": {"state": "failed", "failure_code": "budget_exhausted", "failure_reason": "No budget is left."},
    "nothing": {},
}
# How a submission is turned down, by both.
REFUSALS: dict[str, Said] = {
    "flagged": (400, {"detail": "Prompt not allowed because advanced moderation failed"}, {}),
    "forbidden": (403, {"detail": "This account is suspended"}, {}),
    "unpaid": (402, {"detail": "Insufficient balance"}, {}),
    "throttled": (429, {"detail": "Too many concurrent generations"}, {"Retry-After": "7"}),
    "ingress": (502, "<html><center><h1>502 Bad Gateway</h1></center></html>", {}),
    "busy": (503, {"detail": "Service unavailable"}, {}),
    "broken": (500, {"detail": "Internal Server Error"}, {}),
}


class Luma(Stranger):
    """Luma's generations.

    :param newest_first: the order of the list, which nobody has written down.
    """

    def __init__(self, *, newest_first: bool = True) -> None:
        super().__init__()
        self.newest_first = newest_first
        self.kept: dict[str, dict[str, Any]] = {}
        self.bodies: list[dict[str, Any]] = []

    def answer(self, asked: Asked) -> Said:
        """See `Stranger`."""
        if asked.segments[0] == "cdn":
            return 200, MADE[PurePosixPath(asked.segments[-1]).suffix](), {}
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            raise Refused(401, {"detail": "Invalid API key"})
        match asked.segments:
            case ["dream-machine", "v1", "agents", *segments]:
                return self.agents(asked, segments)
            case ["dream-machine", "v1", *segments]:
                return self.dream_machine(asked, segments)
        raise Refused(404, {"detail": "Not Found"})

    def agents(self, asked: Asked, segments: list[str]) -> Said:
        """What Agents says."""
        match (asked.method, *segments):
            case ("POST", "generations"):
                return self.create_by_agents(asked)
            case ("GET", "generations", id_):
                return 200, self.step(self.known("agents", id_)), {}
            case ("GET", "files"):
                return 200, {"data": [], "has_more": False, "next_cursor": None}, {}
        raise Refused(404, {"detail": "Not Found"})

    def dream_machine(self, asked: Asked, segments: list[str]) -> Said:
        """What Dream Machine says."""
        match (asked.method, *segments):
            case ("GET", "credits"):
                return 200, {"credit_balance": 1234.0}, {}
            case ("GET", "generations"):
                return 200, self.page(asked.query), {}
            case ("GET", "generations", id_):
                return 200, self.step(self.known("dream-machine", id_)), {}
            case ("DELETE", "generations", id_):
                self.known("dream-machine", id_)
                del self.kept[id_]
                return 204, b"", {}
            case ("POST", "generations", ("video" | "image") as kind):
                return self.create(asked, kind)
            case ("POST", "generations", id_, "upscale"):
                self.made(id_)
                return self.create(asked, "upscale_video")
        raise Refused(404, {"detail": "Not Found"})

    def known(self, api: str, id_: str) -> dict[str, Any]:
        """The generation of this id."""
        one = self.kept.get(id_)
        if one is None or one["api"] != api:
            raise Refused(404, {"detail": "Generation not found"})
        return one

    def made(self, id_: str) -> None:
        """Refuses to go on with what is not there or not ready."""
        if self.known("dream-machine", id_)["document"]["state"] != "completed":
            raise Refused(400, {"detail": "The generation is not completed"})

    def create(self, asked: Asked, kind: str) -> Said:
        """A new generation of Dream Machine."""
        if asked.word in REFUSALS:
            return REFUSALS[asked.word]
        body = asked.body
        wrong = wrong_with(body, kind)
        if wrong:
            details = [{"loc": ["body", *place], "msg": why, "type": "value_error"} for place, why in wrong]
            raise Refused(422, {"detail": details})
        for frame in body.get("keyframes", {}).values():
            if frame["type"] == "generation":
                self.made(frame["id"])
        id_ = str(uuid.uuid4())
        film, still = f"{self.url}/cdn/{id_}/video.mp4", f"{self.url}/cdn/{id_}/image.png"
        document = {
            "id": id_,
            "generation_type": "image" if kind == "image" else "video",
            "state": "queued",
            "failure_reason": None,
            "created_at": stamp(),
            "assets": None,
            "model": body.get("model", "ray-2"),
            "request": {"generation_type": kind, **body},
        }
        assets = {"image": still} if kind == "image" else {"video": film, "image": still}
        return self.keep("dream-machine", asked, document, {"state": "completed", "assets": assets}, ENDINGS)

    def create_by_agents(self, asked: Asked) -> Said:
        """A new generation of Agents."""
        if asked.word in REFUSALS:
            return REFUSALS[asked.word]
        body = asked.body
        kind = body.get("type", "image")
        wrong = [name for name in ("model", "type") if name in body and not isinstance(body[name], str)]
        wrong += ["prompt"] if not isinstance(body.get("prompt"), str) else []
        wrong += (
            ["source"]
            if kind in ("image_edit", "video_edit", "video_reframe") and not body.get("source")
            else []
        )
        if "source" in body and not is_reference(body["source"], film=kind.startswith("video")):
            wrong.append("source")
        references = body.get("image_ref", [])
        references = [
            *references,
            *(body.get("video", {}).get(name) for name in ("start_frame", "end_frame")),
        ]
        wrong += ["media reference" for one in references if one is not None and not is_reference(one)]
        wrong += ["type"] if kind not in KINDS else []
        wrong += [
            f"video.{name}" for name in ("duration", "resolution") if not is_text(body.get("video", {}), name)
        ]
        if wrong:
            raise Refused(422, {"detail": f"Wrong or missing: {', '.join(wrong)}"})
        id_ = str(uuid.uuid4())
        document = {
            "id": id_,
            "type": kind,
            "model": body.get("model", "uni-1"),
            "state": "queued",
            "created_at": stamp(),
            "failure_code": None,
            "failure_reason": None,
            "output": [],
        }
        made = "video" if kind.startswith("video") else "image"
        url = f"{self.url}/cdn/{id_}/0{'.mp4' if made == 'video' else '.png'}?X-Amz-Expires=3600"
        output = [{"type": made, "url": url, "layer": None}]
        ending = {"state": "completed", "output": [] if asked.word in AGENTS_ENDINGS else output}
        return self.keep("agents", asked, document, ending, AGENTS_ENDINGS)

    def keep(
        self,
        api: str,
        asked: Asked,
        document: dict[str, Any],
        ending: dict[str, Any],
        endings: dict[str, dict[str, Any]],
    ) -> Said:
        """Accepts a generation; its reply may be lost."""
        ending = ending | endings.get(asked.word, {})
        self.bodies.append(asked.body)
        self.kept[document["id"]] = {"api": api, "document": document, "ending": ending}
        return 201, None if asked.word == "lost" else document, {"X-Request-Id": str(uuid.uuid4())}

    def step(self, one: dict[str, Any]) -> dict[str, Any]:
        """One step: queued, at work, and what its word says."""
        document: dict[str, Any] = one["document"]
        if document["state"] == "queued":
            document["state"] = "dreaming" if one["api"] == "dream-machine" else "processing"
            if document.get("generation_type") == "video":
                document["assets"] = {"progress_video": f"{self.url}/cdn/{document['id']}/progress.mp4"}
        elif document["state"] in ("dreaming", "processing"):
            document |= one["ending"]
            if document["state"] == "failed" and one["api"] == "dream-machine":
                document["assets"] = None
        return document

    def page(self, query: dict[str, str]) -> dict[str, Any]:
        """All generations of Dream Machine."""
        limit, offset = int(query.get("limit", "10")), int(query.get("offset", "0"))
        if not 1 <= limit <= 100:
            raise Refused(
                422, {"detail": [{"loc": ["query", "limit"], "msg": "1 to 100", "type": "value_error"}]}
            )
        found = [one["document"] for one in self.kept.values() if one["api"] == "dream-machine"]
        found = found[::-1] if self.newest_first else found
        return {
            "generations": found[offset : offset + limit],
            "count": len(found),
            "limit": limit,
            "offset": offset,
            "has_more": len(found) > offset + limit,
        }


def wrong_with(body: dict[str, Any], kind: str) -> list[tuple[list[str], str]]:
    """Places in a body of Dream Machine, and what is wrong there."""
    wrong = [
        ([name], "str type expected")
        for name in ("prompt", "duration", "resolution", "aspect_ratio")
        if not is_text(body, name)
    ]
    if kind in ("video", "image") and not isinstance(body.get("model"), str):
        wrong.append((["model"], "field required"))
    if kind == "video" and not ({"prompt", "keyframes"} & set(body)):
        wrong.append((["prompt"], "field required"))
    if not re.fullmatch(r"\d+s", str(body.get("duration", "5s"))):
        wrong.append((["duration"], "must be like 5s"))
    if body.get("aspect_ratio", "1:1") not in RATIOS:
        wrong.append((["aspect_ratio"], f"must be one of {', '.join(sorted(RATIOS))}"))
    if not is_address(body.get("callback_url", "https://example.com/")):
        wrong.append((["callback_url"], "invalid or missing URL scheme"))
    for name, frame in body.get("keyframes", {}).items():
        good = name in ("frame0", "frame1") and (
            (frame.get("type") == "image" and is_address(frame.get("url")))
            or (frame.get("type") == "generation" and isinstance(frame.get("id"), str))
        )
        wrong += [] if good else [(["keyframes", name], "neither an image nor a generation")]
    for name in ("image_ref", "style_ref"):
        wrong += [([name], "needs a URL") for one in body.get(name, []) if not is_address(one.get("url"))]
    if not is_address(body.get("modify_image_ref", {}).get("url", "https://example.com/")):
        wrong.append((["modify_image_ref"], "needs a URL"))
    return wrong


def is_text(body: dict[str, Any], name: str) -> bool:
    """Whether it is a text, or not there."""
    return isinstance(body.get(name, ""), str)


def is_address(value: Any) -> bool:
    """Whether it is a URL of the web."""
    return isinstance(value, str) and bool(re.match(r"https?://\w", value))


def is_reference(value: Any, *, film: bool = False) -> bool:
    """Whether it is exactly one of the four ways in which Agents take media; a film's type is told."""
    if not isinstance(value, dict) or not set(value) <= {
        "url",
        "data",
        "generation_id",
        "file_id",
        "media_type",
    }:
        return False
    told = str(value.get("media_type", "")).startswith("video/" if film else ("image/", "video/"))
    return len(set(value) - {"media_type"}) == 1 and (
        told or not ("data" in value or (film and "url" in value))
    )
