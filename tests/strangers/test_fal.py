"""The hook against a fal that somebody else wrote from its documentation, see `fal_server.py`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaProviderError,
    MediaRateLimitError,
    MediaTask,
    MediaTaskError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)

from .conftest import Connected, looks_at
from .fal_server import KEY, Fal


SECRET = "THE PROMPT THAT NOBODY IS TO LOG"


@pytest.fixture
def server() -> Iterator[Fal]:
    """A fal by somebody who has not seen the hook."""
    with Fal() as server:
        yield server


@pytest.fixture
def hook(server: Fal, connected: Connected) -> MediaHook:
    """The hook, with a connection to it and the right key."""
    return connected(conn_type="fal", host=server.url, password=KEY)


def ended(hook: MediaHook, name: str, **arguments: Any) -> MediaTask:
    """A request to stranger/app/NAME at its end."""
    seen = looks_at(hook, hook.submit("run", {"model": f"stranger/app/{name}", **arguments}))
    assert [task.status for task in seen[:-1]] == [TaskStatus.QUEUED, TaskStatus.QUEUED, TaskStatus.RUNNING]
    return seen[-1]


@pytest.mark.parametrize(
    ("name", "kinds", "suffixes"),
    [
        ("images", ["image", "image"], ["a.png", "b.jpg"]),
        ("image", ["image"], ["up"]),
        ("video", ["video"], ["out.mp4"]),
        ("audio", ["audio"], ["out.wav"]),
        ("audio_url", ["audio"], ["out.mp3"]),
    ],
)
def test_what_was_made(
    hook: MediaHook, server: Fal, name: str, kinds: list[str], suffixes: list[str]
) -> None:
    """Every shape of a result is read, and what stands in an echoed prompt is not taken for one."""
    task = ended(hook, name, prompt="as on https://example.com/fox.png")
    assert task.status is TaskStatus.SUCCEEDED
    assert [file.kind for file in task.files] == kinds
    assert [file.url.rpartition("/")[2] for file in task.files] == suffixes
    assert task.id == f"stranger/app/{server.kept[0]['request_id']}"
    assert server.kept[0]["input"] == {"prompt": "as on https://example.com/fox.png"}


def test_what_is_said_of_a_file(hook: MediaHook) -> None:
    """Size, length and type of a file are those of the result."""
    picture, film = ended(hook, "images").files[0], ended(hook, "video").files[0]
    assert (picture.width, picture.height, picture.content_type) == (1024, 576, "image/png")
    assert film.duration == 5.2


@pytest.mark.parametrize(
    ("name", "cls", "code", "words"),
    [
        ("flagged", MediaModerationError, "content_policy_violation", "could not be processed"),
        ("silent", MediaModerationError, "content_policy_violation", "could not be processed"),
        ("missing", MediaTaskFailed, "missing", "Field required"),
        ("slow_model", MediaTaskFailed, "generation_timeout", "Field required"),
        ("dropped", MediaTaskFailed, "runner_disconnected", "Runner disconnected"),
        ("late", MediaTaskFailed, "request_timeout", "Request timed out"),
        ("nothing", MediaTaskFailed, "no_output", "without an output URL"),
    ],
)
def test_why_it_failed(
    hook: MediaHook, server: Fal, name: str, cls: type[MediaTaskError], code: str, words: str
) -> None:
    """Completed is no success: the error is in the status or the result, whatever HTTP status that has."""
    task = ended(hook, name)
    assert task.status is TaskStatus.FAILED
    assert type(task.error) is cls
    assert task.error.code == code
    assert words in str(task.error)
    assert SECRET not in f"{task.error} {task.error.to_dict()}"
    looks = [one for one in server.requests if one.method == "GET" and one.segments[-1] != "status"]
    assert len(looks) <= 1


def test_endpoint_that_is_not_there(hook: MediaHook) -> None:
    """The queue takes a path that the app does not have, completes it, and knows of no result."""
    with pytest.raises(MediaNotFoundError, match="Path /no_path not found"):
        ended(hook, "no_path")


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("unpaid", MediaFundsError),
        ("forbidden", MediaAuthError),
        ("unknown", MediaNotFoundError),
        ("throttled", MediaRateLimitError),
        ("ingress", SubmissionOutcomeUnknown),
        ("broken", SubmissionOutcomeUnknown),
        ("lost", SubmissionOutcomeUnknown),
    ],
)
def test_refusals(hook: MediaHook, server: Fal, name: str, cls: type[MediaTaskError]) -> None:
    """Each refusal is what it says, and is sent once; a 403 is a matter of money if it says so."""
    with pytest.raises(cls) as caught:
        hook.submit("run", {"model": f"stranger/app/{name}"})
    assert type(caught.value) is cls
    assert len(server.requests) == 1
    if name == "throttled":
        assert getattr(caught.value, "retry_after") == 3  # noqa: B009  # of this class alone


def test_wrong_key(hook: MediaHook, connected: Connected, server: Fal) -> None:
    """A wrong key is refused in the queue's form and in the platform's, and the Test button says so."""
    assert hook.test_connection()[0]
    hook = connected(conn_type="fal", host=server.url, password="another")
    with pytest.raises(MediaAuthError, match="No user found"):
        hook.submit("run", {"model": "stranger/app/images"})
    good, text = hook.test_connection()
    assert not good
    assert "No user found" in text


def test_unknown_request(hook: MediaHook) -> None:
    """An id that is not there, or that is another app's, is not found."""
    task = hook.submit("run", {"model": "stranger/app/images"})
    for unknown in (f"stranger/app/{'0' * 8}", task.id.replace("stranger/app", "stranger/another")):
        with pytest.raises(MediaNotFoundError):
            hook.get_task(unknown)


