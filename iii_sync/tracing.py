"""Traces: the context that travels with calls, and spans for calls and handlers where OpenTelemetry is in use.

A call made in a handler belongs to the trace that the handler's own call belongs to. Without OpenTelemetry the two
headers are handed on as they came. With it, the context that is current goes out with calls, handlers run inside their
caller's, and each call and each run of a handler is a span. OpenTelemetry's API is imported only when asked for, for
that takes longer than importing this package; else it is used once the program itself has imported it.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
import re
import sys
from collections.abc import Mapping
from concurrent.futures import CancelledError
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable, Optional

from . import _version
from .errors import ConfigurationError, InvocationError

if TYPE_CHECKING:
    from typing_extensions import Self

    from .calls import Call

__all__ = ["Handling", "Span", "Tracer", "current_ids", "incoming", "outgoing"]

#: What travels (PROTOCOL 3.3); the engine carries no ``tracestate``.
_HEADERS = ("traceparent", "baggage")

_NONE: Mapping[str, str] = MappingProxyType({})

#: The headers of the call that the running handler was called with.
_received: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("iii_sync_received", default=_NONE)

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")

#: Characters of a payload that are recorded, where that is asked for.
_PAYLOAD_LIMIT = 8192

#: Keys whose values are not recorded, nor those of lines that begin with one, as header fields do. Compiled when they
#: are needed: that takes longer than all the rest here.
_SECRET = (
    "(?i)(api|access|private)[_-]?key|passw|passphrase|pwd|secret|credential|authorization|bearer|cookie|session"
    "|tokens?$"
)
_LINE = r"(?m)^([\w-]+):.*"

#: What an address may hold before its host.
_CREDENTIALS = r"//[^/?#\s]*@"

_REDACTED = "[REDACTED]"


class _Api:
    """The parts of OpenTelemetry's API that are used; made once it is certain that they are wanted."""

    def __init__(self) -> None:
        from opentelemetry import context, trace
        from opentelemetry.baggage.propagation import W3CBaggagePropagator
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.context: Any = context
        self.trace: Any = trace
        # One for the process: it follows a provider that the program sets later.
        self.tracer: Any = trace.get_tracer("iii_sync", _version.__version__)
        self._propagators = (TraceContextTextMapPropagator(), W3CBaggagePropagator())

    def inject(self, context: Any) -> dict[str, str]:
        carrier: dict[str, str] = {}
        for propagator in self._propagators:
            propagator.inject(carrier, context=context)
        match = _TRACEPARENT.fullmatch(carrier.get("traceparent", ""))
        if match is not None:
            # Only the flag "sampled": the engine drops the header for any other beside it.
            carrier["traceparent"] = f"{match[0][:-2]}{int(match[3], 16) & 1:02x}"
        return {name: carrier[name] for name in _HEADERS if carrier.get(name)}

    def extract(self, headers: Mapping[str, str]) -> Any:
        """Return the context that headers describe, and nothing of the current one."""
        context = self.context.Context()
        for propagator in self._propagators:
            context = propagator.extract(headers, context=context)
        return context


_the_api: Optional[_Api] = None


def _api(wanted: Optional[bool] = None) -> Optional[_Api]:
    """Return the API if it is in use: ``None`` stands for "if the program uses it"."""
    global _the_api
    if wanted is False or (wanted is None and "opentelemetry.trace" not in sys.modules):
        return None
    if _the_api is None:
        _the_api = _Api()
    return _the_api


def outgoing() -> dict[str, str]:
    """Return the headers that a message made here and now carries: ``traceparent`` and ``baggage``, or neither."""
    api = _api()
    # The latter where this worker's handlers are not traced.
    return (api.inject(None) if api is not None else {}) or dict(_received.get())


def current_ids() -> Optional[tuple[str, str]]:
    """Return the ids of the current trace and span in hexadecimal, if there are any."""
    match = _TRACEPARENT.fullmatch(outgoing().get("traceparent", ""))
    return (match[1], match[2]) if match is not None else None


def incoming(message: Mapping[str, Any]) -> Handling:
    """Return a context manager inside which the context of a call that came in is the current one."""
    return Handling(message, _api(), None)


class Span:
    """A call on its way. Without OpenTelemetry it is nothing at all."""

    def __init__(self, span: Any = None, api: Optional[_Api] = None) -> None:
        self._span = span
        self._api = api

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        self.finish(error)

    def finish(self, error: Optional[BaseException] = None) -> None:
        """End the span; with an error, if that is how it ended."""
        if self._span is None or self._api is None:
            return
        span, self._span = self._span, None
        if error is not None:
            code = error.code if isinstance(error, InvocationError) else type(error).__name__
            span.set_attribute("error.type", code)
            span.set_status(self._api.trace.Status(self._api.trace.StatusCode.ERROR, code))
        span.end()

    def finish_with(self, call: Call) -> None:
        """End the span when a call is done; at once if it is. On a handler thread."""
        if self._span is not None:
            call.add_done_callback(lambda done: self.finish(CancelledError() if done.cancelled() else done.exception()))


_NO_SPAN = Span()


