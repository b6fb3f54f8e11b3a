"""Addresses: what is one, and whether it is of the internet at large."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Any
from urllib.parse import urlsplit


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_UNICAST = ipaddress.IPv6Network("2000::/3")
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
_AT_HOME = ("arpa", "corp", "home", "internal", "intranet", "lan", "local", "localhost", "private")


def is_public(address: Address) -> bool:
    """Whether *address* is of the internet at large; one that stands for an IPv4 address is as that is."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast and not address.is_reserved
    inner = address.ipv4_mapped or address.sixtofour
    if address in _TRANSLATED:
        inner = ipaddress.IPv4Address(address.packed[-4:])
    return is_public(inner) if inner is not None else address.is_global and address in _UNICAST


def is_public_name(host: str) -> bool:
    """Whether *host*, which has no address here, may be one of the internet at large.

    One whose last part is a number is an address in an unusual form; which names stay at home is said by the
    registry of special-use names, and by what people use.
    """
    *above, last = host.lower().rstrip(".").split(".")
    return bool(above) and last not in _AT_HOME and not re.fullmatch(r"\d+|0x[0-9a-f]*", last)


def is_private(host: str) -> bool:
    """Whether *host*, a name or an address, is somewhere that the internet at large does not reach.

    One address of it that is not public is enough; a name without any here is judged by itself.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return not is_public_name(host)
    return not all(is_public(ipaddress.ip_address(str(entry[4][0]).partition("%")[0])) for entry in found)


def is_address(value: Any) -> bool:
    """Whether *value* is a URL, http or https, that names a host."""
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and value.isprintable()
            and " " not in value
        )
    except ValueError:
        return False


def may_be_sent_to(url: str, *, from_home: bool) -> bool:
    """Whether something of ours may go to an address that somebody else has named.

    :param from_home: whether that is somebody on our own network, who may name what is there, too.
    """
    if not is_address(url):
        return False
    parts = urlsplit(url)
    return from_home or (parts.scheme == "https" and not is_private(parts.hostname or ""))
