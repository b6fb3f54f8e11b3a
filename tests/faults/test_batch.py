"""Hundreds of requests in one Airflow task, whose worker and triggerer are killed in the middle.

`BATCH_REQUESTS=1000 scripts/test --faults -k batch` is the same with a thousand.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_media_tasks.simulator import Simulator

from .cluster import TRIGGERERS, WORKERS, Cluster


DAG_ID, TASK_ID = "films_batch", "films"
REQUESTS = int(os.environ.get("BATCH_REQUESTS", "300"))  # a thousand take nine minutes on two cores
MODERATED = range(7, REQUESTS, REQUESTS // 5)
FAILING_ONCE = range(11, REQUESTS, REQUESTS // 5)
SECONDS = 30.0  # that each film takes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the requests are, and where the files land."""
    path = tmp_path_factory.mktemp("films")
    words = {**dict.fromkeys(MODERATED, "fail=moderation"), **dict.fromkeys(FAILING_ONCE, "fail=provider*1")}
    with (path / "requests.jsonl").open("w") as lines:
        for number in range(REQUESTS):
            word = f" [sim:{words[number]}]" if number in words else ""
            lines.write(json.dumps({"prompt": f"Film number {number}{word}"}) + "\n")
    return path


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    """The provider."""
    with Simulator(seconds=SECONDS) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(
    folder: Path, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """PostgreSQL, Redis, two workers, two triggerers."""
    here = Path(__file__).resolve().parent
    connection = {"conn_type": "kling", "host": f"{simulator.url}/kling", "password": "batch-key"}
    settings = {
        "PYTHONPATH": os.pathsep.join([str(here.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "FILMS_FOLDER": str(folder),
        "AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection),
        "AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS": "127.0.0.1",
    }
    home = tmp_path_factory.mktemp("cluster")
    with Cluster(here / "batch_dags", home, settings) as running:
        yield running


def state(cluster: Cluster) -> str | None:
    """Where the one task stands."""
    found = cluster.instances(DAG_ID)
    return found[0][2] if found else None


def until(cluster: Cluster, met: Callable[[], Any], what: str, seconds: float = 240.0) -> None:
    """Wait for something that is to happen; it cannot where this Airflow does not survive a lost worker."""
    deadline = time.monotonic() + seconds
    while not met():
        if lost := cluster.lost():
            pytest.xfail(lost)
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def kill(cluster: Cluster, *names: str) -> None:
    """SIGKILL for these components and everything below them; then start them again."""
    for name in names:
        cluster.signal(name, signal.SIGKILL)
    for name in names:
        cluster.restart(name)


def test_a_batch_survives_whoever_dies(cluster: Cluster, simulator: Simulator, folder: Path) -> None:
    """Every request is paid once, those that failed once twice, and whatever was made is on disk."""
    run_id = cluster.run(DAG_ID, seconds=120)
    until(cluster, lambda: len(simulator.ledger()) > REQUESTS * 0.4, "submissions began")
    kill(cluster, *WORKERS)
    until(cluster, lambda: state(cluster) == "deferred", "it went on and waits")
    assert len(simulator.ledger()) == REQUESTS
    kill(cluster, *TRIGGERERS)
    until(cluster, lambda: len([*(folder / "batch").rglob("*.mp4")]) > REQUESTS * 0.3, "files land")
    kill(cluster, *WORKERS)
    assert cluster.wait(DAG_ID, run_id, seconds=400) == "success"

    ledger = simulator.ledger()
    assert len(ledger) == REQUESTS + len(FAILING_ONCE)
    made = sorted((folder / "batch").rglob("*.mp4"))
    assert len(made) == REQUESTS - len(MODERATED)
    manifest = cluster.xcom(DAG_ID, run_id, TASK_ID)
    assert (manifest["total"], manifest["succeeded"]) == (REQUESTS, REQUESTS - len(MODERATED))
    assert manifest["errors"] == {"MediaModerationError": len(MODERATED)}
    lines = [
        json.loads(line)
        for line in Path(manifest["results"].removeprefix("file://")).read_text().splitlines()
    ]
    assert [line["number"] for line in lines] == list(range(REQUESTS))
    assert [line["number"] for line in lines if line["error"]] == list(MODERATED)
    files = [line["files"][0] for line in lines if not line["error"]]
    assert sorted(file["path"] for file in files) == [f"file://{path}" for path in made]
    for file in files:
        content = Path(file["path"].removeprefix("file://")).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
    assert len(json.dumps(manifest)) < 4000


def test_a_clear_pays_only_for_what_is_asked(cluster: Cluster, simulator: Simulator, folder: Path) -> None:
    """Run again, it pays nothing; with `retry_moderated` it pays for what moderation had refused."""
    if lost := cluster.lost():
        pytest.xfail(lost)
    before = len(simulator.ledger())
    (run_id,) = cluster.rows("select run_id from dag_run where dag_id = :dag_id", dag_id=DAG_ID)[0]
    for asked in (False, True):
        if asked:
            (folder / "retry-moderated").touch()
        body = {"dry_run": False, "task_ids": [TASK_ID], "dag_run_id": run_id, "only_failed": False}
        cluster.request("POST", f"dags/{DAG_ID}/clearTaskInstances", json=body)
        until(cluster, lambda: state(cluster) != "success", "it was cleared")
        assert cluster.wait(DAG_ID, run_id, seconds=240) == "success"
        assert len(simulator.ledger()) == before + (len(MODERATED) if asked else 0)
