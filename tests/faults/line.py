"""A slow line to Airflow's API: what somebody sends arrives when it is let pass."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


class SlowLine:
    """An address on loopback that passes each request on, and its answer back.

    :param url: of the API server.
    :param holds: whether a request has to wait yet, by its method and its path without the query.
    """

    def __init__(self, url: str, holds: Callable[[str, str], bool]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                """Any request of Airflow's API."""
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                while holds(self.command, self.path.partition("?")[0]):
                    # So that the client does not give up.
                    self.send_response_only(HTTPStatus.CONTINUE)
                    self.end_headers()
                    time.sleep(0.5)
                kept = ("Accept", "Authorization", "Content-Type")
                headers = {name: value for name in kept if (value := self.headers[name])}
                reply = httpx.request(
                    self.command, url + self.path, content=body, headers=headers, timeout=60, trust_env=False
                )
                self.send_response(reply.status_code)
                for name in ("Content-Type", "Location"):
                    if name in reply.headers:
                        self.send_header(name, reply.headers[name])
                self.send_header("Content-Length", str(len(reply.content)))
                self.end_headers()
                self.wfile.write(reply.content)

            do_GET = do_POST = do_PUT = pass_on  # noqa: N815  # the names that the server looks for

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> SlowLine:  # noqa: PYI034  # it is not subclassed any further
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
