from __future__ import annotations

import asyncio
import contextlib
import email.utils
import gzip
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import jwt
import pytest
import trustme

from airflow_media_tasks import __version__
from airflow_media_tasks.hooks.kling import KlingHook
from airflow_media_tasks.hooks.vap import VapHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaConcurrencyError,
    MediaFundsError,
    MediaNotFoundError,
    MediaProviderError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTaskError,
    SubmissionOutcomeUnknown,
)
from airflow_media_tasks.wire import conversations
from airflow_media_tasks.wire.conversations import (
    MAX_REPLY_BYTES,
    NOT_SENT,
    Conversation,
    ConversationHook,
    Reply,
    Request,
)

from .peer import Peer, hang_until, hang_up, reset, say, stop_in_the_middle, talk_nonsense


KEY = "the-key/with=signs+in.it"
Ask = Callable[..., Reply]


class Toy(ConversationHook):
    """A provider's hook that asks one thing and returns the reply."""

    conn_name_attr: ClassVar[str] = "media_conn_id"
    default_conn_name = "toy_default"
    conn_type = "toy"
    hook_name = "Toy"
    base_url = "https://toy.example.com"

    def _one(self, request: Request) -> Conversation[Reply]:
        return (yield request)

    def ask(self, **request: Any) -> Reply:
        """Sends one request."""
        return self._run(self._one(Request(**{"method": "GET", "path": "/thing", **request})))

    async def aask(self, **request: Any) -> Reply:
        """Awaitable twin of `ask`."""
        return await self._arun(self._one(Request(**{"method": "GET", "path": "/thing", **request})))


@contextlib.contextmanager
def running() -> Iterator[Peer]:
    """A provider that runs, and is gone with all its connections at the end."""
    with Peer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def peer() -> Iterator[Peer]:
    """The provider that the hook asks."""
    with running() as server:
        yield server


@pytest.fixture
def hook(peer: Peer, connect: Any) -> Toy:
    """A hook that talks to the peer."""
    toy = Toy(connect(conn_type="toy", host=f"{peer.url}/prefix/", password=KEY))
    toy.retry_wait = 0.001
    return toy


@pytest.fixture
def ask(hook: Toy, call: Any) -> Ask:
    """Asks the peer one thing, one way or the other."""
    return lambda **request: call(hook, "ask", **request)


# What is sent.


def test_request_as_it_arrives(peer: Peer, ask: Ask) -> None:
    """The connection's path is a prefix; None parameters are left out; key and user agent are there."""
    reply = ask(method="POST", path="/a/b%2Fc", json={"prompt": "ü"}, params={"limit": 5, "cursor": None})
    assert (reply.status, reply.document) == (200, {"ok": True})
    ((method, path, headers, body),) = peer.seen
    assert (method, path) == ("POST", "/prefix/a/b%2Fc?limit=5")
    assert json.loads(body) == {"prompt": "ü"}
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["user-agent"] == f"airflow-media-tasks/{__version__}"
    assert headers["accept"] == "application/json"


@pytest.mark.parametrize("way", [{}, {"no_proxy": "example.com,127.0.0.1"}])
def test_proxy_of_the_environment(
    peer: Peer, hook: Toy, ask: Ask, monkeypatch: pytest.MonkeyPatch, way: dict[str, str]
) -> None:
    """A request goes through the proxy that the environment names, unless the host needs none."""
    with running() as proxy:
        for name, value in {"http_proxy": proxy.url, "no_proxy": "example.com", **way}.items():
            monkeypatch.setenv(name, value)
        ask()
        assert [path for _, path, _, _ in proxy.seen] == ([] if way else [f"{peer.url}/prefix/thing"])
    assert [path for _, path, _, _ in peer.seen] == (["/prefix/thing"] if way else [])


