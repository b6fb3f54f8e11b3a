"""Files sent from S3: a server that speaks it, on loopback, and the connection that the setting names."""

from __future__ import annotations

import hashlib

import pytest
from airflow.sdk import ObjectStoragePath
from fastapi import HTTPException

from airflow_media_tasks.gallery import files
from tests.test_storage_s3 import S3, pytestmark, s3


__all__ = ["pytestmark", "s3"]

MIB = 1024 * 1024
ROOT = "s3://s3_media@media/landed"


@pytest.fixture
def store(s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:  # the fixture
    """The S3, with a root in it."""
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__GALLERY_ROOTS", ROOT)
    files._digests.clear()
    return s3


def put(name: str, content: bytes) -> files.Recorded:
    """What a task that has landed *content* below the root says of it, by a connection that is refused."""
    path = ObjectStoragePath(f"{ROOT}/{name}")
    path.fs.pipe_file(path.path, content)
    ends = hashlib.sha256(content[:MIB] + content[-MIB:]).hexdigest()
    digest = hashlib.sha256(content).hexdigest()
    return files.Recorded(f"s3://s3_other@media/landed/{name}", digest, len(content), ends, "video/mp4")


def sent(file: files.Recorded, start: int = 0, length: int | None = None) -> bytes:
    """What would be sent of it."""
    found, _ = files.opened(file)
    try:
        return b"".join(found.blocks(start, length))
    finally:
        found.close()


def test_the_settings_connection_is_asked(store: S3) -> None:  # it is there
    """Whatever connection an item's path names; and no other place of the bucket."""
    file = put("a/film.mp4", b"frames" * 1000)
    assert sent(file) == b"frames" * 1000
    outside = ObjectStoragePath("s3://s3_media@media/secret.mp4")
    outside.fs.pipe_file(outside.path, b"frames" * 1000)
    for path in (
        "s3://s3_media@media/secret.mp4",
        "s3://media/landed/../secret.mp4",
        "s3://media/landed-2/x",
    ):
        with pytest.raises(HTTPException):
            sent(files.Recorded(path, file.sha256, file.size, file.ends_sha256, "video/mp4"))


def test_a_large_film_begins_after_two_reads(store: S3) -> None:
    """Of a MiB each, whatever its size; the second part of it is one read, with no check."""
    content = bytes(range(256)) * 4096 * 40
    file = put("film.mp4", content)
    store.asked.clear()
    assert sent(file, 0, 1000) == content[:1000]
    assert store.asked == {"HEAD": 1, "GET": 3}
    store.asked.clear()
    assert sent(file, 20 * MIB, 1000) == content[20 * MIB : 20 * MIB + 1000]
    assert store.asked == {"HEAD": 1, "GET": 1}


def test_another_version_is_checked_anew(store: S3) -> None:  # it is there
    """An object of the same name and size, written since, is not what was recorded."""
    content = b"frames" * 1000
    file = put("film.mp4", content)
    assert sent(file) == content
    put("film.mp4", content[:-1] + b"!")
    with pytest.raises(HTTPException) as refused:
        sent(file)
    assert "not any more what it was" in str(refused.value.detail)
