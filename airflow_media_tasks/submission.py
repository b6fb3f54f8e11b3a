"""One paid submission: the record that makes it happen once, whatever dies in between.

A POST that costs money can be accepted without anybody here learning of it: the reply is lost, the worker is
killed, the machine sleeps. So what is about to be sent is written down before it is sent, in Airflow's task
state store, which outlives retries, deferrals and clears; and a try that finds such a note asks the provider
what became of it before it may send anything.

    absent -> intent -> submitted -> finished; certainly refused: back to what was there before

Two clocks keep two workers of the same try apart. A submission leaves within `LEASE` seconds of its intent or
not at all (`MediaHook.send_before`), and only `SETTLE` seconds after an intent does the provider's "no such
task" prove that it never arrived. A worker that Airflow has replaced cannot write the record any more, so it
does not get as far as sending; one that slept between the two finds its lease run out.
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from airflow.sdk import Context

from airflow_media_tasks import answers
from airflow_media_tasks.answers import RESUBMIT, Answer
from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.records import (
    KEY,
    Record,
    asked,
    fingerprint,
    moment_of,
    new_reference,
    now,
    recordable,
)
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaProviderError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    SubmissionOutcomeUnknown,
    TaskStatus,
    shown,
)


LEASE = 10.0
"""Seconds after its intent within which a submission begins to be sent, or is not sent at all."""
SETTLE = 50.0
"""Seconds after its intent from which on a submission that nobody can find was never accepted: the lease,
the time to connect (10 s), and half a minute for the provider to show what it accepted."""

STOP = "stop"
ON_UNKNOWN = (STOP, RESUBMIT)

_BAD_ANSWER = "answer"

HOPELESS = (MediaAuthError, MediaFundsError, MediaModerationError, MediaRequestError)
"""Failures that the same request would meet again."""


@dataclass
class Submission:
    """What one try of an operator wants to have submitted.

    :param operation: full name, as `MediaHook.check` gave it.
    :param arguments: as `MediaHook.check` gave them.
    :param on_unknown: what to do when nobody can say whether an earlier submission was accepted: `stop`
        with `SubmissionOutcomeUnknown`, or `resubmit` and perhaps pay twice.
    :param key: of its record.
    :param before_paying: called with the submission's number in this generation, from 1, whenever a new one
        is about to be made and before anything is written or sent; what it raises, stops it.
    """

    hook: MediaHook
    operation: str
    arguments: Mapping[str, Any]
    context: Context
    on_unknown: str
    log: Any
    key: str = KEY
    before_paying: Callable[[int], None] | None = None
    record: Record | None = field(default=None, init=False)
    """What stands in the store, once `once` has looked."""

    def once(self) -> MediaTask:
        """The task that this try has to wait for: an earlier submission's where there is one, else a new one.

        :raises SubmissionOutcomeUnknown: with the candidates and both ways out, see `on_unknown`.
        :raises MediaTaskError: if the submission was certainly refused, or is not possible at present.
        """
        self.record = record = Record.load(self.context, self.key)
        try:
            task = None if record is None else self._earlier(record)
            return task or self._submit(self.record)
        except SubmissionOutcomeUnknown as error:
            if self.on_unknown == RESUBMIT and error.code != _BAD_ANSWER:
                # The intent stays: a retry, of which there are not endlessly many, finds it and goes on.
                raise MediaProviderError(
                    f"{error.message}; the next try submits anew as told, which may pay twice",
                    provider=error.provider,
                    code=error.code,
                ) from error
            raise self._question(error) from error

    @property
    def submitted_at(self) -> float | None:
        """When the task that `once` returned was submitted, in unix seconds by our clock."""
        if self.record is None:
            return None
        return moment_of(self.record)

    @property
    def _generation(self) -> int:
        return int(self.context["ti"].max_tries)

    def _earlier(self, record: Record) -> MediaTask | None:
        """The task of the submission in *record*, if it serves this try; None if a new one is due."""
        if record.phase == "refused":
            return None
        if record.phase == "abandoned":
            self.log.info("the earlier submission was given up by hand; submitting anew")
            return None
        if record.fingerprint != fingerprint(self.hook.media_conn_id, self.operation, self.arguments):
            self.log.info(
                "the request is not the one that was submitted before (%s, %s); submitting the new one",
                record.operation,
                record.media_task_id or f"outcome unknown, reference {record.client_ref}",
            )
            self._cancel(record)
            return None
        if record.phase == "finished" and record.generation != self._generation:
            self.log.info("%s has ended, and the task was cleared: submitting anew", record.media_task_id)
            return None
        return self._open(record)

    def _open(self, record: Record) -> MediaTask | None:
        """As of `_earlier`, for a submission of this very request that no worker has seen the end of."""
        answer = self._answer(record)
        if answer is not None:
            return self._as_answered(record, answer)
        if record.phase == "intent":
            self.log.info("an earlier try left a submission without its result; asking about it")
            return self._adopt(record, self._reconcile(record, self.on_unknown))
        return self._known(record, self._chosen(record) if record.phase == "adopted" else self._read(record))

    def _as_answered(self, record: Record, answer: Answer) -> MediaTask | None:
        """What a person's *answer* makes of the submission in *record*."""
        self.log.info("a person has decided: %s", answer)
        if answer.media_task_id is None:
            return None
        record = dataclasses.replace(
            record, phase="adopted", media_task_id=answer.media_task_id, result=None, error=None
        )
        task = self._chosen(record)
        self.record = record = dataclasses.replace(record, asked_at=None).save(self.context, self.key)
        return self._known(record, task)

    def _answer(self, record: Record) -> Answer | None:
        """What a person has decided about *record*, which this try has just found."""
        if record.asked_at is None or record.phase not in answers.UNKNOWN:
            return None
        value: Any = self.context["task_state_store"].get(answers.key_of(record.client_ref))
        return Answer.read(value, dataclasses.asdict(record))

    def _chosen(self, record: Record) -> MediaTask:
        """The task that a person has named in place of an unknown one, by an answer or, once, in the record.

        :raises SubmissionOutcomeUnknown: the question again, if it cannot be that one.
        """
        try:
            task = self._read(record)
            why = "it carries the mark of another submission" if self._is_anothers(task, record) else ""
        except MediaRequestError as error:
            why = error.message
        if why:
            raise SubmissionOutcomeUnknown(
                f"it was answered with {shown(record.media_task_id)}, which it cannot have become: {why}",
                provider=self.hook.conn_type,
                code=_BAD_ANSWER,
            )
        return task

    def _is_anothers(self, task: MediaTask, record: Record) -> bool:
        """Whether *task* carries a mark of ours that is not that of *record*.

        Such a one is neither shown nor adopted: an account may serve DAGs that must not know each other.
        """
        return self.hook.mark_of(task) not in (None, record.client_ref)

    def _known(self, record: Record, task: MediaTask) -> MediaTask | None:
        """*task* of *record* as it is now, if it serves this try."""
        if not task.status.is_terminal:
            self.log.info("%s is %s: waiting for it, submitting nothing", task.id, task.status)
            return self._adopt(record, task)
        if record.generation != self._generation and record.phase != "adopted":
            self.log.info("%s has %s, and the task was cleared: submitting anew", task.id, task.status)
            return None
        if task.status is TaskStatus.SUCCEEDED:
            self.log.info("%s has succeeded already; nothing is paid again", task.id)
            return self._adopt(record, task)
        if isinstance(task.error, HOPELESS):
            return task
        self.log.info("%s has %s (%s); submitting again", task.id, task.status, task.error)
        return None

    def _submit(self, before: Record | None) -> MediaTask:
        """Writes the intent and sends it, at most once."""
        number = before.number + 1 if before is not None and before.generation == self._generation else 1
        with self.hook as hook:
            if self.before_paying is not None:
                self.before_paying(number)
            now = time.time()
            intent = Record(
                phase="intent",
                generation=self._generation,
                number=number,
                fingerprint=fingerprint(hook.media_conn_id, self.operation, self.arguments),
                client_ref=new_reference(),
                submitted_after=datetime.fromtimestamp(now, timezone.utc).isoformat(),
                media_conn_id=hook.media_conn_id,
                operation=self.operation,
                provider=hook.conn_type,
                arguments=recordable(self.arguments),
                spent=None if before is None else before.spent,
            )
            self.record = intent.save(self.context, self.key)
            hook.send_before = now + LEASE
            try:
                task = hook.submit(self.operation, self.arguments, client_ref=intent.client_ref)
            except SubmissionOutcomeUnknown as error:
                self.log.warning("%s", error)
                found = self._reconcile(intent, STOP)
                if found is None:
                    self._put_back(before)
                    raise MediaProviderError(
                        f"{hook.conn_type} did not accept the submission, nothing is paid: {error.message}",
                        provider=hook.conn_type,
                    ) from error
                task = found
            except MediaTaskError:
                self._put_back(before)
                raise
            finally:
                hook.send_before = None
        return self._adopt(intent, task) or task

    def _adopt(self, record: Record, task: MediaTask | None) -> MediaTask | None:
        """Notes that *task* is what this generation waits for."""
        if task is None:
            return None
        # A task that was complete in the submission's own reply may have no address to ask again at.
        complete = record.phase == "intent" and task.status.is_terminal
        adopted = dataclasses.replace(
            record,
            phase="submitted",
            generation=self._generation,
            media_task_id=task.id,
            result=task.to_dict() if complete else record.result,
            error=None,
            asked_at=None,
        )
        if adopted != record:
            self.record = adopted.save(self.context, self.key)
        return task

    def _put_back(self, before: Record | None) -> None:
        """What was there before a submission that was certainly not accepted."""
        self.record = before
        if before is None:
            self.context["task_state_store"].delete(self.key)
        else:
            before.save(self.context, self.key)

    def _read(self, record: Record) -> MediaTask:
        if record.result is not None:
            return MediaTask.from_dict(record.result)
        media_task_id = self.hook.check_id(record.media_task_id)
        try:
            task = self.hook.get_task(media_task_id)
        except MediaNotFoundError:
            # It was accepted and paid for: the trigger knows how long to wait for it to appear.
            task = MediaTask(media_task_id, TaskStatus.QUEUED)
        return dataclasses.replace(task, operation=record.operation)

    def _reconcile(self, intent: Record, on_unknown: str) -> MediaTask | None:
        """What became of *intent*: its task, or None if it was never accepted.

        :raises SubmissionOutcomeUnknown: if the provider cannot tell, unless *on_unknown* says to go on.
        :raises MediaTaskError: if the provider cannot be asked at present; the next try asks again.
        """
        began = datetime.fromisoformat(intent.submitted_after)
        # Whoever wrote that it was in the future, it was before now.
        settled = min(began.timestamp(), time.time()) + SETTLE
        pause = 1.0
        while True:
            found, doubt = self._candidates(intent, began)
            if len(found) == 1:
                self.log.info("it was accepted as %s: adopting it, nothing is paid again", found[0].id)
                return dataclasses.replace(found[0], operation=intent.operation)
            wait = settled - time.time()
            if found or wait <= 0:
                break
            self.log.info("%s does not show it; it may yet appear within %.0f s", self.hook.conn_type, wait)
            time.sleep(min(pause, wait))
            pause *= 2
        if not doubt:
            self.log.info("%s never accepted that submission; nothing was paid", self.hook.conn_type)
            return None
        if on_unknown == RESUBMIT:
            self.log.warning("%s; submitting anew as told, which may pay twice", doubt)
            return None
        raise SubmissionOutcomeUnknown(doubt, provider=self.hook.conn_type, code="ambiguous")

    def _candidates(self, intent: Record, began: datetime) -> tuple[list[MediaTask], str]:
        """The tasks that come from *intent*, and why that may not be the whole truth."""
        try:
            found = self.hook.find_tasks(
                client_ref=intent.client_ref,
                submitted_after=began,
                operation=intent.operation,
                arguments=self.arguments,
            )
        except SubmissionOutcomeUnknown as error:
            return [], error.message
        found = [task for task in found if not self._is_anothers(task, intent)]
        return found, f"{len(found)} tasks with this very request were made since" if len(found) > 1 else ""

    def _cancel(self, record: Record) -> None:
        """Stops a task that nobody will wait for any more, where that is possible."""
        if record.media_task_id is None or record.phase != "submitted":
            return
        if not self.hook.can_cancel:
            self.log.info("%s cannot cancel %s: it goes on", self.hook.conn_type, record.media_task_id)
            return
        try:
            self.hook.cancel_task(record.media_task_id)
        except MediaTaskError as error:
            self.log.warning("%s could not be cancelled: %s", record.media_task_id, error)

    def _question(self, error: SubmissionOutcomeUnknown) -> SubmissionOutcomeUnknown:
        """*error* with the candidates and both ways out, for the person who has to decide.

        From now on the record says that it asks. An asking stays the same from try to try, so that an answer
        is never too late for it, until it was answered with what cannot be.
        """
        record = self.record
        if record is None:
            return error
        if record.asked_at is None or error.code == _BAD_ANSWER:
            record = self.record = asked(record).save(self.context, self.key)
        since = datetime.fromisoformat(record.submitted_after)
        try:
            candidates = self.hook.find_tasks(submitted_after=since, operation=self.operation)
        except MediaTaskError as trouble:
            lines = [f"  the account's tasks cannot be listed: {trouble}"]
            candidates = []
        else:
            candidates = [task for task in candidates if not self._is_anothers(task, record)][:20]
            lines = [_line_of(task) for task in candidates] or ["  the provider lists no task since then"]
        ti = self.context["ti"]
        place = shlex.join([ti.dag_id, ti.run_id, ti.task_id])
        if ti.map_index is not None and ti.map_index >= 0:
            place += f" --map-index {ti.map_index}"
        if self.key != KEY:
            place += f" --request {self.key.removeprefix(f'{KEY}.')}"
        about = f"--reference {record.client_ref}"
        text = [
            f"A submission to {self.hook.conn_type} was sent, and nobody can say if it was accepted: ",
            f"{error.message}. Nothing more is sent before you decide. The account shows since then:\n",
            *(f"{line}\n" for line in lines),
            "If it is one of them, adopt it; else submit anew, which may pay twice. Then clear the task.\n",
            f"  airflow media-tasks adopt {place} MEDIA_TASK_ID {about}\n",
            f"  airflow media-tasks resubmit {place} {about}",
        ]
        return SubmissionOutcomeUnknown(
            "".join(text),
            provider=error.provider,
            code=error.code,
            candidates=[
                {
                    "id": task.id,
                    "created_at": task.created_at.isoformat() if task.created_at else None,
                    "status": task.status.value,
                    "prompt": prompt_of(task.raw)[:200],
                }
                for task in candidates
            ],
        )


