"""Who waits for which task, and when each task is asked about next."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from airflow_media_tasks.task import MediaTask


@dataclass(slots=True, eq=False)
class Watch:
    """One waiter's interest in one task: what is known of it, and a way to sleep until that changes.

    :param media_task_id: the task's handle.
    :param interval: seconds between two looks.
    :param operation: what was submitted, or empty.
    :param submitted: when, in seconds of the event loop's clock, or None if somebody else did.
    """

    media_task_id: str
    interval: float
    operation: str
    submitted: float | None
    due: float = 0.0
    task: MediaTask | None = None
    error: BaseException | None = None
    asked: int = 0
    looked: float | None = None
    swept: bool = False
    company: int | None = None
    failing_since: float | None = None
    wake: asyncio.Future[None] | None = None

    async def changed(self, timeout: float) -> None:
        """Returns when the status has changed or cannot be read any more, or after *timeout* seconds."""
        loop = asyncio.get_running_loop()
        self.wake = loop.create_future()
        # asyncio.wait does the same in three times the memory, and ten thousand of these wait.
        timer = loop.call_later(max(timeout, 0.0), self.tell)
        try:
            await self.wake
        finally:
            timer.cancel()
            self.wake = None

    def tell(self) -> None:
        """Wakes the waiter."""
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)


@dataclass
class Pace:
    """How long one operation takes at one account, in seconds: what the hook says, then what was seen."""

    expected: float
    scouts: int = 0
    seen: deque[float] = field(default_factory=lambda: deque(maxlen=50))

    @property
    def first_look(self) -> float:
        """How long after its submission a task can be done at the earliest."""
        return 0.9 * min(self.seen) if self.seen else self.expected

    @property
    def late(self) -> float:
        """How long after its submission a task is later than any before it."""
        return 1.5 * max(self.seen) if self.seen else 4 * self.expected


@dataclass
class Group:
    """The waiting tasks that one request can ask for together, in the order in which they are due.

    :param key: see `MediaHook.group_of`.
    """

    key: str
    watches: dict[str, list[Watch]] = field(default_factory=dict)
    next_sweep: float | None = None
    sweep_took: float = 0.0
    no_list_until: float = 0.0
    _queue: list[tuple[float, int, Watch]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=itertools.count)

    def __iter__(self) -> Iterator[Watch]:
        return itertools.chain.from_iterable(self.watches.values())

    def schedule(self, watch: Watch, due: float) -> None:
        """Asks for the task of *watch* at *due*, and not when it was to be asked for until now."""
        # An entry whose time is not the watch's own any more is void.
        watch.due = due
        heapq.heappush(self._queue, (due, next(self._order), watch))

    def earliest(self) -> float:
        """When the next task is due; infinity if none is."""
        while self._queue:
            due, _, watch = self._queue[0]
            if self._is_valid(due, watch):
                return due
            heapq.heappop(self._queue)
        return math.inf

    def pop_due(self, now: float) -> list[Watch]:
        """All that are due by now; each has to be scheduled anew."""
        popped = []
        while self.earliest() <= now:
            popped.append(self._pop())
        return popped

    def take(self, now: float, limit: int, only_swept: bool) -> list[Watch]:
        """Those of up to *limit* tasks, if one is due by now, filled up with what is due next.

        :param only_swept: whether the others are left to the list, which is about to be read again.
        """
        batch: list[Watch] = []
        ids: set[str] = set()
        while len(ids) < limit:
            due = self.earliest()
            if due > now and (not batch or only_swept or due == math.inf):
                break
            watch = self._pop()
            if only_swept and not watch.swept:
                self.schedule(watch, max(self.next_sweep or due, due))
                continue
            limit = min(limit, watch.company or limit)
            ids.add(watch.media_task_id)
            batch.append(watch)
            # One answer serves all who wait for a task, whenever each of them would have asked.
            for waiter in self.watches[watch.media_task_id]:
                if not math.isnan(waiter.due):
                    waiter.due = math.nan
                    batch.append(waiter)
        return batch

    def _pop(self) -> Watch:
        watch = heapq.heappop(self._queue)[2]
        watch.due = math.nan
        return watch

    def _is_valid(self, due: float, watch: Watch) -> bool:
        return watch.due == due and watch in self.watches.get(watch.media_task_id, ())
