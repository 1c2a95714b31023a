"""The measured loops of synchronous clients: pieces written, chunks read, calls made; on one thread or on several."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Union

from .child import Line, Task

__all__ = ["Chunk", "Writer", "call", "checksum", "pieces_of", "read", "summary", "write"]

Chunk = Union[bytes, memoryview]

_CALLS_TO_WARM_UP = 30


class Writer(NamedTuple):
    """How one stream is written.

    Attributes:
        write: Takes a piece.
        close: Ends the stream; returns when the peer has it all.
        flush: Called once, after the piece that warms up.
    """

    write: Callable[[bytes], Any]
    close: Callable[[], Any]
    flush: Callable[[], Any] = lambda: None


def pieces_of(task: Task) -> list[bytes]:
    """Return the pieces that are written over and over: about 1 MiB, at most 64."""
    count = max(1, min(64, 1024 * 1024 // task.piece))
    return [bytes((i * 31 + (i >> 8) + number) & 0xFF for i in range(task.piece)) for number in range(count)]


def checksum(pieces: list[bytes], rounds: int) -> int:
    """Return the CRC-32 of the first piece, which went out to warm up, and of all pieces, ``rounds`` times."""
    crc = zlib.crc32(pieces[0])
    for _ in range(rounds):
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
    return crc


def write(task: Task, line: Line, writers: list[Writer]) -> None:
    """Measure writers, each on a thread of its own."""
    pieces = pieces_of(task)
    for writer in writers:
        writer.write(pieces[0])
        writer.flush()
    start = line.ready_and_go()
    end = start + task.seconds
    rounds = [0] * len(writers)

    def work(number: int) -> None:
        send = writers[number].write
        clock = time.monotonic
        while clock() < end:
            for piece in pieces:
                send(piece)
            rounds[number] += 1
        writers[number].close()

    _on_threads(work, len(writers))
    line.done(**summary(task, line, start, pieces, rounds))


def summary(task: Task, line: Line, start: float, pieces: list[bytes], rounds: list[int]) -> dict[str, Any]:
    """Return what a writing process says at its end."""
    return {
        "start": start,
        "bytes": sum(rounds) * len(pieces) * task.piece,
        "messages": sum(rounds) * len(pieces),
        "cpu": line.cpu(),
        "crc": checksum(pieces, rounds[0]) if task.check else 0,
    }


def read(task: Task, line: Line, readers: list[Iterator[Chunk]]) -> None:
    """Measure readers, given as what they read; each on a thread of its own."""
    firsts = [bytes(next(reader)) for reader in readers]
    start = line.ready_and_go()
    totals, ends = [0] * len(readers), [start] * len(readers)
    crcs = [zlib.crc32(first) for first in firsts]

    def work(number: int) -> None:
        clock = time.monotonic
        total, last = 0, start
        if task.check:
            for chunk in readers[number]:
                crcs[number] = zlib.crc32(chunk, crcs[number])
                total += len(chunk)
                last = clock()
        else:
            for chunk in readers[number]:
                total += len(chunk)
                last = clock()
        totals[number], ends[number] = total, last

    _on_threads(work, len(readers))
    line.done(start=start, end=max(ends), bytes=sum(totals), primed=sum(map(len, firsts)), cpu=line.cpu(), crc=crcs[0])


def call(task: Task, line: Line, once: Callable[[], Any]) -> None:
    """Measure calls, from as many threads as the task has callers."""
    for _ in range(_CALLS_TO_WARM_UP):
        once()
    start = line.ready_and_go()
    end = start + task.seconds
    times: list[list[float]] = [[] for _ in range(task.callers)]

    def work(number: int) -> None:
        clock = time.monotonic
        add = times[number].append
        before = clock()
        while before < end:
            once()
            after = clock()
            add(after - before)
            before = after

    _on_threads(work, task.callers)
    finish = time.monotonic()
    cpu = line.cpu()
    taken = sorted(sum(times, []))
    line.done(start=start, end=finish, calls=len(taken), p50=taken[len(taken) // 2], cpu=cpu)


def _on_threads(work: Callable[[int], None], count: int) -> None:
    if count == 1:
        work(0)
        return
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
