"""`MediaTaskTrigger` waits for a provider's task, `TurnTrigger` for a submission's next chance."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import re
import time
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_media_tasks.accounts import LONGEST_RATE_LIMIT
from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.poller import Poller
from airflow_media_tasks.task import (
    MediaProviderError,
    MediaTask,
    MediaTaskError,
    MediaTaskTimeout,
    TaskStatus,
    error_from_dict,
    shown,
)
from airflow_media_tasks.watches import Watch


REPORT_INTERVAL = 60.0
"""Seconds after which a waiting task's log says again how far it is; twice as many each time, up to
`LONGEST_SILENCE`, because the lines of ten thousand tasks are work, too."""
LONGEST_SILENCE = 600.0
PROGRESS_STEP = 0.25
"""How much further a task must be to be worth a line."""
LONGEST_WAIT = 1e9
"""Seconds for which anything is waited for, at most."""
_UNFIT = re.compile("[\0\ud800-\udfff]")
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
        try:
            since, refusals = _moment(event["since"], time.time()), event.get("refusals") or 0
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


class _Fires(BaseTrigger):
    """Fires once, with an event that Airflow can send and store, or fails in a way that it survives.

    An event, or the text of an exception, that Airflow's encoder does not take ends the triggerer, with the
    triggers of all teams, and ends it again after each restart (seen in 3.3.2: `sync_state_to_supervisor`
    catches NotImplementedError, the encoder also raises OverflowError and UnicodeEncodeError). So does a
    constructor that raises anything but TypeError: those of this module raise nothing.
    """

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields the one event and returns at once, so that nothing is left to be cancelled."""
        try:
            event = _fit(await self._event())
        except Exception as error:  # noqa: BLE001  # Airflow gets its text, but none of its objects
            raise RuntimeError(_fit(f"the trigger failed: {type(error).__name__}: {error!s:.1000}")) from None
        yield TriggerEvent(event)

    async def _event(self) -> dict[str, Any]:
        """What the event says, once it is time for it."""
        raise NotImplementedError


class TurnTrigger(_Fires):
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
        await asyncio.sleep(max(_moment(self.until, now + LONGEST_RATE_LIMIT) - now, 0.0))
        return {"since": self.since, "refusals": self.refusals}


class _CancelsWhenKilled(_Fires):
    """What happens at the provider when a user ends an Airflow task that waits: one policy for all."""

    media_conn_id: str

    @property
    def media_task_ids(self) -> Sequence[str]:
        """What is waited for."""
        raise NotImplementedError

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
                ", ".join(self.media_task_ids[:5]) + (" and more" if len(self.media_task_ids) > 5 else ""),
            )
            return
        async with hook:
            for media_task_id in self.media_task_ids:
                try:
                    await hook.acancel_task(media_task_id)
                except MediaTaskError as error:
                    self.log.warning("%s could not be cancelled: %s", media_task_id, error)
                else:
                    self.log.info("%s was cancelled at the provider", media_task_id)

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


class MediaTaskTrigger(_CancelsWhenKilled):
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
            deadline = _moment(self.deadline, began + LONGEST_WAIT)
            queue_deadline = (
                deadline
                if self.queue_deadline is None
                else min(_moment(self.queue_deadline, deadline), deadline)
            )
            submitted_at = None if self.submitted_at is None else _moment(self.submitted_at, began)
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
            self.log.error("%s", _fit("".join(traceback.format_exception(error))))
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


