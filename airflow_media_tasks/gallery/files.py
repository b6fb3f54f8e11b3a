"""A landed file, sent to a browser: from a root alone, if it is what was recorded, never as what could run.

Whoever could write what an item says of its file could name another one. So its path counts only within the
roots that the setting names (see `roots`), and there only what has the content that the item names: who knows
that has seen the file. What is checked is what is sent: one open file, of one version.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import HTTPException
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from airflow_media_tasks.gallery import roots
from airflow_media_tasks.landing.storage import ENDS


MIB = 1024 * 1024
WHOLE = 32 * MIB
"""Bytes up to which a file is read whole to see that it is what was recorded."""
OLD = 256 * MIB
"""The same of one that landed before its ends were recorded; a larger one is not sent."""
AT_ONCE = 4
"""Files that are checked at once."""
READERS = 16
"""Files that are opened, checked or waited for at once."""
KEPT = 5000
"""Checks that are remembered."""
BLOCK = MIB

_SHOWN = re.compile(r"(image/(?!svg)[a-z0-9.+-]+|video/[a-z0-9.+-]+|audio/[a-z0-9.+-]+)")
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
_LONG = 18
"""Digits of a number of bytes; no file has more."""
_VERSION = ("ETag", "etag", "generation", "version_id", "LastModified", "last_modified", "updated", "mtime")

_readers = ThreadPoolExecutor(READERS, thread_name_prefix="gallery")
"""So that neither the event loop nor Airflow's own threads wait for a store."""
_checks = threading.BoundedSemaphore(AT_ONCE)
_digests: OrderedDict[tuple[Any, ...], Future[str]] = OrderedDict()
_lock = threading.Lock()
Read = TypeVar("Read")


@dataclass(frozen=True)
class Recorded:
    """What an item says of a landed file. Digests are in hexadecimal, *size* is in bytes."""

    path: str
    sha256: str | None
    size: float | None
    ends_sha256: str | None = None
    content_type: str | None = None


def unprovable(sha256: str | None, size: float | None, ends_sha256: str | None) -> str | None:
    """Why nobody can tell that a file is what was recorded, as far as the record says; or None."""
    if sha256 is None or size is None:
        return "What its content was has not been recorded, so it is not sent."
    if size > OLD and ends_sha256 is None:
        return "It landed before the ends of large files were recorded, so it is not sent."
    return None


