"""A request's body as a form (multipart/form-data), for servers that take no JSON."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any


def form_of(body: Mapping[str, Any]) -> tuple[str, bytes]:
    """The Content-Type and the content of a form with the fields of *body*.

    What is in an object is a field `name[key]`, each item of a list a field `name[]`, as vendors' clients
    write them; truths are `true` and `false`, and what is None is left out.
    """
    mark = secrets.token_hex(16)
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in _fields(body, "")
    ]
    return f"multipart/form-data; boundary={mark}", "".join([*parts, f"--{mark}--\r\n"]).encode()


def _fields(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            plain = str(key).replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
            yield from _fields(inner, f"{name}[{plain}]" if name else plain)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _fields(inner, f"{name}[]")
    elif value is not None:
        yield name, str(value).lower() if isinstance(value, bool) else str(value)
