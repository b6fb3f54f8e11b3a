from __future__ import annotations

import pytest

from airflow_media_tasks.simulator.faults import parse_fault


def test_defaults():
    """A fault holds for all providers, without limit, on what its kind is made for."""
    fault = parse_fault({"kind": "lose_reply"}, now=100, providers=("vap",))
    assert (fault.provider, fault.on, fault.until, fault.count) == (None, "submit", None, None)
    assert parse_fault({"kind": "outage", "seconds": 5}, now=100, providers=("vap",)).until == 105
    assert parse_fault({"kind": "outage"}, now=100, providers=("vap",)).fields == {
        "status": 503,
        "html": False,
    }


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ([], "object"),
        ({}, "kind"),
        ({"kind": "flood"}, "flood"),
        ({"kind": ["outage"]}, "kind"),
        ({"kind": "outage", "provider": "sora"}, "provider"),
        ({"kind": "outage", "on": "write"}, "on"),
        ({"kind": "outage", "seconds": 0}, "seconds"),
        ({"kind": "outage", "count": 1.5}, "count"),
        ({"kind": "outage", "count": True}, "count"),
        ({"kind": "outage", "status": 404}, "status"),
        ({"kind": "outage", "html": 1}, "html"),
        ({"kind": "outage", "delay": 1}, "delay"),
        ({"kind": "latency", "delay": -1}, "delay"),
        ({"kind": "latency", "delay": "1"}, "delay"),
        ({"kind": "slots", "limit": 1, "count": 2}, "count"),
        ({"kind": "error_after_accept", "on": "read"}, "submit"),
        ({"kind": "unknown_as", "value": "500"}, "value"),
    ],
)
def test_a_malformed_fault_is_refused_with_a_sentence(value, word):
    """Whatever is wrong with a fault is named in the error."""
    with pytest.raises(ValueError, match=word):
        parse_fault(value, now=0, providers=("vap",))
