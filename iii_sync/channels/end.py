"""What both ends of a channel share: the reference, the one connection of its life, and being a file."""

from __future__ import annotations

import io
import logging
import os
import threading
import warnings
from concurrent.futures import CancelledError
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Optional, Protocol

from ..calls import Call
from ..errors import (
    CallTimeout,
    ChannelAbortedError,
    ChannelBrokenError,
    ChannelError,
    ConcurrencyError,
    ConnectionLostError,
    ConnectTimeout,
    EngineConnectionError,
    ForkedWorkerError,
    InvalidPayloadError,
    InvocationError,
    brief,
    fresh,
)
from ..net.connection import Connection, Receiver
from ..net.waiting import Deadline, RLock, acquire
from .refs import StreamChannelRef

if TYPE_CHECKING:
    from typing import BinaryIO

    from typing_extensions import Self

    # To type checkers an IO[bytes] too, as io.FileIO and io.BytesIO are: many functions ask for one.
    class _RawFile(io.RawIOBase, BinaryIO):  # pyright: ignore[reportIncompatibleMethodOverride]
        name: Any  # there is none, as in io.BytesIO

        def read(self, size: int = -1, /) -> bytes: ...
else:
    _RawFile = io.RawIOBase

__all__ = [
    "OWN_TIMEOUT",
    "End",
    "EndReceiver",
    "Owner",
    "as_bytes",
    "as_channel_error",
    "as_target",
    "foreign",
    "let_go",
]

_log = logging.getLogger("iii_sync.channel")

#: The default of the ``timeout`` of single calls: the end's own ``timeout``.
OWN_TIMEOUT: Any = type("_OwnTimeout", (), {"__repr__": lambda self: "<the end's timeout>"})()

#: How long a broken stream waits for the answer of the function at its other end.
_GRACE = 1.0


class EndReceiver(Receiver, Protocol):
    """What receives for an end.

    Attributes:
        connection: What it was attached to, if it was.
    """

    connection: Optional[Connection]


class Owner(Protocol):
    """What an end needs of its worker."""

    @property
    def connect_timeout(self) -> Optional[float]:
        """Seconds that connecting may take."""

    def connect_end(self, ref: StreamChannelRef, receiver: EndReceiver, end: End, deadline: Deadline) -> Connection:
        """Connect the end that ``ref`` names; once in its life."""
        raise NotImplementedError

    def run_soon(self, function: Any) -> None:
        """Run ``function`` on a thread of the worker's."""

    def call_soon(self, function: Any) -> None:
        """Call ``function``, which must not block, on the reader thread. Finalizers may call this."""

    def is_alone(self, end: End) -> bool:
        """Whether the other end of the channel is here too, unused, and not handed out."""
        raise NotImplementedError

    def end_is_over(self, end: End) -> None:
        """The end will not be used any more."""


