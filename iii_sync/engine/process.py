"""An engine in a child process, which ends with its parent."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from .listeners import Plan
from .ports import Ports

_LISTENING = re.compile(
    r"^iii_sync engine listening on ws://\S*:(\d+)"
    r"(?:, HTTP triggers on http://\S*:(\d+))?"
    r"(?:, streams on ws://\S*:(\d+))?"
    r"(?:, guarded on ws://\S*:(\d+))?$"
)


class EngineProcess:
    """A running engine; making one starts it.

    Args:
        plan: Where to listen.
        timeout: Seconds the start may take.

    Raises:
        OSError: The address is in use, or is not one of this machine, or the process failed.
        TimeoutError: It did not come up in time.
    """

    def __init__(self, plan: Plan, timeout: float) -> None:
        command = [sys.executable, "-m", "iii_sync", "engine", "--host", plan.host, "--port", str(plan.port)]
        command.append("--exit-with-parent")
        if plan.http_port is not None:
            command += ["--http-port", str(plan.http_port)]
        if plan.stream_port is not None:
            command += ["--stream-port", str(plan.stream_port)]
        if plan.guard is not None:
            command += ["--guard", json.dumps(plan.guard.to_json())]
        environment = dict(os.environ)
        # The child must find this very package, wherever the parent found it.
        package_home = str(Path(__file__).resolve().parents[2])
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package_home, inherited)))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            universal_newlines=True,
            # Ctrl-C is for the parent, which stops the engine when it is done with it.
            start_new_session=True,
        )
        try:
            self.ports: Ports = self._await_ports(timeout)
        except BaseException:
            self.stop(timeout)
            raise

    def stop(self, timeout: float) -> None:
        """Terminate the process and wait for it, at most ``timeout`` seconds; then kill it."""
        process = self._process
        with suppress(OSError):
            process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _await_ports(self, timeout: float) -> Ports:
        assert self._process.stdout is not None
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        # A pipe cannot be read with a deadline on every platform; the thread ends with the process.
        threading.Thread(
            target=_read_lines, args=(self._process.stdout, lines), name="iii-engine-start", daemon=True
        ).start()
        deadline = time.monotonic() + timeout
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic())).strip()
        except queue.Empty:
            raise TimeoutError(f"the local engine did not start within {timeout:g} seconds") from None
        match = _LISTENING.match(line)
        if match is None:
            raise OSError(line or "the process of the local engine ended before it listened")
        workers, *others = match.groups()
        return Ports(int(workers), *(None if port is None else int(port) for port in others))


def _read_lines(pipe: IO[str], lines: queue.SimpleQueue[str]) -> None:
    """Put the line that says where it listens, or the last one of a process that ends before."""
    last = ""
    with suppress(OSError, ValueError):
        # What else there is comes from others: a sitecustomize that prints.
        for line in pipe:
            last = line
            if _LISTENING.match(line.strip()):
                break
    lines.put(last)
