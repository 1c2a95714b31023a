"""How the engine is told what a worker offers, and how the worker learns whether that was taken.

The engine confirms no registration. It deals with the messages of a connection in their order, so the answer to a call
that was sent after a registration comes after whatever it had to say about that.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from ..errors import (
    ConnectTimeout,
    EngineTimeoutError,
    InvocationError,
    PermissionDeniedError,
    RegistrationRejectedError,
    brief,
)
from ..net.waiting import Deadline
from ..wire import messages
from .link import Link

if TYPE_CHECKING:
    from ..options import InitOptions

__all__ = ["Registering", "missing", "rejection"]

_log = logging.getLogger("iii_sync.worker")

#: Harmless, answered by the engine itself, and allowed for every worker (PROTOCOL 8.3): its answer comes
#: after the refusals of what was registered before it.
_CONFIRMING = "engine::baggage::get"


class Sends(Protocol):
    """What registrations are sent with: a session."""

    options: InitOptions
    worker_name: str

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
        link = session.wait_for_link(deadline, function_id)
        try:
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
        if registration["type"] != "registerfunction":
            return  # refusals of triggers are told to the handlers
        refusal = link.rejections.pop(function_id, None)
        if refusal is not None:
            raise rejection(refusal)

    def replay(
        self,
        link: Link,
        registrations: Callable[[], list[messages.Message]],
        make_current: Callable[[Link, list[messages.Message]], bool],
        deadline: Deadline,
    ) -> None:
        """Register everything on a new link, and make that the current one.

        What is registered or taken back meanwhile finds the link current, or is in the next round's list.

        Args:
            link: The link.
            registrations: Returns what there is to be registered.
            make_current: Makes the link the current one if what was registered on it is all there is.
            deadline: For all of it.
        """
        send = self._session.send
        done: list[messages.Message] = []
        while not make_current(link, done):
            wanted = registrations()
            for item in missing(done, wanted):
                send(link, messages.encode(messages.undo(item)), deadline)
            for item in missing(wanted, done):
                send(link, messages.encode(item), deadline)
            self.confirm(link, deadline)
            done = wanted
        for function_id, refusal in list(link.rejections.items()):
            _log.error("%s could not be registered again: %s", function_id, rejection(refusal))

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
        try:
            about = self._session.call_and_wait(
                link, "engine::workers::info", {"name": self._session.worker_name, "namespace": namespace}, deadline
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
