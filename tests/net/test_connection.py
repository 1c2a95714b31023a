"""The schedules that the reader thread and the senders must get right, each forced."""

from __future__ import annotations

import gc
import os
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Optional

import pytest

from iii_sync.errors import ChannelAbortedError, EngineConnectionError, RemoteProtocolError
from iii_sync.net import inbox as inbox_module
from iii_sync.net.connection import Connection
from iii_sync.net.inbox import Batch, Inbox
from iii_sync.net.loop import Loop
from iii_sync.net.waiting import Deadline
from iii_sync.net.windows import LARGEST, Windows
from iii_sync.wire import frames

from ..support.rawserver import RawPeer, server_frame
from ..support.sockets import tcp_pair
from ..support.waiting import wait_until

WAIT = 20.0


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop("test-loop")
    yield loop
    assert loop.stop(5)


class Pair:
    """A connection of ours over a socket pair, or over TCP, and the other end as a raw peer."""

    def __init__(self, loop: Loop, small: bool = False, tcp: bool = False) -> None:
        ours, theirs = tcp_pair() if tcp else socket.socketpair()
        if small:
            for sock in (ours, theirs):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        ours.setblocking(False)
        self.peer = RawPeer(theirs)
        self.inbox = Inbox()
        self.connection = Connection(ours, loop, self.inbox, "the peer")
        self.connection.start()

    def send(self, data: bytes, timeout: Optional[float] = WAIT, *, leave: bool = False) -> None:
        deadline = Deadline(timeout, silence=True)
        self.connection._turn.acquire()
        try:
            self.connection.send(data, deadline, leave=leave)
        finally:
            self.connection._give_turn_back()

    def close(self) -> None:
        self.connection.drop(ChannelAbortedError("over"))
        self.peer.sock.close()


@pytest.fixture
def pair(loop: Loop) -> Iterator[Pair]:
    pair = Pair(loop)
    yield pair
    pair.close()


@pytest.fixture
def small_pair(loop: Loop) -> Iterator[Pair]:
    pair = Pair(loop, small=True)
    yield pair
    pair.close()


def take(inbox: Inbox, size: int) -> bytes:
    """So many bytes, or a few more."""
    data = b""
    while len(data) < size:
        batch = inbox.get(WAIT)
        assert batch is not None
        data += content(batch)
    return data


def drain(inbox: Inbox) -> bytes:
    """Everything up to the end of the stream."""
    data = b""
    while True:
        batch = inbox.get(WAIT)
        if batch is None:
            if inbox.over:
                return data
            continue
        data += content(batch)


def content(batch: Batch) -> bytes:
    data = b"".join(bytes(item) for item in batch.items if not isinstance(item, str))
    batch.release()
    return data


def test_a_full_inbox_pauses_only_its_own_socket(loop: Loop) -> None:
    """One consumer that does not read leaves the other connection of the same loop alone."""
    slow, quick = Pair(loop), Pair(loop)
    flood = server_frame(2, b"x" * 65536)
    stop = threading.Event()

    def pour() -> None:
        try:
            while not stop.is_set():
                slow.peer.sock.sendall(flood)
        except OSError:
            pass

    thread = threading.Thread(target=pour)
    thread.start()
    wait_until(lambda: slow.inbox._paused, "the pause")
    for number in range(50):
        quick.peer.send_frame(2, b"%d" % number)
        batch = quick.inbox.get(WAIT)
        assert batch is not None and content(batch) == b"%d" % number
    assert slow.inbox._waiting <= inbox_module.BUDGET + LARGEST
    stop.set()
    slow.close()
    thread.join(WAIT)
    quick.close()


