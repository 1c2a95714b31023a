"""The demo's worker process, seen from its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Optional

from typing_extensions import Self

__all__ = ["WorkerProcess"]

_LEAVE_TIMEOUT = 5.0
_OBITUARY_TIMEOUT = 0.5


class WorkerProcess:
    """A running :mod:`.demo_worker`; making one starts it, leaving ``with`` ends it.

    Args:
        url: The engine's address.
        prefix: Of the ids of its functions.
    """

    def __init__(self, url: str, prefix: str) -> None:
        # The child must find this very package, wherever the parent found it.
        home = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "iii_sync.cli.demo_worker", prefix],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "III_URL": url},
            universal_newlines=True,
            # Ctrl-C is for the parent, which ends the child in its own time.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_until_ready(self) -> Optional[str]:
        """Return ``None`` when its functions can be called, else what went wrong.

        Blocks as long as it takes the child to connect, or to give that up.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        return None if line == "ready" else line or "it ended at once"

    def obituary(self) -> Optional[str]:
        """Return how it ended, if it has; waits a moment for that."""
        try:
            status = self._process.wait(_OBITUARY_TIMEOUT)
        except subprocess.TimeoutExpired:
            return None
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return f"the worker process ended in the middle ({how})"

    def leave(self) -> None:
        """Ask it to end and wait until it has nothing more to do, without taking its exit status."""
        self._close_stdin()
        assert self._process.stdout is not None
        self._process.stdout.read()

    def _close_stdin(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._close_stdin()
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_LEAVE_TIMEOUT)
        finally:  # Ctrl-C in the wait, too
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
