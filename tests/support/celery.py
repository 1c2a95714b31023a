"""celery with two forked processes as a child process; its broker is a directory, and needs no server."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from .waiting import wait_until


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

    def stop(self) -> None:
        """Stop it as a supervisor does; all its processes must end.

        With one exception, which is none of theirs: when those that run the tasks have ended, billiard's pool may wait
        for ever in the main process, for a lock that one of them took along.
        """
        children = self._children()
        assert children
        self._process.send_signal(signal.SIGTERM)
        wait_until(lambda: not any(map(_runs, children)), "the end of the processes that ran the tasks")
        try:
            assert self._process.wait(20) == 0, self.said()
        except subprocess.TimeoutExpired:
            assert not any(map(_runs, self._children())), self.said()
            self._process.send_signal(signal.SIGABRT)  # it writes where it stands
            self._process.wait(20)
            assert "in _help_stuff_finish" in self.said(), self.said()

    def _children(self) -> set[int]:
        children: set[int] = set()
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # the thread has ended meanwhile
                children.update(map(int, (task / "children").read_text().split()))
        return children


def _runs(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def running_celery(application: str, directory: Path, environment: Mapping[str, str]) -> Iterator[Celery]:
    """Run a celery worker for the length of a block."""
    command = [sys.executable, "-m", "celery", "-A", application, "worker", "--pool", "prefork"]
    quiet = ["--concurrency", "2", "--loglevel", "info", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    log = directory / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *quiet],
            cwd=directory,
            env={**environment, "PYTHONFAULTHANDLER": "1"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield Celery(process, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
