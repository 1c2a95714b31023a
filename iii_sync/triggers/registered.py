"""The triggers this worker has registered: which function is called when what happens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, Callable, Optional, Union

from ..errors import ConfigurationError, InvalidPayloadError, TriggerRegistrationError, brief, fresh
from ..session import Session
from ..wire import messages
from .confirming import Confirming
from .routes import route
from .sources import DEFAULT_NAMESPACE, TriggerSource, check_config

__all__ = ["Trigger", "Triggers", "trigger_registration"]

_log = logging.getLogger("iii_sync.worker")

_KEYS = {"type", "function_id", "config", "metadata", "namespace", "trigger_namespace", "id"}


class Trigger:
    """A registered trigger, as ``Worker.register_trigger`` returns it.

    Attributes:
        id: The trigger's id.
        type: Its trigger type.
        function_id: The function that is called.
        config: What its type was given.
        error: The last refusal that came after the registration had returned: the provider of a custom type may
            take its time, and is asked again after each reconnect. ``None`` if there was none.
    """

    def __init__(
        self,
        registration: messages.Message,
        unregister: Callable[[Trigger], None],
        look_up: Callable[[messages.Message], bool],
    ) -> None:
        self.id: str = registration["id"]
        self.type: str = registration["trigger_type"]
        self.function_id: str = registration["function_id"]
        self.config: Any = registration["config"]
        self.error: Optional[TriggerRegistrationError] = None
        self._registration = registration
        self._registered = False  # whether register_trigger has returned; under the table's lock
        self._unregister = unregister
        self._look_up = look_up

    def is_active(self) -> bool:
        """Ask the engine whether the trigger is bound to a provider now.

        It is not while nobody provides its type, after its provider refused it, and after the engine ignored it on a
        later connection because this worker may not register it any more.

        Returns:
            ``True`` if it is.

        Raises:
            InvocationError: This worker may not ask (``PermissionDeniedError``), or no answer came in time
                (``CallTimeout``).
            ConnectionLostError: There is no connection, or it broke.

        Blocks: For one call, at most ``connect_timeout``, or for three where the first is forbidden.
        Threads: Any.
        """
        return self._look_up(self._registration)

    def unregister(self) -> None:
        """Take the trigger back. Does nothing the second time.

        Blocks: Until the engine has been told, at most ``connect_timeout``.
        Threads: Any.
        """
        self._unregister(self)

    def __repr__(self) -> str:
        return f"<iii_sync.Trigger {self.type} of {self.function_id}>"


class Triggers:
    """The registered triggers of one worker.

    Args:
        session: The worker's.
        confirming: Finds out what became of a trigger.
    """

    def __init__(self, session: Session, confirming: Confirming) -> None:
        self._session = session
        self._confirming = confirming
        self._lock = threading.RLock()  # guards the table, and what becomes of refusals
        self._table: dict[str, Trigger] = {}

    def add(self, trigger: Trigger) -> None:
        """Register a trigger; returns when the engine has had its say.

        Raises:
            ConfigurationError: Its id, or its HTTP route, is registered by this worker already.
            TriggerRegistrationError: It was refused.
            PermissionDeniedError: This worker may not register it.
        """
        with self._lock:
            self._check_new(trigger)
            self._table[trigger.id] = trigger
        try:
            self._session.register(trigger._registration)
            with self._lock:
                trigger._registered = True
                error = trigger.error
            if error is not None:
                raise fresh(error)
            self._confirming.trigger(trigger._registration, lambda: trigger.error is not None)
        except BaseException:
            if self.remove(trigger):
                self._session.unregister(trigger._registration)
            raise

    def _check_new(self, trigger: Trigger) -> None:
        if trigger.id in self._table:
            raise ConfigurationError(
                f"trigger id {trigger.id!r} is registered by this worker already; unregister it first, or leave the "
                "id out"
            )
        where = route(trigger.type, trigger.config)
        for other in self._table.values() if where is not None else ():
            if route(other.type, other.config) == where:
                raise ConfigurationError(
                    f"the route {where} is registered by this worker already, for {other.function_id!r}: the engine "
                    "would silently replace it; unregister that trigger first"
                )

    def remove(self, trigger: Trigger) -> bool:
        """Take a trigger out; ``False`` when it is not there, or another one under its id."""
        with self._lock:
            if self._table.get(trigger.id) is not trigger:
                return False
            del self._table[trigger.id]
            return True

    def registrations(self) -> list[messages.Message]:
        """The messages that register everything. Any thread."""
        with self._lock:
            triggers = list(self._table.values())
        return [trigger._registration for trigger in triggers]

    def refused(self, message: messages.Message) -> None:
        """A ``triggerregistrationresult`` has come in. On the reader thread."""
        trigger_id, error = message.get("id"), message.get("error")
        if not isinstance(trigger_id, str) or error is None:
            return
        with self._lock:
            trigger = self._table.get(trigger_id)
            if trigger is None:
                return
            trigger.error = refusal = _refusal(trigger, error)
            late = trigger._registered
        if late:
            _log.error("%s", refusal)


def _refusal(trigger: Trigger, error: Any) -> TriggerRegistrationError:
    code, text = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, error)
    code = code if isinstance(code, str) else "UNKNOWN"
    return TriggerRegistrationError(
        f"the {trigger.type!r} trigger of {trigger.function_id!r} was refused: {brief(text, 1000)} [{brief(code)}]",
        code,
        trigger.id,
        trigger.type,
        trigger.function_id,
    )


def trigger_registration(
    source: Union[str, Mapping[str, Any], TriggerSource],
    function_id: Optional[str],
    config: Any,
    metadata: Any,
    namespace: Optional[str],
    trigger_namespace: Optional[str],
    trigger_id: Optional[str],
    own_namespace: Optional[str],
) -> messages.Message:
    """Check what ``Worker.register_trigger`` was given and return the message that says it.

    Raises:
        ConfigurationError: Something is missing, blank, or not what its type takes.
        InvalidPayloadError: ``config`` or ``metadata`` cannot travel.
    """
    trigger_type: Any = source
    if isinstance(source, TriggerSource):
        if config is not None:
            raise ConfigurationError(f"config={config!r}: {source!r} has its config already; leave one of them out")
        trigger_type, config = source.type, source.config
    elif isinstance(source, Mapping):
        if unknown := set(source) - _KEYS:
            raise ConfigurationError(
                f"the trigger has unknown keys {sorted(map(str, unknown))}; it takes {', '.join(sorted(_KEYS))}"
            )
        trigger_type, function_id = source.get("type"), source.get("function_id", function_id)
        config, metadata = source.get("config", config), source.get("metadata", metadata)
        namespace = source.get("namespace", namespace)
        trigger_namespace = source.get("trigger_namespace", trigger_namespace)
        trigger_id = source.get("id", trigger_id)
    trigger_type = named(trigger_type, "trigger type", "the name of one, such as 'cron', or cron(...)")
    function_id = named(function_id, "function_id", "the id of the function to call")
    for value, what in ((namespace, "namespace"), (trigger_namespace, "trigger_namespace"), (trigger_id, "trigger_id")):
        if value is not None:
            named(value, what, "a name, or leave it out")
    config = messages.check({} if config is None else config, "config")
    metadata = messages.check(metadata, "metadata")
    namespace = own_namespace if namespace is None else namespace
    if trigger_namespace in (None, DEFAULT_NAMESPACE):  # elsewhere the name may mean another type
        check_config(trigger_type, config, namespace)
    return messages.register_trigger(
        messages.new_id() if trigger_id is None else trigger_id,
        trigger_type,
        function_id,
        config,
        metadata=metadata,
        namespace=namespace,
        trigger_namespace=trigger_namespace,
    )


def named(value: Any, what: str, cure: str) -> str:
    """Return a name if it is one.

    Raises:
        ConfigurationError: Not text, blank, or not to be sent.
    """
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{what}={value!r}: give {cure}")
    try:
        messages.check(value, what)
    except InvalidPayloadError as exc:
        raise ConfigurationError(str(exc)) from None
    return value
