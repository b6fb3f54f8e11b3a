"""Operators: what they refuse, what they submit, what they return."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred

from airflow_media_tasks.batch.operator import GenerateMediaBatchOperator
from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.operators import (
    DownloadMediaOperator,
    GenerateAudioOperator,
    GenerateImageOperator,
    GenerateVideoOperator,
    MediaTaskOperator,
)
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submissions import answers
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    MediaTaskFailed,
    MediaTaskTimeout,
    TaskStatus,
)


Connect = Callable[..., str]
Complete = Callable[[Any], Any]

QUICK = "[sim:queued=0] [sim:seconds=0.1]"
"""A task that is done at the second look."""


def video(**arguments: Any) -> MediaTaskOperator:
    """An operator of Kling's `text_to_video`, quick to look."""
    usual: dict[str, Any] = {"operation": "text_to_video", "arguments": {"prompt": f"a fox {QUICK}"}}
    return MediaTaskOperator(
        **{"task_id": "t", "media_conn_id": "kling_default", "poll_interval": 0.1, **usual, **arguments}
    )


# What comes out.


def test_a_task_that_the_provider_does_not_know_can_be_given_up(
    sim: Simulator, connect: Connect, context: Any
) -> None:
    """The next try looks again and submits nothing; a person may say that a new one is wanted."""
    connect("kling")
    operator = video(arguments={"prompt": "a fox [sim:queued=0] [sim:seconds=600]"})

    def record() -> dict[str, Any]:
        with pytest.raises(TaskDeferred):
            operator.execute(context)
        return dict(context["task_state_store"]["media_task"])

    waiting = record()
    gone = MediaTask(waiting["media_task_id"], TaskStatus.QUEUED, error=MediaNotFoundError("no such task"))
    with pytest.raises(answers.NotAnswerable):
        answers.reference_of("failed", waiting, None)
    with pytest.raises(MediaNotFoundError):
        operator.execute_complete(context, gone.to_dict())
    assert context["task_state_store"]["media_task"]["asked_at"]
    assert record() == waiting
    with pytest.raises(MediaNotFoundError):
        operator.execute_complete(context, gone.to_dict())
    asking = context["task_state_store"]["media_task"]
    key = answers.key_of(answers.reference_of("failed", asking, None))
    context["task_state_store"][key] = answers.answer(None, asking, None).to_dict()
    assert record()["media_task_id"] != waiting["media_task_id"]
    assert len(sim.ledger()) == 2


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_result_is_the_task_as_a_dict(
    sim: Simulator, connect: Connect, context: Any, complete: Complete, deferrable: bool
) -> None:
    """Deferred or not, the same JSON dict comes back, of one submission, whose id is in XCom at once."""
    connect("kling")
    result = complete(video(deferrable=deferrable))
    (paid,) = sim.ledger()
    assert result["id"] == f"videos/text2video/{paid['id']}" == context["pushed"]["media_task_id"]
    assert (result["operation"], result["status"]) == ("text_to_video", "succeeded")
    assert result["media_conn_id"] == "kling_default"
    assert result["url"] == result["urls"][0] == result["files"][0]["url"]
    assert result["files"][0]["kind"] == "video"
    assert result["cost"]["amount"]
    assert result["error"] is None
    assert "raw" not in result
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize(
    ("operation", "conn_id"),
    [
        ("lip_sync", "kling_default"),
        ("veo/text_to_video", "acedata_default"),
        ("veo/upscale_video", "acedata_default"),
        ("trim_video", "vap_default"),
        ("inpaint_image", "vap_default"),
    ],
)
def test_the_connection_of_the_one_who_makes_it_is_the_default(operation: str, conn_id: str) -> None:
    """Where one provider alone has an operation, its connection is meant; one that is given counts."""
    assert MediaTaskOperator(task_id="t", operation=operation).media_conn_id == conn_id
    assert GenerateMediaBatchOperator(task_id="t", requests=[], operation=operation).media_conn_id == conn_id
    assert MediaTaskOperator(task_id="t", operation=operation, media_conn_id="mine").media_conn_id == "mine"
    with DAG("d", default_args={"media_conn_id": "ours"}):
        assert GenerateVideoOperator(task_id="t", operation=operation).media_conn_id == "ours"


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        ("text_to_video", "'text_to_video' is one of vap, acedata, kling"),
        ("extend_video", "'extend_video' is one of acedata, kling"),
        ("text_to_smell", "'text_to_smell' is none"),
        ("{{ params.operation }}", "is none"),
        (None, "None is none"),
    ],
)
def test_a_connection_that_cannot_be_known_has_to_be_given(operation: str | None, says: str) -> None:
    """The error comes when the DAG is read, and says who could have been meant."""
    with pytest.raises(MediaRequestError, match=f"media_conn_id must be the id of a connection.* {says}"):
        GenerateVideoOperator(task_id="t", operation=operation, prompt="a fox")
    with pytest.raises(MediaRequestError, match="media_conn_id must be the id of a connection"):
        GenerateMediaBatchOperator(task_id="t", requests=[], operation=operation)


