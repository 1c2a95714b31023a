"""From a handler of requests to a handler of invocations."""

from __future__ import annotations

import inspect
import logging
from typing import Any, Callable

from ..errors import ChannelError, ConfigurationError, HttpError, InvocationError
from ..handlers import refuse_async
from .answers import error_result, finish
from .request import StreamRequest
from .response import StreamResponse

__all__ = ["HttpHandler", "http"]

_log = logging.getLogger("iii_sync.worker")

_CURE = "an HTTP handler is 'def handler(request)' or 'def handler(request, response)'"


def http(handler: Callable[..., Any]) -> HttpHandler:
    """Make ``handler(request)`` or ``handler(request, response)`` the handler of a function with HTTP triggers.

    ``worker.register_function("files::upload", http(handler))``, then ``worker.register_trigger`` of the type ``http``;
    :meth:`.Worker.http` does both.

    The handler gets a :class:`StreamRequest`, and a :class:`StreamResponse` if it takes two arguments; a second one
    with a default gets it only if it is called ``response``. It writes the response, or returns it: an
    :class:`HttpResponse`; iii's ``{"status_code": …, "headers": …, "body": …}``; text; bytes; a file, or an iterator
    of bytes or texts (a generator is a streamed response), which is streamed and closed; anything else as JSON.
    ``None`` is a 204 where nothing was written.

    An :class:`HttpError` is answered with its status, any other exception with a 500 that says nothing about it: what
    it was is in the worker's log, and goes to the engine. After the first byte an exception cuts the response.

    Args:
        handler: See above.

    Returns:
        The handler for ``register_function``.

    Raises:
        ConfigurationError: ``handler`` cannot be called so, or is ``async``.

    Blocks: Never.
    Threads: Any.
    """
    return HttpHandler(handler)


class HttpHandler:
    """What :func:`http` returns: called with the payload of an HTTP trigger."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        self._handler = handler
        self._takes_response = _takes_response(handler)
        self.__name__: str = getattr(handler, "__name__", type(handler).__name__)
        self.__doc__ = getattr(handler, "__doc__", None)

    def __call__(self, data: Any, metadata: Any = None) -> Any:
        request = StreamRequest(data, metadata)
        response = StreamResponse(data["response"], request)
        try:
            try:
                returned = self._handler(request, response) if self._takes_response else self._handler(request)
                return finish(response, returned)
            except HttpError as exc:
                if response.started:
                    raise
                return error_result(exc)
        except BaseException as exc:
            self._log(exc, request, response)
            # The client gets this text, and the engine the traceback too.
            raise InvocationError("invocation_failed", "Internal Server Error") from exc
        finally:
            if not response.closed:
                response.abort()  # before its first byte it sends nothing
            request._over()

    def _log(self, exc: BaseException, request: StreamRequest, response: StreamResponse) -> None:
        if isinstance(exc, ChannelError) and (
            response.closed or response._failure is not None or request.request_body.complete is False
        ):
            _log.info("%r: the client has gone: %s", request, exc)
        else:
            _log.warning("the handler of %r failed", request, exc_info=True)

    def __repr__(self) -> str:
        return f"<iii_sync.http {self.__name__}>"


def _takes_response(handler: Any) -> bool:
    """Say whether a handler takes the response too.

    Raises:
        ConfigurationError: It takes something else.
    """
    if not callable(handler):
        raise ConfigurationError(f"{handler!r} is not callable; {_CURE}")
    refuse_async(repr(handler), handler)
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        raise ConfigurationError(f"the arguments of {handler!r} are not known; {_CURE}") from None
    for count in (2, 1):
        try:
            signature.bind(*[None] * count)
        except TypeError:
            continue
        return count == 2 and _is_for_the_response(signature)
    raise ConfigurationError(f"{handler!r} takes {signature}; {_CURE}")


def _is_for_the_response(signature: inspect.Signature) -> bool:
    """Say whether the second argument is: one with a default may be there to bind a name, as in a loop."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [parameter for parameter in signature.parameters.values() if parameter.kind in kinds]
    if len(positional) < 2:
        return True  # *args
    return positional[1].default is inspect.Parameter.empty or positional[1].name == "response"
