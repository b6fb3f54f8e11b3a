"""From a URL to a local file: which addresses are asked, and what comes of a server that does not obey."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import logging
import re
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from airflow_media_tasks.landing import downloads
from airflow_media_tasks.landing.downloads import (
    AllowedHosts,
    Download,
    UrlRefused,
    download,
    is_public,
    proxy_of,
)
from airflow_media_tasks.task import MediaProviderError, MediaRequestError, MediaTaskError

from .hostile import Hostile, served


SIZE = 300_000
LOOPBACK = AllowedHosts("127.0.0.1")
log = logging.getLogger(__name__)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken transfers are repeated at once, and nobody waits long for a byte."""
    monkeypatch.setattr(downloads, "RETRY_WAIT", 0.0)
    monkeypatch.setattr(downloads, "TIMEOUT", httpx.Timeout(0.3))


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    """A server that does not play along."""
    with served(SIZE) as server:
        yield server


def fetch(url: str, target: Path, *, allowed: AllowedHosts = LOOPBACK, max_size: int = 10**8) -> Download:
    """Downloads as landing does."""
    return download(url, target, allowed, max_size, threading.Event(), log)


# Which addresses are asked.


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.0.1",
        "0.0.0.0",  # noqa: S104  # an address like others
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.1.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:0:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2001::1",
        "2001:db8::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "4000::1",
    ],
)
def test_what_is_not_of_the_internet_is_not_public(address: str) -> None:
    """Neither private nor special ranges, nor what stands for one of them."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::1"],
)
def test_what_is_of_the_internet_is_public(address: str) -> None:
    """Also where it is written as an IPv6 address."""
    assert is_public(ipaddress.ip_address(address))


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Every name has these addresses from now on; the names that were asked for."""
    names: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            names.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return names


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/plain/1",
        "http://localhost:{port}/plain/1",
        "http://2130706433:{port}/plain/1",
        "http://0x7f.1:{port}/plain/1",
        "http://[::ffff:127.0.0.1]:{port}/plain/1",
        "http://user:word@127.0.0.1:{port}/plain/1",
        "http://127.0.0.1.:{port}/plain/1",
    ],
)
def test_a_private_address_is_not_asked(hostile: Hostile, tmp_path: Path, url: str) -> None:
    """However it is written; the error names the setting."""
    with pytest.raises(MediaTaskError) as refused:
        fetch(url.format(port=hostile.server_port), tmp_path / "x", allowed=AllowedHosts(""))
    assert "allowed_hosts" in str(refused.value) or "has no address" in str(refused.value)
    assert hostile.seen == []


