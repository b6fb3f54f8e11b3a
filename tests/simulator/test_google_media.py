from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from airflow_media_tasks.simulator import Simulator


GEMINI = "/v1beta/models/veo-3.1-generate-preview"
VERTEX = "/v1beta1/projects/films-1/locations/us-central1/publishers/google/models/veo-3.1-generate-001"
PICTURE = {"bytesBase64Encoded": "AAAA", "mimeType": "image/png"}


def submit(
    client: httpx.Client, model: str, prompt: str = "a mug", given: Any = None, **instance: Any
) -> str:
    """The name of a new operation, which must be accepted."""
    body = {"instances": [{"prompt": prompt, **instance}], "parameters": given or {}}
    reply = client.post(f"{model}:predictLongRunning", json=body)
    assert reply.status_code == 200, reply.text
    assert list(reply.json()) == ["name"]
    return str(reply.json()["name"])


def look(client: httpx.Client, name: str) -> dict[str, Any]:
    """The operation as it is now, by the API whose it is."""
    if name.startswith("models/"):
        return dict(client.get(f"/v1beta/{name}").json())
    where = name.rpartition("/operations/")[0]
    return dict(client.post(f"/v1beta1/{where}:fetchPredictOperation", json={"operationName": name}).json())


def test_an_operation_of_the_gemini_api(gemini, media_simulator: Simulator):
    """It has a name and nothing else until it is done, with the address of a file that wants the key."""
    name = submit(gemini, GEMINI)
    assert name.startswith("models/veo-3.1-generate-preview/operations/")
    assert look(gemini, name) == {"name": name}
    media_simulator.advance(4)
    done = look(gemini, name)
    (sample,) = done["response"]["generateVideoResponse"]["generatedSamples"]
    url = sample["video"]["uri"]
    assert (done["done"], url.startswith(f"{media_simulator.url}/google_media/v1beta/files/")) == (True, True)
    assert gemini.get(url).content[4:8] == b"ftyp"
    assert httpx.get(url).status_code == 403
    assert httpx.get(url, headers={"x-goog-api-key": "another"}).status_code == 404
    (entry,) = media_simulator.ledger("google_media")
    assert (entry["operation"], entry["amount"], entry["client_ref"]) == ("text_to_video", "3.20", None)


def test_an_operation_of_vertex(vertex, media_simulator: Simulator):
    """It is asked for by its name; its films stand in it, as many as were asked for."""
    name = submit(vertex, VERTEX, given={"sampleCount": 2, "aspectRatio": "9:16"})
    assert f"/v1beta1/{name}".startswith(f"{VERTEX}/operations/")
    assert look(vertex, name) == {"name": name}
    media_simulator.advance(4)
    films = look(vertex, name)["response"]["videos"]
    contents = {base64.b64decode(film["bytesBase64Encoded"]) for film in films}
    assert {content[4:8] for content in contents} == {b"ftyp"}
    assert len(contents) == 2
    assert media_simulator.ledger()[0]["amount"] == "6.40"


def test_a_bucket(vertex, media_simulator: Simulator):
    """With `storageUri` a film lies in that bucket, and is given to the token alone."""
    name = submit(vertex, VERTEX, given={"storageUri": "gs://films/today/"})
    media_simulator.advance(4)
    (film,) = look(vertex, name)["response"]["videos"]
    assert film["gcsUri"].startswith("gs://films/today/")
    path = f"/storage/{film['gcsUri'].removeprefix('gs://')}"
    assert vertex.get(path).content[4:8] == b"ftyp"
    assert httpx.get(f"{media_simulator.url}/google_media{path}").status_code == 401
    assert vertex.get("/storage/films/other.mp4").status_code == 404


@pytest.mark.parametrize("word", ["[sim:inline]", ""])
def test_a_film_of_the_gemini_api_may_be_inline(gemini, media_simulator: Simulator, word: str):
    """A word lets a film stand in the operation."""
    name = submit(gemini, GEMINI, f"a mug {word}")
    media_simulator.advance(4)
    (sample,) = look(gemini, name)["response"]["generateVideoResponse"]["generatedSamples"]
    assert ("encodedVideo" in sample["video"]) is bool(word)


@pytest.mark.parametrize(
    ("words", "count", "withheld", "made"),
    [
        ("[sim:fail=moderation]", 2, 2, None),
        ("[sim:response=partial]", 3, 1, 2),
        ("[sim:no-output]", 1, None, None),
    ],
)
def test_what_is_withheld(
    vertex, media_simulator: Simulator, words: str, count: int, withheld: int | None, made: int | None
):
    """Films that are withheld are counted, with a reason; done without any is no error of the operation."""
    name = submit(vertex, VERTEX, f"a mug {words}", {"sampleCount": count})
    media_simulator.advance(4)
    done = look(vertex, name)
    assert (done["done"], "error" in done) == (True, False)
    response = done["response"]
    assert response.get("raiMediaFilteredCount") == withheld
    assert bool(response.get("raiMediaFilteredReasons")) is bool(withheld)
    assert (len(response["videos"]) if made else response.get("videos")) == made


