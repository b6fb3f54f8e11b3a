"""Files of one's own as input: from a real S3 and from a disk, to every provider that the simulator plays."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import random
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from airflow.sdk.exceptions import TaskDeferred
from PIL import Image

from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.material import inputs, materials
from airflow_media_tasks.material.materials import Materials
from airflow_media_tasks.operators import (
    DownloadMediaOperator,
    GenerateImageOperator,
    GenerateMediaBatchOperator,
    GenerateVideoOperator,
)
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import MediaRequestError, MediaTaskError, SubmissionOutcomeUnknown
from airflow_media_tasks.wire import finding

from .conftest import FinishedRun, StateStore
from .place import FROM_PICTURE, Clock, Place
from .test_storage_s3 import KEY, S3, SECRET, fs, pytestmark, s3
from .test_verification import sample


__all__ = ["pytestmark", "s3"]

Connect = Callable[..., str]
Complete = Callable[[Any], Any]

QUICK = "[sim:seconds=0.1] [sim:queued=0]"
EVERYBODY = tuple(FROM_PICTURE)
UNMARKED = ("vap", "replicate", "fal")
BY_UPLOAD = ("replicate", "fal")
IN_S3 = "s3://s3_media@media/in/fox.png"
log = logging.getLogger(__name__)


def picture(seed: int = 1, side: int = 320, form: str = "PNG") -> bytes:
    """A picture of noise, which does not compress: of 320 px some 300 kB."""
    noise = random.Random(seed).randbytes(side * side * 3)  # noqa: S311  # the same in each run
    stream = io.BytesIO()
    Image.frombytes("RGB", (side, side), noise).save(stream, form)
    return stream.getvalue()


PICTURE = picture()
SMALL = picture(side=40)
"""Small enough for a request, by every provider's word."""


