"""One poller an account: it asks for every task that waits in this event loop, and tells each waiter its own.

Ten thousand triggers of one connection cost what their requests cost: one client, one task of the event loop,
and a question that names as many tasks as the provider can answer at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from airflow_media_tasks.hooks.base import MediaHook, get_media_hook
from airflow_media_tasks.submissions import metrics
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaNotFoundError,
    MediaProviderError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
)
from airflow_media_tasks.waiting.accounts import LIMITS, Account
from airflow_media_tasks.waiting.watches import Group, Pace, Watch
from airflow_media_tasks.wire.conversations import SENSELESS


log = logging.getLogger(__name__)

NOT_FOUND_GRACE = 120.0
"""Seconds for which a task that the provider does not show may still appear ([3] vap.md 4)."""
UNREADABLE_GRACE = 600.0
"""Seconds for which a task may be refused or unreadable before its waiter is told to give up."""
SHORTEST_INTERVAL = 1.0
"""Seconds between two looks at a task, at least."""
LONGEST_INTERVAL = 86400.0
GAUGE_INTERVAL = 10.0
"""Seconds after which Airflow's metrics are told again how many tasks wait."""
HOOK_LIFETIME = 600.0
"""Seconds for which a connection, once looked up, is taken to be unchanged."""
SWEEP_FROM = 20
"""Waiting tasks of one group from which on the provider's list, if it has one, is cheaper than each alone."""
BARREN_PER = 50
"""Waiting tasks for each page of a list that may be read in vain."""
LISTED_AT_ONCE = 500
"""Tasks on the pages of a list that are read at the same time."""
UNSEEN_ROUNDS = 6
"""Intervals after which a task that no list shows is asked for by itself."""
SOONEST = 3.0
"""Seconds before which no task is looked at: whoever waits has just looked, and a deferral that ends at once
meets a race of Airflow's scheduler, which then fails the task (apache/airflow#71580)."""
SCOUTS = 3
"""Tasks of an operation that are looked at from the start, as long as nobody knows how long it takes."""
SLOWEST = 4.0
"""How many intervals lie between two looks at a task that is much too late, at most."""
LONGEST_GAP = 0.2
"""Seconds between two requests, at most: a few need no spreading, and would be found late by it."""
BURST = 0.05
"""Seconds of the pace for which requests may be sent together: a loop that wakes for each of them costs twice
as much."""