def finish(context: Context, task: MediaTask, *, handed_over: bool = True) -> Record | None:
    """Notes that *task* has ended, and gives its record, if it has one.

    What the task was is asked of the provider again when it matters.

    :param handed_over: False as long as its files have not landed where they are wanted: then a clear, too,
        goes on with what was paid for.
    """
    record = Record.load(context)
    if record is None or record.media_task_id != task.id:
        return None
    noted = dataclasses.replace(
        record,
        phase="finished" if handed_over else "adopted",
        asked_at=None,
        finished_at=record.finished_at or now().isoformat(),
    )
    if noted != record:
        noted.save(context)
    return noted


def ask(context: Context, task: MediaTask) -> None:
    """Notes that *task* leads to nothing at present, so that a person may give it up."""
    record = Record.load(context)
    if record is not None and record.media_task_id == task.id:
        asked(record).save(context)


def _line_of(task: MediaTask) -> str:
    return (
        f"  {task.id}  {task.created_at or 'time not shown'}  {task.status}  {shown(prompt_of(task.raw), 60)}"
    )


def prompt_of(document: Any, depth: int = 3) -> str:
    """The prompt that a provider's *document* shows, or empty."""
    if not isinstance(document, Mapping) or depth == 0:
        return ""
    own = next((document[key] for key in ("prompt", "description") if isinstance(document.get(key), str)), "")
    return own or next((text for value in document.values() if (text := prompt_of(value, depth - 1))), "")
