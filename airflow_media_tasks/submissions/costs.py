"""What a generation may cost: the budget of a task or a batch, and what it has spent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import (
    MediaBalance,
    MediaFundsError,
    MediaRequestError,
    MediaTask,
    TaskStatus,
)
from airflow_media_tasks.wire.prices import EXACT, Price, Prices, price_of


class Budget:
    """At most *limit* for all submissions of a task, by what each is expected to cost and then did.

    Before a submission its estimate is reserved; once it has ended, what it cost takes the estimate's place;
    what was certainly not accepted, or given back, is free again.

    :param limit: in the unit of the estimates; must not be negative.
    :param committed: what is spent and reserved already.
    """

    def __init__(self, limit: Decimal, committed: Decimal = Decimal(0)) -> None:
        self.limit = limit
        self.committed = committed

    def reserve(self, estimate: Price) -> None:
        """Sets *estimate* aside.

        :raises MediaFundsError: with code `max_cost`, if that is more than the limit leaves.
        """
        total = EXACT.add(self.committed, estimate.amount)
        if total > self.limit:
            raise MediaFundsError(
                f"max_cost allows {self.limit:f} {estimate.unit}: {self.committed:f} are spent or reserved, "
                f"and the next submission is expected to cost {estimate}; it was not sent, and not paid",
                code="max_cost",
            )
        self.committed = total

    def settle(self, held: Decimal, amount: Decimal = Decimal(0)) -> None:
        """Lets *amount*, what it has cost, take the place of what was *held* for a submission."""
        self.committed = EXACT.add(EXACT.subtract(self.committed, held), amount)


def needed(
    prices: Prices, hook: MediaHook, operation: str, arguments: Mapping[str, Any], unit: str = ""
) -> Price:
    """The estimate of *operation*, times the `count` in its *arguments*.

    :param unit: that of `max_cost`; empty is the table's own.
    :raises MediaRequestError: saying how to give one, if there is none.
    """
    price = prices.estimate(operation)
    if price is None:
        raise MediaRequestError(
            f"max_cost needs to know before the submission what {operation!r} costs, and {hook.conn_type} "
            f"does not say it then: add prices to the extra of connection {hook.media_conn_id!r}, for "
            f'example {{"prices": {{"{operation}": {{"amount": "0.40", "unit": "USD"}}}}}}'
        )
    amount = prices.into(price, unit or price.unit)
    if amount is None:
        raise MediaRequestError(
            f"max_cost is in {unit}, and connection {hook.media_conn_id!r} has the price of "
            f"{operation!r} as {price}: say max_cost in {price.unit}"
            + (
                f", or add what one of them costs to its prices, for example "
                f'{{"{price.unit}": {{"amount": "0.14", "unit": "{unit}"}}}}'
                if price.unit in hook.units
                else ""
            )
        )
    return Price(EXACT.multiply(amount, Decimal(arguments.get("count") or 1)), unit or price.unit)


def spent(prices: Prices, hook: MediaHook, estimate: Price, task: MediaTask) -> Decimal:
    """What the ended *task* has cost, in the unit of *estimate*.

    As the provider says it; else nothing, if the task failed and the provider gives the money back; else
    the estimate.
    """
    said = None if task.cost is None else price_of(task.cost.unit, task.cost.amount)
    amount = None if said is None else prices.into(said, estimate.unit)
    if amount is not None:
        return amount
    if task.status is not TaskStatus.SUCCEEDED and hook.refunds_failures:
        return Decimal(0)
    return estimate.amount


def guard(
    hook: MediaHook,
    operation: str,
    arguments: Mapping[str, Any],
    max_cost: Price | None,
    min_balance: Decimal | None,
) -> Callable[[int], None]:
    """What stands before each payment of one task: given the number of its submission, from 1, it may raise.

    :param max_cost: what all its submissions may cost, with its unit, or None.
    :param min_balance: in the account's unit, or None.
    :raises MediaRequestError: if *max_cost* cannot be kept; the guard raises MediaFundsError.
    """
    prices = Prices.of(hook)
    unit = max_cost.unit if max_cost is not None else ""
    if max_cost is not None:
        needed(prices, hook, operation, arguments, unit)

    def before_paying(number: int) -> None:
        if max_cost is not None:
            estimate = needed(prices, hook, operation, arguments, unit)
            budget = Budget(max_cost.amount)
            # What failed before may have been charged, unless the provider gives it back.
            for _ in range(1 if hook.refunds_failures else number):
                budget.reserve(estimate)
        if min_balance is not None:
            check_balance(hook, min_balance)

    return before_paying


def check_balance(hook: MediaHook, least: Decimal) -> MediaBalance:
    """Asks the account. Raises MediaFundsError (`min_balance`) if it has less than *least*, in its own unit.

    :raises MediaRequestError: where the provider shows no balance.
    """
    if not hook.shows_balance():
        raise MediaRequestError(
            f"min_balance cannot be kept: {hook.conn_type}'s API shows no balance", provider=hook.conn_type
        )
    balance = hook.get_balance()
    amount = price_of(balance.unit, balance.amount)
    if amount is None or amount.amount < least:
        raise MediaFundsError(
            f"the account of {hook.media_conn_id!r} has {balance}, and min_balance is {least:f}; nothing was "
            "sent, and nothing paid",
            provider=hook.conn_type,
            code="min_balance",
        )
    return balance


def estimate_of(cost: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The estimate in a *cost* as `Prices.told` tells it, as an amount, where the provider did not say it."""
    if cost is None or cost.get("amount"):
        return None
    return {"unit": cost.get("unit"), "amount": cost.get("estimated")}


class Sums:
    """Amounts, a sum for each unit.

    :param told: what `told` gave before; the sums go on from there.
    """

    def __init__(self, told: Iterable[Mapping[str, Any]] = ()) -> None:
        self._totals: defaultdict[str, Decimal] = defaultdict(Decimal)
        for one in told:
            self.add(one)

    def add(self, cost: Mapping[str, Any] | None) -> None:
        """One more `{"amount", "unit"}`; what makes no sense as an amount counts nothing."""
        price = price_of(cost.get("unit"), cost.get("amount")) if cost else None
        if price is not None:
            self._totals[price.unit] = EXACT.add(self._totals[price.unit], price.amount)

    def told(self) -> list[dict[str, str]]:
        """The sums, as decimal text."""
        return [{"unit": unit, "amount": f"{amount:f}"} for unit, amount in sorted(self._totals.items())]


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Their sum, to the last digit."""
    found = Decimal(0)
    for amount in amounts:
        found = EXACT.add(found, amount)
    return found
