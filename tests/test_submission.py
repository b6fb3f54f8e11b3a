"""The protocol of one paid submission, against the simulator over real HTTP: its ledger says what was paid."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_media_tasks import submission
from airflow_media_tasks.hooks import conversations
from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.hooks.conversations import Conversation, ConversationHook, Request
from airflow_media_tasks.hooks.vap import VapHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submission import KEY, LEASE, SETTLE, Record, Submission, finish
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
    SubmissionOutcomeUnknown,
    TaskStatus,
)


Connect = Callable[..., str]

PROVIDERS = ("vap", "acedata", "kling")
OPERATION = {"vap": "text_to_video", "acedata": "veo/text_to_video", "kling": "text_to_video"}

log = logging.getLogger(__name__)


class Killed(BaseException):
    """The worker is gone."""


class Store:
    """A task state store in memory, and what can happen to the worker that writes to it.

    :param after_intent: called when an intent has been written and nothing has been sent yet.
    :param before_result: called when the provider has answered and nothing of it has been written yet.
    :param is_stale: Airflow has replaced this worker: it reads nothing and its writes are refused.
    """

    def __init__(self) -> None:
        self.value: Any = None
        self.after_intent: Callable[[], None] = lambda: None
        self.before_result: Callable[[], None] = lambda: None
        self.is_stale = False
        self.writes = 0

    def get(self, key: str) -> Any:
        """What was written, as JSON has it; a worker that was replaced is told that there is nothing."""
        assert key == KEY
        return None if self.is_stale else json.loads(json.dumps(self.value))

    def set(self, key: str, value: Any, *, retention: object = None) -> None:
        """Writes, and lets happen what is to happen."""
        assert (key, retention) == (KEY, submission.NEVER_EXPIRE)
        if value["phase"] != "intent":
            self.before_result()
        self._write(value)
        if value["phase"] == "intent":
            self.after_intent()

    def delete(self, key: str) -> None:
        """Forgets the record."""
        assert key == KEY
        self._write(None)

    def _write(self, value: Any) -> None:
        if self.is_stale:
            raise AirflowRuntimeError(
                ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 404})
            )
        self.value = json.loads(json.dumps(value))
        self.writes += 1


class Clock:
    """The submission's clock: it sleeps in no time, and takes the simulator's along."""

    def __init__(self, simulator: Simulator) -> None:
        self.slept = 0.0
        self._simulator = simulator
        self._lock = threading.Lock()

    def time(self) -> float:
        """Unix seconds."""
        return time.time() + self.slept

    def sleep(self, seconds: float) -> None:
        """Lets the time pass, here and at the provider."""
        with self._lock:
            self.slept += seconds
            self._simulator.advance(seconds)


class Place:
    """One task instance, whose tries can be run one after the other."""

    def __init__(self, conn_type: str, media_conn_id: str, map_index: int = -1) -> None:
        self.store = Store()
        self.media_conn_id = media_conn_id
        self.operation = OPERATION[conn_type]
        self.arguments: dict[str, Any] = {"prompt": "a fox [sim:queued=0] [sim:seconds=60]"}
        self.on_unknown = "stop"
        self.ti = SimpleNamespace(
            dag_id="films", run_id="manual__1", task_id="video", map_index=map_index, max_tries=1
        )

    @property
    def context(self) -> Context:
        """What `Submission` uses of a context."""
        return cast("Context", {"ti": self.ti, "task_state_store": self.store})

    @property
    def record(self) -> Record | None:
        """What is written down."""
        return Record.load(self.context)

    def run(self, **arguments: Any) -> MediaTask:
        """One try, up to where it would wait."""
        hook = get_media_hook(self.media_conn_id)
        name, checked = hook.check(self.operation, {**self.arguments, **arguments})
        return Submission(hook, name, checked, self.context, self.on_unknown, log).once()

    def run_and_die(self, moment: str) -> None:
        """A try whose worker is killed at *moment*, a hook of `Store`."""
        setattr(self.store, moment, die)
        with pytest.raises(Killed):
            self.run()
        setattr(self.store, moment, lambda: None)

    def clear(self) -> None:
        """What Airflow does to `max_tries` when somebody clears the task."""
        self.ti.max_tries += 1

    def decide(self, **change: Any) -> None:
        """What the command line writes."""
        self.store.value.update(change)


def die() -> None:
    """Ends the worker."""
    raise Killed


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulator of this test's own, whose clock nobody has moved."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def clock(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Nothing really sleeps."""
    clock = Clock(sim)
    monkeypatch.setattr(submission, "time", clock)
    monkeypatch.setattr(ConversationHook, "retry_wait", 0.0)
    return clock


