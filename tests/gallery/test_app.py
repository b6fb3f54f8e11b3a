"""Who gets what of the page's routes, whatever anybody has written into XComs, records, results, folders."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.models.dag import DagModel

from airflow_media_tasks.gallery import app, files, items, schema

from .airflow import RESULT, Airflow, landed


FILM = bytes(range(256)) * 4096
DEEP: Any = "x"
for _ in range(100):
    DEEP = {"a": DEEP}
MANIFEST = {"results": "/nowhere/batch.jsonl", "total": 3, "succeeded": 2, "failed": 1, "cost": []}


# What is sent.


def test_what_has_landed_in_a_root_is_sent(airflow: Airflow, root: Path) -> None:
    """At the address that the item names: with its type, its bytes, and to be asked for anew each time."""
    airflow.add("r1", {**RESULT, "files": [landed(root / "a/film.mp4", FILM)]})
    (file,) = airflow.item("r1")["files"]
    assert hashlib.sha256(FILM).hexdigest() in file["src"]
    assert "media" not in file["src"].replace("media-tasks", "")
    reply = airflow.get(file["src"])
    assert (reply.status_code, reply.content) == (200, FILM)
    assert reply.headers["content-type"] == "video/mp4"
    assert reply.headers["cache-control"] == "private, no-cache"
    again = airflow.get(file["src"], headers={"If-None-Match": reply.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    part = airflow.get(file["src"], headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, FILM[10:20])


def test_without_a_root_nothing_is_sent_and_the_page_says_what_to_set(
    airflow: Airflow, tmp_path: Path
) -> None:
    """The provider's address is shown while it lasts, and the line names where the items have landed."""
    for run in ("r1", "r2"):
        place = tmp_path / "media" / "films" / run / "video"
        airflow.add(run, {**RESULT, "files": [landed(place / "0-0.mp4", FILM)]})
    page = airflow.get("api/items").json()
    assert page["setting"] == f"gallery_roots = file://{tmp_path}/media"
    for item in page["items"]:
        (file,) = item["files"]
        assert (file["src"], file["landed"]) == ("https://cdn.example/film.mp4", True)
        assert "gallery_roots" in file["why"]
        assert airflow.get("file", item["run_id"], n=0).status_code == 404
    assert airflow.item("r1")["setting"] == page["setting"]


@pytest.mark.parametrize("how", ["path", "up", "link", "folder link", "another's", "store"])
def test_no_item_makes_the_server_send_what_is_in_no_root(
    airflow: Airflow, root: Path, tmp_path: Path, how: str
) -> None:
    """Not by its path, nor by a link that somebody has put into the folder, although it knows the content."""
    secret = landed(tmp_path / "media-of-others/secret.mp4", b"the secret")
    link = root / "link.mp4"
    if how == "link":
        link.symlink_to(tmp_path / "media-of-others/secret.mp4")
    elif how == "folder link":
        (root / "down").symlink_to(tmp_path / "media-of-others")
    path = {
        "path": secret["path"],
        "up": f"file://{root}/../media-of-others/secret.mp4",
        "link": f"file://{link}",
        "folder link": f"file://{root}/down/secret.mp4",
        "another's": f"s3://other@bucket{secret['path'].removeprefix('file://')}",
        "store": f"simplecache::{secret['path']}",
    }[how]
    airflow.add("r1", {**RESULT, "files": [{**secret, "path": path}]})
    reply = airflow.get("file", "r1", n=0)
    assert reply.status_code == 404
    assert b"secret" not in reply.content


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "0" * 64},
        {"sha256": None},
        {"size": len(FILM) - 1},
        {"size": None},
        {"sha256": None, "ends_sha256": hashlib.sha256(FILM).hexdigest()},
    ],
)
def test_who_does_not_know_the_content_cannot_name_it(
    airflow: Airflow, root: Path, change: dict[str, Any]
) -> None:
    """The file of another task in the same root is of no use to who cannot read it already."""
    film = landed(root / "others/film.mp4", FILM)
    airflow.add("r1", {**RESULT, "files": [{**film, **change}]})
    assert airflow.get("file", "r1", n=0).status_code == 404


