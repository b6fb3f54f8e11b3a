from __future__ import annotations

import os
from typing import Any

import pytest
from airflow.sdk import Connection

from airflow_media_tasks.task import MediaRequestError
from airflow_media_tasks.wire.connections import Settings, is_below, settings_of


DEFAULT = "https://api.example.com"


def settings(**fields: Any) -> Settings:
    """What a connection with these fields comes to."""
    return settings_of(Connection(conn_id="c", conn_type="vap", **fields), "c", DEFAULT)


def of_uri(uri: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What a connection given as a URI comes to, as Airflow reads it."""
    monkeypatch.setitem(os.environ, "AIRFLOW_CONN_OF_URI", uri)
    return settings_of(Connection.get("of_uri"), "of_uri", DEFAULT)


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, DEFAULT),
        ({"host": "", "port": 0, "schema": ""}, DEFAULT),
        ({"port": 8443}, f"{DEFAULT}:8443"),
        ({"schema": "https"}, DEFAULT),
        ({"host": "https://proxy.example"}, "https://proxy.example"),
        ({"host": " https://proxy.example/kling/ "}, "https://proxy.example/kling"),
        ({"host": "https://proxy.example", "port": 0}, "https://proxy.example"),
        ({"host": "https://proxy.example", "port": 8765}, "https://proxy.example:8765"),
        ({"host": "https://proxy.example/kling", "port": 8765}, "https://proxy.example:8765/kling"),
        ({"host": "https://proxy.example:8765/kling", "port": 8765}, "https://proxy.example:8765/kling"),
        ({"host": "proxy.example"}, "https://proxy.example"),
        ({"host": "proxy.example/kling", "port": 8765}, "https://proxy.example:8765/kling"),
        ({"host": "proxy.example", "schema": "https", "port": 1}, "https://proxy.example:1"),
        ({"host": "https://proxy.example", "schema": "HTTPS"}, "https://proxy.example"),
        ({"host": "https://proxy.example", "schema": "/a/b/"}, "https://proxy.example/a/b"),
        ({"host": "https://proxy.example/a", "schema": "a"}, "https://proxy.example/a"),
        ({"host": "127.0.0.1", "port": 8765, "schema": "vap"}, "http://127.0.0.1:8765/vap"),
        ({"host": "localhost:8765"}, "http://localhost:8765"),
        ({"host": "localhost", "port": 8765, "schema": "https"}, "https://localhost:8765"),
        ({"host": "::1", "port": 8765}, "http://[::1]:8765"),
        ({"host": "http://[::1]:8765/vap"}, "http://[::1]:8765/vap"),
    ],
)
def test_host_port_and_schema(fields: dict[str, Any], url: str) -> None:
    """Host, port and schema are one address, in whichever of them each part of it stands."""
    assert settings(**fields).base_url == url


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("vap://:key@", DEFAULT),
        ("vap://:key@/?service=veo", DEFAULT),
        ("vap://:key@127.0.0.1:8765/vap", "http://127.0.0.1:8765/vap"),
        ("vap://:key@proxy.example:8765/vap/v1", "https://proxy.example:8765/vap/v1"),
        ("vap://http://:key@127.0.0.1:8765/vap", "http://127.0.0.1:8765/vap"),
        ("vap://:key@https%3A%2F%2Fproxy.example%3A8765%2Fvap", "https://proxy.example:8765/vap"),
        ("vap://:key@http%3A%2F%2Fproxy.example%2Fvap?allow_http=true", "http://proxy.example/vap"),
    ],
)
def test_address_in_a_uri(uri: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a connection's URI is a path, and its port is a port."""
    assert of_uri(uri, monkeypatch).base_url == url
    assert of_uri(uri, monkeypatch).password == "key"


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"host": "https://proxy.example:1", "port": 2}, "has a port, and port says 2"),
        ({"host": "https://proxy.example", "schema": "http"}, "has a scheme, and schema says 'http'"),
        ({"host": "https://proxy.example/a", "schema": "b"}, "has a path, and schema says 'b'"),
    ],
)
def test_contradiction(fields: dict[str, Any], what: str) -> None:
    """What the fields say against each other is refused, with the form that works."""
    with pytest.raises(MediaRequestError, match="leave port and schema empty") as caught:
        settings(**fields)
    assert what in str(caught.value)
    assert "connection 'c'" in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "host", "port": 99999},
        {"host": "https://host/a b"},
        {"host": "https://host", "schema": "a?b"},
        {"host": "https://host", "schema": "a\nb"},
        {"host": "https://http://host"},
    ],
)
def test_no_address(fields: dict[str, Any]) -> None:
    """What makes no address is refused."""
    with pytest.raises(MediaRequestError, match=r"host must be a URL such as https://api\.example\.com"):
        settings(**fields)


