from __future__ import annotations

from typing import Any

import pytest

from airflow_media_tasks.wire.files import has_failed, kind_of, texts_in, urls_in


A, B, C = "https://cdn.example.com/a.png", "https://cdn.example.com/b.mp4", "http://cdn.example.com/c"


@pytest.mark.parametrize(
    ("place", "urls"),
    [
        ({"url": A}, [A]),
        ({"video_url": B, "note": A}, [B]),
        ({"image_urls": [A, B]}, [A, B]),
        ({"url_mp3": C}, [C]),
        ({"images": [{"url": A}, {"url": B}], "video": {"url": C}}, [A, B, C]),
        ({"url": A, "again": {"url": A}}, [A]),
        ({"request": {"url": A}, "callback_url": B, "webhook": C}, []),
        ({"items": [{"state": "failed", "url": A}, {"state": "done", "url": B}]}, [B]),
        ({"state": "failed", "url": A}, [A]),
        ({"url": "s3://bucket/x", "image_url": "", "video_url": None, "curl": A}, []),
        ([A], []),
        ("nothing", []),
        (None, []),
    ],
)
def test_urls_of_a_document(place: Any, urls: list[str]) -> None:
    """Every address under a key that says so counts once, in order; echoes and what failed do not."""
    assert [found.url for found in urls_in(place)] == urls


@pytest.mark.parametrize(
    ("place", "urls"), [(A, [A]), ([A, B], [A, B]), ({"gif": C, "prompt": "a cup"}, [C]), ("a cup", [])]
)
def test_any_text_that_is_an_address(place: Any, urls: list[str]) -> None:
    """Where a provider's output has no keys of its own, every text that is an address counts."""
    assert [found.url for found in urls_in(place, any_text=True)] == urls


def test_what_was_asked_with_is_no_result() -> None:
    """The addresses of the request are not results, wherever they stand in the answer."""
    request = {"image_url": A, "more": [B]}
    assert [found.url for found in urls_in({"image_url": A, "video_url": C}, but=texts_in(request))] == [C]


@pytest.mark.parametrize(
    ("place", "made", "kind"),
    [
        ({"video_url": C}, "", "video"),
        ({"images": [{"url": C}]}, "", "image"),
        ({"image": {"url": A}}, "video", "thumbnail"),
        ({"cover_url": A}, "audio", "thumbnail"),
        ({"url": C}, "audio", "audio"),
        ({"url": B}, "", "video"),
        ({"url": C}, "", "file"),
    ],
)
def test_kind_of_a_file(place: Any, made: str, kind: str) -> None:
    """The key tells what a file is, then the operation, then its address; a film's picture is a thumbnail."""
    (found,) = urls_in(place)
    assert kind_of(found, made) == kind


def test_what_stands_beside_an_address() -> None:
    """Size, duration, type and id are read beside the address, and an inner place outranks an outer one."""
    place = {
        "duration": "5.1s",
        "width": 1,
        "video": {"url": B, "width": 1280, "height": 720.0, "content_type": "video/mp4", "id": 7},
    }
    file = next(urls_in(place)).file("video")
    assert (file.width, file.height, file.duration, file.content_type, file.id) == (
        1280,
        720,
        5.1,
        "video/mp4",
        "7",
    )


def test_state_of_a_part() -> None:
    """A part has failed if its state or its status says so."""
    assert has_failed({"status": "failed"})
    assert has_failed({"state": "cancelled", "status": "done"})
    assert not has_failed({"status": "processing"})
    assert not has_failed({})
