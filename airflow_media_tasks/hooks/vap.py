"""`VapHook`: VAP's V3 API (tasks, operations, execute). Wire facts: providers/vap.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote

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
from airflow_media_tasks.hooks.operations import Operation
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaBalance,
    MediaCost,
    MediaFile,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)


_TASKS = "/v3/tasks"
_OPERATIONS = "/v3/operations"
_EXECUTE = "/v3/execute"
_LIST_LIMIT = 50
_PROMPT = {"prompt": "description"}  # documented as required; error code invalid_description [O] vap.md 2.1
_SOURCE = {"image_url": "media_url"}


class VapHook(MediaHook):
    """Images, video and music through VAP's V3 API, and its post-production operations and presets.

    A task's `media_task_id` is the provider's id; that of an operation is `operations/<id>`.
    """

    default_conn_name = "vap_default"
    conn_type = "vap"
    hook_name = "VAP"
    base_url = "https://api.vapagent.com"
    id_groups = re.compile("(?:operations)?")
    id_form = "'<task id>' or 'operations/<operation id>'"
    refunds_failures = True  # "refund on failure" ([O] vap.md 3)

    operations: ClassVar[Mapping[str, Operation]] = {
        "text_to_image": Operation(
            "image", _TASKS, ("prompt",), rename=_PROMPT, fixed={"type": "image"}, expected_seconds=10
        ),
        "text_to_video": Operation(
            "video", _TASKS, ("prompt",), rename=_PROMPT, fixed={"type": "video"}, expected_seconds=90
        ),
        # params.image_url is seen in third-party clients only ([3] vap.md 2.1).
        "image_to_video": Operation(
            "video",
            _TASKS,
            ("prompt", "image_url"),
            rename=_PROMPT,
            fixed={"type": "video"},
            expected_seconds=90,
        ),
        "text_to_music": Operation(
            "audio", _TASKS, ("prompt",), rename=_PROMPT, fixed={"type": "music"}, expected_seconds=90
        ),
        "inpaint_image": Operation(
            "image",
            _OPERATIONS,
            ("image_url", "prompt"),
            rename=_SOURCE,
            fixed={"operation": "inpaint"},
            expected_seconds=15,
        ),
        "edit_image": Operation(
            "image",
            _OPERATIONS,
            ("image_url", "prompt"),
            rename=_SOURCE,
            fixed={"operation": "ai_edit"},
            expected_seconds=15,
        ),
        "remove_background": Operation(
            "image",
            _OPERATIONS,
            ("image_url",),
            rename=_SOURCE,
            fixed={"operation": "background_remove"},
            expected_seconds=10,
        ),
        "upscale_image": Operation(
            "image",
            _OPERATIONS,
            ("image_url",),
            rename=_SOURCE,
            fixed={"operation": "upscale"},
            expected_seconds=15,
        ),
        "trim_video": Operation(
            "video",
            _OPERATIONS,
            ("video_url", "start_time", "end_time"),
            rename={"video_url": "media_url"},
            fixed={"operation": "video_trim"},
            expected_seconds=15,
        ),
        "merge_videos": Operation(
            "video",
            _OPERATIONS,
            ("video_urls",),
            rename={"video_urls": "media_urls"},
            fixed={"operation": "video_merge"},
            expected_seconds=20,
        ),
        "run_preset": Operation("video", _EXECUTE, ("preset", "prompt"), expected_seconds=180),
    }

    def _submit(
        self,
        name: str,
        operation: Operation,
        arguments: Mapping[str, Any],
        client_ref: str | None,  # noqa: ARG002  # a V3 task has no place for a mark of ours (vap.md 6)
    ) -> Conversation[MediaTask]:
        body = _submission(operation, arguments)
        # /v3/execute answers when everything is made ([O] vap.md 2): minutes, during which it sends no byte.
        timeout = 1800.0 if operation.path == _EXECUTE else 120.0
        reply = yield Request("POST", operation.path, json=body, paid=True, timeout=timeout)
        document = reply.document
        own_id = id_at(document, "task_id", "operation_id", "execution_id", "id")
        if own_id is None and operation.path == _EXECUTE and document.get("outputs"):
            # What is complete in the answer can be returned, though nobody can ask for it again.
            own_id = "execute"
        if own_id is None:
            raise self.senseless(reply, "a task_id")
        media_task_id = f"operations/{own_id}" if operation.path == _OPERATIONS else own_id
        return self._task(media_task_id, document, name, submitted=operation.path != _EXECUTE)

    def _get_task(self, media_task_id: str) -> Conversation[MediaTask]:
        group, _, own_id = media_task_id.rpartition("/")
        path = _OPERATIONS if group else _TASKS
        reply = yield Request("GET", f"{path}/{quote(own_id, safe='')}")
        if not reply.document:
            raise self.senseless(reply, "a task document")
        return self._task(media_task_id, reply.document)

    def can_be_asked(self, operation: str) -> bool:
        """Operations and presets have no list ([O] vap.md 2)."""
        return self.operations[operation].path == _TASKS

    def lists_of(self, group: str) -> tuple[str, ...]:
        """Those of tasks that have ended; operations have no list ([O] vap.md 2)."""
        return () if group else ("completed", "failed")

    def _list_page(
        self,
        group: str,  # noqa: ARG002  # there is one group with lists
        word: str,
        page: int,
    ) -> Conversation[tuple[list[MediaTask], bool]]:
        """50 is the limit; whether `offset` is obeyed is not known ([O] vap.md 2)."""
        params = {"limit": _LIST_LIMIT, "offset": page * _LIST_LIMIT or None, "status": word or None}
        reply = yield Request("GET", _TASKS, params=params)
        listed = reply.document.get("tasks")
        if not isinstance(listed, list):
            raise self.senseless(reply, "a list of tasks")
        tasks = [
            self._task(own_id, document)
            for document in listed
            if isinstance(document, Mapping) and (own_id := text_at(document, "task_id", "id")) is not None
        ]
        return tasks, len(listed) == _LIST_LIMIT

    def _list_tasks(
        self, name: str | None, since: datetime | None
    ) -> Conversation[tuple[list[MediaTask], bool]]:
        """50 by 50, if `offset` is obeyed; operations and presets have no list ([O] vap.md 2)."""
        if name is not None and self.operations[name].path != _TASKS:
            raise SubmissionOutcomeUnknown(
                f"vap does not show enough to tell whether it is there: it has no list of {name!r} tasks",
                provider=self.conn_type,
            )

        def page_of(page: int) -> Conversation[tuple[list[MediaTask], bool]]:
            tasks, more = yield from self._list_page("", "", page)
            # An empty page may also be what a server shows that knows no further one.
            return tasks, more or (page > 0 and not tasks)

        return (yield from self._walk(page_of, since))

    def _comes_from(
        self,
        task: MediaTask,
        name: str,
        arguments: Mapping[str, Any] | None,
        client_ref: str | None,  # noqa: ARG002  # as above
    ) -> bool | None:
        """By type and params; whether a list shows params is not written down anywhere ([I] vap.md 6)."""
        kind, params = _kind_of(task.raw), task.raw.get("params")
        if kind and kind != self.operations[name].kind:
            return False
        if not isinstance(params, Mapping) or arguments is None:
            return None
        wanted = _submission(self.operations[name], arguments)["params"]
        return all(params.get(key) == value for key, value in wanted.items())

    def _get_balance(self) -> Conversation[MediaBalance]:
        try:
            reply = yield Request("GET", "/v3/agents/me/balance")
        except MediaNotFoundError:
            # openapi.yaml and the vendor's SDK name this path, its README the other ([O] vap.md 2).
            reply = yield Request("GET", "/v3/balance")
        document = reply.document
        amount = text_at(document, "usable", "balance")
        if amount is None:
            raise self.senseless(reply, "a balance")
        return MediaBalance(amount, text_at(document, "currency") or "USD", text_at(document, "reserved"))

    def error_of(self, reply: Reply) -> MediaTaskError | None:
        """By `error.code`; no money is 402 or 403, in either form of body ([O] vap.md 5)."""
        if reply.status < 400 and reply.body is not None:
            return None
        code, words, details = _error_parts(reply.document)
        cls = _CLASS_OF_CODE.get(code or "")
        if (
            cls is None
            and reply.status in (402, 403)
            and ("required" in details or "balance" in (words or "").lower())
        ):
            cls = MediaFundsError
        if cls is None and words is None:
            return super().error_of(reply)
        if cls is None and reply.status < 500 and _MODERATION.search(f"{code} {words}"):
            cls = MediaModerationError
        return self.error(cls, reply, code, words, retry_after=number_at(details, "retry_after"))

    def _task(
        self, media_task_id: str, document: Mapping[str, Any], name: str = "", *, submitted: bool = False
    ) -> MediaTask:
        word = text_at(document, "status")
        if word is None and submitted:
            status = TaskStatus.QUEUED
        else:
            status = self.status_of(word if word is not None else "unknown", media_task_id)
        code, words, _ = _error_parts(document)
        words = text_at(document, "error_message") or words
        amount, estimated = text_at(document, "actual_cost"), text_at(document, "estimated_cost")
        return self.media_task(
            media_task_id,
            status,
            word,
            files=_files(document),
            failure=self.task_failed(media_task_id, code, words, _class_of_failure(code, words)),
            operation=name or _operation_of(document),
            cost=MediaCost("USD", amount, estimated) if amount or estimated else None,
            created_at=time_at(document, "created_at"),
            raw=document,
        )


_CLASS_OF_CODE: dict[str, type[MediaTaskError]] = {
    "invalid_task_type": MediaRequestError,
    "invalid_description": MediaRequestError,
    "invalid_api_key": MediaAuthError,
    "insufficient_balance": MediaFundsError,
    "tier_limit_exceeded": MediaFundsError,
    "agent_paused": MediaAuthError,
    "provider_not_allowed": MediaAuthError,
    "task_not_found": MediaNotFoundError,
    "rate_limit_exceeded": MediaRateLimitError,
    "content_policy_violation": MediaModerationError,
}
_MODERATION = re.compile(r"moderat|content.polic|safety|nsfw|prohibited", re.IGNORECASE)
_TOP_LEVEL = ("operation", "media_url", "media_urls", "prompt")
_OPERATION_OF_TYPE = {
    "image": "text_to_image",
    "video": "text_to_video",
    "music": "text_to_music",
    **{op.fixed["operation"]: name for name, op in VapHook.operations.items() if "operation" in op.fixed},
}
_URL_KEYS = (
    "video_url",
    "image_url",
    "audio_url",
    "music_url",
    "output_url",
    "url",
    "result_url",
    "thumbnail_url",
)


def _submission(operation: Operation, arguments: Mapping[str, Any]) -> dict[str, Any]:
    body = operation.body(arguments)
    if operation.path == _TASKS:
        webhook = {"webhook_url": body.pop("webhook_url")} if "webhook_url" in body else {}
        return {"type": body.pop("type"), "params": body, **webhook}
    if operation.path == _OPERATIONS:
        top = {key: value for key, value in body.items() if key in _TOP_LEVEL}
        rest = {key: value for key, value in body.items() if key not in (*_TOP_LEVEL, "options")}
        return {**top, "options": {**(body.get("options") or {}), **rest}}
    return body


def _operation_of(document: Mapping[str, Any]) -> str:
    """By the type: `image`, `image_generation`, `music`, `upscale` ([O] vap.md 2.1); empty for another."""
    name = _OPERATION_OF_TYPE.get(str(document.get("type") or "").removesuffix("_generation"), "")
    params = document.get("params")
    if name == "text_to_video" and isinstance(params, Mapping) and params.get("image_url"):
        return "image_to_video"
    return name


def _kind_of(document: Mapping[str, Any]) -> str:
    name = _operation_of(document)
    return VapHook.operations[name].kind if name else ""


def _files(document: Mapping[str, Any]) -> Iterator[MediaFile]:
    """Every URL, in both result shapes, of `items[*]` and of `outputs`; each once ([O] vap.md 4)."""
    kind = _kind_of(document)
    seen: set[str] = set()
    result = object_of(document.get("result"))
    items = result.get("items") or document.get("items")
    outputs = document.get("outputs")
    places = [
        result,
        *(item for item in (items if isinstance(items, list) else ()) if isinstance(item, Mapping)),
        {key: document[key] for key in _URL_KEYS if key in document},
        {f"{key}_url": value for key, value in outputs.items()} if isinstance(outputs, Mapping) else {},
    ]
    for place in places:
        for key, url in place.items():
            if not key.endswith("url") or not isinstance(url, str) or not url or url in seen:
                continue
            seen.add(url)
            # `output_url` is used for every kind: the task's type tells which.
            found = kind_of_key(key) or kind or kind_of_url(url) or "file"
            # A music track's picture is its cover, not the image that somebody asked for.
            yield MediaFile("thumbnail" if found == "image" and kind in ("audio", "video") else found, url)


def _error_parts(document: Mapping[str, Any]) -> tuple[str | None, str | None, Mapping[str, Any]]:
    """Code, words and details of `error` as object or text, else of `detail` as text, object or list."""
    for key in ("error", "detail"):
        said = document.get(key)
        if isinstance(said, list):
            said = "; ".join(
                str(part.get("msg", part)) if isinstance(part, Mapping) else str(part) for part in said
            )
        if isinstance(said, str) and said:
            return text_at(document, "code"), said, document
        if isinstance(said, Mapping):
            details = said.get("details")
            words = text_at(said, "message") or text_at(said, "code") or str(said)
            return text_at(said, "code"), words, details if isinstance(details, Mapping) else {}
    return text_at(document, "code"), text_at(document, "message"), document


def _class_of_failure(code: str | None, words: str | None) -> type[MediaTaskError]:
    if _CLASS_OF_CODE.get(code or "") is MediaModerationError or _MODERATION.search(f"{code} {words}"):
        return MediaModerationError
    return MediaTaskFailed
