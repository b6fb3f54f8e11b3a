"""From a URL to a local file: from an address that may be asked, whole, and never more than was agreed.

A media URL comes from a provider, so nothing about it is trusted: not where it leads, not how much comes, not
that it comes at all. No cookie of ours is used, and a key only where the account's own address is asked. The
connection goes to the very address that was checked; only where a proxy is the one way out, the proxy finds
the address of what is public.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import ipaddress
import itertools
import os
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import tenacity
from airflow.sdk.log import mask_secret

from airflow_media_tasks import __version__
from airflow_media_tasks.task import MediaProviderError, MediaRequestError, shown
from airflow_media_tasks.wire.addresses import is_public, is_public_name


CHUNK = 256 * 1024
"""Bytes that are unpacked at once, of what comes compressed."""
ATTEMPTS = 6
"""How often one URL is asked, where a transfer breaks or the server has no time."""
REDIRECTS = 5
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
"""Seconds; a server that sends nothing for so long has stalled."""
RETRY_WAIT = 1.0
"""Seconds before the second attempt; doubled each time, up to 20."""
_PROGRESS_SECONDS = 10.0
_INFLATED_BYTES, _INFLATED_RATIO = 64 * 1024**2, 100
"""From so many bytes on, more than so many times what was sent is no media file."""
_LATER = (407, 408, 416, 425, 429)
"""Of the statuses from 400 to 499 those that are no word about the URL."""
_COMPRESSED = ("gzip", "x-gzip", "deflate")
_UNKNOWN_TO_US = ("br", "zstd", "compress", "x-compress", "dcb", "dcz")
_REFUSAL = 4096
"""Bytes of a refusal that are read."""
_GZIP = b"\x1f\x8b"
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")


class UrlRefused(Exception):
    """The server says that this URL is not good: not yet, no longer, or not for us (HTTP 4xx).

    :param expired: whether it says so in words; most stores do, of a signature that has run out.
    """

    def __init__(self, text: str, *, expired: bool) -> None:
        super().__init__(text)
        self.expired = expired


class _Broken(Exception):
    """This attempt failed; another one may not."""


class _NoAddress(_Broken):
    """Nobody here knows where a host is."""


@dataclass(frozen=True)
class Download:
    """What came: `content_type` as the server calls it (empty if it does not), `size` in bytes."""

    content_type: str
    size: int
    sha256: str


def is_web_address(url: str) -> bool:
    """Whether *url* is an absolute http or https URL."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


