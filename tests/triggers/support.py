"""What the tests of triggers share."""

from __future__ import annotations

import queue
from typing import Any, Callable

from iii_sync import Worker
from iii_sync.triggers import TriggerConfig

WAIT = 30.0

Unique = Callable[[str], str]


class Heard:
    """A function that keeps what it is called with.

    Args:
        worker: Offers it.
        function_id: Its id.
        details: For ``register_function``.
    """

    def __init__(self, worker: Worker, function_id: str, **details: Any) -> None:
        self.calls: queue.Queue[Any] = queue.Queue()
        self.id = function_id
        worker.register_function(function_id, lambda data, metadata=None: self.calls.put((data, metadata)), **details)

    def next(self) -> Any:
        """What it was called with next."""
        return self.calls.get(timeout=WAIT)


class Hooks:
    """A trigger handler that keeps what it is told, and refuses configs with ``refuse``."""

    def __init__(self) -> None:
        self.told: queue.Queue[tuple[str, TriggerConfig[Any]]] = queue.Queue()

    def register_trigger(self, config: TriggerConfig[Any]) -> None:
        self.told.put(("come", config))
        if isinstance(config.config, dict) and config.config.get("refuse"):
            raise ValueError(config.config["refuse"])

    def unregister_trigger(self, config: TriggerConfig[Any]) -> None:
        self.told.put(("gone", config))

    def next(self) -> tuple[str, TriggerConfig[Any]]:
        """What it was told next."""
        return self.told.get(timeout=WAIT)
