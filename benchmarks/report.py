"""What was measured: tables in Markdown, what was demanded of ours, and a plot."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
import psutil
from matplotlib import pyplot as plt

from contenders import CONTENDERS, INTERVAL


Figures = dict[str, Any]

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
REAL_COLUMNS = (
    "in the real triggerer",
    "resumed",
    "wall, s",
    "against timers",
    "CPU while waiting, supervisor / runner",
    "runner, MiB",
    "loop blocked",
    "ledger",
)
PACKAGES = ("apache-airflow", "apache-airflow-providers-http", "httpx", "aiohttp")


def machine() -> str:
    """What this runs on, in one line."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {psutil.virtual_memory().total / 2**30:.0f} GiB, "
        f"{platform.system()}, Python {platform.python_version()}, {versions}; "
        f"load {os.getloadavg()[0]:.1f} when it began"
    )


def in_markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cells(row: Figures, empty: Figures) -> list[str]:
    """One line of the table; *empty* are the figures of as many empty triggers."""
    name = CONTENDERS[row["contender"]].label
    if row["contender"] == "timer":
        return [name, f"{row['tasks']:,}", *[""] * 5, f"{row['memory_kib']:.1f}", "", ""]
    ends = "nothing ended"
    if row["fired"]:
        late = "" if row["fired"] == row["tasks"] else f" ({row['fired']:,} of them in time)"
        ends = f"{row['detect_p50']:.1f} / {row['detect_p99']:.1f}{late}"
    memory = f"{row['memory_kib'] - empty['memory_kib']:.1f}" if empty else ""
    return [
        name,
        f"{row['tasks']:,}",
        f"{row['cpu_ms']:.3f}",
        f"{row['requests']:.4f}" if row["requests"] < 0.5 else f"{row['requests']:.2f}",
        f"{min(row['kept_up'], 1):.0%}",
        f"{row['lag_ms']:.0f}",
        ends,
        memory,
        f"{row['sockets']:,}",
        f"{row['simulator_waiting']:.0%} / {row['simulator_ending']:.0%}",
    ]


def table(rows: Sequence[Figures]) -> str:
    """Every contender's figures; memory is what a task needs above an empty trigger."""
    empty = {row["tasks"]: row for row in rows if row["contender"] == "timer"}
    return in_markdown(COLUMNS, [cells(row, empty.get(row["tasks"], {})) for row in rows])


def real_table(rows: Sequence[Figures]) -> str:
    """The same tasks in the real triggerer; the first row is that of the timers."""
    lines = [
        [
            CONTENDERS[row["contender"]].label,
            f"{row['resumed']:,}",
            f"{row['took']:.0f}",
            f"{row['took'] / rows[0]['took']:.2f}",
            f"{row['supervisor']:.0%} / {row['runner']:.0%}",
            f"{row['memory']:.0f}",
            str(row["blocked"]),
            f"{row['ledger']:,}",
        ]
        for row in rows
    ]
    return in_markdown(REAL_COLUMNS, lines)


OURS = ("acedata", "kling", "vap", "single")


def bounds(rows: Sequence[Figures]) -> Iterator[tuple[str, str, dict[tuple[str, int], tuple[float, float]]]]:
    """What is demanded of ours: figure, bound in words, and for each way what was measured and its bound."""
    by = {(row["contender"], row["tasks"]): row for row in rows}
    ours = {load: row for load, row in by.items() if load[0] in OURS and load[1] >= 1_000}

    def cpu(bound: dict[tuple[str, int], float], other: str = "", count: int = 0) -> Any:
        against = {load: by.get((other or load[0], count or load[1])) for load in bound if load in ours}
        return {
            load: (ours[load]["cpu_ms"] / row["cpu_ms"], bound[load]) for load, row in against.items() if row
        }

    shares = {
        ("acedata", 1_000): 1 / 12,
        ("acedata", 10_000): 1 / 40,
        ("single", 1_000): 1 / 3,
        ("single", 10_000): 1 / 3,
    }
    yield "CPU, share of the HTTP provider's", "1/12, at 10,000 1/40; single reads 1/3", cpu(shares, "http")
    yield "CPU, share of a client per poll", "1/400", cpu({("acedata", 10_000): 1 / 400}, "per-poll", 100)
    flat = {(name, 10_000): 1.0 for name in ("acedata", "single")}
    yield "CPU, share of that of 100 tasks", "1", cpu(flat, count=100)
    asked = {"acedata": 1 / 50, "kling": 1 / 40, "vap": 1.0, "single": 1.0}
    sent = {load: (row["requests"], asked[load[0]]) for load, row in ours.items()}
    yield "status requests per task and poll", "AceData 1/50, Kling 1/40", sent
    for name, bound, key, most in (
        ("lag of the loop, p99", "20 ms", "lag_ms", 20.0),
        ("finished to event, p50", "3 s", "detect_p50", 3.0),
        ("finished to event, p99", "6 s", "detect_p99", 6.0),
        ("open sockets", "10", "sockets", 10.0),
    ):
        yield name, bound, {load: (row[key], most) for load, row in ours.items()}
    memory = {
        load: (row["memory_kib"] - by["timer", load[1]]["memory_kib"], 4.0)
        for load, row in ours.items()
        if ("timer", load[1]) in by
    }
    yield "memory above an empty trigger", "4 KiB", memory


def bounds_table(rows: Sequence[Figures]) -> str:
    """What is demanded of ours and what was measured; bold where it does not hold."""
    loads = [(name, count) for name in OURS for count in (1_000, 10_000)]
    lines = []
    for name, bound, measured in bounds(rows):
        cells = [measured.get(load) for load in loads]
        lines.append([name, bound, *(cell_of(*cell) if cell else "" for cell in cells)])
    columns = ["figure", "bound", *(f"{CONTENDERS[name].short}, {count:,}" for name, count in loads)]
    return in_markdown(columns, lines)


def cell_of(value: float, most: float) -> str:
    """A number, small shares as one over so many; bold if it is more than *most*."""
    text = f"1/{1 / value:.3g}" if 0 < value < 0.5 and most <= 1 else f"{value:.2f}".rstrip("0").rstrip(".")
    return text if value <= most else f"**{text}**"


def plot(rows: Sequence[Figures], file: Path) -> None:
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
