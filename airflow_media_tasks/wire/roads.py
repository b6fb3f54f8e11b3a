"""How a file of one's own reaches a provider, and what of it the provider takes: data, in a hook's tables."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from airflow_media_tasks.wire.conversations import Request
from airflow_media_tasks.wire.places import filled


_HEADER = "header:"


@dataclass(frozen=True)
class Step:
    """One of the calls of an upload; `{slots}` in its texts are filled when it is made.

    The slots: `{name}` (a file name that tells nothing), `{type}` (content type), `{size}` (bytes),
    `{sha256}`, and what earlier steps `keep`.

    :param path: below the base URL, or a whole address, which is one slot: `{upload_url}`.
    :param host: one of the hook's `other_urls`, instead of the base URL.
    :param bytes_in: where the file's bytes are: `body`, or the name of a part of a form; empty for none.
    :param form: the form's other fields, or the one slot that is a reply's object of them.
    :param headers: likewise.
    :param keyed: whether the account's key goes along; never to a whole address.
    :param keep: slot -> where the reply has it: JMESPath, or `header:` and a header's name. What is kept as
        `value` stands in the request for the file.
    """

    method: str
    path: str
    host: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    bytes_in: str = ""
    form: Mapping[str, Any] | str = field(default_factory=dict)
    headers: Mapping[str, Any] | str = field(default_factory=dict)
    keyed: bool = True
    keep: Mapping[str, str] = field(default_factory=dict)

    def request(self, content: bytes, slots: Mapping[str, Any]) -> Request:
        """The request with *slots* filled, and *content* where the bytes are to be."""
        path, headers = str(filled(self.path, slots)), {**filled(self.headers, slots)}
        body: bytes | None = None
        if self.bytes_in == "body":
            headers.setdefault("Content-Type", str(slots["type"]))
            body = content
        elif self.bytes_in:
            headers["Content-Type"], body = _form(filled(self.form, slots), self.bytes_in, content, slots)
        is_whole = self.path.startswith("{")
        return Request(
            self.method,
            path,
            json=filled(self.json, slots),
            params=filled(self.params, slots),
            headers=headers,
            host=self.host,
            content=body,
            keyed=self.keyed and not is_whole,
            elsewhere=is_whole,
            timeout=300.0,
        )

    @staticmethod
    def header_of(place: str) -> str | None:
        """The name of the header that *place*, one of `keep`, is about; None for a place in the document."""
        return place.removeprefix(_HEADER).lower() if place.startswith(_HEADER) else None


def _form(
    fields: Mapping[str, Any], part: str, content: bytes, slots: Mapping[str, Any]
) -> tuple[str, bytes]:
    """A multipart form (RFC 7578): its content type, and its bytes."""
    boundary = secrets.token_hex(16)
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{part}"; filename="{slots["name"]}"\r\n'
        f"Content-Type: {slots['type']}\r\n\r\n"
    )
    return (
        f"multipart/form-data; boundary={boundary}",
        head.encode() + content + f"\r\n--{boundary}--\r\n".encode(),
    )


@dataclass(frozen=True)
class Road:
    """One way by which a file of one's own reaches a provider.

    :param way: `url`, an address from which the provider fetches it; `inline`, the bytes in the request;
        `upload`, the bytes to a place of the provider's own, before the request.
    :param words: neutral words whose files may go so; empty for all.
    :param most: bytes that a file may have; None where the provider names no number.
    :param form: of `inline`: what stands in the request, with the slots `{type}` and `{base64}`.
    :param steps: of `upload`: its calls, in order.
    """

    way: str
    words: tuple[str, ...] = ()
    most: int | None = None
    form: str = "data:{type};base64,{base64}"
    steps: tuple[Step, ...] = ()

    URL: ClassVar[str] = "url"
    INLINE: ClassVar[str] = "inline"
    UPLOAD: ClassVar[str] = "upload"
    WAYS: ClassVar[tuple[str, ...]] = (URL, INLINE, UPLOAD)
    """In the order in which they are preferred."""

    def takes(self, word: str) -> bool:
        """Whether a file of the argument *word* may go this way."""
        return not self.words or word in self.words


@dataclass(frozen=True)
class Takes:
    """What a provider takes of one kind of file, whatever the way; what it does not say is not limited.

    :param types: content types.
    :param most: bytes.
    :param least: px that the shorter side must have.
    :param largest: px that the longer side may have.
    :param ratio: of the longer side to the shorter, at most.
    """

    types: tuple[str, ...] = ()
    most: int | None = None
    least: int = 0
    largest: int | None = None
    ratio: float | None = None
