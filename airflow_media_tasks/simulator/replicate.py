"""Replicate's HTTP API as `providers/replicate.md` describes it, without trainings and streams."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import urlencode

from aiohttp import web

from airflow_media_tasks.simulator.media import Kind
from airflow_media_tasks.simulator.provider import Call, Provider, Reply, Route
from airflow_media_tasks.simulator.world import Output, Refusal, Task, bad_request


_PAGE = 100  # predictions ([I] replicate.md)
_KEPT = 3600  # seconds after its end for which a prediction's input, output and files are kept ([O])
_WAIT = 60  # seconds for which `Prefer: wait` holds the connection unless it says fewer ([O])
_VERSION = re.compile(r"(?:([\w.-]+/[\w.-]+)(?::[0-9a-f]{64})?|[0-9a-f]{64})")
_SUFFIXES = {"image": "png", "video": "mp4", "audio": "mp3"}

_REFUSALS = {
    "auth": (401, "Unauthenticated", "You did not pass a valid authentication token"),
    "funds": (402, "Insufficient credit", "You have insufficient credit to run this model."),
    "moderation": (422, "Prediction refused", "The input or output was flagged as sensitive. (E005)"),
    "server": (500, "Internal server error", "Something went wrong."),
}
_NOT_FOUND = (404, "Not found", "The requested resource could not be found.")
_FAILURES = {
    "moderation": "NSFW content detected. Try running it again, or try a different prompt.",
    "provider": "The model's container exited with code 1.",
    "timeout": "Prediction timed out.",
}
_WORDS = {"queued": "starting", "running": "processing", "cancelled": "canceled"}


class _Model(NamedTuple):
    """What a model makes, which its name tells; so one that nobody has heard of makes something, too.

    :param operation: neutral name; `{}` is `image` where the input has one, else `text`.
    :param amount: price of one file in USD, which only the ledger shows.
    :param needs: the argument that its input must have, if any.
    """

    name: str
    operation: str
    kind: Kind
    amount: str
    needs: str


_MODELS = (
    _Model("upscal|esrgan", "upscale_image", "image", "0.05", "image"),
    _Model("music|lyria|stable-audio", "text_to_music", "audio", "0.03", "prompt"),
    _Model("speech|tts|kokoro", "text_to_speech", "audio", "0.02", "text"),
    _Model("veo|video|kling|hailuo|seedance|/ray|sora", "{}_to_video", "video", "0.50", "prompt"),
    _Model("flux|imagen|banana|seedream|sdxl|diffusion|-image", "{}_to_image", "image", "0.04", "prompt"),
    _Model("", "run", "image", "0.01", ""),
)
# These answer a list even for one picture ([I]); the others a text.
_LISTS = re.compile("flux-schnell|flux-dev|sdxl|diffusion|seedream")


class Replicate(Provider):
    """`POST /v1/predictions`, `POST /v1/models/.../predictions` and what belongs to them."""

    name = "replicate"

    def routes(self) -> list[Route]:
        """See `Provider.routes`."""
        return [
            Route("POST", "/v1/predictions", "submit", self._create),
            Route("POST", "/v1/models/{owner}/{name}/predictions", "submit", self._create),
            Route("POST", "/v1/deployments/{owner}/{name}/predictions", "submit", self._create),
            Route("GET", "/v1/predictions", "read", self._list),
            Route("GET", "/v1/predictions/{id}", "read", self._get),
            Route("POST", "/v1/predictions/{id}/cancel", "read", self._cancel),
            Route("POST", "/v1/files", "read", self._upload, takes_json=False),
            Route("GET", "/v1/models/{owner}/{name}/versions/{version}", "read", self._version),
            Route("GET", "/v1/account", "read", self._account),
            Route("*", "/{tail:.*}", "read", self.no_route, needs_key=False),
        ]

    def refused(self, refusal: Refusal, call: Call) -> Reply:  # noqa: ARG002  # they are all alike
        """A problem document as of RFC 7807; too many requests get a sentence and nothing else."""
        if refusal.reason in ("rate", "concurrency"):
            wait = refusal.retry_after
            seconds = f"{1 if wait is None else wait:g}"
            body = {"detail": f"Request was throttled. Your rate limit resets in ~{seconds}s."}
            return Reply(body, 429, {} if wait is None else {"Retry-After": seconds})
        if refusal.reason == "bad_request":
            message = refusal.message or "Invalid input"
            field, _, said = (message if ": " in message else f"input: {message}").partition(": ")
            kind = "required" if said.endswith("is required") else "invalid"
            wrong = {"type": kind, "field": field, "description": said}
            problem = {"title": "Input validation failed", "detail": f"- {field}: {said}\n", "status": 422}
            return Reply({**problem, "invalid_fields": [wrong]}, 422)
        status, title, detail = _REFUSALS.get(refusal.reason, _NOT_FOUND)
        status = refusal.status or status
        return Reply({"title": title, "detail": detail, "status": status}, status)

    # Submissions.

    async def _create(self, call: Call) -> Reply:
        name = _named(call)
        model, given, webhook = _model(name), call.body.get("input"), call.body.get("webhook")
        if not isinstance(given, dict):
            bad_request(f"input: {'input is required' if given is None else 'Expected: object'}")
        count = _check_input(model, given)
        if webhook is not None and not str(webhook).startswith("https://"):
            bad_request("webhook: Does not match format 'https-uri'")
        ratio = str(given.get("aspect_ratio"))
        task = call.task = call.world.accept(
            call.account,
            model.operation.format("image" if _shows_image(given) else "text"),
            call.body,
            call.words,
            tuple(Output(model.kind, _SUFFIXES[model.kind]) for _ in range(count)),
            amount=f"{float(model.amount) * count:.2f}",
            currency="USD",
            path=name,
            host=call.request.host,
            client_ref=webhook,
            aspect_ratio=ratio if re.fullmatch(r"[1-9]\d?:[1-9]\d?", ratio) else None,
            expires=_KEPT,
        )
        wait = re.fullmatch(r"wait(?:=(\d+))?", call.request.headers.get("Prefer", ""))
        if wait:
            await call.until_ended(task, min(int(wait[1] or _WAIT), _WAIT))
        body = self._document(call, task)
        if "no-id" in task.words:
            body.pop("id")
        return Reply(body, 202 if wait and call.world.now() < task.ended else 201)

    # Reads.

    async def _get(self, call: Call) -> Reply:
        call.task = call.world.task(call.account, call.request.match_info["id"])
        if call.task is None:
            raise Refusal("not_found")
        return Reply(self._document(call, call.task))

    async def _cancel(self, call: Call) -> Reply:
        """Cancelling what has ended changes nothing ([I] replicate.md)."""
        task = call.world.task(call.account, call.request.match_info["id"])
        if task is not None:
            call.account.cancel(task, call.world.now())
        return await self._get(call)

    async def _list(self, call: Call) -> Reply:
        """Newest first. The cursor is the place of the last one seen; `next` keeps the filters."""
        query, tasks, now = dict(call.request.query), call.account.tasks, call.world.now()
        after = _moment(query.get("created_after", "1970-01-01T00:00Z"))
        before = _moment(query.get("created_before", "9999-01-01T00:00Z"))
        cursor = query.get("cursor", str(len(tasks)))
        if not cursor.isdecimal():
            bad_request("cursor: Invalid cursor")
        found = [
            place
            for place in range(min(int(cursor), len(tasks)) - 1, -1, -1)
            if tasks[place].visible_from <= now and after <= call.stamp(tasks[place].created) <= before
        ]
        following = None
        if len(found) > _PAGE:
            more = urlencode({**query, "cursor": found[_PAGE - 1]})
            following = f"http://{call.request.host}{call.request.path}?{more}"
        results = [self._document(call, tasks[place]) for place in found[:_PAGE]]
        return Reply({"previous": None, "next": following, "results": results})

    async def _version(self, call: Call) -> Reply:
        """As much of it as the vendor's client reads."""
        needs = _model(_named(call)).needs.split()
        given = {"type": "object", "required": needs, "properties": {word: {} for word in needs}}
        schema = {"components": {"schemas": {"Input": given, "Output": {}}}}
        known = {"id": call.request.match_info["version"], "created_at": _iso(0), "cog_version": "0.16.0"}
        return Reply({**known, "openapi_schema": schema})

    async def _upload(self, call: Call) -> Reply:
        form = await call.request.post()
        part = form.get("content")
        if not isinstance(part, web.FileField):
            bad_request("content: content is required")
        content, own_id = part.file.read(), str(uuid.uuid4())
        path = f"/{self.name}/v1/files/{own_id}"
        call.world.uploads[path] = content
        sha256, now = hashlib.sha256(content).hexdigest(), call.world.now()
        document = {
            "id": own_id,
            "name": part.filename,
            "content_type": part.content_type,
            "size": len(content),
            "etag": sha256[:32],
            "checksums": {"sha256": sha256},
            "metadata": json.loads(str(form.get("metadata", "{}"))),
            "created_at": _iso(call.stamp(now)),
            "expires_at": _iso(call.stamp(now + 24 * 3600)),
            "urls": {"get": f"http://{call.request.host}{path}"},
        }
        return Reply(document, 201)

    async def _account(self, _: Call) -> Reply:
        return Reply({"type": "user", "username": "simulated", "name": "Simulated", "github_url": None})

    def _document(self, call: Call, task: Task) -> dict[str, Any]:
        now, state = call.world.now(), task.state(call.world.now())
        removed, ended = call.world.has_expired(task), now >= task.ended
        word = {"running": "status", "succeeded": "final", "failed": "final"}.get(state, "")
        url = f"http://{call.request.host}/{self.name}/v1/predictions/{task.id}"
        version = str(task.request.get("version", "/")).rpartition(":")[2]
        spent = {"predict_time": task.ended - task.started, "total_time": task.ended - task.created}
        return {
            "id": task.id,
            "model": task.path,
            "version": "hidden" if "/" in version else version,
            "status": task.words.text(word) or _WORDS.get(state, state),
            "input": {} if removed else task.request["input"],
            "output": None if removed else _output(call, task, state),
            "error": _FAILURES[task.words.text("fail") or "provider"] if state == "failed" else None,
            "logs": "",
            "metrics": spent if state == "succeeded" else {},
            "created_at": _iso(call.stamp(task.created)),
            "started_at": None if now < task.started else _iso(call.stamp(task.started)),
            "completed_at": _iso(call.stamp(task.ended)) if ended else None,
            "data_removed": removed,
            "source": "api",
            "urls": {"get": url, "cancel": f"{url}/cancel", "web": f"https://replicate.com/p/{task.id}"},
        }


