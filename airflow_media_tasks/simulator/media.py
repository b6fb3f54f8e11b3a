"""Real media files: a PNG that shows the prompt, an MP4 that slowly moves over it, an audible WAV or MP3.

A file is made on the first GET and kept in the simulator's temporary directory, so that ten thousand tasks
whose files nobody fetches cost nothing. What costs CPU is drawn or encoded once for each size: the landscape,
whose colours are a palette of each prompt's own; a film's movement, which goes over whatever its first frame
shows; the sound. Each file names itself in its metadata, so no two have the same bytes.
"""

from __future__ import annotations

import colorsys
import io
import math
import struct
import threading
import wave
import zlib
from array import array
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from random import Random
from typing import Any, Literal

import av
from av.codec.context import Flags
from av.video.frame import PictureType
from PIL import Image, ImageDraw, ImageFont, ImageOps


_IMAGE_SIDE = 1024  # px; Kling refuses images with a side below 300 px, and 1024 at 21:9 is 438
_VIDEO_SIDE = 640  # px
_VIDEO_SECONDS = 2
_FRAMES_PER_SECOND = 20
_FRAMES_PER_PIXEL = 2  # by which a film moves down
_AUDIO_SECONDS = 1.5
_SAMPLE_RATE = 22050
_LINES = 6  # of a prompt are drawn
_BRIGHTEST = 255
_SIGNATURE, _HEADER_BYTES = b"\x89PNG\r\n\x1a\n", 25

CONTENT_TYPES = {"png": "image/png", "mp4": "video/mp4", "wav": "audio/wav", "mp3": "audio/mpeg"}

Kind = Literal["image", "video", "audio"]
_Size = tuple[int, int]

_one_at_a_time = threading.Lock()  # the encoders are shared


@dataclass(frozen=True)
class Scene:
    """What a file shows.

    :param prompt: the text that is drawn, and that decides on the colours.
    :param caption: the small line below it: provider, operation and id.
    :param aspect_ratio: `width:height`.
    :param source: an image that is shown instead of all that, as the bytes of an image file.
    """

    prompt: str
    caption: str
    aspect_ratio: str = "16:9"
    source: bytes | None = None


def size_of(kind: Kind, aspect_ratio: str) -> _Size:
    """Width and height (px, even) of an image or a video with this aspect ratio (`16:9`)."""
    width, height = (float(part) for part in aspect_ratio.split(":"))
    side = _VIDEO_SIDE if kind == "video" else _IMAGE_SIDE
    scale = side / max(width, height)
    return round(width * scale / 2) * 2, round(height * scale / 2) * 2


def render(scene: Scene, path: Path) -> None:
    """Write *scene* to *path*; its suffix (`.png`, `.mp4`, `.wav`, `.mp3`) says what becomes of it.

    The file carries its own name as a comment.
    """
    with _one_at_a_time:
        if path.suffix == ".png":
            path.write_bytes(_png(scene, size_of("image", scene.aspect_ratio), path.name))
        elif path.suffix == ".mp4":
            _film(size_of("video", scene.aspect_ratio)).write(scene, path)
        else:
            _sound(path.suffix[1:]).write(path)


# Pictures.


def _fitted(source: bytes, size: _Size) -> Image.Image:
    with Image.open(io.BytesIO(source)) as image:
        return ImageOps.fit(image.convert("RGB"), size)


