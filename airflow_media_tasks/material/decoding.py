"""Decodes media files in a process of its own, for `verification.Decoder`, which starts it and asks it.

The files are hostile: what they make a library do is to end here. So this is run by its path, knows neither
Airflow nor this package, and has an empty environment, limits of its own and one descriptor: a socket as its
standard input. Each question there is a line of JSON that comes along with the open file. The answer is a
line of JSON with what was seen (`facts`) and, where it did not decode, why: `damaged` is the decoder's word
that data are missing or broken, `unchecked` anything else. At the end of the socket it ends.
"""

from __future__ import annotations

import importlib
import io
import json
import re
import resource
import socket
import struct
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any, BinaryIO


Facts = dict[str, Any]

_CODECS = (
    *("h264", "hevc", "av1", "libdav1d", "vp8", "libvpx", "vp9", "libvpx-vp9", "mpeg4", "prores", "theora"),
    *("aac", "mp3", "mp3float", "opus", "libopus", "vorbis", "libvorbis", "flac", "alac", "ac3", "eac3"),
    *("pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"),
    *("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_mulaw", "pcm_alaw"),
)
"""libav's names of the decoders that may run."""

_PLUGINS = {
    "AVIF": "AvifImagePlugin",
    "BMP": "BmpImagePlugin",
    "GIF": "GifImagePlugin",
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "TIFF": "TiffImagePlugin",
    "WEBP": "WebPImagePlugin",
}
_BYTES_PER_PIXEL = {"AVIF": 16, "BMP": 8, "GIF": 12, "JPEG": 8, "PNG": 8, "TIFF": 8, "WEBP": 16}
_BYTES_PER_PIXEL_OF_FILM = 32
"""What decoding may take at most, where a file asks for nothing odd."""

_DAMAGE = re.compile(
    r"truncate|broken|corrupt|incomplete|missing|malformed|invalid|overrun|not enough|only got|unrecognized"
    r"|cannot (parse|load)|no more images|fail|could not create|buffer|decoding error"
    r"|(^|decoder error )-[12]$",
    re.IGNORECASE,
)
"""Pillow says in words alone whether data are wanting or it does not know how to read them."""

_OUT_OF_MEMORY = re.compile(r"out of memory|(^|decoder error )-9$", re.IGNORECASE)

_PLACEHOLDER = 1_900_000_000
"""A writer that does not know the length yet writes 0xFFFFFFFF, 0x7FFFFFFF, 2000000000 and the like."""
_SLACK = 128
"""Bytes by which careless writers are wrong about the length; less sound than one hears."""
_GUESSED = ("mp3", "aac")
"""Formats whose duration libav infers from the first frames."""
_ATTACHED_PICTURE = 0x400
"""libav's AV_DISPOSITION_ATTACHED_PIC."""


class _Damaged(Exception):
    """The decoder's word that data are missing or broken."""


class _Unchecked(Exception):
    """Why nobody can say whether they are."""