@pytest.fixture(params=PROVIDERS)
def place(request: pytest.FixtureRequest, connect: Connect) -> Place:
    """A task instance of each provider."""
    return Place(request.param, connect(request.param))


@pytest.fixture
def vap(connect: Connect) -> Place:
    """A task instance of VAP, which takes no mark of ours."""
    return Place("vap", connect("vap"))


def own_id(entry: dict[str, Any]) -> str:
    """The provider's id of a ledger's entry."""
    return str(entry["id"])


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
    """ "Not found" of a task that was accepted is no reason to submit another."""
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
    """It is told that there is no record, its intent is refused, and so it does not get as far as the POST."""
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
    """A retry whose rendered request is new pays for it, and says so, and that the old one goes on."""
    caplog.set_level(logging.INFO)
    first = place.run()
    place.arguments["prompt"] = "a wolf [sim:seconds=60]"
    second = place.run()
    assert second.id != first.id
    assert len(sim.ledger()) == 2
    assert f"not the one that was submitted before ({place.operation}, {first.id})" in caplog.text
    assert f"cannot cancel {first.id}: it goes on" in caplog.text
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


# A question, and its answers.


def both_commands(place: str) -> list[str]:
    """The two ways out."""
    return [f"airflow media-tasks adopt {place} MEDIA_TASK_ID", f"airflow media-tasks resubmit {place}"]


@pytest.mark.parametrize("moment", ["after_intent", "before_result"])
@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("remove_background", {"image_url": "https://cdn.example/a.png"}),
        ("run_preset", {"preset": "video.basic", "prompt": "a fox [sim:seconds=0]"}),
    ],
)
def test_what_the_provider_does_not_list_is_a_question(
    vap: Place, sim: Simulator, operation: str, arguments: dict[str, Any], moment: str
) -> None:
    """VAP's operations and presets cannot be asked for: every try stops, and nothing is paid again."""
    vap.operation, vap.arguments = operation, arguments
    vap.run_and_die(moment)
    paid = len(sim.ledger())
    assert paid == (moment == "before_result")
    for _ in range(2):
        with pytest.raises(SubmissionOutcomeUnknown) as question:
            vap.run()
        assert all(command in str(question.value) for command in both_commands("films manual__1 video"))
        assert "the provider lists no task since then" in str(question.value)
    assert len(sim.ledger()) == paid
    assert vap.store.value["phase"] == "intent"


def test_a_lost_reply_of_what_is_not_listed_is_a_question(vap: Place, sim: Simulator) -> None:
    """The first try stops already; it says what was sent and what came back."""
    vap.operation, vap.arguments = "upscale_image", {"image_url": "https://cdn.example/a.png"}
    sim.fault("lose_reply", count=1)
    with pytest.raises(SubmissionOutcomeUnknown, match="does not show enough to tell"):
        vap.run()
    assert len(sim.ledger()) == 1


