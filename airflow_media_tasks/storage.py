"""Landing: what a task made goes to object storage, whole or not at all, and what is there already stays.

A file is downloaded to a local one first, where its type is told and it is decoded; only then it appears at
its destination, with a JSON document beside it that says where it comes from (see `provenance`). By that
document a later run knows what is there already.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import string
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any

from airflow.sdk import ObjectStoragePath
from airflow.sdk.configuration import conf

from airflow_media_tasks import provenance, verification
from airflow_media_tasks.downloads import AllowedHosts, Download, UrlRefused, download, is_web_address
from airflow_media_tasks.hooks.base import get_media_hook
from airflow_media_tasks.task import (
    MediaExpiredError,
    MediaFile,
    MediaNotFoundError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    shown,
)


TEMPLATE = "{dag_id}/{run_id}/{task_id}/{map_index}-{index}{ext}"
"""What a file is called below a folder."""
FIELDS = ("dag_id", "run_id", "task_id", "map_index", "index", "ext", "kind", "media_task_id")
THREADS = 4
"""Files under way at once."""
MAX_FILE_SIZE = 2 * 1024**3
"""Bytes, unless the setting [media_tasks] max_file_size says otherwise."""

_BLOCK = 8 * 1024**2
"""Bytes of one part of an upload; S3 takes 10,000 of them."""
ENDS = 1024**2
"""Bytes at the beginning and at the end of a file that `ends_sha256` is of."""
_STALE_SECONDS = 3600.0
_WRONG_PLACE = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
_UNSAFE = re.compile(r"^\.+|[^A-Za-z0-9_.~:+=@-]")
_SEGMENT_LENGTH = 150


@dataclass(frozen=True)
class Made:
    """Files of one task, or one plain URL.

    :param result: the dict that the task's operator returned; empty for a plain URL.
    :param files: what is to be landed, each with its number among all files of the result.
    """

    result: Mapping[str, Any]
    files: tuple[tuple[int, MediaFile], ...]

    @property
    def media_task_id(self) -> str | None:
        """Who made them."""
        return self.result.get("id")


def made_of(media: Any) -> list[Made]:
    """What *media* names: results of our operators, URLs, or a list of either.

    Watermarked twins and thumbnails stay where they are, unless a task made nothing else.

    :raises MediaRequestError: if there is nothing to land, or something is neither.
    """
    if isinstance(media, str):
        found = [Made({}, ((0, MediaFile("file", media)),))]
    elif isinstance(media, Mapping):
        try:
            files = [*enumerate(MediaFile.from_dict(file) for file in media.get("files") or ())]
        except (TypeError, ValueError) as error:
            raise MediaRequestError(f"media is no result of a media task: {error}") from None
        wanted = [pair for pair in files if pair[1].kind != "thumbnail" and not pair[1].watermarked]
        found = [Made(media, tuple(wanted or files))]
    elif isinstance(media, Iterable):
        found = [made for item in media for made in made_of(item)]
    else:
        found = []
    for _, file in (pair for made in found for pair in made.files):
        if not is_web_address(file.url):
            raise MediaRequestError(
                f"media: only http and https URLs can be downloaded, got {shown(file.url)}"
            )
    if not any(made.files for made in found):
        raise MediaRequestError(
            "media must be what a media operator returned, a URL, or a list of those, with at least one "
            f"file; got {shown(media)}"
        )
    return found


class Destination:
    """Where files go, and what they are called there.

    :param text: an object storage path. One that ends with `/` is a folder, below which TEMPLATE follows.
        With `{` in it, it is itself a template of FIELDS. Anything else is the name of the first file;
        further ones get `-1`, `-2`, ... before the extension, also where a template has no `{index}`.
    :param place: `dag_id`, `run_id`, `task_id` and `map_index` of the template. Each value becomes one path
        segment: what is unsafe in it is replaced, and then a hash keeps it apart from others.
    :param conn_id: Airflow connection of the object store, default that of the path.
    :raises MediaRequestError: if the template is wrong, or nothing can be written there as far as can be
        told in advance: that costs nothing yet.
    """

    def __init__(self, text: Any, place: Mapping[str, Any], conn_id: str | None = None) -> None:
        if not isinstance(text, str) or not text.strip():
            raise MediaRequestError(f"destination must be an object storage path, got {shown(text)}")
        self.text, self._conn_id = text, conn_id
        self._template = f"{text}{TEMPLATE}" if text.endswith("/") else text
        self._place = {
            name: value if isinstance(value, int) else segment(value) for name, value in place.items()
        }
        try:
            used = {field for _, field, _, _ in string.Formatter().parse(self._template) if field is not None}
            if "{" in self._template and not used <= set(FIELDS):
                raise ValueError(f"it has the fields {', '.join(sorted(used))}")
            self._name(0, MediaFile("file", ""), None, ".png")
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            raise MediaRequestError(
                f"destination {shown(text, 300)} is no template of the fields {', '.join(FIELDS)}: {error}"
            ) from None
        try:
            folder = self._at("".join(text.partition("{")[0].rpartition("/")[:2]) or ".")
            if is_local(folder):
                Path(folder.path).mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder.path):
                    pass
            else:
                _ = folder.fs
        except Exception as error:
            # fsspec lets each store raise errors of its own.
            raise MediaRequestError(
                f"destination {shown(text, 300)} cannot be written: {type(error).__name__}: {error}"
            ) from error

    def path(
        self, number: int, file: MediaFile, media_task_id: str | None, extension: str
    ) -> ObjectStoragePath:
        """The path of the file with this *number* among those that are landed together."""
        path = self._at(self._name(number, file, media_task_id, extension))
        if number == 0 or "{index" in self._template:
            return path
        pure = PurePosixPath(path.name)
        return path.parent / f"{pure.stem}-{number}{pure.suffix}"

    def paths(self, number: int, file: MediaFile, media_task_id: str | None) -> list[ObjectStoragePath]:
        """Every path at which an earlier run may have left this file, whose type is not known yet."""
        endings = verification.extensions(file.kind) if "{ext" in self._template else [""]
        return [self.path(number, file, media_task_id, ending) for ending in endings]

    def _name(self, number: int, file: MediaFile, media_task_id: str | None, extension: str) -> str:
        if "{" not in self._template:
            return self._template
        return self._template.format(
            **self._place,
            index=number,
            ext=extension,
            kind=segment(file.kind),
            media_task_id=segment(media_task_id or "none"),
        )

    def _at(self, text: str) -> ObjectStoragePath:
        return ObjectStoragePath(text, conn_id=self._conn_id)


def segment(value: Any) -> str:
    """*value* as one path segment that leads nowhere else; two different values never become the same one."""
    text = str(value)
    safe = _UNSAFE.sub("_", text)[:_SEGMENT_LENGTH]
    return safe if safe == text and safe else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def is_local(path: ObjectStoragePath) -> bool:
    """Whether *path* is in this machine's own file system."""
    return path.protocol in ("", "file", "local")


