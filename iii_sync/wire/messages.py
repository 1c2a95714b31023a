"""The JSON messages of the control socket (PROTOCOL 1.5, 1.7), and what may travel in them.

The engine answers nothing at all to a frame it cannot decode and silently changes some values (E-17), so
:func:`check` refuses here what would be dropped or changed there.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Callable, Optional

from ..errors import InvalidPayloadError
from .entropy import Pieces
from .objects import unfolded

__all__ = [
    "check",
    "decode",
    "encode",
    "invocation_result",
    "invoke_function",
    "mentioned_invocation",
    "new_id",
    "reattach",
    "register_function",
    "register_trigger",
    "register_trigger_type",
    "sendable",
    "trigger_result",
    "undo",
    "unregister_function",
    "unregister_trigger",
    "unregister_trigger_type",
]

Message = dict[str, Any]

#: Levels of arrays and objects a value may have. The engine gives up somewhat beyond 120 (PROTOCOL 13).
MAX_DEPTH = 120
_INT_RANGE = (-(2**63), 2**64 - 1)

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))


_random = Pieces(16).next


def new_id() -> str:
    """Return a new id for a call: a random UUID in the spelling of the engine (PROTOCOL 1.5)."""
    # By hand: the module uuid takes longer to import than a whole room of ours.
    number = int.from_bytes(_random(), "big") & ~(0xF << 76 | 0x3 << 62) | (4 << 76 | 2 << 62)
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def check(value: Any, what: str, convert: Optional[Callable[[Any], Any]] = None) -> Any:
    """Return ``value`` as plain JSON values, or say what in it cannot travel.

    Args:
        value: Any value. Lists and objects are copied only where something in them has to change. Dataclasses,
            pydantic models and enumerations become what they are in JSON.
        what: How to call the whole value in an error: ``payload``, ``result``, ``metadata`` …
        convert: Called with each value of a foreign type; returns what to send in its place, or
            ``NotImplemented``.

    Raises:
        InvalidPayloadError: NaN, an infinity, an integer beyond 64 bits, a lone surrogate, a key that is not a
            string, nesting beyond 120 levels, or a type that JSON does not have.
    """
    kind = type(value)
    if kind is str:
        if not value.isascii():
            _check_text(value, what)
        return value
    if value is None or kind is bool:
        return value
    if kind is int:
        return _check_int(value, what)
    if kind is float:
        return _check_float(value, what)
    return _Walk(what, convert).plain(value, 1)


def _check_text(value: str, where: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise InvalidPayloadError(
            f"{where}: lone surrogate {value[exc.start]!r} at character {exc.start}, which UTF-8 cannot carry; "
            "decode with errors='replace', or send the bytes through a channel"
        ) from None


def _check_int(value: int, where: str) -> int:
    if not _INT_RANGE[0] <= value <= _INT_RANGE[1]:
        shown = str(value) if value.bit_length() < 200 else f"an integer of {value.bit_length()} bits"
        raise InvalidPayloadError(f"{where}: {shown} is beyond 64 bits, the engine would round it; send it as a string")
    return value


def _check_float(value: float, where: str) -> float:
    if not math.isfinite(value):
        raise InvalidPayloadError(
            f"{where}: {value!r} is not JSON and the engine would drop the message; send None or a string"
        )
    return value


class _Walk:
    """One walk through one value; keeps the path for the error message."""

    def __init__(self, what: str, convert: Optional[Callable[[Any], Any]]) -> None:
        self.what = what
        self.convert = convert
        self.path: list[str] = []

    def where(self) -> str:
        return self.what + "".join(self.path)

    def plain(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            if not value.isascii():
                _check_text(value, self.where())
            return value
        if isinstance(value, int):
            return _check_int(value, self.where())
        if isinstance(value, float):
            return _check_float(value, self.where())
        if isinstance(value, dict):
            return self.plain_dict(value, depth)
        if isinstance(value, (list, tuple)):
            return self.plain_list(value, depth)
        if self.convert is not None:
            replaced = self.convert(value)
            if replaced is not NotImplemented:
                return replaced
        try:
            replaced = unfolded(value)
        except ValueError as exc:
            raise InvalidPayloadError(
                f"{self.where()}: {_type_name(value)} could not be made into JSON: {exc}"
            ) from None
        if replaced is not NotImplemented:
            return self.plain(replaced, depth)
        raise InvalidPayloadError(f"{self.where()}: {_type_name(value)} is not JSON ({_shown(value)}); {_cure(value)}")

    def deeper(self, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise InvalidPayloadError(
                f"{self.what}: nested deeper than {MAX_DEPTH} levels, or contains itself; "
                "flatten it, or send it through a channel"
            )
        return depth + 1

    def plain_dict(self, value: dict[Any, Any], depth: int) -> Any:
        below = self.deeper(depth)
        changed: Optional[dict[str, Any]] = None
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidPayloadError(f"{self.where()}: the key {_shown(key)} is not a string; use str(key)")
            if not key.isascii():
                _check_text(key, f"{self.where()}: the key {key!r}")
            kind = type(item)
            if (kind is str and item.isascii()) or item is None or kind is bool:
                continue
            self.path.append(f".{key}" if key.isidentifier() else f"[{key!r}]")
            new = self.plain(item, below)
            self.path.pop()
            if new is not item:
                if changed is None:
                    changed = dict(value)
                changed[key] = new
        return value if changed is None else changed

    def plain_list(self, value: Any, depth: int) -> Any:
        below = self.deeper(depth)
        changed: Optional[list[Any]] = None
        for index, item in enumerate(value):
            kind = type(item)
            if (kind is str and item.isascii()) or item is None or kind is bool:
                continue
            self.path.append(f"[{index}]")
            new = self.plain(item, below)
            self.path.pop()
            if new is not item:
                if changed is None:
                    changed = list(value)
                changed[index] = new
        return value if changed is None else changed


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        return "whose repr() fails"
    return text if len(text) <= 80 else text[:77] + "..."


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _cure(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "send bytes through a channel, or as base64 text"
    if isinstance(value, (set, frozenset)):
        return "use sorted(...) or list(...)"
    for method in ("isoformat", "tolist"):  # dates, numpy and pandas
        if callable(getattr(value, method, None)):
            return f"use its {method}()"
    if hasattr(value, "reader_ref") and hasattr(value, "writer_ref"):
        return "pass one end of the channel: its reader_ref or its writer_ref"
    return "convert it to dict, list, str, int, float, bool or None first"


def encode(message: Message) -> bytes:
    """Return the message as UTF-8 JSON. Every value in it must have gone through :func:`check`."""
    return _encoder.encode(message).encode("utf-8")


def sendable(text: Any, limit: int) -> str:
    """Return text as UTF-8 can carry it, lone surrogates spelled out, and not more than ``limit`` characters of it."""
    return str(text)[:limit].encode("utf-8", "backslashreplace").decode("utf-8")


_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def decode(text: str) -> Optional[Message]:
    """Return the message, or ``None`` for anything that is not an object with a ``type``: to be ignored.

    So is one with a lone surrogate, which only an escape can bring: whatever sends it on would fail.
    """
    try:
        message = json.loads(text)
        if "\\u" in text and _ESCAPED_SURROGATE.search(text):
            json.dumps(message, ensure_ascii=False, check_circular=False).encode("utf-8")
    except (ValueError, RecursionError):
        return None
    if isinstance(message, dict) and isinstance(message.get("type"), str):
        return message
    return None


_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_MENTIONED = re.compile(
    r'"type"\s*:\s*"(?P<type>invokefunction|invocationresult)"|"invocation_id"\s*:\s*"(?P<id>' + _UUID + r')"'
    r'|"function_id"\s*:\s*"(?P<function>[^"\\]{1,500})"'
)


def mentioned_invocation(start: str) -> Optional[tuple[str, str, str]]:
    """Find type, invocation id and function id in the first bytes of a message too large to keep."""
    found: dict[str, str] = {}
    for match in _MENTIONED.finditer(start):
        for name, value in match.groupdict().items():
            if value is not None:
                found.setdefault(name, value)
    if "type" in found and "id" in found:
        return found["type"], found["id"], found.get("function", "")
    return None


def invoke_function(
    function_id: str,
    data: Any,
    *,
    invocation_id: Optional[str],
    namespace: Optional[str] = None,
    action: Optional[Message] = None,
    metadata: Any = None,
) -> Message:
    """A call. ``data`` is always present: the engine drops the frame without it (PROTOCOL 3.3)."""
    message: Message = {"type": "invokefunction", "function_id": function_id, "data": data}
    if invocation_id is not None:
        message["invocation_id"] = invocation_id
    if namespace is not None:
        message["namespace"] = namespace
    if action is not None:
        message["action"] = action
    if metadata is not None:
        message["metadata"] = metadata
    return message


def invocation_result(
    invocation_id: str, function_id: str, *, result: Any = None, error: Optional[Message] = None
) -> Message:
    """The answer to a call; ``error`` has ``code`` and ``message`` and wins over ``result`` (PROTOCOL 3.5)."""
    message: Message = {
        "type": "invocationresult",
        "invocation_id": invocation_id,
        "function_id": function_id,
    }
    if error is not None:
        message["error"] = error
    else:
        message["result"] = result
    return message


def register_function(
    function_id: str,
    *,
    description: Optional[str] = None,
    metadata: Any = None,
    request_format: Any = None,
    response_format: Any = None,
    invocation: Optional[Message] = None,
) -> Message:
    """Offers a function under ``function_id`` (PROTOCOL 3.1); with ``invocation`` one that is called over HTTP."""
    message: Message = {"type": "registerfunction", "id": function_id}
    optional = {
        "description": description,
        "metadata": metadata,
        "request_format": request_format,
        "response_format": response_format,
        "invocation": invocation,
    }
    message.update({key: value for key, value in optional.items() if value is not None})
    return message


def unregister_function(function_id: str) -> Message:
    """Takes a function back."""
    return {"type": "unregisterfunction", "id": function_id}


def register_trigger(
    trigger_id: str,
    trigger_type: str,
    function_id: str,
    config: Any,
    *,
    metadata: Any = None,
    namespace: Optional[str] = None,
    trigger_namespace: Optional[str] = None,
) -> Message:
    """Binds a function to a trigger type. ``config`` is always present, as ``data`` is (PROTOCOL 4.2)."""
    message: Message = {
        "type": "registertrigger",
        "id": trigger_id,
        "trigger_type": trigger_type,
        "function_id": function_id,
        "config": config,
    }
    optional = {"metadata": metadata, "namespace": namespace, "trigger_namespace": trigger_namespace}
    message.update({key: value for key, value in optional.items() if value is not None})
    return message


def unregister_trigger(trigger_id: str, trigger_type: str) -> Message:
    """Takes a trigger back, parked or not."""
    return {"type": "unregistertrigger", "id": trigger_id, "trigger_type": trigger_type}


def register_trigger_type(
    type_id: str,
    description: str,
    *,
    trigger_request_format: Any = None,
    call_request_format: Any = None,
    namespace: Optional[str] = None,
) -> Message:
    """Offers a trigger type (PROTOCOL 4.1)."""
    message: Message = {"type": "registertriggertype", "id": type_id, "description": description}
    optional = {
        "trigger_request_format": trigger_request_format,
        "call_request_format": call_request_format,
        "namespace": namespace,
    }
    message.update({key: value for key, value in optional.items() if value is not None})
    return message


def unregister_trigger_type(type_id: str, namespace: Optional[str] = None) -> Message:
    """Takes a trigger type back; engines before 0.25 ignore it."""
    message: Message = {"type": "unregistertriggertype", "id": type_id}
    if namespace is not None:
        message["namespace"] = namespace
    return message


def trigger_result(trigger: Message, error: Optional[Message] = None) -> Message:
    """What a provider says to a trigger that was forwarded to it (PROTOCOL 4.3)."""
    message: Message = {key: trigger[key] for key in ("id", "trigger_type", "function_id")}
    message["type"] = "triggerregistrationresult"
    if error is not None:
        message["error"] = error
    return message


def undo(registration: Message) -> Message:
    """Return the message that takes a registration back."""
    if registration["type"] == "registertrigger":
        return unregister_trigger(registration["id"], registration["trigger_type"])
    if registration["type"] == "registertriggertype":
        return unregister_trigger_type(registration["id"], registration.get("namespace"))
    return unregister_function(registration["id"])


def reattach(previous_worker_id: str, token: Optional[str]) -> Message:
    """The first frame of a reconnect: ends the connection that this one replaces (PROTOCOL 2.6)."""
    message: Message = {"type": "reattach", "previous_worker_id": previous_worker_id}
    if token is not None:
        message["reattach_token"] = token
    return message
