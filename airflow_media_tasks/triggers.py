"""`MediaTaskTrigger` waits for a provider's task, `TurnTrigger` for a submission's next chance."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from airflow.sdk.execution_time.context import AssetStateStoreAccessor

from airflow_media_tasks.submissions.records import PAGE, SUBMISSIONS
from airflow_media_tasks.task import (
    MediaProviderError,
    MediaTask,
    MediaTaskError,
    MediaTaskTimeout,
    TaskStatus,
    error_from_dict,
    shown,
)
from airflow_media_tasks.waiting.accounts import LONGEST_RATE_LIMIT
from airflow_media_tasks.waiting.firing import CancelsWhenKilled, Fires, fit, moment
from airflow_media_tasks.waiting.poller import Poller
from airflow_media_tasks.waiting.watches import Watch


REPORT_INTERVAL = 60.0
"""Seconds after which a waiting task's log says again how far it is; twice as many each time, up to
`LONGEST_SILENCE`, because the lines of ten thousand tasks are work, too."""
LONGEST_SILENCE = 600.0
PROGRESS_STEP = 0.25
"""How much further a task must be to be worth a line."""
LONGEST_WAIT = 1e9
"""Seconds for which anything is waited for, at most."""
_NOT_TOO_SHORT = 6.0
"""Seconds: a deferral that ends sooner meets a race of Airflow's scheduler (apache/airflow#71580)."""


@dataclass(frozen=True)
class Turn:
    """The wait of a submission that a provider had no room for.

    :param since: unix seconds of the first attempt.
    :param refusals: how often it was refused.
    """

    since: float
    refusals: int = 0

    @classmethod
    def of_event(cls, event: Any) -> Turn:
        """The turn that `TurnTrigger` hands on. Raises ValueError for an event of another kind."""
        try:
            since, refusals = moment(event["since"], time.time()), event.get("refusals") or 0
            if not isinstance(refusals, int) or refusals < 0:
                raise ValueError(f"refusals is {shown(refusals)}")
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(
                f"the trigger's event is no turn: {shown(event, 200)} ({error!r:.100})"
            ) from None
        return cls(since, min(refusals, 1000))

    def next_try(self, retry_after: float | None) -> float:
        """Unix seconds: not before the provider said, and later each time, up to a minute, with jitter.

        One that says "in a second" again and again would cost Airflow a worker's start each time, and
        deferrals as short as that meet a race of its scheduler which uses up a try (apache/airflow#71580).
        One that says "tomorrow" is asked again after `LONGEST_RATE_LIMIT`.
        """
        pause = max(min(5.0 * 2.0 ** min(self.refusals, 10), 60.0), retry_after or 0.0)
        pause *= random.uniform(1.0, 1.2)  # noqa: S311  # spreads requests, guards nothing
        return time.time() + min(pause, LONGEST_RATE_LIMIT)


