"""Ctrl-C at any moment: nothing is stuck behind it, and no transfer is wrong without an error."""

from __future__ import annotations

import random

import pytest

from iii_sync import Worker
from iii_sync.errors import ChannelTruncatedError

from ..support.process import run

#: Calls and transfers, interrupted over and over; the interruption hits anything between two bytecodes of the main
#: thread. After each one a call must be answered; streams that are read on must be exact; streams that were
#: written must have arrived whole, or be seen cut.
PROGRAM = """
import faulthandler, hashlib, logging, os, random, signal, sys, threading, time, warnings
from iii_sync import errors, register_worker
logging.getLogger('iii_sync').setLevel(logging.ERROR)  # connections that were cut are made again, with a warning
warnings.simplefilter('ignore', ResourceWarning)  # an end that was interrupted before anybody held it
sys.unraisablehook = lambda *a: None  # Ctrl-C in a finalizer
url, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
w, peer = register_worker(url), register_worker(url)
echo = peer.register_function('echo-' + w.worker_id, lambda d: d).id
arrived = {}
def take(d):
    h = hashlib.sha256()
    try:
        for chunk in d['reader']: h.update(chunk)
    except errors.ChannelError:
        arrived[d['number']] = 'cut'; raise
    arrived[d['number']] = h.hexdigest() if d['reader'].complete else 'unknown'
take = peer.register_function('take-' + w.worker_id, take).id
BLOCK = random.Random(1).randbytes(300_000)
def give(d):
    with d['writer'] as f:
        for _ in range(8): f.write(BLOCK)
give = peer.register_function('give-' + w.worker_id, give).id
sent, number = {}, 0
def call(): assert w.trigger(echo, 'x' * 100, timeout=15) == 'x' * 100
def upload():
    global number
    number += 1
    data = BLOCK * (number % 5)
    sent[number] = hashlib.sha256(data).hexdigest()
    with w.open(take, 'wb', {'number': number}) as f:
        for at in range(0, len(data), 20_000): f.write(data[at:at + 20_000])
stream, position = None, 0
def download():
    # Goes on where an interruption has left it.
    global stream, position
    if stream is None:
        stream, position = w.open(give, 'rb', buffering=0), 0
        stream.raw.timeout = 20
    try:
        for _ in range(50):
            at = stream.tell()
            assert at >= position, (at, position)
            data = stream.read(7_001)
            expected = (BLOCK * 2)[at % 300_000:][:min(7_001, 2_400_000 - at)]
            assert expected.startswith(data), ('wrong bytes', at, len(data), len(expected))
            if 0 < len(data) < len(expected):
                # All that had arrived of a stream that an interruption has broken: an error must follow.
                try: stream.read(1)
                except errors.ChannelTruncatedError: raise
                raise AssertionError('a short read without an error')
            position = at + len(data)
            if not data:
                assert position == 2_400_000 and stream.raw.complete
                done, stream = stream, None
                done.close()
                return
    except errors.IIISyncError:
        stream = None
        raise
failed = 0  # an error is an outcome; silence is not
operations = [call, upload, download]
armed, sender_goes_on = threading.Event(), True
main = threading.main_thread()
def interrupt():
    while sender_goes_on:
        if not armed.wait(1): continue
        time.sleep(chance.random() * 0.02)
        os.kill(os.getpid(), signal.SIGINT)
        end = time.monotonic() + 1  # a finalizer may have swallowed it
        while armed.is_set() and time.monotonic() < end: time.sleep(0.0005)
thread = threading.Thread(target=interrupt, daemon=True); thread.start()
last = None
for n in range(count):
    faulthandler.dump_traceback_later(40, exit=True)
    try:
        armed.set()
        while True:
            last = chance.choice(operations)
            try: last()
            except errors.IIISyncError: failed += 1
    except KeyboardInterrupt:
        armed.clear()
    while True:
        try: call(); break
        except KeyboardInterrupt: pass
    print('.') if n % 100 == 0 else None
sender_goes_on = False
thread.join(5)
faulthandler.dump_traceback_later(40, exit=True)
call(); upload()
if stream is not None: stream.close()
w.shutdown(); peer.shutdown(10)
wrong = {n: digest for n, digest in arrived.items() if digest not in ('cut', sent[n])}
assert not wrong, wrong
assert arrived[number] == sent[number]
faulthandler.cancel_dump_traceback_later()
whole = sum(digest == sent[n] for n, digest in arrived.items())
print(count, 'interruptions,', number, 'uploads,', whole, 'whole,', failed, 'operations failed')
"""


@pytest.mark.parametrize("count", [40, pytest.param(600, marks=pytest.mark.slow)])
def test_interruptions_at_random_moments(engine_url: str, count: int) -> None:
    """The seed is printed by a failure."""
    run(PROGRAM, engine_url, str(count), str(random.randrange(1 << 30)), timeout=60 + count)


def test_a_call_behind_an_interrupted_one_waits_for_the_next_connection(worker: Worker) -> None:
    """The connection has half a frame in it and is given up; whoever comes next does not hear of that."""
    for _ in range(5):
        link = worker._session._link
        assert link is not None and link.connection is not None
        link.connection._poison(KeyboardInterrupt())
        worker.trigger("engine::baggage::get", {"key": "x"}, timeout=20)


def test_a_read_that_was_interrupted_amid_its_bookkeeping_is_followed_by_an_error(worker: Worker) -> None:
    """Neither a hole nor a repetition: what is left cannot be trusted."""
    channel = worker.create_channel()
    channel.writer.write(b"0123456789")
    assert channel.reader.read(4) == b"0123"
    reader = channel.reader
    reader._moving = True
    with pytest.raises(ChannelTruncatedError, match="interrupted"):
        reader.read(1)
    assert reader.complete is False
    reader.close()
    channel.writer.abort()
