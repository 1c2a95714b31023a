"""Where ``iii-sync`` and ``python -m iii_sync`` begin, with or without the packages that the command line needs."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Optional

__all__ = ["main"]

_MISSING = (
    'iii-sync: the command line needs click, which is not installed: pip install "iii_sync[cli]", '
    'or "iii_sync[engine]" for the local engine and the demo too'
)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line and return its exit code; ``iii-sync --help`` lists them.

    Args:
        argv: The arguments; default: those of the process.
    """
    _prepare_streams()
    try:
        import click  # noqa: F401
    except ImportError as error:
        if error.name != "click":
            raise
        print(_MISSING, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    from .commands import run

    return run(argv)


def _prepare_streams() -> None:
    """Give the streams that a shell has closed (``>&-``) to the null device, and let output have any character."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # Their numbers are taken in any case: the next file or socket would get them, and what is printed.
            null = os.open(os.devnull, os.O_RDWR)
            if name != "stdin":  # whoever reads is told
                setattr(sys, name, open(null, "w", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
