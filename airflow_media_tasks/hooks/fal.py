"""`FalHook`: any endpoint of fal, through its queue. Wire facts: providers/fal.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import (
    MediaFundsError,
    MediaModerationError,
)
from airflow_media_tasks.wire.conversations import Reply
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.wire.roads import Road, Step
from airflow_media_tasks.wire.tables import Call, Document, Listing, Refusals, Saying


def _makes(kind: str, model: str, *required: str, seconds: float, **places: str) -> Operation:
    """An operation with an endpoint that does it, and the words of that endpoint's input."""
    return Operation(
        kind, "/{model}", required, rename=places, defaults={"model": model}, expected_seconds=seconds
    )


class FalHook(MediaHook):
    """Any endpoint of fal: `run` with its own input, or an operation with a default endpoint.

    A task is read below the owner and the alias of its endpoint alone, so its `media_task_id` is
    `<owner>/<alias>/<request id>`.
    """

    default_conn_name = "fal_default"
    conn_type = "fal"
    hook_name = "fal"
    base_url = "https://queue.fal.run"
    other_urls: ClassVar[Mapping[str, str]] = {
        "platform": "https://api.fal.ai",
        "rest": "https://rest.fal.ai",
        "cdn": "https://v3.fal.media",
    }
    key_in = ("Authorization", "Key {key}")
    console_url = "https://fal.ai/dashboard/requests"
    id_groups = re.compile(r"(?:(?:workflows|comfy)/)?(?!\.+/)[\w.-]+/(?!\.+$)[\w.-]+", re.ASCII)
    id_form = "'<owner>/<alias>/<request id>', for example 'fal-ai/flux/...'"
    # The smallest of the models here; which costs least is not written down ([I] fal.md).
    cheapest = ("text_to_image", {"prompt": "A grey pebble"})

    operations: ClassVar[Mapping[str, Operation]] = {
        "run": Operation("", "/{model}", ("model",), expected_seconds=30),
        "text_to_image": _makes("image", "fal-ai/flux/schnell", "prompt", seconds=5, count="num_images"),
        "image_to_image": _makes(
            "image", "fal-ai/flux-pro/kontext", *("prompt", "image_url"), seconds=10, count="num_images"
        ),
        "text_to_video": _makes(
            "video", "fal-ai/bytedance/seedance/v1/lite/text-to-video", "prompt", seconds=60
        ),
        "image_to_video": _makes(
            "video",
            "fal-ai/bytedance/seedance/v1/lite/image-to-video",
            *("prompt", "image_url"),
            seconds=60,
        ),
        "text_to_music": _makes("audio", "fal-ai/stable-audio-25/text-to-audio", "prompt", seconds=30),
        "text_to_speech": _makes("audio", "fal-ai/minimax/speech-02-turbo", "text", seconds=10),
        "upscale_image": _makes("image", "fal-ai/esrgan", "image_url", seconds=10),
    }
    # An address, or a data URI, advised for some kB only; a file goes to the CDN in one piece up to 100 MB,
    # with a token that is asked for before ([O] fal.md, Own material).
    roads = (
        Road(Road.URL),
        Road(Road.INLINE, most=8_000),
        Road(
            Road.UPLOAD,
            most=100_000_000,
            steps=(
                Step(
                    "POST",
                    "/storage/auth/token",
                    host="rest",
                    params={"storage_type": "fal-cdn-v3"},
                    json={},
                    keep={"token": "token", "scheme": "token_type"},
                ),
                Step(
                    "POST",
                    "/files/upload",
                    host="cdn",
                    bytes_in="body",
                    headers={"Authorization": "{scheme} {token}", "X-Fal-File-Name": "{name}"},
                    keyed=False,
                    keep={"value": "access_url"},
                ),
            ),
        ),
    )
    submitted_id = "request_id"
    look = Call("GET", "/{group}/requests/{id}/status")
    # COMPLETED is no success: an error of the model or the queue may stand here, with any HTTP status. Any
    # other refusal, as without a key or in an outage, says nothing of the task ([O] fal.md).
    result = Call(
        "GET",
        "/{group}/requests/{id}",
        answers="detail[0].type || starts_with(error_type, 'runner_') || starts_with(error_type, 'client_')"
        " || ends_with(error_type, '_timeout')",
    )
    # One that has ended is refused, and is then looked at.
    cancel = Call("PUT", "/{group}/requests/{id}/cancel", answers="status")
    listing = Listing(
        Call(
            "GET",
            "/v1/models/requests/by-endpoint",
            params={
                "endpoint_id": "{model}",
                "start": "{since_iso}",
                "limit": "{limit}",
                "cursor": "{cursor}",
                "expand": "payloads",
            },
            host="platform",
        ),
        items="items",
        size=100,
        cursor="has_more && next_cursor || null",
        # By when they ended; whether one that runs is listed is not established ([O] fal.md, Recovery).
        by_time=False,
        shows_after=3600.0,
    )
    proof = Call(
        "GET",
        "/v1/models/requests/by-endpoint",
        params={"endpoint_id": "fal-ai/flux/dev", "limit": 1},
        host="platform",
    )
    document = Document(
        id="request_id",
        # The queue's own errors have a type, and no result to ask for; else of the platform's list.
        status="error_type && 'failed' || status"
        " || status_code && (status_code < `400` && 'completed' || 'failed')",
        outputs="result || json_output",
        failure_code="error_type",
        failure="error",
        created_at="sent_at",
        request="json_input",
    )
    refusal = Refusals(
        code="detail[0].type || error_type || error.type",
        words="detail || error.message || error",
        codes={"content_policy_violation": MediaModerationError},
        # [3] fal.md, Errors: three public captures; a locked user is out of money, not out of rights.
        sayings=(
            Saying(
                re.compile(r"locked|exhausted balance|top_up", re.IGNORECASE),
                MediaFundsError,
                range(403, 404),
            ),
        ),
    )

    def _group(self, name: str, operation: Operation, arguments: Mapping[str, Any], reply: Reply) -> str:  # noqa: ARG002  # its model tells
        return _app_of({**operation.defaults, **arguments}["model"])

    def _documents(self, reply: Reply, place: str) -> list[tuple[str, Mapping[str, Any]]]:
        """The list says of each request of which endpoint it is."""
        listed = super()._documents(reply, place)
        return [(f"{_app_of(document.get('endpoint_id'))}/{own_id}", document) for own_id, document in listed]


def _app_of(endpoint: Any) -> str:
    """What of an endpoint's id stands in the paths of its requests ([O] fal.md, fal-client 1.0.3)."""
    parts = str(endpoint).split("/")
    return "/".join(parts[: 3 if parts[0] in ("workflows", "comfy") else 2])
