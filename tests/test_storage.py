"""From a URL to an object storage path."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_media_tasks import storage
from airflow_media_tasks.operators import DownloadMediaOperator, GenerateImageOperator
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaExpiredError,
    MediaFile,
    MediaProviderError,
    MediaRequestError,
    MediaTask,
    TaskStatus,
)


Serve = Callable[..., str]
log = logging.getLogger(__name__)
MiB = 1024**2


@pytest.fixture
def asked() -> list[str]:
    """The paths that were asked of `files`."""
    return []


@pytest.fixture
def files(serve: Serve, asked: list[str]) -> str:
    """A server of files whose bytes are their own name; `/<status>/...` answers that HTTP status."""

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        asked.append(path)
        first = path.split("/")[1]
        if first == "cut":
            return 200, {"Content-Length": "1000"}, b"only this much"
        if first == "empty":
            return 200, {}, b""
        if first == "away":
            return 302, {"Location": path.removeprefix("/away")}, b""
        types = {"png": "image/png", "mp4": "video/mp4", "wav": "audio/x-wav", "jpg": "image/jpeg; q=1"}
        kind = types.get(path.rpartition(".")[2], "application/octet-stream")
        return int(first) if first.isdigit() else 200, {"Content-Type": kind}, path.encode()

    return serve(answer)


def land(urls: list[str], destination: str, name: str = "dag/run/task/0") -> list[dict[str, Any]]:
    """Downloads plain URLs."""
    return storage.land(storage.files_of(urls), destination, name, None, log)


def everything_in(folder: Path) -> list[str]:
    """Every file below, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_lands_under_its_own_name(files: str, tmp_path: Path) -> None:
    """With its size and checksum, and nothing beside it."""
    (file,) = land([f"{files}/a.png"], f"file://{tmp_path}/deep/down/fox.png")
    assert everything_in(tmp_path) == ["deep/down/fox.png"]
    content = (tmp_path / "deep/down/fox.png").read_bytes()
    assert content == b"/a.png"
    assert file == {
        "path": f"file://{tmp_path}/deep/down/fox.png",
        "url": f"{files}/a.png",
        "kind": "file",
        "content_type": "image/png",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_further_files_are_numbered_before_the_extension(files: str, tmp_path: Path) -> None:
    """`fox.png`, `fox-1.png`, `fox-2.png`."""
    landed = land([f"{files}/{n}.png" for n in range(3)], f"file://{tmp_path}/fox.png")
    assert everything_in(tmp_path) == ["fox-1.png", "fox-2.png", "fox.png"]
    assert (tmp_path / "fox-2.png").read_bytes() == b"/2.png"
    assert [file["path"].rpartition("/")[2] for file in landed] == ["fox.png", "fox-1.png", "fox-2.png"]


def test_in_a_folder_the_extension_follows_from_the_content(files: str, tmp_path: Path) -> None:
    """By content type, whatever the URL looks like; where nothing tells, by the kind of file."""
    urls = [f"{files}/a.png", f"{files}/b.mp4", f"{files}/c.wav", f"{files}/d.jpg", f"{files}/e"]
    land(urls, f"file://{tmp_path}/")
    names = ["0-0.png", "0-1.mp4", "0-2.wav", "0-3.jpg"]
    assert everything_in(tmp_path)[:4] == [f"dag/run/task/{name}" for name in names]
    video = MediaFile("video", f"{files}/f")
    storage.land([video], f"file://{tmp_path}/", "v", None, log)
    assert (tmp_path / "v-0.bin").exists() or (tmp_path / "v-0.mp4").exists()


def test_the_same_bytes_again_change_nothing(files: str, tmp_path: Path) -> None:
    """Neither the time of the file nor its inode."""
    target = tmp_path / "fox.png"
    first = land([f"{files}/a.png"], f"file://{target}")
    os.utime(target, (1_000_000_000, 1_000_000_000))
    before = target.stat()
    assert land([f"{files}/a.png"], f"file://{target}") == first
    assert (target.stat().st_mtime_ns, target.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert everything_in(tmp_path) == ["fox.png"]


def test_other_bytes_replace_the_file(files: str, tmp_path: Path) -> None:
    """Also when they are as many."""
    for name in ("a.png", "b.png", "longer.png"):
        land([f"{files}/{name}"], f"file://{tmp_path}/fox.png")
        assert (tmp_path / "fox.png").read_bytes() == f"/{name}".encode()
    assert everything_in(tmp_path) == ["fox.png"]


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        ("cut/a.png", MediaProviderError, "broke"),
        ("empty/a.png", MediaProviderError, "empty file"),
        ("500/a.png", MediaProviderError, "500"),
        ("403/a.png", MediaExpiredError, "HTTP 403"),
        ("404/a.png", MediaExpiredError, "HTTP 404"),
        ("410/a.png", MediaExpiredError, "HTTP 410"),
    ],
)
def test_a_broken_download_leaves_nothing(
    files: str, tmp_path: Path, path: str, error: type[Exception], says: str
) -> None:
    """No part, no empty file, and what was there before stays as it is."""
    (tmp_path / "fox.png").write_bytes(b"before")
    with pytest.raises(error, match=says) as broken:
        land([f"{files}/{path}"], f"file://{tmp_path}/fox.png")
    assert f"/{path}" in str(broken.value)
    assert everything_in(tmp_path) == ["fox.png"]
    assert (tmp_path / "fox.png").read_bytes() == b"before"


