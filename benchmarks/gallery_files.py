"""What the gallery's checks cost: films in S3 until their first bytes come; and results that are too large.

    PYTHONPATH=scripts:tests/faults:benchmarks python benchmarks/gallery_files.py

It needs the extras `dev` and `bench`.

A real Airflow, with PostgreSQL, and an S3 (moto, in a process of its own) with 48 films of 100 MB and one of
1 GB. No film is made: task instances are created and marked as succeeded over Airflow's REST API, and their
results written as landing writes them. No browser is needed either: what the page's script asks for is asked
for by plain HTTP, the films six at a time, as a browser does, from their beginning (`Range: bytes=0-`), and
the time is taken when the first bytes come. *First* means that the API server has seen nothing of it before,
*again* that it has. Beside that stands what the same S3 needs for a ranged GET of the same objects: moto
reads the whole object for every part of it, which S3 does not.

Then eight results of 3 MiB: how long other requests of the API server wait while the page that lists them is
made, beside how long they wait while nobody asks, and while Airflow's own API is asked for the same results.

Prints a line of JSON for each figure, in seconds: the median and the worst of as many as `count` says, and
the machine's load. After 15 minutes it ends. Exit code 0 if all films came.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.session  # type: ignore[import-untyped]  # it has no types
import httpx
from cluster import Server

from airflow_media_tasks.landing.storage import ENDS
from deployment import Deployment, free_port, token_of
from triggerer import postgres


MB = 10**6
FILMS, FILM, LONG = 48, 100 * MB, 1000 * MB
LARGE, LARGE_BYTES = 8, 3 * 2**20
AT_ONCE = 6
"""Connections that a browser has to one server."""
PATIENCE = 120.0
MOST = 900
"""Seconds for all of it."""
SETTLES = 5.0
"""Seconds after which what a client has hung up on is not read any more."""
DAG_ID, RUN_ID = "films", "one"
KEY, SECRET = "AKIDOFTHEBENCHMARK", "secret-of-the-benchmark"  # moto takes any
DAG = f"""
from airflow.sdk import DAG
from airflow_media_tasks.operators import GenerateVideoOperator

with DAG("{DAG_ID}", schedule=None):
    usual = {{"media_conn_id": "vap_default", "save_to": "s3://s3_media@media/landed"}}
    for name, count in (("film", {FILMS}), ("long", 1), ("large", {LARGE})):
        prompts = [f"{{name}} {{number}}" for number in range(count)]
        GenerateVideoOperator.partial(task_id=name, **usual).expand(prompt=prompts)
