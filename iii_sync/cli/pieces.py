"""Data as it is moved: in pieces, so that memory use does not grow with it."""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator
from typing import IO

from .failures import CommandFailed

__all__ = ["PIECE", "pieces_of", "standard_input"]

#: Bytes that are read, hashed and written at a time; also the largest frame of a channel.
PIECE = 1024 * 1024


def pieces_of(file: IO[bytes]) -> Iterator[memoryview]:
    """Give an unbuffered file from where it stands; each piece is good until the next is asked for."""
    view = memoryview(bytearray(PIECE))
    while True:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if count == 0:
            return
        if count is None:
            # It does not block, and whoever made it so may share it: it stays as it is.
            select.select([file], [], [])
        else:
            yield view[:count]


def standard_input() -> IO[bytes]:
    """Return standard input, unbuffered; it stays open when this is closed."""
    if sys.stdin is None:
        raise CommandFailed("standard input is closed")
    return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
