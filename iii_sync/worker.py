"""The worker: what a program holds of its connection to an iii engine. Read this file first.

A call goes ``Worker.trigger`` → :mod:`.calling` (the message, the wait for the answer) → :mod:`.session` (the control
connection, the calls under way) → :mod:`.net.connection` (frames, the turn to send) → the socket. Its answer comes from
:mod:`.net.loop` (the reader thread) → ``Session.received`` → :class:`.calls.Call`. A call of one of our own functions
comes the same way to :mod:`.registrations` and runs on a thread of :mod:`.pool`, see :mod:`.functions`. Channel ends
(:mod:`.channels`) have sockets of their own on the same reader thread.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Literal, Optional, TypedDict, TypeVar, Union, overload

from .arguments import seconds, text
from .calling import Caller
from .calls import Call
from .channels import Channel, ChannelReader, ChannelWriter, StreamChannelRef, is_channel_ref
from .channels.ends import Ends
from .channels.refs import as_ref
from .errors import ChannelAbortedError, ConfigurationError, ForkedWorkerError, WorkerClosedError, fresh
from .functions import FunctionRef, Functions, check_function_id
from .net.connect import Address
from .net.loop import Loop
from .net.waiting import Deadline, Event
from .official import pointing_elsewhere, unexpected
from .pool import HandlerPool
from .registrations import Registrations
from .request import DEFAULT_TIMEOUT, TriggerAction
from .session import ConnectionState, Session
from .tracing import Tracer

if TYPE_CHECKING:
    from typing_extensions import Never, Self, Unpack

    from .channels.opened import FunctionReader, FunctionTextReader, FunctionTextWriter, FunctionWriter
    from .invocation import HttpInvocationConfig
    from .options import InitOptions, OptionArguments
    from .services import EngineInfo, Queues, State, Streams
    from .triggers import Trigger, TriggerHandler, TriggerSource, TriggerType
    from .triggers.providers import TriggerCallbacks
    from .web import HttpFunction

__all__ = ["Worker", "register_worker"]

_log = logging.getLogger("iii_sync.worker")

HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])
ConfigT = TypeVar("ConfigT")

_LOG_LEVELS = ("trace", "debug", "info", "warn", "error")

_numbers = itertools.count(1)


class FunctionOptions(TypedDict, total=False):
    """Keyword arguments of :meth:`Worker.function`."""

    description: Optional[str]
    metadata: Any
    request_format: Any
    response_format: Any
    trigger: Union[None, TriggerSource, Iterable[TriggerSource]]


class HttpOptions(TypedDict, total=False):
    """Keyword arguments of :meth:`Worker.http`."""

    function_id: Optional[str]
    description: Optional[str]
    metadata: Any
    condition: Union[str, FunctionRef, None]
    middleware: Iterable[Union[str, FunctionRef]]


class OpenOptions(TypedDict, total=False):
    """Keyword arguments of :meth:`Worker.open`."""

    key: Optional[str]
    buffering: int
    timeout: Optional[float]
    namespace: Optional[str]
    metadata: Any
    buffer_size: Optional[int]
    marks: Optional[bool]


class OpenTextOptions(OpenOptions, total=False):
    """Keyword arguments of :meth:`Worker.open` in text modes."""

    encoding: Optional[str]
    errors: Optional[str]
    newline: Optional[str]


def register_worker(
    address: Optional[str] = None, options: Optional[InitOptions] = None, /, **kwargs: Unpack[OptionArguments]
) -> Worker:
    """Connect to an engine and return the worker.

    Args:
        address: ``ws://host:port`` or ``wss://host:port``. Default: ``III_URL``, else ``ws://127.0.0.1:49134``.
        options: The worker's options.
        **kwargs: The fields of :class:`~iii_sync.InitOptions`, which win over ``options``.

    Returns:
        The worker, connected; with ``keep_trying`` perhaps not yet.

    Raises:
        ConfigurationError: A bad address or option.
        ConnectFailedError: Nothing answers there.
        HandshakeRejectedError: Something answers that is no engine.
        ConnectTimeout: No engine said hello in time.
        AuthenticationError: The engine refused this worker's credentials; raised with ``keep_trying`` too.
        PermissionDeniedError: The worker may not be in this namespace.
        RegistrationRejectedError: The name is taken by a live worker.

    Blocks: Until the engine knows the worker, at most ``connect_timeout`` for the socket and again for each step of the
        introduction.
    Threads: Any; after a fork, in the child.
    """
    from .options import address_from_environment, completed, for_address

    options = completed(options, kwargs)
    where = Address(address_from_environment(address))
    worker = Worker(where, for_address(options, where))
    try:
        worker._session.open(worker._registrations, worker._stop_waiting.set)
    except BaseException:
        worker._end(0.5)
        raise
    return worker


@pointing_elsewhere
class Worker:
    """A connection to an engine: offers functions, calls functions, makes channels.

    Made by :func:`register_worker`. It lives until :meth:`shutdown`, which leaving ``with`` calls, and reconnects by
    itself until then. Afterwards what needs the engine raises :class:`~iii_sync.WorkerClosedError`, and in a forked
    child, which cannot use its parent's, :class:`~iii_sync.ForkedWorkerError`. Ctrl-C ends every wait.
    """

    def __init__(self, address: Address, options: InitOptions) -> None:
        number = next(_numbers)
        self._pid = os.getpid()
        self._options = options
        self._loop = Loop(f"iii-io-{number}")
        self._pool = HandlerPool(f"iii-handler-{number}", options.max_handlers)
        run_soon = self._pool.run_soon
        self._ends = Ends(address, options, self._loop, run_soon)
        self._session = Session(address, options, self._loop, run_soon, self._ends.call_failed)
        self._tracer = Tracer(options.tracing, options.trace_payloads, lambda: self._session.worker_id)
        self._functions = Functions(self._pool, self._ends, self._tracer)
        self._registrations = Registrations(options, self._session, self._functions, self._pool, self.trigger)
        self._caller = Caller(options, self._session, self._ends, self._tracer, run_soon, self._check_usable)
        self._lock = threading.RLock()  # guards the next two: one thread ends the worker
        self._ending = False
        self._ender = 0
        self._ended = Event()
        self._stop_waiting = Event()  # ended, given up, or the process is asked to end
        _workers.add(self)

    # --- calling ---------------------------------------------------------------------------------------

    def trigger(
        self,
        request: Union[str, Mapping[str, Any]],
        payload: Any = None,
        *,
        timeout: Optional[float] = DEFAULT_TIMEOUT,
        action: Optional[Mapping[str, Any]] = None,
        namespace: Optional[str] = None,
        metadata: Any = None,
    ) -> Any:
        """Call a function and return its result.

        Args:
            request: The function's id; or iii's dictionary with ``function_id`` and any of ``payload``, ``action``,
                ``timeout_ms``, ``namespace``, ``metadata``.
            payload: Anything that JSON can hold; references and channel ends in it travel as references.
            timeout: Seconds for everything; ``None`` for no limit. Default: ``invocation_timeout`` (30).
            action: ``TriggerAction.Void()`` or ``TriggerAction.Enqueue(queue=…)``.
            namespace: Where the function lives. Default: the worker's; ``default`` for ``engine::`` and
                ``configuration::`` ids. Other functions of the engine (``state::get``, ``publish``) are in
                ``default`` too, and a worker with a namespace must say so, or use :attr:`state` and the like.
            metadata: Delivered beside the payload.

        Returns:
            The result; ``None`` for ``Void``; the receipt for ``Enqueue``.

        Raises:
            ConfigurationError: A blank function id or namespace, a timeout that is not above 0, an unknown action.
            InvalidPayloadError: Something in the payload cannot travel; nothing was sent.
            InvocationError: The function failed (``HandlerFailedError``), is not there
                (``FunctionNotFoundError``), may not be called (``PermissionDeniedError``), …
            CallTimeout: No answer in time; a ``TimeoutError`` and an ``InvocationError``.
            ConnectionLostError: No connection, or it broke; ``may_have_run`` says whether to be careful.

        Blocks: Until the answer is there, at most ``timeout`` seconds.
        Threads: Any.
        """
        return self._caller.trigger(request, payload, timeout, action, namespace, metadata)

    def submit(
        self,
        request: Union[str, Mapping[str, Any]],
        payload: Any = None,
        *,
        timeout: Optional[float] = None,
        action: Optional[Mapping[str, Any]] = None,
        namespace: Optional[str] = None,
        metadata: Any = None,
    ) -> Call:
        """Start a call and return at once; ``call.result()`` has its outcome.

        Args:
            request: As :meth:`trigger` takes it, like the rest.
            payload: What the function is called with.
            timeout: Seconds after which the call fails with ``CallTimeout``. Default: never.
            action: What becomes of the call besides being answered.
            namespace: Where the function lives.
            metadata: Delivered beside the payload.

        Returns:
            The call.

        Raises:
            InvalidPayloadError: Something in the payload cannot travel; nothing was sent.
            ConnectionLostError: It could not be sent: no connection in time, or it broke.

        Blocks: Until the request is out, at most ``timeout`` seconds (30 where there is none).
        Threads: Any.
        """
        return self._caller.submit(request, payload, timeout, action, namespace, metadata)

    def map(
        self,
        function_id: str,
        payloads: Iterable[Any],
        *,
        max_in_flight: int = 16,
        timeout: Optional[float] = DEFAULT_TIMEOUT,
        namespace: Optional[str] = None,
        metadata: Any = None,
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        """Call a function with each payload, several at a time, and give the results in the order of the payloads.

        Lazy: payloads are taken, and calls started, as results are asked for, the first when the first result is. So
        any number of payloads is fine. The first call that fails ends the iteration with its error. Leaving the
        iteration early cancels what is under way, as :meth:`Call.cancel` does.

        Args:
            function_id: The function.
            payloads: What it is called with.
            max_in_flight: How many calls are under way, or answered and not asked for yet.
            timeout: Seconds for each call, from its start; ``None`` for no limit. Default: ``invocation_timeout``.
            namespace: Where the function lives. Default: the worker's.
            metadata: Delivered beside each payload.
            return_exceptions: Give the error of a call that failed in the place of its result, and go on.

        Returns:
            The results, as they are asked for.

        Raises:
            ConfigurationError: A ``max_in_flight`` or ``timeout`` that is no number above 0.
            InvocationError: In a step, like every error of :meth:`trigger`: a call failed.

        Blocks: Never; each step until its result is there, at most ``timeout`` seconds from the start of its call.
        Threads: Any; the iterator is used by one at a time.
        """
        return self._caller.map(function_id, payloads, max_in_flight, timeout, namespace, metadata, return_exceptions)

    # --- functions -------------------------------------------------------------------------------------

    def register_function(
        self,
        function_id: str,
        handler: Union[Callable[..., Any], HttpInvocationConfig],
        *,
        description: Optional[str] = None,
        metadata: Any = None,
        request_format: Any = None,
        response_format: Any = None,
        trigger: Union[None, TriggerSource, Iterable[TriggerSource]] = None,
        **unknown: Never,
    ) -> FunctionRef:
        """Offer a function; it can be called when this returns.

        Args:
            function_id: The id, by custom ``service::name``.
            handler: Called with the payload, on a thread of its own, and with ``metadata=`` if it has a parameter of
                that name. References in the payload are live ends by then. A payload that is annotated (a
                dataclass, a typed dictionary, a pydantic model, plain types, …) is checked and converted, and one that
                does not fit is refused with the code ``invalid_payload``. What it returns is the result; what
                it raises reaches the caller as an error. Or an :class:`~iii_sync.HttpInvocationConfig`: then the
                engine calls that, and this worker is not involved.
            description: One line for people who list functions.
            metadata: Listed with the function.
            request_format: JSON Schema of the payload, or a type that has one (a dataclass, a pydantic model, …),
                listed with the function. Default: from the annotation.
            response_format: The same of the result.
            trigger: What else the function is called for, ``cron("0 0 3 * * *")`` for instance: one of
                :mod:`iii_sync.triggers`, or several. They go when the function is unregistered.
            **unknown: None; what the official SDK takes besides is an error that says what to do.

        Returns:
            What takes it back, and knows what became of it after a reconnect.

        Raises:
            ConfigurationError: An id that the engine serves itself, or that this worker has registered already; a
                handler that cannot be called with a payload, is ``async`` or a generator, or is annotated with what no
                JSON value can become; a description that is no text; a format that is
                neither a schema nor a type; what is no trigger.
            RegistrationRejectedError: Another live worker offers the id; the engine does not take what it should
                call over HTTP; or a trigger was refused (``TriggerRegistrationError``), and then the function is not
                registered either.
            PermissionDeniedError: The engine does not let this worker register it, or a trigger, and then the function
                is not registered either. Such an engine says nothing, so the function is looked up; where the worker
                may not look either, nothing is raised.
            EngineTimeoutError: No confirmation in time.

        Blocks: Until the engine has taken it, at most ``connect_timeout``, and like :meth:`register_trigger` for each
            trigger.
        Threads: Any.
        """
        if unknown:
            raise unexpected("register_function", unknown)
        self._check_usable()
        return self._registrations.register_function(
            function_id, handler, description, metadata, request_format, response_format, trigger
        )

    def function(self, function_id: str, **details: Unpack[FunctionOptions]) -> Callable[[HandlerT], HandlerT]:
        """Decorate the handler of a function.

        The handler stays what it was; :meth:`unregister_function` takes it, or the id.

        Args:
            function_id: The function's id.
            **details: The other arguments of :meth:`register_function`.

        Returns:
            The decorator.

        Raises:
            ConfigurationError: No id, as in ``@worker.function`` without parentheses, or one that cannot be.
            IIISyncError: When it decorates, as :meth:`register_function`.

        Blocks: Never; decorating like :meth:`register_function`.
        Threads: Any.
        """
        if callable(function_id):
            name = getattr(function_id, "__name__", "name")
            raise ConfigurationError(f"a function needs an id: write @worker.function({name!r}), for instance")
        check_function_id(function_id)

        def decorate(handler: HandlerT) -> HandlerT:
            self.register_function(function_id, handler, **details)  # pyright: ignore[reportArgumentType]
            return handler

        return decorate

    def unregister_function(self, function: Union[str, FunctionRef, Callable[..., Any]]) -> None:
        """Take a function back; calls that are running go on. Its id may be registered again at once.

        Args:
            function: Its id, its handler, or what :meth:`register_function` returned.

        Raises:
            ConfigurationError: This worker has not registered it, or its handler has several ids.

        Blocks: Until the engine has been told, at most ``connect_timeout``, and as long for each trigger it was
            registered with.
        Threads: Any.
        """
        self._check_usable()
        self._registrations.unregister_function(function)

    # --- HTTP functions --------------------------------------------------------------------------------

    def register_http(
        self,
        method: Union[str, Iterable[str]],
        path: str,
        handler: Callable[..., Any],
        *,
        function_id: Optional[str] = None,
        description: Optional[str] = None,
        metadata: Any = None,
        condition: Union[str, FunctionRef, None] = None,
        middleware: Iterable[Union[str, FunctionRef]] = (),
    ) -> HttpFunction:
        """Answer HTTP requests of a method and path; can be requested when this returns.

        Registers ``handler`` as a function, and an ``http`` trigger for each method.

        Args:
            method: ``"GET"``, or several: ``["GET", "HEAD"]``. The engine itself answers ``OPTIONS``.
            path: ``/files/:name``; a parameter is a whole segment.
            handler: Called with a :class:`~iii_sync.StreamRequest`, and with a :class:`~iii_sync.StreamResponse` if it
                takes two arguments; see :func:`~iii_sync.http` for what it may return and raise.
            function_id: The function's id. Default: one made of method and path, so that the engine refuses a second
                worker that wants to serve the same; with another id it would silently take the route over.
            description: One line for people who list functions.
            metadata: What the handler gets as ``request.metadata``.
            condition: A function that is asked first; when it returns ``False`` the client gets a 422.
            middleware: Functions that are called after that, in this order, and may answer instead (PROTOCOL 7.4).

        Returns:
            What takes it back.

        Raises:
            ConfigurationError: A method or path that cannot be, a route that this worker serves already, a handler
                that takes something else or is ``async``.
            RegistrationRejectedError: Another worker serves the route or has the id, or the route does not go
                together with one that is there (``TriggerRegistrationError``).
            PermissionDeniedError: The engine does not let this worker register the function, or the trigger.
            EngineTimeoutError: No confirmation in time.

        Blocks: Like :meth:`register_function` and, for each method, :meth:`register_trigger`.
        Threads: Any.
        """
        from .web import routes

        return routes.register(
            self,
            method,
            path,
            handler,
            function_id=function_id,
            description=description,
            metadata=metadata,
            condition=condition,
            middleware=middleware,
        )

    def http(
        self, method: Union[str, Iterable[str]], path: str, **details: Unpack[HttpOptions]
    ) -> Callable[[HandlerT], HandlerT]:
        """Decorate the handler of an HTTP function.

        Args:
            method: ``"GET"``, or several.
            path: ``/files/:name``.
            **details: The other arguments of :meth:`register_http`.

        Returns:
            The decorator; the handler stays what it was.

        Raises:
            IIISyncError: When it decorates, as :meth:`register_http`.

        Blocks: Never; decorating like :meth:`register_http`.
        Threads: Any.
        """

        def decorate(handler: HandlerT) -> HandlerT:
            self.register_http(method, path, handler, **details)
            return handler

        return decorate

    # --- triggers --------------------------------------------------------------------------------------

    def register_trigger(
        self,
        trigger_type: Union[str, TriggerSource, Mapping[str, Any]],
        function_id: Optional[str] = None,
        config: Any = None,
        *,
        metadata: Any = None,
        namespace: Optional[str] = None,
        trigger_namespace: Optional[str] = None,
        trigger_id: Optional[str] = None,
    ) -> Trigger:
        """Have a function called when something happens; done when this returns.

        One whose type nobody provides yet is no error: it waits for a provider, and a warning says so. A provider in
        another worker may refuse later still: that is logged and kept as ``Trigger.error``. Registered again after each
        reconnect.

        Args:
            trigger_type: The type's id, ``cron`` for instance; or one of :mod:`iii_sync.triggers` with its config:
                ``cron("0 0 3 * * *")``; or iii's dictionary with ``type``, ``function_id`` and any of ``config``,
                ``metadata``, ``namespace``, ``trigger_namespace``, ``id``.
            function_id: The function; it may be registered later, and by another worker.
            config: What the type takes. Default: ``{}``.
            metadata: Delivered with every call.
            namespace: Where the function lives. Default: the worker's.
            trigger_namespace: Where the type's provider lives. Default: the worker's, else ``default``.
            trigger_id: Unique in the whole engine: it would replace another worker's. Default: a new one.

        Returns:
            The trigger.

        Raises:
            ConfigurationError: A blank name, a config that cannot work, an id or an HTTP route that this worker has
                registered already.
            InvalidPayloadError: ``config`` or ``metadata`` cannot travel.
            TriggerRegistrationError: The engine or the provider refused it.
            PermissionDeniedError: The engine does not let this worker register it. Such an engine says nothing, so the
                trigger is looked up; where the worker may not look either, a warning says so.
            EngineTimeoutError: No confirmation in time.

        Blocks: Until the engine has had its say, at most ``connect_timeout``, and as long for each look: whether the
            trigger is active, and whether an HTTP route is free.
        Threads: Any.
        """
        self._check_usable()
        return self._registrations.register_trigger(
            trigger_type, function_id, config, metadata, namespace, trigger_namespace, trigger_id
        )

    @overload
    def register_trigger_type(
        self,
        type_id: str,
        description: str,
        handler: Union[TriggerHandler[ConfigT], TriggerCallbacks[ConfigT]],
        *,
        trigger_request_format: Any = ...,
        call_request_format: Any = ...,
        namespace: Optional[str] = ...,
    ) -> TriggerType[ConfigT]: ...
    @overload
    def register_trigger_type(
        self, type_id: Mapping[str, Any], handler: Union[TriggerHandler[ConfigT], TriggerCallbacks[ConfigT]], /
    ) -> TriggerType[ConfigT]: ...
    def register_trigger_type(
        self,
        type_id: Union[str, Mapping[str, Any]],
        description: Any = None,
        handler: Any = None,
        *,
        trigger_request_format: Any = None,
        call_request_format: Any = None,
        namespace: Optional[str] = None,
    ) -> TriggerType[Any]:
        """Provide a trigger type: be told of the triggers that workers register, and call their functions.

        Provided again after each reconnect, when the triggers that there are come again.

        Args:
            type_id: The id; one that another worker provides in the same namespace is taken over. Or iii's dictionary
                with ``id``, ``description`` and any of the last three, followed by the handler.
            description: One line for people who list trigger types.
            handler: An object with the methods ``register_trigger`` and ``unregister_trigger`` (see
                :class:`~iii_sync.triggers.TriggerHandler`), or a tuple of two functions. Each takes a
                :class:`~iii_sync.triggers.TriggerConfig`, runs on a handler thread, and is called one at a time.
            trigger_request_format: JSON Schema of the config, or a type that has one (a dataclass, a pydantic model,
                …), listed with the type.
            call_request_format: The same of what functions are called with.
            namespace: Where it is provided. Default: the worker's.

        Returns:
            The type.

        Raises:
            ConfigurationError: A blank id, one that the engine itself or this worker provides already; no
                description; a handler without the two methods, or with ``async`` ones; a format that is neither a
                schema nor a type.
            InvalidPayloadError: A format that cannot travel.
            PermissionDeniedError: The engine does not let this worker provide it. Such an engine says nothing, so the
                type is looked up; where the worker may not look either, a warning says so.
            EngineTimeoutError: No confirmation in time.

        Blocks: Until the engine has it, at most ``connect_timeout``, and for a look whether it does.
        Threads: Any.
        """
        self._check_usable()
        return self._registrations.register_trigger_type(
            type_id,
            description,
            handler,
            trigger_request_format,
            call_request_format,
            namespace,
            self.register_trigger,
            self.register_function,
        )

    # --- channels --------------------------------------------------------------------------------------

    def create_channel(self, buffer_size: Optional[int] = None, *, marks: Optional[bool] = None) -> Channel:
        """Make a channel; its ends are connected when they are used.

        An end that is not connected within five minutes is dropped by the engine (PROTOCOL 5.7).

        Args:
            buffer_size: Messages the engine holds between the ends, 1 to 1024. Default: 64.
            marks: Whether the writer marks its stream. Default: the worker's option.

        Returns:
            Both ends, and the references to them.

        Raises:
            ConfigurationError: A ``buffer_size`` that cannot be.
            IIISyncError: As :meth:`trigger`.

        Blocks: For one call to the engine, at most ``invocation_timeout``.
        Threads: Any.
        """
        if buffer_size is not None and (
            not isinstance(buffer_size, int) or isinstance(buffer_size, bool) or not 1 <= buffer_size <= 1024
        ):
            raise ConfigurationError(f"buffer_size={buffer_size!r} must be an integer from 1 to 1024 (messages)")
        made = self.trigger("engine::channels::create", {} if buffer_size is None else {"buffer_size": buffer_size})
        return self._ends.channel(made, marks)

    def open_ref(
        self,
        ref: Union[StreamChannelRef, Mapping[str, Any]],
        *,
        marks: Optional[bool] = None,
        timeout: Optional[float] = None,
    ) -> Union[ChannelReader, ChannelWriter]:
        """Return the end that ``ref`` names, to be connected when it is used.

        References in a handler's payload are live ends already; this is for those that came another way: in a result,
        in metadata, from a queue or a database.

        Args:
            ref: The reference, or the plain object that it is in JSON.
            marks: For a writer: whether it marks its stream. Default: the worker's option.
            timeout: The end's ``timeout``. Default: the worker's ``channel_timeout``.

        Raises:
            ConfigurationError: ``ref`` is no reference.
            ValueError: A ``timeout`` that cannot be.

        Blocks: Never.
        Threads: Any.
        """
        self._check_usable()
        ref = dict(ref) if not isinstance(ref, StreamChannelRef) and isinstance(ref, Mapping) else ref
        if not is_channel_ref(ref):
            raise ConfigurationError("not a channel reference: it needs channel_id, access_key, and direction")
        found = as_ref(ref)
        end = self._ends.end(found, marks)
        if timeout is not None:
            end.timeout = timeout
        return end

    @overload
    def open(
        self, function_id: str, mode: Literal["wb", "bw"], payload: Any = ..., **options: Unpack[OpenOptions]
    ) -> FunctionWriter: ...
    @overload
    def open(
        self, function_id: str, mode: Literal["rb", "br"], payload: Any = ..., **options: Unpack[OpenOptions]
    ) -> FunctionReader: ...
    @overload
    def open(
        self, function_id: str, mode: Literal["w", "wt", "tw"], payload: Any = ..., **options: Unpack[OpenTextOptions]
    ) -> FunctionTextWriter: ...
    @overload
    def open(
        self,
        function_id: str,
        mode: Literal["r", "rt", "tr"] = ...,
        payload: Any = ...,
        **options: Unpack[OpenTextOptions],
    ) -> FunctionTextReader: ...
    def open(
        self,
        function_id: str,
        mode: str = "r",
        payload: Any = None,
        *,
        key: Optional[str] = None,
        buffering: int = -1,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        newline: Optional[str] = None,
        timeout: Optional[float] = None,
        namespace: Optional[str] = None,
        metadata: Any = None,
        buffer_size: Optional[int] = None,
        marks: Optional[bool] = None,
    ) -> Any:
        """Call a function and open the stream that goes to it, or comes from it, as a file.

        Makes a channel, starts the function with a reference to its other end in the payload, and returns this end as a
        file. Writing: leaving ``with`` ends the stream and waits for the function; ``.result`` has what it returned.
        Reading: ``with`` left at the end of the stream waits likewise; left before, it cancels. Whoever stops where his
        data ends, as ``pickle.load`` does, has not seen the end of the stream: ``read()`` goes there. Leaving on an
        exception aborts. When the function fails its error is raised, by the write or read that is blocked, by the next
        one, or on leaving. When it succeeds without reading everything, further writes raise ``BrokenPipeError``.

        Args:
            function_id: The function.
            mode: ``"wb"`` or ``"w"`` for a function that reads, ``"rb"`` or ``"r"`` for one that writes.
            payload: An object for the function; the reference is added to it.
            key: Where in the payload the reference goes. Default: ``"reader"`` (when writing) or ``"writer"``.
            buffering: As in ``open()``: bytes to collect before they are sent; 0 for none.
            encoding: Of a text file; default UTF-8.
            errors: Of a text file, as in ``open()``.
            newline: Of a text file, as in ``open()``.
            timeout: Seconds that the function may take in total. Default: no limit.
            namespace: Where the function lives. Default: the worker's.
            metadata: Delivered beside the payload.
            buffer_size: Messages that the engine holds in between; see :meth:`create_channel`.
            marks: Whether the stream that is written is marked; see :meth:`create_channel`.

        Returns:
            The file; see :mod:`iii_sync.channels.opened`.

        Raises:
            ValueError: A mode or argument that ``open()`` would refuse.
            TypeError: A payload that is not an object.
            IIISyncError: As :meth:`create_channel` and :meth:`submit`.

        Blocks: For making the channel, at most ``invocation_timeout``, and until the call is out, at most ``timeout``
            (30 seconds where there is none).
        Threads: Any.
        """
        from .channels.files import is_binary
        from .channels.opened import open_reader, open_writer

        direction = "w" if isinstance(mode, str) and "w" in mode else "r"
        binary = is_binary(mode, direction, buffering, encoding=encoding, errors=errors, newline=newline)
        if payload is not None and not isinstance(payload, Mapping):
            raise TypeError(f"payload must be a dict, for the reference is put into it; not {type(payload).__name__}")
        key = key or ("reader" if direction == "w" else "writer")
        if payload is not None and key in payload:
            raise ValueError(f"payload has a {key!r} already; name another place for the reference with key=")
        channel = self.create_channel(buffer_size, marks=marks)
        ref = channel.reader_ref if direction == "w" else channel.writer_ref
        call = self.submit(
            function_id, {**(payload or {}), key: ref}, timeout=timeout, namespace=namespace, metadata=metadata
        )
        details = {} if binary else {"encoding": encoding, "errors": errors, "newline": newline}
        try:
            if direction == "w":
                return open_writer(channel.writer, call, binary, buffering, **details)
            return open_reader(channel.reader, call, binary, self._loop.call_later, **details)
        except BaseException:  # the function runs already, and would wait for a stream that never comes
            call.cancel()
            (channel.writer if direction == "w" else channel.reader).abort()
            raise

    # --- the engine's services -------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Values under a scope and a key: ``get``, ``set``, ``update``, ``delete``, ``list``, ``list_groups``.

        Blocks: Never.
        Threads: Any.
        """
        from .services import State

        return State(self.trigger)

    @property
    def streams(self) -> Streams:
        """Items in groups of named streams: as :attr:`state`, and ``send`` and ``list_all``.

        Blocks: Never.
        Threads: Any.
        """
        from .services import Streams

        return Streams(self.trigger)

    @property
    def queues(self) -> Queues:
        """Durable topics: ``publish``, ``topics``, ``stats``, and what became of dead messages.

        Blocks: Never.
        Threads: Any.
        """
        from .services import Queues

        return Queues(self.trigger)

    @property
    def engine(self) -> EngineInfo:
        """What the engine knows: ``functions``, ``workers``, ``triggers``, ``trigger_types``, and one of each.

        Blocks: Never.
        Threads: Any.
        """
        from .services import EngineInfo

        return EngineInfo(self.trigger)

    def publish(self, topic: str, data: Any, *, timeout: Optional[float] = DEFAULT_TIMEOUT) -> None:
        """Send ``data`` to the functions that are subscribed to a topic right now; there need not be any.

        What subscribers raise nobody hears. For what must not get lost there is ``queues.publish``.

        Args:
            topic: The topic.
            data: Anything that JSON can hold.
            timeout: Seconds; ``None`` for no limit. Default: ``invocation_timeout``.

        Raises:
            InvocationError: A blank topic.
            IIISyncError: As :meth:`trigger`.

        Blocks: Until the engine has taken it, at most ``timeout`` seconds; not until a subscriber has run.
        Threads: Any.
        """
        self.trigger("publish", {"topic": text("topic", topic), "data": data}, timeout=timeout, namespace="default")

    def log(self, message: str, data: Any = None, *, level: str = "info") -> None:
        """Write a line to the engine's log, which functions with the trigger type ``log`` are called with.

        For a program that uses :mod:`logging` there is :class:`iii_sync.logs.EngineLogHandler`.

        Args:
            message: The line.
            data: Anything that JSON can hold, logged beside it.
            level: ``trace``, ``debug``, ``info``, ``warn`` or ``error``.

        Raises:
            ConfigurationError: A message that is no text, or another level.
            IIISyncError: As :meth:`submit`.

        Blocks: Until it is out, at most ``invocation_timeout``; there is no answer to wait for.
        Threads: Any.
        """
        if level not in _LOG_LEVELS:
            raise ConfigurationError(f"level={level!r} must be one of {', '.join(_LOG_LEVELS)}")
        line = {"message": text("message", message)} if data is None else {"message": message, "data": data}
        self.trigger(f"engine::log::{level}", line, action=TriggerAction.Void())

    # --- life ------------------------------------------------------------------------------------------

    @property
    def worker_id(self) -> Optional[str]:
        """The engine's id for this connection; another one after each reconnect."""
        return self._session.worker_id

    @property
    def worker_name(self) -> str:
        """The name under which the engine lists this worker; if none was given, its host, process, and more."""
        return self._session.worker_name

    def get_address(self) -> str:
        """Return the engine's address, without its query.

        Blocks: Never.
        Threads: Any.
        """
        return str(self._session.address)

    def get_connection_state(self) -> ConnectionState:
        """Return ``connecting``, ``connected``, ``reconnecting``, ``disconnected`` or ``failed``.

        Blocks: Never.
        Threads: Any.
        """
        return self._session.state

    def add_connection_state_listener(self, listener: Callable[[ConnectionState], object]) -> Callable[[], None]:
        """Have ``listener(state)`` called on a handler thread at every change, in order.

        Args:
            listener: Called with a state; what it raises is logged.

        Returns:
            A function that ends that.

        Raises:
            ConfigurationError: A listener that cannot be called, or is ``async``.

        Blocks: Never.
        Threads: Any.
        """
        from .handlers import refuse_async

        if not callable(listener):
            raise ConfigurationError(f"listener={listener!r} is not callable: give a function that takes the state")
        refuse_async("the listener", listener)
        return self._session.add_listener(listener)

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Wait until the worker ends, or the process is asked to: for programs that only offer functions.

        ``with register_worker() as worker: …; worker.wait()`` is such a program. Ctrl-C ends the wait with
        ``KeyboardInterrupt``. SIGTERM makes it return, so that leaving ``with`` lets running handlers finish
        (``shutdown_timeout``), and the process exits with 0. It does so for a wait on the main thread, and only where
        SIGTERM would have killed the process: a handler of the program's own stays. Before and after the wait SIGTERM
        does what it did, so a second one ends the process at once.

        Args:
            timeout: Seconds; default: no limit.

        Returns:
            ``True`` after :meth:`shutdown` or SIGTERM: it is time to leave; ``False`` when ``timeout`` passed.

        Raises:
            IIISyncError: What made the worker give up.
            ConfigurationError: A timeout below 0.

        Blocks: Until then, at most ``timeout`` seconds.
        Threads: Any; SIGTERM ends the wait of the main one.
        """
        self._check_process()
        seconds("timeout", timeout)
        from .signals import until_terminated

        # Through the reader thread: a signal handler runs amid the very call that holds the event's lock.
        stopped = until_terminated(
            lambda: self._loop.call_soon(self._stop_waiting.set), lambda: self._stop_waiting.wait(timeout)
        )
        if self._session.fatal is not None:
            raise fresh(self._session.fatal)
        return stopped

    def shutdown(self, timeout: Optional[float] = None) -> None:
        """End the worker: let running handlers finish, drop what is open, say goodbye.

        Every call that waits in another thread returns with ``WorkerClosedError``, every channel end with
        ``ChannelAbortedError``. A second call waits for the first; one in a forked child does nothing. Ctrl-C ends the
        waiting for handlers, and then the worker all the same.

        Args:
            timeout: Seconds for everything. Default: ``shutdown_timeout``.

        Blocks: At most ``timeout`` seconds.
        Threads: Any, at any time; a handler too.
        """
        if os.getpid() == self._pid:
            given = seconds("timeout", timeout)
            self._end(self._options.shutdown_timeout if given is None else given)

    def __enter__(self) -> Self:
        self._check_usable()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return f"<iii_sync.Worker {self.worker_id} {self._session.state} at {self._session.address}>"

    def __reduce__(self) -> Any:
        raise TypeError("a Worker is a live connection and cannot be pickled; make one where it is needed")

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedWorkerError("this worker belongs to the parent process; call register_worker() in the child")

    def _check_usable(self) -> None:
        self._check_process()
        if self._ending:
            raise WorkerClosedError("the worker was shut down")

    def _end(self, timeout: float) -> None:
        first = False
        try:
            with self._lock:
                first, self._ending = not self._ending, True
                if first:
                    self._ender = threading.get_ident()
            if not first:
                if self._ender != threading.get_ident():  # a signal handler amid it would wait for itself
                    self._ended.wait(timeout)
                return
            self._registrations.close()
            deadline = Deadline(timeout)
            if not self._loop.on_thread:
                self._loop.catch_up(min(1.0, timeout))  # finalizers leave tasks for the pool to it
            # Handlers come first, for they may still answer; what blocks them for good is their channels.
            if not self._pool.drain(timeout / 2):
                _log.info("handlers are still running after %.3g s; their channels are dropped", timeout / 2)
            self._drop_ends()
            self._pool.drain((deadline.remaining() or 0) / 2)
            self._leave(min(1.0, deadline.remaining() or 0), deadline)
        except BaseException:
            # Ctrl-C ends the waiting, not the shutting down.
            if first:
                self._leave(0.2, Deadline(0.4))
            raise

    def _leave(self, timeout: float, deadline: Deadline) -> None:
        """Say goodbye for at most ``timeout`` seconds, and let go of everything whatever comes of that."""
        try:
            self._session.say_goodbye(timeout)
        finally:
            try:
                self._loop.call_soon(self._let_go)
                if not self._loop.stop(max(0.2, deadline.remaining() or 0)):
                    _log.warning("the reader thread did not end within %.3g s", deadline.timeout)
            finally:
                self._ended.set()

    def _drop_ends(self) -> None:
        self._session.closing.set()
        self._loop.attempts.stop()
        self._ends.fail_all(ChannelAbortedError("the worker was shut down"))

    def _let_go(self) -> None:
        """On the reader thread: Ctrl-C, which ends any step of the main thread, never hits there. May be done twice."""
        try:
            self._registrations.close()
            self._drop_ends()
            self._session.closed()
            self._pool.stop()
        finally:
            _workers.discard(self)
            self._stop_waiting.set()
            self._loop.stop(0)


#: Workers live until they are shut down, even when nobody holds them: their functions are in use.
_workers: set[Worker] = set()

#: What the end of a process waits at most for all of them together.
_EXIT_TIMEOUT = 2.0


def _leave_at_exit() -> None:
    """Let handlers finish and say goodbye; what is still blocked then ends with the process, silently."""
    end = time.monotonic() + _EXIT_TIMEOUT
    for worker in list(_workers):
        worker._ending = True
        worker._registrations.close()
        worker._pool.drain(max(0.0, end - time.monotonic() - 0.5))
        worker._session.say_goodbye(max(0.1, end - time.monotonic()))
        worker._ended.set()  # a shutdown() that comes still later has nothing to wait for


def _leave_parents_workers() -> None:
    _workers.clear()


atexit.register(_leave_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_parents_workers)
