"""The engine that tests run on: a local one of their own, or one that runs already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Optional

from ..engine import LocalEngine
from ..net.address import Address

__all__ = ["EngineHandle"]


class EngineHandle:
    """What the fixture ``iii_engine`` gives.

    Made without a URL it is a local engine in a child process of its own, out of reach of whatever a test does to
    its own process: faked clocks, blocked sockets, forks. With a URL it is an engine that somebody else runs.

    Args:
        url: Where an engine runs already. Default: start a local one.
        http_url: Where that engine serves HTTP triggers.

    Raises:
        ConfigurationError: ``url`` is not the address of an engine.
        ImportError: The local engine needs aiohttp; the message says what to install.
        OSError: The local engine cannot listen.
        TimeoutError: The local engine did not start within 30 seconds.
    """

    def __init__(self, url: Optional[str] = None, http_url: Optional[str] = None) -> None:
        self._own: Optional[LocalEngine] = None
        self._address = Address(url) if url else self._start(0, 0)
        self._http_url = self._own.http_url if self._own is not None else http_url

    @property
    def url(self) -> str:
        """The address for ``register_worker``; it stays the same across restarts."""
        return self._address.url

    @property
    def http_url(self) -> str:
        """Where it serves HTTP triggers; skips the test if that is not known.

        Blocks: Never.
        Threads: Any.
        """
        if not self._http_url:
            _skip(f"where {self._address} serves HTTP triggers is not known: give --iii-http-url")
        return self._http_url or ""

    @property
    def is_local(self) -> bool:
        """Whether it is a local engine of these tests' own."""
        return self._own is not None

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the engine for the length of a ``with`` block; afterwards it is back at the same address.

        It has forgotten everything then: workers connect and register again, channels are gone, state is empty.
        All tests of this process share the engine, so fixtures of a wider scope see it go, too.

        Skips the test if the engine is not local; ``iii_proxy.down()`` does nearly the same with any engine.

        Returns:
            The context manager; there is nothing to take from it.

        Raises:
            OSError: Its port was taken meanwhile.
            TimeoutError: It did not come back in time.

        Blocks: Until the engine has stopped, and at the end until it listens, at most 30 seconds each.
        Threads: One at a time.
        """
        if self._own is None:
            _skip(f"the engine at {self._address} is not ours to stop")
        self.close()
        try:
            yield
        finally:
            http = Address((self._http_url or "").replace("http", "ws", 1))
            self._start(self._address.port, http.port)

    def restart(self) -> None:
        """Stop the engine and start it again, as :meth:`stopped` with nothing in its block.

        Raises:
            OSError: As :meth:`stopped`.

        Blocks: Until the engine has stopped and listens again, at most 30 seconds each.
        Threads: One at a time.
        """
        with self.stopped():
            pass

    def close(self) -> None:
        """Stop the engine for good, if it is ours.

        Blocks: Until it has ended, at most 30 seconds.
        Threads: One at a time.
        """
        if self._own is not None:
            self._own.stop()

    def _start(self, port: int, http_port: int) -> Address:
        engine = LocalEngine(port=port, http_port=http_port, in_process=False, timeout=30)
        engine.start()
        self._own = engine
        return Address(engine.url)

    def __repr__(self) -> str:
        return f"<EngineHandle {'local' if self.is_local else 'given'} {self._address}>"


def _skip(reason: str) -> None:
    import pytest

    pytest.skip(reason)
