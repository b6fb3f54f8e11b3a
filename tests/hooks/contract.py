"""What every provider's hook must do, whichever provider it is: inherited by the test class of each."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
import structlog

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.landing import storage
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
from tests.test_verification import picture, sample

from .case import KEY, MARK
from .gate_contract import GateContract
from .input_contract import InputContract
from .lost_contract import LostContract
from .peer import Peer, say


class HookContract(InputContract, LostContract, GateContract):
    """Set the attributes of `HookCase` and inherit; what only one provider does is in its own class."""

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
            assert task.status is self.begins
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
        # An operation that takes any model makes files of any kind.
        kinds = {hook.operations[operation].kind or file.kind for file in done.files}
        assert done.url in {file.url for file in done.files if file.kind in kinds}
        assert all(url.startswith(sim.url + self.results_at) for url in done.urls)
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
            singly = 200 * self.requests_per_result
            assert asked == (singly if hook.batch_size == 1 else 2 * -(-100 // hook.batch_size))
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
        if word in self.never_says:
            return
        task = call(hook, "submit", self.paid, self.with_words(f"[sim:fail={word}]"))
        sim.advance(10)
        done = call(hook, "get_task", task.id)
        assert done.status is TaskStatus.FAILED
        assert type(done.error) is cls
        assert "no reason given" not in str(done.error)
        assert (done.error.provider, done.error.media_task_id) == (hook.conn_type, task.id)
        assert done.files == ()

    def test_every_documented_type_lands(
        self, connect: Any, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever type of file the provider's documents name for an operation, it lands as what was made."""
        monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS", "127.0.0.1")
        hook = self.hook_class(connect(conn_type=self.hook_class.conn_type, host=peer.url, password=KEY))
        place = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 0}
        for number, (operation, path, content_type) in enumerate(self.documented):
            content = picture("GIF", 5) if content_type == "image/gif" else sample(content_type, tmp_path)
            url = f"{peer.url}/files/{path}"

            def answer(
                handler: Any, url: str = url, content: bytes = content, operation: str = operation
            ) -> None:
                is_file = handler.path.startswith("/files/")
                say(handler, content if is_file else self.finished_with(operation, url))

            peer.answer = answer
            group = self.group_of(operation)
            task = hook.get_task(f"{group}/t-1" if group else "t-1")
            assert task.url == url
            assert task.files[0].kind == hook.operations[operation].kind
            destination = storage.Destination(f"{(tmp_path / str(number)).as_uri()}/", place)
            made = storage.made_of(task.to_dict(), [hook.media_conn_id])
            (landed,) = storage.land(made, destination, hook.log)
            assert [file["content_type"] for file in landed["files"]] == [content_type]

    def test_task_may_be_invisible_at_first(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """A task that the provider does not show yet is not found, and is found later."""
        task = call(hook, "submit", self.paid, self.with_words("[sim:not-visible=2]"))
        with pytest.raises(MediaNotFoundError):
            call(hook, "get_task", task.id)
        sim.advance(3)
        assert call(hook, "get_task", task.id).id == task.id

    def test_a_running_task_is_cancelled(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """Where tasks can be cancelled one ends at once; what has ended stays as it is."""
        if not hook.can_cancel:
            return
        done = self.finished(hook, sim).id
        task = call(hook, "submit", self.paid, self.with_words(self.under_way))
        for _ in range(2):
            assert call(hook, "cancel_task", task.id).status in (TaskStatus.CANCELLED, TaskStatus.FAILED)
        assert call(hook, "cancel_task", done).status is TaskStatus.SUCCEEDED
        assert [one["status"] for one in sim.tasks()] == ["succeeded", "cancelled"]

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
        if word in self.never_says:
            return
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
            assert self.wrong_key_words in str(caught.value)
            assert self.wrong_key_status in str(caught.value)
            assert "sim-bad-key" not in f"{caught.value} {caught.value.to_dict()}"
        assert sim.ledger() == []

    def test_no_funds(self, connect: Any, sim: Simulator, call: Any) -> None:
        """An account without money gets MediaFundsError at the submission."""
        if "funds" in self.never_says:
            return
        hook = self.hook_for(connect, sim, password="sim-no-funds")
        with pytest.raises(MediaFundsError):
            call(hook, "submit", self.paid, self.samples[self.paid])
        assert sim.ledger() == []

    def test_refusal_says_how_long_to_wait(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """A submission refused for its rate is not repeated here; its error says when it may be."""
        sim.fault("rate_limit", on="submit", retry_after=7)
        with pytest.raises(MediaRateLimitError) as caught:
            call(hook, "submit", self.paid, self.samples[self.paid])
        assert caught.value.retry_after == 7
        assert caught.value.code is not None
        assert sum(sim.requests().values()) == 1

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
        if not self.cannot_be_found(hook):
            with pytest.raises(MediaProviderError):
                call(hook, "find_tasks", operation=self.paid)
