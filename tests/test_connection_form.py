"""A connection as Airflow's page saves, shows and tests it: the page's own requests to the API server."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from airflow_media_tasks.simulator import Simulator


PRICES = {"*": {"amount": "0.40", "unit": "USD"}}


@pytest.fixture
def client(airflow_api: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of Airflow's API, with Test switched on."""
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
    token = httpx.get(f"{airflow_api}/auth/token", trust_env=False).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=airflow_api, headers=headers, trust_env=False, timeout=60) as client:
        yield client


def answer_of_test(client: httpx.Client, conn_type: str, **fields: Any) -> Any:
    """What Test answers for a connection that was saved with these fields.

    The page sends what it shows: empty texts for what is not there, a masked password, a port of 0 for none.
    """
    saved = {"connection_id": f"{conn_type}_by_form", "conn_type": conn_type, "password": "a-key", **fields}
    client.post("/api/v2/connections", json=saved).raise_for_status()
    path = f"/api/v2/connections/{saved['connection_id']}"
    shown = client.get(path).json()
    texts = ("conn_type", "connection_id", "description", "host", "login", "password", "schema")
    body = {**{name: shown[name] or "" for name in texts}, "extra": shown["extra"] or "{}"}
    reply = client.post("/api/v2/connections/test", json={**body, "port": int(shown["port"] or 0)})
    client.delete(path).raise_for_status()
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("conn_type", ["vap", "acedata", "kling"])
def test_a_saved_connection_with_the_port_of_the_hint_is_tested(
    client: httpx.Client, sim: Simulator, conn_type: str
) -> None:
    """A port of 0, as the form's hint says, is what Airflow 3.3 tests; a misspelt price is found."""
    address = {"host": f"{sim.url}/{conn_type}", "port": 0}
    good = answer_of_test(client, conn_type, **address, extra=json.dumps({"prices": PRICES, "service": None}))
    assert good["status"], good
    bad = answer_of_test(client, conn_type, **address, extra=json.dumps({"prices": {"*": "0.40"}}))
    assert not bad["status"]
    assert "must be an object like" in bad["message"]


def test_the_form_knows_that_prices_are_an_object(client: httpx.Client) -> None:
    """So that the page edits them as JSON; nothing has to be there."""
    kinds = {kind["connection_type"]: kind for kind in client.get("/ui/connections/hook_meta").json()}
    for conn_type in ("vap", "acedata", "kling"):
        form = kinds[conn_type]
        assert form["extra_fields"]["prices"]["schema"]["type"] == ["object", "null"]
        assert form["extra_fields"]["prices"]["value"] is None
        assert form["standard_fields"]["port"]["placeholder"].startswith("0,")
