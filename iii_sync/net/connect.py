"""From an address to a socket that speaks WebSocket: TCP, proxy, TLS, handshake.

The only file that imports ``websocket``. It makes the handshake and checks the answer; after that the
socket is ours, framed by :mod:`iii_sync.wire.frames`. The handshake reads byte by byte, so it has never read
anything of what follows.

Everything here runs in the caller's thread, under one deadline for all steps together.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Optional
from urllib.parse import urlsplit

import websocket

from ..errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectFailedError,
    ConnectTimeout,
    HandshakeRejectedError,
    IIISyncError,
)
from . import tls
from .address import Address
from .dial import AnswerTooLarge, DeadlineSocket, dial
from .proxy import proxy_for, tunnel
from .waiting import Deadline

if TYPE_CHECKING:
    import ssl

__all__ = ["Address", "Route", "connect"]


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

    def __repr__(self) -> str:
        return f"<Route with headers {list(self.headers)}>"


def connect(address: Address, url: str, route: Route, timeout: Optional[float]) -> socket.socket:
    """Open a WebSocket and return its socket, non-blocking, right behind the handshake.

    Args:
        address: Where the engine is; errors show this.
        url: What to ask for there: the control URL or a channel's.
        route: Headers, TLS and proxy.
        timeout: Seconds for all steps together.

    Raises:
        ConfigurationError: The proxy is none that can be used.
        ConnectFailedError: No TCP or TLS connection.
        AuthenticationError: The answer was 401 or 403.
        HandshakeRejectedError: The answer was not 101; ``status`` tells which.
        ConnectTimeout: The deadline passed.
    """
    deadline = Deadline(timeout)
    sock: Optional[socket.socket] = None
    try:
        try:
            proxy = proxy_for(address.host, address.port, address.secure, route.proxy)
            if proxy is not None:
                sock = tunnel(proxy, address.host, address.port, deadline)
            else:
                sock = dial(address.host, address.port, deadline)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(sock)
            if address.secure:
                sock = tls.start_tls(sock, address.host, route.ssl_context or tls.default_context(), deadline)
            _handshake(_Wire(sock, deadline, url, route.headers), address)
            sock.setblocking(False)
            connected, sock = sock, None
            return connected
        except Exception as exc:
            error = _as_our_error(exc, address, timeout)
            cause = exc if isinstance(exc, OSError) and not isinstance(exc, IIISyncError) else None
        # Not in the handler: what the handshake's parser raises quotes the peer, and a peer may quote what it was
        # sent, tokens and keys included. So it is not even the context.
        raise error from cause
    finally:
        if sock is not None:
            sock.close()


def _as_our_error(exc: Exception, address: Address, timeout: Optional[float]) -> IIISyncError:
    """Return what to raise for ``exc``; of foreign texts only those of the operating system and of OpenSSL."""
    hint = f"; {tls.CLIENT_CERTIFICATE}" if address.secure else ""
    if isinstance(exc, (ConfigurationError, HandshakeRejectedError)):
        return exc
    # Before 3.10 socket.timeout is a class of its own.
    if isinstance(exc, (TimeoutError, socket.timeout, websocket.WebSocketTimeoutException)):
        during = f": {exc}" if str(exc).startswith("the proxy") else ""
        limit = "in the system's time" if timeout is None else f"within {timeout:g} s"
        return ConnectTimeout(f"no WebSocket at {address} {limit}{during}")
    if isinstance(exc, ConnectionRefusedError):
        return ConnectFailedError(
            f"no connection to {address}: {exc}; is an engine running there? python -m iii_sync engine starts one"
        )
    if isinstance(exc, OSError):
        said = (tls.explained(exc, address.host) if address.secure else None) or str(exc)
        if isinstance(exc, ConnectionResetError):
            said += hint
        return ConnectFailedError(f"no connection to {address}: {said}")
    if isinstance(exc, websocket.WebSocketBadStatusException):
        status = exc.status_code
        if status in (401, 403):
            return AuthenticationError(f"{address} refused the credentials of this worker: HTTP {status}", status)
        return HandshakeRejectedError(f"{address} answered HTTP {status} instead of opening a WebSocket", status)
    if isinstance(exc, _NotAWebSocket):
        return HandshakeRejectedError(f"{address} does not answer as a WebSocket: {exc}")
    if isinstance(exc, websocket.WebSocketConnectionClosedException):
        return HandshakeRejectedError(f"{address} does not answer as a WebSocket: it closed the connection{hint}")
    if isinstance(exc, AnswerTooLarge):
        return HandshakeRejectedError(f"{address} does not answer as a WebSocket: {exc}")
    # What the parser meets when the peer does not speak HTTP depends on its version.
    return HandshakeRejectedError(f"{address} does not answer as a WebSocket: its answer makes no sense")


def _keep_alive(sock: socket.socket) -> None:
    """Let the kernel find a dead peer: channel sockets cannot be pinged (PROTOCOL 5.8)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 45), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class _NotAWebSocket(Exception):
    """The answer is readable, and another one than 101; the text is ours."""


