"""A TCP proxy in front of an engine, whose network a test can break.

Everything runs in one event loop on a thread of its own; the methods hand their work to it and wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Optional, TypeVar

from typing_extensions import Self

from ..net.address import Address

__all__ = ["FaultProxy"]

_T = TypeVar("_T")

_TIMEOUT = 10.0
_PIECE = 64 * 1024
_HOST = "127.0.0.1"


class FaultProxy:
    """What the fixture ``iii_proxy`` gives: a proxy that lets everything through until it is told otherwise.

    Workers connect to :attr:`url`; their channels then go through it, too.

    Args:
        url: The engine's address, a ``ws://`` one.

    Raises:
        ConfigurationError: That is no address of an engine.
        ValueError: It is a ``wss://`` one: the proxy has no certificate for it.
    """

    def __init__(self, url: str) -> None:
        target = Address(url)
        if target.secure:
            raise ValueError(f"the proxy cannot stand in front of {target}: it has no certificate for that")
        self._target = target
        self._listener = _listen(0)
        self._port: int = self._listener.getsockname()[1]
        self._delay = 0.0
        self._open: set[asyncio.StreamWriter] = set()
        self._links: set[asyncio.Task[None]] = set()
        self._server: Optional[asyncio.AbstractServer] = None
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"iii-proxy-{self._port}", daemon=True)
        self._thread.start()
        self._ready.result(_TIMEOUT)

    @property
    def url(self) -> str:
        """The engine's address through the proxy.

        Blocks: Never.
        Threads: Any.
        """
        _, _, rest = self._target.url.partition("://")
        cut = min((rest.find(mark) for mark in "/?" if mark in rest), default=len(rest))
        return f"ws://{_HOST}:{self._port}{rest[cut:]}"

    @property
    def delay(self) -> float:
        """Seconds that every piece of up to 64 KiB is held back, in each direction; 0 at the start.

        So a round trip takes twice as long, and a stream makes at most 64 KiB in that time.
        """
        return self._delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError(f"delay={seconds!r} must be 0 or more seconds")
        self._delay = seconds

    def cut(self) -> int:
        """Reset every connection; new ones are let through.

        A worker notices in its own time: a call made at once may still go out by the old connection, and then fails
        with ``ConnectionLostError``. ``worker.add_connection_state_listener`` tells when it is back.

        Returns:
            How many there were.

        Raises:
            RuntimeError: The proxy was closed.

        Blocks: Until they are reset, at most ten seconds.
        Threads: Any.
        """
        return self._do(self._cut())

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Reset every connection and refuse new ones for the length of a ``with`` block.

        To a worker the engine is gone. The engine itself sees its clients leave, and remembers what it has.

        Returns:
            The context manager; there is nothing to take from it.

        Raises:
            RuntimeError: The proxy was closed.
            OSError: At the end: its port was taken meanwhile.

        Blocks: Until they are reset, and at the end until it listens, at most ten seconds each.
        Threads: One at a time.
        """
        self._do(self._leave())
        try:
            yield
        finally:
            self._do(self._come_back())

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let nothing through for the length of a ``with`` block: connections stay, and are silent.

        Nothing is lost; what was held back arrives afterwards.

        Returns:
            The context manager; there is nothing to take from it.

        Raises:
            RuntimeError: The proxy was closed.

        Blocks: For a moment, at most ten seconds.
        Threads: One at a time.
        """
        self._do(self._flow(False))
        try:
            yield
        finally:
            self._do(self._flow(True))

    def close(self) -> None:
        """Reset every connection and end. A second call does nothing.

        Blocks: Until its thread has ended, at most ten seconds.
        Threads: Any.
        """
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FaultProxy {_HOST}:{self._port} in front of {self._target}>"

    # --- on the proxy's own thread ---------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, _T]) -> _T:
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise RuntimeError("the proxy was closed") from None
        return future.result(_TIMEOUT)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server = await asyncio.start_server(self._connected, sock=self._listener)
        self._ready.set_result(None)
        await self._stopping.wait()
        await self._leave()
        for link in self._links:  # those that are still connecting, or wait for what is frozen
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        self._open.add(writer)
        engine: Optional[asyncio.StreamWriter] = None
        try:
            await self._flowing.wait()
            from_engine, engine = await asyncio.open_connection(self._target.host, self._target.port)
            self._open.add(engine)
            await asyncio.gather(self._copy(reader, engine), self._copy(from_engine, writer))
        except OSError:
            pass  # one side has gone, or cannot be reached: so does the other
        except asyncio.CancelledError:
            pass  # cut: streams of Python before 3.12 log an error when their callback's task ends as cancelled
        finally:
            for side in (writer, engine):
                if side is not None:
                    side.transport.abort()
                    self._open.discard(side)
            self._links.discard(link)

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while True:
            data = await source.read(_PIECE)
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._flowing.wait()
            if target.transport.is_closing():
                raise ConnectionResetError
            if not data:
                target.write_eof()
                return
            target.write(data)
            await target.drain()

    async def _cut(self) -> int:
        cut = [link for link in self._links if not link.done()]
        for link in cut:
            link.cancel()
        await asyncio.gather(*cut, return_exceptions=True)
        return len(cut)

    async def _leave(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _come_back(self) -> None:
        self._server = await asyncio.start_server(self._connected, sock=_listen(self._port))

    async def _flow(self, flowing: bool) -> None:
        if flowing:
            self._flowing.set()
        else:
            self._flowing.clear()


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        # The connections of before may linger on the same port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HOST, port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener
