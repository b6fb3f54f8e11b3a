from __future__ import annotations

from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_media_tasks.wire.places import Into, at, filled, put, slots_of


DOCUMENT = {"status": "done", "data": [{"url": "a"}, {"url": "b"}], "error": None}


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("status", "done"),
        ("data[].url", ["a", "b"]),
        ("error && 'failed' || status", "done"),
        ("nothing.at.all", None),
        ("", None),
        ("join(',', status)", None),
        ("status < `400` && 'good'", None),
    ],
)
def test_a_place_is_jmespath(expression: str, found: Any) -> None:
    """What an expression finds is what stands there; None where nothing does, or where it does not fit."""
    assert at(expression, DOCUMENT) == found


@given(
    document=st.recursive(
        st.sampled_from([None, False, True, 0, 1, 0.0, "", "x", [], [1]]),
        lambda inner: st.dictionaries(st.sampled_from("ab"), inner),
        max_leaves=6,
    ),
    expression=st.sampled_from(["a", "a.b", "a || b", "a.b || b.a || a", "b.b || a.a"]),
)
def test_what_is_read_by_hand_is_what_jmespath_reads(document: Any, expression: str) -> None:
    """Plain paths, and the first of several, are not searched for: the answer is the same."""
    assert at(expression, document) == jmespath.search(expression, document)


def test_slots_are_filled() -> None:
    """A text that is one slot becomes the value itself, others are texts; values are not read for slots."""
    template = {"ids": "{ids}", "path": "/x/{id}", "list": ["{id}", 5], "plain": "as it is"}
    assert filled(template, {"ids": [1, 2], "id": "{ids}"}) == {
        "ids": [1, 2],
        "path": "/x/{ids}",
        "list": ["{ids}", 5],
        "plain": "as it is",
    }
    assert slots_of("/{group}/x/{id}") == ["group", "id"]
    with pytest.raises(KeyError, match="nobody"):
        filled("{nobody}", {})


def test_putting_at_a_path() -> None:
    """Objects on the way are made, lists are added to, and what the caller gave is not changed."""
    given = {"options": {"x": 1}}
    body: dict[str, Any] = dict(given)
    put(body, "options.deep.y", 2)
    put(body, "frames[]", "first")
    put(body, "frames[]", "last")
    put(body, "options.list[]", 3)
    assert body == {"options": {"x": 1, "deep": {"y": 2}, "list": [3]}, "frames": ["first", "last"]}
    assert given == {"options": {"x": 1}}


@pytest.mark.parametrize(
    ("place", "value", "body"),
    [
        (Into("duration", convert=str), 5, {"duration": "5"}),
        (Into("duration", convert="{}s".format), 5, {"duration": "5s"}),
        (
            Into("keyframes.frame0", {"type": "image", "url": "{value}"}),
            "u",
            {"keyframes": {"frame0": {"type": "image", "url": "u"}}},
        ),
        (
            Into("content[]", {"type": "text", "text": "{value}"}),
            "{value}",
            {"content": [{"type": "text", "text": "{value}"}]},
        ),
        (
            Into("images", {"image": "{value}"}, each=True),
            ["a", {"image": "b", "weight": 1}],
            {"images": [{"image": "a"}, {"image": "b", "weight": 1}]},
        ),
        (Into("images", {"image": "{value}"}, each=True), "a", {"images": [{"image": "a"}]}),
    ],
)
def test_shapes(place: Into, value: Any, body: dict[str, Any]) -> None:
    """A value stands in the shape that the provider wants, each item of a list in its own."""
    found: dict[str, Any] = {}
    place.put(found, value)
    assert found == body
