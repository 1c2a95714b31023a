"""The first steps of a connection, all under one deadline: TCP, and blocking exchanges on the new socket."""

from __future__ import annotations

import socket
from typing import Any, Optional

from .attempts import Attempts
from .waiting import Deadline

__all__ = ["AnswerTooLarge", "DeadlineSocket", "dial", "step"]


class AnswerTooLarge(ValueError):
    """A peer said more than any handshake has to say."""


def dial(host: str, port: int, deadline: Deadline, attempts: Attempts) -> socket.socket:
    """Connect to the first address of ``host`` that answers.

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
            sock.settimeout(step(deadline))
            sock.connect(target)
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


def step(deadline: Deadline) -> Optional[float]:
    """The time left for a blocking step; ``settimeout(0)`` would mean "do not block" instead."""
    remaining = deadline.remaining()
    if remaining is not None and remaining <= 0:
        raise TimeoutError("timed out")
    return remaining


class DeadlineSocket:
    """What a handshake is made on: every call gets what is left of the one deadline, and of one size."""

    MAX_ANSWER = 64 * 1024

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._left = self.MAX_ANSWER

    def recv(self, size: int) -> bytes:
        self._sock.settimeout(step(self._deadline))
        data = self._sock.recv(size)
        self._left -= len(data)
        if self._left < 0:
            raise AnswerTooLarge(f"the answer is larger than {self.MAX_ANSWER} bytes")
        return data

    def send(self, data: bytes) -> int:
        """Send all of it."""
        view = memoryview(data)
        while view:
            # Not sendall(): under TLS that counts its time anew for every record.
            self._sock.settimeout(step(self._deadline))
            view = view[self._sock.send(view) :]
        return len(data)

    def gettimeout(self) -> Optional[float]:
        return self._deadline.remaining()

    def close(self) -> None:
        """The owner closes it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