class Poller:
    """Asks for every waiting task of one connection, in one event loop.

    It starts with its first watch and ends with its last. Requests are spread over the poll interval and
    batched where the provider can; a batch that is not full takes in the tasks that are due next, so n tasks
    cost at most n / batch_size requests an interval. Where the provider has no batches but lists, many tasks
    are looked for in its list first, and those it does not show are asked for by themselves, less often.

    A task is first looked at when it can be done, and one that is late is asked for less and less often. A
    failed request delays its own tasks only, and ends the wait of a task that alone cannot be read, unless
    the `Account` is the trouble: then nobody is asked for as long as that pauses.
    """

    _of_loop: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]]] = WeakKeyDictionary()

    def __init__(self, media_conn_id: str) -> None:
        self.media_conn_id = media_conn_id
        self.account = Account(media_conn_id)
        self._count = 0
        self._waiting: Counter[str] = Counter()
        self._next_gauge = -math.inf
        self._groups: dict[str, Group] = {}
        self._paces: dict[str, Pace] = {}
        self._hook: MediaHook | None = None
        self._sleeper: asyncio.Future[None] | None = None
        self._sleeps_until = 0.0
        self._requests: set[asyncio.Task[None]] = set()
        self._next_request = 0.0
        self._round = 0
        self._round_ends = 0.0
        self._postponed: set[Watch] = set()
        self._hook_until = 0.0
        # The poller's own lines must not land in the log file of the trigger that happened to start it.
        self._loop_task = contextvars.Context().run(asyncio.get_running_loop().create_task, self._run())

    @classmethod
    def watch(
        cls,
        media_conn_id: str,
        media_task_id: str,
        interval: float,
        operation: str = "",
        submitted_at: float | None = None,
    ) -> tuple[Poller, Watch]:
        """Begins to ask about a task; call `forget` when done.

        :param interval: seconds between two looks; `SHORTEST_INTERVAL` if it is less or no number.
        :param submitted_at: unix seconds, or None if it is not known.
        """
        loop = asyncio.get_running_loop()
        pollers = cls._of_loop.setdefault(loop, {})
        poller = pollers.get(media_conn_id)
        if poller is None:
            poller = pollers[media_conn_id] = cls(media_conn_id)
        submitted = None if submitted_at is None else loop.time() - max(time.time() - submitted_at, 0.0)
        # In this order, what is no number is the shortest.
        interval = float(min(max(SHORTEST_INTERVAL, interval), LONGEST_INTERVAL))
        watch = Watch(media_task_id, interval, operation, submitted)
        key = MediaHook.group_of(media_task_id)
        first = poller._first_look(watch, loop.time() + min(interval, SOONEST))
        group = poller._groups.setdefault(key, Group(key))
        group.watches.setdefault(media_task_id, []).append(watch)
        poller._count += 1
        poller._waiting[operation] += 1
        group.schedule(watch, first)
        if submitted is not None:
            poller.account.accepted(submitted)
        poller._wake()
        return poller, watch

    def forget(self, watch: Watch) -> None:
        """Ends the interest; the poller ends with its last watch."""
        key = MediaHook.group_of(watch.media_task_id)
        group = self._groups.get(key)
        of_task = group.watches.get(watch.media_task_id, []) if group else []
        if group is None or watch not in of_task:
            return
        of_task.remove(watch)
        self._count -= 1
        self._waiting[watch.operation] -= 1
        if not of_task:
            del group.watches[watch.media_task_id]
        if group.next_sweep is not None and len(group.watches) < SWEEP_FROM:
            self._end_sweeps(group)
        if not group.watches:
            del self._groups[key]
        if not self._count:
            self._wake()

    def _gauge(self, hook: MediaHook) -> None:
        """Tells Airflow's metrics how many wait, of operations for which nobody does for the last time."""
        for operation, count in list(self._waiting.items()):
            metrics.waiting(count, hook.conn_type, operation, self.media_conn_id)
            if not count:
                del self._waiting[operation]
        self._next_gauge = asyncio.get_running_loop().time() + GAUGE_INTERVAL

    def usual(self, operation: str) -> float | None:
        """Seconds that *operation* takes, as seen here, else as its hook foretells; None if nobody knows."""
        pace = self._pace(operation) if operation else None
        if pace is None:
            return None
        return statistics.median(pace.seen) if pace.seen else pace.expected or None

    def next_look(self, watch: Watch) -> float:
        """When the task of *watch* is asked for next, in seconds of the event loop's clock."""
        now = asyncio.get_running_loop().time()
        group = self._groups.get(MediaHook.group_of(watch.media_task_id))
        due = now if math.isnan(watch.due) else watch.due
        if group is not None and group.next_sweep is not None:
            due = min(due, group.next_sweep) if group.next_sweep < math.inf else now
        return max(due, now, self.account.asked_from)

    # When to ask.

    def _pace(self, operation: str) -> Pace:
        pace = self._paces.get(operation)
        if pace is None:
            known = self._hook.operations.get(operation) if self._hook else None
            pace = self._paces[operation] = Pace(known.expected_seconds if known else 0.0)
        return pace

    def _first_look(self, watch: Watch, soon: float) -> float:
        if watch.submitted is None or not watch.operation or self._hook is None:
            return soon
        pace = self._pace(watch.operation)
        if not pace.seen and pace.scouts < SCOUTS:
            pace.scouts += 1
            return soon
        return max(watch.submitted + pace.first_look, soon)

    def _again(self, group: Group, watch: Watch, now: float, jitter: float, rounds: int = 1) -> None:
        slower = 1.0
        if watch.submitted is not None and watch.operation:
            late = self._pace(watch.operation).late
            slower = min(max((now - watch.submitted) / late, 1.0), SLOWEST) if late else 1.0
        group.schedule(watch, now + watch.interval * jitter * max(slower, rounds))

    def _learn(self, watch: Watch, now: float) -> None:
        """From a task that has just ended: others of its operation may be done too."""
        if watch.submitted is None or not watch.operation:
            return
        pace = self._pace(watch.operation)
        before = pace.first_look
        not_yet = watch.submitted + before if watch.looked is None else watch.looked
        if now - not_yet > watch.interval * SLOWEST:
            # Nobody looked for a while (a restart, an outage), so it may have ended long ago.
            return
        pace.seen.append(now - watch.submitted)
        if pace.first_look >= before:
            return
        for group in self._groups.values():
            for waiting in group:
                if (
                    waiting.operation == watch.operation
                    and not waiting.asked
                    and waiting.submitted is not None
                ):
                    first = max(waiting.submitted + pace.first_look, now)
                    if first < waiting.due:
                        group.schedule(waiting, first)

    # The poller's own task.

    async def _run(self) -> None:
        pollers = self._of_loop[asyncio.get_running_loop()]
        try:
            while self._count:
                known = self._hook
                self._hook = await self._look_up()
                self._hook.read_attempts = 1
                if known is None:
                    # Only now is it known how long their operations take.
                    for group in self._groups.values():
                        for watch in group:
                            group.schedule(watch, self._first_look(watch, watch.due))
                async with self._hook:
                    await self._ask_until_told(self._hook)
        except BaseException as error:
            # Without this a failure here would leave every trigger waiting until its deadline.
            for watch in list(self._all()):
                watch.error = error
                watch.tell()
            if not isinstance(error, Exception):
                raise
        finally:
            if pollers.get(self.media_conn_id) is self:
                del pollers[self.media_conn_id]

    def _all(self) -> itertools.chain[Watch]:
        return itertools.chain.from_iterable(self._groups.values())

    async def _look_up(self) -> MediaHook:
        """The connection's hook; Airflow itself may be away for a while, and a look-up is not cheap."""
        loop = asyncio.get_running_loop()
        self._hook_until = loop.time() + HOOK_LIFETIME
        for attempt in itertools.count():
            try:
                return await asyncio.to_thread(_hook_with_settings, self.media_conn_id)
            except Exception as error:
                if self._hook is not None:
                    log.warning(
                        "%s cannot be looked up anew, going on as before: %r", self.media_conn_id, error
                    )
                    return self._hook
                if isinstance(error, MediaTaskError) or loop.time() >= self._hook_until:
                    raise
                log.warning("%s cannot be looked up yet: %r", self.media_conn_id, error)
                await asyncio.sleep(min(2.0**attempt, 30.0))
        raise AssertionError("unreachable")

    async def _ask_until_told(self, hook: MediaHook) -> None:
        """Until nobody waits any more, or the connection has to be looked up anew."""
        loop = asyncio.get_running_loop()
        try:
            while self._count and loop.time() < self._hook_until:
                now = loop.time()
                if now >= self._next_gauge:
                    self._gauge(hook)
                due, key = self._earliest(hook, now)
                start = max(due, self._next_request, self.account.asked_from)
                if start > now:
                    # What falls due within a burst goes out together.
                    await self._sleep(max(min(start, self._hook_until) - now, BURST))
                elif len(self._requests) >= (1 if self.account.trouble else hook.max_connections):
                    await self._sleep(None)
                else:
                    self._ask_next(hook, key, due, now)
            while self._requests and self._count:
                await self._sleep(None)
            if not self._count:
                self._gauge(hook)
                # Whoever comes from here on starts a poller of its own.
                self._of_loop[loop].pop(self.media_conn_id, None)
        finally:
            for request in self._requests:
                request.cancel()
            await asyncio.gather(*self._requests, return_exceptions=True)

    def _ask_next(self, hook: MediaHook, key: str, due: float, now: float) -> None:
        group = self._groups[key]
        coroutine: Coroutine[Any, Any, None]
        if self._sweeps(hook, group, now) and (group.next_sweep is None or group.next_sweep <= now):
            group.next_sweep = math.inf
            coroutine = self._sweep(hook, group)
            gap = 0.0
        else:
            only_swept = group.next_sweep is not None and self._sweeps(hook, group, now)
            batch = group.take(now, hook.batch_size, only_swept)
            if not batch:
                return
            coroutine = self._ask(hook, group, batch)
            gap = self._gap(hook, min(watch.interval for watch in batch), now)
        # What was kept waiting by requests under way is made up for, but not all that an outage held up.
        self._next_request = max(self._next_request, due, now - 4 * BURST) + gap
        request = asyncio.get_running_loop().create_task(coroutine)
        self._requests.add(request)
        request.add_done_callback(self._request_ended)

    def _gap(self, hook: MediaHook, interval: float, now: float) -> float:
        """Seconds between two requests: many are spread evenly over most of an interval."""
        needed = sum(math.ceil(len(group.watches) / hook.batch_size) for group in self._groups.values())
        # A round is not slowed down by tasks that it finds ended: those still in it are due all the same.
        if now >= self._round_ends:
            self._round, self._round_ends = 0, now + interval
        self._round = max(self._round, needed, 1)
        return min(0.8 * interval / self._round, LONGEST_GAP)

    def _request_ended(self, request: asyncio.Task[None]) -> None:
        self._requests.discard(request)
        if self._sleeps_until > asyncio.get_running_loop().time() + BURST:
            self._wake()

    async def _sleep(self, seconds: float | None) -> None:
        """Until something may have become due; at once when that changes, or a request has ended."""
        loop = asyncio.get_running_loop()
        self._sleeper = loop.create_future()
        self._sleeps_until = math.inf if seconds is None else loop.time() + seconds
        timer = None if seconds is None else loop.call_later(seconds, self._wake)
        try:
            await self._sleeper
        finally:
            self._sleeper = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    def _earliest(self, hook: MediaHook, now: float) -> tuple[float, str]:
        """When something is due next, and in which group; infinity while all questions are under way."""
        best = (math.inf, "")
        for key, group in self._groups.items():
            if self._sweeps(hook, group, now) and group.next_sweep is not None:
                # However long its list takes to read: what the list was silent about is asked for in time.
                due = min(group.earliest(only_swept=True), group.next_sweep)
            else:
                due = group.earliest()
            best = min(best, (due, key))
        return best

    @staticmethod
    def _sweeps(hook: MediaHook, group: Group, now: float) -> bool:
        many = len(group.watches) >= SWEEP_FROM and now >= group.no_list_until
        return many and bool(hook.lists_of(group.key))

    # What becomes of the answers.

    async def _ask(self, hook: MediaHook, group: Group, batch: list[Watch]) -> None:
        ids = dict.fromkeys(watch.media_task_id for watch in batch)
        answers: dict[str, MediaTask | MediaTaskError]
        spoilt = own = False
        sent = asyncio.get_running_loop().time()
        try:
            answers = await hook.aread_tasks(ids)
        except Exception as raised:  # noqa: BLE001  # whatever it is, it must not strand a batch
            error = (
                raised
                if isinstance(raised, MediaTaskError)
                else MediaProviderError(f"{raised!r:.300}", code=SENSELESS)
            )
            # No single task is likely to make nonsense of an answer for many.
            own = all(self.account.is_own(watch, error) for watch in batch) and (
                len(ids) == 1 or error.code != SENSELESS
            )
            if not own:
                self._failed(error, sent)
            answers = dict.fromkeys(ids, error)
            spoilt = len(ids) > 1
        else:
            # What was refused before it was sent says nothing of the account.
            if not all(isinstance(answer, MediaRequestError) for answer in answers.values()):
                self._answered(sent)
        now = asyncio.get_running_loop().time()
        # One jitter for the batch keeps its tasks together.
        jitter = random.uniform(1.0, 1.1)  # noqa: S311  # spreads requests, guards nothing
        rounds = UNSEEN_ROUNDS if self._sweeps(hook, group, now) else 1
        for watch in batch:
            answer = answers[watch.media_task_id]
            self._tell(watch, answer, now, spoilt)
            if spoilt and not isinstance(answer, LIMITS):
                # One task may be what spoils the answer for all: ask for it in ever smaller company.
                watch.company = len(ids) // 2
            if own and spoilt:
                group.schedule(watch, now)
            elif self.account.asked_from > now and not isinstance(answer, MediaTask):
                # The next question is about another task if one is due, for this one may be the trouble.
                self._postponed.add(watch)
                group.schedule(watch, self.account.asked_from)
            else:
                self._again(group, watch, now, jitter, rounds)

    async def _sweep(self, hook: MediaHook, group: Group) -> None:
        """Looks for the group's tasks in the provider's lists, as long as their pages are worth reading."""
        loop = asyncio.get_running_loop()
        missing = len(group.watches)
        interval = min((watches[0].interval for watches in group.watches.values()), default=0.0)
        sent = loop.time()
        try:
            for word in hook.lists_of(group.key):
                # Tasks that come to its front meanwhile move others to pages that are yet to be read.
                seen: set[str] = set()
                page, pages, barren, more = 0, 1, 0, True
                # The order of a list is nobody's promise: what it hides is asked for by itself, later.
                # Nor may a list that shows nothing cost more than a fraction of asking for each task.
                while more and missing > 0 and barren <= (patience := max(missing // BARREN_PER, 1)):
                    reads = [hook.aread_page(group.key, word, page + n) for n in range(pages)]
                    answers = await asyncio.gather(*reads, return_exceptions=True)
                    for answer in answers:
                        if isinstance(answer, BaseException):
                            raise answer
                        fresh = {task.id: task for task in answer[0] if task.id not in seen}
                        seen.update(fresh)
                        shown = self._tell_page(group, fresh, loop.time())
                        missing -= shown
                        barren += -1 if shown else 1
                        more = more and answer[1]
                    page += pages
                    # Several at once, but no more than can be of use, nor so many that they hold up the loop.
                    useful = math.ceil(min(missing, LISTED_AT_ONCE) * page / max(len(seen), 1))
                    pages = max(min(useful, hook.max_connections, patience + 1 - barren), 1)
        except Exception as raised:  # noqa: BLE001  # as for a batch
            # Whether the account is the trouble or only its list: asking for each task by itself will tell.
            if isinstance(raised, MediaRateLimitError):
                self._failed(raised, sent)
            else:
                log.info("%s: the list of %r cannot be read: %s", self.media_conn_id, group.key, raised)
            group.no_list_until = max(loop.time(), self.account.asked_from) + UNSEEN_ROUNDS * interval
            group.next_sweep = None
            return
        self._answered(sent)
        now = loop.time()
        # A task that stood on the first page may stand on the last one then, and while many end at once each
        # reading takes longer than the one before: an interval lies between the two looks all the same.
        took, before = now - sent, group.sweep_took
        group.sweep_took = took
        group.next_sweep = max(sent + max(interval - took - max(took - before, 0.0), interval / 2), now)
        for watch in group.pop_due(now):
            # The list has answered for it, if only by its silence; from now on that is not enough.
            watch.swept, watch.asked_at = True, now
            rounds = UNSEEN_ROUNDS * random.uniform(0.5, 1.0)  # noqa: S311  # as below
            group.schedule(watch, now + watch.interval * rounds)

    def _end_sweeps(self, group: Group) -> None:
        """The few that are left are asked for by themselves, and soon: no list shows them any more."""
        group.next_sweep = None
        now = asyncio.get_running_loop().time()
        for watch in group:
            if watch.due > now + watch.interval and (watch.asked or watch.swept):
                group.schedule(watch, now + watch.interval * random.random())  # noqa: S311  # as below

    def _tell_page(self, group: Group, tasks: dict[str, MediaTask], now: float) -> int:
        """Tells the waiters what a page shows of their tasks; how many tasks that were."""
        awaited = 0
        for media_task_id, task in tasks.items():
            watches = group.watches.get(media_task_id)
            for watch in watches or ():
                self._tell(watch, task, now)
                watch.swept = False
                self._again(group, watch, now, 1.0, 2)
            awaited += bool(watches)
        return awaited

    def _tell(
        self, watch: Watch, answer: MediaTask | MediaTaskError, now: float, spoilt: bool = False
    ) -> None:
        """Notes what came of asking for the task of *watch*, and wakes its waiter if that changes anything.

        :param spoilt: whether one error stands for all that were asked for together.
        """
        watch.asked += 1
        watch.asked_at = now
        if isinstance(answer, MediaTask):
            watch.company = watch.failed_at = watch.own_trouble_since = watch.failure = None
            before = watch.task
            if before is None or _shown(before) != _shown(answer):
                # The provider's document has been read; ten thousand of them need not be kept.
                watch.task = replace(answer, raw={})
            if answer.status.is_terminal:
                self._learn(watch, now)
            else:
                watch.looked = now
            if before is None or before.status != answer.status:
                watch.tell()
            return
        since = self.account.refused_since if isinstance(answer, MediaAuthError) else None
        if not spoilt:
            if self.account.is_own(watch, answer):
                if watch.own_trouble_since is None:
                    watch.own_trouble_since = now
                since = watch.own_trouble_since
                if answer.code == SENSELESS and not self.account.answers_since(since):
                    # It may be a page that stands before the whole account.
                    since = None
            watch.failed_at, watch.failure = now, answer.message
        grace = NOT_FOUND_GRACE if isinstance(answer, MediaNotFoundError) else UNREADABLE_GRACE
        # An outage mends by waiting. A key that stays refused does not, nor a task that alone cannot be read.
        if since is not None and now - since >= grace:
            watch.error = answer
            watch.tell()

    def _failed(self, error: MediaTaskError, sent: float) -> None:
        now = asyncio.get_running_loop().time()
        self.account.failed(error, sent, now, self._count)
        if isinstance(error, MediaAuthError):
            # The key may have been changed: look at the connection again before the next question.
            self._hook_until = min(self._hook_until, now)

    def _answered(self, sent: float) -> None:
        if not self.account.answered(sent):
            return
        now = asyncio.get_running_loop().time()
        for group in self._groups.values():
            for watch in group:
                watch.own_trouble_since = None
                if watch in self._postponed:
                    group.schedule(watch, now + watch.interval * random.random())  # noqa: S311  # as above
        self._postponed.clear()


def _shown(task: MediaTask) -> tuple[object, ...]:
    return task.status, task.status_word, task.progress


def _hook_with_settings(media_conn_id: str) -> MediaHook:
    """The hook of a connection that has been read, so that no request has to wait for that. Blocking."""
    hook = get_media_hook(media_conn_id)
    _ = hook.settings
    metrics.prepare()
    return hook