@pytest.mark.parametrize(("word", "code"), [("provider", 13), ("timeout", 14)])
def test_an_operation_that_failed(gemini, media_simulator: Simulator, word: str, code: int):
    """It is done, with an error and without a response."""
    name = submit(gemini, GEMINI, f"a mug [sim:fail={word}]")
    media_simulator.advance(4)
    done = look(gemini, name)
    assert (done["done"], done["error"]["code"], "response" in done) == (True, code, False)


@pytest.mark.parametrize(
    ("word", "status", "name", "reason"),
    [
        ("auth", 400, "INVALID_ARGUMENT", "API_KEY_INVALID"),
        ("funds", 403, "PERMISSION_DENIED", "BILLING_DISABLED"),
        ("rate", 429, "RESOURCE_EXHAUSTED", None),
        ("concurrency", 429, "RESOURCE_EXHAUSTED", None),
        ("moderation", 400, "INVALID_ARGUMENT", None),
        ("bad_request", 400, "INVALID_ARGUMENT", None),
        ("not_found", 404, "NOT_FOUND", None),
        ("server", 500, "INTERNAL", None),
    ],
)
def test_every_refusal(gemini, word: str, status: int, name: str, reason: str | None):
    """An error has a code, a status and words; some have a reason in their details."""
    body = {"instances": [{"prompt": f"x [sim:reject={word}]"}]}
    reply = gemini.post(f"{GEMINI}:predictLongRunning", json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["status"]) == (status, status, name)
    assert [one.get("reason") for one in error["details"]] == ([reason] if reason else [])


def test_how_long_to_wait(vertex, media_simulator: Simulator):
    """Google says it in the details."""
    media_simulator.fault("rate_limit", provider="google_media", retry_after=7)
    error = vertex.get("/v1beta1/publishers/google/models").json()["error"]
    assert [one["retryDelay"] for one in error["details"]] == ["7s"]


def test_keys_and_tokens(connect, gemini, vertex):
    """The Gemini API wants a key, Vertex a token; what is wrong is a 400 there, and a 401 here."""
    assert gemini.get("/v1beta/models").json()["models"]
    assert vertex.get("/v1beta1/publishers/google/models").json()["publisherModels"]
    assert vertex.get("/v1beta/models").status_code == 403
    assert gemini.get("/v1beta1/publishers/google/models").status_code == 401
    assert connect("google_media", "sim-bad-key").get("/v1/publishers/google/models").status_code == 401
    gemini.headers["x-goog-api-key"] = "sim-bad-key"
    assert gemini.get("/v1/models").status_code == 400
    gemini.headers["x-goog-api-key"] = "sim-no-funds"
    reply = gemini.post(f"{GEMINI}:predictLongRunning", json={"instances": [{"prompt": "x"}]})
    assert reply.status_code == 403


@pytest.mark.parametrize(
    ("instance", "what"),
    [
        ({}, "one of prompt, image and video"),
        ({"image": "https://e.com/1.png"}, "image must have"),
        ({"image": {"uri": "https://e.com/1.png"}}, "image must have"),
        ({"prompt": "x", "lastFrame": PICTURE}, "lastFrame needs image"),
        ({"video": {"mimeType": "video/mp4"}}, "video must have"),
    ],
)
def test_what_veo_does_not_take(gemini, media_simulator: Simulator, instance: dict[str, Any], what: str):
    """Files are bytes, or lie at Google; what is wrong is said."""
    reply = gemini.post(f"{GEMINI}:predictLongRunning", json={"instances": [instance]})
    assert reply.status_code == 400
    assert what in reply.json()["error"]["message"]
    for wrong in ({}, {"instances": []}, {"instances": [{"prompt": "x"}], "parameters": {"sampleCount": 5}}):
        assert gemini.post(f"{GEMINI}:predictLongRunning", json=wrong).status_code == 400
    assert media_simulator.ledger() == []


def test_what_is_made_of_what(gemini, media_simulator: Simulator):
    """A picture makes it an animation, a film an extension; a film of one's own must be there."""
    first = submit(gemini, GEMINI, image=PICTURE)
    media_simulator.advance(4)
    made = look(gemini, first)["response"]["generateVideoResponse"]["generatedSamples"][0]["video"]
    submit(gemini, GEMINI, video={"uri": made["uri"]})
    operations = [entry["operation"] for entry in media_simulator.ledger()]
    assert operations == ["image_to_video", "extend_video"]
    gone = {"instances": [{"video": {"uri": made["uri"].replace("files/", "files/0")}}]}
    assert gemini.post(f"{GEMINI}:predictLongRunning", json=gone).status_code == 400


def test_what_is_not_there(gemini, vertex):
    """Unknown operations, those of another model, and unknown paths are a 404 in the same form."""
    name = submit(gemini, GEMINI)
    for path in (f"{GEMINI}/operations/nope", f"/v1beta/{name.replace('3.1', '3.0')}", "/v3/models"):
        reply = gemini.get(path)
        assert (reply.status_code, reply.json()["error"]["status"]) == (404, "NOT_FOUND")
    where = f"{VERTEX}:fetchPredictOperation"
    assert vertex.post(where, json={"operationName": name}).status_code == 400
