from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.operators import MediaTaskOperator
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submissions import costs
from airflow_media_tasks.submissions.costs import Budget
from airflow_media_tasks.task import (
    MediaCost,
    MediaFundsError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    MediaTaskFailed,
    TaskStatus,
)
from airflow_media_tasks.wire.prices import Price, Prices


Connect = Callable[..., str]
Complete = Callable[[Any], Any]

QUICK = "[sim:queued=0] [sim:seconds=0.1]"
UNITS = {"text_to_video": {"amount": "3", "unit": "units"}, "units": {"amount": "0.14", "unit": "USD"}}
DOLLARS = {"*": {"amount": "0.40", "unit": "USD"}}

amounts = st.decimals(min_value=0, max_value=1000, places=4)


def video(word: str = "", **arguments: Any) -> MediaTaskOperator:
    """An operator of a video, quick to look."""
    usual: dict[str, Any] = {
        "operation": "text_to_video",
        "arguments": {"prompt": f"a fox {QUICK} {word}"},
        "media_conn_id": "kling_default",
    }
    return MediaTaskOperator(**{"task_id": "t", "poll_interval": 0.1, **usual, **arguments})


def ended(status: TaskStatus = TaskStatus.SUCCEEDED, **cost: str) -> MediaTask:
    """A task that has ended, and what its provider says of its cost."""
    return MediaTask("videos/text2video/1", status, cost=MediaCost(**cost) if cost else None)


# The price table.


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([1], "prices must be an object"),
        ([], "prices must be an object"),
        ("{", "is no JSON"),
        ({"text_to_smell": {"amount": "1", "unit": "USD"}}, "'text_to_smell' is neither an operation"),
        ({"text_to_video": "0.40"}, "must be an object like"),
        ({"text_to_video": {"amount": "0.40"}}, "must be an object like"),
        ({"text_to_video": {"amount": 0.4, "unit": "USD"}}, "amount must be a decimal number"),
        ({"text_to_video": {"amount": "-1", "unit": "USD"}}, "amount must be a decimal number"),
        ({"text_to_video": {"amount": "NaN", "unit": "USD"}}, "amount must be a decimal number"),
        ({"text_to_video": {"amount": "1e40", "unit": "USD"}}, "amount must be a decimal number"),
        ({"text_to_video": {"amount": "1", "unit": ""}}, "unit must be a currency"),
        ({"units": {"amount": "1", "unit": "units"}}, "must be in a currency"),
        ({"credits": {"amount": "1", "unit": "USD"}}, "'credits' is neither .* there are: .*units, balance"),
    ],
)
def test_a_wrong_price_is_named(connect: Connect, table: Any, says: str) -> None:
    """The error says which connection, which entry, and what is allowed."""
    hook = get_media_hook(connect("kling", extra={"prices": table}))
    with pytest.raises(MediaRequestError, match=says) as wrong:
        Prices.of(hook)
    assert "'kling_default'" in str(wrong.value)


def test_the_table_may_be_text(connect: Connect) -> None:
    """The connection form keeps it as a text of JSON."""
    hook = get_media_hook(connect("vap", extra={"prices": '{"*": {"amount": "0.40", "unit": "USD"}}'}))
    assert Prices.of(hook).estimate("text_to_image") == Price(Decimal("0.40"), "USD")
    assert Prices.of(get_media_hook(connect("vap"))).estimate("text_to_image") is None


@pytest.mark.parametrize(
    ("table", "task", "told"),
    [
        (UNITS, ended(unit="units", amount="3.5"), ("3.5", None, {"amount": "0.490", "unit": "USD"})),
        (UNITS, ended(unit="USD", amount="1.9"), ("1.9", None, {"amount": "1.9", "unit": "USD"})),
        (UNITS, ended(), (None, "3", {"amount": "0.42", "unit": "USD"})),
        (DOLLARS, ended(), (None, "0.40", {"amount": "0.40", "unit": "USD"})),
        (DOLLARS, ended(unit="units", amount="3.5"), ("3.5", None, None)),
        (UNITS, ended(unit="balance", amount="3.5"), ("3.5", None, None)),
        ({}, ended(unit="units", amount="3.5"), ("3.5", None, None)),
        ({}, ended(), None),
        (DOLLARS, ended(TaskStatus.FAILED), None),
        (DOLLARS, ended(TaskStatus.FAILED, unit="USD", estimated="2"), (None, "2", None)),
        (DOLLARS, ended(unit="USD", amount="much"), ("much", None, None)),
    ],
)
def test_what_is_told_of_a_cost(connect: Connect, table: Any, task: MediaTask, told: Any) -> None:
    """The provider's own words stay as they are; money is added where the table or the currency gives it."""
    prices = Prices.of(get_media_hook(connect("kling", extra={"prices": table})))
    cost = prices.told("text_to_video", task)
    assert (cost and (cost["amount"], cost["estimated"], cost.get("money"))) == told


