"""What programs for the official SDK use and ours has under another name, or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

__all__ = ["pointing_elsewhere", "unexpected"]

T = TypeVar("T")

#: By class; what is ``…_async`` there has the plain name here.
_INSTEAD: dict[str, dict[str, str]] = {
    "Worker": {
        "connect": "register_worker() has connected it",
        "connect_async": "register_worker() has connected it",
        "create_channel_async": "",
        "current_invocation": "it is a function of the package: from iii_sync import current_invocation",
        "list_functions": "use worker.engine.functions()",
        "list_triggers": "use worker.engine.triggers()",
        "list_workers": "use worker.engine.workers()",
        "observe": "observers are not offered; have the function called with register_trigger(), which engines keep",
        "shutdown_async": "",
        "trigger_async": "",
        "unregister_trigger": "call unregister() of what register_trigger() returned",
        "unregister_trigger_type": "call unregister() of what register_trigger_type() returned",
    },
    "ChannelReader": {"close_async": "", "read_async": "", "read_all_async": ""},
    "ChannelWriter": {"close_async": "", "send_message_async": "", "write_async": ""},
}

_ARGUMENTS = {
    "local_dispatch": "leave it out, for every call goes through the engine",
    "observe": "leave it out, for functions cannot be observed; have others called with register_trigger()",
}


class _Elsewhere:
    """An attribute that is not there: whoever asks for it is told what to use instead.

    A descriptor a name, for ``__getattr__`` in a class slows down the look-up of every attribute that is there.
    """

    def __init__(self, name: str, instead: str) -> None:
        self._name = name
        self._instead = instead or f"nothing is async here, use {name[: -len('_async')]}()"
        self.__doc__ = f"Not here: {self._instead}."

    def __get__(self, instance: object, owner: type[object]) -> Any:
        raise AttributeError(f"{owner.__name__!r} object has no attribute {self._name!r}: {self._instead}")


def pointing_elsewhere(kind: type[T]) -> type[T]:
    """Have a class, and those made of it, say what to use for names that the official SDK has in its place."""
    hints = _INSTEAD[kind.__name__]
    for name, instead in hints.items():
        setattr(kind, name, _Elsewhere(name, instead))

    def names(self: object) -> list[str]:
        """What there really is, for completion."""
        return [name for name in object.__dir__(self) if name not in hints]

    kind.__dir__ = names  # type: ignore[method-assign]
    return kind


def unexpected(function: str, names: Iterable[str]) -> TypeError:
    """Return what to raise for keyword arguments that ``function`` has not; it says what to do, if that is known."""
    name = next(iter(names))
    text = f"{function}() got an unexpected keyword argument {name!r}"
    return TypeError(f"{text}: {_ARGUMENTS[name]}" if name in _ARGUMENTS else text)
