"""The hook against a `/v1/videos` that somebody else wrote from the vendor's documentation alone."""

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
    MediaTaskError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)

from .conftest import Connected, Landed, looks_at
from .media import film
from .openai_media_server import KEY, Bucket, Videos, reference_in


PICTURE = "https://example.com/a.png"
QUEUED, RUNNING = TaskStatus.QUEUED, TaskStatus.RUNNING


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Videos]:
    """A server by somebody who has not seen the hook; a parameter says what is special about it."""
    with Videos(**getattr(request, "param", {})) as server:
        yield server


@pytest.fixture
def hook(server: Videos, connected: Connected) -> MediaHook:
    """The hook, with a connection to it and the right key."""
    return connected(conn_type="openai_media", host=f"{server.url}/v1", password=KEY)


def ended(hook: MediaHook, name: str) -> MediaTask:
    """A video of stranger-NAME at its end."""
    seen = looks_at(hook, hook.submit("text_to_video", {"prompt": f"a fox stranger-{name}"}))
    assert [(task.status, task.files) for task in seen[:-1]] == [(QUEUED, ()), (RUNNING, ())]
    return seen[-1]


@pytest.mark.parametrize("server", [{}, {"frugal": True}], indirect=True, ids=["full", "frugal"])
def test_a_film(hook: MediaHook, server: Videos) -> None:
    """A film has an address, although no document names one, and it is the server's own."""
    queued, running, task = looks_at(hook, hook.submit("text_to_video", {"prompt": "a fox", "duration": 8}))
    assert (queued.operation, queued.status, running.status) == ("text_to_video", QUEUED, RUNNING)
    assert task.status is TaskStatus.SUCCEEDED
    (url,) = task.urls
    assert url.startswith(f"{server.url}/v1/videos/{server.videos[0]['id']}/content")
    assert KEY not in str(task.to_dict())
    (body,) = server.bodies
    assert (body["prompt"], body["seconds"]) == ("a fox", "8")


def test_what_is_said_of_a_film(hook: MediaHook) -> None:
    """How far it is and until when it is there are told."""
    _, running, task = looks_at(hook, hook.submit("text_to_video", {"prompt": "a fox"}))
    assert running.progress == 0.4
    expires = task.files[0].expires_at
    assert expires is not None
    assert timedelta(minutes=58) < expires - datetime.now(timezone.utc) <= timedelta(hours=1)


@pytest.mark.parametrize("duration", ["4", 8, 12.0])
def test_the_length_is_a_text(hook: MediaHook, server: Videos, duration: Any) -> None:
    """Seconds go as the text that the server wants, and what it calls its own goes as it is."""
    arguments = {"prompt": "a fox", "duration": duration, "model": "house-model", "size": "1280x720"}
    hook.submit("text_to_video", arguments)
    (body,) = server.bodies
    assert body["seconds"] == str(int(float(duration)))
    assert (body["model"], body["size"]) == ("house-model", "1280x720")


@pytest.mark.parametrize("as_json", [False, True], ids=["form", "json"])
def test_a_picture_to_begin_with(connected: Connected, server: Videos, as_json: bool) -> None:
    """An address of a picture arrives as one of the forms that the server takes, in a form and as JSON."""
    fields = {"conn_type": "openai_media", "host": f"{server.url}/v1", "password": KEY}
    hook = connected(**fields, extra={"json": as_json})
    task = hook.submit("image_to_video", {"prompt": "it runs", "image_url": PICTURE})
    assert looks_at(hook, task)[-1].status is TaskStatus.SUCCEEDED
    assert reference_in(server.bodies[0]) == PICTURE
    kind = next(one for one in server.requests if one.method == "POST").headers["content-type"]
    assert kind.startswith("application/json" if as_json else "multipart/form-data")


def test_remixing(hook: MediaHook, server: Videos) -> None:
    """A film that was made is made anew by another prompt."""
    first = ended(hook, "")
    task = hook.submit("remix_video", {"video_id": first.video_id, "prompt": "at night"})
    assert looks_at(hook, task)[-1].status is TaskStatus.SUCCEEDED
    assert server.videos[1]["remixed_from_video_id"] == server.videos[0]["id"]


@pytest.mark.parametrize(
    ("name", "cls", "code", "words"),
    [
        ("moderated", MediaModerationError, "moderation_blocked", "blocked by our moderation"),
        ("failed", MediaTaskFailed, "server_error", "The model had an error"),
        ("silent", MediaTaskFailed, None, "failed"),
    ],
)
def test_why_it_failed(
    hook: MediaHook, name: str, cls: type[MediaTaskError], code: str | None, words: str
) -> None:
    """The code decides what a failure is; without any error it is one all the same."""
    task = ended(hook, name)
    assert (task.status, task.files) == (TaskStatus.FAILED, ())
    assert type(task.error) is cls
    assert code is None or task.error.code == code
    assert words in str(task.error)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("unpaid", MediaFundsError),
        ("throttled", MediaRateLimitError),
        ("blocked", MediaModerationError),
        ("policy", MediaModerationError),
        ("forbidden", MediaAuthError),
        ("ingress", SubmissionOutcomeUnknown),
        ("broken", SubmissionOutcomeUnknown),
        ("lost", SubmissionOutcomeUnknown),
    ],
)
def test_refusals(hook: MediaHook, server: Videos, name: str, cls: type[MediaTaskError]) -> None:
    """Each refusal is what its code says, whatever status it shares with another, and is sent once."""
    with pytest.raises(cls) as caught:
        hook.submit("text_to_video", {"prompt": f"a fox stranger-{name}"})
    assert type(caught.value) is cls
    assert len(server.requests) == 1
    if name == "throttled":
        assert caught.value.retry_after == 3


