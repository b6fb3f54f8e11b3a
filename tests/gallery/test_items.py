from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from airflow_media_tasks.gallery import files, items


INSTANCE = {
    "id": "1",
    "dag_id": "films & more",
    "dag_run_id": "manual__2026-01-01T00:00:00+00:00",
    "task_id": "video",
    "map_index": 3,
    "try_number": 1,
    "operator_name": "GenerateVideoOperator",
    "rendered_map_index": "bag",
    "state": "success",
    "start_date": "2026-01-01T00:00:00Z",
    "end_date": "2026-01-01T00:01:00Z",
    "rendered_fields": {},
}
FILE = {"kind": "video", "url": "https://cdn.example/a.mp4", "duration": 5}
RESULT = {
    "id": "videos/text2video/1",
    "operation": "text_to_video",
    "media_conn_id": "kling_default",
    "provider": "kling",
    "arguments": {"prompt": "a fox"},
    "model": None,
    "files": [FILE],
    "cost": {"amount": "0.5", "unit": "USD"},
    "submitted_at": "2026-01-01T00:00:00+00:00",
    "finished_at": "2026-01-01T00:00:42+00:00",
}


class Api:
    """What Airflow would answer: XComs and records of one task instance, by their names; it counts."""

    def __init__(self, **entries: Any) -> None:
        self.entries = entries
        self.asked: list[str] = []

    async def find(self, path: str, **options: Any) -> bytes | None:
        """The entry at the end of the path."""
        self.asked.append(path)
        assert options["params"] == {"map_index": 3}
        name = path.rpartition("/")[2]
        return json.dumps({"value": self.entries[name]}).encode() if name in self.entries else None


async def item(api: Api, **changes: Any) -> Any:
    """The page's item for the task instance."""
    items._results.clear()
    found = await items.items_of(api, [{**INSTANCE, **changes}])  # type: ignore[arg-type]
    return found[0] if found else None


async def test_a_result_becomes_an_item() -> None:
    """With its files, its cost, its time, links that are quoted, and a reference to use in a DAG."""
    made = await item(Api(return_value=RESULT))
    assert (made["status"], made["kind"], made["prompt"], made["seconds"]) == (
        "succeeded",
        "video",
        "a fox",
        42.0,
    )
    assert made["links"]["task"].startswith("/dags/films%20%26%20more/runs/manual__2026-01-01T00%3A00")
    assert made["links"]["task"].endswith("/tasks/video/mapped/3")
    assert made["files"][0]["src"] == FILE["url"]
    assert "map_indexes=3" in made["reference"]


async def test_what_has_succeeded_is_asked_for_once() -> None:
    """A result does not change; a second look costs Airflow nothing."""
    api = Api(return_value=RESULT)
    items._results.clear()
    for _ in range(3):
        await items.items_of(api, [INSTANCE])  # type: ignore[arg-type]
    assert len(api.asked) == 1
    await items.items_of(api, [{**INSTANCE, "try_number": 2}])  # type: ignore[arg-type]
    assert len(api.asked) == 2


@pytest.mark.parametrize("value", [None, 5, "text", [], {}, {"files": []}, {"media_conn_id": "x"}])
async def test_a_task_that_returned_something_else_is_not_shown(value: Any) -> None:
    """Whatever other operators with a similar name have put into XCom."""
    assert await item(Api(return_value=value)) is None


@pytest.mark.parametrize(
    "url", ["javascript:x", "data:text/html,x", "file:///etc/passwd", "x", "", "https://" + "x" * 9000]
)
async def test_a_strange_address_is_not_loaded(url: str) -> None:
    """A result is what somebody's task has returned: the page asks for http and https alone."""
    made = await item(Api(return_value={**RESULT, "files": [{**FILE, "url": url}]}))
    assert made["status"] == "succeeded"
    assert all(file["src"] is None for file in made["files"])


async def test_an_expired_address_is_not_loaded_but_a_landed_copy_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider's address counts no more after its time; our own copy stays."""
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__GALLERY_ROOTS", "s3://b")
    old = {**FILE, "expires_at": "2020-01-01T00:00:00Z"}
    landed = {**old, "path": "s3://b/a.mp4", "sha256": "a" * 64, "size": 5}
    made = await item(Api(return_value={**RESULT, "files": [old, landed]}))
    expired, landed = made["files"]
    assert (expired["src"], expired["expired"]) == (None, True)
    assert landed["src"].startswith("file?dag_id=films+%26+more&")
    assert "s3" not in landed["src"]


