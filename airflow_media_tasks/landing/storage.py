"""Landing: what a task made goes to object storage, whole or not at all, and what is there already stays.

A file is downloaded to a local one first, where its type is told and it is decoded; only then it appears at
its destination, with a JSON document beside it that says where it comes from (see `provenance`). What a later
run knows to be there already is told by the task's own record (see `landed`), not by that document.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow.sdk import ObjectStoragePath
from airflow.sdk.configuration import conf

from airflow_media_tasks.hooks.base import MediaHook, get_media_hook
from airflow_media_tasks.landing import provenance
from airflow_media_tasks.landing.destinations import Destination, is_local
from airflow_media_tasks.landing.downloads import (
    AllowedHosts,
    Download,
    UrlRefused,
    download,
    is_web_address,
    proxy_of,
    too_large,
    without_key,
)
from airflow_media_tasks.landing.landed import Landed, name_of
from airflow_media_tasks.material import verification
from airflow_media_tasks.submissions import metrics
from airflow_media_tasks.submissions.records import threads
from airflow_media_tasks.task import (
    MediaExpiredError,
    MediaFile,
    MediaNotFoundError,
    MediaProviderError,
    MediaRequestError,
    MediaTask,
    MediaTaskError,
    shown,
)


THREADS = 4
"""Files under way at once."""
MAX_FILE_SIZE = 2 * 1024**3
"""Bytes, unless the setting [media_tasks] max_file_size says otherwise."""
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 60.0, 60.0, 60.0)
"""Seconds between two requests for a file that is refused and not gone: five minutes in all.

