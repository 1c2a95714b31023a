"""Writes that join in one frame: when they do, what they look like on the wire, and that nothing is lost by it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
import socket
import sys
import threading
import time
import types
from collections.abc import Iterator
from typing import Any, Callable, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iii_sync import Worker, errors, register_worker
from iii_sync.channels.outgoing import Outgoing, opening_mark
from iii_sync.channels.writer import ChannelWriter, _Ending
from iii_sync.net.connection import Connection
from iii_sync.net.loop import Loop
from iii_sync.wire import frames
from iii_sync.wire.frames import MAX_FRAME
from iii_sync.wire.growing import Growing

from ..net.test_connection import WAIT, Pair, loop
from ..support.interrupts import Interrupter
from ..support.rawserver import RawPeer, raw_server
from ..support.threads import in_thread, switching_every
from ..support.waiting import wait_until
from ..wire.test_frames import server_decode

__all__ = ["loop"]  # a fixture


def decoded(view: Any) -> list[tuple[int, bytes]]:
    return [(frame.opcode, frame.payload) for frame in server_decode(bytes(view))]


class TestTheFrames:
    """Without a socket."""

    @settings(deadline=None)
    @given(sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=30), marked=st.booleans())
    def test_what_is_added_comes_out(self, sizes: list[int], marked: bool) -> None:
        """Pieces of any size join in one frame, masked as one, behind the opening mark the first time."""
        outgoing = Outgoing(marked)
        source = random.Random(sum(sizes))
        for turn in range(3):
            data = b""
            for size in sizes:
                piece = source.randbytes(size)
                outgoing.add(memoryview(piece))
                data += piece
            found = outgoing.next()
            assert found is not None
            mark = [(2, b"")] * 5 if marked and turn == 0 else []
            assert decoded(found) == [*mark, (2, data)]
            assert outgoing.next() is None

    def test_a_frame_that_leaves_is_left_alone(self) -> None:
        """While one frame leaves, the next one grows elsewhere."""
        outgoing = Outgoing(False)
        outgoing.add(memoryview(b"first"))
        leaving = outgoing.next()
        for _ in range(1000):
            outgoing.add(memoryview(b"second " * 100))
        assert leaving is not None
        assert decoded(leaving) == [(2, b"first")]

    def test_a_full_frame(self) -> None:
        """Writes join up to 768 KiB, and not a byte more; one write may fill 1 MiB alone."""
        outgoing = Outgoing(False)
        joined = 768 * 1024
        assert outgoing.room == MAX_FRAME
        outgoing.add(memoryview(bytes(joined - 1)))
        assert outgoing.room == 1
        assert outgoing.add(memoryview(b"x")), "a full frame is to leave"
        assert outgoing.room == 0
        found = outgoing.next()
        assert found is not None
        assert decoded(found) == [(2, bytes(joined - 1) + b"x")]
        assert outgoing.room == MAX_FRAME
        assert outgoing.add(memoryview(bytes(MAX_FRAME)))
        assert outgoing.room == 0

    def test_one_frame_is_enough_while_the_socket_takes_all(self) -> None:
        """What has left is written over; what may still be under way is not."""
        outgoing = Outgoing(False)
        views = []
        for number in range(4):
            outgoing.add(memoryview(b"%d" % number * 1000))
            views.append(outgoing.next())
            if number < 2:
                assert outgoing.next() is None
        first, second, third, fourth = (view.obj for view in views if view is not None)
        assert first is second is third, "each had left before the next one grew"
        assert fourth is not third
        assert views[2] is not None and decoded(views[2]) == [(2, b"2" * 1000)]
        outgoing.add(memoryview(b"growing"))
        found = outgoing.next()
        assert found is not None and decoded(found) == [(2, b"growing")], "a frame that grows stays where it is"

    def test_when_a_frame_leaves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """At once at first and after each pause; under load when no second piece like the last one would fit."""
        now = [100.0]
        monkeypatch.setattr("iii_sync.channels.outgoing.time.monotonic", lambda: now[0])
        outgoing = Outgoing(False)
        piece = memoryview(bytes(64 * 1024))

        def leaves() -> bool:
            if outgoing.add(piece):
                outgoing.next()
                return True
            return False

        assert [leaves() for _ in range(5)] == [True] * 5, "the first 256 KiB and one more are no load"
        assert [leaves() for _ in range(12)] == [False] * 11 + [True]
        now[0] += 0.01
        assert leaves(), "after a pause there is no load"

    def test_sending_is_no_pause(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A writer that waits for the socket, or for the GIL behind it, is under load."""
        now = [100.0]
        monkeypatch.setattr("iii_sync.channels.outgoing.time.monotonic", lambda: now[0])
        outgoing = Outgoing(False)
        piece = memoryview(bytes(64 * 1024))
        for _ in range(5):
            assert outgoing.add(piece)
            outgoing.next()
            now[0] += 0.01
            outgoing.handed_on()
        assert not outgoing.add(piece)

    def test_last_words(self) -> None:
        """A stream whose opening has not left is opened before it is dropped; one that has left is not opened twice."""
        outgoing = Outgoing(True)
        assert decoded(outgoing.last_words()) == [(2, b"")] * 5
        outgoing.add(memoryview(b"data"))
        outgoing.next()
        assert outgoing.last_words() == b""
        assert Outgoing(False).last_words() == b""
        assert len(opening_mark()) == 30


needs_c = pytest.mark.skipif(
    Growing.__module__ == "iii_sync.wire.growing",
    reason="nothing joins without the C extension",
)


def with_room() -> Outgoing:
    """One whose memory for a frame is larger than what is added next."""
    outgoing = Outgoing(False)
    outgoing.add(memoryview(bytes(MAX_FRAME)))
    while outgoing.next():
        pass
    return outgoing


class _OnlyWhenShut:
    """What grows, whose size is asked for only by who has shut it."""

    def __init__(self, growing: Growing) -> None:
        self._growing = growing
        self.open_now = False

    @property
    def used(self) -> int:
        assert not self.open_now
        return self._growing.used

    @used.setter
    def used(self, value: int) -> None:
        self._growing.used = value

    def open(self, *args: Any) -> None:
        self._growing.open(*args)
        self.open_now = True

    def shut(self) -> None:
        self._growing.shut()
        self.open_now = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._growing, name)


@needs_c
class TestTheShortWay:
    """Adding to a frame that was left open, without the turn; time stands still, for nothing joins behind a pause."""

    @pytest.fixture(autouse=True)
    def now(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """What the clock says."""
        now = [100.0]
        monkeypatch.setattr("iii_sync.channels.outgoing.time.monotonic", lambda: now[0])
        return now

    def test_it_is_open_while_something_grows(self) -> None:
        """And not before, nor once it leaves, nor when it is full."""
        outgoing = with_room()
        assert outgoing.join(b"x") == 0
        outgoing.leave_open()
        assert outgoing.join(b"x") == 0
        outgoing.add(memoryview(b"first "))
        assert outgoing.join(b"x") == 0
        outgoing.leave_open()
        for data in (b"second ", bytearray(b"third")):
            assert outgoing.join(data) == len(data)
        found = outgoing.next()
        assert found is not None
        assert decoded(found) == [(2, b"first second third")]
        assert outgoing.joined == len(b"second third")
        assert outgoing.join(b"x") == 0
        outgoing.leave_open()
        assert outgoing.join(b"x") == 0
        outgoing.add(memoryview(bytes(768 * 1024)))
        outgoing.leave_open()
        assert outgoing.join(b"x") == 0

    def test_what_joined_counts(self) -> None:
        """For the room that is left, and for where the next piece goes."""
        outgoing = with_room()
        outgoing.add(memoryview(bytes(1010)))
        outgoing.leave_open()
        assert outgoing.join(b"12345") == 5
        assert outgoing.room == 768 * 1024 - 1015
        assert outgoing.join(b"x") == 0, "who asked for the room relies on it"
        outgoing.leave_open()
        assert outgoing.join(b"6") == 1
        outgoing.add(memoryview(b"7"))
        outgoing.leave_open()
        assert outgoing.join(b"8") == 1
        found = outgoing.next()
        assert found is not None
        assert decoded(found) == [(2, bytes(1010) + b"12345678")]

    def test_it_stops_where_writes_cease_to_join(self) -> None:
        """At 768 KiB, whatever memory there is."""
        outgoing = with_room()
        outgoing.add(memoryview(b"x"))
        outgoing.leave_open()
        while outgoing.join(bytes(8 * 1024 - 1)):
            pass
        while outgoing.join(b"x"):
            pass
        assert outgoing.room == 0
        found = outgoing.next()
        assert found is not None
        assert len(decoded(found)[0][1]) == 768 * 1024

    def test_what_joins_is_no_pause(self, now: list[float]) -> None:
        """A writer whose writes join is under load, and one that pauses between them is not."""
        outgoing = with_room()
        assert not outgoing.add(memoryview(b"x"))
        outgoing.leave_open()
        for _ in range(10):
            now[0] += 0.0009
            assert outgoing.join(b"x") == 1
        outgoing.next()
        now[0] += 0.0009
        assert not outgoing.add(memoryview(b"x"))
        outgoing.leave_open()
        now[0] += 0.0011
        assert outgoing.join(b"x") == 0
        outgoing.next()
        assert outgoing.add(memoryview(b"x"))

    def test_its_size_is_looked_at_when_it_is_shut(self) -> None:
        """Else another thread could add to it behind that look, and what it added would be lost."""
        outgoing = with_room()
        outgoing._growing = watched = cast(Any, _OnlyWhenShut(outgoing._growing))
        looks: list[Callable[[], object]] = [
            lambda: outgoing.room,
            lambda: outgoing.add(memoryview(b"x")),
            outgoing.leave_open,
            outgoing.next,
            outgoing.clear,
        ]
        for look in looks:
            outgoing.add(memoryview(b"x"))
            outgoing.leave_open()
            assert watched.open_now
            look()

    @pytest.mark.parametrize("end", ["end", "clear", "ended"])
    def test_the_end(self, end: str) -> None:
        """Nothing joins a stream that is over, however often it is left open."""
        outgoing = with_room()
        outgoing.add(memoryview(b"first"))
        outgoing.leave_open()
        if end == "ended":
            _Ending(outgoing).ended(None, None)
        else:
            getattr(outgoing, end)()
        assert outgoing.join(b"x") == 0
        outgoing.leave_open()
        assert outgoing.join(b"x") == 0


class Joining(Pair):
    """A connection with a growing frame, over small socket buffers."""

    def __init__(self, loop: Loop) -> None:
        self.outgoing = Outgoing(False)
        super().__init__(loop, small=True)
        self.connection.take_from(self.outgoing)

    def add(self, data: bytes, push: bool = True) -> None:
        self.connection._turn.acquire()
        try:
            self.outgoing.add(memoryview(data))
            if push:
                self.connection.push()
            else:
                self.connection.push_later(0.001)
        finally:
            self.connection._give_turn_back()


@pytest.fixture
def joining(loop: Loop) -> Iterator[Joining]:
    pair = Joining(loop)
    yield pair
    pair.close()


class TestTheSocket:
    """On one connection, with the turn in the test's hands."""

    def test_what_waits_leaves_without_another_write(self, joining: Joining) -> None:
        """The reader thread sends the rest, and what has joined since, as the peer takes it."""
        joining.add(b"a" * 300_000)
        for number in range(100):
            joining.add(b"%02d" % number * 500)
        assert joining.outgoing.room < MAX_FRAME, "the peer reads nothing, so the writes have joined"
        assert joining.peer.recv_frame() == (2, b"a" * 300_000)
        assert joining.peer.recv_frame() == (2, b"".join(b"%02d" % number * 500 for number in range(100)))

    def test_a_late_push(self, joining: Joining) -> None:
        """Data that waits for more leaves by itself, every time; when others hold the turn, as soon as they let go."""
        for number in range(50):
            joining.add(b"%d" % number, push=False)
            assert joining.peer.recv_frame() == (2, b"%d" % number)
        joining.add(b"held", push=False)
        joining.connection._turn.acquire()
        time.sleep(0.05)  # the late push finds the turn taken
        joining.connection._give_turn_back()
        assert joining.peer.recv_frame()[0] == 2

    def test_a_late_push_is_for_what_is_late(self, joining: Joining) -> None:
        """What has begun to grow since it was asked for has its own time."""
        with joining.connection._turn:
            joining.outgoing.add(memoryview(b"young"))
            joining.outgoing.due = due = time.monotonic() + 0.2
            joining.connection.push_later(0)
        assert joining.peer.recv_frame() == (2, b"young")
        assert time.monotonic() >= due

    @pytest.mark.parametrize("drained", [True, False])
    def test_writing_leaves_the_reader_thread_alone(
        self, joining: Joining, monkeypatch: pytest.MonkeyPatch, drained: bool
    ) -> None:
        """It is asked now and then to look for what is late, or for the socket to drain, and not by each write."""
        calls: list[object] = []
        original = joining.connection._loop.call_soon

        def call_soon(function: Callable[[], None]) -> None:
            calls.append(function)
            original(function)

        def drain() -> None:
            with contextlib.suppress(OSError):  # at the end of the test
                while joining.peer.sock.recv(65536):
                    pass

        monkeypatch.setattr(joining.connection._loop, "call_soon", call_soon)
        if drained:
            threading.Thread(target=drain, daemon=True).start()
        joining.add(b"a" * 300_000)  # more than the socket takes at once
        writes, begin = 0, time.monotonic()
        while time.monotonic() < begin + 0.1:
            joining.add(b"piece", push=False)
            writes += 1
        elapsed = time.monotonic() - begin
        assert writes > 500
        assert len(calls) < 20 + 4 * elapsed / 0.001

    def test_what_was_left_to_the_socket_is_not_forgotten(self, joining: Joining) -> None:
        """Late while the reader thread waits for the socket, which drains while the sender still has the turn."""
        connection, outgoing = joining.connection, joining.outgoing
        joining.add(b"a" * 300_000)
        wait_until(lambda: connection._want_write, "the reader thread to wait for the socket")
        inside, go_on = threading.Event(), threading.Event()

        def late() -> None:
            inside.set()
            go_on.wait(WAIT)

        connection._loop.call_soon(late)
        assert inside.wait(WAIT)
        received = in_thread(joining.peer.recv_frame)
        connection._turn.acquire()
        wait_until(connection.push, "the sender himself to send the rest")
        assert received() == (2, b"a" * 300_000)
        outgoing.add(memoryview(b"the last"))
        connection.push_later(0)
        go_on.set()
        wait_until(lambda: not connection._want_write, "the socket to be looked at")
        connection._give_turn_back()
        assert joining.peer.recv_frame() == (2, b"the last")

    def test_control_frames_stay_between_frames(self, joining: Joining) -> None:
        """A pong goes behind the frame that is leaving, and before the one that grows."""
        joining.add(b"a" * 300_000)
        joining.add(b"b" * 1000)
        joining.peer.send_frame(9, b"ping")
        while not joining.connection._outbox:
            time.sleep(0.001)
        assert joining.peer.recv_frame() == (2, b"a" * 300_000)
        assert joining.peer.recv_frame() == (10, b"ping")
        assert joining.peer.recv_frame() == (2, b"b" * 1000)

    def test_drain_waits_for_everything(self, joining: Joining) -> None:
        """A message that is sent as a whole comes behind what waits."""
        joining.add(b"a" * 300_000)
        joining.add(b"b" * 1000)
        with pytest.raises(TimeoutError):
            joining.send(frames.encode_frame(frames.TEXT, b"text"), 0.05)
        assert joining.connection.error is None, "nothing of the message had left"
        assert joining.peer.recv_frame() == (2, b"a" * 300_000)
        joining.send(frames.encode_frame(frames.TEXT, b"text"))
        assert joining.peer.recv_frame() == (2, b"b" * 1000)
        assert joining.peer.recv_frame() == (1, b"text")

    def test_a_drop_cuts_what_waits(self, joining: Joining) -> None:
        """Nothing follows a drop, last words neither when half of a frame is under way."""
        joining.add(b"a" * 300_000)
        joining.add(b"b" * 1000)
        joining.connection.drop(errors.ChannelAbortedError("over"), last=lambda: frames.encode_frame(1, b"bye"))
        with pytest.raises(errors.ChannelAbortedError):
            while True:
                joining.add(b"more")
        with pytest.raises(EOFError):
            joining.peer.recv_frame()

    def test_an_interrupted_push_breaks_the_stream(self, joining: Joining, monkeypatch: pytest.MonkeyPatch) -> None:
        """How much has left is unknown then, so nothing may follow."""
        original = joining.connection._try_send

        def interrupted(view: memoryview) -> int:
            original(view)
            raise KeyboardInterrupt

        monkeypatch.setattr(joining.connection, "_try_send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            joining.add(b"half")
        monkeypatch.undo()
        with pytest.raises(errors.EngineConnectionError):
            joining.add(b"more")
        assert joining.peer.recv_frame() == (2, b"half")
        with pytest.raises(EOFError):
            joining.peer.recv_frame()

    def test_what_cannot_be_sent_later_breaks_the_connection(
        self, joining: Joining, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody is there to hear of it, and nothing would ever try again."""

        def fail() -> memoryview:
            raise MemoryError

        monkeypatch.setattr(joining.outgoing, "next", fail)
        joining.add(b"data", push=False)
        with pytest.raises(EOFError):
            joining.peer.recv_frame()
        with pytest.raises(errors.EngineConnectionError, match="MemoryError"):
            joining.add(b"more")

    def test_the_peer_leaves_while_data_waits(self, joining: Joining) -> None:
        """The next write hears of it."""
        joining.add(b"a" * 300_000)
        joining.peer.sock.close()
        end = time.monotonic() + WAIT
        with pytest.raises(errors.EngineConnectionError):
            while time.monotonic() < end:
                joining.add(b"more")


class Sink:
    """An engine that notes the messages of one stream, reading slowly if asked to."""

    def __init__(self, pause: float = 0) -> None:
        self.messages: list[tuple[int, bytes]] = []
        self.streams: list[RawPeer] = []
        self.pause = pause
        self.closed = threading.Event()
        self.answer = threading.Event()  # what the Close waits for
        self.answer.set()
        self.done = threading.Event()

    def serve(self, peer: RawPeer) -> None:
        peer.read_request()
        if not peer.path.startswith("/ws/channels/"):
            peer.introduce()
            peer.recv_frame()
            return
        peer.handshake()
        self.streams.append(peer)
        while True:
            opcode, payload = peer.recv_frame()
            if opcode == 8:
                self.closed.set()
                self.answer.wait(WAIT)
                peer.send_frame(8, payload)
                self.done.set()
                return
            self.messages.append((opcode, payload))
            time.sleep(self.pause)


REF = {"channel_id": "c", "access_key": "k", "direction": "write"}


def test_writes_join_only_under_load() -> None:
    """Slow writes are messages of their own, thousands of quick ones are not; a text message keeps its place."""
    sink = Sink()
    with raw_server(sink.serve) as server, register_worker(server.url) as worker:
        writer = worker.open_ref(REF)
        assert isinstance(writer, ChannelWriter)
        with writer:
            for number in range(20):
                writer.write(b"%d" % number)
                time.sleep(0.005)
            for _ in range(20_000):
                writer.write(b"quick")
            writer.send_message("text")
            writer.write(b"last")
        assert sink.done.wait(WAIT)
    opening, slow, rest = sink.messages[:5], sink.messages[5:25], sink.messages[25:]
    assert opening == [(2, b"")] * 5
    assert slow == [(2, b"%d" % number) for number in range(20)]
    quick, text, last = rest[:-3], rest[-3], rest[-2:]
    assert b"".join(payload for _, payload in quick) == b"quick" * 20_000
    assert len(quick) < 10_000
    assert (text, last) == ((1, b"text"), [(2, b"last"), (2, b"")])


class _SlowSocket:
    """A socket whose sends take a while, as they do where many threads want the GIL."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def send(self, data: Any) -> int:
        time.sleep(0.003)
        return int(self._sock.send(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_writes_join_where_sending_is_slow() -> None:
    """The time that a send takes is not the writer's: it writes as fast as it can."""
    sink = Sink()
    with raw_server(sink.serve) as server, register_worker(server.url) as worker:
        writer = worker.open_ref(REF)
        assert isinstance(writer, ChannelWriter)
        with writer:
            writer.write(b"first")
            assert writer._connection is not None
            writer._connection._sock = _SlowSocket(writer._connection._sock)  # type: ignore[assignment]
            for _ in range(200):
                writer.write(bytes(16 * 1024))
        assert sink.done.wait(WAIT)
    data = [payload for _, payload in sink.messages[5:-1]]
    assert b"".join(data) == b"first" + bytes(200 * 16 * 1024)
    assert len(data) < 100


def test_waiting_for_room_is_no_pause_of_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a socket that was full a stream under load goes on with frames as large as before."""
    sink = Sink(pause=0.005)
    # Stands still but for the waits, and far ahead, so that nothing is due before it is full.
    now, waits = [time.monotonic() + 1000], 0
    monkeypatch.setattr("iii_sync.channels.outgoing.time", types.SimpleNamespace(monotonic=lambda: now[0]))
    original = Connection.wait_writable

    def wait_writable(self: Connection, *args: Any) -> Any:
        nonlocal waits
        waits += 1
        now[0] += 0.01
        return original(self, *args)

    monkeypatch.setattr(Connection, "wait_writable", wait_writable)
    with raw_server(sink.serve) as server, register_worker(server.url) as worker:
        writer = worker.open_ref(REF)
        assert isinstance(writer, ChannelWriter)
        with writer:
            while waits < 15:
                writer.write(bytes(64 * 1024))
            total = writer.tell()
        assert sink.done.wait(WAIT)
    sizes = [len(payload) for _, payload in sink.messages[5:-1]]
    assert sum(sizes) == total
    # The reader thread may find the socket drained, and send the first of a frame, now and then.
    assert sum(size == 64 * 1024 for size in sizes[6:]) < 15, sizes


def quick_writer(worker: Worker, channel_id: str = "c") -> ChannelWriter:
    """A writer under load, whose frame grows: its writes go the short way."""
    writer = worker.open_ref({**REF, "channel_id": channel_id})
    assert isinstance(writer, ChannelWriter)
    end = time.monotonic() + WAIT
    before = -1
    while writer._outgoing.joined == before or before <= 0:
        before = writer._outgoing.joined
        writer.write(b"warm")
        assert time.monotonic() < end
    return writer


@needs_c
@pytest.mark.parametrize("pause", [0.0, 0.01])
def test_records_of_many_threads_stay_whole(pause: float) -> None:
    """What one call writes stays together, the calls of one thread in order, whichever way each of them goes."""
    sink = Sink(pause)
    threads, each = 6, 4000
    with raw_server(sink.serve) as server, register_worker(server.url) as worker:
        writer = worker.open_ref(REF)
        assert isinstance(writer, ChannelWriter)

        def write(mark: int) -> int:
            source = random.Random(mark)
            total = 0
            for number in range(each):
                body = bytes([mark]) * source.choice([0, 0, 10, 500, 20_000 if number % 50 == 0 else 1])
                record = len(body).to_bytes(4, "big") + bytes([mark]) + number.to_bytes(4, "big") + body
                total += writer.write(record)
            return total

        with switching_every(1e-5), writer:
            totals = [in_thread(lambda mark=mark: write(mark)) for mark in range(threads)]  # type: ignore[misc]
            written = sum(total() for total in totals)
        assert writer._outgoing.joined > written / 20, "hardly any went the short way"
        assert sink.done.wait(WAIT)
    data, position = b"".join(payload for _, payload in sink.messages), 0
    assert len(data) == written
    numbers = [0] * threads
    while position < len(data):
        size, mark = int.from_bytes(data[position : position + 4], "big"), data[position + 4]
        assert int.from_bytes(data[position + 5 : position + 9], "big") == numbers[mark]
        assert data[position + 9 : position + 9 + size] == bytes([mark]) * size
        numbers[mark] += 1
        position += 9 + size
    assert numbers == [each] * threads


@needs_c
def test_text_keeps_its_place_among_quick_writes() -> None:
    """It goes behind all that was written before it, and before all that is written after it."""
    sink = Sink()
    with raw_server(sink.serve) as server, register_worker(server.url) as worker:
        with quick_writer(worker) as writer:
            warm = writer.tell()
            for number in range(300):
                for _ in range(number % 7):
                    writer.write(b"%03d" % number)
                writer.send_message(f"{number:03}")
        assert sink.done.wait(WAIT)
    seen, data = bytearray(), b""
    for opcode, payload in sink.messages:
        if opcode == 1:
            number = int(payload)
            assert data == b"%03d" % number * (number % 7)
            data = b""
        else:
            data += payload[max(0, warm - len(seen)) :]
            seen += payload


def pour(writer: ChannelWriter, begun: threading.Event) -> int:
    """Write until that is refused; returns how many writes have returned."""
    count = 0
    try:
        while True:
            writer.write(b"0123456789")
            count += 1
            begun.set()
    except (ValueError, errors.ChannelAbortedError):
        return count


@needs_c
def test_a_close_beside_quick_writes_loses_nothing() -> None:
    """Where ``close()`` succeeds, every write that returned is in the stream; all others raise."""
    whole = 0
    for round_number in range(40):
        sink = Sink()
        with raw_server(sink.serve) as server, register_worker(server.url) as worker:
            writer = quick_writer(worker)
            warm = writer.tell()
            begun = threading.Event()
            poured = in_thread(functools.partial(pour, writer, begun))
            assert begun.wait(WAIT)
            time.sleep(0.0003 * (round_number % 7))
            try:
                writer.close()
            except errors.ChannelAbortedError:
                poured()
                continue
            count = poured()
            assert sink.done.wait(WAIT)
        data = b"".join(payload for _, payload in sink.messages)
        assert data[warm:] == b"0123456789" * count
        whole += 1
    assert whole, "each close() has met a write that had the turn"


@needs_c
def test_an_abort_ends_the_short_way() -> None:
    """The next write raises at once, however open the frame was left."""
    sink = Sink()
    with raw_server(sink.serve) as server, register_worker(server.url) as worker:
        writer = quick_writer(worker)
        writer.abort()
        with pytest.raises(ValueError, match="closed"):
            writer.write(b"more")
        writer = quick_writer(worker, "another")
        writer._fail(errors.ChannelAbortedError("test"))
        with pytest.raises(errors.ChannelAbortedError, match="test"):
            writer.write(b"more")


@needs_c
def test_a_failed_close_ends_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose end could not be sent takes no more, neither while it is being dropped."""
    sink = Sink()
    with raw_server(sink.serve) as server, register_worker(server.url) as worker:
        writer = quick_writer(worker)

        def fail(deadline: Any) -> None:
            raise errors.CloseTimeout("test")

        monkeypatch.setattr(writer, "_finish", fail)
        monkeypatch.setattr(writer._connection, "drop", lambda error: None)
        with pytest.raises(errors.CloseTimeout):
            writer.close()
        with pytest.raises(ValueError, match="closed"):
            writer.write(b"more")
        monkeypatch.undo()
        writer._fail(errors.ChannelAbortedError("test"))


@needs_c
def test_a_peer_that_is_gone_ends_the_short_way() -> None:
    """As soon as that is known the next write raises, however much would still fit."""
    sink = Sink()
    with raw_server(sink.serve) as server, register_worker(server.url) as worker:
        writer = quick_writer(worker)
        sink.streams[0].sock.shutdown(socket.SHUT_RDWR)
        assert writer._ending.over.wait(WAIT)
        with pytest.raises(errors.ChannelBrokenError):
            writer.write(b"more")


@needs_c
def test_a_timeout_of_its_own_is_looked_at() -> None:
    """Also where nothing has to be waited for."""
    sink = Sink()
    with raw_server(sink.serve) as server, register_worker(server.url) as worker:
        with quick_writer(worker) as writer:
            with pytest.raises(ValueError, match="timeout=-1"):
                writer.write(b"more", timeout=-1)
            assert writer.write(b"more", timeout=5) == 4


@needs_c
@pytest.mark.skipif(sys.version_info < (3, 10), reason="3.9 looks for signals where no lock is safe")
def test_ctrl_c_in_a_quick_write() -> None:
    """At every step: all of it is in the stream, or nothing; ``tell()`` says which, and the stream goes on."""
    interrupter, at, counted = Interrupter(), 0, set()
    while True:
        sink = Sink()
        with raw_server(sink.serve) as server, register_worker(server.url) as worker:
            writer = quick_writer(worker)
            while True:
                before, joined = writer.tell(), writer._outgoing.joined
                interrupted = interrupter.interrupt(at, functools.partial(writer.write, b"the piece"))
                if interrupted or writer._outgoing.joined > joined:
                    break  # else it had to go the long way this time
            told = writer.tell() - before
            writer.write(b"behind it")
            writer.close()
            assert sink.done.wait(WAIT)
        data = b"".join(payload for _, payload in sink.messages)[before:]
        assert (told, data) in [(0, b"behind it"), (9, b"the piecebehind it")], interrupter.where
        counted.add(told)
        if not interrupted:
            break
        at += 1
    assert at > 3 and counted == {0, 9}


@needs_c
@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.skipif(sys.version_info < (3, 10), reason="3.9 looks for signals where no lock is safe")
def test_what_is_closed_takes_nothing_wherever_ctrl_c_has_hit(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write either finds the writer open, and has to go the long way, or is refused."""
    interrupter, at, refused = Interrupter(), 0, 0
    while True:
        sink = Sink()
        with raw_server(sink.serve) as server, register_worker(server.url) as worker:
            writer = quick_writer(worker)
            connection = writer._connection
            assert connection is not None
            with monkeypatch.context() as patch:
                # As if the reader thread were late: it must not take its news.
                patch.setattr(connection, "drop", lambda *args, **options: None)
                interrupted = interrupter.interrupt(at, getattr(writer, end))
                if writer.closed:
                    with pytest.raises((ValueError, errors.ChannelError)):
                        writer.write(b"more")
                    refused += 1
            connection.drop(errors.ChannelAbortedError("test"))
        if not interrupted or refused > 20:
            break
        at += 1
    assert refused


def test_a_write_in_a_signal_handler_does_not_hide_the_one_it_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed meanwhile, from elsewhere, the stream takes nothing behind its end: the write is refused."""
    sink = Sink()
    sink.answer.clear()
    with raw_server(sink.serve) as server, register_worker(server.url) as worker:
        writer = worker.open_ref(REF)
        assert isinstance(writer, ChannelWriter)
        writer.write(b"first")
        in_turn = Connection.in_turn
        closing: list[Any] = []

        def interrupted(self: Connection, *args: Any) -> Any:
            if not closing:
                closing.append(None)
                writer.write(b"nested")
                closing[0] = in_thread(writer.close)
                assert sink.closed.wait(WAIT)
            return in_turn(self, *args)

        monkeypatch.setattr(Connection, "in_turn", interrupted)
        with pytest.raises(ValueError, match="closed"):
            writer.write(b"outer")
        sink.answer.set()
        closing[0]()
        assert sink.done.wait(WAIT)
    assert b"".join(payload for _, payload in sink.messages) == b"firstnested"


@pytest.mark.parametrize("seed", range(4))
def test_any_sizes_past_a_slow_peer(seed: int) -> None:
    """Whatever is written arrives in order, in messages of 1 MiB at most, the end mark behind it."""
    source = random.Random(seed)
    sizes = [source.choice([1, 100, 5000, 65536, 300_000, MAX_FRAME, 3 * MAX_FRAME + 1]) for _ in range(60)]
    sink = Sink(pause=0.002)
    sent = hashlib.sha256()
    with raw_server(sink.serve) as server, register_worker(server.url) as worker:
        writer = worker.open_ref(REF)
        assert isinstance(writer, ChannelWriter)
        with writer:
            for size in sizes:
                data = source.randbytes(size)
                sent.update(data)
                assert writer.write(data) == size
            assert writer.tell() == sum(sizes)
        assert sink.done.wait(WAIT)
    assert sink.messages[:5] == [(2, b"")] * 5
    assert sink.messages[-1] == (2, b"")
    assert all(0 < len(payload) <= MAX_FRAME for _, payload in sink.messages[5:-1])
    assert hashlib.sha256(b"".join(payload for _, payload in sink.messages)).digest() == sent.digest()
