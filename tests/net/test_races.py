"""Schedules that have gone wrong once: in the loop, a connection, an inbox, or the control connection."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Optional

import pytest

from iii_sync import ReconnectionConfig, errors, register_worker
from iii_sync.errors import EngineConnectionError
from iii_sync.net import direct, waiting
from iii_sync.net.connection import Connection
from iii_sync.net.inbox import Inbox
from iii_sync.net.loop import Loop
from iii_sync.net.waiting import Deadline, wait_for_socket
from iii_sync.wire import frames

from ..support.rawserver import RawPeer, raw_server, server_frame
from ..support.threads import in_thread
from ..support.waiting import wait_until
from .test_connection import WAIT, Pair, content, drain

trustme = pytest.importorskip("trustme")


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop("test-loop")
    yield loop
    assert loop.stop(5)


@pytest.fixture
def tls_pair() -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Two sockets with TLS between them: ours, and the peer's."""
    ours, theirs = socket.socketpair()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    accepted: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: accepted.append(server.wrap_socket(theirs, server_side=True)))
    thread.start()
    wrapped = client.wrap_socket(ours)
    thread.join(WAIT)
    yield wrapped, accepted[0]
    wrapped.close()
    accepted[0].close()


def test_a_frame_in_the_tls_record_of_the_handshake_is_not_left_inside_openssl(loop: Loop, tls_pair: Any) -> None:
    """The handshake is read byte by byte; what shared its record is in no socket any more."""
    ours, theirs = tls_pair
    theirs.sendall(b"HTTP" + server_frame(2, b"hello"))
    assert ours.recv(4) == b"HTTP"
    ours.setblocking(False)
    inbox = Inbox()
    connection = Connection(ours, loop, inbox, "the peer")
    connection.start()
    batch = inbox.get(WAIT)
    assert batch is not None and content(batch) == b"hello"
    connection.drop(EngineConnectionError("over"))
    wait_until(lambda: connection._closed, "the close")


@pytest.mark.parametrize("rest", [1, 100, 6_000])
def test_a_read_that_fills_the_buffer_leaves_nothing_inside_openssl(loop: Loop, tls_pair: Any, rest: int) -> None:
    """The last record reaches beyond the buffer, and no further byte comes to wake the selector."""
    ours, theirs = tls_pair
    ours.setblocking(False)
    inbox = Inbox()
    size = 8000
    stream = server_frame(2, b"a" * size) * 8 + server_frame(2, b"b" * (65536 + rest - 8 * (size + 4) - 4))
    for start in range(0, len(stream), size):
        theirs.sendall(stream[start : start + size])  # one record
    assert len(stream) == 65536 + rest and len(stream) // size == 65536 // size
    connection = Connection(ours, loop, inbox, "the peer")
    time.sleep(0.1)  # until all of it can be read at once
    connection.start()
    data = b""
    while len(data) < len(stream) - 9 * 4:
        batch = inbox.get(5)
        assert batch is not None
        data += content(batch)
    assert data == b"a" * 8 * size + b"b" * (len(data) - 8 * size)
    connection.drop(EngineConnectionError("over"))
    wait_until(lambda: connection._closed, "the close")


def test_the_rest_of_a_send_follows_through_openssl(loop: Loop, tls_pair: Any) -> None:
    """What OpenSSL could not send stays inside it: its record must be finished, by whoever sends next."""
    ours, theirs = tls_pair
    ours.setblocking(False)
    connection = Connection(ours, loop, Inbox(), "the peer")
    connection.start()
    large, small = (frames.encode_frame(frames.BINARY, data) for data in (b"y" * 20_000_000, b"more"))
    connection.in_turn(Deadline(5), partial(connection.send, large, Deadline(0.05), leave=True))
    assert connection._rest is not None
    theirs.settimeout(WAIT)
    received = in_thread(lambda: b"".join(_pieces(theirs, len(large) + len(small))))
    connection.in_turn(Deadline(WAIT), connection.send, small, Deadline(WAIT))
    assert received() == large + small
    connection.drop(EngineConnectionError("over"))
    wait_until(lambda: connection._closed, "the close")


def _pieces(sock: socket.socket, left: int) -> Iterator[bytes]:
    while left:
        piece = sock.recv(65536)
        assert piece
        left -= len(piece)
        yield piece


def test_a_ping_among_a_thousand_small_messages_disturbs_nothing(loop: Loop) -> None:
    """One read, cut into more pieces than are handed over at a time, one of them a control frame."""
    before = b"".join(server_frame(2, b"%030d" % number) for number in range(500))
    behind = b"".join(server_frame(2, b"%030d" % number) for number in range(500, 2000))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    inbox = Inbox()
    connection = Connection(ours, loop, inbox, "the peer")
    theirs.sendall(before + server_frame(9, b"ping") + behind + server_frame(8))
    connection.start()
    assert drain(inbox) == b"".join(b"%030d" % number for number in range(2000))
    assert inbox.error is None and inbox.stream.messages == 2000
    theirs.close()


