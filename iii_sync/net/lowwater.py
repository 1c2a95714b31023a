"""How much must have arrived on a socket before the reader thread is woken for it.

Being woken for every segment of a stream under load costs more than receiving it, on the reader thread and once more in
the consumer. Linux can wait for more: SO_RCVLOWAT, the low-water mark of ``socket(7)``, which holds for selectors too.
Two things are worth waiting for:

* the rest of a frame that has begun, for it must come whatever follows it;
* some hundred KiB, where a stream has been under load for so long that the moment at its end does not count.

A mark that is not reached within :data:`_MOMENT` seconds falls, and what is there is received; the end of a stream, an
error and a window of TCP's that is nearly full wake the thread at once. Other systems, and TLS, whose bytes OpenSSL
holds, have no marks. (The kernel makes room for what is waited for: it may raise the receive buffer of the socket.)
"""

from __future__ import annotations

import socket
import sys
from typing import Callable, Optional

from .windows import LARGEST

__all__ = ["LowWater", "Mark"]

#: A stream is under load while each of its reads brings so many bytes; a lower mark would not be worth setting.
_LOADED = 32 * 1024

#: How many seconds may pass between two reads of a stream under load; beside a thread that computes it takes longer.
_PAUSE = 0.004

#: After so many bytes under load the mark stays at _HIGH at least, in bytes.
_LONG = 64 * 1024 * 1024
_HIGH = 256 * 1024

#: How many seconds a mark may stand without being reached.
_MOMENT = 0.002

_SUPPORTED = sys.platform == "linux"


class LowWater:
    """The marks that stand, of all sockets of one reader thread. Everything is called on that thread."""

    def __init__(self) -> None:
        self._due: dict[Mark, float] = {}  # when each falls, on the monotonic clock; the next one first

    def mark(self, sock: socket.socket, receive: Callable[[], None]) -> Optional[Mark]:
        """Return the mark of a socket, or ``None`` where there is none.

        Args:
            sock: Not one of TLS.
            receive: Called when the mark was not reached in time; receives what is there.
        """
        return Mark(self, sock, receive) if _SUPPORTED else None

    def due(self) -> Optional[float]:
        """Return when the next one falls, on the monotonic clock; ``None`` when none stands."""
        return next(iter(self._due.values()), None)

    def look(self, now: float) -> None:
        """Let those fall that are due."""
        while self._due:
            mark, due = next(iter(self._due.items()))
            if due > now:
                return
            mark.fall()  # it may stand again, and comes last then

    def stands(self, mark: Mark, now: float) -> None:
        """Have ``mark`` fall in a moment."""
        self._due.pop(mark, None)  # so that it comes last
        self._due[mark] = now + _MOMENT

    def fallen(self, mark: Mark) -> None:
        """Forget ``mark``."""
        self._due.pop(mark, None)


class Mark:
    """The low-water mark of one socket; on the reader thread only."""

    __slots__ = ("_all", "_sock", "_receive", "_value", "_load", "_last")

    def __init__(self, all_of_them: LowWater, sock: socket.socket, receive: Callable[[], None]) -> None:
        self._all = all_of_them
        self._sock = sock
        self._receive = receive
        self._value = 1
        self._load = 0  # bytes that were read under load, as far as they count
        self._last = 0.0  # when it was read

    def received(self, size: int, left: int, more: bool, now: float) -> None:
        """Raise or lower it, for what is to be expected.

        Args:
            size: Bytes of the last read.
            left: Bytes still to come of the frame that has begun.
            more: Whether some bytes have arrived already, probably.
            now: The monotonic time.
        """
        quick = now - self._last <= _PAUSE
        self._last = now
        wanted = 1
        if size < _LOADED or not quick:
            self._load //= 2  # one pause, of a process that others keep from its processor, is not the end of a load
        else:
            self._load = min(self._load + size, 2 * _LONG)
            expected = max(left, _HIGH) if self._load >= _LONG else left
            if expected >= _LOADED and not more:
                wanted = min(expected, LARGEST)
        if wanted != self._value:
            self._set(wanted)
        if self._value > 1:
            self._all.stands(self, now)

    def fall(self) -> None:
        """It was not reached: let it fall, and receive what is there."""
        self._set(1)
        self._receive()

    def _set(self, value: int) -> None:
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, value)
        except OSError:
            value = 1  # closed, or a system that knows none
        self._value = value
        if value == 1:
            self._all.fallen(self)
