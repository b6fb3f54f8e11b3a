"""A ComfyUI server as `providers/comfyui.md` describes it, without uploads, masks and its websocket.

Each key is a server of its own here, and so is having none.
"""

from __future__ import annotations

from typing import Any

from airflow_media_tasks.simulator.comfyui_graphs import (
    MISSING,
    classes_of,
    error,
    errors_in,
    is_canonical,
    outputs_of,
    wrong,
)
from airflow_media_tasks.simulator.provider import Call, Provider, Reply, Route
from airflow_media_tasks.simulator.world import BAD_KEY, Refusal, Task


_WORDS = {"queued": "pending", "running": "in_progress", "succeeded": "completed"}
# The server itself refuses bad requests alone; anything else is said by a proxy in front of it.
_REFUSALS = {
    "auth": (401, "unauthorized", "Unauthorized"),
    "rate": (429, "rate_limited", "Too many requests"),
    "concurrency": (429, "rate_limited", "Too many requests"),
    "bad_request": (400, "invalid_prompt", "Cannot execute this prompt"),
    "server": (500, "internal", "Internal Server Error"),
}
_FAILURES = {
    "provider": ("torch.OutOfMemoryError", "Allocation on device would exceed allowed memory."),
    "timeout": ("TimeoutError", "The model took too long."),
}


class ComfyUI(Provider):
    """`POST /prompt`, queue, jobs and history, and `GET /view`."""

    name = "comfyui"

    def routes(self) -> list[Route]:
        """See `Provider.routes`."""
        return [
            Route("POST", "/prompt", "submit", self._prompt),
            Route("POST", "/api/prompt", "submit", self._prompt),
            Route("GET", "/api/jobs", "read", self._jobs),
            Route("GET", "/api/jobs/{id}", "read", self._job),
            Route("POST", "/api/jobs/{id}/cancel", "read", self._cancel),
            Route("GET", "/history", "read", self._history),
            Route("GET", "/history/{id}", "read", self._history),
            Route("GET", "/queue", "read", self._queue),
            Route("POST", "/queue", "read", self._take_out),
            Route("POST", "/interrupt", "read", self._interrupt),
            Route("GET", "/view", "read", self._view),
            Route("*", "/{tail:.*}", "read", self.no_route, needs_key=False),
        ]

    def authenticate(self, call: Call) -> str:
        """There is no key, unless a proxy in front asks for one."""
        sent = call.request.headers.get("Authorization", "").partition(" ")[2]
        if sent == BAD_KEY:
            raise Refusal("auth")
        return sent or "nobody"

    def refused(self, refusal: Refusal, call: Call) -> Reply:  # noqa: ARG002  # they are all alike
        """`{"error": {...}, "node_errors": {...}}`, or a bare text for what is not there."""
        if refusal.reason == "no_route":
            return Reply("404: Not Found", 404)
        if refusal.reason not in _REFUSALS:
            return Reply({"error": "Job not found"}, 404)
        status, kind, words = _REFUSALS[refusal.reason]
        wait = {} if refusal.retry_after is None else {"Retry-After": f"{refusal.retry_after:g}"}
        body = error(str(refusal.code or kind), refusal.message or words, {})
        return Reply(body, refusal.status or status, wait)

    # Submissions.

    async def _prompt(self, call: Call) -> Reply:
        own_id, nodes = call.body.get("prompt_id"), call.body.get("prompt")
        if own_id is not None and not is_canonical(own_id):
            wrong("invalid_prompt_id", "prompt_id must be a valid UUID")
        if nodes is None:
            wrong("no_prompt", "No prompt provided")
        classes = classes_of(nodes)
        if own_id in call.world.tasks:
            return Reply({"error": "prompt_id already exists"}, 409)
        errors = errors_in(nodes)
        outputs = () if MISSING in str(nodes) else outputs_of(nodes, errors)
        if errors and not outputs:
            said = error("prompt_outputs_failed_validation", "Prompt outputs failed validation", errors)
            return Reply(said, 400)
        if not outputs:
            wrong("prompt_no_outputs", "Prompt has no outputs")
        call.task = call.world.accept(
            call.account,
            "text_to_image" if classes.count("KSampler") == 1 else "run",
            call.body,
            call.words,
            outputs,
            amount="0.0000",
            currency="USD",
            path="/prompt",
            host=call.request.host,
            own_id=own_id,
        )
        reply = {"prompt_id": call.task.id, "number": len(call.account.tasks), "node_errors": errors}
        if "no-id" in call.words:
            reply.pop("prompt_id")
        return Reply(reply)

    # Reads.

    async def _job(self, call: Call) -> Reply:
        return Reply(_document(call, self._task(call), is_whole=True))

    async def _jobs(self, call: Call) -> Reply:
        """All of them, or a page; newest first, and without what each has made ([O])."""
        offset, limit = call.whole("offset", 0, 0, 10**9), call.whole("limit", 10**6, 1, 10**6)
        known = self._tasks(call)[::-1]
        page = [_document(call, task, is_whole=False) for task in known[offset : offset + limit]]
        paging = {"offset": offset, "limit": limit, "total": len(known)}
        return Reply({"jobs": page, "pagination": {**paging, "has_more": len(known) > offset + limit}})

    async def _history(self, call: Call) -> Reply:
        """Of all, or of one, that have ended."""
        wanted = call.request.match_info.get("id")
        ended = [task for task in self._tasks(call) if call.world.now() >= task.ended]
        shown = {task.id: _document(call, task, is_whole=True) for task in ended if wanted in (None, task.id)}
        told = {
            id_: {
                "prompt": _item(call.world.tasks[id_]),
                "outputs": document["outputs"],
                "status": document["execution_status"],
            }
            for id_, document in shown.items()
        }
        return Reply(told)

    async def _queue(self, call: Call) -> Reply:
        """What runs and what waits."""
        now = call.world.now()
        left = [task for task in self._tasks(call) if now < task.ended]
        running = [_item(task) for task in left if now >= task.started]
        return Reply(
            {"queue_running": running, "queue_pending": [_item(task) for task in left][len(running) :]}
        )

    async def _take_out(self, call: Call) -> Reply:
        """What waits is taken out of the queue; what runs stays ([O])."""
        for task in self._tasks(call):
            if task.id in call.body.get("delete", []) and call.world.now() < task.started:
                self._stop(call, task)
        return Reply({})

    async def _interrupt(self, call: Call) -> Reply:
        """What runs is interrupted: the prompt that is named, or whichever it is ([O])."""
        now, wanted = call.world.now(), call.body.get("prompt_id")
        for task in self._tasks(call):
            if task.started <= now < task.ended and wanted in (None, task.id):
                self._stop(call, task)
        return Reply({})

    async def _cancel(self, call: Call) -> Reply:
        """Of what has ended, or never was, it is false ([O])."""
        task = call.world.task(call.account, call.request.match_info["id"])
        if task is None or call.world.now() >= task.ended:
            return Reply({"cancelled": False})
        self._stop(call, task)
        return Reply({"cancelled": True})

    def _stop(self, call: Call, task: Task) -> None:
        """What runs is interrupted, what waits is nowhere any more ([O])."""
        now = call.world.now()
        if now < task.started:
            task.visible_from = float("inf")
        call.account.cancel(task, now)

    def _tasks(self, call: Call) -> list[Task]:
        """The server's own, oldest first."""
        return [task for task in call.account.tasks if task.visible_from <= call.world.now()]

    async def _view(self, call: Call) -> Reply:
        name = call.request.query.get("filename", "")
        if "/" in name or ".." in name:
            wrong("invalid_filename", "Invalid filename")
        found = call.world.output_of(name)
        if found is None or found[0].account is not call.account:
            raise Refusal("not_found")
        call.task = found[0]
        return Reply(None, file=name)

    def _task(self, call: Call) -> Task:
        call.task = call.world.task(call.account, call.request.match_info["id"])
        if call.task is None:
            raise Refusal("not_found")
        return call.task


