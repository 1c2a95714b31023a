"""A file that appears under its name only when it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import uuid
from collections.abc import Iterator
from typing import IO

__all__ = ["replacing"]

#: Bytes of a name, on every common file system.
_LONGEST = 255


@contextlib.contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """Open a file for writing; it gets its name when the block ends normally, and goes when it does not.

    An old file of the name stays as it is until then; its permissions go over to the new one. Where the name is a link,
    what it points to is replaced. What is no regular file (a device, a pipe) is written to directly.

    Raises:
        OSError: It cannot be written, or is a directory.
    """
    if not os.path.basename(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    try:
        old = os.stat(path)
    except FileNotFoundError:
        old = None
    if old is not None and not stat.S_ISREG(old.st_mode):
        # As it is named: what /dev/stdout leads to may have no other name.
        with open(path, "wb") as special:
            yield special
        return
    if old is not None and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    target = os.path.realpath(path)
    part = _part_of(target)
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
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def _part_of(target: str) -> str:
    """Return a name beside that of a file, for what there is of it so far."""
    directory, name = os.path.split(target)
    more = f".{uuid.uuid4().hex[:8]}.part"
    kept = os.fsencode(name)[: _LONGEST - len(more)].decode(sys.getfilesystemencoding(), "ignore")
    return os.path.join(directory, kept + more)
