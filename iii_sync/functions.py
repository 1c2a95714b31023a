"""The functions this worker offers, and how a call of one of them is carried out."""

from __future__ import annotations

import functools
import logging
import threading
import traceback
from typing import TYPE_CHECKING, Any, Callable, Optional

from .channels.ends import AnyEnd, Ends
from .errors import (
    ConfigurationError,
    IIISyncError,
    InvalidPayloadError,
    InvocationError,
    PayloadTooLargeError,
    described,
)
from .pool import HandlerPool
from .tracing import Tracer
from .wire import messages

if TYPE_CHECKING:
    from .context import Invocation
    from .handlers import Handler

__all__ = ["Function", "FunctionRef", "Functions", "check_function_id", "error_body"]

_log = logging.getLogger("iii_sync.worker")

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
    except InvalidPayloadError as exc:
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
    """A registered function.

    Args:
        function_id: The id.
        handler: What carries it out; ``None`` when the engine calls it elsewhere.
        registration: The message that offers it to the engine.

    Attributes:
        error: Why the engine does not have it, if it refused it after a reconnect.
    """

    def __init__(self, function_id: str, handler: Optional[Handler], registration: messages.Message) -> None:
        self.function_id = function_id
        self.handler = handler
        self.registration = registration
        self.error: Optional[IIISyncError] = None


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
        self._lock = threading.RLock()  # guards changes of the table
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

    def find(self, named: Any) -> Function:
        """Return the function with an id, or with a handler.

        Raises:
            ConfigurationError: There is none, or the handler has several.
        """
        with self._lock:
            table = dict(self._table)
        if isinstance(named, str):
            found = [table[named]] if named in table else []
        else:
            found = [f for f in table.values() if f.handler is not None and f.handler.target == named]
        if not found:
            raise ConfigurationError(f"{named!r} is not registered by this worker")
        if len(found) > 1:
            ids = ", ".join(repr(function.function_id) for function in found)
            raise ConfigurationError(f"{named!r} is the handler of {ids}; give the id")
        return found[0]

    def registrations(self) -> list[messages.Message]:
        """The messages that register everything. Any thread."""
        return [function.registration for function in list(self._table.values())]

    def told(self, registration: messages.Message, error: Optional[IIISyncError]) -> bool:
        """Note why the engine does not have a function, or that it has; returns whether that is news."""
        with self._lock:
            function = self._table.get(registration["id"])
            if function is None or function.registration is not registration:
                return False
            before, function.error = function.error, error
        return type(before) is not type(error)

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
        elif function.handler is None:
            code, text = "function_not_invokable", f"Function {function_id} is called over HTTP, not by this worker"
        else:
            handler = function.handler
            if self._pool.try_run(lambda: self._handle(handler, message, answer)):
                return
            code = "overloaded"
            text = f"the worker runs {self._pool.threads} handlers and takes no more now; try again later"
            _log.warning("%s refused: %s", function_id, text)
        error = {"code": code, "message": text}
        answer_soon(messages.invocation_result(message["invocation_id"], function_id, error=error))

    def _handle(self, handler: Handler, message: messages.Message, answer: Callable[[messages.Message], None]) -> None:
        """Run a handler and answer. On a handler thread."""
        from .context import run_as

        invocation_id, function_id = message["invocation_id"], message["function_id"]
        error: Optional[messages.Message] = None
        result: Any = None
        ends: dict[tuple[str, str], AnyEnd] = {}
        try:
            invocation = _invocation(message)
            result = run_as(invocation, functools.partial(self._carry_out, handler, message, ends))
        except BaseException as exc:
            # Our own errors are about calls and streams, and the other side knows them; others are the handler's.
            level = logging.DEBUG if isinstance(exc, IIISyncError) else logging.WARNING
            _log.log(level, "the handler of %s failed", function_id, exc_info=True)
            error = _failure(exc, invocation_id)
        try:
            answer(messages.invocation_result(invocation_id, function_id, result=result, error=error))
        except PayloadTooLargeError as exc:
            answer(messages.invocation_result(invocation_id, function_id, error=_failure(exc, invocation_id)))
        if error is not None:
            # As if each end had been in a with block. Unused ones may have gone to somebody else as well.
            for end in ends.values():
                if not end._is_idle():
                    end.abort()

    def _carry_out(self, handler: Handler, message: messages.Message, ends: dict[tuple[str, str], AnyEnd]) -> Any:
        with self._tracer.handling(message) as span:
            # Popped: the ends must not live on in the message when the handler has let go of them.
            data = self._ends.live(message.pop("data", None), ends)
            returned = handler.run(data, message.get("metadata"))
            del data
            return span.result(self._ends.plain(returned, "result")[0])