# The budget.


@given(
    limit=amounts,
    steps=st.lists(st.tuples(st.integers(0, 5), amounts, st.none() | amounts), max_size=40),
)
def test_a_budget_never_reserves_beyond_its_limit(
    limit: Decimal, steps: list[tuple[int, Decimal, Decimal | None]]
) -> None:
    """What is reserved fits, what does not fit changes nothing, and the sum is exact, whatever the order."""
    budget = Budget(limit)
    held: dict[int, Decimal] = {}
    for number, estimate, actual in steps:
        before = sum(held.values(), Decimal(0))
        if before + estimate <= limit:
            budget.reserve(Price(estimate, "USD"))
            held[number] = held.get(number, Decimal(0)) + estimate
            assert budget.committed <= limit
        else:
            with pytest.raises(MediaFundsError) as stopped:
                budget.reserve(Price(estimate, "USD"))
            assert stopped.value.code == "max_cost"
        if actual is not None:
            budget.settle(held.get(number, Decimal(0)), actual)
            held[number] = actual
        assert budget.committed == sum(held.values(), Decimal(0))


# The guards of a single task.


@pytest.mark.parametrize(("limit", "paid"), [("0.39", 0), ("0.40", 1), (1, 1), (Decimal("0.399999"), 0)])
def test_max_cost_stops_before_anything_is_sent(
    sim: Simulator, connect: Connect, context: Any, complete: Complete, limit: Any, paid: int
) -> None:
    """A submission that may cost too much leaves neither a record nor a bill."""
    connect("kling", extra={"prices": DOLLARS})
    if paid:
        complete(video(max_cost=limit))
    else:
        with pytest.raises(MediaFundsError, match="not sent, and not paid") as stopped:
            complete(video(max_cost=limit))
        assert stopped.value.code == "max_cost"
        assert context["task_state_store"] == {}
    assert len(sim.ledger()) == paid


def test_max_cost_counts_every_picture(
    sim: Simulator, connect: Connect, context: Any, complete: Complete
) -> None:
    """Four pictures of one submission cost four times the price."""
    connect("kling", extra={"prices": DOLLARS})
    hook = get_media_hook("kling_default")
    assert costs.needed(Prices.of(hook), hook, "text_to_image", {"count": 4}) == Price(Decimal("1.60"), "USD")
    assert costs.needed(Prices.of(hook), hook, "text_to_image", {}) == Price(Decimal("0.40"), "USD")


def test_max_cost_counts_what_failed_before(
    sim: Simulator, connect: Connect, context: Any, complete: Complete
) -> None:
    """Where failures may be charged, each try of a task takes its share of the limit."""
    connect("kling", extra={"prices": DOLLARS})
    context["ti"].max_tries = 5
    operator = video("[sim:fail=provider]", max_cost="0.80")
    for _ in range(2):
        with pytest.raises(MediaTaskFailed):
            complete(operator)
    with pytest.raises(MediaFundsError):
        complete(operator)
    assert len(sim.ledger()) == 2


def test_a_guard_does_not_stop_what_is_paid_already(
    sim: Simulator, connect: Connect, context: Any, complete: Complete
) -> None:
    """A retry that finds its task submitted needs no more money."""
    connect("kling", extra={"prices": DOLLARS})
    with pytest.raises(MediaTaskError):
        complete(video("[sim:seconds=60]", timeout=0.2))
    sim.advance(61)
    assert complete(video("[sim:seconds=60]", max_cost="0.01", min_balance=10**9))["status"] == "succeeded"
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize(
    ("limit", "paid"),
    [("0.41 USD", 0), ("0.42 USD", 1), ("2.9", 0), ("3", 1), ("3 units", 1), (" 0.42  USD ", 1)],
)
def test_max_cost_may_be_in_money(
    sim: Simulator, connect: Connect, complete: Complete, limit: str, paid: int
) -> None:
    """Where the table says what the provider's unit is worth, a limit with a currency is kept in it."""
    connect("kling", extra={"prices": UNITS})
    if paid:
        complete(video(max_cost=limit))
    else:
        with pytest.raises(MediaFundsError, match=r"max_cost allows (0.41 USD|2.9 units)"):
            complete(video(max_cost=limit))
    assert len(sim.ledger()) == paid