def test_what_was_made_is_named_for_the_next_step(
    sim: Simulator, connect: Connect, context: Any, complete: Complete
) -> None:
    """The provider's id of a video, which extend, upscale and lip-sync ask for, is an XCom of its own."""
    connect("kling")
    first = complete(video())
    assert first["video_id"] == first["files"][0]["id"] == context["pushed"]["video_id"]
    assert first["file_ids"] == [first["video_id"]] == context["pushed"]["file_ids"]
    longer = complete(
        video(operation="extend_video", arguments={"video_id": first["video_id"], "prompt": QUICK})
    )
    assert longer["video_id"] not in (None, first["video_id"])
    images = complete(video(operation="text_to_image", arguments={"prompt": f"a fox {QUICK}", "count": 3}))
    assert (len(images["file_ids"]), images["video_id"]) == (
        len([f for f in images["files"] if "id" in f]),
        None,
    )


def test_the_result_says_what_was_asked_for(sim: Simulator, connect: Connect, complete: Complete) -> None:
    """A step far away can tell who made this from what, and when; a long text is named, not carried along."""
    connect("kling")
    prompt = f"a fox {QUICK}"
    result = complete(video(arguments={"prompt": prompt, "note": "x" * 5000}))
    assert result["provider"] == "kling"
    assert result["arguments"]["prompt"] == prompt
    assert result["arguments"]["note"] == "x" * 200 + "... (5000 characters)"
    assert result["submitted_at"] < result["finished_at"]
    assert result["made_by"]["task_id"] == "task"


def test_a_failure_is_in_xcom_too(sim: Simulator, connect: Connect, complete: Complete, context: Any) -> None:
    """A page can tell what a failed task's error was without reading its log."""
    connect("kling")
    with pytest.raises(MediaModerationError) as failure:
        complete(video(arguments={"prompt": f"x {QUICK} [sim:fail=moderation]"}))
    assert context["pushed"]["media_error"] == failure.value.to_dict()


def test_it_waits_without_a_worker_and_stores_no_secret(
    sim: Simulator, connect: Connect, context: Any
) -> None:
    """What goes to the metadata database is the id, the connection's name and numbers."""
    connect("kling", password="very-secret-key")
    with pytest.raises(TaskDeferred) as deferred:
        video(timeout=600, queue_timeout=60).execute(context)
    path, arguments = deferred.value.trigger.serialize()
    assert path == "airflow_media_tasks.triggers.MediaTaskTrigger"
    assert "very-secret" not in json.dumps([arguments, deferred.value.kwargs, context["pushed"]])
    assert "very-secret" not in json.dumps(context["task_state_store"])
    assert deferred.value.method_name == "execute_complete"
    now = time.time()
    assert abs(arguments["deadline"] - now - 600) < 5
    assert abs(arguments["queue_deadline"] - now - 60) < 5
    assert timedelta(seconds=600) < deferred.value.timeout < timedelta(seconds=900)


@pytest.mark.parametrize(
    ("limit", "expected"), [(timedelta(seconds=90), 90), (timedelta(hours=5), 3600), (None, 3600)]
)
def test_execution_timeout_shortens_the_wait(
    sim: Simulator, connect: Connect, context: Any, limit: timedelta | None, expected: float
) -> None:
    """Airflow does not apply it while a task is deferred, so the deadline does."""
    connect("kling")
    with pytest.raises(TaskDeferred) as deferred:
        video(execution_timeout=limit).execute(context)
    assert abs(deferred.value.trigger.deadline - time.time() - expected) < 5


