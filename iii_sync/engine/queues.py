"""Queues: the action *enqueue*, ``iii::durable::publish`` and ``durable:subscriber``. In memory. Pure.

A message is delivered until its function succeeds, with growing pauses, and then laid aside among the
dead ones, from where it can be redriven or discarded. A worker that registers
``engine::queue::enqueue`` takes the enqueueing over for as long as it is there.

The real engine keeps messages until its memory is full. Here a queue that nobody empties refuses more of
them after a while, so that what was taken is kept; of the dead ones the oldest go.
"""

from __future__ import annotations

import logging
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
"""Seconds before the second delivery, unless a subscriber has said; each further pause is twice as long."""
CONCURRENCY = 10
MAX_MESSAGES = 100_000
"""Messages of a queue that are not delivered yet; more are refused."""
MAX_DEAD = 10_000
"""Dead messages of a queue that are kept."""

_SERVICE = "iii-queue"

_logger = logging.getLogger("iii_sync.engine")


@dataclass(eq=False)
class _Message:
    id: str
    data: JSON
    deliver: Callable[[Finish], None]
    attempts: int = ATTEMPTS
    backoff: float = BACKOFF
    tried: int = 0
    error: str = ""
    failed_at: int = 0


class _Queue:
    """Messages of one name, several of which may be under way at once."""

    def __init__(self, router: Router, name: str) -> None:
        self._router = router
        self._name = name
        self.concurrency = CONCURRENCY
        self.has_calls = False  # of the action enqueue: the engine itself empties it
        self.waiting: deque[_Message] = deque()
        self.active = 0
        self.dead: list[_Message] = []
        self._undelivered = 0  # waiting, under way, or in a pause before the next attempt
        self._going = False
        self._has_forgotten = False

    def make_room(self, count: int = 1) -> None:
        """Make sure that so many new messages may be pushed, or raise :class:`BuiltinError`."""
        if self._undelivered + count > MAX_MESSAGES:
            message = (
                f"Queue '{self._name}' holds {self._undelivered} messages of at most {MAX_MESSAGES} that are not "
                "delivered yet: send more when its functions have caught up"
            )
            raise BuiltinError("queue_full", message)

    def push(self, message: _Message) -> None:
        """Deliver a message as soon as there is room."""
        self._undelivered += 1
        self._wait(message)

    def _wait(self, message: _Message) -> None:
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
            else:
                self._undelivered -= 1
            self._go_on()

        message.deliver(done)

    def _failed(self, message: _Message, failure: Failure) -> None:
        message.error = f"{failure.code}: {failure.message}"
        if message.tried < message.attempts:
            self._router.later(message.backoff * 2 ** (message.tried - 1), lambda: self._wait(message))
            return
        self._undelivered -= 1
        message.failed_at = int(self._router.now())
        self.dead.append(message)
        if len(self.dead) > MAX_DEAD:
            del self.dead[0]
            if not self._has_forgotten:
                self._has_forgotten = True
                _logger.warning("queue %s has more than %d dead messages: the oldest go", self._name, MAX_DEAD)


