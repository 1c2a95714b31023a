"""Consumers of streams: what they follow, what they are sent, and who hears of their coming and going. Pure."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Callable, Optional

from .bindings import Bindings
from .frames import Failure
from .inputs import Input
from .jsontext import JSON, JsonObject, decode
from .records import BuiltinError, Outcome, Trigger
from .router import Router
from .streams import SERVICE, Streams, message

_logger = logging.getLogger("iii_sync.engine")


@dataclass(frozen=True)
class _Subscription:
    """What a consumer follows: an item, or without an ``item`` a whole group."""

    id: str
    stream: str
    group: str
    item: Optional[str]

    def follows(self, stream: str, group: str, item: Optional[str]) -> bool:
        return (self.stream, self.group) == (stream, group) and self.item in (None, item)


class Consumers:
    """The consumers of the streams of one engine."""

    def __init__(self, router: Router, streams: Streams) -> None:
        self.router = router
        self.joins: Bindings = Bindings()
        self.leaves: Bindings = Bindings()
        self.all: set[Consumer] = set()
        router.triggers.provide(SERVICE, "stream:join", "A consumer begins to follow a stream", self.joins)
        router.triggers.provide(SERVICE, "stream:leave", "A consumer follows a stream no longer", self.leaves)
        streams.followers.append(self._tell)

    def _tell(self, stream: str, group: str, item: Optional[str], data: JsonObject) -> None:
        for consumer in list(self.all):
            consumer.tell(stream, group, item, data)


class Consumer:
    """One consumer.

    Args:
        consumers: Where it belongs from now on, until :meth:`close`.
        send: Takes a message for it; neither blocks nor raises.
    """

    def __init__(self, consumers: Consumers, send: Callable[[JsonObject], None]) -> None:
        self._consumers = consumers
        self._router = consumers.router
        self._send = send
        self._subscriptions: dict[str, _Subscription] = {}
        consumers.all.add(self)

    def tell(self, stream: str, group: str, item: Optional[str], data: JsonObject) -> None:
        """Send a message once for every subscription it belongs to."""
        for subscription in self._subscriptions.values():
            if subscription.follows(stream, group, item):
                self._send(data)

    def close(self) -> None:
        """Leave everything. A second call does nothing."""
        self._consumers.all.discard(self)
        subscriptions, self._subscriptions = self._subscriptions, {}
        for subscription in subscriptions.values():
            self._announce_leave(subscription)

    def receive(self, text: str, done: Callable[[], None]) -> None:
        """Handle one message; what makes no sense is ignored, as the real engine does.

        Args:
            text: The message.
            done: Called, now or later, when the next message may be handled.
        """
        try:
            kind, subscription = _parse(text)
        except (ValueError, BuiltinError) as error:
            _logger.debug("a consumer sent what makes no sense: %s", error)
            done()
            return
        if kind == "join":
            self._join(subscription, done)
        else:
            if kind == "leave":
                self._subscriptions.pop(subscription.id, None)
                self._announce_leave(subscription)
            done()

    def _join(self, subscription: _Subscription, done: Callable[[], None]) -> None:
        """Ask every handler, one after the other; one that says no is enough."""
        handlers = iter(self._consumers.joins)
        refused = asking = waiting = False

        def ask() -> None:
            nonlocal asking, waiting
            # A handler that answers at once comes back here: a loop, not a recursion.
            if asking:
                return
            asking = True
            while not waiting:
                trigger = next(handlers, None)
                if trigger is None:
                    decided()
                    return
                waiting = True
                self._call(trigger, subscription, partial(answered, trigger))
            asking = False

        def answered(trigger: Trigger, outcome: Outcome) -> None:
            nonlocal refused, waiting
            if isinstance(outcome, Failure):
                _logger.warning("trigger %s: %s failed: %s", trigger.id, trigger.function_id, outcome.message)
            elif _refuses(outcome.value):
                refused = True
            waiting = False
            ask()

        def decided() -> None:
            if refused:
                self._send(self._message(subscription, {"type": "unauthorized"}))
                done()
            else:
                self._follow(subscription, done)

        ask()

    def _follow(self, subscription: _Subscription, done: Callable[[], None]) -> None:
        if self not in self._consumers.all:  # it has gone while a handler was asked
            done()
            return
        # Before the values are read: nothing that changes meanwhile may be missed.
        self._subscriptions[subscription.id] = subscription

        def synchronise(outcome: Outcome) -> None:
            if isinstance(outcome, Failure):
                _logger.warning("stream %s could not be read: %s", subscription.stream, outcome.message)
            else:
                self._send(self._message(subscription, {"type": "sync", "data": outcome.value}))
            done()

        place: JsonObject = {"stream_name": subscription.stream, "group_id": subscription.group}
        if subscription.item is None:
            self._router.call("stream::list", place, synchronise)
        else:
            self._router.call("stream::get", {**place, "item_id": subscription.item}, synchronise)

    def _announce_leave(self, subscription: _Subscription) -> None:
        for trigger in self._consumers.leaves:
            self._call(trigger, subscription, lambda _: None)

    def _call(self, trigger: Trigger, subscription: _Subscription, finish: Callable[[Outcome], None]) -> None:
        data: JsonObject = {
            "subscription_id": subscription.id,
            "stream_name": subscription.stream,
            "group_id": subscription.group,
            "id": subscription.item,
            "context": None,
        }
        self._router.call(trigger.function_id, data, finish, namespace=trigger.namespace, metadata=trigger.metadata)

    def _message(self, subscription: _Subscription, event: JsonObject) -> JsonObject:
        return message(self._router, subscription.stream, subscription.group, subscription.item, event)


def _parse(text: str) -> tuple[str, _Subscription]:
    frame = Input("the stream", decode(text))
    data = Input("the stream", frame.required("data"))
    place = (data.text("subscriptionId"), data.text("streamName"), data.text("groupId"), data.optional_text("id"))
    return frame.text("type"), _Subscription(*place)


def _refuses(answer: JSON) -> bool:
    return isinstance(answer, dict) and answer.get("unauthorized") is True
