"""Every example DAG on a real scheduler and a real triggerer, against the simulator."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from airflow import sdk
from PIL import Image

from airflow_media_tasks.simulator import Simulator
from deployment import Deployment


OPERATIONS = {
    "vap_default": "text_to_video",
    "acedata_default": "veo/text_to_video",
    "kling_default": "text_to_video",
    "fal_default": "text_to_video",
    "runway_default": "text_to_video",
    "google_media_default": "text_to_video",
}
EXAMPLE_DAGS = Path(__file__).resolve().parents[2] / "example_dags"
LOOPS = hasattr(sdk, "LoopDecision")  # from Airflow 3.4 on


class Run:
    """A run of a DAG, in the words of these tests."""

    def __init__(self, airflow: Deployment, dag_id: str, **conf: object) -> None:
        self._airflow = airflow
        self._dag_id = dag_id
        self._run_id = airflow.run(dag_id, conf)

    def end(self) -> str:
        """Wait for the end and return the state."""
        return self._airflow.wait(self._dag_id, self._run_id, seconds=180)

    def end_with(self, simulator: Simulator) -> str:
        """As `end`, of steps that wait one after the other: the simulator's clock runs on meanwhile."""

        def go_on(*_: object) -> None:
            simulator.advance(500)

        return self._airflow.wait(self._dag_id, self._run_id, seconds=300, progress=go_on, pause=2.0)

    def instances(self, task_id: str) -> list[dict[str, Any]]:
        """Return a task's instances in the order of their map index."""
        found = self._airflow.task_instances(self._dag_id, self._run_id)
        return [instance for instance in found if instance["task_id"] == task_id]

    def states(self, task_id: str) -> list[str]:
        """Return the states of a task's instances in the order of their map index."""
        return [instance["state"] for instance in self.instances(task_id)]

    def result(self, task_id: str, map_index: int = -1) -> Any:
        """Return what a task instance returned."""
        return self._airflow.xcom(self._dag_id, self._run_id, task_id, map_index=map_index)

    def results(self, task_id: str) -> list[Any]:
        """Return what a task's instances returned in the iterations of its loop."""
        path = f"dags/{self._dag_id}/dagRuns/{self._run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        places = [
            {name: instance[name] for name in ("region_id", "region_index")}
            for instance in self.instances(task_id)
        ]
        places.sort(key=lambda place: place["region_index"])
        return [self._airflow.request("GET", path, params=place)["value"] for place in places]

    def lost(self, task_id: str, map_index: int = -1) -> int:
        """Return how often the scheduler found a task instance in another state than its executor did."""
        params = {"dag_id": self._dag_id, "run_id": self._run_id, "task_id": task_id, "map_index": map_index}
        logs = self._airflow.request("GET", "eventLogs", params={**params, "event": "state mismatch"})
        return int(logs["total_entries"])

    def log(self, task_id: str, map_index: int = -1) -> str:
        """Return a task instance's log."""
        return self._airflow.log(self._dag_id, self._run_id, task_id, map_index=map_index)


def is_sound(file: dict[str, Any], path: Path) -> bool:
    """Say whether a landed file is where it should be, has the bytes that were announced, and decodes."""
    content = path.read_bytes()
    assert file["path"] == f"file://{path}"
    assert len(content) == file["size"]
    assert hashlib.sha256(content).hexdigest() == file["sha256"]
    if path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
            return image.width > 0
    with av.open(str(path)) as container:
        return len(list(container.decode(video=0))) > 1


def test_product_videos(
    airflow: Deployment, simulator: Simulator, output: Path, wait_until_deferred: Callable[[int], None]
) -> None:
    """Twelve products become twelve images and twelve videos of these images, each paid for once."""
    simulator.reset()
    run = Run(airflow, "example_product_videos")
    wait_until_deferred(12)
    simulator.advance(1000)
    for _ in airflow.ticks(120.0, 0.5):
        if run.states("product.image") == ["success"] * 12:
            break
    wait_until_deferred(12)
    simulator.advance(1000)
    assert run.end() == "success"
    for task in ("image", "video"):
        assert run.states(f"product.{task}") == ["success"] * 12

    ledger = simulator.ledger()
    assert Counter((entry["provider"], entry["operation"]) for entry in ledger) == {
        ("vap", "text_to_image"): 12,
        ("acedata", "luma/image_to_video"): 12,
    }
    requests = {entry["id"]: entry["request"] for entry in ledger}
    products = run.result("products")
    for index, product in enumerate(products):
        image, video = (run.result(f"product.{task}", index) for task in ("image", "video"))
        assert (image["status"], image["media_conn_id"]) == ("succeeded", "vap_default")
        assert (video["status"], video["operation"]) == ("succeeded", "luma/image_to_video")
        assert product["scene"] in requests[image["id"]]["params"].values()
        assert image["url"] in requests[video["id"].removeprefix("luma/")].values()
        for made, suffix in ((image, "png"), (video, "mp4")):
            file = next(file for file in made["files"] if "path" in file)
            assert is_sound(file, output / "products" / f"{product['sku']}.{suffix}")
        if index % 4 == 0:
            assert video["id"] in run.log("product.video", index)
    names = [instance["rendered_map_index"] for instance in run.instances("product.video")]
    assert names == [product["sku"] for product in products]


