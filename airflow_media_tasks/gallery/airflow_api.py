"""Airflow's own public REST API, asked in process and in the name of the user who looks at the page.

So it is Airflow that decides what somebody may see or change, and nothing here knows its tables.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

import httpx
from fastapi import HTTPException, Request


AT_ONCE = 6
"""Requests that are under way together, whoever looks at the page.

Each takes a connection to the metadata database, of which an API server has 15, and threads, of which it has
40: if those that wait for a connection have all threads, those that have one cannot give it back.
"""
BACKGROUND = 2
"""How many of them may be of what nobody waits for."""
COOKIE = "_token"


class _Traffic:
    """What is under way in one event loop, whoever looks at the page."""

    def __init__(self) -> None:
        self.all = asyncio.Semaphore(AT_ONCE)
        self.background = asyncio.Semaphore(BACKGROUND)
        self.awaited = 0
        """Answers that somebody waits for."""
        self.quiet = asyncio.Event()
        self.quiet.set()


_TRAFFIC: WeakKeyDictionary[asyncio.AbstractEventLoop, _Traffic] = WeakKeyDictionary()


class AirflowApi:
    """The API as the user of *request* may use it.

    :param background: whether nobody waits for the answer: then its requests wait for those of all others.
    :raises HTTPException: 401 without a login; what Airflow answers, if it refuses.
    """

    def __init__(self, request: Request, *, background: bool = False) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token if scheme.lower() == "bearer" else request.cookies.get(COOKIE, "")
        if not token:
            raise HTTPException(401, "Not logged in")
        self._client = httpx.AsyncClient(
            # An error of Airflow's is an answer, here as over the network.
            transport=httpx.ASGITransport(app=request.scope["airflow"], raise_app_exceptions=False),
            base_url="http://airflow",
            headers={"Authorization": f"Bearer {token}"},
        )
        self._background = background
        loop = asyncio.get_running_loop()
        if loop not in _TRAFFIC:
            _TRAFFIC[loop] = _Traffic()
        self._traffic = _TRAFFIC[loop]

    async def __aenter__(self) -> AirflowApi:  # noqa: PYI034  # typing.Self is new in Python 3.11
        if not self._background:
            self._traffic.awaited += 1
            self._traffic.quiet.clear()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if not self._background:
            self._traffic.awaited -= 1
            if not self._traffic.awaited:
                self._traffic.quiet.set()
        await self._client.aclose()

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """The decoded answer to a request below `/api/v2/`. Raises HTTPException with Airflow's refusal."""
        reply = await self._ask(method, path, **options)
        # A list of a hundred task instances with their arguments may have megabytes.
        return await asyncio.to_thread(reply.json) if reply.content else None

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        async with AsyncExitStack() as stack:
            if self._background:
                await stack.enter_async_context(self._traffic.background)
                await self._traffic.quiet.wait()
            await stack.enter_async_context(self._traffic.all)
            reply = await self._client.request(method, f"/api/v2/{path}", **options)
        if reply.is_error:
            try:
                detail = reply.json().get("detail", "")
            except ValueError:
                detail = reply.text
            raise HTTPException(reply.status_code, detail or "Airflow refuses")
        return reply

    async def find(self, path: str, **options: Any) -> bytes | None:
        """The body of the answer to a GET, not decoded; None where there is no such thing."""
        try:
            return (await self._ask("GET", path, **options)).content
        except HTTPException as error:
            if error.status_code == 404:
                return None
            raise


def at(*parts: str) -> str:
    """A path of these parts, each of which is one segment.

    :raises HTTPException: 404 for what cannot be one: Airflow takes a path apart after `%2F` has become `/`,
        so quoting does not help, and it has nothing of such a name.
    """
    for part in parts:
        if "/" in part or part in ("", ".", ".."):
            raise HTTPException(404, "Airflow has nothing of this name")
    return "/".join(quote(part, safe="~") for part in parts)


ALL = "~"
"""Airflow's word for whatever it is called."""


def instance_path(dag_id: str, run_id: str, task_id: str) -> str:
    """Where the API has a task instance. Raises HTTPException, 404, for what names none."""
    if ALL in (dag_id, run_id, task_id):
        raise HTTPException(404, "Airflow has nothing of this name")
    return at("dags", dag_id, "dagRuns", run_id, "taskInstances", task_id)
