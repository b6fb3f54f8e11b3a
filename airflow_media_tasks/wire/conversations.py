"""Conversations, and the two drivers that run them over HTTP.

A provider is written as conversations: generators that yield a `Request` and are sent the `Reply`, as
`httpx.Auth.auth_flow` does it. They do no I/O, so one driver runs them with a blocking client and another
with an asynchronous one, the two can never drift apart, and a test drives them by hand with `next()` and
`.send()`.

The blocking client is httpx. The asynchronous one is aiohttp without httpx on top, which costs half as much
CPU a request (`docs/performance.md`): a triggerer asks all day.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
import tenacity
from airflow.sdk import BaseHook
from typing_extensions import Self

from airflow_media_tasks import __version__
from airflow_media_tasks.task import (
    MediaAuthError,
    MediaFundsError,
    MediaNotFoundError,
    MediaProviderError,
    MediaRateLimitError,
    MediaRequestError,
    MediaTaskError,
    code_of,
    shown,
)
from airflow_media_tasks.wire.addresses import is_private, may_be_sent_to
from airflow_media_tasks.wire.connections import Settings, is_below, settings_of
from airflow_media_tasks.wire.forms import form_of
from airflow_media_tasks.wire.masking import masked, unsigned
from airflow_media_tasks.wire.places import at
from airflow_media_tasks.wire.replies import MAX_REPLY_BYTES, Body, document_of, http_date, retry_after_of


T = TypeVar("T")
R = TypeVar("R", bound=tenacity.BaseRetrying)

MAX_RETRY_AFTER = 60.0
"""Seconds that a read waits at most because a provider said Retry-After."""

MAX_CLOCK_OFFSET = 5400.0
"""Seconds by which a provider's clock may differ from ours: one that missed summer time is understood.

A Date header that is further off is not believed: it may be an edge's, or a lie about what came before what.
"""

UNREACHABLE = "unreachable"
"""Our code for what never left: no connection came about, or the HTTP library refused to send it."""

TOO_LATE = "too_late"
"""Our code for a submission that was not sent because its time (`send_before`) had passed."""

NOT_SENT = (UNREACHABLE, TOO_LATE)

SENSELESS = "senseless"
"""Our code for an answer that is neither an error nor a document of this provider."""

_HEADERS = {
    "User-Agent": f"airflow-media-tasks/{__version__}",
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
}
_CONNECT_SECONDS = 10.0
# A ValueError is how both libraries refuse a header.
_TRANSPORT_ERRORS = (
    httpx.HTTPError,
    httpx.InvalidURL,
    aiohttp.ClientError,
    asyncio.TimeoutError,
    OSError,
    ValueError,
)
_NO_CONTENT = 204
_GAVE_UP = (408, 425, 499)
_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
    httpx.LocalProtocolError,
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)


@dataclass(frozen=True)
class Request:
    """One HTTP request of a conversation.

    :param path: below the connection's base URL, beginning with a slash; see *elsewhere*.
    :param params: query parameters; None values are left out.
    :param headers: beside those of every request.
    :param host: one of the hook's `other_urls`, instead of the base URL.
    :param form: whether *json* is sent as a form, see `form_of`, and not as JSON.
    :param answers: JMESPath; a refusal whose document has something there is a reply, not an error.
    :param inline: whether the reply may hold files in base64, and what of them is kept, see `replies.Body`.
    :param content: the body, where that is no JSON.
    :param keyed: whether the account's key goes along.
    :param elsewhere: *path* is a whole address, which the provider has named: https, and of the internet at
        large unless the provider's own is private. A good reply from there need not be JSON.
    :param paid: a submission. It is sent once: never again unless it surely was not accepted.
    :param timeout: seconds without a byte before we give up on the answer.
    """

    method: str
    path: str
    json: Any = None
    params: Mapping[str, str | int | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    form: bool = False
    answers: str = ""
    inline: str = ""
    content: bytes | None = field(default=None, repr=False)
    keyed: bool = True
    elsewhere: bool = False
    paid: bool = False
    timeout: float = 60.0


@dataclass(frozen=True)
class Reply:
    """What came back: *body* is the decoded JSON, or None with *text* where it was none.

    :param text: its first 2,000 characters.
    :param paid: whether it answers a submission.
    """

    status: int
    body: Any
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)
    paid: bool = False

    @property
    def document(self) -> Mapping[str, Any]:
        """The body as an object; empty where it is none, so that a parser need not ask at each step."""
        return self.body if isinstance(self.body, Mapping) else {}


Conversation = Generator[Request, Reply, T]


class _NoCookies(httpx.Cookies):
    """No provider's API has any."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Leaves them."""


