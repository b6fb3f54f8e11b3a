from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_media_tasks.hooks.replicate import ReplicateHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaExpiredError,
    MediaModerationError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTaskFailed,
    TaskStatus,
)

from .by_hand import reply
from .contract import HookContract
from .peer import Peer, say


HEX = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
IMAGE = "https://example.com/1.png"


class TestReplicateHook(HookContract):
    """The contract, for Replicate."""

    hook_class = ReplicateHook
    paid = "text_to_image"
    other = "text_to_speech"
    unknown_id = "gm3qorzdhgbfurvjtvhg6dckhu"
    foreign_ids = ("veo/00000000", "videos/text2video/00000000", "operations/a/b", "task id", "a?b")
    ambiguous = frozenset(ReplicateHook.operations)
    wrong_key_words = "valid authentication token"
    documented = (
        ("text_to_image", "out-0.webp", "image/webp"),
        ("text_to_image", "out.jpg", "image/jpeg"),
        ("upscale_image", "output.png", "image/png"),
        ("text_to_video", "output.mp4", "video/mp4"),
        ("text_to_music", "output.wav", "audio/wav"),
        ("text_to_speech", "output.mp3", "audio/mpeg"),
    )
    samples: ClassVar = {
        "run": {"model": "somebody/something", "prompt": "a lighthouse at dusk", "depth": [1, 2]},
        "text_to_image": {"prompt": "a lighthouse at dusk", "aspect_ratio": "16:9", "count": 2},
        "image_to_image": {"prompt": "at night", "image_url": IMAGE},
        "text_to_video": {"prompt": "waves", "duration": "5"},
        "image_to_video": {"prompt": "it rains", "image_url": IMAGE, "end_image_url": IMAGE},
        "text_to_music": {"prompt": "a slow waltz", "duration": 60},
        "text_to_speech": {"text": "Land ahead.", "voice": "Wise_Woman"},
        "upscale_image": {"image_url": IMAGE, "scale": 4},
    }

    def expected_mark(self, operation: str) -> None:
        """A prediction has no place for a mark of ours."""

    def accepted(self, own_id: Any) -> dict[str, Any]:
        """A prediction that has not begun."""
        return {"id": own_id, "status": "starting", "output": None, "error": None}

    def group_of(self, operation: str) -> str:
        """Predictions have none."""
        return ""

    def finished_with(self, operation: str, url: str) -> dict[str, Any]:
        """A prediction that made one file."""
        return {"id": "t-1", "status": "succeeded", "output": [url], "data_removed": False}

    # What is sent.

    def test_what_is_sent(self, hook: ReplicateHook, sim: Simulator) -> None:
        """Neutral words stand in `input` by the default model's names, and a webhook beside it."""
        hook.submit("image_to_video", {**self.samples["image_to_video"], "webhook": "https://e.com/x"})
        hook.submit("text_to_image", {"prompt": "a cup", "count": "3", "seed": 7})
        hook.submit("text_to_speech", {"text": "hello", "voice": "Wise_Woman"})
        hook.submit("upscale_image", {"image_url": IMAGE, "scale": 2})
        assert [entry["request"] for entry in sim.ledger()] == [
            {
                "version": "bytedance/seedance-1-lite",
                "input": {"prompt": "it rains", "image": IMAGE, "last_frame_image": IMAGE},
                "webhook": "https://e.com/x",
            },
            {
                "version": "black-forest-labs/flux-schnell",
                "input": {"prompt": "a cup", "num_outputs": 3, "seed": 7},
            },
            {"version": "minimax/speech-02-turbo", "input": {"text": "hello", "voice_id": "Wise_Woman"}},
            {"version": "nightmareai/real-esrgan", "input": {"image": IMAGE, "scale": 2}},
        ]

    @pytest.mark.parametrize("model", ["google/imagen-4", f"stability-ai/sdxl:{HEX}", HEX])
    def test_any_model_by_any_of_its_names(self, hook: ReplicateHook, sim: Simulator, model: str) -> None:
        """`run` passes every argument on as it is, to a model by its name, its version or both."""
        given = {"prompt": "a cup", "num_outputs": 2, "image_url": IMAGE}
        task = hook.submit("run", {"model": model, **given})
        (entry,) = sim.ledger()
        assert entry["request"] == {"version": model, "input": given}
        sim.advance(10)
        assert len(hook.get_task(task.id).files) == 2

    def test_the_connection_names_the_models(self, connect: Any, sim: Simulator) -> None:
        """`models` in the connection's extra replaces a default model; a task's own `model` outranks it."""
        hook = self.hook_for(connect, sim, extra={"models": {"text_to_image": "google/imagen-4"}})
        hook.submit("text_to_image", {"prompt": "a cup"})
        hook.submit("text_to_image", {"prompt": "a cup", "model": "qwen/qwen-image"})
        hook.submit("text_to_video", {"prompt": "a cup"})
        assert [entry["request"]["version"] for entry in sim.ledger()] == [
            "google/imagen-4",
            "qwen/qwen-image",
            "bytedance/seedance-1-lite",
        ]

    @pytest.mark.parametrize("models", [["google/imagen-4"], {"text_to_film": "a/b"}, {"text_to_image": 5}])
    def test_models_that_cannot_be(self, connect: Any, sim: Simulator, models: Any) -> None:
        """Wrong `models` are told with the connection's id before anything is sent."""
        hook = self.hook_for(connect, sim, extra={"models": models})
        with pytest.raises(MediaRequestError, match=r"'account'.*models"):
            hook.submit("text_to_image", {"prompt": "a cup"})
        assert sim.requests() == {}

    # What is made.

    @pytest.mark.parametrize(
        ("words", "count"), [("", 1), ("[sim:shape=list]", 1), ("[sim:shape=object]", 1)]
    )
    def test_every_form_of_output(
        self, hook: ReplicateHook, sim: Simulator, call: Any, words: str, count: int
    ) -> None:
        """A file is found in a text, in a list and in an object."""
        arguments = {"model": "google/veo-3", "prompt": f"it turns {words}"}
        task = call(hook, "submit", "run", arguments)
        sim.advance(10)
        done = call(hook, "get_task", task.id)
        assert [file.kind for file in done.files] == ["video"] * count

    def test_what_is_made_by_and_by_is_no_result(
        self, hook: ReplicateHook, sim: Simulator, call: Any
    ) -> None:
        """The first of several pictures, shown while the others are made, ends nothing."""
        arguments = {"prompt": "a cup [sim:response=partial]", "count": 3}
        task = call(hook, "submit", "text_to_image", arguments)
        sim.advance(1.5)
        running = call(hook, "get_task", task.id)
        assert (running.status, running.files) == (TaskStatus.RUNNING, ())
        sim.advance(10)
        assert len(call(hook, "get_task", task.id).files) == 3

    def test_results_die_after_an_hour(self, hook: ReplicateHook, sim: Simulator, call: Any) -> None:
        """Files say when they end, an hour after the prediction did; then its success has expired."""
        task = call(hook, "submit", self.paid, self.samples[self.paid])
        sim.advance(10)
        done = call(hook, "get_task", task.id)
        ended = datetime.fromisoformat(done.raw["completed_at"].replace("Z", "+00:00"))
        assert {file.expires_at for file in done.files} == {ended + timedelta(hours=1)}
        sim.advance(3600)
        late = call(hook, "get_task", task.id)
        assert (late.status, late.files) == (TaskStatus.FAILED, ())
        assert type(late.error) is MediaExpiredError

    # What refuses and fails.

    def test_a_refusal_for_the_rate_without_a_header(self, hook: ReplicateHook, sim: Simulator) -> None:
        """How long to wait is read from the sentence that is all that Replicate says."""
        with pytest.raises(MediaRateLimitError) as caught:
            hook.submit(self.paid, self.with_words("[sim:reject=rate]"))
        assert caught.value.retry_after == 1

    def test_invalid_input_is_named(self, hook: ReplicateHook, sim: Simulator, call: Any) -> None:
        """What a model does not take is told in Replicate's words, with the field."""
        with pytest.raises(MediaRequestError, match=r"input\.num_outputs: Must be an integer from 1 to 4"):
            call(hook, "submit", "text_to_image", {"prompt": "a cup", "count": 9})
        assert sim.ledger() == []

    # What is found.

    def test_the_same_input_to_another_model_is_another(
        self, hook: ReplicateHook, sim: Simulator, call: Any
    ) -> None:
        """A prediction of another model is not taken for a lost one, although it was asked for the same."""
        began = datetime.now(timezone.utc)
        hook.submit("text_to_video", {"prompt": "a cup"})
        wanted = {"arguments": {"prompt": "a cup"}, "submitted_after": began}
        assert call(hook, "find_tasks", operation="text_to_image", **wanted) == []
        (found,) = call(hook, "find_tasks", operation="text_to_video", **wanted)
        assert found.id == sim.ledger()[0]["id"]

    def test_every_page_is_read(self, hook: ReplicateHook, sim: Simulator, call: Any) -> None:
        """What lies behind two hundred others is found by following the pages' addresses."""
        began = datetime.now(timezone.utc)
        with hook:
            lost = hook.submit("text_to_image", {"prompt": "the first"})
            for number in range(210):
                hook.submit("text_to_image", {"prompt": f"number {number}"})
        before = sim.requests()["GET /replicate/v1/predictions"] if "GET" in sim.requests() else 0
        wanted = {"operation": "text_to_image", "arguments": {"prompt": "the first"}}
        (found,) = call(hook, "find_tasks", submitted_after=began, **wanted)
        assert found.id == lost.id
        assert sim.requests()["GET /replicate/v1/predictions"] - before == 3


