from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

import pytest

from airflow_media_tasks.hooks.vap import VapHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaBalance,
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
from .contract import HookContract


IMAGE, VIDEO, SOUND = "https://cdn.example.com/1.png", "https://cdn.example.com/2.mp4", "https://x.example/3"


class TestVapHook(HookContract):
    """The contract, for VAP."""

    hook_class = VapHook
    paid = "text_to_image"
    other = "upscale_image"
    unknown_id = "00000000-0000-4000-8000-000000000000"
    foreign_ids = ("veo/00000000", "videos/text2video/00000000", "operations/a/b", "task id", "a?b")
    blocking = frozenset({"run_preset"})
    cost_unit = "USD"
    documented = (
        ("text_to_music", "1.mp3", "audio/mpeg"),
        ("text_to_music", "1.wav", "audio/wav"),
        ("text_to_music", "track", "audio/wav"),
    )
    samples: ClassVar = {
        "text_to_image": {"prompt": "a lighthouse at dusk", "aspect_ratio": "16:9"},
        "text_to_video": {"prompt": "waves", "duration": "6", "generate_audio": False},
        "image_to_video": {"prompt": "it rains", "image_url": "https://example.com/1.png"},
        "text_to_music": {"prompt": "a slow waltz", "duration": 60, "instrumental": True},
        "inpaint_image": {"image_url": "https://example.com/1.png", "prompt": "a boat"},
        "edit_image": {"image_url": "https://example.com/1.png", "prompt": "at night", "seed": 7},
        "remove_background": {"image_url": "https://example.com/1.png"},
        "upscale_image": {"image_url": "https://example.com/1.png", "scale": 4},
        "trim_video": {"video_url": "https://example.com/1.mp4", "start_time": 0, "end_time": 1.5},
        "merge_videos": {"video_urls": ["https://example.com/1.mp4", "https://example.com/2.mp4"]},
        "run_preset": {"preset": "streaming_campaign", "prompt": "a new mug [sim:seconds=0]"},
    }

    def expected_mark(self, operation: str) -> None:
        """A V3 task has no place for a mark of ours."""

    def accepted(self, own_id: Any) -> dict[str, Any]:
        """A submission's answer."""
        return {"task_id": own_id, "type": "image", "status": "pending"}

    def group_of(self, operation: str) -> str:
        """Tasks have none."""
        return ""

    def finished_with(self, operation: str, url: str) -> dict[str, Any]:
        """A track of music."""
        return {"type": "music", "status": "completed", "result": {"items": [{"audio_url": url}]}}

    def test_operation_that_no_list_shows(self, hook: VapHook, sim: Simulator) -> None:
        """Post-production has no list, so nobody can say whether a lost one was accepted."""
        with pytest.raises(SubmissionOutcomeUnknown):
            hook.find_tasks(operation="upscale_image", arguments=self.samples["upscale_image"])

    def test_what_is_sent(self, hook: VapHook, sim: Simulator) -> None:
        """Neutral words become `description` in `params`, `media_url` and `options`, each at its place."""
        hook.submit("text_to_image", {"prompt": "a cup", "webhook_url": "https://example.com/hook"})
        hook.submit("upscale_image", {"image_url": IMAGE, "options": {"scale": 2}, "face": True})
        assert [entry["request"] for entry in sim.ledger()] == [
            {"type": "image", "params": {"description": "a cup"}, "webhook_url": "https://example.com/hook"},
            {"operation": "upscale", "media_url": IMAGE, "options": {"scale": 2, "face": True}},
        ]

    def test_what_is_certainly_of_another_operation_is_not_asked_about(
        self, hook: VapHook, sim: Simulator, call: Any
    ) -> None:
        """Who asks for what may be a lost video is not shown somebody's pictures."""
        began = datetime.now(timezone.utc)
        for operation in ("text_to_image", "text_to_video"):
            hook.submit(operation, {"prompt": "a cup"})
        (found,) = call(hook, "find_tasks", operation="text_to_video", submitted_after=began)
        assert found.id == sim.ledger()[1]["id"]

    def test_the_vendors_own_word_for_an_argument(self, hook: VapHook, sim: Simulator) -> None:
        """`description` is taken for `prompt`, but both at once are a contradiction."""
        hook.submit("text_to_image", {"description": "a cup"})
        assert sim.ledger()[0]["request"]["params"] == {"description": "a cup"}
        with pytest.raises(MediaRequestError, match="'prompt' and 'description' are the same"):
            hook.submit("text_to_image", {"description": "a cup", "prompt": "a mug"})
        assert len(sim.ledger()) == 1

    @pytest.mark.parametrize("form", ["text", "object", "detail"])
    def test_failure_in_each_form(self, hook: VapHook, sim: Simulator, call: Any, form: str) -> None:
        """The reason of a failure, as of a refusal, is read from `error` as text or object, and `detail`."""
        task = call(hook, "submit", self.paid, self.with_words(f"[sim:fail=moderation] [sim:error={form}]"))
        sim.advance(10)
        error = call(hook, "get_task", task.id).error
        assert type(error) is MediaModerationError
        assert "refused by the content policy" in str(error)
        with pytest.raises(MediaModerationError, match="refused by the content policy"):
            call(hook, "submit", self.paid, self.with_words(f"[sim:reject=moderation] [sim:error={form}]"))

    @pytest.mark.parametrize("status", [402, 403])
    @pytest.mark.parametrize("form", ["text", "object", "detail"])
    def test_no_money_in_each_form(
        self, hook: VapHook, sim: Simulator, call: Any, status: int, form: str
    ) -> None:
        """No money is 402 in one of the vendor's texts and 403 in another, and MediaFundsError in both."""
        sim.fault("funds_status", status=status)
        with pytest.raises(MediaFundsError):
            call(hook, "submit", self.paid, self.with_words(f"[sim:reject=funds] [sim:error={form}]"))
        assert sim.ledger() == []

    @pytest.mark.parametrize("shape", ["flat", "nested", "items", "output_url"])
    @pytest.mark.parametrize("name", ["text_to_image", "text_to_video", "text_to_music"])
    def test_both_result_shapes(
        self, hook: VapHook, sim: Simulator, call: Any, shape: str, name: str
    ) -> None:
        """A result is read from the nested and the flat shape, from items, and from a bare output_url."""
        task = call(hook, "submit", name, self.with_words(f"[sim:shape={shape}]", name))
        sim.advance(10)
        done = call(hook, "get_task", task.id)
        kind = hook.operations[name].kind
        assert {file.kind for file in done.files} - {"thumbnail"} == {kind}
        assert done.cost is not None
        assert done.cost.amount == sim.ledger()[0]["amount"]

    @pytest.mark.parametrize("shape", ["nested", "output_url"])
    def test_result_of_an_operation_has_its_kind(
        self, hook: VapHook, sim: Simulator, call: Any, shape: str
    ) -> None:
        """What an inpainting returns under `output_url` is an image, although its type says `inpaint`."""
        arguments = {"image_url": "https://example.com/1.png", "prompt": f"a boat [sim:shape={shape}]"}
        task = call(hook, "submit", "inpaint_image", arguments)
        sim.advance(10)
        assert [file.kind for file in call(hook, "get_task", task.id).files] == ["image"]

    def test_refund(self, hook: VapHook, sim: Simulator, call: Any) -> None:
        """What is reserved while a task runs is burnt when it succeeds, and comes back when it fails."""
        start = float(call(hook, "get_balance").amount)
        call(hook, "submit", self.paid, self.with_words("[sim:fail=provider]"))
        held_back = call(hook, "get_balance")
        assert (float(held_back.amount), held_back.reserved, held_back.unit) == (
            start - 0.18,
            "0.1800",
            "USD",
        )
        sim.advance(10)
        assert float(call(hook, "get_balance").amount) == start
        call(hook, "submit", self.paid, self.samples[self.paid])
        sim.advance(10)
        assert float(call(hook, "get_balance").amount) == pytest.approx(start - 0.18)

    def test_preset_returns_everything_it_made(self, hook: VapHook, sim: Simulator, call: Any) -> None:
        """A preset answers complete, with video, music and thumbnail; the first URL is the video's."""
        task = call(hook, "submit", "run_preset", self.samples["run_preset"])
        assert [file.kind for file in task.files] == ["video", "audio", "thumbnail"]
        assert len(task.urls) == 2
        assert task.cost is not None
        assert task.cost.amount == "5.9000"


