"""The same films as one batch and as mapped tasks: wall time, whose CPU time, and rows in Airflow's database.

    python benchmarks/batch_against_mapped.py --count 1000

On PostgreSQL, Redis and Celery, as `scripts/test --faults` starts them, against the simulator. One after the
other, on the same cluster; each lands its files. Prints a table in Markdown and the ratios. The simulator has
a process of its own, so that its CPU time is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "faults"), str(ROOT / "scripts"), str(ROOT)]

import psutil  # noqa: E402  # as below
from cluster import TRIGGERERS, WORKERS, Cluster  # noqa: E402  # the paths above come first

from bench_simulator import SimulatorProcess, call, cpu_seconds  # noqa: E402  # as below


SECONDS = 30.0  # that each film takes


def rows(cluster: Cluster) -> dict[str, int]:
    """How many rows each table of the metadata database has."""
    tables = cluster.rows("select tablename from pg_tables where schemaname = 'public'")
    # The names come from the database itself.
    return {name: cluster.rows(f'select count(*) from "{name}"')[0][0] for (name,) in tables}  # noqa: S608


PARTS = {
    "two Celery workers, with all tasks": WORKERS,
    "two triggerers": TRIGGERERS,
    "scheduler": ("scheduler",),
    "API server": ("api-server",),
    "DAG processor": ("dag-processor",),
}


def spent(cluster: Cluster, simulator: SimulatorProcess) -> dict[str, float]:
    """CPU seconds of each part so far, with all that it has started, also what has ended."""
    found = {"simulator": cpu_seconds(simulator.pid)}
    for part, names in PARTS.items():
        family = [process for name in names for process in cluster.family(name)]
        found[part] = sum(sum(_times(process)) for process in family)
    servers = (cluster.postgres, cluster.redis)
    found["PostgreSQL and Redis"] = sum(sum(_times(each)) for server in servers for each in server.family())
    return found


def _times(process: psutil.Process) -> tuple[float, float, float, float]:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0, 0, 0, 0  # it is among its parent's ended children now, or will be
    return times.user, times.system, times.children_user, times.children_system


@contextmanager
def cluster_of(folder: Path, simulator: SimulatorProcess) -> Iterator[Cluster]:
    """Two workers and two triggerers that know the films in *folder*."""
    settings = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "FILMS_FOLDER": str(folder),
        "AIRFLOW_CONN_KLING_DEFAULT": json.dumps(
            {"conn_type": "kling", "host": f"{simulator.url}/kling", "password": "films-key"}
        ),
        "AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS": "127.0.0.1",
    }
    home = folder / "airflow"
    home.mkdir()
    with Cluster(ROOT / "tests" / "faults" / "batch_dags", home, settings) as cluster:
        yield cluster


def main() -> None:
    """Measures the two and prints what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="how many films each makes")
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds that each may take")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ba-") as name, SimulatorProcess(seconds=SECONDS) as simulator:
        folder = Path(name)
        folder.chmod(0o755)
        with (folder / "requests.jsonl").open("w") as lines:
            for number in range(args.count):
                lines.write(json.dumps({"prompt": f"Film number {number}"}) + "\n")
        figures = {}
        with cluster_of(folder, simulator) as cluster:
            for dag_id in ("films_batch", "films_mapped"):
                paid, before, began = len(call(simulator.url, "ledger")), rows(cluster), time.monotonic()
                cpu = spent(cluster, simulator)
                run_id = cluster.run(dag_id, seconds=300)
                state = cluster.wait(dag_id, run_id, seconds=args.patience)
                took = time.monotonic() - began
                cpu = {part: value - cpu[part] for part, value in spent(cluster, simulator).items()}
                after = rows(cluster)
                paid = len(call(simulator.url, "ledger")) - paid
                landed = len([*(folder / dag_id.removeprefix("films_")).rglob("*.mp4")])
                if (state, landed, paid) != ("success", args.count, args.count):
                    raise SystemExit(f"{dag_id} is {state}: {landed} files, {paid} paid")
                more = {table: count - before.get(table, 0) for table, count in after.items()}
                figures[dag_id] = took, cpu, {table: count for table, count in more.items() if count}
                print(f"{dag_id}: {took:.1f} s, {sum(more.values())} rows", flush=True)
    batch_took, batch_cpu, batch = figures["films_batch"]
    mapped_took, mapped_cpu, mapped = figures["films_mapped"]
    print(f"\n| {args.count} films | one batch | mapped tasks | mapped / batch |\n|---|---|---|---|")
    print(f"| wall time, s | {batch_took:.1f} | {mapped_took:.1f} | {mapped_took / batch_took:.1f} |")
    for part, of_batch in batch_cpu.items():
        print(f"| CPU, s: {part} | {of_batch:.1f} | {mapped_cpu[part]:.1f} | |")
    all_batch, all_mapped = sum(batch.values()), sum(mapped.values())
    print(f"| rows, all tables | {all_batch} | {all_mapped} | {all_mapped / max(all_batch, 1):.1f} |")
    for table in sorted({*batch, *mapped}, key=lambda table: -mapped.get(table, 0)):
        print(f"| rows, `{table}` | {batch.get(table, 0)} | {mapped.get(table, 0)} | |")


if __name__ == "__main__":
    main()