def test_what_has_changed_since_it_landed_is_not_sent(airflow: Airflow, root: Path) -> None:
    """Also where it was sent a moment before, and has kept its length and its time."""
    path = root / "film.mp4"
    film = landed(path, FILM)
    airflow.add("r1", {**RESULT, "files": [film]})
    assert airflow.get("file", "r1", n=0).status_code == 200
    times = path.stat()
    path.write_bytes(FILM[:-1] + b"!")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    reply = airflow.get("file", "r1", n=0)
    assert reply.status_code == 404
    assert "not any more what it was" in reply.json()["detail"]


def test_a_file_is_addressed_by_its_content(airflow: Airflow, root: Path) -> None:
    """After a clear the old address has nothing, rather than another film that a browser takes for this."""
    airflow.add("r1", {**RESULT, "files": [landed(root / "film.mp4", FILM)]})
    before = airflow.item("r1")["files"][0]["src"]
    airflow.add("r1", {**RESULT, "files": [landed(root / "film.mp4", FILM + b"another")]}, try_number=2)
    after = airflow.item("r1")["files"][0]["src"]
    assert before != after
    assert airflow.get(before).status_code == 404
    assert airflow.get(after).content == FILM + b"another"


@pytest.mark.parametrize(
    "asked", ["bytes=0-" + "9" * 5000, "bytes=" + "9" * 5000 + "-", "bytes=-" + "9" * 5000]
)
def test_a_range_of_thousands_of_digits_is_refused(airflow: Airflow, root: Path, asked: str) -> None:
    """416, as any range that is not there."""
    airflow.add("r1", {**RESULT, "files": [landed(root / "film.mp4", FILM)]})
    assert airflow.get("file", "r1", n=0, headers={"Range": asked}).status_code == 416


def test_a_file_that_nobody_has_checked_says_why(airflow: Airflow, root: Path) -> None:
    """In the words of who landed it."""
    said = "not checked: nothing here decodes video/x-ms-wmv"
    airflow.add("r1", {**RESULT, "files": [landed(root / "film.wmv", FILM, checked=said)]})
    assert airflow.item("r1")["files"][0]["checked"] == said


# Batches.


def batch(root: Path, lines: list[Any], **more: Any) -> dict[str, Any]:
    """The manifest of a batch whose results are *lines*."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path = root / "batch.jsonl"
    path.write_text(text)
    told = {"results_sha256": hashlib.sha256(text.encode()).hexdigest(), "results_size": len(text.encode())}
    return {**MANIFEST, "results": f"file://{path}", "total": len(lines), **told, **more}


def test_a_batch_shows_its_requests_and_sends_their_files(airflow: Airflow, root: Path) -> None:
    """Each request by its number, from the results that the manifest knows."""
    film = landed(root / "film.mp4", FILM)
    lines = [
        {"number": number, "arguments": {"prompt": f"film {number}"}, "files": [film]} for number in range(70)
    ]
    airflow.add("r1", batch(root, lines))
    whole = airflow.item("r1")
    assert [one["number"] for one in whole["batch"]["items"]] == list(range(60))
    assert len(airflow.item("r1", offset=60)["batch"]["items"]) == 10
    one = airflow.item("r1", number=65)
    assert one["prompt"] == "film 65"
    assert airflow.get(one["files"][0]["src"]).content == FILM
    assert airflow.get("api/item", "r1", number=70).status_code == 404


@pytest.mark.parametrize("how", ["outside", "changed", "not recorded"])
def test_results_that_are_not_the_batchs_own_are_not_read(
    airflow: Airflow, root: Path, tmp_path: Path, how: str
) -> None:
    """A manifest may name another's results, or somebody may have written into them: no prompt is shown."""
    place = tmp_path if how == "outside" else root
    film = landed(root / "film.mp4", FILM)
    manifest = batch(place, [{"number": 0, "arguments": {"prompt": "a secret"}, "files": [film]}])
    if how == "changed":
        (root / "batch.jsonl").write_text((root / "batch.jsonl").read_text().replace("secret", "sacred"))
    if how == "not recorded":
        manifest |= {"results_sha256": None, "results_size": None}
    airflow.add("r1", manifest)
    item = airflow.item("r1")
    assert item["batch"]["items"] == []
    assert item["batch"]["why"]
    assert airflow.get("api/item", "r1", number=0).status_code == 404
    assert airflow.get("file", "r1", n=0, number=0).status_code == 404


