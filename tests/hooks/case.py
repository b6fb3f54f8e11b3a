"""What the tests of every provider's hook are made of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

import pytest

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.simulator.provider import Provider
from airflow_media_tasks.task import (
    MediaRateLimitError,
    MediaTask,
    MediaTaskError,
    SubmissionOutcomeUnknown,
    TaskStatus,
)


KEY = "a-key-that-nobody-may-see"
VIDEO_ID = "stands-for-the-id-of-a-finished-video"
MARK = "reference 1/2"


class HookCase:
    """A provider's hook, good arguments for each of its operations, and what is special about it."""

    hook_class: ClassVar[type[MediaHook]]
    samples: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Good arguments for every operation."""
    paid: ClassVar[str]
    """The operation used where one is as good as another; it takes a prompt."""
    other: ClassVar[str]
    """One whose tasks belong to another group (service, path) than those of `paid`."""
    foreign_ids: ClassVar[tuple[str, ...]]
    """Ids of other providers and things that are no id at all."""
    unknown_id: ClassVar[str]
    """A well-formed id that no task has."""
    concurrency_error: ClassVar[type[MediaTaskError]] = MediaRateLimitError
    blocking: ClassVar[frozenset[str]] = frozenset()
    """Operations whose submission answers when everything is made."""
    ambiguous: ClassVar[frozenset[str]] = frozenset()
    """Operations that cannot be told from a task's own document."""
    never_says: ClassVar[frozenset[str]] = frozenset()
    """Refusals and failures that the provider does not have, by the simulator's word."""
    under_way: ClassVar[str] = "[sim:seconds=600]"
    """What makes a task that can be cancelled."""
    cost_unit: ClassVar[str | None] = None
    documented: ClassVar[tuple[tuple[str, str, str], ...]] = ()
    """Operation, file name and type of what the provider's documents say that it makes."""
    simulated: ClassVar[tuple[Provider, ...]] = ()
    """The provider's part of the simulator, where that is not among its own."""
    finds_by_request: ClassVar[bool] = True
    """Whether a lost submission is found with no mark at all."""
    lists_what_runs: ClassVar[bool] = True
    """Whether the list shows a task before it has ended."""
    listed_within: ClassVar[timedelta] = timedelta(0)
    """How long after a submission the list is no proof that there is none."""
    requests_per_result: ClassVar[int] = 1
    """How many requests it takes to read a task that has succeeded."""
    wrong_key_words: ClassVar[str] = "invalid"
    """What the provider says of a wrong key."""
    wrong_key_status: ClassVar[str] = "401"
    """With which HTTP status."""
    begins: ClassVar[TaskStatus] = TaskStatus.QUEUED
    """Where a task stands that was just accepted."""
    results_at: ClassVar[str] = "/media/"
    """What the addresses of results begin with, below the simulator's."""

    # What a test is made of.

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test that asks for `operation` runs for each operation of the hook."""
        if "operation" in metafunc.fixturenames:
            metafunc.parametrize("operation", sorted(self.hook_class.operations))

    def hook_for(self, connect: Any, sim: Simulator, **fields: Any) -> MediaHook:
        """A hook of a connection to the simulator with these fields."""
        conn_type = self.hook_class.conn_type
        known = {"conn_type": conn_type, "host": f"{sim.url}/{conn_type}", "password": KEY}
        hook = self.hook_class(connect(**{**known, **fields}))
        hook.retry_wait = 0.001
        return hook

    @pytest.fixture
    def hook(self, connect: Any, sim: Simulator) -> MediaHook:
        """A hook with a good key, which does not dawdle between two tries."""
        return self.hook_for(connect, sim)

    def arguments(self, operation: str, hook: MediaHook, sim: Simulator) -> dict[str, Any]:
        """The sample for *operation*, with a finished video where it asks for one."""
        sample = dict(self.samples[operation])
        if VIDEO_ID in sample.values():
            made = self.finished(hook, sim, next(name for name in self.samples if "text_to_video" in name))
            sample = {
                word: made.files[0].id if value == VIDEO_ID else value for word, value in sample.items()
            }
        return sample

    def with_words(self, words: str, operation: str | None = None) -> dict[str, Any]:
        """The sample with *words* for the simulator in its prompt."""
        return {**self.samples[operation or self.paid], "prompt": f"a lighthouse at dusk {words}"}

    def finished(self, hook: MediaHook, sim: Simulator, operation: str | None = None) -> MediaTask:
        """A task that has succeeded."""
        operation = operation or self.paid
        task = hook.submit(operation, self.samples[operation])
        sim.advance(10)
        return hook.get_task(task.id)

    def cannot_be_found(self, hook: MediaHook, **wanted: Any) -> bool:
        """Whether the provider shows nothing of what it has accepted; a search then says just that."""
        if hook.can_be_asked(self.paid):
            return False
        for more in ({}, {"arguments": self.samples[self.paid], "client_ref": MARK}):
            with pytest.raises(SubmissionOutcomeUnknown, match="it has no list of"):
                hook.find_tasks(operation=self.paid, **more, **wanted)
        return True

    def until_listed(self, sim: Simulator) -> None:
        """Waits for what has been submitted to be in the provider's list."""
        if not self.lists_what_runs:
            sim.advance(10)

    def proven_since(self, began: datetime) -> datetime:
        """A time, *began* or before it, since which the list now shows every submission."""
        return min(began, datetime.now(timezone.utc)) - self.listed_within if self.listed_within else began

    def expected_mark(self, operation: str) -> str | None:
        """What the ledger's client_ref must contain after a submission marked with `MARK`, or None."""
        raise NotImplementedError

    def accepted(self, own_id: Any) -> dict[str, Any]:
        """The provider's answer to a submission of `paid`, and to a look at it, with this id in it."""
        raise NotImplementedError

    def group_of(self, operation: str) -> str:
        """What precedes the id of a task of *operation*."""
        raise NotImplementedError

    def finished_with(self, operation: str, url: str) -> dict[str, Any]:
        """The provider's document of a task of *operation* that made the file at *url*."""
        raise NotImplementedError
