"""What a file is, by its bytes, and whether it decodes as that."""

from __future__ import annotations

import builtins
import io
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from airflow_media_tasks import verification
from airflow_media_tasks.task import MediaProviderError

from .hostile import sound


def picture(form: str) -> bytes:
    """A small picture."""
    stream = io.BytesIO()
    Image.effect_noise((64, 48), 50).convert("RGB").save(stream, form)
    return stream.getvalue()


def film(folder: Path, form: str, codec: str, **options: str) -> bytes:
    """A second of noise."""
    path = folder / f"film.{form}"
    with av.open(str(path), "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=20)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for _ in range(20):
            still = Image.effect_noise((160, 120), 80).convert("RGB")
            container.mux(stream.encode(av.VideoFrame.from_image(still)))
        container.mux(stream.encode())
    return path.read_bytes()


def tone(folder: Path, form: str, codec: str) -> bytes:
    """Half a second of silence."""
    path = folder / f"tone.{form}"
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=48000, layout="mono")
        frame = av.AudioFrame(format="s16", layout="mono", samples=24000)
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        frame.sample_rate = 48000
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=48000)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode())
    return path.read_bytes()


SAMPLES: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "image/png": ("image .png", lambda _: picture("PNG")),
    "image/jpeg": ("image .jpg", lambda _: picture("JPEG")),
    "image/webp": ("image .webp", lambda _: picture("WEBP")),
    "image/gif": ("image .gif", lambda _: picture("GIF")),
    "image/tiff": ("image .tiff", lambda _: picture("TIFF")),
    "image/bmp": ("image .bmp", lambda _: picture("BMP")),
    "video/mp4": ("video .mp4", lambda folder: film(folder, "mp4", "libx264")),
    "video/quicktime": ("video .mov", lambda folder: film(folder, "mov", "libx264")),
    "video/webm": ("video .webm", lambda folder: film(folder, "webm", "libvpx-vp9")),
    "video/x-matroska": ("video .mkv", lambda folder: film(folder, "matroska", "libx264")),
    "video/x-msvideo": ("video .avi", lambda folder: film(folder, "avi", "mpeg4")),
    "audio/mpeg": ("audio .mp3", lambda folder: tone(folder, "mp3", "libmp3lame")),
    "audio/wav": ("audio .wav", lambda _: sound(1, 20_000)),
    "audio/flac": ("audio .flac", lambda folder: tone(folder, "flac", "flac")),
    "audio/ogg": ("audio .ogg", lambda folder: tone(folder, "ogg", "libopus")),
    "audio/aac": ("audio .aac", lambda folder: tone(folder, "adts", "aac")),
    "audio/mp4": ("audio .m4a", lambda folder: tone(folder, "ipod", "aac")),
}


def looked_at(content: bytes, kind: str, folder: Path, content_type: str = "") -> dict[str, Any]:
    """What is found out about a file."""
    path = folder / "file"
    path.write_bytes(content)
    media_type = verification.identify(path, kind, content_type, "it")
    facts = verification.check_decodes(path, media_type, kind, "it")
    return {"content_type": media_type.content_type, "extension": media_type.extension, **facts}


@pytest.mark.parametrize("content_type", SAMPLES)
def test_a_type_is_told_by_the_bytes(content_type: str, tmp_path: Path) -> None:
    """And what it decodes to is said: pixels and seconds."""
    words, make = SAMPLES[content_type]
    kind, extension = words.split()
    found = looked_at(make(tmp_path), kind, tmp_path)
    assert (found.pop("content_type"), found.pop("extension")) == (content_type, extension)
    expected = {"image": {"width", "height"}, "video": {"width", "height", "duration"}, "audio": {"duration"}}
    assert set(found) in (expected[kind], set() if content_type == "audio/aac" else expected[kind])
    assert all(value > 0 for value in found.values())
    assert extension in verification.extensions(kind)
    assert extension in verification.extensions("file")


@pytest.mark.parametrize("content_type", SAMPLES)
@pytest.mark.parametrize("kind", ["image", "video", "audio", "thumbnail"])
def test_another_kind_than_claimed_is_an_error(content_type: str, kind: str, tmp_path: Path) -> None:
    """A picture is no video, a video without sound no music; a container may be either."""
    words, make = SAMPLES[content_type]
    if words.split()[0] == {"thumbnail": "image"}.get(kind, kind):
        return
    content = make(tmp_path)
    with pytest.raises(MediaProviderError, match=r"claims to be|does not decode"):
        looked_at(content, kind, tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            b"<!DOCTYPE html>\n<html><title>Sorry</title>" + b"x" * 9000,
            "text; it begins with '<!DOCTYPE html> <html>",
        ),
        (b'{"error": "expired"}', 'text; it begins with \'{"error": "expired"}\''),
        (b"<?xml version='1.0'?><Error>", "text; it begins with"),
        ("Acc\u00e8s refus\u00e9 \u2014 d\u00e9sol\u00e9".encode() * 500, "text; it begins with"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "text; it begins with"),
        (b"BMWs are cars", "text; it begins with 'BMWs are cars'"),
        (b"\x1b[31mred", "no media file we know; it begins with 1b 5b"),
        (b"PK\x03\x04" + bytes(100), "no media file we know; it begins with 50 4b 03 04"),
        (bytes(100), "no media file we know"),
        (b"\x7fELF" + bytes(100), "no media file we know"),
    ],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.parametrize("kind", ["image", "video", "audio", "file"])
