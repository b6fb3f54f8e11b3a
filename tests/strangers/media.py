"""What the servers here have made: small files that decode, each the same whenever it is asked for."""

from __future__ import annotations

import io
import wave
from functools import cache

import av
from PIL import Image


@cache
def picture() -> bytes:
    """A PNG."""
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((64, 48)).save(stream, "PNG")
    return stream.getvalue()


@cache
def film() -> bytes:
    """An MP4 of a second."""
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        pictures = container.add_stream("mpeg4", rate=20)
        pictures.width, pictures.height, pictures.pix_fmt = 160, 120, "yuv420p"
        still = av.VideoFrame.from_image(Image.linear_gradient("L").resize((160, 120)).convert("RGB"))
        for _ in range(20):
            container.mux(pictures.encode(still))
        container.mux(pictures.encode())
    return stream.getvalue()


@cache
def sound() -> bytes:
    """A WAV of half a second."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(8000))
    return stream.getvalue()


MADE = {".png": picture, ".mp4": film, ".wav": sound}
"""By the end of a URL's path."""