def test_a_line_that_cannot_be_read_is_a_card_of_its_own(airflow: Airflow, root: Path) -> None:
    """Too long, or of another form: the requests beside it are shown."""
    lines = [
        {"number": 0, "arguments": {"prompt": "x" * schema.ITEM_BYTES}},
        {"number": 1, "arguments": {"prompt": "good"}},
        {"number": 2, "files": 7},
        {"number": 9},
        [],
    ]
    airflow.add("r1", batch(root, lines))
    shown = airflow.item("r1")["batch"]["items"]
    assert [one["number"] for one in shown] == [0, 1, 2, 3, 4]
    assert [one["prompt"] for one in shown if not one["unreadable"]] == ["good"]


# What is written is not believed.


@pytest.mark.parametrize(
    "change",
    [
        {"files": 7},
        {"files": [None]},
        {"files": [{}]},
        {"files": [{"kind": "video", "url": ["x"]}]},
        {"files": [{"kind": "image", "url": "https://x.example/", "content_type": 7}]},
        {"files": [{"kind": "image", "url": "https://x.example/", "path": "x" * 5000}]},
        {"files": [{"kind": "image", "url": "https://x.example/", "width": 10**30}]},
        {"files": [{"kind": "image", "url": "https://x.example/"}] * 1001},
        {"provider": ["kling"]},
        {"operation": 5},
        {"media_conn_id": None},
        {"arguments": [1]},
        {"arguments": DEEP},
        {"cost": "much"},
        {"cost": {"unit": "USD", "amount": 5}},
        *({"cost": {"unit": "USD", "amount": amount}} for amount in ("1e999999999", "9e999999", "1e-999999")),
        *(
            {"cost": {"unit": "USD", "amount": amount}}
            for amount in ("NaN", "Infinity", "-9", "0e-999999", "")
        ),
        {"finished_at": 5},
        {"finished_at": "soon"},
        {"submitted_at": "0001-01-01T00:00:00+14:00"},
        {"arguments": {"prompt": "x" * schema.ITEM_BYTES}},
    ],
    ids=lambda change: str(change)[:60],
)
def test_what_does_not_fit_is_one_card(airflow: Airflow, change: dict[str, Any]) -> None:
    """It says that it cannot be shown and why; the other cards and the totals are as they were."""
    airflow.add("good", RESULT)
    airflow.add("bad", {**RESULT, **change})
    shown = airflow.items()
    assert (shown["good"]["status"], shown["good"]["unreadable"]) == ("succeeded", None)
    assert shown["bad"]["status"] == "unreadable"
    assert 0 < len(shown["bad"]["unreadable"]) <= 200
    assert airflow.item("bad")["status"] == "unreadable"
    assert airflow.get("file", "bad", n=0).status_code == 404
    totals = airflow.get("api/totals").json()
    assert (totals["made"], totals["spent"]) == (1, [{"unit": "USD", "amount": "0.5"}])


@pytest.mark.parametrize(
    "manifest",
    [
        {"results": 5},
        {"total": -1},
        {"failed": "x"},
        {"cost": 5},
        {"cost": [{"unit": "USD", "amount": "1"}] * 21},
        {"errors": {"a": []}},
        {"succeeded": True},
    ],
    ids=str,
)
def test_so_is_a_manifest_that_does_not_fit(airflow: Airflow, manifest: dict[str, Any]) -> None:
    """Of a batch that succeeded, and of one that failed."""
    airflow.add("good", RESULT)
    airflow.add("done", {**MANIFEST, **manifest})
    airflow.add("failed", {**MANIFEST, **manifest}, key="media_batch", state="failed")
    shown = airflow.items()
    assert [shown[run]["status"] for run in ("good", "done", "failed")] == ["succeeded"] + ["unreadable"] * 2
    assert airflow.get("api/totals").json()["made"] == 1


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ({"phase": 5}, None),
        ({"arguments": DEEP}, None),
        ({"submitted_after": "x"}, None),
        (None, {"type": ["x"]}),
        (None, {"type": "SubmissionOutcomeUnknown", "candidates": [5]}),
        (None, {"type": "SubmissionOutcomeUnknown", "candidates": [{"id": 5}]}),
        (None, {"message": {}}),
    ],
    ids=str,
)
def test_so_is_a_record_or_an_error_that_does_not_fit(airflow: Airflow, record: Any, error: Any) -> None:
    """Of what has not succeeded."""
    airflow.add("good", RESULT)
    airflow.add("bad", error, key="media_error", state="failed")
    if record is not None:
        airflow.records["films", "bad", "media_task"] = record
    shown = airflow.items()
    assert (shown["good"]["status"], shown["bad"]["status"]) == ("succeeded", "unreadable")


