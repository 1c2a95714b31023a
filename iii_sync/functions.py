"""The functions this worker offers, and how a call of one of them is carried out."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from typing import Any, Callable, Optional

from .errors import ConfigurationError, InvocationError
from .wire import messages

__all__ = ["Function", "FunctionRef", "check_function_id", "error_body"]

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


def error_body(exc: BaseException) -> dict[str, str]:
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
