"""How a worker behaves as part of a process: ends, signals, forks."""

from __future__ import annotations

import re
import time

import pytest

from ..support.process import LEAVE, LEFT_OPEN, Script, run

#: Ends of processes with and without shutdown(), in every state. Each tells the time and then ends.
ENDINGS = {
    "at once": "",
    "with a function": "w.register_function('f-' + w.worker_id, lambda d: d)",
    "with a running handler": """
import threading
started = threading.Event()
def slow(d):
    started.set()
    threading.Event().wait(60)
w.register_function('f-' + w.worker_id, slow)
call = w.submit('f-' + w.worker_id)
assert started.wait(20)
""",
    "with an open writer": "c = w.create_channel(); c.writer.write(b'x')",
    "with a forgotten writer": "w.create_channel().writer.write(b'x')",
    "with a reader in the middle": """
import time
c = w.create_channel(); c.writer.write(b'xy'); c.writer.close(); c.reader.read(1)
while not c.reader._inbox.over: time.sleep(0.001)  # else its connection is cut, and there is a word about it
""",
    "with a blocked reader": """
import threading, time
c = w.create_channel()
threading.Thread(target=c.reader.read, daemon=True).start()
while c.reader._connection is None: time.sleep(0.001)
""",
    "after an exception": f"import sys; sys.excepthook = lambda *a: None{LEAVE}raise KeyError",
    "from a thread": """
import threading
def use():
    global other
    other = register_worker(sys.argv[1])
    other.trigger('engine::baggage::get', {'key': 'x'})
t = threading.Thread(target=use); t.start(); t.join()
""",
    "after shutdown": "w.shutdown()",
}


#: After these development mode has a word about the stream that nobody closed.
CUT = ("with an open writer", "with a forgotten writer")

#: A forgotten one is logged, too, where the process lasts long enough for that.
LOGGED = re.compile(r"<iii_sync\.ChannelWriter .* open> was not closed: its stream was cut; use it in .*\n")


@pytest.mark.parametrize("dev", [True, False])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_ends_within_two_seconds_and_silently(engine_url: str, ending: str, dev: bool) -> None:
    """With and without shutdown(), whatever is going on; nothing on stderr, but in development mode that one word."""
    script = Script(
        "import sys\nfrom iii_sync import register_worker\nw = register_worker(sys.argv[1])\n"
        + ENDINGS[ending]
        + LEAVE,
        engine_url,
        dev=dev,
    )
    code, took = script.leave()
    said = script.stderr()
    if ending == "with a forgotten writer":
        said = LOGGED.sub("", said, count=1)
    assert LEFT_OPEN.fullmatch(said) if dev and ending in CUT else said == "", said
    assert code == (1 if ending == "after an exception" else 0)
    assert took <= 2.0


INTERRUPTED = {
    "trigger": "w.trigger(slow)",
    "trigger with channels": "w.trigger(slow, {'reader': w.create_channel().reader_ref})",
    "result": "w.submit(slow).result()",
    "read": "w.create_channel().reader.read(1)",
    "write": """
c = w.create_channel()
while True: c.writer.write(bytes(100_000))
""",
    "close": """
c = w.create_channel()
for _ in range(70): c.writer.write(b'x')
c.writer.close()
""",
    "write behind another thread": """
writer = w.create_channel().writer
def fill():
    try:
        while True: writer.write(bytes(1_000_000))
    except errors.ChannelError: pass
threading.Thread(target=fill, daemon=True).start()
while True:
    before = writer.tell()
    time.sleep(0.3)
    if before and writer.tell() == before: break
writer.write(b'x')
""",
    "write behind another thread that connects": """
w._ends._address = type(w._ends._address)(silent)
writer = w.create_channel().writer
def connect():
    try: writer.write(b'x')
    except errors.IIISyncError: pass
threading.Thread(target=connect, daemon=True).start()
accepted, _ = listener.accept()
try: writer.write(b'x')
finally: accepted.close()
""",
    "leaving an open file": """
with w.open(slow, 'wb') as f:
    f.write(b'x')
""",
    "wait": "w.wait()",
    "wait with a timeout": "w.wait(60)",
    "connect": "register_worker(silent)",
}

