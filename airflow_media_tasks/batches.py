"""Many generations in one Airflow task: each is paid for once, and what one meets is its own affair."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar

from airflow.sdk import Context, ObjectStoragePath, RetryPolicy

from airflow_media_tasks import costs, storage, verification
from airflow_media_tasks.guards import Guards
from airflow_media_tasks.hooks.base import MediaHook, get_media_hook
from airflow_media_tasks.landing import LandsMedia
from airflow_media_tasks.links import MediaResultLink, ProviderConsoleLink
from airflow_media_tasks.provenance import document
from airflow_media_tasks.records import Record, asked, fingerprint, moment_of, now, recordable, threads
from airflow_media_tasks.requests import Request, State, checked, line_of, summary_of, text_of
from airflow_media_tasks.retries import MediaRetryPolicy
from airflow_media_tasks.submission import HOPELESS, ON_UNKNOWN, STOP, Submission
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
    SubmissionOutcomeUnknown,
    TaskStatus,
    error_from_dict,
    shown,
)
from airflow_media_tasks.triggers import MediaBatchTrigger, Turn
from airflow_media_tasks.waiting import made_by, poll_interval_of, seconds


THREADS = 8
"""Submissions under way at once, and landings."""
KEEP, FAIL = "keep", "fail"
_FINAL = (*HOPELESS, SubmissionOutcomeUnknown)


class GenerateMediaBatchOperator(LandsMedia):
    """Generates many things in one Airflow task: one state, one log, one trigger.

    Each request is submitted once, under the same protocol as a `MediaTaskOperator`'s: a killed worker goes
    on where it was. The result (XCom) is a small manifest: `results` (path of the JSON lines, one for each
    request in order), `results_sha256` and `results_size` (bytes) of that file, `total`, `submitted`,
    `succeeded`, `failed`, `errors` (how many of each class), `cost` (as charged, a sum for each unit),
    `money` (the same in money, as far as the price table gives it), `urls` and `paths` (the first ten),
    `operation`, `provider`, `media_conn_id`, `made_by`. A line of the results has `number`, `operation`,
    `arguments`, `status`, `media_task_id`, `url`, `urls`, `files`, `cost`, `error`, `submitted_at`,
    `finished_at`.

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
        self.poll_interval = poll_interval_of(poll_interval)
        self.timeout = seconds("timeout", timeout)
        self.queue_timeout = None if queue_timeout is None else seconds("queue_timeout", queue_timeout)
        self.deferrable = deferrable
        self.on_unknown_submission = on_unknown_submission

    def execute(self, context: Context) -> dict[str, Any]:
        """Checks every request, finds out what became of those of earlier tries, and goes on from there."""
        with self.errors_shown(context), verification.Decoder() as decoder:
            batch = _Batch(self, context, decoder)
            return self._go_on(batch, batch.recall())

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Lands what has ended, submits what there is room for, and waits again or tells the result."""
        with self.errors_shown(context), verification.Decoder() as decoder:
            state = State.of_event(event)
            batch = _Batch(self, context, decoder)
            batch.settle(event["ended"])
            return self._go_on(batch, state)

    def _go_on(self, batch: _Batch, state: State) -> dict[str, Any]:
        while True:
            until = batch.submit(state)
            if not state.waiting and until is None:
                if state.left:
                    continue  # What there was room for has ended at once.
                return batch.report()
            trigger = self._trigger(state, until)
            if self.deferrable:
                # The trigger keeps the deadlines itself; this is only for a triggerer that is gone.
                spare = timedelta(seconds=self.timeout + 600)
                self.defer(trigger=trigger, method_name="execute_complete", timeout=spare)
            event = asyncio.run(trigger.wait())
            state = State.of_event(event)
            batch.settle(event["ended"])

    def _trigger(self, state: State, until: float | None) -> MediaBatchTrigger:
        # Waking a worker costs seconds: it comes when a quarter of the room is free, and while the last ones
        # are under way, when all have ended.
        quarter = max(len(state.waiting) // 4, 1)
        return MediaBatchTrigger(
            state.waiting,
            state.left,
            self.media_conn_id,
            self.poll_interval,
            self.timeout,
            self.queue_timeout,
            wake_after=quarter if state.left else len(state.waiting),
            until=until,
            refused_since=state.refused_since,
            refusals=state.refusals,
        )


class _Batch:
    """A batch in the hands of one worker."""

    def __init__(
        self, operator: GenerateMediaBatchOperator, context: Context, decoder: verification.Decoder
    ) -> None:
        self.operator, self.context, self.decoder = operator, context, decoder
        self.log = operator.log
        self.hook = get_media_hook(operator.media_conn_id)
        self.requests = checked(
            self.hook, operator.requests, operator.operation, operator.arguments, operator.max_items
        )
        self.results = self._results_path()
        self.records: dict[int, Record | None] = {}
        self.patience = threading.Event()
        self.stopped_by: MediaTaskError | None = None
        self.guards = Guards(self.hook, self.requests, operator.max_cost, operator.min_balance)
        if operator.max_cost is not None:
            for request in self.requests:
                self.guards.settle(request, self._record(request))

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

    # What became of it.

    def recall(self) -> State:
        """The state that earlier tries have left in the records."""
        state = State()
        for request in self.requests:
            record = self._record(request)
            if record is None or record.fingerprint != self._fingerprint(request):
                state.left.append(request.number)
            elif record.asked_at is not None:
                # A person may have answered.
                state.left.append(request.number)
            elif record.phase in ("submitted", "adopted") and record.result is None:
                state.waiting.append(_waiting(request, record))
            elif record.phase == "finished" and self._is_over(record):
                self.records[request.number] = record
            else:
                state.left.append(request.number)
        over = len(self.records)
        if over or state.waiting:
            self.log.info(
                "of %d requests %d are over and %d under way since an earlier try; %d are to be submitted",
                len(self.requests),
                over,
                len(state.waiting),
                len(state.left),
            )
        return state

    def _is_over(self, record: Record) -> bool:
        """Whether nothing more is to be done about a request that has ended."""
        if record.error is None:
            return True
        if record.result is not None and record.result["status"] == TaskStatus.SUCCEEDED.value:
            # It was made, and only its files have not landed.
            return False
        error = error_from_dict(record.error)
        if record.generation == self._generation:
            return isinstance(error, _FINAL)
        return isinstance(error, MediaModerationError) and not self.operator.retry_moderated

    @property
    def _generation(self) -> int:
        return int(self.context["ti"].max_tries)

    def _record(self, request: Request) -> Record | None:
        return Record.load(self.context, request.key)

    def _fingerprint(self, request: Request) -> str:
        return fingerprint(self.hook.media_conn_id, request.operation, request.arguments)

    # Submitting.

    def submit(self, state: State) -> float | None:
        """Submits what is left, as far as there is room, and moves it from `left` to `waiting`.

        :return: unix seconds at which to try again where the provider has no room, else None.
        """
        self.guards.begin()
        room = before = len(state.left)
        if self.operator.concurrency is not None:
            room = min(room, max(self.operator.concurrency - len(state.waiting), 0))
        todo, refused = deque(state.left[:room]), deque[MediaTaskError]()
        later = state.left[room:]
        accepted: deque[list[Any]] = deque()
        if todo:
            many = min(threads(THREADS), room)
            with ThreadPoolExecutor(many, thread_name_prefix="submission") as pool:
                submitters = [pool.submit(self._submit_some, todo, accepted, refused) for _ in range(many)]
            for submitter in submitters:
                submitter.result()
        for one in accepted:
            # From now on it is waited for: the others' submission may have taken a while.
            one[-1] = time.time()
        state.waiting = sorted([*state.waiting, *accepted])
        state.left = sorted([*todo, *later])
        if accepted:
            state.refused_since, state.refusals = None, 0
            self.log.info(
                "%d requests submitted, %d under way, %d yet to come",
                len(accepted),
                len(state.waiting),
                len(state.left),
            )
        if self.guards.exhausted is not None and not state.waiting and len(state.left) == before:
            # Nothing is under way that could turn out cheaper than was expected.
            self.log.warning("%s", self.guards.exhausted)
            self.stopped_by = self.guards.exhausted
        if self.stopped_by is not None:
            state.left = []
        return self._next_turn(state, refused[-1]) if refused and state.left else None

    def _submit_some(
        self, todo: deque[int], accepted: deque[list[Any]], refused: deque[MediaTaskError]
    ) -> None:
        """Submits one of *todo* after the other, in one of several threads, until something stops it."""
        with get_media_hook(self.operator.media_conn_id) as hook:
            while not refused and self.stopped_by is None and self.guards.exhausted is None:
                try:
                    request = self.requests[todo.popleft()]
                except IndexError:
                    return
                submission = self._submission(hook, request)
                try:
                    task = submission.once()
                except (MediaRateLimitError, MediaConcurrencyError) as error:
                    todo.append(request.number)
                    refused.append(error)
                    self.guards.settle(request, submission.record)
                except MediaTaskError as error:
                    if isinstance(error, MediaFundsError) and error.code == "max_cost":
                        todo.append(request.number)
                        return
                    # A record that cannot be read stops the batch here, and is not written over.
                    before = submission.record or self._record(request)
                    self._not_submitted(request, error, before)
                    if isinstance(error, (MediaAuthError, MediaFundsError)):
                        # All the others would meet the same.
                        self.stopped_by = error
                else:
                    record = submission.record
                    if record is None:
                        raise MediaTaskError(f"the record {request.key!r} was not written")
                    if task.status.is_terminal:
                        self._end(request, record, task)
                    else:
                        accepted.append(_waiting(request, record))

    def _submission(self, hook: MediaHook, request: Request) -> Submission:
        return Submission(
            hook,
            request.operation,
            request.arguments,
            self.context,
            self.operator.on_unknown_submission,
            self.log,
            request.key,
            lambda _: self.guards.check(hook, request),
        )

    def _not_submitted(self, request: Request, error: MediaTaskError, before: Record | None) -> None:
        """Notes why a request is not under way; *before* is what stands in its record."""
        self.log.warning("request %d: %s", request.number, error)
        if (
            before is not None
            and before.phase in ("intent", "submitted", "adopted")
            and before.fingerprint == self._fingerprint(request)
        ):
            # What was, or may have been, accepted stays on record: the next try goes on from there, and so
            # does whoever answers the question.
            self._save(request, dataclasses.replace(before, error=error.to_dict()))
            return
        same = before is not None and before.generation == self._generation
        self._save(
            request,
            Record(
                phase="refused",
                generation=self._generation,
                number=before.number if before is not None and same else 0,
                fingerprint=self._fingerprint(request),
                client_ref="",
                submitted_after=now().isoformat(),
                media_conn_id=self.hook.media_conn_id,
                operation=request.operation,
                provider=self.hook.conn_type,
                arguments=recordable(request.arguments),
                error=error.to_dict(),
                spent=None if before is None else before.spent,
            ),
        )

    def _save(self, request: Request, record: Record) -> None:
        self.records[request.number] = record.save(self.context, request.key)
        self.guards.settle(request, record)

    def _next_turn(self, state: State, error: MediaTaskError) -> float | None:
        """When to try again what found no room; None, and the rest fails, if that is too late."""
        turn = Turn(state.refused_since or time.time(), state.refusals)
        until = turn.next_try(error.retry_after)
        ends = turn.since + (self.operator.queue_timeout or self.operator.timeout)
        if until > ends and not state.waiting:
            self.stopped_by, state.left = error, []
            return None
        state.refused_since, state.refusals = turn.since, turn.refusals + 1
        self.log.info(
            "the provider has no room for more (%s); %d requests wait for their turn", error, len(state.left)
        )
        return until

    # Ending.

    def settle(self, ended: Sequence[Sequence[Any]]) -> None:
        """Notes and lands what has ended: `[number, media_task_id, error]` of each."""
        self.patience.clear()
        tasks = self.hook.get_tasks([media_task_id for _, media_task_id, error in ended if error is None])

        def settle(one: Sequence[Any]) -> None:
            number, media_task_id, error = one
            request = self.requests[number]
            record = self._record(request)
            if record is None or record.media_task_id != media_task_id:
                raise MediaTaskError(f"the record {request.key!r} is not of {media_task_id} any more")
            task = tasks.get(media_task_id)
            if error is None and (task is None or not task.status.is_terminal):
                error = MediaProviderError(
                    f"{media_task_id} has ended, but {self.hook.conn_type} does not show it at present"
                ).to_dict()
            if error is not None:
                # The task may yet end well: another try waits for it again.
                if isinstance(error_from_dict(error), (MediaNotFoundError, MediaRequestError)):
                    record = asked(record)
                self._save(request, dataclasses.replace(record, error=error))
            elif task is not None:
                self._end(request, record, task)

        with ThreadPoolExecutor(threads(THREADS), thread_name_prefix="landing") as pool:
            for done in [pool.submit(settle, one) for one in ended]:
                done.result()

    def _end(self, request: Request, record: Record, task: MediaTask) -> None:
        """Lands what *task* made, if that is wanted, and notes what became of the request."""
        arguments = record.arguments or {}
        cost = self.guards.prices.told(record.operation, task)
        if record.finished_at is None:
            costs.count(cost, task, record, self.context)
        result = {
            **dataclasses.replace(task, operation=record.operation).to_dict(),
            "media_conn_id": record.media_conn_id,
            "provider": record.provider,
            "arguments": arguments,
            "model": arguments.get("model"),
            "cost": cost,
            "submitted_at": record.submitted_after,
            "finished_at": record.finished_at or now().isoformat(),
            "made_by": {**made_by(self.context["ti"]), "request": request.number},
        }
        error = task.error
        if task.status is TaskStatus.SUCCEEDED and error is None and self.operator.save_to is not None:
            try:
                result = self._land(request, result, self.operator.save_to)
            except MediaTaskError as trouble:
                error = trouble
        if error is not None:
            self.log.warning("request %d: %s", request.number, error)
        made = task.status is TaskStatus.SUCCEEDED and task.error is None
        self._save(
            request,
            dataclasses.replace(
                record,
                # What was made and has not landed is what a clear, too, goes on with.
                phase="adopted" if made and error is not None else "finished",
                generation=self._generation,
                finished_at=result["finished_at"],
                result=result,
                error=None if error is None else error.to_dict(),
                spent=self.guards.spent(request, record, task),
            ),
        )

    def _land(self, request: Request, result: dict[str, Any], save_to: str) -> dict[str, Any]:
        to = self.operator.place_of(self.context, save_to, request=request.number)
        made = storage.made_of(result, [self.hook.media_conn_id])
        (landed,) = storage.land(made, to, self.log, self.decoder, patience=self.patience)
        return storage.with_landed(result, landed)

    # Telling.

    def report(self) -> dict[str, Any]:
        """Writes the results and returns the manifest; raises if the batch has not succeeded."""
        for request in self.requests:
            if request.number not in self.records:
                self.records[request.number] = self._record(request)
        lines = [line_of(request, self._current(request), self.stopped_by) for request in self.requests]
        storage.publish_text(text_of(lines), self.results)
        good = [line for line in lines if line["error"] is None]
        bad = [line for line in lines if line["error"] is not None]
        ti = self.context["ti"]
        manifest = {
            "results": str(self.results),
            **summary_of(lines),
            "provider": self.hook.conn_type,
            "media_conn_id": self.hook.media_conn_id,
            "made_by": made_by(ti),
        }
        self.log.info(
            "%d of %d requests succeeded%s: %s",
            len(good),
            len(lines),
            "".join(f", {count} {name}" for name, count in manifest["errors"].items()),
            self.results,
        )
        self.operator.tell_of(
            self.context, [document(self._result(line["number"]), line["files"]) for line in good]
        )
        try:
            self._judge(good, bad)
        except MediaTaskError:
            ti.xcom_push(key="media_batch", value=manifest)
            raise
        return manifest

    def _current(self, request: Request) -> Record | None:
        """The request's record, if it is of what is asked for now."""
        record = self.records[request.number]
        return record if record is not None and record.fingerprint == self._fingerprint(request) else None

    def _result(self, number: int) -> Mapping[str, Any]:
        record = self.records[number]
        return record.result if record is not None and record.result is not None else {}

    def _judge(self, good: Sequence[Mapping[str, Any]], bad: Sequence[Mapping[str, Any]]) -> None:
        """Raises unless the batch has succeeded, as the operator's arguments have it."""
        total = len(good) + len(bad)
        first = f"; the first, request {bad[0]['number']}: {bad[0]['error']['message'][:500]}" if bad else ""
        ti = self.context["ti"]
        again = [line for line in bad if not isinstance(error_from_dict(line["error"]), _FINAL)]
        if again and ti.try_number <= ti.max_tries:
            raise MediaProviderError(
                f"{len(again)} of {total} requests failed and may yet succeed: the next try submits them, "
                f"and nothing else, again{first}"
            )
        if self.stopped_by is not None and not good:
            raise self.stopped_by
        wanted = self.operator.min_success
        least = wanted * total if type(wanted) is float else wanted
        if len(good) < least or (bad and self.operator.on_partial_failure == FAIL):
            raise MediaTaskFailed(
                f"{len(bad)} of {total} requests failed, at least {least:g} had to succeed{first}"
                if self.operator.on_partial_failure == KEEP
                else f"{len(bad)} of {total} requests failed{first}",
                code="partial_failure",
            )


def _waiting(request: Request, record: Record) -> list[Any]:
    return [request.number, record.media_task_id, request.operation, moment_of(record), time.time()]


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise MediaRequestError(f"{name} must be one of {', '.join(allowed)}, got {shown(value)}")


def _at_least_one(name: str, value: Any) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise MediaRequestError(f"{name} must be a whole number from 1, or None, got {shown(value)}")
