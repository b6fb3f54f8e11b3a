"""Make many pictures in one Airflow task, within a budget; what one of them meets is its own affair.

One task, one trigger, one small manifest; what became of each picture is a line of a file. Run it again, and
only what failed is submitted.

Connection: `kling_default`, with `{"prices": {"*": {"amount": "1", "unit": "units"}}}` in its extra where
`MEDIA_MAX_COST` is set.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from airflow_media_tasks.operators import GenerateMediaBatchOperator


OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/media")
MAX_COST = os.environ.get("MEDIA_MAX_COST")  # in the unit of the connection's prices
# Between brackets is what the simulator reads: its moderation fails the last picture.
BIRDS = [
    "heron",
    "kingfisher",
    "wren",
    "tawny owl",
    "bird that no moderation lets pass [sim:fail=moderation]",
]


# [START howto_batch]
@dag(
    schedule=None,
    tags=["media"],
    doc_md=__doc__,
    default_args={"retries": 4, "retry_delay": timedelta(seconds=10)},
)
def example_batch() -> None:
    birds = GenerateMediaBatchOperator(
        task_id="birds",
        media_conn_id="kling_default",
        operation="text_to_image",
        arguments={"aspect_ratio": "1:1"},
        requests=[{"prompt": f"Watercolour of a {bird}"} for bird in BIRDS],
        concurrency=3,
        min_success=0.5,
        max_items=100,
        max_cost=MAX_COST,
        save_to=f"{OUTPUT}/",
    )

    @task
    def report(manifest: dict[str, Any]) -> str:
        """Say what came of it."""
        return f"{manifest['succeeded']} of {manifest['total']}, see {manifest['results']}"

    report(birds.output)  # type: ignore[arg-type]  # Airflow resolves it


# [END howto_batch]


example_batch()
