"""A control connection that has died in silence is found; one whose own process stood still is kept."""

from __future__ import annotations

import signal
import threading
import time
from urllib.parse import urlsplit

import pytest

import iii_sync.session
from iii_sync import register_worker

from ..support.process import Script
from .proxy import FaultProxy, Place, Shot

WAIT = 30.0

STOPPED = """
import sys, time
import iii_sync.session
iii_sync.session._PING_EVERY, iii_sync.session._DEAD_AFTER = 0.3, 0.5
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
    monkeypatch.setattr(iii_sync.session, "_PING_EVERY", 0.3)
    monkeypatch.setattr(iii_sync.session, "_DEAD_AFTER", 0.5)
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
