"""What the page says was spent, against what the simulator has billed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from airflow_media_tasks.operators import GenerateMediaBatchOperator, MediaTaskOperator
from airflow_media_tasks.sensors import MediaTaskSensor
from airflow_media_tasks.simulator import Simulator

from .airflow import RESULT, Airflow


QUICK = "[sim:queued=0] [sim:seconds=0.1]"
PRICE = {"amount": "0.40", "unit": "USD"}
BATCH = {
    "results": "/nowhere/batch.jsonl",
    "total": 300,
    "succeeded": 298,
    "failed": 2,
    "media_conn_id": "vap_default",
    "provider": "vap",
    "cost": [{"unit": "USD", "amount": "29.88"}],
    "estimated": [{"unit": "USD", "amount": "0.40"}],
}


def now(days: int = 0) -> str:
    """This moment, or as many days ago, as Airflow's API writes it."""
    return (datetime.now(timezone.utc) - timedelta(days=days)).isoformat().replace("+00:00", "Z")


def single(media_task_id: str, **cost: str | None) -> dict[str, Any]:
    """What an operator returned today."""
    told = {"amount": None, "estimated": None, **cost}
    return {**RESULT, "id": media_task_id, "cost": told, "finished_at": now()}


class Mixed:
    """Operators that run one after the other, each as a task instance of its own that the gallery lists."""

    def __init__(self, airflow: Airflow, context: Any, complete: Callable[[Any], Any]) -> None:
        self._airflow, self._context, self._complete = airflow, context, complete

    def run(self, operator: Any, run: str, map_index: int = -1) -> Any:
        """What *operator* returns as the first try of a task instance."""
        ti = self._context["ti"]
        self._context["task_state_store"].clear()
        ti.run_id, ti.map_index, ti.max_tries, ti.try_number = run, map_index, 0, 1
        return self._go(operator, run)

    def again(self, operator: Any, run: str) -> Any:
        """The same after somebody has cleared it."""
        self._context["ti"].max_tries += 1
        self._context["ti"].try_number += 1
        return self._go(operator, run)

    def _go(self, operator: Any, run: str) -> Any:
        result = json.loads(json.dumps(self._complete(operator)))
        ti = self._context["ti"]
        at = {"end_date": now(), "map_index": ti.map_index, "try_number": ti.try_number}
        self._airflow.add(f"{run}{ti.map_index}", result, operator_name=type(operator).__name__, **at)
        return result


@pytest.fixture
def mixed(airflow: Airflow, context: Any, complete: Callable[[Any], Any]) -> Mixed:
    """Runs operators one after the other."""
    return Mixed(airflow, context, complete)


