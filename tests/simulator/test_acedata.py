from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from airflow_media_tasks.simulator import Simulator


VEO = {"action": "text2video", "prompt": "a red mug", "async": True}


def submit(acedata: httpx.Client, path: str = "/veo/videos", **body: Any) -> str:
    """The id of a new task, which must be accepted."""
    reply = acedata.post(path, json={**(VEO if path == "/veo/videos" else {"async": True}), **body})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["task_id"])


def retrieve(acedata: httpx.Client, task_id: str, service: str = "veo") -> Any:
    """The task document."""
    return acedata.post(f"/{service}/tasks", json={"id": task_id, "action": "retrieve"}).json()


def batch(acedata: httpx.Client, service: str = "veo", **body: Any) -> Any:
    """The answer to retrieve_batch."""
    return acedata.post(f"/{service}/tasks", json={"action": "retrieve_batch", **body}).json()


def finished_video(acedata: httpx.Client, simulator: Simulator) -> str:
    """The video_id of a finished Veo task."""
    task_id = submit(acedata)
    simulator.advance(4)
    return str(retrieve(acedata, task_id)["response"]["data"][0]["id"])


def test_without_async_the_connection_is_held(acedata, media_simulator: Simulator):
    """A submission with neither async nor callback_url answers with the final body, when ready."""
    answers: list[dict[str, Any]] = []
    body = {"action": "text2video", "prompt": "slow [sim:seconds=60]"}
    waiting = threading.Thread(target=lambda: answers.append(acedata.post("/veo/videos", json=body).json()))
    waiting.start()
    while not media_simulator.ledger():
        pass
    assert not answers
    media_simulator.advance(60)
    waiting.join()
    assert answers[0]["success"] is True
    assert answers[0]["data"][0]["state"] == "succeeded"


@pytest.mark.parametrize("extra", [{"async": True}, {"callback_url": "https://api.acedata.cloud/health"}])
def test_async_and_callback_url_answer_at_once(acedata, extra):
    """`async` or a callback_url makes the answer the bare task id."""
    body = {"action": "text2video", "prompt": "x", **extra}
    assert list(acedata.post("/veo/videos", json=body).json()) == ["task_id"]


def test_the_task_document(acedata, media_simulator: Simulator):
    """The document echoes the request, lacks `response` while running, and then holds the final body."""
    task_id = submit(acedata, callback_url="https://example.com/cb?ref=1")
    running = retrieve(acedata, task_id)
    assert running["request"] == {**VEO, "callback_url": "https://example.com/cb?ref=1"}
    assert "response" not in running
    assert isinstance(running["created_at"], float)
    assert media_simulator.ledger()[0]["client_ref"] == "https://example.com/cb?ref=1"
    media_simulator.advance(4)
    response = retrieve(acedata, task_id)["response"]
    assert response["task_id"] == task_id
    assert response["data"][0]["video_url"].endswith(".mp4")


def test_the_task_document_without_an_echo(acedata, media_simulator: Simulator):
    """With `no-echo` the document does not show the callback_url, alone or in a list; the ledger does."""
    echoed = {**VEO, "prompt": "a mug [sim:no-echo]"}
    task_id = submit(acedata, prompt=echoed["prompt"], callback_url="https://example.com/cb?ref=1")
    assert retrieve(acedata, task_id)["request"] == echoed
    assert [item["request"] for item in batch(acedata)["items"]] == [echoed]
    assert media_simulator.ledger()[0]["client_ref"] == "https://example.com/cb?ref=1"


def test_luma_is_flat_with_sizes(acedata, media_simulator: Simulator):
    """A Luma result is flat, with sizes, thumbnail and the word completed; its document has finished_at."""
    task_id = submit(acedata, "/luma/videos", prompt="a mug", aspect_ratio="9:16")
    media_simulator.advance(4)
    document = retrieve(acedata, task_id, "luma")
    response = document["response"]
    assert (response["state"], response["video_width"], response["video_height"]) == ("completed", 360, 640)
    assert document["finished_at"] > document["started_at"] > document["created_at"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/veo/videos", {"prompt": "x"}),
        ("/veo/videos", {"action": "text2video"}),
        ("/veo/videos", {"action": "text2video", "prompt": "x", "model": "veo99"}),
        ("/veo/videos", {"action": "image2video", "prompt": "x"}),
        ("/veo/videos", {"action": "image2video", "prompt": "x", "image_urls": ["https://e.com/1"] * 3}),
        ("/veo/videos", {"action": "ingredients2video", "prompt": "x", "image_urls": ["https://e.com/1"]}),
        ("/veo/videos", {"action": "get1080p", "video_id": "nope"}),
        ("/veo/videos", {"action": "text2video", "prompt": "x", "aspect_ratio": "1:1"}),
        ("/veo/upsample", {"video_id": "nope", "action": "4k"}),
        ("/veo/extend", {"model": "veo31"}),
        ("/luma/videos", {}),
        ("/luma/videos", {"prompt": "x", "aspect_ratio": "2:1"}),
        ("/luma/videos", {"action": "extend", "prompt": "x"}),
        ("/luma/videos", {"action": "extend", "prompt": "x", "video_id": "nope"}),
        ("/luma/videos", {"prompt": "x", "loop": "yes"}),
    ],
)
def test_wrong_arguments_are_refused_and_not_billed(acedata, media_simulator: Simulator, path, body):
    """A wrong argument is `bad_request` in the vendor's envelope with a trace_id, and is not billed."""
    reply = acedata.post(path, json={"async": True, **body})
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "bad_request"
    assert reply.json()["trace_id"]
    assert media_simulator.ledger() == []


