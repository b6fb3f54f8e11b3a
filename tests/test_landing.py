"""Two hundred files of 5 MB from a server that does everything to keep them, or to give something else."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from .hostile import served


log = logging.getLogger(__name__)

SIZE = 5_000_000
MEMORY = 150 * 1024**2

LANDS = {
    "plain": 48,
    "chunked": 10,
    "cut": 15,
    "cutnoranges": 10,
    "changed": 5,
    "liarchanged": 5,
    "wrongpart": 5,
    "stall": 2,
    "busy": 5,
    "redirect": 5,
    "gzip": 5,
    "mislabelled": 5,
    "expired": 10,
}
FAILS = {
    "alwayscut": ("MediaProviderError", "broke", 9),
    "alwaysstalls": ("MediaProviderError", "broke: timed out", 1),
    "toolong": ("MediaProviderError", "broke", 4),
    "tooshort": ("MediaProviderError", "does not decode as audio/wav: its end is missing", 4),
    "page": ("MediaProviderError", "is text; it begins with '<!DOCTYPE html> <html><title>Sorry", 6),
    "picture": ("MediaProviderError", "is image/png; it begins with 89 50 4e 47", 4),
    "garbage": ("MediaProviderError", "is no media file we know", 4),
    "hollow": ("MediaProviderError", "does not decode as audio/wav", 4),
    "private": ("MediaRequestError", "not a public address", 8),
    "file": ("MediaRequestError", "only http and https URLs", 2),
    "loop": ("MediaProviderError", "more than 5 redirects", 4),
    "bomb": ("MediaProviderError", "unpacks to more than 100 times", 4),
    "brotli": ("MediaProviderError", "compressed by 'br', which was not asked for", 4),
    "huge": ("MediaRequestError", "larger than 100000000 bytes", 4),
    "endless": ("MediaRequestError", "larger than 100000000 bytes", 2),
    "gone": ("MediaProviderError", "it is not gone: vap_default shows it", 6),
}

LANDER = """
import json, logging, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from airflow_media_tasks.landing import destinations
from airflow_media_tasks.landing import downloads
from airflow_media_tasks.landing import storage

import av, PIL.Image, PIL.PngImagePlugin  # what decodes is there before we look at the memory

def memory(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024

def land(name, entry, folder):
    place = {"dag_id": "dag", "run_id": "run", "task_id": name, "map_index": 0}
    destination = destinations.Destination(f"file://{folder}/", place)
    return storage.land(storage.made_of(entry, ["vap_default"]), destination, logging.getLogger())

def outcome(item):
    name, entry, folder = item
    try:
        return name, land(name, entry, folder)
    except Exception as error:
        return name, [type(error).__name__, str(error)]

downloads.RETRY_WAIT = 0.05
storage.PAUSES = (0.01,) * 3
downloads.TIMEOUT = httpx.Timeout(2.0)  # where the server says nothing; whatever it says comes sooner
work = json.load(sys.stdin)
land("warm", work["warm"], work["folder"])
Path("/proc/self/clear_refs").write_text("5")
idle, began = memory("VmRSS"), time.process_time()
documents = land("good", work["good"], work["folder"])
with ThreadPoolExecutor(4) as pool:
    outcomes = dict(pool.map(outcome, [(name, entry, work["folder"]) for name, entry in work["bad"].items()]))
seconds = time.process_time() - began
print(json.dumps({"idle": idle, "peak": memory("VmHWM"), "seconds": seconds, "documents": documents,
                  "outcomes": outcomes}))
"""


def result_of(url: str, number: int, gone: bool = False) -> dict[str, Any]:
    """What an operator returned of the task with this number, whose URL was this."""
    return {
        "id": f"task-{number + 1000 if gone else number}",
        "media_conn_id": "vap_default",
        "provider": "vap",
        "files": [{"kind": "audio", "url": url}],
    }


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the highest use of memory")
def test_two_hundred_files(tmp_path: Path) -> None:
    """What should land does, byte for byte; the rest is a clear error; nothing is left half-written."""
    with served(SIZE) as server:
        ways = [way for way, count in LANDS.items() for _ in range(count)]
        good = [result_of(f"{server.url}/{way}/{number}", number) for number, way in enumerate(ways)]
        failing = [way for way, (_, _, count) in FAILS.items() for _ in range(count)]
        bad = {
            f"{way}-{number}": result_of(f"{server.url}/{way}/{number}", number, gone=way == "gone")
            for number, way in enumerate(failing, len(ways))
        }
        assert len(good) + len(bad) == 200
        connection = {"conn_type": "vap", "host": server.url, "password": "some-key"}
        done = subprocess.run(
            [sys.executable, "-c", LANDER],
            input=json.dumps(
                {"good": good, "bad": bad, "folder": str(tmp_path), "warm": f"{server.url}/plain/999"}
            ),
            env={
                **os.environ,
                "AIRFLOW_CONN_VAP_DEFAULT": json.dumps(connection),
                "AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS": "127.0.0.1",
                "AIRFLOW__MEDIA_TASKS__MAX_FILE_SIZE": "100000000",
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        told = json.loads(done.stdout.splitlines()[-1])

        # Byte for byte, and each with its document.
        landed = set()
        for number, document in enumerate(told["documents"]):
            (file,) = document["files"]
            content = server.content(number)
            path = Path(file["path"].removeprefix("file://"))
            assert path.read_bytes() == content, ways[number]
            assert (file["size"], file["sha256"]) == (SIZE, hashlib.sha256(content).hexdigest())
            assert json.loads(Path(f"{path}.json").read_text())["files"] == [file]
            landed |= {path, Path(f"{path}.json")}
        assert len(landed) == 2 * sum(LANDS.values())

        # The rest is a clear error.
        for name, (kind, words) in told["outcomes"].items():
            error, says, _ = FAILS[name.partition("-")[0]]
            assert kind == error, (name, words)
            assert says in words, (name, words)
            assert len(words) < 1000
        assert Counter(name.partition("-")[0] for name in told["outcomes"]) == {
            way: count for way, (_, _, count) in FAILS.items()
        }

        # Nothing half-written, no key told to a media host.
        there = {path for path in tmp_path.rglob("*") if path.is_file() and "warm" not in path.parts}
        assert there == landed
        shutil.rmtree(tmp_path)  # pytest would keep a gigabyte of it
        told_to = [path for path, headers in server.seen if "some-key" in json.dumps(headers)]
        assert {path.split("/")[1] for path in told_to} == {"v3"}

    used = told["peak"] - told["idle"]
    log.info("%d MiB above idle, %.1f s of CPU", used / 1024**2, told["seconds"])
    assert used < MEMORY
    assert told["seconds"] < 60  # of CPU, so that it does not matter what else runs; it takes 5 to 9
