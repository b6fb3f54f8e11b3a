from __future__ import annotations

from typing import Any, ClassVar

import pytest

from airflow_media_tasks.hooks.runway import RunwayHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaCost,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTaskError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)

from .by_hand import reply
from .contract import HookContract
from .peer import Peer, say


PICTURE, FILM = "https://example.com/1.png", "https://example.com/1.mp4"


class TestRunwayHook(HookContract):
    """The contract, for Runway."""

    hook_class = RunwayHook
    paid = "text_to_image"
    other = "text_to_video"
    unknown_id = "00000000-0000-4000-8000-000000000000"
    foreign_ids = ("veo/00000000", "videos/text2video/00000000", "operations/a/b", "task id", "a?b")
    ambiguous = frozenset(RunwayHook.operations)
    concurrency_error = MediaFundsError
    cost_unit = "credits"
    documented = (
        ("text_to_image", "1.png", "image/png"),
        ("text_to_image", "1.webp", "image/webp"),
        ("text_to_video", "1.mp4?_jwt=a.b.c", "video/mp4"),
        ("text_to_speech", "1.mp3", "audio/mpeg"),
        ("sound_effect", "1.wav", "audio/wav"),
    )
    samples: ClassVar = {
        "text_to_image": {"prompt": "a lighthouse at dusk", "aspect_ratio": "1360:768", "seed": "7"},
        "text_to_video": {"prompt": "waves", "duration": "5"},
        "image_to_video": {"prompt": "it rains", "image_url": PICTURE, "end_image_url": PICTURE},
        "video_to_video": {"prompt": "at night", "video_url": FILM},
        "upscale_video": {"video_url": FILM},
        "character_performance": {"image_url": PICTURE, "reference_url": FILM},
        "text_to_speech": {"text": "Land ahead.", "voice": "Leslie"},
        "sound_effect": {"prompt": "a gull", "duration": 1.5},
    }

    def expected_mark(self, operation: str) -> None:
        """A task has no place for a mark of ours."""

    def accepted(self, own_id: Any) -> dict[str, Any]:
        """A submission's answer."""
        return {"id": own_id, "estimatedCost": {"credits": 5}}

    def group_of(self, operation: str) -> str:
        """Tasks have none."""
        return ""

    def finished_with(self, operation: str, url: str) -> dict[str, Any]:
        """A task that made one file."""
        return {"id": "t-1", "status": "SUCCEEDED", "output": [url], "cost": {"credits": 5}}

    # What is sent.

    def test_what_is_sent(self, hook: RunwayHook, sim: Simulator) -> None:
        """Neutral words stand where Runway wants them, with a model and what it does not do without."""
        hook.submit("text_to_image", {"prompt": "a cup"})
        hook.submit("text_to_video", {"prompt": "a cup", "aspect_ratio": "720:1280", "duration": "8"})
        hook.submit("image_to_video", {"image_url": PICTURE, "end_image_url": FILM, "seed": 7})
        hook.submit("video_to_video", {"prompt": "a cup", "video_url": FILM})
        hook.submit("upscale_video", {"video_url": FILM})
        hook.submit("character_performance", {"video_url": FILM, "reference_url": FILM, "bodyControl": True})
        hook.submit("text_to_speech", {"text": "hello"})
        hook.submit("sound_effect", {"prompt": "a gull", "loop": True})
        first, last = {"uri": PICTURE, "position": "first"}, {"uri": FILM, "position": "last"}
        film = {"type": "video", "uri": FILM}
        assert [entry["request"] for entry in sim.ledger()] == [
            {"model": "gen4_image", "promptText": "a cup", "ratio": "1920:1080"},
            {"model": "gen4.5", "promptText": "a cup", "ratio": "720:1280", "duration": 8},
            {"model": "gen4_turbo", "promptImage": [first, last], "ratio": "1280:720", "seed": 7},
            {"model": "aleph2", "promptText": "a cup", "videoUri": FILM},
            {"model": "magnific_video_upscaler_creative", "videoUri": FILM},
            {"model": "act_two", "character": film, "reference": film, "bodyControl": True},
            {
                "model": "eleven_multilingual_v2",
                "promptText": "hello",
                "voice": {"type": "runway-preset", "presetId": "Maya"},
            },
            {"model": "eleven_text_to_sound_v2", "promptText": "a gull", "loop": True},
        ]

    @pytest.mark.parametrize(
        ("model", "word"),
        [
            ("aleph2", "videoUri"),
            ("kling_4", "videoUri"),
            ("gemini_omni_flash", "videoUri"),
            ("klingO3_pro", "promptVideo"),
            ("hailuo3", "promptVideo"),
            ("seedance2_5", "promptVideo"),
            ("nobody_knows_1", "videoUri"),
        ],
    )
    def test_a_film_has_two_names(self, hook: RunwayHook, sim: Simulator, model: str, word: str) -> None:
        """The film that is to be changed stands under the name that the model has for it."""
        hook.submit("video_to_video", {"model": model, "prompt": "at night", "video_url": FILM})
        assert sim.ledger()[0]["request"] == {"model": model, "promptText": "at night", word: FILM}

    def test_runways_own_words(self, hook: RunwayHook, sim: Simulator) -> None:
        """What is given in Runway's own words is passed on as it is."""
        own = {"promptText": "a cup", "model": "gpt_image_2", "ratio": "auto", "outputCount": 2}
        hook.submit("text_to_image", own)
        hook.submit("video_to_video", {"videoUri": FILM, "keyframes": [{"at": 0.5, "uri": PICTURE}]})
        assert [entry["request"] for entry in sim.ledger()] == [
            own,
            {"model": "aleph2", "videoUri": FILM, "keyframes": [{"at": 0.5, "uri": PICTURE}]},
        ]

    def test_a_model_that_nobody_knows_gets_nothing_added(self, hook: RunwayHook, sim: Simulator) -> None:
        """The usual ratio and length are those of Runway's own models; any other gets what was asked for."""
        hook.submit("text_to_video", {"model": "brand_new_2", "prompt": "waves"})
        assert sim.ledger()[0]["request"] == {"model": "brand_new_2", "promptText": "waves"}

    def test_the_connection_names_the_models(self, connect: Any, sim: Simulator) -> None:
        """`models` in the connection's extra replaces a default model; a task's own `model` outranks it."""
        hook = self.hook_for(connect, sim, extra={"models": {"text_to_video": "veo3.1"}})
        hook.submit("text_to_video", {"prompt": "waves"})
        hook.submit("text_to_video", {"prompt": "waves", "model": "wan3"})
        assert [entry["request"] for entry in sim.ledger()] == [
            {"model": "veo3.1", "promptText": "waves", "ratio": "1280:720"},
            {"model": "wan3", "promptText": "waves"},
        ]

    def test_a_voice_of_ones_own(self, hook: RunwayHook, sim: Simulator) -> None:
        """A voice is a preset's name, or an object as Runway's reference has it."""
        voice = {"type": "reference-audio", "audioUri": "https://example.com/1.mp3"}
        hook.submit("text_to_speech", {"model": "seed_audio", "text": "hello", "voice": voice})
        assert sim.ledger()[0]["request"]["voice"] == voice

    def test_the_version_goes_along(self, hook: RunwayHook, connect: Any, peer: Peer) -> None:
        """Every request says of which version of the API it is: without that Runway answers none."""
        other = RunwayHook(connect(conn_type="runway", host=peer.url, password="a-good-key"))
        peer.answer = lambda handler: say(handler, self.finished_with("text_to_image", PICTURE))
        other.get_task("t-1")
        assert peer.seen[0][2]["x-runway-version"] == "2024-11-06"

    # What it costs.

    def test_what_it_costs_is_told_in_advance(self, hook: RunwayHook, sim: Simulator, call: Any) -> None:
        """An estimate comes with the acceptance, the cost with the end; a failure costs nothing."""
        task = call(hook, "submit", self.paid, self.samples[self.paid])
        assert task.cost == MediaCost("credits", None, "8")
        sim.advance(10)
        assert call(hook, "get_task", task.id).cost == MediaCost("credits", "8")
        failed = call(hook, "submit", self.paid, self.with_words("[sim:fail=provider]"))
        sim.advance(10)
        assert call(hook, "get_task", failed.id).cost == MediaCost("credits", "0")
        assert call(hook, "get_balance").unit == "credits"

    def test_progress(self, hook: RunwayHook, sim: Simulator, call: Any) -> None:
        """How far a task is stands in it while it runs."""
        task = call(hook, "submit", self.paid, self.with_words("[sim:queued=0] [sim:seconds=100]"))
        sim.advance(50)
        assert call(hook, "get_task", task.id).progress == pytest.approx(0.5, abs=0.02)

    # What refuses.

    def test_a_days_limit_is_not_tried_again(self, hook: RunwayHook, sim: Simulator, call: Any) -> None:
        """The limit of a day is no matter of minutes: it ends the task as an empty account does."""
        with pytest.raises(MediaFundsError, match="daily task limit") as caught:
            call(hook, "submit", self.paid, self.with_words("[sim:reject=concurrency]"))
        assert caught.value.code == "429"
        assert sum(sim.requests().values()) == 1

    def test_an_argument_that_is_wrong_is_named(self, hook: RunwayHook, sim: Simulator, call: Any) -> None:
        """What a model does not take is told in Runway's words."""
        with pytest.raises(MediaRequestError, match="promptText: Too big"):
            call(hook, "submit", "text_to_video", {"prompt": "x" * 1001})
        with pytest.raises(MediaRequestError, match="referenceImages: Required"):
            call(
                hook,
                "submit",
                "text_to_image",
                {"model": "gen4_image_turbo", "prompt": "x", "ratio": "720:720"},
            )
        assert sim.ledger() == []

    # What is stopped.

    def test_what_has_ended_is_not_deleted(self, hook: RunwayHook, sim: Simulator, call: Any) -> None:
        """Runway deletes what is cancelled after its end: such a task is left alone, with its files."""
        done = self.finished(hook, sim)
        assert call(hook, "cancel_task", done.id).files == done.files
        assert "DELETE /runway/v1/tasks/{id}" not in sim.requests()
        assert call(hook, "get_task", done.id).status is TaskStatus.SUCCEEDED

    @pytest.mark.parametrize("status", [204, 200])
    def test_what_was_stopped_may_be_gone(self, connect: Any, peer: Peer, call: Any, status: int) -> None:
        """A task that cannot be fetched any more after it was stopped is a cancelled one."""
        hook = RunwayHook(connect(conn_type="runway", host=peer.url, password="a-good-key"))
        running = {"id": "t-1", "status": "RUNNING", "progress": 0.5}

        def answer(handler: Any) -> None:
            methods = [method for method, *_ in peer.seen]
            if handler.command == "DELETE":
                say(handler, b"" if status == 204 else {}, status)
            elif "DELETE" in methods:
                say(handler, {"error": "No such task."}, 404)
            else:
                say(handler, running)

        peer.answer = answer
        stopped = call(hook, "cancel_task", "t-1")
        assert (stopped.status, stopped.files) == (TaskStatus.CANCELLED, ())
        assert [method for method, *_ in peer.seen] == ["GET", "DELETE", "GET"]

    # What nobody can find.

    def test_a_lost_submission_is_a_question(self, hook: RunwayHook, sim: Simulator, call: Any) -> None:
        """There is neither a list nor a place for a mark: it is never said that nothing was accepted."""
        with pytest.raises(SubmissionOutcomeUnknown):
            call(hook, "submit", self.paid, self.with_words("[sim:lose-reply]"), client_ref="mark")
        assert not any(hook.can_be_asked(name) for name in hook.operations)
        with pytest.raises(SubmissionOutcomeUnknown, match="it has no list of 'text_to_image' tasks"):
            call(hook, "find_tasks", operation=self.paid, client_ref="mark")
        assert len(sim.ledger()) == 1


