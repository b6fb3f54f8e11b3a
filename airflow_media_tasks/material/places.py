"""Places in storage, taken apart, and which of them a setting names."""

from __future__ import annotations

from dataclasses import dataclass


LOCAL = ("", "file", "local")


@dataclass(frozen=True)
class Place:
    """An object storage path, taken apart: nothing in it is special, unlike in a URL.

    :param segments: of the path, without those that are empty at its end; of a local one from the top.
    """

    scheme: str
    conn_id: str
    bucket: str
    segments: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Place | None:
        """The place that *text* names; None if it names none, or one that is told from somewhere else."""
        scheme, mark, rest = text.strip().partition("://")
        scheme, rest = (scheme.lower(), rest) if mark else ("", text.strip())
        if scheme in LOCAL:
            conn_id, bucket, key = "", "", rest.removeprefix("/")
            if not rest.startswith("/"):
                return None
        else:
            authority, _, key = rest.partition("/")
            conn_id, _, bucket = authority.rpartition("@")
            if not bucket:
                return None
        segments = tuple(key.rstrip("/").split("/")) if key.rstrip("/") else ()
        if scheme in LOCAL:
            segments = tuple(filter(None, segments))
        return None if {".", ".."} & {*segments} or "\0" in text else cls(scheme, conn_id, bucket, segments)

    @property
    def is_local(self) -> bool:
        """Whether it is in this machine's own file system."""
        return self.scheme in LOCAL

    @property
    def text(self) -> str:
        """As it is written."""
        start = (
            "file:///" if self.is_local else f"{self.scheme}://{self.conn_id}{'@' if self.conn_id else ''}"
        )
        return start + "/".join([self.bucket, *self.segments] if self.bucket else self.segments)

    def holds(self, other: Place) -> bool:
        """Whether *other* is in it, by whole segments."""
        return self.store == other.store and other.segments[: len(self.segments)] == self.segments

    @property
    def store(self) -> tuple[str, str]:
        """What two places have in common that can be compared."""
        return ("file", "") if self.is_local else (self.scheme, self.bucket)


def places_in(setting: str) -> tuple[list[Place], list[str]]:
    """The places that a *setting* names, separated by commas, and what in it is none."""
    texts = [part.strip() for part in setting.split(",") if part.strip()]
    found = {text: Place.of(text) for text in texts}
    places = [place for text in texts if (place := found[text]) is not None]
    return places, [text for text in texts if found[text] is None]
