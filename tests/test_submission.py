"""One paid submission, try by try, against the simulator over real HTTP: its ledger says what was paid."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.hooks.vap import VapHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submissions.records import moment_of
from airflow_media_tasks.submissions.submission import LEASE, SETTLE, finish
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaConcurrencyError,
    MediaFundsError,
    MediaModerationError,
    MediaProviderError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    TaskStatus,
)
from airflow_media_tasks.wire import conversations
from airflow_media_tasks.wire.conversations import Conversation, Request

from .place import PROVIDERS, Clock, Place, own_id


Connect = Callable[..., str]


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulator of this test's own, whose clock nobody has moved."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def clock(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Nothing really sleeps."""
    return Clock.instead_of_time(sim, monkeypatch)


@pytest.fixture(params=PROVIDERS)
def place(request: pytest.FixtureRequest, connect: Connect) -> Place:
    """A task instance of each provider."""
    return Place(request.param, connect(request.param))


@pytest.fixture
def vap(connect: Connect) -> Place:
    """A task instance of VAP, which takes no mark of ours."""
    return Place("vap", connect("vap"))


# One try after the other.


def test_a_fresh_submission_is_written_down_before_and_after(place: Place, sim: Simulator) -> None:
    """The first try pays once and leaves a record that says everything needed to find the task again."""
    seen: list[str] = []
    place.store.after_intent = lambda: seen.append(f"{place.store.value['phase']} {len(sim.ledger())}")
    task = place.run()
    (paid,) = sim.ledger()
    assert task.id.endswith(own_id(paid))
    assert seen == ["intent 0"]
    record = place.record
    assert record is not None
    assert (record.phase, record.generation, record.number) == ("submitted", 1, 1)
    assert record.media_task_id == task.id
    assert (record.operation, record.media_conn_id) == (place.operation, place.media_conn_id)
    assert datetime.fromisoformat(record.submitted_after).utcoffset() is not None
    assert "sim-key" not in json.dumps(place.store.value)
    assert abs(moment_of(record) - paid["at"]) < 5


def test_a_retry_waits_for_the_task_that_runs(place: Place, sim: Simulator, clock: Clock) -> None:
    """Queued or running, it is the same task, and the record is not written again."""
    first = place.run()
    writes = place.store.writes
    clock.sleep(20)
    again = place.run()
    assert (again.id, again.status, again.operation) == (first.id, TaskStatus.RUNNING, place.operation)
    assert len(sim.ledger()) == 1
    assert place.store.writes == writes


def test_a_retry_returns_what_has_succeeded(place: Place, sim: Simulator, clock: Clock) -> None:
    """A success that came while nobody waited is the result of the next try."""
    first = place.run()
    clock.sleep(61)
    again = place.run()
    assert (again.id, again.status) == (first.id, TaskStatus.SUCCEEDED)
    assert again.url
    finish(place.context, again)
    assert place.store.value["phase"] == "finished"
    assert place.run().url == again.url
    assert len(sim.ledger()) == 1


def test_a_retry_replaces_what_failed_at_the_provider(place: Place, sim: Simulator, clock: Clock) -> None:
    """A failure that may not happen again is submitted a second time, under another name of ours."""
    place.arguments["prompt"] += " [sim:fail=provider]"
    first = place.run()
    ref = place.store.value["client_ref"]
    clock.sleep(61)
    again = place.run()
    assert again.id != first.id
    assert [own_id(entry) for entry in sim.ledger()] == [
        task.id.rpartition("/")[2] for task in (first, again)
    ]
    assert (place.store.value["number"], place.store.value["generation"]) == (2, 1)
    assert place.store.value["client_ref"] != ref


def test_a_retry_does_not_pay_for_a_failure_that_would_come_again(
    place: Place, sim: Simulator, clock: Clock
) -> None:
    """What moderation withheld is returned as the failure that it is."""
    place.arguments["prompt"] += " [sim:fail=moderation]"
    first = place.run()
    clock.sleep(61)
    again = place.run()
    assert again.id == first.id
    assert isinstance(again.error, MediaModerationError)
    assert len(sim.ledger()) == 1


