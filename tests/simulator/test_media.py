from __future__ import annotations

import io
import wave
from pathlib import Path

import av
import pytest
from PIL import Image

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
    for name, prompt in (("a", "a red mug"), ("b", "a red mug"), ("c", "a blue vase")):
        render(Scene(prompt, "vap", "4:3"), tmp_path / f"{name}.png")
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c
    with Image.open(io.BytesIO(a)) as image:
        assert image.size == (1024, 768)


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
