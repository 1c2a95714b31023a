"""Random bytes in small pieces, fetched from the system in large ones.

A call of the system is cheap, but it lets go of the GIL: among many threads, or beside one that computes, getting that
back takes longer than all else that a frame or a call costs.
"""

from __future__ import annotations

import os

__all__ = ["Pieces"]

#: How many pieces are fetched at once.
_COUNT = 256


class Pieces:
    """Pieces of ``size`` random bytes that nobody can foresee. For any number of threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._ready: list[bytes] = []
        if hasattr(os, "register_at_fork"):
            # Parent and child must not give out the same ones.
            os.register_at_fork(after_in_child=self._ready.clear)

    def next(self) -> bytes:
        """Return a piece that was not given out before."""
        try:
            return self._ready.pop()  # atomic: no two threads get the same one
        except IndexError:
            size = self._size
            fresh = os.urandom(size * _COUNT)
            self._ready.extend([fresh[start : start + size] for start in range(size, len(fresh), size)])
            return fresh[:size]
