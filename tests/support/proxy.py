"""A small HTTP proxy that knows CONNECT and nothing else."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
from collections.abc import Iterator
from typing import Optional

from .rawserver import TIMEOUT, RawPeer, RawServer


class ConnectProxy(RawServer):
    """Connects whoever may to wherever a test leads it.

    Args:
        user: ``user:password`` that it asks for.
        to: Where to lead everything, since the names of tests do not resolve. Default: where the client wants to go.
        answer: Sent in the place of the usual one, without a connection.

    Attributes:
        targets: What was asked for.
    """

    def __init__(
        self,
        user: Optional[str] = None,
        to: Optional[tuple[str, int]] = None,
        answer: Optional[bytes] = None,
    ) -> None:
        self.targets: list[str] = []
        self._user = user
        self._to = to
        self._answer = answer
        super().__init__(self._connect)

    @property
    def address(self) -> str:
        """Where it listens, as ``host:port``."""
        return f"127.0.0.1:{self.port}"

    def _connect(self, peer: RawPeer) -> None:
        head = peer.read_request()
        self.targets.append(peer.path)
        assert head.startswith(b"CONNECT ") and peer.headers["host"] == peer.path
        if self._answer is not None:
            peer.sock.sendall(self._answer)
            with contextlib.suppress(OSError):
                peer.sock.recv(1)  # until the client has gone
            return
        if self._user is not None:
            wanted = "Basic " + base64.b64encode(self._user.encode()).decode()
            if peer.headers.get("proxy-authorization") != wanted:
                peer.sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
        host, _, port = peer.path.rpartition(":")
        try:
            behind = socket.create_connection(self._to or (host.strip("[]"), int(port)), TIMEOUT)
        except OSError:
            peer.sock.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with behind:
            peer.sock.sendall(b"HTTP/1.1 200 Connection established\r\nX-By: test\r\n\r\n")
            with contextlib.suppress(ValueError):  # closed at the end of the test
                _pump(peer.sock, behind)


def _pump(one: socket.socket, other: socket.socket) -> None:
    ends = {one: other, other: one}
    while True:
        for sock in select.select(list(ends), [], [], TIMEOUT)[0]:
            data = sock.recv(65536)
            if not data:
                return
            ends[sock].sendall(data)


@contextlib.contextmanager
def connect_proxy(
    user: Optional[str] = None, to: Optional[tuple[str, int]] = None, answer: Optional[bytes] = None
) -> Iterator[ConnectProxy]:
    """Run a proxy for the length of a block."""
    proxy = ConnectProxy(user, to, answer)
    try:
        yield proxy
    finally:
        proxy.close()
