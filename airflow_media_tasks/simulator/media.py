"""Real media files: a PNG that shows the prompt, an MP4 that slowly zooms into it, an audible WAV or MP3.

Everything is made on the first GET and kept in the simulator's temporary directory, so that ten thousand
tasks whose files nobody fetches cost nothing.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
import math
import wave
from array import array
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import av
from PIL import Image, ImageDraw, ImageFont, ImageOps


_IMAGE_SIDE = 1024  # px; Kling refuses images with a side below 300 px, and 1024 at 21:9 is 438
_VIDEO_SIDE = 640  # px
_VIDEO_SECONDS = 2
_FRAMES_PER_SECOND = 20
_AUDIO_SECONDS = 1.5
_SAMPLE_RATE = 22050

CONTENT_TYPES = {"png": "image/png", "mp4": "video/mp4", "wav": "audio/wav", "mp3": "audio/mpeg"}

Kind = Literal["image", "video", "audio"]


@dataclass(frozen=True)
class Scene:
    """What a file shows.

    :param prompt: the text that is drawn, and that decides on the landscape, its colours and the tone.
    :param caption: the small line below it: provider, operation and id.
    :param aspect_ratio: `width:height`.
    :param source: an image that is shown instead of the text, as the bytes of an image file.
    """

    prompt: str
    caption: str
    aspect_ratio: str = "16:9"
    source: bytes | None = None


def size_of(kind: Kind, aspect_ratio: str) -> tuple[int, int]:
    """Width and height (px, even) of an image or a video with this aspect ratio (`16:9`)."""
    width, height = (float(part) for part in aspect_ratio.split(":"))
    side = _VIDEO_SIDE if kind == "video" else _IMAGE_SIDE
    scale = side / max(width, height)
    return round(width * scale / 2) * 2, round(height * scale / 2) * 2


def render(scene: Scene, path: Path) -> None:
    """Write *scene* to *path*; its suffix (`.png`, `.mp4`, `.wav`, `.mp3`) says what becomes of it."""
    if path.suffix == ".png":
        _picture(scene).save(path, format="PNG", compress_level=3)
    elif path.suffix == ".mp4":
        _write_video(scene, path)
    elif path.suffix == ".wav":
        _write_wav(scene, path)
    else:
        _write_mp3(scene, path)


def _picture(scene: Scene) -> Image.Image:
    size = size_of("image", scene.aspect_ratio)
    if scene.source is not None:
        with Image.open(io.BytesIO(scene.source)) as image:
            return ImageOps.fit(image.convert("RGB"), size)
    return _card(scene, size)


def _card(scene: Scene, size: tuple[int, int]) -> Image.Image:
    """Hills under a sun or a moon, as the prompt's hash wants them, with the prompt written below."""
    # Drawn twice as large: Pillow's own edges have steps.
    image = _landscape(scene.prompt, (size[0] * 2, size[1] * 2)).resize(size, Image.Resampling.BOX)
    width, height = size
    margin = min(size) // 16
    small = max(13, min(size) // 38)
    for font_size in range(min(size) // 13, 15, -2):
        font = ImageFont.load_default(font_size)
        text = _wrapped(scene.prompt, font, width - 2 * margin)
        if text.count("\n") < 3:
            break
    draw = ImageDraw.Draw(image, "RGBA")
    low = height - margin - round(1.8 * small)
    draw.multiline_text((margin, low), text, font=font, fill="white", spacing=font_size // 4, anchor="ld")
    draw.text(
        (margin, height - margin), scene.caption, (255, 255, 255, 190), ImageFont.load_default(small), "ls"
    )
    return image


def _landscape(prompt: str, size: tuple[int, int]) -> Image.Image:
    chance = Random(prompt)  # noqa: S311  # a picture that is always the same, not a secret
    width, height = size
    hue, is_night = chance.random(), chance.random() < 0.3
    zenith = _rgb(hue, 0.75, 0.2) if is_night else _rgb(hue, 0.6, 0.75)
    horizon = _rgb(hue + 0.1, 0.5, 0.5) if is_night else _rgb(hue + 0.14, 0.4, 1.0)
    image = ImageOps.colorize(Image.linear_gradient("L").resize(size), zenith, horizon)
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(120 if is_night else 0):
        left, up = chance.randrange(width), chance.randrange(height * 2 // 3)
        tall = chance.choice((1, 1, 2, 3))
        draw.ellipse((left, up, left + 2 * tall, up + 2 * tall), fill=(255, 255, 255, 170))
    x, y = width * chance.uniform(0.15, 0.85), height * chance.uniform(0.15, 0.45)
    disc = min(size) * chance.uniform(0.06, 0.12)
    for ring in range(7, -1, -1):
        radius = disc * (1 + 0.35 * ring)
        shine = (255, 250, 225, 16 if ring else 235)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=shine)
    hills = 5
    for hill in range(hills):
        depth = hill / (hills - 1)
        top = height * (0.5 + 0.3 * depth)
        waves = [
            (
                chance.uniform(0.5, 1.0) * height * 0.11 / number,
                number * chance.uniform(0.6, 1.4),
                chance.uniform(0, 2 * math.pi),
            )
            for number in (1, 2, 5)
        ]
        ridge = [
            (
                x,
                top
                - sum(
                    tall * math.sin(turns * 2 * math.pi * x / width + start) for tall, turns, start in waves
                ),
            )
            for x in range(0, width + 8, 8)
        ]
        colour = _rgb(hue + 0.1 * (1 - depth), 0.35 + 0.4 * depth, 0.62 * (1 - depth) + 0.1)
        draw.polygon([(0, height), *ridge, (width, height)], fill=colour)
    return image


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines[:6])


def _write_video(scene: Scene, path: Path) -> None:
    picture = _picture(scene)
    size = size_of("video", scene.aspect_ratio)
    frames = _VIDEO_SECONDS * _FRAMES_PER_SECOND
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=_FRAMES_PER_SECOND)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "26"}
        for number in range(frames):
            margin = 0.12 * number / frames / 2
            box = (
                picture.width * margin,
                picture.height * margin,
                picture.width * (1 - margin),
                picture.height * (1 - margin),
            )
            still = picture.resize(size, Image.Resampling.BILINEAR, box=box)
            frame = av.VideoFrame.from_image(still)  # type: ignore[no-untyped-call]  # av's gap
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _samples(scene: Scene) -> array[int]:
    """A chord of three notes that fades out, as signed 16-bit samples."""
    note = 220 * 2 ** (hashlib.sha256(scene.prompt.encode()).digest()[0] % 12 / 12)
    total = round(_AUDIO_SECONDS * _SAMPLE_RATE)
    steps = [2 * math.pi * note * interval / _SAMPLE_RATE for interval in (1, 1.25, 1.5)]
    return array(
        "h",
        (
            round(9000 * (1 - number / total) * sum(math.sin(step * number) for step in steps))
            for number in range(total)
        ),
    )


def _write_wav(scene: Scene, path: Path) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(_SAMPLE_RATE)
        sound.writeframes(_samples(scene).tobytes())


def _write_mp3(scene: Scene, path: Path) -> None:
    samples = _samples(scene)
    with av.open(str(path), "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=_SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame(format="s16", layout="mono", samples=len(samples))
        frame.planes[0].update(samples.tobytes().ljust(frame.planes[0].buffer_size, b"\0"))
        frame.sample_rate = _SAMPLE_RATE
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=_SAMPLE_RATE)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode())