def test_a_server_that_is_gone_is_the_providers_fault(tmp_path: Path, serve: Serve) -> None:
    """So that Airflow tries again."""
    with pytest.raises(MediaProviderError, match=r"127\.0\.0\.1:9"):
        land(["http://127.0.0.1:9/a.png"], f"file://{tmp_path}/fox.png")
    assert everything_in(tmp_path) == []


def test_what_expired_says_when(files: str, tmp_path: Path) -> None:
    """And that it was paid for, and how a fresh URL is had."""
    file = MediaFile.from_dict(
        {"kind": "image", "url": f"{files}/403/a.png", "expires_at": "2026-01-02T03:04:05+00:00"}
    )
    with pytest.raises(MediaExpiredError, match="expired at 2026-01-02 03:04:05") as expired:
        storage.land([file], f"file://{tmp_path}/fox.png", "n", None, log)
    assert "fresh URL" in str(expired.value)


def test_redirects_are_followed(files: str, tmp_path: Path) -> None:
    """Content networks answer with one now and then."""
    land([f"{files}/away/a.png"], f"file://{tmp_path}/fox.png")
    assert (tmp_path / "fox.png").read_bytes() == b"/a.png"


@pytest.mark.parametrize(
    "destination",
    [
        "",
        "  ",
        "file:///proc/no/such/place.png",
        "file:///dev/null/x.png",
        "nosuchscheme://bucket/fox.png",
        "ftp://127.0.0.1:9/fox.png",
        "file:///dev/null/folder/",
    ],
)
def test_a_destination_that_cannot_be_written_is_said_before_anything_is_asked(
    files: str, asked: list[str], destination: str
) -> None:
    """The error names it, and no byte was downloaded for nothing."""
    with pytest.raises(MediaRequestError, match="destination") as refused:
        land([f"{files}/a.png"], destination)
    assert repr(destination) in str(refused.value)
    assert asked == []


@pytest.mark.parametrize(
    "media",
    [
        "ftp://a/b.png",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:image/png;base64,AA==",
        "//a/b.png",
        "http://",
        "",
        None,
        5,
        [],
        {},
        ["https://a/b.png", "file:///etc/passwd"],
        {"files": [{"kind": "image", "url": "file:///etc/passwd"}]},
        {"files": [{"kind": "image"}]},
        {"files": []},
        [None],
    ],
    ids=repr,
)
def test_only_web_addresses_are_downloaded(tmp_path: Path, media: Any) -> None:
    """Everything else is refused with its value; no local file can be read by a URL."""
    with pytest.raises(MediaRequestError, match="media"):
        storage.files_of(media)


def test_a_redirect_cannot_lead_to_a_local_file(serve: Serve, tmp_path: Path) -> None:
    """The scheme is checked at every step."""
    url = serve(lambda *_: (302, {"Location": "file:///etc/passwd"}, b""))
    with pytest.raises(MediaProviderError):
        land([f"{url}/a.png"], f"file://{tmp_path}/fox.png")
    assert everything_in(tmp_path) == []


