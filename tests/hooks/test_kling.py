from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

import jwt
import pytest

from airflow_media_tasks.hooks.kling import KlingHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaBalance,
    MediaConcurrencyError,
    MediaCost,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaProviderError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTaskError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)

from .by_hand import held, reply, told
from .case import KEY, MARK, VIDEO_ID
from .contract import HookContract


PICTURE = "https://example.com/1.png"
ACCESS_KEY = "sim-access-key"
SECRET_KEY = "sim-secret-key-0123456789abcdef0123456789"
URL = "https://cdn.klingai.com/1.mp4"
NOW = 1_760_000_000_000  # ms


class TestKlingHook(HookContract):
    """The contract, for Kling."""

    hook_class = KlingHook
    paid = "text_to_video"
    other = "text_to_image"
    unknown_id = "videos/text2video/00000000-0000-4000-8000-000000000000"
    foreign_ids = (
        "00000000-0000-4000",
        "veo/0000",
        "operations/1",
        "videos/text2video/",
        "videos/a/b?c",
        "a/b/c",
    )
    ambiguous = frozenset({"text_to_image", "image_to_image"})
    concurrency_error = MediaConcurrencyError
    cost_unit = "units"
    finds_by_request = False
    documented = (
        ("text_to_video", "1.mp4", "video/mp4"),
        ("text_to_audio", "1.mp3", "audio/mpeg"),
        ("text_to_audio", "1.wav", "audio/wav"),
    )
    samples: ClassVar = {
        "text_to_video": {"prompt": "a lighthouse at dusk", "duration": 10, "aspect_ratio": "16:9"},
        "image_to_video": {"image_url": PICTURE, "end_image_url": PICTURE, "prompt": "it rains"},
        "multi_image_to_video": {"image_urls": [PICTURE, PICTURE], "prompt": "together"},
        "extend_video": {"video_id": VIDEO_ID, "prompt": "and on"},
        "lip_sync": {"video_id": VIDEO_ID, "text": "hello", "voice_id": "girlfriend_1_speech02"},
        "video_effects": {"effect_scene": "hug", "image_urls": [PICTURE, PICTURE]},
        "text_to_image": {"prompt": "a red mug", "count": "3", "model": "kling-v2-1"},
        "image_to_image": {"prompt": "at night", "image_url": PICTURE},
        "virtual_try_on": {"person_image_url": PICTURE, "cloth_image_url": PICTURE},
        "text_to_audio": {"prompt": "rain", "duration": 5},
        "video_to_audio": {"video_id": VIDEO_ID, "prompt": "wind"},
    }

    def expected_mark(self, operation: str) -> str | None:
        """The mark is the external id; an extension takes none."""
        return None if operation == "extend_video" else MARK

    def accepted(self, own_id: Any) -> dict[str, Any]:
        """A submission's answer."""
        return {"code": 0, "data": {"task_id": own_id, "task_status": "submitted"}}

    def group_of(self, operation: str) -> str:
        """The path that made it."""
        return KlingHook.operations[operation].path.removeprefix("/v1/")

    def finished_with(self, operation: str, url: str) -> dict[str, Any]:
        """A video, or a sound in the form that its name says."""
        key, name = ("audios", f"url_{url[-3:]}") if operation == "text_to_audio" else ("videos", "url")
        data = {"task_status": "succeed", "task_result": {key: [{"id": "1", name: url}]}}
        return {"code": 0, "data": data}

    def test_extension_is_found_by_its_parent(self, hook: KlingHook, sim: Simulator, call: Any) -> None:
        """An extension has no external id; where the list shows its parent, that tells it from another's."""
        first, second = (self.finished(hook, sim).files[0].id for _ in range(2))
        began = datetime.fromtimestamp(sim.ledger()[0]["at"], timezone.utc)
        ids = [call(hook, "submit", "extend_video", {"video_id": one}).id for one in (first, second)]
        sim.advance(10)
        wanted = {"client_ref": MARK, "operation": "extend_video", "submitted_after": began}
        try:
            found = call(hook, "find_tasks", arguments={"video_id": second}, **wanted)
        except SubmissionOutcomeUnknown:
            pytest.fail("the list shows the parent of each extension")
        assert [task.id for task in found] == [ids[1]]

    @pytest.mark.parametrize("form", ["404", "1201"])
    def test_unknown_task_in_each_form(self, hook: KlingHook, sim: Simulator, call: Any, form: str) -> None:
        """An unknown id is answered with 1203 or with 1201; both mean that it is not there."""
        sim.fault("unknown_as", value=form)
        known = call(hook, "submit", self.paid, self.samples[self.paid]).id
        with pytest.raises(MediaNotFoundError):
            call(hook, "get_task", self.unknown_id)
        assert list(call(hook, "get_tasks", [self.unknown_id, known])) == [known]

    def test_read_by_external_id(self, hook: KlingHook, sim: Simulator, call: Any) -> None:
        """The caller's own id reads a task too; the task then names the provider's id."""
        task = call(hook, "submit", self.paid, self.samples[self.paid], client_ref="mine-1")
        assert call(hook, "get_task", "videos/text2video/mine-1").id == task.id
        assert list(call(hook, "get_tasks", ["videos/text2video/mine-1"])) == ["videos/text2video/mine-1"]

    def test_same_external_id_twice(self, hook: KlingHook, sim: Simulator, call: Any) -> None:
        """A second submission under the same external id is refused by the provider and costs nothing."""
        call(hook, "submit", self.paid, self.samples[self.paid], client_ref="mine-1")
        with pytest.raises(MediaRequestError, match="external_task_id already exists"):
            call(hook, "submit", self.paid, self.samples[self.paid], client_ref="mine-1")
        assert len(sim.ledger()) == 1

    # Keys.

    def test_key_pair(self, connect: Any, sim: Simulator, call: Any) -> None:
        """With login and password a token is signed for each request, which the provider verifies."""
        hook = self.hook_for(connect, sim, login=ACCESS_KEY, password=SECRET_KEY)
        task = call(hook, "submit", self.paid, self.samples[self.paid])
        assert call(hook, "get_task", task.id).id == task.id
        assert float(call(hook, "get_balance").amount) > 0
        claims = jwt.decode(
            hook._headers()["Authorization"].removeprefix("Bearer "), SECRET_KEY, algorithms=["HS256"]
        )
        assert claims["iss"] == ACCESS_KEY
        assert claims["exp"] - claims["nbf"] == 1805
        assert claims["exp"] == pytest.approx(time.time() + 1800, abs=5)

    @pytest.mark.parametrize(
        "fields", [{"login": "another-access-key"}, {"password": "another-secret-key-" * 3}]
    )
    def test_wrong_key_pair(self, connect: Any, sim: Simulator, call: Any, fields: dict[str, str]) -> None:
        """A wrong half of the pair is MediaAuthError, asked once, and neither key is in the text."""
        hook = self.hook_for(connect, sim, **{"login": ACCESS_KEY, "password": SECRET_KEY, **fields})
        with pytest.raises(MediaAuthError) as caught:
            call(hook, "submit", self.paid, self.samples[self.paid])
        assert caught.value.code == "1002"
        assert not any(key in str(caught.value) for key in (ACCESS_KEY, SECRET_KEY, *fields.values()))
        assert sum(sim.requests().values()) == 1

    @pytest.mark.parametrize("offset", [-3600.0, 3600.0])
    def test_clocks_that_disagree(self, connect: Any, sim: Simulator, call: Any, offset: float) -> None:
        """A token that the provider's clock refuses is signed once more by that clock; it is billed once."""
        hook = self.hook_for(connect, sim, login=ACCESS_KEY, password=SECRET_KEY)
        sim.fault("clock_skew", provider="kling", offset=offset)
        task = call(hook, "submit", self.paid, self.samples[self.paid])
        assert len(sim.ledger()) == 1
        assert sim.requests() == {"POST /kling/v1/videos/text2video": 2}
        call(hook, "get_task", task.id)
        assert sum(sim.requests().values()) == 3

    def test_clock_that_cannot_be_followed(
        self, connect: Any, sim: Simulator, call: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If the second token is refused too, that is the end: MediaAuthError after two requests."""
        hook = self.hook_for(connect, sim, login=ACCESS_KEY, password=SECRET_KEY)
        stale = {"iss": ACCESS_KEY, "exp": int(time.time()) - 600, "nbf": 0}
        token = jwt.encode(stale, SECRET_KEY, algorithm="HS256")
        monkeypatch.setattr(hook, "_headers", lambda: {"Authorization": f"Bearer {token}"})
        with pytest.raises(MediaAuthError) as caught:
            call(hook, "submit", self.paid, self.samples[self.paid])
        assert caught.value.code == "1004"
        assert sum(sim.requests().values()) == 2

    def test_request_id_is_told(self, connect: Any, sim: Simulator, call: Any) -> None:
        """The provider's request id, which its support asks for, is in the error's text."""
        with pytest.raises(MediaNotFoundError, match=r"code 1203, request '[0-9a-f-]{36}'") as caught:
            call(self.hook_for(connect, sim), "get_task", self.unknown_id)
        assert caught.value.code == "1203"

    # What the reference client gets wrong (kling.md 4), against the provider's own checks.

    @pytest.mark.parametrize(
        ("name", "path"),
        [
            ("text_to_image", "/v1/images/generations"),
            ("extend_video", "/v1/videos/video-extend"),
            ("virtual_try_on", "/v1/images/kolors-virtual-try-on"),
            ("lip_sync", "/v1/videos/lip-sync"),
            ("video_effects", "/v1/videos/effects"),
            ("image_to_video", "/v1/videos/image2video"),
        ],
    )
    def test_task_is_read_where_it_was_made(
        self, hook: KlingHook, sim: Simulator, call: Any, name: str, path: str
    ) -> None:
        """Each task is submitted and read at its own path, which its handle says; elsewhere it is unknown."""
        task = call(hook, "submit", name, self.arguments(name, hook, sim))
        assert task.id.startswith(f"{path.removeprefix('/v1/')}/")
        call(hook, "get_task", task.id)
        assert sim.requests()[f"GET /kling{path}/{{id}}"] == 1
        if name != "text_to_video":
            with pytest.raises(MediaNotFoundError):
                call(hook, "get_task", f"videos/text2video/{task.id.rpartition('/')[2]}")

    def test_words_of_each_request(self, hook: KlingHook, sim: Simulator) -> None:
        """Neutral words become the documented ones: n, image, image_tail, input, human_image, strings."""
        wanted = {
            "image_to_video": {"image": PICTURE, "image_tail": PICTURE, "prompt": "it rains"},
            "multi_image_to_video": {"image_list": [{"image": PICTURE}] * 2, "prompt": "together"},
            "text_to_image": {"prompt": "a red mug", "n": 3, "model_name": "kling-v2-1"},
            "virtual_try_on": {"human_image": PICTURE, "cloth_image": PICTURE},
            "video_effects": {"effect_scene": "hug", "input": {"images": [PICTURE, PICTURE]}},
            "text_to_video": {"prompt": "a lighthouse at dusk", "duration": "10", "aspect_ratio": "16:9"},
            "text_to_audio": {"prompt": "rain", "duration": 5},
        }
        for name in wanted:
            hook.submit(name, self.samples[name])
        assert {entry["operation"]: entry["request"] for entry in sim.ledger()} == wanted

    def test_lip_sync_in_both_forms(self, hook: KlingHook, sim: Simulator) -> None:
        """A lip sync to a text and one to a sound are told apart by `mode`, all within `input`."""
        video = {"video_url": "https://example.com/1.mp4"}
        hook.submit("lip_sync", {**video, "text": "hi", "voice_id": "v"}, client_ref="a")
        hook.submit("lip_sync", {**video, "audio_url": "https://example.com/1.mp3"}, client_ref="b")
        assert [entry["request"] for entry in sim.ledger()] == [
            {
                "input": {"mode": "text2video", **video, "text": "hi", "voice_id": "v"},
                "external_task_id": "a",
            },
            {
                "input": {
                    "mode": "audio2video",
                    "audio_type": "url",
                    **video,
                    "audio_url": "https://example.com/1.mp3",
                },
                "external_task_id": "b",
            },
        ]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"mode": "professional"}, "mode value 'professional' is invalid"),
            ({"model": "kling-v1.6"}, "model_name value 'kling-v1.6' is invalid"),
            ({"duration": 7}, "duration value '7' is invalid"),
        ],
    )
    def test_what_only_the_provider_can_judge(
        self, hook: KlingHook, sim: Simulator, call: Any, arguments: dict[str, Any], words: str
    ) -> None:
        """A wrong option reaches the provider, whose 1201 comes back in its own words; nothing is billed."""
        with pytest.raises(MediaRequestError) as caught:
            call(hook, "submit", self.paid, {**self.samples[self.paid], **arguments})
        assert words in str(caught.value).replace('"', "'").replace("\\", "")
        assert caught.value.code == "1201"
        assert sim.ledger() == []

    def test_price_list_that_exists(self, hook: KlingHook, sim: Simulator, call: Any) -> None:
        """The balance is asked of /account/costs, with its two required times."""
        balance = call(hook, "get_balance")
        assert balance == MediaBalance("1000000", "units", None)
        assert sim.requests() == {"GET /kling/account/costs": 1}

    def test_gateways_own_404(self, hook: KlingHook, sim: Simulator, call: Any) -> None:
        """The gateway's page for a path that does not exist has no code: it is not found, not a crash."""
        with pytest.raises(MediaNotFoundError, match="Not Found"):
            call(hook, "get_task", "videos/no-such-path/1")

    def test_watermarked_twin(self, hook: KlingHook, sim: Simulator, call: Any) -> None:
        """The watermarked copy is kept and marked, and is not among the URLs that were asked for."""
        task = call(hook, "submit", self.paid, self.with_words("[sim:watermark]"))
        sim.advance(10)
        done = call(hook, "get_task", task.id)
        assert sorted(file.watermarked for file in done.files) == [False, True]
        assert len(done.urls) == 1

    @pytest.mark.parametrize("word", ["succeed", "succeeded"])
    def test_both_words_for_success(self, hook: KlingHook, sim: Simulator, call: Any, word: str) -> None:
        """`succeed` of the older endpoints and `succeeded` of the newer ones both are success."""
        task = call(hook, "submit", self.paid, self.with_words(f"[sim:final={word}]"))
        sim.advance(10)
        done = call(hook, "get_task", task.id)
        assert (done.status, done.status_word) == (TaskStatus.SUCCEEDED, word)

    def test_slots(self, hook: KlingHook, sim: Simulator, call: Any) -> None:
        """Over the pack's limit of tasks in flight it is MediaConcurrencyError, until one has ended."""
        sim.fault("slots", limit=1)
        call(hook, "submit", self.paid, self.samples[self.paid])
        with pytest.raises(MediaConcurrencyError) as caught:
            call(hook, "submit", self.paid, self.samples[self.paid])
        assert caught.value.code == "1303"
        sim.advance(10)
        call(hook, "submit", self.paid, self.samples[self.paid])
        assert len(sim.ledger()) == 2


@pytest.fixture
def hook(connect: Any) -> KlingHook:
    """A hook that is talked to by hand."""
    return KlingHook(connect(conn_type="kling", password=KEY))


def read(hook: KlingHook, path: str = "videos/text2video", **data: Any) -> Any:
    """The task that this data describes."""
    return told(hook._get_task(f"{path}/t-1"), {"code": 0, "data": {"task_id": "t-1", **data}})


# Errors (kling.md 5).


@pytest.mark.parametrize(
    ("status", "code", "cls"),
    [
        *((401, code, MediaAuthError) for code in (1000, 1001, 1002, 1003, 1004)),
        (429, 1100, MediaAuthError),
        (429, 1101, MediaFundsError),
        (429, 1102, MediaFundsError),
        (403, 1103, MediaAuthError),
        (400, 1200, MediaRequestError),
        (400, 1201, MediaRequestError),
        (404, 1202, MediaRequestError),
        (404, 1203, MediaNotFoundError),
        (400, 1300, MediaModerationError),
        (400, 1301, MediaModerationError),
        (429, 1302, MediaRateLimitError),
        (429, 1303, MediaConcurrencyError),
        (429, 1304, MediaAuthError),
        (500, 5000, MediaProviderError),
        (503, 5001, MediaProviderError),
        (504, 5002, MediaProviderError),
        (200, 1102, MediaFundsError),
        (200, 1301, MediaModerationError),
        (400, 9999, MediaRequestError),
        (500, 9999, MediaProviderError),
        (200, 9999, MediaProviderError),
    ],
)
def test_code_decides(hook: KlingHook, status: int, code: int, cls: type[MediaTaskError]) -> None:
    """The class goes by `code`: a 429 may be no money, and a 200 with a code is a failure."""
    error = hook.error_of(reply({"code": code, "message": "as it is", "request_id": "r-1"}, status))
    assert type(error) is cls
    assert (error.provider, error.code) == ("kling", str(code))
    assert "as it is" in str(error)
    assert "r-1" in str(error)


@pytest.mark.parametrize("code", [None, "0", True, 0.5, []])
def test_good_reply_needs_a_code(hook: KlingHook, code: Any) -> None:
    """A 200 whose code is absent or no number is no success."""
    assert type(hook.error_of(reply({"code": code, "data": {"task_id": "t"}}))) is MediaProviderError
    assert hook.error_of(reply({"code": 0, "data": {}})) is None


@pytest.mark.parametrize(
    ("status", "cls"),
    [(404, MediaNotFoundError), (401, MediaAuthError), (429, MediaRateLimitError), (502, MediaProviderError)],
)
def test_gateway_page_without_a_code(hook: KlingHook, status: int, cls: type[MediaTaskError]) -> None:
    """The gateway's own pages know no code; the HTTP status decides."""
    page = {"timestamp": NOW, "status": status, "error": "Not Found", "path": "/v1/image/generation"}
    assert type(hook.error_of(reply(page, status))) is cls


@pytest.mark.parametrize("data", [None, {}, [], "x", {"task_status": "submitted"}])
def test_submission_without_an_id(hook: KlingHook, data: Any) -> None:
    """A submission's reply without a task id is the provider's error, never a task named None."""
    name = "text_to_video"
    with pytest.raises(MediaProviderError, match=r"without a data\.task_id"):
        told(hook._submit(name, hook.operations[name], {"prompt": "x"}, None), {"code": 0, "data": data})


@pytest.mark.parametrize("data", [None, {}, []])
def test_read_without_a_task(hook: KlingHook, data: Any) -> None:
    """A status reply without a task is the provider's error."""
    with pytest.raises(MediaProviderError, match="without a task in data"):
        told(hook._get_task("videos/text2video/t-1"), {"code": 0, "data": data})


# What a task shows (kling.md 2B).


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("submitted", TaskStatus.QUEUED),
        ("processing", TaskStatus.RUNNING),
        ("succeed", TaskStatus.SUCCEEDED),
        ("succeeded", TaskStatus.SUCCEEDED),
        ("failed", TaskStatus.FAILED),
        (None, TaskStatus.RUNNING),
        (3, TaskStatus.RUNNING),
    ],
)
def test_every_status_word(hook: KlingHook, word: Any, status: TaskStatus) -> None:
    """Each documented word, and none at all."""
    assert read(hook, task_status=word, task_result={"videos": [{"url": URL}]}).status is status


