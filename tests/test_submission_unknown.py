"""Submissions whose outcome nobody knows: the question, its answers, and what tells tasks apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk import Context

from airflow_media_tasks import submission
from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submission import finish
from airflow_media_tasks.task import (
    MediaProviderError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    SubmissionOutcomeUnknown,
    TaskStatus,
)

from .place import PROVIDERS, Clock, Place, own_id


Connect = Callable[..., str]


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulator of this test's own, whose clock nobody has moved."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def clock(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Nothing really sleeps."""
    return Clock.instead_of_time(sim, monkeypatch)


@pytest.fixture(params=PROVIDERS)
def place(request: pytest.FixtureRequest, connect: Connect) -> Place:
    """A task instance of each provider."""
    return Place(request.param, connect(request.param))


@pytest.fixture
def vap(connect: Connect) -> Place:
    """A task instance of VAP, which takes no mark of ours."""
    return Place("vap", connect("vap"))


# A question, and its answers.


def both_commands(place: str) -> list[str]:
    """The two ways out."""
    return [f"airflow media-tasks adopt {place} MEDIA_TASK_ID", f"airflow media-tasks resubmit {place}"]


@pytest.mark.parametrize("moment", ["after_intent", "before_result"])
@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("remove_background", {"image_url": "https://cdn.example/a.png"}),
        ("run_preset", {"preset": "video.basic", "prompt": "a fox [sim:seconds=0]"}),
    ],
)
def test_what_the_provider_does_not_list_is_a_question(
    vap: Place, sim: Simulator, operation: str, arguments: dict[str, Any], moment: str
) -> None:
    """VAP's operations and presets cannot be asked for: every try stops, and nothing is paid again."""
    vap.operation, vap.arguments = operation, arguments
    vap.run_and_die(moment)
    paid = len(sim.ledger())
    assert paid == (moment == "before_result")
    for _ in range(2):
        with pytest.raises(SubmissionOutcomeUnknown) as question:
            vap.run()
        assert all(command in str(question.value) for command in both_commands("films manual__1 video"))
        assert f"it has no list of {operation!r} tasks" in str(question.value)
        assert "lists no task" not in str(question.value)
    assert len(sim.ledger()) == paid
    assert vap.store.value["phase"] == "intent"


def test_a_lost_reply_of_what_is_not_listed_is_a_question(vap: Place, sim: Simulator) -> None:
    """The first try stops already; it says what was sent and what came back."""
    vap.operation, vap.arguments = "upscale_image", {"image_url": "https://cdn.example/a.png"}
    sim.fault("lose_reply", count=1)
    with pytest.raises(SubmissionOutcomeUnknown, match="does not show enough to tell"):
        vap.run()
    assert len(sim.ledger()) == 1


def test_two_equal_tasks_are_a_question_that_names_both(
    connect: Connect, sim: Simulator, clock: Clock
) -> None:
    """VAP keeps no mark: a sibling's equal request made since is a second candidate, and both are shown."""
    connect("vap")
    places = [Place("vap", "vap_default", map_index) for map_index in (3, 4)]
    for place in places:
        place.run_and_die("before_result")
    with pytest.raises(SubmissionOutcomeUnknown) as question:
        places[0].run()
    text = str(question.value)
    assert "2 tasks with this very request were made since" in text
    for entry in sim.ledger():
        (line,) = (line for line in text.splitlines() if own_id(entry) in line)
        assert "a fox" in line
        assert "running" in line or "queued" in line
        assert datetime.fromtimestamp(entry["at"]).astimezone().strftime(":%M:%S") in line
    assert all(command in text for command in both_commands("films manual__1 video --map-index 3")), text
    assert sorted(one["id"] for one in question.value.to_dict()["candidates"]) == sorted(
        own_id(entry) for entry in sim.ledger()
    )
    assert {one["prompt"][:5] for one in question.value.candidates} == {"a fox"}
    assert len(sim.ledger()) == 2


def finished_video(place: Place, clock: Clock) -> str:
    """The provider's id of a video that is there to be extended."""
    place.run()
    clock.sleep(61)
    made = place.run()
    assert made.files[0].id
    return made.files[0].id


def test_equal_extensions_at_kling_are_a_question(connect: Connect, sim: Simulator, clock: Clock) -> None:
    """Kling takes no mark with an extension: two of one parent cannot be told apart."""
    connect("kling")
    parent = finished_video(Place("kling", "kling_default"), clock)
    places = [Place("kling", "kling_default", map_index) for map_index in (0, 1)]
    for place in places:
        place.operation = "extend_video"
        place.arguments = {"video_id": parent, "prompt": "further [sim:queued=0] [sim:seconds=60]"}
        place.run_and_die("before_result")
    clock.sleep(61)
    with pytest.raises(SubmissionOutcomeUnknown) as question:
        places[0].run()
    first, second = (own_id(entry) for entry in sim.ledger()[1:])
    assert f"videos/video-extend/{first}" in str(question.value)
    assert f"videos/video-extend/{second}" in str(question.value)
    assert len(sim.ledger()) == 3


