"""What the API server remembers of what it has read: weighed in bytes, the longest unused goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable


ENTRY = 500
"""Bytes that an entry takes beside its value."""


class Memory:
    """Values by key; any thread may ask.

    :param most: bytes that all values together may have.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.RLock()
        self.weight = 0
        """Bytes of all that is kept."""

    def get(self, key: Hashable) -> bytes | None:
        """What is kept for *key*, or None."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def keep(self, key: Hashable, value: bytes) -> None:
        """Keeps *value*, as long as there is room."""
        with self._lock:
            self.forget(key)
            self._values[key] = value
            self.weight += len(value) + ENTRY
            while self.weight > self._most:
                self.forget(next(iter(self._values)))

    def forget(self, key: Hashable) -> None:
        """What is kept for *key* is asked for again."""
        with self._lock:
            value = self._values.pop(key, None)
            if value is not None:
                self.weight -= len(value) + ENTRY

    def clear(self) -> None:
        """Everything is asked for again."""
        with self._lock:
            self._values.clear()
            self.weight = 0

    def __len__(self) -> int:
        return len(self._values)
