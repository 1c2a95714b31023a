"""HTTP triggers: a server of their own, and the way of a request to its function and back.

A request body reaches the function through a channel, and so does a streamed response: nothing is held
but what the channel holds, in either direction. Only a body of JSON is held whole, for it is part of the
call; as on the real engine there is no limit to it. Better than the real engine, where today's clients keep
working: an upload that was cut ends its channel with status 1011, a response whose writer vanished is
cut for the HTTP client too (and is a 500 before its first byte), and a writer whose client has gone is
told at once.

The head of a request must come in time. Its body may take as long as it likes: only the function that
reads it can tell a slow upload from one that never ends.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from contextlib import suppress
from typing import Any, Callable, Optional, TypeVar, Union
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE

from .firing import check
from .frames import Failure
from .hub import AbandonedError, Channel, Hub, Message
from .jsontext import JSON, JsonObject, decode
from .reception import HANDSHAKE, Reception
from .records import Outcome, Trigger
from .responses import Head, failure, plain, refusal
from .router import Router
from .routes import METHODS, Match, Routes

TIMEOUT = 30.0
"""Seconds until the head of a response must be there."""
IDLE = 75.0
"""Seconds from a response to the whole head of the next request on the same connection."""

_LINGER = 1.0
# Bytes of a request line or a header, about as many as the real engine takes; aiohttp's own limit breaks tokens.
_LINE = 256 * 1024
# Bytes of JSON that take so long to read that the others would notice.
_LARGE = 256 * 1024
_CORS = {
    "vary": "origin, access-control-request-method, access-control-request-headers",
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "*",
}
_PREFLIGHT = {
    "vary": _CORS["vary"],
    "access-control-allow-methods": "*",
    "access-control-allow-headers": "*",
    "access-control-allow-origin": "*",
}

_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")

_T = TypeVar("_T")
_Plain = tuple[Head, bytes]
_logger = logging.getLogger("iii_sync.engine")


class HttpServer:
    """Serves the triggers of type ``http`` of one router. Used by one event loop only.

    Args:
        router: Where the functions are.
        hub: Where the channels of requests and responses are.
        timeout: See :data:`TIMEOUT`.
        handshake: See :data:`~iii_sync.engine.reception.HANDSHAKE`; the point is the head of a request.
    """

    def __init__(self, router: Router, hub: Hub, timeout: float = TIMEOUT, handshake: float = HANDSHAKE) -> None:
        self._router = router
        self._hub = hub
        self._timeout = timeout
        self._handshake = handshake
        self._routes = Routes()
        self._runner: Optional[web.AppRunner] = None
        self._reception: Reception
        router.triggers.provide("iii-http", "http", "HTTP requests of a method and a path", self._routes)

    async def start(self, listener: socket.socket) -> None:
        """Serve on a listening socket, which then belongs to the server."""
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{tail:.*}", self._serve)
        application.on_response_prepare.append(_strip)
        # A handler is cancelled when its client leaves: that is how an idle writer hears of it.
        self._runner = web.AppRunner(
            application,
            handle_signals=False,
            access_log=None,
            keepalive_timeout=IDLE,
            shutdown_timeout=_LINGER,
            handler_cancellation=True,
            auto_decompress=False,
            max_line_size=_LINE,
            max_field_size=_LINE,
        )
        await self._runner.setup()
        self._reception = Reception(self._runner, self._handshake)
        await self._reception.listen(listener)

    async def stop(self) -> None:
        """Stop listening and end what is under way after about a second."""
        runner, self._runner = self._runner, None
        if runner is not None:
            self._reception.close()
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self._reception.serve(request.transport)
        if request.method == "OPTIONS":
            return web.Response(headers=_PREFLIGHT)
        match = self._routes.find(_target(request).partition("?")[0])
        if match is None:
            return _respond(refusal(404, "NOT_FOUND", "Not Found"))
        route = match.routes.get(request.method)
        if route is None or request.method not in METHODS:
            if request.method == "HEAD" and "GET" in match.routes:
                return _respond(refusal(404, "NOT_FOUND", "Not Found"))
            return web.Response(status=405, headers={**_CORS, "allow": ",".join(sorted(match.routes))})
        exchange = _Exchange(self._router, self._hub, request, route.trigger, self._timeout)
        try:
            response = await exchange.run(match)
            # Not left to the caller: what is still uploaded may be read for long.
            with suppress(ConnectionError):  # a client that has left
                await response.prepare(request)
                await response.write_eof()
            return response
        finally:
            await exchange.close()


class _Exchange:
    """One request and its response."""

    def __init__(self, router: Router, hub: Hub, request: web.Request, trigger: Trigger, timeout: float) -> None:
        self._router = router
        self._hub = hub
        self._request = request
        self._trigger = trigger
        self._timeout = timeout
        self._upload = hub.create()
        self._download = hub.create()
        self._upload.take("write")
        self._download.take("read")
        self._pump: Optional[asyncio.Task[None]] = None
        self._deadline = 0.0
        self._give_ups: list[Callable[[], None]] = []

    async def run(self, match: Match) -> web.StreamResponse:
        """Answer the request."""
        body: JSON = None
        if "application/json" in self._request.headers.get("content-type", ""):
            body = await self._read_json()
        else:
            self._pump = asyncio.ensure_future(self._fill(self._upload))
        self._deadline = asyncio.get_running_loop().time() + self._timeout
        data = self._data(match, body)
        prevented = await self._prevented(data) or await self._intercepted(data)
        if prevented is not None:
            return self._respond(prevented)
        outcome = self._call(self._trigger.function_id, data, self._trigger.metadata)
        head = Head()
        try:
            answer = await asyncio.wait_for(self._head(outcome, head), self._left())
        except asyncio.TimeoutError:
            self._forget()
            return web.Response(status=504, headers=_CORS)
        self._forget()
        if not isinstance(answer, _Committed):
            return self._respond(answer)
        return await self._stream(head, answer.first)

    async def close(self) -> None:
        """Let go of both channels and of answers; an upload that a function still reads is brought to its end."""
        for give_up in self._give_ups:
            give_up()
        self._download.leave()
        if self._pump is not None:
            if self._pump.done() or not self._upload.paired or self._upload.abandoned:
                self._pump.cancel()
            # Cancelled when the client leaves, and the pump with it.
            with suppress(asyncio.CancelledError):
                await self._pump
        self._upload.end(truncated=True)
        self._forget()

    def _forget(self) -> None:
        """Nobody can take an end of the channels any more."""
        self._hub.forget(self._upload)
        self._hub.forget(self._download)

    # The request

    async def _read_json(self) -> JSON:
        data = await self._request.read()
        if data:
            self._upload.push(Message(False, data))
        self._upload.end(truncated=False)
        with suppress(ValueError):
            # Everybody waits for the loop, but not for another thread.
            return decode(data) if len(data) < _LARGE else await asyncio.to_thread(decode, data)
        return None

    async def _fill(self, channel: Channel) -> None:
        try:
            async for data in self._request.content.iter_any():
                if channel.full(len(data)):
                    await channel.room(len(data))
                channel.push(Message(False, data))
        except AbandonedError:
            pass
        except asyncio.CancelledError:
            channel.end(truncated=True)
            raise
        except Exception as error:
            _logger.debug("an upload was cut: %s", error)
            channel.end(truncated=True)
        else:
            channel.end(truncated=False)

    def _data(self, match: Match, body: JSON) -> JsonObject:
        route = match.routes[self._request.method]
        params: JsonObject = dict(match.params)
        query: JsonObject = {}
        headers: JsonObject = {}
        for key, value in parse_qsl(_target(self._request).partition("?")[2], keep_blank_values=True):
            query[key] = value
        for key, value in self._request.headers.items():
            headers[key.lower()] = value if value.isascii() else ""
        return {
            "path": route.path,
            "method": route.method,
            "path_params": params,
            "query_params": query,
            "headers": headers,
            "body": body,
            "trigger": {"type": "http", "path": route.path, "method": route.method},
            "request_body": _ref(self._upload, "read"),
            "response": _ref(self._download, "write"),
        }

    # Condition, middleware, function

    async def _prevented(self, data: JSON) -> Optional[_Plain]:
        decided: asyncio.Future[Optional[_Plain]] = asyncio.get_running_loop().create_future()

        def skip(error: Optional[Failure]) -> None:
            if error is None:
                _set(decided, refusal(422, "CONDITION_NOT_MET", "Request condition not met", skipped=True))
            else:
                _set(decided, failure(error))

        self._give_ups.append(check(self._router, self._trigger, data, lambda: _set(decided, None), skip))
        try:
            return await asyncio.wait_for(decided, self._left())
        except asyncio.TimeoutError:
            return refusal(504, "CONDITION_TIMEOUT", "The condition did not answer in time")

    async def _intercepted(self, data: JsonObject) -> Optional[_Plain]:
        names = self._trigger.setting("middleware_function_ids")
        seen: JsonObject = {key: data[key] for key in ("path_params", "query_params", "headers", "method")}
        for name in names if isinstance(names, list) else ():
            if not isinstance(name, str):
                continue
            question: JsonObject = {"phase": "preHandler", "request": seen, "context": {}}
            try:
                outcome = await asyncio.wait_for(self._call(name, question), self._timeout)
            except asyncio.TimeoutError:
                return refusal(504, "MIDDLEWARE_TIMEOUT", f"Middleware {name} did not answer in time")
            if isinstance(outcome, Failure):
                return failure(outcome)
            if isinstance(outcome.value, dict) and outcome.value.get("action") == "respond":
                return plain(outcome.value.get("response"))
        return None

    def _call(self, function_id: str, data: JSON, metadata: JSON = None) -> asyncio.Future[Outcome]:
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def finish(result: Outcome) -> None:
            _set(outcome, result)

        give_up = self._router.call(function_id, data, finish, namespace=self._trigger.namespace, metadata=metadata)
        self._give_ups.append(give_up)
        return outcome

    def _left(self) -> float:
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    # The response

    async def _head(self, outcome: asyncio.Future[Outcome], head: Head) -> Union[_Plain, _Committed]:
        """Wait for the head: a plain response, or the first bytes of a stream (``None`` for none at all)."""
        watching = True
        while True:
            pull = asyncio.ensure_future(self._download.pull())
            try:
                awaited: set[asyncio.Future[Any]] = {pull, outcome} if watching else {pull}
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if pull.done():
                    message = pull.result()
                    if message is None and self._download.truncated:
                        return _verdict(await outcome) or failure(_CUT)
                    if message is None or not message.text:
                        return _Committed(message)
                    head.apply(message.data)
                    continue
                answer = _verdict(outcome.result())
                if answer is not None:
                    return answer
                watching = False
            finally:
                if not pull.done():
                    pull.cancel()
                    with suppress(asyncio.CancelledError):
                        await pull

    def _respond(self, answer: _Plain) -> web.Response:
        response = _respond(answer)
        if not self._without_body(response.status) and response.content_length != len(answer[1]):
            # As it says, for the real engine trusts it too; but whoever waits for the rest is not left waiting.
            response.force_close()
        return response

    def _without_body(self, status: int) -> bool:
        return status in (204, 304) or self._request.method == "HEAD"

    async def _stream(self, head: Head, first: Optional[Message]) -> web.StreamResponse:
        response = _Streamed(status=head.status, headers=_CORS)
        response.typed = head.get("content-type") is not None
        for name, value in head.headers:
            response.headers.add(name, value)
        try:
            await self._send(response, head, first)
        except ConnectionError as error:
            _logger.debug("a client left before the end of its response: %s", error)
        return response

    async def _send(self, response: web.StreamResponse, head: Head, first: Optional[Message]) -> None:
        empty = self._without_body(head.status)
        await response.prepare(self._request)
        if first is not None and not first.data:
            await response.write(b"")  # sends the head, which would wait for the first byte
        sent, message = 0, first
        while message is not None:
            if message.data and not message.text and not empty:
                sent += len(message.data)
                await response.write(message.data)
            message = await self._download.pull()
        length = head.get("content-length")
        if self._download.truncated or (length is not None and not empty and sent != int(length)):
            # The only way to tell an HTTP client that something is missing.
            transport = self._request.transport
            if transport is not None:
                transport.abort()


class _Streamed(web.StreamResponse):
    """A streamed response; ``typed`` tells whether its function named a content type."""

    typed = False


class _Committed:
    """The response is a stream; ``first`` is its first message."""

    def __init__(self, first: Optional[Message]) -> None:
        self.first = first


_CUT = Failure("response_cut", "The function left its response before the first byte")


def _verdict(outcome: Outcome) -> Optional[_Plain]:
    """Return the response a function's outcome makes; a null makes none."""
    if isinstance(outcome, Failure):
        return failure(outcome)
    return None if outcome.value is None else plain(outcome.value)


def _respond(answer: _Plain) -> web.Response:
    head, body = answer
    response = web.Response(status=head.status, body=body, headers=_CORS)
    response.headers.popall("content-type", None)
    for name, value in head.headers:
        response.headers.add(name, value)
    return response


async def _strip(_: web.Request, response: web.StreamResponse) -> None:
    """Take back what aiohttp adds of its own."""
    if response.headers.get("Server") == SERVER_SOFTWARE:
        del response.headers["Server"]
    if isinstance(response, _Streamed) and not response.typed:
        response.headers.pop("Content-Type", None)


def _target(request: web.Request) -> str:
    """Return path and query as they were sent, without the host of a whole URL, such as proxies send."""
    authority = _AUTHORITY.match(request.raw_path)
    return request.raw_path if authority is None else request.raw_path[authority.end() :]


def _ref(channel: Channel, direction: str) -> JsonObject:
    return {"channel_id": channel.id, "access_key": channel.key, "direction": direction}


def _set(future: asyncio.Future[_T], value: _T) -> None:
    if not future.done():
        future.set_result(value)