"""

Json = dict[str, Any]


@contextmanager
def s3(log: Path) -> Iterator[tuple[str, Any]]:
    """An S3 on loopback with the bucket `media`: its address, and a client of it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(url, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    server = Server([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], log, answers)
    server.start()
    try:
        session = botocore.session.Session()
        session.set_credentials(KEY, SECRET)
        client = session.create_client("s3", region_name="us-east-1", endpoint_url=url)
        client.create_bucket(Bucket="media")
        yield url, client
    finally:
        server.stop()


def put(client: Any, name: str, size: int, number: int) -> Json:
    """Puts a film of *size* bytes into the bucket; the result of the task that has landed it."""
    content = b"\0\0\0\x20ftypisom" + number.to_bytes(8, "big") + bytes(size - 20)
    client.put_object(Bucket="media", Key=f"landed/{name}", Body=content)
    file = {
        "kind": "video",
        "url": "https://cdn.example/film.mp4",
        "path": f"s3://s3_media@media/landed/{name}",
        "content_type": "video/mp4",
        "size": size,
        "sha256": hashlib.sha256(content).hexdigest(),
        "ends_sha256": hashlib.sha256(content[:ENDS] + content[-ENDS:]).hexdigest(),
    }
    return result_of(f"{name} in the morning", [file])


def result_of(prompt: str, files: list[Json]) -> Json:
    """What a task of ours returns."""
    return {
        "id": "task-1",
        "operation": "text_to_video",
        "media_conn_id": "vap_default",
        "provider": "vap",
        "arguments": {"prompt": prompt},
        "model": None,
        "files": files,
        "cost": {"unit": "USD", "amount": "0.5", "estimated": None},
        "submitted_at": "2026-01-01T00:00:00+00:00",
        "finished_at": "2026-01-01T00:00:42+00:00",
    }


def succeeded(airflow: Deployment, task_id: str, map_index: int, value: Json) -> None:
    """Marks a task instance, and writes what it returned."""
    path = f"dags/{DAG_ID}/dagRuns/{RUN_ID}/taskInstances/{task_id}"
    airflow.request("PATCH", f"{path}/{map_index}", json={"new_state": "success"})
    body = {"key": "return_value", "value": value, "map_index": map_index}
    airflow.request("POST", f"{path}/xcomEntries", json=body)


def begin(airflow: Deployment) -> None:
    """Creates the run; its DAG stays paused, so nothing of it runs."""
    for _ in airflow.ticks(PATIENCE, 0.5):
        if airflow.request("GET", "dags", params={"dag_id_pattern": DAG_ID, "paused": True})["dags"]:
            break
    body = {"logical_date": None, "dag_run_id": RUN_ID}
    airflow.request("POST", f"dags/{DAG_ID}/dagRuns", json=body)


def first_byte(client: httpx.Client, url: str, params: Mapping[str, Any] | None = None) -> float:
    """Seconds until the first bytes of what is at *url* come; the rest is not read."""
    began = time.perf_counter()
    with client.stream("GET", url, params=params, headers={"Range": "bytes=0-"}) as reply:
        if reply.status_code != httpx.codes.PARTIAL_CONTENT:
            raise RuntimeError(f"{url}: {reply.status_code} {reply.read()[:200]!r}")
        next(reply.iter_raw())
        return time.perf_counter() - began


def told(what: str, seconds: list[float], **more: Any) -> None:
    """Prints one figure, and the machine's load of the last minute."""
    figures = {"median": round(statistics.median(seconds), 3), "worst": round(max(seconds), 3)}
    load = round(os.getloadavg()[0], 1)
    print(json.dumps({"what": what, "count": len(seconds), **figures, **more, "load": load}), flush=True)


def together(what: str, asks: list[Callable[[], float]]) -> None:
    """Does all of *asks*, as many at once as a browser; tells what each took, and all of them."""
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        seconds = [future.result() for future in [pool.submit(ask) for ask in asks]]
    told(what, seconds, together=round(time.perf_counter() - began, 3))


def film_of(gallery: httpx.Client, task_id: str, map_index: int) -> Callable[[], float]:
    """Asks the gallery for the film that a task instance has landed."""
    place = {"dag_id": DAG_ID, "run_id": RUN_ID, "task_id": task_id, "map_index": map_index, "n": 0}
    return lambda: first_byte(gallery, "file", place)


def listed(gallery: httpx.Client, task_id: str, count: int) -> float:
    """Seconds until the page's items are there."""
    began = time.perf_counter()
    reply = gallery.get("api/items", params={"dag_id": DAG_ID, "task_id": task_id}).raise_for_status()
    taken = time.perf_counter() - began
    if len(reply.json()["items"]) != count:
        raise RuntimeError(f"{len(reply.json()['items'])} items of {count}")
    return taken


def films(gallery: httpx.Client, client: Any, log: Path) -> None:
    """The page of 48 films, and the long one; and how many reads of S3 each look takes."""
    direct = httpx.Client(trust_env=False, timeout=PATIENCE)

    def reads() -> int:
        time.sleep(SETTLES)
        return log.read_bytes().count(b'"GET /media/landed/')

    def of_s3(name: str) -> Callable[[], float]:
        place = {"Bucket": "media", "Key": f"landed/{name}"}
        url = client.generate_presigned_url("get_object", Params=place)
        return lambda: first_byte(direct, url)

    with direct:
        together("48 films of 100 MB: S3 alone", [of_s3(f"film-{number}.mp4") for number in range(FILMS)])
        for look in ("first", "again"):
            told(f"48 films of 100 MB: listed, {look}", [listed(gallery, "film", FILMS)])
            asks = [film_of(gallery, "film", number) for number in range(FILMS)]
            before = reads()
            together(f"48 films of 100 MB: first bytes of each, {look}", asks)
            print(json.dumps({"what": f"48 films of 100 MB: reads of S3, {look}", "count": reads() - before}))
        told("one film of 1 GB: S3 alone", [of_s3("long-0.mp4")()])
        for look in ("first", "again"):
            told(f"one film of 1 GB: first bytes, {look}", [film_of(gallery, "long", 0)()])


def waits(airflow: Deployment, what: str, work: Callable[[], Any]) -> None:
    """Tells how long small requests of the API server take while *work* is done, and how long that takes."""
    headers = {"Authorization": f"Bearer {token_of(airflow.url, 'admin', airflow.passwords['admin'])}"}
    seconds: list[float] = []
    done = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=airflow.url, headers=headers, trust_env=False, timeout=PATIENCE) as client:
            while not done.is_set() or not seconds:
                began = time.perf_counter()
                client.get("/api/v2/version").raise_for_status()
                seconds.append(time.perf_counter() - began)
                done.wait(0.02)

    asking = threading.Thread(target=ask)
    asking.start()
    began = time.perf_counter()
    try:
        work()
    finally:
        took = time.perf_counter() - began
        done.set()
        asking.join()
    told(f"another request waits: {what}", seconds, took=round(took, 3))


