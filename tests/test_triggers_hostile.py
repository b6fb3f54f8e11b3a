"""Whatever a provider replies and a trigger's row holds: the triggerer lives, and every wait ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import pytest
from aiohttp import web
from airflow.jobs.triggerer_job_runner import TriggerEventEntry, messages
from airflow.sdk.execution_time.comms import _RequestFrame
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_media_tasks import triggers
from airflow_media_tasks.submissions.records import PAGE
from airflow_media_tasks.task import MediaTask, TaskStatus
from airflow_media_tasks.triggers import (
    MediaBatchTrigger,
    MediaTaskTrigger,
    Turn,
    TurnTrigger,
    numbers_of,
)
from airflow_media_tasks.waiting import poller
from airflow_media_tasks.waiting.poller import Poller
from airflow_media_tasks.waiting.watches import Watch

from .clock import DrivenClock


Connect = Callable[..., str]

pytestmark = pytest.mark.usefixtures("driven_clock")

DEADLINE = 3000.0
VALUES: list[Any] = [
    10**30,
    -(10**30),
    1e308,
    math.nan,
    math.inf,
    -1,
    "\ud800",
    "a\0b",
    "x" * 100_000,
    "",
    None,
    True,
    [],
    {},
    ["\udfff", 10**30, {"\ud800": math.nan}],
    {"url": ["\ud800"], "\ud800": {"a\0": 10**30}},
    [[[["https://x.example/\ud800.mp4"]]]],
]
TEXTS = [b"", b"null", b"[]", b"<html>", b"{", b"\xff\xfe", b'{"a": ' * 2000, b"[" * 100_000, b'"\\ud800"']


def acedata(own_id: str) -> dict[str, Any]:
    """A finished task's document."""
    video = {"id": "v", "video_url": "https://x.example/v.mp4", "state": "succeeded", "video_width": 640}
    response = {"success": True, "task_id": own_id, "data": [{**video, "duration": 5.0, "created_at": "x"}]}
    return {
        "id": own_id,
        "type": "videos",
        "created_at": 1795167072.5,
        "request": {"prompt": "a fox", "callback_url": "https://x.example/?ref=amt-1"},
        "response": response,
    }


def kling(own_id: str) -> dict[str, Any]:
    """A finished task's reply."""
    video = {"id": "v", "url": "https://x.example/v.mp4", "duration": "5.1"}
    return {
        "code": 0,
        "message": "ok",
        "request_id": "r",
        "data": {
            "task_id": own_id,
            "task_status": "succeed",
            "task_status_msg": "done",
            "created_at": 1795167072500,
            "updated_at": 1795167072600,
            "final_unit_deduction": "1.5",
            "task_info": {"external_task_id": "e"},
            "task_result": {"videos": [video]},
        },
    }


def vap(own_id: str) -> dict[str, Any]:
    """A finished task's document."""
    return {
        "task_id": own_id,
        "type": "video",
        "status": "completed",
        "progress": 1.0,
        "created_at": "2026-11-20T10:11:13Z",
        "actual_cost": "0.18",
        "estimated_cost": "0.18",
        "result": {"video_url": "https://x.example/v.mp4", "items": [{"url": "https://x.example/v.mp4"}]},
        "error": {"code": "none", "message": "nothing"},
    }


HONEST = {"acedata": acedata, "kling": kling, "vap": vap}
GROUP = {"acedata": "veo/", "kling": "videos/text2video/", "vap": ""}


