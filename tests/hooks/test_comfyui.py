from __future__ import annotations

import base64
import json
import logging
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

import pytest
import structlog

from airflow_media_tasks.hooks.comfyui import ComfyUIHook
from airflow_media_tasks.landing import storage
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaExpiredError,
    MediaNotFoundError,
    MediaRequestError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)

from .by_hand import reply
from .case import KEY, MARK
from .contract import HookContract
from .peer import Peer, say


GRAPH = {
    "1": {"class_type": "LoadVideoModel", "inputs": {"name": "wan.safetensors"}},
    "2": {"class_type": "SampleVideo", "inputs": {"model": ["1", 0], "text": "a fox", "noise.seed": 1}},
    "3": {"class_type": "SaveVideo", "inputs": {"video": ["2", 0]}},
}
PLACE = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 0}


class TestComfyUIHook(HookContract):
    """The contract, for ComfyUI."""

    hook_class = ComfyUIHook
    paid = "text_to_image"
    other = "run"
    unknown_id = "00000000-0000-4000-8000-000000000000"
    foreign_ids = ("veo/00000000", "videos/text2video/00000000", "operations/a/b", "task id", "a?b")
    ambiguous = frozenset(ComfyUIHook.operations)
    wrong_key_words = "Unauthorized"
    # Nothing costs anything, and nobody looks at what is asked for.
    never_says = frozenset({"funds", "moderation"})
    # What has not begun is nowhere any more when it is cancelled.
    under_way = "[sim:queued=0] [sim:seconds=600]"
    results_at = "/comfyui/view?"
    # A list does not show what was asked for, and need not: a prompt is asked for by its own id.
    finds_by_request = False
    samples: ClassVar = {
        "run": {"workflow": GRAPH, "values": {"2.text": "waves", "2.noise.seed": 7}},
        "text_to_image": {"prompt": "a lighthouse at dusk", "width": 768, "count": "2", "seed": 5},
    }

    def expected_mark(self, operation: str) -> None:
        """The prompt's id is the mark, and no other is sent."""

    def accepted(self, own_id: Any) -> dict[str, Any]:
        """A prompt's answer, and a job that waits, in one."""
        return {"prompt_id": own_id, "number": 1, "node_errors": {}, "id": own_id, "status": "pending"}

    def group_of(self, operation: str) -> str:
        """Prompts have none."""
        return ""

    # What is sent.

    def test_what_is_sent(self, hook: ComfyUIHook, sim: Simulator) -> None:
        """Neutral words stand in the nodes of the small workflow; other options stand beside it."""
        hook.submit(
            "text_to_image",
            {
                "prompt": "a cup",
                "negative_prompt": "a saucer",
                "model": "my.safetensors",
                "count": 3,
                "seed": 5,
                "width": 768,
                "height": 640,
                "steps": 8,
                "front": True,
            },
        )
        body = sim.ledger()[0]["request"]
        assert body["front"] is True
        nodes = {node["class_type"]: node["inputs"] for node in body["prompt"].values() if "text" not in node}
        assert nodes["CheckpointLoaderSimple"] == {"ckpt_name": "my.safetensors"}
        assert nodes["EmptyLatentImage"] == {"width": 768, "height": 640, "batch_size": 3}
        assert (nodes["KSampler"]["seed"], nodes["KSampler"]["steps"]) == (5, 8)
        said = {place: body["prompt"][nodes["KSampler"][place][0]] for place in ("positive", "negative")}
        assert {place: node["inputs"]["text"] for place, node in said.items()} == {
            "positive": "a cup",
            "negative": "a saucer",
        }

    def test_the_workflow_is_whole(self, hook: ComfyUIHook, sim: Simulator) -> None:
        """Every node that another one names is there, and nothing of one task is left in the next."""
        for prompt in ("a cup", "a jug"):
            hook.submit("text_to_image", {"prompt": prompt})
        first, second = (entry["request"]["prompt"] for entry in sim.ledger())
        for node in first.values():
            assert all(one[0] in first for one in node["inputs"].values() if isinstance(one, list))
        assert "a cup" not in json.dumps(second)

    def test_a_seed_is_drawn(self, hook: ComfyUIHook, sim: Simulator) -> None:
        """Two equal requests without a seed are not the same, or the server would make nothing new."""
        for _ in range(2):
            hook.submit("text_to_image", {"prompt": "a cup"})
        assert sim.ledger()[0]["request"] != sim.ledger()[1]["request"]

    @pytest.mark.parametrize("word", ["aspect_ratio", "resolution"])
    def test_a_size_is_in_pixels(self, hook: ComfyUIHook, sim: Simulator, word: str) -> None:
        """What the workflow has no place for is refused, rather than left out."""
        with pytest.raises(MediaRequestError, match="give 'width' and 'height'"):
            hook.submit("text_to_image", {"prompt": "a cup", word: "16:9"})
        assert sim.requests() == {}

    @pytest.mark.parametrize("form", [lambda graph: graph, json.dumps, "path"])
    def test_a_workflow_with_values(
        self, hook: ComfyUIHook, sim: Simulator, tmp_path: Path, call: Any, form: Any
    ) -> None:
        """An object, its JSON, or a file with it: its nodes get the values, and are the same afterwards."""
        before = json.dumps(GRAPH)
        given = form(GRAPH) if callable(form) else str(tmp_path / "flow.json")
        (tmp_path / "flow.json").write_text(before)
        task = call(
            hook, "submit", "run", {"workflow": given, "values": {"2.text": "waves", "2.noise.seed": 7}}
        )
        assert sim.ledger()[0]["request"] == {
            "prompt": {
                **GRAPH,
                "2": {
                    "class_type": "SampleVideo",
                    "inputs": {"model": ["1", 0], "text": "waves", "noise.seed": 7},
                },
            }
        }
        assert json.dumps(GRAPH) == before
        sim.advance(10)
        (file,) = call(hook, "get_task", task.id).files
        assert file.kind == "video"

    def test_what_is_checked_may_be_checked_again(self, hook: ComfyUIHook) -> None:
        """A record holds the workflow itself, with its values: the file may change, the task does not."""
        name, checked = hook.check("run", self.samples["run"])
        assert hook.check(name, checked) == (name, checked)
        assert "values" not in checked

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"workflow": "no/such/flow.json"}, "'workflow' of 'run' must be JSON or the path.*No such file"),
            ({"workflow": "{"}, "'workflow' of 'run' must be JSON or the path"),
            ({"workflow": []}, r"Export \(API\).*got \[\]"),
            ({"workflow": {}}, r"Export \(API\)"),
            ({"workflow": {"nodes": [], "links": []}}, r"Export \(API\)"),
            ({"workflow": {"1": {"class_type": "KSampler"}}}, r"Export \(API\)"),
            ({"workflow": GRAPH, "values": {"2.txt": "x"}}, r"got \{'2.txt': 'x'\}.*'2.text'"),
            ({"workflow": GRAPH, "values": ["x"]}, "'values' of 'run' must be an object"),
            ({"workflow": GRAPH, "values": "no/such/file"}, "'values' of 'run' must be JSON or the path"),
            ({"workflow": GRAPH, "prompt": "a fox"}, "'prompt' 'a fox' of 'run' is no word of a workflow"),
            ({}, "'run' needs 'workflow'"),
        ],
    )
    def test_a_workflow_that_is_none(
        self, hook: ComfyUIHook, sim: Simulator, given: dict[str, Any], says: str
    ) -> None:
        """What is wrong is named with what is allowed, before anything is sent."""
        with pytest.raises(MediaRequestError, match=says):
            hook.submit("run", given)
        assert sim.requests() == {}

    def test_no_json_from_a_file(self, hook: ComfyUIHook, sim: Simulator, tmp_path: Path) -> None:
        """A number that is none is found in a file, too."""
        path = tmp_path / "flow.json"
        path.write_text(json.dumps({**GRAPH, "4": {"class_type": "Any", "inputs": {"x": float("nan")}}}))
        with pytest.raises(MediaRequestError, match="must be JSON values"):
            hook.submit("run", {"workflow": str(path)})
        assert sim.requests() == {}

    # Its own id.

    def test_the_same_reference_is_the_same_task(self, hook: ComfyUIHook, sim: Simulator, call: Any) -> None:
        """A submission that is repeated runs once, while it waits, while it runs and when it has ended."""
        first = call(hook, "submit", self.paid, self.samples[self.paid], client_ref=MARK)
        assert str(uuid.UUID(first.id)) == first.id
        for seconds, status in ((0, "queued"), (1.5, "running"), (10, "succeeded")):
            sim.advance(seconds)
            again = call(hook, "submit", self.paid, self.samples[self.paid], client_ref=MARK)
            assert (again.id, again.operation, str(again.status)) == (first.id, self.paid, status)
        assert len(sim.ledger()) == 1
        assert call(hook, "submit", self.paid, self.samples[self.paid], client_ref="another").id != first.id

    def test_a_restart_loses_everything(self, hook: ComfyUIHook, sim: Simulator, call: Any) -> None:
        """What the server has forgotten is not found, and may be submitted again."""
        first = call(hook, "submit", self.paid, self.samples[self.paid], client_ref=MARK)
        sim.reset()
        with pytest.raises(MediaNotFoundError):
            call(hook, "get_task", first.id)
        since = datetime.now(timezone.utc)
        wanted = {"operation": self.paid, "arguments": self.samples[self.paid], "submitted_after": since}
        assert call(hook, "find_tasks", client_ref=MARK, **wanted) == []
        assert call(hook, "submit", self.paid, self.samples[self.paid], client_ref=MARK).id == first.id

    def test_without_a_reference_nobody_knows(self, hook: ComfyUIHook, sim: Simulator, call: Any) -> None:
        """What was lost without one is not looked for by what was asked."""
        hook.submit(self.paid, self.samples[self.paid])
        since = datetime.now(timezone.utc)
        wanted = {"operation": self.paid, "arguments": self.samples[self.paid], "submitted_after": since}
        with pytest.raises(SubmissionOutcomeUnknown, match="does not show what it was made from"):
            call(hook, "find_tasks", **wanted)

    def test_what_waits_is_cancelled(self, hook: ComfyUIHook, sim: Simulator, call: Any) -> None:
        """What has not begun is cancelled, too, though the server forgets it; an unknown one cannot be."""
        task = call(hook, "submit", self.paid, self.with_words("[sim:queued=600]"))
        assert call(hook, "cancel_task", task.id).status is TaskStatus.CANCELLED
        with pytest.raises(MediaNotFoundError):
            call(hook, "cancel_task", task.id)

    # What is refused.

    def test_what_is_wrong_with_a_node_is_said(self, hook: ComfyUIHook, sim: Simulator, call: Any) -> None:
        """A model that the server does not have is refused with the server's own list."""
        with pytest.raises(MediaRequestError, match=r"ckpt_name: .*not in \['v1-5") as caught:
            call(hook, "submit", self.paid, {"prompt": "a cup", "model": "missing.safetensors"})
        assert caught.value.code == "prompt_outputs_failed_validation"
        nodes = {"1": {"class_type": "NoSuchNode", "inputs": {}}}
        with pytest.raises(MediaRequestError, match="NoSuchNode"):
            call(hook, "submit", "run", {"workflow": nodes})
        assert sim.ledger() == []

    def test_an_output_that_is_left_out(self, hook: ComfyUIHook, sim: Simulator, call: Any) -> None:
        """A prompt of which the server drops an output runs with the others, and the log says so."""
        nodes = {**GRAPH, "4": {"class_type": "SaveImage", "inputs": {}}}
        with structlog.testing.capture_logs() as logs:
            task = call(hook, "submit", "run", {"workflow": nodes})
        (warning,) = [line["event"] for line in logs if line["log_level"] == "warning"]
        assert "leaves something out: 'images'" in warning
        sim.advance(10)
        assert len(call(hook, "get_task", task.id).files) == 1

    # What is made.

    def test_previews_are_no_results(self, hook: ComfyUIHook, sim: Simulator, call: Any) -> None:
        """What a node only shows is left out; if there is nothing else, nothing was made."""
        preview = {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}
        both, alone = ({**GRAPH, "4": preview}, {**GRAPH, "3": preview})
        tasks = [call(hook, "submit", "run", {"workflow": nodes}) for nodes in (both, alone)]
        sim.advance(10)
        made, nothing = (call(hook, "get_task", task.id) for task in tasks)
        assert [file.kind for file in made.files] == ["video"]
        assert nothing.error.code == "no_output"

    # The connection.

    def test_a_server_that_asks_for_no_key(
        self, connect: Any, sim: Simulator, call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Without a password none is sent, Test says so, and what is made may be fetched by anybody."""
        monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS", "127.0.0.1")
        hook = self.hook_for(connect, sim, password="")
        assert hook._headers() == {}
        assert hook.test_connection() == (
            True,
            "ok, it answers, without a key (this provider's API shows no balance)",
        )
        done = self.finished(hook, sim)
        assert {file.access for file in done.files} == {None}
        assert [file["kind"] for file in self.landed(done, tmp_path)] == ["image", "image"]

    def test_what_is_made_lands_with_the_key(
        self, connect: Any, sim: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Behind a proxy that asks for a key, files are fetched with it."""
        monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS", "127.0.0.1")
        done = self.finished(self.hook_for(connect, sim), sim)
        assert {file.access for file in done.files} == {"key"}
        files = self.landed(done, tmp_path)
        assert [file["content_type"] for file in files] == ["image/png"] * 2
        assert KEY not in json.dumps(files)
        connect("account", conn_type="comfyui", host=f"{sim.url}/comfyui", password="another-key")
        with pytest.raises(MediaExpiredError):
            self.landed(done, tmp_path / "other")

    def landed(self, done: Any, folder: Path) -> Any:
        """The files of a finished task, landed by the connection `account`."""
        media = {**done.to_dict(), "media_conn_id": "account"}
        destination = storage.Destination(f"{folder.as_uri()}/", PLACE)
        (document,) = storage.land(
            storage.made_of(media, ("account",)), destination, logging.getLogger(__name__)
        )
        return document["files"]

    def test_a_user_and_a_password(self, connect: Any, peer: Peer) -> None:
        """With both, a proxy's basic authentication is answered, and no error shows the password."""
        hook = ComfyUIHook(connect(conn_type="comfyui", host=peer.url, login="me", password="a-pass-word"))
        pair = base64.b64encode(b"me:a-pass-word").decode()
        peer.answer = lambda handler: say(handler, f"who is {pair} or a-pass-word?".encode(), 401)
        with pytest.raises(MediaAuthError) as caught:
            hook.get_task(self.unknown_id)
        assert peer.seen[0][2]["authorization"] == f"Basic {pair}"
        assert "a-pass-word" not in str(caught.value)
        assert pair not in str(caught.value)


@pytest.fixture
def hook(connect: Any) -> ComfyUIHook:
    """A hook that is talked to by hand."""
    return ComfyUIHook(connect(conn_type="comfyui"))


def read(hook: ComfyUIHook, **document: Any) -> Any:
    """The task that this job is."""
    return hook._task("t-1", {"id": "t-1", **document})


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("pending", TaskStatus.QUEUED),
        ("in_progress", TaskStatus.RUNNING),
        ("completed", TaskStatus.SUCCEEDED),
        ("failed", TaskStatus.FAILED),
        ("cancelled", TaskStatus.CANCELLED),
    ],
)
def test_every_status_word(hook: ComfyUIHook, word: str, status: TaskStatus) -> None:
    """Each is known."""
    images = {"9": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}}
    assert read(hook, status=word, outputs=images).status is status