@pytest.fixture
def hook(connect: Any) -> VapHook:
    """A hook that is talked to by hand."""
    return VapHook(connect(conn_type="vap", password="a-good-key"))


def read(hook: VapHook, **document: Any) -> Any:
    """The task that this document describes."""
    return told(hook._get_task("t-1"), {"task_id": "t-1", "type": "image", **document})


# What the vendor's own client gets wrong (vap.md 4).


@pytest.mark.parametrize("nothing", [None, "", {}])
def test_error_key_alone_is_no_error(hook: VapHook, nothing: Any) -> None:
    """1: a document with an empty `error` beside its result is no error."""
    body = {"task_id": "t-1", "status": "completed", "image_url": IMAGE, "error": nothing}
    assert hook.error_of(reply(body)) is None
    assert read(hook, **body).url == IMAGE


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("image", "image"),
        ("image_generation", "image"),
        ("video", "video"),
        ("video_generation", "video"),
        ("music", "audio"),
        ("music_generation", "audio"),
        ("upscale", "image"),
        ("video_trim", "video"),
    ],
)
def test_type_decides_what_output_url_is(hook: VapHook, type_: str, kind: str) -> None:
    """2: `output_url` is used for every kind; the task's type tells which."""
    task = read(hook, type=type_, status="completed", result={"output_url": "https://cdn.example.com/x"})
    assert [(file.kind, file.url) for file in task.files] == [(kind, "https://cdn.example.com/x")]


