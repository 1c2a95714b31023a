"""How much must arrive before the reader thread is woken, and that nothing which has arrived is left lying."""

from __future__ import annotations

import selectors
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from iii_sync.errors import ChannelAbortedError
from iii_sync.net import lowwater
from iii_sync.net.connection import Connection
from iii_sync.net.inbox import Inbox
from iii_sync.net.loop import Loop
from iii_sync.net.lowwater import LowWater
from iii_sync.net.windows import LARGEST
from iii_sync.wire import frames

from ..support.rawserver import server_frame
from ..support.sockets import tcp_pair, unread
from ..support.waiting import wait_until
from .test_connection import WAIT, Pair, loop

__all__ = ["loop"]  # a fixture

READ = 128 * 1024  # what a read of a stream under load brings, here

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="selectors know no low-water marks here")


@on_linux
class TestOneMark:
    """The mark of a socket that a selector watches; the clock is the test's."""

    @pytest.fixture(autouse=True)
    def made(self) -> Iterator[None]:
        self.falls = 0
        self.sock, self.peer = tcp_pair()
        self.all = LowWater()
        mark = self.all.mark(self.sock, self.fallen)
        assert mark is not None
        self.mark = mark
        self.now = 1000.0
        with selectors.DefaultSelector() as selector, self.sock, self.peer:
            selector.register(self.sock, selectors.EVENT_READ)
            self.selector = selector
            yield

    def fallen(self) -> None:
        self.falls += 1

    @property
    def value(self) -> int:
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)

    def read(self, left: int, size: int = READ, after: float = 0.0005, more: bool = False) -> None:
        """What a read tells the mark."""
        self.now += after
        self.mark.received(size, left, more, self.now)

    def begin(self, left: int) -> None:
        """Two reads, so that the second one comes quickly."""
        self.read(left + READ)
        self.read(left)

    def test_the_rest_of_a_frame_is_waited_for_as_a_whole(self) -> None:
        """The selector does not wake for half of it."""
        self.begin(left=600_000)
        assert self.value == 600_000
        self.peer.sendall(bytes(300_000))
        wait_until(lambda: unread(self.sock) == 300_000, "the first half")
        assert not self.selector.select(0)
        self.peer.sendall(bytes(300_000))
        assert self.selector.select(WAIT)

    def test_the_end_of_the_stream_wakes_below_the_mark(self) -> None:
        """A peer that goes amid a frame is noticed at once."""
        self.begin(left=600_000)
        self.peer.sendall(b"x")
        wait_until(lambda: unread(self.sock) == 1, "the byte")
        assert not self.selector.select(0)
        self.peer.shutdown(socket.SHUT_WR)
        assert self.selector.select(WAIT)

    def test_it_is_not_above_what_one_read_takes(self) -> None:
        """Frames may be larger than windows."""
        self.begin(left=5 * LARGEST)
        assert self.value == LARGEST

    @pytest.mark.parametrize("left", [0, 1, 30_000])
    def test_a_short_rest_is_not_worth_one(self, left: int) -> None:
        """Nor is the beginning of a frame that may never come, unless the load is long."""
        self.begin(left)
        assert self.value == 1 and self.all.due() is None
        for _ in range(lowwater._LONG // READ):
            self.read(left)
        assert self.value == lowwater._HIGH

    @pytest.mark.parametrize(
        ("size", "after", "more"), [(READ, 0.1, False), (1000, 0.0005, False), (READ, 0.0005, True)]
    )
    def test_it_is_lowered(self, size: int, after: float, more: bool) -> None:
        """By a pause and a small read, for then there is no load; and where more has come than the read could take."""
        self.begin(left=600_000)
        assert self.value == 600_000
        self.read(500_000, size, after, more)
        assert self.value == 1 and self.all.due() is None

    def test_a_long_load_counts_for_less_after_each_pause(self) -> None:
        """One pause is forgiven, a stream that has become slow is not under load."""
        for _ in range(4 * lowwater._LONG // READ):
            self.read(0)
        self.read(0, after=0.1)
        self.read(0)
        assert self.value == lowwater._HIGH
        for _ in range(3):
            self.read(0, after=0.1)
        self.read(0)
        assert self.value == 1

    def test_one_that_is_not_reached_falls(self) -> None:
        """In a moment after the last read, and not before; then what is there is received."""
        moment = lowwater._MOMENT
        self.begin(left=600_000)
        self.read(500_000, after=moment / 2)
        self.all.look(self.now + moment * 0.9)
        assert self.falls == 0 and self.value == 500_000
        self.all.look(self.now + moment)
        assert self.falls == 1 and self.value == 1 and self.all.due() is None

    def test_each_falls_in_its_turn(self) -> None:
        """The one that was read last stands longest, and one for which receiving fails takes nobody with it."""

        def fails() -> None:
            raise RuntimeError("receiving failed")

        other, its_peer = tcp_pair()
        with other, its_peer:
            bad = self.all.mark(other, fails)
            assert bad is not None
            self.begin(left=600_000)
            first = self.now
            for _ in range(2):
                self.now += 0.0005
                bad.received(READ, 600_000, False, self.now)
            second = self.now
            self.read(500_000)
            assert self.all.due() == second + lowwater._MOMENT
            self.all.look(first + lowwater._MOMENT)
            with pytest.raises(RuntimeError):
                self.all.look(self.now + 1)
        assert self.falls == 0 and self.all.due() == self.now + lowwater._MOMENT
        self.all.look(self.now + 1)
        assert self.falls == 1 and self.value == 1 and self.all.due() is None

    def test_a_socket_that_is_closed_has_none(self) -> None:
        """Nothing stands for it any more."""
        self.begin(left=600_000)
        self.sock.close()
        self.read(500_000)
        assert self.all.due() is None


FRAME = server_frame(frames.BINARY, bytes(range(256)) * 4096)
PAYLOAD = 1024 * 1024
HEADER = len(FRAME) - PAYLOAD


class Stream(Pair):
    """Over TCP; knows how many bytes of data its inbox got."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop, tcp=True)
        self.received = 0

    def receive(self, size: int) -> None:
        """Take as many bytes from the inbox; more must not be there."""
        while self.received < size:
            batch = self.inbox.get(WAIT)
            assert batch is not None
            self.received += batch.length
            batch.release()
        assert self.received == size


class SmallBuffer(Inbox):
    """Receives into 64 KiB, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self.small = bytearray(64 * 1024)

    def buffer(self) -> bytearray:
        return self.small

    def received_binary(self, payloads: list[memoryview], messages: int, size: int, more: bool) -> bool:
        self.size += sum(map(len, payloads))
        return True


class TestStreams:
    """Connections of one reader thread, over TCP."""

    @pytest.fixture(autouse=True)
    def made(self, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        # A busy machine makes pauses, and what comes with pauses is no load.
        monkeypatch.setattr(lowwater, "_PAUSE", 3600.0)
        self.loop = loop
        self.streams: list[Stream] = []
        self.stood: list[int] = []
        stands = LowWater.stands

        def noting(low_water: LowWater, mark: lowwater.Mark, now: float) -> None:
            self.stood.append(mark._value)
            stands(low_water, mark, now)

        monkeypatch.setattr(LowWater, "stands", noting)
        yield
        for stream in self.streams:
            stream.close()

    def stream(self) -> Stream:
        self.streams.append(Stream(self.loop))
        return self.streams[-1]

    def fallen(self) -> bool:
        """Whether no mark stands."""
        return self.loop.low_water.due() is None

    @pytest.mark.parametrize("supported", [pytest.param(True, marks=on_linux), False])
    def test_a_frame_that_stops_half_way_is_received_as_far_as_it_came(
        self, monkeypatch: pytest.MonkeyPatch, supported: bool
    ) -> None:
        """Of several streams at once, and what follows later as well."""
        monkeypatch.setattr(lowwater, "_SUPPORTED", supported)
        many = [self.stream() for _ in range(5)]
        sent = 0
        for begun in (500_000, 800_000, 1_000_000):
            for stream in many:
                stream.peer.sock.sendall(FRAME[sent:begun])
            for stream in many:
                stream.receive(begun - HEADER)
            sent = begun
        for stream in many:
            stream.peer.sock.sendall(FRAME[sent:] + server_frame(frames.BINARY, b"behind"))
        for stream in many:
            stream.receive(PAYLOAD + len(b"behind"))
        assert bool(self.stood) is supported

    @on_linux
    def test_the_last_bytes_of_a_long_load_are_not_left_lying(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Messages that end below the mark, and a single small one behind them."""
        monkeypatch.setattr(lowwater, "_LONG", 4 * PAYLOAD)
        stream = self.stream()
        piece = server_frame(frames.BINARY, b"x" * 30_000)  # so that no rest of one is worth a mark
        load = threading.Thread(target=stream.peer.sock.sendall, args=(2000 * piece,))
        load.start()
        stream.receive(2000 * 30_000)
        load.join(WAIT)
        assert self.stood
        stream.peer.sock.sendall(server_frame(frames.BINARY, b"last"))
        stream.receive(2000 * 30_000 + len(b"last"))
        wait_until(self.fallen, "the fall of the mark")

    @on_linux
    def test_none_stands_over_what_a_small_buffer_has_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The control connection's, say: bytes that have arrived are read before any mark."""
        monkeypatch.setattr(lowwater, "_MOMENT", 3600.0)
        monkeypatch.setattr(lowwater, "_LONG", lowwater._HIGH)
        sock, peer = tcp_pair()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        piece = server_frame(frames.BINARY, bytes(9000))
        count = 100  # what is behind the last full round of reads is below the mark
        load = threading.Thread(target=peer.sendall, args=(count * piece,))
        load.start()
        wait_until(lambda: unread(sock) == count * len(piece), "the bytes")
        load.join(WAIT)
        receiver = SmallBuffer()
        connection = Connection(sock, self.loop, receiver, "the peer")
        connection.start()
        wait_until(lambda: receiver.size == count * 9000, "all of it")
        connection.drop(ChannelAbortedError("over"))
        peer.close()

    @on_linux
    def test_a_connection_that_is_over_leaves_no_mark(self) -> None:
        """Its mark falls like others, with nobody to receive for it."""
        stream = self.stream()
        stream.peer.sock.sendall(FRAME[:500_000])
        stream.receive(500_000 - HEADER)
        stream.close()
        wait_until(lambda: stream.inbox.over and self.fallen(), "the end of both")
