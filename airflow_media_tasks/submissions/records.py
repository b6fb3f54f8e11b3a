"""What is written down of what is paid for, and where: the record of a submission and its two homes.

Airflow's task state store is the first home. It outlives retries and deferrals, and a worker that Airflow
has replaced cannot write it any more. Airflow 3.4 empties it when somebody clears the task. The second home
survives that: the state store of the asset `SUBMISSIONS`, an inlet of every operator that pays. It has no
such fence, so each try of a task has an entry of its own there, and a late worker can spoil only its own.

What is written goes to the first home, then to the second, and only then a request may be sent. The second
home is read only when the first is empty and this is not the first try.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import Asset, BaseOperator, Context
from airflow.sdk.definitions.mappedoperator import OperatorPartial
from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_media_tasks.task import MediaTask, MediaTaskError, shown


KEY = "media_task"
"""Of a task instance's entries in the state stores."""
SUBMISSIONS = Asset(name="airflow-media-tasks submissions", uri="media-tasks://submissions")
"""Whose state store is the second home. Neither its name nor its URI may ever change: Airflow would make one
of the two inactive, and fail every task that has it as an inlet."""

PAGE = 60
"""Records of a batch in one entry: as many as stay below 60 KiB, whatever ids a provider gives."""
KEY_LENGTH = 20
"""Hex digits of a fingerprint by which a batch knows a request."""
PHASES = ("intent", "submitted", "finished", "adopted", "abandoned", "refused")

_TEXT_KEPT = 2000
_REFERENCE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_AMOUNT = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?")
_MOST = 1_000_000
"""Clears, and submissions between two of them, that a record can tell of."""
_KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}(-[0-9]{{1,7}})?")
_OLDEST = datetime(2020, 1, 1, tzinfo=timezone.utc)
_CLOCKS_DISAGREE = timedelta(minutes=5)
"""By which a worker's clock may be ahead of the next one's; a record from further ahead is none of ours."""


