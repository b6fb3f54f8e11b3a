from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fastapi import HTTPException
from fsspec.implementations.memory import MemoryFileSystem

from airflow_media_tasks.gallery import files
from airflow_media_tasks.landing import storage


MIB = 1024 * 1024
CONTENT = bytes(range(256)) * 5000


def recorded(path: str, content: bytes = CONTENT, content_type: str | None = "video/mp4") -> files.Recorded:
    """What a task that has landed *content* there says of it."""
    ends = hashlib.sha256(content if len(content) <= 2 * MIB else content[:MIB] + content[-MIB:])
    digest = hashlib.sha256(content).hexdigest()
    return files.Recorded(path, digest, len(content), ends.hexdigest(), content_type)


@pytest.fixture
def landed(root: Path) -> files.Recorded:
    """A file of a bit more than one block, in a root."""
    (root / "film.mp4").write_bytes(CONTENT)
    return recorded(f"file://{root}/film.mp4")


async def body_of(reply: Any) -> bytes:
    """All that a reply sends to a browser."""
    blocks = []

    async def send(message: Any) -> None:
        """As a server takes what is to be sent."""
        blocks.append(message.get("body", b""))

    await reply({"type": "http", "method": "GET", "asgi": {"spec_version": "2.4"}}, None, send)
    return b"".join(blocks)


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
    landed: files.Recorded, asked: str | None, status: int, start: int, end: int
) -> None:
    """One range is obeyed to the byte; what is not understood gives the whole file, as RFC 9110 has it."""
    reply = await files.send(landed, range_header=asked)
    assert reply.status_code == status
    assert await body_of(reply) == CONTENT[start:end]
    assert reply.headers["content-length"] == str(end - start)
    assert ("content-range" in reply.headers) == (status == 206)


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=9-5", "bytes=99999999-999999999"])
async def test_a_range_that_is_not_there_is_refused(landed: files.Recorded, asked: str) -> None:
    """416, with the size, so that a player knows."""
    with pytest.raises(HTTPException) as refused:
        await files.send(landed, range_header=asked)
    assert refused.value.status_code == 416
    assert refused.value.headers == {"Content-Range": f"bytes */{len(CONTENT)}"}


@pytest.mark.parametrize(
    "content_type", ["image/png", "image/webp", "video/mp4", "audio/mpeg", "audio/x-wav"]
)
async def test_media_is_shown(landed: files.Recorded, content_type: str) -> None:
    """Pictures, films and sound as what they are."""
    reply = await files.send(replace(landed, content_type=content_type))
    await body_of(reply)
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
async def test_what_could_run_is_only_saved(landed: files.Recorded, content_type: str | None) -> None:
    """HTML, SVG and the unknown are never shown in Airflow's name."""
    reply = await files.send(replace(landed, content_type=content_type))
    await body_of(reply)
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"] == "attachment"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-security-policy"] == "default-src 'none'; sandbox"


async def test_a_file_that_is_gone_is_a_404(root: Path) -> None:
    """Without a word about where it should have been."""
    with pytest.raises(HTTPException) as gone:
        await files.send(recorded(f"file://{root}/private-place/film.mp4"))
    assert gone.value.status_code == 404
    assert "private-place" not in str(gone.value.detail)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
async def test_what_is_no_file_is_a_404(root: Path, kind: str) -> None:
    """At once: nobody waits for what another process may write into a pipe."""
    path = root / "film.mp4"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(HTTPException) as refused:
        await files.send(recorded(f"file://{path}"))
    assert refused.value.status_code == 404


