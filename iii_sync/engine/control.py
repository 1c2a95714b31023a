"""One control connection: frames of a worker in, frames for it out.

Frames for the worker wait in a queue that one task empties. Whoever makes the queue grow beyond its
high-water mark is not read from until it has shrunk; a worker that does not read for too long is
dropped. So the memory is bounded and a frozen worker cannot stop the others for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import Optional

from aiohttp import WSMsgType

from .heartbeat import Heartbeat, Patience
from .jsontext import JsonObject, encode
from .rights import Rights
from .router import Router
from .sockets import LostError, Socket

HIGH_WATER_FRAMES = 1024
HIGH_WATER_BYTES = 8 * 1024 * 1024
STALL = 30.0
"""Seconds a worker may leave its full queue untouched before it is dropped."""

_CLOSE_DEADLINE = 5.0

_logger = logging.getLogger("iii_sync.engine")


class Connection:
    """The :class:`~.records.Peer` behind one WebSocket.

    Args:
        connection: The accepted socket.
        router: Where its frames go.
        grace: Seconds until its namespace is settled without its saying so.
        crowded: Shared by the connections of a router: those whose queue has grown too long. Routing
            is synchronous, so what is in there after a frame was filled by that frame.
        patience: How long it may be silent.
    """

    def __init__(
        self, connection: Socket, router: Router, grace: float, crowded: set[Connection], patience: Patience
    ) -> None:
        self._socket = connection
        self._router = router
        self._grace = grace
        self._crowded = crowded
        self._heartbeat = Heartbeat(connection, patience)
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._closing = False
        self._wake = asyncio.Event()
        self._relieved = asyncio.Event()
        self._relieved.set()

    # Peer

    def send(self, frame: JsonObject) -> None:
        """Queue a frame."""
        if self._closing:
            return
        data = encode(frame)
        self._queue.append(data)
        self._bytes += len(data)
        self._wake.set()
        if len(self._queue) > HIGH_WATER_FRAMES or self._bytes > HIGH_WATER_BYTES:
            self._relieved.clear()
            self._crowded.add(self)

    def close(self) -> None:
        """Send what is queued, then a Close frame without status, then hang up."""
        self._closing = True
        self._wake.set()

    def drop(self) -> None:
        """Drop the connection at once."""
        self._closing = True
        self._queue.clear()
        self._relieved.set()
        self._socket.abort()

    # Life

    async def serve(self, address: Optional[str], rights: Optional[Rights]) -> None:
        """Run the connection to its end; see :meth:`.router.Router.connect` for the arguments."""
        worker = self._router.connect(self, address, rights)
        timer = asyncio.get_running_loop().call_later(self._grace, self._router.pin, worker)
        writer = asyncio.ensure_future(self._write())
        watch = asyncio.ensure_future(self._watch(worker.id))
        code = None
        try:
            while True:
                kind, data, _ = await self._socket.next()
                self._heartbeat.beat()
                if kind is WSMsgType.TEXT or kind is WSMsgType.BINARY:
                    self._router.receive(worker, data)
                    if self._crowded:
                        await self._wait_for_crowded()
                elif kind is WSMsgType.PING:
                    await self._socket.send(bytes(data), WSMsgType.PONG)
                elif kind is WSMsgType.CLOSE:
                    code = int(data)
                    break
        except LostError:
            pass
        finally:
            timer.cancel()
            watch.cancel()
            self._router.disconnect(worker)
            self._relieved.set()
            # A refused worker is told why even though it has already hung up on its side.
            if self._closing and code is not None:
                await asyncio.wait({writer}, timeout=_CLOSE_DEADLINE)
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer
        if code is not None and not self._closing:
            await self._socket.send_close(code)

    async def _write(self) -> None:
        """Send queued frames; after :meth:`close` also the Close frame."""
        with suppress(LostError):
            while True:
                while self._queue:
                    data = self._queue.popleft()
                    self._bytes -= len(data)
                    await self._socket.send(data, WSMsgType.TEXT)
                    if len(self._queue) <= HIGH_WATER_FRAMES // 2 and self._bytes <= HIGH_WATER_BYTES // 2:
                        self._relieved.set()
                if self._closing:
                    break
                self._wake.clear()
                await self._wake.wait()
            await self._socket.send_close()
            asyncio.get_running_loop().call_later(_CLOSE_DEADLINE, self._socket.abort)

    async def _wait_for_crowded(self) -> None:
        """Wait until those this connection has just sent too much to have caught up."""
        self._heartbeat.reading = False
        crowded = list(self._crowded)
        self._crowded.clear()
        for target in crowded:
            try:
                await asyncio.wait_for(target._relieved.wait(), STALL)
            except asyncio.TimeoutError:
                _logger.warning("dropped a worker that has not read for %g seconds", STALL)
                target.drop()
        self._heartbeat.reading = True

    async def _watch(self, worker_id: str) -> None:
        await self._heartbeat.lost()
        _logger.warning("dropped worker %s: it has gone without a word", worker_id)
        self.drop()
