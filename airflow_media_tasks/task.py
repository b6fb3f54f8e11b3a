"""The values that flow between hooks, triggers, operators and XCom, and the errors that end a task.

Nothing here does I/O and nothing here knows Airflow or a provider: hooks make these values, everything
else reads them. What crosses a process boundary (a trigger's event, XCom) is the dict of `to_dict`,
never the class, because Airflow refuses to load classes of a package that is not its own.

What a provider says, or an event or an XCom holds, is any JSON at all, and what Airflow cannot encode ends
the triggerer with everybody's tasks. So each value makes itself fit when it is built: texts are bounded and
have no NUL (PostgreSQL's JSON takes none) and no half of a surrogate pair, numbers are finite and in a sane
range or not there, times are UTC, and there are not too many files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, ClassVar


MAX_FILES = 256
"""Files of one task that are kept, its first ones."""
MAX_RETRY_AFTER = 300.0
"""Seconds that a provider can make anything wait for by saying so."""

_ID, _WORD, _URL, _MESSAGE = 512, 200, 8192, 10_000
"""Characters of a text, by what it is; no server takes a longer URL."""
_CANDIDATES = 50
_UNFIT = re.compile("[\0\ud800-\udfff]")
_PIXELS, _SECONDS = 1_000_000, 10_000_000


class TaskStatus(str, Enum):
    """Where a provider's task stands, in one vocabulary for all providers."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """True once the provider will not change the task any more."""
        return self in (TaskStatus.SUCCEEDED, TaskStatus.FAILED, TaskStatus.CANCELLED)

    @classmethod
    def from_word(cls, word: str) -> TaskStatus | None:
        """The status that a provider's own *word* stands for, or None for a word nobody has seen before.

        The words are those of every sheet together (providers/README.md, section 2): no word means
        different things at two providers, so one table serves all of them.
        """
        return _STATUS_OF_WORD.get(word.strip().lower())

    def __str__(self) -> str:
        return self.value


_STATUS_WORDS = {
    TaskStatus.QUEUED: (
        "pending queued queueing reserved submitted throttled starting in_queue created waiting"
    ),
    TaskStatus.RUNNING: (
        "processing executing dreaming running in_progress planning producing generating initializing"
    ),
    TaskStatus.SUCCEEDED: "completed complete succeed succeeded success done finished",
    TaskStatus.FAILED: "failed failure fail error dead rejected refunded timeout expired",
    TaskStatus.CANCELLED: "cancelled canceled aborted",
}
_STATUS_OF_WORD = {word: status for status, words in _STATUS_WORDS.items() for word in words.split()}


class MediaTaskError(Exception):
    """What went wrong with a provider, a task or a request; the subclass says what to do about it.

    The subclass is chosen by the provider's *code*, not by the HTTP status: a 429 of Kling may mean "no
    money" and a 403 of AceData may mean "moderated".

    :param message: the provider's own words with its request id, bounded, and what to do where we know it.
    :param provider: connection type of the provider (`vap`, `acedata`, `kling`), empty for our own errors.
    :param code: the provider's code, or one of ours (`no_output`, `queue_timeout`), or None.
    :param retry_after: seconds the provider asked us to wait, at most `MAX_RETRY_AFTER`, or None.
    :param media_task_id: the task that was paid for and ended this way, or None if none was accepted.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        code: str | None = None,
        retry_after: float | None = None,
        media_task_id: str | None = None,
    ) -> None:
        self.message = _text(message, _MESSAGE)
        super().__init__(self.message)
        self.provider = _text(provider, _WORD)
        self.code = _optional_text(code, _WORD)
        self.retry_after = _wait(retry_after)
        self.media_task_id = _optional_text(media_task_id, _ID)

    def to_dict(self) -> dict[str, Any]:
        """JSON scalars only; `error_from_dict` makes the same error of it."""
        return {
            "type": type(self).__name__,
            "message": self.message,
            "provider": self.provider,
            "code": self.code,
            "retry_after": self.retry_after,
            "media_task_id": self.media_task_id,
        }


class MediaAuthError(MediaTaskError):
    """The key is missing, wrong, or not entitled to this."""


class MediaFundsError(MediaTaskError):
    """The account has no money, quota or tier for this."""


class MediaRateLimitError(MediaTaskError):
    """Too many requests; nothing was accepted. Wait `retry_after` seconds."""


class MediaConcurrencyError(MediaTaskError):
    """Too many tasks of this account are in flight; nothing was accepted. Wait until one ends."""


class MediaModerationError(MediaTaskError):
    """The provider's content policy refused the input or withheld the output."""


