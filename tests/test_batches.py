from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred

from airflow_media_tasks import triggers
from airflow_media_tasks.batch.operator import GenerateMediaBatchOperator
from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.material import verification
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submissions import answers, submission
from airflow_media_tasks.submissions.records import SUBMISSIONS
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFundsError,
    MediaProviderError,
    MediaRequestError,
    MediaTaskError,
    MediaTaskFailed,
)
from airflow_media_tasks.triggers import MediaBatchTrigger
from airflow_media_tasks.wire.conversations import ConversationHook


Connect = Callable[..., str]
Complete = Callable[[GenerateMediaBatchOperator], Any]

QUICK = "[sim:queued=0] [sim:seconds=0.3]"


@pytest.fixture(autouse=True)
def _simulator_may_serve_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files come from loopback here; and an outage is not waited for."""
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS", "127.0.0.1")
    monkeypatch.setattr(ConversationHook, "retry_wait", 0.0)


def foxes(count: int, **special: str) -> list[dict[str, Any]]:
    """Requests whose prompts differ; `_3="[sim:...]"` gives number 3 a word for the simulator."""
    return [{"prompt": f"fox {number} {QUICK} {special.get(f'_{number}', '')}"} for number in range(count)]


def clear(context: dict[str, Any], *, keep: bool = True) -> None:
    """What Airflow does when somebody clears the task; without *keep*, as Airflow 3.4 does it."""
    context["ti"].max_tries += 1
    context["ti"].try_number += 1
    if not keep:
        context["task_state_store"].clear()


def batch(folder: Path, requests: Any, **changes: Any) -> GenerateMediaBatchOperator:
    """A batch of Kling videos that lands its files in *folder*; it succeeds if one of them does."""
    usual: dict[str, Any] = {
        "task_id": "films",
        "requests": requests,
        "operation": "text_to_video",
        "media_conn_id": "kling_default",
        "save_to": f"file://{folder}/",
        "poll_interval": 0.1,
        "on_partial_failure": "keep",
    }
    return GenerateMediaBatchOperator(**{**usual, **changes})


def lines_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """What the results file says of each request."""
    text = Path(manifest["results"].removeprefix("file://")).read_text()
    return [json.loads(line) for line in text.splitlines()]


def landed(folder: Path) -> list[str]:
    """The names of the files that are in *folder*, without their documents."""
    return sorted(path.name for path in folder.rglob("*") if path.suffix in (".mp4", ".png"))


def deferred(step: Callable[[], Any]) -> TaskDeferred:
    """What *step* defers with."""
    with pytest.raises(TaskDeferred) as waiting:
        step()
    return waiting.value


def fire(waiting: TaskDeferred) -> Any:
    """The event of a deferral, after its way through the metadata database."""
    event = asyncio.run(waiting.trigger.wait())
    return json.loads(json.dumps(event))


def test_one_process_decodes_all_of_a_batch(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one for each film, which would take most of the time."""
    started: list[verification.Decoder] = []
    start = verification.Decoder._start

    def starts(decoder: verification.Decoder) -> Any:
        started.append(decoder)
        return start(decoder)

    monkeypatch.setattr(verification.Decoder, "_start", starts)
    connect("kling")
    manifest = complete(batch(tmp_path, foxes(6), deferrable=False))
    assert manifest["succeeded"] == len(landed(tmp_path)) == 6
    assert len(started) == 1
    assert started[0].pid is None


