"""What costs something in each way that there is: the provider says it, our table does, or it is paid."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_media_tasks.operators import (
    GenerateImageOperator,
    GenerateMediaBatchOperator,
    GenerateVideoOperator,
)
from airflow_media_tasks.sensors import MediaTaskSensor


OUTPUT = os.environ["MEDIA_OUTPUT"]
# Airflow itself uses tries up where a deferral is short (apache/airflow#71580).
QUICK = {"poll_interval": 1, "retries": 30, "retry_delay": timedelta(seconds=1)}

with DAG("mixed", default_args=QUICK):
    one = GenerateImageOperator(task_id="one", media_conn_id="vap_default", prompt="Mixed: one")
    GenerateVideoOperator(task_id="film", media_conn_id="kling_default", prompt="Mixed: a film")
    GenerateVideoOperator(
        task_id="priced",
        media_conn_id="acedata_default",
        operation="veo/text_to_video",
        prompt="Mixed: what our table prices",
    )
    GenerateImageOperator.partial(task_id="mapped", media_conn_id="vap_default").expand(
        prompt=["Mixed: a copy", "Mixed: another copy", "Mixed: a third copy"]
    )
    GenerateMediaBatchOperator(
        task_id="batch",
        media_conn_id="vap_default",
        operation="text_to_image",
        requests=[
            {"prompt": "Mixed: a request"},
            {"prompt": "Mixed: another request"},
            {"prompt": "Mixed: a request that fails [sim:fail=moderation]"},
        ],
        save_to=f"{OUTPUT}/mixed/",
    )
    GenerateMediaBatchOperator(
        task_id="guessed",
        media_conn_id="acedata_default",
        operation="veo/text_to_video",
        requests=[{"prompt": "Mixed: priced"}, {"prompt": "Mixed: priced, too"}],
        save_to=f"{OUTPUT}/mixed/",
    )
    MediaTaskSensor(task_id="waited", media_task_id=one.output["id"], media_conn_id="vap_default")
