"""What was made and spent, counted as it is read."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any


UNITS = 20
"""Units and providers that are told apart; there are a few, but anybody may write others into an XCom."""
REST = "other"

Json = dict[str, Any]


class _Spent:
    def __init__(self) -> None:
        self._by_unit: dict[str, Decimal] = {}

    def add(self, item: Mapping[str, Any]) -> None:
        batch = item["batch"]
        for cost in batch["cost"] if batch else [item["cost"]]:
            unit = cost and cost["amount"] and cost["unit"]
            if unit and (unit in self._by_unit or len(self._by_unit) < UNITS):
                self._by_unit[unit] = self._by_unit.get(unit, Decimal()) + Decimal(cost["amount"])

    def told(self) -> list[Json]:
        return [{"unit": unit, "amount": f"{amount:f}"} for unit, amount in sorted(self._by_unit.items())]


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
        self._spent.add(item)
        if (item["finished_at"] or "") >= self.today:
            self._spent_today.add(item)
        provider = item["provider"] or REST
        if provider not in self._spent_by and len(self._spent_by) >= UNITS:
            provider = REST
        self._made_by[provider] += made
        self._spent_by.setdefault(provider, _Spent()).add(item)

    def told(self) -> Json:
        """What the page shows."""
        ended = self._made + self._failed
        return {
            "made": self._made,
            "failed": self._failed,
            "running": self._running,
            "success_rate": self._made / ended if ended else None,
            "median_seconds": statistics.median(self._seconds) if self._seconds else None,
            "spent": self._spent.told(),
            "spent_today": self._spent_today.told(),
            "by_provider": [
                {"provider": provider[:100], "made": self._made_by[provider], "spent": spent.told()}
                for provider, spent in sorted(self._spent_by.items())
            ],
        }
