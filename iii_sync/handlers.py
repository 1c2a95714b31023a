"""Handlers: whether one can be called as a function of iii is, and what its annotations say about the payload."""

from __future__ import annotations

import inspect
import logging
import typing
from typing import Any, Callable, Optional

from .errors import ConfigurationError

if typing.TYPE_CHECKING:
    from .annotations.schema import Shape

__all__ = ["Handler", "refuse_async"]

_log = logging.getLogger("iii_sync.worker")

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Handler:
    """A callable that carries out a function.

    Attributes:
        request_format: JSON Schema of what its first parameter is annotated with, if that says anything.
        response_format: JSON Schema of what it is annotated to return, if that says anything.

    Args:
        function_id: The function, for errors.
        target: The callable.

    Raises:
        ConfigurationError: It cannot be called with a payload alone, or would not run when it is, or the payload is
            annotated with something that no JSON value can become.
    """

    def __init__(self, function_id: str, target: Callable[..., Any]) -> None:
        whose = f"the handler of {function_id!r}"
        if not callable(target):
            raise ConfigurationError(f"{whose} is not callable: {target!r}")
        _check_kind(whose, target)
        self.target = target
        self.request_format: Optional[dict[str, Any]] = None
        self.response_format: Optional[dict[str, Any]] = None
        self._wants_metadata = False
        self._convert: Optional[Callable[[Any], Any]] = None
        self._default: Any = inspect.Parameter.empty
        try:
            described, parameters = _signature(target)
        except (TypeError, ValueError):
            return  # a builtin that does not tell
        payload = _payload_parameter(whose, parameters)
        self._default = payload.default
        self._wants_metadata = _wants_metadata(parameters)
        try:
            request = _shape(described, payload.annotation)
        except NameError as exc:
            # Whoever wrote it may have a name that is there for the type checker only.
            request = None
            _log.warning(
                "%s: its payload is not checked, for the annotation of %r means nothing here (%s); import what it "
                "names where the program runs, too, or annotate with Any",
                whose,
                payload.name,
                exc,
            )
        except TypeError as exc:
            raise ConfigurationError(f"{whose}: the annotation of {payload.name!r}: {exc}") from None
        if request is not None:
            self.request_format, self._convert = request.schema, request.convert
        try:
            response = _shape(described, _return_annotation(described), returned=True)
        except (NameError, TypeError) as exc:
            _log.debug("%s: no schema of its result: %s", whose, exc)
        else:
            self.response_format = None if response is None else response.schema

    def run(self, data: Any, metadata: Any) -> Any:
        """Convert the payload and call the handler; no payload is the parameter's default, if it has one.

        Raises:
            InvocationError: The payload is not what the handler is annotated to take (``invalid_payload``).
        """
        if data is None and self._default is not inspect.Parameter.empty:
            data = self._default
        elif self._convert is not None:
            data = self._convert(data)
        if self._wants_metadata:
            return self.target(data, metadata=metadata)
        return self.target(data)


def refuse_async(whose: str, target: Any) -> None:
    """Refuse a handler that is asynchronous, or an object whose ``__call__`` is.

    Args:
        whose: What to call it in the error.
        target: The handler.

    Raises:
        ConfigurationError: It is.
    """
    for candidate in _called(target):
        if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
            raise ConfigurationError(f"{whose} is an 'async def'; handlers run on threads: use a plain 'def'")


def _called(target: Any) -> tuple[Any, Any]:
    return target, getattr(target, "__call__", None)  # noqa: B004 - to be looked at, not called


def _check_kind(whose: str, target: Any) -> None:
    """Refuse what returns something that is still to be run."""
    refuse_async(whose, target)
    for candidate in _called(target):
        if inspect.isgeneratorfunction(candidate):
            raise ConfigurationError(
                f"{whose} is a generator (it has a 'yield'), whose body would never run; return a list, or write to a "
                "channel whose writer the payload brings"
            )


def _signature(target: Any) -> tuple[Any, list[inspect.Parameter]]:
    """Return the parameters of what is called, and the object whose they are.

    Decorators that hand everything on, ``(*args, **kwargs)``, are looked through; others have a signature of their own.
    """
    while True:
        parameters = list(inspect.signature(target, follow_wrapped=False).parameters.values())
        kinds = {parameter.kind for parameter in parameters}
        hands_on = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds
        if not hands_on or not hasattr(target, "__wrapped__"):
            return target, parameters
        target = target.__wrapped__


def _payload_parameter(whose: str, parameters: list[inspect.Parameter]) -> inspect.Parameter:
    """Return the parameter that gets the payload; refuse what cannot be called with it alone."""
    takes = [p for p in parameters if p.kind in _POSITIONAL or p.kind is inspect.Parameter.VAR_POSITIONAL]
    if not takes:
        raise ConfigurationError(f"{whose} takes no argument, but is called with the payload: 'def handler(data)'")
    for parameter in parameters:
        if parameter is takes[0] or parameter.default is not inspect.Parameter.empty:
            continue
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        if parameter.name != "metadata" or parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise ConfigurationError(
                f"{whose} requires {parameter.name!r}, but is called with the payload alone (and metadata=, if it "
                "has such a parameter): give it a default, or bind it with functools.partial or a lambda"
            )
    return takes[0]


def _wants_metadata(parameters: list[inspect.Parameter]) -> bool:
    for index, parameter in enumerate(parameters):
        if parameter.name == "metadata":
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                return True
            return parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and index > 0
    return False


def _return_annotation(described: Any) -> Any:
    return inspect.signature(described, follow_wrapped=False).return_annotation


def _shape(described: Any, annotation: Any, returned: bool = False) -> Optional[Shape]:
    """Return what an annotation says about a JSON value; ``None`` when it says nothing.

    Raises:
        NameError: What it names is not here.
        TypeError: No JSON value can become that.
    """
    if annotation in (inspect.Parameter.empty, None, Any, object, "Any", "object"):
        return None
    from .annotations import schema  # not before somebody has annotations

    return schema.shape(annotation, names=_names(described), returned=returned)


def _names(described: Any) -> dict[str, Any]:
    """Return what names mean to the code of a callable."""
    while hasattr(described, "func"):  # functools.partial
        described = described.func
    if not hasattr(described, "__globals__"):
        described = getattr(described, "__call__", None)  # noqa: B004 - an object that can be called
    described = getattr(described, "__func__", described)  # a method
    return getattr(described, "__globals__", {})