def test_fal(airflow: Deployment, simulator: Simulator, output: Path) -> None:
    """Two models that the run names paint a picture and animate it; both land, each paid for once."""
    simulator.reset()
    run = Run(airflow, "example_fal", painter="acme/painter/v2", prompt="An owl of tin")
    for _ in airflow.ticks(180.0, 1.0):
        simulator.advance(1000)
        if run.states("film") == ["success"]:
            break
    assert run.end() == "success"
    painted, animated = simulator.ledger()
    assert (painted["operation"], animated["operation"]) == ("run", "image_to_video")
    assert painted["request"] == {"prompt": "An owl of tin", "image_size": "landscape_16_9"}
    picture, film = run.result("picture"), run.result("film")
    assert animated["request"]["image_url"] == picture["url"]
    assert (picture["id"], film["id"]) == (
        f"acme/painter/{painted['id']}",
        f"fal-ai/kling-video/{animated['id']}",
    )
    for made, name in ((picture, "picture.png"), (film, "film.mp4")):
        assert is_sound(made["files"][0], output / "fal" / name)


def test_batch(airflow: Deployment, simulator: Simulator, output: Path) -> None:
    """Five pictures in one task: four land, the refused one is a line of the results, each paid for once."""
    simulator.reset()
    run = Run(airflow, "example_batch")
    for _ in airflow.ticks(180.0, 2.0):
        simulator.advance(1000)
        if run.states("report") == ["success"]:
            break
    assert run.end() == "success"
    assert len(simulator.ledger()) == 5
    manifest = run.result("birds")
    assert (manifest["succeeded"], manifest["errors"]) == (4, {"MediaModerationError": 1})
    results = Path(manifest["results"].removeprefix("file://"))
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["number"] for line in lines if line["error"]] == [4]
    for line in lines[:4]:
        (file,) = (file for file in line["files"] if "path" in file)
        assert is_sound(file, output / Path(file["path"].removeprefix(f"file://{output}/")))


def test_chain(airflow: Deployment, simulator: Simulator, output: Path) -> None:
    """Each step works on the video of the one before, by the id that its provider gave it; the ends land."""
    simulator.reset()
    run = Run(airflow, "example_chain")
    assert run.end_with(simulator) == "success"
    requests = {(entry["provider"], entry["operation"]): entry["request"] for entry in simulator.ledger()}
    assert len(requests) == len(simulator.ledger()) == 5
    assert requests["kling", "extend_video"]["video_id"] == run.result("video")["video_id"]
    assert requests["kling", "lip_sync"]["input"]["video_id"] == run.result("longer")["video_id"]
    assert requests["acedata", "veo/upscale_video"]["video_id"] == run.result("small")["video_id"]
    for task in ("speaking", "large"):
        file = next(file for file in run.result(task)["files"] if "path" in file)
        assert is_sound(file, output / "chain" / f"{task}.mp4")


def test_replicate(
    airflow: Deployment, simulator: Simulator, output: Path, wait_until_deferred: Callable[[int], None]
) -> None:
    """A picture becomes two films, by an operation's own model and by one that is named, each paid once."""
    simulator.reset()
    run = Run(airflow, "example_replicate")
    for waiting in (1, 2):
        wait_until_deferred(waiting)
        simulator.advance(1000)
    assert run.end() == "success"
    picture = run.result("picture")
    ledger = simulator.ledger()
    assert [(entry["provider"], entry["operation"]) for entry in ledger] == [
        ("replicate", "text_to_image"),
        ("replicate", "image_to_video"),
        ("replicate", "image_to_video"),
    ]
    assert sum(picture["url"] in json.dumps(entry["request"]) for entry in ledger) == 2
    for task, name in (("picture", "picture.png"), ("video", "video.mp4"), ("other_model", "other.mp4")):
        (file,) = (file for file in run.result(task)["files"] if "path" in file)
        assert is_sound(file, output / "replicate" / name)


