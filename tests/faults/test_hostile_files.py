"""Hostile files landed under Celery, whose pool forbids `multiprocessing`: its worker goes on."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.test_decoding import film_of_pictures, huge_tile

from .cluster import Cluster


DAG_ID, WORKER = "hostile_files", "worker-of-one"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server of the files, on loopback."""
    huge_tile(tmp_path / "tile.tiff")
    film_of_pictures(tmp_path / "film.mov")
    Image.effect_noise((64, 64), 50).save(tmp_path / "good.png")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cluster(url: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With one worker more, of one slot and a queue of its own."""
    here = Path(__file__).resolve().parent
    settings = {
        "PYTHONPATH": os.pathsep.join([str(here.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "HOSTILE_URL": url,
        "HOSTILE_FOLDER": str(tmp_path),
        "AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS": "127.0.0.1",
    }
    with Cluster(here / "hostile_dags", tmp_path_factory.mktemp("cluster"), settings) as running:
        options = ["--queues", "hostile", "--concurrency", "1", "--celery-hostname", f"{WORKER}@127.0.0.1"]
        options += ["--pid", str(running.home / f"{WORKER}.pid"), "--skip-serve-logs"]
        running.start(WORKER, running.airflow("celery", "worker", *options))
        yield running


def pool_of(cluster: Cluster) -> list[int]:
    """The worker's process and those of its pool, by their ids."""
    process, *_ = cluster.family(WORKER)
    return [process.pid, *sorted(child.pid for child in process.children())]


def test_a_hostile_file_lands_unchecked_and_the_worker_goes_on(cluster: Cluster) -> None:
    """What would take gigabytes lands as not checked; the same process of the pool then lands another."""
    run_id = cluster.run(DAG_ID, seconds=120)
    pools: list[list[int]] = []

    def look(_: float, instances: list[dict[str, Any]]) -> None:
        if any(each["task_id"] == "tile" and each["state"] in ("running", "success") for each in instances):
            pools.append(pool_of(cluster))

    state = cluster.wait(DAG_ID, run_id, seconds=240, progress=look, pause=0.5)
    assert state == "success", cluster.log(DAG_ID, run_id, "tile")[-3000:]

    checked = {}
    for task_id in ("tile", "film", "good"):
        [file] = cluster.xcom(DAG_ID, run_id, task_id)["files"]
        assert Path(file["path"].removeprefix("file://")).stat().st_size == file["size"]
        checked[task_id] = file.get("checked")
    assert checked == {
        "tile": "not checked: needs more than 512 MiB",
        "film": "not checked: png is none of the codecs that are decoded",
        "good": None,
    }
    assert len(pools[0]) > 1
    assert all(pool == pool_of(cluster) for pool in pools)
    assert cluster.revived == []
