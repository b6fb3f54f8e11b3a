from __future__ import annotations

import base64
import io
import time
from typing import Any

import httpx
import jwt
import pytest
from PIL import Image

from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.simulator.kling import ACCESS_KEY, SECRET_KEY


T2V = "/v1/videos/text2video"


def submit(kling: httpx.Client, path: str = T2V, **body: Any) -> str:
    """The id of a new legacy task, which must be accepted."""
    reply = kling.post(path, json={"prompt": "a red mug", **body})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["data"]["task_id"])


def task(kling: httpx.Client, task_id: str, path: str = T2V) -> Any:
    """The data of a legacy task."""
    return kling.get(f"{path}/{task_id}").json()["data"]


def token(secret: str = SECRET_KEY, **claims: Any) -> str:
    """A JWT as Kling's documentation makes it."""
    now = int(time.time())
    return jwt.encode({"iss": ACCESS_KEY, "exp": now + 1800, "nbf": now - 5, **claims}, secret, "HS256")


def picture(width: int, height: int, kind: str = "PNG") -> str:
    """An image in raw base64."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_video_goes_from_submitted_to_succeed(kling, media_simulator: Simulator):
    """The envelope has a request_id; the words are submitted, processing, succeed; costs are strings."""
    reply = kling.post(T2V, json={"prompt": "a mug", "duration": "10", "mode": "pro"}).json()
    assert (reply["code"], reply["data"]["task_status"]) == (0, "submitted")
    assert reply["request_id"]
    task_id = reply["data"]["task_id"]
    media_simulator.advance(1.5)
    assert task(kling, task_id)["task_status"] == "processing"
    media_simulator.advance(2)
    done = task(kling, task_id)
    assert (done["task_status"], done["final_unit_deduction"]) == ("succeed", "3.5")
    assert done["task_result"]["videos"][0]["duration"] == "10.1"
    assert isinstance(done["created_at"], int)


def test_a_task_is_read_only_through_the_path_that_made_it(kling, connect):
    """Another path, another account and an unknown id are all 404 with code 1203."""
    task_id = submit(kling)
    for client, path in (
        (kling, f"/v1/videos/image2video/{task_id}"),
        (connect("kling", "other"), f"{T2V}/{task_id}"),
        (kling, f"{T2V}/nope"),
    ):
        reply = client.get(path)
        assert (reply.status_code, reply.json()["code"]) == (404, 1203)


def test_unknown_ids_can_be_1201(kling, media_simulator: Simulator):
    """The fault `unknown_as` turns an unknown id into HTTP 400 with code 1201."""
    media_simulator.fault("unknown_as", provider="kling", value="1201")
    reply = kling.get(f"{T2V}/nope")
    assert (reply.status_code, reply.json()["code"]) == (400, 1201)


def test_external_task_ids(kling, connect, media_simulator: Simulator):
    """An own id finds the task, must be unique in the account, and is the ledger's client_ref."""
    task_id = submit(kling, external_task_id="mine-1")
    assert task(kling, "mine-1")["task_id"] == task_id
    assert task(kling, "mine-1")["task_info"] == {"external_task_id": "mine-1"}
    again = kling.post(T2V, json={"prompt": "x", "external_task_id": "mine-1"})
    assert (again.status_code, again.json()["code"]) == (400, 1201)
    assert again.json()["message"] == "external_task_id already exists"
    submit(connect("kling", "other"), external_task_id="mine-1")
    assert [entry["client_ref"] for entry in media_simulator.ledger("kling")] == ["mine-1", "mine-1"]


