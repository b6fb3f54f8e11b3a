"""Faults of a whole provider or of all of them, set through `POST /_sim/faults` or `Simulator.fault`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


PROVIDERS = ("vap", "acedata", "kling")

On = Literal["submit", "read", "all"]

_NUMBER = (int, float)
_STATUSES = frozenset((500, 502, 503, 504))

# kind -> (what it applies to unless told, {own field: (type, default, allowed values or None)})
_KINDS: dict[str, tuple[On, dict[str, tuple[Any, Any, frozenset[Any] | None]]]] = {
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
    "unknown_as": ("read", {"value": (str, "404", frozenset(("404", "empty", "null", "1201")))}),
    "funds_status": ("submit", {"status": (int, 403, frozenset((402, 403)))}),
}
# A setting holds as long as it stands; counting it down would make no sense.
_SETTINGS = frozenset(("slots", "clock_skew", "unknown_as", "funds_status"))


@dataclass
class Fault:
    """One fault that is in force.

    :param kind: see `docs/simulator.md`.
    :param provider: `vap`, `acedata`, `kling`, or None for all.
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


def parse_fault(value: Any, now: float) -> Fault:
    """The fault that the JSON object *value* describes. Raises ValueError with a sentence if it is malformed."""
    if not isinstance(value, dict):
        raise ValueError("a fault is a JSON object with at least 'kind'")
    rest = dict(value)
    kind = rest.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"'kind' must be one of {', '.join(sorted(_KINDS))}, not {kind!r}")
    default_on, own = _KINDS[kind]
    provider = rest.pop("provider", None)
    if provider not in (None, *PROVIDERS):
        raise ValueError(f"'provider' must be one of {', '.join(PROVIDERS)} or null, not {provider!r}")
    on = rest.pop("on", None) or default_on
    if on not in ("submit", "read", "all"):
        raise ValueError(f"'on' must be submit, read or all, not {on!r}")
    if kind == "error_after_accept" and on != "submit":
        raise ValueError("'error_after_accept' can only be on submit: nothing is accepted by a read")
    seconds = rest.pop("seconds", None)
    if seconds is not None and not (_is(seconds, _NUMBER) and seconds > 0):
        raise ValueError(f"'seconds' must be a number above 0 or null, not {seconds!r}")
    count = rest.pop("count", None)
    if count is not None and not (_is(count, int) and count > 0):
        raise ValueError(f"'count' must be a whole number above 0 or null, not {count!r}")
    if count is not None and kind in _SETTINGS:
        raise ValueError(
            f"'count' makes no sense for {kind!r}: it holds until 'seconds' are over or it is cleared"
        )
    fields = {}
    for name, (kind_of_value, default, allowed) in own.items():
        given = rest.pop(name, default)
        if given is not default and not _is(given, kind_of_value):
            raise ValueError(f"{name!r} of {kind!r} has a value of the wrong type: {given!r}")
        if allowed is not None and given not in allowed:
            raise ValueError(f"{name!r} of {kind!r} must be one of {sorted(allowed)}, not {given!r}")
        if name in ("delay", "retry_after", "limit") and given is not None and given < 0:
            raise ValueError(f"{name!r} of {kind!r} must not be negative, got {given!r}")
        fields[name] = given
    if rest:
        raise ValueError(
            f"{kind!r} has no {', '.join(sorted(map(repr, rest)))}; its own fields: {sorted(own)}"
        )
    return Fault(kind, provider, on, None if seconds is None else now + seconds, count, fields)


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
