"""What a generation costs: the connection's price table, the budget of a task or a batch, and the metric.

Providers say what a task cost in units of their own, at the earliest when it is accepted. What is to be known
before, or in money, comes from the user: the key `prices` in the connection's extra,

    {"text_to_video": {"amount": "3.5", "unit": "units"},     an operation, by its full name
     "*": {"amount": "1", "unit": "units"},                   every other operation
     "units": {"amount": "0.14", "unit": "USD"}}              one of a unit of the provider's own

No price of any provider is written down here: prices change, and a table that nobody keeps is a wrong one.
Amounts are decimals from end to end; no float takes part in a sum or a comparison.
"""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Context as DecimalContext
from decimal import Decimal, InvalidOperation
from typing import Any

from airflow.sdk import Context
from airflow.sdk.observability import stats

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.records import Record
from airflow_media_tasks.task import (
    MediaBalance,
    MediaCost,
    MediaFundsError,
    MediaRequestError,
    MediaTask,
    TaskStatus,
    shown,
)


ANY = "*"
METRIC = "media_tasks.cost"
_PLACES = 12
_EXACT = DecimalContext(prec=80)
"""Twelve digits before and after the point, times as many, times a billion tasks: nothing is ever rounded."""
_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True)
class Price:
    """An amount in a unit: a currency's code (`USD`), or the provider's word (`units`)."""

    amount: Decimal
    unit: str

    def __str__(self) -> str:
        return f"{self.amount:f} {self.unit}"

    @classmethod
    def of(cls, name: str, value: Any) -> Price:
        """The price that a connection's extra describes; raises MediaRequestError naming what is wrong."""
        if not isinstance(value, Mapping) or set(value) != {"amount", "unit"}:
            raise MediaRequestError(
                f'{name} must be an object like {{"amount": "0.40", "unit": "USD"}}, got {shown(value)}'
            )
        unit = value["unit"]
        if not isinstance(unit, str) or not unit.strip():
            raise MediaRequestError(
                f"{name}: unit must be a currency like USD or the provider's word, got {shown(unit)}"
            )
        return cls(decimal_of(f"{name}: amount", value["amount"]), unit)


@dataclass(frozen=True)
class Prices:
    """A connection's price table.

    :param operations: by an operation's full name, or `*`.
    :param units: what one of each of the provider's own units costs in money.
    """

    operations: Mapping[str, Price] = field(default_factory=dict)
    units: Mapping[str, Price] = field(default_factory=dict)

    @classmethod
    def of(cls, hook: MediaHook) -> Prices:
        """The table in the extra of the hook's connection; an empty one if it has none.

        :raises MediaRequestError: naming the connection, the entry and what is wrong with it.
        """
        table = hook.settings.extra.get("prices")
        if table is None or table == "":
            return cls()
        where = f"the connection {hook.media_conn_id!r}: prices"
        if isinstance(table, str):
            try:
                table = json.loads(table)
            except ValueError as error:
                raise MediaRequestError(f"{where} is no JSON: {error}; got {shown(table)}") from None
        if not isinstance(table, Mapping):
            raise MediaRequestError(f"{where} must be an object of operation to price, got {shown(table)}")
        prices = {}
        for name, value in table.items():
            if name not in (*hook.operations, ANY, *hook.units):
                raise MediaRequestError(
                    f"{where}: {shown(name)} is neither an operation of {hook.conn_type} nor {ANY!r} nor a "
                    f"unit of its costs; there are: {', '.join([*sorted(hook.operations), *hook.units])}"
                )
            prices[name] = price = Price.of(f"{where}[{name!r}]", value)
            if name in hook.units and not _CURRENCY.fullmatch(price.unit):
                raise MediaRequestError(
                    f"{where}[{name!r}] must be in a currency like USD, got {shown(price.unit)}"
                )
        units = {name: prices.pop(name) for name in hook.units if name in prices}
        return cls(prices, units)

    def estimate(self, operation: str) -> Price | None:
        """What *operation* (full name) will cost as the user has it; None if the table does not say."""
        return self.operations.get(operation) or self.operations.get(ANY)

    def into(self, price: Price, unit: str) -> Decimal | None:
        """*price* in *unit*, if the table gives it: a provider's unit becomes money, never the other way."""
        if price.unit == unit:
            return price.amount
        one = self.units.get(price.unit)
        return _EXACT.multiply(price.amount, one.amount) if one is not None and one.unit == unit else None

    def told(self, operation: str, task: MediaTask) -> dict[str, Any] | None:
        """What *task* cost, for XCom and provenance: as the provider says it, with `money` where it is known.

        Where the provider says nothing of what it made, the table's price stands as an estimate.
        """
        made = task.status is TaskStatus.SUCCEEDED
        cost = task.cost
        if cost is None:
            price = self.estimate(operation) if made else None
            if price is None:
                return None
            cost = MediaCost(price.unit, estimated=f"{price.amount:f}")
        document: dict[str, Any] = dict(cost.__dict__)
        known = _price(cost.unit, cost.amount or (cost.estimated if made else None))
        if known is not None:
            one = self.units.get(known.unit)
            currency = known.unit if one is None else one.unit
            money = self.into(known, currency)
            if money is not None and _CURRENCY.fullmatch(currency):
                document["money"] = {"amount": f"{money:f}", "unit": currency}
        return document


