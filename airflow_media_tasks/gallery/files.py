"""A landed file, sent to a browser from wherever it is: in parts if asked, and as nothing that could run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from airflow.sdk import ObjectStoragePath
from fastapi import HTTPException
from fastapi.responses import Response, StreamingResponse


BLOCK = 1024 * 1024
_SHOWN = re.compile(r"(image/(?!svg)[a-z0-9.+-]+|video/[a-z0-9.+-]+|audio/[a-z0-9.+-]+)")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def send(path: str, content_type: str | None, range_header: str | None) -> Response:
    """The bytes at *path*, which one of our own records names.

    :param content_type: as told by the bytes when it landed; what is neither picture, video nor sound is sent
        to be saved, not shown.
    :param range_header: of the request; one range is understood (RFC 9110, section 14.2).
    :raises HTTPException: 404 if it is not there any more, 416 for a range beyond its end.
    """
    try:
        where = ObjectStoragePath(path)
        size = int(where.stat().st_size)
    except Exception as error:
        # fsspec lets each store raise errors of its own.
        raise HTTPException(404, f"the landed file cannot be read: {type(error).__name__}") from error
    shown = bool(content_type and _SHOWN.fullmatch(content_type))
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=86400",
        "Content-Disposition": "inline" if shown else "attachment",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
    }
    start, end = 0, size - 1
    status = 200
    asked = _RANGE.fullmatch(range_header or "")
    if asked and any(asked.groups()):
        first, last = asked.groups()
        start = int(first) if first else max(size - int(last), 0)
        end = min(int(last), size - 1) if first and last else size - 1
        if start > end:
            raise HTTPException(416, "no such range", headers={"Content-Range": f"bytes */{size}"})
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end}/{size}"
    headers["Content-Length"] = str(end - start + 1)
    media_type = content_type if shown else "application/octet-stream"
    return StreamingResponse(_bytes(where, start, end), status, headers, media_type)


def _bytes(where: Any, start: int, end: int) -> Iterator[bytes]:
    with where.open("rb") as stream:
        stream.seek(start)
        left = end - start + 1
        while left > 0 and (block := stream.read(min(BLOCK, left))):
            left -= len(block)
            yield block
