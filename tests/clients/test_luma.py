from __future__ import annotations

from typing import Any

from airflow_media_tasks.simulator import Simulator

from .conftest import Client


def test_the_vendors_client_makes_media_on_the_simulator(simulator: Simulator, client: Client) -> None:
    """Luma's own client generates, extends, upscales and lists there, as it does at Luma."""
    seen: dict[str, Any] = client(
        "luma", LUMAAI_API_KEY="luma-anything", LUMAAI_BASE_URL=f"{simulator.url}/luma"
    )
    media = f"{simulator.url}/media/"
    assert seen["version"].startswith("1.")
    assert bytes.fromhex(seen["magic"]) == b"\x89PNG"
    assert all(seen[name].startswith(media) for name in ("picture", "film", "longer", "larger"))
    assert (seen["states"][0], seen["states"][-1]) == ("queued", "completed")
    assert "dreaming" in seen["states"]
    assert seen["echo"]["callback_url"] == "https://example.com/hook?ref=7"
    assert seen["echo"]["prompt"] == "it turns"
    assert "moderation" in seen["failed"].lower()
    assert [len(page) for page in seen["pages"]] == [20, len(set(seen["pages"][1]))]
    assert not set(seen["pages"][0]) & set(seen["pages"][1])
    assert seen["more"] == [True, False]
    assert seen["credits"] > 0
    assert (seen["unknown"]["class"], seen["unknown"]["status"]) == ("NotFoundError", 404)
    assert seen["invalid"]["status"] in (400, 422)
    assert (seen["bad_key"]["class"], seen["bad_key"]["status"]) == ("AuthenticationError", 401)
    assert seen["no_money"]["status"] in (400, 402, 403)
    ledger = simulator.ledger("luma")
    assert [entry["operation"] for entry in ledger[:4]] == [
        "text_to_image",
        "image_to_video",
        "extend_video",
        "upscale_video",
    ]
    twice = [entry for entry in ledger if "*1]" in str(entry["request"])]
    assert len(twice) == 2


def test_the_client_of_agents_makes_media_on_the_simulator(simulator: Simulator, client: Client) -> None:
    """The client of Luma's newer API generates, edits and polls there, and reads why something failed."""
    seen: dict[str, Any] = client(
        "luma_agents", LUMA_AGENTS_API_KEY="anything", LUMA_BASE_URL=f"{simulator.url}/luma/agents"
    )
    media = f"{simulator.url}/media/"
    assert seen["version"]
    assert seen["picture"].startswith(media)
    assert bytes.fromhex(seen["magic"]) == b"\x89PNG"
    assert (seen["states"][0], seen["states"][-1]) == ("queued", "completed")
    assert [(one["type"], one["url"].startswith(media)) for one in seen["film"]["output"]] == [
        ("video", True)
    ]
    assert seen["edited"] == "video"
    assert seen["failed"] == "content_moderated"
    assert seen["unknown"]["status"] == 404
    assert seen["bad_key"]["status"] == 401
    assert seen["no_money"]["status"] == 402
    assert [entry["operation"] for entry in simulator.ledger("luma")][:3] == [
        "agents/text_to_image",
        "agents/image_to_video",
        "agents/edit_video",
    ]
