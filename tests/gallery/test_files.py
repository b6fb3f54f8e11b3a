from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fastapi import HTTPException
from fsspec.implementations.memory import MemoryFileSystem

from airflow_media_tasks.gallery import files


CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def landed(tmp_path: Path) -> str:
    """A file of a bit more than one block."""
    path = tmp_path / "film.mp4"
    path.write_bytes(CONTENT)
    return f"file://{path}"


async def body_of(reply: Any) -> bytes:
    """All that a streaming reply sends."""
    return b"".join([block async for block in reply.body_iterator])


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        (None, 200, 0, len(CONTENT)),
        ("bytes=0-0", 206, 0, 1),
        ("bytes=10-19", 206, 10, 20),
        ("bytes=1048570-1048590", 206, 1048570, 1048591),
        ("bytes=1000-", 206, 1000, len(CONTENT)),
        ("bytes=-7", 206, len(CONTENT) - 7, len(CONTENT)),
        ("bytes=-99999999", 206, 0, len(CONTENT)),
        ("bytes=5-99999999", 206, 5, len(CONTENT)),
        ("bytes=-", 200, 0, len(CONTENT)),
        ("chapters=1-2", 200, 0, len(CONTENT)),
        ("bytes=0-1,4-5", 200, 0, len(CONTENT)),
    ],
)
async def test_the_bytes_asked_for_are_sent(
    landed: str, asked: str | None, status: int, start: int, end: int
) -> None:
    """One range is obeyed to the byte; what is not understood gives the whole file, as RFC 9110 has it."""
    reply = files.send(landed, "video/mp4", asked)
    assert reply.status_code == status
    assert await body_of(reply) == CONTENT[start:end]
    assert reply.headers["content-length"] == str(end - start)
    assert ("content-range" in reply.headers) == (status == 206)


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=9-5", "bytes=99999999-999999999"])
def test_a_range_that_is_not_there_is_refused(landed: str, asked: str) -> None:
    """416, with the size, so that a player knows."""
    with pytest.raises(HTTPException) as refused:
        files.send(landed, "video/mp4", asked)
    assert refused.value.status_code == 416
    assert refused.value.headers == {"Content-Range": f"bytes */{len(CONTENT)}"}


@pytest.mark.parametrize(
    "content_type", ["image/png", "image/webp", "video/mp4", "audio/mpeg", "audio/x-wav"]
)
def test_media_is_shown(landed: str, content_type: str) -> None:
    """Pictures, films and sound as what they are."""
    reply = files.send(landed, content_type, None)
    assert reply.headers["content-type"].startswith(content_type)
    assert reply.headers["content-disposition"] == "inline"


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/html",
        "image/svg+xml",
        "application/pdf",
        "image/png, text/html",
        "text/html; image/png",
    ],
)
def test_what_could_run_is_only_saved(landed: str, content_type: str | None) -> None:
    """HTML, SVG and the unknown are never shown in Airflow's name."""
    reply = files.send(landed, content_type, None)
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"] == "attachment"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_a_file_that_is_gone_is_a_404(tmp_path: Path) -> None:
    """Without a word about where it should have been."""
    with pytest.raises(HTTPException) as gone:
        files.send(f"file://{tmp_path}/private-place/film.mp4", "video/mp4", None)
    assert gone.value.status_code == 404
    assert "private-place" not in str(gone.value.detail)


async def test_it_comes_from_any_object_store() -> None:
    """A path of whatever store Airflow knows."""
    attach("memory", fs=MemoryFileSystem())
    where = ObjectStoragePath("memory://bucket/film.mp4")
    where.write_bytes(CONTENT)
    reply = files.send(str(where), "video/mp4", "bytes=3-9")
    assert await body_of(reply) == CONTENT[3:10]
