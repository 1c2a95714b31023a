"""A server with options that :class:`LocalEngine` does not have."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, NamedTuple

from iii_sync.engine.listeners import Listeners, Plan
from iii_sync.engine.server import Server

from .peers import TIMEOUT


class Address(NamedTuple):
    """Where a server listens."""

    url: str
    http_url: str
    stream_url: str


@contextmanager
def serving_http(**options: Any) -> Iterator[Address]:
    """Run a server with options of its own in a thread; tell where it listens."""
    listeners = Listeners(Plan("127.0.0.1", 0, 0, 0))
    ready: Future[Callable[[], object]] = Future()

    async def serve() -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        server = Server("127.0.0.1", **options)
        await server.start(listeners)
        ready.set_result(lambda: loop.call_soon_threadsafe(stopping.set))
        await stopping.wait()
        await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    stop = ready.result(TIMEOUT)
    try:
        ports = listeners.ports
        yield Address(*(f"{what}://127.0.0.1:{port}" for what, port in zip(("ws", "http", "ws"), ports)))
    finally:
        stop()
        thread.join()


@contextmanager
def serving(**options: Any) -> Iterator[str]:
    """Run a server as :func:`serving_http` does and give the address for workers."""
    with serving_http(**options) as address:
        yield address.url
