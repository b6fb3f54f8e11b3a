"""What Airflow does after each kind of failure, and the waits that cost no try."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import (
    AirflowNotFoundException,
    TaskDeferralError,
    TaskDeferralTimeout,
    TaskDeferred,
)
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_media_tasks import operators
from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.hooks.vap import VapHook
from airflow_media_tasks.operators import MediaTaskOperator
from airflow_media_tasks.retries import MediaRetryPolicy
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submissions import records
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaConcurrencyError,
    MediaExpiredError,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaProviderError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    MediaTaskFailed,
    MediaTaskTimeout,
    SubmissionOutcomeUnknown,
    TaskStatus,
)
from airflow_media_tasks.triggers import MediaTaskTrigger, Turn, TurnTrigger
from airflow_media_tasks.waiting import firing
from airflow_media_tasks.wire.conversations import Conversation, Request


Connect = Callable[..., str]

FAILS = "__fail__"
"""The method that Airflow resumes after a trigger that was lost."""


def video(**rest: Any) -> MediaTaskOperator:
    """An operator of VAP's `text_to_video`."""
    usual: dict[str, Any] = {
        "operation": "text_to_video",
        "arguments": {"prompt": "a fox [sim:queued=0] [sim:seconds=60]"},
        "media_conn_id": "vap_default",
    }
    return MediaTaskOperator(task_id="t", **{**usual, **rest})


def deferred(call: Callable[..., Any], *args: Any) -> TaskDeferred:
    """What *call* handed to the triggerer."""
    with pytest.raises(TaskDeferred) as raised:
        call(*args)
    return raised.value


# The policy.


@pytest.mark.parametrize(
    "error",
    [
        MediaAuthError,
        MediaFundsError,
        MediaModerationError,
        MediaRequestError,
        SubmissionOutcomeUnknown,
    ],
)
def test_what_would_fail_again_fails_at_once(error: type[MediaTaskError]) -> None:
    """No retry is spent on what only a person can change, even if a time to wait was named."""
    decision = MediaRetryPolicy().evaluate(error("x", retry_after=5), 1, 3)
    assert decision.action is RetryAction.FAIL
    assert decision.reason
    assert error.__name__ in decision.reason


def test_a_batch_with_nothing_left_to_try_fails_at_once() -> None:
    """Questions and refusals are not asked again; what may yet succeed is another error, and retried."""
    failed = MediaTaskFailed("2 of 3 requests failed", code="partial_failure")
    assert MediaRetryPolicy().evaluate(failed, 1, 3).action is RetryAction.FAIL


@pytest.mark.parametrize("error", [MediaRateLimitError, MediaConcurrencyError, MediaProviderError])
def test_a_retry_comes_when_the_provider_said(error: type[MediaTaskError]) -> None:
    """`retry_after` outranks the task's own `retry_delay`."""
    decision = MediaRetryPolicy().evaluate(error("x", retry_after=42.5), 1, 3)
    assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, timedelta(seconds=42.5))


@pytest.mark.parametrize("seconds", [301.0, 30_000.0, 86_400.0, 1e300, float("inf"), float("nan"), -5.0, 0.0])
def test_no_retry_waits_longer_than_makes_sense(seconds: float) -> None:
    """Whatever a header says, it is five minutes at the most; nonsense is left to the task."""
    error = MediaRateLimitError("x")
    error.retry_after = seconds
    decision = MediaRetryPolicy().evaluate(error, 1, 3)
    if seconds > 0:
        assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, timedelta(seconds=300))
    else:
        assert decision.action is RetryAction.DEFAULT


