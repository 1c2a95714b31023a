"""The engine's own services: state, streams, queues, listings. Thin: each method is one call of one function.

They live in the namespace ``default`` whatever the worker's own is, and are there only if the engine's configuration
lists them; without it a method raises ``FunctionNotFoundError``. On the engine's word that an argument is wrong they
raise ``InvocationError`` with its code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional, Protocol, Union

from typing_extensions import NotRequired, TypedDict

from .arguments import flag, integer, optional_text, text
from .errors import ConfigurationError
from .request import DEFAULT_TIMEOUT

__all__ = [
    "Change",
    "EngineInfo",
    "FunctionDetail",
    "FunctionSummary",
    "Queues",
    "State",
    "StreamSummary",
    "Streams",
    "TriggerDetail",
    "TriggerSummary",
    "TriggerTypeDetail",
    "TriggerTypeSummary",
    "UpdateError",
    "UpdateOp",
    "UpdateResult",
    "WorkerDetail",
    "WorkerSummary",
]


class Change(TypedDict):
    """What a ``set`` did; a value that was not there before is ``None``."""

    old_value: Any
    new_value: Any


class UpdateError(TypedDict):
    """An operation of an ``update`` that was left out."""

    op_index: int
    code: str
    message: str
    doc_url: NotRequired[str]


class UpdateResult(Change):
    """What an ``update`` did. The operations in ``errors`` were left out; all the others were applied."""

    errors: list[UpdateError]


class FunctionSummary(TypedDict):
    """A function in a list."""

    function_id: str
    namespace: str
    worker_name: str
    description: NotRequired[str]
    metadata: NotRequired[Any]


class FunctionDetail(FunctionSummary):
    """A function."""

    request_schema: NotRequired[Any]
    response_schema: NotRequired[Any]
    registered_triggers: list[dict[str, Any]]


class TriggerTypeSummary(TypedDict):
    """A trigger type in a list."""

    id: str
    namespace: str
    worker_name: str
    description: str


class TriggerTypeDetail(TriggerTypeSummary):
    """A trigger type."""

    configuration_schema: NotRequired[Any]
    request_schema: NotRequired[Any]
    response_schema: NotRequired[Any]
    instance_count: int


class TriggerSummary(TypedDict):
    """A registered trigger in a list."""

    id: str
    trigger_type: str
    function_id: str
    worker_name: str
    config: Any
    config_summary: str


class TriggerDetail(TypedDict):
    """A registered trigger."""

    id: str
    trigger_type: str
    function_id: str
    worker_name: str
    config: Any
    metadata: NotRequired[Any]
    trigger: Optional[TriggerTypeDetail]
    function: Optional[FunctionDetail]


class WorkerSummary(TypedDict):
    """A worker in a list; the engine's own parts are among them, with the runtime ``engine``."""

    id: Optional[str]
    name: Optional[str]
    description: Optional[str]
    namespace: str
    runtime: Optional[str]
    version: Optional[str]
    os: Optional[str]
    pid: NotRequired[int]
    isolation: Optional[str]
    ip_address: Optional[str]
    status: str
    function_count: int
    active_invocations: int
    connected_at_ms: int
    internal: NotRequired[bool]
    latest_metrics: NotRequired[Any]


class WorkerDetail(TypedDict):
    """A worker, and what it offers."""

    worker: WorkerSummary
    functions: list[FunctionSummary]
    trigger_types: list[TriggerTypeSummary]
    registered_triggers: list[TriggerSummary]


class StreamSummary(TypedDict):
    """A stream in a list."""

    id: str
    groups: list[str]


