"""How the engine is told what a worker offers, and how the worker learns whether that was taken.

The engine confirms no registration. It deals with the messages of a connection in their order, so the answer to a call
that was sent after a registration comes after whatever it had to say about that.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from ..errors import (
    ConnectTimeout,
    EngineTimeoutError,
    IIISyncError,
    InvocationError,
    PermissionDeniedError,
    RegistrationRejectedError,
    brief,
)
from ..net.waiting import Deadline, Event
from ..wire import messages
from .link import Link, encoded_frames
from .reconnecting import REFUSED_FOR

if TYPE_CHECKING:
    from ..options import InitOptions

__all__ = ["Offers", "Registering", "missing", "rejection"]

_log = logging.getLogger("iii_sync.worker")

#: Harmless, answered by the engine itself, and allowed for every worker (PROTOCOL 8.3): its answer comes
#: after the refusals of what was registered before it.
_CONFIRMING = "engine::baggage::get"

#: Seconds until a function that somebody else has taken is offered again.
_AGAIN_AFTER = 1.0


class Offers(Protocol):
    """What a worker has registered."""

    def registrations(self) -> list[messages.Message]:
        """Everything, to be registered again. Any thread."""
        raise NotImplementedError

    def function_told(self, registration: messages.Message, error: Optional[IIISyncError]) -> bool:
        """Note why a function is not served, or that it is; returns whether that is news. Does not block."""
        raise NotImplementedError


class Sends(Protocol):
    """What registrations are sent with: a session."""

    options: InitOptions
    worker_name: str
    closing: Event

    def encoded(self, message: messages.Message, function_id: str) -> bytes:
        """Return the message as it travels."""
        raise NotImplementedError

    def send(self, link: Link, data: bytes, deadline: Deadline) -> None:
        """Send one encoded message."""

    def wait_for_link(self, deadline: Deadline, function_id: str, after: Optional[Link] = None) -> Link:
        """Return the current link, or the one after ``after``."""
        raise NotImplementedError

    def call_and_wait(self, link: Link, function_id: str, data: Any, deadline: Deadline) -> Any:
        """Call a function of the engine and return its result."""


class Registering:
    """Registers what one worker offers: piece by piece, and all of it on a new link.

    Args:
        session: What it is sent with.
    """

    def __init__(self, session: Sends) -> None:
        self._session = session
        self._lock = threading.RLock()  # guards the two below, and that of no older link is told
        self._link: Optional[Link] = None  # the last one on which everything was registered
        self._under_way: set[str] = set()  # functions whose refusal register() raises

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
        session = self._session
        deadline = Deadline(session.options.connect_timeout)
        # The function is what a trigger's own error messages are about, too.
        function_id: str = registration.get("function_id") or registration["id"]
        data = session.encoded(registration, function_id)
        if registration["type"] != "registerfunction":
            self._register(registration, function_id, data, deadline)  # refusals of triggers are told to the handlers
            return
        with self._lock:
            self._under_way.add(function_id)
        try:
            link = self._register(registration, function_id, data, deadline)
            refusal = link.rejections.pop(function_id, None)
        finally:
            with self._lock:
                self._under_way.discard(function_id)
        if refusal is not None:
            raise rejection(refusal)

    def _register(self, registration: messages.Message, function_id: str, data: bytes, deadline: Deadline) -> Link:
        """Send a registration; returns the link on which the engine has had its say."""
        session = self._session
        link = session.wait_for_link(deadline, function_id)
        try:
            link.rejections.pop(function_id, None)  # of what was registered under this id before
            session.send(link, data, deadline)
            # What is called over HTTP is looked up by its worker, which can say more about it.
            if registration["type"] == "registerfunction" and "invocation" not in registration:
                self._confirm_function(link, function_id, deadline)
            else:
                self.confirm(link, deadline)
        except PermissionDeniedError:
            raise
        except Exception as exc:
            assert link.connection is not None
            if link.connection.error is not None:
                # Lost on the way: the next link has registered it, and knows whether it was refused.
                link = session.wait_for_link(deadline, function_id, after=link)
            elif isinstance(exc, TimeoutError) and not isinstance(exc, EngineTimeoutError):
                raise ConnectTimeout(f"{function_id} could not be registered: {exc}") from None
            else:
                raise
        return link

    def replay(
        self,
        link: Link,
        offers: Offers,
        make_current: Callable[[Link, list[messages.Message]], bool],
        deadline: Deadline,
    ) -> None:
        """Register everything on a new link, and make that the current one.

        What is registered or taken back meanwhile finds the link current, or is in the next round's list. Functions
        that the engine did not take are told, and those that somebody else has are offered again for a while, on a
        thread.

        Args:
            link: The link.
            offers: What there is to be registered.
            make_current: Makes the link the current one if what was registered on it is all there is.
            deadline: For all of it.
        """
        send = self._session.send
        done: list[messages.Message] = []
        refused: list[messages.Message] = []
        while not make_current(link, done):
            wanted = offers.registrations()
            for item in missing(done, wanted):
                send(link, messages.encode(messages.undo(item)), deadline)
            for item in missing(wanted, done):
                send(link, messages.encode(item), deadline)
            refused = self._not_taken(link, wanted, deadline)
            done = wanted
        with self._lock:
            self._link = link
        for item in missing(done, refused):
            if item["type"] == "registerfunction":
                self._tell(link, offers, item, None)
        if refused:
            thread = threading.Thread(
                target=self._offer_again, args=(link, offers, refused), name="iii-reconnect-refused", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as exc:
                names = ", ".join(item["id"] for item in refused)
                _log.error("not registered again, and no thread can be started to find out why: %s (%s)", names, exc)

    def _not_taken(self, link: Link, wanted: list[messages.Message], deadline: Deadline) -> list[messages.Message]:
        """Wait until the engine has dealt with everything that was sent; return the functions it seems not to have."""
        functions = [item for item in wanted if item["type"] == "registerfunction"]
        if not functions:
            self.confirm(link, deadline)
            return []
        served = self._served(link, deadline)  # the answer is a confirmation as well
        with self._lock:
            under_way = set(self._under_way)
        return [
            item
            for item in functions
            if item["id"] not in under_way
            and (
                item["id"] in link.rejections
                or (served is not None and "invocation" not in item and item["id"] not in served)
            )
        ]

    def _offer_again(self, link: Link, offers: Offers, refused: list[messages.Message]) -> None:
        """Tell why functions were not taken, and offer those that are taken until they are free. On a thread."""
        deadline = Deadline(REFUSED_FOR)
        try:
            while refused:
                taken = []
                for item in refused:
                    error = self._why(link, item["id"])
                    if not self._tell(link, offers, item, error):
                        return
                    if isinstance(error, RegistrationRejectedError):
                        taken.append(item)
                if taken and deadline.expired:
                    names = ", ".join(item["id"] for item in taken)
                    _log.error("still taken by other workers, not offered again before the next reconnect: %s", names)
                    return
                if not taken or self._session.closing.wait(_AGAIN_AFTER):
                    return
                refused = [item for item in taken if self._offered(link, offers, item)]
                if refused:
                    self.confirm(link, Deadline(self._session.options.connect_timeout))
        except (IIISyncError, TimeoutError):
            _log.debug("functions are not offered again on this connection", exc_info=True)

    def _why(self, link: Link, function_id: str) -> Optional[IIISyncError]:
        """Why the engine did not take a function, or ``None``."""
        refusal = link.rejections.get(function_id)
        if refusal is not None:
            return rejection(refusal)
        try:
            self._confirm_function(link, function_id, Deadline(self._session.options.connect_timeout))
        except PermissionDeniedError as exc:
            return exc
        return None

    def _offered(self, link: Link, offers: Offers, item: messages.Message) -> bool:
        """Register a function again, unless it was taken back."""
        link.rejections.pop(item["id"], None)
        connection = link.connection
        assert connection is not None
        deadline = Deadline(self._session.options.connect_timeout)
        data = encoded_frames(messages.encode(item))

        def send(send_frames: Callable[[bytes, Deadline], None]) -> bool:
            # With the turn: whoever takes the function back now has its own message sent after this one.
            if missing([item], offers.registrations()):
                return False
            send_frames(data, deadline)
            return True

        return connection.in_turn(deadline, send, connection.send)

    def _tell(self, link: Link, offers: Offers, item: messages.Message, error: Optional[IIISyncError]) -> bool:
        """Note and log why a function is not served, or that it is; ``False`` where a newer link knows better."""
        with self._lock:
            if self._link is not link:
                return False
            news = offers.function_told(item, error)
        if news and error is not None:
            _log.error("%s could not be registered again: %s", item["id"], error)
        elif news:
            _log.info("%s is registered again", item["id"])
        return True

    def confirm(self, link: Link, deadline: Deadline) -> None:
        """Wait until the engine has dealt with everything that was sent on a link."""
        self._session.call_and_wait(link, _CONFIRMING, {"key": "iii_sync"}, deadline)

    def _confirm_function(self, link: Link, function_id: str, deadline: Deadline) -> None:
        """Wait until the engine has dealt with a function, and find out whether it is there.

        An engine that does not allow it says nothing at all (PROTOCOL 8.5), so the function is looked up. Where that
        is not allowed either, nobody can tell, and the registration counts as taken.

        Raises:
            PermissionDeniedError: It is not there, under its id or with a prefix before it (PROTOCOL 8.4).
        """
        namespace = self._session.options.namespace or "default"
        try:
            self._session.call_and_wait(
                link, "engine::functions::info", {"function_id": function_id, "namespace": namespace}, deadline
            )
            return
        except InvocationError as exc:
            if exc.code != "NOT_FOUND" or function_id in link.rejections:
                return
        served = self._served(link, deadline)
        if served is None:
            _log.debug("%s is not listed; it may have been given a prefix, or refused", function_id)
        elif function_id not in served:
            raise PermissionDeniedError(
                "FORBIDDEN",
                "the engine did not take the registration and does not say why; as a rule this worker may not register "
                "the function (allow_function_registration, or the listener's hook for registrations)",
                function_id,
            )

    def _served(self, link: Link, deadline: Deadline) -> Optional[set[str]]:
        """Return the ids this worker is listed with, and what is behind a prefix in each; ``None`` if it cannot ask."""
        namespace = self._session.options.namespace or "default"
        try:
            about = self._session.call_and_wait(
                link, "engine::workers::info", {"name": self._session.worker_name, "namespace": namespace}, deadline
            )
            names = [item["function_id"].split("::") for item in about["functions"]]
        except (AttributeError, InvocationError, KeyError, TypeError):
            return None
        return {"::".join(parts[start:]) for parts in names for start in range(len(parts))}


def missing(items: list[messages.Message], among: list[messages.Message]) -> list[messages.Message]:
    """Return the items that are not among others; a registration is the same object each time."""
    known = {id(item) for item in among}
    return [item for item in items if id(item) not in known]


def rejection(message: messages.Message) -> RegistrationRejectedError:
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
