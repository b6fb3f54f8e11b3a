from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, ClassVar
from urllib.parse import quote

import pytest

from airflow_media_tasks.hooks.luma import LumaHook
from airflow_media_tasks.simulator import Simulator
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFundsError,
    MediaModerationError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTaskError,
    MediaTaskFailed,
    SubmissionOutcomeUnknown,
    TaskStatus,
)

from .by_hand import reply
from .case import MARK, VIDEO_ID
from .contract import HookContract


IMAGE = "https://example.com/1.png"
FILM = "https://example.com/1.mp4"
AGENTS = frozenset(name for name in LumaHook.operations if name.startswith("agents/"))


class TestLumaHook(HookContract):
    """The contract, for Luma."""

    hook_class = LumaHook
    paid = "text_to_image"
    other = "agents/text_to_image"
    unknown_id = "00000000-0000-4000-8000-000000000000"
    foreign_ids = ("veo/00000000", "videos/text2video/00000000", "agents/a/b", "agents/", "task id", "a?b")
    # Agents echoes no request.
    ambiguous = AGENTS
    wrong_key_words = "Invalid API key"
    documented = (
        ("text_to_image", "1.jpg", "image/jpeg"),
        ("text_to_image", "1.png", "image/png"),
        ("text_to_video", "1.mp4", "video/mp4"),
        ("agents/text_to_image", "1.png", "image/png"),
        ("agents/text_to_image", "1.jpeg", "image/jpeg"),
        ("agents/text_to_video", "1.mp4", "video/mp4"),
    )
    samples: ClassVar = {
        "text_to_image": {"prompt": "a lighthouse at dusk", "aspect_ratio": "16:9"},
        "image_to_image": {"prompt": "at night", "image_url": IMAGE, "weight": 0.5},
        "text_to_video": {"prompt": "waves", "duration": "5", "loop": True},
        "image_to_video": {"prompt": "it rains", "image_url": IMAGE, "end_image_url": IMAGE},
        "extend_video": {"prompt": "and on", "video_id": VIDEO_ID},
        "upscale_video": {"video_id": VIDEO_ID, "resolution": "1080p"},
        "agents/text_to_image": {"prompt": "a lighthouse at dusk", "image_urls": [IMAGE]},
        "agents/image_to_image": {"prompt": "at night", "image_url": IMAGE},
        "agents/text_to_video": {"prompt": "waves", "duration": 5, "resolution": "720p", "loop": True},
        "agents/image_to_video": {"prompt": "it rains", "image_url": IMAGE},
        "agents/edit_video": {"prompt": "in snow", "video_url": FILM},
    }

    def expected_mark(self, operation: str) -> str | None:
        """At Dream Machine a parameter of the callback address, which is echoed; Agents has no such place."""
        return None if operation in AGENTS else f"{LumaHook.base_url}/ping?ref={quote(MARK, safe='')}"

    def accepted(self, own_id: Any) -> dict[str, Any]:
        """A generation that has not begun."""
        return {"id": own_id, "state": "queued", "assets": None, "failure_reason": None}

    def group_of(self, operation: str) -> str:
        """That of Agents has one."""
        return "agents" if operation in AGENTS else ""

    def finished_with(self, operation: str, url: str) -> dict[str, Any]:
        """A generation that made one file."""
        kind = LumaHook.operations[operation].kind
        if operation in AGENTS:
            return {"id": "t-1", "state": "completed", "type": kind, "output": [{"type": kind, "url": url}]}
        return {"id": "t-1", "state": "completed", "generation_type": kind, "assets": {kind: url}}

    # What is sent.

    def test_what_is_sent_to_dream_machine(self, hook: LumaHook, sim: Simulator) -> None:
        """Pictures are keyframes or references there, a film to go on with is one, too, or in the path."""
        film = self.finished(hook, sim, "text_to_video").files[0].id
        for operation, more in (
            ("image_to_image", {}),
            ("image_to_video", {"model": "ray-flash-2", "duration": 9}),
            ("extend_video", {"video_id": film}),
            ("upscale_video", {"video_id": film}),
        ):
            hook.submit(operation, {**self.samples[operation], **more})
        first, *others = [entry["request"] for entry in sim.ledger()]
        assert first == {
            "generation_type": "video",
            "model": "ray-2",
            "prompt": "waves",
            "duration": "5s",
            "loop": True,
        }
        image = {"type": "image", "url": IMAGE}
        assert others == [
            {
                "generation_type": "image",
                "model": "photon-1",
                "prompt": "at night",
                "modify_image_ref": {"url": IMAGE, "weight": 0.5},
            },
            {
                "generation_type": "video",
                "model": "ray-flash-2",
                "prompt": "it rains",
                "duration": "9s",
                "keyframes": {"frame0": image, "frame1": image},
            },
            {
                "generation_type": "video",
                "model": "ray-2",
                "prompt": "and on",
                "keyframes": {"frame0": {"type": "generation", "id": film}},
            },
            {"generation_type": "upscale_video", "resolution": "1080p"},
        ]
        assert sim.requests()["POST /luma/generations/{id}/upscale"] == 1

    def test_what_is_sent_to_agents(self, hook: LumaHook, sim: Simulator) -> None:
        """It has one path for all, and what is of films stands in an object of its own."""
        for operation in sorted(AGENTS):
            hook.submit(operation, {**self.samples[operation], "web_search": False})
        assert [entry["request"] for entry in sim.ledger()] == [
            {"type": kind, "model": model, "prompt": prompt, "web_search": False, **more}
            for kind, model, prompt, more in (
                ("video_edit", "ray-3.2", "in snow", {"source": {"url": FILM, "media_type": "video/mp4"}}),
                ("image_edit", "uni-1", "at night", {"source": {"url": IMAGE}}),
                ("video", "ray-3.2", "it rains", {"video": {"start_frame": {"url": IMAGE}}}),
                ("image", "uni-1", "a lighthouse at dusk", {"image_ref": [{"url": IMAGE}]}),
                (
                    "video",
                    "ray-3.2",
                    "waves",
                    {"video": {"duration": "5s", "resolution": "720p", "loop": True}},
                ),
            )
        ]
        assert sim.requests() == {"POST /luma/agents/generations": 5}

    @pytest.mark.parametrize("name", ["text_to_video", "agents/text_to_video"])
    def test_a_model_that_nobody_has_heard_of(self, hook: LumaHook, sim: Simulator, name: str) -> None:
        """A model's id is passed on."""
        hook.submit(name, {"prompt": "waves", "model": "ray-9"})
        assert sim.ledger()[0]["request"]["model"] == "ray-9"

    def test_another_address_for_callbacks(self, connect: Any, sim: Simulator) -> None:
        """The connection's callback address carries the mark, and a task's own outranks it."""
        hook = self.hook_for(connect, sim, extra={"callback_url": "https://example.com/a?x=1"})
        hook.submit(self.paid, self.samples[self.paid], client_ref="r")
        hook.submit(
            self.paid, {**self.samples[self.paid], "callback_url": "https://example.com/b"}, client_ref="r"
        )
        assert [entry["client_ref"] for entry in sim.ledger()] == [
            "https://example.com/a?x=1&ref=r",
            "https://example.com/b?ref=r",
        ]

    # What is made.

    def test_a_film_has_a_thumbnail_and_no_second_result(
        self, hook: LumaHook, sim: Simulator, call: Any
    ) -> None:
        """What is shown of a film while it is made, and its picture, are no results; its id is the task's."""
        task = call(hook, "submit", "text_to_video", self.samples["text_to_video"])
        sim.advance(1.5)
        running = call(hook, "get_task", task.id)
        assert running.raw["assets"]["progress_video"]
        assert (running.status, running.files) == (TaskStatus.RUNNING, ())
        sim.advance(10)
        done = call(hook, "get_task", task.id)
        assert [(file.kind, file.id) for file in done.files] == [("video", task.id), ("thumbnail", None)]
        assert len(done.urls) == 1

    def test_a_picture_that_is_waited_for(self, hook: LumaHook, sim: Simulator) -> None:
        """With `sync` the reply may be the finished picture, or one that is still made."""
        done = hook.submit(self.paid, {"prompt": "a cup [sim:seconds=0]", "sync": True})
        assert (done.status, len(done.files)) == (TaskStatus.SUCCEEDED, 1)
        late = hook.submit(
            self.paid, {"prompt": "a cup [sim:seconds=60]", "sync": True, "sync_timeout": 0.01}
        )
        assert not late.status.is_terminal

    # The connection.

    def test_the_connection_names_the_api(self, connect: Any, sim: Simulator, call: Any) -> None:
        """With `agents` a short name is of Agents, which is asked by Test and shows no balance."""
        hook = self.hook_for(connect, sim, extra={"api": "agents"})
        assert call(hook, "submit", "text_to_image", {"prompt": "a cup"}).id.startswith("agents/")
        assert hook.test_connection() == (
            True,
            "ok, the key is accepted (this provider's API shows no balance)",
        )
        assert sim.requests() == {"POST /luma/agents/generations": 1, "GET /luma/agents/files": 1}
        with pytest.raises(MediaRequestError, match="balance"):
            call(hook, "get_balance")
        assert not self.hook_for(
            connect, sim, extra={"api": "agents"}, password="sim-bad-key"
        ).test_connection()[0]

    def test_an_api_that_there_is_not(self, connect: Any, sim: Simulator) -> None:
        """It is named with what there is, before anything is sent, by Test, too."""
        hook = self.hook_for(connect, sim, extra={"api": "ray"})
        with pytest.raises(MediaRequestError, match="api in extra must be one of dream-machine, agents"):
            hook.submit(self.paid, self.samples[self.paid])
        assert "got 'ray'" in hook.test_connection()[1]
        assert sim.requests() == {}

    def test_balance_in_cents(self, hook: LumaHook, call: Any) -> None:
        """Dream Machine says what is left, in US cents."""
        assert str(call(hook, "get_balance")) == "100000000 cents"

    def test_agents_has_another_public_address(self, connect: Any) -> None:
        """Without an address in the connection each API is asked at its own."""
        hook = LumaHook(connect(conn_type="luma", password="a-good-key"))
        assert hook._address("") == "https://api.lumalabs.ai/dream-machine/v1"
        assert hook._address("agents") == "https://agents.lumalabs.ai/v1"

    # What is refused, and what is lost.

    def test_no_money_at_agents(self, connect: Any, sim: Simulator) -> None:
        """Agents has an HTTP status for it, where Dream Machine has words."""
        hook = self.hook_for(connect, sim, password="sim-no-funds")
        with pytest.raises(MediaFundsError, match="402"):
            hook.submit("agents/text_to_image", {"prompt": "a cup"})
        with pytest.raises(MediaFundsError, match="Insufficient credits"):
            hook.submit("text_to_image", {"prompt": "a cup"})

    def test_what_is_lost_at_agents_is_a_question(self, hook: LumaHook, sim: Simulator, call: Any) -> None:
        """There is no list to look for it in, so nobody can say what became of it."""
        lost = {"prompt": "a cup [sim:lose-reply]"}
        with pytest.raises(SubmissionOutcomeUnknown):
            call(hook, "submit", "agents/text_to_image", lost, client_ref=MARK)
        assert len(sim.ledger()) == 1
        assert not hook.can_be_asked("agents/text_to_image")
        wanted = {"operation": "agents/text_to_image", "arguments": lost}
        with pytest.raises(SubmissionOutcomeUnknown, match="it has no list of 'agents/text_to_image' tasks"):
            call(hook, "find_tasks", client_ref=MARK, submitted_after=datetime.now(timezone.utc), **wanted)

    def test_what_is_lost_without_the_echo_is_a_question(
        self, hook: LumaHook, sim: Simulator, call: Any
    ) -> None:
        """An equal generation that does not show our mark may be the one, or not."""
        lost = self.with_words("[sim:lose-reply] [sim:no-echo]")
        began = datetime.now(timezone.utc)
        with pytest.raises(SubmissionOutcomeUnknown):
            call(hook, "submit", self.paid, lost, client_ref=MARK)
        wanted = {"operation": self.paid, "arguments": lost, "submitted_after": began}
        with pytest.raises(SubmissionOutcomeUnknown, match="does not show"):
            call(hook, "find_tasks", client_ref=MARK, **wanted)


