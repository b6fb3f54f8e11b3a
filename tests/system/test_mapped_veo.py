"""Two hundred mapped tasks of one account, waiting at the same time in a real triggerer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import psutil

from airflow_media_tasks.simulator import Simulator
from deployment import Deployment


DAG_ID = "example_veo_batch"
TASKS = 200
BATCH = 50  # tasks that AceData tells of in one answer
POLL_INTERVAL = 10.0  # seconds, the operator's default


def status_requests(simulator: Simulator) -> int:
    """Return how many status requests for Veo tasks there have been so far."""
    return simulator.requests().get("POST /acedata/veo/tasks", 0)


def sockets(airflow: Deployment, simulator: Simulator) -> int:
    """Return how many connections the triggerer holds to the simulator."""
    triggerer = psutil.Process(airflow.processes["triggerer"].pid)
    port = int(simulator.url.rpartition(":")[2])
    return sum(
        bool(connection.raddr) and connection.raddr.port == port
        for process in [triggerer, *triggerer.children(recursive=True)]
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED
    )


def test_two_hundred_mapped_tasks(
    airflow: Deployment, simulator: Simulator, wait_until_deferred: Callable[[int], None]
) -> None:
    """They hold no slot, share one client and one status request per 50 of them, and all succeed."""
    simulator.reset()
    prompts = [f"Number {number}" for number in range(TASKS)]
    run_id = airflow.run(DAG_ID, {"prompts": prompts})
    wait_until_deferred(TASKS)

    before, began = status_requests(simulator), time.monotonic()
    most_sockets = 0
    for _ in airflow.ticks(1.5 * POLL_INTERVAL, 0.5):
        most_sockets = max(most_sockets, sockets(airflow, simulator))
    intervals = (time.monotonic() - began) / POLL_INTERVAL
    asked = status_requests(simulator) - before
    # The interval is varied by a tenth, so that accounts do not keep step.
    assert 0 < asked <= math.ceil(intervals / 0.9 * TASKS / BATCH)
    assert most_sockets == 1

    simulator.advance(1000)
    assert airflow.wait(DAG_ID, run_id, seconds=400, pause=3.0) == "success"
    ledger = simulator.ledger()
    assert sorted(entry["request"]["prompt"] for entry in ledger) == sorted(prompts)
    ids = {f"veo/{entry['id']}": entry for entry in ledger}
    videos = [i for i in airflow.task_instances(DAG_ID, run_id) if i["task_id"] == "video"]
    assert [video["state"] for video in videos] == ["success"] * TASKS
    assert len(set(airflow.xcom(DAG_ID, run_id, "list_videos"))) == TASKS
    for index in range(0, TASKS, 40):
        result = airflow.xcom(DAG_ID, run_id, "video", map_index=index)
        assert ids[result["id"]]["request"]["prompt"] == prompts[index]
        log = airflow.log(DAG_ID, run_id, "video", map_index=index)
        assert result["id"] in log
        # Only the beginning of the trigger's part: under load, Airflow closes its file before the end.
        assert f"/video/{index}/1 (ID " in log
        assert "finished with 1 files" in log  # the worker's
        assert len(log.splitlines()) < 60
