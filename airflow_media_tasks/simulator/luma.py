"""Luma's Dream Machine and Agents APIs as `providers/luma_official.md` describes them, without files."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from airflow_media_tasks.simulator.provider import Call, Provider, Reply, Route, image, video
from airflow_media_tasks.simulator.world import Output, Refusal, Task, bad_request


_AGENTS = "/agents"
_MAKES = "image image_edit layering video video_edit video_reframe"  # of Agents
_RATIO = re.compile(r"[1-9]\d?:[1-9]\d?")
_PRICES = {"image": "0.0150", "video": "0.5000"}  # USD, which only the ledger and the balance show

# How Dream Machine says that there is no money is not established ([I] luma_official.md).
_REFUSALS = {
    "auth": (401, "Invalid API key"),
    "funds": (400, "Insufficient credits"),
    "rate": (429, "Too many requests"),
    "concurrency": (429, "Too many concurrent generations"),
    "moderation": (400, "The prompt was stopped by content moderation"),
    "not_found": (404, "Generation not found"),
    "no_route": (404, "Not Found"),
    "server": (500, "Internal Server Error"),
}
_FAILURES = {
    "moderation": ("content_moderated", "The output was stopped by content moderation"),
    "provider": ("generation_failed", "The generation could not be made"),
    "timeout": ("generation_failed", "The generation took too long"),
}


class Luma(Provider):
    """`POST /generations/...` of Dream Machine, and Agents below `/agents`."""

    name = "luma"

    def routes(self) -> list[Route]:
        """See `Provider.routes`."""
        return [
            Route("POST", "/generations", "submit", self._film),
            Route("POST", "/generations/video", "submit", self._film),
            Route("POST", "/generations/image", "submit", self._picture),
            Route("POST", "/generations/{id}/upscale", "submit", self._upscale),
            Route("GET", "/generations", "read", self._list),
            Route("GET", "/generations/{id}", "read", self._get),
            Route("GET", "/credits", "read", self._credits),
            Route("GET", "/ping", "read", self._ping),
            Route("POST", f"{_AGENTS}/generations", "submit", self._agents_create),
            Route("GET", f"{_AGENTS}/generations/{{id}}", "read", self._agents_get),
            Route("GET", f"{_AGENTS}/files", "read", self._agents_files),
            Route("*", "/{tail:.*}", "read", self.no_route, needs_key=False),
        ]

    def headers(self, call: Call) -> Mapping[str, str]:
        """Agents names each request, by the caller's name for it if there is one."""
        if not call.request.path.startswith(f"/{self.name}{_AGENTS}/"):
            return {}
        own = call.request.headers.get("X-Request-Id") or str(uuid.uuid4())
        return {"X-Request-Id": own, "X-API-Version": "2026-04-01"}

    def refused(self, refusal: Refusal, call: Call) -> Reply:
        """`{"detail": ...}`: a text, or what is wrong with which argument."""
        if refusal.reason == "bad_request":
            word = refusal.message.partition(" ")[0]
            wrong = {"type": "value_error", "loc": ["body", word], "msg": refusal.message}
            return Reply({"detail": [wrong]}, 422)
        status, words = _REFUSALS[refusal.reason]
        if refusal.reason == "funds" and call.request.path.startswith(f"/{self.name}{_AGENTS}/"):
            status, words = 402, "Insufficient balance"
        wait = {} if refusal.retry_after is None else {"Retry-After": f"{refusal.retry_after:g}"}
        return Reply({"detail": refusal.message or words}, refusal.status or status, wait)

    # Dream Machine.

    async def _film(self, call: Call) -> Reply:
        call.text("model")
        frames = call.body.get("keyframes") or {}
        first = frames.get("frame0") or {}
        call.text("prompt", required=not frames)
        operation, source = ("image_to_video" if first else "text_to_video"), None
        if first.get("type") == "generation":
            operation, source = "extend_video", self._finished(call, first.get("id")).name(0)
        duration = call.body.get("duration")
        if duration is not None and not re.fullmatch(r"[1-9]\d*s", str(duration)):
            bad_request(f"duration value '{duration}' is invalid")
        return self._accepted(call, operation, _film(), source)

    async def _picture(self, call: Call) -> Reply:
        call.text("model")
        call.text("prompt", required="modify_image_ref" not in call.body)
        changes = bool(call.body.get("modify_image_ref") or call.body.get("image_ref"))
        reply = self._accepted(call, "image_to_image" if changes else "text_to_image", (image(),))
        if call.body.get("sync") and call.task is not None:
            await call.until_ended(call.task, call.number("sync_timeout", 0, 600) or 60)
            return Reply(_generation(call, call.task), 201)
        return reply

    async def _upscale(self, call: Call) -> Reply:
        made = self._finished(call, call.request.match_info["id"])
        return self._accepted(call, "upscale_video", _film(), made.name(0))

    def _finished(self, call: Call, own_id: Any) -> Task:
        """The film that is gone on with."""
        task = call.world.task(call.account, own_id)
        if task is None or task.state(call.world.now()) != "succeeded" or task.outputs[0].kind != "video":
            bad_request(f"generation '{own_id}' is no finished video")
        return task

    def _accepted(
        self, call: Call, operation: str, outputs: tuple[Output, ...], source: str | None = None
    ) -> Reply:
        ratio = str(call.body.get("aspect_ratio"))
        call.task = call.world.accept(
            call.account,
            operation,
            call.body,
            call.words,
            outputs,
            amount=_PRICES[outputs[0].kind],
            currency="USD",
            path=call.request.path,
            host=call.request.host,
            client_ref=call.body.get("callback_url"),
            source=source,
            aspect_ratio=ratio if _RATIO.fullmatch(ratio) else None,
        )
        document = (_agents if operation.startswith("agents/") else _generation)(call, call.task)
        if "no-id" in call.words:
            document.pop("id")
        return Reply(document, 201)

    async def _get(self, call: Call) -> Reply:
        return Reply(_generation(call, self._task(call, is_agents=False)))

    async def _list(self, call: Call) -> Reply:
        """Newest first ([I])."""
        limit, offset = call.whole("limit", 10, 1, 100), call.whole("offset", 0, 0, 10**9)
        now = call.world.now()
        shown = [
            task for task in reversed(call.account.tasks) if not _is_agents(task) and task.visible_from <= now
        ]
        page = [_generation(call, task) for task in shown[offset : offset + limit]]
        more = len(shown) > offset + limit
        paging = {"count": len(shown), "has_more": more, "limit": limit, "offset": offset}
        return Reply({"generations": page, **paging})

    async def _credits(self, call: Call) -> Reply:
        return Reply({"credit_balance": int(100 * (call.account.balance - call.account.reserved))})

    async def _ping(self, _: Call) -> Reply:
        return Reply({"message": "pong"})

    # Agents.

    async def _agents_create(self, call: Call) -> Reply:
        made = str(call.choice("type", _MAKES, "image"))
        call.text("prompt")
        kind, has_frame = made.partition("_")[0], bool((call.body.get("video") or {}).get("start_frame"))
        if made in ("image_edit", "video_edit") and not call.body.get("source"):
            bad_request("source is required")
        usual = "image_to_video" if has_frame else f"text_to_{kind}"
        operation = {"image_edit": "image_to_image", "video_edit": "edit_video"}.get(made, usual)
        return self._accepted(call, f"agents/{operation}", (video() if kind == "video" else image(),))

    async def _agents_get(self, call: Call) -> Reply:
        return Reply(_agents(call, self._task(call, is_agents=True)))

    async def _agents_files(self, _: Call) -> Reply:
        return Reply({"data": [], "has_more": False, "next_cursor": None})

    def _task(self, call: Call, *, is_agents: bool) -> Task:
        task = call.world.task(call.account, call.request.match_info["id"])
        if task is None or _is_agents(task) != is_agents:
            raise Refusal("not_found")
        call.task = task
        return task