def test_what_a_task_made_is_chosen(files: str) -> None:
    """Of one result or of several: what was asked for, without thumbnails and watermarked twins."""
    made = (
        MediaFile("video", "https://a/1.mp4"),
        MediaFile("thumbnail", "https://a/1.jpg"),
        MediaFile("video", "https://a/w.mp4", watermarked=True),
        MediaFile("audio", "https://a/2.mp3"),
    )
    result = MediaTask("x", TaskStatus.SUCCEEDED, files=made).to_dict()
    only_thumbnail = MediaTask("y", TaskStatus.SUCCEEDED, files=made[1:2]).to_dict()
    urls = ["https://a/1.mp4", "https://a/2.mp3"]
    assert [file.url for file in storage.files_of(result)] == urls
    assert [file.url for file in storage.files_of([result, only_thumbnail])] == [*urls, "https://a/1.jpg"]
    assert [file.url for file in storage.files_of(iter([result, "https://a/z"]))] == [*urls, "https://a/z"]


def test_any_object_storage_path_works(files: str) -> None:
    """What Airflow has a file system for: here fsspec's store in memory, as file and as folder."""
    attach("memory", fs=MemoryFileSystem())
    first = land([f"{files}/a.png"], "memory://bucket/fox.png")
    assert first == land([f"{files}/a.png"], "memory://bucket/fox.png")
    (second,) = land([f"{files}/b.png"], "memory://bucket/folder/")
    assert ObjectStoragePath(first[0]["path"]).read_bytes() == b"/a.png"
    assert ObjectStoragePath(second["path"]).read_bytes() == b"/b.png"
    left = {path.name for path in ObjectStoragePath("memory://bucket/").iterdir()}
    assert left == {"fox.png", "folder"}


@pytest.fixture
def big(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of one file of 200 MiB that it never holds in one piece."""
    import http.server  # noqa: PLC0415  # only this fixture streams

    block = bytes(range(256)) * 4096

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(200 * MiB))
            self.end_headers()
            for _ in range(200):
                self.wfile.write(block)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/big.mp4"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_big_file_never_fills_the_memory(big: str, tmp_path: Path) -> None:
    """200 MiB pass through less than 16."""
    tracemalloc.start()
    try:
        (file,) = land([big], f"file://{tmp_path}/big.mp4")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert file["size"] == (tmp_path / "big.mp4").stat().st_size == 200 * MiB
    expected = hashlib.sha256()
    for _ in range(200):
        expected.update(bytes(range(256)) * 4096)
    assert file["sha256"] == expected.hexdigest()
    assert most < 16 * MiB


def test_nobody_sees_half_a_file(serve: Serve, tmp_path: Path) -> None:
    """While it is on its way there is only a hidden temporary name."""
    seen: list[list[str]] = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        seen.append(everything_in(tmp_path))
        return 200, {}, b"bytes"

    land([f"{serve(answer)}/a"], f"file://{tmp_path}/fox.png")
    ((name,),) = seen
    assert name.startswith(".fox.png.")
    assert name.endswith(".part")
    assert everything_in(tmp_path) == ["fox.png"]


def test_the_operator_lands_a_result(
    sim: Simulator, connect: Callable[..., str], complete: Callable[[Any], Any], tmp_path: Path
) -> None:
    """Below a folder by DAG, run, task and map index, so that no two tasks overwrite each other."""
    image = GenerateImageOperator(
        task_id="image",
        media_conn_id=connect("vap"),
        prompt="fox [sim:seconds=0.1] [sim:queued=0]",
        poll_interval=0.1,
    )
    result = complete(image)
    landed = complete(DownloadMediaOperator(task_id="land", media=result, destination=f"file://{tmp_path}/"))
    assert landed["path"] == landed["paths"][0] == f"file://{tmp_path}/dag/run/task/0-0.png"
    assert (tmp_path / "dag/run/task/0-0.png").read_bytes().startswith(b"\x89PNG")
    assert landed["files"][0]["kind"] == "image"
    assert json.loads(json.dumps(landed)) == landed


def test_the_operator_says_what_expired(
    sim: Simulator, connect: Callable[..., str], complete: Callable[[Any], Any], tmp_path: Path
) -> None:
    """A URL that died before the download is MediaExpiredError, not a file of an error page."""
    image = GenerateImageOperator(
        task_id="image",
        media_conn_id=connect("vap"),
        prompt="fox [sim:seconds=0.1] [sim:queued=0] [sim:expires=5]",
        poll_interval=0.1,
    )
    result = complete(image)
    sim.advance(10)
    with pytest.raises(MediaExpiredError, match="paid for"):
        complete(DownloadMediaOperator(task_id="land", media=result, destination=f"file://{tmp_path}/"))
    assert everything_in(tmp_path) == []