# What is shown of a prompt.


def _item(task: Task) -> list[Any]:
    """A prompt as the history holds it."""
    extra = {**(task.request.get("extra_data") or {}), "create_time": int(task.created * 1000)}
    return [0, task.id, task.request["prompt"], extra, []]


def _document(call: Call, task: Task, *, is_whole: bool) -> dict[str, Any]:
    now = call.world.now()
    state, has_ended = task.state(now), now >= task.ended
    word = {"running": "status", "succeeded": "final", "failed": "final"}.get(state, "")
    created, started, ended = (int(call.stamp(at) * 1000) for at in (task.created, task.started, task.ended))
    document: dict[str, Any] = {
        "id": task.id,
        "status": task.words.text(word) or _WORDS.get(state, state),
        "priority": 0,
        "create_time": created,
    }
    made = _made(task) if state == "succeeded" and "no-output" not in task.words else {}
    files = [file for kinds in made.values() for items in kinds.values() for file in items]
    told: dict[str, Any] = {"prompt_id": task.id, "timestamp": ended}
    if state == "failed":
        kind, words = _FAILURES[task.words.text("fail") or "provider"]
        told |= {"node_id": "5", "exception_type": kind, "exception_message": words, "traceback": []}
        document["execution_error"] = told
    document["outputs_count"] = len(files)
    if files:
        document["preview_output"] = {**files[0], "nodeId": next(iter(made))}
    if has_ended:
        document |= {"execution_start_time": started, "execution_end_time": ended}
    if is_whole:
        graph, extra = _item(task)[2:4]
        document["workflow"] = {"prompt": graph, "extra_data": extra}
    if is_whole and has_ended:
        how = {"succeeded": "success", "cancelled": "interrupted"}.get(state, "error")
        begun = {"prompt_id": task.id, "timestamp": started}
        messages = [["execution_start", begun], [f"execution_{how}", told]]
        status = "success" if state == "succeeded" else "error"
        done = {"status_str": status, "completed": state == "succeeded", "messages": messages}
        document |= {"outputs": made, "execution_status": done}
    return document


def _made(task: Task) -> dict[str, dict[str, list[dict[str, str]]]]:
    """Films stand among the images ([3]); what only previews is of the type temp ([O])."""
    made: dict[str, dict[str, list[dict[str, str]]]] = {}
    for index, output in enumerate(task.outputs):
        key = "audio" if output.kind == "audio" else "images"
        kind = "temp" if output.role == "preview" else "output"
        file = {"filename": task.name(index), "subfolder": "", "type": kind}
        made.setdefault(f"{kind} {key}", {}).setdefault(key, []).append(file)
    return made
