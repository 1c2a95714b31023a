"""Noticing workers that have vanished without a word: a cable was pulled, a machine froze.

The real engine never does; there such a worker keeps its functions and its name.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple

from aiohttp import WSMsgType

from .sockets import LostError, Socket

# The time of a last look: what has arrived while this process itself stood still is read first.
_LAST_LOOK = 1.0


class Patience(NamedTuple):
    """How long silence is borne.

    Attributes:
        interval: Seconds of silence after which a ping is sent.
        limit: Seconds after the ping in which anything must have come: any message, or the pong.
    """

    interval: float = 20.0
    # Generous, for a single large message over a slow line is silence until its last byte.
    limit: float = 60.0


class Heartbeat:
    """The watch over one connection."""

    def __init__(self, connection: Socket, patience: Patience) -> None:
        self._socket = connection
        self._patience = patience
        self._heard = asyncio.Event()
        self.reading = True
        """Whether what the worker sends is looked at."""

    def beat(self) -> None:
        """Note that the worker has sent something."""
        self._heard.set()

    async def lost(self) -> None:
        """Return when the worker has been silent for too long."""
        while True:
            self._heard.clear()
            await asyncio.sleep(self._patience.interval)
            if self._heard.is_set() or not self.reading:
                continue
            ping = asyncio.ensure_future(self._ping())
            try:
                if not await self._hears(self._patience.limit) and not await self._hears(_LAST_LOOK) and self.reading:
                    return
            finally:
                ping.cancel()

    async def _hears(self, seconds: float) -> bool:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._heard.wait(), seconds)
        return self._heard.is_set()

    async def _ping(self) -> None:
        with suppress(LostError):
            await self._socket.send(b"", WSMsgType.PING)
