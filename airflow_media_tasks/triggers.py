"""`MediaTaskTrigger`, and the `Poller` that all triggers of one connection share.

Ten thousand triggers of one account wait on one poller: it asks for as many tasks at a time as the
provider allows, through one client, and tells each trigger about its own task alone.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import heapq
import itertools
import logging
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_media_tasks.hooks.base import MediaHook, get_media_hook
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaNotFoundError,
    MediaProviderError,
    MediaRateLimitError,
    MediaTask,
    MediaTaskError,
    MediaTaskTimeout,
    TaskStatus,
    error_from_dict,
)


log = logging.getLogger(__name__)

REPORT_INTERVAL = 60.0
"""Seconds between two lines in a waiting task's log."""
NOT_FOUND_GRACE = 120.0
"""Seconds for which a task that the provider does not show may still appear ([3] vap.md 4)."""
UNREADABLE_GRACE = 600.0
"""Seconds for which a task may be refused or unreadable before its trigger gives up."""
LONGEST_PAUSE = 120.0
"""Seconds between two questions to an account that does not answer, at most."""
OUTAGE_AFTER = 3
"""Failed requests in a row after which the account, not a task, is taken to be the trouble."""


class Watch:
    """One waiter's interest in one task: what is known of it, and a way to sleep until that changes."""

    __slots__ = (
        "asked",
        "company",
        "due",
        "error",
        "failing_since",
        "interval",
        "media_task_id",
        "task",
        "wake",
    )

    def __init__(self, media_task_id: str, interval: float, due: float) -> None:
        self.media_task_id = media_task_id
        self.interval = interval
        self.due = due
        self.task: MediaTask | None = None
        self.error: BaseException | None = None
        self.asked = 0
        self.company: int | None = None
        self.failing_since: float | None = None
        self.wake: asyncio.Future[None] | None = None

    async def changed(self, timeout: float) -> None:
        """Returns when the status has changed or cannot be read any more, or after *timeout* seconds."""
        self.wake = asyncio.get_running_loop().create_future()
        await asyncio.wait({self.wake}, timeout=max(timeout, 0.0))
        self.wake = None

    def tell(self) -> None:
        """Wakes the waiter."""
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)


