"""What the page reads, and the only form in which it is read: XComs, records and lines of a batch's results.

All of them are what somebody's task or a user of Airflow's API has written, so any JSON of any size can be in
them. What does not fit is `Unreadable`: one card says so, and the others are as they were.
"""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import from_json


ITEM_BYTES = 512 * 1024
"""Of an XCom, a record or a line: a file takes about 700, and long arguments are kept by their beginning."""
DEPTH = 32
"""Levels of arguments."""
FILES = 1000
"""Files of one task."""
AMOUNT = Decimal(10) ** 15
PLACES = 30
"""Digits behind the point."""


class Unreadable(ValueError):
    """What was written is not what this package writes; the text says what is wrong with it."""


def _utc(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        return zoned.astimezone(timezone.utc).isoformat()
    except OverflowError as error:
        raise ValueError("no moment that a calendar has") from error


def _amount(text: str) -> str:
    try:
        amount = Decimal(text)
    except InvalidOperation as error:
        raise ValueError("no decimal number") from error
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -PLACES or not 0 <= amount <= AMOUNT:
        raise ValueError("no amount that something costs")
    return text


def _shallow(arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
    level: list[Any] = [arguments]
    for _ in range(DEPTH):
        parts = [part.values() if isinstance(part, dict) else part for part in level]
        level = [one for part in parts for one in part if isinstance(one, (dict, list))]
        if not level:
            return arguments
    raise ValueError(f"more than {DEPTH} levels")


Moment = Annotated[str, Field(max_length=64), AfterValidator(_utc)]
"""ISO 8601; as it is read, in UTC."""
Amount = Annotated[str, Field(max_length=64), AfterValidator(_amount)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Measure = Annotated[float, Field(ge=0, le=10**15)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Path = Annotated[str, Field(max_length=4096)]
Arguments = Annotated[dict[str, JsonValue], AfterValidator(_shallow)]


class _Written(BaseModel):
    """Of the right types, without conversions; keys that nobody here knows are left out."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


class File(_Written):
    """A file that was made; with `path`, one that has landed."""

    kind: str
    url: str | None = None
    content_type: str | None = None
    width: Measure | None = None
    height: Measure | None = None
    duration: Measure | None = None
    watermarked: bool | None = None
    access: str | None = None
    expires_at: Moment | None = None
    path: Path | None = None
    size: Measure | None = None
    sha256: Sha256 | None = None
    ends_sha256: Sha256 | None = None
    checked: str | None = None
    """Why nobody has decoded it to see that it is whole, where that is so."""


class Cost(_Written):
    """In the provider's unit."""

    unit: Annotated[str, Field(max_length=40)]
    amount: Amount | None = None
    estimated: Amount | None = None


Sums = Annotated[list[Cost], Field(max_length=20)]


class Candidate(_Written):
    """A task of the account that an unknown submission could have become."""

    id: str
    created_at: str | None = None
    status: str | None = None
    prompt: str | None = None


class Error(_Written):
    """What a task failed with: XCom `media_error`, or of a line."""

    type: str = "MediaTaskError"
    message: str = ""
    code: str | None = None
    candidates: Annotated[list[Candidate], Field(max_length=100)] = []


class Result(_Written):
    """What an operator of ours returned."""

    media_conn_id: str
    files: Annotated[list[File], Field(max_length=FILES)]
    id: str | None = None
    provider: str | None = None
    operation: str | None = None
    model: str | None = None
    arguments: Arguments | None = None
    cost: Cost | None = None
    submitted_at: Moment | None = None
    finished_at: Moment | None = None


class Landed(_Written):
    """Files that have landed: of what a task or a download returned, or of a line."""

    files: Annotated[list[File], Field(max_length=FILES)]


class Urls(_Written):
    """XCom `urls`: the provider's addresses of what was made, whether or not it has landed since."""

    urls: Annotated[list[str], Field(max_length=FILES)]


class Manifest(_Written):
    """What a batch returned, or XCom `media_batch` of one that failed."""

    results: Path
    total: Count
    succeeded: Count = 0
    failed: Count = 0
    submitted: Count | None = None
    errors: dict[str, Count] = {}
    cost: Sums = []
    estimated: Sums = []
    provider: str | None = None
    operation: str | None = None
    media_conn_id: str | None = None
    results_sha256: Sha256 | None = None
    results_size: Count | None = None


class Progress(_Written):
    """The entry of the task state store that says where a batch stands."""

    total: Count
    waiting: Count
    succeeded: Count
    failed: Count
    cost: Sums = []
    estimated: Sums = []
    provider: str | None = None
    media_conn_id: str | None = None


class Line(_Written):
    """A line of a batch's results: what became of one request."""

    number: Count
    operation: str | None = None
    arguments: Arguments | None = None
    media_task_id: str | None = None
    files: Annotated[list[File], Field(max_length=FILES)] | None = None
    cost: Cost | None = None
    error: Error | None = None
    submitted_at: Moment | None = None
    finished_at: Moment | None = None


class Record(_Written):
    """A submission's record in the task state store, as far as the page shows it."""

    phase: str | None = None
    client_ref: str | None = None
    provider: str | None = None
    operation: str | None = None
    media_conn_id: str | None = None
    media_task_id: str | None = None
    submitted_after: Moment | None = None
    arguments: Arguments | None = None


Written = TypeVar("Written", bound=_Written)


def json_of(body: bytes) -> Any:
    """The JSON in *body*. Raises Unreadable if it is too large, too deep or none."""
    if len(body) > ITEM_BYTES:
        raise Unreadable(too_large(len(body)))
    try:
        return from_json(body)
    except ValueError as error:
        raise Unreadable(f"no JSON that a browser reads: {error}"[:200]) from error


def read(form: type[Written], value: Any) -> Written:
    """*value* in this form. Raises Unreadable, with the name of what does not fit."""
    try:
        return form.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        raise Unreadable(f"{where or 'all of it'}: {first['msg']}"[:200]) from error


def too_large(size: int) -> str:
    """What is wrong with what has *size* bytes."""
    return f"it has {size} bytes, and at most {ITEM_BYTES} are read"
