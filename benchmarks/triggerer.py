"""The real triggerer with rows in PostgreSQL: a thousand tasks deferred together, each of them 60 s long.

The task instances and their triggers are written into the metadata database as a worker's deferral leaves
them; what is measured is the triggerer alone, from there until it has scheduled the last one to be resumed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from cluster import Server, program

from bench_simulator import SimulatorProcess, call
from contenders import CONTENDERS, connections
from deployment import free_port
from report import Figures


COUNT = 1_000
SECONDS = 60.0
PATIENCE = 240.0
NAMES = ("timer", "acedata", "http", "per-trigger")
TRIGGERERS = "select count(*) from job where job_type = 'TriggererJob' and state = 'running'"
RESUMED = "select count(*) from task_instance where run_id = :run_id and state = 'scheduled'"
DAG = """
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("bench", schedule=None):
    EmptyOperator(task_id="wait")
"""


@contextmanager
def postgres(home: Path) -> Iterator[str]:
    """A PostgreSQL of ours on loopback, and its address for SQLAlchemy."""
    data, port = home / "postgres", free_port()
    data.mkdir()
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        home.chmod(0o755)
        shutil.chown(data, user, user)
    initdb = [program("initdb"), "-D", str(data / "data"), "-U", "airflow", "-A", "trust", "-N", "-E", "UTF8"]
    subprocess.run(initdb, cwd="/", check=True, capture_output=True, user=user)
    command = [program("postgres"), "-D", str(data / "data"), "-p", str(port), "-k", "", "-h", "127.0.0.1"]
    ready = [program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "airflow"]
    server = Server(
        command, home / "postgres.log", lambda: subprocess.run(ready, check=False).returncode == 0, user
    )
    server.start()
    try:
        yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"
    finally:
        server.stop()


@contextmanager
def triggerer(log: Path) -> Iterator[psutil.Process]:
    """Airflow's triggerer, in the environment of this process."""
    with log.open("wb") as output:
        command = [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def prepare(home: Path) -> None:
    """Makes the tables and the DAG."""
    (home / "dags").mkdir()
    (home / "dags" / "bench.py").write_text(DAG)
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=subprocess.DEVNULL)
    from airflow.dag_processing.bundles.manager import DagBundlesManager  # noqa: PLC0415  # reads its settings
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db  # noqa: PLC0415  # as above

    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(DagBag(str(home / "dags")), "dags-folder", None)


def define(url: str) -> None:
    """Stores the contenders' connections in the database, as users do."""
    from airflow.models.connection import Connection  # noqa: PLC0415  # reads its settings
    from airflow.utils.session import create_session  # noqa: PLC0415  # as above

    with create_session() as session:
        for name, fields in connections(url).items():
            conn_id = name.removeprefix("AIRFLOW_CONN_").lower()
            session.add(Connection.from_json(fields, conn_id=conn_id))


def defer(run_id: str, triggers: list[Any]) -> None:
    """One deferred, mapped task instance for each trigger, in one transaction."""
    from airflow._shared.timezones import timezone  # noqa: PLC0415  # reads its settings
    from airflow.models.dag_version import DagVersion  # noqa: PLC0415  # as above
    from airflow.models.dagrun import DagRun  # noqa: PLC0415  # as above
    from airflow.models.serialized_dag import SerializedDagModel  # noqa: PLC0415  # as above
    from airflow.models.taskinstance import TaskInstance  # noqa: PLC0415  # as above
    from airflow.models.trigger import Trigger  # noqa: PLC0415  # as above
    from airflow.utils.session import create_session  # noqa: PLC0415  # as above
    from airflow.utils.state import DagRunState, TaskInstanceState  # noqa: PLC0415  # as above
    from airflow.utils.types import DagRunTriggeredByType  # noqa: PLC0415  # as above

    with create_session() as session:
        version = DagVersion.get_latest_version("bench", session=session)
        serialized = SerializedDagModel.get("bench", session=session)
        if version is None or serialized is None:
            raise RuntimeError("the DAG is not in the database")
        task = serialized.dag.get_task("wait")
        now = timezone.utcnow()
        session.add(
            DagRun(
                "bench",
                run_id,
                run_after=now,
                start_date=now,
                state=DagRunState.RUNNING,
                run_type="manual",
                triggered_by=DagRunTriggeredByType.TEST,
            )
        )
        session.flush()
        for index, trigger in enumerate(triggers):
            path, arguments = trigger.serialize()
            row = Trigger(classpath=path, kwargs=arguments)
            ti = TaskInstance(task, version.id, run_id, TaskInstanceState.DEFERRED, index)
            ti.trigger = row
            ti.next_method = "execute_complete"
            ti.start_date = now
            session.add(ti)