class MediaBatchTrigger(_CancelsWhenKilled):
    """Fires once, when enough of a batch's requests have ended to go on with it, or all of them.

    The event is `{"ended": [[number, media_task_id, error], ...], "waiting": [...], "left": [...],
    "refused_since": ..., "refusals": ...}`: what has ended (the error is the dict of a `MediaTaskError` where
    the wait has ended and not the task, else null), and the arguments as they then are. No results: whoever
    resumes reads them.

    :param waiting: `[number, media_task_id, operation, submitted_at, since]` of each request that is under
        way: when it was submitted and since when this try waits for it, in unix seconds.
    :param left: numbers of the requests that are yet to be submitted.
    :param media_conn_id: the account.
    :param poll_interval: seconds between two looks.
    :param timeout: seconds for which each is waited for.
    :param queue_timeout: the same for one that the provider has not begun yet, or None.
    :param wake_after: how many must have ended.
    :param until: unix seconds at which it fires in any case, because a refused submission may be tried again;
        at most `LONGEST_RATE_LIMIT` ahead.
    :param refused_since: unix seconds since when the provider has had no room, or None.
    :param refusals: how often it had none.
    """

    def __init__(
        self,
        waiting: list[list[Any]],
        left: list[int],
        media_conn_id: str,
        poll_interval: float,
        timeout: float,
        queue_timeout: float | None,
        wake_after: int,
        until: float | None,
        refused_since: float | None,
        refusals: int,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's signature has no types
        self.waiting = waiting
        self.left = left
        self.media_conn_id = media_conn_id
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.queue_timeout = queue_timeout
        self.wake_after = wake_after
        self.until = until
        self.refused_since = refused_since
        self.refusals = refusals

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class's path and its arguments, as Airflow stores them."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "waiting": self.waiting,
                "left": self.left,
                "media_conn_id": self.media_conn_id,
                "poll_interval": self.poll_interval,
                "timeout": self.timeout,
                "queue_timeout": self.queue_timeout,
                "wake_after": self.wake_after,
                "until": self.until,
                "refused_since": self.refused_since,
                "refusals": self.refusals,
            },
        )

    @property
    def media_task_ids(self) -> Sequence[str]:
        """All that are under way."""
        return [one[1] for one in self.waiting]

    async def _event(self) -> dict[str, Any]:
        """How far the batch is."""
        return await self.wait()

    async def wait(self) -> dict[str, Any]:
        """The event, once it is time for it."""
        ended: dict[int, MediaTask] = {}
        enough = asyncio.Event()

        async def wait_for(number: int, trigger: MediaTaskTrigger) -> None:
            try:
                ended[number] = await trigger.wait(quietly=True)
                if len(ended) >= self.wake_after or len(ended) == len(self.waiting):
                    enough.set()
            except Exception:
                enough.set()
                raise

        if not self.waiting and self.until is None:
            enough.set()
        waits = [asyncio.create_task(wait_for(one[0], self._trigger_of(one))) for one in self.waiting]
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
            "ended": [
                [number, media_task_id, _error_of(ended[number])]
                for number, media_task_id, *_ in self.waiting
                if number in ended
            ],
            "waiting": [one for one in self.waiting if one[0] not in ended],
            "left": self.left,
            "refused_since": self.refused_since,
            "refusals": self.refusals,
        }

    def _trigger_of(self, waiting: list[Any]) -> MediaTaskTrigger:
        _, media_task_id, operation, submitted_at, since = waiting
        since = _moment(since, time.time())
        return MediaTaskTrigger(
            media_task_id,
            self.media_conn_id,
            self.poll_interval,
            since + self.timeout,
            None if self.queue_timeout is None else since + self.queue_timeout,
            operation,
            submitted_at,
        )

    async def _until(self, enough: asyncio.Event, ended: Mapping[int, MediaTask]) -> None:
        """Sleeps until enough have ended, and says now and then how many have."""
        began, silence = time.time(), REPORT_INTERVAL
        until = None if self.until is None else _moment(self.until, began + LONGEST_RATE_LIMIT)
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
                        "%d of %d requests under way have ended after %.0f s; %d are yet to be submitted",
                        len(ended),
                        len(self.waiting),
                        time.time() - began,
                        len(self.left),
                    )
        # What ends together is told together.
        await asyncio.sleep(self.poll_interval if 0.0 < self.poll_interval < 1.0 else 1.0)


def _error_of(task: MediaTask) -> dict[str, Any] | None:
    """Why *task* is not waited for any more, if it has not ended by itself."""
    return None if task.status.is_terminal or task.error is None else task.error.to_dict()


def _trouble(poller: Poller, watch: Watch, clock: float) -> str:
    """Why a task cannot be read, for a person; nothing if all is well."""
    account = poller.account
    if not account.trouble:
        return f"; it cannot be read: {watch.failure}" if watch.failure else ""
    ago = clock - account.failed_at
    return f"; status requests of {poller.media_conn_id} fail, the last {ago:.0f} s ago: {account.trouble}"


def _moment(value: Any, latest: float) -> float:
    """*value* in unix seconds, no later than *latest*. Raises ValueError for what is no moment."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(f"{shown(value)} is no time in unix seconds")
    return float(min(value, latest))


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _fit(value: Any) -> Any:
    """*value* as what every encoder on an event's way takes: MessagePack, JSON, and PostgreSQL's JSON."""
    if isinstance(value, str):
        return _UNFIT.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_fit(str(key)): _fit(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_fit(part) for part in value]
    if isinstance(value, (int, float)) and not abs(value) < 2**63:
        return None
    return value


def _is_news(task: MediaTask, reported: MediaTask | None) -> bool:
    """Whether a person would want a line about *task*, who has read the one about *reported*."""
    if reported is None or task.status is not reported.status:
        return True
    return (task.progress or 0.0) - (reported.progress or 0.0) >= PROGRESS_STEP
