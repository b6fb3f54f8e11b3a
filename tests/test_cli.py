"""`airflow media-tasks`: what it asks of Airflow's API, what it writes, and what it says when that fails."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.module_loading import import_string

from airflow_media_tasks import cli
from airflow_media_tasks.get_provider_info import get_provider_info
from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.submissions import records


RECORD: dict[str, Any] = {
    "phase": "intent",
    "generation": 1,
    "number": 1,
    "fingerprint": "f",
    "client_ref": "amt-1",
    "submitted_after": "2026-11-20T10:11:12+00:00",
    "asked_at": "2026-11-20T10:12:12+00:00",
    "media_conn_id": "vap_default",
    "operation": "upscale_image",
}
PLACE = ("films", "manual__2026-11-20T10:00:00+00:00", "make.video")
SINGLE = (*PLACE, "-1", "media_task")
ANSWER = (*PLACE, "-1", "media_task.answer.amt-1")
CLEAR = {"dry_run": False, "dag_run_id": PLACE[1], "only_failed": False, "include_downstream": True}


@dataclass
class Api:
    """The routes of Airflow's API that the command uses, over real HTTP.

    :param rule: answers a request by itself, with a status and a body, or leaves it to the store (None).
    """

    url: str = ""
    entries: dict[tuple[str, ...], Any] = field(default_factory=dict)
    state: str | None = "failed"
    instance_id: str = "instance-1"
    seen: list[tuple[str, str, str | None, Any]] = field(default_factory=list)
    rule: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
    version: str = "3.3.2"
    cleared: list[Any] = field(default_factory=list)
    iterations: list[dict[str, Any]] = field(default_factory=list)
    copies: dict[str, str] = field(default_factory=dict)

    def answer(self, method: str, target: str, authorization: str | None, body: Any) -> tuple[int, str]:
        """Status and body."""
        url = urlsplit(target)
        self.seen.append((method, url.path, authorization, body))
        said = self.rule(method, url.path)
        if url.path == "/api/v2/version":
            said = said or (200, json.dumps({"version": self.version, "git_version": None}))
        if said is not None:
            return said
        if url.path == "/auth/token":
            return 201, json.dumps({"access_token": f"token-of-{(body or {}).get('username', 'anybody')}"})
        parts = [unquote(part) for part in url.path.split("/")]
        assert parts[:3] == ["", "api", "v2"]
        query = {name: value for name, (value,) in parse_qs(url.query).items()}
        if parts[3] == "assets":
            return self.assets(method, parts[4:], query)
        if parts[5:] == ["clearTaskInstances"]:
            return self.clear(body)
        assert parts[3::2][:3] == ["dags", "dagRuns", "taskInstances"]
        if parts[9:10] == ["state-store"]:
            return self.entry(method, (parts[4], parts[6], parts[8], *query.values(), *parts[10:]), body)
        assert (method, parts[10:]) == ("GET", [])
        instance = {"id": self.instance_id, "state": self.state}
        return 200, json.dumps({"task_instances": self.iterations} if len(parts) == 8 else instance)

    def entry(self, method: str, place: tuple[str, ...], body: Any) -> tuple[int, str]:
        """An entry of a task instance's state store."""
        if place not in self.entries and method == "GET":
            return 404, '{"detail": "not found"}'
        if method == "PUT":
            assert body.keys() == {"value", "expires_at"}
            assert body["expires_at"] is None
            self.entries[place] = body["value"]
            return 204, ""
        return 200, json.dumps({"key": place[-1], "value": self.entries[place]})

    def clear(self, body: Any) -> tuple[int, str]:
        """Notes it; Airflow 3.3 forbids what it does not know."""
        if "keep_task_state" in body and self.version.startswith("3.3"):
            return 422, '{"detail": "Extra inputs are not permitted"}'
        self.cleared.append(body)
        return 200, '{"task_instances": [], "total_entries": 0}'

    def assets(self, method: str, parts: list[str], query: dict[str, str]) -> tuple[int, str]:
        """The routes of assets: ours, one of a similar name, and the entries of ours."""
        if not parts:
            assert query["name_pattern"] == records.SUBMISSIONS.name
            names = [f"{records.SUBMISSIONS.name} of others", records.SUBMISSIONS.name]
            return 200, json.dumps(
                {"assets": [{"id": number, "name": name} for number, name in enumerate(names)]}
            )
        assert parts[:2] == ["1", "state-store"]
        if method == "DELETE":
            del self.copies[parts[2]]
            return 204, ""
        first, count = int(query["offset"]), int(query["limit"])
        page = [{"key": key, "value": {}, "updated_at": at} for key, at in sorted(self.copies.items())]
        return 200, json.dumps({"asset_state_store": page[first : first + count]})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """Such a server, with one record, and no login of the person who runs the tests."""
    for name in ("AIRFLOW_API_TOKEN", "AIRFLOW_API_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    state = Api(entries={SINGLE: RECORD})

    class Handler(BaseHTTPRequestHandler):
        """Hands each request on."""

        def handle_one(self) -> None:
            """Any method."""
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(text) if text else None
            status, said = state.answer(self.command, self.path, self.headers["Authorization"], body)
            self.send_response(status)
            if said.startswith("Location: "):
                self.send_header(*said.split(": ", 1))
            self.send_header("Content-Length", str(len(said.encode())))
            self.end_headers()
            self.wfile.write(said.encode())

        do_GET = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815  # http.server's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as above
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def made(sim: Simulator, connect: Callable[..., str]) -> str:
    """A task of the account that the record names."""
    hook = get_media_hook(connect("vap"))
    return hook.submit("upscale_image", {"image_url": "https://example.com/fox.png"}).id


def run(*words: str) -> None:
    """Runs `airflow media-tasks` with these words, parsed by the arguments that we give Airflow."""
    (group,) = cli.get_cli_commands()
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for command in group.subcommands:
        sub = commands.add_parser(command.name)
        for arg in command.args:
            arg.add_to_parser(sub)
        sub.set_defaults(func=command.func)
    args = parser.parse_args(words)
    args.func(args)


def test_airflow_finds_the_commands() -> None:
    """The provider names the function, and each command leads to a function that exists."""
    (path,) = get_provider_info()["cli"]
    (group,) = import_string(path)()
    assert group.name == "media-tasks"
    assert [command.name for command in group.subcommands] == ["show", "adopt", "resubmit", "prune", "doctor"]
    assert all(callable(getattr(cli, command.name)) for command in group.subcommands)
    assert cli._KEY == records.KEY


def test_show_prints_the_record(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed is the record as JSON, and nothing is written."""
    run("show", *PLACE, "--api-url", api.url)
    assert json.loads(capsys.readouterr().out) == RECORD
    assert {method for method, *_ in api.seen} == {"GET"}
    assert api.cleared == []


def test_adopt_writes_what_a_person_decided(api: Api, made: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer is an entry of its own, the record stays as it is, and the task is cleared."""
    run("adopt", *PLACE, made, "--api-url", api.url)
    assert api.entries[ANSWER] == {
        "decision": "adopt",
        "media_task_id": made,
        "asked_at": RECORD["asked_at"],
    }
    assert api.entries[SINGLE] == RECORD
    assert f"it became {made}; the task continues with it" in capsys.readouterr().out
    assert api.cleared == [{**CLEAR, "task_ids": [PLACE[2]]}]


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("operations/0f3c", "connection 'vap_default': vap says .*404.* say --unchecked"),
        ("videos/text2video/0f3c", "media_task_id 'videos/text2video/0f3c' is none of vap's"),
    ],
)
def test_adopt_takes_no_task_that_the_provider_does_not_have(
    api: Api, made: str, named: str, says: str
) -> None:
    """A misspelt id is refused at once, and not when the cleared task runs; the task is not cleared."""
    with pytest.raises(SystemExit, match=f"not answered: .*{says}"):
        run("adopt", *PLACE, named, "--api-url", api.url)
    assert api.entries == {SINGLE: RECORD}
    assert api.cleared == []
    run("adopt", *PLACE, named, "--unchecked", "--api-url", api.url)
    assert api.entries[ANSWER]["media_task_id"] == named