#: After these an end is left open, and there is a word about it.
BROKEN = ("read", "write", "close", "write behind another thread")


# A signal that another thread gets does not wake the main thread; nor does one that comes as it falls asleep.
@pytest.mark.parametrize("wakes", [True, False])
@pytest.mark.parametrize("blocked", INTERRUPTED)
def test_ctrl_c_ends_every_blocking_call_and_the_worker_stays_usable(
    engine_url: str, blocked: str, wakes: bool
) -> None:
    """KeyboardInterrupt within half a second, and then a call works, on the same control connection.

    What a busy machine adds does not count: the time for which threads of the program wait for a processor.
    """
    body = INTERRUPTED[blocked].strip().replace("\n", "\n    ")
    script = Script(
        f"""
import signal, socket, sys, threading, time
from iii_sync import errors, register_worker
from tests.support.moments import tell, until_asleep
w = register_worker(sys.argv[1], close_timeout=60)
me, heard = w.worker_id, []
w.add_connection_state_listener(heard.append)
listener = socket.create_server(('127.0.0.1', 0))
silent = 'ws://127.0.0.1:%d' % listener.getsockname()[1]
release = threading.Event()
slow = w.register_function('slow-' + w.worker_id, lambda d: release.wait(60)).id
main = threading.main_thread().ident
def watch():
    # "blocked" once the main thread has stopped moving
    last = None
    while True:
        frame = sys._current_frames()[main]
        here = (frame.f_code, frame.f_lasti)
        if here == last and 'iii_sync' in ''.join(f.f_code.co_filename for f in chain(frame)): break
        last = here
        time.sleep(0.3)
    print('blocked')
    if {not wakes}:
        until_asleep()
        tell('sent')
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
def chain(frame):
    while frame: yield frame; frame = frame.f_back
threading.Thread(target=watch, daemon=True).start()
try:
    {body}
except KeyboardInterrupt:
    tell('interrupted')
w.trigger('engine::baggage::get', {{'key': 'x'}}, timeout=10)
assert (w.worker_id, heard) == (me, []), heard
print('usable')
release.set()
listener.close()
""",
        engine_url,
    )
    script.until("blocked")
    sent = script.interrupt() if wakes else script.moment("sent")
    assert script.moment("interrupted").since(sent) <= 0.5
    script.until("usable")
    assert script.end() == 0, script.stderr()
    assert blocked in BROKEN or script.stderr() == ""


def test_a_forked_child_cannot_use_the_parents_worker_and_does_not_disturb_it(engine_url: str) -> None:
    """Clear errors in the child, its own worker works, and the parent's streams and calls go on."""
    run(
        """
import gc, os, sys
from iii_sync import errors, register_worker
w = register_worker(sys.argv[1])
echo = w.register_function('echo-' + w.worker_id, lambda d: d).id
c = w.create_channel()
c.writer.write(b'before ')
assert c.reader.read(7) == b'before '
pid = os.fork()
if pid == 0:
    code = 1
    try:
        for use in (lambda: w.trigger(echo), lambda: w.submit(echo), lambda: w.register_function('x', print),
                    lambda: w.create_channel(), lambda: w.wait(1), lambda: c.writer.write(b'x'),
                    lambda: c.reader.read(1), lambda: w.__enter__(), lambda: w.open_ref(c.reader_ref)):
            try:
                use()
            except errors.ForkedWorkerError as exc:
                assert 'parent' in str(exc)
            else:
                raise AssertionError(use)
        w.shutdown(); c.writer.close(); c.reader.close(); c.writer.abort()
        with register_worker(sys.argv[1]) as mine:
            assert mine.trigger(echo, 'from the child') == 'from the child'
        del w, c
        gc.collect()
        code = 0
    finally:
        os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert w.trigger(echo, 'after') == 'after'
with c.writer as f: f.write(b'after')
assert c.reader.read() == b'after' and c.reader.complete
""",
        engine_url,
    )