def test_two_equal_tasks_are_a_question_that_names_both(
    connect: Connect, sim: Simulator, clock: Clock
) -> None:
    """VAP keeps no mark: a sibling's equal request made since is a second candidate, and both are shown."""
    connect("vap")
    places = [Place("vap", "vap_default", map_index) for map_index in (3, 4)]
    for place in places:
        place.run_and_die("before_result")
    with pytest.raises(SubmissionOutcomeUnknown) as question:
        places[0].run()
    text = str(question.value)
    assert "2 tasks with this very request were made since" in text
    for entry in sim.ledger():
        (line,) = (line for line in text.splitlines() if own_id(entry) in line)
        assert "a fox" in line
        assert "running" in line or "queued" in line
        assert datetime.fromtimestamp(entry["at"]).astimezone().strftime(":%M:%S") in line
    assert all(command in text for command in both_commands("films manual__1 video --map-index 3")), text
    assert len(sim.ledger()) == 2


def finished_video(place: Place, clock: Clock) -> str:
    """The provider's id of a video that is there to be extended."""
    place.run()
    clock.sleep(61)
    made = place.run()
    assert made.files[0].id
    return made.files[0].id


def test_equal_extensions_at_kling_are_a_question(connect: Connect, sim: Simulator, clock: Clock) -> None:
    """Kling takes no mark with an extension: two of one parent cannot be told apart."""
    connect("kling")
    parent = finished_video(Place("kling", "kling_default"), clock)
    places = [Place("kling", "kling_default", map_index) for map_index in (0, 1)]
    for place in places:
        place.operation = "extend_video"
        place.arguments = {"video_id": parent, "prompt": "further [sim:queued=0] [sim:seconds=60]"}
        place.run_and_die("before_result")
    clock.sleep(61)
    with pytest.raises(SubmissionOutcomeUnknown) as question:
        places[0].run()
    first, second = (own_id(entry) for entry in sim.ledger()[1:])
    assert f"videos/video-extend/{first}" in str(question.value)
    assert f"videos/video-extend/{second}" in str(question.value)
    assert len(sim.ledger()) == 3


def test_a_single_extension_at_kling_is_found_by_its_parent(
    connect: Connect, sim: Simulator, clock: Clock
) -> None:
    """A list shows the parent once the extension is made; until then nobody can tell."""
    connect("kling")
    parent = finished_video(Place("kling", "kling_default"), clock)
    place = Place("kling", "kling_default")
    place.operation = "extend_video"
    place.arguments = {"video_id": parent, "prompt": "further [sim:queued=0] [sim:seconds=600]"}
    place.run_and_die("before_result")
    with pytest.raises(SubmissionOutcomeUnknown, match="airflow media-tasks adopt"):
        place.run()
    clock.sleep(600)
    task = place.run()
    assert (task.id, task.status) == (
        f"videos/video-extend/{own_id(sim.ledger()[1])}",
        TaskStatus.SUCCEEDED,
    )
    assert len(sim.ledger()) == 2


