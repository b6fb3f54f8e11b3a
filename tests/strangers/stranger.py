"""What all servers here are: each request is written down and answered, or its reply never comes.

They are written from a provider's documentation alone, by somebody who had not seen its hook. They are not
the package's simulator and share nothing with it. What becomes of a task is said by a word of its request.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from typing_extensions import Self


Said = tuple[int, Any, Mapping[str, str]]
"""Status, body and headers. The body is JSON, a text that is a web page, or bytes; None never comes."""


@dataclass(frozen=True)
class Asked:
    """One request.

    :param path: with its query, as it was sent.
    :param headers: by their names in small letters.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes

    @property
    def segments(self) -> list[str]:
        """The parts of the path."""
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    @property
    def query(self) -> dict[str, str]:
        """The parameters; one that is there twice is a comma list."""
        query: dict[str, str] = {}
        for name, value in parse_qsl(urlsplit(self.path).query):
            query[name] = f"{query[name]},{value}" if name in query else value
        return query

    @property
    def body(self) -> Any:
        """The JSON that was sent, None without any."""
        return json.loads(self.raw) if self.raw else None

    @property
    def form(self) -> dict[str, Any]:
        """The multipart form that was sent; of a file its name and its bytes."""
        kind = self.headers.get("content-type", "")
        message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + self.raw)
        form: dict[str, Any] = {}
        for part in message.get_payload():
            name = str(part.get_param("name", header="content-disposition"))
            content = part.get_payload(decode=True)
            form[name] = (part.get_filename(), content) if part.get_filename() else content.decode()
        return form

    @property
    def word(self) -> str:
        """What is to become of it: NAME, where `stranger-NAME` stands anywhere in what was sent."""
        found = re.search(rb"stranger-(\w+)", self.raw)
        return found[1].decode() if found else ""


class Refused(Exception):
    """Ends a request with a status, a body and headers."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, body)
        self.said: Said = status, body, headers or {}


class Stranger(ThreadingHTTPServer):
    """A provider, as far as its sheet tells; used as a context manager, it runs."""

    daemon_threads = True

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, asked: Asked) -> Said:
        """What a provider says."""
        raise NotImplementedError


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a reply goes out at once, or its second half waits for the first one's receipt
    server: Stranger

    def respond(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, raw)
        self.server.requests.append(asked)
        try:
            status, body, headers = self.server.answer(asked)
        except Refused as refused:
            status, body, headers = refused.said
        if body is None:
            self.close_connection = True
            self.connection.close()
            return
        kind = {bytes: "application/octet-stream", str: "text/html"}.get(type(body), "application/json")
        if not isinstance(body, bytes):
            body = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = respond  # noqa: N815  # the names that the server looks for

    def log_message(self, *args: Any) -> None:
        pass


def stamp() -> str:
    """Now, in UTC, as most providers write it; no two are the same."""
    time.sleep(0.000_01)
    return re.sub(r"\+00:00$", "Z", datetime.now(timezone.utc).isoformat(timespec="microseconds"))


def moment(text: str) -> datetime:
    """The time that *text* says, with its zone if it has one."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