class TurnTrigger(Fires):
    """Fires at a moment, so that a refused submission can be tried again on a worker.

    :param until: unix seconds; one that is further ahead than `LONGEST_RATE_LIMIT` is not waited for.
    :param since: see `Turn`.
    :param refusals: see `Turn`.
    """

    def __init__(self, until: float, since: float, refusals: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's signature has no types
        self.until = until
        self.since = since
        self.refusals = refusals

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class's path and its arguments, as Airflow stores them."""
        arguments = {"until": self.until, "since": self.since, "refusals": self.refusals}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def _event(self) -> dict[str, Any]:
        """The turn."""
        now = time.time()
        await asyncio.sleep(max(moment(self.until, now + LONGEST_RATE_LIMIT) - now, 0.0))
        return {"since": self.since, "refusals": self.refusals}


@dataclass(frozen=True, slots=True)
class _Limits:
    """When a wait began and when it ends, in unix seconds."""

    began: float
    submitted_at: float | None
    deadline: float
    queue_deadline: float

    @property
    def since(self) -> float:
        """When the task was submitted, as far as that is known."""
        return self.began if self.submitted_at is None else self.submitted_at

    def ends(self, task: MediaTask | None) -> float:
        """When *task*, as it is now, is not waited for any longer."""
        queued = task is None or task.status is TaskStatus.QUEUED
        return self.queue_deadline if queued else self.deadline


class MediaTaskTrigger(CancelsWhenKilled):
    """Fires once, when a provider's task is finished or no longer worth waiting for.

    The event is the dict of a `MediaTask`. Its `error` says why a task failed, could not be read any more
    (`MediaNotFoundError` and the like) or was not waited for any longer (`MediaTaskTimeout`, with the last
    known status). All arguments are JSON scalars, and none is a secret: they are stored in clear text.

    :param media_task_id: the task's handle.
    :param media_conn_id: the account it was submitted with.
    :param poll_interval: seconds between two looks.
    :param deadline: unix seconds after which nobody waits any longer; absolute, so it survives restarts.
    :param queue_deadline: the same for a task that the provider has not begun yet, or None.
    :param operation: what was submitted; a provider does not always say it.
    :param submitted_at: unix seconds, if known: the first look comes when the operation can be done.
    """

    def __init__(
        self,
        media_task_id: str,
        media_conn_id: str,
        poll_interval: float,
        deadline: float,
        queue_deadline: float | None = None,
        operation: str = "",
        submitted_at: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's signature has no types
        self.media_task_id = media_task_id
        self.media_conn_id = media_conn_id
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.queue_deadline = queue_deadline
        self.operation = operation
        self.submitted_at = submitted_at

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class's path and its arguments, as Airflow stores them."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "media_task_id": self.media_task_id,
                "media_conn_id": self.media_conn_id,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
                "queue_deadline": self.queue_deadline,
                "operation": self.operation,
                "submitted_at": self.submitted_at,
            },
        )

    @property
    def media_task_ids(self) -> Sequence[str]:
        """The one."""
        return [self.media_task_id]

    async def _event(self) -> dict[str, Any]:
        """The task."""
        return (await self.wait()).to_dict()

    async def wait(self, *, quietly: bool = False) -> MediaTask:
        """The task once it is terminal, or as it last was, with the error that ended the wait.

        :param quietly: without a line in the log.
        """
        began = time.time()
        try:
            for name in ("media_task_id", "media_conn_id", "operation"):
                if not isinstance(getattr(self, name), str):
                    raise TypeError(f"{name} of the trigger is no text")
            deadline = moment(self.deadline, began + LONGEST_WAIT)
            queue_deadline = (
                deadline
                if self.queue_deadline is None
                else min(moment(self.queue_deadline, deadline), deadline)
            )
            submitted_at = None if self.submitted_at is None else moment(self.submitted_at, began)
            poller, watch = Poller.watch(
                self.media_conn_id, self.media_task_id, self.poll_interval, self.operation, submitted_at
            )
            try:
                limits = _Limits(began, submitted_at, deadline, queue_deadline)
                return await self._watched(poller, watch, limits, quietly)
            finally:
                poller.forget(watch)
        except Exception as error:  # noqa: BLE001  # one that nobody foresaw ends this wait only
            return self._gave_up(None, error)

    async def _watched(self, poller: Poller, watch: Watch, limits: _Limits, quietly: bool) -> MediaTask:
        silence = REPORT_INTERVAL
        next_report = limits.began + silence
        reported: MediaTask | None = None
        while True:
            task = watch.task
            if task is not None and task.status.is_terminal:
                return self._named(task)
            if watch.error is not None:
                return self._gave_up(task, watch.error)
            now = time.time()
            ends = limits.ends(task)
            if now >= ends:
                return self._gave_up(task, self._timeout(poller, watch, limits, now))
            changed = task is not None and _is_news(task, reported)
            if changed or now >= next_report:
                if not quietly:
                    self._report(poller, watch, limits, now)
                silence = REPORT_INTERVAL if changed else min(2 * silence, LONGEST_SILENCE)
                reported, next_report = task, now + silence
            await watch.changed(min(next_report, ends) - now)

    def _report(self, poller: Poller, watch: Watch, limits: _Limits, now: float) -> None:
        task, age = watch.task, now - limits.since
        status = "no answer yet" if task is None else str(task.status)
        if task is not None and task.progress is not None:
            status += f", {task.progress:.0%} done"
        usual = poller.usual(self.operation)
        clock = asyncio.get_running_loop().time()
        self.log.info(
            "%s: %s after %.0f s%s; %s, asked for again in %.0f s%s; waited for until %s",
            self.media_task_id,
            status,
            age,
            f" of about {usual:.0f}" if usual and age < usual else f", usually {usual:.0f}" if usual else "",
            "not asked for yet"
            if watch.asked_at is None
            else f"asked for {clock - watch.asked_at:.0f} s ago",
            poller.next_look(watch) - clock,
            _trouble(poller, watch, clock),
            _utc(limits.ends(task)),
        )

    def _timeout(self, poller: Poller, watch: Watch, limits: _Limits, now: float) -> MediaTaskTimeout:
        task = watch.task
        ends, waited = limits.ends(task), now - limits.began
        in_queue = ends < limits.deadline
        if limits.began >= ends:
            status = f"was not seen in {now - limits.since:.0f} s" if limits.since < ends else "was not seen"
            status += f" (no triggerer was running it when its time ended, at {_utc(ends)})"
        elif watch.asked_at is None:
            status = f"was not asked for in {waited:.0f} s of waiting"
        elif task is None:
            status = f"was never shown in {waited:.0f} s of waiting"
        else:
            status = (
                f"is still {task.status} (the provider's word: {task.status_word!r}) "
                f"after {waited:.0f} s of waiting"
            )
        return MediaTaskTimeout(
            f"{self.media_task_id} {status}{' in the queue' if in_queue else ''}; it was not cancelled and "
            f"may still finish and be billed{_trouble(poller, watch, asyncio.get_running_loop().time())}",
            code="queue_timeout" if in_queue else "timeout",
            media_task_id=self.media_task_id,
        )

    def _gave_up(self, task: MediaTask | None, error: BaseException) -> MediaTask:
        if not isinstance(error, MediaTaskError):
            self.log.error("%s", fit("".join(traceback.format_exception(error))))
            error = MediaProviderError(f"the wait failed: {type(error).__name__}: {error!s:.500}")
        # The same error may have come to every task of a batch.
        message, media_task_id = error.message, str(self.media_task_id)
        if media_task_id not in message:
            message = f"{media_task_id} cannot be read: {message}"
        own = error_from_dict({**error.to_dict(), "message": message, "media_task_id": media_task_id})
        last = task or MediaTask(media_task_id, TaskStatus.QUEUED)
        return dataclasses.replace(self._named(last), error=own)

    def _named(self, task: MediaTask) -> MediaTask:
        # Whatever id the reply says: this one was asked for.
        return dataclasses.replace(
            task, id=str(self.media_task_id), operation=self.operation or task.operation
        )


