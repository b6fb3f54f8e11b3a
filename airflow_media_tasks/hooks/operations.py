"""What a provider can do, and the check of a request before any money is spent.

An `Operation` is data: the provider-neutral words it takes, which of them it must have, and what the
provider calls them. The check is the same for every provider; a value that only the provider can judge
(a model id, an aspect ratio) is passed on unjudged, so that a new option needs no release of this package.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from airflow_media_tasks.task import MediaRequestError, shown


@dataclass(frozen=True)
class Operation:
    """One thing a provider can make.

    :param kind: what comes out, `image`, `video` or `audio`.
    :param path: where it is submitted, below the base URL.
    :param required: neutral words that must be there.
    :param one_of: groups of neutral words of which exactly one must be there.
    :param rename: neutral word -> the provider's word, for the words that differ.
    :param fixed: provider's words that are always sent.
    :param defaults: provider's words that are sent unless the caller gives another value.
    :param inline: neutral words that may hold a picture itself, in base64, instead of its URL.
    :param expected_seconds: how long the provider usually takes; the first look comes then.
    """

    kind: str
    path: str
    required: tuple[str, ...] = ()
    one_of: tuple[tuple[str, ...], ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    inline: tuple[str, ...] = ()
    expected_seconds: float = 60.0

    def check(self, name: str, arguments: Any) -> dict[str, Any]:
        """*arguments* in neutral words, without None, with numbers made numbers.

        Templates render to text, so a numeric text is taken for the number it shows, and the text `None` for
        an argument that is not given; as what is to be shown or said, it is refused. What is called `..._url`
        or `..._urls` must be addresses, http or https.

        :param name: the operation's name, for the error's text.
        :raises MediaRequestError: naming the argument, its value, what is allowed and what to do.
        """
        _check_json(name, arguments)
        neutral_of = {theirs: ours for ours, theirs in self.rename.items()}
        checked: dict[str, Any] = {}
        absent: list[str] = []
        for key, value in arguments.items():
            word = neutral_of.get(key, key)
            if value is None:
                continue
            if word in checked:
                raise MediaRequestError(
                    f"arguments of {name!r}: {word!r} and {self.rename[word]!r} are the same, give one"
                )
            if value == _NONE and self._knows(word):
                if word in _WORDS:
                    raise _wrong(name, word, value, f"what is meant ({_RENDERED})")
                absent.append(word)
            else:
                checked[word] = self._checked_value(name, word, value)
        self._check_complete(name, checked, absent)
        return checked

    def body(self, checked: Mapping[str, Any]) -> dict[str, Any]:
        """The provider's words for what `check` returned."""
        given = {self.rename.get(word, word): value for word, value in checked.items()}
        return {**self.defaults, **given, **self.fixed}

    def _knows(self, word: str) -> bool:
        return (
            word in _WORDS | _TEXTS | _NUMBERS
            or word.endswith(("_url", "_urls", "_id"))
            or word in self.required
            or any(word in group for group in self.one_of)
        )

    def _check_complete(self, name: str, checked: Mapping[str, Any], absent: list[str]) -> None:
        why = f"; {_listed(absent)} is {_NONE!r}: {_RENDERED}" if absent else ""
        missing = [word for word in self.required if word not in checked]
        if missing:
            raise MediaRequestError(
                f"{name!r} needs {_listed(missing)}, not given here: it must have {_listed(self.required)}"
                + "".join(f" and one of {_listed(group)}" for group in self.one_of)
                + ", and may have every other option of the provider; got "
                + f"{_listed(checked) or 'nothing'}{why}"
            )
        for group in self.one_of:
            given = [word for word in group if word in checked]
            if len(given) != 1:
                raise MediaRequestError(
                    f"{name!r} needs exactly one of {_listed(group)}, got "
                    f"{_listed(given) or 'none of them'}{why}"
                )

    def _checked_value(self, operation: str, word: str, value: Any) -> Any:
        if word.endswith("_urls"):
            if not isinstance(value, (list, tuple)) or not value:
                raise _wrong(operation, word, value, "a list of at least one URL")
            return [self._checked_address(operation, word, item) for item in value]
        if word.endswith("_url"):
            return self._checked_address(operation, word, value)
        if word in _TEXTS:
            if not isinstance(value, str):
                raise _wrong(operation, word, value, "a text")
            if not value.strip():
                raise _wrong(operation, word, value, "a text that is not empty")
        return _checked_number(operation, word, value) if word in _NUMBERS else value

    def _checked_address(self, operation: str, word: str, value: Any) -> Any:
        inline = word in self.inline
        if is_address(value) or (inline and isinstance(value, str) and _BASE64.fullmatch(value)):
            return value
        allowed = "a text, an http or https URL without spaces" + (" or base64" if inline else "")
        raise _wrong(operation, word, value, f"a list, each item {allowed}" if word[-1] == "s" else allowed)


_NONE = "None"
_RENDERED = f"a template makes {_NONE!r} of a value that is not there"

_WORDS = frozenset({"prompt", "text"})
_TEXTS = frozenset({"prompt", "negative_prompt", "model", "aspect_ratio", "resolution"})
_NUMBERS = frozenset({"duration", "count", "seed"})
# Shorter than any picture; a word or a path that happens to be of these characters is none.
_BASE64 = re.compile(r"(?:data:[\w.+/-]+;base64,)?[A-Za-z0-9+/\s]{64,}(?:=\s*){0,2}")


def is_address(value: Any) -> bool:
    """Whether *value* is a URL, http or https, that names a host."""
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and value.isprintable()
            and " " not in value
        )
    except ValueError:
        return False


def _check_json(name: str, arguments: Any) -> None:
    if not isinstance(arguments, Mapping):
        raise MediaRequestError(
            f"arguments of {name!r} must be a dict of argument name to value, "
            f"got {type(arguments).__name__}: {shown(arguments)}"
        )
    try:
        # NaN, the infinities and half a surrogate pair are no JSON, whatever Python's encoder thinks.
        json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MediaRequestError(
            f"arguments of {name!r} must be JSON values (text, numbers, lists, dicts): {error}"
        ) from None
    for key in arguments:
        if not isinstance(key, str):
            raise MediaRequestError(f"arguments of {name!r}: argument names are texts, got {shown(key)}")


def _checked_number(operation: str, word: str, value: Any) -> int | float:
    number = _number(value)
    if word == "duration":
        if number is None or number <= 0:
            raise _wrong(operation, word, value, "a number of seconds above 0")
        return number
    lowest = 1 if word == "count" else 0
    if not isinstance(number, int) or number < lowest:
        raise _wrong(operation, word, value, f"a whole number from {lowest}")
    return number


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return int(value) if value == int(value) else value


def _wrong(operation: str, word: str, value: Any, allowed: str) -> MediaRequestError:
    return MediaRequestError(f"argument {word!r} of {operation!r} must be {allowed}, got {shown(value)}")


def _listed(words: Any) -> str:
    return ", ".join(repr(word) for word in words)
