"""`ComfyUIHook`: a ComfyUI server of one's own. Wire facts: providers/comfyui.md."""

from __future__ import annotations

import base64
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from airflow_media_tasks.hooks.base import MediaHook
from airflow_media_tasks.task import MediaNotFoundError, MediaProviderError, MediaTask, TaskStatus, shown
from airflow_media_tasks.wire.conversations import Conversation, Reply
from airflow_media_tasks.wire.documents import as_text, kind_of_url, object_of
from airflow_media_tasks.wire.operations import Operation
from airflow_media_tasks.wire.tables import Call, Document, Listing, Refusals
from airflow_media_tasks.wire.workflows import workflow_of


# A prompt's id is a UUID in its canonical form ([O]); ours are made of our references, within this one.
_OURS = uuid.UUID("5f1c5a0e-6d0f-4a53-9f6e-6f0e2b8f7a11")


class ComfyUIHook(MediaHook):
    """One's own ComfyUI: `run` with a workflow, or `text_to_image` by a small one of this package.

    A task's `media_task_id` is the prompt's id, which is made of the caller's `client_ref`: what was
    submitted with one is asked for by it, and submitting it again gives the same task.
    """

    default_conn_name = "comfyui_default"
    conn_type = "comfyui"
    hook_name = "ComfyUI"
    base_url = "http://127.0.0.1:8188"
    key_optional = True
    keyed_hosts = ("",)
    id_form = "'<prompt id>'"
    client_ref_is_queryable = True
    cheapest = ("text_to_image", {"prompt": "A grey pebble"})

    operations: ClassVar[Mapping[str, Operation]] = {
        "run": Operation(
            "",
            "/prompt",
            ("workflow",),
            refuses={"prompt": "is no word of a workflow: give values, such as {'6.text': '...'}"},
            expected_seconds=30,
        ),
        "text_to_image": Operation(
            "image",
            "/prompt",
            ("prompt",),
            rename={
                "negative_prompt": "prompt.3.inputs.text",
                "prompt": "prompt.2.inputs.text",
                "model": "prompt.1.inputs.ckpt_name",
                "count": "prompt.4.inputs.batch_size",
                **{word: f"prompt.4.inputs.{word}" for word in ("width", "height")},
                **{
                    word: f"prompt.5.inputs.{word}"
                    for word in ("seed", "steps", "cfg", "sampler_name", "scheduler")
                },
            },
            defaults={
                "prompt": {
                    "1": {
                        "class_type": "CheckpointLoaderSimple",
                        "inputs": {"ckpt_name": "v1-5-pruned-emaonly-fp16.safetensors"},
                    },
                    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
                    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
                    "4": {
                        "class_type": "EmptyLatentImage",
                        "inputs": {"width": 512, "height": 512, "batch_size": 1},
                    },
                    "5": {
                        "class_type": "KSampler",
                        "inputs": {
                            "model": ["1", 0],
                            "positive": ["2", 0],
                            "negative": ["3", 0],
                            "latent_image": ["4", 0],
                            "seed": 0,
                            "steps": 20,
                            "cfg": 7,
                            "sampler_name": "euler",
                            "scheduler": "normal",
                            "denoise": 1,
                        },
                    },
                    "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
                    "7": {
                        "class_type": "SaveImage",
                        "inputs": {"images": ["6", 0], "filename_prefix": "airflow"},
                    },
                }
            },
            refuses=dict.fromkeys(
                ("aspect_ratio", "resolution"),
                "is no word of this workflow: give 'width' and 'height', in pixels",
            ),
            expected_seconds=15,
        ),
    }
    submitted_id = reference = "prompt_id"
    look = Call("GET", "/api/jobs/{id}")
    find = Call("GET", "/api/jobs/{ref}")
    cancel = Call("POST", "/api/jobs/{id}/cancel")
    # The newest come first ([O]).
    listing = Listing(
        Call("GET", "/api/jobs", params={"limit": "{limit}", "offset": "{offset}"}),
        items="jobs",
        size=100,
        more="pagination.has_more",
    )
    proof = Call("GET", "/api/jobs", params={"limit": 1})
    document = Document(
        failure_code="execution_error.exception_type",
        failure="execution_error.exception_message",
        created_at="create_time",
    )
    # A path that an older server, or a proxy, does not have says nothing of a prompt ([O]).
    refusals: ClassVar = {**MediaHook.refusals, 404: MediaHook.refusals[400]}
    refusal = Refusals(
        code="error.type || error",
        words="[error.message || error, error.details, node_errors.*.errors[].details, message || detail]",
        codes={"Job not found": MediaNotFoundError},
    )

    def _headers(self) -> dict[str, str]:
        """A user and a password are for a proxy in front that asks for both; the server asks for nothing."""
        if not self.settings.login:
            return super()._headers()
        pair = base64.b64encode(f"{self.settings.login}:{self.settings.password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    def check(self, operation: str, arguments: Any) -> tuple[str, dict[str, Any]]:
        """As of `MediaHook`; a workflow is read, and has its values, from here on."""
        name, checked = super().check(operation, arguments)
        if name != "run":
            return name, checked
        workflow = workflow_of(name, checked["workflow"], checked.pop("values", {}))
        return super().check(name, {**checked, "workflow": workflow})

    def _body(self, name: str, operation: Operation, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """A seed is drawn where none is given: what was made before is not made again ([I])."""
        if name != "run":
            return super()._body(name, operation, {"seed": secrets.randbelow(2**32), **arguments})
        return {{"workflow": "prompt"}.get(word, word): value for word, value in arguments.items()}

    def _refer(self, body: dict[str, Any], client_ref: str) -> None:
        super()._refer(body, _prompt_id(client_ref))

    def _found_by(self, find: Call, group: str, client_ref: str) -> Conversation[list[MediaTask]]:
        return (yield from super()._found_by(find, group, _prompt_id(client_ref)))

    def _submit(
        self, name: str, operation: Operation, arguments: Mapping[str, Any], client_ref: str | None
    ) -> Conversation[MediaTask]:
        """A submission that is there already is that one ([O])."""
        try:
            return (yield from super()._submit(name, operation, arguments, client_ref))
        except MediaProviderError as error:
            if error.code != "prompt_id already exists" or client_ref is None:
                raise
            return replace((yield from self._get_task(_prompt_id(client_ref))), operation=name)

    def _submitted(self, media_task_id: str, reply: Reply, name: str, body: Mapping[str, Any]) -> MediaTask:
        """What is wrong with one output does not keep the others from being made ([O])."""
        _, wrong = self._said(reply.document)
        if wrong:
            self.log.warning("%s leaves something out: %s (%s)", self.named, shown(wrong, 500), media_task_id)
        return super()._submitted(media_task_id, reply, name, body)

    def _cancel_task(self, media_task_id: str) -> Conversation[MediaTask]:
        """What has not begun is nowhere any more once it is cancelled ([O])."""
        reply = yield from self._ask(self.cancel.request(**self._slots(media_task_id)))
        try:
            return (yield from self._get_task(media_task_id))
        except MediaNotFoundError:
            if reply.document.get("cancelled") is not True:
                raise
            return self.media_task(media_task_id, TaskStatus.CANCELLED, "cancelled", raw=reply.document)

    def _outputs(self, document: Mapping[str, Any]) -> Any:
        """The files of all nodes, but for previews; a list shows one of them."""
        nodes = object_of(document.get("outputs")) or {"": {"": [document.get("preview_output")]}}
        lists = [items for node in nodes.values() for items in object_of(node).values()]
        files = [object_of(item) for items in lists if isinstance(items, list) for item in items]
        made = [file for file in files if file.get("type") != "temp" and as_text(file.get("filename"))]
        return [self._place_of(file) for file in made]

    def _place_of(self, file: Mapping[str, Any]) -> dict[str, str]:
        """Where a file is fetched. Its name alone tells what it is: films stand among `images` ([3])."""
        said = {word: as_text(file.get(word)) or "" for word in ("filename", "subfolder", "type")}
        kind = kind_of_url(quote(said["filename"], errors="replace")) or "file"
        return {f"{kind}_url": f"{self.settings.base_url}/view?{urlencode(said, errors='replace')}"}


def _prompt_id(client_ref: str) -> str:
    return str(uuid.uuid5(_OURS, client_ref))
