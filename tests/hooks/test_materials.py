"""What is left of a file that was handed over, and how it is recognized in what a provider shows."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest

from airflow_media_tasks.task import MediaProviderError, MediaRequestError
from airflow_media_tasks.wire.masking import unsigned
from airflow_media_tasks.wire.materials import (
    in_place,
    is_of,
    is_path,
    kind_of_word,
    paths_in,
    same,
    trace_of,
)
from airflow_media_tasks.wire.roads import Road, Step

from .by_hand import reply
from .test_protocol import AcmeHook


PATH = "s3://bucket/fox.png"
SIGNED = "https://bucket.s3.amazonaws.com/fox.png?X-Amz-Credential=AKID&X-Amz-Signature=5eC7e7"
BYTES = random.Random(1).randbytes(5000)  # noqa: S311  # the same in each run


def uri(content: bytes) -> str:
    """As it stands in a request."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (PATH, True),
        ("gs://bucket/a folder/fox.png", True),
        ("s3://conn@bucket/fox.png", True),
        ("file:///srv/fox.png", True),
        ("/srv/fox.png", False),
        ("https://example.com/fox.png", False),
        ("http://example.com/fox.png", False),
        ("//example.com/fox.png", False),
        ("zip://fox.png::s3://bucket/all.zip", False),
        ("simplecache::file:///etc/passwd", False),
        ("javascript:alert(1)", False),
        ("s3://bucket/fox.png\n", False),
        ("fox.png", False),
        ("", False),
        (None, False),
        ("s3://" + "x" * 3000, False),
    ],
)
def test_what_is_a_path(value: Any, is_one: bool) -> None:
    """It has a scheme that is not http; chains of file systems lead nobody knows where."""
    assert is_path(value) is is_one


def test_paths_are_found_and_replaced_where_files_are_asked_for() -> None:
    """In the order of the words, whatever that of the arguments; what is called back is an address."""
    arguments = {
        "prompt": PATH,
        "callback_url": PATH,
        "video_url": "file:///srv/a.mp4",
        "image_urls": [PATH, "https://example.com/1.png"],
    }
    assert paths_in(arguments) == [("image_urls", PATH), ("video_url", "file:///srv/a.mp4")]
    placed = in_place(arguments, {PATH: SIGNED})
    assert placed == {**arguments, "image_urls": [SIGNED, "https://example.com/1.png"]}


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("image_url", "image"),
        ("end_image_url", "image"),
        ("mask_url", "image"),
        ("cover_url", "image"),
        ("person_image_url", "image"),
        ("video_urls", "video"),
        ("audio_url", "audio"),
        ("media_url", ""),
    ],
)
def test_a_word_says_what_it_wants(word: str, kind: str) -> None:
    """As people read it."""
    assert kind_of_word(word) == kind


def test_a_trace_tells_nothing_that_can_be_used() -> None:
    """Neither the address nor its signature nor the bytes."""
    for value in (SIGNED, uri(BYTES), "runway://upload/abc"):
        trace = trace_of(value)
        assert trace
        assert len(trace) < 150
        assert not any(part in trace for part in ("bucket", "fox", "5eC7e7", "upload", uri(BYTES)[40:60]))
    assert trace_of("a prompt") == trace_of(None) == trace_of(5) == ""


@pytest.mark.parametrize(
    ("handed", "shown", "verdict"),
    [
        (SIGNED, SIGNED, True),
        (SIGNED, SIGNED.partition("?")[0] + "?X-Amz-Signature=another", True),
        (SIGNED, SIGNED.replace("fox", "hare"), False),
        (SIGNED, "https://cdn.example.com/copy-of-it.png", None),
        (SIGNED, uri(BYTES), None),
        (SIGNED, None, None),
        (SIGNED, {"url": SIGNED}, None),
        (uri(BYTES), uri(BYTES), True),
        (uri(BYTES), base64.b64encode(BYTES).decode(), True),
        (uri(BYTES), uri(bytes(5000)), False),
        (uri(BYTES), uri(BYTES[:3000]), None),
        (uri(BYTES), uri(BYTES[:300]), None),
        (uri(BYTES), uri(bytes(3000)), False),
        (uri(BYTES), uri(BYTES)[:1000] + "...", None),
        (uri(BYTES), "https://cdn.example.com/copy-of-it.png", None),
        ("runway://upload/abc", "runway://upload/abc", True),
        ("runway://upload/abc", "runway://upload/abx", False),
    ],
)
def test_what_a_provider_shows_is_recognized(handed: str, shown: Any, verdict: bool | None) -> None:
    """By what stays; where that cannot be compared, it is a doubt and no proof."""
    assert is_of(trace_of(handed), shown) is verdict
    assert is_of("", shown) is None


