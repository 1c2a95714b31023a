"""An engine in a daemon thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import Optional


class EngineThread:
    """A running engine; making one starts it.

    Args:
        host: Where to listen.
        port: Where to listen; 0 takes any free port.
        timeout: Seconds the start may take.
        http_port: Where to serve HTTP triggers, ``None`` for nowhere.

    Raises:
        OSError: The address is in use, or is not one of this machine.
        TimeoutError: It did not come up in time.
    """

    def __init__(self, host: str, port: int, timeout: float, http_port: Optional[int] = None) -> None:
        from .server import bind

        # Bound here and not in the thread: the port is known at once, and so is what is wrong with it.
        self._listener = bind(host, port)
        self.port: int = self._listener.getsockname()[1]
        try:
            self._http_listener = None if http_port is None else bind(host, http_port)
        except BaseException:
            self._listener.close()
            raise
        self.http_port: Optional[int] = None
        if self._http_listener is not None:
            self.http_port = self._http_listener.getsockname()[1]
        self._host = host
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._stopping: Optional[asyncio.Event] = None
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"iii-engine-{self.port}", daemon=True)
        self._thread.start()
        try:
            self._ready.result(timeout)
        except BaseException as error:
            self.stop(timeout)
            if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
                raise TimeoutError(f"the local engine did not start within {timeout:g} seconds") from None
            raise

    def stop(self, timeout: float) -> None:
        """Stop it and wait for the thread, at most ``timeout`` seconds."""
        if self._loop is not None and self._stopping is not None:
            with suppress(RuntimeError):  # the loop is closed: it has stopped by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)
        finally:
            self._listener.close()
            if self._http_listener is not None:
                self._http_listener.close()

    async def _serve(self) -> None:
        from .server import Server

        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = Server(self._host)
        await server.start(self._listener, self._http_listener)
        self._ready.set_result(None)
        try:
            await self._stopping.wait()
        finally:
            await server.stop()
