"""A distributed Airflow on loopback whose parts can be killed, frozen and restarted one by one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from deployment import Deployment, free_port

from .scenarios import OPERATIONS


WORKERS = ("worker-1", "worker-2")
TRIGGERERS = ("triggerer", "triggerer-2")
SLOTS = 12  # of each worker
PATIENCE = 120.0  # seconds for a part to be there again
PRELOADED = [  # what else each task would import for itself, which takes longer than all that it does
    "airflow.dag_processing.dagbag",
    "airflow_media_tasks.operators",
    *(f"airflow_media_tasks.hooks.{name}" for name in OPERATIONS),
    "unittest.mock",
]
TAKEOVER = 5  # seconds of silence after which a triggerer's triggers go to the other one


class Server:
    """PostgreSQL or Redis: a process of ours that ends with us, whatever happens to us.

    :param command: what to start; it stays in the foreground.
    :param log: where its output goes.
    :param answers: whether it answers now.
    :param user: who runs it, default ourselves.
    """

    def __init__(
        self, command: list[str], log: Path, answers: Callable[[], bool], user: str | None = None
    ) -> None:
        # They overwrite their environment, so no mark would find them: the kernel ends them with the thread
        # that started them, which is the tests' main thread.
        identity = [f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        self._command = ["setpriv", "--pdeathsig", "INT", *identity, *command]
        self._log = log
        self._answers = answers
        self._process: subprocess.Popen[bytes] | None = None

    def family(self) -> list[psutil.Process]:
        """Its process and all below it; empty if it does not run."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self._process is not None:
                process = psutil.Process(self._process.pid)
                return [process, *process.children(recursive=True)]
        return []

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._command} does not answer, see {self._log}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End it at once and in order; the clients' connections are cut. Harmless if it does not run."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def program(name: str) -> str:
    """Where a program of PostgreSQL or Redis is; Debian does not put PostgreSQL's into PATH."""
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None
    )
    if found is None:
        raise RuntimeError(f"{name} is not installed; scripts/test --faults installs it")
    return found


class WorkerLost(Exception):
    """This Airflow does not survive the loss of a worker; the message is what its scheduler has said."""


