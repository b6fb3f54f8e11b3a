"""Reading a provider's JSON document, in which anything may be absent, null or of another type."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from airflow_media_tasks.task import utc_from_epoch


def object_of(value: Any) -> Mapping[str, Any]:
    """*value* if it is a JSON object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_text(value: Any) -> str | None:
    """*value* if it is a text that is not empty; a number as text."""
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def text_at(document: Mapping[str, Any], *keys: str) -> str | None:
    """The first of *keys* that holds a text that is not empty, or a number, as text."""
    return next((text for key in keys if (text := as_text(document.get(key))) is not None), None)


_ID = re.compile(r"[^\s/?#]{1,400}")


def is_id(value: Any) -> bool:
    """Whether *value* can be a provider's own id of a task.

    That is one segment of a path: 1 to 400 printable characters, no space, none of `/ ? #`, not `.` or `..`.
    """
    return (
        isinstance(value, str)
        and _ID.fullmatch(value) is not None
        and value.isprintable()
        and value not in (".", "..")
    )


def id_at(document: Mapping[str, Any], *keys: str) -> str | None:
    """As `text_at`, of what can be an id."""
    text = text_at(document, *keys)
    return text if is_id(text) else None


def as_number(value: Any) -> float | None:
    """*value* if it is a finite number, or a text such as `5.1` or `5.1s`."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value.rstrip("s") if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        return None
    # Python's decoder takes NaN for a number; a database's JSON does not.
    return number if math.isfinite(number) else None


def number_at(document: Mapping[str, Any], *keys: str) -> float | None:
    """The first of *keys* that holds what `as_number` takes for one."""
    return next((number for key in keys if (number := as_number(document.get(key))) is not None), None)


def as_time(value: Any) -> datetime | None:
    """*value* as UTC, if it is a time: unix seconds, unix milliseconds or ISO 8601."""
    # Milliseconds of 1973 are seconds of the year 5138; no time has more than 15 digits in either.
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15:
        return utc_from_epoch(value / 1000 if value > 1e11 else value)
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
        return (
            moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
        )
    except (ValueError, OverflowError):
        return None


def time_at(document: Mapping[str, Any], *keys: str) -> datetime | None:
    """The first of *keys* that holds what `as_time` takes for one, as UTC."""
    for key in keys:
        value = document.get(key)
        moment = as_time(value)
        if moment is not None or isinstance(value, (int, float)):
            return moment
    return None


_KIND_OF_WORD = (
    (re.compile(r"thumb|cover|poster|preview"), "thumbnail"),
    (re.compile(r"video|mp4"), "video"),
    (re.compile(r"audio|music|song|voice|speech|mp3|wav|vocal"), "audio"),
    (re.compile(r"image|picture|frame"), "image"),
)
_KIND_OF_EXTENSION = {
    **dict.fromkeys((".mp4", ".mov", ".webm", ".mkv", ".gif"), "video"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".avif"), "image"),
    **dict.fromkeys((".mp3", ".wav", ".m4a", ".ogg", ".flac"), "audio"),
}


def kind_of_key(key: str) -> str | None:
    """`image`, `video`, `audio` or `thumbnail`, if the *key* under which a URL stands says so."""
    return next((kind for pattern, kind in _KIND_OF_WORD if pattern.search(key.lower())), None)


def kind_of_url(url: str) -> str | None:
    """`image`, `video` or `audio`, if the extension of the *url*'s path says so."""
    try:
        path = urlsplit(url).path
    except ValueError:
        return None
    return _KIND_OF_EXTENSION.get(PurePosixPath(path).suffix.lower())
