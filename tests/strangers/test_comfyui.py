"""The hook against a ComfyUI that somebody else wrote from its documentation, see `comfyui_server.py`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaNotFoundError,
    MediaRequestError,
    MediaTask,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)

from .comfyui_server import Comfy
from .conftest import Connected, Landed, looks_at
from .media import film, picture


QUEUED, RUNNING = TaskStatus.QUEUED, TaskStatus.RUNNING
MARK = "amt-" + "5" * 32


@pytest.fixture
def server() -> Iterator[Comfy]:
    """A ComfyUI by somebody who has not seen the hook."""
    with Comfy() as server:
        yield server


@pytest.fixture
def hook(server: Comfy, connected: Connected) -> MediaHook:
    """The hook, with a connection to it, which needs no password."""
    return connected(conn_type="comfyui", host=server.url)


def graph(word: str, checkpoint: str = "stranger.safetensors") -> dict[str, Any]:
    """A workflow in the form of the API, of which becomes what stranger-WORD says."""
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 7,
                "steps": 20,
                "cfg": 8,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1,
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": f"a fox stranger-{word}", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "rain", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
    }


def run(hook: MediaHook, word: str) -> MediaTask:
    """A job of stranger-WORD at its end."""
    seen = looks_at(hook, hook.submit("run", {"workflow": graph(word)}))
    assert [(task.status, task.files) for task in seen[:-1]] == [(QUEUED, ()), (RUNNING, ())]
    return seen[-1]


@pytest.mark.parametrize(
    ("word", "kinds", "names"),
    [
        ("usual", ["image"], ["ComfyUI_00001_.png"]),
        ("two", ["image", "image"], ["fox_00001_.png", "fox_00002_.png"]),
        ("previews", ["image"], ["fox_00001_.png"]),
        ("folder", ["image"], ["a%20b_00001_.png"]),
        ("film", ["video"], ["fox_00001_.mp4"]),
        ("combined", ["video"], ["fox_00001.mp4"]),
        ("sound", ["audio"], ["fox_00001_.wav"]),
    ],
)
def test_what_was_made(hook: MediaHook, server: Comfy, word: str, kinds: list[str], names: list[str]) -> None:
    """What a job has saved is there, of its kind, without the previews on the way to it."""
    task = run(hook, word)
    assert task.status is TaskStatus.SUCCEEDED
    assert [file.kind for file in task.files] == kinds
    for url, name in zip(task.urls, names, strict=True):
        assert url.startswith(f"{server.url}/")
        assert f"filename={name}" in url.replace("+", "%20")


@pytest.mark.parametrize(
    ("word", "status", "words"),
    [
        ("memory", TaskStatus.FAILED, "exceed allowed memory"),
        ("interrupted", TaskStatus.CANCELLED, ""),
        ("cached", TaskStatus.FAILED, "without an output"),
        ("only_previews", TaskStatus.FAILED, "without an output"),
        ("words", TaskStatus.FAILED, "without an output"),
    ],
)
def test_what_was_not(hook: MediaHook, word: str, status: TaskStatus, words: str) -> None:
    """What broke off says why, without a trace of the server's own files; what made no file has failed."""
    task = run(hook, word)
    assert (task.status, task.files) == (status, ())
    assert type(task.error) is MediaTaskFailed
    assert words in str(task.error)
    assert "execution.py" not in str(task.error)


def test_a_graph_that_runs_in_part(hook: MediaHook, server: Comfy) -> None:
    """A graph of which some outputs were dropped is accepted, and is not submitted again."""
    task = hook.submit("run", {"workflow": graph("partial", "missing.safetensors")})
    assert looks_at(hook, task)[-1].status is TaskStatus.SUCCEEDED
    assert len(server.jobs) == 1


@pytest.mark.parametrize(
    ("workflow", "words"),
    [
        (graph("", "missing.safetensors"), "missing.safetensors"),
        ({"9": {"class_type": "NobodysNode", "inputs": {}}}, "NobodysNode"),
        ({"5": {"class_type": "EmptyLatentImage", "inputs": {}}}, "no outputs"),
    ],
)
def test_a_graph_that_does_not_run(
    hook: MediaHook, server: Comfy, workflow: dict[str, Any], words: str
) -> None:
    """What ComfyUI says of a graph arrives, with what it says of its nodes, and nothing was accepted."""
    with pytest.raises(MediaRequestError, match=words):
        hook.submit("run", {"workflow": workflow})
    assert server.jobs == []


def test_a_workflow_from_a_file(hook: MediaHook, server: Comfy, tmp_path: Path) -> None:
    """A workflow may be a file."""
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(graph("usual")))
    hook.submit("run", {"workflow": str(path)})
    assert server.jobs[0]["graph"] == graph("usual")


def test_a_picture_by_a_workflow_of_ours(hook: MediaHook, server: Comfy) -> None:
    """A prompt alone is enough where the server has the checkpoint."""
    arguments = {"prompt": "a fox", "negative_prompt": "rain", "seed": 7, "model": "stranger.safetensors"}
    *_, task = looks_at(hook, hook.submit("text_to_image", arguments))
    assert task.status is TaskStatus.SUCCEEDED
    assert [file.kind for file in task.files] == ["image"]
    sent = json.dumps(server.jobs[0]["graph"])
    assert all(f'"{word}"' in sent for word in ("a fox", "rain", "stranger.safetensors"))
    assert '"seed": 7' in sent


