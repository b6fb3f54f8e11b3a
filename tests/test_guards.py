from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_media_tasks.batch.operator import GenerateMediaBatchOperator
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submissions import submission
from airflow_media_tasks.task import MediaFundsError, MediaProviderError, MediaRequestError
from airflow_media_tasks.wire.conversations import ConversationHook


Connect = Callable[..., str]
Complete = Callable[[Any], Any]

QUICK = "[sim:queued=0] [sim:seconds=0.2]"
DOLLARS = {"*": {"amount": "0.40", "unit": "USD"}}


def batch(folder: Path, words: list[str], **changes: Any) -> GenerateMediaBatchOperator:
    """A batch of videos, one for each of *words* for the simulator, that lands nothing."""
    usual: dict[str, Any] = {
        "task_id": "films",
        "requests": [{"prompt": f"fox {number} {QUICK} {word}"} for number, word in enumerate(words)],
        "operation": "text_to_video",
        "media_conn_id": "kling_default",
        "results": f"file://{folder}/batch.jsonl",
        "poll_interval": 0.1,
        "on_partial_failure": "keep",
    }
    return GenerateMediaBatchOperator(**{**usual, **changes})


def lines(folder: Path) -> list[dict[str, Any]]:
    """What the results say of each request."""
    return [json.loads(line) for line in (folder / "batch.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("limit", "paid"), [("2.00", 5), ("1.99", 4), ("0.40", 1)])
def test_a_batch_spends_what_it_may_and_keeps_it(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path, limit: str, paid: int
) -> None:
    """What was paid stays, the rest is told to have been stopped, and nothing of it was sent."""
    connect("kling", extra={"prices": DOLLARS})
    manifest = complete(batch(tmp_path, [""] * 8, max_cost=limit))
    assert len(sim.ledger()) == manifest["submitted"] == manifest["succeeded"] == paid
    assert manifest["errors"] == {"MediaFundsError": 8 - paid}
    stopped = [line for line in lines(tmp_path) if line["error"]]
    assert {(line["status"], line["error"]["code"]) for line in stopped} == {("not submitted", "max_cost")}


def test_nothing_fits(sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path) -> None:
    """Then the batch fails with the guard's own error, and paid nothing."""
    connect("kling", extra={"prices": DOLLARS})
    with pytest.raises(MediaFundsError, match=r"max_cost allows 0.3 USD"):
        complete(batch(tmp_path, ["", ""], max_cost="0.3"))
    assert sim.ledger() == []


def test_what_turns_out_cheaper_makes_room(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """VAP gives the money of a failure back: it is spent on another request, within the limit."""
    connect("vap", extra={"prices": {"*": {"amount": "2.00", "unit": "USD"}}})
    words = ["[sim:fail=moderation]", "[sim:fail=moderation]", "", ""]
    operator = batch(tmp_path, words, media_conn_id="vap_default", max_cost="4.00", operation="text_to_image")
    manifest = complete(operator)
    assert len(sim.ledger()) == 4
    assert manifest["errors"] == {"MediaModerationError": 2}
    (total,) = manifest["cost"]
    assert total == {"unit": "USD", "amount": "0.3600"}
    assert manifest["money"] == [total]


def test_the_budget_outlives_a_worker_and_a_clear(
    sim: Simulator, connect: Connect, context: Any, complete: Complete, tmp_path: Path
) -> None:
    """What earlier workers, tries and runs of the batch have spent counts, failures among it."""
    connect("kling", extra={"prices": DOLLARS})
    operator = batch(tmp_path, ["[sim:fail=provider]", "", ""], max_cost="1.60")
    with pytest.raises(TaskDeferred):
        operator.execute(context)
    assert complete(operator)["succeeded"] == 2
    assert len(sim.ledger()) == 3
    for tries, paid in ((1, 4), (2, 4)):
        context["ti"].max_tries, context["ti"].try_number = tries, tries + 1
        complete(operator)
        assert len(sim.ledger()) == paid


def test_a_limit_needs_prices_in_one_unit(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """Without a price, or with prices that cannot be added, nothing is sent."""
    connect("kling")
    with pytest.raises(MediaRequestError, match="add prices to the extra"):
        complete(batch(tmp_path, [""], max_cost=5))
    table = {
        "text_to_video": {"amount": "3", "unit": "units"},
        "text_to_image": {"amount": "1", "unit": "USD"},
    }
    connect("kling", extra={"prices": table})
    mixed = [{"prompt": "a"}, {"prompt": "b", "operation": "text_to_image"}]
    with pytest.raises(MediaRequestError, match="in one unit; they are in USD, units"):
        complete(batch(tmp_path, [], requests=mixed, max_cost=5))
    assert sim.requests() == {}


def test_a_batchs_limit_may_be_in_money(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """Prices in the provider's unit and in money are added in the limit's currency."""
    table = {
        "text_to_video": {"amount": "3", "unit": "units"},
        "text_to_image": {"amount": "1", "unit": "USD"},
        "units": {"amount": "0.14", "unit": "USD"},
    }
    connect("kling", extra={"prices": table})
    mixed = [{"prompt": f"a {QUICK}"}, {"prompt": f"b {QUICK}", "operation": "text_to_image"}]
    assert complete(batch(tmp_path, [], requests=mixed, max_cost="1.42 USD"))["submitted"] == 2
    with pytest.raises(MediaRequestError, match="max_cost is in EUR"):
        complete(batch(tmp_path, [], requests=mixed, max_cost="1.42 EUR"))


def test_what_the_provider_foretells_takes_the_prices_place(
    sim: Simulator, connect: Connect, context: Any, tmp_path: Path
) -> None:
    """VAP says 0.18 USD when it accepts a picture: with a careful price of 2.00 the next ones go at once."""
    connect("vap", extra={"prices": {"*": {"amount": "2.00", "unit": "USD"}}})
    slow = ["[sim:seconds=60]"] * 8
    operator = batch(tmp_path, slow, media_conn_id="vap_default", max_cost="2.60", operation="text_to_image")
    with pytest.raises(TaskDeferred):
        operator.execute(context)
    assert len(sim.ledger()) == 4
    assert context["task_state_store"]["media_task.batch"]["committed"] == "0.7200"


def test_min_balance_stops_a_batch(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """The account is asked once for many submissions; too little of it, and nothing is sent."""
    connect("kling")
    with pytest.raises(MediaFundsError, match="min_balance") as stopped:
        complete(batch(tmp_path, [""] * 20, min_balance=10**9))
    assert stopped.value.code == "min_balance"
    assert sim.ledger() == []
    sim.reset()
    assert complete(batch(tmp_path, [""] * 20, min_balance=1))["succeeded"] == 20
    assert sum(count for path, count in sim.requests().items() if "account/costs" in path) == 1


def test_a_reply_lost_in_an_outage_is_not_paid_again(
    sim: Simulator,
    connect: Connect,
    context: Any,
    complete: Complete,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An intent stays on record, and its money reserved, until the provider can be asked about it."""
    monkeypatch.setattr(ConversationHook, "retry_wait", 0.0)
    monkeypatch.setattr(submission, "SETTLE", 0.5)
    connect("kling", extra={"prices": DOLLARS})
    context["ti"].max_tries = 1
    operator = batch(tmp_path, ["[sim:lose-reply*1]"], max_cost="0.40")
    sim.fault("outage", provider="kling", on="read")
    with pytest.raises(MediaProviderError):
        complete(operator)
    assert len(sim.ledger()) == 1
    assert context["task_state_store"]["media_task.page.0.0"]["0"]["phase"] == "intent"
    sim.clear_faults()
    context["ti"].try_number = 2
    assert complete(operator)["succeeded"] == 1
    assert len(sim.ledger()) == 1


def test_sums_are_exact(sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path) -> None:
    """The manifest's money is the sum of the lines', to the last digit."""
    connect("kling", extra={"prices": {"units": {"amount": "0.1400000001", "unit": "USD"}}})
    manifest = complete(batch(tmp_path, [""] * 7))
    costs = [line["cost"] for line in lines(tmp_path)]
    assert manifest["money"] == [
        {"unit": "USD", "amount": f"{sum(Decimal(cost['money']['amount']) for cost in costs):f}"}
    ]
    assert manifest["cost"] == [
        {"unit": "units", "amount": f"{sum(Decimal(cost['amount']) for cost in costs):f}"}
    ]


def test_what_a_limit_has_stopped_is_no_success_by_itself(
    sim: Simulator, connect: Connect, complete: Complete, tmp_path: Path
) -> None:
    """Unless `keep` or `min_success` says so, the batch ends in the limit's error, with what it made kept."""
    connect("kling", extra={"prices": DOLLARS})
    with pytest.raises(MediaFundsError, match=r"6 of 8 requests failed.*max_cost allows 0.80 USD") as stopped:
        complete(batch(tmp_path, [""] * 8, max_cost="0.80", on_partial_failure=None))
    assert stopped.value.code == "max_cost"
    assert [line["status"] for line in lines(tmp_path)] == ["succeeded"] * 2 + ["not submitted"] * 6
    assert complete(batch(tmp_path, [""] * 8, max_cost="0.80"))["succeeded"] == 2