@pytest.mark.parametrize("conn_type", ["vap", "acedata", "kling"])
@pytest.mark.parametrize("deferrable", [True, False])
def test_each_request_is_paid_once_and_told_of(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path, conn_type: str, deferrable: bool
) -> None:
    """A manifest in XCom, a line for each request in order, a file and its document for each success."""
    requests = foxes(8, _3="[sim:fail=moderation]", _5="[sim:reject=bad_request]")
    operator = batch(tmp_path, requests, media_conn_id=connect(conn_type), deferrable=deferrable)
    manifest = complete(operator)
    assert len(sim.ledger()) == manifest["submitted"] == 7
    assert (manifest["total"], manifest["succeeded"], manifest["failed"]) == (8, 6, 2)
    assert manifest["errors"] == {"MediaModerationError": 1, "MediaRequestError": 1}
    assert (manifest["provider"], manifest["made_by"]["task_id"]) == (conn_type, "task")
    assert manifest["results"] == f"file://{tmp_path}/dag/run/task/batch.jsonl"
    assert len(manifest["urls"]) == len(manifest["paths"]) == 6
    written = (tmp_path / "dag/run/task/batch.jsonl").read_bytes()
    assert manifest["results_sha256"] == hashlib.sha256(written).hexdigest()
    assert manifest["results_size"] == len(written)
    lines = lines_of(manifest)
    assert [line["number"] for line in lines] == list(range(8))
    assert [line["arguments"]["prompt"] for line in lines] == [one["prompt"] for one in requests]
    assert [line["error"]["type"] if line["error"] else line["status"] for line in lines] == [
        "succeeded",
        "succeeded",
        "succeeded",
        "MediaModerationError",
        "succeeded",
        "MediaRequestError",
        "succeeded",
        "succeeded",
    ]
    assert landed(tmp_path) == [f"{number}-0.mp4" for number in (0, 1, 2, 4, 6, 7)]
    (beside,) = tmp_path.rglob("4-0.mp4.json")
    told = json.loads(beside.read_text())
    assert told["arguments"] == requests[4]
    assert told["made_by"]["request"] == 4
    assert json.dumps(json.loads(json.dumps(manifest))) == json.dumps(manifest)


def test_all_of_them_wait_in_one_deferral(
    sim: Simulator, connect: Connect, context: Any, tmp_path: Path
) -> None:
    """One trigger for all; what goes through the database is ids and numbers, no secret and no result."""
    connect("kling", password="very-secret-key")
    operator = batch(tmp_path, foxes(12))
    waiting = deferred(lambda: operator.execute(context))
    path, arguments = waiting.trigger.serialize()
    assert path == "airflow_media_tasks.triggers.MediaBatchTrigger"
    assert (arguments["pages"], arguments["wake_after"]) == ([0], 12)
    event = fire(waiting)
    assert event == {"ended": {"0": f"{2**12 - 1:x}"}, "gave_up": {}}
    stored = [context["task_state_store"], context["asset_state_store"][SUBMISSIONS]]
    assert "very-secret" not in json.dumps([arguments, event, stored])
    assert "http" not in json.dumps(event)
    assert operator.execute_complete(context, event)["succeeded"] == 12