def land(
    made: Sequence[Made], destination: Destination, log: Any, decoder: verification.Decoder | None = None
) -> list[dict[str, Any]]:
    """Downloads what is not there yet, several files at once, each of them whole or not at all.

    :param decoder: of whoever lands more than once, default one for these files.
    :return: the provenance document of each of *made* (see `provenance`); each of its files has also `path`,
        `sha256`, `ends_sha256`, `size` (bytes), `content_type` (by its bytes), `index` (its number among the
        task's files), and `checked` where it was not decoded (see `verification.Decoder.check`).
    :raises MediaRequestError: if an address may not be asked, a file is too large, or the destination cannot
        be written; another try would meet the same.
    :raises MediaExpiredError: if a file is gone for good.
    :raises MediaTaskError: if anything else breaks. Whatever the error, the other files have landed.
    """
    missing = verification.missing_decoders()
    if missing:
        log.info(
            "without %s files are not decoded to check them (pip install 'airflow-media-tasks[landing]'); "
            "length and type are checked",
            " and ".join(missing),
        )
    numbers = iter(range(sum(len(one.files) for one in made)))
    with (
        contextlib.nullcontext(decoder) if decoder else verification.Decoder() as used,
        ThreadPoolExecutor(THREADS, thread_name_prefix="landing") as pool,
    ):
        landing = _Landing(destination, log, used)
        futures = []
        try:
            for one in made:
                renewal = _Renewal(one)
                for index, file in one.files:
                    job = _Job(one, renewal, index, file, next(numbers))
                    futures.append(pool.submit(landing.one, job))
            wait(futures)
        finally:
            # Where somebody ended the task, what is under way ends, too.
            landing.stop.set()
            for future in futures:
                future.cancel()
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        # One that another try may mend goes first.
        errors.sort(key=lambda error: isinstance(error, MediaRequestError))
        for error in errors[1:]:
            log.error("%s", error)
        raise errors[0]
    landed = iter([future.result() for future in futures])
    now = _now()
    return [provenance.document(one.result, [next(landed) for _ in one.files], now) for one in made]


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()


