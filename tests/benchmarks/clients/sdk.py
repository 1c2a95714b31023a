"""iii-sdk, the official one: inside its own event loop, or driven from synchronous code (mode ``sync``).

On channels its ends are used without a worker, which spares it the control connection and its threads.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

from .. import loops
from ..child import Line, Task
from .ours import ECHO

# By name: the package has no types, and is installed for benchmarks only.
_module = importlib.import_module


def run(task: Task, line: Line) -> None:
    """Do the task."""
    if task.what == "call":
        trigger = _worker(task).trigger
        loops.call(task, line, lambda: trigger({"function_id": task.function, "payload": ECHO}))
    elif task.what == "serve":

        async def echo(data: Any) -> Any:
            return data

        _worker(task).register_function(task.function, echo)
        time.sleep(0.5)  # nothing tells when the engine has taken it
        line.ready_and_go()
        line.wait_for_end()
    elif task.mode == "sync":
        _run_from_outside(task, line)
    else:
        asyncio.run(_write(task, line) if task.what == "write" else _read(task, line))


def _worker(task: Task) -> Any:
    sdk = _module("iii")
    options = sdk.InitOptions(otel={"enabled": False}, enable_metrics_reporting=False)
    return sdk.register_worker(task.url, sdk.InitOptions() if task.mode == "default" else options)


def _ends(task: Task, kind: str) -> list[Any]:
    """Make the ends; to be called inside the loop that they belong to."""
    made = getattr(_module("iii.channels"), kind)
    ref = _module("iii.iii_types").StreamChannelRef
    return [made(task.url, ref(**each)) for each in task.refs]


async def _write(task: Task, line: Line) -> None:
    writers = _ends(task, "ChannelWriter")
    pieces = loops.pieces_of(task)
    for writer in writers:
        await writer.write(pieces[0])
    start = line.ready_and_go()
    end = start + task.seconds
    rounds = [0] * len(writers)

    async def work(number: int) -> None:
        send = writers[number].write
        while time.monotonic() < end:
            for piece in pieces:
                await send(piece)
            rounds[number] += 1
        await writers[number].close_async()

    await asyncio.gather(*(work(number) for number in range(len(writers))))
    line.done(**loops.summary(task, line, start, pieces, rounds))


async def _read(task: Task, line: Line) -> None:
    readers = [end.__aiter__() for end in _ends(task, "ChannelReader")]
    # An empty message comes out as an empty chunk; only data counts as a beginning.
    firsts = [await _first(reader) for reader in readers]
    start = line.ready_and_go()
    totals, ends = [0] * len(readers), [start] * len(readers)
    crcs = [zlib.crc32(first) for first in firsts]

    async def work(number: int) -> None:
        clock = time.monotonic
        total, last = 0, start
        if task.check:
            async for chunk in readers[number]:
                crcs[number] = zlib.crc32(chunk, crcs[number])
                total += len(chunk)
                last = clock()
        else:
            async for chunk in readers[number]:
                total += len(chunk)
                last = clock()
        totals[number], ends[number] = total, last

    await asyncio.gather(*(work(number) for number in range(len(readers))))
    line.done(start=start, end=max(ends), bytes=sum(totals), primed=sum(map(len, firsts)), cpu=line.cpu(), crc=crcs[0])


async def _first(reader: Any) -> bytes:
    while True:
        chunk: bytes = await reader.__anext__()
        if chunk:
            return chunk


def _run_from_outside(task: Task, line: Line) -> None:
    """Every operation is a round trip to a thread that runs the loop: there is no other way from synchronous code."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def wait(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    async def make(kind: str) -> list[Any]:
        return _ends(task, kind)

    if task.what == "write":

        def writer(end: Any) -> loops.Writer:
            return loops.Writer(lambda piece: wait(end.write(piece)), lambda: wait(end.close_async()))

        loops.write(task, line, [writer(end) for end in wait(make("ChannelWriter"))])
        return

    def chunks(reader: Any) -> Iterator[loops.Chunk]:
        while True:
            try:
                chunk = wait(reader.__anext__())
            except StopAsyncIteration:
                return
            if chunk:
                yield chunk

    loops.read(task, line, [chunks(end.__aiter__()) for end in wait(make("ChannelReader"))])
