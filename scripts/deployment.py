"""A real Airflow on loopback, for as long as it is needed: for the demo, the system tests and benchmarks.

Run as a program, this module is the guard of such a deployment (see `Deployment`).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import httpx
import psutil
from typing_extensions import Self


MARK = "AIRFLOW_DEPLOYMENT_MARK"
ROLES = ("admin", "viewer")
FINISHED_RUN = frozenset({"success", "failed"})
STOP_SECONDS = 15.0
# How long a component waits for SQLite's lock. Two requests of the API server can wait for each other until
# one gives up after SQLite's own 5 s; a scheduler that waits no longer ends with "database is locked".
PATIENCE = "?timeout=60"

Json = dict[str, Any]


class DeploymentError(Exception):
    """Airflow did not do what was asked of it in time; the message says what, with the end of the log."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return cast("int", probe.getsockname()[1])


def token_of(url: str, user: str, password: str) -> str:
    """Return what the login of the Airflow at this address gives a user: the token that requests carry."""
    login = {"username": user, "password": password}
    reply = httpx.post(f"{url}/auth/token", json=login, trust_env=False, timeout=30.0)
    return str(reply.raise_for_status().json()["access_token"])


def tail(path: Path, lines: int = 30) -> str:
    """Return the last lines of a text file, or nothing if there is no such file."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def marked(mark: str) -> list[psutil.Process]:
    """Return the living processes that were started with this mark in their environment, by whomever."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


def end(mark: str, roots: Sequence[int] = (), *, seconds: float = STOP_SECONDS) -> None:
    """End every process that carries the mark: SIGTERM, then SIGKILL for what is there after *seconds*.

    Airflow's components end their own children when asked politely, so only they are asked.

    :param mark: the mark's value.
    :param roots: process ids of the components; without any, every marked process whose parent is not marked.
    :param seconds: for the polite end.
    """
    family = marked(mark)
    members = {process.pid for process in family}
    for process in family:
        try:
            if process.pid in roots or (not roots and process.ppid() not in members):
                process.terminate()
                process.resume()  # a paused process reads no signal
        except psutil.NoSuchProcess:
            continue
    deadline = time.monotonic() + seconds
    while (left := marked(mark)) and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.2)
    for process in marked(mark):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


