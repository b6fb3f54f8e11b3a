"""Make a still with Runway, let it move, and give it a sound: one model of each kind.

A model of one's own choice is an argument. What is not told, such as the ratio that a model does not do
without, has a usual value.

Connection: `runway_default`. Files: `<MEDIA_OUTPUT>/runway/`.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import dag

from airflow_media_tasks.operators import GenerateImageOperator, GenerateVideoOperator, MediaTaskOperator


# A retry costs nothing: it goes on with the task that the try before has submitted.
RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=10)}
OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")


# [START howto_runway]
@dag(schedule=None, tags=["media"], default_args=RETRIES, doc_md=__doc__)
def example_runway() -> None:
    still = GenerateImageOperator(
        task_id="still",
        media_conn_id="runway_default",
        prompt="A lighthouse at dusk, 35 mm, grain",
        aspect_ratio="1280:720",
        save_to=f"{OUTPUT}/runway/still.png",
    )
    GenerateVideoOperator(
        task_id="film",
        media_conn_id="runway_default",
        prompt="The light turns, waves break",
        image_url=still.output["url"],
        model="gen4.5",
        duration=8,
        save_to=f"{OUTPUT}/runway/film.mp4",
    )
    MediaTaskOperator(
        task_id="sound",
        media_conn_id="runway_default",
        operation="sound_effect",
        arguments={"prompt": "Surf on rocks, a gull far away", "duration": 8},
        save_to=f"{OUTPUT}/runway/sound.mp3",
    )


# [END howto_runway]


example_runway()
