"""What a task instance has landed, by its own record: entries in Airflow's task state store.

The document beside a file is for people: whoever may write to the bucket can write that, too. So what is
there already is told by the hash that this record has, and by nothing else.

    media_task.landed, media_task.landed.1, ...: {<file>: {sha256, ends_sha256, size, content_type, ...}}

A file is named by a hash of the task that made it and its number there, or of its URL where nobody made it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from airflow.sdk.execution_time.context import NEVER_EXPIRE


KEY = "media_task.landed"
"""The first entry's key; the second one's ends with `.1`."""
ENTRY = 100
"""Files of one entry, which so stays far below the 64 KiB that Airflow allows."""

_KNOWN_ELSEWHERE = ("kind", "url", "index", "media_task_id", "path")
_HASH = re.compile(r"[0-9a-f]{64}")
_TEXT = 1000


class Landed:
    """What this task instance has landed; the store is asked once, and told from the caller's thread alone.

    :param store: the task state store; None keeps nothing.
    :param total: how many files there are to land.
    """

    def __init__(self, store: Any, total: int) -> None:
        self._store = store
        self._entries: dict[int, dict[str, Any]] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._changed: set[int] = set()
        for number in range(math.ceil(total / ENTRY) if store is not None else 0):
            stored = store.get(_key(number))
            # What cannot be read, or is not ours, tells of nothing: the file is downloaded again.
            for name, facts in stored.items() if isinstance(stored, Mapping) else ():
                if _is_sound(facts):
                    self._facts[str(name)] = dict(facts)

    def of(self, name: str) -> dict[str, Any] | None:
        """What the record says of the file with this *name*, if it says anything."""
        return self._facts.get(name)

    def note(self, number: int, name: str, file: Mapping[str, Any]) -> None:
        """Takes note that *file*, the one with this *number* of all, is there; `save` writes it down."""
        facts = {key: value for key, value in file.items() if key not in _KNOWN_ELSEWHERE}
        place = number // ENTRY
        self._entries.setdefault(place, {})[name] = facts
        if self._facts.get(name) != facts:
            self._facts[name] = facts
            self._changed.add(place)

    def save(self) -> None:
        """Writes what was noted since the last time, if anything was: one call for each entry."""
        for place in sorted(self._changed) if self._store is not None else ():
            self._store.set(_key(place), self._entries[place], retention=NEVER_EXPIRE)
        self._changed.clear()


def name_of(media_task_id: str | None, index: int, url: str) -> str:
    """What the record calls a file: the same in every try."""
    made = [media_task_id, index] if media_task_id else [url]
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()[:24]


def _key(number: int) -> str:
    return f"{KEY}.{number}" if number else KEY


def _is_sound(facts: Any) -> bool:
    """Whether *facts* are such as we write; a person can write to the store, too."""
    if not isinstance(facts, Mapping) or not set(facts).isdisjoint(_KNOWN_ELSEWHERE):
        return False
    hashes = [facts.get(name) for name in ("sha256", "ends_sha256")]
    size = facts.get("size")
    return (
        all(isinstance(text, str) and _HASH.fullmatch(text) for text in hashes)
        and type(size) is int
        and size > 0
        and isinstance(facts.get("content_type"), str)
        and all(_is_plain(value) for value in facts.values())
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _TEXT
    return (
        value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value))
    )
