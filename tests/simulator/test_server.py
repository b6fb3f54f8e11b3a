from __future__ import annotations

import io
import json
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from PIL import Image

from airflow_media_tasks.simulator import Simulator


IMAGE = {"type": "image", "params": {"description": "a red mug"}}


def finished_url(vap: httpx.Client, simulator: Simulator, reply: httpx.Response) -> str:
    """URL of the file of a VAP image task, after its end."""
    simulator.advance(4)
    return str(vap.get(f"/v3/tasks/{reply.json()['task_id']}").json()["result"]["image_url"])


def test_the_ledger_and_the_counts(vap, acedata, control, media_simulator: Simulator):
    """Accepted submissions are in the ledger, refused ones only in the counts, over HTTP as in Python."""
    vap.post("/v3/tasks", json=IMAGE)
    vap.post("/v3/tasks", json={})
    acedata.post("/luma/videos", json={"prompt": "x", "async": True})
    vap.get("/v3/tasks/a")
    vap.get("/v3/tasks/b")
    entry = control.get("/ledger", params={"provider": "vap"}).json()
    assert [set(one) for one in entry] == [
        {"provider", "operation", "id", "client_ref", "amount", "currency", "at", "request"}
    ]
    assert (entry[0]["request"], entry[0]["amount"], entry[0]["client_ref"]) == (IMAGE, "0.1800", None)
    assert control.get("/ledger").json() == media_simulator.ledger()
    assert control.get("/requests").json() == media_simulator.requests()
    assert media_simulator.requests() == {
        "POST /vap/v3/tasks": 2,
        "POST /acedata/luma/videos": 1,
        "GET /vap/v3/tasks/{id}": 2,
    }
    assert [task["provider"] for task in control.get("/tasks").json()] == ["vap", "acedata"]
    assert control.get("/ledger", params={"provider": "sora"}).status_code == 400


def test_reset_forgets_everything(vap, control, media_simulator: Simulator):
    """DELETE of the ledger forgets tasks, counts and faults as well."""
    task_id = vap.post("/v3/tasks", json=IMAGE).json()["task_id"]
    media_simulator.fault("latency", delay=0)
    control.delete("/ledger")
    assert (media_simulator.ledger(), media_simulator.requests(), media_simulator.tasks()) == ([], {}, [])
    assert control.get("/faults").json() == []
    assert vap.get(f"/v3/tasks/{task_id}").status_code == 404


def test_faults_over_http(vap, control, media_simulator: Simulator):
    """A fault is added, listed with what is left of it, and cleared; a malformed one gets a sentence."""
    added = control.post("/faults", json={"kind": "outage", "provider": "vap", "count": 2, "seconds": 60})
    assert added.status_code == 201
    assert vap.get("/v3/balance").status_code == 503
    (listed,) = control.get("/faults").json()
    assert (listed["count"], listed["status"]) == (1, 503)
    assert 0 < listed["seconds"] <= 60
    assert vap.get("/v3/balance").status_code == 503
    assert vap.get("/v3/balance").status_code == 200
    media_simulator.fault("outage")
    control.delete("/faults")
    assert vap.get("/v3/balance").status_code == 200
    for bad in ({"kind": "flood"}, [], {"kind": "outage", "on": "x"}):
        reply = control.post("/faults", json=bad)
        assert reply.status_code == 400
        assert " " in reply.json()["error"]
    assert control.post("/faults", content=b"{").status_code == 400


def test_a_fault_ends_with_its_seconds(vap, media_simulator: Simulator):
    """The seconds of a fault are the simulator's, so that advancing the clock ends it."""
    media_simulator.fault("outage", seconds=10)
    assert vap.get("/v3/balance").status_code == 503
    media_simulator.advance(10)
    assert vap.get("/v3/balance").status_code == 200


def test_a_fault_is_of_one_provider_and_one_direction(vap, kling, media_simulator: Simulator):
    """A fault on Kling's submissions touches neither its reads nor VAP."""
    media_simulator.fault("outage", provider="kling", on="submit", status=500)
    path = "/v1/videos/text2video"
    assert kling.post(path, json={"prompt": "x"}).json()["code"] == 5000
    assert kling.get(path).json()["code"] == 0
    assert vap.post("/v3/tasks", json=IMAGE).status_code == 200


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_an_outage_in_the_providers_form_or_as_a_page(
    vap, acedata, kling, media_simulator: Simulator, status
):
    """An outage has the provider's error body, or is a page of HTML."""
    media_simulator.fault("outage", status=status)
    assert vap.get("/v3/balance").json()["error"]["code"]
    assert acedata.post("/veo/tasks", json={}).json()["error"]["code"] == (
        "timeout" if status == 504 else "api_error"
    )
    code = {500: 5000, 502: 5000, 503: 5001, 504: 5002}[status]
    assert kling.get("/v1/videos/text2video").json()["code"] == code
    media_simulator.fault("outage", status=status, html=True)
    reply = vap.get("/v3/balance")
    assert (reply.status_code, reply.headers["content-type"]) == (status, "text/html; charset=utf-8")


