"""Where the processor time of a row goes: each measured process under Linux's ``perf``, by kinds of work.

Shares of samples are turned into nanoseconds a byte with what the process itself says it has used. The figures are
those of one run: they show proportions, and what a goal that is not met would have to save.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Callable

from . import running
from .measuring import Settings
from .peers import Peers
from .rows import Row

__all__ = ["available", "run"]

#: The kinds of work, in the order of the table, and the parts of a symbol's or a library's name that tell them; the
#: first that fits counts.
_KINDS = [
    ("kernel: copying", "kernel", ("copy_to_iter", "copy_from_iter", "copy_user", "rep_movs", "clear_page", "memcpy")),
    ("kernel: else", "kernel", ("",)),
    ("masking", "_mask.", ("",)),
    ("masking", "speedups.", ("",)),  # of websockets
    ("parsing", "_frames.", ("",)),
    ("copying", "libc", ("memmove", "memcpy", "memset")),
    ("OpenSSL", "libcrypto", ("",)),
    ("OpenSSL", "libssl", ("",)),
    ("interpreter", "python", ("",)),
    ("else", "", ("",)),
]


def available() -> bool:
    """Whether there is a ``perf`` that may look at processes of this user."""
    perf = shutil.which("perf")
    if perf is None:
        return False
    with tempfile.TemporaryDirectory() as directory:
        probe = [perf, "record", "-q", "-e", "cpu-clock", "-o", os.path.join(directory, "data"), "true"]
        return subprocess.run(probe, capture_output=True).returncode == 0


def run(row: Row, peers: Peers, settings: Settings, say: Callable[[str], None]) -> str:
    """Return a table: a line for each measured process of each contestant, once."""
    lines = [f"{row.name}: {row.title}; processor time by kind, in ns a byte"]
    kinds = list(dict.fromkeys(kind for kind, _, _ in _KINDS))
    lines.append(f"    {'':<24} {'':<8} {'MB/s':>7} {'all':>7} " + " ".join(f"{kind:>15}" for kind in kinds))
    for each in row.contestants:
        if not running.can_run(each, peers) or each.client == "rust":
            continue
        say(f"{row.name}: {each.label}")
        with tempfile.TemporaryDirectory(prefix="iii-profile-") as directory:
            try:
                figures = row.measure(peers, each, replace(settings, profiles=directory))
            except Exception as exc:
                lines.append(f"    {each.label:<24} FAILED: {exc}")
                continue
            files = sorted(Path(directory).iterdir())
            for file in files:
                used = figures[f"{file.name} cpu ns/B"] if len(files) > 1 else figures["cpu ns/B"]
                shares = _shares(file)
                cells = " ".join(f"{shares[kind] * used:15.3f}" for kind in kinds)
                lines.append(f"    {each.label:<24} {file.name:<8} {figures['MB/s']:7,.0f} {used:7.3f} {cells}")
    return "\n".join(lines)


def _shares(file: Path) -> dict[str, float]:
    """Return which share of the samples each kind of work has."""
    command = ["perf", "report", "-i", str(file), "--stdio", "-g", "none", "-F", "sample,dso,symbol", "-t", "|"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    samples: dict[str, int] = dict.fromkeys((kind for kind, _, _ in _KINDS), 0)
    for line in report.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == 3 and parts[0].isdigit():
            samples[_kind(parts[1], parts[2])] += int(parts[0])
    total = sum(samples.values())
    if not total:
        raise RuntimeError(f"perf saw nothing: {report[-500:]}")
    return {kind: count / total for kind, count in samples.items()}


def _kind(library: str, symbol: str) -> str:
    for kind, part, symbols in _KINDS:
        if part in library and any(each in symbol for each in symbols):
            return kind
    raise AssertionError((library, symbol))
