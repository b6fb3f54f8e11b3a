from __future__ import annotations

from typing import Any

import httpx
import pytest

from airflow_media_tasks.simulator import Simulator


def submit(openai: httpx.Client, prompt: str = "waves", **given: Any) -> dict[str, Any]:
    """A new video, which must be accepted."""
    reply = openai.post("/videos", json={"prompt": prompt, **given})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def look(openai: httpx.Client, made: dict[str, Any]) -> dict[str, Any]:
    """The video as it is now."""
    return dict(openai.get(f"/videos/{made['id']}").json())


def test_a_video_goes_from_queued_to_completed(openai_media, media_simulator: Simulator):
    """A video is queued, in progress and completed; its file is served by its id alone."""
    made = submit(openai_media, model="sora-2-pro", seconds="8", size="1280x720")
    assert made["id"].startswith("video_")
    assert (made["status"], made["progress"], made["object"]) == ("queued", 0, "video")
    assert (made["model"], made["seconds"], made["size"]) == ("sora-2-pro", "8", "1280x720")
    assert openai_media.get(f"/videos/{made['id']}/content").status_code == 404
    media_simulator.advance(1.5)
    running = look(openai_media, made)
    assert running["status"] == "in_progress"
    assert 0 < running["progress"] < 100
    media_simulator.advance(2)
    reply = openai_media.get(f"/videos/{made['id']}")
    assert reply.headers["openai-poll-after-ms"] == "1000"
    done = reply.json()
    assert (done["status"], done["progress"], done["error"]) == ("completed", 100, None)
    assert done["created_at"] <= done["completed_at"] < done["expires_at"]
    assert media_simulator.url not in reply.text
    file = openai_media.get(f"/videos/{made['id']}/content")
    assert (file.status_code, file.headers["content-type"]) == (200, "video/mp4")
    thumbnail = openai_media.get(f"/videos/{made['id']}/content", params={"variant": "thumbnail"})
    assert thumbnail.headers["content-type"] == "image/png"
    assert openai_media.get(f"/videos/{made['id']}/content", params={"variant": "x"}).status_code == 404
    (entry,) = media_simulator.ledger("openai_media")
    assert (entry["operation"], entry["amount"], entry["id"]) == ("text_to_video", "0.80", made["id"])


def test_a_form_is_taken(openai_media, media_simulator: Simulator):
    """A submission is a form, whose fields may be of an object or a list, or JSON."""
    form = {"prompt": (None, "waves"), "input_reference[image_url]": (None, "https://example.com/1.png")}
    assert openai_media.post("/videos", files={**form, "tags[]": (None, "a")}).status_code == 200
    file = {"prompt": (None, "waves"), "input_reference": ("a.png", b"png", "image/png")}
    assert openai_media.post("/videos", files=file).status_code == 200
    assert [entry["operation"] for entry in media_simulator.ledger()] == ["image_to_video"] * 2
    assert [entry["request"] for entry in media_simulator.ledger()] == [
        {"prompt": "waves", "input_reference": {"image_url": "https://example.com/1.png"}, "tags": ["a"]},
        {"prompt": "waves", "input_reference": {"filename": "a.png"}},
    ]


def test_a_remix(openai_media, media_simulator: Simulator):
    """A completed video is remixed, at its own length and size; one that is still made is not."""
    made = submit(openai_media, seconds="8", size="1280x720", model="sora-2-pro")
    path = f"/videos/{made['id']}/remix"
    assert openai_media.post(path, json={"prompt": "in snow"}).status_code == 400
    media_simulator.advance(4)
    remix = openai_media.post(path, json={"prompt": "in snow"}).json()
    assert (remix["remixed_from_video_id"], remix["prompt"]) == (made["id"], "in snow")
    assert (remix["seconds"], remix["size"], remix["model"]) == ("8", "1280x720", "sora-2-pro")
    assert media_simulator.ledger()[1]["operation"] == "remix_video"
    assert openai_media.post("/videos/nope/remix", json={"prompt": "x"}).status_code == 404