def sha256(content: bytes) -> str:
    """In hex."""
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of the disk whose files may be handed over; so may those of the bucket."""
    folder = tmp_path / "in"
    folder.mkdir()
    allow(monkeypatch, f"file://{folder}", "s3://s3_media@media/in")
    return folder


def allow(monkeypatch: pytest.MonkeyPatch, *prefixes: str) -> None:
    """What `allowed_inputs` says."""
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__ALLOWED_INPUTS", ", ".join(prefixes))


def put(content: bytes, name: str = "in/fox.png") -> str:
    """An object of the bucket; its path."""
    fs().pipe_file(f"media/{name}", content)
    return f"s3://s3_media@media/{name}"


def film(connection: str, image_url: Any, **changes: Any) -> GenerateVideoOperator:
    """A film from a picture."""
    usual: dict[str, Any] = {
        "task_id": "film",
        "media_conn_id": connection,
        "prompt": f"a fox {QUICK}",
        "image_url": image_url,
        "poll_interval": 0.1,
    }
    return GenerateVideoOperator(**{**usual, **changes})


def arrived(sim: Simulator) -> list[tuple[str, str]]:
    """How each file came to the provider, and its hash."""
    return [(one["way"], one["sha256"]) for one in sim.received()]


def again(context: Any, *, cleared: bool = False) -> None:
    """The next try."""
    context["ti"].try_number += 1
    context["ti"].max_tries += cleared


def submitted(operator: Any, context: Any) -> None:
    """Runs *operator* until it waits."""
    with pytest.raises(TaskDeferred):
        operator.execute(context)


# The ways, for every provider.


@pytest.mark.parametrize("conn_type", EVERYBODY)
def test_a_picture_in_s3_goes_by_a_presigned_address(
    conn_type: str,
    s3: S3,
    inside: Path,
    sim: Simulator,
    connect: Connect,
    complete: Complete,
    context: Any,
    shared_store: StateStore,
    tmp_path: Path,
) -> None:
    """The provider fetches the bytes; of the address nothing is kept, shown or passed on."""
    path = put(PICTURE)
    connect(conn_type)
    with structlog.testing.capture_logs() as lines:
        result = complete(film(f"{conn_type}_default", path, save_to=f"file://{tmp_path}/out/"))
    logged = str(lines)
    assert arrived(sim) == [("url", sha256(PICTURE))]
    assert "ignature=" in json.dumps(sim.ledger()), "the provider has it"
    beside = Path(f"{result['path'].removeprefix('file://')}.json").read_text()
    kept = json.dumps([result, context["pushed"], context["task_state_store"], dict(shared_store)])
    for text in (kept, beside, logged):
        assert "ignature" not in text
        assert SECRET not in text
    assert result["arguments"]["image_url"] == path
    known = {"path": path, "sha256": sha256(PICTURE), "size": len(PICTURE), "content_type": "image/png"}
    assert result["material"] == [{**known, "way": "url"}]
    assert json.loads(beside)["material"] == result["material"]
    assert path in logged
    assert sha256(PICTURE) in logged
    assert "fox.png" not in json.dumps(dict(shared_store))


@pytest.mark.parametrize(
    ("conn_type", "content", "way"),
    [
        ("kling", PICTURE, "inline"),
        ("replicate", SMALL, "inline"),
        ("replicate", PICTURE, "upload"),
        ("fal", SMALL, "inline"),
        ("fal", PICTURE, "upload"),
    ],
)
def test_a_picture_on_a_disk_goes_in_the_request_or_by_an_upload(
    conn_type: str,
    content: bytes,
    way: str,
    inside: Path,
    sim: Simulator,
    connect: Connect,
    complete: Complete,
    context: Any,
) -> None:
    """Too large for one way, it goes another; neither the bytes nor where they are there is kept."""
    (inside / "fox.png").write_bytes(content)
    connect(conn_type)
    with structlog.testing.capture_logs() as lines:
        result = complete(film(f"{conn_type}_default", f"file://{inside}/fox.png"))
    assert arrived(sim) == [(way, sha256(content))]
    assert result["material"][0]["way"] == way
    assert "not by a presigned address: a local file has no address" in str(lines)
    kept = json.dumps([result, context["pushed"], context["task_state_store"]]) + str(lines)
    assert "base64," not in kept
    assert "/files/" not in kept


@pytest.mark.parametrize("conn_type", ["vap", "acedata"])
def test_what_goes_no_way_is_said_with_all_ways(
    conn_type: str, inside: Path, sim: Simulator, connect: Connect, complete: Complete, context: Any
) -> None:
    """A provider that takes addresses alone gets no file of a disk; nothing is written or sent."""
    (inside / "fox.png").write_bytes(PICTURE)
    connect(conn_type)
    with pytest.raises(MediaRequestError, match=r"cannot be handed to \w+\. by a presigned address: a local"):
        complete(film(f"{conn_type}_default", f"file://{inside}/fox.png"))
    assert sim.requests() == {}
    assert "media_task" not in context["task_state_store"]


def test_the_connection_may_prefer_another_way(
    s3: S3, inside: Path, sim: Simulator, connect: Connect, complete: Complete
) -> None:
    """Who does not want to sign addresses, uploads."""
    connect("replicate", extra={"material": "upload"})
    complete(film("replicate_default", put(SMALL)))
    assert arrived(sim) == [("upload", sha256(SMALL))]


def test_films_sounds_and_lists_go_as_well(
    s3: S3, inside: Path, sim: Simulator, connect: Connect, context: Any, tmp_path: Path
) -> None:
    """Whatever is an address of a file takes a path, also one of several."""
    movie, song = sample("video/mp4", tmp_path), sample("audio/mpeg", tmp_path)
    paths = [put(movie, "in/a.mp4"), put(song, "in/b.mp3")]
    connect("kling")
    arguments = {"video_url": paths[0], "audio_url": paths[1]}
    submitted(film("kling_default", None, prompt=None, operation="lip_sync", arguments=arguments), context)
    assert sorted(arrived(sim)) == sorted([("url", sha256(movie)), ("url", sha256(song))])
    sim.reset()
    connect("vap")
    arguments = {"video_urls": [paths[0], paths[0]]}
    context["task_state_store"].clear()
    submitted(film("vap_default", None, prompt=None, operation="merge_videos", arguments=arguments), context)
    assert arrived(sim) == [("url", sha256(movie))] * 2


def test_a_private_address_is_for_a_private_provider(
    s3: S3, inside: Path, sim: Simulator, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """A provider on the internet cannot fetch from our own network: it goes another way, and that is said."""
    path = put(PICTURE)
    hook = get_media_hook(connect("kling", host="https://1.1.1.1"))
    own = Materials(hook, log, 60.0)
    with own, caplog.at_level(logging.INFO):
        handed = own.hand_over("image_to_video", {"image_url": path})
    assert [one["way"] for one in handed.told] == ["inline"]
    assert "'127.0.0.1' is no address of the internet" in caplog.text


def test_an_address_outlives_the_task_or_is_not_signed(
    s3: S3,
    inside: Path,
    sim: Simulator,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The credentials of a role end sooner than the address that they have signed."""
    path = put(PICTURE)
    fields = json.loads(os.environ["AIRFLOW_CONN_S3_MEDIA"])
    fields["extra"]["aws_session_token"] = "a-session"
    monkeypatch.setenv("AIRFLOW_CONN_S3_ROLE", json.dumps(fields))
    allow(monkeypatch, "s3://s3_media@media", "s3://s3_role@media")
    hook = get_media_hook(connect("kling"))
    with Materials(hook, log, 60.0) as own, caplog.at_level(logging.INFO):
        handed = own.hand_over("image_to_video", {"image_url": path.replace("s3_media", "s3_role")})
    assert [one["way"] for one in handed.told] == ["inline"]
    assert "credentials are temporary and good for an unknown time" in caplog.text
    with Materials(hook, log, 8 * 86_400.0) as own:
        handed = own.hand_over("image_to_video", {"image_url": path})
    assert [one["way"] for one in handed.told] == ["inline"]


