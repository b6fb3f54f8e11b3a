"""Runway's API as `providers/runway.md` describes it, without uploads, workflows, recipes and avatars."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from airflow_media_tasks.simulator.provider import Call, Provider, Reply, Route
from airflow_media_tasks.simulator.world import Output, Refusal, Task, bad_request


_VERSION = "2024-11-06"
_RATIO = re.compile(r"[1-9]\d{2,3}:[1-9]\d{2,3}")  # pixels ([O])
_LONGEST = 1000  # UTF-16 units of a prompt, for Runway's own models ([O] runway.md)

# Why something is refused -> HTTP status and words. That a day's limit is the only 429 is [O]; its words and
# those of an empty account were captured ([3] runwayml/sdk-python#23, sdk-node#28), the others are ours.
_REFUSALS = {
    "auth": (401, "The API key is invalid."),
    "funds": (400, "You do not have enough credits to run this task."),
    "rate": (429, "Too many requests."),
    "concurrency": (429, "Your daily task limit has been reached."),
    "moderation": (400, "The input did not pass moderation."),
    "bad_request": (400, "The request is not valid."),
    "not_found": (404, "No such task."),
    "no_route": (404, "Not found."),
    "server": (500, "Something went wrong."),
}
_FAILURES = {
    "moderation": ("SAFETY.INPUT.TEXT", "The text did not pass moderation."),
    "provider": ("INTERNAL.BAD_OUTPUT.CODE01", "The result was not good enough."),
    "timeout": ("INTERNAL", "An unexpected error occurred."),
}
_WORDS = {"queued": "PENDING"}


class _Endpoint(NamedTuple):
    """What one path makes.

    :param credits: what it costs.
    :param needs: arguments that all of its models want, `a|b` for either.
    """

    operation: str
    kind: Any
    suffix: str
    credits: int
    needs: str


_ENDPOINTS = {
    "text_to_image": _Endpoint("text_to_image", "image", "png", 8, "promptText"),
    "text_to_video": _Endpoint("text_to_video", "video", "mp4", 25, "promptText"),
    "image_to_video": _Endpoint("image_to_video", "video", "mp4", 25, "promptImage"),
    "video_to_video": _Endpoint("video_to_video", "video", "mp4", 75, "videoUri|promptVideo"),
    "video_upscale": _Endpoint("upscale_video", "video", "mp4", 10, "videoUri"),
    "character_performance": _Endpoint("character_performance", "video", "mp4", 25, "character reference"),
    "text_to_speech": _Endpoint("text_to_speech", "audio", "mp3", 1, "promptText"),
    "sound_effect": _Endpoint("sound_effect", "audio", "mp3", 2, "promptText"),
}
# What a model wants beside that; one that nobody has heard of is taken as it comes.
_MODELS = {
    "text_to_image": {"gen4_image": "ratio", "gen4_image_turbo": "ratio referenceImages"},
    "text_to_video": {"gen4.5": "ratio duration", "veo3.1": "ratio", "veo3.1_fast": "ratio"},
    "image_to_video": {
        "gen4.5": "promptText ratio duration",
        "gen4_turbo": "ratio",
        "veo3.1": "ratio",
        "veo3.1_fast": "ratio",
    },
    "video_to_video": {
        "aleph2": "videoUri",
        "kling_4": "videoUri promptText",
        "hailuo3": "promptVideo promptText",
        "seedance2": "promptVideo",
    },
    "text_to_speech": {"eleven_multilingual_v2": "voice", "eleven_v3": "voice", "eleven_v4": "voice"},
}


class Runway(Provider):
    """`POST /v1/{endpoint}`, `GET` and `DELETE /v1/tasks/{id}`, and `GET /v1/organization`."""

    name = "runway"

    def routes(self) -> list[Route]:
        """See `Provider.routes`."""
        return [
            *(Route("POST", f"/v1/{endpoint}", "submit", self._create) for endpoint in _ENDPOINTS),
            Route("GET", "/v1/tasks/{id}", "read", self._get),
            Route("DELETE", "/v1/tasks/{id}", "read", self._delete),
            Route("GET", "/v1/organization", "read", self._organization),
            Route("*", "/{tail:.*}", "read", self.no_route, needs_key=False),
        ]

    def authenticate(self, call: Call) -> str:
        """The key, and the header that must be there."""
        key = super().authenticate(call)
        if call.request.headers.get("X-Runway-Version") != _VERSION:
            bad_request(f"X-Runway-Version must be {_VERSION}")
        return key

    def refused(self, refusal: Refusal, call: Call) -> Reply:  # noqa: ARG002  # they are all alike
        """`{"error": ...}`; what is wrong with an argument stands beside it."""
        status, words = _REFUSALS[refusal.reason]
        wait = {} if refusal.retry_after is None else {"Retry-After": f"{refusal.retry_after:g}"}
        body: dict[str, Any] = {"error": words}
        if refusal.message:
            body["issues"] = [{"message": refusal.message}]
        return Reply(body, refusal.status or status, wait)

    async def _create(self, call: Call) -> Reply:
        path = call.request.path.rpartition("/")[2]
        endpoint, model = _ENDPOINTS[path], call.text("model") or ""
        for names in f"{endpoint.needs} {_MODELS.get(path, {}).get(model, '')}".split():
            if not any(call.body.get(name) for name in names.split("|")):
                bad_request(f"{names.split('|')[0]}: Required")
            if names == "ratio" and not _RATIO.fullmatch(str(call.body["ratio"])):
                bad_request(f"ratio: Invalid option, got {call.body['ratio']}")
        prompt = call.body.get("promptText")
        if model.startswith("gen4") and len(str(prompt or "").encode("utf-16-le")) > 2 * _LONGEST:
            bad_request(f"promptText: Too big: expected string to have <={_LONGEST} characters")
        count = call.number("outputCount", 1, 10, whole=True) or 1
        ratio = _RATIO.fullmatch(str(call.body.get("ratio")))
        task = call.task = call.world.accept(
            call.account,
            endpoint.operation,
            call.body,
            call.words,
            tuple(Output(endpoint.kind, endpoint.suffix) for _ in range(int(count))),
            amount=str(endpoint.credits * int(count)),
            currency="credits",
            path=path,
            host=call.request.host,
            aspect_ratio=ratio and ratio[0],
        )
        accepted = {"id": task.id, "estimatedCost": {"credits": int(task.amount)}}
        if "no-id" in task.words:
            accepted.pop("id")
        return Reply(accepted)

    async def _get(self, call: Call) -> Reply:
        return Reply(self._document(call, _task(call)))

    async def _delete(self, call: Call) -> Reply:
        """Stops what runs. What has ended is deleted, with its results ([O] runway.md)."""
        task, now = _task(call), call.world.now()
        if now < task.ended:
            call.account.cancel(task, now)
        else:
            task.visible_from = float("inf")
        return Reply(None, 204)

    async def _organization(self, call: Call) -> Reply:
        left = int(call.account.balance - call.account.reserved)
        return Reply({"creditBalance": left, "tier": {"models": {}}, "usage": {"models": {}}})

    def _document(self, call: Call, task: Task) -> Mapping[str, Any]:
        now = call.world.now()
        state, spent = task.state(now), {"credits": int(task.amount)}
        word = task.words.text("final" if now >= task.ended else "status") if state != "queued" else None
        moment = datetime.fromtimestamp(call.stamp(task.created), timezone.utc)
        document: dict[str, Any] = {
            "id": task.id,
            "createdAt": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z",
            "status": word or _WORDS.get(state, state.upper()),
        }
        if now < task.ended:
            document["estimatedCost"] = spent
            if state == "running":
                document["progress"] = round((now - task.started) / (task.ended - task.started), 2)
        elif state == "succeeded":
            made = () if "no-output" in task.words else task.outputs
            document |= {"cost": spent, "output": [call.url(task, number) for number in range(len(made))]}
        else:
            document["cost"] = {"credits": 0}
        if state == "failed":
            code, words = _FAILURES[task.words.text("fail") or "provider"]
            document |= {"failure": words, "failureCode": code}
        return document


def _task(call: Call) -> Task:
    """The task that the path names. Raises Refusal if there is none."""
    call.task = call.world.task(call.account, call.request.match_info["id"])
    if call.task is None:
        raise Refusal("not_found")
    return call.task
