"""The hook against a Luma that somebody else wrote from its documentation, see `luma_server.py`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)

from .conftest import Connected, Landed, looks_at
from .luma_server import KEY, Luma
from .media import film, picture


PICTURE, OTHER = "https://example.com/a.png", "https://example.com/b.png"
QUEUED, RUNNING = TaskStatus.QUEUED, TaskStatus.RUNNING


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Luma]:
    """A Luma by somebody who has not seen the hook; a parameter says in which order it lists."""
    with Luma(newest_first=getattr(request, "param", True)) as server:
        yield server


@pytest.fixture
def hook(server: Luma, connected: Connected) -> MediaHook:
    """The hook, with a connection to Dream Machine and the right key."""
    return connected(conn_type="luma", host=f"{server.url}/dream-machine/v1", password=KEY)


@pytest.fixture
def agents(server: Luma, connected: Connected) -> MediaHook:
    """The hook, with a connection to Agents."""
    host = f"{server.url}/dream-machine/v1"
    return connected(conn_type="luma", host=host, password=KEY, extra={"api": "agents"})


def ended(hook: MediaHook, name: str, operation: str = "text_to_video") -> MediaTask:
    """A generation of stranger-NAME at its end."""
    seen = looks_at(hook, hook.submit(operation, {"prompt": f"a fox stranger-{name}"}))
    assert [(task.status, task.files) for task in seen[:-1]] == [(QUEUED, ()), (RUNNING, ())]
    return seen[-1]


@pytest.mark.parametrize(
    ("operation", "arguments", "kind"),
    [
        ("text_to_image", {"prompt": "a fox", "aspect_ratio": "16:9"}, "image"),
        ("image_to_image", {"prompt": "at night", "image_url": PICTURE}, "image"),
        ("text_to_video", {"prompt": "a fox", "duration": 5, "aspect_ratio": "9:16"}, "video"),
        ("image_to_video", {"prompt": "it runs", "image_url": PICTURE, "duration": "9"}, "video"),
    ],
)
def test_every_operation(
    hook: MediaHook, server: Luma, operation: str, arguments: dict[str, Any], kind: str
) -> None:
    """Each operation gets its file: a film's picture is no second one, nor what it shows on its way."""
    queued, running, task = looks_at(hook, hook.submit(operation, arguments))
    assert (queued.operation, queued.status, running.status) == (operation, QUEUED, RUNNING)
    assert (running.files, task.status) == ((), TaskStatus.SUCCEEDED)
    assert [url.rpartition("/")[2] for url in task.urls] == ["video.mp4" if kind == "video" else "image.png"]
    assert {file.kind for file in task.files} <= {kind, "thumbnail"}
    (body,) = server.bodies
    assert body["prompt"] == arguments["prompt"]
    if "duration" in arguments:
        assert body["duration"] == f"{arguments['duration']}s"


def test_from_picture_to_picture(hook: MediaHook, server: Luma) -> None:
    """The first and the last picture of a film have their places."""
    hook.submit("image_to_video", {"prompt": "it runs", "image_url": PICTURE, "end_image_url": OTHER})
    (body,) = server.bodies
    assert body["keyframes"] == {
        "frame0": {"type": "image", "url": PICTURE},
        "frame1": {"type": "image", "url": OTHER},
    }


def test_going_on_with_a_film(hook: MediaHook, server: Luma) -> None:
    """A film that was made is gone on with, and made larger, by its own id."""
    film = ended(hook, "")
    longer = looks_at(hook, hook.submit("extend_video", {"video_id": film.video_id, "prompt": "it stops"}))[
        -1
    ]
    assert longer.status is TaskStatus.SUCCEEDED
    assert server.bodies[-1]["keyframes"] == {"frame0": {"type": "generation", "id": film.id}}
    larger = hook.submit("upscale_video", {"video_id": longer.video_id, "resolution": "1080p"})
    assert looks_at(hook, larger)[-1].status is TaskStatus.SUCCEEDED
    assert [one["document"]["request"]["generation_type"] for one in server.kept.values()] == [
        "video",
        "video",
        "upscale_video",
    ]