@dataclass(frozen=True)
class Record:
    """What is written down about one submission; JSON values, no secret.

    :param phase: `intent`: it may have been sent. `submitted`: the provider has it as *media_task_id*.
        `finished`: it has ended, and what it made is where it is wanted. `adopted`: as `submitted`, and a
        clear goes on with it, too: it was paid for and not handed over, or a person said so.
        `refused`: certainly not accepted. `abandoned` is how earlier versions wrote down that a person had
        given it up.
    :param generation: `max_tries` of the task instance: a clear raises it, a retry never does.
    :param number: how many submissions this generation has had, this one included.
    :param fingerprint: hash of connection, operation and arguments as rendered; of a batch's request its
        beginning.
    :param client_ref: our name for the submission, which nobody can guess; sent along where the provider
        keeps one.
    :param submitted_after: ISO 8601, UTC; the intent's time.
    :param provider: connection type.
    :param arguments: as submitted, see `recordable`; for people to read, nothing is submitted from them.
    :param media_task_id: the provider's task, from `submitted` on.
    :param asked_at: ISO 8601, UTC; since when a person is asked what became of it, see `answers`.
    :param finished_at: ISO 8601, UTC; when we learned that it has ended.
    :param result: the task's dict, where it was complete in the submission's own reply and perhaps
        cannot be asked for again.
    :param error: how earlier versions wrote down why a batch's request failed.
    :param spent: what the ended submissions of a batch's request have cost: `{"amount", "unit"}`, the amount
        as decimal text.
    :param held: what the one under way may yet cost, decimal text, in the same unit.
    :param key: what a batch knows the request by.
    :param failure: class of the error with which a batch's request has ended.
    :param made: where a batch finds what became of the request.
    :param material: each file of one's own in *arguments*: `path`, `sha256`, `size` (bytes), `content_type`
        and the `way` by which it went; for people to read.
    :param traces: by which such a file, as it was handed over, is recognized in what the provider shows of
        the request, see `airflow_media_tasks.wire.materials.trace_of`; nobody can use them.
    """

    phase: str
    generation: int
    number: int
    fingerprint: str
    client_ref: str
    submitted_after: str
    media_conn_id: str
    operation: str
    provider: str | None = None
    arguments: dict[str, Any] | None = None
    media_task_id: str | None = None
    asked_at: str | None = None
    finished_at: str | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    spent: dict[str, Any] | None = None
    held: str | None = None
    key: str | None = None
    failure: str | None = None
    made: int | None = None
    material: list[dict[str, Any]] | None = None
    traces: list[str] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for what no worker of ours has written: over REST, others can write records.

        Every field is checked, and its range: what stands here decides about money and waiting.
        """
        has_task = self.media_task_id is not None
        good = {
            "phase": self.phase in PHASES,
            "generation": _is_count(self.generation, 0),
            "number": _is_count(self.number, 0 if self.phase == "refused" else 1),
            "fingerprint": _is_text(self.fingerprint, 128),
            "client_ref": _is_reference(self.client_ref) or (self.phase, self.client_ref) == ("refused", ""),
            "submitted_after": _is_time(self.submitted_after),
            "media_conn_id": _is_text(self.media_conn_id, 250),
            "operation": _is_text(self.operation, 250),
            "provider": self.provider is None or _is_text(self.provider, 250),
            "arguments": self.arguments is None or _is_object(self.arguments),
            "media_task_id": _is_text(self.media_task_id, 512)
            if has_task
            else self.phase in ("intent", "abandoned", "refused"),
            "finished_at": self.finished_at is None or _is_time(self.finished_at),
            "result": self.result is None
            or (_is_object(self.result) and has_task and self.result.get("id") == self.media_task_id),
            "error": self.error is None
            or (
                _is_object(self.error)
                and all(isinstance(self.error.get(name), str) for name in ("type", "message"))
            ),
            "spent": self.spent is None or _is_spent(self.spent),
            "held": self.held is None or _is_amount(self.held),
            "key": self.key is None or (_is_key(self.key)),
            "failure": self.failure is None or _is_text(self.failure, 100),
            "made": self.made is None or _is_count(self.made, 0),
            "asked_at": self.asked_at is None or _is_time(self.asked_at),
            "material": self.material is None or _is_list(self.material, _is_object),
            "traces": self.traces is None or _is_list(self.traces, _is_trace),
        }
        for name, is_good in good.items():
            if not is_good:
                raise ValueError(f"{name} cannot be {shown(getattr(self, name))} where it is {self.phase}")
        if has_task and self.phase in ("intent", "refused"):
            raise ValueError(f"it is {self.phase} with a media_task_id, {shown(self.media_task_id)}")
        if self.result is not None:
            MediaTask.from_dict(self.result)

    @classmethod
    def of(cls, stored: Any, name: str) -> Record:
        """The record in a *stored* value. One that cannot be read is not an absent one.

        :param name: of the entry, for the error's text.
        :raises MediaTaskError: if it makes no sense; nothing may be submitted then.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        try:
            return cls(**{name: stored[name] for name in known if name in stored})
        except (TypeError, ValueError, OverflowError) as error:
            raise MediaTaskError(
                f"the record {name!r} in this task's state store cannot be read, so nothing is submitted: "
                f"{error}; it holds {shown(stored, 300)}"
            ) from error

    def stored(self) -> dict[str, Any]:
        """What `of` reads."""
        return {name: value for name, value in vars(self).items() if value is not None}


NO_COPY = ("arguments", "result", "error", "material")
"""What of a record is not in the second home: prompts and URLs."""


def key_of(fingerprint: str, seen: Counter[str]) -> str:
    """What a batch knows a request by: the beginning of its *fingerprint*, and which of several equal ones.

    :param seen: how many of each there were before; counted on.
    """
    beginning = fingerprint[:KEY_LENGTH]
    before = seen[beginning]
    seen[beginning] += 1
    return f"{beginning}-{before}" if before else beginning


@dataclass(frozen=True)
class Place:
    """Which task instance this is, the same for all its tries.

    :param map_index: -1 where the task is not mapped.
    :param loop: the iteration of a task loop (Airflow 3.4), from 0, or None outside a loop.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    loop: int | None = None

    @classmethod
    def of(cls, context: Context) -> Place:
        """The place of the task instance that runs in *context*."""
        ti = context["ti"]
        loop: Any = context.get("loop")
        map_index = -1 if ti.map_index is None else int(ti.map_index)
        return cls(ti.dag_id, ti.run_id, ti.task_id, map_index, None if loop is None else int(loop.index))

    def named(self) -> dict[str, Any]:
        """As a document names it; `loop` only inside one."""
        return {name: value for name, value in self.__dict__.items() if name != "loop" or value is not None}


def generation_of(context: Context) -> int:
    """Which time this is that the task instance has to make something: a clear raises it, a retry never does.

    In a task loop a clear gives all iterations but the first new task instances, whose `max_tries` begins
    anew; what tells is how often the DAG run was cleared.
    """
    return int(context["ti"].max_tries) + _clears(context)


def _clears(context: Context) -> int:
    """How often the DAG run of a task instance in a loop was cleared; 0 outside a loop."""
    if Place.of(context).loop is None:
        return 0
    run: Any = context["dag_run"]
    return int(run.clear_number)


class KeepsRecords(BaseOperator):
    """An operator that pays: `SUBMISSIONS` is one of its inlets, also where it is mapped."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inlets = _with_submissions(self.inlets)

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """As of `BaseOperator`: what a constructor adds is not in the serialized DAG of a mapped task."""
        partial = super().partial(**kwargs)
        partial.kwargs["inlets"] = _with_submissions(partial.kwargs.get("inlets"))
        return partial


