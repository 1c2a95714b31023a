"""gunicorn as a child process: started, watched, stopped as a supervisor does it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from .engines import free_ports
from .process import ROOT, WAIT


class Gunicorn:
    """A gunicorn that serves an application, and what it writes.

    Args:
        application: ``module:name``.
        directory: Where it runs and leaves its log.
        variables: Added to its environment.
        arguments: More of its command line.
    """

    def __init__(self, application: str, directory: Path, variables: Mapping[str, str], *arguments: str) -> None:
        (self.port,) = free_ports(1)
        self._log = directory / "log"
        environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1", HOME=str(directory))
        environment.update(variables)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-X", "dev", "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}"),
                    *("--timeout", "30", "--graceful-timeout", "10", *arguments, application),
                ],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait_until_listening(self) -> None:
        """Block until it accepts connections."""
        end = time.monotonic() + WAIT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=WAIT).close()
                return
            except OSError:
                assert time.monotonic() < end and self.running(), self.said()
                time.sleep(0.05)

    def pids(self) -> list[int]:
        """Its processes that serve; in Linux only."""
        return [
            int(pid) for pid in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        ]

    def said(self) -> str:
        """Its log."""
        return self._log.read_text()

    def complaints(self) -> list[str]:
        """Lines of it that should not be there. gunicorn itself does not close what it listens on."""
        own = (f"laddr=('127.0.0.1', {self.port})>", "Enable tracemalloc")
        return [
            line
            for line in self.said().splitlines()
            if any(word in line for word in ("Traceback", "Error", "Warning")) and not any(word in line for word in own)
        ]

    def stop(self) -> float:
        """Stop it as a supervisor does; returns how long it took."""
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(WAIT)
        assert code == 0, (code, self.said())
        return time.monotonic() - started

    def kill(self) -> None:
        """End what is left of it."""
        if self.running():
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(WAIT)
