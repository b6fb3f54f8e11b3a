"""How often a poller asks, when, and through what: counts and moments, seen at the requests it sends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from aiohttp import web
from airflow.sdk import BaseHook

from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import TaskStatus
from airflow_media_tasks.waiting import accounts
from airflow_media_tasks.waiting.poller import Poller
from airflow_media_tasks.waiting.watches import Watch
from airflow_media_tasks.wire.conversations import ConversationHook

from .clock import DrivenClock


Connect = Callable[..., str]

pytestmark = pytest.mark.usefixtures("driven_clock")

POLLER = sys.modules[Poller.__module__]
IMAGE = "text_to_image"
VEO = "veo/text_to_video"
KLING = "videos/text2video"


@dataclass
class Sent:
    """One request as it leaves: when (the loop's clock), on whose behalf, and what for."""

    at: float
    media_conn_id: str
    path: str
    params: dict[str, Any]
    body: Any

    @property
    def is_list(self) -> bool:
        """Whether it asks for a page of a list."""
        return "limit" in self.params or "pageSize" in self.params


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Sent]:
    """Every request that is sent asynchronously, in order."""
    requests: list[Sent] = []
    send = ConversationHook._asend

    async def noted(self: ConversationHook, client: Any, request: Any) -> Any:
        """Send as usual, and note it."""
        now = asyncio.get_running_loop().time()
        requests.append(Sent(now, self.media_conn_id, request.path, dict(request.params), request.json))
        return await send(self, client, request)

    monkeypatch.setattr(ConversationHook, "_asend", noted)
    return requests


async def submit(media_conn_id: str, operation: str, prompts: Iterable[str], **arguments: str) -> list[str]:
    """The `media_task_id` of one new task for each prompt."""
    hook = await asyncio.to_thread(get_media_hook, media_conn_id)
    async with hook:
        tasks = await asyncio.gather(
            *(hook.asubmit(operation, {"prompt": prompt, **arguments}) for prompt in prompts)
        )
    return [task.id for task in tasks]


async def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
    """Returns once *condition* holds; fails after so many seconds."""
    ends = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < ends, what
        await asyncio.sleep(0.01)


class Waiting:
    """Watches of one connection, which are forgotten at the end."""

    def __init__(self) -> None:
        self.of: list[tuple[Poller, Watch]] = []

    def begin(
        self, conn: str, ids: Iterable[str], interval: float, operation: str = "", since: float | None = None
    ) -> list[Watch]:
        """Watches *ids*, submitted *since* seconds ago if that is known."""
        at = None if since is None else time.time() - since
        new = [Poller.watch(conn, id_, interval, operation, at) for id_ in ids]
        self.of += new
        return [watch for _, watch in new]


@pytest.fixture
async def waiting() -> AsyncIterator[Waiting]:
    """Begins to watch; at the end nobody waits, and neither a task nor a request may be left."""
    all_watches = Waiting()
    yield all_watches
    for poller, watch in all_watches.of:
        poller.forget(watch)
    await until(lambda: len(asyncio.all_tasks()) <= 1, "a task was left behind")
    assert not Poller._of_loop.get(asyncio.get_running_loop())


def done(watches: Iterable[Watch]) -> bool:
    """Whether each of them knows that its task has succeeded."""
    return all(watch.task and watch.task.status is TaskStatus.SUCCEEDED for watch in watches)


def asked(watches: Iterable[Watch]) -> int:
    """How often they were told something, together."""
    return sum(watch.asked for watch in watches)


def sockets_to(url: str) -> int:
    """How many connections this process has open, as a client, to the server at *url*."""
    port = urlsplit(url).port
    ours = [each for each in psutil.Process().net_connections("tcp") if each.status == "ESTABLISHED"]
    return len([each for each in ours if each.raddr[1] == port])


