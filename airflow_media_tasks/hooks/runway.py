"""`RunwayHook`: films, pictures and sound by Runway's API. Wire facts: providers/runway.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import (
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaTask,
    MediaTaskError,
    TaskStatus,
)
from airflow_media_tasks.wire.conversations import Conversation, Reply
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.wire.places import Into
from airflow_media_tasks.wire.tables import Balance, Call, Document, Refusals, Saying


def _voice(value: Any) -> Any:
    """A preset's name, or a voice as Runway writes it ([O] runway.md)."""
    return value if isinstance(value, Mapping) else {"type": "runway-preset", "presetId": value}


_WORDS: Mapping[str, str | Into] = {
    "prompt": "promptText",
    "negative_prompt": "negativePrompt",
    "image_url": Into("promptImage[]", {"uri": "{value}", "position": "first"}),
    "end_image_url": Into("promptImage[]", {"uri": "{value}", "position": "last"}),
    "video_url": "videoUri",
    "aspect_ratio": "ratio",
    "count": "outputCount",
    "voice": Into("voice", convert=_voice),
}
# What these models do not do without, where nothing is said ([O] runway.md, Required arguments).
_USUAL: Mapping[str, Mapping[str, Any]] = {
    "gen4.5": {"ratio": "1280:720", "duration": 5},
    "gen4_turbo": {"ratio": "1280:720"},
    "veo3.1": {"ratio": "1280:720"},
    "veo3.1_fast": {"ratio": "1280:720"},
    "gen4_image": {"ratio": "1920:1080"},
    "eleven_multilingual_v2": {"voice": _voice("Maya")},
    "eleven_v3": {"voice": _voice("Maya")},
    "eleven_v4": {"voice": _voice("Maya")},
}
# They have another name for the film that they are given ([O] runway.md, Required arguments).
_PROMPT_VIDEO = re.compile("klingO3|hailuo|seedance")


def _makes(kind: str, path: str, model: str, *required: str, seconds: float, **more: Any) -> Operation:
    """An operation with a model that does it."""
    rename = {**_WORDS, **more.pop("rename", {})}
    return Operation(
        kind, path, required, rename=rename, defaults={"model": model}, expected_seconds=seconds, **more
    )


class RunwayHook(MediaHook):
    """Runway's models, and those of others that it serves. A task's `media_task_id` is Runway's own id."""

    default_conn_name = "runway_default"
    conn_type = "runway"
    hook_name = "Runway"
    base_url = "https://api.dev.runwayml.com"
    headers: ClassVar[Mapping[str, str]] = {"X-Runway-Version": "2024-11-06"}
    console_url = "https://dev.runwayml.com/"
    id_form = "'<task id>'"
    # By the credits of a few words ([I] runway.md).
    cheapest = ("text_to_speech", {"text": "A grey pebble"})
    units = ("credits",)

    operations: ClassVar[Mapping[str, Operation]] = {
        "text_to_image": _makes("image", "/v1/text_to_image", "gen4_image", "prompt", seconds=20),
        "text_to_video": _makes("video", "/v1/text_to_video", "gen4.5", "prompt", seconds=60),
        "image_to_video": _makes("video", "/v1/image_to_video", "gen4_turbo", "image_url", seconds=45),
        "video_to_video": _makes("video", "/v1/video_to_video", "aleph2", "video_url", seconds=90),
        "upscale_video": _makes(
            "video", "/v1/video_upscale", "magnific_video_upscaler_creative", "video_url", seconds=60
        ),
        "character_performance": _makes(
            "video",
            "/v1/character_performance",
            "act_two",
            "reference_url",
            seconds=60,
            one_of=(("image_url", "video_url"),),
            rename={
                "image_url": "character.uri",
                "video_url": "character.uri",
                "reference_url": "reference.uri",
            },
            beside={"image_url": {"character.type": "image"}, "video_url": {"character.type": "video"}},
            fixed={"reference.type": "video"},
        ),
        "text_to_speech": _makes(
            "audio",
            "/v1/text_to_speech",
            "eleven_multilingual_v2",
            "text",
            seconds=10,
            rename={"text": "promptText"},
        ),
        "sound_effect": _makes("audio", "/v1/sound_effect", "eleven_text_to_sound_v2", "prompt", seconds=10),
    }
    look = Call("GET", "/v1/tasks/{id}")
    cancel = Call("DELETE", "/v1/tasks/{id}")
    balance = Balance((Call("GET", "/v1/organization"),), amount="creditBalance", unit="credits")
    document = Document(
        # THROTTLED is accepted, and waits for others of the account to end ([O] runway.md, Poll).
        outputs="output",
        any_text=True,
        progress="progress",
        failure_code="failureCode",
        failure="failure",
        cost="cost.credits",
        estimated="estimatedCost.credits",
        unit="credits",
        created_at="createdAt",
    )
    refusal = Refusals(
        # An error is a sentence; what an argument's is made of beside it is not written down ([I] runway.md).
        words="[error, issues]",
        sayings=(
            # The one 429 that is documented ends with the day; its words are [3] runwayml/sdk-python#23.
            Saying(re.compile(r"\bdaily\b", re.IGNORECASE), MediaFundsError, range(429, 430)),
            # A 400, by its words alone: [3] runwayml/sdk-node#28.
            Saying(re.compile(r"\bcredits\b", re.IGNORECASE), MediaFundsError, range(400, 401)),
            # SAFETY.* is charged and never repeated ([O] runway.md, Errors). INPUT_PREPROCESSING.SAFETY.* is
            # in many public captures ([3]); that a submission may be refused in such words is [I].
            Saying(re.compile(r"(?:^|\.)SAFETY\b|\bmoderation\b"), MediaModerationError, range(400, 401)),
        ),
    )

    def _body(self, name: str, operation: Operation, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """As of all, with what the model does not do without, and under its name for a film."""
        body = super()._body(name, operation, arguments)
        if name == "video_to_video" and _PROMPT_VIDEO.match(body["model"]) and "videoUri" in body:
            body["promptVideo"] = body.pop("videoUri")
        return {**_USUAL.get(body["model"], {}), **body}

    def _refused(self, reply: Reply, cls: type[MediaTaskError] | None) -> MediaTaskError:
        """As of all. There are no codes: the status is it."""
        error = super()._refused(reply, cls)
        error.code = str(reply.status)
        return error

    def _cancel_task(self, media_task_id: str) -> Conversation[MediaTask]:
        """Looks first: what has ended would be deleted, and what was stopped may be gone ([O] runway.md)."""
        task = yield from self._get_task(media_task_id)
        if task.status.is_terminal:
            return task
        try:
            return (yield from super()._cancel_task(media_task_id))
        except MediaNotFoundError:
            return self.media_task(media_task_id, TaskStatus.CANCELLED, "deleted", raw=task.raw)
