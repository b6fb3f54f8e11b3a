from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import docs


GOOD = """
from datetime import timedelta
from airflow.sdk import task
from airflow_media_tasks.batch.operator import GenerateMediaBatchOperator
from airflow_media_tasks.operators import DownloadMediaOperator, GenerateImageOperator, GenerateVideoOperator
from airflow_media_tasks.sensors import MediaTaskSensor

@task
def text() -> str:
    return "1"

image = GenerateImageOperator(
    task_id="a", media_conn_id="c", prompt=text(), max_cost="{{ params.x }}", timeout=timedelta(1)
)
video = GenerateVideoOperator(
    task_id="b", media_conn_id="c", image_url=image.output["url"], duration="{{ 5 }}", queue_timeout=text()
)
DownloadMediaOperator(task_id="c", media=video.output, destination="file:///tmp/{{ ds }}/")
MediaTaskSensor(task_id="d", media_conn_id="c", media_task_id=video.output["id"], timeout="{{ params.t }}")
GenerateMediaBatchOperator(task_id="e", media_conn_id="c", requests=text(), retries=2, max_items=text())
"""
WRONG = """
from airflow_media_tasks.batch.operator import GenerateMediaBatchOperator
from airflow_media_tasks.operators import DownloadMediaOperator, GenerateVideoOperator, MediaTaskOperator
from airflow_media_tasks.sensors import MediaTaskSensor

GenerateVideoOperator(task_id="a", media_conn_id="c", save_too="file:///tmp/")
GenerateVideoOperator(task_id="a", media_conn_id="c", timeout=[5])
MediaTaskOperator(task_id="a", media_conn_id="c", operation="o", max_coast="1")
MediaTaskSensor(task_id="a", media_conn_id="c", media_task_id="i", poll_intervall=5)
GenerateMediaBatchOperator(task_id="a", media_conn_id="c", requests=[], min_succes=1)
DownloadMediaOperator(task_id="a", media=[], destination="file:///tmp/", retrys=1)
"""


def test_dags_are_checked_by_their_types(tmp_path: Path) -> None:
    """`mypy --strict` takes the example DAGs, templates and outputs, and finds each misspelt parameter."""
    for name, text in (("good", GOOD), ("wrong", WRONG)):
        (tmp_path / f"{name}.py").write_text(text.lstrip())
    found = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary"),
            *("example_dags", str(tmp_path / "good.py"), str(tmp_path / "wrong.py")),
        ],
        cwd=docs.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in found.stdout.splitlines() if ": error: " in line]
    assert [int(line.split("wrong.py:")[1].split(":")[0]) for line in errors] == list(range(5, 11)), (
        found.stdout
    )
    assert 'Unexpected keyword argument "save_too"' in errors[0]
