"""What a writer has taken and the socket has not: whole frames that leave as the socket drains."""

from __future__ import annotations

import time
from typing import Callable, Optional

from ..wire import frames
from ..wire.growing import Growing
from ..wire.marks import OPENING

__all__ = ["LATER", "Outgoing", "opening_mark"]

#: Seconds that a growing frame may wait.
LATER = 0.002

#: A stream is under load when it had this many bytes without a pause of :data:`_PAUSE` seconds; what small writes
#: cost does not depend on their size, so each counts for at least :data:`_LEAST`.
_LOAD = 256 * 1024
_LEAST = 4 * 1024
_PAUSE = 0.001

#: Writes join up to here, in bytes; a larger one has a frame of its own. The engine likes frames large, but one that
#: does not stay in the processor's cache (1 MiB of it, often) from its masking to its sending costs a third more.
_JOINED = 768 * 1024

#: Room in front of a payload for its header and, the first time, for the opening mark; a multiple of 16 bytes, because
#: masking is a fifth slower elsewhere.
_AT = (frames.HEADROOM + OPENING * 6 + 15) & ~15


class Outgoing:
    """The frame that is growing, and the one that is leaving.

    The engine's work is per message, and so is most of ours. So a write leaves at once, as a frame of its own, only as
    long as the stream is not under load. Under load, and when the socket is full, writes join in one growing frame,
    which leaves when it is full, when the socket has drained, or after :data:`LATER` seconds. At most one frame of
    :data:`~iii_sync.wire.frames.MAX_FRAME` bytes grows while another one leaves; the memory for a second one is taken
    when something is written while the first has not left yet.

    A :class:`~iii_sync.net.connection.Source`. Belongs to the holder of the connection's turn, but for :attr:`join`,
    :attr:`joined` and :meth:`end`; the connection keeps it, so it must not know the writer, which could not be
    collected then.

    Args:
        marked: Whether the stream begins with the opening mark.

    Attributes:
        opened: Whether the opening mark is on its way, or there is none.
        due: When the growing frame must leave, on the clock of :func:`time.monotonic`; ``None`` when it is empty.
        join: ``join(data)`` adds ``data`` to a frame that was left growing, and returns how many bytes; 0 for what has
            to be added with the turn. Any thread; does not block, and cannot be interrupted with half of it done.
    """

    def __init__(self, marked: bool) -> None:
        self.opened: bool = not marked
        self.due: Optional[float] = None
        self._growing = Growing(time.monotonic, _PAUSE)
        self.join: Callable[[object], int] = self._growing.join
        self._frames = [bytearray(), bytearray()]
        self._at = 0  # where the growing frame is
        self._leaving = 0  # where the frame is that next() gave out, which stays as it is until that is called again
        self._key = b""
        self._load = 0
        self._last = 0.0  # when the last bytes were added, or handed on; later ones may have joined

    @property
    def joined(self) -> int:
        """How many bytes have ever joined."""
        return self._growing.joined

    @property
    def room(self) -> int:
        """How many bytes still fit into the growing frame; none join it from now on."""
        self._growing.shut()
        used = self._growing.used
        return max(0, _JOINED - used) if used else frames.MAX_FRAME

    def add(self, piece: memoryview) -> bool:
        """Append bytes to the growing frame; there must be room for them.

        Returns:
            Whether the frame should leave now. If not, it must leave at :attr:`due`.
        """
        growing = self._growing
        growing.shut()
        used, size = growing.used, len(piece)
        now = time.monotonic()
        if now - max(self._last, growing.last) > _PAUSE:
            self._load = 0
        at = _AT + used
        if not used:
            self._key = frames.new_key()
            self.due = now + LATER
        frame = self._frames[self._at]
        if at + size > len(frame):
            frame = self._grow(at + size)
        frames.mask_into(frame, at, piece, self._key, used)
        self._last = now
        growing.used = used + size  # last: an interruption before it leaves the frame as it was
        return used + 2 * size > _JOINED or (not used and self._load <= _LOAD)

    def leave_open(self) -> None:
        """Let writes join what is growing, until the next look at it."""
        if self.room and self._growing.used:
            self._growing.open(self._frames[self._at], _AT, _JOINED, self._key)

    def handed_on(self) -> None:
        """Note that what was added has been sent, or its sending arranged.

        Both let go of the GIL: the wait for it, and for the socket, is no pause of the writer.
        """
        self._last = time.monotonic()

    def next(self) -> Optional[memoryview]:
        """Return the frame that was growing, behind the opening mark if that is still to come."""
        growing = self._growing
        growing.shut()
        size = growing.used
        if not size:
            self._at = self._leaving  # it has left, and is in the cache still: the next frame grows there
            return None
        frame = self._frames[self._at]
        begin = frames.header_into(frame, frames.BINARY, size, self._key, _AT)
        if not self.opened:
            # Noted before it leaves: a second mark, sent by an abort, would be taken for the end mark.
            self.opened = True
            mark = opening_mark()
            frame[begin - len(mark) : begin] = mark
            begin -= len(mark)
        self._leaving, self._at = self._at, 1 - self._at
        growing.used = 0
        self._load += max(size, _LEAST)
        self.due = None
        return memoryview(frame)[begin : _AT + size]

    def end(self) -> None:
        """Let nothing join any more: the stream is over, or broken. Any thread."""
        self._growing.end()

    def clear(self) -> None:
        """Let the frames go: the connection is closed, and what refers to them may live until the next collection."""
        self._growing.shut()
        self._growing.used = 0
        self._frames = [bytearray(), bytearray()]
        self.due = None

    def last_words(self) -> bytes:
        """What to send before the stream is dropped: a stream that nobody has seen begin is opened, to be seen cut."""
        return b"" if self.opened else opening_mark()

    def _grow(self, size: int) -> bytearray:
        # A new one: the old one may be under way, and cannot be resized then.
        frame = self._frames[self._at]
        larger = bytearray(min(max(size, 2 * len(frame)), _AT + frames.MAX_FRAME))
        used = _AT + self._growing.used
        larger[_AT:used] = memoryview(frame)[_AT:used]
        self._frames[self._at] = larger
        return larger


def opening_mark() -> bytes:
    """Return the empty messages that open a marked stream."""
    return b"".join(frames.encode_frame(frames.BINARY) for _ in range(OPENING))
