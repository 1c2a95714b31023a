"""Fixtures: both engines, workers on them, and a check that every test leaves nothing behind."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

import iii_sync
import iii_sync.worker

from .support.engines import REAL_ENGINE_VARIABLE, EngineAddress, RealEngine, real_engine_program, running_engine

_HERE = Path(__file__).parent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the suite in the background has Ctrl-C ignored; the programs that tests start inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: What the quick suite (``-m quick``) is made of; of the files beside this one, all but the slowest.
_QUICK_ROOMS = {"annotations", "channels", "http", "net", "services", "triggers", "wire"}
_NOT_QUICK = {"test_readme.py", "test_reconnect.py", "test_restart.py"}

#: Where clients and peers keep connections from one test to the next, or leave the engine with what nobody reads.
_KEEPING = {"benchmarks", "consumers", "interop", "process", "servers", "webapps"}

#: The sockets that a test found; and those of engines that were started in the middle of one.
_FOUND = pytest.StashKey[set[str]]()
_lasting: set[str] = set()


@pytest.hookimpl(tryfirst=True)  # before -m is looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the quick suite."""
    for item in items:
        *rooms, file = item.path.relative_to(_HERE).parts
        chosen = rooms[0] in _QUICK_ROOMS if rooms else file not in _NOT_QUICK
        callspec = getattr(item, "callspec", None)
        real = callspec is not None and callspec.params.get("engine_kind") == "real"
        if chosen and not real and item.get_closest_marker("slow") is None:
            item.add_marker("quick")


def _sockets() -> set[str]:
    """The sockets of this process, where the system lists them."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the listing's own
                found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return {name for name in found if name.startswith("socket:")}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Note the sockets that a test finds; among them are those of engines that its fixtures have started to last."""
    if item.path.relative_to(_HERE).parts[0] not in _KEEPING:
        item.stash[_FOUND] = _sockets()
    yield


@pytest.fixture(scope="session")
def _engines() -> Iterator[Callable[[str], EngineAddress]]:
    """One engine of each kind for the whole run, started when first asked for."""
    urls: dict[str, EngineAddress] = {}
    with contextlib.ExitStack() as stack:

        def url_of(kind: str) -> EngineAddress:
            if kind not in urls:
                before = _sockets()
                urls[kind] = stack.enter_context(running_engine(kind))
                _lasting.update(_sockets() - before)
            return urls[kind]

        yield url_of


@pytest.fixture(params=["local", "real"])
def engine_kind(request: pytest.FixtureRequest) -> str:
    """Which engine the test runs on."""
    kind: str = request.param
    if kind == "real" and real_engine_program() is None:
        pytest.skip(f"the real engine is not installed: no `iii` on the PATH, and {REAL_ENGINE_VARIABLE} is not set")
    return kind


@pytest.fixture
def engine_url(engine_kind: str, _engines: Callable[[str], EngineAddress]) -> str:
    """The URL of an engine; the test runs once on each kind."""
    return _engines(engine_kind).url


@pytest.fixture
def engine_http_url(engine_kind: str, _engines: Callable[[str], EngineAddress]) -> str:
    """The URL of the HTTP triggers of the engine that ``engine_url`` names."""
    return _engines(engine_kind).http_url


@pytest.fixture
def engine_stream_url(engine_kind: str, _engines: Callable[[str], EngineAddress]) -> str:
    """The URL for consumers of streams of the engine that ``engine_url`` names."""
    return _engines(engine_kind).stream_url


@pytest.fixture
def local_engine_url(_engines: Callable[[str], EngineAddress]) -> str:
    """The URL of the local engine, for what the real one does not do."""
    return _engines("local").url


@pytest.fixture(scope="session")
def _guarded() -> Iterator[RealEngine]:
    """The real engine with guarded listeners, which keeps logs."""
    program = real_engine_program()
    assert program is not None
    engine = RealEngine(program, guarded=True)
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def logging_engine_url(request: pytest.FixtureRequest, engine_kind: str) -> str:
    """The URL of an engine that keeps logs; the test runs once on each kind."""
    if engine_kind == "local":
        url: str = request.getfixturevalue("local_engine_url")
        return url
    guarded: RealEngine = request.getfixturevalue("_guarded")
    return guarded.url


@pytest.fixture
def worker(engine_url: str) -> Iterator[iii_sync.Worker]:
    """A worker on the engine."""
    with iii_sync.register_worker(engine_url) as worker:
        yield worker


@pytest.fixture
def peer(engine_url: str) -> Iterator[iii_sync.Worker]:
    """A second worker on the same engine."""
    with iii_sync.register_worker(engine_url) as worker:
        yield worker


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Makes function ids that no other test uses."""
    suffix = uuid.uuid4().hex[:10]
    return lambda name: f"{name}-{suffix}"


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a worker or one of its threads; nor, in most rooms, a socket that it has made."""
    yield
    found = request.node.stash.get(_FOUND, None)
    left = list(iii_sync.worker._workers)
    for worker in left:
        worker.shutdown(2)
    started = time.monotonic()
    while True:
        threads = [
            thread.name
            for thread in threading.enumerate()
            if thread.name.startswith(("iii-io", "iii-handler", "iii-reconnect"))
        ]
        sockets = set() if found is None else _sockets() - found - _lasting
        waited = time.monotonic() - started
        if not (threads or sockets) or waited > 10:
            break
        if sockets and waited > 1:
            gc.collect()  # those in a cycle warn of themselves
        time.sleep(0.01)
    assert not left, f"workers that were not shut down: {left}"
    assert not threads, f"threads that have not ended: {threads}"
    assert not sockets, f"sockets that were not closed: {sockets}"
