from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
import structlog

from airflow_media_tasks.hooks.acedata import SERVICES, AceDataHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaAuthError,
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
from .case import MARK, VIDEO_ID
from .contract import HookContract


URL = "https://cdn.acedata.cloud/1.mp4"
PICTURE = "https://example.com/1.png"
NOW = 1_760_000_000.5


class TestAceDataHook(HookContract):
    """The contract, for AceData."""

    hook_class = AceDataHook
    paid = "veo/text_to_video"
    other = "luma/text_to_video"
    unknown_id = "veo/00000000-0000-4000-8000-000000000000"
    foreign_ids = (
        "00000000-0000-4000-8000",
        "videos/text2video/1",
        "operations/1",
        "veo/",
        "veo/a b",
        "zzz/1",
    )
    ambiguous = frozenset({"veo/upscale_video", "veo/extend_video", "veo/reshoot_video"})
    documented = (
        ("veo/text_to_video", "1.mp4", "video/mp4"),
        ("veo/upscale_video", "1.mp4", "video/mp4"),
        ("veo/upscale_video", "1.gif", "image/gif"),
        ("veo/upscale_video", "animation", "image/gif"),
    )
    samples: ClassVar = {
        "veo/text_to_video": {"prompt": "a lighthouse at dusk", "aspect_ratio": "16:9"},
        "veo/image_to_video": {"prompt": "it rains", "image_url": PICTURE, "end_image_url": PICTURE},
        "veo/ingredients_to_video": {"prompt": "all three", "image_urls": [PICTURE, PICTURE, PICTURE]},
        "veo/upscale_video": {"video_id": VIDEO_ID, "resolution": "4k"},
        "veo/extend_video": {"video_id": VIDEO_ID, "prompt": "and on", "model": "veo31"},
        "veo/reshoot_video": {"video_id": VIDEO_ID, "motion_type": "LEFT_TO_RIGHT"},
        "veo/insert_object": {"video_id": VIDEO_ID, "prompt": "a boat"},
        "veo/remove_object": {"video_id": VIDEO_ID, "mask_url": PICTURE},
        "luma/text_to_video": {"prompt": "waves", "loop": True},
        "luma/image_to_video": {"prompt": "it snows", "image_url": PICTURE, "end_image_url": PICTURE},
        "luma/extend_video": {"prompt": "and on", "video_id": VIDEO_ID},
    }

    def expected_mark(self, operation: str) -> str:
        """The mark is a parameter of the callback address, which is echoed."""
        return f"https://api.acedata.cloud/health?ref={quote(MARK, safe='')}"

    def accepted(self, own_id: Any) -> dict[str, Any]:
        """A submission's answer."""
        return {"task_id": own_id}

    def group_of(self, operation: str) -> str:
        """The service."""
        return operation.partition("/")[0]

    def finished_with(self, operation: str, url: str) -> dict[str, Any]:
        """A video, whatever form it has."""
        item = {"id": "v-1", "video_url": url, "state": "succeeded"}
        return {"id": "t-1", "response": {"success": True, "data": [item]}}

    @pytest.mark.parametrize("form", ["404", "empty", "null"])
    def test_unknown_task_in_each_form(self, hook: AceDataHook, sim: Simulator, call: Any, form: str) -> None:
        """Nobody wrote down what an unknown id gets: a 404, an empty document and null all mean it."""
        sim.fault("unknown_as", value=form)
        known = call(hook, "submit", self.paid, self.samples[self.paid]).id
        with pytest.raises(MediaNotFoundError):
            call(hook, "get_task", self.unknown_id)
        assert list(call(hook, "get_tasks", [self.unknown_id, known])) == [known]

    def test_short_operation_name(self, connect: Any, sim: Simulator, call: Any) -> None:
        """A name without a service gets the connection's, which is veo unless the connection says another."""
        call(self.hook_for(connect, sim), "submit", "text_to_video", {"prompt": "x"})
        luma = self.hook_for(connect, sim, extra={"service": "luma"})
        call(luma, "submit", "text_to_video", {"prompt": "x"})
        call(luma, "submit", "veo/text_to_video", {"prompt": "x"})
        assert [entry["operation"] for entry in sim.ledger()] == [
            "veo/text_to_video",
            "luma/text_to_video",
            "veo/text_to_video",
        ]
        with pytest.raises(MediaRequestError, match="veo/upscale_video"):
            call(luma, "submit", "upscale_video", {"video_id": "x"})

    def test_mark_goes_to_the_connections_own_address(self, connect: Any, sim: Simulator, call: Any) -> None:
        """The mark is appended to the caller's callback address, else to the connection's."""
        hook = self.hook_for(connect, sim, extra={"callback_url": "https://me.example/cb?team=1"})
        call(hook, "submit", self.paid, self.samples[self.paid], client_ref="r")
        given = {**self.samples[self.paid], "callback_url": "https://other.example/cb"}
        call(hook, "submit", self.paid, given, client_ref="r")
        call(hook, "submit", self.paid, given)
        assert [entry["client_ref"] for entry in sim.ledger()] == [
            "https://me.example/cb?team=1&ref=r",
            "https://other.example/cb?ref=r",
            "https://other.example/cb",
        ]

    @pytest.mark.parametrize("address", ["me.example/cb", "None", 5, ["https://me.example/cb"]])
    def test_connections_address_that_is_none(self, connect: Any, sim: Simulator, address: Any) -> None:
        """A callback address of the connection that is none is told before anything is sent."""
        hook = self.hook_for(connect, sim, extra={"callback_url": address})
        with pytest.raises(MediaRequestError, match="'account': callback_url in extra must be"):
            hook.submit(self.paid, self.samples[self.paid], client_ref="r")
        assert sim.requests() == {}

    @pytest.mark.parametrize(
        ("extra", "says"),
        [
            ({"service": 5}, "service in extra must be one of veo, luma, .*, got '5'"),
            ({"service": "lumma"}, "service in extra must be one of veo, luma, .*, got 'lumma'"),
            ({"callback_url": "me.example/cb"}, "callback_url in extra must be an http or https URL"),
        ],
    )
    def test_test_button_reads_what_the_extra_says(
        self, connect: Any, sim: Simulator, extra: Any, says: str
    ) -> None:
        """A misspelt service and an address that is none are told by Test, before a task meets them."""
        good, text = self.hook_for(connect, sim, extra=extra).test_connection()
        assert not good
        assert re.match(f"connection 'account': {says}", text), text
        assert sim.requests() == {}

    def test_a_misspelt_service_is_told_in_a_dag_too(self, connect: Any, sim: Simulator) -> None:
        """It does not read as if the operation were the mistake."""
        hook = self.hook_for(connect, sim, extra={"service": "lumma"})
        with pytest.raises(MediaRequestError, match="'account': service in extra must be one of veo"):
            hook.check("text_to_video", {"prompt": "a fox"})

    def test_never_the_blocking_form(self, hook: AceDataHook, sim: Simulator, call: Any) -> None:
        """Every submission says `async`, or the connection would be held until the video is there."""
        call(hook, "submit", self.paid, {**self.samples[self.paid], "async": False})
        assert sim.ledger()[0]["request"]["async"] is True

    def test_result_in_the_submissions_own_reply(self, hook: AceDataHook, sim: Simulator, call: Any) -> None:
        """A cached result comes at once although `async` was asked for; it is taken as finished."""
        task = call(hook, "submit", self.paid, self.with_words("[sim:inline]"), client_ref="r")
        assert task.status is TaskStatus.SUCCEEDED
        assert task.operation == self.paid
        assert task.id == f"veo/{sim.ledger()[0]['id']}"
        assert call(hook, "get_task", task.id).urls == task.urls

    def test_failure_in_the_submissions_own_reply(self, hook: AceDataHook, sim: Simulator, call: Any) -> None:
        """A submission that is refused with a 200 or a 403 for its content is a moderation."""
        words = "[sim:inline] [sim:fail=moderation]"
        with pytest.raises(MediaModerationError):
            call(hook, "submit", self.paid, self.with_words(words))

    def test_batch_is_not_cut_short(self, hook: AceDataHook, sim: Simulator) -> None:
        """Without `limit` the server shows 12 of 50: all are read with one request nevertheless."""
        with hook:
            ids = [hook.submit(self.paid, self.samples[self.paid]).id for _ in range(50)]
            before = (
                sim.requests()["POST /acedata/veo/tasks"]
                if sim.requests().get("POST /acedata/veo/tasks")
                else 0
            )
            assert set(hook.get_tasks(ids)) == set(ids)
        assert sim.requests()["POST /acedata/veo/tasks"] - before == 1

    def test_task_that_a_batch_leaves_out(self, hook: AceDataHook, sim: Simulator, call: Any) -> None:
        """An id that a batch does not show is asked for alone."""
        ids = [
            call(hook, "submit", self.paid, self.with_words(words)).id
            for words in ("", "[sim:missing-from-batch]")
        ]
        assert list(call(hook, "get_tasks", ids)) == ids
        assert sim.requests()["POST /acedata/veo/tasks"] == 2

    @pytest.mark.parametrize("form", ["null", "absent", "partial"])
    def test_running_in_each_form(self, hook: AceDataHook, sim: Simulator, call: Any, form: str) -> None:
        """While a task runs its response is null, absent or partial; all mean running."""
        task = call(hook, "submit", self.paid, self.with_words(f"[sim:response={form}]"))
        assert call(hook, "get_task", task.id).status is TaskStatus.RUNNING
        sim.advance(10)
        assert call(hook, "get_task", task.id).status is TaskStatus.SUCCEEDED

    def test_passing_trouble_is_no_failure(self, hook: AceDataHook, sim: Simulator, call: Any) -> None:
        """`success: false` with a bare text is a passing trouble: the task runs on and succeeds."""
        task = call(hook, "submit", self.paid, self.with_words("[sim:temporary]"))
        assert call(hook, "get_task", task.id).status is TaskStatus.RUNNING
        sim.advance(10)
        assert call(hook, "get_task", task.id).status is TaskStatus.SUCCEEDED

    @pytest.mark.parametrize("shape", ["list", "object"])
    def test_data_as_list_and_as_object(
        self, hook: AceDataHook, sim: Simulator, call: Any, shape: str
    ) -> None:
        """`data` is an object in the specification and a list in its examples."""
        task = call(hook, "submit", self.paid, self.with_words(f"[sim:shape={shape}]"))
        sim.advance(10)
        assert [file.kind for file in call(hook, "get_task", task.id).files] == ["video"]

    def test_luma_shows_size_and_thumbnail(self, hook: AceDataHook, sim: Simulator, call: Any) -> None:
        """A Luma result has its size in px, a thumbnail, and the id that an extension asks for."""
        task = self.finished(hook, sim, self.other)
        video, thumbnail = task.files
        assert (video.kind, thumbnail.kind) == ("video", "thumbnail")
        assert video.width is not None
        assert video.height is not None
        assert video.width / video.height == pytest.approx(16 / 9, rel=0.02)
        assert (video.id is not None, thumbnail.id) == (True, None)
        extension = call(hook, "submit", "luma/extend_video", {"prompt": "on", "video_id": video.id})
        assert extension.status is TaskStatus.QUEUED

    def test_two_equal_requests_are_told_apart(self, hook: AceDataHook, sim: Simulator, call: Any) -> None:
        """Of equal requests the mark finds the one; without it all are candidates."""
        began = datetime.now(timezone.utc)
        ids = [
            call(hook, "submit", self.paid, self.samples[self.paid], client_ref=f"r{n}").id for n in range(3)
        ]
        wanted = {"operation": self.paid, "arguments": self.samples[self.paid], "submitted_after": began}
        assert [task.id for task in call(hook, "find_tasks", client_ref="r1", **wanted)] == [ids[1]]
        assert [task.id for task in call(hook, "find_tasks", **wanted)] == ids[::-1]
        assert call(hook, "find_tasks", client_ref="r", **wanted) == []

    def test_search_reads_every_page(self, hook: AceDataHook, sim: Simulator) -> None:
        """A submission is found though 60 others were made since."""
        began = datetime.now(timezone.utc)
        with hook:
            wanted = hook.submit(self.paid, self.samples[self.paid], client_ref="mine").id
            for _ in range(60):
                hook.submit(self.paid, {"prompt": "others"}, client_ref="theirs")
            found = hook.find_tasks(
                client_ref="mine",
                operation=self.paid,
                arguments=self.samples[self.paid],
                submitted_after=began,
            )
        assert [task.id for task in found] == [wanted]

    def test_trace_id_is_told(self, connect: Any, sim: Simulator, call: Any) -> None:
        """The provider's trace id, which its support asks for, is in the error's text."""
        hook = self.hook_for(connect, sim, password="sim-bad-key")
        with pytest.raises(MediaAuthError, match=r"code 'invalid_token', request '[0-9a-f-]{36}'") as caught:
            call(hook, "get_task", self.unknown_id)
        assert caught.value.code == "invalid_token"

    @pytest.mark.parametrize(
        ("operation_name", "arguments"),
        [
            ("veo/image_to_video", {"prompt": "x", "end_image_url": PICTURE}),
            ("veo/image_to_video", {"prompt": "x", "image_urls": [PICTURE], "end_image_url": PICTURE}),
            ("veo/image_to_video", {"prompt": "x", "image_urls": []}),
            ("veo/image_to_video", {"prompt": "x", "image_urls": PICTURE}),
            ("veo/image_to_video", {"prompt": "x", "image_urls": [""]}),
            ("veo/text_to_video", {"prompt": "x", "image_url": PICTURE}),
            ("veo/text_to_video", {"prompt": "x", "end_image_url": PICTURE}),
            ("luma/image_to_video", {"prompt": "x", "image_url": PICTURE, "start_image_url": PICTURE}),
        ],
    )
    def test_contradictory_images(
        self,
        hook: AceDataHook,
        sim: Simulator,
        call: Any,
        operation_name: str,
        arguments: dict[str, Any],
    ) -> None:
        """Frames that do not belong together, or to the operation, are refused before anything is sent."""
        with pytest.raises(MediaRequestError, match="image"):
            call(hook, "submit", operation_name, arguments)
        assert sim.requests() == {}

    def test_frames_are_a_list(self, hook: AceDataHook, sim: Simulator, call: Any) -> None:
        """One image is the first frame, two are the first and the last."""
        call(hook, "submit", "veo/image_to_video", {"prompt": "x", "image_url": "https://a.example/1.png"})
        both = {
            "prompt": "x",
            "image_url": "https://a.example/1.png",
            "end_image_url": "https://a.example/2.png",
        }
        call(hook, "submit", "veo/image_to_video", both)
        assert [entry["request"]["image_urls"] for entry in sim.ledger()] == [
            ["https://a.example/1.png"],
            ["https://a.example/1.png", "https://a.example/2.png"],
        ]


