"""Run an example DAG on a real Airflow, against the simulator or the real providers, and check what it made.

Providers whose connection is in the environment already (AIRFLOW_CONN_VAP_DEFAULT, ...) are used as they are,
and cost money; the simulator plays the others, for nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import av
import httpx
from PIL import Image

import bucket
from deployment import Deployment, DeploymentError, free_port, tail


ROOT = Path(__file__).resolve().parent.parent
DAGS = ROOT / "example_dags"
PROVIDERS = (
    "vap",
    "acedata",
    "kling",
    "replicate",
    "fal",
    "runway",
    "luma",
    "comfyui",
    "google_media",
    "openai_media",
)
FROM_A_BUCKET = ("example_own_pictures",)
PROGRESS_SECONDS = 3.0
RUN_SECONDS = 3600.0
LOGS_SHOWN, LOG_LINES = 3, 10

Json = dict[str, Any]


class Line(NamedTuple):
    """One line of the table: a file that a generation task made, or the task itself where it left none."""

    product: str
    provider: str
    operation: str
    status: str
    seconds: str
    cost: str
    file: str
    sha256: str


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    names = sorted(path.stem for path in DAGS.glob("example_*.py"))
    parser.add_argument("--dag", choices=names, default="example_product_videos", help="default: %(default)s")
    parser.add_argument(
        "--output", type=Path, default=Path("media"), help="where files land; default: ./%(default)s"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=5.0,
        help="how long the simulator takes for a task; default: %(default)s",
    )
    parser.add_argument("--keep", action="store_true", help="leave Airflow running afterwards, until Ctrl-C")
    return parser.parse_args()


def simulated_connections(simulator: str) -> dict[str, str]:
    """Return the connections that the environment lacks, as variables that point to this simulator."""
    wanted = {f"AIRFLOW_CONN_{provider.upper()}_DEFAULT": provider for provider in PROVIDERS}
    return {
        name: json.dumps({"conn_type": provider, "host": f"{simulator}/{provider}", "password": "demo-key"})
        for name, provider in wanted.items()
        if name not in os.environ
    }


def start_simulator(airflow: Deployment, url: str, seconds: float) -> None:
    """Start the simulator beside Airflow, with tasks that take so many seconds, and wait until it answers."""
    port = url.rpartition(":")[2]
    command = [
        sys.executable,
        "-m",
        "airflow_media_tasks.simulator",
        "--port",
        port,
        "--seconds",
        str(seconds),
    ]
    wait_for(airflow, "simulator", command, f"{url}/_sim/ledger")


def start_bucket(airflow: Deployment, url: str) -> None:
    """Start an S3 with pictures beside Airflow, and wait until they are there."""
    command = [sys.executable, str(ROOT / "scripts" / "bucket.py"), url.rpartition(":")[2]]
    wait_for(airflow, "bucket", command, f"{url}/{bucket.BUCKET}/ready")


def wait_for(airflow: Deployment, name: str, command: list[str], url: str) -> None:
    """Start a process beside Airflow, and wait until it has an answer at this address."""
    process = airflow.start(name, command)
    for _ in range(200):
        try:
            httpx.get(url, timeout=5.0, trust_env=False).raise_for_status()
        except httpx.HTTPError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            return
    raise DeploymentError(f"The {name} does not answer:\n{tail(airflow.log_file(name))}")


class Progress:
    """Prints how far a run is, every few seconds; in a terminal always in the same line."""

    def __init__(self) -> None:
        self._next = 0.0
        self._last = ""

    def __call__(self, gone: float, task_instances: list[Json]) -> None:
        """Print the states ``gone`` seconds after the start, if it is time and they have changed."""
        states = Counter(instance["state"] or "to come" for instance in task_instances)
        waiting = states.pop("deferred", 0)
        parts = [f"{count} {state}" for state, count in sorted(states.items())]
        line = ", ".join([*parts, f"{waiting} waiting at the provider without a worker slot"])
        if sys.stdout.isatty():
            print(f"\r\033[K{gone:4.0f} s  {line}", end="", flush=True)
        elif gone >= self._next and line != self._last:
            print(f"{gone:4.0f} s  {line}", flush=True)
            self._next = gone + PROGRESS_SECONDS
            self._last = line


def name_of(instance: Json) -> str:
    """Return what a task instance is about: its product, its number among the mapped, or its task."""
    if instance["map_index"] < 0:
        return str(instance["task_id"])
    return str(instance["rendered_map_index"] or instance["map_index"])


def provider_of(media: Json) -> str:
    """Return the provider behind the connection of a media task, as far as its name says it."""
    return str(media["media_conn_id"]).removesuffix("_default")


def cost_of(media: Json) -> str:
    """Return what a media task cost, marked with ``~`` where the provider has only said what it expects."""
    cost = media.get("cost") or {}
    amount = cost.get("amount") or (f"~{cost['estimated']}" if cost.get("estimated") else "")
    return f"{amount} {cost['unit']}" if amount else ""


def read_results(airflow: Deployment, dag_id: str, run_id: str) -> tuple[list[Line], list[Json]]:
    """Return the table's lines, and the landed files as the operators list them."""
    media: list[tuple[Json, Json]] = []
    files: list[Json] = []
    lines: list[Line] = []
    for instance in airflow.task_instances(dag_id, run_id):
        if instance["state"] == "failed":
            lines.append(Line(name_of(instance), "", instance["task_id"], "failed", "", "", "", ""))
        value = airflow.xcom(dag_id, run_id, instance["task_id"], map_index=instance["map_index"])
        if isinstance(value, dict) and "media_conn_id" in value:
            media.append((instance, value))
            files += [file for file in value["files"] if "path" in file]
        elif isinstance(value, dict) and "paths" in value:
            files += value["files"]
    for instance, made in media:
        urls = {file["url"] for file in made["files"]}
        landed = [(file["path"], file["sha256"][:12]) for file in files if file["url"] in urls]
        lines += [
            Line(
                name_of(instance),
                provider_of(made),
                made["operation"],
                made["status"],
                f"{instance['duration']:.1f}",
                cost_of(made),
                path,
                digest,
            )
            for path, digest in landed or [(made["url"], "")]
        ]
    return sorted(lines), files