class End(_RawFile):
    """One end of a channel. See the subclasses."""

    #: ``"read"`` or ``"write"``.
    direction: str = ""

    def __init__(self, owner: Owner, ref: StreamChannelRef, timeout: Optional[float]) -> None:
        # First of all what __del__ needs: it runs even when __init__ fails.
        self._pid = os.getpid()
        self._connection: Optional[Connection] = None
        self._closed = False
        super().__init__()
        self._owner = owner
        self._ref = ref
        self._handed_out = 0  # how often the reference went to somebody; a call that was refused takes one back
        self._failure: Optional[BaseException] = None  # why the end is unusable; set once
        self._partner: Optional[Call] = None  # the call that carried the other end of the channel
        # Guards the flags and counts of the subclasses; never held in a wait. The collector may run a finalizer that
        # takes it on a thread that has it.
        self._state_lock = threading.RLock()
        self._connect_lock = RLock()  # held while connecting, at most connect_timeout
        self._timeout: Optional[float] = None
        self.timeout = timeout

    @property
    def timeout(self) -> Optional[float]:
        """Seconds of silence that a blocking call tolerates; ``None``, the default, waits for ever."""
        return self._timeout

    @timeout.setter
    def timeout(self, value: Optional[float]) -> None:
        self._timeout = self._patience(value)

    def _patience(self, timeout: Optional[float]) -> Optional[float]:
        """Return the seconds that one call tolerates: what it was given, else what the end is set to."""
        if timeout is OWN_TIMEOUT:
            return self._timeout
        number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        if timeout is not None and not (number and timeout >= 0):  # NaN is not
            raise ValueError(f"timeout={timeout!r} must be a number of seconds, 0 or more, or None for no limit")
        return None if timeout is not None and timeout > threading.TIMEOUT_MAX else timeout

    @classmethod
    def _json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of what names such an end in a payload (PROTOCOL 5.1)."""
        text = {"type": "string"}
        properties = {"channel_id": text, "access_key": text, "direction": {"const": cls.direction}}
        return {"type": "object", "properties": properties, "required": list(properties)}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        """Let a pydantic model have ends among its fields: taken as they are, told of as their reference."""
        dumped = {"type": "function-plain", "function": lambda end: end._pass_on()}
        return {"type": "is-instance", "cls": cls, "serialization": dumped}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return cls._json_schema()

    @property
    def channel_id(self) -> str:
        """The channel's id."""
        return self._ref.channel_id

    @property
    def mode(self) -> str:
        """``"rb"`` or ``"wb"``, as files have it: ``gzip`` and others look at it."""
        return "rb" if self.direction == "read" else "wb"

    @property
    def closed(self) -> bool:
        """Whether this side has closed or aborted the end."""
        return self._closed

    def isatty(self) -> bool:
        """Return ``False``: a channel is no terminal.

        Raises:
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        self._check_open()
        return False

    def seekable(self) -> bool:
        """Return ``False``: a stream goes one way.

        Raises:
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        self._check_open()
        return False

    def fileno(self) -> int:
        """Refuse: there is a socket, but its bytes are frames.

        Raises:
            io.UnsupportedOperation: Always, unless it is closed.
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        self._check_open()
        raise io.UnsupportedOperation(
            "a channel end has no file descriptor of its own: copy it with shutil.copyfileobj, or read spool()"
        )

    def flush(self) -> None:
        """Do nothing: what ``write`` has returned from is on its way.

        Raises:
            ValueError: Closed.

        Blocks: Never.
        Threads: Any.
        """
        self._check_open()

    def __enter__(self) -> Self:
        self._check_open()
        return self

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

    def abort(self) -> None:
        """Leave at once.

        Blocks: Never.
        Threads: Any, at any time.
        """
        raise NotImplementedError

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} is a live connection and cannot be pickled or copied; pass its "
            f"reference: channel.{'reader_ref' if self.direction == 'read' else 'writer_ref'}"
        )

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        self.__reduce__()

    def __del__(self) -> None:
        # Runs on whatever thread collects it: no lock, no wait, no send.
        connection = self._connection
        if connection is None or self._closed or self._pid != os.getpid() or connection.error is not None:
            return
        if self._failure is not None:
            return  # it is being dropped already, and that was told
        words = self._last_words()  # now: the end itself must not live on
        text = f"{self!r} was not closed: its stream was cut"
        try:
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
        finally:  # the warning may be an error
            connection.drop(ChannelAbortedError(f"{connection.label} was not closed"), last=lambda: words)
            self._log_soon(text)

    def _log_soon(self, text: str) -> None:
        """Log what a finalizer has to say, for a ``ResourceWarning`` is hidden as a rule. Finalizers may call it."""
        # Not on this thread: logging takes locks, and what the garbage collector has interrupted may hold them.
        self._owner.call_soon(lambda: _log.warning("%s; use it in a with block, or close it", text))

    def __repr__(self) -> str:
        if self._closed:
            state = "closed"
        elif self._failure is not None:
            state = "broken"
        else:
            state = "new" if self._connection is None else "open"
        return f"<iii_sync.{type(self).__name__} {brief(self._ref.channel_id)} {state}>"

    def _last_words(self) -> bytes:
        """What to send before an abort; called with the turn, by the reader thread."""
        return b""

    def _in_other_process(self) -> bool:
        """Whether this is a forked copy. To be asked before a lock is taken, for its holder is not in the copy."""
        return self._pid != os.getpid()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise foreign()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("I/O operation on closed file")

    def _connected(self, receiver: EndReceiver) -> Connection:
        """Return the connection; make it first if this is the first use.

        Blocks while this thread or another one is connecting, at most ``connect_timeout``.
        """
        if self._connection is None:
            self._connect(receiver, Deadline(self._owner.connect_timeout))
            assert self._connection is not None
        return self._connection

    def _connect(self, receiver: EndReceiver, deadline: Deadline) -> None:
        lock = self._connect_lock
        if lock._is_owned():
            raise ConcurrencyError(f"a signal handler may not use channel {self.channel_id} amid the connecting of it")
        # As in Connection.in_turn(): Ctrl-C can hit between any two steps.
        try:
            try:
                if not acquire(lock, deadline.remaining()):
                    raise ConnectTimeout(
                        f"another thread was connecting channel {self.channel_id} for {deadline.timeout:g} s"
                    )
                if self._connection is None:
                    self._connect_once(receiver, deadline)
            finally:
                if lock._is_owned():
                    lock.release()
        except BaseException:
            if lock._is_owned():
                lock.release()
            raise

    def _connect_once(self, receiver: EndReceiver, deadline: Deadline) -> None:
        self._raise_failure()
        try:
            self._connection = self._owner.connect_end(self._ref, receiver, self, deadline)
            self._connection.start()
        except BaseException:
            made = receiver.connection
            if made is not None:
                # Ctrl-C: the engine takes it for connected, so the other side must hear that it is gone.
                self._connection = made
                made.start()
                error = ChannelAbortedError(f"channel {self.channel_id}: connecting it was interrupted")
                if self._failure is None:
                    self._failure = error
                made.drop(error, last=self._last_words, reset=self.direction == "read")
                self._owner.end_is_over(self)
            raise
        if self._failure is not None:
            # close() or abort() came while we were connecting.
            self._connection.drop(self._failure, last=self._last_words)
            self._owner.end_is_over(self)
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise fresh(self._failure)

    def _fail(self, error: BaseException) -> None:
        """Make the end unusable because of ``error`` and wake whoever is blocked in it. Any thread."""
        with self._state_lock:
            if self._failure is None:
                self._failure = error
        if self._connection is not None:
            self._connection.drop(error, last=self._last_words)

    def _peer_failed(self, error: BaseException) -> None:
        """The call that carried the other end has failed: nobody will use it. On the reader thread."""
        # When only the control connection was lost the function may well go on, and so may its stream.
        if not self._closed and not isinstance(error, ConnectionLostError):
            self._fail(error)

    def _explained(self, error: BaseException) -> BaseException:
        """Return what to raise for a broken stream: the error of the function at its other end, if it failed.

        The stream of a function that fails often breaks before its answer arrives. Blocks for that answer, at
        most :data:`_GRACE` seconds and once.
        """
        call, self._partner = self._partner, None
        if call is None or isinstance(error, ChannelAbortedError) or not isinstance(error, ChannelError):
            return error
        try:
            failure = call.exception(_GRACE)
        except (CallTimeout, CancelledError):
            return error
        if not isinstance(failure, InvocationError):
            return error
        explained = fresh(failure)
        explained.__cause__ = error
        return explained

    def _pass_on(self) -> dict[str, str]:
        """Return the reference for a payload; from then on the end is somebody else's."""
        self._check_process()
        if self._connection is not None or self._closed:
            raise InvalidPayloadError(
                f"{self!r} has been used here and cannot be passed on: pass an end that nobody has used"
            )
        self._handed_out += 1
        return self._ref._plain()

    def _is_idle(self) -> bool:
        """Whether the end was never used."""
        return self._connection is None and not self._closed