@dataclass(frozen=True)
class _Job:
    """One file to land; *number* counts all that are landed together."""

    made: Made
    renewal: _Renewal
    index: int
    file: MediaFile
    number: int


class _Renewal:
    """Fresh URLs of one task: it is asked again once, however many of its files need one."""

    def __init__(self, made: Made) -> None:
        self._made = made
        self._lock = threading.Lock()
        self._task: MediaTask | None = None

    @property
    def is_possible(self) -> bool:
        """Whether we know whom to ask."""
        return bool(self._made.media_task_id and self._made.result.get("media_conn_id"))

    def file(self, index: int) -> MediaFile | None:
        """The task's file with this number as the provider shows it now, if it still does."""
        with self._lock:
            if self._task is None:
                hook = get_media_hook(self._made.result["media_conn_id"])
                with contextlib.suppress(MediaNotFoundError):
                    self._task = hook.get_task(str(self._made.media_task_id))
        files = self._task.files if self._task else ()
        return files[index] if len(files) == len(self._made.result["files"]) else None


class _Landing:
    """What the files that are landed together share."""

    def __init__(self, destination: Destination, log: Any, decoder: verification.Decoder) -> None:
        self._destination, self._log, self._decoder = destination, log, decoder
        self._allowed = AllowedHosts(conf.get("media_tasks", "allowed_hosts", fallback=""))
        self._max_size = conf.getint("media_tasks", "max_file_size", fallback=MAX_FILE_SIZE)
        self.stop = threading.Event()

    def one(self, job: _Job) -> dict[str, Any]:
        """Lands one file, unless it is there."""
        began = time.monotonic()
        name, media_task_id = shown(job.file.url, 300), job.made.media_task_id
        with self._writing():
            earlier = self._landed_before(job)
            if earlier is not None:
                self._log.info("%s is there already", earlier["path"])
                return earlier
            nameless = self._destination.path(job.number, job.file, media_task_id, "")
            with _part(nameless) as part:
                file, got = self._download(job, part)
                claimed = got.content_type or file.content_type or ""
                media_type = verification.identify(part, file.kind, claimed, name)
                facts = self._decoder.check(part, media_type, file.kind, name)
                path = self._destination.path(job.number, job.file, media_task_id, media_type.extension)
                landed = {
                    **file.to_dict(),
                    **facts,
                    "index": job.index,
                    "media_task_id": media_task_id,
                    "path": str(path),
                    "content_type": media_type.content_type,
                    "size": got.size,
                    "sha256": got.sha256,
                    "ends_sha256": ends_sha256(ObjectStoragePath(str(part)), got.size),
                }
                _publish(part, path)
            document = provenance.document(job.made.result, [landed], _now())
            publish_text(json.dumps(document, indent=1, ensure_ascii=False), beside(path))
        seconds = time.monotonic() - began
        self._log.info("%s: %d bytes of %s in %.1f s", path, got.size, media_type.content_type, seconds)
        return landed

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Makes our errors of those of the store."""
        text = f"destination {shown(self._destination.text, 300)} cannot be written"
        try:
            yield
        except MediaTaskError:
            raise
        except _WRONG_PLACE as error:
            raise MediaRequestError(f"{text}: {type(error).__name__}: {error}") from error
        except Exception as error:
            # fsspec lets each store raise errors of its own.
            raise MediaTaskError(f"{text}: {type(error).__name__}: {error}", code="storage") from error

    def _landed_before(self, job: _Job) -> dict[str, Any] | None:
        """What an earlier run says it has landed here, if that is the same file and still as it was."""
        for path in self._destination.paths(job.number, job.file, job.made.media_task_id):
            try:
                document = json.loads(path.fs.cat_file(beside(path).path))
                (landed,) = document["files"]
                same = (
                    (document["media_task_id"], landed["index"]) == (job.made.media_task_id, job.index)
                    if job.made.media_task_id
                    else landed["url"] == job.file.url
                )
                if not same or path.fs.info(path.path)["size"] != landed["size"]:
                    continue
                if sha256_of(path) == landed["sha256"] and landed["path"] == str(path):
                    return dict(landed)
            except (OSError, ValueError, KeyError, TypeError):
                # Nothing is there, it may not be read, or it is no document of ours.
                continue
        return None

    def _download(self, job: _Job, part: Path) -> tuple[MediaFile, Download]:
        """Downloads into *part*; a URL that is no longer good is renewed, once."""
        file = job.file
        dead = file.expires_at is not None and _utc(file.expires_at) <= datetime.now(timezone.utc)
        if dead and job.renewal.is_possible:
            # Perhaps only the clocks disagree: without another URL this one is tried.
            file = job.renewal.file(job.index) or file
        try:
            return file, self._fetch(file, part)
        except UrlRefused as refusal:
            if dead or not job.renewal.is_possible:
                raise self._expired(job, refusal, asked=dead and job.renewal.is_possible) from refusal
            self._log.info("%s %s; asking for a fresh one", shown(file.url, 300), refusal)
            fresh = job.renewal.file(job.index)
            if fresh is None:
                raise self._expired(job, refusal, asked=True) from refusal
            try:
                return fresh, self._fetch(fresh, part)
            except UrlRefused as again:
                raise self._expired(job, again, asked=True) from again

    def _fetch(self, file: MediaFile, part: Path) -> Download:
        return download(file.url, part, self._allowed, self._max_size, self.stop, self._log)

    def _expired(self, job: _Job, refusal: UrlRefused, *, asked: bool) -> MediaExpiredError:
        who = job.made.media_task_id
        text = f"{shown(job.file.url, 300)} {refusal}: the file is gone"
        if job.file.expires_at:
            text += f", it expired at {_utc(job.file.expires_at):%Y-%m-%d %H:%M:%S} UTC"
        text += f". {who or 'It'} was generated and paid for"
        text += (
            f"; asked again, {job.made.result['media_conn_id']} has no URL that works"
            if asked
            else "; a fresh URL can only be had from the task that made it, and nobody said which that is"
        )
        return MediaExpiredError(
            text, provider=job.made.result.get("provider") or "", code="expired", media_task_id=who
        )


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def beside(path: ObjectStoragePath) -> ObjectStoragePath:
    """Where the document of the file at *path* is."""
    return path.parent / f"{path.name}.json"


def sha256_of(path: ObjectStoragePath) -> str:
    """Of the bytes that are there."""
    digest = hashlib.sha256()
    with path.fs.open(path.path, "rb", block_size=_BLOCK) as stream:
        while chunk := stream.read(_BLOCK):
            digest.update(chunk)
    return digest.hexdigest()


def ends_sha256(path: ObjectStoragePath, size: int) -> str:
    """Of the first ENDS bytes followed by the last; of the whole file where it has at most twice as many.

    It tells of a large file, with two ranged reads, whether it is the one that landed.

    :param size: of the file, in bytes.
    """
    ranges = [(0, size)] if size <= 2 * ENDS else [(0, ENDS), (size - ENDS, size)]
    digest = hashlib.sha256()
    for start, end in ranges:
        digest.update(path.fs.cat_file(path.path, start=start, end=end))
    return digest.hexdigest()


@contextlib.contextmanager
def _part(path: ObjectStoragePath) -> Iterator[Path]:
    """An empty local file for what will be at *path*; beside it, if that is local, to be renamed."""
    folder = Path(path.path).parent if is_local(path) else Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name[:100]}."
    if is_local(path):
        _remove_stale(folder, prefix)
    part = folder / f"{prefix}{uuid.uuid4().hex}.part"
    part.touch()
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _remove_stale(folder: Path, prefix: str) -> None:
    """Removes what a killed worker left; what is still being written has been touched lately."""
    for entry in os.scandir(folder):
        if entry.name.startswith(prefix) and entry.name.endswith(".part"):
            with contextlib.suppress(OSError):
                if time.time() - entry.stat().st_mtime > _STALE_SECONDS:
                    Path(entry.path).unlink()


def _publish(part: Path, path: ObjectStoragePath) -> None:
    """Lets the finished *part* appear at *path*, as a whole."""
    if is_local(path):
        Path(path.path).parent.mkdir(parents=True, exist_ok=True)
        part.replace(path.path)
        return
    if part.stat().st_size <= _BLOCK:
        path.fs.pipe_file(path.path, part.read_bytes())
        return
    upload = path.fs.open(path.path, "wb", block_size=_BLOCK, autocommit=False)
    try:
        # Closing it sends the rest; the object appears by the commit, and never if it does not come to that.
        with upload, part.open("rb") as stream:
            shutil.copyfileobj(stream, upload, _BLOCK)
        upload.commit()
    except BaseException:
        upload.discard()
        raise


def publish_text(text: str, path: ObjectStoragePath) -> None:
    """Lets *text* appear at *path*, as a whole."""
    with _part(path) as part:
        part.write_text(text, encoding="utf-8")
        _publish(part, path)
