"""Configurations: ``configuration::*`` and the trigger type ``configuration``. In memory. Pure.

A configuration is a value with a schema. Texts in it may name variables of the engine's environment,
``${NAME}`` or ``${NAME:default}``; they are put in when the value is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from .bindings import Bindings, want_texts
from .firing import fire
from .inputs import Input
from .jsontext import JSON, JsonObject
from .records import Builtin, BuiltinError, Trigger, TriggerError, Worker
from .router import Router
from .validation import complaints

_SERVICE = "configuration"
_ID = re.compile("[a-z0-9_-]{1,64}")
_VARIABLE = re.compile(r"\$\{([^}:]+)(?::([^}]*))?\}")


@dataclass
class _Entry:
    id: str
    name: str
    description: str
    schema: JSON
    metadata: JSON
    value: JSON = None

    def view(self) -> JsonObject:
        body: JsonObject = {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "schema": self.schema,
        }
        if self.metadata is not None:
            body["metadata"] = self.metadata
        return body


class Configurations:
    """The configurations of one engine.

    Args:
        router: Where they are offered.
        environment: The variables that a value may name.
    """

    def __init__(self, router: Router, environment: Mapping[str, str] = os.environ) -> None:
        self._router = router
        self._environment = environment
        self._entries: dict[str, _Entry] = {}
        self._triggers = Bindings(_check)
        for name, description, run in (
            ("register", "Describe a configuration", self._register),
            ("set", "Store the value of a configuration", self._set),
            ("get", "Return the value of a configuration", self._get),
            ("list", "List all configurations", self._list),
            ("schema", "Describe a configuration as it was registered", self._schema),
        ):
            router.add_builtins([Builtin(f"configuration::{name}", description, run, _SERVICE)])
        router.triggers.provide(_SERVICE, "configuration", "A configuration changed", self._triggers)

    def _register(self, _: Worker, data: JSON) -> JSON:
        fields = Input("configuration::register", data)
        entry = _Entry(
            fields.text("id"),
            fields.text("name"),
            fields.text("description"),
            fields.required("schema"),
            fields.value("metadata"),
        )
        if not _ID.fullmatch(entry.id):
            raise BuiltinError("INVALID_ID", f"invalid configuration id '{entry.id}': must match [a-z0-9_-]{{1,64}}")
        earlier = self._entries.get(entry.id)
        initial = fields.value("initial_value")
        if initial is not None:
            self._validate(initial, entry)
            entry.value = initial
        elif earlier is not None:
            entry.value = earlier.value
        self._entries[entry.id] = entry
        if earlier is None:
            self._tell("registered", entry, None)
        else:
            self._tell("updated", entry, earlier.value)
        return {**entry.view(), "value": entry.value}

    def _set(self, _: Worker, data: JSON) -> JSON:
        fields = Input("configuration::set", data)
        name, value = fields.text("id"), fields.required("value")
        entry = self._entries.get(name)
        if entry is None:
            message = f"configuration '{name}' is not registered; call configuration::register first"
            raise BuiltinError("NOT_REGISTERED", message)
        self._validate(value, entry)
        old, entry.value = entry.value, value
        self._tell("updated", entry, old)
        return {"old_value": old, "new_value": value}

    def _get(self, _: Worker, data: JSON) -> JSON:
        fields = Input("configuration::get", data)
        entry = self._entry(fields)
        if fields.flag("raw"):
            return {"id": entry.id, "value": entry.value}
        missing: list[str] = []
        value = self._expand(entry.value, missing)
        if missing:
            names = ", ".join(missing)
            message = f"configuration '{entry.id}' references unset environment variable(s) with no default: {names}"
            raise BuiltinError("EXPAND_FAILED", message)
        self._validate(value, entry)
        return {"id": entry.id, "value": value}

    def _list(self, _: Worker, data: JSON) -> JSON:
        Input("configuration::list", data)
        return {"configurations": [entry.view() for _, entry in sorted(self._entries.items())]}

    def _schema(self, _: Worker, data: JSON) -> JSON:
        return self._entry(Input("configuration::schema", data)).view()

    def _entry(self, fields: Input) -> _Entry:
        name = fields.text("id")
        entry = self._entries.get(name)
        if entry is None:
            raise BuiltinError("NOT_FOUND", f"configuration '{name}' not found")
        return entry

    def _validate(self, value: JSON, entry: _Entry) -> None:
        # A variable may stand where the schema wants something else than text: its value counts.
        try:
            wrong = next(complaints(self._expand(value, []), entry.schema), None)
        except ValueError as error:
            wrong = str(error)
        if wrong is not None:
            raise BuiltinError("SCHEMA_INVALID", f"schema validation failed: {wrong}")

    def _expand(self, value: JSON, missing: list[str]) -> JSON:
        """Put the variables of the environment in; those that are not set stay, and are noted."""
        if isinstance(value, dict):
            return {key: self._expand(item, missing) for key, item in value.items()}
        if isinstance(value, list):
            return [self._expand(item, missing) for item in value]
        if not isinstance(value, str):
            return value

        def replace(match: re.Match[str]) -> str:
            found: Optional[str] = self._environment.get(match[1], match[2])
            if found is None:
                missing.append(match[1])
                return match[0]
            return found

        return _VARIABLE.sub(replace, value)

    def _tell(self, event: str, entry: _Entry, old: JSON) -> None:
        kind = f"configuration:{event}"
        data: JsonObject = {
            "type": "configuration",
            "event_type": kind,
            **entry.view(),
            "old_value": self._expand(old, []),
            "new_value": self._expand(entry.value, []),
        }
        for trigger in self._triggers.matching(configuration_id=entry.id):
            wanted = trigger.setting("event_types")
            if not isinstance(wanted, list) or kind in wanted:
                fire(self._router, trigger, data)


def _check(trigger: Trigger) -> None:
    want_texts(trigger, "configuration_id", "condition_function_id")
    wanted = trigger.setting("event_types")
    if wanted is not None and not (isinstance(wanted, list) and all(isinstance(kind, str) for kind in wanted)):
        raise TriggerError("Failed to parse configuration trigger config: `event_types` is not a list of strings")