@pytest.fixture
def hook(connect: Any) -> AceDataHook:
    """A hook that is talked to by hand."""
    return AceDataHook(connect(conn_type="acedata", password="a-good-key"))


def read(hook: AceDataHook, service: str = "veo", **document: Any) -> Any:
    """The task that this document describes."""
    return told(hook._get_task(f"{service}/t-1"), {"id": "t-1", **document})


MADE = {"video_url": URL}


# The shapes that the vendor's own tests pin (acedata.md 4).


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"response": {"success": True, "task_id": "t"}}, TaskStatus.RUNNING),
        ({"response": {"success": True, "data": []}}, TaskStatus.RUNNING),
        ({"response": {"success": True, "data": None}}, TaskStatus.RUNNING),
        ({"response": {"success": False, "error": "temporary"}}, TaskStatus.RUNNING),
        ({"response": {"success": False, "error": None}}, TaskStatus.RUNNING),
        ({"response": None}, TaskStatus.RUNNING),
        ({"finished_at": NOW, "response": {"status": "processing", "success": True}}, TaskStatus.RUNNING),
        ({"finished_at": NOW, "response": {"success": None}}, TaskStatus.RUNNING),
        ({"finished_at": NOW, "response": {"success": True, "data": None}}, TaskStatus.FAILED),
        ({"response": {"finished_at": NOW, "success": False}}, TaskStatus.FAILED),
        ({"finished_at": NOW, "response": {"status": "succeeded", "success": False}}, TaskStatus.FAILED),
        ({"response": None, "status": "succeeded"}, TaskStatus.FAILED),
        ({"response": {"success": True, "data": [MADE]}}, TaskStatus.SUCCEEDED),
        # Beyond the pinned ones.
        ({"request": {}}, TaskStatus.RUNNING),
        ({"response": []}, TaskStatus.RUNNING),
        ({"response": "soon"}, TaskStatus.RUNNING),
        ({"response": {"success": False, "error": {"code": "api_error"}}}, TaskStatus.FAILED),
        ({"finished_at": NOW, "response": {"success": False, "error": "gone"}}, TaskStatus.FAILED),
        ({"success": True, "data": [MADE]}, TaskStatus.SUCCEEDED),
    ],
)
def test_verdict_of_each_shape(hook: AceDataHook, document: dict[str, Any], status: TaskStatus) -> None:
    """Each shape of a task document is running or ended as the vendor's own tests say."""
    assert read(hook, **document).status is status


