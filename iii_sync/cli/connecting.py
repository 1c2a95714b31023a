"""The worker of a command."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Optional

from iii_sync import Worker, register_worker

from .options import is_verbose

__all__ = ["connected", "hushed"]


@contextlib.contextmanager
def connected(url: Optional[str]) -> Iterator[Worker]:
    """Connect to an engine for as long as a command runs.

    Args:
        url: Its address; default: the environment's.
    """
    # The name that a supervisor gives to its worker is not for the commands that are run beside it.
    os.environ.pop("III_WORKER_NAME", None)
    with hushed(), register_worker(url, worker_description="iii-sync, the command line") as worker:
        yield worker


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep the library's log quiet, for what went wrong a command says itself; not with ``--verbose``."""
    log = logging.getLogger("iii_sync.worker")
    level = log.level
    if not is_verbose():
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
