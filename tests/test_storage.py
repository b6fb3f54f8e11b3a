"""What lands, what it is called, and what happens where it cannot."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from airflow.sdk import DAG, ObjectStoragePath, task
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from airflow_media_tasks.landing import downloads, storage
from airflow_media_tasks.landing.destinations import Destination, segment
from airflow_media_tasks.landing.landed import ENTRY, KEY
from airflow_media_tasks.landing.storage import PAUSES
from airflow_media_tasks.material import verification
from airflow_media_tasks.operators import (
    DownloadMediaOperator,
    GenerateImageOperator,
    GenerateMediaBatchOperator,
)
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submissions import answers
from airflow_media_tasks.task import (
    MediaExpiredError,
    MediaFile,
    MediaProviderError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    TaskStatus,
)

from .conftest import StateStore


Serve = Callable[..., str]
Connect = Callable[..., str]
Complete = Callable[[Any], Any]
log = logging.getLogger(__name__)

PLACE = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": 0}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken transfer is repeated at once, and so is what is refused."""
    monkeypatch.setattr(downloads, "RETRY_WAIT", 0.0)
    monkeypatch.setattr(storage, "_pause", lambda stop, seconds: stop.is_set())


def picture(text: str, form: str = "PNG") -> bytes:
    """A picture with a colour of its own for each text."""
    stream = io.BytesIO()
    colour = tuple(hashlib.sha256(text.encode()).digest()[:3])
    Image.new("RGB", (8, 6), colour).save(stream, form)
    return stream.getvalue()


@pytest.fixture
def asked() -> list[str]:
    """The paths that were asked of `files`."""
    return []


@pytest.fixture
def files(serve: Serve, asked: list[str]) -> str:
    """A server of pictures that follow from their path; `/<status>/...` answers that HTTP status."""

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        asked.append(path)
        first = path.split("/")[1]
        if first == "empty":
            return 200, {}, b""
        if first == "page":
            return 200, {"Content-Type": "image/png"}, b"<!DOCTYPE html>\n<title>Sorry</title>"
        form = "JPEG" if path.endswith(".jpg") else "PNG"
        content = picture(path, form)
        return int(first) if first.isdigit() else 200, {"Content-Type": "image/png"}, content

    return serve(answer)


def land(
    media: Any, destination: str, store: Any = None, connections: Sequence[str] = ("vap_default",)
) -> list[dict[str, Any]]:
    """The files of *media*, landed."""
    made = storage.made_of(media, connections)
    documents = storage.land(made, Destination(destination, PLACE), log, store=store)
    return [file for document in documents for file in document["files"]]


def result_of(*urls: str, kind: str = "image", **rest: Any) -> dict[str, Any]:
    """What an operator returned of a task with these files."""
    files = tuple(MediaFile(kind, url) for url in urls)
    return {**MediaTask("task-1", TaskStatus.SUCCEEDED, files=files).to_dict(), **rest}