# What the reference clients do wrong (acedata.md 4).


def test_null_response_is_running(hook: AceDataHook) -> None:
    """`response: null` neither crashes nor ends anything."""
    task = read(hook, request={"action": "text2video"}, response=None, created_at=NOW)
    assert (task.status, task.files, task.operation) == (TaskStatus.RUNNING, (), "veo/text_to_video")
    assert task.created_at == datetime.fromtimestamp(NOW, timezone.utc)


def test_failure_ends(hook: AceDataHook) -> None:
    """`success: false` with an error object has failed, and is not polled for ever."""
    error = read(
        hook, response={"success": False, "error": {"code": "api_error", "message": "no luck"}}
    ).error
    assert type(error) is MediaTaskFailed
    assert (error.code, "no luck" in str(error)) == ("api_error", True)


def test_success_while_processing_is_running(hook: AceDataHook) -> None:
    """`success: true` beside a word for running is running."""
    response = {"success": True, "data": [{"state": "processing", "video_url": URL}]}
    assert read(hook, response=response).status is TaskStatus.RUNNING


@pytest.mark.parametrize("state", ["pending", "processing", "queued", "starting", "planning", "producing"])
def test_only_the_response_speaks(hook: AceDataHook, state: str) -> None:
    """A state inside the response outranks `success`, and one in the request's echo says nothing."""
    running = {"success": True, "state": state, **MADE}
    assert not read(hook, "luma", response=running).status.is_terminal
    done = {"success": True, "state": "completed", **MADE}
    assert read(hook, "luma", request={"state": state}, response=done).status is TaskStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("service", "response"),
    [
        *(
            (s, {"data": [{"state": "succeeded", **MADE}]})
            for s in ("veo", "sora", "hailuo", "grok", "happyhorse")
        ),
        ("hailuo", {"data": [{"status": "succeeded", **MADE}]}),
        ("luma", {"state": "completed", **MADE}),
        ("wan", {"state": "completed", **MADE}),
        ("kling", {"state": "succeed", "duration": "5.041", **MADE}),
        ("kling", {"state": "completed", **MADE}),
        ("digital-human", {"state": "succeed", "width": 720, "height": 1280, **MADE}),
        ("seedance", {"data": {"id": "cgt-1", "status": "succeeded", "content": MADE}}),
        ("seedance", {"data": [{"status": "succeeded", "content": MADE}]}),
        ("dreamina", {"data": {"status": "done", "task_id": "upstream", **MADE}}),
        ("maestro", {"status": "succeeded", "data": {"variants": [{"lang": "en", "output_url": URL}]}}),
        ("minimax", {"task": {"status": "succeeded"}, **MADE}),
        ("suno", {"status": "complete", "data": [{"state": "succeeded", "audio_url": URL, "video_url": ""}]}),
        ("producer", {"data": [{"state": "succeeded", "progress": "100%", "audio_url": URL}]}),
        ("fish", {"success": True, "audio_url": URL}),
        ("midjourney", {"success": True, "video_id": "v", "video_urls": [URL]}),
        *(
            (s, {"success": True, "data": [{"image_url": URL, "prompt": "x", "seed": 1}]})
            for s in ("flux", "seedream")
        ),
        ("openai", {"success": True, "created": 1, "data": [{"url": URL}]}),
    ],
)
def test_terminal_word_of_each_service(hook: AceDataHook, service: str, response: dict[str, Any]) -> None:
    """Each service has its own word for success, or none, and its own place for the result."""
    assert service in SERVICES
    task = read(hook, service, request={"prompt": "x"}, response={"success": True, **response})
    assert (task.status, task.urls) == (TaskStatus.SUCCEEDED, [URL])