class AllowedHosts:
    """Who may be asked besides the public internet.

    :param text: host names, addresses and CIDR ranges, separated by commas: `cdn.internal, 10.2.0.0/16`.
    :raises MediaRequestError: if a part is none of these.
    """

    def __init__(self, text: str) -> None:
        self._names: set[str] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for part in filter(None, (part.strip().lower().rstrip(".") for part in text.split(","))):
            try:
                self._networks.append(ipaddress.ip_network(part, strict=False))
            except ValueError:
                if "/" in part or ":" in part:
                    raise MediaRequestError(
                        f"allowed_hosts: {shown(part)} is no host name, address or CIDR range (no scheme, "
                        "no port)"
                    ) from None
                self._names.add(part)

    def names(self, host: str) -> bool:
        """Whether *host* is allowed by its name."""
        return host.lower().rstrip(".") in self._names

    def addresses_of(self, host: str, port: int) -> list[str]:
        """Every address of *host*, all of them checked.

        :raises MediaRequestError: if one of them is not public and not allowed.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise _NoAddress(f"the host {shown(host)} has no address ({error.strerror})") from error
        except UnicodeError as error:
            raise MediaRequestError(f"{shown(host)} is no host name") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for text in addresses:
            address = ipaddress.ip_address(text)
            named = self.names(host) or any(address in network for network in self._networks)
            if not (named or is_public(address)):
                raise MediaRequestError(
                    f"{shown(host)} is {address}, which is not a public address, and nothing is downloaded "
                    "from there; if it is yours, name it in the setting [media_tasks] allowed_hosts"
                )
        return addresses


def proxy_of(text: str) -> httpx.Proxy | None:
    """The proxy that *text* names, `http://user:password@proxy.internal:3128`; None if it is empty.

    :raises MediaRequestError: if it is no such URL. It is not shown, since a password may be in it.
    """
    if not text.strip():
        return None
    try:
        proxy = httpx.Proxy(text.strip())
        if not proxy.url.host or proxy.url.scheme not in ("http", "https"):
            raise ValueError("no http or https URL")
    except (httpx.InvalidURL, ValueError):
        raise MediaRequestError(
            "the setting [media_tasks] proxy is no http or https URL such as http://proxy.internal:3128"
        ) from None
    if proxy.auth is not None:
        mask_secret(proxy.auth[1])
    return proxy


def too_large(url: str, most: int) -> MediaRequestError:
    """Of a file with more than *most* bytes."""
    return MediaRequestError(
        f"{shown(url, 300)} is larger than {most} bytes, the setting [media_tasks] max_file_size; it was not "
        "downloaded",
        code="too_large",
    )


def without_key(_: str) -> Mapping[str, str]:
    """What an address is asked with that gives its file to anybody."""
    return {}


def download(
    url: str,
    target: Path,
    allowed: AllowedHosts,
    max_size: int,
    stop: threading.Event,
    log: Any,
    proxy: httpx.Proxy | None = None,
    headers_for: Callable[[str], Mapping[str, str]] = without_key,
) -> Download:
    """Downloads *url* into *target*, in several attempts if need be, going on where one broke.

    :param max_size: bytes.
    :param stop: set when nobody wants the file any more.
    :param proxy: by which everything is asked that is not known here to be private.
    :param headers_for: what an address is asked with, such as a key; so is each redirect, until one of them
        is to be asked with nothing.
    :raises UrlRefused: if the server says that the URL is not good.
    :raises MediaRequestError: if the address may not be asked, or the file is larger than *max_size*.
    :raises MediaProviderError: if no attempt brought the whole file.
    """
    way = _Way(allowed, proxy, headers_for)
    transfer = _Transfer(url, target, way, max_size, stop, log)
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((_Broken, httpx.TransportError)),
        stop=tenacity.stop_after_attempt(ATTEMPTS) | tenacity.stop_when_event_set(stop),
        wait=tenacity.wait_exponential(multiplier=RETRY_WAIT, max=20) + tenacity.wait_random(0, RETRY_WAIT),
        sleep=tenacity.sleep_using_event(stop),
        before_sleep=lambda state: log.info(
            "download of %s broke after %d bytes (%s); attempt %d of %d follows",
            shown(url, 300),
            transfer.size,
            state.outcome and _words(state.outcome.exception()),
            state.attempt_number + 1,
            ATTEMPTS,
        ),
        reraise=True,
    )
    try:
        return attempts(transfer.attempt)
    except (_Broken, httpx.HTTPError, httpx.InvalidURL) as error:
        raise MediaProviderError(
            f"download of {shown(url, 300)} broke: {_words(error)}{_hint(error, way)}"
        ) from error


def _hint(error: Exception, way: _Way) -> str:
    """What a proxy may have to do with *error*: one that was asked, or one that was not."""
    if way.proxy is not None and way.asked_proxy:
        return f" (by the proxy {way.proxy.url.host}, which the setting [media_tasks] proxy names)"
    if not isinstance(error, (_NoAddress, httpx.ConnectError, httpx.ConnectTimeout)):
        return ""
    named = next((name for name in _PROXIES if os.environ.get(name)), None)
    if named is None:
        return ""
    return (
        f"; the environment names a proxy ({named}), and files are downloaded by one only if the setting "
        "[media_tasks] proxy names it"
    )


class _Transfer:
    """One file on its way, over as many attempts as it takes."""

    def __init__(
        self, url: str, target: Path, way: _Way, max_size: int, stop: threading.Event, log: Any
    ) -> None:
        self._url, self._target, self._way = url, target, way
        self._max_size, self._stop, self._log = max_size, stop, log
        self._begin_again()

    def _begin_again(self) -> None:
        self.size = 0
        self._digest = hashlib.sha256()
        self._validator: str | None = None
        self._total: int | None = None
        self._target.write_bytes(b"")

    def attempt(self) -> Download:
        """Asks once, for what is still missing if the server can tell that it is the same file."""
        headers = {"User-Agent": f"airflow-media-tasks/{__version__}", "Accept-Encoding": "identity"}
        if self.size and self._validator:
            headers |= {"Range": f"bytes={self.size}-", "If-Range": self._validator}
        with self._way.reply(httpx.URL(self._url), headers) as reply:
            status = reply.status_code
            if 400 <= status < 500 and status not in _LATER:
                raise UrlRefused(f"answers HTTP {status}", expired=_says_expired(reply))
            if status == 407:
                raise _Broken("HTTP 407, the proxy wants another user or password")
            if status >= 500 or (status in _LATER and status != 416):
                raise _Broken(f"HTTP {status}")
            if status == 206 and self._goes_on(reply):
                self._log.info("%s goes on at byte %d", shown(self._url, 300), self.size)
            elif status in (200, 203) or (status == 206 and _is_whole(reply)):
                self._begin_again()
                self._total = _whole_number(reply.headers.get("content-length"))
                self._validator = _validator(reply)
            elif status in (206, 416):
                self._begin_again()
                raise _Broken(f"HTTP {status} with a part that was not asked for")
            else:
                raise MediaProviderError(f"download of {shown(self._url, 300)} is answered by HTTP {status}")
            self._receive(reply)
            kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        if self.size == 0:
            raise MediaProviderError(f"{shown(self._url, 300)} is an empty file")
        return Download(kind, self.size, self._digest.hexdigest())

    def _goes_on(self, reply: httpx.Response) -> bool:
        """Whether a partial *reply* begins where we stopped, in the same file."""
        place, _, total = reply.headers.get("content-range", "").partition("/")
        etag = reply.headers.get("etag")
        return bool(
            self.size
            and place.strip().lower().startswith(f"bytes {self.size}-")
            and (etag is None or etag == self._validator or not (self._validator or "").startswith('"'))
            and not _codings(reply)
            and (self._total is None or _whole_number(total) in (None, self._total))
        )

    def _receive(self, reply: httpx.Response) -> None:
        """Appends what comes to the file."""
        codings = _codings(reply)
        if len(codings) > 1 or not set(codings).issubset(_COMPRESSED):
            words = shown(", ".join(codings))
            raise MediaProviderError(
                f"{shown(self._url, 300)} comes compressed by {words}, which was not asked for"
            )
        first, chunks = _peeked(reply.iter_raw())
        compressed = bool(codings) and _is_compressed(first)
        if compressed:
            # Not httpx's own decoder: it unpacks a piece of any size at once.
            self._total, self._validator, chunks = None, None, _inflated(chunks)
        self._check_size(self._total or 0)
        reported = time.monotonic()
        with self._target.open("ab") as part:
            for chunk in chunks:
                if self._stop.is_set():
                    raise MediaProviderError(f"download of {shown(self._url, 300)} was given up")
                self._check_size(self.size + len(chunk))
                part.write(chunk)
                self._digest.update(chunk)
                self.size += len(chunk)
                if compressed:
                    self._check_ratio(reply.num_bytes_downloaded)
                if time.monotonic() - reported > _PROGRESS_SECONDS:
                    reported = time.monotonic()
                    whole = f"{self._total / 1024**2:.0f}" if self._total else "?"
                    self._log.info("%.0f of %s MiB of %s", self.size / 1024**2, whole, shown(self._url, 300))
        if self._total is not None and self.size != self._total:
            raise _Broken(f"{self.size} bytes came where {self._total} were announced")

    def _check_size(self, size: int) -> None:
        if size > self._max_size:
            raise too_large(self._url, self._max_size)

    def _check_ratio(self, sent: int) -> None:
        if self.size > max(_INFLATED_BYTES, _INFLATED_RATIO * sent):
            raise MediaProviderError(
                f"{shown(self._url, 300)} unpacks to more than {_INFLATED_RATIO} times what was sent: no "
                "media file does, so it was stopped",
                code="decompression_bomb",
            )


@dataclass
class _Way:
    """How a URL is asked: directly at an address that was checked, or by a *proxy*."""

    allowed: AllowedHosts
    proxy: httpx.Proxy | None
    headers_for: Callable[[str], Mapping[str, str]]
    asked_proxy: bool = field(default=False, init=False)
    """Whether it was the proxy that was asked last."""

    @contextlib.contextmanager
    def reply(self, url: httpx.URL, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """The answer to a GET, after redirects, each of which is checked as the first address was."""
        ours = self.headers_for(str(url))
        for _ in range(REDIRECTS + 1):
            if url.scheme not in ("http", "https") or not url.host:
                raise MediaRequestError(f"only http and https URLs can be downloaded, got {shown(str(url))}")
            with self._ask(url, {**headers, **ours}) as reply:
                if not reply.has_redirect_location:
                    yield reply
                    return
                target = url.join(reply.headers["location"])
            if url.scheme == "https" and target.scheme == "http":
                raise MediaProviderError(f"{shown(str(url), 300)} redirects from https to http")
            url = target
            # Whoever else was asked on the way may have chosen what comes after it.
            ours = self.headers_for(str(url)) if ours else ours
        raise MediaProviderError(f"more than {REDIRECTS} redirects, the last to {shown(str(url), 300)}")

    @contextlib.contextmanager
    def _ask(self, url: httpx.URL, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """The answer of *url* itself.

        The client is new each time, so that no cookie goes along, and no connection on which the certificate
        of one name was checked is used for another name at the same address.
        """
        addresses = self._addresses_of(url)
        proxy = None if addresses else self.proxy
        self.asked_proxy = proxy is not None
        with httpx.Client(verify=_tls(), trust_env=False, timeout=TIMEOUT, proxy=proxy) as client:
            if not addresses:
                reply = client.send(
                    client.build_request("GET", url.copy_with(userinfo=b""), headers=headers), stream=True
                )
            for number, address in enumerate(addresses, 1):
                request = client.build_request(
                    "GET",
                    url.copy_with(host=address, userinfo=b""),
                    headers={**headers, "Host": url.netloc.decode("ascii")},
                    extensions={"sni_hostname": url.raw_host.decode("ascii").rstrip(".")},
                )
                try:
                    reply = client.send(request, stream=True)
                    break
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    if number == len(addresses):
                        raise
            try:
                yield reply
            finally:
                reply.close()

    def _addresses_of(self, url: httpx.URL) -> list[str]:
        """Where *url* is asked; nothing if the proxy finds the way.

        What is private is allowed or refused as ever, and never the proxy's, as far as this machine can tell.
        """
        port = url.port or (443 if url.scheme == "https" else 80)
        if self.proxy is None:
            return self.allowed.addresses_of(url.host, port)
        try:
            addresses = self.allowed.addresses_of(url.host, port)
        except _NoAddress:
            if not (self.allowed.names(url.host) or is_public_name(url.host)):
                raise MediaRequestError(
                    f"{shown(url.host)} is no name of the public internet, and the proxy is not asked for "
                    "it; if it is yours, name it in the setting [media_tasks] allowed_hosts"
                ) from None
            return []
        return [] if all(is_public(ipaddress.ip_address(one)) for one in addresses) else addresses


@functools.cache
def _tls() -> ssl.SSLContext:
    """One for all: to read the certificates takes longer than to use them."""
    return httpx.create_ssl_context()


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """*chunks* of gzip or zlib, unpacked in pieces of at most CHUNK bytes."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    for chunk in chunks:
        rest = chunk
        while True:
            if unpacker.eof and rest:
                unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
            try:
                piece = unpacker.decompress(rest, CHUNK)
            except zlib.error as error:
                raise _Broken(f"what is said to be compressed is not ({error})") from error
            rest = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            if piece:
                yield piece
            if not rest and len(piece) < CHUNK:
                break
    if not unpacker.eof:
        raise _Broken("the compressed data end too early")


