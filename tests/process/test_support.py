"""The tests' own tools: a program that is stuck says where."""

from __future__ import annotations

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