def test_rate_limits(vap, acedata, kling, media_simulator: Simulator):
    """A rate limit is a 429 in each provider's form, with Retry-After where one was given."""
    media_simulator.fault("rate_limit", retry_after=7)
    replies = [
        vap.get("/v3/balance"),
        acedata.post("/veo/tasks", json={}),
        kling.get("/v1/videos/text2video"),
    ]
    assert [(reply.status_code, reply.headers["retry-after"]) for reply in replies] == [(429, "7")] * 3
    assert replies[0].json()["error"]["details"]["retry_after"] == 7
    media_simulator.clear_faults()
    media_simulator.fault("rate_limit", provider="kling")
    assert "retry-after" not in kling.get("/v1/videos/text2video").headers


def test_a_lost_reply_was_billed(vap, media_simulator: Simulator):
    """With lose_reply the connection is cut after the submission was accepted, and only as often as said."""
    media_simulator.fault("lose_reply", count=1)
    assert vap.get("/v3/balance").status_code == 200
    assert vap.post("/v3/tasks", json={}).status_code == 422
    with pytest.raises(httpx.TransportError):
        vap.post("/v3/tasks", json=IMAGE)
    assert len(media_simulator.ledger()) == 1
    assert vap.post("/v3/tasks", json=IMAGE).status_code == 200


def test_a_lost_read(vap, media_simulator: Simulator):
    """With lose_reply on reads, status requests are cut and submissions are not."""
    media_simulator.fault("lose_reply", on="read")
    task_id = vap.post("/v3/tasks", json=IMAGE).json()["task_id"]
    with pytest.raises(httpx.TransportError):
        vap.get(f"/v3/tasks/{task_id}")


def test_a_lost_request_was_not_billed(vap, media_simulator: Simulator):
    """With lose_request the connection is cut and nothing was accepted."""
    media_simulator.fault("lose_request", count=1)
    with pytest.raises(httpx.TransportError):
        vap.post("/v3/tasks", json=IMAGE)
    assert media_simulator.ledger() == []


def test_an_error_after_acceptance_was_billed(vap, kling, media_simulator: Simulator):
    """With error_after_accept the answer is an error, and the ledger has the task."""
    media_simulator.fault("error_after_accept", status=500, count=1)
    assert vap.post("/v3/tasks", json=IMAGE).status_code == 500
    body = {"prompt": "x [sim:error-after-accept=504]", "external_task_id": "mine"}
    assert kling.post("/v1/videos/text2video", json=body).json()["code"] == 5002
    assert len(media_simulator.ledger()) == 2
    assert (
        kling.get("/v1/videos/text2video/mine").json()["data"]["task_id"] == media_simulator.ledger()[1]["id"]
    )


def test_hang_and_latency(vap, media_simulator: Simulator):
    """A hanging submission is accepted at once and answered late; latency delays a request."""
    media_simulator.fault("hang", delay=30, count=1)
    with pytest.raises(httpx.ReadTimeout):
        vap.post("/v3/tasks", json=IMAGE, timeout=httpx.Timeout(10, read=0.5))
    assert len(media_simulator.ledger()) == 1
    media_simulator.fault("latency", delay=0.2, count=1)
    before = time.monotonic()
    vap.get("/v3/balance")
    assert time.monotonic() - before >= 0.2


@pytest.mark.parametrize("source", ["fault", "word"])
def test_unusable_answers(vap, media_simulator: Simulator, image_task, source):
    """Status replies can be HTML, cut JSON or null, for everybody by a fault or for one task by a word."""
    for kind in ("html", "truncated", "null"):
        word = f"[sim:{kind}]" if source == "word" else ""
        task_id = image_task(f"a mug {word}").json()["task_id"]
        if source == "fault":
            media_simulator.fault(kind, on="read", count=1)
        reply = vap.get(f"/v3/tasks/{task_id}")
        assert reply.status_code == 200
        if kind == "null":
            assert reply.json() is None
        else:
            with pytest.raises(json.JSONDecodeError):
                reply.json()


def test_a_huge_answer(vap, media_simulator: Simulator):
    """A huge reply is fifty megabytes of valid JSON."""
    media_simulator.fault("huge", count=1)
    assert len(vap.get("/v3/balance").content) > 50_000_000


