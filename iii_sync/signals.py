"""SIGTERM and its like, while a program waits to be ended."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Callable, TypeVar

__all__ = ["terminating", "until_terminated"]

T = TypeVar("T")


def until_terminated(ask_to_end: Callable[[], object], wait: Callable[[], T]) -> T:
    """Return ``wait()``, and have SIGTERM call ``ask_to_end`` meanwhile instead of killing the process.

    On the main thread only, for nobody else may set signal handlers, and only where nobody else has set one.
    ``ask_to_end`` runs between any two steps of the main thread: it must take no lock.

    Behind it SIGTERM does what it did, even when Ctrl-C has hit amid the setting of handlers. So this is no context
    manager: Ctrl-C may keep its end from being reached.
    """
    handler = _Handler(ask_to_end)
    try:
        handler.set()
        return wait()
    finally:
        handler.asks = False  # first of all: no interruption comes before it
        handler.unset()


@contextlib.contextmanager
def terminating(ask_to_end: Callable[[], object], number: int = signal.SIGTERM) -> Iterator[None]:
    """Have a signal call ``ask_to_end`` as in :func:`until_terminated`; for programs that end with Ctrl-C."""
    handler = _Handler(ask_to_end, number)
    try:
        handler.set()
        yield
    finally:
        handler.asks = False
        handler.unset()


class _Handler:
    """What SIGTERM, or another signal, does instead of killing the process, where nobody else has set anything.

    Attributes:
        asks: Whether it does. If not, an interruption has left it behind, and the signal does again what it does by
            default.
    """

    def __init__(self, ask_to_end: Callable[[], object], number: int = signal.SIGTERM) -> None:
        self._ask_to_end = ask_to_end
        self._number = number
        self._set = False
        self.asks = False

    def set(self) -> None:
        self.asks = True
        if threading.current_thread() is not threading.main_thread():
            return
        known = signal.getsignal(self._number)
        if known == signal.SIG_DFL or (isinstance(known, _Handler) and not known.asks):
            self._set = True
            try:
                signal.signal(self._number, self)
            except ValueError:
                self._set = False  # the main thread of another interpreter than the main one

    def unset(self) -> None:
        if self._set:
            signal.signal(self._number, signal.SIG_DFL)

    def __call__(self, number: int, frame: object) -> None:
        if self.asks:
            self._ask_to_end()
        else:
            signal.signal(self._number, signal.SIG_DFL)
            signal.raise_signal(self._number)
