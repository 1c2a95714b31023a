"""SIGTERM, while a program waits to be ended."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Callable

__all__ = ["terminating"]


@contextlib.contextmanager
def terminating(ask_to_end: Callable[[], object]) -> Iterator[None]:
    """Have SIGTERM call ``ask_to_end`` instead of killing the process.

    On the main thread only, for nobody else may set signal handlers, and only where nobody else has set one.
    ``ask_to_end`` runs between any two steps of the main thread: it must take no lock.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    waiting: list[bool] = []  # not empty: somebody waits

    def handle(number: int, frame: object) -> None:
        if waiting:
            ask_to_end()
        else:
            # Ctrl-C has kept the end of this from being reached: SIGTERM does again what it does by default.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)

    try:
        waiting.append(True)
        if ours:
            try:
                signal.signal(signal.SIGTERM, handle)
            except ValueError:
                ours = False  # the main thread of another interpreter than the main one
        yield
    finally:
        waiting.clear()
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
