"""An engine that takes what it is sent slowly, or for a while not at all."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

import iii_sync.session.link
from iii_sync import TriggerAction, Worker, errors, register_worker
from iii_sync.testing import FaultProxy

from .support.engines import killable_engine
from .support.rawserver import RawPeer, raw_server
from .support.threads import in_thread
from .support.waiting import wait_until

WAIT = 20.0

Unique = Callable[[str], str]

#: More than the kernels of both sides hold.
LARGE = "x" * 15_000_000


def limit_patience(worker: Worker, seconds: float) -> None:
    """Change what ``connect_timeout`` a worker has that is connected."""
    object.__setattr__(worker._session.options, "connect_timeout", seconds)


def states_of(worker: Worker) -> list[str]:
    """The states of a worker's connection from now on."""
    states: list[str] = []
    worker.add_connection_state_listener(states.append)
    return states


def test_a_large_call_that_times_out_half_sent_costs_nobody_elses(
    engine_url: str, peer: Worker, unique: Unique
) -> None:
    """The engine takes no more for a while: the rest follows when it does, and calls under way are answered."""
    arrived: queue.Queue[int] = queue.Queue()
    size = peer.register_function(unique("size"), lambda data: arrived.put(len(data)))
    release = threading.Event()
    slow = peer.register_function(unique("slow"), lambda data: release.wait(WAIT))
    with FaultProxy(engine_url) as proxy, register_worker(proxy.url) as worker:
        states = states_of(worker)
        under_way = worker.submit(slow.id)
        with proxy.frozen():
            with pytest.raises(errors.CallTimeout, match="may still be running"):
                worker.trigger(size.id, LARGE, timeout=0.3)
            with pytest.raises(errors.CallTimeout, match="could not be sent"):
                worker.trigger(size.id, "y", timeout=0.1)
        release.set()
        assert under_way.result(WAIT) is True
        assert arrived.get(timeout=WAIT) == len(LARGE)
        assert worker.trigger(size.id, "z", timeout=WAIT) is None
        assert arrived.get(timeout=WAIT) == 1 and arrived.empty()
        assert states == []


def test_a_large_call_without_an_answer_says_that_it_has_not_left_whole(
    engine_url: str, peer: Worker, unique: Unique
) -> None:
    """Nobody would hear of it otherwise when the connection ends before the rest has left."""
    arrived: queue.Queue[int] = queue.Queue()
    size = peer.register_function(unique("size"), lambda data: arrived.put(len(data)))
    with FaultProxy(engine_url) as proxy, register_worker(proxy.url) as worker:
        with proxy.frozen(), pytest.raises(errors.CallTimeout, match="only a part has left within 0.3 s"):
            worker.trigger(size.id, LARGE, timeout=0.3, action=TriggerAction.Void())
        assert arrived.get(timeout=WAIT) == len(LARGE)
        worker.trigger(size.id, "z", timeout=WAIT, action=TriggerAction.Void())
        assert arrived.get(timeout=WAIT) == 1


def test_what_is_taken_back_behind_a_large_message_is_taken_back(engine_url: str, peer: Worker, unique: Unique) -> None:
    """The engine hears of it when it has taken the message, not never; what is registered then comes later."""
    with FaultProxy(engine_url) as proxy, register_worker(proxy.url) as worker:
        gone = worker.register_function(unique("gone"), lambda data: data)
        again = worker.register_function(unique("again"), lambda data: 1)
        states = states_of(worker)
        with proxy.frozen():
            with pytest.raises(errors.CallTimeout):
                worker.trigger(unique("nobody"), LARGE, timeout=0.3)
            limit_patience(worker, 0.2)
            gone.unregister()
            again.unregister()
            limit_patience(worker, WAIT)
        worker.register_function(again.id, lambda data: 2)
        assert gone.id not in [function["function_id"] for function in peer.engine.functions()]
        assert peer.trigger(again.id, timeout=WAIT) == 2
        assert states == []


