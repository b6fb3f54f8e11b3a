"""What every provider's hook must say to a wrong connection, argument or id."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaProviderError,
    MediaRequestError,
)

from .case import KEY, HookCase


NO_ADDRESSES = (
    "undefined",
    "null",
    "nan",
    "",
    "/data/fox.png",
    "fox.png",
    "./fox.png",
    "file:///data/fox.png",
    "s3://bucket/fox.png",
    "https://",
    "https:///fox.png",
    "http://[::1/fox.png",
    "https://example.com:port/fox.png",
    "https://example.com/a fox.png",
    "https://example.com/fox.png\n",
    "//example.com/fox.png",
    "javascript:alert(1)",
    5,
)
"""What a slip, or a template, makes of an address."""


class InputContract(HookCase):
    """Part of `HookContract`: nothing here may reach a provider, or cost anything."""

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
        late = Simulator(port=closed_port, more=self.simulated)
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
            ({"password": "sim-bad-key"}, "Look at the key"),
            *([] if self.hook_class.key_optional else [({"password": ""}, "has no password")]),
            ({"host": f"http://127.0.0.1:{closed_port}"}, "cannot be reached"),
            ({"host": f"http://127.0.0.1:{closed_port}"}, f"left empty it is {self.hook_class.base_url}"),
            ({"host": f"{sim.url}/nothing"}, "Look at the base URL"),
            ({"host": "ftp://example.com"}, "host must be a URL"),
            ({"conn_type": "http"}, "has the type 'http'"),
            ({"extra": {"allow_http": "yes"}}, "allow_http in extra must be true or false, got 'yes'"),
            ({"extra": {"prices": '{"*": '}}, "prices is no JSON"),
            ({"extra": {"prices": {"text_to_smell": {"amount": "1", "unit": "USD"}}}}, "'text_to_smell' is"),
            ({"extra": {"prices": {"*": {"amount": 0.4, "unit": "USD"}}}}, "must be a decimal number"),
        ]
        for fields, expected in bad:
            good, text = self.hook_for(connect, sim, **fields).test_connection()
            assert not good
            assert expected in text
            assert "sim-bad-key" not in text
        good, text = self.hook_for(connect, sim, password="sim-no-funds").test_connection()
        assert good
        assert self.hook_class.has_balance is ("nothing can be generated" in text)
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

    @pytest.mark.parametrize("key", ["", "a-\nkey", "ключ", "a\tkey"])
    def test_key_that_cannot_be_one(self, connect: Any, sim: Simulator, call: Any, key: str) -> None:
        """A missing key, or one with a line break or a foreign letter, is told before anything is sent."""
        if not key and self.hook_class.key_optional:
            return
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
        with pytest.raises(MediaRequestError, match="host must be a URL such as http") as caught:
            call(hook, "get_task", self.unknown_id)
        assert repr(host.rstrip("/")) in str(caught.value)

    @pytest.mark.parametrize("host", ["https://user:pass-word@example.com", "https://example.com/?a=1"])
    def test_host_with_more_than_an_address(self, connect: Any, sim: Simulator, call: Any, host: str) -> None:
        """A password or a query in the host is refused; the password is not repeated."""
        hook = self.hook_for(connect, sim, host=host)
        with pytest.raises(MediaRequestError, match="without a user, a password or a query") as caught:
            call(hook, "get_task", self.unknown_id)
        assert "example.com" in str(caught.value)
        assert "pass-word" not in str(caught.value)

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

    def test_address_that_is_none_is_refused_before_it_is_paid_for(
        self, operation: str, hook: MediaHook, sim: Simulator
    ) -> None:
        """Whatever is to be fetched, or to be told, has an http(s) address, each item of a list as well."""
        sample = self.samples[operation]
        for word in [*(word for word in sample if word.endswith(("_url", "_urls"))), "callback_url"]:
            many = word.endswith("_urls")
            for wrong in NO_ADDRESSES:
                for value in (
                    ([wrong], [*sample[word], wrong], wrong)
                    if many
                    else (wrong, ["https://example.com/1.png"])
                ):
                    with pytest.raises(MediaRequestError, match=rf"argument {word!r} of {operation!r} must"):
                        hook.submit(operation, {**sample, word: value})
        assert sim.requests() == {}

    def test_the_text_none_is_no_argument(self, operation: str, hook: MediaHook, sim: Simulator) -> None:
        """What a template makes of None is left out where it may be, and else named; nothing is sent."""
        sample = self.samples[operation]
        optional = {"duration", "seed", "count", "aspect_ratio", "model", "end_image_url", "callback_url"}
        optional -= {*sample, *hook.operations[operation].required}
        given = {**sample, **dict.fromkeys(optional, "None")}
        assert hook.check(operation, given) == hook.check(operation, sample)
        groups = [set(hook.operations[operation].required), *map(set, hook.operations[operation].one_of)]
        for word in set().union(*groups) & set(sample):
            with pytest.raises(MediaRequestError, match=rf"'{word}'.*a template makes 'None' of"):
                hook.submit(operation, {**sample, word: "None"})
        with pytest.raises(MediaRequestError, match=r"'prompt'.*a template makes 'None' of"):
            hook.submit(operation, {**sample, "prompt": "None"})
        assert sim.requests() == {}

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
        if not hook.can_cancel:
            with pytest.raises(MediaRequestError, match="cannot cancel"):
                call(hook, "cancel_task", self.unknown_id)
        if not hook.has_balance:
            with pytest.raises(MediaRequestError, match="balance"):
                call(hook, "get_balance")
        assert sim.requests() == {}

    def test_one_client_for_many_calls(self, hook: MediaHook, sim: Simulator) -> None:
        """Within `async with` all calls share one client, ten at a time, which is closed at its end."""

        async def many() -> Any:
            """All within one event loop."""
            async with hook:
                client = hook._async_client
                tasks = await asyncio.gather(
                    *(hook.asubmit(self.paid, self.samples[self.paid]) for _ in range(20))
                )
                found = await hook.aget_tasks(task.id for task in tasks)
                assert hook._async_client is client
            assert client is not None
            assert client.closed
            assert hook._async_client is None
            return found

        assert len(asyncio.run(many())) == 20
        assert len(sim.ledger()) == 20
