"""Streams: ``stream::*`` and the trigger type ``stream``. In memory.

A worker may keep one stream itself: it registers functions such as ``stream::get(<name>)``, which are
then called in place of the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable, Optional, Union

from .bindings import Bindings, want_texts
from .firing import fire
from .frames import Failure
from .inputs import Input
from .jsontext import JSON, JsonObject
from .records import DEFAULT_NAMESPACE, Builtin, Finish, Later, Outcome, Trigger, TriggerError, Worker
from .router import Router
from .store import Store

SERVICE = "iii-stream"

_Own = Callable[[Store, Input], JSON]
_Tell = Callable[[Input, JSON], None]


class Streams:
    """The streams of one engine.

    Attributes:
        followers: Called with stream, group and item of every event, and the message about it.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._streams: dict[str, Store] = {}
        self._triggers = Bindings(_check)
        self.followers: list[Callable[[str, str, Optional[str], JsonObject], None]] = []
        router.add_builtins(self._builtins())
        router.triggers.provide(SERVICE, "stream", "An item of a stream changed", self._triggers)

    def _builtins(self) -> Iterator[Builtin]:
        item = ("stream_name", "group_id", "item_id")
        yield self._builtin("set", "Store an item", item, _set, self._tell_change)
        yield self._builtin("get", "Return an item", item, _get)
        yield self._builtin("delete", "Remove an item", item, _delete, self._tell_delete)
        yield self._builtin("update", "Change parts of an item", item, _update, self._tell_change)
        yield self._builtin("list", "Return the items of a group", item[:2], _list)
        yield self._builtin("list_groups", "Return the groups of a stream", item[:1], lambda store, _: store.groups())
        yield Builtin("stream::list_all", "Return all streams and their groups", self._list_all, SERVICE)
        yield Builtin("stream::send", "Send an event to those who follow a stream", self._send, SERVICE)

    def _builtin(
        self, name: str, description: str, keys: tuple[str, ...], own: _Own, tell: _Tell = lambda *_: None
    ) -> Builtin:
        function_id = f"stream::{name}"

        def run(_: Worker, data: JSON) -> Union[JSON, Later]:
            fields = Input(function_id, data)
            for key in keys:
                fields.text(key)
            stream = fields.text("stream_name")
            override = f"{function_id}({stream})"
            if (DEFAULT_NAMESPACE, override) in self._router.functions:
                return self._overridden(override, data, lambda result: tell(fields, result))
            store = self._streams.get(stream)
            if store is None:
                store = Store()
                if name in ("set", "update"):
                    self._streams[stream] = store
            result = own(store, fields)
            tell(fields, result)
            return result

        return Builtin(function_id, description, run, SERVICE)

    def _overridden(self, override: str, data: JSON, tell: Callable[[JSON], None]) -> Later:
        def start(finish: Finish) -> None:
            def done(outcome: Outcome) -> None:
                if not isinstance(outcome, Failure):
                    tell(outcome.value)
                finish(outcome)

            self._router.call(override, data, done)

        return Later(start)

    def _list_all(self, _: Worker, data: JSON) -> JSON:
        Input("stream::list_all", data)
        streams: list[JSON] = [{"id": name, "groups": store.groups()} for name, store in sorted(self._streams.items())]
        return {"stream": streams, "count": len(streams)}

    def _send(self, _: Worker, data: JSON) -> JSON:
        fields = Input("stream::send", data)
        event: JsonObject = {"type": fields.text("type"), "data": fields.required("data")}
        stream, group, item = fields.text("stream_name"), fields.text("group_id"), fields.optional_text("id")
        self._fire(stream, group, item, {"type": "event", "event": event})
        return None

    def _tell_change(self, fields: Input, result: JSON) -> None:
        if isinstance(result, dict):
            kind = "create" if result.get("old_value") is None else "update"
            self._fire_item(fields, {"type": kind, "data": result.get("new_value")})

    def _tell_delete(self, fields: Input, result: JSON) -> None:
        if isinstance(result, dict) and result.get("old_value") is not None:
            self._fire_item(fields, {"type": "delete", "data": result["old_value"]})

    def _fire_item(self, fields: Input, event: JsonObject) -> None:
        self._fire(fields.text("stream_name"), fields.text("group_id"), fields.text("item_id"), event)

    def _fire(self, stream: str, group: str, item: Optional[str], event: JsonObject) -> None:
        data = message(self._router, stream, group, item, event)
        for follower in self.followers:
            follower(stream, group, item, data)
        for trigger in self._triggers.matching(stream_name=stream, group_id=group, item_id=item):
            fire(self._router, trigger, data)


def message(router: Router, stream: str, group: str, item: Optional[str], event: JsonObject) -> JsonObject:
    """Return what triggers and consumers are told about an event."""
    return {
        "type": "stream",
        "timestamp": int(router.now() * 1000),
        "streamName": stream,
        "groupId": group,
        "id": item,
        "event": event,
    }


def _check(trigger: Trigger) -> None:
    want_texts(trigger, "stream_name", "group_id", "item_id", "condition_function_id")
    if trigger.text("stream_name") is None:
        raise TriggerError("stream_name is required for stream triggers")


def _place(fields: Input) -> tuple[str, str]:
    return fields.text("group_id"), fields.text("item_id")


def _set(store: Store, fields: Input) -> JSON:
    value = fields.required("data")
    return {"old_value": store.set(*_place(fields), value), "new_value": value}


def _get(store: Store, fields: Input) -> JSON:
    return store.get(*_place(fields))


def _delete(store: Store, fields: Input) -> JSON:
    return {"old_value": store.delete(*_place(fields))}


def _update(store: Store, fields: Input) -> JSON:
    return store.update("stream::update", *_place(fields), fields.required("ops"))


def _list(store: Store, fields: Input) -> JSON:
    return store.values(fields.text("group_id"))
