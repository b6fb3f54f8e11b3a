"""Files of one's own among a request's arguments: object storage paths where an address is asked for.

A path stays a path in arguments, records and logs. What a provider gets instead of it, an address with a
signature or the bytes, is put in its place when the request is sent, and can be recognized in what the
provider shows of a request by its trace alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from airflow_media_tasks.wire.documents import kind_of_key


NO_TRACES: Mapping[str, str] = MappingProxyType({})

_PATH = re.compile(r"(?!https?://)[a-z][a-z0-9+.-]*://.+")
_LONGEST_PATH = 2000
_CALLED_BACK = ("callback_url", "webhook_url")
_DATA = re.compile(r"data:[\w.+/-]+;base64,")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{64,}={0,2}")
_BEGINNING = 1024
"""Bytes by which two files are told apart where a provider shows the beginning of one only."""


def takes_file(word: str) -> bool:
    """Whether the argument *word* is the address of a picture, a film or sound, or a list of such."""
    return word.endswith(("_url", "_urls")) and word not in _CALLED_BACK


def kind_of_word(word: str) -> str:
    """What the argument *word* is to be, `image`, `video` or `audio`; empty if it may be any of them."""
    kind = "image" if "mask" in word else kind_of_key(word)
    return "image" if kind == "thumbnail" else kind or ""


def is_path(value: Any) -> bool:
    """Whether *value* looks like an object storage path: it has a scheme that is not http.

    One without a scheme is none: base64 may begin with a slash, too.
    A chain of file systems (`zip://...::s3://...`) is none: what it leads to cannot be told by its text.
    """
    return (
        isinstance(value, str)
        and len(value) <= _LONGEST_PATH
        and value.isprintable()
        and value == value.strip()
        and "::" not in value
        and _PATH.fullmatch(value) is not None
    )


def paths_in(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The paths in *arguments*, each with its word, in an order that the arguments' own does not change."""
    return [
        (word, item)
        for word in sorted(arguments)
        if takes_file(word)
        for item in (arguments[word] if isinstance(arguments[word], list) else [arguments[word]])
        if is_path(item)
    ]


def in_place(arguments: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """*arguments* with the value of each path in its place, as far as *values* has one."""

    def put(value: Any) -> Any:
        if isinstance(value, list):
            return [put(item) for item in value]
        return values.get(value, value) if is_path(value) else value

    return {word: put(value) if takes_file(word) else value for word, value in arguments.items()}


def trace_of(value: Any) -> str:
    """What is left of *value*, as a provider was given it, to be recognized by: nobody can use it.

    Of an address the hashes of its host and of all but its query, of bytes their number, their hash and that
    of their beginning; empty for anything else.
    """
    if not isinstance(value, str):
        return ""
    if value.startswith(("http://", "https://")):
        try:
            parts = urlsplit(value)
            host = (parts.hostname or "").lower()
        except ValueError:
            return ""
        return f"url:{_hash(host)}:{_hash(urlunsplit((parts.scheme, parts.netloc, parts.path, '', '')))}"
    content = _content_of(value)
    if content is not None:
        return f"bytes:{len(content)}:{_hash(content)}:{_hash(content[:_BEGINNING])}"
    # An upload may have a name of its own kind, such as `runway://...`.
    return f"name:{_hash(value)}" if "://" in value else ""


def _content_of(value: str) -> bytes | None:
    text = value[prefix.end() :] if (prefix := _DATA.match(value)) else value
    if _BASE64.fullmatch(text) is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def _hash(value: str | bytes) -> str:
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()[:32]


def is_of(trace: str, shown: Any) -> bool | None:
    """Whether what a provider has *shown* is what left *trace*; None where that cannot be told.

    An address on another host may be that of a copy, and bytes may be shown in part.
    """
    theirs = trace_of(shown)
    kind, _, rest = trace.partition(":")
    if not rest or not theirs.startswith(f"{kind}:"):
        return None
    if trace == theirs:
        return True
    ours, others = rest.split(":"), theirs.split(":")[1:]
    if kind == "url":
        return False if ours[0] == others[0] else None
    if kind == "bytes":
        starts_otherwise = min(int(ours[0]), int(others[0])) >= _BEGINNING and ours[2] != others[2]
        return False if starts_otherwise or int(others[0]) >= int(ours[0]) else None
    return False


def same(wanted: Any, shown: Any, traces: Mapping[str, str]) -> bool | None:
    """Whether *shown*, of a request, is *wanted*, in which paths stand for what left these *traces*.

    :return: None where that cannot be told, because what stands for a path cannot be.
    """
    if isinstance(wanted, str) and wanted in traces:
        return is_of(traces[wanted], shown)
    if isinstance(wanted, Mapping) and isinstance(shown, Mapping):
        if wanted.keys() != shown.keys():
            return False
        return _all(same(value, shown[name], traces) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(shown, list):
        if len(wanted) != len(shown):
            return False
        return _all(same(one, other, traces) for one, other in zip(wanted, shown, strict=True))
    return bool(wanted == shown)


def _all(verdicts: Iterator[bool | None]) -> bool | None:
    found = list(verdicts)
    return False if False in found else None if None in found else True