def test_a_timeout_neither_cancels_nor_submits_again(
    sim: Simulator, connect: Connect, complete: Complete
) -> None:
    """The error names the task, which goes on; the next try finds it and pays nothing."""
    connect("kling")
    operator = video(arguments={"prompt": "slow [sim:queued=0] [sim:seconds=60]"}, timeout=0.3)
    with pytest.raises(MediaTaskTimeout, match="may still finish and be billed") as timeout:
        complete(operator)
    (paid,) = sim.ledger()
    assert paid["id"] in str(timeout.value)
    sim.advance(61)
    assert paid["id"] in complete(operator)["id"]
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("fail=moderation", MediaModerationError),
        ("fail=provider", MediaTaskFailed),
        ("no-output", MediaTaskFailed),
        ("reject=moderation", MediaModerationError),
        ("reject=funds", MediaFundsError),
        ("reject=auth", MediaAuthError),
        ("reject=bad_request", MediaRequestError),
    ],
)
@pytest.mark.parametrize("conn_type", ["vap", "acedata", "kling"])
def test_a_failure_has_the_right_class(
    sim: Simulator,
    connect: Connect,
    complete: Complete,
    conn_type: str,
    word: str,
    error: type[MediaTaskError],
) -> None:
    """Whichever provider says it, and whether at submission or later, a failure is what it is called."""
    operator = video(
        media_conn_id=connect(conn_type), arguments={"prompt": f"x {QUICK} [sim:{word}]"}, timeout=10
    )
    with pytest.raises(error) as failure:
        complete(operator)
    assert type(failure.value) is error
    assert failure.value.provider == conn_type
    assert len(sim.ledger()) == (0 if word.startswith("reject") else 1)


def test_a_key_without_money_pays_nothing(sim: Simulator, connect: Connect, complete: Complete) -> None:
    """The provider's refusal comes back as MediaFundsError, and no second attempt is made."""
    for conn_type in ("vap", "acedata", "kling"):
        with pytest.raises(MediaFundsError):
            complete(video(media_conn_id=connect(conn_type, password="sim-no-funds")))
    assert sim.ledger() == []


# What is refused before any money is spent.


class Unjson:
    """Nothing that JSON knows."""

    def __repr__(self) -> str:
        """A text that does not change."""
        return "<Unjson>"


