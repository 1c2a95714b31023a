"""Ctrl-C and SIGTERM: every wait ends, and what was going on ends in order."""

from __future__ import annotations

import functools
import signal
import sys
import threading
import time

import pytest

from iii_sync import register_worker

from ..support.interrupts import Interrupter
from ..support.process import WAIT, Script, run
from ..support.threads import in_thread
from ..support.waiting import wait_until

every_step = pytest.mark.skipif(sys.version_info < (3, 10), reason="3.9 looks for signals where no lock is safe")

#: Waits that need a stage of their own. Each blocks in its last line.
INTERRUPTED = {
    "connect to a black hole": """
listener = socket.socket()
listener.bind(('127.0.0.1', 0))
listener.listen(0)
# A full backlog: the kernel answers no further SYN.
filling = []
for _ in range(8):
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(listener.getsockname())
    filling.append(sock)
opened += [listener, *filling]
url = 'ws://127.0.0.1:%d' % listener.getsockname()[1]
time.sleep(0.2)
print('blocked')
register_worker(url, connect_timeout=60)
""",
    "a handshake that stalls": """
listener = socket.create_server(('127.0.0.1', 0))
opened += [listener]
url = 'ws://127.0.0.1:%d' % listener.getsockname()[1]
print('blocked')
register_worker(url, connect_timeout=60)
""",
    "a hello that never comes": """
def serve():
    sock, _ = listener.accept()
    opened.append(sock)
    request = b''
    while not request.endswith(b'\\r\\n\\r\\n'): request += sock.recv(1000)
    key = [line for line in request.split(b'\\r\\n') if line.lower().startswith(b'sec-websocket-key')][0].split()[1]
    accept = base64.b64encode(hashlib.sha1(key + b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest())
    sock.sendall(b'HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n'
                 b'Sec-WebSocket-Accept: ' + accept + b'\\r\\n\\r\\n')
    print('blocked')
listener = socket.create_server(('127.0.0.1', 0))
opened += [listener]
threading.Thread(target=serve, daemon=True).start()
register_worker('ws://127.0.0.1:%d' % listener.getsockname()[1], connect_timeout=60)
""",
    "leaving an open file": """
f = w.open(slow, 'wb')
f.write(b'x')
with f: print('blocked')
""",
    "a line of a file": """
f = w.open(slow, 'r')
try:
    print('blocked')
    f.readline()
finally: f.buffer.abort()
""",
}

STAGE = """
import base64, hashlib, signal, socket, sys, threading, time
from iii_sync import errors, register_worker
from tests.support.moments import tell
w = register_worker(sys.argv[1], close_timeout=60)
release, opened = threading.Event(), []
slow = w.register_function('slow-' + w.worker_id, lambda d: release.wait(60)).id
"""


@pytest.mark.parametrize("blocked", INTERRUPTED)
def test_ctrl_c_ends_a_wait_and_the_worker_stays_usable(engine_url: str, blocked: str) -> None:
    """KeyboardInterrupt within half a second, a call works then, and the process ends without a word.

    What a busy machine adds does not count: the time for which threads of the program wait for a processor.
    """
    body = INTERRUPTED[blocked].strip().replace("\n", "\n    ")
    script = Script(
        f"""{STAGE}
try:
    {body}
except KeyboardInterrupt:
    tell('interrupted')
w.trigger('engine::baggage::get', {{'key': 'x'}}, timeout=10)
print('usable')
release.set()
for sock in opened: sock.close()
""",
        engine_url,
    )
    script.until("blocked")
    time.sleep(0.3)  # from the line to the wait
    sent = script.interrupt()
    assert script.moment("interrupted").since(sent) <= 0.5
    script.until("usable")
    assert (script.end(), script.stderr()) == (0, "")


def test_ctrl_c_ends_a_shutdown_that_waits_and_the_worker_all_the_same(engine_url: str) -> None:
    """The interruption ends the waiting for a handler; the connection and the reader thread are gone then.

    All of it within half a second, not counting what a busy machine adds.
    """
    script = Script(
        f"""{STAGE}
began = threading.Event()
def work(d):
    began.set()
    release.wait(60)
call = w.submit(w.register_function('work-' + w.worker_id, work).id)
assert began.wait(20)
def look():
    while not w._ending: time.sleep(0.001)
    print('blocked')
threading.Thread(target=look).start()
try:
    w.shutdown(60)
except KeyboardInterrupt:
    tell('interrupted')
assert not [t.name for t in threading.enumerate() if t.name.startswith('iii-io')]
assert w.get_connection_state() == 'disconnected' and w.wait(0) is True
try: call.result(5)
except errors.WorkerClosedError: print('ended')
release.set()
""",
        engine_url,
    )
    script.until("blocked")
    time.sleep(0.3)
    sent = script.interrupt()
    assert script.moment("interrupted").since(sent) <= 0.5
    script.until("ended")
    assert (script.end(), script.stderr()) == (0, "")


