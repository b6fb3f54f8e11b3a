"""AceData as `providers/acedata.md` describes it: Veo, Luma, and the main endpoint of three more services."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, NamedTuple

from airflow_media_tasks.simulator.provider import Call, Provider, Reply, Route, audio, image, video
from airflow_media_tasks.simulator.world import Output, Refusal, Task, bad_request


_NAMESPACE = uuid.UUID("6f0f3f0a-7f43-4c9e-9c0e-0f8d3f9d0c11")
_DEFAULT_LIMIT = 12  # [O] acedata.md 3: a batch of more ids without `limit` is silently truncated
_LARGEST_LIMIT = 50

_VEO_MODELS = "veo2 veo2-fast veo3 veo3-fast veo31 veo31-fast veo31-fast-ingredients"
_LUMA_RATIOS = "16:9 9:16 1:1 4:3 3:4 21:9 9:21"
_IMAGE_RATIOS = "1:1 16:9 9:16 4:3 3:4 3:2 2:3 21:9 5:4 4:5"

_REFUSALS = {
    "auth": (401, "invalid_token", "The token is invalid or missing."),
    "funds": (403, "used_up", "Your balance is used up, please recharge."),
    "rate": (429, "too_many_requests", "Too many requests, please slow down."),
    "concurrency": (500, "busy", "The api was throttled from upstream, please try again later."),
    "moderation": (403, "forbidden", "The prompt was refused by the content policy."),
    "bad_request": (400, "bad_request", "The request is not valid."),
    "not_found": (404, "not_found", "There is no such task."),
    "no_route": (404, "no_api", "There is no such api."),
    "server": (500, "api_error", "Internal server error."),
}
_SERVER_CODES = {504: "timeout"}
_FAILURES = {
    "moderation": ("forbidden", "The generated media was refused by the content policy."),
    "provider": ("api_error", "The upstream provider failed."),
    "timeout": ("timeout", "The upstream provider did not answer in time."),
}


class _Plan(NamedTuple):
    """What a valid submission will make: neutral operation, price in credits, files, aspect ratio, source."""

    operation: str
    credits: str
    outputs: tuple[Output, ...]
    aspect_ratio: str | None = None
    source: str | None = None


class _Service(NamedTuple):
    """How a hosted service shows its result.

    :param type: the task document's `type`.
    :param word: the item's (or flat result's) word for success, empty where the service has none.
    :param is_flat: one flat result instead of `data[]`.
    :param has_finished_at: whether the task document carries `started_at`, `finished_at` and `elapsed`.
    """

    type: str
    word: str
    is_flat: bool = False
    has_finished_at: bool = False


_SERVICES = {
    "veo": _Service("videos", "succeeded"),
    "luma": _Service("videos", "completed", is_flat=True, has_finished_at=True),
    "nano-banana": _Service("images", "", has_finished_at=True),
    "flux": _Service("images", "", has_finished_at=True),
    "suno": _Service("audios", "succeeded", has_finished_at=True),
}


class AceData(Provider):
    """`POST /{service}/{kind}` and `POST /{service}/tasks`."""

    name = "acedata"

    def routes(self) -> list[Route]:
        """See `Provider.routes`."""
        submits: list[tuple[str, Callable[[Call], _Plan]]] = [
            ("/veo/videos", _veo_videos),
            ("/veo/upsample", _veo_upsample),
            ("/veo/extend", _veo_extend),
            ("/veo/reshoot", _veo_reshoot),
            ("/veo/objects", _veo_objects),
            ("/luma/videos", _luma_videos),
            ("/nano-banana/images", _images("nano-banana", most=4)),
            ("/flux/images", _images("flux", most=8)),
            ("/suno/audios", _suno_audios),
        ]
        return [
            *(Route("POST", path, "submit", self._submit(path, check)) for path, check in submits),
            *(Route("POST", f"/{service}/tasks", "read", self._tasks(service)) for service in _SERVICES),
            Route("GET", "/api/v1/applications/", "read", self._applications),
            Route("GET", "/health", "read", self._health, needs_key=False),
            Route("*", "/{tail:.*}", "read", self.no_route, needs_key=False),
        ]

    def refused(self, refusal: Refusal, call: Call) -> Reply:
        """The envelope of acedata.md 8."""
        status, code, usual = _REFUSALS[refusal.reason]
        if refusal.reason == "auth" and "Authorization" not in call.request.headers:
            code = "authorization_missing"
        if refusal.status is not None:
            status, code = refusal.status, _SERVER_CODES.get(refusal.status, code)
        headers = {} if refusal.retry_after is None else {"Retry-After": f"{refusal.retry_after:g}"}
        error = {"code": code, "message": refusal.message or usual}
        return Reply({"success": False, "error": error, "trace_id": str(uuid.uuid4())}, status, headers)

    # Submissions.

    def _submit(self, path: str, check: Callable[[Call], _Plan]) -> Any:
        service = path.split("/")[1]

        async def submit(call: Call) -> Reply:
            callback_url = call.text("callback_url", required=False)
            is_async = call.body.get("async")
            if is_async is not None and not isinstance(is_async, bool):
                bad_request("async must be a boolean")
            plan = check(call)
            task = call.task = call.world.accept(
                call.account,
                f"{service}/{plan.operation}",
                call.body,
                call.words,
                plan.outputs,
                amount=plan.credits,
                currency="credits",
                path=service,
                host=call.request.host,
                client_ref=callback_url,
                aspect_ratio=plan.aspect_ratio,
                source=plan.source,
                seconds=0 if "inline" in call.words else None,
            )
            if (is_async or callback_url) and "inline" not in task.words:
                return Reply({} if "no-id" in task.words else {"task_id": task.id})
            await call.until_ended(task)
            body = _final(call, task)
            if "no-id" in task.words:
                body.pop("task_id")
            if not body["success"]:
                code = body["error"]["code"]
                return Reply(body, {"forbidden": 403, "timeout": 504}.get(code, 500))
            return Reply(body)

        return submit

    # Reads.

    def _tasks(self, service: str) -> Any:
        async def tasks(call: Call) -> Reply:
            action = call.body.get("action")
            if action == "retrieve_batch":
                return self._batch(call, service)
            if action not in (None, "retrieve"):
                bad_request(f"action '{action}' is invalid")
            task = call.world.task(call.account, call.body.get("id"))
            if task is None and call.body.get("trace_id"):
                task = self._by_trace_id(call, service).get(call.body["trace_id"])
            if not call.body.get("id") and not call.body.get("trace_id"):
                bad_request("id or trace_id is required")
            if task is None or task.path != service:
                unknown = call.world.fault("unknown_as", self.name, "read")
                value = unknown.fields["value"] if unknown else "404"
                if value == "empty":
                    return Reply({})
                if value == "null":
                    return Reply(None)
                raise Refusal("not_found")
            call.task = task
            return Reply(_document(call, task))

        return tasks

    def _by_trace_id(self, call: Call, service: str) -> dict[str, Task]:
        now = call.world.now()
        return {
            task.trace_id: task
            for task in call.account.tasks
            if task.path == service and task.visible_from <= now
        }

    def _batch(self, call: Call, service: str) -> Reply:
        """`retrieve_batch` by ids or trace_ids in no promised order, or the newest of the account."""
        body = call.body
        limit = call.number("limit", 1, 1_000_000, whole=True)
        limit = min(int(limit or _DEFAULT_LIMIT), _LARGEST_LIMIT)
        offset = int(call.number("offset", 0, 1_000_000_000, whole=True) or 0)
        now = call.world.now()
        for key in ("ids", "trace_ids"):
            if body.get(key) is None:
                continue
            ids = body[key]
            if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
                bad_request(f"{key} must be a list of strings")
            if key == "trace_ids":
                known = self._by_trace_id(call, service)
                found = [known[one] for one in dict.fromkeys(ids) if one in known]
            else:
                asked = (call.world.task(call.account, one) for one in dict.fromkeys(ids))
                found = [task for task in asked if task is not None and task.path == service]
            # By id, which is random: whoever matches by position notices.
            found = sorted(
                (task for task in found if "missing-from-batch" not in task.words), key=lambda one: one.id
            )
            page = found[offset : offset + limit]
            items = [_batch_item(call, task) for task in page if not _is_garbled(task)]
            return Reply({"items": items, "count": len(items)})
        earliest = call.number("created_at_min", 0, 1e12)
        latest = call.number("created_at_max", 0, 1e12)
        found = [
            task
            for task in reversed(call.account.tasks)
            if task.path == service
            and task.visible_from <= now
            and body.get("type") in (None, _SERVICES[service].type)
            and (earliest is None or call.stamp(task.created) >= earliest)
            and (latest is None or call.stamp(task.created) <= latest)
        ]
        page = found[offset : offset + limit]
        return Reply({"items": [_document(call, task) for task in page], "count": len(found)})

    async def _applications(self, call: Call) -> Reply:
        account = call.account
        item = {
            "id": _id("application", account.name),
            "type": "Usage",
            "scope": "Global",
            "remaining_amount": float(account.balance - account.reserved),
            "paid_amount": float(account.balance),
        }
        return Reply({"count": 1, "items": [item]})

    async def _health(self, _: Call) -> Reply:
        return Reply({"status": "ok"})


# What each endpoint asks for ([O] acedata.md 5 to 7).


def _veo_videos(call: Call) -> _Plan:
    if call.body.get("action") is None:
        bad_request("action is required")
    action = call.choice("action", "text2video image2video ingredients2video get1080p")
    model = call.choice("model", _VEO_MODELS, "veo3-fast")
    ratio = call.choice("aspect_ratio", "16:9 9:16")
    call.choice("resolution", "1080p 4k gif")
    if action == "get1080p":
        return _Plan("upscale_video", "0.5", (video(),), ratio, _own_video(call))
    call.text("prompt")
    if action == "text2video":
        return _Plan("text_to_video", "2.0", (video(),), ratio)
    if action == "image2video":
        call.urls("image_urls", 1, 2)
        return _Plan("image_to_video", "2.0", (video(),), ratio)
    call.urls("image_urls", 1, 3)
    if model != "veo31-fast-ingredients":
        bad_request(f"ingredients2video needs the model veo31-fast-ingredients, not {model}")
    return _Plan("ingredients_to_video", "2.0", (video(),), ratio)


def _veo_upsample(call: Call) -> _Plan:
    if call.choice("action", "1080p 4k gif") is None:
        bad_request("action is required")
    return _Plan("upscale_video", "0.5", (video(),), source=_own_video(call))


def _veo_extend(call: Call) -> _Plan:
    call.text("model")
    call.choice("model", _VEO_MODELS)
    call.text("prompt", required=False)
    return _Plan("extend_video", "2.0", (video(),), source=_own_video(call))


def _veo_reshoot(call: Call) -> _Plan:
    call.text("motion_type")
    return _Plan("reshoot_video", "2.0", (video(),), source=_own_video(call))


def _veo_objects(call: Call) -> _Plan:
    action = call.choice("action", "insert remove")
    if action is None:
        bad_request("action is required")
    call.text("prompt", required=action == "insert")
    call.text("image_mask", required=False)
    operation = "insert_object" if action == "insert" else "remove_object"
    return _Plan(operation, "2.0", (video(),), source=_own_video(call))


def _luma_videos(call: Call) -> _Plan:
    action = call.choice("action", "generate extend", "generate")
    ratio = call.choice("aspect_ratio", _LUMA_RATIOS)
    call.number("timeout", 1, 86400)
    for key in ("loop", "enhancement"):
        if call.body.get(key) is not None and not isinstance(call.body[key], bool):
            bad_request(f"{key} must be a boolean")
    outputs = (video(), image("thumbnail"))
    if action == "extend":
        call.text("prompt")
        if call.body.get("video_id"):
            return _Plan("extend_video", "1.0", outputs, ratio, _own_video(call))
        if not call.text("video_url", required=False):
            bad_request("video_id or video_url is required")
        return _Plan("extend_video", "1.0", outputs, ratio)
    start = call.text("start_image_url", required=False)
    end = call.text("end_image_url", required=False)
    call.text("prompt", required=not (start or end))
    return _Plan("image_to_video" if start or end else "text_to_video", "1.0", outputs, ratio)


def _images(service: str, most: int) -> Callable[[Call], _Plan]:
    def check(call: Call) -> _Plan:
        action = call.choice("action", "generate edit", "generate")
        call.text("prompt")
        ratio = call.choice("aspect_ratio", _IMAGE_RATIOS, "1:1")
        if action == "edit":
            if service == "flux":
                call.text("image_url")
            else:
                call.urls("image_urls", 1, 10)
        count = int(call.number("count", 1, most, whole=True) or 1)
        operation = "edit_image" if action == "edit" else "text_to_image"
        return _Plan(operation, f"{0.25 * count:.2f}", tuple(image() for _ in range(count)), ratio)

    return check


def _suno_audios(call: Call) -> _Plan:
    call.text("prompt", required=not call.body.get("lyric"))
    outputs = (audio("mp3", 120.0), image("cover"), audio("mp3", 120.0), image("cover"))
    return _Plan("text_to_music", "0.8", outputs, "1:1")


def _own_video(call: Call) -> str:
    """File name of the finished video that the argument `video_id` names; it must be this account's."""
    video_id = call.text("video_id")
    name = call.world.made_video(call.account, video_id)
    if name is None:
        bad_request(f"video_id {video_id} does not exist")
    return name


