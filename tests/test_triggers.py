"""Waiting: many triggers, one poller, and what a provider may do to them meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import json
import logging
import math
import random
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pkgutil import resolve_name
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import structlog
from aiohttp import web

from airflow_media_tasks import triggers
from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import MediaTask, TaskStatus
from airflow_media_tasks.triggers import MediaTaskTrigger
from airflow_media_tasks.waiting import accounts
from airflow_media_tasks.waiting.poller import Poller
from airflow_media_tasks.wire.conversations import ConversationHook

from .clock import DrivenClock


Connect = Callable[..., str]

pytestmark = pytest.mark.usefixtures("driven_clock")

POLLER = sys.modules[Poller.__module__]

VEO = "veo/text_to_video"
ASKED = "POST /acedata/veo/tasks"


async def submit(media_conn_id: str, operation: str, prompts: Iterable[str]) -> list[str]:
    """The `media_task_id` of one new task for each prompt."""
    hook = await asyncio.to_thread(get_media_hook, media_conn_id)
    async with hook:
        tasks = await asyncio.gather(*(hook.asubmit(operation, {"prompt": prompt}) for prompt in prompts))
    return [task.id for task in tasks]


def trigger(media_task_id: str, media_conn_id: str, interval: float = 0.05, **rest: Any) -> MediaTaskTrigger:
    """A trigger that waits at most 20 s unless told otherwise."""
    return MediaTaskTrigger(
        media_task_id, media_conn_id, interval, rest.pop("deadline", time.time() + 20), **rest
    )


async def fired(waiting: MediaTaskTrigger) -> MediaTask:
    """The task of the trigger's one event, which must have crossed JSON."""
    events = [event async for event in waiting.run()]
    assert len(events) == 1
    return MediaTask.from_dict(json.loads(json.dumps(events[0].payload)))


async def until(condition: Callable[[], Any], what: str, seconds: float = 10.0) -> None:
    """Returns once *condition* holds; fails after so many seconds of the loop's clock."""
    ends = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < ends, what
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def waiting_for(*waits: MediaTaskTrigger) -> AsyncIterator[list[asyncio.Task[MediaTask]]]:
    """Runs each trigger in a task of its own, as a triggerer does, and cancels what is left at the end."""
    tasks = [asyncio.create_task(fired(wait)) for wait in waits]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await nothing_left()


async def nothing_left() -> None:
    """Fails unless the last waiter's end also ends the poller and its requests."""
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind")


def sockets_to(url: str) -> int:
    """How many connections this process has open, as a client, to the server at *url*."""
    port = urlsplit(url).port
    ours = [each for each in psutil.Process().net_connections("tcp") if each.status == "ESTABLISHED"]
    return len([each for each in ours if each.raddr[1] == port])


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The connection of each asynchronous HTTP client that is made."""
    made: list[str] = []
    make = ConversationHook._new_async_client

    async def counted(self: ConversationHook) -> Any:
        """Do as usual, and count it."""
        made.append(self.media_conn_id)
        return await make(self)

    monkeypatch.setattr(ConversationHook, "_new_async_client", counted)
    return made


class Account:
    """A tiny AceData of our own, for what the simulator cannot be told: it answers by rule."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.keys: list[str] = []
        self.rule: Callable[[list[str], str], web.Response | None] = lambda ids, key: None
        self.done = False
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        """`retrieve` or `retrieve_batch`, unless the rule says otherwise."""
        body = await request.json()
        ids = body.get("ids") or [body["id"]]
        key = request.headers["Authorization"].removeprefix("Bearer ")
        self.asked.append(ids)
        self.keys.append(key)
        if (refused := self.rule(ids, key)) is not None:
            return refused
        items = [self.document(own_id) for own_id in ids]
        return web.json_response({"items": items} if "ids" in body else items[0])

    def document(self, own_id: str) -> dict[str, Any]:
        """A running task, or one with its video."""
        if not self.done:
            return {"id": own_id, "request": {}, "response": None}
        data = [{"id": "v", "video_url": f"https://cdn.example/{own_id}.mp4", "state": "succeeded"}]
        return {"id": own_id, "request": {}, "response": {"success": True, "data": data}}