def test_what_airflow_itself_cannot_answer_is_one_card(airflow: Airflow) -> None:
    """An XCom that its own API fails on, as one that is nested too deep, takes no page away."""

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RecursionError(name)

    airflow.add("good", RESULT)
    airflow.add("bad", Broken())
    shown = airflow.items()
    assert (shown["good"]["status"], shown["bad"]["status"]) == ("succeeded", "unreadable")
    assert airflow.get("api/totals").json()["made"] == 1


def test_what_was_put_right_is_shown(airflow: Airflow) -> None:
    """A card that could not be shown is looked at again, not remembered."""
    airflow.add("r1", {**RESULT, "files": 7})
    assert airflow.items()["r1"]["status"] == "unreadable"
    airflow.xcoms["films", "r1", "return_value"] = RESULT
    assert airflow.items()["r1"]["status"] == "succeeded"


def test_what_is_too_large_is_not_asked_for_at_each_look(airflow: Airflow) -> None:
    """It costs Airflow much to answer, and the answer is thrown away."""
    airflow.add("r1", {**RESULT, "arguments": {"prompt": "x" * schema.ITEM_BYTES}})
    for _ in range(3):
        assert airflow.items()["r1"]["status"] == "unreadable"
    assert sum(path.endswith("return_value") for path in airflow.asked) == 1


def test_another_packages_result_is_none_of_ours_however_large(airflow: Airflow) -> None:
    """An operator with a similar name may return what it likes."""
    airflow.add("r1", {"rows": ["x" * 1000] * 1000}, operator_name="GenerateReportOperator")
    assert airflow.items() == {}


def test_a_page_is_bounded_however_much_is_in_its_items(airflow: Airflow) -> None:
    """Sixty of the largest that are read make a page of less than 2 MiB, and are not all remembered."""
    file = {"kind": "image", "url": "https://x.example/" + "y" * 400}
    large = {**RESULT, "files": [file] * 1000, "arguments": {"prompt": "z" * 20_000}}
    assert 400_000 < len(json.dumps(large)) < schema.ITEM_BYTES
    for number in range(60):
        airflow.add(f"r{number}", large)
    reply = airflow.get("api/items")
    assert len(reply.json()["items"]) == 60
    assert {item["file_count"] for item in reply.json()["items"]} == {1000}
    assert len(reply.content) < 2 * 2**20
    assert items._results.weight <= items.RESULTS
    assert len(airflow.item("r1")["files"]) == 1000


# What has not begun. On PostgreSQL it is listed first.


def waiting_in_front(airflow: Airflow, count: int) -> None:
    """As many mapped copies that no worker has taken yet, and behind them one that has succeeded."""
    for number in range(count):
        airflow.add(f"w{number}", state="scheduled", start_date=None, end_date=None, rendered_fields={})
    airflow.add("r1", RESULT)


@pytest.mark.parametrize(("behind", "lists"), [(0, 1), (60, 6)])
def test_of_what_has_not_begun_nothing_is_asked(airflow: Airflow, behind: int, lists: int) -> None:
    """It has left nothing, and is not even listed, unless the database's clock is behind."""
    waiting_in_front(airflow, 300)
    airflow.now = lambda: datetime.now(timezone.utc) - timedelta(seconds=behind)
    assert list(airflow.items()) == ["r1"]
    asked = [path.rpartition("taskInstances")[2].split("/")[-1] for path in airflow.asked]
    assert asked == [""] * lists + ["return_value"]
    assert airflow.get("api/totals").json()["made"] == 1


