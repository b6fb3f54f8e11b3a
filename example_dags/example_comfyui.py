"""Make pictures on your own ComfyUI: by the small workflow of this package, and by one of yours.

The workflow beside this file, in the format that ComfyUI exports for its API, sketches a picture and paints
it once more at twice the size. What each run changes in it are values of its nodes.

Connection: `comfyui_default`. Files: `<MEDIA_OUTPUT>/comfyui/`. They come from your own server: put its
address into `[media_tasks] allowed_hosts`.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import Param, dag

from airflow_media_tasks.operators import GenerateImageOperator, MediaTaskOperator


# A retry makes nothing anew: it goes on with the task that the try before has submitted.
RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=10)}
OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")
WORKFLOW = Path(__file__).with_name("comfyui_two_passes.json")


# [START howto_comfyui]
@dag(
    schedule=None,
    tags=["media"],
    default_args=RETRIES,
    doc_md=__doc__,
    params={
        "prompt": Param("A lighthouse of folded paper", type="string", minLength=1),
        "seed": Param(7, type="integer", minimum=0, description="Another one makes another picture."),
    },
)
def example_comfyui() -> None:
    GenerateImageOperator(
        task_id="small",
        media_conn_id="comfyui_default",
        prompt="{{ params.prompt }}",
        arguments={"width": 768, "height": 432},
        save_to=f"{OUTPUT}/comfyui/small.png",
    )
    MediaTaskOperator(
        task_id="large",
        media_conn_id="comfyui_default",
        operation="run",
        arguments={
            "workflow": str(WORKFLOW),
            "values": {
                "show.text": "{{ params.prompt }}",
                "sketch.seed": "{{ params.seed }}",
                "painting.seed": "{{ params.seed }}",
            },
        },
        save_to=f"{OUTPUT}/comfyui/large.png",
    )


# [END howto_comfyui]


example_comfyui()
