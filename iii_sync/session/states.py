"""The states of a connection, and who is told of them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Callable

__all__ = ["ConnectionState", "States"]

_log = logging.getLogger("iii_sync.worker")

ConnectionState = str

Listener = Callable[[ConnectionState], object]


class States:
    """The state of one connection, and its listeners.

    ``_lock`` guards every field; it is a leaf, and may be taken while the session's is held.

    Attributes:
        current: ``connecting``, ``connected``, ``reconnecting``, ``disconnected`` or ``failed``.
    """

    def __init__(self) -> None:
        self.current: ConnectionState = "disconnected"
        self._lock = threading.RLock()
        self._listeners: list[Listener] = []
        self._news: deque[tuple[ConnectionState, list[Listener]]] = deque()
        self._telling = False

    def add_listener(self, listener: Listener) -> Callable[[], None]:
        """Tell ``listener`` of every change from now on; returns what ends that."""
        with self._lock:
            self._listeners.append(listener)

        def remove() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return remove

    def change(self, state: ConnectionState) -> bool:
        """Take note of a state; returns whether :meth:`tell` is to be called, on a handler thread."""
        with self._lock:
            if self.current == state:
                return False
            self.current = state
            if not self._listeners:
                return False  # no thread for nobody
            self._news.append((state, list(self._listeners)))
            # Whoever is telling tells this too, in its order.
            tell, self._telling = not self._telling, True
            return tell

    def tell(self) -> None:
        """Call the listeners, state by state. On a handler thread."""
        while True:
            with self._lock:
                if not self._news:
                    self._telling = False
                    return
                state, listeners = self._news.popleft()
            for listener in listeners:
                try:
                    listener(state)
                except Exception:
                    _log.exception("a connection state listener failed")