def test_one_private_address_of_a_name_is_enough(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public and private at once is asked at neither."""
    resolves_to(monkeypatch, "1.1.1.1", "127.0.0.1")
    with pytest.raises(
        MediaRequestError, match=r"'cdn\.example' is 127\.0\.0\.1, which is not a public address"
    ):
        fetch(f"http://cdn.example:{hostile.server_port}/plain/1", tmp_path / "x", allowed=AllowedHosts(""))
    assert hostile.seen == []


def test_the_address_that_was_checked_is_the_one_that_is_asked(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is resolved once: it cannot become another address between the check and the connection."""
    names = resolves_to(monkeypatch, "127.0.0.1")
    fetch(
        f"http://cdn.example:{hostile.server_port}/plain/1",
        tmp_path / "x",
        allowed=AllowedHosts("cdn.example"),
    )
    assert names == ["cdn.example"]
    ((_, headers),) = hostile.seen
    assert headers["Host"] == f"cdn.example:{hostile.server_port}"


@pytest.mark.parametrize(
    "allowed",
    ["cdn.example", " other , CDN.example. ", "127.0.0.0/8", "10.0.0.1,127.0.0.1", "::1, 127.0.0.1/32"],
)
def test_allowed_hosts_are_asked(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    """By name, address or range."""
    resolves_to(monkeypatch, "127.0.0.1")
    fetch(f"http://cdn.example:{hostile.server_port}/plain/1", tmp_path / "x", allowed=AllowedHosts(allowed))


@pytest.mark.parametrize("allowed", ["sub.cdn.example", "example", "10.0.0.0/8", "128.0.0.0/8", "::1"])
def test_other_hosts_are_not(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    """A name stands for itself alone."""
    resolves_to(monkeypatch, "127.0.0.1")
    with pytest.raises(MediaRequestError, match="not a public address"):
        fetch(f"http://cdn.example:{hostile.server_port}/x", tmp_path / "x", allowed=AllowedHosts(allowed))


@pytest.mark.parametrize("allowed", ["http://cdn.example", "cdn.example:80", "10.0.0.0/40", "cdn/8"])
def test_a_wrong_setting_is_said(allowed: str) -> None:
    """Rather than to stand for nothing."""
    with pytest.raises(MediaRequestError, match="allowed_hosts"):
        AllowedHosts(allowed)


def test_another_address_of_the_name_is_asked_when_the_first_is_silent(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As any client does, with addresses that were all checked."""
    resolves_to(monkeypatch, "127.0.0.9", "127.0.0.1")
    fetch(
        f"http://cdn.example:{hostile.server_port}/plain/1",
        tmp_path / "x",
        allowed=AllowedHosts("127.0.0.0/8"),
    )
    assert len(hostile.seen) == 1


def test_no_secret_goes_along(hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no cookie, no password of the URL or of a .netrc, and no proxy of the environment."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    fetch(f"http://user:word@127.0.0.1:{hostile.server_port}/redirect/1", tmp_path / "x")
    assert len(hostile.seen) == 3
    for _, headers in hostile.seen:
        assert set(headers) == {"Host", "Accept", "Connection", "User-Agent", "Accept-Encoding"}


# By a proxy.


class Proxy(BaseHTTPRequestHandler):
    """A proxy that knows `cdn.media.invalid`, which nobody else does, and wants a password."""

    server: ProxyServer

    def do_GET(self) -> None:
        """Asks, or leads through."""
        method = self.command
        self.server.seen.append((method, self.path, dict(self.headers)))
        if self.headers.get("Proxy-Authorization") != self.server.password:
            self.send_error(407)
            return
        if not re.search(r"(^|/)cdn\.media\.invalid[:/]", self.path):
            self.send_error(502)
            return
        with socket.create_connection(("127.0.0.1", self.server.behind)) as there:
            if method == "CONNECT":
                self.send_response(200)
                self.end_headers()
            else:
                path = httpx.URL(self.path).raw_path.decode()
                there.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            up = threading.Thread(target=self._pump, args=(self.connection, there))
            up.start()
            self._pump(there, self.connection)
            up.join()
        self.close_connection = True

    do_CONNECT = do_GET  # noqa: N815  # a name of the standard library

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(65536):
                target.sendall(part)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class ProxyServer(ThreadingHTTPServer):
    """Where the proxy listens: `url` with its password in it, `behind` the port of the server it leads to."""

    daemon_threads = True
    password = "Basic " + base64.b64encode(b"me:proxy-secret").decode()

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Proxy)
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.behind = 9
        self.url = f"http://me:proxy-secret@127.0.0.1:{self.server_port}"


@pytest.fixture
def proxy() -> Iterator[ProxyServer]:
    """The one way out."""
    server = ProxyServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def by_proxy(url: str, target: Path, proxy: str, allowed: str = "") -> Download:
    """Downloads as landing does where the setting names a proxy."""
    return download(url, target, AllowedHosts(allowed), 10**8, threading.Event(), log, proxy_of(proxy))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_finds_what_nobody_here_knows(
    proxy: ProxyServer, tmp_path: Path, authority: trustme.CA, scheme: str
) -> None:
    """Where it is the one way out; the certificate is that of the host, and no secret goes to the host."""
    tls = secured(authority, "cdn.media.invalid") if scheme == "https" else None
    with served(SIZE, tls) as server:
        proxy.behind = server.server_port
        got = by_proxy(f"{scheme}://cdn.media.invalid/plain/1", tmp_path / "x", proxy.url)
        assert got.sha256 == hashlib.sha256(server.content(1)).hexdigest()
        assert "proxy-secret" not in str(server.seen)
        assert proxy.password not in str(server.seen)
    assert [method for method, _, _ in proxy.seen] == ["GET" if scheme == "http" else "CONNECT"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/plain/1",
        "http://localhost:{port}/plain/1",
        "http://2130706433:{port}/plain/1",
        "http://0x7f.1:{port}/plain/1",
        "http://1.2.3.4.5:{port}/plain/1",
        "http://[::1]:{port}/plain/1",
        "http://10.1.2.3/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://metadata.google.internal/",
        "http://no-such-intranet/",
        "http://printer.local./",
        "http://cdn.media.invalid/private/1",
    ],
)
def test_a_proxy_is_not_asked_for_what_is_private(
    hostile: Hostile, proxy: ProxyServer, tmp_path: Path, url: str
) -> None:
    """As far as this machine can tell, also after a redirect."""
    proxy.behind = hostile.server_port
    with pytest.raises(MediaRequestError, match="allowed_hosts"):
        by_proxy(url.format(port=hostile.server_port), tmp_path / "x", proxy.url)
    assert len(proxy.seen) == ("cdn" in url)


def test_what_is_private_and_allowed_needs_no_proxy(
    hostile: Hostile, proxy: ProxyServer, tmp_path: Path
) -> None:
    """It is asked directly."""
    assert by_proxy(f"{hostile.url}/plain/1", tmp_path / "x", proxy.url, "127.0.0.1").size == SIZE
    assert proxy.seen == []


@pytest.mark.parametrize("trouble", ["wrong password", "knows no such host", "is not there"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_does_not_work_is_named(
    proxy: ProxyServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, trouble: str, scheme: str
) -> None:
    """By its host, and never with its password, neither in the error nor in the log."""
    caplog.set_level("DEBUG")
    url, way = f"{scheme}://cdn.media.invalid/plain/1", proxy.url
    if trouble == "wrong password":
        way = way.replace("proxy-secret", "proxy-secret-of-old")
    elif trouble == "knows no such host":
        url = f"{scheme}://other.media.invalid/plain/1"
    else:
        way = "http://me:proxy-secret@127.0.0.1:9"
    with pytest.raises(MediaTaskError, match=r"proxy 127\.0\.0\.1.*\[media_tasks\] proxy") as broken:
        by_proxy(url, tmp_path / "x", way)
    assert not isinstance(broken.value, MediaRequestError)
    text = f"{broken.value} {caplog.text}"
    assert "proxy-secret" not in text
    assert base64.b64encode(b"me:proxy-secret").decode()[:-4] not in text


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_where_only_the_environment_names_a_proxy_the_error_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The hooks go by the environment; files only by the setting."""
    monkeypatch.setenv(name, "http://me:proxy-secret@127.0.0.1:9")
    with pytest.raises(MediaProviderError, match=r"\[media_tasks\] proxy") as broken:
        fetch("http://cdn.media.invalid/a.png", tmp_path / "x")
    assert name in str(broken.value)
    assert "proxy-secret" not in str(broken.value)


@pytest.mark.parametrize(
    "text", ["proxy:3128", "me:secret@proxy", "ftp://me:secret@proxy", "http://", "socks5://a:1"]
)
def test_a_wrong_proxy_is_said_without_its_password(text: str) -> None:
    """The setting is named, and what it should be."""
    with pytest.raises(MediaRequestError, match=r"\[media_tasks\] proxy") as refused:
        proxy_of(text)
    assert "secret" not in str(refused.value)


# TLS.


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    """A certificate authority that we trust."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    downloads._tls.cache_clear()
    yield ca
    downloads._tls.cache_clear()


def secured(ca: trustme.CA, name: str) -> ssl.SSLContext:
    """What a server of this name needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    return context


def test_a_certificate_is_checked_against_the_name(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not against the address that is connected to, which has none of its own."""
    resolves_to(monkeypatch, "127.0.0.1")
    with served(SIZE, secured(authority, "cdn.example")) as server:
        got = fetch(f"https://cdn.example:{server.server_port}/plain/1", tmp_path / "x")
        assert got.sha256 == hashlib.sha256(server.content(1)).hexdigest()
        with pytest.raises(MediaProviderError, match=r"(?i)hostname mismatch"):
            fetch(f"https://other.example:{server.server_port}/plain/1", tmp_path / "x")
        with pytest.raises(MediaProviderError, match=r"(?i)IP address mismatch"):
            fetch(f"https://127.0.0.1:{server.server_port}/plain/1", tmp_path / "x")
        assert [path for path, _ in server.seen] == ["/plain/1"]


def test_a_certificate_of_nobody_is_refused(tmp_path: Path) -> None:
    """Who signed it matters."""
    with served(SIZE, secured(trustme.CA(), "127.0.0.1")) as server:
        with pytest.raises(MediaProviderError, match=r"(?i)certificate"):
            fetch(f"{server.url}/plain/1", tmp_path / "x")
        assert server.seen == []


def test_a_redirect_from_https_to_http_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    """What began in private does not go on in public."""
    with served(SIZE, secured(authority, "127.0.0.1")) as server:
        assert fetch(f"{server.url}/plain/1", tmp_path / "x").size == SIZE
        with pytest.raises(MediaProviderError, match="from https to http"):
            fetch(f"{server.url}/redirect/1", tmp_path / "x")


# What comes.


@pytest.mark.parametrize(
    "way",
    [
        "plain",
        "chunked",
        "cut",
        "cutnoranges",
        "changed",
        "liarchanged",
        "wrongpart",
        "stall",
        "busy",
        "redirect",
        "gzip",
        "mislabelled",
    ],
)
def test_what_can_be_had_is_had_byte_for_byte(hostile: Hostile, tmp_path: Path, way: str) -> None:
    """Whatever happens on the way."""
    got = fetch(f"{hostile.url}/{way}/7", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == hostile.content(7)
    assert (got.size, got.sha256) == (SIZE, hashlib.sha256(hostile.content(7)).hexdigest())
    assert got.content_type == ("text/html" if way == "mislabelled" else "audio/wav")


PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 200


def gzipped(content: bytes, wbits: int = 31) -> bytes:
    """*content* as gzip, or as zlib."""
    packer = zlib.compressobj(9, wbits=wbits)
    return packer.compress(content) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        *((word, PICTURE) for word in ("aws-chunked", "UTF-8", "base64", "binary", "none", "x, y", "")),
        *((word, PICTURE) for word in ("gzip", "deflate", "aws-chunked, gzip")),
        *((word, gzipped(PICTURE)) for word in ("gzip", "x-gzip", "aws-chunked,gzip", "GZIP, identity")),
        ("deflate", gzipped(PICTURE, 15)),
    ],
)
def test_the_bytes_say_whether_they_are_compressed(
    serve: Callable[..., str], tmp_path: Path, coding: str, body: bytes
) -> None:
    """A header that names no compression, or one that was not done, costs nobody a file."""
    url = serve(lambda *_: (200, {"Content-Encoding": coding}, body))
    got = fetch(url, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == PICTURE
    assert got.sha256 == hashlib.sha256(PICTURE).hexdigest()


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress"])
def test_what_we_cannot_unpack_is_said(serve: Callable[..., str], tmp_path: Path, coding: str) -> None:
    """By its name."""
    url = serve(lambda *_: (200, {"Content-Encoding": coding}, gzipped(gzipped(PICTURE))))
    with pytest.raises(MediaProviderError, match=f"compressed by '{coding}', which was not asked for"):
        fetch(url, tmp_path / "x")


LAST = len(PICTURE) - 1


@pytest.mark.parametrize(
    ("place", "body", "lands"),
    [
        (f"bytes 0-{LAST}/{LAST + 1}", PICTURE, True),
        (f"bytes 0-{LAST}/*", PICTURE, True),
        (None, PICTURE, True),
        (f"bytes 0-{LAST // 2}/{LAST + 1}", PICTURE[: LAST // 2 + 1], False),
        (f"bytes 5-{LAST}/{LAST + 1}", PICTURE[5:], False),
        ("bytes 0-x/y", PICTURE, False),
        (f"bytes 0-{'9' * 5000}/*", PICTURE, False),
    ],
)
def test_a_part_that_is_the_whole_lands(
    serve: Callable[..., str], tmp_path: Path, place: str | None, body: bytes, lands: bool
) -> None:
    """Where a server answers 206 though nobody asked for a part; half a file never does."""
    url = serve(lambda *_: (206, {} if place is None else {"Content-Range": place}, body))
    if lands:
        assert fetch(url, tmp_path / "x").size == len(PICTURE)
    else:
        with pytest.raises(MediaProviderError, match="a part that was not asked for"):
            fetch(url, tmp_path / "x")


def test_a_broken_transfer_goes_on_where_it_broke(hostile: Hostile, tmp_path: Path) -> None:
    """If the server can tell that it is still the same file; otherwise it begins again."""
    fetch(f"{hostile.url}/cut/7", tmp_path / "x")
    ranges = [headers.get("Range") for _, headers in hostile.seen]
    assert ranges[0] is None
    starts = [int(text.removeprefix("bytes=").removesuffix("-")) for text in ranges[1:] if text]
    assert starts == sorted(starts)
    assert starts[0] > 0
    assert {headers.get("If-Range") for _, headers in hostile.seen[1:]} == {'"1"'}
    hostile.seen.clear()
    fetch(f"{hostile.url}/cutnoranges/7", tmp_path / "x")
    assert [headers.get("Range") for _, headers in hostile.seen] == [None, None]


@pytest.mark.parametrize(
    ("way", "error", "says"),
    [
        ("alwayscut", MediaProviderError, "broke"),
        ("alwaysstalls", MediaProviderError, "broke: timed out"),
        ("toolong", MediaProviderError, "broke"),
        ("private", MediaRequestError, "not a public address"),
        ("file", MediaRequestError, "only http and https"),
        ("loop", MediaProviderError, "more than 5 redirects"),
        ("bomb", MediaProviderError, "unpacks to more than 100 times"),
        ("brotli", MediaProviderError, "compressed by 'br'"),
        ("huge", MediaRequestError, "larger than 100000000 bytes.*max_file_size"),
        ("endless", MediaRequestError, "larger than 100000000 bytes"),
        ("gone", UrlRefused, "HTTP 410"),
        ("expired", UrlRefused, "HTTP 403"),
    ],
)
def test_what_cannot_be_had_is_a_clear_error(
    hostile: Hostile, tmp_path: Path, way: str, error: type[Exception], says: str
) -> None:
    """Soon, and with little memory."""
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(error, match=says):
            fetch(f"{hostile.url}/{way}/1", tmp_path / "x")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16 * 1024**2
    assert time.monotonic() - began < 20
    assert hostile.times[f"/{way}/1"] <= downloads.ATTEMPTS


def test_nobody_there_is_the_providers_fault(tmp_path: Path) -> None:
    """So that Airflow tries again."""
    with pytest.raises(MediaProviderError, match=r"127\.0\.0\.1:9"):
        fetch("http://127.0.0.1:9/a.png", tmp_path / "x")
    with pytest.raises(MediaProviderError, match="has no address"):
        fetch("http://no.such.host.invalid/a.png", tmp_path / "x")


def test_a_big_file_never_fills_the_memory(tmp_path: Path) -> None:
    """100 MiB pass through less than 4, whatever the server keeps."""
    with served(100 * 1024**2) as server:
        server.content(1)
        tracemalloc.start()
        try:
            got = fetch(f"{server.url}/plain/1", tmp_path / "x", max_size=100 * 1024**2)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert got.sha256 == hashlib.sha256(server.content(1)).hexdigest()
    assert most < 4 * 1024**2


def test_it_says_how_far_it_is(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Now and then, and when it begins again."""
    monkeypatch.setattr(downloads, "_PROGRESS_SECONDS", 0.0)
    with caplog.at_level(logging.INFO):
        fetch(f"{hostile.url}/cut/7", tmp_path / "x")
    lines = [record.getMessage() for record in caplog.records]
    assert any("of 0 MiB of" in line for line in lines)
    assert any("attempt 2 of 6 follows" in line for line in lines)
    assert any("goes on at byte" in line for line in lines)
