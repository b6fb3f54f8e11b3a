from __future__ import annotations

import base64
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

from airflow_media_tasks.simulator import Simulator


FLUX, APP = "/fal-ai/flux/dev", "/fal-ai/flux"
FILM = "/fal-ai/kling-video/v2.1/standard/image-to-video"
LIST = "/platform/v1/models/requests/by-endpoint"


def submit(fal: httpx.Client, prompt: str = "a red mug", endpoint: str = FLUX, **arguments: Any) -> str:
    """The id of a new request, which must be accepted."""
    reply = fal.post(endpoint, json={"prompt": prompt, **arguments})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["request_id"])


def status(fal: httpx.Client, request_id: str, app: str = APP, **params: Any) -> httpx.Response:
    """The status of a request."""
    return fal.get(f"{app}/requests/{request_id}/status", params=params)


def result(fal: httpx.Client, request_id: str, app: str = APP) -> httpx.Response:
    """What it made, or why it did not."""
    return fal.get(f"{app}/requests/{request_id}")


def listed(fal: httpx.Client, **params: Any) -> list[str]:
    """The ids that the platform API shows of one endpoint."""
    page = fal.get(LIST, params={"endpoint_id": FLUX.strip("/"), **params}).json()
    return [item["request_id"] for item in page["items"]]


def test_a_request_goes_through_the_queue(fal, media_simulator: Simulator):
    """In the queue and at work it is a 202, completed a 200; logs are there if they were asked for."""
    reply = fal.post(FLUX, json={"prompt": "a red mug", "num_images": 2}).json()
    request_id = reply["request_id"]
    here = f"{media_simulator.url}/fal{APP}/requests/{request_id}"
    assert reply == {
        "status": "IN_QUEUE",
        "request_id": request_id,
        "response_url": here,
        "status_url": f"{here}/status",
        "cancel_url": f"{here}/cancel",
        "queue_position": 0,
    }
    queued = status(fal, request_id)
    assert (queued.status_code, queued.json()) == (202, reply)
    media_simulator.advance(1)
    running = status(fal, request_id, logs="1")
    assert (running.status_code, running.json()["status"], running.json()["logs"]) == (202, "IN_PROGRESS", [])
    assert status(fal, request_id).json()["logs"] is None
    early = result(fal, request_id)
    assert (early.status_code, early.json()) == (400, {"detail": "Request is still in progress"})
    media_simulator.advance(3)
    done = status(fal, request_id)
    assert (done.status_code, done.json()["status"]) == (200, "COMPLETED")
    assert done.json()["metrics"] == {"inference_time": 2.4}
    made = result(fal, request_id).json()
    assert [image["content_type"] for image in made["images"]] == ["image/png"] * 2
    assert made["images"][0]["url"].startswith(f"{media_simulator.url}/media/")
    assert made["prompt"] == "a red mug"


@pytest.mark.parametrize(
    ("endpoint", "arguments", "operation", "key"),
    [
        (FLUX, {}, "text_to_image", "images"),
        ("/fal-ai/flux-pro/kontext", {"image_url": "https://e.com/a.png"}, "image_to_image", "images"),
        ("/fal-ai/veo3", {"duration": "8s"}, "text_to_video", "video"),
        (FILM, {"image_url": "https://e.com/a.png"}, "image_to_video", "video"),
        ("/fal-ai/clarity-upscaler", {"image_url": "https://e.com/a.png"}, "upscale_image", "image"),
        ("/fal-ai/minimax/speech-02-hd", {"text": "hello"}, "text_to_speech", "audio"),
        ("/fal-ai/lyria2", {}, "text_to_music", "audio"),
        ("/acme/own", {"any": "thing"}, "run", "images"),
        ("/workflows/acme/own-video", {}, "run", "video"),
    ],
)
def test_endpoints(fal, media_simulator: Simulator, endpoint, arguments, operation, key):
    """An endpoint's id says what it makes and how its result looks; one that nobody knows makes a picture."""
    reply = fal.post(endpoint, json={"prompt": "x", **arguments}).json()
    media_simulator.advance(4)
    made = fal.get(reply["response_url"]).json()
    file = made[key][0] if key == "images" else made[key]
    assert fal.get(file["url"]).headers["content-type"] == file["content_type"]
    (entry,) = media_simulator.ledger("fal")
    assert (entry["operation"], entry["currency"]) == (operation, "USD")


