"""Keep a whole account within the number of tasks that its provider takes at a time.

Kling counts what is under way: a video is one slot, an image task as many as it has pictures; what exceeds
the account's slots is refused. An Airflow pool counts the same, if it counts deferred tasks, too:

    airflow pools set kling 5 "Kling's slots" --include-deferred

Every task of every DAG that uses the account names the pool, with as many `pool_slots` as it takes there.
Here forty tasks share the pool in `KLING_POOL`.

Connection: `kling_default`.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import dag

from airflow_media_tasks.operators import GenerateImageOperator, GenerateVideoOperator


POOL = os.environ.get("KLING_POOL", "default_pool")
# Between brackets is what the simulator reads: so many seconds until it is done.
SCENES = [f"Window {number} of an advent calendar opens [sim:seconds=5]" for number in range(1, 31)]
STICKERS = [f"Sticker {number}: a star with a face [sim:seconds=5]" for number in range(1, 11)]


# [START howto_account_slots]
@dag(
    schedule=None,
    tags=["media"],
    doc_md=__doc__,
    default_args={
        "retries": 4,
        "retry_delay": timedelta(seconds=10),
        "media_conn_id": "kling_default",
        "poll_interval": 4,
        "pool": POOL,
    },
)
def example_account_slots() -> None:
    GenerateVideoOperator.partial(task_id="video", pool_slots=1).expand(prompt=SCENES)
    GenerateImageOperator.partial(task_id="stickers", count=2, pool_slots=2).expand(prompt=STICKERS)


# [END howto_account_slots]


example_account_slots()