@pytest.fixture
def hook(connect: Any) -> LumaHook:
    """A hook that is talked to by hand."""
    return LumaHook(connect(conn_type="luma", password="a-good-key"))


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("queued", TaskStatus.QUEUED),
        ("pending", TaskStatus.QUEUED),
        ("dreaming", TaskStatus.RUNNING),
        ("processing", TaskStatus.RUNNING),
        ("completed", TaskStatus.SUCCEEDED),
        ("failed", TaskStatus.FAILED),
    ],
)
def test_every_status_word(hook: LumaHook, word: str, status: TaskStatus) -> None:
    """Those of both APIs and of older pages are known."""
    assert hook._task("t-1", {"id": "t-1", "state": word, "assets": {"image": IMAGE}}).status is status


@pytest.mark.parametrize(
    ("code", "words", "cls"),
    [
        ("content_moderated", "no", MediaModerationError),
        ("generation_failed", "The generation could not be made", MediaTaskFailed),
        ("budget_exhausted", "The budget is exhausted", MediaTaskFailed),
        ("output_not_found", "no", MediaTaskFailed),
        ("image_too_large", "no", MediaTaskFailed),
        (None, "prompt not allowed because advanced moderation failed", MediaModerationError),
        (None, "The image could not be reached", MediaTaskFailed),
        (None, None, MediaTaskFailed),
    ],
)
def test_every_failure(
    hook: LumaHook, code: str | None, words: str | None, cls: type[MediaTaskError]
) -> None:
    """Agents has a code for it, Dream Machine words alone, or nothing."""
    document = {"id": "t-1", "state": "failed", "failure_code": code, "failure_reason": words, "output": []}
    error = hook._task("t-1", document).error
    assert type(error) is cls
    assert error.code == (code or "failed")
    assert (words or "failed") in str(error)


