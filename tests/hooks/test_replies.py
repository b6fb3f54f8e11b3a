from __future__ import annotations

import gzip
import json
import resource
import time
import zlib
from typing import Any

import pytest

from airflow_media_tasks.wire.replies import (
    MAX_DEPTH,
    MAX_INLINE_BYTES,
    MAX_REPLY_BYTES,
    MAX_VALUES,
    Body,
    document_of,
    text_of,
)


TEXT = '{"task_id": "tâche"}'


def peak() -> float:
    """MiB that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (TEXT.encode(), None),
        (TEXT.encode(), "identity"),
        (TEXT.encode(), "UTF-8"),
        (TEXT.encode(), "aws-chunked"),
        (TEXT.encode(), "gzip"),
        (TEXT.encode("utf-8-sig"), None),
        (gzip.compress(TEXT.encode(), mtime=0), "gzip"),
        (gzip.compress(TEXT.encode(), mtime=0), "x-gzip"),
        (gzip.compress(TEXT.encode(), mtime=0), None),
        (gzip.compress(TEXT.encode("utf-8-sig"), mtime=0), "gzip"),
        (zlib.compress(TEXT.encode()), "deflate"),
    ],
)
def test_packed_or_not_the_bytes_say(content: bytes, encoding: str | None) -> None:
    """A reply is unpacked if it is packed, whatever its header says; a byte order mark is no part of it."""
    assert text_of(content, encoding) == TEXT


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(gzip.compress(TEXT.encode(), mtime=0), mtime=0),
        gzip.compress(TEXT.encode(), mtime=0)[:-20],
        b"\x1f\x8b nothing",
        b"\x0b\x06\x80{}\x03",  # brotli, which nobody asked for
        b"\xff\xfe" + TEXT.encode("utf-16-le"),
    ],
)
def test_what_cannot_be_read_is_no_document(content: bytes) -> None:
    """What is packed twice, cut, or packed in some other way is text, and no document."""
    text = text_of(content, "gzip")
    assert text is not None
    assert document_of(text) is None


@pytest.mark.parametrize("wraps", [1, 2])
def test_bomb(wraps: int) -> None:
    """A gigabyte in a few bytes, packed once or twice, takes no more than a reply may have."""
    packer, before = zlib.compressobj(9, wbits=31), peak()
    content = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(400)), packer.flush()])
    for _ in range(wraps - 1):
        content = gzip.compress(content, mtime=0)
    text = text_of(content, "gzip")
    assert text is None or document_of(text) is None
    assert peak() - before < 100


def test_as_long_as_it_may_be() -> None:
    """The bound counts what was unpacked."""
    assert text_of(gzip.compress(b"x" * MAX_REPLY_BYTES, 1, mtime=0), "gzip") == "x" * MAX_REPLY_BYTES
    assert text_of(gzip.compress(b"x" * (MAX_REPLY_BYTES + 1), 1, mtime=0), "gzip") is None
    assert text_of(b"x" * (MAX_REPLY_BYTES + 1), None) is None


def nested(depth: int, way: str) -> str:
    """Brackets in brackets."""
    return "[" * depth + "]" * depth if way == "list" else '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize("way", ["list", "object"])
def test_depth_is_bounded(way: str) -> None:
    """A document as deep as allowed is read; one level more, or a hundred thousand, is none."""
    assert document_of(nested(MAX_DEPTH, way)) is not None
    for depth in (MAX_DEPTH + 1, 500, 5_000, 99_000):
        assert document_of(nested(depth, way)) is None


def test_values_are_bounded() -> None:
    """A document has as many values as allowed, and not one more."""
    many: list[Any] = [0] * MAX_VALUES
    assert document_of(json.dumps(many)) == many
    assert document_of(json.dumps([*many, 0])) is None
    assert document_of(json.dumps([{}] * MAX_VALUES)) is None


@pytest.mark.parametrize("text", ["", "nonsense", '{"a"', "1" * 10_000, '{"a": 1} {}'])
def test_no_document(text: str) -> None:
    """What is no JSON, or has a number of thousands of digits, is no document."""
    assert document_of(text) is None


def test_the_largest_reply_is_soon_refused() -> None:
    """Eight megabytes of small things hold nobody for long, and take no memory to speak of."""
    texts = ["[" + "{}," * 2_700_000 + "1]", "[" * 4_000_000 + "]" * 4_000_000]
    before, began = peak(), time.process_time()
    assert [document_of(text) for text in texts] == [None, None]
    assert time.process_time() - began < 1
    assert peak() - before < 50


@pytest.mark.parametrize("size", [7, 1000, 65_536, 10**9])
def test_of_files_in_a_reply_little_is_kept(size: int) -> None:
    """However a reply comes, of its files the beginnings stay, and all else as it is; whole is whole."""
    film = "QUJD" * 30_000
    document = {"name": "a/b-c", "films": [{"content": film}, {"content": film + "=="}], "words": "x" * 99}
    content = json.dumps(document).encode()
    short, whole = Body("short"), Body("whole")
    for start in range(0, len(content), size):
        piece = content[start : start + size]
        assert short.add(piece)
        assert whole.add(piece)
    assert document_of(whole.text(None) or "") == document
    kept = document_of(short.text(None) or "")
    assert (kept["name"], kept["words"]) == (document["name"], document["words"])
    for one in kept["films"]:
        assert one["content"].startswith("QUJD")
        assert len(one["content"]) < 6000


@pytest.mark.parametrize("inline", ["short", "whole"])
def test_files_in_a_reply_have_an_end_too(inline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What never ends is given up, though nothing of it is kept."""
    monkeypatch.setattr("airflow_media_tasks.wire.replies.MAX_INLINE_BYTES", 1_000_000)
    body = Body(inline)
    assert [body.add(b"A" * 100_000) for _ in range(11)] == [True] * 10 + [False]
    assert MAX_INLINE_BYTES > MAX_REPLY_BYTES


def test_what_is_no_file_is_bounded_in_a_reply_with_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files are left out the rest may be no larger than any other reply."""
    monkeypatch.setattr("airflow_media_tasks.wire.replies.MAX_REPLY_BYTES", 100_000)
    body = Body("short")
    assert body.add(b"{}" * 40_000)
    assert not body.add(b"{}" * 40_000)
