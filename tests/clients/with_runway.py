"""What Runway's own client does with the simulator; run in that client's own environment."""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import httpx
from runwayml import APIStatusError, RunwayML, TaskFailedError


def refusal(ask: Any) -> dict[str, Any]:
    """What the client makes of a refusal."""
    try:
        ask()
    except APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "body": error.body}
    return {}


def main() -> dict[str, Any]:
    """Makes films, pictures and sound, and tells what it saw."""
    client = RunwayML(max_retries=0)
    still = client.text_to_image.create(model="gen4_image", prompt_text="a red mug", ratio="1280:720")
    seen = [client.tasks.retrieve(still.id)]
    while seen[-1].status not in ("SUCCEEDED", "FAILED", "CANCELLED"):
        time.sleep(0.05)
        seen.append(client.tasks.retrieve(still.id))
    (url,) = seen[-1].output
    film = client.image_to_video.create(
        model="gen4_turbo",
        prompt_image="https://example.com/mug.png",
        prompt_text="it turns",
        ratio="1280:720",
    )
    spoken = client.text_to_speech.create(
        model="eleven_multilingual_v2",
        prompt_text="good evening",
        voice={"type": "runway-preset", "preset_id": "Maya"},
    )
    noise = client.sound_effect.create(model="eleven_text_to_sound_v2", prompt_text="a creaking door")
    larger = client.video_upscale.create(model="upscale_v1", video_uri="https://example.com/mug.mp4")
    acted = client.character_performance.create(
        model="act_two",
        character={"type": "image", "uri": "https://example.com/mug.png"},
        reference={"type": "video", "uri": "https://example.com/mug.mp4"},
    )
    made = film.wait_for_task_output()

    failed: dict[str, Any] = {}
    try:
        client.text_to_image.create(
            model="gen4_image", prompt_text="a mug [sim:fail=moderation]", ratio="1280:720"
        ).wait_for_task_output()
    except TaskFailedError as error:
        failed = error.task_details.to_dict(mode="json")

    slow = client.text_to_image.create(
        model="gen4_image", prompt_text="a mug [sim:seconds=600]", ratio="1280:720"
    )
    client.tasks.delete(slow.id)
    stranger, poor = (RunwayML(api_key=key, max_retries=0) for key in ("sim-bad-key", "sim-no-funds"))
    asked = {"model": "gen4_image", "prompt_text": "a mug", "ratio": "1280:720"}
    return {
        "version": version("runwayml"),
        "estimated": still.to_dict(mode="json"),
        "words": list(dict.fromkeys(task.status for task in seen)),
        "created": seen[-1].created_at.isoformat(),
        "cost": seen[-1].cost.credits,
        "magic": httpx.get(url).content[:4].hex(),
        "film": made.output,
        "others": [client.tasks.retrieve(one.id).status for one in (spoken, noise, larger, acted)],
        "failed": failed,
        "credits": client.organization.retrieve().credit_balance,
        "deleted": refusal(lambda: client.tasks.retrieve(slow.id)) or client.tasks.retrieve(slow.id).status,
        "unknown": refusal(lambda: client.tasks.retrieve("17f20503-6c24-4c16-946b-35dbbce2af2f")),
        "invalid": refusal(lambda: client.text_to_image.create(**{**asked, "ratio": "16:9"})),
        "bad_key": refusal(lambda: stranger.text_to_image.create(**asked)),
        "no_money": refusal(lambda: poor.text_to_image.create(**asked)),
        # The client repeats this by itself, although it was accepted the first time.
        "paid_twice": RunwayML(max_retries=1)
        .text_to_image.create(**{**asked, "prompt_text": "a mug [sim:error-after-accept=502*1]"})
        .id,
    }


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
