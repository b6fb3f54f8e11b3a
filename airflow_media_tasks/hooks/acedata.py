"""`AceDataHook`: an AceDataCloud account, Veo and Luma in detail. Wire facts: providers/acedata.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, ClassVar, TypeAlias
from urllib.parse import quote, unquote

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.hooks.conversations import Conversation, Reply, Request
from airflow_media_tasks.hooks.documents import (
    id_at,
    kind_of_key,
    kind_of_url,
    number_at,
    object_of,
    text_at,
    time_at,
)
from airflow_media_tasks.hooks.finding import CLOCKS_DISAGREE
from airflow_media_tasks.hooks.operations import Operation, is_address
from airflow_media_tasks.task import (
    MAX_FILES,
    MediaAuthError,
    MediaFile,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaProviderError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    MediaTaskFailed,
    TaskStatus,
    shown,
)


SERVICES = [
    "veo",
    "luma",
    "sora",
    "kling",
    "hailuo",
    "minimax",
    "wan",
    "seedance",
    "happyhorse",
    "dreamina",
    "grok",
    "pika",
    "pixverse",
    "digital-human",
    "maestro",
    "suno",
    "producer",
    "fish",
    "flux",
    "nano-banana",
    "seedream",
    "qwen-image",
    "midjourney",
    "openai",
]
"""The services whose tasks can be read, whoever submitted them ([O] acedata.md 7)."""

_FIRST_FRAME = {"image_url": "start_image_url"}
# Whether it is an address or the picture itself is not written down ([I] acedata.md 5).
_MASK: dict[str, Any] = {"rename": {"mask_url": "image_mask"}, "inline": ("mask_url",)}
_LIST_LIMIT = 50


class AceDataHook(MediaHook):
    """Veo, Luma and the other services of one AceDataCloud account.

    A task's `media_task_id` is `<service>/<task id>`. An operation's name begins with its service; a name
    without one gets the connection's `service` (extra, default `veo`).
    """

    default_conn_name = "acedata_default"
    conn_type = "acedata"
    hook_name = "AceData Cloud"
    base_url = "https://api.acedata.cloud"
    # Its usage history, as AceData's own guides name it.
    console_url = "https://platform.acedata.cloud/console/usages"
    id_groups = re.compile("|".join(SERVICES))
    id_form = "'<service>/<task id>', for example 'veo/...' or 'luma/...'"
    # "Maximum recommended batch size is 50" ([O] acedata.md 3); the server's own limit is unknown.
    batch_size = 50
    client_ref_is_queryable = True
    has_balance = False

    operations: ClassVar[Mapping[str, Operation]] = {
        "veo/text_to_video": Operation(
            "video", "/veo/videos", ("prompt",), fixed={"action": "text2video"}, expected_seconds=90
        ),
        "veo/image_to_video": Operation(
            "video",
            "/veo/videos",
            ("prompt",),
            one_of=(("image_url", "image_urls"),),
            fixed={"action": "image2video"},
            expected_seconds=90,
        ),
        # Only this model takes reference images ([O] acedata.md 5), and it is not the server's default.
        "veo/ingredients_to_video": Operation(
            "video",
            "/veo/videos",
            ("prompt", "image_urls"),
            fixed={"action": "ingredients2video"},
            defaults={"model": "veo31-fast-ingredients"},
            expected_seconds=90,
        ),
        "veo/upscale_video": Operation(
            "video",
            "/veo/upsample",
            ("video_id",),
            rename={"resolution": "action"},
            defaults={"action": "1080p"},
            expected_seconds=60,
        ),
        "veo/extend_video": Operation("video", "/veo/extend", ("video_id", "prompt"), expected_seconds=90),
        "veo/reshoot_video": Operation(
            "video", "/veo/reshoot", ("video_id", "motion_type"), expected_seconds=90
        ),
        "veo/insert_object": Operation(
            "video",
            "/veo/objects",
            ("video_id", "prompt"),
            **_MASK,
            fixed={"action": "insert"},
            expected_seconds=90,
        ),
        "veo/remove_object": Operation(
            "video",
            "/veo/objects",
            ("video_id",),
            **_MASK,
            fixed={"action": "remove"},
            expected_seconds=90,
        ),
        "luma/text_to_video": Operation(
            "video", "/luma/videos", ("prompt",), fixed={"action": "generate"}, expected_seconds=60
        ),
        "luma/image_to_video": Operation(
            "video",
            "/luma/videos",
            ("prompt", "image_url"),
            rename=_FIRST_FRAME,
            fixed={"action": "generate"},
            expected_seconds=60,
        ),
        "luma/extend_video": Operation(
            "video",
            "/luma/videos",
            ("prompt",),
            one_of=(("video_id", "video_url"),),
            fixed={"action": "extend"},
            expected_seconds=60,
        ),
    }

    @property
    def _service(self) -> str:
        return str(self.settings.extra.get("service") or "veo")

    def operation_name(self, operation: str) -> str:
        """A short name gets the connection's service: `text_to_video` may mean `veo/text_to_video`."""
        if "/" not in str(operation):
            completed = f"{self._service}/{operation}"
            if completed in self.operations:
                return completed
        return super().operation_name(operation)

    def check(self, operation: str, arguments: Any) -> tuple[str, dict[str, Any]]:
        """As of `MediaHook`, and the frames that Veo's operations take, and the connection's address."""
        name, checked = super().check(operation, arguments)
        _body(self.operations[name], checked)
        self._check_callback_url()
        return name, checked

    def check_settings(self) -> None:
        """As of `MediaHook`, with the service and the callback's address."""
        super().check_settings()
        if self._service not in SERVICES:
            raise MediaRequestError(
                f"connection {self.media_conn_id!r}: service in extra must be one of {', '.join(SERVICES)}, "
                f"got {shown(self._service)}"
            )
        self._check_callback_url()

    def _check_callback_url(self) -> None:
        address = self.settings.extra.get("callback_url")
        if address and not is_address(address):
            raise MediaRequestError(
                f"connection {self.media_conn_id!r}: callback_url in extra must be an http or https URL, "
                f"got {shown(address)}"
            )

    def _submit(
        self, name: str, operation: Operation, arguments: Mapping[str, Any], client_ref: str | None
    ) -> Conversation[MediaTask]:
        service = name.partition("/")[0]
        # Without `async` the connection is held until the video is ready ([O] acedata.md 2).
        body = {**_body(operation, arguments), "async": True}
        if client_ref is not None:
            # `request` is echoed in the task with its callback_url, the one place for a mark of our own.
            body["callback_url"] = self._callback_url(body.get("callback_url"), client_ref)
        reply = yield Request("POST", operation.path, json=body, paid=True, timeout=120)
        own_id = id_at(reply.document, "task_id") or id_at(object_of(reply.document.get("data")), "task_id")
        if own_id is None:
            raise self.senseless(reply, "a task_id")
        media_task_id = f"{service}/{own_id}"
        if not any(True for _ in _files(reply.document, body)):
            return MediaTask(media_task_id, TaskStatus.QUEUED, name, raw=reply.document)
        # A cached result comes at once although `async` was asked for ([O] acedata.md 2).
        return self._task(media_task_id, {"request": body, "response": reply.document}, name)

    def _get_task(self, media_task_id: str) -> Conversation[MediaTask]:
        service, _, own_id = media_task_id.partition("/")
        # The schema's default action is a stray `generate`: always say retrieve ([O] acedata.md 3).
        reply = yield Request("POST", f"/{service}/tasks", json={"id": own_id, "action": "retrieve"})
        if not reply.document:
            raise MediaNotFoundError(
                f"acedata shows no task {media_task_id} (an empty document)", provider=self.conn_type
            )
        return self._task(media_task_id, reply.document)

    def _get_batch(self, media_task_ids: list[str]) -> Conversation[dict[str, MediaTask]]:
        service = self.group_of(media_task_ids[0])
        wanted = {media_task_id.partition("/")[2]: media_task_id for media_task_id in media_task_ids}
        # Without `limit` an answer of more than 12 is cut short ([I] acedata.md 3).
        body = {"ids": list(wanted), "action": "retrieve_batch", "limit": len(wanted)}
        reply = yield Request("POST", f"/{service}/tasks", json=body)
        found: dict[str, MediaTask] = {}
        for document in self._items(reply):
            media_task_id = wanted.get(text_at(document, "id", "task_id") or "")
            if media_task_id is not None and media_task_id not in found:
                found[media_task_id] = self._task(media_task_id, document)
        return found

    def _list_tasks(
        self, name: str | None, since: datetime | None
    ) -> Conversation[tuple[list[MediaTask], bool]]:
        """Of the operation's service; without a name, of the connection's ([O] acedata.md 3)."""
        service = name.partition("/")[0] if name else self._service
        earliest = self.earliest(since, CLOCKS_DISAGREE)

        def page_of(page: int) -> Conversation[tuple[list[MediaTask], bool]]:
            body: dict[str, Any] = {"action": "retrieve_batch", "limit": _LIST_LIMIT}
            body["offset"] = page * _LIST_LIMIT
            if earliest is not None:
                body["created_at_min"] = earliest.timestamp()
            items = self._items((yield Request("POST", f"/{service}/tasks", json=body)))
            tasks = [
                self._task(f"{service}/{own_id}", document)
                for document in items
                if (own_id := text_at(document, "id", "task_id"))
            ]
            return tasks, len(items) >= _LIST_LIMIT

        return (yield from self._walk(page_of, since))

    def _ref_of(self, task: MediaTask) -> str | None:
        """The `ref` of the echoed callback_url."""
        callback_url = text_at(object_of(task.raw.get("request")), "callback_url")
        if callback_url is None:
            return None
        # Ours comes last, see `_callback_url`.
        last = re.split(r"[?&]", callback_url)[-1]
        return unquote(last.removeprefix("ref=")) if last.startswith("ref=") else ""

    def _comes_from(
        self, task: MediaTask, name: str, arguments: Mapping[str, Any] | None, client_ref: str | None
    ) -> bool | None:
        """By the echoed request; one with no echo of our callback_url cannot be told from an equal one."""
        request = task.raw.get("request")
        if not isinstance(request, Mapping):
            return None
        wanted = _body(self.operations[name], arguments or {})
        equal = all(request.get(key) == value for key, value in wanted.items() if key != "callback_url")
        return None if equal and client_ref is not None else equal

    def _probe(self) -> Conversation[None]:
        yield Request("POST", f"/{self._service}/tasks", json={"action": "retrieve_batch", "limit": 1})

    def error_of(self, reply: Reply) -> MediaTaskError | None:
        """By `error.code`; a 403 is a balance or a moderation, not a key ([O] acedata.md 8)."""
        code, words = _error_parts(reply.document)
        refused = (
            reply.document.get("success") is False and code is not None and "task_id" not in reply.document
        )
        if reply.text.strip() == "null" and reply.status < 400:
            # One of the ways in which an unknown task may be shown ([I] acedata.md 3).
            return None
        if reply.status < 400 and not refused:
            return super().error_of(reply)
        if code is None and words is None:
            return super().error_of(reply)
        trace_id = text_at(reply.document, "trace_id")
        return self.error(_CLASS_OF_CODE.get(code or ""), reply, code, words, trace_id)

    def _callback_url(self, given: Any, client_ref: str) -> str:
        # Nothing listens at the health address: older clients of the vendor used it to force async mode.
        address = given or self.settings.extra.get("callback_url") or f"{self.base_url}/health"
        return f"{address}{'&' if '?' in address else '?'}ref={quote(client_ref, safe='')}"

    def _items(self, reply: Reply) -> list[Mapping[str, Any]]:
        items = reply.document.get("items")
        if not isinstance(items, list):
            raise self.senseless(reply, "a list of items")
        return [item for item in items if isinstance(item, Mapping)]

    def _task(self, media_task_id: str, document: Mapping[str, Any], name: str = "") -> MediaTask:
        request = object_of(document.get("request"))
        # A document without `response` shows the body itself, unless it is a record that has none yet.
        response = document.get("response", {} if "request" in document else document)
        body = object_of(response)
        operation = name or _operation_of(media_task_id, request, self.operations)
        created_at = time_at(document, "created_at")
        if not body and _state_word(document) is None:
            # Nothing is known yet; ten thousand waiting tasks are read like this every few seconds.
            return MediaTask(
                media_task_id, TaskStatus.RUNNING, operation=operation, created_at=created_at, raw=document
            )
        files = tuple(islice(_files(body, request), MAX_FILES))
        has_output = any(file.kind != "thumbnail" for file in files)
        word, status = self._verdict(media_task_id, document, body, has_output)
        failed = [item for item in _items_of(body) if _has_failed(item)]
        if status is TaskStatus.SUCCEEDED and failed:
            self.log.warning(
                "%s of %s items of acedata task %s failed, the others are kept",
                len(failed),
                len(_items_of(body)),
                media_task_id,
            )
        code, words = next(
            (parts for place in (body, *failed) if any(parts := _error_parts(place))), (None, None)
        )
        moderated = _CLASS_OF_CODE.get(code or "") is MediaModerationError
        progress = number_at(object_of(body.get("progress")), "percent")
        return self.media_task(
            media_task_id,
            status,
            word,
            files=files,
            failure=self.task_failed(
                media_task_id,
                code or word,
                words or word,
                MediaModerationError if moderated else MediaTaskFailed,
            ),
            operation=operation,
            progress=None if progress is None else min(max(progress / 100, 0.0), 1.0),
            created_at=created_at,
            raw=document,
        )

    def _verdict(
        self, media_task_id: str, document: Mapping[str, Any], body: Mapping[str, Any], has_files: bool
    ) -> tuple[str | None, TaskStatus]:
        """The rules of acedata.md 4: a state word outranks `success`, `success` the presence of a file."""
        statuses = {word: self.status_of(word, media_task_id) for word in _state_words(body)}
        pending = [pair for pair in statuses.items() if not pair[1].is_terminal]
        done = [pair for pair in statuses.items() if pair[1] is TaskStatus.SUCCEEDED]
        if statuses:
            # Of several items, those that were made count as long as one of them was.
            ended = (
                done
                if done and has_files
                else [pair for pair in statuses.items() if pair not in done] or done
            )
            return (pending or ended)[0]
        finished = document.get("finished_at") is not None or body.get("finished_at") is not None
        success = body.get("success")
        top = _state_word(document) if body is not document else None
        if success is False:
            # A bare text is a passing trouble that the vendor's own tests call running; an object is final.
            final = finished or has_files or _error_parts(body)[0] is not None
            return None, TaskStatus.FAILED if final else TaskStatus.RUNNING
        if top is not None and not has_files:
            return top, self.status_of(top, media_task_id)
        made = has_files or (finished and success is True)
        return None, TaskStatus.SUCCEEDED if made else TaskStatus.RUNNING


