"""Functions on threads of their own, whose outcome the test gets back."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any, Callable, Optional


def in_thread(function: Callable[[], Any], wait: float = 30.0) -> Callable[[], Any]:
    """Run ``function`` on a thread; the returned call waits ``wait`` seconds for it and gives its outcome."""
    outcome: list[tuple[Any, Optional[BaseException]]] = []

    def run() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as exc:
            outcome.append((None, exc))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(wait)
        assert outcome, "the thread is still running"
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    return result


def is_locked(lock: Any) -> bool:
    """Whether a lock of any kind is held; looking does not take it."""
    return repr(lock).startswith("<locked")


@contextlib.contextmanager
def switching_every(seconds: float) -> Iterator[None]:
    """Have threads take turns so often, where 5 ms are usual: more of their schedules come by."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