@pytest.mark.parametrize(
    ("service", "response"),
    [
        ("maestro", {"status": "dead"}),
        ("minimax", {"task": {"status": "failed"}}),
        ("happyhorse", {"data": [{"state": "error"}]}),
        ("veo", {"data": [{"state": "failed"}]}),
        ("seedance", {"data": {"status": "expired"}}),
    ],
)
def test_word_for_failure_of_each_service(hook: AceDataHook, service: str, response: dict[str, Any]) -> None:
    """Each service's word for failure ends the task, `dead` included."""
    assert read(hook, service, response=response).status is TaskStatus.FAILED


def test_cancelled_is_cancelled(hook: AceDataHook) -> None:
    """A task that was cancelled elsewhere says so."""
    task = read(hook, "minimax", response={"task": {"status": "cancelled"}})
    assert task.status is TaskStatus.CANCELLED
    assert task.error is not None


def test_preview_is_no_result(hook: AceDataHook) -> None:
    """Suno shows an address to listen in while the song is still being made: it is not the result."""
    for place in ({"state": "pending"}, {"state": "streaming"}):
        response = {"success": True, "data": [{"audio_url": URL, **place}]}
        task = read(hook, "suno", response=response)
        assert (task.status, task.files) != (TaskStatus.SUCCEEDED, (URL,))
        assert not task.status.is_terminal
        assert task.files == ()


