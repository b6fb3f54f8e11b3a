"""`GoogleMediaHook`: Veo, by the Gemini API and by Vertex. Wire facts: providers/google_veo.md."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.hooks.google import REFUSALS, Vertex, file_in, stored_at
from airflow_media_tasks.task import TaskStatus
from airflow_media_tasks.wire.connections import is_below
from airflow_media_tasks.wire.conversations import Conversation, Reply, Request
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.wire.roads import Road
from airflow_media_tasks.wire.tables import Call, Document


# Where a file stands in what is asked, and what it is unless it says so itself.
_FILES = {
    "image_url": ("image", "image/png"),
    "end_image_url": ("lastFrame", "image/png"),
    "video_url": ("video", "video/mp4"),
}
# A result's address may be asked at any address of the API: the SDK, too, takes the name out of it ([O]).
_FILE = re.compile(r"/files/([a-z0-9-]{1,60}):download(?:$|\?)")
# Of an operation that is done: films of the Gemini API or of Vertex, and what was withheld ([O], Mapping).
_RESULT = "(response.generateVideoResponse || response)"
_FILTERED = f"({_RESULT}.raiMediaFilteredCount > `0` && 'filtered')"


class GoogleMediaHook(MediaHook):
    """Veo, by the Gemini API with a key, or by Vertex with an access token.

    A task's `media_task_id` is the operation's name without the word `operations`:
    `models/<model>/<id>`, at Vertex below `projects/<project>/locations/<location>/publishers/google`.
    """

    # It fetches nothing from the web ([O], Mapping).
    roads = (Road(Road.INLINE),)
    default_conn_name = "google_media_default"
    conn_type = "google_media"
    hook_name = "Google (Veo)"
    base_url = "https://generativelanguage.googleapis.com"
    other_urls: ClassVar[Mapping[str, str]] = {"storage": "https://storage.googleapis.com"}
    key_in = ("x-goog-api-key", "{key}")
    keyed_hosts = ("",)
    console_url = "https://console.cloud.google.com/"
    id_groups = re.compile(
        r"(?:projects/(?!\.+/)[\w:.-]+/locations/[\w-]+/publishers/google/)?models/(?!\.+$)[\w.-]+", re.ASCII
    )
    id_form = "'models/<model>/<operation id>', of Vertex 'projects/.../models/<model>/<operation id>'"
    has_balance = False
    # The shortest that it makes; it is paid by the second ([I] google_veo.md).
    cheapest = ("text_to_video", {"prompt": "A grey pebble", "duration": 4})

    operations: ClassVar[Mapping[str, Operation]] = {
        name: Operation(
            "video",
            "/v1beta/models/{model}:predictLongRunning",
            (word,),
            rename={
                "prompt": "instance.prompt",
                "image_url": "instance.image",
                "end_image_url": "instance.lastFrame",
                "video_url": "instance.video",
                "referenceImages": "instance.referenceImages",
                "mask": "instance.mask",
                "negative_prompt": "parameters.negativePrompt",
                "aspect_ratio": "parameters.aspectRatio",
                "duration": "parameters.durationSeconds",
                "count": "parameters.sampleCount",
            },
            rest="parameters",
            top=("labels", "webhookConfig"),
            defaults={"model": "veo-3.1-generate-preview"},
            inline=("image_url", "end_image_url", "video_url"),
        )
        for name, word in {
            "text_to_video": "prompt",
            "image_to_video": "image_url",
            "extend_video": "video_url",
        }.items()
    }
    submitted_id = "name"
    submitted_parts = re.compile(
        r"((?:projects/[^/]+/locations/[^/]+/publishers/google/)?models/[^/]+)/operations/(.+)", re.DOTALL
    )
    # Unpacked, so that of files in base64 most can be left out as it comes.
    look = Call(
        "GET", "/v1beta/{group}/operations/{id}", inline="short", headers={"Accept-Encoding": "identity"}
    )
    download = Call("GET", "/v1beta/files/{file}:download", params={"alt": "media"})
    proof = Call("GET", "/v1beta/models", params={"pageSize": 1})
    document = Document(
        within="(name || done) && @",
        # There is no word: done, or not. Done with all of it withheld is no success ([O], Mapping).
        status="done && (error && 'failed'"
        f" || ({_RESULT}.generatedSamples || {_RESULT}.videos) && 'succeeded'"
        f" || {_FILTERED} || 'succeeded') || 'running'",
        statuses={"filtered": TaskStatus.FAILED},
        inline=f"{_RESULT}.[videos[].bytesBase64Encoded, generatedSamples[].video.encodedVideo][]",
        outputs=f"{_RESULT}.[videos, generatedSamples[].video][]",
        failure_code=f"error.code || {_FILTERED}",
        failure=f"error.message || {_RESULT}.raiMediaFilteredReasons",
    )
    refusal = REFUSALS

    # Who is asked.

    @cached_property
    def _vertex(self) -> Vertex | None:
        return Vertex.of(self.settings.extra, self.media_conn_id)

    def _check_extra(self) -> None:
        super()._check_extra()
        _ = self._vertex

    def _address(self, host: str) -> str:
        address = super()._address(host)
        return self._vertex.address if self._vertex and address == self.base_url else address

    def needs_key(self, url: str) -> bool:
        """As of all. At Vertex a bucket's files, too, are given to the token."""
        return super().needs_key(url) or bool(self._vertex and is_below(url, self._address("storage")))

    def _models(self) -> Mapping[str, str]:
        usual = dict.fromkeys(self.operations, "veo-3.1-generate-001") if self._vertex else {}
        return {**usual, **super()._models()}

    def _headers(self) -> dict[str, str]:
        if self._vertex is None:
            return super()._headers()
        return {"Authorization": f"Bearer {self._vertex.token() or self._key}"}

    async def _asend(self, client: Any, request: Request) -> Reply:
        if self._vertex and self._vertex.must_ask:
            await asyncio.to_thread(self._vertex.token)
        return await super()._asend(client, request)

    def _ask(self, request: Request) -> Conversation[Reply]:
        return super()._ask(self._vertex.request(request) if self._vertex else request)

    # Files, there and back.

    def _group(self, name: str, operation: Operation, arguments: Mapping[str, Any], reply: Reply) -> str:  # noqa: ARG002  # its model tells
        below = f"{self._vertex.path}/publishers/google/" if self._vertex else ""
        return f"{below}models/{arguments.get('model', operation.defaults['model'])}"

    def _body(self, name: str, operation: Operation, arguments: Mapping[str, Any]) -> dict[str, Any]:
        body = super()._body(name, operation, arguments)
        instance, own = body.pop("instance"), "" if self._vertex else self._address("")
        for word, (place, usual) in _FILES.items():
            if place in instance:
                what = f"argument {word!r} of {name!r}"
                instance[place] = file_in(instance[place], usual, what, self._address("storage"), own)
        return {"instances": [instance], **body}

    def _outputs(self, document: Mapping[str, Any]) -> Any:
        """The address of each film: of an object in a bucket, or of a file of the Gemini API."""
        films = [film for film in super()._outputs(document) or () if isinstance(film, Mapping)]
        return [{"video_url": self._url_of(str(film.get("gcsUri") or film.get("uri")))} for film in films]

    def _url_of(self, said: str) -> str:
        if said.startswith("gs://"):
            return stored_at(self._address("storage"), said)
        file = _FILE.search(said)
        return self.url_of(self.download.request(file=file[1])) if file else said
