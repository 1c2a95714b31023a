"""The control connection of a worker: made, announced, lost, made again; and the calls under way on it.

Theory of operation. A *link* is one control connection, from its socket to its end. At any time at most
one link is current; calls go out on it and their answers come in on it. When it ends, however it ends, every
call that went out on it fails at once, for the engine has forgotten them (PROTOCOL 2.7), and a thread makes the
next one: connect, hello, ``reattach``, ``engine::workers::register``, the registrations, and only then is the
link current and callers go on. A call that had not left whole when its link ended is its sender's: nobody can
have run it. Unless its sender had no more time: the rest of it follows then, and it counts as sent.

States, of which listeners are told:

=================  ==============================  ==========================================================
state              what happens                    next state
=================  ==============================  ==========================================================
``disconnected``   :meth:`Session.open`            ``connecting``
``connecting``     the first link is made          ``connected``
``connecting``     it cannot be made               ``failed``; with ``keep_trying`` ``reconnecting``
``connected``      its link ends, however          ``reconnecting``
``reconnecting``   a link is made                  ``connected``
``reconnecting``   no more tries, or refused       ``failed``
any                the worker is shut down         ``disconnected``, the last one
=================  ==============================  ==========================================================

Threads. ``received`` and ``ended`` run on the reader thread and never block. Everything else runs in
callers' threads or in the reconnecting thread. ``_lock`` guards the fields; it is a leaf: nothing is sent,
waited for or called back while it is held (but for its own ``wait``, which lets it go); what it may be
taken with is in :mod:`iii_sync.net.waiting`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol, Union

from ..calls import Answer, Call, PassedRef
from ..errors import (
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
    WorkerClosedError,
    brief,
    fresh,
)
from ..net.connect import Address, Route, connect
from ..net.connection import Connection
from ..net.loop import Loop
from ..net.waiting import Condition, Deadline, Event
from ..wire import frames, messages
from .announcing import announcement
from .link import INBOUND_EXTRA, Link, encoded_frames
from .pending import PendingCalls
from .reconnecting import Reconnecting
from .registering import Offers, Registering, missing, rejection
from .states import ConnectionState, States

if TYPE_CHECKING:
    from ..options import InitOptions

__all__ = ["Handlers", "Session"]

_log = logging.getLogger("iii_sync.worker")


class Handlers(Offers, Protocol):
    """What the session tells its worker. Called on the reader thread, unless it says more; must not block."""

    def invoked(self, link: Link, message: messages.Message) -> None:
        """Somebody calls a function of this worker."""

    def trigger_message(self, link: Link, message: messages.Message) -> None:
        """A trigger of a type of this worker comes or goes, or one of this worker's was refused."""

    def link_ended(self, link: Link) -> None:
        """What came in on this link counts no more."""