def test_adopt_says_where_it_looked_for_the_connection(api: Api) -> None:
    """Who has no connection on this machine learns which one is missing, and how to go on without it."""
    with pytest.raises(
        SystemExit, match=r"media_conn_id 'vap_default'.* AIRFLOW_CONN_VAP_DEFAULT.* --unchecked"
    ):
        run("adopt", *PLACE, "operations/0f3c", "--api-url", api.url)
    assert api.entries == {SINGLE: RECORD}


def test_adopt_takes_no_task_of_another_submission(api: Api, connect: Callable[..., str]) -> None:
    """What carries another mark of ours is what another task has paid for."""
    hook = get_media_hook(connect("kling"))
    other = hook.submit("text_to_image", {"prompt": "a fox"}, client_ref=records.new_reference()).id
    api.entries[SINGLE] = record = {**RECORD, "media_conn_id": "kling_default", "operation": "text_to_image"}
    with pytest.raises(SystemExit, match="carries the mark of another submission"):
        run("adopt", *PLACE, other, "--api-url", api.url)
    own = hook.submit("text_to_image", {"prompt": "a fox"}).id
    run("adopt", *PLACE, own, "--api-url", api.url)
    assert api.entries[SINGLE] == record


def test_adopt_takes_no_task_of_another_operation(api: Api, made: str) -> None:
    """A picture is not what an upscaling became, whatever a list shows; who knows better says so."""
    api.entries[SINGLE] = record = {**RECORD, "operation": "text_to_image"}
    with pytest.raises(
        SystemExit, match=r"is a task of 'upscale_image', and .* 'text_to_image'.* --unchecked"
    ):
        run("adopt", *PLACE, made, "--api-url", api.url)
    assert api.entries == {SINGLE: record}
    run("adopt", *PLACE, made, "--unchecked", "--api-url", api.url)
    assert api.entries[ANSWER]["media_task_id"] == made


