"""Publish and subscribe: ``publish`` and the trigger type ``subscribe``. Pure.

As on the real engine a subscriber gets the data alone, without the metadata of its trigger, and its
condition is not asked. Unlike there, one subscription of a topic can be removed without the others.
"""

from __future__ import annotations

from .bindings import Bindings
from .inputs import Input
from .jsontext import JSON
from .records import Builtin, BuiltinError, Worker
from .router import Router

_SERVICE = "iii-pubsub"


def provide_pubsub(router: Router) -> None:
    """Offer publishing and subscribing."""
    subscriptions = Bindings()

    def publish(_: Worker, data: JSON) -> JSON:
        fields = Input("publish", data)
        topic, message = fields.text("topic"), fields.required("data")
        if not topic:
            raise BuiltinError("topic_not_set", "Topic is not set")
        for trigger in subscriptions:
            if trigger.setting("topic") == topic:
                router.call(trigger.function_id, message, namespace=trigger.namespace)
        return None

    router.add_builtins([Builtin("publish", "Send data to the subscribers of a topic", publish, _SERVICE)])
    router.triggers.provide(_SERVICE, "subscribe", "Data was published to a topic", subscriptions)