class Poller:
    """Asks for every waiting task of one connection, in one event loop.

    It starts with its first watch and ends with its last. Requests are spread over the poll interval and
    batched where the provider can; a batch that is not full takes in the tasks that are due next, so that
    n tasks cost at most ceil(n / batch_size) requests an interval. A failed request delays its own tasks
    only; when several fail in a row, or the provider says 429, the whole account pauses, longer each time,
    and the outage and its end are logged once.
    """

    _of_loop: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]]] = WeakKeyDictionary()

    def __init__(self, media_conn_id: str) -> None:
        self.media_conn_id = media_conn_id
        self.trouble: str | None = None
        self._watches: set[Watch] = set()
        self._queues: dict[str, list[tuple[float, int, Watch]]] = {}
        self._order = itertools.count()
        self._news = asyncio.Event()
        self._requests: set[asyncio.Task[None]] = set()
        self._next_request = 0.0
        self._paused_until = 0.0
        self._failures = 0
        self._failed_at = 0.0
        # The poller's own lines must not land in the log file of the trigger that happened to start it.
        self._loop_task = contextvars.Context().run(asyncio.get_running_loop().create_task, self._run())

    @classmethod
    def watch(cls, media_conn_id: str, media_task_id: str, interval: float) -> tuple[Poller, Watch]:
        """Begins to ask about a task; call `forget` when done."""
        loop = asyncio.get_running_loop()
        pollers = cls._of_loop.setdefault(loop, {})
        poller = pollers.get(media_conn_id)
        if poller is None:
            poller = pollers[media_conn_id] = cls(media_conn_id)
        watch = Watch(media_task_id, interval, loop.time())
        poller._watches.add(watch)
        poller._schedule(watch)
        poller._news.set()
        return poller, watch

    def forget(self, watch: Watch) -> None:
        """Ends the interest; the poller ends with its last watch."""
        self._watches.discard(watch)
        self._news.set()

    def _schedule(self, watch: Watch) -> None:
        queue = self._queues.setdefault(MediaHook.group_of(watch.media_task_id), [])
        heapq.heappush(queue, (watch.due, next(self._order), watch))

    async def _run(self) -> None:
        pollers = self._of_loop[asyncio.get_running_loop()]
        try:
            hook = await asyncio.to_thread(get_media_hook, self.media_conn_id)
            hook.read_attempts = 1
            async with hook:
                await self._ask_until_nobody_waits(hook)
        except BaseException as error:
            # Without this a failure here would leave every trigger waiting until its deadline.
            for watch in self._watches:
                watch.error = error
                watch.tell()
            if not isinstance(error, Exception):
                raise
        finally:
            if pollers.get(self.media_conn_id) is self:
                del pollers[self.media_conn_id]

    async def _ask_until_nobody_waits(self, hook: MediaHook) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._watches:
                self._news.clear()
                now = loop.time()
                start = max(self._earliest(), self._next_request, self._paused_until)
                if start > now:
                    await self._sleep(start - now)
                    continue
                if len(self._requests) >= (1 if self.trouble else hook.max_connections):
                    await asyncio.wait(self._requests, return_when=asyncio.FIRST_COMPLETED)
                    continue
                batch = self._take(hook.batch_size)
                if not batch:
                    continue
                # As many requests as one round needs, evenly over the shortest interval of the round.
                rounds = max(len(self._watches) / hook.batch_size, 1.0)
                gap = min(watch.interval for watch in batch) / rounds
                self._next_request = max(self._next_request, now - gap) + gap
                request = loop.create_task(self._ask(hook, batch))
                self._requests.add(request)
                request.add_done_callback(self._requests.discard)
            # Whoever comes from here on starts a poller of its own.
            self._of_loop[loop].pop(self.media_conn_id, None)
        finally:
            for request in self._requests:
                request.cancel()
            await asyncio.gather(*self._requests, return_exceptions=True)

    async def _sleep(self, seconds: float) -> None:
        """Until something may have become due; at once when a watch comes or goes."""
        waiter = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait({waiter}, timeout=seconds)
        finally:
            waiter.cancel()

    def _earliest(self) -> float:
        for group, queue in list(self._queues.items()):
            while queue and queue[0][2] not in self._watches:
                heapq.heappop(queue)
            if not queue:
                del self._queues[group]
        # Everybody's question is under way: their answers, or a new watch, set the news.
        return min((queue[0][0] for queue in self._queues.values()), default=float("inf"))

    def _take(self, batch_size: int) -> list[Watch]:
        """The next batch: the group whose first task is due longest, filled up with what is due next."""
        queue = min(self._queues.values(), key=lambda queue: queue[0][0], default=None)
        batch: list[Watch] = []
        limit = batch_size
        while queue and len({watch.media_task_id for watch in batch}) < limit:
            watch = heapq.heappop(queue)[2]
            if watch not in self._watches:
                continue
            limit = min(limit, watch.company or batch_size)
            batch.append(watch)
        return batch

    async def _ask(self, hook: MediaHook, batch: list[Watch]) -> None:
        answers: dict[str, MediaTask | MediaTaskError]
        sent = asyncio.get_running_loop().time()
        try:
            answers = await hook.aread_tasks(dict.fromkeys(watch.media_task_id for watch in batch))
        except Exception as raised:  # noqa: BLE001  # see below
            # Whatever it is, also a document that our own code stumbles over, it must not strand a batch.
            error = raised if isinstance(raised, MediaTaskError) else MediaProviderError(f"{raised!r:.300}")
            self._failed(hook, error, sent)
            answers = dict.fromkeys((watch.media_task_id for watch in batch), error)
            if len(batch) > 1 and not self.trouble:
                # One task may be what spoils the answer: ask for it in ever smaller company.
                for watch in batch:
                    watch.company = max(len(batch) // 2, 1)
        else:
            self._answered(sent)
        now = asyncio.get_running_loop().time()
        # One jitter for the batch keeps its tasks together.
        jitter = _jitter(1.0, 1.1)
        for watch in batch:
            watch.asked += 1
            watch.due = now + watch.interval * jitter
            self._tell(watch, answers[watch.media_task_id], now)
            if watch in self._watches and watch.error is None:
                self._schedule(watch)
        self._news.set()

    def _tell(self, watch: Watch, answer: MediaTask | MediaTaskError, now: float) -> None:
        if isinstance(answer, MediaTask):
            watch.company = watch.failing_since = None
            before, watch.task = watch.task, answer
            if before is None or before.status != answer.status:
                watch.tell()
            return
        if self.trouble and not isinstance(answer, MediaAuthError):
            # The account is the trouble, not the task. A refused key, though, does not mend by waiting.
            watch.failing_since = None
            return
        if watch.failing_since is None:
            watch.failing_since = now
        grace = NOT_FOUND_GRACE if isinstance(answer, MediaNotFoundError) else UNREADABLE_GRACE
        if now - watch.failing_since >= grace:
            watch.error = answer
            watch.tell()

    def _failed(self, hook: MediaHook, error: MediaTaskError, sent: float) -> None:
        now = asyncio.get_running_loop().time()
        # Requests that were under way together fail together: that is one failure, not several in a row.
        if sent >= self._failed_at:
            self._failures += 1
            self._failed_at = now
        if self._failures < OUTAGE_AFTER and not isinstance(error, MediaRateLimitError):
            return
        if self.trouble is None:
            log.warning(
                "%s (%s): status requests fail, %d tasks keep waiting and nothing is lost: %s",
                self.media_conn_id,
                hook.conn_type,
                len(self._watches),
                error,
            )
        self.trouble = error.message
        pause = max(error.retry_after or 0.0, min(2.0 ** min(self._failures, 10), LONGEST_PAUSE))
        self._paused_until = max(self._paused_until, now + pause * _jitter(1.0, 1.2))

    def _answered(self, sent: float) -> None:
        # What was under way when the trouble began says nothing of its end.
        if sent < self._failed_at:
            return
        self._failures = 0
        if self.trouble is not None:
            log.info("%s: status requests are answered again", self.media_conn_id)
            self.trouble = None
            self._paused_until = 0.0
            for watch in self._watches:
                watch.company = watch.failing_since = None


def _jitter(least: float, most: float) -> float:
    return random.uniform(least, most)  # noqa: S311  # spreads requests, guards nothing


_KILLS: set[asyncio.Future[None]] = set()
"""Cancellations under way, which nothing else refers to."""


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
        if not isinstance(event, Mapping) or not isinstance(event.get("since"), (int, float)):
            raise ValueError(f"the trigger's event is no turn: {event!r:.200}")
        return cls(float(event["since"]), int(event.get("refusals") or 0))

    def next_try(self, retry_after: float | None) -> float:
        """Unix seconds: when the provider said, else later each time, up to a minute, with jitter."""
        pause = min(5.0 * 2.0 ** min(self.refusals, 10), 60.0)
        return time.time() + max(retry_after or 0.0, 1.0 if retry_after else pause) * _jitter(1.0, 1.2)


class TurnTrigger(BaseTrigger):
    """Fires at a moment, so that a refused submission can be tried again on a worker.

    :param until: unix seconds.
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

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleeps, then yields the turn."""
        await asyncio.sleep(max(self.until - time.time(), 0.0))
        yield TriggerEvent({"since": self.since, "refusals": self.refusals})


class MediaTaskTrigger(BaseTrigger):
    """Fires once, when a provider's task is finished or no longer worth waiting for.

    The event is the dict of a `MediaTask`. Its `error` says why a task failed, could not be read any more
    (`MediaNotFoundError` and the like) or was not waited for any longer (`MediaTaskTimeout`, with the last
    known status). All arguments are JSON scalars, and none is a secret: they are stored in clear text.

    :param media_task_id: the task's handle.
    :param media_conn_id: the account it was submitted with.
    :param poll_interval: seconds between two looks.
    :param deadline: unix seconds after which nobody waits any longer; absolute, so it survives restarts.
    :param queue_deadline: the same for a task that the provider has not begun yet, or None.
    :param operation: what was submitted, for the result; a provider does not always say it.
    """

    def __init__(
        self,
        media_task_id: str,
        media_conn_id: str,
        poll_interval: float,
        deadline: float,
        queue_deadline: float | None = None,
        operation: str = "",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's signature has no types
        self.media_task_id = media_task_id
        self.media_conn_id = media_conn_id
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.queue_deadline = queue_deadline
        self.operation = operation

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
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields the one event and returns at once, so that nothing is left to be cancelled."""
        task = await self.wait()
        yield TriggerEvent(task.to_dict())

    async def on_kill(self) -> None:
        """A user failed or cleared the waiting task: cancels at the provider where that is possible.

        Airflow 3.3 cancels this method after a second, so the work is shielded from it.
        """
        work = asyncio.ensure_future(self._cancel_if_killed())
        _KILLS.add(work)
        work.add_done_callback(_KILLS.discard)
        await asyncio.shield(work)

    async def _cancel_if_killed(self) -> None:
        if not await asyncio.to_thread(self._was_killed):
            return
        hook = await asyncio.to_thread(get_media_hook, self.media_conn_id)
        if not hook.can_cancel:
            self.log.warning(
                "%s cannot be cancelled: it goes on there and is billed. Clearing this Airflow task "
                "while it still runs waits for it again and pays nothing",
                self.media_task_id,
            )
            return
        await hook.acancel_task(self.media_task_id)
        self.log.info("%s was cancelled at the provider", self.media_task_id)

    def _was_killed(self) -> bool:
        """Whether somebody ended the Airflow task, as against a triggerer that lost this trigger to another.

        Airflow 3.3 calls `on_kill` for both, and after a clear too, sometimes when the next try is under way
        (the next try decides about the provider's task then). This is the one place that tells them apart.
        """
        ti = self.task_instance
        if ti is None:
            return False
        states = RuntimeTaskInstance.get_task_states(
            ti.dag_id, map_index=ti.map_index, task_ids=[ti.task_id], run_ids=[ti.run_id]
        ).get(ti.run_id, {})
        # A mapped task's key carries its index.
        state = next(iter(states.values()), "removed")
        return state in ("success", "failed", "skipped", "upstream_failed", "removed")

    async def wait(self) -> MediaTask:
        """The task once it is terminal, or as it last was, with the error that ended the wait."""
        began = time.time()
        poller, watch = Poller.watch(self.media_conn_id, self.media_task_id, self.poll_interval)
        try:
            next_report = began + REPORT_INTERVAL
            reported: TaskStatus | None = None
            while True:
                task = watch.task
                if task is not None and task.status.is_terminal:
                    return self._named(task)
                if watch.error is not None:
                    return self._gave_up(task, watch.error)
                now = time.time()
                ends = self._ends(task)
                if now >= ends:
                    return self._gave_up(task, self._timeout(task, poller, now - began))
                if now >= next_report or (task is not None and task.status is not reported):
                    self._report(task, poller, now - began, watch.asked)
                    reported = task.status if task else None
                    next_report = now + REPORT_INTERVAL
                await watch.changed(min(next_report, ends) - now)
        finally:
            poller.forget(watch)

    def _ends(self, task: MediaTask | None) -> float:
        queued = task is None or task.status is TaskStatus.QUEUED
        if queued and self.queue_deadline is not None:
            return min(self.deadline, self.queue_deadline)
        return self.deadline

    def _report(self, task: MediaTask | None, poller: Poller, waited: float, asked: int) -> None:
        status = "no answer yet" if task is None else str(task.status)
        if task is not None and task.progress is not None:
            status += f", {task.progress:.0%} done"
        self.log.info(
            "%s is %s after %.0f s of waiting (asked %d times, at the latest until %s)%s",
            self.media_task_id,
            status,
            waited,
            asked,
            datetime.fromtimestamp(self.deadline, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
            f"; the provider does not answer at present: {poller.trouble}" if poller.trouble else "",
        )

    def _timeout(self, task: MediaTask | None, poller: Poller, waited: float) -> MediaTaskTimeout:
        in_queue = self._ends(task) < self.deadline
        status = (
            "never shown"
            if task is None
            else f"still {task.status} (the provider's word: {task.status_word!r})"
        )
        return MediaTaskTimeout(
            f"{self.media_task_id} is {status} after {waited:.0f} s of waiting"
            f"{' in the queue' if in_queue else ''}; it was not cancelled and may still finish and be billed"
            + (f"; the provider did not answer: {poller.trouble}" if poller.trouble else ""),
            code="queue_timeout" if in_queue else "timeout",
            media_task_id=self.media_task_id,
        )

    def _gave_up(self, task: MediaTask | None, error: BaseException) -> MediaTask:
        if not isinstance(error, MediaTaskError):
            raise error
        # The same error may have come to every task of a batch.
        message = error.message
        if self.media_task_id not in message:
            message = f"{self.media_task_id} cannot be read: {message}"
        own = error_from_dict({**error.to_dict(), "message": message, "media_task_id": self.media_task_id})
        last = task or MediaTask(self.media_task_id, TaskStatus.QUEUED)
        return dataclasses.replace(self._named(last), error=own)

    def _named(self, task: MediaTask) -> MediaTask:
        return dataclasses.replace(task, operation=self.operation or task.operation)
