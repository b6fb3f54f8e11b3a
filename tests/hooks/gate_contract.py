"""What no provider's reply can do, whichever provider it is: inherited by the test class of each."""

from __future__ import annotations

import copy
import json
import random
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MAX_FILES,
    MAX_RETRY_AFTER,
    MediaBalance,
    MediaRateLimitError,
    MediaTask,
    MediaTaskError,
    SubmissionOutcomeUnknown,
    TaskStatus,
)
from tests.encoders import must_take

from .case import HookCase
from .peer import Peer, passed_on, say


PAGE = b"<html><h1>Sorry</h1></html>"
URL = "https://cdn.example.com/1.mp4"
HOSTILE = [
    *(10**30, -(10**30), 10**400, 1e300, -1e-320, float("nan"), float("-inf"), -9, 0, 2**64, True, None),
    *("", "\ud800", f"{URL}?\udfff", "a\0b", "x" * 100_000, "NaN", "1e999999999", "completed", "succeed"),
    *([], {}, [[[]]], [URL] * 5_000, [{"url": f"{URL}?{n}", "id": n, "width": 1e30} for n in range(2_000)]),
    *({"\ud800": "\ud800"}, {"a\0": 5, "url": URL}, {f"{n}_url": f"{URL}?{n}" for n in range(2_000)}),
    json.loads('{"a":' * 40 + "[]" + "}" * 40),
]


class Between(Peer):
    """Stands between a hook and the simulator, and changes what comes back."""

    def __init__(self, behind: str) -> None:
        super().__init__()
        self.behind = httpx.Client(base_url=behind, trust_env=False)
        self.change: Callable[[Any], Any] = lambda document: document
        self.gave_up: int | None = None
        """The status of a page of its own, in place of what the simulator said."""
        self.before = b""
        """What it puts before a body."""
        self.answer = self.pass_on

    def pass_on(self, handler: BaseHTTPRequestHandler) -> None:
        """Asks the simulator, and says what it said, changed."""
        method, path, headers, body = self.seen[-1]
        reply = self.behind.request(method, path, content=body, headers=passed_on(headers))
        if self.gave_up is None:
            say(handler, self.before + json.dumps(self.change(reply.json())).encode(), reply.status_code)
        else:
            say(handler, PAGE, self.gave_up, Content_Type="text/html")


def changed(document: Any, chance: random.Random) -> Any:
    """*document* with up to four of its values, or all of one type, replaced by hostile ones."""
    whole = [document]
    for _ in range(chance.randint(1, 4)):
        places = list(_places(whole))
        there, name = chance.choice(places[1:] or places)
        of_type, value = type(there[name]), chance.choice(HOSTILE)
        all_like_it = chance.random() < 0.3 and not {of_type, type(value)} & {dict, list}
        for place, key in places if all_like_it else [(there, name)]:
            if type(place[key]) is of_type:
                place[key] = copy.deepcopy(value)  # which is changed next, perhaps
    return whole[0]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from _places(inner)


