"""All contenders, one after the other: a Markdown table, a plot, and what the machine was.

Each is one asyncio process (`measure.py`), the simulator is another; its CPU is counted apart.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from bench_simulator import SimulatorProcess
from contenders import CONTENDERS, INTERVAL, connections


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
    "per-trigger": (1_000,),
    "blocking": (100,),
}
COLUMNS = (
    "way to wait",
    "tasks",
    "CPU ms per task and poll",
    "requests per task and poll",
    "kept up",
    "lag p99, ms",
    "detected p50 / p99, s",
    "KiB per task",
    "sockets",
    "simulator's CPU",
)
PORT = 24_000
Figures = dict[str, Any]


def measured(name: str, count: int, home: Path) -> Figures:
    """The figures of one contender with so many tasks."""
    spread = 0.0 if name == "timer" else 15.0 if count > 1_000 else 10.0
    window = 2.0 if name == "timer" else 20.0
    with SimulatorProcess(PORT) as simulator:
        ends = home / "ends.json"
        ends.write_text(json.dumps(simulator.submit(CONTENDERS[name], count + 1, spread)))
        command = [
            sys.executable,
            str(HERE / "measure.py"),
            name,
            simulator.url,
            str(simulator.pid),
            str(ends),
        ]
        command += ["--window", str(window), "--spread", str(spread)]
        environment = {**os.environ, **connections(simulator.url), "AIRFLOW_HOME": str(home)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=300, check=True)
    figures: Figures = {"contender": name, **json.loads(done.stdout)}
    return figures


def machine() -> str:
    """What this ran on, in one line."""
    packages = ("apache-airflow", "apache-airflow-providers-http", "httpx", "httpx-aiohttp", "aiohttp")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()}, "
        f"Python {platform.python_version()}, {versions}; load {os.getloadavg()[0]:.1f} when it began"
    )


def table(rows: Iterable[Figures]) -> str:
    """The rows in Markdown; memory is what a task needs above an empty trigger."""
    rows = list(rows)
    empty = {row["tasks"]: row["memory_kib"] for row in rows if row["contender"] == "timer"}
    lines = [
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
    ]
    for row in rows:
        lost = "" if row["fired"] == row["tasks"] else f" ({row['fired']} of them in time)"
        timer = row["contender"] == "timer"
        memory = row["memory_kib"] - (0 if timer else empty.get(row["tasks"], math.nan))
        cells = [
            CONTENDERS[row["contender"]].label,
            f"{row['tasks']:,}",
            "" if timer else f"{row['cpu_ms']:.3f}",
            "" if timer else f"{row['requests']:.4f}" if row["requests"] < 0.5 else "1",
            "" if timer else f"{min(row['kept_up'], 1):.0%}",
            f"{row['lag_ms']:.0f}",
            "" if timer else f"{row['detect_p50']:.1f} / {row['detect_p99']:.1f}{lost}",
            "" if math.isnan(memory) else f"{memory:.1f}",
            f"{row['sockets']:,}",
            f"{row['simulator_share']:.0%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(rows: Iterable[Figures], file: Path) -> None:
    """CPU per task and poll against the number of waiting tasks."""
    mpl.use("agg")
    figure, axes = plt.subplots(figsize=(7.5, 4.2), dpi=110)
    by_name: dict[str, list[Figures]] = {}
    for row in rows:
        if row["contender"] != "timer":
            by_name.setdefault(row["contender"], []).append(row)
    for name, own in by_name.items():
        ours = CONTENDERS[name].label.startswith("ours")
        axes.plot(
            [row["tasks"] for row in own],
            [row["cpu_ms"] for row in own],
            marker="o" if ours else "s",
            linestyle="-" if ours else "--",
            label=CONTENDERS[name].label,
        )
    axes.set(xscale="log", yscale="log", xlabel="waiting tasks", ylabel="CPU per task and poll, ms")
    axes.set_title(f"What a waiting task costs, asked every {INTERVAL:g} s", fontsize=11)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.savefig(file, bbox_inches="tight")


def main() -> None:
    """Runs what the command line names, by default everything."""
    parser = argparse.ArgumentParser(
        description="What a waiting task costs, ours against other ways to wait."
    )
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(LOADS), metavar="CONTENDER")
    parser.add_argument("--tasks", nargs="+", type=int, help="other numbers of tasks")
    parser.add_argument("--real", action="store_true", help="the real triggerer instead, with PostgreSQL")
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.real:
        import triggerer  # noqa: PLC0415  # it needs PostgreSQL's driver

        triggerer.run(options.output)
        return
    described, began, rows = machine(), time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="media-tasks-bench-") as home:
        for name in options.only:
            for count in options.tasks or LOADS[name]:
                rows.append(measured(name, count, Path(home)))
                print(table(rows).splitlines()[-1], flush=True)
    plot(rows, options.output / "performance.png")
    text = f"{table(rows)}\n\n{described}. {(time.monotonic() - began) / 60:.1f} minutes.\n"
    (options.output / "results.md").write_text(text)
    (options.output / "results.json").write_text(json.dumps(rows, indent=1))
    print(f"\n{text}\nin {options.output}")


if __name__ == "__main__":
    main()
