"""Veo, by the Gemini API and by Vertex, as `providers/google_veo.md` describes it."""

from __future__ import annotations

import asyncio
import base64
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from airflow_media_tasks.simulator.media import Scene, render
from airflow_media_tasks.simulator.provider import Call, Provider, Reply, Route, video
from airflow_media_tasks.simulator.world import BAD_KEY, Refusal, Task, bad_request


_MODEL = "/{model:[^/:]+}"
_GEMINI = "/{version:v1|v1beta}/models"
_VERTEX = "/{version:v1|v1beta1}/projects/{project}/locations/{location}/publishers/google/models"
_RPC = "type.googleapis.com/google.rpc"
_RESULT = "type.googleapis.com/cloud.ai.large_models.vision.GenerateVideoResponse"

# Why something is refused -> HTTP status, status, words, and the reason in its details ([O], Errors).
_REFUSALS = {
    "auth": (401, "UNAUTHENTICATED", "Request had invalid authentication credentials.", ""),
    "key": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", "API_KEY_INVALID"),
    "funds": (
        403,
        "PERMISSION_DENIED",
        "This API method requires billing to be enabled.",
        "BILLING_DISABLED",
    ),
    "rate": (429, "RESOURCE_EXHAUSTED", "Quota exceeded for requests per minute per base model.", ""),
    "concurrency": (429, "RESOURCE_EXHAUSTED", "Too many operations of this base model are under way.", ""),
    "moderation": (400, "INVALID_ARGUMENT", "The prompt violates Google's usage guidelines.", ""),
    "bad_request": (400, "INVALID_ARGUMENT", "Request contains an invalid argument.", ""),
    "not_found": (404, "NOT_FOUND", "Requested entity was not found.", ""),
    "no_route": (404, "NOT_FOUND", "The requested URL was not found on this server.", ""),
    "server": (500, "INTERNAL", "An internal error has occurred.", ""),
}
_FAILURES = {
    "provider": {"code": 13, "message": "An internal error has occurred. Please retry in a few minutes."},
    "timeout": {"code": 14, "message": "The service is currently unavailable."},
}
_FILTERED = "Veo could not generate {} videos based on the prompt provided. You will not be charged for it."


