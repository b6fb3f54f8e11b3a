"""What a file is, by its bytes, and whether it decodes as that."""

from __future__ import annotations

import io
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image, PngImagePlugin

from airflow_media_tasks.material import verification
from airflow_media_tasks.task import MediaProviderError

from .hostile import sound


DECODER = verification.Decoder()


@pytest.fixture(scope="module", autouse=True)
def _decoder_ends() -> Iterator[None]:
    with DECODER:
        yield


def picture(form: str, frames: int = 1, **options: Any) -> bytes:
    """A small picture; with some frames one that moves."""
    stream = io.BytesIO()
    first, *others = [Image.effect_noise((64, 48), 50 + number).convert("RGB") for number in range(frames)]
    more = {"save_all": True, "append_images": others, "duration": 100} if others else {}
    first.save(stream, form, **more, **options)
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


def tone(folder: Path, form: str, codec: str, samples: int = 24000) -> bytes:
    """Half a second of silence."""
    path = folder / f"tone.{form}"
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=48000, layout="mono")
        frame = av.AudioFrame(format="s16", layout="mono", samples=samples)
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
    "image/avif": ("image .avif", lambda _: picture("AVIF")),
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


MORE_SAMPLES: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "progressive JPEG": ("image .jpg", lambda _: picture("JPEG", progressive=True)),
    "moving PNG": ("video .png", lambda _: picture("PNG", 5)),
    "moving WebP": ("video .webp", lambda _: picture("WEBP", 5)),
    "moving AVIF": ("video .avif", lambda _: picture("AVIF", 5)),
    "MP4, index first": ("video .mp4", lambda folder: film(folder, "mp4", "libx264", movflags="+faststart")),
    "MP4 in fragments": (
        "video .mp4",
        lambda folder: film(folder, "mp4", "libx264", movflags="frag_keyframe+empty_moov"),
    ),
    "MP4 for DASH": ("video .mp4", lambda folder: film(folder, "mp4", "libx264", movflags="dash")),
    "MP4 of AV1": ("video .mp4", lambda folder: film(folder, "mp4", "libsvtav1")),
    "10 s of MP3": ("audio .mp3", lambda folder: tone(folder, "mp3", "libmp3lame", 480_000)),
}

_MADE: dict[str, bytes] = {}


def sample(name: str, folder: Path) -> bytes:
    """One of the samples, which are made once."""
    if name not in _MADE:
        _MADE[name] = (SAMPLES | MORE_SAMPLES)[name][1](folder)
    return _MADE[name]


def looked_at(content: bytes, kind: str, folder: Path, content_type: str = "") -> dict[str, Any]:
    """What is found out about a file."""
    path = folder / "file"
    path.write_bytes(content)
    media_type = verification.identify(path, kind, content_type, "it")
    facts = DECODER.check(path, media_type, kind, "it")
    return {"content_type": media_type.content_type, "extension": media_type.extension, **facts}


@pytest.mark.parametrize("content_type", SAMPLES)
def test_a_type_is_told_by_the_bytes(content_type: str, tmp_path: Path) -> None:
    """And what it decodes to is said: pixels and seconds."""
    kind, extension = SAMPLES[content_type][0].split()
    found = looked_at(sample(content_type, tmp_path), kind, tmp_path)
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
    if SAMPLES[content_type][0].split()[0] == {"thumbnail": "image"}.get(kind, kind):
        return
    content = sample(content_type, tmp_path)
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


SAYS_NOTHING = ("audio/aac", "audio/mpeg")
"""ADTS says nothing of its length; half a second of MP3 is less than its writers differ by."""


@pytest.mark.parametrize("name", [name for name in (*SAMPLES, *MORE_SAMPLES) if name not in SAYS_NOTHING])
def test_a_file_that_is_cut_does_not_decode(name: str, tmp_path: Path) -> None:
    """Whatever its container, if that says how much there is."""
    kind, extension = (SAMPLES | MORE_SAMPLES)[name][0].split()
    content = sample(name, tmp_path)
    whole = looked_at(content, kind, tmp_path)
    assert whole["extension"] == extension
    assert "checked" not in whole
    # The writers of MP3 count in more than one way, so the last fiftieth is not missed.
    for share in (0.3, 0.5, 0.7, 0.9, *(() if name == "10 s of MP3" else (0.98,))):
        with pytest.raises(MediaProviderError, match="does not decode as"):
            looked_at(content[: int(len(content) * share)], kind, tmp_path)


