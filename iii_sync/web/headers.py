"""The header fields of a request, and status codes that are checked before they are sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Headers", "checked_status"]


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
