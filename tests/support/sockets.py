"""Sockets: what the system knows of other processes', and connected ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios


def connections(pid: int, port: int) -> int:
    """How many TCP connections a process has to a port, established ones; on Linux only."""
    sockets = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            sockets.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    count = 0
    with open(f"/proc/{pid}/net/tcp") as table:
        for line in list(table)[1:]:
            fields = line.split()
            if fields[2].endswith(f":{port:04X}") and fields[3] == "01":
                count += f"socket:[{fields[9]}]" in sockets
    return count


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets that are connected by TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    return ours, theirs


def unread(sock: socket.socket) -> int:
    """How many bytes have arrived that nobody has received."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))
    return int(count)