def test_a_gif_that_is_cut_within_a_frame_does_not_decode(tmp_path: Path) -> None:
    """Each frame is decoded; one cut between two frames is whole, as GIF does not say how many there are."""
    content = picture("GIF", 5)
    assert "checked" not in looked_at(content, "video", tmp_path)
    for share in (0.3, 0.7, 0.97):
        with pytest.raises(MediaProviderError, match="truncated"):
            looked_at(content[: int(len(content) * share)], "video", tmp_path)


@pytest.mark.parametrize("form", ["mp4", "matroska", "ogg", "mp3", "wav", "avi", "flac"])
def test_what_follows_the_end_harms_nothing(form: str, tmp_path: Path) -> None:
    """A tag, or zeros, that somebody has appended."""
    codec = {"ogg": "libopus", "mp3": "libmp3lame", "wav": "pcm_s16le", "flac": "flac", "avi": "mpeg4"}.get(
        form
    )
    content = (
        film(tmp_path, form, codec or "libx264")
        if form in ("mp4", "matroska", "avi")
        else tone(tmp_path, form, codec or "")
    )
    kind = "video" if form in ("mp4", "matroska", "avi") else "audio"
    for more in (bytes(2000), b"TAG" + b"x" * 125):
        assert "checked" not in looked_at(content + more, kind, tmp_path)


WAV = "<4sI4s4sIHHIIHH4sI"


def wav(length: int, samples: int, whole: int | None = None) -> bytes:
    """A WAV of as many *samples* whose header says that its data have *length* bytes."""
    says = (whole if whole is not None else length + 36) & 0xFFFFFFFF
    head = (b"RIFF", says, b"WAVE", b"fmt ", 16, 1, 1, 24_000, 48_000, 2, 16, b"data", length)
    return struct.pack(WAV, *head) + bytes(range(250)) * (samples * 2 // 250)


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0xFFFFFFDB, 0x7FFFFFFF, 0x7FFFFFDB, 2_000_000_000])
@pytest.mark.parametrize("whole", [None, 0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_whose_writer_did_not_know_its_length_lands(
    length: int, whole: int | None, tmp_path: Path
) -> None:
    """Sound that was streamed has a placeholder there, and is played by everything."""
    found = looked_at(wav(length, 48_000, whole), "audio", tmp_path)
    assert found == {"content_type": "audio/wav", "extension": ".wav", "duration": 2.0}


def test_a_wav_that_is_wrong_by_its_header_lands(tmp_path: Path) -> None:
    """Some writers count the header, too."""
    assert "checked" not in looked_at(wav(96_044, 48_000), "audio", tmp_path)
    with pytest.raises(MediaProviderError, match="its end is missing"):
        looked_at(wav(96_000, 24_000), "audio", tmp_path)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "AVIF"])
def test_a_moving_picture_may_be_the_video(form: str, tmp_path: Path) -> None:
    """`veo/upscale_video` makes a GIF if asked to; a picture that does not move is no video."""
    found = looked_at(picture(form, 5), "video", tmp_path)
    assert found["width"] == 64
    assert found["extension"] in verification.extensions("video")
    assert "checked" not in found
    with pytest.raises(
        MediaProviderError, match=r"claims to be video and is image/.* does not move"
    ) as refused:
        looked_at(picture(form), "video", tmp_path)
    assert refused.value.code == "wrong_type"


def brands(major: bytes, *compatible: bytes, box: bytes = b"ftyp") -> bytes:
    """The beginning of an ISO base media file."""
    body = major + bytes(4) + b"".join(compatible)
    return struct.pack(">I", 8 + len(body)) + box + body + struct.pack(">I4s", 3000, b"moov") + bytes(3000)