P = {"prompt": "a fox"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"media_conn_id": "no_such"}, ["media_conn_id 'no_such'", "AIRFLOW_CONN_NO_SUCH"]),
        ({"media_conn_id": ""}, ["media_conn_id", "''"]),
        ({"media_conn_id": None}, ["media_conn_id", "one of vap, acedata, kling"]),
        ({"media_conn_id": "files"}, ["media_conn_id 'files'", "FSHook", "airflow providers hooks"]),
        ({"media_conn_id": "strange"}, ["media_conn_id 'strange'", "airflow providers hooks"]),
        ({"media_conn_id": "keyless"}, ["'keyless'", "no password", "API key"]),
        ({"media_conn_id": "hostless"}, ["'hostless'", "host must be a URL", "not a url"]),
        ({"operation": "text_to_smell"}, ["operation 'text_to_smell'", "there are:", "text_to_video"]),
        ({"operation": ""}, ["operation", "''"]),
        ({"operation": None}, ["operation", "None"]),
        ({"operation": ["text_to_video"]}, ["operation", "['text_to_video']"]),
        ({"arguments": None}, ["needs 'prompt'", "got nothing"]),
        ({"arguments": {}}, ["needs 'prompt'", "got nothing"]),
        ({"arguments": {"prompt": None}}, ["needs 'prompt'"]),
        ({"arguments": {"prompt": "  "}}, ["'prompt'", "not empty", "'  '"]),
        ({"arguments": {"prompt": 5}}, ["'prompt'", "a text", "got 5"]),
        ({"arguments": "a fox"}, ["arguments", "dict", "str", "'a fox'"]),
        ({"arguments": ["a fox"]}, ["arguments", "dict", "list"]),
        ({"arguments": {1: "a fox"}}, ["argument names are texts", "1"]),
        ({"arguments": {**P, "thing": Unjson()}}, ["arguments", "JSON", "Unjson"]),
        ({"arguments": {**P, "thing": float("nan")}}, ["arguments", "JSON"]),
        ({"arguments": {**P, "duration": "soon"}}, ["'duration'", "number of seconds", "'soon'"]),
        ({"arguments": {**P, "duration": -5}}, ["'duration'", "above 0", "-5"]),
        ({"arguments": {**P, "duration": True}}, ["'duration'", "True"]),
        ({"arguments": {**P, "seed": 1.5}}, ["'seed'", "whole number", "1.5"]),
        ({"arguments": {**P, "aspect_ratio": 1.78}}, ["'aspect_ratio'", "a text", "1.78"]),
        (
            {"operation": "image_to_video", "arguments": P},
            ["'image_to_video'", "'image_url'"],
        ),
        ({"operation": "image_to_video", "arguments": {**P, "image_url": 7}}, ["'image_url'", "a text", "7"]),
        (
            {
                "operation": "veo/image_to_video",
                "media_conn_id": "acedata_default",
                "arguments": {**P, "image_url": "https://a/b.png", "image_urls": ["https://a/c.png"]},
            },
            ["exactly one of 'image_url', 'image_urls'"],
        ),
        (
            {
                "operation": "veo/text_to_video",
                "media_conn_id": "acedata_default",
                "arguments": {**P, "image_url": "https://a/b.png"},
            },
            ["'image_url'", "'veo/image_to_video'"],
        ),
    ],
    ids=lambda value: json.dumps(value, default=repr)[:50] if isinstance(value, dict) else "",
)
def test_bad_input_is_one_clear_error_and_costs_nothing(
    sim: Simulator, connect: Connect, context: Any, changes: dict[str, Any], says: list[str]
) -> None:
    """The error names the argument, its value and what is allowed; no submission was tried."""
    connect("kling")
    connect("acedata")
    connect("fs", "files")
    connect("no-such-type", "strange")
    connect("kling", "keyless", password="")
    connect("kling", "hostless", host="not a url")
    with pytest.raises(MediaTaskError) as refused:
        video(**changes).execute(context)
    assert isinstance(refused.value, (MediaRequestError, MediaAuthError))
    text = str(refused.value)
    assert [part for part in says if part not in text] == [], text
    assert "\n" not in text
    assert len(text) < 1500
    assert sim.ledger() == []
    assert not any(route.startswith("POST") for route in sim.requests())


