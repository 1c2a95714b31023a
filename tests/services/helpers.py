"""Every helper of :mod:`iii_sync.services`: how it is called, and what it cannot be given."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from iii_sync import Worker
from iii_sync.services import UpdateOp


class Helper(NamedTuple):
    """One of them."""

    arguments: tuple[Any, ...] = ()
    wrong: tuple[Any, ...] = ()
    said: str = ""
    """What the error says of ``wrong``; a helper without arguments can be given no time only."""

    def call(self, worker: Worker, name: str, **options: Any) -> Any:
        """Call it."""
        return operator.attrgetter(name)(worker)(*self.arguments, **options)


HELPERS = {
    "state.get": Helper(("s", "k"), (1, "k"), "scope=1 must be text"),
    "state.set": Helper(("s", "k", 1), ("s", None, 1), "key=None must be text"),
    "state.update": Helper(("s", "k", [UpdateOp.set("", 1)]), ("s", "k", UpdateOp.set("", 1)), "single operation"),
    "state.delete": Helper(("s", "k"), ("s", 2), "key=2 must be text"),
    "state.list": Helper(("s",), (b"s",), "scope=b's' must be text"),
    "state.list_groups": Helper(),
    "streams.get": Helper(("s", "g", "i"), (1, "g", "i"), "stream=1 must be text"),
    "streams.set": Helper(("s", "g", "i", 1), ("s", 2, "i", 1), "group=2 must be text"),
    "streams.update": Helper(("s", "g", "i", []), ("s", "g", 3, []), "item=3 must be text"),
    "streams.delete": Helper(("s", "g", "i"), ("s", "g", None), "item=None must be text"),
    "streams.list": Helper(("s", "g"), ("s", 2), "group=2 must be text"),
    "streams.list_groups": Helper(("s",), (1,), "stream=1 must be text"),
    "streams.list_all": Helper(),
    "streams.send": Helper(("s", "g", "note", 1), ("s", "g", 3, 1), "kind=3 must be text"),
    "queues.publish": Helper(("t", 1), (1, 1), "topic=1 must be text"),
    "queues.topics": Helper(),
    "queues.stats": Helper(("t",), (None,), "topic=None must be text"),
    "queues.dead_topics": Helper(),
    "queues.dead_messages": Helper(("t",), (1,), "topic=1 must be text"),
    "queues.redrive": Helper(("t",), (1,), "topic=1 must be text"),
    "queues.redrive_message": Helper(("t", "m"), ("t", 1), "message_id=1 must be text"),
    "queues.discard_message": Helper(("t", "m"), ("t", 1), "message_id=1 must be text"),
    "engine.functions": Helper(),
    "engine.function": Helper(("f",), (1,), "function_id=1 must be text"),
    "engine.workers": Helper(),
    "engine.worker": Helper(("w",), (1,), "name=1 must be text"),
    "engine.triggers": Helper(),
    "engine.trigger": Helper(("t",), (1,), "trigger_id=1 must be text"),
    "engine.trigger_types": Helper(),
    "engine.trigger_type": Helper(("t",), (1,), "type_id=1 must be text"),
    "publish": Helper(("t", 1), (5, 1), "topic=5 must be text"),
}