class Engine:
    """Reads as slowly as a test wants, and answers what a worker asks of its engine.

    Attributes:
        bytes_per_second: How fast it reads; 0 for not at all.
        peer: The first worker, when it has introduced itself.
        messages: What came in.
    """

    def __init__(self) -> None:
        self.bytes_per_second = 1e9
        self.peer: queue.Queue[RawPeer] = queue.Queue()
        self.messages: queue.Queue[dict[str, Any]] = queue.Queue()

    def serve(self, peer: RawPeer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        receive = peer.recv_exactly
        peer.recv_exactly = lambda size: b"".join(self._slowly(receive, size))  # type: ignore[method-assign]
        peer.introduce()
        self.peer.put(peer)
        while True:
            message = peer.recv_json()
            self.messages.put(message)
            if message.get("function_id", "").startswith("engine::"):
                peer.answer(message, {})

    def _slowly(self, receive: Callable[[int], bytes], size: int) -> Iterator[bytes]:
        while size:
            while not self.bytes_per_second:
                time.sleep(0.01)
            piece = min(size, 64 * 1024)
            yield receive(piece)
            size -= piece
            time.sleep(piece / self.bytes_per_second if piece > 1000 else 0)

    def call(self, function_id: str, data: Any) -> None:
        """Call a function of the worker."""
        self.peer.get(timeout=WAIT).send_json(
            {"type": "invokefunction", "invocation_id": "i-1", "function_id": function_id, "data": data}
        )

    def until(self, **wanted: Any) -> dict[str, Any]:
        """Wait for a message with such values."""
        while True:
            message = self.messages.get(timeout=WAIT)
            if all(message.get(key) == value for key, value in wanted.items()):
                return message


@contextlib.contextmanager
def slow_engine() -> Iterator[tuple[Engine, Worker, list[str]]]:
    """An engine, a worker of it, and the states of that one's connection from then on."""
    engine = Engine()
    with raw_server(engine.serve) as server, register_worker(server.url) as worker:
        yield engine, worker, states_of(worker)
        engine.bytes_per_second = 1e9


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Links are pinged often, and silent ones are given up soon."""
    monkeypatch.setattr(iii_sync.session.link, "_PING_EVERY", 0.3)
    monkeypatch.setattr(iii_sync.session.link, "_DEAD_AFTER", 1.5)


@pytest.mark.usefixtures("impatient")
def test_an_engine_that_takes_a_message_slowly_is_alive() -> None:
    """It cannot answer the ping that waits behind it."""
    with slow_engine() as (engine, worker, states):
        engine.bytes_per_second = 4e6
        call = worker.submit("f", LARGE)
        engine.until(function_id="f")
        assert not call.done() and states == []


@pytest.mark.usefixtures("impatient")
def test_an_engine_that_stops_amid_a_message_is_found() -> None:
    """A rest that does not move is no sign of life."""
    with slow_engine() as (engine, worker, states):
        engine.bytes_per_second = 0
        with pytest.raises(errors.CallTimeout):
            worker.trigger("f", LARGE, timeout=0.1)
        wait_until(lambda: "reconnecting" in states, "the end of the link")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a process that stands still")
@pytest.mark.usefixtures("impatient")
def test_an_engine_that_stands_still_is_found_among_small_calls(engine_kind: str) -> None:
    """Its machine takes what it is sent, and that is no sign of life either."""
    with killable_engine(engine_kind) as engine, register_worker(engine.url) as worker:
        states = states_of(worker)
        os.kill(engine.pid, signal.SIGSTOP)
        try:
            with contextlib.suppress(errors.ConnectionLostError):  # of the first call behind the end of the link
                for _ in range(300):
                    worker.trigger("nobody", "x" * 100, action=TriggerAction.Void(), timeout=1)
                    time.sleep(0.045)  # an acknowledgement takes 40 ms
                raise AssertionError("not found during 300 calls")
            wait_until(lambda: states[:1] == ["reconnecting"], "the end of the link")
        finally:
            os.kill(engine.pid, signal.SIGCONT)


@pytest.mark.parametrize("sender", ["still there", "timed out"])
def test_an_answer_waits_as_long_as_a_large_message_moves(sender: str) -> None:
    """Its patience is for silence, and there is none, however seldom the socket takes more."""
    with slow_engine() as (engine, worker, states):
        worker.register_function("mine", lambda data: data)
        limit_patience(worker, 0.2)  # an answer has six times that
        engine.bytes_per_second = 300e3
        large = in_thread(lambda: worker.trigger("f", LARGE, timeout=WAIT if sender == "still there" else 0.3))
        link = worker._session._link
        assert link is not None and link.connection is not None
        connection = link.connection
        wait_until(lambda: connection._rest is not None, "the message")
        if sender == "timed out":
            with pytest.raises(errors.CallTimeout):
                large()
        engine.call("mine", 7)
        begun = connection.taken()
        wait_until(lambda: connection.taken() > begun + 1_000_000 or bool(states), "more than three seconds' bytes")
        engine.bytes_per_second = 1e9
        assert engine.until(type="invocationresult")["result"] == 7
        assert states == []


def test_an_answer_that_cannot_be_sent_ends_the_link() -> None:
    """With it the engine fails the call; its caller would wait for ever else."""
    with slow_engine() as (engine, worker, states):
        worker.register_function("mine", lambda data: data)
        limit_patience(worker, 0.2)  # an answer has six times that
        engine.bytes_per_second = 0
        with pytest.raises(errors.CallTimeout):
            worker.trigger("f", LARGE, timeout=0.1)
        engine.call("mine", 7)
        wait_until(lambda: "reconnecting" in states, "the end of the link")
