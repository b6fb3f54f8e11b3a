"""`[sim:...]` words in the text of a request: how one task is told to misbehave, as test cards do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


_WORD = re.compile(r"\[sim:([^\]=*]*)(?:=([^\]*]*))?(?:\*(\d+))?\]")

_CHOICES = {
    "reject": {"auth", "funds", "rate", "concurrency", "moderation", "bad_request", "not_found", "server"},
    "fail": {"moderation", "provider", "timeout"},
    "shape": {"flat", "nested", "items", "output_url", "list", "object"},
    "error": {"text", "object", "detail"},
    "response": {"null", "absent", "partial"},
    "error-after-accept": {"500", "502", "503", "504"},
}
_SECONDS = {"seconds", "queued", "expires", "not-visible"}
_FREE_TEXT = {"status", "final"}
_BARE = {
    "lose-reply",
    "no-output",
    "no-echo",
    "no-id",
    "html",
    "truncated",
    "huge",
    "null",
    "inline",
    "missing-from-batch",
    "temporary",
    "watermark",
    "from-balance",
}


@dataclass(frozen=True)
class Word:
    """One word: its value (empty for a bare one) and, for `*N`, for how many submissions of *text*."""

    value: str
    first: int | None
    text: str


@dataclass(frozen=True)
class Words:
    """The words of one request. Where a word stands twice, the last one counts."""

    found: dict[str, Word] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def without(self, name: str) -> Words:
        """The same words but for *name*."""
        return Words({other: word for other, word in self.found.items() if other != name})

    def text(self, name: str) -> str | None:
        """The value of the word *name*, or None if the request has no such word."""
        word = self.found.get(name)
        return None if word is None else word.value

    def seconds(self, name: str) -> float | None:
        """The value of the word *name* in seconds, or None if the request has no such word."""
        word = self.found.get(name)
        return None if word is None else float(word.value)


NO_WORDS = Words()


def words_in(body: Any) -> Words:
    """The words in all texts of a decoded request *body*. Raises ValueError for a wrong one.

    A wrong word is an error because a misspelt one, silently ignored, makes a test that cannot fail.
    """
    found: dict[str, Word] = {}
    for text in _texts(body):
        for name, value, first in _WORD.findall(text) if "[sim:" in text else ():
            _check(name, value)
            found[name] = Word(value, int(first) if first else None, text)
    return Words(found) if found else NO_WORDS


def without_words(text: str) -> str:
    """*text* as a person wants to see it: no `[sim:...]`, no double spaces."""
    return " ".join(_WORD.sub(" ", text).split())


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)


def _check(name: str, value: str) -> None:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise ValueError(
                f"[sim:{name}={value}]: the value must be one of {', '.join(sorted(_CHOICES[name]))}"
            )
    elif name in _SECONDS:
        if not re.fullmatch(r"\d+(\.\d+)?", value):
            raise ValueError(f"[sim:{name}={value}]: the value must be a number of seconds")
    elif name in _FREE_TEXT:
        if not value:
            raise ValueError(f"[sim:{name}]: a word must follow, as in [sim:{name}=pondering]")
    elif name not in _BARE or value:
        known = sorted({*_CHOICES, *_SECONDS, *_FREE_TEXT, *_BARE})
        raise ValueError(
            f"[sim:{name}{'=' + value if value else ''}] is unknown; there are {', '.join(known)}"
        )
