"""Task loops, on a real Airflow that has them (3.4): each iteration is a generation of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import task_group

from airflow_media_tasks.simulator import Simulator
from deployment import Deployment


ITERATIONS = 3

pytestmark = pytest.mark.skipif(
    not hasattr(task_group(lambda: None), "loop"), reason="this Airflow has no task loops"
)


def in_order(airflow: Deployment, run_id: str) -> list[dict[str, Any]]:
    """Return the iterations' task instances in the order of the iterations."""
    found = [one for one in airflow.task_instances("loops", run_id) if one["task_id"] == "attempt.video"]
    return sorted(found, key=lambda one: one["loop_iteration"]["iteration"])


def results(airflow: Deployment, run_id: str) -> Iterator[dict[str, Any]]:
    """Yield what the iterations have returned."""
    path = f"dags/loops/dagRuns/{run_id}/taskInstances/attempt.video/xcomEntries/return_value"
    for instance in in_order(airflow, run_id):
        place = {name: instance[name] for name in ("region_id", "region_index")}
        yield airflow.request("GET", path, params=place)["value"]


@pytest.mark.parametrize("keep", [False, True], ids=["default", "keep_task_state"])
def test_three_iterations(
    airflow: Deployment,
    simulator: Simulator,
    wait_until_deferred: Callable[[int], None],
    keep: bool,
) -> None:
    """Three are paid for, also where one is cleared while it waits, and each has its result and its file."""
    simulator.reset()
    run_id = airflow.run("loops")
    for number in range(ITERATIONS):
        for _ in airflow.ticks(120.0, 0.5):
            if len(simulator.ledger()) > number:
                break
        wait_until_deferred(1)
        if number == 1:
            body = {"dry_run": False, "dag_run_id": run_id, "only_failed": False, "keep_task_state": keep}
            waiting = in_order(airflow, run_id)[number]
            body["task_instance_ids"] = [waiting["id"]]
            airflow.request("POST", "dags/loops/clearTaskInstances", json=body)
            wait_until_deferred(1)
        simulator.advance(1000)
    assert airflow.wait("loops", run_id, seconds=180) == "success"

    ledger = simulator.ledger()
    assert len(ledger) == len({entry["client_ref"] for entry in ledger}) == ITERATIONS
    made = list(results(airflow, run_id))
    assert [one["id"] for one in made] == [f"videos/text2video/{entry['id']}" for entry in ledger]
    paths = [Path(one["path"].removeprefix("file://")) for one in made]
    assert len(set(paths)) == ITERATIONS
    assert all(path.stat().st_size > 0 for path in paths)
