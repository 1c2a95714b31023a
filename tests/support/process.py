"""Scripts in processes of their own, watched line by line."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Optional

from .moments import Moment, moment, of_main_thread

ROOT = Path(__file__).resolve().parents[2]

WAIT = 30.0

#: The last thing that a program does whose end is measured; see :meth:`Script.leave`.
LEAVE = "\nfrom tests.support.moments import leave; leave()\n"

#: All that development mode says about one stream that was left open at the end.
LEFT_OPEN = re.compile(
    r"Exception ignored .*\n"
    r"Traceback .*\n"
    r"(  .*\n)+"
    r"ResourceWarning: <iii_sync\.Channel.*> was not closed: its stream was cut\n"
)


class Script:
    """A Python program in a child process.

    When it does not do what is waited for, every thread of it and of its children writes its stack to stderr, and the
    failure shows them.

    Args:
        source: The program.
        arguments: What it finds in ``sys.argv``.
        dev: Whether it runs in development mode, where warnings are errors; else like anybody's program.
    """

    def __init__(self, source: str, *arguments: str, dev: bool = True) -> None:
        environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1", PYTHONFAULTHANDLER="1")
        environment.update({"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"} if dev else {})
        self._process = subprocess.Popen(
            [sys.executable, "-c", source, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            start_new_session=True,  # a group of its own: its children can be reached as well
        )
        self._rid = weakref.finalize(self, _signal_group, self._process.pid, signal.SIGKILL)
        self.pid = self._process.pid
        self.lines: list[str] = []
        self._queue: queue.Queue[Optional[str]] = queue.Queue()
        self._errors: list[str] = []
        self._threads = [threading.Thread(target=self._read, daemon=True), threading.Thread(target=self._listen)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def _listen(self) -> None:
        assert self._process.stderr is not None
        self._errors.append(self._process.stderr.read())

    def line(self) -> str:
        """The next line the program prints."""
        try:
            line = self._queue.get(timeout=WAIT)
        except queue.Empty:
            raise AssertionError(f"nothing more was printed; so far: {self.lines}\n{self._kill_stuck()}") from None
        if line is None:
            said = self.stderr()
            self._close()
            raise AssertionError(f"the program has ended; so far: {self.lines}\n{said}")
        self.lines.append(line)
        return line

    def _kill_stuck(self) -> str:
        """End it and its children, and return what they wrote to stderr, their stacks last."""
        _signal_group(self.pid, signal.SIGABRT)
        self._threads[1].join(5)  # standard error ends with the last of them: its children may be slower than itself
        _signal_group(self.pid, signal.SIGKILL)
        said = self.stderr()
        self._close()
        return said

    def _close(self) -> None:
        """Let go of a program that has ended, or has closed its output."""
        self._process.wait(WAIT)
        self._rid.detach()
        for thread in self._threads:
            thread.join(WAIT)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def until(self, expected: str) -> None:
        """Read lines until one is ``expected``."""
        while self.line() != expected:
            pass

    def moment(self, word: str) -> Moment:
        """Read lines until the program tells a moment by this word (:func:`tests.support.moments.tell`)."""
        line = self.line()
        while not line.startswith(f"{word} "):
            line = self.line()
        _, at, waited = line.split()
        return Moment(float(at), float(waited))

    def interrupt(self) -> Moment:
        """Ctrl-C; returns the moment before it."""
        now = moment(self.pid)
        self._process.send_signal(signal.SIGINT)
        return now

    def send(self, number: int) -> None:
        """Send any signal."""
        self._process.send_signal(number)

    def stderr(self, timeout: float = WAIT) -> str:
        """What the program has written to stderr, when it has ended."""
        self._threads[1].join(timeout)
        return self._errors[0] if self._errors else "(still running)"

    def end(self, timeout: float = WAIT) -> int:
        """Wait for the end and return the exit code; the rest of the output goes to ``lines``."""
        started = time.monotonic()
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            took = time.monotonic() - started
            said = self._kill_stuck()
            raise AssertionError(f"not ended after {took:.1f} s; so far: {self.lines}\n{said}") from None
        self._close()
        while True:
            line = self._queue.get(timeout=WAIT)
            if line is None:
                return code
            self.lines.append(line)

    def leave(self) -> tuple[int, float]:
        """Wait for the end behind :data:`LEAVE`; returns the exit code, and how many seconds it took from there.

        What a busy machine adds does not count: the time for which the main thread waited for a processor.
        """
        leaving = self.moment("leaving")
        # Its clock is ours. Not wait(timeout), which looks now and then only.
        gone: list[Moment] = []

        def watch() -> None:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            gone.append(of_main_thread(self.pid))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        watcher.join(WAIT)
        code = self.end()
        return code, gone[0].since(leaving)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def run(source: str, *arguments: str, timeout: float = WAIT) -> Script:
    """Run a program to its end, which must be a success without a word on stderr."""
    script = Script(source, *arguments)
    code = script.end(timeout)
    assert (code, script.stderr()) == (0, ""), (code, script.lines, script.stderr())
    return script
