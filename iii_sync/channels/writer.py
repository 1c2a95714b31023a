"""The writing end of a channel."""

from __future__ import annotations

import io
import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any, Callable, Literal, NoReturn, Optional, overload

from ..errors import (
    ChannelAbortedError,
    ChannelBrokenError,
    CloseTimeout,
    EngineConnectionError,
    IIISyncError,
    WriteTimeout,
)
from ..net.connection import STALL, Connection
from ..net.waiting import NO_DEADLINE, Deadline, Event
from ..official import pointing_elsewhere
from ..wire import frames
from .end import OWN_TIMEOUT, End, Owner, as_bytes, as_channel_error, let_go
from .files import ChannelFileWriter, ChannelTextWriter, file_of_writer, writes_to
from .outgoing import LATER, Outgoing, opening_mark
from .refs import StreamChannelRef

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["ChannelWriter"]

_log = logging.getLogger("iii_sync.channel")

#: How often ``close()`` looks whether the engine's machine still takes data.
_LOOK = 0.25


@pointing_elsewhere
class ChannelWriter(End):
    """The writing end of a channel: a raw binary file that only goes forward.

    Connects with the first byte, in at most ``connect_timeout``. A write that failed after its first byte has left half
    of something on the wire, so every later call raises and the reader sees a cut stream: only an undisturbed stream is
    ever marked as complete. One that finds the other side gone waits up to a second to learn whether the function there
    has failed, and raises that error then.

    Leaving ``with`` normally closes; leaving it on an exception aborts. Wrappers that do not know ``abort``
    (``io.BufferedWriter``, ``io.TextIOWrapper``, ``gzip.GzipFile``, …) call ``close`` in both cases.

    Attributes:
        close_timeout: Seconds without progress that :meth:`close` tolerates; ``None`` for no limit.
    """

    direction = "write"

    def __init__(
        self,
        owner: Owner,
        ref: StreamChannelRef,
        *,
        timeout: Optional[float] = None,
        close_timeout: Optional[float] = 30.0,
        marks: bool = True,
    ) -> None:
        super().__init__(owner, ref, timeout)
        self.close_timeout = close_timeout
        self._marks = marks
        # The threads inside write; under _state_lock. Not a count: an interruption at the edges of a call, before or
        # behind it is counted, would make it wrong for good.
        self._writing: set[int] = set()
        self._files: list[weakref.ref[ChannelFileWriter]] = []  # made of this writer
        # The rest belongs to the holder of the connection's turn.
        self._outgoing = Outgoing(marks)
        self._ending = _Ending(self._outgoing)
        self._sent = 0  # bytes, but for those that have joined others
        self._complained = False

    def writable(self) -> bool:
        """Return ``True``.

        Raises:
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        self._check_open()
        return True

    def readable(self) -> bool:
        """Return ``False``.

        Raises:
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        self._check_open()
        return False

    def readinto(self, buffer: Buffer, /) -> int:
        """Refuse, as all other ways to read do.

        Args:
            buffer: Nothing is done with it.

        Raises:
            io.UnsupportedOperation: Always, unless it is closed.
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        self._check_open()
        raise io.UnsupportedOperation("this is the writing end of a channel; read from channel.reader")

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
        self._check_open()
        raise io.UnsupportedOperation(
            "a channel cannot be sought: write to a temporary file first, then copy that with shutil.copyfileobj"
        )

    def tell(self) -> int:
        """Return how many bytes were written so far; those of a write that Ctrl-C has ended are all counted, or none.

        Raises:
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        self._check_open()
        return self._sent + self._outgoing.joined

    def write(self, data: Buffer, /, *, timeout: Optional[float] = OWN_TIMEOUT) -> int:
        """Write all of ``data``: bytes, or any C-contiguous buffer.

        A slow reader pushes back, and before there is one about 64 messages fit. The buffer may be reused afterwards.

        Args:
            data: What to write.
            timeout: For this call, in the place of :attr:`timeout`.

        Returns:
            The number of bytes, not of items.

        Raises:
            WriteTimeout: When part of the data had left, the stream is broken; else nothing was sent and the
                call may be repeated.
            ChannelBrokenError: The other side is gone.
            ChannelAbortedError: Aborted, here or by :meth:`close` in another thread.
            ValueError: Closed.
            TypeError: Text, or not a buffer.

        Blocks: While the engine takes no more, until nothing has moved for ``timeout`` seconds.
        Threads: Any number; the bytes of one call stay together.
        """
        if isinstance(data, str):
            raise TypeError("a bytes-like object is required, not 'str'; use makefile('w') for text")
        if timeout is OWN_TIMEOUT:
            # The short way, for what can join others: nothing to wait for, and nothing to let go of.
            size = self._outgoing.join(data)
            if size:
                return size
        view = as_bytes(data)
        try:
            self._enter()
            try:
                size = view.nbytes
                if size:
                    self._send(view, self._timeout if timeout is OWN_TIMEOUT else self._patience(timeout))
                return size
            finally:
                self._leave()
        finally:
            let_go(view)

    def send_message(self, text: str, *, timeout: Optional[float] = OWN_TIMEOUT) -> None:
        """Send one text message, in order with the bytes.

        It does not open a marked stream: a stream of nothing but text that is cut before :meth:`close` is not noticed
        unless :meth:`abort` can still be called.

        Args:
            text: At most 1 MiB as UTF-8.
            timeout: For this call, in the place of :attr:`timeout`.

        Raises:
            TypeError: Not text.
            ValueError: Too long, a lone surrogate, or closed.
            IIISyncError: As :meth:`write`.

        Blocks: Like :meth:`write`.
        Threads: Any number.
        """
        if not isinstance(text, str):
            raise TypeError(f"send_message() takes a str, not {type(text).__name__}; use write() for bytes")
        try:
            encoded = text.encode("utf-8")
        except UnicodeEncodeError as exc:
            raise ValueError(f"a lone surrogate at character {exc.start} cannot be sent as text") from None
        if len(encoded) > frames.MAX_FRAME:
            raise ValueError(
                f"a text message of {len(encoded):,} bytes is above the limit of {frames.MAX_FRAME:,}: official "
                "readers would end there; send it as bytes"
            )
        self._send_frames(frames.encode_frame(frames.TEXT, encoded), timeout)

    @overload
    def makefile(self, mode: Literal["wb", "bw"] = ..., buffering: int = ...) -> ChannelFileWriter: ...
    @overload
    def makefile(
        self,
        mode: Literal["w", "wt", "tw"],
        buffering: int = ...,
        encoding: Optional[str] = ...,
        errors: Optional[str] = ...,
        newline: Optional[str] = ...,
    ) -> ChannelTextWriter: ...
    def makefile(
        self,
        mode: str = "wb",
        buffering: int = -1,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        newline: Optional[str] = None,
    ) -> Any:
        """Return this writer as a buffered binary file (``"wb"``) or as a text file (``"w"``), as ``open()`` does.

        Small writes are collected and sent together. Closing the file ends the stream; leaving its ``with`` on an
        exception, or forgetting it, aborts.

        Args:
            mode: ``"wb"`` or ``"w"``.
            buffering: Bytes to collect; default 64 KiB; 0 returns the writer itself.
            encoding: Of a text file; default UTF-8.
            errors: Of a text file, as in ``open()``.
            newline: Of a text file, as in ``open()``.

        Raises:
            ValueError: A mode or argument that ``open()`` would refuse, or closed.

        Blocks: Never.
        Threads: One at a time.
        """
        file = file_of_writer(self, mode, buffering, encoding, errors, newline)
        if file is not self:
            self._file_made(file.buffer if isinstance(file, ChannelTextWriter) else file)
        return file

    def close(self) -> None:
        """End the stream, so that the reader knows it is complete.

        Sends first what files that :meth:`makefile` made have collected. Connects if nothing was written: an empty
        stream must arrive too. Does nothing when closed already, when nothing was written and the reference was handed
        out (the end is somebody else's then), or in a forked child.

        Raises:
            CloseTimeout: Not confirmed in time; what was written may still arrive.
            ChannelBrokenError: The other side, or the engine, is gone.
            ChannelAbortedError: Another thread was writing: the stream is cut.

        Blocks: Until the engine has confirmed, at most ``close_timeout`` seconds without progress.
        Threads: Any, at any time; a write in another thread is cut, and the stream with it.
        """
        if self._in_other_process():
            self._closed = True
            return
        if not self._closed and not self._others_write():
            try:
                self._flush_files()
            except BaseException:
                self.abort()
                raise
        ours = False
        try:
            with self._state_lock:
                if self._closed:
                    return
                self._outgoing.end()  # before it: a write to what is closed must be refused, also behind Ctrl-C here
                ours = self._closed = True
                busy = self._others_write()
            if self._connection is None and self._handed_out:
                return
            if busy:
                self._fail(ChannelAbortedError("close() was called while another thread was writing"))
            self._raise_failure()
            try:
                self._finish(Deadline(self.close_timeout, silence=True))
            except ChannelBrokenError as exc:
                raise self._explained(exc) from exc.__cause__
        finally:
            if ours:
                if self._connection is not None:
                    self._connection.drop(ChannelAbortedError("closed"))
                self._owner.end_is_over(self)

    def abort(self) -> None:
        """Drop the stream without marking its end: the reader's next read raises.

        Sends the opening mark if nothing was written yet (connecting for that in the background), so that the reader
        sees a cut stream, not silence.

        Blocks: Never.
        Threads: Any, at any time; a write in another thread ends with ``ChannelAbortedError``.
        """
        if self._in_other_process():
            self._closed = True
            return
        error = ChannelAbortedError("the stream was aborted")
        try:
            with self._state_lock:
                if self._closed and (self._connection is None or self._connection.error is not None):
                    return
                self._outgoing.end()  # as in close()
                self._closed = True
            unused = self._connection is None
            self._fail(error)
        except BaseException:
            if self._connection is not None:  # Ctrl-C: nobody would abort it a second time
                self._connection.drop(error, last=self._last_words)
            raise
        if unused:
            self._abort_unused(self._owner.run_soon)
        self._owner.end_is_over(self)

    # --- inside ----------------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        self._outgoing.end()
        super()._fail(error)

    def _check_usable(self) -> None:
        """Refuse to write behind the end of the stream: with the turn nobody can end it meanwhile.

        A write that was under way hears first of what has cut the stream, where :meth:`_enter` says that it is closed.
        """
        if self._closed or self._failure is not None:
            self._raise_failure()
            self._check_open()

    def _enter(self) -> None:
        self._check_process()
        with self._state_lock:
            if self._closed or self._failure is not None:
                self._check_open()
                self._raise_failure()
            self._writing.add(threading.get_ident())

    def _leave(self) -> None:
        with self._state_lock:
            self._writing.discard(threading.get_ident())

    def _others_write(self) -> bool:
        """Whether a thread other than the calling one is inside a write."""
        return bool(self._writing - {threading.get_ident()})

    def _file_made(self, file: ChannelFileWriter) -> None:
        """A buffered file over this writer was made."""
        self._files = [known for known in self._files if known() is not None] + [weakref.ref(file)]

    def _flush_files(self) -> None:
        """Send what files made of this writer have collected: a stream without it must not count as complete."""
        for known in self._files:
            file = known()
            if file is not None and writes_to(file, self):
                file.flush()

    def _send_frames(self, data: bytes, timeout: Optional[float]) -> None:
        """Send whole frames, behind what was written; blocks and raises like :meth:`write`."""
        self._enter()
        try:
            self._send_now(data, self._patience(timeout))
        finally:
            self._leave()

    def _send(self, view: memoryview, timeout: Optional[float]) -> None:
        connection = self._connection or self._connected(self._ending)
        deadline = NO_DEADLINE if timeout is None else Deadline(timeout, silence=True)
        begun: list[bool] = []  # not empty: something of this call may be in the stream
        try:
            connection.in_turn(deadline, self._add, connection, view, deadline, begun)
        except BaseException as exc:
            self._broken(connection, exc, not begun)

    def _add(self, connection: Connection, view: memoryview, deadline: Deadline, begun: list[bool]) -> None:
        """Let ``view`` be sent, with the turn."""
        self._check_usable()
        outgoing, size = self._outgoing, len(view)
        left = False
        for start in range(0, size, frames.MAX_FRAME):
            piece = view[start : start + frames.MAX_FRAME] if size > frames.MAX_FRAME else view
            # A call is never split over two frames without need: so it can time out before it has begun.
            if outgoing.room < len(piece):
                self._make_room(connection, len(piece), deadline)
            begun.append(True)
            if outgoing.add(piece):
                left = not connection.push(deadline)
                outgoing.handed_on()
            else:
                connection.push_later(LATER)
        self._sent += size
        begun.clear()  # all of it is in frames by now, and leaves whatever happens to what follows
        if left:
            connection.linger(deadline)
            outgoing.handed_on()
        outgoing.leave_open()

    def _make_room(self, connection: Connection, size: int, deadline: Deadline) -> None:
        """Wait until ``size`` bytes fit into the growing frame, with the turn."""
        stalled: Optional[Callable[[], None]] = self._stalled
        while self._outgoing.room < size and not connection.push(deadline) and self._outgoing.room < size:
            stalled = connection.wait_writable(deadline, stalled)
        self._outgoing.handed_on()

    def _send_now(self, data: bytes, timeout: Optional[float]) -> None:
        connection = self._connected(self._ending)
        deadline = Deadline(timeout, silence=True)
        begun: list[bool] = []
        try:
            connection.in_turn(deadline, self._send_whole, connection, data, deadline, begun)
        except BaseException as exc:
            # A message that did not leave at all may be sent again.
            self._broken(connection, exc, not begun or (isinstance(exc, TimeoutError) and connection.error is None))

    def _send_whole(self, connection: Connection, data: bytes, deadline: Deadline, begun: list[bool]) -> None:
        """Send ``data``, with the turn."""
        self._check_usable()
        connection.drain(deadline, stalled=self._stalled)
        begun.append(True)
        connection.send(data, deadline, stalled=self._stalled)

    def _broken(self, connection: Connection, exc: BaseException, undisturbed: bool) -> NoReturn:
        """Note what a failed write means for the stream, and raise it."""
        if connection.error is not None and not isinstance(exc, (TimeoutError, KeyboardInterrupt)):
            self._fail(self._explained(as_channel_error(connection.error, "the stream broke")))
        elif not undisturbed:
            self._fail(
                ChannelAbortedError(
                    f"an earlier write was cut in the middle ({type(exc).__name__}): the stream is broken"
                )
            )
        if isinstance(exc, TimeoutError) and not isinstance(exc, IIISyncError):
            raise WriteTimeout(self._timeout_message(connection, exc)) from None
        if isinstance(exc, EngineConnectionError):
            raise as_channel_error(self._failure or exc, "the stream broke") from None
        raise exc

    def _timeout_message(self, connection: Connection, exc: BaseException) -> str:
        text = f"{connection.label}: {exc}"
        if self._failure is not None:
            return f"{text}; part of the data has left, so the stream is broken. {_CURE}"
        return f"{text}; nothing of this call has left. {_CURE}"

    def _stalled(self) -> None:
        if self._complained:
            return
        self._complained = True
        connection = self._connection
        label = connection.label if connection is not None else "a channel"
        _log.warning("%s: a write has been waiting for %g s. %s", label, STALL, _CURE)

    def _finish(self, deadline: Deadline) -> None:
        connection = self._connected(self._ending)
        try:
            connection.in_turn(deadline, self._send_end, connection, deadline)
            self._await_end(connection, deadline)
        except EngineConnectionError as exc:
            raise as_channel_error(self._failure or exc, "the stream was not completed") from None
        except CloseTimeout:
            raise
        except TimeoutError as exc:
            raise CloseTimeout(f"{connection.label}: {exc}; the end of the stream could not be sent") from None

    def _send_end(self, connection: Connection, deadline: Deadline) -> None:
        """Send all that waits, and the end mark with the Close; with the turn."""
        tail: list[bytes] = []
        self._raise_failure()
        connection.drain(deadline, stalled=self._stalled)
        # An empty stream is marked in any case: there is no consumer whom the marks could stop too early.
        if not self._outgoing.opened or (not self._marks and not self._sent):
            tail.append(opening_mark())
        if self._marks or not self._sent:
            tail.append(frames.encode_frame(frames.BINARY))
        tail.append(frames.close_frame(1000))
        connection.sent_close()
        self._outgoing.opened = True
        connection.send(b"".join(tail), deadline, stalled=self._stalled)

    def _await_end(self, connection: Connection, deadline: Deadline) -> None:
        taken = connection.taken()
        ending = self._ending
        while True:
            remaining = deadline.remaining()
            if ending.over.wait(_LOOK if remaining is None else min(_LOOK, remaining)):
                break
            if connection.has_moved(deadline, taken):
                taken = connection.taken()
            elif deadline.expired:
                raise CloseTimeout(
                    f"{connection.label}: the engine has not confirmed the end of the stream for "
                    f"{deadline.timeout:g} s, probably because nobody reads; the rest may still arrive"
                )
        self._raise_failure()
        if ending.error is not None:
            raise as_channel_error(ending.error, "the stream was not completed")
        if ending.close is None or ending.close.code != 1000:
            # An answer to our Close carries its code (PROTOCOL 5.6); this one was not an answer.
            raise ChannelBrokenError(
                f"{connection.label}: the engine ended the stream by itself: this end had been connected "
                "before (it can be, once), or the reader has left; what was written is lost or incomplete"
            )

    def _forgotten(self, text: str) -> None:
        """A file above was collected with data in it: cut the stream and log ``text``. Finalizers may call this."""
        self._fail(ChannelAbortedError("a buffered file was not closed"))
        if self._connection is None:
            # By way of the reader thread: starting another one takes locks, and what was interrupted may hold them.
            self._abort_unused(lambda announce: self._owner.call_soon(lambda: self._owner.run_soon(announce)))
        self._log_soon(text)

    def _abort_unused(self, run: Callable[[Callable[[], None]], None]) -> None:
        """Let the reader see a cut stream where nothing was sent, unless the writer is somebody else's."""
        if self._marks and not self._handed_out:
            run(self._announce_abort)

    def _announce_abort(self) -> None:
        """On a thread of the worker's: connect only to show the reader a stream that was cut."""
        with self._connect_lock:
            if self._connection is not None:
                return  # whoever was connecting meanwhile has shown it
            try:
                self._connection = connection = self._owner.connect_end(
                    self._ref, self._ending, self, Deadline(self._owner.connect_timeout)
                )
            except Exception:
                _log.debug("an aborted stream could not be announced", exc_info=True)
                return
            connection.start()
            connection.drop(ChannelAbortedError("the stream was aborted"), last=opening_mark)
            self._owner.end_is_over(self)

    def _last_words(self) -> bytes:
        return self._outgoing.last_words()


class _Ending:
    """What a writer receives: nothing but the end. Receiver methods are the reader thread's.

    Args:
        outgoing: What the connection is to send.
    """

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self.connection: Optional[Connection] = None
        self.over = Event()
        self.error: Optional[BaseException] = None
        self.close: Optional[frames.CloseReason] = None
        self._buffer = bytearray(512)

    def attached(self, connection: Connection) -> None:
        self.connection = connection
        connection.take_from(self._outgoing)

    def buffer(self) -> bytearray:
        return self._buffer

    def received_binary(self, payloads: list[memoryview], messages: int, size: int, more: bool) -> bool:
        return True  # the engine sends no data on this end; ignore it

    def received(self, pieces: list[frames.Piece], size: int, more: bool) -> bool:
        return True

    def ended(self, error: Optional[BaseException], close: Optional[frames.CloseReason]) -> None:
        self.error, self.close = error, close
        self._outgoing.end()
        self.over.set()


_CURE = "Nobody may be reading: start the reading function first, with submit() or open()"
