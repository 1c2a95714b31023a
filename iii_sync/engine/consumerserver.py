"""The port for consumers of streams: one WebSocket each."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from contextlib import suppress

from aiohttp import WSMsgType, web

from .consumers import Consumer, Consumers
from .jsontext import JsonObject, encode
from .origins import is_local_page, is_own_host, wrong_host
from .reception import HANDSHAKE, Reception
from .sockets import LostError, Socket

HIGH_WATER = 8 * 1024 * 1024
"""Bytes that may wait for a consumer that does not read; then it is dropped."""

WAITING = 64 * 1024
"""Characters of messages that wait for the one before them; with more the consumer is not read from."""

_LINGER = 1.0

_logger = logging.getLogger("iii_sync.engine")


class ConsumerServer:
    """Serves the consumers of one engine. Used by one event loop only.

    Args:
        host: The name or address the socket was bound to, in lower case.
        consumers: Where they belong.
        handshake: See :data:`~iii_sync.engine.reception.HANDSHAKE`; the point is to become a WebSocket.
    """

    def __init__(self, host: str, consumers: Consumers, handshake: float = HANDSHAKE) -> None:
        self._host = host
        self._consumers = consumers
        self._handshake = handshake
        self._runner: web.AppRunner
        self._reception: Reception
        self._sockets: set[Socket] = set()

    async def start(self, listener: socket.socket) -> None:
        """Serve on a listening socket, which then belongs to the server."""
        application = web.Application()
        application.router.add_get("/", self._serve, allow_head=False)
        self._runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=_LINGER)
        await self._runner.setup()
        self._reception = Reception(self._runner, self._handshake)
        await self._reception.listen(listener)

    async def stop(self) -> None:
        """Stop listening and drop every consumer."""
        self._reception.close()
        for connection in self._sockets:
            connection.abort()
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if not is_own_host(host, self._host, request.transport):
            return web.Response(status=421, text=wrong_host(host))
        # Pages under development come from another port of this machine.
        origin = request.headers.get("Origin")
        if origin is not None and not is_local_page(origin):
            return web.Response(status=403, text="Origin not allowed")
        connection = Socket()
        if not connection.can_prepare(request):
            return web.Response(status=400)
        await connection.accept(request)
        self._reception.serve(request.transport)
        self._sockets.add(connection)
        try:
            await _Visit(connection, self._consumers).run()
        finally:
            self._sockets.discard(connection)
            connection.hang_up()
        return connection


class _Visit:
    """One connection. It is read while a message waits for the answer of a function: its end must be noticed."""

    def __init__(self, connection: Socket, consumers: Consumers) -> None:
        self._socket = connection
        self._consumer = Consumer(consumers, self._send)
        self._waiting: deque[str] = deque()
        self._waiting_size = 0
        self._handling = False
        self._free = True
        self._room = asyncio.Event()
        self._room.set()
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()

    async def run(self) -> None:
        writer = asyncio.ensure_future(self._write())
        try:
            with suppress(LostError):
                await self._read()
        finally:
            self._waiting.clear()
            self._consumer.close()
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer

    async def _read(self) -> None:
        while True:
            await self._room.wait()
            kind, data, _ = await self._socket.next()
            if kind is WSMsgType.TEXT:
                self._waiting.append(data)
                self._waiting_size += len(data)
                if self._waiting_size > WAITING:
                    self._room.clear()
                self._handle()
            elif kind is WSMsgType.PING:
                await self._socket.send(bytes(data), WSMsgType.PONG)
            elif kind is WSMsgType.CLOSE:
                await self._socket.send_close(int(data))
                return

    def _handle(self) -> None:
        # What is done with at once comes back here: a loop, not a recursion.
        if self._handling:
            return
        self._handling = True
        try:
            while self._waiting and self._free:
                self._free = False
                data = self._waiting.popleft()
                self._waiting_size -= len(data)
                self._consumer.receive(data, self._done)
        finally:
            self._handling = False
        if self._waiting_size <= WAITING:
            self._room.set()

    def _done(self) -> None:
        self._free = True
        self._handle()

    def _send(self, message: JsonObject) -> None:
        data = encode(message)
        self._queue.append(data)
        self._bytes += len(data)
        self._wake.set()
        if self._bytes > HIGH_WATER and len(self._queue) > 1:
            _logger.warning("dropped a consumer of streams that does not read")
            self._queue.clear()
            self._socket.abort()

    async def _write(self) -> None:
        with suppress(LostError):
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    data = self._queue.popleft()
                    self._bytes -= len(data)
                    await self._socket.send(data, WSMsgType.TEXT)