def test_adopt_of_a_batchs_request_asks_the_batchs_account(api: Api, made: str) -> None:
    """The records of a batch do not repeat their connection."""
    asked = {name: value for name, value in RECORD.items() if name != "media_conn_id"}
    api.entries = {
        (*PLACE, "-1", "media_task.batch"): {"layout": 0, "media_conn_id": "vap_default", "provider": "vap"},
        (*PLACE, "-1", "media_task.page.0.0"): {"7": asked},
    }
    run("adopt", *PLACE, made, "--request", "7", "--api-url", api.url)
    assert api.entries[ANSWER]["media_task_id"] == made


def test_help_shows_what_is_in_brackets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Airflow's help takes brackets for markup and leaves out what is in them."""
    from airflow.cli import cli_parser  # noqa: PLC0415  # Airflow must find its home first

    monkeypatch.setenv("COLUMNS", "200")
    parser = argparse.ArgumentParser()
    for group in cli.get_cli_commands():
        cli_parser._add_command(parser.add_subparsers(), group)
    with pytest.raises(SystemExit):
        parser.parse_args(["media-tasks", "show", "--help"])
    assert "default [api] base_url" in capsys.readouterr().out


@pytest.mark.parametrize(("version", "keeps"), [("3.3.2", False), ("3.4.0b2", True), ("4.0.0", True)])
def test_the_state_is_kept_where_a_clear_would_discard_it(api: Api, version: str, keeps: bool) -> None:
    """From Airflow 3.4 on the answer would be gone with the state; before, Airflow refuses the word."""
    api.version = version
    run("resubmit", *PLACE, "--api-url", api.url)
    kept = {**CLEAR, "task_instance_ids": ["instance-1"], "keep_task_state": True}
    assert api.cleared == [kept if keeps else {**CLEAR, "task_ids": [PLACE[2]]}]


def test_a_task_whose_next_try_has_begun_meanwhile_is_cleared(api: Api) -> None:
    """From Airflow 3.4 on each try has an id of its own, and by that of an earlier one nothing is cleared."""
    api.version = "3.4.0"

    def next_try(method: str, path: str) -> None:
        if method == "PUT":
            api.instance_id = "instance-2"

    api.rule = next_try
    run("resubmit", *PLACE, "--api-url", api.url)
    assert [body["task_instance_ids"] for body in api.cleared] == [["instance-2"]]


