"""The introspection functions ``engine::triggers::*`` and ``engine::registered-triggers::*``. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Optional, Union

from .inputs import Input
from .jsontext import JSON, JsonObject, encode
from .records import DEFAULT_NAMESPACE, Builtin, BuiltinError, Trigger, TriggerType, Worker
from .router import Router

_SUMMARY = 80


class TriggerView:
    """What the listings see of the triggers of one router.

    Args:
        router: The router.
        worker_name: Names the worker of a function, given its id and namespace.
        target: Describes a function, if it is there.
    """

    def __init__(
        self,
        router: Router,
        worker_name: Callable[[str, str], str],
        target: Callable[[str, str], Optional[JsonObject]],
    ) -> None:
        self._triggers = router.triggers
        self._worker_name = worker_name
        self._target = target

    def builtins(self) -> Iterator[Builtin]:
        """Yield the builtins."""
        yield Builtin("engine::triggers::list", "List trigger types", self.list_types)
        yield Builtin("engine::triggers::info", "Describe one trigger type", self.describe_type)
        yield Builtin("engine::registered-triggers::list", "List registered triggers", self.list_triggers)
        yield Builtin("engine::registered-triggers::info", "Describe one registered trigger", self.describe_trigger)

    def list_types(self, _: Worker, data: JSON) -> JSON:
        """Serve ``engine::triggers::list``."""
        fields = Input("engine::triggers::list", data)
        search, prefix = fields.optional_text("search"), fields.optional_text("prefix") or ""
        worker, internal = fields.optional_text("worker"), fields.flag("include_internal")
        listed: list[JSON] = [
            _type_summary(kind)
            for kind in self._sorted_types()
            if (internal or not kind.id.startswith("engine::"))
            and kind.id.startswith(prefix)
            and (worker is None or _provider_name(kind) == worker)
            and (search is None or matches(search, kind.id, kind.registration.description))
        ]
        return {"triggers": listed}

    def describe_type(self, _: Worker, data: JSON) -> JSON:
        """Serve ``engine::triggers::info``."""
        fields = Input("engine::triggers::info", data)
        type_id, namespace = fields.text("id"), fields.optional_text("namespace")
        found = {kind.namespace: kind for kind in self._triggers.types.values() if kind.id == type_id}
        missing = f"Trigger type '{type_id}' is not registered in namespace '{namespace or DEFAULT_NAMESPACE}'."
        return self._type_detail(found[pick(found, namespace, missing)])

    def list_triggers(self, _: Worker, data: JSON) -> JSON:
        """Serve ``engine::registered-triggers::list``."""
        fields = Input("engine::registered-triggers::list", data)
        wanted = {
            "trigger_type": fields.optional_text("trigger_type"),
            "function_id": fields.optional_text("function_id"),
            "worker_name": fields.optional_text("worker"),
        }
        search, internal = fields.optional_text("search"), fields.flag("include_internal")
        summaries = [
            self._summary(trigger)
            for trigger in self._live()
            if internal or not trigger.function_id.startswith("engine::")
        ]
        listed: list[JSON] = [
            summary
            for summary in summaries
            if all(value is None or summary[key] == value for key, value in wanted.items())
            and (search is None or matches(search, summary["id"], summary["trigger_type"], summary["function_id"]))
        ]
        return {"registered_triggers": listed}

    def describe_trigger(self, _: Worker, data: JSON) -> JSON:
        """Serve ``engine::registered-triggers::info``."""
        name = Input("engine::registered-triggers::info", data).text("id")
        trigger = self._triggers.all.get(name)
        if trigger is None or trigger.bound is None:
            raise BuiltinError("NOT_FOUND", f"Registered trigger '{name}' was not found.")
        body = self._summary(trigger)
        del body["config_summary"]
        if trigger.metadata is not None:
            body["metadata"] = trigger.metadata
        body["trigger"] = self._type_detail(trigger.bound)
        body["function"] = self._target(trigger.function_id, trigger.namespace)
        return body

    def of_function(self, function_id: str, namespace: str) -> list[JSON]:
        """Return what is bound to a function."""
        return [
            {"id": trigger.id, "trigger_type": trigger.type_id, "config": trigger.config}
            for trigger in self._live()
            if (trigger.function_id, trigger.namespace) == (function_id, namespace)
        ]

    def of_functions(self, functions: set[tuple[str, str]]) -> list[JSON]:
        """Return the triggers of functions, given their ids and namespaces; whoever registered them."""
        return [
            self._summary(trigger) for trigger in self._live() if (trigger.function_id, trigger.namespace) in functions
        ]

    def types_of(self, owner: Union[Worker, str]) -> list[JSON]:
        """Return the types that a worker, or a service of the engine, provides."""
        kinds = [kind for kind in self._sorted_types() if kind.provider is owner or kind.service == owner]
        return [_type_summary(kind) for kind in kinds]

    def _sorted_types(self) -> list[TriggerType]:
        return sorted(self._triggers.types.values(), key=lambda kind: (kind.id, kind.namespace))

    def _live(self) -> list[Trigger]:
        bound = [trigger for trigger in self._triggers.all.values() if trigger.bound is not None]
        return sorted(bound, key=lambda trigger: trigger.id)

    def _type_detail(self, kind: TriggerType) -> JsonObject:
        body = _type_summary(kind)
        told = kind.registration
        if told.trigger_request_format is not None:
            body["configuration_schema"] = told.trigger_request_format
        if told.call_request_format is not None:
            body["request_schema"] = told.call_request_format
        body["instance_count"] = self._triggers.bound_to(kind)
        return body

    def _summary(self, trigger: Trigger) -> JsonObject:
        text = encode(trigger.config).decode("utf-8")
        return {
            "id": trigger.id,
            "trigger_type": trigger.type_id,
            "function_id": trigger.function_id,
            "worker_name": self._worker_name(trigger.function_id, trigger.namespace),
            "config": trigger.config,
            "config_summary": text if len(text) <= _SUMMARY else text[:_SUMMARY] + "\u2026",
        }


def _provider_name(kind: TriggerType) -> str:
    if isinstance(kind.provider, Worker):
        return kind.provider.profile.name or kind.id.split("::")[0]
    return kind.service


def _type_summary(kind: TriggerType) -> JsonObject:
    return {
        "id": kind.id,
        "namespace": kind.namespace,
        "worker_name": _provider_name(kind),
        "description": kind.registration.description,
    }


def pick(namespaces: Iterable[str], wanted: Optional[str], missing: str) -> str:
    """Choose a namespace: the named one, else ``default``, else the only one there is."""
    found = sorted(namespaces)
    if wanted is not None:
        found = [namespace for namespace in found if namespace == wanted]
    elif DEFAULT_NAMESPACE in found:
        return DEFAULT_NAMESPACE
    if not found:
        raise BuiltinError("NOT_FOUND", missing)
    if len(found) > 1:
        raise BuiltinError("NOT_FOUND", f"It exists in several namespaces; name one of: {', '.join(found)}.")
    return found[0]


def matches(search: str, *texts: JSON) -> bool:
    """Tell whether one of the texts holds what is searched for, in whatever case."""
    return any(isinstance(text, str) and search.lower() in text.lower() for text in texts)
