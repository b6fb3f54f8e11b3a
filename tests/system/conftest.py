"""One simulator and one real Airflow for all tests of this folder."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_media_tasks.simulator import Simulator
from deployment import Deployment


EXAMPLE_DAGS = Path(__file__).resolve().parents[2] / "example_dags"
OWN_DAGS = Path(__file__).resolve().parent / "dags"
SECONDS = 1000.0  # tasks end when a test moves the clock, and not before


def connection(simulator: Simulator, provider: str, **secrets: str) -> str:
    """Return a connection to a provider of the simulator, as Airflow reads it from the environment."""
    return json.dumps({"conn_type": provider, "host": f"{simulator.url}/{provider}", **secrets})


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    """A simulator whose tasks take `SECONDS` of its own clock."""
    with Simulator(seconds=SECONDS) as running:
        yield running


@pytest.fixture(scope="session")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example DAGs land their files in."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def secrets() -> dict[str, dict[str, str]]:
    """What must be written down nowhere, by connection; no other text contains any of it."""
    return {
        "vap_default": {"password": "vap-key-9f3b7c5e2d8a4610"},
        "acedata_default": {"password": "acedata-token-1c6e8b0d4f927a35"},
        "kling_default": {"password": "kling-key-7e2a9c4b6d1f8053"},
        "replicate_default": {"password": "r8_4d7b2f9e6c1a8053"},
        "kling_pair": {"login": "sim-access-key", "password": "sim-secret-key-0123456789abcdef0123456789"},
        "fal_default": {"password": "fal-key-5d1b:8e6f2c7a90b34d1e"},
        "runway_default": {"password": "key_0c9f4e7b21d86a35"},
        "luma_default": {"password": "luma-key-3b8d6f1e7c2a9054"},
        "google_media_default": {"password": "AIza-2f7c9b1e6d4a8053"},
        "openai_media_default": {"password": "sk-openai-shaped-5a7c3e9b1d40f862"},
        "vap_refused": {"password": "sim-bad-key"},
        "acedata_refused": {"password": "sim-bad-key"},
        "kling_refused": {"password": "sim-bad-key"},
    }


class Metrics:
    """A statsd server that keeps what is ours."""

    def __init__(self, server: socket.socket) -> None:
        self.port = server.getsockname()[1]
        self.lines: list[str] = []
        self._server = server
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.lines += self._server.recv(65536).decode().splitlines()


@pytest.fixture(scope="session")
def metrics() -> Iterator[Metrics]:
    """Where Airflow sends the metrics of this package, with their tags."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        yield Metrics(server)


@pytest.fixture(scope="session")
def airflow(
    simulator: Simulator,
    output: Path,
    secrets: dict[str, dict[str, str]],
    metrics: Metrics,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """A real Airflow with the example DAGs, those of these tests, and connections to the simulator."""
    dags = tmp_path_factory.mktemp("dags")
    for folder in (EXAMPLE_DAGS, OWN_DAGS):
        (dags / folder.name).symlink_to(folder)
    settings = {
        "MEDIA_OUTPUT": f"file://{output}",
        "KLING_POOL": "kling",
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(metrics.port),
        "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        "AIRFLOW__METRICS__METRICS_ALLOW_LIST": "media_tasks",
    }
    for name, fields in secrets.items():
        settings[f"AIRFLOW_CONN_{name.upper()}"] = connection(simulator, name.rpartition("_")[0], **fields)
    settings["AIRFLOW_CONN_COMFYUI_DEFAULT"] = connection(simulator, "comfyui")  # which needs no secret
    with Deployment(dags, home=tmp_path_factory.mktemp("airflow"), settings=settings) as running:
        pool = {"name": "kling", "slots": 5, "include_deferred": True}
        running.request("POST", "pools", json=pool)
        yield running


@pytest.fixture(scope="session")
def wait_until_deferred(airflow: Deployment) -> Callable[[int], None]:
    """Wait until so many tasks are deferred and, while they are, not one slot is held."""

    def wait(tasks: int) -> None:
        seen = {}
        for _ in airflow.ticks(400.0, 0.5):
            slots = airflow.slots()
            seen = {name: slots[name] for name in ("deferred_slots", "running_slots", "occupied_slots")}
            if seen["deferred_slots"] == tasks and not seen["occupied_slots"]:
                break
        assert seen == {"deferred_slots": tasks, "running_slots": 0, "occupied_slots": 0}

    return wait