class Cluster(Deployment):
    """PostgreSQL, Redis, two Celery workers, two triggerers, and the other components of a `Deployment`.

    :param dags: the folder of DAG files.
    :param home: `AIRFLOW_HOME`, kept afterwards.
    :param settings: environment variables for all components.
    """

    def __init__(self, dags: Path, home: Path, settings: Mapping[str, str]) -> None:
        self._data = Path(tempfile.mkdtemp(prefix="airflow-faults-postgres-"))
        port, redis_port = free_port(), free_port()
        address = f"127.0.0.1:{port}/postgres"
        slots = SLOTS * len(WORKERS)
        brisk = {
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{redis_port}/0",
            "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": json.dumps({"imports": PRELOADED}),
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://airflow@{address}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(SLOTS),
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "256",
            # Not more than there are slots: what is queued then begins soon, unless its message was lost.
            "AIRFLOW__CORE__PARALLELISM": str(slots),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://airflow@{address}",
            # With the usual 15 connections all requests to the API server once waited for one, for 30 s, and
            # those that got none were answered with a 500: too few for so many task instances at once.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE": "50",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_MAX_OVERFLOW": "50",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "60",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
            "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": str(slots),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "45",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "3",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__RUNNER_HEALTH_CHECK_THRESHOLD": str(TAKEOVER),
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(TAKEOVER),
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        }
        super().__init__(dags, home=home, settings={**brisk, **settings}, start_seconds=300)
        self._engine = create_engine(f"postgresql+psycopg2://airflow@{address}", pool_pre_ping=True)
        self.postgres = self._postgres(port)
        self.redis = self._redis(redis_port)
        self.revived: list[str] = []
        """Components that ended although nobody told them to, in order."""

    def _postgres(self, port: int) -> Server:
        user = "postgres" if os.geteuid() == 0 else None
        if user:
            shutil.chown(self._data, user, user)
        directory = str(self._data / "data")
        initdb = [program("initdb"), "-D", directory, "-U", "airflow", "-A", "trust", "-N", "-E", "UTF8"]
        subprocess.run(initdb, cwd="/", check=True, capture_output=True, user=user)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "300",
            "fsync": "off",
        }
        command = [program("postgres"), "-D", directory]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        return Server(command, self.log_file("postgres"), self._database_answers, user)

    def _database_answers(self) -> bool:
        try:
            self.rows("select 1", patience=0)
        except DBAPIError:
            return False
        return True

    def _redis(self, port: int) -> Server:
        # Nothing is kept on disk: a restart loses every message that waits in the queue.
        command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        command += [str(self.home), "--set-proc-title", "no"]

        def answers() -> bool:
            ping = [program("redis-cli"), "-p", str(port), "ping"]
            return subprocess.run(ping, capture_output=True, check=False).stdout.strip() == b"PONG"

        return Server(command, self.log_file("redis"), answers)

    def __enter__(self) -> Cluster:  # noqa: PYI034  # it is not subclassed any further
        try:
            self.postgres.start()
            self.redis.start()
            super().__enter__()
            self.start("triggerer-2", self.airflow("triggerer", "--skip-serve-logs"))
            for name in WORKERS:
                options = ["--celery-hostname", f"{name}@127.0.0.1", "--pid", str(self.home / f"{name}.pid")]
                self.start(name, self.airflow("celery", "worker", "--skip-serve-logs", *options))
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End everything and remove the database."""
        try:
            super().stop()
        finally:
            self._engine.dispose()
            self.redis.stop()
            self.postgres.stop()
            shutil.rmtree(self._data, ignore_errors=True)

    def rows(self, query: str, *, patience: float = PATIENCE, **parameters: Any) -> list[Any]:
        """What the metadata database says, also when it is being restarted at the moment.

        :param query: SQL with `:name` for parameters.
        :param patience: seconds to go on asking a database that does not answer.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                with self._engine.connect() as connection:
                    return list(connection.execute(text(query), parameters))
            except DBAPIError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.5)

    def instances(self, dag_id: str) -> list[Any]:
        """The current `task_id, map_index, state, try_number, next_method` of the DAG's task instances."""
        query = "select column_name from information_schema.columns where table_name = 'task_instance'"
        columns = {row[0] for row in self.rows(query)}
        # Airflow 3.4 keeps earlier tries in the same table.
        index, current = ("map_index", "true") if "map_index" in columns else ("region_index", "working_set")
        query = f"""
            select task_id, {index}, state, try_number, next_method from task_instance
            where dag_id = :dag_id and {current} order by task_id, {index}"""  # noqa: S608  # one of the two above
        return self.rows(query, dag_id=dag_id)

    # Faults.

    def family(self, name: str) -> list[psutil.Process]:
        """The component's process and all below it, a worker's tasks among them."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.processes[name].pid)
            return [process, *process.children(recursive=True)]
        return []

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the whole component; SIGKILL and SIGSTOP reach its children as well."""
        everybody = number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT)
        for process in self.family(name)[: None if everybody else 1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def restart(self, name: str) -> None:
        """Start a component that has ended, or is about to, once more."""
        process = self.processes[name]
        process.wait(PATIENCE)
        (self.home / f"{name}.pid").unlink(missing_ok=True)  # a killed worker leaves it behind
        self.start(name, [str(part) for part in process.args])  # type: ignore[union-attr]  # it is the list given

    def lost(self) -> str | None:
        """What has ended the scheduler, and would again after a restart, since a worker was lost; or None.

        On PostgreSQL, 3.4.0b2 archives a try and begins the next in an order that its own constraint forbids.
        """
        if self.processes["scheduler"].poll() is None:
            return None
        lines = self.log_file("scheduler").read_text(errors="replace").splitlines()
        return next((line.strip() for line in lines if "task_instance_current_key" in line), None)

    def revive(self) -> None:
        """Restart what has ended by itself, as a service manager would, and remember that it did.

        :raises WorkerLost: if that would not help.
        """
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                if name == "scheduler" and (lost := self.lost()):
                    raise WorkerLost(lost)
                self.revived.append(f"{name} ({process.returncode})")
                self.restart(name)

    def waits_in(self, dag_id: str) -> dict[int, int]:
        """How many triggers of the DAG each triggerer (by its job's id) has."""
        query = """
            select trigger.triggerer_id, count(*) from trigger
            join task_instance on task_instance.trigger_id = trigger.id
            where task_instance.dag_id = :dag_id and trigger.triggerer_id is not null group by 1"""
        return {row[0]: row[1] for row in self.rows(query, dag_id=dag_id)}
