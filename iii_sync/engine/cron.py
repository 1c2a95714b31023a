"""Cron: the trigger type ``cron``. Expressions have seconds first and perhaps a year last, in UTC.

A job waits for its function to end before the next tick is looked for, so ticks during a long run are
skipped. The parser, croniter, is imported when the first trigger comes.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Callable

from .bindings import want_object
from .firing import check
from .jsontext import JsonObject
from .records import Trigger, TriggerError
from .router import Router

# Days are counted from Sunday, 1, as the real engine does; names mean the same to every parser.
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAY_NUMBER = re.compile(r"(?<![\w/])\d+")
# Longer waits go in steps, so that a clock that is set is noticed.
_STEP = 60.0
# An expression may name one year of this century or the next.
_YEARS = 150


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


def next_times(expression: str) -> Callable[[float], float]:
    """Return what tells the next point in time after another, in seconds since 1970; infinite for none.

    Raises:
        TriggerError: It is not a cron expression of six or seven fields.
    """
    try:
        from croniter import CroniterBadDateError, CroniterError, croniter
    except ImportError:
        raise TriggerError('cron triggers need croniter: pip install "iii_sync[engine]"') from None

    fields = expression.split()
    try:
        if len(fields) not in (6, 7):
            raise ValueError("it needs six fields, seconds first, or seven, the year last")
        fields[5] = _DAY_NUMBER.sub(_day, fields[5])
        parsed = croniter(" ".join(fields), 0, second_at_beginning=True, day_or=False, max_years_between_matches=_YEARS)
    except (CroniterError, ValueError, KeyError) as error:
        raise TriggerError(f"Invalid cron expression '{expression}': {error}") from None

    def next_after(moment: float) -> float:
        try:
            return float(parsed.get_next(float, start_time=moment))
        except CroniterBadDateError:
            return float("inf")

    return next_after


def _day(match: re.Match[str]) -> str:
    number = int(match.group())
    if not 1 <= number <= 7:
        raise ValueError("days of the week are 1, Sunday, to 7")
    return _DAYS[number - 1]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
