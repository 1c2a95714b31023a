"""Data for the demo: where it comes from, how it is hashed, and what the processes need for it."""

from __future__ import annotations

import hashlib
import random
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Optional

from .pieces import PIECE

__all__ = ["fastest_hash", "generated", "peak_memory"]


def generated(size: int) -> Iterator[memoryview]:
    """Give ``size`` bytes that look random and are always the same, in pieces that all differ."""
    pool = memoryview(random.Random(size).randbytes(2 * PIECE))
    for number in range((size + PIECE - 1) // PIECE):
        # An odd step visits every place of the pool before it repeats one.
        start = number * 654321 % PIECE
        yield pool[start : start + min(PIECE, size - number * PIECE)]


def fastest_hash() -> str:
    """Return the name of the faster hash here: SHA-256 where the processor has instructions for it."""
    sample = bytes(PIECE)

    def seconds(name: str) -> float:
        start = time.perf_counter()
        hashlib.new(name, sample)
        return time.perf_counter() - start

    return min(("sha256", "blake2b"), key=lambda name: min(seconds(name) for _ in range(3)))


def peak_memory(*, of_children: bool = False) -> Optional[int]:
    """Return the largest resident memory so far, in bytes; ``None`` where the system does not tell.

    Args:
        of_children: Of the largest child that has ended and was waited for, instead of this process.
    """
    if not of_children:
        # Linux: ru_maxrss of a process begins with that of the parent it was forked from.
        with suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
