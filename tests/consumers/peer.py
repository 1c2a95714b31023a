"""The other process of these tests: sends files in random pieces, and receives streams.

Run with the URL of an engine; prints ``ready``, and ends when its standard input does.
"""

from __future__ import annotations

import hashlib
import queue
import random
import sys
import time
from collections import defaultdict
from typing import Any

from iii_sync import register_worker
from iii_sync.errors import ChannelBrokenError, ChannelError

#: Pieces are 1 byte to 1 MiB, of every order of magnitude alike.
_LARGEST = 20

#: How many pieces are followed by a pause, and how long it is at most: together far below 50 ms for 8 MiB.
_PAUSES, _PAUSE = 0.15, 0.002

#: How long a stream may stand still.
_WAIT = 20.0

#: The results of :func:`receive` by the paths of their files.
_received: defaultdict[str, queue.SimpleQueue[dict[str, Any]]] = defaultdict(queue.SimpleQueue)


def send(data: dict[str, Any]) -> dict[str, Any]:
    """Send the file ``path``; abort after ``cut`` bytes, if that is not ``None``."""
    rng = random.Random(data["seed"])
    writer, limit, sent = data["writer"], data["cut"], 0
    writer.timeout = _WAIT
    with open(data["path"], "rb") as source:
        try:
            while limit is None or sent < limit:
                size = int(2 ** rng.uniform(0, _LARGEST))
                piece = source.read(size if limit is None else min(size, limit - sent))
                if not piece:
                    break
                writer.write(piece)
                sent += len(piece)
                if rng.random() < _PAUSES:
                    time.sleep(rng.uniform(0, _PAUSE))
            if limit is None:
                writer.close()
                return {"outcome": "whole", "sent": sent}
            writer.abort()
            return {"outcome": "cut", "sent": sent}
        except ChannelBrokenError:
            writer.abort()
            return {"outcome": "left", "sent": sent}


def receive(data: dict[str, Any]) -> dict[str, Any]:
    """Read a stream to its end, into the file ``path``."""
    reader, digest, size, error = data["reader"], hashlib.sha256(), 0, None
    reader.timeout = _WAIT
    with open(data["path"], "wb") as target:
        try:
            for chunk in reader:
                target.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        except ChannelError as exc:
            error = type(exc).__name__
    result = {"size": size, "sha256": digest.hexdigest(), "complete": reader.complete, "error": error}
    _received[data["path"]].put(result)
    return result


def received(data: dict[str, Any]) -> Any:
    """What :func:`receive` has returned for the file ``path``, or will: for those who do not wait for it."""
    return _received[data["path"]].get(timeout=_WAIT)


if __name__ == "__main__":
    with register_worker(sys.argv[1]) as worker:
        worker.register_function("consumers::send", send)
        worker.register_function("consumers::receive", receive)
        worker.register_function("consumers::received", received)
        print("ready", flush=True)
        sys.stdin.read()