def _film() -> tuple[Output, ...]:
    """A film and its thumbnail."""
    return video(), image("thumbnail")


def _is_agents(task: Task) -> bool:
    return task.operation.startswith("agents/")


def _state(call: Call, task: Task, running: str) -> str:
    state = task.state(call.world.now())
    word = {"running": "status", "succeeded": "final", "failed": "final"}.get(state, "")
    return task.words.text(word) or {"running": running, "succeeded": "completed"}.get(state, state)


def _generation(call: Call, task: Task) -> dict[str, Any]:
    """What Dream Machine shows of a task; a film is shown while it is made, too ([O])."""
    state, kind = task.state(call.world.now()), task.outputs[0].kind
    urls = [call.url(task, index) for index in range(len(task.outputs))]
    assets: dict[str, str] | None = None
    if state == "running" and kind == "video":
        assets = {"progress_video": urls[0]}
    elif state == "succeeded" and "no-output" not in task.words:
        assets = {kind: urls[0], **({"image": urls[1]} if kind == "video" else {})}
    hidden = {"callback_url"} if "no-echo" in task.words else set()
    return {
        "id": task.id,
        "generation_type": kind,
        "state": _state(call, task, "dreaming"),
        "failure_reason": _FAILURES[task.words.text("fail") or "provider"][1] if state == "failed" else None,
        "created_at": call.iso(task.created),
        "assets": assets,
        "model": task.request.get("model"),
        "request": {word: value for word, value in task.request.items() if word not in hidden},
    }


def _agents(call: Call, task: Task) -> dict[str, Any]:
    state, has_output = task.state(call.world.now()), "no-output" not in task.words
    made = [{"type": task.outputs[0].kind, "url": call.url(task, 0)}]
    code, words = _FAILURES[task.words.text("fail") or "provider"] if state == "failed" else (None, None)
    return {
        "id": task.id,
        "type": task.request.get("type", "image"),
        "model": task.request.get("model", "uni-1"),
        "state": _state(call, task, "processing"),
        "created_at": call.iso(task.created),
        "failure_code": code,
        "failure_reason": words,
        "output": made if state == "succeeded" and has_output else [],
    }