def test_not_found(vap, acedata, kling, image_task, media_simulator: Simulator):
    """The fault not_found answers reads with each provider's own 404."""
    task_id = image_task().json()["task_id"]
    media_simulator.fault("not_found")
    assert vap.get(f"/v3/tasks/{task_id}").json()["error"]["code"] == "task_not_found"
    assert acedata.post("/veo/tasks", json={"id": "x"}).status_code == 404
    assert kling.get("/v1/videos/text2video/x").json()["code"] == 1203
    assert image_task().status_code == 200


def test_concurrency(vap, acedata, kling, media_simulator: Simulator):
    """The concurrency refusal is 429 at VAP, busy at AceData and 1303 at Kling."""
    media_simulator.fault("concurrency")
    assert vap.post("/v3/tasks", json=IMAGE).status_code == 429
    assert acedata.post("/luma/videos", json={"prompt": "x"}).json()["error"]["code"] == "busy"
    assert kling.post("/v1/videos/text2video", json={"prompt": "x"}).json()["code"] == 1303
    assert media_simulator.ledger() == []


def test_a_skewed_clock_shows_everywhere(vap, image_task, media_simulator: Simulator):
    """With clock_skew the Date header and the documents' times are wrong by the same offset."""
    media_simulator.fault("clock_skew", offset=-7200)
    reply = image_task()
    now = datetime.now(timezone.utc)
    assert (now - parsedate_to_datetime(reply.headers["date"])).total_seconds() == pytest.approx(7200, abs=5)
    created = vap.get(f"/v3/tasks/{reply.json()['task_id']}").json()["created_at"]
    assert (now - datetime.fromisoformat(created)).total_seconds() == pytest.approx(7200, abs=5)


def test_seconds_and_queued(vap, image_task, media_simulator: Simulator):
    """`queued` seconds come first, then `seconds` of running."""
    task_id = image_task("x [sim:queued=5] [sim:seconds=30]").json()["task_id"]
    seen = []
    for step in (4, 2, 28, 2):
        media_simulator.advance(step)
        seen.append(vap.get(f"/v3/tasks/{task_id}").json()["status"])
    assert seen == ["pending", "processing", "processing", "completed"]


def test_reject_the_first_two(image_task, media_simulator: Simulator):
    """`[sim:reject=rate*2]` refuses the first two submissions of the same text, then accepts."""
    statuses = [image_task("x [sim:reject=rate*2]").status_code for _ in range(4)]
    assert statuses == [429, 429, 200, 200]
    assert image_task("y [sim:reject=rate*2]").status_code == 429
    assert len(media_simulator.ledger()) == 2


def test_lose_the_first_reply(image_task, media_simulator: Simulator):
    """`[sim:lose-reply*1]` loses one reply, though both submissions are billed."""
    with pytest.raises(httpx.TransportError):
        image_task("x [sim:lose-reply*1]")
    assert image_task("x [sim:lose-reply*1]").status_code == 200
    assert len(media_simulator.ledger()) == 2


def test_status_final_and_missing_ids(vap, acedata, kling, media_simulator: Simulator):
    """Unknown words, terminal words and a reply without an id are the same words at every provider."""
    text = "x [sim:status=pondering] [sim:final=voila] [sim:no-id]"
    replies = [
        vap.post("/v3/tasks", json={"type": "image", "params": {"description": text}}).json(),
        acedata.post("/luma/videos", json={"prompt": text, "async": True}).json(),
        kling.post("/v1/videos/text2video", json={"prompt": text}).json()["data"],
    ]
    assert not any("task_id" in reply for reply in replies)
    ids = [entry["id"] for entry in media_simulator.ledger()]

    def words() -> list[Any]:
        return [
            vap.get(f"/v3/tasks/{ids[0]}").json()["status"],
            acedata.post("/luma/tasks", json={"id": ids[1]}).json()["response"]["state"],
            kling.get(f"/v1/videos/text2video/{ids[2]}").json()["data"]["task_status"],
        ]

    assert words() == ["pondering"] * 3
    media_simulator.advance(4)
    assert words() == ["voila"] * 3


def test_not_visible(vap, image_task, media_simulator: Simulator):
    """`[sim:not-visible=2]` is a 404, and missing in the list, for two seconds after its acceptance."""
    task_id = image_task("x [sim:not-visible=2]").json()["task_id"]
    assert vap.get(f"/v3/tasks/{task_id}").status_code == 404
    assert vap.get("/v3/tasks").json()["total"] == 0
    media_simulator.advance(2)
    assert vap.get(f"/v3/tasks/{task_id}").status_code == 200


