"""The sockets on which one engine listens."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any, Optional

from .guard import Guard
from .ports import Ports, check_port

BACKLOG = 512


@dataclass(frozen=True)
class Plan:
    """What an engine is to listen on; a port of 0 takes any free one, ``None`` none.

    Raises:
        TypeError: A port is no integer.
        ValueError: A port is out of range.
    """

    host: str
    port: int
    http_port: Optional[int] = None
    stream_port: Optional[int] = None
    guard: Optional[Guard] = None

    def __post_init__(self) -> None:
        check_port("port", self.port)
        for name, port in (("http_port", self.http_port), ("stream_port", self.stream_port)):
            if port is not None:
                check_port(name, port)


class Listeners:
    """The listening sockets of one engine; making them binds them.

    Raises:
        OSError: An address is in use or is not ours; the message names host and port.
    """

    def __init__(self, plan: Plan) -> None:
        self.host: str = plan.host
        self.guard: Optional[Guard] = plan.guard
        self._sockets: list[socket.socket] = []
        try:
            self.workers: socket.socket = self._bind(plan.port)
            self.http: Optional[socket.socket] = None if plan.http_port is None else self._bind(plan.http_port)
            self.streams: Optional[socket.socket] = None if plan.stream_port is None else self._bind(plan.stream_port)
            self.guarded: Optional[socket.socket] = None if plan.guard is None else self._bind(plan.guard.port)
        except BaseException:
            self.close()
            raise
        # Asked for now: a server takes its socket over and closes it.
        self.ports: Ports = Ports(_port(self.workers), *map(_port, (self.http, self.streams, self.guarded)))

    def _bind(self, port: int) -> socket.socket:
        self._sockets.append(bind(self.host, port))
        return self._sockets[-1]

    def close(self) -> None:
        """Close them; a second call does nothing."""
        for listener in self._sockets:
            listener.close()


def _port(listener: Optional[socket.socket]) -> Any:
    return None if listener is None else listener.getsockname()[1]


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        OSError: The address is in use or is not ours; the message names host and port.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # Windows would let two engines share the port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {reason}") from error
    return listener
