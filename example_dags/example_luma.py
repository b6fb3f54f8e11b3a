"""Make a film with Luma, go on with it, and make it larger, by the id that Luma gives each.

Connection: `luma_default`. Files: `<MEDIA_OUTPUT>/luma/`.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import dag

from airflow_media_tasks.operators import GenerateImageOperator, GenerateVideoOperator, MediaTaskOperator


# A retry costs nothing: it goes on with the task that the try before has submitted.
RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=10)}
OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")


# [START howto_luma]
@dag(schedule=None, tags=["media"], default_args=RETRIES, doc_md=__doc__)
def example_luma() -> None:
    picture = GenerateImageOperator(
        task_id="picture",
        media_conn_id="luma_default",
        prompt="A lighthouse of salt on a red shore",
        aspect_ratio="16:9",
        save_to=f"{OUTPUT}/luma/picture.png",
    )
    film = GenerateVideoOperator(
        task_id="film",
        media_conn_id="luma_default",
        prompt="The tide comes in, slow and bright",
        image_url=picture.output["url"],
        duration=5,
        resolution="540p",
    )
    longer = MediaTaskOperator(
        task_id="longer",
        media_conn_id="luma_default",
        operation="extend_video",
        arguments={"prompt": "The salt begins to glow", "video_id": film.output["video_id"]},
    )
    MediaTaskOperator(
        task_id="large",
        media_conn_id="luma_default",
        operation="upscale_video",
        arguments={"video_id": longer.output["video_id"], "resolution": "4k"},
        save_to=f"{OUTPUT}/luma/film.mp4",
    )


# [END howto_luma]


example_luma()
