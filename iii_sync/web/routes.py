"""Registering an HTTP function: the function, and a trigger for each of its methods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable, Optional, Protocol, Union

from ..errors import ConfigurationError
from ..functions import FunctionRef
from ..triggers import Trigger, TriggerSource
from ..triggers import http as http_trigger
from .handler import http

__all__ = ["HttpFunction", "register"]

#: A function, by its id or as ``register_function`` returned it.
FunctionName = Union[str, FunctionRef]


class HttpFunction:
    """A registered HTTP function, as ``Worker.register_http`` returns it.

    Attributes:
        functions: The functions: one, or one for each method where no ``function_id`` was given.
        triggers: A trigger for each method.
    """

    def __init__(self) -> None:
        self.functions: list[FunctionRef] = []
        self.triggers: list[Trigger] = []

    def unregister(self) -> None:
        """Take routes and functions back; requests that are being answered go on. Does nothing the second time.

        Blocks: Until the engine has been told, at most ``connect_timeout`` for each trigger and function.
        Threads: Any.
        """
        for trigger in self.triggers:
            trigger.unregister()
        for function in self.functions:
            function.unregister()

    def __repr__(self) -> str:
        routes = ", ".join(f"{trigger.config['http_method']} {trigger.config['api_path']}" for trigger in self.triggers)
        return f"<iii_sync.HttpFunction {routes}>"


class Registrar(Protocol):
    """What registers: :class:`.Worker`."""

    def register_function(
        self, function_id: str, handler: Callable[..., Any], *, description: Optional[str] = None
    ) -> FunctionRef: ...

    def register_trigger(
        self, trigger_type: TriggerSource, function_id: Optional[str] = None, *, metadata: Any = None
    ) -> Trigger: ...


def register(
    worker: Registrar,
    method: Union[str, Iterable[str]],
    path: str,
    handler: Callable[..., Any],
    *,
    function_id: Optional[str],
    description: Optional[str],
    metadata: Any,
    condition: Optional[FunctionName],
    middleware: Iterable[FunctionName],
) -> HttpFunction:
    """Carry out ``Worker.register_http``: everything, or nothing."""
    wrapped = http(handler)
    _check_slash(path)
    if isinstance(middleware, (str, FunctionRef)):
        middleware = [middleware]
    sources = [
        http_trigger(
            path,
            one,
            condition_function_id=None if condition is None else _id(condition),
            middleware_function_ids=[_id(function) for function in middleware],
        )
        for one in _methods(method)
    ]
    made = HttpFunction()
    try:
        for source in sources:
            # Under an id of its own for each route, so that the engine refuses a second worker that serves it, too.
            name = function_id if function_id is not None else f"http::{source.config['http_method']}::{path}"
            if function_id is None or not made.functions:
                made.functions.append(worker.register_function(name, wrapped, description=description))
            made.triggers.append(worker.register_trigger(source, name, metadata=metadata))
    except BaseException:
        made.unregister()
        raise
    return made


def _methods(method: Union[str, Iterable[str]]) -> list[str]:
    methods = [method] if isinstance(method, str) or not isinstance(method, Iterable) else list(method)
    upper = [one.upper() if isinstance(one, str) else one for one in methods]
    if not upper or len(set(map(str, upper))) < len(upper):
        raise ConfigurationError(f"method={method!r} must be a method such as 'GET', or a list of different ones")
    return upper


def _check_slash(path: Any) -> None:
    if not isinstance(path, str) or path[:1] != "/":
        cure = f"write {'/' + path!r}" if isinstance(path, str) and path else "give one such as '/orders/:id'"
        raise ConfigurationError(f"path={path!r} does not begin with a slash; {cure}")


def _id(function: Any) -> Any:
    return function.id if isinstance(function, FunctionRef) else function
