"""`AceDataHook`: an AceDataCloud account, Veo and Luma in detail. Wire facts: providers/acedata.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaProviderError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    TaskStatus,
    shown,
)
from airflow_media_tasks.wire.conversations import Conversation, Reply
from airflow_media_tasks.wire.documents import (
    kind_of_key,
    kind_of_url,
    object_of,
)
from airflow_media_tasks.wire.files import Found, state_word, texts_in, urls_in
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.wire.places import at
from airflow_media_tasks.wire.roads import Road
from airflow_media_tasks.wire.tables import Call, Document, Listing, Refusals


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
# One image is the first frame, two are the first and the last ([O] acedata.md 5).
_NO_FRAMES = dict.fromkeys(("image_url", "end_image_url"), "is an argument of 'veo/image_to_video' only")
_FRAMES = {"image_url": "image_urls[]", "end_image_url": "image_urls[]"}
# Whether it is an address or the picture itself is not written down ([I] acedata.md 5).
_MASK: dict[str, Any] = {"rename": {"mask_url": "image_mask"}, "inline": ("mask_url",)}
# State words stand there, and nowhere else: an echo may hold any word.
_WORDS = (
    "[state || status, data.state || data.status, data[].[state || status][], task.state || task.status][]"
)
# Of the whole, or of the first item that failed.
_CODE = "response.error.code || response.data.error.code || (response.data[].error.code)[0]"
_SAID = (
    "response.error.message || response.error || response.detail || response.message"
    " || response.data.error || (response.data[].error)[0]"
)
# HTTP 200 refuses, too ([O] acedata.md 8).
_REFUSED = "success == `false` && error.code && !contains(keys(@), 'task_id')"


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
    # Addresses; but a mask may be the picture itself ([I] acedata.md 5).
    roads = (Road(Road.URL), Road(Road.INLINE, ("mask_url",), form="{base64}"))
    # Prices are not written down; that Luma costs less than Veo is a guess ([I] acedata.md 6).
    cheapest = ("luma/text_to_video", {"prompt": "A grey pebble"})

    operations: ClassVar[Mapping[str, Operation]] = {
        "veo/text_to_video": Operation(
            "video",
            "/veo/videos",
            ("prompt",),
            fixed={"action": "text2video"},
            refuses=_NO_FRAMES,
            group="veo",
            expected_seconds=90,
        ),
        "veo/image_to_video": Operation(
            "video",
            "/veo/videos",
            ("prompt",),
            one_of=(("image_url", "image_urls"),),
            rename=_FRAMES,
            needs={"end_image_url": "image_url"},
            fixed={"action": "image2video"},
            group="veo",
            expected_seconds=90,
        ),
        # Only this model takes reference images ([O] acedata.md 5), and it is not the server's default.
        "veo/ingredients_to_video": Operation(
            "video",
            "/veo/videos",
            ("prompt", "image_urls"),
            fixed={"action": "ingredients2video"},
            refuses=_NO_FRAMES,
            defaults={"model": "veo31-fast-ingredients"},
            group="veo",
            expected_seconds=90,
        ),
        "veo/upscale_video": Operation(
            "video",
            "/veo/upsample",
            ("video_id",),
            rename={"resolution": "action"},
            defaults={"action": "1080p"},
            group="veo",
            expected_seconds=60,
        ),
        "veo/extend_video": Operation(
            "video", "/veo/extend", ("video_id", "prompt"), group="veo", expected_seconds=90
        ),
        "veo/reshoot_video": Operation(
            "video", "/veo/reshoot", ("video_id", "motion_type"), group="veo", expected_seconds=90
        ),
        "veo/insert_object": Operation(
            "video",
            "/veo/objects",
            ("video_id", "prompt"),
            **_MASK,
            fixed={"action": "insert"},
            group="veo",
            expected_seconds=90,
        ),
        "veo/remove_object": Operation(
            "video",
            "/veo/objects",
            ("video_id",),
            **_MASK,
            fixed={"action": "remove"},
            group="veo",
            expected_seconds=90,
        ),
        "luma/text_to_video": Operation(
            "video",
            "/luma/videos",
            ("prompt",),
            fixed={"action": "generate"},
            group="luma",
            expected_seconds=60,
        ),
        "luma/image_to_video": Operation(
            "video",
            "/luma/videos",
            ("prompt", "image_url"),
            rename=_FIRST_FRAME,
            fixed={"action": "generate"},
            group="luma",
            expected_seconds=60,
        ),
        "luma/extend_video": Operation(
            "video",
            "/luma/videos",
            ("prompt",),
            one_of=(("video_id", "video_url"),),
            fixed={"action": "extend"},
            group="luma",
            expected_seconds=60,
        ),
    }

    # Without `async` the connection is held until the video is ready ([O] acedata.md 2).
    always: ClassVar[Mapping[str, Any]] = {"async": True}
    submitted_id = "task_id || data.task_id"
    # `request` is echoed in the task with its callback_url, the one place for a mark of our own.
    reference = "callback_url"
    # Nothing listens at the health address: older clients of the vendor used it to force async mode.
    deaf_path = "/health"
    # The schema's default action is a stray `generate`: always say retrieve ([O] acedata.md 3).
    look = Call("POST", "/{group}/tasks", json={"id": "{id}", "action": "retrieve"})
    # Without `limit` an answer of more than 12 is cut short ([I] acedata.md 3).
    look_at_many = Call(
        "POST", "/{group}/tasks", json={"ids": "{ids}", "action": "retrieve_batch", "limit": "{limit}"}
    )
    many = "items"
    listing = Listing(
        Call(
            "POST",
            "/{group}/tasks",
            json={
                "action": "retrieve_batch",
                "limit": "{limit}",
                "offset": "{offset}",
                "created_at_min": "{since}",
            },
        ),
        items="items",
        size=50,
    )
    document = Document(
        id="id || task_id",
        outputs="response",
        progress="response.progress.percent",
        whole=100,
        items="response.data[] || [response.data]",
        failure_code=_CODE,
        failure=_SAID,
        created_at="created_at",
        request="request",
        reference="request.callback_url",
    )
    refusal = Refusals(
        refused=_REFUSED,
        code="error.code",
        words="error.message || error.code || error || detail || message",
        request_id="trace_id",
        codes={
            **dict.fromkeys(
                ("bad_request", "api_not_implemented", "disabled", "request_too_large"), MediaRequestError
            ),
            **dict.fromkeys(("no_api", "not_found"), MediaNotFoundError),
            **dict.fromkeys(
                ("no_token", "token_mismatched", "invalid_token", "token_expired", "authorization_missing"),
                MediaAuthError,
            ),
            "used_up": MediaFundsError,
            # A 403 is a balance or a moderation, not a key ([O] acedata.md 8).
            "forbidden": MediaModerationError,
            "too_many_requests": MediaRateLimitError,
            # "api was throttled from upstream": nothing was accepted ([I] acedata.md 8).
            "busy": MediaRateLimitError,
            **dict.fromkeys(("api_error", "timeout"), MediaProviderError),
        },
    )

    @property
    def _service(self) -> str:
        return str(self.settings.extra.get("service") or "veo")

    def operation_name(self, operation: str) -> str:
        """A short name gets the connection's service: `text_to_video` may mean `veo/text_to_video`."""
        completed = f"{self._service}/{operation}"
        return completed if completed in self.operations else super().operation_name(operation)

    def _check_extra(self) -> None:
        super()._check_extra()
        if self._service not in SERVICES:
            raise MediaRequestError(
                f"connection {self.media_conn_id!r}: service in extra must be one of {', '.join(SERVICES)}, "
                f"got {shown(self._service)}"
            )

    def _groups_listed(self, name: str | None) -> list[str]:
        """The operation's service; without one, the connection's ([O] acedata.md 3)."""
        return super()._groups_listed(name) if name else [self._service]

    def _probe(self) -> Conversation[None]:
        yield self.listing.call.request(group=self._service, limit=1, offset=None, since=None)

    def error_of(self, reply: Reply) -> MediaTaskError | None:
        """A bare `null` is one of the ways in which an unknown task may be shown ([I] acedata.md 3)."""
        return None if reply.text.strip() == "null" and reply.status < 400 else super().error_of(reply)

    def _within(self, reply: Reply) -> Mapping[str, Any]:
        if not reply.document:
            raise MediaNotFoundError(f"{self.named} shows no such task", provider=self.conn_type)
        return reply.document

    def _kind_of(self, found: Found, made: str) -> str:  # noqa: ARG002  # a picture is a result here
        return kind_of_key(found.key) or kind_of_url(found.url) or "file"

    def _submitted(self, media_task_id: str, reply: Reply, name: str, body: Mapping[str, Any]) -> MediaTask:
        """A cached result comes at once although `async` was asked for ([O] acedata.md 2)."""
        if any(True for _ in urls_in(reply.document, but=texts_in(body))):
            return self._task(media_task_id, {"request": body, "response": reply.document}, name)
        return MediaTask(media_task_id, TaskStatus.QUEUED, name, raw=reply.document)

    def _task(
        self, media_task_id: str, document: Mapping[str, Any], name: str = "", *, submitted: bool = False
    ) -> MediaTask:
        """A document without `response` is the body itself, unless it is a record that has none yet."""
        if "response" not in document and "request" not in document:
            document = {**document, "response": document}
        return super()._task(media_task_id, document, name, submitted=submitted)

    def _status_in(self, document: Mapping[str, Any], media_task_id: str) -> tuple[str | None, TaskStatus]:
        """The rules of acedata.md 4: a state word outranks `success`, `success` the presence of a file."""
        body, top = object_of(document.get("response")), state_word(document)
        if not body and top is None:
            # Nothing is known yet; ten thousand waiting tasks are read like this every few seconds.
            return None, TaskStatus.RUNNING
        words = (word for word in at(_WORDS, body) or () if isinstance(word, str) and word)
        statuses = {word: self.status_of(word, media_task_id) for word in words}
        made = [self._file(x, "") for x in urls_in(body, but=texts_in(document.get("request")))]
        has_files = any(file.kind != "thumbnail" for file in made)
        if statuses:
            pending = [pair for pair in statuses.items() if not pair[1].is_terminal]
            done = [pair for pair in statuses.items() if pair[1] is TaskStatus.SUCCEEDED]
            # Of several items, those that were made count as long as one of them was.
            bad = [pair for pair in statuses.items() if pair not in done]
            return (pending or (done if done and has_files else bad or done))[0]
        finished = document.get("finished_at") is not None or body.get("finished_at") is not None
        if body.get("success") is False:
            # A bare text is a passing trouble that the vendor's own tests call running; an object is final.
            final = finished or has_files or self._said(body)[0] is not None
            return None, TaskStatus.FAILED if final else TaskStatus.RUNNING
        if top is not None and not has_files:
            return top, self.status_of(top, media_task_id)
        is_made = has_files or (finished and body.get("success") is True)
        return None, TaskStatus.SUCCEEDED if is_made else TaskStatus.RUNNING
