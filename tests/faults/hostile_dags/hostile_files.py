"""Two files that a library would take gigabytes for, and an honest one, landed one after the other."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_media_tasks.operators import DownloadMediaOperator


NAMES = ("tile.tiff", "film.mov", "good.png")

with DAG("hostile_files", schedule=None, default_args={"retries": 0, "queue": "hostile"}):
    before = None
    for name in NAMES:
        task = DownloadMediaOperator(
            task_id=name.partition(".")[0],
            media=f"{os.environ['HOSTILE_URL']}/{name}",
            destination=f"file://{os.environ['HOSTILE_FOLDER']}/landed/",
        )
        if before is not None:
            before >> task
        before = task