@pytest.mark.parametrize(
    "error",
    [
        MediaProviderError("x"),
        MediaTaskFailed("x"),
        MediaTaskTimeout("x"),
        MediaNotFoundError("x"),
        MediaExpiredError("x"),
        MediaTaskError("x"),
        ValueError("x"),
        AirflowNotFoundException("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_everything_else_is_left_to_the_task(error: Exception) -> None:
    """Our policy decides only about what it knows more of than the task's author."""
    assert MediaRetryPolicy().evaluate(error, 1, 3).action is RetryAction.DEFAULT


def test_the_policy_crosses_a_process() -> None:
    """What Airflow stores of it is JSON, and makes a policy that decides the same."""
    again = MediaRetryPolicy.deserialize(json.loads(json.dumps(MediaRetryPolicy().serialize())))
    assert again.evaluate(MediaAuthError("x"), 1, 1).action is RetryAction.FAIL
    assert isinstance(video().retry_policy, MediaRetryPolicy)


# No room at the provider.


@pytest.mark.parametrize("kind", ["concurrency", "rate_limit"])
def test_no_room_is_waited_for_without_a_try_or_a_slot(
    sim: Simulator, connect: Connect, context: dict[str, Any], kind: str
) -> None:
    """A refusal defers until told; the same try then submits, once, and waits for its task."""
    connect("kling")
    sim.fault(
        kind, provider="kling", on="submit", count=2, **({"retry_after": 30} if kind == "rate_limit" else {})
    )
    operator = video(media_conn_id="kling_default", timeout=600)
    began = time.time()
    waits = deferred(operator.execute, context)
    for refusals in (1, 2):
        assert isinstance(waits.trigger, TurnTrigger)
        assert waits.method_name == "submit_again"
        assert (waits.trigger.refusals, abs(waits.trigger.since - began) < 5) == (refusals, True)
        pause = waits.trigger.until - time.time()
        lowest, highest = (29, 37) if kind == "rate_limit" else (4 * refusals, 13)
        assert lowest <= pause <= highest
        assert isinstance(waits.timeout, timedelta)
        assert waits.timeout.total_seconds() > pause
        assert context["task_state_store"].get(records.KEY) is None
        assert sim.ledger() == []
        event = {"since": waits.trigger.since, "refusals": waits.trigger.refusals}
        waits = deferred(operator.submit_again, context, event)
    assert isinstance(waits.trigger, MediaTaskTrigger)
    assert len(sim.ledger()) == 1


def test_no_room_is_waited_for_up_to_the_queue_timeout(
    sim: Simulator, connect: Connect, context: dict[str, Any]
) -> None:
    """When the next try would come too late the refusal is the error, and the policy takes over."""
    connect("kling")
    sim.fault("rate_limit", provider="kling", on="submit", retry_after=30)
    operator = video(media_conn_id="kling_default", timeout=3600, queue_timeout=60)
    waits = deferred(operator.execute, context)
    event = {"since": time.time() - 40, "refusals": waits.trigger.refusals}
    with pytest.raises(MediaRateLimitError) as refused:
        operator.submit_again(context, event)
    assert refused.value.retry_after == 30
    assert sim.ledger() == []


def test_no_room_without_deferral_is_slept_through(
    sim: Simulator, connect: Connect, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`deferrable=False` waits in the worker instead, and submits once."""
    connect("kling")
    slept: list[float] = []
    clock = SimpleNamespace(time=time.time, sleep=slept.append)
    monkeypatch.setattr(operators, "time", clock)
    sim.fault("concurrency", provider="kling", on="submit", count=2)
    prompt = {"prompt": "a fox [sim:queued=0] [sim:seconds=0]"}
    operator = video(
        media_conn_id="kling_default", arguments=prompt, deferrable=False, poll_interval=0.1, timeout=600
    )
    assert operator.execute(context)["status"] == "succeeded"
    assert len(sim.ledger()) == 1
    assert len(slept) == 2
    assert 4 <= slept[0] <= 6
    assert 9 <= slept[1] <= 12


async def test_a_turn_fires_at_its_moment_and_hands_itself_on() -> None:
    """The trigger sleeps until the moment, then says since when and how often; what has passed is now."""
    until = time.time() + 0.2
    for moment in (until, until - 100):
        trigger = TurnTrigger(moment, 1_700_000_000.5, 3)
        events = [event async for event in trigger.run()]
        assert [event.payload for event in events] == [{"since": 1_700_000_000.5, "refusals": 3}]
        assert time.time() >= until
        assert Turn.of_event(json.loads(json.dumps(events[0].payload))) == Turn(1_700_000_000.5, 3)


@pytest.mark.parametrize("event", [None, "x", [], {}, {"since": "now"}, {"refusals": 1}])
def test_an_event_that_is_no_turn_is_refused(event: Any) -> None:
    """An event of another kind submits nothing."""
    with pytest.raises(ValueError, match="no turn"):
        Turn.of_event(event)


def test_turns_come_later_and_later_and_not_before_the_provider_said() -> None:
    """5, 10, 20 and 40 seconds, then a minute, with a fifth of jitter; a later time named is kept."""
    now = time.time()
    pauses = [Turn(now, refusals).next_try(None) - now for refusals in (0, 1, 2, 3, 4, 50)]
    for pause, least in zip(pauses, (5, 10, 20, 40, 60, 60), strict=True):
        assert least <= pause <= 1.2 * least + 1
    assert 90 <= Turn(now, 0).next_try(90) - now <= 109
    assert 5 <= Turn(now, 0).next_try(0.01) - now <= 7


# A trigger that was lost.


@pytest.mark.parametrize("error", ["Trigger timeout", "Trigger failure"])
def test_a_lost_trigger_does_not_lose_what_was_made(
    sim: Simulator, connect: Connect, context: dict[str, Any], error: str
) -> None:
    """Airflow resumes with nothing but an error; the record knows the task, and its success is the result."""
    connect("vap")
    operator = video()
    deferred(operator.execute, context)
    sim.advance(61)
    result = operator.resume_execution(FAILS, {"error": error}, context)
    assert (result["status"], result["operation"]) == ("succeeded", "text_to_video")
    assert result["id"] == sim.ledger()[0]["id"]
    assert context["task_state_store"][records.KEY]["phase"] == "finished"
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize("error", ["Trigger timeout", "Trigger failure"])
def test_a_lost_trigger_of_a_running_task_is_an_error_to_retry(
    sim: Simulator, connect: Connect, context: dict[str, Any], error: str
) -> None:
    """The error says that it runs on and was not cancelled; the retry adopts it and pays nothing."""
    connect("vap")
    operator = video()
    first = deferred(operator.execute, context)
    with pytest.raises(MediaTaskTimeout, match="not cancelled, and a retry waits for it again") as lost:
        operator.resume_execution(FAILS, {"error": error}, context)
    assert lost.value.media_task_id == sim.ledger()[0]["id"]
    assert MediaRetryPolicy().evaluate(lost.value, 1, 1).action is RetryAction.DEFAULT
    again = deferred(operator.execute, context)
    assert again.trigger.media_task_id == first.trigger.media_task_id
    assert len(sim.ledger()) == 1


def test_a_lost_trigger_of_a_failed_task_is_its_failure(
    sim: Simulator, connect: Connect, context: dict[str, Any]
) -> None:
    """What the task itself ended with outranks the loss of the trigger."""
    connect("vap")
    operator = video(arguments={"prompt": "x [sim:seconds=60] [sim:fail=moderation]"})
    deferred(operator.execute, context)
    sim.advance(61)
    with pytest.raises(MediaModerationError):
        operator.resume_execution(FAILS, {"error": "Trigger failure"}, context)


@pytest.mark.parametrize(
    ("error", "raised"), [("Trigger timeout", TaskDeferralTimeout), ("Trigger failure", TaskDeferralError)]
)
def test_a_lost_turn_is_airflows_own_error(
    sim: Simulator, connect: Connect, context: dict[str, Any], error: str, raised: type[Exception]
) -> None:
    """Nothing was submitted, so there is nothing to ask for; not even what was there before a clear."""
    connect("kling")
    operator = video(media_conn_id="kling_default")
    with pytest.raises(raised):
        operator.resume_execution(FAILS, {"error": error}, context)
    deferred(operator.execute, context)
    sim.advance(61)
    context["ti"].max_tries += 1
    sim.fault("concurrency", provider="kling", on="submit", count=1)
    assert isinstance(deferred(operator.execute, context).trigger, TurnTrigger)
    with pytest.raises(raised):
        operator.resume_execution(FAILS, {"error": error}, context)


# A task that somebody killed.


CANCELLING = "GET /vap/v3/tasks"
"""The request that stands for a cancellation, which none of our providers offers."""


@pytest.fixture
def can_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes VAP a provider that can cancel."""

    def cancel(hook: VapHook, media_task_id: str) -> Conversation[MediaTask]:
        yield Request("GET", "/v3/tasks")
        return MediaTask(media_task_id, TaskStatus.CANCELLED)

    monkeypatch.setattr(VapHook, "can_cancel", True)
    monkeypatch.setattr(VapHook, "_cancel_task", cancel)


def waiting(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, states: dict[str, Any], map_index: int = -1
) -> MediaTaskTrigger:
    """A trigger of an Airflow task whose states Airflow would answer with *states*."""
    connect("vap")

    def get_task_states(dag_id: str, **of: Any) -> dict[str, Any]:
        assert (dag_id, of) == ("d", {"map_index": map_index, "task_ids": ["t"], "run_ids": ["r"]})
        return states

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", get_task_states)
    trigger = MediaTaskTrigger("0f3c", "vap_default", 1.0, time.time() + 60)
    trigger.task_instance = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=map_index)  # type: ignore[assignment]  # what it uses of one
    return trigger


@pytest.mark.parametrize(
    ("state", "is_killed"),
    [
        ("failed", True),
        ("success", True),
        ("skipped", True),
        ("upstream_failed", True),
        ("removed", True),
        ("deferred", False),
        ("queued", False),
        ("scheduled", False),
        ("running", False),
        ("restarting", False),
        ("up_for_retry", False),
        (None, False),
    ],
)
@pytest.mark.parametrize(("map_index", "key"), [(-1, "t"), (0, "t_0")], ids=["single", "mapped"])
async def test_only_a_task_that_somebody_ended_is_cancelled(
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    can_cancel: None,
    sim: Simulator,
    state: str | None,
    is_killed: bool,
    map_index: int,
    key: str,
) -> None:
    """Airflow calls `on_kill` for a trigger moved to another triggerer and for a clear, too: these go on."""
    await waiting(connect, monkeypatch, {"r": {key: state}}, map_index).on_kill()
    assert sim.requests() == ({CANCELLING: 1} if is_killed else {})


async def test_a_killed_prediction_is_cancelled_at_replicate(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, sim: Simulator
) -> None:
    """Where a provider can cancel, a user who ends the task ends what it would have cost."""
    conn_id = connect("replicate")
    hook = await asyncio.to_thread(get_media_hook, conn_id)
    task = await hook.asubmit("text_to_video", {"prompt": "a fox [sim:seconds=600]"})
    trigger = waiting(connect, monkeypatch, {"r": {"t": "failed"}})
    trigger.media_conn_id, trigger.media_task_id = conn_id, task.id
    await trigger.on_kill()
    assert [one["status"] for one in sim.tasks()] == ["cancelled"]


@pytest.mark.parametrize("states", [{}, {"r": {}}])
async def test_a_task_that_is_gone_is_cancelled(
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    can_cancel: None,
    sim: Simulator,
    states: dict[str, Any],
) -> None:
    """An Airflow task that was deleted waits for nothing any more."""
    await waiting(connect, monkeypatch, states).on_kill()
    assert sim.requests() == {CANCELLING: 1}


async def test_a_trigger_without_a_task_cancels_nothing(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, can_cancel: None, sim: Simulator
) -> None:
    """In `dag.test()` a trigger knows no task instance; nobody can have killed it."""
    trigger = waiting(connect, monkeypatch, {})
    trigger.task_instance = None  # type: ignore[assignment]  # what dag.test() does
    await trigger.on_kill()
    assert sim.requests() == {}


async def test_a_cancellation_survives_airflows_second_cancel(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, can_cancel: None, sim: Simulator
) -> None:
    """Airflow cancels `on_kill` itself after a second; what it has begun is done all the same."""
    sim.fault("latency", provider="vap", on="read", delay=0.4)
    with structlog.testing.capture_logs() as lines:
        kill = asyncio.create_task(waiting(connect, monkeypatch, {"r": {"t": "failed"}}).on_kill())
        await asyncio.sleep(0.1)
        kill.cancel()
        with pytest.raises(asyncio.CancelledError):
            await kill
        (work,) = firing._KILLS
        assert not work.done()
        await work
    assert "0f3c was cancelled at the provider" in [line["event"] for line in lines]
    await asyncio.sleep(0)
    assert not firing._KILLS


async def test_a_provider_that_cannot_cancel_is_said_so(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, sim: Simulator
) -> None:
    """Who kills a task reads that it goes on, is billed, and can be had back by clearing."""
    with structlog.testing.capture_logs() as lines:
        await waiting(connect, monkeypatch, {"r": {"t": "failed"}}).on_kill()
    (line,) = [line["event"] for line in lines if line["log_level"] == "warning"]
    assert line.startswith("0f3c cannot be cancelled: it goes on there and is billed")
    assert sim.requests() == {}