def test_a_paused_connection_resumes_and_loses_nothing(pair: Pair) -> None:
    """64 MiB through an inbox of 4 MiB with a consumer that stops and goes."""
    size = 64 * 1024 * 1024

    def pour() -> None:
        block = bytes(range(256)) * 1024
        for _ in range(size // len(block)):
            pair.peer.sock.sendall(server_frame(2, block))
        pair.peer.send_frame(8, b"\x03\xe8")

    thread = threading.Thread(target=pour)
    thread.start()
    received, position = 0, 0
    while True:
        batch = pair.inbox.get(WAIT)
        if batch is None:
            if pair.inbox.over:
                break
            continue
        data = content(batch)
        assert data == (bytes(range(256)) * (len(data) // 256 + 2))[position : position + len(data)]
        position = (position + len(data)) % 256
        received += len(data)
        if received % (8 * 1024 * 1024) < 100_000 and received < size - 2**23:
            wait_until(lambda: pair.inbox._paused, "the pause")
    thread.join(WAIT)
    assert received == size
    assert pair.inbox.close is not None and pair.inbox.close.code == 1000


def test_pause_and_resume_race(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a budget of one item every single message pauses and resumes; none is lost and nothing sticks."""
    monkeypatch.setattr(inbox_module, "BUDGET", 1)
    count = 3000

    def pour() -> None:
        for number in range(count):
            pair.peer.send_frame(2, b"%06d" % number)
        pair.peer.send_frame(8)

    thread = threading.Thread(target=pour)
    thread.start()
    assert drain(pair.inbox) == b"".join(b"%06d" % number for number in range(count))
    thread.join(WAIT)


def test_the_loop_never_waits_for_a_sender(small_pair: Pair) -> None:
    """While a sender is blocked, pings still come in, and their pongs go out at the next frame boundary."""
    pair = small_pair
    message = frames.encode_frame(frames.BINARY, b"y" * 2_000_000)
    sender = threading.Thread(target=pair.send, args=(message,))
    sender.start()
    opcode_and_size = pair.peer.recv_exactly(2)  # it has begun, and will block
    pair.peer.send_frame(9, b"are you there")
    pair.peer.send_frame(2, b"data behind the ping")
    batch = pair.inbox.get(WAIT)
    assert batch is not None and content(batch) == b"data behind the ping"
    assert opcode_and_size == message[:2]
    assert pair.peer.recv_exactly(len(message) - 2) == message[2:]
    sender.join(WAIT)
    assert pair.peer.recv_frame() == (10, b"are you there")


def test_the_outbox_is_flushed_when_nobody_sends(small_pair: Pair) -> None:
    """Pongs for more pings than the socket takes are sent as it drains, without any sender's help."""
    pair = small_pair
    count = 5000
    reader_of_pongs: list[bytes] = []

    def pour() -> None:
        for number in range(count):
            pair.peer.send_frame(9, b"%0100d" % number)
        for _ in range(count):
            reader_of_pongs.append(pair.peer.recv_frame()[1])

    thread = threading.Thread(target=pour)
    thread.start()
    thread.join(WAIT)
    assert reader_of_pongs == [b"%0100d" % number for number in range(count)]


def test_messages_of_many_senders_never_mix(small_pair: Pair) -> None:
    """Frames of eight threads and the loop's own pongs all arrive whole."""
    pair = small_pair
    per_thread, threads = 40, 8

    def send(mark: int) -> None:
        for size in range(per_thread):
            pair.send(frames.encode_frame(frames.BINARY, bytes([mark]) * (size * 317)))

    senders = [threading.Thread(target=send, args=(mark,)) for mark in range(threads)]
    for sender in senders:
        sender.start()
    pongs, seen = 0, dict.fromkeys(range(threads), 0)
    for number in range(per_thread * threads):
        if number % 10 == 0:
            pair.peer.send_frame(9, b"ping")
        opcode, payload = pair.peer.recv_frame()
        while opcode == 10:
            pongs += 1
            opcode, payload = pair.peer.recv_frame()
        assert opcode == 2 and len(set(payload)) <= 1
        if payload:
            assert len(payload) == (seen[payload[0]] + 1) * 317
            seen[payload[0]] += 1
    for sender in senders:
        sender.join(WAIT)
    assert all(count == per_thread - 1 for count in seen.values())


def test_a_send_that_times_out_before_its_first_byte_leaves_the_connection_whole(small_pair: Pair) -> None:
    """A full socket and a short deadline: nothing of the second message left, and a third one arrives."""
    pair = small_pair
    sent = 0
    small = frames.encode_frame(frames.BINARY, b"z" * 1000)
    with pytest.raises(TimeoutError):
        while True:
            pair.send(small, 0.05)
            sent += 1
    if pair.connection.error is not None:
        pytest.skip("the socket took a part of the last frame")
    for _ in range(sent):
        assert pair.peer.recv_frame() == (2, b"z" * 1000)
    pair.send(frames.encode_frame(frames.BINARY, b"after"))
    assert pair.peer.recv_frame() == (2, b"after")


def test_a_send_cut_in_the_middle_drops_the_connection(small_pair: Pair) -> None:
    """Half a frame on the wire poisons: the same call raises, later ones say why, the peer sees the end."""
    pair = small_pair
    with pytest.raises(TimeoutError):
        pair.send(frames.encode_frame(frames.BINARY, b"y" * 2_000_000), 0.05)
    with pytest.raises(EngineConnectionError, match="cut in the middle"):
        pair.send(frames.encode_frame(frames.BINARY, b"more"))
    with pytest.raises(EOFError):
        pair.peer.recv_exactly(10_000_000)


def test_the_rest_of_a_send_may_follow_behind_its_deadline(small_pair: Pair) -> None:
    """Whoever sends next does so behind it; one that is too early for that costs itself alone."""
    pair = small_pair
    large, small = frames.encode_frame(frames.BINARY, b"y" * 2_000_000), frames.encode_frame(frames.BINARY, b"more")
    pair.send(large, 0.05, leave=True)
    assert pair.connection._rest is not None
    with pytest.raises(TimeoutError):
        pair.send(small, 0.05)
    assert pair.connection.error is None
    assert pair.peer.recv_frame() == (2, b"y" * 2_000_000)
    pair.send(small)
    assert pair.peer.recv_frame() == (2, b"more")


def test_a_send_that_has_not_begun_is_not_left_behind(small_pair: Pair) -> None:
    """It can be made again, so it must not leave."""
    pair = small_pair
    pair.send(frames.encode_frame(frames.BINARY, b"y" * 2_000_000), 0.05, leave=True)
    with pytest.raises(TimeoutError):
        pair.send(frames.encode_frame(frames.BINARY, b"early"), 0.05, leave=True)
    assert pair.peer.recv_frame() == (2, b"y" * 2_000_000)
    pair.send(frames.encode_frame(frames.BINARY, b"late"))
    assert pair.peer.recv_frame() == (2, b"late")


def test_drop_wakes_a_blocked_sender_with_the_reason(small_pair: Pair) -> None:
    """A sender that waits for the socket gets what drop() was given."""
    pair = small_pair
    failures: list[BaseException] = []

    def send() -> None:
        try:
            pair.send(frames.encode_frame(frames.BINARY, b"y" * 2_000_000), None)
        except BaseException as exc:
            failures.append(exc)

    sender = threading.Thread(target=send)
    sender.start()
    pair.peer.recv_exactly(2)
    pair.connection.drop(EngineConnectionError("because"))
    sender.join(WAIT)
    assert not sender.is_alive()
    assert isinstance(failures[0], EngineConnectionError) and "because" in str(failures[0])


def test_drop_wakes_those_who_wait_for_their_turn(small_pair: Pair) -> None:
    """Senders behind a blocked one do not stay behind it."""
    pair = small_pair
    failures: list[BaseException] = []

    def send() -> None:
        try:
            pair.send(frames.encode_frame(frames.BINARY, b"y" * 2_000_000), None)
        except BaseException as exc:
            failures.append(exc)

    senders = [threading.Thread(target=send) for _ in range(5)]
    for sender in senders:
        sender.start()
    pair.peer.recv_exactly(2)
    pair.connection.drop(EngineConnectionError("because"))
    for sender in senders:
        sender.join(WAIT)
    assert len(failures) == 5 and all("because" in str(failure) for failure in failures)


def test_a_descriptor_is_not_reused_while_a_sender_is_in_it(loop: Loop) -> None:
    """Drop connections under blocked senders and open new sockets at once: no byte lands in a stranger's socket."""
    for _ in range(30):
        pair = Pair(loop, small=True)

        def send(pair: Pair = pair) -> None:
            try:
                pair.send(frames.encode_frame(frames.BINARY, b"y" * 500_000), None)
            except EngineConnectionError:
                pass

        sender = threading.Thread(target=send)
        sender.start()
        pair.peer.recv_exactly(2)
        pair.connection.drop(EngineConnectionError("because"))
        strangers = [socket.socketpair() for _ in range(4)]
        sender.join(WAIT)
        wait_until(lambda pair=pair: pair.connection._sock.fileno() == -1, "the close")  # type: ignore[misc]
        strangers += [socket.socketpair() for _ in range(4)]
        everyone = [sock for both in strangers for sock in both]
        for sock in everyone:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
        for sock in everyone:
            sock.close()
        pair.peer.sock.close()


def test_only_the_loop_closes_descriptors(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever drops, the reader thread closes."""
    closers: list[str] = []

    class Watching(socket.socket):
        def close(self) -> None:
            if self.fileno() != -1:
                closers.append(threading.current_thread().name)
            super().close()

    ours, theirs = socket.socketpair()
    watched = Watching(fileno=ours.detach())
    watched.setblocking(False)
    connection = Connection(watched, loop, Inbox(), "the peer")
    connection.start()
    connection.drop(EngineConnectionError("over"))
    wait_until(lambda: watched.fileno() == -1, "the close")
    theirs.close()
    assert closers == ["test-loop"]


def test_a_violation_is_answered_with_its_code(pair: Pair) -> None:
    """A masked server frame gets Close 1002, and the receiver learns it after the data before it."""
    pair.peer.sock.sendall(server_frame(2, b"good") + b"\x82\x81abcdx")
    assert drain(pair.inbox) == b"good"
    opcode, payload = pair.peer.recv_frame()
    assert opcode == 8 and payload[:2] == b"\x03\xea"
    assert isinstance(pair.inbox.error, RemoteProtocolError) and pair.inbox.error.close_code == 1002


def test_the_peers_close_is_answered_and_everything_before_it_arrives(pair: Pair) -> None:
    """A Close that comes in one piece with data ends the stream after the data, with its code sent back."""
    pair.peer.sock.sendall(server_frame(2, b"a") + server_frame(2, b"b") + server_frame(8, b"\x03\xe9bye"))
    assert drain(pair.inbox) == b"ab"
    assert pair.inbox.error is None and pair.inbox.close == (1001, "bye")
    assert pair.peer.recv_frame() == (8, b"\x03\xe9")


def test_a_reset_is_an_error_and_not_an_end(loop: Loop) -> None:
    """RST reaches the receiver as an error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    inbox = Inbox()
    connection = Connection(ours, loop, inbox, "the peer")
    connection.start()
    peer = RawPeer(theirs)
    peer.send_frame(2, b"data")
    batch = inbox.get(WAIT)
    assert batch is not None and content(batch) == b"data"
    peer.reset()
    assert drain(inbox) == b""
    assert isinstance(inbox.error, EngineConnectionError)


def test_stop_with_a_blocked_sender_leaves_no_descriptor(loop: Loop) -> None:
    """Ending the loop wakes senders and closes every socket."""
    before = len(os.listdir("/proc/self/fd"))
    own = Loop("test-own-loop")
    pair = Pair(own, small=True)
    failures: list[BaseException] = []

    def send() -> None:
        try:
            pair.send(frames.encode_frame(frames.BINARY, b"y" * 2_000_000), None)
        except BaseException as exc:
            failures.append(exc)

    sender = threading.Thread(target=send)
    sender.start()
    pair.peer.recv_exactly(2)
    assert own.stop(5)
    sender.join(WAIT)
    assert failures
    pair.peer.sock.close()
    gc.collect()
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before, "the close of every socket")


def test_tiny_messages_cost_bounded_memory(pair: Pair) -> None:
    """A megabyte of one-byte messages is joined, exact, and counted message by message."""
    count = 300_000

    def pour() -> None:
        pair.peer.sock.sendall(server_frame(2, b"t") * count + server_frame(8))

    thread = threading.Thread(target=pour)
    thread.start()
    items, size = 0, 0
    while True:
        batch = pair.inbox.get(WAIT)
        if batch is None:
            if pair.inbox.over:
                break
            continue
        items += len(batch.items)
        size += len(content(batch))
    thread.join(WAIT)
    assert size == count and pair.inbox.stream.messages == count
    assert items < count / 20


@pytest.mark.parametrize(
    ("opcode", "size", "count", "quick"),
    [(2, 8, 1000, True), (2, 1, 1000, False), (2, 30, 1000, True), (2, 30, 1000, False), (1, 3000, 20, False)],
)
def test_a_full_inbox_is_full_of_memory_and_not_of_bytes(opcode: int, size: int, count: int, quick: bool) -> None:
    """What holds a small message is larger than itself; of 30 bytes, a read of many keeps its window."""
    inbox = Inbox()
    inbox._windows = Windows()
    parser = frames.FrameParser()
    read = server_frame(opcode, b"x" * size) * count
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(200):
            buffer = inbox.buffer()
            buffer[: len(read)] = read
            if quick:
                payloads, messages, used = parser.feed_binary(buffer, 0, len(read))
                assert (len(payloads), messages, used) == (count, count, len(read))
                go_on = inbox.received_binary(payloads, messages, used, False)
                del payloads
            else:
                pieces, used = parser.feed(memoryview(buffer)[: len(read)])
                assert used == len(read)
                go_on = inbox.received(pieces, used, False)
                del pieces
            if not go_on:
                break
        used_memory, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert inbox._paused
    assert used_memory < 2 * inbox_module.BUDGET


@pytest.mark.parametrize("opcode", [1, 2])
def test_a_window_grows_while_it_is_filled_and_is_not_kept_by_a_few_bytes(opcode: int) -> None:
    """Whatever it is filled with; it is used again when there is nothing in it that has to stay."""
    inbox = Inbox()
    inbox._windows = Windows()
    sizes = []
    for _ in range(6):
        buffer = inbox.buffer()
        sizes.append(len(buffer))
        buffer[:] = b"x" * len(buffer)
        inbox.received([frames.Piece(opcode, memoryview(buffer), True)], len(buffer), False)
    assert sizes == [64 * 1024 << step for step in range(4)] + [LARGEST, LARGEST]
    window = inbox.buffer()
    inbox.received([frames.Piece(2, memoryview(window)[2:5], True)], LARGEST // 2, False)
    inbox.received_binary([memoryview(window)[2:5]], 1, LARGEST // 2, False)
    assert inbox.buffer() is window


def test_a_message_counts_when_it_has_ended(pair: Pair) -> None:
    """Not once for each read."""
    frame = server_frame(2, b"x" * 1000)
    pair.peer.sock.sendall(frame + frame[:500])
    assert len(take(pair.inbox, 1496)) == 1496 and pair.inbox.stream.messages == 1
    pair.peer.sock.sendall(frame[500:])
    assert len(take(pair.inbox, 504)) == 504 and pair.inbox.stream.messages == 2


def test_one_read_of_the_smallest_messages_never_overfills(loop: Loop) -> None:
    """A window full of them, right after data, behind a consumer who has left all but the last place taken."""
    inbox = Inbox()
    ours, theirs = socket.socketpair()
    with theirs:
        connection = Connection(ours, loop, inbox, "the peer")  # never started: this thread is its reader
        one = bytearray(server_frame(2, b"x") + bytes(10))
        for _ in range(inbox_module.MAX_ITEMS - 1):
            inbox.buffer()[: len(one)] = one
            connection._parse(inbox.buffer(), 3)
        assert not inbox._paused
        inbox._window, inbox._window_size = None, LARGEST
        read = server_frame(2, b"x") + server_frame(1, b"") * ((LARGEST - 3) // 2)
        inbox.buffer()[: len(read)] = read
        connection._parse(inbox.buffer(), len(read))
        assert connection.error is None and inbox._paused
        messages = 0
        while messages < inbox.stream.messages:
            batch = inbox.get(WAIT)
            assert batch is not None
            messages += sum(len(item) if isinstance(item, bytes) else 1 for item in batch.items)
        assert messages == inbox_module.MAX_ITEMS + (LARGEST - 3) // 2
        connection.drop(EngineConnectionError("over"))


def test_what_follows_a_close_is_ignored_wherever_a_feed_ends(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    """Also behind a Close that is the last of the pieces that the parser gives at once."""
    for texts in (0, 1, frames.MAX_PIECES - 1, frames.MAX_PIECES):
        inbox = Inbox()
        ours, theirs = socket.socketpair()
        with theirs:
            connection = Connection(ours, loop, inbox, "the peer")  # never started: this thread is its reader
            read = server_frame(1, b"t") * texts + server_frame(8, b"\x03\xe8") + server_frame(1, b"late") * 5
            inbox.buffer()[: len(read)] = read
            connection._parse(inbox.buffer(), len(read))
            assert inbox.over and inbox.close is not None and inbox.close.code == 1000
            assert inbox.error is None and inbox.stream.messages == texts
    assert not caplog.records


def test_calls_posted_from_many_threads_all_run(loop: Loop) -> None:
    """No posted call is lost to the wake-up flag."""
    ran: list[int] = []

    def post() -> None:
        for number in range(2000):
            loop.call_soon(lambda number=number: ran.append(number))  # type: ignore[misc]

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    done = threading.Event()
    loop.call_soon(done.set)
    assert done.wait(WAIT)
    assert len(ran) == 8000


def test_a_failing_call_does_not_stop_the_loop(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a posted call is logged; the next call runs."""
    loop.call_soon(lambda: [][0])
    done = threading.Event()
    loop.call_soon(done.set)
    assert done.wait(WAIT)
    assert "IndexError" in caplog.text


def test_cancelled_timers_do_not_pile_up(loop: Loop) -> None:
    """A timeout an hour away on each of many calls costs nothing once they are answered."""
    for _ in range(20_000):
        loop.call_later(3600, lambda: None).cancel()
    done = threading.Event()
    loop.call_soon(done.set)
    assert done.wait(WAIT)
    assert len(loop._timers) <= 1000


def test_timers_run_in_order_and_can_be_cancelled(loop: Loop) -> None:
    """Two timers out of order, and one that was cancelled."""
    ran: list[str] = []
    done = threading.Event()
    loop.call_later(0.6, done.set)
    loop.call_later(0.4, lambda: ran.append("second"))
    loop.call_later(0.2, lambda: ran.append("first"))
    loop.call_later(0.3, lambda: ran.append("cancelled")).cancel()
    assert done.wait(WAIT)
    assert ran == ["first", "second"]