class GoogleMedia(Provider):
    """`:predictLongRunning` and what belongs to it, of both; files behind the key, and a bucket."""

    name = "google_media"

    def __init__(self) -> None:
        self._inline: dict[str, str] = {}

    def routes(self) -> list[Route]:
        """See `Provider.routes`."""
        return [
            Route("POST", f"{_GEMINI}{_MODEL}:predictLongRunning", "submit", self._create),
            Route("GET", f"{_GEMINI}{_MODEL}/operations/{{id}}", "read", self._get),
            Route("POST", f"{_VERTEX}{_MODEL}:predictLongRunning", "submit", self._create),
            Route("POST", f"{_VERTEX}{_MODEL}:fetchPredictOperation", "read", self._fetch),
            Route("GET", "/{version:v1|v1beta}/files/{file:[a-z0-9]+}:download", "read", self._download),
            Route("GET", "/storage/{place:.+}", "read", self._stored),
            Route("GET", _GEMINI, "read", self._models),
            Route("GET", "/{version:v1|v1beta1}/publishers/google/models", "read", self._models),
            Route("*", "/{tail:.*}", "read", self.no_route, needs_key=False),
        ]

    def authenticate(self, call: Call) -> str:
        """By the key of the Gemini API, or the token of Vertex and of the storage."""
        if _is_vertex(call):
            return super().authenticate(call)
        key = call.request.headers.get("x-goog-api-key", "").strip()
        if not key:
            raise Refusal("auth", "The caller does not have permission.", status=403)
        if key == BAD_KEY:
            raise Refusal("auth")
        return key

    def refused(self, refusal: Refusal, call: Call) -> Reply:
        """`{"error": {code, message, status, details}}`."""
        is_key = refusal.reason == "auth" and not _is_vertex(call)
        http, status, words, reason = _REFUSALS["key" if is_key else refusal.reason]
        if refusal.status == 403:
            status, reason = "PERMISSION_DENIED", ""
        details: list[dict[str, Any]] = []
        if reason:
            details.append({"@type": f"{_RPC}.ErrorInfo", "reason": reason, "domain": "googleapis.com"})
        if refusal.retry_after is not None:
            delay = f"{refusal.retry_after:g}s"
            details.append({"@type": f"{_RPC}.RetryInfo", "retryDelay": delay})
        http = refusal.status or http
        error = {"code": http, "message": refusal.message or words, "status": status, "details": details}
        return Reply({"error": error}, http)

    async def _create(self, call: Call) -> Reply:
        instances, given = call.body.get("instances"), call.body.get("parameters") or {}
        if not (isinstance(instances, list) and len(instances) == 1 and isinstance(instances[0], dict)):
            bad_request("instances must be a list of one object")
        (instance,) = instances
        operation = _operation(instance)
        count, ratio = given.get("sampleCount", 1), str(given.get("aspectRatio"))
        if type(count) is not int or not 1 <= count <= 4:
            bad_request("sampleCount must be from 1 to 4")
        task = call.task = call.world.accept(
            call.account,
            operation,
            call.body,
            call.words,
            tuple(video(given.get("durationSeconds")) for _ in range(count)),
            amount=f"{3.2 * count:.2f}",
            currency="USD",
            path=call.request.path.rpartition(":")[0].partition("/models/")[2],
            host=call.request.host,
            aspect_ratio=ratio if re.fullmatch(r"[1-9]\d?:[1-9]\d?", ratio) else None,
        )
        return Reply({} if "no-id" in task.words else {"name": _name(call, task)})

    async def _get(self, call: Call) -> Reply:
        return Reply(await self._operation(call, call.request.match_info["id"]))

    async def _fetch(self, call: Call) -> Reply:
        here = call.request.path.partition("/projects/")[2].rpartition(":")[0]
        where, _, own_id = str(call.body.get("operationName")).rpartition("/operations/")
        if where != f"projects/{here}":
            bad_request("operationName must be of this model")
        return Reply(await self._operation(call, own_id))

    async def _operation(self, call: Call, own_id: str) -> dict[str, Any]:
        task, now = call.world.task(call.account, own_id), call.world.now()
        if task is None or task.path != call.request.match_info["model"]:
            raise Refusal("not_found")
        call.task = task
        operation: dict[str, Any] = {"name": _name(call, task)}
        if now < task.ended:
            return operation
        fails = task.words.text("fail") if task.state(now) == "failed" else None
        if fails in _FAILURES:
            return {**operation, "done": True, "error": _FAILURES[fails]}
        withheld = len(task.outputs) if fails else int(task.words.text("response") == "partial")
        made = 0 if "no-output" in task.words else len(task.outputs) - withheld
        films = [await self._film(call, task, index) for index in range(made)]
        result: dict[str, Any] = {"@type": _RESULT}
        if withheld:
            result["raiMediaFilteredCount"] = withheld
            result["raiMediaFilteredReasons"] = [_FILTERED.format(withheld)]
        if _is_vertex(call):
            return {**operation, "done": True, "response": {**result, **({"videos": films} if films else {})}}
        samples = {"generatedSamples": [{"video": film} for film in films]} if films else {}
        return {**operation, "done": True, "response": {"generateVideoResponse": {**result, **samples}}}

    async def _film(self, call: Call, task: Task, index: int) -> Mapping[str, str]:
        """In the bucket that was named, inline, or as a file of the Gemini API."""
        bucket = (task.request.get("parameters") or {}).get("storageUri")
        if _is_vertex(call):
            if bucket:
                place = f"{str(bucket).removesuffix('/')}/{task.id}/sample_{index}.mp4"
                return {"gcsUri": place, "mimeType": "video/mp4"}
            return {"bytesBase64Encoded": await self._base64(call, task, index), "mimeType": "video/mp4"}
        if "inline" in task.words:
            return {"encodedVideo": await self._base64(call, task, index), "encoding": "video/mp4"}
        path = f"/{self.name}/v1beta/files/{UUID(task.id).hex}{index}:download"
        call.world.files[path] = task.name(index)
        return {"uri": f"http://{call.request.host}{path}?alt=media"}

    async def _base64(self, call: Call, task: Task, index: int) -> str:
        name = task.name(index)
        if name not in self._inline:
            scene = call.world.scene(task, task.outputs[index])
            self._inline[name] = await asyncio.to_thread(_rendered, scene, name)
        return self._inline[name]

    async def _download(self, call: Call) -> Reply:
        name = call.request.match_info["file"]
        return self._file(call, name[:32], name[32:])

    async def _stored(self, call: Call) -> Reply:
        found = re.fullmatch(r".+/([0-9a-f-]{36})/sample_(\d)\.mp4", call.request.match_info["place"])
        return self._file(call, *(found.groups() if found else ("", "")))

    def _file(self, call: Call, own_id: str, index: str) -> Reply:
        try:
            task = call.world.task(call.account, str(UUID(own_id)))
        except ValueError:
            task = None
        if task is None or not index.isdigit() or int(index) >= len(task.outputs):
            raise Refusal("not_found")
        return Reply(None, file=task.name(int(index)))

    async def _models(self, call: Call) -> Reply:
        listed = [{"name": "models/veo-3.1-generate-preview"}]
        return Reply({"publisherModels" if _is_vertex(call) else "models": listed})


def _rendered(scene: Scene, name: str) -> str:
    """A file, in base64."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        render(scene, path)
        return base64.b64encode(path.read_bytes()).decode()


def _is_vertex(call: Call) -> bool:
    """Whether it is Vertex that is asked, or Google's storage."""
    return bool(re.search("/projects/|/publishers/|/storage/", call.request.path))


def _name(call: Call, task: Task) -> str:
    """The operation's name, below what was asked for."""
    place = call.request.path.partition(f"/{call.request.match_info['version']}/")[2].partition("models/")[0]
    return f"{place}models/{task.path}/operations/{task.id}"


def _operation(instance: Mapping[str, Any]) -> str:
    """What is asked for; raises Refusal naming what is wrong with a file ([O], Required arguments)."""
    for place, words in (
        ("image", {"bytesBase64Encoded", "gcsUri"}),
        ("lastFrame", {"bytesBase64Encoded", "gcsUri"}),
        ("video", {"bytesBase64Encoded", "gcsUri", "uri", "encodedVideo"}),
    ):
        file = instance.get(place)
        if file is not None and not (isinstance(file, dict) and words & set(file)):
            bad_request(f"{place} must have one of {', '.join(sorted(words))}")
    if "lastFrame" in instance and "image" not in instance:
        bad_request("lastFrame needs image")
    made = {"video": "extend_video", "image": "image_to_video", "prompt": "text_to_video"}
    found = next((operation for word, operation in made.items() if instance.get(word)), None)
    return found or bad_request("one of prompt, image and video must be there")
