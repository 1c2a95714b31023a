"""State: ``state::*`` and the trigger type ``state``. In memory. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from .bindings import Bindings, want_texts
from .firing import fire
from .inputs import Input
from .jsontext import JSON, JsonObject
from .records import Builtin, Trigger, Worker
from .router import Router
from .store import Store

_SERVICE = "iii-state"


class State:
    """The state of one engine."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._store = Store()
        self._triggers = Bindings(_check)
        router.add_builtins(self._builtins())
        router.triggers.provide(_SERVICE, "state", "State was created, updated or deleted", self._triggers)

    def _builtins(self) -> Iterator[Builtin]:
        yield Builtin("state::set", "Store a value", self._set, _SERVICE)
        yield Builtin("state::get", "Return a value", self._get, _SERVICE)
        yield Builtin("state::delete", "Remove a value and return it", self._delete, _SERVICE)
        yield Builtin("state::update", "Change parts of a value", self._update, _SERVICE)
        yield Builtin("state::list", "Return the values of a scope", self._list, _SERVICE)
        yield Builtin("state::list_groups", "Return the names of the scopes", self._list_groups, _SERVICE)

    def _set(self, _: Worker, data: JSON) -> JSON:
        fields = Input("state::set", data)
        scope, key = fields.text("scope"), fields.text("key")
        value = fields.required("value", "data")
        kind = "updated" if self._store.has(scope, key) else "created"
        old = self._store.set(scope, key, value)
        self._fire(kind, scope, key, old, value)
        return {"old_value": old, "new_value": value}

    def _get(self, _: Worker, data: JSON) -> JSON:
        fields = Input("state::get", data)
        return self._store.get(fields.text("scope"), fields.text("key"))

    def _delete(self, _: Worker, data: JSON) -> JSON:
        fields = Input("state::delete", data)
        scope, key = fields.text("scope"), fields.text("key")
        old = self._store.delete(scope, key)
        self._fire("deleted", scope, key, old, None)
        return old

    def _update(self, _: Worker, data: JSON) -> JSON:
        fields = Input("state::update", data)
        scope, key = fields.text("scope"), fields.text("key")
        kind = "updated" if self._store.has(scope, key) else "created"
        result = self._store.update("state::update", scope, key, fields.required("ops"))
        self._fire(kind, scope, key, result["old_value"], result["new_value"])
        return result

    def _list(self, _: Worker, data: JSON) -> JSON:
        return self._store.values(Input("state::list", data).text("scope"))

    def _list_groups(self, _: Worker, data: JSON) -> JSON:
        Input("state::list_groups", data)
        return {"groups": self._store.groups()}

    def _fire(self, kind: str, scope: str, key: str, old: JSON, new: JSON) -> None:
        for trigger in self._triggers.matching(scope=scope, key=key):
            event: JsonObject = {
                "type": "state",
                "event_type": f"state:{kind}",
                "scope": scope,
                "key": key,
                "old_value": old,
                "new_value": new,
            }
            fire(self._router, trigger, event)


def _check(trigger: Trigger) -> None:
    want_texts(trigger, "scope", "key", "condition_function_id")
