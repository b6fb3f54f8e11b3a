"""A real Airflow with several users, Flask AppBuilder's permissions, and something in its gallery."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from airflow_media_tasks.simulator import Simulator
from deployment import Deployment, token_of


DAGS = Path(__file__).with_name("dags")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
READER, EDITOR = "reader", "editor"
PASSWORD = "a-password-for-tests"
PRICES = {"acedata": {"veo/text_to_video": {"amount": "0.40", "unit": "USD"}}}
"""Where a provider does not say what it takes, by connection."""
READS = ("DAG:shown", "DAG Runs", "Task Instances", "XComs", "Website", "Plugins", "View Menus")
USERS = f"""
import sys
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
with get_application_builder() as builder:
    manager = builder.sm
    def role(name, *allowed):
        made = manager.add_role(name)
        for action, resource in allowed:
            manager.add_permission_to_role(made, manager.create_permission(action, resource))
        return made
    reads = [("can_read", resource) for resource in {READS!r}]
    may = {{
        "admin": manager.find_role("Admin"),
        {READER!r}: role("Reader", *reads),
        {EDITOR!r}: role("Editor", *reads, ("can_edit", "DAG:shown"), ("can_edit", "DAG Runs"),
                         ("can_edit", "Task Instances")),
    }}
    for name, its in may.items():
        password = sys.argv[1] if name == "admin" else {PASSWORD!r}
        assert manager.add_user(name, name, name, name + "@example.com", its, password)
"""


@dataclass(frozen=True)
class Stage:
    """A running Airflow whose DAGs have made what they could."""

    airflow: Deployment
    simulator: Simulator
    run_id: str
    hidden_run_id: str
    mixed_run_id: str
    output: Path

    @property
    def gallery(self) -> str:
        """The page's address."""
        return f"{self.airflow.url}/media-tasks"

    def token(self, user: str) -> str:
        """What Airflow's login gives a user."""
        password = self.airflow.passwords["admin"] if user == "admin" else PASSWORD
        return token_of(self.airflow.url, user, password)

    def client(self, user: str | None) -> httpx.Client:
        """A client of the page's routes, as this user or as nobody."""
        headers = {"Authorization": f"Bearer {self.token(user)}"} if user else {}
        return httpx.Client(base_url=self.gallery, headers=headers, trust_env=False, timeout=30)

    def place(self, task_id: str, map_index: int = -1, dag_id: str = "shown") -> dict[str, Any]:
        """What names a task instance of the run, in a query."""
        runs = {"shown": self.run_id, "hidden": self.hidden_run_id, "mixed": self.mixed_run_id}
        run_id = runs[dag_id]
        return {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}

    def state(self, task_id: str) -> str:
        """Airflow's state of an unmapped task."""
        path = f"dags/shown/dagRuns/{self.run_id}/taskInstances/{task_id}"
        return str(self.airflow.request("GET", path)["state"])

    def wait_for(self, task_id: str, states: set[str], seconds: float = 90) -> None:
        """Wait until a task is in one of these states."""
        for _ in self.airflow.ticks(seconds, 0.5):
            state = self.state(task_id)
            if state in states:
                return
            assert state != "failed", self.airflow.log("shown", self.run_id, task_id)[-3000:]
        raise AssertionError(f"{task_id} is {self.state(task_id)}")

    def wait_for_last_request(self, task_id: str, seconds: float = 180) -> None:
        """Wait until all but one of a batch's requests have ended, and it waits for that one."""
        path = f"dags/shown/dagRuns/{self.run_id}/taskInstances/{task_id}/state-store/media_task.batch"
        for _ in self.airflow.ticks(seconds, 1):
            # Airflow may fail a try that has just been resumed; the next one comes as far.
            if self.state(task_id) == "deferred":
                stands = self.airflow.request("GET", path)["value"]
                if stands["waiting"] == 1 and stands["succeeded"] == stands["total"] - 1:
                    return
        raise AssertionError(f"{task_id} is {self.state(task_id)}")


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """An Airflow in which everything is as `dags/` says, once for all tests of this folder."""
    folder = tmp_path_factory.mktemp("browser")
    output = folder / "media"
    with Simulator(seconds=1.0) as simulator:
        connections = {
            f"AIRFLOW_CONN_{name.upper()}_DEFAULT": json.dumps(
                {
                    "conn_type": name,
                    "host": f"{simulator.url}/{name}",
                    "password": "a-key",
                    "extra": {"prices": PRICES.get(name, {})},
                }
            )
            for name in ("vap", "kling", "acedata")
        }
        settings = {
            "AIRFLOW__CORE__AUTH_MANAGER": FAB,
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "MEDIA_OUTPUT": f"file://{output}",
            "AIRFLOW__MEDIA_TASKS__GALLERY_ROOTS": f"file://{output}",
            **connections,
        }
        airflow = Deployment(DAGS, home=folder / "airflow", settings=settings)
        python = airflow.airflow()[0]
        for command in (airflow.airflow("db", "migrate"), [python, "-c", USERS, airflow.passwords["admin"]]):
            done = subprocess.run(
                command, env=airflow.environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr[-3000:]
        with airflow:
            hidden = airflow.run("hidden")
            run = airflow.run("shown")
            mixed = airflow.run("mixed")
            there = Stage(airflow, simulator, run, hidden, mixed, output)
            airflow.wait("hidden", hidden, seconds=180)
            airflow.wait("mixed", mixed, seconds=180)
            for task_id in ("hostile", "land", "sound", "batch"):
                there.wait_for(task_id, {"success"}, 180)
            for task_id in ("refused", "unknown", "lost"):
                there.wait_for(task_id, {"failed"}, 180)
            there.wait_for("slow", {"deferred"}, 180)
            there.wait_for_last_request("climbing")
            yield there


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=QUIET)
        yield chromium
        chromium.close()


def note_troubles(page: Page, hosts: tuple[str, ...], troubles: list[str]) -> None:
    """From now on, note each error on the console and each request to a host that is none of *hosts*."""
    own = (*hosts, "data:", "blob:")
    page.on("console", lambda said: said.type == "error" and troubles.append(said.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith(own) or troubles.append(f"asked {asked.url}"))


@pytest.fixture
def open_page(browser: Browser, stage: Stage) -> Iterator[Callable[..., Page]]:
    """Opens a page as a user; afterwards there was no error on its console and no request to another host."""
    troubles: list[str] = []
    contexts = []

    def start(user: str = "admin", *, path: str = "/media-tasks/", **options: Any) -> Page:
        options = {"viewport": {"width": 1360, "height": 900}, **options}
        context = browser.new_context(**options)
        contexts.append(context)
        context.add_cookies([{"name": "_token", "value": stage.token(user), "url": stage.airflow.url}])
        page = context.new_page()
        note_troubles(page, (stage.airflow.url, stage.simulator.url), troubles)
        page.goto(stage.airflow.url + path)
        return page

    yield start
    for context in contexts:
        context.close()
    assert not troubles