@pytest.mark.parametrize(
    ("conn_type", "table", "limit", "says"),
    [
        (
            "kling",
            {"*": {"amount": "3", "unit": "units"}},
            "1 USD",
            '3 units: say .* units, or add .*"units": ',
        ),
        ("kling", UNITS, "1 EUR", "say max_cost in units"),
        ("vap", DOLLARS, "1 EUR", r"as 0\.40 USD: say max_cost in USD$"),
    ],
)
def test_a_limit_in_money_that_is_not_known_is_an_error(
    sim: Simulator, connect: Connect, complete: Complete, conn_type: str, table: Any, limit: str, says: str
) -> None:
    """No exchange rate is made up: the error says in which unit the price is, and what to add."""
    conn = connect(conn_type, extra={"prices": table})
    with pytest.raises(MediaRequestError, match=says):
        complete(video(media_conn_id=conn, max_cost=limit))
    assert sim.requests() == {}


def test_max_cost_without_a_price_says_how_to_give_one(
    sim: Simulator, connect: Connect, complete: Complete
) -> None:
    """A limit that nobody can keep is an error, not a limit that is passed over."""
    connect("kling")
    with pytest.raises(MediaRequestError, match=r'\{"prices": \{"text_to_video": \{"amount"'):
        complete(video(max_cost=5))
    assert sim.requests() == {}


@pytest.mark.parametrize(("conn_type", "least"), [("kling", "2000000"), ("vap", 2_000_000)])
def test_min_balance_asks_the_account(
    sim: Simulator, connect: Connect, complete: Complete, conn_type: str, least: Any
) -> None:
    """An account with too little is left alone; one with enough is used."""
    conn = connect(conn_type)
    with pytest.raises(MediaFundsError, match="min_balance is 2000000") as stopped:
        complete(video(media_conn_id=conn, min_balance=least))
    assert stopped.value.code == "min_balance"
    assert sim.ledger() == []
    complete(video(media_conn_id=conn, min_balance="0.5"))
    assert len(sim.ledger()) == 1


def test_min_balance_where_no_balance_is_shown(sim: Simulator, connect: Connect, complete: Complete) -> None:
    """AceData's API shows none: that is said, and nothing is sent."""
    connect("acedata")
    with pytest.raises(MediaRequestError, match="acedata's API shows no balance"):
        complete(video(media_conn_id="acedata_default", min_balance=1))
    assert sim.ledger() == []


@pytest.mark.parametrize("wrong", [0.4, True, "much", -1, "Infinity"])
def test_a_limit_is_an_exact_number(wrong: Any) -> None:
    """A float is refused where the DAG is read, as is everything else that is no amount."""
    with pytest.raises(MediaRequestError, match="max_cost must be a decimal number"):
        video(max_cost=wrong)
    with pytest.raises(MediaRequestError, match="min_balance must be a decimal number"):
        video(min_balance=wrong)


# What is said of it.


def test_the_result_has_the_cost_in_money(sim: Simulator, connect: Connect, complete: Complete) -> None:
    """As the provider charged it, and in money by the user's table; exact."""
    connect("kling", extra={"prices": UNITS})
    cost = complete(video())["cost"]
    assert cost["unit"] == "units"
    assert Decimal(cost["money"]["amount"]) == Decimal(cost["amount"]) * Decimal("0.14")
    assert cost["money"]["unit"] == "USD"


def test_what_the_balance_paid_has_its_own_price(
    sim: Simulator, connect: Connect, complete: Complete
) -> None:
    """Kling's balance is no unit: it becomes money by an entry of its own."""
    connect("kling", extra={"prices": {**UNITS, "balance": {"amount": "0.5", "unit": "EUR"}}})
    cost = complete(video("[sim:from-balance]"))["cost"]
    assert cost["unit"] == "balance"
    assert Decimal(cost["money"]["amount"]) == Decimal(cost["amount"]) / 2
    assert cost["money"]["unit"] == "EUR"
