"""A provider on loopback that answers as a test tells it to."""

from __future__ import annotations

import email.utils
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


class Peer(ThreadingHTTPServer):
    """A provider that answers as it is told, and remembers what it was asked."""

    daemon_threads = False

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections = 0
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda handler: say(handler, {"ok": True})
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the peer's `answer`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer, sent in two parts, waits 40 ms for an acknowledgement
    server: Peer
    body: bytes

    def setup(self) -> None:
        """Counts the connection."""
        super().setup()
        self.server.connections += 1

    def respond(self) -> None:
        """Answers one request."""
        self.body = body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.command, self.path, headers, body))
        self.server.answer(self)

    do_GET = do_POST = do_DELETE = respond  # noqa: N815  # the names that the server looks for

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""


def say(handler: BaseHTTPRequestHandler, body: Any, status: int = 200, **headers: str) -> None:
    """Answers with JSON, or with bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """What of a request's *headers*, in small letters, goes on to the next server."""
    own = ("host", "connection", "content-length", "accept-encoding")
    return {name: value for name, value in headers.items() if name not in own}


def edge(to: str, ahead: float) -> Callable[[BaseHTTPRequestHandler], None]:
    """Hands each request on to the server at *to*; its reply gets the edge's own `Date`, *ahead* seconds."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        assert isinstance(handler, Handler)
        headers = passed_on({name.lower(): value for name, value in handler.headers.items()})
        try:
            reply = httpx.request(
                handler.command, to + handler.path, content=handler.body, headers=headers, trust_env=False
            )
        except httpx.HTTPError:
            hang_up(handler)
            return
        date = email.utils.formatdate(time.time() + ahead, usegmt=True)
        handler.date_time_string = lambda timestamp=None: date
        say(handler, reply.content, reply.status_code)

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Closes the connection without a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Closes the connection with a reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def hang_until(
    release: threading.Event, asked: threading.Event | None = None
) -> Callable[[BaseHTTPRequestHandler], None]:
    """Tells that it was asked, and closes the connection without a word once it may."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if asked is not None:
            asked.set()
        release.wait(10)
        hang_up(handler)

    return answer


def stop_in_the_middle(handler: BaseHTTPRequestHandler) -> None:
    """Closes the connection in the middle of the body that was promised."""
    say(handler, b'{"task_id": "t', Content_Length="500")
    hang_up(handler)


def talk_nonsense(handler: BaseHTTPRequestHandler) -> None:
    """Answers in no protocol at all."""
    handler.wfile.write(b"\x00\x01\x02 no HTTP \r\n\r\n")
    hang_up(handler)
