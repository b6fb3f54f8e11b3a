from __future__ import annotations

from typing import Any

from airflow_media_tasks.simulator import Simulator

from .conftest import Client


def test_the_vendors_client_queues_requests_on_the_simulator(simulator: Simulator, client: Client) -> None:
    """The vendor's own client submits, polls, fetches and cancels there, as it does at fal."""
    seen: dict[str, Any] = client("fal", FAL_KEY="id:secret", FAL_QUEUE_URL=f"{simulator.url}/fal/")
    media = f"{simulator.url}/media/"
    assert seen["version"].startswith("1.")
    assert (seen["events"][0], seen["events"][-1]) == ("Queued", "Completed")
    assert "InProgress" in seen["events"]
    assert [image["url"].startswith(media) for image in seen["result"]["images"]] == [True, True]
    assert bytes.fromhex(seen["magic"]) == b"\x89PNG"
    assert seen["film"]["video"]["url"].endswith(".mp4")
    assert seen["updates"][-1] == "Completed"
    assert seen["in_a_loop"]["images"]
    assert seen["by_id"] == "Queued"
    assert seen["stopped"] == ["Completed", "Request was cancelled by the client", "client_cancelled"]
    assert (seen["cancelled"]["status"], seen["cancelled_twice"]["status"]) == (499, 400)
    (missing,) = seen["missing"]["detail"]
    assert (seen["missing"]["status"], missing["loc"], missing["type"]) == (
        422,
        ["body", "prompt"],
        "missing",
    )
    assert seen["flagged"]["detail"][0]["type"] == "content_policy_violation"
    assert (seen["dropped"]["status"], seen["dropped"]["type"]) == (503, "runner_disconnected")
    assert seen["bad_key"]["status"] == 401
    assert seen["no_money"]["detail"].startswith("User is locked")
    ledger = simulator.ledger("fal")
    assert [entry["operation"] for entry in ledger[:3]] == ["text_to_image", "image_to_video", "run"]
    assert ledger[2]["client_ref"] == "https://example.com/hook"
    twice = [entry["request"]["prompt"] for entry in ledger if "*1]" in entry["request"].get("prompt", "")]
    assert sorted(map(twice.count, set(twice))) == [2, 2]
