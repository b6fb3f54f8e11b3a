from __future__ import annotations

import copy
import json
import pickle
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_media_tasks.task import (
    MAX_FILES,
    MediaBalance,
    MediaCost,
    MediaExpiredError,
    MediaFile,
    MediaModerationError,
    MediaRateLimitError,
    MediaTask,
    MediaTaskError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
    error_from_dict,
    shown,
    utc_from_epoch,
)

from .encoders import must_take


MOMENT = datetime(2026, 11, 20, 12, 30, tzinfo=timezone.utc)
ERRORS = MediaTaskError.__subclasses__()

texts = st.text()
moments = st.datetimes(timezones=st.just(timezone.utc))
seconds = st.floats(min_value=0, max_value=1e6)
files = st.builds(
    MediaFile,
    kind=st.sampled_from(["image", "video", "audio", "thumbnail", "file"]),
    url=texts,
    id=st.none() | texts,
    width=st.none() | st.integers(1, 10_000),
    height=st.none() | st.integers(1, 10_000),
    duration=st.none() | st.floats(min_value=0.1, max_value=1e4),
    content_type=st.none() | texts,
    expires_at=st.none() | moments,
    watermarked=st.booleans(),
)
errors = st.builds(
    lambda cls, **fields: cls(fields.pop("message"), **fields),
    st.sampled_from(ERRORS),
    message=st.text(min_size=1),
    provider=texts,
    code=st.none() | texts,
    retry_after=st.none() | seconds,
    media_task_id=st.none() | texts,
)
tasks = st.builds(
    MediaTask,
    id=st.text(min_size=1),
    status=st.sampled_from(TaskStatus),
    operation=texts,
    status_word=texts,
    files=st.lists(files, max_size=3).map(tuple),
    error=st.none() | errors,
    cost=st.none() | st.builds(MediaCost, unit=texts, amount=st.none() | texts, estimated=st.none() | texts),
    progress=st.none() | st.floats(0, 1),
    created_at=st.none() | moments,
)


def same(error: MediaTaskError | None, other: MediaTaskError | None) -> bool:
    """Whether two errors say the same; exceptions compare by identity."""
    return (error and (type(error), str(error), error.to_dict())) == (
        other and (type(other), str(other), other.to_dict())
    )


# Tasks.


@settings(deadline=None)
@given(tasks)
def test_round_trip_through_json(task: MediaTask) -> None:
    """A task survives its dict, and that dict survives JSON, with its files, cost and error."""
    back = MediaTask.from_dict(json.loads(json.dumps(task.to_dict())))
    assert same(back.error, task.error)
    for name in (
        "id",
        "status",
        "operation",
        "status_word",
        "files",
        "cost",
        "progress",
        "created_at",
        "urls",
        "file_ids",
        "video_id",
    ):
        assert getattr(back, name) == getattr(task, name)


def test_the_ids_are_those_of_what_was_asked_for() -> None:
    """A thumbnail's, or those of a watermarked twin, are not what another operation is to work on."""
    files = (
        MediaFile("thumbnail", "https://x/1.jpg", id="t"),
        MediaFile("audio", "https://x/1.mp3", id="a"),
        MediaFile("video", "https://x/0.mp4"),
        MediaFile("video", "https://x/1.mp4", id="v"),
        MediaFile("video", "https://x/2.mp4", id="w", watermarked=True),
    )
    task = MediaTask("x", TaskStatus.SUCCEEDED, files=files)
    assert (task.file_ids, task.video_id) == (["a", "v"], "v")
    assert (MediaTask("x", TaskStatus.QUEUED).file_ids, MediaTask("x", TaskStatus.QUEUED).video_id) == (
        [],
        None,
    )


def test_the_dict_is_what_downstream_reads() -> None:
    """The keys that XCom readers rely on are there, in JSON's own types, and `raw` is not."""
    task = MediaTask(
        "videos/text2video/1",
        TaskStatus.SUCCEEDED,
        operation="text_to_video",
        status_word="succeed",
        files=(MediaFile("video", "https://x/1.mp4", id="v", duration=5.1, expires_at=MOMENT),),
        cost=MediaCost("units", "1.5"),
        created_at=MOMENT,
        raw={"secret": "document"},
    )
    assert task.to_dict() == {
        "id": "videos/text2video/1",
        "operation": "text_to_video",
        "status": "succeeded",
        "status_word": "succeed",
        "url": "https://x/1.mp4",
        "urls": ["https://x/1.mp4"],
        "files": [
            {
                "kind": "video",
                "url": "https://x/1.mp4",
                "id": "v",
                "duration": 5.1,
                "expires_at": "2026-11-20T12:30:00+00:00",
            }
        ],
        "error": None,
        "cost": {"unit": "units", "amount": "1.5", "estimated": None},
        "progress": None,
        "created_at": "2026-11-20T12:30:00+00:00",
    }


