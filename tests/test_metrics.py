"""What Airflow's own statsd client sends over UDP, with Airflow's tags on."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils

import docs
from airflow_media_tasks.batch.operator import GenerateMediaBatchOperator
from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.operators import MediaTaskOperator
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submissions import metrics as told
from airflow_media_tasks.task import MediaModerationError, MediaRateLimitError, MediaTaskFailed
from airflow_media_tasks.waiting.poller import Poller


Connect = Callable[..., str]
Complete = Callable[[Any], Any]
Metrics = Callable[[str], list[str]]

QUICK = "[sim:queued=0] [sim:seconds=0.1]"
KLING = "provider=kling,operation=text_to_video"


def video(word: str = "", **arguments: Any) -> MediaTaskOperator:
    """An operator of a video, quick to look."""
    usual: dict[str, Any] = {
        "operation": "text_to_video",
        "arguments": {"prompt": f"a fox {QUICK} {word}"},
        "media_conn_id": "kling_default",
    }
    return MediaTaskOperator(**{"task_id": "t", "poll_interval": 0.1, **usual, **arguments})


def test_a_task_is_counted_once(
    sim: Simulator, connect: Connect, complete: Complete, metrics: Metrics
) -> None:
    """Its submission, its end with the time it took, and its cost; a retry that finds it counts nothing."""
    connect("kling")
    operator = video(arguments={"prompt": f"a fox {QUICK}", "model": "kling-v1-6"})
    for expected in (1, 0):
        cost = complete(operator)["cost"]
        tags = f",{KLING},model=kling-v1-6,dag_id=dag"
        assert metrics("submissions") == [f"{tags},outcome=accepted:1|c"] * expected
        assert metrics("ended") == [f"{tags},outcome=succeeded:1|c"] * expected
        assert metrics("cost") == [f"{tags},unit=units:{float(cost['amount'])}|c"] * expected
        durations = metrics("duration")
        assert len(durations) == expected
        for line in durations:
            milliseconds = re.fullmatch(rf"{tags},outcome=succeeded:([0-9.]+)\|ms", line)
            assert milliseconds is not None
            assert 50 < float(milliseconds[1]) < 60_000


@pytest.mark.parametrize(
    ("word", "error", "submitted", "ended"),
    [
        ("[sim:fail=moderation]", MediaModerationError, "accepted", "MediaModerationError"),
        ("[sim:fail=provider]", MediaTaskFailed, "accepted", "MediaTaskFailed"),
        ("[sim:reject=moderation]", MediaModerationError, "MediaModerationError", None),
        ("[sim:reject=rate]", MediaRateLimitError, "MediaRateLimitError", None),
    ],
)
def test_what_fails_is_counted_by_its_class(
    sim: Simulator,
    connect: Connect,
    complete: Complete,
    metrics: Metrics,
    word: str,
    error: type[Exception],
    submitted: str,
    ended: str | None,
) -> None:
    """What was refused has never begun; what was accepted ends with its error's class, and costs nothing."""
    connect("vap")
    with pytest.raises(error):
        complete(video(word, media_conn_id="vap_default", queue_timeout=0.1 if "reject" in word else None))
    tags = ",provider=vap,operation=text_to_video,dag_id=dag"
    assert metrics("submissions") == [f"{tags},outcome={submitted}:1|c"]
    assert metrics("ended") == ([] if ended is None else [f"{tags},outcome={ended}:1|c"])
    assert metrics("cost") == []


def test_a_guard_counts_nothing(
    sim: Simulator, connect: Connect, complete: Complete, metrics: Metrics
) -> None:
    """What was not sent is no submission."""
    connect("kling", extra={"prices": {"*": {"amount": "0.40", "unit": "USD"}}})
    with pytest.raises(Exception, match="max_cost"):
        complete(video(max_cost="0.1"))
    assert metrics("submissions") == []


def test_a_landed_file_is_counted_by_its_bytes(
    sim: Simulator, connect: Connect, complete: Complete, metrics: Metrics, tmp_path: Path
) -> None:
    """When it is downloaded, and not when it is there already."""
    connect("kling")
    operator = video(save_to=f"file://{tmp_path}/film.mp4")
    complete(operator)
    size = (tmp_path / "film.mp4").stat().st_size
    assert metrics("landed_bytes") == [f",{KLING},dag_id=dag:{size}|c"]
    complete(operator)
    assert metrics("landed_bytes") == []