class Handling(Span):
    """A handler at work, inside its caller's context."""

    def __init__(
        self,
        message: Mapping[str, Any],
        api: Optional[_Api],
        start: Optional[Callable[[Any], Any]],
        payloads: bool = False,
    ) -> None:
        super().__init__(None, api)
        self._headers = {name: message[name] for name in _HEADERS if isinstance(message.get(name), str)}
        if not _TRACEPARENT.fullmatch(self._headers.get("traceparent", "")):
            self._headers.pop("traceparent", None)
        self._data = message.get("data") if payloads else None
        self._start = start
        self._payloads = payloads
        self._token: Any = None
        self._attached: Any = None

    def __enter__(self) -> Self:
        self._token = _received.set(self._headers)
        if self._api is not None:
            context = self._api.extract(self._headers)
            if self._start is not None:
                self._span = self._start(context)
                context = self._api.trace.set_span_in_context(self._span, context)
                if self._payloads:
                    self._record("iii.invocation.input", self._data)
                    self._data = None
            self._attached = self._api.context.attach(context)
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        if self._api is not None:
            self._api.context.detach(self._attached)
        _received.reset(self._token)
        if error is not None and self._span is not None:
            # One whose text cannot be had must still be the one that is told.
            with contextlib.suppress(Exception):
                self._span.record_exception(error)
        self.finish(error)

    def result(self, value: Any) -> Any:
        """Take note of what the handler returned, as it travels; returns it."""
        if self._payloads and self._span is not None:
            self._record("iii.invocation.output", value)
        return value

    def _record(self, event: str, value: Any) -> None:
        if self._span.is_recording():
            text = json.dumps(_without_secrets(value), ensure_ascii=False)
            attributes = {
                "iii.payload.json": text[:_PAYLOAD_LIMIT],
                "iii.payload.truncated": len(text) > _PAYLOAD_LIMIT,
            }
            self._span.add_event(event, attributes)


class _Untraced(Handling):
    """A handler at work for a caller without a trace, where nobody makes one: most of them, so it costs nothing."""

    def __init__(self) -> None:
        super().__init__(_NONE, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        pass


_UNTRACED = _Untraced()


class Tracer:
    """Makes the spans of one worker.

    Args:
        wanted: ``True``: with OpenTelemetry; ``False``: without; ``None``: if the program uses it.
        payloads: Whether what handlers get and return is recorded.
        worker_id: Tells the worker's id.

    Raises:
        ConfigurationError: OpenTelemetry is wanted, and not installed.
    """

    def __init__(self, wanted: Optional[bool], payloads: bool, worker_id: Callable[[], Optional[str]]) -> None:
        if wanted is None and (os.environ.get("OTEL_ENABLED") or "").strip().lower() in ("false", "0", "no", "off"):
            wanted = False
        if wanted:
            try:
                _api(True)
            except ImportError as exc:
                raise ConfigurationError(
                    f"tracing=True needs OpenTelemetry's API ({exc}): pip install 'iii_sync[otel]'"
                ) from None
        forbidden = (os.environ.get("III_DISABLE_TRACE_PAYLOADS") or "").strip().lower() in ("1", "true")
        self._wanted = wanted
        self._payloads = payloads and not forbidden
        self._worker_id = worker_id

    def calling(self, message: dict[str, Any]) -> Span:
        """Begin a call: its message gets the headers, and what is returned is to be finished with the call.

        The engine's own functions get no span of their own: there is nothing to see but this worker's housekeeping.
        """
        api = _api(self._wanted)
        if api is None:
            if _received.get():
                message.update(_received.get())
            return _NO_SPAN
        function_id = message["function_id"]
        if function_id.startswith("engine::"):
            message.update(api.inject(None))
            return _NO_SPAN
        attributes = self._attributes(function_id, message.get("invocation_id"))
        span = api.tracer.start_span(f"call {function_id}", kind=api.trace.SpanKind.CLIENT, attributes=attributes)
        message.update(api.inject(api.trace.set_span_in_context(span)))
        return Span(span, api)

    def handling(self, message: Mapping[str, Any]) -> Handling:
        """Return a context manager for the run of a handler that ``message`` called."""
        api = _api(self._wanted)
        if api is None:
            headers = message.get("traceparent") or message.get("baggage")
            return Handling(message, None, None) if headers else _UNTRACED
        found, function_id = api, message["function_id"]
        attributes = self._attributes(function_id, message.get("invocation_id"))

        def start(context: Any) -> Any:
            kind = found.trace.SpanKind.SERVER
            name = f"execute {function_id}"
            return found.tracer.start_span(name, context=context, kind=kind, attributes=attributes)

        return Handling(message, api, start, self._payloads)

    def _attributes(self, function_id: str, invocation_id: Optional[str]) -> dict[str, str]:
        attributes = {
            "rpc.system": "iii",
            "iii.function.id": function_id,
            "iii.invocation.id": invocation_id,
            "iii.worker.id": self._worker_id(),
        }
        return {name: value for name, value in attributes.items() if value is not None}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _REDACTED if re.search(_SECRET, str(key)) else _without_secrets(item) for key, item in value.items()
        }
    if isinstance(value, str):
        text = re.sub(_CREDENTIALS, f"//{_REDACTED}@", value)
        return re.sub(_LINE, lambda line: f"{line[1]}: {_REDACTED}" if re.search(_SECRET, line[1]) else line[0], text)
    if isinstance(value, (list, tuple)):
        return [_without_secrets(item) for item in value]
    return value
