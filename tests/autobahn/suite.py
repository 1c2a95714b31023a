"""The suite: a CPython 2.7 to run it, an environment for it in the cache, its fuzzing server as a child process."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

from ..support.engines import free_ports

REQUIREMENTS = Path(__file__).with_name("requirements.txt")

#: The last virtualenv that makes environments for Python 2.7; it brings their pip and setuptools with it.
VIRTUALENV = "virtualenv==20.21.1"

#: Limits and performance, and compression, which is never offered.
EXCLUDED = ["9.*", "12.*", "13.*"]


class NoPython(Exception):
    """There is no CPython 2.7 here."""


class NoEnvironment(Exception):
    """The suite could not be installed."""


class Suite(NamedTuple):
    """A running fuzzing server.

    Attributes:
        url: Where it listens.
        reports: The directory it writes its reports to.
    """

    url: str
    reports: Path

    def results(self) -> dict[str, Any]:
        """What it found, by agent and case."""
        found: dict[str, Any] = json.loads((self.reports / "index.json").read_text("utf-8"))
        return found

    def report(self, name: str) -> dict[str, Any]:
        """The whole record of one case."""
        found: dict[str, Any] = json.loads((self.reports / name).read_text("utf-8"))
        return found


def find_python(given: Optional[str] = None) -> str:
    """Return a CPython 2.7: ``given``, else ``python2.7`` on the PATH, else one of pyenv's.

    Raises:
        NoPython: None of them is one.
    """
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    # pyenv's shim on the PATH refuses to work where 2.7 is not the chosen version, so each is tried out.
    candidates = [given] if given else [shutil.which("python2.7"), *glob.glob(f"{root}/versions/2.7.*/bin/python2.7")]
    for candidate in filter(None, candidates):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            program = "import platform, sys; print(platform.python_implementation() + '%d.%d' % sys.version_info[:2])"
            answer = subprocess.run([candidate, "-c", program], capture_output=True, text=True, timeout=30)
            if answer.stdout.strip() == "CPython2.7":
                return candidate
    raise NoPython(
        f"the Autobahn suite needs CPython 2.7, and {given} is not one"
        if given
        else "the Autobahn suite needs CPython 2.7: name it, or put python2.7 on the PATH or among pyenv's versions"
    )


def environment(python: str) -> Path:
    """Return a virtual environment that has the suite; makes it the first time, which takes about a minute.

    Raises:
        NoEnvironment: It could not be made; what the installer said is in the message.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iii_sync"
    wanted = hashlib.sha256(f"{python}\n{VIRTUALENV}\n".encode() + REQUIREMENTS.read_bytes()).hexdigest()[:12]
    place = cache / f"autobahn-{wanted}"
    complete = place / "complete"
    if not complete.exists():
        # Nothing half-made is used, and an environment cannot be moved: begin anew.
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        tool, made = place / "virtualenv", place / "env"
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([sys.executable, *pip, "--target", str(tool), VIRTUALENV])
        _run(
            [sys.executable, "-m", "virtualenv", "--quiet", "--no-download", "-p", python, str(made)],
            PYTHONPATH=str(tool),
        )
        # Everything it needs is in the list: nothing that is not pinned comes along.
        _run([str(made / "bin" / "python"), "-E", *pip, "--no-deps", "-r", str(REQUIREMENTS)])
        complete.touch()
    return place / "env"


def _run(command: list[str], **variables: str) -> None:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
    except subprocess.TimeoutExpired:
        raise NoEnvironment(f"{' '.join(command)}: not done after 15 minutes") from None
    if done.returncode:
        raise NoEnvironment(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-4000:]}")


@contextlib.contextmanager
def running_suite(place: Path) -> Iterator[Suite]:
    """Run the fuzzing server of the environment ``place`` on a free loopback port; its reports go with it."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="iii-autobahn-") as directory:
        url, reports, programs = f"ws://127.0.0.1:{port}", Path(directory, "reports"), place / "bin"
        specification = {
            "url": url,
            "outdir": str(reports),
            "cases": ["*"],
            "exclude-cases": EXCLUDED,
            "exclude-agent-cases": {},
        }
        Path(directory, "spec.json").write_text(json.dumps(specification))
        with open(Path(directory, "log"), "wb") as log:
            server = subprocess.Popen(
                # Unbuffered: its first words are waited for. Its own -u switches a web server off.
                [programs / "python", "-E", "-u", programs / "wstest", *"-m fuzzingserver -s spec.json -u 0".split()],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait_until_it_listens(server, Path(directory, "log"))
            yield Suite(url, reports)
        finally:
            server.kill()
            server.wait(30)


def _wait_until_it_listens(server: subprocess.Popen[bytes], log: Path) -> None:
    # Its own word: a connection to try it out would count as one that does not speak WebSocket.
    end = time.monotonic() + 60
    while b"\nOk, will run" not in log.read_bytes():
        if server.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the fuzzing server did not start: {log.read_text('utf-8', 'replace')[-4000:]}")
        time.sleep(0.05)