class TinyKling:
    """One path of a Kling of our own: its list comes in any order, has any length, or is broken."""

    def __init__(self) -> None:
        self.ids = [f"t{n}" for n in range(30)]
        self.others = [f"other{n}" for n in range(2000)]
        self.order: Callable[[list[str]], list[str]] = lambda ids: ids
        self.list_status = 200
        self.list_seconds = 0.0
        self.word = "processing"
        self.url = ""
        self.passing: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext

    def _document(self, own_id: str) -> dict[str, Any]:
        word = self.word if own_id in self.ids else "succeed"
        videos = [{"id": own_id, "url": f"https://cdn.example/{own_id}.mp4", "duration": "5"}]
        result = {"task_result": {"videos": videos}} if word == "succeed" else {}
        return {"task_id": own_id, "task_status": word, "created_at": 1, "updated_at": 2, **result}

    async def one(self, request: web.Request) -> web.Response:
        """A task by its id."""
        return web.json_response({"code": 0, "data": self._document(request.match_info["id"])})

    async def page(self, request: web.Request) -> web.Response:
        """A page of the list."""
        with self.passing():
            await asyncio.sleep(self.list_seconds)
        if self.list_status != 200:
            return web.json_response({"code": 5000, "message": "no list today"}, status=self.list_status)
        number, size = int(request.query["pageNum"]), int(request.query["pageSize"])
        listed = self.order(self.others + self.ids)[(number - 1) * size : number * size]
        return web.json_response({"code": 0, "data": [self._document(own_id) for own_id in listed]})


@pytest.fixture
async def tiny(connect: Connect, driven_clock: DrivenClock) -> AsyncIterator[TinyKling]:
    """The tiny Kling, with the connection `tiny`."""
    kling = TinyKling()
    kling.passing = driven_clock.passing
    app = web.Application()
    app.router.add_get(f"/v1/{KLING}", kling.page)
    app.router.add_get(f"/v1/{KLING}/{{id}}", kling.one)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kling.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    connect("kling", "tiny", host=kling.url)
    yield kling
    await runner.cleanup()


# When it asks.


async def test_the_first_look_comes_when_the_operation_can_be_done(
    sim: Simulator, connect: Connect, waiting: Waiting
) -> None:
    """Three scouts are asked for from the start, the others when the hook says that they can be done."""
    conn, now = connect("vap"), asyncio.get_running_loop().time
    ids = await submit(conn, IMAGE, [f"p{n} [sim:seconds=60]" for n in range(10)])
    began = now()
    watches = waiting.begin(conn, ids, 0.05, IMAGE, since=8.0)  # of 10 that the hook expects
    await until(lambda: asked(watches) >= 6, "no scout was sent")
    if now() < began + 1.9:
        assert [bool(watch.asked) for watch in watches] == [True] * 3 + [False] * 7
    dues = [watch.due for watch in watches[3:]]
    assert all(began + 1.9 <= due <= began + 2.5 for due in dues)
    await until(lambda: all(watch.asked for watch in watches), "not all were asked for")
    assert now() >= min(dues)


async def test_a_seen_duration_that_is_shorter_moves_the_other_first_looks_forward(
    sim: Simulator, connect: Connect, waiting: Waiting
) -> None:
    """What the scouts find out spares the others the wait for a time that the hook only guessed."""
    conn, now = connect("acedata"), asyncio.get_running_loop().time
    ids = await submit(conn, VEO, [f"p{n} [sim:seconds=60]" for n in range(200)])
    watches = waiting.begin(conn, ids, 0.05, VEO, since=0.0)
    await until(lambda: asked(watches[:3]) >= 6, "no scout was sent")
    unasked = [watch for watch in watches if not watch.asked]
    assert len(unasked) >= 100
    assert min(watch.due for watch in unasked) > now() + 60  # of 90 that the hook expects
    sim.advance(61)
    await until(lambda: done(watches), "the others still wait for their first look")


async def test_tasks_that_ended_unseen_teach_no_long_durations(
    sim: Simulator, connect: Connect, waiting: Waiting
) -> None:
    """After a restart, tasks found finished an hour late do not delay the first look at new ones."""
    conn, now = connect("vap"), asyncio.get_running_loop().time
    old = await submit(conn, IMAGE, [f"old{n} [sim:seconds=0]" for n in range(15)])
    new = await submit(conn, IMAGE, ["new [sim:seconds=600]"])
    sim.advance(2)
    watches = waiting.begin(conn, old, 0.05, IMAGE, since=3600.0)
    await until(lambda: done(watches), "the old tasks were not found")
    (watch,) = waiting.begin(conn, new, 0.05, IMAGE, since=0.0)
    assert watch.due <= now() + 10


