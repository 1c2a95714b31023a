"""What runs in a measured process: one task, told as JSON in the first argument.

The process and its parent talk in lines of JSON: it says ``ready`` when it is connected and warm, is told ``go`` (the
barrier: all processes of a measurement are told at once), and says what it has measured.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

__all__ = ["Line", "Task", "main"]

_PERF = ["perf", "record", "-q", "-F", "3000", "-e", "cpu-clock"]


@dataclass
class Task:
    """What to do.

    Attributes:
        client: Module below :mod:`.clients`.
        what: ``write``, ``read``, ``call`` or ``serve``.
        url: The engine, or the peer that stands for one.
        refs: The channel ends, as they travel in JSON; for a peer, anything.
        engine: Whether there is an engine, with a control connection.
        mode: How; each client knows its own.
        piece: Bytes of a write.
        seconds: For how long to write or to call.
        mask: The step of our ladder that masks: ``c``, ``numpy``, ``python``; empty takes what comes.
        busy: Whether a thread that computes runs beside.
        check: Whether to compute the CRC-32 of the payload too.
        callers: Threads that call at the same time.
        function: The function to call or to serve.
        profile: Where Linux's ``perf`` is to write what it sees of the process, if anywhere.
    """

    client: str
    what: str
    url: str = ""
    refs: list[dict[str, str]] = field(default_factory=list)
    engine: bool = False
    mode: str = ""
    piece: int = 65536
    seconds: float = 1.0
    mask: str = ""
    busy: bool = False
    check: bool = False
    callers: int = 1
    function: str = ""
    profile: str = ""

    def as_json(self) -> str:
        """Return the task as it is told."""
        return json.dumps(asdict(self))


class Line:
    """The child's side of the conversation."""

    def __init__(self, task: Task) -> None:
        self._busy = task.busy
        self._profile = task.profile
        self._perf: Optional[subprocess.Popen[bytes]] = None
        self._cpu = 0.0

    def ready_and_go(self, **more: Any) -> float:
        """Say that all is ready, wait for the start, and return its time."""
        if self._busy:
            threading.Thread(target=_compute, daemon=True).start()
        if self._profile:
            self._perf = subprocess.Popen([*_PERF, "-o", self._profile, "-p", str(os.getpid())], stdout=sys.stderr)
            time.sleep(0.5)  # nothing tells when it is attached
        _say({"ready": True, **more})
        if not sys.stdin.readline():
            sys.exit("the parent has gone")
        self._cpu = time.process_time()
        return time.monotonic()

    def cpu(self) -> float:
        """Return the seconds of processor time since the start."""
        return time.process_time() - self._cpu

    def done(self, **result: Any) -> None:
        """Say what was measured."""
        if self._perf is not None:
            self._perf.send_signal(signal.SIGINT)
            self._perf.wait()
        _say({"done": True, **result})

    def wait_for_end(self) -> None:
        """Return when the parent has no more use for this process."""
        sys.stdin.read()


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _compute() -> None:
    number = 0
    while True:
        number = (number * 31 + 7) & 0xFFFF


def main() -> None:
    """Run the task of the first argument."""
    task = Task(**json.loads(sys.argv[1]))
    # A thread that still computes, or the sockets of a rude ending, must not keep the process.
    module = importlib.import_module(f"tests.benchmarks.clients.{task.client}")
    module.run(task, Line(task))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
