"""Values by group and key, in memory. Pure."""

from __future__ import annotations

from typing import Union

from .jsontext import JSON, JsonObject
from .updates import Missing, update


class Store:
    """Groups of values; a group stays when its last value is gone."""

    def __init__(self) -> None:
        self._groups: dict[str, JsonObject] = {}

    def get(self, group: str, key: str) -> JSON:
        """Return a value, ``None`` if there is none."""
        return self._groups.get(group, {}).get(key)

    def has(self, group: str, key: str) -> bool:
        """Tell whether there is a value, be it null."""
        return key in self._groups.get(group, {})

    def set(self, group: str, key: str, value: JSON) -> JSON:
        """Store a value and return the earlier one."""
        values = self._groups.setdefault(group, {})
        old = values.get(key)
        values[key] = value
        return old

    def delete(self, group: str, key: str) -> JSON:
        """Remove a value and return it."""
        return self._groups.get(group, {}).pop(key, None)

    def update(self, function_id: str, group: str, key: str, ops: JSON) -> JsonObject:
        """Apply operations to a value and return what ``state::update`` returns."""
        old: Union[JSON, Missing] = self.get(group, key) if self.has(group, key) else Missing()
        new, errors = update(function_id, old, ops)
        self.set(group, key, new)
        result: JsonObject = {"old_value": None if isinstance(old, Missing) else old, "new_value": new}
        if errors:
            result["errors"] = errors
        return result

    def values(self, group: str) -> list[JSON]:
        """Return the values of a group."""
        return list(self._groups.get(group, {}).values())

    def groups(self) -> list[JSON]:
        """Return the names of the groups, sorted."""
        names: list[JSON] = [*sorted(self._groups)]
        return names