class Deployment:
    """A context manager around a real Airflow: SQLite, LocalExecutor, one process for each component.

    Every component is a process group of its own and a member of `processes` by name (`api-server`,
    `scheduler`, `dag-processor`, `triggerer`), with its output in `home/<name>.log`; `start` adds others.
    All of them, and whatever they start, carry one mark in their environment, by which they are found and
    ended on leaving the context. If this process dies without leaving it, a guard process does that.
    Its users are `admin` and `viewer`, with the roles of that name and `passwords` of their own.

    :param dags: the folder of DAG files.
    :param home: `AIRFLOW_HOME`, kept afterwards; by default a temporary folder, removed afterwards.
    :param settings: environment variables for all components, in addition to ours or in their place
        (`AIRFLOW__SECTION__KEY`, `AIRFLOW_CONN_...`). Of the surrounding environment everything is kept but
        Airflow's own settings (`AIRFLOW__...`).
    :param start_seconds: how long it may take until all components are healthy.
    :raises DeploymentError: on entering, if the database cannot be made, or a component ends or is not
        healthy in time.
    """

    def __init__(
        self,
        dags: Path,
        *,
        home: Path | None = None,
        settings: Mapping[str, str] | None = None,
        start_seconds: float = 180.0,
    ) -> None:
        self._temporary = home is None
        self.home = Path(tempfile.mkdtemp(prefix="airflow-home-")) if home is None else home.resolve()
        self.home.mkdir(parents=True, exist_ok=True)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.url = f"http://127.0.0.1:{free_port()}"
        self.passwords = {user: secrets.token_urlsafe(12) for user in ROLES}
        self._start_seconds = start_seconds
        self._mark = secrets.token_hex(16)
        self._guard: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(base_url=self.url, timeout=30.0, trust_env=False)
        self.environment = self._environment(dags) | dict(settings or {})

    def _environment(self, dags: Path) -> dict[str, str]:
        """Return the environment of all components, without the caller's settings."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AIRFLOW__") and name != "PYTHONDONTWRITEBYTECODE"
        }
        passwords = self.home / "passwords.json"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps(self.passwords))
        return kept | {
            MARK: self._mark,
            "SPT_NOENV": "1",  # Airflow sets process titles; without this that would overwrite the mark
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": "1000",
            "AIRFLOW__API__PORT": self.url.rpartition(":")[2],
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags.resolve()),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{role}:{role}" for role in ROLES),
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}{PATIENCE}",
            "AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS": "127.0.0.1",  # the simulator's files
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        }

    def __enter__(self) -> Self:
        try:
            self._guard = subprocess.Popen(
                [sys.executable, __file__, self._mark, *([str(self.home)] if self._temporary else [])],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            self._migrate()
            self.start("api-server", self.airflow("api-server"), patience="")
            self.start("scheduler", self.airflow("scheduler", "--skip-serve-logs"))
            self.start("dag-processor", self.airflow("dag-processor"))
            self.start("triggerer", self.airflow("triggerer", "--skip-serve-logs"))
            self._wait_until_healthy()
            self._log_in()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @staticmethod
    def airflow(*arguments: str) -> list[str]:
        """Return the command line of an Airflow command."""
        return [sys.executable, "-m", "airflow", *arguments]

    def start(
        self, name: str, command: Sequence[str], *, patience: str = PATIENCE
    ) -> subprocess.Popen[bytes]:
        """Start one more process as part of this deployment, in its environment, and return it.

        :param name: its key in `processes` and the name of its log.
        :param command: its command line; `airflow("triggerer", "--skip-serve-logs")` is a second triggerer.
        :param patience: what stands for `PATIENCE` in its database's address.
        """
        environment = {name: value.replace(PATIENCE, patience) for name, value in self.environment.items()}
        with self.log_file(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                env=environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.processes[name]

    def log_file(self, name: str) -> Path:
        """Return where the output of the process of this name goes."""
        return self.home / f"{name}.log"

    def stop(self) -> None:
        """End all processes and remove the temporary home. Does nothing the second time."""
        self._client.close()  # the API server waits for its clients
        end(self._mark, [process.pid for process in self.processes.values()])
        for process in self.processes.values():
            process.wait(STOP_SECONDS)
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait(STOP_SECONDS)
        if self._temporary:
            shutil.rmtree(self.home, ignore_errors=True)

    def _migrate(self) -> None:
        """Make or upgrade the metadata database."""
        migrate = self.start("migrate", self.airflow("db", "migrate"))
        try:
            code = migrate.wait(self._start_seconds)
        except subprocess.TimeoutExpired:
            code = None
        if code != 0:
            raise DeploymentError(f"airflow db migrate ended with {code}:\n{tail(self.log_file('migrate'))}")
        del self.processes["migrate"]

    def _wait_until_healthy(self) -> None:
        """Wait until all four components have reported that they are alive."""
        unhealthy: object = "the API server does not answer yet"
        for _ in self.ticks(self._start_seconds, 0.3):
            self._check_alive()
            try:
                health = self._client.get("/api/v2/monitor/health", timeout=5.0).json()
            except (httpx.HTTPError, ValueError):
                continue
            unhealthy = {name: part["status"] for name, part in health.items() if part["status"] != "healthy"}
            if not unhealthy:
                return
        logs = "\n".join(f"--- {name}\n{tail(self.log_file(name))}" for name in self.processes)
        raise DeploymentError(
            f"Airflow is not healthy after {self._start_seconds:.0f} s: {unhealthy}\n{logs}"
        )

    def _check_alive(self) -> None:
        """Raise an error if a component has ended by itself."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise DeploymentError(f"{name} ended with {process.returncode}:\n{tail(self.log_file(name))}")

    def _log_in(self) -> None:
        """Exchange name and password for the token that all further requests carry."""
        token = token_of(self.url, "admin", self.passwords["admin"])
        self._client.headers["Authorization"] = f"Bearer {token}"

    @staticmethod
    def ticks(seconds: float, pause: float) -> Iterator[float]:
        """Yield the seconds gone so far, again after each *pause*, until *seconds* are over."""
        start = time.monotonic()
        while (gone := time.monotonic() - start) < seconds:
            yield gone
            time.sleep(pause)

    def request(self, method: str, path: str, **options: Any) -> Json:
        """Call Airflow's REST API and return the decoded answer.

        :param method: the HTTP method.
        :param path: what follows `/api/v2/`.
        :param options: of `httpx.Client.request`, for example `params` or `json`.
        :raises DeploymentError: if Airflow refuses, with its reason.
        """
        for _ in range(5):
            reply = self._client.request(method, f"/api/v2/{path}", **options)
            # On SQLite, the audit log's entry waits in the API server's event loop for a lock that another
            # request holds, which waits for that loop. It is given up before anything that was asked is done.
            if reply.status_code != 500 or "Database error" not in reply.text:
                break
        if reply.is_error:
            raise DeploymentError(f"{method} {path}: {reply.status_code} {reply.text[:1000]}")
        return cast("Json", reply.json()) if reply.content else {}

    def run(
        self,
        dag_id: str,
        conf: Mapping[str, object] | None = None,
        *,
        run_id: str | None = None,
        seconds: float = 60.0,
    ) -> str:
        """Unpause a DAG as soon as Airflow has read it, trigger one run and return its run id.

        :param dag_id: the DAG.
        :param conf: its params for this run.
        :param run_id: by default, Airflow makes one.
        :param seconds: how long to wait for the DAG to be read.
        :raises DeploymentError: if there is no such DAG by then, with the import errors.
        """
        for _ in self.ticks(seconds, 0.5):
            known = self._client.get(f"/api/v2/dags/{dag_id}")
            if known.is_success and not known.json()["is_stale"]:
                break
        else:
            errors = self.request("GET", "importErrors")["import_errors"]
            reasons = "\n".join(f"{error['filename']}\n{error['stack_trace']}" for error in errors)
            raise DeploymentError(
                f"No DAG {dag_id} after {seconds:.0f} s. Import errors:\n{reasons or 'none'}"
            )
        self.request("PATCH", f"dags/{dag_id}", json={"is_paused": False})
        body = {"logical_date": None, "conf": dict(conf or {}), "dag_run_id": run_id}
        return cast("str", self.request("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def wait(
        self,
        dag_id: str,
        run_id: str,
        *,
        seconds: float,
        progress: Callable[[float, list[Json]], None] | None = None,
        pause: float = 1.0,
    ) -> str:
        """Wait for the end of a run and return its state, `success` or `failed`.

        :param dag_id: the DAG.
        :param run_id: the run.
        :param seconds: how long to wait.
        :param progress: called after each *pause* with the seconds gone and the run's task instances.
        :param pause: seconds between two looks.
        :raises DeploymentError: if the run has not ended by then, or a component has.
        """
        state = "not looked at"
        for gone in self.ticks(seconds, pause):
            self._check_alive()
            state = cast("str", self.request("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"])
            if progress is not None:
                progress(gone, self.task_instances(dag_id, run_id))
            if state in FINISHED_RUN:
                return state
        states = {
            f"{ti['task_id']}[{ti['map_index']}]": ti["state"] for ti in self.task_instances(dag_id, run_id)
        }
        raise DeploymentError(f"{dag_id} is {state} after {seconds:.0f} s: {states}")

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        """Return all task instances of a run as the REST API shows them, in the order of their map index."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        found: list[Json] = []
        while True:
            page = self.request(
                "GET", path, params={"limit": 1000, "offset": len(found), "order_by": "map_index"}
            )
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def xcom(
        self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, key: str = "return_value"
    ) -> Any:
        """Return one XCom value of a task instance, or None if it has left none of this name."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries"
        params: dict[str, str | int] = {"map_index": map_index, "xcom_key": key}
        if not self.request("GET", path, params=params)["xcom_entries"]:
            return None
        return self.request("GET", f"{path}/{key}", params={"map_index": map_index})["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> str:
        """Return what a task instance has logged in all its tries, one line for each event."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        tries = self.request("GET", f"{path}/{map_index}/tries" if map_index >= 0 else f"{path}/tries")
        lines: list[str] = []
        for number in sorted(attempt["try_number"] for attempt in tries["task_instances"]):
            params: dict[str, str | int] = {"map_index": map_index, "full_content": True}
            for event in self.request("GET", f"{path}/logs/{number}", params=params)["content"]:
                words = [event.get("timestamp"), event.get("level"), event["event"]]
                words += [
                    f"{cause['exc_type']}: {cause['exc_value']}" for cause in event.get("error_detail") or ()
                ]
                lines.append(" ".join(word for word in words if word))
        return "\n".join(lines)

    def slots(self, pool: str = "default_pool") -> Json:
        """Return a pool's `slots`, and how many are `running_slots`, `queued_slots`, `deferred_slots`.

        :raises DeploymentError: if a component has ended by itself, with the end of its log.
        """
        self._check_alive()
        return self.request("GET", f"pools/{pool}")

    def create_connection(self, connection_id: str, conn_type: str, **fields: object) -> None:
        """Store a connection: `host`, `login`, `password`, `extra` (a JSON text)."""
        body = {"connection_id": connection_id, "conn_type": conn_type, **fields}
        self.request("POST", "connections", json=body)


def main(mark: str, home: str | None = None) -> None:
    """Guard a deployment: when the process that made it is gone, end what has the mark, remove its home."""
    sys.stdin.buffer.read()  # returns when the other end of the pipe is closed, however its process ended
    end(mark)
    if home is not None:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
