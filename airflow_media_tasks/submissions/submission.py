"""One paid submission: what makes it happen once, whatever dies in between.

A POST that costs money can be accepted without anybody here learning of it: the reply is lost, the worker is
killed, the machine sleeps. So what is about to be sent is written down before it is sent (see `records`); and
a try that finds such a note asks the provider what became of it before it may send anything.

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
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from airflow.sdk import Context

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.material.materials import NOTHING, Handed, Materials
from airflow_media_tasks.submissions import answers, metrics
from airflow_media_tasks.submissions.answers import RESUBMIT, Answer
from airflow_media_tasks.submissions.records import (
    KEY,
    Entries,
    Place,
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
from airflow_media_tasks.wire.materials import paths_in
from airflow_media_tasks.wire.protocol import handle


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


class Unsettled(Exception):
    """It is not known what became of a submission; the *error* says why."""

    def __init__(self, error: MediaTaskError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True)
class Submission:
    """One request, as one try wants to have it submitted. It asks and sends, and writes nothing down.

    :param operation: full name, as `MediaHook.check` gave it.
    :param arguments: as `MediaHook.check` gave them.
    :param generation: see `generation_of`.
    :param materials: knows the files of one's own in the arguments; None where there are none.
    :param handed: what the provider gets for them, see `handed_over`.
    :param on_unknown: what to do when nobody can say whether an earlier submission was accepted: `stop`
        with `SubmissionOutcomeUnknown`, or `resubmit` and perhaps pay twice.
    """

    hook: MediaHook
    operation: str
    arguments: Mapping[str, Any]
    generation: int
    on_unknown: str
    log: Any
    materials: Materials | None = None
    handed: Handed = NOTHING

    @cached_property
    def fingerprint(self) -> str:
        """Of the request; a file counts by its content, wherever it is and whatever was handed over of it."""
        known = self.arguments if self.materials is None else self.materials.identified(self.arguments)
        return fingerprint(self.hook.media_conn_id, self.operation, known)

    def handed_over(self) -> Submission:
        """The same, with what the provider gets for the files of one's own in it, which costs nothing.

        :raises MediaTaskError: if one cannot be handed over; nothing is written down yet.
        """
        if self.materials is None:
            return self
        return dataclasses.replace(self, handed=self.materials.hand_over(self.operation, self.arguments))

    def earlier(self, record: Record, answer: Answer | None) -> tuple[Record, MediaTask] | None:
        """The task of the submission in *record*, if it serves this try, and what to write down of it.

        None if a new submission is due.

        :param answer: what a person has said about it, or None.
        :raises SubmissionOutcomeUnknown: if nobody can say what became of it.
        :raises MediaTaskError: if the provider cannot be asked at present; the next try asks again.
        """
        if record.phase == "refused":
            return None
        if record.phase == "abandoned":
            self.log.info("the earlier submission was given up by hand; submitting anew")
            return None
        if record.phase == "finished" and record.generation != self.generation:
            self.log.info("%s has ended, and the task was cleared: submitting anew", record.media_task_id)
            return None
        if answer is not None:
            self.log.info("a person has decided: %s", answer)
            if answer.media_task_id is None:
                return None
            record = dataclasses.replace(
                record, phase="adopted", media_task_id=answer.media_task_id, result=None, error=None
            )
        if record.phase == "intent":
            self.log.info("an earlier try left a submission without its result; asking about it")
            task = self._reconcile(record, self.on_unknown)
            return None if task is None else self._adopted(record, task)
        return self._known(record, self._chosen(record) if record.phase == "adopted" else self._read(record))

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

    def intent(self, before: Record | None, key: str | None = None) -> Record:
        """What has to be written down before `send` may be called, of what is `handed_over`.

        :param before: the record that it takes the place of, or None.
        :param key: of a batch's request.
        """
        return Record(
            phase="intent",
            generation=self.generation,
            number=self.number(before),
            fingerprint=self.fingerprint,
            client_ref=new_reference(),
            submitted_after=now().isoformat(),
            media_conn_id=self.hook.media_conn_id,
            operation=self.operation,
            provider=self.hook.conn_type,
            arguments=recordable(self.arguments),
            spent=None if before is None else before.spent,
            key=key,
            material=[dict(one) for one in self.handed.told] or None,
            traces=[*self.handed.traces] or None,
        )

    def number(self, before: Record | None) -> int:
        """Which of this generation's submissions the one after *before* is, from 1."""
        return before.number + 1 if before is not None and before.generation == self.generation else 1

    def send(self, intent: Record) -> tuple[Record, MediaTask]:
        """Sends what *intent* tells of, once, if its lease has not run out; the task and what to write down.

        :raises Unsettled: if it is not known what became of it: the intent has to stay.
        :raises MediaTaskError: if it was certainly not accepted; what was there before has to come back.
        """
        try:
            task = self.hook.submit(
                self.operation, self.arguments, client_ref=intent.client_ref, handed=self.handed.values
            )
        except SubmissionOutcomeUnknown as error:
            self.log.warning("%s", error)
            try:
                found = self._reconcile(intent, STOP)
            except MediaTaskError as trouble:
                raise Unsettled(trouble) from error
            if found is None:
                raise MediaProviderError(
                    f"{self.hook.conn_type} did not accept the submission, nothing is paid: {error.message}",
                    provider=self.hook.conn_type,
                ) from error
            task = found
        return self._adopted(intent, task)

    def _known(self, record: Record, task: MediaTask) -> tuple[Record, MediaTask] | None:
        """*task* of *record* as it is now, if it serves this try."""
        if not task.status.is_terminal:
            self.log.info("%s is %s: waiting for it, submitting nothing", task.id, task.status)
            return self._adopted(record, task)
        if record.generation != self.generation and record.phase != "adopted":
            self.log.info("%s has %s, and the task was cleared: submitting anew", task.id, task.status)
            return None
        if task.status is TaskStatus.SUCCEEDED:
            self.log.info("%s has succeeded already; nothing is paid again", task.id)
            return self._adopted(record, task)
        if isinstance(task.error, HOPELESS):
            return record, task
        self.log.info("%s has %s (%s); submitting again", task.id, task.status, task.error)
        return None

    def _adopted(self, record: Record, task: MediaTask) -> tuple[Record, MediaTask]:
        """What says that *task* is what this generation waits for."""
        # A task that was complete in the submission's own reply may have no address to ask again at.
        complete = record.phase == "intent" and task.status.is_terminal
        adopted = dataclasses.replace(
            record,
            phase="submitted",
            generation=self.generation,
            media_task_id=task.id,
            result=task.to_dict() if complete else record.result,
            error=None,
            failure=None,
            asked_at=None,
        )
        return adopted, task

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
        settled = moment_of(intent) + SETTLE
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
                traces=self._traces(intent),
            )
        except SubmissionOutcomeUnknown as error:
            return [], error.message
        found = [task for task in found if not self._is_anothers(task, intent)]
        return found, f"{len(found)} tasks with this very request were made since" if len(found) > 1 else ""

    def _traces(self, intent: Record) -> dict[str, str]:
        """What each path of the request has left in what *intent* tells of, whose request was the same."""
        paths, traces = paths_in(self.arguments), intent.traces or []
        if len(paths) != len(traces):
            # Nobody knows which is whose: each is a doubt.
            return {}
        return {path: trace for (_, path), trace in zip(paths, traces, strict=True)}

    def cancel(self, record: Record) -> None:
        """Stops the task of *record*, which nobody will wait for any more, where that is possible."""
        if record.media_task_id is None or record.phase != "submitted":
            return
        if not self.hook.can_cancel:
            self.log.info("%s cannot cancel %s: it goes on", self.hook.conn_type, record.media_task_id)
            return
        try:
            self.hook.cancel_task(record.media_task_id)
        except MediaTaskError as error:
            self.log.warning("%s could not be cancelled: %s", record.media_task_id, error)

    def is_to_resubmit(self, error: SubmissionOutcomeUnknown) -> bool:
        """Whether *error* ends with a new submission rather than with the question."""
        return self.on_unknown == RESUBMIT and error.code != _BAD_ANSWER

    def question(
        self, error: SubmissionOutcomeUnknown, record: Record, place: Place, request: int | None = None
    ) -> tuple[Record, SubmissionOutcomeUnknown]:
        """*record* as it asks from now on, and *error* with the candidates and both ways out, for a person.

        An asking stays the same from try to try, so that an answer is never too late for it, until it was
        answered with what cannot be.

        :param request: number of a batch's request.
        """
        if record.asked_at is None or error.code == _BAD_ANSWER:
            record = asked(record)
        try:
            candidates = self.hook.find_tasks(
                submitted_after=datetime.fromisoformat(record.submitted_after), operation=self.operation
            )
        except SubmissionOutcomeUnknown:
            lines = ["  it has no list that can be asked: look at the provider's own page"]
            candidates = []
        except MediaTaskError as trouble:
            lines = [f"  the account's tasks cannot be listed: {trouble}"]
            candidates = []
        else:
            candidates = [task for task in candidates if not self._is_anothers(task, record)][:20]
            lines = [_line_of(task) for task in candidates] or ["  the provider lists no task since then"]
        command = command_line(place, request)
        about = f"--reference {record.client_ref}"
        own_id = handle(self.hook.operations[self.operation].group, "MEDIA_TASK_ID")
        text = [
            f"A submission to {self.hook.conn_type} was sent, and nobody can say if it was accepted: ",
            f"{error.message}. Nothing more is sent before you decide. The account shows since then:\n",
            *(f"{line}\n" for line in lines),
            "If it is one of them, adopt it; else submit anew, which may pay twice. Both clear the task.\n",
            f"  airflow media-tasks adopt {command} {own_id} {about}\n",
            f"  airflow media-tasks resubmit {command} {about}",
        ]
        return record, SubmissionOutcomeUnknown(
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


def once(
    submission: Submission, context: Context, before_paying: Callable[[int], None] = lambda _: None
) -> tuple[Record, MediaTask]:
    """The task that this try has to wait for: an earlier submission's where there is one, else a new one.

    :param before_paying: called with the submission's number in this generation, from 1, whenever a new one
        is about to be made and before anything is written or sent; what it raises, stops it.
    :raises SubmissionOutcomeUnknown: with the candidates and both ways out, see `Submission.on_unknown`.
    :raises MediaTaskError: if the submission was certainly refused, or is not possible at present.
    """
    entries = Entries(context)
    record, from_try = entries.load()
    if from_try is not None:
        submission.log.info("a clear has discarded this task's record: the copy of try %s counts", from_try)
    stands = record
    try:
        found = None if record is None else _earlier(submission, entries, record)
        if found is None:
            with submission.hook as hook:
                before_paying(submission.number(record))
                submission = submission.handed_over()
                stands = entries.save(submission.intent(record))
                hook.send_before = moment_of(stands) + LEASE
                try:
                    found = _sent(submission, context, entries, stands, record)
                finally:
                    hook.send_before = None
    except SubmissionOutcomeUnknown as error:
        if stands is None:
            raise
        if submission.is_to_resubmit(error):
            raise resubmitted(error) from error
        stands, question = submission.question(error, stands, Place.of(context))
        entries.save(stands)
        raise question from error
    noted, task = found
    if noted != stands or from_try is not None:
        entries.save(noted)
    return noted, task


def _earlier(submission: Submission, entries: Entries, record: Record) -> tuple[Record, MediaTask] | None:
    if record.fingerprint == submission.fingerprint or record.phase in ("refused", "abandoned"):
        return submission.earlier(record, answer_to(entries, record))
    submission.log.info(
        "the request is not the one that was submitted before (%s, %s); submitting the new one",
        record.operation,
        record.media_task_id or f"outcome unknown, reference {record.client_ref}",
    )
    submission.cancel(record)
    return None


def answer_to(entries: Entries, record: Record) -> Answer | None:
    """What a person has said about the open question of *record*, or None."""
    if record.asked_at is None or record.phase not in answers.UNKNOWN:
        return None
    return Answer.read(entries.read(answers.key_of(record.client_ref)), vars(record))


def _sent(
    submission: Submission, context: Context, entries: Entries, intent: Record, before: Record | None
) -> tuple[Record, MediaTask]:
    try:
        sent = submission.send(intent)
    except Unsettled as unsettled:
        metrics.submitted(intent, submission.arguments, context, unsettled.error)
        raise unsettled.error from unsettled
    except MediaTaskError as error:
        metrics.submitted(intent, submission.arguments, context, error)
        # Certainly not accepted: what was there before comes back.
        if before is None:
            entries.delete(KEY)
        else:
            entries.save(before)
        raise
    metrics.submitted(intent, submission.arguments, context)
    return sent


def resubmitted(error: SubmissionOutcomeUnknown) -> MediaProviderError:
    """What is raised where a new submission is wanted rather than the question.

    The intent stays: a retry, of which there are not endlessly many, finds it and goes on.
    """
    return MediaProviderError(
        f"{error.message}; the next try submits anew as told, which may pay twice",
        provider=error.provider,
        code=error.code,
    )


def finish(context: Context, task: MediaTask, *, handed_over: bool = True) -> Record | None:
    """Notes that *task* has ended, and gives its record, if it has one.

    What the task was is asked of the provider again when it matters.

    :param handed_over: False as long as its files have not landed where they are wanted: then a clear, too,
        goes on with what was paid for.
    """
    entries = Entries(context)
    record, _ = entries.load()
    if record is None or record.media_task_id != task.id:
        return None
    noted = dataclasses.replace(
        record,
        phase="finished" if handed_over else "adopted",
        asked_at=None,
        finished_at=record.finished_at or now().isoformat(),
    )
    if noted != record:
        entries.save(noted)
    return noted


def ask(context: Context, task: MediaTask) -> None:
    """Notes that *task* leads to nothing at present, so that a person may give it up."""
    entries = Entries(context)
    record, _ = entries.load()
    if record is not None and record.media_task_id == task.id:
        entries.save(asked(record))


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


def command_line(place: Place, request: int | None = None) -> str:
    """What names a task instance, or one request of a batch, to `airflow media-tasks adopt` and its kin."""
    command = shlex.join([place.dag_id, place.run_id, place.task_id])
    if place.map_index >= 0:
        command += f" --map-index {place.map_index}"
    if place.loop is not None:
        command += f" --loop {place.loop}"
    return command if request is None else f"{command} --request {request}"
