"""Where a batch stands: what earlier tries have left of it, and what this one writes down."""

from __future__ import annotations

import dataclasses
import time
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow.sdk import Context, ObjectStoragePath

from airflow_media_tasks.batch.guards import Guards
from airflow_media_tasks.batch.pages import BATCH, Pages, State
from airflow_media_tasks.batch.requests import Requests
from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.material import verification
from airflow_media_tasks.material.materials import Materials
from airflow_media_tasks.submissions.records import PAGE, Entries, Place, Record, generation_of
from airflow_media_tasks.submissions.submission import HOPELESS
from airflow_media_tasks.task import (
    MediaFile,
    MediaModerationError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    SubmissionOutcomeUnknown,
    error_class,
    error_from_dict,
    shown,
)


if TYPE_CHECKING:
    from airflow_media_tasks.batch.operator import GenerateMediaBatchOperator


THREADS = 8
"""Submissions under way at once, and landings."""
KEEP, FAIL = "keep", "fail"
FINAL = (*HOPELESS, SubmissionOutcomeUnknown)
"""Failures that the next try would meet again."""
_ACCEPTED = ("submitted", "adopted")


class Stand(Enum):
    """Where a request stands in this try."""

    OVER = "over"
    WAITING = "waiting"
    LEFT = "left"


class Batch:
    """A batch in the hands of one worker. All calls of the state store are made by the task's own thread."""

    def __init__(
        self, operator: GenerateMediaBatchOperator, context: Context, decoder: verification.Decoder
    ) -> None:
        self.operator, self.context, self.decoder = operator, context, decoder
        self.log = operator.log
        self.hook = get_media_hook(operator.media_conn_id)
        self.entries = Entries(context)
        self.materials = Materials(
            self.hook,
            self.log,
            operator.timeout + (operator.queue_timeout or 0),
            context["task_state_store"],
            self.entries.landed,
            decoder,
        )
        self.requests = Requests(
            self.hook,
            self.materials,
            operator.requests,
            operator.operation,
            operator.arguments,
            keep_bad=operator.on_bad_request == KEEP,
        )
        self.results = self._results_path()
        self.guards = Guards(self.hook, operator.max_cost, operator.min_balance)
        self.stopped_by: MediaTaskError | None = None
        """What ends the batch: the requests that are left would meet the same."""
        self.pages: Pages

    def _results_path(self) -> ObjectStoragePath:
        text = self.operator.results
        if text is None:
            save_to = self.operator.save_to
            if save_to is None or not save_to.endswith("/"):
                raise MediaRequestError(
                    "results must be the path of the file that says what became of each request; only where "
                    f"save_to is a folder it has a default, got save_to={shown(save_to)}"
                )
            name = "batch-{map_index}.jsonl" if Place.of(self.context).map_index >= 0 else "batch.jsonl"
            text = f"{save_to}{{dag_id}}/{{run_id}}/{{task_id}}/{name}"
        destination = self.operator.place_of(self.context, text)
        return destination.path(0, MediaFile("file", ""), None, "")

    def begin(self, *, resumed: bool = False) -> None:
        """Checks every request, and finds out what earlier tries have left.

        :param resumed: whether this try has deferred before.
        """
        keys = self.requests.checked(self.operator.max_items, self.guards.admit)
        self.materials.save()
        state = State(
            try_number=self.context["ti"].try_number,
            total=len(keys),
            kept=len(keys),
            provider=self.hook.conn_type,
            media_conn_id=self.hook.media_conn_id,
            began=time.time(),
            unit=self.guards.unit,
        )
        self.pages = Pages.of(self.entries, state, keys, self.same, self.log, resumed=resumed)
        self._look_around()
        self.write()

    def resume(self) -> None:
        """Goes on from what the worker before has written."""
        stored = self.entries.read(BATCH)
        state = None if stored is None else State.of(stored)
        if state is None or state.try_number != self.context["ti"].try_number:
            # It was an earlier version of this package that has deferred.
            self.begin(resumed=True)
            return
        self.materials.pin()
        self.pages = Pages(self.entries, state, self.same)
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
    def same(self) -> dict[str, Any]:
        """What all records have in common."""
        return {"media_conn_id": self.hook.media_conn_id, "provider": self.hook.conn_type}

    def write(self, *, whole: bool = True) -> None:
        """Writes everything down that has changed; only then may an intent be acted upon; as of `Pages`."""
        if self.guards.budget is not None:
            self.state.committed = f"{self.guards.budget.committed:f}"
        self.state.stopped = None if self.stopped_by is None else self.stopped_by.to_dict()
        self.pages.write(whole=whole)

    @property
    def generation(self) -> int:
        """See `generation_of`."""
        return generation_of(self.context)

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
                gave_up = record.phase in _ACCEPTED and record.finished_at is None
                if record.failure is not None and (gave_up or record.asked_at is not None):
                    # An earlier try gave it up, or asked: perhaps it has ended since, or there is an answer.
                    record = dataclasses.replace(record, failure=None)  # noqa: PLW2901  # the same, as it is now
                    self.pages[number] = record
                elif record.phase == "finished" and record.failure is None and record.made is None:
                    # Made, and a clear has discarded what it was: the provider is asked for it again.
                    record = dataclasses.replace(record, phase="adopted")  # noqa: PLW2901  # as above
                    self.pages[number] = record
                stand = self.stand(record)
                state.waiting += stand is Stand.WAITING
                state.succeeded += stand is Stand.OVER and record.failure is None
                state.failed += stand is Stand.OVER and record.failure is not None
                if stand is Stand.WAITING and page not in state.open:
                    state.open.append(page)
                    self.pages.touch(page)
        if self.handled:
            self.log.info(
                "of %d requests %d are over and %d under way since an earlier try; %d are to be submitted",
                state.total,
                state.succeeded + state.failed,
                state.waiting,
                state.total - self.handled,
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

    def stand(self, record: Record | None) -> Stand:
        """Whether a request is over, under way, or to be looked at: submitted, asked about, or landed."""
        if record is None:
            return Stand.LEFT
        if record.asked_at is not None and record.failure is None:
            # A person may have answered.
            return Stand.LEFT
        if record.phase in _ACCEPTED and record.failure is None:
            return Stand.WAITING
        if record.phase in _ACCEPTED:
            # Given up in this try; or it was made, and only its files have not landed.
            return Stand.OVER if record.finished_at is None else Stand.LEFT
        if record.phase == "finished" and record.failure is None:
            return Stand.OVER
        return Stand.OVER if record.failure is not None and self.is_final(record) else Stand.LEFT

    def is_final(self, record: Record) -> bool:
        """Whether nothing more is to be done about a request that has failed."""
        error = error_class(record.failure or "")
        if record.generation == self.generation:
            return issubclass(error, FINAL)
        moderated = record.phase == "finished" and issubclass(error, MediaModerationError)
        return moderated and not self.operator.retry_moderated

    @property
    def handled(self) -> int:
        """How many requests have ended or are under way."""
        return self.state.waiting + self.state.succeeded + self.state.failed

    @property
    def is_done(self) -> bool:
        """Whether this try has nothing more to submit."""
        return self.stopped_by is not None or (self.state.next >= self.state.total and not self.state.again)
