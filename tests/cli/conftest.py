"""Starts commands as a shell would, with warnings as errors, and sees to it that they are gone afterwards."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Optional, Protocol, Union

import pytest

HOME = str(Path(__file__).resolve().parents[2])

#: Runs the command line in a process that cannot import the module named first.
WITHOUT = """
import sys
sys.modules[sys.argv.pop(1)] = None
from iii_sync.cli.main import main
sys.exit(main())
"""


def finish(process: subprocess.Popen[str], sent: Optional[str] = None) -> tuple[int, str, str]:
    """Wait for a command and all its children, which share its standard error; its exit code and what it wrote."""
    out, err = process.communicate(sent, timeout=60)
    return process.returncode, out, err


def assert_one_line(err: str) -> None:
    """An error as a user wants to see it."""
    assert err.startswith("iii-sync: ")
    assert err.count("\n") == 1


@contextlib.contextmanager
def pipe(blocking: bool) -> Iterator[tuple[int, int]]:
    """Make a pipe whose end for reading, wherever it is inherited, blocks or does not; and close both ends."""
    reading, writing = os.pipe()
    try:
        if not blocking:
            os.set_blocking(reading, False)
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


class Start(Protocol):
    """Starts ``python -m iii_sync``, or the program given, and returns the process; its output is piped."""

    def __call__(
        self,
        *arguments: str,
        url: str = "",
        without: Optional[str] = None,
        program: Sequence[str] = (),
        variables: Optional[Mapping[str, str]] = None,
        cwd: Optional[Path] = None,
        stdin: Union[int, IO[bytes]] = subprocess.DEVNULL,
        stdout: Union[int, IO[bytes]] = subprocess.PIPE,
        stderr: Union[int, IO[bytes]] = subprocess.PIPE,
    ) -> subprocess.Popen[str]: ...


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """The directory that the commands take for temporary files."""
    path = tmp_path / "scratch"
    path.mkdir()
    return path


@pytest.fixture
def start(scratch: Path) -> Iterator[Start]:
    """Starts a command; it is killed after the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(
        *arguments: str,
        url: str = "",
        without: Optional[str] = None,
        program: Sequence[str] = (),
        variables: Optional[Mapping[str, str]] = None,
        cwd: Optional[Path] = None,
        stdin: Union[int, IO[bytes]] = subprocess.DEVNULL,
        stdout: Union[int, IO[bytes]] = subprocess.PIPE,
        stderr: Union[int, IO[bytes]] = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        if not program:
            program = [sys.executable, *(["-m", "iii_sync"] if without is None else ["-c", WITHOUT, without])]
        environment = {**os.environ, "PYTHONPATH": HOME, "PYTHONWARNINGS": "error"}
        environment.update(III_URL=url, TMPDIR=str(scratch))
        environment.update(variables or {})
        process = subprocess.Popen(
            [*program, *arguments],
            env=environment,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            encoding="utf-8",
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