def test_a_task_that_is_not_shown_yet_is_waited_for(place: Place, sim: Simulator) -> None:
    """The provider says "not found" of a task that it accepted: no reason to submit another."""
    place.arguments["prompt"] += " [sim:not-visible=600]"
    first = place.run()
    again = place.run()
    assert (again.id, again.status) == (first.id, TaskStatus.QUEUED)
    assert len(sim.ledger()) == 1


def test_a_provider_that_cannot_be_asked_leaves_everything_as_it_is(place: Place, sim: Simulator) -> None:
    """During an outage a retry fails with the provider's error, and the one after it finds the task."""
    first = place.run()
    before = place.store.value
    sim.fault("outage", on="all")
    with pytest.raises(MediaProviderError):
        place.run()
    assert place.store.value == before
    sim.clear_faults()
    assert place.run().id == first.id
    assert len(sim.ledger()) == 1


# A worker that was killed.


def test_a_worker_killed_before_sending_costs_nothing(place: Place, sim: Simulator, clock: Clock) -> None:
    """The next try waits until the provider's silence is proof, and pays for the first time."""
    place.run_and_die("after_intent")
    assert (place.store.value["phase"], sim.ledger()) == ("intent", [])
    ref = place.store.value["client_ref"]
    task = place.run()
    assert SETTLE - 1 < clock.slept < SETTLE + 1
    (paid,) = sim.ledger()
    assert task.id.endswith(own_id(paid))
    assert place.store.value["client_ref"] != ref


def test_a_worker_killed_after_sending_leaves_a_task_to_adopt(
    place: Place, sim: Simulator, clock: Clock
) -> None:
    """The next try finds what was accepted, at once, and pays nothing."""
    place.run_and_die("before_result")
    assert place.store.value["phase"] == "intent"
    task = place.run()
    (paid,) = sim.ledger()
    assert task.id.endswith(own_id(paid))
    assert task.operation == place.operation
    assert (place.store.value["phase"], place.store.value["media_task_id"]) == ("submitted", task.id)
    assert clock.slept == 0


def test_a_task_that_shows_itself_late_is_adopted(place: Place, sim: Simulator, clock: Clock) -> None:
    """A provider may need half a minute to show what it has accepted."""
    place.arguments["prompt"] += " [sim:not-visible=20]"
    place.run_and_die("before_result")
    task = place.run()
    (paid,) = sim.ledger()
    assert task.id.endswith(own_id(paid))
    assert 20 <= clock.slept < SETTLE


def test_a_killed_try_that_ended_well_meanwhile_is_its_result(
    place: Place, sim: Simulator, clock: Clock
) -> None:
    """Nobody knew of the task; it succeeded, was paid, and is not lost."""
    place.run_and_die("before_result")
    clock.sleep(61)
    task = place.run()
    assert (task.status, len(sim.ledger())) == (TaskStatus.SUCCEEDED, 1)
    assert task.url
    assert place.run().url == task.url


def test_an_outage_while_asking_is_no_proof(place: Place, sim: Simulator, clock: Clock) -> None:
    """As long as the provider cannot be asked what became of it, nothing is sent."""
    place.run_and_die("before_result")
    sim.fault("outage", on="read")
    for _ in range(2):
        clock.sleep(100)
        with pytest.raises(MediaProviderError):
            place.run()
    assert place.store.value["phase"] == "intent"
    sim.clear_faults()
    place.run()
    assert len(sim.ledger()) == 1


def test_a_worker_that_was_replaced_sends_nothing(place: Place, sim: Simulator) -> None:
    """It is told that there is no record, its intent is refused, and so it never reaches the POST."""
    first = place.run()
    place.store.is_stale = True
    asked = sim.requests()
    with pytest.raises(AirflowRuntimeError):
        place.run()
    assert sim.requests() == asked
    place.store.is_stale = False
    assert place.run().id == first.id
    assert len(sim.ledger()) == 1


