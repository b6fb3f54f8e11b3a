"""What was made and spent, counted as it is read."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from airflow_media_tasks.submissions import costs


UNITS = 20
"""Units and providers that are told apart; there are a few, but anybody may write others into an XCom."""
REST = "other"

Json = dict[str, Any]


class _Sums:
    """A sum for each unit, to the last digit."""

    def __init__(self) -> None:
        self._by_unit: dict[str, Decimal] = {}

    def add(self, cost: Mapping[str, Any] | None) -> None:
        unit = cost and cost["amount"] and cost["unit"]
        if cost and unit and (unit in self._by_unit or len(self._by_unit) < UNITS):
            before = self._by_unit.get(unit, Decimal())
            self._by_unit[unit] = costs.total([before, Decimal(cost["amount"])])

    def told(self) -> list[Json]:
        return [{"unit": unit, "amount": f"{amount:f}"} for unit, amount in sorted(self._by_unit.items())]


class _Spent:
    """What was charged, and beside it what by the price tables the rest has cost."""

    def __init__(self) -> None:
        self._charged, self._estimated = _Sums(), _Sums()

    def add(self, item: Mapping[str, Any]) -> None:
        batch, cost = item["batch"], item["cost"]
        made = item["status"] == "succeeded"
        for one in batch["cost"] if batch else [cost]:
            self._charged.add(one)
        for one in batch["estimated"] if batch else [costs.estimate_of(cost)] if made else []:
            self._estimated.add(one)

    def told(self, name: str) -> Json:
        return {name: self._charged.told(), name.replace("spent", "estimated"): self._estimated.told()}


class Totals:
    """Of all items that it was given."""

    def __init__(self) -> None:
        now = datetime.now(timezone.utc)
        self.today = now.replace(hour=0, minute=0, second=0, microsecond=0).isoformat()
        self._made = self._failed = self._running = 0
        self._seconds: list[float] = []
        self._spent, self._spent_today = _Spent(), _Spent()
        self._made_by: dict[str, int] = defaultdict(int)
        self._spent_by: dict[str, _Spent] = {}
        self._paid: set[int] = set()

    def add(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Counts *items*, too; those that cannot be read count as nothing."""
        for item in items:
            if not item["unreadable"]:
                self._add(item)

    def _add(self, item: Mapping[str, Any]) -> None:
        batch = item["batch"]
        made = batch["succeeded"] if batch else int(item["status"] == "succeeded")
        self._made += made
        self._failed += batch["failed"] if batch else item["status"] in ("failed", "unknown")
        self._running += item["status"] in ("running", "queued")
        if item["seconds"] is not None:
            self._seconds.append(item["seconds"])
        provider = item["provider"] or REST
        if provider not in self._spent_by and len(self._spent_by) >= UNITS:
            provider = REST
        self._made_by[provider] += made
        # A task that failed before it was known whose it would be is nobody's.
        is_told = item["provider"] or made
        spent = self._spent_by.setdefault(provider, _Spent()) if is_told else _Spent()
        if self._is_paid_here(item):
            # What is under way has spent what it has until now.
            is_todays = (item["finished_at"] or self.today) >= self.today
            for one in (spent, self._spent, *([self._spent_today] if is_todays else [])):
                one.add(item)

    def _is_paid_here(self, item: Mapping[str, Any]) -> bool:
        """Whether no other item has the same task of the provider: a sensor's, or one that adopted it."""
        cost, paid = item["cost"], item["media_task_id"]
        if paid is None or not cost or not (cost["amount"] or cost["estimated"]):
            return True
        # Their hashes: anybody may write an id of any length into an XCom.
        is_first = hash(paid) not in self._paid
        self._paid.add(hash(paid))
        return is_first

    def told(self) -> Json:
        """What the page shows."""
        ended = self._made + self._failed
        return {
            "made": self._made,
            "failed": self._failed,
            "running": self._running,
            "success_rate": self._made / ended if ended else None,
            "median_seconds": statistics.median(self._seconds) if self._seconds else None,
            **self._spent.told("spent"),
            **self._spent_today.told("spent_today"),
            "by_provider": [
                {"provider": provider[:100], "made": self._made_by[provider], **spent.told("spent")}
                for provider, spent in sorted(self._spent_by.items())
            ],
        }
