"""A person's answer to the question what became of a submission.

The worker writes the record, a person writes the answer, and neither writes the other's: each is an entry of
its own in the task state store. The answer's key has the submission's reference, and its value the moment of
the asking, so that it counts for the submission and the question that the person saw, and for no other. The
worker reads it when a try begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_media_tasks.task import shown


ADOPT, RESUBMIT = "adopt", "resubmit"

UNKNOWN = ("intent", "submitted", "adopted")
"""Phases of a record in which a person can be asked what became of it."""
_AT_REST = ("failed", "success", "up_for_retry", "upstream_failed", "skipped", "removed")
"""Airflow's states of a task instance that no worker or triggerer is busy with."""


class NotAnswerable(Exception):
    """There is nothing to answer, or not for this person; the message says what to do."""


@dataclass(frozen=True)
class Answer:
    """What a person decided.

    :param decision: `adopt` (the submission became *media_task_id*) or `resubmit` (give it up, pay anew).
    :param asked_at: the record's, as the person saw it.
    :param media_task_id: the provider's task, with `adopt`.
    """

    decision: str
    asked_at: str
    media_task_id: str | None = None

    @classmethod
    def read(cls, value: Any, record: Mapping[str, Any]) -> Answer | None:
        """The answer in the entry's *value*, if it is one to what *record* asks."""
        if not isinstance(value, Mapping) or value.get("asked_at") != record.get("asked_at"):
            return None
        decision, media_task_id = value.get("decision"), value.get("media_task_id")
        if decision == ADOPT and _may_be_id(media_task_id):
            return cls(ADOPT, value["asked_at"], media_task_id)
        return cls(RESUBMIT, value["asked_at"]) if decision == RESUBMIT else None

    def to_dict(self) -> dict[str, str]:
        """What is written."""
        return {name: value for name, value in self.__dict__.items() if value is not None}

    def __str__(self) -> str:
        return "submit anew" if self.media_task_id is None else f"adopt {shown(self.media_task_id)}"


def key_of(reference: str) -> str:
    """Of the answer's entry in the task state store, for the submission with this `client_ref`."""
    return f"media_task.answer.{reference}"


def reference_of(state: Any, record: Any, reference: str | None) -> str:
    """The `client_ref` of the submission that *record* asks about.

    :param state: Airflow's, of the task instance.
    :param record: as it stands in the task state store.
    :param reference: of the submission that the person means, or None for whichever is asked about.
    :raises NotAnswerable: if nobody may answer now.
    """
    if state not in _AT_REST:
        raise NotAnswerable(
            f"the task is {state or 'about to run'}: it may find out by itself; answer when it has failed"
        )
    found = record.get("client_ref") if isinstance(record, Mapping) else None
    if not isinstance(record, Mapping) or not isinstance(found, str) or not found:
        raise NotAnswerable("there is no submission whose outcome is unknown")
    if reference is not None and reference != found:
        raise NotAnswerable("the question was about an earlier submission; look again")
    if not isinstance(record.get("asked_at"), str) or record.get("phase") not in UNKNOWN:
        raise NotAnswerable(
            "nothing is asked about this submission; if an earlier version of this package asked, clear the "
            "task, which costs nothing, and it asks again"
        )
    return found


def answer(value: Any, record: Mapping[str, Any], media_task_id: str | None) -> Answer:
    """The person's answer: *media_task_id* to adopt, or None to submit anew.

    :param value: what stands in the answer's entry already, or None.
    :raises NotAnswerable: if somebody has answered the same question already.
    """
    given = Answer.read(value, record)
    if given is not None:
        raise NotAnswerable(f"it has been answered already ({given}); clear the task and it goes on")
    if media_task_id is None:
        return Answer(RESUBMIT, record["asked_at"])
    if not _may_be_id(media_task_id):
        raise NotAnswerable(f"{shown(media_task_id)} cannot be the id of a provider's task")
    return Answer(ADOPT, record["asked_at"], media_task_id)


def _may_be_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 512 and value.isprintable()
