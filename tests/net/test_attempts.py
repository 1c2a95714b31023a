"""Threads that are connecting when their worker ends."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Callable

import pytest

from iii_sync import errors, register_worker
from iii_sync.net.attempts import Attempts
from iii_sync.net.connect import Address, Route, connect

from ..support.rawserver import RawPeer, raw_server
from ..support.threads import in_thread
from ..support.waiting import wait_until
from .test_connection import WAIT

#: Nothing here may wait for that; seconds.
NEVER = 600.0


def _silent(peer: RawPeer) -> None:
    with contextlib.suppress(ConnectionError):
        while peer.sock.recv(4096):
            pass


@contextlib.contextmanager
def _deaf() -> Iterator[int]:
    """A port whose queue is full: it does not answer a SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize("where", ["TCP", "proxy", "TLS", "handshake"])
def test_whoever_is_connecting_wakes_up(where: str) -> None:
    """In every one of its steps; nothing is left open, and nothing is begun any more."""
    before = len(os.listdir("/proc/self/fd"))
    attempts = Attempts()
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(_deaf()) if where == "TCP" else stack.enter_context(raw_server(_silent)).port
        address = Address(f"{'wss' if where == 'TLS' else 'ws'}://127.0.0.1:{port}")
        route = Route({}, ssl.create_default_context(), f"http://127.0.0.1:{port}" if where == "proxy" else "")
        outcome = in_thread(lambda: connect(address, address.url, route, NEVER, attempts), wait=WAIT)
        wait_until(lambda: bool(attempts._under_way), "a socket")
        time.sleep(0.1)  # into the wait
        attempts.stop()
        with pytest.raises(errors.WorkerClosedError):
            outcome()
        assert not attempts._under_way
        with pytest.raises(errors.WorkerClosedError):
            connect(address, address.url, route, NEVER, attempts)
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before, "the close of every socket")


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals are sent to one thread here")
@pytest.mark.parametrize("where", ["TCP", "proxy", "TLS", "handshake"])
def test_a_signal_is_handled_while_a_socket_is_being_connected(where: str) -> None:
    """In every one of its steps, and also one that another thread gets, which does not wake the main thread."""
    attempts = Attempts()

    def signal_to_this_thread() -> None:
        wait_until(lambda: bool(attempts._under_way), "a socket")
        time.sleep(0.2)  # into the wait
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda number, frame: attempts.stop())
    try:
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(_deaf()) if where == "TCP" else stack.enter_context(raw_server(_silent)).port
            address = Address(f"{'wss' if where == 'TLS' else 'ws'}://127.0.0.1:{port}")
            route = Route({}, ssl.create_default_context(), f"http://127.0.0.1:{port}" if where == "proxy" else "")
            signalled = in_thread(signal_to_this_thread)
            began = time.monotonic()
            with pytest.raises(errors.WorkerClosedError):
                connect(address, address.url, route, 6.0, attempts)
            assert time.monotonic() - began < 3.0
            signalled()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_worker_that_ends_between_the_making_of_a_socket_and_its_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that is not connecting yet cannot be woken."""
    attempts, add = Attempts(), Attempts.add

    def added(self: Attempts, sock: socket.socket) -> None:
        add(self, sock)
        self.stop()

    monkeypatch.setattr(Attempts, "add", added)
    with _deaf() as port:
        address = Address(f"ws://127.0.0.1:{port}")
        outcome = in_thread(lambda: connect(address, address.url, Route({}, None, ""), NEVER, attempts), wait=5)
        with pytest.raises(errors.WorkerClosedError):
            outcome()


def _first_connected(asked: threading.Event, leave: threading.Event) -> Callable[[RawPeer], None]:
    """An engine that makes one channel, and answers no further handshake; it leaves when told."""
    numbers = itertools.count(1)

    def serve(peer: RawPeer) -> None:
        if next(numbers) > 1:
            peer.read_request()
            asked.set()
            _silent(peer)
            return
        peer.introduce()
        refs = [{"channel_id": "c", "access_key": "k", "direction": side} for side in ("write", "read")]
        peer.answer_next({"writer": refs[0], "reader": refs[1]})
        if leave.wait(WAIT):
            peer.reset()

    return serve


@pytest.mark.parametrize("end", ["reader", "writer"])
def test_shutdown_wakes_the_first_use_of_an_end(end: str) -> None:
    """It has no connection yet that could be dropped."""
    asked, leave = threading.Event(), threading.Event()
    with raw_server(_first_connected(asked, leave)) as server:
        with register_worker(server.url, connect_timeout=NEVER) as worker:
            channel = worker.create_channel()
            use = in_thread(channel.reader.read if end == "reader" else lambda: channel.writer.write(b"x"), wait=WAIT)
            assert asked.wait(WAIT)
        with pytest.raises(errors.WorkerClosedError):
            use()
        leave.set()


def test_shutdown_wakes_the_thread_that_reconnects() -> None:
    """Else it would stay for the length of the timeout."""
    asked, leave = threading.Event(), threading.Event()
    with raw_server(_first_connected(asked, leave)) as server:
        with register_worker(server.url, connect_timeout=NEVER) as worker:
            worker.create_channel()
            leave.set()
            assert asked.wait(WAIT)
            assert [thread for thread in threading.enumerate() if thread.name == "iii-reconnect"]
        wait_until(lambda: "iii-reconnect" not in [thread.name for thread in threading.enumerate()], "its end")
