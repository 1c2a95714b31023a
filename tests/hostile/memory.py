"""How much memory a piece of a test took at its peak.

``pytest -n 0 -s -m "" tests/hostile`` prints what was measured, the slow tests' figures too.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from typing import Callable

MiB = 1024 * 1024


def note(figure: str) -> None:
    """Print a figure of the test that runs."""
    name = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition("::")[2].partition(" (")[0]
    print(f"\n{name}: {figure}")


def rss(pid: int = 0) -> int:
    """Resident bytes of a process; 0 stands for this one, and where that is unknown, for the answer."""
    try:
        with open(f"/proc/{pid or 'self'}/statm") as status:
            return int(status.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _peak() -> int:
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        return 0


@contextlib.contextmanager
def bounded(limit: int) -> Iterator[Callable[[], int]]:
    """Fail when this process grew by more than ``limit`` bytes in between, be it for a moment."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what is free already would take the growth in, and hide it
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")  # the peak counts from now on
    before = rss()

    def growth() -> int:
        return max(0, _peak() - before)

    yield growth
    grown = growth()
    said = f"memory grew by {grown / MiB:.1f} MiB, allowed are {limit / MiB:.0f}"
    note(said)
    assert grown < limit, said