def test_video_shows_length_id_expiry_and_cost(hook: KlingHook) -> None:
    """Length is text in seconds, the id is what an extension asks for, files die after 30 days, no size."""
    task = read(
        hook,
        task_status="succeed",
        created_at=NOW,
        updated_at=NOW,
        final_unit_deduction="3.5",
        task_result={"videos": [{"id": "v-1", "url": URL, "duration": "5.1"}]},
    )
    (video,) = task.files
    made = datetime.fromtimestamp(NOW / 1000, timezone.utc)
    assert (video.id, video.duration, video.expires_at) == ("v-1", 5.1, made + timedelta(days=30))
    assert (video.width, video.height) == (None, None)
    assert (task.cost.unit, task.cost.amount, task.created_at) == ("units", "3.5", made)


@pytest.mark.parametrize(
    ("units", "balance", "cost"),
    [
        ("3.5", {"quota": "0.00"}, MediaCost("units", "3.5")),
        ("3.5", {"quota": "1.2"}, MediaCost("units", "3.5")),
        ("0", {"quota": "1.2", "list_price": "1.4"}, MediaCost("balance", "1.2")),
        (None, {"quota": "1.2"}, MediaCost("balance", "1.2")),
        ("0", {"quota": "0"}, MediaCost("units", "0")),
        (None, None, None),
        (None, "free", None),
    ],
)
def test_cost_is_units_or_what_the_balance_paid(
    hook: KlingHook, units: Any, balance: Any, cost: MediaCost | None
) -> None:
    """A task of an account without a resource pack is paid by the balance."""
    told = {"final_unit_deduction": units, "final_balance_deduction": balance}
    assert read(hook, task_status="succeed", task_result={"videos": [{"url": URL}]}, **told).cost == cost