def test_a_mixed_run_costs_what_was_billed(
    airflow: Airflow,
    mixed: Mixed,
    sim: Simulator,
    connect: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Singles, mapped ones, batches, what was reused and what only our table prices: right to the cent."""
    monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS", "127.0.0.1")
    for name in ("vap", "kling"):
        connect(name)
    connect("acedata", extra={"prices": {"veo/text_to_video": PRICE}})

    def one(provider: str, operation: str, prompt: str) -> MediaTaskOperator:
        return MediaTaskOperator(
            task_id="one",
            media_conn_id=f"{provider}_default",
            operation=operation,
            arguments={"prompt": f"{prompt} {QUICK}"},
            poll_interval=0.1,
        )

    def batch(provider: str, operation: str, *words: str) -> GenerateMediaBatchOperator:
        return GenerateMediaBatchOperator(
            task_id="batch",
            media_conn_id=f"{provider}_default",
            operation=operation,
            requests=[{"prompt": f"{provider} fox {n} {QUICK} {word}"} for n, word in enumerate(words)],
            save_to=f"file://{tmp_path}/{provider}/",
            on_partial_failure="keep",
            poll_interval=0.1,
        )

    made = mixed.run(one("vap", "text_to_image", "a"), "image")
    mixed.run(one("kling", "text_to_video", "a"), "film")
    mixed.run(one("acedata", "veo/text_to_video", "a"), "priced")
    for number in range(3):
        mixed.run(one("vap", "text_to_image", f"copy {number}"), "mapped", number)
    dollars = batch("vap", "text_to_video", "", "", "[sim:fail=moderation]", "[sim:reject=bad_request]")
    mixed.run(dollars, "dollars")
    mixed.again(dollars, "dollars")
    mixed.run(batch("kling", "text_to_video", "", ""), "units")
    mixed.run(batch("acedata", "veo/text_to_video", "", "", "", "[sim:fail=moderation]"), "guessed")
    waited = MediaTaskSensor(task_id="wait", media_task_id=made["id"], media_conn_id="vap_default")
    mixed.run(waited, "waited")

    billed: defaultdict[str, Decimal] = defaultdict(Decimal)
    for entry in sim.ledger():
        if "sim:fail" not in str(entry["request"]):
            billed[entry["provider"]] += Decimal(entry["amount"])
    told = airflow.get("api/totals").json()
    spent = {one["unit"]: Decimal(one["amount"]) for one in told["spent"]}
    assert spent == {"USD": billed["vap"], "units": billed["kling"]}
    assert told["estimated"] == [{"unit": "USD", "amount": "1.60"}]
    assert (told["spent_today"], told["estimated_today"]) == (told["spent"], told["estimated"])
    of = {one["provider"]: one for one in told["by_provider"]}
    assert (of["acedata"]["spent"], of["acedata"]["estimated"]) == ([], told["estimated"])
    assert Decimal(of["vap"]["spent"][0]["amount"]) == billed["vap"]


def test_a_batch_counts_on_the_day_on_which_it_ended(airflow: Airflow) -> None:
    """With what was charged and what is estimated, each for itself; so does one that has failed."""
    failed = {"key": "media_batch", "state": "failed"}
    airflow.add("old", BATCH, end_date=now(days=2))
    airflow.add("today", {**BATCH, "cost": [{"unit": "USD", "amount": "0.1"}]}, end_date=now())
    airflow.add("bad", {**BATCH, "cost": [{"unit": "USD", "amount": "0.02"}]}, end_date=now(), **failed)
    airflow.add("one", single("a", unit="USD", amount="9.60", estimated="9.70"))
    told = airflow.get("api/totals").json()
    assert told["spent"] == [{"unit": "USD", "amount": "39.60"}]
    assert told["spent_today"] == [{"unit": "USD", "amount": "9.72"}]
    assert told["estimated"] == [{"unit": "USD", "amount": "1.20"}]
    assert told["estimated_today"] == [{"unit": "USD", "amount": "0.80"}]


def test_what_a_running_batch_has_spent_counts(airflow: Airflow) -> None:
    """It is under way, so what it has spent until now is in the sums and on its card."""
    airflow.add("r1", state="deferred", operator_name="GenerateMediaBatchOperator", end_date=None)
    airflow.records["films", "r1", "media_task.batch"] = {
        "total": 3,
        "waiting": 1,
        "succeeded": 2,
        "failed": 0,
        "provider": "vap",
        **{name: BATCH[name] for name in ("cost", "estimated", "media_conn_id")},
    }
    assert airflow.items()["r1"]["batch"]["cost"][0]["amount"] == "29.88"
    told = airflow.get("api/totals").json()
    assert told["spent"] == told["spent_today"] == [{"unit": "USD", "amount": "29.88"}]
    assert told["estimated"] == told["estimated_today"] == [{"unit": "USD", "amount": "0.40"}]


def test_no_digit_is_lost(airflow: Airflow) -> None:
    """A sum has all digits of what is in it."""
    airflow.add("much", single("a", unit="USD", amount="100000000000000.01"))
    airflow.add("little", single("b", unit="USD", amount="0.000000000000000000000000000001"))
    (sum_,) = airflow.get("api/totals").json()["spent"]
    assert sum_["amount"] == "100000000000000.010000000000000000000000000001"


def test_one_task_of_a_provider_is_paid_once(airflow: Airflow) -> None:
    """A sensor that waits for it, and an operator that adopted it, show its cost and add nothing."""
    airflow.add("made", single("luma/1", unit="USD", estimated="0.40"))
    airflow.add("waited", single("luma/1", unit="USD", estimated="0.40"), operator_name="MediaTaskSensor")
    airflow.add("another", single("luma/2", unit="USD", estimated="0.40"))
    told = airflow.get("api/totals").json()
    assert told["estimated"] == [{"unit": "USD", "amount": "0.80"}]
    assert airflow.items()["waited"]["cost"]["estimated"] == "0.40"


def test_what_failed_before_it_was_anybodys_is_no_provider(airflow: Airflow) -> None:
    """A task whose request was wrong counts as failed, and the list of providers has no nameless one."""
    airflow.add("made", single("luma/1", unit="USD", amount="0.40"))
    error = {"type": "MediaRequestError", "message": "argument 'prompt' must be a text", "code": None}
    airflow.add("wrong", error, key="media_error", state="failed")
    told = airflow.get("api/totals").json()
    assert told["failed"] == 1
    assert [entry["provider"] for entry in told["by_provider"]] == [RESULT["provider"]]
