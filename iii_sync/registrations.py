"""What a worker has registered: functions, triggers and trigger types; and what comes in for them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Union

from .annotations.formats import json_schema
from .arguments import optional_text
from .errors import IIISyncError, InvocationError, RegistrationRejectedError, TriggerRegistrationError
from .functions import Function, FunctionRef, Functions, check_function_id
from .pool import HandlerPool
from .session import Link, Session
from .wire import messages

if TYPE_CHECKING:
    from .invocation import HttpInvocationConfig
    from .options import InitOptions
    from .triggers import Trigger, TriggerSource, TriggerType
    from .triggers.confirming import Asks, Confirming
    from .triggers.providers import Provider, Providers
    from .triggers.registered import Triggers

__all__ = ["Registrations"]

_log = logging.getLogger("iii_sync.worker")


class _Tables(NamedTuple):
    """What has to do with triggers."""

    triggers: Triggers
    providers: Providers
    confirming: Confirming


class Registrations:
    """Everything one worker has registered; see there for what the methods take, do and raise.

    What has to do with triggers is imported with the first of them: most workers have none.

    Args:
        options: The worker's.
        session: What is registered on it.
        functions: The table of the functions.
        pool: The threads that handlers run on.
        ask: Calls a function of the engine.
    """

    def __init__(
        self, options: InitOptions, session: Session, functions: Functions, pool: HandlerPool, ask: Asks
    ) -> None:
        self._pid = os.getpid()
        self._options = options
        self._session = session
        self._functions = functions
        self._pool = pool
        self._ask = ask
        self._lock = threading.RLock()  # guards the making of the tables
        self._tables: Optional[_Tables] = None
        self._closed = False

    def close(self) -> None:
        """The worker ends: refuse calls, let go of triggers, and tell the engine nothing more. Does not block."""
        self._closed = self._functions.closed = True
        if self._tables is not None:
            self._tables.providers.close()

    def register_function(
        self,
        function_id: str,
        handler: Union[Callable[..., Any], HttpInvocationConfig],
        description: Optional[str],
        metadata: Any,
        request_format: Any,
        response_format: Any,
        trigger: Union[None, TriggerSource, Iterable[TriggerSource]],
    ) -> FunctionRef:
        """Carry out ``Worker.register_function``."""
        from .handlers import Handler
        from .invocation import HttpInvocationConfig

        check_function_id(function_id)
        sources = _trigger_sources(trigger)
        over_http = run = None
        if isinstance(handler, HttpInvocationConfig):
            over_http = handler
        else:
            run = Handler(function_id, handler)
            request_format = run.request_format if request_format is None else request_format
            response_format = run.response_format if response_format is None else response_format
        registration = messages.register_function(
            function_id,
            description=messages.check(optional_text("description", description), "description"),
            metadata=messages.check(metadata, "metadata"),
            request_format=json_schema("request_format", request_format),
            response_format=json_schema("response_format", response_format, returned=True),
            invocation=None if over_http is None else messages.check(over_http.message(), "invocation"),
        )
        function = Function(function_id, run, registration)
        self._functions.add(function)
        triggers: list[Trigger] = []

        def unregister() -> None:
            for one in triggers:
                one.unregister()
            self._unregister_function(function)

        try:
            self._session.register(registration)
            if over_http is not None:
                self._confirm_over_http(function_id, over_http)
            for source in sources:
                triggers.append(self.register_trigger(source, function_id))
        except BaseException:
            unregister()
            raise
        return FunctionRef(function, unregister)

    def unregister_function(self, function: Union[str, FunctionRef, Callable[..., Any]]) -> None:
        """Carry out ``Worker.unregister_function``."""
        if isinstance(function, FunctionRef):
            function.unregister()
        else:
            self._unregister_function(self._functions.find(function))

    def register_trigger(
        self,
        trigger_type: Union[str, TriggerSource, Mapping[str, Any]],
        function_id: Optional[str] = None,
        config: Any = None,
        metadata: Any = None,
        namespace: Optional[str] = None,
        trigger_namespace: Optional[str] = None,
        trigger_id: Optional[str] = None,
    ) -> Trigger:
        """Carry out ``Worker.register_trigger``."""
        from .triggers.registered import Trigger, trigger_registration

        registration = trigger_registration(
            trigger_type,
            function_id,
            config,
            metadata,
            namespace,
            trigger_namespace,
            trigger_id,
            self._options.namespace,
        )
        tables = self._trigger_tables()
        trigger = Trigger(registration, self._unregister_trigger, tables.confirming.is_active)
        if trigger.type == "http":
            self._check_route(trigger)
        tables.triggers.add(trigger)
        return trigger

    def register_trigger_type(
        self,
        type_id: Union[str, Mapping[str, Any]],
        description: Any,
        handler: Any,
        trigger_request_format: Any,
        call_request_format: Any,
        namespace: Optional[str],
        register_trigger: Callable[..., Trigger],
        register_function: Callable[..., FunctionRef],
    ) -> TriggerType[Any]:
        """Carry out ``Worker.register_trigger_type``; the last two are the worker's own methods."""
        from .triggers.providers import Provider, TriggerType, type_registration

        if isinstance(type_id, Mapping) and handler is None:
            description, handler = None, description  # iii's dictionary has the description
        registration = type_registration(
            type_id, description, trigger_request_format, call_request_format, namespace, self._options.namespace
        )
        provider = Provider(registration, handler, self._pool)
        self._trigger_tables().providers.add(provider)
        return TriggerType(
            registration,
            lambda: self._unregister_trigger_type(provider),
            register_trigger,
            register_function,
        )

    # --- for the session, on the reader thread ---------------------------------------------------------

    def invoked(self, link: Link, message: messages.Message) -> None:
        """A call of one of our functions has come in. On the reader thread."""
        self._functions.invoked(message, lambda answer: self._session.answer(link, answer), link.answer_soon)

    def trigger_message(self, link: Link, message: messages.Message) -> None:
        """Something about triggers has come in. On the reader thread."""
        if self._tables is None:
            return  # about triggers that nobody here has registered
        if message["type"] == "triggerregistrationresult":
            self._tables.triggers.refused(message)
        else:
            self._tables.providers.received(link, message)

    def link_ended(self, link: Link) -> None:
        """A connection has ended. On the reader thread."""
        if self._tables is not None:
            self._tables.providers.link_ended(link)

    def registrations(self) -> list[messages.Message]:
        """Everything to be registered again after a reconnect."""
        found = self._functions.registrations()
        if self._tables is not None:
            found += self._tables.providers.registrations() + self._tables.triggers.registrations()
        return found

    def function_told(self, registration: messages.Message, error: Optional[IIISyncError]) -> bool:
        """A function was refused after a reconnect, or taken again. Any thread."""
        return self._functions.told(registration, error)

    # --- inside ----------------------------------------------------------------------------------------

    def _trigger_tables(self) -> _Tables:
        """Return the triggers of this worker and the types it provides; most workers have neither."""
        from .triggers.confirming import Confirming
        from .triggers.providers import Providers
        from .triggers.registered import Triggers

        with self._lock:
            if self._tables is None:
                confirming = Confirming(self._ask, self._options, self._session.worker_name)
                triggers, providers = Triggers(self._session, confirming), Providers(self._session, confirming)
                self._tables = _Tables(triggers, providers, confirming)
            return self._tables

    def _unregister_function(self, function: Function) -> None:
        if os.getpid() != self._pid:
            return
        if self._functions.remove(function) and not self._closed:
            self._session.unregister(function.registration)

    def _unregister_trigger_type(self, provider: Provider) -> None:
        if os.getpid() != self._pid:
            return
        if self._trigger_tables().providers.remove(provider) and not self._closed:
            self._session.unregister(provider.registration)

    def _unregister_trigger(self, trigger: Trigger) -> None:
        if os.getpid() != self._pid:
            return
        if self._trigger_tables().triggers.remove(trigger) and not self._closed:
            self._session.unregister(trigger._registration)

    def _check_route(self, trigger: Trigger) -> None:
        try:
            listed = self._ask(
                "engine::registered-triggers::list", {"trigger_type": "http"}, timeout=self._options.connect_timeout
            )
        except InvocationError:
            _log.debug("whether %r conflicts with another route is unknown", trigger, exc_info=True)
            return
        from .triggers.routes import conflicting

        other = conflicting(trigger.config, listed)
        if other is not None:
            raise TriggerRegistrationError(
                f"the route {trigger.config['api_path']!r} of {trigger.function_id!r} conflicts with '{other}', which "
                "is registered already: name the parameters alike",
                "trigger_registration_failed",
                trigger.id,
                trigger.type,
                trigger.function_id,
            )

    def _confirm_over_http(self, function_id: str, config: HttpInvocationConfig) -> None:
        """Look a function up: the engine drops what it does not like without a word (E-18)."""
        where = {"function_id": function_id, "namespace": self._options.namespace or "default"}
        try:
            self._ask("engine::functions::info", where, timeout=self._options.connect_timeout)
        except InvocationError as exc:
            if exc.code != "NOT_FOUND":
                return  # this worker may not look
            raise RegistrationRejectedError(
                f"the engine did not take function {function_id!r} at {config.where()}: it calls functions over HTTP "
                "only with its worker iii-http-functions, where its security settings (https, public addresses, "
                "url_allowlist) allow the address, and with the variable that auth names in its environment; its log "
                "says which",
                "NOT_REGISTERED",
                self._options.namespace,
            ) from None


def _trigger_sources(given: Union[None, TriggerSource, Iterable[TriggerSource]]) -> list[TriggerSource]:
    """Return what the ``trigger`` of a function names; a function has none, as a rule."""
    if given is None:
        return []
    from .triggers.sources import trigger_sources

    return trigger_sources(given)
