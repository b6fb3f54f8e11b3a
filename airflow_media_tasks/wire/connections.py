"""What a hook takes from its Airflow connection."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_media_tasks.task import MediaRequestError, shown


_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Settings:
    """What a hook takes from its connection.

    :param base_url: without a slash at its end.
    """

    base_url: str
    login: str = field(repr=False)
    password: str = field(repr=False)
    extra: Mapping[str, Any]


def settings_of(connection: Any, conn_id: str, default_url: str) -> Settings:
    """The settings that an Airflow *connection* holds.

    :param conn_id: its id, for errors.
    :param default_url: the provider's public address, where the connection has no host.
    :raises MediaRequestError: naming what is wrong with its address, and what to write.
    """
    return Settings(
        base_url=_base_url(connection, f"connection {conn_id!r}", default_url),
        # A key that was pasted brings along the space or the line break beside it.
        login=(connection.login or "").strip(),
        password=(connection.password or "").strip(),
        extra=connection.extra_dejson,
    )


def _base_url(connection: Any, where: str, default_url: str) -> str:
    """Host, port and schema in one URL; what two of them say must be the same.

    The schema is `http` or `https`, as in Airflow's own HTTP connections. Anything else there is a path: that
    is where Airflow puts the path of a connection's URI. A port of 0 is none: Airflow's UI sends it.
    """
    host = (connection.host or default_url).strip()
    schema = (connection.schema or "").strip(" /")
    scheme, _, rest = host.rpartition("://")
    authority, _, path = rest.rstrip("/").partition("/")
    host = host.rstrip("/")
    if _address(authority):
        authority = f"[{authority}]" if ":" in authority else authority
    try:
        parts = urlsplit(f"//{authority}")
        name, port = parts.hostname or "", parts.port
        usable = (
            name
            and port != 0
            and (connection.port or 0) in range(65536)
            and scheme.lower() in ("", "http", "https")
        )
        usable = usable and f"{host}{schema}".isprintable() and not set(" @?#") & set(f"{host}{schema}")
    except ValueError:
        usable = False
    if not usable:
        raise MediaRequestError(
            f"{where}: host must be a URL such as {default_url}, without a user, a password or a query, got "
            f"{shown(host.rpartition('@')[2])}"
        )
    is_scheme = schema.lower() in ("http", "https")
    for what, in_host, field_, beside in (
        ("scheme", scheme.lower(), "schema", schema.lower() if is_scheme else ""),
        ("path", path, "schema", "" if is_scheme else schema),
        ("port", port, "port", connection.port),
    ):
        if in_host and beside and in_host != beside:
            raise MediaRequestError(
                f"{where}: the host {shown(host)} has a {what}, and {field_} says {shown(beside)}; write the "
                f"whole address into host, as in {default_url}, and leave port and schema empty"
            )
    port = port or connection.port or None
    path = path or ("" if is_scheme else schema)
    is_loopback = name == "localhost" or getattr(_address(name), "is_loopback", False)
    scheme = scheme.lower() or (schema.lower() if is_scheme else "http" if is_loopback else "https")
    allows_http = is_true(connection.extra_dejson, "allow_http", where)
    if scheme == "http" and not is_loopback and not allows_http:
        raise MediaRequestError(
            f"{where}: over http anybody on the way to {shown(name)} can read the key; write https:// or, "
            'where the network is your own, {"allow_http": true} into the extra'
        )
    end = authority if port is None or parts.port else f"{authority}:{port}"
    return f"{scheme}://{end}" + (f"/{path}" if path else "")


def is_below(url: str, base_url: str) -> bool:
    """Whether *url* is of the server at *base_url* and below its path, whoever reads it."""
    try:
        there, base = urlsplit(url), urlsplit(base_url)
        servers = {(one.scheme, one.hostname, one.port or _PORTS.get(one.scheme)) for one in (there, base)}
    except ValueError:
        return False
    # What one reads in another way than the next, is not.
    plain = url.isprintable() and not set(" \\") & set(url) and "@" not in there.netloc
    stays = ".." not in re.split(r"[/\\]", unquote(there.path))
    return plain and stays and len(servers) == 1 and there.path.startswith(f"{base.path.rstrip('/')}/")


def is_true(extra: Mapping[str, Any], name: str, where: str) -> bool:
    """Whether *name* is true in a connection's *extra*, where a form may have left a text.

    :param where: whose it is, for the error.
    :raises MediaRequestError: if it is neither true nor false.
    """
    said = str(extra.get(name)).lower()
    if said not in ("true", "false", "none", ""):
        raise MediaRequestError(
            f"{where}: {name} in extra must be true or false, got {shown(extra.get(name))}"
        )
    return said == "true"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