def test_partial_success_keeps_what_was_made(hook: AceDataHook) -> None:
    """Of several items one of which failed, the others are kept, and the loss is logged."""
    items = [{"state": "succeeded", **MADE}, {"state": "failed", "video_url": f"{URL}?bad"}]
    with structlog.testing.capture_logs() as logs:
        task = read(hook, response={"success": True, "data": items})
    assert (task.status, task.urls) == (TaskStatus.SUCCEEDED, [URL])
    assert any("1 of 2 items" in line["event"] for line in logs)


def test_items_not_yet_made_are_waited_for(hook: AceDataHook) -> None:
    """As long as one of several items is being made, the task runs."""
    items = [{"state": "succeeded", **MADE}, {"state": "processing"}]
    assert read(hook, response={"success": True, "data": items}).status is TaskStatus.RUNNING


def test_echo_is_no_output(hook: AceDataHook) -> None:
    """URLs that were part of the request are not results, wherever the answer repeats them."""
    request = {"audio_url": "https://me.example/a.mp3", "image_urls": [PICTURE]}
    echoed = {"audio_url": "https://me.example/a.mp3", "image_url": PICTURE}
    done = {"data": {"status": "done", **echoed, **MADE}}
    assert [file.url for file in read(hook, "dreamina", request=request, response=done).files] == [URL]
    nothing = read(hook, "dreamina", request=request, response={"data": {"status": "done", **echoed}})
    assert (nothing.status, nothing.error.code) == (TaskStatus.FAILED, "no_output")


