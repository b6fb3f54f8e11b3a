"""Film with Google's Veo, and let the film go on.

The Gemini API gives a film only to the key that made it: it is landed with that key, and named by its address
to be extended. With a connection to Vertex the first task is the same.

Connection: `google_media_default`. Files: `<MEDIA_OUTPUT>/google/`.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import dag

from airflow_media_tasks.operators import GenerateVideoOperator, MediaTaskOperator


# A retry costs nothing: it goes on with the task that the try before has submitted.
RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=10)}
OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")


# [START howto_google_media]
@dag(schedule=None, tags=["media"], default_args=RETRIES, doc_md=__doc__)
def example_google_media() -> None:
    film = GenerateVideoOperator(
        task_id="film",
        media_conn_id="google_media_default",
        prompt="A paper boat on a rainy street, close to the ground",
        duration=8,
        aspect_ratio="16:9",
        arguments={"negative_prompt": "people", "resolution": "720p"},
        save_to=f"{OUTPUT}/google/film.mp4",
    )
    MediaTaskOperator(
        task_id="longer",
        media_conn_id="google_media_default",
        operation="extend_video",
        arguments={"prompt": "It is carried over a drain and on", "video_url": film.output["url"]},
        save_to=f"{OUTPUT}/google/longer.mp4",
    )


# [END howto_google_media]


example_google_media()