@pytest.mark.parametrize(
    ("status", "detail", "cls"),
    [
        (400, "Prompt blocked by moderation", MediaModerationError),
        (400, "Insufficient credits", MediaFundsError),
        (400, "The image at the URL could not be reached", MediaRequestError),
        (401, "Invalid API key", MediaAuthError),
        (402, "Insufficient balance", MediaFundsError),
        (403, "Account suspended", MediaAuthError),
        (413, "Media too large", MediaRequestError),
        (422, [{"loc": ["body", "model"], "msg": "Field required", "type": "missing"}], MediaRequestError),
        (429, "Concurrent generation limit reached", MediaRateLimitError),
    ],
)
def test_every_refusal(hook: LumaHook, status: int, detail: Any, cls: type[MediaTaskError]) -> None:
    """`detail` is a text or a list of what is wrong; the status is the code where there is none."""
    error = hook.error_of(reply({"detail": detail}, status))
    assert type(error) is cls
    assert error.code == str(status)
    assert (detail if isinstance(detail, str) else "Field required") in str(error)


@pytest.mark.parametrize(
    ("output", "kinds"),
    [
        ([{"type": "image", "url": "https://cdn.example/x?sig=1"}], ["image"]),
        ([{"type": "video", "url": "https://cdn.example/x?sig=1"}], ["video"]),
        (
            [{"type": "image", "url": f"https://cdn.example/{n}", "layer": {"index": n}} for n in range(3)],
            ["image"] * 3,
        ),
    ],
)
def test_every_kind_of_file_at_agents(hook: LumaHook, output: Any, kinds: list[str]) -> None:
    """Each file says what it is, and layers are files in their order."""
    done = hook._task("agents/t-1", {"id": "t-1", "state": "completed", "output": output})
    assert [file.kind for file in done.files] == kinds
    assert [file.url for file in done.files] == [item["url"] for item in output]


@pytest.mark.parametrize("made", [{"assets": None}, {"assets": {}}, {"output": []}, {}])
def test_nothing_was_made(hook: LumaHook, made: dict[str, Any]) -> None:
    """A success that shows no file is a failure."""
    task = hook._task("t-1", {"id": "t-1", "state": "completed", **made})
    assert task.error.code == "no_output"
