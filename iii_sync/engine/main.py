"""The engine in the foreground: what ``python -m iii_sync engine`` runs."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Optional

from .local import require_aiohttp

DEFAULT_PORT = 49134

_PARENT_CHECK = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the engine command to a parser."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="port to listen on, 0 for any (default: %(default)s)"
    )
    parser.add_argument(
        "--http-port", type=int, default=None, help="port to serve HTTP triggers on, 0 for any (default: none)"
    )
    # For LocalEngine(in_process=False) only.
    parser.add_argument("--exit-with-parent", action="store_true", help=argparse.SUPPRESS)


def main(arguments: argparse.Namespace) -> int:
    """Run the engine command with parsed options and return its exit status."""
    return run(arguments.host, arguments.port, arguments.exit_with_parent, arguments.http_port)


def run(host: str, port: int, exit_with_parent: bool = False, http_port: Optional[int] = None) -> int:
    """Run an engine until SIGINT or SIGTERM, after printing one line with its address.

    Args:
        host: Where to listen.
        port: Where to listen; 0 takes any free port.
        exit_with_parent: End also when standard input ends or the parent process does. What goes
            wrong at the start is then told on standard output, where the parent reads it.
        http_port: Where to serve HTTP triggers, 0 for any free port, ``None`` for nowhere.

    Returns:
        0 after a clean end; 1, with one line on standard error, if the engine could not start.

    **Blocks:** until it is told to end.
    """
    with ExitStack() as listeners:
        try:
            require_aiohttp()
            from .server import bind

            ports = [port] if http_port is None else [port, http_port]
            sockets = [listeners.enter_context(bind(host, wanted)) for wanted in ports]
        except (OSError, ImportError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            print(reason, file=sys.stdout if exit_with_parent else sys.stderr, flush=True)
            return 1
        with suppress(KeyboardInterrupt):
            asyncio.run(_serve(host, sockets, exit_with_parent))
    return 0


async def _serve(host: str, listeners: list[socket.socket], exit_with_parent: bool) -> None:
    from .server import Server

    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows cannot; there Ctrl-C arrives as KeyboardInterrupt.
        with suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(number, stopping.set)
    if exit_with_parent:
        _watch_parent(loop, stopping.set)
    server = Server(host)
    await server.start(*listeners)
    try:
        shown = f"[{host}]" if ":" in host else host
        ports = [listener.getsockname()[1] for listener in listeners]
        triggers = "".join(f", HTTP triggers on http://{shown}:{port}" for port in ports[1:])
        print(f"iii_sync engine listening on ws://{shown}:{ports[0]}{triggers}", flush=True)
        await stopping.wait()
    finally:
        await server.stop()


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
