"""RFC 6455 frames, seen from a client: masked frames out, plain frames in.

:class:`FrameParser` takes bytes as they come from the socket and gives *pieces*: a data message is handed
out as it arrives, never collected, so nothing here grows with what a peer announces. It remembers the first
violation in :attr:`FrameParser.error` and ignores everything after it; what came before is not lost.

What streams are made of goes a quicker way, :meth:`FrameParser.feed_binary`, which the C extension makes quicker still;
``III_SYNC_ACCELERATOR`` picks as in :mod:`iii_sync.wire.mask`.
"""

from __future__ import annotations

import codecs
import struct
from typing import TYPE_CHECKING, NamedTuple, Optional, Union

from .mask import C_WANTED, mask_into, masked, new_key

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BINARY",
    "CLOSE",
    "HEADROOM",
    "MAX_FRAME",
    "MAX_PIECES",
    "PING",
    "PONG",
    "TEXT",
    "CloseReason",
    "FrameError",
    "FrameParser",
    "Piece",
    "TextAssembler",
    "binary_pieces",
    "close_frame",
    "encode_frame",
    "encode_message",
    "header_into",
    "mask_into",
    "new_key",
    "parse_close",
    "split_binary",
    "split_in_c",
]

CONTINUATION, TEXT, BINARY = 0x0, 0x1, 0x2
CLOSE, PING, PONG = 0x8, 0x9, 0xA

Buffer = Union[bytes, bytearray, memoryview]

#: The largest payload of one frame. The official Python reader refuses one byte more (PROTOCOL P-2).
MAX_FRAME = 1024 * 1024

#: Bytes that a frame's header may have.
HEADROOM = 14

#: Pieces that one :meth:`FrameParser.feed` gives at most; tiny frames cost far more memory than their bytes.
MAX_PIECES = 1024

_LARGE = 16 * 1024

#: Bytes of the longest header that a server may send.
_LONGEST_HEADER = 10

#: Reads a header as if it were of the longest kind: the first two bytes, and the eight behind them as one number.
_LONG_HEADER = struct.Struct("!BBQ").unpack_from

#: The first byte of a binary message that is a single frame.
_WHOLE_BINARY = 0x80 | BINARY

#: Close codes a peer may send (RFC 6455, 7.4 and the registry); 3000 to 4999 are free for applications.
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})


