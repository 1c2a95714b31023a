"""The payload of a frame that is growing, and the short way to add to it.

A write that has somewhere to go, the frame of a stream under load, only has to be masked behind what is in there. What
it takes otherwise, the right to send and a way to let go of it whatever interrupts the write, costs many times as much
as a small one. So the owner of the frame *opens* it: until it is *shut*, any thread may add to it, in one step of which
no other thread and no signal handler sees half. Only the C extension has such a step; in Python nothing ever joins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from .mask import method

__all__ = ["Growing"]


class Growing:
    """How much there is of the payload, and who may add to it.

    Args:
        clock: Returns seconds.
        pause: Seconds. Nothing joins when more have passed since the last data joined, or since it was opened.

    Attributes:
        used: Bytes of payload. The owner's to set, while it is shut.
        joined: How many bytes have ever joined.
        last: When the last of them did, or it was opened, by the clock.
    """

    def __init__(self, clock: Callable[[], float], pause: float, /) -> None:
        self.used: int = 0
        self.joined: int = 0
        self.last: float = 0.0

    def open(self, frame: bytearray, at: int, limit: int, key: bytes, /) -> None:
        """Let data join. The owner's, while it is shut.

        Args:
            frame: Where the payload is; keeps its size until it is shut.
            at: Where it begins in there.
            limit: How many bytes it may have.
            key: The four bytes that it is masked with.
        """

    def join(self, data: object, /) -> int:
        """Add ``data`` if that is possible now. Any thread; does not block.

        Args:
            data: Bytes, or any C-contiguous buffer.

        Returns:
            How many bytes; 0 for what has to go another way: it is not open, has no room or was left alone for too
            long, ``data`` is empty or no such buffer, or this is a forked child.
        """
        return 0

    def shut(self) -> None:
        """Let nothing join until it is opened again. The owner's."""

    def end(self) -> None:
        """Let nothing join any more, for good. Any thread."""


if not TYPE_CHECKING and method() == "c":
    try:
        from ._mask import Growing
    except ImportError:  # built for an older version
        pass
