"""What every provider's hook must do, whichever provider it is: inherited by the test class of each."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

import pytest
import structlog
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaProviderError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)


KEY = "a-key-that-nobody-may-see"
VIDEO_ID = "stands for the id of a finished video"
MARK = "reference 1/2"


class HookContract:
    """Set the attributes and inherit; what only one provider does is tested in its own class."""

    hook_class: ClassVar[type[MediaHook]]
    samples: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Good arguments for every operation."""
    paid: ClassVar[str]
    """The operation used where one is as good as another; it takes a prompt."""
    other: ClassVar[str]
    """One whose tasks belong to another group (service, path) than those of `paid`."""
    foreign_ids: ClassVar[tuple[str, ...]]
    """Ids of other providers and things that are no id at all."""
    unknown_id: ClassVar[str]
    """A well-formed id that no task has."""
    concurrency_error: ClassVar[type[MediaTaskError]] = MediaRateLimitError
    blocking: ClassVar[frozenset[str]] = frozenset()
    """Operations whose submission answers when everything is made."""
    ambiguous: ClassVar[frozenset[str]] = frozenset()
    """Operations that cannot be told from a task's own document."""
    cost_unit: ClassVar[str | None] = None
    finds_by_request: ClassVar[bool] = True
    """Whether a lost submission is found with no mark at all."""

    # What a test is made of.

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test that asks for `operation` runs for each operation of the hook."""
        if "operation" in metafunc.fixturenames:
            metafunc.parametrize("operation", sorted(self.hook_class.operations))

    def hook_for(self, connect: Any, sim: Simulator, **fields: Any) -> MediaHook:
        """A hook of a connection to the simulator with these fields."""
        conn_type = self.hook_class.conn_type
        known = {"conn_type": conn_type, "host": f"{sim.url}/{conn_type}", "password": KEY}
        hook = self.hook_class(connect(**{**known, **fields}))
        hook.retry_wait = 0.001
        return hook

    @pytest.fixture
    def hook(self, connect: Any, sim: Simulator) -> MediaHook:
        """A hook with a good key, which does not dawdle between two tries."""
        return self.hook_for(connect, sim)

    def arguments(self, operation: str, hook: MediaHook, sim: Simulator) -> dict[str, Any]:
        """The sample for *operation*, with a finished video where it asks for one."""
        sample = dict(self.samples[operation])
        if VIDEO_ID in sample.values():
            made = self.finished(hook, sim, next(name for name in self.samples if "text_to_video" in name))
            sample = {
                word: made.files[0].id if value == VIDEO_ID else value for word, value in sample.items()
            }
        return sample

    def with_words(self, words: str, operation: str | None = None) -> dict[str, Any]:
        """The sample with *words* for the simulator in its prompt."""
        return {**self.samples[operation or self.paid], "prompt": f"a lighthouse at dusk {words}"}

    def finished(self, hook: MediaHook, sim: Simulator, operation: str | None = None) -> MediaTask:
        """A task that has succeeded."""
        operation = operation or self.paid
        task = hook.submit(operation, self.samples[operation])
        sim.advance(10)
        return hook.get_task(task.id)

    def expected_mark(self, operation: str) -> str | None:
        """What the ledger's client_ref must contain after a submission marked with `MARK`, or None."""
        raise NotImplementedError

    # Submitting and reading.

    def test_every_operation_ends_in_files(
        self, operation: str, hook: MediaHook, sim: Simulator, call: Any
    ) -> None:
        """Each operation is billed once under its own name, runs, and ends with a file of its kind."""
        arguments = self.arguments(operation, hook, sim)
        before = len(sim.ledger())
        task = call(hook, "submit", operation, arguments, client_ref=MARK)
        assert task.operation == operation
        (entry,) = sim.ledger()[before:]
        assert entry["provider"] == self.hook_class.conn_type
        assert entry["operation"] == operation
        mark = self.expected_mark(operation)
        assert (entry["client_ref"] is None) if mark is None else (mark in entry["client_ref"])
        if operation in self.blocking:
            done = task
        else:
            assert task.status is TaskStatus.QUEUED
            sim.advance(1.5)
            running = call(hook, "get_task", task.id)
            assert running.status is TaskStatus.RUNNING
            assert not running.files
            sim.advance(10)
            done = call(hook, "get_task", task.id)
            assert done.id == task.id
            assert done.operation == ("" if operation in self.ambiguous else operation)
        assert done.status is TaskStatus.SUCCEEDED
        assert done.error is None
        kind = hook.operations[operation].kind
        assert kind in {file.kind for file in done.files}
        assert done.url in {file.url for file in done.files if file.kind == kind}
        assert all(url.startswith(f"{sim.url}/media/") for url in done.urls)
        assert MediaTask.from_dict(json.loads(json.dumps(done.to_dict()))) == done
        assert len(sim.ledger()) == before + 1

    def test_cost_is_what_the_provider_says(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """A finished task shows the ledger's amount in the provider's unit, or nothing where none is told."""
        task = call(hook, "submit", self.paid, self.samples[self.paid])
        sim.advance(10)
        cost = call(hook, "get_task", task.id).cost
        if self.cost_unit is None:
            assert cost is None
        else:
            assert cost is not None
            assert (cost.unit, cost.amount) == (self.cost_unit, sim.ledger()[0]["amount"])

    def test_many_tasks_are_what_each_is_alone(self, hook: MediaHook, sim: Simulator) -> None:
        """200 tasks of two groups read together equal those read singly, in as few requests as can be."""
        with hook:
            ids = [
                hook.submit(operation, self.samples[operation]).id
                for operation in (self.paid, self.other)
                for _ in range(100)
            ]
            sim.advance(10)
            before = sum(sim.requests().values())
            together = hook.get_tasks([*ids, ids[0]])
            asked = sum(sim.requests().values()) - before
            assert list(together) == sorted(ids, key=list(together).index)
            assert asked == (200 if hook.batch_size == 1 else 2 * -(-100 // hook.batch_size))
            assert all(task.status is TaskStatus.SUCCEEDED for task in together.values())
            assert {id_: hook.get_task(id_) for id_ in ids[::10]} == {id_: together[id_] for id_ in ids[::10]}
        assert asyncio.run(hook.aget_tasks(ids)) == together

    def test_unknown_ids_are_absent(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """Of many ids, one that the provider does not know is left out; alone it is MediaNotFoundError."""
        known = call(hook, "submit", self.paid, self.samples[self.paid]).id
        assert list(call(hook, "get_tasks", [self.unknown_id, known])) == [known]
        with pytest.raises(MediaNotFoundError) as caught:
            call(hook, "get_task", self.unknown_id)
        assert caught.value.provider == hook.conn_type

    def test_nobody_else_sees_a_task(self, hook: MediaHook, sim: Simulator, connect: Any) -> None:
        """A task can be read with the key it was submitted with, and with no other."""
        task = hook.submit(self.paid, self.samples[self.paid])
        with pytest.raises(MediaNotFoundError):
            self.hook_for(connect, sim, conn_id="another", password="another-key").get_task(task.id)

    def test_unknown_status_word_is_running_and_logged_once(
        self, hook: MediaHook, sim: Simulator, call: Any
    ) -> None:
        """A status word that nobody knows is not the end, and is worth one warning however often it comes."""
        task = call(hook, "submit", self.paid, self.with_words("[sim:status=pondering] [sim:seconds=100]"))
        sim.advance(50)
        with structlog.testing.capture_logs() as logs:
            seen = [call(hook, "get_task", task.id) for _ in range(3)]
        assert {found.status for found in seen} == {TaskStatus.RUNNING}
        warnings = [line for line in logs if line["log_level"] == "warning"]
        assert len(warnings) == 1
        assert "'pondering'" in warnings[0]["event"]

    def test_success_without_output_is_a_failure(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """A success word with no URL is a failed task with the code no_output."""
        task = call(hook, "submit", self.paid, self.with_words("[sim:no-output] [sim:final=succeeded]"))
        sim.advance(10)
        done = call(hook, "get_task", task.id)
        assert done.status is TaskStatus.FAILED
        assert isinstance(done.error, MediaTaskFailed)
        assert done.error.code == "no_output"
        assert done.error.media_task_id == task.id

    @pytest.mark.parametrize(
        ("word", "cls"), [("moderation", MediaModerationError), ("provider", MediaTaskFailed)]
    )
    def test_failed_task_says_why(
        self, hook: MediaHook, sim: Simulator, call: Any, word: str, cls: type[MediaTaskError]
    ) -> None:
        """A task that ended failed carries an error of the right class with the provider's words."""
        task = call(hook, "submit", self.paid, self.with_words(f"[sim:fail={word}]"))
        sim.advance(10)
        done = call(hook, "get_task", task.id)
        assert done.status is TaskStatus.FAILED
        assert type(done.error) is cls
        assert "no reason given" not in str(done.error)
        assert (done.error.provider, done.error.media_task_id) == (hook.conn_type, task.id)
        assert done.files == ()

    def test_task_may_be_invisible_at_first(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """A task that the provider does not show yet is not found, and is found later."""
        task = call(hook, "submit", self.paid, self.with_words("[sim:not-visible=2]"))
        with pytest.raises(MediaNotFoundError):
            call(hook, "get_task", task.id)
        sim.advance(3)
        assert call(hook, "get_task", task.id).id == task.id

    # Refused submissions.

    @pytest.mark.parametrize(
        ("word", "cls"),
        [
            ("auth", MediaAuthError),
            ("funds", MediaFundsError),
            ("rate", MediaRateLimitError),
            ("concurrency", None),
            ("moderation", MediaModerationError),
            ("bad_request", MediaRequestError),
            ("not_found", MediaNotFoundError),
            ("server", SubmissionOutcomeUnknown),
        ],
    )
    def test_refused_submission_is_a_typed_error(
        self, hook: MediaHook, sim: Simulator, call: Any, word: str, cls: type[MediaTaskError] | None
    ) -> None:
        """Each refusal comes back as the class that says what to do, is sent once and costs nothing."""
        with pytest.raises(cls or self.concurrency_error) as caught:
            call(hook, "submit", self.paid, self.with_words(f"[sim:reject={word}]"))
        assert type(caught.value) is (cls or self.concurrency_error)
        assert caught.value.provider == hook.conn_type
        assert hook.conn_type in str(caught.value)
        assert sum(sim.requests().values()) == 1
        assert sim.ledger() == []

    def test_bad_key_is_an_auth_error(self, connect: Any, sim: Simulator, call: Any) -> None:
        """A wrong key gives MediaAuthError in the provider's words, without the key, for each request."""
        hook = self.hook_for(connect, sim, password="sim-bad-key")
        for method, *given in (("submit", self.paid, self.samples[self.paid]), ("get_task", self.unknown_id)):
            with pytest.raises(MediaAuthError) as caught:
                call(hook, method, *given)
            assert "invalid" in str(caught.value)
            assert "401" in str(caught.value)
            assert "sim-bad-key" not in f"{caught.value} {caught.value.to_dict()}"
        assert sim.ledger() == []

    def test_no_funds(self, connect: Any, sim: Simulator, call: Any) -> None:
        """An account without money gets MediaFundsError at the submission."""
        hook = self.hook_for(connect, sim, password="sim-no-funds")
        with pytest.raises(MediaFundsError):
            call(hook, "submit", self.paid, self.samples[self.paid])
        assert sim.ledger() == []

    # Submissions of unknown outcome.

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
        began = datetime.now(timezone.utc)
        hook.submit(self.paid, {**self.samples[self.paid], "prompt": "another picture"}, client_ref="other")
        lost = self.with_words("[sim:lose-reply]")
        with pytest.raises(SubmissionOutcomeUnknown):
            call(hook, "submit", self.paid, lost, client_ref=MARK)
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
        began = datetime.now(timezone.utc)
        hook.submit(self.paid, {**self.samples[self.paid], "prompt": "another picture"}, client_ref="other")
        lost = self.with_words("")
        sim.fault("lose_request", on="submit")
        with pytest.raises(SubmissionOutcomeUnknown):
            call(hook, "submit", self.paid, lost, client_ref=MARK)
        wanted = {"operation": self.paid, "arguments": lost, "submitted_after": began}
        assert call(hook, "find_tasks", client_ref=MARK, **wanted) == []

    def test_tasks_are_listed_by_time(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """With a time alone, the tasks submitted since are listed, newest first, and older ones are not."""
        old = hook.submit(self.paid, self.samples[self.paid])
        sim.advance(7200)
        new = [hook.submit(self.paid, self.samples[self.paid]).id for _ in range(2)]
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

    # Reads that go wrong.

    def test_rate_limited_read_waits_as_told(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """A read refused for its rate is repeated after Retry-After seconds and succeeds."""
        task = call(hook, "submit", self.paid, self.samples[self.paid])
        sim.fault("rate_limit", on="read", retry_after=0.2, count=1)
        began = time.monotonic()
        assert call(hook, "get_task", task.id).id == task.id
        assert time.monotonic() - began >= 0.2

    def test_rate_limit_that_lasts(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """After the last try it is MediaRateLimitError, with the seconds that the provider asks for."""
        task = call(hook, "submit", self.paid, self.samples[self.paid])
        hook.read_attempts = 2
        sim.fault("rate_limit", on="read", retry_after=0.1)
        before = sum(sim.requests().values())
        with pytest.raises(MediaRateLimitError) as caught:
            call(hook, "get_task", task.id)
        assert caught.value.retry_after == 0.1
        assert sum(sim.requests().values()) - before == 2

    @pytest.mark.parametrize(("status", "html"), [(500, False), (502, True), (503, False), (504, True)])
    def test_outage_of_a_read(
        self, hook: MediaHook, sim: Simulator, call: Any, status: int, html: bool
    ) -> None:
        """A read that meets a 5xx, in whatever form, is repeated, and in the end is MediaProviderError."""
        task = call(hook, "submit", self.paid, self.samples[self.paid])
        sim.fault("outage", on="read", status=status, html=html, count=hook.read_attempts - 1)
        assert call(hook, "get_task", task.id).id == task.id
        sim.fault("outage", on="read", status=status, html=html)
        before = sum(sim.requests().values())
        with pytest.raises(MediaProviderError, match=str(status)):
            call(hook, "get_task", task.id)
        assert sum(sim.requests().values()) - before == hook.read_attempts

    def test_read_whose_connection_is_cut(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """A read that gets no answer is repeated, and in the end is MediaProviderError."""
        task = call(hook, "submit", self.paid, self.samples[self.paid])
        sim.fault("lose_reply", on="read", count=1)
        assert call(hook, "get_task", task.id).id == task.id
        sim.fault("lose_reply", on="read")
        with pytest.raises(MediaProviderError, match="did not answer"):
            call(hook, "get_task", task.id)

    @pytest.mark.parametrize("form", ["html", "truncated", "huge", "null"])
    def test_unreadable_task_is_a_typed_error(
        self, hook: MediaHook, sim: Simulator, call: Any, form: str
    ) -> None:
        """A status reply that is HTML, cut off, 50 MB or null is a typed error, soon."""
        task = call(hook, "submit", self.paid, self.with_words(f"[sim:{form}]"))
        hook.read_attempts = 2
        began = time.monotonic()
        with pytest.raises((MediaProviderError, MediaNotFoundError)):
            call(hook, "get_task", task.id)
        assert time.monotonic() - began < 20

    @pytest.mark.parametrize("form", ["html", "truncated", "huge", "null"])
    def test_unreadable_task_disturbs_no_other(self, hook: MediaHook, sim: Simulator, form: str) -> None:
        """Of a batch with one unreadable task, all others are read."""
        hook.read_attempts = 1
        bad = hook.submit(self.paid, self.with_words(f"[sim:{form}]")).id
        good = [hook.submit(self.paid, self.samples[self.paid]).id for _ in range(2)]
        sim.advance(10)
        found: dict[str, Any] = {}
        batch = [good[0], bad, good[1]]
        for start in range(0, len(batch), hook.batch_size):
            asked = batch[start : start + hook.batch_size]
            try:
                found |= asyncio.run(hook.aread_tasks(asked))
            except MediaProviderError as error:
                found |= dict.fromkeys(asked, error)
        assert [found[id_].status for id_ in good] == [TaskStatus.SUCCEEDED] * 2
        assert isinstance(found[bad], (MediaProviderError, MediaNotFoundError))

    @pytest.mark.parametrize("form", ["html", "truncated", "huge", "null"])
    def test_every_reply_unreadable(self, hook: MediaHook, sim: Simulator, call: Any, form: str) -> None:
        """When nothing that the provider says can be read, reading many and listing are typed errors."""
        ids = [call(hook, "submit", self.paid, self.samples[self.paid]).id for _ in range(2)]
        hook.read_attempts = 1
        sim.fault(form, on="read")
        with pytest.raises(MediaProviderError):
            call(hook, "get_tasks", ids)
        with pytest.raises(MediaProviderError):
            call(hook, "find_tasks", operation=self.paid)

    # The connection.

    def test_nobody_listens(self, connect: Any, sim: Simulator, call: Any, closed_port: int) -> None:
        """Where nothing listens the error says unreachable, for a submission too: nothing was sent."""
        hook = self.hook_for(connect, sim, host=f"http://127.0.0.1:{closed_port}")
        for method, *given in (("submit", self.paid, self.samples[self.paid]), ("get_task", self.unknown_id)):
            with pytest.raises(MediaProviderError, match="cannot be reached") as caught:
                call(hook, method, *given)
            assert caught.value.code == "unreachable"

    def test_submission_waits_for_a_connection(
        self, connect: Any, sim: Simulator, call: Any, closed_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A connection that is refused is tried again, even for a submission, which is then billed once."""
        host = f"http://127.0.0.1:{closed_port}/{self.hook_class.conn_type}"
        hook = self.hook_for(connect, sim, host=host)
        late = Simulator(port=closed_port)
        tries = 0
        signed = hook._headers

        def headers() -> dict[str, str]:
            nonlocal tries
            tries += 1
            if tries == 3:
                late.start()
            return signed()

        monkeypatch.setattr(hook, "_headers", headers)
        try:
            call(hook, "submit", self.paid, self.samples[self.paid])
            assert len(late.ledger()) == 1
        finally:
            late.stop()
        assert tries == 3

    def test_connection_button(self, connect: Any, sim: Simulator, closed_port: int) -> None:
        """Airflow's Test button tells a good key, a wrong one, a missing one and a wrong host apart."""
        good, text = self.hook_for(connect, sim).test_connection()
        assert good, text
        assert text.startswith("ok, ")
        bad = [
            ({"password": "sim-bad-key"}, "invalid"),
            ({"password": ""}, "has no password"),
            ({"host": f"http://127.0.0.1:{closed_port}"}, "cannot be reached"),
            ({"host": "ftp://example.com"}, "host must be a URL"),
            ({"conn_type": "http"}, "has the type 'http'"),
        ]
        for fields, expected in bad:
            good, text = self.hook_for(connect, sim, **fields).test_connection()
            assert not good
            assert expected in text
            assert "sim-bad-key" not in text
        assert self.hook_class("undefined").test_connection()[0] is False

    def test_connection_of_another_type(self, connect: Any, sim: Simulator, call: Any) -> None:
        """A connection of another type is refused, by name and with both types."""
        hook = self.hook_for(connect, sim, conn_type="http")
        with pytest.raises(MediaRequestError, match=rf"'account'.*'http'.*'{self.hook_class.conn_type}'"):
            call(hook, "submit", self.paid, self.samples[self.paid])
        assert sim.requests() == {}

    def test_unknown_connection(self, sim: Simulator, call: Any) -> None:
        """A connection id that is not defined is named in Airflow's own error."""
        with pytest.raises(AirflowNotFoundException, match="undefined"):
            call(self.hook_class("undefined"), "get_task", self.unknown_id)
        assert sim.requests() == {}

    def test_default_connection(self) -> None:
        """Without a connection id it is the provider's default one."""
        assert self.hook_class().media_conn_id == f"{self.hook_class.conn_type}_default"

    @pytest.mark.parametrize("key", ["", "a-key\n", "ключ", "a\tkey"])
    def test_key_that_cannot_be_one(self, connect: Any, sim: Simulator, call: Any, key: str) -> None:
        """A missing key, or one with a line break or a foreign letter, is told before anything is sent."""
        hook = self.hook_for(connect, sim, password=key)
        with pytest.raises(MediaAuthError, match="'account'") as caught:
            call(hook, "submit", self.paid, self.samples[self.paid])
        assert not key or key not in str(caught.value)
        assert sim.requests() == {}

    @pytest.mark.parametrize(
        "host", ["ftp://example.com", "https://", "http://[::1", "http://host:port", "http://host:99999"]
    )
    def test_host_that_is_no_address(self, connect: Any, sim: Simulator, call: Any, host: str) -> None:
        """A host that is no address is refused, with its value and an example."""
        hook = self.hook_for(connect, sim, host=host)
        with pytest.raises(MediaRequestError, match="host must be a URL such as https://") as caught:
            call(hook, "get_task", self.unknown_id)
        assert repr(host.rstrip("/")) in str(caught.value)

    def test_host_may_be_left_out(self, connect: Any) -> None:
        """Without a host the provider's public address is used; a bare name gets https."""
        name = self.hook_class.conn_type
        assert self.hook_class(connect(conn_type=name)).settings.base_url == self.hook_class.base_url
        bare = self.hook_class(connect(conn_type=name, host="proxy.example.com", port=8443))
        assert bare.settings.base_url == "https://proxy.example.com:8443"

    def test_settings_do_not_show_the_key(self, hook: MediaHook) -> None:
        """What a debugger or a traceback prints of the settings has no secret in it."""
        assert KEY not in repr(hook.settings)

    # Arguments.

    def test_unknown_operation_lists_what_there_is(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """An operation that the provider does not have is answered with all that it has."""
        for wrong in ("paint_the_fence", "", None, ["text_to_image"]):
            with pytest.raises(MediaRequestError) as caught:
                call(hook, "submit", wrong, self.samples[self.paid])
            assert all(name in str(caught.value) for name in hook.operations)
        assert sim.requests() == {}

    def test_missing_argument_is_named(self, operation: str, hook: MediaHook, sim: Simulator) -> None:
        """For each operation, a missing or null argument is named; nothing is sent."""
        required = hook.operations[operation].required
        for word in required:
            for sample in (
                {key: value for key, value in self.samples[operation].items() if key != word},
                {**self.samples[operation], word: None},
            ):
                with pytest.raises(MediaRequestError, match=f"{word!r}"):
                    hook.submit(operation, sample)
        for group in hook.operations[operation].one_of:
            none = {key: value for key, value in self.samples[operation].items() if key not in group}
            both = {**none, **{word: self.plausible(word) for word in group}}
            for sample in (none, both):
                with pytest.raises(MediaRequestError, match="exactly one of"):
                    hook.submit(operation, sample)
        assert sim.requests() == {}

    @staticmethod
    def plausible(word: str) -> Any:
        """A value of the right type for *word*."""
        return ["https://example.com/1.png"] if word.endswith("_urls") else "https://example.com/1.png"

    @pytest.mark.parametrize(
        ("wrong", "expected"),
        [
            ({"prompt": ""}, "argument 'prompt' of .* must be a text that is not empty, got ''"),
            ({"prompt": "  "}, "'prompt'.*not empty"),
            ({"prompt": 5}, "argument 'prompt' of .* must be a text, got 5"),
            ({"prompt": ["a"]}, r"'prompt'.*must be a text, got \['a'\]"),
            ({"negative_prompt": 1}, "'negative_prompt'"),
            ({"model": ""}, "'model'"),
            ({"aspect_ratio": 1.5}, "'aspect_ratio'.*1.5"),
            ({"duration": "long"}, "argument 'duration' of .* number of seconds above 0, got 'long'"),
            ({"duration": 0}, "'duration'.*above 0, got 0"),
            ({"duration": True}, "'duration'.*got True"),
            ({"count": 0}, "argument 'count' of .* whole number from 1, got 0"),
            ({"count": 1.5}, "'count'.*1.5"),
            ({"seed": -1}, "'seed'.*whole number from 0, got -1"),
            ({"seed": "x"}, "'seed'.*'x'"),
            ({"option": float("nan")}, "JSON"),
            ({"option": float("inf")}, "JSON"),
            ({"option": object()}, "JSON"),
            ({"option": {1, 2}}, "JSON"),
            ({"prompt": "half a pair \ud800"}, "JSON"),
            ({5: "x"}, "argument names are texts, got 5"),
        ],
    )
    def test_wrong_argument_is_refused_before_it_is_paid_for(
        self, hook: MediaHook, sim: Simulator, call: Any, wrong: dict[Any, Any], expected: str
    ) -> None:
        """An argument of the wrong type or range is named with its value and what is allowed."""
        with pytest.raises(MediaRequestError, match=expected):
            call(hook, "submit", self.paid, {**self.samples[self.paid], **wrong})
        assert sim.requests() == {}
        assert sim.ledger() == []

    @pytest.mark.parametrize("arguments", [None, "a prompt", ["a"], 5])
    def test_arguments_that_are_no_dict(
        self, hook: MediaHook, sim: Simulator, call: Any, arguments: Any
    ) -> None:
        """Arguments that are no dict are refused with the type that they have."""
        with pytest.raises(MediaRequestError, match=f"must be a dict.*{type(arguments).__name__}"):
            call(hook, "submit", self.paid, arguments)
        assert sim.requests() == {}

    def test_what_is_not_ours_passes_through(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """A key that this package does not know reaches the provider untouched."""
        option = {"depth": [1, {"deep": None}], "text": "ü"}
        call(hook, "submit", self.paid, {**self.samples[self.paid], "brand_new_option": option})
        assert json.dumps(option) in json.dumps(sim.ledger()[0]["request"])

    # Ids and what a provider cannot do.

    def test_id_of_another_provider(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """An id of another provider's form is refused, with the form it should have, before any request."""
        for wrong in (*self.foreign_ids, "", "  ", f"{self.unknown_id}\n", None, 5):
            for method, given in (("get_task", wrong), ("get_tasks", [self.unknown_id, wrong])):
                with pytest.raises(MediaRequestError, match=r"media_task_id .* is none of") as caught:
                    call(hook, method, given)
                assert hook.id_form in str(caught.value)
                assert "'account'" in str(caught.value)
        assert sim.requests() == {}

    def test_what_the_provider_cannot_do(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """Asking to cancel, or for a balance, where there is no such thing says so and sends nothing."""
        assert not hook.can_cancel
        with pytest.raises(MediaRequestError, match="cannot cancel"):
            call(hook, "cancel_task", self.unknown_id)
        if not hook.has_balance:
            with pytest.raises(MediaRequestError, match="balance"):
                call(hook, "get_balance")
        assert sim.requests() == {}

    def test_one_client_for_many_calls(self, hook: MediaHook, sim: Simulator) -> None:
        """Within `async with` all calls share one client, ten at a time, which is closed at its end."""

        async def many() -> Any:
            async with hook:
                client = hook._async_client
                tasks = await asyncio.gather(
                    *(hook.asubmit(self.paid, self.samples[self.paid]) for _ in range(20))
                )
                found = await hook.aget_tasks(task.id for task in tasks)
                assert hook._async_client is client
            assert client is not None
            assert client.is_closed
            assert hook._async_client is None
            return found

        assert len(asyncio.run(many())) == 20
        assert len(sim.ledger()) == 20
