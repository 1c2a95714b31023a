"""What the children of test_manners run; a module, so that every start method can import it."""

from __future__ import annotations

from typing import Any

from iii_sync import register_worker


def call(url: str, function_id: str, number: int) -> Any:
    """Call a function with a worker of this process."""
    with register_worker(url) as worker:
        return worker.trigger(function_id, number)
