from __future__ import annotations

from typing import Any

from airflow_media_tasks.simulator import Simulator

from .conftest import Client


def test_the_vendors_client_runs_models_on_the_simulator(simulator: Simulator, client: Client) -> None:
    """Replicate's own client runs, polls, lists and cancels there, as it does at Replicate."""
    seen: dict[str, Any] = client(
        "replicate",
        REPLICATE_API_TOKEN="r8_anything",
        REPLICATE_BASE_URL=f"{simulator.url}/replicate",
        REPLICATE_POLL_INTERVAL="0.05",
    )
    media = f"{simulator.url}/media/"
    assert seen["version"].startswith("1.")
    assert len(seen["by_model"]) == 2
    assert all(url.startswith(media) for url in [*seen["by_model"], seen["by_version"], seen["patient"]])
    assert bytes.fromhex(seen["magic"]) == b"\x89PNG"
    at_first, status, output, metrics = seen["polled"]
    assert (at_first, status) == ("starting", "succeeded")
    assert output[0].startswith(media)
    assert metrics["predict_time"] > 0
    assert seen["cancelled"] == "canceled"
    assert "NSFW" in seen["failed"]
    ledger = [entry["id"] for entry in simulator.ledger("replicate")]
    assert [len(page) for page in seen["pages"]] == [100, len(ledger) - 100]
    assert [one for page in seen["pages"] for one in page] == ledger[::-1]
    assert [entry["operation"] for entry in simulator.ledger()][:3] == [
        "text_to_image",
        "run",
        "text_to_video",
    ]
    assert seen["account"] == "user"
    assert seen["invalid"]["status"] == 422
    assert "prompt is required" in seen["invalid"]["detail"]
    assert seen["bad_key"]["status"] == 401
    assert "resets in ~1s" in seen["throttled"]["detail"]
