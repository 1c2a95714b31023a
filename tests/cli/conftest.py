"""Starts commands as a shell would, with warnings as errors, and sees to it that they are gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
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


class Start(Protocol):
    """Starts ``python -m iii_sync`` and returns the process; its output is piped."""

    def __call__(
        self,
        *arguments: str,
        url: str = "",
        without: Optional[str] = None,
        variables: Optional[Mapping[str, str]] = None,
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
        variables: Optional[Mapping[str, str]] = None,
        stderr: Union[int, IO[bytes]] = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        program = ["-m", "iii_sync"] if without is None else ["-c", WITHOUT, without]
        environment = {**os.environ, "PYTHONPATH": HOME, "PYTHONWARNINGS": "error"}
        environment.update(III_URL=url, TMPDIR=str(scratch))
        environment.update(variables or {})
        process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            universal_newlines=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
