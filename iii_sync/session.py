"""The control connection of a worker: made, announced, lost, made again; and the calls under way on it.

Theory of operation. A *link* is one control connection, from its socket to its end. At any time at most
one link is current; calls go out on it and their answers come in on it. When it ends, however it ends, every
call that went out on it fails at once, for the engine has forgotten them (PROTOCOL 2.7), and a thread makes the
next one: connect, hello, ``reattach``, ``engine::workers::register``, the registrations, and only then is the
link current and callers go on. A call that had not left whole when its link ended is its sender's: nobody can
have run it.

Threads. ``received`` and ``ended`` run on the reader thread and never block. Everything else runs in
callers' threads or in the reconnecting thread. ``_lock`` guards the fields; it is a leaf: nothing is sent,
waited for or called back while it is held (but for its own ``wait``, which lets it go); what it may be
taken with is in :mod:`iii_sync.net.waiting`.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol, Union

from . import _version
from .calls import Answer, Call, PassedRef, Pending
from .errors import (
    AuthenticationError,
    CallTimeout,
    ConcurrencyError,
    ConnectionLostError,
    ConnectTimeout,
    EngineConnectionError,
    EngineTimeoutError,
    IIISyncError,
    InvocationError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RegistrationRejectedError,
    WorkerClosedError,
    brief,
    fresh,
    invocation_error,
)
from .net.connect import Address, Route, connect
from .net.connection import Connection
from .net.loop import Loop
from .net.waiting import Condition, Deadline, Event
from .repeated import RepeatedAnswers
from .wire import frames, messages

if TYPE_CHECKING:
    from .options import InitOptions

__all__ = ["ConnectionState", "Link", "Session"]

_log = logging.getLogger("iii_sync.worker")

ConnectionState = str

#: Above this a message goes out in fragments: the engine takes frames of 16 MiB at most (PROTOCOL 1.3).
_FRAGMENT_ABOVE = 16 * 1024 * 1024 - 64 * 1024

#: What an inbound message may have beyond ``max_payload``: the engine adds keys on the way (PROTOCOL 13).
_INBOUND_EXTRA = 1024 * 1024

#: Seconds between pings, and seconds without anything after a ping that make a link count as dead. Not silence as
#: such: a process that was stopped for a minute has heard nothing, and its link is well.
_PING_EVERY = 15.0
_DEAD_AFTER = 20.0

#: A link that lived this long proves that the engine is well: the next loss starts with short delays again.
_STABLE_AFTER = 10.0

#: So long in an outage no delay is longer than a second: an engine that was away for a minute is found at once,
#: the time it takes to start included.
_EAGER_FOR = 90.0

#: How long an engine may refuse a worker that comes back before the refusal is final: the name may still be leased
#: to the lost connection, and the worker that authenticates the others may not be back itself (PROTOCOL 8.2).
_REFUSED_FOR = 30.0

#: Harmless, answered by the engine itself, and allowed for every worker (PROTOCOL 8.3): its answer comes
#: after the refusals of what was registered before it.
_CONFIRMING = "engine::baggage::get"


class Handlers(Protocol):
    """What the session tells its worker. Called on the reader thread; must not block."""

    def invoked(self, link: Link, message: messages.Message) -> None:
        """Somebody calls a function of this worker."""

    def call_failed(self, call: Union[Call, Answer], error: BaseException) -> None:
        """A call ended with an error."""

    def registrations(self) -> list[messages.Message]:
        """Everything this worker has registered, to be registered again. Any thread."""
        raise NotImplementedError

    def run_soon(self, function: Callable[[], None]) -> None:
        """Run a callback on a handler thread. Any thread."""

    def trigger_message(self, link: Link, message: messages.Message) -> None:
        """A trigger of a type of this worker comes or goes, or one of this worker's was refused."""

    def link_ended(self, link: Link) -> None:
        """What came in on this link counts no more."""

    def gave_up(self) -> None:
        """There will be no link any more; :attr:`Session.fatal` says why. Any thread."""