def test_kind_where_no_type_tells(hook: VapHook) -> None:
    """2: without a type that anybody knows, the file's extension tells, and without that nothing does."""
    result = {"output_url": VIDEO, "result_url": SOUND}
    task = read(hook, type="hologram", status="completed", result=result)
    assert [file.kind for file in task.files] == ["video", "file"]


def test_every_track_is_kept(hook: VapHook) -> None:
    """3: music comes as two tracks, each with a cover; none of the four files is lost."""
    items = [{"audio_url": f"{SOUND}-{n}", "image_url": f"{IMAGE}-{n}"} for n in range(2)]
    task = read(hook, type="music", status="completed", result={"items": items})
    assert [(file.kind, file.url) for file in task.files] == [
        ("audio", f"{SOUND}-0"),
        ("thumbnail", f"{IMAGE}-0"),
        ("audio", f"{SOUND}-1"),
        ("thumbnail", f"{IMAGE}-1"),
    ]
    assert task.urls == [f"{SOUND}-0", f"{SOUND}-1"]


def test_combined_result_loses_no_part(hook: VapHook) -> None:
    """4: a result with video, picture and sound keeps all three, in the provider's order."""
    result = {"audio_url": SOUND, "video_url": VIDEO, "image_url": IMAGE}
    assert [file.url for file in read(hook, status="completed", result=result).files] == [SOUND, VIDEO, IMAGE]


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("pending", TaskStatus.QUEUED),
        ("queued", TaskStatus.QUEUED),
        ("reserved", TaskStatus.QUEUED),
        ("processing", TaskStatus.RUNNING),
        ("executing", TaskStatus.RUNNING),
        ("unknown", TaskStatus.RUNNING),
        (None, TaskStatus.RUNNING),
        ("completed", TaskStatus.SUCCEEDED),
        ("failed", TaskStatus.FAILED),
        ("refunded", TaskStatus.FAILED),
    ],
)
def test_every_status_word(hook: VapHook, word: str | None, status: TaskStatus) -> None:
    """5: `processing`, the documented word, is running, as is a document without any status."""
    assert read(hook, status=word, image_url=IMAGE).status is status


