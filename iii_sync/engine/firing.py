"""Firing a trigger: its condition first, then its function. Pure."""

from __future__ import annotations

import logging
from typing import Callable, Optional

from .frames import Failure
from .jsontext import JSON
from .records import Finish, Outcome, Trigger
from .router import Router

_logger = logging.getLogger("iii_sync.engine")


def fire(router: Router, trigger: Trigger, data: JSON, finish: Optional[Finish] = None) -> None:
    """Call the function of a trigger with an event, unless its condition says no.

    Args:
        router: Where function and condition are.
        trigger: What fires.
        data: The event. Function and condition get the same object, so nobody may change it.
        finish: Takes the outcome of the function; not called when the condition prevents it.
    """

    def run() -> None:
        router.call(
            trigger.function_id,
            data,
            _logged(trigger) if finish is None else finish,
            namespace=trigger.namespace,
            metadata=trigger.metadata,
        )

    check(router, trigger, data, run, lambda _: None)


def check(
    router: Router, trigger: Trigger, data: JSON, run: Callable[[], None], skip: Callable[[Optional[Failure]], None]
) -> Callable[[], None]:
    """Ask the condition of a trigger, if it has one.

    Args:
        router: Where the condition is.
        trigger: Whose condition; only a literal ``false`` of it, or a failure, says no.
        data: What the condition gets.
        run: Called for a yes.
        skip: Called for a no, with the failure if it was one.

    Returns:
        What gives up waiting for the answer.
    """
    condition = trigger.text("condition_function_id")
    if condition is None:
        run()
        return lambda: None

    def decide(outcome: Outcome) -> None:
        if isinstance(outcome, Failure):
            _logger.warning("the condition %s failed: %s: %s", condition, outcome.code, outcome.message)
            skip(outcome)
        elif outcome.value is False:
            skip(None)
        else:
            run()

    return router.call(condition, data, decide, namespace=trigger.namespace)


def _logged(trigger: Trigger) -> Finish:
    def log(outcome: Outcome) -> None:
        if isinstance(outcome, Failure):
            _logger.warning("trigger %s: %s failed: %s", trigger.id, trigger.function_id, outcome.message)

    return log
