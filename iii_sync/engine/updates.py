"""Updates of one stored value: a list of small operations, each of which may fail alone. Pure."""

from __future__ import annotations

import copy
from typing import NamedTuple, Optional, Union

from .jsontext import JSON, JsonObject
from .records import BuiltinError

_MAX_DEPTH = 32
_MAX_SEGMENT = 256
_MAX_VALUE_DEPTH = 16
_MAX_VALUE_KEYS = 1024
# Names that mean something to JavaScript readers of the value.
_POLLUTING = frozenset({"__proto__", "constructor", "prototype"})
_PATHS = frozenset({"merge", "append"})
_KINDS = ("set", "merge", "increment", "decrement", "append", "remove")


class _Op(NamedTuple):
    kind: str
    path: list[str]
    value: JSON
    by: int

    @property
    def shown(self) -> str:
        return ".".join(self.path) or "root"


class _OpError(Exception):
    """One operation cannot be applied."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Missing:
    """Stands for a value that is not stored."""


def update(function_id: str, old: Union[JSON, Missing], ops: JSON) -> tuple[JSON, list[JSON]]:
    """Apply operations to a copy of a value.

    Returns:
        The new value, and what failed.

    Raises:
        BuiltinError: The operations are not what they must be; none is applied.
    """
    if not isinstance(ops, list):
        raise _malformed(function_id, "`ops`: expected a list")
    parsed = [_parse(function_id, op) for op in ops]
    holder: JsonObject = {} if isinstance(old, Missing) else {"": copy.deepcopy(old)}
    errors: list[JSON] = []
    for index, op in enumerate(parsed):
        try:
            _check(op)
            _apply(holder, op)
        except _OpError as error:
            errors.append({"op_index": index, "code": error.code, "message": str(error)})
    return holder.get("", {}), errors


def _malformed(function_id: str, reason: str) -> BuiltinError:
    return BuiltinError("deserialization_error", f"Failed to deserialize input for {function_id}: {reason}")


def _parse(function_id: str, op: JSON) -> _Op:
    if not isinstance(op, dict):
        raise _malformed(function_id, "an operation is not an object")
    kind = op.get("type")
    if kind not in _KINDS or not isinstance(kind, str):
        raise _malformed(function_id, f"unknown variant `{kind}`, expected one of {', '.join(_KINDS)}")
    path = op.get("path", "" if kind in _PATHS else None)
    if path is None and kind in _PATHS:
        path = ""
    if isinstance(path, str):
        segments = [path] if path else []
    elif isinstance(path, list) and kind in _PATHS and all(isinstance(segment, str) for segment in path):
        segments = [segment for segment in path if isinstance(segment, str)]
    else:
        raise _malformed(function_id, f"`path` of `{kind}`: expected a string")
    if kind in ("set", "merge", "append") and "value" not in op:
        raise _malformed(function_id, "missing field `value`")
    by = op.get("by")
    if kind not in ("increment", "decrement"):
        by = 0
    elif not isinstance(by, int) or isinstance(by, bool):
        raise _malformed(function_id, f"`by` of `{kind}`: expected an integer")
    return _Op(kind, segments, op.get("value"), -by if kind == "decrement" else by)


def _check(op: _Op) -> None:
    if len(op.path) > _MAX_DEPTH:
        raise _OpError(f"{op.kind}.path.too_deep", f"Path depth {len(op.path)} exceeds maximum of {_MAX_DEPTH}")
    for segment in op.path:
        size = len(segment.encode("utf-8", "replace"))
        if not segment:
            raise _OpError(f"{op.kind}.path.empty_segment", "Path contains an empty segment")
        if size > _MAX_SEGMENT:
            message = f"Path segment of {size} bytes exceeds maximum of {_MAX_SEGMENT}"
            raise _OpError(f"{op.kind}.path.segment_too_long", message)
        if segment in _POLLUTING:
            message = f"Path segment '{segment}' is not allowed (prototype pollution)."
            raise _OpError(f"{op.kind}.path.proto_polluted", message)
    if op.kind == "merge":
        _check_merged(op.value)


def _check_merged(value: JSON) -> None:
    if not isinstance(value, dict):
        raise _OpError("merge.value.not_an_object", "Merge value must be a JSON object")
    if len(value) > _MAX_VALUE_KEYS:
        raise _OpError("merge.value.too_many_keys", f"Merge value has more than {_MAX_VALUE_KEYS} keys")
    bad = next((key for key in value if key in _POLLUTING), None)
    if bad is not None:
        message = f'Merge value top-level key "{bad}" is a prototype-pollution sink'
        raise _OpError("merge.value.proto_polluted", message)
    depth, level = 0, [value]
    while level:
        depth += 1
        if depth > _MAX_VALUE_DEPTH:
            raise _OpError("merge.value.too_deep", f"Merge value is nested more than {_MAX_VALUE_DEPTH} levels")
        children = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
        level = [child for child in children if isinstance(child, (dict, list))]  # type: ignore[misc]


def _apply(holder: JsonObject, op: _Op) -> None:
    """Apply one operation; ``holder`` holds the whole value under the empty key, if there is one."""
    parent, key = _place(holder, op)
    if parent is None:
        return
    if op.kind == "set":
        parent[key] = op.value
    elif op.kind == "remove":
        if op.path:
            parent.pop(key, None)
        else:
            parent[key] = None
    elif op.kind == "merge":
        target = parent.setdefault(key, {})
        if not isinstance(target, dict):
            if not op.path:
                return  # as the real engine does: a root of another kind stays, and it is no error
            target = parent[key] = {}
        assert isinstance(op.value, dict)
        target.update(op.value)
    elif op.kind == "append":
        parent[key] = _appended(parent.get(key), op)
    else:
        number = parent.get(key, 0 if op.path else {})
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            message = f"Expected number at path '{op.shown}', got {_kind(number)}."
            raise _OpError(f"{op.kind}.not_number", message)
        total = number + op.by
        parent[key] = total if -(1 << 63) <= total < 1 << 64 else float(total)


def _place(holder: JsonObject, op: _Op) -> tuple[Optional[JsonObject], str]:
    """Return the object that holds the target, and its key there; ``None`` if nothing is to be done."""
    if not op.path:
        return holder, ""
    parent = holder.setdefault("", {})
    if not isinstance(parent, dict):
        if op.kind == "merge":
            return None, ""
        shown = f"[{', '.join(op.path)}]" if op.kind == "append" else op.path[0]
        message = f"Cannot {op.kind} at path '{shown}': target is {_kind(parent)}, expected object."
        raise _OpError(f"{op.kind}.target_not_object", message)
    for segment in op.path[:-1]:
        below = parent.get(segment)
        if not isinstance(below, dict):
            below = parent[segment] = {}
        parent = below
    return parent, op.path[-1]


def _appended(target: JSON, op: _Op) -> JSON:
    if target is None:
        return op.value if isinstance(op.value, str) else [op.value]
    if isinstance(target, list):
        return [*target, op.value]
    if isinstance(target, str):
        if isinstance(op.value, str):
            return target + op.value
        message = f"Expected string append value at path '{op.shown}', got {_kind(op.value)}."
    else:
        message = (
            f"Cannot append at path '{op.shown}': target is {_kind(target)}, "
            "expected array, string, null, or missing field."
        )
    raise _OpError("append.type_mismatch", message)


def _kind(value: JSON) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")
