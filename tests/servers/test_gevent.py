"""gevent: everything works in a process that was patched before the first import."""

from __future__ import annotations

import pytest

from ..support.process import Script, run

pytest.importorskip("gevent")

PATCHED = """
from gevent import monkey; monkey.patch_all()
import gevent, hashlib, os, random, sys, threading, time
from iii_sync import errors, register_worker
w = register_worker(sys.argv[1])
"""


def test_calls_handlers_channels_and_timeouts(engine_url: str) -> None:
    """While one greenlet waits, the others run; two hundred calls at once; both ends, exact."""
    run(
        PATCHED
        + """
echo = w.register_function('echo-' + w.worker_id, lambda d: d).id
slow = w.register_function('slow-' + w.worker_id, lambda d: time.sleep(1.5) or 'slept').id
def take(d):
    h = hashlib.sha256()
    for chunk in d['reader']: h.update(chunk)
    return h.hexdigest()
take = w.register_function('take-' + w.worker_id, take).id
def give(d):
    with d['writer'] as f:
        for _ in range(100): f.write(b'0123456789' * 1000)
give = w.register_function('give-' + w.worker_id, give).id
ticks = 0
def tick():
    global ticks
    while True: gevent.sleep(0.01); ticks += 1
gevent.spawn(tick)
def ticking(function, *expected):
    before = ticks
    try: function()
    except expected: pass
    else: assert not expected, function
    assert ticks > before + 5, 'the wait has blocked everybody'
def upload(size):
    data = random.randbytes(size)
    with w.open(take, 'wb') as f:
        for at in range(0, size, 50_000): f.write(data[at:at + 50_000])
    assert f.result == hashlib.sha256(data).hexdigest()
calls = [gevent.spawn(w.trigger, echo, n) for n in range(200)]
uploads = [gevent.spawn(upload, n * 300_000) for n in range(10)]
gevent.joinall(calls + uploads, raise_error=True)
assert [call.value for call in calls] == list(range(200))
with w.open(give, 'rb') as f: assert f.read() == b'0123456789' * 100_000
ticking(lambda: w.trigger(slow))
ticking(lambda: w.trigger(slow, timeout=0.6), TimeoutError)
ticking(lambda: w.submit(slow).result(0.6), TimeoutError)
c = w.create_channel()
c.reader.timeout = 0.6
ticking(lambda: c.reader.read(1), TimeoutError)
c.writer.timeout = 0.6
c.writer.write(b'x')
assert c.reader.read(1) == b'x'
def fill():
    while True: c.writer.write(bytes(100_000))
ticking(fill, TimeoutError)
c.reader.close()
c.writer.abort()
reader = w.create_channel().reader
def blocked():
    try: reader.read()
    except errors.ChannelAbortedError: return 'woken'
blocked = gevent.spawn(blocked)
gevent.sleep(0.1)
reader.close()
assert blocked.get(timeout=10) == 'woken'
assert w.wait(0.1) is False
w.shutdown()
assert not [t.name for t in threading.enumerate() if t.name.startswith('iii-io')]
""",
        engine_url,
        timeout=60,
    )


@pytest.mark.parametrize("ending", ["", "w.shutdown()", "w.submit(w.register_function('f-' + w.worker_id, hang).id)"])
def test_the_process_ends(engine_url: str, ending: str) -> None:
    """With and without shutdown(), and with a handler that hangs."""
    run(PATCHED + "def hang(d): threading.Event().wait()\n" + ending + "\ntime.sleep(0.1)\n", engine_url, timeout=20)


def test_a_fork(engine_url: str) -> None:
    """Greenlets survive a fork: the parent's must not read the parent's streams in the child."""
    run(
        PATCHED
        + """
echo = w.register_function('echo-' + w.worker_id, lambda d: d).id
c = w.create_channel()
got = []
reading = threading.Thread(target=lambda: got.append(c.reader.read()), daemon=True)
reading.start()
c.writer.write(b'1')
gevent.sleep(0.1)
pid = os.fork()
if not pid:
    try: w.trigger(echo)
    except errors.ForkedWorkerError: pass
    with register_worker(sys.argv[1]) as mine:
        assert mine.trigger(echo, 'child') == 'child'
        gevent.sleep(0.5)
        assert mine.trigger(echo, 'child') == 'child'
    sys.exit(0)
for _ in range(20):
    c.writer.write(bytes(100_000))
    gevent.sleep(0.02)
c.writer.close()
reading.join(20)
assert got == [b'1' + bytes(2_000_000)] and c.reader.complete
assert os.waitpid(pid, 0)[1] == 0
assert w.trigger(echo, 'after') == 'after'
""",
        engine_url,
    )


def test_signals(engine_url: str) -> None:
    """Ctrl-C ends a call, within half a second and what a busy machine adds; SIGTERM ends a wait."""
    script = Script(
        PATCHED
        + """
from tests.support.moments import tell
slow = w.register_function('slow-' + w.worker_id, lambda d: time.sleep(60)).id
echo = w.register_function('echo-' + w.worker_id, lambda d: d).id
gevent.spawn_later(0.3, print, 'calling')
try: w.trigger(slow)
except KeyboardInterrupt: tell('interrupted')
assert w.trigger(echo, 1) == 1
w.shutdown(0.5)
with register_worker(sys.argv[1]) as w:
    gevent.spawn_later(0.3, print, 'waiting')
    assert w.wait() is True
""",
        engine_url,
    )
    script.until("calling")
    sent = script.interrupt()
    assert script.moment("interrupted").since(sent) <= 0.5
    script.until("waiting")
    script.send(15)
    assert script.end() == 0
    assert "Traceback" not in script.stderr()  # gevent's own loop mentions the interruption
