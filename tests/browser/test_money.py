from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from playwright.sync_api import Page, expect

from .conftest import PRICES, Stage
from .test_page import SECONDS


def billed(stage: Stage) -> dict[str, Decimal]:
    """What each provider has billed for the DAG `mixed`; what fails is given back, or costs nothing."""
    sums: defaultdict[str, Decimal] = defaultdict(Decimal)
    for entry in stage.simulator.ledger():
        if "Mixed:" in str(entry["request"]) and "sim:fail" not in str(entry["request"]):
            sums[entry["provider"]] += Decimal(entry["amount"])
    return dict(sums)


def totals(stage: Stage) -> Any:
    """What the page says of that DAG; all of it is counted."""
    with stage.client("admin") as admin:
        told = admin.get("api/totals", params={"dag_id": "mixed"}).json()
    assert told["complete"]
    return told


def sums(told: Any) -> dict[str, Decimal]:
    """Amounts by their unit."""
    return {one["unit"]: Decimal(one["amount"]) for one in told}


def test_the_totals_are_what_was_billed(stage: Stage, open_page: Callable[..., Page]) -> None:
    """Right to the cent, what is estimated for itself; what is made once is paid once, whoever shows it."""
    told, paid = totals(stage), billed(stage)
    assert sums(told["spent"]) == {"USD": paid["vap"], "units": paid["kling"]}
    price = Decimal(PRICES["acedata"]["veo/text_to_video"]["amount"])
    assert sums(told["estimated"]) == {"USD": 3 * price}
    assert (told["spent_today"], told["estimated_today"]) == (told["spent"], told["estimated"])
    page = open_page(path="/media-tasks/?dag_id=mixed")
    shown = page.locator(".totals")
    expect(shown).to_contain_text("about 1.20 USD", timeout=SECONDS)
    expect(shown).to_contain_text(f"{paid['vap'].normalize():f}")


def test_what_is_used_again_costs_nothing_again(stage: Stage) -> None:
    """A batch that was cleared keeps what it made: nothing is billed, and the totals are as they were."""
    before, paid = totals(stage), billed(stage)
    body: dict[str, Any] = {"dag_run_id": stage.mixed_run_id, "task_ids": ["batch"], "dry_run": False}
    stage.airflow.request("POST", "dags/mixed/clearTaskInstances", json={**body, "only_failed": False})
    stage.airflow.wait("mixed", stage.mixed_run_id, seconds=120)
    assert billed(stage) == paid
    assert totals(stage) == before


def test_what_airflow_has_as_failed_is_shown_and_counted(
    stage: Stage, open_page: Callable[..., Page]
) -> None:
    """Airflow can lose a task that has returned what it made (apache/airflow#71580): that is still there."""
    path = f"dags/mixed/dagRuns/{stage.mixed_run_id}/taskInstances/one"
    before = totals(stage)
    stage.airflow.request("PATCH", path, json={"new_state": "failed"})
    try:
        assert totals(stage)["spent"] == before["spent"]
        page = open_page(path="/media-tasks/?dag_id=mixed&task_id=one")
        expect(page.locator(".card img")).to_be_visible(timeout=SECONDS)
        page.locator(".card .prompt a").click()
        expect(page.locator(".detail")).to_contain_text("Airflow has this task as failed")
        expect(page.locator(".detail figure img")).to_be_visible()
        expect(page.locator(".detail")).not_to_contain_text("Nothing was made")
    finally:
        stage.airflow.request("PATCH", path, json={"new_state": "success"})
