"""The trigger types this worker provides: handlers that are told of the triggers others register.

There is no message that fires a trigger: whoever provides the type calls the function (PROTOCOL 4). A provider hears of
each trigger when it comes and when it goes, in this order and one at a time for each type, on handler threads. Without
a connection there are no triggers: at its end all of them go, and those that still exist come again on the next one.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, Callable, Generic, Optional, Protocol, TypeVar

from ..annotations.formats import json_schema
from ..errors import ConfigurationError
from ..functions import FunctionRef, error_body
from ..handlers import refuse_async
from ..pool import HandlerPool
from ..session import Link, Session
from ..wire import messages
from .confirming import Confirming
from .registered import Trigger, named
from .sources import DEFAULT_NAMESPACE, ENGINE_TYPES

__all__ = ["Providers", "TriggerConfig", "TriggerHandler", "TriggerType", "type_registration"]

_log = logging.getLogger("iii_sync.worker")

_KEYS = {"id", "description", "trigger_request_format", "call_request_format", "namespace"}

ConfigT = TypeVar("ConfigT")


@dataclasses.dataclass(frozen=True)
class TriggerConfig(Generic[ConfigT]):
    """A trigger of a type this worker provides. To fire it::

        worker.trigger(trigger.function_id, payload, namespace=trigger.namespace, metadata=trigger.metadata)

    Attributes:
        id: The trigger's id.
        function_id: The function to call.
        config: What the trigger was registered with: JSON from another worker, to be checked.
        metadata: To be delivered with every call, or ``None``.
        namespace: Where the function lives.
    """

    id: str
    function_id: str
    config: ConfigT
    metadata: Any = None
    namespace: str = DEFAULT_NAMESPACE


class TriggerHandler(Protocol[ConfigT]):
    """What a provider does about the triggers of its type. Any object with these two methods will do."""

    def register_trigger(self, config: TriggerConfig[ConfigT], /) -> object:
        """A trigger has come.

        Args:
            config: The trigger.

        Returns:
            Anything; it is passed over.

        Raises:
            Exception: Refuses it, and is told to whoever registered it.

        Blocks: As long as it likes; other triggers of the type wait.
        Threads: Called on handler threads, one call at a time.
        """

    def unregister_trigger(self, config: TriggerConfig[ConfigT], /) -> object:
        """It has gone: taken back or replaced, or the connection or this worker has ended. Not called if refused.

        Args:
            config: The trigger.

        Returns:
            Anything; it is passed over.

        Raises:
            Exception: Is logged.

        Blocks: As long as it likes; other triggers of the type wait.
        Threads: Called on handler threads, one call at a time.
        """


TriggerCallbacks = tuple[Callable[[TriggerConfig[ConfigT]], object], Callable[[TriggerConfig[ConfigT]], object]]


class TriggerType(Generic[ConfigT]):
    """A provided trigger type, as ``Worker.register_trigger_type`` returns it.

    Attributes:
        id: The type's id.
        namespace: Where it is provided.
    """

    def __init__(
        self,
        registration: messages.Message,
        unregister: Callable[[], None],
        register_trigger: Callable[..., Trigger],
        register_function: Callable[..., FunctionRef],
    ) -> None:
        self.id: str = registration["id"]
        self.namespace: str = registration["namespace"]
        self._call_request_format = registration.get("call_request_format")
        self._unregister: Optional[Callable[[], None]] = unregister
        self._register_trigger = register_trigger
        self._register_function = register_function

    def register_trigger(self, function_id: str, config: Optional[ConfigT] = None, **details: Any) -> Trigger:
        """Have a function called by this type.

        Args:
            function_id: The function.
            config: What the type takes.
            **details: The other arguments of :meth:`.Worker.register_trigger`.

        Returns:
            The trigger.

        Raises:
            IIISyncError: As :meth:`.Worker.register_trigger`.

        Blocks: Like :meth:`.Worker.register_trigger`.
        Threads: Any.
        """
        return self._register_trigger(self.id, function_id, config, **{"trigger_namespace": self.namespace, **details})

    def register_function(self, function_id: str, handler: Callable[..., Any], **details: Any) -> FunctionRef:
        """Offer a function for this type, listed with the type's ``call_request_format``.

        Args:
            function_id: The function's id.
            handler: What carries it out.
            **details: The other arguments of :meth:`.Worker.register_function`.

        Returns:
            The function.

        Raises:
            IIISyncError: As :meth:`.Worker.register_function`.

        Blocks: Like :meth:`.Worker.register_function`.
        Threads: Any.
        """
        return self._register_function(function_id, handler, **{"request_format": self._call_request_format, **details})

    def unregister(self) -> None:
        """Stop providing the type: its triggers go, later ones are refused. Does nothing the second time.

        Engines before 0.25 go on listing the type until the worker leaves (E-29).

        Blocks: Until the engine has been told, at most ``connect_timeout``.
        Threads: Any.
        """
        unregister, self._unregister = self._unregister, None
        if unregister is not None:
            unregister()

    def __repr__(self) -> str:
        return f"<iii_sync.TriggerType {self.id}>"


class Provider:
    """One type and its handler. What it is told is queued, and done by one handler thread at a time.

    Args:
        registration: The message that offers the type.
        handler: See ``Worker.register_trigger_type``.
        pool: The threads the handler runs on.

    Raises:
        ConfigurationError: ``handler`` is not what it should be.
    """

    def __init__(self, registration: messages.Message, handler: Any, pool: HandlerPool) -> None:
        self.registration = registration
        self._register, self._unregister = _callbacks(registration["id"], handler)
        self._pool = pool
        self._lock = threading.RLock()  # guards _tasks and _running
        self._tasks: deque[Callable[[], None]] = deque()
        self._running = False
        # Used by tasks only, of which there is one at a time.
        self._active: dict[str, tuple[TriggerConfig[Any], Link]] = {}

    def bind(self, link: Link, message: messages.Message, answer: Callable[[messages.Message], None]) -> None:
        """A trigger has come in on ``link``. Any thread; does not block."""

        def task() -> None:
            self._release(message["id"])  # the same id again replaces the trigger
            namespace = message.get("namespace")
            config = TriggerConfig(
                message["id"],
                message["function_id"],
                message.get("config"),
                message.get("metadata"),
                namespace if isinstance(namespace, str) else DEFAULT_NAMESPACE,
            )
            error: Optional[messages.Message] = None
            try:
                self._register(config)
            except BaseException as exc:
                _log.warning("trigger %s of type %s was refused", config.id, self.registration["id"], exc_info=True)
                error = error_body(exc, "trigger_registration_failed")
            else:
                self._active[config.id] = (config, link)
            answer(messages.trigger_result(message, error))

        self._later(task)

    def release(self, trigger_id: str) -> None:
        """A trigger has gone. Any thread; does not block."""
        self._later(lambda: self._release(trigger_id))

    def release_all(self, link: Optional[Link] = None) -> None:
        """All triggers have gone, or those that came in on ``link``. Any thread; does not block."""

        def task() -> None:
            for trigger_id, (_, came_on) in list(self._active.items()):
                if link is None or came_on is link:
                    self._release(trigger_id)

        self._later(task)

    def _release(self, trigger_id: str) -> None:
        if trigger_id not in self._active:
            return
        config, _ = self._active.pop(trigger_id)
        try:
            self._unregister(config)
        except BaseException:
            _log.exception("unregister_trigger of type %s failed for %s", self.registration["id"], trigger_id)

    def _later(self, task: Callable[[], None]) -> None:
        with self._lock:
            self._tasks.append(task)
            if self._running:
                return
            self._running = True
        self._pool.run_soon(self._run)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._tasks:
                    self._running = False
                    return
                task = self._tasks.popleft()
            try:
                task()
            except BaseException:  # the tasks behind it are about other triggers
                _log.exception("a trigger of type %s was lost", self.registration["id"])


class Providers:
    """The trigger types of one worker.

    Args:
        session: The worker's.
        confirming: Finds out whether a type was taken.
    """

    def __init__(self, session: Session, confirming: Confirming) -> None:
        self._session = session
        self._confirming = confirming
        self._lock = threading.RLock()  # guards the table
        self._table: dict[tuple[str, str], Provider] = {}

    def add(self, provider: Provider) -> None:
        """Offer a type; returns when the engine has it.

        Raises:
            ConfigurationError: It is provided by this worker already.
            PermissionDeniedError: This worker may not provide it.
        """
        key = _key(provider)
        with self._lock:
            if key in self._table:
                raise ConfigurationError(
                    f"trigger type {key[1]!r} is provided by this worker already; unregister it first"
                )
            self._table[key] = provider
        try:
            self._session.register(provider.registration)
            self._confirming.trigger_type(provider.registration)
        except BaseException:
            if self.remove(provider):
                self._session.unregister(provider.registration)
            raise

    def remove(self, provider: Provider) -> bool:
        """Take a type out; its triggers go. ``False`` when it is not there."""
        key = _key(provider)
        with self._lock:
            if self._table.get(key) is not provider:
                return False
            del self._table[key]
        provider.release_all()
        return True

    def close(self) -> None:
        """The worker ends: all triggers go, and no more come. Does not block."""
        with self._lock:
            providers = list(self._table.values())
            self._table.clear()
        for provider in providers:
            provider.release_all()

    def registrations(self) -> list[messages.Message]:
        """The messages that register everything. Any thread."""
        with self._lock:
            providers = list(self._table.values())
        return [provider.registration for provider in providers]

    def received(self, link: Link, message: messages.Message) -> None:
        """A ``registertrigger`` or ``unregistertrigger`` has come in. On the reader thread."""
        trigger_id, trigger_type = message.get("id"), message.get("trigger_type")
        if not isinstance(trigger_id, str) or not isinstance(trigger_type, str):
            return
        if message["type"] == "unregistertrigger":
            # It does not say the namespace; no trigger has the id of another.
            with self._lock:
                providers = list(self._table.items())
            for key, provider in providers:
                if key[1] == trigger_type:
                    provider.release(trigger_id)
        elif isinstance(message.get("function_id"), str):
            with self._lock:
                found = self._table.get((message.get("trigger_namespace") or DEFAULT_NAMESPACE, trigger_type))
            if found is not None:
                found.bind(link, message, lambda result: self._session.answer(link, result))
            else:
                text = f"this worker does not provide the trigger type {trigger_type} any more"
                error = {"code": "trigger_type_not_found", "message": text}
                link.send_soon(messages.trigger_result(message, error))

    def link_ended(self, link: Link) -> None:
        """The triggers of a connection go with it. On the reader thread."""
        with self._lock:
            providers = list(self._table.values())
        for provider in providers:
            provider.release_all(link)


def _key(provider: Provider) -> tuple[str, str]:
    return provider.registration["namespace"], provider.registration["id"]


def type_registration(
    type_id: Any,
    description: Any,
    trigger_request_format: Any,
    call_request_format: Any,
    namespace: Optional[str],
    own_namespace: Optional[str],
) -> messages.Message:
    """Check what ``Worker.register_trigger_type`` was given and return the message that says it.

    Raises:
        ConfigurationError: A blank name, an id of the engine's own, no description, or what is no format.
        InvalidPayloadError: A format that cannot travel.
    """
    if isinstance(type_id, Mapping):
        given = type_id
        if unknown := set(given) - _KEYS:
            raise ConfigurationError(
                f"the trigger type has unknown keys {sorted(map(str, unknown))}; it takes {', '.join(sorted(_KEYS))}"
            )
        type_id, description = given.get("id"), given.get("description", description)
        trigger_request_format = given.get("trigger_request_format", trigger_request_format)
        call_request_format = given.get("call_request_format", call_request_format)
        namespace = given.get("namespace", namespace)
    type_id = named(type_id, "trigger type", "a name such as 'webhook'")
    if not isinstance(description, str):
        raise ConfigurationError(f"description={description!r}: give one line for people who list trigger types")
    if namespace is not None:
        named(namespace, "namespace", "a name, or leave it out")
    namespace = namespace or own_namespace or DEFAULT_NAMESPACE
    # A worker that provides a type of the engine takes it over, and when that worker leaves nobody serves it until the
    # engine restarts, as with functions (E-16).
    if type_id.startswith("engine::") or (type_id in ENGINE_TYPES and namespace == DEFAULT_NAMESPACE):
        raise ConfigurationError(
            f"trigger type {type_id!r} is served by the engine itself and cannot be provided in {namespace!r}: it "
            "would be gone for everybody once this worker leaves; choose another id, or another namespace"
        )
    return messages.register_trigger_type(
        type_id,
        messages.check(description, "description"),
        trigger_request_format=json_schema("trigger_request_format", trigger_request_format),
        call_request_format=json_schema("call_request_format", call_request_format),
        namespace=namespace,
    )


def _callbacks(type_id: str, handler: Any) -> TriggerCallbacks[Any]:
    names = ("register_trigger", "unregister_trigger")
    if isinstance(handler, tuple) and len(handler) == 2:
        found: Any = handler
    else:
        found = tuple(getattr(handler, name, None) for name in names)
    for name, function in zip(names, found):
        if not callable(function) or isinstance(handler, type):
            raise ConfigurationError(
                f"the handler of trigger type {type_id!r} has no {name}(config): give an object with the methods "
                f"register_trigger and unregister_trigger, or a tuple of two functions; not {handler!r}"
            )
        refuse_async(f"{name} of trigger type {type_id!r}", function)
        try:
            inspect.signature(function).bind(None)
        except TypeError:
            raise ConfigurationError(
                f"{name} of trigger type {type_id!r} must take one argument, the TriggerConfig; "
                f"it is {name}{inspect.signature(function)}"
            ) from None
        except ValueError:
            pass  # no signature to be had, of a builtin for instance
    return found  # type: ignore[no-any-return]