# What a task looks like.


def _is_garbled(task: Task) -> bool:
    """Such a task's own status reply is unusable; a batch leaves it out, else it would spoil the others."""
    return any(word in task.words for word in ("html", "truncated", "huge"))


def _batch_item(call: Call, task: Task) -> dict[str, Any] | None:
    return None if "null" in task.words else _document(call, task)


def _document(call: Call, task: Task) -> dict[str, Any]:
    now = call.world.now()
    service = _SERVICES[task.path]
    state = task.state(now)
    document: dict[str, Any] = {
        "_id": uuid.uuid5(_NAMESPACE, task.id).hex[:24],
        "id": task.id,
        "api_id": _id("api", task.path),
        "application_id": _id("application", task.account.name),
        "credential_id": _id("credential", task.account.name),
        "user_id": _id("user", task.account.name),
        "created_at": round(call.stamp(task.created), 3),
        "trace_id": task.trace_id,
        "type": service.type,
        "request": task.request,
    }
    if "no-echo" in task.words:
        document["request"] = {key: value for key, value in task.request.items() if key != "callback_url"}
    if service.has_finished_at and state != "queued":
        document["started_at"] = round(call.stamp(task.started), 3)
    if state in ("succeeded", "failed"):
        if service.has_finished_at:
            document["finished_at"] = round(call.stamp(task.ended), 3)
            document["elapsed"] = round(task.ended - task.started, 3)
        document["response"] = _final(call, task)
        return document
    form = task.words.text("response")
    word = task.words.text("status")
    if "temporary" in task.words and now < task.created + 1:
        document["response"] = {"success": False, "error": "temporary"}
    elif word is not None:
        item = {"id": task.outputs[0].id, "state": word}
        flat = {"success": True, "task_id": task.id}
        document["response"] = {**flat, "state": word} if service.is_flat else {**flat, "data": [item]}
    elif form == "null":
        document["response"] = None
    elif form == "partial":
        document["response"] = {"success": True, "task_id": task.id, "data": []}
    return document


