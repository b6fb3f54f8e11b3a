from __future__ import annotations

from typing import Any

import pytest
import structlog

from airflow_media_tasks.hooks.acedata import AceDataHook
from airflow_media_tasks.hooks.base import MediaHook, get_media_hook
from airflow_media_tasks.hooks.kling import KlingHook
from airflow_media_tasks.hooks.vap import VapHook
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFile,
    MediaModerationError,
    MediaNotFoundError,
    MediaProviderError,
    MediaRequestError,
    MediaTaskFailed,
    TaskStatus,
)

from .by_hand import reply


@pytest.mark.parametrize("cls", [VapHook, AceDataHook, KlingHook])
def test_connection_names_its_hook(connect: Any, cls: type[MediaHook]) -> None:
    """The connection's type alone decides which provider's hook it is."""
    hook = get_media_hook(connect(conn_type=cls.conn_type, password="a-good-key"))
    assert type(hook) is cls
    assert hook.media_conn_id == "account"


@pytest.mark.parametrize("nothing", ["", None])
def test_no_connection_id(nothing: Any) -> None:
    """An empty connection id is refused as such."""
    with pytest.raises(MediaRequestError, match="media_conn_id must be the id of a connection, got"):
        get_media_hook(nothing)


def test_connection_that_is_not_defined() -> None:
    """A connection id that nobody defined is named, with the two ways to define it."""
    with pytest.raises(MediaRequestError, match=r"'not_there'.*AIRFLOW_CONN_NOT_THERE"):
        get_media_hook("not_there")


@pytest.mark.parametrize("conn_type", ["fs", "no_such_type", ""])
def test_connection_of_a_type_that_makes_no_media(connect: Any, conn_type: str) -> None:
    """A connection of another type, known to Airflow or not, is refused by name."""
    with pytest.raises(MediaRequestError, match="'account'"):
        get_media_hook(connect(conn_type=conn_type, password="x"))


@pytest.fixture
def hook(connect: Any) -> VapHook:
    """A hook as good as any other."""
    return VapHook(connect(conn_type="vap", password="a-good-key"))


def test_files_count_once_the_task_has_succeeded(hook: VapHook) -> None:
    """What a document shows before the task has succeeded is a preview, and after a failure it is nothing."""
    file = MediaFile("video", "https://x/1.mp4")
    for status in TaskStatus:
        task = hook.media_task("1", status, "word", files=[file])
        assert task.files == ((file,) if status is TaskStatus.SUCCEEDED else ())


def test_thumbnail_alone_is_no_output(hook: VapHook) -> None:
    """A task that shows nothing but a thumbnail has made nothing."""
    task = hook.media_task("1", TaskStatus.SUCCEEDED, None, files=[MediaFile("thumbnail", "https://x/1.png")])
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert (task.error.code, task.error.media_task_id) == ("no_output", "1")


def test_every_failed_task_has_an_error(hook: VapHook) -> None:
    """A task that failed or was cancelled carries the given reason, else one of its own word."""
    refused = MediaModerationError("no")
    assert hook.media_task("1", TaskStatus.FAILED, "failed", failure=refused).error is refused
    cancelled = hook.media_task("1", TaskStatus.CANCELLED, "aborted").error
    assert type(cancelled) is MediaTaskFailed
    assert cancelled.code == "aborted"
    for status in (TaskStatus.QUEUED, TaskStatus.RUNNING):
        assert hook.media_task("1", status, "word", failure=refused).error is None


def test_each_unknown_word_is_one_warning(hook: VapHook) -> None:
    """Every word that nobody knows is logged once by a hook; words of the table are not."""
    with structlog.testing.capture_logs() as logs:
        for word in ("pondering", "done", "pondering", "musing", None, None, 5, "queued"):
            hook.status_of(word, "1")
    assert [line["log_level"] for line in logs] == ["warning"] * 4


def test_what_the_provider_says_is_bounded(hook: VapHook) -> None:
    """However long a provider's words and codes are, ours are not."""
    error = hook.error(None, reply({}, 500), "c" * 10_000, "w" * 10_000, "r" * 10_000)
    failed = hook.task_failed("1", "c" * 10_000, "w" * 10_000)
    assert max(len(error.message), len(failed.message)) < 1000
    assert (len(error.code or ""), len(failed.code or "")) == (100, 100)


def test_batch_survives_what_concerns_one_task(connect: Any) -> None:
    """Of a batch, a task that is gone or unreadable is an answer; trouble with the account is raised."""
    hook = AceDataHook(connect(conn_type="acedata", password="a-good-key"))
    for trouble in (MediaNotFoundError("gone"), MediaProviderError("nonsense")):
        conversation = hook.read_tasks(["veo/a", "veo/b"])
        next(conversation)
        conversation.send(reply({"items": [{"id": "a", "response": None}]}))
        with pytest.raises(StopIteration) as end:
            conversation.throw(trouble)
        assert end.value.value["veo/a"].status is TaskStatus.RUNNING
        assert end.value.value["veo/b"] is trouble
    conversation = hook.read_tasks(["veo/a", "veo/b"])
    next(conversation)
    conversation.send(reply({"items": [{"id": "a", "response": None}]}))
    with pytest.raises(MediaAuthError):
        conversation.throw(MediaAuthError("the key was withdrawn"))