@pytest.mark.parametrize("name", ["poll_interval", "timeout", "queue_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "soon", True, timedelta(0), "5"])
def test_times_must_be_positive(name: str, value: Any) -> None:
    """A wrong one is said where the DAG is written, with its name and value."""
    with pytest.raises(MediaRequestError, match=f"{name} must be a number of seconds above 0") as refused:
        video(**{name: value})
    assert repr(value) in str(refused.value)


def test_an_argument_given_twice_is_refused(sim: Simulator, connect: Connect, context: Any) -> None:
    """By name and in `arguments`: nobody can know which one was meant."""
    operator = GenerateVideoOperator(
        task_id="t", media_conn_id=connect("kling"), prompt="one", arguments={"prompt": "two"}
    )
    with pytest.raises(MediaRequestError, match="'prompt' is given by name") as refused:
        operator.execute(context)
    assert "'one'" in str(refused.value)
    assert "'two'" in str(refused.value)
    assert sim.ledger() == []


@pytest.mark.parametrize(
    ("operator", "named", "expected"),
    [
        (GenerateImageOperator, {}, "text_to_image"),
        (GenerateImageOperator, {"image_url": "https://a/b.png"}, "image_to_image"),
        (GenerateImageOperator, {"operation": "virtual_try_on"}, "virtual_try_on"),
        (GenerateVideoOperator, {}, "text_to_video"),
        (GenerateVideoOperator, {"image_url": "https://a/b.png"}, "image_to_video"),
        (GenerateVideoOperator, {"arguments": {"image_url": "https://a/b.png"}}, "image_to_video"),
        (GenerateAudioOperator, {}, "text_to_music"),
        (GenerateAudioOperator, {"operation": "text_to_audio"}, "text_to_audio"),
    ],
)
def test_the_operation_follows_from_the_arguments(
    connect: Connect, operator: type[MediaTaskOperator], named: dict[str, Any], expected: str
) -> None:
    """Unless one is named, a picture to begin with makes the difference."""
    hook = get_media_hook(connect("vap"))
    request = operator(task_id="t", media_conn_id="vap_default", prompt="x", **named).request(hook)
    assert request[0] == expected
    assert request[1]["prompt"] == "x"
    assert all(value is not None for value in request[1].values())


def test_text_of_a_provider_is_bounded_and_harmless(
    connect: Connect, serve: Callable[..., str], complete: Complete
) -> None:
    """Control characters and 100 kB of text end up escaped and short in the error and in the log."""
    evil = "\x1b[31mred\x1b[0m\r\nERROR forged line\x00" + "x" * 100_000
    document = {"task_id": "abc", "status": "failed", "error": {"code": evil, "message": evil}}
    answers = [
        (400, {"error": {"code": "bad_request", "message": evil}}),
        (200, {"task_id": "abc", "status": "pending", "type": "video"}),
    ]

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        status, reply = answers[0] if method == "POST" else (200, document)
        return status, {"Content-Type": "application/json"}, json.dumps(reply).encode()

    connect("vap", host=serve(answer))
    for _ in range(2):
        with structlog.testing.capture_logs() as lines, pytest.raises(MediaTaskError) as failure:
            complete(video(media_conn_id="vap_default"))
        for text in (str(failure.value), failure.value.code or "", *(line["event"] for line in lines)):
            assert len(text) < 2000
            assert not any(character in text for character in "\x1b\x00\r\n")
        assert "forged" in str(failure.value)
        answers.pop(0)


# What it may cost, and what it did.


def priced(connect: Connect, conn_type: str = "kling", **table: Any) -> str:
    """A connection whose price table has a video for 0.40 USD, unless told otherwise."""
    return connect(conn_type, extra={"prices": table or {"text_to_video": {"amount": "0.40", "unit": "USD"}}})


@pytest.mark.parametrize("max_cost", ["0.40", "0.4", Decimal("0.400"), 1])
def test_a_task_within_its_limit_is_made(
    sim: Simulator, connect: Connect, complete: Complete, max_cost: Any
) -> None:
    """The limit itself is allowed, to the last place."""
    assert complete(video(media_conn_id=priced(connect), max_cost=max_cost))["url"]
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize(
    ("guard", "code", "says"),
    [
        ({"max_cost": "0.39"}, "max_cost", ["0.39 USD", "0.40 USD"]),
        ({"max_cost": 0}, "max_cost", ["0 USD", "0.40 USD"]),
        ({"min_balance": "999999999"}, "min_balance", ["999999999", "units"]),
        ({"max_cost": 1, "min_balance": 999999999}, "min_balance", ["units"]),
    ],
)
def test_a_guard_stops_before_anything_is_paid_or_written(
    sim: Simulator,
    connect: Connect,
    complete: Complete,
    context: Any,
    guard: dict[str, Any],
    code: str,
    says: list[str],
) -> None:
    """MediaFundsError with the guard's code, nothing sent, nothing that a later try could stumble over."""
    media_conn_id = priced(connect)
    with pytest.raises(MediaFundsError) as stopped:
        complete(video(media_conn_id=media_conn_id, **guard))
    assert stopped.value.code == code
    assert [part for part in says if part not in str(stopped.value)] == []
    assert sim.ledger() == []
    assert not any(route.startswith("POST") for route in sim.requests())
    assert context["task_state_store"] == {}
    assert context["pushed"]["media_error"]["code"] == code
    assert complete(video(media_conn_id=media_conn_id))["url"]


@pytest.mark.parametrize(
    ("conn_type", "operation", "guard", "says"),
    [
        ("kling", "text_to_image", {"max_cost": 1}, ["max_cost", "'text_to_image'", '"prices"']),
        ("acedata", "veo/text_to_video", {"min_balance": 1}, ["min_balance", "acedata"]),
    ],
)
def test_a_guard_that_cannot_be_kept_is_an_error(
    sim: Simulator,
    connect: Connect,
    complete: Complete,
    conn_type: str,
    operation: str,
    guard: dict[str, Any],
    says: list[str],
) -> None:
    """It says what is missing, instead of letting pass what nobody can judge."""
    connect(conn_type, extra={})
    with pytest.raises(MediaRequestError) as refused:
        complete(video(media_conn_id=f"{conn_type}_default", operation=operation, **guard))
    assert [part for part in says if part not in str(refused.value)] == []
    assert sim.ledger() == []


@pytest.mark.parametrize("name", ["max_cost", "min_balance"])
@pytest.mark.parametrize("value", [0.5, -1, "-1", "much", "", True, [], "nan", "inf"])
def test_a_limit_is_a_decimal(name: str, value: Any) -> None:
    """A wrong one is said where the DAG is written, with its name and value."""
    with pytest.raises(MediaRequestError, match=f"{name} must be a decimal number from 0") as refused:
        video(**{name: value})
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("guard", [{"max_cost": "0.39"}, {"min_balance": "999999999"}])
def test_a_guard_does_not_stop_what_is_paid_already(
    sim: Simulator, connect: Connect, complete: Complete, context: Any, guard: dict[str, Any]
) -> None:
    """A retry that adopts the task of the try before pays nothing, so there is nothing to guard."""
    media_conn_id = priced(connect)
    with pytest.raises(TaskDeferred):
        video(media_conn_id=media_conn_id).execute(context)
    assert complete(video(media_conn_id=media_conn_id, **guard))["url"]
    assert len(sim.ledger()) == 1


def test_a_broken_price_table_does_not_hide_what_was_made(
    sim: Simulator, connect: Connect, complete: Complete, context: Any
) -> None:
    """What somebody writes into the connection meanwhile costs the amount in money, not the video."""
    with pytest.raises(TaskDeferred) as deferred:
        video(media_conn_id=connect("kling")).execute(context)
    connect("kling", extra={"prices": {"no_such": 1}})
    event = asyncio.run(anext(deferred.value.trigger.run())).payload
    made = video().resume_execution(deferred.value.method_name, {"event": event}, context)
    assert made["url"]
    assert made["cost"]["unit"] == "units"
    assert "money" not in made["cost"]


@pytest.mark.parametrize(
    ("conn_type", "table", "unit", "money"),
    [
        ("kling", {"units": {"amount": "0.14", "unit": "USD"}}, "units", "of units"),
        ("kling", {"*": {"amount": "9", "unit": "units"}}, "units", None),
        ("vap", {"*": {"amount": "9", "unit": "USD"}}, "USD", "as charged"),
        ("acedata", {"*": {"amount": "0.25", "unit": "EUR"}}, "EUR", "as estimated"),
    ],
)
def test_a_result_says_its_cost_in_money(
    sim: Simulator,
    connect: Connect,
    complete: Complete,
    conn_type: str,
    table: dict[str, Any],
    unit: str,
    money: str | None,
) -> None:
    """The provider's figure, in money by the user's table; the table alone where the provider is silent."""
    cost = complete(video(media_conn_id=priced(connect, conn_type, **table)))["cost"]
    (paid,) = sim.ledger()
    assert cost["unit"] == unit
    charged = Decimal(paid["amount"])
    if conn_type == "acedata":
        assert (cost["amount"], cost["estimated"]) == (None, "0.25")
    else:
        assert Decimal(cost["amount"]) == charged
    expected = {
        "of units": (charged * Decimal("0.14"), "USD"),
        "as charged": (charged, "USD"),
        "as estimated": (Decimal("0.25"), "EUR"),
    }
    told = cost.get("money")
    assert (told and (Decimal(told["amount"]), told["unit"])) == (money and expected[money])


def test_a_cost_is_counted_once(
    sim: Simulator, connect: Connect, complete: Complete, metrics: Callable[[str], list[str]]
) -> None:
    """By Airflow's own statsd client: a retry that finds the task finished does not count it again."""
    arguments = {"prompt": f"a fox {QUICK}", "model": "kling-v3"}
    operator = video(media_conn_id=connect("kling"), arguments=arguments)
    first = complete(operator)
    tags = "provider=kling,operation=text_to_video,model=kling-v3,dag_id=dag,unit=units"
    assert metrics("cost") == [f",{tags}:{float(first['cost']['amount'])}|c"]
    assert complete(operator)["id"] == first["id"]
    assert len(sim.ledger()) == 1
    assert metrics("cost") == []


@pytest.mark.parametrize(
    ("conn_type", "table", "word", "counted"),
    [
        (
            "acedata",
            {"*": {"amount": "0.25", "unit": "EUR"}},
            "",
            "operation=veo/text_to_video,dag_id=dag,unit=EUR:0.25",
        ),
        ("acedata", {"*": {"amount": "0.25", "unit": "EUR"}}, "[sim:fail=provider]", None),
        ("acedata", {}, "", None),
        ("vap", {"*": {"amount": "9", "unit": "USD"}}, "[sim:fail=provider]", None),
    ],
)
def test_only_a_known_cost_is_counted(
    sim: Simulator,
    connect: Connect,
    complete: Complete,
    metrics: Callable[[str], list[str]],
    conn_type: str,
    table: dict[str, Any],
    word: str,
    counted: str | None,
) -> None:
    """The table's price counts for what was made; for what failed, only what the provider charged."""
    operator = video(
        media_conn_id=connect(conn_type, extra={"prices": table}),
        arguments={"prompt": f"a fox {QUICK} {word}"},
    )
    if word:
        with pytest.raises(MediaTaskFailed):
            complete(operator)
    else:
        complete(operator)
    expected = [] if counted is None else [f",provider={conn_type},{counted}|c"]
    assert metrics("cost") == expected


# In Airflow itself.


def test_a_chain_of_providers(
    sim: Simulator, connect: Connect, run_dag: Callable[[DAG], Any], tmp_path: Path
) -> None:
    """`output["url"]` of one feeds the next, templates are rendered, the file lands, the link is there."""
    quick: dict[str, Any] = {"poll_interval": 0.1}
    with DAG("chain", schedule=None, params={"animal": "fox"}) as dag:
        image = GenerateImageOperator(
            task_id="image",
            media_conn_id="{{ 'vap' }}_default",
            prompt="a {{ params.animal }} " + QUICK,
            arguments={"user_note": "{{ dag.dag_id }}"},
            **quick,
        )
        clip = GenerateVideoOperator(
            task_id="clip",
            media_conn_id="acedata_default",
            operation="{{ 'luma' }}/image_to_video",
            prompt=QUICK,
            image_url=image.output["url"],
            **quick,
        )
        longer = MediaTaskOperator(
            task_id="longer",
            media_conn_id="kling_default",
            operation="image_to_video",
            arguments={"prompt": QUICK, "image_url": "{{ ti.xcom_pull('image')['url'] }}"},
            deferrable=False,
            **quick,
        )
        landed = DownloadMediaOperator(
            task_id="landed",
            media=[clip.output, longer.output],
            destination=f"file://{tmp_path}/",
            trigger_rule="all_done",
        )
        failing = GenerateVideoOperator(
            task_id="failing", media_conn_id="kling_default", prompt=f"{QUICK} [sim:fail=moderation]", **quick
        )
        image >> longer
        failing >> landed
    for conn_type in ("vap", "acedata", "kling"):
        connect(conn_type)
    run = run_dag(dag)
    assert {task: state for (task, _), state in run.tasks.items()} == {
        "image": "success",
        "clip": "success",
        "longer": "success",
        "failing": "failed",
        "landed": "success",
    }
    paid = {entry["operation"]: entry["request"] for entry in sim.ledger()}
    assert len(sim.ledger()) == 4
    made = run.xcom("image")
    assert "a fox" in json.dumps(paid["text_to_image"])
    assert '"user_note": "chain"' in json.dumps(paid["text_to_image"])
    assert paid["luma/image_to_video"]["start_image_url"] == made["url"]
    assert paid["image_to_video"]["image"] == made["url"]
    assert run.xcom("image", key="url") == made["url"]
    assert run.xcom("image", key="media_task_id") == made["id"]
    for task_id in ("image", "failing", "landed"):
        link = run.xcom(task_id, key="_link_MediaResultLink")
        assert "/dags/chain/runs/" in link
        assert link.endswith(f"/tasks/{task_id}/plugin/media-task")
    assert run.xcom("image", key="_link_ProviderConsoleLink") in ("", None)
    assert run.xcom("failing", key="_link_ProviderConsoleLink").startswith("https://app.klingai.com/")
    result = run.xcom("landed")
    assert len(result["paths"]) == 2
    assert all(file["size"] > 1000 and len(file["sha256"]) == 64 for file in result["files"])
    assert {path.rsplit("/", 1)[1] for path in result["paths"]} == {"0-0.mp4", "0-1.mp4"}
    assert all("/chain/" in path and "/landed/" in path for path in result["paths"])


def test_operators_expand_over_a_table(
    sim: Simulator, connect: Connect, run_dag: Callable[[DAG], Any], tmp_path: Path
) -> None:
    """`.partial().expand()` works for the plain operator and the named ones, one submission a row."""
    quick: dict[str, Any] = {"poll_interval": 0.1, "media_conn_id": "kling_default"}
    with DAG("table", schedule=None) as dag:
        plain = MediaTaskOperator.partial(task_id="plain", operation="text_to_image", **quick).expand(
            arguments=[{"prompt": f"one {QUICK}"}, {"prompt": f"two {QUICK}", "aspect_ratio": "1:1"}]
        )
        GenerateImageOperator.partial(task_id="named", **quick).expand(
            prompt=[f"three {QUICK}", f"four {QUICK} [sim:fail=provider]"]
        )
        GenerateVideoOperator.partial(task_id="next", prompt=QUICK, **quick).expand(
            image_url=plain.output.map(lambda made: made["url"])
        )
        DownloadMediaOperator(task_id="all", media=plain.output, destination=f"file://{tmp_path}/")
    connect("kling")
    run = run_dag(dag)
    assert run.tasks[("plain", 0)] == run.tasks[("plain", 1)] == run.tasks[("named", 0)] == "success"
    assert run.tasks[("named", 1)] == "failed"
    assert len(sim.ledger()) == 6
    assert len({entry["client_ref"] for entry in sim.ledger()}) == 6
    assert [run.tasks[("next", index)] for index in (0, 1)] == ["success", "success"]
    pictures = [run.xcom("plain", index)["url"] for index in (0, 1)]
    asked = [entry["request"]["image"] for entry in sim.ledger() if entry["operation"] == "image_to_video"]
    assert sorted(asked) == sorted(pictures)
    assert [file["url"] for file in run.xcom("all")["files"]] == pictures
    assert all(Path(path.removeprefix("file://")).is_file() for path in run.xcom("all")["paths"])


@pytest.mark.parametrize(
    ("conn_type", "operation", "duration"), [("vap", "text_to_music", 30), ("kling", "text_to_audio", 5)]
)
def test_sound_is_what_the_provider_makes(
    sim: Simulator, connect: Connect, complete: Complete, conn_type: str, operation: str, duration: int
) -> None:
    """Music where there is any, else sounds; nobody has to name the operation."""
    operator = GenerateAudioOperator(
        task_id="t",
        media_conn_id=connect(conn_type),
        prompt=f"rain {QUICK}",
        duration=duration,
        poll_interval=0.1,
    )
    assert complete(operator)["operation"] == operation


@pytest.mark.parametrize("conn_type", ["vap", "acedata", "kling"])
@pytest.mark.parametrize("word", ["[sim:reject=bad_request]", "[sim:fail=provider]"])
def test_an_error_names_the_connection(
    sim: Simulator, connect: Connect, complete: Complete, conn_type: str, word: str
) -> None:
    """Of many accounts, it is known whose it is."""
    connect(conn_type, f"{conn_type}_bad")
    operator = video(media_conn_id=f"{conn_type}_bad", arguments={"prompt": f"a fox {QUICK} {word}"})
    with pytest.raises(MediaTaskError, match=rf"^connection '{conn_type}_bad': {conn_type} (says|task) "):
        complete(operator)