class _Client(httpx.Client):
    cookies = _NoCookies()  # type: ignore[override]  # a property there, which is only read


class ConversationHook(BaseHook):
    """A hook that holds conversations with one account of one provider.

    Every call raises a `MediaTaskError` of `airflow_media_tasks.task` for whatever a provider or a network
    can do. A client is opened for each call; within `with hook:` (or `async with hook:`) all calls share
    one, which is closed at its end.

    :param media_conn_id: id of an Airflow connection; its type must be the hook's own.
    """

    conn_name_attr: ClassVar[str] = "media_conn_id"
    default_conn_name: ClassVar[str]
    conn_type: ClassVar[str]
    hook_name: ClassVar[str]

    base_url: ClassVar[str]
    """The provider's public address; the connection's host overrides it."""
    other_urls: ClassVar[Mapping[str, str]] = {}
    """Further public addresses of the provider, by a name; a connection's own host has them below it."""
    key_in: ClassVar[tuple[str, str]] = ("Authorization", "Bearer {key}")
    """The header that has the key, and how; a name that begins with `?` is a parameter of the query."""
    key_optional: ClassVar[bool] = False
    """Whether a connection may have no key, because the server asks for none."""
    headers: ClassVar[Mapping[str, str]] = {}
    """What else every request says."""
    keyed_hosts: ClassVar[tuple[str, ...]] = ()
    """Where files are only given to who shows the key: names of `other_urls`, `""` for the base URL."""
    max_connections: ClassVar[int] = 10
    """Connections, and so requests in flight, of one client."""
    refusals: ClassVar[Mapping[int, type[MediaTaskError]]] = {
        400: MediaRequestError,
        401: MediaAuthError,
        402: MediaFundsError,
        403: MediaAuthError,
        404: MediaNotFoundError,
        405: MediaRequestError,
        413: MediaRequestError,
        422: MediaRequestError,
        429: MediaRateLimitError,
    }
    """What an HTTP status means where no code of the provider says it: nothing was accepted.

    Every other status may be a gateway's, which gave up on a submission that the provider has accepted. A
    provider whose documentation says otherwise has a table of its own.
    """

    read_attempts: int = 4
    """How often a read is tried in all; a poller, which asks again anyway, sets it to 1."""
    retry_wait: float = 1.0
    """Seconds before the first repetition; doubled, with jitter, for each further one."""

    def __init__(self, media_conn_id: str | None = None) -> None:
        super().__init__()
        self.media_conn_id = media_conn_id or self.default_conn_name
        self.send_before: float | None = None
        """Unix seconds after which a submission is not sent any more, or None."""
        self.clock_offset = 0.0
        """Seconds by which the provider's clock is ahead of ours, from its last reply."""
        self.witness: Callable[[Request, Reply], None] | None = None
        """Told of every reply, also of a refusal, before anything is made of it."""
        self._client: httpx.Client | None = None
        self._entered = 0
        self._async_client: aiohttp.ClientSession | None = None
        self._open = ExitStack()
        self._async_open = AsyncExitStack()

    def _headers(self) -> dict[str, str]:
        """Overwritten where the key is not sent itself. Made anew for each request, for fresh signatures."""
        name, form = self.key_in
        unsaid = name[0] == "?" or not self._has_key
        return {**self.headers, **({} if unsaid else {name: form.format(key=self._key)})}

    def error_of(self, reply: Reply) -> MediaTaskError | None:
        """Override this to choose the error's class by the provider's code; fall back on this by status.

        Returns None for a good reply.
        """
        if reply.status < 400 and (reply.body is not None or reply.status == _NO_CONTENT):
            return None
        if reply.status < 400:
            return MediaProviderError(
                f"{self.named} answered HTTP {reply.status} with what is no JSON document of a task: "
                f"{shown(reply.text)}",
                provider=self.conn_type,
                code=SENSELESS,
            )
        return self.error(None, reply, None, reply.text)

    def error(
        self,
        cls: type[MediaTaskError] | None,
        reply: Reply,
        code: Any,
        words: Any,
        request_id: Any = None,
        *,
        retry_after: float | None = None,
    ) -> MediaTaskError:
        """An error in the provider's *words*; without a class, what is to be done goes by HTTP status.

        :param cls: where the provider's own code decides. None for a submission whose status is none of the
            `refusals` leaves its outcome unknown.
        :param retry_after: seconds that the body asks for, where no header does.
        """
        cls = cls or self.refusals.get(reply.status)
        if cls is None:
            # A read that is refused in some other way is refused for what it asks, except by a gateway.
            own = 400 <= reply.status < 500 and reply.status not in _GAVE_UP and not reply.paid
            cls = MediaRequestError if own else MediaProviderError
        told = retry_after_of(reply.headers)
        says = shown(unsigned(words), 500) if words else "nothing"
        where = f"HTTP {reply.status}" + (f", code {shown(code)}" if code is not None else "")
        trace = f", request {shown(request_id)}" if request_id else ""
        return cls(
            f"{self.named} says {says} ({where}{trace})",
            provider=self.conn_type,
            code=code_of(code),
            retry_after=retry_after if told is None else told,
        )

    def senseless(self, reply: Reply, missing: str) -> MediaProviderError:
        """The error of a good reply in which something is *missing* that cannot be done without."""
        return MediaProviderError(
            f"{self.named} answered HTTP {reply.status} without {missing}: {shown(reply.text, 200)}",
            provider=self.conn_type,
            code=SENSELESS,
        )

    # The connection.

    @property
    def named(self) -> str:
        """The provider, as an error begins that is about one account of it."""
        return f"connection {self.media_conn_id!r}: {self.conn_type}"

    @cached_property
    def settings(self) -> Settings:
        """The connection, read once for the life of this hook. Blocking: not for an event loop's thread."""
        connection = self.get_connection(self.media_conn_id)
        if connection.conn_type != self.conn_type:
            raise MediaRequestError(
                f"connection {self.media_conn_id!r} has the type {connection.conn_type!r}; "
                f"{type(self).__name__} needs one of type {self.conn_type!r}"
            )
        return settings_of(connection, self.media_conn_id, self.base_url)

    def _address(self, host: str) -> str:
        """The base URL, or that of *host*: a connection with an address of its own has all of them there."""
        base_url = self.settings.base_url
        if not host:
            return base_url
        return self.other_urls[host] if base_url == self.base_url else f"{base_url}/{host}"

    def url_of(self, request: Request) -> str:
        """The whole address of *request*, without the key."""
        params = {name: value for name, value in request.params.items() if value is not None}
        return str(httpx.URL(self._address(request.host) + request.path, params=params or None))

    def needs_key(self, url: str) -> bool:
        """Whether a file at *url* is only given to this account: it is below one of `keyed_hosts`."""
        return self._has_key and any(is_below(url, self._address(host)) for host in self.keyed_hosts)

    def headers_for(self, url: str) -> Mapping[str, str]:
        """What a file at *url* is asked with: the key where it `needs_key`, and nowhere else anything."""
        return self._headers() if self.needs_key(url) else {}

    @cached_property
    def is_private(self) -> bool:
        """Whether the internet does not reach the provider. Blocking: it may ask for a name."""
        return is_private(urlsplit(self.settings.base_url).hostname or "")

    def _elsewhere(self, request: Request) -> str:
        """The address of a *request* that goes to none of ours; empty for any other."""
        if request.elsewhere and not may_be_sent_to(request.path, from_home=self.is_private):
            where = shown(request.path.partition("?")[0])
            text = f"{self.named} wants an upload to go to {where}, which is no https address of the internet"
            raise MediaProviderError(text, provider=self.conn_type, code=SENSELESS)
        return request.path if request.elsewhere else ""

    @property
    def _has_key(self) -> bool:
        """Whether requests show one; where there must be one and is none, asking for it is an error."""
        return bool(self.settings.password) or not self.key_optional

    @property
    def _key(self) -> str:
        key = self.settings.password
        if not key:
            raise MediaAuthError(
                f"connection {self.media_conn_id!r} has no password: put the provider's API key there",
                provider=self.conn_type,
            )
        if not key.isascii() or not key.isprintable():
            raise MediaAuthError(
                f"connection {self.media_conn_id!r}: the password has a character that no API key has "
                "(a line break or a non-ASCII letter within it); paste the key again",
                provider=self.conn_type,
            )
        return key

    # The two drivers.

    def __enter__(self) -> Self:
        if not self._entered:
            self._client = self._open.enter_context(self._new_client())
        self._entered += 1
        return self

    def __exit__(self, *exc: object) -> None:
        self._entered -= 1
        if not self._entered:
            self._client = None
            self._open.close()

    async def __aenter__(self) -> Self:
        self._async_client = await self._async_open.enter_async_context(await self._new_async_client())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._async_client = None
        await self._async_open.aclose()

    def _new_client(self) -> httpx.Client:
        limits = httpx.Limits(
            max_connections=self.max_connections, max_keepalive_connections=self.max_connections
        )
        return _Client(limits=limits, headers=_HEADERS)

    async def _new_async_client(self) -> aiohttp.ClientSession:
        # Reading a connection or the certificate store takes tens of milliseconds that an event loop has not.
        proxy, certificates = await asyncio.to_thread(self._way_out)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.max_connections, ssl=certificates),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            proxy=proxy,
            auto_decompress=False,
        )

    def _way_out(self) -> tuple[str | None, ssl.SSLContext]:
        """The environment's proxy and certificates, as httpx finds them.

        aiohttp's `trust_env` would look for the proxy with every request, and in `.netrc` for another key.
        """
        parts = urlsplit(self.settings.base_url)
        proxies = {} if proxy_bypass(parts.netloc) else getproxies()
        return proxies.get(parts.scheme) or proxies.get("all"), httpx.create_ssl_context()

    def _run(self, conversation: Conversation[T]) -> T:
        with contextlib.closing(conversation), ExitStack() as stack:
            client = self._client or stack.enter_context(self._new_client())
            try:
                request = next(conversation)
                while True:
                    try:
                        reply = self._attempts(tenacity.Retrying, request)(self._send, client, request)
                    except MediaTaskError as error:
                        request = conversation.throw(error)
                    else:
                        request = conversation.send(reply)
            except StopIteration as end:
                result: T = end.value
                return result

    async def _arun(self, conversation: Conversation[T]) -> T:
        with contextlib.closing(conversation):
            async with AsyncExitStack() as stack:
                client = self._async_client
                if client is None:
                    client = await stack.enter_async_context(await self._new_async_client())
                try:
                    request = next(conversation)
                    while True:
                        try:
                            reply: Reply
                            if self.read_attempts == 1:
                                # A tenth of what a poller's request costs would be spent on not repeating it.
                                reply = await self._asend(client, request)
                            else:
                                attempts = self._attempts(tenacity.AsyncRetrying, request)
                                reply = await attempts(self._asend, client, request)
                        except MediaTaskError as error:
                            request = conversation.throw(error)
                        else:
                            request = conversation.send(reply)
                except StopIteration as end:
                    result: T = end.value
                    return result

    def _attempts(self, retrying: type[R], request: Request) -> R:
        """Reads are repeated while that can help; a submission only if it surely was not accepted."""
        transient = () if request.paid else (MediaRateLimitError, MediaProviderError)
        exponential = tenacity.wait_exponential(multiplier=self.retry_wait, max=30) + tenacity.wait_random(
            0, self.retry_wait
        )

        def can_repeat(error: BaseException) -> bool:
            return isinstance(error, transient) or getattr(error, "code", None) == UNREACHABLE

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            told = getattr(error, "retry_after", None) or 0.0
            return max(min(told, MAX_RETRY_AFTER), exponential(state))

        return retrying(
            retry=tenacity.retry_if_exception(can_repeat),
            stop=tenacity.stop_after_attempt(self.read_attempts),
            wait=wait,
            reraise=True,
        )

    def _send(self, client: httpx.Client, request: Request) -> Reply:
        wire, content, body = *self._wire(request), Body(request.inline)
        timeout = httpx.Timeout(request.timeout, connect=_CONNECT_SECONDS)
        try:
            with client.stream(**wire, content=content, timeout=timeout) as response:
                for chunk in response.iter_raw():
                    self._collect(body, chunk)
        except _TRANSPORT_ERRORS as error:
            raise self._transport_error(wire, error) from None
        return self._reply(request, wire, response.status_code, response.headers, body)

    async def _asend(self, client: aiohttp.ClientSession, request: Request) -> Reply:
        wire, content, body = *self._wire(request), Body(request.inline)
        timeout = aiohttp.ClientTimeout(
            connect=request.timeout, sock_connect=_CONNECT_SECONDS, sock_read=request.timeout
        )
        try:
            async with client.request(
                **wire, data=content, timeout=timeout, allow_redirects=False
            ) as response:
                async for chunk in response.content.iter_any():
                    self._collect(body, chunk)
        except _TRANSPORT_ERRORS as error:
            raise self._transport_error(wire, error) from None
        return self._reply(request, wire, response.status, response.headers, body)

    def _wire(self, request: Request) -> tuple[dict[str, Any], bytes | None]:
        """What both clients take, and the body."""
        if request.paid and self.send_before is not None and time.time() > self.send_before:
            raise MediaProviderError(
                f"{self.named} was not sent the submission, and nothing is paid: it was written down too "
                "long ago, as on a machine that sleeps or has no time for this worker; a retry sends it",
                provider=self.conn_type,
                code=TOO_LATE,
            )
        params = {name: value for name, value in request.params.items() if value is not None}
        if self.key_in[0][0] == "?" and request.keyed and self._has_key:
            params[self.key_in[0][1:]] = self.key_in[1].format(key=self._key)
        wire: dict[str, Any] = {
            "method": request.method,
            "url": self._elsewhere(request) or self._address(request.host) + request.path,
            # None, not {}: httpx reads a URL once more for every set of parameters, also an empty one.
            "params": params or None,
            "headers": {**(self._headers() if request.keyed else {}), **request.headers},
        }
        if request.json is None:
            return wire, request.content
        if request.form:
            wire["headers"]["Content-Type"], content = form_of(request.json)
            return wire, content
        wire["headers"]["Content-Type"] = "application/json"
        return wire, json.dumps(request.json, ensure_ascii=False, allow_nan=False).encode()

    def _collect(self, body: Body, chunk: bytes) -> None:
        if not body.add(chunk):
            raise self._too_large()

    def _reply(
        self,
        request: Request,
        wire: Mapping[str, Any],
        status: int,
        headers: Mapping[str, str],
        body: Body,
    ) -> Reply:
        text = body.text(headers.get("content-encoding"))
        if text is None:
            raise self._too_large()
        text = self._masked(wire, text)
        reply = Reply(status, document_of(text), unsigned(text[:4000])[:2000], headers, request.paid)
        if self.witness is not None:
            self.witness(request, reply)
        theirs = http_date(headers.get("date"))
        if theirs is not None and abs(theirs - time.time()) <= MAX_CLOCK_OFFSET:
            self.clock_offset = theirs - time.time()
        if request.elsewhere and status < 300:
            return reply
        if error := self.error_of(reply):
            if request.answers and at(request.answers, reply.document):
                return reply
            raise error
        return reply

    def _masked(self, wire: Mapping[str, Any], text: str) -> str:
        """*text* of somebody else without the key, and without the signature of this request."""
        signature = wire["headers"].get("Authorization", "").rpartition(" ")[2]
        return masked(text, (self.settings.password, self.settings.login, signature))

    def _too_large(self) -> MediaProviderError:
        return MediaProviderError(
            f"{self.named} answered with more than {MAX_REPLY_BYTES} bytes: no status document",
            provider=self.conn_type,
            code=SENSELESS,
        )

    def _transport_error(self, wire: Mapping[str, Any], error: BaseException) -> MediaProviderError:
        never_sent = isinstance(error, _NEVER_SENT)
        return MediaProviderError(
            f"{self.named} at {self.settings.base_url} "
            + ("cannot be reached" if never_sent else "did not answer")
            + f": {type(error).__name__} {shown(self._masked(wire, str(error)), 200)}",
            provider=self.conn_type,
            code=UNREACHABLE if never_sent else None,
        )
