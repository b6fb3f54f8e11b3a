from __future__ import annotations

import httpx
import pytest

from .conftest import Stage


ROUTES = ("api/items", "api/totals", "api/item", "file")


@pytest.mark.parametrize("route", ROUTES)
def test_nobody_sees_anything_without_a_login(stage: Stage, route: str) -> None:
    """Every route that tells something answers 401 to who has not logged in."""
    with stage.client(None) as nobody:
        reply = nobody.get(route, params={**stage.place("hostile"), "n": 0})
    assert reply.status_code == 401


def test_a_reader_of_one_dag_sees_nothing_of_the_other(stage: Stage) -> None:
    """Not its prompts, not its pictures, not its totals, neither in a list nor asked for by name."""
    with stage.client("reader") as reader, stage.client("admin") as admin:
        assert "unannounced" in admin.get("api/items").text
        listed = reader.get("api/items")
        assert listed.status_code == 200
        assert {item["dag_id"] for item in listed.json()["items"]} == {"shown"}
        assert "unannounced" not in listed.text
        assert "hidden" not in listed.text
        everything, allowed = (client.get("api/totals").json() for client in (admin, reader))
        others = [admin.get("api/totals", params={"dag_id": name}).json() for name in ("hidden", "mixed")]
        assert everything["made"] == allowed["made"] + sum(other["made"] for other in others)
        assert all(other["made"] for other in others)
        only_hidden = reader.get("api/items", params={"dag_id": "hidden"})
        assert only_hidden.status_code == 403 or not only_hidden.json()["items"]
        no_totals = reader.get("api/totals", params={"dag_id": "hidden"})
        assert no_totals.status_code == 403 or no_totals.json()["made"] == 0
        for route in ("api/item", "file"):
            place = {**stage.place("secret", dag_id="hidden"), "n": 0}
            assert admin.get(route, params=place).status_code == 200
            assert reader.get(route, params=place).status_code == 403


def test_a_reader_changes_nothing(stage: Stage) -> None:
    """Actions need the permission to edit the DAG's tasks; the record stays as it was."""
    body = {**stage.place("unknown"), "media_task_id": "abc", "client_ref": "amt-"}
    path = f"dags/shown/dagRuns/{stage.run_id}/taskInstances/unknown/state-store/media_task"
    before = stage.airflow.request("GET", path)["value"]
    with stage.client("reader") as reader:
        assert reader.get("api/item", params=stage.place("unknown")).json()["can_edit"] is False
        for action in ("adopt", "resubmit"):
            reply = reader.post(f"api/{action}", json=body, headers={"X-Media-Tasks": "1"})
            assert reply.status_code == 403
    assert stage.airflow.request("GET", path)["value"] == before


@pytest.mark.parametrize("action", ["adopt", "resubmit"])
def test_another_site_cannot_act(stage: Stage, action: str) -> None:
    """A form of another site can send the cookie, but not our header; and nothing is done by a GET."""
    body = {**stage.place("unknown"), "media_task_id": "abc", "client_ref": "amt-"}
    with stage.client(None) as site:
        site.cookies.set("_token", stage.token("admin"))
        assert site.post(f"api/{action}", json=body).status_code == 403
        assert site.get(f"api/{action}", params=body).status_code == 405


def test_a_file_comes_whole_or_in_parts(stage: Stage) -> None:
    """Ranges as browsers ask for them to play a film: 206 with the very bytes, 416 beyond the end."""
    place = {**stage.place("hostile"), "n": 0}
    with stage.client("admin") as admin:
        whole = admin.get("file", params=place)
        assert whole.status_code == 200
        assert whole.headers["content-type"] == "image/png"
        assert whole.headers["x-content-type-options"] == "nosniff"
        size = len(whole.content)
        for asked, start, end in (
            ("bytes=0-99", 0, 99),
            ("bytes=100-", 100, size - 1),
            ("bytes=-10", size - 10, size - 1),
            (f"bytes=5-{size + 5000}", 5, size - 1),
        ):
            part = admin.get("file", params=place, headers={"Range": asked})
            assert part.status_code == 206
            assert part.headers["content-range"] == f"bytes {start}-{end}/{size}"
            assert part.content == whole.content[start : end + 1]
        beyond = admin.get("file", params=place, headers={"Range": f"bytes={size}-"})
        assert beyond.status_code == 416
        assert beyond.headers["content-range"] == f"bytes */{size}"
        for nonsense in ("bytes=9-5", "lines=1-2", "bytes=a-b", "bytes=0-1,5-6"):
            assert admin.get("file", params=place, headers={"Range": nonsense}).status_code in (200, 416)


