"""A fal: a request goes one step further each time that its status is read.

The last part of its endpoint says what becomes of it: see `ENDINGS` and `REFUSALS`. The queue is at the root,
the platform API under `/platform`.
"""

from __future__ import annotations

import base64
import uuid
from datetime import timezone
from typing import Any

from .stranger import Asked, Refused, Said, Stranger, moment, stamp


KEY = "1b7e6a52-0f0e-4c3a-b1a8-0d6f7f3f2c11:d2f1e0a94c6b4d7d8e3f"
MEDIA = "https://v3.fal.media/files/rabbit"
FLAGGED = {
    "loc": ["body", "prompt"],
    "msg": "The content could not be processed because it contained material flagged by a content checker.",
    "type": "content_policy_violation",
    "url": "https://docs.fal.ai/errors#content_policy_violation",
    "ctx": {"extra_info": {"reason": "partner_validation_failed"}},
    "input": "THE PROMPT THAT NOBODY IS TO LOG",
    "categories": ["violence"],
}
MISSING = {
    "type": "missing",
    "loc": ["body", "prompt"],
    "msg": "Field required",
    "input": {"seed": "THE PROMPT THAT NOBODY IS TO LOG"},
}

# What a completed request to stranger/app/NAME says: more of its status document, and its result.
ENDINGS: dict[str, tuple[dict[str, Any], Said]] = {
    "images": (
        {},
        (
            200,
            {
                "images": [
                    {"url": f"{MEDIA}/a.png", "width": 1024, "height": 576, "content_type": "image/png"},
                    {"url": f"{MEDIA}/b.jpg", "width": 1024, "height": 576, "content_type": "image/jpeg"},
                ],
                "seed": 7,
                "timings": {"inference": 0.4},
                "has_nsfw_concepts": [False, False],
                "prompt": "as on https://example.com/fox.png",
            },
            {},
        ),
    ),
    "image": ({}, (200, {"image": {"url": f"{MEDIA}/up", "file_size": 9, "content_type": "image/webp"}}, {})),
    "video": ({}, (200, {"video": {"url": f"{MEDIA}/out.mp4", "duration": 5.2, "fps": 24}}, {})),
    "audio": ({}, (200, {"audio": {"url": f"{MEDIA}/out.wav", "file_name": "out.wav"}}, {})),
    "audio_url": ({}, (200, {"audio_url": f"{MEDIA}/out.mp3"}, {})),
    "nothing": ({}, (200, {"images": []}, {})),
    # An error of the model, told by the status too, and one that only the result tells.
    "flagged": ({"error": "content_policy_violation"}, (422, {"detail": [FLAGGED]}, {})),
    "silent": ({}, (422, {"detail": [FLAGGED]}, {"X-Fal-Retryable": "false"})),
    "missing": ({}, (422, {"detail": [MISSING]}, {})),
    "slow_model": (
        {},
        (504, {"detail": [{**MISSING, "type": "generation_timeout"}]}, {"X-Fal-Retryable": "1"}),
    ),
    "no_path": ({}, (404, {"detail": "Path /no_path not found"}, {})),
    # An error of the queue, which the status names.
    "dropped": (
        {"error": "Runner disconnected", "error_type": "runner_disconnected"},
        (
            503,
            {"detail": "Runner disconnected", "error_type": "runner_disconnected"},
            {"X-Fal-Error-Type": "runner_disconnected"},
        ),
    ),
    "late": (
        {"error": "Request timed out", "error_type": "request_timeout"},
        (
            504,
            {"detail": "Request timed out", "error_type": "request_timeout"},
            {"X-Fal-Request-Timeout-Type": "user", "X-Fal-Error-Type": "request_timeout"},
        ),
    ),
}
CANCELLED: tuple[dict[str, Any], Said] = (
    {"error": "Request cancelled", "error_type": "client_cancelled"},
    (499, {"detail": "Request cancelled", "error_type": "client_cancelled"}, {}),
)
# How a submission to stranger/app/NAME is turned down.
REFUSALS: dict[str, Said] = {
    "unpaid": (
        403,
        {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard."},
        {},
    ),
    "forbidden": (403, {"detail": "Your key may not use this application."}, {}),
    "unknown": (404, {"detail": "Application 'unknown' not found"}, {}),
    "throttled": (
        429,
        {"detail": "Too many requests", "error_type": "concurrent_requests_limit"},
        {"Retry-After": "3"},
    ),
    "ingress": (502, "<html><center><h1>502 Bad Gateway</h1></center><hr>nginx</html>", {}),
    "broken": (500, {"detail": "Internal error", "error_type": "internal_error"}, {"x-fal-request-id": "x"}),
}


class Fal(Stranger):
    """fal's queue and its platform API."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[dict[str, Any]] = []

    def answer(self, asked: Asked) -> Said:
        """See `Stranger`."""
        segments = asked.segments
        if asked.headers.get("authorization") != f"Key {KEY}":
            said = {"detail": "No user found for Key ID and Secret"}
            raise (
                Refused(401, {"error": {"type": "authorization_error", "message": said["detail"]}})
                if segments[0] == "platform"
                else Refused(401, said)
            )
        match (asked.method, *segments):
            case ("GET", "platform", "v1", "models", "requests", "by-endpoint"):
                return 200, self.page(asked.query), {}
            case ("GET", "platform", "v1", "models", *_):
                return 200, {"models": [], "prices": [], "next_cursor": None, "has_more": False}, {}
            case ("GET", owner, app, "requests", id_, "status"):
                return status_of(self.known(f"{owner}/{app}", id_))
            case ("GET", owner, app, "requests", id_):
                one = self.known(f"{owner}/{app}", id_)
                if one["ended_at"] is None:
                    raise Refused(400, {"detail": "Request is still in progress"})
                result: Said = one["ending"][1]
                return result
            case ("PUT", owner, app, "requests", id_, "cancel"):
                return self.cancel(f"{owner}/{app}", id_)
            case ("POST", _, _, *_):
                return self.submit("/".join(segments), asked.body)
        raise Refused(404, {"detail": f"Path {asked.path} not found"})

    def known(self, app: str, id_: str) -> dict[str, Any]:
        """The request of this id and app; a path that has more of the endpoint in it is another app's."""
        for one in self.kept:
            if one["request_id"] == id_ and "/".join(one["endpoint_id"].split("/")[:2]) == app:
                return one
        raise Refused(404, {"detail": "Request not found"})

    def submit(self, endpoint: str, body: Any) -> Said:
        """A new request: whatever JSON it is, it is taken, and looked at later."""
        name = endpoint.rpartition("/")[2]
        if name in REFUSALS:
            raise Refused(*REFUSALS[name])
        id_ = str(uuid.uuid4())
        here = f"{self.url}/{'/'.join(endpoint.split('/')[:2])}/requests/{id_}"
        self.kept.append(
            {
                "request_id": id_,
                "endpoint_id": endpoint,
                "sent_at": stamp(),
                "started_at": None,
                "ended_at": None,
                "input": body,
                "ending": ENDINGS.get(name, ENDINGS["images"]),
                "urls": {
                    "response_url": here,
                    "status_url": f"{here}/status",
                    "cancel_url": f"{here}/cancel",
                },
            }
        )
        reply = {"request_id": id_, "gateway_request_id": id_, **self.kept[-1]["urls"]}
        return 200, None if name == "lost" else reply, {"x-fal-request-id": id_}

    def cancel(self, app: str, id_: str) -> Said:
        """Stops a request that has not ended; the words are of no use, the status code is."""
        one = self.known(app, id_)
        if one["ended_at"] is not None:
            return 400, {"status": "ALREADY_COMPLETED"}, {}
        one |= {"ended_at": stamp(), "started_at": one["started_at"] or stamp(), "ending": CANCELLED}
        return 202, {"success": True}, {}

    def page(self, query: dict[str, str]) -> dict[str, Any]:
        """What has ended, the latest first."""
        wanted = query["endpoint_id"].split(",")
        limit = int(query.get("limit", "50"))
        if not 1 <= limit <= 100 or len(wanted) > 50:
            message = "limit is from 1 to 100, of endpoints there are at most 50"
            raise Refused(400, {"error": {"type": "validation_error", "message": message}})
        bounds = (("start", "2000-01-01T00:00:00Z"), ("end", "2999-01-01T00:00:00Z"))
        since, until = (moment(query.get(word, usual)) for word, usual in bounds)
        since, until = (each if each.tzinfo else each.replace(tzinfo=timezone.utc) for each in (since, until))
        found = [
            one
            for one in self.kept
            if one["ended_at"] and one["endpoint_id"] in wanted and since <= moment(one["ended_at"]) < until
        ]
        found.sort(key=lambda one: str(one["ended_at"]), reverse=True)
        number = int(base64.b64decode(query.get("cursor", "MQ==")))
        more = len(found) > number * limit
        cursor = base64.b64encode(str(number + 1).encode()).decode() if more else None
        with_payloads = "payloads" in query.get("expand", "")
        items = [item_of(one, with_payloads) for one in found[(number - 1) * limit : number * limit]]
        return {"items": items, "next_cursor": cursor, "has_more": more}


def status_of(one: dict[str, Any]) -> Said:
    """One step: waiting, at work, and what its endpoint says."""
    document = {"request_id": one["request_id"], **one["urls"]}
    if one["ended_at"] is not None:
        more = {"logs": None, "metrics": {"inference_time": 3.7}, **one["ending"][0]}
        return 200, {"status": "COMPLETED", **document, **more}, {}
    if one["started_at"] is None:
        one["started_at"] = stamp()
        return 202, {"status": "IN_QUEUE", "queue_position": 3, **document}, {}
    one["ended_at"] = stamp()
    return 202, {"status": "IN_PROGRESS", "logs": None, **document}, {}


def item_of(one: dict[str, Any], with_payloads: bool) -> dict[str, Any]:
    """A request as the list shows it."""
    status, output, _ = one["ending"][1]
    item = {word: one[word] for word in ("request_id", "endpoint_id", "sent_at", "started_at", "ended_at")}
    item |= {"status_code": status, "duration": 3.7}
    return item | ({"json_input": one["input"], "json_output": output} if with_payloads else {})
