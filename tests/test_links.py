from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from airflow.sdk.types import TaskInstanceKey

from airflow_media_tasks.gallery.plugin import MediaTasksPlugin
from airflow_media_tasks.links import PREFIX, MediaResultLink, ProviderConsoleLink
from airflow_media_tasks.operators import DownloadMediaOperator, MediaTaskOperator


KEY = TaskInstanceKey(dag_id="a b", task_id="group.video", run_id="manual__1+00:00", map_index=7)


@pytest.mark.parametrize(
    ("base", "start"),
    [
        ("", ""),
        ("http://airflow.example:8080", "http://airflow.example:8080"),
        ("https://example.com/airflow/", "https://example.com/airflow"),
    ],
)
def test_the_link_depends_on_the_key_alone(monkeypatch: pytest.MonkeyPatch, base: str, start: str) -> None:
    """Whatever phase or try a task is in, its link leads to its tab inside Airflow; names are escaped."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    operator: Any = None
    task = f"{start}/dags/a%20b/runs/manual__1%2B00%3A00/tasks/group.video"
    assert MediaResultLink().get_link(operator, ti_key=KEY) == f"{task}/mapped/7/plugin/media-task"
    unmapped = KEY._replace(map_index=-1)
    assert MediaResultLink().get_link(operator, ti_key=unmapped) == f"{task}/plugin/media-task"


def test_the_link_leads_to_a_tab_that_there_is() -> None:
    """Airflow calls the tab what the plugin calls it."""
    operator: Any = None
    route = MediaResultLink().get_link(operator, ti_key=KEY).rpartition("/")[2]
    (view,) = (one for one in MediaTasksPlugin.external_views if one["url_route"] == route)
    assert view["destination"] == "task_instance"


@pytest.mark.parametrize(
    ("conn_type", "starts"),
    [
        ("acedata", "https://platform.acedata.cloud/"),
        ("kling", "https://app.klingai.com/"),
        ("replicate", "https://replicate.com/"),
        ("fal", "https://fal.ai/"),
        ("runway", "https://dev.runwayml.com/"),
        ("luma", "https://lumalabs.ai/"),
        ("comfyui", ""),
        ("google_media", "https://console.cloud.google.com/"),
        ("openai_media", ""),
        ("vap", ""),
    ],
)
def test_the_console_is_that_of_the_connections_provider(
    connect: Callable[..., str], conn_type: str, starts: str
) -> None:
    """It opens where the provider shows the account; without such a page there is no button."""
    operator = MediaTaskOperator(task_id="t", operation="text_to_video", media_conn_id=connect(conn_type))
    link = ProviderConsoleLink().get_link(operator, ti_key=KEY)
    assert link.startswith(starts)
    assert bool(link) == bool(starts)


def test_no_console_without_a_connection() -> None:
    """A link never fails a task."""
    operator = MediaTaskOperator(task_id="t", operation="text_to_video", media_conn_id="no_such")
    assert ProviderConsoleLink().get_link(operator, ti_key=KEY) == ""


@pytest.mark.parametrize(
    ("base", "path"), [("http://airflow.example", ""), ("https://example.com/airflow/", "/airflow")]
)
def test_in_a_task_loop_the_link_leads_to_the_iteration(
    monkeypatch: pytest.MonkeyPatch, base: str, path: str
) -> None:
    """A worker hands over the task instance itself, which knows it from Airflow 3.4 on; a tab does not."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    operator: Any = None
    place = {**KEY._asdict(), "region_id": UUID(int=7), "region_index": 2}
    instance: Any = SimpleNamespace(**place, get_template_context=lambda: {"loop": object()})
    link = MediaResultLink().get_link(operator, ti_key=instance)
    query = "dag_id=a+b&run_id=manual__1%2B00%3A00&task_id=group.video&map_index=7"
    assert link == (
        f"{base.rstrip('/')}/plugin/media{path}{PREFIX}/item?{query}&region_id={UUID(int=7)}&region_index=2"
    )
    mapped: Any = SimpleNamespace(**place, get_template_context=dict)
    assert MediaResultLink().get_link(operator, ti_key=mapped) == (
        MediaResultLink().get_link(operator, ti_key=KEY)
    )


def test_a_download_has_the_link() -> None:
    """Its tab shows what it landed."""
    operator = DownloadMediaOperator(task_id="t", media="https://cdn.example/a.mp4", destination="s3://b/")
    assert [link.name for link in operator.operator_extra_links] == ["Media"]
