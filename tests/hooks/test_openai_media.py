from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import pytest

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.hooks.openai_media import OpenAIMediaHook
from airflow_media_tasks.landing import storage
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFundsError,
    MediaModerationError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)

from .by_hand import reply
from .case import KEY, MARK, VIDEO_ID
from .contract import HookContract
from .peer import Peer, say


IMAGE = "https://example.com/1.png"
PLACE = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 0}


class TestOpenAIMediaHook(HookContract):
    """The contract, for servers of OpenAI's shape."""

    hook_class = OpenAIMediaHook
    paid = "text_to_video"
    other = "image_to_video"
    unknown_id = "video_00000000000040008000000000000000"
    foreign_ids = ("veo/00000000", "videos/text2video/00000000", "operations/a/b", "task id", "a?b")
    ambiguous = frozenset(OpenAIMediaHook.operations)
    wrong_key_words = "Incorrect API key"
    results_at = "/openai_media/videos/"
    samples: ClassVar = {
        "text_to_video": {"prompt": "a lighthouse at dusk", "duration": "8", "resolution": "1280x720"},
        "image_to_video": {"prompt": "it rains", "image_url": IMAGE, "model": "wan-2.2"},
        "remix_video": {"prompt": "in snow", "video_id": VIDEO_ID},
    }

    def expected_mark(self, operation: str) -> None:
        """A video has no place for a mark of ours."""

    def accepted(self, own_id: Any) -> dict[str, Any]:
        """A video that has not begun."""
        return {"id": own_id, "object": "video", "status": "queued", "progress": 0}

    def group_of(self, operation: str) -> str:
        """Videos have none."""
        return ""

    def test_success_without_output_is_a_failure(self, hook: MediaHook, sim: Simulator, call: Any) -> None:
        """No document says whether there is a file: that it is not there is told when it lands."""
        task = call(hook, "submit", self.paid, self.with_words("[sim:no-output]"))
        sim.advance(10)
        assert call(hook, "get_task", task.id).url.endswith(f"/videos/{task.id}/content")

    def test_what_is_not_ours_passes_through(self, connect: Any, sim: Simulator, call: Any) -> None:  # type: ignore[override]  # another hook
        """As JSON a key that this package does not know reaches the server untouched."""
        hook = self.hook_for(connect, sim, extra={"json": True})
        super().test_what_is_not_ours_passes_through(hook, sim, call)

    # What is sent.

    def test_what_is_sent_as_a_form(self, hook: OpenAIMediaHook, sim: Simulator) -> None:
        """Submissions are forms, as the vendor's client sends them, but for a remix, which is JSON."""
        film = self.finished(hook, sim).files[0].id
        hook.submit(
            "image_to_video", {**self.samples["image_to_video"], "fps": 16, "audio": True, "tags": ["a", 1]}
        )
        hook.submit("remix_video", {"prompt": "in snow", "video_id": film})
        assert [entry["request"] for entry in sim.ledger()] == [
            {"prompt": "a lighthouse at dusk", "seconds": "8", "size": "1280x720"},
            {
                "prompt": "it rains",
                "input_reference": {"image_url": IMAGE},
                "model": "wan-2.2",
                "fps": "16",
                "audio": "true",
                "tags": ["a", "1"],
            },
            {"prompt": "in snow"},
        ]
        assert sim.requests()["POST /openai_media/videos/{id}/remix"] == 1

    @pytest.mark.parametrize(
        ("extra", "content_type"),
        [
            ({}, "multipart/form-data"),
            ({"json": False}, "multipart/form-data"),
            ({"json": True}, "application/json"),
            ({"json": "true"}, "application/json"),
        ],
    )
    def test_the_connection_says_what_is_sent(
        self, connect: Any, peer: Peer, call: Any, extra: dict[str, Any], content_type: str
    ) -> None:
        """A server that takes no form is sent JSON."""
        peer.answer = lambda handler: say(handler, self.accepted("v-1"))
        hook = OpenAIMediaHook(connect(conn_type="openai_media", host=peer.url, password=KEY, extra=extra))
        call(hook, "submit", self.paid, {"prompt": 'a "cup"\r\nü', "duration": 8})
        ((_, _, headers, body),) = peer.seen
        assert headers["content-type"].partition(";")[0] == content_type
        assert (b'a "cup"\r\n\xc3\xbc' in body) == (content_type != "application/json")

    def test_neither_true_nor_false(self, connect: Any, sim: Simulator) -> None:
        """It is told before anything is sent, and by Test."""
        hook = self.hook_for(connect, sim, extra={"json": "yes"})
        with pytest.raises(MediaRequestError, match="json in extra must be true or false, got 'yes'"):
            hook.submit(self.paid, self.samples[self.paid])
        assert "json in extra" in hook.test_connection()[1]
        assert sim.requests() == {}

    def test_models_of_the_connection(self, connect: Any, sim: Simulator) -> None:
        """The connection names a model, of which nobody need have heard; a task's own outranks it."""
        hook = self.hook_for(connect, sim, extra={"models": {"text_to_video": "wan-9"}})
        hook.submit("text_to_video", {"prompt": "waves"})
        hook.submit("text_to_video", {"prompt": "waves", "model": "ltx-9"})
        hook.submit("image_to_video", {"prompt": "waves", "image_url": IMAGE})
        assert [entry["request"].get("model") for entry in sim.ledger()] == ["wan-9", "ltx-9", None]

    # What is made.

    def test_the_file_says_what_the_document_says(
        self, hook: OpenAIMediaHook, sim: Simulator, call: Any
    ) -> None:
        """A video has the id by which it is remixed, its length, and the time until which it is kept."""
        done = self.finished(hook, sim)
        (file,) = done.files
        assert (file.kind, file.id, file.duration, file.access) == ("video", done.id, 8, "key")
        assert file.expires_at == datetime.fromtimestamp(done.raw["expires_at"], timezone.utc)
        assert file.url == f"{sim.url}/openai_media/videos/{done.id}/content"

    def test_it_lands_with_the_key(
        self,
        hook: OpenAIMediaHook,
        connect: Any,
        sim: Simulator,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """A video is fetched with the key of its account, which is written down nowhere."""
        monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS", "127.0.0.1")
        done = self.finished(hook, sim)
        files = self.landed(done, tmp_path)
        assert [file["content_type"] for file in files] == ["video/mp4"]
        assert KEY not in json.dumps(files) + json.dumps(done.to_dict())

    def test_the_key_goes_to_no_other_host(
        self,
        connect: Any,
        sim: Simulator,
        peer: Peer,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """A gateway that redirects to where the film is has it fetched there without the key."""
        monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS", "127.0.0.1")
        hook = self.hook_for(connect, sim, password="")
        made = self.finished(hook, sim)
        elsewhere = made.url
        done = {**self.accepted("v-1"), "status": "completed"}
        peer.answer = lambda handler: (
            say(handler, b"", 302, Location=elsewhere)
            if handler.path.endswith("/content")
            else say(handler, done)
        )
        gateway = OpenAIMediaHook(connect(conn_type="openai_media", host=peer.url, password=KEY))
        assert len(self.landed(gateway.get_task("v-1"), tmp_path)) == 1
        assert {headers.get("authorization") for _, _, headers, _ in peer.seen} == {f"Bearer {KEY}"}

    def test_a_server_that_asks_for_no_key(
        self, connect: Any, sim: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """One's own server needs none, nor do its files."""
        monkeypatch.setenv("AIRFLOW__MEDIA_TASKS__ALLOWED_HOSTS", "127.0.0.1")
        hook = self.hook_for(connect, sim, password="")
        assert hook.test_connection()[1].startswith("ok, it answers, without a key")
        done = self.finished(hook, sim)
        assert done.files[0].access is None
        assert len(self.landed(done, tmp_path)) == 1

    def landed(self, done: Any, folder: Path) -> Any:
        """The files of a finished task, landed by the connection `account`."""
        media = {**done.to_dict(), "media_conn_id": "account"}
        destination = storage.Destination(f"{folder.as_uri()}/", PLACE)
        (document,) = storage.land(
            storage.made_of(media, ("account",)), destination, logging.getLogger(__name__)
        )
        return document["files"]

    # What is found.

    def wanted(self, operation: str, arguments: dict[str, Any], began: datetime) -> dict[str, Any]:
        """What is looked for."""
        return {"operation": operation, "arguments": arguments, "submitted_after": began, "client_ref": MARK}

    def test_what_a_picture_became_is_a_question(
        self, hook: OpenAIMediaHook, sim: Simulator, call: Any
    ) -> None:
        """The list does not show the picture, so an equal prompt may be of another one."""
        began = datetime.now(timezone.utc)
        call(hook, "submit", "image_to_video", self.samples["image_to_video"])
        with pytest.raises(SubmissionOutcomeUnknown, match="does not show what it was made from"):
            call(hook, "find_tasks", **self.wanted("image_to_video", self.samples["image_to_video"], began))
        other = {**self.samples["image_to_video"], "prompt": "it snows"}
        assert call(hook, "find_tasks", **self.wanted("image_to_video", other, began)) == []

    def test_a_remix_is_found_by_its_source(self, hook: OpenAIMediaHook, sim: Simulator, call: Any) -> None:
        """A remix of another video is another, and none is what was made from words alone."""
        sources = [self.finished(hook, sim).files[0].id for _ in range(2)]
        began = datetime.fromtimestamp(sim.ledger()[-1]["at"] + 9, timezone.utc)
        made = [
            call(hook, "submit", "remix_video", {"prompt": "in snow", "video_id": source}).id
            for source in sources
        ]
        for source, own_id in zip(sources, made, strict=True):
            remix = {"prompt": "in snow", "video_id": source}
            (found,) = call(hook, "find_tasks", **self.wanted("remix_video", remix, began))
            assert found.id == own_id
        assert call(hook, "find_tasks", **self.wanted("text_to_video", {"prompt": "in snow"}, began)) == []

    @pytest.mark.parametrize(
        ("shown", "verdict"),
        [
            ({"prompt": "waves", "model": "wan-2", "seconds": "4", "size": "1280x720"}, True),
            ({"prompt": "waves", "model": "wan-2", "seconds": 4}, True),
            ({"prompt": "waves"}, True),
            # A gateway may call a model otherwise, or leave the prompt out.
            ({"prompt": "waves", "model": "provider/wan-2"}, None),
            ({"prompt": "waves", "seconds": "8"}, None),
            ({"model": "wan-2"}, None),
            ({"prompt": None}, None),
            ({"prompt": "dunes", "model": "wan-2"}, False),
            ({"prompt": "waves", "remixed_from_video_id": "v-1"}, False),
        ],
    )
    def test_what_a_list_proves(
        self, hook: OpenAIMediaHook, shown: dict[str, Any], verdict: bool | None
    ) -> None:
        """Another prompt is another video; what is shown otherwise than it was sent proves nothing."""
        asked = {"prompt": "waves", "model": "wan-2", "duration": 4, "resolution": "1280x720"}
        _, checked = hook.check("text_to_video", asked)
        task = hook._task("v-1", {"id": "v-1", "status": "queued", **shown})
        assert hook._comes_from(task, "text_to_video", checked, None, {}) is verdict

    def test_every_page_is_read(self, hook: OpenAIMediaHook, sim: Simulator, call: Any) -> None:
        """What lies behind two hundred others is found."""
        began = datetime.now(timezone.utc)
        with hook:
            lost = hook.submit("text_to_video", {"prompt": "the first"})
            for number in range(210):
                hook.submit("text_to_video", {"prompt": f"number {number}"})
        (found,) = call(hook, "find_tasks", **self.wanted("text_to_video", {"prompt": "the first"}, began))
        assert found.id == lost.id
        assert sim.requests()["GET /openai_media/videos"] == 3

    @pytest.mark.parametrize("page_has", [{}, {"has_more": None}])
    def test_a_list_that_does_not_say_whether_there_is_more(
        self, connect: Any, peer: Peer, page_has: dict[str, Any]
    ) -> None:
        """It is read until a page is empty."""
        since = datetime.now(timezone.utc)
        one = {**self.accepted("v-1"), "prompt": "dunes", "created_at": since.timestamp()}
        pages = [{"data": [one], **page_has}, {"data": [], **page_has}]
        peer.answer = lambda handler: say(handler, pages[min(len(peer.seen), 2) - 1])
        hook = OpenAIMediaHook(connect(conn_type="openai_media", host=peer.url, password=KEY))
        assert hook.find_tasks(**self.wanted("text_to_video", {"prompt": "waves"}, since)) == []
        assert [path.partition("after=")[2] for _, path, _, _ in peer.seen] == ["", "v-1"]

    def test_a_list_without_pages_proves_nothing(self, connect: Any, peer: Peer) -> None:
        """A server that shows the same page again may hide what was looked for."""
        since = datetime.now(timezone.utc) - timedelta(seconds=1)
        one = {**self.accepted("v-1"), "prompt": "dunes", "created_at": since.timestamp() + 1}
        peer.answer = lambda handler: say(handler, {"data": [one]})
        hook = OpenAIMediaHook(connect(conn_type="openai_media", host=peer.url, password=KEY))
        with pytest.raises(SubmissionOutcomeUnknown, match="does not reach back"):
            hook.find_tasks(**self.wanted("text_to_video", {"prompt": "waves"}, since))

    @pytest.mark.parametrize("status", [404, 405])
    def test_a_gateway_without_a_list(self, connect: Any, peer: Peer, status: int) -> None:
        """Then nobody can tell what became of a submission, which is a question and no error."""
        peer.answer = lambda handler: say(
            handler, {"error": {"message": "Invalid URL", "code": None}}, status
        )
        hook = OpenAIMediaHook(connect(conn_type="openai_media", host=peer.url, password=KEY))
        with pytest.raises(SubmissionOutcomeUnknown, match=r"shows no list of videos: .*Invalid URL"):
            hook.find_tasks(**self.wanted("text_to_video", {"prompt": "waves"}, datetime.now(timezone.utc)))


@pytest.fixture
def hook(connect: Any) -> OpenAIMediaHook:
    """A hook that is talked to by hand."""
    return OpenAIMediaHook(connect(conn_type="openai_media", password="a-good-key"))


@pytest.mark.parametrize(
    ("word", "status", "progress"),
    [
        ("queued", TaskStatus.QUEUED, 0),
        ("in_progress", TaskStatus.RUNNING, 50),
        ("completed", TaskStatus.SUCCEEDED, 100),
        ("failed", TaskStatus.FAILED, 50),
    ],
)
def test_every_status_word(hook: OpenAIMediaHook, word: str, status: TaskStatus, progress: int) -> None:
    """Each is known, and progress is of a hundred."""
    task = hook._task("v-1", {"id": "v-1", "status": word, "progress": progress})
    assert (task.status, task.progress) == (status, progress / 100)


@pytest.mark.parametrize(
    ("error", "cls", "code"),
    [
        (
            {"code": "moderation_blocked", "message": "It was blocked"},
            MediaModerationError,
            "moderation_blocked",
        ),
        (
            {"code": "video_generation_failed", "message": "It broke"},
            MediaTaskFailed,
            "video_generation_failed",
        ),
        ({"message": "CUDA out of memory"}, MediaTaskFailed, "failed"),
        ("CUDA out of memory", MediaTaskFailed, "failed"),
        (None, MediaTaskFailed, "failed"),
    ],
)
def test_every_failure(hook: OpenAIMediaHook, error: Any, cls: type[Exception], code: str) -> None:
    """A failure has a code and words, or, at one's own server, words alone."""
    failed = hook._task("v-1", {"id": "v-1", "status": "failed", "error": error}).error
    assert type(failed) is cls
    assert failed.code == code
    assert (error["message"] if isinstance(error, dict) else error or "failed") in str(failed)


@pytest.mark.parametrize(
    ("status", "body", "cls"),
    [
        (400, {"error": {"message": "blocked", "code": "moderation_blocked"}}, MediaModerationError),
        (400, {"error": {"message": "blocked", "code": "content_policy_violation"}}, MediaModerationError),
        (400, {"error": {"message": "no", "type": "invalid_request_error", "code": None}}, MediaRequestError),
        (401, {"error": {"message": "no", "code": "invalid_api_key"}}, MediaAuthError),
        (402, {"error": {"message": "no", "code": 402}}, MediaFundsError),
        (429, {"error": {"message": "no", "code": "insufficient_quota"}}, MediaFundsError),
        (429, {"error": {"message": "no", "code": "rate_limit_exceeded"}}, MediaRateLimitError),
        (400, {"detail": "input_reference file is required"}, MediaRequestError),
        (422, {"detail": [{"loc": ["body", "prompt"], "msg": "Field required"}]}, MediaRequestError),
    ],
)
def test_every_refusal(
    hook: OpenAIMediaHook, status: int, body: dict[str, Any], cls: type[Exception]
) -> None:
    """The code decides, then the status: no money and too many requests share one."""
    assert type(hook.error_of(reply(body, status))) is cls
