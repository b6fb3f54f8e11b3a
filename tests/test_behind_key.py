"""Files that are only given to the account that made them: the key goes there, and nowhere else."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_media_tasks.gallery import cards, schema
from airflow_media_tasks.hooks.replicate import ReplicateHook
from airflow_media_tasks.landing import downloads, storage
from airflow_media_tasks.landing.destinations import Destination
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFile,
    MediaProviderError,
    MediaRequestError,
    MediaTask,
    TaskStatus,
)
from airflow_media_tasks.wire.tables import Call

from .hooks.peer import Peer, say
from .test_storage import picture


Connect = Callable[..., str]

KEY = "sim-key-123456"
PLACE = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": 0}
FILE = "/files/fox.png"
log = logging.getLogger(__name__)


@contextlib.contextmanager
def running() -> Iterator[Peer]:
    """A server that remembers with which headers it was asked."""
    with Peer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def keys_seen(server: Peer) -> list[str | None]:
    """What each request to *server* showed as its key."""
    return [headers.get("authorization") for _, _, headers, _ in server.seen]


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family whose files are behind the key at its base URL; nothing waits."""
    monkeypatch.setattr(ReplicateHook, "keyed_hosts", ("",))
    monkeypatch.setattr(downloads, "RETRY_WAIT", 0.0)
    monkeypatch.setattr(storage, "_pause", lambda stop, seconds: stop.is_set())


@pytest.fixture
def api() -> Iterator[Peer]:
    """The provider: a picture for whoever shows the key, below a path of its own."""
    with running() as server:

        def answer(handler: Any) -> None:
            good = handler.headers.get("Authorization") == f"Bearer {KEY}"
            say(handler, picture("fox"), 200) if good else say(handler, b"who are you", 401)

        server.answer = answer
        yield server


@pytest.fixture
def elsewhere() -> Iterator[Peer]:
    """Another host, which gives a picture to anybody."""
    with running() as server:
        server.answer = lambda handler: say(handler, picture("fox"))
        yield server


@pytest.fixture
def account(connect: Connect, api: Peer) -> str:
    """A connection to the provider, below a path."""
    return connect("replicate", host=f"{api.url}/api")


def result_of(url: str, media_conn_id: str | None = "replicate_default") -> dict[str, Any]:
    """What an operator returned of a task that made this file behind the key."""
    files = (MediaFile("image", url, access="key"),)
    made = MediaTask("task-1", TaskStatus.SUCCEEDED, files=files).to_dict()
    return {**made, "media_conn_id": media_conn_id} if media_conn_id else made


def land(media: Any, folder: Path, connections: tuple[str, ...] = ("replicate_default",)) -> dict[str, Any]:
    """The first file of *media*, landed."""
    (document,) = storage.land(
        storage.made_of(media, connections), Destination(f"file://{folder}/", PLACE), log
    )
    file: dict[str, Any] = document["files"][0]
    return file


def test_it_lands_with_the_key(account: str, api: Peer, tmp_path: Path) -> None:
    """A file at the provider's own address lands; the key is in no result and in no document beside it."""
    file = land(result_of(f"{api.url}/api{FILE}"), tmp_path)
    assert keys_seen(api) == [f"Bearer {KEY}"]
    (landed,) = (path for path in tmp_path.rglob("*") if path.suffix == ".png")
    assert landed.read_bytes() == picture("fox")
    written = json.dumps(file) + "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert KEY not in written


def test_what_is_not_marked_is_asked_without(account: str, api: Peer, tmp_path: Path) -> None:
    """Only a file that says that it is behind the key is asked with it."""
    with pytest.raises(MediaProviderError):
        land(f"{api.url}/api{FILE}", tmp_path)
    assert set(keys_seen(api)) == {None}