# What a model asks for and answers.


def _named(call: Call) -> str:
    """`owner/name` of what is to run, from the path or from `version`; 64 digits alone do not tell it."""
    path, version = call.request.match_info, call.body.get("version")
    if "owner" in path:
        return f"{path['owner']}/{path['name']}"
    found = _VERSION.fullmatch(str(version))
    if found is None:
        bad_request(f"version: {'version is required' if version is None else 'Invalid version'}")
    return found[1] or "some/model"


def _model(name: str) -> _Model:
    return next(model for model in _MODELS if re.search(model.name, name))


def _check_input(model: _Model, given: dict[str, Any]) -> int:
    """How many files it asks for; raises Refusal naming what is wrong."""
    if model.needs and given.get(model.needs) is None:
        bad_request(f"input: {model.needs} is required")
    if not isinstance(given.get("prompt", ""), str):
        bad_request("input.prompt: Invalid type. Expected: string")
    count = given.get("num_outputs", 1)
    if type(count) is not int or not 1 <= count <= 4:
        bad_request("input.num_outputs: Must be an integer from 1 to 4")
    return count


def _shows_image(given: dict[str, Any]) -> bool:
    """Whether there is a picture in it, by whichever name this model has for one."""
    texts = str([value for word, value in given.items() if "image" in word or "frame" in word])
    return bool(re.search("https?://|data:", texts))


def _output(call: Call, task: Task, state: str) -> Any:
    urls = [call.url(task, index) for index in range(len(task.outputs))]
    if state == "running" and task.words.text("response") == "partial":
        return urls[:1]
    if state != "succeeded" or "no-output" in task.words:
        return None
    shape = task.words.text("shape")
    if shape == "object":
        return {task.outputs[0].kind: urls[0]}
    return urls if shape == "list" or len(urls) > 1 or _LISTS.search(task.path) else urls[0]


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        bad_request(f"created_after: '{text}' does not match format 'date-time'")


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z"
