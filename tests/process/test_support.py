"""The tests' own tools: a program that is stuck says where, and one that is late is found to be."""

from __future__ import annotations

import os

import pytest

from ..support.process import Script


@pytest.mark.parametrize("waiting", ["end", "line"])
def test_a_stuck_program_shows_every_stack_of_itself_and_its_children(
    waiting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All threads of the program, and those of a child that it forked."""
    script = Script(
        """
import os, threading, warnings
warnings.simplefilter('ignore', DeprecationWarning)
def stuck_in_a_thread(): threading.Event().wait()
def stuck_in_main(): threading.Event().wait()
def stuck_in_a_child(): threading.Event().wait()
threading.Thread(target=stuck_in_a_thread, daemon=True).start()
r, w = os.pipe()
if not os.fork():
    os.write(w, b'x')
    stuck_in_a_child()
os.read(r, 1)
print('ready')
stuck_in_main()
"""
    )
    script.until("ready")
    monkeypatch.setattr("tests.support.process.WAIT", 2.0)
    with pytest.raises(AssertionError) as info:
        script.end(0.5) if waiting == "end" else script.line()
    for place in ("stuck_in_a_thread", "stuck_in_main", "stuck_in_a_child"):
        assert place in str(info.value)


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="nobody counts the waiting for a processor")
def test_a_program_that_is_late_is_found_to_be_whatever_else_runs() -> None:
    """Time that it spends waiting or computing counts; time for which others have its processor does not."""
    script = Script(
        """
import os, signal, time
from tests.support.moments import moment, tell
def late(number, frame):
    time.sleep(0.3)
    end = time.thread_time() + 0.3
    while time.thread_time() < end: pass
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, late)
processor = {min(os.sched_getaffinity(0))}
os.sched_setaffinity(0, processor)
others = []
for _ in range(3):
    other = os.fork()
    if not other:
        while True: pass
    others.append(other)
try:
    print('ready')
    time.sleep(60)
except KeyboardInterrupt: tell('caught')
for other in others:
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
"""
    )
    script.until("ready")
    sent = script.interrupt()
    caught = script.moment("caught")
    assert 0.6 <= caught.since(sent) + 0.02
    assert caught.since(sent) <= 1.0 < caught.time - sent.time
    assert script.end() == 0
