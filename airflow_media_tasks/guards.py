"""What stands between a batch and its next payment: `max_cost` and `min_balance`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from decimal import Decimal

from airflow_media_tasks import costs
from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.records import Record
from airflow_media_tasks.requests import Request
from airflow_media_tasks.task import MediaFundsError, MediaRequestError, MediaTask


_BALANCE_HOLDS = 10.0
"""Seconds for which an account's balance is believed; Kling answers one such question a second."""


class Guards:
    """What a batch may still spend; threads may share it.

    What earlier tries have cost is read from the requests' records, so nothing is forgotten with a worker.

    :param max_cost: in the unit of the price table, or None.
    :param min_balance: in the account's unit, or None.
    :raises MediaRequestError: if *max_cost* cannot be kept: a price is missing, or the units differ.
    """

    def __init__(
        self,
        hook: MediaHook,
        requests: Iterable[Request],
        max_cost: Decimal | None,
        min_balance: Decimal | None,
    ) -> None:
        self.prices = costs.Prices.of(hook)
        self.min_balance = min_balance
        self.exhausted: MediaFundsError | None = None
        """Set when the budget has no room for a submission; what is under way may yet make some."""
        self._hook = hook
        self._budget: costs.Budget | None = None
        self._balance_asked = float("-inf")
        self._asking = threading.Lock()
        if max_cost is not None:
            units = {self._estimate(request).unit for request in requests}
            if len(units) > 1:
                raise MediaRequestError(
                    "max_cost needs the prices of all requests in one unit; they are in "
                    + ", ".join(sorted(units))
                )
            self._budget = costs.Budget(max_cost)

    def begin(self) -> None:
        """Another round of submissions: what has ended since may have made room."""
        self.exhausted = None

    def check(self, hook: MediaHook, request: Request) -> None:
        """Reserves what a submission will cost; asks the account by *hook*, which is the calling thread's.

        :raises MediaFundsError: if it must not be made; nothing is reserved then.
        """
        if self.min_balance is not None:
            with self._asking:
                if time.monotonic() - self._balance_asked > _BALANCE_HOLDS:
                    costs.check_balance(hook, self.min_balance)
                    self._balance_asked = time.monotonic()
        if self._budget is not None:
            try:
                self._budget.reserve(request.number, self._estimate(request))
            except MediaFundsError as error:
                self.exhausted = error
                raise

    def settle(self, request: Request, record: Record | None) -> None:
        """Takes what *record* tells of a request for all that it has cost and may yet cost."""
        if self._budget is not None:
            self._budget.settle(request.number, self._committed(request, record))

    def spent(self, request: Request, record: Record, task: MediaTask) -> dict[str, str] | None:
        """The record's `spent` once its submission has ended as *task*; None without `max_cost`."""
        if self._budget is None or record.finished_at is not None:
            return record.spent
        estimate = self._estimate(request)
        total = self._before(request, record) + costs.spent(self.prices, self._hook, estimate, task)
        return {"amount": f"{total:f}", "unit": estimate.unit}

    def _estimate(self, request: Request) -> costs.Price:
        return costs.needed(self.prices, self._hook, request.operation, request.arguments)

    def _before(self, request: Request, record: Record) -> Decimal:
        """What the record's ended submissions have cost."""
        unit = self._estimate(request).unit
        if record.spent is None:
            return Decimal(0)
        if record.spent["unit"] != unit:
            raise MediaRequestError(
                f"max_cost: request {request.number} has cost {record.spent['amount']} "
                f"{record.spent['unit']} so far, and the price table is in {unit} now"
            )
        return Decimal(record.spent["amount"])

    def _committed(self, request: Request, record: Record | None) -> Decimal:
        if record is None:
            return Decimal(0)
        amount = self._before(request, record)
        if record.finished_at is None:
            may_cost = record.phase in ("intent", "submitted", "adopted")
            return amount + (self._estimate(request).amount if may_cost else 0)
        if record.spent is None and record.result is not None:
            # Of a try without max_cost.
            task = MediaTask.from_dict(record.result)
            return costs.spent(self.prices, self._hook, self._estimate(request), task)
        return amount
