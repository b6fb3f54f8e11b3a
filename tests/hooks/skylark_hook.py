"""`SkylarkHook`: the made-up provider of docs/providers.md, which quotes this."""

# [START howto_skylark_hook]
from __future__ import annotations

from typing import ClassVar

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import MediaFundsError, MediaModerationError, MediaRateLimitError
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.wire.tables import Balance, Call, Document, Listing, Refusals


class SkylarkHook(MediaHook):
    """Pictures by Skylark. A task's `media_task_id` is the job's number."""

    conn_type, hook_name, default_conn_name = "skylark", "Skylark", "skylark_default"
    base_url = "https://api.skylark.example"
    id_form = "'<job id>'"
    cheapest = ("text_to_image", {"prompt": "A grey pebble"})
    operations: ClassVar = {
        "text_to_image": Operation(
            "image",
            "/jobs",
            ("prompt",),
            rename={"prompt": "wish", "count": "copies"},
            fixed={"work": "draw"},
            expected_seconds=5,
        ),
        "upscale_image": Operation("image", "/jobs", ("image_url",), fixed={"work": "upscale"}),
    }
    submitted_id = "job"
    look = Call("GET", "/jobs/{id}")
    listing = Listing(Call("GET", "/jobs", params={"page": "{number}"}), items="jobs", size=20)
    balance = Balance((Call("GET", "/purse"),), amount="left", unit="USD")
    document = Document(
        id="job",
        status="phase",
        outputs="pictures",
        failure_code="error.code",
        failure="error.text",
        cost="price",
        unit="USD",
        created_at="made_at",
        request="asked",
    )
    refusal = Refusals(
        code="error.code",
        words="error.text",
        codes={"empty": MediaFundsError, "busy": MediaRateLimitError, "indecent": MediaModerationError},
    )


# [END howto_skylark_hook]
