from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import httpx
import pytest

from airflow_media_tasks.simulator import Simulator


FLUX = "/v1/models/black-forest-labs/flux-schnell/predictions"
VEO = "/v1/models/google/veo-3/predictions"
HEX = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"


def submit(
    replicate: httpx.Client, prompt: str = "a red mug", path: str = FLUX, **given: Any
) -> dict[str, Any]:
    """A new prediction, which must be accepted."""
    reply = replicate.post(path, json={"input": {"prompt": prompt, **given}})
    assert reply.status_code == 201, reply.text
    return dict(reply.json())


def look(replicate: httpx.Client, prediction: dict[str, Any]) -> dict[str, Any]:
    """The prediction as it is now, asked for at the address that it names."""
    return dict(replicate.get(prediction["urls"]["get"]).json())


def test_a_prediction_goes_from_starting_to_succeeded(replicate, media_simulator: Simulator):
    """A prediction is starting, then processing, then succeeded with its files and the time that it took."""
    made = submit(replicate)
    assert (made["status"], made["output"], made["metrics"]) == ("starting", None, {})
    assert (made["model"], made["version"]) == ("black-forest-labs/flux-schnell", "hidden")
    media_simulator.advance(1.5)
    running = look(replicate, made)
    assert (running["status"], running["output"], running["completed_at"]) == ("processing", None, None)
    media_simulator.advance(2)
    done = look(replicate, made)
    assert (done["status"], done["error"], done["input"]) == ("succeeded", None, {"prompt": "a red mug"})
    assert done["output"][0].startswith(f"{media_simulator.url}/media/")
    assert done["metrics"]["predict_time"] == pytest.approx(2.4)
    assert datetime.fromisoformat(done["created_at"].replace("Z", "+00:00")) < datetime.fromisoformat(
        done["completed_at"].replace("Z", "+00:00")
    )


@pytest.mark.parametrize(
    ("version", "model", "shown"),
    [
        (HEX, "some/model", HEX),
        (f"stability-ai/sdxl:{HEX}", "stability-ai/sdxl", HEX),
        ("google/imagen-4", "google/imagen-4", "hidden"),
    ],
)
def test_a_version_is_another_way_in(replicate, version: str, model: str, shown: str):
    """A version's digits, a model with them, or an official model's name alone are taken as `version`."""
    reply = replicate.post("/v1/predictions", json={"version": version, "input": {"prompt": "a mug"}})
    assert reply.status_code == 201
    assert (reply.json()["model"], reply.json()["version"]) == (model, shown)


@pytest.mark.parametrize(
    ("model", "given", "operation", "suffix"),
    [
        ("google/imagen-4", {}, "text_to_image", "png"),
        ("google/nano-banana", {"image_input": ["https://e.com/a.png"]}, "image_to_image", "png"),
        ("google/veo-3", {}, "text_to_video", "mp4"),
        ("kwaivgi/kling-v2.1", {"start_image": "https://e.com/a.png"}, "image_to_video", "mp4"),
        ("minimax/hailuo-02", {"first_frame_image": "data:image/png;base64,AA=="}, "image_to_video", "mp4"),
        ("minimax/music-1.5", {}, "text_to_music", "mp3"),
        ("minimax/speech-02-hd", {"text": "hello"}, "text_to_speech", "mp3"),
        ("nightmareai/real-esrgan", {"image": "https://e.com/a.png"}, "upscale_image", "png"),
        ("somebody/something", {}, "run", "png"),
    ],
)
def test_a_models_name_tells_what_it_makes(
    replicate, media_simulator: Simulator, model: str, given: dict[str, Any], operation: str, suffix: str
):
    """Every model makes something; what, and under which operation it is billed, its name and input tell."""
    made = submit(replicate, path=f"/v1/models/{model}/predictions", **given)
    media_simulator.advance(4)
    output = look(replicate, made)["output"]
    assert (output if isinstance(output, str) else output[0]).endswith(f".{suffix}")
    (entry,) = media_simulator.ledger("replicate")
    assert (entry["operation"], entry["currency"], entry["client_ref"]) == (operation, "USD", None)


def test_a_word_of_ones_own_is_said_while_it_runs(replicate, media_simulator: Simulator):
    """`[sim:status=...]` and `[sim:final=...]` replace processing and succeeded, and nothing before them."""
    made = submit(replicate, "x [sim:status=pondering] [sim:final=done]")
    seen = [made["status"]]
    for _ in range(2):
        media_simulator.advance(2)
        seen.append(look(replicate, made)["status"])
    assert seen == ["starting", "pondering", "done"]


