"""Buffered and text files over channel ends: what ``makefile`` returns.

The standard library's wrappers would do, but for two things: leaving their ``with`` on an exception, or being
collected, makes them call ``close()``, which ends the stream as if it were whole; and ``io.BufferedReader`` loses
what it has taken when a read times out. So the buffer for reading is the reader's own, and the classes for
writing abort where others close.
"""

from __future__ import annotations

import codecs
import io
import operator
import os
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional, Protocol, TypeVar

from ..errors import ReadTimeout
from .end import as_target, let_go

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "ChannelFileReader",
    "ChannelFileWriter",
    "ChannelTextReader",
    "ChannelTextWriter",
    "file_of_reader",
    "file_of_writer",
    "writes_to",
]

T = TypeVar("T")

#: What a buffered writer collects before it sends; far above ``io.DEFAULT_BUFFER_SIZE``, for a message costs the
#: engine about as much as 100 KiB of bytes.
DEFAULT_BUFFER_SIZE = 64 * 1024


class Source(Protocol):
    """What a file needs of the reader below it: :class:`.ChannelReader`."""

    @property
    def closed(self) -> bool: ...
    def readable(self) -> bool: ...
    def seekable(self) -> bool: ...
    def flush(self) -> None: ...
    def read(self, size: Optional[int] = -1, /) -> bytes: ...
    def read1(self, size: Optional[int] = -1, /) -> bytes: ...
    def readinto(self, buffer: Buffer, /) -> int: ...
    def readline(self, size: Optional[int] = -1, /) -> bytes: ...
    def peek(self, size: int = 0, /) -> bytes: ...
    def tell(self) -> int: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Target(Protocol):
    """What a file needs of the writer below it, beyond ``io.RawIOBase``: :class:`.ChannelWriter`."""

    @property
    def closed(self) -> bool: ...
    def tell(self) -> int: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def send_message(self, text: str) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def _forgotten(self, text: str) -> None: ...


def is_binary(mode: str, direction: str, buffering: int, **text: Any) -> bool:
    """Check arguments as ``open()`` does; returns whether the mode is binary.

    Args:
        mode: ``direction`` with ``b`` or ``t`` or neither, which means text.
        direction: ``r`` or ``w``.
        buffering: -1 for the default, 0 for none (binary only), or a number of bytes.
        **text: Arguments that only text modes take.

    Raises:
        ValueError: Anything that does not fit.
        LookupError: An encoding that does not exist.
    """
    if mode not in (direction, direction + "b", "b" + direction, direction + "t", "t" + direction):
        raise ValueError(f"invalid mode: {mode!r}; use '{direction}b' for bytes or '{direction}' for text")
    if not isinstance(buffering, int) or isinstance(buffering, bool) or buffering < -1:
        raise ValueError(f"buffering={buffering!r} must be -1, 0 (binary only), or a number of bytes")
    binary = "b" in mode
    if binary:
        for name, value in text.items():
            if value is not None:
                raise ValueError(f"binary mode doesn't take an {name!r} argument")
    else:
        if buffering == 0:
            raise ValueError("can't have unbuffered text I/O")
        # What it says to them is what it will say to the file.
        io.TextIOWrapper(io.BytesIO(), **{"encoding": "utf-8", **{k: v for k, v in text.items() if v is not None}})
    return binary


