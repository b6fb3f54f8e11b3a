"""`KlingHook`: Kling's own API, those endpoints with `model_name` in the body. Wire facts: kling.md."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

import jwt

from airflow_media_tasks.hooks.base import MediaHook
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
)
from airflow_media_tasks.wire.conversations import Conversation, ConversationHook, Reply, Request
from airflow_media_tasks.wire.documents import number_at, object_of, text_at
from airflow_media_tasks.wire.files import Found
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.wire.places import Into
from airflow_media_tasks.wire.roads import Road, Takes
from airflow_media_tasks.wire.tables import Call, Document, Listing, Refusals, Saying


_MODEL = {"model": "model_name"}
_FILM: dict[str, Any] = {**_MODEL, "duration": Into("duration", convert=str)}
_FRAMES = {**_FILM, "image_url": "image", "end_image_url": "image_tail"}
_PICTURES = ("image_url", "end_image_url", "image_urls", "person_image_url", "cloth_image_url")
"""These may also be raw base64 ([O] kling.md 2B)."""
_OUTSIDE = ("callback_url", "external_task_id", "effect_scene")


def _operation(kind: str, path: str, *required: str, seconds: float, **rest: Any) -> Operation:
    """A task can only be read through the path that made it ([O] kling.md 2B): that is its group."""
    return Operation(kind, f"/v1/{path}", required, group=path, expected_seconds=seconds, **rest)


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
    # Pictures alone may also be raw base64, without `data:` ([O] kling.md 2B).
    roads = (Road(Road.URL), Road(Road.INLINE, _PICTURES, form="{base64}"))
    takes: ClassVar[Mapping[str, Takes]] = {
        "image": Takes(("image/jpeg", "image/png"), most=10_000_000, least=300, ratio=2.5)
    }
    # A picture takes a fortieth of what a film takes ([I] kling.md 8).
    cheapest = ("text_to_image", {"prompt": "A grey pebble"})

    operations: ClassVar[Mapping[str, Operation]] = {
        "text_to_video": _operation("video", "videos/text2video", "prompt", seconds=120, rename=_FILM),
        "image_to_video": _operation(
            "video", "videos/image2video", "image_url", seconds=120, rename=_FRAMES, inline=_PICTURES
        ),
        "multi_image_to_video": _operation(
            "video",
            "videos/multi-image2video",
            *("image_urls", "prompt"),
            seconds=120,
            rename={**_FILM, "image_urls": Into("image_list", {"image": "{value}"}, each=True)},
            inline=_PICTURES,
        ),
        # An extension has no external id ([O] kling.md 2B).
        "extend_video": _operation("video", "videos/video-extend", "video_id", seconds=120, marked=False),
        "lip_sync": _operation(
            "video",
            "videos/lip-sync",
            seconds=120,
            one_of=(("video_id", "video_url"), ("text", "audio_url")),
            beside={
                "text": {"input.mode": "text2video"},
                "audio_url": {"input.mode": "audio2video", "input.audio_type": "url"},
            },
            rest="input",
            top=_OUTSIDE,
        ),
        "video_effects": _operation(
            "video",
            "videos/effects",
            "effect_scene",
            seconds=120,
            one_of=(("image_url", "image_urls"),),
            rename={
                "model": "input.model_name",
                "duration": Into("input.duration", convert=str),
                "image_url": "input.image",
                "image_urls": "input.images",
            },
            rest="input",
            top=_OUTSIDE,
            inline=_PICTURES,
        ),
        "text_to_image": _operation(
            "image", "images/generations", "prompt", seconds=20, rename={**_MODEL, "count": "n"}
        ),
        "image_to_image": _operation(
            "image",
            "images/generations",
            *("prompt", "image_url"),
            seconds=20,
            rename={**_MODEL, "count": "n", "image_url": "image"},
            inline=_PICTURES,
        ),
        "virtual_try_on": _operation(
            "image",
            "images/kolors-virtual-try-on",
            *("person_image_url", "cloth_image_url"),
            seconds=30,
            rename={**_MODEL, "person_image_url": "human_image", "cloth_image_url": "cloth_image"},
            inline=_PICTURES,
        ),
        "text_to_audio": _operation("audio", "audio/text-to-audio", "prompt", seconds=30),
        "video_to_audio": _operation(
            "audio",
            "audio/video-to-audio",
            seconds=30,
            one_of=(("video_id", "video_url"),),
            rename={"prompt": "sound_effect_prompt"},
        ),
    }
    submitted_id = "data.task_id"
    reference = "external_task_id"
    look = Call("GET", "/v1/{group}/{id}")
    find = Call("GET", "/v1/{group}/{ref}")
    # Each path has one list of all its tasks; pageNum ends at 1000 ([O] kling.md 2B).
    listing = Listing(
        Call("GET", "/v1/{group}", params={"pageNum": "{number}", "pageSize": "{limit}"}),
        items="data",
        size=500,
        words=("",),
        last=1000,
    )
    document = Document(
        within="data",
        id="task_id",
        status="task_status",
        outputs="[{audio: task_result.audios}, {image: [task_result.images, task_result.series_images]},"
        " {video: task_result.videos}]",
        failure_code="task_status",
        failure="task_status_msg",
        created_at="created_at",
        ended_at="updated_at",
        # After which the provider deletes an output ([O] kling.md 8).
        kept=timedelta(days=30),
        reference="task_info.external_task_id",
    )
    refusal = Refusals(
        code="code",
        words="message",
        request_id="request_id",
        codes={
            **dict.fromkeys(["1000", "1001", "1002", "1003", "1004", "1100", "1103", "1304"], MediaAuthError),
            **dict.fromkeys(["1101", "1102"], MediaFundsError),
            **dict.fromkeys(["1200", "1201", "1202"], MediaRequestError),
            "1203": MediaNotFoundError,
            **dict.fromkeys(["1300", "1301"], MediaModerationError),
            "1302": MediaRateLimitError,
            "1303": MediaConcurrencyError,
            **dict.fromkeys(["5000", "5001", "5002"], MediaProviderError),
        },
        sayings=(
            Saying(
                re.compile(r"risk control|moderat|polic|security|sensitive|nsfw", re.IGNORECASE),
                MediaModerationError,
                statuses=range(0),
            ),
        ),
        # An unknown id is answered with 1203 or with 1201; nobody wrote down when which ([I] kling.md 3).
        unknown=("1201",),
    )

    def _headers(self) -> dict[str, str]:
        access_key = self.settings.login
        if not access_key:
            return super()._headers()
        now = int(time.time() + self.clock_offset)
        claims = {"iss": access_key, "exp": now + 1800, "nbf": now - 5}
        return {"Authorization": f"Bearer {jwt.encode(claims, self._key, algorithm='HS256')}"}

    def _comes_from(
        self,
        task: MediaTask,
        name: str,  # noqa: ARG002  # only extensions are compared
        arguments: Mapping[str, Any] | None,
        client_ref: str | None,  # noqa: ARG002  # as above
        traces: Mapping[str, str],  # noqa: ARG002  # as above
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
            return ConversationHook.error_of(self, reply) or self.senseless(reply, "a code")
        return self._refused(reply, self.refusal.codes.get(str(code)))

    def _operation_of(self, media_task_id: str, document: Mapping[str, Any]) -> str:  # noqa: ARG002  # its path tells
        """By its path, where that serves one operation alone."""
        group = self.group_of(media_task_id)
        names = [name for name, op in self.operations.items() if op.group == group]
        return names[0] if len(names) == 1 else ""

    def _cost(self, document: Mapping[str, Any]) -> MediaCost | None:
        """Units of a resource pack or, where none were taken, what the account's balance paid.

        Its currency is not stated ([O] kling.md 2B, 8).
        """
        units = text_at(document, "final_unit_deduction")
        quota = text_at(object_of(document.get("final_balance_deduction")), "quota")
        for amount, unit in ((units, "units"), (quota, "balance")):
            if amount is not None and amount.strip("0."):
                return MediaCost(unit, amount)
        return MediaCost("units", units) if units else None

    def _file(self, found: Found, made: str) -> MediaFile:  # noqa: ARG002  # the list tells
        """Of `url`, `watermark_url`; sound has `url_mp3` here and `mp3_url` at the newer endpoints."""
        item, form = found.around[-1], found.key.replace("url", "").strip("_")
        return MediaFile(
            kind=found.keys[0],
            url=found.url,
            id=text_at(item, "id"),
            duration=number_at(item, "duration", f"duration_{form}", f"{form}_duration"),
            content_type=_CONTENT_TYPES.get(form),
            watermarked=found.is_watermarked,
        )


_CONTENT_TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav"}
