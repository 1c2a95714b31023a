"""The ports of one engine."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

_HIGHEST = 65535


class Ports(NamedTuple):
    """Where an engine listens; ``None`` for what it does not serve."""

    workers: int
    http: Optional[int] = None
    streams: Optional[int] = None
    guarded: Optional[int] = None


def check_port(name: str, port: Any) -> None:
    """Make sure that a port is one; what binds it would take it modulo 65,536.

    Raises:
        TypeError: It is no integer.
        ValueError: It is out of range.
    """
    if type(port) is not int:  # neither is True
        raise TypeError(f"{name}={port!r:.80} must be an integer")
    if not 0 <= port <= _HIGHEST:
        raise ValueError(f"{name}={port} is no port: give one of 1 to {_HIGHEST}, or 0 for any free one")