class Queues:
    """The queues of one engine."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._queues: dict[str, _Queue] = {}
        self._subscribers = Bindings(_check)
        router.enqueue = self.enqueue
        router.add_builtins(self._builtins())
        router.triggers.provide("queue", "durable:subscriber", "A message came to a topic", self._subscribers)

    def enqueue(self, call: Invoke, name: str, receipt: str) -> None:
        """Take a call, to be made until it succeeds, or raise :class:`BuiltinError`."""
        namespace = DEFAULT_NAMESPACE if call.namespace is None else call.namespace

        def deliver(finish: Finish) -> None:
            self._router.call(call.function_id, call.data, finish, namespace=namespace, metadata=call.metadata)

        queue = self._made(name)
        queue.make_room()
        queue.has_calls = True
        queue.push(_Message(receipt, call.data, deliver))

    def _builtins(self) -> Iterator[Builtin]:
        for function_id, description, run in (
            ("iii::durable::publish", "Send data to the subscribers of a topic until they have it", self._publish),
            ("iii::queue::redrive", "Deliver all dead messages of a queue again", self._redrive),
            ("iii::queue::redrive_message", "Deliver a dead message again", self._redrive_message),
            ("iii::queue::discard_message", "Forget a dead message", self._discard_message),
            ("engine::queue::list_topics", "List the queues that somebody empties", self._list),
            ("engine::queue::topic_stats", "Count the messages of a queue", self._stats),
            ("engine::queue::dlq_topics", "Count the dead messages of each queue", self._dead_topics),
            ("engine::queue::dlq_messages", "List the dead messages of a queue", self._dead_messages),
        ):
            yield Builtin(function_id, description, run, _SERVICE)

    def _made(self, name: str) -> _Queue:
        """Return a queue to push to."""
        if name not in self._queues:
            self._queues[name] = _Queue(self._router, name)
        return self._queues[name]

    def _found(self, name: str) -> _Queue:
        """Return a queue to look at; of an unknown name an empty one, which is not kept."""
        return self._queues.get(name) or _Queue(self._router, name)

    def _publish(self, _: Worker, data: JSON) -> JSON:
        fields = Input("iii::durable::publish", data)
        topic, message = fields.text("topic"), fields.required("data")
        if not topic:
            raise BuiltinError("topic_not_set", "Topic is not set")
        subscribers = [trigger for trigger in self._subscribers if trigger.setting("topic") == topic]
        if subscribers:
            queue = self._made(topic)
            queue.make_room(len(subscribers))
            for trigger in subscribers:
                self._send(queue, trigger, message)
        return None

    def _send(self, queue: _Queue, trigger: Trigger, data: JSON) -> None:
        attempts, backoff, concurrency = _limits(trigger)
        queue.concurrency = concurrency

        def deliver(finish: Finish) -> None:
            def call() -> None:
                # Without the trigger's metadata, as on the real engine.
                self._router.call(trigger.function_id, data, finish, namespace=trigger.namespace)

            def skip(failure: Optional[Failure]) -> None:
                finish(Success() if failure is None else failure)

            check(self._router, trigger, data, call, skip)

        queue.push(_Message(self._router.new_id(), data, deliver, attempts, backoff))

    # The dead

    def _redrive(self, _: Worker, data: JSON) -> JSON:
        name = _name(Input("iii::queue::redrive", data))
        queue = self._found(name)
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
        queue = self._found(name)
        found = [message for message in queue.dead if message.id == message_id]
        for message in found:
            act(queue, message)
        return {"queue": name, "message_id": message_id, "redriven": len(found)}

    # Listings

    def _list(self, _: Worker, data: JSON) -> JSON:
        Input("engine::queue::list_topics", data)
        return [
            {"name": name, "broker_type": "local", "subscriber_count": count} for name, count in self._emptied().items()
        ]

    def _emptied(self) -> dict[str, int]:
        """Return the queues that somebody empties, and how many do; those of calls the engine does itself."""
        queues = {name: queue.concurrency for name, queue in self._queues.items() if queue.has_calls}
        for trigger in self._subscribers:
            topic = trigger.text("topic") or ""
            queues[topic] = queues.get(topic, 0) + 1
        return queues

    def _stats(self, _: Worker, data: JSON) -> JSON:
        topic = _topic(Input("engine::queue::topic_stats", data))
        queue = self._found(topic)
        return {
            "depth": len(queue.waiting),
            "consumer_count": sum(trigger.setting("topic") == topic for trigger in self._subscribers),
            "dlq_depth": len(queue.dead),
            "config": None,
        }

    def _dead_topics(self, _: Worker, data: JSON) -> JSON:
        Input("engine::queue::dlq_topics", data)
        # Those without any, too, as on the real engine; and what is left of those that nobody empties any more.
        dead = dict.fromkeys(self._emptied(), 0)
        dead.update((name, len(queue.dead)) for name, queue in self._queues.items() if name in dead or queue.dead)
        return [{"topic": name, "broker_type": "local", "message_count": count} for name, count in dead.items()]

    def _dead_messages(self, _: Worker, data: JSON) -> JSON:
        fields = Input("engine::queue::dlq_messages", data)
        offset, limit = fields.optional_unsigned("offset", 32) or 0, fields.optional_unsigned("limit", 32)
        dead = self._found(_topic(fields)).dead[offset:]
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


def _limits(trigger: Trigger) -> tuple[int, float, int]:
    """Return how often a message may be delivered, the seconds before the second time, and how many at once.

    As on the real engine the pauses double, whatever ``backoffType`` says, and ``delaySeconds`` changes nothing.
    """
    config = trigger.setting("queue_config")
    if not isinstance(config, dict):
        return ATTEMPTS, BACKOFF, CONCURRENCY
    retries, delay, concurrency = config.get("maxRetries"), config.get("backoffDelayMs"), config.get("concurrency")
    attempts = retries + 1 if isinstance(retries, int) else ATTEMPTS
    if config.get("type") == "fifo":
        concurrency = 1
    return (
        max(1, attempts),
        max(0, delay) / 1000 if isinstance(delay, (int, float)) else BACKOFF,
        max(1, concurrency if isinstance(concurrency, int) else CONCURRENCY),
    )


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
