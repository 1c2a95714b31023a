"""How much must arrive before the reader thread is woken, and that nothing which has arrived is left lying."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from typing import Callable

import pytest

from iii_sync.errors import ChannelAbortedError
from iii_sync.net import lowwater
from iii_sync.net.connection import Connection
from iii_sync.net.inbox import Inbox
from iii_sync.net.loop import Loop
from iii_sync.net.windows import LARGEST
from iii_sync.wire import frames

from ..support.rawserver import server_frame
from ..support.sockets import tcp_pair
from ..support.waiting import wait_until

WAIT = 20.0
NEVER = 3600.0

FRAME = server_frame(frames.BINARY, bytes(range(256)) * 4096)
PAYLOAD = 1024 * 1024
HEADER = len(FRAME) - PAYLOAD

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="selectors know no low-water marks here")


class Stream:
    """A connection over TCP, the socket at its other end, and how many bytes of data its inbox got."""

    def __init__(self, loop: Loop) -> None:
        self.sock, self.peer = tcp_pair()
        self.sock.setblocking(False)
        self.inbox = Inbox()
        self.connection = Connection(self.sock, loop, self.inbox, "the peer")
        self.connection.start()
        self.received = 0

    @property
    def mark(self) -> int:
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)

    def receive(self, size: int) -> None:
        """Take as many bytes from the inbox; more must not be there."""
        while self.received < size:
            batch = self.inbox.get(WAIT)
            assert batch is not None
            self.received += batch.length
            batch.release()
        assert self.received == size

    def close(self) -> None:
        self.connection.drop(ChannelAbortedError("over"))
        self.peer.close()


@pytest.fixture
def streams() -> Iterator[Callable[[], Stream]]:
    """Makes streams of one reader thread."""
    loop, made = Loop("test-loop"), []

    def make() -> Stream:
        made.append(Stream(loop))
        return made[-1]

    yield make
    for stream in made:
        stream.close()
    assert loop.stop(5)


@on_linux
def test_the_rest_of_a_frame_is_waited_for_as_a_whole(
    streams: Callable[[], Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread is not woken for less of it, and receives what follows as well."""
    monkeypatch.setattr(lowwater, "_MOMENT", NEVER)
    stream, other = streams(), streams()
    # Not nearly all of it: the kernel wakes those, too, whose window is nearly full.
    begun, half = 64 * 1024, 512 * 1024
    stream.peer.sendall(FRAME[:begun])
    stream.receive(begun - HEADER)
    wait_until(lambda: stream.mark == len(FRAME) - begun, "the mark")
    stream.peer.sendall(FRAME[begun:half])
    for number in range(1, 11):  # the thread has looked at its sockets, and this one was not among them
        other.peer.sendall(server_frame(frames.BINARY, b"x"))
        other.receive(number)
    assert stream.inbox._queue.empty()
    stream.peer.sendall(FRAME[half:] + server_frame(frames.CLOSE, b"\x03\xe8"))
    stream.receive(PAYLOAD)
    wait_until(lambda: stream.inbox.over, "the end")


@pytest.mark.parametrize("supported", [pytest.param(True, marks=on_linux), False])
def test_a_frame_that_stops_half_way_is_received_as_far_as_it_came(
    streams: Callable[[], Stream], monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    """Of several streams at once, and what follows later as well."""
    monkeypatch.setattr(lowwater, "_SUPPORTED", supported)
    many = [streams() for _ in range(5)]
    begun, more = 700_000, 1_000_000
    for stream in many:
        stream.peer.sendall(FRAME[:begun])
    for stream in many:
        stream.receive(begun - HEADER)
        stream.peer.sendall(FRAME[begun:more])
    for stream in many:
        stream.receive(more - HEADER)
        stream.peer.sendall(FRAME[more:] + server_frame(frames.BINARY, b"behind"))
    for stream in many:
        stream.receive(PAYLOAD + len(b"behind"))


@on_linux
def test_the_last_bytes_of_a_long_load_are_not_left_lying(
    streams: Callable[[], Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that end below the mark, and a single small one behind them."""
    monkeypatch.setattr(lowwater, "_LONG", 4 * PAYLOAD)
    stream = streams()
    standing = stream.connection._loop.low_water._due
    marks = []
    stands = lowwater.LowWater.stands

    def noting(self: lowwater.LowWater, mark: lowwater.Mark, now: float) -> None:
        marks.append(stream.mark)
        stands(self, mark, now)

    monkeypatch.setattr(lowwater.LowWater, "stands", noting)
    piece = server_frame(frames.BINARY, b"x" * 60_000)  # so that no rest of one is worth a mark
    load = threading.Thread(target=stream.peer.sendall, args=(1000 * piece,))
    load.start()
    stream.receive(1000 * 60_000)
    load.join(WAIT)
    assert lowwater._HIGH in marks
    stream.peer.sendall(server_frame(frames.BINARY, b"last"))
    stream.receive(1000 * 60_000 + len(b"last"))
    wait_until(lambda: not standing and stream.mark == 1, "the fall of the mark")


@on_linux
def test_the_end_of_a_connection_is_seen_below_the_mark(
    streams: Callable[[], Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that goes amid a frame wakes the thread at once."""
    monkeypatch.setattr(lowwater, "_MOMENT", NEVER)
    stream = streams()
    stream.peer.sendall(FRAME[: 64 * 1024])
    wait_until(lambda: stream.mark > 1, "the mark")
    stream.peer.sendall(FRAME[64 * 1024 : 65 * 1024])
    stream.peer.close()
    stream.receive(65 * 1024 - HEADER)
    wait_until(lambda: stream.inbox.over, "the end")
    assert stream.inbox.error is not None


@on_linux
def test_a_connection_that_is_over_leaves_no_mark(streams: Callable[[], Stream]) -> None:
    """Its mark falls like others, with nobody to receive for it."""
    stream = streams()
    standing = stream.connection._loop.low_water._due
    stream.peer.sendall(FRAME[: 64 * 1024])
    stream.receive(64 * 1024 - HEADER)
    stream.close()
    wait_until(lambda: stream.inbox.over and not standing, "the end of both")


@on_linux
def test_no_mark_is_above_what_one_read_takes(streams: Callable[[], Stream], monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames may be larger than windows."""
    monkeypatch.setattr(lowwater, "_MOMENT", NEVER)
    stream = streams()
    size = 5 * LARGEST
    frame = server_frame(frames.BINARY, bytes(size))
    stream.peer.sendall(frame[: 64 * 1024])
    wait_until(lambda: stream.mark == LARGEST, "the mark")
    stream.peer.sendall(frame[64 * 1024 :])
    stream.receive(size)
