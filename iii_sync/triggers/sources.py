"""The trigger types that come with an engine: what each takes (PROTOCOL 7.2, 9).

Each function returns a :class:`TriggerSource`, to be given to ``Worker.register_trigger`` or to the ``trigger`` of
``Worker.function``. They refuse what cannot work; what only an engine can judge, it says at the registration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Optional, Union
from urllib.parse import quote

from ..errors import ConfigurationError

__all__ = [
    "DEFAULT_NAMESPACE",
    "ENGINE_TYPES",
    "TriggerSource",
    "check_config",
    "cron",
    "http",
    "log",
    "queue",
    "state",
    "stream",
    "subscribe",
    "trigger_sources",
]

#: Where everything lives whose worker says nothing of a namespace.
DEFAULT_NAMESPACE = "default"

#: The types that the engine itself serves, in ``default``.
ENGINE_TYPES = frozenset(
    {
        "configuration",
        "cron",
        "durable:subscriber",
        "http",
        "log",
        "state",
        "stream",
        "stream:join",
        "stream:leave",
        "subscribe",
        "trace",
    }
)

_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
_LEVELS = ("all", "trace", "debug", "info", "warn", "error")

#: What a ``queue_config`` may hold, and the least of its numbers. The engine reads these and passes over the rest.
_QUEUE_TEXTS = ("type", "backoffType")
_QUEUE_NUMBERS = {
    "maxRetries": 0,
    "concurrency": 1,
    "visibilityTimeout": 0,
    "delaySeconds": 0,
    "backoffDelayMs": 0,
    "maxPriority": 1,
}
_QUEUE_TYPES = ("standard", "fifo")


class TriggerSource:
    """A trigger type with its config: what a function is to be called for.

    Attributes:
        type: The trigger type.
        config: What the type is given.
    """

    __slots__ = ("config", "type")

    def __init__(self, type: str, config: Any = None) -> None:
        self.type: str = type
        self.config: Any = {} if config is None else config

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TriggerSource):
            return NotImplemented
        return (self.type, self.config) == (other.type, other.config)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # a config may change

    def __repr__(self) -> str:
        return f"TriggerSource({self.type!r}, {self.config!r})"


def cron(expression: str, *, condition_function_id: Optional[str] = None) -> TriggerSource:
    """Call the function at points in time, in UTC.

    Its payload: ``{"trigger": "cron", "job_id", "scheduled_time", "actual_time"}``. The next point in time is looked
    for when the function has ended, so those during a long run are skipped.

    Args:
        expression: Second, minute, hour, day of month, month, day of week (1 is Sunday), and perhaps a year:
            ``"0 30 3 * * *"`` is half past three every night.
        condition_function_id: A function that is asked first; only a returned ``False``, or an error, skips the call.

    Returns:
        What ``Worker.register_trigger`` and ``Worker.function`` take.

    Raises:
        ConfigurationError: An argument that cannot work.

    Blocks: Never.
    Threads: Any.
    """
    fields = _text(expression, "expression", "six fields such as '0 30 3 * * *'").split()
    if len(fields) not in (6, 7):
        cure = f"; put the second first: '0 {expression.strip()}'" if len(fields) == 5 else ""
        raise ConfigurationError(
            f"expression={expression!r} has {len(fields)} fields instead of six (second minute hour day month weekday) "
            f"or seven (with a year){cure}"
        )
    return _source("cron", {"expression": expression}, condition_function_id=condition_function_id)


def subscribe(topic: str) -> TriggerSource:
    """Call the function with what is published to a topic, on every worker that subscribes.

    Nothing is kept for those who are not there. Metadata of the trigger is not delivered, and conditions are never
    asked (PROTOCOL 9), so there is none to be given.

    Args:
        topic: The topic.

    Returns:
        What ``Worker.register_trigger`` and ``Worker.function`` take.

    Raises:
        ConfigurationError: An argument that cannot work.

    Blocks: Never.
    Threads: Any.
    """
    return _source("subscribe", {"topic": _text(topic, "topic", "the name of a topic")})


def state(
    *, scope: Optional[str] = None, key: Optional[str] = None, condition_function_id: Optional[str] = None
) -> TriggerSource:
    """Call the function when a value of the engine's state changes.

    Its payload: ``{"type": "state", "event_type", "scope", "key", "old_value", "new_value"}``, the event type being
    ``state:created``, ``state:updated`` or ``state:deleted``.

    Args:
        scope: Of this scope only.
        key: Of this key only.
        condition_function_id: See :func:`cron`.

    Returns:
        What ``Worker.register_trigger`` and ``Worker.function`` take.

    Raises:
        ConfigurationError: An argument that cannot work.

    Blocks: Never.
    Threads: Any.
    """
    return _source("state", {}, scope=scope, key=key, condition_function_id=condition_function_id)


def stream(
    stream_name: str,
    *,
    group_id: Optional[str] = None,
    item_id: Optional[str] = None,
    condition_function_id: Optional[str] = None,
) -> TriggerSource:
    """Call the function when an item of a stream changes, or something is sent to it.

    Its payload: ``{"type": "stream", "timestamp", "streamName", "groupId", "id", "event"}``, the event being
    ``{"type": "create" | "update" | "delete", "data"}`` or ``{"type": "event", "event": {"type", "data"}}``.

    Args:
        stream_name: The stream.
        group_id: Of this group only.
        item_id: Of this item only.
        condition_function_id: See :func:`cron`.

    Returns:
        What ``Worker.register_trigger`` and ``Worker.function`` take.

    Raises:
        ConfigurationError: An argument that cannot work.

    Blocks: Never.
    Threads: Any.
    """
    config = {"stream_name": _text(stream_name, "stream_name", "the name of a stream")}
    return _source("stream", config, group_id=group_id, item_id=item_id, condition_function_id=condition_function_id)


def log(level: str = "all") -> TriggerSource:
    """Call the function with what is logged through the engine; it is looked for in ``default`` only.

    A worker with a namespace must say ``namespace="default"``, and another worker have the function. The
    payload is an OpenTelemetry log record: ``severity_text``, ``body``, ``attributes``, ``service_name``, …

    Args:
        level: ``all``, or one of ``trace``, ``debug``, ``info``, ``warn``, ``error``: that level alone.

    Returns:
        What ``Worker.register_trigger`` and ``Worker.function`` take.

    Raises:
        ConfigurationError: An argument that cannot work.

    Blocks: Never.
    Threads: Any.
    """
    check_config("log", {"level": level})
    return _source("log", {"level": level})


def queue(
    topic: str,
    *,
    queue_config: Optional[Mapping[str, Any]] = None,
    condition_function_id: Optional[str] = None,
) -> TriggerSource:
    """Call the function with each message of a durable topic, again and again until it succeeds.

    The trigger type is ``durable:subscriber``; messages come from ``Worker.queues.publish``. Metadata of the trigger is
    not delivered.

    Args:
        topic: The topic.
        queue_config: The engine's options: ``type`` (``standard`` or ``fifo``), ``maxRetries``, ``concurrency``,
            ``visibilityTimeout``, ``delaySeconds``, ``backoffType``, ``backoffDelayMs``, ``maxPriority``.
        condition_function_id: See :func:`cron`; an error counts as a try that failed.

    Returns:
        What ``Worker.register_trigger`` and ``Worker.function`` take.

    Raises:
        ConfigurationError: An argument that cannot work.

    Blocks: Never.
    Threads: Any.
    """
    config: dict[str, Any] = {"topic": _text(topic, "topic", "the name of a topic")}
    if queue_config is not None:
        _check_queue(queue_config)
        config["queue_config"] = dict(queue_config)
    return _source("durable:subscriber", config, condition_function_id=condition_function_id)


def http(
    path: str,
    method: str = "GET",
    *,
    condition_function_id: Optional[str] = None,
    middleware_function_ids: Iterable[str] = (),
) -> TriggerSource:
    """Call the function for HTTP requests.

    Args:
        path: ``/orders/:id``; a parameter is a whole segment.
        method: ``GET``, ``POST``, ``PUT``, ``DELETE``, ``PATCH``, ``HEAD`` or ``OPTIONS``.
        condition_function_id: See :func:`cron`; an error answers the request with 500.
        middleware_function_ids: Functions that are called before, in this order.

    Returns:
        What ``Worker.register_trigger`` and ``Worker.function`` take.

    Raises:
        ConfigurationError: An argument that cannot work.

    Blocks: Never.
    Threads: Any.
    """
    if isinstance(middleware_function_ids, str):
        raise ConfigurationError(f"middleware_function_ids={middleware_function_ids!r} must be a list of function ids")
    middleware = [_text(one, "middleware_function_ids", "function ids") for one in middleware_function_ids]
    config: dict[str, Any] = {"api_path": path, "http_method": method.upper() if isinstance(method, str) else method}
    if middleware:
        config["middleware_function_ids"] = middleware
    check_config("http", config)
    return _source("http", config, condition_function_id=condition_function_id)


def trigger_sources(given: Union[None, TriggerSource, Iterable[TriggerSource]]) -> list[TriggerSource]:
    """Return the sources that the ``trigger`` of a function names.

    Raises:
        ConfigurationError: Something in it is none.
    """
    if given is None:
        return []
    if isinstance(given, TriggerSource):
        return [given]
    sources: list[Any] = list(given) if isinstance(given, Iterable) else [given]
    for source in sources:
        if not isinstance(source, TriggerSource):
            raise ConfigurationError(
                f"trigger={given!r}: {source!r} is none; give cron(...) or another of iii_sync.triggers, or a "
                "TriggerSource(type, config)"
            )
    return sources


def check_config(trigger_type: str, config: Any, namespace: Optional[str] = None) -> None:
    """Refuse what engines take without a word, to break on it (E-39), pass over it, or never to fire.

    Args:
        trigger_type: One of the engine's; others are not looked at.
        config: What it is given, whoever made that.
        namespace: Of the function that is to be called; ``None`` for ``default``.

    Raises:
        ConfigurationError: A trigger without its ``stream_name``, ``topic`` or path; a level, a method, a queue or a
            condition that there cannot be; a function that a log trigger does not find.
    """
    settings: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
    if trigger_type == "stream":
        _text(settings.get("stream_name"), "stream_name", "the name of a stream")
    elif trigger_type in ("subscribe", "durable:subscriber"):
        _text(settings.get("topic"), "topic", "the name of a topic")
        if trigger_type == "durable:subscriber":
            if settings.get("queue_config") is not None:
                _check_queue(settings["queue_config"])
        elif settings.get("condition_function_id") is not None:
            raise ConfigurationError(
                f"condition_function_id={settings['condition_function_id']!r}: a 'subscribe' trigger's condition is "
                "never asked by the engine (PROTOCOL 9); leave it out, and look at the message in the function itself"
            )
    elif trigger_type == "log":
        if namespace not in (None, DEFAULT_NAMESPACE):
            raise ConfigurationError(
                f"namespace={namespace!r}: the engine looks for the function of a 'log' trigger in 'default' only "
                "(E-40); have a worker without a namespace offer it, and say namespace='default' here"
            )
        level = settings.get("level", "all")
        if level not in _LEVELS:
            raise ConfigurationError(f"level={level!r} must be one of {', '.join(_LEVELS)}")
    elif trigger_type == "http":
        path, method = settings.get("api_path"), settings.get("http_method", "GET")
        _check_path(_text(path, "api_path", "a path such as '/orders/:id'"))
        if not isinstance(method, str) or method.upper() not in _METHODS:
            raise ConfigurationError(f"http_method={method!r} must be one of {', '.join(_METHODS)}")
    elif trigger_type not in ("cron", "state"):
        return
    if settings.get("condition_function_id") is not None:
        _text(settings["condition_function_id"], "condition_function_id", "the id of a function")


def _check_queue(config: Any) -> None:
    if not isinstance(config, Mapping):
        raise ConfigurationError(f"queue_config={config!r} must be a dict, such as {{'maxRetries': 3}}")
    for key, value in config.items():
        where = f"queue_config[{key!r}]={value!r}"
        if key not in _QUEUE_NUMBERS and key not in _QUEUE_TEXTS:
            known = ", ".join([*_QUEUE_TEXTS, *_QUEUE_NUMBERS])
            raise ConfigurationError(f"{where}: there is no such option, the engine would pass over it; use {known}")
        if value is None:
            continue
        if key in _QUEUE_TEXTS:
            _text(value, f"queue_config[{key!r}]", "text, such as 'fifo' or 'exponential'")
        elif not isinstance(value, int) or isinstance(value, bool) or value < _QUEUE_NUMBERS[key]:
            raise ConfigurationError(f"{where} must be an integer, {_QUEUE_NUMBERS[key]} or more")
        if key == "type" and value not in _QUEUE_TYPES:
            raise ConfigurationError(f"{where} must be one of {', '.join(_QUEUE_TYPES)}")


def _check_path(path: str) -> None:
    segments = path[path[:1] == "/" :].split("/")
    names = [segment for segment in segments if segment[:1] == ":"]
    for segment in segments:
        bad = set(segment) & set("{}*?#") or any(c.isspace() for c in segment) or segment == ":"
        if bad or ":" in segment[1:]:
            raise ConfigurationError(
                f"api_path={path!r}: {segment!r} cannot be a segment; a parameter is a whole one, as in '/orders/:id', "
                "and a query is no part of the path"
            )
    if len(set(names)) != len(names):
        raise ConfigurationError(f"api_path={path!r} has two parameters of one name; name them differently")
    if not path.isascii():
        # A path is matched as it stands in the request line.
        safe = "/:@!$&'()*+,;=-._~%"
        cure = quote(path, safe=safe, errors="replace")
        raise ConfigurationError(f"api_path={path!r} would never match; write {cure!r}")


def _source(trigger_type: str, config: dict[str, Any], **optional: Optional[str]) -> TriggerSource:
    for key, value in optional.items():
        if value is not None:
            config[key] = _text(value, key, "text that is not blank, or leave it out")
    return TriggerSource(trigger_type, config)


def _text(value: Any, what: str, cure: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{what}={value!r}: give {cure}")
    return value
