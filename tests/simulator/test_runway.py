from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx
import pytest

from airflow_media_tasks.simulator import Simulator


FILM, PICTURE = "https://e.com/1.mp4", "https://e.com/1.png"


def submit(
    runway: httpx.Client, prompt: str = "a red mug", path: str = "text_to_image", **given: Any
) -> dict[str, Any]:
    """What the answer to a submission says, which must be accepted."""
    usual = {"model": "gen4_image", "promptText": prompt, "ratio": "1360:768"}
    reply = runway.post(f"/v1/{path}", json={**usual, **given})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def look(runway: httpx.Client, accepted: dict[str, Any]) -> dict[str, Any]:
    """The task as it is now."""
    return dict(runway.get(f"/v1/tasks/{accepted['id']}").json())


def test_a_task_goes_from_pending_to_succeeded(runway, media_simulator: Simulator):
    """A task is PENDING, then RUNNING with its progress, then SUCCEEDED with files and what it cost."""
    made = submit(runway)
    assert set(made) == {"id", "estimatedCost"}
    waiting = look(runway, made)
    assert (waiting["status"], waiting["estimatedCost"]) == ("PENDING", {"credits": 8})
    media_simulator.advance(1.8)
    running = look(runway, made)
    assert (running["status"], "output" in running) == ("RUNNING", False)
    assert running["progress"] == pytest.approx(0.5, abs=0.1)
    media_simulator.advance(2)
    done = look(runway, made)
    assert (done["status"], done["cost"], "estimatedCost" in done) == ("SUCCEEDED", {"credits": 8}, False)
    assert [url.startswith(f"{media_simulator.url}/media/") for url in done["output"]] == [True]
    assert datetime.fromisoformat(done["createdAt"].replace("Z", "+00:00")).tzinfo
    (entry,) = media_simulator.ledger("runway")
    assert (entry["amount"], entry["currency"], entry["client_ref"]) == ("8", "credits", None)


@pytest.mark.parametrize(
    ("path", "given", "operation", "suffix"),
    [
        ("text_to_image", {}, "text_to_image", "png"),
        ("text_to_video", {"model": "gen4.5", "ratio": "1280:720", "duration": 5}, "text_to_video", "mp4"),
        ("image_to_video", {"model": "gen4_turbo", "promptImage": PICTURE}, "image_to_video", "mp4"),
        ("video_to_video", {"model": "aleph2", "videoUri": FILM}, "video_to_video", "mp4"),
        ("video_to_video", {"model": "hailuo3", "promptVideo": FILM}, "video_to_video", "mp4"),
        (
            "video_upscale",
            {"model": "magnific_video_upscaler_creative", "videoUri": FILM},
            "upscale_video",
            "mp4",
        ),
        (
            "character_performance",
            {"model": "act_two", "character": {"uri": PICTURE}, "reference": {"uri": FILM}},
            "character_performance",
            "mp4",
        ),
        ("text_to_speech", {"model": "eleven_v3", "voice": {"presetId": "Maya"}}, "text_to_speech", "mp3"),
        ("sound_effect", {"model": "eleven_text_to_sound_v2"}, "sound_effect", "mp3"),
        ("text_to_video", {"model": "nobody_knows_it"}, "text_to_video", "mp4"),
    ],
)
def test_a_path_tells_what_is_made(
    runway, media_simulator: Simulator, path: str, given: dict[str, Any], operation: str, suffix: str
):
    """Each path makes its kind of file, with whichever model."""
    made = submit(runway, path=path, **given)
    media_simulator.advance(4)
    assert look(runway, made)["output"][0].endswith(f".{suffix}")
    assert media_simulator.ledger("runway")[0]["operation"] == operation


def test_several_at_once(runway, media_simulator: Simulator):
    """`outputCount` files are made, and each is paid."""
    made = submit(runway, model="gpt_image_2", outputCount=3)
    media_simulator.advance(4)
    assert len(look(runway, made)["output"]) == 3
    assert media_simulator.ledger()[0]["amount"] == "24"


@pytest.mark.parametrize(
    ("path", "body", "what"),
    [
        ("text_to_image", {"promptText": "x"}, "model is required"),
        ("text_to_image", {"model": "gen4_image", "promptText": "x"}, "ratio: Required"),
        ("text_to_image", {"model": "gen4_image", "ratio": "720:720"}, "promptText: Required"),
        ("text_to_image", {"model": "gen4_image", "promptText": "x", "ratio": "16:9"}, "ratio: Invalid"),
        ("text_to_video", {"model": "gen4.5", "promptText": "x", "ratio": "1280:720"}, "duration: Required"),
        (
            "text_to_video",
            {"model": "gen4.5", "promptText": "x" * 1001, "ratio": "720:1280", "duration": 5},
            "Too big",
        ),
        ("video_to_video", {"model": "aleph2", "promptVideo": FILM}, "videoUri: Required"),
        ("text_to_speech", {"model": "eleven_v3", "promptText": "x"}, "voice: Required"),
        ("text_to_image", {"model": "x", "promptText": "x", "outputCount": 11}, "outputCount"),
    ],
)
def test_what_a_model_does_not_take(runway, media_simulator: Simulator, path: str, body: Any, what: str):
    """Wrong input is a 400 that says what is wrong, and costs nothing."""
    reply = runway.post(f"/v1/{path}", json=body)
    assert reply.status_code == 400
    assert what in str(reply.json()["issues"])
    assert media_simulator.ledger() == []