def test_runway(airflow: Deployment, simulator: Simulator, output: Path) -> None:
    """A still that becomes a film, and a sound beside them, each paid once, with what it cost in credits."""
    simulator.reset()
    run = Run(airflow, "example_runway")
    assert run.end_with(simulator) == "success"
    made = {task: run.result(task) for task in ("still", "film", "sound")}
    paid_for = {entry["operation"]: entry["request"] for entry in simulator.ledger("runway")}
    assert len(simulator.ledger()) == len(paid_for) == 3
    assert paid_for["image_to_video"]["model"] == "gen4.5"
    assert paid_for["image_to_video"]["promptImage"] == [{"uri": made["still"]["url"], "position": "first"}]
    assert {one["cost"]["unit"] for one in made.values()} == {"credits"}
    for task, name in (("still", "still.png"), ("film", "film.mp4")):
        (file,) = (file for file in made[task]["files"] if "path" in file)
        assert is_sound(file, output / "runway" / name)
    assert made["sound"]["path"] == f"file://{output}/runway/sound.mp3"


def test_luma(airflow: Deployment, simulator: Simulator, output: Path) -> None:
    """A picture becomes a film, which is extended and upscaled by its id; the ends land, each paid once."""
    simulator.reset()
    run = Run(airflow, "example_luma")
    assert run.end_with(simulator) == "success"
    ledger = simulator.ledger()
    assert [(entry["provider"], entry["operation"]) for entry in ledger] == [
        ("luma", "text_to_image"),
        ("luma", "image_to_video"),
        ("luma", "extend_video"),
        ("luma", "upscale_video"),
    ]
    assert ledger[1]["request"]["keyframes"]["frame0"]["url"] == run.result("picture")["url"]
    assert ledger[2]["request"]["keyframes"]["frame0"]["id"] == run.result("film")["id"]
    for task, name in (("picture", "picture.png"), ("large", "film.mp4")):
        (file,) = (file for file in run.result(task)["files"] if "path" in file)
        assert is_sound(file, output / "luma" / name)


def test_google_media(airflow: Deployment, simulator: Simulator, output: Path) -> None:
    """A film that is only given to the key that made it lands, and is extended; each is paid once."""
    simulator.reset()
    run = Run(airflow, "example_google_media")
    assert run.end_with(simulator) == "success"
    film = run.result("film")
    first, second = simulator.ledger("google_media")
    assert (first["operation"], second["operation"]) == ("text_to_video", "extend_video")
    assert second["request"]["instances"][0]["video"] == {"uri": film["url"]}
    for task, name in (("film", "film.mp4"), ("longer", "longer.mp4")):
        (file,) = run.result(task)["files"]
        assert file["access"] == "key"
        assert is_sound(file, output / "google" / name)


def test_comfyui(
    airflow: Deployment, simulator: Simulator, output: Path, wait_until_deferred: Callable[[int], None]
) -> None:
    """Two pictures are made by the package's workflow and by the example's own, with the run's values."""
    simulator.reset()
    run = Run(airflow, "example_comfyui", prompt="An owl of tin", seed=11)
    wait_until_deferred(2)
    simulator.advance(1000)
    assert run.end() == "success"
    requests = {entry["operation"]: entry["request"]["prompt"] for entry in simulator.ledger()}
    assert len(simulator.ledger()) == 2
    assert requests["run"]["show"]["inputs"]["text"] == "An owl of tin"
    assert {str(requests["run"][node]["inputs"]["seed"]) for node in ("sketch", "painting")} == {"11"}
    assert "An owl of tin" in json.dumps(requests["text_to_image"])
    for task in ("small", "large"):
        (file,) = (file for file in run.result(task)["files"] if "path" in file)
        assert is_sound(file, output / "comfyui" / f"{task}.png")


def test_openai_media(airflow: Deployment, simulator: Simulator, output: Path) -> None:
    """A film and its remix land with the key, by which alone they are given away, each paid once."""
    simulator.reset()
    run = Run(airflow, "example_openai_media", model="ltx-9")
    assert run.end_with(simulator) == "success"
    first, second = simulator.ledger()
    assert (first["operation"], first["request"]["model"]) == ("text_to_video", "ltx-9")
    assert second["operation"] == "remix_video"
    assert run.result("film")["video_id"] == first["id"]
    for task in ("film", "remix"):
        (file,) = (file for file in run.result(task)["files"] if "path" in file)
        assert is_sound(file, output / "openai_media" / f"{task}.mp4")