WAITING = """
import signal, sys, threading, time
from iii_sync import errors, register_worker
from tests.support.moments import leave
with register_worker(sys.argv[1], shutdown_timeout={patience}) as w:
    caller = register_worker(sys.argv[1])
    began = threading.Event()
    def work(d):
        began.set()
        time.sleep({seconds})
        return 'finished'
    call = caller.submit(w.register_function('work-' + w.worker_id, work).id)
    assert began.wait(20)
    def look():
        while signal.getsignal(signal.SIGTERM) == signal.SIG_DFL: time.sleep(0.001)
        print('waiting')
    threading.Thread(target=look).start()
    {wait}
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
print(call.result(20))
caller.shutdown()
"""


@pytest.mark.parametrize("wait", ["assert w.wait() is True", "assert w.wait(60) is True"])
def test_sigterm_ends_the_wait_and_running_handlers_finish(engine_url: str, wait: str) -> None:
    """``with`` and ``wait()`` are enough for a process that a supervisor stops: the exit code is 0."""
    script = Script(WAITING.format(wait=wait, seconds=1, patience=5), engine_url)
    script.until("waiting")
    script.send(signal.SIGTERM)
    script.until("finished")
    assert (script.end(), script.stderr()) == (0, "")


def test_sigterm_that_another_thread_gets_ends_the_wait(engine_url: str) -> None:
    """A program that only offers functions is stopped in order then, too."""
    script = Script(
        """
import signal, sys, threading, time
from iii_sync import register_worker
def end():
    while signal.getsignal(signal.SIGTERM) == signal.SIG_DFL: time.sleep(0.001)
    time.sleep(0.3)
    print('sending')
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    time.sleep(60)
with register_worker(sys.argv[1]) as w:
    threading.Thread(target=end, daemon=True).start()
    assert w.wait() is True
    print('ended')
""",
        engine_url,
    )
    script.until("sending")
    script.until("ended")
    assert (script.end(), script.stderr()) == (0, "")


def test_sigterm_does_not_wait_for_a_handler_beyond_the_deadline(engine_url: str) -> None:
    """It has three quarters of ``shutdown_timeout`` to finish; then its caller hears that nobody will answer."""
    script = Script(
        WAITING.replace("print(call.result(20))", "print(type(call.exception(20)).__name__)").format(
            wait="w.wait(); leave()", seconds=60, patience=0.8
        ),
        engine_url,
    )
    script.until("waiting")
    script.send(signal.SIGTERM)
    left = script.moment("leaving").time
    assert (script.end(), script.stderr(), script.lines[-1]) == (0, "", "InvocationError")
    assert 0.6 <= time.monotonic() - left <= 5.0  # the handler takes a minute


def test_a_second_sigterm_does_not_wait(engine_url: str) -> None:
    """While handlers are being waited for, SIGTERM does what it always did."""
    script = Script(WAITING.format(wait="w.wait(); print('leaving')", seconds=60, patience=5), engine_url)
    script.until("waiting")
    script.send(signal.SIGTERM)
    script.until("leaving")
    script.send(signal.SIGTERM)
    assert script.end() == -signal.SIGTERM


@every_step
def test_sigterm_is_never_swallowed_by_a_wait_that_ctrl_c_has_ended(
    local_engine_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the interruption has kept from being done: SIGTERM ends the process, and at once so."""
    ended: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", ended.append)
    interrupter, at = Interrupter(), 0
    with register_worker(local_engine_url) as worker:
        worker.wait(0.001)  # what it needs is imported now

        def wait() -> None:
            try:
                worker.wait(0.001)
            except KeyboardInterrupt:  # what it came through lives on meanwhile
                handler = signal.getsignal(signal.SIGTERM)
                if callable(handler):
                    ended.clear()
                    handler(signal.SIGTERM, None)
                    assert ended == [signal.SIGTERM], interrupter.where
                assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
                raise

        while interrupter.interrupt(at, wait):
            assert "->" not in interrupter.where, interrupter.where
            at += 1
    assert at > 50


@every_step
def test_a_wait_behind_one_that_ctrl_c_has_ended_is_ended_by_sigterm(
    local_engine_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, although the handler of the first may still be set."""
    monkeypatch.setattr(signal, "raise_signal", lambda number: None)  # a failure must not end the tests
    interrupter, at = Interrupter(), 0

    def send(left: object) -> None:
        # Not before the second wait has set its own: SIGTERM would end the tests.
        wait_until(lambda: signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, left), "the second wait")
        time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    while True:
        with register_worker(local_engine_url) as worker:
            interrupted = interrupter.interrupt(at, lambda worker=worker: worker.wait(0.001))  # type: ignore[misc]
            sent = in_thread(functools.partial(send, signal.getsignal(signal.SIGTERM)))
            assert worker.wait(WAIT) is True, interrupter.where
            sent()
        if not interrupted:
            break
        at += 7


