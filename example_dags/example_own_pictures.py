"""Turn the pictures of a bucket into films: each product's own photograph, set in motion.

The pictures stay where they are. A provider gets an address of each that the bucket signs, for the time that
the film may take, or the bytes where it takes those; logs, XCom and the document beside each film name the
path and the hash of what is there.

Connection: `kling_default`. Pictures: `<MEDIA_INPUT>/*.png`, by default in a bucket that the worker's own
credentials may read. Files: `<MEDIA_OUTPUT>/own/<name>.mp4`. `scripts/demo --dag example_own_pictures` runs
it on a made-up bucket and simulated providers.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import ObjectStoragePath, dag, task

from airflow_media_tasks.operators import GenerateVideoOperator


RETRIES = {"retries": 4, "retry_delay": timedelta(seconds=10)}
INPUT = os.environ.get("MEDIA_INPUT", "s3://products/pictures")
OUTPUT = os.environ.get("MEDIA_OUTPUT", "file:///tmp/airflow-media-tasks")
NAME = "{{ ti.xcom_pull(task_ids='pictures')[ti.map_index]['image_url'].rpartition('/')[2] }}"


# [START howto_own_pictures]
@dag(schedule=None, tags=["media"], default_args=RETRIES, doc_md=__doc__)
def example_own_pictures() -> None:
    @task
    def pictures() -> list[dict[str, str]]:
        """What there is in the bucket, and what becomes of it."""
        found = sorted(path for path in ObjectStoragePath(INPUT).iterdir() if path.suffix == ".png")
        return [{"image_url": str(path), "save_to": f"{OUTPUT}/own/{path.stem}.mp4"} for path in found]

    GenerateVideoOperator.partial(
        task_id="film",
        media_conn_id="kling_default",
        prompt="The camera circles it slowly, in soft light",
        map_index_template=NAME,
    ).expand_kwargs(pictures())


# [END howto_own_pictures]


example_own_pictures()
