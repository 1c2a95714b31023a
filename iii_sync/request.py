"""What ``trigger`` and ``submit`` are asked to do: checked, and made into a message."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional, Union

from .calls import PassedRef
from .channels.ends import Ends
from .errors import ConfigurationError, brief
from .wire import messages

__all__ = ["DEFAULT_TIMEOUT", "Request", "TriggerAction", "check_timeout", "prepare"]

_log = logging.getLogger("iii_sync.worker")

#: The default of the ``timeout`` of calls: the worker's own, where ``None`` means none. Of no type, so that no number
#: can be taken for it.
DEFAULT_TIMEOUT: Any = type("_DefaultTimeout", (), {"__repr__": lambda self: "<the worker's invocation_timeout>"})()


class TriggerAction:
    """What becomes of a call besides being answered (PROTOCOL 3.6)."""

    @staticmethod
    def Void() -> dict[str, str]:  # noqa: N802 - iii's own name
        """Do not wait for an answer; there is none.

        Returns:
            The ``action`` for ``trigger`` and ``submit``.

        Blocks: Never.
        Threads: Any.
        """
        return {"type": "void"}

    @staticmethod
    def Enqueue(queue: str) -> dict[str, str]:  # noqa: N802 - iii's own name
        """Put the call into a queue; the answer is its receipt: ``{"messageReceiptId": …}``.

        Args:
            queue: Its name.

        Returns:
            The ``action`` for ``trigger`` and ``submit``.

        Raises:
            ConfigurationError: A name that is no text, or blank.
            InvalidPayloadError: One that cannot travel.

        Blocks: Never.
        Threads: Any.
        """
        if not isinstance(queue, str) or not queue.strip():
            raise ConfigurationError(f"queue={queue!r} must be the name of a queue")
        return {"type": "enqueue", "queue": messages.check(queue, "queue")}


class Request(NamedTuple):
    """A call that is ready to be sent.

    Attributes:
        function_id: The function.
        message: The frame.
        refs: The channel ends it carries.
        timeout: Seconds, ``None`` for no limit, or :data:`DEFAULT_TIMEOUT`.
        answered: Whether there will be an answer.
    """

    function_id: str
    message: messages.Message
    refs: list[PassedRef]
    timeout: Optional[float]
    answered: bool


def prepare(
    ends: Ends,
    own_namespace: Optional[str],
    request: Union[str, Mapping[str, Any]],
    payload: Any,
    timeout: Optional[float],
    action: Optional[Mapping[str, Any]],
    namespace: Optional[str],
    metadata: Any,
) -> Request:
    """Check the arguments of ``trigger`` and put the message together.

    References in it count as handed out from then on; ``ends.take_back`` undoes that.

    Args:
        ends: The worker's channel ends.
        own_namespace: The worker's.
        request: The function's id, or iii's dictionary, which wins over the other arguments.
        payload: See ``Worker.trigger``, like the rest.
        timeout: Seconds, ``None``, or :data:`DEFAULT_TIMEOUT`.
        action: What becomes of the call.
        namespace: Where the function lives.
        metadata: Delivered beside the payload.
    """
    if isinstance(request, str):
        function_id = request
    else:
        given = _from_dictionary(request)
        function_id = given["function_id"]
        payload = given.get("payload", payload)
        action, namespace = given.get("action", action), given.get("namespace", namespace)
        metadata = given.get("metadata", metadata)
        if given.get("timeout_ms") is not None:
            timeout = given["timeout_ms"] / 1000
    if not function_id:
        raise ConfigurationError("the function id is empty; give the id of the function to call")
    check_timeout(timeout)
    if namespace is not None and not (isinstance(namespace, str) and namespace.strip()):
        raise ConfigurationError(f"namespace={namespace!r} is blank: give a name, or leave it out")
    # These are the engine's own wherever the worker lives (DELTA 0.25, 9).
    if namespace is None and not function_id.startswith(("engine::", "configuration::")):
        namespace = own_namespace
    # What carries no references comes first: a refusal then has nothing to take back.
    message = messages.invoke_function(
        _checked(function_id),
        None,
        invocation_id=messages.new_id(),
        namespace=namespace,
        action=None if action is None else _checked_action(action),
    )
    message["data"], refs = ends.plain(payload, "payload")
    if metadata is not None:
        try:
            message["metadata"], more_refs = ends.plain(metadata, "metadata")
        except BaseException:
            ends.take_back(refs)
            raise
        refs += more_refs
    answered = action is None or message["action"].get("type") != "void"
    if not answered:
        del message["invocation_id"]
    return Request(function_id, message, refs, timeout, answered)


def check_timeout(timeout: Optional[float]) -> None:
    """Refuse what is no time for a call."""
    if timeout is not None and timeout is not DEFAULT_TIMEOUT and not (_is_number(timeout) and timeout > 0):
        raise ConfigurationError(f"timeout={timeout!r} must be a number of seconds above 0, or None for no limit")


def _checked(function_id: str) -> str:
    if not function_id.isascii():
        messages.check(function_id, "function id")
    return function_id


_REQUEST_KEYS = {"function_id", "payload", "action", "timeout_ms", "namespace", "metadata"}


def _from_dictionary(request: Any) -> Mapping[str, Any]:
    if not isinstance(request, Mapping):
        raise TypeError(f"a function id or iii's dictionary is required, not {type(request).__name__}")
    unknown = set(request) - _REQUEST_KEYS
    if unknown or not isinstance(request.get("function_id"), str):
        wrong = f"unknown keys {sorted(map(str, unknown))}" if unknown else "no function_id"
        raise ConfigurationError(f"the request has {wrong}; it takes {', '.join(sorted(_REQUEST_KEYS))}")
    timeout_ms = request.get("timeout_ms")
    if timeout_ms is not None and not (_is_number(timeout_ms) and timeout_ms > 0):
        raise ConfigurationError(f"timeout_ms={timeout_ms!r} must be a number above 0")
    return request


def _checked_action(action: Any) -> messages.Message:
    """Return the action as it travels: the engine drops a call with one it does not know (E-17)."""
    kind = action.get("type") if isinstance(action, Mapping) else None
    if kind == "void":
        return TriggerAction.Void()
    if kind == "enqueue":
        return TriggerAction.Enqueue(action.get("queue"))  # pyright: ignore[reportArgumentType]  # checked there
    raise ConfigurationError(f"action={brief(action)} must be TriggerAction.Void() or TriggerAction.Enqueue(queue=…)")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