@pytest.mark.parametrize(
    ("held", "asked"),
    [
        ({}, 200),
        ({"if_none_match": '"{tag}"'}, 304),
        ({"if_none_match": 'W/"x", W/"{tag}"'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"x"'}, 200),
        ({"range_header": "bytes=0-9", "if_range": '"{tag}"'}, 206),
        ({"range_header": "bytes=0-9", "if_range": '"x"'}, 200),
    ],
)
async def test_what_the_browser_has_is_not_sent_again(
    landed: files.Recorded, held: dict[str, str], asked: int
) -> None:
    """A browser keeps a film for itself and asks for it each time, so a logout or a clear counts at once."""
    reply = await files.send(
        landed, **{name: value.format(tag=landed.sha256) for name, value in held.items()}
    )
    assert reply.status_code == asked
    assert reply.headers["etag"] == f'"{landed.sha256}"'
    assert reply.headers["cache-control"] == "private, no-cache"
    if asked != 304:
        await body_of(reply)


# What proves that a file is what was recorded. The film is sparse: 33 MiB, and 257, cost nothing.


def film(root: Path, size: int) -> files.Recorded:
    """A file of *size* bytes with something at its ends and in its middle."""
    path = root / "film.mp4"
    with path.open("wb") as stream:
        for place in (0, size // 2, size - 5):
            stream.seek(place)
            stream.write(b"frame")
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(MIB):
            digest.update(block)
    content = path.open("rb")
    with content:
        ends = content.read(MIB)
        content.seek(-MIB, 2)
        ends += content.read()
    return files.Recorded(
        f"file://{path}", digest.hexdigest(), size, hashlib.sha256(ends).hexdigest(), "video/mp4"
    )


def change(root: Path, place: int) -> None:
    """Another byte at *place* of the film."""
    with (root / "film.mp4").open("r+b") as stream:
        stream.seek(place)
        stream.write(b"!")


def is_sent(file: files.Recorded) -> bool:
    """Whether it is what was recorded."""
    try:
        found, _ = files.opened(file)
    except HTTPException:
        return False
    found.close()
    return True


@pytest.mark.parametrize("size", [32 * MIB, 32 * MIB + 1])
@pytest.mark.parametrize("place", ["start", "end"])
def test_a_byte_at_an_end_is_seen_in_a_film_of_any_size(root: Path, size: int, place: str) -> None:
    """Whether it is proved by the whole or by its ends."""
    file = film(root, size)
    assert is_sent(file)
    change(root, 0 if place == "start" else size - 1)
    assert not is_sent(file)


def test_a_large_film_is_proved_by_its_ends_and_its_size(root: Path) -> None:
    """Two reads of a MiB each, and no more; its record names them, and its length."""
    size = 300 * MIB
    file = film(root, size)
    read: list[int] = []
    found, proof = files.opened(file)
    found.close()
    assert proof == file.ends_sha256
    files._digests.clear()
    found = files.Found.at(file.path)
    take = found.read
    found.read = lambda start, length: read.append(length) or take(start, length)  # type: ignore[func-returns-value, method-assign]
    assert files._ends_sha256(found) == file.ends_sha256
    found.close()
    assert read == [MIB, MIB]
    assert not is_sent(replace(file, size=size - 1))
    assert not is_sent(replace(file, ends_sha256="0" * 64))


def test_what_landed_before_is_read_whole_up_to_a_limit(root: Path) -> None:
    """Its record has no ends: 256 MiB are read, and a byte more is named and not sent."""
    old = replace(film(root, 256 * MIB), ends_sha256=None)
    assert is_sent(old)
    change(root, 100 * MIB)
    assert not is_sent(old)
    larger = replace(film(root, 256 * MIB + 1), ends_sha256=None)
    assert not is_sent(larger)
    assert files.unprovable(larger.sha256, larger.size, None)


def test_it_is_proved_as_landing_recorded_it(root: Path) -> None:
    """What landing says of its file is what is looked for."""
    file = film(root, 33 * MIB)
    assert storage.ends_sha256(ObjectStoragePath(file.path), 33 * MIB) == file.ends_sha256
    assert is_sent(file)


def test_at_most_four_are_checked_at_once(root: Path) -> None:
    """Whoever asks, and for however many; and one that many ask for is read once."""
    running, most, read = 0, 0, 0
    lock, go_on = threading.Lock(), threading.Event()
    paths = []
    for number in range(12):
        path = root / f"{number}.mp4"
        path.write_bytes(CONTENT + bytes([number]))
        paths.append(recorded(f"file://{path}", CONTENT + bytes([number])))

    def slow(found: files.Found) -> str:
        nonlocal running, most, read
        with lock:
            running, read = running + 1, read + 1
            most = max(most, running)
        go_on.wait(0.05)
        with lock:
            running -= 1
        return hashlib.sha256(found.read(0, found.size)).hexdigest()

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(48) as people:
        patch.setattr(files, "_sha256", slow)
        assert all(people.map(is_sent, paths * 4))
    assert (most, read) == (4, 12)


async def test_it_comes_from_any_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path of whatever store Airflow knows."""
    attach("memory", fs=MemoryFileSystem())
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__GALLERY_ROOTS", "memory://bucket/media")
    where = ObjectStoragePath("memory://bucket/media/film.mp4")
    where.write_bytes(CONTENT)
    reply = await files.send(recorded(str(where)), range_header="bytes=3-9")
    assert await body_of(reply) == CONTENT[3:10]
