"""One contender in one asyncio process, as the triggerer runs its triggers: prints its figures as JSON.

    python measure.py CONTENDER SIMULATOR_URL SIMULATOR_PID FILE_OF_ENDS

The file holds, for each task's id, the simulator's unix seconds of its end, far in the future. First all
tasks are polled and nothing ends (CPU, requests, memory); then the simulator's clock is advanced, they end at
random times, and a ticker runs (detection, lag of the event loop, sockets).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import structlog
from airflow.triggers.base import BaseTrigger

from airflow_media_tasks.waiting.poller import Poller
from bench_simulator import call, cpu_seconds
from contenders import CONTENDERS, INTERVAL, Contender, use


TICK = 0.005
PATIENCE = 15.0  # seconds after the last task's end
WARM = 25  # tasks that are waited for and given up before anything is measured, enough for a list to be read
PROCESS = psutil.Process()


def quiet_logs() -> None:
    """Lines are made as the triggerer makes them, as JSON, and then thrown away."""
    nowhere = Path(os.devnull).open("w")  # noqa: SIM115  # as long as the process
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=structlog.PrintLoggerFactory(nowhere),
        cache_logger_on_first_use=True,
    )


def told() -> int:
    """How often our watches were told something of their tasks, together."""
    pollers = Poller._of_loop.get(asyncio.get_running_loop(), {})  # noqa: SLF001  # only it knows
    return sum(watch.asked for poller in pollers.values() for watch in poller._all())  # noqa: SLF001


def requests(url: str, provider: str) -> int:
    """How many status requests the simulator has had."""
    counts = call(url, "requests")
    submits = ("POST /vap", "POST /kling", "POST /acedata/veo/videos")
    return sum(
        count for route, count in counts.items() if f"/{provider}/" in route and not route.startswith(submits)
    )


def percentile(values: list[float], share: float) -> float:
    """The value that this share of *values* does not exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else float("nan")


@asynccontextmanager
async def ticking() -> AsyncIterator[tuple[list[float], list[int]]]:
    """Collects how late each tick of 5 ms was, in seconds, and now and then the number of open files."""
    lags: list[float] = []
    files: list[int] = []

    async def tick() -> None:
        loop = asyncio.get_running_loop()
        # Not at once: the request that moves the simulator's clock has a socket, too.
        sampled = loop.time()
        while True:
            due = loop.time() + TICK
            await asyncio.sleep(TICK)
            lags.append(loop.time() - due)
            if due > sampled + 0.5:
                sampled = due
                files.append(PROCESS.num_fds())

    ticker = asyncio.create_task(tick())
    try:
        yield lags, files
    finally:
        ticker.cancel()


async def fires(trigger: BaseTrigger) -> float:
    """Runs it as the triggerer does; the unix seconds of its event."""
    async for _ in trigger.run():
        return time.time()
    raise RuntimeError("the trigger ended without an event")


async def measure(contender: Contender, url: str, simulator: int, ends: dict[str, float]) -> dict[str, float]:
    """All figures of this contender with the tasks in *ends*, of which the first are for warming up."""
    items = list(ends.items())
    rest = items[WARM:]
    # What is imported and made once, and room for a page of a list, must not count as memory of a task.
    warm = [asyncio.create_task(fires(contender.trigger(own_id, url))) for own_id, _ in items[:WARM]]
    await asyncio.sleep(4)
    for task in warm:
        task.cancel()
    await asyncio.gather(*warm, return_exceptions=True)
    await asyncio.sleep(0.2)
    gc.collect()
    files_before, memory_before, count = PROCESS.num_fds(), PROCESS.memory_info().rss, len(rest)
    tasks = {}
    for number, (own_id, _) in enumerate(rest):
        tasks[own_id] = asyncio.create_task(fires(contender.trigger(own_id, url)))
        if (number + 1) % max(count // 50, 1) == 0:
            # A triggerer takes them up bit by bit, too: not all poll at the same moment.
            await asyncio.sleep(INTERVAL / 50)
    await asyncio.sleep(contender.warm_up)

    asked_before, sent_before = told(), await asyncio.to_thread(requests, url, contender.provider)
    simulator_before, began, cpu_before = cpu_seconds(simulator), time.monotonic(), time.process_time()
    await asyncio.sleep(contender.window)
    cpu, took = time.process_time() - cpu_before, time.monotonic() - began
    simulator_cpu = cpu_seconds(simulator) - simulator_before
    sent = await asyncio.to_thread(requests, url, contender.provider) - sent_before
    asked, files_waiting = told() - asked_before, PROCESS.num_fds()
    gc.collect()
    memory = PROCESS.memory_info().rss - memory_before

    wanted = count * took / INTERVAL
    polls = sent if contender.requests_are_polls else asked if asked > wanted / 2 else wanted
    if not polls:
        # Who asks nobody sees no task end.
        return {"tasks": count, "cpu_ms": 0.0, "memory_kib": memory / count / 1024}
    fired: list[float] = []
    simulator_before, began = cpu_seconds(simulator), time.monotonic()
    async with ticking() as (lags, files):
        # Half a second for the control request itself.
        advance = min(end for _, end in rest) - time.time() - 0.5
        await asyncio.to_thread(call, url, "clock", {"advance": advance})
        last = max(end for _, end in rest) - advance
        await asyncio.wait(tasks.values(), timeout=last - time.time() + PATIENCE)
        for own_id, end in rest:
            if tasks[own_id].done():
                fired.append(tasks[own_id].result() - (end - advance))
    simulator_ends = (cpu_seconds(simulator) - simulator_before) / (time.monotonic() - began)
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)

    return {
        "tasks": count,
        "cpu_ms": cpu / polls * 1000,
        "cpu_share": cpu / took,
        "kept_up": polls / wanted,
        "requests": sent / wanted,
        "lag_ms": percentile(lags, 0.99) * 1000,
        "detect_p50": statistics.median(fired) if fired else float("nan"),
        "detect_p99": percentile(fired, 0.99),
        "fired": len(fired),
        "memory_kib": memory / count / 1024,
        "sockets": max(files_waiting, *files) - files_before,
        "simulator_waiting": simulator_cpu / took,
        "simulator_ending": simulator_ends,
    }


def main() -> None:
    """Measures what the command line says."""
    parser = argparse.ArgumentParser(description="One contender in one asyncio process.")
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("url")
    parser.add_argument("pid", type=int)
    parser.add_argument("ends", type=Path)
    options = parser.parse_args()
    use(options.url)
    quiet_logs()
    ends = json.loads(options.ends.read_text())
    figures = asyncio.run(measure(CONTENDERS[options.contender], options.url, options.pid, ends))
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main()
