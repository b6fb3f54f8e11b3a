from __future__ import annotations

import io
import struct
import time
import wave
from hashlib import sha256
from pathlib import Path

import av
import pytest
from PIL import Image, ImageChops, ImageStat

from airflow_media_tasks.simulator import media
from airflow_media_tasks.simulator.media import Scene, render, size_of


def frames(path: Path) -> list[Image.Image]:
    """Every frame of a video."""
    with av.open(str(path)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


@pytest.mark.parametrize("ratio", ["16:9", "9:16", "1:1", "21:9", "9:21", "4:3"])
def test_sizes_are_even_and_large_enough(ratio):
    """H.264 needs even sides, and Kling takes no image with a side below 300 px."""
    assert all(side % 2 == 0 for kind in ("image", "video") for side in size_of(kind, ratio))  # type: ignore[arg-type]
    assert min(size_of("image", ratio)) >= 300


def test_an_image_differs_by_its_prompt(tmp_path):
    """Two prompts give two pictures, the same prompt the same one, in the asked size."""
    shown = {}
    for name, prompt in (("a", "a red mug"), ("b", "a red mug"), ("c", "a blue vase")):
        render(Scene(prompt, "vap", "4:3"), tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.size == (1024, 768)
            shown[name] = image.convert("RGB").tobytes()
    assert shown["a"] == shown["b"] != shown["c"]


SOURCE = io.BytesIO()
Image.effect_noise((300, 400), 90).save(SOURCE, "PNG")


@pytest.mark.parametrize("source", [None, SOURCE.getvalue()], ids=["prompt", "source"])
@pytest.mark.parametrize("suffix", ["png", "mp4", "wav", "mp3"])
def test_no_two_files_have_the_same_bytes(tmp_path, suffix, source):
    """Files of the same scene differ in their bytes, name themselves, and are sound to the last byte."""
    paths = [tmp_path / f"{name}.{suffix}" for name in ("one", "two", "three")]
    for path in paths:
        render(Scene("a red mug", "vap", "9:21", source), path)
    contents = [path.read_bytes() for path in paths]
    assert len({sha256(content).digest() for content in contents}) == 3
    for path, content in zip(paths, contents, strict=True):
        assert path.name.encode() in content
        assert ends_where_it_says(content)
        if suffix == "png":
            with Image.open(path) as image:
                image.verify()
            with Image.open(path) as image:
                assert image.text["Comment"] == path.name  # type: ignore[attr-defined]  # a PNG has it
        else:
            with av.open(str(path), options={"err_detect": "explode"}) as container:
                assert path.name in container.metadata.values()
                assert len(list(container.decode(container.streams[0]))) > (0 if suffix == "wav" else 30)


def ends_where_it_says(content: bytes) -> bool:
    """Whether the container's own parts fill the file, with nothing behind them."""
    at = 0
    if content.startswith(b"RIFF"):
        return len(content) == 8 + struct.unpack_from("<I", content, 4)[0]
    if content.startswith(b"\x89PNG"):
        return content.endswith(b"\x00\x00\x00\x00IEND\xaeB`\x82")
    if content[4:8] == b"ftyp":
        while at < len(content):
            at += struct.unpack_from(">I", content, at)[0]
        return at == len(content)
    return content.startswith(b"ID3")


@pytest.mark.parametrize("suffix", ["png", "mp4", "wav", "mp3"])
def test_a_further_file_costs_next_to_nothing(tmp_path, suffix):
    """Whatever is encoded is encoded once for each size: a further file costs a small part of the first."""
    media._landscape.cache_clear()
    for once in (media._sky, media._film, media._sound):
        once.cache_clear()
    spent = []
    for number in range(11):
        began = time.thread_time()
        render(Scene(f"mug number {number}", "vap", "16:9"), tmp_path / f"{number}.{suffix}")
        spent.append(time.thread_time() - began)
    # The least of ten: what a busy machine adds is not ours. The ratio holds on a slow machine, too.
    assert min(spent[1:]) < spent[0] / 4


def test_a_very_long_prompt_still_fits(tmp_path):
    """A prompt of thousands of characters is drawn without an error."""
    render(Scene("word " * 600, "vap", "21:9"), tmp_path / "a.png")
    render(Scene("unbroken" * 300, "vap", "9:16"), tmp_path / "b.png")


def test_a_video_plays_anywhere_and_moves(tmp_path):
    """A video is two seconds of H.264 in yuv420p with its index in front, and its frames differ."""
    path = tmp_path / "a.mp4"
    render(Scene("a red mug", "kling", "9:16"), path)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (360, 640)
        assert container.duration == pytest.approx(2_000_000, abs=100_000)
    first, *_, last = frames(path)
    assert first.tobytes() != last.tobytes()
    # What is seen goes down, and stays what it was.
    height = 500
    moved = last.crop((0, 40, 360, height)), first.crop((0, 21, 360, height - 19))
    assert ImageStat.Stat(ImageChops.difference(*moved).convert("L")).mean[0] < 3
    unmoved = last.crop((0, 40, 360, height)), first.crop((0, 40, 360, height))
    assert ImageStat.Stat(ImageChops.difference(*unmoved).convert("L")).mean[0] > 3


def test_a_video_shows_its_source_image(tmp_path):
    """A video made from a red image is red."""
    buffer = io.BytesIO()
    Image.new("RGB", (640, 360), (200, 30, 30)).save(buffer, "PNG")
    render(Scene("anything", "luma", "16:9", buffer.getvalue()), tmp_path / "a.mp4")
    for frame in (frames(tmp_path / "a.mp4")[0], frames(tmp_path / "a.mp4")[-1]):
        red, green, blue = frame.getpixel((320, 180))
        assert red > 150
        assert max(green, blue) < 80


def test_sound_is_audible(tmp_path):
    """WAV and MP3 last one and a half seconds and are loud enough to hear."""
    render(Scene("piano", "vap"), tmp_path / "a.wav")
    with wave.open(str(tmp_path / "a.wav")) as sound:
        assert sound.getnframes() / sound.getframerate() == pytest.approx(1.5)
        samples = memoryview(sound.readframes(sound.getnframes())).cast("h")
        assert 10_000 < max(samples) < 32_767
    render(Scene("piano", "vap"), tmp_path / "a.mp3")
    with av.open(str(tmp_path / "a.mp3")) as container:
        assert container.duration == pytest.approx(1_500_000, abs=100_000)
        frames_of_sound = [memoryview(frame.planes[0]).cast("f") for frame in container.decode(audio=0)]
        assert max(max(samples) for samples in frames_of_sound) > 0.1
