"""Make videos that are paid for once, whatever dies in between: all the settings that matter, in one place.

A retry adopts the video that the try before has submitted. The pool limits how many of them are under way
at the provider, if it counts deferred tasks: `airflow pools set kling 5 "Kling's slots" --include-deferred`,
and `MEDIA_POOL=kling` in the environment.

Connection: `kling_default`. Files: `<MEDIA_OUTPUT>/paid-once/`.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import dag

from airflow_media_tasks.operators import DownloadMediaOperator, GenerateVideoOperator


OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")
POOL = os.environ.get("MEDIA_POOL", "default_pool")
PROMPTS = ["A lantern sways on a boat at night", "A lantern sways in a snowstorm", "A lantern in the fog"]


# [START howto_paid_once]
@dag(
    schedule=None,
    tags=["media"],
    doc_md=__doc__,
    # Without a retry, what was paid waits for a person; with one, it is adopted.
    default_args={"retries": 4, "retry_delay": timedelta(minutes=1)},
)
def example_paid_once() -> None:
    videos = GenerateVideoOperator.partial(
        task_id="video",
        media_conn_id="kling_default",
        operation="text_to_video",
        duration=5,
        # How long one try waits for the video, and how long for room at the provider; neither cancels it.
        timeout=timedelta(hours=1),
        queue_timeout=timedelta(minutes=30),
        # Where nobody can know whether it was accepted: ask a person (the default) rather than pay twice.
        on_unknown_submission="stop",
        pool=POOL,
        pool_slots=1,
    ).expand(prompt=PROMPTS)

    DownloadMediaOperator.partial(task_id="download", destination=f"{OUTPUT}/paid-once/").expand(
        media=videos.output
    )


# [END howto_paid_once]


example_paid_once()