def test_a_forked_child_closes_its_copies_whatever_the_parents_threads_hold(engine_url: str) -> None:
    """A lock that was held during the fork is never given back in the child."""
    run(
        """
import os, sys, threading, warnings
from iii_sync import register_worker
warnings.simplefilter('ignore', DeprecationWarning)
with register_worker(sys.argv[1]) as w:
    c = w.create_channel()
    f = w.register_function('f-' + w.worker_id, lambda d: d)
    locks = [c.writer._state_lock, c.reader._state_lock, w._lock, w._ends._lock, w._functions._lock]
    held, free = threading.Event(), threading.Event()
    def hold():
        for lock in locks: lock.acquire()
        held.set()
        free.wait(20)
        for lock in locks: lock.release()
    t = threading.Thread(target=hold); t.start()
    held.wait(20)
    pid = os.fork()
    if not pid:
        c.reader.close(); c.writer.abort(); c.writer.close(); f.unregister(); w.shutdown()
        os._exit(0)
    free.set()
    t.join()
    import time
    end = time.monotonic() + 10
    while time.monotonic() < end and os.waitpid(pid, os.WNOHANG) == (0, 0): time.sleep(0.01)
    assert time.monotonic() < end, os.kill(pid, 9)
    c.writer.close()
    c.reader.read()
""",
        engine_url,
    )


def test_a_shutdown_behind_the_end_of_the_process_does_not_wait(engine_url: str) -> None:
    """An atexit function from before the import runs last of all."""
    started = time.monotonic()
    run(
        """
import atexit, sys
atexit.register(lambda: w.shutdown())
from iii_sync import register_worker
w = register_worker(sys.argv[1], shutdown_timeout=20)
""",
        engine_url,
    )
    assert time.monotonic() - started < 10


