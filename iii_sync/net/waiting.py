"""Waiting with a deadline: for time, and for a socket."""

from __future__ import annotations

import select
import selectors
import socket
import threading
import time
from typing import Optional

__all__ = ["Deadline", "wait_for_socket"]

#: The longest single wait, in seconds: ``poll`` counts milliseconds in 32 bits.
_LONGEST_WAIT = 86_400.0


class Deadline:
    """``timeout`` seconds from now; ``None`` never ends.

    Not thread-safe; belongs to one call.

    Args:
        timeout: Seconds.
        silence: Whether the time counts anew after each progress, or in total.
    """

    __slots__ = ("timeout", "_silence", "_end")

    def __init__(self, timeout: Optional[float], *, silence: bool = False) -> None:
        # Locks can wait for so long; what is longer, and infinity, is no limit.
        timeout = None if timeout is not None and timeout > threading.TIMEOUT_MAX else timeout
        self.timeout: Optional[float] = timeout
        self._silence = silence
        self._end = None if timeout is None else time.monotonic() + timeout

    def progress(self) -> None:
        """Something moved: start again from now when it is silence that counts."""
        if self._silence and self.timeout is not None:
            self._end = time.monotonic() + self.timeout

    def remaining(self) -> Optional[float]:
        """Return the seconds left, at least 0, or ``None`` for no end."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    @property
    def expired(self) -> bool:
        """Whether the time is over."""
        return self._end is not None and time.monotonic() >= self._end


def wait_for_socket(sock: socket.socket, timeout: Optional[float], *, write: bool) -> bool:
    """Wait until ``sock`` can be written (or read), or was shut down; ``False`` when ``timeout`` passed first.

    A wait ends after a day at the latest: look at the deadline, and wait again.

    Uses ``poll``: ``select`` cannot look at descriptors above 1,023.
    """
    if timeout is not None:
        timeout = min(timeout, _LONGEST_WAIT)
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(sock, select.POLLOUT if write else select.POLLIN)
        # Rounded up: poll counts in milliseconds, and returning early would only turn the wait into a spin.
        return bool(poller.poll(None if timeout is None else int(timeout * 1000) + 1))
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_WRITE if write else selectors.EVENT_READ)
        return bool(selector.select(timeout))