_CLASS_OF_CODE: dict[str, type[MediaTaskError]] = {
    "bad_request": MediaRequestError,
    "api_not_implemented": MediaRequestError,
    "disabled": MediaRequestError,
    "request_too_large": MediaRequestError,
    "no_api": MediaNotFoundError,
    "not_found": MediaNotFoundError,
    "no_token": MediaAuthError,
    "token_mismatched": MediaAuthError,
    "invalid_token": MediaAuthError,
    "token_expired": MediaAuthError,
    "authorization_missing": MediaAuthError,
    "used_up": MediaFundsError,
    "forbidden": MediaModerationError,
    "too_many_requests": MediaRateLimitError,
    # "api was throttled from upstream": nothing was accepted ([I] acedata.md 8).
    "busy": MediaRateLimitError,
    "api_error": MediaProviderError,
    "timeout": MediaProviderError,
}


def _body(operation: Operation, arguments: Mapping[str, Any]) -> dict[str, Any]:
    body = operation.body(arguments)
    if operation.path == "/veo/videos" and ("image_url" in body or "end_image_url" in body):
        # One image is the first frame, two are the first and the last ([O] acedata.md 5).
        first, last = body.pop("image_url", None), body.pop("end_image_url", None)
        if first is None or operation.fixed["action"] != "image2video":
            raise MediaRequestError(
                f"'end_image_url' {shown(last)} needs 'image_url', the first frame, and 'veo/image_to_video'"
                if last is not None
                else f"'image_url' {shown(first)} is an argument of 'veo/image_to_video' only"
            )
        body["image_urls"] = [first] if last is None else [first, last]
    return body


