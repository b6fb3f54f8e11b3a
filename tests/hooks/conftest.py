"""The simulator, connections to it, and the two ways to call a hook."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.simulator import Simulator

from .peer import Peer


# These hold assertions and are no test modules themselves.
pytest.register_assert_rewrite(
    "tests.encoders",
    "tests.hooks.contract",
    "tests.hooks.gate_contract",
    "tests.hooks.input_contract",
    "tests.hooks.lost_contract",
)

Call = Callable[..., Any]
Connect = Callable[..., str]


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[Simulator]:
    """One server for all tests of this folder; its tasks take three seconds of its own clock."""
    with Simulator(seconds=3.0) as simulator:
        yield simulator


@pytest.fixture
def sim(running_simulator: Simulator) -> Simulator:
    """The simulator with an empty ledger and no faults."""
    running_simulator.reset()
    return running_simulator


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Defines a connection by its fields and returns its id."""

    def define(conn_id: str = "account", **fields: Any) -> str:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        return conn_id

    return define


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Calls a hook's method by its name, or its awaitable twin in an event loop."""

    def blocking(hook: MediaHook, method: str, /, *args: Any, **named: Any) -> Any:
        return getattr(hook, method)(*args, **named)

    def awaited(hook: MediaHook, method: str, /, *args: Any, **named: Any) -> Any:
        return asyncio.run(getattr(hook, f"a{method}")(*args, **named))

    return blocking if request.param == "sync" else awaited


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A provider that answers as it is told."""
    peer = Peer()
    thread = Thread(target=peer.serve_forever, args=(0.01,))
    thread.start()
    yield peer
    peer.shutdown()
    thread.join()
    peer.server_close()


@pytest.fixture
def closed_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="session", autouse=True)
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two things that would take longer than most tests are left out.

    Airflow's own objects are not searched for garbage after each test, and a client reads no certificates:
    nobody here speaks TLS.
    """
    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSL_CERT_FILE", raising=False)
        patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("certificates")))
        yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """A socket that a test leaves open is reported in that test: its warning is an error."""
    yield
    gc.collect()
