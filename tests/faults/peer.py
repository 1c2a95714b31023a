"""The other process of a soak: holds the functions that read and write, and says on its own what became of it.

What it says goes through a pipe, not through the engine: a fault must not hide a verdict.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Optional

import iii_sync

from .plan import Plan
from .streams import Verdict, read_stream, write_stream

__all__ = ["Peer", "state_of"]

_ROOT = Path(__file__).resolve().parents[2]


def state_of(worker: iii_sync.Worker) -> dict[str, Any]:
    """What this process holds: descriptors and threads, and of one of its workers the ends and running handlers."""
    fds = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    ends = worker._ends
    with ends._lock:
        left = [repr(end) for end in ends._open]
    names = [thread.name for thread in threading.enumerate()]
    return {"fds": fds, "threads": sorted(names), "ends": left, "busy": not worker._pool.drain(0)}


class Peer:
    """The process, as its driver sees it.

    Args:
        url: Where it connects.
        seed: Of the soak.
        marks: Whether its writers mark their streams.
    """

    def __init__(self, url: str, seed: int, *, marks: bool = True) -> None:
        environment = dict(os.environ, PYTHONPATH=str(_ROOT), PYTHONWARNINGS="error", PYTHONUNBUFFERED="1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.peer", url, str(seed), str(int(marks))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=_ROOT,
            text=True,
        )
        self._lock = threading.Condition()
        self._begun: set[int] = set()
        self._verdicts: dict[int, Verdict] = {}
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self.ended = False
        self.stderr = ""
        self._threads = [
            threading.Thread(target=self._listen, name="fault-peer-out", daemon=True),
            threading.Thread(target=self._listen_to_errors, name="fault-peer-err", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self.ask("ready")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            with self._lock:
                if message["kind"] == "begin":
                    self._begun.add(message["number"])
                elif message["kind"] == "verdict":
                    self._verdicts[message["number"]] = Verdict(**message["verdict"])
                else:
                    self._answers.put(message)
                self._lock.notify_all()
        with self._lock:
            self.ended = True
            self._lock.notify_all()

    def _listen_to_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.stderr = (self.stderr + line)[-100_000:]

    def ask(self, question: str, timeout: float = 60.0) -> dict[str, Any]:
        """Ask for ``ready``, or ``state``."""
        if question != "ready":
            assert self._process.stdin is not None
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        end = time.monotonic() + timeout
        while True:
            try:
                return self._answers.get(timeout=0.2)
            except queue.Empty:
                if self.ended or time.monotonic() > end:
                    raise AssertionError(f"the peer does not answer {question!r}: {self.stderr[-3000:]}") from None

    def verdict(self, number: int, deadline: float, called: Callable[[], bool]) -> Optional[Verdict]:
        """What it says about a transfer; ``None`` when its function was not called, or it died.

        Raises:
            TimeoutError: It has begun the transfer and not ended it until ``deadline``.
        """
        grace = time.monotonic() + 1.0
        with self._lock:
            while True:
                if number in self._verdicts:
                    return self._verdicts.pop(number)
                if self.ended:
                    return None
                now = time.monotonic()
                if number not in self._begun and now > (deadline if called() else grace):
                    return None
                if now > deadline:
                    raise TimeoutError("the peer has begun and not ended it")
                self._lock.wait(0.1)

    def late(self) -> dict[int, Verdict]:
        """Verdicts that nobody has waited for, and forget them."""
        with self._lock:
            late, self._verdicts = self._verdicts, {}
            self._begun.clear()
            return late

    def stop(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after some time, on a thread. Does not wait."""
        os.kill(self.pid, signal.SIGSTOP)
        timer = threading.Timer(seconds, lambda: self._signal(signal.SIGCONT))
        timer.name = "fault-timer"
        timer.daemon = True
        timer.start()

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            os.kill(self.pid, number)

    def dump(self) -> None:
        """Have it write the stacks of its threads to its standard error."""
        self._signal(signal.SIGUSR1)

    def kill(self) -> None:
        """SIGKILL. Does not wait."""
        self._signal(signal.SIGKILL)

    def end(self) -> int:
        """End it and return its exit status; what it wrote is in ``stderr``."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass
        try:
            status = self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.dump()
            time.sleep(1)
            self._process.kill()
            status = self._process.wait()
        for thread in self._threads:
            thread.join(10)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        return status


def main(url: str, seed: int, marks: bool) -> None:
    """The process itself."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    lock = threading.Lock()

    def say(kind: str, **what: Any) -> None:
        with lock:
            print(json.dumps({"kind": kind, **what}), flush=True)

    worker = iii_sync.register_worker(
        url, headers={"X-Owner": "peer"}, channel_timeout=3.0, close_timeout=3.0, connect_timeout=5.0, marks=marks
    )

    def run(data: dict[str, Any], side: Callable[[Plan, Any, Verdict], None]) -> dict[str, Any]:
        number = data["number"]
        say("begin", number=number)
        verdict = Verdict()
        try:
            plan = Plan(**{**data["plan"], "place": tuple(data["plan"]["place"])})
            side(plan, data["reader"] if "reader" in data else data["writer"], verdict)
        except BaseException as exc:
            verdict.failed(exc)
            raise
        finally:
            say("verdict", number=number, verdict=dataclasses.asdict(verdict))
        return {"size": verdict.size, "digest": verdict.digest}

    worker.register_function("soak::read", lambda data: run(data, read_stream))
    worker.register_function("soak::write", lambda data: run(data, write_stream))
    worker.register_function("soak::ping", lambda data: os.getpid())
    say("ready")
    for line in sys.stdin:
        assert line == "state\n", line
        say("state", **state_of(worker))
    worker.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), bool(int(sys.argv[3])))
