"""Listening, and giving up on connections that do not come to the point: the same on every port."""

from __future__ import annotations

import asyncio
import socket
import weakref
from typing import Optional

from aiohttp import web

from .listeners import BACKLOG

HANDSHAKE = 10.0
"""Seconds after which a TCP connection that has not come to the point is closed, however busily it trickles."""


class Reception:
    """Accepts the connections of one server. Used by one event loop only.

    Not a site of aiohttp's: that waits without a limit for a request that never comes.

    Args:
        runner: What serves them, set up.
        handshake: See :data:`HANDSHAKE`.
    """

    def __init__(self, runner: web.AppRunner, handshake: float = HANDSHAKE) -> None:
        self._runner = runner
        self._handshake = handshake
        self._listening: list[asyncio.AbstractServer] = []
        # Weak: a transport that still sends what is buffered outlives the handler of its connection.
        self._served: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    async def listen(self, listener: socket.socket) -> None:
        """Serve on a listening socket, which then belongs to this."""
        server = await asyncio.get_running_loop().create_server(self._accept, sock=listener, backlog=BACKLOG)
        self._listening.append(server)

    def serve(self, transport: Optional[asyncio.Transport]) -> None:
        """Note that a connection has come to the point; ``None`` is one that has left."""
        if transport is not None:
            self._served.add(transport)

    def served(self) -> list[asyncio.Transport]:
        """Return the connections that have come to the point and are open."""
        return list(self._served)

    def close(self) -> None:
        """Stop listening; connections stay."""
        for listening in self._listening:
            listening.close()

    def _accept(self) -> asyncio.BaseProtocol:
        assert self._runner.server is not None
        protocol = self._runner.server()
        asyncio.get_running_loop().call_later(self._handshake, self._give_up_on, protocol)
        return protocol

    def _give_up_on(self, protocol: web.RequestHandler) -> None:
        if protocol.transport is not None and protocol.transport not in self._served:
            protocol.force_close()
