"""The two kinds of channel connection: one that fills a channel and one that empties it.

Better than the real engine, where today's clients keep working: a reader's departure reaches the
writer at once, even a blocked one; a stream that was cut ends with status 1011 instead of a clean
end; pings on a reading end are answered.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Optional

from aiohttp import WSMsgType

from .hub import AbandonedError, Channel, Message
from .sockets import LostError, Socket

TRUNCATED = 1011
"""Status of the Close frame that ends a stream whose writer vanished."""

# Ends of a stream that a writer means: no status, normal, going away.
_CLEAN = (0, 1000, 1001)
# A reader may take its time to work through what the kernel still holds for it.
_READER_LINGER = 300.0


async def write_end(connection: Socket, channel: Channel) -> None:
    """Move messages from a writer into a channel until either side ends.

    The writer's own Close status is echoed once everything before it is in the channel.
    """
    channel.on_abandoned = lambda: connection.abort(reset=True)
    code = None
    try:
        code = await _fill(connection, channel)
    except AbandonedError:
        connection.abort(reset=True)
    except LostError:
        # Drop, not Close: the peer has broken the protocol, or is gone.
        connection.abort()
    finally:
        channel.end(truncated=code not in _CLEAN)
    if code is not None:
        await connection.send_close(code)


async def _fill(connection: Socket, channel: Channel) -> int:
    """Return the status of the Close frame that ended the stream; 0 when it had none."""
    while True:
        kind, data, _ = await connection.next()
        if kind is WSMsgType.BINARY:
            message = Message(False, data)
        elif kind is WSMsgType.TEXT:
            message = Message(True, data.encode("utf-8"))
        elif kind is WSMsgType.PING:
            await connection.send(bytes(data), WSMsgType.PONG)
            continue
        elif kind is WSMsgType.CLOSE:
            return int(data)
        else:
            continue
        size = len(message.data)
        if channel.full(size):
            await channel.room(size)
        channel.push(message)


async def read_end(connection: Socket, channel: Channel) -> None:
    """Move messages from a channel to a reader until either side ends."""
    empty = asyncio.ensure_future(_empty(connection, channel))
    watch = asyncio.ensure_future(_watch(connection))
    try:
        await asyncio.wait({empty, watch}, return_when=asyncio.FIRST_COMPLETED)
        if empty.done():
            channel.leave()
            await asyncio.wait({watch}, timeout=_READER_LINGER)
        elif watch.result() is not None:
            channel.leave()
            empty.cancel()
            await connection.send_close(watch.result() or 0)
    finally:
        channel.leave()
        for task in (empty, watch):
            task.cancel()
        await asyncio.gather(empty, watch, return_exceptions=True)


async def _empty(connection: Socket, channel: Channel) -> None:
    """Send every message of the channel, then the Close frame."""
    with suppress(LostError):
        while True:
            message = await channel.pull()
            if message is None:
                break
            await connection.send(message.data, WSMsgType.TEXT if message.text else WSMsgType.BINARY)
        await connection.send_close(TRUNCATED if channel.truncated else 0)


async def _watch(connection: Socket) -> Optional[int]:
    """Wait for the reader to leave; answer its pings, ignore its data.

    Returns:
        The status of its Close frame, 0 for none, or ``None`` if the connection was lost.
    """
    try:
        while True:
            kind, data, _ = await connection.next()
            if kind is WSMsgType.CLOSE:
                return int(data)
            if kind is WSMsgType.PING:
                await connection.send(bytes(data), WSMsgType.PONG)
    except LostError:
        return None
