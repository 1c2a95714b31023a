"""No two locks are ever taken in both orders, whatever a worker is doing; net/waiting.py says which comes first."""

from __future__ import annotations

import contextlib
import functools
import graphlib
import linecache
import logging
import re
import sys
import threading
import time
from collections import defaultdict
from typing import Any

import pytest

from iii_sync import TriggerAction, Worker, errors, register_worker
from iii_sync.channels import end
from iii_sync.net import connection, waiting
from iii_sync.testing.proxy import FaultProxy

from .support.threads import in_thread

#: Taken by one thread and released by another: these are waited for, and guard nothing. Others' locks have no name.
SIGNALS = {"", "net.waiting.sleeper", "calls._there"}

#: What is taken while something else is held, to see that that is seen.
EXPECTED = {
    "session.session._lock": "triggers.registered._lock",
    "net.connection._turn": "session.pending._lock",
}


class _Wrapped:
    """A lock, for those of which no class can be derived."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def acquire(self, blocking: bool = True, timeout: float = -1) -> Any:
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        self._lock.release()


class Recorder:
    """Makes the package's locks tell which are taken while which are held. They stay the locks they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: defaultdict[str, set[str]] = defaultdict(set)  # while holding that: these
        self._held = threading.local()
        for owner, name, kind in (
            (threading, "Lock", _Wrapped),
            (threading, "RLock", _Wrapped),
            (connection, "RLock", waiting.RLock),
            (end, "RLock", waiting.RLock),
        ):
            monkeypatch.setattr(owner, name, self._maker(getattr(owner, name), kind))
        for name, method in self._methods(waiting.RLock).items():
            monkeypatch.setattr(waiting.Condition, name, method)
        begin = waiting.Condition.__init__

        def named(lock: Any) -> None:
            begin(lock)
            lock.name = _name()

        monkeypatch.setattr(waiting.Condition, "__init__", named)

    def _maker(self, make: Any, kind: Any) -> Any:
        recorded = type("Recorded", (kind,), self._methods(kind))

        def made() -> Any:
            name = _name()
            if name in SIGNALS:
                return make()
            lock = recorded(make()) if kind is _Wrapped else recorded()
            lock.name = name
            return lock

        return made

    def _methods(self, kind: Any) -> dict[str, Any]:
        def acquire(lock: Any, blocking: bool = True, timeout: float = -1) -> Any:
            there = kind.acquire(lock, blocking, timeout)
            if there and lock.name not in SIGNALS:
                held = self._held.__dict__.setdefault("locks", [])
                if blocking and lock not in held:  # whoever does not wait cannot be stuck
                    for other in held:
                        self.taken[other.name].add(lock.name)
                held.append(lock)
            return there

        def release(lock: Any, *exc: object) -> None:
            if lock.name not in SIGNALS:
                self._held.locks.remove(lock)
            kind.release(lock)

        return {"acquire": acquire, "release": release, "__enter__": acquire, "__exit__": release}


def _name() -> str:
    """Where the lock is made whose maker calls this, as ``module.attribute``; empty outside of the package."""
    frame = sys._getframe(2)
    module = frame.f_globals["__name__"]
    if not module.startswith("iii_sync.") or module.startswith(("iii_sync.engine", "iii_sync.testing")):
        return ""
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return f"{module[9:]}.{re.split('[:=]', line)[0].strip().replace('self.', '')}"


def _use(worker: Worker, number: int, stop: threading.Event) -> None:
    """Everything that takes locks, until the worker has ended."""
    name = f"f{number}-{worker.worker_name}"
    while not stop.is_set():
        with contextlib.suppress(errors.IIISyncError, OSError, ValueError):
            take = worker.register_function(name, lambda data: len(data["reader"].read()))
            trigger = worker.register_trigger("subscribe", name, {"topic": name})
            with worker.open(name, "wb", timeout=5) as file:
                file.write(bytes(200_000))
            worker.trigger(name, {"reader": 1}, action=TriggerAction.Void())
            worker.submit("engine::baggage::get", {"key": "k"}).cancel()
            trigger.unregister()
            take.unregister()


def test_locks_are_taken_in_one_order(
    local_engine_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While everything happens at once: calls, streams, registrations, lost connections, the end."""
    caplog.set_level(logging.CRITICAL, "iii_sync")
    recorder = Recorder(monkeypatch)
    stop = threading.Event()
    with FaultProxy(local_engine_url) as proxy:
        worker = register_worker(proxy.url)
        worker.add_connection_state_listener(lambda state: None)
        outcomes = [in_thread(functools.partial(_use, worker, number, stop)) for number in range(6)]
        for number in range(40):
            time.sleep(0.4)
            proxy.cut()
            if number >= 3 and all(inner in recorder.taken[outer] for outer, inner in EXPECTED.items()):
                break
        worker.shutdown()
        stop.set()
        for outcome in outcomes:
            outcome()
    seen = recorder.taken
    for outer, inner in EXPECTED.items():
        assert inner in seen[outer]
    tuple(graphlib.TopologicalSorter(seen).static_order())  # raises CycleError, which names the locks
