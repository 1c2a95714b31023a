"""Ctrl-C at one bytecode after another: what it leaves behind works on, or says what is wrong; it never hangs."""

from __future__ import annotations

import random
import sys

import pytest

from ..support.process import run

#: Each operation is done over and over, and interrupted one step later each time, until it goes through. ``prepare``
#: makes what it needs; ``after`` finds out what has become of that. A stream may have been cut, and must say so; it may
#: have arrived whole, and then all of it.
PROGRAM = """
import contextlib, faulthandler, logging, sys, threading, time, warnings
from iii_sync import errors, register_worker
from tests.support.interrupts import Interrupter
logging.getLogger('iii_sync').setLevel(logging.CRITICAL)
warnings.simplefilter('ignore', ResourceWarning)  # an end that was interrupted before anybody held it
sys.unraisablehook = lambda *a: None  # Ctrl-C in a finalizer
url, what, first, step = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
w, peer = register_worker(url), register_worker(url)
echo = peer.register_function('echo-' + w.worker_id, lambda d: d).id
def slowly(d): time.sleep(0.02); return d
slow = peer.register_function('slow-' + w.worker_id, slowly).id
DATA = bytes(range(250)) * 40
def works(): assert w.trigger(echo, 'x', timeout=15) == 'x'
def nothing(): pass
def channel():
    global c
    c = w.create_channel()
    c.reader.timeout = c.writer.timeout = c.writer.close_timeout = 15
    c.writer.write(DATA)
def connected(): channel(); c.reader.peek()
def rest():
    try: return c.reader.read()
    except errors.ChannelError: return None
    finally: c.reader.close()
def write(): c.writer.write(DATA)
def after_write():
    try: c.writer.write(DATA); c.writer.close()
    except (errors.ChannelError, ValueError):
        c.writer.abort()
        assert rest() is None
    else: assert rest() in (2 * DATA, 3 * DATA)
def read():
    assert c.reader.read(len(DATA)) == DATA
    with contextlib.suppress(errors.ReadTimeout): c.reader.read(1, timeout=0.02)
def after_read():
    with contextlib.suppress(errors.ChannelError): c.writer.write(b'abc'); c.writer.close()
    got = rest()
    assert got is None or (len(got) >= 3 and (DATA + b'abc').endswith(got)), got
def trickling():
    global feeding
    connected()
    feeding = threading.Thread(target=feed, daemon=True)
    feeding.start()
def feed():
    with contextlib.suppress(errors.ChannelError):
        for _ in range(3): time.sleep(0.003); c.writer.write(b'abc')
def gather(): assert c.reader.read(len(DATA) + 9) == DATA + b'abc' * 3
def after_gather():
    feeding.join(15)
    with contextlib.suppress(errors.ChannelError): c.writer.close()
    got = rest()
    assert got is None or (DATA + b'abc' * 3).endswith(got), got
def close(): c.writer.close()
def after_close(): c.writer.close(); assert rest() in (None, DATA)
def abort(): c.writer.abort()
def after_abort(): c.writer.abort(); assert rest() is None
def leave(): c.reader.close()
def after_leave():
    c.reader.close()
    try:
        while True: c.writer.write(DATA)
    except errors.ChannelError: c.writer.abort()
def result(): assert w.submit(slow, 'y').result(15) == 'y'
def cancel():
    call = w.submit(slow, 'y'); call.cancel()
def waits(wait, *ends_with):
    def run():
        try: wait()
        except ends_with: ended.append(wait)
    threading.Thread(target=run, daemon=True).start()
def busy():
    global v, ended
    v, ended = register_worker(url), []
    waits(v.submit(peer.register_function('never-' + v.worker_id, lambda d: v.wait(30)).id).result,
        errors.WorkerClosedError)
    reader = v.create_channel().reader
    waits(reader.read, errors.ChannelAbortedError)
    w.submit(v.register_function('slow-' + v.worker_id, slowly).id)
    while reader._connection is None: time.sleep(0.001)
def after_shutdown():
    v.shutdown(10)  # unless that has begun, and then it has done everything
    end = time.monotonic() + 10
    while len(ended) < 2: assert time.monotonic() < end, ended; time.sleep(0.001)
    assert v.wait(0) and v.get_connection_state() == 'disconnected' and not v._loop._thread.is_alive()
prepare, operation, after = {
    'shutdown': (busy, lambda: v.shutdown(10), after_shutdown),
    'trigger': (nothing, works, nothing), 'result': (nothing, result, nothing), 'cancel': (nothing, cancel, nothing),
    'wait': (nothing, lambda: w.wait(0.02), nothing),
    'write': (channel, write, after_write), 'read': (connected, read, after_read),
    'gather': (trickling, gather, after_gather),
    'connect': (channel, read, after_read), 'close': (connected, close, after_close),
    'abort': (connected, abort, after_abort), 'leave': (connected, leave, after_leave),
}[what]
interrupter, at = Interrupter(), first
while True:
    faulthandler.dump_traceback_later(40, exit=True)
    prepare()
    if not interrupter.interrupt(at, operation): break
    try:
        after(); works()
    except BaseException:
        print('interrupted at', at, interrupter.where)
        raise
    at += step
faulthandler.cancel_dump_traceback_later()
assert at > 3 * step, at
w.shutdown(); peer.shutdown()
print(at // step, 'interruptions of', what)
"""


#: Every step is for the long run; the quick one takes a few, others each time. Connecting has thousands, and hardly a
#: lock of ours.
OPERATIONS = {
    name: (101, 1009) if name == "connect" else (1, 7)
    for name in [
        "trigger",
        "result",
        "cancel",
        "wait",
        "write",
        "read",
        "gather",
        "close",
        "abort",
        "leave",
        "connect",
        "shutdown",
    ]
}


@pytest.mark.skipif(sys.version_info < (3, 10), reason="3.9 looks for signals where no lock is safe")
@pytest.mark.parametrize("thorough", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_interrupted_at_every_step(engine_url: str, operation: str, thorough: bool) -> None:
    """The place of the interruption is printed by a failure."""
    step = OPERATIONS[operation][0 if thorough else 1]
    run(PROGRAM, engine_url, operation, str(random.randrange(step)), str(step), timeout=120)
