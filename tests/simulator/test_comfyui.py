from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest

from airflow_media_tasks.simulator import Simulator


SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}
GRAPH = {"1": {"class_type": "Paint", "inputs": {"text": "a red mug"}}, "2": SAVE}


def prompt(comfyui: httpx.Client, nodes: Any = GRAPH, words: str = "", **more: Any) -> dict[str, Any]:
    """A new prompt, which must be accepted."""
    if words:
        nodes = {**nodes, "1": {"class_type": "Paint", "inputs": {"text": words}}}
    reply = comfyui.post("/prompt", json={"prompt": nodes, **more})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def job(comfyui: httpx.Client, made: dict[str, Any]) -> dict[str, Any]:
    """The job as it is now."""
    return dict(comfyui.get(f"/api/jobs/{made['prompt_id']}").json())


def test_a_prompt_becomes_files(comfyui, media_simulator: Simulator):
    """A prompt waits, runs and is completed with files by node, which are fetched by their names."""
    made = prompt(comfyui)
    assert (made["node_errors"], job(comfyui, made)["status"]) == ({}, "pending")
    media_simulator.advance(1.5)
    running = job(comfyui, made)
    assert (running["status"], "outputs" in running) == ("in_progress", False)
    media_simulator.advance(2)
    done = job(comfyui, made)
    assert (done["status"], done["execution_status"]["status_str"]) == ("completed", "success")
    assert done["create_time"] < done["execution_start_time"] < done["execution_end_time"]
    assert done["workflow"]["prompt"] == GRAPH
    (kinds,) = done["outputs"].values()
    (file,) = kinds["images"]
    reply = comfyui.get("/view", params=file)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png")
    assert reply.content[:4] == b"\x89PNG"
    (entry,) = media_simulator.ledger("comfyui")
    assert (entry["operation"], entry["amount"], entry["client_ref"]) == ("run", "0.0000", None)


def test_the_id_is_the_clients(comfyui, media_simulator: Simulator):
    """A prompt's id may be chosen, in one form alone, and is taken once, as long as it is known."""
    own_id = str(uuid.uuid4())
    assert prompt(comfyui, prompt_id=own_id)["prompt_id"] == own_id
    for _ in range(2):
        reply = comfyui.post("/prompt", json={"prompt": GRAPH, "prompt_id": own_id})
        assert (reply.status_code, reply.json()) == (409, {"error": "prompt_id already exists"})
        media_simulator.advance(10)
    for wrong in (own_id.upper(), own_id.replace("-", ""), "mine", 5):
        reply = comfyui.post("/prompt", json={"prompt": GRAPH, "prompt_id": wrong})
        assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_prompt_id")
    assert len(media_simulator.ledger()) == 1


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({}, "no_prompt"),
        ({"prompt": []}, "invalid_prompt"),
        ({"prompt": {"nodes": [], "links": []}}, "invalid_prompt"),
        ({"prompt": {"1": {"class_type": "NoSuchNode", "inputs": {}}}}, "invalid_prompt"),
        ({"prompt": {}}, "prompt_no_outputs"),
        ({"prompt": {"1": GRAPH["1"]}}, "prompt_no_outputs"),
        ({"prompt": {"2": {"class_type": "SaveImage", "inputs": {}}}}, "prompt_outputs_failed_validation"),
        (
            {
                "prompt": {
                    **GRAPH,
                    "3": {"class_type": "Load", "inputs": {"ckpt_name": "missing.safetensors"}},
                }
            },
            "prompt_outputs_failed_validation",
        ),
    ],
)
def test_what_cannot_run_is_refused(comfyui, media_simulator: Simulator, body: dict[str, Any], kind: str):
    """The error has a type, and says which node is wrong."""
    reply = comfyui.post("/prompt", json=body)
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, kind)
    assert bool(reply.json()["node_errors"]) == (kind == "prompt_outputs_failed_validation")
    assert media_simulator.ledger() == []


def test_a_broken_output_is_dropped(comfyui, media_simulator: Simulator):
    """With one good output beside it the prompt runs, and the reply says what is left out."""
    made = prompt(comfyui, {**GRAPH, "3": {"class_type": "SaveImage", "inputs": {}}})
    assert made["node_errors"]["3"]["errors"][0]["type"] == "required_input_missing"
    media_simulator.advance(4)
    assert job(comfyui, made)["outputs_count"] == 1


def test_what_nodes_write(comfyui, media_simulator: Simulator):
    """Films stand among the images, previews are temporary, and a batch is as many pictures."""
    writers = {
        str(number): {"class_type": name, "inputs": {"x": ["1", 0]}}
        for number, name in enumerate(("SaveImage", "PreviewImage", "SaveVideo", "SaveAudioMP3"), 2)
    }
    empty = {"class_type": "EmptyLatentImage", "inputs": {"batch_size": 2}}
    made = prompt(comfyui, {"1": GRAPH["1"], "0": empty, **writers})
    media_simulator.advance(4)
    files = [
        file for kinds in job(comfyui, made)["outputs"].values() for items in kinds.values() for file in items
    ]
    seen = sorted((file["type"], file["filename"].rpartition(".")[2]) for file in files)
    assert seen == [
        ("output", "mp3"),
        ("output", "mp4"),
        ("output", "png"),
        ("output", "png"),
        ("temp", "png"),
        ("temp", "png"),
    ]


