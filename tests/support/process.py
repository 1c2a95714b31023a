"""Scripts in processes of their own, watched line by line."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parents[2]

WAIT = 30.0


class Script:
    """A Python program in a child process; warnings are errors in it."""

    def __init__(self, source: str, *arguments: str) -> None:
        environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONWARNINGS="error", PYTHONUNBUFFERED="1")
        self._process = subprocess.Popen(
            [sys.executable, "-c", source, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
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
        line = self._queue.get(timeout=WAIT)
        assert line is not None, f"the program has ended: {self.stderr(0)}"
        self.lines.append(line)
        return line

    def until(self, expected: str) -> None:
        """Read lines until one is ``expected``."""
        while self.line() != expected:
            pass

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

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
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"not ended after {time.monotonic() - started:.1f} s; so far: {self.lines}") from None
        finally:
            for thread in self._threads:
                thread.join(WAIT)
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()
        while True:
            line = self._queue.get(timeout=WAIT)
            if line is None:
                return code
            self.lines.append(line)


def run(source: str, *arguments: str, timeout: float = WAIT) -> Script:
    """Run a program to its end, which must be a success without a word on stderr."""
    script = Script(source, *arguments)
    code = script.end(timeout)
    assert (code, script.stderr()) == (0, ""), (code, script.lines, script.stderr())
    return script
