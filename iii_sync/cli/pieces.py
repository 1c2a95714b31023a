"""Data as it is moved: in pieces, so that memory use does not grow with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

__all__ = ["PIECE", "pieces_of"]

#: Bytes that are read, hashed and written at a time; also the largest frame of a channel.
PIECE = 1024 * 1024


def pieces_of(file: IO[bytes]) -> Iterator[memoryview]:
    """Give an unbuffered file from where it stands; each piece is good until the next is asked for."""
    view = memoryview(bytearray(PIECE))
    while True:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            return
        yield view[:count]
