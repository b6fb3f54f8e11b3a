"""`OpenAIMediaHook`: `/v1/videos` as gateways and self-hosted servers speak it, in OpenAI's words.

Wire facts: providers/openai_video.md. OpenAI's own service of this shape ended in September 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import (
    MediaFile,
    MediaFundsError,
    MediaModerationError,
    MediaNotFoundError,
    MediaRequestError,
    MediaTask,
    SubmissionOutcomeUnknown,
)
from airflow_media_tasks.wire.connections import is_true
from airflow_media_tasks.wire.conversations import Conversation, Reply, Request
from airflow_media_tasks.wire.documents import as_text
from airflow_media_tasks.wire.files import Found
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.wire.places import Into
from airflow_media_tasks.wire.tables import Call, Document, Listing, Refusals


# Seconds are a text, and a size is width by height ([O]).
_FILM: dict[str, Any] = {"duration": Into("seconds", convert=str), "resolution": "size"}
_ECHOED = ("model", "seconds", "size")


class OpenAIMediaHook(MediaHook):
    """Films by any server with `/v1/videos`. A task's `media_task_id` is the video's id."""

    default_conn_name = "openai_media_default"
    conn_type = "openai_media"
    hook_name = "OpenAI-shaped videos"
    base_url = "https://api.openai.com/v1"
    key_optional = True
    keyed_hosts = ("",)
    id_form = "'<video id>'"
    cheapest = ("text_to_video", {"prompt": "A grey pebble"})

    operations: ClassVar[Mapping[str, Operation]] = {
        "text_to_video": Operation(
            "video", "/videos", ("prompt",), rename=_FILM, form=True, expected_seconds=90
        ),
        "image_to_video": Operation(
            "video",
            "/videos",
            ("prompt", "image_url"),
            rename={**_FILM, "image_url": "input_reference.image_url"},
            form=True,
            expected_seconds=90,
        ),
        # Never a form, in the vendor's own client ([O]).
        "remix_video": Operation(
            "video", "/videos/{video_id}/remix", ("video_id", "prompt"), expected_seconds=90
        ),
    }
    look = Call("GET", "/videos/{id}")
    content = Call("GET", "/videos/{id}/content")
    # Some servers do not say whether there is more ([3]); then the page after the last one is empty.
    listing = Listing(
        Call("GET", "/videos", params={"limit": "{limit}", "order": "desc", "after": "{cursor}"}),
        items="data",
        size=100,
        cursor="has_more != `false` && (last_id || data[-1].id) || null",
    )
    proof = Call("GET", "/models")
    document = Document(
        progress="progress",
        whole=100,
        failure_code="error.code",
        failure="error.message || error",
        created_at="created_at",
    )
    refusal = Refusals(
        code="error.code || error.type",
        words="error.message || detail || message || error",
        codes={
            **dict.fromkeys(("moderation_blocked", "content_policy_violation"), MediaModerationError),
            # It has the status of a rate limit ([O]).
            "insufficient_quota": MediaFundsError,
        },
    )

    @property
    def _wants_json(self) -> bool:
        return is_true(self.settings.extra, "json", f"connection {self.media_conn_id!r}")

    def check_settings(self) -> None:
        """As of `MediaHook`, and how submissions are sent."""
        super().check_settings()
        _ = self._wants_json

    def _ask(self, request: Request) -> Conversation[Reply]:
        """The vendor's client sends a form ([O]), and not every server takes JSON; some take nothing else."""
        return (yield from super()._ask(replace(request, form=request.form and not self._wants_json)))

    def _read_page(
        self, group: str, word: str, page: int, slots: Mapping[str, Any]
    ) -> Conversation[tuple[list[MediaTask], bool, str | None]]:
        """A gateway may have no list ([I]): then nobody can tell what became of a lost submission."""
        try:
            return (yield from super()._read_page(group, word, page, slots))
        except (MediaNotFoundError, MediaRequestError) as error:
            raise SubmissionOutcomeUnknown(
                f"{self.named} shows no list of videos: {error.message}", provider=self.conn_type
            ) from error

    def _comes_from(
        self,
        task: MediaTask,
        name: str,
        arguments: Mapping[str, Any] | None,
        client_ref: str | None,  # noqa: ARG002  # there is no place for one
        traces: Mapping[str, str],  # noqa: ARG002  # what a film was begun with is a doubt anyway
    ) -> bool | None:
        """By the prompt; unknown where a gateway shows something else of the rest, or not all of it."""
        prompt, remixed = (task.raw.get(word) for word in ("prompt", "remixed_from_video_id"))
        if arguments is None or prompt is None:
            return None
        asked, source = self._body(name, self.operations[name], arguments), arguments.get("video_id")
        if prompt != asked["prompt"] or (remixed and remixed != source):
            return False
        said = {word: as_text(task.raw.get(word)) for word in _ECHOED if word in asked}
        is_equal = all(value in (None, asked[word]) for word, value in said.items())
        return True if is_equal and remixed == source and "input_reference" not in asked else None

    def _outputs(self, document: Mapping[str, Any]) -> Any:
        made = super()._outputs(document)
        return made and {**made, "id": document.get("id"), "duration": document.get("seconds")}

    def _kind_of(self, found: Found, made: str) -> str:  # noqa: ARG002  # there is nothing else
        return "video"

    def _files(self, media_task_id: str, document: Mapping[str, Any], operation: str) -> Iterable[MediaFile]:
        expires_at = self._time("expires_at", document)
        for file in super()._files(media_task_id, document, operation):
            yield replace(file, expires_at=expires_at)
