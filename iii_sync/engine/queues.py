"""Queues: the action *enqueue*, ``iii::durable::publish`` and ``durable:subscriber``. In memory. Pure.

A message is delivered until its function succeeds, with growing pauses, and then laid aside among the
dead ones, from where it can be redriven or discarded. A worker that registers
``engine::queue::enqueue`` takes the enqueueing over for as long as it is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable, Optional

from .bindings import Bindings, want_object
from .firing import check
from .frames import Failure, Invoke
from .inputs import Input
from .jsontext import JSON, JsonObject, encode
from .records import DEFAULT_NAMESPACE, Builtin, BuiltinError, Finish, Outcome, Success, Trigger, TriggerError, Worker
from .router import Router

ATTEMPTS = 3
"""Deliveries before a message is dead."""
BACKOFF = 1.0
"""Seconds before the second delivery; each further pause is twice as long."""
CONCURRENCY = 10

_SERVICE = "iii-queue"


@dataclass(eq=False)
class _Message:
    id: str
    data: JSON
    deliver: Callable[[Finish], None]
    attempts: int = ATTEMPTS
    tried: int = 0
    error: str = ""
    failed_at: int = 0


class _Queue:
    """Messages of one name, several of which may be under way at once."""

    def __init__(self, router: Router, concurrency: int = CONCURRENCY) -> None:
        self._router = router
        self.concurrency = concurrency
        self.waiting: deque[_Message] = deque()
        self.active = 0
        self.dead: list[_Message] = []
        self._going = False

    def push(self, message: _Message) -> None:
        """Deliver a message as soon as there is room."""
        self.waiting.append(message)
        self._go_on()

    def _go_on(self) -> None:
        # A delivery that fails at once comes back here: a loop, not a recursion as deep as the queue.
        if self._going:
            return
        self._going = True
        try:
            while self.waiting and self.active < self.concurrency:
                self._deliver(self.waiting.popleft())
        finally:
            self._going = False

    def redrive(self, message: _Message) -> None:
        """Deliver a dead message again."""
        self.dead.remove(message)
        message.tried = 0
        self.push(message)

    def _deliver(self, message: _Message) -> None:
        self.active += 1
        message.tried += 1

        def done(outcome: Outcome) -> None:
            self.active -= 1
            if isinstance(outcome, Failure):
                self._failed(message, outcome)
            self._go_on()

        message.deliver(done)

    def _failed(self, message: _Message, failure: Failure) -> None:
        message.error = f"{failure.code}: {failure.message}"
        if message.tried < message.attempts:
            self._router.later(BACKOFF * 2 ** (message.tried - 1), lambda: self.push(message))
        else:
            message.failed_at = int(self._router.now())
            self.dead.append(message)


class Queues:
    """The queues of one engine."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._queues: dict[str, _Queue] = {}
        self._subscribers = Bindings(_check)
        router.enqueue = self.enqueue
        router.add_builtins(self._builtins())
        router.triggers.provide("queue", "durable:subscriber", "A message came to a topic", self._subscribers)

    def enqueue(self, call: Invoke, queue: str, receipt: str) -> None:
        """Take a call, to be made until it succeeds."""
        namespace = DEFAULT_NAMESPACE if call.namespace is None else call.namespace

        def deliver(finish: Finish) -> None:
            self._router.call(call.function_id, call.data, finish, namespace=namespace, metadata=call.metadata)

        self._queue(queue).push(_Message(receipt, call.data, deliver))

    def _builtins(self) -> Iterator[Builtin]:
        for function_id, description, run in (
            ("iii::durable::publish", "Send data to the subscribers of a topic until they have it", self._publish),
            ("iii::queue::redrive", "Deliver all dead messages of a queue again", self._redrive),
            ("iii::queue::redrive_message", "Deliver a dead message again", self._redrive_message),
            ("iii::queue::discard_message", "Forget a dead message", self._discard_message),
            ("engine::queue::list_topics", "List the queues", self._list),
            ("engine::queue::topic_stats", "Count the messages of a queue", self._stats),
            ("engine::queue::dlq_topics", "List the queues that have had dead messages", self._dead_topics),
            ("engine::queue::dlq_messages", "List the dead messages of a queue", self._dead_messages),
        ):
            yield Builtin(function_id, description, run, _SERVICE)

    def _queue(self, name: str) -> _Queue:
        if name not in self._queues:
            self._queues[name] = _Queue(self._router)
        return self._queues[name]

    def _publish(self, _: Worker, data: JSON) -> JSON:
        fields = Input("iii::durable::publish", data)
        topic, message = fields.text("topic"), fields.required("data")
        if not topic:
            raise BuiltinError("topic_not_set", "Topic is not set")
        for trigger in self._subscribers:
            if trigger.setting("topic") == topic:
                self._send(topic, trigger, message)
        return None

    def _send(self, topic: str, trigger: Trigger, data: JSON) -> None:
        queue = self._queue(topic)
        attempts, concurrency = _limits(trigger)
        queue.concurrency = concurrency

        def deliver(finish: Finish) -> None:
            def call() -> None:
                # Without the trigger's metadata, as on the real engine.
                self._router.call(trigger.function_id, data, finish, namespace=trigger.namespace)

            def skip(failure: Optional[Failure]) -> None:
                finish(Success() if failure is None else failure)

            check(self._router, trigger, data, call, skip)

        queue.push(_Message(self._router.new_id(), data, deliver, attempts))

    # The dead

    def _redrive(self, _: Worker, data: JSON) -> JSON:
        name = _name(Input("iii::queue::redrive", data))
        queue = self._queue(name)
        dead = list(queue.dead)
        for message in dead:
            queue.redrive(message)
        return {"queue": name, "redriven": len(dead)}

    def _redrive_message(self, _: Worker, data: JSON) -> JSON:
        return self._with_message(Input("iii::queue::redrive_message", data), lambda queue, item: queue.redrive(item))

    def _discard_message(self, _: Worker, data: JSON) -> JSON:
        return self._with_message(
            Input("iii::queue::discard_message", data), lambda queue, item: queue.dead.remove(item)
        )

    def _with_message(self, fields: Input, act: Callable[[_Queue, _Message], None]) -> JSON:
        name, message_id = _name(fields), fields.text("message_id")
        if not message_id:
            raise BuiltinError("message_id_not_set", "Message id is not set")
        queue = self._queue(name)
        found = [message for message in queue.dead if message.id == message_id]
        for message in found:
            act(queue, message)
        return {"queue": name, "message_id": message_id, "redriven": len(found)}

    # Listings

    def _list(self, _: Worker, data: JSON) -> JSON:
        Input("engine::queue::list_topics", data)
        topics: dict[str, int] = dict.fromkeys(self._queues, 0)
        for trigger in self._subscribers:
            topic = trigger.text("topic") or ""
            topics[topic] = topics.get(topic, 0) + 1
        return [{"name": name, "broker_type": "local", "subscriber_count": count} for name, count in topics.items()]

    def _stats(self, _: Worker, data: JSON) -> JSON:
        topic = _topic(Input("engine::queue::topic_stats", data))
        queue = self._queue(topic)
        return {
            "depth": len(queue.waiting),
            "consumer_count": sum(trigger.setting("topic") == topic for trigger in self._subscribers),
            "dlq_depth": len(queue.dead),
            "config": None,
        }

    def _dead_topics(self, _: Worker, data: JSON) -> JSON:
        Input("engine::queue::dlq_topics", data)
        return [
            {"topic": name, "broker_type": "local", "message_count": len(queue.dead)}
            for name, queue in self._queues.items()
        ]

    def _dead_messages(self, _: Worker, data: JSON) -> JSON:
        fields = Input("engine::queue::dlq_messages", data)
        offset, limit = fields.optional_unsigned("offset", 32) or 0, fields.optional_unsigned("limit", 32)
        dead = self._queue(_topic(fields)).dead[offset:]
        return [_shown(message) for message in dead[: 50 if limit is None else limit]]


