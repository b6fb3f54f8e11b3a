from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_media_tasks.batch.operator import GenerateMediaBatchOperator
from airflow_media_tasks.batch.pages import ENTRY_BYTES, Pages, State
from airflow_media_tasks.landing import storage
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submissions.records import PAGE, SUBMISSIONS, Entries, Record
from airflow_media_tasks.submissions.submission import Submission
from airflow_media_tasks.task import MediaTask, MediaTaskError, TaskStatus
from airflow_media_tasks.wire.conversations import ConversationHook


Connect = Callable[..., str]
Complete = Callable[[GenerateMediaBatchOperator], Any]
Place = dict[str, Any]

QUICK = "[sim:queued=0] [sim:seconds=0.3]"
SLOW = "[sim:queued=0] [sim:seconds=60]"


@pytest.fixture(autouse=True)
def _reads_are_repeated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage is not waited for."""
    monkeypatch.setattr(ConversationHook, "retry_wait", 0.0)


def batch(folder: Path, prompts: list[str], **changes: Any) -> GenerateMediaBatchOperator:
    """A batch of videos with these prompts, none of which lands."""
    usual: dict[str, Any] = {
        "task_id": "films",
        "requests": [{"prompt": prompt} for prompt in prompts],
        "operation": "text_to_video",
        "media_conn_id": "kling_default",
        "results": f"file://{folder}/batch.jsonl",
        "poll_interval": 0.1,
    }
    return GenerateMediaBatchOperator(**{**usual, **changes})


def foxes(*names: str, word: str = QUICK) -> list[str]:
    """Prompts that differ by their names."""
    return [f"fox {name} {word}" for name in names]


def clear(context: Place, *, keep: bool = True) -> None:
    """What Airflow does when somebody clears the task; without *keep*, as Airflow 3.4 does it."""
    context["ti"].max_tries += 1
    context["ti"].try_number += 1
    if not keep:
        context["task_state_store"].clear()


def retry(context: Place) -> None:
    """What Airflow does for another try."""
    context["ti"].max_tries = max(context["ti"].max_tries, context["ti"].try_number)
    context["ti"].try_number += 1


def until_deferred(operator: GenerateMediaBatchOperator, context: Place) -> TaskDeferred:
    """The first try, up to where it waits."""
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)  # type: ignore[arg-type]  # what it uses of a context
    return deferred.value


def lines_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The results."""
    text = Path(manifest["results"].removeprefix("file://")).read_text()
    return [json.loads(line) for line in text.splitlines()]


def prompts_of(sim: Simulator) -> list[str]:
    """What was paid for."""
    return sorted(entry["request"]["prompt"].split(" [")[0] for entry in sim.ledger())


# A request is known by its content.


@pytest.mark.parametrize(
    ("table", "new"),
    [
        (("new", "a", "b", "c"), ["fox new"]),
        (("c", "b", "a"), []),
        (("a", "c"), []),
        (("c", "new", "a"), ["fox new"]),
        (("a", "b", "c", "a"), ["fox a"]),
    ],
    ids=["a row in front", "reordered", "a row removed", "all of it", "an equal row more"],
)
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "discarded"])
def test_a_changed_table_pays_for_its_new_rows_alone(
    sim: Simulator,
    connect: Connect,
    context: Place,
    complete: Complete,
    tmp_path: Path,
    table: tuple[str, ...],
    new: list[str],
    keep: bool,
) -> None:
    """Wherever a row stands after a clear, what was made of it is kept; the results have the rows' order."""
    connect("kling")
    first = complete(batch(tmp_path, foxes("a", "b", "c")))
    made = {line["key"]: line["media_task_id"] for line in lines_of(first)}
    clear(context, keep=keep)
    again = complete(batch(tmp_path, foxes(*table)))
    assert prompts_of(sim) == sorted(["fox a", "fox b", "fox c", *new])
    lines = lines_of(again)
    assert [line["arguments"]["prompt"].split(" [")[0] for line in lines] == [f"fox {n}" for n in table]
    assert again["succeeded"] == len(table)
    assert all(line["url"] for line in lines)
    for line in lines:
        assert made.get(line["key"], line["media_task_id"]) == line["media_task_id"]
    assert len({line["key"] for line in lines}) == len(table)


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "discarded"])
def test_in_a_changed_table_no_file_lands_on_anothers(
    sim: Simulator, connect: Connect, context: Place, complete: Complete, tmp_path: Path, keep: bool
) -> None:
    """Each line's file is what its hash says, however the rows have moved; what has landed stays there."""
    connect("kling")
    folder = f"file://{tmp_path}/"

    def lands(*names: str) -> dict[str, str]:
        lines = lines_of(complete(batch(tmp_path, foxes(*names), save_to=folder)))
        for line in lines:
            for file in line["files"]:
                content = Path(file["path"].removeprefix("file://")).read_bytes()
                assert hashlib.sha256(content).hexdigest() == file["sha256"]
        paths = {line["arguments"]["prompt"]: line["files"][0]["path"] for line in lines}
        assert len(set(paths.values())) == len(names)
        return paths

    first = lands("a", "b", "c")
    clear(context, keep=keep)
    second = lands("new", "a", "b", "c")
    clear(context, keep=keep)
    third = lands("newer", "c", "new", "b", "a")
    assert len(sim.ledger()) == 5
    if keep:
        assert {**second, **first} == second
        assert {**third, **second} == third


