"""Airflow's own page of connections, and what it makes of ours."""

from __future__ import annotations

import json
from collections.abc import Callable

from playwright.sync_api import Page, expect

from .conftest import Stage


Open = Callable[..., Page]
SECONDS = 30_000


def test_a_saved_connection_is_shown_and_tested(open_page: Open, stage: Stage) -> None:
    """Its prices are JSON in its form, and Test answers, where the port is 0 as the form's hint says."""
    prices = {"text_to_image": {"amount": "0.18", "unit": "USD"}}
    address = {"host": f"{stage.simulator.url}/vap", "port": 0}
    stage.airflow.create_connection(
        "by_form", "vap", password="a-key", extra=json.dumps({"prices": prices}), **address
    )
    page = open_page(path="/connections")
    row = page.get_by_role("row").filter(has_text="by_form")
    row.get_by_role("button", name="Test Connection").click(timeout=SECONDS)
    expect(page.get_by_text("ok, balance").first).to_be_visible(timeout=SECONDS)

    row.get_by_role("button", name="Edit Connection").click()
    expect(page.get_by_placeholder("0, so that Test works")).to_have_value("0", timeout=SECONDS)
    page.get_by_role("button", name="Extra Fields", exact=True).click()
    expect(page.locator("#element_prices")).to_contain_text('"0.18"', timeout=SECONDS)
    assert page.get_by_text("[object Object]").count() == 0
