"""What a task made: the URLs in a provider's document, of any shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_media_tasks.task import MediaFile, TaskStatus
from airflow_media_tasks.wire.documents import kind_of_key, kind_of_url, number_at, text_at


_NOT_MADE = ("request", "callback_url", "webhook", "webhook_url")
_NAMED = re.compile(r"(?:^|_)urls?(?:_|$)", re.IGNORECASE)
_STATE_KEYS = ("state", "status")


@dataclass(frozen=True)
class Found:
    """A URL in a document.

    :param keys: those under which it stands, the outermost first.
    :param around: the objects around it, the innermost last.
    """

    url: str
    keys: tuple[str, ...]
    around: tuple[Mapping[str, Any], ...]

    @property
    def key(self) -> str:
        """The innermost key."""
        return self.keys[-1] if self.keys else ""

    @property
    def is_watermarked(self) -> bool:
        """Whether its key says so."""
        return "watermark" in self.key

    @property
    def kind(self) -> str | None:
        """What its keys say that it is, the innermost first."""
        return next((kind for key in reversed(self.keys) if (kind := kind_of_key(key))), None)

    def file(self, kind: str) -> MediaFile:
        """The file, with all that the objects around it say; an inner one outranks an outer one."""
        stem = self.key.removesuffix("s").removesuffix("_url")
        said = (
            "duration",
            "content_type",
            *(f"{x}{word}" for word in ("width", "height", "id") for x in (f"{stem}_", "")),
        )
        owner = {name: place[name] for place in self.around for name in said if name in place}
        width, height = (
            number_at(owner, f"{stem}_width", "width"),
            number_at(owner, f"{stem}_height", "height"),
        )
        return MediaFile(
            kind=kind,
            url=self.url,
            id=text_at(owner, f"{stem}_id", "id") if kind != "thumbnail" else None,
            width=None if width is None else int(width),
            height=None if height is None else int(height),
            duration=number_at(owner, "duration") if kind in ("video", "audio") else None,
            content_type=text_at(owner, "content_type"),
            watermarked=self.is_watermarked,
        )


def urls_in(place: Any, *, any_text: bool = False, but: Iterable[str] = ()) -> Iterator[Found]:
    """Every URL in *place*, at any depth, each once, in the document's order; what failed is left out.

    :param any_text: whether any text that is a URL counts, or only one whose key says so.
    :param but: URLs that do not count.
    """
    asked = set(but)
    seen = set()
    for found in _walk(place, (), (), any_text):
        # The same address may be told as what was asked for, and as its marked twin.
        told = found.url, found.is_watermarked
        if found.url not in asked and told not in seen:
            seen.add(told)
            yield found


def texts_in(value: Any) -> Iterator[str]:
    """Every text in *value*, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)


def state_word(place: Mapping[str, Any]) -> str | None:
    """What *place* says of its own state, in the words that most providers have for it."""
    words = (place.get(key) for key in _STATE_KEYS)
    return next((word for word in words if isinstance(word, str) and word), None)


def has_failed(place: Mapping[str, Any]) -> bool:
    """Whether *place* says that it failed."""
    word = state_word(place)
    return word is not None and TaskStatus.from_word(word) in (TaskStatus.FAILED, TaskStatus.CANCELLED)


def kind_of(found: Found, made: str) -> str:
    """The kind of a file of a task that makes *made* (empty if that is not known).

    The picture of a film or of a sound is its thumbnail, not a second result.
    """
    kind = found.kind or made or kind_of_url(found.url) or "file"
    return "thumbnail" if kind == "image" and made in ("audio", "video") else kind


def _walk(
    place: Any, keys: tuple[str, ...], around: tuple[Mapping[str, Any], ...], any_text: bool
) -> Iterator[Found]:
    if isinstance(place, str):
        if place.startswith(("http://", "https://")) and (any_text or (keys and _NAMED.search(keys[-1]))):
            yield Found(place, keys, around)
    elif isinstance(place, list):
        for item in place:
            yield from _walk(item, keys, around, any_text)
    elif isinstance(place, Mapping) and not (around and has_failed(place)):
        for key, value in place.items():
            if key not in _NOT_MADE:
                yield from _walk(value, (*keys, str(key)), (*around, place), any_text)
