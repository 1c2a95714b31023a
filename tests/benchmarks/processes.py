"""Processes that are measured, or that measured ones talk to: started, spoken with in lines, and ended."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

from .child import Task

__all__ = ["ROOT", "Child", "Program"]

ROOT = Path(__file__).resolve().parents[2]

_PATIENCE = 60.0


class Program:
    """A process that prints lines and is told lines.

    Args:
        command: Program and arguments.
        environment: Variables to set besides.
    """

    def __init__(self, command: list[str], environment: Optional[dict[str, str]] = None) -> None:
        self._command = command
        # Not a pipe: nobody reads it until something has gone wrong.
        self._errors = tempfile.TemporaryFile()
        # Modules are compiled once, as in an installation, and not in every process that is measured.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**inherited, "OTEL_ENABLED": "false", **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )
        self._pending = b""

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.end()

    def line(self, timeout: float = _PATIENCE) -> str:
        """Return the next line.

        Raises:
            RuntimeError: The process ended, or said nothing for so long; with what it wrote to standard error.
        """
        assert self._process.stdout is not None
        end = time.monotonic() + timeout
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            if not data:
                raise RuntimeError(f"{'nothing came from' if not ready else 'the end of'} {self._described()}")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def tell(self, line: str = "go") -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def wait(self) -> float:
        """Wait until it ends by itself; return when that was, on the monotonic clock."""
        if self._process.wait(_PATIENCE):
            raise RuntimeError(f"the exit status {self._process.returncode} of {self._described()}")
        return time.monotonic()

    def end(self) -> None:
        """Kill it if it still runs."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._errors.close()

    def _described(self) -> str:
        self._errors.seek(0)
        said = self._errors.read()[-3000:].decode(errors="replace")
        return f"{' '.join(self._command)}\n{said}"


class Child(Program):
    """A fresh interpreter, or another program that speaks like it, with a task to measure.

    Args:
        task: What it does.
        environment: Variables to set besides.
        program: In the place of :mod:`.child`.
    """

    def __init__(
        self, task: Task, environment: Optional[dict[str, str]] = None, program: Optional[list[str]] = None
    ) -> None:
        command = program or [sys.executable, "-m", "tests.benchmarks.child"]
        super().__init__([*command, task.as_json()], environment)

    def await_ready(self) -> None:
        """Return when it is connected and warm."""
        self._expect("ready")

    def result(self, seconds: float) -> dict[str, float]:
        """Return what it measured; ``seconds`` is what that should take."""
        return self._expect("done", 20 * seconds + _PATIENCE)

    def _expect(self, what: str, timeout: float = _PATIENCE) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.line(timeout))
        if what not in message:
            raise RuntimeError(f"{message} instead of {what} from {self._described()}")
        return message