def test_other_paths_than_those_of_the_reply(fal):
    """What belongs to a request is found without the endpoint's own path, and with no other."""
    request_id = submit(fal)
    assert status(fal, request_id).status_code == 202
    for app in (FLUX, "/fal-ai/fast-sdxl"):
        assert status(fal, request_id, app).status_code == 404
        assert result(fal, request_id, app).status_code == 404


@pytest.mark.parametrize(
    ("arguments", "kind", "field"),
    [
        ({"seed": 7}, "missing", "prompt"),
        ({"prompt": "x", "num_images": 9}, "less_than_equal", "num_images"),
        ({"prompt": "x", "num_images": "two"}, "less_than_equal", "num_images"),
        ({"prompt": "x", "mask_url": "/media/none.png"}, "file_download_error", "image_url"),
    ],
)
def test_wrong_arguments_are_told_by_the_result(fal, media_simulator: Simulator, arguments, kind, field):
    """Any JSON is accepted; what is wrong with it is said when it is completed, and is not paid for."""
    if "mask_url" in arguments:
        arguments = {**arguments, "mask_url": f"{media_simulator.url}{arguments['mask_url']}"}
    reply = fal.post(FLUX, json=arguments)
    assert reply.status_code == 200
    media_simulator.advance(4)
    done = fal.get(reply.json()["status_url"]).json()
    assert (done["status"], bool(done["error"])) == ("COMPLETED", True)
    refused = fal.get(reply.json()["response_url"])
    (detail,) = refused.json()["detail"]
    assert (refused.status_code, detail["type"], detail["loc"]) == (422, kind, ["body", field])


@pytest.mark.parametrize(
    ("word", "http_status", "kind"),
    [
        ("moderation", 422, "content_policy_violation"),
        ("provider", 503, "runner_disconnected"),
        ("timeout", 504, "generation_timeout"),
    ],
)
def test_failures(fal, media_simulator: Simulator, word, http_status, kind):
    """`[sim:fail=...]` completes with an error: the queue's own has a type, that of a model has details."""
    request_id = submit(fal, f"x [sim:fail={word}]")
    hidden = submit(fal, f"x [sim:fail={word}] [sim:error=detail]")
    media_simulator.advance(4)
    done, refused = status(fal, request_id).json(), result(fal, request_id)
    assert (done["status"], refused.status_code) == ("COMPLETED", http_status)
    body = refused.json()
    if word == "provider":
        assert (done["error_type"], body["error_type"]) == (kind, kind)
        assert (done["error"], refused.headers["x-fal-error-type"]) == (body["detail"], kind)
    else:
        assert "error_type" not in done
        assert body["detail"][0]["type"] == kind
        assert body["detail"][0]["msg"] == done["error"]
        assert refused.headers["x-fal-retryable"] == ("true" if word == "timeout" else "false")
    assert "error" not in status(fal, hidden).json()
    assert result(fal, hidden).status_code == http_status