@pytest.mark.parametrize(
    ("path", "prompt", "kind"),
    [
        (FLUX, "x", list),
        (VEO, "x", str),
        (VEO, "x [sim:shape=list]", list),
        (VEO, "x [sim:shape=object]", dict),
        (FLUX, "x [sim:no-output]", type(None)),
    ],
)
def test_output_is_a_text_a_list_an_object_or_nothing(
    replicate, media_simulator: Simulator, path: str, prompt: str, kind: type
):
    """Output has the form that the model gives it, or that a word in the prompt asks for."""
    made = submit(replicate, prompt, path)
    media_simulator.advance(4)
    done = look(replicate, made)
    assert (done["status"], type(done["output"])) == ("succeeded", kind)


def test_a_list_may_fill_while_it_is_made(replicate, media_simulator: Simulator):
    """`[sim:response=partial]` shows the first file while the prediction is still processing."""
    made = submit(replicate, "x [sim:response=partial]", num_outputs=3)
    media_simulator.advance(1)
    running = look(replicate, made)
    assert (running["status"], len(running["output"])) == ("processing", 1)
    media_simulator.advance(3)
    assert len(look(replicate, made)["output"]) == 3
    assert media_simulator.ledger()[0]["amount"] == "0.12"


def test_data_is_removed_after_an_hour(replicate, media_simulator: Simulator):
    """An hour after its end a prediction is still succeeded, and its input, output and files are gone."""
    made = submit(replicate)
    media_simulator.advance(3 + 3590)
    url = look(replicate, made)["output"][0]
    assert httpx.get(url).status_code == 200
    media_simulator.advance(20)
    late = look(replicate, made)
    assert (late["status"], late["data_removed"]) == ("succeeded", True)
    assert (late["input"], late["output"]) == ({}, None)
    assert httpx.get(url).status_code == 403


def test_prefer_wait_holds_the_connection(replicate, media_simulator: Simulator):
    """`Prefer: wait` answers 201 with the result, or 202 with what there is once the seconds are over."""
    answers: list[httpx.Response] = []

    def ask(prompt: str, prefer: str) -> None:
        body = {"input": {"prompt": prompt}}
        answers.append(replicate.post(FLUX, json=body, headers={"Prefer": prefer}))

    for prompt, prefer, seconds, status, word in (
        ("x", "wait", 4, 201, "succeeded"),
        ("x [sim:seconds=500]", "wait=5", 6, 202, "processing"),
        ("x [sim:seconds=500]", "wait=900", 61, 202, "processing"),
    ):
        before = len(media_simulator.ledger())
        waiting = threading.Thread(target=ask, args=(prompt, prefer))
        waiting.start()
        while len(media_simulator.ledger()) == before:
            pass
        media_simulator.advance(seconds)
        waiting.join()
        assert (answers[-1].status_code, answers[-1].json()["status"]) == (status, word)


@pytest.mark.parametrize(
    ("path", "body", "field", "detail"),
    [
        ("/v1/predictions", {"input": {"prompt": "x"}}, "version", "version is required"),
        ("/v1/predictions", {"version": "nonsense", "input": {}}, "version", "Invalid version"),
        (FLUX, {}, "input", "input is required"),
        (FLUX, {"input": []}, "input", "Expected: object"),
        (FLUX, {"input": {"seed": 1}}, "input", "prompt is required"),
        (FLUX, {"input": {"prompt": 5}}, "input.prompt", "Expected: string"),
        (FLUX, {"input": {"prompt": "x", "num_outputs": 9}}, "input.num_outputs", "from 1 to 4"),
        (FLUX, {"input": {"prompt": "x"}, "webhook": "http://e.com"}, "webhook", "https-uri"),
        (FLUX, {"input": {"prompt": "x [sim:sec=3]"}}, "input", "[sim:sec=3] is unknown"),
    ],
)
def test_invalid_input_names_its_fields(
    replicate, media_simulator: Simulator, path: str, body: Any, field: str, detail: str
):
    """What is wrong is a 422 with the field in `invalid_fields`; nothing is billed."""
    reply = replicate.post(path, json=body)
    problem = reply.json()
    assert (reply.status_code, problem["status"]) == (422, 422)
    (wrong,) = problem["invalid_fields"]
    assert wrong["field"] == field
    assert detail in wrong["description"]
    assert wrong["description"] in problem["detail"]
    assert media_simulator.ledger() == []


@pytest.mark.parametrize(
    ("word", "status", "title"),
    [
        ("auth", 401, "Unauthenticated"),
        ("funds", 402, "Insufficient credit"),
        ("moderation", 422, "Prediction refused"),
        ("not_found", 404, "Not found"),
        ("server", 500, "Internal server error"),
    ],
)
def test_refusals_are_problem_documents(
    replicate, media_simulator: Simulator, word: str, status: int, title: str
):
    """A refusal has title, detail and its status, and costs nothing."""
    reply = replicate.post(FLUX, json={"input": {"prompt": f"x [sim:reject={word}]"}})
    assert (reply.status_code, reply.json()["status"], reply.json()["title"]) == (status, status, title)
    assert reply.json()["detail"]
    assert media_simulator.ledger() == []