def test_a_provider_that_says_nothing_of_it_gives_no_key(
    account: str, api: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a result says, a key goes to files only of providers whose table says so."""
    monkeypatch.setattr(ReplicateHook, "keyed_hosts", ())
    with pytest.raises(MediaProviderError):
        land({**result_of(f"{api.url}/api{FILE}"), "id": None}, tmp_path)
    assert set(keys_seen(api)) == {None}


def test_no_other_host_gets_it(account: str, elsewhere: Peer, tmp_path: Path) -> None:
    """A result that calls a file of another host the account's own lands without the key."""
    land(result_of(f"{elsewhere.url}/api{FILE}"), tmp_path)
    assert keys_seen(elsewhere) == [None]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_it_nowhere(
    account: str, api: Peer, elsewhere: Peer, tmp_path: Path, status: int
) -> None:
    """A file that the provider has elsewhere is fetched there without the key."""
    api.answer = lambda handler: say(handler, b"", status, Location=f"{elsewhere.url}{FILE}")
    land(result_of(f"{api.url}/api{FILE}"), tmp_path)
    assert (keys_seen(api), keys_seen(elsewhere)) == ([f"Bearer {KEY}"], [None])


def test_it_goes_along_within_the_provider(account: str, api: Peer, tmp_path: Path) -> None:
    """A redirect below the connection's own address keeps it; one beside its path does not."""

    def answer(handler: Any) -> None:
        steps = {"/api/1": "/api/2", "/api/2": "/other/3"}
        step = steps.get(handler.path)
        say(handler, b"", 302, Location=step) if step else say(handler, picture("fox"))

    api.answer = answer
    land(result_of(f"{api.url}/api/1"), tmp_path)
    assert keys_seen(api) == [f"Bearer {KEY}", f"Bearer {KEY}", None]


def test_it_does_not_come_back(account: str, api: Peer, elsewhere: Peer, tmp_path: Path) -> None:
    """Another host that redirects back to the provider chooses no file to be asked with the key."""
    api.answer = lambda handler: (
        say(handler, picture("fox"))
        if handler.path == "/api/secret"
        else say(handler, b"", 302, Location=f"{elsewhere.url}{FILE}")
    )
    elsewhere.answer = lambda handler: say(handler, b"", 302, Location=f"{api.url}/api/secret")
    land(result_of(f"{api.url}/api{FILE}"), tmp_path)
    assert keys_seen(api) == [f"Bearer {KEY}", None]


def test_nobody_knows_whose_it_is(account: str, api: Peer, tmp_path: Path) -> None:
    """Without a connection that the DAG's author named nothing is asked, and the error says what to name."""
    with pytest.raises(MediaRequestError, match="name its media_conn_id"):
        land(result_of(f"{api.url}/api{FILE}", "somebody_elses"), tmp_path)
    assert api.seen == []


def test_a_wrong_key_is_a_refusal(
    connect: Connect, api: Peer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The provider's refusal is said with the file's address, and without the key."""
    connect("replicate", host=f"{api.url}/api", password="another-key-654321")
    with caplog.at_level(logging.DEBUG), pytest.raises(MediaAuthError) as caught:
        land(result_of(f"{api.url}/api{FILE}"), tmp_path)
    assert "another-key-654321" not in f"{caught.value} {caught.value.to_dict()} {caplog.text}"


def test_the_document_need_not_name_an_address(
    account: str, api: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a provider serves a file by its task's id alone, the table says by which call."""
    monkeypatch.setattr(ReplicateHook, "content", Call("GET", "/v1/things/{id}/content", params={"a": "b"}))
    hook = ReplicateHook(account)
    task = hook._task("t-1", {"id": "t-1", "status": "succeeded"}, "text_to_video")
    (file,) = task.files
    assert (file.kind, file.access) == ("video", "key")
    assert file.url == f"{api.url}/api/v1/things/t-1/content?a=b"
    assert MediaTask.from_dict(task.to_dict()) == task
    odd = hook._task("t-1", {"id": "a b", "status": "succeeded"}, "text_to_video")
    assert odd.error is not None
    assert odd.error.code == "no_output"


def test_the_gallery_says_why_it_cannot_show_it() -> None:
    """A browser would be refused: the page has the sentence instead of the address."""
    file = schema.File.model_validate(MediaFile("image", "https://api.example.com/x", access="key").to_dict())
    shown = cards._file({}, 0, file)
    assert shown["src"] is None
    assert "land it" in shown["why"]


def in_the_document(media_conn_id: str | None) -> dict[str, Any]:
    """What an operator returned of a task in whose document the file stands."""
    files = (MediaFile("video", "https://api.example.com/models/veo/t-1#0", access="task"),)
    made = MediaTask("models/veo/t-1", TaskStatus.SUCCEEDED, files=files).to_dict()
    return {**made, "media_conn_id": media_conn_id}


def test_nobody_knows_whose_document_it_is(account: str, api: Peer, tmp_path: Path) -> None:
    """A file in a document is asked for only by a connection that the DAG's author named."""
    with pytest.raises(MediaRequestError, match="nobody said which media_conn_id"):
        land(in_the_document("somebody_elses"), tmp_path)
    assert api.seen == []


def test_a_file_in_a_document_may_be_too_large(
    connect: Connect, api: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of a download is that of a file in a document, too; nothing is left behind."""
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__MAX_FILE_SIZE", "100")
    held = {"videos": [{"bytesBase64Encoded": "AAAA" * 100}]}
    operation = {"name": "models/veo/operations/t-1", "done": True, "response": held}
    api.answer = lambda handler: say(handler, operation)
    conn_id = connect("google_media", host=api.url)
    with pytest.raises(MediaRequestError, match="max_file_size"):
        land(in_the_document(conn_id), tmp_path, (conn_id,))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
