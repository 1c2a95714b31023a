"""HTTP proxies: which one leads to an engine, if any, and the tunnel through it."""

from __future__ import annotations

import base64
import logging
import re
import socket
from typing import TYPE_CHECKING, NamedTuple, Optional, Union
from urllib.parse import unquote, urlsplit

from ..errors import ConfigurationError
from .address import redacted
from .attempts import Attempts
from .dial import AnswerTooLarge, DeadlineSocket, dial
from .waiting import Deadline

if TYPE_CHECKING:
    import ipaddress

__all__ = ["Proxy", "proxy_for", "tunnel"]

_log = logging.getLogger("iii_sync.io")

_GATEWAY_ERRORS = (502, 503, 504)


class Proxy(NamedTuple):
    """An HTTP proxy that connects us; shown without its credentials.

    Attributes:
        host: Its name or address.
        port: Its port.
        credentials: The value of ``Proxy-Authorization``, or ``None``.
    """

    host: str
    port: int
    credentials: Optional[str]

    @classmethod
    def parse(cls, url: str, source: str) -> Proxy:
        """Read ``[http://][user:password@]host[:port]``; user and password are percent-encoded.

        Args:
            url: What to read.
            source: Where it comes from, for the error.

        Raises:
            ConfigurationError: It is something else.
        """
        proxy = _parsed(url) if isinstance(url, str) else None
        if proxy is None:
            shown = redacted(url) if isinstance(url, str) else type(url).__name__
            raise ConfigurationError(
                f"{source}: {shown} is no proxy that can be used: only http://[user:password@]host:port is supported, "
                'with user and password percent-encoded; proxy="" uses none'
            )
        return proxy

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"

    def __repr__(self) -> str:
        return str(self)


def _parsed(url: str) -> Optional[Proxy]:
    if re.search(r"[\x00-\x20\x7f]", url):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme != "http" or not host or parts.path.strip("/") or parts.query or parts.fragment:
        return None
    credentials = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        credentials = "Basic " + base64.b64encode(pair).decode("ascii")
    return Proxy(host, port or 80, credentials)


def proxy_for(host: str, port: int, secure: bool, given: Optional[str]) -> Optional[Proxy]:
    """Return the proxy that leads to an engine, or ``None`` for the direct way.

    The environment's is ``https_proxy`` for ``wss`` and ``http_proxy`` for ``ws``, else ``all_proxy``; never for
    this machine itself, and not for what ``no_proxy`` lists.

    Args:
        host: The engine's.
        port: The engine's.
        secure: Whether it is reached by ``wss``.
        given: The ``proxy`` option: a URL, ``""`` for none, ``None`` for the environment's.

    Raises:
        ConfigurationError: The proxy is none that can be used.
    """
    if given is not None:
        return Proxy.parse(given, "proxy") if given else None
    if _is_this_machine(host):
        return None  # no proxy can reach it for us
    from urllib.request import getproxies_environment

    proxies = getproxies_environment()
    for name in ("https" if secure else "http", "all"):
        if proxies.get(name):
            if _is_exempt(host, port, proxies.get("no", "")):
                return None
            return Proxy.parse(proxies[name], f"{name}_proxy in the environment")
    return None


def _is_this_machine(host: str) -> bool:
    address = _as_ip(host)
    if address is None:
        name = host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
    return address.is_loopback


def _as_ip(host: str) -> Union[None, ipaddress.IPv4Address, ipaddress.IPv6Address]:
    import ipaddress

    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Whether ``no_proxy`` lists it: names with all below them, addresses, networks; each with or without port."""
    import ipaddress

    name = host.lower().rstrip(".")
    address = _as_ip(host)
    for item in no_proxy.lower().split(","):
        item = item.strip()
        if item == "*":
            return True
        found = re.fullmatch(r"(?:\[(.+)\]|([^:]+)):(\d+)", item)
        if found:
            if int(found[3]) != port:
                continue
            item = found[1] or found[2]
        item = item.strip("[]")
        if address is not None:
            try:
                if address in ipaddress.ip_network(item, strict=False):
                    return True
            except ValueError:
                pass
            continue
        item = item[1:] if item.startswith("*.") else item
        item = item.strip(".")
        if item and (name == item or name.endswith("." + item)):
            return True
    return False


def tunnel(proxy: Proxy, host: str, port: int, deadline: Deadline, attempts: Attempts) -> socket.socket:
    """Have the proxy connect us: CONNECT, and a 2xx for an answer.

    Blocks until then, at most until ``deadline``.

    Raises:
        TimeoutError: The deadline passed; the text names the proxy.
        OSError: It could not or would not; likewise.
    """
    _log.debug("connecting to %s:%d through the proxy %s", host, port, proxy)
    target = f"{_bracketed(host)}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.credentials is not None:
        lines.append(f"Proxy-Authorization: {proxy.credentials}")
    try:
        sock = dial(proxy.host, proxy.port, deadline, attempts)
        try:
            wire = DeadlineSocket(sock, deadline)
            wire.send("\r\n".join([*lines, "", ""]).encode("utf-8"))
            _check_answer(proxy, wire, target)
            return sock
        except BaseException:
            attempts.close(sock)
            raise
    except (socket.timeout, TimeoutError):
        # Before 3.10 socket.timeout is a class of its own.
        raise TimeoutError(f"the proxy {proxy} has not connected us to {target}") from None
    except (OSError, AnswerTooLarge) as exc:
        raise OSError(f"through the proxy {proxy}: {exc}") from exc


def _check_answer(proxy: Proxy, wire: DeadlineSocket, target: str) -> None:
    answer = bytearray()
    # Byte by byte: what follows the answer is the engine's.
    while not answer.endswith(b"\r\n\r\n"):
        byte = wire.recv(1)
        if not byte:
            raise OSError("it closed the connection")
        answer += byte
    found = re.match(rb"HTTP/1\.[01] (\d\d\d)\b", answer)
    if not found:
        raise OSError("its answer is not HTTP")
    status = int(found[1])
    if 200 <= status < 300:
        return
    # Not its own words: it may quote what it was sent.
    import http  # for refusals only

    phrase = http.HTTPStatus(status).phrase if status in http.HTTPStatus._value2member_map_ else ""
    said = f"it answered {status} {phrase}".rstrip()
    if status == 407 and proxy.credentials is None:
        raise OSError(f"{said}; give it a user and password: http://user:password@{proxy}")
    if status == 407:
        raise OSError(f"{said}; it does not accept the user and password of its URL")
    if status in _GATEWAY_ERRORS:
        raise OSError(f"{said}; it cannot reach {target}")
    raise OSError(said)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
