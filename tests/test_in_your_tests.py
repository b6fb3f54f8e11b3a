"""The page's example of a test, as a user would write it, of the README's first DAG."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.configuration import conf
from airflow.dag_processing.dagbag import DagBag

import docs
from airflow_media_tasks.simulator import Simulator


@pytest.fixture(autouse=True)
def first_dag(metadata_database: None, tmp_path: Path) -> Iterator[None]:
    """The README's DAG in the folder of DAGs, with files on the disk, and in a hurry."""
    (text,) = re.findall(r"```python\n(.*?)```", Path(docs.ROOT, "README.md").read_text(), re.DOTALL)
    for before, after in {
        "s3://media": f"file://{tmp_path}",
        '"retries": 4': '"retries": 4, "poll_interval": 0.2',
    }.items():
        assert before in text
        text = text.replace(before, after)
    path = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"], "morning_video.py")
    path.write_text(text)
    yield
    path.unlink()


# [START howto_fixture]
pytest_plugins = ["airflow_media_tasks.simulator.pytest_plugin"]


def test_morning_video(media_simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triggered by hand, it makes one film and pays once, though the provider's answer is lost."""
    connection = {"conn_type": "kling", "host": f"{media_simulator.url}/kling", "password": "any key"}
    monkeypatch.setenv("AIRFLOW_CONN_KLING_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS", "127.0.0.1")
    media_simulator.fault("lose_reply", on="submit", count=1)

    dag = DagBag(conf.get("core", "dags_folder")).dags["morning_video"]
    run = dag.test(logical_date=None)

    assert str(run.state) == "success"
    (paid,) = media_simulator.ledger("kling")
    assert paid["operation"] == "text_to_video"
    assert paid["request"]["prompt"].startswith("Dawn over Lisbon, 20")


# [END howto_fixture]