class MediaRequestError(MediaTaskError):
    """An argument is missing, wrong or contradictory, here or in the provider's judgement."""


class MediaNotFoundError(MediaTaskError):
    """The provider does not know this task (any more)."""


class MediaExpiredError(MediaTaskError):
    """The result existed and was paid for, but its files are gone."""


class MediaProviderError(MediaTaskError):
    """The provider's fault: 5xx, no answer, or an answer that makes no sense."""


class MediaTaskFailed(MediaTaskError):
    """The task was accepted and itself ended failed, cancelled or without any output."""


class MediaTaskTimeout(MediaTaskError):
    """We stopped waiting. The task may still be running at the provider, and is paid for."""


class SubmissionOutcomeUnknown(MediaTaskError):
    """A submission was sent and nobody knows whether it was accepted; sending it again could pay twice.

    :param candidates: what the account shows since then, each `{"id", "created_at", "status", "prompt"}`.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        code: str | None = None,
        retry_after: float | None = None,
        media_task_id: str | None = None,
        candidates: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(
            message, provider=provider, code=code, retry_after=retry_after, media_task_id=media_task_id
        )
        self.candidates = [
            {_text(name, _WORD): _optional_text(value, _ID) for name, value in candidate.items()}
            for candidate in candidates[:_CANDIDATES]
        ]

    def to_dict(self) -> dict[str, Any]:
        """As of `MediaTaskError`, with the candidates."""
        return {**super().to_dict(), "candidates": self.candidates}


_ERROR_CLASSES: dict[str, type[MediaTaskError]] = {
    cls.__name__: cls for cls in MediaTaskError.__subclasses__()
}


def error_class(name: str) -> type[MediaTaskError]:
    """The class of this *name*; of one that nobody knows, `MediaTaskError` itself."""
    return _ERROR_CLASSES.get(name, MediaTaskError)


def error_from_dict(value: Mapping[str, Any]) -> MediaTaskError:
    """The error that `MediaTaskError.to_dict` described.

    A type of another version of this package becomes a plain `MediaTaskError`, so that an event written
    before an upgrade still says what happened.
    """
    cls = error_class(str(value.get("type")))
    return cls(
        value.get("message") or "no message",
        provider=value.get("provider") or "",
        code=value.get("code"),
        retry_after=value.get("retry_after"),
        media_task_id=value.get("media_task_id"),
    )


@dataclass(frozen=True)
class MediaFile:
    """One file that a provider made, in the provider's order.

    :param kind: `image`, `video`, `audio`, `thumbnail`, or `file` where nothing tells.
    :param url: where the bytes are now; most providers let it die (see `expires_at`).
    :param id: the provider's own name for this file, which its extend and upscale operations ask for.
    :param width: px, where the provider says so.
    :param height: px, where the provider says so.
    :param duration: seconds, where the provider says so.
    :param content_type: MIME type, where the provider says so.
    :param expires_at: UTC time at which the provider deletes the file, where it says so.
    :param watermarked: True for the watermarked twin of another file of the same task.
    :param access: `key` where *url* is only given to the account that made it, `task` where the bytes stand
        in the task's own document and *url* only names them; None where *url* is given to anybody.
    """

    kind: str
    url: str
    id: str | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    content_type: str | None = None
    expires_at: datetime | None = None
    watermarked: bool = False
    access: str | None = None

    def __post_init__(self) -> None:
        self.__dict__.update(
            kind=_text(self.kind, _WORD),
            url=_text(self.url, _URL),
            id=_optional_text(self.id, _ID),
            width=_pixels(self.width),
            height=_pixels(self.height),
            duration=_number(self.duration, _SECONDS) or None,
            content_type=_optional_text(self.content_type, _WORD),
            expires_at=_utc(self.expires_at),
            watermarked=self.watermarked is True,
            access=_optional_text(self.access, _WORD),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON scalars; what is not known is left out."""
        values = {**self.__dict__, "expires_at": _iso(self.expires_at)}
        return {name: value for name, value in values.items() if value not in (None, False)}

    @classmethod
    def from_dict(cls, value: Any) -> MediaFile:
        """Raises ValueError where kind or url is missing; ignores keys of a later version."""
        if not isinstance(value, Mapping):
            raise ValueError(f"a media file is a dict, got {type(value).__name__}")
        if not isinstance(value.get("kind"), str) or not isinstance(value.get("url"), str):
            raise ValueError(f"a media file needs 'kind' and 'url', got the keys {sorted(map(str, value))}")
        known = {name: value[name] for name in cls.__dataclass_fields__ if name in value}
        return cls(**{**known, "expires_at": _time(value.get("expires_at"))})