def _shown(message: _Message) -> JsonObject:
    return {
        "id": message.id,
        "payload": message.data,
        "error": message.error,
        "failed_at": message.failed_at,
        "retries": message.tried,
        "size_bytes": len(encode(message.data)),
    }


def _check(trigger: Trigger) -> None:
    want_object(trigger)
    if not trigger.text("topic"):
        raise TriggerError("topic is required for durable:subscriber triggers")


def _limits(trigger: Trigger) -> tuple[int, int]:
    """Return how often a message may be delivered, and how many at once."""
    config = trigger.setting("queue_config")
    if not isinstance(config, dict):
        return ATTEMPTS, CONCURRENCY
    retries, concurrency = config.get("maxRetries"), config.get("concurrency")
    attempts = retries + 1 if isinstance(retries, int) else ATTEMPTS
    if config.get("type") == "fifo":
        concurrency = 1
    return max(1, attempts), max(1, concurrency if isinstance(concurrency, int) else CONCURRENCY)


def _name(fields: Input) -> str:
    name = fields.required("queue", "topic")
    if not isinstance(name, str) or not name:
        raise BuiltinError("queue_not_set", "Queue is not set")
    return name


def _topic(fields: Input) -> str:
    topic = fields.text("topic")
    if not topic:
        raise BuiltinError("topic_required", "Topic is required")
    return topic
