"""Files that come with a request: the simulator fetches, decodes or remembers them, as a provider does.

Addresses on this machine alone are fetched, for the internet is none of a test's business.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp


_DATA = re.compile(r"data:[\w.+/-]+;base64,")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{64,}={0,2}")
_AT_HOME = re.compile(r"127\.[0-9.]+|localhost")
_SECONDS = aiohttp.ClientTimeout(total=30)
CALLED_BACK = ("callback_url", "webhook_url", "webhook")


@dataclass(frozen=True)
class Arrival:
    """One file.

    :param way: `url`, `inline` or `upload`.
    """

    way: str
    content: bytes = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As `GET /_sim/received` shows it."""
        sha256 = hashlib.sha256(self.content).hexdigest()
        return {"way": self.way, "sha256": sha256, "size": len(self.content)}


class Unreachable(Exception):
    """An address of ours could not be fetched; the text is the address without its query."""


async def arrivals(body: Any, own_hosts: Collection[str], uploads: Mapping[str, bytes]) -> list[Arrival]:
    """The files in a request's *body*, but for those that this simulator has made itself.

    :param own_hosts: `host:port` of the simulator.
    :param uploads: path -> what was uploaded there.
    :raises Unreachable: naming an address on this machine at which there is no file.
    """
    found = []
    for text in _texts(body):
        if not text.startswith(("http://", "https://")):
            content = _decoded(text)
            found += [] if content is None else [Arrival("inline", content)]
            continue
        parts = urlsplit(text)
        if parts.netloc in own_hosts:
            found += [Arrival("upload", uploads[parts.path])] if parts.path in uploads else []
        elif _AT_HOME.fullmatch(parts.hostname or ""):
            found.append(Arrival("url", await _fetched(text)))
    return found


async def _fetched(url: str) -> bytes:
    try:
        async with aiohttp.ClientSession(timeout=_SECONDS) as session, session.get(url) as response:
            if response.status == 200:
                return await response.read()
    except (aiohttp.ClientError, TimeoutError):
        pass
    raise Unreachable(url.partition("?")[0])


def _decoded(text: str) -> bytes | None:
    text = text[prefix.end() :] if (prefix := _DATA.match(text)) else text
    if _BASE64.fullmatch(text) is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key not in CALLED_BACK:
                yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)
    elif isinstance(node, str):
        yield node
