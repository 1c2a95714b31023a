"""A function opened like a file: what ``Worker.open`` returns.

The file, the channel below it and the call belong together: the call's error explains a broken stream (see
:meth:`.End._explained`), the call's success ends what was written for it, and leaving ``with`` takes its result.
"""

from __future__ import annotations

import concurrent.futures
import weakref
from typing import Any, Callable

from ..calls import Call
from ..errors import ChannelBrokenError, ChannelError, ChannelNeverWrittenError, UsageError
from ..net.loop import Timer
from .files import (
    DEFAULT_BUFFER_SIZE,
    ChannelFileReader,
    ChannelFileWriter,
    ChannelTextReader,
    ChannelTextWriter,
    TextSource,
)
from .reader import ChannelReader
from .writer import ChannelWriter

__all__ = ["FunctionReader", "FunctionTextReader", "FunctionTextWriter", "FunctionWriter", "open_reader", "open_writer"]

#: Seconds after the function's result in which its stream must have begun.
_GRACE = 5.0

_LATER = Callable[[float, Callable[[], None]], Timer]


class FunctionWriter(ChannelFileWriter):
    """A function that reads, opened for writing bytes.

    Attributes:
        call: The call of the function.
    """

    def __init__(self, raw: ChannelWriter, size: int, call: Call) -> None:
        self.call = call
        super().__init__(raw, size)
        # Not Call.add_done_callback: this one does not wait for a thread, and does not block.
        concurrent.futures.Future.add_done_callback(call, _stops_reading(weakref.ref(raw)))

    @property
    def result(self) -> Any:
        """What the function returned; there after the ``with`` block, or once the function has ended.

        Raises:
            UsageError: The function is still running, and the stream is not ended.
            InvocationError: The function failed.
            concurrent.futures.CancelledError: The stream was aborted.

        Blocks: Until the function has ended, if the stream is ended already.
        Threads: Any.
        """
        return _result(self)

    def close(self) -> None:
        """Send what was collected, end the stream, and wait for the function.

        In a forked child it does nothing.

        Raises:
            InvocationError: The function failed.
            CallTimeout: It has not ended in time.
            IIISyncError: As :meth:`.ChannelWriter.close`.

        Blocks: Like :meth:`.ChannelWriter.close`, and then until the function has ended, at most the ``timeout`` that
            ``open`` was given.
        Threads: Any; one in a write makes it wait.
        """
        if self.closed or self._in_other_process():
            return
        try:
            self.flush()
            if _has_succeeded(self.call):
                self.raw.abort()  # it reads no more, and needs no end
            else:
                self.raw.close()
        except ChannelError:
            unsent = not self.raw.closed and self.tell() != self.raw.tell()
            self.raw.abort()
            # What has left was enough for the function, if it says so.
            if unsent or not _has_succeeded(self.call):
                self.call.cancel()
                raise
        except BaseException:
            self.abort()
            raise
        self.call.result()

    def abort(self) -> None:
        """Drop the stream without marking its end, and stop waiting for the function.

        Blocks: Never.
        Threads: Any, at any time.
        """
        self.call.cancel()  # first: its end must not be taken for a result
        super().abort()


class FunctionReader(ChannelFileReader):
    """A function that writes, opened for reading bytes.

    Attributes:
        call: The call of the function.
    """

    def __init__(self, raw: ChannelReader, call: Call) -> None:
        self.call = call
        super().__init__(raw)
        self._reader = raw

    @property
    def result(self) -> Any:
        """What the function returned; like :attr:`FunctionWriter.result`.

        Raises:
            UsageError: The function is still running, and the file is not closed.
            InvocationError: The function failed.
            concurrent.futures.CancelledError: The file was closed before the end of the stream.

        Blocks: Until the function has ended, if the file is closed already.
        Threads: Any.
        """
        return _result(self)

    def close(self) -> None:
        """Leave. Before the end of the stream it cancels the call; behind it, it waits for the function.

        Raises:
            InvocationError: Behind the end: the function failed.
            CallTimeout: Behind the end: it has not ended in time.

        Blocks: Behind the end until the function has ended, at most the ``timeout`` that ``open`` was given; before it
            never.
        Threads: Any.
        """
        if self.closed:
            return
        read_to_the_end = self._reader._at_the_end()
        if not read_to_the_end:
            self.call.cancel()  # first: the function fails as soon as its reader has gone
        super().close()
        if read_to_the_end:
            self.call.result()

    def abort(self) -> None:
        """Leave, and stop waiting for the function.

        Blocks: Never.
        Threads: Any, at any time.
        """
        self.call.cancel()  # first: its end must not be taken for a result
        super().abort()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class _FunctionTextSource(TextSource, FunctionReader):
    """Under a text file."""


