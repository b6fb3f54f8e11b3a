"""Reading a reply: its bytes are bounded before they are unpacked, its document before it is walked.

A status reply is a few KiB and flat. What is not must not cost a triggerer, which reads for all teams, its
memory or its event loop.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import math
import re
import time
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any


MAX_REPLY_BYTES = 8 * 1024 * 1024
"""Of a reply, as it comes and unpacked."""
MAX_VALUES = 100_000
"""In a document: a list of 500 tasks has a tenth of them. Commas within texts count, too."""
MAX_DEPTH = 64
"""Levels of a document: everything that walks one may recurse."""

MAX_INLINE_BYTES = 256 * 1024 * 1024
"""Of a reply that holds files in base64, as it comes."""

_GZIP = b"\x1f\x8b"
_FILE = re.compile(rb"[A-Za-z0-9+/=_-]{4096,}")
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-"
_BEGINNING, _PIECE = 1024, 64 * 1024


class Body:
    """The bytes of a reply, as they come.

    :param inline: of a reply that may hold files in base64: `short` keeps little more than the beginning of
        each, so that whoever waits for them does not carry them, `whole` all of it; empty for any other.
    """

    def __init__(self, inline: str = "") -> None:
        self._inline, self._came = inline, 0
        self._content, self._latest = bytearray(), bytearray()

    def add(self, chunk: bytes) -> bool:
        """Takes in what came; whether all of it is still not too much."""
        self._latest += chunk
        self._came += len(chunk)
        # Piece by piece: so it takes no longer, in however small ones it comes.
        if len(self._latest) >= _PIECE:
            self._take_in()
        kept = len(self._content) + len(self._latest)
        return kept <= self._most and self._came <= (MAX_INLINE_BYTES if self._inline else self._most)

    def text(self, encoding: str | None) -> str | None:
        """See `text_of`."""
        self._take_in()
        return text_of(self._content + self._latest, encoding, self._most)

    def _take_in(self) -> None:
        latest: bytes | bytearray = self._latest
        if self._inline == "short":
            latest = _FILE.sub(lambda file: file[0][:_BEGINNING], latest)
            # A file may go on with what comes next.
            done = latest.rstrip(_BASE64)
            self._content += done
            self._latest = bytearray(latest[len(done) :])
        else:
            self._content += latest
            self._latest = bytearray()

    @property
    def _most(self) -> int:
        return MAX_INLINE_BYTES if self._inline == "whole" else MAX_REPLY_BYTES


def text_of(content: bytes | bytearray, encoding: str | None, most: int = MAX_REPLY_BYTES) -> str | None:
    """The text in *content*, which is unpacked once; None if it is longer than *most* bytes.

    Whether it is packed, its first bytes say: `Content-Encoding` has been seen to name a character set. What
    is packed twice, or in a way that nobody asked for, is a text that is no JSON.

    :param encoding: the Content-Encoding header.
    """
    if content.startswith(_GZIP) or (encoding or "").strip().lower() == "deflate":
        with contextlib.suppress(zlib.error):
            # 15 + 32: gzip or zlib, as the stream's own header says.
            content = zlib.decompressobj(15 + 32).decompress(content, most + 1)
    return None if len(content) > most else content.decode("utf-8-sig", errors="replace")


def document_of(text: str) -> Any:
    """The JSON in *text*, or None if it is none, or more of it than a status document has."""
    # A value follows a comma or an opening bracket. Counting them costs a hundredth of making them.
    if text.count(",") + text.count("[") + text.count("{") > MAX_VALUES:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for place in level
            for inner in (place.values() if type(place) is dict else place if type(place) is list else ())
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return document
    return None


@lru_cache(maxsize=8)  # it changes once a second
def http_date(text: str | None) -> float | None:
    """Unix seconds of an HTTP date, or None for anything else."""
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() if text else None
    except (TypeError, ValueError, OverflowError):
        return None


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date (RFC 9110, section 10.2.3)."""
    text = headers.get("retry-after")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        moment = http_date(text)
        if moment is None:
            return None
        seconds = moment - time.time()
    return seconds if math.isfinite(seconds) else None
