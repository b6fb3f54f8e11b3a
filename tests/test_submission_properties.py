"""The protocol of one paid submission through random interleavings of everything that can happen to it.

The machine below knows what was really paid; the protocol knows only its record and what a provider tells.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from airflow.sdk import Context
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from typing_extensions import Self

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.submissions import answers, records, submission
from airflow_media_tasks.submissions.records import SUBMISSIONS, Entries
from airflow_media_tasks.submissions.submission import Submission, finish, once
from airflow_media_tasks.task import (
    MediaConcurrencyError,
    MediaModerationError,
    MediaNotFoundError,
    MediaProviderError,
    MediaTask,
    MediaTaskError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)
from airflow_media_tasks.wire.conversations import TOO_LATE
from airflow_media_tasks.wire.operations import Operation


SIBLING = "somebody else's"
CONNECTING, SHOWING = 10.0, 30.0
"""Seconds that a submission may need to arrive, and an accepted task to be shown, at the most."""

log = logging.getLogger(__name__)
log.setLevel(logging.ERROR)


class Killed(BaseException):
    """The worker is gone."""


class Replaced(Exception):
    """Airflow refuses the write of a worker that it has replaced."""


@dataclass
class Accepted:
    """A submission that the provider accepted and bills.

    :param generation: of the try that sent it, or the last that adopted it.
    :param is_given_up: a person has decided that it does not count, or wants to pay twice rather than wait.
    """

    id: str
    client_ref: str
    generation: int
    created: float
    shown: float
    status: TaskStatus = TaskStatus.RUNNING
    error: MediaTaskError | None = None
    is_given_up: bool = False

    def as_task(self) -> MediaTask:
        """What the provider says of it."""
        when = datetime.fromtimestamp(self.created, timezone.utc)
        return MediaTask(
            self.id,
            self.status,
            error=self.error,
            created_at=when,
            raw={"prompt": "a fox", "mark": self.client_ref},
        )


@dataclass
class Plan:
    """What happens to one try.

    :param dies: at which moment its worker is killed, or None.
    :param reply: what becomes of the POST: answered, its reply lost, the request lost, refused for certain.
    :param travels: seconds that the POST needs to arrive.
    :param hides: seconds for which the provider does not show what it accepted.
    :param is_read: whether the provider answers questions.
    :param is_overtaken: at which moment this worker is taken for dead, and another runs the whole of its
        task before it goes on, or None.
    """

    dies: str | None = None
    reply: str = "answered"
    travels: float = 0.0
    hides: float = 0.0
    is_read: bool = True
    is_overtaken: str | None = None


MOMENTS = ("before intent", "between the homes", "before POST", "after POST", "while asking")
PLANS = st.builds(
    Plan,
    dies=st.sampled_from([None, None, *MOMENTS, "after all"]),
    reply=st.sampled_from(["answered", "answered", "reply lost", "request lost", "refused"]),
    travels=st.sampled_from([0.0, CONNECTING]),
    hides=st.sampled_from([0.0, SHOWING - 1]),
    is_read=st.sampled_from([True, True, False]),
    is_overtaken=st.sampled_from([None, None, None, *MOMENTS]),
)


@dataclass
class World:
    """What really is, and the submission's clock.

    :param shows: what the provider's answers tell apart: `marks` (it can be asked for ours), `requests` (a
        list shows what was asked for), `nothing` (a list shows too little).
    """

    shows: str = "marks"
    now: float = 1_700_000_000.0
    accepted: list[Accepted] = field(default_factory=list)

    def time(self) -> float:
        """Unix seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Lets the time pass."""
        assert seconds >= 0
        self.now += seconds

    def accepts(self, client_ref: str, generation: int, hides: float) -> Accepted:
        """A new task, which is billed."""
        number = len(self.accepted)
        self.accepted.append(Accepted(f"task-{number}", client_ref, generation, self.now, self.now + hides))
        return self.accepted[-1]


class Hook:
    """One worker's hook: what `Submission` uses of a `MediaHook`, with a provider that is a `World`."""

    conn_type: ClassVar[str] = "model"
    media_conn_id: ClassVar[str] = "model_default"
    can_cancel: ClassVar[bool] = False
    operations: ClassVar = {"text_to_video": Operation("video", "/videos")}

    def __init__(self, machine: Protocol, plan: Plan) -> None:
        self.machine = machine
        self.plan = plan
        self.send_before: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def check_id(self, media_task_id: str) -> str:
        """Any id is of the right form."""
        return media_task_id

    def mark_of(self, task: MediaTask) -> str | None:
        """The mark that the provider shows of a task, where it shows any."""
        return task.raw["mark"] if self.machine.world.shows == "marks" else None

    def submit(
        self,
        operation: str,
        arguments: Mapping[str, Any],
        client_ref: str,
        handed: Mapping[str, str],
    ) -> MediaTask:
        """As `MediaHook.submit`: not sent when it is too late, unknown when the answer does not arrive."""
        machine, world = self.machine, self.machine.world
        machine.happens(self, "before POST")
        if self.send_before is not None and world.now > self.send_before:
            raise MediaProviderError("too late", code=TOO_LATE)
        world.now += self.plan.travels
        if self.plan.reply == "refused":
            raise MediaConcurrencyError("no room")
        if self.plan.reply == "request lost":
            raise SubmissionOutcomeUnknown("the request was lost")
        machine.pays(client_ref)
        new = world.accepts(client_ref, machine.generation, self.plan.hides)
        machine.happens(self, "after POST")
        if self.plan.reply == "reply lost":
            raise SubmissionOutcomeUnknown("the reply was lost")
        return new.as_task()

    def get_task(self, media_task_id: str) -> MediaTask:
        """As `MediaHook.get_task`."""
        found = [task for task in self.shown() if task.id == media_task_id]
        if not found:
            raise MediaNotFoundError("no such task")
        return found[0].as_task()

    def find_tasks(
        self,
        *,
        client_ref: str | None = None,
        submitted_after: datetime | None = None,
        operation: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        traces: Mapping[str, str] | None = None,
    ) -> list[MediaTask]:
        """As `MediaHook.find_tasks`, by what this provider shows."""
        if client_ref is not None:
            self.machine.happens(self, "while asking")
        since = 0.0 if submitted_after is None else submitted_after.timestamp()
        found = [task for task in self.shown() if task.created >= since]
        if client_ref is not None and self.machine.world.shows == "marks":
            found = [task for task in found if task.client_ref == client_ref]
        if client_ref is not None and self.machine.world.shows == "nothing":
            raise SubmissionOutcomeUnknown("the list does not show enough")
        return [task.as_task() for task in found]

    def shown(self) -> list[Accepted]:
        """What the provider shows now, if it answers."""
        if not self.plan.is_read:
            raise MediaProviderError("503")
        return [task for task in self.machine.world.accepted if task.shown <= self.machine.world.now]


