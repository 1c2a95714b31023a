"""Logging: ``engine::log::*``, ``engine::logs::*`` and the trigger type ``log``. Pure.

The last lines are kept, and gone with the engine.
"""

from __future__ import annotations

import logging
from collections import deque
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


CAPACITY = 1000
"""Lines that are kept."""


class Logs:
    """The log of one engine."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._triggers = Bindings()
        self._lines: deque[JsonObject] = deque(maxlen=CAPACITY)
        for level in _LEVELS:
            description = f"Write a message to the engine's log at level {level}"
            router.add_builtins([Builtin(f"engine::log::{level}", description, self._writer(level), _SERVICE)])
        router.add_builtins(
            [
                Builtin("engine::logs::list", "Return the lines of the log, the latest first", self._list, _SERVICE),
                Builtin("engine::logs::clear", "Forget the lines of the log", self._clear, _SERVICE),
            ]
        )
        router.triggers.provide(_SERVICE, "log", "A message was logged", self._triggers)

    def _writer(self, level: str) -> Callable[[Worker, JSON], JSON]:
        number, severity, text = _LEVELS[level]

        def log(worker: Worker, data: JSON) -> JSON:
            fields = Input(f"engine::log::{level}", data)
            message = fields.text("message")
            service = fields.optional_text("service_name") or worker.profile.name or worker.id
            trace, span = fields.optional_text("trace_id"), fields.optional_text("span_id")
            told = fields.value("data")
            _logger.log(number, "%s: %s", service, message, extra={"data": told})
            now = int(self._router.now() * 1_000_000_000)
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
            self._lines.appendleft(event)
            for trigger in self._triggers:
                if trigger.setting("level") in (None, "all", level):
                    self._router.call(trigger.function_id, event, metadata=trigger.metadata)
            return None

        return log

    def _list(self, _: Worker, data: JSON) -> JSON:
        fields = Input("engine::logs::list", data)
        start, end = fields.optional_unsigned("start_time", 64), fields.optional_unsigned("end_time", 64)
        trace, span = fields.optional_text("trace_id"), fields.optional_text("span_id")
        least, text = fields.optional_unsigned("severity_min", 31), fields.optional_text("severity_text")
        offset, limit = fields.optional_unsigned("offset", 64), fields.optional_unsigned("limit", 64)
        found: list[JSON] = [
            line
            for line in self._lines
            if (start is None or _number(line, "timestamp_unix_nano") >= start * 1_000_000)
            and (end is None or _number(line, "timestamp_unix_nano") <= end * 1_000_000)
            and trace in (None, line["trace_id"])
            and span in (None, line["span_id"])
            and (least is None or _number(line, "severity_number") >= least)
            and (text is None or text.upper() == line["severity_text"])
        ]
        first = offset or 0
        return {
            "logs": found[first:] if limit is None else found[first : first + limit],
            "total": len(found),
            "query": {
                "start_time": start,
                "end_time": end,
                "trace_id": trace,
                "span_id": span,
                "severity_min": least,
                "severity_text": text,
                "offset": offset,
                "limit": limit,
            },
            "timestamp": int(self._router.now() * 1000),
        }

    def _clear(self, _: Worker, data: JSON) -> JSON:
        Input("engine::logs::clear", data)
        self._lines.clear()
        return {"success": True}


def _number(line: JsonObject, key: str) -> int:
    value = line[key]
    return value if isinstance(value, int) else 0