async def test_a_late_task_is_asked_for_less_and_less_often_up_to_a_bound(
    sim: Simulator, connect: Connect, waiting: Waiting
) -> None:
    """One that is hours late is asked for every fourth interval, a sensor's task in every one, at once."""
    conn = connect("vap")
    ids = await submit(conn, IMAGE, ["late [sim:seconds=600]", "sensor [sim:seconds=600]"])
    (late,) = waiting.begin(conn, ids[:1], 0.1, IMAGE, since=10_000.0)
    (sensor,) = waiting.begin(conn, ids[1:], 0.1)
    await until(lambda: sensor.asked, "a sensor's task has no first look to wait for", 2)
    before = late.asked, sensor.asked
    await until(lambda: sensor.asked - before[1] >= 24, "too few questions")
    ratio = (sensor.asked - before[1]) / (late.asked - before[0])
    assert 0.75 * POLLER.SLOWEST <= ratio <= 1.5 * POLLER.SLOWEST


async def test_a_restart_with_thousands_of_tasks_spreads_its_first_round(
    sim: Simulator, connect: Connect, sent: list[Sent], waiting: Waiting
) -> None:
    """2,000 triggers that start at once send forty batches, evenly over most of one interval."""
    conn, interval = connect("acedata"), 2.0
    known = await submit(conn, VEO, [f"p{n} [sim:seconds=6000]" for n in range(2000)])
    sent.clear()
    watches = waiting.begin(conn, known, interval, VEO, since=600.0)
    await until(lambda: all(watch.asked for watch in watches), "not all were asked for")
    rounds = [request for request in sent if len(request.body["ids"]) > 1]
    first = rounds[:40]
    assert {id_ for request in first for id_ in request.body["ids"]} == {id_[4:] for id_ in known}
    times = [request.at for request in first]
    assert times[-1] - times[0] >= 0.7 * interval
    for begin, end in itertools.pairwise(range(0, 41, 8)):
        # A stalled loop may send one late and the next in time, no more.
        assert times[end - 1] - times[begin] >= 0.4 * 7 / 40 * interval


async def test_a_thousand_tasks_cost_twenty_requests_an_interval_and_each_is_asked_for_in_each(
    sim: Simulator, connect: Connect, sent: list[Sent], waiting: Waiting, driven_clock: DrivenClock
) -> None:
    """Batches stay full as rounds go by, so n tasks never cost more than n / 50 requests an interval."""
    conn, interval = connect("acedata"), 0.6
    ids = await submit(conn, VEO, [f"p{n} [sim:seconds=6000]" for n in range(1000)])
    watches = waiting.begin(conn, ids, interval)
    await until(lambda: all(watch.asked for watch in watches), "not all were asked for")
    sent.clear()
    before, began = asked(watches), driven_clock()
    await until(lambda: min(watch.asked for watch in watches) >= 8, "too few questions")
    rounds = (driven_clock() - began) / interval
    assert len(sent) <= 20 * (rounds + 1)
    assert {len(request.body["ids"]) for request in sent} == {50}
    # One in ten is the jitter; what a loop of a busy machine is late is not the pace's fault.
    assert (asked(watches) - before) / 1000 >= 0.7 * rounds


async def test_tasks_of_two_services_do_not_wait_for_each_other(
    sim: Simulator, connect: Connect, waiting: Waiting, driven_clock: DrivenClock
) -> None:
    """Tasks that no batch can hold together are each asked for in each interval."""
    conn = connect("acedata")
    operations = (VEO, "luma/text_to_video")
    ids = [(await submit(conn, name, ["x [sim:seconds=600]"]))[0] for name in operations]
    watches = waiting.begin(conn, ids, 0.4)
    began = driven_clock()
    await until(lambda: min(watch.asked for watch in watches) >= 10, "too few questions")
    assert driven_clock() - began <= 1.5 * 10 * 0.4


async def test_tasks_that_end_together_are_found_within_a_round(
    sim: Simulator, connect: Connect, waiting: Waiting, driven_clock: DrivenClock
) -> None:
    """The last of many that end at once is not asked for later because the others were found ended."""
    conn = connect("vap")
    url = "https://cdn.example/a.png"
    ids = await submit(conn, "edit_image", [f"p{n} [sim:seconds=600]" for n in range(200)], image_url=url)
    watches = waiting.begin(conn, ids, 1.0)
    await until(lambda: min(watch.asked for watch in watches) >= 2, "too few questions")
    sim.advance(601)
    ended = driven_clock()
    for watch in watches:
        while not done([watch]):
            await watch.changed(0.5)
        waiting.of[0][0].forget(watch)
    assert driven_clock() - ended <= 2.5


