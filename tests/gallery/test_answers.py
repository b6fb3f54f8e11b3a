"""The answers that a person gives on the page: whose question they are to, and what becomes of them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from airflow_media_tasks.gallery import app

from .airflow import Airflow


RECORD: dict[str, Any] = {
    "phase": "intent",
    "generation": 0,
    "number": 1,
    "fingerprint": "f",
    "client_ref": "amt-1",
    "submitted_after": "2026-01-01T00:00:00+00:00",
    "media_conn_id": "kling_default",
    "operation": "extend_video",
    "provider": "kling",
    "asked_at": "2026-01-01T00:01:00+00:00",
}
ERROR = {"type": "SubmissionOutcomeUnknown", "message": "nobody knows", "candidates": []}
PLACE = ("films", "r1", "media_task")
ANSWER = ("films", "r1", "media_task.answer.amt-1")


@pytest.fixture
def asking(airflow: Airflow) -> Airflow:
    """An Airflow with a failed task that asks."""
    airflow.add("r1", ERROR, key="media_error", state="failed")
    airflow.records[PLACE] = dict(RECORD)
    return airflow


def answer(airflow: Airflow, action: str, **more: Any) -> Any:
    """The reply to what the page's button sends."""
    body = {"dag_id": "films", "run_id": "r1", "task_id": "video", "client_ref": "amt-1", **more}
    return airflow.client.post(f"/media-tasks/api/{action}", json=body, headers={"X-Media-Tasks": "1"})


def test_an_answer_is_an_entry_of_its_own(asking: Airflow) -> None:
    """The record stays as the worker wrote it, and the task is cleared, whose next try reads the answer."""
    assert asking.item("r1")["client_ref"] == "amt-1"
    assert answer(asking, "adopt", media_task_id="videos/video-extend/1").status_code == 200
    assert asking.records == {
        PLACE: RECORD,
        ANSWER: {
            "decision": "adopt",
            "media_task_id": "videos/video-extend/1",
            "asked_at": RECORD["asked_at"],
        },
    }
    assert asking.cleared == [("films", "r1", "video")]


def test_submit_anew_is_an_answer(asking: Airflow) -> None:
    """It names no task."""
    assert answer(asking, "resubmit").status_code == 200
    assert asking.records[ANSWER] == {"decision": "resubmit", "asked_at": RECORD["asked_at"]}


@pytest.mark.parametrize("action", ["adopt", "resubmit"])
@pytest.mark.parametrize(
    ("state", "record", "says"),
    [
        ("running", RECORD, "the task is running"),
        ("queued", RECORD, "the task is queued"),
        ("deferred", RECORD, "the task is deferred"),
        (None, RECORD, "about to run"),
        ("failed", {**RECORD, "client_ref": "amt-2", "number": 2}, "an earlier submission"),
        ("failed", {**RECORD, "asked_at": None}, "nothing is asked"),
        ("failed", {**RECORD, "phase": "abandoned"}, "nothing is asked"),
        ("failed", {**RECORD, "phase": "finished", "media_task_id": "x"}, "nothing is asked"),
        ("failed", [], "no submission"),
        ("failed", None, "no submission"),
    ],
)
def test_what_the_page_does_not_ask_is_not_answered(
    asking: Airflow, action: str, state: str | None, record: Any, says: str
) -> None:
    """While a worker is just sending, from an old page, where nothing is asked: 409, and nothing is done."""
    asking.instances["films", "r1"]["state"] = state
    asking.records = {} if record is None else {PLACE: record}
    before = dict(asking.records)
    reply = answer(asking, action, media_task_id="videos/video-extend/1")
    assert (reply.status_code, says in reply.json()["detail"]) == (409, True), reply.text
    assert (asking.records, asking.cleared) == (before, [])


