"""The marks that make a cut stream visible (the engine itself ends both kinds alike, PROTOCOL 5.5, E-1).

A marked stream opens with exactly :data:`OPENING` empty binary messages and ends with one empty binary
message directly before its Close. Official readers see the same bytes and texts with and without them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional

from .frames import BINARY, Piece

__all__ = ["OPENING", "StreamEnd"]

#: How many empty binary messages open a marked stream. Foreign streams do not happen to begin like this.
OPENING = 5


class StreamEnd:
    """Follows the messages of one stream and says at its end whether it is whole.

    Attributes:
        messages: Complete messages so far, of any kind.
    """

    def __init__(self) -> None:
        self.messages: int = 0
        self._leading = 0  # empty binary messages before any other binary message
        self._counting = True
        self._partial = False  # the current message has bytes
        self._open = False  # a message has begun and not ended
        self._last_empty = False  # the last complete message was an empty binary one

    @property
    def marked(self) -> bool:
        """Whether the stream began with the opening mark."""
        # Six and no data: the opening mark and the end mark of an empty stream.
        return self._leading == OPENING or (self._counting and self._leading == OPENING + 1)

    @property
    def torn(self) -> bool:
        """Whether there is nothing yet but a part of the opening mark; a foreign writer of nothing looks the same."""
        return self._counting and 0 < self._leading < OPENING

    def pieces(self, pieces: Iterable[Piece]) -> None:
        """Take note of pieces of data messages."""
        for opcode, payload, end in pieces:
            self.piece(opcode, len(payload), end)

    def data(self, messages: int, unfinished: bool) -> None:
        """Take note of binary data, none of it empty, with the end of so many messages: all that most reads bring.

        Args:
            messages: How many.
            unfinished: Whether there are bytes behind the last of these ends.
        """
        self.messages += messages
        self._partial = self._open = unfinished
        self._counting = self._last_empty = False

    def piece(self, opcode: int, size: int, end: bool) -> None:
        """Take note of a piece of a data message with ``size`` bytes."""
        self._open = True
        if size:
            self._partial = True
        if not end:
            if size and (opcode == BINARY or self._leading):
                self._counting = False
            return
        empty = opcode == BINARY and not self._partial
        if empty:
            if self._counting:
                self._leading += 1
        elif opcode == BINARY or self._leading:
            self._counting = False
        self.messages += 1
        self._last_empty = empty
        self._partial = self._open = False

    def complete(self) -> Optional[bool]:
        """Say whether the stream that ended here is whole.

        Returns:
            ``True``: marked, and its end mark came last. ``False``: marked, and cut. ``None``: a stream
            without marks, about which nothing can be said.
        """
        if not self.marked:
            return None
        if self._open:
            return False
        # Of a stream of nothing but empty messages, the first five are the opening.
        return self._last_empty and not (self._counting and self._leading == OPENING)