def serve(limits: Mapping[str, Any]) -> None:
    """Answers questions until there are no more.

    :param limits: `path` (folders of the libraries), `memory` (bytes of data), `cpu` (seconds for each file).
    """
    sys.path += limits["path"]
    for what, most in (
        (resource.RLIMIT_DATA, limits["memory"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 32),
    ):
        _limit(what, most)
        resource.setrlimit(what, (resource.getrlimit(what)[0],) * 2)
    with socket.socket(fileno=0) as worker:
        while True:
            question, descriptors, _, _ = socket.recv_fds(worker, 4096, 1)
            if not descriptors:
                return
            spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
            _limit(resource.RLIMIT_CPU, int(spent + limits["cpu"]) + 1)
            with open(descriptors[0], "rb") as file:  # noqa: PTH123  # it has no path
                answer = _answer(file, json.loads(question), limits["memory"], limits["cpu"])
            worker.sendall(json.dumps(answer).encode() + b"\n")


def _limit(what: int, most: int) -> None:
    """To *most*, or to what somebody has set already, if that is less."""
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _answer(file: BinaryIO, question: Mapping[str, Any], memory: int, cpu: float) -> dict[str, Any]:
    facts: Facts = {}
    form = question["form"]
    try:
        if form in _PLUGINS:
            _picture(file, form, memory, facts, time.process_time() + cpu / 2)
        else:
            _streams(file, form, question["wanted"], facts)
    except _Damaged as error:
        needs = (
            facts.get("width", 0)
            * facts.get("height", 0)
            * _BYTES_PER_PIXEL.get(form, _BYTES_PER_PIXEL_OF_FILM)
        )
        if needs > memory and "truncated" not in str(error):
            # Many a library calls it broken when it gets no memory.
            return {"facts": facts, "unchecked": f"may need more than {memory >> 20} MiB"}
        return {"facts": facts, "damaged": str(error)[:200]}
    except _Unchecked as error:
        return {"facts": facts, "unchecked": str(error)[:200]}
    except MemoryError:
        return {"facts": facts, "unchecked": f"needs more than {memory >> 20} MiB"}
    except Exception as error:  # noqa: BLE001  # Pillow and PyAV raise many kinds; these say no damage
        return {"facts": facts, "unchecked": (str(error) or type(error).__name__)[:200]}
    return {"facts": facts}


# Pictures, by Pillow.


def _picture(file: BinaryIO, form: str, memory: int, facts: Facts, until: float) -> None:
    from PIL import Image, PngImagePlugin  # noqa: PLC0415  # only where a picture comes

    # Pillow's own caution; here it is the limits of the process that protect.
    Image.MAX_IMAGE_PIXELS = None
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = memory
    warnings.simplefilter("ignore")
    plugin: Any
    try:
        plugin = importlib.import_module(f"PIL.{_PLUGINS[form]}")
    except ImportError:
        plugin = None
    if plugin is None or not getattr(plugin, "SUPPORTED", True):
        raise _Unchecked(f"this Pillow has no decoder for {form}")
    if form == "AVIF":
        plugin.DEFAULT_MAX_THREADS = 1
    try:
        # Unlike `Image.open` it says what is wrong.
        with Image.OPEN[form][0](file, "") as image:
            facts |= {"width": image.width, "height": image.height, "frames": 1}
            _unpack(image, form, memory, facts, until)
    except _Unchecked:
        raise
    except MemoryError:
        if form != "PNG":
            raise
        _verify_png(Image, file)
        raise _Unchecked(f"needs more than {memory >> 20} MiB; its checksums are right") from None
    except Exception as error:
        words = str(error) or type(error).__name__
        if _OUT_OF_MEMORY.search(words):
            raise MemoryError from error
        if isinstance(error, (EOFError, struct.error, IndexError)) or _DAMAGE.search(words):
            raise _Damaged(words) from error
        raise


def _unpack(image: Any, form: str, memory: int, facts: Facts, until: float) -> None:
    """Decodes *image* as a whole, and each of its frames if it moves."""
    if form == "JPEG":
        # An eighth of each side: the data are read to their end, and little is unpacked.
        image.draft("RGB", (max(image.width // 8, 1), max(image.height // 8, 1)))
    elif image.width * image.height * len(image.getbands()) > memory:
        raise MemoryError
    image.load()
    if form not in ("AVIF", "GIF", "PNG", "WEBP"):
        return
    # A picture beside the film, as APNG may have, is none of its frames.
    facts["frames"] = frames = getattr(image, "n_frames", 1) - bool(getattr(image, "default_image", False))
    for number in range(1, getattr(image, "n_frames", 1)):
        if time.process_time() > until:
            raise _Unchecked(f"{frames} frames take too long to decode")
        image.seek(number)
        image.load()


def _verify_png(library: Any, file: BinaryIO) -> None:
    """By its checksums, chunk for chunk, which takes little memory."""
    file.seek(0)
    try:
        with library.OPEN["PNG"][0](file, "") as image:
            image.verify()
    except (SyntaxError, OSError, EOFError, struct.error) as error:
        raise _Damaged(f"{error} (truncated or changed)") from error


# Sound and video, by PyAV.


def _streams(file: BinaryIO, form: str, wanted: str | None, facts: Facts) -> None:
    import av  # noqa: PLC0415  # only where sound or video comes

    missing = _missing_bytes(file, form)
    if missing > 0:
        raise _Damaged(f"its end is missing: {missing} bytes or more")
    file.seek(0)
    options = {"codec_whitelist": ",".join(_CODECS)}
    try:
        # A file object and a format: no playlist in disguise makes libav open anything else.
        with av.open(file, format=form, container_options=options, metadata_errors="replace") as media:
            stream = _begin(media, wanted, facts)
            if media.duration:
                facts["duration"] = round(media.duration / av.time_base, 3)
                if form not in _GUESSED:
                    # Of WAV the length is known already, as far as it may be believed.
                    _end(media, stream, may_stop_short=form == "wav")
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        raise _Damaged(error.strerror or str(error)) from error


def _begin(media: Any, wanted: str | None, facts: Facts) -> Any:
    """Decodes the first frame of what is wanted, and returns its stream."""
    videos = [] if wanted == "audio" else [one for one in media.streams.video if not _is_cover(one)]
    sounds = [] if wanted == "video" else [*media.streams.audio]
    stream = next(iter([*videos, *sounds]), None)
    if stream is None:
        raise _Damaged(f"there is no {wanted or 'sound or picture'} in it")
    codec = stream.codec_context.name if stream.codec_context else "its codec"
    if codec not in _CODECS:
        raise _Unchecked(f"{codec} is none of the codecs that are decoded")
    stream.codec_context.thread_count = 1
    if stream.type == "video":
        facts |= {"width": stream.width, "height": stream.height}
    if next(iter(media.decode(stream)), None) is None:
        raise _Damaged("there is not one frame in it")
    return stream


def _is_cover(stream: Any) -> bool:
    """Whether it is a picture that goes along with a song."""
    disposition = getattr(stream, "disposition", None)
    return bool(getattr(disposition, "value", 0) & _ATTACHED_PICTURE)


def _end(media: Any, stream: Any, *, may_stop_short: bool) -> None:
    """Reads from the last picture that stands for itself to the end."""
    media.seek(int(media.duration * 0.98))
    frames = 0
    for packet in media.demux(stream):
        if packet.is_corrupt and not may_stop_short:
            raise _Damaged("its end is missing")
        frames = frames or len(packet.decode())
    if not frames:
        raise _Damaged("its end is missing")


# How long the containers say that they are. Each function answers by how many bytes that is more than there
# are: 0 or less where nothing is missing, or where the container does not say.


def _missing_bytes(file: BinaryIO, form: str) -> int:
    says = {
        "wav": _wav,
        "avi": _avi,
        "mp4": _mp4,
        "mov": _mp4,
        "matroska": _matroska,
        "ogg": _ogg,
        "mp3": _mp3,
    }.get(form)
    return says(file, file.seek(0, io.SEEK_END)) if says else 0


def _read_at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _wav(file: BinaryIO, size: int) -> int:
    at = 12
    while len(head := _read_at(file, at, 8)) == 8:
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            return 0 if length >= _PLACEHOLDER else at + 8 + length - size - _SLACK
        at += 8 + length + length % 2
    return 0


def _avi(file: BinaryIO, size: int) -> int:
    length = int.from_bytes(_read_at(file, 4, 4), "little")
    return 0 if length >= _PLACEHOLDER else 8 + length - size - _SLACK


def _mp4(file: BinaryIO, size: int) -> int:
    at = 0
    while len(head := _read_at(file, at, 16)) >= 8:
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        if length < 8 or (head[4:8] not in (b"mdat", b"moov", b"moof") and at + length > size):
            # To the end of the file, whatever that is; or there is no box any more.
            return 0
        at += length
    return at - size


def _matroska(file: BinaryIO, size: int) -> int:
    at = 4
    for number in range(2):
        head = _read_at(file, at, 8)
        if not head or not head[0]:
            return 0
        width = 9 - head[0].bit_length()
        length = int.from_bytes(head[:width], "big") - (1 << 7 * width)
        if length == (1 << 7 * width) - 1:
            return 0
        at += width + length
        if number == 0:
            if _read_at(file, at, 4) != b"\x18\x53\x80\x67":
                return 0
            at += 4
    return at - size


def _ogg(file: BinaryIO, size: int) -> int:
    # A page has at most 65,307 bytes.
    start = max(size - 65_536, 0)
    tail = _read_at(file, start, 65_536)
    page = tail.rfind(b"OggS")
    if page < 0:
        return 0
    head = tail[page : page + 27]
    if len(head) < 27:
        return 27 - len(head)
    lengths = tail[page + 27 : page + 27 + head[26]]
    return 27 + head[26] + sum(lengths) - (len(tail) - page)


def _mp3(file: BinaryIO, size: int) -> int:
    begin, head = 0, _read_at(file, 0, 10)
    if head[:3] == b"ID3" and len(head) == 10:
        begin = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    frame = _read_at(file, begin, 256)
    tag = max(frame.find(b"Xing"), frame.find(b"Info"))
    if tag < 0 or len(frame) < tag + 16:
        return 0
    flags = int.from_bytes(frame[tag + 4 : tag + 8], "big")
    if not flags & 2:
        return 0
    field = tag + 8 + 4 * (flags & 1)
    length = int.from_bytes(frame[field : field + 4], "big")
    # What belongs to it is counted in more than one way.
    return 0 if length >= _PLACEHOLDER else begin + length - size - max(length // 50, 2048)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