@pytest.fixture
def hook(connect: Any) -> RunwayHook:
    """A hook that is talked to by hand."""
    return RunwayHook(connect(conn_type="runway", password="a-good-key"))


def read(hook: RunwayHook, **document: Any) -> Any:
    """The task that this document is of."""
    return hook._task("t-1", {"id": "t-1", "createdAt": "2026-11-20T10:00:00.000Z", **document})


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("PENDING", TaskStatus.QUEUED),
        ("THROTTLED", TaskStatus.QUEUED),
        ("RUNNING", TaskStatus.RUNNING),
        ("SUCCEEDED", TaskStatus.SUCCEEDED),
        ("FAILED", TaskStatus.FAILED),
        ("CANCELLED", TaskStatus.CANCELLED),
    ],
)
def test_every_status_word(hook: RunwayHook, word: str, status: TaskStatus) -> None:
    """What waits for another of the account to end is accepted, and queued."""
    assert read(hook, status=word, output=[PICTURE]).status is status


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        ("SAFETY.INPUT.TEXT", MediaModerationError),
        ("SAFETY.INPUT.IMAGE", MediaModerationError),
        ("SAFETY.OUTPUT.VIDEO", MediaModerationError),
        ("INPUT_PREPROCESSING.SAFETY.TEXT", MediaModerationError),
        ("INPUT_PREPROCESSING.SAFETY.THIRD_PARTY", MediaModerationError),
        ("INPUT_PREPROCESSING.INTERNAL", MediaTaskFailed),
        ("ASSET.INVALID", MediaTaskFailed),
        ("THIRD_PARTY.UNAVAILABLE", MediaTaskFailed),
        ("INTERNAL.BAD_OUTPUT.CODE01", MediaTaskFailed),
        ("INTERNAL", MediaTaskFailed),
        (None, MediaTaskFailed),
    ],
)
def test_every_failure(hook: RunwayHook, code: str | None, cls: type[Exception]) -> None:
    """Whatever family a code is of, SAFETY in it is moderation; each is kept, with Runway's words."""
    error = read(hook, status="FAILED", failure="It went wrong.", failureCode=code, cost={"credits": 0}).error
    assert type(error) is cls
    assert error.code == (code or "FAILED")
    assert "It went wrong." in str(error)


