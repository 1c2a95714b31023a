"""Rounds: every contestant of a row, one after the other, again and again."""

from __future__ import annotations

import importlib.util
import random
from dataclasses import dataclass, field, replace
from typing import Callable, Optional

from .measuring import Contestant, Figures, Settings
from .peers import Peers
from .rows import Row

__all__ = ["Measured", "can_run", "run"]

#: Modules that a contestant needs.
_NEEDS = {"sdk": "iii", "websocket_client": "websocket"}


@dataclass
class Measured:
    """What came out of one row.

    Attributes:
        samples: Figures by contestant, one entry a round; rounds correspond.
        failures: Why a contestant did not finish.
    """

    row: Row
    samples: dict[str, list[Figures]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def run(row: Row, peers: Peers, settings: Settings, say: Callable[[str], None]) -> Measured:
    """Measure one row: verify everybody's payload first, then take turns, in another order each round."""
    measured = Measured(row)
    present = [each for each in row.contestants if can_run(each, peers)]
    if row.verified:
        say(f"{row.name}: verifying")
        brief = replace(settings, seconds=0.02, check=True)
        present = [each for each in present if _attempt(row, each, peers, brief, measured) is not None]
    order = random.Random(row.name)
    for number in range(settings.rounds):
        say(f"{row.name}: round {number + 1} of {settings.rounds}")
        turns = list(present)
        order.shuffle(turns)
        for each in turns:
            figures = _attempt(row, each, peers, settings, measured)
            if figures is None:
                present.remove(each)
                measured.samples.pop(each.label, None)
            else:
                measured.samples.setdefault(each.label, []).append(figures)
    return measured


def _attempt(row: Row, each: Contestant, peers: Peers, settings: Settings, measured: Measured) -> Optional[Figures]:
    try:
        return row.measure(peers, each, settings)
    except Exception as exc:
        measured.failures[each.label] = f"{type(exc).__name__}: {exc}"
        return None


def can_run(each: Contestant, peers: Peers) -> bool:
    """Whether what a contestant needs is here; notes what is missing."""
    if each.client == "rust":
        return peers.rust is not None
    if each.mask == "c" and importlib.util.find_spec("iii_sync.wire._mask") is None:
        _note(peers, "the C extension is not built: its rows are left out, goals look at numpy's")
        return False
    needed = each.mode if not each.client else _NEEDS.get(each.client, "iii_sync")
    if importlib.util.find_spec(needed) is None:
        _note(peers, f"{needed} is not installed: its rows are left out (pip install -e '.[bench]')")
        return False
    return True


def _note(peers: Peers, text: str) -> None:
    if text not in peers.notes:
        peers.notes.append(text)
