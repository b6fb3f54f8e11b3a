"""What all tests share: an Airflow home of their own, made before anything imports it, and the simulator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from airflow_media_tasks.simulator import Simulator


pytest_plugins = ["airflow_media_tasks.simulator.pytest_plugin"]

# No test may see, or touch, the Airflow of the person who runs it.
for name in [name for name in os.environ if name.startswith(("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_"))]:
    del os.environ[name]
_home = tempfile.TemporaryDirectory(prefix="airflow-tests-", ignore_cleanup_errors=True)
os.environ.update(
    AIRFLOW_HOME=_home.name,
    AIRFLOW__CORE__DAGS_FOLDER=f"{_home.name}/dags",
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_home.name}/airflow.db",
    AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS="127.0.0.1",  # the simulator's files
)


def pytest_report_header() -> str:
    """Which Airflow it is."""
    return f"Airflow {version('apache-airflow')}"


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[Simulator]:
    """One simulator for all tests; use `sim`, which is empty for each of them."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def sim(running_simulator: Simulator) -> Iterator[Simulator]:
    """The simulator without a task, a ledger entry, a count or a fault of another test."""
    running_simulator.reset()
    yield running_simulator
    running_simulator.reset()


@pytest.fixture
def connect(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Defines a connection to the simulator and returns its id; fields given replace the usual ones."""

    def define(conn_type: str, media_conn_id: str | None = None, **fields: object) -> str:
        media_conn_id = media_conn_id or f"{conn_type}_default"
        usual = {"conn_type": conn_type, "host": f"{sim.url}/{conn_type}", "password": "sim-key-123456"}
        monkeypatch.setenv(f"AIRFLOW_CONN_{media_conn_id.upper()}", json.dumps({**usual, **fields}))
        return media_conn_id

    return define


@dataclass(frozen=True)
class FinishedRun:
    """What a run of `dag.test()` left in the metadata database."""

    run_id: str
    state: str
    tasks: dict[tuple[str, int], str]

    def xcom(self, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        """What the task instance pushed, or None."""
        from airflow.models.xcom import XComModel  # noqa: PLC0415  # Airflow must find its home first
        from airflow.utils.session import create_session  # noqa: PLC0415  # Airflow must find its home first

        with create_session() as session:
            row = session.scalars(
                select(XComModel).filter_by(run_id=self.run_id, task_id=task_id, map_index=map_index, key=key)
            ).first()
            return None if row is None else XComModel.deserialize_value(row)


@pytest.fixture(scope="session")
def metadata_database() -> None:
    """An SQLite database with Airflow's tables, and an empty folder of DAGs."""
    from airflow.utils.db import initdb  # noqa: PLC0415  # Airflow must find its home first

    with warnings.catch_warnings():
        # Airflow's API server imports a test client that warns of the httpx which Airflow itself requires.
        warnings.simplefilter("ignore")
        import airflow.api_fastapi.execution_api.app  # noqa: F401, PLC0415  # for its warnings' sake

        # So does the migration of Flask AppBuilder's tables, which are there where its provider is installed.
        initdb()
    Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).mkdir(exist_ok=True)


