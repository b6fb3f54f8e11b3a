"""How long a batch takes by itself: requests of a few seconds in one Airflow task, on SQLite, nothing landed.

    python benchmarks/batch_sizes.py                       1,000 and 3,000 requests at AceData
    python benchmarks/batch_sizes.py --provider kling --counts 1000 20000

A standalone Airflow (scheduler, triggerer, API server; LocalExecutor) and the simulator in a process of its
own. The baseline, in the same run, is a batch of ten: what Airflow and the provider take in any case. Prints
a table in Markdown: seconds from the trigger of the run until all are paid for, and until the run has ended;
milliseconds a request beyond the baseline; rows in the two state stores and the largest entry; bytes of the
trigger's arguments at their largest.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT)]

from bench_simulator import SimulatorProcess, call  # noqa: E402  # the paths above come first
from deployment import Deployment  # noqa: E402  # as above


BASELINE = 10
OPERATIONS = {"acedata": "veo/text_to_video", "kling": "text_to_video", "vap": "text_to_video"}
DAG = """
import os
from airflow.sdk import DAG, Param
from airflow_media_tasks.operators import GenerateMediaBatchOperator

with DAG("sizes", schedule=None, params={"count": Param(10)}, render_template_as_native_obj=False):
    GenerateMediaBatchOperator(
        task_id="films",
        requests="file://%(folder)s/{{ params.count }}.jsonl",
        results="file://%(folder)s/results-{{ params.count }}.jsonl",
        operation="%(operation)s",
        media_conn_id="%(provider)s_default",
        poll_interval=1,
    )
"""


@dataclass
class Figures:
    """What one batch took.

    :param paid: seconds until all requests were paid for.
    :param ended: seconds until the run had ended.
    :param rows: entries in the two state stores that it has added.
    :param largest: bytes of the largest of all entries.
    :param arguments: bytes of the largest arguments of a trigger.
    """

    paid: float
    ended: float
    rows: int
    largest: int
    arguments: int


class Database:
    """Airflow's, looked into while it is used."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, query: str) -> list[tuple[int | None, ...]]:
        """The rows of a query."""
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=30)) as database:
            return database.execute(query).fetchall()

    def entries(self) -> tuple[int, int]:
        """How many there are in both state stores, and the bytes of the largest."""
        counts, sizes = zip(
            *(
                self.ask(f"select count(*), max(length(value)) from {table}")[0]  # noqa: S608  # two of Airflow's
                for table in ("task_state_store", "asset_state_store")
            ),
            strict=True,
        )
        return sum(count or 0 for count in counts), max(size or 0 for size in sizes)

    def arguments(self) -> int:
        """Bytes of the largest arguments of a trigger that is there at present."""
        return int(self.ask("select coalesce(max(length(kwargs)), 0) from trigger")[0][0] or 0)


def measured(airflow: Deployment, database: Database, simulator: SimulatorProcess, count: int) -> Figures:
    """Runs a batch of *count* requests and looks at what it leaves."""
    before, rows = submissions(simulator), database.entries()[0]
    largest, over = 0, threading.Event()

    def look() -> None:
        nonlocal largest
        while not over.wait(0.5):
            largest = max(largest, database.arguments())

    watcher = threading.Thread(target=look)
    watcher.start()
    began = time.monotonic()
    try:
        run_id = airflow.run("sizes", {"count": count})
        for _ in paces(1800):
            if submissions(simulator) - before >= count:
                break
        paid = time.monotonic() - began
        state = airflow.wait("sizes", run_id, seconds=1800)
        ended = time.monotonic() - began
    finally:
        over.set()
        watcher.join()
    spent = submissions(simulator) - before
    if (state, spent) != ("success", count):
        raise SystemExit(f"the batch of {count} is {state}, and {spent} were paid for")
    now, entry = database.entries()
    return Figures(paid, ended, now - rows, entry, largest)


def submissions(simulator: SimulatorProcess) -> int:
    """How many requests of a kind that is paid for it has had: AceData is also read by POST."""
    requests = call(simulator.url, "requests")
    paid = (route.startswith("POST") and not route.endswith("/tasks") for route in requests)
    return sum(count for count, is_paid in zip(requests.values(), paid, strict=True) if is_paid)


def paces(seconds: float) -> Iterator[None]:
    """Comes by every half second, for *seconds*."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        yield
        time.sleep(0.5)
    raise SystemExit(f"not in {seconds:.0f} s")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", default="acedata", choices=sorted(OPERATIONS))
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 3000])
    parser.add_argument("--seconds", type=float, default=5.0, help="that the provider takes for each")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bs-") as name,
        SimulatorProcess(seconds=args.seconds) as simulator,
    ):
        folder = Path(name)
        dags = folder / "dags"
        dags.mkdir()
        operation = OPERATIONS[args.provider]
        (dags / "sizes.py").write_text(
            DAG % {"folder": folder, "operation": operation, "provider": args.provider}
        )
        counts = [BASELINE, BASELINE, *args.counts]
        for count in counts:
            lines = (json.dumps({"prompt": f"Film number {number}"}) for number in range(count))
            (folder / f"{count}.jsonl").write_text("\n".join(lines))
        connection = {"conn_type": args.provider, "host": f"{simulator.url}/{args.provider}", "password": "k"}
        os.environ[f"AIRFLOW_CONN_{args.provider.upper()}_DEFAULT"] = json.dumps(connection)
        with Deployment(dags) as airflow:
            database = Database(airflow.home / "airflow.db")
            # The first of all also pays for what every first run pays.
            measured(airflow, database, simulator, BASELINE)
            base = measured(airflow, database, simulator, BASELINE)
            heads = (
                args.provider,
                "paid for, s",
                "ended, s",
                "ms a request",
                "entries",
                "largest",
                "trigger",
            )
            print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
            print(f"| {BASELINE} | {base.paid:.1f} | {base.ended:.1f} | | {base.rows} | {base.largest} | |")
            for count in args.counts:
                one = measured(airflow, database, simulator, count)
                each = 1000 * (one.ended - base.ended) / (count - BASELINE)
                told = (one.rows, one.largest, one.arguments)
                cells = (f"{count:,}", f"{one.paid:.1f}", f"{one.ended:.1f}", f"{each:.1f}", *map(str, told))
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
