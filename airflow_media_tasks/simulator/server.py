"""The HTTP server: mounts the providers, applies faults and words, serves media and the control endpoints."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any

from aiohttp import web

from airflow_media_tasks.simulator.arrivals import Unreachable, arrivals
from airflow_media_tasks.simulator.media import CONTENT_TYPES, render
from airflow_media_tasks.simulator.provider import Call, Provider, Reply, Route
from airflow_media_tasks.simulator.words import words_in
from airflow_media_tasks.simulator.world import Output, Refusal, Task, World


_HTML = "<html><head><title>Bad gateway</title></head><body><h1>Something went wrong</h1></body></html>"
_HUGE_BYTES = 50_000_000
_GARBLED = ("html", "truncated", "huge", "null")
_LARGEST_BODY = 128_000_000  # bytes; an upload of 100 MB fits


class _Cut(Exception):
    """The connection is to be cut before anything is answered."""


class Server:
    """The application and its world; everything here runs in one event loop.

    :param world: what the simulator knows.
    :param folder: where rendered media are kept.
    :param providers: what it serves.
    """

    def __init__(self, world: World, folder: Path, providers: Iterable[Provider]) -> None:
        self.world = world
        self._folder = folder
        self._rendering: dict[str, asyncio.Task[None]] = {}
        self.app = web.Application(client_max_size=_LARGEST_BODY)
        self.app.router.add_get("/media/{name}", self._media)
        for method, path, control in (
            ("GET", "/_sim/ledger", self._get_ledger),
            ("DELETE", "/_sim/ledger", self._reset),
            ("GET", "/_sim/received", self._get_received),
            ("GET", "/_sim/requests", self._get_requests),
            ("GET", "/_sim/tasks", self._get_tasks),
            ("GET", "/_sim/faults", self._get_faults),
            ("POST", "/_sim/faults", self._add_fault),
            ("DELETE", "/_sim/faults", self._clear_faults),
            ("POST", "/_sim/clock", self._advance),
        ):
            self.app.router.add_route(method, path, control)
        for provider in providers:
            for route in provider.routes():
                path = f"/{provider.name}{route.path}"
                self.app.router.add_route(route.method, path, self._endpoint(provider, route))

    def _endpoint(
        self, provider: Provider, route: Route
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        template = f"{route.method} /{provider.name}{route.path}"

        async def endpoint(request: web.Request) -> web.StreamResponse:
            label = f"{request.method} {request.path}" if route.method == "*" else template
            self.world.requests[label] += 1
            call = Call(self.world, request, route.on)
            try:
                return await self._answer(provider, route, call)
            except _Cut:
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()

        return endpoint

    async def _answer(self, provider: Provider, route: Route, call: Call) -> web.StreamResponse:
        world, name = self.world, provider.name
        try:
            page = await self._fault_before(provider, call)
            if page is not None:
                return self._page(call, provider, page)
            if route.needs_key:
                call.account = world.account(name, provider.authenticate(call))
            if call.request.can_read_body and route.takes_json:
                await self._read(call)
            reply = await route.handler(call)
        except Refusal as refusal:
            reply = provider.refused(refusal, call)
            return self._json(call, provider, reply)
        task = call.task
        world.received += self._arrived(call)
        if task is not None or call.on == "read":
            hang = world.strike("hang", name, call.on)
            if hang:
                await asyncio.sleep(hang.fields["delay"])
            lost_by_word = call.on == "submit" and task and world.use(task.words, "lose-reply") is not None
            if lost_by_word or world.strike("lose_reply", name, call.on):
                raise _Cut
            status = world.use(task.words, "error-after-accept") if call.on == "submit" and task else None
            fault = None if status else world.strike("error_after_accept", name, call.on)
            if status or fault:
                after = Refusal(
                    "server", status=int(status) if status else fault.fields["status"] if fault else 500
                )
                return self._json(call, provider, provider.refused(after, call))
        if reply.file:
            return await self._file(reply.file)
        return self._json(call, provider, reply, self._garble(call, name))

    async def _read(self, call: Call) -> None:
        """Takes what comes with the request: its body and, of a submission, the files in it."""
        await _read_body(call)
        if call.on != "submit":
            return
        try:
            call.arrived = await arrivals(call.body, self.world.own_hosts, self.world.uploads)
        except Unreachable as address:
            raise Refusal("bad_request", f"the file at {address} could not be downloaded") from None

    @staticmethod
    def _arrived(call: Call) -> list[dict[str, Any]]:
        """The files of a submission that was accepted, as `GET /_sim/received` shows them."""
        if call.on != "submit" or call.task is None:
            return []
        known = {"provider": call.task.provider, "task": call.task.id}
        return [{**known, **arrival.to_dict()} for arrival in call.arrived]

    async def _fault_before(self, provider: Provider, call: Call) -> int | None:
        """Do what comes before a request is looked at; returns the status of an HTML page, if that is it."""
        world, name, on = self.world, provider.name, call.on
        if not world.faults:
            return None
        latency = world.strike("latency", name, on)
        if latency:
            await asyncio.sleep(latency.fields["delay"])
        if world.strike("lose_request", name, on):
            raise _Cut
        outage = world.strike("outage", name, on)
        if outage:
            status: int = outage.fields["status"]
            if outage.fields["html"]:
                return status
            raise Refusal("server", status=status)
        limited = world.strike("rate_limit", name, on)
        if limited:
            raise Refusal("rate", retry_after=limited.fields["retry_after"])
        if world.strike("not_found", name, on):
            raise Refusal("not_found")
        return None

    def _garble(self, call: Call, name: str) -> str | None:
        """Which of the four unusable forms this answer takes, if any."""
        words = call.task.words if call.task and call.on == "read" else ()
        return next(
            (kind for kind in _GARBLED if kind in words or self.world.strike(kind, name, call.on)), None
        )

    def _json(self, call: Call, provider: Provider, reply: Reply, garbled: str | None = None) -> web.Response:
        if garbled == "html":
            return self._page(call, provider, 200)
        if garbled == "huge":
            content = b'{"padding": "' + b"x" * _HUGE_BYTES + b'"}'
        else:
            content = json.dumps(None if garbled == "null" else reply.body).encode()
        if garbled == "truncated":
            content = content[: max(1, len(content) // 2)]
        response = web.Response(body=content, status=reply.status, content_type="application/json")
        response.headers.update(reply.headers)
        return self._with_headers(call, provider, response)

    def _page(self, call: Call, provider: Provider, status: int) -> web.Response:
        return self._with_headers(
            call, provider, web.Response(text=_HTML, status=status, content_type="text/html")
        )

    def _with_headers(self, call: Call, provider: Provider, response: web.Response) -> web.Response:
        response.headers.update(provider.headers(call))
        skew = self.world.skew(provider.name)
        if skew:
            response.headers["Date"] = formatdate(time.time() + skew, usegmt=True)
        return response

    # Media.

    async def _media(self, request: web.Request) -> web.StreamResponse:
        self.world.requests["GET /media/{name}"] += 1
        return await self._file(request.match_info["name"])

    async def _file(self, name: str) -> web.StreamResponse:
        found = self.world.output_of(name)
        if found is None:
            return web.Response(status=404, text="There is no such file.\n")
        task, output = found
        if self.world.has_expired(task):
            return web.Response(status=403, text="This address has expired.\n")
        await self._make(name, task, output)
        return web.FileResponse(
            self._folder / name,
            headers={"Content-Type": CONTENT_TYPES[output.suffix], "Accept-Ranges": "bytes"},
        )

    async def _make(self, name: str, task: Task, output: Output) -> None:
        """Render the file unless it is there; two requests at once share one rendering."""
        if (self._folder / name).exists() and name not in self._rendering:
            return
        making = self._rendering.get(name)
        if making is None:
            rendering = asyncio.to_thread(render, self.world.scene(task, output), self._folder / name)
            making = self._rendering[name] = asyncio.create_task(rendering)
            making.add_done_callback(lambda _: self._rendering.pop(name, None))
        await asyncio.shield(making)

    # Control.

    async def _get_ledger(self, request: web.Request) -> web.Response:
        provider = request.query.get("provider")
        if provider not in (None, *self.world.providers):
            return _sentence(f"provider must be one of {', '.join(self.world.providers)}")
        return web.json_response(ledger_of(self.world, provider))

    async def _get_received(self, _: web.Request) -> web.Response:
        return web.json_response(self.world.received)

    async def _get_requests(self, _: web.Request) -> web.Response:
        return web.json_response(dict(self.world.requests))

    async def _get_tasks(self, _: web.Request) -> web.Response:
        now = self.world.now()
        return web.json_response([task.to_dict(now) for task in self.world.tasks.values()])

    async def _reset(self, _: web.Request) -> web.Response:
        self.world.reset()
        return web.json_response([])

    async def _get_faults(self, _: web.Request) -> web.Response:
        now = self.world.now()
        live = [fault for fault in self.world.faults if fault.until is None or now < fault.until]
        return web.json_response([fault.to_dict(now) for fault in live])

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            fault = self.world.add_fault(await request.json())
        except ValueError as error:  # json.JSONDecodeError is one
            return _sentence(str(error))
        return web.json_response(fault.to_dict(self.world.now()), status=201)

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self.world.faults.clear()
        return web.json_response([])

    async def _advance(self, request: web.Request) -> web.Response:
        try:
            value = await request.json()
        except ValueError as error:
            return _sentence(str(error))
        seconds = value.get("advance") if isinstance(value, dict) else None
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds < 0:
            return _sentence('send {"advance": seconds}, a number that is not negative')
        self.world.advanced += seconds
        return web.json_response({"now": self.world.now(), "advanced": self.world.advanced})


def ledger_of(world: World, provider: str | None) -> list[dict[str, Any]]:
    """The accepted submissions, of one provider or of all, oldest first."""
    return [entry for entry in world.ledger if provider in (None, entry["provider"])]


def _sentence(text: str) -> web.Response:
    return web.json_response({"error": text}, status=400)


async def _read_body(call: Call) -> None:
    try:
        if call.request.content_type == "multipart/form-data":
            body = _nested(await call.request.post())
        elif raw := await call.request.read():
            body = json.loads(raw)
        else:
            return
    except ValueError:
        raise Refusal("bad_request", "the body is not valid JSON") from None
    if not isinstance(body, dict):
        raise Refusal("bad_request", "the body must be a JSON object")
    call.body = body
    try:
        call.words = words_in(body)
    except ValueError as error:
        raise Refusal("bad_request", str(error)) from None


def _nested(form: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a *form*: `a[b]` is in an object, `a[]` in a list, and of a file its name is known."""
    body: dict[str, Any] = {}
    for name, value in form.items():
        word, _, inner = name.removesuffix("]").partition("[")
        plain = value if isinstance(value, str) else {"filename": value.filename}
        if word == name:
            body[word] = plain
        elif inner:
            body.setdefault(word, {})[inner] = plain
        else:
            body.setdefault(word, []).append(plain)
    return body
