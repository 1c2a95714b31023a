"""Thousands of transfers under faults: ``python -m tests.faults.soak --engine local --count 1000``.

Every transfer must end within its deadline, exact and complete, or with an error. Prints the seed first, every
failure with the number of its transfer (``--seed S --only K`` repeats it), and a table of fault, phase and outcome at
the end. The exit status is 1 after a failure, a leak, or when less than 80 % of the destructive faults hit a stream
that had begun and not ended.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import faulthandler
import os
import queue
import random
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from typing import Any, Optional

from tests.support.engines import EngineProgram, engine_program

from .judge import Outcome, describe, table
from .peer import state_of
from .plan import BENIGN, MIB, Plan
from .station import Station

__all__ = ["Soak", "main"]

#: The least share of destructive faults that must hit a stream under way.
IN_FLIGHT = 0.8

#: Transfers between two looks for leaks.
ROUND = 1000


class Soak:
    """Stations and the threads that run transfers on them; a context manager.

    Args:
        kind: ``local`` or ``real``.
        seed: Of all transfers.
        jobs: Transfers at once with faults of single connections.
        lanes: Stations with an engine each for faults of everything.
        marks: Whether writers mark their streams.
    """

    def __init__(self, kind: str, seed: int, jobs: int, lanes: int, *, marks: bool = True) -> None:
        self.seed = seed
        self._kind = kind
        self._jobs = jobs
        self._lanes = lanes
        self._marks = marks
        self._engines: list[EngineProgram] = []
        self.stations: list[Station] = []
        self._lock = threading.Lock()
        self.outcomes: list[Outcome] = []
        self.failures: list[str] = []
        self._running: dict[threading.Thread, tuple[Plan, float]] = {}
        self._until: Optional[float] = None
        self._baseline: Optional[list[dict[str, Any]]] = None

    def __enter__(self) -> Soak:
        with contextlib.ExitStack() as stack:
            for _ in range(1 + self._lanes):
                engine = engine_program(self._kind)
                stack.callback(engine.stop)
                engine.start()
                station = Station(engine.port, self.seed, engine, marks=self._marks)
                stack.callback(station.close)
                self.stations.append(station)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
        for station in self.stations:
            self.failures += station.failures

    def run(self, plans: Iterable[Plan], seconds: Optional[float] = None, jobs: Optional[int] = None) -> None:
        """Run transfers; blocks until all of them have ended, each within its own limit.

        Args:
            plans: The transfers.
            seconds: After which no further one is begun.
            jobs: In the place of the soak's own number.
        """
        self._until = None if seconds is None else time.monotonic() + seconds
        single: queue.SimpleQueue[Plan] = queue.SimpleQueue()
        shared: queue.SimpleQueue[Plan] = queue.SimpleQueue()
        for plan in plans:
            (shared if plan.shared and self._lanes and jobs is None else single).put(plan)
        threads = [self._start(self.stations[0], single) for _ in range(jobs or self._jobs)]
        threads += [self._start(station, shared) for station in self.stations[1:]]
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(0.2)
            self._look_for_hangs()

    def _start(self, station: Station, plans: queue.SimpleQueue[Plan]) -> threading.Thread:
        thread = threading.Thread(target=self._work, args=(station, plans), name="fault-job", daemon=True)
        thread.start()
        return thread

    def _work(self, station: Station, plans: queue.SimpleQueue[Plan]) -> None:
        while True:
            try:
                plan = plans.get_nowait()
            except queue.Empty:
                return
            if self._until is not None and time.monotonic() > self._until:
                return
            with self._lock:
                self._running[threading.current_thread()] = plan, time.monotonic()
            try:
                outcome = station.run(plan)
            except TimeoutError as exc:
                station.peer.dump()
                time.sleep(1)
                self._fail(f"HUNG: {plan}: {exc}\n{station.peer.stderr[-20000:]}")
            except BaseException:
                self._fail(f"THE HARNESS FAILED: {plan}\n{traceback.format_exc()}")
            else:
                with self._lock:
                    self.outcomes.append(outcome)
                for failure in outcome.failures:
                    self._fail(f"{failure}\n    {describe(outcome)}")
            finally:
                with self._lock:
                    del self._running[threading.current_thread()]

    def _fail(self, what: str) -> None:
        with self._lock:
            self.failures.append(what)
            print(f"FAILURE (seed {self.seed}): {what}", flush=True)

    def _look_for_hangs(self) -> None:
        now = time.monotonic()
        with self._lock:
            hung = [plan for plan, since in self._running.values() if now - since > Station.limit(plan) + 90]
        if hung:
            self._fail(f"HUNG in the driving process: {hung}")
            faulthandler.dump_traceback(all_threads=True)
            print(self.report(), flush=True)
            os._exit(1)

    # --- leaks -----------------------------------------------------------------------------------------

    def look_for_leaks(self, *, threads: bool = False, patience: float = 30.0) -> None:
        """Compare what both processes of all stations hold with what they held at the first look.

        Args:
            threads: Whether to wait for idle threads of pools to retire, and count those that do not.
            patience: Seconds that something may take to go away.
        """
        end = time.monotonic() + patience
        while True:
            states = [self._state(station) for station in self.stations]
            if self._baseline is None:
                self._baseline = states
                return
            leaks = [
                f"LEAK: {name}: {leak}"
                for state, before in zip(states, self._baseline)
                for name in ("driver", "peer")
                for leak in _leaks(state[name], before[name], threads)
            ]
            leaks += [f"LEAK: {state['pipes']} connections" for state in states if state["pipes"]]
            if not leaks or time.monotonic() > end:
                break
            time.sleep(0.2)
        for leak in leaks:
            self._fail(leak)
        for station in self.stations:
            for number, verdict in station.peer.late().items():
                plan = Plan.draw(self.seed, number)
                if verdict.digest and (
                    plan.content.digest(verdict.size) != verdict.digest
                    or (verdict.complete and verdict.size != plan.size)
                ):
                    self._fail(f"SILENTLY SHORT, late: {plan} {verdict}")

    def _state(self, station: Station) -> dict[str, Any]:
        return {
            "driver": state_of(station.worker),
            "peer": station.peer.ask("state"),
            "pipes": station.proxy.connections(),
        }

    # --- report ----------------------------------------------------------------------------------------

    def in_flight(self) -> tuple[int, int, int]:
        """How many destructive faults there were, were fired, and hit a stream under way."""
        shots = [each.shot for each in self.outcomes if not each.plan.benign and each.shot is not None]
        return len(shots), sum(shot.fired for shot in shots), sum(shot.in_flight for shot in shots)

    def _failed(self) -> tuple[int, int, int, int, int]:
        kinds = [
            ("SHORT" in each or "WRONG" in each, "HUNG" in each, "LATE" in each, "LEAK" in each)
            for each in self.failures
        ]
        short, hung, late, leaks = (sum(kind[index] for kind in kinds) for index in range(4))
        return short, hung, late, leaks, sum(not any(kind) for kind in kinds)

    def report(self) -> str:
        """The table and the counts."""
        outcomes = self.outcomes
        planned, fired, hit = self.in_flight()
        times = sorted(each.seconds for each in outcomes) or [0.0]
        recoveries = sorted(second for station in self.stations for second in station.recoveries) or [0.0]
        benign = [each for each in outcomes if each.plan.fault in BENIGN]
        complete = sum(each.kind == "complete" for each in benign)
        unread = sum(each.unread for each in outcomes)
        size = sum(each.plan.size for each in outcomes)
        lines = [table(outcomes), ""]
        lines.append(f"transfers {len(outcomes):,}; bytes {size:,}")
        spent = max((each.seconds / each.plan.deadline for each in outcomes), default=0.0)
        lines.append(
            f"seconds each: median {statistics.median(times):.2f}, longest {times[-1]:.1f}; "
            f"of its own deadline, one took {spent:.0%} at most"
        )
        share = f"{hit / max(1, planned):.1%}"
        lines.append(f"destructive faults {planned:,}, fired {fired:,}, with the stream under way {hit:,} ({share})")
        lines.append(f"harmless faults {len(benign):,}, complete {complete:,}")
        lines.append(f"close() succeeded, but the fault kept what the engine had from the reader: {unread:,}")
        middle, longest = statistics.median(recoveries), recoveries[-1]
        lines.append(f"all connected again: {len(recoveries):,} times, median {middle:.2f} s, longest {longest:.2f} s")
        lines.append("    (from the end of the fault; a try that gets no answer takes 2 s, so it is no reconnect time)")
        short, hung, late, leaks, others = self._failed()
        lines.append(
            f"short or wrong without an error {short}, hung {hung}, late {late}, leaks {leaks}, other failures {others}"
        )
        return "\n".join(lines)


def _leaks(state: dict[str, Any], before: dict[str, Any], threads: bool) -> list[str]:
    found = []
    if state["fds"] > before["fds"]:
        found.append(f"{state['fds']} descriptors, {before['fds']} at first")
    if state["ends"]:
        found.append(f"ends {state['ends']}")
    if state["busy"]:
        found.append("handlers are running")
    if threads and len(state["threads"]) > len(before["threads"]):
        found.append(f"threads {state['threads']}, at first {before['threads']}")
    return found


def main(arguments: Optional[list[str]] = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="transfers under faults")
    parser.add_argument("--engine", choices=("local", "real"), default="local")
    parser.add_argument("--count", type=int, default=1000, help="transfers")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    parser.add_argument("--jobs", type=int, default=12, help="transfers at once on the shared engine")
    parser.add_argument("--lanes", type=int, default=3, help="engines of their own for faults of everything")
    parser.add_argument("--only", type=int, default=None, metavar="K", help="run the transfer K alone")
    parser.add_argument(
        "--long-stop", type=float, default=0, metavar="SECONDS", help="four SIGSTOPs of that length too"
    )
    parser.add_argument("--no-marks", action="store_true", help="without marks: must fail")
    options = parser.parse_args(arguments)
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}, engine {options.engine}, {options.count} transfers", flush=True)
    started = time.monotonic()
    soak = Soak(options.engine, seed, options.jobs, options.lanes, marks=not options.no_marks)
    with soak:
        numbers = range(options.count) if options.only is None else range(options.only, options.only + 1)
        for start in range(0, len(numbers), ROUND):
            if options.only is None:
                soak.look_for_leaks()
            soak.run(Plan.draw(seed, number) for number in numbers[start : start + ROUND])
            print(f"{len(soak.outcomes)} after {time.monotonic() - started:.0f} s", flush=True)
        if options.long_stop:
            # One after the other: two such silences in a row would be too long for anybody.
            soak.run(long_stops(seed, options.long_stop), jobs=1)
        if options.only is None:
            soak.look_for_leaks(threads=True)
        elif soak.outcomes:
            print(describe(soak.outcomes[0]))
    print(soak.report())
    print(f"{time.monotonic() - started:.0f} s, seed {seed}, engine {options.engine}", flush=True)
    planned, _, hit = soak.in_flight()
    few = options.only is None and hit < IN_FLIGHT * planned
    if few:
        print(f"FAILURE: less than {IN_FLIGHT:.0%} of the destructive faults hit a stream under way")
    return 1 if soak.failures or few else 0


def long_stops(seed: int, seconds: float) -> Iterable[Plan]:
    """One long SIGSTOP of the other process in each mode.

    It fires on the other process's own end in the middle of a stream that is larger than all buffers on the way, so
    that end is connected: a stop while it connects would be longer than what it allows for that, and rightly an error.
    """
    for index, mode in enumerate(("write", "read", "open-wb", "open-rb")):
        plan = Plan.draw(seed, 10_000_000 + index)
        plan = dataclasses.replace(plan, mode=mode, size=64 * MIB, chunk=100_000, seconds=seconds)
        socket = "read" if plan.we_write else "write"
        yield dataclasses.replace(plan, fault="stop-peer", phase="middle", socket=socket, place=("data", 32 * MIB))


if __name__ == "__main__":
    sys.exit(main())
