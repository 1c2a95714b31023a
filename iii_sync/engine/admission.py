"""Who is let in through a guarded listener."""

from __future__ import annotations

import asyncio
from typing import Union

from aiohttp import WSMsgType, web

from .frames import Failure
from .guard import Guard
from .jsontext import JSON, JsonObject, encode
from .records import Outcome
from .rights import Rights, granted, unasked
from .router import Router
from .sockets import LostError, Socket

PATIENCE = 30.0
"""Seconds that the authentication function may take; the real engine waits without a limit."""

_LINGER = 1.0


class AdmissionError(Exception):
    """A connection is not let in; the message says why."""


async def admit(router: Router, guard: Guard, request: web.Request) -> Rights:
    """Ask who may come in.

    Raises:
        AdmissionError: This connection may not.
    """
    if guard.auth_function_id is None:
        return unasked(guard)
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Outcome] = loop.create_future()

    def finish(outcome: Outcome) -> None:
        if not answer.done():
            answer.set_result(outcome)

    give_up = router.call(guard.auth_function_id, _visitor(request), finish)
    try:
        outcome: Outcome = await asyncio.wait_for(answer, PATIENCE)
    except asyncio.TimeoutError:
        raise AdmissionError(f"the function {guard.auth_function_id} has not answered") from None
    finally:
        give_up()
    if isinstance(outcome, Failure):
        raise AdmissionError(outcome.message)
    try:
        return granted(guard, outcome.value)
    except ValueError as error:
        raise AdmissionError(str(error)) from None


async def turn_away(connection: Socket, reason: Union[str, Exception]) -> None:
    """Tell a connection why it is not let in, and close it."""
    frame: JsonObject = {"type": "error", "error": {"code": "AUTH_ERROR", "message": str(reason)}}
    try:
        await connection.send(encode(frame), WSMsgType.TEXT)
    except LostError:
        return
    await connection.send_close()
    await connection.linger(_LINGER)


def _visitor(request: web.Request) -> JsonObject:
    headers: JsonObject = {name.lower(): _text(value) for name, value in request.headers.items()}
    query: dict[str, list[JSON]] = {}
    # The values as they are: the real engine does not decode them either.
    for pair in filter(None, request.raw_path.partition("?")[2].split("&")):
        key, _, value = pair.partition("=")
        query.setdefault(key, []).append(_text(value))
    return {"headers": headers, "query_params": {**query}, "ip_address": request.remote or ""}


def _text(value: str) -> str:
    """Make a header sendable, which may hold any bytes."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