def _with_submissions(inlets: Sequence[Any] | None) -> list[Any]:
    return [*(inlets or ()), *([] if SUBMISSIONS in (inlets or ()) else [SUBMISSIONS])]


class Entries:
    """The entries of one task instance in both stores; used from the task's own thread alone.

    :raises MediaTaskError: if the task does not have `SUBMISSIONS` as an inlet.
    """

    def __init__(self, context: Context) -> None:
        ti = context["ti"]
        self._own = context["task_state_store"]
        self._now = (_clears(context), int(ti.try_number))
        self._most_tries = int(ti.max_tries) + 1
        place = json.dumps(list(Place.of(context).named().values()))
        self._copies = f"{KEY}.{hashlib.sha256(place.encode()).hexdigest()[:32]}"
        try:
            self._shared = context["asset_state_store"][SUBMISSIONS]
        except KeyError:
            raise MediaTaskError(
                f"the task {ti.task_id!r} does not have the asset {SUBMISSIONS.name!r} as an inlet, where a "
                "copy of its record is kept; an operator that replaces `inlets` must keep what is in it"
            ) from None

    def read(self, name: str) -> Any:
        """The first home's value, or None."""
        return self._own.get(name)

    def write(self, name: str, value: Any, copy: Any = None) -> None:
        """Writes *value* to the first home, for ever, then *copy*, if there is one, to the second.

        A worker that Airflow has replaced is refused by the first. What raises here has to keep the caller
        from sending.
        """
        self._own.set(name, value, retention=NEVER_EXPIRE)
        if copy is not None:
            self._to_shared(self._key(name, self._now), copy)

    def delete(self, name: str) -> None:
        """Removes what this try has in both homes under *name*."""
        self._own.delete(name)
        self._shared.delete(self._key(name, self._now))

    @property
    def is_first_try(self) -> bool:
        """Whether no other try was before this one."""
        return self._now == (0, 1)

    def earlier(self, name: str) -> Iterator[tuple[str, Any]]:
        """The second home's values of earlier tries, newest first, each with its try.

        :raises MediaTaskError: if the asset is not there: that is no proof that nothing was written.
        """
        if self.is_first_try:
            return
        # Airflow answers None for an asset that is missing or inactive; only a write tells.
        self._to_shared(f"{KEY}.known", True)
        yield from self.copies(name)

    def copies(self, name: str) -> Iterator[tuple[str, Any]]:
        """As `earlier`, once it is known that the asset is there."""
        clears, this = self._now
        tries = [(clears, number) for number in range(this - 1, 0, -1)]
        for before in range(clears - 1, -1, -1):
            tries += [(before, number) for number in range(self._most_tries, 0, -1)]
        for one in tries:
            value = self._shared.get(self._key(name, one))
            if value is not None:
                yield _named(one), value

    def key_of_copy(self, name: str) -> str:
        """Under which key this try's copy of the entry *name* is in the second home."""
        return self._key(name, self._now)

    def _key(self, name: str, one: tuple[int, int]) -> str:
        return f"{self._copies}.{_named(one)}{name.removeprefix(KEY)}"

    def _to_shared(self, key: str, value: Any) -> None:
        try:
            self._shared.set(key, value)
        except AirflowRuntimeError as error:
            raise MediaTaskError(
                f"the asset {SUBMISSIONS.name!r}, where a copy of the record is kept, cannot be written, so "
                f"nothing is sent: {error}. It comes into being when the DAG processor reads a DAG with an "
                "operator of this package: restart all of Airflow after an upgrade, and keep the asset",
                code="no_asset",
            ) from error

    # What has landed, for whoever hands it to a provider.

    def note_landed(self, path: str, sha256: str) -> None:
        """Notes, for the tasks of all DAGs, that one of ours has landed a file with this hash at *path*."""
        self._to_shared(_landed_at(path), sha256)

    def landed(self, path: str) -> str | None:
        """The hash of what one of our tasks has landed at *path*, by its own word; None if none has.

        Whoever may write the state of assets can write that, too: but not of a file that he does not know.
        """
        noted = self._shared.get(_landed_at(path))
        return noted if isinstance(noted, str) else None

    # The one record of a task that submits one thing.

    def load(self) -> tuple[Record | None, str | None]:
        """The record and, where a clear has emptied the first home, the try that wrote its copy.

        :raises MediaTaskError: if there is one that cannot be read, or nobody can tell whether there is one.
        """
        stored = self.read(KEY)
        if stored is not None:
            return Record.of(stored, KEY), None
        for number, copy in self.earlier(KEY):
            return Record.of(copy, KEY), number
        return None, None

    def save(self, record: Record) -> Record:
        """Writes the record to both homes."""
        stored = record.stored()
        self.write(KEY, stored, {name: value for name, value in stored.items() if name not in NO_COPY})
        return record