@pytest.mark.parametrize(
    ("head", "kind", "content_type"),
    [
        *[
            (brands(brand, b"isom", b"mp41"), "video", "video/mp4")
            for brand in (
                b"isom",
                b"iso2",
                b"iso5",
                b"iso6",
                b"mp41",
                b"avc1",
                b"dash",
                b"M4V ",
                b"3gp4",
                b"zzzz",
            )
        ],
        (brands(b"msdh", b"msix", box=b"styp"), "video", "video/mp4"),
        (brands(b"M4A ", b"isom"), "audio", "audio/mp4"),
        (brands(b"qt  "), "video", "video/quicktime"),
        (brands(b"avif", b"mif1"), "image", "image/avif"),
        (brands(b"mif1", b"avif", b"miaf"), "image", "image/avif"),
        (brands(b"mif1", b"heic"), "image", "image/heic"),
        (brands(b"heix", b"mif1"), "image", "image/heic"),
        *[
            (bytes([0xFF, second]) + b"\x90\xc4" + bytes(400), "audio", "audio/mpeg")
            for second in b"\xfb\xfa\xf3\xf2\xe3"
        ],
        (b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk" + bytes(range(100, 200)), "audio", "audio/midi"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_each_spelling_of_a_type_is_known(head: bytes, kind: str, content_type: str, tmp_path: Path) -> None:
    """Every brand of MP4, and MP3 of every rate: speech often has 22 kHz."""
    path = tmp_path / "file"
    path.write_bytes(head)
    assert verification.identify(path, kind, content_type, "it").content_type == content_type


def test_what_has_no_decoder_lands_and_says_so(tmp_path: Path) -> None:
    """Nothing claims that it was looked at."""
    found = looked_at(brands(b"heic"), "image", tmp_path)
    assert found["checked"] == "not checked: nothing here decodes image/heic"
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"></svg>'
    assert looked_at(svg, "image", tmp_path)["checked"] == "not checked: nothing here decodes image/svg+xml"


def text_of(key: str, size: int) -> PngImagePlugin.PngInfo:
    """Packed metadata of a PNG."""
    text = PngImagePlugin.PngInfo()
    text.add_text(key, "a" * size, zip=True)
    return text


@pytest.mark.parametrize(
    "options",
    [{"pnginfo": text_of("workflow", 2_000_000)}, {"icc_profile": bytes(1_200_000)}],
    ids=["text", "profile"],
)
def test_a_librarys_caution_is_no_damage(options: dict[str, Any], tmp_path: Path) -> None:
    """A long text or colour profile, which some programs write into each of their pictures."""
    content = picture("PNG", **options)
    assert "checked" not in looked_at(content, "image", tmp_path)
    with pytest.raises(MediaProviderError, match="does not decode"):
        looked_at(content[:-2000], "image", tmp_path)


def test_a_picture_too_large_to_unpack_lands_unchecked(tmp_path: Path) -> None:
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
    found = looked_at(bomb, "image", tmp_path)
    assert found["checked"] == "not checked: needs more than 512 MiB; its checksums are right"
    assert time.monotonic() - began < 2


def test_a_large_picture_is_checked_by_its_checksums(tmp_path: Path) -> None:
    """Which a changed byte does not survive; such as an upscaler makes, larger than Pillow likes."""
    stream = io.BytesIO()
    Image.new("1", (24_000, 24_000)).save(stream, "PNG", compress_level=1)
    content = stream.getvalue()
    found = looked_at(content, "image", tmp_path)
    assert (found["width"], found["checked"][:11]) == (24_000, "not checked")
    for bad in (content[:200] + b"x" + content[201:], content[:-500]):
        with pytest.raises(MediaProviderError, match="does not decode"):
            looked_at(bad, "image", tmp_path)


def test_without_decoders_the_type_is_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that nothing was checked; no process starts for that."""
    content = sample("video/mp4", tmp_path)
    monkeypatch.setattr(verification.importlib.util, "find_spec", lambda name: None)
    found = looked_at(content[:2000], "video", tmp_path)
    checked = "not checked: av is not installed"
    assert found == {"content_type": "video/mp4", "extension": ".mp4", "checked": checked}
    found = looked_at(picture("PNG")[:60], "image", tmp_path)
    assert found["checked"] == "not checked: pillow is not installed"


def test_missing_decoders_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one installs them."""
    assert verification.missing_decoders() == []
    monkeypatch.setattr(verification.importlib.util, "find_spec", lambda name: None)
    assert verification.missing_decoders() == ["pillow", "av"]


def test_nothing_is_loaded_before_it_is_needed() -> None:
    """Every DAG that names an operator imports this module; the decoders are large."""
    import subprocess  # noqa: PLC0415  # only here

    module = "airflow_media_tasks.material.verification"
    code = f"import {module}, sys; print('av' in sys.modules, 'PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
