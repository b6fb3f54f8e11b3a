from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

import pytest

from airflow_media_tasks.hooks.fal import FalHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaRequestError,
    MediaTaskError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)

from .case import MARK
from .contract import HookContract


PICTURE = "https://example.com/1.png"
OWN = "acme/own/v2/paint"


class TestFalHook(HookContract):
    """The contract, for fal."""

    hook_class = FalHook
    paid = "text_to_image"
    other = "text_to_video"
    unknown_id = "fal-ai/flux/00000000-0000-4000-8000-000000000000"
    foreign_ids = (
        "00000000-0000-4000",
        "veo/0000",
        "fal-ai/flux/dev/0000",
        "fal-ai/flux/",
        "a/b/c?d",
        "../a/b",
    )
    ambiguous = frozenset(FalHook.operations)
    requests_per_result = 2
    lists_what_runs = False
    listed_within = timedelta(hours=1)
    wrong_key_words = "No user found"
    documented = (
        ("text_to_image", "1.jpg", "image/jpeg"),
        ("text_to_video", "1.mp4", "video/mp4"),
        ("text_to_music", "1.wav", "audio/wav"),
        ("text_to_speech", "1.mp3", "audio/mpeg"),
    )
    samples: ClassVar = {
        "run": {"model": OWN, "anything": {"deep": [1]}, "seed": 7},
        "text_to_image": {"prompt": "a lighthouse at dusk", "count": "2"},
        "image_to_image": {"prompt": "at night", "image_url": PICTURE},
        "text_to_video": {"prompt": "waves", "duration": "5", "aspect_ratio": "16:9"},
        "image_to_video": {"prompt": "it rains", "image_url": PICTURE},
        "text_to_music": {"prompt": "a slow waltz"},
        "text_to_speech": {"text": "good evening"},
        "upscale_image": {"image_url": PICTURE, "scale": 4},
    }

    def expected_mark(self, operation: str) -> None:
        """A request has no place for a mark of ours."""

    def accepted(self, own_id: Any) -> dict[str, Any]:
        """A submission's answer."""
        return {"status": "IN_QUEUE", "request_id": own_id, "queue_position": 0}

    def group_of(self, operation: str) -> str:
        """Owner and alias of its endpoint."""
        return "/".join(FalHook.operations[operation].defaults["model"].split("/")[:2])

    def finished_with(self, operation: str, url: str) -> dict[str, Any]:
        """The status and the result in one, as the two requests have the same answer."""
        made = {"image": {"images": [{"url": url}]}, "video": {"video": {"url": url}}}
        kind = FalHook.operations[operation].kind
        return {"status": "COMPLETED", "logs": None, **made.get(kind, {"audio": {"url": url}})}

    def run(self, hook: FalHook, sim: Simulator, call: Any, model: str = OWN, **arguments: Any) -> Any:
        """The task of *model* with these arguments when it has ended."""
        task = call(hook, "submit", "run", {"model": model, **arguments})
        sim.advance(10)
        return call(hook, "get_task", task.id)

    # Endpoints.

    def test_any_endpoint(self, hook: FalHook, sim: Simulator, call: Any) -> None:
        """An endpoint that nobody knows gets its arguments as they are; its path is not in the task's id."""
        task = self.run(hook, sim, call, text="hello", options={"deep": [1]})
        (entry,) = sim.ledger()
        assert (task.id, task.status) == (f"acme/own/{entry['id']}", TaskStatus.SUCCEEDED)
        assert entry["request"] == {"text": "hello", "options": {"deep": [1]}}
        assert f"POST /fal/{OWN}" not in sim.requests()

    def test_workflow(self, hook: FalHook, sim: Simulator, call: Any) -> None:
        """What stands before the owner of a workflow belongs to its name."""
        task = self.run(hook, sim, call, "workflows/acme/own-video/steps")
        assert task.id == f"workflows/acme/own-video/{sim.ledger()[0]['id']}"
        assert task.url is not None

    @pytest.mark.parametrize("model", ["acme/../own", "/acme/own", "acme/own?x=1", "acme/own#x", "a b/c"])
    def test_endpoint_that_cannot_be_one(self, hook: FalHook, sim: Simulator, call: Any, model: str) -> None:
        """What is no endpoint's id is refused by name, before anything is sent."""
        with pytest.raises(MediaRequestError, match="'model'"):
            call(hook, "submit", "run", {"model": model})
        assert sim.requests() == {}

    @pytest.mark.parametrize("form", [dict, json.dumps])
    def test_endpoints_of_the_connection(self, connect: Any, sim: Simulator, call: Any, form: Any) -> None:
        """The connection names an operation's endpoint, as the form keeps it, too; the task outranks it."""
        hook = self.hook_for(connect, sim, extra={"models": form({"text_to_image": OWN})})
        tasks = [
            call(hook, "submit", "text_to_image", {"prompt": "a cup", **more})
            for more in ({}, {"model": "fal-ai/flux/dev"})
        ]
        assert [task.id.rpartition("/")[0] for task in tasks] == ["acme/own", "fal-ai/flux"]
        assert [entry["request"] for entry in sim.ledger()] == [{"prompt": "a cup"}] * 2

    @pytest.mark.parametrize("models", ["{", "[]", '{"paint": "a/b"}', '{"run": 5}'])
    def test_endpoints_that_make_no_sense(self, connect: Any, sim: Simulator, call: Any, models: str) -> None:
        """What is no table of models is refused with its value before anything is sent."""
        hook = self.hook_for(connect, sim, extra={"models": models})
        with pytest.raises(MediaRequestError, match="models in extra must be"):
            call(hook, "submit", self.paid, self.samples[self.paid])
        assert sim.requests() == {}

    def test_lost_submission_to_an_endpoint_of_the_connection(
        self, connect: Any, sim: Simulator, call: Any
    ) -> None:
        """What was lost is looked for in the list of the endpoint that it was sent to."""
        hook = self.hook_for(connect, sim, extra={"models": {"text_to_image": OWN}})
        began = datetime.now(timezone.utc)
        lost = self.with_words("[sim:lose-reply]")
        with pytest.raises(SubmissionOutcomeUnknown):
            call(hook, "submit", self.paid, lost)
        sim.advance(10)
        wanted = {"operation": self.paid, "submitted_after": began}
        (found,) = call(hook, "find_tasks", arguments=lost, **wanted)
        assert found.id == f"acme/own/{sim.ledger()[0]['id']}"
        assert [task.id for task in call(hook, "find_tasks", **wanted)] == [found.id]

    # What fails.

    @pytest.mark.parametrize("words", ["", "[sim:error=detail]"])
    def test_wrong_arguments_are_told_by_the_result(
        self, hook: FalHook, sim: Simulator, call: Any, words: str
    ) -> None:
        """The queue takes any arguments; what the model says of them later is the task's error."""
        task = self.run(hook, sim, call, "fal-ai/flux/dev", prompt=f"a cup {words}", num_images=9)
        assert (task.status, type(task.error)) == (TaskStatus.FAILED, MediaTaskFailed)
        assert task.error.code == "less_than_equal"
        assert "from 1 to 4" in str(task.error)

    @pytest.mark.parametrize(
        ("word", "cls", "code"),
        [
            ("moderation", MediaModerationError, "content_policy_violation"),
            ("provider", MediaTaskFailed, "runner_disconnected"),
            ("timeout", MediaTaskFailed, "generation_timeout"),
        ],
    )
    @pytest.mark.parametrize("shown", ["", "[sim:error=detail]"])
    def test_errors_of_the_queue_and_of_the_model(
        self,
        hook: FalHook,
        sim: Simulator,
        call: Any,
        word: str,
        cls: type[MediaTaskError],
        code: str,
        shown: str,
    ) -> None:
        """Each has its code, whether the status tells it or the result alone, and repeats no prompt."""
        task = self.run(hook, sim, call, "fal-ai/flux/dev", prompt=f"a red cup [sim:fail={word}] {shown}")
        assert type(task.error) is cls
        assert task.error.code == code
        assert "a red cup" not in f"{task.error} {task.error.to_dict()}"

    def test_locked_account(self, hook: FalHook, sim: Simulator, call: Any) -> None:
        """A 403 that says that the user is locked is a matter of money, not of the key."""
        with pytest.raises(MediaFundsError, match="User is locked"):
            call(hook, "submit", self.paid, self.with_words("[sim:reject=funds]"))

    def test_cancelled_before_it_began(self, hook: FalHook, sim: Simulator, call: Any) -> None:
        """A request that was cancelled ends with the queue's words for it; an unknown one cannot be."""
        task = call(hook, "submit", self.paid, self.with_words("[sim:seconds=600]"))
        error = call(hook, "cancel_task", task.id).error
        assert (error.code, "cancelled" in str(error)) == ("client_cancelled", True)
        with pytest.raises(MediaNotFoundError):
            call(hook, "cancel_task", self.unknown_id)

    # What was made.

    def test_sound_as_a_bare_address(self, hook: FalHook, sim: Simulator, call: Any) -> None:
        """Some models say `audio_url` and nothing more of a sound."""
        task = self.run(hook, sim, call, "acme/speech", text="good evening [sim:shape=flat]")
        assert [file.kind for file in task.files] == ["audio"]

    def test_address_in_a_prompt_is_no_result(self, hook: FalHook, sim: Simulator, call: Any) -> None:
        """A result repeats the prompt, in which anything may stand."""
        task = self.run(hook, sim, call, prompt=PICTURE)
        assert [url.startswith(sim.url) for url in task.urls] == [True]

    def test_two_equal_requests_are_a_question(self, hook: FalHook, sim: Simulator, call: Any) -> None:
        """Nothing tells two equal requests apart, so both are shown."""
        began = datetime.now(timezone.utc)
        for _ in range(2):
            call(hook, "submit", self.paid, self.samples[self.paid], client_ref=MARK)
        sim.advance(10)
        wanted = {"operation": self.paid, "arguments": self.samples[self.paid], "submitted_after": began}
        assert len(call(hook, "find_tasks", client_ref=MARK, **wanted)) == 2