class Budget:
    """At most *limit* for all submissions of a task, by what each is expected to cost and then did.

    Before a submission its estimate is reserved; once it has ended, what it cost takes the estimate's place;
    what was certainly not accepted, or given back, is free again. Threads may share one.

    :param limit: in the unit of the estimates; must not be negative.
    """

    def __init__(self, limit: Decimal) -> None:
        self.limit = limit
        self._held: dict[int, Decimal] = {}
        self._total = Decimal(0)
        self._lock = threading.Lock()

    @property
    def committed(self) -> Decimal:
        """What is spent and reserved together."""
        return self._total

    def reserve(self, number: int, estimate: Price) -> None:
        """Sets *estimate* aside for request *number*, on top of what it has cost already.

        :raises MediaFundsError: with code `max_cost`, if that is more than the limit leaves.
        """
        with self._lock:
            total = _EXACT.add(self._total, estimate.amount)
            if total > self.limit:
                raise MediaFundsError(
                    f"max_cost allows {self.limit:f} {estimate.unit}: {self._total:f} are spent or reserved, "
                    f"and the next submission is expected to cost {estimate}; it was not sent, and not paid",
                    code="max_cost",
                )
            self._total = total
            self._held[number] = _EXACT.add(self._held.get(number, Decimal(0)), estimate.amount)

    def settle(self, number: int, amount: Decimal) -> None:
        """Lets *amount* stand for all that request *number* has cost and may yet cost."""
        with self._lock:
            before = self._held.get(number, Decimal(0))
            self._held[number] = amount
            self._total = _EXACT.add(_EXACT.subtract(self._total, before), amount)


def needed(prices: Prices, hook: MediaHook, operation: str, arguments: Mapping[str, Any]) -> Price:
    """The estimate of *operation*, times the `count` in its *arguments*.

    :raises MediaRequestError: saying how to give one, if there is none.
    """
    price = prices.estimate(operation)
    if price is None:
        raise MediaRequestError(
            f"max_cost needs to know before the submission what {operation!r} costs, and {hook.conn_type} "
            f"does not say it then: add prices to the extra of the connection {hook.media_conn_id!r}, for "
            f'example {{"prices": {{"{operation}": {{"amount": "0.40", "unit": "USD"}}}}}}'
        )
    count = arguments.get("count") or 1
    return dataclasses.replace(price, amount=_EXACT.multiply(price.amount, Decimal(count)))


def spent(prices: Prices, hook: MediaHook, estimate: Price, task: MediaTask) -> Decimal:
    """What the ended *task* has cost, in the unit of *estimate*.

    As the provider says it; else nothing, if the task failed and the provider gives the money back; else
    the estimate.
    """
    said = None if task.cost is None else _price(task.cost.unit, task.cost.amount)
    amount = None if said is None else prices.into(said, estimate.unit)
    if amount is not None:
        return amount
    if task.status is not TaskStatus.SUCCEEDED and hook.refunds_failures:
        return Decimal(0)
    return estimate.amount