@pytest.mark.parametrize("delay", [1e7, 1e12, float("inf")])
def test_a_timer_in_the_far_future_does_not_end_the_loop(loop: Loop, delay: float) -> None:
    """submit(timeout=a year), while no ping is due: the selector counts milliseconds in 32 bits."""
    loop.call_later(delay, lambda: None)
    time.sleep(0.05)
    done = threading.Event()
    loop.call_soon(done.set)
    assert done.wait(WAIT)


def test_a_write_timeout_of_a_month_is_no_error(loop: Loop) -> None:
    """A blocked sender with a deadline far away goes on when the peer reads."""
    pair = Pair(loop, small=True)
    message = frames.encode_frame(frames.BINARY, b"y" * 500_000)
    sender = threading.Thread(target=pair.send, args=(message, 3e6))
    sender.start()
    assert pair.peer.recv_exactly(len(message)) == message
    sender.join(WAIT)
    assert pair.connection.error is None
    pair.close()


def test_a_wait_for_a_socket_outlasts_the_longest_single_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when the socket is ready, or when its own time has passed, and not before."""
    for name in ("LONGEST_WAIT", "_NAP"):
        monkeypatch.setattr(waiting, name, 0.01)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        began = time.monotonic()
        assert wait_for_socket(ours, 0.2, write=False) is False
        assert time.monotonic() - began >= 0.2
        later = threading.Timer(0.2, theirs.send, (b"x",))
        later.start()
        assert wait_for_socket(ours, 1e12, write=False) is True
        later.join(WAIT)


def test_not_a_number_is_no_timeout() -> None:
    """It is neither over nor left, so that a wait would never sleep, and never end."""
    with pytest.raises(ValueError, match="NaN"):
        waiting.Event().wait(float("nan"))


def test_a_wait_of_a_signal_handler_amid_the_same_lock_lets_others_go_on() -> None:
    """It comes between any two steps of whoever has the lock, who has it still afterwards."""
    condition, done = waiting.Condition(), threading.Event()

    def notify() -> None:
        with condition:
            done.set()
            condition.notify_all()

    with condition:
        with condition:  # as in a handler
            notified = in_thread(notify, wait=5)
            assert condition.wait(5) is True and done.is_set()
        assert condition._is_owned()
        assert condition.wait(0) is False
    assert not condition._is_owned()
    notified()


@pytest.mark.parametrize("after", [False, True])
def test_ctrl_c_while_the_loop_is_woken_does_not_leave_it_asleep(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """The calls posted later still wake it."""
    send, armed = direct.send, [True]

    def interrupted(sock: socket.socket, data: Any) -> int:
        if sock is not loop._wake_out or not armed:
            return send(sock, data)
        armed.clear()
        if after:
            send(sock, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(direct, "send", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.call_soon(lambda: None)
    done = threading.Event()
    loop.call_soon(done.set)
    assert done.wait(5)


def test_ctrl_c_while_the_outbox_is_flushed_gives_the_turn_back(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every later sender would wait for ever, and the descriptor could never be closed."""
    pair = Pair(loop)
    connection = pair.connection

    def interrupted(view: memoryview) -> int:
        raise KeyboardInterrupt

    def turn() -> None:
        pair.peer.send_frame(9, b"ping")
        wait_until(lambda: connection._outbox, "the pong that waits for the turn")
        monkeypatch.setattr(connection, "_try_send", interrupted)

    with pytest.raises(KeyboardInterrupt):
        connection.in_turn(Deadline(5), turn)
    with pytest.raises(EngineConnectionError):
        connection.in_turn(Deadline(5), lambda: None)
    wait_until(lambda: connection._closed, "the close")
    pair.peer.sock.close()


def test_what_follows_a_message_cannot_fail_it(loop: Loop) -> None:
    """A frame of the reader thread's comes to wait behind a message, and the peer goes away: the message had left."""
    pair = Pair(loop)
    connection = pair.connection
    connection._turn.acquire()
    original = connection._try_send

    def try_send(view: memoryview) -> int:
        count = original(view)
        connection._outbox.append(frames.encode_frame(frames.PONG, b"late"))
        pair.peer.sock.close()
        return count

    connection._try_send = try_send  # type: ignore[method-assign]
    connection.send(frames.encode_frame(frames.TEXT, b"message"), Deadline(WAIT))
    connection._give_turn_back()
    wait_until(lambda: connection.error, "the end")