@pytest.mark.skipif(not LOOPS, reason="Airflow has task loops from 3.4 on")
@pytest.mark.parametrize(("least_size", "iterations"), [(10**9, 3), (1, 1)], ids=["never good", "good"])
def test_loop(
    airflow: Deployment, simulator: Simulator, output: Path, least_size: int, iterations: int
) -> None:
    """Pictures are made until one is good, three at most: each is paid once, kept, and has a result."""
    simulator.reset()
    run = Run(airflow, "example_loop", least_size=least_size)
    for _ in airflow.ticks(240.0, 2.0):
        simulator.advance(1000)
        if run.states("best") == ["success"]:
            break
    assert run.end() == "success"
    ledger = simulator.ledger()
    assert len(ledger) == len({entry["client_ref"] for entry in ledger}) == iterations
    made = run.results("attempt.image")
    assert [one["id"].rpartition("/")[2] for one in made] == [entry["id"] for entry in ledger]
    assert [one["made_by"]["loop"] for one in made] == list(range(iterations))
    paths = [Path(one["path"].removeprefix("file://")) for one in made]
    assert len(set(paths)) == iterations
    for one, path in zip(made, paths, strict=True):
        assert path.is_relative_to(output / "loop")
        assert is_sound(next(file for file in one["files"] if "path" in file), path)
    judged = run.results("attempt.judge")
    assert [one["path"] for one in judged] == [one["path"] for one in made]
    assert run.result("best") in judged


def test_every_example_is_read(airflow: Deployment) -> None:
    """No example has an error on any version of Airflow; that of a task loop has a DAG from 3.4 on."""
    wanted = {path.stem for path in EXAMPLE_DAGS.glob("example_*.py") if LOOPS or path.stem != "example_loop"}
    found: set[str] = set()
    for _ in airflow.ticks(60.0, 1.0):
        found = {dag["dag_id"] for dag in airflow.request("GET", "dags")["dags"]}
        if wanted <= found:
            break
    assert wanted <= found
    assert ("example_loop" in found) is LOOPS
    assert airflow.request("GET", "importErrors")["import_errors"] == []


@pytest.fixture(scope="module")
def runs(
    airflow: Deployment, simulator: Simulator, wait_until_deferred: Callable[[int], None]
) -> dict[str, Run]:
    """Runs of the other examples: their tasks wait together, then the clock moves."""
    simulator.reset()
    started = {
        "kling": Run(airflow, "example_kling_text_to_video", prompt="A tin robot waters a fern", duration=10),
        "veo": Run(airflow, "example_veo_batch"),
        "wait": Run(airflow, "example_wait_for_task"),
        "once": Run(airflow, "example_paid_once"),
        "new": Run(airflow, "example_new_video", prompt="A heron takes off"),
    }
    for name in OPERATIONS:
        started[name] = Run(
            airflow, "example_same_dag_any_provider", media_conn_id=name, prompt=f"A fox by {name}"
        )
    wait_until_deferred(1 + 5 + 1 + 3 + 1 + len(OPERATIONS))
    simulator.advance(1000)
    return started


def paid(simulator: Simulator, prompt: str) -> dict[str, Any]:
    """Return the one submission whose request has this prompt under any name."""
    (entry,) = (entry for entry in simulator.ledger() if prompt in json.dumps(entry["request"]))
    return entry


def test_kling_text_to_video(runs: dict[str, Run], simulator: Simulator, output: Path) -> None:
    """The run's params reach Kling as it wants them, and the video lands."""
    run = runs["kling"]
    assert run.end() == "success"
    entry = paid(simulator, "A tin robot waters a fern")
    assert (entry["provider"], entry["operation"]) == ("kling", "text_to_video")
    assert (entry["request"]["duration"], entry["request"]["mode"]) == ("10", "std")
    assert run.result("video")["id"] == f"videos/text2video/{entry['id']}"
    assert is_sound(run.result("download")["files"][0], output / "kling" / "video.mp4")
    assert entry["id"] in run.log("video")