def test_keys_of_a_later_version_are_ignored() -> None:
    """A dict with keys that this version does not know is read without them."""
    file = {"kind": "image", "url": "https://x/1.png", "colour_space": "P3"}
    value = {
        "id": "1",
        "status": "succeeded",
        "files": [file],
        "generation": 7,
        "cost": {"unit": "USD", "tax": "1"},
    }
    task = MediaTask.from_dict(value)
    assert task.files == (MediaFile("image", "https://x/1.png"),)
    assert task.cost == MediaCost("USD")


def test_only_id_and_status_are_needed() -> None:
    """Everything else has a default, null included."""
    least = MediaTask("1", TaskStatus.QUEUED)
    assert MediaTask.from_dict({"id": "1", "status": "queued"}) == least
    nulls = dict.fromkeys(("operation", "files", "error", "cost", "progress", "created_at"))
    assert MediaTask.from_dict({"id": "1", "status": "queued", **nulls}) == least


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "a media task is a dict, got NoneType"),
        ("succeeded", "a media task is a dict, got str"),
        ([], "a media task is a dict, got list"),
        ({}, "needs a text 'id', got the keys"),
        ({"id": "", "status": "queued"}, "needs a text 'id'"),
        ({"id": 5, "status": "queued"}, "needs a text 'id'"),
        ({5: 1, "status": "queued"}, "needs a text 'id'"),
        ({"id": "1"}, "status None is none of queued, running, succeeded, failed, cancelled"),
        ({"id": "1", "status": "done"}, "status 'done' is none of"),
        ({"id": "1", "status": []}, "status .* is none of"),
        ({"id": "1", "status": "queued", "files": "x"}, "'files' .* is a list, got str"),
        ({"id": "1", "status": "queued", "files": {"a": 1}}, "'files' .* is a list, got dict"),
        ({"id": "1", "status": "queued", "files": ["x"]}, "a media file is a dict, got str"),
        ({"id": "1", "status": "queued", "files": [{"url": "x"}]}, "needs 'kind' and 'url'"),
        (
            {"id": "1", "status": "queued", "files": [{"kind": "image", "url": None}]},
            "needs 'kind' and 'url'",
        ),
        ({"id": "1", "status": "queued", "cost": "5"}, "'cost' .* is a dict, got str"),
        ({"id": "1", "status": "failed", "error": "bad"}, "'error' .* is a dict, got str"),
        ({"id": "1", "status": "queued", "created_at": "soon"}, "isoformat"),
    ],
)
def test_event_that_is_no_task(value: Any, expected: str) -> None:
    """What is not a task's dict is refused with ValueError, which says what is wrong."""
    with pytest.raises(ValueError, match=expected):
        MediaTask.from_dict(value)


def test_urls_leave_out_what_was_not_asked_for() -> None:
    """Thumbnails and watermarked twins are in `files`, and in `urls` only if there is nothing else."""
    video, cover = MediaFile("video", "v"), MediaFile("thumbnail", "t")
    marked = MediaFile("video", "w", watermarked=True)

    def urls(*made: MediaFile) -> tuple[list[str], str | None]:
        task = MediaTask("1", TaskStatus.SUCCEEDED, files=made)
        return task.urls, task.url

    assert urls(cover, marked, video, MediaFile("audio", "a")) == (["v", "a"], "v")
    assert urls(marked, cover) == (["w", "t"], "w")
    assert urls() == ([], None)


def test_raw_is_neither_compared_nor_shown() -> None:
    """The provider's own document stays out of comparisons, of repr and of the dict."""
    task = MediaTask("1", TaskStatus.QUEUED, raw={"prompt": "private"})
    assert task == MediaTask("1", TaskStatus.QUEUED)
    assert "private" not in f"{task!r} {task.to_dict()}"


def test_a_task_is_not_changed() -> None:
    """A task is what somebody saw at one time; it cannot be changed afterwards."""
    with pytest.raises(AttributeError):
        MediaTask("1", TaskStatus.QUEUED).status = TaskStatus.RUNNING  # type: ignore[misc]  # the point of it


