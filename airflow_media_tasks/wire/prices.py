"""The price table of a connection: what operations cost, and what a provider's own units are in money.

Providers say what a task cost in units of their own, at the earliest when it is accepted. What is to be known
before, or in money, comes from the user: the key `prices` in the connection's extra,

    {"text_to_video": {"amount": "3.5", "unit": "units"},     an operation, by its full name
     "*": {"amount": "1", "unit": "units"},                   every other operation
     "units": {"amount": "0.14", "unit": "USD"}}              one of a unit of the provider's own

No price of any provider is written down here: prices change, and a table that nobody keeps is a wrong one.
Amounts are decimals from end to end; no float takes part in a sum or a comparison.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Context as DecimalContext
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from airflow_media_tasks.task import MediaCost, MediaRequestError, MediaTask, TaskStatus, shown


if TYPE_CHECKING:
    from airflow_media_tasks.wire.protocol import ProtocolHook


EXACT = DecimalContext(prec=80)
"""Twelve digits before and after the point, times as many, times a billion tasks: nothing is ever rounded."""
_ANY = "*"
_PLACES = 12
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
    def of(cls, hook: ProtocolHook) -> Prices:
        """The table in the extra of the hook's connection; an empty one if it has none.

        :raises MediaRequestError: naming the connection, the entry and what is wrong with it.
        """
        table = hook.settings.extra.get("prices")
        if table is None or table == "":
            return cls()
        where = f"connection {hook.media_conn_id!r}: prices"
        if isinstance(table, str):
            try:
                table = json.loads(table)
            except ValueError as error:
                raise MediaRequestError(f"{where} is no JSON: {error}; got {shown(table)}") from None
        if not isinstance(table, Mapping):
            raise MediaRequestError(f"{where} must be an object of operation to price, got {shown(table)}")
        prices = {}
        for name, value in table.items():
            if name not in (*hook.operations, _ANY, *hook.units):
                raise MediaRequestError(
                    f"{where}: {shown(name)} is neither an operation of {hook.conn_type} nor {_ANY!r} nor a "
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
        return self.operations.get(operation) or self.operations.get(_ANY)

    def into(self, price: Price, unit: str) -> Decimal | None:
        """*price* in *unit*, if the table gives it: a provider's unit becomes money, never the other way."""
        if price.unit == unit:
            return price.amount
        one = self.units.get(price.unit)
        return EXACT.multiply(price.amount, one.amount) if one is not None and one.unit == unit else None

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
        known = price_of(cost.unit, cost.amount or (cost.estimated if made else None))
        if known is not None:
            one = self.units.get(known.unit)
            currency = known.unit if one is None else one.unit
            money = self.into(known, currency)
            if money is not None and _CURRENCY.fullmatch(currency):
                document["money"] = {"amount": f"{money:f}", "unit": currency}
        return document


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


def limit_of(name: str, value: Any) -> Price:
    """*value* as of `decimal_of`, or a text with a unit after the amount: `0.50 USD`.

    Without one, the price's unit is empty: that of the price table.

    :raises MediaRequestError: for anything else.
    """
    if isinstance(value, Price):
        return value
    amount, _, unit = value.strip().partition(" ") if isinstance(value, str) else (value, "", "")
    return Price(decimal_of(name, amount), unit.strip())


def price_of(unit: Any, amount: Any) -> Price | None:
    """What a provider said, or None if it makes no sense as an amount."""
    try:
        return Price(decimal_of("cost", amount), str(unit or ""))
    except MediaRequestError:
        return None
