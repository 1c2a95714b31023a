"""Channels without sockets: order, bounds, ends, and how long they live."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Optional, TypeVar

import pytest

from iii_sync.engine.hub import MAX_BYTES, AbandonedError, Channel, Hub, Message

T = TypeVar("T")


def run(awaitable: Awaitable[T]) -> T:
    """Run one coroutine with a deadline that only a hang can reach."""

    async def bounded() -> T:
        return await asyncio.wait_for(awaitable, 10)

    return asyncio.run(bounded())


def data(payload: bytes) -> Message:
    """Return a binary message."""
    return Message(False, payload)


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def drain(channel: Channel) -> list[Message]:
    """Pull everything up to the end."""
    messages: list[Message] = []
    while True:
        message: Optional[Message] = await channel.pull()
        if message is None:
            return messages
        messages.append(message)


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (1, 1), (64, 64), (1024, 1024), (1 << 60, 1024)])
def test_capacity_is_clamped(asked: int, given: int) -> None:
    """A capacity out of range is moved into it."""
    assert Hub().create(asked).capacity == given
    assert Hub().create().capacity == 64


def test_messages_keep_boundaries_types_and_order() -> None:
    """What comes out is what went in, empty messages included."""
    channel = Hub().create()
    messages = [data(b""), Message(True, b"text"), data(b"x" * 1000), Message(True, b"")]
    for message in messages:
        channel.push(message)
    channel.end(truncated=False)
    assert run(drain(channel)) == messages
    assert not channel.truncated
    assert channel.size == len(channel) == 0


def test_full_by_messages() -> None:
    """The capacity is a number of messages."""
    channel = Hub().create(2)
    assert not channel.full(0)
    channel.push(data(b""))
    assert not channel.full(0)
    channel.push(data(b""))
    assert channel.full(0)


def test_full_by_bytes() -> None:
    """The byte budget lets one message pass whatever its size."""
    channel = Hub(max_bytes=10).create()
    assert not channel.full(1000)
    channel.push(data(b"123456"))
    assert not channel.full(4)
    assert channel.full(5)
    assert Hub().create().full(MAX_BYTES + 1) is False


def test_writer_waits_for_room() -> None:
    """A writer goes on as soon as a message was pulled."""

    async def scenario() -> None:
        channel = Hub().create(1)
        channel.push(data(b"1"))
        waiting = asyncio.ensure_future(channel.room(1))
        await settle()
        assert not waiting.done()
        assert await channel.pull() == data(b"1")
        await waiting
        channel.push(data(b"2"))
        assert await channel.pull() == data(b"2")

    run(scenario())


def test_reader_waits_for_messages_and_for_the_end() -> None:
    """A waiting reader is woken by a message and by the end."""

    async def scenario() -> None:
        channel = Hub().create()
        waiting = asyncio.ensure_future(channel.pull())
        await settle()
        channel.push(data(b"1"))
        assert await waiting == data(b"1")
        waiting = asyncio.ensure_future(channel.pull())
        await settle()
        channel.end(truncated=True)
        assert await waiting is None
        assert channel.truncated

    run(scenario())


def test_cut_stream_delivers_what_was_accepted() -> None:
    """Truncation is known only after everything that arrived."""
    channel = Hub().create()
    channel.push(data(b"1"))
    channel.end(truncated=True)
    channel.end(truncated=False)
    assert run(drain(channel)) == [data(b"1")]
    assert channel.truncated


def test_reader_leaves() -> None:
    """The writer is told at once, also when it waits, and can write no more."""

    async def scenario() -> None:
        told: list[bool] = []
        channel = Hub().create(1)
        channel.on_abandoned = lambda: told.append(True)
        channel.push(data(b"1"))
        waiting = asyncio.ensure_future(channel.room(1))
        await settle()
        channel.leave()
        channel.leave()
        assert told == [True]
        with pytest.raises(AbandonedError):
            await waiting
        with pytest.raises(AbandonedError):
            channel.push(data(b"2"))
        assert channel.size == 0

    run(scenario())


def test_a_writer_that_ended_is_not_told() -> None:
    """After its end a writer has no interest in the reader."""
    told: list[bool] = []
    channel = Hub().create()
    channel.on_abandoned = lambda: told.append(True)
    channel.end(truncated=False)
    channel.leave()
    assert told == []


def test_ends_are_taken_once() -> None:
    """The second taker gets nothing."""
    channel = Hub().create()
    assert [channel.take("read"), channel.take("read"), channel.take("write")] == [True, False, True]
    assert channel.paired


def test_find_needs_the_key() -> None:
    """Neither a wrong key nor an unknown id finds a channel."""
    hub = Hub()
    channel = hub.create()
    assert hub.find(channel.id, channel.key) is channel
    assert hub.find(channel.id, "\ud800\u00e4") is None
    assert hub.find("x", channel.key) is None


def test_removed_when_both_ends_are_gone() -> None:
    """One end that is gone, or never came, keeps the channel."""
    hub = Hub()
    channel = hub.create()
    channel.end(truncated=False)
    hub.release(channel)
    assert len(hub) == 1
    channel.leave()
    hub.release(channel)
    assert len(hub) == 0
    hub.release(channel)


def test_close_wakes_everybody() -> None:
    """A waiting reader gets a cut stream, a waiting writer learns that nobody will read."""

    async def scenario() -> None:
        hub = Hub()
        idle, full = hub.create(), hub.create(1)
        full.push(data(b"1"))
        reader = asyncio.ensure_future(idle.pull())
        writer = asyncio.ensure_future(full.room(1))
        await settle()
        hub.close()
        assert await reader is None
        assert idle.truncated
        with pytest.raises(AbandonedError):
            await writer
        assert len(hub) == 0

    run(scenario())


class TestSweep:
    """Channels that lack an end are given up after the TTL."""

    def make(self) -> tuple[Hub, list[float]]:
        """Return a hub and the time it reads."""
        now = [0.0]
        return Hub(ttl=300, now=lambda: now[0]), now

    def test_age_counts_from_creation(self) -> None:
        """Younger channels stay, and so do those with both ends."""
        hub, now = self.make()
        hub.create()
        paired = hub.create()
        paired.take("read")
        paired.take("write")
        now[0] = 299.0
        young = hub.create()
        hub.sweep()
        assert len(hub) == 3
        now[0] = 300.0
        hub.sweep()
        assert hub.find(paired.id, paired.key) is paired
        assert hub.find(young.id, young.key) is young
        assert len(hub) == 2

    def test_waiting_reader_gets_a_clean_end(self) -> None:
        """As on the real engine: it looks like an empty stream."""

        async def scenario() -> None:
            hub, now = self.make()
            channel = hub.create()
            channel.take("read")
            waiting = asyncio.ensure_future(channel.pull())
            await settle()
            now[0] = 301.0
            hub.sweep()
            assert await waiting is None
            assert not channel.truncated
            assert not channel.take("write")

        run(scenario())

    def test_waiting_writer_is_dropped(self) -> None:
        """A writer that nobody came to read is told."""
        told: list[bool] = []
        hub, now = self.make()
        channel = hub.create()
        channel.take("write")
        channel.on_abandoned = lambda: told.append(True)
        channel.push(data(b"1"))
        now[0] = 301.0
        hub.sweep()
        assert told == [True]
        assert len(hub) == 0