def _items_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    data = body.get("data")
    return [item for item in (data if isinstance(data, list) else [data]) if isinstance(item, Mapping)]


def _has_failed(item: Mapping[str, Any]) -> bool:
    word = _state_word(item)
    return word is not None and TaskStatus.from_word(word) in (TaskStatus.FAILED, TaskStatus.CANCELLED)


def _state_word(place: Mapping[str, Any]) -> str | None:
    words = (place.get(key) for key in ("state", "status"))
    return next((word for word in words if isinstance(word, str) and word), None)


def _state_words(body: Mapping[str, Any]) -> Iterator[str]:
    """State words at the places where services write them, and nowhere else: an echo may hold any word."""
    for place in (body, *_items_of(body), object_of(body.get("task"))):
        word = _state_word(place)
        if word is not None:
            yield word


_Places: TypeAlias = tuple[Mapping[str, Any], ...]


def _files(body: Mapping[str, Any], request: Mapping[str, Any]) -> Iterator[MediaFile]:
    """Every URL of the result that is not an echo of the request, each once, in the provider's order."""
    seen: set[str] | None = None
    for key, url, places in _urls(body, (body,)):
        if seen is None:
            seen = set(_texts(request))
        if url not in seen:
            seen.add(url)
            yield _file(key, url, places)


