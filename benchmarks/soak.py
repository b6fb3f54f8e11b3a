"""Two thousand waiting tasks for ten minutes while providers fail at random: none is lost, nothing leaks.

    python benchmarks/soak.py [--minutes 10] [--tasks 2000]

Each task that ends is followed by a new one. Exit code 0 if every task was reported as succeeded, once,
and open files, tasks of the event loop and memory are at the end what they were after a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import sys
import tempfile
import time
from collections import Counter
from typing import Any

import aiohttp
import psutil

from airflow_media_tasks.task import MediaTask
from airflow_media_tasks.triggers import MediaTaskTrigger
from bench_simulator import SimulatorProcess, call
from contenders import KEY, use
from measure import quiet_logs


FAULTS: list[dict[str, Any]] = [
    {"kind": "outage", "status": 503, "html": True, "seconds": 8},
    {"kind": "outage", "status": 500, "count": 20},
    {"kind": "rate_limit", "retry_after": 3, "count": 2},
    {"kind": "rate_limit", "count": 3},
    {"kind": "lose_reply", "count": 10},
    {"kind": "hang", "delay": 15, "count": 5},
    {"kind": "latency", "delay": 0.5, "seconds": 10},
    {"kind": "truncated", "count": 10},
    {"kind": "html", "count": 10},
    {"kind": "not_found", "count": 10},
]
WAYS: tuple[tuple[str, str, dict[str, Any], str, str], ...] = (
    ("acedata", "/veo/videos", {"action": "text2video", "async": True}, "veo/", "prompt"),
    ("kling", "/v1/videos/text2video", {}, "videos/text2video/", "prompt"),
    ("vap", "/v3/tasks", {"type": "image"}, "", "params"),
)


class Soak:
    """The waiters, and what they were told."""

    def __init__(self, url: str, ends: float) -> None:
        self.url = url
        self.ends = ends
        self.told: Counter[str] = Counter()
        self.failed: list[str] = []
        self.submitted = 0

    async def submit(self, session: aiohttp.ClientSession, way: int) -> str:
        """A new task that lasts 5 to 90 s; its `media_task_id`."""
        provider, path, body, prefix, key = WAYS[way]
        prompt = f"a cat [sim:seconds={random.uniform(5, 90):.1f}]"  # noqa: S311  # a schedule
        body = {**body, key: {"description": prompt} if key == "params" else prompt}
        async with session.post(f"{self.url}/{provider}{path}", json=body) as reply:
            document = await reply.json()
        self.submitted += 1
        data = document.get("data")
        own_id = document.get("task_id") or (data or {}).get("task_id")
        return f"{prefix}{own_id}"

    async def wait_again_and_again(self, session: aiohttp.ClientSession, way: int) -> None:
        """One waiter: a new task as soon as the last one has ended, until time is up."""
        while time.monotonic() < self.ends:
            id_ = await self.submit(session, way)
            trigger = MediaTaskTrigger(id_, f"bench_{WAYS[way][0]}", 2.0, time.time() + 600)
            async for event in trigger.run():
                task = MediaTask.from_dict(event.payload)
                self.told[task.id] += 1
                if task.error is not None:
                    self.failed.append(f"{task.id}: {task.error}")

    async def break_things(self) -> None:
        """A fault at one provider every few seconds; none in the last 30 s."""
        while time.monotonic() < self.ends - 30:
            await asyncio.sleep(random.uniform(3, 12))  # noqa: S311  # a schedule
            provider = random.choice(WAYS)[0]  # noqa: S311  # a schedule
            # All of them end by themselves: a poller that asks rarely in an outage would not use up a count.
            fault = {"seconds": 20, "on": "read", "provider": provider}
            fault |= random.choice(FAULTS)  # noqa: S311  # a schedule
            await asyncio.to_thread(call, self.url, "faults", fault)

    async def run(self, count: int) -> bool:
        """Everything; whether nothing was lost and nothing leaked."""
        process = psutil.Process()
        early = late = (0, 0, 0)
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
            waiters = [
                asyncio.create_task(self.wait_again_and_again(session, n % len(WAYS))) for n in range(count)
            ]
            breaker, began, reported = asyncio.create_task(self.break_things()), time.monotonic(), 0
            while (left := [waiter for waiter in waiters if not waiter.done()]) and (
                time.monotonic() < self.ends + 240
            ):
                await asyncio.wait(left, timeout=5)
                minute = int((time.monotonic() - began) / 60)
                if minute > reported:
                    reported = minute
                    gc.collect()
                    now = (process.num_fds(), len(asyncio.all_tasks()), process.memory_info().rss >> 20)
                    early = early if any(early) else now
                    print(
                        f"{minute} min: {len(self.told):,} tasks ended, {now[0]} open files, "
                        f"{now[1]:,} tasks of the loop, {now[2]} MiB",
                        flush=True,
                    )
                    if time.monotonic() < self.ends:
                        late = now
            breaker.cancel()
            stuck = len([waiter for waiter in waiters if not waiter.done()])
            for waiter in waiters:
                waiter.cancel()
            broken = [each for each in await asyncio.gather(*waiters, return_exceptions=True) if each]
        await asyncio.sleep(1)
        left_over = len(asyncio.all_tasks()) - 1
        ledger = len(call(self.url, "ledger"))
        print(
            f"{self.submitted:,} submitted, {ledger:,} billed, {len(self.told):,} reported, "
            f"{len(self.failed)} of them with an error, {stuck} still waiting, {len(broken)} broken, "
            f"{left_over} tasks of the loop left over"
        )
        for line in self.failed[:10]:
            print("  " + line)
        nothing_lost = self.submitted == ledger == len(self.told) == self.told.total()
        flat = late[0] <= early[0] + 20 and late[1] <= early[1] + 50 and late[2] <= early[2] * 1.3 + 20
        return nothing_lost and flat and not (self.failed or stuck or broken or left_over)


def main() -> int:
    """Runs it; returns the exit code."""
    parser = argparse.ArgumentParser(description="Waiting tasks while providers fail at random.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--tasks", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="media-tasks-soak-") as home, SimulatorProcess() as simulator:
        os.environ["AIRFLOW_HOME"] = home
        use(simulator.url)
        quiet_logs()
        soak = Soak(simulator.url, time.monotonic() + options.minutes * 60)
        good = asyncio.run(soak.run(options.tasks))
    print("nothing lost, nothing leaked" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
