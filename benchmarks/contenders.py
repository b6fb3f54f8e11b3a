"""What is compared: triggers that wait for the same tasks in the ways in which people do it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_media_tasks.triggers import MediaTaskTrigger


INTERVAL = 5.0
KEY = "bench-key-0123456789"
ENDED = ("completed", "failed")


class AsksVap(BaseTrigger):
    """Base of the contenders that ask VAP for one task with httpx, each in its own way.

    :param url: of the task.
    :param interval: seconds between two polls.
    """

    def __init__(self, url: str, interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's signature has no types
        self.url = url
        self.interval = interval
        self.headers = {"Authorization": f"Bearer {KEY}"}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class's path and its arguments, as Airflow stores them."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "url": self.url,
            "interval": self.interval,
        }


class ClientPerPoll(AsksVap):
    """Opens an `httpx.AsyncClient` for every poll."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Polls until the task has ended."""
        while True:
            async with httpx.AsyncClient(headers=self.headers) as client:
                task = (await client.get(self.url)).json()
            if task["status"] in ENDED:
                yield TriggerEvent(task)
                return
            await asyncio.sleep(self.interval)


class ClientPerTrigger(AsksVap):
    """Opens one `httpx.AsyncClient` and keeps it as long as it waits."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Polls until the task has ended."""
        async with httpx.AsyncClient(headers=self.headers) as client:
            while True:
                task = (await client.get(self.url)).json()
                if task["status"] in ENDED:
                    break
                await asyncio.sleep(self.interval)
        yield TriggerEvent(task)


class BlockingCall(AsksVap):
    """The shape of `OpenAIBatchTrigger`: a client per trigger, whose blocking call stands in the loop."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Polls until the task has ended."""
        with httpx.Client(headers=self.headers) as client:
            while True:
                task = client.get(self.url).json()  # noqa: ASYNC212  # this is what it is measured for
                if task["status"] in ENDED:
                    break
                await asyncio.sleep(self.interval)
        yield TriggerEvent(task)


class Timer(BaseTrigger):
    """Asks nobody: what a waiting trigger costs by itself.

    :param until: unix seconds.
    """

    def __init__(self, until: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's signature has no types
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class's path and its arguments, as Airflow stores them."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {"until": self.until}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleeps."""
        await asyncio.sleep(max(self.until - time.time(), 0.0))
        yield TriggerEvent({})


@dataclass(frozen=True)
class Contender:
    """One way to wait, and the tasks it waits for.

    :param label: its name in the table.
    :param provider: whose tasks.
    :param path: where one is submitted.
    :param body: what is submitted; `PROMPT` is replaced.
    :param trigger: makes the trigger for a task's id, given the simulator's URL.
    :param short: its name in the table of bounds, for ours.
    :param word: the simulator's word by which a task's end is set.
    :param requests_are_polls: whether each request asks for one task.
    :param warm_up: seconds from the last one's start until all poll steadily.
    :param window: seconds in which CPU and requests are counted.
    """

    label: str
    provider: str
    path: str
    body: dict[str, Any]
    trigger: Callable[[str, str], BaseTrigger]
    short: str = ""
    word: str = "seconds"
    requests_are_polls: bool = True
    warm_up: float = 3.0
    window: float = 10.0


def _ours(prefix: str, conn: str) -> Callable[[str, str], BaseTrigger]:
    # As a sensor's: neither a later first look nor slower questions later on, so that all poll all the time.
    return lambda own_id, _: MediaTaskTrigger(prefix + own_id, conn, INTERVAL, time.time() + 1e6)


def _http_sensor(own_id: str, _: str) -> BaseTrigger:
    from airflow.providers.http.triggers.http import HttpSensorTrigger  # noqa: PLC0415  # only where it runs

    return HttpSensorTrigger(
        endpoint=f"v3/tasks/{own_id}",
        http_conn_id="bench_http",
        headers={"Authorization": f"Bearer {KEY}"},
        poke_interval=INTERVAL,
    )


def _httpx(cls: type[AsksVap]) -> Callable[[str, str], BaseTrigger]:
    return lambda own_id, url: cls(f"{url}/vap/v3/tasks/{own_id}", INTERVAL)


_VAP = {"type": "image", "params": {"description": "PROMPT"}}
_EDIT = {"operation": "ai_edit", "media_url": "https://cdn.example/a.png", "prompt": "PROMPT"}

CONTENDERS = {
    "acedata": Contender(
        "ours, AceData (batches of 50)",
        "acedata",
        "/veo/videos",
        {"action": "text2video", "prompt": "PROMPT", "async": True},
        _ours("veo/", "bench_acedata"),
        "AceData",
        requests_are_polls=False,
    ),
    "kling": Contender(
        "ours, Kling (its list, 500 a page)",
        "kling",
        "/v1/videos/text2video",
        {"prompt": "PROMPT"},
        _ours("videos/text2video/", "bench_kling"),
        "Kling",
        requests_are_polls=False,
        window=20.0,
    ),
    "vap": Contender(
        "ours, VAP (lists of ended tasks, 50 a page)",
        "vap",
        "/v3/tasks",
        _VAP,
        _ours("", "bench_vap"),
        "VAP",
        requests_are_polls=False,
        warm_up=18.0,
        window=33.0,  # what no list shows is asked for alone, each sixth interval
    ),
    "single": Contender(
        "ours, single reads (VAP operations, which have no list)",
        "vap",
        "/v3/operations",
        _EDIT,
        _ours("operations/", "bench_vap"),
        "single reads",
    ),
    "http": Contender(
        "HTTP provider's HttpSensorTrigger", "vap", "/v3/tasks", _VAP, _http_sensor, word="not-visible"
    ),
    "per-poll": Contender("a client per poll", "vap", "/v3/tasks", _VAP, _httpx(ClientPerPoll)),
    "per-trigger": Contender(
        "a client per trigger", "vap", "/v3/tasks", _VAP, _httpx(ClientPerTrigger), warm_up=15.0
    ),
    "blocking": Contender(
        "a blocking call in the loop (OpenAIBatchTrigger's shape)",
        "vap",
        "/v3/tasks",
        _VAP,
        _httpx(BlockingCall),
    ),
    "timer": Contender("an empty trigger", "vap", "/v3/tasks", _VAP, lambda _, __: Timer(time.time() + 1e6)),
}


def connections(url: str) -> dict[str, str]:
    """Environment variables that define the contenders' connections to the simulator at *url*."""
    found = {
        f"AIRFLOW_CONN_BENCH_{name.upper()}": json.dumps(
            {"conn_type": name, "host": f"{url}/{name}", "password": KEY}
        )
        for name in ("acedata", "kling", "vap")
    }
    found["AIRFLOW_CONN_BENCH_HTTP"] = json.dumps({"conn_type": "http", "host": f"{url}/vap"})
    return found


def use(url: str) -> None:
    """Defines these connections in this process."""
    os.environ.update(connections(url))