@dataclass(frozen=True)
class MediaCost:
    """What a task cost, in the provider's own unit, as decimal strings so that no cent is rounded.

    :param unit: a currency code (`USD`) or the provider's word (`units`).
    :param amount: what was charged, or None until the provider says.
    :param estimated: what the provider foretold at submission, or None.
    """

    unit: str
    amount: str | None = None
    estimated: str | None = None

    def __post_init__(self) -> None:
        self.__dict__.update(
            unit=_text(self.unit, _WORD),
            amount=_optional_text(self.amount, _WORD),
            estimated=_optional_text(self.estimated, _WORD),
        )


@dataclass(frozen=True)
class MediaBalance:
    """What an account can still spend: `amount` (decimal string) in `unit`, `reserved` by running tasks."""

    amount: str
    unit: str
    reserved: str | None = None

    def __post_init__(self) -> None:
        self.__dict__.update(
            amount=_text(self.amount, _WORD),
            unit=_text(self.unit, _WORD),
            reserved=_optional_text(self.reserved, _WORD),
        )

    @property
    def is_empty(self) -> bool:
        """True if there is nothing left to spend."""
        amount = _decimal(self.amount)
        return amount is not None and amount <= 0

    def __str__(self) -> str:
        held = (
            f" ({_plain(self.reserved)} {self.unit} reserved)"
            if self.reserved and _decimal(self.reserved)
            else ""
        )
        return f"{_plain(self.amount)} {self.unit}{held}"


@dataclass(frozen=True)
class MediaTask:
    """One generation task at a provider, as it was when somebody last looked.

    :param id: the `media_task_id`, one opaque handle that says everything needed to ask again
        (`videos/text2video/<id>`, `luma/<id>`, `<id>`).
    :param operation: the operation's name (`text_to_video`, `luma/image_to_video`), empty where a task was
        read by its id alone and the provider does not say.
    :param status: see `TaskStatus`.
    :param status_word: the provider's own word for it, empty where it has none.
    :param files: every file, in the provider's order, of more than `MAX_FILES` the first.
    :param error: why it failed, or None.
    :param cost: what it cost, or None where the provider does not say.
    :param progress: 0.0 to 1.0, or None.
    :param created_at: UTC, or None.
    :param raw: the provider's document; it stays in this process and is in no dict.
    """

    id: str
    status: TaskStatus
    operation: str = ""
    status_word: str = ""
    files: tuple[MediaFile, ...] = ()
    error: MediaTaskError | None = None
    cost: MediaCost | None = None
    progress: float | None = None
    created_at: datetime | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    _SECONDARY: ClassVar[frozenset[str]] = frozenset({"thumbnail"})

    def __post_init__(self) -> None:
        self.__dict__.update(
            id=_text(self.id, _ID),
            operation=_text(self.operation, _WORD),
            status_word=_text(self.status_word, _WORD),
            files=self.files[:MAX_FILES],
            progress=_number(self.progress, 1),
            created_at=_utc(self.created_at),
        )

    @property
    def urls(self) -> list[str]:
        """The URLs of what was asked for: without thumbnails and watermarked twins, unless that is all."""
        return [file.url for file in self._wanted]

    @property
    def _wanted(self) -> Sequence[MediaFile]:
        wanted = [file for file in self.files if file.kind not in self._SECONDARY and not file.watermarked]
        return wanted or self.files

    @property
    def file_ids(self) -> list[str]:
        """The provider's own names of the files behind `urls`, of those that have one."""
        return [file.id for file in self._wanted if file.id is not None]

    @property
    def video_id(self) -> str | None:
        """The first of `file_ids` that is a video's: what operations on a video that was made ask for."""
        return next((file.id for file in self._wanted if file.kind == "video" and file.id is not None), None)

    @property
    def url(self) -> str | None:
        """The first of `urls`, or None."""
        urls = self.urls
        return urls[0] if urls else None

    def to_dict(self) -> dict[str, Any]:
        """What XCom and a trigger's event carry: JSON values only, without `raw`."""
        return {
            "id": self.id,
            "operation": self.operation,
            "status": self.status.value,
            "status_word": self.status_word,
            "url": self.url,
            "urls": self.urls,
            "files": [file.to_dict() for file in self.files],
            "error": self.error.to_dict() if self.error else None,
            "cost": dict(self.cost.__dict__) if self.cost else None,
            "progress": self.progress,
            "created_at": _iso(self.created_at),
        }

    @classmethod
    def from_dict(cls, value: Any) -> MediaTask:
        """The task that `to_dict` described; keys that are not ours are ignored.

        An event crosses the metadata database and perhaps a version of this package, so it is checked:
        raises ValueError, naming what is wrong, rather than let half a result pass.
        """
        if not isinstance(value, Mapping):
            raise ValueError(f"a media task is a dict, got {type(value).__name__}")
        if not isinstance(value.get("id"), str) or not value["id"]:
            raise ValueError(f"a media task needs a text 'id', got the keys {sorted(map(str, value))}")
        try:
            status = TaskStatus(value.get("status"))
        except ValueError:
            allowed = ", ".join(s.value for s in TaskStatus)
            raise ValueError(f"status {shown(value.get('status'))} is none of {allowed}") from None
        files = value.get("files") or ()
        if not isinstance(files, (list, tuple)):
            raise ValueError(f"'files' of a media task is a list, got {type(files).__name__}")
        cost, error = _object(value, "cost"), _object(value, "error")
        return cls(
            id=value["id"],
            status=status,
            operation=value.get("operation") or "",
            status_word=value.get("status_word") or "",
            files=tuple(MediaFile.from_dict(file) for file in files[:MAX_FILES]),
            error=error_from_dict(error) if error else None,
            cost=MediaCost(cost.get("unit") or "", cost.get("amount"), cost.get("estimated"))
            if cost
            else None,
            progress=value.get("progress"),
            created_at=_time(value.get("created_at")),
        )


