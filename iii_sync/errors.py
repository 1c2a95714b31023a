"""Every exception iii_sync raises.

::

    IIISyncError
    ├─ ConfigurationError (ValueError)          a bad URL or option, raised by the call that was given it
    ├─ InvalidPayloadError (ValueError)         a value the engine would drop or change; nothing was sent
    ├─ UsageError (RuntimeError)
    │  ├─ WorkerClosedError                     after shutdown()
    │  ├─ ForkedWorkerError                     the worker of a parent process
    │  └─ ConcurrencyError                      two threads in one reader
    ├─ EngineConnectionError (ConnectionError)
    │  ├─ ConnectFailedError                    no engine could be reached
    │  ├─ HandshakeRejectedError                something answered, but not with a WebSocket
    │  │  └─ AuthenticationError                the engine refused this worker
    │  ├─ ConnectionLostError                   the connection ended under a call
    │  └─ RemoteProtocolError                   the peer broke RFC 6455
    ├─ RegistrationRejectedError                the engine refused a name or a function id
    │  └─ TriggerRegistrationError              the provider of its type, or the engine, refused a trigger
    ├─ EngineTimeoutError (TimeoutError)
    │  ├─ ConnectTimeout · ReadTimeout · WriteTimeout · CloseTimeout
    │  └─ CallTimeout (also InvocationError)
    ├─ InvocationError                          a call that ended with an error
    │  ├─ FunctionNotFoundError · PermissionDeniedError · HandlerFailedError
    │  ├─ PayloadTooLargeError · OverloadedError
    │  └─ CallTimeout
    ├─ HttpError                                raised by an HTTP function: its response is this error
    └─ ChannelError (OSError)
       ├─ ChannelBrokenError (BrokenPipeError)  the other side is gone
       ├─ ChannelAbortedError                   abort() or shutdown() on this side
       ├─ ChannelTruncatedError                 the stream was cut
       ├─ ChannelNotFoundError                  the engine does not know this channel
       ├─ ChannelUsedError                      this end was connected before
       └─ ChannelNeverWrittenError              the stream ended before it had begun

All of them can be pickled. Closed files raise ``ValueError`` and unsupported file operations raise
:class:`io.UnsupportedOperation`, as they do throughout :mod:`io`.
"""

from __future__ import annotations

import copy
import reprlib
from typing import Any, Optional, TypeVar

__all__ = [
    "AuthenticationError",
    "CallTimeout",
    "ChannelAbortedError",
    "ChannelBrokenError",
    "ChannelError",
    "ChannelNeverWrittenError",
    "ChannelNotFoundError",
    "ChannelTruncatedError",
    "ChannelUsedError",
    "CloseTimeout",
    "ConcurrencyError",
    "ConfigurationError",
    "ConnectFailedError",
    "ConnectTimeout",
    "ConnectionLostError",
    "EngineConnectionError",
    "EngineTimeoutError",
    "ForkedWorkerError",
    "FunctionNotFoundError",
    "HandlerFailedError",
    "HandshakeRejectedError",
    "HttpError",
    "IIISyncError",
    "InvalidPayloadError",
    "InvocationError",
    "OverloadedError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "ReadTimeout",
    "RegistrationRejectedError",
    "RemoteProtocolError",
    "TriggerRegistrationError",
    "UsageError",
    "WorkerClosedError",
    "WriteTimeout",
]


class IIISyncError(Exception):
    """The root: ``except IIISyncError`` catches whatever this package raises by itself."""


class ConfigurationError(IIISyncError, ValueError):
    """An address or option that cannot work."""


class InvalidPayloadError(IIISyncError, ValueError):
    """A value that the engine would drop or change (PROTOCOL 1.5); the message names its place and the cure."""


class UsageError(IIISyncError, RuntimeError):
    """The call does not fit the state of the object."""


class WorkerClosedError(UsageError):
    """The worker was shut down."""


class ForkedWorkerError(UsageError):
    """The worker belongs to the parent process; ``register_worker`` in the child makes one that works."""


class ConcurrencyError(UsageError):
    """A reader is used by two threads at once, or a connection by a signal handler amid its use by its own thread."""


class EngineConnectionError(IIISyncError, ConnectionError):
    """The connection to the engine could not be made or did not last."""


class ConnectFailedError(EngineConnectionError):
    """Nothing answered at the address."""


class HandshakeRejectedError(EngineConnectionError):
    """Something answered, but refused the WebSocket.

    Attributes:
        status: The HTTP status, or ``None`` when the answer was not HTTP at all.
    """

    def __init__(self, message: str, status: Optional[int] = None) -> None:
        super().__init__(message)
        self.status = status


