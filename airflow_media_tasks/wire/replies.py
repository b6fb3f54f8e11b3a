"""Reading a reply: its bytes are bounded before they are unpacked, its document before it is walked.

A status reply is a few KiB and flat. What is not must not cost a triggerer, which reads for all teams, its
memory or its event loop.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from typing import Any


MAX_REPLY_BYTES = 8 * 1024 * 1024
"""Of a reply, as it comes and unpacked."""
MAX_VALUES = 100_000
"""In a document: a list of 500 tasks has a tenth of them. Commas within texts count, too."""
MAX_DEPTH = 64
"""Levels of a document: everything that walks one may recurse."""

_GZIP = b"\x1f\x8b"


def text_of(content: bytes | bytearray, encoding: str | None) -> str | None:
    """The text in *content*, which is unpacked once; None if it is longer than `MAX_REPLY_BYTES`.

    Whether it is packed, its first bytes say: `Content-Encoding` has been seen to name a character set. What
    is packed twice, or in a way that nobody asked for, is a text that is no JSON.

    :param encoding: the Content-Encoding header.
    """
    if content.startswith(_GZIP) or (encoding or "").strip().lower() == "deflate":
        with contextlib.suppress(zlib.error):
            # 15 + 32: gzip or zlib, as the stream's own header says.
            content = zlib.decompressobj(15 + 32).decompress(content, MAX_REPLY_BYTES + 1)
    return None if len(content) > MAX_REPLY_BYTES else content.decode("utf-8-sig", errors="replace")


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