def _urls(place: Any, places: _Places) -> Iterator[tuple[str, str, _Places]]:
    """Key, URL and the objects around it, at any depth; items that failed are left out.

    :param places: the objects around *place*, the innermost last.
    """
    if isinstance(place, list):
        for item in place:
            yield from _urls(item, places)
    elif isinstance(place, Mapping):
        if place is not places[-1]:
            places = (*places, place)
            if _has_failed(place):
                return
        for key, value in place.items():
            if key == "url" or key.endswith(("_url", "_urls")):
                given = value if isinstance(value, list) else [value]
                yield from ((key, url, places) for url in given if _is_output(key, url))
            elif key != "request":
                yield from _urls(value, places)


def _is_output(key: str, url: Any) -> bool:
    return isinstance(url, str) and url.startswith(("http://", "https://")) and key != "callback_url"


def _file(key: str, url: str, places: _Places) -> MediaFile:
    stem = key.removesuffix("s").removesuffix("_url")
    said = (
        "duration",
        *(f"{before}{word}" for word in ("width", "height", "id") for before in (f"{stem}_", "")),
    )
    # What an inner place says outranks what an outer one says.
    owner = {name: place[name] for place in places for name in said if name in place}
    kind = kind_of_key(key) or kind_of_url(url) or "file"
    width, height = number_at(owner, f"{stem}_width", "width"), number_at(owner, f"{stem}_height", "height")
    # `data[].id` is the video_id that extend and upscale ask for, not the task's id ([O] acedata.md 5).
    own_id = text_at(owner, f"{stem}_id", "id")
    return MediaFile(
        kind=kind,
        url=url,
        id=own_id if kind != "thumbnail" else None,
        width=None if width is None else int(width),
        height=None if height is None else int(height),
        duration=number_at(owner, "duration") if kind in ("video", "audio") else None,
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _error_parts(document: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Code and words of `error`, an object or a bare text, else of `detail` ([O] acedata.md 8)."""
    said = document.get("error")
    if isinstance(said, Mapping):
        return text_at(said, "code"), text_at(said, "message") or text_at(said, "code")
    return None, text_at(document, "error", "detail", "message")


def _operation_of(media_task_id: str, request: Mapping[str, Any], operations: Mapping[str, Operation]) -> str:
    """The operation that a task's echoed request came from, where its `action` tells, else empty."""
    service = media_task_id.partition("/")[0]
    action = request.get("action")
    if service == "luma" and action == "generate" and request.get("start_image_url"):
        return "luma/image_to_video"
    for name, operation in operations.items():
        if name.startswith(f"{service}/") and action is not None and operation.fixed.get("action") == action:
            return name
    return ""
