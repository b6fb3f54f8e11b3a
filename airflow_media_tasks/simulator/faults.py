"""Faults of a whole provider or of all of them, set through `POST /_sim/faults` or `Simulator.fault`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal


On = Literal["submit", "read", "all"]

_NUMBER = (int, float)
_STATUSES = (500, 502, 503, 504)

_Field = tuple[Any, Any, tuple[Any, ...] | None]  # its type, its default, its allowed values if not any

# kind -> what it applies to unless told, its own fields
_KINDS: dict[str, tuple[On, dict[str, _Field]]] = {
    "outage": ("all", {"status": (int, 503, _STATUSES), "html": (bool, False, None)}),
    "latency": ("all", {"delay": (_NUMBER, 1.0, None)}),
    "hang": ("all", {"delay": (_NUMBER, 30.0, None)}),
    "rate_limit": ("all", {"retry_after": (_NUMBER, None, None)}),
    "concurrency": ("submit", {}),
    "slots": ("submit", {"limit": (int, 1, None)}),
    "lose_request": ("submit", {}),
    "lose_reply": ("submit", {}),
    "error_after_accept": ("submit", {"status": (int, 504, _STATUSES)}),
    "clock_skew": ("all", {"offset": (_NUMBER, 0.0, None)}),
    "html": ("all", {}),
    "truncated": ("all", {}),
    "huge": ("all", {}),
    "null": ("all", {}),
    "not_found": ("read", {}),
    "unknown_as": ("read", {"value": (str, "404", ("404", "empty", "null", "1201"))}),
    "funds_status": ("submit", {"status": (int, 403, (402, 403))}),
}
# A setting holds as long as it stands; counting it down would make no sense.
_SETTINGS = {"slots", "clock_skew", "unknown_as", "funds_status"}


@dataclass
class Fault:
    """One fault that is in force.

    :param kind: see `docs/simulator.md`.
    :param provider: the name of one, or None for all.
    :param on: `submit`, `read` or `all` requests.
    :param until: the simulator's unix seconds at which it ends, or None.
    :param count: how many more requests it hits, or None for any number.
    :param fields: what else the kind has.
    """

    kind: str
    provider: str | None
    on: On
    until: float | None
    count: int | None
    fields: dict[str, Any]

    def to_dict(self, now: float) -> dict[str, Any]:
        """The fault as `GET /_sim/faults` shows it; `seconds` is what is left of them."""
        left = None if self.until is None else round(self.until - now, 3)
        return {
            "kind": self.kind,
            "provider": self.provider,
            "on": self.on,
            "seconds": left,
            "count": self.count,
            **self.fields,
        }


def parse_fault(value: Any, now: float, providers: Collection[str]) -> Fault:
    """The fault that the JSON object *value* describes. Raises ValueError with a sentence otherwise.

    :param providers: the names of all that there are.
    """
    _require(isinstance(value, dict), "a fault is a JSON object with at least 'kind'")
    rest = dict(value)
    kind = rest.pop("kind", None)
    _require(isinstance(kind, str) and kind in _KINDS, f"'kind' is one of {sorted(_KINDS)}, not {kind!r}")
    default_on, own = _KINDS[kind]
    provider = rest.pop("provider", None)
    _require(
        provider in (None, *providers), f"'provider' is one of {sorted(providers)} or null, not {provider!r}"
    )
    on = rest.pop("on", None) or default_on
    _require(on in ("submit", "read", "all"), f"'on' is submit, read or all, not {on!r}")
    _require(
        kind != "error_after_accept" or on == "submit", "a read accepts nothing: 'on' can only be submit"
    )
    seconds = rest.pop("seconds", None)
    _require(
        seconds is None or (_is(seconds, _NUMBER) and seconds > 0),
        f"'seconds' is a number above 0 or null, not {seconds!r}",
    )
    count = rest.pop("count", None)
    _require(
        count is None or (_is(count, int) and count > 0),
        f"'count' is a whole number above 0 or null, not {count!r}",
    )
    _require(count is None or kind not in _SETTINGS, f"{kind!r} holds until it ends, it has no 'count'")
    fields = {name: _field(kind, name, rest.pop(name, spec[1]), spec) for name, spec in own.items()}
    _require(not rest, f"{kind!r} has no {sorted(rest)}; its own fields are {sorted(own)}")
    return Fault(kind, provider, on, None if seconds is None else now + seconds, count, fields)


def _field(kind: str, name: str, given: Any, spec: _Field) -> Any:
    type_, default, allowed = spec
    if given is default:
        return given
    _require(_is(given, type_), f"{name!r} of {kind!r} has a value of the wrong type: {given!r}")
    _require(allowed is None or given in allowed, f"{name!r} of {kind!r} is one of {allowed}, not {given!r}")
    _require(name == "offset" or isinstance(given, str) or given >= 0, f"{name!r} of {kind!r} is negative")
    return given


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
