"""The sockets on their way to a connection: from ``socket()`` to the end of the handshake nobody else knows them."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref

from ..errors import WorkerClosedError

__all__ = ["Attempts", "close_copy"]

#: Every socket that was made, for as long as it lives.
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()


class Attempts:
    """The sockets that threads of one worker are connecting, so that its end can end their waits.

    Any thread. ``_lock`` guards the set and is a leaf. A socket is taken out before it is closed: its number may be
    somebody else's from then on.

    Attributes:
        stopped: Whether nothing is to be connected any more.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._under_way: set[socket.socket] = set()
        self.stopped: bool = False

    def add(self, sock: socket.socket) -> None:
        """Take in a new socket; forked children close their copy of it.

        Raises:
            WorkerClosedError: Nothing is to be connected any more.
        """
        _sockets.add(sock)
        with self._lock:
            if not self.stopped:
                self._under_way.add(sock)
                return
        raise WorkerClosedError("the worker was shut down")

    def let_go(self, sock: socket.socket) -> None:
        """The socket is connected, or is another one from now on."""
        with self._lock:
            self._under_way.discard(sock)

    def close(self, sock: socket.socket) -> None:
        """Close a socket that will not be connected."""
        self.let_go(sock)
        sock.close()

    def stop(self) -> None:
        """Wake whoever waits for a socket, with an error; may be called again. A name being looked up wakes nobody."""
        with self._lock:
            self.stopped = True
            for sock in self._under_way:
                # Not SSLSocket.shutdown(): that one takes its TLS state away from the thread inside it.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


def close_copy(sock: socket.socket) -> None:
    """In a forked child: close the copy of a descriptor, and only that. A connection ends when the parent ends it.

    Does nothing the second time: whoever owns the socket by now may have closed its copy as well.
    """
    with contextlib.suppress(OSError):
        descriptor = sock.detach()
        if descriptor >= 0:
            os.close(descriptor)


def _close_after_fork() -> None:
    for sock in list(_sockets):
        close_copy(sock)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_after_fork)
