"""Wait for a task that something else has submitted: a web application, a colleague's script, another DAG.

A `media_task_id` says everything that is needed to ask for the task again, so one string is all that has to
be handed over. Trigger the DAG with one of yours; without one, its first task plays the part of the other
program.

Connection: `acedata_default`. File: `<MEDIA_OUTPUT>/waited/video.mp4`.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import BaseHook, Param, dag, task

from airflow_media_tasks.operators import DownloadMediaOperator
from airflow_media_tasks.sensors import MediaTaskSensor


# A retry costs nothing: it goes on with the task that the try before has submitted.
RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=10)}
OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")


# [START howto_wait_for_task]
@dag(
    schedule=None,
    tags=["media"],
    default_args=RETRIES,
    doc_md=__doc__,
    params={"media_task_id": Param(None, type=["null", "string"], description="For example luma/0f3c...")},
)
def example_wait_for_task() -> None:
    # Not retried: a submission by hand, unlike that of an operator, would be paid for again.
    @task(retries=0)
    def submitted_elsewhere(given: str) -> str:
        """Return the given id, or submit a task with the hook alone and return its id."""
        if given:
            return given
        hook = BaseHook.get_hook("acedata_default")
        return str(hook.submit("luma/text_to_video", {"prompt": "A kite above a windy beach"}).id)

    wait = MediaTaskSensor(
        task_id="wait",
        media_task_id=submitted_elsewhere("{{ params.media_task_id or '' }}"),
        media_conn_id="acedata_default",
    )
    DownloadMediaOperator(task_id="download", media=wait.output, destination=f"{OUTPUT}/waited/video.mp4")


# [END howto_wait_for_task]


example_wait_for_task()