@pytest.mark.parametrize(
    ("path", "body", "operation"),
    [
        ("/veo/videos", {"action": "get1080p"}, "veo/upscale_video"),
        ("/veo/upsample", {"action": "gif"}, "veo/upscale_video"),
        ("/veo/extend", {"model": "veo31-fast"}, "veo/extend_video"),
        ("/veo/reshoot", {"motion_type": "STATIONARY"}, "veo/reshoot_video"),
        ("/veo/objects", {"action": "insert", "prompt": "a spoon"}, "veo/insert_object"),
    ],
)
def test_what_is_made_of_a_veo_video(acedata, connect, media_simulator: Simulator, path, body, operation):
    """Every follow-up takes the video_id of a finished video, and only of one's own."""
    video_id = finished_video(acedata, media_simulator)
    request = {"video_id": video_id, "async": True, **body}
    assert connect("acedata", "other").post(path, json=request).status_code == 400
    task_id = acedata.post(path, json=request).json()["task_id"]
    assert media_simulator.ledger()[-1]["operation"] == operation
    media_simulator.advance(4)
    assert retrieve(acedata, task_id)["response"]["data"][0]["state"] == "succeeded"


def test_luma_operations(acedata, media_simulator: Simulator):
    """A start image makes image_to_video; extend takes a video_id or a video_url."""
    first = submit(acedata, "/luma/videos", prompt="x", start_image_url="https://example.com/a.png")
    media_simulator.advance(4)
    video_id = retrieve(acedata, first, "luma")["response"]["video_id"]
    submit(acedata, "/luma/videos", action="extend", prompt="x", video_id=video_id)
    submit(acedata, "/luma/videos", action="extend", prompt="x", video_url="https://example.com/a.mp4")
    operations = [entry["operation"] for entry in media_simulator.ledger("acedata")]
    assert operations == ["luma/image_to_video", "luma/extend_video", "luma/extend_video"]


def test_a_batch_is_truncated_unordered_and_without_unknown_ids(acedata):
    """A batch has 12 items unless a limit is given, at most 50, in another order, without unknown ids."""
    ids = [submit(acedata, prompt=str(n)) for n in range(20)]
    assert len(batch(acedata, ids=ids)["items"]) == 12
    whole = batch(acedata, ids=[*ids, "nope"], limit=21)
    assert {item["id"] for item in whole["items"]} == set(ids)
    assert [item["id"] for item in whole["items"]] != ids
    assert whole["count"] == 20
    more = [submit(acedata, prompt=str(n)) for n in range(40)]
    assert len(batch(acedata, ids=[*ids, *more], limit=60)["items"]) == 50


def test_a_batch_is_of_one_account_and_one_service(acedata, connect):
    """Another key's tasks and another service's tasks are not found."""
    task_id = submit(acedata)
    assert batch(connect("acedata", "other"), ids=[task_id])["items"] == []
    assert batch(acedata, "luma", ids=[task_id])["items"] == []
    assert connect("acedata", "other").post("/veo/tasks", json={"id": task_id}).status_code == 404


def test_trace_ids(acedata):
    """A task can be asked for by its trace_id, alone or in a batch."""
    task_id = submit(acedata)
    trace_id = retrieve(acedata, task_id)["trace_id"]
    assert (
        acedata.post("/veo/tasks", json={"trace_id": trace_id, "action": "retrieve"}).json()["id"] == task_id
    )
    assert [item["id"] for item in batch(acedata, trace_ids=[trace_id])["items"]] == [task_id]


def test_the_list_is_by_time_newest_first(acedata, media_simulator: Simulator):
    """Without ids the batch lists the account's tasks within created_at bounds, with the total as count."""
    ids = []
    for n in range(4):
        ids.append(submit(acedata, prompt=str(n)))
        media_simulator.advance(10)
    times = [retrieve(acedata, task_id)["created_at"] for task_id in ids]
    listed = batch(acedata, created_at_min=times[1], created_at_max=times[2] + 0.1)
    assert [item["id"] for item in listed["items"]] == [ids[2], ids[1]]
    page = batch(acedata, limit=1, offset=1)
    assert ([item["id"] for item in page["items"]], page["count"]) == ([ids[2]], 4)
    assert batch(acedata, type="images")["items"] == []


