"""The simulator in a process of its own, and many tasks in it."""

from __future__ import annotations

import asyncio
import copy
import json
import random
import subprocess
import sys
import urllib.request
from types import TracebackType
from typing import Any

import aiohttp
import psutil
from typing_extensions import Self

from contenders import KEY, Contender


LATENCY = 0.02  # seconds in which a provider answers
NEVER = 100_000  # seconds; until the clock is advanced, nothing ends


def call(url: str, path: str, body: Any = None, method: str | None = None) -> Any:
    """Asks a control endpoint of the simulator and returns the decoded answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/_sim/{path}", data, method=method)  # noqa: S310  # our own
    with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310  # our own
        return json.load(reply)


class SimulatorProcess:
    """A context manager around the simulator's command.

    :param port: TCP port, 0 for a free one.
    :param seconds: how long a task takes unless its request says otherwise.
    """

    def __init__(self, port: int = 0, seconds: float = 3.0) -> None:
        options = ["--port", str(port), "--seconds", str(seconds)]
        command = [sys.executable, "-m", "airflow_media_tasks.simulator", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None  # noqa: S101  # for the type checker
        self.url = self._process.stdout.readline().split()[1]
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def submit(
        self, contender: Contender, count: int, spread: float, seconds: float = NEVER
    ) -> dict[str, float]:
        """Submits tasks that end in *seconds* and at random up to *spread* seconds later.

        :return: for each task's own id, the simulator's unix seconds of its end.
        """
        call(self.url, "ledger", method="DELETE")
        lasts = [seconds + random.uniform(0, spread) for _ in range(count)]  # noqa: S311  # a schedule
        asyncio.run(self._submit(contender, lasts))
        call(self.url, "faults", {"kind": "latency", "on": "read", "delay": LATENCY})
        ledger = call(self.url, "ledger")
        assert len(ledger) == count, f"{len(ledger)} of {count} tasks were accepted"  # noqa: S101  # a check
        return {entry["id"]: entry["at"] + _lasts(entry["request"], contender.word) for entry in ledger}

    async def _submit(self, contender: Contender, lasts: list[float]) -> None:
        url = f"{self.url}/{contender.provider}{contender.path}"
        left = iter(enumerate(lasts))
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:

            async def one_after_the_other() -> None:
                for number, last in left:
                    body = copy.deepcopy(contender.body)
                    place = body.get("params", body)
                    key = next(key for key, value in place.items() if value == "PROMPT")
                    place[key] = f"a cat {number} [sim:{contender.word}={last:.3f}]"
                    async with session.post(url, json=body) as reply:
                        reply.raise_for_status()
                        await reply.read()

            await asyncio.gather(*(one_after_the_other() for _ in range(20)))


def _lasts(request: dict[str, Any], word: str) -> float:
    text = json.dumps(request)
    return float(text.partition(f"[sim:{word}=")[2].partition("]")[0])


def cpu_seconds(pid: int) -> float:
    """User and system time that the process has used so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
