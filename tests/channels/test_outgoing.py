"""Writes that join in one frame: when they do, what they look like on the wire, and that nothing is lost by it."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iii_sync import errors, register_worker
from iii_sync.channels.outgoing import Outgoing, opening_mark
from iii_sync.channels.writer import ChannelWriter
from iii_sync.net.connection import Connection
from iii_sync.net.loop import Loop
from iii_sync.wire import frames
from iii_sync.wire.frames import MAX_FRAME

from ..net.test_connection import WAIT, Pair, loop
from ..support.rawserver import RawPeer, raw_server
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
        self.pause = pause
        self.done = threading.Event()

    def serve(self, peer: RawPeer) -> None:
        peer.read_request()
        if not peer.path.startswith("/ws/channels/"):
            peer.introduce()
            peer.recv_frame()
            return
        peer.handshake()
        while True:
            opcode, payload = peer.recv_frame()
            if opcode == 8:
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
    """Behind a socket that was full for long a stream under load goes on with frames as large as before."""
    sink = Sink(pause=0.01)
    waits: list[float] = []
    original = Connection.wait_writable

    def wait_writable(self: Connection, *args: Any) -> Any:
        begin = time.monotonic()
        try:
            return original(self, *args)
        finally:
            waits.append(time.monotonic() - begin)

    monkeypatch.setattr(Connection, "wait_writable", wait_writable)
    with raw_server(sink.serve) as server, register_worker(server.url) as worker:
        writer = worker.open_ref(REF)
        assert isinstance(writer, ChannelWriter)
        with writer:
            for _ in range(800):
                writer.write(bytes(64 * 1024))
        assert sink.done.wait(WAIT)
    full = sum(wait > 0.002 for wait in waits)
    assert full > 10, "the socket was hardly ever full"
    sizes = [len(payload) for _, payload in sink.messages[5:-1]]
    assert sum(sizes) == 800 * 64 * 1024
    # Whatever else keeps this process waiting for longer than a pause, it does not do so each time.
    assert sum(size < 256 * 1024 for size in sizes[6:]) < full, sizes


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
