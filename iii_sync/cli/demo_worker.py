"""The demo's other process: a worker with two functions, until its standard input ends.

``store`` keeps what comes through a channel, ``fetch`` sends it back through another one. It says
``ready`` on standard output, or what went wrong.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import tempfile
from typing import IO, Any

from iii_sync import register_worker

from ..errors import IIISyncError
from .data import peak_memory
from .pieces import PIECE, pieces_of

__all__ = ["main"]


class Shelf:
    """Holds one stream, in a file without a name: it is gone with the process, however that ends."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def store(self, data: dict[str, Any]) -> dict[str, Any]:
        """Keep what ``reader`` gives; the second function's source."""
        digest = hashlib.new(data["algorithm"])
        view = memoryview(bytearray(PIECE))
        self._file.seek(0)
        self._file.truncate()
        with data["reader"] as reader:
            while True:
                count = reader.readinto(view)
                if not count:
                    break
                digest.update(view[:count])
                self._file.write(view[:count])
        return {"bytes": self._file.tell(), "digest": digest.hexdigest()}

    def fetch(self, data: dict[str, Any]) -> dict[str, Any]:
        """Send what was kept to ``writer``."""
        digest = hashlib.new(data["algorithm"])
        self._file.seek(0)
        with data["writer"] as writer:
            for piece in pieces_of(self._file):
                digest.update(piece)
                writer.write(piece)
        return {"bytes": self._file.tell(), "digest": digest.hexdigest(), "peak": peak_memory()}


def main(prefix: str) -> int:
    """Offer ``{prefix}::store`` and ``{prefix}::fetch`` on the engine that ``III_URL`` names."""
    logging.getLogger("iii_sync.worker").setLevel(logging.ERROR)  # the demo says what went wrong
    try:
        with tempfile.TemporaryFile(buffering=0) as file, register_worker() as worker:
            shelf = Shelf(file)
            worker.register_function(f"{prefix}::store", shelf.store)
            worker.register_function(f"{prefix}::fetch", shelf.fetch)
            print("ready", flush=True)
            sys.stdin.buffer.read()
    except (IIISyncError, OSError) as error:
        print(" ".join(str(error).split()), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