def test_a_pages_address_is_not_followed(connect: Any, peer: Peer) -> None:
    """Whatever address a page names for the next one, only its cursor is taken, and the token stays here."""
    other = {"id": "t-1", "status": "starting", "model": "a/b", "input": {"prompt": "another"}}
    pages = [
        {"results": [other], "next": "https://elsewhere.example/v1/predictions?cursor=cD0x"},
        {"results": [], "next": None},
    ]
    peer.answer = lambda handler: say(handler, pages[len(peer.seen) - 1])
    hook = ReplicateHook(connect(conn_type="replicate", host=peer.url, password="a-good-token"))
    since, wanted = datetime.now(timezone.utc), {"model": "a/b", "prompt": "a cup"}
    assert hook.find_tasks(operation="run", arguments=wanted, submitted_after=since) == []
    assert [parse_qs(urlsplit(path).query).get("cursor") for _, path, _, _ in peer.seen] == [None, ["cD0x"]]
    assert {urlsplit(path).path for _, path, _, _ in peer.seen} == {"/v1/predictions"}


@pytest.fixture
def hook(connect: Any) -> ReplicateHook:
    """A hook that is talked to by hand."""
    return ReplicateHook(connect(conn_type="replicate", password="a-good-token"))


def read(hook: ReplicateHook, **document: Any) -> Any:
    """The task that this prediction is."""
    return hook._task("t-1", {"id": "t-1", **document})


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("starting", TaskStatus.QUEUED),
        ("processing", TaskStatus.RUNNING),
        ("succeeded", TaskStatus.SUCCEEDED),
        ("failed", TaskStatus.FAILED),
        ("canceled", TaskStatus.CANCELLED),
        ("cancelled", TaskStatus.CANCELLED),
        ("aborted", TaskStatus.CANCELLED),
    ],
)
def test_every_status_word(hook: ReplicateHook, word: str, status: TaskStatus) -> None:
    """Both spellings of cancelled, and the word for what ended before it began, are known."""
    assert read(hook, status=word, output=IMAGE).status is status


