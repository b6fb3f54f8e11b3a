"""The requests of a batch: all of them checked before the first is sent, each known by its content."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow.sdk import ObjectStoragePath

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.material.materials import Materials
from airflow_media_tasks.submissions import costs
from airflow_media_tasks.submissions.records import KEY_LENGTH, Record, fingerprint, key_of, recordable
from airflow_media_tasks.task import (
    MediaFundsError,
    MediaProviderError,
    MediaRequestError,
    MediaTaskError,
    TaskStatus,
    error_class,
    shown,
)


_OF_ANOTHER_KIND = "; a table of another kind (CSV, Parquet) is made a list of dicts in a task before"
_NAMED = 10
"""URLs, paths and bad requests that are named, where there may be thousands."""


@dataclass(frozen=True)
class Request:
    """One request of a batch, as checked.

    :param number: its place in the batch, from 0.
    :param key: what it is known by, wherever it stands: the beginning of its fingerprint, and of the second,
        third, ... equal one `-1`, `-2`, ...
    :param error: why it cannot be sent; its operation and arguments are then as far as they can be told.
    """

    number: int
    key: str
    operation: str
    arguments: dict[str, Any]
    error: MediaTaskError | None = None


class Requests:
    """A batch's requests, read again whenever they are gone through: no worker has to hold them all.

    :param materials: what is known of the files of one's own in them.
    :param given: dicts of arguments, or the path of a file with one JSON object a line.
    :param operation: for requests that name none.
    :param defaults: arguments for requests that do not give them, a dict or None.
    :param keep_bad: whether one that cannot be sent is a request with an `error`; else it is one for all.
    :raises MediaRequestError: if *given* or *defaults* is of another kind.
    """

    def __init__(
        self,
        hook: MediaHook,
        materials: Materials,
        given: Any,
        operation: str | None,
        defaults: Any,
        *,
        keep_bad: bool = False,
    ) -> None:
        if not isinstance(given, (str, Sequence)) or not given:
            raise MediaRequestError(
                "requests must be a list of dicts of arguments, or the path of a file with one JSON object a "
                f"line, and not be empty; got {shown(given)}"
            )
        if not isinstance(defaults or {}, Mapping):
            raise MediaRequestError(f"arguments must be a dict of name to value, got {shown(defaults)}")
        self._hook, self._given, self._operation, self._defaults = hook, given, operation, defaults or {}
        self._keep_bad, self._materials = keep_bad, materials
        self._cursor: tuple[int, Iterator[tuple[int, str, Any]]] = (0, iter(()))

    def checked(self, most: int | None, also: Callable[[str, Mapping[str, Any]], None]) -> list[str]:
        """The keys of all requests, in order.

        :param most: how many there may be, or None.
        :param also: called with each request's operation and arguments; what it raises counts as of that one.
        :raises MediaFundsError: if there are more.
        :raises MediaRequestError: naming the requests that cannot be sent, and why.
        """
        keys: list[str] = []
        bad: list[str] = []
        seen: Counter[str] = Counter()
        number = -1
        for number, where, one in self._rows():
            if most is not None and number >= most:
                count = number + 1 + sum(1 for _ in self._rows(number + 1))
                raise MediaFundsError(
                    f"requests: there are {count}, and max_items allows {most}; nothing was submitted",
                    code="max_items",
                )
            request = self._request(number, where, one)
            try:
                if request.error is None:
                    also(request.operation, request.arguments)
                elif not self._keep_bad:
                    raise request.error
            except MediaTaskError as error:
                bad.append(error.message if error is request.error else f"{where}: {error.message}")
            else:
                keys.append(key_of(request.key, seen))
        if number < 0:
            raise MediaRequestError(f"requests: {shown(self._given)} holds no request; nothing was submitted")
        if bad:
            more = f"\n... and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            raise MediaRequestError(
                f"{len(bad)} of {number + 1} requests cannot be sent, so nothing was submitted:\n"
                + "\n".join(bad[:_NAMED])
                + more
            )
        return keys

    def some(self, wanted: Mapping[int, str]) -> Iterator[Request]:
        """The requests with these numbers, in order.

        :param wanted: the key of each number, as `checked` gave it.
        :raises MediaRequestError: if one of them is not what it was then.
        """
        if not wanted:
            return
        for number in sorted(wanted):
            where, one = self._row(number)
            request = self._request(number, where, one)
            if not wanted[number].startswith(request.key):
                raise MediaRequestError(
                    f"{where} has changed since the batch began; nothing more is submitted"
                )
            yield dataclasses.replace(request, key=wanted[number])

    def _row(self, wanted: int) -> tuple[str, Any]:
        """Place and content of one row; a file is read on from where it was left, if that is before it."""
        at, rows = self._cursor
        if not at or at > wanted:
            rows = self._rows(wanted)
        for number, where, one in rows:
            if number == wanted:
                self._cursor = (number + 1, rows)
                return where, one
        raise MediaRequestError(f"request {wanted} has gone since the batch began; nothing more is submitted")

    def _request(self, number: int, where: str, one: Any) -> Request:
        """A row as it is sent, or with the reason why it cannot be; its key is that of the first of its kind.

        A bad row is known by its place: its content may be nothing that can be compared.
        """
        try:
            name, arguments = self._hook.check(*self._asked_for(one))
            self._materials.look(name, arguments)
        except MediaTaskError as error:
            if error.code == "storage":
                # It is no fault of the row's.
                raise
            why = MediaRequestError(f"{where}: {error.message}", provider=error.provider, code=error.code)
            name, arguments = self._as_far_as_told(one)
            return Request(number, self._key("", {"place": where}), name, arguments, why)
        return Request(number, self._key(name, arguments), name, arguments)

    def _asked_for(self, one: Any) -> tuple[str, dict[str, Any]]:
        if isinstance(one, MediaRequestError):
            raise one
        if not isinstance(one, Mapping):
            raise MediaRequestError(f"a request is a dict of arguments, got {shown(one)}")
        arguments = {**self._defaults, **one}
        name = arguments.pop("operation", None) or self._operation
        if not isinstance(name, str):
            raise MediaRequestError("no operation is named, neither by it nor for all")
        return name, arguments

    def _as_far_as_told(self, one: Any) -> tuple[str, dict[str, Any]]:
        """Operation and arguments of a row that is none, for people to read."""
        try:
            name, arguments = self._asked_for(one)
        except MediaRequestError:
            name, arguments = self._operation or "", dict(one) if isinstance(one, Mapping) else {}
        try:
            json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError):
            arguments = {}
        return shown(name, 100) if name not in self._hook.operations else name, arguments

    def _key(self, name: str, arguments: Mapping[str, Any]) -> str:
        known = self._materials.identified(arguments) if name else arguments
        return fingerprint(self._hook.media_conn_id, name, known)[:KEY_LENGTH]

    def _rows(self, first: int = 0) -> Iterator[tuple[int, str, Any]]:
        """Number, place in words, and what stands there, from number *first* on; or what is wrong with it."""
        if isinstance(self._given, str):
            yield from _lines(self._given, first)
            return
        for number, one in enumerate(itertools.islice(self._given, first, None), first):
            yield number, f"request {number} of {len(self._given)}", one


def _lines(path: str, first: int) -> Iterator[tuple[int, str, Any]]:
    """The JSON values of a file, one a line; empty lines are passed over."""
    number = 0
    try:
        with ObjectStoragePath(path).open("r", encoding="utf-8") as lines:
            for line_number, line in enumerate(lines, 1):
                # Spreadsheets write a byte order mark, and files put one behind the other keep each its own.
                text = line.strip("\ufeff \t\r\n")
                if not text:
                    continue
                if number >= first:
                    where = f"line {line_number} of {shown(path)}"
                    try:
                        one = json.loads(text)
                    except (ValueError, RecursionError) as error:
                        one = MediaRequestError(f"it is no JSON object: {error}{_OF_ANOTHER_KIND}")
                    yield number, where, one
                number += 1
    except MediaTaskError:
        raise
    except Exception as error:
        # fsspec lets each store raise errors of its own.
        raise MediaRequestError(
            f"requests: {shown(path)} cannot be read: {type(error).__name__}: {error}"
        ) from error


def line_of(
    request: Request, record: Record | None, made: Mapping[str, Any], stopped_by: MediaTaskError | None
) -> dict[str, Any]:
    """What the results say of a request: a line of JSON.

    :param record: of its submission, or None if there was none.
    :param made: what became of it, `{"result", "error"}`.
    :param stopped_by: what ended the batch before it was submitted, or None.
    """
    result, error = made.get("result") or {}, made.get("error")
    if request.error is not None:
        error = request.error.to_dict()
    elif record is None:
        stop = stopped_by or MediaProviderError("it was not submitted")
        error = {**stop.to_dict(), "media_task_id": None}
    elif error is None and record.failure is not None:
        lost = error_class(record.failure)("it failed before a clear, which has discarded the reason")
        error = {**lost.to_dict(), "media_task_id": record.media_task_id}
    return {
        "number": request.number,
        "key": request.key,
        "operation": request.operation,
        "arguments": recordable(request.arguments),
        **({"material": result["material"]} if result.get("material") else {}),
        "status": result.get("status") or ("not submitted" if record is None else record.phase),
        "media_task_id": None if record is None else record.media_task_id,
        "url": result.get("url"),
        "urls": result.get("urls") or [],
        "files": result.get("files") or [],
        "cost": result.get("cost"),
        "error": error,
        "submitted_at": record.submitted_after if record is not None and record.client_ref else None,
        "finished_at": None if record is None else record.finished_at,
    }


class Summary:
    """What the manifest says of all lines of the results together."""

    def __init__(self) -> None:
        self._hash, self._size = hashlib.sha256(), 0
        self._total = self._submitted = self._succeeded = 0
        self._errors: Counter[str] = Counter()
        self._operations: set[str] = set()
        self._accepted: set[str] = set()
        self._urls: list[str] = []
        self._paths: list[str] = []
        self._cost, self._estimated, self._money = costs.Sums(), costs.Sums(), costs.Sums()

    def add(self, line: Mapping[str, Any]) -> str:
        """One more line; its text in the file of results."""
        text = json.dumps(line, ensure_ascii=False) + "\n"
        content = text.encode()
        self._hash.update(content)
        self._size += len(content)
        self._total += 1
        self._operations.add(line["operation"])
        if line["media_task_id"] is not None:
            self._submitted += 1
            self._accepted.add(line["operation"])
        self._cost.add(line["cost"])
        if line["status"] == TaskStatus.SUCCEEDED.value:
            self._estimated.add(costs.estimate_of(line["cost"]))
        self._money.add((line["cost"] or {}).get("money"))
        if line["error"] is not None:
            self._errors[line["error"]["type"]] += 1
            return text
        self._succeeded += 1
        self._urls += line["urls"][: _NAMED - len(self._urls)]
        paths = [file["path"] for file in line["files"] if file.get("path")]
        self._paths += paths[: _NAMED - len(self._paths)]
        return text

    def told(self) -> dict[str, Any]:
        """All together."""
        # A row that cannot be sent may name anything.
        operations = self._accepted or self._operations
        return {
            # By these the gallery knows the file of results again, wherever others may write to it.
            "results_sha256": self._hash.hexdigest(),
            "results_size": self._size,
            "total": self._total,
            "submitted": self._submitted,
            "succeeded": self._succeeded,
            "failed": self._total - self._succeeded,
            "errors": dict(self._errors),
            "cost": self._cost.told(),
            "estimated": self._estimated.told(),
            "money": self._money.told(),
            "operation": operations.pop() if len(operations) == 1 else None,
            "urls": self._urls,
            "paths": self._paths,
        }
