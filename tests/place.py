"""A task instance whose tries the tests of `submission.py` run, kill and repeat."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.material import materials
from airflow_media_tasks.material.materials import Materials
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submissions import answers, records, submission
from airflow_media_tasks.submissions.records import KEY, SUBMISSIONS, Entries, Record, generation_of
from airflow_media_tasks.submissions.submission import Submission, once
from airflow_media_tasks.task import MediaTask
from airflow_media_tasks.wire.conversations import ConversationHook


Connect = Callable[..., str]

OPERATION = {
    "vap": "text_to_video",
    "acedata": "veo/text_to_video",
    "kling": "text_to_video",
    "replicate": "text_to_video",
}
FROM_PICTURE = {
    "vap": "image_to_video",
    "acedata": "veo/image_to_video",
    "kling": "image_to_video",
    "replicate": "image_to_video",
    "fal": "image_to_video",
}
PROVIDERS = tuple(OPERATION)

log = logging.getLogger(__name__)


class Killed(BaseException):
    """The worker is gone."""


class Store:
    """A task state store in memory, and what can happen to the worker that writes to it.

    :param after_intent: called when an intent has been written and nothing has been sent yet.
    :param before_result: called when the provider has answered and nothing of it has been written yet.
    :param is_stale: Airflow has replaced this worker: it reads nothing and its writes are refused.
    """

    def __init__(self) -> None:
        self.value: Any = None
        self.answers: dict[str, Any] = {}
        self.after_intent: Callable[[], None] = lambda: None
        self.before_result: Callable[[], None] = lambda: None
        self.is_stale = False
        self.writes = 0

    def get(self, key: str) -> Any:
        """What was written, as JSON has it; a worker that was replaced is told that there is nothing."""
        if key != KEY:
            return self.answers.get(key)
        return None if self.is_stale else json.loads(json.dumps(self.value))

    def set(self, key: str, value: Any, *, retention: object = None) -> None:
        """Writes, and lets happen what is to happen."""
        assert retention is records.NEVER_EXPIRE
        if key.startswith(materials.KEY):
            self.answers[key] = json.loads(json.dumps(value))
            return
        assert key == KEY
        if value["phase"] != "intent":
            self.before_result()
        self._write(value)
        if value["phase"] == "intent" and "asked_at" not in value:
            self.after_intent()

    def delete(self, key: str) -> None:
        """Forgets the record."""
        assert key == KEY
        self._write(None)

    def _write(self, value: Any) -> None:
        if self.is_stale:
            raise AirflowRuntimeError(
                ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 404})
            )
        self.value = json.loads(json.dumps(value))
        self.writes += 1


class SharedStore(dict[str, Any]):
    """The state store of our asset, in memory."""

    def set(self, key: str, value: Any) -> None:
        """Keeps what JSON can keep."""
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        """Forgets the key, if it is there."""
        self.pop(key, None)


class Clock:
    """The submission's clock: it sleeps in no time, and takes the simulator's along."""

    def __init__(self, simulator: Simulator) -> None:
        self.slept = 0.0
        self._simulator = simulator
        self._lock = threading.Lock()

    @classmethod
    def instead_of_time(cls, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """What the submission takes for the time from now on; reads are repeated without a pause."""
        clock = cls(simulator)
        for module in (records, submission):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(ConversationHook, "retry_wait", 0.0)
        return clock

    def time(self) -> float:
        """Unix seconds."""
        return time.time() + self.slept

    def sleep(self, seconds: float) -> None:
        """Lets the time pass, here and at the provider."""
        with self._lock:
            self.slept += seconds
            self._simulator.advance(seconds)


class Place:
    """One task instance, whose tries can be run one after the other."""

    def __init__(self, conn_type: str, media_conn_id: str, map_index: int = -1) -> None:
        self.store = Store()
        self.media_conn_id = media_conn_id
        self.operation = OPERATION.get(conn_type) or FROM_PICTURE[conn_type]
        self.arguments: dict[str, Any] = {"prompt": "a fox [sim:queued=0] [sim:seconds=60]"}
        self.on_unknown = "stop"
        self.ti = SimpleNamespace(
            dag_id="films",
            run_id="manual__1",
            task_id="video",
            map_index=map_index,
            max_tries=1,
            try_number=1,
        )
        self.shared = SharedStore()
        self.more: dict[str, Any] = {}

    @property
    def context(self) -> Context:
        """What `Submission` uses of a context."""
        return cast(
            "Context",
            {
                "ti": self.ti,
                "task_state_store": self.store,
                "asset_state_store": {SUBMISSIONS: self.shared},
                **self.more,
            },
        )

    @property
    def record(self) -> Record | None:
        """What is written down."""
        return Entries(self.context).load()[0]

    def submission(self, **arguments: Any) -> Submission:
        """What one try wants to have submitted."""
        hook = get_media_hook(self.media_conn_id)
        name, checked = hook.check(self.operation, {**self.arguments, **arguments})
        own = Materials(hook, log, 60.0, self.store)
        own.look(name, checked)
        own.save()
        return Submission(hook, name, checked, generation_of(self.context), self.on_unknown, log, own)

    def run(self, **arguments: Any) -> MediaTask:
        """One try, up to where it would wait."""
        submission = self.submission(**arguments)
        assert submission.materials is not None
        with submission.materials:
            return once(submission, self.context)[1]

    def run_and_die(self, moment: str) -> None:
        """A try whose worker is killed at *moment*, a hook of `Store`."""
        setattr(self.store, moment, die)
        with pytest.raises(Killed):
            self.run()
        setattr(self.store, moment, lambda: None)

    def clear(self, *, keep: bool = True) -> None:
        """What Airflow does when somebody clears the task; without *keep*, as Airflow 3.4 does it."""
        self.ti.max_tries += 1
        self.ti.try_number += 1
        if not keep:
            self.store.value, self.store.answers = None, {}

    def decide(self, media_task_id: str | None = None) -> None:
        """What a person answers: the provider's task that it became, or None to submit anew."""
        record = self.store.value
        key = answers.key_of(answers.reference_of("failed", record, record["client_ref"]))
        answer = answers.answer(self.store.answers.get(key), record, media_task_id)
        self.store.answers[key] = json.loads(json.dumps(answer.to_dict()))

    def decide_in_the_record(self, **change: Any) -> None:
        """What a person's command wrote into the record before answers had entries of their own."""
        self.store.value.update(change)


def die() -> None:
    """Ends the worker."""
    raise Killed


def own_id(entry: dict[str, Any]) -> str:
    """The provider's id of a ledger's entry."""
    return str(entry["id"])