# The same picture, another one, none.


LONG = "a fox [sim:seconds=600]"


def test_a_picture_that_is_signed_anew_is_the_same(
    s3: S3, inside: Path, sim: Simulator, connect: Connect, context: Any
) -> None:
    """A retry, and a clear while it runs, wait for what was paid; and the picture is not read again."""
    path = put(PICTURE)
    connect("vap")
    before = s3.asked["GET"]
    submitted(film("vap_default", path, prompt=LONG), context)
    for cleared in (False, True):
        again(context, cleared=cleared)
        submitted(film("vap_default", path, prompt=LONG), context)
    assert len(sim.ledger()) == 1
    assert s3.asked["GET"] - before == 1


def test_the_same_picture_elsewhere_is_the_same_request(
    s3: S3, inside: Path, sim: Simulator, connect: Connect, context: Any
) -> None:
    """What counts is the content."""
    connect("kling")
    submitted(film("kling_default", put(PICTURE), prompt=LONG), context)
    (inside / "fox.png").write_bytes(PICTURE)
    again(context)
    submitted(film("kling_default", f"file://{inside}/fox.png", prompt=LONG), context)
    assert len(sim.ledger()) == 1


def test_a_changed_picture_is_another_request(
    s3: S3, inside: Path, sim: Simulator, connect: Connect, context: Any
) -> None:
    """Under the same path: it is made, and paid, once more."""
    connect("vap")
    for seed in (1, 2):
        submitted(film("vap_default", put(picture(seed)), prompt=LONG), context)
        again(context)
    assert [digest for _, digest in arrived(sim)] == [sha256(picture(1)), sha256(picture(2))]


def test_a_picture_that_is_gone(s3: S3, inside: Path, sim: Simulator, connect: Connect, context: Any) -> None:
    """It is an error before anything is written; but what was paid with it is waited for."""
    connect("vap")
    with pytest.raises(MediaRequestError, match=r"fox\.png' cannot be read: there is no such file"):
        film("vap_default", IN_S3).execute(context)
    assert sim.requests() == {}
    assert "media_task" not in context["task_state_store"]
    submitted(film("vap_default", put(PICTURE), prompt=LONG), context)
    fs().rm_file("media/in/fox.png")
    again(context)
    submitted(film("vap_default", IN_S3, prompt=LONG), context)
    assert len(sim.ledger()) == 1
    sim.advance(601)
    again(context, cleared=True)
    context["task_state_store"]["media_task"]["phase"] = "finished"
    with pytest.raises(MediaRequestError, match="there is no such file"):
        film("vap_default", IN_S3, prompt=LONG).execute(context)
    assert len(sim.ledger()) == 1


