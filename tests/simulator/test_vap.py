from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import httpx
import pytest

from airflow_media_tasks.simulator import Simulator


def task(vap: httpx.Client, task_id: str) -> dict[str, Any]:
    """The task document."""
    return dict(vap.get(f"/v3/tasks/{task_id}").json())


def submit(vap: httpx.Client, kind: str, prompt: str, **params: Any) -> str:
    """The id of a new task, which must be accepted."""
    reply = vap.post("/v3/tasks", json={"type": kind, "params": {"description": prompt, **params}})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["task_id"])


def test_an_image_goes_from_pending_to_completed(vap, media_simulator: Simulator):
    """A task is pending, then processing, then completed with a nested result and its actual cost."""
    reply = vap.post("/v3/tasks", json={"type": "image", "params": {"description": "a red mug"}})
    assert reply.json() == {
        "task_id": reply.json()["task_id"],
        "status": "pending",
        "estimated_cost": "0.1800",
    }
    task_id = reply.json()["task_id"]
    assert task(vap, task_id)["status"] == "pending"
    media_simulator.advance(1.5)
    running = task(vap, task_id)
    assert (running["status"], running["actual_cost"]) == ("processing", None)
    media_simulator.advance(2)
    done = task(vap, task_id)
    assert (done["status"], done["actual_cost"], done["type"]) == ("completed", "0.1800", "image")
    assert done["result"]["image_url"].startswith(f"{media_simulator.url}/media/")
    assert datetime.fromisoformat(done["created_at"]) < datetime.fromisoformat(done["completed_at"])


def test_the_older_type_and_prompt_names_are_accepted(vap, media_simulator: Simulator):
    """`video_generation` with `params.prompt` is the same as `video` with `params.description`."""
    reply = vap.post(
        "/v3/tasks", json={"type": "video_generation", "params": {"prompt": "a mug", "duration": 4}}
    )
    assert reply.json()["estimated_cost"] == "2.4000"
    assert [entry["operation"] for entry in media_simulator.ledger()] == ["text_to_video"]


def test_a_video_from_an_image_is_its_own_operation(vap, media_simulator: Simulator):
    """An `image_url` makes the submission an image_to_video in the ledger."""
    submit(vap, "video", "it turns", image_url="https://example.com/mug.png")
    assert media_simulator.ledger("vap")[0]["operation"] == "image_to_video"


