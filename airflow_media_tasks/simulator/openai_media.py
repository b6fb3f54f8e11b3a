"""`/v1/videos` as `providers/openai_video.md` describes it, without edits, extensions and characters."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from airflow_media_tasks.simulator.provider import Call, Provider, Reply, Route, image, video
from airflow_media_tasks.simulator.world import BAD_KEY, Refusal, Task, bad_request


_KEPT = 86400  # seconds after its end for which a video can be fetched ([I])
_SIZE = re.compile(r"([1-9]\d{1,3})x([1-9]\d{1,3})")

_REFUSALS = {
    "auth": (401, "invalid_api_key", "Incorrect API key provided."),
    "funds": (429, "insufficient_quota", "You exceeded your current quota."),
    "rate": (429, "rate_limit_exceeded", "Rate limit reached."),
    "concurrency": (429, "rate_limit_exceeded", "Too many videos are in progress."),
    "moderation": (400, "moderation_blocked", "The request was blocked by our moderation system."),
    "bad_request": (400, "invalid_value", "The request is not valid."),
    "not_found": (404, "not_found", "Video not found."),
    "no_route": (404, "unknown_url", "Invalid URL."),
    "server": (500, "server_error", "The server had an error."),
}
_FAILURES = {
    "moderation": ("moderation_blocked", "The video was blocked by our moderation system."),
    "provider": ("video_generation_failed", "The video could not be made."),
    "timeout": ("video_generation_failed", "The video took too long."),
}
_WORDS = {"running": "in_progress", "succeeded": "completed", "cancelled": "failed"}


class OpenAIMedia(Provider):
    """`POST /videos`, what belongs to it, and `GET /models`; a key is not needed."""

    name = "openai_media"

    def routes(self) -> list[Route]:
        """See `Provider.routes`."""
        return [
            Route("POST", "/videos", "submit", self._create),
            Route("POST", "/videos/{id}/remix", "submit", self._remix),
            Route("GET", "/videos", "read", self._list),
            Route("GET", "/videos/{id}", "read", self._get),
            Route("DELETE", "/videos/{id}", "read", self._delete),
            Route("GET", "/videos/{id}/content", "read", self._content),
            Route("GET", "/models", "read", self._models),
            Route("*", "/{tail:.*}", "read", self.no_route, needs_key=False),
        ]

    def authenticate(self, call: Call) -> str:
        """Whose key it is; one's own server asks for none."""
        sent = call.request.headers.get("Authorization", "").partition(" ")[2].strip()
        if sent == BAD_KEY:
            raise Refusal("auth")
        return sent or "nobody"

    def headers(self, call: Call) -> Mapping[str, str]:  # noqa: ARG002  # it is always the same
        """When to ask again."""
        return {"openai-poll-after-ms": "1000"}

    def refused(self, refusal: Refusal, call: Call) -> Reply:  # noqa: ARG002  # they are all alike
        """`{"error": {"message", "type", "param", "code"}}`."""
        status, code, words = _REFUSALS[refusal.reason]
        kind = "server_error" if status >= 500 else "invalid_request_error"
        error = {"message": refusal.message or words, "type": kind, "param": None, "code": code}
        wait = {} if refusal.retry_after is None else {"Retry-After": f"{refusal.retry_after:g}"}
        return Reply({"error": error}, refusal.status or status, wait)

    # Submissions.

    async def _create(self, call: Call) -> Reply:
        call.text("prompt")
        seconds, size = str(call.body.get("seconds", 4)), str(call.body.get("size", "720x1280"))
        if not seconds.isdecimal() or not 1 <= int(seconds) <= 60:
            bad_request(f"seconds value '{seconds}' is invalid")
        if not _SIZE.fullmatch(size):
            bad_request(f"size value '{size}' is invalid")
        operation = "image_to_video" if call.body.get("input_reference") else "text_to_video"
        return self._accepted(call, operation, seconds, size)

    async def _remix(self, call: Call) -> Reply:
        call.text("prompt")
        made = self._task(call)
        if made.state(call.world.now()) != "succeeded":
            bad_request("the video to be remixed is not completed")
        shown = _document(call, made)
        return self._accepted(call, "remix_video", shown["seconds"], shown["size"], made)

    def _accepted(
        self, call: Call, operation: str, seconds: str, size: str, made: Task | None = None
    ) -> Reply:
        found = _SIZE.fullmatch(size)
        call.task = call.world.accept(
            call.account,
            operation,
            call.body,
            call.words,
            (video(float(seconds)), image("thumbnail")),
            amount=f"{0.1 * int(seconds):.2f}",
            currency="USD",
            path=made.id if made else "",
            host=call.request.host,
            source=made.name(0) if made else None,
            aspect_ratio=f"{found[1]}:{found[2]}" if found else None,
            expires=_KEPT,
            own_id=f"video_{uuid.uuid4().hex}",
        )
        document = _document(call, call.task)
        if "no-id" in call.words:
            document.pop("id")
        return Reply(document)

    # Reads.

    async def _get(self, call: Call) -> Reply:
        return Reply(_document(call, self._task(call)))

    async def _list(self, call: Call) -> Reply:
        """Newest first unless it is told otherwise; `after` is the last one that was seen."""
        now, limit = call.world.now(), call.whole("limit", 20, 1, 100)
        shown = [task for task in call.account.tasks if task.visible_from <= now]
        if call.request.query.get("order", "desc") == "desc":
            shown.reverse()
        after = call.request.query.get("after")
        if after is not None:
            ids = [task.id for task in shown]
            shown = shown[ids.index(after) + 1 :] if after in ids else []
        page = [_document(call, task) for task in shown[:limit]]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
        return Reply({"object": "list", "data": page, **ends, "has_more": len(shown) > limit})

    async def _delete(self, call: Call) -> Reply:
        task = self._task(call)
        task.visible_from = float("inf")
        return Reply({"id": task.id, "object": "video.deleted", "deleted": True})

    async def _content(self, call: Call) -> Reply:
        """The file itself: no document names an address of it ([O])."""
        task, variant = self._task(call), call.request.query.get("variant", "video")
        is_made = task.state(call.world.now()) == "succeeded" and "no-output" not in task.words
        if not is_made or call.world.has_expired(task) or variant not in ("video", "thumbnail"):
            raise Refusal("not_found", "There is no such file.")
        return Reply(None, file=task.name(0 if variant == "video" else 1))

    async def _models(self, _: Call) -> Reply:
        return Reply({"object": "list", "data": [{"id": "sora-2", "object": "model"}]})

    def _task(self, call: Call) -> Task:
        call.task = call.world.task(call.account, call.request.match_info["id"])
        if call.task is None:
            raise Refusal("not_found")
        return call.task


def _document(call: Call, task: Task) -> dict[str, Any]:
    now = call.world.now()
    state, ended = task.state(now), now >= task.ended
    made = call.world.tasks.get(task.path)
    source: Mapping[str, Any] = task.request if made is None else _document(call, made)
    word = {"running": "status", "succeeded": "final", "failed": "final"}.get(state, "")
    error = _FAILURES[task.words.text("fail") or "provider"] if state == "failed" else None
    done = min(max((now - task.started) / max(task.ended - task.started, 0.001), 0), 1)
    return {
        "id": task.id,
        "object": "video",
        "model": source.get("model", "sora-2"),
        "status": task.words.text(word) or _WORDS.get(state, state),
        "progress": int(100 * done),
        "created_at": int(call.stamp(task.created)),
        "completed_at": int(call.stamp(task.ended)) if state == "succeeded" else None,
        "expires_at": int(call.stamp(task.ended) + (task.expires or 0)) if ended else None,
        "prompt": task.request["prompt"],
        "seconds": str(source.get("seconds", "4")),
        "size": source.get("size", "720x1280"),
        "remixed_from_video_id": task.path or None,
        "error": None if error is None else {"code": error[0], "message": error[1]},
    }