@pytest.mark.parametrize(
    "command", [("adopt", *PLACE, "operations/0f3c", "--unchecked"), ("resubmit", *PLACE)]
)
def test_who_wants_to_clear_the_task_later_may(
    api: Api, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    """With --no-clear the answer waits for it."""
    run(*command, "--no-clear", "--api-url", api.url)
    assert ANSWER in api.entries
    assert api.cleared == []
    assert "clear the task, keeping its state" in capsys.readouterr().out


def test_an_iteration_of_a_loop_is_answered_by_its_number(api: Api) -> None:
    """All iterations have one name and one index; their regions tell them apart."""
    api.version = "3.4.0"
    api.iterations = [
        {
            "id": f"instance-{number}",
            "task_id": PLACE[2],
            "map_index": -1,
            "state": "failed",
            "region_id": "the-loop",
            "region_index": number,
            "loop_iteration": {"loop_id": "once", "iteration": number},
        }
        for number in range(3)
    ]
    asked = {(*PLACE, "the-loop", str(number), "media_task"): RECORD for number in range(3)}
    api.entries = dict(asked)
    run("resubmit", *PLACE, "--loop", "2", "--api-url", api.url)
    assert set(api.entries) - set(asked) == {(*PLACE, "the-loop", "2", ANSWER[-1])}
    assert [body["task_instance_ids"] for body in api.cleared] == [["instance-2"]]
    with pytest.raises(SystemExit, match="no iteration 3"):
        run("resubmit", *PLACE, "--loop", "3", "--api-url", api.url)


def test_prune_removes_old_copies_and_leaves_the_others(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """What was written lately stays, however much is removed around it."""
    now = datetime.now(timezone.utc)
    for number in range(250):
        age = timedelta(days=100 if number % 2 else 10)
        api.copies[f"media_task.{number:03}"] = (now - age).isoformat().replace("+00:00", "Z")
    run("prune", "--older-than", "90", "--api-url", api.url)
    assert "125 copies of records removed" in capsys.readouterr().out
    assert list(api.copies) == [f"media_task.{number:03}" for number in range(0, 250, 2)]
    for days in ("0", "-1", "nan", "inf"):
        with pytest.raises(SystemExit, match="--older-than must be a number of days above 0"):
            run("prune", f"--older-than={days}", "--api-url", api.url)


def test_resubmit_gives_the_submission_up(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer says that it was given up, and the person that a new one costs money."""
    run("resubmit", *PLACE, "--api-url", api.url, "--reference", "amt-1")
    assert api.entries[ANSWER] == {"decision": "resubmit", "asked_at": RECORD["asked_at"]}
    assert api.entries[SINGLE] == RECORD
    assert "submits anew, which is paid" in capsys.readouterr().out


def test_a_request_of_a_batch_is_answered_by_its_number(api: Api) -> None:
    """The record is that of the request on its page, and no other entry is written."""
    page = {"70": {**RECORD, "client_ref": "amt-70"}, "71": {**RECORD, "client_ref": "amt-71"}}
    before = {
        (*PLACE, "-1", "media_task.batch"): {"layout": 2, "total": 100},
        (*PLACE, "-1", "media_task.page.2.1"): page,
    }
    api.entries = dict(before)
    run("resubmit", *PLACE, "--request", "71", "--api-url", api.url)
    assert set(api.entries) - set(before) == {(*PLACE, "-1", "media_task.answer.amt-71")}
    for number in ("72", "7", "-1"):
        with pytest.raises(SystemExit, match="nothing was recorded for request"):
            run("show", *PLACE, f"--request={number}", "--api-url", api.url)


@pytest.mark.parametrize(
    ("record", "state", "words", "says"),
    [
        (RECORD, "running", (), "the task is running"),
        (RECORD, "deferred", (), "the task is deferred"),
        (RECORD, None, (), "about to run"),
        (RECORD, "failed", ("--reference", "amt-0"), "an earlier submission"),
        ({**RECORD, "asked_at": None}, "failed", (), "nothing is asked about this submission"),
        ({**RECORD, "phase": "finished", "media_task_id": "x"}, "failed", (), "nothing is asked"),
        ({**RECORD, "client_ref": ""}, "failed", (), "there is no submission"),
        ({}, "failed", (), "there is no submission"),
    ],
)
def test_what_is_not_asked_is_not_answered(
    api: Api, record: Any, state: str | None, words: tuple[str, ...], says: str
) -> None:
    """While a try is under way, about another submission, or where nothing is asked: nothing is written."""
    api.entries[SINGLE], api.state = record, state
    for command in (("adopt", *PLACE, "operations/0f3c"), ("resubmit", *PLACE)):
        with pytest.raises(SystemExit, match="not answered: .*" + says):
            run(*command, "--api-url", api.url, *words)
    assert api.entries == {SINGLE: record}


def test_what_is_answered_already_is_not_answered_again(api: Api, made: str) -> None:
    """The first answer holds, until the worker has asked anew."""
    run("adopt", *PLACE, made, "--api-url", api.url)
    first = api.entries[ANSWER]
    with pytest.raises(SystemExit, match=rf"answered already \(adopt '{made}'\); clear the task"):
        run("resubmit", *PLACE, "--api-url", api.url)
    assert api.entries[ANSWER] == first
    api.entries[SINGLE] = {**RECORD, "asked_at": "2026-11-20T11:00:00+00:00"}
    run("resubmit", *PLACE, "--api-url", api.url)
    assert api.entries[ANSWER]["decision"] == "resubmit"


def test_who_was_overtaken_by_another_answer_is_told(api: Api) -> None:
    """Of two answers at the same moment one counts, and the other person learns it."""

    def other(method: str, path: str) -> tuple[int, str] | None:
        if method == "PUT":
            api.entries[ANSWER] = {"decision": "resubmit", "asked_at": RECORD["asked_at"]}
            return 204, ""
        return None

    api.rule = other
    with pytest.raises(SystemExit, match="somebody else has answered"):
        run("adopt", *PLACE, "operations/0f3c", "--unchecked", "--api-url", api.url)


def test_a_mapped_task_and_strange_names_are_addressed_exactly(api: Api, made: str) -> None:
    """A slash, a space or a question mark in a name is a part of the name."""
    place = ("a/b", "scheduled__2026-11-20T10:00:00+00:00", "c d?")
    api.entries[(*place, "7", "media_task")] = RECORD
    run("adopt", *place, made, "--map-index", "7", "--api-url", api.url + "/")
    assert api.entries[(*place, "7", ANSWER[-1])]["media_task_id"] == made
    assert ANSWER not in api.entries
    assert [path.rpartition("/")[2] for _, path, *_ in api.seen if "state-store" not in path][1] == "7"
    assert api.cleared[0]["task_ids"] == [["c d?", 7]]


def test_a_redirect_is_not_followed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is for the address that the person gave; the error names the other one."""
    monkeypatch.setenv("AIRFLOW_API_TOKEN", "the-users-token")
    here = api.url
    api.rule = lambda method, path: (302, f"Location: {here}/elsewhere") if "/elsewhere" not in path else None
    for command in ("show", "resubmit"):
        with pytest.raises(SystemExit, match=r"redirects to '.*/elsewhere' \(HTTP 302\)"):
            run(command, *PLACE, "--api-url", here)
    assert not any("/elsewhere" in path for _, path, *_ in api.seen)


# Who we are.


def test_a_token_is_used_as_it_is(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """With AIRFLOW_API_TOKEN nobody logs in."""
    monkeypatch.setenv("AIRFLOW_API_TOKEN", "abc")
    run("show", *PLACE, "--api-url", api.url)
    assert {(method, token) for method, _, token, _ in api.seen} == {("GET", "Bearer abc")}


@pytest.mark.parametrize("from_environment", [True, False])
def test_a_user_logs_in_with_a_password(
    api: Api, monkeypatch: pytest.MonkeyPatch, from_environment: bool
) -> None:
    """The password comes from the environment or is asked for, never from the command line."""
    if from_environment:
        monkeypatch.setenv("AIRFLOW_API_PASSWORD", "secret")
    monkeypatch.setattr("getpass.getpass", lambda prompt: "secret" if "ann" in prompt else "")
    run("show", *PLACE, "--api-url", api.url, "--username", "ann")
    login, *_, question = api.seen
    assert login == ("POST", "/auth/token", None, {"username": "ann", "password": "secret"})
    assert question[2] == "Bearer token-of-ann"


def test_without_a_user_a_token_is_asked_for(api: Api) -> None:
    """Where Airflow asks nobody who he is, neither do we."""
    run("show", *PLACE, "--api-url", api.url)
    assert api.seen[0][:3] == ("GET", "/auth/token", None)
    assert api.seen[1][2] == "Bearer token-of-anybody"


# What goes wrong.


@pytest.mark.parametrize(
    ("status", "where", "advice"),
    [
        (401, "/auth/", "set AIRFLOW_API_TOKEN, or give --username and AIRFLOW_API_PASSWORD"),
        (404, "/auth/", "set AIRFLOW_API_TOKEN, or give --username and AIRFLOW_API_PASSWORD"),
        (401, "/api/", "set AIRFLOW_API_TOKEN, or give --username and AIRFLOW_API_PASSWORD"),
        (403, "/api/", "this user may not change task instances of this DAG"),
        (404, "/api/", "for a mapped task give --map-index"),
        (422, "/api/", "HTTP 422 a reason"),
        (500, "/api/", "HTTP 500 a reason"),
    ],
)
def test_a_refusal_comes_with_advice(api: Api, status: int, where: str, advice: str) -> None:
    """The command ends with one line that says what to do, and a failed one writes nothing."""
    api.rule = lambda method, path: (status, "a reason") if path.startswith(where) else None
    with pytest.raises(SystemExit) as ended:
        run("resubmit", *PLACE, "--api-url", api.url)
    assert advice in str(ended.value)
    assert "\n" not in str(ended.value)
    assert api.entries[SINGLE] == RECORD


def test_a_refused_write_is_told(api: Api) -> None:
    """Who may read but not write learns that nothing was decided."""
    api.rule = lambda method, path: (403, "") if method == "PUT" else None
    with pytest.raises(SystemExit, match="may not change"):
        run("adopt", *PLACE, "x", "--unchecked", "--api-url", api.url)


def test_an_api_server_that_is_away_is_named() -> None:
    """The address is in the error."""
    with pytest.raises(SystemExit, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        run("show", *PLACE, "--api-url", "http://127.0.0.1:9")


@pytest.mark.parametrize("url", ["localhost:8080", "file:///etc/passwd"])
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    """Only http and https are spoken to."""
    with pytest.raises(SystemExit, match="must be an http or https address"):
        run("show", *PLACE, "--api-url", url)


@pytest.mark.parametrize("said", ["<html>a proxy's page</html>", "[]", '{"other": 1}'])
@pytest.mark.parametrize("where", ["/auth/", "/api/"])
def test_an_answer_that_is_not_airflows_is_told(api: Api, where: str, said: str) -> None:
    """A page of something in between is no record."""
    api.rule = lambda method, path: (200, said) if path.startswith(where) else None
    with pytest.raises(SystemExit, match="does not answer as Airflow's API does"):
        run("resubmit", *PLACE, "--api-url", api.url)
    assert api.entries[SINGLE] == RECORD


def test_an_entry_that_is_no_record_is_left_alone(api: Api) -> None:
    """What somebody else keeps under our key is shown and not overwritten."""
    api.entries[SINGLE] = "a text"
    with pytest.raises(SystemExit, match="not one of ours: 'a text'"):
        run("resubmit", *PLACE, "--api-url", api.url)
    assert api.entries[SINGLE] == "a text"


# The real thing.


def test_it_speaks_with_airflow_itself(
    airflow_api: str, made: str, run_dag: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A record that a task has written is shown, adopted and given up through the routes that Airflow has."""
    with DAG("cli_films") as dag_of_films:

        @task
        def video(**context: Any) -> None:
            """Leaves a record as an operator does."""
            context["task_state_store"].set(records.KEY, RECORD, retention=records.NEVER_EXPIRE)

        video()
        video.override(task_id="again")()
    run_id = run_dag(dag_of_films).run_id
    place = ("cli_films", run_id, "video", "--api-url", airflow_api)

    def shown() -> Any:
        run("show", *place)
        # Airflow logs to the same stream.
        said = capsys.readouterr().out
        return json.loads(said[said.rindex("\n{\n") if "\n{\n" in said else 0 :])

    assert shown() == RECORD
    run("adopt", *place[:3], made, *place[3:], "--no-clear")
    with pytest.raises(SystemExit, match="answered already"):
        run("resubmit", *place)
    assert shown() == RECORD
    other = ("cli_films", run_id, "again", "--api-url", airflow_api)
    run("resubmit", *other)
    with pytest.raises(SystemExit, match="the task is about to run"):
        run("resubmit", *other)
    run("prune", "--older-than", "1", "--api-url", airflow_api)
    with pytest.raises(SystemExit, match="no such task instance"):
        run("show", *place, "--map-index", "3")