def shown(value: Any, limit: int = 80) -> str:
    """*value* for an error's text: quoted, on one line, at most *limit* characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def code_of(value: Any) -> str | None:
    """A provider's error code as text: at most 100 characters, none of which can forge a log line."""
    if value is None:
        return None
    return "".join(character if character.isprintable() else "?" for character in str(value)[:100])


def utc_from_epoch(seconds: Any) -> datetime | None:
    """UTC of a provider's unix *seconds* (number or numeric text); None for anything that is no time."""
    try:
        moment = float(seconds)
        return datetime.fromtimestamp(moment, timezone.utc) if math.isfinite(moment) else None
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _decimal(text: str | None) -> Decimal | None:
    try:
        number = Decimal(text or 0)
    except InvalidOperation:
        return None
    # One of a few characters, 1E+999999999, is a gigabyte when it is written out.
    return number if number.is_finite() and abs(number.as_tuple().exponent) <= 30 else None  # type: ignore[arg-type]  # a finite one's is a number


def _plain(amount: str) -> str:
    """*amount* for people: no exponent, and of the zeros at its end those of the cents."""
    number = _decimal(amount)
    if number is None:
        return amount
    short = number.normalize()
    return f"{number:.2f}" if "." in amount and short == round(short, 2) else f"{short:f}"


def _object(value: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    found = value.get(key)
    if found is not None and not isinstance(found, Mapping):
        raise ValueError(f"{key!r} of a media task is a dict, got {type(found).__name__}")
    return found


def _text(value: Any, limit: int) -> str:
    """*value* as a text that every encoder takes, of at most *limit* characters."""
    text = (value if isinstance(value, str) else str(value))[:limit]
    # Ten thousand waiting tasks are built like this every few seconds: most texts are good as they are.
    return text if text.isascii() and "\0" not in text else _UNFIT.sub("\ufffd", text)


def _optional_text(value: Any, limit: int) -> str | None:
    return None if value is None else _text(value, limit)


def _number(value: Any, most: float) -> float | None:
    """*value* if it is a number from 0 to *most*, else None; NaN is no number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    return None


def _pixels(value: Any) -> int | None:
    return int(_number(value, _PIXELS) or 0) or None


def _wait(seconds: Any) -> float | None:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not abs(seconds) < math.inf:
        return None
    return float(min(max(seconds, 0.0), MAX_RETRY_AFTER))


def _utc(moment: Any) -> datetime | None:
    """*moment* in UTC, in which one without a zone is meant; None for anything else."""
    if not isinstance(moment, datetime) or moment.tzinfo is timezone.utc:
        return moment if isinstance(moment, datetime) else None
    try:
        return (
            moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
        )
    except OverflowError:
        return None


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
