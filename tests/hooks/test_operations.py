from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_media_tasks.task import MediaRequestError
from airflow_media_tasks.wire.operations import Operation


OPERATION = Operation(
    "video",
    "/videos",
    ("prompt",),
    one_of=(("image_url", "image_urls"),),
    rename={"image_url": "start", "model": "model_name"},
    fixed={"action": "make"},
    defaults={"model_name": "newest", "quality": "high"},
)
GOOD = {"prompt": "a cup", "image_url": "https://example.com/1.png"}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def test_body_is_in_the_providers_words() -> None:
    """Words are renamed, defaults give way to the caller, fixed words do not, unknown ones pass."""
    given_ = {**GOOD, "model": "older", "action": "destroy", "option": {"deep": [None]}}
    assert OPERATION.body(OPERATION.check("make", given_)) == {
        "prompt": "a cup",
        "start": "https://example.com/1.png",
        "model_name": "older",
        "quality": "high",
        "action": "make",
        "option": {"deep": [None]},
    }
    assert OPERATION.body(OPERATION.check("make", GOOD))["model_name"] == "newest"


def test_the_providers_own_words_are_taken_too() -> None:
    """Who knows the provider's word may use it: it is the same argument."""
    assert OPERATION.check("make", {"prompt": "a cup", "start": "https://example.com/1.png"}) == GOOD


def test_one_argument_under_two_names() -> None:
    """The neutral word and the provider's word at once are a contradiction, and both are named."""
    with pytest.raises(MediaRequestError, match="'image_url' and 'start' are the same, give one"):
        OPERATION.check("make", {**GOOD, "start": "https://example.com/2.png"})
    assert OPERATION.check("make", {**GOOD, "start": None}) == GOOD


def test_the_callers_dict_is_left_alone() -> None:
    """Checking changes nothing in what was given."""
    arguments = {**GOOD, "duration": "5", "seed": None}
    before = dict(arguments)
    OPERATION.check("make", arguments)
    assert arguments == before


@pytest.mark.parametrize(
    ("word", "text", "number"),
    [
        ("duration", "5", 5),
        ("duration", "5.0", 5),
        ("duration", "2.5", 2.5),
        ("duration", " 8 ", 8),
        ("count", "3", 3),
        ("count", 2.0, 2),
        ("seed", "0", 0),
        ("seed", 10**30, 10**30),
        ("duration", 10**400, 10**400),
    ],
)
def test_numeric_text_is_a_number(word: str, text: Any, number: float) -> None:
    """A template renders to text; where a number is due, the text that shows one is taken for it."""
    found = OPERATION.check("make", {**GOOD, word: text})[word]
    assert found == number
    assert type(found) is type(number)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (
            {},
            (
                "'make' needs 'prompt', not given here: it must have 'prompt' and one of 'image_url', "
                "'image_urls', and may have every other option of the provider; got 'image_url'"
            ),
        ),
        (
            {"prompt": "x", "image_urls": ["https://example.com/2.png"]},
            "exactly one of 'image_url', 'image_urls'",
        ),
        ({"prompt": "x", "image_url": None}, "exactly one of 'image_url', 'image_urls', got none of them"),
        (
            {"prompt": "x", "image_url": ["https://example.com/1.png"]},
            "'image_url' of 'make' must be a text, an http",
        ),
        (
            {"prompt": "x", "image_urls": "https://example.com/1.png"},
            "'image_urls' of 'make' must be a list of",
        ),
        ({"prompt": "x", "image_urls": [5]}, "must be a list, each item a text.*, got 5"),
        ({"prompt": "x", "duration": float("1e999")}, "JSON"),
        ({"prompt": "x", "duration": "1e999"}, "'duration' .* above 0, got '1e999'"),
        ({"prompt": "x", "duration": "-5"}, "above 0, got '-5'"),
        ({"prompt": "x", "count": "1.5"}, "whole number from 1, got '1.5'"),
        ({"prompt": "x", "seed": []}, "whole number from 0"),
        ({"prompt": "x", "image_url": "None"}, "got none of them; 'image_url' is 'None': a template makes"),
        (
            {"prompt": "x", "image_urls": ["None"]},
            "'image_urls' of 'make' must be a list, each item .*, got 'None'",
        ),
        ({"prompt": "None"}, "'prompt' of 'make' must be what is meant .a template makes"),
        ({"prompt": "x", "anything_url": "fox.png"}, "'anything_url' .* https URL .*, got 'fox.png'"),
        ({"prompt": "x", "other_urls": "https://example.com/"}, "'other_urls' .* a list of at least one"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], expected: str) -> None:
    """The argument, its value and what is allowed are in the message."""
    arguments = {**{key: value for key, value in GOOD.items() if key != "prompt"}, **wrong}
    with pytest.raises(MediaRequestError, match=expected):
        OPERATION.check("make", arguments)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/1.png",
        "HTTP://example.com",
        "http://127.0.0.1:8765/media/1.png",
        "https://user:word@example.com/1.png?X-Amz-Signature=a%2Fb&x=1#top",
        "https://xn--bcher-kva.example/ä.png",
        "https://[::1]:8443/1.png",
    ],
)
def test_addresses_pass_as_they_are(url: str) -> None:
    """An address is not changed, wherever it stands."""
    given_ = {"prompt": "x", "image_urls": [url, url], "callback_url": url, "mask_url": url}
    assert OPERATION.check("make", given_) == given_


PICTURE = base64.b64encode(bytes(range(200))).decode()


@pytest.mark.parametrize("picture", [PICTURE, base64.encodebytes(bytes(200)).decode(), PICTURE.rstrip("=")])
def test_a_picture_itself_where_the_provider_takes_one(picture: str) -> None:
    """Base64 passes where the operation says so, and nowhere else; a path or a word is never taken for it."""
    takes = dataclasses.replace(OPERATION, inline=("image_url", "image_urls"))
    for given_ in ({"image_url": picture}, {"image_urls": [picture]}):
        assert takes.check("make", {"prompt": "x", **given_}) == {"prompt": "x", **given_}
        with pytest.raises(MediaRequestError, match=r"'image_urls?' of 'make' must be"):
            OPERATION.check("make", {"prompt": "x", **given_})
    for wrong in ("null", "undefined", "/data/fox", "AAAA", f"/data/{'x' * 90}.png", f"{picture}!"):
        with pytest.raises(MediaRequestError, match="or base64, got"):
            takes.check("make", {"prompt": "x", "image_url": wrong})


def test_arguments_that_lead_back_to_themselves() -> None:
    """Arguments that contain themselves, or are nested without end, are no JSON."""
    circle: dict[str, Any] = dict(GOOD)
    circle["again"] = circle
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for arguments in (circle, {**GOOD, "deep": deep}):
        with pytest.raises(MediaRequestError, match="must be JSON values"):
            OPERATION.check("make", arguments)
    while deep:  # taken apart by hand: the interpreter would do it recursively
        deep = deep.pop()


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["prompt", "image_url", "duration", "count", "seed", "x"]), ANYTHING))
def test_checking_gives_json_or_one_error(arguments: dict[str, Any]) -> None:
    """Whatever is given, the answer is a request that JSON can carry, or MediaRequestError."""
    try:
        checked = OPERATION.check("make", arguments)
    except MediaRequestError:
        return
    assert OPERATION.check("make", json.loads(json.dumps(checked, allow_nan=False))) == checked
    assert None not in checked.values()
