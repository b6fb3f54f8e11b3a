"""The requests of a batch: all of them checked before the first is sent, and what is told of each."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow.sdk import ObjectStoragePath

from airflow_media_tasks import costs
from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.records import KEY, Record, recordable
from airflow_media_tasks.task import (
    MediaFundsError,
    MediaProviderError,
    MediaRequestError,
    MediaTaskError,
    shown,
)


_NAMED = 10
"""URLs and paths in a manifest, which must stay small."""


@dataclass(frozen=True)
class Request:
    """One request of a batch, as checked.

    :param number: its place in the batch, from 0.
    """

    number: int
    operation: str
    arguments: dict[str, Any]

    @property
    def key(self) -> str:
        """Of its record in the task state store."""
        return f"{KEY}.{self.number}"


def checked(
    hook: MediaHook, given: Any, operation: str | None, defaults: Any, most: int | None
) -> list[Request]:
    """The requests in *given*: dicts of arguments, or the path of a file with one JSON object a line.

    :param operation: for requests that name none.
    :param defaults: arguments for requests that do not give them, a dict or None.
    :param most: how many there may be, or None.
    :raises MediaFundsError: if there are more.
    :raises MediaRequestError: naming the request that cannot be sent, and why.
    """
    requests = _read(given) if isinstance(given, str) else given
    if not isinstance(requests, Sequence) or not requests:
        raise MediaRequestError(
            "requests must be a list of dicts of arguments, or the path of a file with one JSON object a "
            f"line, and not be empty; got {shown(requests)}"
        )
    if most is not None and len(requests) > most:
        raise MediaFundsError(
            f"requests: there are {len(requests)}, and max_items allows {most}; nothing was submitted",
            code="max_items",
        )
    if not isinstance(defaults or {}, Mapping):
        raise MediaRequestError(f"arguments must be a dict of name to value, got {shown(defaults)}")
    found = []
    for number, one in enumerate(requests):
        try:
            if not isinstance(one, Mapping):
                raise MediaRequestError(f"a request is a dict of arguments, got {shown(one)}")
            arguments = {**(defaults or {}), **one}
            name = arguments.pop("operation", None) or operation
            if not isinstance(name, str):
                raise MediaRequestError("no operation is named, neither by it nor for all")
            found.append(Request(number, *hook.check(name, arguments)))
        except MediaTaskError as error:
            raise MediaRequestError(
                f"request {number} of {len(requests)}: {error.message}; nothing was submitted",
                provider=error.provider,
                code=error.code,
            ) from error
    return found


def _read(path: str) -> list[Any]:
    """The JSON objects of a file, one a line; empty lines are passed over."""
    found = []
    try:
        with ObjectStoragePath(path).open("r", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                # Spreadsheets write a byte order mark, and files put one behind the other keep each its own.
                if text := line.strip("\ufeff \t\r\n"):
                    try:
                        found.append(json.loads(text))
                    except ValueError as error:
                        raise MediaRequestError(
                            f"requests: line {number} of {shown(path)} is no JSON object: {error}"
                        ) from None
    except MediaTaskError:
        raise
    except Exception as error:
        # fsspec lets each store raise errors of its own.
        raise MediaRequestError(
            f"requests: {shown(path)} cannot be read: {type(error).__name__}: {error}"
        ) from error
    return found


@dataclass
class State:
    """Where a batch stands; `MediaBatchTrigger` carries it from one worker to the next.

    :param left: numbers of the requests that are yet to be submitted.
    :param waiting: see `MediaBatchTrigger`.
    """

    left: list[int] = field(default_factory=list)
    waiting: list[list[Any]] = field(default_factory=list)
    refused_since: float | None = None
    refusals: int = 0

    @classmethod
    def of_event(cls, event: Any) -> State:
        """The state that the trigger hands on. Raises MediaProviderError for an event of another kind."""
        if not isinstance(event, Mapping) or not all(
            isinstance(event.get(name), list) for name in ("left", "waiting", "ended")
        ):
            raise MediaProviderError(f"the trigger's event is no state of a batch: {shown(event, 200)}")
        return cls(event["left"], event["waiting"], event.get("refused_since"), event.get("refusals") or 0)


def line_of(request: Request, record: Record | None, stopped_by: MediaTaskError | None) -> dict[str, Any]:
    """What the results say of a request: a line of JSON.

    :param record: of its submission, or None if there was none.
    :param stopped_by: what ended the batch before it was submitted, or None.
    """
    if record is None:
        stop = stopped_by or MediaProviderError("it was not submitted")
        return {**_NOTHING, **_asked(request), "error": {**stop.to_dict(), "media_task_id": None}}
    result = record.result or {}
    return {
        **_asked(request),
        "status": result.get("status") or record.phase,
        "media_task_id": record.media_task_id,
        "url": result.get("url"),
        "urls": result.get("urls") or [],
        "files": result.get("files") or [],
        "cost": result.get("cost"),
        "error": record.error,
        "submitted_at": record.submitted_after if record.client_ref else None,
        "finished_at": record.finished_at,
    }


def _asked(request: Request) -> dict[str, Any]:
    return {
        "number": request.number,
        "operation": request.operation,
        "arguments": recordable(request.arguments),
    }


_NOTHING: dict[str, Any] = {
    "status": "not submitted",
    "media_task_id": None,
    "url": None,
    "urls": [],
    "files": [],
    "cost": None,
    "submitted_at": None,
    "finished_at": None,
}


def text_of(lines: Sequence[Mapping[str, Any]]) -> str:
    """The file of results: a line of JSON for each."""
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def summary_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the manifest says of all *lines* together."""
    content = text_of(lines).encode()
    good = [line for line in lines if line["error"] is None]
    bad = [line for line in lines if line["error"] is not None]
    operations = {line["operation"] for line in lines}
    paths = [file["path"] for line in good for file in line["files"] if file.get("path")]
    return {
        # By these the gallery knows the file of results again, wherever others may write to it.
        "results_sha256": hashlib.sha256(content).hexdigest(),
        "results_size": len(content),
        "total": len(lines),
        "submitted": sum(line["media_task_id"] is not None for line in lines),
        "succeeded": len(good),
        "failed": len(bad),
        "errors": dict(Counter(line["error"]["type"] for line in bad)),
        "cost": costs.sums(line["cost"] for line in lines),
        "money": costs.sums_of_money(line["cost"] for line in lines),
        "operation": operations.pop() if len(operations) == 1 else None,
        "urls": [url for line in good for url in line["urls"]][:_NAMED],
        "paths": paths[:_NAMED],
    }
