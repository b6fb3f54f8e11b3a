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
PACKAGES = ("apache-airflow", "apache-airflow-providers-http", "httpx", "httpx-aiohttp", "aiohttp")


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


def bounds(rows: Sequence[Figures], real: Sequence[Figures]) -> Iterator[tuple[str, str, float, float]]:
    """What is demanded of ours: what it is, of whom, the bound, and what was measured (not more is good)."""
    by = {(row["contender"], row["tasks"]): row for row in rows}

    def ratio(name: str, count: int, other: tuple[str, int], most: float) -> Iterator[Any]:
        if (name, count) in by and other in by:
            whose = f"{CONTENDERS[name].label}, {count:,}"
            share = by[name, count]["cpu_ms"] / by[other]["cpu_ms"]
            yield f"CPU against {CONTENDERS[other[0]].label}, {other[1]:,}", whose, most, share

    yield from ratio("acedata", 1_000, ("http", 1_000), 1 / 12)
    yield from ratio("acedata", 10_000, ("http", 10_000), 1 / 40)
    yield from ratio("acedata", 10_000, ("per-poll", 100), 1 / 400)
    yield from ratio("single", 1_000, ("http", 1_000), 1 / 3)
    yield from ratio("single", 10_000, ("http", 10_000), 1 / 3)
    for name in ("acedata", "single"):
        yield from ratio(name, 10_000, (name, 100), 1.0)
    for (name, count), row in by.items():
        if name not in ("acedata", "kling", "vap", "single") or count < 1_000:
            continue
        whose = f"{CONTENDERS[name].label}, {count:,}"
        most = {"acedata": 1 / 50, "kling": 1 / 40}.get(name)
        if most is not None:
            yield "status requests per task and poll", whose, most, row["requests"]
        yield "lag of the loop p99, ms", whose, 20.0, row["lag_ms"]
        yield "finished to event p50, s", whose, 3.0, row["detect_p50"]
        yield "finished to event p99, s", whose, 6.0, row["detect_p99"]
        if ("timer", count) in by:
            above = row["memory_kib"] - by["timer", count]["memory_kib"]
            yield "memory above an empty trigger, KiB", whose, 4.0, above
        yield "sockets", whose, 10.0, row["sockets"]
    for row in real:
        if row["contender"] == "acedata":
            whose = f"{CONTENDERS['acedata'].label}, in the real triggerer"
            yield "wall time against timers", whose, 1.2, row["took"] / real[0]["took"]
            yield "tasks not resumed", whose, 0.0, real[0]["resumed"] - row["resumed"]
            yield "tasks paid more than once", whose, 0.0, row["ledger"] - real[0]["resumed"]
            yield "warnings that the loop was blocked", whose, 0.0, row["blocked"]


def bounds_table(rows: Sequence[Figures], real: Sequence[Figures]) -> str:
    """What is demanded of ours, and whether it holds."""
    lines = []
    for what, whose, most, measured in bounds(rows, real):
        lines.append([what, whose, shown(most), shown(measured), "yes" if measured <= most else "**no**"])
    return in_markdown(("figure", "of", "bound", "measured", "met"), lines)


def shown(value: float) -> str:
    """A number; small shares as one over so many."""
    if 0 < value < 0.5:
        return f"1/{1 / value:.1f}".removesuffix(".0")
    return f"{value:.2f}".rstrip("0").rstrip(".")


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