def test_what_begins_at_this_moment_is_listed() -> None:
    """What is asked for ends now, and not before."""
    asked = app.Filters().query()["start_date_lte"]
    assert timedelta(0) <= datetime.now(timezone.utc) - datetime.fromisoformat(asked) < timedelta(seconds=5)
    assert app.Filters(until="2026-01-01T00:00:00Z").query()["start_date_lte"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("route", ["api/items", "api/totals"])
def test_however_much_has_not_begun_an_answer_comes(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    """After the time that a look may take, with where to go on; not when all of it has been listed."""
    waiting_in_front(airflow, 300)
    airflow.now = lambda: datetime.now(timezone.utc) - timedelta(seconds=60)
    monkeypatch.setattr(app, "BUDGET", 0.0)
    reply = airflow.get(route).json()
    if route == "api/totals":
        assert (reply["made"], reply["complete"], reply["complete_today"]) == (0, False, False)
        return
    pages = 1
    while not reply["items"]:
        assert reply["looked_back_to"] is None
        reply = airflow.get(route, cursor=reply["cursor"]).json()
        pages += 1
    assert pages == 6


# Who may.


@pytest.mark.parametrize(
    "place",
    [
        {"task_id": "video/xcomEntries/return_value"},
        {"task_id": "video/state-store/x"},
        {"task_id": "../../../dags"},
        {"run_id": "..", "task_id": ".."},
        {"run_id": ".", "task_id": "."},
        {"dag_id": "~"},
        {"run_id": "~"},
        {"task_id": "~"},
        {"task_id": ""},
    ],
    ids=str,
)
@pytest.mark.parametrize("route", ["api/item", "file"])
def test_a_name_stays_one_segment(airflow: Airflow, route: str, place: dict[str, str]) -> None:
    """What would reach another path of Airflow's API, with the user's rights, is not asked at all."""
    airflow.add("r1", RESULT)
    assert airflow.get(route, "r1", n=0, **place).status_code == 404
    assert airflow.asked == []


@pytest.mark.parametrize(
    "filters", [{"dag_id": "../x"}, {"dag_id": "films", "run_id": "a/../../.."}], ids=str
)
@pytest.mark.parametrize("route", ["api/items", "api/totals"])
def test_so_does_a_filter(airflow: Airflow, route: str, filters: dict[str, str]) -> None:
    """A list of a DAG that cannot be is none."""
    assert airflow.get(route, **filters).status_code == 404
    assert airflow.asked == []


class Teams:
    """An auth manager for which a DAG belongs to a team, as it is told; it notes what it was asked."""

    def __init__(self, team_name: str) -> None:
        self.team_name = team_name
        self.asked: set[tuple[str, DagAccessEntity | None, str | None]] = set()

    def is_authorized_dag(self, *, method: Any, access_entity: Any, details: Any, user: Any) -> bool:
        """Whether the user is of the DAG's team."""
        self.asked.add((method, access_entity, details.team_name))
        return bool(details.team_name == user)


def test_another_teams_files_are_not_sent_from_memory(
    airflow: Airflow, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow is asked with the DAG's team, as its own routes ask, before anything is answered."""
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    monkeypatch.setattr(DagModel, "get_team_name", staticmethod(lambda _dag_id: "red"))
    airflow.add("r1", {**RESULT, "files": [landed(root / "film.mp4", FILM)]})
    airflow.manager = manager = Teams("red")
    airflow.user = "red"
    assert list(airflow.items()) == ["r1"]
    src = airflow.item("r1")["files"][0]["src"]
    assert airflow.get(src).status_code == 200
    airflow.user = "blue"
    assert airflow.get(src).status_code == 403
    assert airflow.get("api/item", "r1").status_code == 403
    assert airflow.items() == {}
    assert airflow.get("api/totals").json()["made"] == 0
    assert manager.asked == {
        ("GET", DagAccessEntity.XCOM, "red"),
        ("PUT", DagAccessEntity.TASK_INSTANCE, "red"),
    }


def test_a_file_that_airflow_does_not_show_any_more_is_not_sent(airflow: Airflow, root: Path) -> None:
    """What is remembered of a task instance is worth nothing without Airflow's word for it."""
    airflow.add("r1", {**RESULT, "files": [landed(root / "film.mp4", FILM)]})
    src = airflow.item("r1")["files"][0]["src"]
    assert airflow.get(src).status_code == 200
    airflow.instances.clear()
    assert airflow.get(src).status_code == 404


def test_files_are_checked_once_for_each_version(
    airflow: Airflow, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A film that is asked for in parts is read whole for its first part only."""
    read: list[int] = []
    blocks = files.Found.blocks

    def noted(found: files.Found, start: int = 0, length: int | None = None) -> Any:
        read.append(found.size if length is None else length)
        return blocks(found, start, length)

    monkeypatch.setattr(files.Found, "blocks", noted)
    airflow.add("r1", {**RESULT, "files": [landed(root / "film.mp4", FILM)]})
    for _ in range(3):
        airflow.get("file", "r1", n=0, headers={"Range": "bytes=0-9"})
    assert read == [len(FILM), 10, 10, 10]


# Batches that run, and iterations of a loop.

STANDS = {
    "try_number": 1,
    "total": 100,
    "kept": 100,
    "provider": "kling",
    "media_conn_id": "kling_default",
    "waiting": 20,
    "succeeded": 60,
    "failed": 3,
}


@pytest.mark.parametrize(
    ("state", "status"), [("running", "running"), ("deferred", "running"), ("up_for_retry", "failed")]
)
def test_a_batch_shows_how_far_it_is(airflow: Airflow, state: str, status: str) -> None:
    """Before it has ended there is no manifest; one small entry has the counts."""
    airflow.add("r1", state=state, operator_name="GenerateMediaBatchOperator")
    airflow.records["films", "r1", "media_task.batch"] = STANDS
    item = airflow.item("r1")
    assert (item["status"], item["kind"], item["provider"]) == (status, "batch", "kling")
    told = {name: item["batch"][name] for name in ("total", "submitted", "succeeded", "failed")}
    assert told == {"total": 100, "submitted": 83, "succeeded": 60, "failed": 3}
    assert airflow.items()["r1"]["batch"]["total"] == 100
    assert airflow.get("api/totals").status_code == 200


@pytest.mark.parametrize(("state", "who"), [("failed", "A clear"), ("up_for_retry", "The next try")])
def test_a_batch_that_airflow_ended_says_what_becomes_of_it(airflow: Airflow, state: str, who: str) -> None:
    """It has no results, and what it has made until then is counted and kept."""
    airflow.add("r1", state=state, operator_name="GenerateMediaBatchOperator")
    airflow.records["films", "r1", "media_task.batch"] = STANDS
    item = airflow.item("r1")
    assert (item["batch"]["succeeded"], item["batch"]["why"]) == (60, "It has not come to its results.")
    assert item["notice"] == f"{who} goes on with it, and pays nothing for what was made."


@pytest.mark.parametrize("stands", [{"total": -1}, {"waiting": "x"}, {"succeeded": None}, {"provider": 5}])
def test_so_is_what_a_batch_says_of_itself(airflow: Airflow, stands: dict[str, Any]) -> None:
    """Others may write it, too."""
    airflow.add("r1", state="running", operator_name="GenerateMediaBatchOperator")
    airflow.records["films", "r1", "media_task.batch"] = {**STANDS, **stands}
    assert airflow.items()["r1"]["status"] == "unreadable"


def test_each_iteration_of_a_loop_is_an_item_of_its_own(airflow: Airflow) -> None:
    """All have one name, one run and one map index; the page asks for each by its region."""
    for number in range(3):
        airflow.add_iteration("r1", number, {**RESULT, "arguments": {"prompt": f"fox {number}"}})
    listed = airflow.get("api/items").json()["items"]
    assert {(item["loop"], item["prompt"]) for item in listed} == {(n, f"fox {n}") for n in range(3)}
    for item in listed:
        place = {name: item[name] for name in ("region_id", "region_index")}
        assert airflow.item("r1", **place)["prompt"] == item["prompt"]


# What was made is shown, whatever Airflow made of its task.

SUBMITTED = {
    "phase": "submitted",
    "operation": "text_to_image",
    "media_conn_id": "vap_default",
    "provider": "vap",
    "media_task_id": "1",
    "arguments": {"prompt": "a fox"},
}
URLS = ["https://cdn.example/a.png"]


@pytest.mark.parametrize(
    ("state", "says"), [("failed", "Mark it as success"), ("up_for_retry", "nothing is paid again")]
)
def test_what_was_returned_counts_and_not_the_tasks_state(
    airflow: Airflow, root: Path, state: str, says: str
) -> None:
    """Airflow can end a task while its worker goes on: what it returned is shown, sent, and paid for."""
    airflow.add("r1", {**RESULT, "files": [landed(root / "film.mp4", FILM)]}, state=state)
    airflow.records["films", "r1", "media_task"] = SUBMITTED
    item = airflow.items()["r1"]
    assert (item["status"], item["airflow_state"]) == ("succeeded", state)
    assert says in airflow.item("r1")["notice"]
    assert airflow.get(item["files"][0]["src"]).content == FILM
    assert airflow.get("api/totals").json()["spent"] == [{"unit": "USD", "amount": "0.5"}]
    assert list(airflow.get("api/items", status="succeeded").json()["items"]) != []


def test_so_it_is_with_a_batch(airflow: Airflow, root: Path) -> None:
    """Its requests are shown, too."""
    airflow.add("r1", batch(root, [{"number": 0, "arguments": {"prompt": "a fox"}}]), state="failed")
    item = airflow.item("r1")
    assert (item["status"], item["batch"]["items"][0]["prompt"]) == ("succeeded", "a fox")
    assert "A clear keeps what was made" in item["notice"]


@pytest.mark.parametrize(
    ("record", "urls", "entry", "shown", "says"),
    [
        ({"phase": "adopted"}, URLS, {"x": {}}, URLS, "1 of its files have landed. A clear goes on with it"),
        ({"phase": "finished"}, URLS, None, URLS, "It was made. A clear makes a new one, which is paid"),
        ({}, None, None, [], "may have made it. A clear waits for it"),
    ],
)
def test_what_is_known_of_a_task_that_returned_nothing_is_shown(
    airflow: Airflow, record: dict[str, Any], urls: Any, entry: Any, shown: list[str], says: str
) -> None:
    """The provider's addresses while they last, how much has landed, and what a clear would cost."""
    airflow.add("r1", urls, key="urls", state="failed")
    airflow.records["films", "r1", "media_task"] = {**SUBMITTED, **record}
    if entry is not None:
        airflow.records["films", "r1", "media_task.landed"] = entry
    item = airflow.item("r1")
    assert item["status"] == "failed"
    assert [file["src"] for file in item["files"]] == shown
    assert says in item["notice"]
    assert item["empty"] != "Nothing was made"


def test_what_a_worker_leaves_late_is_shown(airflow: Airflow) -> None:
    """A task that has just been ended by Airflow is looked at again: its worker may still be at it."""
    end = datetime.now(timezone.utc).isoformat()
    airflow.add("r1", state="failed", end_date=end)
    airflow.records["films", "r1", "media_task"] = SUBMITTED
    assert airflow.items()["r1"]["status"] == "failed"
    airflow.xcoms["films", "r1", "return_value"] = RESULT
    assert airflow.items()["r1"]["status"] == "succeeded"


@pytest.mark.parametrize(
    ("record", "error", "empty"),
    [
        (None, {"type": "MediaModerationError"}, "Nothing was made"),
        ({"phase": "finished"}, {"type": "MediaTaskFailed"}, "Nothing was made"),
        ({}, {"type": "MediaTaskTimeout"}, "The provider may have made it"),
        (
            {"phase": "intent", "media_task_id": None},
            {"type": "SubmissionOutcomeUnknown"},
            "Nobody knows whether it was accepted",
        ),
    ],
)
def test_only_of_what_was_not_made_it_is_said(
    airflow: Airflow, record: dict[str, Any] | None, error: dict[str, Any], empty: str
) -> None:
    """A submission that nobody knows the outcome of, or a task that goes on, may have been made."""
    airflow.add("r1", error, key="media_error", state="failed")
    if record is not None:
        kept = {name: value for name, value in {**SUBMITTED, **record}.items() if value is not None}
        airflow.records["films", "r1", "media_task"] = kept
    assert airflow.item("r1")["empty"] == empty


# Downloads.


def download(root: Path) -> dict[str, Any]:
    """What `DownloadMediaOperator` returned."""
    film = landed(root / "film.mp4", FILM, media_task_id="1")
    return {"path": film["path"], "paths": [film["path"]], "files": [film]}


def test_a_download_shows_what_it_landed(airflow: Airflow, root: Path) -> None:
    """On its own page; in the list and in the totals it is there once, where it was made."""
    airflow.add("r1", download(root), operator_name="DownloadMediaOperator")
    item = airflow.item("r1")
    assert (item["status"], item["kind"], item["file_count"]) == ("succeeded", "video", 1)
    assert airflow.get(item["files"][0]["src"]).content == FILM
    assert airflow.items() == {}
    assert airflow.get("api/totals").json()["made"] == 0


def test_a_download_that_goes_on_or_failed_says_so(airflow: Airflow) -> None:
    """One that failed is in the list, too, with its error."""
    name = {"operator_name": "DownloadMediaOperator", "rendered_fields": {"media": "x", "destination": "y"}}
    airflow.add("r1", state="running", **name)
    airflow.add("r2", {"type": "MediaExpiredError"}, key="media_error", state="failed", **name)
    assert airflow.item("r1")["status"] == "running"
    assert (airflow.item("r2")["status"], airflow.item("r2")["empty"]) == ("failed", "Nothing has landed")
    assert list(airflow.items()) == ["r2"]