def test_word_in_another_place_decides_nothing(hook: AceDataHook) -> None:
    """A state word deep in the document, for example of a quota, is no state of the task."""
    response = {"success": True, "data": [MADE], "usage": {"status": "failed"}, "quota": {"state": "error"}}
    assert read(hook, response=response).status is TaskStatus.SUCCEEDED


def test_files_say_what_the_provider_says(hook: AceDataHook) -> None:
    """Kind, size, length and the item's own id are read where they stand; a cover is a thumbnail."""
    item = {"id": "v-1", "video_url": URL, "cover_url": PICTURE, "video_width": "720", "video_height": 405.0}
    (video, cover) = read(hook, response={"success": True, "data": [{**item, "duration": "5.041s"}]}).files
    assert (video.kind, video.id, video.width, video.height, video.duration) == (
        "video",
        "v-1",
        720,
        405,
        5.041,
    )
    assert (cover.kind, cover.id, cover.duration) == ("thumbnail", None, None)


@pytest.mark.parametrize(
    ("percent", "progress"),
    [(40, 0.4), ("40", 0.4), (140, 1.0), (-3, 0.0), ("soon", None), (float("nan"), None)],
)
def test_progress(hook: AceDataHook, percent: Any, progress: float | None) -> None:
    """Progress is a share from 0 to 1, or absent where what is said is none."""
    response = {"status": "producing", "progress": {"percent": percent, "stage": "render"}}
    assert read(hook, "maestro", response=response).progress == progress