def _codings(reply: httpx.Response) -> list[str]:
    """What the body is coded by; words that name no coding (aws-chunked, utf-8) are left in many uploads."""
    words = reply.headers.get("content-encoding", "").lower().split(",")
    return [word.strip() for word in words if word.strip() in (*_COMPRESSED, *_UNKNOWN_TO_US)]


def _peeked(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes of *chunks*, two at least if there are so many, and all of them."""
    first = b""
    for chunk in chunks:
        first += chunk
        if len(first) >= len(_GZIP):
            break
    return first, itertools.chain([first], chunks)


def _is_compressed(first: bytes) -> bool:
    """Whether what begins so is gzip or zlib, as no media file does."""
    number = int.from_bytes(first[:2], "big")
    return first.startswith(_GZIP) or (number % 31 == 0 and number >> 8 & 15 == zlib.DEFLATED)


def _says_expired(reply: httpx.Response) -> bool:
    """Whether a refusal speaks of expiry; not in a page for people, which may speak of anything."""
    said = b""
    with contextlib.suppress(httpx.HTTPError):
        said = next(reply.iter_raw(), b"")[:_REFUSAL].lower()
    return b"expired" in said and b"<html" not in said


def _is_whole(reply: httpx.Response) -> bool:
    """Whether a partial *reply* is all there is, as far as it says."""
    match = re.fullmatch(
        r"bytes 0-(\d{1,18})/(\d{1,18}|\*)", reply.headers.get("content-range", "bytes 0-0/*")
    )
    return match is not None and match[2] in ("*", str(int(match[1]) + 1))


def _validator(reply: httpx.Response) -> str | None:
    """What an interrupted transfer can be continued by, if the server says that it can."""
    if reply.headers.get("accept-ranges", "").strip().lower() != "bytes":
        return None
    etag: str = reply.headers.get("etag", "")
    return etag if etag.startswith('"') else reply.headers.get("last-modified")


def _whole_number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdecimal() else None


def _words(error: BaseException | None) -> str:
    """What *error* says, or at least its name; a server's words are bounded and harmless."""
    return shown(str(error), 300)[1:-1] if error and str(error) else type(error).__name__