class FrameError(Exception):
    """The peer broke the protocol.

    Attributes:
        code: The close code to answer with.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Piece(NamedTuple):
    """Part of a data message, or a whole control frame.

    Attributes:
        opcode: ``TEXT``, ``BINARY``, ``PING``, ``PONG`` or ``CLOSE``; parts of a fragmented message carry
            the opcode of its first frame.
        payload: The bytes; of a data message a view of the buffer that was fed.
        end: Whether the message is complete with this piece.
    """

    opcode: int
    payload: Buffer
    end: bool


#: Makes a :class:`Piece` without a call of Python's.
_new_tuple = tuple.__new__


class CloseReason(NamedTuple):
    """What a Close frame said; ``code`` is ``None`` for one without a status."""

    code: Optional[int]
    reason: str


def encode_frame(opcode: int, payload: Buffer = b"", end: bool = True) -> bytes:
    """Return one masked frame. For control frames and messages; a stream has its own buffer."""
    key = new_key()
    header = _header(opcode, len(payload), key, end)
    if len(payload) <= _LARGE:
        return header + masked(payload, key)
    frame = bytearray(len(header) + len(payload))
    frame[: len(header)] = header
    mask_into(frame, len(header), payload, key, 0)
    return bytes(frame)


def header_into(buffer: Union[bytearray, memoryview], opcode: int, size: int, key: bytes, at: int) -> int:
    """Write the header of one masked frame into ``buffer`` so that its payload starts at ``at``.

    Args:
        buffer: Writable bytes.
        opcode: ``TEXT``, ``BINARY`` or 0 for a continuation.
        size: Bytes of the payload, at most :data:`MAX_FRAME`; it is masked with ``key`` by the caller.
        key: The four bytes of the mask.
        at: Where the payload starts; at least :data:`HEADROOM`.

    Returns:
        Where the header starts.
    """
    header = _header(opcode, size, key, True)
    start = at - len(header)
    buffer[start:at] = header
    return start


def encode_message(opcode: int, payload: Buffer, fragment_above: int) -> bytes:
    """Return one message as masked frames: a single one, or fragments of 1 MiB above ``fragment_above``."""
    if len(payload) <= fragment_above:
        return encode_frame(opcode, payload)
    view = memoryview(payload)
    frames = []
    for start in range(0, len(view), MAX_FRAME):
        end = start + MAX_FRAME >= len(view)
        frames.append(encode_frame(opcode if start == 0 else CONTINUATION, view[start : start + MAX_FRAME], end))
    return b"".join(frames)


def close_frame(code: Optional[int] = 1000, reason: str = "") -> bytes:
    """Return a Close frame; ``None`` leaves the status out."""
    if code is None:
        return encode_frame(CLOSE)
    text = reason.encode("utf-8")[:123].decode("utf-8", "ignore").encode("utf-8")
    return encode_frame(CLOSE, struct.pack("!H", code) + text)


def parse_close(payload: Buffer) -> CloseReason:
    """Read the payload of a Close frame.

    Raises:
        FrameError: A single byte, a code that must not be sent, or a reason that is not UTF-8.
    """
    if not payload:
        return CloseReason(None, "")
    if len(payload) == 1:
        raise FrameError(1002, "a Close frame with a single byte")
    (code,) = struct.unpack_from("!H", payload)
    if code not in _CLOSE_CODES and not 3000 <= code <= 4999:
        raise FrameError(1002, f"a Close frame with the code {code}, which must not be sent")
    try:
        return CloseReason(code, str(memoryview(payload)[2:], "utf-8"))
    except UnicodeDecodeError as exc:
        raise FrameError(1007, "a Close reason that is not UTF-8") from exc


def _header(opcode: int, size: int, key: bytes, end: bool) -> bytes:
    first = opcode | (0x80 if end else 0)
    if size < 126:
        return struct.pack("!BB4s", first, 0x80 | size, key)
    if size < 65536:
        return struct.pack("!BBH4s", first, 0xFE, size, key)
    return struct.pack("!BBQ4s", first, 0xFF, size, key)


def _checked_length(length: int, least: int) -> int:
    if length < least:
        raise FrameError(1002, f"{length} bytes announced in more bytes than needed")
    if length >> 63:
        raise FrameError(1002, f"a frame length of {length}")
    return length


def _split_in_python(
    buffer: Buffer, start: int, stop: int, left: int, most: int, /
) -> tuple[list[memoryview], int, int, int]:
    view = memoryview(buffer)
    payloads: list[memoryview] = []
    at, messages = start, 0
    while True:
        if left:
            end = at + left
            if end > stop:
                if at < stop:
                    payloads.append(view[at:stop])
                return payloads, stop, end - stop, messages
            payloads.append(view[at:end])
            at = end
            messages += 1
        if stop - at < _LONGEST_HEADER or len(payloads) >= most:
            return payloads, at, 0, messages
        first, second, length = _LONG_HEADER(view, at)
        if first != _WHOLE_BINARY:
            return payloads, at, 0, messages
        if second == 127 and 65536 <= length < 1 << 63:
            at, left = at + 10, length
        elif 0 < second < 126:
            at, left = at + 2, second
        elif second == 126 and length >> 48 >= 126:
            at, left = at + 4, length >> 48
        else:
            return payloads, at, 0, messages


split_binary: Callable[[Buffer, int, int, int, int], tuple[list[memoryview], int, int, int]] = _split_in_python
"""``split_binary(buffer, start, stop, left, most)`` reads binary messages of one frame as long as nothing else comes.

Nearly all of a stream is like that, and what is spent on each message decides how fast small ones are read. Whatever is
special or forbidden is left to the parser, and a header at the end that is not all there.