@pytest.mark.parametrize(
    ("status", "body", "cls"),
    [
        (400, {"error": "promptImage: the asset could not be fetched."}, MediaRequestError),
        (400, {"error": "You do not have enough credits to run this task."}, MediaFundsError),
        (401, {"error": "Unauthorized"}, MediaAuthError),
        (404, {"error": "Not found"}, MediaNotFoundError),
        (405, {"error": "Method not allowed"}, MediaRequestError),
        (429, {"error": "Your daily task limit has been reached."}, MediaFundsError),
        (429, {"error": "Slow down."}, MediaRateLimitError),
        (429, {}, MediaRateLimitError),
    ],
)
def test_every_refusal(hook: RunwayHook, status: int, body: Any, cls: type[MediaTaskError]) -> None:
    """An error is a sentence and a status; the sentence decides where the status says too little."""
    error = hook.error_of(reply(body, status))
    assert type(error) is cls
    assert str(body.get("error", "")) in str(error)


@pytest.mark.parametrize("made", [[], None, "", ["no address"], {"node": []}])
def test_what_is_no_file_is_no_result(hook: RunwayHook, made: Any) -> None:
    """A task that has succeeded with nothing has failed."""
    task = read(hook, status="SUCCEEDED", output=made, cost={"credits": 5})
    assert (task.status, task.error.code) == (TaskStatus.FAILED, "no_output")


def test_costs_may_be_fractions(hook: RunwayHook) -> None:
    """An estimate need not be a whole number of credits."""
    assert read(hook, status="PENDING", estimatedCost={"credits": 2.5}).cost == MediaCost(
        "credits", None, "2.5"
    )