@pytest.mark.parametrize(
    ("name", "cls", "words"),
    [
        ("moderated", MediaModerationError, "moderation"),
        ("failed", MediaTaskFailed, "could not be downloaded"),
        ("silent", MediaTaskFailed, "failed"),
        ("nothing", MediaTaskFailed, "without an output URL"),
        ("unfinished", MediaTaskFailed, "without an output URL"),
    ],
)
def test_why_it_failed(hook: MediaHook, name: str, cls: type[MediaTaskError], words: str) -> None:
    """What was made is what counts: a film that shows its progress and nothing else has failed."""
    task = ended(hook, name)
    assert (task.status, task.files) == (TaskStatus.FAILED, ())
    assert type(task.error) is cls
    assert words in str(task.error)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("flagged", MediaModerationError),
        ("forbidden", MediaAuthError),
        ("unpaid", MediaFundsError),
        ("throttled", MediaRateLimitError),
        ("ingress", SubmissionOutcomeUnknown),
        ("busy", SubmissionOutcomeUnknown),
        ("broken", SubmissionOutcomeUnknown),
        ("lost", SubmissionOutcomeUnknown),
    ],
)
def test_refusals(hook: MediaHook, server: Luma, name: str, cls: type[MediaTaskError]) -> None:
    """Each refusal is what it says, and is sent once."""
    with pytest.raises(cls) as caught:
        hook.submit("text_to_video", {"prompt": f"a fox stranger-{name}"})
    assert type(caught.value) is cls
    assert len(server.requests) == 1
    if name == "throttled":
        assert caught.value.retry_after == 7


def test_a_wrong_argument_is_named(hook: MediaHook, server: Luma) -> None:
    """What a framework says of an argument, in a list, arrives."""
    with pytest.raises(MediaRequestError, match=r"must be one of 16:9|must be one of 1:1"):
        hook.submit("text_to_video", {"prompt": "a fox", "aspect_ratio": "7:5"})
    assert server.bodies == []


def test_wrong_key(hook: MediaHook, connected: Connected, server: Luma) -> None:
    """A wrong key is told by the *Test* button and by every request."""
    assert hook.test_connection()[0]
    wrong = connected(conn_type="luma", host=f"{server.url}/dream-machine/v1", password="luma-wrong")
    good, text = wrong.test_connection()
    assert not good
    assert "Invalid API key" in text
    with pytest.raises(MediaAuthError):
        wrong.submit("text_to_video", {"prompt": "a fox"})


def test_what_the_account_has(hook: MediaHook) -> None:
    """The balance is told in cents of a dollar, and not taken for dollars."""
    balance = hook.get_balance()
    assert (float(balance.amount), balance.unit) in ((12.34, "USD"), (1234.0, "USD cents"), (1234.0, "cents"))


def test_unknown_generation(hook: MediaHook) -> None:
    """An id that is not there is not found, and is not among several either."""
    tasks = [hook.submit("text_to_image", {"prompt": "a fox"}).id for _ in range(3)]
    unknown = tasks[0][:-4] + ("0000" if tasks[0][-4:] != "0000" else "1111")
    with pytest.raises(MediaNotFoundError):
        hook.get_task(unknown)
    assert set(hook.get_tasks([*tasks, unknown])) == set(tasks)


@pytest.mark.parametrize("server", [True, False], indirect=True, ids=["newest first", "oldest first"])
def test_a_lost_submission_is_found(hook: MediaHook, server: Luma) -> None:
    """What was accepted without our hearing of it is found by its mark, page by page, in whatever order."""
    began = datetime.now(timezone.utc)
    for number in range(60):
        hook.submit("text_to_image", {"prompt": f"number {number}"}, client_ref=f"amt-{number:032x}")
    arguments = {"prompt": "a fox stranger-lost"}
    with pytest.raises(SubmissionOutcomeUnknown):
        hook.submit("text_to_image", arguments, client_ref="amt-" + "f" * 32)
    lost = list(server.kept)[-1]
    for number in range(60, 120):
        hook.submit("text_to_image", {"prompt": f"number {number}"}, client_ref=f"amt-{number:032x}")
    wanted: dict[str, Any] = {"operation": "text_to_image", "arguments": arguments, "submitted_after": began}
    (found,) = hook.find_tasks(client_ref="amt-" + "f" * 32, **wanted)
    assert found.id.rpartition("/")[2] == lost
    assert hook.find_tasks(client_ref="amt-" + "e" * 32, **wanted) == []


@pytest.mark.parametrize("server", [True, False], indirect=True, ids=["newest first", "oldest first"])
def test_a_submission_without_a_mark_is_found_by_what_was_asked(hook: MediaHook, server: Luma) -> None:
    """Without a mark the request decides: the same words for another kind are another's."""
    began = datetime.now(timezone.utc)
    arguments = {"prompt": "a fox stranger-lost"}
    with pytest.raises(SubmissionOutcomeUnknown):
        hook.submit("text_to_video", arguments)
    (found,) = hook.find_tasks(operation="text_to_video", arguments=arguments, submitted_after=began)
    assert found.id.rpartition("/")[2] == next(iter(server.kept))
    assert hook.find_tasks(operation="text_to_image", arguments=arguments, submitted_after=began) == []


def test_landing_a_film(hook: MediaHook, landed: Landed, server: Luma) -> None:
    """An operator lands the film, not its picture, and sends no key for it."""
    result, files = landed("text_to_video", {"prompt": "a fox"})
    assert files == [film()]
    downloads = [one for one in server.requests if one.segments[0] == "cdn"]
    assert not any("authorization" in one.headers for one in downloads)
    assert result["operation"] == "text_to_video"


