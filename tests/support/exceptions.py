"""Exceptions that are hard to handle."""

from __future__ import annotations


class Untellable(Exception):
    """Has a mistake in its ``__str__``."""

    def __str__(self) -> str:
        return "code " + self.code  # type: ignore[attr-defined,no-any-return]
