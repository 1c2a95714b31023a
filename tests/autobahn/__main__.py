"""``python -m tests.autobahn [--python PATH]``: the Autobahn client suite against the frame layer.

Prints how many cases ended in which behaviour. The exit status is 0 when every case ran, none failed and none
was closed the wrong way, 1 when that is not so, 2 when the suite could not be run.

``NON-STRICT`` (allowed by the RFC, but not what the suite prefers) and ``INFORMATIONAL`` (the RFC asks for
nothing) count as passed; the cases are named.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Any, Optional

from .driver import Driver
from .suite import NoEnvironment, NoPython, Suite, environment, find_python, running_suite

AGENT = "iii_sync"

#: Cases of autobahntestsuite 25.10.1 outside limits and compression.
CASES = 247

#: What a case may end in.
PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")

#: How its connection may end.
CLOSED = ("OK", "INFORMATIONAL")


def main(arguments: Optional[list[str]] = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn", description=__doc__)
    parser.add_argument("--python", help="a CPython 2.7; default: the PATH's python2.7, or one of pyenv's")
    options = parser.parse_args(arguments)
    try:
        place = environment(find_python(options.python))
    except (NoPython, NoEnvironment) as exc:
        print(exc, file=sys.stderr)
        return 2
    with running_suite(place) as suite:
        wrong = run_cases(suite.url)
        wrong += check(suite)
    for line in wrong:
        print(f"WRONG  {line}")
    return 1 if wrong else 0


def run_cases(url: str) -> list[str]:
    """Run every case of the server; returns what went wrong on our side."""
    wrong = []
    driver = Driver(url, AGENT)
    try:
        for number in range(1, driver.case_count() + 1):
            try:
                driver.run_case(number)
            except Exception as exc:
                wrong.append(f"{driver.case_id(number)}: {type(exc).__name__}: {exc}")
        driver.write_reports()
    finally:
        driver.close()
    return wrong


def check(suite: Suite) -> list[str]:
    """Print what the server found; returns what is not as it should be."""
    cases: dict[str, dict[str, Any]] = suite.results()[AGENT]
    print(f"{len(cases)} cases")
    for key in ("behavior", "behaviorClose"):
        counts = Counter(case[key] for case in cases.values())
        print(f"  {key + ':':<14} " + ", ".join(f"{count} {name}" for name, count in counts.most_common()))
    for case_id, case in cases.items():
        if (case["behavior"], case["behaviorClose"]) != ("OK", "OK"):
            print(f"  {case_id}: {case['behavior']}, closed: {case['behaviorClose']} ({case['remoteCloseCode']})")
    wrong = [] if len(cases) == CASES else [f"{len(cases)} cases were run, not {CASES}"]
    for case_id, case in cases.items():
        if case["behavior"] not in PASSED or case["behaviorClose"] not in CLOSED:
            wrong.append(f"{case_id}: {case['behavior']}, closed: {case['behaviorClose']}")
        report = suite.report(case["reportfile"])
        for side in ("httpRequest", "httpResponse"):
            head = report[side].lower()
            if "upgrade: websocket" not in head:
                wrong.append(f"{case_id}: no {side} was recorded")
            elif "sec-websocket-extensions" in head:
                wrong.append(f"{case_id}: an extension in the {side}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