def test_who_prefers_paying_twice_is_not_asked(
    vap: Place, sim: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """With `resubmit` the try that lost its reply is one to retry, and the next one submits anew."""
    vap.operation, vap.arguments = "upscale_image", {"image_url": "https://cdn.example/a.png"}
    vap.on_unknown = "resubmit"
    sim.fault("lose_reply", count=1)
    with pytest.raises(MediaProviderError, match="may pay twice"):
        vap.run()
    task = vap.run()
    assert task.id == f"operations/{own_id(sim.ledger()[1])}"
    assert len(sim.ledger()) == 2
    assert "submitting anew as told, which may pay twice" in caplog.text


def test_who_prefers_paying_twice_pays_once_where_that_can_be_known(place: Place, sim: Simulator) -> None:
    """`resubmit` is for what nobody can know: what was accepted and is found is adopted."""
    place.on_unknown = "resubmit"
    place.run_and_die("before_result")
    place.run()
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize("cleared", [True, False], ids=["cleared", "retried"])
def test_an_adopted_task_is_the_result(vap: Place, sim: Simulator, clock: Clock, cleared: bool) -> None:
    """What a person says it became is waited for, and its success is kept though the task was cleared."""
    vap.operation, vap.arguments = "upscale_image", {"image_url": "https://cdn.example/a.png"}
    vap.run_and_die("before_result")
    (paid,) = sim.ledger()
    vap.decide(phase="adopted", media_task_id=f"operations/{own_id(paid)}")
    if cleared:
        vap.clear()
    clock.sleep(61)
    task = vap.run()
    assert (task.id, task.status) == (f"operations/{own_id(paid)}", TaskStatus.SUCCEEDED)
    finish(vap.context, task)
    assert vap.store.value["phase"] == "finished"
    assert len(sim.ledger()) == 1
    vap.clear()
    assert vap.run().id != task.id


def test_an_adopted_task_that_failed_is_submitted_again(place: Place, sim: Simulator, clock: Clock) -> None:
    """Adopting a failure is no dead end."""
    place.arguments["prompt"] += " [sim:fail=provider]"
    first = place.run()
    place.decide(phase="adopted")
    clock.sleep(61)
    place.clear()
    assert place.run().id != first.id
    assert len(sim.ledger()) == 2


def test_an_id_of_another_provider_is_not_adopted(vap: Place, sim: Simulator) -> None:
    """A slip of the hand is an error that says what an id looks like, and nothing is sent."""
    vap.run_and_die("after_intent")
    vap.decide(phase="adopted", media_task_id="videos/text2video/1")
    with pytest.raises(MediaRequestError, match="none of vap's"):
        vap.run()
    assert sim.ledger() == []


def test_an_abandoned_submission_is_made_anew(place: Place, sim: Simulator) -> None:
    """Who gave it up by hand pays again, once."""
    place.run_and_die("before_result")
    place.decide(phase="abandoned")
    task = place.run()
    assert task.id.endswith(own_id(sim.ledger()[1]))
    assert place.run().id == task.id
    assert len(sim.ledger()) == 2


# Marks, clocks and lists.


def test_two_hundred_equal_tasks_each_find_their_own(connect: Connect, sim: Simulator, clock: Clock) -> None:
    """AceData's replies are all lost; the mark in the echoed request tells equal siblings apart."""
    connect("acedata")
    places = [Place("acedata", "acedata_default", map_index) for map_index in range(200)]
    sim.fault("lose_reply", provider="acedata", on="submit")
    with ThreadPoolExecutor(8) as workers:
        found = list(workers.map(Place.run, places))
    ledger = sim.ledger()
    assert len(ledger) == 200
    for place, task in zip(places, found, strict=True):
        (paid,) = (entry for entry in ledger if place.store.value["client_ref"] in str(entry["client_ref"]))
        assert task.id == f"veo/{own_id(paid)}"
    assert clock.slept == 0


@pytest.mark.parametrize("offset", [-600, 600])
def test_a_provider_whose_clock_is_wrong_is_understood(
    place: Place, sim: Simulator, clock: Clock, offset: float
) -> None:
    """Ten minutes before or after ours: what was accepted is found, and what was not is known to be absent."""
    sim.fault("clock_skew", offset=offset)
    sim.fault("lose_reply", count=1)
    task = place.run()
    assert task.id.endswith(own_id(sim.ledger()[0]))
    clock.sleep(61)
    other = Place(place.media_conn_id.removesuffix("_default"), place.media_conn_id, 1)
    other.run_and_die("after_intent")
    assert other.run().id != task.id
    assert len(sim.ledger()) == 2


def test_an_equal_task_of_before_the_intent_is_not_taken(vap: Place, sim: Simulator, clock: Clock) -> None:
    """Where only the request can be compared, what was there before cannot have come from it."""
    vap.run()
    clock.sleep(10)
    other = Place("vap", vap.media_conn_id, 1)
    other.run_and_die("before_result")
    assert other.run().id == own_id(sim.ledger()[1])
    assert len(sim.ledger()) == 2


def test_a_list_that_does_not_reach_back_is_no_proof(vap: Place, sim: Simulator) -> None:
    """VAP shows its newest 50: with as many made since, an absent one may only be hidden."""
    vap.run_and_die("after_intent")
    hook = get_media_hook(vap.media_conn_id)
    with hook:
        for number in range(50):
            hook.submit("text_to_image", {"prompt": f"other {number}"})
    with pytest.raises(SubmissionOutcomeUnknown):
        vap.run()
    assert len(sim.ledger()) == 50


def test_names_of_ours_differ_by_everything_that_makes_a_submission() -> None:
    """Run, map index, generation and number each make another name; the worker does not."""
    fields = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 0, "max_tries": 1}

    def ref(number: int = 1, **change: Any) -> str:
        ti = SimpleNamespace(**{**fields, **change})
        return submission.client_ref(cast("Context", {"ti": ti}), number)

    assert ref() == ref()
    others = [
        ref(2),
        ref(dag_id="e"),
        ref(run_id="s"),
        ref(task_id="u"),
        ref(map_index=1),
        ref(max_tries=2),
    ]
    assert len({ref(), *others}) == 7
    assert len(ref()) <= 40


