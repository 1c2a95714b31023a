"""From an address to a socket that speaks WebSocket: TCP, proxy, TLS, handshake.

After the handshake the socket is ours, framed by :mod:`iii_sync.wire.frames`.

Everything here runs in the caller's thread, under one deadline for all steps together.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Optional, Union

from ..errors import (
    ConfigurationError,
    ConnectFailedError,
    ConnectTimeout,
    HandshakeRejectedError,
    IIISyncError,
    WorkerClosedError,
)
from . import tls
from .address import Address
from .attempts import Attempts
from .dial import dial
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


def connect(
    address: Address,
    url: str,
    route: Route,
    timeout: Union[float, Deadline, None],
    attempts: Optional[Attempts] = None,
) -> socket.socket:
    """Open a WebSocket and return its socket, non-blocking, right behind the handshake.

    Args:
        address: Where the engine is; errors show this.
        url: What to ask for there: the control URL or a channel's.
        route: Headers, TLS and proxy.
        timeout: Seconds for all steps together, or when they must be done.
        attempts: Whose sockets it is one of; stopping those ends this.

    Raises:
        ConfigurationError: The proxy is none that can be used.
        ConnectFailedError: No TCP or TLS connection.
        AuthenticationError: The answer was 401 or 403.
        HandshakeRejectedError: The answer was not 101; ``status`` tells which.
        ConnectTimeout: The deadline passed.
        WorkerClosedError: ``attempts`` were stopped.
    """
    deadline = timeout if isinstance(timeout, Deadline) else Deadline(timeout)
    attempts = attempts or Attempts()
    sock: Optional[socket.socket] = None
    try:
        try:
            proxy = proxy_for(address.host, address.port, address.secure, route.proxy)
            if proxy is not None:
                sock = tunnel(proxy, address.host, address.port, deadline, attempts)
            else:
                sock = dial(address.host, address.port, deadline, attempts)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(sock)
            if address.secure:
                context = route.ssl_context or tls.default_context()
                sock = tls.start_tls(sock, address.host, context, deadline, attempts)
            from .handshake import handshake  # with the first connection, for it takes long

            handshake(sock, address, url, route.headers, deadline)
            sock.setblocking(False)
            attempts.let_go(sock)
            connected, sock = sock, None
            return connected
        except Exception as exc:
            error = _as_our_error(exc, address, deadline.timeout)
            if attempts.stopped:
                error = WorkerClosedError("the worker was shut down")
            cause = exc if isinstance(exc, OSError) and not isinstance(exc, IIISyncError) else None
        raise error from cause
    finally:
        if sock is not None:
            attempts.close(sock)


def _as_our_error(exc: Exception, address: Address, timeout: Optional[float]) -> IIISyncError:
    """Return what to raise for ``exc``; of foreign texts only those of the operating system and of OpenSSL."""
    hint = f"; {tls.CLIENT_CERTIFICATE}" if address.secure else ""
    if isinstance(exc, (ConfigurationError, HandshakeRejectedError)):
        return exc
    # Before 3.10 socket.timeout is a class of its own.
    if isinstance(exc, (TimeoutError, socket.timeout)):
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
    return ConnectFailedError(f"no connection to {address}: {type(exc).__name__}")


def _keep_alive(sock: socket.socket) -> None:
    """Let the kernel find a dead peer: channel sockets cannot be pinged (PROTOCOL 5.8)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 45), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