class AuthenticationError(HandshakeRejectedError):
    """The engine, or what stands before it, refused this worker's credentials (PROTOCOL 8.2).

    Attributes:
        status: 401 or 403 when the answer to the handshake said so, ``None`` when the engine did behind it.
    """


class ConnectionLostError(EngineConnectionError):
    """The control connection was not there, or ended, before the answer of a call arrived.

    Attributes:
        may_have_run: ``False`` when the request certainly never left; then it is safe to repeat it.
    """

    def __init__(self, message: str, may_have_run: bool = True) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class RemoteProtocolError(EngineConnectionError):
    """The peer sent bytes that RFC 6455 does not allow.

    Attributes:
        close_code: The close code that was sent back.
    """

    def __init__(self, message: str, close_code: int = 1002) -> None:
        super().__init__(message)
        self.close_code = close_code


class RegistrationRejectedError(IIISyncError):
    """The engine refused a worker name or a function id (PROTOCOL 2.5).

    Attributes:
        code: ``WORKER_NAMESPACE_CONFLICT``, ``FUNCTION_NAMESPACE_CONFLICT``, or another code of the engine.
        namespace: The namespace in which the name is taken.
        owner_worker_id: The worker that holds it; empty when the engine itself does.
    """

    def __init__(
        self,
        message: str,
        code: str = "",
        namespace: Optional[str] = None,
        owner_worker_id: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.namespace = namespace
        self.owner_worker_id = owner_worker_id


class TriggerRegistrationError(RegistrationRejectedError):
    """The provider of its type, or the engine, refused a trigger (PROTOCOL 4.2).

    Attributes:
        code: ``trigger_registration_failed``, ``FORBIDDEN``, ``INVALID_NAMESPACE``, or the provider's own.
        trigger_id: The trigger.
        trigger_type: Its type.
        function_id: The function it was to call.
    """

    def __init__(
        self, message: str, code: str = "", trigger_id: str = "", trigger_type: str = "", function_id: str = ""
    ) -> None:
        super().__init__(message, code)
        self.trigger_id = trigger_id
        self.trigger_type = trigger_type
        self.function_id = function_id


class EngineTimeoutError(IIISyncError, TimeoutError):
    """A deadline passed."""


class ConnectTimeout(EngineTimeoutError):
    """No connection, or no hello on it, within ``connect_timeout``."""


class ReadTimeout(EngineTimeoutError):
    """Nothing arrived for ``timeout`` seconds; the next read continues at the same byte."""


class WriteTimeout(EngineTimeoutError):
    """Nothing could be sent for ``timeout`` seconds.

    When part of the data had left, the stream is broken and further writes raise; else nothing was sent.
    """


class CloseTimeout(EngineTimeoutError):
    """The engine did not confirm the end of a stream in time; the rest of the data may still arrive."""


class InvocationError(IIISyncError):
    """A call ended with an error.

    Attributes:
        code: The error code (PROTOCOL 3.8), for instance ``invocation_failed``.
        message: What the other side said.
        function_id: The function that was called.
        invocation_id: The id of the call, when it had one.
        stacktrace: The traceback of the remote handler; never part of ``str()``.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        function_id: Optional[str] = None,
        invocation_id: Optional[str] = None,
        stacktrace: Optional[str] = None,
    ) -> None:
        # One positional argument goes up: a class that is also an OSError would read two as errno and text.
        super().__init__(message)
        self.code = code
        self.message = message
        self.function_id = function_id
        self.invocation_id = invocation_id
        self.stacktrace = stacktrace

    def __str__(self) -> str:
        where = f"{self.function_id}: " if self.function_id else ""
        return f"{where}{self.message} [{self.code}]"

    def __reduce__(self) -> Any:
        fields = (self.code, self.message, self.function_id, self.invocation_id, self.stacktrace)
        return (type(self), fields, self.__dict__)


class FunctionNotFoundError(InvocationError):
    """No worker has registered this function (``function_not_found``)."""


class PermissionDeniedError(InvocationError):
    """This worker may not call the function, or not register what it wanted to (``FORBIDDEN``)."""


class HandlerFailedError(InvocationError):
    """The function's handler raised (``invocation_failed``)."""


class PayloadTooLargeError(InvocationError):
    """A message above ``max_payload`` (``payload_too_large``): send such data through a channel."""


class OverloadedError(InvocationError):
    """The worker runs as many handlers as it may (``overloaded``); the function did not run."""


class CallTimeout(EngineTimeoutError, InvocationError):
    """A call was not answered in time (``TIMEOUT``); the function may still be running."""

    def __init__(
        self,
        code: str = "TIMEOUT",
        message: str = "",
        function_id: Optional[str] = None,
        invocation_id: Optional[str] = None,
        stacktrace: Optional[str] = None,
    ) -> None:
        InvocationError.__init__(self, code, message, function_id, invocation_id, stacktrace)

    def __str__(self) -> str:
        return InvocationError.__str__(self)


class HttpError(IIISyncError):
    """Raise it in an HTTP function to answer with an error: ``HttpError(404, "no such file")``.

    The response is ``{"error": {"code": …, "message": …}}``, as the engine's own are. Once a response has begun it
    can only be cut.

    Args:
        status: From 400 to 599.
        message: For the client.
        code: For programs; default: the status in words, such as ``NOT_FOUND``.
        headers: Added to the response, for instance ``{"retry-after": "5"}``.

    Raises:
        ValueError: A status that is no error, or a header that cannot be sent.
    """

    def __init__(
        self, status: int, message: str = "", code: Optional[str] = None, headers: Optional[dict[str, str]] = None
    ) -> None:
        if not isinstance(status, int) or isinstance(status, bool) or not 400 <= status <= 599:
            raise ValueError(f"status {status!r} must be an integer from 400 to 599")
        from .fields import checked_headers  # for errors only

        message = str(message)  # of another exception, often
        super().__init__(message)
        self.status: int = int(status)
        self.message: str = message
        self.code: str = code if code is not None else _status_name(self.status)
        self.headers: dict[str, str] = dict(checked_headers(headers or {}))

    def __str__(self) -> str:
        return f"{self.status} {self.message or self.code}"

    def __reduce__(self) -> Any:
        return (type(self), (self.status, self.message, self.code, self.headers), self.__dict__)


def _status_name(status: int) -> str:
    import http  # for errors only

    try:
        return http.HTTPStatus(status).name
    except ValueError:
        return f"HTTP_{status}"


class ChannelError(IIISyncError, OSError):
    """A channel end cannot go on."""


class ChannelBrokenError(ChannelError, BrokenPipeError):
    """The other side of the channel, or the engine, is gone; what was written may not have arrived."""


class ChannelAbortedError(ChannelError):
    """This end was dropped by ``abort()``, by ``close()`` during a write, or by ``shutdown()``."""


class ChannelTruncatedError(ChannelError):
    """The stream was cut: every byte before this error is good, but more were meant to follow."""


class ChannelNotFoundError(ChannelError):
    """The engine does not know the channel: a wrong reference, or it expired (PROTOCOL 5.7)."""


class ChannelUsedError(ChannelError):
    """An end can be connected once in its life (PROTOCOL 5.4), and this one was."""


class ChannelNeverWrittenError(ChannelError):
    """The stream ended before any message, or within its opening mark: as it does when its writer never came far."""


def brief(value: Any, limit: int = 200) -> str:
    """Return what the other side sent as an error message can show it: on one line, and not without end.

    Args:
        value: Text, or anything that came as JSON, however deep or large.
        limit: Characters of text that are shown.
    """
    if isinstance(value, str):
        text = value
    else:
        try:
            text = reprlib.repr(value)
        except Exception:
            text = f"a {type(value).__name__}"
    if len(text) > limit:
        text = text[:limit] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def described(error: BaseException) -> str:
    """Return an exception as the last line of its traceback has it; its type alone if its ``__str__`` fails."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:
        return type(error).__name__


ErrorT = TypeVar("ErrorT", bound=BaseException)


def fresh(error: ErrorT) -> ErrorT:
    """Return a new exception like ``error``, caused by it.

    One exception object raised in several threads would collect the tracebacks of all of them.
    """
    try:
        again = copy.copy(error)
    except Exception:
        return error
    again.__cause__ = error
    return again


_BY_CODE = {
    "function_not_found": FunctionNotFoundError,
    "FORBIDDEN": PermissionDeniedError,
    "invocation_failed": HandlerFailedError,
    "payload_too_large": PayloadTooLargeError,
    "overloaded": OverloadedError,
}


def invocation_error(error: Any, function_id: str, invocation_id: Optional[str]) -> InvocationError:
    """Turn the ``error`` object of an ``invocationresult`` into the exception it stands for.

    Args:
        error: What the frame held; anything but an object with text in ``code`` and ``message`` is kept as
            an :class:`InvocationError` with the code ``UNKNOWN``.
        function_id: The function that was called.
        invocation_id: The call's id.
    """
    if not isinstance(error, dict):
        return InvocationError("UNKNOWN", brief(error, 500), function_id, invocation_id)
    code, message, trace = error.get("code"), error.get("message"), error.get("stacktrace")
    if not isinstance(code, str):
        code = "UNKNOWN"
    return _BY_CODE.get(code, InvocationError)(
        code,
        message if isinstance(message, str) else "",
        function_id,
        invocation_id,
        trace if isinstance(trace, str) else None,
    )