def test_address_that_is_none_disturbs_nobody(hook: AceDataHook) -> None:
    """A URL that cannot be parsed in one item leaves the other items and tasks as they are."""
    items = [{"url": "http://[half"}, {"url": None}, {"url": 5}, {"video_url": URL}]
    assert URL in read(hook, response={"success": True, "data": items}).urls


# What is asked.


def test_read_says_retrieve(hook: AceDataHook) -> None:
    """A read names its action, whose default in the schema is a stray `generate`."""
    asked, _ = held(hook._get_task("luma/t-1"), {"response": None})
    assert (asked[0].method, asked[0].path, asked[0].json) == (
        "POST",
        "/luma/tasks",
        {"id": "t-1", "action": "retrieve"},
    )
    assert not asked[0].paid


def test_batch_says_its_limit_and_matches_by_id(hook: AceDataHook) -> None:
    """A batch sends as many as `limit`, and what comes back in any order is matched by id, each once."""
    items = [
        {"id": "b", "response": {"success": True, "data": [MADE]}},
        {"id": "b", "response": {"success": False, "error": {"code": "api_error"}}},
        None,
        "a",
        {"id": None},
        {"id": "stranger", "response": None},
        {"id": "a", "response": None},
    ]
    asked, found = held(hook._get_batch(["veo/a", "veo/b", "veo/c"]), {"items": items, "count": 7})
    assert asked[0].json == {"ids": ["a", "b", "c"], "action": "retrieve_batch", "limit": 3}
    assert {id_: task.status for id_, task in found.items()} == {
        "veo/a": TaskStatus.RUNNING,
        "veo/b": TaskStatus.SUCCEEDED,
    }


