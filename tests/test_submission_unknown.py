"""Submissions whose outcome nobody knows: the question, its answers, and what tells tasks apart."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submissions import answers, records, submission
from airflow_media_tasks.submissions.submission import finish
from airflow_media_tasks.task import (
    MediaProviderError,
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


def both_commands(place: str, group: str = "") -> list[str]:
    """The two ways out."""
    return [
        f"airflow media-tasks adopt {place} {group}MEDIA_TASK_ID",
        f"airflow media-tasks resubmit {place}",
    ]


@pytest.mark.parametrize("moment", ["after_intent", "before_result"])
@pytest.mark.parametrize(
    ("operation", "arguments", "group"),
    [
        ("remove_background", {"image_url": "https://cdn.example/a.png"}, "operations/"),
        ("run_preset", {"preset": "video.basic", "prompt": "a fox [sim:seconds=0]"}, ""),
    ],
)
def test_what_the_provider_does_not_list_is_a_question(
    vap: Place, sim: Simulator, operation: str, arguments: dict[str, Any], group: str, moment: str
) -> None:
    """VAP's operations and presets cannot be asked for: every try stops, and nothing is paid again.

    The command shows which form the id of an operation has.
    """
    vap.operation, vap.arguments = operation, arguments
    vap.run_and_die(moment)
    paid = len(sim.ledger())
    assert paid == (moment == "before_result")
    for _ in range(2):
        with pytest.raises(SubmissionOutcomeUnknown) as question:
            vap.run()
        ways = both_commands("films manual__1 video", group)
        assert all(command in str(question.value) for command in ways)
        assert str(question.value).count(f"no list of {operation!r} tasks") == 1
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


UPSCALE = ("upscale_image", {"image_url": "https://cdn.example/a.png"})


def asked(vap: Place) -> SubmissionOutcomeUnknown:
    """The question about an upscaling that was accepted, of which VAP has no list."""
    vap.operation, vap.arguments = UPSCALE
    vap.run_and_die("before_result")
    return ask(vap)


def ask(vap: Place) -> SubmissionOutcomeUnknown:
    """The question that the next try ends in."""
    with pytest.raises(SubmissionOutcomeUnknown) as question:
        vap.run()
    return question.value


@pytest.mark.parametrize("cleared", [True, False], ids=["cleared", "retried"])
def test_an_adopted_task_is_the_result(vap: Place, sim: Simulator, clock: Clock, cleared: bool) -> None:
    """What a person says it became is waited for, and its success is kept though the task was cleared."""
    asked(vap)
    (paid,) = sim.ledger()
    written = dict(vap.store.value)
    vap.decide(f"operations/{own_id(paid)}")
    assert vap.store.value == written
    if cleared:
        vap.clear()
    clock.sleep(61)
    task = vap.run()
    assert (task.id, task.status) == (f"operations/{own_id(paid)}", TaskStatus.SUCCEEDED)
    assert "asked_at" not in vap.store.value
    finish(vap.context, task)
    assert vap.store.value["phase"] == "finished"
    assert len(sim.ledger()) == 1
    vap.clear()
    assert vap.run().id != task.id


def test_an_adopted_task_that_failed_is_submitted_again(vap: Place, sim: Simulator, clock: Clock) -> None:
    """Adopting a failure is no dead end."""
    vap.operation, vap.arguments = UPSCALE[0], {"image_url": "https://cdn.example/a.png?[sim:fail=provider]"}
    vap.run_and_die("before_result")
    ask(vap)
    first = f"operations/{own_id(sim.ledger()[0])}"
    vap.decide(first)
    clock.sleep(61)
    vap.clear()
    assert vap.run().id != first
    assert len(sim.ledger()) == 2


def test_an_id_of_another_provider_is_not_adopted(vap: Place, sim: Simulator) -> None:
    """A slip of the hand is the question again, which says what an id looks like; the next answer counts."""
    asked(vap)
    vap.decide("videos/text2video/1")
    with pytest.raises(answers.NotAnswerable, match="answered already"):
        vap.decide()
    assert "'videos/text2video/1', which it cannot have become" in (text := str(ask(vap)))
    assert "none of vap's" in text
    (paid,) = sim.ledger()
    vap.decide(f"operations/{own_id(paid)}")
    assert vap.run().id == f"operations/{own_id(paid)}"
    assert len(sim.ledger()) == 1


def test_an_abandoned_submission_is_made_anew(vap: Place, sim: Simulator) -> None:
    """Who gives it up pays again, once, and under a name that nobody has seen before."""
    asked(vap)
    before = vap.store.value["client_ref"]
    vap.decide()
    task = vap.run()
    assert task.id.endswith(own_id(sim.ledger()[1]))
    assert vap.store.value["client_ref"] != before
    assert vap.run().id == task.id
    assert len(sim.ledger()) == 2


def test_giving_up_survives_a_refusal_of_what_is_submitted_anew(vap: Place, sim: Simulator) -> None:
    """Where the new one is certainly not accepted, the answer still stands in the next try."""
    asked(vap)
    vap.decide()
    sim.fault("rate_limit", provider="vap", on="submit", count=1)
    with pytest.raises(MediaTaskError):
        vap.run()
    assert vap.store.value["asked_at"]
    vap.run()
    assert len(sim.ledger()) == 2


def test_an_answer_from_an_old_page_is_not_taken(vap: Place, sim: Simulator) -> None:
    """It was about an earlier submission, and the one that is asked about now may be paid, too."""
    asked(vap)
    old_page = vap.store.value["client_ref"]
    vap.decide()
    vap.run_and_die("before_result")
    ask(vap)
    assert len(sim.ledger()) == 2
    with pytest.raises(answers.NotAnswerable, match="earlier submission"):
        answers.reference_of("failed", vap.store.value, old_page)
    ask(vap)
    assert len(sim.ledger()) == 2


@pytest.mark.parametrize("state", [None, "scheduled", "queued", "running", "deferred", "restarting"])
def test_nobody_answers_while_a_try_is_under_way(vap: Place, state: str | None) -> None:
    """The try may find out by itself, or be about to ask another question."""
    asked(vap)
    with pytest.raises(answers.NotAnswerable, match="answer when it has failed"):
        answers.reference_of(state, vap.store.value, None)


def test_nobody_answers_what_was_not_asked(place: Place, sim: Simulator) -> None:
    """An intent without a question is a worker about to send, or dead: the next try finds out."""
    place.run_and_die("after_intent")
    with pytest.raises(answers.NotAnswerable, match="nothing is asked"):
        place.decide()
    place.run()
    with pytest.raises(answers.NotAnswerable, match="nothing is asked"):
        place.decide()
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize(
    "value",
    [
        "a text",
        {},
        {"decision": "resubmit"},
        {"decision": "resubmit", "asked_at": None},
        {"decision": "resubmit", "asked_at": "2026-01-01T00:00:00+00:00"},
        {"decision": "adopt", "asked_at": "ASKED"},
        {"decision": "adopt", "media_task_id": 7, "asked_at": "ASKED"},
        {"decision": "adopt", "media_task_id": "", "asked_at": "ASKED"},
        {"decision": "adopt", "media_task_id": "i" * 1000, "asked_at": "ASKED"},
        {"decision": "adopt", "media_task_id": "two\nlines", "asked_at": "ASKED"},
        {"decision": "pay", "asked_at": "ASKED"},
    ],
    ids=json.dumps,
)
def test_what_is_no_answer_to_this_question_counts_for_nothing(
    vap: Place, sim: Simulator, value: Any
) -> None:
    """The question stays open, and an answer is still taken."""
    asked(vap)
    record = vap.store.value
    if isinstance(value, dict) and value.get("asked_at") == "ASKED":
        value = {**value, "asked_at": record["asked_at"]}
    vap.store.answers[answers.key_of(record["client_ref"])] = value
    ask(vap)
    assert len(sim.ledger()) == 1
    vap.decide()
    vap.run()
    assert len(sim.ledger()) == 2


def test_an_answer_is_void_once_the_task_was_found(vap: Place, sim: Simulator, clock: Clock) -> None:
    """One that comes when a try has just found the task itself is never acted upon."""
    places = [vap, Place("vap", vap.media_conn_id, 1)]
    for one in places:
        one.run_and_die("before_result")
    ask(vap)
    vap.decide()
    record = {**vap.store.value, "phase": "submitted", "media_task_id": own_id(sim.ledger()[0])}
    record.pop("asked_at")
    vap.store.value = record
    assert vap.run().id == own_id(sim.ledger()[0])
    assert len(sim.ledger()) == 2


@pytest.mark.parametrize("phase", ["adopted", "abandoned"])
def test_an_answer_of_before_an_upgrade_is_honoured(place: Place, sim: Simulator, phase: str) -> None:
    """What a person wrote into the record itself, when that was the way, holds."""
    place.run_and_die("before_result")
    groups = {"acedata_default": "veo/", "kling_default": "videos/text2video/"}
    own = groups.get(place.media_conn_id, "") + own_id(sim.ledger()[0])
    if phase == "adopted":
        place.decide_in_the_record(phase=phase, media_task_id=own)
        assert place.run().id == own
        assert len(sim.ledger()) == 1
    else:
        place.decide_in_the_record(phase=phase)
        assert place.run().id.endswith(own_id(sim.ledger()[1]))
        assert len(sim.ledger()) == 2


def test_a_wrong_answer_of_before_an_upgrade_is_the_question_again(vap: Place, sim: Simulator) -> None:
    """It can be corrected by an answer of today."""
    vap.operation, vap.arguments = UPSCALE
    vap.run_and_die("before_result")
    vap.decide_in_the_record(phase="adopted", media_task_id="videos/text2video/1")
    assert "none of vap's" in str(ask(vap))
    vap.decide(f"operations/{own_id(sim.ledger()[0])}")
    assert vap.run().id == f"operations/{own_id(sim.ledger()[0])}"
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize("provider", ["acedata", "kling"])
@pytest.mark.parametrize("old", [False, True], ids=["random mark", "mark of a released version"])
def test_what_carries_anothers_mark_is_neither_shown_nor_adopted(
    connect: Connect, sim: Simulator, provider: str, old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DAGs that share an account learn nothing of each other, and take nothing from each other."""
    account = connect(provider)
    if old:
        monkeypatch.setattr(
            submission, "new_reference", lambda: "amt-" + hashlib.sha256(b"[]").hexdigest()[:32]
        )
    others, ours = Place(provider, account, 1), Place(provider, account, 2)
    others.arguments = {"prompt": "a secret of theirs [sim:queued=0]"}
    foreign = others.run().id
    monkeypatch.setattr(submission, "new_reference", lambda: f"amt-{secrets.token_hex(16)}")
    ours.run_and_die("after_intent")
    ours.store.value["asked_at"] = ours.store.value["submitted_after"]
    ours.decide(foreign)
    question = ask(ours)
    assert f"{foreign!r}, which it cannot have become: it carries the mark of another" in str(question)
    assert "a secret of theirs" not in str(question)
    assert question.candidates == []
    assert ours.store.value["phase"] == "intent"
    assert len(sim.ledger()) == 1


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


