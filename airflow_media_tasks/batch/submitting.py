"""Requests of a batch are sent: their intents are written together, and each is sent once."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from airflow_media_tasks.batch.batch import THREADS, Batch, Stand
from airflow_media_tasks.batch.requests import Request
from airflow_media_tasks.batch.settling import Settling
from airflow_media_tasks.submissions import metrics
from airflow_media_tasks.submissions.answers import Answer
from airflow_media_tasks.submissions.records import KEY_LENGTH, PAGE, Place, Record, now
from airflow_media_tasks.submissions.submission import LEASE, Submission, Unsettled, answer_to, resubmitted
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaConcurrencyError,
    MediaFundsError,
    MediaProviderError,
    MediaRateLimitError,
    MediaTask,
    MediaTaskError,
    SubmissionOutcomeUnknown,
)
from airflow_media_tasks.triggers import Turn
from airflow_media_tasks.wire.conversations import TOO_LATE


FIRST_GROUP = 2 * THREADS
"""Requests whose intents are written together, until it is known how long the provider takes for one."""
_STOPS_ALL = (MediaRateLimitError, MediaConcurrencyError, MediaAuthError, MediaFundsError)


class Submitting:
    """Sends requests of a *batch*, each once.

    :param settling: for what has ended as soon as it is submitted.
    """

    def __init__(self, batch: Batch, settling: Settling) -> None:
        self.batch, self.settling = batch, settling
        self.exhausted: MediaTaskError | None = None
        """What keeps this worker from submitting more: what is under way may yet turn out cheaper."""
        self.refusal: MediaTaskError | None = None
        """What the provider said when it had no room."""
        self._group = FIRST_GROUP

    def submit(self) -> float | None:
        """Submits what is left, as far as there is room.

        :return: unix seconds at which to try again where the provider has no room, else None.
        """
        state, before = self.batch.state, self.batch.handled
        self._forget_what_stopped_us()
        with self.batch.hook, ThreadPoolExecutor(THREADS, thread_name_prefix="submission") as pool:
            while not self._has_to_stop and (group := self._next_group()):
                self._submit_group(pool, group)
        if self.exhausted is not None and not state.waiting and self.batch.handled == before:
            # Nothing is under way that could turn out cheaper than was expected.
            self.batch.log.warning("%s", self.exhausted)
            self.batch.stopped_by = self.exhausted
        until = None if self.refusal is None or self.batch.stopped_by else self._next_turn(self.refusal)
        self.batch.write()
        if state.waiting:
            self.batch.log.info(
                "%d requests under way, %d yet to come", state.waiting, state.total - self.batch.handled
            )
        return until

    def _forget_what_stopped_us(self) -> None:
        self.refusal = self.exhausted = None

    @property
    def _has_to_stop(self) -> bool:
        return any((self.batch.stopped_by, self.refusal, self.exhausted))

    def _next_group(self) -> list[int]:
        """The numbers of the requests that are submitted together: as many as will leave within the lease."""
        state = self.batch.state
        room = self._group
        if self.batch.operator.concurrency is not None:
            room = min(room, max(self.batch.operator.concurrency - state.waiting, 0))
        group = state.again[:room]
        del state.again[:room]
        while len(group) < room and state.next < state.total:
            if state.next % PAGE == 0 and len(group) > room // 2:
                break  # Each page costs calls.
            if self.batch.stand(self.batch.pages[state.next]) is Stand.LEFT:
                group.append(state.next)
            state.next += 1
        return group

    def _submit_group(self, pool: ThreadPoolExecutor, group: list[int]) -> None:
        jobs = {}
        for request in self.batch.requests.some(self.batch.pages.keys(group)):
            record = self.batch.pages[request.number]
            answer = None if record is None else answer_to(self.batch.entries, record)
            submission = Submission(
                self.batch.hook,
                request.operation,
                request.arguments,
                self.batch.generation,
                self.batch.operator.on_unknown_submission,
                self.batch.log,
                self.batch.materials,
            )
            if record is not None:
                # A result that nobody can be asked for again stands beside the record.
                record = dataclasses.replace(record, result=self.batch.pages.result(record))
            job = _Job(request, submission, record, answer)
            if request.error is None:
                jobs[request.number] = job
            else:
                self._not_submitted(job, request.error)
        for job, outcome in self._all_of(pool, _Job.recall, [job for job in jobs.values() if job.before]):
            if outcome is not None:
                self._note(job, outcome)
                del jobs[job.request.number]
        todo = [jobs[number] for number in group if number in jobs]
        if not all(self.batch.hook.can_be_asked(job.request.operation) for job in todo):
            # A dead worker leaves no more questions than there are senders.
            self.batch.state.again[:0] = [job.request.number for job in todo[THREADS:]]
            todo = todo[:THREADS]
        ready = [job for job in self._handed_over(pool, todo) if self._reserve(job)]
        if not ready:
            return
        reserved = self.batch.guards.committed
        began = time.time()
        self.batch.hook.send_before = began + LEASE
        self.batch.write(whole=False)
        try:
            for job, outcome in self._all_of(pool, _Job.send, ready):
                self._note(job, outcome)
        finally:
            self.batch.hook.send_before = None
        if self.batch.guards.committed < reserved:
            # The provider foretells less than the price table: there is room for more.
            self.exhausted = None
        each = max(time.time() - began, 0.001) / len(ready)
        self._group = min(max(int(0.8 * LEASE / each), THREADS), PAGE)

    def _handed_over(self, pool: ThreadPoolExecutor, jobs: Sequence[_Job]) -> list[_Job]:
        """Those of *jobs* whose files the provider can have; of the others it is noted why it cannot."""
        jobs = [job for job in jobs if not self._is_over_budget(job)]
        for job, error in self._all_of(pool, _Job.hand_over, jobs):
            if error is not None:
                self._note(job, error)
        return [job for job in jobs if job.is_handed_over]

    def _all_of(
        self, pool: ThreadPoolExecutor, do: Callable[[_Job], Any], jobs: Sequence[_Job]
    ) -> Iterator[tuple[_Job, Any]]:
        """Each job with its outcome, as they come; what has not begun when one stops them all, never does."""
        stop = threading.Event()
        under_way = {pool.submit(job.done, do, stop): job for job in jobs}
        for done in as_completed(under_way):
            yield under_way[done], done.result()

    def _is_over_budget(self, job: _Job) -> bool:
        """Whether a guard has stopped the batch: then the job waits for another time."""
        if self.exhausted is None and self.batch.stopped_by is None:
            return False
        self.batch.state.again.append(job.request.number)
        return True

    def _reserve(self, job: _Job) -> bool:
        """Writes the job's intent down, unless a guard stops it."""
        if self._is_over_budget(job):
            return False
        number = job.request.number
        try:
            intent = job.submission.intent(job.before, job.request.key)
            # What a file is stands beside the records, once for all requests that have it.
            intent = dataclasses.replace(
                intent, fingerprint=job.request.key[:KEY_LENGTH], arguments=None, material=None
            )
            intent = self.batch.guards.reserve(intent, job.request.arguments)
        except MediaTaskError as error:
            self.batch.state.again.append(number)
            if isinstance(error, MediaFundsError) and error.code == "max_cost":
                self.exhausted = error
            else:
                self.batch.stopped_by = error
            return False
        self.batch.pages[number] = job.intent = intent
        return True

    def _note(self, job: _Job, outcome: tuple[Record, MediaTask] | MediaTaskError) -> None:
        """Keeps what became of a job."""
        if job.intent is not None:
            error = outcome if isinstance(outcome, MediaTaskError) else None
            metrics.submitted(job.intent, job.request.arguments, self.batch.context, error)
        if not isinstance(outcome, MediaTaskError):
            record, task = outcome
            record = dataclasses.replace(record, result=None, held=job.held, traces=None)
            record = self.batch.guards.accepted(record, task)
            if job.intent is not None:
                self.batch.state.refused_since, self.batch.state.refusals = None, 0
            if task.status.is_terminal:
                self.settling.end(job.request, record, task)
            else:
                self.batch.pages[job.request.number] = record
                self.batch.state.waiting += 1
                page = job.request.number // PAGE
                if page not in self.batch.state.open:
                    self.batch.state.open = sorted([*self.batch.state.open, page])
            return
        if job.intent is not None and job.is_settled:
            self.batch.guards.release(job.intent)
            self.batch.pages.put_back(job.request.number, job.before)
        no_room = isinstance(outcome, (MediaRateLimitError, MediaConcurrencyError)) and job.is_settled
        if no_room or outcome.code == TOO_LATE:
            self.batch.state.again.append(job.request.number)
            if outcome.code != TOO_LATE:
                self.refusal = outcome
            return
        self._not_submitted(job, outcome)
        if isinstance(outcome, (MediaAuthError, MediaFundsError)):
            # All the others would meet the same.
            self.batch.stopped_by = outcome

    def _not_submitted(self, job: _Job, error: MediaTaskError) -> None:
        """Notes why a request is not under way."""
        number, before = job.request.number, self.batch.pages[job.request.number]
        self.batch.log.warning("request %d: %s", number, error)
        if isinstance(error, SubmissionOutcomeUnknown) and before is not None:
            if job.submission.is_to_resubmit(error):
                error = resubmitted(error)
            else:
                before, error = job.submission.question(error, before, Place.of(self.batch.context), number)
        if before is None or before.phase not in ("intent", "submitted", "adopted"):
            same = before is not None and before.generation == self.batch.generation
            before = Record(
                phase="refused",
                generation=self.batch.generation,
                number=before.number if before is not None and same else 0,
                fingerprint=job.request.key[:KEY_LENGTH],
                client_ref="",
                submitted_after=now().isoformat(),
                operation=job.request.operation,
                key=job.request.key,
                spent=None if before is None else before.spent,
                **self.batch.same,
            )
        # What was, or may have been, accepted stays on record: the next try goes on from there.
        failed = dataclasses.replace(before, failure=type(error).__name__)
        self.batch.pages[number] = self.batch.pages.end(failed, {"error": error.to_dict()})
        self.batch.state.failed += 1

    def _next_turn(self, error: MediaTaskError) -> float | None:
        """When to try again what found no room; None, and the rest fails, if that is too late."""
        state = self.batch.state
        turn = Turn(state.refused_since or time.time(), state.refusals)
        until = turn.next_try(error.retry_after)
        ends = turn.since + (self.batch.operator.queue_timeout or self.batch.operator.timeout)
        if until > ends and not state.waiting:
            self.batch.stopped_by = error
            return None
        state.refused_since, state.refusals = turn.since, turn.refusals + 1
        self.batch.log.info(
            "the provider has no room for more (%s); %d requests wait for their turn",
            error,
            state.total - self.batch.handled,
        )
        return until


