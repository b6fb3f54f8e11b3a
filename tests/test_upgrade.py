"""What the present version has written must be understood by the next: literal copies, never made by code.

A format that changes keeps these copies and gets new ones beside them.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.module_loading import import_string

from airflow_media_tasks.operators import MediaTaskOperator
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submissions.records import KEY, Entries
from airflow_media_tasks.task import MediaTask, SubmissionOutcomeUnknown
from airflow_media_tasks.triggers import MediaTaskTrigger, Turn, TurnTrigger


Connect = Callable[..., str]

# The request of which the fingerprint below was taken: vap_default, text_to_image, {"prompt": "a fox"}.
FINGERPRINT = "e6d0851cf0e88a75c6f853a65d69945a112ea281764e0275c3e2ff9efdfdd704"
INTENT: dict[str, Any] = {
    "phase": "intent",
    "generation": 1,
    "number": 2,
    "fingerprint": FINGERPRINT,
    "client_ref": "amt-5d41402abc4b2a76b9719d911017c592",
    "submitted_after": "2026-11-20T10:11:12.131415+00:00",
    "media_conn_id": "vap_default",
    "operation": "text_to_image",
}
SUBMITTED = {**INTENT, "phase": "submitted", "media_task_id": "0f3c9e6a-0000-4000-8000-000000000000"}
FINISHED = {**SUBMITTED, "phase": "finished"}
ADOPTED = {**SUBMITTED, "phase": "adopted"}
ABANDONED = {**INTENT, "phase": "abandoned"}
COMPLETE_IN_ITS_REPLY = {
    **SUBMITTED,
    "result": {
        "id": "0f3c9e6a-0000-4000-8000-000000000000",
        "operation": "text_to_image",
        "status": "succeeded",
        "status_word": "completed",
        "url": "https://cdn.example/a.png",
        "urls": ["https://cdn.example/a.png"],
        "files": [{"kind": "image", "url": "https://cdn.example/a.png"}],
        "error": None,
        "cost": {"unit": "USD", "amount": "0.1800", "estimated": "0.1800"},
        "progress": None,
        "created_at": "2026-11-20T10:11:13+00:00",
    },
}

MEDIA_TASK_TRIGGER = (
    "airflow_media_tasks.triggers.MediaTaskTrigger",
    {
        "media_task_id": "veo/0f3c9e6a",
        "media_conn_id": "acedata_default",
        "poll_interval": 10.0,
        "deadline": 1795167072.5,
        "queue_deadline": None,
        "operation": "veo/text_to_video",
        "submitted_at": 1795163472.25,
    },
)
TURN_TRIGGER = (
    "airflow_media_tasks.triggers.TurnTrigger",
    {"until": 1795167072.5, "since": 1795167052.25, "refusals": 3},
)
TURN_EVENT = {"since": 1795167052.25, "refusals": 3}


def image(**rest: Any) -> MediaTaskOperator:
    """The operator whose request has the fingerprint above."""
    return MediaTaskOperator(
        task_id="t",
        media_conn_id="vap_default",
        operation="text_to_image",
        arguments={"prompt": "a fox"},
        **rest,
    )


def existing_task(sim: Simulator) -> str:
    """The provider's id of a task of that request."""
    from airflow_media_tasks.hooks.base import get_media_hook  # noqa: PLC0415  # reads a connection

    return get_media_hook("vap_default").submit("text_to_image", {"prompt": "a fox"}).id


@pytest.fixture(autouse=True)
def connection(connect: Connect, context: dict[str, Any]) -> None:
    """The account, and a task instance of the records' generation."""
    connect("vap")
    context["ti"].max_tries = 1


@pytest.mark.parametrize(
    "stored",
    [INTENT, SUBMITTED, FINISHED, ADOPTED, ABANDONED, COMPLETE_IN_ITS_REPLY],
    ids=["intent", "submitted", "finished", "adopted", "abandoned", "complete in its reply"],
)
@pytest.mark.parametrize(
    "later", [{}, {"shards": 3, "of_a_later_version": {"a": [1]}}], ids=["", "later keys"]
)
def test_every_record_is_read_and_written_back(
    context: dict[str, Any], stored: dict[str, Any], later: dict[str, Any]
) -> None:
    """Each phase of a record is what it was; keys of a later version are left out, absent ones are None."""
    context["task_state_store"][KEY] = {**copy.deepcopy(stored), **later}
    entries = Entries(context)  # type: ignore[arg-type]  # what it uses of a context
    record, _ = entries.load()
    assert record is not None
    for name in ("phase", "generation", "number", "fingerprint", "client_ref", "submitted_after"):
        assert getattr(record, name) == stored[name]
    assert record.media_task_id == stored.get("media_task_id")
    assert record.result == stored.get("result")
    entries.save(record)
    assert context["task_state_store"][KEY] == stored


