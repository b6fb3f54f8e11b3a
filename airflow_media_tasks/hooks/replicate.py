"""`ReplicateHook`: predictions of any model on Replicate. Wire facts: providers/replicate.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import (
    MediaExpiredError,
    MediaModerationError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
)
from airflow_media_tasks.wire.conversations import Reply
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.wire.places import Into
from airflow_media_tasks.wire.roads import Road, Step
from airflow_media_tasks.wire.tables import Call, Document, Listing, Refusals, Saying


_INPUT: dict[str, Any] = {
    "path": "/v1/predictions",
    "rest": "input",
    "top": ("webhook", "webhook_events_filter"),
}
# An id of 64 digits, owner/name:id, or owner/name where Replicate keeps the model ([O] replicate.md).
_MODEL = {"model": "version"}
_RESETS = re.compile(r"resets in ~?(\d{1,9})\s*s")


def _makes(kind: str, model: str, *required: str, seconds: float, **places: str | Into) -> Operation:
    """An operation with a model that does it, and the words of that model's input."""
    named = {word: f"input.{place}" if isinstance(place, str) else place for word, place in places.items()}
    return Operation(
        kind,
        required=required,
        rename={**_MODEL, **named},
        defaults={"version": model},
        expected_seconds=seconds,
        **_INPUT,
    )


class ReplicateHook(MediaHook):
    """Any model on Replicate: `run` with its own input, or an operation with a default model.

    A task's `media_task_id` is the prediction's id.
    """

    default_conn_name = "replicate_default"
    conn_type = "replicate"
    hook_name = "Replicate"
    base_url = "https://api.replicate.com"
    console_url = "https://replicate.com/predictions"
    id_form = "'<prediction id>'"
    # The smallest of the models here; which costs least is not written down ([I] replicate.md).
    cheapest = ("text_to_image", {"prompt": "A grey pebble"})

    # An address; a data URI, advised up to 256 kB; else a file, whose `urls.get` goes into the input ([O]
    # replicate.md). A list shows a hundred inputs at once, and more than 8 MiB of it are not read here. The
    # most that a file may have is not written down ([I]).
    roads = (
        Road(Road.URL),
        Road(Road.INLINE, most=50_000),
        Road(
            Road.UPLOAD,
            most=100_000_000,
            steps=(Step("POST", "/v1/files", bytes_in="content", keep={"value": "urls.get"}),),
        ),
    )

    # The models' words for their input are those that public clients use ([3]).
    operations: ClassVar[Mapping[str, Operation]] = {
        "run": Operation("", required=("model",), rename=_MODEL, expected_seconds=30, **_INPUT),
        "text_to_image": _makes(
            "image", "black-forest-labs/flux-schnell", "prompt", seconds=5, count="num_outputs"
        ),
        "image_to_image": _makes(
            "image",
            "black-forest-labs/flux-kontext-pro",
            *("prompt", "image_url"),
            seconds=10,
            image_url="input_image",
        ),
        "text_to_video": _makes("video", "bytedance/seedance-1-lite", "prompt", seconds=60),
        "image_to_video": _makes(
            "video",
            "bytedance/seedance-1-lite",
            *("prompt", "image_url"),
            seconds=60,
            image_url="image",
            end_image_url="last_frame_image",
        ),
        "text_to_music": _makes("audio", "stability-ai/stable-audio-2.5", "prompt", seconds=30),
        "text_to_speech": _makes("audio", "minimax/speech-02-turbo", "text", seconds=10, voice="voice_id"),
        "upscale_image": _makes(
            "image", "nightmareai/real-esrgan", "image_url", seconds=10, image_url="image"
        ),
    }
    look = Call("GET", "/v1/predictions/{id}")
    cancel = Call("POST", "/v1/predictions/{id}/cancel")
    listing = Listing(
        Call("GET", "/v1/predictions", params={"created_after": "{since_iso}", "cursor": "{cursor}"}),
        items="results",
        size=100,
        cursor="next",
    )
    proof = Call("GET", "/v1/account")
    document = Document(
        # Outputs of API predictions are removed after an hour; the word stays ([O] replicate.md).
        status="status == 'succeeded' && data_removed && 'expired' || status",
        outputs="output",
        any_text=True,
        failure_code="status == 'succeeded' && data_removed && 'expired'",
        failure="error || data_removed && 'expired: its output is removed an hour after its end'",
        created_at="created_at",
        ended_at="completed_at",
        kept=timedelta(hours=1),
        request="!data_removed && input",
        echoed="input",
    )
    refusal = Refusals(
        # There are no codes; what names fields is about them, though one be called safety_tolerance.
        code="invalid_fields && 'invalid_fields'",
        words="detail || title",
        codes={"expired": MediaExpiredError, "invalid_fields": MediaRequestError},
        # Free text; moderation has no code ([I] replicate.md).
        sayings=(
            Saying(
                re.compile(r"\bnsfw\b|moderat|\bsafety\b|sensitive|content polic", re.IGNORECASE),
                MediaModerationError,
            ),
        ),
    )

    def _comes_from(
        self,
        task: MediaTask,
        name: str,
        arguments: Mapping[str, Any] | None,
        client_ref: str | None,
        traces: Mapping[str, str],
    ) -> bool | None:
        """As of all, and by the same model: two models may be asked for the same."""
        model, version = task.raw.get("model"), task.raw.get("version")
        if arguments is not None and isinstance(model, str):
            asked = self._body(name, self.operations[name], arguments)["version"]
            if asked not in (model, version, f"{model}:{version}"):
                return False
        return super()._comes_from(task, name, arguments, client_ref, traces)

    def _refused(self, reply: Reply, cls: type[MediaTaskError] | None) -> MediaTaskError:
        """As of all. Else the status is the code; how long to wait is in a sentence ([O] replicate.md)."""
        code, words = self._said(reply.document)
        resets = _RESETS.search(words or "")
        error = self.error(cls, reply, code, words, retry_after=float(resets[1]) if resets else None)
        error.code = code or str(reply.status)
        return error