async def test_a_batch_that_failed_in_part_is_not_just_cleared() -> None:
    """What asks a question is answered first: a clear sends none of it again."""
    error = {"type": "MediaTaskFailed", "message": "2 of 3 requests failed", "code": "partial_failure"}
    made = await item(Api(media_error=error), state="failed")
    assert "adopt" in made["error"]["advice"]
    assert "what was made is kept" in made["error"]["advice"]


@pytest.mark.parametrize(
    ("state", "record", "error", "status"),
    [
        ("deferred", {"phase": "intent"}, None, "queued"),
        ("deferred", {"phase": "submitted", "media_task_id": "1"}, None, "running"),
        ("failed", {"phase": "submitted", "media_task_id": "1"}, {"type": "MediaTaskFailed"}, "failed"),
        ("failed", {"phase": "intent"}, {"type": "SubmissionOutcomeUnknown"}, "unknown"),
        ("up_for_retry", {"phase": "intent"}, {"type": "SubmissionOutcomeUnknown"}, "unknown"),
        (
            "failed",
            {"phase": "adopted", "media_task_id": "1"},
            {"type": "SubmissionOutcomeUnknown"},
            "failed",
        ),
        ("failed", None, {"type": "MediaRequestError", "message": "no"}, "failed"),
    ],
)
async def test_what_is_not_done_is_told_by_its_record(
    state: str, record: Mapping[str, Any] | None, error: Mapping[str, Any] | None, status: str
) -> None:
    """The record says what was submitted, the error why it stopped."""
    known = {
        **(
            {"media_task": {**record, "arguments": {"prompt": "a fox"}, "operation": "text_to_video"}}
            if record
            else {}
        ),
        **({"media_error": error} if error else {}),
    }
    made = await item(Api(**known), state=state)
    assert made["status"] == status
    if error:
        assert made["error"]["advice"]
    if record:
        assert made["prompt"] == "a fox"


async def test_a_batch_shows_its_counts() -> None:
    """Those of the manifest, on the card."""
    manifest = {
        "results": "s3://b/results.jsonl",
        "total": 150,
        "succeeded": 149,
        "failed": 1,
        "media_conn_id": "x",
    }
    batch = await item(Api(return_value=manifest))
    assert (batch["kind"], batch["batch"]["total"], batch["batch"]["failed"]) == ("batch", 150, 1)


@pytest.mark.parametrize("number", [-1, 1, 10**9])
async def test_only_files_that_a_result_names_are_found(number: int) -> None:
    """There is no file of another number, and none that has not landed."""
    landed = {**RESULT, "files": [{**FILE, "path": "s3://b/a.mp4", "sha256": "a" * 64, "size": 5}]}
    wanted = files.Recorded("s3://b/a.mp4", "a" * 64, 5, None, None)
    assert await items.file_of(landed, None, 0) == wanted
    assert await items.file_of(landed, None, number) is None
    assert await items.file_of(RESULT, None, 0) is None
    assert await items.file_of(None, None, 0) is None
    assert await items.file_of(landed, 0, 0) is None


@pytest.mark.parametrize(
    ("fields", "q", "may"),
    [
        ({"prompt": "A FOX in the snow"}, "fox", True),
        ({"prompt": "a bear"}, "fox", False),
        ({"arguments": {"scenes": [{"text": "the fox"}]}}, "FOX", True),
        ({"prompt": "Truncated. You can ... max_templated_field_length. 'a bea"}, "fox", True),
        ({"prompt": "a bear"}, "videos/text2video/8712", True),
        ({"prompt": "a bear"}, "12345678", True),
        ({"prompt": "a bear"}, "snowdrop", False),
        ({"prompt": None, "seed": 5}, "5", False),
        ({}, "fox", True),
        (None, "fox", True),
        ({"prompt": "a bear"}, "", True),
    ],
)
def test_what_is_looked_at_in_a_search(fields: Any, q: str, may: bool) -> None:
    """Only what its arguments, as far as Airflow still has them, rule out is passed over."""
    assert items.may_match({**INSTANCE, "rendered_fields": fields}, q) is may
