"""The records of a batch's requests: many to an entry of the state store, so that few calls carry them.

    media_task.batch         where the batch stands: `State`
    media_task.keys.<l>.<n>  the keys of layout l: KEYS requests in their order
    media_task.page.<l>.<n>  of layout l, the records of the requests n * PAGE to (n + 1) * PAGE - 1
    media_task.made.<n>      results and errors of requests that have ended, by the submission's reference

A batch whose table has changed is laid out anew: under other names, and the state, which is written last,
says which layout counts. State and pages have a copy in the second home (see `records`). Results have not:
URLs are in them, and the provider can be asked for them again.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from airflow_media_tasks.submissions import costs
from airflow_media_tasks.submissions.records import KEY, PAGE, Entries, Record, key_of
from airflow_media_tasks.task import MediaTaskError, TaskStatus, shown


KEYS = 2000
ENTRY_BYTES = 60_000
"""Of JSON in one entry, at most; one result may be larger than that by itself."""
STATE_EVERY = 2.0
"""Seconds after which the state is written while requests are sent or settled."""
_SIDE_BY_SIDE = 8
"""Submissions that the first version had under way at once."""
_AT_HAND = 16
"""Pages, and entries of results, that are kept in memory."""

BATCH = f"{KEY}.batch"


@dataclass
class State:
    """Where a batch stands; what a worker leaves for the next one, and for the gallery.

    :param try_number: of the try that has written this.
    :param began: unix seconds at which that try began.
    :param layout: which layout of the pages counts.
    :param tables: how often the table has changed in a way that gave requests other numbers.
    :param total: how many requests there are.
    :param kept: how many records there may be: those of requests that the table does not have any more come
        after the others.
    :param next: the first request that this try has not looked at yet.
    :param again: requests before `next` that are to be looked at again: the provider had no room for them.
    :param open: pages with requests under way.
    :param made: how many entries of results there are.
    :param waiting: requests under way.
    :param succeeded: requests whose result is there, and landed where that is wanted.
    :param failed: requests that have ended otherwise, so far.
    :param landed: files that have landed.
    :param cost: what has been charged for what has ended, a sum for each unit, as `costs.Sums` tells it.
    :param estimated: the same by the price table, of what was made without the provider saying its price.
    :param committed: with `max_cost`, what all records have cost and may yet cost, decimal text.
    :param unit: of *committed*.
    :param refused_since: unix seconds since when the provider has had no room, or None.
    :param refusals: how often it had none.
    :param stopped: what has ended the batch, the dict of a `MediaTaskError`, or None.
    """

    try_number: int
    total: int
    kept: int
    provider: str
    media_conn_id: str
    began: float
    layout: int = 0
    tables: int = 0
    next: int = 0
    again: list[int] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    made: int = 0
    waiting: int = 0
    succeeded: int = 0
    failed: int = 0
    landed: int = 0
    cost: list[dict[str, Any]] = field(default_factory=list)
    estimated: list[dict[str, Any]] = field(default_factory=list)
    committed: str | None = None
    unit: str | None = None
    refused_since: float | None = None
    refusals: int = 0
    stopped: dict[str, Any] | None = None

    @classmethod
    def of(cls, value: Any) -> State:
        """The state in a stored *value*. Raises MediaTaskError for anything else, so that nothing is sent."""
        names = [one.name for one in dataclasses.fields(cls)]
        try:
            state = cls(**{name: value[name] for name in names if name in value})
            numbers = [*(getattr(state, name) for name in _WHOLE), *state.again, *state.open]
            if not all(type(number) is int and number >= 0 for number in numbers) or state.kept < state.total:
                raise ValueError("a number is none, or out of its range")
            if not all(isinstance(one, dict) for one in [*state.cost, *state.estimated]):
                raise ValueError("a cost is none")
            for moment in (state.began, state.refused_since or 0.0):
                datetime.fromtimestamp(moment, timezone.utc)
        except (TypeError, ValueError, OverflowError, OSError) as error:
            raise MediaTaskError(
                f"the entry {BATCH!r} in this task's state store cannot be read, so nothing is submitted: "
                f"{error}; it holds {shown(value, 300)}"
            ) from error
        return state

    def charge(self, cost: Mapping[str, Any] | None, *, made: bool) -> None:
        """Adds what a request has cost, as `costs.Prices.told`; an estimate only of what was *made*."""
        self.cost = _added(self.cost, cost)
        if made:
            self.estimated = _added(self.estimated, costs.estimate_of(cost))


def _added(sums: list[dict[str, Any]], amount: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    found = costs.Sums(sums)
    found.add(amount)
    return [*found.told()]


def page_of(state: Any, number: int) -> str | None:
    """The entry with the record of request *number*, by the value of the entry `BATCH`; None without one.

    In it, the record is under the number as a text.
    """
    layout = state.get("layout") if isinstance(state, Mapping) else None
    return f"{KEY}.page.{layout}.{number // PAGE}" if type(layout) is int and number >= 0 else None


_WHOLE = (
    *("try_number", "layout", "tables", "total", "kept", "next", "made"),
    *("waiting", "succeeded", "failed", "landed", "refusals"),
)


class Pages:
    """The records of a batch, by number, with their results; nothing is written before `write`.

    :param same: what all records have in common, and no page repeats.
    :param read: of an entry's name; by default the first home's.
    """

    def __init__(
        self,
        entries: Entries,
        state: State,
        same: Mapping[str, Any],
        read: Callable[[str], Any] | None = None,
    ) -> None:
        self.state = state
        self._entries, self._same = entries, dict(same)
        self._read = read or entries.read
        self._pages = _AtHand(lambda page: self._loaded(self._name(page)))
        self._made = _AtHand(lambda number: self._read(f"{KEY}.made.{number}") or {})
        self._changed: set[int] = set()
        self._new: dict[str, Any] = {}
        self._new_bytes = 0
        self._copied: tuple[int, ...] = ()
        self._state_written = float("-inf")

    @classmethod
    def of(
        cls,
        entries: Entries,
        state: State,
        keys: Sequence[str],
        same: Mapping[str, Any],
        log: Any,
        *,
        resumed: bool,
    ) -> Pages:
        """The records of a batch with these *keys*: what was left before, wherever that is.

        :param resumed: whether this try has deferred before.
        """
        before = cls._before(entries, same, log)
        if before is None:
            pages = cls(entries, state, same)
            may_be_old = resumed or not entries.is_first_try
            old = list(_of_single_entries(entries, len(keys), same)) if may_be_old else []
            if old:
                log.info("%d records of an earlier version of this package are carried over", len(old))
        else:
            state.layout, state.made = before.state.layout, before.state.made
            # A worker may have died between a result and the state that counts it.
            state.made = max(
                state.made, *(record.made + 1 for _, record in before if record.made is not None), 0
            )
            moved = any(number < len(keys) and record.key != keys[number] for number, record in before)
            state.tables = before.state.tables + moved
            if before._read == entries.read:  # noqa: SLF001  # one of ours
                state.cost, state.estimated = before.state.cost, before.state.estimated
            if before._read == entries.read and before.all_keys() == list(keys):  # noqa: SLF001  # one of ours
                state.kept, before.state = before.state.kept, state
                return before
            state.layout += 1
            pages = cls(entries, state, same)
            old = [(record, None) for _, record in before]
        pages._lay_out(keys, old)
        return pages

    @classmethod
    def _before(cls, entries: Entries, same: Mapping[str, Any], log: Any) -> Pages | None:
        stored = entries.read(BATCH)
        if stored is not None:
            return cls(entries, State.of(stored), same)
        for number, copy in entries.earlier(BATCH):
            log.info("a clear has discarded the batch's records; going on by the copies of try %s", number)
            # Results have no copy: what was made is asked for again.
            return cls(entries, State.of(copy), same, lambda name: next(entries.copies(name), ("", None))[1])
        return None

    def _lay_out(self, keys: Sequence[str], old: Sequence[tuple[Record, Mapping[str, Any] | None]]) -> None:
        """Puts *old* records at the places of their keys; those that have none follow."""
        numbers = {key: number for number, key in enumerate(keys)}
        for record, made in old:
            number = numbers.get(record.key or "")
            if number is None:
                number, self.state.kept = self.state.kept, self.state.kept + 1
            self[number] = record if made is None else self.end(record, made)
        for number, start in enumerate(range(0, len(keys), KEYS)):
            self._entries.write(self._keys_name(number), list(keys[start : start + KEYS]))

    def __getitem__(self, number: int) -> Record | None:
        """The record of the request with this number, or None."""
        record: Record | None = self._pages[number // PAGE].get(number)
        return record

    def __setitem__(self, number: int, record: Record) -> None:
        self.touch(number // PAGE)
        self._pages[number // PAGE][number] = record

    def put_back(self, number: int, before: Record | None) -> None:
        """What was there before a submission that was certainly not accepted."""
        self.touch(number // PAGE)
        if before is None:
            self._pages[number // PAGE].pop(number, None)
        else:
            self._pages[number // PAGE][number] = before

    def __iter__(self) -> Iterator[tuple[int, Record]]:
        """All records with their numbers, in order."""
        for page in range(-(-self.state.kept // PAGE)):
            yield from self.page(page).items()

    def page(self, page: int) -> dict[int, Record]:
        """The records on *page*, by number, in order."""
        return dict(sorted(self._pages[page].items()))

    def touch(self, page: int) -> None:
        """Lets `write` write *page*, so that this try has a copy of it."""
        self._pages.hold(page)
        self._changed.add(page)

    def key_of_copies(self) -> str:
        """What the key of this try's copy of page n is, with `n` behind it."""
        return self._entries.key_of_copy(self._name(""))

    # Results.

    def end(self, record: Record, made: Mapping[str, Any]) -> Record:
        """*record* with the place at which *made*, what became of its request, will be found."""
        name = record.client_ref or record.key or ""
        size = len(json.dumps({name: made}))
        if self._new and self._new_bytes + size > ENTRY_BYTES:
            self._write_made()
        self._new[name] = made
        self._new_bytes += size
        return dataclasses.replace(record, made=self.state.made)

    def made(self, record: Record) -> Mapping[str, Any]:
        """What became of the request of *record*: `{"result", "error"}`; empty if that is not there."""
        if record.made is None:
            return {}
        name = record.client_ref or record.key or ""
        found = self._new.get(name) if record.made == self.state.made else None
        return found or self._made[record.made].get(name) or {}

    def result(self, record: Record) -> dict[str, Any] | None:
        """The task's dict, if it has been made."""
        result = self.made(record).get("result")
        return None if result is None else {**result, "operation": record.operation}

    def _write_made(self) -> None:
        self._entries.write(f"{KEY}.made.{self.state.made}", self._new)
        self.state.made += 1
        self._new, self._new_bytes = {}, 0

    # Writing.

    def write(self, *, whole: bool = True) -> None:
        """Writes results and pages that were changed, and the state. What is an intent then may be sent.

        :param whole: False if the state, which a new try makes anew, may wait for some seconds.
        """
        if self._new:
            self._write_made()
        for page in sorted(self._changed):
            value = {
                str(number): {
                    name: part
                    for name, part in vars(record).items()
                    if part is not None and name != "fingerprint" and self._same.get(name) != part
                }
                for number, record in self.page(page).items()
            }
            self._entries.write(self._name(page), value, value)
            self._pages.release(page)
        self._changed.clear()
        if not whole and time.monotonic() - self._state_written < STATE_EVERY:
            return
        self._state_written = time.monotonic()
        state = {name: part for name, part in vars(self.state).items() if part is not None}
        shape = (self.state.layout, self.state.tables, self.state.total, self.state.kept)
        self._entries.write(BATCH, state, None if shape == self._copied else state)
        self._copied = shape

    def keys(self, numbers: Sequence[int]) -> dict[int, str]:
        """The keys of the requests with these numbers."""
        stored = {
            n: self._entries.read(self._keys_name(n)) or [] for n in {number // KEYS for number in numbers}
        }
        try:
            return {number: str(stored[number // KEYS][number % KEYS]) for number in numbers}
        except IndexError:
            raise MediaTaskError(
                "the keys of the batch's requests are not in this task's state store any more, so nothing is "
                "submitted; clear the task"
            ) from None

    def all_keys(self) -> list[str]:
        """The keys of all requests, in order."""
        return list(self.keys(range(self.state.total)).values())

    def _keys_name(self, number: int) -> str:
        return f"{KEY}.keys.{self.state.layout}.{number}"

    def _name(self, page: int | str) -> str:
        return f"{KEY}.page.{self.state.layout}.{page}"

    def _loaded(self, name: str) -> dict[int, Record]:
        value = self._read(name)
        if value is None:
            return {}
        lost = self._read != self._entries.read
        try:
            return {
                int(number): Record.of(
                    {
                        **self._same,
                        "fingerprint": str(one["key"]).partition("-")[0],
                        **one,
                        **({"made": None} if lost else {}),
                    },
                    name,
                )
                for number, one in value.items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise MediaTaskError(
                f"the entry {name!r} in this task's state store cannot be read, so nothing is submitted: "
                f"{error}; it holds {shown(value, 300)}"
            ) from error


def _of_single_entries(
    entries: Entries, total: int, same: Mapping[str, Any]
) -> Iterator[tuple[Record, Mapping[str, Any] | None]]:
    """The records of a batch as the first version wrote them: each in an entry of its own, by position."""
    seen: Counter[str] = Counter()
    gap = 0
    for number in itertools.count():
        stored = entries.read(f"{KEY}.{number}")
        gap = 0 if stored is not None else gap + 1
        # The first were submitted side by side: one of them is there, if any is.
        if gap > _SIDE_BY_SIDE and (gap > number or number >= total):
            return
        if stored is None:
            continue
        record = Record.of(stored, f"{KEY}.{number}")
        key = key_of(record.fingerprint, seen)
        error = record.error
        made = {"result": record.result, "error": error} if record.result or error else None
        record = dataclasses.replace(
            record,
            key=key,
            fingerprint=key.partition("-")[0],
            arguments=None,
            result=None,
            error=None,
            failure=None if error is None else str(error.get("type")),
            **same,
        )
        made_it = made is not None and (made["result"] or {}).get("status") == TaskStatus.SUCCEEDED.value
        if record.phase == "finished" and made_it and error is not None:
            # It was made and paid for, and has not landed.
            record = dataclasses.replace(record, phase="adopted")
        yield record, made


class _AtHand(OrderedDict[int, Any]):
    """What was read lately, and what is held until it is released."""

    def __init__(self, read: Callable[[int], Any]) -> None:
        super().__init__()
        self._read = read
        self._held: set[int] = set()

    def __missing__(self, number: int) -> Any:
        value = self[number] = self._read(number)
        for old in [one for one in self if one not in self._held][:-_AT_HAND]:
            del self[old]
        return value

    def hold(self, number: int) -> None:
        """Keeps it, whatever else is read."""
        _ = self[number]
        self._held.add(number)

    def release(self, number: int) -> None:
        """Ends that."""
        self._held.discard(number)
