"""celery with two forked processes as a child process; its broker is a directory, and needs no server."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path


def make_folders(directory: Path) -> None:
    """Make what a broker, results and a home in ``directory`` need."""
    for folder in ("queue", "control", "results", "home"):
        (directory / folder).mkdir()


class Celery:
    """A celery worker that runs, and what it writes.

    Args:
        process: The worker.
        log: Where it writes.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def said(self) -> str:
        """Its log."""
        return self._log.read_text()

    def stop(self, wait: float) -> None:
        """Stop it as a supervisor does; it must end well within ``wait`` seconds."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(wait) == 0, self.said()


@contextlib.contextmanager
def running_celery(application: str, directory: Path, environment: Mapping[str, str]) -> Iterator[Celery]:
    """Run a celery worker for the length of a block."""
    command = [sys.executable, "-m", "celery", "-A", application, "worker", "--pool", "prefork"]
    quiet = ["--concurrency", "2", "--loglevel", "info", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    log = directory / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *quiet], cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        yield Celery(process, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
