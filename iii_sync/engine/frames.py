"""Frames a worker sends, decoded into typed values. Pure.

A frame that does not decode raises :class:`ValueError`; the router drops it without an answer, as
the real engine does. Frames that need no action in this engine decode to :class:`Ignored`.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Optional, Union

from .jsontext import JSON, JsonObject, decode

DEFAULT_NAMESPACE = "default"

TELEMETRY_PREFIXES = (b"OTLP", b"MTRC", b"LOGS")

_UUID = re.compile(
    r"(?:urn:uuid:)?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32})",
    re.IGNORECASE | re.ASCII,
)


class Failure(NamedTuple):
    """The error of an invocation."""

    code: str
    message: str
    stacktrace: Optional[str] = None

    def to_json(self) -> JsonObject:
        """Return the wire form; an absent stack trace is left out."""
        body: JsonObject = {"code": self.code, "message": self.message}
        if self.stacktrace is not None:
            body["stacktrace"] = self.stacktrace
        return body


class Invoke(NamedTuple):
    """``invokefunction``: call a function; without ``invocation_id`` nobody waits for the result."""

    function_id: str
    data: JSON
    invocation_id: Optional[str] = None
    namespace: Optional[str] = None
    void: bool = False
    queue: Optional[str] = None
    metadata: JSON = None
    traceparent: Optional[str] = None
    baggage: Optional[str] = None


class Result(NamedTuple):
    """``invocationresult``: the answer of a callee. An error wins over a result."""

    invocation_id: str
    result: JSON = None
    error: Optional[Failure] = None


class RegisterFunction(NamedTuple):
    """``registerfunction``; with ``invocation`` the engine calls the function over HTTP."""

    id: str
    description: Optional[str] = None
    request_format: JSON = None
    response_format: JSON = None
    metadata: JSON = None
    invocation: Optional[JsonObject] = None


class UnregisterFunction(NamedTuple):
    """``unregisterfunction``."""

    id: str


class RegisterTriggerType(NamedTuple):
    """``registertriggertype``: the worker provides a trigger type."""

    id: str
    description: str
    trigger_request_format: JSON = None
    call_request_format: JSON = None
    namespace: Optional[str] = None


class UnregisterTriggerType(NamedTuple):
    """``unregistertriggertype``: the worker provides a trigger type no longer."""

    id: str
    namespace: Optional[str] = None


class RegisterTrigger(NamedTuple):
    """``registertrigger``: bind a function to a trigger type."""

    id: str
    trigger_type: str
    function_id: str
    config: JSON
    metadata: JSON = None
    namespace: Optional[str] = None
    trigger_namespace: Optional[str] = None


class UnregisterTrigger(NamedTuple):
    """``unregistertrigger``."""

    id: str


class TriggerResult(NamedTuple):
    """``triggerregistrationresult``: what a provider says to a trigger."""

    id: str
    error: Optional[Failure] = None


class Reattach(NamedTuple):
    """``reattach``: the connection replaces an earlier one."""

    previous_worker_id: str
    reattach_token: Optional[str]


class Ping(NamedTuple):
    """``ping``, the JSON one."""


class Ignored(NamedTuple):
    """A known frame that needs neither action nor answer here."""

    type: str


Registration = Union[
    RegisterFunction,
    UnregisterFunction,
    RegisterTriggerType,
    UnregisterTriggerType,
    RegisterTrigger,
    UnregisterTrigger,
]
"""Frames that depend on the namespace of their worker."""

Frame = Union[Invoke, Result, Registration, TriggerResult, Reattach, Ping, Ignored]

# Required string keys of the frames that cause nothing yet: a frame without them is malformed.
_IGNORED: dict[str, tuple[str, ...]] = {
    "pong": (),
    "workerregistered": (),
    "registrationrejected": (),
    "registerservice": ("id",),
}


def parse(message: Union[str, bytes]) -> Optional[Frame]:
    """Decode one message of the control socket.

    Args:
        message: Text, or a binary message, which is either telemetry or text in disguise.

    Returns:
        The frame, or ``None`` for what is silently ignored: telemetry and blank text.

    Raises:
        ValueError: The message is not a frame of the protocol.
    """
    if isinstance(message, bytes) and message.startswith(TELEMETRY_PREFIXES):
        return None
    if not message or message.isspace():
        return None
    frame = decode(message)
    if not isinstance(frame, dict):
        raise ValueError("not a JSON object")
    kind = _text(frame, "type")
    if kind == "invokefunction":
        return _invoke(frame)
    if kind == "invocationresult":
        _text(frame, "function_id")
        return Result(canonical_uuid(_text(frame, "invocation_id")), frame.get("result"), _failure(frame))
    if kind == "registerfunction":
        return _register_function(frame)
    if kind == "unregisterfunction":
        return UnregisterFunction(_text(frame, "id"))
    if kind == "registertrigger":
        return _register_trigger(frame)
    if kind == "unregistertrigger":
        return UnregisterTrigger(_text(frame, "id"))
    if kind == "registertriggertype":
        return _register_trigger_type(frame)
    if kind == "unregistertriggertype":
        return UnregisterTriggerType(_text(frame, "id"), _optional_text(frame, "namespace"))
    if kind == "triggerregistrationresult":
        _text(frame, "trigger_type")
        _text(frame, "function_id")
        return TriggerResult(_text(frame, "id"), _failure(frame))
    if kind == "reattach":
        return Reattach(_text(frame, "previous_worker_id"), _optional_text(frame, "reattach_token"))
    if kind == "ping":
        return Ping()
    if kind in _IGNORED:
        for key in _IGNORED[kind]:
            _text(frame, key)
        return Ignored(kind)
    raise ValueError(f"unknown type {kind[:80]!r}")


def canonical_uuid(text: str) -> str:
    """Return the lower-case hyphenated spelling of a UUID.

    Raises:
        ValueError: The text is not a UUID.
    """
    bare = text[1:-1] if text[:1] == "{" and text[-1:] == "}" else text
    match = _UUID.fullmatch(bare)
    if match is None:
        raise ValueError("not a UUID")
    digits = match.group(1).lower()
    if len(digits) == 36:
        return digits
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _invoke(frame: JsonObject) -> Invoke:
    invocation_id = _optional_text(frame, "invocation_id")
    void, queue = False, None
    action = frame.get("action")
    if action is not None:
        if not isinstance(action, dict):
            raise ValueError("`action` is not an object")
        kind = _text(action, "type")
        if kind == "void":
            void = True
        elif kind == "enqueue":
            queue = _text(action, "queue")
        else:
            raise ValueError("unknown action")
    return Invoke(
        _text(frame, "function_id"),
        _required(frame, "data"),
        None if invocation_id is None else canonical_uuid(invocation_id),
        _optional_text(frame, "namespace"),
        void,
        queue,
        frame.get("metadata"),
        _optional_text(frame, "traceparent"),
        _optional_text(frame, "baggage"),
    )


def _register_function(frame: JsonObject) -> RegisterFunction:
    invocation = frame.get("invocation")
    if invocation is not None and not isinstance(invocation, dict):
        raise ValueError("`invocation` is not an object")
    return RegisterFunction(
        _text(frame, "id"),
        _optional_text(frame, "description"),
        frame.get("request_format"),
        frame.get("response_format"),
        frame.get("metadata"),
        invocation,
    )


def _register_trigger_type(frame: JsonObject) -> RegisterTriggerType:
    return RegisterTriggerType(
        _text(frame, "id"),
        _text(frame, "description"),
        frame.get("trigger_request_format"),
        frame.get("call_request_format"),
        _optional_text(frame, "namespace"),
    )


def _register_trigger(frame: JsonObject) -> RegisterTrigger:
    return RegisterTrigger(
        _text(frame, "id"),
        _text(frame, "trigger_type"),
        _text(frame, "function_id"),
        _required(frame, "config"),
        frame.get("metadata"),
        _optional_text(frame, "namespace"),
        _optional_text(frame, "trigger_namespace"),
    )


def _failure(frame: JsonObject) -> Optional[Failure]:
    body = frame.get("error")
    if body is None:
        return None
    if not isinstance(body, dict):
        raise ValueError("`error` is not an object")
    return Failure(_text(body, "code"), _text(body, "message"), _optional_text(body, "stacktrace"))


def _required(frame: JsonObject, key: str) -> JSON:
    if key not in frame:
        raise ValueError(f"no `{key}`")
    return frame[key]


def _text(frame: JsonObject, key: str) -> str:
    value = _required(frame, key)
    if not isinstance(value, str):
        raise ValueError(f"`{key}` is not a string")
    return value


def _optional_text(frame: JsonObject, key: str) -> Optional[str]:
    value = frame.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"`{key}` is not a string")
    return value
