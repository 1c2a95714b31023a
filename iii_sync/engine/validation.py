"""Checking a value against a JSON Schema: the keywords that configurations are made of. Pure.

Checked are ``type``, ``enum``, ``const``, ``properties``, ``required``, ``additionalProperties``, ``items``,
``minimum``, ``maximum``, ``minLength``, ``maxLength``, ``minItems``, ``maxItems``, ``allOf``, ``anyOf`` and
references to definitions of the same document; other keywords are not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Callable

from .jsontext import JSON, JsonObject

MAX_STEPS = 100_000
"""Parts of a value that are looked at, once for every schema they have to fit; a fraction of a second."""

_MAX_DEPTH = 64
_SHOWN = 200
_ENCODER = json.JSONEncoder(ensure_ascii=False)

_TYPES: dict[str, Callable[[JSON], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and float(value) == int(value),  # type: ignore[arg-type]
    "number": lambda value: _is_number(value),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def complaints(value: JSON, schema: JSON) -> Iterator[str]:
    """Yield what is wrong with a value, nothing if it fits the schema.

    Raises:
        ValueError: The check takes too long; the message says so.
    """
    yield from _Check(schema).of(value, schema, 0)


class _Check:
    """One check, which has to end: everybody waits for it, and references can make a small schema an endless one."""

    def __init__(self, root: JSON) -> None:
        self._root = root
        self._steps = 0

    def of(self, value: JSON, schema: JSON, depth: int) -> Iterator[str]:
        """Yield what is wrong with a part of the value."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise ValueError(f"the value, or its schema, is too large: checking it takes more than {MAX_STEPS} steps")
        if schema is False:
            yield f"{_shown(value)} is not allowed"
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return
        reference = schema.get("$ref")
        if isinstance(reference, str):
            yield from self.of(value, _resolve(reference, self._root), depth + 1)
        yield from _check_type(value, schema)
        yield from _check_size(value, schema)
        if isinstance(value, dict):
            yield from self._of_object(value, schema, depth)
        elif isinstance(value, list) and "items" in schema:
            for item in value:
                yield from self.of(item, schema["items"], depth + 1)
        for part in _list(schema, "allOf"):
            yield from self.of(value, part, depth + 1)
        choices = _list(schema, "anyOf")
        if choices and all(any(self.of(value, choice, depth + 1)) for choice in choices):
            yield f'{_shown(value)} is not valid under any of the schemas listed in the "anyOf" keyword'

    def _of_object(self, value: JsonObject, schema: JsonObject, depth: int) -> Iterator[str]:
        properties = schema.get("properties")
        known = properties if isinstance(properties, dict) else {}
        for key in _list(schema, "required"):
            if isinstance(key, str) and key not in value:
                yield f"{_shown(key)} is a required property"
        for key, item in value.items():
            if key in known:
                yield from self.of(item, known[key], depth + 1)
            elif schema.get("additionalProperties") is False:
                yield f"Additional properties are not allowed ({_shown(key)} was unexpected)"
            else:
                yield from self.of(item, schema.get("additionalProperties"), depth + 1)


def _check_type(value: JSON, schema: JSON) -> Iterator[str]:
    assert isinstance(schema, dict)
    wanted = schema.get("type")
    names = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
    known = [name for name in names if isinstance(name, str) and name in _TYPES]
    if known and not any(_TYPES[name](value) for name in known):
        yield f"{_shown(value)} is not of type {' or '.join(_shown(name) for name in known)}"
    options = schema.get("enum")
    if isinstance(options, list) and not any(_equal(value, option) for option in options):
        yield f"{_shown(value)} is not one of {_shown(options)}"
    if "const" in schema and not _equal(value, schema["const"]):
        yield f"{_shown(schema['const'])} was expected"


def _check_size(value: JSON, schema: JsonObject) -> Iterator[str]:
    if _is_number(value):
        number, least, most = value, schema.get("minimum"), schema.get("maximum")
    elif isinstance(value, str):
        number, least, most = len(value), schema.get("minLength"), schema.get("maxLength")
    elif isinstance(value, list):
        number, least, most = len(value), schema.get("minItems"), schema.get("maxItems")
    else:
        return
    assert isinstance(number, (int, float))
    if isinstance(least, (int, float)) and number < least:
        yield f"{_shown(value)} is less than the minimum of {least}"
    if isinstance(most, (int, float)) and number > most:
        yield f"{_shown(value)} is greater than the maximum of {most}"


def _resolve(reference: str, root: JSON) -> JSON:
    if not reference.startswith("#"):
        return None
    found = root
    for part in reference[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _list(schema: JsonObject, key: str) -> list[JSON]:
    value = schema.get(key)
    return value if isinstance(value, list) else []


def _is_number(value: JSON) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _equal(left: JSON, right: JSON) -> bool:
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _shown(value: JSON) -> str:
    """Return the beginning of a value, without looking at the rest of it."""
    text = ""
    for piece in _ENCODER.iterencode(value[:_SHOWN] if isinstance(value, str) else value):
        text += piece
        if len(text) > _SHOWN:
            break
    return text[:_SHOWN]