def test_a_worker_that_slept_after_its_intent_sends_nothing(
    place: Place, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submission leaves within its lease or not at all; then the record is as before and a retry pays."""

    def sleep() -> None:
        monkeypatch.setattr(conversations, "time", SimpleNamespace(time=lambda: time.time() + LEASE + 1))

    place.store.after_intent = sleep
    with pytest.raises(MediaProviderError) as refused:
        place.run()
    assert refused.value.code == conversations.TOO_LATE
    said = f"connection {place.media_conn_id!r}: {get_media_hook(place.media_conn_id).conn_type} was not sent"
    assert said in str(refused.value)
    assert (place.store.value, sim.ledger()) == (None, [])
    assert not [label for label in sim.requests() if label.startswith("POST") and "/tasks" not in label]
    monkeypatch.setattr(conversations, "time", time)
    place.store.after_intent = lambda: None
    place.run()
    assert len(sim.ledger()) == 1


def test_two_workers_of_one_try_pay_once(
    place: Place, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sleeps after its intent, the next proves that nothing was sent and submits, the first wakes up."""
    submitted: list[str] = []

    def replaced() -> None:
        place.store.after_intent = lambda: None
        submitted.append(place.run().id)
        place.store.is_stale = True
        monkeypatch.setattr(conversations, "time", SimpleNamespace(time=lambda: time.time() + SETTLE))

    place.store.after_intent = replaced
    with pytest.raises(AirflowRuntimeError):
        place.run()
    place.store.is_stale = False
    (paid,) = sim.ledger()
    assert place.run().id == submitted[0]
    assert submitted[0].endswith(own_id(paid))


# A reply that was lost.


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "lose_reply"},
        {"kind": "error_after_accept", "status": 500},
        {"kind": "error_after_accept", "status": 502},
        {"kind": "error_after_accept", "status": 504},
        {"kind": "html", "on": "submit"},
        {"kind": "truncated", "on": "submit"},
        {"kind": "null", "on": "submit"},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
def test_a_lost_reply_is_found_again_at_once(
    place: Place, sim: Simulator, clock: Clock, fault: dict[str, Any]
) -> None:
    """Whatever became of the answer, what was accepted is adopted within the same try."""
    sim.fault(**fault, count=1)
    task = place.run()
    (paid,) = sim.ledger()
    assert task.id.endswith(own_id(paid))
    assert place.store.value["media_task_id"] == task.id
    assert clock.slept == 0


def test_an_answer_without_an_id_is_a_lost_reply(place: Place, sim: Simulator) -> None:
    """What a provider accepted without saying its name is found like any other."""
    place.arguments["prompt"] += " [sim:no-id]"
    task = place.run()
    (paid,) = sim.ledger()
    assert task.id.endswith(own_id(paid))


@pytest.mark.parametrize("fault", [{"kind": "lose_request"}, {"kind": "outage", "on": "submit"}])
def test_a_request_that_never_arrived_is_paid_by_a_later_try(
    place: Place, sim: Simulator, fault: dict[str, Any]
) -> None:
    """Once its absence is proved the record is as before, the error is one to retry, and the retry pays."""
    sim.fault(**fault, count=1)
    with pytest.raises(MediaProviderError, match="did not accept the submission, nothing is paid"):
        place.run()
    assert (place.store.value, sim.ledger()) == (None, [])
    place.run()
    assert len(sim.ledger()) == 1


def test_a_lost_request_puts_the_failure_before_it_back(place: Place, sim: Simulator, clock: Clock) -> None:
    """What was recorded of an earlier submission of this try is not forgotten by a later one that fails."""
    place.arguments["prompt"] += " [sim:fail=provider]"
    place.run()
    clock.sleep(61)
    before = place.store.value
    sim.fault("lose_request", count=1)
    with pytest.raises(MediaProviderError):
        place.run()
    assert place.store.value == before
    place.run()
    assert len(sim.ledger()) == 2


# A refusal.


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("auth", MediaAuthError),
        ("funds", MediaFundsError),
        ("moderation", MediaModerationError),
        ("bad_request", MediaRequestError),
        ("rate", MediaRateLimitError),
        ("concurrency", (MediaConcurrencyError, MediaRateLimitError)),
    ],
)
def test_a_certain_refusal_leaves_nothing_behind(
    place: Place, sim: Simulator, clock: Clock, word: str, error: type[MediaTaskError]
) -> None:
    """No record and no payment, and nobody asks what became of it."""
    place.arguments["prompt"] += f" [sim:reject={word}*1]"
    with pytest.raises(error):
        place.run()
    assert (place.store.value, sim.ledger(), clock.slept) == (None, [], 0)
    assert sum(sim.requests().values()) == 1
    place.run()
    assert len(sim.ledger()) == 1


