"""Which files may be read and handed to a third party, and how they are read: the setting `allowed_inputs`.

A path may come from `params`, from a table or from another team's XCom: whose credentials it is read with,
and that it may leave at all, is said by the deployment alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from airflow.sdk import ObjectStoragePath
from airflow.sdk.configuration import conf

from airflow_media_tasks.material.places import Place, places_in
from airflow_media_tasks.task import MediaRequestError, MediaTaskError, shown


STORES = ("s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "adl", "az")
"""Schemes of object stores, which nothing has to name as long as the setting is empty."""
LONGEST_SIGNED = 604_800
"""Seconds for which S3 and Google Cloud Storage sign an address at most."""

_BLOCK = 1024**2
_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class CannotSign(Exception):
    """There is no address for a file that others can use; the text says why."""


@dataclass(frozen=True)
class Input:
    """A file that may be read and handed over.

    :param text: as the request has it.
    :param place: where it is, with all links followed.
    :param sha256: what its content must be; None if it may be anything.
    """

    text: str
    place: Place
    sha256: str | None = None

    def version(self) -> tuple[str, int]:
        """What stays the same as long as the content does, empty if the store has none; and its bytes."""
        with self._reading():
            if self.place.is_local:
                found = os.lstat(self._local)
                if not stat.S_ISREG(found.st_mode):
                    raise FileNotFoundError("it is no file")
                size = found.st_size
                return f"mtime {found.st_mtime_ns}, inode {found.st_ino}, {size} bytes", size
            fs, name = self._store
            fs.invalidate_cache(name)
            info = fs.info(name)
            if info.get("type") != "file":
                raise FileNotFoundError("it is no file")
            size = int(info["size"])
            marks = [(key, info.get(key)) for key in ("VersionId", "generation", "ETag", "etag")]
            mark = next(((key, value) for key, value in marks if value not in (None, "", "null")), None)
            return ("" if mark is None else f"{mark[0]} {mark[1]}, {size} bytes"), size

    def copy(self, target: BinaryIO, most: int) -> str:
        """Writes the content to *target*, at most *most* bytes; its sha256."""
        digest, size = hashlib.sha256(), 0
        with self._reading(), self._opened() as source:
            while chunk := source.read(_BLOCK):
                size += len(chunk)
                if size > most:
                    raise MediaRequestError(
                        f"{shown(self.text, 300)} has more than the {most} bytes that the setting "
                        "[media_tasks] max_file_size allows"
                    )
                digest.update(chunk)
                target.write(chunk)
        return digest.hexdigest()

    def signed(self, seconds: float, version: str) -> str:
        """An address at which anybody can read it for so many *seconds*, of that *version* where it can be.

        :raises CannotSign: if there is none.
        """
        if self.place.is_local:
            raise CannotSign("a local file has no address")
        if seconds > LONGEST_SIGNED:
            raise CannotSign(f"no store signs an address for {seconds:.0f} s")
        fs, name = self._store
        more = {}
        if self.place.scheme in ("s3", "s3a", "s3n"):
            _check_credentials(fs, seconds)
            mark, _, value = version.rpartition(", ")[0].partition(" ")
            more = {"VersionId": value} if mark == "VersionId" else {}
        try:
            return str(fs.sign(name, expiration=int(seconds), **more))
        except Exception as error:
            # fsspec lets each store raise errors of its own.
            why = "the store cannot sign" if isinstance(error, NotImplementedError) else f"{error}"
            raise CannotSign(f"no address of it can be signed: {type(error).__name__}: {why}") from error

    @property
    def _local(self) -> str:
        return f"/{'/'.join(self.place.segments)}"

    @property
    def _store(self) -> tuple[Any, str]:
        """Its file system, and its name there."""
        top = ObjectStoragePath(Place(self.place.scheme, self.place.conn_id, self.place.bucket, ()).text)
        return top.fs, "/".join([top.path.rstrip("/"), *self.place.segments])

    def _opened(self) -> Any:
        if self.place.is_local:
            # What was a file a moment ago is no link now.
            return os.fdopen(os.open(self._local, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        fs, name = self._store
        return fs.open(name, "rb", block_size=8 * _BLOCK)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Makes our errors of those of the store."""
        text = f"{shown(self.text, 300)} cannot be read"
        try:
            yield
        except MediaTaskError:
            raise
        except _NOT_THERE as error:
            raise MediaRequestError(f"{text}: there is no such file", code="no_input") from error
        except PermissionError as error:
            raise MediaRequestError(
                f"{text}: {shown(str(error), 200)}; the worker's own credentials, or those of the path's "
                "connection, need the permission to read it",
                code="no_input",
            ) from error
        except Exception as error:
            # fsspec lets each store raise errors of its own.
            raise MediaTaskError(
                f"{text}: {type(error).__name__}: {shown(str(error), 200)}", code="storage"
            ) from error


