"""Whose trouble it is: what one task is refused for delays nobody, what the account is refused for, all."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import MediaTask, TaskStatus
from airflow_media_tasks.triggers import MediaTaskTrigger
from airflow_media_tasks.waiting.accounts import LONGEST_PAUSE, Account
from airflow_media_tasks.waiting.poller import Poller

from .clock import DrivenClock


Connect = Callable[..., str]

pytestmark = pytest.mark.usefixtures("driven_clock")

POLLER = sys.modules[Poller.__module__]
OPERATIONS = {"vap": "text_to_image", "acedata": "veo/text_to_video", "kling": "text_to_video"}
GRACE = 60.0


class Front:
    """The simulator behind a server that answers by a rule what the rule says something about."""

    def __init__(self, sim: Simulator, clock: DrivenClock) -> None:
        self.sim = sim
        self.clock = clock
        self.url = ""
        self.rule: Callable[[str], web.Response | None] = lambda asked: None
        self.asked: list[tuple[float, str]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """What the rule says of the request's path and body, else what the simulator does."""
        body = await request.text()
        asked = f"{request.path_qs} {body}"
        self.asked.append((self.clock(), asked))
        if (refused := self.rule(asked)) is not None:
            return refused
        headers = {
            name: request.headers[name]
            for name in ("Authorization", "Content-Type")
            if name in request.headers
        }
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method, f"{self.sim.url}{request.path_qs}", data=body or None, headers=headers
            ) as reply,
        ):
            return web.Response(status=reply.status, body=await reply.read(), content_type=reply.content_type)


@pytest.fixture
async def front(sim: Simulator, driven_clock: DrivenClock) -> AsyncIterator[Front]:
    """The front, which lets everything pass until it has a rule."""
    server = Front(sim, driven_clock)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute, so that a test need not drive its clock for ten."""
    monkeypatch.setattr(POLLER, "UNREADABLE_GRACE", GRACE)
    monkeypatch.setattr(POLLER, "NOT_FOUND_GRACE", GRACE)


async def submit(media_conn_id: str, prompts: Iterable[str]) -> list[str]:
    """The `media_task_id` of one new task for each prompt."""
    hook = await asyncio.to_thread(get_media_hook, media_conn_id)
    operation = OPERATIONS[hook.conn_type]
    async with hook:
        tasks = await asyncio.gather(*(hook.asubmit(operation, {"prompt": prompt}) for prompt in prompts))
    return [task.id for task in tasks]


class Waits:
    """Triggers that wait, each in a task of its own, as in a triggerer."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[MediaTask]] = []

    def begin(
        self, conn: str, ids: Iterable[str], interval: float = 1.0, **arguments: Any
    ) -> list[asyncio.Task[MediaTask]]:
        """One for each id, for half a day."""
        until = time.time() + 40_000
        triggers = [MediaTaskTrigger(id_, conn, interval, until, **arguments) for id_ in ids]
        begun = [asyncio.create_task(trigger.wait(quietly=True)) for trigger in triggers]
        self.tasks += begun
        return begun


@pytest.fixture
async def waits() -> AsyncIterator[Waits]:
    """Begins to wait; at the end nobody does any more."""
    all_waits = Waits()
    yield all_waits
    for task in all_waits.tasks:
        task.cancel()
    await asyncio.gather(*all_waits.tasks, return_exceptions=True)
    await until(lambda: not Poller._of_loop.get(asyncio.get_running_loop()))


async def until(condition: Callable[[], Any], seconds: float = 100.0) -> None:
    """Returns once *condition* holds; fails after so many seconds of the loop's clock."""
    clock = asyncio.get_running_loop().time
    ends = clock() + seconds
    while not condition():
        assert clock() < ends
        await asyncio.sleep(0.1)


async def within(seconds: float, tasks: Iterable[asyncio.Task[MediaTask]], what: str) -> list[MediaTask]:
    """The results of *tasks*; fails if they take longer by the loop's clock."""
    tasks = list(tasks)
    done, _ = await asyncio.wait(tasks, timeout=seconds)
    assert len(done) == len(tasks), f"{what}: {len(done)} of {len(tasks)} within {seconds} s"
    return [task.result() for task in tasks]


def own(media_task_id: str) -> str:
    """The part of the id that the provider knows."""
    return media_task_id.rpartition("/")[2]


# One task's trouble.


def is_doubtful(status: int) -> bool:
    """Whether it may be the account's trouble, until others are answered."""
    return status not in STATUSES


def refusal(status: int) -> web.Response:
    """An error of that status; of 200, a page of HTML."""
    if status == 200:
        return web.Response(text="<html>", content_type="text/html")
    return web.json_response({"message": "no"}, status=status)


STATUSES = [400, 404, 406, 409, 410, 413, 418, 422, 451]