class Link:
    """One control connection; the receiver of its frames."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._buffer = bytearray(64 * 1024)
        self._texts = frames.TextAssembler(session.options.max_payload + _INBOUND_EXTRA)
        self.connection: Optional[Connection] = None
        self.answers: Optional[RepeatedAnswers] = None
        self.hello: Pending = Pending()
        self.worker_id: Optional[str] = None
        self.token: Optional[str] = None
        self.since: float = time.monotonic()
        self.pinged: float = 0.0  # when the oldest ping was sent that nothing has followed; reader thread only
        self.rejections: dict[str, messages.Message] = {}  # function id -> refusal; under the session's lock

    def attached(self, connection: Connection) -> None:
        self.connection = connection
        self.answers = RepeatedAnswers(self._session._loop, connection)

    def buffer(self) -> bytearray:
        return self._buffer

    def received(self, pieces: list[frames.Piece], size: int, more: bool) -> bool:
        for opcode, payload, end in pieces:
            if opcode != frames.TEXT:
                continue  # the engine sends text only (PROTOCOL 1.5)
            text = self._texts.add(payload, end)
            if text is None:
                continue
            if self._texts.oversize:
                self._session._received_oversize(self, text, self._texts.oversize)
            else:
                message = messages.decode(text)
                if message is not None:
                    self._session._received(self, message)
        return True

    def ended(self, error: Optional[BaseException], close: Optional[frames.CloseReason]) -> None:
        self._session._link_ended(self, error)

    def send_soon(self, message: messages.Message) -> None:
        """Send from the reader thread, which must not wait."""
        assert self.connection is not None
        self.connection.send_soon(frames.encode_frame(frames.TEXT, messages.encode(message)))

    def answer_soon(self, message: messages.Message) -> None:
        """Answer an invocation from the reader thread, which must not wait."""
        assert self.connection is not None and self.answers is not None
        frame = frames.encode_frame(frames.TEXT, messages.encode(message))
        self.connection.send_soon(frame)
        self.answers.sent(frame)


class Session:
    """See the module.

    Args:
        address: Where the engine is.
        options: The worker's.
        loop: The reader thread.
        handlers: The worker.
    """

    def __init__(self, address: Address, options: InitOptions, loop: Loop, handlers: Handlers) -> None:
        self.address = address
        self.options = options
        self._loop = loop
        self._handlers = handlers
        self._lock = Condition()
        self._state: ConnectionState = "disconnected"
        self._link: Optional[Link] = None
        self._attempt: Optional[Link] = None  # a link that is not current yet
        self._previous: Optional[Link] = None
        self._pending: dict[str, tuple[Union[Call, Answer], Link]] = {}
        self._fatal: Optional[BaseException] = None
        self._closing = Event()
        self._reconnecting = False
        self._tries = 0  # since the last stable link
        self._lost: Optional[BaseException] = None  # why there is no link
        self._news: deque[tuple[ConnectionState, list[Callable[[ConnectionState], object]]]] = deque()
        self._telling = False
        self._listeners: list[Callable[[ConnectionState], object]] = []
        # Several workers of one process need several names.
        self.worker_name: str = options.worker_name or f"{socket.gethostname()}:{os.getpid()}-{os.urandom(3).hex()}"

    # --- callers ---------------------------------------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """``connecting``, ``connected``, ``reconnecting``, ``disconnected`` or ``failed``."""
        return self._state

    @property
    def fatal(self) -> Optional[BaseException]:
        """Why the session gave up, if it did."""
        return self._fatal

    @property
    def worker_id(self) -> Optional[str]:
        """The engine's id for the last link."""
        link = self._link or self._previous
        return link.worker_id if link is not None else None

    def open(self) -> None:
        """Make the first link.

        Blocks at most ``connect_timeout`` for the socket, again for the hello, and again for the name.

        Raises:
            EngineConnectionError: It could not be made, unless ``keep_trying`` is set.
            RegistrationRejectedError: The name is taken.
        """
        self._set_state("connecting")
        try:
            self._make_link()
        except (EngineConnectionError, EngineTimeoutError) as exc:
            if not self.options.keep_trying or isinstance(exc, AuthenticationError):
                self._set_state("failed")
                raise
            _log.warning("no connection yet, trying on in the background: %s", exc)
            self._tries, self._lost = 1, exc
            self._start_reconnecting()
        except BaseException:
            self._set_state("failed")
            raise

    def ask(self, function_id: str, message: messages.Message, deadline: Deadline) -> Answer:
        """Send an invocation that carries no references, and wait for its answer.

        Blocks until it is there, at most until ``deadline``.

        Raises:
            CallTimeout: No answer in time.
            InvocationError: The answer is an error.
            ConnectionLostError: There was no link, or it broke; ``may_have_run`` says which.
            PayloadTooLargeError: Too large for a message.
        """
        answer = Answer(function_id, message["invocation_id"])
        self._send_call(function_id, message, answer, deadline)
        there = False
        try:
            there = answer.wait(deadline.remaining())
        finally:
            if not there:
                self._forget(answer)
        if not there:
            raise CallTimeout(
                "TIMEOUT",
                f"no answer within {deadline.timeout:g} s, the function may still be running",
                function_id,
                answer.invocation_id,
            )
        if answer.error is not None:
            raise fresh(answer.error)
        return answer

    def call(
        self,
        function_id: str,
        message: messages.Message,
        refs: list[PassedRef],
        deadline: Deadline,
        *,
        answered: bool = True,
    ) -> Optional[Call]:
        """Send an invocation.

        Blocks until there is a link and until the message has left, at most until ``deadline``.

        Args:
            function_id: The function.
            message: The frame; its ``invocation_id`` is the call's.
            refs: The channel ends it carries.
            deadline: For getting it out.
            answered: Whether there will be an answer to wait for.

        Raises:
            ConnectionLostError: There was no link, or it broke; ``may_have_run`` says which.
            PayloadTooLargeError: Too large for a message.
        """
        call = self._new_call(function_id, message["invocation_id"], refs) if answered else None
        self._send_call(function_id, message, call, deadline)
        return call

    def _send_call(
        self, function_id: str, message: messages.Message, call: Union[Call, Answer, None], deadline: Deadline
    ) -> None:
        data = _frames(self.encoded(message, function_id))
        link: Optional[Link] = None
        while True:
            link = self._wait_for_link(deadline, function_id, after=link)
            connection = link.connection
            assert connection is not None
            begun: list[bool] = []
            try:
                connection.in_turn(deadline, self._send_entered, call, link, connection, data, deadline, begun)
                return
            except Exception as exc:
                if begun:
                    raise _not_sent(exc, function_id, message) from exc
                if connection.error is None:
                    raise _not_sent(exc, function_id, message) from None
                # It has ended, and took nothing: the next one will do as well.

    def _send_entered(
        self,
        call: Union[Call, Answer, None],
        link: Link,
        connection: Connection,
        data: bytes,
        deadline: Deadline,
        begun: list[bool],
    ) -> None:
        """With the turn: enter the call into the table and send it, or neither."""
        begun.append(True)
        try:
            if call is not None:
                self._enter(call, link)
            connection.send(data, deadline)
        except BaseException:
            if call is not None:
                self._forget(call)
            raise

    def encoded(self, message: messages.Message, function_id: str) -> bytes:
        """Return the message as it travels; refuses what is too large."""
        data = messages.encode(message)
        if len(data) > self.options.max_payload:
            raise PayloadTooLargeError(
                "payload_too_large",
                f"the message has {len(data):,} bytes, the limit max_payload is {self.options.max_payload:,}; "
                "send such data through a channel",
                function_id,
                message.get("invocation_id"),
            )
        return data

    def send(self, link: Link, data: bytes, deadline: Deadline) -> None:
        """Send one encoded message; blocks at most until ``deadline``, raises what broke the link."""
        self._send_frames(link, _frames(data), deadline)

    def _send_frames(self, link: Link, encoded: bytes, deadline: Deadline) -> None:
        connection = link.connection
        assert connection is not None
        connection.in_turn(deadline, connection.send, encoded, deadline)

    def register(self, registration: messages.Message) -> None:
        """Send one registration and wait until the engine has taken it.

        Without a link it waits for the next one, which registers everything anyway. Blocks at most
        ``connect_timeout``.

        Raises:
            RegistrationRejectedError: The engine refused a function. What it said to a trigger was given to
                ``Handlers.trigger_message`` when this returns.
            PermissionDeniedError: A function is not there afterwards: this worker may not register it.
            EngineTimeoutError: No confirmation in time.
            ConnectionLostError: No link in time.
        """
        deadline = Deadline(self.options.connect_timeout)
        # The function is what a trigger's own error messages are about, too.
        function_id: str = registration.get("function_id") or registration["id"]
        data = self.encoded(registration, function_id)
        link = self._wait_for_link(deadline, function_id)
        try:
            self.send(link, data, deadline)
            # What is called over HTTP is looked up by its worker, which can say more about it.
            if registration["type"] == "registerfunction" and "invocation" not in registration:
                self._confirm_function(link, function_id, deadline)
            else:
                self._confirm(link, deadline)
        except PermissionDeniedError:
            raise
        except Exception as exc:
            assert link.connection is not None
            if link.connection.error is not None:
                # Lost on the way: the next link has registered it, and knows whether it was refused.
                link = self._wait_for_link(deadline, function_id, after=link)
            elif isinstance(exc, TimeoutError) and not isinstance(exc, EngineTimeoutError):
                raise ConnectTimeout(f"{function_id} could not be registered: {exc}") from None
            else:
                raise
        if registration["type"] != "registerfunction":
            return  # refusals of triggers are told to the handlers
        with self._lock:
            refusal = link.rejections.pop(function_id, None)
        if refusal is not None:
            raise _rejection(refusal)

    def unregister(self, registration: messages.Message) -> None:
        """Send that a registration is taken back, if there is a link; else the next one never hears of it."""
        link = self._link
        if link is not None:
            try:
                message = messages.undo(registration)
                self.send(link, messages.encode(message), Deadline(self.options.connect_timeout))
            except (EngineConnectionError, TimeoutError):
                _log.debug("not unregistered: the connection broke", exc_info=True)

    def answer(self, link: Link, message: messages.Message) -> None:
        """Answer an invocation that came in on ``link``; an answer that comes too late is dropped.

        Raises:
            PayloadTooLargeError: The answer is too large for a message.
        """
        encoded = _frames(self.encoded(message, message["function_id"]))
        try:
            self._send_frames(link, encoded, Deadline(self.options.connect_timeout * 6, silence=True))
            if message["type"] == "invocationresult":
                assert link.answers is not None
                link.answers.sent(encoded)
        except (EngineConnectionError, WorkerClosedError, TimeoutError):
            _log.debug("the answer of %s could not be sent", message["function_id"], exc_info=True)

    def add_listener(self, listener: Callable[[ConnectionState], object]) -> Callable[[], None]:
        """Call ``listener(state)`` on a handler thread at every change; returns what ends that."""
        with self._lock:
            self._listeners.append(listener)

        def remove() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return remove

    def say_goodbye(self, timeout: float) -> None:
        """Close the link, and make no other. Blocks at most ``timeout`` seconds."""
        self._closing.set()
        with self._lock:
            # For a moment the link that was just made is both.
            links = {link for link in (self._link, self._attempt) if link is not None}
            self._link = None
            self._lock.notify_all()
        deadline = Deadline(timeout)
        for link in links:
            connection = link.connection
            if connection is None:
                continue
            try:
                connection.in_turn(deadline, _send_close, link, deadline)
            except (IIISyncError, TimeoutError):
                connection.drop(WorkerClosedError("the worker was shut down"))

    def close(self, timeout: float) -> None:
        """Say goodbye, and fail every call that waits. Blocks at most ``timeout`` seconds."""
        self.say_goodbye(timeout)
        self._fail_calls(None, WorkerClosedError("the worker was shut down"))
        self._set_state("disconnected")

    # --- making a link ---------------------------------------------------------------------------------

    def _make_link(self) -> None:
        options = self.options
        route = Route(options.all_headers(), options.ssl_context, options.proxy)
        sock = connect(self.address, self.address.url, route, options.connect_timeout)
        link = Link(self)
        with self._lock:
            # Either say_goodbye() finds the attempt, or the attempt finds that it has been said.
            if self._closing.is_set():
                sock.close()
                raise WorkerClosedError("the worker was shut down")
            connection = Connection(sock, self._loop, link, f"the engine at {self.address}")
            self._attempt = link
        connection.start()
        try:
            self._introduce(link)
        except BaseException as exc:
            connection.drop(exc if isinstance(exc, Exception) else EngineConnectionError("interrupted"))
            if isinstance(exc, TimeoutError) and not isinstance(exc, EngineTimeoutError):
                raise ConnectTimeout(f"{self.address} does not take what it is sent: {exc}") from None
            raise
        finally:
            with self._lock:
                self._attempt = None

    def _introduce(self, link: Link) -> None:
        timeout = self.options.connect_timeout
        try:
            hello = link.hello.result(timeout)
        except (TimeoutError, FutureTimeoutError):
            raise ConnectTimeout(
                f"{self.address} opened a WebSocket but no engine said hello within {timeout:g} s"
            ) from None
        link.worker_id = hello.get("worker_id")
        link.token = hello.get("reattach_token")
        deadline = Deadline(timeout)
        previous = self._previous
        if previous is not None and previous.worker_id is not None:
            self.send(link, messages.encode(messages.reattach(previous.worker_id, previous.token)), deadline)
        self._call_and_wait(link, "engine::workers::register", self._announcement(), deadline)
        # The previous link is evicted for certain, and this one holds the name: it is what the next must evict.
        self._previous = link
        done: list[messages.Message] = []
        # What is registered or taken back from here on finds the link current, or is in the next round's list.
        while not self._make_current(link, done):
            wanted = self._handlers.registrations()
            for item in _missing(done, wanted):
                self.send(link, messages.encode(messages.undo(item)), deadline)
            for item in _missing(wanted, done):
                self.send(link, messages.encode(item), deadline)
            self._confirm(link, deadline)
            done = wanted
        for function_id, refusal in list(link.rejections.items()):
            _log.error("%s could not be registered again: %s", function_id, _rejection(refusal))

    def _make_current(self, link: Link, registered: list[messages.Message]) -> bool:
        with self._lock:
            wanted = self._handlers.registrations()
            if _missing(wanted, registered) or _missing(registered, wanted):
                return False
            if self._closing.is_set():
                raise WorkerClosedError("the worker was shut down")
            assert link.connection is not None
            if link.connection.error is not None:
                raise fresh(link.connection.error)
            self._link = link
            link.since = time.monotonic()
            self._lock.notify_all()
        self._set_state("connected", link)
        self._loop.call_later(_PING_EVERY, lambda: self._keep_alive(link))
        return True

    def _announcement(self) -> dict[str, Any]:
        import platform

        from .options import MAX_PAYLOAD

        options = self.options
        data: dict[str, Any] = {
            "runtime": "python",
            "version": _version.__version__,
            "name": self.worker_name,
            "os": f"{platform.system()} {platform.release()} ({platform.machine()})",
            "pid": os.getpid(),
            "telemetry": {
                "language": (os.environ.get("LANG") or "").partition(".")[0] or None,
                "framework": "iii-sync",
            },
        }
        optional = {
            "description": options.worker_description,
            "namespace": options.namespace,
            "isolation": (os.environ.get("III_ISOLATION") or "").strip(),
            # What is larger than this worker takes is answered, not fatal; but one that never asked for more than
            # the usual size is spared the traffic, and its callers hear it from the engine (DELTA 0.25, 4).
            "features": ["large-messages.v1"] if options.max_payload > MAX_PAYLOAD else None,
        }
        data.update({key: value for key, value in optional.items() if value})
        return data

    def _call_and_wait(self, link: Link, function_id: str, data: Any, deadline: Deadline) -> Any:
        invocation_id = messages.new_id()
        message = messages.invoke_function(function_id, data, invocation_id=invocation_id)
        call = self._new_call(function_id, invocation_id, [])
        self._enter(call, link)
        try:
            self.send(link, messages.encode(message), deadline)
            return call.result(deadline.remaining())
        except ConnectionLostError:
            assert link.connection is not None
            raise fresh(link.connection.error or ConnectionLostError("the connection ended")) from None
        except InvocationError as exc:
            if exc.code == "TIMEOUT":
                raise ConnectTimeout(
                    f"{self.address} did not answer {function_id} within {deadline.timeout:g} s"
                ) from None
            raise
        finally:
            self._forget(call)

    def _confirm(self, link: Link, deadline: Deadline) -> None:
        self._call_and_wait(link, _CONFIRMING, {"key": "iii_sync"}, deadline)

    def _confirm_function(self, link: Link, function_id: str, deadline: Deadline) -> None:
        """Wait until the engine has dealt with a function, and find out whether it is there.

        An engine that does not allow it says nothing at all (PROTOCOL 8.5), so the function is looked up. Where that
        is not allowed either, nobody can tell, and the registration counts as taken.

        Raises:
            PermissionDeniedError: It is not there, under its id or with a prefix before it (PROTOCOL 8.4).
        """
        namespace = self.options.namespace or "default"
        try:
            self._call_and_wait(
                link, "engine::functions::info", {"function_id": function_id, "namespace": namespace}, deadline
            )
            return
        except InvocationError as exc:
            with self._lock:
                rejected = function_id in link.rejections
            if exc.code != "NOT_FOUND" or rejected:
                return
        try:
            about = self._call_and_wait(
                link, "engine::workers::info", {"name": self.worker_name, "namespace": namespace}, deadline
            )
            known = [item["function_id"] for item in about["functions"]]
        except (InvocationError, KeyError, TypeError):
            _log.debug("%s is not listed; it may have been given a prefix, or refused", function_id)
            return
        if not any(name == function_id or name.endswith(f"::{function_id}") for name in known):
            raise PermissionDeniedError(
                "FORBIDDEN",
                "the engine did not take the registration and does not say why; as a rule this worker may not register "
                "the function (allow_function_registration, or the listener's hook for registrations)",
                function_id,
            )

    def _wait_for_link(self, deadline: Deadline, function_id: str, after: Optional[Link] = None) -> Link:
        link = self._link
        if link is not None and link is not after and link.connection and link.connection.error is None:
            return link
        with self._lock:
            while True:
                if self._fatal is not None:
                    raise fresh(self._fatal)
                if self._closing.is_set():
                    raise WorkerClosedError("the worker was shut down")
                link = self._link
                # One that broke just now is still the current one until the reader thread takes note.
                if link is not None and link is not after and link.connection and link.connection.error is None:
                    return link
                if not self._lock.wait(deadline.remaining()) and deadline.expired:
                    raise ConnectionLostError(
                        f"{function_id}: not sent, {self.address} could not be reached for {deadline.timeout:g} s",
                        may_have_run=False,
                    )

    # --- pending calls ---------------------------------------------------------------------------------

    def _new_call(self, function_id: str, invocation_id: str, refs: list[PassedRef]) -> Call:
        return Call(
            function_id,
            invocation_id,
            forget=self._forget,
            run_callback=self._handlers.run_soon,
            refs=refs,
        )

    def _enter(self, call: Union[Call, Answer], link: Link) -> None:
        """Enter a call into the table, before it is sent.

        So nobody misses an end of the link: one that was before this makes the sending fail, and one that
        comes later finds the call here.
        """
        with self._lock:
            self._pending[call.invocation_id or ""] = (call, link)

    def _forget(self, call: Union[Call, Answer]) -> None:
        with self._lock:
            self._pending.pop(call.invocation_id or "", None)

    def _fail_calls(self, link: Optional[Link], reason: BaseException) -> None:
        """Fail the calls of one link, or of all."""
        with self._lock:
            lost = [call for call, on in self._pending.values() if link is None or on is link]
            for call in lost:
                self._pending.pop(call.invocation_id or "", None)
        for call in lost:
            error: BaseException
            if isinstance(reason, WorkerClosedError):
                error = WorkerClosedError(f"{call.function_id}: the worker was shut down before the answer came")
            else:
                error = ConnectionLostError(
                    f"{call.function_id}: the connection ended before the answer came ({reason}); whether the "
                    "function ran is unknown"
                )
            error.__cause__ = reason
            self._settle(call, None, error)

    def _settle(self, call: Union[Call, Answer], result: Any, error: Optional[BaseException]) -> None:
        if call._settle(result, error) and error is not None:
            self._handlers.call_failed(call, error)

    # --- the reader thread -----------------------------------------------------------------------------

    def _received(self, link: Link, message: messages.Message) -> None:
        kind = message["type"]
        if kind == "invocationresult":
            self._received_result(message)
        elif kind == "invokefunction":
            if isinstance(message.get("invocation_id"), str) and isinstance(message.get("function_id"), str):
                self._handlers.invoked(link, message)
        elif kind == "workerregistered":
            self._received_hello(link, message)
        elif kind == "registrationrejected":
            self._received_rejection(link, message)
        elif kind in ("registertrigger", "unregistertrigger", "triggerregistrationresult"):
            self._handlers.trigger_message(link, message)
        elif kind == "error":
            error = message.get("error")
            text = error.get("message") if isinstance(error, dict) else error
            code = error.get("code") if isinstance(error, dict) else None
            why = f"{brief(text, 1000)} [{brief(code)}]"
            self._refused(link, AuthenticationError(f"{self.address} refused this worker: {why}"))
        elif kind == "ping":
            link.send_soon({"type": "pong"})

    def _received_hello(self, link: Link, message: messages.Message) -> None:
        if link.hello.done():
            return
        worker_id, token = message.get("worker_id"), message.get("reattach_token")
        if not isinstance(worker_id, str) or not (token is None or isinstance(token, str)):
            self._refused(link, EngineConnectionError(f"{self.address} said hello, but not as an engine does"))
            return
        link.hello.set_result(message)

    def _received_result(self, message: messages.Message) -> None:
        invocation_id = message.get("invocation_id")
        with self._lock:
            entry = self._pending.pop(invocation_id, None) if isinstance(invocation_id, str) else None
        if entry is None:
            return  # given up, or never asked for (PROTOCOL E-30)
        call = entry[0]
        error = message.get("error")
        if error is not None:
            self._settle(call, None, invocation_error(error, call.function_id, call.invocation_id))
        else:
            self._settle(call, message.get("result"), None)

    def _received_rejection(self, link: Link, message: messages.Message) -> None:
        function_id = message.get("function_id")
        if isinstance(function_id, str):
            # Of ours only: what nobody looks up would stay for as long as the link.
            ours = self._handlers.registrations()
            if any(item["id"] == function_id and item["type"] == "registerfunction" for item in ours):
                with self._lock:
                    link.rejections[function_id] = message
        elif function_id is None:
            self._refused(link, _rejection(message))

    def _refused(self, link: Link, error: BaseException) -> None:
        """The engine does not want this link: that is the reason of its end, not the Close that follows."""
        assert link.connection is not None
        link.connection.on_broken(error)

    def _received_oversize(self, link: Link, start: str, size: int) -> None:
        """A message that was not kept: tell whoever waits, and go on (PROTOCOL E-34)."""
        limit = self.options.max_payload + _INBOUND_EXTRA
        text = f"a message of {size:,} bytes is above this worker's limit of {limit:,}; use a channel"
        found = messages.mentioned_invocation(start)
        _log.error("%s; it was dropped: %s", text, found[2] if found else "no call")
        if found is None:
            return
        kind, invocation_id, function_id = found
        body = {"code": "payload_too_large", "message": text}
        if kind == "invocationresult":
            self._received_result({"invocation_id": invocation_id, "error": body})
        else:
            link.answer_soon(messages.invocation_result(invocation_id, function_id, error=body))

    def _link_ended(self, link: Link, error: Optional[BaseException]) -> None:
        reason = error or (link.connection.error if link.connection is not None else None)
        reason = reason or EngineConnectionError(f"the engine at {self.address} closed the connection")
        if self._closing.is_set():
            reason = WorkerClosedError("the worker was shut down")
        if not link.hello.done():
            link.hello.set_exception(reason)
        with self._lock:
            current = self._link is link
            if current:
                self._link = None
                self._lost = reason
                if time.monotonic() - link.since > _STABLE_AFTER:
                    self._tries = 0
        self._fail_calls(link, reason)
        self._handlers.link_ended(link)
        if current and not self._closing.is_set():
            # One outage is told once: a link that does not last is still the same one.
            level = logging.INFO if self._tries else logging.WARNING
            _log.log(level, "connection lost, calls under way have failed; reconnecting: %s", reason)
            # Starting a thread may wait for it to run, but for nothing else.
            self._start_reconnecting()

    def _keep_alive(self, link: Link) -> None:
        connection = link.connection
        if self._link is not link or connection is None or connection.error is not None:
            return
        now = time.monotonic()
        if connection.last_received >= link.pinged:
            link.pinged = now
        elif now - link.pinged > _DEAD_AFTER:
            silent = now - connection.last_received
            connection.on_broken(
                EngineConnectionError(f"{self.address} answers no ping, and has been silent for {silent:.0f} s")
            )
            return
        connection.send_soon(frames.encode_frame(frames.PING))
        self._loop.call_later(_PING_EVERY, lambda: self._keep_alive(link))

    # --- reconnecting ----------------------------------------------------------------------------------

    def _start_reconnecting(self) -> None:
        with self._lock:
            if self._reconnecting or self._closing.is_set() or self._link is not None:
                return
            self._reconnecting = True
        self._set_state("reconnecting")
        try:
            threading.Thread(target=self._reconnect, name="iii-reconnect", daemon=True).start()
        except RuntimeError as exc:
            _log.error("no thread can be started to reconnect, trying again: %s", exc)
            with self._lock:
                self._reconnecting = False
            self._loop.call_later(1.0, self._start_reconnecting)

    def _reconnect(self) -> None:
        started = time.monotonic()
        refused_since: Optional[float] = None
        retries = self.options.reconnection_config.max_retries
        error = self._lost or EngineConnectionError("no connection")
        try:
            while retries is None or self._tries < retries:
                if self._closing.wait(self._delay(started)):
                    return
                self._tries += 1
                try:
                    self._make_link()
                    _log.info("connected to %s again, after %.1f s", self.address, time.monotonic() - started)
                    return
                except (AuthenticationError, RegistrationRejectedError, InvocationError) as exc:
                    error = exc
                    refused_since = refused_since or time.monotonic()
                    if time.monotonic() - refused_since >= _REFUSED_FOR:
                        break
                except (EngineConnectionError, EngineTimeoutError) as exc:
                    error, refused_since = exc, None
                except Exception as exc:
                    error = exc
                    break
                _log.debug("not reconnected: %s", error)
            self._give_up(error)
        finally:
            with self._lock:
                self._reconnecting = False
                lost_again = self._link is None and self._fatal is None
            if lost_again and not self._closing.is_set():
                self._start_reconnecting()

    def _delay(self, started: float) -> float:
        import random

        config = self.options.reconnection_config
        if not self._tries:
            return 0.0
        delay = config.initial_delay * config.backoff_multiplier ** min(self._tries - 1, 30)
        limit = config.max_delay
        if time.monotonic() - started < _EAGER_FOR:
            limit = min(limit, 1.0)
        return min(delay, limit) * (1 - config.jitter_factor * random.random())

    def _give_up(self, error: BaseException) -> None:
        with self._lock:
            if self._closing.is_set():
                return
            self._fatal = error
            self._lock.notify_all()
        _log.error("giving up on %s: %s", self.address, error)
        self._set_state("failed")
        self._handlers.gave_up()

    def _set_state(self, state: ConnectionState, link: Optional[Link] = None) -> None:
        """Tell the listeners of a new state; with ``link`` only while that is current."""
        with self._lock:
            if link is not None and self._link is not link:
                return  # lost again already, and that was told first
            if self._state == state or (self._closing.is_set() and state != "disconnected"):
                return
            self._state = state
            if not self._listeners:
                return  # no thread for nobody
            self._news.append((state, list(self._listeners)))
            if self._telling:
                return  # whoever is telling tells this too, in its order
            self._telling = True
        self._handlers.run_soon(self._tell)

    def _tell(self) -> None:
        """Call the listeners, state by state. On a handler thread."""
        while True:
            with self._lock:
                if not self._news:
                    self._telling = False
                    return
                state, listeners = self._news.popleft()
            for listener in listeners:
                try:
                    listener(state)
                except Exception:
                    _log.exception("a connection state listener failed")