@pytest.mark.parametrize("body", [None, {}, [], {"items": None}, {"items": {}}])
def test_batch_without_a_list(hook: AceDataHook, body: Any) -> None:
    """A batch reply without a list is the provider's error: it does not mean that the tasks are gone."""
    with pytest.raises(MediaProviderError, match="without a list of items"):
        told(hook._get_batch(["veo/a", "veo/b"]), body)


def test_search_where_paging_is_ignored(hook: AceDataHook) -> None:
    """A server that shows the same page for ever is not asked for ever, and proves nothing."""
    page = {"items": [{"id": f"t-{n}", "created_at": NOW, "request": {"prompt": "x"}} for n in range(50)]}
    since = datetime.fromtimestamp(NOW - 60, timezone.utc)
    conversation = hook._checked_find("ref", since, "veo/text_to_video", {"prompt": "y"})
    with pytest.raises(SubmissionOutcomeUnknown):
        told(conversation, page, page)


def test_search_without_an_echo_proves_nothing(hook: AceDataHook) -> None:
    """An equal request in whose echo the callback address is missing can be ours or not: nobody may guess."""
    echo = {"action": "text2video", "prompt": "x", "async": True}
    body = {"items": [{"id": "t-1", "created_at": NOW, "request": echo}]}
    with pytest.raises(SubmissionOutcomeUnknown):
        told(hook._checked_find("ref", None, "veo/text_to_video", {"prompt": "x"}), body)
    assert told(hook._checked_find("ref", None, "veo/text_to_video", {"prompt": "y"}), body) == []
    (found,) = told(hook._checked_find(None, None, "veo/text_to_video", {"prompt": "x"}), body)
    assert found.id == "veo/t-1"


# Errors (acedata.md 8).


@pytest.mark.parametrize(
    ("status", "code", "cls"),
    [
        *((400, code, MediaRequestError) for code in ("bad_request", "api_not_implemented", "disabled")),
        (400, "token_mismatched", MediaAuthError),
        (400, "no_token", MediaAuthError),
        *(
            (401, code, MediaAuthError)
            for code in ("invalid_token", "token_expired", "authorization_missing")
        ),
        (403, "used_up", MediaFundsError),
        (403, "forbidden", MediaModerationError),
        (404, "no_api", MediaNotFoundError),
        (413, "request_too_large", MediaRequestError),
        (429, "too_many_requests", MediaRateLimitError),
        (500, "busy", MediaRateLimitError),
        (500, "api_error", MediaProviderError),
        (504, "timeout", MediaProviderError),
        (200, "used_up", MediaFundsError),
    ],
)
def test_error_class_by_code(hook: AceDataHook, status: int, code: str, cls: type[MediaTaskError]) -> None:
    """The code decides: a 403 is no money or a moderation, a 500 may be a rate limit, a 200 a refusal."""
    body = {"success": False, "error": {"code": code, "message": "as it is"}, "trace_id": "trace-1"}
    error = hook.error_of(reply(body, status))
    assert type(error) is cls
    assert (error.provider, error.code) == ("acedata", code)
    assert "as it is" in str(error)
    assert "trace-1" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "cls"),
    [
        (402, {"detail": "payment required"}, MediaFundsError),
        (400, {"error": "a bare text"}, MediaRequestError),
        (500, {"error": None}, MediaProviderError),
        (502, None, MediaProviderError),
        (429, {}, MediaRateLimitError),
        (401, [], MediaAuthError),
    ],
)
def test_error_without_a_code(hook: AceDataHook, status: int, body: Any, cls: type[MediaTaskError]) -> None:
    """Where there is no code, the HTTP status decides."""
    assert type(hook.error_of(reply(body, status))) is cls


def test_task_of_a_refused_job_is_no_refusal(hook: AceDataHook) -> None:
    """`success: false` beside a task id is a task that failed, not a request that was refused."""
    body = {"success": False, "task_id": "t-1", "error": {"code": "forbidden", "message": "no"}}
    assert hook.error_of(reply(body)) is None
    assert type(read(hook, response=body).error) is MediaModerationError