@pytest.mark.parametrize(
    ("words", "cls"),
    [
        ("NSFW content detected. Try running it again, or try a different prompt.", MediaModerationError),
        ("The input or output was flagged as sensitive. Please try again. (E005)", MediaModerationError),
        ("Request was rejected by the safety system.", MediaModerationError),
        ("CUDA out of memory.", MediaTaskFailed),
        ("", MediaTaskFailed),
        (None, MediaTaskFailed),
    ],
)
def test_every_failure(hook: ReplicateHook, words: str | None, cls: type[Exception]) -> None:
    """A failure has words alone, and they tell what it is."""
    error = read(hook, status="failed", error=words).error
    assert type(error) is cls
    assert not words or words in str(error)


@pytest.mark.parametrize(
    ("output", "kinds"),
    [
        ("https://replicate.delivery/a/out.mp4", ["video"]),
        (["https://replicate.delivery/a/0.webp", "https://replicate.delivery/a/1.webp"], ["image", "image"]),
        ({"audio": "https://replicate.delivery/a/x", "bpm": 120}, ["audio"]),
        ([{"stem": "https://replicate.delivery/a/x.wav"}], ["audio"]),
        ("https://replicate.delivery/a/model.glb", ["file"]),
    ],
)
def test_every_kind_of_file(hook: ReplicateHook, output: Any, kinds: list[str]) -> None:
    """A file's kind is told by the key that it stands under, or by its name."""
    assert [file.kind for file in read(hook, status="succeeded", output=output).files] == kinds


@pytest.mark.parametrize("output", [None, "", "a poem", 5, 0.5, True, [], {}, ["a", "b"], {"text": "a"}])
def test_what_is_no_file_is_no_result(hook: ReplicateHook, output: Any) -> None:
    """A model that answers in words or numbers has made nothing that could land."""
    task = read(hook, status="succeeded", output=output)
    assert task.status is TaskStatus.FAILED
    assert task.error.code == "no_output"


@pytest.mark.parametrize("field", ["safety_tolerance", "disable_safety_checker", "moderation"])
def test_a_field_with_such_a_name_is_not_moderated(hook: ReplicateHook, field: str) -> None:
    """Wrong input is a wrong request, although the field that is wrong be called after moderation."""
    wrong = {"type": "invalid", "field": f"input.{field}", "description": "Must be at most 6"}
    body = {"title": "Input validation failed", "detail": f"- input.{field}: Must be at most 6\n"}
    error = hook.error_of(reply({**body, "status": 422, "invalid_fields": [wrong]}, 422))
    assert type(error) is MediaRequestError
    assert field in str(error)


def test_problem_without_detail(hook: ReplicateHook) -> None:
    """Of a problem without a detail the title is told."""
    body = {"title": "Invalid version or not permitted", "status": 422}
    assert "Invalid version or not permitted" in str(hook.error_of(reply(body, 422)))
    assert json.dumps(hook.error_of(reply(body, 422)).to_dict())
