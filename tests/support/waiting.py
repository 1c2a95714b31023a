"""Waiting for what nobody announces."""

from __future__ import annotations

import time
from typing import Callable

__all__ = ["wait_until"]

#: Seconds until something counts as never happening.
WAIT = 20.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until ``condition()`` is true, and fail with ``what`` when it never is."""
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, f"no sign of {what}"
        time.sleep(0.005)
