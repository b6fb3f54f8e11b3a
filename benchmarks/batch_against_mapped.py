"""The same films as one batch and as mapped tasks: wall time, and rows in Airflow's metadata database.

    python benchmarks/batch_against_mapped.py --count 1000

On PostgreSQL, Redis and Celery, as `scripts/test --faults` starts them, against the simulator. One after the
other, on the same cluster; each lands its files. Prints a table in Markdown and the ratios.
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

from cluster import Cluster  # noqa: E402  # as above

from airflow_media_tasks.simulator import Simulator  # noqa: E402  # the paths above come first


SECONDS = 30.0  # that each film takes


def rows(cluster: Cluster) -> dict[str, int]:
    """How many rows each table of the metadata database has."""
    tables = cluster.rows("select tablename from pg_tables where schemaname = 'public'")
    # The names come from the database itself.
    return {name: cluster.rows(f'select count(*) from "{name}"')[0][0] for (name,) in tables}  # noqa: S608


@contextmanager
def cluster_of(folder: Path, simulator: Simulator) -> Iterator[Cluster]:
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
    with tempfile.TemporaryDirectory(prefix="ba-") as name, Simulator(seconds=SECONDS) as simulator:
        folder = Path(name)
        folder.chmod(0o755)
        with (folder / "requests.jsonl").open("w") as lines:
            for number in range(args.count):
                lines.write(json.dumps({"prompt": f"Film number {number}"}) + "\n")
        figures = {}
        with cluster_of(folder, simulator) as cluster:
            for dag_id in ("films_batch", "films_mapped"):
                paid, before, began = len(simulator.ledger()), rows(cluster), time.monotonic()
                run_id = cluster.run(dag_id, seconds=300)
                state = cluster.wait(dag_id, run_id, seconds=args.patience)
                took = time.monotonic() - began
                after = rows(cluster)
                landed = len([*(folder / dag_id.removeprefix("films_")).rglob("*.mp4")])
                if (state, landed, len(simulator.ledger()) - paid) != ("success", args.count, args.count):
                    raise SystemExit(f"{dag_id} is {state}: {landed} files, {len(simulator.ledger())} paid")
                more = {table: count - before.get(table, 0) for table, count in after.items()}
                figures[dag_id] = took, {table: count for table, count in more.items() if count}
                print(f"{dag_id}: {took:.1f} s, {sum(more.values())} rows", flush=True)
    (batch_took, batch), (mapped_took, mapped) = figures["films_batch"], figures["films_mapped"]
    print(f"\n| {args.count} films | one batch | mapped tasks | mapped / batch |\n|---|---|---|---|")
    print(f"| wall time, s | {batch_took:.1f} | {mapped_took:.1f} | {mapped_took / batch_took:.1f} |")
    all_batch, all_mapped = sum(batch.values()), sum(mapped.values())
    print(f"| rows, all tables | {all_batch} | {all_mapped} | {all_mapped / max(all_batch, 1):.1f} |")
    for table in sorted({*batch, *mapped}, key=lambda table: -mapped.get(table, 0)):
        print(f"| rows, `{table}` | {batch.get(table, 0)} | {mapped.get(table, 0)} | |")


if __name__ == "__main__":
    main()