def paths(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Each place in *document*."""
    inner = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, value in inner:
        yield (*path, key)
        yield from paths(value, (*path, key))


def hostile(provider: str) -> dict[str, bytes]:
    """A reply for each id: the honest one with one value exchanged, or something else altogether."""
    replies: dict[str, bytes] = {}
    for path, value in itertools.product(paths(HONEST[provider]("t")), VALUES):
        own_id = f"t{len(replies)}"
        document = HONEST[provider](own_id)
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        replies[own_id] = json.dumps(document).encode()
    for text in TEXTS:
        replies[f"t{len(replies)}"] = text
    return replies


def sent(event: TriggerEvent | None, failure: BaseException | None) -> None:
    """Fails unless what comes of a trigger gets through all that Airflow's triggerer does with it."""
    lines = None if failure is None else traceback.format_exception(failure)
    changes = messages.TriggerStateChanges(
        events=None if event is None else [TriggerEventEntry(trigger_id=1, event=event, persist_seq=None)],
        finished=[1],
        failures=None if lines is None else [(1, lines)],
    )
    _RequestFrame(id=1, body=changes.model_dump()).as_bytes()
    if event is not None:
        text = json.dumps(event.payload, allow_nan=False, ensure_ascii=False)
        assert "\\u0000" not in text.replace("\\\\", "")  # PostgreSQL's JSON has no NUL.
        text.encode()


async def outcome(trigger: BaseTrigger) -> Any:
    """The payload of the trigger's one event, or None if it failed; the triggerer survives both."""
    events, failure = [], None
    try:
        events = [event async for event in trigger.run()]
    except Exception as error:  # noqa: BLE001  # as Airflow's triggerer does it
        failure = error
    assert len(events) == (failure is None)
    sent(events[0] if events else None, failure)
    return events[0].payload if events else None


@contextlib.asynccontextmanager
async def serving(provider: str, replies: Mapping[str, bytes]) -> AsyncIterator[str]:
    """A provider on loopback that replies by the task's id; batches and lists it does not have."""

    async def answer(request: web.Request) -> web.Response:
        """The reply of the task that is asked for."""
        own_id = request.path.rpartition("/")[2]
        if request.method == "POST":
            body = await request.json()
            own_id = body.get("id") or ""
        content = replies.get(own_id)
        if content is None:
            return web.json_response({"code": 1, "message": "no"}, status=405)
        return web.Response(body=content, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("provider", HONEST)
async def test_no_reply_of_a_provider_ends_the_triggerer_or_hides_another_task(
    connect: Connect, provider: str
) -> None:
    """Each of hundreds of hostile replies becomes an event that Airflow can send; an honest one in time."""
    replies = hostile(provider)
    replies["honest"] = json.dumps(HONEST[provider]("honest")).encode()
    async with serving(provider, replies) as url:
        conn = connect(provider, host=url)
        until = time.time() + DEADLINE
        ids = [GROUP[provider] + own_id for own_id in replies]
        clock = asyncio.get_running_loop().time
        began, took = clock(), math.inf

        async def wait(media_task_id: str) -> Any:
            """What comes of its trigger, and when for the honest one."""
            nonlocal took
            event = await outcome(MediaTaskTrigger(media_task_id, conn, 5.0, until))
            if media_task_id.endswith("honest"):
                took = clock() - began
            return event

        events = await asyncio.gather(*(wait(id_) for id_ in ids))
    assert [event["id"] for event in events] == ids
    assert took < 120
    assert MediaTask.from_dict(events[-1]).url == "https://x.example/v.mp4"
    for event in events:
        MediaTask.from_dict(event)


def under_way(media_task_id: str) -> dict[str, Any]:
    """What a batch's copy says of a request that is under way."""
    submitted_after = datetime.fromtimestamp(time.time(), timezone.utc).isoformat()
    return {
        "phase": "submitted",
        "media_task_id": media_task_id,
        "operation": "",
        "submitted_after": submitted_after,
    }


@pytest.mark.parametrize("provider", HONEST)
async def test_no_reply_of_a_provider_ends_a_batch(
    connect: Connect, provider: str, shared_store: Any, context: Any
) -> None:
    """A batch's event can be sent, too, and tells of each request whether it has ended."""
    replies = dict(itertools.islice(hostile(provider).items(), 0, None, 7))
    async with serving(provider, replies) as url:
        conn = connect(provider, host=url)
        many, began = len(replies), time.time()
        for number, own_id in enumerate(replies):
            page = shared_store.get(f"x.{number // PAGE}", {})
            shared_store.set(
                f"x.{number // PAGE}", {**page, str(number): under_way(GROUP[provider] + own_id)}
            )
        pages = list(range(len(shared_store)))
        event = await outcome(MediaBatchTrigger(conn, 5.0, DEADLINE, None, many, None, "x.", pages, began))
    told = {
        number
        for bits in event.values()
        for page in pages
        for number in numbers_of(page, int(bits.get(str(page), "0"), 16))
    }
    assert told == set(range(many))


# A row of the triggers' table, or an event of another version.

ABSURD: list[Any] = [
    math.nan,
    math.inf,
    -math.inf,
    -1,
    10**400,
    1e300,
    32503680000.0,
    "soon",
    "\ud800",
    None,
    True,
    [],
    {},
]


@pytest.mark.parametrize(
    "name",
    [
        "media_task_id",
        "media_conn_id",
        "poll_interval",
        "deadline",
        "queue_deadline",
        "operation",
        "submitted_at",
    ],
)
async def test_no_row_of_a_task_trigger_ends_the_triggerer_or_harms_another(
    connect: Connect, name: str, driven_clock: DrivenClock
) -> None:
    """Airflow's triggerer survives neither an exception of a constructor nor an event that it cannot send."""
    async with serving("vap", {"t": json.dumps(vap("t")).encode()}) as url:
        row = {
            "media_task_id": "t",
            "media_conn_id": connect("vap", host=url),
            "poll_interval": 1.0,
            "deadline": time.time() + 100,
            "queue_deadline": None,
            "operation": "",
            "submitted_at": None,
        }
        began = driven_clock()
        rows = [*({**row, name: value} for value in ABSURD), row]
        events = await asyncio.wait_for(
            asyncio.gather(*(outcome(MediaTaskTrigger(**each)) for each in rows)), 200
        )
        assert driven_clock() - began <= 110
        assert MediaTask.from_dict(events[-1]).status is TaskStatus.SUCCEEDED


@pytest.mark.parametrize(
    "name",
    [
        "media_conn_id",
        "poll_interval",
        "wake_after",
        "until",
        "began",
        "copies",
        "pages",
        "phase",
        "media_task_id",
        "operation",
        "submitted_after",
        "number",
        "record",
        "page",
    ],
)
async def test_no_row_of_a_batch_trigger_ends_the_triggerer_or_waits_for_ever(
    connect: Connect, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of the year 2999 makes nobody wait for longer than the timeout, nor what others write."""
    running = {**vap("t"), "status": "running"}
    async with serving("vap", {"t": json.dumps(running).encode()}) as url:
        one = under_way("t")
        copies: dict[str, Any] = {"x.0": {"0": one}}
        row = {
            "media_conn_id": connect("vap", host=url),
            "poll_interval": 1.0,
            "timeout": 100.0,
            "queue_timeout": None,
            "wake_after": 1,
            "until": None,
            "copies": "x.",
            "pages": [0],
            "began": time.time(),
        }
        changed = []
        for value in ABSURD:
            if name in row:
                changed.append({name: value})
                continue
            key = f"{len(copies)}."
            copies[f"{key}0"] = {
                "number": {value if isinstance(value, str) else repr(value): one},
                "record": {"0": value},
                "page": value,
            }.get(name, {"0": {**one, name: value}})
            changed.append({"copies": key})
        monkeypatch.setattr(triggers, "AssetStateStoreAccessor", lambda name: copies)
        waits = [asyncio.create_task(outcome(MediaBatchTrigger(**{**row, **each}))) for each in changed]
        # A turn comes after five minutes at most, all else ends with the timeout.
        await asyncio.wait(waits, timeout=310 if name == "until" else 110)
        assert [each for each, wait in zip(changed, waits, strict=True) if not wait.done()] == []
        for wait in waits:
            wait.result()


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("name", ["until", "since", "refusals"])
async def test_no_row_of_a_turn_ends_the_triggerer_or_waits_for_ever(
    name: str, value: Any, driven_clock: DrivenClock
) -> None:
    """A turn comes after five minutes at most, and hands on what Airflow can send."""
    began = driven_clock()
    row = {"until": time.time() + 10, "since": time.time(), "refusals": 1}
    await outcome(TurnTrigger(**{**row, name: value}))
    assert driven_clock() - began <= 300.1


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("name", ["since", "refusals"])
async def test_a_turn_of_no_sense_is_refused_and_one_from_the_future_begins_now(
    name: str, value: Any
) -> None:
    """However it was written, it lengthens nobody's wait beyond its purpose."""
    now = time.time()
    event = {"since": now - 60, "refusals": 3, name: value}
    try:
        turn = Turn.of_event(event)
    except ValueError:
        return
    assert 0 <= turn.since <= now
    assert 0 <= turn.refusals <= 1000
    for retry_after in (None, 5.0, 30_000.0, 1e300, math.inf, math.nan, -1.0):
        assert 0 < turn.next_try(retry_after) - now <= 300


@pytest.mark.parametrize("event", [None, [], "x", 5, {}, {"since": "x"}, {"refusals": 3}])
def test_an_event_of_another_kind_is_no_turn(event: Any) -> None:
    """It is an error that can be retried, with what came instead."""
    with pytest.raises(ValueError, match="the trigger's event is no turn"):
        Turn.of_event(event)


# A mistake of ours.


async def test_an_exception_that_nobody_foresaw_ends_one_wait_with_an_event(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its words may be a provider's: they reach the task's error, and no encoder stumbles over them."""

    def broken(*_: object, **__: object) -> None:
        """Fail with what no encoder takes."""
        raise KeyError("\ud800\0")

    monkeypatch.setattr(Watch, "changed", broken)
    event = await outcome(MediaTaskTrigger("t", connect("vap"), 1.0, time.time() + 100))
    error = MediaTask.from_dict(event).error
    assert type(error).__name__ == "MediaProviderError"
    assert "KeyError" in str(error)
    monkeypatch.setattr(MediaTask, "to_dict", broken)
    assert await outcome(MediaTaskTrigger("t", connect("vap"), 1.0, time.time() + 100)) is None
    await asyncio.sleep(10)
    assert not Poller._of_loop.get(asyncio.get_running_loop())


@pytest.mark.parametrize("given", [0.05, 0.0, -5.0, math.nan])
async def test_a_trigger_of_an_older_row_looks_no_more_often_than_once_a_second(
    connect: Connect, given: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written before there was a floor, and goes on."""
    monkeypatch.setattr(poller, "SHORTEST_INTERVAL", 1.0)
    asked: list[float] = []

    class Noted(dict[str, bytes]):
        """Notes when each task is asked for."""

        def get(self, *_: Any) -> Any:
            """The running task."""
            asked.append(asyncio.get_running_loop().time())
            return json.dumps({**vap("t"), "status": "running"}).encode()

    async with serving("vap", Noted()) as url:
        await outcome(MediaTaskTrigger("t", connect("vap", host=url), given, time.time() + 20))
    assert 15 <= len(asked) <= 20
