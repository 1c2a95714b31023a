"""Formats that are listed with functions and trigger types: JSON Schemas, or types that have one."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigurationError, InvalidPayloadError
from ..wire import messages

__all__ = ["json_schema"]


def json_schema(name: str, given: Any, *, returned: bool = False) -> Any:
    """Return the JSON Schema that was given, or that of the type that was; ``None`` for ``None``.

    Args:
        name: The argument, for errors.
        given: A schema, or what a payload can be annotated with.
        returned: Whether it is of a result, for models whose schema differs then.

    Raises:
        ConfigurationError: Neither a schema nor a type that has one.
        InvalidPayloadError: Something in the schema cannot travel.
    """
    if given is None or isinstance(given, (bool, dict)):
        return messages.check(given, name)
    from . import schema  # not before somebody has types

    try:
        # Names in quotes mean nothing here: this is nobody's annotation.
        found = None if isinstance(given, str) else schema.shape(given, returned=returned)
    except (NameError, TypeError) as exc:
        raise ConfigurationError(f"{name}: {exc}") from None
    if found is not None:
        return messages.check(found.schema, name)
    try:
        plain = messages.check(given, name)
    except InvalidPayloadError:
        plain = None
    if isinstance(plain, dict):
        return plain
    raise ConfigurationError(
        f"{name}={given!r}: give a JSON Schema, which is a dict, or a type that has one: a dataclass, a pydantic "
        "model, a typed dictionary, list[…], …"
    )
