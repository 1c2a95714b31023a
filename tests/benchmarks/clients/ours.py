"""iii_sync: on an engine through a worker; on a bare peer, which knows no control messages, through channel ends."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

from .. import loops
from ..child import Line, Task

ECHO = {"text": "0123456789" * 4, "number": 12345, "list": [1, 2, 3]}


def run(task: Task, line: Line) -> None:
    """Do the task."""
    _force_mask(task.mask)
    if task.what == "write":
        loops.write(task, line, [_writer(task, end) for end in _ends(task)])
    elif task.what == "read":
        if task.mode == "copyfileobj":
            _copy(task, line, _ends(task)[0])
        else:
            loops.read(task, line, [_chunks(task, end) for end in _ends(task)])
    elif task.what == "call":
        trigger, function = _worker(task).trigger, task.function
        loops.call(task, line, lambda: trigger(function, ECHO))
    else:
        _worker(task).register_function(task.function, lambda data: data)
        line.ready_and_go()
        line.wait_for_end()


def _force_mask(step: str) -> None:
    if step:
        os.environ["III_SYNC_ACCELERATOR"] = step
    if step == "numpy":
        import numpy  # noqa: F401

    from iii_sync.wire import mask

    method = getattr(mask, "method", None)
    if step and method is not None and method() != step:
        raise RuntimeError(f"asked for the mask in {step}, got it in {method()}")


def _worker(task: Task) -> Any:
    import iii_sync

    return iii_sync.register_worker(task.url)


def _ends(task: Task) -> list[Any]:
    if task.engine:
        worker = _worker(task)
        return [worker.open_ref(ref) for ref in task.refs]

    from iii_sync.channels.ends import Ends
    from iii_sync.channels.refs import as_ref
    from iii_sync.net.connect import Address
    from iii_sync.net.loop import Loop
    from iii_sync.options import InitOptions

    made = Ends(Address(task.url), InitOptions(), Loop("iii-io-bench"), lambda function: function())
    return [made.end(as_ref(ref)) for ref in task.refs]


def _writer(task: Task, end: Any) -> loops.Writer:
    target = end.makefile("wb") if task.mode == "makefile" else end
    return loops.Writer(target.write, target.close, target.flush)


def _chunks(task: Task, end: Any) -> Iterator[loops.Chunk]:
    if task.mode == "iterate":
        return iter(end)
    if task.mode == "read":
        return _reads(end)
    return _reads_into(end)


def _reads(end: Any) -> Iterator[loops.Chunk]:
    yield end.read1()
    while True:
        data = end.read(1024 * 1024)
        if not data:
            return
        yield data


def _reads_into(end: Any) -> Iterator[loops.Chunk]:
    view = memoryview(bytearray(256 * 1024))
    while True:
        size = end.readinto(view)
        if not size:
            return
        yield view[:size]


class _Null:
    """Counts what ``copyfileobj`` gives it."""

    def __init__(self, task: Task) -> None:
        self.chunks: list[bytes] = []
        self.size = 0
        self.last = 0.0
        self.crc = 0
        self._check = task.check

    def write(self, data: bytes) -> int:
        """Count."""
        import time
        import zlib

        self.size += len(data)
        self.last = time.monotonic()
        if self._check:
            self.crc = zlib.crc32(data, self.crc)
        return len(data)


def _copy(task: Task, line: Line, end: Any) -> None:
    target = _Null(task)
    target.write(end.read1())
    primed, target.size = target.size, 0
    start = line.ready_and_go()
    shutil.copyfileobj(end, target)
    line.done(start=start, end=target.last, bytes=target.size, primed=primed, cpu=line.cpu(), crc=target.crc)