def _png(scene: Scene, size: _Size, comment: str) -> bytes:
    text = b"Comment\0" + comment.encode()
    if scene.source is not None:
        file = io.BytesIO()
        _fitted(scene.source, size).save(file, format="PNG", compress_level=1)
        plain = file.getvalue()
        end = len(_SIGNATURE) + _HEADER_BYTES
        return plain[:end] + _chunk(b"tEXt", text) + plain[end:]
    card = _card(scene, size)
    above, compressor = _sky(size)
    below = compressor.copy()
    pixels = above + below.compress(_rows(card, size[1] // 2, size[1])) + below.flush()
    header = struct.pack(">IIBBBBB", *size, 8, 3, 0, 0, 0)  # 8 bits, each an index into the palette
    parts = ((b"IHDR", header), (b"PLTE", _palette(scene.prompt)), (b"tEXt", text), (b"IDAT", pixels))
    return _SIGNATURE + b"".join(_chunk(*part) for part in parts) + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _rows(card: Image.Image, top: int, bottom: int) -> bytes:
    """Rows of pixels as PNG has them: each begins with the number of its filter, here none."""
    rows = Image.new("L", (card.width + 1, bottom - top))
    rows.paste(card.crop((0, top, card.width, bottom)), (1, 0))
    return rows.tobytes()


@cache
def _sky(size: _Size) -> tuple[bytes, Any]:
    """The upper half of all pictures, compressed, and the compressor, which goes on from there."""
    compressor = zlib.compressobj(1)
    return compressor.compress(_rows(_landscape(size), 0, size[1] // 2)), compressor


def _card(scene: Scene, size: _Size) -> Image.Image:
    card = _landscape(size).copy()
    _write_on(card, scene)
    return card


def _write_on(card: Image.Image, scene: Scene) -> None:
    """Put the prompt, as large as fits in three lines, and the caption at the bottom."""
    width, height = card.size
    margin = min(card.size) // 16
    small = max(13, min(card.size) // 38)
    for font_size in range(min(card.size) // 13, 15, -2):
        font = _font(font_size)
        lines = _wrapped(scene.prompt, font, width - 2 * margin)
        if len(lines) <= 3:
            break
    draw = ImageDraw.Draw(card)
    low = height - margin - round(1.8 * small)
    text = "\n".join(lines[:_LINES])
    draw.multiline_text((margin, low), text, _BRIGHTEST, font, "ld", spacing=font_size // 4)
    draw.text((margin, height - margin), scene.caption, 235, _font(small), "ls")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The beginning of *text* in lines of this width (px), one more than are drawn if it has more."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        elif len(lines) > _LINES:
            break
        else:
            lines.append(word)
    return lines


# What brightness stands for: five hills, the nearest first; the sky, from its top down; above, the sun.
_HILLS = (12, 40, 68, 96, 124)
_ZENITH, _HORIZON = 140, 205


def _palette(prompt: str) -> bytes:
    """256 colours for a landscape, each red, green and blue, in hues of the prompt's own."""
    chance = Random(prompt)  # noqa: S311  # colours that are always the same, not a secret
    hue, is_night = chance.random(), chance.random() < 0.3
    stops = {0: (0.0, 0.0, 0.0), _BRIGHTEST: (1.0, 0.99, 0.93)}
    for depth, hill in enumerate(_HILLS):
        far = depth / (len(_HILLS) - 1)
        stops[hill] = _rgb(hue + 0.1 * far, 0.75 - 0.4 * far, 0.1 + (0.35 if is_night else 0.6) * far)
    stops[_ZENITH] = _rgb(hue, 0.75, 0.25) if is_night else _rgb(hue, 0.6, 0.75)
    stops[_HORIZON] = _rgb(hue + 0.1, 0.5, 0.5) if is_night else _rgb(hue + 0.14, 0.4, 1.0)
    places = sorted(stops)
    colours: list[int] = []
    for low, high in pairwise(places):
        for step in range(high - low + (high == _BRIGHTEST)):
            part = step / (high - low)
            pairs = zip(stops[low], stops[high], strict=True)
            colours += [round(255 * (one + (other - one) * part)) for one, other in pairs]
    return bytes(colours)


def _rgb(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(hue % 1, saturation, value)


@cache
def _landscape(size: _Size) -> Image.Image:
    """Hills under a low sun, in the brightnesses that a palette colours."""
    # Drawn twice as large: Pillow's own edges have steps.
    width, height = size[0] * 2, size[1] * 2
    chance = Random(12)  # noqa: S311  # a view that is always the same, not a secret
    sky = Image.linear_gradient("L").point(
        [_ZENITH + (_HORIZON - _ZENITH) * row // 255 for row in range(256)]
    )
    image = sky.resize((width, height))
    x, y, disc = width * 0.68, height * 0.36, min(width, height) * 0.09
    for ring in range(7, -1, -1):
        radius = disc * (1 + 0.35 * ring)
        shine = Image.new("L", image.size)
        box = (x - radius, y - radius, x + radius, y + radius)
        ImageDraw.Draw(shine).ellipse(box, fill=30 if ring else 255)
        image.paste(_BRIGHTEST, mask=shine)
    draw = ImageDraw.Draw(image)
    for depth, hill in enumerate(reversed(_HILLS)):
        top = height * (0.5 + 0.3 * depth / (len(_HILLS) - 1))
        waves = [
            (
                chance.uniform(0.5, 1) * height * 0.11 / number,
                number * chance.uniform(0.6, 1.4),
                chance.random(),
            )
            for number in (1, 2, 5)
        ]
        ridge = [
            (
                x,
                top
                - sum(
                    tall * math.sin(2 * math.pi * (turns * x / width + turn)) for tall, turns, turn in waves
                ),
            )
            for x in range(0, width + 8, 8)
        ]
        draw.polygon([(0, height), *ridge, (width, height)], fill=hill)
    return image.resize(size, Image.Resampling.BOX)


# Films and sounds.


@dataclass(frozen=True)
class _Recording:
    """Something encoded once, of which every file is a copy.

    :param stream: how it is encoded, as the stream of an open container.
    :param packets: the encoded frames, with the beginning and the length of each.
    :param unit: of these times, in seconds.
    :param form: the container's format of each copy.
    """

    stream: Any
    packets: tuple[tuple[bytes, int, int], ...]
    unit: Fraction
    form: str

    def write(self, path: Path, first: bytes | None = None) -> None:
        """Write a copy that carries its file name, perhaps with another *first* packet."""
        options = {"movflags": "+faststart"} if self.form == "mp4" else {}
        with av.open(str(path), "w", format=self.form, options=options) as container:
            container.metadata["comment"] = path.name
            stream = container.add_stream_from_template(self.stream)
            for number, (content, begins, lasts) in enumerate(self.packets):
                packet = av.Packet(first if first and not number else content)
                packet.stream, packet.time_base = stream, self.unit
                packet.pts, packet.dts, packet.duration = begins, begins, lasts
                packet.is_keyframe = not number or self.form != "mp4"
                container.mux(packet)


class _Film:
    """Films of one size: a still as the first frame, then a movement, which is the same for all.

    The movement is that of noise which sinks: encoded, its frames hold nothing but which way everything has
    gone, and a decoder applies that to whatever it has decoded before.
    """

    def __init__(self, size: _Size) -> None:
        noise = Image.frombytes("L", size, Random(1).randbytes(size[0] * size[1]))  # noqa: S311  # no secret
        encoder = _encoder(size)
        packets = []
        for number in range(_VIDEO_SECONDS * _FRAMES_PER_SECOND):
            frame = _frame(_sunk(noise, number // _FRAMES_PER_PIXEL))
            frame.pts = number
            packets += encoder.encode(frame)
        packets += encoder.encode(None)
        raw = io.BytesIO(b"".join(map(bytes, [encoder.extradata, *packets])))
        self._recording = _Recording(
            av.open(raw, format="h264").streams.video[0],
            tuple((bytes(packet), number, 1) for number, packet in enumerate(packets)),
            Fraction(1, _FRAMES_PER_SECOND),
            "mp4",
        )
        self._size, self._stills, self._number = size, _encoder(size), count()

    def write(self, scene: Scene, path: Path) -> None:
        """Write a film that begins with this scene."""
        frame = self._still(scene)
        frame.pts, frame.pict_type = next(self._number), PictureType.I
        (packet,) = self._stills.encode(frame)
        self._recording.write(path, bytes(packet))

    def _still(self, scene: Scene) -> Any:
        if scene.source is not None:
            return _frame(_fitted(scene.source, self._size))
        card = _card(scene, self._size)
        frame = av.VideoFrame(*self._size, "yuv420p")
        palette = Image.frombytes("RGB", (256, 1), _palette(scene.prompt)).convert("YCbCr")
        # Films have brightness from 16 to 235, and colours of half the size from 16 to 240.
        for plane, part, image, span in zip(
            frame.planes, palette.split(), (card, *[card.reduce(2)] * 2), (219, 224, 224), strict=True
        ):
            coloured = image.point([16 + value * span // 255 for value in part.tobytes()])
            padded = coloured.crop((0, 0, plane.line_size, plane.height))
            plane.update(padded.tobytes())
        return frame


_film = cache(_Film)


def _sunk(image: Image.Image, pixels: int) -> Image.Image:
    """*image* lower by so many pixels; above it, its first row again and again, as a decoder has it."""
    sunk = image.crop((0, 0, image.width, 1)).resize(image.size)
    sunk.paste(image, (0, pixels))
    return sunk


def _frame(image: Image.Image) -> Any:
    frame: Any = av.VideoFrame.from_image(image.convert("RGB"))  # type: ignore[no-untyped-call]  # av's gap
    return frame.reformat(format="yuv420p")


def _encoder(size: _Size) -> Any:
    """An H.264 encoder of which each I frame can begin a film."""
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height = size
    encoder.pix_fmt = "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, _FRAMES_PER_SECOND), Fraction(_FRAMES_PER_SECOND)
    encoder.thread_count = 1
    encoder.flags |= Flags.global_header
    encoder.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "qp": "22",  # fixed: a still looks the same whatever was encoded before it
        "g": "1000",
        "forced-idr": "1",
    }
    encoder.open()
    return encoder


@cache
def _sound(form: str) -> _Recording:
    """A chord, as WAV or MP3."""
    encoded = io.BytesIO()
    (_encode_wav if form == "wav" else _encode_mp3)(encoded)
    encoded.seek(0)
    container = av.open(encoded, "r")
    stream = container.streams.audio[0]
    packets = [packet for packet in container.demux(stream) if packet.size]
    return _Recording(
        stream,
        tuple((bytes(packet), packet.pts or 0, packet.duration or 0) for packet in packets),
        stream.time_base or Fraction(1, _SAMPLE_RATE),
        form,
    )


def _samples() -> array[int]:
    """Three notes that fade out, as signed 16-bit samples."""
    total = round(_AUDIO_SECONDS * _SAMPLE_RATE)
    steps = [2 * math.pi * note / _SAMPLE_RATE for note in (262, 330, 392)]
    return array(
        "h",
        (
            round(9000 * (1 - number / total) * sum(math.sin(step * number) for step in steps))
            for number in range(total)
        ),
    )


def _encode_wav(file: io.BytesIO) -> None:
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(_SAMPLE_RATE)
        sound.writeframes(_samples().tobytes())


def _encode_mp3(file: io.BytesIO) -> None:
    samples = _samples()
    with av.open(file, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=_SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame(format="s16", layout="mono", samples=len(samples))
        frame.planes[0].update(samples.tobytes().ljust(frame.planes[0].buffer_size, b"\0"))
        frame.sample_rate = _SAMPLE_RATE
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=_SAMPLE_RATE)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode())
