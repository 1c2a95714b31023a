"""A control connection that has died in silence is found; one whose own process stood still is kept."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from urllib.parse import urlsplit

import pytest
import websocket

import iii_sync.session.link
from iii_sync import errors, register_worker
from iii_sync.engine.heartbeat import Patience

from ..engine.peers import Worker, connect
from ..engine.serving import serving
from ..support.process import Script
from .proxy import FaultProxy, Place, Shot

WAIT = 30.0

STOPPED = """
import sys, time
import iii_sync.session.link
iii_sync.session.link._PING_EVERY, iii_sync.session.link._DEAD_AFTER = 0.3, 1.0
with iii_sync.register_worker(sys.argv[1]) as worker:
    states = []
    worker.add_connection_state_listener(states.append)
    time.sleep(0.7)
    print("stop me", flush=True)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        time.sleep(0.1)
    print(states, flush=True)
"""


def test_a_process_that_was_stopped_keeps_its_connection(engine_url: str) -> None:
    """SIGSTOP for the time of many pings: the engine was not silent, we were not listening."""
    script = Script(STOPPED, engine_url)
    script.until("stop me")
    for _ in range(2):
        script.send(signal.SIGSTOP)
        time.sleep(1.5)
        script.send(signal.SIGCONT)
        time.sleep(0.2)
    assert script.end() == 0, script.stderr()
    assert script.lines[-1] == "[]"


def test_a_half_open_control_connection_is_found(engine_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes and nothing goes, without an end: the worker makes a new connection."""
    monkeypatch.setattr(iii_sync.session.link, "_PING_EVERY", 0.3)
    monkeypatch.setattr(iii_sync.session.link, "_DEAD_AFTER", 0.5)
    port = urlsplit(engine_url).port
    assert port is not None
    proxy = FaultProxy(port)
    try:
        with register_worker(proxy.url, headers={"X-Owner": "driver"}) as worker:
            first, again = worker.worker_id, threading.Event()
            worker.add_connection_state_listener(lambda state: again.set() if state == "connected" else None)
            proxy.control("driver", Shot("half-open", Place("data")))
            assert again.wait(WAIT)
            assert worker.worker_id != first
    finally:
        proxy.close()


class Quiet:
    """A worker that says nothing once it is there, and answers the pings of the engine."""

    def __init__(self, peer: websocket.WebSocket, name: str) -> None:
        self.pinged = threading.Semaphore(0)
        self._peer = peer
        worker = Worker(peer, name=name)
        worker.register(f"of::{name}")
        self._thread = threading.Thread(target=self._read, name=f"quiet-{name}", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(websocket.WebSocketException, OSError):
            while True:
                # It answers the ping by itself.
                opcode, _ = self._peer.recv_data(control_frame=True)
                if opcode == websocket.ABNF.OPCODE_PING:
                    self.pinged.release()

    def is_kept(self) -> None:
        """See that it is pinged, and pinged again long after silence would have been too long."""
        for _ in range(4):
            assert self.pinged.acquire(timeout=WAIT)


def test_the_local_engine_finds_a_worker_that_has_vanished() -> None:
    """Its calls fail and its name is free again; a worker that is only quiet stays. The real engine never notices."""
    with serving(patience=Patience(0.3, 0.7)) as url, register_worker(url) as caller:
        port = urlsplit(url).port
        assert port is not None
        proxy = FaultProxy(port)
        try:
            with connect(proxy.url, header={"X-Owner": "lost"}) as first, connect(url) as second:
                lost, quiet = Quiet(first, "lost"), Quiet(second, "quiet")
                call = caller.submit("of::lost")
                lost.is_kept()
                quiet.is_kept()
                proxy.control("lost", Shot("half-open", Place("data")))
                with pytest.raises(errors.InvocationError) as caught:
                    call.result(WAIT)
                assert caught.value.code == "invocation_stopped"
                assert [item["function_id"] for item in caller.engine.functions(prefix="of::")] == ["of::quiet"]
                with register_worker(url, worker_name="lost"):
                    quiet.is_kept()
        finally:
            proxy.close()
