"""Header fields and status codes: read without regard to case, checked before they are sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Union

__all__ = ["HeaderArguments", "Headers", "checked_headers", "checked_status"]

#: How header fields are given: a mapping, pairs, or iii's list of ``"Name: value"`` lines.
HeaderArguments = Union[Mapping[str, Any], Iterable[Any]]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_IN_VALUE = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")

#: These belong to the connection, which is the engine's.
_OF_THE_CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)


class Headers(Mapping[str, str]):
    """The header fields of a request: a mapping that does not look at the case of names."""

    def __init__(self, items: Mapping[str, str]) -> None:
        self._items = {name.lower(): value for name, value in items.items()}

    def __getitem__(self, name: str) -> str:
        return self._items[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        # Names only: values hold credentials and cookies.
        return f"<Headers {', '.join(self._items)}>"


def checked_status(status: Any) -> int:
    """Return a status that can end a request.

    Raises:
        ValueError: The engine would ignore it, and answer 200.
    """
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
        raise ValueError(f"status {status!r} must be an integer from 200 to 599")
    return int(status)


def checked_headers(headers: HeaderArguments) -> list[tuple[str, str]]:
    """Return header fields as pairs.

    Raises:
        TypeError: Neither fields nor pairs, or a value that is neither text nor an integer.
        ValueError: A name or value that cannot be sent, or a field that belongs to the connection.
    """
    if isinstance(headers, (str, bytes)):
        raise TypeError(f"headers={headers!r} must be a dict, or a list of pairs")
    return [_checked(*_pair(item)) for item in (headers.items() if isinstance(headers, Mapping) else headers)]


def _pair(item: Any) -> tuple[Any, Any]:
    if isinstance(item, str) and ":" in item:
        name, _, value = item.partition(":")
        return name.strip(), value.strip()
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return item[0], item[1]
    raise TypeError(f"header {item!r} must be a pair of name and value")


def _checked(name: Any, value: Any) -> tuple[str, str]:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no header name: use letters, digits and hyphens")
    if name.lower() in _OF_THE_CONNECTION:
        raise ValueError(f"header {name!r} belongs to the connection, which is the engine's: leave it out")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise TypeError(f"header {name!r}: the value must be text or an integer, not {type(value).__name__}")
    if _NOT_IN_VALUE.search(value):
        raise ValueError(f"header {name!r}: the value {value!r} has control characters or lone surrogates")
    if name.lower() == "content-length" and not (value.isascii() and value.isdecimal()):
        raise ValueError(f"header {name!r}: {value!r} is no number of bytes")
    return name, value
