"""The proxy that tests break the network with, in front of both engines."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Callable

import pytest

from iii_sync import Worker, register_worker
from iii_sync.errors import ChannelTruncatedError, ConnectFailedError, ConnectTimeout
from iii_sync.testing import FaultProxy

from ..support.threads import in_thread


@pytest.fixture
def proxy(engine_url: str) -> Iterator[FaultProxy]:
    """A proxy in front of an engine."""
    with FaultProxy(engine_url) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: FaultProxy) -> Iterator[Worker]:
    """A worker behind it."""
    with register_worker(proxy.url) as worker:
        yield worker


def reconnected(worker: Worker) -> threading.Event:
    """Return what is set when the worker has lost its connection and has it back."""
    lost, back = threading.Event(), threading.Event()
    worker.add_connection_state_listener(
        lambda state: back.set() if state == "connected" and lost.is_set() else lost.set()
    )
    return back


def test_everything_goes_through(through: Worker, unique: Callable[[str], str]) -> None:
    """Calls and channels, whole."""
    data = bytes(range(256)) * 8192
    channel = through.create_channel()

    def write() -> None:
        with channel.writer as f:
            f.write(data)

    written = in_thread(write)
    assert channel.reader.read() == data and channel.reader.complete
    written()


def test_a_cut_ends_streams_and_connections(
    proxy: FaultProxy, through: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    """The reader learns it; the worker comes back; the proxy itself has nothing to complain about."""
    back = reconnected(through)
    channel = through.create_channel()
    channel.writer.write(b"some")
    assert channel.reader.read(4) == b"some"
    assert proxy.cut() == 3
    with pytest.raises((ChannelTruncatedError, ConnectionError)):
        channel.reader.read()
    channel.writer.abort()
    assert back.wait(30)
    assert through.create_channel()
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_down_refuses(proxy: FaultProxy, through: Worker) -> None:
    """Nobody gets in, until it is over; the address stays."""
    back = reconnected(through)
    with proxy.down():
        with pytest.raises(ConnectFailedError):
            register_worker(proxy.url)
        assert not back.is_set()
    assert back.wait(30)


def test_frozen_is_silence(proxy: FaultProxy, through: Worker, unique: Callable[[str], str]) -> None:
    """Nothing passes, nobody new gets in; what was held back arrives afterwards."""
    function = unique("echo")
    through.register_function(function, lambda data: data)
    with proxy.frozen():
        call = through.submit(function, 1)
        with pytest.raises(TimeoutError):
            call.result(0.3)
        with pytest.raises(ConnectTimeout):
            register_worker(proxy.url, connect_timeout=0.3)
    assert call.result(30) == 1


def test_delay(proxy: FaultProxy, through: Worker) -> None:
    """Each way."""
    proxy.delay = 0.2
    start = time.monotonic()
    through.create_channel()
    assert time.monotonic() - start >= 0.4
    proxy.delay = 0
    with pytest.raises(ValueError, match="delay=-1"):
        proxy.delay = -1


def test_addresses() -> None:
    """Path and query stay; TLS is refused; a closed proxy says so."""
    with FaultProxy("ws://there.test:1/path?token=x") as proxy:
        assert proxy.url.startswith("ws://127.0.0.1:") and proxy.url.endswith("/path?token=x")
        assert "token" not in repr(proxy)
    with pytest.raises(ValueError, match="certificate"):
        FaultProxy("wss://there.test")
    with pytest.raises(RuntimeError, match="closed"):
        proxy.cut()
    proxy.close()
    with pytest.raises(ConnectFailedError):
        register_worker(proxy.url)


def test_an_engine_that_is_not_there() -> None:
    """To the worker a connection that ends."""
    with FaultProxy("ws://127.0.0.1:1") as proxy, pytest.raises((ConnectionError, TimeoutError)):
        register_worker(proxy.url, connect_timeout=2)
