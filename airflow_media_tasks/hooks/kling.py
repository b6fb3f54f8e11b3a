"""`KlingHook`: Kling's own API, those endpoints with `model_name` in the body. Wire facts: kling.md."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import quote

import jwt

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.hooks.conversations import Conversation, Reply, Request
from airflow_media_tasks.hooks.documents import id_at, number_at, object_of, text_at, time_at
from airflow_media_tasks.hooks.operations import Operation
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaBalance,
    MediaConcurrencyError,
    MediaCost,
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
)


_MODEL = {"model": "model_name"}
_FRAMES = {**_MODEL, "image_url": "image", "end_image_url": "image_tail"}
_PICTURES = ("image_url", "end_image_url", "image_urls", "person_image_url", "cloth_image_url")
"""These may also be raw base64 ([O] kling.md 2B)."""
_PAGE_SIZE = 500
_EXTEND = "/v1/videos/video-extend"
_KEPT = timedelta(days=30)
"""After which the provider deletes an output ([O] kling.md 8)."""


class KlingHook(MediaHook):
    """Video, images, try-on and sound through Kling's own API.

    The connection's password is the API key; for the older pair, login is the access key and password the
    secret key, and a JWT is signed for each request.

    A task can only be read through the path that made it ([O] kling.md 2B), so its `media_task_id` is that
    path and the id: `videos/text2video/<id>`. The id may be the provider's or the caller's external one.
    """

    default_conn_name = "kling_default"
    conn_type = "kling"
    hook_name = "Kling"
    base_url = "https://api-singapore.klingai.com"
    # The developer console for accounts outside China, as Kling's documentation names it.
    console_url = "https://app.klingai.com/global/dev"
    id_groups = re.compile(r"(?:videos|images|audio|general)(?:/[a-z0-9-]+){1,2}")
    id_form = "'<path>/<task id>', for example 'videos/text2video/...' or 'images/generations/...'"
    client_ref_is_queryable = True
    units = ("units", "balance")

    operations: ClassVar[Mapping[str, Operation]] = {
        "text_to_video": Operation(
            "video", "/v1/videos/text2video", ("prompt",), rename=_MODEL, expected_seconds=120
        ),
        "image_to_video": Operation(
            "video",
            "/v1/videos/image2video",
            ("image_url",),
            rename=_FRAMES,
            inline=_PICTURES,
            expected_seconds=120,
        ),
        "multi_image_to_video": Operation(
            "video",
            "/v1/videos/multi-image2video",
            ("image_urls", "prompt"),
            rename={**_MODEL, "image_urls": "image_list"},
            inline=_PICTURES,
            expected_seconds=120,
        ),
        "extend_video": Operation("video", _EXTEND, ("video_id",), expected_seconds=120),
        "lip_sync": Operation(
            "video",
            "/v1/videos/lip-sync",
            one_of=(("video_id", "video_url"), ("text", "audio_url")),
            expected_seconds=120,
        ),
        "video_effects": Operation(
            "video",
            "/v1/videos/effects",
            ("effect_scene",),
            one_of=(("image_url", "image_urls"),),
            rename={**_MODEL, "image_url": "image", "image_urls": "images"},
            inline=_PICTURES,
            expected_seconds=120,
        ),
        "text_to_image": Operation(
            "image",
            "/v1/images/generations",
            ("prompt",),
            rename={**_MODEL, "count": "n"},
            expected_seconds=20,
        ),
        "image_to_image": Operation(
            "image",
            "/v1/images/generations",
            ("prompt", "image_url"),
            rename={**_MODEL, "count": "n", "image_url": "image"},
            inline=_PICTURES,
            expected_seconds=20,
        ),
        "virtual_try_on": Operation(
            "image",
            "/v1/images/kolors-virtual-try-on",
            ("person_image_url", "cloth_image_url"),
            rename={**_MODEL, "person_image_url": "human_image", "cloth_image_url": "cloth_image"},
            inline=_PICTURES,
            expected_seconds=30,
        ),
        "text_to_audio": Operation("audio", "/v1/audio/text-to-audio", ("prompt",), expected_seconds=30),
        "video_to_audio": Operation(
            "audio",
            "/v1/audio/video-to-audio",
            one_of=(("video_id", "video_url"),),
            rename={"prompt": "sound_effect_prompt"},
            expected_seconds=30,
        ),
    }

    def _headers(self) -> dict[str, str]:
        access_key = self.settings.login
        if not access_key:
            return super()._headers()
        now = int(time.time() + self.clock_offset)
        claims = {"iss": access_key, "exp": now + 1800, "nbf": now - 5}
        return {"Authorization": f"Bearer {jwt.encode(claims, self._key, algorithm='HS256')}"}

    def _submit(
        self, name: str, operation: Operation, arguments: Mapping[str, Any], client_ref: str | None
    ) -> Conversation[MediaTask]:
        body = _body(operation, arguments)
        if client_ref is not None and operation.path != _EXTEND:
            body["external_task_id"] = client_ref
        reply = yield from self._ask(Request("POST", operation.path, json=body, paid=True))
        data = object_of(reply.document.get("data"))
        own_id = id_at(data, "task_id")
        if own_id is None:
            raise self.senseless(reply, "a data.task_id")
        return self._task(operation.path, data, own_id, name)

    def _get_task(self, media_task_id: str) -> Conversation[MediaTask]:
        group, _, own_id = media_task_id.rpartition("/")
        return (yield from self._read(group, own_id))

    def _read(self, group: str, own_id: str) -> Conversation[MediaTask]:
        try:
            reply = yield from self._ask(Request("GET", f"/v1/{group}/{quote(own_id, safe='')}"))
        except MediaRequestError as error:
            if error.code != "1201":
                raise
            # An unknown id is answered with 1203 or with 1201; nobody wrote down when which ([I] kling.md 3).
            raise MediaNotFoundError(error.message, provider=self.conn_type, code=error.code) from error
        data = object_of(reply.document.get("data"))
        if not data:
            raise self.senseless(reply, "a task in data")
        return self._task(f"/v1/{group}", data, own_id)

    def _find_tasks(
        self,
        client_ref: str | None,
        submitted_after: datetime | None,
        name: str | None,
        arguments: Mapping[str, Any] | None,
    ) -> Conversation[list[MediaTask]]:
        """By the external id, where the operation takes one."""
        if client_ref is None or name is None or self.operations[name].path == _EXTEND:
            return (yield from super()._find_tasks(client_ref, submitted_after, name, arguments))
        group = self.operations[name].path.removeprefix("/v1/")
        try:
            return [(yield from self._read(group, client_ref))]
        except MediaNotFoundError:
            return []

    def lists_of(self, group: str) -> tuple[str, ...]:
        """Each path has one list of all its tasks ([O] kling.md 2B)."""
        return () if group.startswith("general/") else ("",)

    def _list_page(
        self,
        group: str,
        word: str,  # noqa: ARG002  # there is one list a path
        page: int,
    ) -> Conversation[tuple[list[MediaTask], bool]]:
        """PageNum ends at 1000 ([O] kling.md 2B)."""
        path = f"/v1/{group}"
        reply = yield from self._ask(
            Request("GET", path, params={"pageNum": page + 1, "pageSize": _PAGE_SIZE})
        )
        listed = reply.document.get("data")
        if not isinstance(listed, list):
            raise self.senseless(reply, "a list of tasks in data")
        tasks = [
            self._task(path, item, own_id)
            for item in listed
            if isinstance(item, Mapping) and (own_id := text_at(item, "task_id")) is not None
        ]
        return tasks, len(listed) == _PAGE_SIZE and page < 999

    def _list_tasks(
        self, name: str | None, since: datetime | None
    ) -> Conversation[tuple[list[MediaTask], bool]]:
        """Path by path: there is no list of everything ([O] kling.md 2B)."""
        paths = [self.operations[name].path] if name else sorted({op.path for op in self.operations.values()})
        tasks: list[MediaTask] = []
        complete = True
        for path in paths:
            page_of = functools.partial(self._list_page, path.removeprefix("/v1/"), "")
            shown, whole = yield from self._walk(page_of, since)
            tasks += shown
            complete = complete and whole
        return tasks, complete

    def _ref_of(self, task: MediaTask) -> str | None:
        """The external id; an extension has none of ours ([O] kling.md 2B)."""
        return text_at(object_of(task.raw.get("task_info")), "external_task_id")

    def _comes_from(
        self,
        task: MediaTask,
        name: str,  # noqa: ARG002  # only extensions are compared
        arguments: Mapping[str, Any] | None,
        client_ref: str | None,  # noqa: ARG002  # as above
    ) -> bool | None:
        """An extension, by its parent: a list shows nothing else of a request."""
        parent = text_at(object_of(object_of(task.raw.get("task_info")).get("parent_video")), "id")
        wanted = (arguments or {}).get("video_id")
        return None if parent is None or wanted is None else parent == wanted

    def _get_balance(self) -> Conversation[MediaBalance]:
        """What is left of all resource packs that are in force; the provider's figure may be 12 h old."""
        now = int(time.time() * 1000)
        params = {"start_time": now - 30 * 86_400_000, "end_time": now}
        reply = yield from self._ask(Request("GET", "/account/costs", params=params))
        packs = object_of(reply.document.get("data")).get("resource_pack_subscribe_infos")
        if not isinstance(packs, list):
            raise self.senseless(reply, "resource packs")
        left = sum(
            number_at(pack, "remaining_quantity") or 0.0
            for pack in packs
            if isinstance(pack, Mapping) and pack.get("status") == "online"
        )
        return MediaBalance(f"{left:.4f}".rstrip("0").rstrip("."), "units")

    def _ask(self, request: Request) -> Conversation[Reply]:
        """One request, signed once more, by the provider's clock, if the two disagree (1003, 1004)."""
        try:
            return (yield request)
        except MediaAuthError as error:
            if error.code not in ("1003", "1004") or not self.settings.login:
                raise
        return (yield request)

    def error_of(self, reply: Reply) -> MediaTaskError | None:
        """By `code` alone: HTTP 200 may be a failure, and a 429 may mean "no money" ([O] kling.md 5)."""
        code = reply.document.get("code")
        if reply.status < 400 and code == 0:
            return None
        if not isinstance(code, int) or isinstance(code, bool):
            # A gateway's page, for example Spring's 404 body, knows no code ([O] kling.md 4).
            return super().error_of(reply) or self.senseless(reply, "a code")
        cls = _CLASS_OF_CODE.get(code)
        return self.error(
            cls, reply, code, text_at(reply.document, "message"), text_at(reply.document, "request_id")
        )

    def _task(self, path: str, data: Mapping[str, Any], own_id: str, name: str = "") -> MediaTask:
        media_task_id = f"{path.removeprefix('/v1/')}/{id_at(data, 'task_id') or own_id}"
        word = text_at(data, "task_status")
        words = text_at(data, "task_status_msg")
        moderated = bool(_MODERATION.search(words or ""))
        return self.media_task(
            media_task_id,
            self.status_of(word, media_task_id),
            word,
            files=_files(data),
            failure=self.task_failed(
                media_task_id, word, words, MediaModerationError if moderated else MediaTaskFailed
            ),
            operation=name or _only([key for key, op in self.operations.items() if op.path == path]),
            cost=_cost(data),
            created_at=time_at(data, "created_at"),
            raw=data,
        )