def test_landing_a_picture(hook: MediaHook, landed: Landed) -> None:
    """An operator lands the picture."""
    assert landed("text_to_image", {"prompt": "a fox"})[1] == [picture()]


@pytest.mark.parametrize(
    ("operation", "arguments", "kind"),
    [
        ("text_to_image", {"prompt": "a fox"}, "image"),
        ("image_to_image", {"prompt": "at night", "image_url": PICTURE, "image_urls": [OTHER]}, "image"),
        ("text_to_video", {"prompt": "a fox", "duration": 5, "resolution": "720p", "loop": True}, "video"),
        ("image_to_video", {"prompt": "it runs", "image_url": PICTURE, "end_image_url": OTHER}, "video"),
        ("edit_video", {"prompt": "at night", "video_url": "https://example.com/a.mp4"}, "video"),
    ],
)
def test_every_operation_of_agents(
    agents: MediaHook, server: Luma, operation: str, arguments: dict[str, Any], kind: str
) -> None:
    """Agents takes what it is sent, and each operation gets a file of its kind."""
    queued, running, task = looks_at(agents, agents.submit(operation, arguments))
    assert (queued.operation, queued.status, running.status) == (f"agents/{operation}", QUEUED, RUNNING)
    assert task.status is TaskStatus.SUCCEEDED
    assert [file.kind for file in task.files] == [kind]
    (body,) = server.bodies
    assert (body["prompt"], body.get("type", "image").partition("_")[0]) == (arguments["prompt"], kind)
    if operation == "image_to_video":
        assert (body["video"]["start_frame"], body["video"]["end_frame"]) == (
            {"url": PICTURE},
            {"url": OTHER},
        )


@pytest.mark.parametrize(
    ("name", "cls", "code"),
    [
        ("moderated", MediaModerationError, "content_moderated"),
        ("failed", MediaTaskFailed, "generation_failed"),
        ("spent", MediaTaskFailed, "budget_exhausted"),
        ("nothing", MediaTaskFailed, "no_output"),
    ],
)
def test_why_it_failed_at_agents(agents: MediaHook, name: str, cls: type[MediaTaskError], code: str) -> None:
    """Agents says in a code why something failed."""
    task = ended(agents, name)
    assert (task.status, type(task.error)) == (TaskStatus.FAILED, cls)
    assert task.error is not None
    assert task.error.code == code


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("unpaid", MediaFundsError),
        ("forbidden", MediaAuthError),
        ("throttled", MediaRateLimitError),
        ("ingress", SubmissionOutcomeUnknown),
        ("busy", SubmissionOutcomeUnknown),
        ("lost", SubmissionOutcomeUnknown),
    ],
)
def test_refusals_of_agents(agents: MediaHook, server: Luma, name: str, cls: type[MediaTaskError]) -> None:
    """Each refusal is what it says, and is sent once."""
    with pytest.raises(cls) as caught:
        agents.submit("text_to_video", {"prompt": f"a fox stranger-{name}"})
    assert type(caught.value) is cls
    assert len(server.requests) == 1
    if name == "throttled":
        assert caught.value.retry_after == 7


def test_a_lost_submission_to_agents_is_a_question(agents: MediaHook) -> None:
    """Agents has no list: nobody can say what became of it, so it is never said that there is none."""
    began = datetime.now(timezone.utc)
    arguments = {"prompt": "a fox stranger-lost"}
    with pytest.raises(SubmissionOutcomeUnknown):
        agents.submit("text_to_image", arguments, client_ref="amt-" + "f" * 32)
    with pytest.raises(SubmissionOutcomeUnknown):
        agents.find_tasks(
            client_ref="amt-" + "f" * 32,
            operation="text_to_image",
            arguments=arguments,
            submitted_after=began,
        )


def test_the_key_of_agents(agents: MediaHook, server: Luma, connected: Connected) -> None:
    """The *Test* button of a connection to Agents proves the key there."""
    assert agents.test_connection()[0]
    host = f"{server.url}/dream-machine/v1"
    wrong = connected(conn_type="luma", host=host, password="wrong", extra={"api": "agents"})
    good, text = wrong.test_connection()
    assert not good
    assert "Invalid API key" in text


def test_unknown_at_agents(agents: MediaHook) -> None:
    """An id that is not there is not found, also one that is Dream Machine's."""
    task = agents.submit("text_to_image", {"prompt": "a fox"})
    with pytest.raises(MediaNotFoundError):
        agents.get_task(task.id[:-4] + ("0000" if task.id[-4:] != "0000" else "1111"))
    with pytest.raises(MediaNotFoundError):
        agents.get_task(task.id.rpartition("/")[2])


def test_landing_from_agents(agents: MediaHook, landed: Landed) -> None:
    """An operator lands the film, by an address that would die after an hour."""
    assert landed("text_to_video", {"prompt": "a fox"})[1] == [film()]
