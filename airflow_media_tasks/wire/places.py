"""Places in documents: read by JMESPath, written by dotted paths, and texts with slots that are filled."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError


_SLOT = re.compile(r"\{(\w+)\}")
_KEYS = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)


def at(expression: str, document: Any) -> Any:
    """What stands at *expression* (JMESPath) in *document*; None where nothing does, or for no expression."""
    return _reader(expression)(document) if expression else None


@cache  # as many as the tables have
def _reader(expression: str) -> Callable[[Any], Any]:
    # Ten thousand waiting tasks are read every few seconds: plain paths by hand are ten times as quick.
    choices = expression.split(" || ")
    if all(_KEYS.fullmatch(choice) for choice in choices):
        return partial(_first, [choice.split(".") for choice in choices])
    return partial(_search, jmespath.compile(expression))


def _first(paths: list[list[str]], document: Any) -> Any:
    """What stands at the first of the *paths* where something does, as JMESPath's `||` chooses."""
    value = None
    for keys in paths:
        value = document
        for key in keys:
            if not isinstance(value, dict):
                value = None
                break
            value = value.get(key)
        if value or (value == 0 and value is not False):
            break
    return value


def _search(compiled: Any, document: Any) -> Any:
    try:
        return compiled.search(document)
    except (JMESPathError, TypeError):
        # A function or a comparison was given a value of another type: the document is not as described.
        return None


def filled(template: Any, values: Mapping[str, Any]) -> Any:
    """*template* with every `{slot}` replaced; a text that is one slot becomes the value itself.

    :raises KeyError: naming a slot that has no value.
    """
    if isinstance(template, str):
        if whole := _SLOT.fullmatch(template):
            return values[whole[1]]
        return _SLOT.sub(lambda slot: str(values[slot[1]]), template) if "{" in template else template
    if isinstance(template, Mapping):
        return {name: filled(value, values) for name, value in template.items()}
    if isinstance(template, (list, tuple)):
        return [filled(value, values) for value in template]
    return template


def slots_of(template: str) -> list[str]:
    """The names of the slots in *template*."""
    return _SLOT.findall(template)


@dataclass(frozen=True)
class Into:
    """Where an argument's value stands in a request's body, and in which shape.

    :param path: keys joined by dots; `[]` at its end is a list to which the value is added.
    :param shape: JSON in which `{value}` stands for the value.
    :param each: whether *shape* is of each item of a list; items that are objects already stay as they are.
    :param convert: what makes the provider's value of it, for example `str`.
    """

    path: str
    shape: Any = "{value}"
    each: bool = False
    convert: Callable[[Any], Any] | None = None

    def put(self, body: dict[str, Any], value: Any) -> None:
        """Sets *value* in *body*."""
        value = self.convert(value) if self.convert else value
        if not self.each:
            put(body, self.path, filled(self.shape, {"value": value}))
            return
        items = value if isinstance(value, list) else [value]
        shaped = [x if isinstance(x, Mapping) else filled(self.shape, {"value": x}) for x in items]
        put(body, self.path, shaped)


def put(body: dict[str, Any], path: str, value: Any) -> None:
    """Sets *value* at *path* in *body*, see `Into`; what the caller gave is copied before it is changed."""
    *outer, key = path.split(".")
    for name in outer:
        inner = body.get(name)
        body[name] = dict(inner) if isinstance(inner, Mapping) else {}
        body = body[name]
    if key.endswith("[]"):
        body[key[:-2]] = [*(body.get(key[:-2]) or []), value]
    else:
        body[key] = value