def waits_for(operator: MediaTaskOperator, context: dict[str, Any]) -> MediaTaskTrigger:
    """The trigger that the operator hands over."""
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    assert isinstance(deferred.value.trigger, MediaTaskTrigger)
    return deferred.value.trigger


@pytest.mark.parametrize("stored", [SUBMITTED, FINISHED, ADOPTED], ids=lambda stored: stored["phase"])
def test_a_task_of_a_record_is_not_paid_again(
    sim: Simulator, context: dict[str, Any], stored: dict[str, Any]
) -> None:
    """The fingerprint of the same request is still the same, so its task is waited for."""
    own_id = existing_task(sim)
    context["task_state_store"][KEY] = {**stored, "media_task_id": own_id}
    assert waits_for(image(), context).media_task_id == own_id
    assert len(sim.ledger()) == 1


def test_an_intent_of_a_record_is_asked_about(sim: Simulator, context: dict[str, Any]) -> None:
    """An intent that an older version left is found among what was made since, and adopted."""
    own_id = existing_task(sim)
    context["task_state_store"][KEY] = dict(INTENT)
    assert waits_for(image(), context).media_task_id == own_id
    assert len(sim.ledger()) == 1


def test_an_intent_with_two_candidates_is_still_a_question(sim: Simulator, context: dict[str, Any]) -> None:
    """An upgrade between the submission and the retry guesses no more than before."""
    ids = [existing_task(sim), existing_task(sim)]
    context["task_state_store"][KEY] = dict(INTENT)
    with pytest.raises(SubmissionOutcomeUnknown) as question:
        image().execute(context)
    assert all(own_id in str(question.value) for own_id in ids)
    assert len(sim.ledger()) == 2


def test_a_given_up_record_is_submitted_anew(sim: Simulator, context: dict[str, Any]) -> None:
    """What a person decided under the old version holds under the new one."""
    context["task_state_store"][KEY] = dict(ABANDONED)
    waits_for(image(), context)
    assert len(sim.ledger()) == 1
    assert context["task_state_store"][KEY]["number"] == 3


def test_a_kept_result_is_returned(sim: Simulator, context: dict[str, Any]) -> None:
    """What was complete in its own reply needs no provider to be returned."""
    context["task_state_store"][KEY] = copy.deepcopy(COMPLETE_IN_ITS_REPLY)
    result = image().execute(context)
    assert (result["url"], result["cost"]["amount"]) == ("https://cdn.example/a.png", "0.1800")
    assert sim.requests() == {}


def from_row(row: tuple[str, dict[str, Any]], without: tuple[str, ...] = ()) -> Any:
    """What Airflow makes of a trigger's row."""
    path, arguments = json.loads(json.dumps(row))
    return import_string(path)(**{name: value for name, value in arguments.items() if name not in without})


@pytest.mark.parametrize("row", [MEDIA_TASK_TRIGGER, TURN_TRIGGER], ids=["task", "turn"])
def test_a_trigger_row_makes_the_trigger_that_was_stored(row: tuple[str, dict[str, Any]]) -> None:
    """Airflow calls the class with the row's arguments, and what it would store again is the same row."""
    assert from_row(row).serialize() == row


def test_optional_arguments_of_a_row_have_defaults() -> None:
    """A row that was written before an argument existed still makes a trigger."""
    trigger = from_row(MEDIA_TASK_TRIGGER, without=("queue_deadline", "operation", "submitted_at"))
    assert (trigger.queue_deadline, trigger.operation, trigger.submitted_at) == (None, "", None)


async def test_a_stored_wait_goes_on(sim: Simulator, connect: Connect) -> None:
    """The trigger of a row asks for its task and fires with it."""
    connect("acedata")
    path, arguments = MEDIA_TASK_TRIGGER
    row = (path, {**arguments, "deadline": time.time() + 0.3, "poll_interval": 0.1})
    (event,) = [event async for event in from_row(row).run()]
    task = MediaTask.from_dict(event.payload)
    assert (task.id, task.operation) == ("veo/0f3c9e6a", "veo/text_to_video")
    assert type(task.error).__name__ == "MediaTaskTimeout"


async def test_a_stored_turn_comes(sim: Simulator, context: dict[str, Any]) -> None:
    """The trigger of a row fires at its moment, and its event is the turn that the operator goes on with."""
    trigger = from_row(TURN_TRIGGER)
    trigger.until = time.time()
    (event,) = [event async for event in trigger.run()]
    assert isinstance(trigger, TurnTrigger)
    assert event.payload == TURN_EVENT
    assert Turn.of_event(TURN_EVENT) == Turn(1795167052.25, 3)
    assert Turn.of_event({"since": 1795167052.25}) == Turn(1795167052.25, 0)


def test_a_stored_turn_submits(sim: Simulator, context: dict[str, Any]) -> None:
    """The event resumes the method of this name, which submits."""
    with pytest.raises(TaskDeferred):
        image().resume_execution("submit_again", {"event": TURN_EVENT}, context)
    assert len(sim.ledger()) == 1
