"""From a URL to an object storage path: streamed, complete or not there at all."""

from __future__ import annotations

import hashlib
import mimetypes
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import httpx
from airflow.sdk import ObjectStoragePath

from airflow_media_tasks import __version__
from airflow_media_tasks.hooks.operations import shown
from airflow_media_tasks.task import MediaExpiredError, MediaFile, MediaProviderError, MediaRequestError


CHUNK = 1024 * 1024
_EXTENSIONS = {"audio/x-wav": ".wav", "audio/wav": ".wav", "audio/mpeg": ".mp3", "image/jpeg": ".jpg"}
_EXTENSION_OF_KIND = {"video": ".mp4", "image": ".png", "thumbnail": ".jpg", "audio": ".mp3"}
_GONE = (403, 404, 410)


def files_of(media: Any) -> list[MediaFile]:
    """The files that *media* names: results of our operators, URLs, or a list of either.

    Watermarked twins and thumbnails stay where they are, unless a task made nothing else.

    :raises MediaRequestError: if there is nothing to download, or something is neither.
    """
    if isinstance(media, str):
        found = [MediaFile("file", media)]
    elif isinstance(media, Mapping):
        try:
            files = [MediaFile.from_dict(file) for file in media.get("files") or ()]
        except (TypeError, ValueError) as error:
            raise MediaRequestError(f"media is no result of a media task: {error}") from None
        wanted = [file for file in files if file.kind != "thumbnail" and not file.watermarked]
        found = wanted or files
    elif isinstance(media, Iterable):
        found = [file for item in media for file in files_of(item)]
    else:
        found = []
    for file in found:
        if urlsplit(file.url).scheme not in ("http", "https") or not urlsplit(file.url).hostname:
            raise MediaRequestError(
                f"media: only http and https URLs can be downloaded, got {shown(file.url)}"
            )
    if not found:
        raise MediaRequestError(
            "media must be what a media operator returned, a URL, or a list of those, with at least one "
            f"file; got {shown(media)}"
        )
    return found


def land(
    files: list[MediaFile], destination: str, name: str, conn_id: str | None, log: Any
) -> list[dict[str, Any]]:
    """Downloads *files*; see `DownloadMediaOperator` for how they are called.

    :param name: path below a folder *destination*, to which a number and an extension are added.
    :raises MediaRequestError: if the destination cannot be written; nothing is downloaded then.
    :raises MediaExpiredError: if a URL is gone.
    :raises MediaProviderError: if a download breaks; a later try starts it again.
    """
    if not destination.strip():
        raise MediaRequestError(f"destination must be an object storage path, got {shown(destination)}")
    landed = []
    with httpx.Client(follow_redirects=True, timeout=60.0, headers=_HEADERS) as client:
        for index, file in enumerate(files):
            landed.append(_land_one(client, file, _Target(destination, name, conn_id, index), log))
    return landed


_HEADERS = {"User-Agent": f"airflow-media-tasks/{__version__}"}


class _Target:
    """Where the file with number *index* goes, and the temporary name that it has until it is complete."""

    def __init__(self, destination: str, name: str, conn_id: str | None, index: int) -> None:
        self.is_folder = destination.endswith("/")
        try:
            path = ObjectStoragePath(
                f"{destination}{name}" if self.is_folder else destination, conn_id=conn_id
            )
            if self.is_folder:
                self.path = path.parent / f"{path.name}-{index}"
            else:
                pure = PurePosixPath(path.name)
                self.path = path if index == 0 else path.parent / f"{pure.stem}-{index}{pure.suffix}"
            self.part = self.path.parent / f".{self.path.name}.{uuid.uuid4().hex}.part"
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # As it is written later: `write_bytes` would not ask Airflow for the file system.
            self.writer().close()
        except Exception as error:
            # fsspec lets each store raise errors of its own.
            raise MediaRequestError(
                f"destination {shown(destination)} cannot be written: {type(error).__name__}: {error}"
            ) from error

    def writer(self) -> Any:
        """The part, opened for writing."""
        return self.part.open("wb")

    def complete(self, extension: str, sha256: str, size: int) -> ObjectStoragePath:
        """Gives the finished part its name, unless the same bytes are there already."""
        path = self.path.parent / f"{self.path.name}{extension}" if self.is_folder else self.path
        if path.exists() and path.stat().st_size == size and _sha256(path) == sha256:
            self.part.unlink()
        else:
            path.fs.mv(self.part.path, path.path)
        return path

    def discard(self) -> None:
        """Removes what a broken download left."""
        self.part.unlink(missing_ok=True)


def _land_one(client: httpx.Client, file: MediaFile, target: _Target, log: Any) -> dict[str, Any]:
    digest, size, began, reported = hashlib.sha256(), 0, time.monotonic(), time.monotonic()
    try:
        with client.stream("GET", file.url) as response, target.writer() as part:
            if response.status_code in _GONE:
                raise MediaExpiredError(
                    f"{shown(file.url, 300)} answers HTTP {response.status_code}: the file is gone"
                    + (f", it expired at {file.expires_at}" if file.expires_at else "")
                    + ". It was generated and paid for: ask the provider's task again for a fresh URL"
                )
            response.raise_for_status()
            content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            for chunk in response.iter_bytes(CHUNK):
                part.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                if time.monotonic() - reported > 10:
                    reported = time.monotonic()
                    log.info("%d MiB of %s so far", size // 1024**2, target.path)
        if size == 0:
            raise MediaProviderError(f"{shown(file.url, 300)} is an empty file")
        extension = (
            _EXTENSIONS.get(content_type)
            or mimetypes.guess_extension(content_type)
            or _EXTENSION_OF_KIND.get(file.kind, "")
        )
        path = target.complete(extension, digest.hexdigest(), size)
    except httpx.HTTPError as error:
        target.discard()
        raise MediaProviderError(f"download of {shown(file.url, 300)} broke: {error}") from error
    except BaseException:
        target.discard()
        raise
    log.info("%s: %d bytes in %.1f s", path, size, time.monotonic() - began)
    return {
        "path": str(path),
        "url": file.url,
        "kind": file.kind,
        "content_type": content_type or None,
        "size": size,
        "sha256": digest.hexdigest(),
    }


def _sha256(path: ObjectStoragePath) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
