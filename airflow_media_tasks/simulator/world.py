"""What the simulator knows: the clock, the accounts, the tasks, the ledger and the faults.

A task's state is computed from the clock whenever somebody asks; nothing runs while a task "generates", so
ten thousand of them cost nothing.
"""

from __future__ import annotations

import heapq
import math
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

from airflow_media_tasks.simulator.arrivals import CALLED_BACK
from airflow_media_tasks.simulator.faults import Fault, On, parse_fault
from airflow_media_tasks.simulator.media import CONTENT_TYPES, Kind, Scene, size_of
from airflow_media_tasks.simulator.words import Words, without_words


BAD_KEY = "sim-bad-key"
NO_FUNDS_KEY = "sim-no-funds"
_OPENING_BALANCE = Decimal(1_000_000)
_TEXT_KEYS = (
    *("prompt", "description", "text", "promptText", "sound_effect_prompt", "motion_type", "effect_scene"),
    "lyric",
)

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Reason = Literal[
    "auth", "funds", "rate", "concurrency", "moderation", "bad_request", "not_found", "no_route", "server"
]


class Refusal(Exception):
    """A request that is turned down; every provider has its own form for each *reason*.

    :param reason: what is wrong, in the simulator's vocabulary.
    :param message: a sentence, or empty for the provider's usual one.
    :param code: the provider's own code, where the reason alone does not decide it.
    :param status: HTTP status, for the reason `server`.
    :param retry_after: seconds, for the reason `rate`.
    """

    def __init__(
        self,
        reason: Reason,
        message: str = "",
        *,
        code: str | int | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message or reason)
        self.reason = reason
        self.message = message
        self.code = code
        self.status = status
        self.retry_after = retry_after


def bad_request(message: str) -> NoReturn:
    """Refuse because of a wrong argument."""
    raise Refusal("bad_request", message)


@dataclass
class Account:
    """What one key owns: money is reserved at submission, burnt by success and given back by failure."""

    provider: str
    name: str
    balance: Decimal
    reserved: Decimal = Decimal(0)
    slots: int = 0
    tasks: list[Task] = field(default_factory=list)
    by_client_ref: dict[str, Task] = field(default_factory=dict)
    minute: int = 0
    requests_this_minute: int = 0
    _in_flight: list[tuple[float, int, Task]] = field(default_factory=list)

    def add(self, task: Task) -> None:
        """Take a newly accepted task in and reserve its price."""
        self.tasks.append(task)
        heapq.heappush(self._in_flight, (task.ended, len(self.tasks), task))
        self.reserved += task.amount
        self.slots += task.slots

    def cancel(self, task: Task, at: float) -> None:
        """End *task* at the unix seconds *at*, now or later, unless it ends before; it costs nothing then."""
        if at < task.ended:
            task.started, task.ended, task.outcome = min(task.started, at), at, "cancelled"
            self._in_flight = [(one.ended, number, one) for _, number, one in self._in_flight]
            heapq.heapify(self._in_flight)

    def settle(self, now: float) -> None:
        """Book every task that has ended since the last look."""
        while self._in_flight and self._in_flight[0][0] <= now:
            task = heapq.heappop(self._in_flight)[2]
            self.reserved -= task.amount
            self.slots -= task.slots
            if task.state(now) == "succeeded":
                self.balance -= task.amount


@dataclass(frozen=True)
class Output:
    """One file that a task makes.

    :param kind: `image`, `video` or `audio`.
    :param suffix: `png`, `mp4`, `wav` or `mp3`.
    :param role: what it is for, where that is not plain from the kind: `cover`, `thumbnail`, `watermark`.
    :param id: the provider's own name for it, which extend and upscale operations ask for.
    :param duration: seconds that the provider claims; the real file is shorter.
    """

    kind: Kind
    suffix: str
    role: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    duration: float | None = None


@dataclass(eq=False)
class Task:
    """One accepted and billed submission.

    :param path: the route that created it, for providers where only that route can read it.
    :param request: the body as it was received.
    :param created: the simulator's unix seconds; `started` and `ended` likewise.
    :param source: the image that a video shows, as the name of one of our own files or as bytes.
    :param reason: why it fails, in the provider's own form, where no word in the request is the reason.
    :param expires: seconds after its end for which its files are kept, None for ever.
    """

    id: str
    provider: str
    operation: str
    account: Account
    path: str
    request: dict[str, Any]
    words: Words
    amount: Decimal
    currency: str
    client_ref: str | None
    outputs: tuple[Output, ...]
    slots: int
    aspect_ratio: str
    source: str | bytes | None
    created: float
    started: float
    ended: float
    trace_id: str
    reason: Any = None
    expires: float | None = None

    def __post_init__(self) -> None:
        # Looked up once: whoever lists ten thousand tasks asks each of them.
        self.outcome: State = "failed" if "fail" in self.words or self.reason else "succeeded"
        # Until then the provider answers "not found" for a task that it has accepted.
        self.visible_from = self.created + (self.words.seconds("not-visible") or 0)

    def state(self, now: float) -> State:
        """Where the task stands at *now*."""
        if now < self.started:
            return "queued"
        if now < self.ended:
            return "running"
        return self.outcome

    def name(self, index: int) -> str:
        """File name of the output *index*, the last part of its URL."""
        return f"{self.id}-{index}.{self.outputs[index].suffix}"

    def size(self, kind: Kind) -> tuple[int, int]:
        """Width and height (px) of this task's files of this kind."""
        return size_of(kind, self.aspect_ratio)

    @property
    def text(self) -> str:
        """The prompt without `[sim:...]` words, or the operation's name."""
        return next((without_words(text) for text in _prompts(self.request)), "") or self.operation

    def to_dict(self, now: float) -> dict[str, Any]:
        """The task as `GET /_sim/tasks` shows it."""
        return {
            "id": self.id,
            "provider": self.provider,
            "operation": self.operation,
            "status": self.state(now),
            "account": self.account.name,
        }