def test_never_more_than_concurrency_in_flight(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """A provider that refuses a fourth task refuses none, and no slot is held while they wait."""
    connect("kling")
    sim.fault("slots", provider="kling", limit=3)
    manifest = complete(batch(tmp_path, foxes(10), concurrency=3))
    assert manifest["succeeded"] == len(sim.ledger()) == 10
    assert sum(count for path, count in sim.requests().items() if path.startswith("POST /kling/")) == 10


def test_a_provider_without_room_slows_the_batch_and_fails_nothing(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused for want of room waits for its turn; it is neither lost nor an error."""
    connect("kling")
    monkeypatch.setattr(triggers.Turn, "next_try", lambda self, retry_after: time.time() + 0.2)
    sim.fault("slots", provider="kling", limit=2)
    manifest = complete(batch(tmp_path, foxes(7)))
    assert manifest["succeeded"] == len(sim.ledger()) == 7


def test_no_room_for_too_long_is_an_error(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """With nothing under way and no room until `queue_timeout`, the rest is told to have been refused."""
    connect("kling")
    sim.fault("concurrency", provider="kling")
    with pytest.raises(MediaTaskError, match="parallel task over resource pack limit"):
        complete(batch(tmp_path, foxes(3), queue_timeout=0.1))
    assert sim.ledger() == []


def test_no_room_turn_after_turn_is_an_error_in_the_end(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`queue_timeout` counts from the first refusal, however many turns there were since."""
    connect("kling")
    monkeypatch.setattr(triggers.Turn, "next_try", lambda self, retry_after: time.time() + 0.2)
    sim.fault("concurrency", provider="kling")
    with pytest.raises(MediaTaskError, match="parallel task over resource pack limit"):
        complete(batch(tmp_path, foxes(3), queue_timeout=1))
    assert sim.ledger() == []


def test_a_killed_worker_goes_on_where_it_was(
    sim: Simulator, connect: Connect, context: Any, complete: Complete, tmp_path: Path
) -> None:
    """Whatever was submitted before is waited for; nothing is paid twice and nothing is left out."""
    connect("kling")
    operator = batch(tmp_path, foxes(9), concurrency=4)
    deferred(lambda: operator.execute(context))
    assert len(sim.ledger()) == 4
    # Its deferral is lost; later the worker that lands the first ones dies, too.
    waiting = deferred(lambda: operator.execute(context))
    assert len(sim.ledger()) == 4
    event = fire(waiting)
    deferred(lambda: operator.execute_complete(context, event))
    manifest = complete(operator)
    assert manifest["succeeded"] == len(sim.ledger()) == 9
    assert len({entry["client_ref"] for entry in sim.ledger()}) == 9


@pytest.mark.parametrize("word", ["lose-reply*1", "error-after-accept=504*1"])
def test_a_lost_reply_is_found_again(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path, word: str
) -> None:
    """Each request has a reference of its own at the provider, by which its task is adopted."""
    connect("kling")
    requests = foxes(6, **{f"_{number}": f"[sim:{word}]" for number in range(6)})
    manifest = complete(batch(tmp_path, requests))
    assert manifest["succeeded"] == len(sim.ledger()) == 6


def test_a_retry_submits_only_what_may_yet_succeed(
    sim: Simulator, connect: Connect, context: Any, complete: Complete, tmp_path: Path
) -> None:
    """While tries are left, a failure that may pass is one; in the last try what was made is kept."""
    connect("kling")
    context["ti"].max_tries = 1
    requests = foxes(6, _1="[sim:fail=provider*1]", _2="[sim:fail=moderation]", _4="[sim:fail=provider]")
    operator = batch(tmp_path, requests)
    with pytest.raises(MediaProviderError, match="2 of 6 requests failed and may yet succeed"):
        complete(operator)
    assert context["pushed"]["media_batch"]["succeeded"] == 3
    assert context["pushed"]["media_error"]["type"] == "MediaProviderError"
    assert len(sim.ledger()) == 6
    context["ti"].try_number = 2
    manifest = complete(operator)
    assert len(sim.ledger()) == 6 + 2
    assert (manifest["succeeded"], manifest["errors"]) == (
        4,
        {"MediaModerationError": 1, "MediaTaskFailed": 1},
    )
    assert landed(tmp_path) == [f"{number}-0.mp4" for number in (0, 1, 3, 5)]


@pytest.mark.parametrize(
    ("changes", "word", "fails"),
    [
        ({}, "moderation", False),
        ({}, "provider", True),
        ({"on_partial_failure": "keep"}, "provider", False),
        ({"min_success": 1}, "provider", False),
        ({"min_success": 4}, "moderation", False),
        ({"min_success": 5}, "moderation", True),
        ({"min_success": 0.6}, "moderation", False),
        ({"min_success": 0.9}, "moderation", True),
        ({"min_success": 1.0}, "moderation", True),
        ({"on_partial_failure": "keep", "min_success": 5}, "provider", True),
        ({"on_partial_failure": "fail"}, "moderation", True),
        ({"on_partial_failure": "fail", "min_success": 1}, "moderation", True),
    ],
)
def test_what_counts_as_success(
    sim: Simulator,
    connect: Connect,
    complete: Complete,
    tmp_path: Path,
    changes: dict[str, Any],
    word: str,
    fails: bool,
) -> None:
    """All but what moderation refused, unless a number, a share, `keep` or `fail` says otherwise."""
    connect("kling")
    operator = batch(tmp_path, foxes(5, _2=f"[sim:fail={word}]"), **{"on_partial_failure": None, **changes})
    if fails:
        with pytest.raises(MediaTaskFailed, match="1 of 5 requests failed"):
            complete(operator)
    else:
        assert complete(operator)["succeeded"] == 4
    assert len(landed(tmp_path)) == 4
    assert len((tmp_path / "dag/run/task/batch.jsonl").read_text().splitlines()) == 5


def test_nothing_but_moderated_requests_is_no_success(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """At least one has to succeed; the error says that it was moderation."""
    connect("kling")
    requests = foxes(2, _0="[sim:fail=moderation]", _1="[sim:fail=moderation]")
    with pytest.raises(MediaTaskFailed, match=r"2 of 2 requests failed, 2 of them by moderation.*request 0"):
        complete(batch(tmp_path, requests, on_partial_failure=None))


def test_the_request_that_is_named_is_one_that_made_it_fail(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """Not one that moderation refused, which may fail."""
    connect("kling")
    requests = foxes(4, _1="[sim:fail=moderation]", _2="[sim:reject=bad_request]")
    with pytest.raises(MediaTaskFailed, match=r"2 of 4 requests failed.*the first, request 2: "):
        complete(batch(tmp_path, requests, on_partial_failure=None))


def test_a_retry_does_not_send_a_bad_request_again(
    sim: Simulator, connect: Connect, context: Any, complete: Complete, tmp_path: Path
) -> None:
    """The error of the try names a request that may yet succeed, and the next try sends that one alone."""
    connect("kling")
    context["ti"].max_tries = 1
    requests = foxes(4, _1="[sim:reject=bad_request]", _2="[sim:fail=provider*1]")
    operator = batch(tmp_path, requests)
    with pytest.raises(MediaProviderError, match=r"1 of 4 .* may yet succeed.*the first, request 2: "):
        complete(operator)

    def sent() -> int:
        return sum(count for path, count in sim.requests().items() if path.startswith("POST /kling/"))

    assert sent() == 4
    context["ti"].try_number = 2
    assert complete(operator)["errors"] == {"MediaRequestError": 1}
    assert sent() == 5


@pytest.mark.parametrize(("asked", "paid"), [(False, 1), (True, 2)])
def test_a_clear_keeps_what_was_made(
    sim: Simulator,
    connect: Connect,
    context: Any,
    complete: Complete,
    tmp_path: Path,
    asked: bool,
    paid: int,
) -> None:
    """Only what failed is submitted again; what moderation refused after it was paid, only if asked."""
    connect("kling")
    requests = foxes(5, _1="[sim:fail=moderation*1]", _3="[sim:fail=provider*1]")
    operator = batch(tmp_path, requests, retry_moderated=asked)
    assert complete(operator)["succeeded"] == 3
    context["ti"].max_tries, context["ti"].try_number = 1, 2
    manifest = complete(operator)
    assert len(sim.ledger()) == 5 + paid
    assert manifest["succeeded"] == 3 + paid
    context["ti"].max_tries, context["ti"].try_number = 2, 3
    assert complete(operator)["succeeded"] == 3 + paid
    assert len(sim.ledger()) == 5 + paid


@pytest.mark.parametrize("keep", [True, False])
def test_what_a_batch_has_cost_is_known_while_it_runs(
    connect: Connect, context: Any, complete: Complete, tmp_path: Path, keep: bool
) -> None:
    """The entry with the counts has the sums of the results, also after a clear, which pays nothing again."""
    price = {"amount": "0.40", "unit": "USD"}
    connect("acedata", extra={"prices": {"*": price}})
    connect("kling")
    for conn_type, operation in (("acedata", "veo/text_to_video"), ("kling", "text_to_video")):
        context["task_state_store"].clear()
        requests = foxes(4, _3="[sim:fail=moderation]")
        operator = batch(
            tmp_path / conn_type, requests, operation=operation, media_conn_id=f"{conn_type}_default"
        )
        manifest = complete(operator)
        assert manifest["estimated"] == ([{**price, "amount": "1.20"}] if conn_type == "acedata" else [])
        assert [one["unit"] for one in manifest["cost"]] == ([] if conn_type == "acedata" else ["units"])
        for _ in range(2):
            state = context["task_state_store"]["media_task.batch"]
            assert {name: state[name] for name in ("cost", "estimated")} == {
                name: manifest[name] for name in ("cost", "estimated")
            }
            clear(context, keep=keep)
            assert complete(operator)["cost"] == manifest["cost"]


def test_a_request_that_was_changed_is_a_new_one(
    sim: Simulator, connect: Connect, context: Any, complete: Complete, tmp_path: Path
) -> None:
    """The others stay as they are."""
    connect("kling")
    complete(batch(tmp_path, foxes(4)))
    changed = foxes(4)
    changed[2]["prompt"] = f"a badger {QUICK}"
    assert complete(batch(tmp_path, changed))["succeeded"] == 4
    assert Counter(entry["request"]["prompt"].split()[1] for entry in sim.ledger()) == {
        "0": 1,
        "1": 1,
        "2": 1,
        "3": 1,
        "badger": 1,
    }


@pytest.mark.parametrize("cleared", [False, True], ids=["retried", "cleared"])
def test_what_did_not_land_is_landed_by_the_next_try_and_not_paid_again(
    cleared: bool,
    sim: Simulator,
    connect: Connect,
    context: Any,
    complete: Complete,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host that may not be asked is the request's error; with the right setting the file lands."""
    connect("kling")
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS", "")
    operator = batch(tmp_path, foxes(3))
    with pytest.raises(MediaTaskFailed, match="3 of 3 requests failed"):
        complete(operator)
    assert len(sim.ledger()) == 3
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS", "127.0.0.1")
    context["ti"].max_tries += cleared
    assert complete(operator)["succeeded"] == 3
    assert len(sim.ledger()) == 3
    assert len(landed(tmp_path)) == 3


def test_a_task_that_takes_too_long_is_waited_for_again(
    sim: Simulator, connect: Connect, context: Any, complete: Complete, tmp_path: Path
) -> None:
    """Its error says so, the others are kept, and the next try finds it finished."""
    connect("kling")
    requests = [*foxes(2), {"prompt": "slow [sim:queued=0] [sim:seconds=60]"}]
    operator = batch(tmp_path, requests, timeout=1.5)
    manifest = complete(operator)
    assert manifest["errors"] == {"MediaTaskTimeout": 1}
    sim.advance(61)
    context["ti"].max_tries = 1
    assert complete(operator)["succeeded"] == 3
    assert len(sim.ledger()) == 3


def test_an_unknown_outcome_is_a_question_about_one_request(
    sim: Simulator,
    connect: Connect,
    context: Any,
    complete: Complete,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others go on; the answer, an entry beside the request's record, is followed by the next run."""
    connect("vap")
    monkeypatch.setattr(submission, "SETTLE", 0.5)
    # VAP lists no upscaling: nobody can say whether a lost one was accepted.
    lost = {
        "operation": "upscale_image",
        "image_url": "https://cdn.example/a.png",
        "note": "[sim:lose-reply]",
    }
    operator = batch(tmp_path, [lost, *foxes(2)], media_conn_id="vap_default", timeout=3)
    manifest = complete(operator)
    assert len(sim.ledger()) == 3
    unknown = lines_of(manifest)[0]
    assert manifest["errors"] == {"SubmissionOutcomeUnknown": 1}
    assert "adopt dag run task --request 0 operations/MEDIA_TASK_ID" in unknown["error"]["message"]
    record = context["task_state_store"]["media_task.page.0.0"]["0"]
    assert (record["phase"], record["key"]) == ("intent", unknown["key"])
    (entry,) = (entry for entry in sim.ledger() if entry["operation"] == "upscale_image")
    assert f"--reference {record['client_ref']}" in unknown["error"]["message"]
    key = answers.key_of(answers.reference_of("success", record, record["client_ref"]))
    context["task_state_store"][key] = answers.answer(None, record, f"operations/{entry['id']}").to_dict()
    sim.advance(100)
    assert complete(operator)["succeeded"] == 3
    assert len(sim.ledger()) == 3


def test_a_batch_that_fails_with_questions_says_how_to_answer_them(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clear alone would send nothing again, so the error has the command, and that first."""
    connect("vap")
    monkeypatch.setattr(submission, "SETTLE", 0.5)
    lost = {
        "operation": "upscale_image",
        "image_url": "https://cdn.example/a.png",
        "note": "[sim:lose-reply]",
    }
    changes = {"on_partial_failure": None, "media_conn_id": "vap_default", "timeout": 3}
    with pytest.raises(MediaTaskFailed) as caught:
        complete(batch(tmp_path, [*foxes(1), lost], **changes))
    said = caught.value.message
    assert "1 of 2 requests failed" in said
    assert "1 of them ask what became of their submission" in said
    assert "`airflow media-tasks adopt dag run task --request 1 MEDIA_TASK_ID`" in said
    assert len(sim.ledger()) == 2


@pytest.mark.parametrize("decision", ["adopt", "resubmit"])
def test_an_answer_counts_that_comes_while_the_worker_writes_the_neighbours(
    sim: Simulator,
    connect: Connect,
    context: Any,
    complete: Complete,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decision: str,
) -> None:
    """Each has entries of its own: none is lost, and the answer is followed by the next try."""
    connect("vap")
    monkeypatch.setattr(submission, "SETTLE", 0.5)
    lost = {
        "operation": "upscale_image",
        "image_url": "https://cdn.example/a.png",
        "note": "[sim:lose-reply]",
    }
    operator = batch(tmp_path, [lost, *foxes(3)], media_conn_id="vap_default")
    store = context["task_state_store"]
    written: list[str] = []

    class Answered(type(store)):  # type: ignore[misc]  # the fixture's class
        """The store, in which a person's answer comes just before each record of a neighbour."""

        def set(self, key: str, value: Any, retention: object = None) -> None:
            """Writes both."""
            record = self.get("media_task.page.0.0", {}).get("0")
            if record is not None and record.get("asked_at"):
                paid = next(one for one in sim.ledger() if one["operation"] == "upscale_image")
                own = f"operations/{paid['id']}" if decision == "adopt" else None
                self[answers.key_of(record["client_ref"])] = answers.answer(None, record, own).to_dict()
                written.append(key)
            super().set(key, value, retention)

    context["task_state_store"] = Answered(store)
    assert complete(operator)["errors"] == {"SubmissionOutcomeUnknown": 1}
    assert written
    sim.advance(100)
    manifest = complete(operator)
    upscaled = [one for one in sim.ledger() if one["operation"] == "upscale_image"]
    assert len(sim.ledger()) == 3 + len(upscaled)
    if decision == "adopt":
        assert (manifest["succeeded"], len(upscaled)) == (4, 1)
    else:
        assert len(upscaled) == 2


def test_a_request_whose_task_the_provider_does_not_know_can_be_given_up(
    sim: Simulator, connect: Connect, context: Any, complete: Complete, tmp_path: Path
) -> None:
    """Nothing is submitted anew by itself; a person may say so, and then one is."""
    connect("kling")
    operator = batch(tmp_path, foxes(2))
    deferred(lambda: operator.execute(context))
    event = {"ended": {"0": "2"}, "gave_up": {"0": "1"}}
    sim.advance(100)
    page = context["task_state_store"]["media_task.page.0.0"]
    page["0"]["media_task_id"] = "videos/text2video/100"
    with contextlib.suppress(MediaTaskError):
        operator.execute_complete(context, event)
    record = context["task_state_store"]["media_task.page.0.0"]["0"]
    assert (record["phase"], record["failure"]) == ("submitted", "MediaNotFoundError")
    context["task_state_store"][answers.key_of(record["client_ref"])] = answers.answer(
        None, record, None
    ).to_dict()
    assert complete(operator)["succeeded"] == 2
    assert len(sim.ledger()) == 3


def test_a_batch_runs_under_dag_test(
    sim: Simulator, connect: Connect, run_dag: Callable[[Any], Any], tmp_path: Path
) -> None:
    """Airflow's channel has no lock there: the batch asks in one thread, and pays each request once."""
    connect("kling")
    with DAG("batch_under_test") as dag_of_batch:
        batch(tmp_path, foxes(5))
    assert run_dag(dag_of_batch).state == "success"
    assert len(sim.ledger()) == 5


@pytest.mark.parametrize(
    ("password", "error"), [("sim-no-funds", MediaFundsError), ("sim-bad-key", MediaAuthError)]
)
def test_what_all_would_meet_stops_the_batch(
    sim: Simulator,
    connect: Connect,
    complete: Complete,
    tmp_path: Path,
    password: str,
    error: type[MediaTaskError],
) -> None:
    """Without money or a good key, one refusal is enough; the error is the provider's own."""
    connect("kling", password=password)
    with pytest.raises(error):
        complete(batch(tmp_path, foxes(50)))
    assert sim.ledger() == []
    assert sum(count for path, count in sim.requests().items() if path.startswith("POST /kling/")) <= 8


def test_too_many_requests_are_refused_before_the_first(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """A list that grew by mistake costs nothing."""
    connect("kling")
    with pytest.raises(MediaFundsError, match="there are 6, and max_items allows 5") as refused:
        complete(batch(tmp_path, foxes(6), max_items=5))
    assert refused.value.code == "max_items"
    assert sim.ledger() == []


def test_requests_from_a_file(sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path) -> None:
    """One JSON object a line; what a request does not say, the operator's arguments do."""
    connect("kling")
    source = tmp_path / "requests.jsonl"
    source.write_text(
        "\n".join(
            [
                json.dumps({"prompt": f"a {QUICK}", "aspect_ratio": "9:16"}),
                "",
                json.dumps({"prompt": f"b {QUICK}", "operation": "text_to_image"}),
            ]
        )
    )
    manifest = complete(batch(tmp_path / "out", f"file://{source}", arguments={"aspect_ratio": "1:1"}))
    assert manifest["succeeded"] == 2
    assert [(line["operation"], line["arguments"]["aspect_ratio"]) for line in lines_of(manifest)] == [
        ("text_to_video", "9:16"),
        ("text_to_image", "1:1"),
    ]
    assert landed(tmp_path) == ["0-0.mp4", "1-0.png"]


@pytest.mark.parametrize("mark", ["first", "each line", "none"])
def test_a_byte_order_mark_is_no_part_of_a_request(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path, mark: str
) -> None:
    """Spreadsheets write one at the beginning of a file, and files put together have several."""
    connect("kling")
    source = tmp_path / "requests.jsonl"
    lines = [json.dumps({"prompt": f"{name} {QUICK}"}) for name in ("fox", "owl")]
    if mark != "none":
        lines = [f"\ufeff{line}" if mark == "each line" or line is lines[0] else line for line in lines]
    source.write_text("\r\n".join([*lines, "\ufeff"]), encoding="utf-8")
    assert complete(batch(tmp_path / "out", f"file://{source}"))["succeeded"] == 2
    assert sorted(entry["request"]["prompt"][:3] for entry in sim.ledger()) == ["fox", "owl"]


def bad_rows(folder: Path) -> str:
    """The path of a file with an empty line, and two bad rows among good ones."""
    source = folder / "requests.jsonl"
    rows = [
        json.dumps({"prompt": f"a {QUICK}"}),
        "",
        "{",
        json.dumps({"prompt": ""}),
        json.dumps({"prompt": f"b {QUICK}"}),
    ]
    source.write_text("\n".join(rows))
    return f"file://{source}"


def test_a_file_of_another_kind_is_told_where_its_rows_are_made(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """A CSV file is not read as one JSON object a line; the error says what is done with one."""
    connect("kling")
    (tmp_path / "films.csv").write_text("prompt,duration\na fox,5\n")
    with pytest.raises(MediaRequestError, match="made a list of dicts in a task before"):
        complete(batch(tmp_path / "out", f"file://{tmp_path}/films.csv"))
    assert sim.requests() == {}


def test_bad_rows_of_a_file_are_named_by_its_lines(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """All of them at once, as an editor counts them; nothing is sent."""
    connect("kling")
    with pytest.raises(MediaRequestError, match=r"2 of 4 requests cannot be sent") as refused:
        complete(batch(tmp_path / "out", bad_rows(tmp_path)))
    lines = str(refused.value).splitlines()
    assert [line.partition(" of ")[0] for line in lines[1:]] == ["line 3", "line 4"]
    assert sim.requests() == {}


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_bad_row_can_be_its_own_error(
    sim: Simulator, connect: Connect, context: Any, complete: Complete, tmp_path: Path, deferrable: bool
) -> None:
    """The others are made; the bad one counts as failed and says why, by its line."""
    connect("kling")
    operator = batch(
        tmp_path / "out",
        bad_rows(tmp_path),
        on_bad_request="keep",
        deferrable=deferrable,
    )
    for _ in range(2):
        manifest = complete(operator)
        assert (manifest["total"], manifest["succeeded"], manifest["failed"]) == (4, 2, 2)
        assert manifest["errors"] == {"MediaRequestError": 2}
        lines = lines_of(manifest)
        assert [line["status"] for line in lines] == ["succeeded", "refused", "refused", "succeeded"]
        assert lines[1]["error"]["message"].startswith(f"line 3 of 'file://{tmp_path}")
        assert "prompt" in lines[2]["error"]["message"]
        assert lines[2]["arguments"] == {"prompt": ""}
        assert len(sim.ledger()) == 2
        clear(context)
    with pytest.raises(MediaTaskFailed, match="2 of 4 requests failed"):
        complete(batch(tmp_path / "out", bad_rows(tmp_path), on_bad_request="keep", on_partial_failure=None))


def test_what_json_cannot_hold_can_be_its_own_error(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """Whatever stands in the list, the results are JSON."""
    connect("kling")
    requests = [*foxes(1), {"prompt": "a", "when": object()}, "no dict", {"prompt": "a", "operation": 5}]
    manifest = complete(batch(tmp_path, requests, on_bad_request="keep", min_success=1))
    assert manifest["errors"] == {"MediaRequestError": 3}
    assert manifest["operation"] == "text_to_video"
    assert [line["arguments"] for line in lines_of(manifest)[1:]] == [{}, {}, {"prompt": "a", "operation": 5}]


def test_with_nothing_but_bad_rows_nothing_is_sent(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """And the batch fails, also if bad rows are kept."""
    connect("kling")
    with pytest.raises(MediaTaskFailed, match=r"2 of 2 requests failed.*request 0 of 2"):
        complete(batch(tmp_path, [{"prompt": ""}, "x"], on_bad_request="keep"))
    assert sim.requests() == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"requests": []}, ["requests must be a list", "[]"]),
        ({"requests": None}, ["requests must be a list", "None"]),
        ({"requests": ["a fox"]}, ["request 0 of 1", "dict of arguments", "'a fox'"]),
        ({"requests": [{"prompt": "a"}, {"prompt": ""}]}, ["request 1 of 2", "'prompt'", "not empty"]),
        (
            {"requests": [{"prompt": "a", "operation": "text_to_smell"}]},
            ["request 0", "text_to_smell", "there are"],
        ),
        ({"requests": [{"prompt": "a"}], "operation": None}, ["request 0", "no operation"]),
        ({"requests": [{"prompt": "a"}], "arguments": ["x"]}, ["arguments must be a dict", "['x']"]),
        ({"requests": "file:///nowhere/at/all.jsonl"}, ["requests", "cannot be read", "nowhere"]),
        ({"requests": [{"prompt": "a"}], "save_to": None}, ["results must be the path", "save_to"]),
        ({"requests": [{"prompt": "a"}], "save_to": "file:///proc/nothing/"}, ["cannot be written"]),
        ({"requests": [{"prompt": "a"}], "media_conn_id": "no_such"}, ["'no_such'"]),
    ],
)
def test_bad_input_is_one_clear_error_and_costs_nothing(
    sim: Simulator,
    connect: Connect,
    complete: Complete,
    tmp_path: Path,
    changes: dict[str, Any],
    says: list[str],
) -> None:
    """Every request is looked at before the first is sent; the error names the request and the argument."""
    connect("kling")
    with pytest.raises(MediaTaskError) as refused:
        complete(batch(tmp_path, **changes))
    assert all(word in str(refused.value) for word in says), str(refused.value)
    assert sim.requests() == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"concurrency": 0}, "concurrency must be a whole number from 1, or None, got 0"),
        ({"concurrency": 2.5}, "concurrency must be"),
        ({"max_items": True}, "max_items must be"),
        ({"min_success": 1.5}, "min_success must be"),
        ({"min_success": -1}, "min_success must be"),
        ({"on_partial_failure": "ignore"}, "on_partial_failure must be one of keep, fail, got 'ignore'"),
        ({"on_bad_request": "drop"}, "on_bad_request must be one of fail, keep, got 'drop'"),
        ({"on_unknown_submission": "guess"}, "on_unknown_submission must be one of"),
        ({"timeout": 0}, "timeout must be"),
        ({"poll_interval": "5"}, "poll_interval must be"),
    ],
)
def test_bad_settings_are_refused_when_the_dag_is_read(changes: dict[str, Any], says: str) -> None:
    """A wrong word or number is seen before any run."""
    with pytest.raises(MediaRequestError, match=says):
        batch(Path("/tmp"), [], **changes)  # noqa: S108  # nothing is written there


def test_an_event_of_another_kind_is_no_state(context: Any, connect: Connect, tmp_path: Path) -> None:
    """What crosses the database is checked; the try ends with an error that can be retried."""
    connect("kling")
    with pytest.raises(MediaProviderError, match="no state of a batch"):
        batch(tmp_path, foxes(1)).execute_complete(context, {"status": "done"})


async def test_the_trigger_wakes_a_worker_when_enough_have_ended(
    sim: Simulator, connect: Connect, context: Any
) -> None:
    """A quarter of the room is worth a worker's start, a single task is not."""
    conn = connect("kling")
    hook = get_media_hook(conn)
    page = {}
    for number in range(8):
        word = QUICK if number < 2 else "[sim:queued=0] [sim:seconds=60]"
        task = await hook.asubmit("text_to_video", {"prompt": f"{number} {word}"})
        now = datetime.now(timezone.utc).isoformat()
        page[str(number)] = {
            "phase": "submitted",
            "media_task_id": task.id,
            "operation": "text_to_video",
            "submitted_after": now,
        }
    context["asset_state_store"][SUBMISSIONS].set("x.0", page)
    trigger = MediaBatchTrigger(conn, 0.1, 60.0, None, 2, None, "x.", [0])
    (event,) = [event.payload async for event in trigger.run()]
    assert event == {"ended": {"0": "3"}, "gave_up": {}}
    for number in ("0", "1"):
        page[number]["phase"] = "finished"
    context["asset_state_store"][SUBMISSIONS].set("x.0", page)
    again = MediaBatchTrigger(conn, 0.1, 60.0, None, 6, time.time() + 0.3, "x.", [0])
    (event,) = [event.payload async for event in again.run()]
    assert event == {"ended": {}, "gave_up": {}}
