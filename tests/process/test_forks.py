"""Forks at bad moments: while other threads connect, send and receive, and with calls and files inherited."""

from __future__ import annotations

from ..support.process import run


def test_forks_while_threads_connect_send_and_receive(engine_url: str) -> None:
    """Each child works at once; the parent's transfers arrive whole, and its calls are answered."""
    run(
        """
import hashlib, os, random, signal, sys, threading, time, warnings
from iii_sync import errors, register_worker
warnings.simplefilter('ignore', DeprecationWarning)  # "may lead to deadlocks in the child": that is the test
url = sys.argv[1]
w = register_worker(url)
def digest(d):
    h, size = hashlib.sha256(), 0
    for chunk in d['reader']:
        h.update(chunk); size += len(chunk)
    assert d['reader'].complete is True
    return [size, h.hexdigest()]
take = w.register_function('take-' + w.worker_id, digest).id
echo = w.register_function('echo-' + w.worker_id, lambda d: d).id
held = threading.Event()
hold = w.register_function('hold-' + w.worker_id, lambda d: held.wait(60)).id
waiting = w.submit(hold)
done, failures, counts = threading.Event(), [], {'transfer': 0, 'connect': 0, 'call': 0}
def over_and_over(name, function):
    def loop():
        try:
            while not done.is_set():
                function(); counts[name] += 1
        except BaseException as exc:
            failures.append(repr(exc)); raise
    t = threading.Thread(target=loop); t.start(); return t
def transfer():
    data = random.randbytes(random.randrange(1, 3_000_000))
    with w.open(take, 'wb') as f:
        for at in range(0, len(data), 100_000): f.write(data[at:at + 100_000])
    assert f.result == [len(data), hashlib.sha256(data).hexdigest()]
def connect():
    with register_worker(url) as mine: assert mine.trigger(echo, 1) == 1
def call(): assert w.trigger(echo, 'x' * 1000) == 'x' * 1000
threads = [over_and_over('transfer', transfer), over_and_over('transfer', transfer),
           over_and_over('connect', connect), over_and_over('call', call)]
def child():
    for use in (lambda: w.trigger(echo), waiting.result, waiting.exception, lambda: waiting.result(5),
                lambda: waiting.add_done_callback(print)):
        try: use()
        except errors.ForkedWorkerError: pass
        else: raise AssertionError('usable')
    assert waiting.cancel() is False
    with register_worker(url) as mine: assert mine.trigger(echo, 'child', timeout=20) == 'child'
try:
    for _ in range(25):
        time.sleep(random.random() / 20)
        pid = os.fork()
        if not pid:
            code = 1
            try: child(); code = 0
            except BaseException:
                import traceback; traceback.print_exc()
            finally: os._exit(code)
        end = time.monotonic() + 20
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                os.kill(pid, signal.SIGABRT); raise AssertionError('a child is stuck')
            time.sleep(0.002)
finally:
    done.set()
    for t in threads: t.join()
assert not failures and all(counts.values()), (failures, counts)
assert not waiting.done()
held.set()
assert waiting.result(20) is True
w.shutdown()
""",
        engine_url,
        timeout=90,
    )


def test_a_connection_that_is_being_made_is_not_held_open_by_a_child() -> None:
    """Dialled by a thread of the parent when it forked: it ends with the parent, not with the child."""
    run(
        """
import os, signal, socket, sys, threading, time, warnings
from iii_sync import register_worker
warnings.simplefilter('ignore', DeprecationWarning)
listener = socket.create_server(('127.0.0.1', 0))
go_in, go_out = os.pipe()
r, wr = os.pipe()
parent = os.fork()
if not parent:
    url = 'ws://127.0.0.1:%d' % listener.getsockname()[1]
    threading.Thread(target=register_worker, args=(url,), daemon=True).start()
    os.read(go_in, 1)  # the handshake has come
    child = os.fork()
    if not child:
        os.write(wr, b'%d\\n' % os.getpid())
        time.sleep(60)
    os.waitpid(child, 0)
    os._exit(0)
accepted, _ = listener.accept()
listener.close()
accepted.settimeout(20)
request = b''
while not request.endswith(b'\\r\\n\\r\\n'): request += accepted.recv(1000)
os.write(go_out, b'x')
child = b''
while not child.endswith(b'\\n'): child += os.read(r, 100)
os.kill(parent, signal.SIGKILL)
os.waitpid(parent, 0)
try: assert accepted.recv(1) == b''
finally: os.kill(int(child), signal.SIGKILL)
accepted.close()
"""
    )


def test_files_of_the_parent_do_nothing_in_a_child(engine_url: str) -> None:
    """A child that leaves the parent's ``with`` neither waits for the parent's function nor ends its stream."""
    run(
        """
import os, signal, sys, time
from iii_sync import register_worker
w = register_worker(sys.argv[1])
take = w.register_function('take-' + w.worker_id, lambda d: len(d['reader'].read())).id
def forked(child):
    pid = os.fork()
    if not pid:
        code = 1
        try: child(); code = 0
        finally: os._exit(code)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        ended = os.waitpid(pid, os.WNOHANG)
        if ended != (0, 0):
            assert ended[1] == 0, ended
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGABRT)
    raise AssertionError('stuck')
for mode in ('wb', 'w'):
    f = w.open(take, mode)
    data = b'half' if mode == 'wb' else 'half'
    forked(f.close)
    f.write(data)
    forked(f.close)
    f.flush()
    forked(f.close)
    with f: f.write(data)
    assert f.result == 8
def give(d):
    with d['writer'] as f: f.write(b'x' * 10)
give = w.register_function('give-' + w.worker_id, give).id
for mode in ('rb', 'r'):
    f = w.open(give, mode)
    forked(f.close)
    assert len(f.read(4)) == 4
    forked(f.close)
    with f: assert len(f.read()) == 6
w.shutdown()
""",
        engine_url,
    )


def test_a_call_whose_lock_was_held_can_be_looked_at_in_a_child(engine_url: str) -> None:
    """The thread that held it is not in the child: nothing there may wait for the lock."""
    run(
        """
import os, signal, sys, time, warnings
from iii_sync import errors, register_worker
warnings.simplefilter('ignore', DeprecationWarning)
w = register_worker(sys.argv[1])
hold = w.register_function('hold-' + w.worker_id, lambda d: time.sleep(60)).id
waiting, cancelled = w.submit(hold), w.submit(hold)
assert cancelled.cancel()
with waiting._condition, cancelled._condition:
    pid = os.fork()
    if not pid:
        signal.alarm(10)
        code = 1
        try:
            assert not waiting.done() and not waiting.running() and not waiting.cancelled() and not waiting.cancel()
            assert cancelled.done() and cancelled.cancelled() and not cancelled.running()
            assert 'pending' in repr(waiting) and 'done' in repr(cancelled)
            for call in (waiting, cancelled):
                for use in (call.result, call.exception, lambda: call.add_done_callback(print)):
                    try: use()
                    except errors.ForkedWorkerError: pass
                    else: raise AssertionError('usable')
            code = 0
        except BaseException:
            import traceback; traceback.print_exc()
        finally: os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
waiting.cancel()
os._exit(0)  # without the minute the handlers take
""",
        engine_url,
        timeout=40,
    )
