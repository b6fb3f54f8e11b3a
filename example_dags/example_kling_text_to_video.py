"""Make one video from a text with Kling.

The arguments that all providers share have names of their own; what only Kling knows (here its quality
`mode`) goes through `arguments`. Everything is a template: the prompt and the length come from the run's
params.

Connection: `kling_default`. File: `<MEDIA_OUTPUT>/kling/video.mp4`.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import Param, dag

from airflow_media_tasks.operators import DownloadMediaOperator, GenerateVideoOperator


# A retry costs nothing: it goes on with the task that the try before has submitted.
RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=10)}
OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")


# [START howto_kling_text_to_video]
@dag(
    schedule=None,
    tags=["media"],
    default_args=RETRIES,
    doc_md=__doc__,
    params={
        "prompt": Param("A paper boat crosses a puddle in the rain, macro shot", type="string", minLength=1),
        "duration": Param(5, type="integer", enum=[5, 10], description="Length of the video in seconds."),
    },
)
def example_kling_text_to_video() -> None:
    video = GenerateVideoOperator(
        task_id="video",
        media_conn_id="kling_default",
        operation="text_to_video",
        prompt="{{ params.prompt }}",
        duration="{{ params.duration }}",
        aspect_ratio="16:9",
        arguments={"mode": "std"},
    )
    DownloadMediaOperator(task_id="download", media=video.output, destination=f"{OUTPUT}/kling/video.mp4")


# [END howto_kling_text_to_video]


example_kling_text_to_video()