class UpdateOp:
    """The operations of ``State.update`` and ``Streams.update``: plain objects, made by these.

    A ``path`` is one key of the value, taken literally (a dot in it is a dot), and ``""`` is the whole value. ``merge``
    and ``append`` also take a list of keys, each below the one before; objects missing on the way are made.
    """

    @staticmethod
    def set(path: str, value: Any) -> dict[str, Any]:
        """Put ``value`` there.

        Args:
            path: A key of the value; ``""`` is the whole.
            value: Anything that JSON can hold.

        Returns:
            The operation.

        Raises:
            ConfigurationError: An argument of the wrong kind.

        Blocks: Never.
        Threads: Any.
        """
        return {"type": "set", "path": text("path", path), "value": value}

    @staticmethod
    def merge(value: Mapping[str, Any], path: Union[str, Iterable[str]] = "") -> dict[str, Any]:
        """Put the keys of ``value`` into the object there; others in it stay.

        Args:
            value: A dictionary.
            path: A key, or a list of keys, each below the one before; ``""`` is the whole.

        Returns:
            The operation.

        Raises:
            ConfigurationError: An argument of the wrong kind.

        Blocks: Never.
        Threads: Any.
        """
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"value={value!r} cannot be merged: give a dictionary")
        return {"type": "merge", "path": _path(path), "value": dict(value)}

    @staticmethod
    def increment(path: str, by: int = 1) -> dict[str, Any]:
        """Add an integer to the number there; a missing one counts as 0.

        Args:
            path: A key of the value; ``""`` is the whole.
            by: How much.

        Returns:
            The operation.

        Raises:
            ConfigurationError: An argument of the wrong kind.

        Blocks: Never.
        Threads: Any.
        """
        return {"type": "increment", "path": text("path", path), "by": integer("by", by)}

    @staticmethod
    def decrement(path: str, by: int = 1) -> dict[str, Any]:
        """Subtract an integer from the number there; a missing one counts as 0.

        Args:
            path: A key of the value; ``""`` is the whole.
            by: How much.

        Returns:
            The operation.

        Raises:
            ConfigurationError: An argument of the wrong kind.

        Blocks: Never.
        Threads: Any.
        """
        return {"type": "decrement", "path": text("path", path), "by": integer("by", by)}

    @staticmethod
    def append(value: Any, path: Union[str, Iterable[str]] = "") -> dict[str, Any]:
        """Add ``value`` to the end of the list there, or text to text; where nothing is, it begins one.

        Args:
            value: Anything that JSON can hold.
            path: A key, or a list of keys, each below the one before; ``""`` is the whole.

        Returns:
            The operation.

        Raises:
            ConfigurationError: An argument of the wrong kind.

        Blocks: Never.
        Threads: Any.
        """
        return {"type": "append", "path": _path(path), "value": value}

    @staticmethod
    def remove(path: str) -> dict[str, Any]:
        """Remove the key; one that is missing is no error.

        Args:
            path: A key of the value; ``""`` is the whole.

        Returns:
            The operation.

        Raises:
            ConfigurationError: An argument of the wrong kind.

        Blocks: Never.
        Threads: Any.
        """
        return {"type": "remove", "path": text("path", path)}


# Classes below have a method named ``list``, which hides the type.
_Values = list[Any]
_Names = list[str]
_StreamSummaries = list[StreamSummary]


class Trigger(Protocol):
    """``Worker.trigger``, as far as it is used here."""

    def __call__(
        self,
        request: str,
        payload: Any = None,
        *,
        timeout: Optional[float] = DEFAULT_TIMEOUT,
        namespace: Optional[str] = None,
    ) -> Any: ...


class _Service:
    def __init__(self, trigger: Trigger) -> None:
        self._trigger = trigger

    def _call(self, called: str, timeout: Optional[float], **fields: Any) -> Any:
        """Call a function with those of the fields that are given."""
        payload = {key: value for key, value in fields.items() if value is not None}
        return self._trigger(called, payload, timeout=timeout, namespace="default")

    def _store(self, called: str, timeout: Optional[float], fields: dict[str, Any], **value: Any) -> Any:
        """Call a function with a value, which may be ``None``."""
        return self._trigger(called, {**fields, **value}, timeout=timeout, namespace="default")