def test_veo_batch(runs: dict[str, Run], simulator: Simulator) -> None:
    """Moderation fails one prompt, with a typed error and without a retry; the others are made and listed."""
    run = runs["veo"]
    assert run.end() == "success"
    assert run.states("video") == ["success", "success", "failed", "success", "success"]
    # Airflow itself adds a try for each state that it loses (apache/airflow#71580): it ends in the same way.
    logged = run.log("video", 2)
    lost = run.lost("video", 2)
    assert run.instances("video")[2]["try_number"] == 1 + lost, logged
    assert 1 <= logged.count("MediaModerationError: ") <= 1 + lost, logged
    assert run.result("list_videos") == [run.result("video", index)["url"] for index in (0, 1, 3, 4)]
    assert run.result("video", 2) is None
    assert paid(simulator, "no moderation")["operation"] == "veo/text_to_video"


def test_wait_for_task(airflow: Deployment, runs: dict[str, Run], simulator: Simulator, output: Path) -> None:
    """The sensor waits for a task that no operator submitted, made by a hook or given by its id."""
    run = runs["wait"]
    assert run.end() == "success"
    waited = run.result("wait")
    assert waited["id"] == f"luma/{paid(simulator, 'A kite above')['id']}"
    assert waited["status"] == "succeeded"
    assert is_sound(run.result("download")["files"][0], output / "waited" / "video.mp4")

    again = Run(airflow, "example_wait_for_task", media_task_id=waited["id"])
    assert again.end() == "success"
    assert again.result("wait")["url"] == waited["url"]
    # It is finished already: that is seen on the worker, and nothing is deferred or submitted.
    assert "DEFERRED" not in again.log("wait")
    assert paid(simulator, "A kite above")


@pytest.mark.parametrize("conn_id", list(OPERATIONS))
def test_same_dag_any_provider(
    runs: dict[str, Run], simulator: Simulator, output: Path, conn_id: str
) -> None:
    """One DAG makes a video with each provider: only the connection is another."""
    run = runs[conn_id]
    assert run.end() == "success"
    entry = paid(simulator, f"A fox by {conn_id}")
    assert (f"{entry['provider']}_default", entry["operation"]) == (conn_id, OPERATIONS[conn_id])
    assert run.result("video")["media_conn_id"] == conn_id
    assert is_sound(run.result("download")["files"][0], output / "any" / f"{conn_id}.mp4")


def test_paid_once(runs: dict[str, Run], simulator: Simulator, output: Path) -> None:
    """Each prompt is submitted under a reference of its own, paid for once, and its video lands."""
    run = runs["once"]
    assert run.end() == "success"
    entries = [entry for entry in simulator.ledger() if "A lantern" in json.dumps(entry["request"])]
    assert len(entries) == len({entry["client_ref"] for entry in entries}) == 3
    assert sorted(run.result("video", index)["id"] for index in range(3)) == sorted(
        f"videos/text2video/{entry['id']}" for entry in entries
    )
    files = [run.result("download", index)["files"][0] for index in range(3)]
    assert all(Path(file["path"].removeprefix("file://")).is_relative_to(output) for file in files)
    assert all(is_sound(file, Path(file["path"].removeprefix("file://"))) for file in files)


def test_new_video(airflow: Deployment, runs: dict[str, Run], simulator: Simulator, output: Path) -> None:
    """A video that has landed starts another DAG, which reads from the event what it is and what it cost."""
    run = runs["new"]
    assert run.end() == "success"
    made = run.result("video")
    entry = paid(simulator, "A heron takes off")
    file = next(file for file in made["files"] if "path" in file)
    path = Path(file["path"].removeprefix("file://"))
    assert path.is_relative_to(output / "new")
    assert is_sound(file, path)
    document = json.loads(Path(f"{path}.json").read_text())
    assert document["media_task_id"] == made["id"] == f"videos/text2video/{entry['id']}"
    assert document["made_by"]["dag_id"] == "example_new_video"

    for _ in airflow.ticks(90.0, 0.5):
        started = airflow.request("GET", "dags/example_new_video_report/dagRuns")["dag_runs"]
        if started:
            break
    (downstream,) = started
    assert airflow.wait(downstream["dag_id"], downstream["dag_run_id"], seconds=90) == "success"
    (line,) = airflow.xcom(downstream["dag_id"], downstream["dag_run_id"], "report")
    assert line == {
        "path": file["path"],
        "sha256": file["sha256"],
        "cost": made["cost"],
        "prompt": "A heron takes off",
    }
    # The alias made an asset of the file itself; no DAG names it, so Airflow does not call it active.
    params = {"uri_pattern": str(path), "only_active": False}
    assets = airflow.request("GET", "assets", params=params)["assets"]
    assert [asset["uri"] for asset in assets] == [file["path"]]
