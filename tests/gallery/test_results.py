from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import HTTPException

from airflow_media_tasks.gallery import results, schema


SHORT = 10


def blocks_of(text: bytes, length: int) -> Iterator[bytes]:
    """*text* as it comes from a store."""
    return (text[at : at + length] for at in range(0, len(text), length))


@pytest.fixture
def short_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most SHORT bytes of a line are read."""
    monkeypatch.setattr(schema, "ITEM_BYTES", SHORT)


@pytest.mark.usefixtures("short_lines")
@pytest.mark.parametrize("length", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "text", [b"a\n\nbcd\n0123456789\n0123456789X\nlast", b"a\nb\n", b"", b"\n", b"one", b"\n\nx"]
)
def test_lines_are_those_of_the_text_however_it_comes(text: bytes, length: int) -> None:
    """Each whole, or its length where it is too long, in pages of any size."""
    wanted = [line if len(line) <= SHORT else len(line) for line in text.removesuffix(b"\n").split(b"\n")]
    wanted = wanted if text else []
    assert list(results._lines(blocks_of(text, length), 0, 100)) == wanted
    for first in range(4):
        assert list(results._lines(blocks_of(text, length), first, 2)) == wanted[first : first + 2]


def test_a_line_without_an_end_is_never_held(root: Path) -> None:
    """700 MiB of one are not even opened, 200 MiB are read in pieces: neither takes the server's memory."""
    path = root / "batch.jsonl"

    def manifest(size: int) -> schema.Manifest:
        with path.open("wb") as file:
            file.truncate(size)
        digest = hashlib.sha256()
        for _ in range(size // 2**20):
            digest.update(bytes(2**20))
        told = {"results_sha256": digest.hexdigest(), "results_size": size}
        return schema.read(schema.Manifest, {"results": f"file://{path}", "total": 1, **told})

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(HTTPException):
        results.lines(manifest(700 * 2**20), 0, 60)
    assert results.lines(manifest(200 * 2**20), 0, 60) == [200 * 2**20]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 * 1024