async def test_a_few_tasks_that_are_due_together_do_not_wait_for_each_other(
    sim: Simulator, connect: Connect, sent: list[Sent], waiting: Waiting
) -> None:
    """Requests are spread because they are many; three need no interval for themselves."""
    conn = connect("vap")
    url = "https://cdn.example/a.png"
    ids = await submit(conn, "edit_image", [f"p{n} [sim:seconds=600]" for n in range(3)], image_url=url)
    watches = waiting.begin(conn, ids, 3.0)
    sent.clear()
    await until(lambda: all(watch.asked for watch in watches), "not all were asked for")
    assert sent[2].at - sent[0].at <= 0.8


# Lists.


async def test_one_page_of_a_list_answers_for_up_to_500_tasks(
    sim: Simulator, connect: Connect, sent: list[Sent], waiting: Waiting
) -> None:
    """600 tasks of one Kling path cost two requests an interval, and nobody is asked for alone."""
    conn = connect("kling")
    ids = await submit(conn, "text_to_video", [f"p{n} [sim:seconds=600]" for n in range(600)])
    sent.clear()
    watches = waiting.begin(conn, ids, 0.3)
    await until(lambda: min(watch.asked for watch in watches) >= 5, "too few questions")
    assert all(request.is_list and request.params["pageSize"] == 500 for request in sent)
    rounds = max(watch.asked for watch in watches)
    assert 2 * (rounds - 1) <= len(sent) <= 2 * (rounds + 1)
    per_task_and_poll = len(sent) / asked(watches)
    assert per_task_and_poll <= 1 / 40
    assert all(watch.task is not None and watch.task.raw == {} for watch in watches)
    sim.advance(601)
    await until(lambda: done(watches), "not all were found finished")
    assert all(request.is_list for request in sent)
    assert sockets_to(sim.url) <= 10 + 2  # the test's own control connections may be two


def _shuffled(ids: list[str]) -> list[str]:
    return random.sample(ids, len(ids))


@pytest.mark.parametrize("takes", [0.0, 0.03, 0.3], ids=lambda seconds: f"a page takes {seconds} s")
@pytest.mark.parametrize(
    ("order", "most"), [(_shuffled, 5), (list, 2)], ids=["shuffled", "older than the newest pages"]
)
async def test_a_task_that_the_list_hides_is_asked_for_by_itself(
    tiny: TinyKling,
    sent: list[Sent],
    waiting: Waiting,
    order: Callable[[list[str]], list[str]],
    most: int,
    takes: float,
    driven_clock: DrivenClock,
) -> None:
    """Neither a list's order nor its slowness hides a result for long, and few pages are read in vain."""
    tiny.order, tiny.list_seconds = order, takes
    watches = waiting.begin("tiny", [f"{KLING}/{own_id}" for own_id in tiny.ids], 0.1)
    await until(lambda: all(watch.asked for watch in watches), "some were never looked at")
    tiny.word = "succeed"
    sent.clear()
    began = driven_clock()
    await until(lambda: done(watches), "some were never found finished")
    # What it was silent about is asked for by itself, although it is being read all the time.
    assert driven_clock() - began <= 0.1 * (1.1 * POLLER.UNSEEN_ROUNDS + 1) + 2 * 5 * takes
    pages = [request.params["pageNum"] for request in sent if request.is_list]
    sweeps = pages.count(1)
    assert sweeps <= 2 * POLLER.UNSEEN_ROUNDS + 2
    # The whole list has five pages; where they show nobody's task, two are enough to see that.
    assert len(pages) <= most * (sweeps + 1)


async def test_a_list_that_moves_on_while_it_is_read_is_read_to_its_end(
    tiny: TinyKling, sent: list[Sent], waiting: Waiting
) -> None:
    """What is new at its front moves a page back, which is then seen twice; the rest comes behind it."""
    tiny.ids = [f"t{n}" for n in range(150)]
    tiny.word = "succeed"
    read = itertools.count()
    tiny.order = lambda ids: [f"new{n}" for n in range(500 if next(read) else 0)] + ids[:500] + tiny.ids
    watches = waiting.begin("tiny", [f"{KLING}/{own_id}" for own_id in tiny.ids], 1.0)
    await until(lambda: done(watches), "not all were found finished")
    assert [request.params["pageNum"] for request in sent] == [1, 2, 3]