def _frames(data: bytes) -> bytes:
    return frames.encode_message(frames.TEXT, data, _FRAGMENT_ABOVE)


def _send_close(link: Link, deadline: Deadline) -> None:
    assert link.connection is not None and link.answers is not None
    link.connection.sent_close()
    link.connection.send(link.answers.take() + frames.close_frame(1000), deadline)


def _not_sent(exc: Exception, function_id: str, message: messages.Message) -> Exception:
    """What a call raises that could not be sent: half a message is none, so nobody can have run it."""
    if isinstance(exc, TimeoutError):
        return CallTimeout("TIMEOUT", f"the call could not be sent: {exc}", function_id, message.get("invocation_id"))
    if isinstance(exc, (WorkerClosedError, ConcurrencyError)):
        return exc
    return ConnectionLostError(f"{function_id}: not sent, the connection broke: {exc}", may_have_run=False)


def _missing(items: list[messages.Message], among: list[messages.Message]) -> list[messages.Message]:
    """Return the items that are not among others; a registration is the same object each time."""
    known = {id(item) for item in among}
    return [item for item in items if id(item) not in known]


def _rejection(message: messages.Message) -> RegistrationRejectedError:
    """Turn a ``registrationrejected`` frame into its exception."""
    code, owner = brief(message.get("code")), message.get("owner_worker_id")
    namespace = message.get("namespace")
    if message.get("function_id") is not None:
        what = f"function {brief(message['function_id'])!r}"
    else:
        what = f"worker name {brief(message.get('worker_name'))!r}"
    holder = f"by worker {brief(owner)}" if owner else "by the engine"
    return RegistrationRejectedError(
        f"{what} is taken in namespace {brief(namespace)!r} {holder} [{code}]",
        code,
        namespace if isinstance(namespace, str) else None,
        owner if isinstance(owner, str) else None,
    )
