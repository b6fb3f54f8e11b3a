"""VAP's V3 API as `providers/vap.md` describes it; generations B and C of that API are not here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_media_tasks.simulator.provider import Call, Provider, Reply, Route, audio, image, video
from airflow_media_tasks.simulator.world import Output, Refusal, Task, bad_request


_IMAGE_RATIOS = "1:1 16:9 9:16 4:3 3:4 3:2 2:3 21:9 9:21"
_REQUESTS_PER_MINUTE = 1000  # the top tier ([O] vap.md 2.4)

# operation on the wire -> neutral name, price in USD, what it makes, needs media_url, needs prompt
_OPERATIONS: dict[str, tuple[str, str, str, bool, bool]] = {
    "inpaint": ("inpaint_image", "0.1500", "image", True, True),
    "ai_edit": ("edit_image", "0.1500", "image", True, True),
    "background_remove": ("remove_background", "0.1000", "image", True, False),
    "upscale": ("upscale_image", "0.1500", "image", True, False),
    "video_trim": ("trim_video", "0.0500", "video", True, False),
    "video_merge": ("merge_videos", "0.0500", "video", False, False),
}
# preset -> price in USD, the keys of its outputs
_PRESETS = {
    "streaming_campaign": ("5.9000", "video music thumbnail"),
    "full_production": ("7.9000", "video music thumbnail"),
    "video.basic": ("1.9600", "video"),
    "music.basic": ("0.6800", "music"),
    "image.basic": ("0.1800", "image"),
}
_REFUSALS = {
    "auth": (401, "invalid_api_key", "The API key is missing or invalid."),
    "funds": (403, "insufficient_balance", "The balance does not cover this request."),
    "rate": (429, "rate_limit_exceeded", "Too many requests."),
    "concurrency": (429, "rate_limit_exceeded", "Too many tasks of this account are in progress."),
    "moderation": (400, "content_policy_violation", "The description was refused by the content policy."),
    "bad_request": (422, "validation_error", "The request is not valid."),
    "not_found": (404, "task_not_found", "There is no such task."),
    "no_route": (404, "not_found", "Not Found"),
    "server": (500, "internal_error", "Something went wrong."),
}
_FAILURES = {
    "moderation": ("content_policy_violation", "The output was refused by the content policy."),
    "provider": ("provider_error", "The upstream provider failed."),
    "timeout": ("timeout", "The upstream provider did not answer in time."),
}


class Vap(Provider):
    """`POST /v3/tasks` and what belongs to it."""

    name = "vap"

    def routes(self) -> list[Route]:
        """See `Provider.routes`."""
        return [
            Route("POST", "/v3/tasks", "submit", self._create_task),
            Route("GET", "/v3/tasks", "read", self._list_tasks),
            Route("GET", "/v3/tasks/{id}", "read", self._get_task),
            Route("POST", "/v3/operations", "submit", self._create_operation),
            Route("GET", "/v3/operations/{id}", "read", self._get_task),
            Route("POST", "/v3/execute", "submit", self._execute),
            Route("GET", "/v3/agents/me/balance", "read", self._balance),
            Route("GET", "/v3/balance", "read", self._balance),
            Route("GET", "/health", "read", self._health, needs_key=False),
            Route("GET", "/v3/health", "read", self._health, needs_key=False),
            Route("POST", "/mcp/initialize", "read", self._mcp_initialize),
            Route("POST", "/mcp/tools/list", "read", self._mcp_list),
            Route("POST", "/mcp/tools/call", "submit", self._mcp_call),
            Route("*", "/{tail:.*}", "read", self.no_route, needs_key=False),
        ]

    def headers(self, call: Call) -> Mapping[str, str]:
        """`X-RateLimit-*`, on every answer to a known key."""
        if not hasattr(call, "account"):
            return {}
        account, now = call.account, call.stamp(call.world.now())
        minute = int(now // 60)
        if account.minute != minute:
            account.minute, account.requests_this_minute = minute, 0
        account.requests_this_minute += 1
        return {
            "X-RateLimit-Limit": str(_REQUESTS_PER_MINUTE),
            "X-RateLimit-Remaining": str(max(0, _REQUESTS_PER_MINUTE - account.requests_this_minute)),
            "X-RateLimit-Reset": str((minute + 1) * 60),
        }

    def refused(self, refusal: Refusal, call: Call) -> Reply:
        """The vendor's error page's envelope, or one of the two others that were seen (vap.md 5)."""
        status, code, usual = _REFUSALS[refusal.reason]
        message = refusal.message or usual
        if refusal.code is not None:
            code, status = str(refusal.code), 400
        details: dict[str, Any] = {}
        headers: dict[str, str] = {}
        if refusal.reason == "funds":
            setting = call.world.fault("funds_status", self.name, "submit")
            status = setting.fields["status"] if setting else status
            details = {"available": _money(call.account.balance - call.account.reserved)}
        elif refusal.reason in ("rate", "concurrency"):
            wait = 1.0 if refusal.retry_after is None else refusal.retry_after
            details = {"retry_after": wait, "limit": _REQUESTS_PER_MINUTE, "window": 60}
            headers = {"Retry-After": f"{wait:g}"}
        elif refusal.status is not None:
            status = refusal.status
        shape = call.words.text("error") or (call.task.words.text("error") if call.task else None)
        if shape == "text":
            return Reply({"error": message, **details}, status, headers)
        if shape == "detail" or refusal.reason == "no_route":
            return Reply({"detail": message}, status, headers)
        return Reply({"error": {"code": code, "message": message, "details": details}}, status, headers)

    # Submissions.

    async def _create_task(self, call: Call) -> Reply:
        params = call.body.get("params")
        if not isinstance(params, dict):
            bad_request("params must be an object")
        return self._created(self._accept(call, call.body.get("type"), params, call.body))

    def _accept(self, call: Call, kind: Any, params: dict[str, Any], body: dict[str, Any]) -> Task:
        kinds = {"image", "video", "music"}
        name = kind.removesuffix("_generation") if isinstance(kind, str) else ""
        if name not in kinds:
            raise Refusal("bad_request", f"type '{kind}' is invalid", code="invalid_task_type")
        checked = Call(call.world, call.request, "submit", params)
        description = params.get("description") or params.get("prompt")
        if not isinstance(description, str) or not description.strip():
            raise Refusal("bad_request", "description is required", code="invalid_description")
        checked.text("negative_prompt", required=False)
        outputs: tuple[Output, ...]
        if name == "image":
            ratio = checked.choice("aspect_ratio", _IMAGE_RATIOS, "1:1")
            price = "0.2700" if checked.choice("quality", "standard high") == "high" else "0.1800"
            operation, outputs = "text_to_image", (image(),)
        elif name == "video":
            ratio = checked.choice("aspect_ratio", "16:9 9:16", "16:9")
            checked.choice("resolution", "720p 1080p")
            duration = params.get("duration", 8)
            if duration not in (4, 6, 8) or isinstance(duration, bool):
                bad_request(f"duration value '{duration}' is invalid, it must be 4, 6 or 8")
            with_audio = params.get("generate_audio", True)
            if not isinstance(with_audio, bool):
                bad_request("generate_audio must be a boolean")
            price = f"{duration * (0.6 if with_audio else 0.3):.4f}"
            operation = "image_to_video" if checked.text("image_url", required=False) else "text_to_video"
            outputs = (video(float(duration)),)
        else:
            ratio = "1:1"
            seconds = checked.number("duration", 30, 480) or 120.0
            suffix = checked.choice("audio_format", "mp3 wav", "mp3") or "mp3"
            checked.choice("loudness_preset", "streaming apple broadcast")
            checked.text("style", required=False, longest=1000)
            price, operation = "0.6800", "text_to_music"
            outputs = (audio(suffix, seconds), image("cover"), audio(suffix, seconds), image("cover"))
        return self._bill(call, operation, body, outputs, price, "/v3/tasks", ratio)

    async def _create_operation(self, call: Call) -> Reply:
        wire = call.body.get("operation")
        if not isinstance(wire, str) or wire not in _OPERATIONS:
            bad_request(f"operation '{wire}' is invalid, it must be one of {', '.join(_OPERATIONS)}")
        operation, price, kind, needs_url, needs_prompt = _OPERATIONS[wire]
        options = call.body.get("options") or {}
        if not isinstance(options, dict):
            bad_request("options must be an object")
        arguments = Call(call.world, call.request, "submit", {**options, **call.body})
        if needs_url:
            _url(arguments, "media_url")
        arguments.text("prompt", required=needs_prompt)
        if wire == "upscale" and arguments.body.get("scale") not in (None, 2, 4):
            bad_request(f"scale value '{arguments.body['scale']}' is invalid, it must be 2 or 4")
        if wire == "ai_edit" and arguments.body.get("additional_images") is not None:
            arguments.urls("additional_images", 0, 2)
        if wire == "video_trim":
            start, end = arguments.number("start_time", 0, 86400), arguments.number("end_time", 0, 86400)
            if start is None or end is None or start >= end:
                bad_request(
                    "video_trim needs start_time and end_time, in seconds, with start_time < end_time"
                )
        if wire == "video_merge":
            arguments.urls("media_urls", 2, 100)
        outputs = (image(),) if kind == "image" else (video(),)
        ratio = arguments.choice("aspect_ratio", f"{_IMAGE_RATIOS} match_input_image")
        ratio = None if ratio == "match_input_image" else ratio
        task = self._bill(call, operation, call.body, outputs, price, "/v3/operations", ratio)
        return self._created(task)

    async def _execute(self, call: Call) -> Reply:
        preset = call.body.get("preset")
        if not isinstance(preset, str) or preset not in _PRESETS:
            bad_request(f"preset '{preset}' is invalid, it must be one of {', '.join(_PRESETS)}")
        call.text("prompt")
        price, keys = _PRESETS[preset]
        made = {
            "video": video(8.0),
            "music": audio("mp3", 120.0),
            "thumbnail": image("thumbnail"),
            "image": image(),
        }
        outputs = tuple(made[key] for key in keys.split())
        task = self._bill(call, "run_preset", call.body, outputs, price, "/v3/execute", None)
        await call.until_ended(task)
        body: dict[str, Any] = {
            "task_id": task.id,
            "preset": preset,
            "actual_cost": price,
            "estimated_cost": price,
        }
        if task.state(call.world.now()) == "failed":
            body |= {"status": "failed", "actual_cost": None, **_failure(task)}
        else:
            urls = {key: call.url(task, index) for index, key in enumerate(keys.split())}
            body |= {
                "status": task.words.text("final") or "completed",
                "outputs": {} if "no-output" in task.words else urls,
            }
        return Reply(body)

    def _bill(
        self,
        call: Call,
        operation: str,
        body: dict[str, Any],
        outputs: tuple[Output, ...],
        price: str,
        path: str,
        ratio: str | None,
    ) -> Task:
        call.task = call.world.accept(
            call.account,
            operation,
            body,
            call.words,
            outputs,
            amount=price,
            currency="USD",
            path=path,
            host=call.request.host,
            aspect_ratio=ratio,
        )
        return call.task

    def _created(self, task: Task) -> Reply:
        body = {"task_id": task.id, "status": "pending", "estimated_cost": str(task.amount)}
        if task.path == "/v3/operations":
            body["operation_id"] = task.id
        if "no-id" in task.words:
            body.pop("task_id")
            body.pop("operation_id", None)
        return Reply(body)

    # Reads.

    async def _get_task(self, call: Call) -> Reply:
        task = call.world.task(call.account, call.request.match_info["id"])
        if task is None or (task.path != "/v3/operations" and "/operations/" in call.request.path):
            raise Refusal("not_found")
        call.task = task
        return Reply(self._document(call, task))

    async def _list_tasks(self, call: Call) -> Reply:
        query = call.request.query
        wanted = query.get("status")
        if wanted not in (None, "pending", "processing", "completed", "failed"):
            bad_request(f"status value '{wanted}' is invalid")
        limit = call.whole("limit", 10, 1, 50)
        offset = call.whole("offset", 0, 0, 1_000_000_000)
        now = call.world.now()
        tasks = [
            task
            for task in reversed(call.account.tasks)
            if task.visible_from <= now and (wanted is None or _word(task, now) == wanted)
        ]
        page = tasks[offset : offset + limit]
        return Reply(
            {
                "tasks": [self._document(call, task) for task in page],
                "total": len(tasks),
                "limit": limit,
                "offset": offset,
            }
        )

    def _document(self, call: Call, task: Task) -> dict[str, Any]:
        now = call.world.now()
        state = task.state(now)
        word = _word(task, now)
        kind = {"video": "video", "audio": "music"}.get(task.outputs[0].kind, "image")
        document: dict[str, Any] = {
            "task_id": task.id,
            "type": task.request.get("type") or task.request.get("operation") or kind,
            "status": word,
            "params": task.request.get("params", task.request),
            "estimated_cost": str(task.amount),
            "actual_cost": str(task.amount) if state == "succeeded" else None,
            "created_at": call.iso(task.created),
        }
        if state in ("succeeded", "failed"):
            document["completed_at"] = call.iso(task.ended)
        if state == "failed":
            document |= _failure(task)
        elif state == "succeeded" and "no-output" in task.words:
            document["result"] = {}
        elif state == "succeeded":
            document |= self._result(call, task)
        return document

    def _result(self, call: Call, task: Task) -> dict[str, Any]:
        urls = [call.url(task, index) for index in range(len(task.outputs))]
        first = task.outputs[0].kind
        key = f"{first}_url"
        shape = task.words.text("shape") or ("items" if first == "audio" else "nested")
        if shape == "items":
            if first != "audio":
                return {"result": {"items": [{key: urls[0]}]}}
            tracks = zip(urls[::2], urls[1::2], strict=True)
            items = [{"audio_url": sound, "image_url": cover} for sound, cover in tracks]
            # The first track once more: vap-mcp 0.2.1 reads it here, older ones in items ([O] vap.md 4).
            return {"result": {"audio_url": urls[0], "items": items}}
        if shape == "output_url":
            return {"result": {"output_url": urls[0]}}
        if shape == "flat":
            flat: dict[str, Any] = {"image_url": None, "video_url": None, "audio_url": None}
            return {**flat, key: urls[0], "result_url": urls[0], "error": None, "cost": float(task.amount)}
        return {"result": {key: urls[0]}}

    async def _balance(self, call: Call) -> Reply:
        account = call.account
        return Reply(
            {
                "balance": _money(account.balance),
                "currency": "USD",
                "reserved": _money(account.reserved),
                "usable": _money(account.balance - account.reserved),
            }
        )

    async def _health(self, _: Call) -> Reply:
        return Reply({"status": "healthy", "version": "3.0.0"})

    # The vendor's MCP sub-paths, which vap-mcp uses for images and lists ([O] vap.md 1).

    async def _mcp_initialize(self, _: Call) -> Reply:
        return Reply({"protocolVersion": "2024-11-05", "serverInfo": {"name": "vap", "version": "3.0.0"}})

    async def _mcp_list(self, _: Call) -> Reply:
        names = ("generate_image", "get_task", "list_tasks", "check_balance")
        return Reply({"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]})

    async def _mcp_call(self, call: Call) -> Reply:
        tool, arguments = call.body.get("name"), call.body.get("arguments") or {}
        if not isinstance(arguments, dict):
            bad_request("arguments must be an object")
        if tool == "generate_image":
            params = {key: value for key, value in arguments.items() if key != "style"}
            task = self._accept(call, "image", params, {"type": "image", "params": arguments})
            text = f"Image generation task created.\n\nTask ID: {task.id}\nEstimated Cost: ${task.amount}"
        elif tool == "get_task":
            known = call.world.task(call.account, arguments.get("task_id"))
            if known is None:
                raise Refusal("not_found")
            document = self._document(call, known)
            text = "\n".join(f"{key}: {value}" for key, value in document.items())
        elif tool == "list_tasks":
            now = call.world.now()
            recent = call.account.tasks[::-1][: int(arguments.get("limit", 10))]
            text = (
                "\n".join(f"{task.id} {task.operation} {_word(task, now)}" for task in recent) or "No tasks."
            )
        elif tool == "check_balance":
            text = f"Balance: ${_money(call.account.balance)}"
        else:
            bad_request(f"there is no tool '{tool}'")
        return Reply({"content": [{"type": "text", "text": text}]})


_WORDS = {"queued": "pending", "running": "processing", "succeeded": "completed", "failed": "failed"}


def _word(task: Task, now: float) -> str:
    state = task.state(now)
    return task.words.text("status" if now < task.ended else "final") or _WORDS[state]


def _failure(task: Task) -> dict[str, Any]:
    code, message = _FAILURES[task.words.text("fail") or "provider"]
    shape = task.words.text("error")
    if shape == "text":
        return {"error": message}
    if shape == "object":
        return {"error": {"code": code, "message": message}}
    if shape == "detail":
        return {"detail": {"code": code, "message": message}}
    return {"error_message": f"{code}: {message}"}


def _url(call: Call, key: str) -> None:
    value = call.text(key)
    if value is None or not value.startswith(("http://", "https://")):
        bad_request(f"{key} must be a URL")


def _money(amount: Any) -> str:
    return f"{amount:.4f}"
