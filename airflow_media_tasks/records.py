"""The record of a paid submission: what is written down about it, and where.

It is an entry of Airflow's task state store, which outlives retries, deferrals and clears. The worker alone
writes it; but whoever may use Airflow's REST API can, too, so it is checked whenever it is read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import Context
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_media_tasks.task import MediaTask, MediaTaskError, shown


KEY = "media_task"
"""The record's key in the task state store; a batch has one for each request, `media_task.<number>`."""
PHASES = ("intent", "submitted", "finished", "adopted", "abandoned", "refused")

_TEXT_KEPT = 2000
_REFERENCE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_AMOUNT = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?")
_MOST = 1_000_000
"""Clears, and submissions between two of them, that a record can tell of."""
_OLDEST = datetime(2020, 1, 1, tzinfo=timezone.utc)
_CLOCKS_DISAGREE = timedelta(minutes=5)
"""By which a worker's clock may be ahead of the next one's; a record from further ahead is none of ours."""


@dataclass(frozen=True)
class Record:
    """What is written down about a task instance's submission; JSON scalars, no secret.

    :param phase: `intent`, `submitted`, `finished`; `adopted` (it is *media_task_id*, which also a clear goes
        on with); of a batch's request that was certainly not accepted, `refused`. `abandoned` (submit anew)
        is what a person wrote here before answers had entries of their own.
    :param generation: `max_tries` of the task instance: a clear raises it, a retry never does.
    :param number: how many submissions this generation has had, this one included.
    :param fingerprint: hash of connection, operation and arguments as rendered.
    :param client_ref: our name for the submission, which nobody can guess; sent along where the provider
        keeps one.
    :param submitted_after: ISO 8601, UTC; the intent's time.
    :param provider: connection type.
    :param arguments: as submitted, see `recordable`; for people to read, nothing is submitted from them.
    :param media_task_id: the provider's task, from `submitted` on.
    :param finished_at: ISO 8601, UTC; when we learned that it has ended.
    :param result: the task's dict, where it was complete in the submission's own reply and perhaps
        cannot be asked for again; in a batch, what became of the request.
    :param error: in a batch, why the request failed: the dict of a `MediaTaskError`.
    :param spent: in a batch with `max_cost`, what the request's ended submissions have cost: `{"amount",
        "unit"}`, the amount as decimal text.
    :param asked_at: ISO 8601, UTC; since when a person is asked what became of it, see `answers`.
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
    finished_at: str | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    spent: dict[str, Any] | None = None
    asked_at: str | None = None

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
            "asked_at": self.asked_at is None or _is_time(self.asked_at),
        }
        for name, is_good in good.items():
            if not is_good:
                raise ValueError(f"{name} cannot be {shown(getattr(self, name))} where it is {self.phase}")
        if has_task and self.phase in ("intent", "refused"):
            raise ValueError(f"it is {self.phase} with a media_task_id, {shown(self.media_task_id)}")
        if self.result is not None:
            MediaTask.from_dict(self.result)

    @classmethod
    def load(cls, context: Context, key: str = KEY) -> Record | None:
        """The record, or None if there is none. One that cannot be read is not an absent one.

        :raises MediaTaskError: if what is stored makes no sense; nothing may be submitted then.
        """
        stored: Any = context["task_state_store"].get(key)
        if stored is None:
            return None
        known = [field.name for field in dataclasses.fields(cls)]
        try:
            return cls(**{name: stored[name] for name in known if name in stored})
        except (TypeError, ValueError, OverflowError) as error:
            raise MediaTaskError(
                f"the record {key!r} in this task's state store cannot be read, so nothing is submitted: "
                f"{error}; it holds {shown(stored, 300)}"
            ) from error

    def save(self, context: Context, key: str = KEY) -> Record:
        """Writes the record, for ever; a worker that Airflow has replaced is refused here."""
        value = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        context["task_state_store"].set(key, value, retention=NEVER_EXPIRE)
        return self


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
    amount = value["amount"]
    unit = value["unit"]
    return (
        isinstance(amount, str)
        and _AMOUNT.fullmatch(amount) is not None
        and isinstance(unit, str)
        and 0 < len(unit) <= 1000
    )
