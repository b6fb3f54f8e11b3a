from __future__ import annotations

import json
import math
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_media_tasks.wire.documents import (
    kind_of_key,
    kind_of_url,
    number_at,
    object_of,
    text_at,
    time_at,
)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(ANYTHING)
def test_an_object_or_an_empty_one(value: Any) -> None:
    """Where a provider's object is absent, null or something else, there is nothing in it."""
    assert object_of(value) == (value if isinstance(value, dict) else {})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (5, "5"),
        (0, "0"),
        (1.5, "1.5"),
        ("", None),
        (None, None),
        (True, None),
        ([], None),
        ({}, None),
    ],
)
def test_text(value: Any, text: str | None) -> None:
    """A text that is not empty or a number is a text; nothing else is."""
    assert text_at({"key": value}, "key") == text


def test_first_key_that_holds_something() -> None:
    """The first key with a usable value counts, and a missing one is passed over."""
    document = {"a": None, "b": "", "c": "found", "d": "later"}
    assert text_at(document, "missing", "a", "b", "c", "d") == "found"
    assert number_at({"a": "soon", "b": True, "c": "5.1s", "d": 2}, "a", "b", "c", "d") == 5.1
    assert time_at({"a": "soon", "b": [], "c": 0, "d": 1}, "a", "b", "c", "d") == datetime(
        1970, 1, 1, tzinfo=timezone.utc
    )
    assert [text_at({}, "a"), number_at({}, "a"), time_at({}, "a")] == [None, None, None]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, 5.0),
        ("5.1", 5.1),
        ("5.1s", 5.1),
        (" 7 ", 7.0),
        (True, None),
        ("", None),
        ("s", None),
        (None, None),
        ([5], None),
        (float("nan"), None),
        (float("inf"), None),
        ("nan", None),
        ("-Infinity", None),
        (10**400, None),
    ],
)
def test_number(value: Any, number: float | None) -> None:
    """A finite number, or a text that shows one, perhaps with an s for seconds."""
    assert number_at({"key": value}, "key") == number


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (1705788000, datetime(2024, 1, 20, 22, 0, tzinfo=timezone.utc)),
        (1705788000.5, datetime(2024, 1, 20, 22, 0, 0, 500000, tzinfo=timezone.utc)),
        (1705788000000, datetime(2024, 1, 20, 22, 0, tzinfo=timezone.utc)),
        ("2024-01-20T22:00:00Z", datetime(2024, 1, 20, 22, 0, tzinfo=timezone.utc)),
        ("2024-01-20T23:00:00+01:00", datetime(2024, 1, 20, 22, 0, tzinfo=timezone.utc)),
        ("2024-01-20 22:00:00", datetime(2024, 1, 20, 22, 0, tzinfo=timezone.utc)),
        ("yesterday", None),
        ("", None),
        (True, None),
        (None, None),
        (float("nan"), None),
        (1e300, None),
        (10**400, None),
        ("0001-01-01T00:00:00+23:00", None),
    ],
)
def test_time(value: Any, moment: datetime | None) -> None:
    """Unix seconds, unix milliseconds and ISO 8601 with or without a zone are times in UTC."""
    assert time_at({"key": value}, "key") == moment


@settings(deadline=None)
@given(st.datetimes(min_value=datetime(1980, 1, 1), max_value=datetime(2100, 1, 1)))  # noqa: DTZ001  # made aware below
def test_every_spelling_of_a_time_is_the_same(naive: datetime) -> None:
    """Seconds, milliseconds and ISO 8601 of one moment are read as that moment."""
    moment = naive.replace(microsecond=0, tzinfo=timezone.utc)
    seconds = int(moment.timestamp())
    east = moment.astimezone(timezone(timedelta(hours=9))).isoformat()
    assert {time_at({"t": value}, "t") for value in (seconds, seconds * 1000, moment.isoformat(), east)} == {
        moment
    }


@settings(deadline=None)
@given(ANYTHING)
def test_no_value_is_too_strange(value: Any) -> None:
    """Whatever a document holds, reading it raises nothing and gives a value that JSON can carry."""
    document = {"key": value}
    number, moment = number_at(document, "key"), time_at(document, "key")
    json.dumps([text_at(document, "key"), number], allow_nan=False)
    assert number is None or math.isfinite(number)
    assert moment is None or moment.tzinfo is timezone.utc


@settings(deadline=None)
@given(st.text())
def test_no_address_is_too_strange(text: str) -> None:
    """Whatever stands where a URL should be, its kind is known or not, and nothing is raised."""
    for url in (text, f"https://{text}", f"https://example.com/{text}"):
        assert kind_of_url(url) in (None, "image", "video", "audio")


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("video_url", "video"),
        ("mp4", "video"),
        ("image_url", "image"),
        ("last_frame_url", "image"),
        ("audio_url", "audio"),
        ("music_url", "audio"),
        ("vocal_audio_url", "audio"),
        ("thumbnail_url", "thumbnail"),
        ("video_cover_url", "thumbnail"),
        ("preview_image_url", "thumbnail"),
        ("VIDEO_URL", "video"),
        ("output_url", None),
        ("url", None),
    ],
)
def test_kind_by_key(key: str, kind: str | None) -> None:
    """The key tells what its URL leads to; a cover or preview is a thumbnail, whatever it is of."""
    assert kind_of_key(key) == kind


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://x/a.mp4", "video"),
        ("https://x/a.MP4?sig=b.png", "video"),
        ("https://x/a.png#b", "image"),
        ("https://x/a.mp3", "audio"),
        ("https://x/a", None),
        ("https://x.mp4/a", None),
        ("https://x/a.html", None),
        ("http://[half", None),
        ("", None),
    ],
)
def test_kind_by_extension(url: str, kind: str | None) -> None:
    """The extension of the path tells, not that of the query or the host."""
    assert kind_of_url(url) == kind
