"""Run models on Replicate: one that is named, one by its operation, one with words of its own.

`run` takes any model and passes on what it asks for. The other operations have a default model, which the
connection's extra `models` can change. Replicate removes what was made after an hour, so each file is landed
by the task that makes it.

Connection: `replicate_default`. Files: `<MEDIA_OUTPUT>/replicate/`.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import dag

from airflow_media_tasks.operators import GenerateImageOperator, GenerateVideoOperator, MediaTaskOperator


# A retry costs nothing: it goes on with the task that the try before has submitted.
RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=10)}
OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")


# [START howto_replicate]
@dag(schedule=None, tags=["media"], default_args=RETRIES, doc_md=__doc__)
def example_replicate() -> None:
    picture = GenerateImageOperator(
        task_id="picture",
        media_conn_id="replicate_default",
        prompt="A lighthouse at dusk, oil on canvas",
        save_to=f"{OUTPUT}/replicate/picture.png",
    )
    GenerateVideoOperator(
        task_id="video",
        media_conn_id="replicate_default",
        operation="image_to_video",
        prompt="The light turns, waves break",
        image_url=picture.output["url"],
        save_to=f"{OUTPUT}/replicate/video.mp4",
    )
    MediaTaskOperator(
        task_id="other_model",
        media_conn_id="replicate_default",
        operation="run",
        arguments={
            "model": "minimax/hailuo-02",
            "prompt": "The light turns, waves break",
            "first_frame_image": picture.output["url"],
        },
        save_to=f"{OUTPUT}/replicate/other.mp4",
    )


# [END howto_replicate]


example_replicate()