@pytest.mark.parametrize("host", ["http://10.0.0.7", "http://proxy.example/a", "http://localhost.example"])
def test_plain_http_is_for_loopback(host: str) -> None:
    """Over http the key can be read on the way: so it goes to this machine only, or where one says so."""
    with pytest.raises(MediaRequestError, match=r"anybody on the way to .* can read the key.*allow_http"):
        settings(host=host)
    with pytest.raises(MediaRequestError, match="allow_http"):
        settings(host=host, extra='{"allow_http": false}')
    assert settings(host=host, extra='{"allow_http": true}').base_url == host
    assert settings(host="http://127.0.0.53:80").base_url == "http://127.0.0.53:80"


@pytest.mark.parametrize("value", ['"yes"', "1", '"on"', "[]"])
def test_allow_http_is_true_or_false(value: str) -> None:
    """Anything else is not taken for the one or the other, whatever the host is."""
    with pytest.raises(
        MediaRequestError, match="connection 'c': allow_http in extra must be true or false, got"
    ):
        settings(extra=f'{{"allow_http": {value}}}')


def test_key_is_stripped_at_its_ends() -> None:
    """The space or line break that was pasted along belongs to no key."""
    found = settings(login="\taccess ", password=" a key\r\n")
    assert (found.login, found.password) == ("access", "a key")


@pytest.mark.parametrize(
    ("url", "base_url", "below"),
    [
        ("https://api.example.com/v1/x", "https://api.example.com", True),
        ("https://api.example.com:443/v1/x?y=/../z", "https://api.example.com", True),
        ("https://API.example.com/v1/x", "https://api.example.com:443/v1", True),
        ("http://127.0.0.1:8765/api/x", "http://127.0.0.1:8765/api", True),
        ("https://api.example.com/v10/x", "https://api.example.com/v1", False),
        ("https://api.example.com/v1", "https://api.example.com/v1", False),
        ("https://api.example.com", "https://api.example.com", False),
        ("http://api.example.com/v1/x", "https://api.example.com", False),
        ("https://api.example.com:8443/v1/x", "https://api.example.com", False),
        ("https://api.example.com.evil.com/x", "https://api.example.com", False),
        ("https://evil.com/api.example.com/x", "https://api.example.com", False),
        ("https://api.example.com@evil.com/x", "https://api.example.com", False),
        ("https://evil.com@api.example.com/x", "https://api.example.com", False),
        ("https://evil.com\\@api.example.com/x", "https://api.example.com", False),
        ("https://api.example.com\\.evil.com/x", "https://api.example.com", False),
        ("https://api.example.com/v1/../x", "https://api.example.com/v1", False),
        ("https://api.example.com/v1/%2e%2E/x", "https://api.example.com/v1", False),
        ("https://api.example.com/v1/..%2fx", "https://api.example.com/v1", False),
        ("https://api.example.com/v1/a\nb", "https://api.example.com/v1", False),
        ("https://api.example.com:port/v1/x", "https://api.example.com", False),
        ("https://[::1/x", "https://api.example.com", False),
        ("", "https://api.example.com", False),
    ],
)
def test_what_is_below_an_address(url: str, base_url: str, below: bool) -> None:
    """The same scheme, host and port, and a path that stays below: that is where a key may go."""
    assert is_below(url, base_url) is below
