"""The hook against a Replicate that somebody else wrote from its documentation, see `replicate_server.py`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaExpiredError,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTask,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)

from .conftest import Connected, looks_at
from .replicate_server import DELIVERY, TOKEN, Replicate


HEX = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"


@pytest.fixture
def server() -> Iterator[Replicate]:
    """A Replicate by somebody who has not seen the hook."""
    with Replicate() as server:
        yield server


@pytest.fixture
def hook(server: Replicate, connected: Connected) -> MediaHook:
    """The hook, with a connection to it and the right token."""
    return connected(conn_type="replicate", host=server.url, password=TOKEN)


def run(hook: MediaHook, name: str) -> MediaTask:
    """A task of stranger/NAME at its end."""
    task = hook.submit("run", {"model": f"stranger/{name}", "prompt": "a lighthouse"})
    queued, running, ended = looks_at(hook, task)
    assert queued.status is TaskStatus.QUEUED
    assert (running.status, running.files) == (TaskStatus.RUNNING, ())
    return ended


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("list", [("image", "out-0.webp"), ("image", "out-1.webp")]),
        ("text", [("video", "out.mp4")]),
        ("object", [("audio", "out.wav"), ("image", "out.png")]),
    ],
)
def test_every_form_of_output(hook: MediaHook, name: str, files: list[tuple[str, str]]) -> None:
    """Files are found in a list, a text and an object, of the kind that their names say, kept for an hour."""
    task = run(hook, name)
    assert task.status is TaskStatus.SUCCEEDED
    assert [(file.kind, file.url) for file in task.files] == [
        (kind, f"{DELIVERY}/{path}") for kind, path in files
    ]
    left = [file.expires_at - datetime.now(timezone.utc) for file in task.files if file.expires_at]
    assert len(left) == len(files)
    assert all(timedelta(minutes=59) < one <= timedelta(hours=1) for one in left)


@pytest.mark.parametrize(
    ("name", "status", "error", "words"),
    [
        ("words", TaskStatus.FAILED, MediaTaskFailed, "without an output URL"),
        ("number", TaskStatus.FAILED, MediaTaskFailed, "without an output URL"),
        ("null", TaskStatus.FAILED, MediaTaskFailed, "without an output URL"),
        ("removed", TaskStatus.FAILED, MediaExpiredError, "expired"),
        ("failed", TaskStatus.FAILED, MediaTaskFailed, "CUDA out of memory"),
        ("nsfw", TaskStatus.FAILED, MediaModerationError, "NSFW content detected"),
        ("canceled", TaskStatus.CANCELLED, MediaTaskFailed, "canceled"),
        ("aborted", TaskStatus.CANCELLED, MediaTaskFailed, "aborted"),
    ],
)
def test_every_other_end(
    hook: MediaHook, name: str, status: TaskStatus, error: type[Exception], words: str
) -> None:
    """What made no file has failed, with the reason; what is too old has expired, for all its success."""
    task = run(hook, name)
    assert (task.status, task.files) == (status, ())
    assert type(task.error) is error
    assert words in str(task.error)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("unpaid", MediaFundsError, "insufficient credit"),
        ("unknown", MediaNotFoundError, "could not be found"),
        ("throttled", MediaRateLimitError, "throttled"),
        ("invalid", MediaRequestError, "input.steps: Invalid type"),
        ("broken", SubmissionOutcomeUnknown, "500"),
    ],
)
def test_every_refusal(
    hook: MediaHook, server: Replicate, name: str, error: type[Exception], words: str
) -> None:
    """Each refusal is of the class that says what to do, in Replicate's words, and is sent once."""
    with pytest.raises(error, match=words):
        hook.submit("run", {"model": f"stranger/{name}", "steps": "many"})
    assert len(server.requests) == 1


def test_a_refusal_for_the_rate_says_when_to_come_back(hook: MediaHook) -> None:
    """The seconds stand in the sentence alone."""
    with pytest.raises(MediaRateLimitError) as caught:
        hook.submit("run", {"model": "stranger/throttled", "prompt": "a lighthouse"})
    assert caught.value.retry_after == 30