def test_the_first_of_two_answers_holds(asking: Airflow) -> None:
    """Whoever comes second, even from a page that is still open, learns of it; a new asking is answered."""
    answer(asking, "adopt", media_task_id="videos/video-extend/1")
    asking.instances["films", "r1"]["state"] = "failed"
    reply = answer(asking, "resubmit")
    assert reply.status_code == 409
    assert "answered already (adopt 'videos/video-extend/1')" in reply.json()["detail"]
    assert asking.records[ANSWER]["decision"] == "adopt"
    asking.records[PLACE] = {**RECORD, "asked_at": "2026-01-01T00:02:00+00:00"}
    assert answer(asking, "resubmit").status_code == 200
    assert asking.records[ANSWER]["decision"] == "resubmit"


async def test_of_two_answers_at_the_same_moment_one_is_taken(asking: Airflow) -> None:
    """Two people press two buttons: one 200, one 409, one clear."""
    place = {"dag_id": "films", "run_id": "r1", "task_id": "video", "client_ref": "amt-1"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(asking.app),
        base_url="http://airflow",
        headers={"Authorization": "Bearer x", "X-Media-Tasks": "1"},
    ) as people:
        replies = await asyncio.gather(
            people.post("/media-tasks/api/adopt", json={**place, "media_task_id": "videos/video-extend/1"}),
            people.post("/media-tasks/api/resubmit", json=place),
        )
    assert sorted(reply.status_code for reply in replies) == [200, 409]
    assert len(asking.cleared) == 1


def test_an_answer_that_another_server_overwrites_is_told(asking: Airflow) -> None:
    """What stands there in the end counts; who wrote the other one is not told that it was taken."""
    others = {"decision": "resubmit", "asked_at": RECORD["asked_at"]}
    asking.on_write = lambda: asking.records.update({ANSWER: others})
    reply = answer(asking, "adopt", media_task_id="videos/video-extend/1")
    assert reply.status_code == 409
    assert "somebody else has answered" in reply.json()["detail"]
    assert asking.cleared == []


def test_a_task_whose_next_try_has_begun_meanwhile_is_cleared(
    asking: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Airflow 3.4 on each try has an id of its own, and by that of an earlier one nothing is cleared."""
    fields = {**app.ClearTaskInstancesBody.model_fields, "keep_task_state": None}
    monkeypatch.setattr(app, "ClearTaskInstancesBody", SimpleNamespace(model_fields=fields))
    asking.on_write = lambda: asking.instances["films", "r1"].update(id="of-the-next-try")
    assert answer(asking, "resubmit").status_code == 200
    assert asking.cleared == [("films", "r1", "video")]


@pytest.mark.parametrize("body", [{"client_ref": None}, {"client_ref": 7}, {"client_ref": "x" * 300}])
def test_an_answer_names_its_question(asking: Airflow, body: dict[str, Any]) -> None:
    """A request without the reference that the page shows is none of the page's."""
    assert answer(asking, "resubmit", **body).status_code == 422
    assert asking.cleared == []


def test_a_request_of_a_batch_that_goes_on_is_not_answered_and_one_that_has_ended_is(
    airflow: Airflow,
) -> None:
    """Its record is on a page with its neighbours', and its answer has a key of its own."""
    airflow.add("r1", {}, key="media_batch", state="deferred")
    page = {str(number): {**RECORD, "client_ref": f"amt-{number}"} for number in range(60)}
    airflow.records["films", "r1", "media_task.batch"] = {"layout": 0, "total": 60}
    airflow.records["films", "r1", "media_task.page.0.0"] = page
    body = {"number": 7, "client_ref": "amt-7"}
    assert answer(airflow, "resubmit", **body).status_code == 409
    airflow.instances["films", "r1"]["state"] = "success"
    assert answer(airflow, "resubmit", **body).status_code == 200
    assert airflow.records["films", "r1", "media_task.answer.amt-7"]["decision"] == "resubmit"
    assert airflow.records["films", "r1", "media_task.page.0.0"] == page