A content network has a fresh file some seconds after the provider says so, and its guards may take us for a
robot for a while."""
NOTE_SECONDS = 10.0
"""How often the record learns what has landed meanwhile."""

_BLOCK = 8 * 1024**2
"""Bytes of one part of an upload; S3 takes 10,000 of them."""
ENDS = 1024**2
"""Bytes at the beginning and at the end of a file that `ends_sha256` is of."""
_STALE_SECONDS = 3600.0
_WRONG_PLACE = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)


@dataclass(frozen=True)
class Made:
    """Files of one task, or one plain URL.

    :param result: the dict that the task's operator returned; empty for a plain URL.
    :param files: what is to be landed, each with its number among all files of the result.
    :param media_conn_id: connection by which the task may be asked for fresh URLs, None if by none.
    """

    result: Mapping[str, Any]
    files: tuple[tuple[int, MediaFile], ...]
    media_conn_id: str | None = None

    @property
    def media_task_id(self) -> str | None:
        """Who made them."""
        return self.result.get("id")


def made_of(media: Any, connections: Collection[str] = ()) -> list[Made]:
    """What *media* names: results of our operators, URLs, or a list of either.

    Of a list, what is not there is left out: the output of a task that failed or was skipped is None.
    Watermarked twins and thumbnails stay where they are, unless a task made nothing else.

    :param connections: those that the DAG's author wrote. A result may come from anywhere: the connection it
        names is asked for fresh URLs only if it is one of them; one that names none is asked about by the
        only one there is.
    :raises MediaRequestError: if there is nothing to land, or something is neither.
    """
    found = list(_made_of(media, connections))
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


def _made_of(media: Any, connections: Collection[str]) -> Iterator[Made]:
    if isinstance(media, str):
        yield Made({}, ((0, MediaFile("file", media)),))
    elif isinstance(media, Mapping):
        try:
            files = [*enumerate(MediaFile.from_dict(file) for file in media.get("files") or ())]
        except (TypeError, ValueError) as error:
            raise MediaRequestError(f"media is no result of a media task: {error}") from None
        wanted = [pair for pair in files if pair[1].kind != "thumbnail" and not pair[1].watermarked]
        named = media.get("media_conn_id")
        if named is None and len(connections) == 1:
            (named,) = connections
        yield Made(media, tuple(wanted or files), named if named in [*connections] else None)
    elif isinstance(media, Iterable):
        for item in media:
            # A template makes a text of what is not there.
            if item is not None and item != "None":
                yield from _made_of(item, connections)
    else:
        raise MediaRequestError(
            "media must be what a media operator returned, a URL, or a list of those, with at least one "
            f"file; got {shown(media)}"
        )


def land(
    made: Sequence[Made],
    destination: Destination,
    log: Any,
    decoder: verification.Decoder | None = None,
    *,
    store: Any = None,
    patience: threading.Event | None = None,
) -> list[dict[str, Any]]:
    """Downloads what is not there yet, several files at once, each of them whole or not at all.

    :param decoder: of whoever lands more than once, default one for these files.
    :param store: the task state store, which knows what this task instance has landed before; without it
        everything is downloaded.
    :param patience: set when one file was waited for in vain: the others that share it are not, from then on.
    :return: the provenance document of each of *made* (see `provenance`); each of its files has also `path`,
        `sha256`, `ends_sha256`, `size` (bytes), `content_type` (by its bytes), `index` (its number among the
        task's files), and `checked` where it was not decoded (see `verification.Decoder.check`).
    :raises MediaRequestError: if an address may not be asked, a file is too large, or the destination cannot
        be written; another try would meet the same.
    :raises MediaExpiredError: if a file is gone for good, and nothing else is wrong.
    :raises MediaTaskError: if anything else breaks. Whatever the error, the other files have landed.
    """
    missing = verification.missing_decoders()
    if missing:
        log.info(
            "without %s files are not decoded to check them (pip install 'airflow-media-tasks[landing]'); "
            "length and type are checked",
            " and ".join(missing),
        )
    total = sum(len(one.files) for one in made)
    landed, numbers = Landed(store, total), iter(range(total))
    with (
        contextlib.nullcontext(decoder) if decoder else verification.Decoder() as used,
        ThreadPoolExecutor(threads(THREADS), thread_name_prefix="landing") as pool,
    ):
        landing = _Landing(destination, log, used, landed, patience or threading.Event())
        futures = {}
        try:
            for one in made:
                renewal = _Renewal(one)
                for index, file in one.files:
                    job = _Job(one, renewal, index, file, next(numbers))
                    futures[pool.submit(landing.one, job)] = job
            left = set(futures)
            while left:
                done, left = wait(left, NOTE_SECONDS)
                for future in done:
                    if future.exception() is None:
                        landed.note(futures[future].number, futures[future].name, future.result())
                _save(landed, log)
        finally:
            # Where somebody ended the task, what is under way ends, too.
            landing.stop.set()
            for future in futures:
                future.cancel()
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        # One that another try may mend goes first; nothing is gone for good as long as there is one.
        errors.sort(
            key=lambda error: [isinstance(error, each) for each in (MediaExpiredError, MediaRequestError)]
        )
        for error in errors[1:]:
            log.error("%s", error)
        raise errors[0]
    files = iter([future.result() for future in futures])
    now = _now()
    return [provenance.document(one.result, [next(files) for _ in one.files], now) for one in made]


def with_landed(result: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """*result* of a media task, whose files also say where they are, as far as *document* of `land` knows."""
    landed = {file["index"]: file for file in document["files"]}
    files = [{**file, **landed.get(index, {})} for index, file in enumerate(result["files"])]
    return {**result, "files": files}


def _save(landed: Landed, log: Any) -> None:
    try:
        landed.save()
    except Exception:  # whatever keeps us from it: the files are there, and that is what counts
        log.warning("what has landed could not be noted: it may be downloaded again", exc_info=True)


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

    @property
    def name(self) -> str:
        """What the record calls it."""
        return name_of(self.made.media_task_id, self.index, self.file.url)


class _Renewal:
    """The account that made a task's files: asked again once for fresh URLs, however many need one."""

    def __init__(self, made: Made) -> None:
        self._made = made
        self._lock = threading.Lock()
        self._task: MediaTask | None = None

    @cached_property
    def _hook(self) -> MediaHook:
        return get_media_hook(str(self._made.media_conn_id))

    def headers_for(self, url: str) -> Mapping[str, str]:
        """What one of its files is asked with that is only given to this account.

        :raises MediaRequestError: if nobody said which account that is.
        """
        if self._made.media_conn_id is None:
            raise MediaRequestError(
                f"{shown(url, 300)} is only given to the account that made it, and nobody said which that "
                "is: name its media_conn_id"
            )
        with self._lock:
            return self._hook.headers_for(url)

    def content(self, index: int) -> bytes:
        """The file with this number, which stands in the task's own document.

        :raises UrlRefused: if it does not any more.
        """
        if not self.is_possible:
            raise MediaRequestError(
                "a file that stands in the document of the task that made it can only be had from that task, "
                "and nobody said which media_conn_id may ask it"
            )
        try:
            with self._lock:
                return self._hook.get_file(str(self._made.media_task_id), index)
        except MediaNotFoundError as error:
            raise UrlRefused(f"is in no task any more ({error})", expired=True) from error

    @property
    def is_possible(self) -> bool:
        """Whether we know whom to ask."""
        return bool(self._made.media_task_id and self._made.media_conn_id)

    def file(self, index: int) -> MediaFile | None:
        """The task's file with this number as the provider shows it now, if it still does."""
        with self._lock:
            if self._task is None:
                with contextlib.suppress(MediaNotFoundError):
                    self._task = self._hook.get_task(str(self._made.media_task_id))
        files = self._task.files if self._task else ()
        return files[index] if len(files) == len(self._made.result["files"]) else None


class _Landing:
    """What the files that are landed together share."""

    def __init__(
        self,
        destination: Destination,
        log: Any,
        decoder: verification.Decoder,
        landed: Landed,
        patience: threading.Event,
    ) -> None:
        self._destination, self._log, self._decoder = destination, log, decoder
        self._landed, self._patience_is_over = landed, patience
        self._proxy = proxy_of(conf.get("media_tasks", "proxy", fallback=""))
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
            publish_text([json.dumps(document, indent=1, ensure_ascii=False)], beside(path))
        metrics.landed(got.size, job.made.result, self._destination.dag_id)
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
        """What an earlier try has landed here by our own record, if it is still there as it was."""
        facts = self._landed.of(job.name)
        if facts is None:
            return None
        for path in self._destination.paths(job.number, job.file, job.made.media_task_id):
            # Nothing is there, or it may not be read.
            with contextlib.suppress(OSError):
                if path.fs.info(path.path)["size"] == facts["size"] and sha256_of(path) == facts["sha256"]:
                    return {
                        **job.file.to_dict(),
                        **facts,
                        "index": job.index,
                        "media_task_id": job.made.media_task_id,
                        "path": str(path),
                    }
        return None

    def _download(self, job: _Job, part: Path) -> tuple[MediaFile, Download]:
        """Downloads into *part*; a URL that is no longer good is renewed, once.

        A file that is refused is not gone as long as the provider's task shows it and it has not expired.
        """
        file, renewal = job.file, job.renewal
        asked = _is_over(file) and renewal.is_possible
        if asked:
            # Perhaps only the clocks disagree: without another URL this one is tried.
            file = renewal.file(job.index) or file
        try:
            return file, self._fetch(job, file, part)
        except UrlRefused as refusal:
            last = refusal
        if renewal.is_possible and not asked:
            self._log.info("%s %s; asking for a fresh one", shown(file.url, 300), last)
            fresh = renewal.file(job.index)
            if fresh is None:
                raise self._expired(job, last) from last
            file = fresh
            try:
                return file, self._fetch(job, file, part)
            except UrlRefused as refusal:
                last = refusal
        # The provider's date counts more than the words of whoever has the file.
        until = file.expires_at or job.file.expires_at
        if _is_over(job.file) or _is_over(file) or (until is None and last.expired):
            raise self._expired(job, last) from last
        return file, self._wait_for(job, file, part, last)

    def _wait_for(self, job: _Job, file: MediaFile, part: Path, last: UrlRefused) -> Download:
        """Asks for *file* again and again, with growing pauses."""
        waited = 0.0
        for pause in PAUSES:
            if self._patience_is_over.is_set():
                break
            self._log.info(
                "%s %s, and is not gone: asking again in %.0f s, for at most %.0f s more",
                shown(file.url, 300),
                last,
                pause,
                sum(PAUSES) - waited,
            )
            if _pause(self.stop, pause):
                break
            waited += pause
            try:
                return self._fetch(job, file, part)
            except UrlRefused as refusal:
                last = refusal
        self._patience_is_over.set()
        raise self._refused(job, file, last, waited) from last

    def _fetch(self, job: _Job, file: MediaFile, part: Path) -> Download:
        if file.access == "task":
            return self._write(job, file, part)
        asked_with = job.renewal.headers_for if file.access == "key" else without_key
        return download(
            file.url, part, self._allowed, self._max_size, self.stop, self._log, self._proxy, asked_with
        )

    def _write(self, job: _Job, file: MediaFile, part: Path) -> Download:
        content = job.renewal.content(job.index)
        if len(content) > self._max_size:
            raise too_large(file.url, self._max_size)
        part.write_bytes(content)
        return Download(file.content_type or "", len(content), hashlib.sha256(content).hexdigest())

    def _refused(self, job: _Job, file: MediaFile, refusal: UrlRefused, waited: float) -> MediaProviderError:
        """Of what is not gone."""
        made = job.made
        text = f"{shown(file.url, 300)} {refusal}, after {waited:.0f} s of waiting as well"
        if made.media_task_id:
            text += f". {made.media_task_id} was generated and paid for, and it is not gone: "
            text += (
                f"{made.media_conn_id} shows it"
                if job.renewal.is_possible
                else "it has not expired, as far as is known (media_conn_id lets its task be asked)"
            )
        text += ". Another try, or a clear, downloads it and pays nothing"
        return MediaProviderError(
            text,
            provider=made.result.get("provider") or "",
            code="refused",
            media_task_id=made.media_task_id,
        )

    def _expired(self, job: _Job, refusal: UrlRefused) -> MediaExpiredError:
        who = job.made.media_task_id
        text = f"{shown(job.file.url, 300)} {refusal}: the file is gone"
        if job.file.expires_at:
            text += f", it expired at {_utc(job.file.expires_at):%Y-%m-%d %H:%M:%S} UTC"
        text += f". {who or 'It'} was generated and paid for"
        text += (
            f"; asked again, {job.made.media_conn_id} has no URL that works"
            if job.renewal.is_possible
            else "; a fresh URL can only be had from the task that made it, and nobody said which that is, "
            "or which media_conn_id may ask it"
        )
        return MediaExpiredError(
            text, provider=job.made.result.get("provider") or "", code="expired", media_task_id=who
        )


def _pause(stop: threading.Event, seconds: float) -> bool:
    """Waits, unless it is told to stop; whether it was."""
    return stop.wait(seconds)


def _is_over(file: MediaFile) -> bool:
    """Whether *file* has expired."""
    return file.expires_at is not None and _utc(file.expires_at) <= datetime.now(timezone.utc)


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


def publish_text(text: Iterable[str], path: ObjectStoragePath) -> None:
    """Lets the pieces of *text* appear at *path*, as a whole."""
    with _part(path) as part:
        with part.open("w", encoding="utf-8") as stream:
            stream.writelines(text)
        _publish(part, path)
