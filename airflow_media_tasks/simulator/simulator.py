"""`Simulator`: the server in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from aiohttp import web

from airflow_media_tasks.simulator.acedata import AceData
from airflow_media_tasks.simulator.comfyui import ComfyUI
from airflow_media_tasks.simulator.fal import Fal
from airflow_media_tasks.simulator.google_media import GoogleMedia
from airflow_media_tasks.simulator.kling import Kling
from airflow_media_tasks.simulator.luma import Luma
from airflow_media_tasks.simulator.openai_media import OpenAIMedia
from airflow_media_tasks.simulator.provider import Provider
from airflow_media_tasks.simulator.replicate import Replicate
from airflow_media_tasks.simulator.runway import Runway
from airflow_media_tasks.simulator.server import Server, ledger_of
from airflow_media_tasks.simulator.vap import Vap
from airflow_media_tasks.simulator.world import World


PROVIDERS: tuple[type[Provider], ...] = (
    Vap,
    AceData,
    Kling,
    Fal,
    Replicate,
    Runway,
    Luma,
    ComfyUI,
    GoogleMedia,
    OpenAIMedia,
)
_SHUTDOWN_SECONDS = 0.2
_BACKLOG = 4096  # connections that wait to be taken, so that a burst of a thousand clients is not refused

_T = TypeVar("_T")


class Simulator:
    """Every provider on one loopback port: a context manager, or `start()` and `stop()`.

    :param port: TCP port, 0 for a free one.
    :param seconds: how long a task takes from its submission to its end unless its request says otherwise.
    :param host: the address to listen on.
    :param more: providers beside those of `PROVIDERS`.
    """

    def __init__(
        self, port: int = 0, seconds: float = 3.0, host: str = "127.0.0.1", more: Iterable[Provider] = ()
    ) -> None:
        self._host = host
        self._port = port
        self._providers = (*(provider() for provider in PROVIDERS), *more)
        self._world = World(seconds, [provider.name for provider in self._providers])
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """`http://HOST:PORT`; a provider's base URL is this plus its name, such as `/vap`."""
        return f"http://{self._host}:{self._port}"

    def start(self) -> Simulator:
        """Listen; returns when requests are answered. Raises OSError if the port is taken."""
        if self._thread is not None:
            raise RuntimeError("this simulator is running already")
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(ready)), name="media-simulator"
        )
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._thread.join()
            self._thread = None
            raise
        return self

    def stop(self) -> None:
        """Cut what is still open and release the port; the ledger stays readable. Harmless if not running."""
        if self._thread is None or self._loop is None or self._stopping is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = self._loop = self._stopping = None

    def __enter__(self) -> Simulator:  # noqa: PYI034  # typing.Self is new in Python 3.11
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _serve(self, ready: Future[None]) -> None:
        with tempfile.TemporaryDirectory(prefix="media-simulator-") as folder:
            runner = web.AppRunner(
                Server(self._world, Path(folder), self._providers).app,
                access_log=None,
                shutdown_timeout=_SHUTDOWN_SECONDS,
            )
            try:
                await runner.setup()
                await web.TCPSite(runner, self._host, self._port, backlog=_BACKLOG).start()
                self._port = runner.addresses[0][1]
                self._world.own_hosts = {
                    f"{name}:{self._port}" for name in (self._host, "127.0.0.1", "localhost")
                }
                self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
            except Exception as error:  # noqa: BLE001  # whatever it is, start() raises it
                await runner.cleanup()
                ready.set_exception(error)
                return
            ready.set_result(None)
            await self._stopping.wait()
            await runner.cleanup()

    def _ask(self, question: Callable[[], _T]) -> _T:
        """The answer to *question*, put in the server's own loop, where alone the world may be touched."""
        if self._loop is None:
            return question()

        async def put() -> _T:
            return question()

        return asyncio.run_coroutine_threadsafe(put(), self._loop).result()

    def ledger(self, provider: str | None = None) -> list[dict[str, Any]]:
        """Accepted (billed) submissions, oldest first: `provider, operation, id, client_ref, amount, ...`."""
        return self._ask(lambda: ledger_of(self._world, provider))

    def requests(self) -> dict[str, int]:
        """How often each route was asked: `{"POST /acedata/veo/tasks": 12}`."""
        return self._ask(lambda: dict(self._world.requests))

    def received(self) -> list[dict[str, Any]]:
        """Each file that came with an accepted submission: `provider, task, way, sha256, size` (bytes).

        `way` is `url` (fetched from an address on this machine), `inline` or `upload`.
        """
        return self._ask(lambda: list(self._world.received))

    def tasks(self) -> list[dict[str, Any]]:
        """Every task with its present status, in the simulator's own words."""
        return self._ask(lambda: [task.to_dict(self._world.now()) for task in self._world.tasks.values()])

    def fault(self, kind: str, **fields: Any) -> None:
        """Put a fault in force, as `POST /_sim/faults` does. Raises ValueError if it is malformed."""
        self._ask(lambda: self._world.add_fault({"kind": kind, **fields}))

    def clear_faults(self) -> None:
        """End every fault."""
        self._ask(self._world.faults.clear)

    def advance(self, seconds: float) -> None:
        """Move the simulator's clock forward, so that tests need not sleep."""
        if seconds < 0:
            raise ValueError("the clock cannot go back")

        def move() -> None:
            self._world.advanced += seconds

        self._ask(move)

    def reset(self) -> None:
        """Forget tasks, accounts, ledger, counts and faults; the clock stays where it is."""
        self._ask(self._world.reset)
