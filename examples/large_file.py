"""A large file through a channel into a function that counts its lines while it is still arriving.

Run it with the path of a file, or without one to send a file that it makes. Needs an engine: python -m iii_sync engine.
"""

import shutil
import sys
import tempfile
from typing import Any, BinaryIO

from iii_sync import Worker, register_worker


def count_lines(data: dict[str, Any]) -> dict[str, int]:
    """The function: gets a reader in the place of the reference that was passed."""
    lines = size = 0
    for chunk in data["reader"]:
        lines += chunk.count(b"\n")
        size += len(chunk)
    return {"lines": lines, "bytes": size}


def send(worker: Worker, source: BinaryIO) -> None:
    """The caller: starts the function first, then writes, then takes the result."""
    channel = worker.create_channel()
    call = worker.submit("files::count_lines", {"reader": channel.reader_ref})
    with channel.writer as f:
        shutil.copyfileobj(source, f, 1024 * 1024)
    result = call.result(timeout=60)
    print(f"{result['lines']:,} lines, {result['bytes']:,} bytes")


if __name__ == "__main__":
    with register_worker() as worker:
        worker.register_function("files::count_lines", count_lines)
        if len(sys.argv) > 1:
            with open(sys.argv[1], "rb") as file:
                send(worker, file)
        else:
            with tempfile.TemporaryFile() as made:
                for number in range(1_000_000):
                    made.write(b"line %d of a file that is not small\n" % number)
                made.seek(0)
                send(worker, made)