def _check_credentials(fs: Any, seconds: float) -> None:
    """Raises CannotSign unless what signs at S3 is good for so many *seconds*: a role's is not always."""
    signer = getattr(getattr(fs, "s3", None), "_request_signer", None)
    credentials = getattr(signer, "_credentials", None)
    if credentials is None:
        raise CannotSign("nobody knows for how long the credentials of its store are good")
    if getattr(credentials, "token", None) is None:
        return
    ends = getattr(credentials, "_expiry_time", None)
    left = ends.timestamp() - time.time() if ends is not None else None
    if left is None or left < seconds:
        known = "for an unknown time" if left is None else f"for {max(left, 0):.0f} s more"
        raise CannotSign(
            f"its store's credentials are temporary and good {known}, and the address must be good for "
            f"{seconds:.0f} s"
        )


def allowed(path: str, landed: Callable[[str], str | None]) -> Input:
    """The file at *path*, if it may be handed to a provider.

    :param landed: given a path, the sha256 that one of our tasks has landed there, by its record, or None.
    :raises MediaRequestError: if it may not; nothing of it has been read then.
    """
    place = Place.of(path)
    if place is None or not place.segments:
        raise MediaRequestError(
            f"{shown(path, 300)} is no file's path: it must be one such as s3://bucket/folder/fox.png, "
            "without `.` or `..` in it",
            code="not_allowed",
        )
    prefixes = _prefixes()
    real = _real(place) if place.is_local else place
    if any(_holds(prefix, real) for prefix in prefixes):
        return Input(path, real)
    if not prefixes:
        if place.scheme in STORES and not place.conn_id:
            return Input(path, place)
        sha256 = landed(path)
        if sha256 is not None:
            return Input(path, real, sha256)
    what = "a local file" if place.is_local else "a path with a connection" if place.conn_id else "this path"
    example = Place(place.scheme, place.conn_id, place.bucket, place.segments[:-1]).text
    raise MediaRequestError(
        f"{shown(path, 300)} may not be handed to a provider: "
        + (
            f"it is in none of {', '.join(prefix.text for prefix in prefixes)}, which [media_tasks] "
            "allowed_inputs names"
            if prefixes
            else f"{what} must be named in the setting [media_tasks] allowed_inputs, unless a task of ours "
            "has landed it"
        )
        + f"; the prefix {example} would allow it",
        code="not_allowed",
    )


def needs_note(path: str) -> bool:
    """Whether a file at *path* may be handed over only because a task of ours has landed it."""
    place = Place.of(path)
    return place is not None and not _prefixes() and (place.scheme not in STORES or bool(place.conn_id))


def _prefixes() -> list[Place]:
    setting = conf.get("media_tasks", "allowed_inputs", fallback="")
    found, bad = places_in(setting)
    if bad:
        # One that is overlooked would make an empty list of a strict one.
        raise MediaRequestError(
            f"[media_tasks] allowed_inputs: {shown(bad[0])} is no place; it must have prefixes such as "
            "s3://bucket/products, s3://my_conn@bucket or file:///srv/media, separated by commas"
        )
    return found


def _holds(prefix: Place, place: Place) -> bool:
    if prefix.is_local:
        return place.is_local and _real(prefix).holds(place)
    return prefix.conn_id == place.conn_id and prefix.holds(place)


def _real(place: Place) -> Place:
    """A local *place* with all links in it followed."""
    real = os.path.realpath(f"/{'/'.join(place.segments)}")
    return Place(place.scheme, "", "", tuple(filter(None, Path(real).parts[1:])))
