from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_media_tasks.simulator import Simulator

from .conftest import Client


def test_the_vendors_command_line_runs_workflows_on_the_simulator(
    simulator: Simulator, client: Client, tmp_path: Path
) -> None:
    """ComfyUI's own command line submits, waits, cancels, lists and downloads there."""
    seen: dict[str, Any] = client("comfyui", SIMULATOR_URL=f"{simulator.url}/comfyui", HOME=str(tmp_path))
    assert seen["version"].startswith("1.")
    assert (seen["queued"]["ok"], seen["queued"]["data"]["status"]) == (True, "queued")
    id_ = seen["queued"]["data"]["prompt_id"]
    assert seen["waited"]["ok"]
    assert seen["status"]["data"]["status"] == "completed"
    assert seen["fetched"]["ok"]
    assert bytes.fromhex(seen["magic"]) == b"\x89PNG"
    assert seen["cancelled"]["data"]["found"]
    assert seen["stopped"]["data"]["status"] == "cancelled"
    assert not seen["broken"]["ok"]
    assert id_ in [job["prompt_id"] for job in seen["listed"]["data"]["jobs"]]
    assert (seen["refused"]["ok"], seen["refused"]["error"]["code"]) == (False, "prompt_rejected")
    assert next(entry["id"] for entry in simulator.ledger("comfyui")) == id_
