"""More ends of processes: the ones that need a stage, and those inside executors."""

from __future__ import annotations

import pytest

from ..support.process import LEAVE, LEFT_OPEN, Script, run

STAGE = """
import sys, threading, time
from iii_sync import register_worker
w = register_worker(sys.argv[1])
began = threading.Event()
def hang(d):
    began.set()
    threading.Event().wait()
hang = w.register_function('hang-' + w.worker_id, hang).id
"""

#: What is going on when the script ends, by itself or by an exception; and whether a stream is cut then.
ENDINGS = {
    "many stuck handlers": ("for _ in range(50): w.submit(hang)\nassert began.wait(20)", False),
    "several workers with stuck handlers": (
        """
others = [register_worker(sys.argv[1]) for _ in range(5)]
for other in others:
    event = threading.Event()
    def stuck(d, event=event):
        event.set()
        threading.Event().wait()
    w.submit(other.register_function('stuck-' + other.worker_id, stuck).id)
    assert event.wait(20)
""",
        False,
    ),
    "a handler in the middle of a stream, both ends here": (
        """
def take(d):
    for chunk in d['reader']: began.set()
f = w.open(w.register_function('take-' + w.worker_id, take).id, 'wb', buffering=0)
f.write(b'x' * 1000)
assert began.wait(20)
""",
        True,
    ),
    "a blocked writer on a thread": (
        """
c = w.create_channel()
def fill():
    while True: c.writer.write(bytes(100_000))
threading.Thread(target=fill, daemon=True).start()
while c.writer._connection is None: time.sleep(0.001)
time.sleep(0.3)
""",
        True,
    ),
    "a thread in the middle of a handshake": (
        """
import socket
silent = socket.create_server(('127.0.0.1', 0))
threading.Thread(
    target=register_worker, args=('ws://127.0.0.1:%d' % silent.getsockname()[1],), daemon=True
).start()
accepted = silent.accept()[0]
accepted.recv(1)
silent.close(); accepted.detach()
""",
        False,
    ),
    "sys.exit in a handler": (
        """
from iii_sync import InvocationError
try: w.trigger(w.register_function('exit-' + w.worker_id, lambda d: sys.exit(3)).id)
except InvocationError as exc: assert 'SystemExit' in str(exc)
""",
        False,
    ),
    "shutdown from a handler": (
        """
w.submit(w.register_function('end-' + w.worker_id, lambda d: w.shutdown()).id)
assert w.wait(20)
""",
        False,
    ),
    "shutdown with a stuck handler": (
        "w.submit(hang)\nassert began.wait(20)\nw.shutdown(1)",
        False,
    ),
}


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        *((ending, "by itself") for ending in ENDINGS),
        ("many stuck handlers", "by an exception"),
        *((ending, "outside development mode") for ending, (_, cut) in ENDINGS.items() if cut),
    ],
)
def test_a_process_ends_in_time(engine_url: str, ending: str, how: str) -> None:
    """At most two seconds behind the last thing that the program does, and without a word.

    In development mode there may be one about a stream that was cut, and only that.
    """
    body, cut = ENDINGS[ending]
    last = "\nsys.excepthook = lambda *a: None\nraise KeyError" if how == "by an exception" else ""
    script = Script(STAGE + body + LEAVE + last, engine_url, dev=how != "outside development mode")
    code, took = script.leave()
    said = script.stderr()
    assert code == (1 if how == "by an exception" else 0), said
    assert took <= 2.0
    if ending == "sys.exit in a handler":
        assert "the handler of exit-" in said
    elif said:
        assert cut and how == "by itself" and LEFT_OPEN.fullmatch(said), said


def test_executors(engine_url: str) -> None:
    """One worker shared by a pool of threads; one worker a process in a pool of processes."""
    run(
        """
import multiprocessing, sys, warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
import tests.process.in_child as in_child
if __name__ == '__main__':
    from iii_sync import register_worker
    warnings.simplefilter('ignore', DeprecationWarning)  # of forks while threads run
    with register_worker(sys.argv[1]) as w:
        echo = w.register_function('echo-' + w.worker_id, lambda d: d).id
        take = w.register_function('take-' + w.worker_id, lambda d: len(d['reader'].read())).id
        def upload(size):
            with w.open(take, 'wb') as f: f.write(bytes(size))
            return f.result
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(lambda n: w.trigger(echo, n), range(200))) == list(range(200))
            assert list(pool.map(upload, range(0, 2_000_000, 50_000))) == list(range(0, 2_000_000, 50_000))
        assert {call.result() for call in as_completed([w.submit(echo, n) for n in range(50)])} == set(range(50))
        context = multiprocessing.get_context('fork')
        with ProcessPoolExecutor(3, mp_context=context, initializer=in_child.begin, initargs=(sys.argv[1],)) as pool:
            assert list(pool.map(in_child.use, [echo] * 20, range(20))) == list(range(20))
""",
        engine_url,
        timeout=60,
    )
