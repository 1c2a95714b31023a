"""Trigger types and triggers: who provides what, what is bound to whom, what waits. Pure.

A trigger whose type nobody provides is *parked*: it waits, silently, until somebody does. A type is
looked up in the namespace the trigger names, or else in that of its worker and then in ``default``;
when a better provider appears the trigger moves to it. A type that the engine itself provides may be
taken over by a worker and falls back to the engine when that worker leaves.
"""

from __future__ import annotations

import logging
from typing import Callable, Optional

from .frames import Failure, RegisterTrigger, RegisterTriggerType, TriggerResult, UnregisterTriggerType
from .jsontext import JsonObject
from .records import DEFAULT_NAMESPACE, Provider, Trigger, TriggerError, TriggerType, Worker

_Answer = Callable[[Optional[Failure]], None]

_logger = logging.getLogger("iii_sync.engine")


class Triggers:
    """The trigger types and triggers of one engine."""

    def __init__(self) -> None:
        self.types: dict[tuple[str, str], TriggerType] = {}
        self.all: dict[str, Trigger] = {}
        self._own_types: dict[tuple[str, str], TriggerType] = {}
        self._awaited: dict[str, _Answer] = {}

    # Types

    def provide(self, service: str, type_id: str, description: str, provider: Provider) -> None:
        """Offer a trigger type of the engine itself, in ``default``."""
        registration = RegisterTriggerType(type_id, description)
        kind = TriggerType(DEFAULT_NAMESPACE, registration, provider, service)
        self._own_types[kind.namespace, kind.id] = kind
        self._install(kind)

    def register_type(self, worker: Worker, namespace: str, frame: RegisterTriggerType) -> None:
        """Make a worker the provider of a type; what was and what can be bound to it is sent to it."""
        self._install(TriggerType(namespace, frame, worker))

    def unregister_type(self, worker: Worker, namespace: str, frame: UnregisterTriggerType) -> None:
        """Remove a type if this worker provides it; its triggers are parked or move."""
        kind = self.types.get((namespace, frame.id))
        if kind is not None and kind.provider is worker:
            self._remove_type(kind)

    def _install(self, kind: TriggerType) -> None:
        self.types[kind.namespace, kind.id] = kind
        for trigger in list(self.all.values()):
            if self._lookup(trigger) is kind:
                earlier = trigger.bound
                if earlier is not None and earlier.provider is not kind.provider:
                    self._release(trigger)
                self._bind(trigger, kind)

    def _remove_type(self, kind: TriggerType) -> None:
        key = (kind.namespace, kind.id)
        del self.types[key]
        for trigger in self.all.values():
            if trigger.bound is kind:
                trigger.bound = None
                self._settle(trigger, None)
        own = self._own_types.get(key)
        if own is not None:
            self._install(own)
            return
        for trigger in list(self.all.values()):
            found = self._lookup(trigger) if trigger.bound is None and trigger.type_id == kind.id else None
            if found is not None:
                self._bind(trigger, found)

    # Triggers

    def register(self, worker: Worker, home: str, frame: RegisterTrigger) -> None:
        """Register a trigger of a worker; an earlier one of the same id is replaced."""
        trigger = Trigger(
            frame.id,
            frame.trigger_type,
            frame.function_id,
            frame.config,
            frame.metadata,
            DEFAULT_NAMESPACE if frame.namespace is None else frame.namespace,
            frame.trigger_namespace,
            home,
            worker,
        )
        self._add(trigger)

    def register_durable(self, trigger: Trigger, answer: _Answer) -> None:
        """Register a trigger that belongs to nobody.

        Args:
            trigger: The trigger, without an owner.
            answer: Gets what the provider says, ``None`` for a trigger that was accepted or parked.
        """
        self._awaited[trigger.id] = answer
        self._add(trigger)
        if trigger.bound is None or not isinstance(trigger.bound.provider, Worker):
            self._settle(trigger, None)

    def give_up(self, trigger_id: str) -> None:
        """Take the silence of a provider for its consent."""
        answer = self._awaited.pop(trigger_id, None)
        if answer is not None:
            answer(None)

    def unregister(self, trigger_id: str) -> bool:
        """Remove a trigger, parked or not; tell whether there was one."""
        trigger = self.all.pop(trigger_id, None)
        if trigger is None:
            return False
        self._release(trigger)
        self._settle(trigger, None)
        return True

    def result(self, worker: Worker, frame: TriggerResult) -> None:
        """Take what a provider says to a trigger: a refused one is parked and its owner told."""
        trigger = self.all.get(frame.id)
        if trigger is None or trigger.bound is None or trigger.bound.provider is not worker:
            _logger.debug("worker %s: does not provide trigger %s", worker.id, frame.id)
        elif frame.error is None:
            self._settle(trigger, None)
        elif trigger.id in self._awaited:
            del self.all[trigger.id]
            error = f"{frame.error.code}: {frame.error.message}"
            self._settle(trigger, Failure("trigger_registration_failed", error))
        else:
            trigger.bound = None
            refuse(trigger, frame.error)

    def remove_worker(self, worker: Worker) -> None:
        """Remove the triggers and the types of a worker."""
        for trigger in [trigger for trigger in self.all.values() if trigger.owner is worker]:
            self.unregister(trigger.id)
        for kind in [kind for kind in self.types.values() if kind.provider is worker]:
            self._remove_type(kind)

    def bound_to(self, kind: TriggerType) -> int:
        """Count the triggers of a type."""
        return sum(trigger.bound is kind for trigger in self.all.values())

    def _add(self, trigger: Trigger) -> None:
        kind = self._lookup(trigger)
        earlier = self.all.pop(trigger.id, None)
        # A provider worker takes the same id again for a replacement.
        if earlier is not None and (kind is None or earlier.bound is not kind or not isinstance(kind.provider, Worker)):
            self._release(earlier)
        self.all[trigger.id] = trigger
        if kind is None:
            hint = " (start this engine with an HTTP port for that)" if trigger.type_id == "http" else ""
            _logger.warning("trigger %s is parked: nobody provides type %s%s", trigger.id, trigger.type_id, hint)
        else:
            self._bind(trigger, kind)

    def _lookup(self, trigger: Trigger) -> Optional[TriggerType]:
        if trigger.trigger_namespace is not None:
            return self.types.get((trigger.trigger_namespace, trigger.type_id))
        found = self.types.get((trigger.home, trigger.type_id))
        return self.types.get((DEFAULT_NAMESPACE, trigger.type_id)) if found is None else found

    def _bind(self, trigger: Trigger, kind: TriggerType) -> None:
        trigger.bound = kind
        if isinstance(kind.provider, Worker):
            kind.provider.peer.send(_forwarded(trigger, kind))
            return
        try:
            kind.provider.bind(trigger)
        except TriggerError as error:
            trigger.bound = None
            del self.all[trigger.id]
            failure = Failure("trigger_registration_failed", str(error))
            if trigger.id in self._awaited:
                self._settle(trigger, failure)
            else:
                refuse(trigger, failure)

    def _release(self, trigger: Trigger) -> None:
        kind, trigger.bound = trigger.bound, None
        if kind is None:
            return
        if not isinstance(kind.provider, Worker):
            kind.provider.release(trigger)
        elif not kind.provider.gone:
            kind.provider.peer.send({"type": "unregistertrigger", "id": trigger.id, "trigger_type": trigger.type_id})

    def _settle(self, trigger: Trigger, failure: Optional[Failure]) -> None:
        answer = self._awaited.pop(trigger.id, None)
        if answer is not None:
            answer(failure)


def refuse(trigger: Trigger, failure: Failure) -> None:
    """Tell the owner of a trigger what is wrong with it."""
    if trigger.owner is None:
        _logger.warning("trigger %s of type %s was refused: %s", trigger.id, trigger.type_id, failure.message)
    elif not trigger.owner.gone:
        trigger.owner.peer.send(
            {
                "type": "triggerregistrationresult",
                "id": trigger.id,
                "trigger_type": trigger.type_id,
                "function_id": trigger.function_id,
                "error": failure.to_json(),
            }
        )


def _forwarded(trigger: Trigger, kind: TriggerType) -> JsonObject:
    frame: JsonObject = {
        "type": "registertrigger",
        "id": trigger.id,
        "trigger_type": trigger.type_id,
        "function_id": trigger.function_id,
        "config": trigger.config,
    }
    if trigger.metadata is not None:
        frame["metadata"] = trigger.metadata
    for key, namespace in (("namespace", trigger.namespace), ("trigger_namespace", kind.namespace)):
        if namespace != DEFAULT_NAMESPACE:
            frame[key] = namespace
    return frame
