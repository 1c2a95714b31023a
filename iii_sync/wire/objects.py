"""Objects that have one obvious form in JSON."""

from __future__ import annotations

import enum
from typing import Any

__all__ = ["unfolded"]


def unfolded(value: Any) -> Any:
    """Return what an object is in JSON, its parts as they are; ``NotImplemented`` when there is no obvious form.

    A dataclass and a pydantic model is an object with its fields, a member of an enumeration its value.
    """
    if isinstance(value, type):
        return NotImplemented
    if isinstance(value, enum.Enum):
        return value.value
    if hasattr(type(value), "__dataclass_fields__"):
        import dataclasses  # not before somebody has one, for it takes long

        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(type(value), "model_dump") and hasattr(type(value), "model_validate"):
        return value.model_dump(mode="json", by_alias=True)
    return NotImplemented
