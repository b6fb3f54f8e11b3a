"""What a simulated provider is made of: routes that answer calls, and a form for its refusals."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn

from aiohttp import web

from airflow_media_tasks.simulator.arrivals import Arrival
from airflow_media_tasks.simulator.words import NO_WORDS, Words
from airflow_media_tasks.simulator.world import BAD_KEY, Account, Output, Refusal, Task, World, bad_request


class Reply(NamedTuple):
    """An answer: what becomes the JSON body, the HTTP status and further headers.

    :param file: the name of a task's file, which is then the body, see `Task.name`.
    """

    body: Any
    status: int = 200
    headers: Mapping[str, str] = {}
    file: str = ""


@dataclass
class Call:
    """One request to a provider.

    :param on: whether this route accepts paid submissions or only reads.
    :param account: whose key it carries; unset on routes that need none.
    :param body: the decoded body, `{}` where the request has none.
    :param words: the `[sim:...]` words in *body*.
    :param arrived: the files that came with it, in whatever way, see `arrivals`.
    :param task: the task that it created or that it asks for, set by the handler; None for a list or a batch.
    """

    world: World
    request: web.Request
    on: Literal["submit", "read"]
    account: Account = field(init=False)
    body: dict[str, Any] = field(default_factory=dict)
    words: Words = NO_WORDS
    arrived: list[Arrival] = field(default_factory=list)
    task: Task | None = None

    def url(self, task: Task, index: int) -> str:
        """URL of a file, under the address by which this client reached the simulator."""
        return f"http://{self.request.host}/media/{task.name(index)}"

    def stamp(self, moment: float) -> float:
        """*moment* as the provider's own, perhaps wrong, clock shows it."""
        return moment + self.world.skew(self.account.provider)

    def iso(self, moment: float) -> str:
        """*moment* in ISO 8601, as the provider's clock shows it."""
        return datetime.fromtimestamp(self.stamp(moment), timezone.utc).isoformat()

    async def until_ended(self, task: Task, at_most: float = math.inf) -> None:
        """Hold the connection until the task has ended, or *at_most* seconds have passed on our clock."""
        until = self.world.now() + at_most
        # The clock may be advanced meanwhile, so neither one long sleep nor an event would do.
        while (left := min(task.ended, until) - self.world.now()) > 0:  # noqa: ASYNC110  # as said above
            await asyncio.sleep(min(left, 0.02))

    def text(self, key: str, *, required: bool = True, longest: int | None = None) -> str | None:
        """The text argument *key*; null and empty mean absent, as vendors' clients send them so."""
        value = self.body.get(key)
        if value is None or value == "":
            if required:
                bad_request(f"{key} is required")
            return None
        if not isinstance(value, str):
            bad_request(f"{key} must be a string")
        if longest is not None and len(value) > longest:
            bad_request(f"{key} must not be longer than {longest} characters, got {len(value)}")
        return value

    def choice(self, key: str, allowed: str, default: str | None = None) -> str | None:
        """The argument *key*, one of the words in *allowed*; raises Refusal naming it otherwise."""
        value = self.body.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or value not in allowed.split():
            bad_request(f"{key} value '{value}' is invalid")
        return value

    def number(self, key: str, lowest: float, highest: float, *, whole: bool = False) -> float | None:
        """The argument *key*, a number within these bounds; raises Refusal naming it otherwise."""
        value = self.body.get(key)
        if value is None:
            return None
        right_type = isinstance(value, int) if whole else isinstance(value, (int, float))
        if not right_type or isinstance(value, bool) or not lowest <= value <= highest:
            bad_request(f"{key} value '{value}' is invalid, it must be from {lowest:g} to {highest:g}")
        return float(value)

    def urls(self, key: str, fewest: int, most: int) -> list[str]:
        """The argument *key*, a list of so many URLs; raises Refusal naming it otherwise."""
        value = self.body.get(key)
        if not isinstance(value, list) or not fewest <= len(value) <= most:
            bad_request(f"{key} must be a list of {fewest} to {most} URLs")
        for url in value:
            if not isinstance(url, str) or not url.startswith(("http://", "https://")):
                bad_request(f"{key} contains '{url}', which is not a URL")
        return value

    def whole(self, key: str, default: int, lowest: int, highest: int) -> int:
        """The whole number *key* of the query, within these bounds; raises Refusal naming it otherwise."""
        text = self.request.query.get(key, str(default))
        if not text.isdigit() or not lowest <= int(text) <= highest:
            bad_request(f"{key} value '{text}' is invalid, it must be from {lowest} to {highest}")
        return int(text)

    def moment(self, key: str, default: float) -> float:
        """Unix seconds of the ISO 8601 text *key* of the query; raises Refusal naming it if it is none."""
        text = self.request.query.get(key)
        if text is None:
            return default
        try:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            bad_request(f"{key} value '{text}' is invalid, it must be in ISO 8601")
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()

    def aspect_ratio(self, allowed: str) -> str | None:
        """The argument `aspect_ratio`; raises Refusal unless it is one of the words in *allowed*."""
        return self.choice("aspect_ratio", allowed)


class Route(NamedTuple):
    """One endpoint below the provider's mount; `{id}` in *path* is a placeholder, `*` any method.

    :param takes_json: whether its body is an object, which is decoded; else the handler reads it.
    """

    method: str
    path: str
    on: Literal["submit", "read"]
    handler: Callable[[Call], Awaitable[Reply]]
    needs_key: bool = True
    takes_json: bool = True


class Provider(ABC):
    """A simulated provider."""

    name: ClassVar[str]
    scheme: ClassVar[str] = "bearer"
    """The first word of the header `Authorization`."""

    @abstractmethod
    def routes(self) -> list[Route]:
        """Every endpoint; the last one catches all other paths."""

    @abstractmethod
    def refused(self, refusal: Refusal, call: Call) -> Reply:
        """The refusal in the provider's own form."""

    def authenticate(self, call: Call) -> str:
        """Name of the account whose key the request carries. Raises Refusal if it carries no good one."""
        scheme, _, key = call.request.headers.get("Authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != self.scheme or not key or key == BAD_KEY:
            raise Refusal("auth")
        return key

    async def no_route(self, _: Call) -> NoReturn:
        """What a path gets that is none of the others."""
        raise Refusal("no_route")

    def headers(self, call: Call) -> Mapping[str, str]:  # noqa: ARG002  # some providers need it
        """Headers that every answer to an authenticated request carries."""
        return {}


def image(role: str = "") -> Output:
    """A PNG that a task will make."""
    return Output("image", "png", role)


def video(duration: float | None = None, role: str = "") -> Output:
    """An MP4 that a task will make; *duration* is the one claimed, in seconds."""
    return Output("video", "mp4", role, duration=duration)


def audio(suffix: str, duration: float | None = None) -> Output:
    """A WAV or MP3 that a task will make; *duration* is the one claimed, in seconds."""
    return Output("audio", suffix, duration=duration)