@pytest.mark.parametrize(
    ("shown", "verdict"),
    [
        ({"prompt": "a", "frames": [{"uri": SIGNED}]}, True),
        ({"prompt": "b", "frames": [{"uri": SIGNED}]}, False),
        ({"prompt": "a", "frames": [{"uri": "https://cdn.example.com/x"}]}, None),
        ({"prompt": "b", "frames": [{"uri": "https://cdn.example.com/x"}]}, False),
        ({"prompt": "a", "frames": [{"uri": SIGNED}, {"uri": SIGNED}]}, False),
        ({"prompt": "a", "frames": [{"url": SIGNED}]}, False),
        ({"prompt": "a", "frames": None}, False),
    ],
)
def test_a_request_is_compared_as_a_whole(shown: Any, verdict: bool | None) -> None:
    """One difference is enough for another request; one doubt is none."""
    wanted = {"prompt": "a", "frames": [{"uri": PATH}]}
    assert same(wanted, shown, {PATH: trace_of(SIGNED)}) is verdict


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (
            f"could not fetch {SIGNED} in time",
            "could not fetch https://bucket.s3.amazonaws.com/fox.png?*** in time",
        ),
        ("see https://example.com/help?page=2", "see https://example.com/help?page=2"),
        ("https://a.blob.core.windows.net/c/x?sv=1&sig=abc%3D", "https://a.blob.core.windows.net/c/x?***"),
        (f'bad input "{uri(BYTES)}"', 'bad input "(6690 characters of base64)"'),
    ],
)
def test_an_error_shows_no_signature_and_no_bytes(words: str, left: str) -> None:
    """A provider's words may repeat what it was given."""
    assert unsigned(words) == left


def test_an_upload_goes_step_by_step(connect: Any) -> None:
    """Each call has what the ones before were answered; an address of the provider's gets no key."""
    hook = AcmeHook(connect(conn_type="acme", password="a-good-key"))
    steps = (
        Step("POST", "/files", json={"bytes": "{size}"}, keep={"to": "to", "fields": "fields"}),
        Step("POST", "{to}", bytes_in="file", form="{fields}", keep={"mark": "header:x-mark"}),
        Step("POST", "/files/{mark}/complete", keep={"value": "uri"}),
    )
    slots = {"name": "a.png", "type": "image/png", "size": 3, "sha256": "00"}
    conversation = hook._upload(Road(Road.UPLOAD, steps=steps), b"abc", slots)
    first = next(conversation)
    assert (first.path, first.json, first.paid) == ("/files", {"bytes": 3}, False)
    second = conversation.send(reply({"to": "https://up.example/x?sig=1", "fields": {"key": "k"}}))
    assert (second.path, second.elsewhere, second.keyed) == ("https://up.example/x?sig=1", True, False)
    assert second.content is not None
    assert b'name="key"\r\n\r\nk\r\n' in second.content
    assert b'name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\nabc\r\n' in second.content
    third = conversation.send(reply(None, **{"x-mark": "m-1"}))
    assert third.path == "/files/m-1/complete"
    with pytest.raises(StopIteration) as end:
        conversation.send(reply({"uri": "acme://m-1"}))
    assert end.value.value == "acme://m-1"


@pytest.mark.parametrize(
    "address", ["http://up.example.com/x", "https://127.0.0.1/x", "https://10.0.0.1/x", "no"]
)
def test_an_upload_goes_to_no_private_address(connect: Any, address: str) -> None:
    """Whatever a provider answers, nothing of ours is sent to a machine of ours."""
    hook = AcmeHook(connect(conn_type="acme", password="a-good-key", host="https://1.1.1.1"))
    request = Step("PUT", "{to}", bytes_in="body").request(b"abc", {"to": address, "type": "image/png"})
    with pytest.raises(MediaProviderError, match="no https address of the internet"):
        hook._wire(request)


def test_a_connection_says_by_which_way(connect: Any) -> None:
    """One of those that the provider has, or an error that lists them."""
    hook = AcmeHook(connect(conn_type="acme", password="a-good-key", extra={"material": "url"}))
    assert [road.way for road in hook.roads_of("image_url")] == ["url"]
    hook = AcmeHook(
        connect(conn_id="b", conn_type="acme", password="a-good-key", extra={"material": "pigeon"})
    )
    with pytest.raises(
        MediaRequestError, match=r"material in extra must be one or more of url, .* got 'pigeon'"
    ):
        hook.roads_of("image_url")
