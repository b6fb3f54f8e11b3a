"""The same films as one batch and as mapped tasks; how many, and what they meet, is in the environment."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import dag, task

from airflow_media_tasks.batch.operator import GenerateMediaBatchOperator
from airflow_media_tasks.operators import GenerateVideoOperator


FOLDER = os.environ["FILMS_FOLDER"]
REQUESTS = [json.loads(line) for line in Path(FOLDER, "requests.jsonl").read_text().splitlines()]
RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=2), "media_conn_id": "kling_default"}


@dag(schedule=None, default_args=RETRIES)
def films_batch() -> None:
    """One task for all."""
    GenerateMediaBatchOperator(
        task_id="films",
        operation="text_to_video",
        requests=f"file://{FOLDER}/requests.jsonl",
        save_to=f"file://{FOLDER}/batch/",
        poll_interval=5,
        retry_moderated=Path(FOLDER, "retry-moderated").exists(),
    )


@dag(schedule=None, default_args=RETRIES, max_active_tasks=1000)
def films_mapped() -> None:
    """One task for each."""

    @task
    def requests() -> list[dict[str, Any]]:
        """All of them."""
        return REQUESTS

    GenerateVideoOperator.partial(
        task_id="films", save_to=f"file://{FOLDER}/mapped/", poll_interval=5
    ).expand(arguments=requests())


films_batch()
films_mapped()