def test_a_reference_cannot_be_guessed() -> None:
    """It holds 128 random bits, and every submission has its own."""
    made = {records.new_reference() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch("amt-[0-9a-f]{32}", one) for one in made)


def test_a_record_of_a_clock_that_was_ahead_is_not_waited_for(
    place: Place, sim: Simulator, clock: Clock
) -> None:
    """Whatever the record's time, what its worker was about to send has left within the lease."""
    place.run_and_die("after_intent")
    ahead = datetime.fromisoformat(place.store.value["submitted_after"]) + timedelta(minutes=4)
    place.store.value["submitted_after"] = ahead.isoformat()
    with contextlib.suppress(MediaTaskError):
        place.run()
    assert clock.slept <= submission.SETTLE + 1


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
        {**SOUND, "submitted_after": "2026-11-20T10:00:00"},
        {**SOUND, "submitted_after": "2999-11-20T10:00:00+00:00"},
        {**SOUND, "submitted_after": (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()},
        {**SOUND, "submitted_after": "0001-01-01T00:00:00+23:00"},
        {**SOUND, "submitted_after": "9999-12-31T23:59:59-23:00"},
        {**SOUND, "finished_at": "2999-11-20T10:00:00+00:00"},
        {**SOUND, "finished_at": 7},
        {**SOUND, "asked_at": "2999-11-20T10:00:00+00:00"},
        {**SOUND, "asked_at": True},
        {**SOUND, "number": -9},
        {**SOUND, "number": 0},
        {**SOUND, "number": True},
        {**SOUND, "number": 10**30},
        {**SOUND, "number": 1.0},
        {**SOUND, "generation": -1},
        {**SOUND, "generation": 10**9},
        {**SOUND, "fingerprint": ""},
        {**SOUND, "fingerprint": "f" * 1000},
        {**SOUND, "client_ref": ""},
        {**SOUND, "client_ref": "../media_task"},
        {**SOUND, "client_ref": "amt-" + "0" * 100},
        {**SOUND, "media_conn_id": "c" * 1000},
        {**SOUND, "operation": "two\nlines"},
        {**SOUND, "provider": 7},
        {**SOUND, "arguments": []},
        {**SOUND, "media_task_id": ""},
        {**SOUND, "media_task_id": "i" * 10_000},
        {**SOUND, "media_task_id": ["abc"]},
        {**SOUND, "result": []},
        {**SOUND, "result": {"id": "another", "status": "succeeded"}},
        {**SOUND, "error": "text"},
        {**SOUND, "error": {"message": "no type"}},
        {**SOUND, "error": {"type": 7, "message": "m"}},
        *(
            {**SOUND, "spent": spent}
            for spent in (
                7,
                {"amount": "1"},
                {"amount": 1, "unit": "USD"},
                {"amount": "-1000", "unit": "USD"},
                {"amount": "-Infinity", "unit": "USD"},
                {"amount": "NaN", "unit": "USD"},
                {"amount": "1e999999", "unit": "USD"},
                {"amount": "1" * 1000, "unit": "USD"},
                {"amount": "1", "unit": ""},
                {"amount": "1", "unit": None},
                {"amount": "1", "unit": "USD", "more": 1},
            )
        ),
        {**SOUND, "phase": "intent"},
        {**SOUND, "phase": "refused"},
        {name: value for name, value in SOUND.items() if name != "media_task_id"} | {"phase": "finished"},
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
