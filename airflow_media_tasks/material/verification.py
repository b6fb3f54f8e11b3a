"""What a file is, by its bytes, and whether it decodes as that.

Types are told by puremagic; pictures are decoded by Pillow and sound and video by PyAV, where they are
installed (the extra `landing`), in a process of their own (see `decoding`).
"""

from __future__ import annotations

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import puremagic
from airflow.sdk.configuration import conf
from typing_extensions import Self

from airflow_media_tasks.task import MediaProviderError, shown


_HEAD = 8192
"""Bytes by which a type is told."""
MEMORY = 512 * 1024**2
"""Bytes that decoding a file may take, unless the setting [media_tasks] decoder_memory says otherwise."""

_CHILD = Path(__file__).with_name("decoding.py")
_CPU_SECONDS = 20
"""Of CPU, for one file."""
_WALL_SECONDS = 60.0
_ENDING_SECONDS = 1.0
_ANSWER = 4096
"""Bytes of an answer."""

IMAGE, VIDEO, AUDIO = "image", "video", "audio"
_KINDS = {"image": IMAGE, "thumbnail": IMAGE, "video": VIDEO, "audio": AUDIO}


@dataclass(frozen=True)
class MediaType:
    """A kind of file.

    :param content_type: MIME type.
    :param extension: with its dot.
    :param kinds: what such a file may hold, of `image`, `video`, `audio`.
    :param decoder: Pillow's name of the format, or libav's; empty where neither reads it for certain.
    """

    content_type: str
    extension: str
    kinds: tuple[str, ...]
    decoder: str = ""


_AVIF = MediaType("image/avif", ".avif", (IMAGE, VIDEO), "AVIF")
_HEIC = MediaType("image/heic", ".heic", (IMAGE,))
_MOV = MediaType("video/quicktime", ".mov", (VIDEO, AUDIO), "mov")
_MIDI = MediaType("audio/midi", ".mid", (AUDIO,))
_SOUND_OF_MP4 = MediaType("audio/mp4", ".m4a", (AUDIO,), "mp4")
_MP4 = MediaType("video/mp4", ".mp4", (VIDEO, AUDIO), "mp4")
_WAV = MediaType("audio/wav", ".wav", (AUDIO,), "wav")
_OGG = MediaType("audio/ogg", ".ogg", (AUDIO, VIDEO), "ogg")
_MKV = MediaType("video/x-matroska", ".mkv", (VIDEO, AUDIO), "matroska")
_AVI = MediaType("video/x-msvideo", ".avi", (VIDEO,), "avi")
_BMP = MediaType("image/bmp", ".bmp", (IMAGE,), "BMP")
_UNKNOWN = MediaType("application/octet-stream", ".bin", ())

_TYPES = {
    "image/png": MediaType("image/png", ".png", (IMAGE, VIDEO), "PNG"),
    "image/jpeg": MediaType("image/jpeg", ".jpg", (IMAGE,), "JPEG"),
    "image/webp": MediaType("image/webp", ".webp", (IMAGE, VIDEO), "WEBP"),
    "image/gif": MediaType("image/gif", ".gif", (IMAGE, VIDEO), "GIF"),
    "image/tiff": MediaType("image/tiff", ".tiff", (IMAGE,), "TIFF"),
    "image/bmp": _BMP,
    "image/x-ms-bmp": _BMP,
    "image/avif": _AVIF,
    "image/heic": _HEIC,
    "image/svg+xml": MediaType("image/svg+xml", ".svg", (IMAGE,)),
    "video/mp4": _MP4,
    "audio/mp4": _MP4,
    "video/quicktime": _MOV,
    "video/webm": MediaType("video/webm", ".webm", (VIDEO, AUDIO), "matroska"),
    "video/x-matroska": _MKV,
    "application/x-matroska": _MKV,
    "video/avi": _AVI,
    "video/x-msvideo": _AVI,
    "audio/mpeg": MediaType("audio/mpeg", ".mp3", (AUDIO,), "mp3"),
    "audio/wave": _WAV,
    "audio/wav": _WAV,
    "audio/x-wav": _WAV,
    "audio/flac": MediaType("audio/flac", ".flac", (AUDIO,), "flac"),
    "audio/aac": MediaType("audio/aac", ".aac", (AUDIO,), "aac"),
    "audio/ogg": _OGG,
    "application/ogg": _OGG,
    "audio/x-midi": _MIDI,
    "audio/midi": _MIDI,
}
_BRANDS = {
    b"qt  ": _MOV,
    **dict.fromkeys((b"avif", b"avis"), _AVIF),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), _HEIC),
}
"""Of ISO base media files (ISO/IEC 14496-12, section 4.3), what is not MP4 with one of its many brands."""