def test_history_is_empty_until_the_end(comfyui, media_simulator: Simulator):
    """Neither an unknown prompt nor one that runs is an error there."""
    made = prompt(comfyui)
    path = f"/history/{made['prompt_id']}"
    assert comfyui.get(path).json() == comfyui.get("/history/nobody").json() == {}
    media_simulator.advance(4)
    entry = comfyui.get(path).json()[made["prompt_id"]]
    assert entry["prompt"][1:3] == [made["prompt_id"], GRAPH]
    assert entry["status"]["completed"] is True
    assert entry["outputs"] == job(comfyui, made)["outputs"]


def test_a_cached_run_makes_nothing(comfyui, media_simulator: Simulator):
    """With `[sim:no-output]` every node is served from the cache."""
    made = prompt(comfyui, words="x [sim:no-output]")
    media_simulator.advance(4)
    done = job(comfyui, made)
    assert (done["status"], done["outputs"]) == ("completed", {})


def test_a_failure_is_an_exception(comfyui, media_simulator: Simulator):
    """A failed job says which node raised what."""
    made = prompt(comfyui, words="x [sim:fail=provider]")
    media_simulator.advance(4)
    failed = job(comfyui, made)
    assert (failed["status"], failed["execution_error"]["exception_type"]) == (
        "failed",
        "torch.OutOfMemoryError",
    )
    assert failed["execution_status"]["messages"][-1][0] == "execution_error"


def test_cancelling(comfyui, media_simulator: Simulator):
    """What runs is interrupted, what waits is nowhere any more, and of anything else nothing happens."""
    running, waiting, done = (prompt(comfyui, words=f"x [sim:queued={q}]") for q in (0, 600, 0))

    def cancel(made: dict[str, Any]) -> Any:
        return comfyui.post(f"/api/jobs/{made['prompt_id']}/cancel").json()["cancelled"]

    assert cancel(running) is cancel(waiting) is True
    media_simulator.advance(4)
    assert cancel(done) is cancel(running) is cancel(waiting) is cancel({"prompt_id": "nobody"}) is False
    interrupted = job(comfyui, running)
    assert (interrupted["status"], interrupted["execution_status"]["status_str"]) == ("cancelled", "error")
    assert interrupted["execution_status"]["messages"][-1][0] == "execution_interrupted"
    assert comfyui.get(f"/api/jobs/{waiting['prompt_id']}").status_code == 404
    assert job(comfyui, done)["status"] == "completed"


def test_the_list_shows_one_file_of_each(comfyui, media_simulator: Simulator):
    """Newest first, in pages, without what was asked for and all that was made."""
    ids = [prompt(comfyui)["prompt_id"] for _ in range(3)]
    media_simulator.advance(4)
    page = comfyui.get("/api/jobs", params={"limit": 2}).json()
    assert [one["id"] for one in page["jobs"]] == [ids[2], ids[1]]
    assert page["pagination"] == {"offset": 0, "limit": 2, "total": 3, "has_more": True}
    assert page["jobs"][0]["preview_output"]["filename"].endswith(".png")
    assert not {"outputs", "workflow"} & set(page["jobs"][0])
    assert comfyui.get("/api/jobs", params={"offset": 2}).json()["pagination"]["has_more"] is False


def test_keys(connect, media_simulator: Simulator):
    """None is needed; a proxy may refuse one, and what another one made is not seen."""
    open_to_all = connect("comfyui", "")
    made = prompt(open_to_all)
    media_simulator.advance(4)
    assert job(open_to_all, made)["status"] == "completed"
    assert connect("comfyui", "sim-bad-key").get("/api/jobs").status_code == 401
    other = connect("comfyui", "other")
    assert other.get(f"/api/jobs/{made['prompt_id']}").status_code == 404
    (kinds,) = job(open_to_all, made)["outputs"].values()
    assert other.get("/view", params=kinds["images"][0]).status_code == 404
    assert open_to_all.get("/view", params={"filename": "../secret"}).status_code == 400


def test_a_proxy_may_refuse(comfyui, media_simulator: Simulator):
    """Too many requests are said with how long to wait, where that is known."""
    media_simulator.fault("rate_limit", provider="comfyui", retry_after=7)
    assert comfyui.post("/prompt", json={"prompt": GRAPH}).headers["Retry-After"] == "7"
    media_simulator.clear_faults()
    reply = comfyui.post(
        "/prompt",
        json={"prompt": {"1": {"class_type": "A", "inputs": {"t": "[sim:reject=server]"}}, "2": SAVE}},
    )
    assert (reply.status_code, reply.json()["error"]["type"]) == (500, "internal")


def test_queue_and_interrupt(comfyui, media_simulator: Simulator):
    """What runs is interrupted, what waits is taken out of the queue, and both are shown until then."""
    running = prompt(comfyui, words="a mug [sim:queued=0] [sim:seconds=60]")["prompt_id"]
    waiting = prompt(comfyui, words="a mug [sim:queued=60]")["prompt_id"]
    media_simulator.advance(1)

    def queue() -> list[list[str]]:
        """The ids of what runs, and of what waits."""
        said = comfyui.get("/queue").json()
        return [[item[1] for item in said[name]] for name in ("queue_running", "queue_pending")]

    assert queue() == [[running], [waiting]]
    comfyui.post("/interrupt", json={"prompt_id": waiting})
    comfyui.post("/queue", json={"delete": [running]})
    assert queue() == [[running], [waiting]]
    comfyui.post("/queue", json={"delete": [waiting]})
    comfyui.post("/interrupt", json={})
    assert queue() == [[], []]
    history = comfyui.get("/history").json()
    assert list(history) == [running]
    assert history[running]["status"]["messages"][-1][0] == "execution_interrupted"
    assert comfyui.get("/nothing").json() == "404: Not Found"