def test_each_request_of_a_batch_is_counted(
    sim: Simulator, connect: Connect, complete: Complete, metrics: Metrics, tmp_path: Path
) -> None:
    """As a task of its own would be."""
    connect("kling")
    operator = GenerateMediaBatchOperator(
        task_id="t",
        requests=[{"prompt": f"fox {n} {QUICK}"} for n in range(3)]
        + [
            {"prompt": f"a fox {QUICK} {word}"}
            for word in ("[sim:fail=moderation]", "[sim:reject=moderation]")
        ],
        operation="text_to_video",
        media_conn_id="kling_default",
        save_to=f"file://{tmp_path}/",
        results=f"file://{tmp_path}/batch.jsonl",
        poll_interval=0.1,
    )
    complete(operator)
    tags = f",{KLING},dag_id=dag"
    assert sorted(metrics("submissions")) == [
        f"{tags},outcome=MediaModerationError:1|c",
        *[f"{tags},outcome=accepted:1|c"] * 4,
    ]
    assert sorted(metrics("ended")) == [
        f"{tags},outcome=MediaModerationError:1|c",
        *[f"{tags},outcome=succeeded:1|c"] * 3,
    ]
    assert len(metrics("duration")) == 4
    assert len(metrics("landed_bytes")) == 3


async def test_how_many_wait_is_told_by_who_asks_for_them(
    sim: Simulator, connect: Connect, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gauge for each operation of an account, which ends at nought."""
    monkeypatch.setattr("airflow_media_tasks.waiting.poller.GAUGE_INTERVAL", 0.0)
    hook = get_media_hook(connect("kling"))
    ids = [hook.submit("text_to_video", {"prompt": "a fox [sim:seconds=60]"}).id for _ in range(3)]
    tags = f",{KLING},media_conn_id=kling_default,hostname={socket.gethostname()}"
    watches = [Poller.watch("kling_default", one, 0.05, "text_to_video", time.time()) for one in ids]

    async def until(line: str) -> None:
        """Wait for a line of the metric, ten seconds at most."""
        ends = time.monotonic() + 10
        while line not in metrics("waiting"):
            assert time.monotonic() < ends, line
            await asyncio.sleep(0.02)

    await until(f"{tags}:3|g")
    for poller, watch in watches[:2]:
        poller.forget(watch)
    await until(f"{tags}:1|g")
    watches[2][0].forget(watches[2][1])
    await until(f"{tags}:0|g")


def test_what_others_say_is_no_other_metric(
    sim: Simulator, connect: Connect, complete: Complete, metrics: Metrics, context: Any
) -> None:
    """A model's name comes from wherever an argument may come from: it ends neither its tag nor the line."""
    connect("vap")
    name = "v1,unit=USD:5|c\nairflow.media_tasks.cost:9|c"
    arguments = {"prompt": "a fox [sim:seconds=60]", "model": name}
    operator = video(media_conn_id="vap_default", arguments=arguments)
    with pytest.raises(TaskDeferred):
        operator.execute(context)
    (line,) = metrics("submissions")
    assert line == (
        ",provider=vap,operation=text_to_video,model=v1_unit_USD_5_c_airflow.media_tasks.cost_9_c,dag_id=dag,outcome=accepted:1|c"
    )


def test_the_triggerer_prepares_what_airflow_does_not(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's triggerer sends its own metrics by another copy of the module than what runs in it has."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    stats.initialize(factory=stats_utils.NoStatsLogger, export_legacy_names=True)
    told.prepare.cache_clear()
    try:
        told.prepare()
        told.waiting(7, "kling", "text_to_video", "kling_default")
        assert [line.rpartition(":")[2] for line in metrics("waiting")] == ["7|g"]
    finally:
        told.prepare.cache_clear()
        vars(sys.modules[stats.gauge.__module__])["_backend"].statsd.close()


def test_a_metric_that_cannot_be_sent_keeps_nothing_else(
    sim: Simulator, connect: Connect, complete: Complete
) -> None:
    """Whatever Airflow's metrics are set up with, what is paid for is made and handed over."""

    def broken() -> Any:
        raise RuntimeError("no such backend")

    connect("kling")
    stats.initialize(factory=broken, export_legacy_names=False)
    try:
        assert complete(video())["url"]
    finally:
        stats.initialize(factory=stats_utils.NoStatsLogger, export_legacy_names=True)
    assert len(sim.ledger()) == 1


def test_every_metric_is_on_the_page() -> None:
    """The page of metrics names each that there is, and no other."""
    page = Path(docs.ROOT, "docs", "metrics.md").read_text()
    named = set(re.findall(r"media_tasks\.[a-z_]+", page))
    assert named == {
        value for name, value in vars(told).items() if name.isupper() and str(value).startswith("media_")
    }