def test_two_pictures_of_one_prompt_are_two(hook: MediaHook, server: Comfy) -> None:
    """Without a seed each has another one: what is served from the cache would have made nothing."""
    for _ in range(2):
        hook.submit("text_to_image", {"prompt": "a fox", "model": "stranger.safetensors"})
    first, second = (job["graph"] for job in server.jobs)
    assert first != second


def test_the_id_is_ours(hook: MediaHook, server: Comfy) -> None:
    """A lost submission is found by the id that it was sent with; what was never sent is not there."""
    began = datetime.now(timezone.utc)
    arguments = {"workflow": graph("lost")}
    wanted: dict[str, Any] = {"operation": "run", "arguments": arguments, "submitted_after": began}
    assert hook.find_tasks(client_ref=MARK, **wanted) == []
    with pytest.raises(SubmissionOutcomeUnknown):
        hook.submit("run", arguments, client_ref=MARK)
    (job,) = server.jobs
    assert str(uuid.UUID(job["id"])) == job["id"]
    (found,) = hook.find_tasks(client_ref=MARK, **wanted)
    assert found.id.rpartition("/")[2] == job["id"]
    assert hook.find_tasks(client_ref="amt-" + "6" * 32, **wanted) == []


def test_the_same_submission_is_one_job(hook: MediaHook, server: Comfy) -> None:
    """What is submitted again under one reference is one job, though the server would run it twice."""
    first = hook.submit("run", {"workflow": graph("usual")}, client_ref=MARK)
    second = hook.submit("run", {"workflow": graph("usual")}, client_ref=MARK)
    assert first.id == second.id
    assert len(server.jobs) == 1


def test_restart(hook: MediaHook, server: Comfy) -> None:
    """What a server has forgotten by a restart is not found, and is not taken for a running one."""
    task = hook.submit("run", {"workflow": graph("usual")})
    hook.get_task(task.id)
    server.restart()
    with pytest.raises(MediaNotFoundError):
        hook.get_task(task.id)


def test_many(hook: MediaHook, server: Comfy) -> None:
    """Of several each is told, and those that are not there are left out."""
    tasks = [hook.submit("run", {"workflow": graph("usual")}).id for _ in range(5)]
    for _ in range(2):
        hook.get_task(tasks[0])
    unknown = tasks[0][:-12] + "000000000000"
    found = hook.get_tasks([*tasks, unknown])
    assert set(found) == set(tasks)
    assert found[tasks[0]].status is TaskStatus.SUCCEEDED


def test_cancelling(hook: MediaHook, server: Comfy) -> None:
    """Only what is meant is stopped, waiting or running; what has ended stays what it is."""
    waiting, running, other, done = (hook.submit("run", {"workflow": graph("usual")}).id for _ in range(4))
    hook.get_task(running)
    hook.get_task(other)
    for _ in range(2):
        hook.get_task(done)
    assert hook.cancel_task(running).status is TaskStatus.CANCELLED
    assert hook.cancel_task(waiting).status is TaskStatus.CANCELLED
    assert hook.cancel_task(done).status is TaskStatus.SUCCEEDED
    kept = {job["id"]: job["ended"] for job in server.jobs}
    assert kept[other.rpartition("/")[2]] in ("", "completed")


def test_connection(hook: MediaHook, connected: Connected) -> None:
    """The *Test* button asks the server; where a proxy wants a token, the password is it."""
    assert hook.test_connection()[0]
    with Comfy(token="of-the-proxy") as guarded:
        good, text = connected(conn_type="comfyui", host=guarded.url).test_connection()
        assert not good
        assert "401" in text
        hook = connected(conn_type="comfyui", host=guarded.url, password="of-the-proxy")
        assert hook.test_connection()[0]
        assert run(hook, "usual").status is TaskStatus.SUCCEEDED
        wrong = connected(conn_type="comfyui", host=guarded.url, password="another")
        with pytest.raises(MediaAuthError):
            wrong.submit("run", {"workflow": graph("usual")})


def test_a_server_that_is_too_old(connected: Connected) -> None:
    """One that has no list of jobs runs what it is sent; it is never taken for one that was sent nothing."""
    with Comfy(old=True) as server:
        hook = connected(conn_type="comfyui", host=server.url)
        good, text = hook.test_connection()
        assert not good
        assert "404: Not Found" in text
        arguments = {"workflow": graph("lost")}
        began = datetime.now(timezone.utc)
        with pytest.raises(SubmissionOutcomeUnknown):
            hook.submit("run", arguments, client_ref=MARK)
        assert len(server.jobs) == 1
        with pytest.raises(MediaRequestError, match="404: Not Found"):
            hook.find_tasks(client_ref=MARK, operation="run", arguments=arguments, submitted_after=began)
        task = hook.submit("run", {"workflow": graph("usual")})
        with pytest.raises(MediaRequestError, match="404: Not Found"):
            hook.get_task(task.id)


@pytest.mark.parametrize(("word", "made"), [("usual", picture), ("film", film)])
def test_landing(hook: MediaHook, landed: Landed, word: str, made: Any) -> None:
    """An operator lands the very bytes."""
    assert landed("run", {"workflow": graph(word)})[1] == [made()]


def test_landing_from_behind_a_proxy(connected: Connected, landed: Landed) -> None:
    """Files come by the proxy's token, too, which is written nowhere."""
    with Comfy(token="of-the-proxy") as guarded:
        connected(conn_type="comfyui", host=guarded.url, password="of-the-proxy")
        result, files = landed("run", {"workflow": graph("two")})
        assert files == [picture()] * 2
        assert "of-the-proxy" not in str(result)
