"""One generation that is paid once, and held against the provider's table: `doctor --pay`.

What is about to be sent is written into a file first, as operators write it into Airflow's state store: a
trial that was interrupted goes on with the generation that it has, or finds out whether there is one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

from airflow.sdk import Context

from airflow_media_tasks.doctor import Examination, Question
from airflow_media_tasks.submissions.records import SUBMISSIONS, Entries, Record, moment_of
from airflow_media_tasks.submissions.submission import HOPELESS, STOP, Submission, finish, once
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFundsError,
    MediaNotFoundError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    SubmissionOutcomeUnknown,
    shown,
)
from airflow_media_tasks.wire.prices import Prices


LOOK = 5.0
"""Seconds between two looks at the generation, and two lines that say so."""
LONGEST = 3600.0
"""Seconds after its submission until which it is looked at."""
APPEARS = 60.0
"""Seconds after its submission within which the provider may not know it yet."""


class NotConfirmed(Exception):
    """A person did not want to pay."""


class StateFile:
    """What Airflow's state store is to an operator, in a file; written as a whole or not at all.

    :param path: of the file; its folder must be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str) -> Any:
        """What was written, or None."""
        return self._read().get(key)

    def set(self, key: str, value: Any, retention: object = None) -> None:  # noqa: ARG002  # the store's signature
        """Writes *value*, for ever, before it returns."""
        self._write({**self._read(), key: value})

    def delete(self, key: str) -> None:
        """Removes the entry, if there is one."""
        self._write({name: value for name, value in self._read().items() if name != key})

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps others out, who would not see what is about to be written."""
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MediaTaskError(f"another one is under way in {self.path.parent}") from None
            yield
        finally:
            os.close(folder)

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise MediaTaskError(f"{self.path} cannot be read, so nothing is sent: {error}") from None
        if not isinstance(entries, dict):
            raise MediaTaskError(f"{self.path} holds no record, so nothing is sent; move it away")
        return entries

    def _write(self, entries: dict[str, Any]) -> None:
        beside = self.path.with_name(f".{self.path.name}.new")
        try:
            with beside.open("w") as file:
                json.dump(entries, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        except OSError as error:
            raise MediaTaskError(f"{self.path} cannot be written, so nothing is sent: {error}") from error


class Trial:
    """The cheapest generation of a provider, made once.

    :param examination: of the account, which has been asked what is free.
    :param folder: where the record is kept, in a file that is named after the connection.
    :param confirm: asked before anything is paid; whether a person agrees to the sentence that it gets.
    :param say: told how it goes, a line each.
    :raises MediaRequestError: if the hook does not say what is cheapest, or the connection is wrong.
    """

    def __init__(
        self,
        examination: Examination,
        folder: Path,
        confirm: Callable[[str], bool],
        say: Callable[[str], None],
    ) -> None:
        self._examination = examination
        self._hook = hook = examination.hook
        if hook.cheapest is None:
            raise MediaRequestError(f"{type(hook).__name__} does not say what is cheapest (`cheapest`)")
        self._name, self._arguments = hook.check(*hook.cheapest)
        self._confirm = confirm
        self._say = say
        self._store = StateFile(folder / f"media-tasks-doctor-{quote(hook.media_conn_id, safe='')}.json")
        one_try = {"map_index": -1, "max_tries": 0, "try_number": 1}
        ti = SimpleNamespace(dag_id="media-tasks", run_id="doctor", task_id=hook.media_conn_id, **one_try)
        stores = {"task_state_store": self._store, "asset_state_store": {SUBMISSIONS: self._store}}
        self._context = cast("Context", {"ti": ti, **stores})

    def run(self) -> None:
        """Makes it, or goes on with the one that there is, and looks at it until it ends.

        :raises MediaTaskError: if it cannot be made: no money, or the file cannot be read or written.
        """
        with self._store.alone(), self._hook:
            record = self._record()
            if record is None:
                return
            self._say(f"its record is {self._store.path}; without that file another one can be made")
            task = self._watch(record)
            if task is not None and task.status.is_terminal:
                finish(self._context, task)
                self._ended(record, task)

    def _record(self) -> Record | None:
        """Of the generation that there is by now, or None."""
        record, _ = Entries(self._context).load()
        if record is not None and record.media_task_id is not None:
            self._say(f"{record.media_task_id} has been made before; nothing is paid")
            return record
        submission = Submission(self._hook, self._name, self._arguments, 0, STOP, _Log(self._say))
        try:
            question, made = self._examination.ask(
                "the submission of the generation",
                partial(once, submission, self._context, self._before_paying),
            )
        except NotConfirmed:
            self._examination.questions.pop()
            self._examination.notes.append("a generation: nobody has agreed to pay for it")
            return None
        if made is None:
            self._not_made(question)
            return None
        return made[0]

    def _before_paying(self, _: int) -> None:
        price = Prices.of(self._hook).estimate(self._name)
        known = f"{price} by the connection's price table" if price else "at a price that is not known here"
        model = f" with {self._arguments['model']!r}" if "model" in self._arguments else ""
        if not self._confirm(
            f"{self._hook.hook_name} makes one {self._name}{model}, {known}, and charges it."
        ):
            raise NotConfirmed

    def _not_made(self, question: Question) -> None:
        error = question.error
        if error is not None and not error.provider:
            raise error  # our own: nothing was sent
        if isinstance(error, SubmissionOutcomeUnknown):
            question.differs.append("whether it was accepted cannot be found out")
            why = error.__cause__ if isinstance(error.__cause__, MediaTaskError) else error
            self._say(f"it was sent, and nobody can say if it was accepted: {why}; made since then:")
            for one in error.candidates:
                self._say(f"  {one['id']}  {one['created_at'] or 'time not shown'}  {one['status']}")
            self._say(f"{len(error.candidates)} tasks. Remove {self._store.path} to pay for another one")
            return
        question.differs += self._examination.unanswered(question, "no id of a task")
        if isinstance(error, (MediaAuthError, MediaFundsError)):
            raise error

    def _watch(self, record: Record) -> MediaTask | None:
        """The task as it ended, or as it was last seen; None if it cannot be read."""
        media_task_id = str(record.media_task_id)
        own_id = media_task_id.rpartition("/")[2]
        began = moment_of(record)
        while True:
            question, task = self._examination.ask(
                "the generation", partial(self._hook.get_task, media_task_id), own_id
            )
            age = time.time() - began
            if task is None:
                self._say(f"{age:.0f} s: {question.error}")
                is_unknown = isinstance(question.error, MediaNotFoundError) and age > APPEARS
                if is_unknown or isinstance(question.error, HOPELESS) or age > LONGEST:
                    self._examination.hold(question, task)
                    return None
                self._examination.questions.pop()
            else:
                word = f" ({shown(task.status_word)})" if task.status_word else ""
                self._say(f"{age:.0f} s: {record.operation} {media_task_id} is {task.status}{word}")
                self._examination.hold(question, task)
                self._keep_one(question, f"the generation, {task.status}")
                if task.status.is_terminal:
                    return task
                if age > LONGEST:
                    self._examination.notes.append("the end of the generation: it has not come yet")
                    return task
            time.sleep(LOOK)

    def _keep_one(self, question: Question, what: str) -> None:
        """Of what is asked again and again, the first question with all that ever differed."""
        first = next((one for one in self._examination.questions if one.what == what), None)
        question.what = what
        if first is not None:
            self._examination.questions.pop()
            first.differs += [said for said in question.differs if said not in first.differs]
            first.told += [said for said in question.told if said not in first.told]

    def _ended(self, record: Record, task: MediaTask) -> None:
        """Says what came, and looks whether it would have been found without the reply to its submission."""
        for file in task.files:
            self._say(f"{file.kind}: {shown(file.url, 300)}")
        if task.error is not None:
            self._say(str(task.error))
        hook, name = self._hook, record.operation
        if hook.operations[name].listed:
            self._examination.look_at_list("the list with the generation", hook._groups_listed(name)[0], name)
        if not hook.can_be_asked(name):
            self._examination.notes.append(
                "finding a lost submission: the table says that it cannot be found"
            )
            return
        question, found = self._examination.ask(
            "the generation, looked for as if its reply had been lost",
            partial(
                hook.find_tasks,
                client_ref=record.client_ref,
                submitted_after=datetime.fromisoformat(record.submitted_after),
                operation=name,
                arguments=record.arguments,
            ),
            task.id.rpartition("/")[2],
        )
        question.differs += self._examination.unanswered(question, "no list where it should be")
        if found is not None and [one.id for one in found] != [task.id]:
            question.differs.append(f"{len(found)} tasks are found, and not this one alone")


@dataclass(frozen=True)
class _Log:
    """A log whose lines are said."""

    say: Callable[[str], None]

    def info(self, message: str, *values: Any) -> None:
        """Says it."""
        self.say(message % values)

    warning = info