async def test_a_list_that_takes_ever_longer_to_read_is_read_again_the_earlier(
    tiny: TinyKling, sent: list[Sent], waiting: Waiting
) -> None:
    """While more and more tasks end, the next reading begins early enough to end in time, as it is longer."""

    def longer(ids: list[str]) -> list[str]:
        """Take longer for each answer than for the one before."""
        tiny.list_seconds += 0.3
        return ids[::-1]

    tiny.order = longer
    waiting.begin("tiny", [f"{KLING}/{own_id}" for own_id in tiny.ids], 3.0)
    await until(lambda: len(sent) >= 4, "the list was not read again")
    assert all(request.params["pageNum"] == 1 for request in sent)
    # Answered after 0, 0.3 and 0.6 s.
    gaps = [after.at - reading.at for reading, after in itertools.pairwise(sent)]
    assert gaps[1] < 2.6
    assert gaps[2] < 2.3


async def test_a_broken_list_is_no_outage_and_delays_nobody(
    tiny: TinyKling, sent: list[Sent], waiting: Waiting, caplog: pytest.LogCaptureFixture
) -> None:
    """Where only the list answers with an error, the tasks are asked for one by one, each interval."""
    tiny.list_status = 500
    watches = waiting.begin("tiny", [f"{KLING}/{own_id}" for own_id in tiny.ids], 0.2)
    await until(lambda: min(watch.asked for watch in watches) >= 4, "too few questions")
    singles = [request for request in sent if not request.is_list]
    pages = [request for request in sent if request.is_list]
    assert len(pages) <= len(singles) / len(watches) / POLLER.UNSEEN_ROUNDS + 3
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    tiny.list_status, tiny.word = 200, "succeed"
    await until(lambda: done(watches), "not all were found finished")


async def test_lists_of_ended_tasks_are_paged_and_silence_is_followed_up(
    sim: Simulator, connect: Connect, sent: list[Sent], waiting: Waiting
) -> None:
    """VAP's lists show only what has ended; what they do not show is asked for alone, but rarely."""
    conn = connect("vap")
    ids = await submit(conn, IMAGE, [f"p{n} [sim:seconds=600]" for n in range(120)])
    sent.clear()
    watches = waiting.begin(conn, ids, 0.2)
    await until(lambda: asked(watches) >= 240, "silence was not followed up")
    pages = [request for request in sent if request.is_list]
    assert {request.params["status"] for request in pages} == {"completed", "failed"}
    # While nothing has ended, one page of each list tells it.
    assert {request.params["offset"] for request in pages} == {None}
    sweeps = len(pages) / 2
    assert asked(watches) / len(watches) <= sweeps / (POLLER.UNSEEN_ROUNDS / 2) + 1
    sent.clear()
    sim.advance(601)
    await until(lambda: done(watches), "not all were found finished")
    assert {request.params["offset"] for request in sent if request.is_list} >= {None, 50, 100}
    assert all(watch.task is not None and watch.task.raw == {} for watch in watches)


async def test_tasks_that_end_late_are_found_in_a_list_behind_many_that_nobody_waits_for(
    sim: Simulator, connect: Connect, sent: list[Sent], waiting: Waiting
) -> None:
    """VAP lists the newest first: the more tasks wait, the further the poller looks behind younger ones."""
    conn = connect("vap")
    ids = await submit(conn, IMAGE, [f"p{n} [sim:seconds=600]" for n in range(200)])
    await submit(conn, IMAGE, [f"younger {n} [sim:seconds=0]" for n in range(150)])
    sim.advance(2)
    watches = waiting.begin(conn, ids, 0.3)
    await until(lambda: asked(watches) >= 200, "silence was not followed up")
    sent.clear()
    sim.advance(601)
    await until(lambda: done(watches), "not all were found finished")
    assert {request.params["offset"] for request in sent if request.is_list} >= {None, 50, 100, 150, 300}
    assert len([request for request in sent if not request.is_list]) < len(ids) / 2