class Worker:
    """One worker's view of the task state store."""

    def __init__(self, machine: Protocol, hook: Hook) -> None:
        self.machine = machine
        self.hook = hook
        self.is_stale = False

    def get(self, key: str) -> Any:
        """What is written; nothing for a worker that was replaced."""
        if key != records.KEY:
            return self.machine.answers.get(key)
        return None if self.is_stale else json.loads(json.dumps(self.machine.stored))

    def set(self, key: str, value: Any, *, retention: object) -> None:
        """Writes, unless Airflow has replaced this worker."""
        assert key == records.KEY
        if value["phase"] == "intent" and "asked_at" not in value:
            self.machine.happens(self.hook, "before intent")
        if self.is_stale:
            raise Replaced
        self.machine.stored = json.loads(json.dumps(value))
        for task in self.machine.world.accepted:
            if task.id == value.get("media_task_id"):
                task.generation = value["generation"]
                self.machine.known.add(task.id)
        self.machine.happens(self.hook, "between the homes")

    def delete(self, key: str) -> None:
        """Forgets, as above."""
        if self.is_stale:
            raise Replaced
        self.machine.stored = None


class Shared(dict[str, Any]):
    """The asset's state store, which refuses nobody."""

    def set(self, key: str, value: Any) -> None:
        """Keeps what JSON can keep."""
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        """Forgets the key, if it is there."""
        self.pop(key, None)


