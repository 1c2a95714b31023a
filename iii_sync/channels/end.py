"""What both ends of a channel share: the reference, the one connection of its life, and being a file."""

from __future__ import annotations

import io
import os
import threading
import warnings
from types import TracebackType
from typing import Any, NoReturn, Optional, Protocol

from ..errors import (
    ChannelAbortedError,
    ChannelBrokenError,
    ChannelError,
    EngineConnectionError,
    ForkedWorkerError,
    fresh,
)
from ..net.connection import Connection, Receiver
from ..wire import messages
from .refs import StreamChannelRef

__all__ = ["End", "Owner"]


class Owner(Protocol):
    """What an end needs of its worker."""

    def connect_end(self, ref: StreamChannelRef, receiver: Receiver, end: End) -> Connection:
        """Connect the end that ``ref`` names; once in its life."""

    def run_soon(self, function: Any) -> None:
        """Run ``function`` on a thread of the worker's."""

    def end_is_over(self, end: End) -> None:
        """The end will not be used any more."""


class End(io.RawIOBase):
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
        self._handed_out = False
        self._failure: Optional[BaseException] = None  # why the end is unusable; set once
        self._state_lock = threading.Lock()  # guards the flags and counts of the subclasses; never held in a wait
        self._connect_lock = threading.Lock()  # held while connecting, at most connect_timeout
        self._timeout: Optional[float] = None
        self.timeout = timeout

    @property
    def timeout(self) -> Optional[float]:
        """Seconds of silence that a blocking call tolerates; ``None``, the default, waits for ever."""
        return self._timeout

    @timeout.setter
    def timeout(self, value: Optional[float]) -> None:
        if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0):
            raise ValueError(f"timeout={value!r} must be a number of seconds, 0 or more, or None for no limit")
        self._timeout = value

    @property
    def channel_id(self) -> str:
        """The channel's id."""
        return self._ref.channel_id

    @property
    def closed(self) -> bool:
        """Whether this side has closed or aborted the end."""
        return self._closed

    def isatty(self) -> bool:
        """``False``: a channel is no terminal."""
        self._check_open()
        return False

    def seekable(self) -> bool:
        """``False``: a stream goes one way."""
        self._check_open()
        return False

    def fileno(self) -> int:
        """Raise ``io.UnsupportedOperation``: there is a socket, but its bytes are frames."""
        self._check_open()
        raise io.UnsupportedOperation(
            "a channel end has no file descriptor of its own; copy it with shutil.copyfileobj instead"
        )

    def flush(self) -> None:
        """Do nothing: what ``write`` has returned from is on its way."""
        self._check_open()

    def __enter__(self: Any) -> Any:
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
        """Leave at once; never waits."""
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
        connection.drop(ChannelAbortedError(f"{connection.label} was not closed"), last=self._last_words())
        warnings.warn(f"{self!r} was not closed: its stream was cut", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        if self._closed:
            state = "closed"
        elif self._failure is not None:
            state = "broken"
        else:
            state = "new" if self._connection is None else "open"
        return f"<iii_sync.{type(self).__name__} {self._ref.channel_id} {state}>"

    def _last_words(self) -> bytes:
        """What to send before an abort."""
        return b""

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise ForkedWorkerError(
                "this channel end belongs to the parent process; open the reference with a worker made here"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("I/O operation on closed file")

    def _connected(self, receiver: Receiver) -> Connection:
        """Return the connection; make it first if this is the first use.

        Blocks while connecting, at most ``connect_timeout``.
        """
        if self._connection is None:
            with self._connect_lock:
                if self._connection is None:
                    self._raise_failure()
                    connection = self._owner.connect_end(self._ref, receiver, self)
                    self._connection = connection
                    connection.start()
                    if self._failure is not None:
                        # close() or abort() came while we were connecting.
                        connection.drop(self._failure)
                        self._raise_failure()
        return self._connection

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise fresh(self._failure)

    def _fail(self, error: BaseException) -> None:
        """Make the end unusable because of ``error`` and wake whoever is blocked in it. Any thread."""
        with self._state_lock:
            if self._failure is None:
                self._failure = error
        if self._connection is not None:
            self._connection.drop(error, last=self._last_words())

    def _peer_failed(self, error: BaseException) -> None:
        """The call that carried the other end has failed: nobody will use it. On the reader thread."""
        if not self._closed:
            self._fail(error)

    def _pass_on(self) -> dict[str, str]:
        """Return the reference for a payload; from then on the end is somebody else's."""
        self._check_process()
        if self._connection is not None or self._closed:
            raise messages.InvalidValue(
                f"{self!r} has been used here and cannot be passed on: pass an end that nobody has used"
            )
        self._handed_out = True
        return self._ref._plain()

    def _is_idle(self) -> bool:
        """Whether the end was never used."""
        return self._connection is None and not self._closed


def as_channel_error(error: BaseException, what: str) -> BaseException:
    """Return what to raise in the consumer when the connection ended with ``error``."""
    if isinstance(error, ChannelError) or not isinstance(error, EngineConnectionError):
        return fresh(error)
    broken = ChannelBrokenError(f"{what}: {error}")
    broken.__cause__ = error
    return broken