def test_failure_without_a_reason_is_told(hook: VapHook) -> None:
    """6: a failed task without an error message still says that it failed."""
    error = read(hook, status="failed").error
    assert type(error) is MediaTaskFailed
    assert "task t-1 failed" in str(error)


def test_failed_request_is_no_failed_task(hook: VapHook) -> None:
    """7: a 502 is the provider's error, raised; a failed task is a task, returned."""
    for body in ({"error": "bad gateway"}, {"detail": "bad gateway"}, None):
        assert type(hook.error_of(reply(body, 502))) is MediaProviderError
    task = read(hook, status="failed", error_message="the upstream failed")
    assert type(task.error) is MediaTaskFailed


@pytest.mark.parametrize(
    "result", [{"items": [{"audio_url": SOUND}]}, {"audio_url": SOUND}, {"music_url": SOUND}, {"url": SOUND}]
)
def test_music_wherever_it_stands(hook: VapHook, result: dict[str, Any]) -> None:
    """8: music is found in items, in audio_url, in music_url and in a bare url."""
    task = read(hook, type="music", status="completed", result=result)
    assert [(file.kind, file.url) for file in task.files] == [("audio", SOUND)]


@pytest.mark.parametrize(
    "rest",
    [{}, {"result": None}, {"result": {}}, {"result": {"items": []}}, {"image_url": ""}, {"result": "x"}],
)
def test_completed_without_output_has_failed(hook: VapHook, rest: dict[str, Any]) -> None:
    """9: `completed` with no URL at all is a failure."""
    task = read(hook, status="completed", **rest)
    assert (task.status, task.error.code) == (TaskStatus.FAILED, "no_output")


# Errors (vap.md 5).


@pytest.mark.parametrize(
    ("status", "code", "cls"),
    [
        (400, "invalid_task_type", MediaRequestError),
        (400, "invalid_description", MediaRequestError),
        (401, "invalid_api_key", MediaAuthError),
        (403, "insufficient_balance", MediaFundsError),
        (402, "insufficient_balance", MediaFundsError),
        (403, "tier_limit_exceeded", MediaFundsError),
        (403, "agent_paused", MediaAuthError),
        (403, "provider_not_allowed", MediaAuthError),
        (404, "task_not_found", MediaNotFoundError),
        (409, "duplicate_key", MediaRequestError),
        (422, "validation", MediaRequestError),
        (429, "rate_limit_exceeded", MediaRateLimitError),
        (500, "internal_error", MediaProviderError),
        (503, "maintenance", MediaProviderError),
        (400, "content_policy_violation", MediaModerationError),
    ],
)
def test_error_class_by_code(hook: VapHook, status: int, code: str, cls: type[MediaTaskError]) -> None:
    """The vendor's code decides the class; its code and words are kept."""
    error = hook.error_of(reply({"error": {"code": code, "message": "as it is"}}, status))
    assert type(error) is cls
    assert (error.provider, error.code) == ("vap", code)
    assert "as it is" in str(error)
    assert str(status) in str(error)


@pytest.mark.parametrize(
    ("status", "body", "cls", "words"),
    [
        (422, {"detail": [{"msg": "field required"}, {"msg": "too long"}]}, MediaRequestError, "too long"),
        (422, {"detail": ["one", 2]}, MediaRequestError, "one; 2"),
        (404, {"detail": {"message": "gone"}}, MediaNotFoundError, "gone"),
        (402, {"error": "pay first", "balance": 0, "required": 1}, MediaFundsError, "pay first"),
        (403, {"error": "your balance is too low"}, MediaFundsError, "balance"),
        (403, {"error": "no"}, MediaAuthError, "no"),
        (400, {"detail": "prohibited content"}, MediaModerationError, "prohibited"),
        (401, {}, MediaAuthError, "401"),
        (402, {}, MediaFundsError, "402"),
        (429, None, MediaRateLimitError, "429"),
        (500, ["x"], MediaProviderError, "500"),
    ],
)
def test_error_in_every_envelope(
    hook: VapHook, status: int, body: Any, cls: type[MediaTaskError], words: str
) -> None:
    """`error` as text or object, `detail` as text, object or list, and no envelope at all are understood."""
    error = hook.error_of(reply(body, status))
    assert type(error) is cls
    assert words in str(error)