@pytest.fixture
async def account(connect: Connect) -> AsyncIterator[Account]:
    """The tiny AceData, with connections `tiny_a` and `tiny_b` of the keys `key-a-123` and `key-b-123`."""
    answers = Account()
    app = web.Application()
    app.router.add_post("/veo/tasks", answers.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    answers.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    connect("acedata", "tiny_a", host=answers.url, password="key-a-123")
    connect("acedata", "tiny_b", host=answers.url, password="key-b-123")
    yield answers
    await runner.cleanup()


# One poller.


async def test_one_client_and_ten_sockets_serve_two_hundred_watches(
    sim: Simulator, connect: Connect, clients: list[str]
) -> None:
    """A provider that is asked for one task at a time sees ten connections at most, all of one client."""
    conn = connect("vap")
    ids = await submit(conn, "text_to_image", [f"p{n} [sim:seconds=60]" for n in range(200)])
    clients.clear()
    sim.fault("latency", provider="vap", on="read", delay=0.02)
    most = 0
    async with waiting_for(*(trigger(id_, conn, 0.1) for id_ in ids)) as waits:
        for _ in range(60):
            await asyncio.sleep(0.02)
            most = max(most, sockets_to(sim.url))
        sim.clear_faults()
        sim.advance(61)
        tasks = await asyncio.gather(*waits)
    assert {task.id for task in tasks} == set(ids)
    assert all(task.status is TaskStatus.SUCCEEDED for task in tasks)
    assert clients == [conn]
    assert 1 <= most <= 10
    await until(lambda: sockets_to(sim.url) == 0, "the client was left open")


@pytest.mark.parametrize("starts", ["together", "spread", "in four groups"])
async def test_a_status_request_serves_fifty_tasks(
    sim: Simulator, connect: Connect, starts: str, driven_clock: DrivenClock
) -> None:
    """200 tasks cost at most four requests an interval, over many intervals, whenever they began to wait."""
    conn = connect("acedata")
    ids = await submit(conn, VEO, [f"p{n} [sim:seconds=600]" for n in range(200)])
    interval, rounds = 0.3, 5
    delays = {
        "together": [0.0] * 200,
        "spread": [random.Random(7).uniform(0, interval) for _ in ids],  # noqa: S311  # a schedule
        "in four groups": [n % 4 * interval / 4 for n in range(200)],
    }[starts]

    async def later(delay: float, id_: str) -> MediaTask:
        """Wait for the task after a while."""
        await asyncio.sleep(delay)
        return await fired(trigger(id_, conn, interval))

    waits = [asyncio.create_task(later(delay, id_)) for delay, id_ in zip(delays, ids, strict=True)]
    await until(lambda: sim.requests().get(ASKED), "nobody asked")
    first = driven_clock()
    await asyncio.sleep(interval)
    before, began = sim.requests()[ASKED], driven_clock()
    await asyncio.sleep(rounds * interval)
    asked, took = sim.requests()[ASKED] - before, driven_clock() - began
    sim.advance(601)
    tasks = await asyncio.gather(*waits)
    assert all(task.status is TaskStatus.SUCCEEDED for task in tasks)
    # One request may stand on either side of the window's edge.
    assert 2 * rounds <= asked <= 4 * took / interval + 1
    assert before <= 4 * (began - first) / interval + 4 + 1
    await nothing_left()


async def test_a_poller_ends_with_its_last_watch_and_a_new_one_starts(
    sim: Simulator, connect: Connect, clients: list[str]
) -> None:
    """Waiting again after everybody was served works like the first time, with a client of its own."""
    conn = connect("acedata")
    for _ in range(2):
        (id_,) = await submit(conn, VEO, ["one [sim:seconds=5]"])
        clients.clear()
        async with waiting_for(trigger(id_, conn), trigger(id_, conn)) as waits:
            await until(lambda: sim.requests().get(ASKED, 0) >= 2, "nobody asked")
            sim.advance(6)
            assert [task.id for task in await asyncio.gather(*waits)] == [id_, id_]
        assert clients == [conn]
        await until(lambda: sockets_to(sim.url) == 0, "the client was left open")
        asked = sim.requests()[ASKED]
        await asyncio.sleep(0.15)
        assert sim.requests()[ASKED] == asked
        sim.reset()


async def test_watches_that_come_while_the_last_one_goes_are_served(sim: Simulator, connect: Connect) -> None:
    """However starts and ends fall together, no waiter is forgotten by a poller that is just ending."""
    conn = connect("acedata")
    ids = await submit(conn, VEO, [f"p{n} [sim:seconds=0]" for n in range(40)])
    sim.advance(2)

    async def one_after_the_other(some: list[str]) -> list[MediaTask]:
        """Wait for each when the last has ended."""
        return [await fired(trigger(id_, conn, 0.01)) for id_ in some]

    chains = await asyncio.gather(*(one_after_the_other(ids[n::4]) for n in range(4)))
    assert sorted(task.id for chain in chains for task in chain) == sorted(ids)
    await nothing_left()


async def test_two_waiters_of_one_task_share_its_requests(account: Account) -> None:
    """An operator and a sensor that wait for the same task ask for it once, and both hear of its end."""
    async with waiting_for(*(trigger("veo/same", "tiny_a", 0.1) for _ in range(5))) as waits:
        await asyncio.sleep(0.65)
        assert 3 <= len(account.asked) <= 8
        assert all(ids == ["same"] for ids in account.asked)
        account.done = True
        assert [task.url for task in await asyncio.gather(*waits)] == ["https://cdn.example/same.mp4"] * 5


async def test_waiters_share_where_a_provider_is_asked_for_one_task_at_a_time(
    sim: Simulator, connect: Connect, driven_clock: DrivenClock
) -> None:
    """Five waiters that began at different times cost what one of them costs."""
    conn = connect("vap")
    (id_,) = await submit(conn, "text_to_image", ["x [sim:seconds=60] [sim:queued=0]"])
    waits = []
    for _ in range(5):
        waits.append(asyncio.create_task(fired(trigger(id_, conn, 0.25))))
        await asyncio.sleep(0.04)
    before = sim.requests().get("GET /vap/v3/tasks/{id}", 0)
    began = driven_clock()
    await asyncio.sleep(1)
    asked = sim.requests()["GET /vap/v3/tasks/{id}"] - before
    assert 2 <= asked <= (driven_clock() - began) / (0.25 * 0.9) + 1
    sim.advance(61)
    assert all(task.status is TaskStatus.SUCCEEDED for task in await asyncio.gather(*waits))
    await nothing_left()


async def test_a_task_that_the_batch_leaves_out_is_asked_for_alone(sim: Simulator, connect: Connect) -> None:
    """A provider that omits a task from its batch reply still gets to say how it is."""
    conn = connect("acedata")
    prompts = [f"p{n} [sim:seconds=5]" for n in range(9)] + ["left out [sim:missing-from-batch]"]
    ids = await submit(conn, VEO, prompts)
    sim.advance(6)
    async with waiting_for(*(trigger(id_, conn) for id_ in ids)) as waits:
        tasks = await asyncio.gather(*waits)
    assert all(task.status is TaskStatus.SUCCEEDED for task in tasks)


# One bad task.


@pytest.mark.parametrize("word", ["html", "truncated", "huge", "null"])
async def test_an_unreadable_task_does_not_disturb_the_others(
    sim: Simulator,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    word: str,
    driven_clock: DrivenClock,
) -> None:
    """The tasks of a batch are served in time while one of them only ever answers nonsense."""
    monkeypatch.setattr(POLLER, "UNREADABLE_GRACE", 0.6)
    monkeypatch.setattr(POLLER, "NOT_FOUND_GRACE", 0.6)
    monkeypatch.setattr(accounts, "LONGEST_PAUSE", 0.2)
    conn = connect("acedata")
    prompts = [f"p{n} [sim:seconds={5 if n else 60}]" for n in range(49)]
    ids = await submit(conn, VEO, [*prompts, f"bad [sim:seconds=5] [sim:{word}]"])
    async with waiting_for(*(trigger(id_, conn, 0.2) for id_ in ids)) as waits:
        await until(lambda: sim.requests().get(ASKED, 0) >= 2, "nobody asked")
        sim.advance(6)
        began = driven_clock()
        tasks = await asyncio.gather(*waits[1:-1])
        assert driven_clock() - began < 2
        given_up = await waits[-1]
        assert not waits[0].done()
        sim.advance(60)
        tasks.append(await waits[0])
    assert all(task.status is TaskStatus.SUCCEEDED for task in tasks)
    assert given_up.id == ids[-1]
    assert given_up.error is not None
    assert type(given_up.error).__name__ in ("MediaProviderError", "MediaNotFoundError")
    assert given_up.error.media_task_id == ids[-1]


async def test_a_task_that_breaks_its_whole_batch_is_found_and_set_apart(
    account: Account, caplog: pytest.LogCaptureFixture, driven_clock: DrivenClock
) -> None:
    """Where one id makes the batch answer HTTP 500, the other 49 are still served, and it is no outage."""
    account.rule = lambda ids, key: web.json_response({}, status=500) if "t49" in ids else None
    deadline = time.time() + 3
    waits_for = [trigger(f"veo/t{n}", "tiny_a", 0.1, deadline=deadline) for n in range(50)]
    async with waiting_for(*waits_for) as waits:
        await asyncio.sleep(0.3)
        account.done = True
        began = driven_clock()
        tasks = await asyncio.gather(*waits[:-1])
        assert driven_clock() - began < 2.5
        assert all(task.status is TaskStatus.SUCCEEDED for task in tasks)
        poisonous = await waits[-1]
    assert type(poisonous.error).__name__ == "MediaTaskTimeout"
    assert poisonous.id == "veo/t49"


# The account in trouble.


async def test_an_outage_is_logged_once_loses_nothing_and_slows_the_questions(
    sim: Simulator, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While a provider is down its waiters wait, it is asked rarely, and the log has two lines of it."""
    monkeypatch.setattr(accounts, "LONGEST_PAUSE", 0.5)
    caplog.set_level(logging.INFO, "airflow_media_tasks")
    conn = connect("acedata")
    ids = await submit(conn, VEO, [f"p{n} [sim:seconds=30]" for n in range(120)])
    async with waiting_for(*(trigger(id_, conn, 0.05) for id_ in ids)) as waits:
        await until(lambda: sim.requests().get(ASKED, 0) >= 6, "nobody asked")
        sim.fault("outage", provider="acedata", on="read", status=503, html=True)
        await until(lambda: "nothing is lost" in caplog.text, "the outage was not logged")
        before = sim.requests()[ASKED]
        sim.advance(31)
        await asyncio.sleep(1.6)
        assert 1 <= sim.requests()[ASKED] - before <= 6
        assert not any(wait.done() for wait in waits)
        sim.clear_faults()
        tasks = await asyncio.gather(*waits)
    assert [task.id for task in tasks] == ids
    assert all(task.status is TaskStatus.SUCCEEDED for task in tasks)
    lines = [record.getMessage() for record in caplog.records if record.name == accounts.__name__]
    assert len(lines) == 2, lines
    assert "acedata_default" in lines[0]
    assert "120 tasks keep waiting" in lines[0]
    assert "answered again" in lines[1]


async def test_a_pause_grows_with_each_failure(account: Account, driven_clock: DrivenClock) -> None:
    """A provider that says 429 again and again, without a hint, is asked after longer and longer pauses."""
    times: list[float] = []

    def refuse(ids: list[str], key: str) -> web.Response:
        """Refuse the request."""
        times.append(driven_clock())
        return web.json_response({"error": {"code": "too_many_requests", "message": "slow"}}, status=429)

    account.rule = refuse
    async with waiting_for(trigger("veo/t", "tiny_a", 0.1, deadline=time.time() + 1000)):
        await until(lambda: len(times) >= 7, "too few requests", 200)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    for gap, expected in zip(gaps, (2.0, 4.0, 8.0, 16.0, 30.0, 30.0), strict=True):
        assert expected <= gap <= 1.2 * expected + 0.2


async def test_a_blip_that_hits_many_requests_at_once_is_no_outage(
    sim: Simulator, connect: Connect, caplog: pytest.LogCaptureFixture, driven_clock: DrivenClock
) -> None:
    """Ten requests that fail together are one failure: nobody pauses and the next round is on time."""
    conn = connect("vap")
    ids = await submit(conn, "text_to_image", [f"p{n} [sim:seconds=60]" for n in range(60)])
    sim.fault("latency", provider="vap", on="read", delay=0.1)
    sim.fault("outage", provider="vap", on="read", status=502, count=10)
    async with waiting_for(*(trigger(id_, conn, 0.2) for id_ in ids)) as waits:
        await until(lambda: sim.requests().get("GET /vap/v3/tasks/{id}", 0) >= 70, "too few requests")
        sim.clear_faults()
        sim.advance(61)
        began = driven_clock()
        assert all(task.status is TaskStatus.SUCCEEDED for task in await asyncio.gather(*waits))
        assert driven_clock() - began < 1.5
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_retry_after_holds_for_the_whole_account_and_for_no_other(account: Account) -> None:
    """After one 429 nobody of that account asks until it is over, though another account goes on."""
    refused_at: list[float] = []
    asked_at: list[tuple[float, str]] = []

    def rule(ids: list[str], key: str) -> web.Response | None:
        """Answer as this test needs it."""
        asked_at.append((asyncio.get_running_loop().time(), key))
        if key == "key-a-123" and not refused_at:
            refused_at.append(asyncio.get_running_loop().time())
            body = {"error": {"code": "too_many_requests", "message": "slow down"}}
            return web.json_response(body, status=429, headers={"Retry-After": "2"})
        return None

    account.rule = rule
    waits_for = [trigger(f"veo/a{n}", "tiny_a", 0.05) for n in range(120)]
    waits_for += [trigger(f"veo/b{n}", "tiny_b", 0.05) for n in range(10)]
    async with waiting_for(*waits_for) as waits:
        await asyncio.sleep(1.5)
        account.done = True
        assert all(task.status is TaskStatus.SUCCEEDED for task in await asyncio.gather(*waits[120:]))
        assert not any(wait.done() for wait in waits[:120])
        await asyncio.gather(*waits[:120])
    # Requests that were under way when the refusal came are no new questions.
    quiet = [moment for moment, key in asked_at if key == "key-a-123" and moment > refused_at[0] + 0.2]
    assert min(quiet) - refused_at[0] >= 2
    others = [moment for moment, key in asked_at if key == "key-b-123" and moment < refused_at[0] + 1.5]
    assert len(others) >= 12


async def test_a_refused_key_is_tolerated_for_a_while_and_then_reported(
    account: Account, monkeypatch: pytest.MonkeyPatch, driven_clock: DrivenClock
) -> None:
    """A key that is refused once costs nobody anything; one that stays refused ends the wait as such."""
    monkeypatch.setattr(accounts, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(POLLER, "UNREADABLE_GRACE", 0.8)
    refused = {"error": {"code": "invalid_token", "message": "no such token"}}
    began = asyncio.get_running_loop().time()
    answered: set[str] = set()

    def rule(ids: list[str], key: str) -> web.Response | None:
        # Well, refused, well again, and then refused for good.
        """Answer as this test needs it."""
        refuses = 2 <= len(account.asked) <= 3 or (
            len(answered) == 60 and asyncio.get_running_loop().time() - began > 0.6
        )
        if not refuses:
            answered.update(ids)
        return web.json_response(refused, status=401) if refuses else None

    account.rule = rule
    async with waiting_for(*(trigger(f"veo/t{n}", "tiny_a") for n in range(60))) as waits:
        tasks = await asyncio.gather(*waits)
    assert asyncio.get_running_loop().time() - began >= 1.3
    assert {type(task.error).__name__ for task in tasks} == {"MediaAuthError"}
    assert "no such token" in str(tasks[0].error)
    assert [task.id for task in tasks] == [task.error.media_task_id for task in tasks if task.error]
    assert {task.status for task in tasks} == {TaskStatus.RUNNING}


# How a wait ends.


async def test_the_deadline_is_absolute_and_survives_a_restart(sim: Simulator, connect: Connect) -> None:
    """A trigger made again from its row waits until the moment that the first one was given."""
    conn = connect("vap")
    (id_,) = await submit(conn, "text_to_image", ["slow [sim:seconds=600] [sim:queued=0]"])
    deadline = time.time() + 2.5
    async with waiting_for(trigger(id_, conn, deadline=deadline, operation="text_to_image")) as waits:
        await asyncio.sleep(0.6)
        assert not waits[0].done()
    path, arguments = trigger(id_, conn, deadline=deadline, operation="text_to_image").serialize()
    again = resolve_name(path)(**json.loads(json.dumps(arguments)))
    task = await fired(again)
    assert abs(time.time() - deadline) < 0.4
    assert (task.id, task.operation, task.status) == (id_, "text_to_image", TaskStatus.RUNNING)
    assert type(task.error).__name__ == "MediaTaskTimeout"
    assert task.error is not None
    assert task.error.code == "timeout"
    assert "still running" in str(task.error)
    assert "may still finish and be billed" in str(task.error)
    await nothing_left()


@pytest.mark.parametrize(
    ("submitted", "seen"),
    [(500.0, "was not seen in 500 s"), (None, "was not seen")],
    ids=["known", "unknown"],
)
async def test_a_deadline_that_passed_while_no_triggerer_ran_is_said_as_such(
    sim: Simulator, connect: Connect, submitted: float | None, seen: str
) -> None:
    """Nobody reads that the provider did not show in 0 s what nobody has asked for."""
    conn = connect("vap")
    now = time.time()
    late = trigger("x", conn, deadline=now - 60, submitted_at=None if submitted is None else now - submitted)
    task = await fired(late)
    assert f"x {seen} (no triggerer was running it when its time ended, at " in str(task.error)
    assert " 0 s" not in str(task.error)
    assert not sim.requests()
    await nothing_left()


async def test_a_task_that_nobody_could_ask_for_is_said_to_be_just_that(account: Account) -> None:
    """After a rate limit, the log says when it is asked for, and the timeout that it was not."""
    headers = {"Retry-After": "200"}
    account.rule = lambda ids, key: web.json_response(
        {"error": {"code": "too_many_requests"}}, status=429, headers=headers
    )
    with structlog.testing.capture_logs() as lines:
        async with waiting_for(trigger("veo/first", "tiny_a", 1.0, deadline=time.time() + 300)):
            await until(lambda: account.asked, "nobody asked")
            later = await fired(trigger("veo/later", "tiny_a", 1.0, deadline=time.time() + 100))
    said = [line["event"] for line in lines if line["event"].startswith("veo/later")]
    when = re.compile(
        r"no answer yet after 60 s; not asked for yet, asked for again in 1[4-8]\d s; status req"
    )
    assert any(when.match(line.partition(": ")[2]) for line in said), said
    assert "veo/later was not asked for in 100 s of waiting; it was not cancelled" in str(later.error)


async def test_a_log_says_why_a_task_alone_cannot_be_read(account: Account) -> None:
    """It is the provider's word, minutes before it ends the wait."""
    account.rule = lambda ids, key: web.json_response(
        {"error": {"code": "gone", "message": "lost it"}}, status=410
    )
    with structlog.testing.capture_logs() as lines:
        task = await fired(trigger("veo/t", "tiny_a", 5.0, deadline=time.time() + 1000))
    said = [line["event"] for line in lines if line["event"].startswith("veo/t: no answer yet")]
    assert said
    assert all(
        "; it cannot be read: connection 'tiny_a': acedata says 'lost it' (HTTP 410" in line for line in said
    )
    assert "lost it" in str(task.error)
    assert type(task.error).__name__ == "MediaRequestError"
    await nothing_left()


async def test_time_in_the_queue_can_be_limited_apart(sim: Simulator, connect: Connect) -> None:
    """A task that the provider has not begun by its queue deadline is given up; one that runs is not."""
    conn = connect("vap")
    ids = await submit(
        conn, "text_to_image", ["stuck [sim:queued=600]", "begun [sim:queued=0] [sim:seconds=5]"]
    )
    queue_deadline = time.time() + 0.6
    async with waiting_for(*(trigger(id_, conn, queue_deadline=queue_deadline) for id_ in ids)) as waits:
        stuck = await waits[0]
        assert not waits[1].done()
        sim.advance(6)
        begun = await waits[1]
    assert stuck.status is TaskStatus.QUEUED
    assert type(stuck.error).__name__ == "MediaTaskTimeout"
    assert stuck.error is not None
    assert stuck.error.code == "queue_timeout"
    assert "in the queue" in str(stuck.error)
    assert begun.status is TaskStatus.SUCCEEDED


async def test_a_status_word_that_nobody_knows_is_named_by_the_timeout(
    sim: Simulator, connect: Connect
) -> None:
    """It never ends a task, is warned of once, and the one who waited in vain reads it in the error."""
    conn = connect("vap")
    (id_,) = await submit(conn, "text_to_image", ["[sim:status=pondering] [sim:queued=0] [sim:seconds=600]"])
    with structlog.testing.capture_logs() as lines:
        task = await fired(trigger(id_, conn, deadline=time.time() + 0.5))
    assert task.status is TaskStatus.RUNNING
    assert "'pondering'" in str(task.error)
    warnings = [line["event"] for line in lines if line["log_level"] == "warning"]
    assert len(warnings) == 1
    assert "'pondering'" in warnings[0]
    await nothing_left()


async def test_a_task_that_nobody_knows_is_reported_after_a_grace(
    sim: Simulator, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task may show itself late; one that never does is not found."""
    monkeypatch.setattr(POLLER, "NOT_FOUND_GRACE", 0.8)
    conn = connect("acedata")
    (late,) = await submit(conn, VEO, ["late [sim:not-visible=60] [sim:seconds=5]"])
    async with waiting_for(trigger(late, conn), trigger("veo/never-existed", conn)) as waits:
        await asyncio.sleep(0.4)
        assert not any(wait.done() for wait in waits)
        sim.advance(61)
        found, missing = await asyncio.gather(*waits)
    assert found.status is TaskStatus.SUCCEEDED
    assert type(missing.error).__name__ == "MediaNotFoundError"
    assert missing.id == "veo/never-existed"


async def test_an_unknown_connection_is_an_event_and_no_crash() -> None:
    """A connection that was deleted meanwhile is said to the task, with its name."""
    task = await fired(trigger("veo/x", "no_such_connection"))
    assert type(task.error).__name__ == "MediaRequestError"
    assert "no_such_connection" in str(task.error)
    await nothing_left()


async def test_cancelling_a_wait_leaves_nothing_behind(sim: Simulator, connect: Connect) -> None:
    """Whenever a triggerer cancels, no task and no connection outlives the waiter."""
    conn = connect("acedata")
    (id_,) = await submit(conn, VEO, ["x [sim:seconds=600]"])
    sim.fault("latency", provider="acedata", on="read", delay=0.05)
    for delay in (0.0, 0.001, 0.02, 0.15, 0.3):
        wait = asyncio.create_task(fired(trigger(id_, conn)))
        await asyncio.sleep(delay)
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        await nothing_left()
        await until(lambda: sockets_to(sim.url) == 0, "the client was left open")


# What is stored and logged.


def test_what_is_stored_holds_json_scalars_and_no_secret(connect: Connect) -> None:
    """The trigger's row is clear text in the metadata database: ids and numbers, never a key."""
    conn = connect("acedata", password="very-secret-key")
    path, arguments = trigger("veo/x", conn, queue_deadline=None, operation=VEO).serialize()
    assert path == "airflow_media_tasks.triggers.MediaTaskTrigger"
    assert all(value is None or isinstance(value, (str, int, float)) for value in arguments.values())
    assert "very-secret" not in json.dumps(arguments)
    assert "task_id" not in arguments
    again = resolve_name(path)(**arguments)
    assert again.serialize() == (path, arguments)


async def test_a_row_of_an_older_version_is_still_understood() -> None:
    """The two arguments that came later have defaults, so that an upgrade fails no waiting task."""
    path, arguments = trigger("veo/x", "no_such_connection").serialize()
    older = {name: arguments[name] for name in arguments if name not in ("queue_deadline", "operation")}
    task = await fired(resolve_name(path)(**older))
    assert task.id == "veo/x"


async def test_a_waiting_task_says_how_far_it_is(
    sim: Simulator, connect: Connect, monkeypatch: pytest.MonkeyPatch, driven_clock: DrivenClock
) -> None:
    """Its log has a line for each new status, others less and less often; with the id, status and times."""
    monkeypatch.setattr(triggers, "REPORT_INTERVAL", 0.2)
    conn = connect("vap")
    (id_,) = await submit(conn, "text_to_image", ["[sim:queued=100] [sim:seconds=100]"])
    with structlog.testing.capture_logs() as lines:
        async with waiting_for(trigger(id_, conn, operation="text_to_image")) as waits:
            began = driven_clock()
            await asyncio.sleep(1.2)
            sim.advance(101)
            await until(lambda: any("running" in line["event"] for line in lines), "no line for running")
            waited = driven_clock() - began
            sim.advance(101)
            await waits[0]
    said = [line["event"] for line in lines if line["event"].startswith(id_)]
    words = [line.split()[1] for line in said]
    assert words == ["queued"] * (len(words) - 1) + ["running"]
    # One for the status itself, then one after 0.2 s, 0.6 s, 1.4 s, ...
    assert 3 <= len(words) - 1 <= 2 + math.log2(1 + waited / 0.2)
    assert all("waited for until" in line and "UTC" in line for line in said)
    assert " of about " in said[0]


@pytest.mark.parametrize(
    ("before", "now", "is_news"),
    [(None, 0.0, True), (0.0, 0.1, False), (0.0, 0.25, True), (0.3, 0.5, False), (0.5, None, False)],
)
def test_a_line_for_each_quarter_of_the_way(before: float | None, now: float | None, is_news: bool) -> None:
    """A provider that counts every percent does not fill the log."""
    reported = None if before is None else MediaTask("t", TaskStatus.RUNNING, progress=before)
    assert triggers._is_news(MediaTask("t", TaskStatus.RUNNING, progress=now), reported) is is_news
    queued = MediaTask("t", TaskStatus.QUEUED)
    assert triggers._is_news(MediaTask("t", TaskStatus.RUNNING), queued)


async def test_a_report_during_an_outage_says_so(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads the task's log while the provider is down finds the reason, and when it was and is asked."""
    monkeypatch.setattr(triggers, "REPORT_INTERVAL", 0.3)
    monkeypatch.setattr(accounts, "LONGEST_PAUSE", 0.1)
    account.rule = lambda ids, key: web.json_response({}, status=502)
    with structlog.testing.capture_logs() as lines:
        task = await fired(trigger("veo/t", "tiny_a", deadline=time.time() + 1))
    said = [line["event"] for line in lines if line["event"].startswith("veo/t: no answer yet")]
    asked = re.compile(r"; asked for \d+ s ago, asked for again in \d+ s; ")
    fails = re.compile(r"; status requests of tiny_a fail, the last \d+ s ago: .*502")
    assert any(asked.search(line) and fails.search(line) for line in said), said
    assert not any("does not answer" in line["event"] for line in lines)
    assert fails.search(str(task.error))
    await nothing_left()


async def test_lines_of_the_poller_belong_to_no_trigger(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage concerns everybody: its line must not land in the log of whoever happened to wait first."""
    monkeypatch.setattr(accounts, "LONGEST_PAUSE", 0.1)
    trigger_id: contextvars.ContextVar[str] = contextvars.ContextVar("trigger_id", default="none")
    seen: list[str] = []

    class Noting(logging.Handler):
        """Notes whose context a line is written in."""

        def emit(self, record: logging.LogRecord) -> None:
            """The variable's value at the time."""
            seen.append(trigger_id.get())

    async def wait(name: str) -> MediaTask:
        """Wait as a trigger of that name."""
        trigger_id.set(name)
        return await fired(trigger("veo/t", "tiny_a", deadline=time.time() + 1.2))

    account.rule = lambda ids, key: web.json_response({}, status=502)
    handler = Noting()
    accounts.log.addHandler(handler)
    try:
        waits = [asyncio.create_task(wait(name)) for name in ("first", "second")]
        await until(lambda: seen, "no outage was logged")
        await asyncio.gather(*waits)
    finally:
        accounts.log.removeHandler(handler)
    assert set(seen) == {"none"}
    await nothing_left()
