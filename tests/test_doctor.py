"""`airflow media-tasks doctor`: what it says of an account, what it hides, and that it pays once."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from airflow_media_tasks import trial
from airflow_media_tasks.get_provider_info import get_provider_info
from airflow_media_tasks.hooks.base import MediaHook, get_media_hook
from airflow_media_tasks.hooks.kling import KlingHook
from airflow_media_tasks.hooks.vap import VapHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.simulator.kling import ACCESS_KEY as ACCESS
from airflow_media_tasks.simulator.kling import SECRET_KEY as SECRET
from airflow_media_tasks.simulator.world import BAD_KEY

from .hooks.peer import Handler, Peer, hang_up, passed_on, say
from .place import Clock
from .test_cli import run


Connect = Callable[..., str]
Rewrite = Callable[[Handler, int, Any], tuple[int, Any]]
Behind = Callable[..., str]

PROVIDERS = [entry["connection-type"] for entry in get_provider_info()["connection-types"]]
EXTRA = {"acedata": {"service": "luma"}}
RESULTS_AT = {
    "comfyui": "/comfyui/view?",
    "google_media": "/google_media/v1beta/files/",
    "openai_media": "/openai_media/videos/",
}
KEY = "sim-key-123456"
PROMPT = "the secret garden of the marketing department"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulator of this test's own, whose clock nobody has moved."""
    with Simulator(seconds=12.0) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def clock(sim: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    """Nothing really sleeps, and the current directory is the test's own."""
    monkeypatch.chdir(tmp_path)
    clock = Clock.instead_of_time(sim, monkeypatch)
    monkeypatch.setattr(trial, "time", clock)
    return clock


@pytest.fixture
def behind(sim: Simulator, connect: Connect) -> Iterator[Behind]:
    """Defines a connection to the simulator whose replies a function rewrites."""
    with Peer() as peer, httpx.Client(trust_env=False) as client:

        def define(
            conn_type: str,
            rewrite: Rewrite,
            before: Callable[[Handler], bool] = lambda _: False,
            **fields: Any,
        ) -> str:
            def answer(handler: BaseHTTPRequestHandler) -> None:
                assert isinstance(handler, Handler)
                if before(handler):
                    hang_up(handler)
                    return
                headers = passed_on({name.lower(): value for name, value in handler.headers.items()})
                url = sim.url + handler.path
                try:
                    reply = client.request(handler.command, url, content=handler.body, headers=headers)
                except httpx.HTTPError:
                    hang_up(handler)
                    return
                status, document = rewrite(handler, reply.status_code, reply.json())
                say(handler, document, status)

            peer.answer = answer
            usual = {"host": f"{peer.url}/{conn_type}", "extra": EXTRA.get(conn_type)}
            return connect(conn_type, **{**usual, **fields})

        thread = threading.Thread(target=peer.serve_forever, args=(0.01,))
        thread.start()
        yield define
        peer.shutdown()
        thread.join()


def use(hook: MediaHook, sim: Simulator) -> None:
    """Gives the account a past: what has succeeded, what has failed, and what still runs."""
    assert hook.cheapest is not None
    name, arguments = hook.cheapest
    for words in ("", "[sim:fail=provider]", "[sim:seconds=900]"):
        hook.submit(name, {**arguments, "prompt": f"{PROMPT} {words}"})
        sim.advance(20)


def doctor(media_conn_id: str, *words: str) -> int:
    """The command's exit code."""
    try:
        run("doctor", "--conn-id", media_conn_id, *words)
    except SystemExit as ended:
        return int(str(ended.code))
    return 0


def renamed(key: str, new: str, document: Any) -> Any:
    """*document* with *new* in place of *key*, wherever that stands."""
    if isinstance(document, dict):
        return {new if name == key else name: renamed(key, new, value) for name, value in document.items()}
    return [renamed(key, new, item) for item in document] if isinstance(document, list) else document


def changed(key: str, change: Callable[[Any], Any], document: Any) -> Any:
    """*document* with what stands at *key*, wherever that is, as *change* makes it."""
    if isinstance(document, dict):
        return {
            name: change(value) if name == key else changed(key, change, value)
            for name, value in document.items()
        }
    return [changed(key, change, item) for item in document] if isinstance(document, list) else document


def rename(key: str, new: str) -> Rewrite:
    """What calls something otherwise."""
    return lambda handler, status, document: (status, renamed(key, new, document))


def change(key: str, to: Callable[[Any], Any]) -> Rewrite:
    """What says something otherwise."""
    return lambda handler, status, document: (status, changed(key, to, document))


def found(handler: Handler, status: int, document: Any) -> tuple[int, Any]:
    """Knows every task of Kling."""
    if status != 404:
        return status, document
    data = {"task_id": handler.path.rpartition("/")[2], "task_status": "processing", "created_at": 1}
    return 200, {"code": 0, "message": "SUCCEED", "data": data}


# What is free.


@pytest.mark.parametrize("conn_type", PROVIDERS)
@pytest.mark.parametrize("is_used", [False, True])
def test_an_account_that_answers_as_expected_comes_out_clean(
    sim: Simulator,
    connect: Connect,
    capsys: pytest.CaptureFixture[str],
    conn_type: str,
    is_used: bool,
) -> None:
    """Exit code 0, and the report says what was asked and what could not be compared; nothing is paid."""
    media_conn_id = connect(conn_type, extra=EXTRA.get(conn_type))
    if is_used:
        use(get_media_hook(media_conn_id), sim)
    before = len(sim.ledger())
    code = doctor(media_conn_id)
    report = capsys.readouterr().out
    assert "## What differs from the table\n\nNothing.\n" in report
    assert code == 0
    if get_media_hook(media_conn_id).listing is None:
        assert "a list: the table says that there is none" in report
    else:
        assert ("the lists were empty" in report) == (not is_used)
    assert "### A task that there is not" in report
    assert len(sim.ledger()) == before
    assert not any(said in report for said in (KEY, PROMPT, sim.url))


PLANTED: dict[str, tuple[str, Rewrite, str]] = {
    "a status word": (
        "vap",
        change("status", lambda word: "brooding" if word == "completed" else word),
        "the status word 'brooding' is not known (1 of 3 tasks)",
    ),
    "the id's name": ("vap", rename("task_id", "uid"), "no id stands at `task_id || id` (3 of 3 tasks)"),
    "the form of a time": (
        "kling",
        change("created_at", lambda _: "28.11.2026 10:00"),
        "no time stands at `created_at` (3 of 3 tasks)",
    ),
    "the balance's place": (
        "vap",
        lambda handler, status, document: (
            status,
            {"account": document} if "balance" in handler.path else document,
        ),
        "the balance: no balance stands at `usable || balance`",
    ),
    "the list's name": ("acedata", rename("items", "results"), "no list stands at `items`"),
    "an unknown id that is found": ("kling", found, "a task that is running, where there can be none"),
    "an error's code": (
        "kling",
        change("code", lambda code: 1299 if code == 1203 else code),
        "a task that there is not: the table does not know the code '1299'",
    ),
    "no echo": ("acedata", rename("request", "input"), "no echo of the request stands at `request`"),
    "no cost": ("vap", rename("actual_cost", "paid"), "it has succeeded, and no cost is at `actual_cost`"),
    "another order": (
        "acedata",
        change("items", lambda items: items[::-1]),
        "the newest submissions do not come first",
    ),
    "the envelope": ("kling", rename("data", "payload"), "no list stands at `data`"),
    "why it failed": (
        "vap",
        rename("error_message", "why"),
        "it has failed, and nothing stands at `error_message || error || detail || message`",
    ),
    "the files": ("kling", rename("task_result", "made"), "it has succeeded, and no file is found"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_difference_is_named(
    sim: Simulator, connect: Connect, behind: Behind, capsys: pytest.CaptureFixture[str], planted: str
) -> None:
    """Whatever a provider has changed, the report says it in a sentence, and the exit code is 1."""
    conn_type, rewrite, says = PLANTED[planted]
    use(get_media_hook(connect(conn_type)), sim)
    code = doctor(behind(conn_type, rewrite))
    report = capsys.readouterr().out
    differs = report.partition("## What differs from the table\n")[2].partition("\n## ")[0]
    assert says in differs
    assert code == 1
    assert not any(said in report for said in (KEY, PROMPT, sim.url))


@pytest.mark.parametrize("document", [None, {}, {"detail": "Not Found"}])
def test_a_path_that_has_another_beside_it_may_be_missing(
    behind: Behind, capsys: pytest.CaptureFixture[str], document: Any
) -> None:
    """VAP's balance is known under two; however the first one is refused, the second is asked and shown."""

    def without(handler: Handler, status: int, said: Any) -> tuple[int, Any]:
        return (404, document) if handler.path == "/vap/v3/agents/me/balance" else (status, said)

    assert doctor(behind("vap", without)) == 0
    report = capsys.readouterr().out
    assert "GET /v3/agents/me/balance: HTTP 404\n" in report
    assert "GET /v3/balance: HTTP 200\n" in report


def test_what_a_provider_echoes_is_not_shown(
    sim: Simulator, connect: Connect, behind: Behind, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither key nor signature nor prompt, be it a value, a name, a word, a code or a part of a path."""
    signatures: set[str] = set()

    def echo(handler: Handler, status: int, document: Any) -> tuple[int, Any]:
        signatures.add(handler.headers["Authorization"].partition(" ")[2])
        said = [*signatures, SECRET, SECRET[::-1], b64encode(SECRET.encode()).decode(), PROMPT, ACCESS]
        for secret in said:
            names = (secret, f"x_{secret}", f"`{secret}`\n# {secret}", quote(secret))
            document = {**document, **{name: {name: secret} for name in names}}
        document = changed("task_status", lambda _: SECRET, changed("task_id", lambda _: ACCESS, document))
        return status, changed("code", lambda code: PROMPT if status == 404 else code, document)

    signing = {"login": ACCESS, "password": SECRET}
    use(get_media_hook(connect("kling", **signing)), sim)
    code = doctor(behind("kling", echo, **signing))
    said = capsys.readouterr()
    assert code == 1
    assert "(a name of " in said.out
    assert "the status word (a text of 3 characters) is not known" in said.out
    assert len(signatures) >= 1
    for secret in (*signatures, SECRET, b64encode(SECRET.encode()).decode()[:-2], PROMPT, quote(PROMPT)):
        assert secret not in said.out + said.err


@pytest.mark.parametrize("key", ["qzjx", "a-key-of-some-length"])
def test_a_short_key_is_not_shown_either(
    sim: Simulator, behind: Behind, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    """Where masking it everywhere would mask half a document, a name or word that has it is left out."""

    def echo(handler: Handler, status: int, document: Any) -> tuple[int, Any]:
        return status, {**document, key: 1, f"key_{key}": {"error": {"code": key}}}

    doctor(behind("vap", echo, password=key))
    said = capsys.readouterr()
    assert "## What was asked" in said.out
    assert key not in said.out + said.err


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"password": BAD_KEY}, "code 'invalid_api_key'"),
        ({"host": "http://127.0.0.1:9/vap"}, "cannot be reached"),
        ({"password": ""}, "has no password"),
        ({"extra": {"prices": "?"}}, "prices is no JSON"),
    ],
)
def test_an_account_that_cannot_be_asked_ends_in_2(
    connect: Connect, capsys: pytest.CaptureFixture[str], fields: dict[str, Any], says: str
) -> None:
    """With one line that says why, and no report that somebody could take for a good one."""
    assert doctor(connect("vap", **fields)) == 2
    said = capsys.readouterr()
    assert said.err.startswith("the account cannot be asked: ")
    assert re.search(says, said.err)
    assert "#" not in said.out


def test_there_must_be_such_a_connection(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that no connection has ends in 2, too."""
    assert doctor("nobody") == 2
    assert "media_conn_id 'nobody'" in capsys.readouterr().err


def test_the_report_may_go_into_a_file(connect: Connect, tmp_path: Path) -> None:
    """It is the same, without what Airflow logs to the standard output."""
    assert doctor(connect("vap"), "--output", "report.md") == 0
    assert (tmp_path / "report.md").read_text().startswith("# VAP, asked ")


def test_a_report_that_cannot_be_written_is_printed(
    connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was found out is not lost for the name of a file."""
    assert doctor(connect("vap"), "--output", "no/such/folder/report.md") == 0
    said = capsys.readouterr()
    assert "cannot be written there" in said.err
    assert said.out.startswith("# VAP, asked ")


# What is paid.


def can_be_asked(media_conn_id: str) -> bool:
    """Whether the provider can tell what became of the cheapest generation, if its reply is lost."""
    hook = get_media_hook(media_conn_id)
    assert hook.cheapest is not None
    return hook.can_be_asked(hook.cheapest[0])


def state(media_conn_id: str) -> Path:
    """Where the record is."""
    return Path(f"media-tasks-doctor-{media_conn_id}.json")


@pytest.mark.parametrize("conn_type", PROVIDERS)
def test_one_generation_is_paid_and_compared(
    sim: Simulator, connect: Connect, capsys: pytest.CaptureFixture[str], conn_type: str
) -> None:
    """It is watched to its end, found as if its reply had been lost, and not made by a second doctor."""
    media_conn_id = connect(conn_type)
    assert doctor(media_conn_id, "--pay", "--yes") == 0
    said = capsys.readouterr()
    (entry,) = sim.ledger()
    for what in ("The submission of the generation", "The generation, running", "The generation, succeeded"):
        assert f"### {what}\n" in said.out
    found = "looked for as if its reply had been lost"
    assert (found if can_be_asked(media_conn_id) else "the table says that it cannot be found") in said.out
    assert f"{entry['id']} is running" in said.err
    assert f"{sim.url}{RESULTS_AT.get(conn_type, '/media/')}" in said.err
    assert entry["id"] not in said.out
    assert "pebble" not in said.out
    record = json.loads(state(media_conn_id).read_text())["media_task"]
    assert (record["phase"], record["media_task_id"].rpartition("/")[2]) == ("finished", entry["id"])
    assert doctor(media_conn_id, "--pay", "--yes") == 0
    assert "has been made before; nothing is paid" in capsys.readouterr().err
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize("conn_type", PROVIDERS)
def test_a_lost_reply_is_paid_once(
    sim: Simulator, connect: Connect, capsys: pytest.CaptureFixture[str], conn_type: str
) -> None:
    """The task is found and watched; where none can be found, no other doctor pays for another one."""
    sim.fault("lose_reply", count=1, on="submit")
    media_conn_id = connect(conn_type)
    if can_be_asked(media_conn_id):
        assert doctor(media_conn_id, "--pay", "--yes") == 0
        assert "adopting it, nothing is paid again" in capsys.readouterr().err
    else:
        for _ in range(2):
            assert doctor(media_conn_id, "--pay", "--yes") == 1
            assert "nobody can say if it was accepted" in capsys.readouterr().err
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize(
    ("conn_type", "is_accepted"),
    [*((conn_type, True) for conn_type in PROVIDERS), ("vap", False), ("kling", False)],
)
def test_a_doctor_that_is_killed_and_run_again_pays_once(
    sim: Simulator, behind: Behind, tmp_path: Path, conn_type: str, is_accepted: bool
) -> None:
    """Whether the provider has accepted the submission or never seen it when the process died."""
    first: list[subprocess.Popen[bytes]] = []

    def kill(handler: Handler) -> None:
        if first and handler.command == "POST" and b"pebble" in handler.body:
            first[0].kill()
            first.pop().wait()

    def before(handler: Handler) -> bool:
        is_due = bool(first) and b"pebble" in handler.body and not is_accepted
        if is_due:
            kill(handler)
        return is_due

    def after(handler: Handler, status: int, document: Any) -> tuple[int, Any]:
        kill(handler)
        return status, document

    media_conn_id = behind(conn_type, after, before=before)
    command = (
        "from argparse import Namespace; from airflow_media_tasks import cli; "
        f"cli.doctor(Namespace(conn_id={media_conn_id!r}, output='out', pay=True, yes=True))"
    )
    doctor_process = subprocess.Popen([sys.executable, "-c", command], stderr=subprocess.DEVNULL)
    first.append(doctor_process)
    assert doctor_process.wait(60) == -signal.SIGKILL
    assert json.loads(state(media_conn_id).read_text())["media_task"]["phase"] == "intent"
    assert len(sim.ledger()) == is_accepted
    assert doctor(media_conn_id, "--pay", "--yes") == (0 if can_be_asked(media_conn_id) else 1)
    assert len(sim.ledger()) == 1


def answering(asked: list[str], said: str) -> Callable[[str], str]:
    """A person who answers so, and remembers the question."""

    def answer(question: str) -> str:
        asked.append(question)
        return said

    return answer


def test_nothing_is_paid_unless_a_person_says_so(
    sim: Simulator, connect: Connect, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The question names the operation and its price, and everything but y or yes is a no."""
    prices = {"text_to_image": {"amount": "0.18", "unit": "USD"}}
    media_conn_id = connect("vap", extra={"prices": prices})
    asked: list[str] = []
    for said in ("", "n", "yess"):
        monkeypatch.setattr("builtins.input", answering(asked, said))
        assert doctor(media_conn_id, "--pay") == 0
        assert "a generation: nobody has agreed to pay for it" in capsys.readouterr().out
    assert asked[0] == (
        "VAP makes one text_to_image, 0.18 USD by the connection's price table, and charges it. Go on? [y/N] "
    )
    assert not state(media_conn_id).exists()
    assert sim.ledger() == []
    monkeypatch.setattr("builtins.input", answering(asked, "y"))
    assert doctor(connect("vap"), "--pay") == 0
    assert "at a price that is not known here" in asked[-1]
    assert len(sim.ledger()) == 1


def test_what_nobody_can_find_out_is_a_question(
    sim: Simulator, connect: Connect, behind: Behind, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing more is sent as long as the record is there, and it says where that is."""
    sim.fault("lose_reply", count=1, on="submit")

    def blind(handler: Handler, status: int, document: Any) -> tuple[int, Any]:
        return status, changed("params", lambda _: None, changed("created_at", lambda _: None, document))

    media_conn_id = behind("vap", blind)
    for _ in range(2):
        assert doctor(media_conn_id, "--pay", "--yes") == 1
        said = capsys.readouterr()
        assert "whether it was accepted cannot be found out" in said.out
        assert f"Remove {state(media_conn_id).absolute()} to pay for another one" in said.err
        assert sim.ledger()[0]["id"] in said.err
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize(
    ("reason", "code", "says"),
    [("funds", 2, "nothing could be made: "), ("auth", 2, "nothing could be made: "), ("moderation", 1, "")],
)
def test_what_is_refused_is_told(
    sim: Simulator,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reason: str,
    code: int,
    says: str,
) -> None:
    """Without money there is nothing to compare (2); that good arguments are refused is a difference (1)."""
    monkeypatch.setattr(KlingHook, "cheapest", ("text_to_image", {"prompt": f"a fox [sim:reject={reason}]"}))
    assert doctor(connect("kling"), "--pay", "--yes") == code
    said = capsys.readouterr()
    assert says in said.err
    assert "### The submission of the generation" in said.out
    assert sim.ledger() == []


def test_what_differs_while_it_runs_and_when_it_has_ended_is_named(
    sim: Simulator, behind: Behind, capsys: pytest.CaptureFixture[str]
) -> None:
    """A word that only a running task has, and a file that is not where it should be."""

    def odd(handler: Handler, status: int, document: Any) -> tuple[int, Any]:
        document = changed("status", lambda word: "brewing" if word == "processing" else word, document)
        return status, renamed("result", "made", document)

    assert doctor(behind("vap", odd), "--pay", "--yes") == 1
    report = capsys.readouterr().out
    assert "* the generation, running: the status word 'brewing' is not known\n" in report
    assert "* the generation, failed: it has succeeded, and no file is found\n" in report
    assert "status 'processing' is taken" not in report


def test_one_that_has_failed_is_not_made_again(
    sim: Simulator, connect: Connect, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may have been paid for; the report has its document, and the terminal its reason."""
    monkeypatch.setattr(KlingHook, "cheapest", ("text_to_image", {"prompt": "a fox [sim:fail=provider]"}))
    for _ in range(2):
        assert doctor(connect("kling"), "--pay", "--yes") == 0
        said = capsys.readouterr()
        assert "### The generation, failed\n" in said.out
        assert "task images/generations/" in said.err
    assert len(sim.ledger()) == 1


def test_one_that_does_not_end_is_left_and_gone_on_with(
    sim: Simulator, connect: Connect, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After an hour; the next doctor waits for the same one."""
    monkeypatch.setattr(VapHook, "cheapest", ("text_to_image", {"prompt": "a fox [sim:seconds=5000]"}))
    media_conn_id = connect("vap")
    assert doctor(media_conn_id, "--pay", "--yes") == 0
    assert "the end of the generation: it has not come yet" in capsys.readouterr().out
    sim.advance(5000)
    assert doctor(media_conn_id, "--pay", "--yes") == 0
    assert "### The generation, succeeded\n" in capsys.readouterr().out
    assert len(sim.ledger()) == 1


@pytest.mark.parametrize("content", ["", "[]", '{"media_task": 1}', '{"media_task": {"phase": "intent"}}'])
def test_a_record_that_cannot_be_read_keeps_from_paying(
    sim: Simulator, connect: Connect, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    """Nobody knows what it stood for."""
    media_conn_id = connect("vap")
    state(media_conn_id).write_text(content)
    assert doctor(media_conn_id, "--pay", "--yes") == 2
    assert re.search("nothing is (sent|submitted)", capsys.readouterr().err)
    assert state(media_conn_id).read_text() == content
    assert sim.ledger() == []


def test_a_folder_that_cannot_be_written_keeps_from_paying(
    sim: Simulator, connect: Connect, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What cannot be written down is not sent."""
    (tmp_path / f".{state('vap_default')}.new").mkdir()
    assert doctor(connect("vap"), "--pay", "--yes") == 2
    assert "cannot be written, so nothing is sent" in capsys.readouterr().err
    assert sim.ledger() == []


def test_two_doctors_do_not_pay_in_one_folder_at_once(
    sim: Simulator, connect: Connect, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The second would not see what the first is about to write."""
    with trial.StateFile(tmp_path / "other.json").alone():
        assert doctor(connect("vap"), "--pay", "--yes") == 2
    assert "another one is under way in" in capsys.readouterr().err
    assert sim.ledger() == []
    assert doctor("vap_default", "--pay", "--yes") == 0


def test_a_provider_that_names_nothing_cheap_is_not_paid(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report of what is free comes all the same."""
    monkeypatch.setattr(VapHook, "cheapest", None)
    assert doctor(connect("vap"), "--pay", "--yes") == 2
    said = capsys.readouterr()
    assert "VapHook does not say what is cheapest" in said.err
    assert "## What was asked" in said.out


@pytest.mark.parametrize("conn_type", PROVIDERS)
def test_what_is_cheapest_can_be_submitted(connect: Connect, conn_type: str) -> None:
    """Every provider of this package names an operation with arguments that pass its check."""
    hook = get_media_hook(connect(conn_type))
    assert hook.cheapest is not None
    name, arguments = hook.cheapest
    assert hook.check(name, arguments)[0] == name
