"""The functions this worker offers, and how a call of one of them is carried out."""

from __future__ import annotations

import inspect
import logging
import threading
import traceback
from collections.abc import Mapping
from typing import Any, Callable, Optional

from .channels.ends import AnyEnd, Ends
from .errors import ConfigurationError, IIISyncError, InvocationError, PayloadTooLargeError
from .pool import HandlerPool
from .tracing import Tracer
from .wire import messages

__all__ = ["Function", "FunctionRef", "Functions", "check_function_id"]

_log = logging.getLogger("iii_sync.worker")

Handler = Callable[..., Any]

#: Ids that the engine serves in ``default`` (PROTOCOL 6). A worker that registers one of them takes it over, and
#: when that worker leaves nobody serves it until the engine restarts (E-16).
_ENGINE_IDS = frozenset(
    {
        "publish",
        *(f"state::{name}" for name in ("set", "get", "delete", "update", "list", "list_groups")),
        *(f"stream::{name}" for name in ("set", "get", "delete", "list", "list_groups", "list_all", "send", "update")),
        *(f"configuration::{name}" for name in ("register", "set", "get", "list", "schema")),
    }
)


def check_function_id(function_id: Any) -> str:
    """Return the id if a worker may register it.

    Raises:
        ConfigurationError: Not text, blank, or served by the engine itself.
    """
    if not isinstance(function_id, str) or not function_id.strip():
        raise ConfigurationError(f"function id {function_id!r}: give a name such as 'files::process'")
    try:
        messages.check(function_id, "function id")
    except messages.InvalidValue as exc:
        raise ConfigurationError(str(exc)) from None
    # engine::queue::enqueue is there for whoever provides queues (PROTOCOL 3.6).
    reserved = function_id.startswith(("engine::", "iii::")) and function_id != "engine::queue::enqueue"
    if reserved or function_id in _ENGINE_IDS or function_id.endswith("::on-config-change"):
        raise ConfigurationError(
            f"function id {function_id!r} is served by the engine itself and cannot be registered: it would be "
            "gone for everybody once this worker leaves; choose another id"
        )
    return function_id


class Function:
    """A handler under its id.

    Args:
        function_id: The id.
        handler: Called with the payload; with ``metadata=`` too if it has a parameter of that name.
        registration: The message that offers it to the engine.

    Raises:
        ConfigurationError: ``handler`` cannot be called, or is asynchronous.
    """

    def __init__(self, function_id: str, handler: Handler, registration: messages.Message) -> None:
        if not callable(handler):
            raise ConfigurationError(f"the handler of {function_id!r} is not callable: {handler!r}")
        call = getattr(handler, "__call__", None)  # noqa: B004 - an object whose __call__ is asynchronous
        if any(
            check(target)
            for check in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
            for target in (handler, call)
        ):
            raise ConfigurationError(
                f"the handler of {function_id!r} is an 'async def'; handlers run on threads: use a plain 'def'"
            )
        self.function_id = function_id
        self.handler = handler
        self.registration = registration
        self._wants_metadata = _has_metadata_parameter(handler)

    def run(self, data: Any, metadata: Any) -> Any:
        """Call the handler; returns and raises what it does."""
        if self._wants_metadata:
            return self.handler(data, metadata=metadata)
        return self.handler(data)


def _has_metadata_parameter(handler: Handler) -> bool:
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(handler).parameters
    except (TypeError, ValueError):
        return False
    parameter = parameters.get("metadata")
    if parameter is None or parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        return False
    return list(parameters).index("metadata") > 0 or parameter.kind is inspect.Parameter.KEYWORD_ONLY