def test_a_wrong_token(server: Replicate, connected: Connected, hook: MediaHook) -> None:
    """A wrong token is told by the *Test* button and by every request; a good one passes."""
    assert hook.test_connection()[0]
    wrong = connected(conn_type="replicate", host=server.url, password="r8_wrong")
    said, words = wrong.test_connection()
    assert not said
    assert "valid authentication token" in words
    with pytest.raises(MediaAuthError):
        wrong.submit("run", {"model": "stranger/list"})


@pytest.mark.parametrize("model", ["stranger/text", f"stranger/text:{HEX}", HEX])
def test_every_way_to_name_a_model(hook: MediaHook, server: Replicate, model: str) -> None:
    """A model's name, with its version or without, and a version alone are taken as they are."""
    task = hook.submit("run", {"model": model, "prompt": "a lighthouse", "steps": 4})
    assert hook.get_task(task.id).id == task.id
    (prediction,) = server.predictions
    assert prediction["input"] == {"prompt": "a lighthouse", "steps": 4}


@pytest.mark.parametrize("model", ["stranger/lost", f"stranger/lost:{HEX}"])
def test_a_lost_submission_is_found_on_a_later_page(hook: MediaHook, server: Replicate, model: str) -> None:
    """What was accepted without our hearing of it is found by its model and input, page after page."""
    began = datetime.now(timezone.utc)
    arguments = {"model": model, "prompt": "a lighthouse"}
    with pytest.raises(SubmissionOutcomeUnknown):
        hook.submit("run", arguments)
    for number in range(9):
        hook.submit("run", {"model": "stranger/list", "prompt": f"number {number}"})
    (found,) = hook.find_tasks(operation="run", arguments=arguments, submitted_after=began)
    assert found.id == server.predictions[0]["id"]
    assert sum(one.path.startswith("/v1/predictions?") for one in server.requests) == 3


def test_what_another_model_made_of_the_same_is_not_taken(hook: MediaHook, server: Replicate) -> None:
    """Two models that were asked for the same are two submissions: the other's film is not our picture."""
    began = datetime.now(timezone.utc)
    hook.submit("text_to_video", {"prompt": "a lighthouse"})
    arguments = {"prompt": "a lighthouse"}
    for operation in ("text_to_image", "text_to_music"):
        assert hook.find_tasks(operation=operation, arguments=arguments, submitted_after=began) == []
    (found,) = hook.find_tasks(operation="text_to_video", arguments=arguments, submitted_after=began)
    assert found.id == server.predictions[0]["id"]


def test_what_was_removed_may_be_ours(hook: MediaHook, server: Replicate) -> None:
    """A prediction whose input is gone is a question, as nobody can say what it was made from."""
    began = datetime.now(timezone.utc)
    arguments = {"model": "stranger/removed", "prompt": "a lighthouse"}
    task = hook.submit("run", arguments)
    assert hook.find_tasks(operation="run", arguments=arguments, submitted_after=began)
    hook.get_task(task.id)
    hook.get_task(task.id)
    with pytest.raises(SubmissionOutcomeUnknown, match=task.id):
        hook.find_tasks(operation="run", arguments=arguments, submitted_after=began)


def test_cancelling(hook: MediaHook, server: Replicate) -> None:
    """A running task is cancelled; one that has ended stays what it is; an unknown one is not found."""
    running = hook.submit("run", {"model": "stranger/text", "prompt": "a lighthouse"})
    assert hook.cancel_task(running.id).status is TaskStatus.CANCELLED
    assert hook.get_task(running.id).status is TaskStatus.CANCELLED
    done: Any = run(hook, "text")
    assert hook.cancel_task(done.id).status is TaskStatus.SUCCEEDED
    with pytest.raises(MediaNotFoundError):
        hook.cancel_task("nope")
    with pytest.raises(MediaNotFoundError):
        hook.get_task("nope")