class _Once:
    """A source that has one frame, as soon as it is told."""

    def __init__(self) -> None:
        self.frame: Optional[bytes] = None
        self.due: Optional[float] = 0.0  # since long

    def next(self) -> Optional[memoryview]:
        frame, self.frame = self.frame, None
        return None if frame is None else memoryview(frame)

    def clear(self) -> None:
        pass


def test_what_is_due_while_a_sender_is_blocked_is_not_asked_for_over_and_over(loop: Loop) -> None:
    """The sender makes up for it when he gives the turn back: the reader thread has nothing to wait for."""
    pair, source = Pair(loop), _Once()
    connection = pair.connection
    tried: list[int] = []
    push_late = connection._push_late

    def counted() -> None:
        push_late()
        tried.append(sum(item[2].function is not None for item in loop._timers))

    connection._push_late = counted  # type: ignore[method-assign]
    connection._turn.acquire()
    try:
        connection.take_from(source)
        source.frame = frames.encode_frame(frames.BINARY, b"due")
        connection.push_later(0)
        wait_until(lambda: tried, "the late push")
        assert tried[0] == 0  # no other one is under way
    finally:
        connection._give_turn_back()
    assert pair.peer.recv_frame() == (2, b"due")
    wait_until(lambda: not loop._posted, "the last call")
    pair.close()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals are sent to one thread here")
def test_a_signal_is_handled_while_the_end_of_the_reader_thread_is_waited_for() -> None:
    """Also one that another thread gets, which wakes nobody."""
    loop, release, entered = Loop("test-loop"), threading.Event(), threading.Event()

    def late() -> None:
        entered.set()
        release.wait(WAIT)

    def signal_to_this_thread() -> None:
        wait_until(lambda: loop._stopping, "the wait")
        time.sleep(0.2)  # into it
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    loop.call_soon(late)
    assert entered.wait(WAIT)
    before = signal.signal(signal.SIGUSR1, lambda number, frame: release.set())
    try:
        signalled = in_thread(signal_to_this_thread)
        assert loop.stop(5) is True
        signalled()
    finally:
        release.set()
        signal.signal(signal.SIGUSR1, before)


def test_last_words_are_decided_with_the_turn(loop: Loop) -> None:
    """They are asked for when no sender can change what they should be, and not at all while one is sending."""
    pair = Pair(loop)
    connection = pair.connection
    held: list[bool] = []

    def last() -> bytes:
        held.append(connection._turn._is_owned())
        return frames.encode_frame(frames.BINARY, b"bye")

    connection.drop(EngineConnectionError("over"), last=last)
    assert pair.peer.recv_frame() == (2, b"bye")
    assert held == [True]
    pair.peer.sock.close()

    busy = Pair(loop)
    busy.connection._turn.acquire()
    busy.connection.drop(EngineConnectionError("over"), last=last)
    wait_until(lambda: busy.connection.error, "the end")
    busy.connection._give_turn_back()
    assert busy.peer.sock.recv(100) == b""
    assert held == [True]
    busy.peer.sock.close()


# --- the control connection ------------------------------------------------------------------------------


def serve_calls(peer: RawPeer) -> None:
    """Answer every invocation with nothing."""
    while True:
        message = peer.recv_json()
        if message["type"] == "invokefunction" and "invocation_id" in message:
            peer.answer(message, {"value": None})


def hello(peer: RawPeer, number: int) -> None:
    peer.send_json({"type": "workerregistered", "worker_id": f"w-{number}", "reattach_token": "token"})


def test_a_function_taken_back_during_a_reconnect_is_taken_back_at_the_engine() -> None:
    """The new connection has offered it already when unregister() finds no connection to say so."""
    numbers = itertools.count(1)
    offered, go_on, seen = threading.Event(), threading.Event(), []

    def serve(peer: RawPeer) -> None:
        number = next(numbers)
        peer.handshake()
        hello(peer, number)
        while True:
            message = peer.recv_json()
            if number > 1:
                seen.append((message["type"], message.get("id")))
            if number > 1 and message["type"] == "registerfunction" and message["id"] == "f-1":
                offered.set()
                assert go_on.wait(WAIT)
            if message.get("invocation_id"):
                peer.answer(message, {"value": None})
                if number == 1 and message["data"] == "leave":
                    peer.reset()
                    return

    with raw_server(serve) as server, register_worker(server.url) as worker:
        function = worker.register_function("f-1", lambda data: None)
        worker.register_function("f-2", lambda data: None)
        worker.submit("x", "leave")
        assert offered.wait(WAIT)
        function.unregister()
        go_on.set()
        worker.trigger("x", timeout=WAIT)
        offers = [event for event in seen if event[0] in ("registerfunction", "unregisterfunction")]
        assert offers[-1] == ("unregisterfunction", "f-1"), offers
        assert [function["id"] for function in worker._registrations.registrations()] == ["f-2"]


