"""Make a picture and a film of it with any models that fal has.

An operation has an endpoint that makes it, which `model` replaces; `run` takes the id of any other, even one
that came out this morning, and gives it the arguments as they are. Both ids come from the run's params.

Connection: `fal_default`. Files: `<MEDIA_OUTPUT>/fal/picture.png` and `<MEDIA_OUTPUT>/fal/film.mp4`.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import Param, dag

from airflow_media_tasks.operators import GenerateImageOperator, MediaTaskOperator


# A retry costs nothing: it goes on with the task that the try before has submitted.
RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=10)}
OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")


# [START howto_fal]
@dag(
    schedule=None,
    tags=["media"],
    default_args=RETRIES,
    doc_md=__doc__,
    params={
        "prompt": Param("A lighthouse of paper in a storm of ink", type="string", minLength=1),
        "painter": Param("fal-ai/flux/dev", type="string", description="An endpoint that paints."),
        "animator": Param(
            "fal-ai/kling-video/v2.1/standard/image-to-video",
            type="string",
            description="An endpoint that animates a picture.",
        ),
    },
)
def example_fal() -> None:
    picture = GenerateImageOperator(
        task_id="picture",
        media_conn_id="fal_default",
        prompt="{{ params.prompt }}",
        model="{{ params.painter }}",
        arguments={"image_size": "landscape_16_9"},
        save_to=f"{OUTPUT}/fal/picture.png",
    )
    MediaTaskOperator(
        task_id="film",
        media_conn_id="fal_default",
        operation="run",
        arguments={
            "model": "{{ params.animator }}",
            "prompt": "The sea heaves, slow and heavy",
            "image_url": picture.output["url"],
        },
        save_to=f"{OUTPUT}/fal/film.mp4",
    )


# [END howto_fal]


example_fal()
