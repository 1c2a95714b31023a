"""Channels: what they are and how long they live.

A channel is a bounded FIFO of messages between one writing and one reading end, each of which can be
taken once. Message boundaries and types are kept. The bound is a number of messages and a number of
bytes; one message always fits, whatever its size.

========================  =====================================  ==================================
what happens              the writing end                        the reading end
========================  =====================================  ==================================
writer ends its stream    --                                     gets all messages, then the end
writer vanishes           --                                     gets all messages, then *truncated*
reader leaves             told through ``on_abandoned``          --
an end never came (TTL)   told through ``on_abandoned``          gets the end
========================  =====================================  ==================================

Everything here runs in one event loop and is not thread-safe. Nothing here knows of sockets.
"""

from __future__ import annotations

import asyncio
import hmac
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Optional

DEFAULT_CAPACITY = 64
MAX_CAPACITY = 1024
MAX_BYTES = 8 * 1024 * 1024
"""What a channel holds at most, unless a single message is larger."""
TTL = 300.0
"""Seconds an end may wait for the other one, counted from the creation."""


class Message(NamedTuple):
    """One WebSocket message; text is kept as the UTF-8 it arrived in."""

    text: bool
    data: bytes


class AbandonedError(Exception):
    """Nobody will ever read what is being written."""


class Channel:
    """One channel; made by :meth:`Hub.create`."""

    def __init__(self, channel_id: str, key: str, capacity: int, max_bytes: int, created: float) -> None:
        self.id = channel_id
        self.key = key
        self.capacity = capacity
        self.created = created
        self.truncated: bool = False
        self.on_abandoned: Optional[Callable[[], None]] = None
        self._max_bytes = max_bytes
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._taken = {"read": False, "write": False}
        self._left = {"read": False, "write": False}
        self._ended = False
        self._room: Optional[asyncio.Future[None]] = None
        self._ready: Optional[asyncio.Future[None]] = None

    def take(self, direction: str) -> bool:
        """Take one end, ``"read"`` or ``"write"``.

        Returns:
            Whether it was free. An end is free once in the life of a channel.
        """
        free = not self._taken[direction]
        self._taken[direction] = True
        return free

    @property
    def paired(self) -> bool:
        """Whether both ends have been taken."""
        return all(self._taken.values())

    @property
    def finished(self) -> bool:
        """Whether both ends have been taken and left again."""
        return all(self._left.values())

    @property
    def abandoned(self) -> bool:
        """Whether nothing that is written will be read any more."""
        return self._left["read"]

    def __len__(self) -> int:
        """Return the number of messages waiting."""
        return len(self._messages)

    @property
    def size(self) -> int:
        """Bytes waiting."""
        return self._bytes

    # The writing end

    def full(self, size: int) -> bool:
        """Tell whether a message of that size has to wait for :meth:`room`."""
        waiting = len(self._messages)
        return waiting >= self.capacity or (waiting > 0 and self._bytes + size > self._max_bytes)

    async def room(self, size: int) -> None:
        """Wait, without a limit, until a message of that size fits.

        Raises:
            AbandonedError: The reader has left, or never came.
        """
        while self.full(size) and not self.abandoned:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None
        if self.abandoned:
            raise AbandonedError

    def push(self, message: Message) -> None:
        """Append a message; the caller has made sure of the room. Never blocks.

        Raises:
            AbandonedError: The reader has left, or never came.
        """
        if self.abandoned:
            raise AbandonedError
        self._messages.append(message)
        self._bytes += len(message.data)
        _wake(self._ready)

    def end(self, *, truncated: bool) -> None:
        """Leave the writing end: the stream is complete, or was cut."""
        if not self._ended:
            self._ended = True
            self.truncated = truncated
        self._left["write"] = True
        self.on_abandoned = None
        _wake(self._ready)

    # The reading end

    async def pull(self) -> Optional[Message]:
        """Take the next message; wait for it without a limit.

        Returns:
            The message, or ``None`` at the end of the stream; then :attr:`truncated` is final.
        """
        while not self._messages:
            if self._ended:
                return None
            self._ready = asyncio.get_running_loop().create_future()
            try:
                await self._ready
            finally:
                self._ready = None
        message = self._messages.popleft()
        self._bytes -= len(message.data)
        _wake(self._room)
        return message

    def leave(self) -> None:
        """Leave the reading end: what is still written will not be read."""
        self._left["read"] = True
        self._messages.clear()
        self._bytes = 0
        _wake(self._room)
        callback, self.on_abandoned = self.on_abandoned, None
        if callback is not None:
            callback()

    def expire(self) -> None:
        """Give up on the end that never came: end a waiting reader, abandon a waiting writer."""
        reader = self._taken["read"]
        self._taken = {"read": True, "write": True}
        if reader:
            self.end(truncated=False)
        else:
            self.leave()


class Hub:
    """All channels of an engine.

    Args:
        ttl: Seconds after which a channel that lacks an end is given up.
        max_bytes: Bytes one channel holds at most.
        now: A monotonic clock in seconds.
    """

    def __init__(
        self, *, ttl: float = TTL, max_bytes: int = MAX_BYTES, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._ttl = ttl
        self._max_bytes = max_bytes
        self._now = now
        self._channels: dict[str, Channel] = {}

    def __len__(self) -> int:
        """Return the number of channels that exist."""
        return len(self._channels)

    def create(self, capacity: int = DEFAULT_CAPACITY) -> Channel:
        """Make a channel; a capacity out of range is moved into it."""
        channel = Channel(
            str(uuid.uuid4()),
            str(uuid.uuid4()),
            min(max(capacity, 1), MAX_CAPACITY),
            self._max_bytes,
            self._now(),
        )
        self._channels[channel.id] = channel
        return channel

    def find(self, channel_id: str, key: str) -> Optional[Channel]:
        """Return the channel of that id if the key is right."""
        channel = self._channels.get(channel_id)
        if channel is None or not hmac.compare_digest(channel.key.encode(), key.encode("utf-8", "replace")):
            return None
        return channel

    def release(self, channel: Channel) -> None:
        """Forget a channel if both its ends are gone; to be called when one leaves."""
        if channel.finished:
            self._channels.pop(channel.id, None)

    def forget(self, channel: Channel) -> None:
        """Let nobody take an end of a channel any more; ends that were taken keep working."""
        self._channels.pop(channel.id, None)

    def sweep(self) -> None:
        """Give up every channel that is older than the TTL and lacks an end."""
        limit = self._now() - self._ttl
        for channel in [c for c in self._channels.values() if c.created <= limit and not c.paired]:
            del self._channels[channel.id]
            channel.expire()

    def close(self) -> None:
        """Give up every channel, whoever waits at it."""
        channels = list(self._channels.values())
        self._channels.clear()
        for channel in channels:
            channel.end(truncated=True)
            channel.leave()


def _wake(waiter: Optional[asyncio.Future[None]]) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
