"""Streams in both directions and calls, all at once through TLS, for a time: every digest exact, or an error.

As a command: ``python -m tests.net.hammer --seconds 60 --engine real``; it prints its seed and what went through.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import ssl
import time
from typing import Any, Callable

from iii_sync import Worker, register_worker

from ..support.engines import running_engine
from ..support.threads import in_thread
from ..support.tls import tls_relay

STREAMS = 3  # threads for each kind of stream
CALLERS = 4

#: Seconds that one stream or call may take, on a busy machine.
_ONE = 60.0


def hammer(url: str, context: ssl.SSLContext, seconds: float, seed: int) -> dict[str, int]:
    """Run it against an engine behind TLS at ``url``.

    Returns:
        How many streams and calls there were, and their bytes.

    Raises:
        AssertionError: Something arrived that was not sent.
    """
    end = time.monotonic() + seconds
    options: Any = {"ssl_context": context, "channel_timeout": _ONE, "invocation_timeout": _ONE}
    with register_worker(url, **options) as near, register_worker(url, **options) as far:
        suffix = far.worker_id
        far.register_function(f"sink-{suffix}", _sink)
        far.register_function(f"source-{suffix}", _source)
        far.register_function(f"echo-{suffix}", lambda data: data)
        tasks: list[Callable[[random.Random], int]] = []
        tasks += [lambda rng: _send(near, f"sink-{suffix}", rng)] * STREAMS
        tasks += [lambda rng: _fetch(near, f"source-{suffix}", rng)] * STREAMS
        tasks += [lambda rng: _around(near, rng)] * STREAMS
        tasks += [lambda rng: _call(near, f"echo-{suffix}", rng)] * CALLERS

        def repeat(number: int, task: Callable[[random.Random], int]) -> tuple[int, int]:
            rng = random.Random(seed * 1000 + number)
            count = size = 0
            while time.monotonic() < end:
                size += task(rng)
                count += 1
            return count, size

        def started(number: int, task: Callable[[random.Random], int]) -> Callable[[], tuple[int, int]]:
            return in_thread(lambda: repeat(number, task), seconds + 2 * _ONE)

        results = [result() for result in [started(number, task) for number, task in enumerate(tasks)]]
    streams, calls = results[: 3 * STREAMS], results[3 * STREAMS :]
    assert all(count for count, _ in results)
    return {
        "streams": sum(count for count, _ in streams),
        "stream bytes": sum(size for _, size in streams),
        "calls": sum(count for count, _ in calls),
        "call bytes": sum(size for _, size in calls),
    }


def _write(writer: Any, rng: random.Random) -> tuple[int, str]:
    """Write pieces of random sizes, and close."""
    digest, total = hashlib.sha256(), 0
    with writer:
        for _ in range(rng.randrange(1, 30)):
            piece = rng.randbytes(rng.choice([1, 100, 5_000, 16_384, 70_000, 300_000]))
            digest.update(piece)
            total += writer.write(piece)
    return total, digest.hexdigest()


def _read(reader: Any, rng: random.Random) -> tuple[int, str]:
    """Read pieces of random sizes up to the end."""
    digest, total = hashlib.sha256(), 0
    with reader:
        while True:
            piece = reader.read(rng.choice([1, 1_000, 65_536, 1_000_000]))
            if not piece:
                assert reader.complete
                return total, digest.hexdigest()
            digest.update(piece)
            total += len(piece)


def _sink(data: Any) -> Any:
    return _read(data["reader"], random.Random(data["seed"]))


def _source(data: Any) -> Any:
    return _write(data["writer"], random.Random(data["seed"]))


def _send(worker: Worker, function: str, rng: random.Random) -> int:
    channel = worker.create_channel()
    call = worker.submit(function, {"reader": channel.reader_ref, "seed": rng.randrange(1 << 40)})
    sent = _write(channel.writer, rng)
    assert tuple(call.result(_ONE)) == sent
    return sent[0]


def _fetch(worker: Worker, function: str, rng: random.Random) -> int:
    channel = worker.create_channel()
    call = worker.submit(function, {"writer": channel.writer_ref, "seed": rng.randrange(1 << 40)})
    got = _read(channel.reader, rng)
    assert tuple(call.result(_ONE)) == got
    return got[0]


def _around(worker: Worker, rng: random.Random) -> int:
    """Both ends in one worker."""
    channel = worker.create_channel()
    writing = random.Random(rng.random())
    sent = in_thread(lambda: _write(channel.writer, writing), _ONE)
    got = _read(channel.reader, rng)
    assert got == sent()
    return got[0]


def _call(worker: Worker, function: str, rng: random.Random) -> int:
    size = rng.choice([0, 10, 1_000, 20_000, 200_000])
    payload = [rng.randrange(1 << 40), "x" * size]
    assert worker.trigger(function, payload) == payload
    return size


def main() -> None:
    """The command."""
    import trustme

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--engine", choices=["local", "real"], default="local")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    with running_engine(arguments.engine) as engine, tls_relay(engine.url, server) as relay:
        print(hammer(f"wss://localhost:{relay.port}", client, arguments.seconds, arguments.seed))
        print(f"{len(relay.connections)} connections, {len(relay.failures)} ended with an error at the relay")


if __name__ == "__main__":
    main()
