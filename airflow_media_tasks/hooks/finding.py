"""How a task is found whose submission's answer was lost: by its reference, else by its request and time."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from airflow_media_tasks.hooks.conversations import Conversation, ConversationHook
from airflow_media_tasks.task import MediaTask, SubmissionOutcomeUnknown, shown


_MARK = re.compile(r"amt-[0-9a-f]{32}")
"""What `client_ref` looks like where this package chose it."""
CLOCKS_DISAGREE = timedelta(hours=1)
"""What a list is asked for beyond a submission, where the provider chooses by its own clock."""
_TO_SPARE = timedelta(minutes=1)
_MADE_WITHIN = timedelta(minutes=5)
"""Of the intent, by the clock that is right: a submission leaves within seconds of it, or never."""
_CLOCK_STEP = timedelta(seconds=5)  # a Date header has whole seconds
_LARGEST_OFFSET = 86_400.0
_MOST_PAGES = 200
"""Of a list, in one search: ten thousand tasks and more."""


class FindingHook(ConversationHook):
    """Part of `MediaHook`."""

    # What a provider writes.

    def _list_tasks(
        self, name: str | None, since: datetime | None
    ) -> Conversation[tuple[list[MediaTask], bool]]:
        """Write this, with `_walk`. The account's tasks, newest first; whether all since *since* are there.

        :param name: the operation looked for, where the provider lists by kind or service.
        :param since: UTC, by our clock, see `earliest`; None asks for the first page.
        """
        raise NotImplementedError

    def _ref_of(self, task: MediaTask) -> str | None:  # noqa: ARG002  # for subclasses
        """Write this where a `client_ref` is kept: the reference that a task carries, ours or another's.

        Empty if it certainly carries none, None if it does not show.
        """
        return None

    def _comes_from(
        self, task: MediaTask, name: str, arguments: Mapping[str, Any] | None, client_ref: str | None
    ) -> bool | None:
        """Write this. Whether a listed task that shows no reference asks for the same; None if unknown."""
        raise NotImplementedError

    def _find_tasks(
        self,
        client_ref: str | None,
        submitted_after: datetime | None,
        name: str | None,
        arguments: Mapping[str, Any] | None,
    ) -> Conversation[list[MediaTask]]:
        """Overwritten where the provider can be asked by a mark of ours. See `find_tasks`.

        A reference decides alone, whatever any clock says. A task that shows none and asks for the same is of
        this submission if it is younger by the provider's clock as its headers show it; if it is older by
        that, but may be of it by ours, it is a doubt.
        """
        tasks, complete = yield from self._list_since(name, submitted_after)
        if name is not None:
            tasks = [dataclasses.replace(task, operation=task.operation or name) for task in tasks]
        if name is None or (arguments is None and client_ref is None):
            earliest = self.earliest(submitted_after)
            return [
                task
                for task in tasks
                if (earliest is None or task.created_at is None or task.created_at >= earliest)
                and (name is None or self._comes_from(task, name, None, None) is not False)
            ]
        found, doubts = [], [] if complete else ["it does not reach back to the submission"]
        for task in tasks:
            ref = self._ref_of(task)
            if client_ref is not None and ref is not None:
                found += [task] if ref == client_ref else []
                continue
            in_time = self._in_time(task, submitted_after)
            if self.mark_of(task) is not None or in_time is False:
                continue
            verdict = self._comes_from(task, name, arguments, client_ref)
            if verdict is None:
                doubts.append(f"{shown(task.id)} does not show what it was made from")
            elif verdict and in_time is None:
                doubts.append(
                    f"{shown(task.id)} was made from the same, and may be older ({task.created_at})"
                )
            elif verdict:
                found.append(task)
        if doubts and not found:
            raise SubmissionOutcomeUnknown(
                f"{self.conn_type}'s list of tasks does not show enough to tell whether this one is there: "
                + "; ".join(doubts[:3])
                + (f" ({len(doubts)} such doubts)" if len(doubts) > 3 else ""),
                provider=self.conn_type,
            )
        return found

    def _list_since(
        self, name: str | None, since: datetime | None
    ) -> Conversation[tuple[list[MediaTask], bool]]:
        """As of `_list_tasks`, by the provider's clock, which may be measured only while it is listed."""
        reached = self.earliest(since, CLOCKS_DISAGREE)
        tasks, complete = yield from self._list_tasks(name, since)
        if not self._covers(reached, since):
            reached = self.earliest(since, CLOCKS_DISAGREE)
            tasks, complete = yield from self._list_tasks(name, since)
        return tasks, complete and self._covers(reached, since)

    def _covers(self, reached: datetime | None, since: datetime | None) -> bool:
        earliest = self.earliest(since)
        return reached is None or earliest is None or reached <= earliest

    def _walk(
        self, page_of: Callable[[int], Conversation[tuple[list[MediaTask], bool]]], since: datetime | None
    ) -> Conversation[tuple[list[MediaTask], bool]]:
        """What `_list_tasks` returns, of a list that *page_of* reads page by page, from 0.

        A server that does not know of pages shows the same one again; then nobody knows what it hides.
        """
        tasks: dict[str, MediaTask] = {}
        for number in range(_MOST_PAGES):
            page, more = yield from page_of(number)
            known = len(tasks)
            tasks.update((task.id, task) for task in page)
            times = [task.created_at for task in page if task.created_at is not None]
            earliest = self.earliest(since)
            # It reaches back only if it is ordered by time, which is rarely written down.
            if not more or (times and earliest and earliest > times[-1] <= times[0]):
                return list(tasks.values()), True
            if since is None or len(tasks) == known:
                break
        return list(tasks.values()), False

    def earliest(self, since: datetime | None, to_spare: timedelta = _TO_SPARE) -> datetime | None:
        """*since* (UTC, our clock) by our clock or the provider's, whichever is behind, less *to_spare*."""
        if since is None:
            return None
        return since + timedelta(seconds=min(self._offset, 0.0)) - to_spare

    def _in_time(self, task: MediaTask, since: datetime | None) -> bool | None:
        """Whether *task* may come from a submission of *since* by its time; None if the clocks disagree."""
        if since is None or task.created_at is None:
            return True
        if task.created_at >= since + timedelta(seconds=self._offset) - _CLOCK_STEP:
            return True
        may_be = since - _TO_SPARE <= task.created_at <= since + _MADE_WITHIN
        return None if may_be else False

    @property
    def _offset(self) -> float:
        """Of the provider's clock, as far as it is believed: a header can say anything."""
        return max(-_LARGEST_OFFSET, min(_LARGEST_OFFSET, self.clock_offset))

    def mark_of(self, task: MediaTask) -> str | None:
        """The mark of this package that a task carries, its submission's `client_ref`; None without one.

        :param task: as a hook of this provider has just read or listed it.
        """
        ref = self._ref_of(task)
        return ref if ref and _MARK.fullmatch(ref) else None
