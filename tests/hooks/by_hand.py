"""A conversation held by hand: what it asks is looked at, what it is told is made up."""

from __future__ import annotations

import json
from typing import Any

from airflow_media_tasks.wire.conversations import Conversation, Reply, Request


def reply(body: Any, status: int = 200, **headers: str) -> Reply:
    """A reply with this JSON body."""
    return Reply(status, body, json.dumps(body), headers)


def held(conversation: Conversation[Any], *bodies: Any) -> tuple[list[Request], Any]:
    """What *conversation* asked, and its result after it was answered with *bodies* one after the other."""
    asked = [next(conversation)]
    for body in bodies:
        try:
            asked.append(conversation.send(reply(body)))
        except StopIteration as end:
            return asked, end.value
    raise AssertionError(f"the conversation goes on after {len(bodies)} answers: {asked[-1]}")


def told(conversation: Conversation[Any], *bodies: Any) -> Any:
    """The result alone."""
    return held(conversation, *bodies)[1]