def test_why_it_failed(hook: ComfyUIHook) -> None:
    """A failure is told by the exception of the node that failed."""
    said = {"exception_type": "torch.OutOfMemoryError", "exception_message": "Allocation on device"}
    error = read(hook, status="failed", execution_error={**said, "node_id": "3", "traceback": ["x"]}).error
    assert type(error) is MediaTaskFailed
    assert error.code == "torch.OutOfMemoryError"
    assert "Allocation on device" in str(error)


@pytest.mark.parametrize(
    ("outputs", "kinds"),
    [
        ({"9": {"images": [{"filename": "a_00001_.png", "type": "output"}]}}, ["image"]),
        ({"9": {"images": [{"filename": "a.mp4", "type": "output"}], "animated": [True]}}, ["video"]),
        ({"9": {"gifs": [{"filename": "a.webm", "type": "output", "format": "video/webm"}]}}, ["video"]),
        ({"9": {"audio": [{"filename": "a.flac", "subfolder": "audio", "type": "output"}]}}, ["audio"]),
        ({"9": {"3d": [{"filename": "a.glb", "type": "output"}]}}, ["file"]),
        ({"9": {"text": ["a poem"]}, "8": {"images": [{"filename": "b.jpg"}]}}, ["image"]),
        ({"9": {"images": [{"filename": "a.png", "type": "temp"}]}}, []),
        ({"9": {"text": ["a poem"]}}, []),
        ({}, []),
        (None, []),
    ],
)
def test_every_kind_of_output(hook: ComfyUIHook, outputs: Any, kinds: list[str]) -> None:
    """What a file is, its name tells, whatever it stands under; texts and previews are no files."""
    task = read(hook, status="completed", outputs=outputs)
    assert [file.kind for file in task.files] == kinds
    assert bool(task.error) == (not kinds)


