"""How a worker calls functions: ``trigger``, ``submit`` and ``map``."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from .calls import Call, in_order
from .channels.ends import Ends
from .errors import CallTimeout, ConfigurationError
from .net.waiting import Deadline
from .request import DEFAULT_TIMEOUT, Request, check_timeout, prepare
from .session import Session
from .suspicion import Suspicion
from .tracing import Tracer

if TYPE_CHECKING:
    from .options import InitOptions

__all__ = ["Caller"]

#: How long getting a request out may take where the call itself has no limit.
_SEND_TIMEOUT = 30.0


class Caller:
    """Makes the calls of one worker; see there for what they take, do and raise.

    Args:
        options: The worker's.
        session: What they go out on.
        ends: The channel ends they carry.
        tracer: Makes their spans.
        run_soon: Runs a callback on a handler thread.
        check_usable: Raises when the worker was shut down, or belongs to a parent process.
    """

    def __init__(
        self,
        options: InitOptions,
        session: Session,
        ends: Ends,
        tracer: Tracer,
        run_soon: Callable[[Callable[[], None]], None],
        check_usable: Callable[[], None],
    ) -> None:
        self._options = options
        self._session = session
        self._ends = ends
        self._tracer = tracer
        self._run_soon = run_soon
        self._check_usable = check_usable

    def trigger(
        self,
        request: Union[str, Mapping[str, Any]],
        payload: Any,
        timeout: Optional[float],
        action: Optional[Mapping[str, Any]],
        namespace: Optional[str],
        metadata: Any,
    ) -> Any:
        """Carry out ``Worker.trigger``."""
        self._check_usable()
        prepared = prepare(self._ends, self._options.namespace, request, payload, timeout, action, namespace, metadata)
        with self._tracer.calling(prepared.message):
            return self._call(prepared)

    def submit(
        self,
        request: Union[str, Mapping[str, Any]],
        payload: Any,
        timeout: Optional[float],
        action: Optional[Mapping[str, Any]],
        namespace: Optional[str],
        metadata: Any,
    ) -> Call:
        """Carry out ``Worker.submit``."""
        self._check_usable()
        own = self._options.namespace
        given = DEFAULT_TIMEOUT if timeout is None else timeout
        prepared = prepare(self._ends, own, request, payload, given, action, namespace, metadata)
        seconds = None if prepared.timeout is DEFAULT_TIMEOUT else prepared.timeout
        span = self._tracer.calling(prepared.message)
        try:
            call = self._send(prepared, Deadline(_SEND_TIMEOUT if seconds is None else seconds))
        except BaseException as exc:
            span.finish(exc)
            raise
        if call is None:
            call = Call(prepared.function_id, None, forget=_nothing, run_callback=self._run_soon, refs=[])
            call.set_result(None)
        elif seconds is not None:
            self._expire(call, seconds)
        span.finish_with(call)
        return call

    def map(
        self,
        function_id: str,
        payloads: Iterable[Any],
        max_in_flight: int,
        timeout: Optional[float],
        namespace: Optional[str],
        metadata: Any,
        return_exceptions: bool,
    ) -> Iterator[Any]:
        """Carry out ``Worker.map``."""
        self._check_usable()
        if not isinstance(max_in_flight, int) or isinstance(max_in_flight, bool) or max_in_flight < 1:
            raise ConfigurationError(f"max_in_flight={max_in_flight!r} must be an integer above 0")
        check_timeout(timeout)
        seconds = self._options.invocation_timeout if timeout is DEFAULT_TIMEOUT else timeout

        def start(payload: Any) -> Call:
            return self.submit(function_id, payload, seconds, None, namespace, metadata)

        return in_order(start, iter(payloads), max_in_flight, return_exceptions)

    def _call(self, prepared: Request) -> Any:
        """Send a call and wait for its outcome."""
        seconds = self._options.invocation_timeout if prepared.timeout is DEFAULT_TIMEOUT else prepared.timeout
        deadline = Deadline(seconds)
        if prepared.answered and not prepared.refs:
            return self._session.ask(prepared.function_id, prepared.message, deadline).result
        call = self._send(prepared, deadline)
        if call is None:
            return None
        try:
            return call.result(deadline.remaining())
        except CallTimeout as exc:
            if call.done():
                raise
            raise CallTimeout(
                "TIMEOUT",
                f"no answer within {seconds:g} s, the function may still be running{call._hint()}",
                exc.function_id,
                exc.invocation_id,
            ) from None
        finally:
            call.cancel()

    def _send(self, request: Request, deadline: Deadline) -> Optional[Call]:
        try:
            call = self._session.call(
                request.function_id, request.message, request.refs, deadline, answered=request.answered
            )
        except BaseException:
            self._ends.take_back(request.refs)
            raise
        if call is not None:
            self._ends.carried_by(call)
            self._suspect(call)
        return call

    def _expire(self, call: Call, seconds: float) -> None:
        """Let a submitted call fail when its time is over."""

        def expire() -> None:
            error = CallTimeout(
                "TIMEOUT",
                f"no answer within {seconds:g} s, the function may still be running{call._hint()}",
                call.function_id,
                call.invocation_id,
            )
            self._session.fail(call, error)

        timer = self._session.loop.call_later(seconds, expire)
        # Not Call.add_done_callback(): cancelling needs no thread of its own.
        concurrent.futures.Future.add_done_callback(call, lambda _: timer.cancel())

    def _suspect(self, call: Call) -> None:
        """Look whether a call carries one end of a channel whose other end is here."""
        for ref in call.refs:
            end = self._ends.other_end(ref)
            if end is not None:
                call._suspicion = Suspicion(call, end, self._session.loop.call_later)
                return


def _nothing(_: Call) -> None:
    pass
