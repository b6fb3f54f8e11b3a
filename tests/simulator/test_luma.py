from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx
import pytest

from airflow_media_tasks.simulator import Simulator


FILM = {"model": "ray-2", "prompt": "waves"}
IMAGE = "https://example.com/1.png"


def dream(luma: httpx.Client, path: str = "/generations/video", **given: Any) -> dict[str, Any]:
    """A new generation, which must be accepted."""
    reply = luma.post(path, json={**FILM, **given})
    assert reply.status_code == 201, reply.text
    return dict(reply.json())


def look(luma: httpx.Client, generation: dict[str, Any], agents: str = "") -> dict[str, Any]:
    """The generation as it is now."""
    return dict(luma.get(f"{agents}/generations/{generation['id']}").json())


def test_a_film_is_dreamt(luma, media_simulator: Simulator):
    """A generation is queued, dreams with a film of its progress, and is completed with film and picture."""
    made = dream(luma, callback_url="https://example.com/x")
    assert (made["state"], made["assets"], made["generation_type"]) == ("queued", None, "video")
    assert made["request"] == {**FILM, "callback_url": "https://example.com/x"}
    assert datetime.fromisoformat(made["created_at"])
    media_simulator.advance(1.5)
    running = look(luma, made)
    assert (running["state"], list(running["assets"])) == ("dreaming", ["progress_video"])
    media_simulator.advance(2)
    done = look(luma, made)
    assert (done["state"], done["failure_reason"], sorted(done["assets"])) == (
        "completed",
        None,
        ["image", "video"],
    )
    assert httpx.get(done["assets"]["video"]).headers["content-type"] == "video/mp4"
    (entry,) = media_simulator.ledger("luma")
    assert (entry["operation"], entry["client_ref"]) == ("text_to_video", "https://example.com/x")


@pytest.mark.parametrize(
    ("path", "given", "operation"),
    [
        ("/generations", {}, "text_to_video"),
        ("/generations/video", {"keyframes": {"frame0": {"type": "image", "url": IMAGE}}}, "image_to_video"),
        ("/generations/image", {}, "text_to_image"),
        ("/generations/image", {"image_ref": [{"url": IMAGE}]}, "image_to_image"),
        ("/agents/generations", {}, "agents/text_to_image"),
        ("/agents/generations", {"type": "image_edit", "source": {"url": IMAGE}}, "agents/image_to_image"),
        ("/agents/generations", {"type": "video"}, "agents/text_to_video"),
        (
            "/agents/generations",
            {"type": "video", "video": {"start_frame": {"url": IMAGE}}},
            "agents/image_to_video",
        ),
        ("/agents/generations", {"type": "video_edit", "source": {"url": IMAGE}}, "agents/edit_video"),
    ],
)
def test_each_way_is_billed_under_its_name(
    luma, media_simulator: Simulator, path: str, given: dict[str, Any], operation: str
):
    """What a generation is made from tells what it is, and one of Agents is not read at Dream Machine."""
    made = dream(luma, path, **given)
    assert media_simulator.ledger()[0]["operation"] == operation
    agents = "/agents" if "agents" in path else ""
    assert look(luma, made, agents)["id"] == made["id"]
    other = "" if agents else "/agents"
    assert luma.get(f"{other}/generations/{made['id']}").status_code == 404


def test_a_film_is_gone_on_with(luma, media_simulator: Simulator):
    """A finished film is extended or upscaled by its id; one that is still made is not."""
    made = dream(luma)
    frames = {"frame0": {"type": "generation", "id": made["id"]}}
    assert luma.post("/generations/video", json={**FILM, "keyframes": frames}).status_code == 422
    assert luma.post(f"/generations/{made['id']}/upscale", json={}).status_code == 422
    media_simulator.advance(4)
    dream(luma, keyframes=frames)
    dream(luma, f"/generations/{made['id']}/upscale", resolution="4k")
    assert [entry["operation"] for entry in media_simulator.ledger()[1:]] == ["extend_video", "upscale_video"]


def test_a_picture_may_be_waited_for(luma):
    """With `sync` the reply is the finished picture, or one that is not finished when the time is up."""
    done = dream(luma, "/generations/image", prompt="x [sim:seconds=0]", sync=True)
    assert (done["state"], list(done["assets"])) == ("completed", ["image"])
    late = dream(luma, "/generations/image", sync=True, sync_timeout=0.01)
    assert late["state"] != "completed"


