"""Calls on their way: delivering them, remembering who waits, answering. Pure."""

from __future__ import annotations

import logging

from .frames import Failure, Invoke, Result
from .jsontext import JSON, JsonObject
from .records import Function, Invocation, Outcome, Success, Worker

_logger = logging.getLogger("iii_sync.engine")


class Pending:
    """The invocations that wait for an answer of a worker, by id."""

    def __init__(self) -> None:
        self._by_id: dict[str, Invocation] = {}

    def add(self, invocation: Invocation) -> None:
        """Remember an invocation; to be done before the callee can hear of it.

        An earlier one with the same id fails: only one of the two can be answered.
        """
        earlier = self._by_id.get(invocation.id)
        if earlier is not None:
            self._forget(earlier)
            earlier.finish(Failure("invocation_error", "Another call has taken this invocation id"))
        self._by_id[invocation.id] = invocation
        invocation.callee.serves.add(invocation.id)
        if invocation.caller is not None:
            invocation.caller.calls.add(invocation.id)

    def settle(self, worker: Worker, result: Result) -> None:
        """Finish the invocation a worker answers; what nobody waits for is dropped."""
        invocation = self._by_id.get(result.invocation_id)
        # Nobody but the callee may answer.
        if invocation is None or invocation.callee is not worker:
            _logger.debug("worker %s: nobody waits for result %s", worker.id, result.invocation_id)
            return
        self._forget(invocation)
        invocation.finish(result.error if result.error is not None else Success(result.result))

    def give_up(self, invocation_id: str) -> None:
        """Forget an invocation for which nobody waits any more; what it answers is dropped."""
        invocation = self._by_id.get(invocation_id)
        if invocation is not None:
            self._forget(invocation)

    def remove(self, worker: Worker) -> list[Invocation]:
        """Forget everything a worker has to do with; return what others still wait for."""
        for invocation_id in list(worker.calls):
            self._forget(self._by_id[invocation_id])
        stopped = [self._by_id[invocation_id] for invocation_id in worker.serves]
        for invocation in stopped:
            self._forget(invocation)
        return stopped

    def _forget(self, invocation: Invocation) -> None:
        del self._by_id[invocation.id]
        invocation.callee.serves.discard(invocation.id)
        if invocation.caller is not None:
            invocation.caller.calls.discard(invocation.id)


def deliver(function: Function, call: Invoke, invocation_id: str, data: JSON) -> None:
    """Send a call to the worker that serves it; the id is there even when nobody waits."""
    frame: JsonObject = {
        "type": "invokefunction",
        "invocation_id": invocation_id,
        "function_id": function.own_id,
        "data": data,
    }
    if call.metadata is not None:
        frame["metadata"] = call.metadata
    function.owner.peer.send(_traced(frame, call))


def answer(worker: Worker, call: Invoke, outcome: Outcome) -> None:
    """Send the outcome of a call to its caller, if the caller wants it and is still there."""
    if worker.gone or call.invocation_id is None or call.void:
        return
    frame: JsonObject = {
        "type": "invocationresult",
        "invocation_id": call.invocation_id,
        "function_id": call.function_id,
    }
    if isinstance(outcome, Failure):
        frame["error"] = outcome.to_json()
    elif outcome.value is not None:
        frame["result"] = outcome.value
    worker.peer.send(_traced(frame, call))


def _traced(frame: JsonObject, call: Invoke) -> JsonObject:
    """Add the trace context of a call to a frame that belongs to it."""
    for key, value in (("traceparent", call.traceparent), ("baggage", call.baggage)):
        if value:
            frame[key] = value
    return frame
