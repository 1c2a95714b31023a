"""``iii-sync functions``: what can be called."""

from __future__ import annotations

import fnmatch
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any, Optional

import click

from . import options
from .connecting import connected
from .failures import visible
from .jsontext import print_json

__all__ = ["command"]

_EPILOG = """\
\b
examples:
  iii-sync functions
  iii-sync functions 'files::*'
  iii-sync functions --json | jq -r '.[].function_id'
"""

_COLUMNS = ("function_id", "namespace", "worker_name", "description")
_TITLES = ("FUNCTION", "NAMESPACE", "WORKER", "DESCRIPTION")


@click.command("functions", epilog=_EPILOG)
@click.argument("pattern", required=False)
@click.option("--all", "everything", is_flag=True, help="Also the engine's own, and those that say they are internal.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects, with all that the engine tells.")
@options.url
@click.option("--namespace", metavar="NAME", help="Only the functions of this one.")
@options.timeout("30")
@options.verbose
def command(
    pattern: Optional[str],
    everything: bool,
    as_json: bool,
    url: Optional[str],
    namespace: Optional[str],
    timeout: Optional[float],
) -> None:
    """List the functions that can be called, with their workers and descriptions.

    PATTERN is part of an id, or with any of * ? [ a pattern for all of it.
    """
    with connected(url) as worker:
        listed = worker.engine.functions(include_internal=everything, timeout=timeout)
    found: list[Any] = [
        function
        for function in listed
        if (pattern is None or _fits(function["function_id"], pattern))
        and (namespace is None or function["namespace"] == namespace)
    ]
    if as_json:
        print_json(found)
    else:
        _print_table([[visible(str(function.get(column) or "")) for column in _COLUMNS] for function in found])


def _fits(function_id: str, pattern: str) -> bool:
    if re.search(r"[*?\[]", pattern):
        return fnmatch.fnmatchcase(function_id, pattern)
    return pattern in function_id


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print columns; on a terminal each row is one line of it."""
    shown = [0, 1, 2, 3] if any(row[1] != "default" for row in rows) else [0, 2, 3]
    table = [[row[column] for column in shown] for row in [_TITLES, *rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(shown))]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in table:
        line = "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip()
        print(line if limit is None or len(line) <= limit else f"{line[: limit - 1]}…")