_CLASS_OF_CODE: dict[int, type[MediaTaskError]] = {
    **dict.fromkeys((1000, 1001, 1002, 1003, 1004, 1100, 1103, 1304), MediaAuthError),
    **dict.fromkeys((1101, 1102), MediaFundsError),
    **dict.fromkeys((1200, 1201, 1202), MediaRequestError),
    1203: MediaNotFoundError,
    **dict.fromkeys((1300, 1301), MediaModerationError),
    1302: MediaRateLimitError,
    1303: MediaConcurrencyError,
    **dict.fromkeys((5000, 5001, 5002), MediaProviderError),
}
_MODERATION = re.compile(r"risk control|moderat|polic|security|sensitive|nsfw", re.IGNORECASE)
# Sound first: video-to-audio returns the video with the sound on it, too ([O] kling.md 2B).
_LISTS = {"audios": "audio", "images": "image", "series_images": "image", "videos": "video"}
_CONTENT_TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav"}


def _body(operation: Operation, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The provider's words, in the nesting that the path wants ([O] kling.md 2B)."""
    body = operation.body(arguments)
    if "duration" in body and operation.path.startswith("/v1/videos/"):
        body["duration"] = str(body["duration"])
    if "image_list" in body:
        body["image_list"] = [
            {"image": image} if isinstance(image, str) else image for image in body["image_list"]
        ]
    outside = _pop(body, "callback_url", "external_task_id", "effect_scene")
    if operation.path == "/v1/videos/lip-sync":
        mode = "audio2video" if "audio_url" in body else "text2video"
        audio_type = {"audio_type": "url"} if "audio_url" in body else {}
        return {**outside, "input": {"mode": mode, **audio_type, **body}}
    if operation.path == "/v1/videos/effects":
        return {**outside, "input": body}
    return {**body, **outside}


def _only(names: list[str]) -> str:
    """The one name, or empty where a path serves several operations and does not say which."""
    return names[0] if len(names) == 1 else ""


def _pop(body: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: body.pop(key) for key in keys if key in body}


def _cost(data: Mapping[str, Any]) -> MediaCost | None:
    """Units of a resource pack or, where none were taken, what the account's balance paid.

    Its currency is not stated ([O] kling.md 2B, 8).
    """
    units = text_at(data, "final_unit_deduction")
    quota = text_at(object_of(data.get("final_balance_deduction")), "quota")
    for amount, unit in ((units, "units"), (quota, "balance")):
        if amount is not None and amount.strip("0."):
            return MediaCost(unit, amount)
    return MediaCost("units", units) if units else None


def _files(data: Mapping[str, Any]) -> Iterator[MediaFile]:
    updated_at = time_at(data, "updated_at")
    expires_at = updated_at + _KEPT if updated_at else None
    result = object_of(data.get("task_result"))
    for key, kind in _LISTS.items():
        listed = result.get(key)
        for item in listed if isinstance(listed, list) else ():
            if not isinstance(item, Mapping):
                continue
            for name, url in item.items():
                # `url`, `watermark_url`; sound has `url_mp3` here and `mp3_url` at the newer endpoints.
                if "url" not in name.split("_") or not isinstance(url, str) or not url:
                    continue
                form = name.replace("url", "").strip("_")
                yield MediaFile(
                    kind=kind,
                    url=url,
                    id=text_at(item, "id"),
                    duration=number_at(item, "duration", f"duration_{form}", f"{form}_duration"),
                    content_type=_CONTENT_TYPES.get(form),
                    expires_at=expires_at,
                    watermarked=form == "watermark",
                )
