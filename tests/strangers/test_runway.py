"""The hook against a Runway that somebody else wrote from its documentation, see `runway_server.py`."""

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
from .media import film, picture
from .runway_server import KEY, Runway


PICTURE, FILM = "https://example.com/a.png", "https://example.com/a.mp4"
QUEUED, RUNNING = TaskStatus.QUEUED, TaskStatus.RUNNING


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Runway]:
    """A Runway by somebody who has not seen the hook; a parameter says what a DELETE leaves."""
    with Runway(tombstones=getattr(request, "param", False)) as server:
        yield server


@pytest.fixture
def hook(server: Runway, connected: Connected) -> MediaHook:
    """The hook, with a connection to it and the right key."""
    return connected(conn_type="runway", host=server.url, password=KEY)


def ended(hook: MediaHook, name: str, **arguments: Any) -> MediaTask:
    """A picture of stranger-NAME at its end."""
    task = hook.submit("text_to_image", {"prompt": f"a fox stranger-{name}", **arguments})
    seen = looks_at(hook, task)
    assert [task.status for task in seen[:-1]] == [QUEUED, RUNNING]
    return seen[-1]


@pytest.mark.parametrize(
    ("operation", "arguments", "kind"),
    [
        ("text_to_video", {"prompt": "a fox", "duration": 5, "aspect_ratio": "1280:720"}, "video"),
        ("image_to_video", {"prompt": "it runs", "image_url": PICTURE, "duration": "5"}, "video"),
        ("video_to_video", {"prompt": "at night", "video_url": FILM}, "video"),
        ("text_to_image", {"prompt": "a fox"}, "image"),
        ("upscale_video", {"video_url": FILM}, "video"),
        ("text_to_speech", {"text": "good evening"}, "audio"),
        ("sound_effect", {"prompt": "a creaking door", "duration": 0.5}, "audio"),
        ("character_performance", {"image_url": PICTURE, "reference_url": FILM}, "video"),
        ("character_performance", {"video_url": FILM, "reference_url": FILM}, "video"),
    ],
)
def test_every_operation(
    hook: MediaHook, server: Runway, operation: str, arguments: dict[str, Any], kind: str
) -> None:
    """Each operation sends what its model must have, under its names, and gets a file of its kind."""
    queued, running, task = looks_at(hook, hook.submit(operation, arguments))
    assert (queued.operation, queued.status, running.status) == (operation, QUEUED, RUNNING)
    assert task.status is TaskStatus.SUCCEEDED
    (url,) = task.urls
    assert url.startswith(f"{server.url}/cdn/{task.id}")
    assert [file.kind for file in task.files] == [kind]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("operation", "model", "arguments", "body"),
    [
        (
            "image_to_video",
            "hailuo3",
            {"prompt": "it runs", "image_url": PICTURE, "end_image_url": "https://example.com/b.png"},
            {
                "promptText": "it runs",
                "promptImage": [
                    {"uri": PICTURE, "position": "first"},
                    {"uri": "https://example.com/b.png", "position": "last"},
                ],
            },
        ),
        (
            "text_to_video",
            "veo3.1",
            {"prompt": "a fox", "aspect_ratio": "720:1280", "negative_prompt": "rain", "audio": False},
            {"promptText": "a fox", "ratio": "720:1280", "negativePrompt": "rain", "audio": False},
        ),
        (
            "text_to_image",
            "gen4_image_turbo",
            {
                "prompt": "@fox sleeps",
                "aspect_ratio": "1024:1024",
                "referenceImages": [{"uri": PICTURE, "tag": "fox"}],
            },
            {
                "promptText": "@fox sleeps",
                "ratio": "1024:1024",
                "referenceImages": [{"uri": PICTURE, "tag": "fox"}],
            },
        ),
    ],
)
def test_what_is_sent(
    hook: MediaHook,
    server: Runway,
    operation: str,
    model: str,
    arguments: dict[str, Any],
    body: dict[str, Any],
) -> None:
    """Neutral words become Runway's, and its own go to it as they are, for a model that is named."""
    hook.submit(operation, {"model": model, **arguments})
    (sent,) = server.bodies
    assert {**sent, **body, "model": model} == sent


