"""Landing in S3: a server that speaks it, on loopback, and credentials from an Airflow connection."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import AssetAlias, ObjectStoragePath
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_media_tasks.landing import storage
from airflow_media_tasks.landing.destinations import Destination
from airflow_media_tasks.landing.downloads import ATTEMPTS
from airflow_media_tasks.operators import DownloadMediaOperator, GenerateImageOperator
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import MediaRequestError, MediaTaskError

from .conftest import StateStore
from .hostile import Hostile, served


pytest.importorskip("airflow.providers.amazon", reason="the extra `dev` brings it")
moto = pytest.importorskip("moto.server", reason="the extra `dev` brings it")

# Of libraries that talk to S3, or play it.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KEY, SECRET = "AKIDOFTHECONNECTION", "secret-of-the-connection"
SIZE = 20 * 1024**2  # three parts of an upload
log = logging.getLogger(__name__)


class S3:
    """An S3 that knows one key, counts what is asked of it, and refuses what a test says."""

    def __init__(self) -> None:
        from werkzeug.serving import make_server  # noqa: PLC0415  # comes with moto

        self.asked: Counter[str] = Counter()
        self.refused: Callable[[str, str], bool] = lambda method, query: False
        self._app = moto.DomainDispatcherApplication(moto.create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> S3:  # noqa: PYI034  # typing.Self is of Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, query = environ["REQUEST_METHOD"], environ["QUERY_STRING"]
        is_signed = f"Credential={KEY}%2F" in query or f"AWSAccessKeyId={KEY}&" in query
        known = is_signed or f"Credential={KEY}/" in environ.get("HTTP_AUTHORIZATION", "")
        if not known or self.refused(method, query):
            start("403 Forbidden", [("Content-Type", "application/xml")])
            if method == "HEAD":
                return []
            return [b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>no</Message></Error>"]
        self.asked[f"signed {method}" if is_signed else method] += 1
        answer: Iterable[bytes] = self._app(environ, start)
        return answer


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An S3 with the bucket `media`, and the connection `s3_media` to it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with S3() as server:
        extra = {"endpoint_url": server.url, "region_name": "us-east-1"}
        fields = {"conn_type": "aws", "login": KEY, "password": SECRET, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_S3_MEDIA", json.dumps(fields))
        monkeypatch.setenv("AIRFLOW_CONN_S3_OTHER", json.dumps({**fields, "login": "AKIDOFSOMEBODY"}))
        from airflow.sdk.io import store  # noqa: PLC0415  # Airflow must find its home first

        store._STORE_CACHE.clear()
        fs().invalidate_cache()
        fs().mkdir("media")
        yield server
        fs().rm("media", recursive=True)
        store._STORE_CACHE.clear()


def fs() -> Any:
    """What we look at the bucket with."""
    return ObjectStoragePath("s3://media/", conn_id="s3_media").fs


def names() -> list[str]:
    """Every object of the bucket."""
    fs().invalidate_cache()
    return sorted(name.removeprefix("media/") for name in fs().find("media"))


def unfinished() -> list[Any]:
    """Uploads that were begun and neither finished nor given up."""
    return list(fs().call_s3("list_multipart_uploads", Bucket="media").get("Uploads", []))


@pytest.fixture
def source() -> Iterator[Hostile]:
    """A server of files of 20 MiB."""
    with served(SIZE) as server:
        yield server


def land(
    urls: list[str], text: str, conn_id: str | None = "s3_media", store: StateStore | None = None
) -> list[dict[str, Any]]:
    """The files, landed."""
    place = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": 0}
    media = {"id": "t1", "files": [{"kind": "audio", "url": url} for url in urls]}
    (document,) = storage.land(storage.made_of(media), Destination(text, place, conn_id), log, store=store)
    return list(document["files"])


def test_it_lands_and_running_it_again_changes_nothing(s3: S3, source: Hostile) -> None:
    """Small documents and large files, whole; the second time nothing is downloaded and nothing written."""
    urls = [f"{source.url}/{way}/{number}" for number, way in enumerate(("plain", "cut", "chunked"))]
    store = StateStore()
    landed = land(urls, "s3://media/films/", store=store)
    files = [f"films/dag/run/task/0-{number}.wav" for number in range(3)]
    assert names() == sorted([*files, *(f"{name}.json" for name in files)])
    for number, file in enumerate(landed):
        content = fs().cat_file(f"media/{files[number]}")
        assert content == source.content(number)
        assert file["path"] == f"s3://s3_media@media/{files[number]}"
        assert ObjectStoragePath(file["path"]).read_bytes() == content
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert json.loads(fs().cat_file(f"media/{files[number]}.json"))["files"] == [file]
    assert unfinished() == []

    asked, written = len(source.seen), (s3.asked["PUT"], s3.asked["POST"])
    assert land(urls, "s3://media/films/", store=store) == landed
    assert (len(source.seen), (s3.asked["PUT"], s3.asked["POST"])) == (asked, written)

    fs().rm_file(f"media/{files[1]}")
    fs().invalidate_cache()
    assert land(urls, "s3://media/films/", store=store) == landed
    assert {path for path, _ in source.seen[asked:]} == {"/cut/1"}


def test_the_connection_may_be_in_the_path(s3: S3, source: Hostile) -> None:
    """As everywhere in Airflow."""
    land([f"{source.url}/plain/1"], "s3://s3_media@media/one.wav", conn_id=None)
    assert names() == ["one.wav", "one.wav.json"]


def test_another_key_is_refused(s3: S3, source: Hostile) -> None:
    """The store's refusal is said with the destination, and no other credentials are tried."""
    with pytest.raises(MediaRequestError, match=r"s3://media/one\.wav' cannot be written: PermissionError"):
        land([f"{source.url}/plain/1"], "s3://media/one.wav", conn_id="s3_other")
    assert names() == []


