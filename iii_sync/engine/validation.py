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

_MAX_DEPTH = 64

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
    """Yield what is wrong with a value, nothing if it fits the schema."""
    yield from _check(value, schema, schema, 0)


def _check(value: JSON, schema: JSON, root: JSON, depth: int) -> Iterator[str]:
    if schema is False:
        yield f"{_shown(value)} is not allowed"
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        yield from _check(value, _resolve(reference, root), root, depth + 1)
    yield from _check_type(value, schema)
    yield from _check_size(value, schema)
    if isinstance(value, dict):
        yield from _check_object(value, schema, root, depth)
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            yield from _check(item, schema["items"], root, depth + 1)
    for part in _list(schema, "allOf"):
        yield from _check(value, part, root, depth + 1)
    choices = _list(schema, "anyOf")
    if choices and all(any(_check(value, choice, root, depth + 1)) for choice in choices):
        yield f'{_shown(value)} is not valid under any of the schemas listed in the "anyOf" keyword'


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


def _check_object(value: JsonObject, schema: JsonObject, root: JSON, depth: int) -> Iterator[str]:
    properties = schema.get("properties")
    known = properties if isinstance(properties, dict) else {}
    for key in _list(schema, "required"):
        if isinstance(key, str) and key not in value:
            yield f"{_shown(key)} is a required property"
    for key, item in value.items():
        if key in known:
            yield from _check(item, known[key], root, depth + 1)
        elif schema.get("additionalProperties") is False:
            yield f"Additional properties are not allowed ({_shown(key)} was unexpected)"
        else:
            yield from _check(item, schema.get("additionalProperties"), root, depth + 1)


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
    return json.dumps(value, ensure_ascii=False)[:200]