class Found:
    """A file in a root, open. Whatever is read of it is of one *version*, None if its store tells none."""

    def __init__(self, stream: Any, name: str, size: int, version: tuple[Any, ...] | None) -> None:
        self._stream = stream
        self.name = name
        self.size = size
        self.version = version

    @classmethod
    def at(cls, path: str) -> Found:
        """What is at *path*. Raises HTTPException, 404, if that is in no root, no file, or not there."""
        try:
            found = cls._local(path) or cls._stored(path)
        except Exception as error:
            # fsspec lets each store raise errors of its own.
            raise HTTPException(404, f"the landed file cannot be read: {type(error).__name__}") from error
        if found is None:
            raise HTTPException(404, "the file is in no root that [media_tasks] gallery_roots names")
        return found

    @classmethod
    def _local(cls, path: str) -> Found | None:
        real = roots.local_path(path)
        if real is None:
            return None
        # Not blocked by a pipe; and what has become a link since is not followed.
        number = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        stream = os.fdopen(number, "rb", buffering=0)
        is_at = os.fstat(number)
        if not stat.S_ISREG(is_at.st_mode):
            stream.close()
            raise IsADirectoryError(real)
        version = (is_at.st_dev, is_at.st_ino, is_at.st_mtime_ns, is_at.st_ctime_ns)
        return cls(stream, real, is_at.st_size, version)

    @classmethod
    def _stored(cls, path: str) -> Found | None:
        found = roots.stored_path(path)
        if found is None:
            return None
        store, name = found
        # Each read is one request for a range; stores that can ask for this very version do.
        stream = store.open(name, "rb", block_size=BLOCK, cache_type="none")
        details = getattr(stream, "details", None) or store.info(name)
        version = tuple(str(details[key]) for key in _VERSION if details.get(key) is not None)
        return cls(stream, str(name), int(details["size"]), version or None)

    def read(self, start: int, length: int) -> bytes:
        """Up to *length* bytes from *start*; fewer only at the end of the file. Raises OSError."""
        self._stream.seek(start)
        parts = []
        while length > 0 and (part := self._stream.read(length)):
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def blocks(self, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """*length* bytes from *start*, or all the rest, a BLOCK at a time."""
        left = self.size - start if length is None else length
        while left > 0 and (block := self.read(start, min(BLOCK, left))):
            start += len(block)
            left -= len(block)
            yield block

    def close(self) -> None:
        """Nothing more is read of it."""
        self._stream.close()


def _sha256(found: Found) -> str:
    digest = hashlib.sha256()
    for block in found.blocks():
        digest.update(block)
    return digest.hexdigest()


def _ends_sha256(found: Found) -> str:
    """As `storage.ends_sha256`, of a file that is open and longer than both ends."""
    digest = hashlib.sha256(found.read(0, ENDS))
    digest.update(found.read(found.size - ENDS, ENDS))
    return digest.hexdigest()


def opened(file: Recorded) -> tuple[Found, str]:
    """The file that *file* names, open, and the digest by which it is what was recorded.

    :raises HTTPException: 404 if it is not there, in no root, or anything else than what was recorded.
    """
    found = Found.at(file.path)
    try:
        why = unprovable(file.sha256, file.size, file.ends_sha256)
        if why is None and found.size != file.size:
            why = "It is not as long any more as it was when it landed, so it is not sent."
        if why is None:
            by_ends = found.size > WHOLE and file.ends_sha256 is not None
            wanted = str(file.ends_sha256 if by_ends else file.sha256)
            if _kept(found, _ends_sha256 if by_ends else _sha256) == wanted:
                return found, wanted
            why = "It is not any more what it was when it landed, so it is not sent."
        raise HTTPException(404, why)
    except BaseException:
        found.close()
        raise


def _kept(found: Found, digest: Callable[[Found], str]) -> str:
    """As *digest* has it, told once for each version of a file, however many ask for it meanwhile."""
    key = (found.name, found.size, found.version, digest.__name__)
    with _lock:
        future = _digests.get(key) if found.version else None
        is_ours = future is None
        if future is None:
            future = _digests[key] = Future()
            while len(_digests) > KEPT:
                _digests.popitem(last=False)
    if is_ours:
        try:
            with _checks:
                future.set_result(digest(found))
        except BaseException as error:  # noqa: BLE001  # whoever waits for it gets it, too
            _digests.pop(key, None)
            future.set_exception(error)
    try:
        return future.result()
    except Exception as error:
        raise HTTPException(404, f"the landed file cannot be read: {type(error).__name__}") from error


async def away(work: Callable[[], Read]) -> Read:
    """What *work* returns, which reads files and so is not done in the event loop."""
    return await asyncio.wrap_future(_readers.submit(work))


class _Sent(StreamingResponse):
    """A file on its way, which is closed however that ends."""

    def __init__(self, found: Found, start: int, length: int, **options: Any) -> None:
        super().__init__(found.blocks(start, length), **options)
        self._found = found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._found.close()


async def send(
    file: Recorded,
    *,
    range_header: str | None = None,
    if_none_match: str | None = None,
    if_range: str | None = None,
) -> Response:
    """The bytes of *file*, if they are what was recorded.

    Its type is that which was told by the bytes when it landed; what is neither picture, video nor sound is
    sent to be saved, not shown. A browser may keep it, and asks each time whether it may still show it.

    :param range_header: of the request; one range is understood (RFC 9110, section 14.2).
    :param if_none_match: of the request: what the browser has already.
    :param if_range: of the request: what the browser has a part of.
    :raises HTTPException: 404 as of `opened`, 416 for a range beyond its end.
    """
    found, proof = await away(lambda: opened(file))
    tag = f'"{proof}"'
    try:
        shown = bool(file.content_type and _SHOWN.fullmatch(file.content_type))
        headers = {
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, no-cache",
            "Content-Disposition": "inline" if shown else "attachment",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "ETag": tag,
            "X-Content-Type-Options": "nosniff",
        }
        if if_none_match is not None and (tag in if_none_match or if_none_match.strip() == "*"):
            found.close()
            return Response(status_code=304, headers=headers)
        part = _part(range_header, found.size) if if_range in (None, tag) else None
        start, end = part or (0, found.size - 1)
        if part is not None:
            headers["Content-Range"] = f"bytes {start}-{end}/{found.size}"
        headers["Content-Length"] = str(end - start + 1)
        return _Sent(
            found,
            start,
            end - start + 1,
            status_code=200 if part is None else 206,
            headers=headers,
            media_type=file.content_type if shown else "application/octet-stream",
        )
    except HTTPException:
        found.close()
        raise


def _part(range_header: str | None, size: int) -> tuple[int, int] | None:
    """The first and the last byte that are asked for, or None if the whole file is."""
    asked = _RANGE.fullmatch(range_header or "")
    if asked is None or not any(asked.groups()):
        return None
    first, last = asked.groups()
    if max(len(first), len(last)) <= _LONG:
        start = int(first) if first else max(size - int(last), 0)
        end = min(int(last), size - 1) if first and last else size - 1
        if start <= end:
            return start, end
    raise HTTPException(416, "no such range", headers={"Content-Range": f"bytes */{size}"})