def _handshake(wire: _Wire, address: Address) -> None:
    # The library logs what it sends, once somebody in this process has switched its trace on. So it makes a
    # request without a path and without headers, and the wire fills these in.
    scheme = "wss" if address.secure else "ws"
    host = f"[{address.host}]" if ":" in address.host else address.host
    client = websocket.WebSocket(enable_multithread=False, skip_utf8_validation=True)
    try:
        client.connect(  # type: ignore[no-untyped-call]
            f"{scheme}://{host}:{address.port}/", socket=wire, suppress_origin=True, redirect_limit=0
        )
    except Exception as exc:
        if wire.begins_like_tls:
            raise _NotAWebSocket("it speaks TLS on this port: use a wss:// address") from None
        if not isinstance(exc, websocket.WebSocketException) or not 300 <= (client.status or 0) < 400:
            raise
    finally:
        client.sock = None  # it must not close what is ours
    if client.status != 101:
        # Credentials must not follow a redirect.
        raise HandshakeRejectedError(
            f"{address} answered HTTP {client.status}; redirects are not followed: give the address it leads to",
            client.status,
        )
    for name in ("sec-websocket-extensions", "sec-websocket-protocol"):
        if (client.getheaders() or {}).get(name):
            raise _NotAWebSocket(f"it answered with a {name} that was not asked for")


class _Wire(DeadlineSocket):
    """What the handshake of the library is made on.

    Completes the request: what is asked for, and the headers. Takes two headers out of the answer. Cookies: the library
    would keep them for the whole process, for any host they name, and put them unchecked into the headers of later
    handshakes. And the length of the body of a refusal: it would wait for the body.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline, url: str, headers: Mapping[str, str]) -> None:
        super().__init__(sock, deadline)
        self._url = url
        self._headers = headers
        self._start = b""
        self._line = memoryview(b"")  # the rest of a header line that was let through
        self._head = True  # the headers have not ended

    @property
    def begins_like_tls(self) -> bool:
        """Whether the answer begins like an alert of TLS."""
        return self._start[:2] == b"\x15\x03"

    def recv(self, size: int) -> bytes:
        while self._head and not self._line:
            line = self._read_line()
            text = line.decode("utf-8", "replace").strip()
            self._head = bool(text)
            if text.partition(":")[0].strip().lower() not in ("set-cookie", "content-length"):
                self._line = memoryview(line)
        if self._line:
            data, self._line = bytes(self._line[:size]), self._line[size:]
            return data
        return super().recv(size)

    def _read_line(self) -> bytes:
        # Byte by byte: what follows the headers is the first frame.
        line = bytearray()
        while not line.endswith(b"\n"):
            byte = super().recv(1)
            if not byte:
                raise websocket.WebSocketConnectionClosedException("it closed the connection")
            line += byte
            if len(self._start) < 2:
                self._start += byte
        return bytes(line)

    def send(self, data: bytes) -> int:
        """Send the request, completed."""
        parts = urlsplit(self._url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # The library has one jar of cookies for the whole process; what is in it is not meant for engines.
        ours = {name.lower() for name in self._headers} | {"cookie"}
        _, *lines = data.decode("utf-8").split("\r\n")
        kept = [line for line in lines if line and line.partition(":")[0].lower() not in ours]
        added = [f"{name}: {value}" for name, value in self._headers.items()]
        super().send("\r\n".join([f"GET {target} HTTP/1.1", *kept, *added, "", ""]).encode("utf-8"))
        return len(data)