def everything_in(folder: Path) -> list[str]:
    """Every file below, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# What is checked.


def test_what_nobody_could_check_lands_and_says_so(serve: Serve, tmp_path: Path) -> None:
    """In the result and in the document beside it; what decodes says nothing of it."""
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, heic if path == "/heic" else picture(path)

    url = serve(answer)
    odd, good = land([f"{url}/heic", f"{url}/png"], f"file://{tmp_path}/")
    assert odd["checked"] == "not checked: nothing here decodes image/heic"
    assert Path(odd["path"].removeprefix("file://")).read_bytes() == heic
    (beside,) = tmp_path.rglob("*.heic.json")
    assert json.loads(beside.read_text())["files"][0]["checked"] == odd["checked"]
    assert "checked" not in good


def test_all_files_of_a_landing_are_decoded_by_one_process(files: str, tmp_path: Path) -> None:
    """Which whoever lands more than once may bring along."""
    with verification.Decoder() as decoder:
        pids = set()
        for number in range(3):
            made = storage.made_of([f"{files}/x{number}/{name}.png" for name in "abcdef"])
            storage.land(made, Destination(f"file://{tmp_path}/{number}/", PLACE), log, decoder)
            pids.add(decoder.pid)
    assert len(pids) == 1
    assert None not in pids


# What it is called.


def test_a_file_lands_under_its_own_name(files: str, tmp_path: Path) -> None:
    """With its size and checksum, and a document that says the same beside it."""
    (file,) = land([f"{files}/a.png"], f"file://{tmp_path}/deep/down/fox.png")
    assert everything_in(tmp_path) == ["deep/down/fox.png", "deep/down/fox.png.json"]
    content = (tmp_path / "deep/down/fox.png").read_bytes()
    assert content == picture("/a.png")
    assert file == {
        "path": f"file://{tmp_path}/deep/down/fox.png",
        "url": f"{files}/a.png",
        "kind": "file",
        "index": 0,
        "media_task_id": None,
        "content_type": "image/png",
        "width": 8,
        "height": 6,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "ends_sha256": hashlib.sha256(content).hexdigest(),
    }
    document = json.loads((tmp_path / "deep/down/fox.png.json").read_text())
    assert document["files"] == [file]


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_the_ends_of_a_file_tell_which_it_is(tmp_path: Path, protocol: str) -> None:
    """Its first and its last MiB, or all of it where these would overlap, by ranged reads of any store."""
    attach("memory", fs=MemoryFileSystem())
    folder = tmp_path if protocol == "file" else "/ends"
    mib = storage.ENDS
    for size in (0, 1, mib, 2 * mib, 2 * mib + 1, 5 * mib):
        content = bytes(size // 2) + os.urandom(size - size // 2)
        path = ObjectStoragePath(f"{protocol}://{folder}/x")
        path.fs.pipe_file(path.path, content)
        ends = content if size <= 2 * mib else content[:mib] + content[-mib:]
        assert storage.ends_sha256(path, size) == hashlib.sha256(ends).hexdigest()


def test_further_files_are_numbered_before_the_extension(files: str, tmp_path: Path) -> None:
    """`fox.png`, `fox-1.png`, `fox-2.png`."""
    landed = land([f"{files}/{n}.png" for n in range(3)], f"file://{tmp_path}/fox.png")
    names = ["fox.png", "fox-1.png", "fox-2.png"]
    assert [file["path"].rpartition("/")[2] for file in landed] == names
    assert everything_in(tmp_path) == sorted([*names, *(f"{name}.json" for name in names)])
    assert (tmp_path / "fox-2.png").read_bytes() == picture("/2.png")


def test_the_extension_is_that_of_the_bytes(files: str, tmp_path: Path) -> None:
    """Whatever the URL, the server and the provider call it."""
    landed = land([f"{files}/a.mp4", f"{files}/b.jpg"], f"file://{tmp_path}/")
    assert [file["path"].rpartition("/")[2] for file in landed] == ["0-0.png", "0-1.jpg"]
    assert [file["content_type"] for file in landed] == ["image/png", "image/jpeg"]
    assert (tmp_path / "dag/run/task/0-1.jpg").exists()


def test_a_template_names_the_files(files: str, tmp_path: Path) -> None:
    """With every field there is, each of them one safe segment of the path."""
    media = result_of(f"{files}/a.png", f"{files}/b.jpg", id="videos/text2video/../7")
    text = (
        f"file://{tmp_path}/{{kind}}/{{dag_id}}.{{run_id}}/{{task_id}}/{{media_task_id}}/{{index:02}}{{ext}}"
    )
    landed = land(media, text)
    id_ = segment("videos/text2video/../7")
    assert [file["path"].removeprefix(f"file://{tmp_path}/") for file in landed] == [
        f"image/dag.run/task/{id_}/00.png",
        f"image/dag.run/task/{id_}/01.jpg",
    ]


@pytest.mark.parametrize(
    "text", ["{name}", "{dag_id.x}", "{dag_id[0]}", "{", "{index:{ext}}", "{index:q}", "{}", "{0}"]
)
def test_a_wrong_template_is_said_at_once(tmp_path: Path, text: str) -> None:
    """With the fields that there are."""
    with pytest.raises(MediaRequestError, match="media_task_id") as refused:
        Destination(f"file://{tmp_path}/{text}", PLACE)
    assert text in str(refused.value)


@pytest.mark.parametrize(
    "value", ["..", ".", "", "a/b", "a\\b", "a b", "é", ".hidden", "x" * 500, "a\0b", "a\nb", "%2e%2e"]
)
def test_no_value_leads_anywhere_else(value: str) -> None:
    """It becomes one segment of the path, and no two become the same."""
    safe = segment(value)
    assert safe not in ("", ".", "..")
    assert set("/\\\0\n% ").isdisjoint(safe)
    assert len(safe) < 200
    assert not safe.startswith(".")
    assert safe != segment(value + "!") != segment(value + "?")


def test_usual_values_stay_as_they_are() -> None:
    """A run's id among them."""
    for value in ("manual__2026-01-02T03:04:05+00:00", "my_dag.v2", "group.task"):
        assert segment(value) == value


