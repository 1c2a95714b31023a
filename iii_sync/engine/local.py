"""Starting and stopping a local engine: in a thread of this process or in a child process."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from types import TracebackType
from typing import Optional, Union

from typing_extensions import Self

from .guard import Guard
from .listeners import Plan
from .process import EngineProcess
from .thread import EngineThread

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class LocalEngine:
    """An in-memory iii engine on this machine, for scripts, tests and first steps::

        with LocalEngine() as engine:
            with register_worker(engine.url) as worker:
                ...

    An engine may be started again after it was stopped; with port 0 it then has another port. It does not survive
    ``fork``: in the child it counts as not started, and the parent's is left alone.

    Args:
        host: Where to listen. Anything but a loopback address lets other machines in, through ``port``
            without authentication.
        port: Where to listen; 0 takes any free port.
        in_process: Run in a daemon thread of this process, or else in a child process. Choose the
            child for a program that forks, or whose threads keep the interpreter busy.
        http_port: Where to serve HTTP triggers; 0 takes any free port, ``None`` serves none.
        stream_port: Where to serve consumers of streams (WebSockets that follow what changes in them);
            0 takes any free port, ``None`` serves none.
        guard: A second listener, at :attr:`guarded_url`, which asks functions who may come in, call and
            register what. Whoever comes through ``port`` may do everything.
        timeout: Seconds that :meth:`start`, and likewise :meth:`stop`, may take.

    Raises:
        TypeError: A port is no integer.
        ValueError: A port is out of range.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        http_port: Optional[int] = None,
        stream_port: Optional[int] = None,
        guard: Optional[Guard] = None,
        in_process: bool = True,
        timeout: float = 10.0,
    ) -> None:
        self.host = host
        self._plan = Plan(host, port, http_port, stream_port, guard)
        self._in_process = in_process
        self._timeout = timeout
        self._running: Optional[Union[EngineThread, EngineProcess]] = None
        self._pid = os.getpid()

    def start(self) -> Self:
        """Start listening; does nothing if it is already running.

        Returns:
            The engine itself.

        Raises:
            ImportError: aiohttp is not installed.
            OSError: The address is in use, or is not one of this machine.
            TimeoutError: It did not come up within the timeout.

        Blocks: Until it listens, at most ``timeout`` seconds.
        Threads: One at a time.
        """
        if self._engine() is not None:
            return self
        require_aiohttp()
        kind = EngineThread if self._in_process else EngineProcess
        self._pid = os.getpid()
        self._running = kind(self._plan, self._timeout)
        return self

    def stop(self) -> None:
        """Stop listening and drop every connection; does nothing if it is not running.

        ``timeout`` seconds.

        Blocks: Until its thread or process has ended, usually a few milliseconds, at most ``timeout`` seconds.
        Threads: One at a time.
        """
        engine, self._running = self._engine(), None
        if engine is not None:
            engine.stop(self._timeout)

    @property
    def port(self) -> int:
        """The port it listens on; before :meth:`start` the one that was asked for.

        Blocks: Never.
        Threads: Any.
        """
        engine = self._engine()
        return self._plan.port if engine is None else engine.ports.workers

    @property
    def url(self) -> str:
        """The address for ``register_worker``.

        Raises:
            RuntimeError: The engine is not running.

        Blocks: Never.
        Threads: Any.
        """
        return f"ws://{self._authority(self._started().ports.workers)}"

    @property
    def http_url(self) -> str:
        """The address of its HTTP triggers.

        Raises:
            RuntimeError: The engine is not running, or has no HTTP port.

        Blocks: Never.
        Threads: Any.
        """
        port = self._started().ports.http
        if port is None:
            raise RuntimeError("the engine serves no HTTP triggers: give it a port, LocalEngine(http_port=0)")
        return f"http://{self._authority(port)}"

    @property
    def stream_url(self) -> str:
        """The address for consumers of streams.

        Raises:
            RuntimeError: The engine is not running, or has no port for them.

        Blocks: Never.
        Threads: Any.
        """
        port = self._started().ports.streams
        if port is None:
            raise RuntimeError("the engine serves no consumers: give it a port, LocalEngine(stream_port=0)")
        return f"ws://{self._authority(port)}"

    @property
    def guarded_url(self) -> str:
        """The address of its guarded listener, for ``register_worker``.

        Raises:
            RuntimeError: The engine is not running, or has no guard.

        Blocks: Never.
        Threads: Any.
        """
        port = self._started().ports.guarded
        if port is None:
            raise RuntimeError("the engine has no guarded listener: LocalEngine(guard=Guard(...))")
        return f"ws://{self._authority(port)}"

    def _started(self) -> Union[EngineThread, EngineProcess]:
        engine = self._engine()
        if engine is None:
            raise RuntimeError("the engine is not running: call start() or use it in a with statement")
        return engine

    def _authority(self, port: int) -> str:
        host = _WILDCARDS.get(self.host, self.host)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def running(self) -> bool:
        """Whether it was started, by this process, and not stopped since.

        Blocks: Never.
        Threads: Any.
        """
        return self._engine() is not None

    def _engine(self) -> Optional[Union[EngineThread, EngineProcess]]:
        # After a fork this is a copy whose thread does not exist and whose process is not our child.
        return self._running if self._pid == os.getpid() else None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = "thread" if self._in_process else "process"
        if self._engine() is None:
            return f"<LocalEngine in a {where}, not running>"
        return f"<LocalEngine in a {where}, {self.url}>"


def require_aiohttp() -> None:
    """Make sure that the engine's server can be imported.

    Raises:
        ImportError: It cannot; the message says what to install.
    """
    found = None
    with contextlib.suppress(ImportError, ValueError):
        found = sys.modules.get("aiohttp") or importlib.util.find_spec("aiohttp")
    if found is None:
        raise ImportError(
            'the local engine needs aiohttp, which is not installed: pip install "iii_sync[engine]"',
            name="aiohttp",
        )
