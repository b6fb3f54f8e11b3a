"""What one of the users may not see."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.sdk import DAG

from airflow_media_tasks.operators import GenerateImageOperator


with DAG("hidden", default_args={"poll_interval": 1, "retries": 30, "retry_delay": timedelta(seconds=1)}):
    GenerateImageOperator(
        task_id="secret",
        media_conn_id="vap_default",
        prompt="The unannounced product",
        save_to=f"{os.environ['MEDIA_OUTPUT']}/secret/",
    )