def print_table(lines: list[Line]) -> None:
    """Print the lines in columns, with their headings."""
    rows = [Line._fields, *([cell.replace(f"file://{Path.cwd()}/", "") for cell in line] for line in lines)]
    widths = [min(max(map(len, column)), 60) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def broken(file: Json) -> str | None:
    """Say what is wrong with a landed file, by decoding it, or None if nothing is."""
    path = Path(file["path"].removeprefix("file://"))
    try:
        if path.stat().st_size != file["size"]:
            return f"{path} has {path.stat().st_size} bytes, not {file['size']}"
        if file["kind"] in {"image", "thumbnail"}:
            with Image.open(path) as image:
                image.load()
        else:
            with av.open(str(path)) as container:
                next(container.decode(container.streams[0]))
    except (OSError, StopIteration, av.FFmpegError) as error:
        return f"{path} cannot be read: {error!r}"
    return None


def show_run(airflow: Deployment, dag_id: str) -> bool:
    """Run the DAG, print what happens and what it made, and return whether all of it is as it should be."""
    run_id = airflow.run(dag_id)
    state = airflow.wait(dag_id, run_id, seconds=RUN_SECONDS, progress=Progress())
    lines, files = read_results(airflow, dag_id, run_id)
    print()
    print_table(lines)
    print()
    failed = [
        instance for instance in airflow.task_instances(dag_id, run_id) if instance["state"] == "failed"
    ]
    for instance in failed[:LOGS_SHOWN]:
        log = airflow.log(dag_id, run_id, instance["task_id"], map_index=instance["map_index"])
        print(f"{instance['task_id']} ({name_of(instance)}) failed; the end of its log:")
        print("\n".join(log.splitlines()[-LOG_LINES:]), end="\n\n")
    defects = [defect for file in files if (defect := broken(file))]
    print(
        "\n".join(
            [*defects, f"{dag_id}: {state}; {len(files)} files landed, {len(files) - len(defects)} decode"]
        )
    )
    return state == "success" and bool(lines) and not defects


def main() -> int:
    """Start everything, show the run, stop everything; return the exit code."""
    options = read_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    simulator = f"http://127.0.0.1:{free_port()}"
    simulated = simulated_connections(simulator)
    store = f"http://127.0.0.1:{free_port()}"
    print("Starting Airflow (API server, scheduler, DAG processor, triggerer)", flush=True)
    try:
        settings = {
            "MEDIA_OUTPUT": f"file://{output}",
            "AIRFLOW__MEDIA_TASKS__GALLERY_ROOTS": f"file://{output}",
            **simulated,
            **(bucket.settings(store) if options.dag in FROM_A_BUCKET else {}),
        }
        with Deployment(DAGS, settings=settings) as airflow:
            if simulated:
                start_simulator(airflow, simulator, options.seconds)
            if options.dag in FROM_A_BUCKET:
                start_bucket(airflow, store)
            good = show_run(airflow, options.dag)
            if options.keep:
                print(f"Airflow is at {airflow.url}, with two logins:")
                for user, password in airflow.passwords.items():
                    print(f"  {user}, password {password}")
                print(f"What was made: {airflow.url}/plugin/media")
                print("Ctrl-C stops it.", flush=True)
                signal.pause()
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0 if options.keep else 130
    except DeploymentError as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
