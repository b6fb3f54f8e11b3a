"""Taking an account's secrets out of a text, in whatever spelling they stand there.

A provider that echoes the key in its answer, or a library that names the header which it will not send, must
not put it into our logs, errors and XComs.
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from typing import Any


SHORTEST = 8
"""Characters of the shortest secret that is looked for: a shorter one stands in any text by chance."""

_MASK = "***"
_UNICODE = re.compile(r"\\u00([2-7][0-9a-fA-F])")
_PERCENT = re.compile(r"%([2-7][0-9a-fA-F])")


_SIGNED = re.compile(
    r"(https?:[^\s\"'<>?]+\?)[^\s\"'<>]*(?:signature|credential|sig|token|key-?id)(?:=|%3d|\\u003d)[^\s\"'<>]*",
    re.IGNORECASE,
)
_BYTES = re.compile(r"(?:data:[\w.+/-]+;base64,)?[A-Za-z0-9+/]{200,}={0,2}")


def unsigned(text: Any) -> Any:
    """*text* of somebody else, as an error shows it: without what signs an address, and without base64.

    A provider that names a file which it cannot read has the name from us. What is no text stays as it is.
    """
    if not isinstance(text, str):
        return text
    return _BYTES.sub(_length, _SIGNED.sub(rf"\1{_MASK}", text))


def _length(match: re.Match[str]) -> str:
    return f"({len(match[0])} characters of base64)"


def masked(text: str, secrets: tuple[str, ...]) -> str:
    """*text* without any of *secrets*: as they are, escaped as in JSON, percent-encoded or in base64."""
    known = _spellings(secrets)
    if not _has_one(text, known):
        return text
    text = _pattern(known).sub(_MASK, text)
    # Spelt in a way that the pattern does not know: better nothing than a secret.
    return _MASK if _has_one(text, known) else text


def _has_one(text: str, known: tuple[str, ...]) -> bool:
    """Whether one of *known* stands in *text*. Cheap, for it is asked of every reply."""
    if "\\u00" in text:
        text = _UNICODE.sub(_character, text)
    if "\\" in text:
        text = text.replace("\\", "")
    if "%" in text:
        # A secret may itself have what reads like an escape.
        if any(spelling in text for spelling in known if "%" in spelling):
            return True
        text = _PERCENT.sub(_character, text).replace("\\", "")
    return any(spelling in text for spelling in known)


def _character(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))


@lru_cache(maxsize=64)
def _spellings(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """*secrets*, and what of each any base64 shows that has it somewhere; the longest first.

    All without backslashes, which the texts are looked at without.
    """
    known = {secret for secret in secrets if len(secret) >= SHORTEST}
    for secret in tuple(known):
        content = secret.encode("utf-8", "surrogatepass")
        # Three bytes are four characters, so it depends on what stands before; the ends depend on more.
        for before, start in enumerate((0, 2, 3)):
            encoded = base64.b64encode(bytes(before) + content)[start : (before + len(content)) * 8 // 6]
            known |= {encoded.decode(), encoded.decode().replace("+", "-").replace("/", "_")}
    return tuple(sorted({spelling.replace("\\", "") for spelling in known}, key=len, reverse=True))


@lru_cache(maxsize=64)
def _pattern(known: tuple[str, ...]) -> re.Pattern[str]:
    """All of *known*, each of their characters in any spelling."""
    return re.compile("|".join("".join(map(_any_spelling, spelling)) for spelling in known))


def _any_spelling(character: str) -> str:
    code = "".join(f"[{digit}{digit.upper()}]" for digit in f"{ord(character):02x}")
    return rf"(?:\\*(?:{re.escape(character)}|u00{code})|(?:%|\\*u0025){code})"