def extensions(kind: str) -> list[str]:
    """Every extension that a file of this *kind* (as of `MediaFile`) may land with, likely ones first."""
    wanted = _KINDS.get(kind)
    found = [known.extension for known in _TYPES.values() if wanted is None or wanted in known.kinds]
    sound = [_SOUND_OF_MP4.extension] if wanted in (AUDIO, None) else []
    return list(dict.fromkeys([*found, *sound, *([] if wanted else [_UNKNOWN.extension])]))


def identify(path: Path, kind: str, content_type: str, name: str) -> MediaType:
    """The type of the file at *path*, by its bytes.

    :param kind: as of `MediaFile`.
    :param content_type: what the server calls it; counts where *kind* says nothing.
    :param name: what errors call the file.
    :raises MediaProviderError: if it claims to be a picture, a video or sound and is something else, or if
        it is a web page.
    """
    wanted = _KINDS.get(kind) or _KINDS.get(content_type.partition("/")[0])
    with path.open("rb") as file:
        head = file.read(_HEAD)
    found = _type_of(head)
    if found is None or (wanted and wanted not in found.kinds):
        words = _text_of(head)
        if found is None and words is None and not wanted:
            return _UNKNOWN
        is_what = found.content_type if found else "text" if words is not None else "no media file we know"
        begins = shown(" ".join(words.split())[:150]) if words is not None else head[:16].hex(" ")
        claims = " and ".join(filter(None, [kind if kind in _KINDS else "", content_type]))
        raise MediaProviderError(
            f"{name} claims to be {claims or 'a media file'} and is {is_what}; it begins with {begins}",
            code="wrong_type",
        )
    return _SOUND_OF_MP4 if found is _MP4 and wanted == AUDIO else found


def _type_of(head: bytes) -> MediaType | None:
    # Of these two puremagic knows some brands, and some of the bit rates.
    if head[4:8] in (b"ftyp", b"styp"):
        brands = head[8 : min(int.from_bytes(head[:4], "big"), 512)]
        # The first is the major brand; `mif1` and `msf1` may be either, and the compatible ones say which.
        known = [
            _BRANDS[brand] for at in range(0, len(brands), 4) if (brand := brands[at : at + 4]) in _BRANDS
        ]
        return (_AVIF if _AVIF in known else known[0]) if known and brands[:4] in _BRANDS else _MP4
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and 0 < head[2] >> 4 < 15:
        return _TYPES["audio/mpeg"]
    try:
        matches = [match.mime_type for match in puremagic.magic_string(head)]
    except (puremagic.PureError, ValueError):
        return None
    if _text_of(head) is not None and "image/svg+xml" not in matches:
        # Two letters make some types; a text begins with two letters, too.
        return None
    if "audio/aac" in matches:
        # It begins as MP3 may, and puremagic names both; but not where it is MP3.
        return _TYPES["audio/aac"]
    return next((_TYPES[name] for name in matches if name in _TYPES), None)


def _text_of(head: bytes) -> str | None:
    """*head* as a text, or None if it is none."""
    try:
        text = head[: _HEAD - 4].decode()
    except UnicodeDecodeError as error:
        if error.start < min(len(head), _HEAD - 4) - 4:
            return None
        text = head[: error.start].decode()
    return text if all(character.isprintable() or character.isspace() for character in text) else None


def missing_decoders() -> list[str]:
    """The libraries without which not everything can be decoded here."""
    modules = {"pillow": "PIL", "av": "av"}
    return [name for name, module in modules.items() if importlib.util.find_spec(module) is None]


_FACTS: dict[str, tuple[tuple[type, ...], float]] = {
    **dict.fromkeys(("width", "height", "frames"), ((int,), 2**31)),
    "duration": ((int, float), 1e9),
}
"""What the process may say that it saw: types, and a bound."""