def test_a_single_extension_at_kling_is_found_by_its_parent(
    connect: Connect, sim: Simulator, clock: Clock
) -> None:
    """A list shows the parent once the extension is made; until then nobody can tell."""
    connect("kling")
    parent = finished_video(Place("kling", "kling_default"), clock)
    place = Place("kling", "kling_default")
    place.operation = "extend_video"
    place.arguments = {"video_id": parent, "prompt": "further [sim:queued=0] [sim:seconds=600]"}
    place.run_and_die("before_result")
    with pytest.raises(SubmissionOutcomeUnknown, match="airflow media-tasks adopt"):
        place.run()
    clock.sleep(600)
    task = place.run()
    assert (task.id, task.status) == (
        f"videos/video-extend/{own_id(sim.ledger()[1])}",
        TaskStatus.SUCCEEDED,
    )
    assert len(sim.ledger()) == 2


def test_who_prefers_paying_twice_is_not_asked(
    vap: Place, sim: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """With `resubmit` the try that lost its reply is one to retry, and the next one submits anew."""
    vap.operation, vap.arguments = "upscale_image", {"image_url": "https://cdn.example/a.png"}
    vap.on_unknown = "resubmit"
    sim.fault("lose_reply", count=1)
    with pytest.raises(MediaProviderError, match="may pay twice"):
        vap.run()
    task = vap.run()
    assert task.id == f"operations/{own_id(sim.ledger()[1])}"
    assert len(sim.ledger()) == 2
    assert "submitting anew as told, which may pay twice" in caplog.text


def test_who_prefers_paying_twice_pays_once_where_that_can_be_known(place: Place, sim: Simulator) -> None:
    """`resubmit` is for what nobody can know: what was accepted and is found is adopted."""
    place.on_unknown = "resubmit"
    place.run_and_die("before_result")
    place.run()
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize("cleared", [True, False], ids=["cleared", "retried"])
def test_an_adopted_task_is_the_result(vap: Place, sim: Simulator, clock: Clock, cleared: bool) -> None:
    """What a person says it became is waited for, and its success is kept though the task was cleared."""
    vap.operation, vap.arguments = "upscale_image", {"image_url": "https://cdn.example/a.png"}
    vap.run_and_die("before_result")
    (paid,) = sim.ledger()
    vap.decide(phase="adopted", media_task_id=f"operations/{own_id(paid)}")
    if cleared:
        vap.clear()
    clock.sleep(61)
    task = vap.run()
    assert (task.id, task.status) == (f"operations/{own_id(paid)}", TaskStatus.SUCCEEDED)
    finish(vap.context, task)
    assert vap.store.value["phase"] == "finished"
    assert len(sim.ledger()) == 1
    vap.clear()
    assert vap.run().id != task.id


def test_an_adopted_task_that_failed_is_submitted_again(place: Place, sim: Simulator, clock: Clock) -> None:
    """Adopting a failure is no dead end."""
    place.arguments["prompt"] += " [sim:fail=provider]"
    first = place.run()
    place.decide(phase="adopted")
    clock.sleep(61)
    place.clear()
    assert place.run().id != first.id
    assert len(sim.ledger()) == 2


def test_an_id_of_another_provider_is_not_adopted(vap: Place, sim: Simulator) -> None:
    """A slip of the hand is an error that says what an id looks like, and nothing is sent."""
    vap.run_and_die("after_intent")
    vap.decide(phase="adopted", media_task_id="videos/text2video/1")
    with pytest.raises(MediaRequestError, match="none of vap's"):
        vap.run()
    assert sim.ledger() == []


def test_an_abandoned_submission_is_made_anew(place: Place, sim: Simulator) -> None:
    """Who gave it up by hand pays again, once."""
    place.run_and_die("before_result")
    place.decide(phase="abandoned")
    task = place.run()
    assert task.id.endswith(own_id(sim.ledger()[1]))
    assert place.run().id == task.id
    assert len(sim.ledger()) == 2


# Marks, clocks and lists.


def test_two_hundred_equal_tasks_each_find_their_own(connect: Connect, sim: Simulator, clock: Clock) -> None:
    """AceData's replies are all lost; the mark in the echoed request tells equal siblings apart."""
    connect("acedata")
    places = [Place("acedata", "acedata_default", map_index) for map_index in range(200)]
    sim.fault("lose_reply", provider="acedata", on="submit")
    with ThreadPoolExecutor(8) as workers:
        found = list(workers.map(Place.run, places))
    ledger = sim.ledger()
    assert len(ledger) == 200
    for place, task in zip(places, found, strict=True):
        (paid,) = (entry for entry in ledger if place.store.value["client_ref"] in str(entry["client_ref"]))
        assert task.id == f"veo/{own_id(paid)}"
    assert clock.slept == 0


@pytest.mark.parametrize("offset", [-600, 600])
def test_a_provider_whose_clock_is_wrong_is_understood(
    place: Place, sim: Simulator, clock: Clock, offset: float
) -> None:
    """Ten minutes before or after ours: what was accepted is found, what was not is known to be absent."""
    sim.fault("clock_skew", offset=offset)
    sim.fault("lose_reply", count=1)
    task = place.run()
    assert task.id.endswith(own_id(sim.ledger()[0]))
    clock.sleep(61)
    other = Place(place.media_conn_id.removesuffix("_default"), place.media_conn_id, 1)
    other.run_and_die("after_intent")
    assert other.run().id != task.id
    assert len(sim.ledger()) == 2


def test_an_equal_task_of_before_the_intent_is_not_taken(vap: Place, sim: Simulator, clock: Clock) -> None:
    """Where only the request can be compared, what was there before cannot have come from it."""
    vap.run()
    clock.sleep(10)
    other = Place("vap", vap.media_conn_id, 1)
    other.run_and_die("before_result")
    assert other.run().id == own_id(sim.ledger()[1])
    assert len(sim.ledger()) == 2


def test_a_list_that_does_not_reach_back_is_no_proof(vap: Place, sim: Simulator) -> None:
    """VAP shows its newest 50: with as many made since, an absent one may only be hidden."""
    vap.run_and_die("after_intent")
    hook = get_media_hook(vap.media_conn_id)
    with hook:
        for number in range(50):
            hook.submit("text_to_image", {"prompt": f"other {number}"})
    with pytest.raises(SubmissionOutcomeUnknown):
        vap.run()
    assert len(sim.ledger()) == 50


def test_names_of_ours_differ_by_everything_that_makes_a_submission() -> None:
    """Run, map index, generation and number each make another name; the worker does not."""
    fields = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 0, "max_tries": 1}

    def ref(number: int = 1, **change: Any) -> str:
        ti = SimpleNamespace(**{**fields, **change})
        return submission.client_ref(cast("Context", {"ti": ti}), number)

    assert ref() == ref()
    others = [
        ref(2),
        ref(dag_id="e"),
        ref(run_id="s"),
        ref(task_id="u"),
        ref(map_index=1),
        ref(max_tries=2),
    ]
    assert len({ref(), *others}) == 7
    assert len(ref()) <= 40


