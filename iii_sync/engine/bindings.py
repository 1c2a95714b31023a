"""The simplest provider of a trigger type: it remembers what is bound to it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

from .jsontext import JSON
from .records import Trigger, TriggerError


class Bindings:
    """A :class:`~.records.Provider` that keeps its triggers in the order they came.

    Args:
        check: Looks at a new trigger and raises :class:`TriggerError` for what is wrong with it.
    """

    def __init__(self, check: Callable[[Trigger], None] = lambda _: None) -> None:
        self._check = check
        self._triggers: dict[str, Trigger] = {}

    def bind(self, trigger: Trigger) -> None:
        """Remember a trigger."""
        self._check(trigger)
        self._triggers[trigger.id] = trigger

    def release(self, trigger: Trigger) -> None:
        """Forget a trigger."""
        self._triggers.pop(trigger.id, None)

    def matching(self, **event: JSON) -> Iterator[Trigger]:
        """Yield the triggers whose configuration has no other value than the event for any of its keys."""
        for trigger in list(self._triggers.values()):
            if all(trigger.setting(key) in (None, value) for key, value in event.items()):
                yield trigger

    def __iter__(self) -> Iterator[Trigger]:
        """Iterate over all triggers, as they are now."""
        return iter(list(self._triggers.values()))

    def __len__(self) -> int:
        """Return the number of triggers."""
        return len(self._triggers)


def want_object(trigger: Trigger) -> None:
    """Refuse a configuration that is not an object."""
    if not isinstance(trigger.config, dict):
        raise TriggerError("Failed to parse trigger config: expected an object")


def want_texts(trigger: Trigger, *keys: str) -> None:
    """Refuse a configuration in which one of the keys is neither absent nor a string."""
    want_object(trigger)
    for key in keys:
        value = trigger.setting(key)
        if value is not None and not isinstance(value, str):
            raise TriggerError(f"Failed to parse trigger config: `{key}` is not a string")
