"""Logging: ``engine::log::*`` and the trigger type ``log``. Pure."""

from __future__ import annotations

import logging
from typing import Callable

from .bindings import Bindings
from .inputs import Input
from .jsontext import JSON, JsonObject
from .records import Builtin, Worker
from .router import Router

_SERVICE = "iii-observability"
# The name of a level: Python's, and the number and text of OpenTelemetry.
_LEVELS = {
    "trace": (logging.DEBUG, 1, "TRACE"),
    "debug": (logging.DEBUG, 5, "DEBUG"),
    "info": (logging.INFO, 9, "INFO"),
    "warn": (logging.WARNING, 13, "WARN"),
    "error": (logging.ERROR, 17, "ERROR"),
}

_logger = logging.getLogger("iii_sync.engine")


def provide_logs(router: Router) -> None:
    """Offer logging."""
    triggers = Bindings()
    router.add_builtins(
        Builtin(
            f"engine::log::{level}",
            f"Write a message to the engine's log at level {level}",
            _log(router, triggers, level),
            _SERVICE,
        )
        for level in _LEVELS
    )
    router.triggers.provide(_SERVICE, "log", "A message was logged", triggers)


def _log(router: Router, triggers: Bindings, level: str) -> Callable[[Worker, JSON], JSON]:
    number, severity, text = _LEVELS[level]

    def log(worker: Worker, data: JSON) -> JSON:
        fields = Input(f"engine::log::{level}", data)
        message = fields.text("message")
        service = fields.optional_text("service_name") or worker.profile.name or worker.id
        trace, span = fields.optional_text("trace_id"), fields.optional_text("span_id")
        told = fields.value("data")
        _logger.log(number, "%s: %s", service, message, extra={"data": told})
        now = int(router.now() * 1_000_000_000)
        event: JsonObject = {
            "timestamp_unix_nano": now,
            "observed_timestamp_unix_nano": now,
            "severity_number": severity,
            "severity_text": text,
            "body": message,
            "attributes": told if isinstance(told, dict) else {} if told is None else {"data": told},
            "trace_id": trace,
            "span_id": span,
            "resource": {},
            "service_name": service,
            "instrumentation_scope_name": None,
            "instrumentation_scope_version": None,
        }
        for trigger in triggers:
            if trigger.setting("level") in (None, "all", level):
                router.call(trigger.function_id, event, metadata=trigger.metadata)
        return None

    return log