def test_too_many_requests_is_a_sentence(replicate, media_simulator: Simulator):
    """429 has neither code nor status in its body: how long to wait is in the sentence, or a header too."""
    reply = replicate.post(FLUX, json={"input": {"prompt": "x [sim:reject=rate]"}})
    assert reply.status_code == 429
    assert reply.json() == {"detail": "Request was throttled. Your rate limit resets in ~1s."}
    assert "Retry-After" not in reply.headers
    media_simulator.fault("rate_limit", provider="replicate", retry_after=30)
    reply = replicate.post(FLUX, json={"input": {"prompt": "x"}})
    assert (reply.json()["detail"][-5:], reply.headers["Retry-After"]) == ("~30s.", "30")


@pytest.mark.parametrize(("word", "text"), [("moderation", "NSFW"), ("provider", "container")])
def test_a_failed_prediction_says_why(replicate, media_simulator: Simulator, word: str, text: str):
    """A failure is a status and free text; there is no code."""
    made = submit(replicate, f"x [sim:fail={word}]")
    media_simulator.advance(4)
    failed = look(replicate, made)
    assert (failed["status"], failed["output"]) == ("failed", None)
    assert text in failed["error"]


def test_keys(connect):
    """A missing or bad token is a 401, one without money a 402, and another account sees no predictions."""
    for key in ("", "sim-bad-key"):
        reply = connect("replicate", key).get("/v1/account")
        assert (reply.status_code, reply.json()["title"]) == (401, "Unauthenticated")
    reply = connect("replicate", "sim-no-funds").post(FLUX, json={"input": {"prompt": "x"}})
    assert reply.status_code == 402
    made = submit(connect("replicate"))
    other = connect("replicate", "other")
    assert other.get("/v1/account").json()["type"] == "user"
    assert other.get(f"/v1/predictions/{made['id']}").status_code == 404
    assert other.get("/v1/predictions").json()["results"] == []


def test_cancelling(replicate, media_simulator: Simulator):
    """A prediction that runs is canceled and costs nothing; one that has ended stays what it is."""
    media_simulator.fault("slots", provider="replicate", limit=1)
    running = submit(replicate)
    reply = replicate.post(running["urls"]["cancel"])
    assert (reply.status_code, reply.json()["status"]) == (200, "canceled")
    assert reply.json()["completed_at"]
    media_simulator.advance(10)
    cancelled = look(replicate, running)
    assert (cancelled["status"], cancelled["output"], cancelled["error"]) == ("canceled", None, None)
    done = submit(replicate, "the only slot is free again")
    media_simulator.advance(10)
    assert replicate.post(done["urls"]["cancel"]).json()["status"] == "succeeded"
    assert replicate.post("/v1/predictions/nope/cancel").status_code == 404


def test_pages_are_chained_by_their_address(replicate, media_simulator: Simulator):
    """A hundred to a page, newest first; `next` is an address that keeps the filter, whatever is new."""
    submit(replicate, "too old")
    media_simulator.advance(100)
    ids = [submit(replicate, "number 0")["id"]]
    media_simulator.advance(1)
    ids += [submit(replicate, f"number {number}")["id"] for number in range(1, 203)]
    since = datetime.fromtimestamp(media_simulator.ledger()[1]["at"]).astimezone().isoformat()
    page = replicate.get("/v1/predictions", params={"created_after": since}).json()
    seen = [one["id"] for one in page["results"]]
    submit(replicate, "made meanwhile")
    assert page["previous"] is None
    while page["next"]:
        page = replicate.get(page["next"]).json()
        seen += [one["id"] for one in page["results"]]
    assert seen == ids[::-1]
    before = replicate.get("/v1/predictions", params={"created_before": since}).json()["results"]
    assert [one["input"]["prompt"] for one in before] == ["number 0", "too old"]
    for wrong in ({"cursor": "x"}, {"created_after": "yesterday"}):
        assert replicate.get("/v1/predictions", params=wrong).status_code == 422


def test_unknown_paths_and_predictions(replicate):
    """What is not there is a 404 in the same form."""
    for path in ("/v1/predictions/nope", "/v2/predictions"):
        reply = replicate.get(path)
        assert (reply.status_code, reply.json()["title"]) == (404, "Not found")


def test_a_video_of_our_own_image_shows_it(replicate, media_simulator: Simulator):
    """An image that the simulator made is taken as input; one that it does not have is refused."""
    made = submit(replicate)
    media_simulator.advance(4)
    url = look(replicate, made)["output"][0]
    submit(replicate, "it turns", VEO, image=url)
    assert media_simulator.ledger()[-1]["operation"] == "image_to_video"
    gone = {"prompt": "it turns", "image": url.replace("-0.png", "-9.png")}
    assert replicate.post(VEO, json={"input": gone}).status_code == 422