@pytest.mark.parametrize(
    "item",
    [
        {"id": "a", "url_mp3": "https://x/1.mp3", "url_wav": "https://x/1.wav", "duration_mp3": "3.0"},
        {"id": "a", "mp3_url": "https://x/1.mp3", "wav_url": "https://x/1.wav", "mp3_duration": "3.0"},
    ],
)
def test_sound_in_both_spellings(hook: KlingHook, item: dict[str, str]) -> None:
    """Sound comes as MP3 and as WAV, under names that the two generations of endpoints spell differently."""
    task = read(hook, "audio/text-to-audio", task_status="succeed", task_result={"audios": [item]})
    assert [(file.kind, file.url, file.content_type) for file in task.files] == [
        ("audio", "https://x/1.mp3", "audio/mpeg"),
        ("audio", "https://x/1.wav", "audio/wav"),
    ]
    assert task.files[0].duration == 3.0


@pytest.mark.parametrize("key", ["images", "series_images"])
def test_every_image_is_kept(hook: KlingHook, key: str) -> None:
    """All images of a series are there, in their order; what is no image is left out."""
    listed = [{"index": n, "url": f"https://x/{n}.png"} for n in range(4)] + [
        None,
        {},
        {"url": ""},
        {"url": 5},
    ]
    task = read(hook, "images/generations", task_status="succeed", task_result={key: listed})
    assert task.urls == [f"https://x/{n}.png" for n in range(4)]