def test_the_list_is_paged(kling):
    """A path lists its own tasks, newest first, by pageNum and pageSize within their bounds."""
    ids = [submit(kling) for _ in range(3)]
    submit(kling, "/v1/images/generations")
    page = kling.get(T2V, params={"pageNum": 2, "pageSize": 2}).json()["data"]
    assert [one["task_id"] for one in page] == [ids[0]]
    assert len(kling.get(T2V).json()["data"]) == 3
    assert kling.get(T2V, params={"pageSize": 501}).json()["code"] == 1201


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (T2V, {"prompt": ""}, "prompt"),
        (T2V, {"prompt": "x" * 2501}, "prompt"),
        (T2V, {"duration": 5}, "duration"),
        (T2V, {"duration": "7"}, "duration"),
        (T2V, {"mode": "professional"}, "mode"),
        (T2V, {"model_name": "kling-v1.6"}, "model_name"),
        (T2V, {"aspect_ratio": "4:3"}, "aspect_ratio"),
        (T2V, {"cfg_scale": 2}, "cfg_scale"),
        ("/v1/videos/image2video", {}, "image"),
        ("/v1/videos/image2video", {"image": "data:image/png;base64,AAAA"}, "data:"),
        ("/v1/videos/image2video", {"image": "not base64"}, "image"),
        ("/v1/videos/image2video", {"image": picture(200, 400)}, "300 px"),
        ("/v1/videos/image2video", {"image": picture(400, 400, "GIF")}, "JPEG or PNG"),
        ("/v1/videos/multi-image2video", {"image_list": []}, "image_list"),
        ("/v1/videos/video-extend", {"video_id": "nope"}, "video_id"),
        ("/v1/videos/lip-sync", {"input": {"mode": "text2video", "text": "hi", "voice_id": "v"}}, "video_id"),
        ("/v1/videos/effects", {"effect_scene": "hug", "input": {"images": ["https://e.com/1"]}}, "images"),
        ("/v1/images/generations", {"n": 10}, "n "),
        ("/v1/images/kolors-virtual-try-on", {"human_image": "https://e.com/1"}, "cloth_image"),
        ("/v1/audio/text-to-audio", {"duration": 60}, "duration"),
        ("/v1/audio/tts", {"text": "hi", "voice_id": "v"}, "voice_language"),
    ],
)
def test_wrong_arguments_name_the_field(kling, media_simulator: Simulator, path, body, field):
    """A wrong argument is 1201 with the field's name in the message, and is not billed."""
    reply = kling.post(path, json={"prompt": "x", **body})
    assert (reply.status_code, reply.json()["code"]) == (400, 1201)
    assert field in reply.json()["message"]
    assert media_simulator.ledger() == []


@pytest.mark.parametrize(
    ("path", "body", "operation", "kinds"),
    [
        ("/v1/videos/image2video", {"image": picture(400, 400)}, "image_to_video", {"videos": 1}),
        (
            "/v1/videos/multi-image2video",
            {"image_list": [{"image": "https://e.com/1"}]},
            "multi_image_to_video",
            {"videos": 1},
        ),
        (
            "/v1/videos/effects",
            {"effect_scene": "hug", "input": {"image": "https://e.com/1"}},
            "video_effects",
            {"videos": 1},
        ),
        (
            "/v1/videos/lip-sync",
            {"input": {"mode": "text2video", "text": "hi", "voice_id": "v", "video_url": "https://e.com/1"}},
            "lip_sync",
            {"videos": 1},
        ),
        ("/v1/images/generations", {"n": 3}, "text_to_image", {"images": 3}),
        (
            "/v1/images/kolors-virtual-try-on",
            {"human_image": "https://e.com/1", "cloth_image": "https://e.com/2"},
            "virtual_try_on",
            {"images": 1},
        ),
        ("/v1/audio/text-to-audio", {"duration": 5}, "text_to_audio", {"audios": 1}),
        (
            "/v1/audio/video-to-audio",
            {"video_url": "https://e.com/1"},
            "video_to_audio",
            {"videos": 1, "audios": 1},
        ),
    ],
)
def test_every_legacy_path_makes_its_files(kling, media_simulator: Simulator, path, body, operation, kinds):
    """Each path bills its operation and ends with downloadable files in the documented fields."""
    task_id = submit(kling, path, **body)
    assert media_simulator.ledger()[0]["operation"] == operation
    media_simulator.advance(4)
    result = task(kling, task_id, path)["task_result"]
    assert {kind: len(files) for kind, files in result.items()} == kinds
    for files in result.values():
        for file in files:
            urls = [value for key, value in file.items() if key.startswith("url")]
            assert urls
            assert all(kling.get(url).status_code == 200 for url in urls)


