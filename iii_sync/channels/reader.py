"""The reading end of a channel."""

from __future__ import annotations

import io
import logging
import operator
import os
from collections import deque
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Callable, Literal, Optional, Union, overload

from ..errors import (
    ChannelAbortedError,
    ChannelNeverWrittenError,
    ChannelTruncatedError,
    ConcurrencyError,
    EngineConnectionError,
    IIISyncError,
    ReadTimeout,
    fresh,
)
from ..net.inbox import Batch, Inbox, Item
from ..net.waiting import Deadline, RLock
from ..official import pointing_elsewhere
from .end import OWN_TIMEOUT, End, Owner, as_target, foreign, let_go
from .files import ChannelFileReader, ChannelTextReader, file_of_reader
from .refs import StreamChannelRef

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["ChannelReader"]

_log = logging.getLogger("iii_sync.channel")

#: What :meth:`ChannelReader.peek` shows at most, unless more is asked for.
_PEEK = 64 * 1024


@pointing_elsewhere
class ChannelReader(End):
    """The reading end of a channel: a raw binary file that only goes forward.

    The first call that reads connects, in at most ``connect_timeout``. ``read(n)`` waits for all ``n`` bytes; ``read1``
    and ``readinto`` return what has arrived; iterating gives chunks as they arrive. The end of the stream is ``b""``,
    and only a stream that was not cut ends so. A call that times out has lost nothing: the next one continues at the
    same byte. One that finds the stream cut waits up to a second to learn whether the function at its other end has
    failed, and raises that error then.

    Attributes:
        complete: ``True`` when the stream ended and its writer vouched for all of it; ``False`` when it was
            cut; ``None`` before the end, and for writers that do not mark their streams.
        allow_empty: Whether a stream that ends before any message, or after nothing but empty ones without being
            marked as complete, is an empty file, instead of a
            :class:`~iii_sync.errors.ChannelNeverWrittenError`.
    """

    direction = "read"

    def __init__(
        self,
        owner: Owner,
        ref: StreamChannelRef,
        *,
        timeout: Optional[float] = None,
        allow_empty: bool = False,
    ) -> None:
        super().__init__(owner, ref, timeout)
        self.complete: Optional[bool] = None
        self.allow_empty = allow_empty
        self._expected: Optional[int] = None  # bytes that the stream must have, where somebody has said so
        self._inbox = Inbox()
        self._using = _Use()  # held by the thread that reads
        self._callbacks: list[Callable[[str], object]] = []
        # The rest belongs to the thread that reads.
        self._items: deque[Item] = deque()
        self._start = 0  # what was read of the first of them, in bytes
        self._batches: deque[Batch] = deque()  # what _items came in
        self._at_hand = 0  # unread bytes in _items
        self._moving = False  # these are being changed; still set later: that was interrupted, and they are wrong
        self._kept = 0  # batches that were taken from the inbox
        self._position = 0
        self._over = False
        self._wait: Optional[float] = None  # seconds of silence that the current call tolerates
        self._end_error: Optional[BaseException] = None

    # --- the file --------------------------------------------------------------------------------------

    def readable(self) -> bool:
        """Return ``True``.

        Raises:
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        self._check_open()
        return True

    def writable(self) -> bool:
        """Return ``False``.

        Raises:
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        self._check_open()
        return False

    def write(self, data: Buffer, /) -> int:
        """Refuse: this is the reading end.

        Args:
            data: Nothing is done with it.

        Raises:
            io.UnsupportedOperation: Always, unless it is closed.
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        self._check_open()
        raise io.UnsupportedOperation("this is the reading end of a channel; write to channel.writer")

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Refuse: use :meth:`spool` for a file that can be sought.

        Args:
            offset: Nothing is done with it.
            whence: Nor with this.

        Raises:
            io.UnsupportedOperation: Always, unless it is closed.
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        self._check_open()
        raise io.UnsupportedOperation("a channel cannot be sought; read it through spool() for that")

    def tell(self) -> int:
        """Return how many bytes were read so far.

        Raises:
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        self._check_open()
        return self._position

    def read(self, size: Optional[int] = -1, /, *, timeout: Optional[float] = OWN_TIMEOUT) -> bytes:
        """Return exactly ``size`` bytes, fewer only at the end; all the rest for ``-1`` or ``None``.

        Args:
            size: How many bytes.
            timeout: For this call, in the place of :attr:`timeout`.

        Raises:
            ReadTimeout: Silence; what has arrived stays for the next call.
            ChannelTruncatedError: The stream was cut. ``read(n)`` raises it after every byte that did arrive was
                returned; a read to the end at once, and the bytes that did arrive are there for ``read1``.
            ChannelNeverWrittenError: It ended before any message, or within its opening mark.
            ConcurrencyError: Another thread is reading.
            ValueError: Closed.

        Blocks: Until they are there; each wait lasts at most ``timeout`` seconds of silence.
        Threads: One at a time.
        """
        with self._using:
            self._begin(timeout)
            size = _number(size)
            if size < 0:
                self._await_bytes(None)
                # Whoever asks for everything takes what he gets for everything: all of it, or the error.
                self._raise_end_error_unless(b"")
                return self._take(self._at_hand, rest=True)
            self._await_bytes(size)
            data = self._take(min(size, self._at_hand), rest=self._over and size >= self._at_hand)
            if size:
                self._raise_end_error_unless(data)
            return data

    def readall(self) -> bytes:
        """Return everything up to the end, like ``read(-1)``. All of it is kept in memory.

        Raises:
            IIISyncError: As :meth:`read`.

        Blocks: Like :meth:`read`.
        Threads: One at a time.
        """
        return self.read(-1)

    def read_all(self) -> bytes:
        """Return everything up to the end; the name that iii's documentation uses.

        Raises:
            IIISyncError: As :meth:`read`.

        Blocks: Like :meth:`read`.
        Threads: One at a time.
        """
        return self.read(-1)

    def read1(self, size: Optional[int] = -1, /, *, timeout: Optional[float] = OWN_TIMEOUT) -> bytes:
        """Return what has arrived, at most ``size`` bytes; ``b""`` only at the end.

        Args:
            size: How many at most; ``-1`` or ``None`` for all of it.
            timeout: For this call, in the place of :attr:`timeout`.

        Raises:
            IIISyncError: As :meth:`read`.

        Blocks: Only when nothing is there, at most ``timeout`` seconds.
        Threads: One at a time.
        """
        with self._using:
            self._begin(timeout)
            size = _number(size)
            if size == 0 or not self._some():
                return b""
            if size < 0:
                return self._take(self._at_hand)
            return self._take(min(size, self._at_hand))

    def readinto(self, buffer: Buffer, /, *, timeout: Optional[float] = OWN_TIMEOUT) -> int:
        """Fill ``buffer`` with what has arrived and return how many bytes; 0 only at the end.

        That may be less than fits, as with any raw file; a consumer that takes this for the end (``pickle.load``) reads
        from ``makefile("rb")``.

        Args:
            buffer: Any writable buffer of bytes.
            timeout: For this call, in the place of :attr:`timeout`.

        Raises:
            TypeError: Not a buffer that can be written to.
            IIISyncError: As :meth:`read`.

        Blocks: Like :meth:`read1`.
        Threads: One at a time.
        """
        target = as_target(buffer)
        try:
            with self._using:
                self._begin(timeout)
                if not target or not self._some():
                    return 0
                return self._take_into(target)
        finally:
            let_go(target)

    def readinto1(self, buffer: Buffer, /) -> int:
        """Fill ``buffer`` with what has arrived and return how many bytes; the same as :meth:`readinto`.

        Args:
            buffer: Any writable buffer of bytes.

        Raises:
            TypeError: Not a buffer that can be written to.
            IIISyncError: As :meth:`read`.

        Blocks: Like :meth:`read1`.
        Threads: One at a time.
        """
        return self.readinto(buffer)

    def peek(self, size: int = 0, /) -> bytes:
        """Return bytes without taking them: what is at hand, or what arrives next; ``b""`` only at the end.

        At least one byte, whatever ``size`` is, as in ``io.BufferedReader``.

        Args:
            size: How many are wanted; more or fewer may come.

        Raises:
            IIISyncError: As :meth:`read`.

        Blocks: Like :meth:`read1`.
        Threads: One at a time.
        """
        with self._using:
            self._begin(OWN_TIMEOUT)
            size = operator.index(size)
            if not self._some():
                return b""
            data, start = self._items[0], self._start
            assert not isinstance(data, str)
            return bytes(memoryview(data)[start : start + max(size, _PEEK)])

    def __iter__(self) -> ChannelReader:
        """Iterate over chunks as they arrive, never an empty one (not over lines: see :meth:`iter_lines`)."""
        self._check_open()
        return self

    def __next__(self) -> bytes:
        with self._using:
            self._begin(OWN_TIMEOUT)
            if not self._some():
                raise StopIteration
            return self._take_item()

    def readline(self, size: Optional[int] = -1, /, *, timeout: Optional[float] = OWN_TIMEOUT) -> bytes:
        """Return one line with its ``b"\\n"``, at most ``size`` bytes; the last may have none, and ``b""`` is the end.

        A timeout loses nothing.

        Args:
            size: How many bytes at most; ``-1`` or ``None`` for no limit.
            timeout: For this call, in the place of :attr:`timeout`.

        Raises:
            IIISyncError: As :meth:`read`.

        Blocks: Until the line is complete; each wait lasts at most ``timeout`` seconds of silence.
        Threads: One at a time.
        """
        with self._using:
            self._begin(timeout)
            limit = _number(size)
            if limit == 0:
                return b""
            items = passed = 0  # what is known to hold no line end: so many items, so many bytes
            while True:
                found = self._find_line_end(items, passed)
                if found >= 0:
                    return self._take(found if limit < 0 else min(found, limit))
                if 0 <= limit <= self._at_hand:
                    return self._take(limit)
                if not self._more():
                    line = self._take(self._at_hand, rest=True)
                    self._raise_end_error_unless(line)
                    return line
                # From the end: text messages at the beginning may have been delivered.
                batch = self._batches[-1]
                items, passed = len(self._items) - batch.left, self._at_hand - batch.length

    def readlines(self, hint: Optional[int] = -1, /) -> list[bytes]:
        """Return the remaining lines, or as many as make up more than ``hint`` bytes.

        Args:
            hint: Bytes; ``-1``, ``0`` or ``None`` for all lines.

        Raises:
            IIISyncError: As :meth:`read`.

        Blocks: Until the end of the stream, or of ``hint``; like :meth:`readline` for each.
        Threads: One at a time.
        """
        limit = _number(hint)
        lines: list[bytes] = []
        total = 0
        for line in self.iter_lines():
            lines.append(line)
            total += len(line)
            if 0 < limit < total:
                break
        return lines

    def iter_lines(self) -> Iterator[bytes]:
        """Iterate over lines, each with its ``b"\\n"``.

        Raises:
            IIISyncError: In a step, as :meth:`read`.
            ValueError: Closed.

        Blocks: Never; each step like :meth:`readline`.
        Threads: One at a time.
        """
        self._check_open()
        return iter(self.readline, b"")

    # --- beyond files ----------------------------------------------------------------------------------

    def events(self) -> Iterator[Union[bytes, str]]:
        """Iterate over chunks (``bytes``) and text messages (``str``) in the order in which they were sent.

        Callbacks of :meth:`on_message` are not called for these.

        Raises:
            IIISyncError: In a step, as :meth:`read`.
            ValueError: Closed.

        Blocks: Each step until something arrives, at most :attr:`timeout` seconds.
        Threads: One at a time.
        """
        self._check_open()
        while True:
            with self._using:
                self._begin(OWN_TIMEOUT)
                if not self._items and not self._more():
                    self._raise_end_error_unless(b"")
                    return
                if not self._items:
                    continue
                data = self._items[0]
                if isinstance(data, str):
                    self._moving = True
                    self._drop(1)
                    self._moving = False
                    event: Union[bytes, str] = data
                else:
                    event = self._take_item()
            yield event

    def on_message(self, callback: Callable[[str], object]) -> None:
        """Have ``callback(text)`` called for every text message.

        It is called by the thread that reads, when reading reaches the message's place in the stream. Where nobody
        reads nothing is called, and without a callback text messages are passed over; use :meth:`events`
        for streams of text. An exception of the callback leaves the read; the bytes stay.

        Args:
            callback: Called with the text; it must not read itself.

        Blocks: Never.
        Threads: Any.
        """
        self._callbacks.append(callback)

    @overload
    def makefile(self, mode: Literal["rb", "br"] = ..., buffering: int = ...) -> ChannelFileReader: ...
    @overload
    def makefile(
        self,
        mode: Literal["r", "rt", "tr"],
        buffering: int = ...,
        encoding: Optional[str] = ...,
        errors: Optional[str] = ...,
        newline: Optional[str] = ...,
    ) -> ChannelTextReader: ...
    def makefile(
        self,
        mode: str = "rb",
        buffering: int = -1,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        newline: Optional[str] = None,
    ) -> Any:
        """Return this reader as a buffered binary file (``"rb"``) or as a text file (``"r"``), as ``open()`` does.

        Both iterate over lines, and closing them closes the reader. The binary file is a view of the reader's own
        buffer: a timeout loses nothing there either. A text file cannot be read on after a timeout.

        Args:
            mode: ``"rb"`` or ``"r"``.
            buffering: 0 returns the reader itself; other values change nothing, for the buffer is the reader's.
            encoding: Of a text file; default UTF-8.
            errors: Of a text file, as in ``open()``.
            newline: Of a text file, as in ``open()``.

        Raises:
            ValueError: A mode or argument that ``open()`` would refuse, or closed.

        Blocks: Never.
        Threads: Any.
        """
        return file_of_reader(self, mode, buffering, encoding, errors, newline)

    def spool(self, max_memory: int = 16 * 1024 * 1024) -> IO[bytes]:
        """Read everything into a temporary file that can be sought, and return it at its beginning.

        Args:
            max_memory: Bytes kept in memory; a larger stream goes to the disk.

        Raises:
            IIISyncError: As :meth:`read`.
            OSError: The disk is full.

        Blocks: Until the end of the stream; each wait lasts at most :attr:`timeout` seconds of silence.
        Threads: One at a time.
        """
        from .spool import Spool  # what it needs takes long to import

        file = Spool(max_size=max_memory)
        try:
            if max_memory <= 0:
                file.rollover()
            for chunk in self:
                file.write(chunk)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def close(self) -> None:
        """Leave: the writer's next write fails.

        A reader that was never used connects for that, in the background; unless its reference was handed out (it is
        somebody else's then), or nobody could be writing yet.

        Blocks: Never.
        Threads: Any, at any time; a read in another thread ends with ``ChannelAbortedError``.
        """
        self._leave(ChannelAbortedError("the reader was closed"))

    def abort(self) -> None:
        """Leave; the same as :meth:`close`.

        Blocks: Never.
        Threads: Any, at any time.
        """
        self._leave(ChannelAbortedError("the reader was aborted"))

    # --- inside ----------------------------------------------------------------------------------------

    def _leave(self, error: BaseException) -> None:
        if self._in_other_process():
            self._closed = True
            return
        try:
            with self._state_lock:
                if self._closed:
                    return
                self._closed = True
                unused = self._connection is None and self._failure is None
                if self._failure is None:
                    self._failure = error
            if unused and not self._handed_out and not self._owner.is_alone(self):
                self._owner.run_soon(self._announce_leaving)
            elif self._connection is not None:
                # RST while data may still come: the engine never reads this end and would not notice a FIN.
                self._connection.drop(error, reset=not self._inbox.over)
                self._inbox.wake()
        except BaseException:
            if self._connection is not None:  # Ctrl-C: nobody would close it a second time
                self._connection.drop(error, reset=True)
            raise
        self._owner.end_is_over(self)

    def _announce_leaving(self) -> None:
        """On a thread of the worker's: connect only to let the writer know that nobody reads."""
        try:
            connection = self._owner.connect_end(self._ref, self._inbox, self, Deadline(self._owner.connect_timeout))
        except Exception:
            _log.debug("a reader that was closed could not tell its writer", exc_info=True)
            return
        connection.start()
        connection.drop(ChannelAbortedError("the reader was closed"), reset=True)
        self._owner.end_is_over(self)

    def _begin(self, timeout: Optional[float]) -> None:
        """Begin a call that reads, with ``_using``."""
        self._check_open()
        self._wait = self._timeout if timeout is OWN_TIMEOUT else self._patience(timeout)
        if self._moving:
            self._items.clear()
            self._batches.clear()
            self._start = self._at_hand = 0
            self._end_by_interruption()
            self._moving = False

    def _has_begun(self) -> bool:
        """Whether anything has arrived, or the stream is over. Any thread."""
        return self._inbox.over or self._inbox.stream.messages > 0

    def _at_the_end(self) -> bool:
        """Whether everything was read, the stream is over, and its end is a good one. Does not wait."""
        if self._connection is None or self._at_hand:
            return False
        try:
            with self._using:
                self._begin(0)
                return not self._more() and self._end_error is None
        except (IIISyncError, ValueError):
            return False

    def _some(self) -> bool:
        """Wait until data is at hand; ``False`` at the end, which is raised if it is not a good one."""
        while True:
            while self._items and isinstance(self._items[0], str):
                self._deliver()
            if self._items:
                return True
            if not self._more():
                self._raise_end_error_unless(b"")
                return False

    def _more(self) -> bool:
        """Wait for the next batch; ``False`` at the end. Delivers text messages that nothing comes before."""
        while self._items and isinstance(self._items[0], str) and self._callbacks:
            self._deliver()
        if self._over:
            return False
        self._connected(self._inbox)
        items, batches, at_hand = len(self._items), len(self._batches), self._at_hand
        try:
            while True:
                batch = self._inbox.get(self._wait)
                if batch is not None:
                    self._keep(batch)
                    return True
                if self._closed:
                    raise ChannelAbortedError(f"channel {self.channel_id}: the reader was closed by another thread")
                if self._inbox.over:
                    self._judge_end()
                    return False
        except BaseException as exc:
            if self._inbox.missing(self._kept):
                self._give_up(items, batches, at_hand)
            if isinstance(exc, TimeoutError) and not isinstance(exc, IIISyncError):
                raise ReadTimeout(f"nothing has arrived on channel {self.channel_id} for {self._wait:g} s") from None
            raise

    def _await_bytes(self, size: Optional[int]) -> None:
        """Wait until so many bytes are at hand, or for ``None`` until the end."""
        while (size is None or self._at_hand < size) and self._more():
            pass

    def _keep(self, batch: Batch) -> None:
        self._items.extend(batch.items)
        self._at_hand += batch.length
        self._batches.append(batch)
        self._kept += 1

    def _give_up(self, items: int, batches: int, at_hand: int) -> None:
        """An interruption (Ctrl-C, say) has hit between taking a batch and keeping it: the stream has a hole."""
        while len(self._items) > items:
            self._items.pop()
        if len(self._batches) > batches:
            self._batches.pop()
        self._at_hand = at_hand
        self._end_by_interruption()

    def _end_by_interruption(self) -> None:
        self._over, self.complete = True, False
        self._end_error = ChannelTruncatedError(
            f"channel {self.channel_id}: a read was interrupted while it took over what had arrived; that is lost"
        )
        if self._connection is not None:
            self._connection.drop(self._end_error, reset=True)

    def _judge_end(self) -> None:
        """Decide whether the stream that has ended is whole.

        ``_over`` comes last: interrupted before it (Ctrl-C), the next read decides again.
        """
        inbox, connection = self._inbox, self._connection
        stream = inbox.stream
        complete = stream.complete()
        if complete and connection is not None and not connection.between_messages:
            complete = False
        self.complete = complete
        if complete:
            self._over = True
            self._owner.end_is_over(self)
            return
        name = f"channel {self.channel_id}"
        error = self._failure or inbox.error
        if error is not None and not isinstance(error, EngineConnectionError):
            self._end_error = error  # abort(), shutdown(), or the failed call that the stream belonged to
        elif complete is False or error is not None:
            self._end_error = ChannelTruncatedError(
                f"{name}: the stream was cut after {self._position + self._at_hand:,} bytes"
            )
            self._end_error.__cause__ = error
        elif inbox.close is not None and inbox.close.code not in (None, 1000):
            self._end_error = ChannelTruncatedError(
                f"{name}: the stream ended with the error status {inbox.close.code} {inbox.close.reason!r} "
                f"after {self._position + self._at_hand:,} bytes"
            )
        elif self._expected is not None:
            size = self._position + self._at_hand
            if size != self._expected:
                self._end_error = ChannelTruncatedError(
                    f"{name}: the stream was cut after {size:,} of {self._expected:,} bytes"
                )
            else:
                self.complete = True
        elif stream.torn and not self.allow_empty:
            self._end_error = ChannelNeverWrittenError(
                f"{name} ended after nothing but empty messages: a marked stream that was cut in its opening looks "
                "so, and one of nothing from a writer without marks; allow_empty=True takes it for an empty stream"
            )
        elif not stream.messages and not self.allow_empty:
            self._end_error = ChannelNeverWrittenError(
                f"{name} ended before any message: it has been read before (it can be, once), its writer "
                "went away, or nobody wrote for five minutes; allow_empty=True takes it for an empty stream"
            )
        if self._end_error is not None:
            self.complete = False
            self._end_error = self._explained(self._end_error)
        self._over = True
        self._owner.end_is_over(self)

    def _raise_end_error_unless(self, data: bytes) -> None:
        if not data and self._over and self._end_error is not None:
            raise fresh(self._end_error)

    def _drop(self, count: int) -> None:
        """Take so many of the first items off, and give each window back after the last item of its batch."""
        self._start = 0
        while count:
            batch = self._batches[0]
            gone = min(count, batch.left)
            for _ in range(gone):
                self._items.popleft()
            count -= gone
            batch.left -= gone
            if not batch.left:
                self._batches.popleft()
                batch.release()

    def _deliver(self) -> None:
        """Hand the text message that is next in the stream to the callbacks."""
        text = self._items[0]
        assert isinstance(text, str)
        self._moving = True
        self._drop(1)
        self._moving = False
        for callback in list(self._callbacks):
            callback(text)

    def _take_item(self) -> bytes:
        """Take what is left of the first item, which is data."""
        data, start = self._items[0], self._start
        assert not isinstance(data, str)
        part = bytes(data[start:] if start else data)
        self._moving = True
        self._drop(1)
        self._at_hand -= len(part)
        self._position += len(part)
        self._moving = False
        return part

    def _take(self, size: int, *, rest: bool = False) -> bytes:
        """Take ``size`` bytes that are at hand, delivering the text messages among them.

        With ``rest``, for all bytes of a stream that is over, the text messages behind them too.
        """
        parts: list[bytes] = []
        try:
            self._take_parts(parts, size, rest)
        except BaseException:
            if not self._moving:
                # A callback raised: what was taken for this call stays for the next.
                self._moving = True
                for part in reversed(parts):
                    self._put_back(part)
                self._moving = False
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take_parts(self, parts: list[bytes], size: int, rest: bool) -> None:
        taken = 0
        while taken < size or (rest and self._items):
            data = self._items[0]
            if isinstance(data, str):
                self._deliver()
                continue
            start, length = self._start, len(data)
            end = min(length, start + size - taken)
            part = bytes(data if end - start == length else data[start:end])
            self._moving = True
            parts.append(part)
            taken += end - start
            self._advance(end, length)
            self._moving = False

    def _put_back(self, part: bytes) -> None:
        first = self._items[0] if self._items else b""
        if self._start and not isinstance(first, str):
            self._items[0] = first[self._start :]
            self._start = 0
        self._items.appendleft(part)
        self._batches.appendleft(Batch([part], len(part), 0))
        self._at_hand += len(part)
        self._position -= len(part)

    def _take_into(self, target: memoryview) -> int:
        """Copy data that is at hand into ``target``, up to the next text message."""
        size, filled, whole, start = len(target), 0, 0, self._start
        for data in self._items:
            if isinstance(data, str):
                break
            behind = filled + len(data) - start
            if behind > size:
                target[filled:] = memoryview(data)[start : start + size - filled]
                start, filled = start + size - filled, size
                break
            target[filled:behind] = memoryview(data)[start:] if start else data
            start, filled, whole = 0, behind, whole + 1
            if filled == size:
                break
        self._moving = True
        if whole:
            self._drop(whole)
        self._start = start
        self._at_hand -= filled
        self._position += filled
        self._moving = False
        return filled

    def _advance(self, end: int, length: int) -> None:
        """Note that the first item, of ``length`` bytes, was read up to ``end``."""
        count = end - self._start
        self._at_hand -= count
        self._position += count
        if end == length:
            self._drop(1)
        else:
            self._start = end

    def _find_line_end(self, items: int, passed: int) -> int:
        """Return how many bytes the next line has, or -1; ``items``, of ``passed`` bytes, are known to hold no end."""
        for index in range(items, len(self._items)):
            data = self._items[index]
            if isinstance(data, str):
                continue
            start = 0 if index else self._start
            if not isinstance(data, bytes):
                # Views cannot be searched. Copied once an item, not once a line.
                self._items[index] = data = bytes(data)
            found = data.find(b"\n", start)
            if found >= 0:
                return passed + found + 1 - start
            passed += len(data) - start
        return -1


def _number(size: Optional[int]) -> int:
    """Return a size as ``io`` takes it: an integer, or what can be an index; ``None`` is -1."""
    return -1 if size is None else operator.index(size)


class _Use(RLock):
    """Keeps a second thread out of a reader, and foreign processes; never waited for, and never taken twice.

    A lock that is left in C, so that Ctrl-C cannot hit before it is free again: see :mod:`iii_sync.net.waiting`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pid = os.getpid()

    def __enter__(self) -> bool:
        if self._pid != os.getpid():
            raise foreign()
        if self._is_owned():  # a callback that reads on
            raise ConcurrencyError(_IN_USE)
        try:
            if not self.acquire(blocking=False):
                raise ConcurrencyError(_IN_USE)
        except BaseException:
            if self._is_owned():
                self.release()
            raise
        return True


_IN_USE = "another thread is reading this channel; a reader is used by one at a time"