# The record.


def test_a_result_that_cannot_be_asked_for_again_is_kept(vap: Place, sim: Simulator) -> None:
    """A preset answers with what it made and has no address: a retry returns that, without a question."""
    vap.operation = "run_preset"
    vap.arguments = {"preset": "video.basic", "prompt": "a fox [sim:seconds=0]"}
    task = vap.run()
    assert task.status is TaskStatus.SUCCEEDED
    asked = sum(sim.requests().values())
    again = vap.run()
    assert (again.id, again.url, again.status) == (task.id, task.url, TaskStatus.SUCCEEDED)
    assert sum(sim.requests().values()) == asked
    assert len(sim.ledger()) == 1


SOUND = {
    "phase": "submitted",
    "generation": 1,
    "number": 1,
    "fingerprint": "f",
    "client_ref": "amt-1",
    "submitted_after": "2026-11-20T10:00:00+00:00",
    "media_conn_id": "vap_default",
    "operation": "text_to_image",
    "media_task_id": "abc",
}


@pytest.mark.parametrize(
    "stored",
    [
        "a text",
        7,
        [],
        {},
        {**SOUND, "phase": "exploded"},
        {**SOUND, "phase": None},
        {**SOUND, "generation": "1"},
        {**SOUND, "number": None},
        {**SOUND, "client_ref": 5},
        {**SOUND, "submitted_after": "yesterday"},
        {**SOUND, "result": {"id": "abc", "status": "nonsense"}},
        {name: value for name, value in SOUND.items() if name != "media_task_id"},
        {name: value for name, value in SOUND.items() if name != "fingerprint"},
    ],
    ids=lambda stored: json.dumps(stored)[:40],
)
def test_a_record_that_cannot_be_read_is_not_an_absent_one(vap: Place, sim: Simulator, stored: Any) -> None:
    """Nothing is asked, nothing is sent, nothing is overwritten; the error shows what is stored."""
    vap.store.value = stored
    with pytest.raises(MediaTaskError, match="cannot be read, so nothing is submitted"):
        vap.run()
    assert (sim.requests(), vap.store.value) == ({}, stored)


def test_only_the_task_that_is_recorded_can_be_finished(vap: Place) -> None:
    """The end of another task, or of the same one a second time, changes nothing."""
    task = vap.run()
    finish(vap.context, MediaTask("another", TaskStatus.SUCCEEDED))
    assert vap.store.value["phase"] == "submitted"
    finish(vap.context, task)
    writes = vap.store.writes
    finish(vap.context, task)
    assert (vap.store.value["phase"], vap.store.writes) == ("finished", writes)