class Decoder:
    """Decodes files in a process of its own: what a hostile file does to the decoder, it does there.

    The process starts at the first file that something here can decode, serves one file after the other, and
    is replaced when it breaks. It has an empty environment, no descriptor but its socket and the file, and
    limits of memory and time; see `decoding`. As a context manager; any thread may ask.

    :param memory: bytes that it may take, default the setting `[media_tasks] decoder_memory`.
    """

    def __init__(self, memory: int | None = None) -> None:
        self._memory = memory or conf.getint("media_tasks", "decoder_memory", fallback=MEMORY)
        self._lock = threading.Lock()
        self._child: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._child[0].pid if self._child else None

    def check(self, path: Path, media_type: MediaType, kind: str, name: str) -> dict[str, Any]:
        """Decodes the file at *path*: a picture as a whole, of sound and video the beginning and the end.

        :param kind: as of `MediaFile`.
        :param name: what errors call the file.
        :return: what that showed: `width` and `height` (px), `duration` (s); and where nobody can say whether
            the file is whole `checked`, a text that begins with "not checked" and says why.
        :raises MediaProviderError: if data are missing or broken, or a video does not move.
        """
        is_picture = IMAGE in media_type.kinds
        library, module = ("pillow", "PIL") if is_picture else ("av", "av")
        if not media_type.decoder:
            return {"checked": f"not checked: nothing here decodes {media_type.content_type}"}
        if importlib.util.find_spec(module) is None:
            return {"checked": f"not checked: {library} is not installed"}
        wanted = media_type.kinds[0] if len(media_type.kinds) == 1 else _KINDS.get(kind)
        with path.open("rb") as file, self._lock:
            answer = self._ask(file, {"form": media_type.decoder, "wanted": wanted})
        if "damaged" in answer:
            raise MediaProviderError(
                f"{name} does not decode as {media_type.content_type}: {_words_of(answer['damaged'])}",
                code="does_not_decode",
            )
        facts = _facts_of(answer.get("facts"))
        if "unchecked" in answer:
            facts["checked"] = f"not checked: {_words_of(answer['unchecked'])}"
        elif is_picture and _KINDS.get(kind) == VIDEO and facts.get("frames", 1) < 2:
            raise MediaProviderError(
                f"{name} claims to be {kind} and is {media_type.content_type} that does not move",
                code="wrong_type",
            )
        facts.pop("frames", None)
        return facts

    def _ask(self, file: BinaryIO, question: dict[str, Any]) -> dict[str, Any]:
        """The process's answer; what breaks it is an answer, too."""
        try:
            if self._child is None:
                self._child = self._start()
            connection = self._child[1]
            socket.send_fds(connection, [json.dumps(question).encode()], [file.fileno()])
            answer = json.loads(_line_from(connection))
            if not isinstance(answer, dict):
                raise ValueError("it said something else")
        except (OSError, ValueError, RecursionError) as error:
            code = self._end()
            if isinstance(error, TimeoutError):
                return {"unchecked": f"takes longer than {_WALL_SECONDS:.0f} s"}
            if code == -signal.SIGXCPU:
                return {"unchecked": f"takes more than {_CPU_SECONDS} s of CPU"}
            return {"unchecked": f"the decoder broke ({error}; it ended with {code})"}
        except BaseException:
            # Its answer would be taken for that to the next question.
            self._end()
            raise
        if "unchecked" in answer:
            # A library that ran short of memory, or met what it does not know, may not be as it was.
            self._end()
        return answer

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        # The libraries alone: no folder of anybody's own modules, and nothing that these begin with.
        specs = [importlib.util.find_spec(module) for module in ("PIL", "av")]
        folders = [str(Path(spec.origin).parent.parent) for spec in specs if spec and spec.origin]
        limits = {"path": [*dict.fromkeys(folders)], "memory": self._memory, "cpu": _CPU_SECONDS}
        ours, its = socket.socketpair()
        with its:
            try:
                process = subprocess.Popen(  # noqa: S603  # Python, and what is ours
                    [sys.executable, "-I", "-S", str(_CHILD), json.dumps(limits)],
                    stdin=its.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={},
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        return process, ours

    def _end(self) -> int | None:
        """Ends the process, if there is one.

        :return: its exit code.
        """
        if self._child is None:
            return None
        (process, connection), self._child = self._child, None
        connection.close()
        try:
            # It ends by itself at the end of its socket, or is about to.
            return process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _line_from(connection: socket.socket) -> bytes:
    until = time.monotonic() + _WALL_SECONDS
    line = b""
    while not line.endswith(b"\n"):
        connection.settimeout(max(until - time.monotonic(), 0.001))
        got = connection.recv(_ANSWER)
        if not got or len(line) > _ANSWER:
            raise ConnectionError("it said nothing that ends")
        line += got
    return line


def _facts_of(said: Any) -> dict[str, Any]:
    """What the process says it saw, if it is what it is to say: a hostile file may have taken it over."""
    facts: dict[str, Any] = {}
    for name, value in said.items() if isinstance(said, dict) else ():
        kinds, most = _FACTS.get(name, ((), 0))
        if type(value) in kinds and 0 < value < most:
            facts[name] = value
    return facts


def _words_of(said: Any) -> str:
    return "".join(character if character.isprintable() else "?" for character in str(said)[:200])


def check_decodes(path: Path, media_type: MediaType, kind: str, name: str) -> dict[str, Any]:
    """As `Decoder.check`, in a process for this file alone."""
    with Decoder() as decoder:
        return decoder.check(path, media_type, kind, name)
