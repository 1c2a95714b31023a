"""Header fields: which names and values can be sent. No error here shows a value, for it may be a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Union

__all__ = ["HeaderArguments", "check_name", "check_value", "checked_headers"]

#: How header fields are given: a mapping, pairs, or iii's list of ``"Name: value"`` lines.
HeaderArguments = Union[Mapping[str, Any], Iterable[Any]]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: What would end a line, is invisible, or cannot be encoded.
_NOT_IN_VALUES = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

#: These belong to the connection, which is the engine's.
_OF_THE_CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)


def check_name(name: Any) -> None:
    """Refuse what is no name of a header.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        # Somebody may have put the value there, too.
        start = _NAME.match(name) if isinstance(name, str) else None
        shown = (start[0][:20] if start else "") + "…"
        raise ValueError(f"{shown!r} is not the name of a header: use letters, digits and hyphens")


def check_value(name: str, value: Any) -> None:
    """Refuse what is no value of a header.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str) or _NOT_IN_VALUES.search(value):
        raise ValueError(f"the value of {name!r} is not a line of text")


def checked_headers(headers: HeaderArguments) -> list[tuple[str, str]]:
    """Return the header fields of a response as pairs.

    Raises:
        TypeError: Neither fields nor pairs, or a value that is neither text nor an integer.
        ValueError: A name or value that cannot be sent, or a field that belongs to the connection.
    """
    if isinstance(headers, (str, bytes)):
        raise TypeError(f"headers must be a dict, or a list of pairs, not {type(headers).__name__}")
    return [_checked(*_pair(item)) for item in (headers.items() if isinstance(headers, Mapping) else headers)]


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, str) and ":" in item:
        name, _, value = item.partition(":")
        return name.strip(), value.strip()
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    raise TypeError(f"a header must be a pair of name and value, not {type(item).__name__}")


def _checked(name: Any, value: Any) -> tuple[str, str]:
    check_name(name)
    if name.lower() in _OF_THE_CONNECTION:
        raise ValueError(f"header {name!r} belongs to the connection, which is the engine's: leave it out")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise TypeError(f"header {name!r}: the value must be text or an integer, not {type(value).__name__}")
    check_value(name, value)
    if name.lower() == "content-length" and not (value.isascii() and value.isdecimal()):
        raise ValueError(f"header {name!r} is no number of bytes")
    return name, value
