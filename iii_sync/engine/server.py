"""The engine's HTTP server: routes, upgrade checks, and the life of each connection.

Everything runs in one event loop. A control connection has two tasks (the handler reads, another
writes), a writing channel end one, a reading end two. Back-pressure reaches from end to end: a full
channel stops the reading of its writer's socket, and so does a worker that does not read its frames
for those who send to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Optional

from aiohttp import WSMsgType, web

from .admission import AdmissionError, admit, turn_away
from .channels import read_end, write_end
from .consumerserver import ConsumerServer
from .control import Connection
from .guard import Guard
from .heartbeat import Patience
from .hub import Channel, Hub
from .listeners import Listeners
from .origins import is_own_host, is_same_host, wrong_host
from .reception import HANDSHAKE, Reception
from .rights import Rights
from .router import Router
from .services import install
from .sockets import LostError, Socket

if TYPE_CHECKING:
    from .frames import RegisterFunction
    from .http import HttpServer
    from .jsontext import JSON
    from .records import Finish
    from .remote import RemoteFunctions

GRACE = 5.0
"""Seconds a connection may take to name its namespace before it gets ``default``."""
SWEEP_INTERVAL = 60.0

_LINGER = 1.0

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """One engine on one listening socket. Used by one event loop only.

    Args:
        host: The name or address the socket was bound to; accepted in ``Host`` headers.
        grace: See :data:`GRACE`.
        sweep_interval: Seconds between two looks at channels that lack an end.
        handshake: See :data:`~iii_sync.engine.reception.HANDSHAKE`; the point of a connection is to become a WebSocket,
            or on the port for HTTP, to ask for something.
        hub: The channels.
        http_timeout: Seconds until the head of an HTTP response must be there; ``None`` for 30.
        patience: How long a worker may be silent.
    """

    def __init__(
        self,
        host: str,
        *,
        grace: float = GRACE,
        sweep_interval: float = SWEEP_INTERVAL,
        handshake: float = HANDSHAKE,
        hub: Optional[Hub] = None,
        http_timeout: Optional[float] = None,
        patience: Optional[Patience] = None,
    ) -> None:
        self.router: Router = Router(later=_later)
        self.hub: Hub = Hub() if hub is None else hub
        self._consumers = install(self.router, self.hub)
        self._streams: Optional[ConsumerServer] = None
        self._remote: Optional[RemoteFunctions] = None
        self.router.prepare_remote = self._prepare_remote
        self._host = host.lower()
        self._grace = grace
        self._sweep_interval = sweep_interval
        self._handshake = handshake
        self._crowded: set[Connection] = set()
        self._runner: Optional[web.AppRunner] = None
        self._reception: Reception
        self._guard: Optional[Guard] = None
        self._guarded_port: Optional[int] = None
        self._sweeper: Optional[asyncio.TimerHandle] = None
        self._http: Optional[HttpServer] = None
        self._http_timeout = http_timeout
        self._patience = Patience() if patience is None else patience

    async def start(self, listeners: Listeners) -> None:
        """Serve on listening sockets, which then belong to the server."""
        if listeners.http is not None:
            from .http import TIMEOUT, HttpServer

            timeout = TIMEOUT if self._http_timeout is None else self._http_timeout
            self._http = HttpServer(self.router, self.hub, timeout, self._handshake)
            await self._http.start(listeners.http)
        if listeners.streams is not None:
            self._streams = ConsumerServer(self._host, self._consumers, self._handshake)
            await self._streams.start(listeners.streams)
        application = web.Application(middlewares=[self._check_origin])
        application.router.add_get("/", self._serve_control, allow_head=False)
        application.router.add_get("/otel", self._serve_telemetry, allow_head=False)
        application.router.add_get("/ws/channels/{id}", self._serve_channel, allow_head=False)
        self._runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=_LINGER)
        await self._runner.setup()
        self._reception = Reception(self._runner, self._handshake)
        await self._reception.listen(listeners.workers)
        if listeners.guarded is not None:
            self._guard, self._guarded_port = listeners.guard, listeners.ports.guarded
            await self._reception.listen(listeners.guarded)
        self._sweep()

    async def stop(self) -> None:
        """Stop listening and drop every connection, without Close frames, as the real engine does.

        What is buffered is given about a second to leave. A second call does nothing.
        """
        if self._sweeper is not None:
            self._sweeper.cancel()
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self._reception.close()
        for transport in self._reception.served():
            transport.close()
        if self._http is not None:
            await self._http.stop()
        if self._streams is not None:
            await self._streams.stop()
        if self._remote is not None:
            await self._remote.close()
        # After the connections, so that no reader takes this for the end of its stream.
        self.hub.close()
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(_LINGER / 2, self._abort_all)
        try:
            await runner.cleanup()
        finally:
            deadline.cancel()

    def _abort_all(self) -> None:
        for transport in self._reception.served():
            transport.abort()

    def _sweep(self) -> None:
        self.hub.sweep()
        self._sweeper = asyncio.get_running_loop().call_later(self._sweep_interval, self._sweep)

    def _prepare_remote(self, registration: RegisterFunction) -> Callable[[JSON, Finish], None]:
        if self._remote is None:
            from .remote import RemoteFunctions

            self._remote = RemoteFunctions()
        return self._remote.prepare(registration)

    # Who may connect

    @web.middleware
    async def _check_origin(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Refuse web pages that are not served here."""
        host = request.headers.get("Host", "")
        if not is_own_host(host, self._host, request.transport):
            return web.Response(status=421, text=wrong_host(host))
        origin = request.headers.get("Origin")
        if origin is not None and not is_same_host(origin, host):
            return web.Response(status=403, text="Origin not allowed")
        return await handler(request)

    async def _admit(self, request: web.Request, connection: Socket) -> Optional[Rights]:
        """Return the rights of a connection, ``None`` for all of them, or raise :class:`AdmissionError`."""
        transport = request.transport
        port = None if transport is None else transport.get_extra_info("sockname")[1]
        if self._guard is None or port != self._guarded_port:
            return None
        try:
            return await admit(self.router, self._guard, request)
        except AdmissionError as error:
            await turn_away(connection, error)
            raise

    # Routes

    async def _serve_control(self, request: web.Request) -> web.StreamResponse:
        connection = await self._upgrade(request)
        if isinstance(connection, Socket):
            try:
                with suppress(AdmissionError):
                    rights = await self._admit(request, connection)
                    worker = Connection(connection, self.router, self._grace, self._crowded, self._patience)
                    await worker.serve(request.remote, rights)
            finally:
                connection.hang_up()
        return connection

    async def _serve_telemetry(self, request: web.Request) -> web.StreamResponse:
        connection = await self._upgrade(request)
        if isinstance(connection, Socket):
            try:
                with suppress(AdmissionError):
                    await self._admit(request, connection)
                    await _discard_telemetry(connection)
            finally:
                connection.hang_up()
        return connection

    async def _serve_channel(self, request: web.Request) -> web.StreamResponse:
        key, direction = request.query.get("key"), request.query.get("dir")
        if key is None or direction not in ("read", "write"):
            return web.Response(status=400, text="`key` and `dir` (read or write) are needed")
        if not Socket().can_prepare(request):
            return web.Response(status=400)
        channel = self.hub.find(request.match_info["id"], key)
        if channel is None:
            return web.Response(status=404, text="Channel not found")
        # Taken before the first await, so that of two ends that race one wins.
        free = channel.take(direction)
        try:
            connection = await self._upgrade(request)
        except BaseException:
            if free:
                _give_up(channel, direction)
                self.hub.release(channel)
            raise
        if not isinstance(connection, Socket):
            return connection
        try:
            if not free:
                await connection.send_close()
                await connection.linger(_LINGER)
            elif direction == "write":
                await write_end(connection, channel)
            else:
                await read_end(connection, channel)
        finally:
            if free:
                self.hub.release(channel)
            connection.hang_up()
        return connection

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        """Answer 101 and return the :class:`Socket`, or return the refusal."""
        connection = Socket()
        if not connection.can_prepare(request):
            return web.Response(status=400)
        await connection.accept(request)
        if self._runner is None:  # stopped while the upgrade was being answered
            connection.abort()
        else:
            self._reception.serve(request.transport)
        return connection


async def _discard_telemetry(connection: Socket) -> None:
    with suppress(LostError):
        while True:
            kind, data, _ = await connection.next()
            if kind is WSMsgType.PING:
                await connection.send(bytes(data), WSMsgType.PONG)
            elif kind is WSMsgType.CLOSE:
                await connection.send_close(int(data))
                return


def _later(seconds: float, function: Callable[[], None]) -> Callable[[], None]:
    return asyncio.get_running_loop().call_later(seconds, function).cancel


def _give_up(channel: Channel, direction: str) -> None:
    """Leave an end whose connection did not come about."""
    if direction == "write":
        channel.end(truncated=True)
    else:
        channel.leave()