class Protocol(RuleBasedStateMachine):
    """One task instance, its workers, its provider, and the person in front of it."""

    on_unknown: ClassVar[str] = "stop"

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.stored: Any = None
        self.answers: dict[str, Any] = {}
        self.references: set[str] = set()
        self.page: Any = None
        self.shared = Shared()
        self.generation = 1
        self.try_number = 0
        self.workers: list[Worker] = []
        self.known: set[str] = set()
        self.patch = pytest.MonkeyPatch()
        for module in (records, submission):
            self.patch.setattr(module, "time", self.world)

    def teardown(self) -> None:
        """Whatever happened, undisturbed tries end: in a task, or in the question where nobody can know."""
        outcome: object = None
        try:
            for _ in range(3):
                outcome = self._try(Plan())
                if isinstance(outcome, MediaTask):
                    break
            may_ask = self.on_unknown == "stop" and self.world.shows == "nothing"
            assert isinstance(outcome, MediaTask) or (
                may_ask and isinstance(outcome, SubmissionOutcomeUnknown)
            ), outcome
        finally:
            self.patch.undo()

    @property
    def may_pay_twice(self) -> bool:
        """Whether a new submission was asked for when nobody can know about the one before."""
        return self.on_unknown == "resubmit" and self.world.shows == "nothing"

    # What the model's provider and store report.

    def happens(self, hook: Hook, moment: str) -> None:
        """A worker has come to *moment*: perhaps it is overtaken, perhaps it dies."""
        if hook.plan.is_overtaken == moment:
            for worker in self.workers:
                worker.is_stale = worker.is_stale or worker.hook is hook
            self._try(Plan())
        if hook.plan.dies == moment:
            raise Killed

    def pays(self, client_ref: str) -> None:
        """The invariants that hold at the moment of every payment."""
        for earlier in self.world.accepted:
            if earlier.is_given_up or earlier.client_ref == SIBLING:
                continue
            if self.may_pay_twice and earlier.id not in self.known:
                continue
            assert earlier.status.is_terminal, f"paid while {earlier.id} is running"
            if earlier.generation == self.generation:
                assert isinstance(earlier.error, MediaTaskFailed), f"paid twice: {earlier.id} is there"
            assert earlier.client_ref != client_ref
        assert client_ref not in self.references, "a reference was used twice"
        self.references.add(client_ref)

    # What can happen.

    @initialize(shows=st.sampled_from(["marks", "requests", "nothing"]))
    def choose_provider(self, shows: str) -> None:
        """Providers differ in what they show."""
        self.world.shows = shows

    @rule(plan=PLANS)
    def try_(self, plan: Plan) -> None:
        """Airflow runs the task, or runs it again."""
        made = [
            task.id
            for task in self.world.accepted
            if task.status is TaskStatus.SUCCEEDED
            and task.generation == self.generation
            and not task.is_given_up
            and (not self.may_pay_twice or task.id in self.known)
        ]
        cleared = [
            task.id
            for task in self.world.accepted
            if task.status.is_terminal and task.generation != self.generation
        ]
        phase = self.stored and self.stored["phase"]
        outcome = self._try(plan)
        if isinstance(outcome, SubmissionOutcomeUnknown):
            assert "airflow media-tasks adopt d r t MEDIA_TASK_ID" in outcome.message
            assert "airflow media-tasks resubmit d r t" in outcome.message
        if isinstance(outcome, MediaTask):
            if phase in ("submitted", "finished") and outcome.status.is_terminal:
                assert outcome.id not in cleared, "a clear made nothing new"
            assert self.stored["media_task_id"] == outcome.id
            assert outcome.id not in [task.id for task in self.world.accepted if task.client_ref == SIBLING]
            assert not made or outcome.id in made, "a paid success is lost"

    @rule(
        index=st.integers(0, 20),
        ending=st.sampled_from(["succeeded", "failed", "refused"]),
        seen=st.booleans(),
    )
    @precondition(lambda self: any(not task.status.is_terminal for task in self.world.accepted))
    def provider_ends_a_task(self, index: int, ending: str, seen: bool) -> None:
        """A task succeeds, fails, or is withheld by moderation; and perhaps the operator is told."""
        running = [task for task in self.world.accepted if not task.status.is_terminal]
        task = running[index % len(running)]
        task.status = TaskStatus.SUCCEEDED if ending == "succeeded" else TaskStatus.FAILED
        if ending != "succeeded":
            task.error = (MediaTaskFailed if ending == "failed" else MediaModerationError)("ended")
        if seen and self.stored and self.stored["phase"] == "submitted":
            finish(self._context(Worker(self, Hook(self, Plan()))), task.as_task())

    @rule()
    @precondition(lambda self: self.world.shows == "marks")
    def sibling_pays(self) -> None:
        """Another task instance submits the very same request to the same account."""
        self.world.accepts(SIBLING, 0, 0.0)

    @rule(discards=st.booleans())
    def clear(self, discards: bool) -> None:
        """Somebody clears the task; since Airflow 3.4 that discards its state, unless it says otherwise."""
        self.generation += 1
        if discards:
            self.stored, self.answers = None, {}

    @rule(seconds=st.sampled_from([1.0, 20.0, 60.0, 4000.0]))
    def time_passes(self, seconds: float) -> None:
        """`retry_delay`, or a night."""
        self.world.now += seconds

    @rule()
    @precondition(lambda self: self.stored is not None)
    def look(self) -> None:
        """Somebody opens the page, and may answer what it shows much later."""
        self.page = self.stored

    @rule(index=st.integers(0, 20))
    @precondition(lambda self: self.page and self.world.accepted)
    def adopt(self, index: int) -> None:
        """A person answers with one of the account's tasks that the question shows."""
        chosen = self.world.accepted[index % len(self.world.accepted)]
        if chosen.client_ref != SIBLING and self._answer(chosen.id):
            self._give_up()
            chosen.is_given_up = False

    @rule()
    @precondition(lambda self: self.page)
    def resubmit(self) -> None:
        """A person answers with "anew"."""
        if self._answer(None):
            self._give_up()

    def _give_up(self) -> None:
        """What the person saw on the page does not count any more; what was submitted later does."""
        for task in self.world.accepted:
            task.is_given_up = task.is_given_up or task.client_ref == self.page["client_ref"]

    def _answer(self, media_task_id: str | None) -> bool:
        """What gallery and command do, from a page that may be old; whether the answer was taken."""
        before = json.dumps(self.stored)
        try:
            reference = answers.reference_of("failed", self.stored, self.page["client_ref"])
            key = answers.key_of(reference)
            answer = answers.answer(self.answers.get(key), self.stored, media_task_id)
        except answers.NotAnswerable:
            return False
        self.answers[key] = json.loads(json.dumps(answer.to_dict()))
        assert json.dumps(self.stored) == before
        return True

    @invariant()
    def the_record_can_be_read(self) -> None:
        """Whatever happened, what is written down makes sense."""
        Entries(self._context(Worker(self, Hook(self, Plan())))).load()

    def _context(self, worker: Worker) -> Context:
        ti = SimpleNamespace(
            dag_id="d",
            run_id="r",
            task_id="t",
            map_index=-1,
            max_tries=self.generation,
            try_number=self.try_number,
        )
        stores = {"task_state_store": worker, "asset_state_store": {SUBMISSIONS: self.shared}}
        return cast("Context", {"ti": ti, **stores})

    def _try(self, plan: Plan) -> object:
        """One try: its task, its typed error or the question; None if its worker was killed or replaced."""
        hook = Hook(self, plan)
        worker = Worker(self, hook)
        self.workers.append(worker)
        self.world.now += 1
        self.try_number += 1
        todo = Submission(
            cast("MediaHook", hook),
            "text_to_video",
            {"prompt": "a fox"},
            self.generation,
            self.on_unknown,
            log,
        )
        try:
            _, task = once(todo, self._context(worker))
        except SubmissionOutcomeUnknown as question:
            assert self.stored["asked_at"]
            return question
        except MediaTaskError as error:
            return error
        except Killed:
            return None
        except Replaced:
            assert worker.is_stale
            return None
        return None if plan.dies == "after all" else task


class ProtocolThatResubmits(Protocol):
    """The same for who prefers paying twice to stopping."""

    on_unknown = "resubmit"


@pytest.mark.parametrize("machine", [Protocol, ProtocolThatResubmits])
def test_nothing_is_paid_twice_and_no_success_is_lost(machine: type[Protocol]) -> None:
    """Through random interleavings of crash, loss, outage, retry, clear, zombies and a person's answers.

    Never a payment while an earlier one of the same request runs, never two in one generation unless the
    earlier failed by itself, a person chose it or `resubmit` was asked for; a success is what a retry
    returns; and every try ends in a task, a typed error or the question.
    """
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=250,
            stateful_step_count=25,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