def test_what_is_no_media_file_is_an_error(content: bytes, says: str, kind: str, tmp_path: Path) -> None:
    """With its first words, bounded and harmless, so that one sees what it is."""
    with pytest.raises(MediaProviderError) as refused:
        looked_at(content, kind, tmp_path, "video/mp4")
    text = str(refused.value)
    assert says in text
    assert "claims to be" in text
    assert "video/mp4" in text
    assert len(text) < 400
    assert text.isprintable()


def test_what_claims_nothing_may_be_anything_but_a_page(tmp_path: Path) -> None:
    """A file of a kind that we do not know lands as what it is."""
    assert looked_at(b"glTF\x02" + bytes(range(250, 256)) * 50, "file", tmp_path)["extension"] == ".bin"
    with pytest.raises(MediaProviderError, match="claims to be a media file and is text"):
        looked_at(b"<html>", "file", tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
@pytest.mark.parametrize(
    "content_type",
    ["image/png", "image/jpeg", "image/webp", "image/gif", "video/mp4", "video/quicktime", "audio/wav"],
)
def test_half_a_file_does_not_decode(content_type: str, share: float, tmp_path: Path) -> None:
    """Where its beginning says how much there is."""
    words, make = SAMPLES[content_type]
    content = make(tmp_path)
    with pytest.raises(MediaProviderError, match="does not decode as"):
        looked_at(content[: int(len(content) * share)], words.split()[0], tmp_path)


@pytest.mark.parametrize("options", [{"movflags": "+faststart"}, {"movflags": "frag_keyframe+empty_moov"}])
def test_half_a_video_whose_index_comes_first_does_not_decode(
    options: dict[str, str], tmp_path: Path
) -> None:
    """Its beginning plays, so the end is looked at."""
    content = film(tmp_path, "mp4", "libx264", **options)
    assert looked_at(content, "video", tmp_path)["duration"] == 1.0
    with pytest.raises(MediaProviderError, match="does not decode as video/mp4: its end is missing"):
        looked_at(content[:-500], "video", tmp_path)


def test_a_picture_too_large_to_unpack_is_refused(tmp_path: Path) -> None:
    """A few kilobytes that would become gigabytes: soon, and without unpacking them."""
    header = b"\x89PNG\r\n\x1a\n"

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    side = (60_000).to_bytes(4, "big")
    packed = zlib.compress(bytes(10**6), 9)
    bomb = (
        header
        + chunk(b"IHDR", side + side + b"\x08\x02\0\0\0")
        + chunk(b"IDAT", packed)
        + chunk(b"IEND", b"")
    )
    began = time.monotonic()
    with pytest.raises(MediaProviderError, match="decompression bomb"):
        looked_at(bomb, "image", tmp_path)
    assert time.monotonic() - began < 2


def test_a_large_picture_is_checked_without_unpacking_it(tmp_path: Path) -> None:
    """By its checksums, which a changed byte does not survive."""
    stream = io.BytesIO()
    Image.new("1", (6000, 6000)).save(stream, "PNG")
    content = stream.getvalue()
    assert looked_at(content, "image", tmp_path)["width"] == 6000
    with pytest.raises(MediaProviderError, match="does not decode"):
        looked_at(content[:200] + b"x" + content[201:], "image", tmp_path)


def test_without_decoders_the_type_is_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And which are missing can be said."""
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] in ("PIL", "av"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    content = film(tmp_path, "mp4", "libx264")
    monkeypatch.setattr(builtins, "__import__", without)
    found = looked_at(content[:2000], "video", tmp_path)
    assert found == {"content_type": "video/mp4", "extension": ".mp4"}
    assert looked_at(picture("PNG")[:60], "image", tmp_path)["extension"] == ".png"


def test_missing_decoders_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one installs them."""
    assert verification.missing_decoders() == []
    monkeypatch.setattr(verification.importlib.util, "find_spec", lambda name: None)
    assert verification.missing_decoders() == ["pillow", "av"]


def test_nothing_is_loaded_before_it_is_needed() -> None:
    """Every DAG that names an operator imports this module; the decoders are large."""
    import subprocess  # noqa: PLC0415  # only here

    code = "import airflow_media_tasks.verification, sys; print('av' in sys.modules, 'PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
