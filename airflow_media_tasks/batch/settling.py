"""What has ended of a batch is landed and noted."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from airflow_media_tasks.batch.batch import THREADS, Batch, Stand
from airflow_media_tasks.batch.requests import Request
from airflow_media_tasks.deferring import made_by
from airflow_media_tasks.landing import storage
from airflow_media_tasks.submissions import metrics
from airflow_media_tasks.submissions.records import Record, asked, now, recordable, threads
from airflow_media_tasks.task import (
    MediaNotFoundError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    MediaTaskTimeout,
    TaskStatus,
)
from airflow_media_tasks.triggers import numbers_of


TOLD_EVERY = 15.0
"""Seconds after which the log says again how far the batch is."""
WRITTEN_EVERY = 10.0
"""Seconds after which what has landed is written down while a page of requests lands."""
_KEPT = ("id", "status", "url", "urls", "files", "cost", "created_at", "finished_at", "material")


class Settling:
    """Ends requests of a *batch*: lands what they have made, and notes what became of them."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.patience = threading.Event()
        self._told = self._written = time.monotonic()

    def settle(self, event: Mapping[str, Mapping[int, int]]) -> None:
        """Notes and lands what has ended, page by page."""
        self.patience.clear()
        many = threads(THREADS)
        with self.batch.hook, ThreadPoolExecutor(many, thread_name_prefix="landing") as pool:
            for page in self.batch.state.open:
                numbers = [
                    number
                    for name in ("ended", "gave_up")
                    for number in numbers_of(page, event[name].get(page, 0))
                    if self.batch.stand(self.batch.pages[number]) is Stand.WAITING
                ]
                if numbers:
                    self._settle_page(pool, numbers)
                    self._write()
        self.batch.state.open = [page for page in self.batch.state.open if self._is_under_way(page)]
        self.batch.write()

    def _is_under_way(self, page: int) -> bool:
        records = self.batch.pages.page(page).values()
        return any(self.batch.stand(record) is Stand.WAITING for record in records)

    def _write(self) -> None:
        """What has landed is not landed again, whatever becomes of this worker."""
        self.batch.write(whole=False)
        self._written = time.monotonic()

    def _settle_page(self, pool: ThreadPoolExecutor, numbers: Sequence[int]) -> None:
        records = {number: record for number in numbers if (record := self.batch.pages[number]) is not None}
        answers = self._read(pool, [str(record.media_task_id) for record in records.values()])
        requests = {one.number: one for one in self.batch.requests.some(self.batch.pages.keys(list(records)))}
        landings = {}
        for number, record in records.items():
            task = answers.get(str(record.media_task_id))
            if not isinstance(task, MediaTask) or not task.status.is_terminal:
                self._gave_up(number, record, task)
                continue
            result = self._result(requests[number], record, task)
            landings[pool.submit(self._land, requests[number], result, task)] = (number, record, task)
        for landing in as_completed(landings):
            number, record, task = landings[landing]
            self.batch.state.waiting -= 1
            self._ended(requests[number], record, task, *landing.result())
            self._tell()
            if time.monotonic() - self._written > WRITTEN_EVERY:
                self._write()

    def _read(
        self, pool: ThreadPoolExecutor, media_task_ids: Sequence[str]
    ) -> dict[str, MediaTask | MediaTaskError]:
        """The tasks as they are now, as far as the provider shows them, or why one cannot be asked for."""
        together = max(self.batch.hook.batch_size, math.ceil(len(media_task_ids) / THREADS))
        chunks = [
            media_task_ids[start : start + together] for start in range(0, len(media_task_ids), together)
        ]
        found: dict[str, MediaTask | MediaTaskError] = {}
        for some in pool.map(self._read_some, chunks):
            found |= some
        return found

    def _read_some(self, media_task_ids: Sequence[str]) -> dict[str, MediaTask | MediaTaskError]:
        try:
            return {**self.batch.hook.get_tasks(media_task_ids)}
        except MediaRequestError as error:
            if len(media_task_ids) == 1:
                return {media_task_ids[0]: error}
            # It is about one of them.
            return {one: task for some in media_task_ids for one, task in self._read_some([some]).items()}

    def _gave_up(self, number: int, record: Record, task: MediaTask | MediaTaskError | None) -> None:
        """A task that this try does not wait for any longer; it may yet end well, and the next try looks."""
        error: MediaTaskError
        if not isinstance(task, MediaTask):
            error = task or MediaNotFoundError(
                f"{self.batch.hook.conn_type} does not show {record.media_task_id} at present",
                provider=self.batch.hook.conn_type,
                media_task_id=record.media_task_id,
            )
            # A person may give it up.
            record = asked(record)
        else:
            error = MediaTaskTimeout(
                f"{task.id} is still {task.status} (the provider's word: {task.status_word!r}); it was not "
                "cancelled and may still finish and be billed, and the next try waits for it again",
                code="timeout",
                media_task_id=task.id,
            )
        self.batch.log.warning("request %d: %s", number, error)
        failed = dataclasses.replace(record, failure=type(error).__name__)
        self.batch.pages[number] = self.batch.pages.end(failed, {"error": error.to_dict()})
        self.batch.state.waiting -= 1
        self.batch.state.failed += 1

    def end(self, request: Request, record: Record, task: MediaTask) -> None:
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
            **({"material": told} if (told := self.batch.materials.told(request.arguments)) else {}),
            "cost": self.batch.guards.prices.told(record.operation, task),
            "submitted_at": record.submitted_after,
            "finished_at": record.finished_at or now().isoformat(),
            "made_by": {**made_by(self.batch.context), "request": request.number},
        }

    def _land(
        self, request: Request, result: dict[str, Any], task: MediaTask
    ) -> tuple[dict[str, Any], MediaTaskError | None]:
        """*result* with where its files are now, and what kept them from landing."""
        if (
            task.error is not None
            or task.status is not TaskStatus.SUCCEEDED
            or self.batch.operator.save_to is None
        ):
            return result, task.error
        # In a table that has changed, another request may have landed under this one's number.
        name = request.key if self.batch.state.tables else request.number
        to = self.batch.operator.place_of(self.batch.context, self.batch.operator.save_to, request=name)
        made = storage.made_of(result, [self.batch.hook.media_conn_id])
        try:
            (landed,) = storage.land(made, to, self.batch.log, self.batch.decoder, patience=self.patience)
        except MediaTaskError as trouble:
            return result, trouble
        return storage.with_landed(result, landed), None

    def _ended(
        self,
        request: Request,
        record: Record,
        task: MediaTask,
        result: dict[str, Any],
        error: MediaTaskError | None,
    ) -> None:
        if record.finished_at is None:
            metrics.ended(record, request.arguments, task, self.batch.context)
            metrics.spent(result["cost"], record, request.arguments, task, self.batch.context)
        made_it = task.status is TaskStatus.SUCCEEDED and task.error is None
        if record.finished_at is None or record.made is None:
            # What has ended before, and did not land then, has been counted with its result.
            self.batch.state.charge(result["cost"], made=task.status is TaskStatus.SUCCEEDED)
        if error is not None:
            self.batch.log.warning("request %d: %s", request.number, error)
        record = self.batch.guards.settle(record, request.arguments, task)
        record = dataclasses.replace(
            record,
            # What was made and has not landed is what a clear, too, goes on with.
            phase="adopted" if made_it and error is not None else "finished",
            generation=self.batch.generation,
            finished_at=result["finished_at"],
            failure=None if error is None else type(error).__name__,
        )
        kept = {name: value for name, value in result.items() if name in _KEPT}
        made = {"result": kept, "error": None if error is None else error.to_dict()}
        self.batch.pages[request.number] = self.batch.pages.end(record, made)
        self.batch.state.succeeded += error is None
        self.batch.state.failed += error is not None
        self.batch.state.landed += sum("path" in file for file in result["files"])
        self.batch.operator.note_landed(self.batch.entries, result["files"])

    def _tell(self) -> None:
        """A line now and then, for whoever watches."""
        now = time.monotonic()
        if now - self._told < TOLD_EVERY:
            return
        self._told = now
        state = self.batch.state
        self.batch.log.info(
            "%d of %d requests have ended (%d failed), %d files have landed; %d are under way",
            state.succeeded + state.failed,
            state.total,
            state.failed,
            state.landed,
            state.waiting,
        )