def test_unknown_ids_have_three_forms(acedata, media_simulator: Simulator):
    """An unknown id is a 404, or an empty object or null if the fault `unknown_as` says so."""
    assert acedata.post("/veo/tasks", json={"id": "nope"}).status_code == 404
    for value, body in (("empty", {}), ("null", None)):
        media_simulator.fault("unknown_as", value=value)
        assert acedata.post("/veo/tasks", json={"id": "nope"}).json() == body


def test_refusals(connect, media_simulator: Simulator):
    """Auth, money, moderation, rate, busy and unknown apis have the vendor's statuses and codes."""
    client = connect("acedata")
    expected = {
        "auth": (401, "invalid_token"),
        "funds": (403, "used_up"),
        "moderation": (403, "forbidden"),
        "rate": (429, "too_many_requests"),
        "concurrency": (500, "busy"),
        "server": (500, "api_error"),
    }
    for reason, (status, code) in expected.items():
        reply = client.post("/veo/videos", json={**VEO, "prompt": f"x [sim:reject={reason}]"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert connect("acedata", "sim-bad-key").post("/veo/tasks", json={"id": "x"}).status_code == 401
    poor = connect("acedata", "sim-no-funds")
    assert poor.post("/veo/videos", json=VEO).json()["error"]["code"] == "used_up"
    assert poor.get("/api/v1/applications/").json()["items"][0]["remaining_amount"] == 0
    assert client.post("/sora/videos", json={}).json()["error"]["code"] == "no_api"
    assert media_simulator.ledger() == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("[sim:response=null]", None),
        ("[sim:response=partial]", {"success": True, "data": []}),
        ("[sim:temporary]", {"success": False, "error": "temporary"}),
    ],
)
def test_running_responses(acedata, word, expected):
    """While a task runs, `response` can be null, partial or a temporary error."""
    response = retrieve(acedata, submit(acedata, prompt=f"x {word}"))["response"]
    if expected is None:
        assert response is None
    else:
        assert expected.items() <= response.items()


def test_a_failed_task_carries_the_error_in_response(acedata, media_simulator: Simulator):
    """A failed task has `success: false` and an error object with a code in `response`."""
    task_id = submit(acedata, prompt="x [sim:fail=moderation]")
    media_simulator.advance(4)
    response = retrieve(acedata, task_id)["response"]
    assert (response["success"], response["error"]["code"]) == (False, "forbidden")


def test_result_shapes(acedata, media_simulator: Simulator):
    """`[sim:shape=object]` makes data an object; `[sim:no-output]` has success but no URL."""
    shaped = submit(acedata, prompt="x [sim:shape=object]")
    empty = submit(acedata, prompt="x [sim:no-output]")
    media_simulator.advance(4)
    assert retrieve(acedata, shaped)["response"]["data"]["video_url"]
    assert "video_url" not in retrieve(acedata, empty)["response"]["data"][0]


def test_inline_answers_with_the_result(acedata):
    """`[sim:inline]` answers an async submission with the final body."""
    reply = acedata.post("/veo/videos", json={**VEO, "prompt": "x [sim:inline]"}).json()
    assert reply["data"][0]["state"] == "succeeded"


def test_missing_from_batch(acedata):
    """`[sim:missing-from-batch]` leaves the task out of a batch; asked for alone, it is there."""
    task_id = submit(acedata, prompt="x [sim:missing-from-batch]")
    assert batch(acedata, ids=[task_id])["items"] == []
    assert retrieve(acedata, task_id)["id"] == task_id


@pytest.mark.parametrize(
    ("path", "body", "service", "urls"),
    [
        ("/nano-banana/images", {"prompt": "a mug", "count": 2}, "nano-banana", 2),
        ("/flux/images", {"action": "generate", "prompt": "a mug"}, "flux", 1),
        ("/suno/audios", {"prompt": "calm piano"}, "suno", 4),
    ],
)
def test_other_services_of_the_account(acedata, media_simulator: Simulator, path, body, service, urls):
    """Images have no status word, Suno has two tracks with covers, as their result tables say."""
    task_id = submit(acedata, path, **body)
    media_simulator.advance(4)
    items = retrieve(acedata, task_id, service)["response"]["data"]
    found = [item[key] for item in items for key in ("image_url", "audio_url") if key in item]
    assert len(set(found)) == urls
    assert all(acedata.get(url).status_code == 200 for url in found)
    assert all(("state" in item) == (service == "suno") for item in items)
