"""What the children of test_manners run; a module, so that every start method can import it."""

from __future__ import annotations

from typing import Any, Optional

from iii_sync import Worker, register_worker


def call(url: str, function_id: str, number: int) -> Any:
    """Call a function with a worker of this process."""
    with register_worker(url) as worker:
        return worker.trigger(function_id, number)


_worker: Optional[Worker] = None


def begin(url: str) -> None:
    """Make the worker of a process in a pool; it lives as long as the process."""
    global _worker
    _worker = register_worker(url)


def use(function_id: str, number: int) -> Any:
    """Call a function with the worker of this process."""
    assert _worker is not None
    return _worker.trigger(function_id, number)
