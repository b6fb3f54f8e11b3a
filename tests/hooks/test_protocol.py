"""A provider that is tables alone, with each thing that some provider does and others do not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

import pytest
import structlog

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import (
    MediaBalance,
    MediaConcurrencyError,
    MediaCost,
    MediaExpiredError,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaProviderError,
    MediaRequestError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.wire.places import Into
from airflow_media_tasks.wire.tables import Balance, Call, Document, Listing, Refusals, Saying

from .by_hand import held, reply, told


URL = "https://cdn.example.com/1.mp4"
NOW = datetime(2026, 11, 30, tzinfo=timezone.utc)


class AcmeHook(MediaHook):
    """All tables of one provider."""

    conn_type, hook_name, default_conn_name = "acme", "Acme", "acme_default"
    base_url = "https://acme.example"
    other_urls: ClassVar[Mapping[str, str]] = {"archive": "https://archive.acme.example"}
    key_in = ("X-Key", "{key}")
    headers: ClassVar[Mapping[str, str]] = {"X-Version": "2"}
    id_groups = re.compile(r"[a-z]+/[a-z0-9]+")
    id_form = "'<owner>/<model>/<id>'"
    operations: ClassVar[Mapping[str, Operation]] = {
        "image_to_video": Operation(
            "video",
            "/v1/{model}",
            ("image_url",),
            needs={"end_image_url": "image_url"},
            refuses={"count": "makes one at a time: submit several"},
            rename={
                "prompt": "input.text",
                "duration": Into("input.seconds", convert=str),
                "image_url": Into("input.frames[]", {"uri": "{value}", "role": "first"}),
                "end_image_url": Into("input.frames[]", {"uri": "{value}", "role": "last"}),
            },
            rest="input",
            top=("callback_url",),
            fixed={"async": True},
            defaults={"model": "acme/film", "input.quality": "high"},
            headers={"X-Async": "enable"},
        )
    }
    submitted_id = "task.key"
    look = Call("GET", "/v1/{group}/{id}")
    result = Call("GET", "/v1/{group}/{id}/result", answers="fault.final")
    look_at_many = Call("POST", "/v1/{group}/many", json={"keys": "{ids}"})
    many = "tasks"
    batch_size = 3
    listing = Listing(
        Call(
            "GET",
            "/v1/list",
            params={"after": "{since_iso}", "model": "{model}", "from": "{cursor}"},
            host="archive",
        ),
        items="tasks",
        size=2,
        cursor="links.next",
    )
    cancel = Call("DELETE", "/v1/{group}/{id}")
    balance = Balance((Call("GET", "/v1/credits"),), amount="left", unit="credits", reserved="held")
    document = Document(
        within="task",
        id="key",
        status="state",
        statuses={"Baking": TaskStatus.RUNNING},
        lost=("Gone",),
        progress="percent",
        whole=100,
        items="result.parts",
        outputs="result",
        failure_code="fault.code",
        failure="fault.words",
        cost="price",
        unit="credits",
        created_at="made_at",
        ended_at="ended_at",
        kept=timedelta(minutes=10),
        request="asked",
        echoed="input",
    )
    refusal = Refusals(
        refused="fault && !(fault.final)",
        code="fault.code",
        words="fault.words",
        request_id="trace",
        codes={"TooMany": MediaConcurrencyError, "Old": MediaExpiredError, "Quota": MediaFundsError},
        sayings=(Saying(re.compile("naughty"), MediaModerationError),),
        unknown=("NoSuch",),
    )

    def _group(
        self, name: str, operation: Operation, arguments: Mapping[str, Any], reply: Any
    ) -> str:  # its model tells
        return str({**operation.defaults, **arguments}["model"])


@pytest.fixture
def hook(connect: Any) -> AcmeHook:
    """A hook that is talked to by hand."""
    return AcmeHook(connect(conn_type="acme", password="a-good-key"))


def submission(hook: AcmeHook, arguments: dict[str, Any]) -> Any:
    """The conversation of a submission, after its check."""
    name, checked = hook.check("image_to_video", {"image_url": f"{URL}?first", **arguments})
    return hook._submit(name, hook.operations[name], checked, "our-reference")


def test_a_submission_is_made_of_the_table(hook: AcmeHook) -> None:
    """Each word stands at its place, others in the rest, defaults and fixed words are there."""
    arguments = {
        "end_image_url": f"{URL}?last",
        "duration": "5",
        "prompt": "p",
        "style": "x",
        "callback_url": URL,
    }
    (asked,), task = held(submission(hook, arguments), {"task": {"key": "k-1"}})
    assert (asked.method, asked.path, asked.paid, asked.headers) == (
        "POST",
        "/v1/acme/film",
        True,
        {"X-Async": "enable"},
    )
    assert asked.json == {
        "async": True,
        "callback_url": URL,
        "input": {
            "text": "p",
            "seconds": "5",
            "style": "x",
            "quality": "high",
            "frames": [{"uri": f"{URL}?first", "role": "first"}, {"uri": f"{URL}?last", "role": "last"}],
        },
    }
    assert (task.id, task.status) == ("acme/film/k-1", TaskStatus.QUEUED)
    assert hook._headers() == {"X-Version": "2", "X-Key": "a-good-key"}


def test_the_model_may_be_the_connections(connect: Any) -> None:
    """A connection names another model for an operation, the caller yet another; nonsense is refused."""
    extra = '{"models": {"image_to_video": "acme/newer"}}'
    hook = AcmeHook(connect(conn_type="acme", password="a-good-key", extra=extra))
    assert next(submission(hook, {})).path == "/v1/acme/newer"
    assert next(submission(hook, {"model": "acme/mine"})).path == "/v1/acme/mine"
    for wrong in ('{"models": {"text": "x"}}', '{"models": ["x"]}', '{"models": {"image_to_video": 5}}'):
        hook = AcmeHook(connect(conn_type="acme", password="a-good-key", extra=wrong))
        with pytest.raises(
            MediaRequestError, match="models in extra must be an object of operation to model"
        ):
            submission(hook, {})


@pytest.mark.parametrize("model", ["../secret", "a/./b", "/a", "a/", "a//b", "a b", "a?b", 5])
def test_a_model_in_a_path_is_a_path_of_its_own(hook: AcmeHook, model: Any) -> None:
    """What becomes part of an address cannot lead elsewhere."""
    with pytest.raises(MediaRequestError, match="'model' of 'image_to_video' must be letters, digits"):
        submission(hook, {"model": model})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"count": 2}, "'count' 2 of 'image_to_video' makes one at a time: submit several"),
        ({"image_url": None, "end_image_url": URL}, "needs 'image_url'"),
    ],
)
def test_what_the_table_refuses(hook: AcmeHook, arguments: dict[str, Any], said: str) -> None:
    """A word that is not taken, and one that needs another, are refused with the reason."""
    with pytest.raises(MediaRequestError, match=said):
        submission(hook, arguments)


def test_a_submission_without_an_id(hook: AcmeHook) -> None:
    """A reply without the id is the provider's error, and names the place."""
    with pytest.raises(MediaProviderError, match=r"without a task\.key"):
        told(submission(hook, {}), {"task": {"key": "a/b"}})