``left`` bytes are still to come of a message whose last frame has begun, 0 between two messages; ``most`` is how many
payloads there may be. Returns the payloads, views and none of them empty, where the first thing begins that is not such
a message, how much is left of the last one, and how many messages have ended.
"""
if C_WANTED:
    try:
        from ._frames import split_binary
    except ImportError:
        pass

split_in_c: bool = split_binary is not _split_in_python
"""Whether it is the C extension that splits."""


def binary_pieces(payloads: list[memoryview], messages: int) -> list[Piece]:
    """Return binary data as pieces, of which the first ``messages`` end one."""
    return [_new_tuple(Piece, (BINARY, payload, index < messages)) for index, payload in enumerate(payloads)]


class FrameParser:
    """Incremental parser of the frames that a server sends.

    Not thread-safe; one parser belongs to one connection and to the thread that reads it.

    Attributes:
        error: The first violation seen, after which nothing more is parsed; ``None`` so far.
        closed: Whether a Close frame was seen; what follows it is ignored.
        control: Whether the last :meth:`feed` gave control frames.
        left: How many bytes are still to come of the frame that has begun.
    """

    def __init__(self) -> None:
        self.error: Optional[FrameError] = None
        self.closed: bool = False
        self.control: bool = False
        self._head = bytearray()  # an unfinished header
        self.left: int = 0
        self._end = True  # whether the current frame ends its message
        self._opcode = 0  # of the current frame, continuations resolved
        self._message = 0  # opcode of an unfinished fragmented message
        self._control: Optional[bytearray] = None  # payload of an unfinished control frame

    @property
    def idle(self) -> bool:
        """Whether the stream stands between two messages."""
        return not (self._head or self.left or self._message or self._control is not None)

    def feed_binary(self, buffer: bytearray, start: int, stop: int) -> tuple[list[memoryview], int, int]:
        """Parse binary messages of one frame, where nothing else comes up to the end or the limit.

        Args:
            buffer: Holds the next bytes of the stream.
            start: Where these begin.
            stop: Where they end, at least one byte further.

        Returns:
            The payloads, views of ``buffer`` and none of them empty, at most :data:`MAX_PIECES`; how many of them end a
            message, all or all but the last; and where what follows begins. Without payloads nothing was parsed, and
            :meth:`feed` must be.
        """
        if (self.left or buffer[start] == _WHOLE_BINARY) and self._is_plain():
            payloads, position, left, messages = split_binary(buffer, start, stop, self.left, MAX_PIECES)
            # What is read together stays together: it costs its consumer one item of the queue.
            if position == stop or len(payloads) >= MAX_PIECES:
                self._in_binary(left)
                return payloads, messages, position
        return [], 0, start

    def _in_binary(self, left: int) -> None:
        """Note that binary messages were split, with so many bytes still to come of the last one."""
        self.left, self._opcode, self._message = left, BINARY, 0  # each of one frame, or in its last: _end is set

    def feed(self, data: Buffer) -> tuple[list[Piece], int]:
        """Parse what arrived.

        Args:
            data: The next bytes of the stream; pieces of data messages are views of it.

        Returns:
            The pieces in order, and how many bytes they took: fewer than given when there were
            :data:`MAX_PIECES`. Look at :attr:`error` after them.
        """
        view = memoryview(data)
        pieces: list[Piece] = []
        self.control = False
        position, size = 0, len(view)
        try:
            while position < size and len(pieces) < MAX_PIECES:
                if self.closed or self.error is not None:
                    position = size
                    break
                if self._is_plain():
                    begin = position
                    most = MAX_PIECES - len(pieces)
                    payloads, position, left, messages = split_binary(view, position, size, self.left, most)
                    if position > begin:
                        self._in_binary(left)
                        pieces += binary_pieces(payloads, messages)
                        continue
                if not self.left:
                    if self._head or size - position < _LONGEST_HEADER:
                        position = self._feed_header(view, position, size)
                        if self._head:
                            break  # the rest of the header is still to come
                    else:
                        position = self._read_header(view, position)
                take = min(self.left, size - position)
                payload = view[position : position + take]
                position += take
                self.left -= take
                self._feed_payload(payload, pieces)
        except FrameError as exc:
            self.error = exc
            position = size
        return pieces, position

    def _is_plain(self) -> bool:
        """Whether what follows may be split: it is between two messages, or in the last frame of a binary one."""
        if self.closed or self.error is not None:
            return False
        return bool(self.left and self._end and self._opcode == BINARY) or self.idle

    def _read_header(self, view: memoryview, position: int) -> int:
        """Read a header that is all there; returns the new position."""
        second = view[position + 1]
        self._check_header(view[position], second)
        if second < 126:
            self.left = second
            return position + 2
        if second == 126:
            self.left = _checked_length(view[position + 2] << 8 | view[position + 3], 126)
            return position + 4
        self.left = _checked_length(int.from_bytes(view[position + 2 : position + 10], "big"), 65536)
        return position + 10

    def _feed_header(self, view: memoryview, position: int, size: int) -> int:
        """Read one header; leave it in ``_head`` when it is not complete yet. Returns the new position."""
        head = self._head
        if len(head) < 2:
            position = self._fill_head(view, position, size, 2)
            if len(head) < 2:
                return position
            self._check_header(head[0], head[1])
        length = head[1]
        if length >= 126:
            need = 4 if length == 126 else 10
            position = self._fill_head(view, position, size, need)
            if len(head) < need:
                return position
            length = _checked_length(int.from_bytes(head[2:], "big"), 126 if need == 4 else 65536)
        self.left = length
        head.clear()
        return position

    def _fill_head(self, view: memoryview, position: int, size: int, need: int) -> int:
        take = min(need - len(self._head), size - position)
        self._head += view[position : position + take]
        return position + take

    def _check_header(self, first: int, second: int) -> None:
        opcode, end = first & 0x0F, bool(first & 0x80)
        if first & 0x70:
            raise FrameError(1002, "reserved bits are set")
        if second & 0x80:
            raise FrameError(1002, "a masked frame from a server")
        if opcode in (CLOSE, PING, PONG):
            if not end:
                raise FrameError(1002, "a fragmented control frame")
            if second > 125:
                raise FrameError(1002, "a control frame above 125 bytes")
            self._control = bytearray()
        elif opcode == CONTINUATION:
            if not self._message:
                raise FrameError(1002, "a continuation without a message")
        elif opcode in (TEXT, BINARY):
            if self._message:
                raise FrameError(1002, "a new message inside an unfinished one")
            self._message = opcode
        else:
            raise FrameError(1002, f"the unknown opcode {opcode}")
        self._opcode = opcode or self._message
        self._end = end

    def _feed_payload(self, payload: memoryview, pieces: list[Piece]) -> None:
        complete = not self.left
        if self._control is not None:
            self._control += payload
            if complete:
                content = bytes(self._control)
                self._control = None
                if self._opcode == CLOSE:
                    parse_close(content)
                    self.closed = True
                pieces.append(Piece(self._opcode, content, True))
                self.control = True
            return
        end = complete and self._end
        if payload or end:
            pieces.append(Piece(self._opcode, payload, end))
        if end:
            self._message = 0


class TextAssembler:
    """Joins the pieces of text messages, refuses bad UTF-8 at once, and bounds what is kept.

    Args:
        limit: Bytes a message may have. A larger one is counted but not kept; :meth:`add` then returns
            its first bytes and :attr:`oversize` says how large it was.
    """

    #: How much of an oversized message is kept: enough for the ids at its beginning (PROTOCOL 3.4).
    KEPT = 4096

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.oversize: int = 0
        self._open = False  # a message has begun and not ended
        self._size = 0
        self._kept = bytearray()  # not the decoded parts: of tiny fragments each would be an object
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def add(self, payload: Buffer, end: bool) -> Optional[str]:
        """Take one piece; return the message when it is complete, else ``None``.

        Raises:
            FrameError: The text is not UTF-8.
        """
        if not self._open:
            self.oversize = 0
            if end and len(payload) <= self.limit:
                try:
                    return str(payload, "utf-8")
                except UnicodeDecodeError as exc:
                    raise FrameError(1007, "a text message that is not UTF-8") from exc
        self._size += len(payload)
        try:
            self._decoder.decode(bytes(payload), end)
        except UnicodeDecodeError as exc:
            raise FrameError(1007, "a text message that is not UTF-8") from exc
        oversize = self._size > self.limit
        if not oversize:
            self._kept += payload
        else:
            room = 4 * self.KEPT  # a character has four bytes at most
            self._kept += memoryview(payload)[: max(0, room - len(self._kept))]
            del self._kept[room:]
        self._open = not end
        if not end:
            return None
        message = self._kept.decode("utf-8", "ignore" if oversize else "strict")
        if oversize:
            message = message[: self.KEPT]
            self.oversize = self._size
        self._kept = bytearray()
        self._size = 0
        self._decoder.reset()
        return message
