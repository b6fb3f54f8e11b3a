"""What Kling's endpoints ask for and what they make ([O] kling.md 2); every refusal names the field."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError

from airflow_media_tasks.simulator.provider import Call, audio, image, video
from airflow_media_tasks.simulator.world import Output, bad_request


_RATIOS = "16:9 9:16 1:1"
_IMAGE_RATIOS = "16:9 9:16 1:1 4:3 3:4 3:2 2:3 21:9"
_LONGEST_PROMPT = 2500  # characters
_LARGEST_IMAGE = 10_000_000  # bytes
_SMALLEST_SIDE = 300  # px
_NEW_MODELS = "kling-3.0-turbo kling-3.0 kling-2.6 kling-2.5-turbo"


class Made(NamedTuple):
    """What a valid submission will make: neutral operation, price in units, files, and its slots."""

    operation: str
    units: str
    outputs: tuple[Output, ...]
    aspect_ratio: str | None = None
    source: str | bytes | None = None
    slots: int = 1


class Plan(NamedTuple):
    """An endpoint: its check (of the call and, on the new standard, the model), if it takes an own id."""

    check: Callable[[Call, str | None], Made]
    has_external_id: bool = True


def _text_to_video(call: Call, _: str | None) -> Made:
    call.text("prompt", longest=_LONGEST_PROMPT)
    length, units = _video_options(call)
    ratio = call.choice("aspect_ratio", _RATIOS, "16:9")
    return Made("text_to_video", units, (video(length),), ratio)


def _image_to_video(call: Call, _: str | None) -> Made:
    call.text("prompt", required=False, longest=_LONGEST_PROMPT)
    source = _picture(call.body, "image", required=not call.body.get("image_tail"))
    tail = _picture(call.body, "image_tail", required=False)
    length, units = _video_options(call)
    return Made("image_to_video", units, (video(length),), source=source or tail)


def _multi_image_to_video(call: Call, _: str | None) -> Made:
    call.text("prompt", longest=_LONGEST_PROMPT)
    entries = call.body.get("image_list")
    if not isinstance(entries, list) or not 1 <= len(entries) <= 4:
        bad_request("image_list must hold 1 to 4 images")
    if not all(isinstance(entry, dict) for entry in entries):
        bad_request("image_list must hold objects with the key image")
    sources = [_picture(entry, "image") for entry in entries]
    length, units = _video_options(call)
    ratio = call.choice("aspect_ratio", _RATIOS, "16:9")
    return Made("multi_image_to_video", units, (video(length),), ratio, sources[0])


def _extend_video(call: Call, _: str | None) -> Made:
    call.text("prompt", required=False, longest=_LONGEST_PROMPT)
    call.number("cfg_scale", 0, 1)
    return Made("extend_video", "1", (video(10.0),), source=_own_video(call, call.body))


def _lip_sync(call: Call, _: str | None) -> Made:
    options = call.body.get("input")
    if not isinstance(options, dict):
        bad_request("input is required")
    inner = Call(call.world, call.request, "submit", options)
    mode = inner.choice("mode", "text2video audio2video")
    if mode is None:
        bad_request("mode is required")
    if mode == "text2video":
        inner.text("text", longest=120)
        inner.text("voice_id")
        inner.choice("voice_language", "zh en")
        inner.number("voice_speed", 0.8, 2.0)
    else:
        kind = inner.choice("audio_type", "file url")
        if kind is None:
            bad_request("audio_type is required")
        inner.text("audio_file" if kind == "file" else "audio_url")
    if bool(options.get("video_id")) == bool(options.get("video_url")):
        bad_request("exactly one of video_id and video_url is required")
    source = _own_video(call, options) if options.get("video_id") else None
    return Made("lip_sync", "0.5", (video(5.0),), source=source)


def _effects(call: Call, _: str | None) -> Made:
    call.text("effect_scene")
    options = call.body.get("input")
    if not isinstance(options, dict):
        bad_request("input is required")
    pair = options.get("images")
    if pair is not None:
        if not isinstance(pair, list) or len(pair) != 2:
            bad_request("images must hold exactly 2 images")
        sources = [_picture({"images": one}, "images") for one in pair]
    else:
        sources = [_picture(options, "image")]
    length = _duration(Call(call.world, call.request, "submit", options))
    return Made("video_effects", "2", (video(length),), source=sources[0])


def _images(call: Call, _: str | None) -> Made:
    call.text("prompt", longest=_LONGEST_PROMPT)
    call.text("negative_prompt", required=False, longest=_LONGEST_PROMPT)
    _model_name(call, r"kling-v\d+(-\d+)?(-new)?")
    source = _picture(call.body, "image", required=False)
    call.choice("image_reference", "subject face")
    call.choice("resolution", "1k 2k")
    call.number("image_fidelity", 0, 1)
    call.number("human_fidelity", 0, 1)
    count = int(call.number("n", 1, 9, whole=True) or 1)
    ratio = call.choice("aspect_ratio", _IMAGE_RATIOS, "16:9")
    operation = "image_to_image" if call.body.get("image") else "text_to_image"
    return Made(operation, str(count), tuple(image() for _ in range(count)), ratio, source, slots=count)


def _virtual_try_on(call: Call, _: str | None) -> Made:
    _model_name(call, r"kolors-virtual-try-on-v1(-5)?")
    source = _picture(call.body, "human_image")
    _picture(call.body, "cloth_image")
    return Made("virtual_try_on", "1", (image(),), "3:4", source)


def _text_to_audio(call: Call, _: str | None) -> Made:
    call.text("prompt", longest=200)
    length = call.number("duration", 3, 10) or 5.0
    return Made("text_to_audio", "0.25", (audio("mp3", length), audio("wav", length)))


def _video_to_audio(call: Call, _: str | None) -> Made:
    if bool(call.body.get("video_id")) == bool(call.body.get("video_url")):
        bad_request("exactly one of video_id and video_url is required")
    for key in ("sound_effect_prompt", "bgm_prompt"):
        call.text(key, required=False, longest=200)
    source = _own_video(call, call.body) if call.body.get("video_id") else None
    return Made("video_to_audio", "0.25", (video(5.0), audio("mp3", 5.0), audio("wav", 5.0)), source=source)


def _speech(call: Call, _: str | None) -> Made:
    call.text("text", longest=1000)
    call.text("voice_id")
    if call.choice("voice_language", "zh en") is None:
        bad_request("voice_language is required")
    call.number("voice_speed", 0.8, 2.0)
    return Made("text_to_speech", "0.05", (audio("mp3", 2.0),))


def _new_text_to_video(call: Call, model: str | None) -> Made:
    call.text("prompt", longest=3072)
    return _new_video(call, model, "text_to_video", None)


def _new_image_to_video(call: Call, model: str | None) -> Made:
    contents = call.body.get("contents")
    if not isinstance(contents, list) or not all(isinstance(entry, dict) for entry in contents):
        bad_request("contents must be a list of objects")
    frames = [entry for entry in contents if entry.get("type") in ("first_frame", "last_frame")]
    if not frames:
        bad_request("contents must have a first_frame or a last_frame")
    sources = [_picture(entry, "url") for entry in frames]
    return _new_video(call, model, "image_to_video", sources[0])


def _new_video(call: Call, model: str | None, operation: str, source: bytes | None) -> Made:
    if model not in _NEW_MODELS.split():
        bad_request(f"model value '{model}' is invalid")
    settings = call.body.get("settings") or {}
    if not isinstance(settings, dict):
        bad_request("settings must be an object")
    inner = Call(call.world, call.request, "submit", settings)
    inner.choice("resolution", "720p 1080p 4k")
    ratio = inner.choice("aspect_ratio", _RATIOS, "16:9")
    length = inner.number("duration", 3, 15, whole=True) or 5.0
    return Made(operation, f"{0.6 * length:.1f}", (video(length),), ratio, source)


LEGACY: dict[str, Plan] = {
    "/v1/videos/text2video": Plan(_text_to_video),
    "/v1/videos/image2video": Plan(_image_to_video),
    "/v1/videos/multi-image2video": Plan(_multi_image_to_video),
    "/v1/videos/video-extend": Plan(_extend_video, has_external_id=False),
    "/v1/videos/lip-sync": Plan(_lip_sync),
    "/v1/videos/effects": Plan(_effects),
    "/v1/images/generations": Plan(_images),
    "/v1/images/kolors-virtual-try-on": Plan(_virtual_try_on),
    "/v1/audio/text-to-audio": Plan(_text_to_audio),
    "/v1/audio/video-to-audio": Plan(_video_to_audio),
    "/v1/audio/tts": Plan(_speech, has_external_id=False),
}
NEW_STANDARD: dict[str, Plan] = {
    "/text-to-video": Plan(_new_text_to_video),
    "/image-to-video": Plan(_new_image_to_video),
}


def _video_options(call: Call) -> tuple[float, str]:
    """Length in seconds and price in units of a legacy video, after checking what all of them share."""
    _model_name(call, r"kling-v\d+(-\d+)?(-master|-turbo|-omni)?")
    call.text("negative_prompt", required=False, longest=_LONGEST_PROMPT)
    mode = call.choice("mode", "std pro 4k", "std") or "std"
    call.choice("sound", "on off")
    call.number("cfg_scale", 0, 1)
    camera = call.body.get("camera_control")
    if camera is not None and not isinstance(camera, dict):
        bad_request("camera_control must be an object")
    length = _duration(call)
    return length, f"{length / 5 * {'std': 1, 'pro': 1.75, '4k': 3}[mode]:g}"


def _duration(call: Call) -> float:
    value = call.body.get("duration")
    if value is None:
        return 5.0
    model = call.body.get("model_name") or ""
    allowed = [str(length) for length in range(3, 16)] if str(model).startswith("kling-v3") else ["5", "10"]
    if not isinstance(value, str) or value not in allowed:
        bad_request(
            f"duration value {value!r} is invalid, it must be one of the strings {', '.join(allowed)}"
        )
    return float(value)


def _model_name(call: Call, pattern: str) -> None:
    value = call.body.get("model_name")
    if value is not None and not (isinstance(value, str) and re.fullmatch(pattern, value)):
        bad_request(f"model_name value '{value}' is invalid")


def _own_video(call: Call, arguments: dict[str, Any]) -> str:
    video_id = arguments.get("video_id")
    if not video_id:
        bad_request("video_id is required")
    name = call.world.made_video(call.account, video_id)
    if name is None:
        bad_request(f"video_id value '{video_id}' is invalid")
    return name


def _picture(arguments: dict[str, Any], key: str, *, required: bool = True) -> bytes | None:
    """Check the image argument *key*, a URL or raw base64; returns the bytes of the latter."""
    value = arguments.get(key)
    if value is None or value == "":
        if required:
            bad_request(f"{key} is required")
        return None
    if not isinstance(value, str):
        bad_request(f"{key} must be a string")
    if value.startswith(("http://", "https://")):
        return None
    if value.startswith("data:"):
        bad_request(f"{key} must be raw base64 without the data: prefix")
    try:
        content = base64.b64decode(value, validate=True)
        with Image.open(io.BytesIO(content)) as picture:
            (width, height), kind = picture.size, picture.format
    except (binascii.Error, UnidentifiedImageError, OSError):
        bad_request(f"{key} is neither a URL nor an image in base64")
    if kind not in ("PNG", "JPEG") or len(content) > _LARGEST_IMAGE:
        bad_request(f"{key} must be a JPEG or PNG of at most 10 MB")
    if min(width, height) < _SMALLEST_SIDE or not 1 / 2.5 <= width / height <= 2.5:
        bad_request(f"{key} must be at least 300 px on each side, with a ratio from 1:2.5 to 2.5:1")
    return content