def test_a_provider_that_nobody_reaches_is_no_unknown_outcome(connect: Connect, clock: Clock) -> None:
    """A connection that was never established carried nothing: no record and no question."""
    place = Place("kling", connect("kling", host="http://127.0.0.1:9"))
    with pytest.raises(MediaProviderError, match="cannot be reached"):
        place.run()
    assert (place.store.value, clock.slept) == (None, 0)


# A request that changed, and a clear.


def test_another_request_is_another_submission(
    place: Place, sim: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """A retry whose rendered request is new pays for it, says so, and ends the old one if it can be."""
    caplog.set_level(logging.INFO)
    first = place.run()
    place.arguments["prompt"] = "a wolf [sim:seconds=60]"
    second = place.run()
    assert second.id != first.id
    assert len(sim.ledger()) == 2
    assert f"not the one that was submitted before ({place.operation}, {first.id})" in caplog.text
    goes_on = f"cannot cancel {first.id}: it goes on" in caplog.text
    assert goes_on is (sim.tasks()[0]["status"] != "cancelled")
    assert goes_on is not get_media_hook(place.media_conn_id).can_cancel
    assert place.run().id == second.id
    assert len(sim.ledger()) == 2


def test_the_old_task_is_cancelled_where_that_is_possible(
    vap: Place, sim: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A provider that can cancel is told to; its refusal is logged and stops nothing."""

    def cancel(self: VapHook, media_task_id: str) -> Conversation[MediaTask]:
        yield Request("DELETE", f"/v3/tasks/{media_task_id}")
        return MediaTask(media_task_id, TaskStatus.CANCELLED)

    monkeypatch.setattr(VapHook, "can_cancel", True)
    monkeypatch.setattr(VapHook, "_cancel_task", cancel)
    first = vap.run()
    vap.run(prompt="a wolf")
    assert sim.requests()[f"DELETE /vap/v3/tasks/{first.id}"] == 1
    assert f"{first.id} could not be cancelled" in caplog.text
    assert len(sim.ledger()) == 2


def test_a_clear_adopts_what_still_runs(
    place: Place, sim: Simulator, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A cleared task waits for the same one, says so, and its next retry knows it as its own."""
    caplog.set_level(logging.INFO)
    first = place.run()
    place.clear()
    assert place.run().id == first.id
    assert place.store.value["generation"] == 2
    assert "waiting for it, submitting nothing" in caplog.text
    clock.sleep(61)
    again = place.run()
    assert (again.id, again.status) == (first.id, TaskStatus.SUCCEEDED)
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize("ending", ["", " [sim:fail=provider]", " [sim:fail=moderation]"])
@pytest.mark.parametrize("is_finished", [True, False], ids=["seen", "unseen"])
def test_a_clear_of_what_has_ended_makes_a_new_one(
    place: Place, sim: Simulator, clock: Clock, ending: str, is_finished: bool
) -> None:
    """Clearing means "make me a new one", whether or not Airflow had seen the end."""
    place.arguments["prompt"] += ending
    first = place.run()
    clock.sleep(61)
    if is_finished:
        finish(place.context, get_media_hook(place.media_conn_id).get_task(first.id))
    place.clear()
    second = place.run()
    assert second.id != first.id
    assert (place.store.value["generation"], place.store.value["number"]) == (2, 1)
    assert len(sim.ledger()) == 2


def test_a_clear_of_what_is_known_to_have_ended_asks_nobody(
    place: Place, sim: Simulator, clock: Clock
) -> None:
    """The provider may have forgotten the old task since; a new one is made all the same."""
    place.run()
    clock.sleep(61)
    finish(place.context, place.run())
    place.clear()
    asked = sum(sim.requests().values())
    sim.fault("not_found", on="read")
    place.run()
    assert sum(sim.requests().values()) == asked + 1
    assert len(sim.ledger()) == 2


def test_a_clear_does_not_forget_an_open_question(place: Place, sim: Simulator) -> None:
    """Clearing a task whose submission nobody knows about first asks about it."""
    place.run_and_die("before_result")
    place.clear()
    task = place.run()
    (paid,) = sim.ledger()
    assert task.id.endswith(own_id(paid))
    assert place.store.value["generation"] == 2