@pytest.mark.parametrize("model", ["hailuo3", "kling_4", "seedance2", "klingO3_pro", "gemini_omni_flash"])
def test_a_film_has_two_names(hook: MediaHook, server: Runway, model: str) -> None:
    """A film goes under the name that its model knows, `videoUri` or `promptVideo`."""
    hook.submit("video_to_video", {"model": model, "prompt": "at night", "video_url": FILM})
    (sent,) = server.bodies
    assert sent["videoUri" if model in ("kling_4", "gemini_omni_flash") else "promptVideo"] == FILM


def test_waiting_for_a_slot(hook: MediaHook) -> None:
    """A throttled task is accepted and waits: it is queued, not refused."""
    seen = looks_at(hook, hook.submit("text_to_image", {"prompt": "a fox stranger-throttled"}))
    assert [task.status for task in seen[:3]] == [QUEUED, QUEUED, RUNNING]
    assert seen[2].progress == 0.25


def test_what_it_costs(hook: MediaHook) -> None:
    """The price in credits is foretold, and told when it has ended, of a failure too."""
    task = hook.submit("text_to_image", {"prompt": "a fox"})
    assert task.cost is not None
    assert task.cost.estimated == "24.5"
    done, failed = looks_at(hook, task)[-1], ended(hook, "unsafe")
    assert done.cost is not None
    assert failed.cost is not None
    assert (done.cost.amount, failed.cost.amount, done.cost.unit) == ("25", "25", "credits")


def test_several_pictures(hook: MediaHook) -> None:
    """All that were asked for come."""
    task = hook.submit(
        "text_to_image",
        {"prompt": "a fox", "model": "gpt_image_2", "count": "3", "aspect_ratio": "1024:1024"},
    )
    assert len(looks_at(hook, task)[-1].files) == 3


@pytest.mark.parametrize(
    ("name", "status", "cls", "code", "words"),
    [
        ("unsafe", TaskStatus.FAILED, MediaModerationError, "SAFETY.INPUT.TEXT", "flagged by our moderation"),
        ("unsafe_output", TaskStatus.FAILED, MediaModerationError, "SAFETY.OUTPUT.VIDEO", "withheld"),
        ("blurred", TaskStatus.FAILED, MediaTaskFailed, "INTERNAL.BAD_OUTPUT.CODE01", "unexpected error"),
        ("bad_asset", TaskStatus.FAILED, MediaTaskFailed, "ASSET.INVALID", "could not be decoded"),
        ("uncoded", TaskStatus.FAILED, MediaTaskFailed, None, "Something went wrong"),
        ("nothing", TaskStatus.FAILED, MediaTaskFailed, "no_output", "without an output URL"),
        ("stopped", TaskStatus.CANCELLED, MediaTaskFailed, None, "CANCELLED"),
    ],
)
def test_why_it_failed(
    hook: MediaHook, name: str, status: TaskStatus, cls: type[MediaTaskError], code: str | None, words: str
) -> None:
    """The code decides what a failure is, by its family; success without a file is one."""
    task = ended(hook, name)
    assert (task.status, task.files) == (status, ())
    assert type(task.error) is cls
    assert code is None or task.error.code == code
    assert words in str(task.error)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("unpaid", (MediaFundsError,)),
        # A quota of the day, told as a rate: waiting for it is as right as giving up.
        ("daily", (MediaRateLimitError, MediaFundsError)),
        ("ingress", (SubmissionOutcomeUnknown,)),
        ("busy", (SubmissionOutcomeUnknown,)),
        ("broken", (SubmissionOutcomeUnknown,)),
        ("lost", (SubmissionOutcomeUnknown,)),
    ],
)
def test_refusals(hook: MediaHook, server: Runway, name: str, cls: tuple[type[MediaTaskError], ...]) -> None:
    """Each refusal is what it says, and is sent once."""
    with pytest.raises(cls) as caught:
        hook.submit("text_to_image", {"prompt": f"a fox stranger-{name}"})
    assert type(caught.value) in cls
    assert len(server.requests) == 1