def _final(call: Call, task: Task) -> dict[str, Any]:
    """The body that the blocking submission answers, the callback carries and `response` holds."""
    body: dict[str, Any] = {"success": True, "task_id": task.id, "trace_id": task.trace_id}
    service = _SERVICES[task.path]
    if "fail" in task.words:
        code, message = _FAILURES[task.words.text("fail") or "provider"]
        return {**body, "success": False, "error": {"code": code, "message": message}}
    word = task.words.text("final") or service.word
    items = _items(call, task, word)
    shape = task.words.text("shape")
    if shape == "list" or (shape is None and not service.is_flat):
        return {**body, "data": items}
    if shape == "object":
        return {**body, "data": items[0]}
    return {**body, **items[0]}


def _items(call: Call, task: Task, word: str) -> list[dict[str, Any]]:
    def url(index: int) -> dict[str, str]:
        if "no-output" in task.words:
            return {}
        kind, role = task.outputs[index].kind, task.outputs[index].role
        key = "thumbnail_url" if role == "thumbnail" else f"{kind}_url"
        return {key: call.url(task, index)}

    state = {"state": word} if word else {}
    prompt = task.request.get("prompt")
    if task.path == "veo":
        item = {"id": task.outputs[0].id, **url(0), "created_at": _clock(call, task.created)}
        return [{**item, "complete_at": _clock(call, task.ended), **state}]
    if task.path == "luma":
        width, height = task.size("video")
        thumb_width, thumb_height = task.size("image")
        size = {"video_width": width, "video_height": height}
        thumb = {**url(1), "thumbnail_width": thumb_width, "thumbnail_height": thumb_height}
        return [{"video_id": task.outputs[0].id, "prompt": prompt, **url(0), **size, **state, **thumb}]
    if task.path == "suno":
        return [
            {
                "id": task.outputs[index].id,
                "title": task.text[:40],
                "duration": task.outputs[index].duration,
                **url(index),
                **url(index + 1),
                "video_url": "",
                **state,
            }
            for index in range(0, len(task.outputs), 2)
        ]
    return [{"prompt": prompt, **url(index), **state} for index in range(len(task.outputs))]


def _id(kind: str, name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{kind}:{name}"))


def _clock(call: Call, moment: float) -> str:
    return datetime.fromtimestamp(call.stamp(moment), timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