# Whatever they are made of.


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from([10**30, 10**400, -9, "\ud800", "a\0b", "x" * 20_000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*MediaFile.__dataclass_fields__]), ANYTHING))
def test_file_of_anything(fields: dict[str, Any]) -> None:
    """Whatever a file's fields are said to be, it can be sent, and is the same when it is read back."""
    file = MediaFile(**{"kind": "video", "url": "https://x/1.mp4", **fields})
    must_take(file.to_dict())
    assert MediaFile.from_dict(file.to_dict()) == file


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["id", "operation", "status_word", "progress", "created_at"]), ANYTHING),
    st.dictionaries(st.sampled_from(["unit", "amount", "estimated"]), ANYTHING),
    st.dictionaries(
        st.sampled_from(["message", "provider", "code", "retry_after", "media_task_id"]), ANYTHING
    ),
    st.sampled_from(ERRORS),
)
def test_task_of_anything(
    fields: dict[str, Any], cost: dict[str, Any], error: dict[str, Any], cls: type[MediaTaskError]
) -> None:
    """Whatever a task's fields are said to be, it can be sent."""
    task = MediaTask(
        **{
            "id": "1",
            "status": TaskStatus.FAILED,
            "cost": MediaCost(**{"unit": "USD", **cost}),
            "error": cls(**{"message": "no", **error}),
            **fields,
        }
    )
    must_take(task.to_dict())
    assert task.error is not None
    assert str(task.error) == task.error.message


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from([*MediaTask("1", TaskStatus.QUEUED).to_dict()]), ANYTHING),
    st.dictionaries(
        st.sampled_from(["type", "message", "provider", "code", "retry_after", "media_task_id"]), ANYTHING
    ),
)
def test_event_of_anything(fields: dict[str, Any], error: dict[str, Any]) -> None:
    """Whatever an event or an XCom holds, it is refused with ValueError or becomes what can be sent."""
    must_take(error_from_dict(error).to_dict())
    try:
        task = MediaTask.from_dict({"id": "1", "status": "failed", "error": error, **fields})
    except ValueError:
        return
    must_take(task.to_dict())


def test_candidates_can_be_sent() -> None:
    """What an account shows of a lost submission is text of a provider, too."""
    error = SubmissionOutcomeUnknown(
        "which?", candidates=[{"id": "\ud800", "created_at": None, "prompt": "a\0b" * 1000}] * 1000
    )
    must_take(error.to_dict())
    assert len(error.candidates) < 100


def test_bounds() -> None:
    """Texts, files and waits end somewhere; what no file or task has is not there."""
    file = MediaFile("video", "u" * 10_000, "i" * 1000, width=10**30, height=-1, duration=float("nan"))
    assert (len(file.url), len(file.id or ""), file.width, file.height, file.duration) == (
        8192,
        512,
        None,
        None,
        None,
    )
    assert MediaFile("video", "u", width=1920.0).to_dict()["width"] == 1920  # type: ignore[arg-type]  # as JSON may have it
    task = MediaTask("1", TaskStatus.SUCCEEDED, files=(file,) * 1000, progress=1.5)
    assert (len(task.files), task.progress) == (MAX_FILES, None)
    waits = {value: MediaTaskError("x", retry_after=value).retry_after for value in (-5, 7, 30_000, 1e300)}
    assert waits == {-5: 0.0, 7: 7.0, 30_000: 300.0, 1e300: 300.0}
    assert MediaTaskError("x", retry_after=float("inf")).retry_after is None
    assert len(str(MediaTaskError("x" * 100_000))) == 10_000
    assert str(MediaBalance("1E+999999999", "USD")) == "1E+999999999 USD"


def test_time_without_a_zone_is_utc() -> None:
    """An XCom written without a zone can be compared with the clock."""
    naive = MediaFile.from_dict({"kind": "video", "url": "u", "expires_at": "2026-11-20T12:30:00"})
    assert naive.expires_at == MOMENT


# Statuses.


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (TaskStatus.QUEUED, "pending queued reserved submitted THROTTLED PENDING starting IN_QUEUE"),
        (
            TaskStatus.RUNNING,
            "processing executing dreaming RUNNING IN_PROGRESS planning producing generating",
        ),
        (
            TaskStatus.SUCCEEDED,
            "completed complete succeed succeeded success done SUCCEEDED finished COMPLETED",
        ),
        (TaskStatus.FAILED, "failed failure error dead rejected FAILED ERROR refunded timeout expired"),
        (TaskStatus.CANCELLED, "canceled cancelled CANCELLED aborted"),
    ],
)
def test_status_words_of_every_provider(status: TaskStatus, words: str) -> None:
    """Every provider's word for a status is known, however it is written."""
    for word in words.split():
        assert TaskStatus.from_word(word) is status
        assert TaskStatus.from_word(f" {word.title()}\n") is status


@pytest.mark.parametrize("word", ["", " ", "pondering", "un-known", "almost done", "not failed", "成功"])
def test_word_that_nobody_has_seen(word: str) -> None:
    """A word that is none of the known ones is not guessed, though it contains one."""
    assert TaskStatus.from_word(word) is None


