"""fal's queue, and the list of its platform API, as `providers/fal.md` describes them."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from airflow_media_tasks.simulator.media import CONTENT_TYPES
from airflow_media_tasks.simulator.provider import Call, Provider, Reply, Route, audio, image, video
from airflow_media_tasks.simulator.world import Output, Refusal, Task, bad_request


# The endpoint's own path is not part of it ([O] fal.md, Submit).
_REQUEST = "/{app:(?:(?:workflows|comfy)/)?[^/]+/[^/]+}/requests/{id}"
_DAY = 86400  # seconds

# What an endpoint's id has in it -> neutral operation, USD, what it makes, what it needs (`a|b`: either).
# The first that fits; the last are models that nobody has heard of.
_MODELS = {
    "image-to-video": ("image_to_video", 0.5, "video", "prompt image_url"),
    "text-to-video|/veo": ("text_to_video", 0.5, "video", "prompt"),
    "upscal|esrgan": ("upscale_image", 0.02, "image", "image_url"),
    "image-to-image|/edit|kontext": ("image_to_image", 0.03, "image", "prompt image_url|image_urls"),
    "tts|speech": ("text_to_speech", 0.05, "audio", "prompt|text"),
    "music|lyria|stable-audio": ("text_to_music", 0.05, "audio", "prompt"),
    "text-to-image|/flux|imagen|banana|seedream": ("text_to_image", 0.03, "image", "prompt"),
    "video": ("run", 0.5, "video", ""),
    "audio|sound": ("run", 0.05, "audio", ""),
    "": ("run", 0.03, "image", ""),
}
_SIZES = {
    "square": "1:1",
    "square_hd": "1:1",
    "landscape_4_3": "4:3",
    "landscape_16_9": "16:9",
    "portrait_4_3": "3:4",
    "portrait_16_9": "9:16",
}
_MAKES: dict[str, Callable[[], Output]] = {"image": image, "video": video, "audio": lambda: audio("mp3")}
# Why something is refused or fails -> HTTP status, type, words, and the argument if it is the model's error.
_ERRORS = {
    "auth": (401, "authorization_error", "No user found for Key ID and Secret", ""),
    "funds": (403, "authorization_error", "User is locked. Reason: Exhausted balance.", ""),
    "rate": (429, "rate_limited", "Too many requests, please slow down.", ""),
    "concurrency": (429, "concurrent_requests_limit", "Too many concurrent requests.", ""),
    "moderation": (422, "content_policy_violation", "A content checker flagged it.", "prompt"),
    "bad_request": (400, "bad_request", "The request is not valid.", ""),
    "not_found": (404, "not_found", "Request not found", ""),
    "no_route": (404, "not_found", "Path not found", ""),
    "server": (500, "internal_error", "Internal server error", ""),
    "provider": (503, "runner_disconnected", "Runner disconnected", ""),
    "timeout": (504, "generation_timeout", "Generation timed out", "prompt"),
    "cancelled": (499, "client_cancelled", "Request was cancelled by the client", ""),
}
_WORDS = {"queued": "IN_QUEUE", "running": "IN_PROGRESS"}


class Fal(Provider):
    """`POST /{endpoint}`, what belongs to `/{owner}/{alias}/requests/{id}`, and `/platform/v1/models`."""

    name = "fal"
    scheme = "key"

    def routes(self) -> list[Route]:
        """See `Provider.routes`."""
        return [
            Route("GET", "/platform/v1/models/requests/by-endpoint", "read", self._list),
            Route("GET", f"{_REQUEST}/status", "read", self._status),
            Route("GET", _REQUEST, "read", self._result),
            Route("PUT", f"{_REQUEST}/cancel", "read", self._cancel),
            Route("POST", "/rest/storage/auth/token", "read", self._token),
            Route("POST", "/cdn/files/upload", "read", self._upload, needs_key=False, takes_json=False),
            Route("POST", "/{endpoint:[^/]+/[^/]+(?:/[^/]+)*}", "submit", self._submit),
            Route("*", "/{tail:.*}", "read", self.no_route, needs_key=False),
        ]

    def refused(self, refusal: Refusal, call: Call) -> Reply:
        """The queue's `detail`, the platform API's `error`, or what an ingress says that knows neither."""
        status, kind, usual, field = _ERRORS[refusal.reason]
        status, text = refusal.status or status, refusal.message or usual
        if status in (502, 503, 504):
            return Reply(f"<html><h1>{status}</h1>nginx</html>", status)
        error = _error(status, kind, text, field)
        if call.request.path.startswith("/fal/platform/"):
            error = Reply({"error": {"type": kind, "message": text, "docs_url": ""}}, status)
        wait = {} if refusal.retry_after is None else {"Retry-After": f"{refusal.retry_after:g}"}
        return error._replace(headers={**error.headers, **wait, "X-Fal-Request-Id": str(uuid.uuid4())})

    # The queue.

    async def _submit(self, call: Call) -> Reply:
        endpoint = call.request.match_info["endpoint"]
        model = next(model for pattern, model in _MODELS.items() if re.search(pattern, endpoint))
        operation, price, kind, needs = model
        reason = _wrong_in(call, needs)
        count = 1 if reason or kind != "image" else call.body.get("num_images", 1)
        task = call.task = call.world.accept(
            call.account,
            operation,
            call.body,
            call.words,
            tuple(_MAKES[kind]() for _ in range(count)),
            amount=f"{price * count:.4f}",
            currency="USD",
            path=endpoint,
            host=call.request.host,
            client_ref=call.request.query.get("fal_webhook"),
            aspect_ratio=_aspect_ratio(call.body),
            reason=reason,
        )
        document = {"status": "IN_QUEUE", **_addresses(call, task), "queue_position": 0}
        if "no-id" in task.words:
            document.pop("request_id")
        return _said(task, document)

    async def _status(self, call: Call) -> Reply:
        task, now = _task(call), call.world.now()
        state = task.state(now)
        has_ended = now >= task.ended
        word = task.words.text("final" if has_ended else "status") or _WORDS.get(state, "COMPLETED")
        document = {"status": word, **_addresses(call, task)}
        if state == "queued":
            document["queue_position"] = 0
        else:
            document["logs"] = [] if call.request.query.get("logs") in ("1", "true") else None
        if has_ended:
            document["metrics"] = {"inference_time": round(task.ended - task.started, 3)}
            reason = _reason(task)
            # Some errors are told by the result alone ([O] fal.md, Poll).
            if reason and task.words.text("error") != "detail":
                detail, error_type = reason.body["detail"], reason.body.get("error_type")
                document["error"] = detail if error_type else detail[0]["msg"]
                document |= {"error_type": error_type} if error_type else {}
        return _said(task, document, 200 if has_ended else 202)

    async def _result(self, call: Call) -> Reply:
        task = _task(call)
        if call.world.now() < task.ended:
            return _said(task, {"detail": "Request is still in progress"}, 400)
        return _reason(task) or _said(task, _output(call, task))

    async def _cancel(self, call: Call) -> Reply:
        task, now = _task(call), call.world.now()
        if now >= task.ended:
            return _said(task, {"status": "ALREADY_COMPLETED"}, 400)
        call.account.cancel(task, now)
        return _said(task, {"status": "CANCELLATION_REQUESTED"}, 202)

    # Files.

    async def _token(self, call: Call) -> Reply:
        token = str(uuid.uuid4())
        call.world.tokens[token] = call.account
        here = f"http://{call.request.host}/fal/cdn"
        ends = call.iso(call.world.now() + _DAY)
        return Reply({"token": token, "token_type": "Bearer", "base_url": here, "expires_at": ends})

    async def _upload(self, call: Call) -> Reply:
        token = call.request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in call.world.tokens:
            raise Refusal("auth")
        path = f"/fal/cdn/files/{uuid.uuid4()}/{call.request.headers.get('X-Fal-File-Name', 'file')}"
        call.world.uploads[path] = await call.request.read()
        return Reply({"access_url": f"http://{call.request.host}{path}"})

    # The platform API.

    async def _list(self, call: Call) -> Reply:
        query, now = call.request.query, call.world.now()
        endpoints = {name for text in query.getall("endpoint_id", []) for name in text.split(",") if name}
        if not 1 <= len(endpoints) <= 50:
            bad_request("endpoint_id must name 1 to 50 endpoints")
        request_id = query.get("request_id")
        limit = call.whole("limit", 50, 1, 100)
        try:
            page = int(base64.b64decode(query.get("cursor", "MQ==")))
        except ValueError:
            bad_request("cursor is invalid")
        since = call.moment("start", now - (90 if request_id else 1) * _DAY)
        until = call.moment("end", now + _DAY)
        found = [
            task
            for task in call.account.tasks
            if max(task.ended, task.visible_from) <= now
            and task.path in endpoints
            and since <= call.stamp(task.ended) < until
            and request_id in (None, task.id)
            and query.get("status") in (None, _verdict(task))
        ]
        found.sort(key=lambda task: task.ended, reverse=True)
        is_last = len(found) <= page * limit
        cursor = None if is_last else base64.b64encode(b"%d" % (page + 1)).decode()
        items = [_item(call, task) for task in found[(page - 1) * limit : page * limit]]
        return Reply({"items": items, "next_cursor": cursor, "has_more": not is_last})


def _app(endpoint: str) -> str:
    parts = endpoint.split("/")
    return "/".join(parts[: 3 if parts[0] in ("workflows", "comfy") else 2])


def _task(call: Call) -> Task:
    """The task that the path names. Raises Refusal if there is none, or if it is of another app."""
    task = call.world.task(call.account, call.request.match_info["id"])
    if task is None or _app(task.path) != call.request.match_info["app"]:
        raise Refusal("not_found")
    call.task = task
    return task


def _addresses(call: Call, task: Task) -> dict[str, Any]:
    here = f"http://{call.request.host}/fal/{_app(task.path)}/requests/{task.id}"
    urls = {"response_url": here, "status_url": f"{here}/status", "cancel_url": f"{here}/cancel"}
    return {"request_id": task.id, **urls}


def _said(task: Task, document: dict[str, Any], status: int = 200) -> Reply:
    return Reply(document, status, {"X-Fal-Request-Id": task.id})


# Why a request fails: told after it has been looked at ([O] fal.md, Required arguments).


def _wrong_in(call: Call, needs: str) -> Reply | None:
    """What the model will say of the arguments."""
    for names in needs.split():
        if not any(call.body.get(name) for name in names.split("|")):
            return _error(422, "missing", "Field required", names.split("|")[0], call.body)
    if call.body.get("num_images", 1) not in (1, 2, 3, 4):
        return _error(422, "less_than_equal", "Input should be from 1 to 4", "num_images", call.body)
    try:
        call.world.first_source(call.body, call.request.host)
    except Refusal as refusal:
        return _error(422, "file_download_error", refusal.message, "image_url", call.body)
    return None


def _error(status: int, kind: str, text: str, field: str, given: Any = None) -> Reply:
    """The queue's own error, or the model's about the argument *field*."""
    if not field:
        return Reply({"detail": text, "error_type": kind}, status, {"X-Fal-Error-Type": kind})
    url = f"https://docs.fal.ai/errors#{kind}"
    detail = {"loc": ["body", field], "msg": text, "type": kind, "url": url, "ctx": {}, "input": given}
    return Reply({"detail": [detail]}, status, {"X-Fal-Retryable": str(status == 504).lower()})


def _reason(task: Task) -> Reply | None:
    """What stands in the place of a result; None for a task that made something."""
    word = "cancelled" if task.outcome == "cancelled" else task.words.text("fail")
    if task.reason is None and word is not None:
        task.reason = _error(*_ERRORS[word], task.request.get("prompt"))
    reason: Reply | None = task.reason
    return reason


# What is made, and what the list shows of it.


def _aspect_ratio(body: Mapping[str, Any]) -> str | None:
    size = body.get("image_size")
    ratio = _SIZES.get(size) if isinstance(size, str) else body.get("aspect_ratio")
    return ratio if isinstance(ratio, str) and re.fullmatch(r"[1-9]\d{0,4}:[1-9]\d{0,4}", ratio) else None


def _output(call: Call, task: Task) -> dict[str, Any]:
    kind = task.outputs[0].kind
    width, height = task.size(kind)
    files = [
        {
            "url": call.url(task, index),
            "content_type": CONTENT_TYPES[output.suffix],
            "file_name": task.name(index),
            **({} if kind == "audio" else {"width": width, "height": height}),
        }
        for index, output in enumerate(task.outputs)
        if "no-output" not in task.words
    ]
    first = files[0] if files else None
    if task.words.text("shape") == "flat":
        return {f"{kind}_url": first and first["url"]}
    if kind != "image" or task.operation == "upscale_image":
        return {kind: first}
    nsfw = [False for _ in files]
    return {"images": files, "seed": 42, "has_nsfw_concepts": nsfw, "prompt": task.request.get("prompt")}


def _verdict(task: Task) -> str:
    reason = _reason(task)
    return "success" if reason is None else "user_error" if reason.status < 500 else "error"


def _item(call: Call, task: Task) -> dict[str, Any]:
    reason = _reason(task)
    item = {
        "request_id": task.id,
        "endpoint_id": task.path,
        "sent_at": call.iso(task.created),
        "started_at": call.iso(task.started),
        "ended_at": call.iso(task.ended),
        "status_code": reason.status if reason else 200,
        "duration": round(task.ended - task.started, 3),
    }
    if "payloads" in call.request.query.get("expand", ""):
        item |= {"json_input": task.request, "json_output": reason.body if reason else _output(call, task)}
    return item