@dataclass
class _Job:
    """One request in the hands of a thread, which asks and sends, and writes nothing down."""

    request: Request
    submission: Submission
    before: Record | None
    answer: Answer | None
    is_handed_over: bool = False
    intent: Record | None = None
    is_settled: bool = True

    def done(self, do: Callable[[_Job], Any], stop: threading.Event) -> Any:
        """The outcome of `recall` or `send`, unless that of another job has made it senseless."""
        if stop.is_set():
            return MediaProviderError("it was not sent", code=TOO_LATE)
        outcome = do(self)
        if isinstance(outcome, _STOPS_ALL):
            stop.set()
        return outcome

    @property
    def held(self) -> str | None:
        """What is set aside for it."""
        now = self.intent or self.before
        return None if now is None else now.held

    def recall(self) -> tuple[Record, MediaTask] | MediaTaskError | None:
        """What an earlier try's submission became, if it serves this one."""
        try:
            return None if self.before is None else self.submission.earlier(self.before, self.answer)
        except MediaTaskError as error:
            return error

    def hand_over(self) -> MediaTaskError | None:
        """What keeps the files of one's own in the request from being handed over; None if nothing does."""
        try:
            self.submission = self.submission.handed_over()
        except MediaTaskError as error:
            return error
        self.is_handed_over = True
        return None

    def send(self) -> tuple[Record, MediaTask] | MediaTaskError:
        """What the new one became."""
        if self.intent is None:
            raise AssertionError("nothing is sent without an intent")
        try:
            return self.submission.send(self.intent)
        except Unsettled as unsettled:
            self.is_settled = False
            return unsettled.error
        except MediaTaskError as error:
            return error
