"""The demo: a stream through one channel into another process, and back through a second one.

Every digest is made by the process that held the bytes: what was sent, and what has arrived, each way.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

import click

from iii_sync import Call, Worker, register_worker

from ..engine import LocalEngine
from ..errors import ChannelError, IIISyncError
from . import data
from .connecting import hushed, reaching
from .demo_process import WorkerProcess
from .failures import CommandFailed
from .options import as_size
from .pieces import PIECE, pieces_of
from .progress import Bar, progress_bar, terminal_can_show_bars

__all__ = ["command"]

_EPILOG = """\
\b
examples:
  python -m iii_sync demo --size 100MiB
  III_URL=ws://engine.example:49134 python -m iii_sync demo photos.tar
"""

#: Seconds of silence, on a stream or before an answer, after which the demo gives up.
_SILENCE = 60.0


_Pieces = Iterable[memoryview]


class _Leg(NamedTuple):
    """One direction: what its sender and its receiver say."""

    name: str
    sent: int
    arrived: int
    sent_digest: str
    arrived_digest: str
    seconds: float

    def row(self) -> str:
        rate = self.arrived / self.seconds / 1e6 if self.seconds else 0.0
        digests = f"{self.sent_digest[:16]}  {self.arrived_digest[:16]}"
        return f"{self.name:<12}  {self.arrived:>17,}  {self.seconds:>8.2f}  {rate:>8.1f}  {digests}"


@click.command("demo", epilog=_EPILOG)
@click.argument("file", required=False)
@click.option("--size", type=as_size, metavar="SIZE", help="Of made-up data, like 100MiB.  [default: 1GiB]")
def command(file: Optional[str], size: Optional[int]) -> int:
    """Stream data to another process and back, and check every byte.

    FILE, or data made up on the way, goes through a channel into a second process, and back through another channel;
    then sizes and digests are compared. Runs on the engine that III_URL names, else on a local engine of its own.
    Memory use does not grow with the data.
    """
    if file is not None and size is not None:
        raise click.UsageError("--size is for made-up data: give it or FILE, not both")
    with hushed():
        return _run(file, 1024**3 if size is None else size)


def _run(path: Optional[str], generated: int) -> int:
    # The name that a supervisor gives to its worker is not for the two workers of a demonstration.
    os.environ.pop("III_WORKER_NAME", None)
    bars = terminal_can_show_bars("engine")
    with contextlib.ExitStack() as stack:
        source, size = _source(stack, path, generated)
        url, engine = (os.environ.get("III_URL") or "").strip(), None
        if not url:
            engine = stack.enter_context(LocalEngine(in_process=False))
            url = engine.url
        prefix = f"iii-sync-demo-{uuid.uuid4().hex[:12]}"
        child = stack.enter_context(WorkerProcess(url, prefix))
        with reaching():
            worker = stack.enter_context(register_worker(url, channel_timeout=_SILENCE))
        failure = child.wait_until_ready()
        if failure is not None:
            raise CommandFailed(f"the worker process did not start: {failure}")

        algorithm = data.fastest_hash()
        print(f"engine        {'local, ' if engine else ''}{worker.get_address()}")
        print(f"processes     {os.getpid()} (this one), {child.pid} (worker)\n")
        digests = f"{algorithm + ' sent':<16}  {algorithm + ' received':<16}"
        print(f"{'direction':<12}  {'bytes':>17}  {'seconds':>8}  {'MB/s':>8}  {digests}", flush=True)
        try:
            to_worker = _send(worker, f"{prefix}::store", source, algorithm, progress_bar("to worker", size, bars))
            print(to_worker.row(), flush=True)
            bar = progress_bar("from worker", to_worker.arrived, bars)
            from_worker, worker_peak = _fetch(worker, f"{prefix}::fetch", algorithm, bar)
            print(from_worker.row(), flush=True)
        except IIISyncError as error:
            obituary = child.obituary()
            if obituary is None:
                raise
            raise CommandFailed(obituary) from error

        peaks = {"this process": data.peak_memory(), "worker": worker_peak}
        worker.shutdown()
        if engine is not None:
            # The worker's process has not been waited for: the only child that has ended is the engine.
            child.leave()
            engine.stop()
            peaks["engine"] = data.peak_memory(of_children=True)
    known = [f"{name} {peak / 1e6:.0f} MB" for name, peak in peaks.items() if peak]
    print(f"\npeak memory   {', '.join(known) or 'unknown on this system'}")
    return _verdict(to_worker, from_worker)


def _send(worker: Worker, function: str, source: _Pieces, algorithm: str, bar: Bar) -> _Leg:
    """Stream ``source`` into the worker's function."""
    digest, count = hashlib.new(algorithm), 0
    channel = worker.create_channel()
    started = time.perf_counter()
    call = worker.submit(function, {"algorithm": algorithm, "reader": channel.reader_ref})
    with _function_error_first(call), bar as advance, channel.writer as writer:
        for piece in source:
            digest.update(piece)
            count += writer.write(piece)
            advance(len(piece))
    answer = call.result(_SILENCE)
    seconds = time.perf_counter() - started
    return _Leg("to worker", count, answer["bytes"], digest.hexdigest(), answer["digest"], seconds)


def _fetch(worker: Worker, function: str, algorithm: str, bar: Bar) -> tuple[_Leg, Optional[int]]:
    """Stream back what the worker holds; also returns the worker's peak memory."""
    digest, count = hashlib.new(algorithm), 0
    view = memoryview(bytearray(PIECE))
    channel = worker.create_channel()
    started = time.perf_counter()
    call = worker.submit(function, {"algorithm": algorithm, "writer": channel.writer_ref})
    with _function_error_first(call), bar as advance, channel.reader as reader:
        while True:
            got = reader.readinto(view)
            if not got:
                break
            digest.update(view[:got])
            count += got
            advance(got)
    answer = call.result(_SILENCE)
    seconds = time.perf_counter() - started
    leg = _Leg("from worker", answer["bytes"], count, answer["digest"], digest.hexdigest(), seconds)
    return leg, answer["peak"]


def _verdict(to_worker: _Leg, from_worker: _Leg) -> int:
    """Say whether everything that was sent came back, and return the exit code."""
    sizes = {to_worker.sent, to_worker.arrived, from_worker.sent, from_worker.arrived}
    digests = {digest for leg in (to_worker, from_worker) for digest in (leg.sent_digest, leg.arrived_digest)}
    if len(sizes) == len(digests) == 1:
        print(f"OK: {to_worker.sent:,} bytes there and back; all four digests are equal")
        return 0
    wrong = "sizes" if len(sizes) > 1 else "digests"
    listed = sorted(map(str, sizes)) if len(sizes) > 1 else sorted(digests)
    print(f"FAILED: the {wrong} differ: {', '.join(listed)}")
    return 1


@contextlib.contextmanager
def _function_error_first(call: Call) -> Iterator[None]:
    """Raise the function's own error, which says more, in the place of that of its broken stream."""
    try:
        yield
    except ChannelError:
        with contextlib.suppress(TimeoutError):
            call.result(2)
        raise


def _source(stack: contextlib.ExitStack, path: Optional[str], size: int) -> tuple[_Pieces, Optional[int]]:
    """Return the pieces of what is to be sent, and how many bytes they are, if that is known."""
    if path is None:
        return data.generated(size), size
    file = stack.enter_context(open(path, "rb", buffering=0))
    status = os.fstat(file.fileno())
    return pieces_of(file), status.st_size if stat.S_ISREG(status.st_mode) else None