class ChannelFileReader(io.BufferedIOBase):
    """A reader as a buffered binary file: iterating gives lines; closing it closes the reader.

    Has no buffer of its own: what a timeout leaves over is there for the next read, here and on the reader.
    """

    def __init__(self, raw: Source) -> None:
        self._raw = raw
        super().__init__()

    @property
    def raw(self) -> Source:
        """The reader."""
        return self._raw

    @property
    def closed(self) -> bool:
        """Whether the reader is closed."""
        return self._raw.closed

    @property
    def mode(self) -> str:
        """``"rb"``."""
        return "rb"

    def readable(self) -> bool:
        """Return ``True``.

        Raises:
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        return self._raw.readable()

    def seekable(self) -> bool:
        """Return ``False``.

        Raises:
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        return self._raw.seekable()

    def flush(self) -> None:
        """Do nothing.

        Raises:
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        self._raw.flush()

    def read(self, size: Optional[int] = -1, /) -> bytes:
        """Return exactly ``size`` bytes, fewer only at the end; all the rest for ``-1`` or ``None``.

        Args:
            size: How many bytes.

        Raises:
            IIISyncError: As :meth:`.ChannelReader.read`.
            ValueError: A negative size, or closed.

        Blocks: Like :meth:`.ChannelReader.read`.
        Threads: One at a time.
        """
        if size is not None and operator.index(size) < -1:
            raise ValueError("read length must be non-negative or -1")
        return self._guarded(lambda: self._raw.read(size))

    def read1(self, size: int = -1, /) -> bytes:
        """Return what has arrived, at most ``size`` bytes; ``b""`` only at the end.

        Args:
            size: How many at most; ``-1`` for all of it.

        Raises:
            IIISyncError: As :meth:`.ChannelReader.read`.

        Blocks: Like :meth:`.ChannelReader.read1`.
        Threads: One at a time.
        """
        return self._guarded(lambda: self._raw.read1(size))

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill ``buffer`` and return how many bytes, fewer only at the end; a timeout loses nothing.

        Args:
            buffer: Any writable buffer of bytes.

        Raises:
            TypeError: Not a buffer that can be written to.
            IIISyncError: As :meth:`.ChannelReader.read`.

        Blocks: Like :meth:`read`.
        Threads: One at a time.
        """
        target = as_target(buffer)  # before anything is taken from the stream
        try:
            data = self.read(len(target))
            target[: len(data)] = data
            return len(data)
        finally:
            let_go(target)

    def readinto1(self, buffer: Buffer, /) -> int:
        """Fill ``buffer`` with what has arrived and return how many bytes; 0 only at the end.

        Args:
            buffer: Any writable buffer of bytes.

        Raises:
            TypeError: Not a buffer that can be written to.
            IIISyncError: As :meth:`.ChannelReader.read`.

        Blocks: Like :meth:`read1`.
        Threads: One at a time.
        """
        return self._guarded(lambda: self._raw.readinto(buffer))

    def readline(self, size: Optional[int] = -1, /) -> bytes:
        """Return one line with its ``b"\\n"``, at most ``size`` bytes; the last may have none, and ``b""`` is the end.

        Args:
            size: How many bytes at most; ``-1`` or ``None`` for no limit.

        Raises:
            IIISyncError: As :meth:`.ChannelReader.read`.

        Blocks: Like :meth:`.ChannelReader.readline`.
        Threads: One at a time.
        """
        return self._guarded(lambda: self._raw.readline(size))

    def peek(self, size: int = 0, /) -> bytes:
        """Return bytes without taking them; ``b""`` only at the end.

        Args:
            size: How many are wanted; more or fewer may come.

        Raises:
            IIISyncError: As :meth:`.ChannelReader.read`.

        Blocks: Like :meth:`read1`.
        Threads: One at a time.
        """
        return self._guarded(lambda: self._raw.peek(size))

    def tell(self) -> int:
        """Return how many bytes were read so far.

        Raises:
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        return self._raw.tell()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Refuse: a stream goes one way.

        Args:
            offset: Nothing is done with it.
            whence: Nor with this.

        Raises:
            io.UnsupportedOperation: Always, unless it is closed.
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        return self._raw.seek(offset, whence)

    def fileno(self) -> int:
        """Refuse: there is a socket, but its bytes are frames.

        Raises:
            io.UnsupportedOperation: Always, unless it is closed.
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        return self._raw.fileno()

    def close(self) -> None:
        """Close the reader.

        Blocks: Never.
        Threads: Any, at any time.
        """
        self._raw.close()

    def abort(self) -> None:
        """Close the reader at once.

        Blocks: Never.
        Threads: Any, at any time.
        """
        self._raw.abort()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        self.__reduce__()

    def __del__(self) -> None:
        """Nothing: the reader looks after itself."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._raw!r}>"

    def _guarded(self, operation: Callable[[], T]) -> T:
        """Run one operation on the reader."""
        return operation()


class TextSource(ChannelFileReader):
    """Under a text file: after a timeout the decoder has lost its place, so reading on is refused."""

    _timed_out = False

    def _guarded(self, operation: Callable[[], T]) -> T:
        if self._timed_out:
            raise OSError("cannot read on: an earlier read of this text file timed out; makefile('rb') can")
        try:
            return super()._guarded(operation)
        except ReadTimeout:
            self._timed_out = True
            raise


class ChannelTextReader(io.TextIOWrapper):
    """A reader as a text file."""

    def __init__(
        self, source: ChannelFileReader, encoding: Optional[str], errors: Optional[str], newline: Optional[str]
    ) -> None:
        super().__init__(source, encoding or "utf-8", errors, newline)  # type: ignore[arg-type]

    @property
    def mode(self) -> str:
        """``"r"``."""
        return "r"

    def __del__(self) -> None:
        """Nothing: the reader looks after itself."""


class ChannelFileWriter(io.BufferedWriter):
    """A writer as a buffered binary file; closing it ends the stream.

    Leaving ``with`` on an exception aborts, and so does being collected: what is in the buffer is dropped, and the
    reader sees a cut stream. Any number of threads may write. ``write`` and ``flush`` block and raise like
    :meth:`.ChannelWriter.write`; after a ``WriteTimeout`` that left the stream whole nothing is lost.

    Args:
        raw: The writer.
        size: Bytes to collect before they are sent.
    """

    raw: Target  # type: ignore[assignment]

    def __init__(self, raw: Target, size: int = DEFAULT_BUFFER_SIZE) -> None:
        self._pid = os.getpid()  # before what may fail: __del__ needs it
        super().__init__(raw, size)  # type: ignore[arg-type]

    def send_message(self, text: str) -> None:
        """Send one text message, behind what was written before.

        Args:
            text: See :meth:`.ChannelWriter.send_message`.

        Raises:
            IIISyncError: As :meth:`.ChannelWriter.write`.
            ValueError: Text that cannot be sent, or closed.
            TypeError: Not text.

        Blocks: Like :meth:`.ChannelWriter.write`.
        Threads: Any number.
        """
        self.flush()
        self.raw.send_message(text)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Refuse: a stream goes one way.

        Args:
            offset: Nothing is done with it.
            whence: Nor with this.

        Raises:
            io.UnsupportedOperation: Always, unless it is closed.
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        return self.raw.seek(offset, whence)

    def close(self) -> None:
        """Send what was collected and end the stream; when the first fails, abort it instead.

        Raises:
            IIISyncError: As :meth:`.ChannelWriter.write` and :meth:`.ChannelWriter.close`.

        Blocks: For a write that is under way, and then like :meth:`.ChannelWriter.write` and
            :meth:`.ChannelWriter.close`.
        Threads: Any.
        """
        if self.closed or self._in_other_process():
            return
        try:
            self.flush()
        except BaseException:
            self.abort()
            raise
        self.raw.close()

    def _in_other_process(self) -> bool:
        return self._pid != os.getpid()

    def abort(self) -> None:
        """Drop the stream, and what was collected, without marking its end.

        Blocks: Never.
        Threads: Any, at any time.
        """
        self.raw.abort()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        # In the place of the finalizer of io, which would end the stream. What has left is the writer's to
        # look after; what has not would be lost without a word.
        raw = self.raw  # None when it was detached
        if raw is None or getattr(self, "_pid", None) != os.getpid() or raw.closed or self.tell() == raw.tell():
            return
        text = f"{self!r} was not closed: its stream was cut"
        try:
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
        finally:  # the warning may be an error
            raw._forgotten(text)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.raw!r}>"


class ChannelTextWriter(io.TextIOWrapper):
    """A writer as a text file; aborts where :class:`ChannelFileWriter` does."""

    buffer: ChannelFileWriter  # pyright: ignore[reportIncompatibleMethodOverride]
    _marked = False

    def __init__(
        self, target: ChannelFileWriter, encoding: Optional[str], errors: Optional[str], newline: Optional[str]
    ) -> None:
        # write_through: all that waits, waits in the buffer below, which knows what to do with it.
        super().__init__(target, encoding or "utf-8", errors, newline, write_through=True)
        if codecs.lookup(self.encoding).name in ("utf-16", "utf-32"):
            # io writes the mark that readers of these need only into files that can be sought.
            vars(self)["write"] = self._write_with_mark  # only here, for else it would be slower

    def _write_with_mark(self, text: str, /) -> int:
        if not self._marked:
            self._marked = True
            super().write("\ufeff")
        return super().write(text)

    @property
    def mode(self) -> str:
        """``"w"``."""
        return "w"

    def close(self) -> None:
        """Send what was collected and end the stream; when the first fails, abort it instead.

        Raises:
            IIISyncError: As :meth:`ChannelFileWriter.close`.

        Blocks: Like :meth:`ChannelFileWriter.close`.
        Threads: One at a time.
        """
        # In a forked child flushing would raise. Detached, there is no buffer, and io says so.
        if self.buffer is None or not self.buffer._in_other_process():
            super().close()

    def abort(self) -> None:
        """Drop the stream without marking its end.

        Blocks: Never.
        Threads: Any, at any time.
        """
        self.buffer.abort()

    def send_message(self, text: str) -> None:
        """Send one text message, behind what was written before.

        Args:
            text: See :meth:`.ChannelWriter.send_message`.

        Raises:
            IIISyncError: As :meth:`.ChannelWriter.write`.
            ValueError: Text that cannot be sent, or closed.
            TypeError: Not text.

        Blocks: Like :meth:`.ChannelWriter.write`.
        Threads: One at a time.
        """
        self.flush()
        self.buffer.send_message(text)

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        """Nothing here: the file below warns and aborts."""


def file_of_reader(
    reader: Source,
    mode: str,
    buffering: int,
    encoding: Optional[str],
    errors: Optional[str],
    newline: Optional[str],
) -> Any:
    """What :meth:`.ChannelReader.makefile` returns."""
    if is_binary(mode, "r", buffering, encoding=encoding, errors=errors, newline=newline):
        return reader if buffering == 0 else ChannelFileReader(reader)
    return ChannelTextReader(TextSource(reader), encoding, errors, newline)


def writes_to(file: ChannelFileWriter, writer: object) -> bool:
    """Whether an open file still has ``writer`` below it, and has not been detached."""
    try:
        return not file.closed and file.raw is writer
    except ValueError:
        return False


def file_of_writer(
    writer: Target,
    mode: str,
    buffering: int,
    encoding: Optional[str],
    errors: Optional[str],
    newline: Optional[str],
) -> Any:
    """What :meth:`.ChannelWriter.makefile` returns."""
    binary = is_binary(mode, "w", buffering, encoding=encoding, errors=errors, newline=newline)
    if buffering == 0:
        return writer
    file = ChannelFileWriter(writer, DEFAULT_BUFFER_SIZE if buffering == -1 else buffering)
    return file if binary else ChannelTextWriter(file, encoding, errors, newline)
