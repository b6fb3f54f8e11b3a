"""A task loop (Airflow 3.4): each iteration pays once, whoever dies, and whatever a clear does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow import sdk

from airflow_media_tasks.simulator import Simulator
from deployment import Deployment


DAG_ID, TASK_ID = "loops", "once.film"


pytestmark = pytest.mark.skipif(not hasattr(sdk, "LoopDecision"), reason="this Airflow has no task loops")


def iterations(airflow: Deployment, run_id: str) -> list[dict[str, Any]]:
    """The task instances of the film, in the order of their iterations."""
    found = [one for one in airflow.task_instances(DAG_ID, run_id) if one["task_id"] == TASK_ID]
    return sorted(found, key=lambda one: int(one["loop_iteration"]["iteration"]))


def results(airflow: Deployment, run_id: str) -> list[dict[str, Any]]:
    """What they have returned."""
    place = f"dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/{TASK_ID}/xcomEntries/return_value"
    regions = [
        {name: one[name] for name in ("region_id", "region_index")} for one in iterations(airflow, run_id)
    ]
    return [airflow.request("GET", place, params=region)["value"] for region in regions]


def paid(simulator: Simulator, run_id: str) -> list[dict[str, Any]]:
    """What was paid for in this run."""
    return [one for one in simulator.ledger() if run_id in json.dumps(one["request"])]


def wait_for(airflow: Deployment, simulator: Simulator, run_id: str, iteration: int, many: int) -> Any:
    """Wait until this iteration is deferred and so many are paid for; its task instance."""
    found: list[dict[str, Any]] = []
    for _ in airflow.ticks(120.0, 0.5):
        found = iterations(airflow, run_id)
        if len(found) > iteration and found[iteration]["state"] == "deferred":
            break
    assert (found[iteration]["state"], len(paid(simulator, run_id))) == ("deferred", many)
    return found[iteration]


@pytest.mark.parametrize("keep", [False, True], ids=["default", "keep_task_state"])
def test_a_loop_pays_once_for_each_iteration(
    airflow: Deployment, simulator: Simulator, output: Path, keep: bool
) -> None:
    """Three iterations, one of them killed, then cleared while it waits: three paid, files and results."""
    run_id = f"loop-{'kept' if keep else 'default'}"
    airflow.run(DAG_ID, run_id=run_id)
    wait_for(airflow, simulator, run_id, 0, 1)
    simulator.advance(1100)
    second = wait_for(airflow, simulator, run_id, 1, 2)
    clear(airflow, run_id, second, keep)
    for _ in airflow.ticks(120.0, 0.5):
        again = iterations(airflow, run_id)[1]
        if (again["id"], again["try_number"]) != (second["id"], second["try_number"]):
            break
    wait_for(airflow, simulator, run_id, 1, 2)
    simulator.advance(1100)
    wait_for(airflow, simulator, run_id, 2, 3)
    simulator.advance(1100)
    assert airflow.wait(DAG_ID, run_id, seconds=120) == "success"

    made = results(airflow, run_id)
    entries = paid(simulator, run_id)
    assert len(entries) == len(made) == 3
    assert [one["id"].rpartition("/")[2] for one in made] == [str(one["id"]) for one in entries]
    assert [one["made_by"]["loop"] for one in made] == [0, 1, 2]
    paths = {one["path"] for one in made}
    assert len(paths) == 3
    assert all(path.startswith(f"file://{output}/loops/") for path in paths)
    assert all(Path(path.removeprefix("file://")).stat().st_size for path in paths)

    # Cleared as a whole when it has ended, all are made anew, and no more than that.
    clear(airflow, run_id, iterations(airflow, run_id)[0], keep)
    for number in range(3):
        wait_for(airflow, simulator, run_id, number, 4 + number)
        simulator.advance(1100)
    assert airflow.wait(DAG_ID, run_id, seconds=120) == "success"
    assert len(paid(simulator, run_id)) == 6
    assert not {one["id"] for one in results(airflow, run_id)} & {one["id"] for one in made}


def clear(airflow: Deployment, run_id: str, instance: dict[str, Any], keep: bool) -> None:
    """Clears this task instance and what follows it, as the UI does."""
    body: dict[str, Any] = {
        "dry_run": False,
        "dag_run_id": run_id,
        "only_failed": False,
        "task_instance_ids": [instance["id"]],
        "include_downstream": True,
        "keep_task_state": keep,
    }
    airflow.request("POST", f"dags/{DAG_ID}/clearTaskInstances", json=body)