def test_a_bucket_that_may_not_be_read(
    s3: S3, inside: Path, sim: Simulator, connect: Connect, context: Any
) -> None:
    """That is said with what is needed."""
    path = put(PICTURE)
    s3.refused = lambda method, query: method in ("HEAD", "GET")
    connect("vap")
    with pytest.raises(MediaRequestError, match=r"cannot be read: .*need the permission to read it"):
        film("vap_default", path).execute(context)
    s3.refused = lambda method, query: False
    assert sim.requests() == {}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (picture(side=200), "200 x 200 px, and each side must have 300 or more"),
        (picture(form="WEBP"), "is image/webp, and image/jpeg, image/png are taken"),
        (picture(side=1900), r"has \d{8} bytes, and at most 10000000 are taken"),
    ],
    ids=["pixels", "type", "bytes"],
)
def test_what_a_provider_does_not_take_is_refused_before_it_is_paid_for(
    content: bytes, says: str, inside: Path, sim: Simulator, connect: Connect, context: Any
) -> None:
    """Its limits are known; a refusal after the submission would cost a try."""
    (inside / "fox.png").write_bytes(content)
    connect("kling")
    with pytest.raises(MediaRequestError, match=says):
        film("kling_default", f"file://{inside}/fox.png").execute(context)
    assert sim.requests() == {}


# What may leave.


@pytest.mark.parametrize("conn_type", EVERYBODY)
def test_only_pictures_films_and_sounds_leave(
    conn_type: str, inside: Path, sim: Simulator, connect: Connect, context: Any, tmp_path: Path
) -> None:
    """By their bytes, whatever they are called; what is in a refused one is not shown."""
    connect(conn_type)
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'>very secret</svg>"
    for content in (
        b"very secret",
        svg,
        PICTURE[:5000],
        b"\x89PNG\r\n\x1a\n very secret",
        b"PK\x03\x04 very secret",
    ):
        (inside / "fox.png").write_bytes(content)
        with pytest.raises(MediaRequestError, match=r"not handed over|is by its bytes no picture") as refused:
            film(f"{conn_type}_default", f"file://{inside}/fox.png").execute(context)
        assert "secret" not in str(refused.value)
    (inside / "fox.png").write_bytes(sample("audio/mpeg", tmp_path))
    with pytest.raises(MediaRequestError, match="must be a picture, and is audio/mpeg"):
        film(f"{conn_type}_default", f"file://{inside}/fox.png").execute(context)
    assert sim.requests() == {}