def test_a_wrong_argument_is_named(hook: MediaHook, server: Runway) -> None:
    """What Runway says of an argument arrives, and nothing was accepted."""
    with pytest.raises(MediaRequestError, match="ratio: must be one of 1280:720"):
        hook.submit("text_to_video", {"prompt": "a fox", "aspect_ratio": "16:9", "duration": 5})
    assert server.bodies == []


def test_wrong_key(hook: MediaHook, connected: Connected, server: Runway) -> None:
    """A wrong key is told by the *Test* button and by every request; a good one shows the credits."""
    good, text = hook.test_connection()
    assert good
    assert "4120 credits" in text
    wrong = connected(conn_type="runway", host=server.url, password="key_" + "00" * 64)
    good, text = wrong.test_connection()
    assert not good
    assert "not valid" in text
    with pytest.raises(MediaAuthError):
        wrong.submit("text_to_image", {"prompt": "a fox"})


def test_what_the_account_has(hook: MediaHook) -> None:
    """The balance is in credits."""
    balance = hook.get_balance()
    assert (balance.amount, balance.unit, balance.is_empty) == ("4120", "credits", False)


@pytest.mark.parametrize("server", [False, True], indirect=True, ids=["forgets", "tombstones"])
def test_cancelling(hook: MediaHook) -> None:
    """A waiting task is cancelled, whether Runway then shows it or has forgotten it."""
    task = hook.submit("text_to_image", {"prompt": "a fox"})
    assert hook.cancel_task(task.id).status is TaskStatus.CANCELLED


def test_cancelling_what_has_ended_keeps_it(hook: MediaHook, server: Runway) -> None:
    """What would delete a result that is paid for is not sent."""
    task = ended(hook, "")
    assert hook.cancel_task(task.id).status is TaskStatus.SUCCEEDED
    assert hook.get_task(task.id).urls == task.urls
    assert task.id in server.tasks


def test_unknown_task(hook: MediaHook) -> None:
    """An id that is not there is not found, and is not among several either."""
    unknown = "17f20503-6c24-4c16-946b-35dbbce2af2f"
    with pytest.raises(MediaNotFoundError):
        hook.get_task(unknown)
    with pytest.raises(MediaNotFoundError):
        hook.cancel_task(unknown)
    tasks = [hook.submit("text_to_image", {"prompt": "a fox"}).id for _ in range(3)]
    assert set(hook.get_tasks([*tasks, unknown])) == set(tasks)


def test_a_lost_submission_is_a_question(hook: MediaHook) -> None:
    """Runway has no list: nobody can say what became of it, so it is never said that there is none."""
    began = datetime.now(timezone.utc)
    arguments = {"prompt": "a fox stranger-lost"}
    with pytest.raises(SubmissionOutcomeUnknown):
        hook.submit("text_to_image", arguments)
    with pytest.raises(SubmissionOutcomeUnknown):
        hook.find_tasks(operation="text_to_image", arguments=arguments, submitted_after=began)


@pytest.mark.parametrize(("operation", "made"), [("text_to_image", picture), ("text_to_video", film)])
def test_landing(hook: MediaHook, landed: Landed, operation: str, made: Any) -> None:
    """An operator submits once, waits, and lands the very bytes; the key is not sent for them."""
    result, files = landed(operation, {"prompt": "a fox"})
    assert files == [made()]
    assert result["cost"]["amount"] == "25"


def test_the_key_stays(hook: MediaHook, landed: Landed, server: Runway) -> None:
    """What is asked of the place where files are has no key of ours."""
    landed("text_to_image", {"prompt": "a fox"})
    downloads = [one for one in server.requests if one.segments[0] == "cdn"]
    assert downloads
    assert not any("authorization" in one.headers for one in downloads)