@pytest.mark.parametrize("result", [None, {}, [], {"videos": None}, {"videos": {}}, {"videos": []}])
def test_success_without_a_result(hook: KlingHook, result: Any) -> None:
    """`succeed` with no URL, in whatever form, has failed."""
    task = read(hook, task_status="succeed", task_result=result)
    assert (task.status, task.error.code) == (TaskStatus.FAILED, "no_output")


@pytest.mark.parametrize(
    ("words", "cls"),
    [
        ("Failure to pass the risk control system", MediaModerationError),
        ("Contains sensitive content", MediaModerationError),
        ("Failed to generate", MediaTaskFailed),
        ("", MediaTaskFailed),
    ],
)
def test_reason_of_a_failure(hook: KlingHook, words: str, cls: type[MediaTaskError]) -> None:
    """A failed task has no code, only words: those of the content policy make it a moderation."""
    error = read(hook, task_status="failed", task_status_msg=words).error
    assert type(error) is cls
    assert words in str(error)


# What is asked.


def test_search_by_external_id_is_one_read(hook: KlingHook) -> None:
    """The mark is looked up as an id, whatever characters it has; not found is an empty answer."""
    conversation = hook._checked_find("a/b c", None, "text_to_video", {"prompt": "x"})
    asked, found = held(conversation, {"code": 0, "data": {"task_id": "t-1", "task_status": "submitted"}})
    assert asked[0].path == "/v1/videos/text2video/a%2Fb%20c"
    assert [task.id for task in found] == ["videos/text2video/t-1"]
    conversation = hook._checked_find("a/b c", None, "text_to_video", {"prompt": "x"})
    next(conversation)
    with pytest.raises(StopIteration) as end:
        conversation.throw(MediaNotFoundError("unknown", code="1203"))
    assert end.value.value == []


def test_balance_counts_packs_in_force(hook: KlingHook) -> None:
    """Packs that have expired, run out or not begun are not money."""
    packs = [
        {"status": "online", "remaining_quantity": 10.25},
        {"status": "online", "remaining_quantity": "3"},
        {"status": "expired", "remaining_quantity": 100},
        {"status": "runOut", "remaining_quantity": 0},
        {"status": "toBeOnline", "remaining_quantity": 50},
        None,
    ]
    asked, balance = held(
        hook._get_balance(), {"code": 0, "data": {"code": 0, "resource_pack_subscribe_infos": packs}}
    )
    assert balance == MediaBalance("13.25", "units", None)
    assert set(asked[0].params) == {"start_time", "end_time"}
    with pytest.raises(MediaProviderError, match="without resource packs"):
        told(hook._get_balance(), {"code": 0, "data": None})
