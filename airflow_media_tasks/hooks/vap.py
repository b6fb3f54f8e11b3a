"""`VapHook`: VAP's V3 API (tasks, operations, execute). Wire facts: providers/vap.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
)
from airflow_media_tasks.wire.conversations import Conversation, Reply
from airflow_media_tasks.wire.documents import object_of
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.wire.places import at
from airflow_media_tasks.wire.tables import Balance, Call, Document, Listing, Refusals, Saying


_URLS = [
    "video_url",
    "image_url",
    "audio_url",
    "music_url",
    "output_url",
    "url",
    "result_url",
    "thumbnail_url",
]
_TASK: dict[str, Any] = {
    "path": "/v3/tasks",
    "required": ("prompt",),
    "rename": {"prompt": "params.description"},  # error code invalid_description [O] vap.md 2.1
    "rest": "params",
    "top": ("webhook_url",),
}
_OPERATION: dict[str, Any] = {
    "path": "/v3/operations",
    "group": "operations",
    "required": ("image_url",),
    "rename": {"image_url": "media_url", "video_url": "media_url", "video_urls": "media_urls"},
    "rest": "options",
    "top": ("media_url", "media_urls", "prompt"),
    "listed": False,  # operations and presets have no list ([O] vap.md 2)
    "expected_seconds": 15,
}
_PROMPTED = {**_OPERATION, "required": ("image_url", "prompt")}
# /v3/execute answers when everything is made ([O] vap.md 2): minutes, during which it sends no byte.
_PRESET: dict[str, Any] = {"path": "/v3/execute", "listed": False, "timeout": 1800.0, "expected_seconds": 180}


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
    # Of those that need no picture or film; 0.18 USD by the vendor's README ([O] vap.md 2).
    cheapest = ("text_to_image", {"prompt": "A grey pebble"})

    operations: ClassVar[Mapping[str, Operation]] = {
        "text_to_image": Operation("image", **_TASK, fixed={"type": "image"}, expected_seconds=10),
        "text_to_video": Operation("video", **_TASK, fixed={"type": "video"}, expected_seconds=90),
        # params.image_url is seen in third-party clients only ([3] vap.md 2.1).
        "image_to_video": Operation(
            "video",
            **{**_TASK, "required": ("prompt", "image_url")},
            fixed={"type": "video"},
            expected_seconds=90,
        ),
        "text_to_music": Operation("audio", **_TASK, fixed={"type": "music"}, expected_seconds=90),
        "inpaint_image": Operation("image", **_PROMPTED, fixed={"operation": "inpaint"}),
        "edit_image": Operation("image", **_PROMPTED, fixed={"operation": "ai_edit"}),
        "remove_background": Operation("image", **_OPERATION, fixed={"operation": "background_remove"}),
        "upscale_image": Operation("image", **_OPERATION, fixed={"operation": "upscale"}),
        "trim_video": Operation(
            "video",
            **{**_OPERATION, "required": ("video_url", "start_time", "end_time")},
            fixed={"operation": "video_trim"},
        ),
        "merge_videos": Operation(
            "video", **{**_OPERATION, "required": ("video_urls",)}, fixed={"operation": "video_merge"}
        ),
        "run_preset": Operation("video", required=("preset", "prompt"), **_PRESET),
    }
    # What is complete in the answer of a preset can be returned, though nobody can ask for it again.
    submitted_id = "task_id || operation_id || execution_id || id || (outputs && 'execute')"
    groups: ClassVar[Mapping[str, str]] = {"": "tasks"}
    look = Call("GET", "/v3/{group}/{id}")
    # 50 is the limit; whether `offset` is obeyed is not known ([O] vap.md 2).
    listing = Listing(
        Call("GET", "/v3/tasks", params={"limit": "{limit}", "offset": "{offset}", "status": "{word}"}),
        items="tasks",
        size=50,
        words=("completed", "failed"),
    )
    # openapi.yaml and the vendor's SDK name the first path, its README the other ([O] vap.md 2).
    balance = Balance(
        (Call("GET", "/v3/agents/me/balance"), Call("GET", "/v3/balance")),
        amount="usable || balance",
        unit="USD",
        unit_at="currency",
        reserved="reserved",
    )
    document = Document(
        id="task_id || id",
        failure_code="error.code || detail.code || code",
        failure="error_message || error || detail || message",
        cost="actual_cost",
        estimated="estimated_cost",
        unit="USD",
        created_at="created_at",
        request="params",
        echoed="params",
    )
    # No money is 402 or 403, in either form of body ([O] vap.md 5).
    refusal = Refusals(
        code="error.code || detail.code || code",
        words="error || detail || message",
        retry_after="error.details.retry_after || detail.details.retry_after || retry_after",
        codes={
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
        },
        sayings=(
            Saying(re.compile("balance", re.IGNORECASE), MediaFundsError, range(402, 404)),
            Saying(
                re.compile(r"moderat|content.polic|safety|nsfw|prohibited", re.IGNORECASE),
                MediaModerationError,
            ),
        ),
    )

    def _pages_of(
        self, group: str, since: datetime | None, name: str | None, arguments: Mapping[str, Any] | None
    ) -> Callable[[int], Conversation[tuple[list[MediaTask], bool]]]:
        """An empty page may also be what a server shows that knows no further one."""
        shown = super()._pages_of(group, since, name, arguments)

        def page_of(page: int) -> Conversation[tuple[list[MediaTask], bool]]:
            tasks, more = yield from shown(page)
            return tasks, more or (page > 0 and not tasks)

        return page_of

    def _operation_of(self, media_task_id: str, document: Mapping[str, Any]) -> str:  # noqa: ARG002  # its type tells
        """By the type, such as `image`, `image_generation`, `upscale` ([O] vap.md 2.1); empty for another."""
        name = _OPERATION_OF_TYPE.get(str(document.get("type") or "").removesuffix("_generation"), "")
        return "image_to_video" if name == "text_to_video" and at("params.image_url", document) else name

    def _outputs(self, document: Mapping[str, Any]) -> Any:
        """Both result shapes, `items`, and a preset's `outputs` by their kind ([O] vap.md 4)."""
        flat = {key: document[key] for key in _URLS if key in document}
        made = {f"{kind}_url": url for kind, url in object_of(document.get("outputs")).items()}
        return [document.get("result"), document.get("items"), flat, made]

    def error_of(self, reply: Reply) -> MediaTaskError | None:
        """A 403 that says how much is required is about money, whatever its words ([O] vap.md 5)."""
        error = super().error_of(reply)
        unclear = type(error) is MediaAuthError and error.code not in self.refusal.codes
        if unclear and reply.status == 403 and at(_REQUIRED, reply.document):
            return self._refused(reply, MediaFundsError)
        return error


_REQUIRED = "error.details.required || detail.details.required || required"
_OPERATION_OF_TYPE = {
    "image": "text_to_image",
    "video": "text_to_video",
    "music": "text_to_music",
    **{op.fixed["operation"]: name for name, op in VapHook.operations.items() if "operation" in op.fixed},
}