def look(hook: AcmeHook, *bodies: Any) -> Any:
    """The task that these replies show."""
    return told(hook._get_task("acme/film/k-1"), *bodies)


def test_a_task_that_runs(hook: AcmeHook) -> None:
    """Status, progress, cost and time are read from their places."""
    document = {"key": "k-1", "state": "Baking", "percent": 40, "price": 1.5, "made_at": NOW.isoformat()}
    task = look(hook, {"task": document})
    assert (task.status, task.status_word, task.progress) == (TaskStatus.RUNNING, "Baking", 0.4)
    assert (task.cost, task.created_at) == (MediaCost("credits", "1.5"), NOW)


def test_a_result_of_its_own(hook: AcmeHook) -> None:
    """After the word for success the result is asked for, and its files live as long as the table says."""
    done = {"task": {"key": "k-1", "state": "done", "ended_at": NOW.isoformat()}}
    with structlog.testing.capture_logs() as logs:
        task = look(
            hook, done, {"parts": [{"url": URL, "duration": 5}, {"state": "failed", "url": f"{URL}?2"}]}
        )
    (file,) = task.files
    assert (file.url, file.kind, file.duration) == (URL, "video", 5)
    assert file.expires_at == NOW + timedelta(minutes=10)
    (warning,) = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert warning == "1 of 2 items of acme task acme/film/k-1 failed, the others are kept"


@pytest.mark.parametrize(
    ("fault", "cls"),
    [
        ({"code": "Bad", "words": "no", "final": 1}, MediaTaskFailed),
        ({"code": "Bad", "words": "naughty", "final": 1}, MediaModerationError),
        ({"code": "Old", "words": "no", "final": 1}, MediaExpiredError),
        ({"code": "Quota", "words": "no", "final": 1}, MediaTaskFailed),
    ],
)
def test_a_result_that_is_refused_for_good(hook: AcmeHook, fault: Any, cls: type[Exception]) -> None:
    """A refusal that is the provider's final word ends the task, whatever its HTTP status."""
    conversation = hook._get_task("acme/film/k-1")
    next(conversation)
    asked = conversation.send(reply({"task": {"state": "done"}}))
    assert (asked.path, asked.answers) == ("/v1/acme/film/k-1/result", "fault.final")
    with pytest.raises(StopIteration) as end:
        conversation.send(reply({"fault": fault}, 500))
    task = end.value.value
    assert (task.status, type(task.error), task.error.code) == (TaskStatus.FAILED, cls, fault["code"])


