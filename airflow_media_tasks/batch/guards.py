"""What stands between a batch and its next payment: `max_cost` and `min_balance`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.submissions import costs
from airflow_media_tasks.submissions.records import Record
from airflow_media_tasks.task import MediaRequestError, MediaTask
from airflow_media_tasks.wire.prices import Price, Prices, price_of


_BALANCE_HOLDS = 10.0
"""Seconds for which an account's balance is believed; Kling answers one such question a second."""


class Guards:
    """What a batch may still spend. What earlier tries have cost is in the requests' records.

    :param max_cost: with its unit, which may be empty for that of the price table; or None.
    :param min_balance: in the account's unit, or None.
    """

    def __init__(self, hook: MediaHook, max_cost: Price | None, min_balance: Decimal | None) -> None:
        self.prices = Prices.of(hook)
        self.budget = None if max_cost is None else costs.Budget(max_cost.amount)
        self._limit_unit = "" if max_cost is None else max_cost.unit
        self.unit: str | None = None
        """Of the budget."""
        self._hook, self._min_balance = hook, min_balance
        self._balance_asked = float("-inf")

    @property
    def committed(self) -> Decimal:
        """What is spent and reserved of the budget."""
        return Decimal(0) if self.budget is None else self.budget.committed

    def admit(self, operation: str, arguments: Mapping[str, Any]) -> None:
        """Raises MediaRequestError if `max_cost` cannot be kept for a request: no price, or another unit."""
        if self.budget is None:
            return
        unit = self._estimate(operation, arguments).unit
        self.unit = self.unit or unit
        if unit != self.unit:
            raise MediaRequestError(
                "max_cost needs the prices of all requests in one unit; they are in "
                + ", ".join(sorted((self.unit, unit)))
            )

    def reserve(self, intent: Record, arguments: Mapping[str, Any]) -> Record:
        """*intent* with what its submission may cost, set aside.

        :raises MediaFundsError: if it must not be made; nothing is reserved then.
        """
        now = time.monotonic()
        if self._min_balance is not None and now - self._balance_asked > _BALANCE_HOLDS:
            costs.check_balance(self._hook, self._min_balance)
            self._balance_asked = now
        if self.budget is None:
            return intent
        estimate = self._estimate(intent.operation, arguments)
        self.budget.reserve(estimate)
        return dataclasses.replace(intent, held=f"{estimate.amount:f}")

    def accepted(self, record: Record, task: MediaTask) -> Record:
        """*record* of a submission accepted as *task*: what the provider foretells instead of the price."""
        said = None if task.cost is None else price_of(task.cost.unit, task.cost.estimated)
        amount = None if said is None or self.unit is None else self.prices.into(said, self.unit)
        if self.budget is None or record.held is None or amount is None:
            return record
        self.budget.settle(_held(record), amount)
        return dataclasses.replace(record, held=f"{amount:f}")

    def release(self, intent: Record) -> None:
        """Gives back what was set aside for a submission that was certainly not accepted."""
        if self.budget is not None:
            self.budget.settle(_held(intent))

    def settle(self, record: Record, arguments: Mapping[str, Any], task: MediaTask) -> Record:
        """*record* of a submission that has ended as *task*: what it has cost instead of what it might."""
        if self.budget is None or record.finished_at is not None:
            return record
        cost = costs.spent(self.prices, self._hook, self._estimate(record.operation, arguments), task)
        self.budget.settle(_held(record), cost)
        total = costs.total([self._spent(record), cost])
        return dataclasses.replace(record, held=None, spent={"amount": f"{total:f}", "unit": self.unit})

    def count(self, records: Iterable[Record]) -> None:
        """Lets what *records* have cost, and may yet cost, stand for all that is committed."""
        if self.budget is not None:
            self.budget.committed = costs.total(
                amount for record in records for amount in (self._spent(record), _held(record))
            )

    def priced(self, record: Record, arguments: Mapping[str, Any], task: MediaTask | None) -> Record:
        """*record* of a try that had no budget, with what its submission has cost or may yet cost."""
        estimate = self._estimate(record.operation, arguments)
        if record.finished_at is None or task is None:
            return dataclasses.replace(record, held=f"{estimate.amount:f}")
        cost = costs.spent(self.prices, self._hook, estimate, task)
        return dataclasses.replace(record, spent={"amount": f"{cost:f}", "unit": self.unit})

    def _estimate(self, operation: str, arguments: Mapping[str, Any]) -> Price:
        return costs.needed(self.prices, self._hook, operation, arguments, self._limit_unit)

    def _spent(self, record: Record) -> Decimal:
        """What the record's ended submissions have cost."""
        if record.spent is None:
            return Decimal(0)
        if record.spent["unit"] != self.unit:
            raise MediaRequestError(
                f"max_cost: request {record.key} has cost {record.spent['amount']} {record.spent['unit']} so "
                f"far, and the limit is in {self.unit} now"
            )
        return Decimal(record.spent["amount"])


def _held(record: Record) -> Decimal:
    return Decimal(record.held or 0)
