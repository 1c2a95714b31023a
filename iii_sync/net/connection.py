"""One WebSocket after its handshake: framing, sending from any thread, receiving on the reader thread.

Who may touch what:

* The descriptor is shut down and closed by the reader thread only.
* Sending needs the *turn*, a lock. Callers wait for it within their deadline and hold it for a whole message
  (or several that belong together), so frames of two senders never mix. The reader thread never waits for
  it: what it has to send (a pong, a Close, an answer) goes to the *outbox*, and whoever gives the turn back
  sends what is in there first. A worker may hold both ends of one channel, so waiting here would deadlock.
* Whatever is being sent is the *rest*: whole frames of which a part may have left. When it is gone the outbox
  follows, then what the *source* has (a stream that is still growing, say). A caller waits until its frames have
  left (:meth:`Connection.send`), or leaves a rest behind (:meth:`Connection.push`), which the reader thread sends
  as the socket drains. All three belong to the holder of the turn.
* Under TLS one thread at a time is inside OpenSSL: waiting happens outside ``_tls_lock``, each call on the
  non-blocking socket inside it. Sending may need to read first, and receiving to write (the peer renegotiates, or
  changes keys): then that is what is waited for.
* ``_error`` is set once, under ``_state_lock``; everybody may read it.
* What may be taken while these locks are held is in :mod:`iii_sync.net.waiting`.

A message of which a part was sent and the rest was not (deadline, Ctrl-C, error) leaves the stream of bytes
unusable: the connection is dropped at once and says why from then on.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time
from collections import deque
from typing import Any, Callable, Optional, Protocol, TypeVar, Union

from ..errors import ConcurrencyError, EngineConnectionError, RemoteProtocolError, fresh
from ..wire import frames
from . import direct
from .attempts import close_copy
from .loop import READ, WRITE, Loop
from .waiting import Deadline, RLock, acquire, wait_for_socket
from .windows import Windows

# Not where it is used: the reader thread must not import, for Ctrl-C amid an import leaves the lock of imports taken.
try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = termios = None  # type: ignore[assignment]

__all__ = ["Connection", "Receiver"]

_log = logging.getLogger("iii_sync.io")

Buffer = Union[bytes, bytearray, memoryview]
T = TypeVar("T")

#: What may wait in the outbox, in bytes of memory. A peer that lets more pile up does not read, and will not
#: get better.
_MAX_OUTBOX = 32 * 1024 * 1024

#: Where the answering of every single ping ends, in bytes of memory of the outbox.
_MAX_PONGS = 1024 * 1024

#: What an entry of the outbox costs besides its bytes.
_ENTRY = 64

#: After how many seconds without progress a blocked sender tells its owner, once.
STALL = 5.0

#: How often one socket is received from before it is the others' turn: asking the selector in between costs as much as
#: the copying of some 100 KiB.
_READS = 4

#: For how many seconds a sender waits for a socket that is full before the reader thread has to send the rest. Waking
#: that thread for each frame of a stream under load costs more.
_MOMENT = 0.005

#: Seconds until a sender whom OpenSSL lets wait for something to receive looks again by itself.
_RETRY = 0.02


class Receiver(Protocol):
    """Takes what a connection receives. Called on the reader thread; must not block."""

    def attached(self, connection: Connection) -> None:
        """The connection this receiver belongs to; called once, before anything is received."""

    def buffer(self) -> bytearray:
        """Return where to receive the next bytes."""
        raise NotImplementedError

    def received_binary(self, payloads: list[memoryview], messages: int, size: int, more: bool) -> bool:
        """Take binary data, views of the first ``size`` bytes of the last buffer.

        Args:
            payloads: Each is a message or the rest of one, but the last may be without its end. None is empty.
            messages: How many of them end a message: all, or all but the last.
            size: How much of the buffer was received.
            more: Whether the buffer holds more, which is still to come.

        Returns:
            Whether to go on; ``False`` pauses the connection until :meth:`Connection.resume`.
        """
        raise NotImplementedError

    def received(self, pieces: list[frames.Piece], size: int, more: bool) -> bool:
        """Take data of any kind, views of the first ``size`` bytes of the last buffer.

        Args:
            pieces: Parts of data messages.
            size: How much of the buffer was received.
            more: Whether the buffer holds more, which is still to come.

        Returns:
            Whether to go on; ``False`` pauses the connection until :meth:`Connection.resume`.
        """
        raise NotImplementedError

    def ended(self, error: Optional[BaseException], close: Optional[frames.CloseReason]) -> None:
        """Nothing more will come.

        Args:
            error: Why the connection broke, or ``None`` when the peer closed it with a Close frame.
            close: What the peer's Close frame said, if there was one.
        """


class Source(Protocol):
    """Frames that are not ready before the socket is. Called with the turn.

    Attributes:
        due: When the frames that are growing must leave, on the clock of :func:`time.monotonic`; ``None`` without any.
            The reader thread looks at it without the turn.
    """

    due: Optional[float]

    def next(self) -> Optional[memoryview]:
        """Return the next whole frames, which stay as they are until this is called again; ``None`` for none."""

    def clear(self) -> None:
        """Let everything go: nothing is sent any more."""


class Connection:
    """One WebSocket.

    Args:
        sock: Connected, non-blocking, right behind the handshake; owned by the connection from here on.
        loop: The reader thread.
        receiver: Takes what arrives.
        label: What to call the connection in messages; must not hold secrets.
    """

    def __init__(self, sock: socket.socket, loop: Loop, receiver: Receiver, label: str) -> None:
        self._sock = sock
        self._loop = loop
        self._receiver = receiver
        self._label = label
        self._parser = frames.FrameParser()
        self._turn = RLock()  # never taken twice; one that knows its holder, see in_turn()
        self._tls_lock = threading.Lock() if hasattr(sock, "pending") else None
        self._state_lock = threading.Lock()
        self._error: Optional[BaseException] = None
        self._rest: Optional[memoryview] = None  # with the turn
        self._source: Optional[Source] = None  # with the turn
        self._outbox: deque[bytes] = deque()  # filled by the reader thread and send_behind(), emptied with the turn
        self._outbox_size = 0  # who fills adds, the turn owner subtracts; both under _state_lock
        self._pong: Optional[bytes] = None  # a frame owed to the latest ping; changed by the reader thread only
        self._paused = False  # reader thread only
        self._want_write = False  # reader thread only: something waits for the socket
        self._read_wants_write = False  # reader thread only: OpenSSL has to send before it can receive
        self._full = False  # reader thread only: the last read has filled its buffer
        self._mark = None if self._tls_lock else loop.low_water.mark(sock, self._read_or_break)  # reader thread only
        self._send_wants_read = False  # with the turn: OpenSSL has to receive before it can send
        self._ended = False  # reader thread only: the receiver was told
        self._asked = False  # the reader thread is to wait for the socket, and does not know yet; as the next one
        self._later = False  # a late push is due; set with the turn or on the reader thread
        self._late = False  # it was due while a sender had the turn, who makes up for it when he gives it back
        self._closed = False  # reader thread only: the descriptor is gone
        self._close_sent = False
        self._reset = False  # reader thread only: end with RST instead of FIN
        receiver.attached(self)
        loop.adopt(self)
        self.last_received: float = time.monotonic()  # written by the reader thread
        self._sent = 0  # bytes that the socket took; with the turn

    def start(self) -> None:
        """Begin to receive. Any thread; does not block."""
        self._loop.call_soon(self._begin)

    # --- any thread ------------------------------------------------------------------------------------

    @property
    def error(self) -> Optional[BaseException]:
        """Why the connection ended, or ``None`` while it lives."""
        return self._error

    @property
    def between_messages(self) -> bool:
        """Whether what was received ended at the end of a message."""
        return self._parser.idle

    @property
    def windows(self) -> Windows:
        """What the streams of the same reader thread are received into."""
        return self._loop.windows

    @property
    def label(self) -> str:
        """What the connection is called in messages."""
        return self._label

    def drop(self, error: BaseException, *, last: Optional[Callable[[], bytes]] = None, reset: bool = False) -> None:
        """End the connection without a goodbye; blocked senders wake up with ``error``.

        Any thread, finalizers too: takes no lock, never blocks.

        Args:
            error: The reason, unless there was one before.
            last: Returns frames to send before, if that is possible without waiting. Called with the turn, or not
                at all when another sender has it: what it is about to send decides what these must be.
            reset: End with RST: the peer notices at once, and what is under way in either direction is lost.
        """

        def end() -> None:
            self._reset = reset
            if last is not None and self._error is None and self._turn.acquire(blocking=False):
                try:
                    with contextlib.suppress(Exception):  # it broke, and _try_send has noted it
                        # What was written leaves if the socket takes it. With a rest under way nothing can be said;
                        # what it cuts in two shows the cut by itself.
                        if self._push():
                            self._source = None
                            self._rest = memoryview(last()) or None
                            self._push()
                    self._set_error(error)  # before the turn is free: nothing may follow
                finally:
                    self._turn.release()
            self.on_broken(error)

        self._loop.call_soon(end)

    def resume(self) -> None:
        """Receive again after a pause. Any thread; does not block."""
        self._loop.call_soon(self._resume)

    def in_turn(self, deadline: Deadline, function: Callable[..., T], *args: Any) -> T:
        """Call ``function(*args)`` with the right to send.

        Blocks until other senders are done, at most until ``deadline``. What still waits afterwards is sent by the
        reader thread as the socket drains.

        Ctrl-C can hit between any two steps and leaves the turn free all the same. Nothing that is noted behind
        ``acquire()`` can be trusted for that, so the lock itself is asked whether this thread has it: in a ``finally``
        around the ``acquire()``, and once more around that, for an interruption that hits inside the first.

        Raises:
            TimeoutError: The turn did not come in time; nothing was sent.
            ConcurrencyError: This thread has the turn already, further up its stack.
            BaseException: What ``function`` raises, what :meth:`drop` was given, or what broke the connection.
        """
        turn = self._turn
        if turn._is_owned():
            raise ConcurrencyError(f"a signal handler or a log handler may not send to {self._label} amid a send to it")
        try:
            try:
                if not turn.acquire(blocking=False):
                    self._wait_for_turn(deadline)
                if self._error is not None:
                    raise fresh(self._error)
                return function(*args)
            finally:
                if turn._is_owned():
                    self._give_turn_back()
        except BaseException:
            if turn._is_owned():
                turn.release()
            self._loop.call_soon(self._after_turn)  # what an interruption kept from being done
            raise

    def _wait_for_turn(self, deadline: Deadline) -> None:
        taken = self.taken()
        while not acquire(self._turn, deadline.remaining()):
            if not self.has_moved(deadline, taken):
                raise TimeoutError(f"another thread was sending to {self._label} for {deadline.timeout:g} s")
            taken = self.taken()

    def has_moved(self, deadline: Deadline, taken: int) -> bool:
        """Whether the peer has more than it had ``taken``; a deadline of silence begins anew then, others do not care.

        Any thread.
        """
        if not deadline.silence or self.taken() <= taken:
            return False
        deadline.progress()
        return True

    def send(
        self,
        data: Buffer,
        deadline: Deadline,
        *,
        stalled: Optional[Callable[[], None]] = None,
        leave: bool = False,
    ) -> bool:
        """Send frames, all of them, behind those that still wait; needs the turn.

        Blocks while the peer does not take them, at most until ``deadline``.

        Args:
            data: Whole frames.
            deadline: Told of every progress.
            stalled: Called once when nothing left for some seconds.
            leave: Whether ``data``, which must not change then, may go on leaving behind ``deadline`` when a part of it
                has left: others who use the connection do not suffer from one who was short of time.

        Returns:
            Whether all of it has left.

        Raises:
            TimeoutError: Nothing left in time. When a part of ``data`` had left, the connection is dropped with it,
                unless that may ``leave``.
            BaseException: What broke the connection, or interrupted the wait.
        """
        # What waits is none of ours: an interruption up to here leaves everything as it is.
        if self._rest is not None or self._outbox or self._source is not None:
            self.drain(deadline, stalled=stalled)
        self._rest = view = memoryview(data)
        try:
            self._push_all(deadline, stalled, rest_only=True)  # nothing behind it: that may fail where this has left
        except BaseException as exc:
            # OpenSSL keeps what it could not send: from then on the record must be finished.
            if self._rest is view and self._tls_lock is None and self._error is None:
                self._rest = None
            elif leave and isinstance(exc, TimeoutError) and self._error is None:
                return False  # the reader thread sends the rest
            elif self._rest is not None:
                self._poison(exc)
            raise
        return True

    def send_behind(self, data: bytes) -> None:
        """Send whole frames behind what waits now, before all that is sent from now on. Any thread; never blocks."""
        with self._state_lock:
            self._outbox_size += len(data) + _ENTRY
        self._outbox.append(data)
        self._loop.call_soon(self._after_turn)

    def drain(self, deadline: Deadline, *, stalled: Optional[Callable[[], None]] = None) -> None:
        """Wait until everything that waits has left; needs the turn. Blocks and raises like :meth:`send`."""
        self._push_all(deadline, stalled, rest_only=False)

    def _push_all(self, deadline: Deadline, stalled: Optional[Callable[[], None]], rest_only: bool) -> None:
        while not self.push(deadline, rest_only=rest_only):
            stalled = self.wait_writable(deadline, stalled)

    def push(self, deadline: Optional[Deadline] = None, *, rest_only: bool = False) -> bool:
        """Send what waits as far as the socket takes it now; needs the turn and does not block.

        Args:
            deadline: Told of every progress.
            rest_only: Leave alone what would follow the rest.

        Returns:
            Whether nothing waits any more.

        Raises:
            BaseException: What broke the connection.
        """
        if self._error is not None:
            raise fresh(self._error)
        try:
            return self._push(deadline, rest_only)
        except Exception:
            raise  # it broke, and _try_send has noted it
        except BaseException as exc:
            self._interrupted(exc)
            raise

    def linger(self, deadline: Deadline) -> None:
        """Give a socket that is full a moment to take what waits; needs the turn.

        Blocks for at most :data:`_MOMENT` seconds and raises like :meth:`push`. What still waits then leaves as the
        socket drains.
        """
        moment = Deadline(_MOMENT if deadline.timeout is None else min(_MOMENT, deadline.timeout))
        while not self._send_wants_read and wait_for_socket(self._sock, moment.remaining(), write=True):
            if self.push(deadline) or moment.expired:
                return

    def push_later(self, delay: float) -> None:
        """Look in ``delay`` seconds whether what the source has is due.

        With the turn, or on the reader thread; does not block.
        """
        if not self._later:
            self._later = True
            self._loop.call_later(delay, self._push_late)

    def take_from(self, source: Source) -> None:
        """Send what ``source`` has whenever nothing else waits. Once, before the first byte."""
        self._source = source

    def wait_writable(self, deadline: Deadline, stalled: Optional[Callable[[], None]]) -> Optional[Callable[[], None]]:
        """Wait until another try to send makes sense; the last one sent nothing. Needs the turn.

        Returns:
            ``stalled`` as long as it has not been called.

        Raises:
            TimeoutError: The deadline passed.
        """
        if deadline.expired:
            raise TimeoutError(f"nothing could be sent for {deadline.timeout:g} s")
        remaining, taken = deadline.remaining(), self.taken()
        if self._send_wants_read:
            # The reader thread may be the one that receives it, and nothing would be left to wait for.
            moment = _RETRY if remaining is None else min(remaining, _RETRY)
            wait_for_socket(self._sock, moment, write=False)
            return stalled
        if stalled is not None and (remaining is None or remaining > STALL):
            if wait_for_socket(self._sock, STALL, write=True):
                return stalled
            stalled()
            remaining = deadline.remaining()
        if not wait_for_socket(self._sock, remaining, write=True) and deadline.expired:
            if not self.has_moved(deadline, taken):
                raise TimeoutError(f"nothing could be sent for {deadline.timeout:g} s")
        return None

    def _give_turn_back(self) -> None:
        """End the turn and see to what still waits. Does not block."""
        while True:
            left = self._rest is not None
            self._turn.release()
            if self._error is not None:
                self._loop.call_soon(self._close_if_over)
                return
            if left:
                # Looked at after the turn is free: the reader thread clears it before it tries to take the turn.
                if not self._want_write and not self._asked:
                    self._asked = True
                    self._loop.call_soon(self._wait_to_push)
                return
            # Look again: the reader thread may have found the turn taken just before it was given back.
            if not (self._outbox or self._late) or not self._turn.acquire(blocking=False):
                if self._pong is not None:
                    self._loop.call_soon(self._send_pong)
                return
            try:
                self._late = False
                self._push()
            except Exception as exc:
                self._push_failed(exc)
            except BaseException as exc:
                self._interrupted(exc)
                raise

    def sent_close(self) -> None:
        """Note that a Close frame was sent: the peer's Close is now an answer."""
        self._close_sent = True

    def taken(self) -> int:
        """Return how many bytes the peer's machine has taken, 0 where that is unknown. Any thread.

        The number grows as long as the peer takes data, however slowly; the socket is writable now and then only. (By
        OpenSSL what is sent has more bytes than what is counted, so it is a few too small there.)
        """
        if fcntl is None or termios is None:
            return 0
        try:
            with self._state_lock:  # the descriptor is closed under this lock
                if self._closed:
                    return self._sent
                answer = fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
            return self._sent - int(struct.unpack("i", answer)[0])
        except (OSError, AttributeError):
            return 0

    def queued(self) -> int:
        """Return how many bytes will have been sent when what waits now has left. On the reader thread."""
        rest = self._rest
        return self._sent + (0 if rest is None else len(rest)) + sum(map(len, list(self._outbox)))

    def forget(self) -> None:
        """Close the descriptor in a forked child; the connection itself is the parent's."""
        close_copy(self._sock)

    # --- sending, with the turn ------------------------------------------------------------------------

    def _poison(self, exc: BaseException) -> None:
        reason = self._error or EngineConnectionError(
            f"a message to {self._label} was cut in the middle ({type(exc).__name__}: {exc})"
        )
        self._set_error(reason)
        self.drop(reason)

    def _interrupted(self, exc: BaseException) -> None:
        """An interruption has hit while sending: how much of the rest has left is unknown."""
        if self._rest is not None or self._source is not None:
            self._poison(exc)

    def _push_failed(self, exc: Exception) -> None:
        """Nobody hears of ``exc``: the connection broke, and _try_send() has noted it, or memory has run out."""
        if self._error is None:
            error = EngineConnectionError(f"{self._label}: what waited could not be sent: {exc!r}")
            self._set_error(error)
            self.drop(error)

    def _push(self, deadline: Optional[Deadline] = None, rest_only: bool = False) -> bool:
        while True:
            rest = self._rest
            if rest is None:
                if rest_only:
                    return True
                if self._outbox:
                    # Taken out last: an interruption may at worst repeat a frame, and not lose one.
                    self._rest = memoryview(self._outbox[0])
                    with self._state_lock:
                        self._outbox_size -= len(self._outbox[0]) + _ENTRY
                    self._outbox.popleft()
                elif self._source is not None:
                    self._rest = self._source.next()
                if self._rest is None:
                    return True
                continue
            count = self._try_send(rest)
            if not count:
                return False
            self._sent += count
            self._rest = rest[count:] if count < len(rest) else None
            if deadline is not None:
                deadline.progress()

    def _try_send(self, view: memoryview) -> int:
        """One send; 0 when the socket is full."""
        try:
            if self._tls_lock is None:
                return direct.send(self._sock, view)
            self._send_wants_read = False
            # Large pieces would keep the reader out for long.
            with self._tls_lock:
                return self._sock.send(view[: 128 * 1024])
        except BlockingIOError:
            return 0
        except OSError as exc:
            if _wants_write(exc):
                return 0
            if _wants_read(exc):
                self._send_wants_read = True
                return 0
            self._loop.call_soon(self._after_failed_send)
            self._set_error(self._as_connection_error(exc))
            assert self._error is not None
            raise fresh(self._error) from exc

    # --- the reader thread -----------------------------------------------------------------------------

    def send_soon(self, data: bytes) -> None:
        """Send whole frames without waiting. On the reader thread only."""
        if self._error is not None:
            return
        with self._state_lock:
            self._outbox_size += len(data) + _ENTRY
            full = self._outbox_size > _MAX_OUTBOX
        if full:
            self.on_broken(EngineConnectionError(f"{self._label} does not read what it is sent"))
            return
        self._outbox.append(data)
        if self._push_soon() and self._want_write:
            self._watch()
        # Else the owner of the turn looks for it when he gives it back.

    def _answer(self, pings: list[frames.Piece]) -> None:
        """Answer pings; while the peer leaves much unread, only the latest one (RFC 6455, 5.5.3)."""
        pongs = [frames.encode_frame(frames.PONG, ping.payload) for ping in pings]
        # Set before looking: who empties the outbox after that look finds it.
        self._pong = pongs[-1]
        if self._outbox_size < _MAX_PONGS:
            self._pong = b"".join(pongs)
            self._send_pong()

    def _send_pong(self) -> None:
        pong, self._pong = self._pong, None
        if pong is not None:
            self.send_soon(pong)

    def _wait_to_push(self) -> None:
        self._asked = False
        if not self._want_write and not self._ended:
            self._want_write = True
            self._watch()

    def on_writable(self) -> None:
        """What waits can go on, or receiving."""
        if self._read_wants_write:
            self._read_wants_write = False
            self.on_readable()
        if self._ended:
            return
        self._want_write = False
        if not self._push_soon():
            # What grows may have been left to this call, and its sender has no reason to look at it again.
            self.push_later(0)
        if not self._outbox:
            self._send_pong()
        self._watch()

    def _push_soon(self) -> bool:
        """Send what waits, unless somebody has the turn."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            self._want_write = False
            if self._error is None and not self._push():
                if self._send_wants_read:
                    # Writable it is already, so the selector would not wait.
                    self._loop.call_later(_RETRY, self._wait_to_push)
                else:
                    self._want_write = True
        except Exception as exc:
            self._push_failed(exc)
        finally:
            self._turn.release()
        return True

    def _after_turn(self) -> None:
        """See to everything that the holder of the turn sees to when he gives it back."""
        self._asked = False
        self._close_if_over()
        if not self._ended and self._push_soon():
            self._send_pong()
            self._watch()

    def _push_late(self) -> None:
        self._later = False
        # Looked at after that: what begins to grow now is seen here, or has this called again.
        due = None if self._source is None else self._source.due
        if due is None or self._want_write or self._error is not None:
            return  # nothing grows; or it leaves when the socket has drained, or never
        remaining = due - time.monotonic()
        if remaining > 0:
            self.push_later(remaining)  # what this was meant for has left since
            return
        if not self._push_soon():
            # Its owner does not look for what the source has when he gives it back, unless he is told.
            self._late = True
            if not self._push_soon():
                return
            self._late = False
        if self._want_write:
            self._watch()

    def _begin(self) -> None:
        self._watch()
        # The bytes behind the handshake may have come in its last TLS record: the selector cannot see them.
        self._read_or_break()

    def _watch(self) -> None:
        if self._closed:
            return
        if self._ended:
            self._loop.unwatch(self._sock, self)
            return
        events = WRITE if self._want_write or self._read_wants_write else 0
        if not self._paused and not self._read_wants_write:
            events |= READ
        self._loop.watch(self._sock, self, events)

    def _pause(self) -> None:
        if not self._ended:
            self._paused = True
            self._watch()

    def _resume(self) -> None:
        if self._paused and not self._ended:
            self._paused = False
            # OpenSSL may hold bytes that the selector cannot see: read before waiting.
            self._read_or_break()
            self._watch()

    def _read_or_break(self) -> None:
        try:
            self.on_readable()
        except Exception as exc:
            self.on_broken(exc)

    def _after_failed_send(self) -> None:
        """Read what the peer had to say before it went: often the reason."""
        for _ in range(64):
            if not self._receive():
                break
        self._close_if_over()

    def on_readable(self) -> None:
        """Receive as much as the receiver's buffer takes, and again while that is filled: more is there."""
        total = 0
        for _ in range(_READS):
            total += self._receive()
            if not self._full:
                break
        if self._mark is not None:
            if total:
                self._mark.received(total, self._parser.left, self._full, self.last_received)
        elif self._tls_lock is not None:
            # A full buffer may have left the rest of a TLS record inside OpenSSL: no more than that is read now.
            while self._inside_openssl() and self._receive(self._inside_openssl()):
                pass

    def _inside_openssl(self) -> int:
        """How many bytes the selector cannot see."""
        if self._tls_lock is None or self._ended or self._paused:
            return 0
        with self._tls_lock:
            return int(self._sock.pending())  # type: ignore[attr-defined]

    def _receive(self, at_most: Optional[int] = None) -> int:
        """Receive once and hand it on; returns how many bytes."""
        self._full = False
        if self._ended or self._paused:
            return 0
        buffer = self._receiver.buffer()
        failure: Optional[OSError] = None
        if self._tls_lock is not None:
            size, over, failure = self._fill(self._tls_lock, memoryview(buffer)[:at_most])
        else:
            try:
                size = direct.recv_into(self._sock, buffer)
                over = not size
            except BlockingIOError:
                return 0
            except OSError as exc:
                size, over, failure = 0, False, exc
        if size:
            self.last_received = time.monotonic()
            self._full = size == len(buffer)
            self._parse(buffer, size)
        if failure is not None and not self._ended:
            self._end(self._as_connection_error(failure))
        elif over and not self._ended:
            self._end(EngineConnectionError(f"{self._label} ended without a Close"))
        return size

    def _parse(self, buffer: bytearray, size: int) -> None:
        """Hand on what the first ``size`` bytes are, of ``buffer``."""
        parser, receiver, position = self._parser, self._receiver, 0
        try:
            while position < size:
                payloads, messages, position = parser.feed_binary(buffer, position, size)
                if not payloads:
                    break
                if not receiver.received_binary(payloads, messages, size, position < size):
                    self._pause()
            while position < size and not self._ended:
                pieces, used = parser.feed(memoryview(buffer)[position:size])
                position += used
                self._handle(pieces, size, position < size)
        except frames.FrameError as exc:
            self._refuse(exc)
        except Exception as exc:
            _log.error("%s sent what could not be handled", self._label, exc_info=True)
            self._end(EngineConnectionError(f"{self._label} sent what could not be handled: {exc!r}"))

    def _fill(self, lock: threading.Lock, view: memoryview) -> tuple[int, bool, Optional[OSError]]:
        """Receive by OpenSSL; returns the size, whether the stream is over, and the error that ended it."""
        size = 0
        try:
            while size < len(view):
                # A TLS read gives one record; what OpenSSL still holds must not wait for the selector.
                with lock:
                    count = self._sock.recv_into(view[size:])
                if not count:
                    return size, True, None
                size += count
        except BlockingIOError:
            pass
        except OSError as exc:
            if _wants_write(exc):
                self._read_wants_write = True
                self._watch()
            elif not _wants_read(exc):
                return size, False, exc
        return size, False, None

    def _handle(self, pieces: list[frames.Piece], size: int, more: bool) -> None:
        data = pieces
        if self._parser.control:
            data = [piece for piece in pieces if piece.opcode <= frames.BINARY]
            pings = [piece for piece in pieces if piece.opcode == frames.PING]
            if pings:
                self._answer(pings)
        if data and not self._ended and not self._receiver.received(data, size, more):
            self._pause()
        if self._parser.closed:
            close = frames.parse_close(pieces[-1].payload)
            if not self._close_sent:
                # The code goes back as it came; an answer without one to a Close without one.
                self.send_soon(frames.close_frame(close.code))
            self._end(None, close)
        elif self._parser.error is not None:
            self._refuse(self._parser.error)

    def _refuse(self, violation: frames.FrameError) -> None:
        self.send_soon(frames.close_frame(violation.code, str(violation)))
        self._end(RemoteProtocolError(f"{self._label} broke the protocol: {violation}", violation.code))

    def _end(self, error: Optional[BaseException], close: Optional[frames.CloseReason] = None) -> None:
        """Nothing more is received; tell the receiver and let the descriptor go."""
        if self._ended:
            return
        self._ended = True
        said = f" with the code {close.code}" if close is not None and close.code is not None else ""
        self._set_error(error or EngineConnectionError(f"{self._label} was closed by the peer{said}"))
        self._loop.watch(self._sock, self, 0)
        try:
            self._receiver.ended(error, close)
        finally:
            self._close_if_over()

    def on_broken(self, error: BaseException) -> None:
        """Drop the connection."""
        self._set_error(error)
        self._end(self._error)

    def _set_error(self, error: BaseException) -> None:
        with self._state_lock:
            if self._error is None:
                self._error = error

    def _close_if_over(self) -> None:
        """Close the descriptor once nobody is inside it."""
        if self._closed or self._error is None:
            return
        if not self._ended:
            self._end(self._error)
            return
        # Wakes a sender that waits for the socket. Not SSLSocket.shutdown(): that one forgets its TLS state.
        with contextlib.suppress(OSError):
            if self._reset:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        if not self._turn.acquire(blocking=False):
            if self._reset:
                # SO_LINGER works at close(), which has to wait for the sender: wake it.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
            return  # its owner calls this again
        try:
            with self._state_lock:
                self._closed = True
                self._loop.unwatch(self._sock, self)
                self._sock.close()
            self._rest = None  # may be large, and what refers to the connection may live on for a while
            self._mark = None
            if self._source is not None:
                self._source.clear()
        finally:
            self._turn.release()

    def _as_connection_error(self, exc: OSError) -> EngineConnectionError:
        return EngineConnectionError(f"{self._label}: {exc}")


def _wants_read(exc: OSError) -> bool:
    """Whether OpenSSL must receive first (``ssl`` may not be loaded, so its classes go by name)."""
    return type(exc).__name__ == "SSLWantReadError"


def _wants_write(exc: OSError) -> bool:
    """Whether OpenSSL must send first."""
    return type(exc).__name__ == "SSLWantWriteError"
