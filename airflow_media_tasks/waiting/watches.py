"""Who waits for which task, and when each task is asked about next."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from airflow_media_tasks.task import MediaTask


@dataclass(slots=True, eq=False)
class Watch:
    """One waiter's interest in one task: what is known of it, and a way to sleep until that changes.

    All moments are seconds of the event loop's clock, and None where nothing of the kind has happened.

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
    asked_at: float | None = None
    looked: float | None = None
    swept: bool = False
    company: int | None = None
    failed_at: float | None = None
    failure: str | None = None
    own_trouble_since: float | None = None
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


_Queue: TypeAlias = list[tuple[float, int, Watch]]


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
    _order: Iterator[int] = field(default_factory=itertools.count)
    # Of those whom a list has not answered for, and of the others, whose `swept` is True.
    _queues: tuple[_Queue, _Queue] = field(default_factory=lambda: ([], []))

    def __iter__(self) -> Iterator[Watch]:
        return itertools.chain.from_iterable(self.watches.values())

    def schedule(self, watch: Watch, due: float) -> None:
        """Asks for the task of *watch* at *due*, and not when it was to be asked for until now."""
        # An entry whose time is not the watch's own any more is void.
        watch.due = due
        heapq.heappush(self._queues[watch.swept], (due, next(self._order), watch))

    def earliest(self, only_swept: bool = False) -> float:
        """When the next task is due; infinity if none is."""
        return min(self._due(queue) for queue in self._queues[only_swept:])

    def pop_due(self, now: float) -> list[Watch]:
        """All that are due by now and whom no list has answered for; each has to be scheduled anew."""
        popped, queue = [], self._queues[False]
        while self._due(queue) <= now:
            popped.append(self._pop(queue))
        return popped

    def take(self, now: float, limit: int, only_swept: bool) -> list[Watch]:
        """Those of up to *limit* tasks, if one is due by now, filled up with what is due next.

        :param only_swept: whether the others are left to the list, which is about to be read again.
        """
        batch: list[Watch] = []
        aside: list[tuple[Watch, float]] = []
        ids: set[str] = set()
        while len(ids) < limit:
            queue = min(self._queues[only_swept:], key=self._due)
            due = self._due(queue)
            if due > now and (not batch or only_swept or due == math.inf):
                break
            watch = self._pop(queue)
            if batch and (watch.company is None) != (batch[0].company is None):
                # What may have spoilt a batch spoils none of those that have not.
                aside.append((watch, due))
                continue
            limit = min(limit, watch.company or limit)
            ids.add(watch.media_task_id)
            batch.append(watch)
            # One answer serves all who wait for a task, whenever each of them would have asked.
            for waiter in self.watches[watch.media_task_id]:
                if not math.isnan(waiter.due):
                    waiter.due = math.nan
                    batch.append(waiter)
        for watch, due in aside:
            self.schedule(watch, due)
        return batch

    def _due(self, queue: _Queue) -> float:
        """When the first of *queue* is due, without what is void; infinity if it is empty."""
        while queue:
            due, _, watch = queue[0]
            if watch.due == due and watch in self.watches.get(watch.media_task_id, ()):
                return due
            heapq.heappop(queue)
        return math.inf

    @staticmethod
    def _pop(queue: _Queue) -> Watch:
        watch = heapq.heappop(queue)[2]
        watch.due = math.nan
        return watch
