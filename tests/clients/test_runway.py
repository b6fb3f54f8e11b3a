from __future__ import annotations

from typing import Any

from airflow_media_tasks.simulator import Simulator

from .conftest import Client


def test_the_vendors_client_makes_media_on_the_simulator(simulator: Simulator, client: Client) -> None:
    """Runway's own client submits, polls, waits, deletes and reads its credits there, as at Runway."""
    seen: dict[str, Any] = client(
        "runway", RUNWAYML_API_SECRET="key_" + "5e" * 64, RUNWAYML_BASE_URL=f"{simulator.url}/runway"
    )
    media = f"{simulator.url}/media/"
    assert int(seen["version"].split(".")[0]) >= 5
    assert seen["estimated"]["estimatedCost"]["credits"] > 0
    assert (seen["words"][0], seen["words"][-1]) == ("PENDING", "SUCCEEDED")
    assert "RUNNING" in seen["words"]
    assert seen["cost"] > 0
    assert bytes.fromhex(seen["magic"]) == b"\x89PNG"
    assert [url.startswith(media) for url in seen["film"]] == [True]
    assert len(seen["others"]) == 4
    assert set(seen["others"]) <= {"PENDING", "RUNNING", "SUCCEEDED"}
    assert seen["failed"]["failureCode"].startswith("SAFETY.")
    assert seen["credits"] > 0
    assert seen["deleted"] == "CANCELLED" or seen["deleted"]["status"] == 404
    assert (seen["unknown"]["class"], seen["unknown"]["status"]) == ("NotFoundError", 404)
    assert (seen["invalid"]["class"], seen["invalid"]["status"]) == ("BadRequestError", 400)
    assert "ratio" in str(seen["invalid"]["body"])
    assert (seen["bad_key"]["class"], seen["bad_key"]["status"]) == ("AuthenticationError", 401)
    assert seen["no_money"]["status"] == 400
    ledger = simulator.ledger("runway")
    assert [entry["operation"] for entry in ledger[:6]] == [
        "text_to_image",
        "image_to_video",
        "text_to_speech",
        "sound_effect",
        "upscale_video",
        "character_performance",
    ]
    twice = [entry for entry in ledger if "*1]" in str(entry["request"])]
    assert len(twice) == 2