def test_a_child_that_outlives_its_parent_does_not_hold_the_parents_streams_open(engine_url: str) -> None:
    """The engine sees the end of a killed parent although a forked child lives on."""
    run(
        """
import os, signal, sys, time
from iii_sync import errors, register_worker
observer = register_worker(sys.argv[1])
channel = observer.create_channel()
ref = channel.writer_ref.model_dump()
observer_pid = os.getpid()
r, wr = os.pipe()
parent = os.fork()
if parent == 0:
    w = register_worker(sys.argv[1])
    end = w.open_ref(ref)
    end.write(b'half')
    child = os.fork()
    if child == 0:
        os.write(wr, b'%d\\n' % os.getpid())
        time.sleep(60)
    os.waitpid(child, 0)
    os._exit(0)
child = int(os.read(r, 100))
assert channel.reader.read(4) == b'half'
os.kill(parent, signal.SIGKILL)
os.waitpid(parent, 0)
channel.reader.timeout = 20
try:
    channel.reader.read(1)
except errors.ChannelTruncatedError:
    print('seen')
os.kill(child, signal.SIGKILL)
observer.shutdown()
""",
        engine_url,
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(engine_url: str, method: str) -> None:
    """Every start method, with a worker alive in the parent."""
    run(
        """
import multiprocessing, sys
import tests.process.in_child as in_child
if __name__ == '__main__':
    from iii_sync import register_worker
    with register_worker(sys.argv[1]) as w:
        function = w.register_function('double-' + w.worker_id, lambda d: d * 2).id
        context = multiprocessing.get_context(sys.argv[2])
        with context.Pool(3) as pool:
            got = pool.starmap(in_child.call, [(sys.argv[1], function, n) for n in range(9)])
            pool.close(); pool.join()
        assert got == [n * 2 for n in range(9)], got
""",
        engine_url,
        method,
    )


def test_wait_ends_when_the_worker_is_shut_down(engine_url: str) -> None:
    """A process that only waits stays alive until somebody ends its worker."""
    run(
        """
import sys, threading
from iii_sync import register_worker
w = register_worker(sys.argv[1])
assert w.wait(0.2) is False
threading.Timer(0.2, w.shutdown).start()
assert w.wait(20) is True
""",
        engine_url,
    )


#: What calling functions and using channels takes; and what the first connection adds to it.
IMPORTED = """
    _version annotations annotations.formats arguments calling calls channels channels.channel channels.end
    channels.ends channels.files channels.outgoing channels.reader channels.refs channels.writer errors functions net
    net.address net.attempts net.connect net._direct net.connection net.dial net.direct net.inbox net.loop net.lowwater
    net.proxy net.tls net.waiting net.windows official pool registrations request session session.announcing
    session.link session.pending session.reconnecting session.registering session.repeated session.session
    session.states suspicion tracing wire wire._frames wire._mask wire.entropy wire.frames wire.growing wire.marks
    wire.mask wire.messages wire.objects worker
"""
CONNECTED = "net.handshake options"


def test_importing_is_light() -> None:
    """Nothing is imported before it is needed: no TLS, no dataclasses, no triggers, no HTTP functions; no threads."""
    run(
        """
import sys, threading
import urllib.parse  # which newer Pythons let import ipaddress
before = set(sys.modules)
import iii_sync
new = set(sys.modules) - before
ours = {name[9:] for name in new if name.startswith('iii_sync.')}
assert ours <= set(sys.argv[1].split()), ours - set(sys.argv[1].split())
heavy = {'asyncio', 'dataclasses', 'difflib', 'email', 'hashlib', 'http', 'inspect', 'ipaddress', 'platform', 'signal',
    'ssl', 'subprocess', 'tempfile', 'typing_extensions', 'unicodedata', 'uuid', 'websocket'}
assert not heavy & new, heavy & new
assert threading.active_count() == 1
""",
        IMPORTED,
    )


def test_calling_is_light(engine_url: str) -> None:
    """Nor does a program that calls functions and uses channels load what it does not use."""
    run(
        """
import sys
before = set(sys.modules)
from iii_sync import register_worker
with register_worker(sys.argv[1]) as w:
    w.trigger('engine::baggage::get', {'key': 'k'})
    c = w.create_channel()
    w.submit('engine::baggage::get', {'key': 'k'}).result(30)
    c.writer.write(b'data')
    assert c.reader.read(4) == b'data'
    c.writer.close()
new = set(sys.modules) - before
ours = {name[9:] for name in new if name.startswith('iii_sync.')}
assert ours <= set(sys.argv[2].split()), ours - set(sys.argv[2].split())
heavy = {'asyncio', 'difflib', 'email', 'numpy', 'platform', 'subprocess', 'tempfile', 'unicodedata', 'uuid'}
assert not heavy & new, heavy & new
""",
        engine_url,
        IMPORTED + CONNECTED,
    )


def test_threads_that_import_at_once_get_the_same() -> None:
    """What is imported at first use comes whole to everybody, and can be pickled, listed, and had with a star."""
    run(
        """
import pickle, sys, threading
import iii_sync
assert set(iii_sync.__all__) <= set(dir(iii_sync))
start, got = threading.Barrier(8), []
def look():
    start.wait(30)
    got.append([getattr(iii_sync, name) for name in iii_sync.__all__])
threads = [threading.Thread(target=look) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join(30)
assert len(got) == 8 and all(a is b for names in got for a, b in zip(names, got[0]))
try: iii_sync.nothing
except AttributeError as exc: assert "'iii_sync' has no attribute 'nothing'" in str(exc)
else: raise AssertionError
star = {}
exec('from iii_sync import *', star)
assert set(iii_sync.__all__) <= set(star)
assert pickle.loads(pickle.dumps(iii_sync.HttpAuthBearer)) is iii_sync.HttpAuthBearer
assert pickle.loads(pickle.dumps(iii_sync.HttpAuthBearer('KEY'))) == iii_sync.HttpAuthBearer('KEY')
"""
    )