def _named(one: tuple[int, int]) -> str:
    """A try, as the key of its copies has it: its number and, in a loop, how many clears were before it."""
    clears, number = one
    return f"{number}c{clears}" if clears else str(number)


def _landed_at(path: str) -> str:
    return f"{KEY}.landed.{hashlib.sha256(path.encode()).hexdigest()[:32]}"


def fingerprint(media_conn_id: str, operation: str, arguments: Mapping[str, Any]) -> str:
    """Hash of a request: two tries with the same one ask for the same thing."""
    request = json.dumps([media_conn_id, operation, arguments], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(request.encode()).hexdigest()


def recordable(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """*arguments* for people to read: a text of over 2,000 characters becomes its beginning and its length.

    A picture given in base64 belongs neither in the metadata database nor beside a file.
    """

    def short(value: Any) -> Any:
        if isinstance(value, str) and len(value) > _TEXT_KEPT:
            return f"{value[:200]}... ({len(value)} characters)"
        if isinstance(value, Mapping):
            return {name: short(part) for name, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [short(part) for part in value]
        return value

    return {name: short(value) for name, value in arguments.items()}


def new_reference() -> str:
    """Our name for a submission that is about to be made; who knows the others does not know this one."""
    return f"amt-{secrets.token_hex(16)}"


def threads(most: int) -> int:
    """How many threads, of *most*, may ask Airflow at once, for records or connections.

    A worker's channel to its supervisor has a lock. Under `dag.test()` there is none: Airflow takes the
    channel away while it answers on it (`set_supervisor_comms` in 3.3.2), from whoever asks meanwhile.
    """
    from airflow.sdk.execution_time.supervisor import (  # noqa: PLC0415  # a DAG's file need not read it
        InProcessSupervisorComms,
    )

    channel = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return 1 if isinstance(channel, InProcessSupervisorComms) else most


def asked(record: Record) -> Record:
    """*record*, from now on asking a person what became of it."""
    return dataclasses.replace(record, asked_at=now().isoformat())


def now() -> datetime:
    """The present time, UTC."""
    return datetime.fromtimestamp(time.time(), timezone.utc)


def moment_of(record: Record) -> float:
    """When it was submitted, in unix seconds by our clock; never in the future."""
    return min(datetime.fromisoformat(record.submitted_after).timestamp(), time.time())


def _is_text(value: Any, most: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= most and value.isprintable()


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def _is_list(value: Any, is_one: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(is_one(item) for item in value)


def _is_trace(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 200 and value.isascii() and value.isprintable()


def _is_key(value: Any) -> bool:
    return isinstance(value, str) and _KEY.fullmatch(value) is not None


def _is_count(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= _MOST


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _is_time(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > 40:
        return False
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return False
    if moment.tzinfo is None:
        return False
    return _OLDEST <= moment <= now() + _CLOCKS_DISAGREE


def _is_spent(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"amount", "unit"}:
        return False
    unit = value["unit"]
    return _is_amount(value["amount"]) and isinstance(unit, str) and 0 < len(unit) <= 1000


def _is_amount(value: Any) -> bool:
    return isinstance(value, str) and _AMOUNT.fullmatch(value) is not None
