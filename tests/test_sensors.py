"""The sensor: waiting for what something else has submitted."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
import structlog
from airflow.sdk import DAG
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException, TaskDeferred

from airflow_media_tasks.sensors import MediaTaskSensor
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaModerationError,
    MediaNotFoundError,
    MediaRequestError,
    MediaTaskFailed,
)
from airflow_media_tasks.triggers import Poller


Connect = Callable[..., str]
Complete = Callable[[Any], Any]


def submitted_elsewhere(sim: Simulator, prompt: str) -> str:
    """The id of a Luma task that somebody made with a plain HTTP request."""
    reply = httpx.post(
        f"{sim.url}/acedata/luma/videos",
        json={"prompt": prompt, "async": True},
        headers={"Authorization": "Bearer sim-key-123456"},
    )
    return f"luma/{reply.json()['task_id']}"


def sensor(media_task_id: Any, **arguments: Any) -> MediaTaskSensor:
    """A sensor on the AceData account, quick to look."""
    usual: dict[str, Any] = {
        "task_id": "t",
        "media_conn_id": "acedata_default",
        "poll_interval": 0.1,
        "timeout": 20,
    }
    return MediaTaskSensor(media_task_id=media_task_id, **{**usual, **arguments})


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_task_submitted_elsewhere_is_waited_for(
    sim: Simulator, connect: Connect, complete: Complete, deferrable: bool
) -> None:
    """Its result is the task's dict, and the sensor submits nothing."""
    connect("acedata")
    id_ = submitted_elsewhere(sim, "x [sim:queued=0] [sim:seconds=0.4]")
    result = complete(sensor(id_, deferrable=deferrable))
    assert (result["id"], result["status"]) == (id_, "succeeded")
    assert result["url"].endswith(".mp4")
    assert result["media_conn_id"] == "acedata_default"
    assert len(sim.ledger()) == 1
    assert json.loads(json.dumps(result)) == result


def test_a_finished_task_needs_no_triggerer(sim: Simulator, connect: Connect, context: Any) -> None:
    """The first look happens on the worker; what is done by then is returned at once."""
    connect("acedata")
    id_ = submitted_elsewhere(sim, "x [sim:seconds=1]")
    sim.advance(2)
    assert sensor(id_).execute(context)["id"] == id_


def test_it_defers_until_its_own_timeout(sim: Simulator, connect: Connect, context: Any) -> None:
    """A sensor's timeout is the trigger's deadline, as an absolute time."""
    connect("acedata")
    id_ = submitted_elsewhere(sim, "x [sim:seconds=60]")
    with pytest.raises(TaskDeferred) as deferred:
        sensor(id_, timeout=timedelta(minutes=5)).execute(context)
    assert abs(deferred.value.trigger.deadline - time.time() - 300) < 5
    assert deferred.value.trigger.media_task_id == id_


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_timeout_is_a_sensors_timeout(
    sim: Simulator, connect: Connect, complete: Complete, deferrable: bool
) -> None:
    """Airflow never retries an AirflowSensorTimeout, and the text says how the task stood."""
    connect("acedata")
    id_ = submitted_elsewhere(sim, "x [sim:seconds=60] [sim:status=dreaming]")
    with pytest.raises(AirflowSensorTimeout, match="still running") as timeout:
        complete(sensor(id_, timeout=2, deferrable=deferrable))
    assert "dreaming" in str(timeout.value)


@pytest.mark.parametrize(
    ("word", "error"), [("fail=moderation", MediaModerationError), ("fail=provider", MediaTaskFailed)]
)
@pytest.mark.parametrize("wait", [0, 2])
def test_a_failed_task_raises_its_error(
    sim: Simulator, connect: Connect, complete: Complete, word: str, error: type[Exception], wait: float
) -> None:
    """Whether it had failed before the first look or fails later."""
    connect("acedata")
    id_ = submitted_elsewhere(sim, f"x [sim:queued=0] [sim:seconds=0.3] [sim:{word}]")
    sim.advance(wait)
    with pytest.raises(error, match=id_):
        complete(sensor(id_))


@pytest.mark.parametrize("seconds", [0.3, 60])
@pytest.mark.parametrize("wait", [0, 2])
def test_soft_fail_skips(
    sim: Simulator, connect: Connect, complete: Complete, seconds: float, wait: float
) -> None:
    """With `soft_fail`, a failure and a timeout skip the sensor instead, with the reason."""
    connect("acedata")
    id_ = submitted_elsewhere(sim, f"x [sim:queued=0] [sim:seconds={seconds}] [sim:fail=provider]")
    sim.advance(wait)
    with structlog.testing.capture_logs() as lines, pytest.raises(AirflowSkipException):
        complete(sensor(id_, soft_fail=True, timeout=2))
    (reason,) = (line["event"] for line in lines if line["event"].startswith("skipped: "))
    assert id_ in reason


