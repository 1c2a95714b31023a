"""A terminal for a command, and what it has shown there."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator


class Terminal:
    """A pseudo-terminal of 24 lines and 80 columns.

    Attributes:
        fd: What a process gets as standard output or standard error.
    """

    def __init__(self) -> None:
        import fcntl
        import termios

        self._controller, self.fd = os.openpty()
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # bars need some width

    def read_to_the_end(self) -> bytes:
        """Return all that was shown, when the last process that has the terminal has let go of it."""
        self._release()
        shown = b""
        with contextlib.suppress(OSError):  # Linux: how the end of a terminal is told
            while True:
                chunk = os.read(self._controller, 65536)
                if not chunk:
                    break
                shown += chunk
        return shown

    def close(self) -> None:
        """Let go of it."""
        self._release()
        os.close(self._controller)

    def _release(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal for the block."""
    terminal = Terminal()
    try:
        yield terminal
    finally:
        terminal.close()