class FunctionTextWriter(ChannelTextWriter):
    """A function that reads, opened for writing text; otherwise like :class:`FunctionWriter`."""

    buffer: FunctionWriter  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def call(self) -> Call:
        """The call of the function."""
        return self.buffer.call

    @property
    def result(self) -> Any:
        """What the function returned; like :attr:`FunctionWriter.result`."""
        return self.buffer.result


class FunctionTextReader(ChannelTextReader):
    """A function that writes, opened for reading text; otherwise like :class:`FunctionReader`."""

    buffer: FunctionReader  # type: ignore[assignment]

    @property
    def call(self) -> Call:
        """The call of the function."""
        return self.buffer.call

    @property
    def result(self) -> Any:
        """What the function returned; like :attr:`FunctionWriter.result`."""
        return self.buffer.result

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.buffer.abort()


def open_writer(
    writer: ChannelWriter, call: Call, binary: bool, buffering: int, **text: Any
) -> FunctionWriter | FunctionTextWriter:
    """Put the file together for a function that reads."""
    # io.BufferedWriter has no size 0; a size of 1 sends every write as it comes.
    size = DEFAULT_BUFFER_SIZE if buffering == -1 else max(1, buffering)
    file = FunctionWriter(writer, size, call)
    return file if binary else FunctionTextWriter(file, **text)


def open_reader(
    reader: ChannelReader, call: Call, binary: bool, call_later: _LATER, **text: Any
) -> FunctionReader | FunctionTextReader:
    """Put the file together for a function that writes."""
    concurrent.futures.Future.add_done_callback(call, _must_have_begun(weakref.ref(reader), call_later))
    if binary:
        return FunctionReader(reader, call)
    return FunctionTextReader(_FunctionTextSource(reader, call), **text)


def _result(file: Any) -> Any:
    if not file.call.done() and not file.closed:
        raise UsageError("the function has not ended yet: take the result after the with block, or after close()")
    return file.call.result()


def _has_succeeded(call: Call) -> bool:
    return call.done() and not call.cancelled() and call.exception(0) is None


def _stops_reading(writer: weakref.ref[ChannelWriter]) -> Callable[[Any], None]:
    """When the function succeeds, a write that is blocked or still to come has no reader any more."""

    def done(call: Call) -> None:
        raw = writer()
        if raw is not None and not raw.closed and _has_succeeded(call):
            raw._fail(ChannelBrokenError(f"{call.function_id} has returned and reads no more; see .result"))

    return done


def _must_have_begun(reader: weakref.ref[ChannelReader], call_later: _LATER) -> Callable[[Any], None]:
    """When the function succeeds, its stream must be under way, or begin soon: else nobody would ever write."""

    def look(call: Call) -> None:
        raw = reader()
        if raw is None or raw.closed:
            return
        if raw._is_idle():
            call_later(_GRACE, lambda: look(call))
        elif not raw._has_begun():
            raw._fail(
                ChannelNeverWrittenError(
                    f"{call.function_id} has returned, and its stream has not begun {_GRACE:g} s later; see .result"
                )
            )

    def done(call: Call) -> None:
        if _has_succeeded(call):
            call_later(_GRACE, lambda: look(call))

    return done
