"""Many generations in one Airflow task: each is paid for once, and what one meets is its own affair."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar

from airflow.sdk import Context, ObjectStoragePath, RetryPolicy

from airflow_media_tasks import costs, storage
from airflow_media_tasks.guards import Guards
from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.hooks.conversations import TOO_LATE
from airflow_media_tasks.landing import LandsMedia
from airflow_media_tasks.links import MediaResultLink, ProviderConsoleLink
from airflow_media_tasks.pages import BATCH, Pages, State
from airflow_media_tasks.provenance import document
from airflow_media_tasks.records import KEY_LENGTH, PAGE, Answer, Entries, KeepsRecords, Place, Record
from airflow_media_tasks.requests import Request, Requests, Summary, line_of
from airflow_media_tasks.retries import MediaRetryPolicy
from airflow_media_tasks.submission import (
    HOPELESS,
    LEASE,
    ON_UNKNOWN,
    RESUBMIT,
    STOP,
    Submission,
    Unsettled,
    recordable,
    resubmitted,
)
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaConcurrencyError,
    MediaFile,
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
    error_class,
    error_from_dict,
    shown,
)
from airflow_media_tasks.triggers import MediaBatchTrigger, Turn, checked_event, numbers_of
from airflow_media_tasks.waiting import made_by, seconds


THREADS = 8
"""Submissions under way at once, and landings."""
FIRST_GROUP = 2 * THREADS
"""Requests whose intents are written together, until it is known how long the provider takes for one."""
TOLD_EVERY = 15.0
"""Seconds after which the log says again how far the batch is."""
KEEP, FAIL = "keep", "fail"
_FINAL = (*HOPELESS, SubmissionOutcomeUnknown)


class GenerateMediaBatchOperator(KeepsRecords, LandsMedia):
    """Generates many things in one Airflow task: one state, one log, one trigger.

    Each request is submitted once, under the same protocol as a `MediaTaskOperator`'s: a killed worker goes
    on where it was. The result (XCom) is a small manifest: `results` (path of the JSON lines, one for each
    request in order), `total`, `submitted`, `succeeded`, `failed`, `errors` (how many of each class),
    `cost` (as charged, a sum for each unit), `money` (the same in money, as far as the price table gives it),
    `urls` and `paths` (the first ten), `operation`, `provider`, `media_conn_id`, `made_by`. A line of the
    results has `number`, `operation`, `arguments`, `status`, `media_task_id`, `url`, `urls`, `files`,
    `cost`, `error`, `submitted_at`, `finished_at`.

    A retry submits only what failed and may succeed. A clear, too, keeps what was made: it submits only what
    failed, and what was paid and then refused by moderation only with *retry_moderated*.

    :param requests: dicts of arguments, each perhaps with an `operation` of its own; or the object storage
        path of a file with one such JSON object a line (templated).
    :param results: object storage path (`.jsonl`) for what became of each; default `batch.jsonl` where the
        files go, if *save_to* is a folder (templated).
    :param media_conn_id: connection of the account (templated).
    :param operation: for requests that name none (templated).
    :param arguments: for requests that do not give them (templated).
    :param save_to: where to land what is made, as of `MediaTaskOperator`; `{map_index}` is the request's
        number (templated).
    :param concurrency: requests under way at the provider at once; default as many as it takes.
    :param max_items: how many requests there may be; default any number.
    :param on_partial_failure: `keep` (default) succeeds if at least *min_success* requests did; `fail` fails
        if one did not. In both cases the results are written, and a try that is not the last is retried for
        what may yet succeed.
    :param min_success: a number of requests, or a share of them as a float from 0.0 to 1.0; default 1.
    :param retry_moderated: see above; default False.
    :param max_cost: what all submissions of this batch together may cost, those of earlier tries and clears
        among them, decimal text, whole number or Decimal, in the unit of the connection's price table
        (`airflow_media_tasks.costs`); default no limit. What it leaves no room for is not submitted.
    :param min_balance: what the account must have, in its own unit, for a submission to be sent; default
        anything. It is asked for again every ten seconds.
    :param poll_interval: as of `MediaTaskOperator`; so are *timeout* and *queue_timeout* (of each request),
        *deferrable*, *on_unknown_submission*, *retry_policy*.
    :raises MediaTaskError: typed, see `airflow_media_tasks.task`.
    """

    template_fields: Sequence[str] = (
        "requests",
        "results",
        "media_conn_id",
        "operation",
        "arguments",
        "save_to",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"requests": "json", "arguments": "json"}
    operator_extra_links = (MediaResultLink(), ProviderConsoleLink())
    ui_color = "#e8def8"

    def __init__(
        self,
        *,
        requests: Sequence[Mapping[str, Any]] | str,
        media_conn_id: str,
        results: str | None = None,
        operation: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        save_to: str | None = None,
        concurrency: int | None = None,
        max_items: int | None = None,
        on_partial_failure: str = KEEP,
        min_success: float = 1,
        retry_moderated: bool = False,
        max_cost: str | int | Decimal | None = None,
        min_balance: str | int | Decimal | None = None,
        poll_interval: float | timedelta = 10.0,
        timeout: float | timedelta = 3600.0,
        queue_timeout: float | timedelta | None = None,
        deferrable: bool = True,
        on_unknown_submission: str = STOP,
        retry_policy: RetryPolicy | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(retry_policy=retry_policy or MediaRetryPolicy(), **kwargs)
        _one_of("on_partial_failure", on_partial_failure, (KEEP, FAIL))
        _one_of("on_unknown_submission", on_unknown_submission, ON_UNKNOWN)
        _at_least_one("concurrency", concurrency)
        _at_least_one("max_items", max_items)
        most = 1.0 if type(min_success) is float else math.inf
        if type(min_success) not in (int, float) or not 0 <= min_success <= most:
            raise MediaRequestError(
                "min_success must be a whole number from 0, or a share as a float from 0.0 to 1.0, "
                f"got {shown(min_success)}"
            )
        self.requests = requests
        self.media_conn_id = media_conn_id
        self.results = results
        self.operation = operation
        self.arguments = arguments
        self.save_to = save_to
        self.concurrency = concurrency
        self.max_items = max_items
        self.on_partial_failure = on_partial_failure
        self.min_success = min_success
        self.retry_moderated = retry_moderated
        self.max_cost = None if max_cost is None else costs.decimal_of("max_cost", max_cost)
        self.min_balance = None if min_balance is None else costs.decimal_of("min_balance", min_balance)
        self.poll_interval = seconds("poll_interval", poll_interval)
        self.timeout = seconds("timeout", timeout)
        self.queue_timeout = None if queue_timeout is None else seconds("queue_timeout", queue_timeout)
        self.deferrable = deferrable
        self.on_unknown_submission = on_unknown_submission

    def execute(self, context: Context) -> dict[str, Any]:
        """Checks every request, finds out what became of those of earlier tries, and goes on from there."""
        with self.errors_shown(context):
            batch = _Batch(self, context)
            batch.begin()
            return self._go_on(batch)

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Lands what has ended, submits what there is room for, and waits again or tells the result."""
        with self.errors_shown(context):
            ended = checked_event(event)
            batch = _Batch(self, context)
            batch.resume()
            batch.settle(ended)
            return self._go_on(batch)

    def _go_on(self, batch: _Batch) -> dict[str, Any]:
        while True:
            until = batch.submit()
            if not batch.state.waiting and until is None:
                if not batch.is_done:
                    continue  # What there was room for has ended at once.
                return batch.report()
            trigger = self._trigger(batch, until)
            if self.deferrable:
                # The trigger keeps the deadlines itself; this is only for a triggerer that is gone.
                spare = timedelta(seconds=self.timeout + 600)
                self.defer(trigger=trigger, method_name="execute_complete", timeout=spare)
            batch.settle(checked_event(asyncio.run(trigger.wait())))

    def _trigger(self, batch: _Batch, until: float | None) -> MediaBatchTrigger:
        # Waking a worker costs seconds: it comes when a quarter of the room is free, and while the last ones
        # are under way, when all have ended.
        waiting = batch.state.waiting
        return MediaBatchTrigger(
            self.media_conn_id,
            self.poll_interval,
            self.timeout,
            self.queue_timeout,
            wake_after=waiting if batch.is_done else max(waiting // 4, 1),
            until=until,
            copies=batch.pages.key_of_copies(),
            pages=batch.state.open,
            began=batch.state.began,
        )


class Stand(Enum):
    """Where a request stands in this try."""

    OVER = "over"
    WAITING = "waiting"
    LEFT = "left"


class _Batch:
    """A batch in the hands of one worker. All calls of the state store are made by the task's own thread."""

    def __init__(self, operator: GenerateMediaBatchOperator, context: Context) -> None:
        self.operator, self.context, self.log = operator, context, operator.log
        self.hook = get_media_hook(operator.media_conn_id)
        self.requests = Requests(self.hook, operator.requests, operator.operation, operator.arguments)
        self.results = self._results_path()
        self.guards = Guards(self.hook, operator.max_cost, operator.min_balance)
        self.entries = Entries(context)
        self.stopped_by: MediaTaskError | None = None
        """What ends the batch: the requests that are left would meet the same."""
        self.exhausted: MediaTaskError | None = None
        """What keeps this worker from submitting more: what is under way may yet turn out cheaper."""
        self.refusal: MediaTaskError | None = None
        """What the provider said when it had no room."""
        self.pages: Pages
        self._group = FIRST_GROUP
        self._told = time.monotonic()

    def _results_path(self) -> ObjectStoragePath:
        text = self.operator.results
        if text is None:
            save_to = self.operator.save_to
            if save_to is None or not save_to.endswith("/"):
                raise MediaRequestError(
                    "results must be the path of the file that says what became of each request; only where "
                    f"save_to is a folder it has a default, got save_to={shown(save_to)}"
                )
            text = f"{save_to}{{dag_id}}/{{run_id}}/{{task_id}}/batch.jsonl"
            if self.context["ti"].map_index is not None and self.context["ti"].map_index >= 0:
                text = text.replace("batch.", "batch-{map_index}.")
        destination = self.operator.place_of(self.context, text)
        return destination.path(0, MediaFile("file", ""), None, "")

    # Where it stands.

    def begin(self, *, resumed: bool = False) -> None:
        """Checks every request, and finds out what earlier tries have left.

        :param resumed: whether this try has deferred before.
        """
        keys = self.requests.checked(self.operator.max_items, self.guards.admit)
        state = State(
            try_number=self.context["ti"].try_number,
            total=len(keys),
            kept=len(keys),
            provider=self.hook.conn_type,
            media_conn_id=self.hook.media_conn_id,
            began=time.time(),
            unit=self.guards.unit,
        )
        self.pages = Pages.of(self.entries, state, keys, self._same, self.log, resumed=resumed)
        self._look_around()
        self._write()

    def resume(self) -> None:
        """Goes on from what the worker before has written."""
        stored = self.entries.read(BATCH)
        state = None if stored is None else State.of(stored)
        if state is None or state.try_number != self.context["ti"].try_number:
            # It was an earlier version of this package that has deferred.
            self.begin(resumed=True)
            return
        self.pages = Pages(self.entries, state, self._same)
        if self.guards.budget is not None:
            self.guards.unit = state.unit
            self.guards.budget.committed = Decimal(state.committed or 0)
        if state.stopped is not None:
            self.stopped_by = error_from_dict(state.stopped)

    @property
    def state(self) -> State:
        """Of the batch, as it is to be written next."""
        return self.pages.state

    @property
    def _same(self) -> dict[str, Any]:
        return {"media_conn_id": self.hook.media_conn_id, "provider": self.hook.conn_type}

    def _write(self) -> None:
        """Writes everything down that has changed; only then may an intent be acted upon."""
        if self.guards.budget is not None:
            self.state.committed = f"{self.guards.budget.committed:f}"
        self.state.stopped = None if self.stopped_by is None else self.stopped_by.to_dict()
        self.pages.write()

    @property
    def _generation(self) -> int:
        return int(self.context["ti"].max_tries)

    def _look_around(self) -> None:
        """Counts what the records tell, and lets this try have a copy of what is under way."""
        state = self.state
        if self.guards.budget is not None:
            self._price()
            self.guards.count(record for _, record in self.pages)
        for page in range(-(-state.total // PAGE)):
            for number, record in self.pages.page(page).items():
                if number >= state.total:
                    break
                if record.phase in _ACCEPTED and record.finished_at is None and record.failure is not None:
                    # An earlier try gave it up; perhaps it has ended since.
                    record = dataclasses.replace(record, failure=None)  # noqa: PLW2901  # the same, as it is now
                    self.pages[number] = record
                elif record.phase == "finished" and record.failure is None and record.made is None:
                    # Made, and a clear has discarded what it was: the provider is asked for it again.
                    record = dataclasses.replace(record, phase="adopted")  # noqa: PLW2901  # as above
                    self.pages[number] = record
                stand = self._stand(record)
                state.waiting += stand is Stand.WAITING
                state.succeeded += stand is Stand.OVER and record.failure is None
                state.failed += stand is Stand.OVER and record.failure is not None
                if stand is Stand.WAITING and page not in state.open:
                    state.open.append(page)
                    self.pages.touch(page)
        if self._handled:
            self.log.info(
                "of %d requests %d are over and %d under way since an earlier try; %d are to be submitted",
                state.total,
                state.succeeded + state.failed,
                state.waiting,
                state.total - self._handled,
            )

    def _price(self) -> None:
        """Gives the records of tries without `max_cost` what they have cost, or may yet cost."""
        unpriced = {
            number: record
            for number, record in self.pages
            if number < self.state.total
            and record.media_task_id is not None
            and record.held is None
            and record.spent is None
        }
        for request in self.requests.some(self.pages.keys(list(unpriced))):
            record = unpriced[request.number]
            result = self.pages.result(record)
            task = None if result is None else MediaTask.from_dict(result)
            self.pages[request.number] = self.guards.priced(record, request.arguments, task)

    def _stand(self, record: Record | None) -> Stand:
        """Whether a request is over, under way, or to be looked at: submitted, asked about, or landed."""
        if record is None:
            return Stand.LEFT
        if record.phase in _ACCEPTED and record.failure is None:
            return Stand.WAITING
        if record.phase in _ACCEPTED:
            # Given up in this try; or it was made, and only its files have not landed.
            return Stand.OVER if record.finished_at is None else Stand.LEFT
        if record.phase == "finished" and record.failure is None:
            return Stand.OVER
        return Stand.OVER if record.failure is not None and self._is_final(record) else Stand.LEFT

    def _is_final(self, record: Record) -> bool:
        """Whether nothing more is to be done about a request that has failed."""
        error = error_class(record.failure or "")
        if record.generation == self._generation:
            return issubclass(error, _FINAL)
        moderated = record.phase == "finished" and issubclass(error, MediaModerationError)
        return moderated and not self.operator.retry_moderated

    # Submitting.

    def submit(self) -> float | None:
        """Submits what is left, as far as there is room.

        :return: unix seconds at which to try again where the provider has no room, else None.
        """
        state, before = self.state, self._handled
        self._forget_what_stopped_us()
        with self.hook, ThreadPoolExecutor(THREADS, thread_name_prefix="submission") as pool:
            while not self._has_to_stop and (group := self._next_group()):
                self._submit_group(pool, group)
        if self.exhausted is not None and not state.waiting and self._handled == before:
            # Nothing is under way that could turn out cheaper than was expected.
            self.log.warning("%s", self.exhausted)
            self.stopped_by = self.exhausted
        until = None if self.refusal is None or self.stopped_by else self._next_turn(self.refusal)
        self._write()
        if state.waiting:
            self.log.info("%d requests under way, %d yet to come", state.waiting, state.total - self._handled)
        return until

    def _forget_what_stopped_us(self) -> None:
        self.refusal = self.exhausted = None

    @property
    def _has_to_stop(self) -> bool:
        return any((self.stopped_by, self.refusal, self.exhausted))

    @property
    def _handled(self) -> int:
        return self.state.waiting + self.state.succeeded + self.state.failed

    @property
    def is_done(self) -> bool:
        """Whether this try has nothing more to submit."""
        return self.stopped_by is not None or (self.state.next >= self.state.total and not self.state.again)

    def _next_group(self) -> list[int]:
        """The numbers of the requests that are submitted together: as many as will leave within the lease."""
        state = self.state
        room = self._group
        if self.operator.concurrency is not None:
            room = min(room, max(self.operator.concurrency - state.waiting, 0))
        group = state.again[:room]
        del state.again[:room]
        while len(group) < room and state.next < state.total:
            if self._stand(self.pages[state.next]) is Stand.LEFT:
                group.append(state.next)
            state.next += 1
        return group

    def _submit_group(self, pool: ThreadPoolExecutor, group: list[int]) -> None:
        jobs = {}
        for request in self.requests.some(self.pages.keys(group)):
            record = self.pages[request.number]
            answer = None if record is None else self.entries.answer(record)
            submission = Submission(
                self.hook,
                request.operation,
                request.arguments,
                self._generation,
                self.operator.on_unknown_submission,
                self.log,
            )
            if record is not None:
                # A result that nobody can be asked for again stands beside the record.
                record = dataclasses.replace(record, result=self.pages.result(record))
            jobs[request.number] = _Job(request, submission, record, answer)
        for job, outcome in self._all_of(pool, _Job.recall, [job for job in jobs.values() if job.before]):
            if outcome is not None:
                self._note(job, outcome)
                del jobs[job.request.number]
        ready = [jobs[number] for number in group if number in jobs and self._reserve(jobs[number])]
        if not ready:
            return
        began = time.time()
        self.hook.send_before = began + LEASE
        self._write()
        try:
            for job, outcome in self._all_of(pool, _Job.send, ready):
                self._note(job, outcome)
        finally:
            self.hook.send_before = None
        each = max(time.time() - began, 0.001) / len(ready)
        if all(self.hook.can_be_asked(job.request.operation) for job in ready):
            self._group = min(max(int(0.8 * LEASE / each), THREADS), PAGE // 2)
        else:
            # A dead worker leaves no more questions than there are senders.
            self._group = THREADS

    def _all_of(
        self, pool: ThreadPoolExecutor, do: Callable[[_Job], Any], jobs: Sequence[_Job]
    ) -> Iterator[tuple[_Job, Any]]:
        """Each job with its outcome, as they come; what has not begun when one stops them all, never does."""
        stop = threading.Event()
        under_way = {pool.submit(job.done, do, stop): job for job in jobs}
        for done in as_completed(under_way):
            yield under_way[done], done.result()

    def _reserve(self, job: _Job) -> bool:
        """Writes the job's intent down, unless a guard stops it."""
        number = job.request.number
        if self.exhausted is not None or self.stopped_by is not None:
            self.state.again.append(number)
            return False
        try:
            intent = job.submission.intent(job.before, job.request.key)
            intent = dataclasses.replace(intent, fingerprint=job.request.key[:KEY_LENGTH], arguments=None)
            intent = self.guards.reserve(intent, job.request.arguments)
        except MediaTaskError as error:
            self.state.again.append(number)
            if isinstance(error, MediaFundsError) and error.code == "max_cost":
                self.exhausted = error
            else:
                self.stopped_by = error
            return False
        self.pages[number] = job.intent = intent
        return True

    def _note(self, job: _Job, outcome: tuple[Record, MediaTask] | MediaTaskError) -> None:
        """Keeps what became of a job."""
        if not isinstance(outcome, MediaTaskError):
            record, task = outcome
            record = dataclasses.replace(record, result=None, held=job.held)
            if task.status.is_terminal:
                self._end(job.request, record, task)
            else:
                self.pages[job.request.number] = record
                self.state.waiting += 1
                page = job.request.number // PAGE
                if page not in self.state.open:
                    self.state.open = sorted([*self.state.open, page])
            return
        if job.intent is not None and job.is_settled:
            self.guards.release(job.intent)
            self.pages.put_back(job.request.number, job.before)
        no_room = isinstance(outcome, (MediaRateLimitError, MediaConcurrencyError)) and job.is_settled
        if no_room or outcome.code == TOO_LATE:
            self.state.again.append(job.request.number)
            if outcome.code != TOO_LATE:
                self.refusal = outcome
            return
        self._not_submitted(job, outcome)
        if isinstance(outcome, (MediaAuthError, MediaFundsError)):
            # All the others would meet the same.
            self.stopped_by = outcome

    def _not_submitted(self, job: _Job, error: MediaTaskError) -> None:
        """Notes why a request is not under way."""
        number, before = job.request.number, self.pages[job.request.number]
        self.log.warning("request %d: %s", number, error)
        if isinstance(error, SubmissionOutcomeUnknown) and before is not None:
            if job.submission.on_unknown == RESUBMIT:
                error = resubmitted(error)
            else:
                before = dataclasses.replace(before, asked_at=_now())
                error = job.submission.question(error, before, Place.of(self.context))
        if before is None or before.phase not in ("intent", "submitted", "adopted"):
            same = before is not None and before.generation == self._generation
            before = Record(
                phase="refused",
                generation=self._generation,
                number=before.number if before is not None and same else 0,
                fingerprint=job.request.key[:KEY_LENGTH],
                client_ref="",
                submitted_after=_now(),
                operation=job.request.operation,
                key=job.request.key,
                spent=None if before is None else before.spent,
                **self._same,
            )
        # What was, or may have been, accepted stays on record: the next try goes on from there.
        failed = dataclasses.replace(before, failure=type(error).__name__)
        self.pages[number] = self.pages.end(failed, {"error": error.to_dict()})
        self.state.failed += 1

    def _next_turn(self, error: MediaTaskError) -> float | None:
        """When to try again what found no room; None, and the rest fails, if that is too late."""
        state = self.state
        turn = Turn(state.refused_since or time.time(), state.refusals)
        until = turn.next_try(error.retry_after)
        ends = turn.since + (self.operator.queue_timeout or self.operator.timeout)
        if until > ends and not state.waiting:
            self.stopped_by = error
            return None
        state.refused_since, state.refusals = turn.since, turn.refusals + 1
        self.log.info(
            "the provider has no room for more (%s); %d requests wait for their turn",
            error,
            state.total - self._handled,
        )
        return until

    # Ending.

    def settle(self, event: Mapping[str, Mapping[int, int]]) -> None:
        """Notes and lands what has ended, page by page."""
        for page in self.state.open:
            numbers = [
                number
                for name in ("ended", "gave_up")
                for number in numbers_of(page, event[name].get(page, 0))
                if self._stand(self.pages[number]) is Stand.WAITING
            ]
            if numbers:
                self._settle_page(numbers)
        self.state.open = [
            page
            for page in self.state.open
            if any(self._stand(record) is Stand.WAITING for record in self.pages.page(page).values())
        ]
        if self.state.refused_since is not None:
            self.state.refused_since, self.state.refusals = None, 0
        self._write()

    def _settle_page(self, numbers: Sequence[int]) -> None:
        records = {number: record for number in numbers if (record := self.pages[number]) is not None}
        tasks = self.hook.get_tasks([str(record.media_task_id) for record in records.values()])
        requests = {one.number: one for one in self.requests.some(self.pages.keys(list(records)))}
        with ThreadPoolExecutor(THREADS, thread_name_prefix="landing") as pool:
            landings = {}
            for number, record in records.items():
                task = tasks.get(str(record.media_task_id))
                if task is None or not task.status.is_terminal:
                    self._gave_up(number, record, task)
                    continue
                result = self._result(requests[number], record, task)
                landings[pool.submit(self._land, requests[number], result, task)] = (number, record, task)
            for landing in as_completed(landings):
                number, record, task = landings[landing]
                self.state.waiting -= 1
                self._ended(requests[number], record, task, *landing.result())
                self._tell()

    def _gave_up(self, number: int, record: Record, task: MediaTask | None) -> None:
        """A task that this try does not wait for any longer; it may yet end well, and the next try looks."""
        error: MediaTaskError
        if task is None:
            error = MediaNotFoundError(
                f"{self.hook.conn_type} does not show {record.media_task_id} at present",
                provider=self.hook.conn_type,
                media_task_id=record.media_task_id,
            )
        else:
            error = MediaTaskTimeout(
                f"{task.id} is still {task.status} (the provider's word: {task.status_word!r}); it was not "
                "cancelled and may still finish and be billed, and the next try waits for it again",
                code="timeout",
                media_task_id=task.id,
            )
        self.log.warning("request %d: %s", number, error)
        failed = dataclasses.replace(record, failure=type(error).__name__)
        self.pages[number] = self.pages.end(failed, {"error": error.to_dict()})
        self.state.waiting -= 1
        self.state.failed += 1

    def _end(self, request: Request, record: Record, task: MediaTask) -> None:
        """Lands what *task* made, if that is wanted, and notes what became of the request."""
        result = self._result(request, record, task)
        self._ended(request, record, task, *self._land(request, result, task))

    def _result(self, request: Request, record: Record, task: MediaTask) -> dict[str, Any]:
        arguments = recordable(request.arguments)
        return {
            **dataclasses.replace(task, operation=record.operation).to_dict(),
            "media_conn_id": record.media_conn_id,
            "provider": record.provider,
            "arguments": arguments,
            "model": arguments.get("model"),
            "cost": self.guards.prices.told(record.operation, task),
            "submitted_at": record.submitted_after,
            "finished_at": record.finished_at or _now(),
            "made_by": {**made_by(self.context), "request": request.number},
        }

    def _land(
        self, request: Request, result: dict[str, Any], task: MediaTask
    ) -> tuple[dict[str, Any], MediaTaskError | None]:
        """*result* with where its files are now, and what kept them from landing."""
        if task.error is not None or task.status is not TaskStatus.SUCCEEDED or self.operator.save_to is None:
            return result, task.error
        place = Place.of(self.context)
        name = f"{place.map_index}-{request.number}" if place.map_index >= 0 else request.number
        destination = storage.Destination(self.operator.save_to, {**place.named(), "map_index": name})
        try:
            (landed,) = storage.land(storage.made_of(result), destination, self.log)
        except MediaTaskError as trouble:
            return result, trouble
        by_index = {file["index"]: file for file in landed["files"]}
        files = [{**file, **by_index.get(index, {})} for index, file in enumerate(result["files"])]
        return {**result, "files": files}, None

    def _ended(
        self,
        request: Request,
        record: Record,
        task: MediaTask,
        result: dict[str, Any],
        error: MediaTaskError | None,
    ) -> None:
        if record.finished_at is None:
            costs.count(result["cost"], task, record, self.context)
        if error is not None:
            self.log.warning("request %d: %s", request.number, error)
        record = self.guards.settle(record, request.arguments, task)
        made_it = task.status is TaskStatus.SUCCEEDED and task.error is None
        record = dataclasses.replace(
            record,
            # What was made and has not landed is what a clear, too, goes on with.
            phase="adopted" if made_it and error is not None else "finished",
            generation=self._generation,
            finished_at=result["finished_at"],
            failure=None if error is None else type(error).__name__,
        )
        kept = {name: value for name, value in result.items() if name in _KEPT}
        made = {"result": kept, "error": None if error is None else error.to_dict()}
        self.pages[request.number] = self.pages.end(record, made)
        self.state.succeeded += error is None
        self.state.failed += error is not None
        self.state.landed += sum("path" in file for file in result["files"])

    def _tell(self) -> None:
        """A line now and then, for whoever watches."""
        now = time.monotonic()
        if now - self._told < TOLD_EVERY:
            return
        self._told = now
        state = self.state
        self.log.info(
            "%d of %d requests have ended (%d failed), %d files have landed; %d are under way",
            state.succeeded + state.failed,
            state.total,
            state.failed,
            state.landed,
            state.waiting,
        )

    # Telling.

    def report(self) -> dict[str, Any]:
        """Writes the results and returns the manifest; raises if the batch has not succeeded."""
        summary = Summary()
        told: list[dict[str, Any]] = []
        first: dict[bool, tuple[int, MediaTaskError]] = {}

        def lines() -> Iterator[str]:
            for request in self.requests.some(self.pages.keys(range(self.state.total))):
                record = self.pages[request.number]
                made = {} if record is None else self.pages.made(record)
                line = line_of(request, record, made, self.stopped_by)
                summary.add(line)
                if line["error"] is not None:
                    error = error_from_dict(line["error"])
                    first.setdefault(not isinstance(error, _FINAL), (request.number, error))
                elif self.operator.is_heard:
                    told.append(document(self._told_of(line), line["files"]))
                yield json.dumps(line, ensure_ascii=False) + "\n"

        storage.publish_text(lines(), self.results)
        manifest = {
            "results": str(self.results),
            **summary.told(),
            "provider": self.hook.conn_type,
            "media_conn_id": self.hook.media_conn_id,
            "made_by": made_by(self.context),
        }
        self.log.info(
            "%d of %d requests succeeded%s: %s",
            manifest["succeeded"],
            manifest["total"],
            "".join(f", {count} {name}" for name, count in manifest["errors"].items()),
            self.results,
        )
        self.operator.tell_of(self.context, told)
        try:
            self._judge(manifest, first)
        except MediaTaskError:
            self.context["ti"].xcom_push(key="media_batch", value=manifest)
            raise
        return manifest

    def _told_of(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """What provenance knows of a line of the results."""
        return {
            **line,
            **self._same,
            "id": line["media_task_id"],
            "model": line["arguments"].get("model"),
            "made_by": {**made_by(self.context), "request": line["number"]},
        }

    def _judge(self, manifest: Mapping[str, Any], first: Mapping[bool, tuple[int, MediaTaskError]]) -> None:
        """Raises unless the batch has succeeded, as the operator's arguments have it."""
        total, good, bad = manifest["total"], manifest["succeeded"], manifest["failed"]
        ti = self.context["ti"]
        if True in first and ti.try_number <= ti.max_tries:
            again = sum(
                count
                for name, count in manifest["errors"].items()
                if not issubclass(error_class(name), _FINAL)
            )
            raise MediaProviderError(
                f"{again} of {total} requests failed and may yet succeed: the next try submits them, and "
                f"nothing else, again; the first, request {first[True][0]}: {first[True][1].message[:500]}"
            )
        if self.stopped_by is not None and not good:
            raise self.stopped_by
        said = "".join(
            f"; the first, request {number}: {error.message[:500]}"
            for number, error in sorted(first.values(), key=lambda one: one[0])[:1]
        )
        wanted = self.operator.min_success
        least = wanted * total if type(wanted) is float else wanted
        if good < least or (bad and self.operator.on_partial_failure == FAIL):
            raise MediaTaskFailed(
                f"{bad} of {total} requests failed, at least {least:g} had to succeed{said}"
                if self.operator.on_partial_failure == KEEP
                else f"{bad} of {total} requests failed{said}",
                code="partial_failure",
            )


_ACCEPTED = ("submitted", "adopted")
_STOPS_ALL = (MediaRateLimitError, MediaConcurrencyError, MediaAuthError, MediaFundsError)
_KEPT = ("id", "status", "url", "urls", "files", "cost", "created_at", "finished_at")


@dataclass
class _Job:
    """One request in the hands of a thread, which asks and sends, and writes nothing down."""

    request: Request
    submission: Submission
    before: Record | None
    answer: Answer | None
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


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise MediaRequestError(f"{name} must be one of {', '.join(allowed)}, got {shown(value)}")


def _at_least_one(name: str, value: Any) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise MediaRequestError(f"{name} must be a whole number from 1, or None, got {shown(value)}")