def test_cancelling(fal, media_simulator: Simulator):
    """A cancelled request is completed with an error; one that has ended, or is unknown, says so."""
    request_id = submit(fal, "x [sim:seconds=600]")
    cancel = f"{APP}/requests/{request_id}/cancel"
    first, second = fal.put(cancel), fal.put(cancel)
    assert (first.status_code, first.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert (second.status_code, second.json()) == (400, {"status": "ALREADY_COMPLETED"})
    assert fal.put(f"{APP}/requests/none/cancel").status_code == 404
    assert status(fal, request_id).json()["error_type"] == "client_cancelled"
    assert result(fal, request_id).status_code == 499
    (task,) = media_simulator.tasks()
    assert task["status"] == "cancelled"


def test_keys_and_money(connect, fal):
    """A key comes with the word `Key`; a wrong one is a 401, and an account without money is locked."""
    for headers in ({}, {"Authorization": "Bearer key"}, {"Authorization": "Key sim-bad-key"}):
        reply = httpx.post(f"{fal.base_url}{FLUX.lstrip('/')}", json={"prompt": "x"}, headers=headers)
        assert reply.status_code == 401
    poor = {"Authorization": "Key sim-no-funds"}
    reply = fal.post(FLUX, json={"prompt": "x"}, headers=poor)
    assert reply.status_code == 403
    assert reply.json()["detail"].startswith("User is locked. Reason: Exhausted balance")


def test_an_ingress_that_fails_is_not_the_queue(fal, media_simulator: Simulator):
    """An answer of nginx, also to what was accepted, has no request id; every other answer has one."""
    request_id = submit(fal)
    assert status(fal, request_id).headers["x-fal-request-id"] == request_id
    assert fal.post(FLUX, json={"prompt": "x [sim:reject=rate]"}).headers["x-fal-request-id"]
    reply = fal.post(FLUX, json={"prompt": "x [sim:error-after-accept=502]"})
    assert (reply.status_code, "nginx" in reply.text) == (502, True)
    assert "x-fal-request-id" not in reply.headers
    assert len(media_simulator.ledger("fal")) == 2


def test_the_list_shows_what_has_ended(fal, connect, media_simulator: Simulator):
    """The platform's list has what has ended of these endpoints, the latest first, with payloads if asked."""
    first = submit(fal, "one")
    second = submit(fal, "two [sim:fail=moderation]")
    other = submit(fal, endpoint="/acme/own")
    assert listed(fal) == []
    media_simulator.advance(4)
    submit(fal, "running")
    assert listed(fal) == [second, first]
    assert set(listed(fal, endpoint_id="fal-ai/flux/dev,acme/own")) == {first, second, other}
    assert listed(fal, status="success") == [first]
    assert listed(fal, status="user_error") == [second]
    assert listed(fal, request_id=first) == [first]
    (item,) = fal.get(LIST, params={"endpoint_id": "acme/own", "expand": "payloads"}).json()["items"]
    assert item["json_input"] == {"prompt": "a red mug"}
    assert item["json_output"] == result(fal, other, "/acme/own").json()
    assert (item["status_code"], item["duration"]) == (200, 2.4)
    assert "json_input" not in fal.get(LIST, params={"endpoint_id": "acme/own"}).json()["items"][0]
    stranger = fal.get(LIST, params={"endpoint_id": "acme/own"}, headers={"Authorization": "Key other"})
    assert stranger.json()["items"] == []


def test_the_list_has_pages_and_bounds(fal, media_simulator: Simulator):
    """A cursor is a page's number in base64; without a start it goes back a day, or 90 for one id."""
    ids = [submit(fal, f"number {n} [sim:seconds={n}]") for n in range(5)]
    media_simulator.advance(6)
    page = fal.get(LIST, params={"endpoint_id": "fal-ai/flux/dev", "limit": 2}).json()
    assert [item["request_id"] for item in page["items"]] == [ids[4], ids[3]]
    assert (page["has_more"], page["next_cursor"]) == (True, base64.b64encode(b"2").decode())
    assert listed(fal, limit=2, cursor=page["next_cursor"]) == [ids[2], ids[1]]
    assert listed(fal, limit=2, cursor="Mw==") == [ids[0]]
    ended = datetime.fromisoformat(page["items"][0]["ended_at"])
    assert listed(fal, start=(ended - timedelta(seconds=0.5)).isoformat()) == [ids[4]]
    assert listed(fal, end=(ended - timedelta(seconds=2)).isoformat())[0] == ids[2]
    media_simulator.advance(2 * 86400)
    assert listed(fal) == []
    assert listed(fal, request_id=ids[0]) == [ids[0]]
    assert listed(fal, start=datetime(2020, 1, 1, tzinfo=timezone.utc).strftime("%Y-%m-%d"))[0] == ids[4]


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"cursor": "x"}, {"start": "soon"}, {"endpoint_id": ""}])
def test_the_platforms_errors(fal, wrong):
    """The platform API says what is wrong in an envelope of its own."""
    reply = fal.get(LIST, params={"endpoint_id": "fal-ai/flux/dev", **wrong})
    assert reply.status_code == 400
    assert set(reply.json()["error"]) == {"type", "message", "docs_url"}


def test_money_of_what_was_cancelled_comes_back(fal, vap, media_simulator: Simulator):
    """A cancelled task is free again at once, in the account's slots as well."""
    media_simulator.fault("slots", provider="fal", limit=1)
    request_id = submit(fal, "x [sim:seconds=600]")
    assert fal.post(FLUX, json={"prompt": "x"}).status_code == 429
    fal.put(f"{APP}/requests/{request_id}/cancel")
    submit(fal)
