"""What lands, what it is called, and what happens where it cannot."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from airflow_media_tasks import downloads, storage, verification
from airflow_media_tasks.operators import DownloadMediaOperator, GenerateImageOperator
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.storage import Destination, segment
from airflow_media_tasks.task import (
    MediaExpiredError,
    MediaFile,
    MediaProviderError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    TaskStatus,
)


Serve = Callable[..., str]
Connect = Callable[..., str]
Complete = Callable[[Any], Any]
log = logging.getLogger(__name__)

PLACE = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": 0}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken transfer is repeated at once."""
    monkeypatch.setattr(downloads, "RETRY_WAIT", 0.0)


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


def land(media: Any, destination: str) -> list[dict[str, Any]]:
    """The files of *media*, landed."""
    made = storage.made_of(media)
    documents = storage.land(made, Destination(destination, PLACE), log)
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
    media = result_of(*(f"{files}/{n}.png" for n in range(3)))
    first = land(media, f"file://{tmp_path}/")
    target = Path(first[0]["path"].removeprefix("file://"))
    os.utime(target, (1_000_000_000, 1_000_000_000))
    before = target.stat()
    Path(first[1]["path"].removeprefix("file://")).unlink()
    asked.clear()
    assert land(media, f"file://{tmp_path}/") == first
    assert asked == ["/1.png"]
    assert (target.stat().st_mtime_ns, target.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize("damage", ["bytes", "size", "document", "foreign document", "no document"])
def test_what_was_changed_is_downloaded_again(
    files: str, asked: list[str], tmp_path: Path, damage: str
) -> None:
    """The document must be there, of this task and true."""
    media = result_of(f"{files}/a.png")
    first = land(media, f"file://{tmp_path}/fox.png")
    file, document = tmp_path / "fox.png", tmp_path / "fox.png.json"
    if damage == "bytes":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    elif damage == "size":
        file.write_bytes(b"short")
    elif damage == "document":
        document.write_text('{"files": 5}')
    elif damage == "foreign document":
        document.write_text(document.read_text().replace("task-1", "task-2"))
    else:
        document.unlink()
    asked.clear()
    assert land(media, f"file://{tmp_path}/fox.png") == first
    assert asked == ["/a.png"]
    assert file.read_bytes() == picture("/a.png")
    assert everything_in(tmp_path) == ["fox.png", "fox.png.json"]


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
        ("401/a.png", MediaExpiredError, "HTTP 401"),
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


def test_any_object_storage_path_works(files: str, asked: list[str]) -> None:
    """What Airflow has a file system for: here fsspec's store in memory, as file and as folder."""
    attach("memory", fs=MemoryFileSystem())
    first = land([f"{files}/a.png"], "memory://of-this-test/fox.png")
    assert first == land([f"{files}/a.png"], "memory://of-this-test/fox.png")
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

    def interrupted(futures: Any) -> None:
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
        self.url = serve(self._answer)
        self.media_conn_id = connect("vap", host=self.url)

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        name = path.rpartition("/")[2]
        if path.startswith("/files/"):
            return (403, {}, b"") if name in self.refused else (200, {}, picture(name))
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


@pytest.mark.parametrize("fresh", ["old", "dead", ""], ids=["same URL", "refused as well", "task is gone"])
@pytest.mark.parametrize("hours", [-1, 1], ids=["expired", "refused early"])
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


def test_what_nobody_made_cannot_be_renewed(files: str, tmp_path: Path) -> None:
    """A plain URL has no task that could be asked."""
    file = {"kind": "image", "url": f"{files}/403/a.png", "expires_at": "2026-01-02T03:04:05+00:00"}
    with pytest.raises(MediaExpiredError, match="expired at 2026-01-02 03:04:05 UTC") as expired:
        land({"files": [file]}, f"file://{tmp_path}/fox.png")
    assert "fresh URL" in str(expired.value)


# The operators.

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
