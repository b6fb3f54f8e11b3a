"""Files of one's own in requests: looked at once, known by their content, handed over when it is their turn.

Before anything is written or sent a file is read once: that it may leave at all, its hash, what it is by its
bytes, and that the provider takes such a one. As long as its store says that it is the same, no later try
reads it for that again. What the provider gets in its place is made when the request is about to be sent, and
kept nowhere but in memory.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import re
import tempfile
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk.configuration import conf
from airflow.sdk.execution_time.context import NEVER_EXPIRE
from typing_extensions import Self

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.material import verification
from airflow_media_tasks.material.inputs import CannotSign, Input, allowed
from airflow_media_tasks.task import MediaProviderError, MediaRequestError, MediaTaskError, shown
from airflow_media_tasks.wire.addresses import is_private
from airflow_media_tasks.wire.materials import in_place, kind_of_word, paths_in, trace_of
from airflow_media_tasks.wire.roads import Road, Takes


KEY = "media_task.material"
"""The first entry of what is known of files in the task state store; the second one's key ends with `.1`."""
ENTRY = 100
"""Files of one entry, which so stays below the 64 KiB that Airflow allows."""
SPARE = 900.0
"""Seconds for which an address is good beyond the time that one waits for the task."""

_AT_HAND = 512 * 1024**2
"""Bytes of files that are kept on the worker's disk for the next request."""
_MAX_SIZE = 2 * 1024**3
_LONGEST = 300
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Material:
    """What is known of a file: by its store's *version*, all of it stays true as long as that is the same.

    :param size: bytes.
    :param content_type: by its bytes.
    :param extension: that goes with it, with its dot.
    :param kind: `image`, `video` or `audio`; a picture that moves is a picture.
    :param width: px, as *height*; None of sound.
    """

    version: str
    sha256: str
    size: int
    content_type: str
    extension: str
    kind: str
    width: int | None = None
    height: int | None = None

    @classmethod
    def of(cls, stored: Any) -> Material | None:
        """What is *stored*, or None if it is nothing of ours: then the file is read again."""
        try:
            known = cls(**stored)
        except TypeError:
            return None
        said: dict[str, Any] = vars(known)
        texts = [said[name] for name in ("version", "sha256", "content_type", "extension", "kind")]
        numbers = [known.size, *(side for side in (known.width, known.height) if side is not None)]
        is_good = (
            all(isinstance(text, str) and len(text) <= _LONGEST for text in texts)
            and all(type(number) is int and number > 0 for number in numbers)
            and _HASH.fullmatch(known.sha256) is not None
        )
        return known if is_good else None

    def stored(self) -> dict[str, Any]:
        """What `of` reads."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def told(self, path: str) -> dict[str, Any]:
        """For people, and for what is made of it: where it is, and what it is."""
        return {
            "path": path,
            "sha256": self.sha256,
            "size": self.size,
            "content_type": self.content_type,
        }


@dataclass(frozen=True)
class Handed:
    """What a provider gets for the paths in one request's arguments; of it, only the traces are written down.

    :param values: path -> what stands in the request.
    :param traces: see `trace_of`; in the order of `paths_in`.
    :param told: what each file is, see `Material.told`, and the `way` by which it goes.
    """

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    traces: tuple[str, ...] = ()
    told: tuple[Mapping[str, Any], ...] = ()


NOTHING = Handed()


class _Cannot(Exception):
    """Why a file does not go one way."""


class Materials:
    """The files in the requests of one task; a context manager.

    Any thread may ask; `save` is for the task's own.

    :param seconds: for which an address must be good: how long the task may take.
    :param store: the task state store, which remembers what is known of a file; None remembers nothing.
    :param landed: see `inputs.allowed`.
    :param decoder: of whoever has one already.
    """

    def __init__(
        self,
        hook: MediaHook,
        log: Any,
        seconds: float,
        store: Any = None,
        landed: Callable[[str], str | None] = lambda _: None,
        decoder: verification.Decoder | None = None,
    ) -> None:
        self._hook, self._log, self._store, self._landed = hook, log, store, landed
        self._seconds = seconds + SPARE
        self._open = contextlib.ExitStack()
        self._decoder = decoder or self._open.enter_context(verification.Decoder())
        self._lock = threading.RLock()
        self._of_path: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._known: dict[str, Material] | None = None
        self._is_new = False
        self._is_pinned = False
        self._seen: dict[str, tuple[Input | MediaTaskError, Material]] = {}
        self._folder: Path | None = None
        self._at_hand: OrderedDict[str, tuple[Path, str, int]] = OrderedDict()
        self._bytes_at_hand = 0
        self._given: dict[tuple[str, str], tuple[float, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._folder = None
        self._at_hand.clear()

    def pin(self) -> None:
        """Lets what was written down earlier in this try count, whatever has become of the files since.

        One that is yet to be handed over must still be the same.
        """
        self._is_pinned = True

    # Before anything is written or sent.

    def look(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Looks at the files in the *arguments*, as `MediaHook.check` gave them, of the operation *name*.

        :raises MediaRequestError: naming a file that may not leave, is not there, or is none that the
            provider takes.
        :raises MediaTaskError: if its store cannot be asked at present.
        """
        for word, path in paths_in(arguments):
            _, material = self._material(path)
            self._check(name, word, path, material)

    def identified(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """*arguments* with the hash of its content in each path's place: what makes two requests the same."""
        hashes = {path: {"sha256": self._material(path)[1].sha256} for _, path in paths_in(arguments)}
        return in_place(arguments, hashes)

    def told(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What each file in *arguments* is, for people."""
        return [self._material(path)[1].told(path) for _, path in paths_in(arguments)]

    def save(self) -> None:
        """Writes down what is known, if it is more than before."""
        if self._store is None or not self._is_new:
            return
        every = [(path, material.stored()) for path, (_, material) in self._seen.items()]
        for number, start in enumerate(range(0, len(every), ENTRY)):
            self._store.set(_key(number), dict(every[start : start + ENTRY]), retention=NEVER_EXPIRE)
        self._is_new = False

    # When it is a request's turn.

    def hand_over(self, name: str, arguments: Mapping[str, Any]) -> Handed:
        """What the provider gets for the paths in *arguments*: signed, read or uploaded now.

        :raises MediaRequestError: naming each way and why it is none, if one of them cannot be handed over.
        :raises MediaTaskError: if a store or the provider does not do its part at present.
        """
        values: dict[str, str] = {}
        told: list[dict[str, Any]] = []
        paths = paths_in(arguments)
        for word, path in paths:
            source, material = self._material(path)
            if isinstance(source, MediaTaskError):
                raise source
            if self._is_pinned and source.version()[0] != material.version:
                raise MediaRequestError(
                    f"{shown(path, 300)} has changed since the batch began; a retry takes it as it is then",
                    code="not_taken",
                )
            way, values[path] = self._by_the_best(name, word, path, source, material)
            told.append({**material.told(path), "way": way})
        traces = tuple(trace_of(values[path]) for _, path in paths)
        return Handed(values, traces, tuple(told))

    # Looking.

    def _material(self, path: str) -> tuple[Input | MediaTaskError, Material]:
        """The file at *path* as it was when this try first asked, or why it is not there any more."""
        with self._locked(path):
            if path not in self._seen:
                self._seen[path] = self._looked_at(path)
                self._is_new |= self._seen[path][1] != self._remembered().get(path)
            return self._seen[path]

    def _looked_at(self, path: str) -> tuple[Input | MediaTaskError, Material]:
        known = self._remembered().get(path)
        try:
            source = allowed(path, self._landed)
            if self._is_pinned and known is not None:
                return source, known
            version, size = source.version()
        except MediaTaskError as error:
            if known is None:
                raise
            # What an earlier try has sent is still waited for, whatever has become of the file.
            self._log.warning("%s; what is known of it from an earlier try counts", error)
            return error, known
        if known is None or not version or known.version != version:
            if size == 0:
                raise MediaRequestError(f"{shown(path, 300)} is empty", code="not_taken")
            for _ in range(3):
                known = self._read(path, source, version)
                again, _ = source.version()
                if again == version:
                    break
                version = again
            else:
                raise MediaTaskError(f"{shown(path, 300)} changes while it is read", code="storage")
        if source.sha256 not in (None, known.sha256):
            raise MediaRequestError(
                f"{shown(path, 300)} is not what our task has landed there any more; to hand it over all the "
                "same, name its place in the setting [media_tasks] allowed_inputs",
                code="not_allowed",
            )
        return source, known

    def _read(self, path: str, source: Input, version: str) -> Material:
        """What the file is by its bytes, all of which are read."""
        copy, sha256, size = self._copy(source)
        self._log.info("%s: %d bytes, sha256 %s", shown(path, 300), size, sha256)
        media_type = _type_of(copy, "")
        if media_type is None:
            raise _of_no_kind(path)
        try:
            facts = self._decoder.check(copy, media_type, "", "the file")
        except MediaProviderError as error:
            raise MediaRequestError(
                f"{shown(path, 300)} is not handed over: {error.message}", code="not_taken"
            ) from error
        if "checked" in facts and "width" not in facts:
            hint = " (pip install 'airflow-media-tasks[landing]')" if verification.missing_decoders() else ""
            raise MediaRequestError(
                f"{shown(path, 300)} is not handed over, as nobody can say what it is: {facts['checked']}"
                + hint,
                code="not_taken",
            )
        kind = verification.IMAGE if verification.IMAGE in media_type.kinds else verification.VIDEO
        if "width" not in facts:
            kind = verification.AUDIO
            media_type = _type_of(copy, kind)
        if media_type is None:
            raise _of_no_kind(path)
        self._keep(path, copy, sha256, size)
        sides = (facts.get("width"), facts.get("height"))
        return Material(version, sha256, size, media_type.content_type, media_type.extension, kind, *sides)

    def _check(self, name: str, word: str, path: str, material: Material) -> None:
        """Raises MediaRequestError if the provider does not take such a file, or none goes any way to it."""
        kind = kind_of_word(word)
        what = f"argument {word!r} of {name!r}: {shown(path, 300)}"
        if kind not in ("", material.kind):
            raise MediaRequestError(
                f"{what} must be {_A[kind]}, and is {material.content_type}", code="not_taken"
            )
        takes = self._hook.takes.get(material.kind, Takes())
        wrong = list(_against(takes, material))
        if wrong:
            raise MediaRequestError(
                f"{what} is nothing for {self._hook.conn_type}: it {'; it '.join(wrong)}", code="not_taken"
            )

    def _remembered(self) -> dict[str, Material]:
        with self._lock:
            if self._known is None:
                self._known = {}
                number = 0
                while self._store is not None and isinstance(
                    stored := self._store.get(_key(number)), Mapping
                ):
                    found = {path: Material.of(facts) for path, facts in stored.items()}
                    self._known |= {path: known for path, known in found.items() if known is not None}
                    number += 1
            return self._known

    # The bytes, on the worker's disk.

    def _copy(self, source: Input) -> tuple[Path, str, int]:
        """A local copy, its sha256 and its bytes."""
        with self._lock:
            if self._folder is None:
                folder = tempfile.TemporaryDirectory(prefix="media-material-")
                self._folder = Path(self._open.enter_context(folder))
            descriptor, text = tempfile.mkstemp(dir=self._folder)
        with open(descriptor, "wb") as target:  # noqa: PTH123  # it is open already
            sha256 = source.copy(target, conf.getint("media_tasks", "max_file_size", fallback=_MAX_SIZE))
            return Path(text), sha256, target.tell()

    def _keep(self, path: str, copy: Path, sha256: str, size: int) -> None:
        """Keeps *copy* for the next request that has the same file; what was kept longest goes for it."""
        with self._lock:
            dropped = [old] if (old := self._at_hand.pop(path, None)) else []
            self._at_hand[path] = (copy, sha256, size)
            self._bytes_at_hand += size - sum(old[2] for old in dropped)
            while self._bytes_at_hand > _AT_HAND and len(self._at_hand) > 1:
                dropped.append(self._at_hand.popitem(last=False)[1])
                self._bytes_at_hand -= dropped[-1][2]
            for gone, _, _ in dropped:
                gone.unlink(missing_ok=True)

    def _content(self, path: str, source: Input, material: Material) -> bytes:
        """The bytes, which are those that were looked at."""
        with self._lock:
            copy, sha256, size = self._at_hand.get(path, (None, "", 0))
            if copy is not None and sha256 == material.sha256:
                return copy.read_bytes()
        copy, sha256, size = self._copy(source)
        content = copy.read_bytes()
        self._keep(path, copy, sha256, size)
        if sha256 != material.sha256:
            raise MediaTaskError(
                f"{shown(path, 300)} has changed since it was looked at; nothing was sent, and the next try "
                "takes it as it is then",
                code="storage",
            )
        return content

    @contextlib.contextmanager
    def _locked(self, path: str) -> Iterator[None]:
        """One thread at a time does something with the same file."""
        with self._lock:
            lock = self._of_path[path]
        with lock:
            yield

    # The ways.

    def _by_the_best(
        self, name: str, word: str, path: str, source: Input, material: Material
    ) -> tuple[str, str]:
        """The way by which the file goes, and what stands in the request."""
        whys = []
        for road in self._hook.roads_of(word):
            try:
                value = self._by(road, path, source, material)
            except _Cannot as why:
                whys.append(f"{_NAMES[road.way]}: {why}")
                continue
            self._log.info(
                "%s: %s (sha256 %s, %d bytes of %s) goes %s%s",
                word,
                shown(path, 300),
                material.sha256,
                material.size,
                material.content_type,
                _NAMES[road.way],
                f"; not {'; not '.join(whys)}" if whys else "",
            )
            return road.way, value
        raise MediaRequestError(
            f"argument {word!r} of {name!r}: {shown(path, 300)} cannot be handed to {self._hook.conn_type}. "
            + ("; ".join(whys) or "It takes no file for this argument by any way that its connection allows"),
            code="not_taken",
        )

    def _by(self, road: Road, path: str, source: Input, material: Material) -> str:
        if road.most is not None and material.size > road.most:
            raise _Cannot(f"it has {material.size} bytes, of which {road.most} are taken so")
        if road.way == Road.INLINE:
            text = base64.b64encode(self._content(path, source, material)).decode()
            return road.form.replace("{type}", material.content_type).replace("{base64}", text)
        with self._locked(path):
            # One address and one upload are enough for all requests of this task.
            key, now = (road.way, path), time.monotonic()
            given_at, value = self._given.get(key, (0.0, ""))
            if not value or now - given_at > SPARE / 2:
                if road.way == Road.URL:
                    value = self._address(source, material)
                else:
                    name = f"{material.sha256[:16]}{material.extension}"
                    content = self._content(path, source, material)
                    value = self._hook.upload(road, content, material.content_type, name)
                self._given[key] = (now, value)
            return value

    def _address(self, source: Input, material: Material) -> str:
        try:
            url = source.signed(self._seconds, material.version)
        except CannotSign as why:
            raise _Cannot(str(why)) from why
        host = urlsplit(url).hostname or ""
        if is_private(host) and not self._hook.is_private:
            raise _Cannot(f"{shown(host)} is no address of the internet, where the provider could fetch it")
        return url


def _against(takes: Takes, material: Material) -> Iterator[str]:
    """What in *material* is not as a provider takes it."""
    if takes.types and material.content_type not in takes.types:
        yield f"is {material.content_type}, and {', '.join(takes.types)} are taken"
    if takes.most is not None and material.size > takes.most:
        yield f"has {material.size} bytes, and at most {takes.most} are taken"
    if material.width is None or material.height is None:
        return
    shorter, longer = sorted((material.width, material.height))
    size = f"has {material.width} x {material.height} px, and "
    if shorter < takes.least:
        yield f"{size}each side must have {takes.least} or more"
    if takes.largest is not None and longer > takes.largest:
        yield f"{size}no side may have more than {takes.largest}"
    if takes.ratio is not None and longer > takes.ratio * shorter:
        yield f"{size}one side may be at most {takes.ratio:g} times the other"


def _type_of(copy: Path, kind: str) -> verification.MediaType | None:
    """What the file is by its bytes; None if it is nothing that can be decoded, or not of this *kind*."""
    try:
        found = verification.identify(copy, kind, "", "the file")
    except MediaProviderError:
        # Its words show how the file begins, which is nobody's business here.
        return None
    return found if found.decoder else None


def _of_no_kind(path: str) -> MediaRequestError:
    return MediaRequestError(
        f"{shown(path, 300)} is by its bytes no picture, film or sound that can be checked, so it is not "
        "handed over",
        code="not_taken",
    )


_NAMES = {Road.URL: "by a presigned address", Road.INLINE: "in the request", Road.UPLOAD: "by an upload"}
_A = {"image": "a picture", "video": "a film", "audio": "sound"}


def _key(number: int) -> str:
    return f"{KEY}.{number}" if number else KEY
