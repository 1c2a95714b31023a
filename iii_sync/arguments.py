"""What arguments are checked for alike, whoever takes them. The error names the argument, its value and the cure."""

from __future__ import annotations

from typing import Any, Optional

from .errors import ConfigurationError

__all__ = ["flag", "integer", "number", "optional_text", "seconds", "text"]


def text(name: str, value: Any) -> str:
    """Return ``value`` if it is text."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name}={value!r} must be text, not {type(value).__name__}; str() makes it so")
    return value


def optional_text(name: str, value: Any) -> Optional[str]:
    """Return ``value`` if it is text, or ``None``."""
    return None if value is None else text(name, value)


def integer(name: str, value: Any) -> int:
    """Return ``value`` if it is an integer."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigurationError(f"{name}={value!r} must be an integer")
    return value


def number(name: str, value: Any) -> float:
    """Return ``value`` if it is a number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ConfigurationError(f"{name}={value!r} must be a number")
    return value


def seconds(name: str, value: Any) -> Optional[float]:
    """Return ``value`` if it is a time to wait: a number from 0 on, or ``None``."""
    if value is not None and not number(name, value) >= 0:
        raise ConfigurationError(f"{name}={value!r} must be a number of seconds, 0 or more, or None for no limit")
    return value  # type: ignore[no-any-return]


def flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is ``True`` or ``False``."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name}={value!r} must be True or False")
    return value