@pytest.fixture
def airflow_api(metadata_database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Airflow's own API server over the tests' database, where everybody may do everything."""
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
    monkeypatch.setenv(
        "AIRFLOW__API_AUTH__JWT_SECRET", "a secret of the tests that is long enough for Airflow"
    )
    with warnings.catch_warnings():
        # Airflow's application and its server are not ours to keep free of warnings.
        warnings.simplefilter("ignore")
        import uvicorn  # noqa: PLC0415  # with its warnings
        from airflow.api_fastapi.app import create_app  # noqa: PLC0415  # as above

        server = uvicorn.Server(uvicorn.Config(create_app("core"), port=0, log_level="error", lifespan="on"))
        thread = threading.Thread(target=server.run)
        thread.start()
        ends = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < ends
            time.sleep(0.02)
        (listening,) = (sock for one in server.servers for sock in one.sockets)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def run_dag(metadata_database: None) -> Callable[[Any], FinishedRun]:
    """Runs a DAG that a test has just made by `dag.test()`: real tasks, triggers and XComs, one process."""

    def run(dag: Any) -> FinishedRun:
        from airflow.dag_processing.bundles.manager import DagBundlesManager  # noqa: PLC0415  # Airflow must find its home first
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db  # noqa: PLC0415  # Airflow must find its home first
        from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415  # Airflow must find its home first
        from airflow.utils.session import create_session  # noqa: PLC0415  # Airflow must find its home first

        # Airflow only runs what its database knows.
        DagBundlesManager().sync_bundles_to_db()
        bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)
        finished = dag.test()
        with create_session() as session:
            tasks = session.scalars(select(TaskInstance).filter_by(run_id=finished.run_id, dag_id=dag.dag_id))
            states = {(task.task_id, task.map_index): str(task.state) for task in tasks}
        return FinishedRun(finished.run_id, str(finished.state), states)

    return run


class StateStore(dict[str, Any]):
    """Airflow's task state store as an operator sees it, without Airflow."""

    def set(self, key: str, value: Any, retention: object = None) -> None:
        """Keeps what JSON can keep."""
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        """Forgets the key, if it is there."""
        self.pop(key, None)


@pytest.fixture
def shared_store() -> StateStore:
    """The state store of our asset, which all task instances share."""
    return StateStore()


@pytest.fixture
def context(shared_store: StateStore, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an operator's `execute` uses of its context; XComs end up in `pushed`."""
    from airflow_media_tasks import triggers  # noqa: PLC0415  # Airflow must find its home first
    from airflow_media_tasks.submissions.records import SUBMISSIONS  # noqa: PLC0415  # Airflow must find its home first

    # Triggers reach it by the asset's name alone.
    monkeypatch.setattr(
        triggers, "AssetStateStoreAccessor", lambda name: {SUBMISSIONS.name: shared_store}[name]
    )
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        dag_id="dag",
        run_id="run",
        task_id="task",
        map_index=-1,
        max_tries=0,
        try_number=1,
        xcom_push=lambda key, value: pushed.update({key: value}),
    )
    return {
        "ti": ti,
        "task_state_store": StateStore(),
        "asset_state_store": {SUBMISSIONS: shared_store},
        "pushed": pushed,
    }


@pytest.fixture
def complete(context: dict[str, Any]) -> Callable[[Any], Any]:
    """Runs an operator from `execute` to its result, through its triggers as they would be stored."""
    from airflow.sdk.exceptions import TaskDeferred  # noqa: PLC0415  # Airflow must find its home first

    def run(operator: Any) -> Any:
        step = partial(operator.execute, context)
        while True:
            try:
                return step()
            except TaskDeferred as deferred:
                path, arguments = deferred.trigger.serialize()
                event = asyncio.run(anext_of(resolve_name(path)(**json.loads(json.dumps(arguments)))))
                step = partial(operator.resume_execution, deferred.method_name, {"event": event}, context)

    return run


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may look at a task more often than operators may: most would be nothing but waiting."""
    monkeypatch.setattr("airflow_media_tasks.waiting.poller.SHORTEST_INTERVAL", 0.01)


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], list[str]]]:
    """Airflow sends its metrics to a statsd server of ours; gives those of a name, each of them once.

    Each is what stands behind `airflow.media_tasks.<name>`: tags, value and kind.
    """
    pytest.importorskip("statsd")
    from airflow.sdk.observability import stats  # noqa: PLC0415  # Airflow must find its home first
    from airflow.sdk.observability.metrics import stats_utils  # noqa: PLC0415  # Airflow must find its home first

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        for name, value in {
            "STATSD_ON": "True",
            "STATSD_HOST": "127.0.0.1",
            "STATSD_PORT": str(server.getsockname()[1]),
            "STATSD_INFLUXDB_ENABLED": "True",
        }.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__{name}", value)
        logger = stats_utils.get_stats_factory()()
        stats.initialize(factory=lambda: logger, export_legacy_names=False)
        lines: list[str] = []

        def arrived(name: str) -> list[str]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    lines.append(server.recv(65536).decode())
            before = f"airflow.media_tasks.{name}"
            found = [line for line in lines if line.startswith((f"{before},", f"{before}:"))]
            lines[:] = [line for line in lines if line not in found]
            return [line.removeprefix(before) for line in found]

        yield arrived
        logger.statsd.close()
        stats.initialize(factory=stats_utils.NoStatsLogger, export_legacy_names=True)


@pytest.fixture
async def driven_clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The event loop's clock and `time.time`, which stand while the machine works: a `DrivenClock`."""
    from .clock import DrivenClock  # noqa: PLC0415  # Airflow must find its home first

    return DrivenClock(asyncio.get_running_loop(), monkeypatch)


async def anext_of(trigger: Any) -> Any:
    """The payload of the trigger's one event, as it is after its way through the metadata database."""
    events = [event async for event in trigger.run()]
    assert len(events) == 1
    return json.loads(json.dumps(events[0].payload))


Answer = Callable[[str, str, bytes], tuple[int, dict[str, str], bytes]]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Starts a server that answers (method, path, body) by a function; returns its URL."""
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, headers, content = answer(self.command, self.path, body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = handle_one  # noqa: N815  # names of the standard library

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()
