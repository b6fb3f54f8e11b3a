"""A server of `/v1/videos`: a video goes one step further each time that it is read.

`stranger-NAME` in a request says what becomes of it: see `ENDINGS` and `REFUSALS`. What was made is behind
the key, here or, by a redirect, at another address.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

from .media import film, picture
from .stranger import Asked, Refused, Said, Stranger


KEY = "sk-proj-of_a-stranger-0123456789"
SIZES = ("720x1280", "1280x720", "1024x1792", "1792x1024")
SECONDS = ("4", "8", "12")

# What a video of stranger-NAME says when it has ended, beside what all have.
ENDINGS: dict[str, dict[str, Any]] = {
    "moderated": {
        "status": "failed",
        "error": {
            "code": "moderation_blocked",
            "message": "Your request was blocked by our moderation system.",
        },
    },
    "failed": {"status": "failed", "error": {"code": "server_error", "message": "The model had an error."}},
    "silent": {"status": "failed"},
}


def error(
    code: str | None, message: str, kind: str = "invalid_request_error", param: str | None = None
) -> Any:
    """An error's body."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


# How a submission of stranger-NAME is turned down.
REFUSALS: dict[str, Said] = {
    "unpaid": (
        429,
        error("insufficient_quota", "You exceeded your current quota.", "insufficient_quota"),
        {},
    ),
    "throttled": (429, error("rate_limit_exceeded", "Rate limit reached.", "requests"), {"Retry-After": "3"}),
    "blocked": (
        400,
        error("moderation_blocked", "It was rejected by the safety system.", "image_generation_user_error"),
        {},
    ),
    "policy": (400, error("content_policy_violation", "It was rejected."), {}),
    "forbidden": (403, error(None, "Your organization must be verified."), {}),
    "ingress": (502, "<html><center><h1>502 Bad Gateway</h1></center></html>", {}),
    "broken": (500, error(None, "The server had an error.", "server_error"), {}),
}


