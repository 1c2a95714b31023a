"""Answers are sent twice, because the engine may not be listening yet the first time.

The real engine passes a call on and only then remembers who waits for it; an answer that comes in between is
dropped, and the caller waits until its own timeout (PROTOCOL E-14). That happens to one quick answer in some tens of
thousands, to more on a starved machine. The second of two answers the engine drops in silence, so each goes out
again a moment later, those of that moment together.
"""

from __future__ import annotations

import threading

from ..net.connection import Connection
from ..net.loop import Loop

__all__ = ["RepeatedAnswers"]

#: Seconds until an answer is repeated: many times what the engine needs to remember a call, even when it has to
#: wait for a processor, and nothing to a caller who would have waited for his timeout.
_DELAY = 0.1

#: A larger answer takes the engine longer to read than it takes to remember the call.
_LARGEST = 64 * 1024

#: What may wait to be repeated, in bytes. What is beyond is sent once, as everything else is.
_AT_MOST = 1024 * 1024


class RepeatedAnswers:
    """The answers that left on one connection during the last moment.

    Args:
        loop: The reader thread.
        connection: Where they left, and leave again.
    """

    def __init__(self, loop: Loop, connection: Connection) -> None:
        self._loop = loop
        self._connection = connection
        self._lock = threading.RLock()  # a leaf; guards the two below
        self._waiting: list[bytes] = []
        self._size = 0

    def sent(self, frame: bytes) -> None:
        """Repeat a frame, which has left whole. Any thread; does not block."""
        if len(frame) > _LARGEST:
            return
        with self._lock:
            if self._size + len(frame) > _AT_MOST:
                return
            self._size += len(frame)
            self._waiting.append(frame)
            first = len(self._waiting) == 1
        if first:
            self._loop.call_later(_DELAY, self._send)

    def take(self) -> bytes:
        """Return what waits, which is then not sent by itself any more. Any thread."""
        with self._lock:
            waiting, self._waiting, self._size = self._waiting, [], 0
        return b"".join(waiting)

    def _send(self) -> None:
        """On the reader thread."""
        frames = self.take()
        if frames:
            self._connection.send_soon(frames)
