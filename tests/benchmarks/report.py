"""Medians, spreads and ratios, as text and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Optional

from .rows import Goal
from .running import Measured

__all__ = ["Spread", "Verdict", "as_json", "as_text", "judge"]


class Spread(NamedTuple):
    """The median of several values, and the least and the greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Return the spread of at least one value."""
        known = sorted(values)
        return cls(statistics.median(known), known[0], known[-1])

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.least)}–{_short(self.greatest)})"


class Verdict(NamedTuple):
    """How a goal stands, and where its bound is; a spread is ``None`` when it was not measured."""

    goal: Goal
    ours: str
    spread: Optional[Spread]
    bound: Optional[Spread]

    @property
    def met(self) -> Optional[bool]:
        """Whether the median reaches the goal; ``None`` when it was not measured."""
        if self.spread is None:
            return None
        return self.spread.median >= self.goal.factor if self.goal.at_least else self.spread.median <= self.goal.factor

    @property
    def certain(self) -> bool:
        """Whether every round says the same."""
        if self.spread is None:
            return False
        return not self.spread.least < self.goal.factor < self.spread.greatest

    def __str__(self) -> str:
        goal = self.goal
        wanted = f"{'≥' if goal.at_least else '≤'} {goal.factor:g}"
        what = f"{goal.row}, {goal.figure}: {self.ours}"
        what += f" {wanted}" if goal.other is None else f" {wanted} x {goal.other}"
        state = {None: "not measured", True: "met", False: "NOT met"}[self.met]
        doubt = "" if self.spread is None or self.certain else ", within the spread"
        limit = "" if self.bound is None else f"; {goal.bound}: {self.bound}"
        return f"{what:<88} {str(self.spread or '-'):<24} {state}{doubt}{limit}"


def judge(goal: Goal, measured: dict[str, Measured]) -> Verdict:
    """Compare one goal with what was measured: ratios of the same round."""
    bound = _ratio(goal, goal.bound, measured) if goal.bound else None
    for label in goal.ours:
        spread = _ratio(goal, label, measured)
        if spread is not None:
            return Verdict(goal, label, spread, bound)
    return Verdict(goal, goal.ours[0], None, bound)


def _ratio(goal: Goal, label: str, measured: dict[str, Measured]) -> Optional[Spread]:
    """What one contestant reaches of that which the goal is about."""
    samples = measured[goal.row].samples if goal.row in measured else {}
    figures = [each[goal.figure] for each in samples.get(label, [])]
    if goal.other is not None:
        figures = [mine / theirs[goal.figure] for mine, theirs in zip(figures, samples.get(goal.other, []))]
    return Spread.of(figures) if figures else None


def as_text(measured: dict[str, Measured], verdicts: list[Verdict], notes: list[str]) -> str:
    """Return everything as tables."""
    return "\n".join([*_tables(measured), *_goals(verdicts), *(f"note: {note}" for note in notes)])


def _tables(measured: dict[str, Measured]) -> Iterator[str]:
    for name, result in measured.items():
        row = result.row
        yield f"{name}: {row.title}"
        first = next(iter(result.samples.values()), None)
        if first is not None:
            figures = [row.unit, *(figure for figure in first[0] if figure != row.unit)]
            labels = [each.label for each in row.contestants if each.label in result.samples]
            base = labels[0]
            yield f"    {'':<24} " + " ".join(f"{figure:<26}" for figure in figures) + f" {row.unit}, ratio to {base}"
            for label in labels:
                samples = result.samples[label]
                cells = " ".join(f"{Spread.of(each[figure] for each in samples)!s:<26}" for figure in figures)
                pairs = zip(samples, result.samples[base])
                ratio = Spread.of(mine[row.unit] / theirs[row.unit] for mine, theirs in pairs)
                yield f"    {label:<24} {cells} {ratio}"
        for label, failure in result.failures.items():
            yield f"    {label}: FAILED: {failure}"
        yield ""


def _goals(verdicts: list[Verdict]) -> Iterator[str]:
    yield "goals: median of the ratios (least–greatest)"
    for verdict in verdicts:
        yield f"    {verdict}"
    yield ""


def as_json(measured: dict[str, Measured], verdicts: list[Verdict], about: dict[str, Any]) -> dict[str, Any]:
    """Return everything for a machine to read."""
    return {
        "about": about,
        "rows": {
            name: {"title": result.row.title, "samples": result.samples, "failures": result.failures}
            for name, result in measured.items()
        },
        "goals": [
            {
                **vars(verdict.goal),
                "ours": verdict.ours,
                "measured": verdict.spread._asdict() if verdict.spread else None,
                "bound reaches": verdict.bound._asdict() if verdict.bound else None,
                "met": verdict.met,
                "certain": verdict.certain,
            }
            for verdict in verdicts
        ],
    }


def _short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
