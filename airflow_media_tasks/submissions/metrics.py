"""What Airflow's metrics are told: `docs/metrics.md` lists it.

Workers count what they note in a record, and when they note it: a retry that finds it there counts nothing.
Which tasks wait is told by whoever asks for them, the triggerer. What keeps a metric from being sent keeps
nothing else.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import Context
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils

from airflow_media_tasks.submissions.records import Record, moment_of
from airflow_media_tasks.task import MediaTask, MediaTaskError, TaskStatus
from airflow_media_tasks.wire.conversations import TOO_LATE
from airflow_media_tasks.wire.prices import price_of


log = logging.getLogger(__name__)

SUBMISSIONS = "media_tasks.submissions"
ENDED = "media_tasks.ended"
DURATION = "media_tasks.duration"
WAITING = "media_tasks.waiting"
LANDED = "media_tasks.landed_bytes"
COST = "media_tasks.cost"

# No backend takes every character, and a line break would begin another metric.
_UNFIT = re.compile(r"[^\w./-]", re.ASCII)
_LONGEST = 100


def submitted(
    intent: Record, arguments: Mapping[str, Any], context: Context, error: MediaTaskError | None = None
) -> None:
    """Counts a submission that was sent, as accepted or by the *error* with which it was not."""
    if error is None or error.code != TOO_LATE:
        outcome = "accepted" if error is None else type(error).__name__
        _tell(stats.incr, SUBMISSIONS, 1, _tags(intent, arguments, context, outcome=outcome))


def ended(record: Record, arguments: Mapping[str, Any], task: MediaTask, context: Context) -> None:
    """Counts the end of *task*, and the time since its submission."""
    outcome = "succeeded" if task.error is None else type(task.error).__name__
    tags = _tags(record, arguments, context, outcome=outcome)
    _tell(stats.incr, ENDED, 1, tags)
    _tell(stats.timing, DURATION, timedelta(seconds=time.time() - moment_of(record)), tags)


def spent(
    cost: Mapping[str, Any] | None,
    record: Record,
    arguments: Mapping[str, Any],
    task: MediaTask,
    context: Context,
) -> None:
    """Adds the *cost* of an ended *task*; its unit is a tag.

    As the provider charged it; where it says nothing of what it made, as the user's table estimates it.
    """
    if cost is None:
        return
    made = task.status is TaskStatus.SUCCEEDED
    price = price_of(cost.get("unit"), cost.get("amount") or (cost.get("estimated") if made else None))
    if price is not None and price.amount:
        # Counters of statsd and OpenTelemetry take fractions, although Airflow speaks of whole numbers.
        _tell(stats.incr, COST, float(price.amount), _tags(record, arguments, context, unit=price.unit))


def landed(size: int, result: Mapping[str, Any], dag_id: str) -> None:
    """Counts the bytes of a file of *result* that has just been downloaded and stored."""
    named = {name: result.get(name) for name in ("provider", "operation", "model")}
    _tell(stats.incr, LANDED, size, {**named, "dag_id": dag_id})


def waiting(count: int, provider: str, operation: str, media_conn_id: str) -> None:
    """Says how many tasks of an *operation* wait in this process, which has called `prepare`."""
    tags = {"provider": provider, "operation": operation, "media_conn_id": media_conn_id}
    _tell(stats.gauge, WAITING, count, {**tags, "hostname": socket.gethostname()})


@functools.cache
def prepare() -> None:
    """Makes everything ready that sending takes. Blocking, since a server's name is looked up."""
    try:
        # Airflow's triggerer prepares the metrics of Airflow alone, and not those of what runs in it.
        if os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "client":
            stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
        stats.timer()
    except Exception:
        log.warning("no metrics are sent", exc_info=True)


def _tags(record: Record, arguments: Mapping[str, Any], context: Context, **more: str) -> dict[str, Any]:
    named = {"provider": record.provider, "operation": record.operation, "model": arguments.get("model")}
    return {**named, "dag_id": context["ti"].dag_id, **more}


def _tell(send: Callable[..., None], name: str, value: Any, tags: Mapping[str, Any]) -> None:
    """Sends it with those of the *tags* that are known."""
    known = {key: _UNFIT.sub("_", str(value)[:_LONGEST]) for key, value in tags.items() if value}
    try:
        send(name, value, tags=known)
    except Exception:
        log.warning("metric %s is not sent", name, exc_info=True)
