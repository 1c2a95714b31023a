"""The first steps of a connection, all under one deadline: TCP, and blocking exchanges on the new socket.

Sockets are non-blocking from the beginning, and waited for with :func:`.wait_for_socket`: inside the socket module the
main thread would hear of signals only when the wait is over.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Callable, Optional, TypeVar

from ..errors import WorkerClosedError
from .attempts import Attempts
from .waiting import Deadline, wait_for_socket

__all__ = ["AnswerTooLarge", "DeadlineSocket", "dial", "step"]


T = TypeVar("T")

#: What a connection that is being made looks like.
_UNDER_WAY = (errno.EINPROGRESS, errno.EWOULDBLOCK)


class AnswerTooLarge(ValueError):
    """A peer said more than any handshake has to say."""


def dial(host: str, port: int, deadline: Deadline, attempts: Attempts) -> socket.socket:
    """Connect to the first address of ``host`` that answers, and return the socket, non-blocking.

    Blocks until then, at most until ``deadline``; looking up the name has the system's own limits.

    Raises:
        OSError: None answers.
        WorkerClosedError: Nothing is to be connected any more.
    """
    failure: Optional[OSError] = None
    # Given text, Python loads its tables of Unicode first: a megabyte, and as many milliseconds as a connection takes.
    name = host.encode("ascii") if host.isascii() else host
    for family, kind, protocol, _, target in socket.getaddrinfo(name, port, 0, socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            attempts.add(sock)
            _connect(sock, target, deadline, attempts)
            return sock
        except OSError as exc:
            attempts.close(sock)
            failure = exc
            if deadline.expired:
                break
        except BaseException:
            attempts.close(sock)
            raise
    raise failure or OSError("the name has no address")


def _connect(sock: socket.socket, target: Any, deadline: Deadline, attempts: Attempts) -> None:
    step(deadline)
    sock.setblocking(False)
    error = sock.connect_ex(target)
    if attempts.stopped:  # perhaps before there was anything to be woken
        raise WorkerClosedError("the worker was shut down")
    if error in _UNDER_WAY:
        if not wait_for_socket(sock, step(deadline), write=True):
            raise TimeoutError("timed out")
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


def step(deadline: Deadline) -> Optional[float]:
    """Return the time left for a step that waits; raise ``TimeoutError`` when there is none."""
    remaining = deadline.remaining()
    if remaining is not None and remaining <= 0:
        raise TimeoutError("timed out")
    return remaining


class DeadlineSocket:
    """What a handshake is made on: every call gets what is left of the one deadline, and of one size.

    Args:
        sock: Connected; non-blocking from here on.
        deadline: For all calls together.
    """

    MAX_ANSWER = 64 * 1024

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._deadline = deadline
        self._left = self.MAX_ANSWER

    def recv(self, size: int) -> bytes:
        data = self._patiently(self._sock.recv, size, write=False)
        self._left -= len(data)
        if self._left < 0:
            raise AnswerTooLarge(f"the answer is larger than {self.MAX_ANSWER} bytes")
        return data

    def send(self, data: bytes) -> int:
        """Send all of it."""
        view = memoryview(data)
        while view:
            view = view[self._patiently(self._sock.send, view, write=True) :]
        return len(data)

    def _patiently(self, function: Callable[[Any], T], argument: Any, *, write: bool) -> T:
        """Call a function of the socket, again whenever that is ready, until it has done something."""
        while True:
            remaining = step(self._deadline)
            try:
                return function(argument)
            except BlockingIOError:
                wants_write = write
            except OSError as exc:
                # OpenSSL may have to do the one before it can do the other; ``ssl`` may not be loaded.
                wants_write = type(exc).__name__ == "SSLWantWriteError"
                if not wants_write and type(exc).__name__ != "SSLWantReadError":
                    raise
            wait_for_socket(self._sock, remaining, write=wants_write)

    def gettimeout(self) -> Optional[float]:
        return self._deadline.remaining()

    def close(self) -> None:
        """The owner closes it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
