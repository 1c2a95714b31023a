"""Where ``iii-sync`` and ``python -m iii_sync`` begin, with or without the packages that the command line needs."""

from __future__ import annotations

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