class GateContract(HookCase):
    """Inherited by `HookContract`."""

    @pytest.fixture
    def between(self, sim: Simulator) -> Iterator[Between]:
        """A peer between the hook and the simulator."""
        with Between(sim.url) as peer:
            thread = threading.Thread(target=peer.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            with peer.behind:
                yield peer
            peer.shutdown()
            thread.join()

    @pytest.fixture
    def changed_hook(self, connect: Any, sim: Simulator, between: Between) -> MediaHook:
        """A hook that hears what the peer makes of the simulator's words."""
        hook = self.hook_for(connect, sim, host=f"{between.url}/{self.hook_class.conn_type}")
        hook.read_attempts = 1
        return hook

    def questions(self, hook: MediaHook, sim: Simulator) -> dict[str, Callable[[], Any]]:
        """All that a hook is asked, where there is something to tell."""
        made = self.finished(hook, sim).id
        failed = hook.submit(self.paid, self.with_words("[sim:fail=provider]")).id
        sim.advance(10)
        waiting = hook.submit(self.paid, self.samples[self.paid]).id
        refused = self.with_words("[sim:reject=bad_request]")
        balance = {"balance": hook.get_balance} if hook.has_balance else {}
        return {
            "submit": lambda: hook.submit(self.paid, self.samples[self.paid]),
            "refused": lambda: hook.submit(self.paid, refused),
            "made": lambda: hook.get_task(made),
            "failed": lambda: hook.get_task(failed),
            "waiting": lambda: hook.get_task(waiting),
            "batch": lambda: hook.get_tasks([made, failed, waiting]),
            "list": lambda: hook.find_tasks(operation=self.paid),
            **balance,
        }

    def test_whatever_it_says_airflow_can_send(
        self, changed_hook: MediaHook, between: Between, sim: Simulator
    ) -> None:
        """No reply makes an event, an XCom or an error on which the triggerer or a task would end."""
        with changed_hook as hook:
            questions = self.questions(hook, sim)

            @settings(max_examples=150, deadline=None)
            @given(st.sampled_from(sorted(questions)), st.integers(0, 2**64))
            def ask(question: str, seed: int) -> None:
                chance = random.Random(seed)  # noqa: S311  # what hypothesis draws of a tree is seldom deep in it
                between.change = lambda document: changed(document, chance)
                try:
                    said = questions[question]()
                except MediaTaskError as error:
                    said = error
                values = (
                    said.values() if isinstance(said, dict) else said if isinstance(said, list) else [said]
                )
                for value in values:
                    if isinstance(value, MediaBalance):
                        assert len(str(value)) < 1000
                        assert isinstance(value.is_empty, bool)
                        continue
                    must_take(value.to_dict())
                    if isinstance(value, MediaTask):
                        assert MediaTask.from_dict(value.to_dict()).to_dict() == value.to_dict()

            ask()

    @pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
    def test_every_value_of_a_reply_may_be_hostile(
        self, changed_hook: MediaHook, between: Between, sim: Simulator, value: Any
    ) -> None:
        """The same, with one value after the other of all documents that a finished task is read from."""
        with changed_hook as hook:
            made = self.finished(hook, sim).id
            left = count = 0

            def note(document: Any) -> Any:
                nonlocal count
                count += len(list(_places([document])))
                return document

            def replace(document: Any) -> Any:
                nonlocal left
                whole = [document]
                places = list(_places(whole))
                if 0 <= left < len(places):
                    place, key = places[left]
                    place[key] = value
                left -= len(places)
                return whole[0]

            between.change = note
            assert hook.get_task(made).status is TaskStatus.SUCCEEDED
            between.change = replace
            for left in range(count):  # noqa: B007  # `replace` reads it
                try:
                    task = hook.get_task(made)
                except MediaTaskError as error:
                    must_take(error.to_dict())
                else:
                    must_take(task.to_dict())
                    assert len(task.files) <= MAX_FILES

    @pytest.mark.parametrize("status", [408, 409, 410, 418, 425, 451, 499, 500, 503, 504, 520, 599])
    def test_gateway_that_gives_up_on_a_submission(
        self, changed_hook: MediaHook, between: Between, sim: Simulator, call: Any, status: int
    ) -> None:
        """A status that may be a gateway's, after the provider accepted, leaves the outcome unknown."""
        between.gave_up = status
        with pytest.raises(SubmissionOutcomeUnknown, match=f"may have been accepted and billed.*{status}"):
            call(changed_hook, "submit", self.paid, self.samples[self.paid])
        assert len(sim.ledger()) == 1
        assert sum(sim.requests().values()) == 1

    @pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 422, 429])
    def test_page_that_refuses_a_submission(
        self, changed_hook: MediaHook, between: Between, call: Any, status: int
    ) -> None:
        """These statuses say that nothing was accepted, in whatever words."""
        between.answer = lambda handler: say(handler, PAGE, status, Content_Type="text/html")
        with pytest.raises(MediaTaskError, match=str(status)) as caught:
            call(changed_hook, "submit", self.paid, self.samples[self.paid])
        assert type(caught.value) is changed_hook.refusals[status]
        assert len(between.seen) == 1

    @pytest.mark.parametrize("seconds", [30_000, 86_400, 1e300])
    def test_retry_after_is_bounded(self, hook: MediaHook, sim: Simulator, call: Any, seconds: float) -> None:
        """However long a provider says to wait, in a header or its body, it is at most five minutes."""
        sim.fault("rate_limit", on="submit", retry_after=seconds)
        with pytest.raises(MediaRateLimitError) as caught:
            call(hook, "submit", self.paid, self.samples[self.paid])
        assert caught.value.retry_after == MAX_RETRY_AFTER == 300

    def test_byte_order_mark(
        self, changed_hook: MediaHook, between: Between, sim: Simulator, call: Any
    ) -> None:
        """A reply that begins with a byte order mark is read like any other."""
        between.before = b"\xef\xbb\xbf"
        task = call(changed_hook, "submit", self.paid, self.samples[self.paid])
        sim.advance(10)
        assert call(changed_hook, "get_task", task.id).status is TaskStatus.SUCCEEDED
