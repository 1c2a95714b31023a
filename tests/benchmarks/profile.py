"""What a goal that is not met would have to save: where processor time and memory go.

The time of a row: each measured process under Linux's ``perf``, by kinds of work. Shares of samples are turned into
nanoseconds a byte with what the process itself says it has used. The memory of a small worker: what each module keeps
that it imports, as ``tracemalloc`` sees it. The figures are those of one run, and show proportions.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Callable

from . import running
from .measuring import Settings
from .peers import Peers
from .processes import Program
from .rows import Row

__all__ = ["available", "memory", "run"]

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


_IMPORTS = """\
import importlib.machinery, json, sys, tracemalloc

kept, inner = {{}}, []

def watch(loader):
    original = loader.exec_module
    def exec_module(self, module):
        before = tracemalloc.get_traced_memory()[0]
        inner.append(0)
        original(self, module)
        size = tracemalloc.get_traced_memory()[0] - before
        kept[module.__name__] = size - inner.pop()
        if inner:
            inner[-1] += size
    loader.exec_module = exec_module

watch(importlib.machinery.SourceFileLoader)
watch(importlib.machinery.ExtensionFileLoader)
tracemalloc.start()
import websocket
needed = list(kept)
import iii_sync
worker = iii_sync.register_worker({url!r})
worker.trigger('engine::functions::list', {{}})
print(json.dumps([needed, kept]), flush=True)
worker.shutdown()
"""

#: How many modules are named.
_NAMED = 16


def memory(peers: Peers) -> str:
    """Return a table: what the modules keep that a small worker imports."""
    with Program([sys.executable, "-c", _IMPORTS.format(url=peers.engine_url)]) as program:
        needed, kept = json.loads(program.line())
    groups: dict[str, dict[str, int]] = {"websocket-client, and what it needs": {}, "iii_sync": {}, "what it needs": {}}
    for name, size in kept.items():
        ours = "iii_sync" if name.partition(".")[0] == "iii_sync" else "what it needs"
        groups["websocket-client, and what it needs" if name in needed else ours][name] = size
    lines = ["life: a small worker; memory that is kept by the import of modules, in KiB"]
    lines += [f"    {sum(of.values()) / 1024:8,.0f}  {name}, {len(of)} modules" for name, of in groups.items()]
    besides = {**groups["iii_sync"], **groups["what it needs"]}
    largest = sorted(besides.items(), key=lambda item: -item[1])[:_NAMED]
    lines.append("    the largest besides those that websocket-client needs:")
    return "\n".join(lines + [f"    {size / 1024:8,.0f}  {name}" for name, size in largest])


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