def test_no_more_questions_are_left_than_there_are_senders(
    sim: Simulator,
    connect: Connect,
    context: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the provider can be asked for nothing, a worker that dies has no more than eight under way."""

    class Killed(BaseException):
        """The worker is gone."""

    connect("vap")
    pictures = [{"image_url": f"https://cdn.example/{number}.png"} for number in range(40)]
    operator = batch(tmp_path, [], requests=pictures, operation="upscale_image", media_conn_id="vap_default")

    def dies(*_: Any) -> Any:
        raise Killed

    monkeypatch.setattr(Submission, "send", dies)
    with pytest.raises(Killed):
        operator.execute(context)  # type: ignore[arg-type]  # what it uses of a context
    (page,) = (value for key, value in context["task_state_store"].items() if ".page." in key)
    assert len(page) == 8


def test_a_row_that_comes_back_is_not_paid_again(
    sim: Simulator, connect: Connect, context: Place, complete: Complete, tmp_path: Path
) -> None:
    """What was made of a row that the table lost for a while is still known."""
    connect("kling")
    for table in (("a", "b", "c"), ("a", "c"), ("a", "b", "c")):
        assert complete(batch(tmp_path, foxes(*table)))["succeeded"] == len(table)
        clear(context)
    assert len(sim.ledger()) == 3


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "discarded"])
def test_a_clear_while_they_wait_waits_for_the_same_ones(
    sim: Simulator, connect: Connect, context: Place, complete: Complete, tmp_path: Path, keep: bool
) -> None:
    """Whether or not the clear discards this task's state, what is under way is adopted."""
    connect("kling")
    operator = batch(tmp_path, foxes("a", "b", "c", word=SLOW))
    until_deferred(operator, context)
    assert len(sim.ledger()) == 3
    clear(context, keep=keep)
    sim.advance(61)
    assert complete(operator)["succeeded"] == 3
    assert len(sim.ledger()) == 3


@pytest.mark.parametrize("moment", ["before the copy", "before the state", "before any reply"])
@pytest.mark.parametrize("keep", [True, False], ids=["retried", "cleared and discarded"])
def test_a_worker_killed_between_the_intents_and_what_became_of_them(
    sim: Simulator,
    connect: Connect,
    context: Place,
    complete: Complete,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    keep: bool,
) -> None:
    """Many intents share an entry; whichever of them were sent, each request is paid for once."""

    class Killed(BaseException):
        """The worker is gone."""

    connect("kling")
    monkeypatch.setattr("airflow_media_tasks.submissions.submission.SETTLE", 0.2)
    operator = batch(tmp_path, foxes(*"abcdefgh"))
    own, shared = context["task_state_store"], context["asset_state_store"][SUBMISSIONS]

    def dies(key: str) -> None:
        if (".page." in key) if moment == "before the copy" else key.endswith("media_task.batch"):
            raise Killed

    with monkeypatch.context() as patched:
        if moment == "before any reply":
            send = Submission.send

            def killed_at_the_fifth(self: Submission, intent: Record) -> tuple[Record, MediaTask]:
                sent = send(self, intent)
                if "fox e" in self.arguments["prompt"]:
                    raise Killed
                return sent

            patched.setattr(Submission, "send", killed_at_the_fifth)
        else:
            store = shared if moment == "before the copy" else own
            write = store.set

            def write_or_die(key: str, *rest: Any, **named: Any) -> None:
                if context.get("began"):
                    dies(key)
                write(key, *rest, **named)
                context["began"] = True

            patched.setattr(store, "set", write_or_die)
        with pytest.raises(Killed):
            operator.execute(context)  # type: ignore[arg-type]  # what it uses of a context
    if keep:
        retry(context)
    else:
        clear(context, keep=False)
    assert complete(operator)["succeeded"] == 8
    assert len(sim.ledger()) == 8


def test_what_has_landed_before_a_worker_dies_is_not_landed_again(
    sim: Simulator,
    connect: Connect,
    context: Place,
    complete: Complete,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is written down page by page."""

    class Killed(BaseException):
        """The worker is gone."""

    connect("kling")
    operator = batch(tmp_path, foxes(*map(str, range(PAGE + 5))), save_to=f"file://{tmp_path}/")
    land, landed = storage.land, []

    def dies_on_the_second_page(*given: Any, **named: Any) -> Any:
        if len(landed) == PAGE + 2:
            raise Killed
        landed.append(given)
        return land(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "land", dies_on_the_second_page)
        with pytest.raises(Killed):
            complete(operator)
    before = len(landed)
    monkeypatch.setattr(
        storage, "land", lambda *given, **named: landed.append(given) or land(*given, **named)
    )
    retry(context)
    assert complete(operator)["succeeded"] == len(sim.ledger()) == PAGE + 5
    assert len(landed) - before == 5


def test_a_try_after_a_kill_submits_all_that_is_left_before_it_waits(
    sim: Simulator, connect: Connect, context: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole pages on which nothing is left to do do not end its round."""

    class Killed(BaseException):
        """The worker is gone."""

    connect("kling")
    many = 4 * PAGE
    operator = batch(tmp_path, foxes(*map(str, range(many)), word=SLOW))
    send, sent = Submission.send, []

    def dies_late(self: Submission, intent: Record) -> tuple[Record, MediaTask]:
        if len(sent) > 3 * PAGE:
            raise Killed
        sent.append(intent)
        return send(self, intent)

    with monkeypatch.context() as patched:
        patched.setattr(Submission, "send", dies_late)
        with pytest.raises(Killed):
            operator.execute(context)  # type: ignore[arg-type]  # what it uses of a context
    monkeypatch.setattr("airflow_media_tasks.submissions.submission.SETTLE", 0.2)
    retry(context)
    until_deferred(operator, context)
    assert len(sim.ledger()) == many


# Few calls, small entries.


def test_requests_share_the_calls_of_the_store(
    sim: Simulator, connect: Connect, context: Place, complete: Complete, tmp_path: Path
) -> None:
    """Three hundred requests need a fraction of a call each; no entry, argument or event is large."""
    connect("acedata")
    own, shared = context["task_state_store"], context["asset_state_store"][SUBMISSIONS]
    calls = []
    for store in (own, shared):
        for name in ("get", "set", "delete"):
            method = getattr(store, name)

            def counted(key: str, *rest: Any, method: Any = method, **named: Any) -> Any:
                calls.append(key)
                return method(key, *rest, **named)

            setattr(store, name, counted)
    operator = batch(
        tmp_path,
        foxes(*map(str, range(300))),
        media_conn_id="acedata_default",
        operation="veo/text_to_video",
    )
    deferred = until_deferred(operator, context)
    assert len(json.dumps(deferred.trigger.serialize()[1])) < 1000
    retry(context)
    assert complete(operator)["succeeded"] == 300
    assert len(sim.ledger()) == 300
    assert len(calls) < 0.5 * 300, calls
    sizes = {key: len(json.dumps(value)) for store in (own, shared) for key, value in store.items()}
    assert max(sizes.values()) < ENTRY_BYTES, sizes
    assert "fox" not in json.dumps(shared)
    assert "http" not in json.dumps(shared)


def test_an_entry_of_a_full_page_is_small_whatever_the_ids(context: Place) -> None:
    """A page of records that hold the longest ids, and all else that one can hold, is below 60 KiB."""
    entries = Entries(context)  # type: ignore[arg-type]  # what it uses of a context
    state = State(1, 100, 100, "kling", "kling_default", 0.0)
    pages = Pages(entries, state, {"provider": "kling", "media_conn_id": "kling_default"})
    for number in range(PAGE):
        record = Record(
            phase="submitted",
            generation=12,
            number=12,
            fingerprint="f" * 20,
            client_ref="amt-" + "0" * 32,
            submitted_after="2026-11-20T10:11:12.131415+00:00",
            media_conn_id="kling_default",
            operation="multi_image_to_video",
            provider="kling",
            media_task_id="videos/multi-image2video/" + "x" * 480,
            finished_at="2026-11-20T10:11:12.131415+00:00",
            spent={"amount": "123456.123456", "unit": "units"},
            held="123456.123456",
            key="f" * 20 + "-12345",
            failure="SubmissionOutcomeUnknown",
            asked_at="2026-11-20T10:11:12.131415+00:00",
        )
        pages[number] = pages.end(record, {"error": {"message": "x" * 2000}})
    pages.write()
    stored = context["task_state_store"]
    assert max(len(json.dumps(value)) for value in stored.values()) < ENTRY_BYTES


def test_a_state_that_cannot_be_read_stops_the_batch(
    sim: Simulator, connect: Connect, context: Place, tmp_path: Path
) -> None:
    """Whatever somebody wrote in its place, nothing is sent on the strength of it."""
    connect("kling")
    operator = batch(tmp_path, foxes("a"))
    for nonsense in ("x", {}, {"total": -1}, {"try_number": 1, "total": "a"}):
        context["task_state_store"].set("media_task.batch", nonsense)
        with pytest.raises(MediaTaskError, match=r"media_task\.batch"):
            operator.execute(context)  # type: ignore[arg-type]  # what it uses of a context
    assert sim.ledger() == []


# What the first version wrote.

OF_THE_FIRST_VERSION: dict[str, Any] = {
    "generation": 0,
    "number": 1,
    "client_ref": "amt-5d41402abc4b2a76b9719d911017c592",
    "submitted_after": "2026-11-20T10:11:12.131415+00:00",
    "media_conn_id": "kling_default",
    "operation": "text_to_video",
    "provider": "kling",
}


def first_version(context: Place, sim: Simulator, prompts: list[str]) -> list[str]:
    """Requests as the first version left them, under way, made and refused; the ids of what is paid."""
    from airflow_media_tasks.hooks.base import get_media_hook  # noqa: PLC0415  # reads a connection
    from airflow_media_tasks.submissions.submission import fingerprint  # noqa: PLC0415  # as above

    hook = get_media_hook("kling_default")
    ids = []
    for number, phase in enumerate(("submitted", "finished", "refused")):
        arguments = {"prompt": prompts[number]}
        record = {
            **copy.deepcopy(OF_THE_FIRST_VERSION),
            "phase": phase,
            "fingerprint": fingerprint("kling_default", "text_to_video", arguments),
            "arguments": arguments,
        }
        if phase != "refused":
            task = hook.submit("text_to_video", arguments)
            ids.append(task.id)
            record["media_task_id"] = task.id
        if phase == "finished":
            record["finished_at"] = record["submitted_after"]
            record["result"] = MediaTask(ids[-1], TaskStatus.SUCCEEDED).to_dict()
            record["result"]["url"] = "https://cdn.example/b.mp4"
        if phase == "refused":
            record |= {"client_ref": "", "number": 0}
            record["error"] = {"type": "MediaProviderError", "message": "503", "provider": "kling"}
        context["task_state_store"].set(f"media_task.{number}", record)
    return ids


@pytest.mark.parametrize("order", ["abcd", "dcba"])
def test_a_batch_that_the_first_version_began_is_ended_by_this_one(
    sim: Simulator, connect: Connect, context: Place, complete: Complete, tmp_path: Path, order: str
) -> None:
    """An upgrade in the middle of a batch, its table in another order, pays nothing twice."""
    connect("kling")
    paid = first_version(context, sim, foxes(*"abc"))
    operator = batch(tmp_path, foxes(*order))
    with pytest.raises(TaskDeferred) as deferred:
        # What the first version's trigger told, in the same try.
        operator.execute_complete(
            context,  # type: ignore[arg-type]  # what it uses of a context
            {"ended": [[0, paid[0], None]], "waiting": [], "left": [3], "refused_since": None, "refusals": 0},
        )
    assert deferred.value.trigger.serialize()[1]["pages"] == [0]
    retry(context)
    manifest = complete(operator)
    assert manifest["succeeded"] == 4
    assert prompts_of(sim) == ["fox a", "fox b", "fox c", "fox d"]
    by_prompt = {line["arguments"]["prompt"][4]: line["media_task_id"] for line in lines_of(manifest)}
    assert [by_prompt["a"], by_prompt["b"]] == paid


async def test_the_first_versions_trigger_hands_over_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trigger that was stored before the upgrade wakes a worker, which takes the records over."""
    from airflow_media_tasks import triggers  # noqa: PLC0415  # reads Airflow's configuration

    monkeypatch.setattr(triggers, "_NOT_TOO_SHORT", 0.0)
    of_the_first_version = {
        "waiting": [[0, "videos/text2video/1", "text_to_video", 1795163472.25, 1795163472.25]],
        "left": [1, 2],
        "media_conn_id": "kling_default",
        "poll_interval": 10.0,
        "timeout": 3600.0,
        "queue_timeout": None,
        "wake_after": 1,
        "until": None,
        "refused_since": None,
        "refusals": 0,
    }
    trigger = triggers.MediaBatchTrigger(**of_the_first_version)
    assert trigger.serialize()[1].items() >= of_the_first_version.items()
    (event,) = [event.payload async for event in trigger.run()]
    assert event == {"ended": {}, "gave_up": {}}
