"""Make a film on any server that speaks `/v1/videos`, and another one out of it.

The file is only given to who shows the key, so it is landed by the task that makes it.

Connection: `openai_media_default`, whose host is the server's address, with `/v1`. Files:
`<MEDIA_OUTPUT>/openai_media/`.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import Param, dag

from airflow_media_tasks.operators import GenerateVideoOperator, MediaTaskOperator


# A retry costs nothing: it goes on with the task that the try before has submitted.
RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=10)}
OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")


# [START howto_openai_media]
@dag(
    schedule=None,
    tags=["media"],
    default_args=RETRIES,
    doc_md=__doc__,
    params={
        "model": Param("wan-2.2", type="string", description="A model that the server has."),
        "prompt": Param("A fox of clay runs through high grass", type="string", minLength=1),
    },
)
def example_openai_media() -> None:
    film = GenerateVideoOperator(
        task_id="film",
        media_conn_id="openai_media_default",
        model="{{ params.model }}",
        prompt="{{ params.prompt }}",
        duration=4,
        resolution="1280x720",
        save_to=f"{OUTPUT}/openai_media/film.mp4",
    )
    MediaTaskOperator(
        task_id="remix",
        media_conn_id="openai_media_default",
        operation="remix_video",
        arguments={"video_id": film.output["video_id"], "prompt": "The same, at night"},
        save_to=f"{OUTPUT}/openai_media/remix.mp4",
    )


# [END howto_openai_media]


example_openai_media()
