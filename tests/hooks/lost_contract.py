"""What every provider's hook must say of a submission whose answer was lost."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import pytest

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaRequestError,
    SubmissionOutcomeUnknown,
)

from .case import MARK, HookCase
from .peer import Peer, edge, say


OURS, THEIRS = "amt-" + "0a" * 16, "amt-" + "0b" * 16
"""Two marks as this package makes them."""


class LostContract(HookCase):
    """Part of `HookContract`: nothing is sent twice, nothing is concluded from what is not known."""

    @pytest.mark.parametrize(
        ("words", "billed"),
        [
            ("[sim:lose-reply]", 1),
            ("[sim:error-after-accept=504]", 1),
            ("[sim:error-after-accept=500]", 1),
            ("[sim:no-id]", 1),
            ("[sim:reject=server]", 0),
        ],
    )
    def test_unclear_submission_is_never_repeated(
        self, hook: MediaHook, sim: Simulator, call: Any, words: str, billed: int
    ) -> None:
        """Where the answer does not say what became of it, a submission is reported and not sent again."""
        with pytest.raises(SubmissionOutcomeUnknown, match="may have been accepted and billed"):
            call(hook, "submit", self.paid, self.with_words(words))
        assert len(sim.ledger()) == billed
        assert sum(sim.requests().values()) == 1

    @pytest.mark.parametrize("kind", ["lose_request", "lose_reply", "html", "truncated", "null", "huge"])
    def test_unreadable_answer_to_a_submission(
        self, hook: MediaHook, sim: Simulator, call: Any, kind: str
    ) -> None:
        """An answer that makes no sense, or none, leaves the outcome unknown; nothing is sent twice."""
        sim.fault(kind, on="submit")
        with pytest.raises(SubmissionOutcomeUnknown):
            call(hook, "submit", self.paid, self.samples[self.paid])
        assert len(sim.ledger()) == (0 if kind == "lose_request" else 1)
        assert sum(sim.requests().values()) == 1

    def test_lost_submission_is_found(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """What was accepted without our hearing of it is found by its mark, else by its request."""
        if self.cannot_be_found(hook):
            return
        began = datetime.now(timezone.utc)
        hook.submit(self.paid, {**self.samples[self.paid], "prompt": "another picture"}, client_ref="other")
        lost = self.with_words("[sim:lose-reply]")
        with pytest.raises(SubmissionOutcomeUnknown):
            call(hook, "submit", self.paid, lost, client_ref=MARK)
        self.until_listed(sim)
        wanted = {"operation": self.paid, "arguments": lost, "submitted_after": began}
        (found,) = call(hook, "find_tasks", client_ref=MARK, **wanted)
        assert found.id.endswith(sim.ledger()[1]["id"])
        assert found.operation == self.paid
        assert call(hook, "get_task", found.id).id == found.id
        if self.finds_by_request:
            (found,) = call(hook, "find_tasks", **wanted)
            assert found.id.endswith(sim.ledger()[1]["id"])

    def test_submission_that_never_arrived_is_not_found(
        self, hook: MediaHook, sim: Simulator, call: Any
    ) -> None:
        """For a submission that the provider never saw the answer is an empty list: the proof of it."""
        if self.cannot_be_found(hook):
            return
        began = datetime.now(timezone.utc)
        hook.submit(self.paid, {**self.samples[self.paid], "prompt": "another picture"}, client_ref="other")
        lost = self.with_words("")
        sim.fault("lose_request", on="submit")
        with pytest.raises(SubmissionOutcomeUnknown):
            call(hook, "submit", self.paid, lost, client_ref=MARK)
        self.until_listed(sim)
        wanted = {"operation": self.paid, "arguments": lost}
        if self.listed_within:
            with pytest.raises(SubmissionOutcomeUnknown, match="does not show enough"):
                call(hook, "find_tasks", client_ref=MARK, submitted_after=began, **wanted)
        since = self.proven_since(began)
        assert call(hook, "find_tasks", client_ref=MARK, submitted_after=since, **wanted) == []

    def test_tasks_are_listed_by_time(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """With a time alone, the tasks submitted since are listed, newest first, and older ones are not."""
        if self.cannot_be_found(hook, submitted_after=datetime.now(timezone.utc)):
            return
        old = hook.submit(self.paid, self.samples[self.paid])
        sim.advance(7200)
        new = [hook.submit(self.paid, self.samples[self.paid]).id for _ in range(2)]
        self.until_listed(sim)
        since = datetime.fromtimestamp(sim.ledger()[0]["at"], timezone.utc) + timedelta(seconds=3600)
        found = call(hook, "find_tasks", operation=self.paid, submitted_after=since)
        assert [task.id for task in found] == new[::-1]
        listed = call(hook, "find_tasks", operation=self.paid)
        assert [task.id for task in listed] == [*new[::-1], old.id]

    def test_search_that_makes_no_sense(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """A time without a zone, and arguments without an operation, are refused before any request."""
        naive = datetime.now()  # noqa: DTZ005  # the point of it
        for wanted in ({"submitted_after": naive}, {"arguments": {"prompt": "x"}}):
            with pytest.raises(MediaRequestError):
                call(hook, "find_tasks", **wanted)
        assert sim.requests() == {}

    # What finds it.

    def lost(self, hook: MediaHook, sim: Simulator, call: Any, mark: str = OURS) -> tuple[datetime, str]:
        """The time before a submission whose reply was lost, by the provider's clock, and its own id."""
        hook.submit(self.paid, {**self.samples[self.paid], "prompt": "another"}, client_ref=THEIRS)
        began = datetime.fromtimestamp(sim.ledger()[-1]["at"], timezone.utc)
        with pytest.raises(SubmissionOutcomeUnknown):
            call(hook, "submit", self.paid, self.with_words("[sim:lose-reply]"), client_ref=mark)
        self.until_listed(sim)
        return began, sim.ledger()[-1]["id"]

    @pytest.mark.parametrize("ahead", [-4000, -600, -8, 8, 600, 4000, 3e8])
    def test_no_date_header_hides_it(
        self, connect: Any, sim: Simulator, peer: Peer, call: Any, ahead: float
    ) -> None:
        """Whatever `Date` an edge sends: a task with our mark is found, one without at least asked about."""
        if self.cannot_be_found(self.hook_for(connect, sim)):
            return
        peer.answer = edge(sim.url, ahead)
        hook = self.hook_for(connect, sim, host=f"{peer.url}/{self.hook_class.conn_type}")
        began, own_id = self.lost(hook, sim, call)
        wanted = {"operation": self.paid, "arguments": self.with_words("[sim:lose-reply]")}
        found, question = [], ""
        try:
            found = call(hook, "find_tasks", client_ref=OURS, submitted_after=began, **wanted)
        except SubmissionOutcomeUnknown as unknown:
            question = str(unknown)
        if self.expected_mark(self.paid) is None and not found:
            assert own_id in question
        else:
            assert [task.id.rpartition("/")[2] for task in found] == [own_id]

    @pytest.mark.parametrize("offset", [1e300, -1e300, float("inf"), float("-inf"), 1e12, -1e12])
    def test_no_measured_clock_is_too_wrong(self, hook: MediaHook, sim: Simulator, offset: float) -> None:
        """A clock that is off beyond all measure is no error of its own."""
        hook.submit(self.paid, self.samples[self.paid], client_ref=OURS)
        for since in (datetime.now(timezone.utc), datetime(1971, 1, 1, tzinfo=timezone.utc)):
            hook.clock_offset = offset
            assert hook.earliest(since)
            if not self.cannot_be_found(hook, submitted_after=since):
                hook.find_tasks(operation=self.paid, submitted_after=since)
        for year in (1, 9999):
            with pytest.raises(MediaRequestError, match="submitted_after"):
                hook.find_tasks(submitted_after=datetime(year, 1, 1, tzinfo=timezone.utc))

    def test_what_carries_another_mark_is_another(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """An equal request with another mark of ours is not taken, however young; each shows its own."""
        if self.cannot_be_found(hook):
            return
        began = datetime.now(timezone.utc)
        for mark in (THEIRS, OURS.replace("0a", "0c")):
            call(hook, "submit", self.paid, self.samples[self.paid], client_ref=mark)
        self.until_listed(sim)
        listed = call(hook, "find_tasks", operation=self.paid)
        marks = {hook.mark_of(task) for task in listed}
        wanted = {"operation": self.paid, "arguments": self.samples[self.paid], "submitted_after": began}
        if self.expected_mark(self.paid) is None:
            assert marks == {None}
            return
        assert marks == {THEIRS, OURS.replace("0a", "0c")}
        assert call(hook, "find_tasks", client_ref=OURS, **wanted) == []
        assert call(hook, "find_tasks", **wanted) == []
        (found,) = call(hook, "find_tasks", client_ref=THEIRS, **wanted)
        assert hook.mark_of(found) == THEIRS

    def test_a_reference_of_somebody_else_is_no_mark(self, hook: MediaHook, sim: Simulator) -> None:
        """Only what this package makes is a mark of it."""
        if self.cannot_be_found(hook):
            return
        hook.submit(self.paid, self.samples[self.paid], client_ref=MARK)
        hook.submit(self.paid, self.samples[self.paid])
        self.until_listed(sim)
        assert {hook.mark_of(task) for task in hook.find_tasks(operation=self.paid)} == {None}

    @pytest.mark.parametrize("before", [0, 49, 50, 60, 120])
    def test_many_tasks_of_the_hour_before_hide_nothing(
        self, hook: MediaHook, sim: Simulator, before: int
    ) -> None:
        """What never arrived is known to be absent, however many others were made in the hour before."""
        if self.cannot_be_found(hook):
            return
        with hook:
            for number in range(before):
                other = {**self.samples[self.paid], "prompt": f"other {number}"}
                hook.submit(self.paid, other, client_ref=f"amt-{number:032x}")
            sim.advance(300)
            hook.submit(self.paid, {**self.samples[self.paid], "prompt": "the last"}, client_ref=THEIRS)
            began = datetime.fromtimestamp(sim.ledger()[-1]["at"], timezone.utc)
            sim.fault("outage", on="submit", status=503, count=1)
            with pytest.raises(SubmissionOutcomeUnknown):
                hook.submit(self.paid, self.samples[self.paid], client_ref=OURS)
            wanted = {"operation": self.paid, "arguments": self.samples[self.paid]}
            since = self.proven_since(began)
            assert hook.find_tasks(client_ref=OURS, submitted_after=since, **wanted) == []

    # Ids.

    @pytest.mark.parametrize(
        "own_id", ["a:b", "a.b", "1", "..a", "ü", "a%2Fb", "a+b=", "~@!$&'()*,;", "x" * 400]
    )
    def test_every_id_that_a_provider_gives_is_taken_back(
        self, connect: Any, sim: Simulator, peer: Peer, own_id: str
    ) -> None:
        """What a submission was answered with can be asked for, and is sent as one segment of a path."""
        hook = self.hook_for(connect, sim, host=peer.url)
        peer.answer = lambda handler: say(handler, self.accepted(own_id))
        task = hook.submit(self.paid, self.samples[self.paid])
        assert task.id.rpartition("/")[2] == own_id
        assert hook.check_id(task.id) == task.id
        assert hook.get_task(task.id).id == task.id
        method, path, _, body = peer.seen[-1]
        assert quote(own_id, safe="") in path.split("/") or (method == "POST" and own_id in body.decode())

    @pytest.mark.parametrize(
        "own_id",
        ["", "a/b", "../a", "..", ".", "a b", "a?b", "a#b", "a\n", "a\x00", "\ud800", "x" * 401, [], {}],
    )
    def test_what_cannot_be_an_id_is_an_unknown_outcome(
        self, connect: Any, sim: Simulator, peer: Peer, call: Any, own_id: Any
    ) -> None:
        """A reply that names the task by what no id can be leaves the outcome unknown; it is sent once."""
        hook = self.hook_for(connect, sim, host=peer.url)
        peer.answer = lambda handler: say(handler, self.accepted(own_id))
        with pytest.raises(SubmissionOutcomeUnknown):
            call(hook, "submit", self.paid, self.samples[self.paid])
        assert len(peer.seen) == 1