@pytest.mark.parametrize("text", ["fox.png", "./fox.png", "a/fox.png", "a/", "{dag_id}/{index}{ext}"])
def test_a_path_may_be_a_plain_one(
    files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """As Airflow takes one: of this machine, and of the working directory unless it begins at the root."""
    monkeypatch.chdir(tmp_path)
    for destination in (text, f"{tmp_path}/{text}"):
        (file,) = land([f"{files}/a.png"], destination)
        assert (tmp_path / file["path"]).read_bytes() == picture("/a.png")
    assert len(everything_in(tmp_path)) == 2


# What is there already.


def test_what_is_there_is_not_downloaded_again(files: str, asked: list[str], tmp_path: Path) -> None:
    """Only what is missing is; the rest keeps its time and its inode."""
    media, store = result_of(*(f"{files}/{n}.png" for n in range(3))), StateStore()
    first = land(media, f"file://{tmp_path}/", store)
    target = Path(first[0]["path"].removeprefix("file://"))
    os.utime(target, (1_000_000_000, 1_000_000_000))
    before = target.stat()
    Path(first[1]["path"].removeprefix("file://")).unlink()
    asked.clear()
    assert land(media, f"file://{tmp_path}/", store) == first
    assert asked == ["/1.png"]
    assert (target.stat().st_mtime_ns, target.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize("damage", ["bytes", "size", "record", "foreign record", "no record", "not ours"])
def test_what_was_changed_is_downloaded_again(
    files: str, asked: list[str], tmp_path: Path, damage: str
) -> None:
    """The record must be there, of this file and true."""
    media, store = result_of(f"{files}/a.png"), StateStore()
    first = land(media, f"file://{tmp_path}/fox.png", store)
    file = tmp_path / "fox.png"
    (name,) = store[KEY]
    if damage == "bytes":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    elif damage == "size":
        file.write_bytes(b"short")
    elif damage == "record":
        store[KEY] = 5
    elif damage == "foreign record":
        store[KEY] = {"another": store[KEY][name]}
    elif damage == "not ours":
        store[KEY][name]["url"] = "https://elsewhere/fox.png"
    else:
        store.delete(KEY)
    asked.clear()
    assert land(media, f"file://{tmp_path}/fox.png", store) == first
    assert asked == ["/a.png"]
    assert file.read_bytes() == picture("/a.png")
    assert everything_in(tmp_path) == ["fox.png", "fox.png.json"]


def test_the_document_beside_a_file_proves_nothing(files: str, asked: list[str], tmp_path: Path) -> None:
    """Whoever may write to the bucket may plant a file, and say what they like: it is downloaded over."""
    media = result_of(f"{files}/a.png")
    (true,) = land(media, f"file://{tmp_path}/fox.png", StateStore())
    planted = picture("planted")
    (tmp_path / "fox.png").write_bytes(planted)
    lie = {
        **true,
        "url": "https://elsewhere/fox.png",
        "size": len(planted),
        "sha256": hashlib.sha256(planted).hexdigest(),
    }
    document = {"media_task_id": "task-1", "files": [lie]}
    (tmp_path / "fox.png.json").write_text(json.dumps(document))
    asked.clear()
    assert land(media, f"file://{tmp_path}/fox.png", StateStore()) == [true]
    assert asked == ["/a.png"]
    assert (tmp_path / "fox.png").read_bytes() == picture("/a.png")


def test_what_an_earlier_version_landed_is_downloaded_once_more(
    files: str, asked: list[str], tmp_path: Path
) -> None:
    """It left nothing but the document; from then on the record knows."""
    media, store = result_of(f"{files}/a.png"), StateStore()
    first = land(media, f"file://{tmp_path}/fox.png")
    asked.clear()
    for _ in range(2):
        assert land(media, f"file://{tmp_path}/fox.png", store) == first
    assert asked == ["/a.png"]


def test_the_record_is_written_while_files_land(
    files: str, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In entries that stay small, in few calls, so that a worker that dies leaves little to be done again."""
    media, store = result_of(*(f"{files}/{n}.png" for n in range(2 * ENTRY + 5))), StateStore()
    written: list[str] = []

    def note(key: str, value: Any, retention: object = None) -> None:
        written.append(key)
        StateStore.set(store, key, value, retention)
        if len(written) == 2:
            raise ConnectionError("the API server is busy")

    monkeypatch.setattr(store, "set", note)
    monkeypatch.setattr(storage, "NOTE_SECONDS", 0.05)
    first = land(media, f"file://{tmp_path}/", store)
    assert len(first) == 2 * ENTRY + 5
    assert set(written) == {KEY, f"{KEY}.1", f"{KEY}.2"}
    assert len(written) < len(first) / 2
    assert all(len(json.dumps(entry)) < 60 * 1024 for entry in store.values())
    asked.clear()
    assert land(media, f"file://{tmp_path}/", store) == first
    assert asked == []


def test_another_task_replaces_the_file(files: str, tmp_path: Path) -> None:
    """And its document."""
    for number in range(3):
        land(result_of(f"{files}/{number}.png", id=f"t{number}"), f"file://{tmp_path}/fox.png")
        assert (tmp_path / "fox.png").read_bytes() == picture(f"/{number}.png")
        assert json.loads((tmp_path / "fox.png.json").read_text())["media_task_id"] == f"t{number}"
    assert everything_in(tmp_path) == ["fox.png", "fox.png.json"]


def test_what_a_killed_worker_left_is_removed(files: str, tmp_path: Path) -> None:
    """Unless it was written to lately: then somebody is at it."""
    old, new, other = (tmp_path / f".{name}.part" for name in ("fox.png.aa", "fox.png.bb", "cat.png.aa"))
    for part in (old, new, other):
        part.touch()
    for part in (old, other):
        os.utime(part, (1_000_000_000, 1_000_000_000))
    land([f"{files}/a.png"], f"file://{tmp_path}/fox.png")
    assert everything_in(tmp_path) == sorted([new.name, other.name, "fox.png", "fox.png.json"])


# What goes wrong.


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        ("empty/a.png", MediaProviderError, "empty file"),
        ("page/a.png", MediaProviderError, "claims to be image/png and is text; it begins with '<!DOCTYPE"),
        ("500/a.png", MediaProviderError, "500"),
        ("418/a.png", MediaProviderError, "418"),
        ("401/a.png", MediaProviderError, "HTTP 401"),
        ("403/a.png", MediaProviderError, "HTTP 403"),
        ("404/a.png", MediaProviderError, "HTTP 404"),
        ("410/a.png", MediaProviderError, "HTTP 410"),
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


def test_one_that_fails_does_not_keep_the_others(files: str, asked: list[str], tmp_path: Path) -> None:
    """They land, so that the next try has only that one to fetch; an error that may pass is told first."""
    urls = [f"{files}/0.png", "http://10.1.2.3/1.png", f"{files}/500/2.png", f"{files}/3.png"]
    with pytest.raises(MediaProviderError, match="500"):
        land(urls, f"file://{tmp_path}/fox.png")
    names = ["fox-3.png", "fox.png"]
    assert everything_in(tmp_path) == sorted([*names, *(f"{name}.json" for name in names)])


@pytest.mark.parametrize(
    "destination",
    [
        "",
        "  ",
        None,
        5,
        "file:///proc/no/such/place.png",
        "file:///dev/null/x.png",
        "nosuchscheme://bucket/fox.png",
        "ftp://127.0.0.1:9/fox.png",
        "file:///dev/null/folder/",
        "file:///proc/{dag_id}/{index}{ext}",
    ],
)
def test_a_destination_that_cannot_be_written_is_said_before_anything_is_asked(destination: Any) -> None:
    """The error names it, and nothing was downloaded, or paid, for nothing."""
    with pytest.raises(MediaRequestError, match="destination") as refused:
        Destination(destination, PLACE)
    assert repr(destination) in str(refused.value)


def test_a_store_that_breaks_is_no_fault_of_the_request(files: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another try may find it well, so it is not one of the errors that are not retried."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    attach("memory", fs=MemoryFileSystem())
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", full)
    with pytest.raises(MediaTaskError, match=r"memory://bucket/fox\.png.*No space left") as broken:
        land([f"{files}/a.png"], "memory://bucket/fox.png")
    assert type(broken.value) is MediaTaskError


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
        ["None"],
        ["https://a/b.png", 5],
    ],
    ids=repr,
)
def test_only_web_addresses_are_downloaded(media: Any) -> None:
    """Everything else is refused with its value; no local file can be read by a URL."""
    with pytest.raises(MediaRequestError, match="media"):
        storage.made_of(media)


def test_what_a_task_made_is_chosen() -> None:
    """Of one result or of several: what was asked for, without thumbnails and watermarked twins."""
    made = (
        MediaFile("video", "https://a/1.mp4"),
        MediaFile("thumbnail", "https://a/1.jpg"),
        MediaFile("video", "https://a/w.mp4", watermarked=True),
        MediaFile("audio", "https://a/2.mp3"),
    )
    result = MediaTask("x", TaskStatus.SUCCEEDED, files=made).to_dict()
    only_thumbnail = MediaTask("y", TaskStatus.SUCCEEDED, files=made[1:2]).to_dict()

    def chosen(media: Any) -> list[tuple[str | None, int, str]]:
        made = storage.made_of(media)
        return [(one.media_task_id, index, file.url) for one in made for index, file in one.files]

    both = [("x", 0, "https://a/1.mp4"), ("x", 3, "https://a/2.mp3")]
    assert chosen(result) == both
    assert chosen([result, only_thumbnail]) == [*both, ("y", 0, "https://a/1.jpg")]
    assert chosen(iter([result, "https://a/z"])) == [*both, (None, 0, "https://a/z")]


def test_what_is_there_is_landed_though_a_sibling_failed(files: str, tmp_path: Path) -> None:
    """The output of a task that failed or was skipped is None, or the text that a template makes of it."""
    landed = land(
        [result_of(f"{files}/a.png"), None, [None], "None", f"{files}/b.png"], f"file://{tmp_path}/"
    )
    assert [file["url"] for file in landed] == [f"{files}/a.png", f"{files}/b.png"]


def test_any_object_storage_path_works(files: str, asked: list[str]) -> None:
    """What Airflow has a file system for: here fsspec's store in memory, as file and as folder."""
    attach("memory", fs=MemoryFileSystem())
    store = StateStore()
    first = land([f"{files}/a.png"], "memory://of-this-test/fox.png", store)
    assert first == land([f"{files}/a.png"], "memory://of-this-test/fox.png", store)
    assert asked == ["/a.png"]
    (second,) = land([f"{files}/b.png"], "memory://of-this-test/folder/")
    assert ObjectStoragePath(first[0]["path"]).read_bytes() == picture("/a.png")
    assert ObjectStoragePath(second["path"]).read_bytes() == picture("/b.png")
    left = {path.name for path in ObjectStoragePath("memory://of-this-test/").iterdir()}
    assert left == {"fox.png", "fox.png.json", "folder"}


def test_nobody_sees_half_a_file(serve: Serve, tmp_path: Path) -> None:
    """While it is on its way there is only a hidden temporary name."""
    seen: list[list[str]] = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        seen.append(everything_in(tmp_path))
        return 200, {}, picture("x")

    land([f"{serve(answer)}/a"], f"file://{tmp_path}/fox.png")
    ((name,),) = seen
    assert name.startswith(".fox.png.")
    assert name.endswith(".part")
    assert everything_in(tmp_path) == ["fox.png", "fox.png.json"]


def test_four_files_at_once(serve: Serve, tmp_path: Path) -> None:
    """Not one after the other, and never more."""
    under_way, most, lock = 0, 0, threading.Lock()
    four = threading.Barrier(4)

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        four.wait(10)
        with lock:
            under_way -= 1
        return 200, {}, picture(path)

    url = serve(answer)
    land([f"{url}/{number}" for number in range(12)], f"file://{tmp_path}/")
    assert most == storage.THREADS == 4


def test_it_ends_when_it_is_told_to(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An execution timeout in the middle stops what is under way, and nothing stays behind."""
    arrived, go_on = threading.Event(), threading.Event()

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        arrived.set()
        go_on.wait(10)
        return 200, {}, picture(path) + bytes(4 * downloads.CHUNK)

    def interrupted(futures: Any, timeout: float) -> None:
        assert arrived.wait(10)
        threading.Timer(0.2, go_on.set).start()
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "wait", interrupted)
    url = serve(answer)
    with pytest.raises(KeyboardInterrupt):
        land([f"{url}/{number}" for number in range(20)], f"file://{tmp_path}/")
    assert everything_in(tmp_path) == []


# URLs that die.


class Gallery:
    """A server of one picture whose old URL is refused, and a VAP that shows its task."""

    def __init__(self, serve: Serve, connect: Connect) -> None:
        self.fresh, self.refused, self.looks = "new", {"old"}, 0
        self.status, self.words, self.good_after, self.asked = 403, "", 10**6, 0
        self.url = serve(self._answer)
        self.media_conn_id = connect("vap", host=self.url)

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        name = path.rpartition("/")[2]
        if path.startswith("/files/"):
            self.asked += 1
            if name in self.refused and self.asked <= self.good_after:
                return self.status, {}, self.words.encode()
            return 200, {}, picture(name)
        self.looks += 1
        if not self.fresh:
            return 404, {"Content-Type": "application/json"}, b'{"error": {"code": "not_found"}}'
        return 200, {"Content-Type": "application/json"}, json.dumps(self.document()).encode()

    def document(self) -> dict[str, Any]:
        """The task as VAP shows it."""
        return {
            "task_id": "5b1f6a3e-8f0d-4f6e-9a52-0a4b4a4b1c11",
            "type": "image_generation",
            "status": "completed",
            "output_url": f"{self.url}/files/{self.fresh}",
        }

    def result(self, **file: Any) -> dict[str, Any]:
        """What the operator returned when the old URL was fresh."""
        made = MediaFile("image", f"{self.url}/files/old", **file)
        task = MediaTask(self.document()["task_id"], TaskStatus.SUCCEEDED, files=(made,))
        return {**task.to_dict(), "media_conn_id": self.media_conn_id, "provider": "vap"}


@pytest.fixture
def gallery(serve: Serve, connect: Connect) -> Gallery:
    """A picture whose URL has died."""
    return Gallery(serve, connect)


def test_a_refused_url_is_renewed_by_asking_the_task(gallery: Gallery, tmp_path: Path) -> None:
    """Once, and what lands says where it came from in the end."""
    (file,) = land(gallery.result(), f"file://{tmp_path}/fox.png")
    assert file["url"] == f"{gallery.url}/files/new"
    assert (tmp_path / "fox.png").read_bytes() == picture("new")
    assert gallery.looks == 1


def test_an_expired_url_is_not_even_tried(gallery: Gallery, tmp_path: Path) -> None:
    """The provider said until when it lives."""
    gallery.refused = set()
    past = datetime.now(timezone.utc) - timedelta(hours=1)
    (file,) = land(gallery.result(expires_at=past), f"file://{tmp_path}/fox.png")
    assert file["url"] == f"{gallery.url}/files/new"


@pytest.mark.parametrize(
    ("hours", "fresh"),
    [(-1, "old"), (-1, "dead"), (-1, ""), (1, "")],
    ids=["expired, same URL", "expired, refused as well", "expired, task is gone", "task is gone"],
)
def test_what_is_gone_for_good_says_so(gallery: Gallery, tmp_path: Path, fresh: str, hours: int) -> None:
    """When it expired, that it was paid for, and which task that was; the task is asked once."""
    gallery.fresh, gallery.refused = fresh, {"old", "dead"}
    when = datetime.now(timezone.utc) + timedelta(hours=hours)
    result = gallery.result(expires_at=when)
    with pytest.raises(MediaExpiredError, match="generated and paid for") as expired:
        land(result, f"file://{tmp_path}/fox.png")
    assert f"expired at {when:%Y-%m-%d %H:%M}" in str(expired.value)
    assert expired.value.media_task_id == result["id"]
    assert result["id"] in str(expired.value)
    assert gallery.looks == 1
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
@pytest.mark.parametrize("expires", [None, 720], ids=["nobody knows until when", "expires in 30 days"])
def test_what_is_refused_is_not_gone(
    gallery: Gallery, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, expires: int | None
) -> None:
    """A content network that has a fresh file some seconds later is waited for, and the log says so."""
    caplog.set_level("INFO")
    gallery.fresh, gallery.status, gallery.good_after = "old", status, refusals_in(15)
    when = expires and datetime.now(timezone.utc) + timedelta(hours=expires)
    (file,) = land(gallery.result(expires_at=when), f"file://{tmp_path}/fox.png")
    assert file["url"] == f"{gallery.url}/files/old"
    assert (tmp_path / "fox.png").read_bytes() == picture("old")
    assert gallery.looks == 1
    says = f"answers HTTP {status}, and is not gone: asking again in 8 s, for at most 293 s more"
    assert says in caplog.text


def refusals_in(seconds: float) -> int:
    """How many requests are made within so many seconds, two of them at once."""
    return 2 + sum(sum(PAUSES[: number + 1]) < seconds for number in range(len(PAUSES)))


def test_the_pauses_grow_and_end_after_minutes() -> None:
    """The first ones are short, as a fresh file is soon there; a worker is held for five minutes at most."""
    assert list(PAUSES) == sorted(PAUSES)
    assert (PAUSES[0], sum(PAUSES)) == (1, 300)


def test_what_stays_refused_is_landed_by_another_try(gallery: Gallery, tmp_path: Path) -> None:
    """It is not said to have expired, and the error can be retried; files behind it do not wait as long."""
    gallery.fresh, gallery.good_after = "old", 10**6
    when = datetime.now(timezone.utc) + timedelta(days=30)
    with pytest.raises(MediaProviderError, match="not gone: vap_default shows it") as refused:
        land([gallery.result(expires_at=when)] * 40, f"file://{tmp_path}/fox.png")
    assert refused.value.code == "refused"
    assert refused.value.media_task_id == gallery.document()["task_id"]
    assert "expired" not in str(refused.value)
    assert gallery.asked < storage.THREADS * (len(PAUSES) + 2) + 40 * 3
    gallery.good_after = 0
    land(gallery.result(expires_at=when), f"file://{tmp_path}/fox.png")


@pytest.mark.parametrize(
    ("words", "is_gone"),
    [
        ("<?xml version='1.0'?><Error><Message>Request has expired</Message></Error>", True),
        ("<html>error code: 1010, your session has expired</html>", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("days", [None, 30])
def test_the_store_may_know_that_a_url_has_expired(
    gallery: Gallery, tmp_path: Path, words: str, is_gone: bool, days: int | None
) -> None:
    """It is believed where the provider says nothing of it; a page for people never is."""
    gallery.fresh, gallery.good_after, gallery.words = "old", 10**6, words
    when = days and datetime.now(timezone.utc) + timedelta(days=days)
    error = MediaExpiredError if is_gone and days is None else MediaProviderError
    with pytest.raises(error):
        land(gallery.result(expires_at=when), f"file://{tmp_path}/fox.png")


def test_one_that_is_gone_does_not_hide_one_that_is_not(files: str, tmp_path: Path) -> None:
    """The error that another try may mend is the one that counts: nothing is paid again meanwhile."""
    gone = {"kind": "image", "url": f"{files}/403/a.png", "expires_at": "2026-01-02T03:04:05+00:00"}
    for urls in ([gone, f"{files}/404/b.png"], [gone, "http://10.1.2.3/c.png"]):
        media = [{"files": [url]} if isinstance(url, dict) else url for url in urls]
        with pytest.raises(MediaTaskError) as error:
            land(media, f"file://{tmp_path}/fox.png")
        assert not isinstance(error.value, MediaExpiredError)


@pytest.mark.parametrize("connections", [[], ["vap_other"], ["vap_other", "vap_third"]])
def test_a_result_does_not_choose_who_is_asked(
    gallery: Gallery, tmp_path: Path, connections: list[str]
) -> None:
    """It may come from anywhere; only a connection that the DAG's author wrote is used."""
    with pytest.raises(MediaProviderError, match="media_conn_id"):
        land(gallery.result(), f"file://{tmp_path}/fox.png", connections=connections)
    assert gallery.looks == 0


def test_what_nobody_made_cannot_be_renewed(files: str, tmp_path: Path) -> None:
    """A plain URL has no task that could be asked."""
    file = {"kind": "image", "url": f"{files}/403/a.png", "expires_at": "2026-01-02T03:04:05+00:00"}
    with pytest.raises(MediaExpiredError, match="expired at 2026-01-02 03:04:05 UTC") as expired:
        land({"files": [file]}, f"file://{tmp_path}/fox.png")
    assert "fresh URL" in str(expired.value)


# The operators.


def front_of(
    sim: Simulator, url: Callable[[], str], files: Callable[[str], tuple[int, dict[str, str], bytes]]
) -> Callable[[str, str, bytes], tuple[int, dict[str, str], bytes]]:
    """The simulator, at *url*, with *files* instead of its own."""

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path.startswith("/media/"):
            return files(path)
        key = {"Authorization": "Bearer sim-key-123456", "Content-Type": "application/json"}
        reply = httpx.request(method, f"{sim.url}{path}", headers=key, content=body)
        content = reply.content.replace(sim.url.encode(), url().encode())
        return reply.status_code, {"Content-Type": "application/json"}, content

    return answer


QUICK = "[sim:queued=0] [sim:seconds=0.1]"


def image(**options: Any) -> GenerateImageOperator:
    """An operator that makes a picture with VAP, quickly."""
    usual = {"prompt": f"fox {QUICK}", "media_conn_id": "vap_default", "poll_interval": 0.1}
    return GenerateImageOperator(**{"task_id": "image", **usual, **options})


def test_the_operator_lands_a_result(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """Below a folder by DAG, run, task and map index, so that no two tasks overwrite each other."""
    connect("vap")
    result = complete(image())
    landed = complete(DownloadMediaOperator(task_id="land", media=result, destination=f"file://{tmp_path}/"))
    assert landed["path"] == landed["paths"][0] == f"file://{tmp_path}/dag/run/task/0-0.png"
    assert (tmp_path / "dag/run/task/0-0.png").read_bytes().startswith(b"\x89PNG")
    assert landed["files"][0]["kind"] == "image"
    assert landed["files"][0]["media_task_id"] == result["id"]
    assert json.loads(json.dumps(landed)) == landed


def test_the_operator_says_what_expired(
    sim: Simulator, connect: Connect, complete: Complete, context: dict[str, Any], tmp_path: Path
) -> None:
    """A URL that died before the download is MediaExpiredError, in XCom too, not a file of an error page."""
    connect("vap")
    result = complete(image(prompt=f"fox {QUICK} [sim:expires=5]"))
    sim.advance(10)
    with pytest.raises(MediaExpiredError, match="paid for") as expired:
        complete(DownloadMediaOperator(task_id="land", media=result, destination=f"file://{tmp_path}/"))
    assert everything_in(tmp_path) == []
    assert context["pushed"]["media_error"] == expired.value.to_dict()
    assert expired.value.media_task_id == result["id"]


@pytest.mark.parametrize("who", ["itself", "another task", "a template", "a mapped task", "nobody"])
def test_the_operator_asks_whom_the_author_named(
    gallery: Gallery, complete: Complete, context: dict[str, Any], tmp_path: Path, who: str
) -> None:
    """Its own connection, or that of a task of this DAG; not one that only the XCom knows."""
    written = {"itself": "vap_other", "a template": "{{ 'vap' }}_default", "nobody": "vap_other"}
    with DAG("films", schedule=None) as dag:
        if who == "a mapped task":
            usual = {"task_id": "image", "media_conn_id": "vap_default"}
            GenerateImageOperator.partial(**usual).expand(prompt=["a fox", "a cat"])
        else:
            image(media_conn_id=written.get(who, "vap_default"))
            image(task_id="broken", media_conn_id="{{ no.such.thing }}")
        download = DownloadMediaOperator(
            task_id="land",
            media=gallery.result(),
            destination=f"file://{tmp_path}/",
            media_conn_id="vap_default" if who == "itself" else None,
        )
    context["dag"] = dag
    if who == "nobody":
        with pytest.raises(MediaProviderError, match="media_conn_id"):
            complete(download)
        assert gallery.looks == 0
    else:
        assert complete(download)["files"][0]["url"] == f"{gallery.url}/files/new"
        assert gallery.looks == 1


def test_a_mapped_download_in_airflow_asks_whom_the_author_named(
    gallery: Gallery, run_dag: Callable[[Any], Any], tmp_path: Path
) -> None:
    """A task of the DAG has the connection, as a template; here it has nothing to do itself."""
    with DAG("mapped_films", schedule=None) as dag:
        GenerateImageOperator.partial(task_id="none", media_conn_id="vap_{{ 'default' }}").expand(prompt=[])
        media = task(task_id="found")(lambda: [gallery.result()])()
        DownloadMediaOperator.partial(task_id="land", destination=f"file://{tmp_path}/").expand(media=media)
    run = run_dag(dag)
    assert run.tasks["land", 0] == "success"
    assert run.xcom("land", 0)["files"][0]["url"] == f"{gallery.url}/files/new"


def test_a_batch_waits_for_its_refused_files_together(
    sim: Simulator,
    serve: Serve,
    connect: Connect,
    complete: Complete,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Five minutes at most for all that end at once, not for each; what they are is kept for another try."""
    slept: list[float] = []
    monkeypatch.setattr(storage, "_pause", lambda stop, seconds: slept.append(seconds))
    url = serve(front_of(sim, lambda: url, lambda path: (404, {}, b"")))
    connect("kling", host=f"{url}/kling")
    batch = GenerateMediaBatchOperator(
        task_id="batch",
        media_conn_id="kling_default",
        operation="text_to_image",
        requests=[{"prompt": f"fox {number} {QUICK}"} for number in range(40)],
        poll_interval=1,
        save_to=f"file://{tmp_path}/",
    )
    with pytest.raises(MediaTaskError, match="it is not gone"):
        complete(batch)
    assert len(sim.ledger()) == 40
    assert sum(slept) <= 8 * sum(PAUSES)


@pytest.mark.parametrize("conn_type", ["vap", "kling", "acedata"])
@pytest.mark.parametrize("deferrable", [True, False])
def test_one_task_makes_and_lands(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path, conn_type: str, deferrable: bool
) -> None:
    """With `save_to`, the result says where its files are, and the rest as ever."""
    operation = {"acedata": "veo/text_to_video"}.get(conn_type, "text_to_image")
    operator = image(
        media_conn_id=connect(conn_type),
        operation=operation,
        save_to=f"file://{tmp_path}/",
        deferrable=deferrable,
    )
    result = complete(operator)
    (file, *_) = (file for file in result["files"] if "path" in file)
    path = Path(file["path"].removeprefix("file://"))
    assert result["path"] == result["paths"][0] == file["path"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]
    assert path.stat().st_size == file["size"]
    assert path.parent == tmp_path / "dag/run/task"
    assert result["url"] == file["url"]
    assert json.loads(json.dumps(result)) == result
    assert len(sim.ledger()) == 1


def test_a_place_that_cannot_be_written_is_said_before_anything_is_paid(
    sim: Simulator, connect: Connect, complete: Complete
) -> None:
    """By name."""
    connect("vap")
    for save_to in ("file:///proc/media/", "nosuchscheme://bucket/", "{what}", ""):
        with pytest.raises(MediaRequestError, match="destination"):
            complete(image(save_to=save_to))
    assert sim.ledger() == []


def test_a_landing_that_failed_never_pays_again(
    sim: Simulator, connect: Connect, complete: Complete, context: dict[str, Any], tmp_path: Path
) -> None:
    """Neither a retry nor a clear makes a second one; a clear of what has landed does."""
    connect("vap")
    folder = tmp_path / "media"
    operator = image(save_to=f"file://{folder}/{{dag_id}}/fox.png")
    folder.mkdir()
    (folder / "dag").write_text("a file where a folder should be")
    with pytest.raises(MediaRequestError, match="cannot be written"):
        complete(operator)
    with pytest.raises(MediaRequestError, match="cannot be written"):
        complete(operator)
    context["ti"].max_tries += 1
    (folder / "dag").unlink()
    result = complete(operator)
    assert (folder / "dag" / "fox.png").exists()
    assert len(sim.ledger()) == 1
    assert complete(operator)["id"] == result["id"]
    assert len(sim.ledger()) == 1

    context["ti"].max_tries += 1
    assert complete(operator)["id"] != result["id"]
    assert len(sim.ledger()) == 2


def test_what_does_not_land_can_be_given_up(
    sim: Simulator, connect: Connect, complete: Complete, context: dict[str, Any], tmp_path: Path
) -> None:
    """A clear goes on landing it; only where a person has said so, it makes, and pays, a new one."""
    connect("vap")
    operator = image(save_to=f"file://{tmp_path}/{{dag_id}}/fox.png")
    (tmp_path / "dag").write_text("a file where a folder should be")
    with pytest.raises(MediaRequestError, match="cannot be written"):
        complete(operator)
    record = context["task_state_store"]["media_task"]
    key = answers.key_of(answers.reference_of("failed", record, None))
    context["task_state_store"][key] = answers.answer(None, record, None).to_dict()
    context["ti"].max_tries += 1
    (tmp_path / "dag").unlink()
    complete(operator)
    assert len(sim.ledger()) == 2


def test_what_expired_before_it_landed_can_be_made_anew(
    sim: Simulator, connect: Connect, complete: Complete, context: dict[str, Any], tmp_path: Path
) -> None:
    """A retry pays nothing and says the same; a clear, which a person does, makes another."""
    connect("vap")
    operator = image(prompt=f"fox {QUICK} [sim:expires=0]", save_to=f"file://{tmp_path}/")
    for _ in range(2):
        with pytest.raises(MediaExpiredError, match="paid for"):
            complete(operator)
    assert len(sim.ledger()) == 1
    context["ti"].max_tries += 1
    with pytest.raises(MediaExpiredError):
        complete(operator)
    assert len(sim.ledger()) == 2


def test_an_unlanded_result_is_kept_through_a_kill(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker killed in the middle of landing leaves nothing but what the next one finishes."""
    connect("vap")
    operator = image(save_to=f"file://{tmp_path}/fox.png")

    def die(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(storage, "_publish", die)
        with pytest.raises(SystemExit):
            complete(operator)
    assert everything_in(tmp_path) == []
    complete(operator)
    assert everything_in(tmp_path) == ["fox.png", "fox.png.json"]
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize("status", [403, 404])
def test_what_is_refused_is_never_paid_again(
    sim: Simulator,
    serve: Serve,
    connect: Connect,
    complete: Complete,
    context: dict[str, Any],
    tmp_path: Path,
    status: int,
) -> None:
    """Retry and clear only land what the provider still shows, as long as it has not expired."""
    is_open = threading.Event()

    def files(path: str) -> tuple[int, dict[str, str], bytes]:
        return (
            (200, {}, picture(path)) if is_open.is_set() else (status, {}, b"<html>error code: 1010</html>")
        )

    url = serve(front_of(sim, lambda: url, files))
    connect("kling", host=f"{url}/kling")
    operator = image(media_conn_id="kling_default", save_to=f"file://{tmp_path}/")
    for generation in (0, 0, 1):
        context["ti"].max_tries = generation
        with pytest.raises(MediaProviderError, match="not gone: kling_default shows it"):
            complete(operator)
    is_open.set()
    assert complete(operator)["path"].endswith(".png")
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("films/", ["d/r/t/loop-0-0-0.mp4", "d/r/t/loop-1-0-0.mp4", "d/r/t/loop-2-0-0.mp4"]),
        ("films/{task_id}/{loop}{index}{ext}", ["t/loop-0-0.mp4", "t/loop-1-0.mp4", "t/loop-2-0.mp4"]),
        ("films/{media_task_id}{ext}", ["m.mp4", "m-loop-1.mp4", "m-loop-2.mp4"]),
        ("films/fox.mp4", ["fox.mp4", "fox-loop-1.mp4", "fox-loop-2.mp4"]),
    ],
)
def test_iterations_of_a_task_loop_land_beside_each_other(
    tmp_path: Path, text: str, names: list[str]
) -> None:
    """They have one name, one run and one map index; no template lets one overwrite the other."""
    place = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 0}
    film = MediaFile("video", "")
    found = [
        Destination(f"file://{tmp_path}/{text}", {**place, "loop": number}).path(0, film, "m", ".mp4")
        for number in range(3)
    ]
    assert [path.path for path in found] == [f"{tmp_path}/films/{name}" for name in names]
    outside = Destination(f"file://{tmp_path}/{text}", place).path(0, film, "m", ".mp4").path
    assert "loop-" not in outside