def _prompts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key in _TEXT_KEYS:
            if isinstance(node.get(key), str) and node[key]:
                yield node[key]
        for value in node.values():
            yield from _prompts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _prompts(value)


class World:
    """All state of one simulator. It lives in the server's event loop; nothing else touches it.

    :param seconds: how long a task takes unless its request says `[sim:seconds=...]`.
    :param providers: the names of those that are simulated.
    """

    def __init__(self, seconds: float, providers: Collection[str]) -> None:
        self.seconds = seconds
        self.providers = providers
        self.own_hosts: set[str] = set()
        self.advanced = 0.0
        self.reset()

    def reset(self) -> None:
        """Forget every account, task, ledger entry, count and fault; the clock stays where it is."""
        self.accounts: dict[tuple[str, str], Account] = {}
        self.tasks: dict[str, Task] = {}
        self.outputs: dict[str, tuple[Task, int]] = {}
        self.files: dict[str, str] = {}  # path, beside `/media/` -> the name of the file that is there
        self.ledger: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self.tokens: dict[str, Account] = {}
        self.requests: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self._uses: Counter[tuple[str, str]] = Counter()

    # The clock.

    def now(self) -> float:
        """Unix seconds of the simulator, which `advance` moves forward."""
        return time.time() + self.advanced

    def skew(self, provider: str) -> float:
        """Seconds by which this provider's clock is wrong (fault `clock_skew`)."""
        fault = self.fault("clock_skew", provider)
        return float(fault.fields["offset"]) if fault else 0.0

    # Faults and words.

    def add_fault(self, value: Any) -> Fault:
        """Put a fault in force. Raises ValueError if *value* is malformed."""
        fault = parse_fault(value, self.now(), self.providers)
        self.faults.append(fault)
        return fault

    def fault(self, kind: str, provider: str, on: On = "all") -> Fault | None:
        """The newest fault of this kind in force for such a request, or None; its count stays."""
        if not self.faults:
            return None
        now = self.now()
        self.faults = [fault for fault in self.faults if fault.until is None or now < fault.until]
        for fault in reversed(self.faults):
            if (
                fault.kind == kind
                and fault.provider in (None, provider)
                and (on == "all" or fault.on in (on, "all"))
            ):
                return fault
        return None

    def strike(self, kind: str, provider: str, on: On) -> Fault | None:
        """The same, counted as one of the times it may hit."""
        fault = self.fault(kind, provider, on)
        if fault and fault.count is not None:
            fault.count -= 1
            if fault.count == 0:
                self.faults.remove(fault)
        return fault

    def use(self, words: Words, name: str) -> str | None:
        """The value of the word *name* if it holds: `*N` holds for N times per text."""
        word = words.found.get(name)
        if word is None:
            return None
        if word.first is not None:
            self._uses[(name, word.text)] += 1
            if self._uses[(name, word.text)] > word.first:
                return None
        return word.value

    # Accounts and tasks.

    def account(self, provider: str, name: str) -> Account:
        """The account of a key, opened when it is first seen."""
        account = self.accounts.get((provider, name))
        if account is None:
            opening = Decimal(0) if name == NO_FUNDS_KEY else _OPENING_BALANCE
            account = self.accounts[provider, name] = Account(provider, name, opening)
        account.settle(self.now())
        return account

    def accept(
        self,
        account: Account,
        operation: str,
        body: dict[str, Any],
        words: Words,
        outputs: tuple[Output, ...],
        *,
        amount: str,
        currency: str,
        path: str,
        host: str,
        client_ref: str | None = None,
        slots: int = 1,
        aspect_ratio: str | None = None,
        source: str | bytes | None = None,
        seconds: float | None = None,
        reason: Any = None,
        expires: float | None = None,
        own_id: str | None = None,
    ) -> Task:
        """Bill a submission and start its task, or raise Refusal; the order is that of a real gateway.

        :param seconds: how long it takes unless the request says so, default the simulator's own.
        :param reason: why the task will fail, where the provider looks at a request only after taking it.
        :param expires: seconds after its end for which its files are kept unless the request says so, None
            for ever.
        :param own_id: what the task is called, where the caller chooses that.
        """
        source = None if reason else self.first_source(body, host) or source
        reject = self.use(words, "reject")
        if reject:
            raise Refusal(reject)  # type: ignore[arg-type]  # words.py has checked it against the same names
        price = Decimal(amount)
        if account.balance - account.reserved < price:
            raise Refusal("funds")
        limit = self.fault("slots", account.provider, "submit")
        if limit and account.slots + slots > limit.fields["limit"]:
            raise Refusal("concurrency")
        if self.strike("concurrency", account.provider, "submit"):
            raise Refusal("concurrency")
        now = (
            math.floor(self.now() * 1000) / 1000
        )  # what documents show, in milliseconds, is what lists compare
        if "fail" in words and self.use(words, "fail") is None:
            words = words.without("fail")
        running = words.seconds("seconds")
        if running is None:
            running = self.seconds if seconds is None else seconds
        queued = words.seconds("queued")
        started = now + (min(1.0, running / 5) if queued is None else queued)
        task = Task(
            id=own_id or str(uuid.uuid4()),
            provider=account.provider,
            operation=operation,
            account=account,
            path=path,
            request=body,
            words=words,
            amount=price,
            currency=currency,
            client_ref=client_ref,
            outputs=outputs,
            slots=slots,
            aspect_ratio=aspect_ratio or self._ratio_of(source),
            source=source,
            created=now,
            started=started,
            ended=now + running + (queued or 0),
            trace_id=str(uuid.uuid4()),
            reason=reason,
            expires=expires if words.seconds("expires") is None else words.seconds("expires"),
        )
        self.tasks[task.id] = task
        account.add(task)
        for index, output in enumerate(outputs):
            self.outputs[output.id] = (task, index)
        self.ledger.append(
            {
                "provider": task.provider,
                "operation": operation,
                "id": task.id,
                "client_ref": client_ref,
                "amount": amount,
                "currency": currency,
                "at": now,
                "request": body,
            }
        )
        return task

    def _ratio_of(self, source: str | bytes | None) -> str:
        found = self.output_of(source) if isinstance(source, str) else None
        return found[0].aspect_ratio if found else "16:9"

    def task(self, account: Account, task_id: Any) -> Task | None:
        """The account's task of this id if the provider already shows it."""
        task = self.tasks.get(task_id) if isinstance(task_id, str) else None
        return task if task and task.account is account and task.visible_from <= self.now() else None

    def made_video(self, account: Account, video_id: Any) -> str | None:
        """File name of the finished video *video_id* of this account, or None if there is none."""
        task, index = self.outputs.get(video_id, (None, 0)) if isinstance(video_id, str) else (None, 0)
        if task is None or task.account is not account or task.outputs[index].kind != "video":
            return None
        return task.name(index) if task.state(self.now()) == "succeeded" else None

    # Media.

    def output_of(self, name: str) -> tuple[Task, Output] | None:
        """The task and the output behind the last part of a media URL, or None if there is none (yet)."""
        stem, _, suffix = name.rpartition(".")
        task_id, _, index = stem.rpartition("-")
        task = self.tasks.get(task_id)
        if task is None or not index.isdigit() or int(index) >= len(task.outputs):
            return None
        output = task.outputs[int(index)]
        if output.suffix != suffix or suffix not in CONTENT_TYPES or task.state(self.now()) != "succeeded":
            return None
        return task, output

    def has_expired(self, task: Task) -> bool:
        """True once the task's URLs are dead (`[sim:expires=...]`, counted from its end)."""
        return task.expires is not None and self.now() >= task.ended + task.expires

    def first_source(self, node: Any, host: str) -> str | None:
        """Name of the first of our own files that the request refers to.

        :raises Refusal: `bad_request` if a URL points at the simulator but at no file that it has.
        """
        first = None
        for url in _media_urls(node):
            parts = urlsplit(url)
            if parts.netloc != host and parts.netloc not in self.own_hosts:
                continue
            if parts.path in self.uploads:
                continue
            is_media = parts.path.startswith("/media/")
            name = parts.path.rpartition("/")[2] if is_media else self.files.get(parts.path, "")
            found = self.output_of(name)
            if found is None or self.has_expired(found[0]):
                bad_request(f"the file at {url} could not be downloaded")
            first = first or name
        return first

    def scene(self, task: Task, output: Output) -> Scene:
        """What the file *output* of *task* shows; what was made from one of our own files shows the same."""
        own = self.output_of(task.source) if isinstance(task.source, str) else None
        if own is not None:
            return replace(self.scene(*own), aspect_ratio=task.aspect_ratio)
        source = task.source if isinstance(task.source, bytes) else None
        role = f" - {output.role}" if output.role else ""
        caption = f"{task.provider} - {task.operation}{role} - {task.id.split('-')[0]}"
        return Scene(task.text, caption, task.aspect_ratio, source)


def _media_urls(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key not in CALLED_BACK:
                yield from _media_urls(value)
    elif isinstance(node, list):
        for value in node:
            yield from _media_urls(value)
    elif isinstance(node, str) and node.startswith(("http://", "https://")):
        yield node
