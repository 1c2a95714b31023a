"""A long stream through two processes, one fast and one slow: memory stays where it was. Figures with ``-s``."""

from __future__ import annotations

import json
import os
import sys
import time

import pytest

from iii_sync import Worker

from ..support.process import Script, run

MIB = 1024 * 1024

#: How much is sent; for instance ``III_SYNC_BYTES=10737418240`` for 10 GiB.
SIZE = int(os.environ.get("III_SYNC_BYTES", 2048 * MIB))

#: How much memory either process may come to use beyond what it had before the stream.
LIMIT = 64 * MIB

#: A deadline for all of it, at a tenth of the speed that is to be expected of a small machine.
PATIENCE = 120.0 + SIZE / (20 * MIB)

COMMON = """
import json, random, sys, time, zlib
from iii_sync import register_worker

def memory(what):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(what + ":"))

url, ref, size, mib = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), 1024 * 1024
worker = register_worker(url)
end = worker.open_ref(ref, timeout=60)
total = crc = 0
"""

WRITER = (
    COMMON
    + """
block = random.Random(1).randbytes(mib)
before = memory("VmRSS")
with end:
    while total < size:
        piece = block[: min(mib, size - total)]
        total += end.write(piece)
        crc = zlib.crc32(piece, crc)
print(json.dumps([total, crc, memory("VmHWM") - before]))
worker.shutdown()
"""
)

READER = (
    COMMON
    + """
before = memory("VmRSS")
rested = 0
for chunk in end:
    total += len(chunk)
    crc = zlib.crc32(chunk, crc)
    if total - rested >= 32 * mib:  # slow, and unevenly so: everything before it fills up
        rested = total
        time.sleep(0.05)
assert end.complete is True
print(json.dumps([total, crc, memory("VmHWM") - before]))
worker.shutdown()
"""
)


@pytest.mark.slow
@pytest.mark.timeout(int(2 * PATIENCE))
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow(worker: Worker, engine_url: str, engine_kind: str) -> None:
    """Neither the writer nor the reader keeps what has gone by, nor what has still to be read."""
    channel = worker.create_channel()
    started = time.monotonic()
    reader = Script(READER, engine_url, json.dumps(channel.reader_ref.model_dump()), str(SIZE))
    writer = Script(WRITER, engine_url, json.dumps(channel.writer_ref.model_dump()), str(SIZE))
    codes = [script.end(PATIENCE) for script in (writer, reader)]
    took = time.monotonic() - started
    assert codes == [0, 0], (writer.stderr(), reader.stderr())
    sent, sent_crc, writer_growth = json.loads(writer.lines[-1])
    received, received_crc, reader_growth = json.loads(reader.lines[-1])
    print(
        f"\n{engine_kind}: {sent / MIB:,.0f} MiB in {took:.1f} s, {sent / MIB / took:,.0f} MiB/s;"
        f" writer +{writer_growth / MIB:.1f} MiB, reader +{reader_growth / MIB:.1f} MiB"
    )
    assert sent == received == SIZE and sent_crc == received_crc
    assert writer_growth < LIMIT and reader_growth < LIMIT


FINISHED = """
import gc, sys, time, tracemalloc
from iii_sync import register_worker

mib = 1024 * 1024
with register_worker(sys.argv[1]) as worker:
    def take(data):
        return sum(len(chunk) for chunk in data["reader"])
    take = worker.register_function("take-" + worker.worker_id, take).id
    def stream():
        with worker.open(take, "wb") as file:
            for _ in range(8 * 16):
                file.write(bytes(mib // 16))
        assert file.result == 8 * mib
    stream()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    for _ in range(8):
        stream()
    held = tracemalloc.get_traced_memory()[0]
    end = time.monotonic() + 10
    while held > 4 * mib and time.monotonic() < end:  # the last descriptors are closed by the background thread
        time.sleep(0.05)
        held = tracemalloc.get_traced_memory()[0]
    print(f"{held / mib:.1f} MiB")
    assert held < 4 * mib, held / mib
"""


def test_a_stream_that_is_over_holds_no_buffers(engine_url: str) -> None:
    """Not even until the next collection: a server would grow by some MiB for each upload in between."""
    print(run(FINISHED, engine_url).lines)