def test_agents_shows_a_list_of_files_and_no_request(luma, media_simulator: Simulator):
    """Its words and places are other ones, and each reply names its request."""
    made = dream(luma, "/agents/generations")
    assert "request" not in made
    media_simulator.advance(1.5)
    assert look(luma, made, "/agents")["state"] == "processing"
    media_simulator.advance(4)
    reply = luma.get(f"/agents/generations/{made['id']}", headers={"X-Request-Id": "mine"})
    assert (reply.headers["X-Request-Id"], reply.headers["X-API-Version"]) == ("mine", "2026-04-01")
    (output,) = reply.json()["output"]
    assert (output["type"], output["url"].startswith(f"{media_simulator.url}/media/")) == ("image", True)
    assert luma.get("/agents/files").json()["data"] == []
    assert "X-API-Version" not in luma.get("/ping").headers


@pytest.mark.parametrize(
    ("word", "code", "text"),
    [("moderation", "content_moderated", "moderation"), ("provider", "generation_failed", "made")],
)
def test_a_failure_says_why(luma, media_simulator: Simulator, word: str, code: str, text: str):
    """Dream Machine has words for it, Agents a code, too."""
    plain, coded = (
        dream(luma, path, prompt=f"x [sim:fail={word}]")
        for path in ("/generations/video", "/agents/generations")
    )
    media_simulator.advance(4)
    assert text in look(luma, plain)["failure_reason"]
    assert "failure_code" not in look(luma, plain)
    assert look(luma, coded, "/agents")["failure_code"] == code


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("auth", 401),
        ("funds", 400),
        ("rate", 429),
        ("moderation", 400),
        ("bad_request", 422),
        ("server", 500),
    ],
)
def test_refusals_have_a_detail(luma, media_simulator: Simulator, word: str, status: int):
    """A refusal has words, or what is wrong with which argument, and costs nothing."""
    reply = luma.post("/generations/video", json={**FILM, "prompt": f"x [sim:reject={word}]"})
    assert reply.status_code == status
    assert reply.json()["detail"]
    assert media_simulator.ledger() == []


@pytest.mark.parametrize(
    ("path", "given", "word"),
    [
        ("/generations/video", {"prompt": "x"}, "model"),
        ("/generations/video", {"model": "ray-2"}, "prompt"),
        ("/generations/video", {**FILM, "duration": 5}, "duration"),
        ("/agents/generations", {}, "prompt"),
        ("/agents/generations", {"prompt": "x", "type": "smell"}, "type"),
        ("/agents/generations", {"prompt": "x", "type": "image_edit"}, "source"),
    ],
)
def test_what_is_wrong_is_named(luma, path: str, given: dict[str, Any], word: str):
    """A wrong argument is told by its name."""
    reply = luma.post(path, json=given)
    assert (reply.status_code, reply.json()["detail"][0]["loc"]) == (422, ["body", word])


def test_keys(connect):
    """A bad key is a 401, an account without money has two ways to be told, another one sees nothing."""
    assert connect("luma", "sim-bad-key").get("/credits").status_code == 401
    poor = connect("luma", "sim-no-funds")
    assert poor.get("/credits").json() == {"credit_balance": 0}
    assert poor.post("/generations/video", json=FILM).status_code == 400
    assert poor.post("/agents/generations", json=FILM).status_code == 402
    made = dream(connect("luma"))
    assert connect("luma", "other").get(f"/generations/{made['id']}").status_code == 404


def test_limits_say_how_long_to_wait(luma, media_simulator: Simulator):
    """429 has the header where a time was given."""
    media_simulator.fault("rate_limit", provider="luma", retry_after=7)
    assert luma.post("/generations/video", json=FILM).headers["Retry-After"] == "7"
    media_simulator.clear_faults()
    media_simulator.fault("slots", provider="luma", limit=1)
    dream(luma)
    assert luma.post("/generations/video", json=FILM).status_code == 429


def test_the_list_has_pages(luma, media_simulator: Simulator):
    """Newest first, those of Dream Machine alone, and whether there are more."""
    ids = [dream(luma, prompt=f"number {number}")["id"] for number in range(5)]
    dream(luma, "/agents/generations")
    page = luma.get("/generations", params={"limit": 2, "offset": 1}).json()
    assert [one["id"] for one in page["generations"]] == [ids[3], ids[2]]
    assert (page["count"], page["has_more"], page["limit"], page["offset"]) == (5, True, 2, 1)
    assert luma.get("/generations", params={"offset": 4}).json()["has_more"] is False
    assert luma.get("/generations", params={"limit": 0}).status_code == 422


def test_no_echo_hides_the_mark(luma):
    """`[sim:no-echo]` leaves the callback address out of what is shown."""
    made = dream(luma, prompt="x [sim:no-echo]", callback_url="https://example.com/x")
    assert "callback_url" not in look(luma, made)["request"]
