"""Cron: the trigger type ``cron``.

A job waits for its function to end before the next tick is looked for, so ticks during a long run are
skipped.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Callable

from .bindings import want_object
from .cronexpression import next_times
from .firing import check
from .jsontext import JsonObject
from .records import Trigger, TriggerError
from .router import Router

# Longer waits go in steps, so that a clock that is set is noticed.
_STEP = 60.0


class Cron:
    """The jobs of one engine."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._cancels: dict[Trigger, Callable[[], None]] = {}
        router.triggers.provide("iii-cron", "cron", "A point in time of a cron expression", self)

    def bind(self, trigger: Trigger) -> None:
        """Schedule a trigger."""
        want_object(trigger)
        expression = trigger.text("expression")
        if not expression:
            raise TriggerError("Cron expression is required")
        self._schedule(trigger, next_times(expression))

    def release(self, trigger: Trigger) -> None:
        """Take a trigger off the schedule."""
        cancel = self._cancels.pop(trigger, None)
        if cancel is not None:
            cancel()

    def _schedule(self, trigger: Trigger, next_after: Callable[[float], float]) -> None:
        due = next_after(self._router.now())
        if due == float("inf"):
            return

        def wait() -> None:
            left = due - self._router.now()
            if left > 0:
                self._cancels[trigger] = self._router.later(min(left, _STEP), wait)
            else:
                run()

        def run() -> None:
            self._cancels[trigger] = lambda: None
            event: JsonObject = {
                "trigger": "cron",
                "job_id": trigger.id,
                "scheduled_time": _time(due),
                "actual_time": _time(self._router.now()),
            }

            def call() -> None:
                self._router.call(
                    trigger.function_id, event, again, namespace=trigger.namespace, metadata=trigger.metadata
                )

            check(self._router, trigger, event, call, again)

        def again(_: object) -> None:
            if trigger in self._cancels:
                self._schedule(trigger, next_after)

        wait()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
