"""Let the connection decide which provider makes the video.

Operation and arguments have the same names everywhere, and the connection's type names the provider: changing
one param moves this DAG from one provider to another. (An AceData account hosts several models; without a
prefix such as `luma/` the operation is that of the service its connection names, Veo by default.)

Connection: the one that the param names. File: `<MEDIA_OUTPUT>/any/<connection>.mp4`.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import Param, dag

from airflow_media_tasks.operators import DownloadMediaOperator, GenerateVideoOperator


# A retry costs nothing: it goes on with the task that the try before has submitted.
RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=10)}
OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")


# [START howto_any_provider]
@dag(
    schedule=None,
    tags=["media"],
    default_args=RETRIES,
    doc_md=__doc__,
    params={
        "media_conn_id": Param(
            "acedata_default",
            examples=[
                *("vap_default", "acedata_default", "kling_default", "fal_default", "runway_default"),
                "google_media_default",
            ],
        ),
        "prompt": Param("A fox looks up from the snow, cinematic", type="string", minLength=1),
    },
)
def example_same_dag_any_provider() -> None:
    video = GenerateVideoOperator(
        task_id="video",
        media_conn_id="{{ params.media_conn_id }}",
        operation="text_to_video",
        prompt="{{ params.prompt }}",
    )
    DownloadMediaOperator(
        task_id="download",
        media=video.output,
        destination=OUTPUT + "/any/{{ params.media_conn_id }}.mp4",
    )


# [END howto_any_provider]


example_same_dag_any_provider()
