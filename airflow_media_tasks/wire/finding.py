"""How a task is found whose submission's answer was lost: by its reference, else by its request and time."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote

from airflow_media_tasks.task import MediaNotFoundError, MediaTask, SubmissionOutcomeUnknown, shown
from airflow_media_tasks.wire.conversations import Conversation
from airflow_media_tasks.wire.documents import as_text
from airflow_media_tasks.wire.materials import NO_TRACES, same
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.wire.places import at
from airflow_media_tasks.wire.protocol import ProtocolHook, handle
from airflow_media_tasks.wire.tables import Call


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


class FindingHook(ProtocolHook):
    """Part of `MediaHook`."""

    # What an odd provider overrides.

    def _groups_listed(self, name: str | None) -> list[str]:
        """The groups whose lists have the tasks of an operation, or of all."""
        if self.listing is None or "{group}" not in self.listing.call.path:
            return [""]
        return (
            [self.operations[name].group] if name else sorted({op.group for op in self.operations.values()})
        )

    def _ref_of(self, task: MediaTask) -> str | None:
        """The reference that a task carries, ours or another's; None if it does not show.

        Empty if it certainly carries none.
        """
        said = as_text(at(self.document.reference, task.raw))
        if said is None or not self.reference.endswith("_url"):
            return said
        last = re.split(r"[?&]", said)[-1]
        return unquote(last.removeprefix("ref=")) if last.startswith("ref=") else ""

    def _comes_from(
        self,
        task: MediaTask,
        name: str,
        arguments: Mapping[str, Any] | None,
        client_ref: str | None,
        traces: Mapping[str, str],
    ) -> bool | None:
        """Whether a listed task that shows no reference asks for the same; None if unknown.

        An operation whose submissions carry a reference has made none that shows none, unless it was lost.
        """
        table, operation = self.document, self.operations[name]
        made = self.operations.get(self._operation_of(task.id, task.raw))
        if made is not None and made.kind != operation.kind:
            return False
        echo = at(table.request, task.raw)
        if not isinstance(echo, Mapping) or arguments is None:
            return None
        wanted = at(table.echoed, self._body(name, operation, arguments))
        compared = {key: value for key, value in wanted.items() if key != self.reference}
        equal = same(compared, {key: echo.get(key) for key in compared}, traces)
        return None if equal and client_ref is not None and self._is_marked(operation) else equal

    # The conversations.

    def _is_marked(self, operation: Operation) -> bool:
        return operation.marked and bool(self.reference)

    def can_be_asked(self, operation: str) -> bool:
        """Whether what became of a lost submission of *operation* (full name) can be found out."""
        made = self.operations[operation]
        return (self.listing is not None and made.listed) or (self.find is not None and made.marked)

    def _list_tasks(
        self, name: str | None, since: datetime | None, arguments: Mapping[str, Any] | None = None
    ) -> Conversation[tuple[list[MediaTask], bool]]:
        """The account's tasks, newest first; whether all since *since* are there.

        :param name: the operation looked for, where the provider lists by group.
        :param since: UTC, by our clock, see `earliest`; None asks for the first page.
        :param arguments: what was asked for, where the provider lists by model.
        """
        if self.listing is None or (name is not None and not self.operations[name].listed):
            raise SubmissionOutcomeUnknown(
                f"{self.conn_type} does not show enough to tell whether it is there: it has no list of "
                + ("tasks" if name is None else f"{name!r} tasks"),
                provider=self.conn_type,
            )
        tasks: list[MediaTask] = []
        complete = True
        for group in self._groups_listed(name):
            found, whole = yield from self._walk(self._pages_of(group, since, name, arguments), since)
            tasks += found
            complete = complete and whole
        return tasks, complete

    def _pages_of(
        self, group: str, since: datetime | None, name: str | None, arguments: Mapping[str, Any] | None
    ) -> Callable[[int], Conversation[tuple[list[MediaTask], bool]]]:
        earliest = self.earliest(since, CLOCKS_DISAGREE)
        usual = self.operations[name].defaults if name else {}
        model = (arguments or {}).get("model") or self._models().get(name or "") or usual.get("model")
        slots: dict[str, Any] = {"model": model}
        if earliest is not None:
            slots |= {"since": earliest.timestamp(), "since_iso": earliest.isoformat()}

        def page_of(number: int) -> Conversation[tuple[list[MediaTask], bool]]:
            tasks, more, slots["cursor"] = yield from self._read_page(group, "", number, slots)
            return tasks, more

        return page_of

    def _find_tasks(
        self,
        client_ref: str | None,
        submitted_after: datetime | None,
        name: str | None,
        arguments: Mapping[str, Any] | None,
        traces: Mapping[str, str] = NO_TRACES,
    ) -> Conversation[list[MediaTask]]:
        """See `find_tasks`.

        Where the provider can be asked by a reference of ours, it is. In a list, a reference decides alone,
        whatever any clock says. A task that shows none and asks for the same is of this submission if it is
        younger by the provider's clock as its headers show it; if it is older by that, but may be of it by
        ours, it is a doubt.
        """
        if self.find is not None and client_ref is not None and name and self.operations[name].marked:
            found = yield from self._found_by(self.find, self.operations[name].group, client_ref)
            return [dataclasses.replace(task, operation=task.operation or name) for task in found]
        return (yield from self._found_in_list(client_ref, submitted_after, name, arguments, traces))

    def _found_by(self, find: Call, group: str, client_ref: str) -> Conversation[list[MediaTask]]:
        try:
            document = yield from self._look(find, ref=client_ref, group=self.groups.get(group, group))
        except MediaNotFoundError:
            return []
        own_id = as_text(at(self.document.id, document)) or client_ref
        return [(yield from self._complete(handle(group, own_id), document))]

    def _found_in_list(
        self,
        client_ref: str | None,
        submitted_after: datetime | None,
        name: str | None,
        arguments: Mapping[str, Any] | None,
        traces: Mapping[str, str],
    ) -> Conversation[list[MediaTask]]:
        tasks, complete = yield from self._list_since(name, submitted_after, arguments)
        if name is not None:
            tasks = [dataclasses.replace(task, operation=task.operation or name) for task in tasks]
        if name is None or (arguments is None and client_ref is None):
            earliest = self.earliest(submitted_after)
            return [
                task
                for task in tasks
                if (earliest is None or task.created_at is None or task.created_at >= earliest)
                and (name is None or self._comes_from(task, name, None, None, NO_TRACES) is not False)
            ]
        found, doubts = [], self._gaps(submitted_after, complete)
        for task in tasks:
            ref = self._ref_of(task)
            if client_ref is not None and ref is not None:
                found += [task] if ref == client_ref else []
                continue
            in_time = self._in_time(task, submitted_after)
            if self.mark_of(task) is not None or in_time is False:
                continue
            verdict = self._comes_from(task, name, arguments, client_ref, traces)
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

    def _gaps(self, since: datetime | None, complete: bool) -> list[str]:
        """Why a list may not have what was submitted since *since*."""
        gaps = [] if complete else ["it does not reach back to the submission"]
        after = self.listing.shows_after if self.listing else 0.0
        if after and since is not None and time.time() - since.timestamp() < after:
            gaps.append(f"it is certain to show a task only {after / 60:.0f} minutes after its submission")
        return gaps

    def _list_since(
        self, name: str | None, since: datetime | None, arguments: Mapping[str, Any] | None
    ) -> Conversation[tuple[list[MediaTask], bool]]:
        """As of `_list_tasks`, by the provider's clock, which may be measured only while it is listed."""
        reached = self.earliest(since, CLOCKS_DISAGREE)
        tasks, complete = yield from self._list_tasks(name, since, arguments)
        if not self._covers(reached, since):
            reached = self.earliest(since, CLOCKS_DISAGREE)
            tasks, complete = yield from self._list_tasks(name, since, arguments)
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
            in_order = self.listing is None or self.listing.by_time
            if not more or (in_order and times and earliest and earliest > times[-1] <= times[0]):
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
