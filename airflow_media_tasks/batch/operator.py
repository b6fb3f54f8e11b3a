"""Many generations in one Airflow task: each is paid for once, and what one meets is its own affair."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar

from airflow.sdk import Context, RetryPolicy, XComArg
from typing_extensions import Unpack

from airflow_media_tasks.batch.batch import FAIL, KEEP, Batch
from airflow_media_tasks.batch.reporting import report
from airflow_media_tasks.batch.settling import Settling
from airflow_media_tasks.batch.submitting import Submitting
from airflow_media_tasks.hooks.base import default_conn_id
from airflow_media_tasks.landing.operators import LandsMedia
from airflow_media_tasks.links import MediaResultLink, ProviderConsoleLink
from airflow_media_tasks.material import verification
from airflow_media_tasks.parameters import Parameter, TaskArguments, interval, seconds, share, whole_number
from airflow_media_tasks.retries import MediaRetryPolicy
from airflow_media_tasks.submissions.records import KeepsRecords
from airflow_media_tasks.submissions.submission import ON_UNKNOWN, STOP
from airflow_media_tasks.task import MediaRequestError, shown
from airflow_media_tasks.triggers import MediaBatchTrigger, checked_event
from airflow_media_tasks.wire.prices import Price, decimal_of, limit_of


class GenerateMediaBatchOperator(KeepsRecords, LandsMedia):
    """Generates many things in one Airflow task: one state, one log, one trigger.

    Each request is submitted once, under the same protocol as a `MediaTaskOperator`'s: a killed worker goes
    on where it was. The result (XCom) is a small manifest: `results` (path of the JSON lines, one for each
    request in order), `results_sha256` and `results_size` (bytes) of that file, `total`, `submitted`,
    `succeeded`, `failed`, `errors` (how many of each class), `cost` (as charged, a sum for each unit),
    `estimated` (by the price table, of what was made without the provider saying its price), `money` (both in
    money, as far as the price table gives it), `urls` and `paths` (the first ten),
    `operation`, `provider`, `media_conn_id`, `made_by`. A line of the results has `number`, `key` (the same
    wherever the request stands in the table), `operation`, `arguments`, `status`, `media_task_id`, `url`,
    `urls`, `files`, `cost`, `error`, `submitted_at`, `finished_at`.

    A retry submits only what failed and may succeed. A clear, too, keeps what was made: it submits only what
    failed, and what was paid and then refused by moderation only with *retry_moderated*.

    :param requests: dicts of arguments, each perhaps with an `operation` of its own; or the object storage
        path of a file with one such JSON object a line (templated).
    :param results: object storage path (`.jsonl`) for what became of each; default `batch.jsonl` where the
        files go, if *save_to* is a folder (templated).
    :param media_conn_id: connection of the account (templated); default as of `MediaTaskOperator`.
    :param operation: for requests that name none (templated).
    :param arguments: for requests that do not give them (templated).
    :param save_to: where to land what is made, as of `MediaTaskOperator`; `{map_index}` is the request's
        number (templated).
    :param concurrency: requests under way at the provider at once; default as many as it takes (templated, as
        all other numbers).
    :param max_items: how many requests there may be; default any number.
    :param on_partial_failure: None (default): all requests but those that moderation refused must succeed,
        and at least one. `keep`: at least *min_success* must, also after a guard has stopped the rest.
        `fail`: all must. In each case the results are written and what was made is landed, and a try that is
        not the last is retried for what may yet succeed.
    :param min_success: for `keep`, which need not be said then: a whole number of requests (`1` is one), or a
        share of them as a float from 0.0 to 1.0 (`1.0` is all of them); default 1.
    :param on_bad_request: `fail` (default) submits nothing if there are requests that cannot be sent, and
        names them; `keep` makes that the error of each of them, which counts as failed.
    :param retry_moderated: see above; default False.
    :param max_cost: what all submissions of this batch together may cost, those of earlier tries and clears
        among them, as of `MediaTaskOperator`; default no limit. What it leaves no room for is not submitted.
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
        "concurrency",
        "max_items",
        "min_success",
        "max_cost",
        "min_balance",
        "poll_interval",
        "timeout",
        "queue_timeout",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"requests": "json", "arguments": "json"}
    operator_extra_links = (MediaResultLink(), ProviderConsoleLink())
    ui_color = "#e8def8"

    concurrency: Parameter[int | None] = Parameter(whole_number, optional=True)
    max_items: Parameter[int | None] = Parameter(whole_number, optional=True)
    min_success: Parameter[float | None] = Parameter(share, optional=True)
    max_cost: Parameter[Price | None] = Parameter(limit_of, optional=True, read=str)
    min_balance: Parameter[Decimal | None] = Parameter(decimal_of, optional=True, read=str)
    poll_interval = Parameter(interval)
    timeout = Parameter(seconds)
    queue_timeout: Parameter[float | None] = Parameter(seconds, optional=True)

    def __init__(
        self,
        *,
        requests: Sequence[Mapping[str, Any]] | str | XComArg,
        media_conn_id: str | XComArg | None = None,
        results: str | XComArg | None = None,
        operation: str | XComArg | None = None,
        arguments: Mapping[str, Any] | str | XComArg | None = None,
        save_to: str | XComArg | None = None,
        concurrency: int | str | XComArg | None = None,
        max_items: int | str | XComArg | None = None,
        on_partial_failure: str | None = None,
        min_success: float | str | XComArg | None = None,
        on_bad_request: str = FAIL,
        retry_moderated: bool = False,
        max_cost: str | int | Decimal | XComArg | None = None,
        min_balance: str | int | Decimal | XComArg | None = None,
        poll_interval: float | timedelta | str | XComArg = 10.0,
        timeout: float | timedelta | str | XComArg = 3600.0,
        queue_timeout: float | timedelta | str | XComArg | None = None,
        deferrable: bool = True,
        on_unknown_submission: str = STOP,
        retry_policy: RetryPolicy | None = None,
        **kwargs: Unpack[TaskArguments],
    ) -> None:
        super().__init__(retry_policy=retry_policy or MediaRetryPolicy(), **kwargs)
        if on_partial_failure is not None:
            _one_of("on_partial_failure", on_partial_failure, (KEEP, FAIL))
        _one_of("on_bad_request", on_bad_request, (FAIL, KEEP))
        _one_of("on_unknown_submission", on_unknown_submission, ON_UNKNOWN)
        self.requests: Any = requests
        self.media_conn_id: Any = default_conn_id(operation) if media_conn_id is None else media_conn_id
        self.results: Any = results
        self.operation: Any = operation
        self.arguments: Any = arguments
        self.save_to: Any = save_to
        self.concurrency = concurrency
        self.max_items = max_items
        self.on_partial_failure = on_partial_failure
        self.min_success = min_success
        self.on_bad_request = on_bad_request
        self.retry_moderated = retry_moderated
        self.max_cost = max_cost
        self.min_balance = min_balance
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.queue_timeout = queue_timeout
        self.deferrable = deferrable
        self.on_unknown_submission = on_unknown_submission

    def execute(self, context: Context) -> dict[str, Any]:
        """Checks every request, finds out what became of those of earlier tries, and goes on from there."""
        with self.errors_shown(context), verification.Decoder() as decoder:
            batch = Batch(self, context, decoder)
            with batch.materials:
                batch.begin()
                return self._go_on(batch, Settling(batch))

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Lands what has ended, submits what there is room for, and waits again or tells the result."""
        with self.errors_shown(context), verification.Decoder() as decoder:
            ended = checked_event(event)
            batch = Batch(self, context, decoder)
            with batch.materials:
                batch.resume()
                settling = Settling(batch)
                settling.settle(ended)
                return self._go_on(batch, settling)

    def _go_on(self, batch: Batch, settling: Settling) -> dict[str, Any]:
        submitting = Submitting(batch, settling)
        while True:
            until = submitting.submit()
            if not batch.state.waiting and until is None:
                if not batch.is_done:
                    continue  # What there was room for has ended at once.
                return report(batch)
            trigger = self._trigger(batch, until)
            if self.deferrable:
                # The trigger keeps the deadlines itself; this is only for a triggerer that is gone.
                spare = timedelta(seconds=self.timeout + 600)
                self.defer(trigger=trigger, method_name="execute_complete", timeout=spare)
            settling.settle(checked_event(asyncio.run(trigger.wait())))

    def _trigger(self, batch: Batch, until: float | None) -> MediaBatchTrigger:
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


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise MediaRequestError(f"{name} must be one of {', '.join(allowed)}, got {shown(value)}")
