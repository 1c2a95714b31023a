"""Functions the engine itself serves: announcing a worker, triggers, channels, health. Pure."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Optional

from .calls import blank
from .frames import Failure
from .hub import DEFAULT_CAPACITY, Hub
from .inputs import Input
from .jsontext import JSON, JsonObject
from .records import Builtin, BuiltinError, Finish, Later, NoAnswer, Profile, Success, Trigger, Worker
from .router import Router

ENGINE_VERSION = "0.23.0-rc.4+iii-sync"
"""The release of the real engine whose protocol is spoken, marked as not being it."""

# Control characters, bidirectional overrides, line and paragraph separators: a name is shown to people.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_MAX_LABEL = 280
PROVIDER_PATIENCE = 10.0
"""Seconds after which a provider that says nothing to a trigger is taken to accept it."""

_logger = logging.getLogger("iii_sync.engine")


def builtins(router: Router, hub: Hub) -> Iterator[Builtin]:
    """Yield the builtins that act on a router and its channels."""

    def register(worker: Worker, data: JSON) -> JSON:
        return _register_worker(router, worker, data)

    def create_channel(_: Worker, data: JSON) -> JSON:
        # An empty list passes for an object on the real engine.
        fields = Input("engine::channels::create", {} if data == [] else data)
        capacity = fields.optional_unsigned("buffer_size", 64)
        channel = hub.create(DEFAULT_CAPACITY if capacity is None else capacity)
        ref: JsonObject = {"channel_id": channel.id, "access_key": channel.key}
        return {"writer": {**ref, "direction": "write"}, "reader": {**ref, "direction": "read"}}

    def health(_: Worker, __: JSON) -> JSON:
        components: JsonObject = {
            name: {"status": "disabled", "details": None} for name in ("otel", "metrics", "logs", "spans")
        }
        now = int(router.now() * 1000)
        return {
            "status": "healthy",
            "components": components,
            "timestamp": now,
            "version": ENGINE_VERSION,
        }

    def register_trigger(_: Worker, data: JSON) -> Later:
        return _register_trigger(router, data)

    def unregister_trigger(_: Worker, data: JSON) -> JSON:
        fields = Input("engine::unregister_trigger", data)
        fields.optional_text("trigger_type")
        return {"removed": router.triggers.unregister(fields.text("id"))}

    yield Builtin("engine::register_trigger", "Register a trigger that outlives its caller", register_trigger)
    yield Builtin("engine::unregister_trigger", "Remove a trigger", unregister_trigger)
    yield Builtin("engine::workers::register", "Announce a worker's name, namespace and runtime", register)
    yield Builtin("engine::channels::create", "Create a channel: a writing and a reading end", create_channel)
    yield Builtin("engine::health::check", "Tell whether the engine is healthy", health)
    yield Builtin("engine::baggage::get", "Return one baggage entry (always null here)", _get_baggage)
    yield Builtin("engine::baggage::set", "Accept a baggage entry (it is not kept)", _set_baggage)
    yield Builtin("engine::baggage::get_all", "Return the baggage (always empty here)", _get_all_baggage)


def _register_worker(router: Router, worker: Worker, data: JSON) -> JSON:
    fields = Input("engine::workers::register", data)
    telemetry = fields.optional_object("telemetry")
    if telemetry is not None:
        described = Input("engine::workers::register", telemetry)
        for key in ("language", "project_name", "framework"):
            described.optional_text(key)
    profile = Profile(
        runtime=fields.optional_text("runtime") or "unknown",
        version=fields.optional_text("version"),
        name=_label(fields.optional_text("name")),
        description=_label(fields.optional_text("description")),
        os=fields.optional_text("os"),
        pid=fields.optional_unsigned("pid", 32),
        isolation=fields.optional_text("isolation"),
    )
    namespace = fields.optional_text("namespace")
    if namespace is not None and not namespace.strip():
        raise BuiltinError(
            "INVALID_NAMESPACE",
            f"namespace is empty: worker '{profile.name or '<unnamed>'}' declared \"{namespace}\". "
            "Give it a name, or omit the field to register in 'default'.",
        )
    # The name is claimed before the held registrations are applied: a loser must leave no trace.
    if profile.name is not None:
        holder = router.claim_name(worker, profile.name, namespace)
        if holder is not None:
            worker.peer.send(
                {
                    "type": "registrationrejected",
                    "code": "WORKER_NAMESPACE_CONFLICT",
                    "namespace": router.namespace_for(worker, namespace),
                    "worker_name": profile.name,
                    "owner_worker_id": holder.id,
                }
            )
            worker.peer.close()
            router.disconnect(worker)
            raise NoAnswer
    if worker.namespace is not None and namespace not in (None, worker.namespace):
        _logger.warning("worker %s stays in namespace %s", worker.id, worker.namespace)
    worker.profile = profile
    router.pin(worker, router.namespace_for(worker, namespace))
    router.announce("worker_metadata_updated", worker)
    return {"success": True}


def _register_trigger(router: Router, data: JSON) -> Later:
    fields = Input("engine::register_trigger", data)
    trigger = Trigger(
        router.new_id(),
        fields.text("trigger_type"),
        fields.text("function_id"),
        fields.value("config"),
        fields.value("metadata"),
        trigger_namespace=fields.optional_text("trigger_namespace"),
    )
    if trigger.trigger_namespace is not None and not trigger.trigger_namespace.strip():
        raise BuiltinError("INVALID_NAMESPACE", blank("trigger_namespace").message)

    def start(finish: Finish) -> None:
        def answer(failure: Optional[Failure]) -> None:
            finish(Success({"id": trigger.id}) if failure is None else failure)

        router.triggers.register_durable(trigger, answer)
        router.later(PROVIDER_PATIENCE, lambda: router.triggers.give_up(trigger.id))

    return Later(start)


def _label(text: Optional[str]) -> Optional[str]:
    if text is None:
        return None
    return _UNPRINTABLE.sub("", text)[:_MAX_LABEL].strip() or None


def _get_baggage(_: Worker, data: JSON) -> JSON:
    Input("engine::baggage::get", data).text("key")
    return {"value": None}


def _set_baggage(_: Worker, data: JSON) -> JSON:
    fields = Input("engine::baggage::set", data)
    fields.text("key")
    fields.text("value")
    return {"success": True, "note": "The local engine keeps no baggage; it travels with each call."}


def _get_all_baggage(_: Worker, data: JSON) -> JSON:
    Input("engine::baggage::get_all", {} if data == [] else data)
    return {"baggage": {}}