async def test_what_has_no_list_is_asked_for_one_by_one_through_ten_sockets(
    sim: Simulator, connect: Connect, sent: list[Sent], waiting: Waiting, driven_clock: DrivenClock
) -> None:
    """VAP's operations have no list, however many wait: each costs one request an interval, no more."""
    conn = connect("vap")
    url = "https://cdn.example/a.png"
    ids = await submit(conn, "edit_image", [f"p{n} [sim:seconds=600]" for n in range(60)], image_url=url)
    assert all(id_.startswith("operations/") for id_ in ids)
    sent.clear()
    sim.fault("latency", provider="vap", on="read", delay=0.02)
    began, most = driven_clock(), 0
    watches = waiting.begin(conn, ids, 0.5)
    while min(watch.asked for watch in watches) < 4:
        most = max(most, sockets_to(sim.url))
        await asyncio.sleep(0.02)
        assert driven_clock() < began + 20
    rounds = (driven_clock() - began) / 0.5 + 1
    assert not [request for request in sent if request.is_list]
    assert len(sent) <= rounds * len(ids)
    assert 1 <= most <= 10
    assert all(watch.task is not None and watch.task.raw == {} for watch in watches)
    sim.clear_faults()
    sim.advance(601)
    await until(lambda: done(watches), "not all were found finished")


# Through what.


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The connection of each look-up of a hook."""
    made: list[str] = []
    look_up = BaseHook.get_hook.__func__  # type: ignore[attr-defined]  # a class method has one

    def counted(cls: type[BaseHook], conn_id: str, hook_params: dict[str, Any] | None = None) -> Any:
        """Do as usual, and count it."""
        made.append(conn_id)
        return look_up(cls, conn_id, hook_params)

    monkeypatch.setattr(BaseHook, "get_hook", classmethod(counted))
    return made


async def test_a_connection_is_looked_up_once_for_all_and_again_after_a_while(
    sim: Simulator,
    connect: Connect,
    waiting: Waiting,
    lookups: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look-up is dear in a triggerer: 300 tasks share one, until it is old."""
    conn = connect("acedata")
    ids = await submit(conn, VEO, [f"p{n} [sim:seconds=600]" for n in range(300)])
    reads: list[str] = []
    read = BaseHook.get_connection.__func__  # type: ignore[attr-defined]  # a class method has one

    def counted(cls: type[BaseHook], conn_id: str) -> Any:
        """Do as usual, and count it."""
        reads.append(conn_id)
        return read(cls, conn_id)

    monkeypatch.setattr(BaseHook, "get_connection", classmethod(counted))
    lookups.clear()
    watches = waiting.begin(conn, ids, 0.1)
    await until(lambda: min(watch.asked for watch in watches) >= 4, "too few questions")
    assert lookups == [conn]
    assert reads == [conn, conn]  # Airflow reads it to find the hook's class, the hook for itself
    poller = waiting.of[0][0]
    poller._hook_until = 0.0
    before = asked(watches)
    await until(lambda: asked(watches) >= before + 1200, "nobody asked after the second look-up")
    assert lookups == [conn, conn]