@pytest.mark.parametrize(
    ("word", "status", "words"),
    [
        ("auth", 401, "invalid"),
        ("funds", 400, "not have enough credits"),
        ("rate", 429, "Too many requests"),
        ("concurrency", 429, "daily task limit"),
        ("moderation", 400, "moderation"),
        ("not_found", 404, "No such task"),
        ("server", 500, "went wrong"),
    ],
)
def test_every_refusal_is_a_sentence(runway, word: str, status: int, words: str):
    """`error` is a sentence; which it is, the status and the words tell."""
    body = {"model": "gen4_image", "promptText": f"x [sim:reject={word}]", "ratio": "720:720"}
    reply = runway.post("/v1/text_to_image", json=body)
    assert reply.status_code == status
    assert words in reply.json()["error"]


def test_how_long_to_wait(runway, media_simulator: Simulator):
    """A refusal for the rate says in a header how long to wait, if it was told to."""
    media_simulator.fault("rate_limit", provider="runway", retry_after=7)
    reply = runway.get("/v1/organization")
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "7")


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("moderation", "SAFETY.INPUT.TEXT"),
        ("provider", "INTERNAL.BAD_OUTPUT.CODE01"),
        ("timeout", "INTERNAL"),
    ],
)
def test_a_failure_has_a_code_and_words(runway, media_simulator: Simulator, word: str, code: str):
    """A task that failed says why, and costs nothing here."""
    made = submit(runway, f"x [sim:fail={word}]")
    media_simulator.advance(4)
    failed = look(runway, made)
    assert (failed["status"], failed["failureCode"], failed["cost"]) == ("FAILED", code, {"credits": 0})
    assert failed["failure"]
    assert "output" not in failed


def test_keys_and_version(connect):
    """A bad key is a 401, no version a 400; another account sees no task and has money of its own."""
    assert connect("runway", "sim-bad-key").get("/v1/organization").status_code == 401
    reply = connect("runway").get("/v1/organization")
    assert reply.status_code == 400
    assert "X-Runway-Version" in str(reply.json())
    rich, poor = connect("runway"), connect("runway", "sim-no-funds")
    for client in (rich, poor):
        client.headers["X-Runway-Version"] = "2024-11-06"
    made = submit(rich)
    assert poor.get(f"/v1/tasks/{made['id']}").status_code == 404
    assert rich.get("/v1/organization").json()["creditBalance"] == 1_000_000 - 8
    assert poor.get("/v1/organization").json()["creditBalance"] == 0


def test_deleting(runway, media_simulator: Simulator):
    """What runs is stopped and costs nothing; what has ended is gone, with its results."""
    running = submit(runway)
    reply = runway.delete(f"/v1/tasks/{running['id']}")
    assert (reply.status_code, reply.content) == (204, b"")
    stopped = look(runway, running)
    assert (stopped["status"], stopped["cost"]) == ("CANCELLED", {"credits": 0})
    done = submit(runway)
    media_simulator.advance(4)
    assert runway.delete(f"/v1/tasks/{done['id']}").status_code == 204
    assert runway.get(f"/v1/tasks/{done['id']}").status_code == 404
    assert runway.delete("/v1/tasks/nope").status_code == 404


def test_there_is_no_list(runway):
    """No path lists tasks."""
    submit(runway)
    assert runway.get("/v1/tasks").status_code == 404


def test_words_of_ones_own(runway, media_simulator: Simulator):
    """`[sim:status=...]` and `[sim:final=...]` replace RUNNING and SUCCEEDED, of which nothing may come."""
    made = submit(runway, "x [sim:status=THROTTLED] [sim:final=DONE] [sim:no-output]")
    media_simulator.advance(2)
    assert look(runway, made)["status"] == "THROTTLED"
    media_simulator.advance(2)
    done = look(runway, made)
    assert (done["status"], done["output"]) == ("DONE", [])


def test_a_film_of_our_own_picture(runway, media_simulator: Simulator):
    """A picture that the simulator made is taken as input; one that it does not have is refused."""
    made = submit(runway)
    media_simulator.advance(4)
    url = look(runway, made)["output"][0]
    first = [{"uri": url, "position": "first"}]
    submit(runway, path="image_to_video", model="gen4_turbo", promptImage=first)
    gone = {"model": "x", "promptImage": url.replace("-0.png", "-9.png")}
    assert runway.post("/v1/image_to_video", json=gone).status_code == 400
