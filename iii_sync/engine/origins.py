"""Which web pages may talk to the engine: any of them can reach a loopback port through its visitor's browser."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Optional
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": ":80", "ws": ":80", "https": ":443", "wss": ":443"}


def is_own_host(host: str, own: str, transport: Optional[asyncio.BaseTransport]) -> bool:
    """Tell whether a ``Host`` header names this machine; a foreign name that leads here is DNS rebinding.

    Args:
        host: The header.
        own: The name or address the server was bound to, in lower case.
        transport: The connection.
    """
    name = _name(host)
    if name in ("localhost", own):
        return bool(name)
    local = transport.get_extra_info("sockname") if transport is not None else None
    return _is_loopback(name) or (local is not None and name == local[0])


def wrong_host(host: str) -> str:
    """Return what to say to a ``Host`` header that does not name this machine."""
    name = _name(host)
    return (
        f"This engine does not answer to the name {name!r:.200}: any web page can make a name that leads here. Use the "
        f"address of this machine, or have the engine listen under that name: --host {name:.200}"
    )


def is_same_host(origin: str, host: str) -> bool:
    """Tell whether an ``Origin`` header names the very server that the ``Host`` header names."""
    scheme, _, rest = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme, ":")
    return _without(rest, port) == _without(host.lower(), port)


def is_local_page(origin: str) -> bool:
    """Tell whether an ``Origin`` header names a page that this machine itself serves, on whatever port."""
    name = _name(origin.partition("://")[2])
    return name == "localhost" or _is_loopback(name)


def _name(authority: str) -> str:
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _without(authority: str, port: str) -> str:
    return authority[: -len(port)] if authority.endswith(port) else authority