def test_a_link_that_ends_at_once_is_never_told_as_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader thread sees the loss before the thread that made the link has told of it."""
    numbers = itertools.count(1)
    block = threading.Event()

    def serve(peer: RawPeer) -> None:
        if next(numbers) > 1:
            block.wait(WAIT)
            return
        peer.introduce()
        peer.sock.recv(1)

    from iii_sync.session import Session

    original = Session._set_state

    def late(self: Session, state: str, *link: Any) -> None:
        if state == "connected":
            current = self._link
            assert current is not None and current.connection is not None
            current.connection.drop(EngineConnectionError("test"))
            wait_until(lambda: self.state == "reconnecting", "the loss")
        original(self, state, *link)

    monkeypatch.setattr(Session, "_set_state", late)
    with raw_server(serve) as server:
        worker = register_worker(server.url, connect_timeout=5)
        try:
            assert worker.get_connection_state() == "reconnecting"
        finally:
            block.set()
            worker.shutdown()


def test_shutdown_during_a_reconnect_leaves_neither_thread_nor_descriptor() -> None:
    """Not even when its handshake is answered behind the goodbye."""
    numbers = itertools.count(1)
    leave, asked, go_on = threading.Event(), threading.Event(), threading.Event()

    def serve(peer: RawPeer) -> None:
        if next(numbers) == 1:
            peer.introduce()
            assert leave.wait(WAIT)
            peer.reset()
            return
        peer.read_request()
        asked.set()
        assert go_on.wait(WAIT)
        peer.handshake()
        peer.sock.recv(1)

    with raw_server(serve) as server:
        before = len(os.listdir("/proc/self/fd"))
        worker = register_worker(server.url)
        leave.set()
        assert asked.wait(WAIT)
        worker.shutdown()
        go_on.set()
        wait_until(lambda: not _reconnecting(), "the end of the thread")
        assert not worker._loop._watched
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before, "the close of every socket")


def _reconnecting() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "iii-reconnect"]


def test_wait_ends_when_the_worker_gives_up(caplog: pytest.LogCaptureFixture) -> None:
    """A program that only offers functions must not stay for ever without an engine."""
    caplog.set_level(logging.CRITICAL, "iii_sync")
    numbers = itertools.count(1)
    leave = threading.Event()

    def serve(peer: RawPeer) -> None:
        if next(numbers) == 1:
            peer.introduce()
            leave.wait(WAIT)
        peer.reset()

    with raw_server(serve) as server:
        worker = register_worker(server.url, reconnection_config=ReconnectionConfig(max_retries=0))
        failure: list[BaseException] = []

        def wait() -> None:
            try:
                worker.wait()
            except BaseException as exc:
                failure.append(exc)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        leave.set()
        thread.join(10)
        worker.shutdown()
        assert failure and isinstance(failure[0], errors.EngineConnectionError)


def test_a_reconnect_for_which_no_thread_can_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process at its limit of threads for a moment is not cut off for good."""
    caplog.set_level(logging.CRITICAL, "iii_sync")
    numbers = itertools.count(1)
    leave = threading.Event()
    refused: list[str] = []

    def serve(peer: RawPeer) -> None:
        first = next(numbers) == 1
        if first:
            peer.introduce()
            assert leave.wait(WAIT)
            peer.reset()
            return
        peer.handshake()
        hello(peer, 2)
        serve_calls(peer)

    start = threading.Thread.start

    def starting(thread: threading.Thread) -> None:
        if thread.name == "iii-reconnect" and not refused:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starting)
    with raw_server(serve) as server, register_worker(server.url) as worker:
        leave.set()
        wait_until(lambda: refused, "the loss")
        assert worker.trigger("x", timeout=10) == {"value": None}


def test_an_engine_that_takes_nothing_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registration that cannot be sent in time ends this attempt, not the reconnecting."""
    numbers = itertools.count(1)
    leave = threading.Event()

    from iii_sync.session import Session

    original = Session.send
    refused: list[str] = []

    def send(self: Session, link: Any, data: bytes, deadline: Deadline) -> None:
        if link.worker_id == "w-2":
            refused.append(link.worker_id)
            raise TimeoutError("nothing could be sent for 10 s")
        original(self, link, data, deadline)

    def serve(peer: RawPeer) -> None:
        number = next(numbers)
        peer.handshake()
        hello(peer, number)
        if number > 1:
            serve_calls(peer)
        peer.answer_next({"success": True})
        assert leave.wait(WAIT)
        peer.reset()

    monkeypatch.setattr(Session, "send", send)
    with raw_server(serve) as server, register_worker(server.url) as worker:
        leave.set()
        wait_until(lambda: refused, "the second attempt")
        assert worker.trigger("x", timeout=10) == {"value": None}
