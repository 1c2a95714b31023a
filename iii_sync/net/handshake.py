"""The opening handshake of a WebSocket (RFC 6455, 4).

The only file that imports ``websocket``, which makes the request and checks the answer. It takes as long to import as
the rest of the package, so it is imported with the first connection.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Optional
from urllib.parse import urlsplit

import websocket

from ..errors import AuthenticationError, HandshakeRejectedError
from . import tls
from .address import Address
from .dial import AnswerTooLarge, DeadlineSocket
from .waiting import Deadline

__all__ = ["handshake"]


def handshake(sock: socket.socket, address: Address, url: str, headers: Mapping[str, str], deadline: Deadline) -> None:
    """Make the handshake on a connected socket. Blocks until it is made, at most until ``deadline``.

    Reads byte by byte, so that it never takes anything of what follows.

    Args:
        sock: Connected, behind TLS if there is any.
        address: Where the engine is; errors show this.
        url: What to ask for there.
        headers: Sent with the request.
        deadline: For all of it.

    Raises:
        AuthenticationError: The answer was 401 or 403.
        HandshakeRejectedError: The answer was not 101; ``status`` tells which.
        TimeoutError: It was not made in time.
        OSError: The connection broke.
    """
    wire = _Wire(sock, deadline, url, headers)
    error: Optional[HandshakeRejectedError]
    client = websocket.WebSocket(enable_multithread=False, skip_utf8_validation=True)
    try:
        _ask(client, wire, address)
    except (TimeoutError, OSError):
        raise
    except websocket.WebSocketTimeoutException as exc:
        raise TimeoutError(str(exc)) from None
    except Exception as exc:
        error = _rejection(exc, client, wire, address)
    else:
        error = _unacceptable(client, address)
    finally:
        client.sock = None  # it must not close what is ours
    # Not in the handler: what the parser raises quotes the peer, and a peer may quote what it was sent, tokens and keys
    # included. So it is not even the context.
    if error is not None:
        raise error


def _ask(client: Any, wire: _Wire, address: Address) -> None:
    # The library logs what it sends, once somebody in this process has switched its trace on. So it makes a
    # request without a path and without headers, and the wire fills these in.
    scheme = "wss" if address.secure else "ws"
    host = f"[{address.host}]" if ":" in address.host else address.host
    client.connect(f"{scheme}://{host}:{address.port}/", socket=wire, suppress_origin=True, redirect_limit=0)


def _unacceptable(client: Any, address: Address) -> Optional[HandshakeRejectedError]:
    """Return what is wrong with an answer that the library accepts."""
    if client.status != 101:
        return _redirected(client.status, address)
    for name in ("sec-websocket-extensions", "sec-websocket-protocol"):
        if (client.getheaders() or {}).get(name):
            return _no_websocket(address, f"it answered with a {name} that was not asked for")
    return None


def _rejection(exc: Exception, client: Any, wire: _Wire, address: Address) -> HandshakeRejectedError:
    """Return what to raise for an answer that the library refuses; of its text nothing but the status."""
    if wire.begins_like_tls:
        return _no_websocket(address, "it speaks TLS on this port: use a wss:// address")
    if isinstance(exc, websocket.WebSocketException) and 300 <= (client.status or 0) < 400:
        return _redirected(client.status, address)
    if isinstance(exc, websocket.WebSocketBadStatusException):
        status = exc.status_code
        if status in (401, 403):
            return AuthenticationError(f"{address} refused the credentials of this worker: HTTP {status}", status)
        more = ""
        if status == 421:  # as the local engine answers; its own words are not quoted either
            more = (
                f": it does not answer to the name {address.host!r}; give the address of its machine, or have it "
                f"listen under that name (the local engine: --host {address.host})"
            )
        return HandshakeRejectedError(f"{address} answered HTTP {status} instead of opening a WebSocket{more}", status)
    if isinstance(exc, websocket.WebSocketConnectionClosedException):
        hint = f"; {tls.CLIENT_CERTIFICATE}" if address.secure else ""
        return _no_websocket(address, f"it closed the connection{hint}")
    if isinstance(exc, AnswerTooLarge):
        return _no_websocket(address, str(exc))
    # What the parser meets when the peer does not speak HTTP depends on its version.
    return _no_websocket(address, "its answer makes no sense")


def _redirected(status: Any, address: Address) -> HandshakeRejectedError:
    # Credentials must not follow a redirect.
    return HandshakeRejectedError(
        f"{address} answered HTTP {status}; redirects are not followed: give the address it leads to", status
    )


def _no_websocket(address: Address, why: str) -> HandshakeRejectedError:
    return HandshakeRejectedError(f"{address} does not answer as a WebSocket: {why}")


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
