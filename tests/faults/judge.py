"""Whether a transfer ended as it may, and the table of how they ended."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Optional

from .plan import Plan
from .proxy import Shot
from .streams import Verdict

__all__ = ["Outcome", "failures_of", "table"]

PHASES = ("handshake", "first", "middle", "end")


@dataclasses.dataclass
class Outcome:
    """How one transfer ended.

    Attributes:
        plan: What it was.
        shot: The fault, if there was one to be fired.
        writer: What the writing side says; ``None`` when it was never asked to write, or died.
        reader: What the reading side says; likewise.
        call: ``ok``, or the class of the error that the call ended with.
        result: What the function returned.
        seconds: How long it took.
        failures: What must not be.
    """

    plan: Plan
    shot: Optional[Shot]
    writer: Optional[Verdict] = None
    reader: Optional[Verdict] = None
    call: str = ""
    result: Any = None
    seconds: float = 0.0
    failures: list[str] = dataclasses.field(default_factory=list)

    @property
    def fired(self) -> bool:
        """Whether the fault struck."""
        return self.shot is None or self.shot.fired

    @property
    def unread(self) -> bool:
        """Whether ``close()`` succeeded and the reader has not got everything."""
        return self.kind == "error" and self.writer is not None and self.writer.complete

    @property
    def kind(self) -> str:
        """``complete``: both sides and the call; ``delivered``: the reader alone has everything; else ``error``."""
        if self.reader is None or not self.reader.complete:
            return "error"
        return "complete" if self.writer is not None and self.writer.complete and self.call == "ok" else "delivered"


def failures_of(outcome: Outcome) -> list[str]:
    """What must not be, in words; empty for a transfer that ended as it may."""
    plan, writer, reader = outcome.plan, outcome.writer, outcome.reader
    found = []
    if reader is not None:
        if reader.size > plan.size or plan.content.digest(reader.size) != reader.digest:
            found.append(f"WRONG BYTES among the {reader.size:,} read")
        if reader.complete and reader.size != plan.size:
            found.append(f"SILENTLY SHORT: the reader takes {reader.size:,} bytes for complete")
        if reader.complete and reader.vouched is not True:
            found.append(f"the reader ended well, but its complete is {reader.vouched}")
    if outcome.call == "ok":
        function = reader if plan.we_write else writer
        if function is not None and not function.complete:
            found.append("the call succeeded although its function failed")
        if not isinstance(outcome.result, dict) or outcome.result.get("size") != plan.size:
            found.append(f"the call's result is {outcome.result!r}")
    if plan.benign or not outcome.fired:
        if outcome.kind != "complete":
            found.append("NOT COMPLETE although nothing was broken")
    elif outcome.unread:
        # The engine confirms what it has taken, not what was read (PROTOCOL 12, E-3): a reader, or everything, may
        # be lost behind it. A fault at the writer alone cannot take away what was confirmed.
        if not plan.shared and plan.socket == "write":
            found.append("the writer's close() succeeded, and the undisturbed reader has not got everything")
    # A call whose answer is lost ends by its own limit, behind the stream.
    deadline = plan.deadline + (plan.call_timeout if outcome.call == "CallTimeout" else 0.0)
    if outcome.seconds > deadline:
        found.append(f"LATE: ended after {outcome.seconds:.1f} s, allowed are {deadline:.1f}")
    for side, verdict in (("writer", writer), ("reader", reader)):
        if verdict is not None and "." in verdict.error:
            found.append(f"the {side} ended with {verdict.error}: {verdict.detail}")
    if "." in outcome.call:
        found.append(f"the call ended with {outcome.call}")
    return found


def describe(outcome: Outcome) -> str:
    """One transfer in a line or two."""

    def side(verdict: Optional[Verdict]) -> str:
        if verdict is None:
            return "not there"
        end = "complete" if verdict.complete else f"{verdict.error} ({verdict.detail})"
        return f"{verdict.size:,} bytes, {end}"

    shot = outcome.shot
    return (
        f"{outcome.plan}\n    writer: {side(outcome.writer)}; reader: {side(outcome.reader)}; call: {outcome.call}; "
        f"{outcome.seconds:.1f} s; "
        + (f"shot {shot.legs} {shot.sides} fired={shot.fired} in flight={shot.in_flight}" if shot else "no shot")
    )


def table(outcomes: Iterable[Outcome]) -> str:
    """The outcomes by fault, socket and phase, and the classes of errors."""
    cells: dict[tuple[str, str], dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    classes: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    order: dict[str, int] = {}
    for outcome in outcomes:
        plan = outcome.plan
        order[plan.fault] = (0 if plan.benign else 2) + plan.shared
        cells[plan.fault, plan.socket][plan.phase][outcome.kind] += 1
        cells[plan.fault, plan.socket]["all"][outcome.kind] += 1
        cells[plan.fault, plan.socket]["all"]["unread"] += outcome.unread
        for side, verdict in (("writer", outcome.writer), ("reader", outcome.reader)):
            name = "not there" if verdict is None else "complete" if verdict.complete else verdict.error
            classes[plan.fault][side][name] += 1
        classes[plan.fault]["call"][outcome.call] += 1
    lines = [
        "complete/delivered/error: both sides and the call / the reader has all, but writer or call failed / error;",
        "unread: of the errors, those where close() succeeded (it confirms what the engine took, not what was read)",
        f"{'fault':17} {'at':6}" + "".join(f"{phase:>14}" for phase in (*PHASES, "all")) + "  unread",
    ]
    for fault, socket in sorted(cells, key=lambda key: (order[key[0]], key)):
        row = f"{fault:17} {socket:6}"
        for phase in (*PHASES, "all"):
            cell = cells[fault, socket][phase]
            text = "/".join(str(cell[kind]) for kind in ("complete", "delivered", "error")) if cell else "-"
            row += f"{text:>14}"
        row += f"{cells[fault, socket]['all']['unread'] or '-':>8}"
        lines.append(row)
    lines.append("")
    for fault in sorted(classes, key=lambda name: (order[name], name)):
        for side, counts in classes[fault].items():
            text = ", ".join(f"{name} {count}" for name, count in counts.most_common())
            lines.append(f"{fault:17} {side:6} {text}")
    return "\n".join(lines)
