"""From an address to a socket that speaks WebSocket: URL, TCP, proxy, TLS, handshake.

The only file that imports ``websocket``. It makes the handshake and checks the answer; after that the
socket is ours, framed by :mod:`iii_sync.wire.frames`. The handshake reads byte by byte, so it has never read
anything of what follows.

Everything here runs in the caller's thread, under one deadline for all steps together.
"""

from __future__ import annotations

import os
import re
import socket
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Optional
from urllib.parse import quote, unquote, urlsplit

import websocket

from ..errors import AuthenticationError, ConfigurationError, ConnectFailedError, ConnectTimeout, HandshakeRejectedError
from .waiting import Deadline, wait_for_socket

if TYPE_CHECKING:
    import ssl

__all__ = ["Address", "Route", "connect"]


class Address:
    """The engine's control URL, and the URLs derived from it.

    Args:
        url: ``ws://host[:port][/path][?query]`` or ``wss://…``.

    Raises:
        ConfigurationError: Anything else.
    """

    def __init__(self, url: str) -> None:
        if not isinstance(url, str):
            raise ConfigurationError(f"the address {url!r} must be text such as ws://host:port")
        self.url = url
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except (ValueError, AttributeError, TypeError) as exc:
            raise ConfigurationError(f"not an address of an engine: {_redacted(str(url))}: {exc}") from None
        if parts.scheme not in ("ws", "wss") or not host:
            raise ConfigurationError(
                f"not an address of an engine: {_redacted(url)}; give it as ws://host:port or wss://host:port"
            )
        if re.search(r"[\x00-\x20\x7f]", url):
            raise ConfigurationError(f"the address {_redacted(url)!r} holds blanks or control characters")
        if parts.username is not None:
            raise ConfigurationError(
                f"the address {_redacted(url)} holds a user name; give credentials in headers, or in III_TOKEN"
            )
        self.secure = parts.scheme == "wss"
        self.host: str = host
        self.port: int = port or (443 if self.secure else 80)

    def channel(self, channel_id: str, access_key: str, direction: str) -> str:
        """Return the URL of one end of a channel (PROTOCOL 1.2); it holds the access key, so never show it."""
        base, _, query = self.url.partition("?")
        keyed = f"key={quote(access_key, safe='')}&dir={direction}"
        query = f"{query}&{keyed}" if query else keyed
        return f"{base.rstrip('/')}/ws/channels/{quote(channel_id, safe='')}?{query}"

    def __str__(self) -> str:
        """The address without its query, which may hold a token."""
        return _redacted(self.url)


def _redacted(url: str) -> str:
    shown = re.sub(r"//[^/@]*@", "//…@", url.partition("?")[0])
    return shown + ("?…" if "?" in url else "")


class Route(NamedTuple):
    """How sockets are opened: the same for the control socket and for channel ends.

    Attributes:
        headers: Sent with every handshake.
        ssl_context: For ``wss``; ``None`` verifies against the system's authorities.
        proxy: ``http://[user:password@]host:port``; ``None`` takes the environment's, ``""`` none.
    """

    headers: Mapping[str, str]
    ssl_context: Optional[ssl.SSLContext]
    proxy: Optional[str]


def connect(address: Address, url: str, route: Route, timeout: Optional[float]) -> socket.socket:
    """Open a WebSocket and return its socket, non-blocking, right behind the handshake.

    Args:
        address: Where the engine is; errors show this.
        url: What to ask for there: the control URL or a channel's.
        route: Headers, TLS and proxy.
        timeout: Seconds for all steps together.

    Raises:
        ConnectFailedError: No TCP or TLS connection.
        AuthenticationError: The answer was 401 or 403.
        HandshakeRejectedError: The answer was not 101; ``status`` tells which.
        ConnectTimeout: The deadline passed.
    """
    deadline = Deadline(timeout)
    sock: Optional[socket.socket] = None
    try:
        sock = _dial(address, route, deadline)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _keep_alive(sock)
        if address.secure:
            sock = _start_tls(sock, address, route, deadline)
        _handshake(_DeadlineSocket(sock, deadline), address, url, route)
        sock.setblocking(False)
        connected, sock = sock, None
        return connected
    except (TimeoutError, socket.timeout, websocket.WebSocketTimeoutException) as exc:
        # Before 3.10 socket.timeout is a class of its own.
        raise ConnectTimeout(
            f"no WebSocket at {address} within {timeout:g} s"
            if timeout is not None
            else f"the connection to {address} timed out: {exc}"
        ) from exc
    except websocket.WebSocketBadStatusException as exc:
        if exc.status_code in (401, 403):
            raise AuthenticationError(
                f"{address} refused the credentials of this worker: HTTP {exc.status_code}", exc.status_code
            ) from None
        raise HandshakeRejectedError(
            f"{address} answered HTTP {exc.status_code} instead of opening a WebSocket", exc.status_code
        ) from None
    except ConnectionRefusedError as exc:
        raise ConnectFailedError(
            f"no connection to {address}: {exc}; is an engine running there? python -m iii_sync engine starts one"
        ) from exc
    except OSError as exc:
        raise ConnectFailedError(f"no connection to {address}: {exc}") from exc
    except ConfigurationError:
        raise
    except Exception as exc:
        # What the handshake's parser meets when the peer does not speak HTTP depends on its version.
        raise HandshakeRejectedError(f"{address} does not answer as a WebSocket: {exc}") from exc
    finally:
        if sock is not None:
            sock.close()


