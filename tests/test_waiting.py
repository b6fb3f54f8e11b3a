"""What the operators and the sensor share: seconds, and the one way in which a wait ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import structlog

from airflow_media_tasks.batch.operator import GenerateMediaBatchOperator
from airflow_media_tasks.deferring import WaitsForMediaTask
from airflow_media_tasks.operators import MediaTaskOperator
from airflow_media_tasks.parameters import seconds
from airflow_media_tasks.sensors import MediaTaskSensor
from airflow_media_tasks.task import (
    MediaCost,
    MediaFile,
    MediaModerationError,
    MediaProviderError,
    MediaRequestError,
    MediaTask,
    TaskStatus,
)
from airflow_media_tasks.waiting import poller


FILE = MediaFile("video", "https://cdn.example/a.mp4", width=640)
DONE = MediaTask("luma/a", TaskStatus.SUCCEEDED, "luma/text_to_video", "completed", (FILE,))


def both() -> list[WaitsForMediaTask]:
    """One of each kind that waits."""
    return [
        MediaTaskOperator(task_id="o", operation="text_to_video", media_conn_id="c"),
        MediaTaskSensor(task_id="s", media_task_id="luma/a", media_conn_id="c"),
    ]


@pytest.mark.parametrize(
    ("value", "expected"), [(5, 5.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (1e9, 1e9)]
)
def test_seconds_takes_numbers_and_timedeltas(value: Any, expected: float) -> None:
    """Both are what Airflow users write."""
    assert seconds("timeout", value) == expected


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "5", None, [5], timedelta(seconds=-1)])
def test_seconds_refuses_all_else(value: Any) -> None:
    """With the name, the value and what is allowed, in one line of bounded length."""
    with pytest.raises(
        MediaRequestError, match="timeout must be a number of seconds above 0 or a timedelta"
    ) as refused:
        seconds("timeout", value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("value", [1e9 + 1, 1e300, timedelta.max])
def test_seconds_ends_before_the_calendar_does(value: Any) -> None:
    """What no computer can add to the time of day is refused before anything is paid."""
    with pytest.raises(MediaRequestError, match="timeout must be at most 1000000000 s, got "):
        seconds("timeout", value)


@pytest.mark.parametrize("value", [0.999, 0.05, timedelta(milliseconds=500)])
@pytest.mark.parametrize(
    "waiter",
    [
        lambda **given: MediaTaskOperator(task_id="o", operation="x", media_conn_id="c", **given),
        lambda **given: MediaTaskSensor(task_id="s", media_task_id="luma/a", media_conn_id="c", **given),
        lambda **given: GenerateMediaBatchOperator(
            task_id="b", requests=[], save_to="x", media_conn_id="c", **given
        ),
    ],
    ids=["operator", "sensor", "batch"],
)
def test_nobody_looks_more_often_than_once_a_second(
    waiter: Callable[..., Any], value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds nothing sooner, and its requests are refused; said where the DAG is written."""
    monkeypatch.setattr(poller, "SHORTEST_INTERVAL", 1.0)
    with pytest.raises(MediaRequestError, match="poll_interval must be at least 1 s, got ") as refused:
        waiter(poll_interval=value)
    assert repr(value) in str(refused.value)
    assert waiter(poll_interval=timedelta(seconds=1)).poll_interval == 1.0


def test_a_good_event_becomes_the_result(context: Any) -> None:
    """The operator and the sensor return the same dict for the same event."""
    for waiter in both():
        assert waiter.execute_complete(context, DONE.to_dict()) == {
            **DONE.to_dict(),
            "file_ids": [],
            "video_id": None,
            "media_conn_id": "c",
            "made_by": {
                "dag_id": "dag",
                "run_id": "run",
                "task_id": "task",
                "map_index": -1,
                "try_number": 1,
            },
        }
        assert context["pushed"] == {"id": DONE.id, "url": DONE.url, "urls": DONE.urls, "file_ids": []}


def test_a_failed_event_raises_the_error_that_it_carries(context: Any) -> None:
    """Its class, code and task survive the way through the metadata database."""
    error = MediaModerationError("no foxes", provider="kling", code="1301", media_task_id="luma/a")
    failed = MediaTask("luma/a", TaskStatus.FAILED, error=error)
    for waiter in both():
        with pytest.raises(MediaModerationError, match="no foxes") as raised:
            waiter.execute_complete(context, failed.to_dict())
        assert raised.value.to_dict() == error.to_dict()


@pytest.mark.parametrize(
    "event",
    [
        None,
        "done",
        [],
        {},
        {"id": "luma/a"},
        {"id": "luma/a", "status": "splendid"},
        {"id": 5, "status": "succeeded"},
        {"id": "luma/a", "status": "succeeded", "files": [{}]},
        {"id": "luma/a", "status": "succeeded", "files": ["https://a/b"]},
        {"id": "luma/a", "status": "succeeded", "files": 5},
        {"id": "luma/a", "status": "succeeded", "cost": "12"},
        {"id": "luma/a", "status": "failed", "error": "bad"},
        {"id": "luma/a", "status": "succeeded", "created_at": "yesterday"},
    ],
)
def test_an_event_that_makes_no_sense_is_never_a_result(context: Any, event: Any) -> None:
    """It crossed a database and perhaps an upgrade: it is refused as something that a retry can mend."""
    for waiter in both():
        with pytest.raises(MediaProviderError, match="event is no media task"):
            waiter.execute_complete(context, event)


@pytest.mark.parametrize("status", ["queued", "running", "failed", "cancelled"])
def test_an_event_without_success_is_never_a_result(context: Any, status: str) -> None:
    """A task that has not succeeded and says no error is still not what somebody waited for."""
    for waiter in both():
        with pytest.raises(MediaProviderError, match=status):
            waiter.execute_complete(context, {"id": "luma/a", "status": status})


def test_the_log_says_what_was_made_and_what_it_cost(context: Any) -> None:
    """One bounded line, however many files there are and however long their URLs."""
    files = tuple(MediaFile("video", f"https://cdn.example/{n}?{'x' * 5000}") for n in range(200))
    task = MediaTask("luma/a", TaskStatus.SUCCEEDED, files=files, cost=MediaCost("USD", "0.18"))
    for waiter in both():
        with structlog.testing.capture_logs() as lines:
            waiter.execute_complete(context, task.to_dict())
        (line,) = (entry["event"] for entry in lines if "finished" in entry["event"])
        assert "200 files" in line
        assert "0.18 USD" in line
        assert len(line) < 5000