def test_no_output(vap, image_task, media_simulator: Simulator):
    """`[sim:no-output]` succeeds without a URL."""
    task_id = image_task("x [sim:no-output]").json()["task_id"]
    media_simulator.advance(4)
    document = vap.get(f"/v3/tasks/{task_id}").json()
    assert (document["status"], document["result"]) == ("completed", {})


def test_media_has_ranges_and_tags(vap, image_task, media_simulator: Simulator):
    """A file has its type, length and ETag, can be fetched in ranges, and is not sent twice."""
    url = finished_url(vap, media_simulator, image_task(aspect_ratio="4:3"))
    whole = httpx.get(url)
    assert (whole.headers["content-type"], whole.headers["accept-ranges"]) == ("image/png", "bytes")
    assert int(whole.headers["content-length"]) == len(whole.content)
    with Image.open(io.BytesIO(whole.content)) as image:
        assert image.size == (1024, 768)
    part = httpx.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
    assert httpx.get(url, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    assert httpx.head(url).headers["content-length"] == whole.headers["content-length"]


def test_media_is_there_only_when_it_is_made(vap, image_task, media_simulator: Simulator):
    """Before the end, after `[sim:expires]`, and for a name that nobody made there is no file."""
    reply = image_task("x [sim:expires=10]")
    early = f"{media_simulator.url}/media/{reply.json()['task_id']}-0.png"
    assert httpx.get(early).status_code == 404
    url = finished_url(vap, media_simulator, reply)
    assert url == early
    assert httpx.get(url).status_code == 200
    media_simulator.advance(10)
    assert httpx.get(url).status_code == 403
    for name in (
        "nope.png",
        "a-0.png",
        reply.json()["task_id"] + "-7.png",
        reply.json()["task_id"] + "-0.mp4",
    ):
        assert httpx.get(f"{media_simulator.url}/media/{name}").status_code == 404


def test_our_own_files_must_exist_to_be_used(vap, acedata, kling, image_task, media_simulator: Simulator):
    """A URL that points here is checked by every provider; an unfinished or unknown one is a bad request."""
    reply = image_task()
    url = f"{media_simulator.url}/media/{reply.json()['task_id']}-0.png"

    def statuses() -> list[int]:
        video = {"type": "video", "params": {"description": "x", "image_url": url}}
        return [
            vap.post("/v3/tasks", json=video).status_code,
            acedata.post("/luma/videos", json={"start_image_url": url, "async": True}).status_code,
            kling.post("/v1/videos/image2video", json={"image": url}).status_code,
        ]

    assert statuses() == [422, 400, 400]
    media_simulator.advance(4)
    assert statuses() == [200, 200, 200]
    assert len(media_simulator.ledger()) == 4


def test_a_video_made_from_our_image_shows_it(vap, kling, image_task, media_simulator: Simulator):
    """The still of a video made from an image has that image's shape and colours, extended or not."""
    url = finished_url(vap, media_simulator, image_task("teal", aspect_ratio="1:1"))
    path = "/v1/videos/image2video"
    first = kling.post(path, json={"image": url}).json()["data"]["task_id"]
    media_simulator.advance(4)
    video = kling.get(f"{path}/{first}").json()["data"]["task_result"]["videos"][0]
    longer = kling.post("/v1/videos/video-extend", json={"video_id": video["id"]}).json()["data"]["task_id"]
    media_simulator.advance(4)
    data = kling.get(f"/v1/videos/video-extend/{longer}").json()["data"]
    with Image.open(io.BytesIO(httpx.get(url).content)) as image:
        wanted = image.convert("RGB").resize((640, 640)).getpixel((20, 620))
    for file in (video, data["task_result"]["videos"][0]):
        still = first_frame(httpx.get(file["url"]).content)
        assert still.size == (640, 640)
        assert still.getpixel((20, 620)) == pytest.approx(wanted, abs=14)


def first_frame(content: bytes) -> Image.Image:
    """The first frame of an MP4."""
    import av  # noqa: PLC0415  # only this needs it

    with av.open(io.BytesIO(content)) as container:
        return next(container.decode(video=0)).to_image()


def test_bodies_that_are_no_json_object(vap, acedata, kling, media_simulator: Simulator):
    """Broken JSON and a JSON list are bad requests in every provider's form."""
    for client, path in ((vap, "/v3/tasks"), (acedata, "/veo/videos"), (kling, "/v1/videos/text2video")):
        for content in (b"{", b"[]", b"\xff\xfe"):
            assert client.post(path, content=content).status_code in (400, 422)
    assert media_simulator.ledger() == []