@pytest.mark.parametrize(
    ("body", "headers", "seconds"),
    [
        ({"error": {"code": "rate_limit_exceeded", "details": {"retry_after": 7}}}, {}, 7.0),
        ({"error": "slow down", "retry_after": 9}, {}, 9.0),
        (
            {"error": {"code": "rate_limit_exceeded", "details": {"retry_after": 7}}},
            {"retry-after": "3"},
            3.0,
        ),
        ({"error": {"code": "rate_limit_exceeded", "details": {"retry_after": float("nan")}}}, {}, None),
        ({"error": {"code": "rate_limit_exceeded"}}, {}, None),
    ],
)
def test_retry_after_of_body_and_header(
    hook: VapHook, body: Any, headers: dict[str, str], seconds: float | None
) -> None:
    """How long to wait is read from the header, else from the body."""
    error = hook.error_of(reply(body, 429, **headers))
    assert error is not None
    assert error.retry_after == seconds


# The other endpoints.


def test_second_balance_path(hook: VapHook) -> None:
    """Where the README's path is not there, the older one of the SDK is asked."""
    conversation = hook._get_balance()
    assert next(conversation).path == "/v3/agents/me/balance"
    assert conversation.throw(MediaNotFoundError("no such path")).path == "/v3/balance"
    with pytest.raises(StopIteration) as end:
        conversation.send(reply({"balance": "3.50", "currency": "USD"}))
    assert end.value.value == MediaBalance("3.50", "USD", None)


def test_balance_that_says_nothing(hook: VapHook) -> None:
    """A balance without an amount is the provider's error."""
    with pytest.raises(MediaProviderError, match="without a balance"):
        told(hook._get_balance(), {"currency": "USD"})


@pytest.mark.parametrize("key", ["operation_id", "task_id", "id"])
def test_id_of_an_operation(hook: VapHook, key: str) -> None:
    """The reply to an operation names its id in one of three ways; the handle says that it is one."""
    name = "upscale_image"
    conversation = hook._submit(name, hook.operations[name], {"image_url": IMAGE}, None)
    asked, task = held(conversation, {key: "o-1", "status": "pending"})
    assert (asked[0].path, asked[0].paid) == ("/v3/operations", True)
    assert task.id == "operations/o-1"
    assert held(hook._get_task(task.id), {"status": "pending"})[0][0].path == "/v3/operations/o-1"


def test_preset_without_an_id(hook: VapHook) -> None:
    """What a preset's answer holds complete is returned even if it names no id; else it is an error."""
    operation = hook.operations["run_preset"]
    body = {"status": "completed", "outputs": {"video": VIDEO, "music": SOUND, "thumbnail": IMAGE}}
    task = told(hook._submit("run_preset", operation, {"preset": "x", "prompt": "y"}, None), body)
    assert [file.kind for file in task.files] == ["video", "audio", "thumbnail"]
    with pytest.raises(MediaProviderError, match="without a task_id"):
        told(
            hook._submit("run_preset", operation, {"preset": "x", "prompt": "y"}, None),
            {"status": "completed"},
        )
    asked = next(hook._submit("run_preset", operation, {"preset": "x", "prompt": "y"}, None))
    assert asked.timeout == 1800


@pytest.mark.parametrize("listed", [None, {}, {"tasks": None}, {"tasks": {}}, []])
def test_list_that_is_none(hook: VapHook, listed: Any) -> None:
    """A list reply without a list is the provider's error, never an empty list."""
    with pytest.raises(MediaProviderError, match="without a list of tasks"):
        told(hook._list_tasks("text_to_image", None), listed)


