"""A clock for tests that wait: it passes when nothing else happens, and stands while the machine works."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_media_tasks.wire.conversations import ConversationHook


class DrivenClock:
    """The event loop's time and `time.time`, driven by what is scheduled in the loop.

    Where every task sleeps, the clock leaps to the next moment that one of them waits for. While a request
    or a thread is under way it stands still, however busy the machine is: an answer takes no time, unless
    it fails to come for `PATIENCE` real seconds. From then on time passes as usual, until something comes.
    """

    PATIENCE = 0.5
    STEP = 0.05

    def __init__(self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = loop.time()
        self._under_way = 0
        self._ahead = time.time() - self.now
        self._select = loop._selector.select  # type: ignore[attr-defined]  # a loop has no other seam
        self._heard = time.monotonic()
        run, send = loop.run_in_executor, ConversationHook._asend

        def run_in_executor(*arguments: Any) -> asyncio.Future[Any]:
            """As usual, and count it."""
            self._under_way += 1
            future = run(*arguments)
            future.add_done_callback(self._ended)
            return future

        async def asend(*arguments: Any) -> Any:
            """As usual, and count it."""
            self._under_way += 1
            try:
                return await send(*arguments)
            finally:
                self._ended()

        monkeypatch.setattr(loop, "run_in_executor", run_in_executor)
        monkeypatch.setattr(ConversationHook, "_asend", asend)
        monkeypatch.setattr(loop._selector, "select", self._wait)  # type: ignore[attr-defined]  # as above
        monkeypatch.setattr(loop, "time", self)
        monkeypatch.setattr(time, "time", lambda: self.now + self._ahead)

    def __call__(self) -> float:
        """Seconds of the event loop's clock."""
        return self.now

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """While a server that runs in the loop sleeps, which is asked for an answer."""
        self._under_way -= 1
        try:
            yield
        finally:
            self._under_way += 1

    def _ended(self, _: object = None) -> None:
        self._under_way -= 1

    def _wait(self, timeout: float | None = None) -> Any:
        events = self._select(0)
        if events:
            self._heard = time.monotonic()
        if events or timeout == 0:
            return events
        if timeout is not None and self._under_way <= 0:
            self.now += timeout
            return []
        began = time.monotonic()
        events = self._select(self.STEP if timeout is None else min(timeout, self.STEP))
        waited = time.monotonic()
        if events:
            self._heard = waited
        elif timeout is not None and waited - self._heard > self.PATIENCE:
            self.now += min(waited - began, timeout)
        return events
