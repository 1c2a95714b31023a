"""Environments that have the official SDKs, made the first time and kept in the cache."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent

#: How long a registry may take.
_WAIT = 240


class NoEnvironment(Exception):
    """An SDK cannot be run here; the message says why."""


def python_sdk() -> str:
    """Return a Python that has the official Python SDK.

    Raises:
        NoEnvironment: There is no Python that it runs on, or the registry cannot be reached.
    """
    python = _new_python()
    place = _place("python", python, "requirements.txt")
    program = place / "env" / "bin" / "python"
    with _alone(place):
        if not (place / "complete").exists():
            _begin(place)
            _run([python, "-m", "venv", str(place / "env")])
            pip = [str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]
            _run([*pip, "-r", str(HERE / "requirements.txt")])
            (place / "complete").touch()
    return str(program)


def node_sdk() -> tuple[str, Path]:
    """Return the program of Node, and a ``node_modules`` that has the official Node SDK.

    Raises:
        NoEnvironment: There is no Node with npm, or the registry cannot be reached.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NoEnvironment("the Node SDK needs node and npm on the PATH")
    place = _place("node", node, "package.json")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1"]
    with _alone(place):
        if not (place / "complete").exists():
            _begin(place)
            shutil.copy(HERE / "package.json", place)
            _run([*command, "--prefix", str(place)])
            (place / "complete").touch()
    return node, place / "node_modules"


def _new_python() -> str:
    """The running Python if it is new enough for the SDK, else one on the PATH, else one of pyenv's."""
    if sys.version_info >= (3, 10):
        return sys.executable
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    minors = range(13, 9, -1)
    candidates = [shutil.which(f"python3.{minor}") for minor in minors]
    candidates += [path for minor in minors for path in glob.glob(f"{root}/versions/3.{minor}.*/bin/python")]
    for candidate in filter(None, candidates):
        # pyenv's shim on the PATH refuses to work where its version is not the chosen one, so each is tried out.
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run([candidate, "-m", "venv", "--help"], check=True, capture_output=True, timeout=30)
            return candidate
    raise NoEnvironment("the Python SDK needs Python 3.10 or newer: put python3.10 or a newer one on the PATH")


def _place(name: str, program: str, wanted: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iii_sync"
    key = f"{program}\n{os.path.realpath(program)}\n".encode() + (HERE / wanted).read_bytes()
    return cache / f"interop-{name}-{hashlib.sha256(key).hexdigest()[:12]}"


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Keep other processes out meanwhile: the tests run in several."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _begin(place: Path) -> None:
    # Nothing half-made is used, and an environment cannot be moved: begin anew.
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_WAIT,
        )
    except subprocess.TimeoutExpired:
        raise NoEnvironment(f"{' '.join(command)}: not done after {_WAIT} s") from None
    if done.returncode:
        # Installers say a lot: this goes into one line.
        errors = [line for line in done.stdout.splitlines() if "error" in line.lower()]
        raise NoEnvironment(f"{' '.join(command)}: exit status {done.returncode}: {'; '.join(errors[:4])}")