def test_a_wrong_argument_is_named(hook: MediaHook, server: Videos) -> None:
    """What the server says of an argument arrives, and nothing was accepted."""
    with pytest.raises(MediaRequestError, match="size"):
        hook.submit("text_to_video", {"prompt": "a fox", "size": "7x7"})
    assert server.bodies == []


def test_wrong_key(hook: MediaHook, connected: Connected, server: Videos) -> None:
    """A wrong key is told by the *Test* button and by every request."""
    assert hook.test_connection()[0]
    wrong = connected(conn_type="openai_media", host=f"{server.url}/v1", password="sk-wrong-key-of-mine")
    good, text = wrong.test_connection()
    assert not good
    assert "Incorrect API key" in text
    with pytest.raises(MediaAuthError):
        wrong.submit("text_to_video", {"prompt": "a fox"})


def test_unknown_video(hook: MediaHook) -> None:
    """An id that is not there is not found, and is not among several either."""
    unknown = "video_" + "0" * 48
    with pytest.raises(MediaNotFoundError):
        hook.get_task(unknown)
    tasks = [hook.submit("text_to_video", {"prompt": "a fox"}).id for _ in range(3)]
    assert set(hook.get_tasks([*tasks, unknown])) == set(tasks)


ORDERS = pytest.mark.parametrize(
    "server", [{}, {"newest_first": False}], indirect=True, ids=["newest first", "oldest first"]
)


@ORDERS
def test_a_lost_submission_is_found(hook: MediaHook, server: Videos) -> None:
    """What was accepted without our hearing of it is found by what was asked, page by page, in any order."""
    began = datetime.now(timezone.utc)
    for number in range(60):
        hook.submit("text_to_video", {"prompt": f"number {number}"})
    arguments = {"prompt": "a fox stranger-lost", "duration": 8}
    with pytest.raises(SubmissionOutcomeUnknown):
        hook.submit("text_to_video", arguments)
    lost = server.videos[-1]["id"]
    for number in range(60, 120):
        hook.submit("text_to_video", {"prompt": f"number {number}"})
    wanted: dict[str, Any] = {"operation": "text_to_video", "submitted_after": began}
    (found,) = hook.find_tasks(arguments=arguments, **wanted)
    assert found.id == lost
    assert hook.find_tasks(arguments={**arguments, "prompt": "a hen"}, **wanted) == []
    # A server may call a model or a size otherwise than we do: the same prompt is a doubt.
    for other in ({"duration": 12}, {"model": "sora-2-pro"}, {"size": "1792x1024"}):
        with pytest.raises(SubmissionOutcomeUnknown):
            hook.find_tasks(arguments={**arguments, **other}, **wanted)


@pytest.mark.parametrize(
    "server", [{"lists": False}, {"frugal": True}], indirect=True, ids=["no list", "frugal"]
)
def test_where_nothing_can_be_seen_it_is_a_question(hook: MediaHook, server: Videos) -> None:
    """A server without a list, or one whose documents do not say what was asked for, proves nothing."""
    began = datetime.now(timezone.utc)
    arguments = {"prompt": "a fox stranger-lost"}
    with pytest.raises(SubmissionOutcomeUnknown):
        hook.submit("text_to_video", arguments)
    with pytest.raises((SubmissionOutcomeUnknown, MediaNotFoundError)):
        hook.find_tasks(operation="text_to_video", arguments=arguments, submitted_after=began)


def test_landing(hook: MediaHook, landed: Landed, server: Videos) -> None:
    """An operator lands what is behind the key, and writes the key nowhere."""
    result, files = landed("text_to_video", {"prompt": "a fox"})
    assert files == [film()]
    assert KEY not in str(result)
    assert len(server.videos) == 1


def test_the_key_stays_where_a_redirect_leads_away(connected: Connected, landed: Landed) -> None:
    """What is made may be at another address, which is told no key."""
    with Bucket() as bucket, Videos(sends_to=bucket.url) as server:
        connected(conn_type="openai_media", host=f"{server.url}/v1", password=KEY)
        assert landed("text_to_video", {"prompt": "a fox"})[1] == [film()]
        assert bucket.requests
        for one in bucket.requests:
            assert KEY not in f"{one.path} {dict(one.headers)}"


def test_what_is_gone_is_gone(hook: MediaHook, landed: Landed, server: Videos) -> None:
    """A film that the server does not keep any more has expired, and nothing is made anew by itself."""
    with pytest.raises(MediaExpiredError):
        landed("text_to_video", {"prompt": "a fox stranger-expired"})
    assert len(server.videos) == 1