def test_a_task_may_show_itself_late(sim: Simulator, connect: Connect, complete: Complete) -> None:
    """Some providers answer "not found" for a moment after they accepted a task."""
    connect("acedata")
    id_ = submitted_elsewhere(sim, "x [sim:not-visible=0.5] [sim:queued=0] [sim:seconds=0.1]")
    assert complete(sensor(id_))["status"] == "succeeded"


def test_a_task_that_nobody_knows_is_not_found(
    sim: Simulator, connect: Connect, complete: Complete, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the grace that a late task gets."""
    monkeypatch.setattr(sys.modules[Poller.__module__], "NOT_FOUND_GRACE", 0.3)
    connect("acedata")
    with pytest.raises(MediaNotFoundError, match="luma/never"):
        complete(sensor("luma/never"))


@pytest.mark.parametrize(
    ("media_task_id", "says"),
    [
        ("videos/text2video/123", "'videos/text2video/123'"),
        ("no-service-before-it", "'no-service-before-it'"),
        ("", "''"),
        (None, "None"),
        ("luma/../../kling", "'luma/../../kling'"),
        ("luma/a?b=c", "'luma/a?b=c'"),
        ("luma/a\nb", r"'luma/a\nb'"),
        ("luma/" + "x" * 100_000, "100007 characters"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_an_id_of_another_provider_is_refused(
    sim: Simulator, connect: Connect, context: Any, media_task_id: Any, says: str
) -> None:
    """The error shows the value, what is allowed, and the connection; nothing was asked."""
    connect("acedata")
    with pytest.raises(MediaRequestError, match="media_task_id") as refused:
        sensor(media_task_id).execute(context)
    assert says in str(refused.value)
    assert "<service>/<task id>" in str(refused.value)
    assert "acedata_default" in str(refused.value)
    assert len(str(refused.value)) < 500
    assert sim.requests() == {}


def test_a_wrong_key_is_said_at_once(sim: Simulator, connect: Connect, context: Any) -> None:
    """The look on the worker finds what no waiting would mend."""
    connect("acedata", password="sim-bad-key")
    with pytest.raises(MediaAuthError) as refused:
        sensor("luma/abc").execute(context)
    assert "sim-bad-key" not in str(refused.value)


@pytest.mark.parametrize("name", ["poll_interval", "timeout"])
@pytest.mark.parametrize("value", [0, -1.5, float("nan"), "10", False])
def test_times_must_be_positive(name: str, value: Any) -> None:
    """A wrong one is said where the DAG is written."""
    with pytest.raises(MediaRequestError, match=f"{name} must be a number of seconds above 0"):
        sensor("luma/abc", **{name: value})


def test_its_log_names_the_task(sim: Simulator, connect: Connect, complete: Complete) -> None:
    """A person who reads it finds the id, the status and the result."""
    connect("acedata")
    id_ = submitted_elsewhere(sim, "x [sim:queued=0] [sim:seconds=0.3]")
    with structlog.testing.capture_logs() as lines:
        complete(sensor(id_))
    said = [line["event"] for line in lines]
    assert any(f"{id_} is running" in line for line in said)
    assert any(line.startswith(f"{id_} finished with") and ".mp4" in line for line in said)


def test_in_a_dag_it_passes_the_result_on(
    sim: Simulator, connect: Connect, run_dag: Callable[[DAG], Any]
) -> None:
    """The id is a template, `output["url"]` is an XCom of its own, and it can be mapped."""
    connect("acedata")
    quick: dict[str, Any] = {"media_conn_id": "{{ 'acedata' }}_default", "poll_interval": 0.1}
    ids = [submitted_elsewhere(sim, f"{n} [sim:seconds=0.3]") for n in range(3)]
    with DAG("sensing", schedule=None, params={"id": ids[0]}) as dag:
        MediaTaskSensor(task_id="one", media_task_id="{{ params.id }}", **quick)
        MediaTaskSensor.partial(task_id="many", **quick).expand(media_task_id=ids[1:])
        MediaTaskSensor(task_id="skipped", media_task_id="wrong", soft_fail=True, **quick)
    run = run_dag(dag)
    assert run.tasks == {
        ("one", -1): "success",
        ("many", 0): "success",
        ("many", 1): "success",
        ("skipped", -1): "skipped",
    }
    assert run.xcom("one")["id"] == ids[0]
    assert run.xcom("one", key="url") == run.xcom("one")["url"]
    assert run.xcom("many", 1)["id"] == ids[2]


def test_an_id_that_cannot_be_is_not_asked_for_again(sim: Simulator, connect: Connect, context: Any) -> None:
    """The sensor has the operators' policy: what the same request would meet again is not retried."""
    connect("kling")
    sensor = MediaTaskSensor(task_id="s", media_task_id="luma/1", media_conn_id="kling_default")
    with pytest.raises(MediaRequestError) as refused:
        sensor.execute(context)
    assert sensor.retry_policy is not None
    assert sensor.retry_policy.evaluate(refused.value, 1, 3).action is RetryAction.FAIL
