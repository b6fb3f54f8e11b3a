from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.types import TaskInstanceKey

from airflow_media_tasks.links import PREFIX, MediaResultLink


@pytest.mark.parametrize(
    ("base", "start"),
    [
        ("", ""),
        ("http://airflow.example:8080", "http://airflow.example:8080"),
        ("https://example.com/airflow/", "https://example.com/airflow"),
    ],
)
def test_the_link_depends_on_the_key_alone(monkeypatch: pytest.MonkeyPatch, base: str, start: str) -> None:
    """Whatever phase or try a task is in, its link leads to its page; names are escaped."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    key = TaskInstanceKey(dag_id="a b", task_id="group.video", run_id="manual__1+00:00", map_index=7)
    operator: Any = None
    link = MediaResultLink().get_link(operator, ti_key=key)
    query = "dag_id=a+b&run_id=manual__1%2B00%3A00&task_id=group.video&map_index=7"
    assert link == f"{start}{PREFIX}/item?{query}"