class Session:
    """See the module.

    Args:
        address: Where the engine is.
        options: The worker's.
        loop: The reader thread.
        run_soon: Runs a callback on a handler thread.
        call_failed: Is told of a call that ended with an error; on the reader thread, as a rule.

    Attributes:
        closing: Set when no link is to be made any more.
    """

    _handlers: Handlers
    _gave_up: Callable[[], object]

    def __init__(
        self,
        address: Address,
        options: InitOptions,
        loop: Loop,
        run_soon: Callable[[Callable[[], None]], None],
        call_failed: Callable[[Union[Call, Answer], BaseException], None],
    ) -> None:
        self.address = address
        self.options = options
        self.loop = loop
        self.closing: Event = Event()
        self._run_soon = run_soon
        self._lock = Condition()
        self._link: Optional[Link] = None
        self._attempt: Optional[Link] = None  # a link that is not current yet
        self._previous: Optional[Link] = None
        self._fatal: Optional[BaseException] = None
        self._states = States()
        self._pending = PendingCalls(run_soon, call_failed)
        self._registering = Registering(self)
        self._reconnecting = Reconnecting(self)
        # Several workers of one process need several names.
        self.worker_name: str = options.worker_name or f"{socket.gethostname()}:{os.getpid()}-{os.urandom(3).hex()}"

    # --- callers ---------------------------------------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """``connecting``, ``connected``, ``reconnecting``, ``disconnected`` or ``failed``."""
        return self._states.current

    @property
    def fatal(self) -> Optional[BaseException]:
        """Why the session gave up, if it did."""
        return self._fatal

    @property
    def worker_id(self) -> Optional[str]:
        """The engine's id for the last link."""
        link = self._link or self._previous
        return link.worker_id if link is not None else None

    def open(self, handlers: Handlers, gave_up: Callable[[], object]) -> None:
        """Make the first link.

        Blocks at most ``connect_timeout`` for the socket, again for the hello, and again for the name.

        Args:
            handlers: Is told of what comes in from then on.
            gave_up: Called, on any thread, when there will be no link any more; :attr:`fatal` says why.

        Raises:
            EngineConnectionError: It could not be made, unless ``keep_trying`` is set.
            RegistrationRejectedError: The name is taken.
        """
        self._handlers, self._gave_up = handlers, gave_up
        self._set_state("connecting")
        try:
            self.make_link()
        except (EngineConnectionError, EngineTimeoutError) as exc:
            if not self.options.keep_trying or isinstance(exc, AuthenticationError):
                self._set_state("failed")
                raise
            _log.warning("no connection yet, trying on in the background: %s", exc)
            self._reconnecting.first_try_failed(exc)
            self._reconnecting.start()
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
        there = False
        try:
            self._send_call(function_id, message, answer, deadline)
            there = answer.wait(deadline.remaining())
        finally:
            if not there:
                self._pending.forget(answer)
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

        Blocks until there is a link and until the message has left, at most until ``deadline``. When a part of it has
        left by then, the rest follows.

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
        call = self._pending.new_call(function_id, message["invocation_id"], refs) if answered else None
        self._send_call(function_id, message, call, deadline)
        return call

    def _send_call(
        self, function_id: str, message: messages.Message, call: Union[Call, Answer, None], deadline: Deadline
    ) -> None:
        data = encoded_frames(self.encoded(message, function_id))
        link: Optional[Link] = None
        while True:
            link = self.wait_for_link(deadline, function_id, after=link)
            connection = link.connection
            assert connection is not None
            begun: list[bool] = []
            try:
                whole = connection.in_turn(deadline, self._send_entered, call, link, connection, data, deadline, begun)
            except Exception as exc:
                if begun:
                    raise _not_sent(exc, function_id, message) from exc
                if connection.error is None:
                    raise _not_sent(exc, function_id, message) from None
                # It has ended, and took nothing: the next one will do as well.
            else:
                if call is None and not whole:  # who waits for an answer learns by that
                    raise CallTimeout(
                        "TIMEOUT",
                        f"only a part has left within {deadline.timeout:g} s; the rest follows, so it may still run",
                        function_id,
                    )
                return

    def _send_entered(
        self,
        call: Union[Call, Answer, None],
        link: Link,
        connection: Connection,
        data: bytes,
        deadline: Deadline,
        begun: list[bool],
    ) -> bool:
        """With the turn: enter the call into the table and send it, or neither; whether all of it has left in time."""
        begun.append(True)
        try:
            if call is not None:
                self._pending.enter(call, link)
            return connection.send(data, deadline, leave=True)
        except BaseException:
            if call is not None:
                self._pending.forget(call)
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
        self._send_frames(link, encoded_frames(data), deadline)

    def _send_frames(self, link: Link, encoded: bytes, deadline: Deadline) -> None:
        connection = link.connection
        assert connection is not None
        connection.in_turn(deadline, connection.send, encoded, deadline)

    def register(self, registration: messages.Message) -> None:
        """Send one registration and wait until the engine has taken it; see :meth:`.Registering.register`."""
        self._registering.register(registration)

    def unregister(self, registration: messages.Message) -> None:
        """Send that a registration is taken back, if there is a link; else the next one never hears of it."""
        link = self._link
        if link is not None:
            data = encoded_frames(messages.encode(messages.undo(registration)))
            try:
                self._send_frames(link, data, Deadline(self.options.connect_timeout))
            except EngineConnectionError:
                _log.debug("not unregistered: the connection broke", exc_info=True)
            except TimeoutError:
                assert link.connection is not None
                link.connection.send_behind(data)  # a large message is under way, or the engine takes nothing

    def answer(self, link: Link, message: messages.Message) -> None:
        """Answer an invocation that came in on ``link``; an answer that comes too late is dropped.

        Raises:
            PayloadTooLargeError: The answer is too large for a message.
        """
        encoded = encoded_frames(self.encoded(message, message["function_id"]))
        try:
            self._send_frames(link, encoded, Deadline(self.options.connect_timeout * 6, silence=True))
            if message["type"] == "invocationresult":
                assert link.answers is not None
                link.answers.sent(encoded)
        except (EngineConnectionError, WorkerClosedError):
            _log.debug("the answer of %s could not be sent", message["function_id"], exc_info=True)
        except TimeoutError as exc:
            # The engine takes nothing, and the caller would wait for ever: with the link, it fails his call.
            assert link.connection is not None
            name = message["function_id"]
            link.connection.drop(EngineConnectionError(f"the answer of {name} could not be sent: {exc}"))

    def add_listener(self, listener: Callable[[ConnectionState], object]) -> Callable[[], None]:
        """Call ``listener(state)`` on a handler thread at every change; returns what ends that."""
        return self._states.add_listener(listener)

    def fail(self, call: Call, error: BaseException) -> None:
        """End a call with an error, unless it has ended; its answer is dropped. Any thread."""
        self._pending.forget(call)
        self._pending.settle(call, None, error)

    def say_goodbye(self, timeout: float) -> None:
        """Close the link, and make no other. Blocks at most ``timeout`` seconds."""
        self.closing.set()
        with self._lock:
            links = {self._link, self._attempt}  # for a moment the link that was just made is both
            self._link = None
            self._lock.notify_all()
        deadline = Deadline(timeout)
        for link in links:
            connection = None if link is None else link.connection
            if connection is None:
                continue
            try:
                connection.in_turn(deadline, _send_close, link, deadline)
            except (IIISyncError, TimeoutError):
                connection.drop(WorkerClosedError("the worker was shut down"))

    def closed(self) -> None:
        """Fail every call that waits: the worker has ended. Does not block; may be called again."""
        self._pending.fail(None, WorkerClosedError("the worker was shut down"))
        self._set_state("disconnected")

    # --- making a link ---------------------------------------------------------------------------------

    def make_link(self) -> None:
        options = self.options
        route = Route(options.all_headers(), options.ssl_context, options.proxy)
        sock = connect(self.address, self.address.url, route, options.connect_timeout, self.loop.attempts)
        link = Link(self)
        with self._lock:
            # Either say_goodbye() finds the attempt, or the attempt finds that it has been said.
            if self.closing.is_set():
                sock.close()
                raise WorkerClosedError("the worker was shut down")
            connection = Connection(sock, self.loop, link, f"the engine at {self.address}")
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
        self.call_and_wait(link, "engine::workers::register", announcement(self.options, self.worker_name), deadline)
        # The previous link is evicted for certain, and this one holds the name: it is what the next must evict.
        self._previous = link
        self._registering.replay(link, self._handlers, self._make_current, deadline)

    def _make_current(self, link: Link, registered: list[messages.Message]) -> bool:
        with self._lock:
            wanted = self._handlers.registrations()
            if missing(wanted, registered) or missing(registered, wanted):
                return False
            if self.closing.is_set():
                raise WorkerClosedError("the worker was shut down")
            assert link.connection is not None
            if link.connection.error is not None:
                raise fresh(link.connection.error)
            self._link = link
            link.since = time.monotonic()
            self._lock.notify_all()
        self._set_state("connected", link)
        link.keep_alive(lambda: self._link is link, self.address)
        return True

    def call_and_wait(self, link: Link, function_id: str, data: Any, deadline: Deadline) -> Any:
        invocation_id = messages.new_id()
        message = messages.invoke_function(function_id, data, invocation_id=invocation_id)
        call = self._pending.new_call(function_id, invocation_id, [])
        self._pending.enter(call, link)
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
            self._pending.forget(call)

    def wait_for_link(self, deadline: Deadline, function_id: str, after: Optional[Link] = None) -> Link:
        link = self._link
        if link is not None and link is not after and link.connection and link.connection.error is None:
            return link
        with self._lock:
            while True:
                if self._fatal is not None:
                    raise fresh(self._fatal)
                if self.closing.is_set():
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

    # --- the reader thread -----------------------------------------------------------------------------

    def received(self, link: Link, message: messages.Message) -> None:
        kind = message["type"]
        if kind == "invocationresult":
            self._pending.answered(message)
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

    def _received_rejection(self, link: Link, message: messages.Message) -> None:
        function_id = message.get("function_id")
        if isinstance(function_id, str):
            # The engine may know ours with a prefix before it (PROTOCOL 8.4).
            ids = [item["id"] for item in self._handlers.registrations() if item["type"] == "registerfunction"]
            ours = [one for one in ids if function_id == one or function_id.endswith(f"::{one}")]
            if ours:  # what nobody looks up would stay for as long as the link
                link.rejections[max(ours, key=len)] = message
        elif function_id is None:
            self._refused(link, rejection(message))

    def _refused(self, link: Link, error: BaseException) -> None:
        """The engine does not want this link: that is the reason of its end, not the Close that follows."""
        assert link.connection is not None
        link.connection.on_broken(error)

    def received_oversize(self, link: Link, start: str, size: int) -> None:
        """A message that was not kept: tell whoever waits, and go on (PROTOCOL E-34)."""
        limit = self.options.max_payload + INBOUND_EXTRA
        text = f"a message of {size:,} bytes is above this worker's limit of {limit:,}; use a channel"
        found = messages.mentioned_invocation(start)
        _log.error("%s; it was dropped: %s", text, found[2] if found else "no call")
        if found is None:
            return
        kind, invocation_id, function_id = found
        body = {"code": "payload_too_large", "message": text}
        if kind == "invocationresult":
            self._pending.answered({"invocation_id": invocation_id, "error": body})
        else:
            link.answer_soon(messages.invocation_result(invocation_id, function_id, error=body))

    def link_ended(self, link: Link, error: Optional[BaseException]) -> None:
        reason = error or (link.connection.error if link.connection is not None else None)
        reason = reason or EngineConnectionError(f"the engine at {self.address} closed the connection")
        if self.closing.is_set():
            reason = WorkerClosedError("the worker was shut down")
        if not link.hello.done():
            link.hello.set_exception(reason)
        with self._lock:
            current = self._link is link
            if current:
                self._link = None
                self._reconnecting.link_lost(reason, link.since)
        self._pending.fail(link, reason)
        self._handlers.link_ended(link)
        if current and not self.closing.is_set():
            # One outage is told once: a link that does not last is still the same one.
            level = logging.INFO if self._reconnecting.tries else logging.WARNING
            _log.log(level, "connection lost, calls under way have failed; reconnecting: %s", reason)
            self._reconnecting.start()

    # --- for what makes lost links again ----------------------------------------------------------------

    def has_link(self) -> bool:
        """Whether there is a current link."""
        return self._link is not None

    def has_given_up(self) -> bool:
        """Whether there will be no link any more."""
        return self._fatal is not None

    def reconnecting(self) -> None:
        """The first try is about to be made."""
        self._set_state("reconnecting")

    def give_up(self, error: BaseException) -> None:
        """There will be no more tries."""
        with self._lock:
            if self.closing.is_set():
                return
            self._fatal = error
            self._lock.notify_all()
        _log.error("giving up on %s: %s", self.address, error)
        self._set_state("failed")
        self._gave_up()

    # --- states ----------------------------------------------------------------------------------------

    def _set_state(self, state: ConnectionState, link: Optional[Link] = None) -> None:
        """Tell the listeners of a new state; with ``link`` only while that is current."""
        with self._lock:
            if link is not None and self._link is not link:
                return  # lost again already, and that was told first
            if self.closing.is_set() and state != "disconnected":
                return
            tell = self._states.change(state)
        if tell:
            self._run_soon(self._states.tell)


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
