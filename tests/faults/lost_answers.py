"""``python -m tests.faults.lost_answers``: how many calls never get their answer, and how fast calls are.

The real engine remembers a call only after it has passed it on, so an answer that is quick enough finds nobody
waiting and is dropped (PROTOCOL E-14); the caller then waits until its own timeout. Here one process offers a
function that returns at once, another one calls it from several threads, and the engine is a third. Only a
timeout counts as a lost answer; any other error ends the run, and so does an engine that has died.

``--answers`` compares what the callee could do about it, in interleaved rounds: ``plain`` is what the package
does, which sends each answer again a moment later; ``once`` does not, ``twice`` sends it again at once, and
``held:MS`` once, but so many milliseconds late.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, Optional

import iii_sync
from iii_sync.engine import LocalEngine
from iii_sync.session import Link, Session
from iii_sync.session.repeated import RepeatedAnswers
from iii_sync.wire import messages

from ..support.engines import REAL_ENGINE_VARIABLE, real_engine_program, running_engine
from ..support.process import ROOT

FUNCTION = "lost-answers::echo"

#: How long a role may take to start, and to end when it is told to.
WAIT = 60.0

#: Calls before the clock starts: threads are made, and the engine is warm.
WARM_UP = 1000


class Outcome(NamedTuple):
    """What some calls came to.

    Attributes:
        calls: How many were made.
        lost: How many had no answer in time.
        seconds: From the first call to the last answer.
    """

    calls: int
    lost: int
    seconds: float

    def plus(self, other: Outcome) -> Outcome:
        """Both together."""
        return Outcome(self.calls + other.calls, self.lost + other.lost, self.seconds + other.seconds)

    def __str__(self) -> str:
        rate = f"1 of {self.calls // self.lost:,}" if self.lost else "none"
        return f"lost {self.lost} of {self.calls:,} calls ({rate}), {self.calls / self.seconds:,.0f} calls/s"


def main(arguments: Optional[list[str]] = None) -> int:
    """Run the command; returns its exit status: 0 when the measurement was made, whatever it found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.lost_answers", description=__doc__)
    parser.add_argument("--engine", choices=["local", "real"], default="real")
    parser.add_argument("--calls", type=int, default=200_000, help="of each kind of answers, in all rounds together")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds after which an answer counts as lost")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--answers", default="plain", help="kinds separated by commas")
    parser.add_argument("--callee", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--caller", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.callee:
        return serve(options.callee, options.answers)
    if options.caller:
        outcome = call(options.caller, options.calls, options.in_flight, options.timeout)
        print(json.dumps(outcome))
        return 0
    kinds = options.answers.split(",")
    totals = {kind: Outcome(0, 0, 0.0) for kind in kinds}
    with engine(options.engine) as url:
        for number in range(options.rounds):
            # Each kind is first, second, … equally often: the machine is never the same twice.
            for kind in kinds[number % len(kinds) :] + kinds[: number % len(kinds)]:
                outcome = measure(url, kind, options.calls // options.rounds, options.in_flight, options.timeout)
                totals[kind] = totals[kind].plus(outcome)
                print(f"{options.engine:<6} {kind:<10} round {number + 1}: {outcome}", flush=True)
    for kind, total in totals.items():
        print(f"{options.engine:<6} {kind:<10} together: {total}")
    return 0


@contextlib.contextmanager
def engine(kind: str) -> Iterator[str]:
    """Run an engine in a process of its own."""
    if kind == "local":
        with LocalEngine(in_process=False) as local:
            yield local.url
    elif real_engine_program() is None:
        raise SystemExit(f"no real engine: there is no `iii` on the PATH, and {REAL_ENGINE_VARIABLE} is not set")
    else:
        with running_engine(kind) as real:
            yield real.url


def measure(url: str, kind: str, calls: int, in_flight: int, timeout: float) -> Outcome:
    """Make the calls from one process to another."""
    with _role("--callee", url, "--answers", kind) as callee:
        assert callee.stdout is not None
        if callee.stdout.readline() != "ready\n":
            raise RuntimeError("the callee did not start")
        with _role("--caller", url, f"--calls={calls}", f"--in-flight={in_flight}", f"--timeout={timeout}") as caller:
            # At the worst everything is lost.
            printed, _ = caller.communicate(timeout=WAIT + calls / 100 + calls * timeout / in_flight)
        if caller.returncode:
            raise RuntimeError(f"the caller ended with {caller.returncode}")
    return Outcome(*json.loads(printed))


@contextlib.contextmanager
def _role(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.lost_answers", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with process:  # closes its standard input, which ends the callee
            try:
                yield process
            except BaseException:
                process.kill()
                raise
    finally:
        process.kill()


def call(url: str, calls: int, in_flight: int, timeout: float) -> Outcome:
    """Call the function so often, from so many threads at once."""
    with iii_sync.register_worker(url) as worker:
        _call_all(worker, WARM_UP, in_flight, timeout)
        outcome = _call_all(worker, calls, in_flight, timeout)
        # The engine is well, and its function is there: what had no answer was lost.
        worker.trigger(FUNCTION, 0, timeout=WAIT)
    return outcome


def _call_all(worker: iii_sync.Worker, calls: int, in_flight: int, timeout: float) -> Outcome:
    numbers = iter(range(calls))
    lost = itertools.count()
    ends: list[float] = []
    failures: list[BaseException] = []

    def work() -> None:
        end = 0.0
        try:
            for number in numbers:  # one step of a range is atomic
                try:
                    if worker.trigger(FUNCTION, number, timeout=timeout) != number:
                        raise AssertionError(f"call {number} got the answer of another one")
                    end = time.monotonic()
                except TimeoutError:
                    next(lost)
        except BaseException as exc:
            failures.append(exc)
        ends.append(end)

    threads = [threading.Thread(target=work) for _ in range(in_flight)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return Outcome(calls, next(lost), max(ends) - start)


def serve(url: str, kind: str) -> int:
    """Offer the function until the standard input ends."""
    with iii_sync.register_worker(url) as worker:
        _change_answers(worker._session, kind)
        worker.register_function(FUNCTION, lambda number: number)
        print("ready", flush=True)
        sys.stdin.read()
    return 0


def _change_answers(session: Session, kind: str) -> None:
    name, _, milliseconds = kind.partition(":")
    if name == "plain":
        return
    RepeatedAnswers.sent = lambda self, frame: None  # type: ignore[method-assign]
    once = session.answer
    if name == "once":
        return

    def twice(link: Link, message: messages.Message) -> None:
        once(link, message)
        once(link, message)

    def held(link: Link, message: messages.Message) -> None:
        time.sleep(float(milliseconds) / 1000)
        once(link, message)

    kinds = {"twice": twice, "held": held}
    if name not in kinds:
        raise SystemExit(f"unknown kind of answers: {kind}")
    session.answer = kinds[name]  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main())