def check_balance(hook: MediaHook, least: Decimal) -> MediaBalance:
    """Asks the account. Raises MediaFundsError (`min_balance`) if it has less than *least*, in its own unit.

    :raises MediaRequestError: where the provider shows no balance.
    """
    if not hook.has_balance:
        raise MediaRequestError(
            f"min_balance cannot be kept: {hook.conn_type}'s API shows no balance", provider=hook.conn_type
        )
    balance = hook.get_balance()
    amount = _price(balance.unit, balance.amount)
    if amount is None or amount.amount < least:
        raise MediaFundsError(
            f"the account of {hook.media_conn_id!r} has {balance}, and min_balance is {least:f}; nothing was "
            "sent, and nothing paid",
            provider=hook.conn_type,
            code="min_balance",
        )
    return balance


def sums(costs: Iterable[Mapping[str, Any] | None]) -> list[dict[str, str]]:
    """What the providers have said was charged, summed for each unit."""
    return _sums((cost.get("unit"), cost.get("amount")) for cost in costs if cost)


def sums_of_money(costs: Iterable[Mapping[str, Any] | None]) -> list[dict[str, str]]:
    """The same in money, where the table gives it."""
    money = [cost["money"] for cost in costs if cost and cost.get("money")]
    return _sums((one["unit"], one["amount"]) for one in money)


def count(cost: Mapping[str, Any] | None, task: MediaTask, record: Record, context: Context) -> None:
    """Adds the *cost* of an ended *task* to Airflow's counter `media_tasks.cost`; its unit is a tag.

    As the provider charged it; where it says nothing of what it made, as the user's table estimates it.
    """
    if cost is None:
        return
    made = task.status is TaskStatus.SUCCEEDED
    price = _price(cost.get("unit"), cost.get("amount") or (cost.get("estimated") if made else None))
    if price is not None and price.amount:
        tags = {
            "provider": record.provider,
            "operation": record.operation,
            "model": (record.arguments or {}).get("model"),
            "dag_id": context["ti"].dag_id,
            "unit": price.unit,
        }
        named = {name: str(value) for name, value in tags.items() if value}
        # Counters of statsd and OpenTelemetry take fractions; Airflow's annotation speaks of whole numbers.
        stats.incr(METRIC, float(price.amount), tags=named)  # type: ignore[arg-type]


def decimal_of(name: str, value: Any) -> Decimal:
    """*value* (decimal text, whole number, Decimal) as an amount from 0, with at most 12 places each side.

    :raises MediaRequestError: for anything else; a float, too, is not exact.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
            raise ValueError(value)
        number = Decimal(value)
        if not number.is_finite() or number < 0 or number >= Decimal(10) ** _PLACES:
            raise ValueError(value)
        if number.as_tuple().exponent < -_PLACES:  # type: ignore[operator]  # a finite one's is a number
            raise ValueError(value)
    except (ValueError, InvalidOperation):
        raise MediaRequestError(
            f'{name} must be a decimal number from 0 like "0.40" (a text, a whole number or a Decimal), '
            f"got {shown(value)}"
        ) from None
    return number + 0


def _price(unit: Any, amount: Any) -> Price | None:
    """What a provider said, or None if it makes no sense as an amount."""
    try:
        return Price(decimal_of("cost", amount), str(unit or ""))
    except MediaRequestError:
        return None


def _sums(amounts: Iterable[tuple[Any, Any]]) -> list[dict[str, str]]:
    totals: defaultdict[str, Decimal] = defaultdict(Decimal)
    for unit, amount in amounts:
        price = _price(unit, amount)
        if price is not None:
            totals[price.unit] = _EXACT.add(totals[price.unit], price.amount)
    return [{"unit": unit, "amount": f"{total:f}"} for unit, total in sorted(totals.items())]