async def test_a_changed_key_is_seen_at_the_first_refusal(
    sim: Simulator,
    connect: Connect,
    waiting: Waiting,
    lookups: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who corrects a refused key in Airflow need not clear or restart anything."""
    monkeypatch.setattr(accounts, "LONGEST_PAUSE", 0.3)
    conn = connect("acedata")
    ids = await submit(conn, VEO, [f"p{n} [sim:seconds=0]" for n in range(60)])
    sim.advance(2)
    connect("acedata", password="sim-bad-key")
    lookups.clear()
    watches = waiting.begin(conn, ids, 0.1)
    await until(lambda: len(lookups) >= 2, "the refusal did not lead to a second look-up")
    assert not done(watches)
    assert not any(watch.error for watch in watches)
    connect("acedata")
    await until(lambda: done(watches), "the good key is not used")


async def test_a_look_up_that_fails_for_a_while_is_survived(
    sim: Simulator,
    connect: Connect,
    waiting: Waiting,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While Airflow itself does not answer, a first look-up is repeated, a later one is done without."""
    conn = connect("acedata")
    ids = await submit(conn, VEO, [f"p{n} [sim:seconds=600]" for n in range(60)])
    away, tried = True, 0
    look_up = POLLER.get_media_hook

    def get(media_conn_id: str) -> Any:
        """Fail as long as Airflow is away."""
        nonlocal tried
        tried += 1
        if away:
            raise RuntimeError("the API server is away")
        return look_up(media_conn_id)

    monkeypatch.setattr(POLLER, "get_media_hook", get)
    watches = waiting.begin(conn, ids, 0.1)
    await until(lambda: tried == 1, "nobody looked it up")
    away = False
    await until(lambda: all(watch.asked for watch in watches), "the look-up was not repeated")
    assert tried == 2
    away = True
    waiting.of[0][0]._hook_until = 0.0
    await until(lambda: "going on as before" in caplog.text, "the later look-up was not tried")
    before = asked(watches)
    await until(lambda: asked(watches) >= before + 120, "the old hook is not used any more")
    assert not any(watch.error for watch in watches)


async def test_a_connection_that_is_deleted_while_tasks_wait_ends_no_wait(
    sim: Simulator, connect: Connect, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who deletes a connection and makes it anew does not fail the tasks that wait meanwhile."""
    conn = connect("acedata", "replaced")
    ids = await submit(conn, VEO, ["x [sim:seconds=5]"])
    (watch,) = waiting.begin(conn, ids, 0.05)
    await until(lambda: watch.asked, "nobody asked")
    monkeypatch.delenv("AIRFLOW_CONN_REPLACED")
    waiting.of[0][0]._hook_until = 0.0
    before = watch.asked
    await until(lambda: watch.asked >= before + 3, "nobody asks any more")
    sim.advance(6)
    await until(lambda: done([watch]), "not found finished")


async def test_a_provider_that_hangs_does_not_hold_up_another_account(
    sim: Simulator, connect: Connect, waiting: Waiting, sent: list[Sent]
) -> None:
    """Ten requests of one account that get no answer for long delay no other account's tasks."""
    slow, quick = connect("vap"), connect("acedata")
    slow_ids = await submit(slow, IMAGE, [f"p{n} [sim:seconds=0]" for n in range(15)])
    quick_ids = await submit(quick, VEO, [f"p{n} [sim:seconds=0]" for n in range(15)])
    sim.advance(2)
    sim.fault("hang", provider="vap", on="read", delay=60)
    sent.clear()
    stuck = waiting.begin(slow, slow_ids, 0.05)
    await until(lambda: len(sent) >= 10, "the slow provider was not asked")
    served = waiting.begin(quick, quick_ids, 0.05)
    await until(lambda: done(served), "the quick provider waits for the slow one", 10)
    assert not any(watch.asked for watch in stuck)
    assert len([request for request in sent if request.media_conn_id == slow]) == 10
    sim.clear_faults()


async def test_two_accounts_of_one_provider_have_two_pollers(
    sim: Simulator, connect: Connect, waiting: Waiting, sent: list[Sent]
) -> None:
    """Tasks of two keys never share a request, for each key sees its own tasks only."""
    keys = {
        connect("acedata", "one", password="key-one-123"),
        connect("acedata", "two", password="key-two-1"),
    }
    ids = {key: await submit(key, VEO, [f"p{n} [sim:seconds=5]" for n in range(30)]) for key in keys}
    sim.advance(6)
    sent.clear()
    watches = [watch for key in keys for watch in waiting.begin(key, ids[key], 0.05)]
    await until(lambda: done(watches), "not all were found finished")
    assert len({id(poller) for poller, _ in waiting.of}) == 2
    for request in sent:
        own = {id_.partition("/")[2] for id_ in ids[request.media_conn_id]}
        assert set(request.body.get("ids") or [request.body["id"]]) <= own


async def test_a_watch_whose_waiter_leaves_costs_no_request_any_more(
    sim: Simulator, connect: Connect, waiting: Waiting, sent: list[Sent]
) -> None:
    """What nobody waits for is not asked for, though its next look was planned."""
    conn = connect("acedata")
    ids = await submit(conn, VEO, [f"p{n} [sim:seconds=600]" for n in range(60)])
    watches = waiting.begin(conn, ids, 0.1)
    await until(lambda: min(watch.asked for watch in watches) >= 2, "too few questions")
    for poller, watch in waiting.of[1:]:
        poller.forget(watch)
    await asyncio.sleep(0.2)
    sent.clear()
    before = watches[0].asked
    await until(lambda: watches[0].asked >= before + 3, "the one that is left is not asked for")
    assert all(request.body.get("id") == ids[0].partition("/")[2] for request in sent)


async def test_a_poller_that_fails_tells_its_waiters(
    sim: Simulator, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours ends the waits with it, rather than leaving them to their deadlines."""
    conn = connect("acedata")

    def broken(*_: object) -> None:
        """Fail in a way nobody foresaw."""
        raise ZeroDivisionError

    monkeypatch.setattr(Poller, "_earliest", broken)
    poller, watch = Poller.watch(conn, "veo/x", 0.05)
    await watch.changed(10)
    assert isinstance(watch.error, ZeroDivisionError)
    poller.forget(watch)
    with contextlib.suppress(ZeroDivisionError):
        await poller._loop_task