def test_a_word_for_no_such_task(hook: AcmeHook) -> None:
    """A word or a code for "no such task" is MediaNotFoundError; in a list it is left out."""
    with pytest.raises(MediaNotFoundError, match="'Gone'"):
        look(hook, {"task": {"state": "Gone"}})
    conversation = hook._get_task("acme/film/k-1")
    next(conversation)
    with pytest.raises(MediaNotFoundError):
        conversation.throw(MediaRequestError("no", code="NoSuch"))
    items = [{"key": "a", "state": "Gone"}, {"key": "b", "state": "Baking"}, "x", {"state": "Baking"}]
    found = told(hook._get_batch(["acme/film/a", "acme/film/b"]), {"tasks": items})
    assert list(found) == ["acme/film/b"]


@pytest.mark.parametrize("body", [{}, {"task": None}, {"task": []}, {"task": "x"}])
def test_a_reply_without_a_task(hook: AcmeHook, body: Any) -> None:
    """A document without the task is an error, never half a result."""
    with pytest.raises(MediaProviderError, match="without a task in task"):
        look(hook, body)


@pytest.mark.parametrize(
    ("body", "status", "cls"),
    [
        ({"fault": {"code": "TooMany", "words": "wait"}}, 200, MediaConcurrencyError),
        ({"fault": {"code": "TooMany", "words": "wait"}}, 400, MediaConcurrencyError),
        ({"fault": {"code": "Quota", "words": "spent"}}, 429, MediaFundsError),
        ({"fault": {"words": ["a naughty word"]}}, 422, MediaModerationError),
        ({"fault": {"words": ["a naughty word"]}}, 500, MediaProviderError),
        ({"fault": {"code": "X", "words": "?"}}, 404, MediaNotFoundError),
        ({}, 401, None),
    ],
)
def test_errors_by_the_table(hook: AcmeHook, body: Any, status: int, cls: type[Exception] | None) -> None:
    """Codes decide, then words, then the HTTP status; HTTP 200 may refuse."""
    error = hook.error_of(reply(body, status))
    assert cls is None or type(error) is cls
    assert error is not None
    assert error.provider == "acme"
    assert hook.error_of(reply({"task": {}}, 200)) is None


def test_the_list_is_walked_by_its_cursor(hook: AcmeHook) -> None:
    """A cursor that stands in an address is taken out of it; the address itself is never asked."""
    since = NOW - timedelta(minutes=1)
    conversation = hook._find_tasks(None, since, "image_to_video", {"image_url": URL})
    asked = next(conversation)
    assert (asked.path, asked.host, asked.params["model"], asked.params["from"]) == (
        "/v1/list",
        "archive",
        "acme/film",
        None,
    )
    frames = {"frames": [{"uri": URL, "role": "first"}], "quality": "high"}
    page = [
        {"key": "a", "state": "Baking", "made_at": NOW.isoformat(), "asked": frames},
        {"key": "b", "state": "Baking", "made_at": NOW.isoformat(), "asked": {"frames": []}},
    ]
    asked = conversation.send(reply({"tasks": page, "links": {"next": "https://evil.example/?from=c-2&x=1"}}))
    assert (asked.path, asked.host, asked.params["from"]) == ("/v1/list", "archive", "c-2")
    with pytest.raises(StopIteration) as end:
        conversation.send(reply({"tasks": []}))
    assert [task.id for task in end.value.value] == ["a"]


def test_addresses_beside_the_base_url(connect: Any) -> None:
    """A second public address is used as it is; a connection's own host has it below."""
    hook = AcmeHook(connect(conn_type="acme", password="a-good-key"))
    assert hook._address("archive") == "https://archive.acme.example"
    hook = AcmeHook(
        connect(conn_id="own", conn_type="acme", password="a-good-key", host="https://proxy.example/acme")
    )
    assert hook._address("archive") == "https://proxy.example/acme/archive"
    assert hook._address("") == "https://proxy.example/acme"


def test_cancelling_and_the_balance(hook: AcmeHook) -> None:
    """Both are there because their tables are."""
    assert hook.can_cancel
    assert hook.has_balance
    asked, task = held(hook._cancel_task("acme/film/k-1"), {}, {"task": {"state": "cancelled"}})
    assert [(request.method, request.path) for request in asked] == [
        ("DELETE", "/v1/acme/film/k-1"),
        ("GET", "/v1/acme/film/k-1"),
    ]
    assert task.status is TaskStatus.CANCELLED
    assert told(hook._get_balance(), {"left": 3, "held": "1"}) == MediaBalance("3", "credits", "1")
    with pytest.raises(MediaProviderError, match=r"without a balance \(left\)"):
        told(hook._get_balance(), {})


def test_a_provider_without_a_list(connect: Any) -> None:
    """What became of a lost submission cannot be found out, and that is said."""

    class DeafHook(AcmeHook):
        """The same without its list."""

        listing = None

    hook = DeafHook(connect(conn_type="acme", password="a-good-key"))
    assert not hook.can_be_asked("image_to_video")
    with pytest.raises(SubmissionOutcomeUnknown, match="has no list of 'image_to_video' tasks"):
        next(hook._find_tasks(None, NOW, "image_to_video", {"image_url": URL}))
