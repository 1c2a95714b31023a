"""An engine in a daemon thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import Optional

from .listeners import Listeners, Plan
from .ports import Ports


class EngineThread:
    """A running engine; making one starts it.

    Args:
        plan: Where to listen.
        timeout: Seconds the start may take.

    Raises:
        OSError: The address is in use, or is not one of this machine.
        TimeoutError: It did not come up in time.
    """

    def __init__(self, plan: Plan, timeout: float) -> None:
        from .server import Server

        # Bound here and not in the thread: the ports are known at once, and so is what is wrong with them.
        self._listeners = Listeners(plan)
        self.ports: Ports = self._listeners.ports
        self._server = Server(plan.host)
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._stopping: Optional[asyncio.Event] = None
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"iii-engine-{self.ports.workers}", daemon=True)
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
            self._listeners.close()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        await self._server.start(self._listeners)
        self._ready.set_result(None)
        try:
            await self._stopping.wait()
        finally:
            await self._server.stop()
