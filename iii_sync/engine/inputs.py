"""Reading the input of a builtin: typed fields of a JSON object. Pure."""

from __future__ import annotations

from typing import Optional

from .jsontext import JSON, JsonObject
from .records import BuiltinError


class Input:
    """The input of one call of a builtin.

    Every reader raises :class:`BuiltinError` (``deserialization_error``) for a value of the wrong type;
    an absent key and ``null`` are the same.
    """

    def __init__(self, function_id: str, data: JSON) -> None:
        self._function_id = function_id
        if not isinstance(data, dict):
            raise self._error(f"expected an object, got {_kind(data)}")
        self._data: JsonObject = data

    def text(self, key: str) -> str:
        """Return a string that must be there."""
        value = self.optional_text(key)
        if value is None:
            raise self._error(f"missing field `{key}`")
        return value

    def optional_text(self, key: str) -> Optional[str]:
        """Return a string, or ``None``."""
        value = self._data.get(key)
        if value is not None and not isinstance(value, str):
            raise self._error(f"`{key}`: expected a string, got {_kind(value)}")
        return value

    def optional_texts(self, key: str) -> Optional[list[str]]:
        """Return a list of strings, or ``None``."""
        value = self._data.get(key)
        if value is None:
            return None
        texts = [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
        if not isinstance(value, list) or len(texts) != len(value):
            raise self._error(f"`{key}`: expected a list of strings")
        return texts

    def optional_unsigned(self, key: str, bits: int) -> Optional[int]:
        """Return an integer of at most ``bits`` bits that is not negative, or ``None``."""
        value = self._data.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
            raise self._error(f"`{key}`: expected an integer of {bits} bits, not negative, got {value!r:.80}")
        return value

    def flag(self, key: str) -> bool:
        """Return a boolean; absent means false."""
        value = self._data.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._error(f"`{key}`: expected a boolean, got {_kind(value)}")
        return bool(value)

    def optional_object(self, key: str) -> Optional[JsonObject]:
        """Return an object, or ``None``."""
        value = self._data.get(key)
        if value is not None and not isinstance(value, dict):
            raise self._error(f"`{key}`: expected an object, got {_kind(value)}")
        return value

    def value(self, key: str) -> JSON:
        """Return any value; absent is ``None``."""
        return self._data.get(key)

    def required(self, key: str, alias: str = "") -> JSON:
        """Return any value, null too, under the key or its alias; it must be there."""
        for name in (key, alias):
            if name in self._data:
                return self._data[name]
        raise self._error(f"missing field `{key}`")

    def _error(self, reason: str) -> BuiltinError:
        return BuiltinError("deserialization_error", f"Failed to deserialize input for {self._function_id}: {reason}")


def _kind(value: JSON) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")
