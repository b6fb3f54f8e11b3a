"""All contenders, one after the other: tables in Markdown, a plot, and what the machine was.

First each is one asyncio process (`measure.py`), and the simulator another, whose CPU is counted apart; then
some of them run in Airflow's own triggerer (`triggerer.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import triggerer
from bench_simulator import SimulatorProcess
from contenders import CONTENDERS, INTERVAL, connections
from measure import WARM
from report import Figures, bounds_table, machine, plot, real_table, table


HERE = Path(__file__).parent
# Who cannot poll so many in an interval is measured with as many as it can.
LOADS = {
    "timer": (1_000, 10_000),
    "acedata": (100, 1_000, 10_000),
    "kling": (1_000, 10_000),
    "vap": (1_000, 10_000),
    "single": (100, 1_000, 10_000),
    "http": (1_000, 10_000),
    "per-poll": (100,),
    "per-trigger": (500,),
    "blocking": (100,),
}
ALONE = {("http", 10_000)}  # the others leave most of a core idle, and run two at a time


def measured(name: str, count: int) -> Figures:
    """The figures of one contender with so many tasks."""
    with tempfile.TemporaryDirectory(prefix="media-tasks-bench-") as home, SimulatorProcess() as simulator:
        ends = Path(home) / "ends.json"
        ends.write_text(json.dumps(simulator.submit(CONTENDERS[name], count + WARM, 2 * INTERVAL)))
        command = [sys.executable, str(HERE / "measure.py"), name]
        command += [simulator.url, str(simulator.pid), str(ends)]
        environment = {**os.environ, **connections(simulator.url), "AIRFLOW_HOME": home}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=300, check=True)
    figures: Figures = {"contender": name, **json.loads(done.stdout)}
    return figures


def all_measured(loads: list[tuple[str, int]]) -> Iterator[Figures]:
    """In the order of *loads*."""
    figures: dict[tuple[str, int], Figures] = {}
    others = sorted((load for load in loads if load not in ALONE), key=lambda load: load[1])
    for pool_size, some in ((2, others), (1, [load for load in loads if load in ALONE])):
        with ThreadPoolExecutor(pool_size) as pool:
            for load, row in zip(some, pool.map(lambda load: measured(*load), some), strict=True):
                figures[load] = row
                print(f"{load[0]}, {load[1]:,} tasks: {row['cpu_ms']:.3f} ms", file=sys.stderr, flush=True)
    return (figures[load] for load in loads)


def main() -> None:
    """Runs what the command line names, by default everything."""
    parser = argparse.ArgumentParser(
        description="What a waiting task costs, ours against other ways to wait."
    )
    parser.add_argument("--only", nargs="*", choices=LOADS, default=list(LOADS), metavar="CONTENDER")
    parser.add_argument("--tasks", nargs="+", type=int, help="other numbers of tasks")
    parser.add_argument(
        "--real",
        nargs="*",
        choices=triggerer.NAMES,
        default=triggerer.NAMES,
        metavar="CONTENDER",
        help="who runs in Airflow's own triggerer as well; nobody if no name follows",
    )
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    described, began = machine(), time.monotonic()
    loads = [(name, count) for name in options.only for count in options.tasks or LOADS[name]]
    rows = list(all_measured(loads))
    real = triggerer.measured_all(options.real) if options.real else []
    parts = [table(rows), bounds_table(rows)] if rows else []
    parts += [real_table(real)] if real else []
    parts += [f"{described}. {(time.monotonic() - began) / 60:.1f} minutes."]
    text = "\n\n".join(parts) + "\n"
    (options.output / "results.md").write_text(text)
    (options.output / "results.json").write_text(json.dumps({"rows": rows, "real": real}, indent=1))
    if rows:
        plot(rows, options.output / "performance.png")
    print(f"{text}\nin {options.output}")


if __name__ == "__main__":
    main()