class Functions:
    """The registered functions of one worker, and the calls of them that come in.

    Args:
        pool: The threads that handlers run on.
        ends: Makes the channel ends in payloads.
        tracer: Makes the spans of handlers.

    Attributes:
        closed: Whether calls are refused because the worker is shutting down.
    """

    def __init__(self, pool: HandlerPool, ends: Ends, tracer: Tracer) -> None:
        self._pool = pool
        self._ends = ends
        self._tracer = tracer
        self._lock = threading.Lock()  # guards changes of the table
        self._table: dict[str, Function] = {}
        self.closed = False

    def add(self, function: Function) -> None:
        """Take a function in.

        Raises:
            ConfigurationError: Its id is there already: the engine would silently replace it.
        """
        with self._lock:
            if function.function_id in self._table:
                raise ConfigurationError(
                    f"function id {function.function_id!r} is registered by this worker already; unregister it first"
                )
            self._table[function.function_id] = function

    def remove(self, function: Function) -> bool:
        """Take a function out; ``False`` when it is not there, or another one under its id."""
        with self._lock:
            if self._table.get(function.function_id) is not function:
                return False
            del self._table[function.function_id]
            return True

    def registrations(self) -> list[messages.Message]:
        """The messages that register everything. Any thread."""
        return [function.registration for function in list(self._table.values())]

    def invoked(
        self,
        message: messages.Message,
        answer: Callable[[messages.Message], None],
        answer_soon: Callable[[messages.Message], None],
    ) -> None:
        """Have a call carried out. On the reader thread.

        Args:
            message: The call.
            answer: Sends its result; may block, and raises ``PayloadTooLargeError``.
            answer_soon: Sends a refusal without blocking.
        """
        function_id = message["function_id"]
        function = self._table.get(function_id)
        if function is None:
            code, text = "function_not_found", f"Function {function_id} is not registered by this worker"
        elif self.closed:
            code, text = "SHUTDOWN", "the worker is shutting down"
        else:
            found = function
            if self._pool.try_run(lambda: self._handle(found, message, answer)):
                return
            code = "overloaded"
            text = f"the worker runs {self._pool.threads} handlers and takes no more now; try again later"
            _log.warning("%s refused: %s", function_id, text)
        error = {"code": code, "message": text}
        answer_soon(messages.invocation_result(message["invocation_id"], function_id, error=error))

    def _handle(
        self, function: Function, message: messages.Message, answer: Callable[[messages.Message], None]
    ) -> None:
        """Run a handler and answer. On a handler thread."""
        invocation_id, function_id = message["invocation_id"], function.function_id
        error: Optional[dict[str, str]] = None
        result: Any = None
        ends: dict[tuple[str, str], AnyEnd] = {}
        try:
            with self._tracer.handling(message) as span:
                # Popped: the ends must not live on in the message when the handler has let go of them.
                data = self._ends.live(message.pop("data", None), ends)
                result = span.result(self._ends.plain(function.run(data, message.get("metadata")), "result")[0])
        except BaseException as exc:
            # Our own errors are about calls and streams, and the other side knows them; others are the handler's.
            level = logging.DEBUG if isinstance(exc, IIISyncError) else logging.WARNING
            _log.log(level, "the handler of %s failed", function_id, exc_info=True)
            error = _error_body(exc)
        try:
            answer(messages.invocation_result(invocation_id, function_id, result=result, error=error))
        except PayloadTooLargeError as exc:
            answer(messages.invocation_result(invocation_id, function_id, error=_error_body(exc)))
        if error is not None:
            # As if each end had been in a with block. Unused ones may have gone to somebody else as well.
            for end in ends.values():
                if not end._is_idle():
                    end.abort()


def _error_body(exc: BaseException) -> dict[str, str]:
    """Return the ``error`` object that tells a caller of ``exc`` (PROTOCOL 3.5)."""
    trace = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    if isinstance(exc, InvocationError):
        code, text = exc.code, exc.message
    else:
        code, text = "invocation_failed", f"{type(exc).__name__}: {exc}"
    return {"code": _sendable(code), "message": _sendable(text), "stacktrace": _sendable(trace)}


def _sendable(text: Any) -> str:
    """Text as UTF-8 can carry it, and not without end: an error about data may quote the data."""
    return str(text)[:100_000].encode("utf-8", "backslashreplace").decode("utf-8")


class FunctionRef:
    """A registered function, as ``Worker.register_function`` returns it.

    Attributes:
        id: The function's id.
    """

    def __init__(self, function_id: str, unregister: Callable[[], None]) -> None:
        self.id = function_id
        self._unregister: Optional[Callable[[], None]] = unregister

    def unregister(self) -> None:
        """Take the function back; calls that are running go on. Does nothing the second time."""
        unregister, self._unregister = self._unregister, None
        if unregister is not None:
            unregister()

    def __repr__(self) -> str:
        return f"<iii_sync.FunctionRef {self.id}>"
