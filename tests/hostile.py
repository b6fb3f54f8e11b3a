"""A server of media files on loopback, honest or not: what a provider's storage may do to who downloads."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import socket
import ssl
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


PRIVATE = (
    "http://10.0.0.7/x.wav",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]:1/x",
    "http://2130706689/x",
)


@functools.lru_cache(maxsize=16)
def sound(number: int, size: int) -> bytes:
    """A WAV file of *size* bytes, another one for each *number*."""
    samples = random.Random(number).randbytes(size - 44)  # noqa: S311  # noise
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        size - 8,
        b"WAVE",
        b"fmt ",
        16,
        1,
        2,
        44100,
        176400,
        4,
        16,
        b"data",
        size - 44,
    )
    return header + samples


class Hostile(ThreadingHTTPServer):
    """Serves `/<way>/<number>`: the file of that number, the way of that name.

    :param size: bytes of each file.
    :param tls: to speak https.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, size: int, tls: ssl.SSLContext | None = None) -> None:
        self.size = size
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.times: Counter[str] = Counter()
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Hostile:  # noqa: PYI034  # typing.Self is of Python 3.11
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def content(self, number: int) -> bytes:
        """What the file of this number is."""
        return sound(number, self.size)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is none of our troubles."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hostile

    def do_GET(self) -> None:
        """One way or another."""
        self.close_connection = True
        self.server.times[self.path] += 1
        self.server.seen.append((self.path, dict(self.headers)))
        if self.path.startswith("/v3/tasks/"):
            return self.task(self.path.rpartition("/")[2])
        _, way, number = self.path.split("/")
        return getattr(self, f"way_{way}")(self.server.content(int(number)), self.server.times[self.path])

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def say(self, status: int, content: bytes = b"", length: int | None = None, **headers: str) -> None:
        """A whole answer, whatever length is announced."""
        self.send_response(status)
        announced = {
            "Content-Type": "audio/wav",
            "Content-Length": str(len(content) if length is None else length),
        }
        for name, value in {
            **announced,
            **{key.replace("_", "-"): value for key, value in headers.items()},
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def begin(self, content: bytes, share: float, **headers: str) -> None:
        """The beginning of an answer, then nothing."""
        self.say(200, content[: int(len(content) * share)], len(content), **headers)
        self.wfile.flush()

    def cut(self) -> None:
        """Resets the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def stall(self) -> None:
        """Says nothing until the client or the server is gone."""
        self.connection.settimeout(0.05)
        while not self.server.closing.is_set():
            with contextlib.suppress(TimeoutError):
                if not self.connection.recv(1):
                    return

    def rest(self, content: bytes, etag: str = '"1"') -> None:
        """What was asked for by Range, if it is of the same file, else the whole of it."""
        asked = self.headers.get("Range")
        headers = {"ETag": etag, "Accept_Ranges": "bytes"}
        if asked is None or self.headers.get("If-Range") != etag:
            return self.say(200, content, **headers)
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        place = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.say(206, content[start:], Content_Range=place, **headers)

    # What should land.

    def way_plain(self, content: bytes, _: int) -> None:
        self.say(200, content)

    def way_chunked(self, content: bytes, _: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "audio/wav")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(content), 100_000):
            part = content[start : start + 100_000]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def way_cut(self, content: bytes, time_: int) -> None:
        """Three times, each time a little later."""
        if time_ > 3:
            return self.rest(content)
        asked = self.headers.get("Range", "bytes=0-")
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        more = content[start : start + len(content) // 5]
        headers = {"ETag": '"1"', "Accept_Ranges": "bytes"}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.say(206 if start else 200, more, len(content) - start, **headers)
        time.sleep(0.01)
        return self.cut()

    def way_cutnoranges(self, content: bytes, time_: int) -> None:
        if time_ > 1:
            return self.say(200, content, ETag='"1"')
        self.begin(content, 0.6, ETag='"1"')
        return self.cut()

    def way_changed(self, content: bytes, time_: int) -> None:
        """Another file after the first cut, which the server says by its answer."""
        if time_ > 1:
            return self.rest(content, '"2"')
        self.begin(bytes(len(content)), 0.5, ETag='"1"', Accept_Ranges="bytes")
        return self.cut()

    def way_liarchanged(self, content: bytes, time_: int) -> None:
        """Another file after the first cut, of which the server gives the second half all the same."""
        if time_ > 2:
            return self.rest(content, '"2"')
        if time_ == 1:
            self.begin(bytes(len(content)), 0.5, ETag='"1"', Accept_Ranges="bytes")
            return self.cut()
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        place = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.say(206, content[start:], Content_Range=place, ETag='"2"')

    def way_wrongpart(self, content: bytes, time_: int) -> None:
        """A part that was not asked for."""
        if time_ == 1:
            self.begin(content, 0.5, ETag='"1"', Accept_Ranges="bytes")
            return self.cut()
        if time_ == 2:
            return self.say(206, content[10:], Content_Range=f"bytes 10-{len(content) - 1}/{len(content)}")
        return self.rest(content)

    def way_stall(self, content: bytes, time_: int) -> None:
        if time_ > 1:
            return self.rest(content)
        self.begin(content, 0.3, ETag='"1"', Accept_Ranges="bytes")
        return self.stall()

    def way_busy(self, content: bytes, time_: int) -> None:
        self.say((503, 429)[time_ - 1] if time_ < 3 else 200, content)

    def way_redirect(self, content: bytes, _: int) -> None:
        self.say(302, Location=self.path.replace("redirect", "redirectb"))

    def way_redirectb(self, content: bytes, _: int) -> None:
        self.say(
            307,
            Location=f"http://127.0.0.1:{self.server.server_port}{self.path.replace('redirectb', 'plain')}",
        )

    def way_gzip(self, content: bytes, _: int) -> None:
        packer = zlib.compressobj(1, wbits=31)
        self.say(200, packer.compress(content) + packer.flush(), Content_Encoding="gzip")

    def way_mislabelled(self, content: bytes, _: int) -> None:
        self.say(200, content, Content_Type="text/html")

    def way_expired(self, content: bytes, _: int) -> None:
        self.say(403, b"expired")

    # What must not.

    def way_alwayscut(self, content: bytes, _: int) -> None:
        self.begin(content, 0.5)
        self.cut()

    def way_alwaysstalls(self, content: bytes, _: int) -> None:
        self.begin(content, 0.5)
        self.stall()

    def way_toolong(self, content: bytes, _: int) -> None:
        """More is announced than comes."""
        self.say(200, content, len(content) + 1000)

    def way_tooshort(self, content: bytes, _: int) -> None:
        """Less is announced than there is."""
        self.say(200, content, len(content) // 2)

    def way_page(self, content: bytes, _: int) -> None:
        self.say(200, b"<!DOCTYPE html>\n<html><title>Sorry</title>" + b"x" * 10**6)

    def way_picture(self, content: bytes, _: int) -> None:
        self.say(200, b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + content)

    def way_garbage(self, content: bytes, _: int) -> None:
        self.say(200, content[44:])

    def way_hollow(self, content: bytes, _: int) -> None:
        """Something that begins as such a file does."""
        self.say(200, content[:44])

    def way_private(self, content: bytes, _: int) -> None:
        number = int(self.path.rpartition("/")[2])
        self.say(302, Location=PRIVATE[number % len(PRIVATE)])

    def way_file(self, content: bytes, _: int) -> None:
        self.say(302, Location="file:///etc/passwd")

    def way_loop(self, content: bytes, _: int) -> None:
        self.say(302, Location=self.path)

    def way_bomb(self, content: bytes, _: int) -> None:
        """A gigabyte of nothing in a megabyte."""
        packer = zlib.compressobj(9, wbits=31)
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        nothing = bytes(1024 * 1024)
        for _ in range(1024):
            self.wfile.write(packer.compress(nothing))
        self.wfile.write(packer.flush())

    def way_brotli(self, content: bytes, _: int) -> None:
        self.say(200, content, Content_Encoding="br")

    def way_huge(self, content: bytes, _: int) -> None:
        self.say(200, content, 10**13)

    def way_endless(self, content: bytes, _: int) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.server.closing.is_set():
            self.wfile.write(content)

    def way_gone(self, content: bytes, _: int) -> None:
        self.say(410)

    def task(self, media_task_id: str) -> None:
        """What VAP says: the file of `task-<number>` is elsewhere now, unless it is gone."""
        number = int(media_task_id.rpartition("-")[2])
        document = {
            "task_id": media_task_id,
            "type": "music_generation",
            "status": "completed",
            "output_url": f"{self.server.url}/{'plain' if number < 1000 else 'gone'}/{number}",
        }
        self.say(200, json.dumps(document).encode(), Content_Type="application/json")


@contextlib.contextmanager
def served(size: int, tls: ssl.SSLContext | None = None) -> Iterator[Hostile]:
    """A hostile server, for as long as it is needed."""
    with Hostile(size, tls) as server:
        yield server