class State(_Service):
    """Values under a scope and a key, shared by all workers; ``Worker.state``.

    There is no compare-and-set: :meth:`update` is what concurrent writers use. A stored ``None`` cannot be told from
    nothing stored.
    """

    def get(self, scope: str, key: str, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> Any:
        """Return the value, or ``None`` when there is none.

        Args:
            scope: The scope.
            key: The key.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        return self._call("state::get", timeout, **_state(scope, key))

    def set(self, scope: str, key: str, value: Any, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> Change:
        """Store a value.

        Args:
            scope: The scope.
            key: The key.
            value: Anything that JSON can hold.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Returns:
            The value, and the one that was there (else ``None``).

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        result: Change = self._store("state::set", timeout, _state(scope, key), value=value)
        return result

    def update(
        self,
        scope: str,
        key: str,
        ops: Iterable[Mapping[str, Any]],
        *,
        timeout: Optional[float] = DEFAULT_TIMEOUT,
    ) -> UpdateResult:
        """Change parts of a value in one step; no other write comes in between.

        An operation that does not fit (incrementing a text) is left out, the others are applied: look at ``errors`` of
        the result. A missing value starts as ``{}``.

        Args:
            scope: The scope.
            key: The key.
            ops: What :class:`UpdateOp` makes, applied in order.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Returns:
            The value before and after; operations that did not fit are in ``errors``.

        Raises:
            InvocationError: ``deserialization_error`` for something that is no operation; nothing was applied.
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        return _updated(self._store("state::update", timeout, _state(scope, key), ops=_ops(ops)))

    def delete(self, scope: str, key: str, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> Any:
        """Remove a value.

        Args:
            scope: The scope.
            key: The key.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Returns:
            The value; ``None`` when there was none.

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        return self._call("state::delete", timeout, **_state(scope, key))

    def list(self, scope: str, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> _Values:
        """Return the values of a scope, without their keys, in no order; ``[]`` for an unknown scope.

        Args:
            scope: The scope.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        return _list(self._call("state::list", timeout, scope=text("scope", scope)))

    def list_groups(self, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> _Names:
        """Return the names of the scopes, sorted.

        Args:
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        return _list(self._call("state::list_groups", timeout)["groups"])


class Streams(_Service):
    """Items in groups of named streams, whose changes followers see; ``Worker.streams``.

    As with state, a stored ``None`` cannot be told from nothing stored.
    """

    def get(self, stream: str, group: str, item: str, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> Any:
        """Return an item, or ``None`` when there is none.

        Args:
            stream: The stream's name.
            group: The group.
            item: The item's id.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        return self._call("stream::get", timeout, **_item(stream, group, item))

    def set(
        self, stream: str, group: str, item: str, data: Any, *, timeout: Optional[float] = DEFAULT_TIMEOUT
    ) -> Change:
        """Store an item and tell the followers.

        Args:
            stream: The stream's name.
            group: The group.
            item: The item's id.
            data: The item: anything that JSON can hold.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Returns:
            The item, and the one that was there (else ``None``).

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        result: Change = self._store("stream::set", timeout, _item(stream, group, item), data=data)
        return result

    def update(
        self,
        stream: str,
        group: str,
        item: str,
        ops: Iterable[Mapping[str, Any]],
        *,
        timeout: Optional[float] = DEFAULT_TIMEOUT,
    ) -> UpdateResult:
        """Change parts of an item, as :meth:`State.update` does.

        Args:
            stream: The stream's name.
            group: The group.
            item: The item's id.
            ops: What :class:`UpdateOp` makes, applied in order.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Returns:
            The item before and after; operations that did not fit are in ``errors``.

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        return _updated(self._store("stream::update", timeout, _item(stream, group, item), ops=_ops(ops)))

    def delete(self, stream: str, group: str, item: str, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> Any:
        """Remove an item.

        Args:
            stream: The stream's name.
            group: The group.
            item: The item's id.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Returns:
            The item; ``None`` when there was none.

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        result = self._call("stream::delete", timeout, **_item(stream, group, item))
        return result.get("old_value") if isinstance(result, dict) else None

    def list(self, stream: str, group: str, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> _Values:
        """Return the items of a group, without their ids, in no order; ``[]`` for an unknown one.

        Args:
            stream: The stream's name.
            group: The group.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        fields = {"stream_name": text("stream", stream), "group_id": text("group", group)}
        return _list(self._call("stream::list", timeout, **fields))

    def list_groups(self, stream: str, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> _Names:
        """Return the names of a stream's groups; ``[]`` for an unknown stream.

        Args:
            stream: The stream's name.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        return _list(self._call("stream::list_groups", timeout, stream_name=text("stream", stream)))

    def list_all(self, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> _StreamSummaries:
        """Return all streams and their groups.

        Args:
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        return _list(self._call("stream::list_all", timeout)["stream"])

    def send(
        self,
        stream: str,
        group: str,
        kind: str,
        data: Any,
        *,
        item: Optional[str] = None,
        timeout: Optional[float] = DEFAULT_TIMEOUT,
    ) -> None:
        """Send an event to the followers; nothing is stored, and nobody need be there.

        Args:
            stream: The stream.
            group: The group.
            kind: The event's ``type``.
            data: The event's data.
            item: The id of an item that it is about.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        fields = {"stream_name": text("stream", stream), "group_id": text("group", group)}
        fields["type"] = text("kind", kind)
        if item is not None:
            fields["id"] = text("item", item)
        self._store("stream::send", timeout, fields, data=data)


class Queues(_Service):
    """Durable topics; ``Worker.queues``.

    A message is kept until a function with the trigger type ``durable:subscriber`` has succeeded with it; after
    its last try it is dead, and waits for :meth:`redrive`. (A single call is put into a queue with
    ``Worker.trigger(…, action=TriggerAction.Enqueue(queue=…))``.)
    """

    def publish(self, topic: str, data: Any, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> None:
        """Put a message into a topic.

        Args:
            topic: The topic.
            data: Anything that JSON can hold.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            InvocationError: ``topic_not_set`` for an empty topic.
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        self._store("iii::durable::publish", timeout, {"topic": text("topic", topic)}, data=data)

    def topics(self, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> list[dict[str, Any]]:
        """Return the topics that have subscribers.

        Args:
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        return _list(self._call("engine::queue::list_topics", timeout))

    def stats(self, topic: str, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> dict[str, Any]:
        """Return how many messages a topic has: waiting, dead, and so on; zeros for an unknown one.

        Args:
            topic: The topic.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        stats: dict[str, Any] = self._call("engine::queue::topic_stats", timeout, topic=text("topic", topic))
        return stats

    def dead_topics(self, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> list[dict[str, Any]]:
        """Return the topics that have dead messages.

        Args:
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        return _list(self._call("engine::queue::dlq_topics", timeout))

    def dead_messages(
        self, topic: str, *, offset: int = 0, limit: int = 50, timeout: Optional[float] = DEFAULT_TIMEOUT
    ) -> list[dict[str, Any]]:
        """Return dead messages of a topic, at most ``limit`` from ``offset`` on.

        Args:
            topic: The topic.
            offset: How many to pass over.
            limit: How many at most.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        fields = {
            "topic": text("topic", topic),
            "offset": integer("offset", offset),
            "limit": integer("limit", limit),
        }
        return _list(self._call("engine::queue::dlq_messages", timeout, **fields))

    def redrive(self, topic: str, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> int:
        """Give all dead messages of a topic another chance.

        Args:
            topic: The topic.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Returns:
            Their number.

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        return int(self._call("iii::queue::redrive", timeout, queue=text("topic", topic))["redriven"])

    def redrive_message(self, topic: str, message_id: str, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> bool:
        """Give one dead message another chance.

        Args:
            topic: The topic.
            message_id: The message's id.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Returns:
            ``False`` when it is not there.

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        fields = {"queue": text("topic", topic), "message_id": text("message_id", message_id)}
        return bool(self._call("iii::queue::redrive_message", timeout, **fields)["redriven"])

    def discard_message(self, topic: str, message_id: str, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> bool:
        """Remove one dead message for good.

        Args:
            topic: The topic.
            message_id: The message's id.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Returns:
            ``False`` when it is not there.

        Raises:
            ConfigurationError: A name that is no text.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        fields = {"queue": text("topic", topic), "message_id": text("message_id", message_id)}
        return bool(self._call("iii::queue::discard_message", timeout, **fields)["redriven"])


class EngineInfo(_Service):
    """What an engine knows about functions, workers and triggers; ``Worker.engine``.

    Lists contain what every argument that is given matches. Details of what is not there raise ``InvocationError``
    with the code ``NOT_FOUND``. Where the engine restricts its workers, both show only what the worker may call.
    """

    def functions(
        self,
        *,
        search: Optional[str] = None,
        prefix: Optional[str] = None,
        worker: Optional[str] = None,
        include_internal: bool = False,
        timeout: Optional[float] = DEFAULT_TIMEOUT,
    ) -> list[FunctionSummary]:
        """Return functions of all namespaces, sorted by id.

        Args:
            search: Part of an id or description.
            prefix: Beginning of an id.
            worker: A worker's name.
            include_internal: Also the engine's own, and those whose metadata says ``internal``.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        fields = _filters(search=search, prefix=prefix, worker=worker)
        fields["include_internal"] = flag("include_internal", include_internal)
        return _list(self._call("engine::functions::list", timeout, **fields)["functions"])

    def function(
        self, function_id: str, *, namespace: Optional[str] = None, timeout: Optional[float] = DEFAULT_TIMEOUT
    ) -> FunctionDetail:
        """Return one function.

        Args:
            function_id: The function's id.
            namespace: Where it lives. Default: ``default``, else the only one of the id.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            ConfigurationError: A name that is no text.
            InvocationError: ``NOT_FOUND``: there is none.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        fields = {"function_id": text("function_id", function_id), "namespace": optional_text("namespace", namespace)}
        detail: FunctionDetail = self._call("engine::functions::info", timeout, **fields)
        return detail

    def workers(
        self,
        *,
        search: Optional[str] = None,
        runtime: Optional[str] = None,
        status: Optional[str] = None,
        timeout: Optional[float] = DEFAULT_TIMEOUT,
    ) -> list[WorkerSummary]:
        """Return the connected workers and the engine's own.

        Args:
            search: Part of a name or description.
            runtime: For instance ``python`` or ``engine``.
            status: ``connected`` for workers, ``available`` for the engine's own.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        fields = _filters(search=search, runtime=runtime, status=status)
        return _list(self._call("engine::workers::list", timeout, **fields)["workers"])

    def worker(
        self, name: str, *, namespace: Optional[str] = None, timeout: Optional[float] = DEFAULT_TIMEOUT
    ) -> WorkerDetail:
        """Return one worker by its name, with its functions, trigger types and triggers.

        Args:
            name: The worker's name.
            namespace: Where it lives. Default: the first of the name.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            ConfigurationError: A name that is no text.
            InvocationError: ``NOT_FOUND``: there is none.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        fields = {"name": text("name", name), "namespace": optional_text("namespace", namespace)}
        detail: WorkerDetail = self._call("engine::workers::info", timeout, **fields)
        return detail

    def triggers(
        self,
        *,
        search: Optional[str] = None,
        trigger_type: Optional[str] = None,
        function_id: Optional[str] = None,
        worker: Optional[str] = None,
        include_internal: bool = False,
        timeout: Optional[float] = DEFAULT_TIMEOUT,
    ) -> list[TriggerSummary]:
        """Return the registered triggers; those that wait for their type's provider are not among them.

        Args:
            search: Part of an id, a type or a function.
            trigger_type: A trigger type.
            function_id: The function that is called.
            worker: A worker's name.
            include_internal: Also the engine's own, and those whose metadata says ``internal``.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        fields = _filters(search=search, trigger_type=trigger_type, function_id=function_id, worker=worker)
        fields["include_internal"] = flag("include_internal", include_internal)
        return _list(self._call("engine::registered-triggers::list", timeout, **fields)["registered_triggers"])

    def trigger(self, trigger_id: str, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> TriggerDetail:
        """Return one registered trigger.

        Args:
            trigger_id: The trigger's id.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            ConfigurationError: A name that is no text.
            InvocationError: ``NOT_FOUND``: there is none.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        fields = {"id": text("trigger_id", trigger_id)}
        detail: TriggerDetail = self._call("engine::registered-triggers::info", timeout, **fields)
        return detail

    def trigger_types(
        self,
        *,
        search: Optional[str] = None,
        prefix: Optional[str] = None,
        worker: Optional[str] = None,
        include_internal: bool = False,
        timeout: Optional[float] = DEFAULT_TIMEOUT,
    ) -> list[TriggerTypeSummary]:
        """Return the trigger types that somebody provides.

        Args:
            search: Part of an id or description.
            prefix: Beginning of an id.
            worker: A worker's name.
            include_internal: Also the engine's own, and those whose metadata says ``internal``.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        fields = _filters(search=search, prefix=prefix, worker=worker)
        fields["include_internal"] = flag("include_internal", include_internal)
        return _list(self._call("engine::triggers::list", timeout, **fields)["triggers"])

    def trigger_type(
        self, type_id: str, *, namespace: Optional[str] = None, timeout: Optional[float] = DEFAULT_TIMEOUT
    ) -> TriggerTypeDetail:
        """Return one trigger type.

        Args:
            type_id: The type's id.
            namespace: Where it is provided. Default: ``default``, else the only one of the id.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            ConfigurationError: A name that is no text.
            InvocationError: ``NOT_FOUND``: there is none.
            IIISyncError: As :meth:`.Worker.trigger`.

        Blocks: For one call, at most ``timeout`` seconds.
        Threads: Any.
        """
        fields = {"id": text("type_id", type_id), "namespace": optional_text("namespace", namespace)}
        detail: TriggerTypeDetail = self._call("engine::triggers::info", timeout, **fields)
        return detail


def _path(path: Any) -> Union[str, list[str]]:
    if isinstance(path, str):
        return path
    if not isinstance(path, Iterable):
        raise ConfigurationError(f"path={path!r} must be a key, or a list of keys")
    return [text("path", key) for key in path]


def _ops(ops: Any) -> list[Any]:
    if isinstance(ops, Mapping):
        raise ConfigurationError(f"ops={ops!r} is a single operation; give a list of them")
    if not isinstance(ops, Iterable):
        raise ConfigurationError(f"ops={ops!r} must be a list of what UpdateOp makes")
    found = list(ops)
    for index, one in enumerate(found):
        if not isinstance(one, Mapping):
            raise ConfigurationError(f"ops[{index}]={one!r} is no operation; UpdateOp makes them")
    return found


def _filters(**given: Any) -> dict[str, Any]:
    return {name: optional_text(name, value) for name, value in given.items()}


def _state(scope: Any, key: Any) -> dict[str, Any]:
    return {"scope": text("scope", scope), "key": text("key", key)}


def _item(stream: Any, group: Any, item: Any) -> dict[str, Any]:
    return {"stream_name": text("stream", stream), "group_id": text("group", group), "item_id": text("item", item)}


def _updated(result: Any) -> UpdateResult:
    result.setdefault("errors", [])
    updated: UpdateResult = result
    return updated


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
