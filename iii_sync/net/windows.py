"""The memory that streams are received into, used again by whichever stream comes next."""

from __future__ import annotations

from collections import deque
from typing import Optional

__all__ = ["LARGEST", "Windows"]

#: Bytes of a window that is worth keeping: smaller ones cost less to make than to keep.
LARGEST = 1024 * 1024

#: How many are kept for each stream: those that may wait for its consumer, one that he reads, one that is filled.
_EACH = 6


class Windows:
    """Windows that nobody uses now, of all the streams of one reader thread.

    A new window is zeroed and faulted in page by page, while one that was used a moment ago is still in the processor's
    cache: so the last one given back goes out first, and the streams share them. Any thread; every step is a single
    operation of a set or a deque, so no lock is needed.
    """

    def __init__(self) -> None:
        self._users: set[object] = set()
        self._spare: deque[bytearray] = deque()

    def join(self, stream: object) -> None:
        """Count ``stream`` among those that windows are kept for."""
        self._users.add(stream)

    def leave(self, stream: object) -> None:
        """Keep windows for one stream less."""
        self._users.discard(stream)
        while len(self._spare) > _EACH * len(self._users) and self.take() is not None:
            pass

    def take(self) -> Optional[bytearray]:
        """Return a window, if there is one."""
        try:
            return self._spare.pop()
        except IndexError:
            return None

    def give_back(self, window: bytearray) -> None:
        """Keep ``window`` for the next one who needs it; nobody may look at it any more."""
        if len(window) == LARGEST and len(self._spare) < _EACH * len(self._users):
            self._spare.append(window)
