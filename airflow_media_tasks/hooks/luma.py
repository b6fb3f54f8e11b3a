"""`LumaHook`: Luma's own two APIs, Dream Machine and Agents. Wire facts: providers/luma_official.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import (
    MediaFundsError,
    MediaModerationError,
    MediaRequestError,
    MediaTaskError,
    shown,
)
from airflow_media_tasks.wire.conversations import Reply
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.wire.places import Into
from airflow_media_tasks.wire.tables import Balance, Call, Document, Listing, Refusals, Saying


_AGENTS = "agents"
_APIS = ("dream-machine", _AGENTS)
# A duration is a text such as 5s ([O]).
_VIDEO: dict[str, Any] = {"duration": Into("duration", "{value}s")}
_AGENTS_VIDEO: dict[str, Any] = {
    "duration": Into("video.duration", "{value}s"),
    **{word: f"video.{word}" for word in ("resolution", "loop")},
}
_LAST_FRAME = Into("keyframes.frame1", {"type": "image", "url": "{value}"})
_REFERENCES = Into("image_ref", {"url": "{value}"}, each=True)
# It has neither a list nor a place for a mark of ours ([O]).
_ON_AGENTS: dict[str, Any] = {"host": _AGENTS, "group": _AGENTS, "marked": False, "listed": False}


class LumaHook(MediaHook):
    """Luma's Dream Machine, and its Agents API, whose operations' names begin with `agents/`.

    A task's `media_task_id` is `<generation id>`, or `agents/<generation id>`. With `agents` as the
    connection's `api` (extra, default `dream-machine`) a name without `agents/` means the one that has it.
    """

    default_conn_name = "luma_default"
    conn_type = "luma"
    hook_name = "Luma"
    base_url = "https://api.lumalabs.ai/dream-machine/v1"
    other_urls: ClassVar[Mapping[str, str]] = {_AGENTS: "https://agents.lumalabs.ai/v1"}
    console_url = "https://lumalabs.ai/dream-machine/api"
    id_groups = re.compile(f"(?:{_AGENTS})?")
    id_form = "'<generation id>' or 'agents/<generation id>'"
    client_ref_is_queryable = True
    units = ("cents",)
    # Prices are not in the sheet; that the small model costs least is a guess ([I]).
    cheapest = ("text_to_image", {"prompt": "A grey pebble", "model": "photon-flash-1"})

    operations: ClassVar[Mapping[str, Operation]] = {
        "text_to_image": Operation(
            "image",
            "/generations/image",
            ("prompt",),
            fixed={"generation_type": "image"},
            defaults={"model": "photon-1"},
            expected_seconds=15,
        ),
        "image_to_image": Operation(
            "image",
            "/generations/image",
            ("prompt", "image_url"),
            rename={"image_url": "modify_image_ref.url", "weight": "modify_image_ref.weight"},
            fixed={"generation_type": "image"},
            defaults={"model": "photon-1"},
            expected_seconds=15,
        ),
        "text_to_video": Operation(
            "video",
            "/generations/video",
            ("prompt",),
            rename=_VIDEO,
            fixed={"generation_type": "video"},
            defaults={"model": "ray-2"},
        ),
        "image_to_video": Operation(
            "video",
            "/generations/video",
            ("image_url",),
            rename={**_VIDEO, "image_url": "keyframes.frame0.url", "end_image_url": _LAST_FRAME},
            fixed={"generation_type": "video", "keyframes.frame0.type": "image"},
            defaults={"model": "ray-2"},
        ),
        "extend_video": Operation(
            "video",
            "/generations/video",
            ("video_id",),
            rename={**_VIDEO, "video_id": "keyframes.frame0.id", "end_image_url": _LAST_FRAME},
            fixed={"generation_type": "video", "keyframes.frame0.type": "generation"},
            defaults={"model": "ray-2"},
        ),
        "upscale_video": Operation(
            "video",
            "/generations/{video_id}/upscale",
            ("video_id",),
            fixed={"generation_type": "upscale_video"},
        ),
        "agents/text_to_image": Operation(
            "image",
            "/generations",
            ("prompt",),
            rename={"image_urls": _REFERENCES},
            fixed={"type": "image"},
            defaults={"model": "uni-1"},
            expected_seconds=20,
            **_ON_AGENTS,
        ),
        "agents/image_to_image": Operation(
            "image",
            "/generations",
            ("prompt", "image_url"),
            rename={"image_url": "source.url", "image_urls": _REFERENCES},
            fixed={"type": "image_edit"},
            defaults={"model": "uni-1"},
            expected_seconds=20,
            **_ON_AGENTS,
        ),
        "agents/text_to_video": Operation(
            "video",
            "/generations",
            ("prompt",),
            rename=_AGENTS_VIDEO,
            fixed={"type": "video"},
            defaults={"model": "ray-3.2"},
            **_ON_AGENTS,
        ),
        "agents/image_to_video": Operation(
            "video",
            "/generations",
            ("prompt", "image_url"),
            rename={
                **_AGENTS_VIDEO,
                "image_url": "video.start_frame.url",
                "end_image_url": "video.end_frame.url",
            },
            fixed={"type": "video"},
            defaults={"model": "ray-3.2"},
            **_ON_AGENTS,
        ),
        "agents/edit_video": Operation(
            "video",
            "/generations",
            ("prompt", "video_url"),
            rename={**_AGENTS_VIDEO, "video_url": "source.url"},
            fixed={"type": "video_edit"},
            # A film is taken for one by its type alone ([O]).
            defaults={"model": "ray-3.2", "source.media_type": "video/mp4"},
            **_ON_AGENTS,
        ),
    }
    look = Call("GET", "/generations/{id}", host="{group}")
    # The request is echoed with its callback_url, the one place for a mark of our own ([I]).
    reference = "callback_url"
    # Answers a GET alone ([O]), so a call to it is refused and forgotten.
    deaf_path = "/ping"
    # The newest come first ([I]).
    listing = Listing(
        Call("GET", "/generations", params={"limit": "{limit}", "offset": "{offset}"}),
        items="generations",
        size=50,
        more="has_more",
    )
    balance = Balance((Call("GET", "/credits"),), amount="credit_balance", unit="cents")
    proof = Call("GET", "/files", params={"limit": 1}, host=_AGENTS)
    document = Document(
        status="state",
        # A film's picture is its thumbnail ([I]); there is a progress_video before the end ([O]).
        outputs="{id: id, video: assets.video || output[?type == 'video'].url,"
        " image: !(assets.video) && assets.image || output[?type != 'video'].url,"
        " thumbnail: assets.video && assets.image}",
        any_text=True,
        failure_code="failure_code",
        failure="failure_reason",
        created_at="created_at",
        request="request",
        reference="request.callback_url",
    )
    refusal = Refusals(
        words="detail",
        codes={"content_moderated": MediaModerationError},
        # Dream Machine has no codes ([O]); what it says of moderation and money is not written down ([I]).
        sayings=(
            Saying(
                re.compile(r"moderat|content polic|\bnsfw\b|\bsafety\b", re.IGNORECASE), MediaModerationError
            ),
            Saying(
                re.compile(r"insufficient (?:credit|balance|fund)|not enough credit", re.IGNORECASE),
                MediaFundsError,
            ),
        ),
    )

    @property
    def _group_here(self) -> str:
        """The group of what the connection's `api` makes."""
        api = str(self.settings.extra.get("api") or _APIS[0])
        if api not in _APIS:
            raise MediaRequestError(
                f"connection {self.media_conn_id!r}: api in extra must be one of {', '.join(_APIS)}, "
                f"got {shown(api)}"
            )
        return _AGENTS if api == _AGENTS else ""

    def operation_name(self, operation: str) -> str:
        """At Agents `text_to_video` means `agents/text_to_video`."""
        completed = f"{self._group_here}/{operation}"
        return completed if completed in self.operations else super().operation_name(operation)

    def check_settings(self) -> None:
        """As of `MediaHook`, and the API."""
        super().check_settings()
        _ = self._group_here

    def shows_balance(self) -> bool:
        """Agents has no balance ([O])."""
        return self._group_here != _AGENTS

    def _groups_listed(self, name: str | None) -> list[str]:
        return [self.operations[name].group if name else self._group_here]

    def _refused(self, reply: Reply, cls: type[MediaTaskError] | None) -> MediaTaskError:
        """As of all; there is no code but the status."""
        error = super()._refused(reply, cls)
        error.code = error.code or str(reply.status)
        return error