def test_key_is_the_connections(
    peer: Peer, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password that `.netrc` has for the host is not used in its place."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    ask()
    ((_, _, headers, _),) = peer.seen
    assert headers["authorization"] == f"Bearer {KEY}"


def test_certificate_is_checked(
    peer: Peer, connect: Any, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server is believed by an authority of `SSL_CERT_FILE` and no other; what is refused was not sent."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    peer.socket = context.wrap_socket(peer.socket, server_side=True)
    hook = Toy(connect(conn_type="toy", host=peer.url.replace("http:", "https:"), password=KEY))
    hook.read_attempts = 1
    with pytest.raises(MediaProviderError, match=r"(?i)certificate") as caught:
        call(hook, "ask")
    assert caught.value.code in NOT_SENT
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert call(hook, "ask").status == 200
    assert len(peer.seen) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("paid", [False, True])
def test_redirect_is_not_followed(peer: Peer, ask: Ask, status: int, *, paid: bool) -> None:
    """A redirect leads nowhere: neither the request nor the key goes to another address."""
    with running() as elsewhere:
        peer.answer = lambda handler: say(handler, b"moved", status, Location=f"{elsewhere.url}/thing")
        with pytest.raises(MediaProviderError, match=str(status)):
            ask(method="POST", json={}, paid=paid)
        assert elsewhere.seen == []
    assert {path for _, path, _, _ in peer.seen} == {"/prefix/thing"}


def test_late_submission_is_not_sent(peer: Peer, hook: Toy, ask: Ask) -> None:
    """A submission whose time has passed is not sent and says so; a read is not concerned."""
    hook.send_before = time.time() - 1
    with pytest.raises(MediaProviderError) as caught:
        ask(method="POST", json={}, paid=True)
    assert caught.value.code in NOT_SENT
    assert peer.seen == []
    ask()
    hook.send_before = time.time() + 60
    ask(method="POST", json={}, paid=True)
    assert len(peer.seen) == 2


# Submissions of which nothing was heard.


def test_lost_reply_of_an_awaited_submission(sim: Simulator, connect: Any) -> None:
    """A connection cut after the submission was sent is not taken for "not sent"."""
    hook = VapHook(connect(conn_type="vap", host=f"{sim.url}/vap", password=KEY))

    async def submit() -> None:
        """All within one event loop."""
        async with hook:
            await hook.asubmit("text_to_image", {"prompt": "on a fresh connection"})
            await hook.asubmit("text_to_image", {"prompt": "[sim:lose-reply]"})

    with pytest.raises(SubmissionOutcomeUnknown) as caught:
        asyncio.run(submit())
    assert caught.value.code not in NOT_SENT
    assert "did not answer" in str(caught.value)
    assert [entry["request"]["params"]["description"] for entry in sim.ledger()] == [
        "on a fresh connection",
        "[sim:lose-reply]",
    ]


@pytest.mark.parametrize("trouble", [hang_up, reset, stop_in_the_middle, talk_nonsense])
@pytest.mark.parametrize("kept_alive", [False, True])
@pytest.mark.parametrize("awaited", [False, True])
def test_submission_whose_connection_breaks_is_sent_once(
    peer: Peer, hook: Toy, trouble: Callable[..., None], *, kept_alive: bool, awaited: bool
) -> None:
    """However the connection ends after a submission was sent, it was sent, and is not sent again."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "GET":
            say(handler, {})
        else:
            trouble(handler)

    peer.answer = answer

    async def many() -> None:
        """All within one event loop."""
        async with hook:
            if kept_alive:
                await hook.aask()
            await hook.aask(method="POST", json={"n": 1}, paid=True)

    def one_by_one() -> None:
        with hook:
            if kept_alive:
                hook.ask()
            hook.ask(method="POST", json={"n": 1}, paid=True)

    with pytest.raises(MediaProviderError) as caught:
        asyncio.run(many()) if awaited else one_by_one()
    assert caught.value.code not in NOT_SENT
    assert [method for method, *_ in peer.seen] == ["GET", "POST"][not kept_alive :]
    assert peer.connections == 1


@pytest.mark.parametrize("paid", [False, True])
def test_answer_that_does_not_come(peer: Peer, hook: Toy, ask: Ask, *, paid: bool) -> None:
    """After its timeout a request is given up; a submission was sent all the same."""
    hook.read_attempts = 2
    release = threading.Event()
    peer.answer = hang_until(release)
    try:
        with pytest.raises(MediaProviderError, match="did not answer") as caught:
            ask(method="POST", json={}, paid=paid, timeout=0.3)
    finally:
        release.set()
    assert caught.value.code is None
    assert len(peer.seen) == (1 if paid else 2)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_refused_submission_is_sent_once(peer: Peer, ask: Ask, status: int) -> None:
    """A submission that is answered at all, even with "too many", is not sent again by the hook."""
    peer.answer = lambda handler: say(handler, {}, status)
    with pytest.raises((MediaRateLimitError, MediaProviderError)):
        ask(method="POST", json={}, paid=True)
    assert len(peer.seen) == 1


# Reads that are repeated.


def test_read_is_tried_as_often_as_told(peer: Peer, hook: Toy, ask: Ask) -> None:
    """A read is repeated `read_attempts` times in all; with one attempt, as a poller has it, not at all."""
    peer.answer = lambda handler: say(handler, {}, 500)
    for attempts in (4, 1):
        peer.seen.clear()
        hook.read_attempts = attempts
        with pytest.raises(MediaProviderError):
            ask()
        assert len(peer.seen) == attempts


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, MediaRequestError),
        (401, MediaAuthError),
        (402, MediaFundsError),
        (403, MediaAuthError),
        (404, MediaNotFoundError),
        (422, MediaRequestError),
    ],
)
def test_read_that_cannot_succeed_is_not_repeated(
    peer: Peer, ask: Ask, status: int, cls: type[MediaTaskError]
) -> None:
    """What will not change is asked once; without a provider's code the HTTP status chooses the class."""
    peer.answer = lambda handler: say(handler, {"detail": "no"}, status)
    with pytest.raises(cls) as caught:
        ask()
    assert type(caught.value) is cls
    assert len(peer.seen) == 1


def test_long_retry_after_is_capped(peer: Peer, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read waits for no more than the cap, however long it is told to; the error still says how long."""
    monkeypatch.setattr(conversations, "MAX_RETRY_AFTER", 0.01)
    peer.answer = lambda handler: say(handler, {}, 429, Retry_After="8")
    began = time.monotonic()
    with pytest.raises(MediaRateLimitError) as caught:
        ask()
    assert time.monotonic() - began < 20
    assert caught.value.retry_after == 8
    assert len(peer.seen) == 4


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("1e9", 300.0),
        ("1e300", 300.0),
        (email.utils.formatdate(4e9, usegmt=True), 300.0),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Fri, 99 Foo 2026 00:00:00 GMT", None),
        (email.utils.formatdate(0, usegmt=True), 0.0),
    ],
)
def test_retry_after(peer: Peer, hook: Toy, ask: Ask, text: str, seconds: float | None) -> None:
    """Retry-After is a number of seconds from 0 to 300; what is no number is as if it were not there."""
    hook.read_attempts = 1
    peer.answer = lambda handler: say(handler, {}, 429, Retry_After=text)
    with pytest.raises(MediaRateLimitError) as caught:
        ask()
    assert caught.value.retry_after == seconds


def test_retry_after_as_a_date(peer: Peer, hook: Toy, ask: Ask) -> None:
    """Retry-After may be a date."""
    hook.read_attempts = 1
    peer.answer = lambda handler: say(
        handler, {}, 429, Retry_After=email.utils.formatdate(time.time() + 30, usegmt=True)
    )
    with pytest.raises(MediaRateLimitError) as caught:
        ask()
    assert caught.value.retry_after == pytest.approx(30, abs=5)


@pytest.mark.parametrize("ahead", [-3600.0, -8.0, 0.0, 600.0, 3600.0])
def test_providers_clock(peer: Peer, hook: Toy, ask: Ask, ahead: float) -> None:
    """The provider's clock is known from its Date header, also where it missed summer time."""
    peer.answer = lambda handler: dated(handler, email.utils.formatdate(time.time() + ahead, usegmt=True))
    ask()
    assert hook.clock_offset == pytest.approx(ahead, abs=5)


@pytest.mark.parametrize("ahead", [-1e9, -7200.0, 7200.0, 86_400.0, 1e9])
def test_date_that_is_not_believed(peer: Peer, hook: Toy, ask: Ask, ahead: float) -> None:
    """A Date that is hours off, or none at all, changes nothing."""
    for date in (email.utils.formatdate(time.time() + ahead, usegmt=True), "nonsense", ""):
        peer.answer = lambda handler, date=date: dated(handler, date)
        ask()
        assert hook.clock_offset == 0.0


def dated(handler: BaseHTTPRequestHandler, date: str) -> None:
    """Answers with this Date header."""
    handler.date_time_string = lambda *_: date  # type: ignore[method-assign]  # the Date header's text
    say(handler, {"ok": True})


# Replies that cannot be used.


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"<html>gateway</html>",
        b'{"task_id": "t',
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"1" * 10_000,
    ],
    ids=["empty", "null", "html", "truncated", "bytes", "deep-list", "deep-object", "long-number"],
)
def test_reply_that_is_no_document(peer: Peer, hook: Toy, ask: Ask, content: bytes) -> None:
    """A good status over what is no JSON document is the provider's error, and shows only its beginning."""
    hook.read_attempts = 1
    peer.answer = lambda handler: say(handler, content)
    with pytest.raises(MediaProviderError, match="no JSON document") as caught:
        ask()
    assert len(str(caught.value)) < 400


def test_document_of_a_reply() -> None:
    """A body that is no object is an empty document, so that a parser need not ask."""
    assert Reply(200, {"a": 1}, "").document == {"a": 1}
    bodies: list[Any] = [None, [], "x", 5, True]
    for body in bodies:
        assert Reply(200, body, "").document == {}


@pytest.mark.parametrize("status", [408, 409, 410, 425, 451, 499, 500, 504, 599])
def test_status_that_nobody_knows(peer: Peer, hook: Toy, ask: Ask, status: int) -> None:
    """It is the provider's or a gateway's fault in a submission; in a read, what it asks for may be wrong."""
    hook.read_attempts = 1
    peer.answer = lambda handler: say(handler, b"<html>Sorry</html>", status)
    with pytest.raises(MediaProviderError) as caught:
        ask(method="POST", json={}, paid=True)
    assert caught.value.code not in NOT_SENT
    own = status in (409, 410, 451)
    with pytest.raises(MediaRequestError if own else MediaProviderError):
        ask()


def test_provider_that_documents_another_status(peer: Peer, hook: Toy, ask: Ask) -> None:
    """What a status means is data of the hook's class."""
    hook.refusals = {**hook.refusals, 409: MediaConcurrencyError}  # type: ignore[misc]  # as a subclass does
    peer.answer = lambda handler: say(handler, {"detail": "busy"}, 409)
    with pytest.raises(MediaConcurrencyError):
        ask(method="POST", json={}, paid=True)


def test_what_is_asked_for_is_packed_in_one_way(peer: Peer, ask: Ask) -> None:
    """Only gzip is asked for: it is all that is unpacked, once."""
    ask()
    assert peer.seen[0][2]["accept-encoding"] == "gzip"


def test_reply_that_is_packed_twice(peer: Peer, hook: Toy, ask: Ask) -> None:
    """Bytes that are packed twice are no document, and are not unpacked twice."""
    hook.read_attempts = 1
    content = gzip.compress(gzip.compress(b'{"ok": true}'))
    peer.answer = lambda handler: say(handler, content, Content_Encoding="gzip, gzip")
    with pytest.raises(MediaProviderError, match="no JSON document"):
        ask()
    peer.answer = lambda handler: say(handler, gzip.compress(b'{"ok": true}'), Content_Encoding="gzip")
    assert ask().document == {"ok": True}


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_reply_that_is_too_large(peer: Peer, hook: Toy, ask: Ask, encoding: str) -> None:
    """A reply is read up to a bound, which counts what was unpacked; just below it all is well."""
    hook.read_attempts = 1

    def answer(size: int) -> Callable[[BaseHTTPRequestHandler], None]:
        content = b'{"a":"' + b"x" * (size - 8) + b'"}'
        packed = gzip.compress(content, 1) if encoding == "gzip" else content

        def send(handler: BaseHTTPRequestHandler) -> None:
            try:
                say(handler, packed, Content_Encoding=encoding)
            except OSError:
                handler.close_connection = True  # the hook has heard enough

        return send

    peer.answer = answer(MAX_REPLY_BYTES)
    assert len(ask().document["a"]) == MAX_REPLY_BYTES - 8
    peer.answer = answer(MAX_REPLY_BYTES + 1)
    with pytest.raises(MediaProviderError, match="more than 8388608 bytes"):
        ask()


# Secrets.


@pytest.mark.parametrize(
    "echo",
    [
        json.dumps({"error": f"the key {KEY} is unknown", "code": KEY}),
        json.dumps({"error": f"the key {KEY} is unknown"}).replace("/", "\\/"),
        f"<html>Bearer {KEY}</html>",
    ],
    ids=["json", "escaped", "html"],
)
@pytest.mark.parametrize("status", [200, 401, 500])
def test_echoed_key_is_masked(peer: Peer, hook: Toy, ask: Ask, status: int, echo: str) -> None:
    """A provider that repeats the key in its answer does not put it into our errors, logs or XComs."""
    hook.read_attempts = 1
    peer.answer = lambda handler: say(handler, echo.encode(), status)
    try:
        shown = repr(ask())
    except MediaTaskError as error:
        shown = f"{error!r} {error} {error.to_dict()}"
    assert KEY not in shown
    assert KEY.replace("/", "\\/") not in shown
    assert "***" in shown


def test_echoed_signature_is_masked(peer: Peer, connect: Any, call: Any) -> None:
    """A token signed with the key pair opens the account for half an hour: it is masked like a key."""
    secret = "a-secret-key-that-is-long-enough-for-this"
    hook = KlingHook(connect(conn_type="kling", host=peer.url, login="the-access-key", password=secret))
    hook.read_attempts = 1

    def echo(handler: BaseHTTPRequestHandler) -> None:
        said = f"{handler.headers['Authorization']} of the-access-key is no good"
        say(handler, {"code": 1002, "message": said, "request_id": "r-1"}, 401)

    peer.answer = echo
    with pytest.raises(MediaAuthError) as caught:
        call(hook, "get_task", "videos/text2video/1")
    sent = peer.seen[0][2]["authorization"].removeprefix("Bearer ")
    assert jwt.decode(sent, secret, algorithms=["HS256"])["iss"] == "the-access-key"
    assert sent not in str(caught.value)
    assert "the-access-key" not in str(caught.value)
    assert "is no good" in str(caught.value)


@pytest.mark.parametrize("key", [f" {KEY}", f"{KEY} ", f"{KEY}\r\n", f"\u00a0{KEY}\t"])
def test_key_with_something_beside_it(peer: Peer, connect: Any, call: Any, key: str) -> None:
    """What was pasted along with a key is no part of it."""
    call(Toy(connect(conn_type="toy", host=peer.url, password=key)), "ask")
    assert peer.seen[0][2]["authorization"] == f"Bearer {KEY}"


def test_what_the_library_will_not_send(peer: Peer, hook: Toy, ask: Ask) -> None:
    """What an HTTP library refuses to send was not sent, and its words for it show no secret."""
    hook._headers = lambda: {"Authorization": f"Bearer {KEY}", "X-Key": f"{KEY} \r\n"}  # type: ignore[method-assign]  # a hook with a fault
    with pytest.raises(MediaProviderError) as caught:
        ask(method="POST", json={}, paid=True)
    assert KEY not in f"{caught.value} {caught.value.to_dict()}"
    assert peer.seen == []


def test_error_shows_where_and_not_with_what(connect: Any, call: Any, closed_port: int) -> None:
    """An unreachable address is named, the key is not."""
    hook = Toy(connect(conn_type="toy", host=f"http://127.0.0.1:{closed_port}", password=KEY))
    hook.retry_wait = 0.001
    with pytest.raises(MediaProviderError, match=f"http://127.0.0.1:{closed_port}") as caught:
        call(hook, "ask")
    assert caught.value.code == "unreachable"
    assert KEY not in str(caught.value)


# Clients.


def test_one_connection_within_a_context(peer: Peer, hook: Toy) -> None:
    """Within `with` all calls share a connection; without it each has its own, closed at once."""
    with hook:
        for _ in range(3):
            hook.ask()
    assert peer.connections == 1
    assert hook._client is None
    for _ in range(2):
        hook.ask()
    assert peer.connections == 3


def test_one_connection_within_an_async_context(peer: Peer, hook: Toy) -> None:
    """Within `async with` all calls share a connection; without it each has its own, closed at once."""

    async def talk() -> None:
        """All within one event loop."""
        async with hook:
            for _ in range(3):
                await hook.aask()
        assert peer.connections == 1
        assert hook._async_client is None
        for _ in range(2):
            await hook.aask()
        assert peer.connections == 3

    asyncio.run(talk())


def test_no_cookie_is_kept(peer: Peer, hook: Toy) -> None:
    """What one answer wants remembered is not sent with the next question."""
    peer.answer = lambda handler: say(handler, {"ok": True}, Set_Cookie="session=1; Path=/")

    async def talk() -> None:
        """Twice with one client."""
        async with hook:
            await hook.aask()
            await hook.aask()

    with hook:
        hook.ask()
        hook.ask()
    asyncio.run(talk())
    assert len(peer.seen) == 4
    assert not [headers for _, _, headers, _ in peer.seen if "cookie" in headers]


def test_no_more_connections_than_allowed(peer: Peer, hook: Toy) -> None:
    """However many calls run at once, one client opens at most `max_connections`."""

    async def talk() -> None:
        """All within one event loop."""
        async with hook:
            await asyncio.gather(*(hook.aask() for _ in range(40)))

    asyncio.run(talk())
    assert len(peer.seen) == 40
    assert peer.connections <= hook.max_connections == 10


def test_client_is_closed_after_trouble(peer: Peer, hook: Toy) -> None:
    """An error within the context closes the client too, and the hook can be used again."""
    peer.answer = lambda handler: say(handler, {}, 404)
    clients = []

    def talk() -> None:
        with hook:
            clients.append(hook._client)
            hook.ask()

    with pytest.raises(MediaNotFoundError):
        talk()
    (client,) = clients
    assert client is not None
    assert client.is_closed
    peer.answer = lambda handler: say(handler, {"ok": True})
    with hook:
        assert hook.ask().document == {"ok": True}


def test_call_that_is_cancelled(peer: Peer, hook: Toy) -> None:
    """A call that is cancelled while it waits leaves no connection behind, and the next one works."""
    asked, release = threading.Event(), threading.Event()

    async def talk() -> Reply:
        """All within one event loop."""
        async with hook:
            peer.answer = hang_until(release, asked)
            waiting = asyncio.create_task(hook.aask())
            await asyncio.to_thread(asked.wait, 10)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            release.set()
            peer.answer = lambda handler: say(handler, {"ok": True})
            return await hook.aask()

    assert asyncio.run(talk()).document == {"ok": True}


def test_conversation_is_told_and_closed(peer: Peer, hook: Toy, call: Any) -> None:
    """A conversation is thrown what a request raised, may go on, and is closed whatever happens."""
    ended = []

    def stubborn(_: Request) -> Conversation[str]:
        try:
            try:
                yield Request("GET", "/first")
            except MediaNotFoundError as error:
                said = str(error)
            reply = yield Request("GET", "/second")
            return f"{reply.status} after {said}"
        finally:
            ended.append(True)

    answers = {"/prefix/first": 404, "/prefix/second": 200}
    peer.answer = lambda handler: say(handler, {"x": 1}, answers[handler.path])
    hook._one = stubborn  # type: ignore[method-assign,assignment]  # another conversation
    assert call(hook, "ask").startswith("200 after connection 'account': toy says")
    answers["/prefix/second"] = 401
    with pytest.raises(MediaAuthError):
        call(hook, "ask")
    assert ended == [True, True]
