"""An Airflow pool keeps an account within its provider's limit."""

from __future__ import annotations

from collections import Counter

from airflow_media_tasks.simulator import Simulator
from deployment import Deployment


DAG_ID = "example_account_slots"
SLOTS = 5
VIDEOS, STICKERS = 30, 10


def test_never_a_sixth_in_flight(airflow: Deployment, simulator: Simulator) -> None:
    """Forty tasks share five slots, weighted: the provider, which refuses a sixth, refuses none."""
    simulator.reset()
    simulator.fault("slots", provider="kling", limit=SLOTS)
    run_id = airflow.run(DAG_ID)
    most = 0
    state = "running"
    for _ in airflow.ticks(400.0, 1.0):
        # Not the sum of running, queued and deferred slots: Airflow counts each of them at another moment.
        most = max(most, airflow.slots("kling")["occupied_slots"])
        state = airflow.request("GET", f"dags/{DAG_ID}/dagRuns/{run_id}")["state"]
        if state in ("success", "failed"):
            break
    assert state == "success"
    assert most == SLOTS

    instances = airflow.task_instances(DAG_ID, run_id)
    assert [instance["state"] for instance in instances] == ["success"] * (VIDEOS + STICKERS)
    ledger = Counter(entry["operation"] for entry in simulator.ledger())
    assert ledger == {"text_to_video": VIDEOS, "text_to_image": STICKERS}
    # Every submission was accepted: none came when there was no room. Only a try that Airflow lost between
    # two states (apache/airflow#71580, seen under load) leaves its slot while its task goes on.
    requests = simulator.requests()
    submissions = {path: count for path, count in requests.items() if path.startswith("POST /kling/")}
    lost = sum(instance["try_number"] - 1 for instance in instances)
    assert VIDEOS + STICKERS <= sum(submissions.values()) <= VIDEOS + STICKERS + 8 * lost, submissions
