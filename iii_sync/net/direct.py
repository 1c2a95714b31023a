"""Sending and receiving on non-blocking sockets, at the least cost in waits for the GIL.

The methods of a socket let go of the GIL in every call, and wait for it afterwards: beside a thread that computes, 5 ms
each time. The C extension keeps it where that is better (``_direct.c`` says when); without it, which is so on Windows
too, the methods are called, and ``III_SYNC_ACCELERATOR`` picks as in :mod:`iii_sync.wire.mask`.

Not for TLS, whose bytes only OpenSSL may send.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from ..wire.mask import C_WANTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

__all__ = ["in_c", "recv_into", "send"]


def _send(sock: socket.socket, data: Buffer, /) -> int:
    return sock.send(data)


def _recv_into(sock: socket.socket, buffer: Buffer, /) -> int:
    return sock.recv_into(buffer)


send: Callable[[socket.socket, Buffer], int] = _send
recv_into: Callable[[socket.socket, Buffer], int] = _recv_into
if C_WANTED:
    try:
        from . import _direct
    except ImportError:
        pass
    else:
        send, recv_into = _direct.send, _direct.recv_into

in_c: bool = send is not _send
"""Whether it is the C extension that is called."""
