"""What a provider can do, and the check of a request before any money is spent.

An `Operation` is data: the provider-neutral words it takes, which of them it must have, and where in a
request the provider wants them. The check is the same for every provider; a value that only the provider
can judge (a model id, an aspect ratio) is passed on unjudged, so that a new option needs no release of this
package.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from airflow_media_tasks.task import MediaRequestError, shown
from airflow_media_tasks.wire.addresses import is_address
from airflow_media_tasks.wire.materials import is_path, paths_in, takes_file
from airflow_media_tasks.wire.places import Into, at, filled, put, slots_of


@dataclass(frozen=True)
class Operation:
    """One thing a provider can make.

    :param kind: what comes out, `image`, `video` or `audio`; empty where that is the model's affair.
    :param path: where it is submitted, below the base URL; `{word}` is an argument, which then stands there.
    :param required: neutral words that must be there.
    :param one_of: groups of neutral words of which exactly one must be there.
    :param needs: neutral word -> another that must be there if it is.
    :param refuses: neutral word -> why it is not taken, and what to do.
    :param rename: neutral word -> its place in the body, for the words whose place is not their name.
    :param rest: the object in the body where all other words go, by default the body itself.
    :param top: words that stand in the body itself although there is a *rest*.
    :param fixed: place in the body -> what always stands there.
    :param defaults: as *fixed*, unless the caller gives another value; also of words in *path*.
    :param beside: neutral word -> what stands in the body, as *defaults*, if that word is given.
    :param inline: neutral words that may hold a picture itself, in base64, instead of its URL.
    :param host: one of the hook's `other_urls` where it is submitted, instead of the base URL.
    :param group: what precedes the provider's own id in the `media_task_id`, see `MediaHook.group_of`.
    :param marked: whether a submission can carry our reference, where the provider has a place for one.
    :param listed: whether its tasks are in the provider's list, where there is one.
    :param form: whether a submission is sent as a form, see `Request`.
    :param headers: that are sent with a submission.
    :param timeout: seconds without a byte until we give up on a submission's reply.
    :param expected_seconds: how long the provider usually takes; the first look comes then.
    """

    kind: str
    path: str
    required: tuple[str, ...] = ()
    one_of: tuple[tuple[str, ...], ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)
    rename: Mapping[str, str | Into] = field(default_factory=dict)
    rest: str = ""
    top: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inline: tuple[str, ...] = ()
    host: str = ""
    group: str = ""
    marked: bool = True
    listed: bool = True
    form: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 120.0
    expected_seconds: float = 60.0

    def check(self, name: str, arguments: Any) -> dict[str, Any]:
        """*arguments* in neutral words, without None, with numbers made numbers.

        Templates render to text, so a numeric text is taken for the number it shows, and the text `None` for
        an argument that is not given; as what is to be shown or said, it is refused. What is called `..._url`
        or `..._urls` must be addresses, http or https; what is to be fetched may also be an object storage
        path.

        :param name: the operation's name, for the error's text.
        :raises MediaRequestError: naming the argument, its value, what is allowed and what to do.
        """
        _check_json(name, arguments)
        neutral_of = {theirs: ours for ours in self.rename if (theirs := self._own_word(ours))}
        checked: dict[str, Any] = {}
        absent: list[str] = []
        for key, value in arguments.items():
            word = neutral_of.get(key, key)
            if value is None:
                continue
            if word in checked:
                raise MediaRequestError(
                    f"arguments of {name!r}: {word!r} and {self._own_word(word)!r} are the same, give one"
                )
            if value == _NONE and self._knows(word):
                if word in _WORDS:
                    raise _wrong(name, word, value, f"what is meant ({_RENDERED})")
                absent.append(word)
            else:
                checked[word] = self._checked_value(name, word, value)
        self._check_complete(name, checked, absent)
        return checked

    def check_handed(self, name: str, checked: Mapping[str, Any], handed: Mapping[str, str]) -> None:
        """Raises MediaRequestError if one of the paths in *checked* is not among what is *handed* over."""
        for word, path in paths_in(checked):
            if path not in handed:
                raise _wrong(
                    name, word, path, "an http or https URL here: operators alone hand over what a path names"
                )

    def body(self, checked: Mapping[str, Any]) -> dict[str, Any]:
        """The request's body for what `check` returned."""
        body: dict[str, Any] = {self.rest: {}} if self.rest else {}
        words = sorted(set(checked) - set(slots_of(self.path)), key=self._order)
        for place, value in self.defaults.items():
            if place not in slots_of(self.path):
                put(body, place, value)
        for word in words:
            for place, value in self.beside.get(word, {}).items():
                put(body, place, value)
        for word in words:
            self._place(word).put(body, checked[word])
        for place, value in self.fixed.items():
            put(body, place, value)
        return body

    def submit_path(self, checked: Mapping[str, Any]) -> str:
        """`path`, with what `check` returned in it."""
        return str(filled(self.path, {**self.defaults, **checked}))

    def echoed_in(self, echo: Mapping[str, Any]) -> int | None:
        """How much of this operation is in *echo*, a request's body as a provider shows it.

        That is how many places: those of what always stands in its body, and of the required words. None if
        it is not of this operation, which has something else in its body; 0 if one of the words is not there.
        """
        for place, value in self.fixed.items():
            if at(place, echo) != value:
                return None
        if any(at(place, echo) is None for place in self._needed):
            return 0
        return len(self.fixed) + len(self._needed)

    @cached_property  # it is asked of every waiting task, every few seconds
    def _needed(self) -> list[str]:
        return [self._place(word).path for word in self.required]

    def _place(self, word: str) -> Into:
        if word == self.rest or word in self.top or word in self.fixed:
            return Into(word)
        place = self.rename.get(word, f"{self.rest}.{word}" if self.rest else word)
        return place if isinstance(place, Into) else Into(place)

    def _order(self, word: str) -> tuple[int, int, str]:
        """An object that is given whole comes first, and what is added to a list comes as `rename` has it."""
        known = list(self.rename)
        return (word != self.rest, known.index(word) if word in known else -1, word)

    def _own_word(self, word: str) -> str | None:
        """What the provider calls *word*, if that is a word of its own."""
        name = self._place(word).path.rpartition(".")[2]
        return None if name.endswith("[]") or name == word else name

    def _knows(self, word: str) -> bool:
        return (
            word in _WORDS | _TEXTS | _NUMBERS
            or word in slots_of(self.path)
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
        for word in checked:
            if word in self.refuses:
                raise MediaRequestError(f"{word!r} {shown(checked[word])} of {name!r} {self.refuses[word]}")
            if self.needs.get(word, word) not in checked:
                raise MediaRequestError(
                    f"{word!r} {shown(checked[word])} of {name!r} needs {self.needs[word]!r} beside it"
                )

    def _checked_value(self, operation: str, word: str, value: Any) -> Any:
        if word.endswith("_urls"):
            if not isinstance(value, (list, tuple)) or not value:
                raise _wrong(operation, word, value, "a list of at least one URL")
            return [self._checked_address(operation, word, item) for item in value]
        if word.endswith("_url"):
            return self._checked_address(operation, word, value)
        if word in slots_of(self.path) and not (isinstance(value, str) and _SEGMENTS.fullmatch(value)):
            raise _wrong(
                operation, word, value, "letters, digits and any of . _ : - with single slashes between"
            )
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
        if takes_file(word) and is_path(value):
            return value
        allowed = "a text, an http or https URL without spaces"
        allowed += ", an object storage path" if takes_file(word) else ""
        allowed += " or base64" if inline else ""
        raise _wrong(operation, word, value, f"a list, each item {allowed}" if word[-1] == "s" else allowed)


_NONE = "None"
_RENDERED = f"a template makes {_NONE!r} of a value that is not there"

# None of `.` and `..`: it becomes part of a path.
_SEGMENTS = re.compile(r"(?!\.+(?:/|$))[\w.:-]+(?:/(?!\.+(?:/|$))[\w.:-]+)*", re.ASCII)
_WORDS = frozenset({"prompt", "text"})
_TEXTS = frozenset({"prompt", "negative_prompt", "model", "aspect_ratio", "resolution"})
_NUMBERS = frozenset({"duration", "count", "seed"})
# Shorter than any picture; a word or a path that happens to be of these characters is none.
_BASE64 = re.compile(r"(?:data:[\w.+/-]+;base64,)?[A-Za-z0-9+/\s]{64,}(?:=\s*){0,2}")


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