def test_the_list_has_pages(openai_media):
    """Newest first unless it is told otherwise, from the last one on that was seen."""
    ids = [submit(openai_media, f"number {number}")["id"] for number in range(3)]
    page = openai_media.get("/videos", params={"limit": 2}).json()
    assert [one["id"] for one in page["data"]] == [ids[2], ids[1]]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[2], ids[1], True)
    page = openai_media.get("/videos", params={"limit": 2, "after": ids[1]}).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([ids[0]], False)
    page = openai_media.get("/videos", params={"order": "asc"}).json()
    assert [one["id"] for one in page["data"]] == ids
    assert openai_media.get("/videos", params={"limit": 101}).status_code == 400


def test_a_deleted_video_is_gone(openai_media, media_simulator: Simulator):
    """It is neither found nor listed, and its file is not served."""
    made = submit(openai_media)
    media_simulator.advance(4)
    assert openai_media.delete(f"/videos/{made['id']}").json() == {
        "id": made["id"],
        "object": "video.deleted",
        "deleted": True,
    }
    for path in ("", "/content"):
        assert openai_media.get(f"/videos/{made['id']}{path}").status_code == 404
    assert openai_media.get("/videos").json()["data"] == []


@pytest.mark.parametrize(("words", "seconds"), [("", 86400), ("[sim:expires=10]", 10)])
def test_a_file_expires(openai_media, media_simulator: Simulator, words: str, seconds: int):
    """It is served until the time that the document says."""
    made = submit(openai_media, f"x {words}")
    media_simulator.advance(4)
    path = f"/videos/{made['id']}/content"
    assert openai_media.get(path).status_code == 200
    media_simulator.advance(seconds)
    assert openai_media.get(path).status_code == 404


@pytest.mark.parametrize(
    ("word", "status", "code"),
    [
        ("auth", 401, "invalid_api_key"),
        ("funds", 429, "insufficient_quota"),
        ("rate", 429, "rate_limit_exceeded"),
        ("concurrency", 429, "rate_limit_exceeded"),
        ("moderation", 400, "moderation_blocked"),
        ("bad_request", 400, "invalid_value"),
        ("not_found", 404, "not_found"),
        ("server", 500, "server_error"),
    ],
)
def test_refusals_have_a_code(openai_media, media_simulator: Simulator, word: str, status: int, code: str):
    """No money and too many requests have one status, and are told apart by the code."""
    reply = openai_media.post("/videos", json={"prompt": f"x [sim:reject={word}]"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert reply.json()["error"]["message"]
    assert media_simulator.ledger() == []


@pytest.mark.parametrize("given", [{"prompt": ""}, {"seconds": "long"}, {"seconds": 0}, {"size": "16x9"}])
def test_what_is_wrong_is_named(openai_media, given: dict[str, Any]):
    """A wrong argument is refused by its name."""
    reply = openai_media.post("/videos", json={"prompt": "x", **given})
    assert reply.status_code == 400
    assert next(iter(given)) in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("word", "code"), [("moderation", "moderation_blocked"), ("timeout", "video_generation_failed")]
)
def test_a_failed_video_says_why(openai_media, media_simulator: Simulator, word: str, code: str):
    """A failure has a code and words, and no file."""
    made = submit(openai_media, f"x [sim:fail={word}]")
    media_simulator.advance(4)
    failed = look(openai_media, made)
    assert (failed["status"], failed["error"]["code"]) == ("failed", code)
    assert openai_media.get(f"/videos/{made['id']}/content").status_code == 404


def test_keys(connect):
    """None is needed; a bad one is refused, one without money may not submit, and others see nothing."""
    own = connect("openai_media", "")
    made = submit(own)
    assert own.get("/models").json()["data"]
    assert connect("openai_media", "sim-bad-key").get("/models").status_code == 401
    poor = connect("openai_media", "sim-no-funds")
    assert poor.post("/videos", json={"prompt": "x"}).json()["error"]["code"] == "insufficient_quota"
    other = connect("openai_media", "other")
    assert other.get(f"/videos/{made['id']}").status_code == 404
    assert other.get("/videos").json()["data"] == []


def test_limits_say_how_long_to_wait(openai_media, media_simulator: Simulator):
    """429 has the header where a time was given."""
    media_simulator.fault("rate_limit", provider="openai_media", retry_after=7)
    assert openai_media.post("/videos", json={"prompt": "x"}).headers["Retry-After"] == "7"


def test_unknown_paths(openai_media):
    """What is not there is a 404 in the same form."""
    assert openai_media.get("/images").json()["error"]["code"] == "unknown_url"
