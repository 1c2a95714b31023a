"""Triggers on what happens in the engine: workers that come and go, functions that change. Pure."""

from __future__ import annotations

from typing import Callable, Optional

from .bindings import Bindings
from .firing import fire
from .jsontext import JSON
from .records import Trigger
from .router import Router

POLL = 5.0
"""Seconds between two looks at the set of functions."""


class FunctionChanges(Bindings):
    """Fires when functions were registered or unregistered; looks only while somebody wants to know.

    Args:
        router: Whose functions.
        summaries: Returns what the event tells about all functions.
    """

    def __init__(self, router: Router, summaries: Callable[[], list[JSON]]) -> None:
        super().__init__()
        self._router = router
        self._summaries = summaries
        self._known: set[tuple[str, str]] = set()
        self._cancel: Optional[Callable[[], None]] = None

    def bind(self, trigger: Trigger) -> None:
        """Remember a trigger; begin to look."""
        super().bind(trigger)
        if self._cancel is None:
            self._known = set(self._router.functions)
            self._cancel = self._router.later(POLL, self._look)

    def release(self, trigger: Trigger) -> None:
        """Forget a trigger; the last one ends the looking."""
        super().release(trigger)
        if not len(self) and self._cancel is not None:
            self._cancel()
            self._cancel = None

    def _look(self) -> None:
        self._cancel = self._router.later(POLL, self._look)
        known, self._known = self._known, set(self._router.functions)
        if known == self._known:
            return
        functions = self._summaries()
        for trigger in self:
            fire(self._router, trigger, {"event": "functions_changed", "functions": functions})


def provide_events(router: Router, summaries: Callable[[], list[JSON]]) -> None:
    """Offer ``engine::workers-available`` and ``engine::functions-available``."""
    workers = Bindings()

    def observe(event: str, worker_id: str) -> None:
        for trigger in workers:
            fire(router, trigger, {"event": event, "worker_id": worker_id})

    router.observers.append(observe)
    router.triggers.provide("engine", "engine::workers-available", "Workers connect, change and leave", workers)
    changes = FunctionChanges(router, summaries)
    router.triggers.provide("engine", "engine::functions-available", "Functions come and go", changes)
