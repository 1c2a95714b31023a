"""The one place that knows how aiohttp's WebSocket is used here.

Three things differ from a plain :class:`aiohttp.web.WebSocketResponse`: messages that arrived before
the connection broke are still delivered (its ``receive`` forgets them), a Close frame may have no
status, and leaving the handler sends nothing by itself.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Optional, cast

from aiohttp import WSMessage, WSMsgType, web

MAX_MESSAGE = 64 * 1024 * 1024

_LINGER_RESET = struct.pack("ii", 1, 0)


class LostError(Exception):
    """The connection ended without a Close frame: dropped, or a violation of the protocol."""


class Socket(web.WebSocketResponse):
    """The engine's side of one WebSocket. Used by its own event loop only."""

    def __init__(self) -> None:
        # aiohttp refuses a message of max_msg_size itself. With a writer limit of zero every send
        # waits while the peer does not read, so what is buffered here stays at one message.
        super().__init__(autoclose=False, autoping=False, compress=False, max_msg_size=MAX_MESSAGE + 1, writer_limit=0)
        self._transport: Optional[asyncio.Transport] = None

    async def accept(self, request: web.Request) -> None:
        """Answer the upgrade request with 101."""
        self._transport = request.transport
        await self.prepare(request)

    async def next(self) -> WSMessage:
        """Return the next message, control frames included; wait for it without a limit.

        Raises:
            LostError: The connection has ended and everything that arrived was returned.
        """
        # Not receive(): once the connection is lost it drops what has arrived but was not asked for.
        assert self._reader is not None
        try:
            return cast("WSMessage", await self._reader.read())
        except asyncio.CancelledError:
            raise
        except Exception as error:
            raise LostError from error

    async def send(self, data: bytes, kind: WSMsgType) -> None:
        """Send one frame; wait, without a limit, while the peer does not read.

        Raises:
            LostError: The connection has ended.
        """
        try:
            await self.send_frame(data, kind)
        except (ConnectionError, RuntimeError) as error:
            raise LostError from error

    async def send_close(self, code: int = 0) -> None:
        """Send a Close frame, with a status unless ``code`` is 0. A lost connection is no error."""
        with suppress(LostError):
            await self.send(code.to_bytes(2, "big") if code else b"", WSMsgType.CLOSE)

    async def linger(self, seconds: float) -> None:
        """Read on until the peer closes or drops the connection, or the time is over.

        Closing a connection with unread input resets it, and a reset may destroy what the peer
        has not read yet: above all our Close frame.
        """
        with suppress(LostError, asyncio.TimeoutError):
            await asyncio.wait_for(self._discard(), seconds)

    async def _discard(self) -> None:
        while (await self.next()).type is not WSMsgType.CLOSE:
            pass

    def hang_up(self) -> None:
        """Close the TCP connection once what is buffered has been sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self, *, reset: bool = False) -> None:
        """Drop the TCP connection now; with ``reset`` the peer's very next send fails."""
        if self._transport is None:
            return
        if reset:
            connection = self._transport.get_extra_info("socket")
            with suppress(OSError, AttributeError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        self._transport.abort()

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: aiohttp would send a second Close frame here, and wait for an answer."""
