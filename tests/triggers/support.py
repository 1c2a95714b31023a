"""What the tests of triggers share."""

from __future__ import annotations

import queue
import urllib.request
from typing import Any, Callable

from iii_sync import Worker, triggers
from iii_sync.triggers import Trigger, TriggerConfig, TriggerSource

from ..support.waiting import wait_until

WAIT = 30.0

Unique = Callable[[str], str]


def source(kind: str, name: str, **options: Any) -> TriggerSource:
    """A trigger of this kind, for what happens under a name."""
    makes: dict[str, Callable[..., TriggerSource]] = {
        "cron": lambda **options: triggers.cron("* * * * * *", **options),
        "http": lambda **options: triggers.http(name, **options),
        "queue": lambda **options: triggers.queue(
            name, queue_config={"maxRetries": 1, "backoffDelayMs": 10}, **options
        ),
        "state": lambda **options: triggers.state(scope=name, **options),
        "stream": lambda **options: triggers.stream(name, **options),
        "subscribe": lambda **options: triggers.subscribe(name, **options),
    }
    return makes[kind](**options)


def fire(worker: Worker, kind: str, name: str, value: Any, http_url: str = "") -> None:
    """Make it happen under a name; a second passes by itself."""
    if kind == "http":
        with urllib.request.urlopen(f"{http_url}/{name}", timeout=WAIT):
            pass
    elif kind == "queue":
        worker.queues.publish(name, value)
    elif kind == "state":
        worker.state.set(name, "k", value)
    elif kind == "stream":
        worker.streams.set(name, "g", "i", value)
    elif kind == "subscribe":
        worker.publish(name, value)


def value_of(kind: str, data: Any) -> Any:
    """The value in what a function, or a condition, is called with."""
    return {"queue": lambda: data, "state": lambda: data["new_value"], "stream": lambda: data["event"]["data"]}[kind]()


def assert_active(trigger: Trigger, engine_kind: str) -> None:
    """A trigger is active of which its provider has just heard; the real engine tells the provider first."""
    if engine_kind == "real":
        wait_until(trigger.is_active, "the trigger")
    assert trigger.is_active()


class Heard:
    """A function that keeps what it is called with.

    Args:
        worker: Offers it.
        function_id: Its id.
        answer: What it returns.
    """

    def __init__(self, worker: Worker, function_id: str, answer: Any = None) -> None:
        self.calls: queue.Queue[Any] = queue.Queue()
        self.id = function_id

        def keep(data: Any, metadata: Any = None) -> Any:
            self.calls.put((data, metadata))
            return answer

        worker.register_function(function_id, keep)

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