def test_terminal_statuses() -> None:
    """Three statuses are the end, two are not."""
    ended = {TaskStatus.SUCCEEDED, TaskStatus.FAILED, TaskStatus.CANCELLED}
    assert {status for status in TaskStatus if status.is_terminal} == ended


def test_status_is_its_word() -> None:
    """A status is shown, compared and serialised as its word."""
    assert f"{TaskStatus.RUNNING}" == str(TaskStatus.RUNNING) == "running"
    assert {TaskStatus.RUNNING: 1}["running"] == 1  # type: ignore[index]  # a text, too
    assert json.dumps([TaskStatus.RUNNING]) == '["running"]'


# Errors.


@settings(deadline=None)
@given(errors)
def test_error_survives_dict_pickle_and_copy(error: MediaTaskError) -> None:
    """An error keeps its class, its words and its fields through its dict, pickle and copy."""
    assert same(error_from_dict(json.loads(json.dumps(error.to_dict()))), error)
    assert same(pickle.loads(pickle.dumps(error)), error)  # noqa: S301  # our own bytes
    assert same(copy.copy(error), error)
    assert same(copy.deepcopy(error), error)


def test_error_of_another_version() -> None:
    """A class that this version does not have becomes the base class, and the words stay."""
    error = error_from_dict({"type": "MediaSolarFlareError", "message": "hot", "code": 5, "retry_after": "x"})
    assert type(error) is MediaTaskError
    assert (str(error), error.code, error.retry_after, error.provider) == ("hot", "5", None, "")
    assert str(error_from_dict({})) == "no message"


def test_error_class_is_never_looked_up_elsewhere() -> None:
    """Only this package's errors can come out of a dict, whatever type it names."""
    for name in ("SystemExit", "KeyboardInterrupt", "MediaTaskError", "object", None, 5):
        assert type(error_from_dict({"type": name, "message": "x"})) is MediaTaskError


def test_error_defaults() -> None:
    """Only the message is needed, and it is what the error shows."""
    error = MediaRateLimitError("slow down")
    assert (error.provider, error.code, error.retry_after, error.media_task_id) == ("", None, None, None)
    assert str(error) == error.message == "slow down"


def test_every_error_is_one_of_ours() -> None:
    """One `except MediaTaskError` catches them all, and each has its own sentence."""
    assert len(ERRORS) == 12
    assert {MediaExpiredError, MediaModerationError, MediaTaskFailed, SubmissionOutcomeUnknown} <= set(ERRORS)
    assert len({cls.__doc__ for cls in ERRORS}) == 12


# The rest.


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (0, datetime(1970, 1, 1, tzinfo=timezone.utc)),
        ("1705788000.5", datetime(2024, 1, 20, 22, 0, 0, 500000, tzinfo=timezone.utc)),
        (float("nan"), None),
        (float("inf"), None),
        (1e300, None),
        (10**400, None),
        ("soon", None),
        (None, None),
        ([], None),
    ],
)
def test_time_from_unix_seconds(value: Any, moment: datetime | None) -> None:
    """Unix seconds, as number or text, are a time in UTC; anything else is none."""
    assert utc_from_epoch(value) == moment


@pytest.mark.parametrize(
    ("balance", "text"),
    [
        (MediaBalance("12.50", "USD"), "12.50 USD"),
        (MediaBalance("12.50", "USD", "0.18"), "12.50 USD (0.18 USD reserved)"),
        (MediaBalance("12.4000", "USD", "0.0000"), "12.40 USD"),
        (MediaBalance("0.0125", "USD"), "0.0125 USD"),
        (MediaBalance("1E+6", "units"), "1000000 units"),
        (MediaBalance("13.25", "units"), "13.25 units"),
        (MediaBalance("plenty", "units", "some"), "plenty units"),
    ],
)
def test_balance_for_people(balance: MediaBalance, text: str) -> None:
    """A balance says its amount and unit, and what is held back where anything is."""
    assert str(balance) == text


@pytest.mark.parametrize(
    ("amount", "is_empty"), [("0", True), ("0.000", True), ("-2", True), ("0.01", False), ("plenty", False)]
)
def test_an_empty_balance(amount: str, is_empty: bool) -> None:
    """Nothing left is nothing left, however it is written."""
    assert MediaBalance(amount, "USD").is_empty is is_empty


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "'x'"), (None, "None"), ("a\nb", "'a\\nb'"), ("x" * 100, f"'{'x' * 79}... (102 characters)")],
)
def test_shown(value: Any, text: str) -> None:
    """A value in an error's text is quoted, on one line, and bounded."""
    assert shown(value) == text
