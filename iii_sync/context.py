"""What runs here and for whom: the invocation that a handler is carrying out.

A handler runs in a context (:mod:`contextvars`) of its own, so nothing that it sets there outlives it. Threads that
it starts have an empty one; ``contextvars.copy_context().run`` takes the handler's along.
"""

from __future__ import annotations

import contextvars
import dataclasses
from typing import Any, Callable, Optional

__all__ = ["Invocation", "current_invocation", "run_as"]


@dataclasses.dataclass(frozen=True)
class Invocation:
    """A call that is being carried out here.

    Attributes:
        function_id: The function that was called.
        invocation_id: The call's id, the one its caller sees.
        caller_worker_id: The engine's id of the worker that called; ``None`` when the engine did by itself (triggers,
            queues), and when the payload is no object.
        metadata: What the caller gave beside the payload.
        traceparent: The W3C trace context that the call came with.
        baggage: The W3C baggage that the call came with.
    """

    function_id: str
    invocation_id: str
    caller_worker_id: Optional[str] = None
    metadata: Any = None
    traceparent: Optional[str] = None
    baggage: Optional[str] = None


_current: contextvars.ContextVar[Optional[Invocation]] = contextvars.ContextVar("iii_sync_invocation", default=None)


def current_invocation() -> Optional[Invocation]:
    """Return the call that the running handler carries out; ``None`` outside of handlers.

    Blocks: Never.
    Threads: Any; each sees its own.
    """
    return _current.get()


def run_as(invocation: Invocation, carry_out: Callable[[], Any]) -> Any:
    """Run a handler as what carries out ``invocation``, in a context of its own."""
    return contextvars.Context().run(_run, invocation, carry_out)


def _run(invocation: Invocation, carry_out: Callable[[], Any]) -> Any:
    _current.set(invocation)
    return carry_out()