@pytest.mark.parametrize("conn_type", EVERYBODY)
def test_what_may_not_leave_is_refused(
    conn_type: str,
    s3: S3,
    sim: Simulator,
    connect: Connect,
    context: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside the prefixes nothing: no `..`, link, other connection, beginning of a name, or chain."""
    folder, outside = tmp_path / "in", tmp_path / "inner"
    for each in (folder, outside):
        each.mkdir()
        (each / "fox.png").write_bytes(PICTURE)
    (folder / "link.png").symlink_to(outside / "fox.png")
    (folder / "folder").symlink_to(outside)
    put(PICTURE)
    put(PICTURE, "inner/fox.png")
    allow(monkeypatch, f"file://{folder}", "s3://s3_media@media/in")
    connect(conn_type)
    for path in (
        f"file://{outside}/fox.png",
        f"{outside}/fox.png",
        f"file://{folder}/../inner/fox.png",
        f"file://{folder}/link.png",
        f"file://{folder}/folder/fox.png",
        f"local://{outside}/fox.png",
        "file:///etc/passwd",
        "s3://s3_media@media/inner/fox.png",
        "s3://s3_media@media/in/../inner/fox.png",
        "s3://s3_other@media/in/fox.png",
        "s3://media/in/fox.png",
        "s3://s3_media@other/in/fox.png",
        "gs://media/in/fox.png",
        "memory://fox.png",
        f"simplecache::file://{folder}/fox.png",
    ):
        asked = dict(s3.asked)
        with pytest.raises(MediaRequestError):
            film(f"{conn_type}_default", path).execute(context)
        assert dict(s3.asked) == asked, path
    assert sim.requests() == {}
    submitted(film(f"{conn_type}_default", IN_S3, prompt=LONG), context)


def test_without_a_setting_stores_without_a_connection_may_be_read(
    s3: S3, sim: Simulator, connect: Connect, context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the worker's own credentials; a disk and other connections have to be named."""
    put(PICTURE)
    (tmp_path / "fox.png").write_bytes(PICTURE)
    connect("vap")
    for path in (f"file://{tmp_path}/fox.png", IN_S3):
        with pytest.raises(
            MediaRequestError, match=r"allowed_inputs, unless .* the prefix .* would allow it"
        ):
            film("vap_default", path).execute(context)
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": s3.url,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    submitted(film("vap_default", "s3://media/in/fox.png", prompt=LONG), context)
    assert arrived(sim) == [("url", sha256(PICTURE))]


def test_a_setting_that_makes_no_sense_lets_nothing_leave(
    inside: Path, sim: Simulator, connect: Connect, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slip in it is an error, and not an empty list."""
    allow(monkeypatch, "products/in")
    connect("vap")
    with pytest.raises(MediaRequestError, match=r"allowed_inputs: 'products/in' is no place"):
        film("vap_default", f"file://{inside}/fox.png").execute(context)


@pytest.mark.parametrize("lands", ["generates", "downloads"])
def test_what_a_task_has_landed_may_be_handed_on(
    lands: str, sim: Simulator, connect: Connect, complete: Complete, context: Any, tmp_path: Path
) -> None:
    """`image_url=x.output["path"]`, an XCom of its own, needs no setting for the very file that landed."""
    connect("kling")
    where = f"file://{tmp_path}/out/"
    still = {
        "task_id": "still",
        "media_conn_id": "kling_default",
        "prompt": f"a fox {QUICK}",
        "poll_interval": 0.1,
    }
    made = complete(GenerateImageOperator(**still, save_to=where if lands == "generates" else None))
    if lands == "downloads":
        made = complete(DownloadMediaOperator(task_id="land", media=made, destination=where))
    assert context["pushed"]["path"] == made["path"]
    assert context["pushed"]["paths"] == made["paths"]
    context["task_state_store"].clear()
    context["ti"].task_id = "film"
    complete(film("kling_default", made["path"]))
    assert arrived(sim) == [("inline", made["files"][0]["sha256"])]

    context["task_state_store"].clear()
    Path(made["path"].removeprefix("file://")).write_bytes(PICTURE)
    with pytest.raises(MediaRequestError, match="not what our task has landed there"):
        film("kling_default", made["path"]).execute(context)


# A batch.


def test_a_batch_reads_one_picture_once(
    s3: S3, inside: Path, sim: Simulator, connect: Connect, complete: Complete
) -> None:
    """A hundred requests with the same one: it is read once, and signed once."""
    path = put(PICTURE)
    connect("vap")
    requests = [{"prompt": f"fox {number} {QUICK}", "image_url": path} for number in range(100)]
    before = s3.asked["GET"]
    manifest = complete(
        GenerateMediaBatchOperator(
            task_id="films",
            requests=requests,
            operation="image_to_video",
            media_conn_id="vap_default",
            results=f"file://{inside}/results.jsonl",
            poll_interval=0.1,
        )
    )
    assert manifest["succeeded"] == 100
    assert arrived(sim) == [("url", sha256(PICTURE))] * 100
    assert s3.asked["GET"] - before == 1
    text = (inside / "results.jsonl").read_text()
    first = json.loads(text.splitlines()[0])
    assert first["material"] == [
        {"path": path, "sha256": sha256(PICTURE), "size": len(PICTURE), "content_type": "image/png"}
    ]
    assert "ignature" not in text


def test_a_batch_uploads_one_picture_once(
    inside: Path, sim: Simulator, connect: Connect, complete: Complete
) -> None:
    """And names the requests whose picture is none, before the first is sent."""
    (inside / "fox.png").write_bytes(PICTURE)
    connect("fal")
    requests = [
        {"prompt": f"fox {number} {QUICK}", "image_url": f"file://{inside}/fox.png"} for number in range(9)
    ]

    def batch(requests: Any) -> GenerateMediaBatchOperator:
        return GenerateMediaBatchOperator(
            task_id="films",
            requests=requests,
            operation="image_to_video",
            media_conn_id="fal_default",
            results=f"file://{inside}/results.jsonl",
            poll_interval=0.1,
        )

    bad = [*requests, {"prompt": "x", "image_url": f"file://{inside}/hare.png"}]
    with pytest.raises(MediaRequestError, match=r"1 of 10 requests cannot be sent[\s\S]*hare\.png"):
        complete(batch(bad))
    assert sim.requests() == {}
    assert complete(batch(requests))["succeeded"] == 9
    assert arrived(sim) == [("upload", sha256(PICTURE))] * 9
    assert sim.requests()["POST /fal/cdn/files/upload"] == 1


# Replies that are lost, workers that are killed.


@pytest.fixture
def clock(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Nothing really sleeps."""
    clock = Clock.instead_of_time(sim, monkeypatch)
    monkeypatch.setattr(finding, "time", clock)
    return clock


PROVEN = (60.0, 3700.0)
"""Seconds after which a list is proof; at fal it takes an hour, at Replicate what was made is gone then."""
LOSES = " [sim:lose-reply*1]"
LOST = [(conn_type, "url") for conn_type in EVERYBODY] + [
    (conn_type, way) for conn_type in BY_UPLOAD for way in ("inline", "upload")
]


@pytest.fixture(params=LOST, ids="-".join)
def place(request: pytest.FixtureRequest, s3: S3, inside: Path, connect: Connect, clock: Clock) -> Place:
    """A task with a picture, at each provider and by each way, and one with another picture."""
    conn_type, way = request.param
    connect(conn_type, extra={"material": way})
    small = way == "inline"
    put(picture(1, side=40 if small else 320))
    put(picture(2, side=40 if small else 320), "in/hare.png")
    other = Place(conn_type, f"{conn_type}_default")
    other.operation = FROM_PICTURE[conn_type]
    words = "a fox [sim:queued=0] [sim:seconds=1]" + LOSES
    other.arguments = {
        "prompt": words.replace(LOSES, ""),
        "image_url": "s3://s3_media@media/in/hare.png",
    }
    place = Place(conn_type, f"{conn_type}_default")
    place.operation = FROM_PICTURE[conn_type]
    place.arguments = {"prompt": words, "image_url": IN_S3}
    place.more["other"] = other
    return place


def test_a_lost_reply_is_found_by_the_picture(place: Place, sim: Simulator) -> None:
    """In the same try, by what a list shows and not by the signature; it is paid once."""
    task = place.run()
    (paid,) = sim.ledger()
    assert task.id.endswith(paid["id"])


def test_a_killed_worker_leaves_a_task_that_is_found_by_its_picture(
    place: Place, sim: Simulator, clock: Clock
) -> None:
    """The next try signs, encodes or uploads nothing, and adopts what was accepted; also after a clear."""
    place.arguments["prompt"] = place.arguments["prompt"].replace(LOSES, "")
    place.run_and_die("before_result")
    clock.sleep(5)
    place.clear(keep=False)
    place.store.value = None
    task = place.run()
    (paid,) = sim.ledger()
    assert task.id.endswith(paid["id"])


def test_a_worker_killed_between_the_upload_and_the_submission(
    place: Place, sim: Simulator, clock: Clock
) -> None:
    """Another picture with the same words is not taken for it; what was never accepted is paid once."""
    place.arguments["prompt"] = place.arguments["prompt"].replace(LOSES, "")
    place.run_and_die("after_intent")
    other = place.more["other"].run()
    clock.sleep(PROVEN["fal" in place.media_conn_id])
    task = place.run()
    assert task.id != other.id
    assert len(sim.ledger()) == 2
    assert len({digest for _, digest in arrived(sim)}) == 2


@pytest.mark.parametrize("conn_type", UNMARKED)
def test_where_a_list_shows_another_address_it_is_the_question(
    conn_type: str,
    s3: S3,
    inside: Path,
    sim: Simulator,
    connect: Connect,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A provider may show where it has put a copy: then nobody can compare, and nothing is sent again."""
    put(PICTURE)
    place = Place(conn_type, connect(conn_type))
    place.operation = FROM_PICTURE[conn_type]
    place.arguments = {"prompt": "a fox [sim:queued=0] [sim:seconds=1]", "image_url": IN_S3}
    place.run_and_die("before_result")
    clock.sleep(5)

    def copied(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: copied(value) for key, value in node.items()}
        return "https://cdn.example.com/copy.png" if isinstance(node, str) and "ignature" in node else node

    (task,) = sim._world.tasks.values()
    task.request = copied(task.request)
    clock.sleep(PROVEN[conn_type == "fal"])
    with pytest.raises(SubmissionOutcomeUnknown, match="does not show what it was made from"):
        place.run()
    assert len(sim.ledger()) == 1


# What is remembered.


def test_what_others_write_of_a_file_is_not_believed(
    s3: S3, inside: Path, sim: Simulator, connect: Connect, context: Any
) -> None:
    """What is no fact of ours is read again."""
    path = put(PICTURE)
    connect("vap")
    for nonsense in ("x", {path: "x"}, {path: {"sha256": "x"}}, {path: {"version": "v", "sha256": 5}}):
        context["task_state_store"][materials.KEY] = nonsense
        hook = get_media_hook("vap_default")
        with Materials(hook, log, 60.0, context["task_state_store"]) as own:
            assert own.told({"image_url": path})[0]["sha256"] == sha256(PICTURE)


def test_nothing_stays_on_the_disk_of_the_worker(
    s3: S3,
    inside: Path,
    sim: Simulator,
    connect: Connect,
    context: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was copied to be looked at is gone when the task waits."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    connect("vap")
    submitted(film("vap_default", put(PICTURE), prompt=LONG), context)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_store_that_is_down_is_tried_again(
    s3: S3, inside: Path, sim: Simulator, connect: Connect, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is nothing that the next try would meet, too."""
    path = put(PICTURE)

    def down(self: Any) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr(inputs.Input, "_store", property(down))
    connect("vap")
    with pytest.raises(MediaTaskError, match="no route") as trouble:
        film("vap_default", path).execute(context)
    assert not isinstance(trouble.value, MediaRequestError)
    assert trouble.value.code == "storage"


# The example.


def test_the_example_makes_films_of_the_pictures_in_a_bucket(
    s3: S3,
    inside: Path,
    sim: Simulator,
    connect: Connect,
    run_dag: Callable[[Any], FinishedRun],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """In a real run: one film for each, of the very bytes, with no signature in what Airflow keeps."""
    pictures = {name: picture(seed) for seed, name in enumerate(("fox", "hare"))}
    for name, content in pictures.items():
        put(content, f"in/{name}.png")
    connect("kling")
    monkeypatch.setenv("MEDIA_INPUT", "s3://s3_media@media/in")
    monkeypatch.setenv("MEDIA_OUTPUT", f"file://{tmp_path}/out")
    example = runpy.run_path(str(Path(__file__).parent.parent / "example_dags" / "example_own_pictures.py"))
    run = run_dag(example["example_own_pictures"]())
    assert run.state == "success"
    assert sorted(arrived(sim)) == sorted(("url", sha256(content)) for content in pictures.values())
    results = [run.xcom("film", number) for number in range(2)]
    assert {Path(result["path"]).name for result in results} == {"fox.mp4", "hare.mp4"}
    assert "ignature" not in json.dumps(results)