# The record.


def test_a_result_that_cannot_be_asked_for_again_is_kept(vap: Place, sim: Simulator) -> None:
    """A preset answers with what it made and has no address: a retry returns that, without a question."""
    vap.operation = "run_preset"
    vap.arguments = {"preset": "video.basic", "prompt": "a fox [sim:seconds=0]"}
    task = vap.run()
    assert task.status is TaskStatus.SUCCEEDED
    asked = sum(sim.requests().values())
    again = vap.run()
    assert (again.id, again.url, again.status) == (task.id, task.url, TaskStatus.SUCCEEDED)
    assert sum(sim.requests().values()) == asked
    assert len(sim.ledger()) == 1


SOUND = {
    "phase": "submitted",
    "generation": 1,
    "number": 1,
    "fingerprint": "f",
    "client_ref": "amt-1",
    "submitted_after": "2026-11-20T10:00:00+00:00",
    "media_conn_id": "vap_default",
    "operation": "text_to_image",
    "media_task_id": "abc",
}


@pytest.mark.parametrize(
    "stored",
    [
        "a text",
        7,
        [],
        {},
        {**SOUND, "phase": "exploded"},
        {**SOUND, "phase": None},
        {**SOUND, "generation": "1"},
        {**SOUND, "number": None},
        {**SOUND, "client_ref": 5},
        {**SOUND, "submitted_after": "yesterday"},
        {**SOUND, "result": {"id": "abc", "status": "nonsense"}},
        {name: value for name, value in SOUND.items() if name != "media_task_id"},
        {name: value for name, value in SOUND.items() if name != "fingerprint"},
    ],
    ids=lambda stored: json.dumps(stored)[:40],
)
def test_a_record_that_cannot_be_read_is_not_an_absent_one(vap: Place, sim: Simulator, stored: Any) -> None:
    """Nothing is asked, nothing is sent, nothing is overwritten; the error shows what is stored."""
    vap.store.value = stored
    with pytest.raises(MediaTaskError, match="cannot be read, so nothing is submitted"):
        vap.run()
    assert (sim.requests(), vap.store.value) == ({}, stored)


def test_only_the_task_that_is_recorded_can_be_finished(vap: Place) -> None:
    """The end of another task, or of the same one a second time, changes nothing."""
    task = vap.run()
    finish(vap.context, MediaTask("another", TaskStatus.SUCCEEDED))
    assert vap.store.value["phase"] == "submitted"
    finish(vap.context, task)
    writes = vap.store.writes
    finish(vap.context, task)
    assert (vap.store.value["phase"], vap.store.writes) == ("finished", writes)