def test_there_is_no_such_bucket(s3: S3, source: Hostile) -> None:
    """That is the destination's fault, not the provider's."""
    with pytest.raises(MediaRequestError, match="cannot be written: FileNotFoundError"):
        land([f"{source.url}/plain/1"], "s3://nowhere/one.wav")


@pytest.mark.parametrize("before", [False, True], ids=["new", "there was one before"])
@pytest.mark.parametrize(
    "refused",
    [
        lambda method, query: method == "PUT" and "partNumber=2" in query,
        lambda method, query: method == "POST" and "uploadId=" in query,
    ],
    ids=["a part", "the end"],
)
def test_an_upload_that_breaks_leaves_nothing(
    s3: S3, source: Hostile, refused: Callable[[str, str], bool], before: bool
) -> None:
    """Neither an object nor parts that one pays for; what was there before stays as it is."""
    if before:
        land([f"{source.url}/plain/1"], "s3://media/one.wav")
    s3.refused = refused
    with pytest.raises(MediaTaskError, match="cannot be written"):
        land([f"{source.url}/plain/2"], "s3://media/one.wav") if not before else _replace(source)
    assert unfinished() == []
    assert names() == (["one.wav", "one.wav.json"] if before else [])
    if before:
        assert fs().cat_file("media/one.wav") == source.content(1)
    s3.refused = lambda method, query: False
    (file,) = land([f"{source.url}/plain/1"], "s3://media/one.wav")
    assert fs().cat_file("media/one.wav") == source.content(1)
    assert file["size"] == SIZE


def _replace(source: Hostile) -> None:
    place = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": 0}
    media = {"id": "t2", "files": [{"kind": "audio", "url": f"{source.url}/plain/2"}]}
    storage.land(storage.made_of(media), Destination("s3://media/one.wav", place, "s3_media"), log)


def test_a_download_that_breaks_writes_nothing(
    s3: S3, source: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store hears of a file when it is whole."""
    monkeypatch.setattr("airflow_media_tasks.landing.downloads.RETRY_WAIT", 0.0)
    with pytest.raises(MediaTaskError, match="broke"):
        land([f"{source.url}/alwayscut/1"], "s3://media/one.wav")
    assert source.times["/alwayscut/1"] == ATTEMPTS
    assert s3.asked["POST"] == 0
    assert names() == []


def test_the_operators_land_in_s3(
    s3: S3, sim: Simulator, connect: Callable[..., str], complete: Callable[[Any], Any]
) -> None:
    """The one that makes, and the one that only lands."""
    image = GenerateImageOperator(
        task_id="image",
        media_conn_id=connect("vap"),
        prompt="fox [sim:seconds=0.1] [sim:queued=0]",
        poll_interval=0.1,
        save_to="s3://s3_media@media/made/",
    )
    result = complete(image)
    download = DownloadMediaOperator(
        task_id="land",
        media=result,
        destination="s3://media/landed/{index}{ext}",
        destination_conn_id="s3_media",
    )
    landed = complete(download)
    assert result["path"] == "s3://s3_media@media/made/dag/run/task/0-0.png"
    assert landed["path"] == "s3://s3_media@media/landed/0.png"
    assert landed["files"][0]["sha256"] == result["files"][0]["sha256"]
    assert fs().cat_file("media/made/dag/run/task/0-0.png") == fs().cat_file("media/landed/0.png")
    assert len(sim.ledger()) == 1


def test_an_alias_gets_the_objects_without_the_connection(
    s3: S3, source: Hostile, context: dict[str, Any], complete: Callable[[Any], Any]
) -> None:
    """An asset is the same, whoever reads it with whatever connection."""
    context["outlet_events"] = events = OutletEventAccessors()
    alias = AssetAlias("made")
    destination = "s3://s3_media@media/films/one.wav"
    complete(
        DownloadMediaOperator(
            task_id="land", media=f"{source.url}/plain/1", destination=destination, outlets=[alias]
        )
    )
    (event,) = events[alias].asset_alias_events
    assert event.dest_asset_key.uri == "s3://media/films/one.wav"
    assert event.extra["files"][0]["path"] == destination


def test_no_part_stays_on_the_worker(
    s3: S3, source: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the file that was uploaded."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    land([f"{source.url}/plain/1"], "s3://media/one.wav")
    assert list(tmp_path.iterdir()) == []
