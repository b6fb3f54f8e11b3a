"""Skylark, simulated: the made-up provider of docs/providers.md, which quotes this."""

# [START howto_skylark_simulator]
from __future__ import annotations

from typing import Any, NoReturn

from airflow_media_tasks.simulator.provider import Call, Provider, Reply, Route, image
from airflow_media_tasks.simulator.world import Refusal, Task


_REFUSALS = {
    "auth": (401, "key"),
    "funds": (402, "empty"),
    "rate": (429, "busy"),
    "concurrency": (429, "busy"),
    "moderation": (400, "indecent"),
    "bad_request": (422, "wrong"),
    "not_found": (404, "unknown"),
    "no_route": (404, "unknown"),
    "server": (500, "broken"),
}
_CODES = {"moderation": "indecent", "provider": "broken", "timeout": "late"}
_PHASES = {"queued": "waiting", "running": "processing", "succeeded": "done", "failed": "failed"}


class Skylark(Provider):
    """`POST /jobs` and what belongs to it."""

    name = "skylark"

    def routes(self) -> list[Route]:
        """See `Provider.routes`."""
        return [
            Route("POST", "/jobs", "submit", self._create),
            Route("GET", "/jobs", "read", self._list),
            Route("GET", "/jobs/{id}", "read", self._get),
            Route("GET", "/purse", "read", self._purse),
            Route("*", "/{tail:.*}", "read", self._no_route, needs_key=False),
        ]

    def refused(self, refusal: Refusal, call: Call) -> Reply:  # one form for all
        """`{"error": {"code", "text"}}`."""
        status, code = _REFUSALS[refusal.reason]
        headers = {"Retry-After": f"{refusal.retry_after or 1:g}"} if status == 429 else {}
        words = {"code": code, "text": refusal.message or f"{code} is invalid"}
        return Reply({"error": words}, refusal.status or status, headers)

    async def _create(self, call: Call) -> Reply:
        upscale = call.body.get("work") == "upscale"
        call.text("image_url" if upscale else "wish")
        call.task = call.world.accept(
            call.account,
            "upscale_image" if upscale else "text_to_image",
            call.body,
            call.words,
            (image(),),
            amount="0.0500",
            currency="USD",
            path="/jobs",
            host=call.request.host,
        )
        return Reply({} if "no-id" in call.words else {"job": call.task.id, "phase": "waiting"})

    async def _get(self, call: Call) -> Reply:
        call.task = call.world.task(call.account, call.request.match_info["id"])
        if call.task is None:
            raise Refusal("not_found")
        return Reply(self._document(call, call.task))

    async def _list(self, call: Call) -> Reply:
        now, page = call.world.now(), int(call.request.query.get("page", "1")) - 1
        tasks = [task for task in reversed(call.account.tasks) if task.visible_from <= now]
        return Reply({"jobs": [self._document(call, task) for task in tasks[page * 20 : page * 20 + 20]]})

    async def _purse(self, call: Call) -> Reply:
        return Reply({"left": f"{call.account.balance - call.account.reserved:.2f}"})

    async def _no_route(self, _: Call) -> NoReturn:
        raise Refusal("no_route")

    def _document(self, call: Call, task: Task) -> dict[str, Any]:
        now = call.world.now()
        state = task.state(now)
        word = task.words.text("status" if now < task.ended else "final") or _PHASES[state]
        width, height = task.size("image")
        made = [{"url": call.url(task, 0), "width": width, "height": height}]
        code = _CODES[task.words.text("fail") or "provider"]
        return {
            "job": task.id,
            "phase": word,
            "asked": task.request,
            "made_at": call.stamp(task.created),
            "price": str(task.amount) if state == "succeeded" else None,
            "pictures": made if state == "succeeded" and "no-output" not in task.words else [],
            "error": {"code": code, "text": f"it is {code}"} if state == "failed" else None,
        }


# [END howto_skylark_simulator]
