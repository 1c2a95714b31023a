"""The engine in the foreground: what ``python -m iii_sync engine`` runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Optional

from .guard import Guard
from .listeners import Listeners, Plan
from .local import require_aiohttp

if TYPE_CHECKING:
    from .server import Server

_PARENT_CHECK = 1.0


def run(
    host: str,
    port: int,
    exit_with_parent: bool = False,
    http_port: Optional[int] = None,
    *,
    stream_port: Optional[int] = None,
    guard: Optional[Guard] = None,
) -> int:
    """Run an engine until SIGINT or SIGTERM, after printing one line with its address.

    Args:
        host: Where to listen.
        port: Where to listen; 0 takes any free port.
        exit_with_parent: End also when standard input ends or the parent process does. What goes
            wrong at the start is then told on standard output, where the parent reads it.
        http_port: Where to serve HTTP triggers, 0 for any free port, ``None`` for nowhere.
        stream_port: Where to serve consumers of streams, likewise.
        guard: A second listener, whose sessions may not do everything.

    Returns:
        0 after a clean end; 1, with one line on standard error, if the engine could not start.

    Blocks: Until it is told to end.
    Threads: The main one: it takes SIGINT and SIGTERM.
    """
    try:
        require_aiohttp()
        from .server import Server

        listeners = Listeners(Plan(host, port, http_port, stream_port, guard))
    except (OSError, ImportError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        print(reason, file=sys.stdout if exit_with_parent else sys.stderr, flush=True)
        return 1
    with closing(listeners), suppress(KeyboardInterrupt):
        asyncio.run(_serve(Server(listeners.host), listeners, exit_with_parent))
    return 0


async def _serve(server: Server, listeners: Listeners, exit_with_parent: bool) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows cannot; there Ctrl-C arrives as KeyboardInterrupt.
        with suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(number, stopping.set)
    if exit_with_parent:
        _watch_parent(loop, stopping.set)
    await server.start(listeners)
    try:
        print(f"iii_sync engine listening on {_addresses(listeners)}", flush=True)
        await stopping.wait()
    finally:
        await server.stop()


def _addresses(listeners: Listeners) -> str:
    host, ports = listeners.host, listeners.ports
    shown = f"[{host}]" if ":" in host else host
    parts = [f"ws://{shown}:{ports.workers}"]
    if ports.http is not None:
        parts.append(f"HTTP triggers on http://{shown}:{ports.http}")
    if ports.streams is not None:
        parts.append(f"streams on ws://{shown}:{ports.streams}")
    if ports.guarded is not None:
        parts.append(f"guarded on ws://{shown}:{ports.guarded}")
    return ", ".join(parts)


def _watch_parent(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Call ``stop`` in the loop when standard input ends, or the parent is no longer our parent."""

    def wait_for_end() -> None:
        # Not through sys.stdin: a thread inside its lock makes the interpreter's exit fail.
        with suppress(OSError):
            while os.read(0, 4096):
                pass
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(stop)

    threading.Thread(target=wait_for_end, name="iii-engine-parent", daemon=True).start()
    parent = os.getppid()

    # The pipe alone is not enough: a process that the parent forked holds it open too.
    def check() -> None:
        if os.getppid() != parent:
            stop()
        else:
            loop.call_later(_PARENT_CHECK, check)

    loop.call_later(_PARENT_CHECK, check)
