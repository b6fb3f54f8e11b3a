"""What a file is, by its bytes, and whether it decodes as that.

Types are told by puremagic; pictures are decoded by Pillow and sound and video by PyAV, where they are
installed (the extra `landing`).
"""

from __future__ import annotations

import importlib.util
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import puremagic

from airflow_media_tasks.task import MediaProviderError, shown


_HEAD = 8192
"""Bytes by which a type is told."""
_PIXELS_DECODED = 24_000_000
"""Pictures of more pixels are not unpacked as a whole, which would take three or four bytes for each."""

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


_SOUND_OF_MP4 = MediaType("audio/mp4", ".m4a", (AUDIO,), "mp4")
_MP4 = MediaType("video/mp4", ".mp4", (VIDEO, AUDIO), "mp4")
_WAV = MediaType("audio/wav", ".wav", (AUDIO,), "wav")
_OGG = MediaType("audio/ogg", ".ogg", (AUDIO, VIDEO), "ogg")
_MKV = MediaType("video/x-matroska", ".mkv", (VIDEO, AUDIO), "matroska")
_AVI = MediaType("video/x-msvideo", ".avi", (VIDEO,), "avi")
_BMP = MediaType("image/bmp", ".bmp", (IMAGE,), "BMP")
_UNKNOWN = MediaType("application/octet-stream", ".bin", ())

_TYPES = {
    "image/png": MediaType("image/png", ".png", (IMAGE,), "PNG"),
    "image/jpeg": MediaType("image/jpeg", ".jpg", (IMAGE,), "JPEG"),
    "image/webp": MediaType("image/webp", ".webp", (IMAGE,), "WEBP"),
    "image/gif": MediaType("image/gif", ".gif", (IMAGE,), "GIF"),
    "image/tiff": MediaType("image/tiff", ".tiff", (IMAGE,), "TIFF"),
    "image/bmp": _BMP,
    "image/x-ms-bmp": _BMP,
    "image/avif": MediaType("image/avif", ".avif", (IMAGE,)),
    "image/heic": MediaType("image/heic", ".heic", (IMAGE,)),
    "image/svg+xml": MediaType("image/svg+xml", ".svg", (IMAGE,)),
    "video/mp4": _MP4,
    "audio/mp4": _MP4,
    "video/quicktime": MediaType("video/quicktime", ".mov", (VIDEO, AUDIO), "mov"),
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
}


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


_ONE_AT_A_TIME = threading.Lock()
"""Unpacked pictures and frames are large."""


def check_decodes(path: Path, media_type: MediaType, kind: str, name: str) -> dict[str, Any]:
    """Decodes the file at *path*: a picture as a whole, of sound and video the beginning and the end.

    :return: what that showed: `width` and `height` (px), `duration` (s); empty where nothing can decode it.
    :raises MediaProviderError: if it does not decode.
    """
    if not media_type.decoder:
        return {}
    try:
        with _ONE_AT_A_TIME:
            if IMAGE in media_type.kinds:
                return _decode_picture(path, media_type.decoder)
            return _decode_streams(path, media_type, kind)
    except _DoesNotDecode as error:
        raise MediaProviderError(
            f"{name} does not decode as {media_type.content_type}: {error}", code="does_not_decode"
        ) from error


class _DoesNotDecode(Exception):
    """The words of the decoder."""


def _decode_picture(path: Path, decoder: str) -> dict[str, Any]:
    try:
        from PIL import Image  # noqa: PLC0415  # of the extra `landing`
    except ImportError:
        return {}
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 million pixels on, and refuses twice as many; such are not unpacked here.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=(decoder,)) as image:
                width, height = image.size
                if decoder == "JPEG":
                    # An eighth of each side: the data are read to their end, and little is unpacked.
                    image.draft("RGB", (max(width // 8, 1), max(height // 8, 1)))
                if decoder == "JPEG" or width * height <= _PIXELS_DECODED:
                    image.load()
                else:
                    image.verify()
    except Exception as error:
        # Pillow's formats raise many kinds of errors for bytes that make no sense.
        raise _DoesNotDecode(shown(str(error) or type(error).__name__, 200)) from error
    return {"width": width, "height": height}


def _decode_streams(path: Path, media_type: MediaType, kind: str) -> dict[str, Any]:
    try:
        import av  # noqa: PLC0415  # of the extra `landing`
    except ImportError:
        return {}
    try:
        # A file object and a format: no playlist in disguise makes libav open anything else.
        with path.open("rb") as file, av.open(file, format=media_type.decoder) as media:
            return _decode_ends(media, _KINDS.get(kind), av.time_base)
    except UnicodeDecodeError:
        # A title in another encoding, which older PyAV insists on reading, says nothing of the frames.
        return {}
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _DoesNotDecode(shown(getattr(error, "strerror", None) or str(error), 200)) from error


def _decode_ends(media: Any, wanted: str | None, time_base: int) -> dict[str, Any]:
    """Decodes the first frame, and reads from the last picture that stands for itself to the end."""
    facts: dict[str, Any] = {}
    videos = () if wanted == AUDIO else media.streams.video
    stream = next(iter([*videos, *(() if wanted == VIDEO else media.streams.audio)]), None)
    if stream is None:
        raise _DoesNotDecode(f"there is no {wanted or 'sound or picture'} in it")
    if next(iter(media.decode(stream)), None) is None:
        raise _DoesNotDecode("there is not one frame in it")
    if stream.type == "video":
        facts |= {"width": stream.width, "height": stream.height}
    if media.duration:
        facts["duration"] = round(media.duration / time_base, 3)
        media.seek(int(media.duration * 0.98))
        frames = 0
        for packet in media.demux(stream):
            if packet.is_corrupt:
                raise _DoesNotDecode("its end is missing")
            frames = frames or len(packet.decode())
        if not frames:
            raise _DoesNotDecode("its end is missing")
    return facts
