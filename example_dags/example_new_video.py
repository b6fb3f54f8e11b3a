"""A video that lands starts another DAG, which reads where it is, what it cost and what was asked for.

The task that generates the video also lands it, with a JSON document of its provenance beside it. It
declares an asset, whose event carries the same document, and an alias, which makes an asset of each file
that has landed.

Connection: `kling_default`. Files: `<MEDIA_OUTPUT>/new/`.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetAlias, Param, dag, task

from airflow_media_tasks.operators import GenerateVideoOperator


OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")
RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=10)}


# [START howto_new_video]
NEW_VIDEO = Asset("new_video")


@dag(
    schedule=None,
    tags=["media"],
    default_args=RETRIES,
    doc_md=__doc__,
    params={"prompt": Param("A heron over a still lake, at dawn", type="string", minLength=1)},
)
def example_new_video() -> None:
    GenerateVideoOperator(
        task_id="video",
        media_conn_id="kling_default",
        prompt="{{ params.prompt }}",
        save_to=f"{OUTPUT}/new/",
        outlets=[NEW_VIDEO, AssetAlias("video_files")],
    )


@dag(schedule=NEW_VIDEO, tags=["media"], is_paused_upon_creation=False)
def example_new_video_report() -> None:
    @task
    def report(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Return what is new: where it is, its checksum, what it cost and what was asked for."""
        made = [event.extra for event in triggering_asset_events[NEW_VIDEO]]
        return [
            {
                "path": file["path"],
                "sha256": file["sha256"],
                "cost": video["cost"],
                "prompt": video["arguments"]["prompt"],
            }
            for video in made
            for file in video["files"]
        ]

    report()


# [END howto_new_video]


example_new_video()
example_new_video_report()