def _invocation(message: messages.Message) -> Invocation:
    """Return what a message asks for, and take the engine's own key out of the payload (PROTOCOL 3.4)."""
    from .context import Invocation

    data, caller = message.get("data"), None
    if isinstance(data, dict):
        caller = data.pop("_caller_worker_id", None)
    return Invocation(
        message["function_id"],
        message["invocation_id"],
        _text(caller),
        message.get("metadata"),
        _text(message.get("traceparent")),
        _text(message.get("baggage")),
    )


def _text(value: Any) -> Optional[str]:
    return value if isinstance(value, str) else None


#: Codes that say what became of a call itself. Of a call that a handler made they would say it to the wrong one.
_ABOUT_THE_CALL = frozenset(
    {"FORBIDDEN", "SHUTDOWN", "TIMEOUT", "function_not_found", "invocation_stopped", "overloaded", "payload_too_large"}
)


def error_body(exc: BaseException, code: str, invocation_id: Optional[str] = None) -> messages.Message:
    """Return the ``error`` object that tells another worker of ``exc``.

    Args:
        exc: What was raised. The code and message of an ``InvocationError`` are told as they are, unless they are
            about a call that was made meanwhile.
        code: The code of any other.
        invocation_id: The call that is answered, if it is one.
    """
    nested = isinstance(exc, InvocationError) and exc.invocation_id not in (None, invocation_id)
    text: Any
    if isinstance(exc, InvocationError) and not (nested and exc.code in _ABOUT_THE_CALL):
        code, text = exc.code, exc.message
    else:
        text = described(exc)
    return {"code": _told(code), "message": _told(text)}


def _told(text: Any) -> str:
    # Not without end: an error about data may quote the data.
    return messages.sendable(text, 100_000)


def _failure(exc: BaseException, invocation_id: str) -> messages.Message:
    """Return what the caller is told of a handler's exception (PROTOCOL 3.5)."""
    trace = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    return {**error_body(exc, "invocation_failed", invocation_id), "stacktrace": _told(trace)}


class FunctionRef:
    """A registered function, as ``Worker.register_function`` returns it.

    Attributes:
        id: The function's id.
    """

    def __init__(self, function: Function, unregister: Callable[[], None]) -> None:
        self.id: str = function.function_id
        self._function = function
        self._unregister: Optional[Callable[[], None]] = unregister

    @property
    def error(self) -> Optional[IIISyncError]:
        """Why the engine refused the function when it was registered again after a reconnect; ``None`` if it did not.

        A ``RegistrationRejectedError``: another worker has taken the id meanwhile. It is asked for about every second,
        for 30 seconds after the reconnect, and this is ``None`` again once it is free. A ``PermissionDeniedError``:
        this worker may not register the function any more. Either is tried again after the next reconnect.
        """
        return self._function.error

    def unregister(self) -> None:
        """Take the function back; calls that are running go on. Does nothing the second time.

        Blocks: Until the engine has been told, at most ``connect_timeout``, and as long for each trigger it was
            registered with.
        Threads: Any.
        """
        unregister, self._unregister = self._unregister, None
        if unregister is not None:
            unregister()

    def __repr__(self) -> str:
        return f"<iii_sync.FunctionRef {self.id}>"
