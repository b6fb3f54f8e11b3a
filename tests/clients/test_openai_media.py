from __future__ import annotations

from typing import Any

from airflow_media_tasks.simulator import Simulator

from .conftest import Client


def test_the_vendors_client_makes_films_on_the_simulator(simulator: Simulator, client: Client) -> None:
    """OpenAI's own client submits forms, polls, downloads, remixes, lists and deletes there."""
    seen: dict[str, Any] = client(
        "openai_media", OPENAI_API_KEY="sk-anything", OPENAI_BASE_URL=f"{simulator.url}/openai_media"
    )
    assert int(seen["version"].split(".")[0]) >= 2
    assert (seen["first"]["object"], seen["first"]["status"]) == ("video", "queued")
    assert (seen["film"]["status"], seen["film"]["seconds"], seen["film"]["size"]) == (
        "completed",
        "8",
        "1280x720",
    )
    assert seen["film"]["expires_at"] > seen["film"]["created_at"]
    assert seen["magic"] == "ftyp"
    assert (seen["begun"], seen["held"]) == ("completed", "queued")
    assert seen["remixed"] == seen["film"]["id"]
    assert seen["failed"]["code"] == "moderation_blocked"
    ledger = [entry["id"] for entry in simulator.ledger("openai_media")]
    assert seen["listed"] == ledger[::-1][-len(seen["listed"]) :]
    assert seen["ascending"] == seen["listed"][::-1]
    assert seen["deleted"]["deleted"] is True
    assert (seen["unknown"]["class"], seen["unknown"]["status"]) == ("NotFoundError", 404)
    assert seen["early"]["status"] in (400, 404, 409)
    assert seen["invalid"]["status"] == 400
    assert (seen["bad_key"]["class"], seen["bad_key"]["code"]) == ("AuthenticationError", "invalid_api_key")
    assert (seen["no_money"]["status"], seen["no_money"]["code"]) == (429, "insufficient_quota")
    twice = [entry for entry in simulator.ledger("openai_media") if "*1]" in str(entry["request"])]
    assert len(twice) == 2