def test_sigterm_outside_wait_and_the_handlers_of_others_are_left_alone(engine_url: str) -> None:
    """A program's own handler is called, and a wait on another thread sets none."""
    script = Script(
        """
import signal, sys, threading, time
from iii_sync import register_worker
with register_worker(sys.argv[1]) as w:
    waiter = threading.Thread(target=w.wait)
    waiter.start()
    time.sleep(0.2)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    def own(number, frame):
        print('own')
        threading.Timer(0.2, w.shutdown).start()
    signal.signal(signal.SIGTERM, own)
    print('waiting')
    assert w.wait() is True
    assert signal.getsignal(signal.SIGTERM) is own
waiter.join()
""",
        engine_url,
    )
    script.until("waiting")
    script.send(signal.SIGTERM)
    script.until("own")
    assert (script.end(), script.stderr()) == (0, "")


#: What the main thread may hold when a signal comes.
LOCKS = """
    _lock _ends._lock _functions._lock _registrations._lock _registrations._tables.triggers._lock
    _registrations._tables.providers._lock _session._lock _session._pending._lock _session._states._lock
    _session._registering._lock _session._reconnecting._lock _loop.attempts._lock _pool._lock
"""


def test_a_handler_that_calls_shutdown_does_not_wait_for_what_it_has_interrupted(engine_url: str) -> None:
    """Whatever the main thread was amid: a call, a registration, a write, the connecting of an end."""
    run(
        """
import faulthandler, logging, operator, signal, sys
from iii_sync import TriggerHandler, register_worker
logging.getLogger('iii_sync').setLevel(logging.CRITICAL)
faulthandler.dump_traceback_later(20, exit=True)
signal.signal(signal.SIGTERM, lambda number, frame: w.shutdown(0.02))
class Handler(TriggerHandler):
    def register_trigger(self, config): pass
    def unregister_trigger(self, config): pass
def hit(find):
    global w
    w = register_worker(sys.argv[1])
    w.register_trigger_type('type-' + w.worker_id, 'x', Handler())
    c = w.create_channel()
    c.writer.write(b'x')
    with find(w, c):
        signal.raise_signal(signal.SIGTERM)
    w.wait(20)
    assert not w._loop._thread.join(20) and w.get_connection_state() == 'disconnected'
for name in sys.argv[2].split():
    hit(lambda w, c: operator.attrgetter(name)(w))
hit(lambda w, c: c.writer._state_lock)
hit(lambda w, c: c.reader._state_lock)
""",
        engine_url,
        LOCKS,
    )


def test_a_second_signal_whose_handler_calls_shutdown_too_does_not_wait_for_the_first(engine_url: str) -> None:
    """Nor does it wait for itself; running handlers still finish."""
    script = Script(
        """
import signal, sys, threading
from iii_sync import register_worker
caller, w = register_worker(sys.argv[1]), register_worker(sys.argv[1])
began, release, handled = threading.Event(), threading.Event(), []
def work(d):
    began.set()
    release.wait(20)
    return 'finished'
call = caller.submit(w.register_function('work-' + w.worker_id, work).id)
assert began.wait(20)
def handle(number, frame):
    handled.append(number)
    print('handling', len(handled))
    if len(handled) == 2: release.set()
    w.shutdown(40)
    print('handled')
signal.signal(signal.SIGTERM, handle)
signal.raise_signal(signal.SIGTERM)
print(call.result(20))
caller.shutdown()
""",
        engine_url,
    )
    script.until("handling 1")
    started = time.monotonic()
    script.send(signal.SIGTERM)
    script.until("handled")
    assert time.monotonic() - started < 5.0
    script.until("finished")
    assert (script.end(), script.stderr()) == (0, "")
