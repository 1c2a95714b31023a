"""Whether the engine has taken a trigger, or a trigger type: it is looked up.

The engine says nothing to a good registration, nothing to a trigger whose type nobody provides yet, and nothing to what
this worker may not register (PROTOCOL 4.2, 8.5). What it does refuse in words has been told before anything is looked
up here. A worker that may register little may not look everywhere either; so there is more than one place to look.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from ..errors import IIISyncError, InvocationError, PermissionDeniedError
from ..wire import messages
from .sources import DEFAULT_NAMESPACE, ENGINE_TYPES

if TYPE_CHECKING:
    from ..options import InitOptions

__all__ = ["Asks", "Confirming"]

_log = logging.getLogger("iii_sync.worker")

#: Seconds after which a trigger that seems to be refused is looked for again: a provider that has just left is still
#: listed until the engine has cleaned up, and the words of one that refuses are still on their way.
_AGAIN_AFTER = 0.2


class Asks(Protocol):
    """``Worker.trigger``, as far as it is needed to ask the engine what it knows."""

    def __call__(self, request: str, payload: Any, *, timeout: Optional[float]) -> Any: ...


class Confirming:
    """Looks up what one worker has registered.

    Args:
        ask: Calls a function of the engine.
        options: The worker's.
        worker_name: The name under which the engine lists it.
    """

    def __init__(self, ask: Asks, options: InitOptions, worker_name: str) -> None:
        self._ask = ask
        self._timeout = options.connect_timeout
        self._namespace = options.namespace or DEFAULT_NAMESPACE
        self._worker_name = worker_name

    def is_active(self, registration: messages.Message) -> bool:
        """Carry out ``Trigger.is_active``."""
        try:
            self._look("engine::registered-triggers::info", id=registration["id"])
        except PermissionDeniedError:
            bound = self._bound_to_function(registration)
            if bound is None:
                raise
            return registration["id"] in bound
        except InvocationError as exc:
            if exc.code != "NOT_FOUND":
                raise
            return False
        return True

    def trigger(self, registration: messages.Message, was_told: Callable[[], bool]) -> None:
        """Find out what became of a trigger; warns where it waits for a provider, and where nobody can tell.

        Blocks for one call; for more of them, and :data:`_AGAIN_AFTER`, where the trigger is not active.

        Args:
            registration: The message that registers it.
            was_told: Whether it was refused in words meanwhile.

        Raises:
            PermissionDeniedError: It is not there though its type is: this worker may not register it.
        """
        kind, function_id = registration["trigger_type"], registration["function_id"]
        try:
            refused = self._is_refused(registration, was_told)
        except PermissionDeniedError as exc:
            _warn_of_unknown(f"the {kind!r} trigger of {function_id}", exc)
            return
        except (IIISyncError, KeyError, TypeError):
            _log.debug("whether the %r trigger of %s is active is unknown", kind, function_id, exc_info=True)
            return
        if refused:
            raise PermissionDeniedError(
                "FORBIDDEN",
                f"the engine did not take the {kind!r} trigger and does not say why; as a rule this worker may not "
                "register it (allowed_trigger_types, or the listener's hook for triggers)",
                function_id,
            )

    def trigger_type(self, registration: messages.Message) -> None:
        """Find out whether the engine has taken a trigger type; warns where nobody can tell. Blocks for one call.

        Raises:
            PermissionDeniedError: This worker is not listed as its provider.
        """
        type_id: str = registration["id"]
        try:
            try:
                listed = self._about_itself()["trigger_types"]
            except PermissionDeniedError:
                listed = [item for item in self._types() if item["worker_name"] == self._worker_name]
            taken = (registration["namespace"], type_id) in {(item["namespace"], item["id"]) for item in listed}
        except PermissionDeniedError as exc:
            _warn_of_unknown(f"the trigger type {type_id!r}", exc)
            return
        except (IIISyncError, KeyError, TypeError):
            _log.debug("whether the trigger type %r was taken is unknown", type_id, exc_info=True)
            return
        if not taken:
            raise PermissionDeniedError(
                "FORBIDDEN",
                f"the engine did not take the trigger type {type_id!r} and does not say why; as a rule this worker may "
                "not provide it (allow_trigger_type_registration, or the listener's hook for trigger types); or "
                "another worker has taken it over at once",
            )

    def _is_refused(self, registration: messages.Message, was_told: Callable[[], bool]) -> bool:
        """Whether a trigger is not bound, nobody said why, and its type is there; warns if the type is not."""
        kind, own = registration["trigger_type"], registration.get("trigger_namespace")
        namespaces = {self._namespace, DEFAULT_NAMESPACE} if own is None else {own}
        for pause in (_AGAIN_AFTER, 0.0):
            if self.is_active(registration) or was_told():
                return False
            try:
                types = self._types()
            except PermissionDeniedError:
                # The engine's own types are there; of others this worker cannot know.
                if DEFAULT_NAMESPACE not in namespaces or kind not in ENGINE_TYPES:
                    raise
            else:
                if not any(item["id"] == kind and item["namespace"] in namespaces for item in types):
                    _warn_of_parked(kind, registration["function_id"], sorted({item["id"] for item in types}))
                    return False
            time.sleep(pause)
        return True

    def _bound_to_function(self, registration: messages.Message) -> Optional[set[str]]:
        """Return the ids of the triggers of a trigger's function, or ``None`` if this worker cannot see it."""
        target: str = registration["function_id"]
        found: Optional[set[str]] = None
        try:
            namespace = registration.get("namespace") or DEFAULT_NAMESPACE
            found = _trigger_ids(self._look("engine::functions::info", function_id=target, namespace=namespace))
        except InvocationError:
            pass  # not there under this id, or not to be seen
        if found is not None and registration["id"] in found:
            return found
        # The functions of a worker's triggers get the prefix that its own functions get (PROTOCOL 8.4).
        try:
            about = self._about_itself()
        except InvocationError:
            return found
        if any(f"::{item['function_id']}".endswith(f"::{target}") for item in about["functions"]):
            found = (found or set()) | _trigger_ids(about)
        return found

    def _about_itself(self) -> Any:
        return self._look("engine::workers::info", name=self._worker_name, namespace=self._namespace)

    def _types(self) -> Any:
        return self._look("engine::triggers::list", include_internal=True)["triggers"]

    def _look(self, called: str, /, **data: Any) -> Any:
        return self._ask(called, data, timeout=self._timeout)


def _trigger_ids(about: Any) -> set[str]:
    return {item["id"] for item in about["registered_triggers"]}


def _warn_of_unknown(what: str, denied: PermissionDeniedError) -> None:
    _log.warning(
        "the engine may not have taken %s: it would refuse it without a word, and this worker may not call %s, which "
        "would tell",
        what,
        denied.function_id,
    )


def _warn_of_parked(kind: str, function_id: str, known: list[str]) -> None:
    import difflib

    close = difflib.get_close_matches(kind, known, 1)
    _log.warning(
        "the %r trigger of %s is not active: nobody provides that type yet; it will be when somebody does. %s",
        kind,
        function_id,
        f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}",
    )