def _dial(address: Address, route: Route, deadline: Deadline) -> socket.socket:
    proxy = _proxy_for(address, route.proxy)
    if proxy is not None:
        return _tunnel(proxy, address, deadline)
    return _dial_host(address.host, address.port, deadline)


def _dial_host(host: str, port: int, deadline: Deadline) -> socket.socket:
    failure: Optional[OSError] = None
    for family, kind, protocol, _, target in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        _sockets.add(sock)
        try:
            sock.settimeout(_step(deadline))
            sock.connect(target)
            return sock
        except OSError as exc:
            sock.close()
            failure = exc
            if deadline.expired:
                break
        except BaseException:
            sock.close()
            raise
    raise failure or OSError("the name has no address")


def _step(deadline: Deadline) -> Optional[float]:
    """The time left for a blocking step; ``settimeout(0)`` would mean "do not block" instead."""
    remaining = deadline.remaining()
    if remaining is not None and remaining <= 0:
        raise TimeoutError("timed out")
    return remaining


def _proxy_for(address: Address, proxy: Optional[str]) -> Optional[str]:
    if proxy is not None:
        return proxy or None
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    # The loopback interface is this machine: no proxy can reach it for us.
    if address.host == "localhost" or address.host == "::1" or address.host.startswith("127."):
        return None
    proxies = getproxies_environment()
    found = proxies.get("https" if address.secure else "http") or proxies.get("all")
    if not found or proxy_bypass_environment(f"{address.host}:{address.port}", proxies):
        return None
    return found


def _tunnel(proxy: str, address: Address, deadline: Deadline) -> socket.socket:
    """Have an HTTP proxy connect us: CONNECT, and a 2xx for an answer."""
    import base64

    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigurationError(f"the proxy {_redacted(proxy)}: only http://[user:password@]host:port is supported")
    port = parts.port or 80
    target = f"[{address.host}]" if ":" in address.host else address.host
    lines = [f"CONNECT {target}:{address.port} HTTP/1.1", f"Host: {target}:{address.port}"]
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        lines.append("Proxy-Authorization: Basic " + base64.b64encode(pair).decode("ascii"))
    try:
        sock = _dial_host(parts.hostname, port, deadline)
        try:
            wire = _DeadlineSocket(sock, deadline)
            wire.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
            answer = b""
            # Byte by byte: what follows the answer is the engine's.
            while not answer.endswith(b"\r\n\r\n"):
                byte = wire.recv(1)
                if not byte:
                    raise OSError("it closed the connection")
                answer += byte
            if not re.match(rb"HTTP/1\.[01] 2\d\d\b", answer):
                raise OSError(f"it answered {answer.splitlines()[0].decode('latin-1')!r}")
            return sock
        except BaseException:
            sock.close()
            raise
    except (socket.timeout, TimeoutError):
        raise
    except (OSError, ValueError) as exc:
        raise OSError(f"through the proxy {parts.hostname}:{port}: {exc}") from exc


def _start_tls(sock: socket.socket, address: Address, route: Route, deadline: Deadline) -> socket.socket:
    import ssl

    context = route.ssl_context or ssl.create_default_context()
    tls = context.wrap_socket(sock, server_hostname=address.host, do_handshake_on_connect=False)
    _sockets.add(tls)
    try:
        # Non-blocking, so that a peer that trickles cannot stretch the deadline.
        tls.setblocking(False)
        while True:
            try:
                tls.do_handshake()
                return tls
            except ssl.SSLWantReadError:
                wait_for_socket(tls, _step(deadline), write=False)
            except ssl.SSLWantWriteError:
                wait_for_socket(tls, _step(deadline), write=True)
    except BaseException:
        tls.close()
        raise


def _keep_alive(sock: socket.socket) -> None:
    """Let the kernel find a dead peer: channel sockets cannot be pinged (PROTOCOL 5.8)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 45), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _handshake(sock: _DeadlineSocket, address: Address, url: str, route: Route) -> None:
    headers: list[str] = [f"{name}: {value}" for name, value in route.headers.items()]
    client = websocket.WebSocket(enable_multithread=False, skip_utf8_validation=True)
    try:
        client.connect(  # type: ignore[no-untyped-call]
            url, socket=sock, header=headers, suppress_origin=True, redirect_limit=0
        )
        if client.status != 101:
            # A redirect is refused: credentials must not follow it.
            raise websocket.WebSocketException(f"HTTP {client.status}")
    finally:
        client.sock = None  # it must not close what is ours


class _DeadlineSocket:
    """What the handshake is made on: every call gets what is left of the one deadline, and of one size."""

    MAX_ANSWER = 256 * 1024

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._left = self.MAX_ANSWER

    def recv(self, size: int) -> bytes:
        self._sock.settimeout(_step(self._deadline))
        data = self._sock.recv(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"the answer to the handshake is larger than {self.MAX_ANSWER} bytes")
        return data

    def send(self, data: bytes) -> int:
        self._sock.settimeout(_step(self._deadline))
        self._sock.sendall(data)
        return len(data)

    def gettimeout(self) -> Optional[float]:
        return self._deadline.remaining()

    def close(self) -> None:
        """The owner closes it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


#: Every socket made here, for as long as it lives: on its way to a connection nobody else knows it.
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_after_fork() -> None:
    """In the child: close the copies, and only close them. A connection ends when the parent ends it."""
    for sock in list(_sockets):
        descriptor = sock.detach()
        if descriptor >= 0:
            os.close(descriptor)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_after_fork)
