"""The introspection functions ``engine::functions::*`` and ``engine::workers::*``. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional, Union

from .builtins import ENGINE_VERSION
from .inputs import Input
from .jsontext import JSON, JsonObject
from .records import DEFAULT_NAMESPACE, Builtin, BuiltinError, Worker
from .router import Router
from .triggerlistings import TriggerView, matches, pick

_MAX_BATCH = 32


@dataclass(frozen=True)
class _Entry:
    """One function as the listings show it."""

    id: str
    namespace: str
    worker_name: str
    description: Optional[str]
    metadata: JSON = None
    request_schema: JSON = None
    response_schema: JSON = None
    owner: Optional[Worker] = None

    @property
    def internal(self) -> bool:
        hidden = self.id.startswith("engine::") and not self.id.startswith("engine::queue::")
        return hidden or (isinstance(self.metadata, dict) and self.metadata.get("internal") is True)

    def visible_to(self, caller: Worker) -> bool:
        return caller.rights is None or caller.rights.refusal(self.id, self.namespace, self.metadata) is None

    def summary(self) -> JsonObject:
        body: JsonObject = {
            "function_id": self.id,
            "namespace": self.namespace,
            "worker_name": self.worker_name,
        }
        if self.description is not None:
            body["description"] = self.description
        if self.metadata is not None:
            body["metadata"] = self.metadata
        return body

    def detail(self, triggers: list[JSON]) -> JsonObject:
        body = self.summary()
        if self.request_schema is not None:
            body["request_schema"] = self.request_schema
        if self.response_schema is not None:
            body["response_schema"] = self.response_schema
        body["registered_triggers"] = triggers
        return body


def listings(router: Router) -> Iterator[Builtin]:
    """Yield the builtins that describe what a router knows."""
    view = _View(router)
    yield Builtin("engine::functions::list", "List functions", view.list_functions)
    yield Builtin("engine::functions::info", "Describe one or several functions", view.describe_functions)
    yield Builtin("engine::workers::list", "List workers", view.list_workers)
    yield Builtin("engine::workers::info", "Describe one worker", view.describe_worker)
    yield from view.triggers.builtins()


def function_summaries(router: Router) -> list[JSON]:
    """Return the summaries of all functions, of every namespace, sorted by id."""
    view = _View(router)
    return [entry.summary() for entry in sorted(view.entries(), key=lambda entry: (entry.id, entry.namespace))]


class _View:
    """What the listings see of one router."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.triggers = TriggerView(router, self._worker_name, self._target)

    def list_functions(self, caller: Worker, data: JSON) -> JSON:
        fields = Input("engine::functions::list", data)
        search, prefix = fields.optional_text("search"), fields.optional_text("prefix")
        workers = set(fields.optional_texts("workers") or ())
        worker = fields.optional_text("worker")
        if worker is not None:
            workers.add(worker)
        internal = fields.flag("include_internal")
        entries = [
            entry
            for entry in self.entries()
            if (internal or not entry.internal)
            and entry.visible_to(caller)
            and (prefix is None or entry.id.startswith(prefix))
            and (not workers or entry.worker_name in workers)
            and (search is None or matches(search, entry.id, entry.description))
        ]
        entries.sort(key=lambda entry: (not matches(search or "", entry.id), entry.id, entry.namespace))
        return {"functions": [entry.summary() for entry in entries]}

    def describe_functions(self, caller: Worker, data: JSON) -> JSON:
        fields = Input("engine::functions::info", data)
        single, batch = fields.optional_text("function_id"), fields.optional_texts("function_ids")
        namespace = fields.optional_text("namespace")
        if single is not None and batch is None:
            return self._detail(self._function(caller, single, namespace))
        if batch is None or single is not None:
            raise BuiltinError("INVALID_ARGUMENTS", "exactly one of `function_id` and `function_ids`")
        ids = list(dict.fromkeys(batch))
        if len(ids) > _MAX_BATCH:
            raise BuiltinError("INVALID_ARGUMENTS", f"at most {_MAX_BATCH} `function_ids` at a time")
        details: list[JSON] = []
        for function_id in ids:
            try:
                details.append(self._detail(self._function(caller, function_id, namespace)))
            except BuiltinError as error:
                reason = "forbidden" if error.code == "FORBIDDEN" else "not_found"
                details.append({"function_id": function_id, "error": reason})
        return {"functions": details}

    def list_workers(self, _: Worker, data: JSON) -> JSON:
        fields = Input("engine::workers::list", data)
        search = fields.optional_text("search")
        wanted = {"runtime": fields.optional_text("runtime"), "status": fields.optional_text("status")}
        summaries = [self._engine_summary(service) for service in self._services()]
        # A worker that does not tell its process id is not shown, as on the real engine.
        shown = [worker for worker in self._router.workers.values() if worker.profile.pid is not None]
        summaries.extend(self._summary(worker) for worker in shown)
        listed: list[JSON] = [
            summary
            for summary in summaries
            if all(value is None or summary[key] == value for key, value in wanted.items())
            and (search is None or matches(search, summary["name"], summary["description"]))
        ]
        return {"workers": listed}

    def describe_worker(self, _: Worker, data: JSON) -> JSON:
        fields = Input("engine::workers::info", data)
        name, namespace = fields.text("name"), fields.optional_text("namespace")
        if name in self._services() and namespace in (None, DEFAULT_NAMESPACE):
            about: JsonObject = {**self._engine_summary(name), "internal": True}
            own = [entry for entry in self.entries() if entry.owner is None and entry.worker_name == name]
            return self._about(about, own, name)
        found = {
            self._router.namespace_for(worker): worker
            for worker in self._router.workers.values()
            if worker.profile.name == name
        }
        worker = found[pick(found, namespace, f"Worker '{name}' is not connected.")]
        about = {**self._summary(worker), "internal": False}
        if worker.profile.pid is not None:
            about["pid"] = worker.profile.pid
        return self._about(about, [entry for entry in self.entries() if entry.owner is worker], worker)

    def _about(self, about: JsonObject, entries: list[_Entry], owner: Union[Worker, str]) -> JSON:
        functions: list[JSON] = [entry.summary() for entry in sorted(entries, key=lambda entry: entry.id)]
        return {
            "worker": about,
            "functions": functions,
            "trigger_types": self.triggers.types_of(owner),
            "registered_triggers": self.triggers.of_functions({(entry.id, entry.namespace) for entry in entries}),
        }

    def _services(self) -> list[str]:
        return sorted({builtin.service for builtin in self._router.builtins.values()})

    def _detail(self, entry: _Entry) -> JsonObject:
        return entry.detail(self.triggers.of_function(entry.id, entry.namespace))

    def _target(self, function_id: str, namespace: str) -> Optional[JsonObject]:
        for entry in self.entries(function_id):
            if entry.namespace == namespace:
                return self._detail(entry)
        return None

    def _worker_name(self, function_id: str, namespace: str) -> str:
        function = self._router.functions.get((namespace, function_id))
        builtin = self._router.builtins.get(function_id) if namespace == DEFAULT_NAMESPACE else None
        if builtin is not None:
            return builtin.service
        return (function.owner.profile.name if function is not None else None) or function_id.split("::")[0]

    def _function(self, caller: Worker, function_id: str, namespace: Optional[str]) -> _Entry:
        found = {entry.namespace: entry for entry in self.entries(function_id)}
        entry = found[pick(found, namespace, f"Function '{function_id}' is not registered.")]
        if not entry.visible_to(caller):
            raise BuiltinError("FORBIDDEN", f"Function '{function_id}' is not visible to this session.")
        return entry

    def entries(self, function_id: Optional[str] = None) -> Iterator[_Entry]:
        for builtin in self._router.builtins.values():
            if function_id not in (None, builtin.id):
                continue
            yield _Entry(builtin.id, DEFAULT_NAMESPACE, builtin.service, builtin.description)
        for function in self._router.functions.values():
            told = function.registration
            if function_id not in (None, told.id):
                continue
            yield _Entry(
                told.id,
                function.namespace,
                self._worker_name(told.id, function.namespace),
                told.description,
                told.metadata,
                told.request_format,
                told.response_format,
                function.owner,
            )

    def _summary(self, worker: Worker) -> JsonObject:
        profile = worker.profile
        return {
            "name": profile.name,
            "description": profile.description,
            "version": profile.version,
            "id": worker.id,
            "namespace": self._router.namespace_for(worker),
            "runtime": profile.runtime,
            "os": profile.os,
            "status": "connected",
            "function_count": len(worker.functions),
            "connected_at_ms": int(worker.connected_at * 1000),
            "active_invocations": self._router.active_invocations(worker),
            "isolation": profile.isolation,
            "ip_address": worker.address,
        }

    def _engine_summary(self, service: str) -> JsonObject:
        return {
            "name": service,
            "description": "Part of the local engine of iii_sync.",
            "version": ENGINE_VERSION,
            "id": service,
            "namespace": DEFAULT_NAMESPACE,
            "runtime": "engine",
            "os": None,
            "status": "available",
            "function_count": sum(builtin.service == service for builtin in self._router.builtins.values()),
            "connected_at_ms": int(self._router.started_at * 1000),
            "active_invocations": 0,
            "isolation": "in-process",
            "ip_address": None,
        }
