"""What programs for the official SDK use and ours has under another name, or not at all."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["missing", "unexpected"]

#: On a worker.
_INSTEAD = {
    "connect": "register_worker() has connected it",
    "current_invocation": "it is a function of the package: from iii_sync import current_invocation",
    "list_functions": "use worker.engine.functions()",
    "list_triggers": "use worker.engine.triggers()",
    "list_workers": "use worker.engine.workers()",
    "observe": "observers are not offered; have the function called with register_trigger(), which engines keep",
    "unregister_trigger": "call unregister() of what register_trigger() returned",
    "unregister_trigger_type": "call unregister() of what register_trigger_type() returned",
}

_ARGUMENTS = {
    "local_dispatch": "leave it out, for every call goes through the engine",
    "observe": "leave it out, for functions cannot be observed; have others called with register_trigger()",
}


def missing(kind: type[object], name: str) -> AttributeError:
    """Return what to raise for an attribute that ``kind`` has not; it says what to use instead, if that is known."""
    text = f"{kind.__name__!r} object has no attribute {name!r}"
    plain = name[: -len("_async")]
    if name.endswith("_async") and hasattr(kind, plain):
        text += f": nothing is async here, use {plain}()"
    elif kind.__name__ == "Worker" and name in _INSTEAD:
        text += f": {_INSTEAD[name]}"
    return AttributeError(text)


def unexpected(function: str, names: Iterable[str]) -> TypeError:
    """Return what to raise for keyword arguments that ``function`` has not; it says what to do, if that is known."""
    name = next(iter(names))
    text = f"{function}() got an unexpected keyword argument {name!r}"
    return TypeError(f"{text}: {_ARGUMENTS[name]}" if name in _ARGUMENTS else text)