class Videos(Stranger):
    """A server that speaks `/v1/videos`, the vendor's own or one of those that are like it.

    :param newest_first: in which order it lists unless it is told.
    :param lists: whether it has a list at all.
    :param sends_to: where what was made is; its own address if that is empty.
    :param frugal: whether its documents have nothing that a client can do without.
    """

    def __init__(
        self, *, newest_first: bool = True, lists: bool = True, sends_to: str = "", frugal: bool = False
    ) -> None:
        super().__init__()
        self.newest_first, self.lists, self.sends_to, self.frugal = newest_first, lists, sends_to, frugal
        self.videos: list[dict[str, Any]] = []
        self.endings: dict[str, dict[str, Any]] = {}
        self.bodies: list[dict[str, Any]] = []

    def answer(self, asked: Asked) -> Said:
        """See `Stranger`."""
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            raise Refused(401, error("invalid_api_key", "Incorrect API key provided."))
        match (asked.method, *asked.segments):
            case ("POST", "v1", "videos"):
                return self.create(asked, None)
            case ("POST", "v1", "videos", id_, "remix"):
                return self.create(asked, self.known(id_))
            case ("GET", "v1", "videos") if self.lists:
                return 200, self.page(asked.query), {}
            case ("GET", "v1", "videos", id_):
                return 200, self.seen(self.step(self.known(id_))), {"openai-poll-after-ms": "1000"}
            case ("GET", "v1", "videos", id_, "content"):
                return self.content(asked, self.known(id_))
            case ("GET", "v1", "models"):
                return 200, {"object": "list", "data": [{"id": "sora-2", "object": "model"}]}, {}
        raise Refused(404, error(None, f"Invalid URL ({asked.method} {asked.path})"))

    def known(self, id_: str) -> dict[str, Any]:
        """The video of this id."""
        for video in self.videos:
            if video["id"] == id_:
                return video
        raise Refused(404, error(None, f"Video with id '{id_}' not found."))

    def create(self, asked: Asked, remixed: dict[str, Any] | None) -> Said:
        """A new video, of JSON or a form, perhaps of another one."""
        if asked.word in REFUSALS:
            return REFUSALS[asked.word]
        body = form_of(asked)
        wrong = [
            name
            for name, good in {
                "prompt": isinstance(body.get("prompt"), str) and body["prompt"],
                "model": isinstance(body.get("model", ""), str),
                "seconds": body.get("seconds", "4") in SECONDS,
                "size": body.get("size", SIZES[0]) in SIZES,
                "input_reference": reference_in(body) != "",
            }.items()
            if not good
        ]
        if wrong:
            raise Refused(400, error("invalid_value", f"Invalid value for '{wrong[0]}'.", param=wrong[0]))
        if remixed is not None and remixed["status"] != "completed":
            raise Refused(400, error(None, "Only a completed video can be remixed."))
        now = int(time.time())
        video = {
            "id": f"video_{secrets.token_hex(24)}",
            "object": "video",
            "status": "queued",
            "progress": 0,
            "model": body.get("model", (remixed or {}).get("model", "sora-2")),
            "seconds": body.get("seconds", (remixed or {}).get("seconds", "4")),
            "size": body.get("size", (remixed or {}).get("size", SIZES[0])),
            "prompt": body["prompt"],
            "created_at": now,
            "completed_at": None,
            "expires_at": None,
            "remixed_from_video_id": remixed and remixed["id"],
            "error": None,
        }
        lasting = -1 if asked.word == "expired" else 3600
        self.videos.append(video)
        self.bodies.append(body)
        self.endings[video["id"]] = {
            "status": "completed",
            "progress": 100,
            "completed_at": now,
            "expires_at": now + lasting,
            **ENDINGS.get(asked.word, {}),
        }
        return 200, None if asked.word == "lost" else self.seen(video), {}

    def seen(self, video: dict[str, Any]) -> dict[str, Any]:
        """A video's document."""
        needed = ("id", "status", "created_at", "error")
        return {name: video[name] for name in needed} if self.frugal else video

    def step(self, video: dict[str, Any]) -> dict[str, Any]:
        """One step: queued, at work, and what its word says."""
        if video["status"] == "queued":
            video |= {"status": "in_progress", "progress": 40}
        elif video["status"] == "in_progress":
            video |= self.endings[video["id"]]
        return video

    def content(self, asked: Asked, video: dict[str, Any]) -> Said:
        """What was made, as long as it is there."""
        if video["status"] != "completed" or video["expires_at"] < time.time():
            raise Refused(404, error(None, "The content is not available."))
        if self.sends_to:
            return 302, b"", {"Location": f"{self.sends_to}/bucket/{video['id']}?X-Amz-Signature=0f1e"}
        if asked.query.get("variant", "video") != "video":
            return 200, picture(), {"Content-Type": "image/png"}
        return 200, film(), {"Content-Type": "video/mp4"}

    def page(self, query: dict[str, str]) -> dict[str, Any]:
        """Videos, from behind the one that the page before ended with."""
        limit = int(query.get("limit", "20"))
        if not 1 <= limit <= 100:
            raise Refused(400, error("integer_above_max_value", "Invalid 'limit'.", param="limit"))
        order = query.get("order", "desc" if self.newest_first else "asc")
        found = self.videos[::-1] if order == "desc" else self.videos
        if "after" in query:
            ids = [video["id"] for video in found]
            if query["after"] not in ids:
                raise Refused(404, error(None, f"Video with id '{query['after']}' not found."))
            found = found[ids.index(query["after"]) + 1 :]
        data = [self.seen(video) for video in found[:limit]]
        ends = (
            {"first_id": data[0]["id"], "last_id": data[-1]["id"]}
            if data
            else {"first_id": None, "last_id": None}
        )
        return {"object": "list", "data": data, "has_more": len(found) > limit, **ends}


class Bucket(Stranger):
    """Where a redirect leads: it gives the film to everybody who knows its address."""

    def answer(self, asked: Asked) -> Said:
        """See `Stranger`."""
        return 200, film(), {"Content-Type": "video/mp4"}


def form_of(asked: Asked) -> dict[str, Any]:
    """What was sent, as JSON or as a form."""
    if asked.headers.get("content-type", "").startswith("multipart/form-data"):
        return asked.form
    body = asked.body
    if not isinstance(body, dict):
        raise Refused(400, error(None, "We could not parse the JSON body of your request."))
    return body


def reference_in(body: dict[str, Any]) -> Any:
    """The picture to begin with: a file, an address or a file's id; None without one, empty if it is none."""
    nested = {
        found[1]: value
        for name, value in body.items()
        if (found := re.fullmatch(r"input_reference\[(\w+)\]", name))
    }
    given = nested or body.get("input_reference")
    if given is None or isinstance(given, tuple):
        return given
    one = isinstance(given, dict) and len(given) == 1 and set(given) <= {"file_id", "image_url"}
    return next(iter(given.values())) if one else ""
