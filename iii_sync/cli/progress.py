"""A progress bar with rate and remaining time, where somebody can see it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, Callable, Optional

__all__ = ["Bar", "progress_bar", "terminal_can_show_bars"]

Bar = contextlib.AbstractContextManager[Callable[[int], Any]]


def terminal_can_show_bars(extra: str) -> bool:
    """Whether standard error is a terminal.

    Args:
        extra: The one of this package that installs what bars need.

    Raises:
        ImportError: It is one, and what bars need is not installed. Better now than amid a transfer.
    """
    if not sys.stderr.isatty():
        return False
    try:
        import tqdm  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'the progress bar needs tqdm, which is not installed: pip install "iii_sync[{extra}]"', name="tqdm"
        ) from error
    return True


@contextlib.contextmanager
def progress_bar(
    title: str, total: Optional[int], shown: bool, *, leave: bool = False
) -> Iterator[Callable[[int], Any]]:
    """Give a function to be told of every piece; it moves a bar if that is wanted.

    Args:
        title: In front of the bar.
        total: Bytes that are expected, if that is known.
        shown: Whether there is a bar at all.
        leave: Whether its last state stays.
    """
    if not shown:
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(desc=title, total=total, unit="B", unit_scale=True, unit_divisor=1024, leave=leave) as bar:
        yield bar.update