class MediaBatchTrigger(CancelsWhenKilled):
    """Fires once, when enough of a batch's requests have ended to go on with it, or all of them.

    Which requests are under way it reads from the copies of their records: its arguments and its event stay
    small, whatever the size of the batch. The event is `{"ended": {page: bits}, "gave_up": {page: bits}}`, in
    which bit n of the hexadecimal *bits* is the request at place n of the page: those that have ended, and
    those that nobody waits for any longer. No results: whoever resumes reads them.

    :param media_conn_id: the account.
    :param poll_interval: seconds between two looks.
    :param timeout: seconds for which each request is waited for.
    :param queue_timeout: the same for one that the provider has not begun yet, or None.
    :param wake_after: how many must have ended.
    :param until: unix seconds at which it fires in any case, because a refused submission may be tried again;
        at most `LONGEST_RATE_LIMIT` ahead.
    :param copies: what the keys of the pages' copies begin with.
    :param pages: those with requests under way.
    :param began: unix seconds at which this try began: nothing is given up sooner than *timeout* after it.
    :param of_an_earlier_version: what the first version's trigger has besides; then it fires soon, and the
        worker takes the records over.
    """

    def __init__(
        self,
        media_conn_id: str,
        poll_interval: float,
        timeout: float,
        queue_timeout: float | None,
        wake_after: int,
        until: float | None,
        copies: str = "",
        pages: Sequence[int] = (),
        began: float = 0.0,
        **of_an_earlier_version: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's signature has no types
        self.media_conn_id = media_conn_id
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.queue_timeout = queue_timeout
        self.wake_after = wake_after
        self.until = until
        self.copies = copies
        self.pages = pages
        self.began = began
        self._of_an_earlier_version = of_an_earlier_version
        self._waiting: dict[int, MediaTaskTrigger] = {}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class's path and its arguments, as Airflow stores them."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "media_conn_id": self.media_conn_id,
                "poll_interval": self.poll_interval,
                "timeout": self.timeout,
                "queue_timeout": self.queue_timeout,
                "wake_after": self.wake_after,
                "until": self.until,
                "copies": self.copies,
                "pages": list(self.pages),
                "began": self.began,
                **self._of_an_earlier_version,
            },
        )

    @property
    def media_task_ids(self) -> Sequence[str]:
        """All that are under way."""
        return [one.media_task_id for one in self._waiting.values()]

    async def _event(self) -> dict[str, Any]:
        """How far the batch is."""
        return await self.wait()

    async def wait(self) -> dict[str, Any]:
        """The event, once it is time for it."""
        if self._of_an_earlier_version:
            await asyncio.sleep(_NOT_TOO_SHORT)
            return {"ended": {}, "gave_up": {}}
        self._waiting = await asyncio.to_thread(self._read)
        ended: dict[int, MediaTask] = {}
        enough = asyncio.Event()

        async def wait_for(number: int, trigger: MediaTaskTrigger) -> None:
            try:
                ended[number] = await trigger.wait(quietly=True)
                if len(ended) >= self.wake_after or len(ended) == len(self._waiting):
                    enough.set()
            except Exception:
                enough.set()
                raise

        if not self._waiting and self.until is None:
            enough.set()
        waits = [asyncio.create_task(wait_for(*one)) for one in self._waiting.items()]
        try:
            await self._until(enough, ended)
        finally:
            for wait in waits:
                wait.cancel()
            outcomes = await asyncio.gather(*waits, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return {
            "ended": _bits_of(number for number, task in ended.items() if task.status.is_terminal),
            "gave_up": _bits_of(number for number, task in ended.items() if not task.status.is_terminal),
        }

    def _read(self) -> dict[int, MediaTaskTrigger]:
        """A trigger for each request under way, as the copies have them. Blocking."""
        copies = AssetStateStoreAccessor(name=SUBMISSIONS.name)
        found = {}
        for page in self.pages:
            records: Any = copies.get(f"{self.copies}{page}", {})
            for number, record in records.items():
                if record.get("phase") in ("submitted", "adopted") and not record.get("failure"):
                    found[int(number)] = self._trigger_of(record)
        if not found and self.pages:
            raise MediaProviderError(
                f"the copies of the batch's records ({self.copies}) show nothing under way; a retry finds out"
            )
        return found

    def _trigger_of(self, record: Mapping[str, Any]) -> MediaTaskTrigger:
        now = time.time()
        submitted_at = min(datetime.fromisoformat(record["submitted_after"]).timestamp(), now)
        since = max(moment(self.began, now), submitted_at)
        return MediaTaskTrigger(
            record["media_task_id"],
            self.media_conn_id,
            self.poll_interval,
            since + self.timeout,
            None if self.queue_timeout is None else since + self.queue_timeout,
            record["operation"],
            submitted_at,
        )

    async def _until(self, enough: asyncio.Event, ended: Mapping[int, MediaTask]) -> None:
        """Sleeps until enough have ended, and says now and then how many have."""
        began, silence = time.time(), REPORT_INTERVAL
        until = None if self.until is None else moment(self.until, began + LONGEST_RATE_LIMIT)
        while not enough.is_set():
            now = time.time()
            if until is not None and now >= until:
                return
            pause = silence if until is None else min(silence, until - now)
            try:
                await asyncio.wait_for(enough.wait(), pause)
            except asyncio.TimeoutError:
                if pause == silence:
                    silence = min(2 * silence, LONGEST_SILENCE)
                    self.log.info(
                        "%d of %d requests under way have ended after %.0f s",
                        len(ended),
                        len(self._waiting),
                        time.time() - began,
                    )
        # What ends together is told together.
        await asyncio.sleep(self.poll_interval if 0.0 < self.poll_interval < 1.0 else 1.0)


def _bits_of(numbers: Iterable[int]) -> dict[str, str]:
    """*numbers* by their page, each a bit."""
    pages: defaultdict[int, int] = defaultdict(int)
    for number in numbers:
        pages[number // PAGE] |= 1 << (number % PAGE)
    return {str(page): f"{bits:x}" for page, bits in sorted(pages.items())}


def checked_event(event: Any) -> dict[str, dict[int, int]]:
    """What a `MediaBatchTrigger` tells: the bits of `ended` and `gave_up`, by page.

    The first version's event, which names numbers, tells nothing: the records do.

    :raises MediaProviderError: for an event of another kind; the next try finds out.
    """
    try:
        if isinstance(event["ended"], list):
            return {"ended": {}, "gave_up": {}}
        return {
            name: {int(page): int(bits, 16) for page, bits in event[name].items()}
            for name in ("ended", "gave_up")
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise MediaProviderError(f"the trigger's event is no state of a batch: {shown(event, 200)}") from None


def numbers_of(page: int, bits: int) -> list[int]:
    """The numbers of the requests on *page* whose bit is set."""
    return [page * PAGE + place for place in range(PAGE) if bits >> place & 1]


def _trouble(poller: Poller, watch: Watch, clock: float) -> str:
    """Why a task cannot be read, for a person; nothing if all is well."""
    account = poller.account
    if not account.trouble:
        return f"; it cannot be read: {watch.failure}" if watch.failure else ""
    ago = clock - account.failed_at
    return f"; status requests of {poller.media_conn_id} fail, the last {ago:.0f} s ago: {account.trouble}"


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _is_news(task: MediaTask, reported: MediaTask | None) -> bool:
    """Whether a person would want a line about *task*, who has read the one about *reported*."""
    if reported is None or task.status is not reported.status:
        return True
    return (task.progress or 0.0) - (reported.progress or 0.0) >= PROGRESS_STEP
