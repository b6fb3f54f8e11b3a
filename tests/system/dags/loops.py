"""What `test_loops` runs: a task loop (Airflow 3.4) of three videos."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import dag, task_group

from airflow_media_tasks.operators import GenerateVideoOperator


@dag(schedule=None, default_args={"retries": 1, "retry_delay": timedelta(seconds=1)})
def loops() -> None:
    @task_group
    def attempt() -> None:
        GenerateVideoOperator(
            task_id="video",
            media_conn_id="kling_default",
            operation="text_to_video",
            prompt="again",
            save_to=f"{os.environ['MEDIA_OUTPUT']}/loops/film.mp4",
            poll_interval=1,
        )

    if hasattr(attempt, "loop"):
        attempt.loop(max_iterations=3)
    else:
        attempt()


loops()
