"""The hook against a Veo, on both of its roads, that somebody else wrote from its documentation alone."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import (
    MediaAuthError,
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
from .google_media_server import KEY, LOCATION, PROJECT, TOKEN, Storage, Veo
from .media import film, picture


ROADS: dict[str, dict[str, Any]] = {
    "gemini": {"password": KEY},
    "vertex": {"password": TOKEN, "extra": {"vertex": True, "project": PROJECT, "location": LOCATION}},
}


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Veo]:
    """A Veo by somebody who has not seen the hook; a parameter says what is special about it."""
    with Veo(**getattr(request, "param", {})) as server:
        yield server


@pytest.fixture(params=ROADS)
def hook(server: Veo, connected: Connected, request: pytest.FixtureRequest) -> MediaHook:
    """The hook, with a connection to each of the roads."""
    return connected(conn_type="google_media", host=server.url, **ROADS[request.param])


by_gemini = pytest.mark.parametrize("hook", ["gemini"], indirect=True)
by_vertex = pytest.mark.parametrize("hook", ["vertex"], indirect=True)


def ended(hook: MediaHook, name: str, **arguments: Any) -> MediaTask:
    """An operation of stranger-NAME at its end."""
    task = hook.submit("text_to_video", {"prompt": f"a fox stranger-{name}", **arguments})
    queued, running, done = looks_at(hook, task)
    assert queued.status in (TaskStatus.QUEUED, TaskStatus.RUNNING)
    assert (running.status, running.files) == (TaskStatus.RUNNING, ())
    return done


def test_a_film(hook: MediaHook, server: Veo) -> None:
    """What says nothing is running, and what is done has the film; the task's id is the operation's."""
    task = ended(hook, "", duration="8", aspect_ratio="9:16", negative_prompt="rain", count=2)
    assert task.status is TaskStatus.SUCCEEDED
    assert [file.kind for file in task.files] == ["video", "video"]
    (name,) = server.operations
    assert task.id.rpartition("/")[2] == name.rpartition("/")[2]
    (body,) = server.bodies
    assert body["instances"] == [{"prompt": "a fox stranger-"}]
    wanted = {"durationSeconds": 8, "aspectRatio": "9:16", "negativePrompt": "rain", "sampleCount": 2}
    assert body["parameters"] == wanted


@pytest.mark.parametrize(
    ("name", "cls", "words"),
    [
        ("filtered", MediaModerationError, "filtered"),
        ("invalid", MediaTaskFailed, "cannot be decoded"),
        ("exhausted", MediaTaskFailed, "overloaded"),
        ("internal", MediaTaskFailed, "internal server issue"),
        ("unavailable", MediaTaskFailed, "unavailable"),
        ("neither", MediaTaskFailed, "without an output URL"),
        ("empty", MediaTaskFailed, "without an output URL"),
    ],
)
def test_why_it_failed(hook: MediaHook, name: str, cls: type[MediaTaskError], words: str) -> None:
    """Done is no success: there may be an error, or nothing that was let through, or nothing at all."""
    task = ended(hook, name)
    assert (task.status, task.files) == (TaskStatus.FAILED, ())
    assert type(task.error) is cls
    assert words in str(task.error)


def test_what_was_let_through(hook: MediaHook) -> None:
    """Of two films of which one was filtered, the other is there."""
    task = ended(hook, "partly", count=2)
    assert task.status is TaskStatus.SUCCEEDED
    assert len(task.files) == 1


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("throttled", MediaRateLimitError),
        ("forbidden", MediaAuthError),
        ("unknown", MediaNotFoundError),
        ("ingress", SubmissionOutcomeUnknown),
        ("busy", SubmissionOutcomeUnknown),
        ("broken", SubmissionOutcomeUnknown),
        ("lost", SubmissionOutcomeUnknown),
    ],
)
def test_refusals(hook: MediaHook, server: Veo, name: str, cls: type[MediaTaskError]) -> None:
    """Each refusal is what it says, and is sent once."""
    with pytest.raises(cls) as caught:
        hook.submit("text_to_video", {"prompt": f"a fox stranger-{name}"})
    assert type(caught.value) is cls
    assert len(server.requests) == 1
    if name == "throttled":
        assert caught.value.retry_after == 37


def test_a_wrong_argument_is_named(hook: MediaHook, server: Veo) -> None:
    """What Google says of an argument arrives, and nothing was accepted."""
    with pytest.raises(MediaRequestError, match="colour"):
        hook.submit("text_to_video", {"prompt": "a fox", "colour": "red"})
    assert server.bodies == []


@pytest.mark.parametrize(
    ("road", "words"), [("gemini", "API key not valid"), ("vertex", "invalid authentication")]
)
def test_wrong_key(connected: Connected, server: Veo, road: str, words: str) -> None:
    """A wrong key is a matter of the key, though the Gemini API calls it a wrong argument."""
    fields = {"conn_type": "google_media", "host": server.url, **ROADS[road]}
    assert connected(**fields).test_connection()[0]
    hook = connected(**{**fields, "password": "another"})
    good, text = hook.test_connection()
    assert not good
    assert words in text
    with pytest.raises(MediaAuthError):
        hook.submit("text_to_video", {"prompt": "a fox"})


def test_unknown_operation(hook: MediaHook) -> None:
    """An id that is not there is not found, and is not among several either."""
    tasks = [hook.submit("text_to_video", {"prompt": "a fox"}).id for _ in range(3)]
    unknown = tasks[0][:-4] + ("0000" if tasks[0][-4:] != "0000" else "1111")
    with pytest.raises(MediaNotFoundError):
        hook.get_task(unknown)
    assert set(hook.get_tasks([*tasks, unknown])) == set(tasks)


def test_a_lost_submission_is_a_question(hook: MediaHook) -> None:
    """There is no list: nobody can say what became of it, so it is never said that there is none."""
    began = datetime.now(timezone.utc)
    arguments = {"prompt": "a fox stranger-lost"}
    with pytest.raises(SubmissionOutcomeUnknown):
        hook.submit("text_to_video", arguments)
    with pytest.raises(SubmissionOutcomeUnknown):
        hook.find_tasks(operation="text_to_video", arguments=arguments, submitted_after=began)


def test_a_model_of_ones_own(hook: MediaHook, server: Veo) -> None:
    """A model that nobody has heard of is asked under its name."""
    hook.submit("text_to_video", {"prompt": "a fox", "model": "veo-9.9-generate-001"})
    assert server.requests[0].segments[-1] == "veo-9.9-generate-001:predictLongRunning"


def test_landing(hook: MediaHook, landed: Landed) -> None:
    """An operator lands the film, from behind the key or out of the operation itself."""
    result, files = landed("text_to_video", {"prompt": "a fox"})
    assert files == [film()]
    assert len(str(result)) < 10_000
    assert not any(secret in str(result) for secret in (KEY, TOKEN))


@pytest.mark.parametrize("server", [{"inline": True}], indirect=True, ids=["inline"])
@by_gemini
def test_landing_what_the_key_gives_inline(hook: MediaHook, landed: Landed) -> None:
    """The Gemini API may give the film itself, too."""
    assert landed("text_to_video", {"prompt": "a fox"})[1] == [film()]


def test_the_key_stays_where_a_redirect_leads_away(connected: Connected, landed: Landed) -> None:
    """What was made may be at another address, which is told no key."""
    with Storage() as storage, Veo(sends_to=storage.url) as server:
        connected(conn_type="google_media", host=server.url, **ROADS["gemini"])
        assert landed("text_to_video", {"prompt": "a fox"})[1] == [film()]
        assert storage.requests
        for one in storage.requests:
            assert KEY not in f"{one.path} {dict(one.headers)}"


@by_vertex
def test_a_bucket_of_ones_own(hook: MediaHook, landed: Landed, server: Veo) -> None:
    """Where a bucket is named the film is left there, and is landed from there by the token."""
    result, files = landed("text_to_video", {"prompt": "a fox", "storageUri": "gs://films/today/"})
    assert server.bodies[0]["parameters"]["storageUri"] == "gs://films/today/"
    assert result["url"].startswith(f"{server.url}/storage/films/today/")
    assert files == [film()]


PNG = base64.b64encode(picture()).decode()


@pytest.mark.parametrize("given", [PNG, f"data:image/png;base64,{PNG}"], ids=["base64", "data"])
def test_a_picture_to_begin_with(hook: MediaHook, server: Veo, given: str) -> None:
    """A picture goes itself, with its type, and so does the one that the film ends with."""
    hook.submit("image_to_video", {"prompt": "it runs", "image_url": given, "end_image_url": given})
    sent = {"bytesBase64Encoded": PNG, "mimeType": "image/png"}
    assert server.bodies[0]["instances"] == [{"prompt": "it runs", "image": sent, "lastFrame": sent}]


@by_vertex
def test_what_is_in_a_bucket(hook: MediaHook, server: Veo) -> None:
    """At Vertex an object in a bucket is named by its place there."""
    address = f"{server.url}/storage/films/today/a"
    hook.submit("image_to_video", {"image_url": f"{address}.png"})
    hook.submit("extend_video", {"video_url": f"{address}.mp4", "prompt": "it stops"})
    first, second = (body["instances"][0] for body in server.bodies)
    assert first["image"] == {"gcsUri": "gs://films/today/a.png", "mimeType": "image/png"}
    assert second["video"] == {"gcsUri": "gs://films/today/a.mp4", "mimeType": "video/mp4"}


@by_gemini
def test_going_on_with_a_film(hook: MediaHook, server: Veo) -> None:
    """By the Gemini API a film that was made is gone on with by its address."""
    made = ended(hook, "")
    hook.submit("extend_video", {"video_url": made.url, "prompt": "it stops"})
    assert server.bodies[1]["instances"][0]["video"]["uri"] == made.url


def test_a_picture_of_the_web_is_refused_before_anything_is_sent(hook: MediaHook, server: Veo) -> None:
    """Veo fetches nothing: an address of the web is an error that says so, and costs nothing."""
    with pytest.raises(MediaRequestError, match="image_url"):
        hook.submit("image_to_video", {"image_url": "https://example.com/a.png"})
    assert server.requests == []
