"""A file that appears under its name only when it is whole."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator
from typing import IO

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """Open a file for writing; it gets its name when the block ends normally, and goes when it does not.

    An old file of the name stays as it is until then; its permissions go over to the new one. Where the name is a link,
    what it points to is replaced. What is no regular file (a device, a named pipe) is written to directly.

    Raises:
        OSError: It cannot be written, or is a directory.
    """
    path = os.path.realpath(path)
    try:
        old = os.stat(path)
    except FileNotFoundError:
        old = None
    if old is not None and not stat.S_ISREG(old.st_mode):
        with open(path, "wb") as special:
            yield special
        return
    part = f"{path}.{uuid.uuid4().hex[:8]}.part"
    try:
        file = open(part, "xb")
    except OSError as error:
        error.filename = path  # the name that the user knows
        raise
    try:
        with file:
            if old is not None:
                os.chmod(part, stat.S_IMODE(old.st_mode))
            yield file
            file.flush()
            # Before the name: after a power failure there must not be an empty file of it.
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
