"""Generate a picture, judge it, and again until it is good or three were made. Needs Airflow 3.4 or newer.

Each iteration of a task loop pays for a picture of its own, and only once, whatever is killed meanwhile. All
of them are kept and shown. What makes a picture good is yours to say: put your own measure into `judge`.

Connection: `kling_default`. Files: `<MEDIA_OUTPUT>/loop/`. Airflow 3.3 has no task loops: there, this file
has no DAG.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow import sdk
from airflow.sdk import Param, dag, task, task_group

from airflow_media_tasks.operators import GenerateImageOperator


# A retry costs nothing: it goes on with the picture that the try before has submitted.
RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=10)}
OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")


# [START howto_loop]
MOST = 3


@dag(
    schedule=None,
    tags=["media"],
    default_args=RETRIES,
    doc_md=__doc__,
    params={
        "prompt": Param("A lighthouse made of folded paper", type="string", minLength=1),
        "least_size": Param(1_500_000, type="integer", minimum=0, description="Of a good picture, in bytes."),
    },
)
def example_loop() -> None:
    @task_group
    def attempt() -> None:
        image = GenerateImageOperator(
            task_id="image",
            media_conn_id="kling_default",
            # The same text in each try of an iteration, so that a retry pays for nothing.
            prompt="{{ params.prompt }}{% if loop.index %}, with more fine detail{% endif %}",
            save_to=f"{OUTPUT}/loop/",
        )

        @task
        def judge(picture: dict[str, Any], **context: Any) -> dict[str, Any]:
            """Return what there is to say of a picture: here, that fine detail makes a large file."""
            size = sum(file["size"] for file in picture["files"] if "path" in file)
            return {
                "path": picture["path"],
                "size": size,
                "is_good": size >= context["params"]["least_size"],
            }

        judge(image.output)  # type: ignore[arg-type]  # Airflow resolves it

    def is_good(loop: Any) -> bool:
        """Go on until a picture is good. A loop that says no after its last iteration has failed."""
        return bool(loop.result["is_good"]) or loop.index + 1 == MOST

    @task
    def best(**context: Any) -> dict[str, Any]:
        """Return the best: outside the loop, a task in it has one result for each iteration."""
        judged = context["ti"].xcom_pull(task_ids="attempt.judge")
        return max(judged, key=lambda one: one["size"])

    attempt.loop(max_iterations=MOST, until=is_good) >> best()


# [END howto_loop]


if hasattr(sdk, "LoopDecision"):
    example_loop()