@pytest.mark.parametrize("status", [200, *STATUSES, 403, 500])
@pytest.mark.parametrize("provider", OPERATIONS)
async def test_tasks_that_alone_are_refused_delay_nobody_and_are_told_why(
    front: Front,
    connect: Connect,
    waits: Waits,
    provider: str,
    status: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five ids that the provider does not answer for do not keep a finished task of another DAG waiting."""
    if status != 403:  # which ends all waits after its grace, if it is the account's
        monkeypatch.setattr(POLLER, "UNREADABLE_GRACE", 150.0)
    conn = connect(provider, host=f"{front.url}/{provider}")
    bad = await submit(conn, [f"bad {n} [sim:seconds=600]" for n in range(5)])
    honest = await submit(conn, ["honest [sim:seconds=0]"])
    front.sim.advance(2)
    front.rule = lambda asked: refusal(status) if any(own(id_) in asked for id_ in bad) else None
    refused = waits.begin(conn, bad)
    await asyncio.sleep(0.5)
    # What may be an outage pauses the account until one answer tells that it is none.
    (task,) = await within(120 if is_doubtful(status) else 8, waits.begin(conn, honest), "the honest one")
    assert task.status is TaskStatus.SUCCEEDED
    # It goes on like that while they wait for their grace to be over.
    later = await submit(conn, ["later [sim:seconds=0]"])
    front.sim.advance(2)
    await within(8, waits.begin(conn, later), "a later one")
    assert not any(wait.done() for wait in refused)
    told = await within(POLLER.UNREADABLE_GRACE + 100, refused, "those that cannot be read")
    assert all(task.error and task.error.media_task_id == task.id for task in told)
    assert {task.status for task in told} == {TaskStatus.QUEUED}
    if not is_doubtful(status):
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("provider", OPERATIONS)
async def test_an_id_of_no_form_is_never_sent_and_ends_its_own_wait_only(
    front: Front, connect: Connect, waits: Waits, provider: str
) -> None:
    """A record that somebody wrote by hand harms nobody else who waits at that account."""
    conn = connect(provider, host=f"{front.url}/{provider}")
    honest = await submit(conn, [f"honest {n} [sim:seconds=30]" for n in range(3)])
    group = honest[0].rpartition("/")[0]
    forms = ["written by hand", "a?b=c", "x\ny"]
    bad = ["", "/", "\ud800", "\0", *forms, *(f"{group}/{form}" for form in forms)]
    front.asked.clear()
    wrong = waits.begin(conn, bad)
    right = waits.begin(conn, honest)
    await asyncio.sleep(5)
    front.sim.advance(31)
    tasks = await within(4, right, "the honest ones")
    assert all(task.status is TaskStatus.SUCCEEDED for task in tasks)
    told = await within(GRACE + 20, wrong, "the wrong ones")
    assert {type(task.error).__name__ for task in told} == {"MediaRequestError"}
    known = [own(id_) for id_ in honest]
    assert all(
        "limit=" in asked or "pageSize=" in asked or any(id_ in asked for id_ in known)
        for _, asked in front.asked
    )


@pytest.mark.parametrize("status", [200, 400, 403, 422, 500])
async def test_what_spoils_a_batch_is_found_and_set_apart(
    front: Front, connect: Connect, waits: Waits, status: int
) -> None:
    """Where a batch is refused for five of its fifty ids, the others are served as if they were not there."""
    conn = connect("acedata", host=f"{front.url}/acedata")
    ids = await submit(conn, [f"p{n} [sim:seconds=600]" for n in range(50)])
    bad = ids[3::10]
    front.rule = lambda asked: refusal(status) if any(own(id_) in asked for id_ in bad) else None
    begun = waits.begin(conn, ids)
    refused, served = begun[3::10], [wait for number, wait in enumerate(begun) if number % 10 != 3]
    await asyncio.sleep(400 if is_doubtful(status) else 10)
    front.asked.clear()
    await asyncio.sleep(10)
    # The five by themselves, the others in batches again.
    assert len([asked for _, asked in front.asked if own(ids[0]) in asked]) <= 11
    assert len(front.asked) <= 11 * (5 + 6)
    front.sim.advance(601)
    tasks = await within(5, served, "the others")
    assert all(task.status is TaskStatus.SUCCEEDED for task in tasks)
    told = await within(2 * POLLER.UNREADABLE_GRACE, refused, "the five")
    assert [task.error.media_task_id for task in told if task.error] == bad


# The account's trouble.


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize(("status", "tasks"), [(500, 1), (503, 5), (520, 5)])
@pytest.mark.parametrize("provider", OPERATIONS)
async def test_an_outage_ends_no_wait_and_is_noticed_to_be_over_within_half_a_minute(
    front: Front, connect: Connect, waits: Waits, provider: str, status: int, tasks: int
) -> None:
    """An hour without an answer costs nobody anything, and few requests."""
    conn = connect(provider, host=f"{front.url}/{provider}")
    ids = await submit(conn, [f"p{n} [sim:seconds=600]" for n in range(tasks)])
    front.rule = lambda asked: web.json_response({}, status=status)
    begun = waits.begin(conn, ids, 10.0)
    await asyncio.sleep(600)
    front.asked.clear()
    await asyncio.sleep(3000)
    assert not any(wait.done() for wait in begun)
    assert 3000 / 31 <= len(front.asked) <= 3000 / 29
    front.rule = lambda asked: None
    front.sim.advance(601)
    ended = await within(42, begun, "all")
    assert all(task.status is TaskStatus.SUCCEEDED for task in ended)


@pytest.mark.parametrize("provider", OPERATIONS)
async def test_a_page_that_stands_before_the_whole_account_ends_no_wait(
    front: Front, connect: Connect, waits: Waits, provider: str
) -> None:
    """Maintenance that answers 200 with HTML for half an hour is no task's own trouble."""
    conn = connect(provider, host=f"{front.url}/{provider}")
    begun = waits.begin(conn, await submit(conn, [f"p{n} [sim:seconds=600]" for n in range(5)]), 10.0)
    await asyncio.sleep(5)
    front.rule = lambda asked: refusal(200)
    await asyncio.sleep(2000)
    assert not any(wait.done() for wait in begun)
    front.rule = lambda asked: None
    front.sim.advance(601)
    tasks = await within(42, begun, "all")
    assert all(task.status is TaskStatus.SUCCEEDED for task in tasks)


async def test_a_pause_ends_when_a_task_arrives_that_has_just_been_accepted(
    front: Front, connect: Connect, waits: Waits, driven_clock: DrivenClock
) -> None:
    """Who submits after an outage does not wait for the pause that the outage has left."""
    conn = connect("vap", host=f"{front.url}/vap")
    before = await submit(conn, ["before [sim:seconds=600]"])
    front.rule = lambda asked: web.json_response({}, status=503)
    (first,) = waits.begin(conn, before)
    await asyncio.sleep(200)
    account = Poller._of_loop[asyncio.get_running_loop()][conn].account
    await until(lambda: account.asked_from - driven_clock() > 25)
    front.rule = lambda asked: None
    front.sim.advance(601)
    old = waits.begin(conn, await submit(conn, ["old [sim:seconds=0]"]), submitted_at=time.time() - 500)
    await asyncio.sleep(4)
    assert not first.done()
    assert not old[0].done()
    after = await submit(conn, ["after [sim:seconds=0]"])
    front.sim.advance(2)
    await within(6, [*waits.begin(conn, after, submitted_at=time.time()), first, *old], "all")


@pytest.mark.parametrize("provider", OPERATIONS)
@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("20", 20, 24.5),
        ("200", 200, 240.5),
        ("299", 299, 300.5),
        ("30000", 300, 300.5),
        ("86400", 300, 300.5),
    ],
)
async def test_a_rate_limit_is_obeyed_for_five_minutes_at_most_and_ends_by_time_alone(
    front: Front, connect: Connect, waits: Waits, provider: str, said: str, least: float, most: float
) -> None:
    """Not before the provider said, whoever arrives meanwhile; and not tomorrow, whatever it said."""
    conn = connect(provider, host=f"{front.url}/{provider}")
    ids = await submit(conn, [f"p{n} [sim:seconds=600]" for n in range(3)])
    refusals: list[float] = []

    def rule(asked: str) -> web.Response | None:
        """Refuse once."""
        if refusals:
            return None
        refusals.append(front.clock())
        words = {"code": "rate_limit_exceeded", "message": "slow", "details": {"retry_after": float(said)}}
        return web.json_response({"error": words}, status=429, headers={"Retry-After": said})

    front.rule = rule
    begun = waits.begin(conn, ids[:1])
    await until(lambda: refusals)
    front.asked.clear()
    await asyncio.sleep(5)
    begun += waits.begin(conn, ids[1:], submitted_at=time.time())
    await asyncio.sleep(most)
    assert front.asked
    assert least - 0.01 <= front.asked[0][0] - refusals[0] <= most


@pytest.mark.parametrize("told", [30_000.0, 86_400.0, 1e300, math.inf, math.nan, -5.0])
@pytest.mark.parametrize(("kind", "most"), [("MediaRateLimitError", 300.0), ("MediaProviderError", 30.0)])
async def test_no_error_makes_an_account_pause_for_longer_than_its_kind_may(
    kind: str, most: float, told: float
) -> None:
    """It has bounds of its own, whatever a hook hands on: they hold for the next hook, too."""
    error = getattr(sys.modules["airflow_media_tasks.task"], kind)("slow", provider="vap")
    error.retry_after = told
    account = Account("vap")
    for now in range(1, 13):
        account.failed(error, now - 0.5, now, 1)
    pause = account.asked_from - now
    assert LONGEST_PAUSE <= pause <= most
    assert pause == most or not told > 300
