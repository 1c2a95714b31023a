"""Registrations of workers: functions, trigger types, triggers, and who is asked about them. Pure.

The session of a guarded listener may have to wait for the answer of a hook: then its next frames are
held, so that they are handled in their order.
"""

from __future__ import annotations

import logging
from typing import Callable, Optional

from typing_extensions import assert_never

from .calls import Calls, blank
from .frames import (
    Failure,
    RegisterFunction,
    RegisterTrigger,
    RegisterTriggerType,
    Registration,
    UnregisterFunction,
    UnregisterTrigger,
    UnregisterTriggerType,
)
from .jsontext import JSON, JsonObject
from .records import DEFAULT_NAMESPACE, Finish, Function, Outcome, Trigger, Worker
from .registry import Registry
from .triggers import Triggers, refuse

_logger = logging.getLogger("iii_sync.engine")


class Registrations:
    """What workers register with one engine.

    Args:
        registry: Where functions go.
        triggers: Where trigger types and triggers go.
        calls: Through which hooks are asked.
        resume: Handles the frames of a worker that were held while a hook was asked.
    """

    def __init__(self, registry: Registry, triggers: Triggers, calls: Calls, resume: Callable[[Worker], None]) -> None:
        self._registry = registry
        self._triggers = triggers
        self._calls = calls
        self._resume = resume

    def apply(self, worker: Worker, frame: Registration) -> None:
        """Register or unregister something, if the worker may."""
        if isinstance(frame, RegisterFunction):
            self._admit_function(worker, frame)
        elif isinstance(frame, UnregisterFunction):
            self._unregister_function(worker, _prefixed(worker, frame.id))
        elif isinstance(frame, RegisterTrigger):
            self._admit_trigger(worker, frame)
        elif isinstance(frame, UnregisterTrigger):
            self._triggers.unregister(frame.id)
        elif isinstance(frame, (RegisterTriggerType, UnregisterTriggerType)):
            namespace = self._registry.namespace_for(worker) if frame.namespace is None else frame.namespace
            if not namespace.strip():
                _logger.warning("trigger type %s: its namespace is blank", frame.id)
            elif isinstance(frame, RegisterTriggerType):
                self._admit_type(worker, namespace, frame)
            else:
                self._triggers.unregister_type(worker, namespace, frame)
        else:
            assert_never(frame)

    def _ask(self, worker: Worker, hook: Optional[str], data: JsonObject, go_on: Callable[[JsonObject], None]) -> None:
        """Ask a hook, and go on with the object it returns; anything else is a refusal, which nobody hears of."""
        if worker.rights is None or hook is None:
            go_on({})
            return
        answered = False

        def finish(outcome: Outcome) -> None:
            nonlocal answered
            answered = True
            held, worker.asking = worker.asking, False
            if worker.gone:
                return
            if isinstance(outcome, Failure):
                _logger.info("%s refused a registration: %s", hook, outcome.message)
            elif not isinstance(outcome.value, dict):
                _logger.warning("%s returned no object: the registration is refused", hook)
            else:
                go_on(outcome.value)
            if held:
                self._resume(worker)

        self._calls.call(hook, {**data, "context": worker.rights.context}, finish)
        worker.asking = not answered

    # Functions

    def _admit_function(self, worker: Worker, frame: RegisterFunction) -> None:
        rights = worker.rights
        if rights is None:
            self._register_function(worker, frame, frame.id)
            return
        if not rights.allow_function_registration:
            _logger.info("function %s was refused: worker %s may not register any", frame.id, worker.id)
            return

        def go_on(changes: JsonObject) -> None:
            asked = frame._replace(
                id=_text(changes, "function_id") or frame.id,
                description=_text(changes, "description") or frame.description,
                metadata=changes.get("metadata", frame.metadata),
            )
            self._register_function(worker, asked._replace(id=rights.prefixed(asked.id)), asked.id)

        data: JsonObject = {
            "function_id": frame.id,
            "description": frame.description,
            "metadata": frame.metadata,
            "namespace": self._registry.namespace_for(worker),
        }
        self._ask(worker, rights.guard.on_function_registration_function_id, data, go_on)

    def _register_function(self, worker: Worker, frame: RegisterFunction, own_id: str) -> None:
        namespace = self._registry.namespace_for(worker)
        key = (namespace, frame.id)
        holder = self._registry.functions.get(key)
        # A builtin replaced by a worker would be gone for everybody once that worker leaves.
        builtin = self._registry.is_builtin(namespace, frame.id)
        if builtin or (namespace != DEFAULT_NAMESPACE and frame.id.startswith("engine::")):
            owner: Optional[str] = ""
        elif holder is not None and holder.owner is not worker:
            owner = holder.owner.id
        else:
            owner = None
        if owner is not None:
            worker.peer.send(
                {
                    "type": "registrationrejected",
                    "code": "FUNCTION_NAMESPACE_CONFLICT",
                    "namespace": namespace,
                    "function_id": frame.id,
                    "owner_worker_id": owner,
                }
            )
            return
        function = Function(worker, namespace, frame, own_id)
        if frame.invocation is not None:
            try:
                function.remote = self._prepare(frame)
            except ValueError as error:
                _logger.warning("function %s was not registered: %s", frame.id, error)
                return
        self._registry.functions[key] = worker.functions[key] = function

    def _prepare(self, frame: RegisterFunction) -> Callable[[JSON, Finish], None]:
        if self._registry.prepare_remote is None:
            raise ValueError("functions called over HTTP are not supported here")
        return self._registry.prepare_remote(frame)

    def _unregister_function(self, worker: Worker, function_id: str) -> None:
        key = (self._registry.namespace_for(worker), function_id)
        if worker.functions.pop(key, None) is not None:
            del self._registry.functions[key]

    # Trigger types

    def _admit_type(self, worker: Worker, namespace: str, frame: RegisterTriggerType) -> None:
        rights = worker.rights
        if rights is None:
            self._triggers.register_type(worker, namespace, frame)
            return
        if not rights.allow_trigger_type_registration:
            _logger.info("trigger type %s was refused: worker %s may not register any", frame.id, worker.id)
            return

        def go_on(changes: JsonObject) -> None:
            changed = frame._replace(
                id=_text(changes, "trigger_type_id") or frame.id,
                description=_text(changes, "description") or frame.description,
            )
            self._triggers.register_type(worker, namespace, changed)

        data: JsonObject = {"trigger_type_id": frame.id, "description": frame.description}
        self._ask(worker, rights.guard.on_trigger_type_registration_function_id, data, go_on)

    # Triggers

    def _admit_trigger(self, worker: Worker, frame: RegisterTrigger) -> None:
        for name, value in (("namespace", frame.namespace), ("trigger_namespace", frame.trigger_namespace)):
            if value is not None and not value.strip():
                _refuse(worker, frame, blank(name))
                return
        rights = worker.rights
        if rights is None:
            self._triggers.register(worker, self._registry.namespace_for(worker), frame)
            return
        if rights.allowed_trigger_types is not None and frame.trigger_type not in rights.allowed_trigger_types:
            _logger.info("trigger %s was refused: worker %s may not use %s", frame.id, worker.id, frame.trigger_type)
            return
        namespace = DEFAULT_NAMESPACE if frame.namespace is None else frame.namespace

        def go_on(changes: JsonObject) -> None:
            changed = frame._replace(
                id=_text(changes, "trigger_id") or frame.id,
                trigger_type=_text(changes, "trigger_type") or frame.trigger_type,
                function_id=rights.prefixed(_text(changes, "function_id") or frame.function_id),
                config=changes.get("config", frame.config),
            )
            metadata = self._registry.metadata_of(namespace, changed.function_id)
            if rights.refusal(changed.function_id, namespace, metadata) is None:
                self._triggers.register(worker, self._registry.namespace_for(worker), changed)
            else:
                message = f"function '{changed.function_id}' not allowed in namespace '{namespace}'"
                _refuse(worker, changed, Failure("FORBIDDEN", message))

        data: JsonObject = {
            "trigger_id": frame.id,
            "trigger_type": frame.trigger_type,
            "function_id": frame.function_id,
            "config": frame.config,
            "metadata": frame.metadata,
            "namespace": namespace,
        }
        self._ask(worker, rights.guard.on_trigger_registration_function_id, data, go_on)


def _prefixed(worker: Worker, function_id: str) -> str:
    return function_id if worker.rights is None else worker.rights.prefixed(function_id)


def _refuse(worker: Worker, frame: RegisterTrigger, failure: Failure) -> None:
    refuse(Trigger(frame.id, frame.trigger_type, frame.function_id, None, owner=worker), failure)


def _text(changes: JsonObject, key: str) -> Optional[str]:
    value = changes.get(key)
    return value if isinstance(value, str) else None