def test_music_has_two_tracks_in_items(vap, media_simulator: Simulator):
    """Music ends with two items, each with its own audio and cover, as MP3 or WAV as asked.

    The first track's audio is where the vendor's own clients look for it: the newer in `result`, the older in
    `items[0]`.
    """
    task_id = submit(vap, "music", "calm piano", audio_format="wav")
    media_simulator.advance(4)
    result = task(vap, task_id)["result"]
    items = result["items"]
    assert result["audio_url"] == items[0]["audio_url"]
    assert len({url for item in items for url in item.values()}) == 4
    assert vap.get(items[1]["audio_url"]).headers["content-type"] == "audio/wav"
    assert vap.get(items[1]["image_url"]).headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"type": "hologram", "params": {"description": "x"}}, 400, "invalid_task_type"),
        ({"type": "image", "params": {}}, 400, "invalid_description"),
        ({"type": "image"}, 422, "validation_error"),
        ({"type": "image", "params": {"description": "x", "aspect_ratio": "7:5"}}, 422, "validation_error"),
        ({"type": "video", "params": {"description": "x", "duration": 5}}, 422, "validation_error"),
        ({"type": "video", "params": {"description": "x", "generate_audio": "yes"}}, 422, "validation_error"),
        ({"type": "music", "params": {"description": "x", "duration": 10}}, 422, "validation_error"),
        ({"type": "music", "params": {"description": "x", "audio_format": "ogg"}}, 422, "validation_error"),
        ({"type": "image", "params": {"description": "x [sim:sec=3]"}}, 422, "validation_error"),
    ],
)
def test_wrong_arguments_are_refused_and_not_billed(vap, media_simulator: Simulator, body, status, code):
    """A wrong argument gets the documented error envelope and leaves no trace in the ledger."""
    reply = vap.post("/v3/tasks", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert media_simulator.ledger() == []


def test_keys(connect):
    """A missing or bad key is a 401; health needs none."""
    for key in ("", "sim-bad-key"):
        reply = connect("vap", key).get("/v3/tasks")
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    assert connect("vap", "").get("/health").json()["status"] == "healthy"


def test_no_money(connect, media_simulator: Simulator):
    """A key without money gets 403, or 402 if the fault says so, and a balance of zero."""
    poor = connect("vap", "sim-no-funds")
    body = {"type": "image", "params": {"description": "x"}}
    reply = poor.post("/v3/tasks", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "insufficient_balance")
    media_simulator.fault("funds_status", provider="vap", status=402)
    assert poor.post("/v3/tasks", json=body).status_code == 402
    assert poor.get("/v3/balance").json()["usable"] == "0.0000"


def test_money_is_reserved_then_burnt_or_given_back(vap, media_simulator: Simulator):
    """The balance reserves the price at submission, burns it at success and refunds it at failure."""
    before = float(vap.get("/v3/agents/me/balance").json()["balance"])
    submit(vap, "image", "good")
    submit(vap, "image", "bad [sim:fail=provider]")
    reserved = vap.get("/v3/agents/me/balance").json()
    assert (float(reserved["balance"]), reserved["reserved"]) == (before, "0.3600")
    media_simulator.advance(5)
    after = vap.get("/v3/balance").json()
    assert (float(after["balance"]), after["reserved"]) == (pytest.approx(before - 0.18), "0.0000")


def test_lists_are_filtered_and_paged(vap, connect, media_simulator: Simulator):
    """The list is newest first, filtered by status, paged by limit and offset, and the account's own."""
    ids = [submit(vap, "image", f"number {n}") for n in range(4)]
    media_simulator.advance(5)
    running = submit(vap, "image", "running")
    page = vap.get("/v3/tasks", params={"limit": 2, "offset": 1}).json()
    assert [one["task_id"] for one in page["tasks"]] == [ids[3], ids[2]]
    assert (page["total"], page["limit"], page["offset"]) == (5, 2, 1)
    pending = vap.get("/v3/tasks", params={"status": "pending"}).json()["tasks"]
    assert [one["task_id"] for one in pending] == [running]
    assert pending[0]["params"] == {"description": "running"}
    assert vap.get("/v3/tasks", params={"limit": 51}).status_code == 422
    assert connect("vap", "other").get("/v3/tasks").json()["total"] == 0
    assert connect("vap", "other").get(f"/v3/tasks/{running}").status_code == 404


@pytest.mark.parametrize(
    ("shape", "path"),
    [
        ("nested", ("result", "image_url")),
        ("output_url", ("result", "output_url")),
        ("items", ("result", "items", 0, "image_url")),
        ("flat", ("result_url",)),
    ],
)
def test_shapes_of_a_result(vap, media_simulator: Simulator, shape, path):
    """`[sim:shape=...]` puts the URL where that generation of the API puts it."""
    task_id = submit(vap, "image", f"x [sim:shape={shape}]")
    media_simulator.advance(4)
    value: Any = task(vap, task_id)
    for key in path:
        value = value[key]
    assert value.endswith(".png")


@pytest.mark.parametrize(
    ("word", "field"),
    [
        ("", "error_message"),
        ("[sim:error=text]", "error"),
        ("[sim:error=object]", "error"),
        ("[sim:error=detail]", "detail"),
    ],
)
def test_shapes_of_a_failure(vap, media_simulator: Simulator, word, field):
    """`[sim:error=...]` decides where a failed task says why; the default is `error_message`."""
    task_id = submit(vap, "image", f"x [sim:fail=moderation] {word}")
    media_simulator.advance(4)
    document = task(vap, task_id)
    assert document["status"] == "failed"
    assert "content" in str(document[field])


def test_error_shapes_of_a_refusal(image_task):
    """A refusal's body is the vendor page's object, the SDK's flat text or FastAPI's detail."""
    assert image_task("x [sim:reject=moderation]").json()["error"]["code"] == "content_policy_violation"
    assert isinstance(image_task("x [sim:reject=moderation] [sim:error=text]").json()["error"], str)
    assert isinstance(image_task("x [sim:reject=moderation] [sim:error=detail]").json()["detail"], str)


@pytest.mark.parametrize(
    ("body", "operation"),
    [
        ({"operation": "inpaint", "media_url": "https://e.com/a.png", "prompt": "a hat"}, "inpaint_image"),
        ({"operation": "background_remove", "media_url": "https://e.com/a.png"}, "remove_background"),
        (
            {"operation": "upscale", "media_url": "https://e.com/a.png", "options": {"scale": 4}},
            "upscale_image",
        ),
        (
            {"operation": "video_trim", "media_url": "https://e.com/a.mp4", "start_time": 0, "end_time": 2},
            "trim_video",
        ),
        (
            {"operation": "video_merge", "media_urls": ["https://e.com/a.mp4", "https://e.com/b.mp4"]},
            "merge_videos",
        ),
    ],
)
def test_operations(vap, media_simulator: Simulator, body, operation):
    """A post-production operation is accepted, billed, and readable under both paths."""
    reply = vap.post("/v3/operations", json=body).json()
    assert media_simulator.ledger()[0]["operation"] == operation
    media_simulator.advance(4)
    for path in ("operations", "tasks"):
        assert vap.get(f"/v3/{path}/{reply['operation_id']}").json()["status"] == "completed"


@pytest.mark.parametrize(
    "body",
    [
        {"operation": "paint"},
        {"operation": "inpaint", "media_url": "https://e.com/a.png"},
        {"operation": "upscale", "media_url": "https://e.com/a.png", "options": {"scale": 3}},
        {"operation": "video_trim", "media_url": "https://e.com/a.mp4", "start_time": 2, "end_time": 2},
        {"operation": "video_merge", "media_urls": ["https://e.com/a.mp4"]},
        {"operation": "background_remove"},
    ],
)
def test_wrong_operations_are_refused(vap, media_simulator: Simulator, body):
    """An operation without what it needs is a 422 and is not billed."""
    assert vap.post("/v3/operations", json=body).status_code == 422
    assert media_simulator.ledger() == []


def test_a_preset_holds_the_connection_until_all_is_made(vap, media_simulator: Simulator):
    """`/v3/execute` answers once, with every output, when the last one is done."""
    answers: list[dict[str, Any]] = []

    def execute() -> None:
        body = {"preset": "streaming_campaign", "prompt": "a mug [sim:seconds=60]"}
        answers.append(vap.post("/v3/execute", json=body).json())

    waiting = threading.Thread(target=execute)
    waiting.start()
    while not media_simulator.ledger():
        pass
    assert not answers
    media_simulator.advance(60)
    waiting.join()
    assert sorted(answers[0]["outputs"]) == ["music", "thumbnail", "video"]
    assert media_simulator.ledger()[0]["operation"] == "run_preset"


def test_rate_limit_headers_count_down(vap):
    """Every answer carries X-RateLimit headers, and each request leaves one less."""
    first, second = (vap.get("/v3/balance").headers for _ in range(2))
    if first["x-ratelimit-reset"] == second["x-ratelimit-reset"]:
        assert int(first["x-ratelimit-remaining"]) == int(second["x-ratelimit-remaining"]) + 1


def test_unknown_task_and_path(vap):
    """An unknown task is `task_not_found`; an unknown path is FastAPI's plain detail."""
    assert vap.get("/v3/tasks/nope").json()["error"]["code"] == "task_not_found"
    reply = vap.get("/v4/tasks")
    assert (reply.status_code, reply.json()) == (404, {"detail": "Not Found"})


def test_the_mcp_paths(vap, media_simulator: Simulator):
    """The vendor's MCP sub-paths make a task that the V3 API shows, too."""
    reply = vap.post("/mcp/tools/call", json={"name": "generate_image", "arguments": {"prompt": "a mug"}})
    task_id = media_simulator.ledger()[0]["id"]
    assert task_id in reply.json()["content"][0]["text"]
    assert task(vap, task_id)["type"] == "image"
