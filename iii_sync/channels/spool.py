"""The file that a stream is read into to be sought."""

from __future__ import annotations

import tempfile

__all__ = ["Spool"]


class Spool(tempfile.SpooledTemporaryFile[bytes]):
    """Has, before Python 3.11 too, what consumers that seek ask for first."""

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
