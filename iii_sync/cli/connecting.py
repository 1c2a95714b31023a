"""The worker of a command."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Optional

from iii_sync import Worker, register_worker

from ..errors import AuthenticationError, ConnectFailedError, ConnectTimeout, HandshakeRejectedError
from .failures import UnreachableError
from .options import is_verbose

__all__ = ["connected", "hushed", "reaching"]


@contextlib.contextmanager
def connected(url: Optional[str]) -> Iterator[Worker]:
    """Connect to an engine for as long as a command runs.

    Args:
        url: Its address; default: the environment's.
    """
    # The name that a supervisor gives to its worker is not for the commands that are run beside it.
    os.environ.pop("III_WORKER_NAME", None)
    with hushed():
        with reaching():
            worker = register_worker(url, worker_description="iii-sync, the command line")
        with worker:
            yield worker


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """Have the errors of a first connection end a command with the exit code that says that nothing was called.

    Of later connections, and of those of channels, there are the same errors, when a function may be running already.
    """
    try:
        yield
    except AuthenticationError:
        raise
    except (ConnectFailedError, ConnectTimeout, HandshakeRejectedError) as error:
        raise UnreachableError(str(error)) from error


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