def large_results(airflow: Deployment, gallery: httpx.Client) -> None:
    """Eight results of 3 MiB."""
    for number in range(LARGE):
        succeeded(airflow, "large", number, result_of("x" * LARGE_BYTES, []))
    path = f"dags/{DAG_ID}/dagRuns/{RUN_ID}/taskInstances/large/xcomEntries/return_value"

    def by_airflow() -> None:
        for number in range(LARGE):
            airflow.request("GET", path, params={"map_index": number})

    waits(airflow, "nobody else asks", lambda: time.sleep(5))
    waits(airflow, "Airflow's API sends eight results of 3 MiB", by_airflow)
    for look in ("first", "again"):
        work = lambda: listed(gallery, "large", LARGE)  # noqa: E731  # it has no better name
        waits(airflow, f"the page of eight results of 3 MiB, {look}", work)


def stop(number: int, _: object) -> None:
    """Ends this process, which cleans up."""
    sys.exit(f"ended by {signal.Signals(number).name}")


def main() -> None:
    """Makes all of it, measures, prints."""
    for ending in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(ending, stop)
    signal.alarm(MOST)
    with tempfile.TemporaryDirectory() as folder, s3(Path(folder) / "s3.log") as (s3_url, client):
        dags = Path(folder) / "dags"
        dags.mkdir()
        (dags / "films.py").write_text(DAG)
        extra = {"endpoint_url": s3_url, "region_name": "us-east-1"}
        connection = {"conn_type": "aws", "login": KEY, "password": SECRET, "extra": extra}
        with postgres(Path(folder)) as address:
            settings = {
                "AIRFLOW_CONN_S3_MEDIA": json.dumps(connection),
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": address,
                "AIRFLOW__MEDIA_TASKS__GALLERY_ROOTS": "s3://s3_media@media/landed",
            }
            with Deployment(dags, settings=settings) as airflow:
                begin(airflow)
                for number in range(FILMS):
                    succeeded(airflow, "film", number, put(client, f"film-{number}.mp4", FILM, number))
                succeeded(airflow, "long", 0, put(client, "long-0.mp4", LONG, FILMS))
                token = token_of(airflow.url, "admin", airflow.passwords["admin"])
                with httpx.Client(
                    base_url=f"{airflow.url}/media-tasks",
                    headers={"Authorization": f"Bearer {token}"},
                    trust_env=False,
                    timeout=PATIENCE,
                ) as gallery:
                    films(gallery, client, Path(folder) / "s3.log")
                    large_results(airflow, gallery)


if __name__ == "__main__":
    main()