def test_cancelling(hook: MediaHook) -> None:
    """A request is cancelled by the HTTP status alone; one that has ended stays as it is."""
    task = hook.submit("run", {"model": "stranger/app/images"})
    cancelled = hook.cancel_task(task.id)
    assert cancelled.status in (TaskStatus.CANCELLED, TaskStatus.FAILED)
    assert "Request cancelled" in str(cancelled.error)
    done = ended(hook, "video")
    assert hook.cancel_task(done.id).status is TaskStatus.SUCCEEDED


def test_listing(hook: MediaHook, server: Fal) -> None:
    """What was sent to one endpoint is found page by page, by its input, as far as it has ended."""
    began = datetime.now(timezone.utc)
    with hook:
        for number in range(230):
            hook.submit("text_to_image", {"model": "stranger/app/images", "prompt": f"number {number}"})
        hook.submit("text_to_image", {"model": "stranger/app/image", "prompt": "number 7"})
        for one in server.kept:
            for _ in range(2):
                hook.get_task(f"stranger/app/{one['request_id']}")
    wanted = {"operation": "text_to_image", "submitted_after": began}
    arguments = {"model": "stranger/app/images", "prompt": "number 7"}
    (found,) = hook.find_tasks(arguments=arguments, **wanted)
    assert found.id == f"stranger/app/{server.kept[7]['request_id']}"
    assert found.status is TaskStatus.SUCCEEDED
    assert found.url is not None
    with pytest.raises(SubmissionOutcomeUnknown):
        hook.find_tasks(arguments={**arguments, "prompt": "number 1000"}, **wanted)
    wanted["submitted_after"] = began - timedelta(hours=1)
    assert hook.find_tasks(arguments={**arguments, "prompt": "number 1000"}, **wanted) == []


def test_result_that_cannot_be_read_at_the_moment(
    hook: MediaHook, server: Fal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trouble between status and result, or a key that is locked meanwhile, is not the task's failure."""
    task = ended(hook, "video")
    for status, body, cls in (
        (503, {"detail": "upstream connect error"}, MediaProviderError),
        (500, {"detail": "Internal error", "error_type": "internal_error"}, MediaProviderError),
        (429, {"detail": "Too many requests", "error_type": "rate_limited"}, MediaRateLimitError),
        (401, {"detail": "No user found for Key ID and Secret"}, MediaAuthError),
        (403, {"detail": "User is locked. Reason: Exhausted balance."}, MediaFundsError),
    ):
        monkeypatch.setitem(server.kept[0], "ending", ({}, (status, body, {})))
        with pytest.raises(cls):
            hook.get_task(task.id)