def test_where_a_file_is(hook: ComfyUIHook) -> None:
    """A file is fetched by its name, folder and type, whatever is in them."""
    file = {"filename": "a b&c.png", "subfolder": "x/y", "type": "output"}
    (made,) = read(hook, status="completed", outputs={"9": {"images": [file]}}).files
    assert made.url == "http://127.0.0.1:8188/view?filename=a+b%26c.png&subfolder=x%2Fy&type=output"


def test_what_a_list_shows(hook: ComfyUIHook) -> None:
    """A list shows one file of each, which is enough to know that something was made."""
    shown = {"filename": "a.png", "subfolder": "", "type": "output", "nodeId": "9", "mediaType": "images"}
    task = read(hook, status="completed", outputs_count=2, preview_output=shown)
    assert (task.status, len(task.files)) == (TaskStatus.SUCCEEDED, 1)


@pytest.mark.parametrize(
    ("body", "status", "code", "cls"),
    [
        (
            {"error": {"type": "no_prompt", "message": "No prompt", "details": ""}},
            400,
            "no_prompt",
            MediaRequestError,
        ),
        (
            {"error": {"type": "invalid_prompt_id", "message": "bad id"}},
            400,
            "invalid_prompt_id",
            MediaRequestError,
        ),
        ({"error": "Job not found"}, 404, "Job not found", MediaNotFoundError),
        ({}, 404, None, MediaRequestError),
        ({"message": "Forbidden origin"}, 403, None, MediaAuthError),
    ],
)
def test_every_refusal(
    hook: ComfyUIHook, body: dict[str, Any], status: int, code: str | None, cls: type[Exception]
) -> None:
    """An error is an object with a type, or a text; a path that is not there says nothing of a prompt."""
    error = hook.error_of(reply(body, status))
    assert type(error) is cls
    assert error.code == code
