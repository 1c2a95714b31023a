"""The command line of the benchmarks; see the package."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Optional

from . import plot, profile, report, running
from .measuring import Settings
from .peers import Peers, available_engines
from .rows import GOALS, ROWS, Row


def main() -> int:
    """Run what the command line asks for; 1 when something failed."""
    options = _options()
    if options.list:
        for row in ROWS:
            print(f"{row.name:<18} {row.title}: {', '.join(each.label for each in row.contestants)}")
        return 0
    rows = _chosen(options.only)
    if not rows:
        print("no such row; --list names them", file=sys.stderr)
        return 2
    settings = Settings(
        seconds=0.15 if options.quick else options.seconds, rounds=1 if options.quick else options.rounds
    )
    if options.profile:
        return _profile(rows, options.engine, settings)
    started = time.monotonic()
    with Peers(options.engine) as peers:
        if options.rust:
            _say("building the Rust client")
            peers.build_rust()
        measured = {row.name: running.run(row, peers, settings, _say) for row in rows}
        notes = list(peers.notes)
    verdicts = [report.judge(goal, measured) for goal in GOALS if goal.row in measured]
    print(report.as_text(measured, verdicts, notes))
    about = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "engine": options.engine,
        "seconds": settings.seconds,
        "rounds": settings.rounds,
        "took": round(time.monotonic() - started, 1),
        "notes": notes,
    }
    print(", ".join(f"{name} {value}" for name, value in about.items() if name != "notes"))
    if options.json:
        options.json.write_text(json.dumps(report.as_json(measured, verdicts, about), indent=1) + "\n")
    if options.plot:
        options.plot.write_text(plot.as_svg(measured))
    return 1 if any(each.failures for each in measured.values()) else 0


def _profile(rows: list[Row], engine: str, settings: Settings) -> int:
    timed = [row for row in rows if row.name != "life"]
    if timed and not profile.available():
        print("there is no perf here that may look at processes (Debian: linux-perf)", file=sys.stderr)
        return 2
    with Peers(engine) as peers:
        for row in timed:
            print(profile.run(row, peers, settings, _say), flush=True)
        if len(timed) < len(rows):
            print(profile.memory(peers), flush=True)
    return 0


def _chosen(names: Optional[list[str]]) -> list[Row]:
    """Return the rows with these names; a name that no row has means all rows that begin so."""
    exact = {row.name for row in ROWS}
    return [
        row
        for row in ROWS
        if names is None or any(row.name == name or (name not in exact and row.name.startswith(name)) for name in names)
    ]


def _options() -> argparse.Namespace:
    engines = list(available_engines())
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Compare iii_sync with its peers.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rows of that name, else whose names begin so")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--engine", choices=engines, default=engines[0], help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that all works, not how fast")
    parser.add_argument("--rust", action="store_true", help="build a client on the Rust SDK with cargo, and compare")
    parser.add_argument(
        "--profile", action="store_true", help="show where processor time (with Linux's perf) and memory go"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="bars, as SVG")
    return parser.parse_args()


def _say(text: str) -> None:
    print(f"\r\033[K{text}" if sys.stderr.isatty() else text, end="" if sys.stderr.isatty() else "\n", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
