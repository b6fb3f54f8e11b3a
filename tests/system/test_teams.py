"""Two teams in one Airflow (`[core] multi_team`): what the gallery shows to whom."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployment import Deployment, token_of


TEAMS = ("red", "blue")
DAG = """
from airflow.sdk import DAG
from airflow_media_tasks.operators import GenerateVideoOperator

with DAG("films_of_{team}", schedule=None):
    GenerateVideoOperator(task_id="film", media_conn_id="vap_default", prompt="A fox", save_to="{media}/")
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """With a user, a DAG and a landed film of each team; all films are in one root."""
    home = tmp_path_factory.mktemp("teams")
    bundles = []
    for team in TEAMS:
        (home / team).mkdir()
        (home / team / "films.py").write_text(DAG.format(team=team, media=f"file://{home}/media"))
        bundle = {"classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "team_name": team}
        bundles.append({**bundle, "name": team, "kwargs": {"path": str(home / team)}})
    settings = {
        "AIRFLOW__CORE__MULTI_TEAM": "True",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,red:user:red,blue:user:blue",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "AIRFLOW__MEDIA_TASKS__GALLERY_ROOTS": f"file://{home}/media",
    }
    running = Deployment(home, home=home / "airflow", settings=settings)
    for command in (["db", "migrate"], *(["teams", "create", team] for team in TEAMS)):
        subprocess.run(running.airflow(*command), env=running.environment, check=True, capture_output=True)
    with running:
        for team in TEAMS:
            land(running, team, home / "media" / f"{team}.mp4")
        yield running


def land(airflow: Deployment, team: str, path: Path) -> None:
    """Leaves what a task of the team leaves that has landed a film."""
    path.parent.mkdir(exist_ok=True)
    content = team.encode() * 1000
    path.write_bytes(content)
    for _ in airflow.ticks(60, 0.5):
        if airflow.request("GET", "dags", params={"dag_id_pattern": f"films_of_{team}", "paused": True})[
            "dags"
        ]:
            break
    body = {"logical_date": None, "dag_run_id": "one"}
    airflow.request("POST", f"dags/films_of_{team}/dagRuns", json=body)
    task = f"dags/films_of_{team}/dagRuns/one/taskInstances/film"
    airflow.request("PATCH", task, json={"new_state": "success"})
    file = {
        "kind": "video",
        "path": f"file://{path}",
        "content_type": "video/mp4",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    value = {"media_conn_id": "vap_default", "provider": "vap", "files": [file]}
    airflow.request("POST", f"{task}/xcomEntries", json={"key": "return_value", "value": value})


def client_of(airflow: Deployment, user: str) -> httpx.Client:
    """Asks the gallery as this user."""
    passwords = Path(airflow.environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).read_text()
    headers = {"Authorization": f"Bearer {token_of(airflow.url, user, json.loads(passwords)[user])}"}
    return httpx.Client(base_url=f"{airflow.url}/media-tasks", headers=headers, trust_env=False, timeout=30)


def dags_in(reply: httpx.Response) -> set[Any]:
    """Those whose items a page shows."""
    return {item["dag_id"] for item in reply.raise_for_status().json()["items"]}


@pytest.mark.parametrize(("own", "other"), [TEAMS, TEAMS[::-1]])
def test_a_user_gets_nothing_of_another_team(airflow: Deployment, own: str, other: str) -> None:
    """No file, no item, no total, neither in a list nor by name, also after the other team has looked."""
    place = {"run_id": "one", "task_id": "film", "n": 0}
    theirs, ours = ({**place, "dag_id": f"films_of_{team}"} for team in (other, own))
    with client_of(airflow, other) as owner:
        assert dags_in(owner.get("api/items")) == {f"films_of_{other}"}
        assert owner.get("file", params=theirs).content == other.encode() * 1000
    with client_of(airflow, own) as user:
        assert dags_in(user.get("api/items")) == {f"films_of_{own}"}
        assert user.get("api/totals").json()["made"] == 1
        assert user.get("file", params=ours).content == own.encode() * 1000
        for route in ("api/item", "file", "api/items", "api/totals"):
            reply = user.get(route, params=theirs)
            assert reply.status_code == 403
            assert other not in reply.text
    with client_of(airflow, "admin") as admin:
        assert dags_in(admin.get("api/items")) == {f"films_of_{team}" for team in TEAMS}
        assert admin.get("api/totals").json()["made"] == len(TEAMS)