def as_bytes(data: Any) -> memoryview:
    """Return the bytes of a buffer of any format and shape; to be :func:`let_go` of.

    Raises:
        BufferError: It is not C-contiguous.
        TypeError: It is not a buffer.
    """
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("a contiguous buffer is required; copy it first, for instance with bytes(data)")
    if view.ndim == 1 and view.format == "B":
        return view
    # A view with a zero in its shape cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(bytearray())


def as_target(buffer: Any) -> memoryview:
    """Return the bytes of a buffer to read into; like :func:`as_bytes`, and a ``TypeError`` for one that is not fit."""
    view = memoryview(buffer)
    if view.readonly or not view.c_contiguous:
        raise TypeError("readinto() needs a writable and contiguous buffer")
    return as_bytes(view)


def let_go(view: memoryview) -> None:
    """Release a view: a traceback may hold it, and its owner could not be resized until then."""
    try:
        view.release()
    except BufferError:
        pass


def foreign() -> ForkedWorkerError:
    """Return what to raise in a forked child."""
    return ForkedWorkerError(
        "this channel end belongs to the parent process; open the reference with a worker made here"
    )


def as_channel_error(error: BaseException, what: str) -> BaseException:
    """Return what to raise in the consumer when the connection ended with ``error``."""
    if isinstance(error, ChannelError) or not isinstance(error, EngineConnectionError):
        return fresh(error)
    broken = ChannelBrokenError(f"{what}: {error}")
    broken.__cause__ = error
    return broken