def test_a_film_landed_by_another_task_is_shown_from_there(stage: Stage) -> None:
    """The download of the same run has the copy; the page uses it instead of the provider's address."""
    with stage.client("admin") as admin:
        item = admin.get("api/item", params=stage.place("film")).json()
        (film,) = item["files"]
        assert film["landed"] is True
        assert film["src"].startswith("file?")
        reply = admin.get(film["src"])
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "video/mp4"
    assert reply.content == next((stage.output / "film").rglob("*.mp4")).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"n": 99},
        {"n": "../../etc/passwd"},
        {"n": -1},
        {"task_id": "../secret"},
        {"task_id": "hostile/../../../../hidden"},
        {"dag_id": "shown/../hidden"},
        {"dag_id": "~"},
        {"run_id": "../../hidden/dagRuns/~"},
        {"map_index": 7},
    ],
)
def test_no_trick_reaches_another_file(stage: Stage, change: dict[str, object]) -> None:
    """A file is named by task and number, so paths in a request lead nowhere."""
    with stage.client("admin") as admin:
        reply = admin.get("file", params={**stage.place("hostile"), "n": 0, **change})
        assert reply.status_code in (400, 403, 404, 422), reply.text[:200]


@pytest.mark.parametrize(
    "name", ["../app.py", "..%2fapp.py", "%2e%2e/page.html", "gallery.js/../../app.py", "x"]
)
def test_nothing_but_the_pages_own_files_is_static(stage: Stage, name: str) -> None:
    """The static folder gives what is in it and nothing above it."""
    url = httpx.URL(f"{stage.gallery}/static/").copy_with(raw_path=f"/media-tasks/static/{name}".encode())
    with stage.client("admin") as admin:
        assert admin.get(url).status_code == 404


def test_the_page_runs_nothing_but_its_own_script(stage: Stage) -> None:
    """The policy allows no inline script, no other host, no frame around it but Airflow's own."""
    with stage.client("admin") as admin:
        policy = admin.get("/").headers["content-security-policy"]
    said = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert said["default-src"] == "'none'"
    assert said["script-src"] == said["style-src"] == said["connect-src"] == "'self'"
    assert said["frame-ancestors"] == "'self'"
    assert "unsafe" not in policy
    assert "http:" not in said["img-src"].replace("http://127.0.0.1:*", "")


def test_failed_running_and_unknown_items_say_what_they_are(stage: Stage) -> None:
    """Each state has what a person needs: the error and advice, the time expected, the question."""
    with stage.client("admin") as admin:
        refused, slow, unknown = (
            admin.get("api/item", params=stage.place(task_id)).json()
            for task_id in ("refused", "slow", "unknown")
        )
    assert (refused["status"], refused["error"]["type"]) == ("failed", "MediaModerationError")
    assert refused["error"]["advice"]
    assert refused["prompt"].startswith("Something else")
    assert slow["status"] in ("running", "queued")
    assert slow["media_task_id"]
    assert slow["prompt"].startswith("A glacier")
    assert unknown["status"] == "unknown"
    assert unknown["can_edit"] is True


@pytest.mark.parametrize(
    ("query", "tasks"),
    [
        ({"kind": "video"}, {"film", "slow"}),
        ({"kind": "audio"}, {"sound"}),
        ({"kind": "batch"}, {"batch", "climbing"}),
        ({"status": "failed"}, {"refused"}),
        ({"status": "unknown", "task_id": "unknown"}, {"unknown"}),
        ({"q": "LIGHTHOUSE"}, {"pictures"}),
        ({"q": "Blue kite"}, {"batch"}),
        ({"q": "a summit"}, {"climbing"}),
        ({"provider": "kling"}, {"film", "sound", "slow"}),
        ({"since": "2999-01-01T00:00:00Z"}, set()),
    ],
)
def test_filters_leave_what_they_name(stage: Stage, query: dict[str, str], tasks: set[str]) -> None:
    """Each filter alone, on the DAG that has one of everything."""
    with stage.client("admin") as admin:
        found = admin.get("api/items", params={"dag_id": "shown", **query}).json()["items"]
    assert {item["task_id"] for item in found} == tasks


def test_a_task_that_makes_no_media_is_none_of_ours(stage: Stage) -> None:
    """A task that there is not is a 404, and a download is in no list: its film is, where it was made."""
    with stage.client("admin") as admin:
        assert admin.get("api/item", params=stage.place("nobody")).status_code == 404
        listed = admin.get("api/items", params={"dag_id": "shown", "task_id": "land"}).json()["items"]
        assert listed == []
        assert admin.get("api/item", params=stage.place("land")).json()["file_count"] == 1