def test_listed_task_without_params_cannot_be_told(hook: VapHook) -> None:
    """A list that does not show what was asked for cannot prove that a submission is absent."""
    listed = {
        "tasks": [{"task_id": "t-1", "type": "image", "status": "pending"}, None, {"status": "pending"}]
    }
    conversation = hook._checked_find("ref", None, "text_to_image", {"prompt": "a cup"})
    with pytest.raises(SubmissionOutcomeUnknown):
        told(conversation, listed)
    listed["tasks"][0]["type"] = "video"  # type: ignore[index]  # a list of dicts
    assert told(hook._checked_find("ref", None, "text_to_image", {"prompt": "a cup"}), listed) == []


# Pages, and what they prove (vap.md 2, 6).

INTENT = datetime(2026, 11, 20, 10, 0, tzinfo=timezone.utc)


def listed_at(seconds: float, own_id: str, prompt: str = "another") -> dict[str, Any]:
    """A task of a list, made so many seconds after the intent."""
    made = (INTENT + timedelta(seconds=seconds)).isoformat()
    params = {"description": prompt}
    return {"task_id": own_id, "type": "image", "status": "pending", "params": params, "created_at": made}


def asked_for(hook: VapHook, pages: list[list[dict[str, Any]]]) -> tuple[int, Any]:
    """How many pages a search for `a cup` reads, and what it finds; after the last page it is shown again."""
    conversation = hook._checked_find("ref", INTENT, "text_to_image", {"prompt": "a cup"})
    next(conversation)
    number = 0
    while True:
        number += 1
        try:
            conversation.send(reply({"tasks": pages[min(number, len(pages)) - 1]}))
        except StopIteration as end:
            return number, [task.id for task in end.value]
        except SubmissionOutcomeUnknown as question:
            return number, str(question)


def full_page(newest: float, number: int = 0) -> list[dict[str, Any]]:
    """Fifty others, one a second, the newest first."""
    return [listed_at(newest - n, f"t-{number}-{n}") for n in range(50)]


def test_page_that_reaches_back_is_enough(hook: VapHook) -> None:
    """A page whose end is a minute older than the intent proves what is not on it."""
    assert asked_for(hook, [full_page(-12)]) == (1, [])
    assert asked_for(hook, [full_page(-11), full_page(-61, 1)]) == (2, [])


def test_server_that_does_not_know_of_pages(hook: VapHook) -> None:
    """Where the second page is the first one again, or empty, nobody knows what is hidden."""
    for pages in ([full_page(100)], [full_page(100), []]):
        number, question = asked_for(hook, pages)
        assert number == 2
        assert "it does not reach back to the submission" in question


def test_list_that_is_not_ordered_by_time(hook: VapHook) -> None:
    """A page that begins with the oldest does not reach back by that: the next one is read."""
    assert asked_for(hook, [full_page(0)[::-1], [listed_at(5, "t-1", "a cup")]]) == (2, ["t-1"])


def test_list_without_end(hook: VapHook) -> None:
    """However many pages a server makes up, a search ends."""
    number, question = asked_for(hook, [full_page(10_000, n) for n in range(300)])
    assert number == 200
    assert "it does not reach back" in question


@pytest.mark.parametrize(
    ("seconds", "offset", "found"),
    [
        (2, 0, True),
        (-3, 0, True),
        (2, 8, None),
        (2, 600, None),
        (599, 600, True),
        (-598, -600, True),
        (-30, 0, None),
        (-61, 0, False),
        (-61 + 600, 600, False),
        (-61 - 600, -600, False),
    ],
)
def test_equal_request_by_its_time(hook: VapHook, seconds: float, offset: float, found: bool | None) -> None:
    """An equal task is taken if it is younger by the provider's clock; if ours alone says so, it is asked."""
    hook.clock_offset = offset
    _, answer = asked_for(hook, [[listed_at(seconds, "t-1", "a cup")]])
    if found is None:
        assert "'t-1' was made from the same, and may be older" in answer
    else:
        assert answer == (["t-1"] if found else [])


def test_listed_id_that_cannot_be_one(hook: VapHook) -> None:
    """What is listed under no id at all is neither adopted nor taken to be absent."""
    _, question = asked_for(hook, [[listed_at(2, "../t 1", "a cup")]])
    assert "lists it as '../t 1', which cannot be an id" in question
