from __future__ import annotations

from typing import Any

from airflow_media_tasks.simulator import Simulator

from .conftest import Client


def test_googles_client_makes_films_on_the_simulator_as_on_vertex(
    simulator: Simulator, client: Client
) -> None:
    """Google's own client submits and polls there, and gets films inline and in a bucket, as at Vertex."""
    seen: dict[str, Any] = client("google_vertex", SIMULATOR_URL=f"{simulator.url}/google_media")
    assert int(seen["version"].split(".")[0]) >= 3
    here = "projects/films-1/locations/europe-west4/publishers/google/models/veo-3.1-generate-001/operations/"
    assert all(name.startswith(here) for name in seen["names"])
    assert seen["done"][-1] is True
    assert not any(seen["done"][:-1])
    assert seen["films"] == ["ftyp", "ftyp"]
    assert [place.startswith("gs://films/today/") for place in seen["places"]] == [True]
    assert seen["filtered"][0] == 1
    assert not seen["filtered"][2]
    assert seen["error"]["code"] in (8, 13, 14)
    assert seen["unknown"]["code"] == 404
    assert (seen["throttled"]["code"], seen["throttled"]["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert (seen["bad_key"]["code"], seen["bad_key"]["status"]) == (401, "UNAUTHENTICATED")
    operations = [entry["operation"] for entry in simulator.ledger("google_media")]
    assert (operations[0], operations[-2:]) == ("text_to_video", ["image_to_video", "extend_video"])


def test_googles_client_makes_films_on_the_simulator_as_by_the_gemini_api(
    simulator: Simulator, client: Client
) -> None:
    """The last of Google's clients that has Veo by a key submits, polls and downloads there."""
    seen: dict[str, Any] = client("google_gemini", SIMULATOR_URL=f"{simulator.url}/google_media")
    assert seen["version"].startswith("2.")
    assert all(name.startswith("models/veo-3.1-generate-preview/operations/") for name in seen["names"])
    assert seen["done"][-1] is True
    assert not any(seen["done"][:-1])
    assert seen["address"].startswith(simulator.url)
    assert seen["magic"] == "ftyp"
    assert seen["filtered"][0] == 1
    assert not seen["filtered"][2]
    assert seen["error"]["code"] in (8, 13, 14)
    assert seen["unknown"]["code"] == 404
    assert (seen["throttled"]["code"], seen["throttled"]["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert (seen["bad_key"]["code"], seen["bad_key"]["status"]) == (400, "INVALID_ARGUMENT")