def count_of(engine: Any, query: str, **parameters: str) -> int:
    """The number that a query of the metadata database answers."""
    from sqlalchemy import text  # noqa: PLC0415  # Airflow brings it

    with engine.connect() as connection:
        return int(connection.execute(text(query), parameters).scalar_one())


def measured(name: str, home: Path, simulator: SimulatorProcess, address: str) -> Figures:
    """Figures of one contender: seconds until all are resumed, and what the triggerer used meanwhile."""
    from sqlalchemy import create_engine  # noqa: PLC0415  # Airflow brings it

    from airflow_media_tasks.triggers import MediaTaskTrigger  # noqa: PLC0415  # reads Airflow's settings

    contender, log = CONTENDERS[name], home / f"{name}.log"
    engine = create_engine(address)
    with triggerer(log) as process:
        deadline = time.monotonic() + PATIENCE
        while not (count_of(engine, TRIGGERERS) and process.children()) and time.monotonic() < deadline:
            time.sleep(0.5)
        time.sleep(5)  # its first seconds go into imports
        ids = simulator.submit(contender, COUNT, 0, SECONDS)
        now = time.time()
        triggers = [contender.trigger(own_id, simulator.url) for own_id in ids]
        if name == "timer":
            for trigger in triggers:
                trigger.until = now + SECONDS  # type: ignore[attr-defined]  # it is a Timer
        elif name == "acedata":  # as the operator does it
            triggers = [
                MediaTaskTrigger(
                    f"veo/{own_id}", "bench_acedata", 5.0, now + 3600, None, "veo/text_to_video", now
                )
                for own_id in ids
            ]
        # What blocks the loop while the triggerer starts is Airflow's own.
        said_before = log.stat().st_size
        defer(name, triggers)
        began = time.monotonic()
        family = [process, *process.children(recursive=True)]
        time.sleep(15)
        before = [sum(each.cpu_times()[:2]) for each in family]
        time.sleep(30)
        shares = [(sum(each.cpu_times()[:2]) - cpu) / 30 for each, cpu in zip(family, before, strict=True)]
        memory = max(each.memory_info().rss for each in family[1:]) / 2**20
        while (
            count := count_of(engine, RESUMED, run_id=name)
        ) < COUNT and time.monotonic() - began < PATIENCE:
            time.sleep(0.2)
        took = time.monotonic() - began
    engine.dispose()
    return {
        "contender": name,
        "resumed": count,
        "took": took,
        "supervisor": shares[0],
        "runner": sum(shares[1:]),
        "memory": memory,
        "blocked": log.read_bytes()[said_before:].count(b"was blocked"),
        "ledger": len(call(simulator.url, "ledger")),
    }


def measured_all(names: Sequence[str]) -> list[Figures]:
    """The figures of all *names*, or nothing where there is no PostgreSQL, with a line that says so.

    They are measured by a process of its own, whose Airflow has the settings for it.
    """
    try:
        program("initdb")
    except RuntimeError as error:
        print(f"The real triggerer is not measured: {error}", file=sys.stderr)
        return []
    with (
        tempfile.TemporaryDirectory(prefix="media-tasks-triggerer-") as name,
        postgres(Path(name)) as address,
    ):
        home = Path(name)
        settings = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": address,
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        environment = {**os.environ, **settings}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, __file__, str(home / "figures.json"), address, *names]
        subprocess.run(command, env=environment, cwd=home, stdout=subprocess.DEVNULL, check=True)
        figures: list[Figures] = json.loads((home / "figures.json").read_text())
        return figures


def main(file: Path, address: str, names: Sequence[str]) -> None:
    """The process of `measured_all`."""
    home = Path(os.environ["AIRFLOW_HOME"])
    prepare(home)
    rows = []
    with SimulatorProcess() as simulator:
        define(simulator.url)
        for name in names:
            rows.append(measured(name, home, simulator, address))
            print(f"{name} in the real triggerer: {rows[-1]['took']:.0f} s", file=sys.stderr, flush=True)
    file.write_text(json.dumps(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