def test_extend_names_its_parent(kling, media_simulator: Simulator):
    """video-extend takes a video_id, not a task id, ignores an own id, and names the parent video."""
    first = submit(kling)
    media_simulator.advance(4)
    video_id = task(kling, first)["task_result"]["videos"][0]["id"]
    path = "/v1/videos/video-extend"
    assert kling.post(path, json={"video_id": first}).json()["code"] == 1201
    second = submit(kling, path, video_id=video_id, external_task_id="ignored")
    assert kling.get(f"{path}/ignored").status_code == 404
    media_simulator.advance(4)
    assert task(kling, second, path)["task_info"]["parent_video"]["id"] == video_id


def test_speech_is_synchronous(kling):
    """Text to speech answers its creation with the finished audio."""
    body = {"text": "hello", "voice_id": "v", "voice_language": "en"}
    data = kling.post("/v1/audio/tts", json=body).json()["data"]
    assert data["task_status"] == "succeed"
    assert kling.get(data["task_result"]["audios"][0]["url"]).headers["content-type"] == "audio/mpeg"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, 1001),
        ("Bearer", 1001),
        ("Basic abc", 1002),
        ("Bearer sim-bad-key", 1002),
        (f"Bearer {token('another-secret-0123456789abcdef012345')}", 1002),
        (f"Bearer {token(iss='somebody')}", 1002),
        (f"Bearer {token(nbf=int(time.time()) + 3600)}", 1003),
        (f"Bearer {token(exp=int(time.time()) - 3600)}", 1004),
        ("Bearer a.b.c", 1002),
    ],
)
def test_bad_tokens(media_simulator: Simulator, header, code):
    """Every way in which a token can be wrong has its own code, with HTTP 401."""
    headers = {} if header is None else {"Authorization": header}
    reply = httpx.get(f"{media_simulator.url}/kling{T2V}", headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (401, code)


def test_a_good_token_is_one_account(kling, connect):
    """All JWTs of an access key are one account; the new standard does not take them."""
    first, second = connect("kling", token()), connect("kling", token(nonce=1))
    task_id = submit(first)
    assert task(second, task_id)["task_id"] == task_id
    assert second.get("/tasks", params={"task_ids": task_id}).status_code == 401


def test_clock_skew(connect, media_simulator: Simulator):
    """With a clock an hour ahead a fresh token has expired, and the Date header tells by how much."""
    media_simulator.fault("clock_skew", provider="kling", offset=3600)
    reply = connect("kling", token()).get(T2V)
    assert reply.json()["code"] == 1004
    server = time.mktime(time.strptime(reply.headers["date"], "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone
    assert abs(server - time.time() - 3600) < 5
    ahead = int(time.time()) + 3600
    assert connect("kling", token(exp=ahead + 1800, nbf=ahead - 5)).get(T2V).json()["code"] == 0


def test_slots_count_images(kling, media_simulator: Simulator):
    """The slot limit counts n for n images, refuses with 1303 and no data, and frees slots as tasks end."""
    media_simulator.fault("slots", provider="kling", limit=3)
    submit(kling, "/v1/images/generations", n=2)
    refused = kling.post("/v1/images/generations", json={"prompt": "x", "n": 2})
    assert (refused.status_code, refused.json()["code"]) == (429, 1303)
    assert "data" not in refused.json()
    submit(kling)
    assert kling.post(T2V, json={"prompt": "x"}).json()["code"] == 1303
    media_simulator.advance(4)
    submit(kling)
    assert len(media_simulator.ledger()) == 3


def test_refusals(kling, connect):
    """Money, rate, concurrency, moderation and server errors have the documented pairs of status and code."""
    expected = {
        "funds": (429, 1102),
        "rate": (429, 1302),
        "concurrency": (429, 1303),
        "moderation": (400, 1301),
    }
    for reason, pair in {**expected, "server": (500, 5000), "auth": (401, 1002)}.items():
        reply = kling.post(T2V, json={"prompt": f"x [sim:reject={reason}]"})
        assert (reply.status_code, reply.json()["code"]) == pair
    assert connect("kling", "sim-no-funds").post(T2V, json={"prompt": "x"}).json()["code"] == 1102


def test_an_unknown_route_is_springs_404(kling):
    """A path that does not exist gets the gateway's body, which has no code."""
    reply = kling.get("/v1/account/balance")
    assert reply.status_code == 404
    assert sorted(reply.json()) == ["error", "message", "path", "status", "timestamp"]
    assert reply.json()["path"] == "/v1/account/balance"


def test_failures_and_watermarks(kling, media_simulator: Simulator):
    """A failed task says why in task_status_msg; a watermarked twin has an address of its own field."""
    failed = submit(kling, prompt="x [sim:fail=moderation]")
    marked = submit(kling, prompt="x [sim:watermark] [sim:final=succeeded]")
    media_simulator.advance(4)
    assert task(kling, failed)["task_status"] == "failed"
    assert "risk control" in task(kling, failed)["task_status_msg"]
    assert task(kling, marked)["task_status"] == "succeeded"
    assert task(kling, marked)["task_result"]["videos"][0]["watermark_url"]


def test_costs(kling, connect):
    """The account's costs need a time window and show an empty pack for a key without money."""
    assert kling.get("/account/costs").json()["code"] == 1201
    window = {"start_time": 0, "end_time": 1}
    pack = connect("kling", "sim-no-funds").get("/account/costs", params=window).json()["data"]
    assert pack["resource_pack_subscribe_infos"][0]["remaining_quantity"] == 0
    assert kling.get("/account/costs", params=window).json()["data"]["code"] == 0


def test_the_new_standard(kling, media_simulator: Simulator):
    """New-standard tasks are read in batches by id or own id, listed with a cursor, and end succeeded."""
    reply = kling.post(
        "/text-to-video/kling-3.0",
        json={"prompt": "a mug", "settings": {"duration": 5}, "options": {"external_task_id": "n-1"}},
    ).json()
    first = reply["data"]["id"]
    assert (reply["data"]["status"], reply["data"]["external_id"]) == ("submitted", "n-1")
    contents = [{"type": "prompt", "text": "it turns"}, {"type": "first_frame", "url": "https://e.com/1"}]
    second = kling.post("/image-to-video/kling-2.6", json={"contents": contents}).json()["data"]["id"]
    legacy = submit(kling)
    media_simulator.advance(4)
    both = kling.get("/tasks", params={"task_ids": f"{first},{second},{legacy},nope"}).json()["data"]
    assert {one["id"]: one["status"] for one in both} == {first: "succeeded", second: "succeeded"}
    assert kling.get(both[0]["outputs"][0]["url"]).headers["content-type"] == "video/mp4"
    assert both[0]["billing"][0]["amount"] == "3.0"
    by_reference = kling.get("/tasks", params={"external_task_ids": "n-1"}).json()["data"]
    assert [one["id"] for one in by_reference] == [first]
    page = kling.post("/tasks", json={"limit": 1}).json()["data"]
    assert ([one["id"] for one in page["result"]], page["has_more"]) == ([second], True)
    rest = kling.post("/tasks", json={"limit": 1, "cursor": page["next_cursor"]}).json()["data"]
    assert ([one["id"] for one in rest["result"]], rest["has_more"]) == ([first], False)
    assert kling.post("/text-to-video/kling-9", json={"prompt": "x"}).json()["code"] == 1201
    assert kling.get("/tasks").json()["code"] == 1201
