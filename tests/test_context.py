"""What a handler can know of the call that it carries out."""

from __future__ import annotations

import contextvars
import dataclasses
import threading
from typing import Any, Callable

from iii_sync import Worker, current_invocation, register_worker
from iii_sync.request import prepare
from iii_sync.tracing import incoming

WAIT = 20.0

Unique = Callable[[str], str]


def seen(data: Any, metadata: Any = None) -> Any:
    invocation = current_invocation()
    assert invocation is not None
    return [dataclasses.asdict(invocation), data, metadata]


def test_a_handler_knows_which_call_it_carries_out(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Function, call, caller and metadata; the engine's key for the caller is not in the payload."""
    function = peer.register_function(unique("seen"), seen)
    call = worker.submit(function.id, {"a": 1}, metadata={"tenant": "t"})
    invocation, data, metadata = call.result(WAIT)
    assert data == {"a": 1} and metadata == {"tenant": "t"}
    assert (invocation["function_id"], invocation["invocation_id"]) == (function.id, call.invocation_id)
    assert invocation["caller_worker_id"] == worker.worker_id and invocation["metadata"] == {"tenant": "t"}


def test_nobody_is_told_where_the_engine_does_not_tell(worker: Worker, peer: Worker, unique: Unique) -> None:
    """A payload that is no object has no room for the caller (PROTOCOL 3.4)."""
    function = peer.register_function(unique("seen"), seen)
    assert worker.trigger(function.id, [1])[0]["caller_worker_id"] is None


def test_the_trace_of_a_call_is_told(engine_url: str, unique: Unique) -> None:
    """As it came; the real engine adds baggage of its own."""
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": "tenant=a"}
    with register_worker(engine_url, tracing=False) as worker:
        function = worker.register_function(unique("seen"), seen)
        with incoming(headers):
            invocation = worker.trigger(function.id)[0]
        assert invocation["traceparent"] == headers["traceparent"]
        assert "tenant=a" in invocation["baggage"].split(",")
        invocation = worker.trigger(function.id)[0]
        assert (invocation["traceparent"], invocation["baggage"]) == (None, None)


def test_outside_of_handlers_there_is_none(worker: Worker, unique: Unique) -> None:
    """Neither before, nor in a thread that a handler starts; a copied context takes it along."""
    assert current_invocation() is None
    found: list[Any] = []

    def starts_threads(data: Any) -> None:
        copied = contextvars.copy_context()
        for target in (current_invocation, lambda: copied.run(current_invocation)):
            thread = threading.Thread(target=lambda: found.append(target()))  # noqa: B023 - joined
            thread.start()
            thread.join(WAIT)

    function = worker.register_function(unique("starts"), starts_threads)
    worker.trigger(function.id, timeout=WAIT)
    assert found[0] is None and found[1].function_id == function.id
    assert current_invocation() is None


def test_what_a_handler_sets_ends_with_it(worker: Worker, unique: Unique) -> None:
    """The next call on the same thread starts without it."""
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("test_variable", default=0)
    threads: list[int] = []

    def count(data: Any) -> int:
        threads.append(threading.get_ident())
        variable.set(variable.get() + 1)
        return variable.get()

    function = worker.register_function(unique("count"), count)
    assert [worker.trigger(function.id) for _ in range(20)] == [1] * 20
    assert len(set(threads)) < 20


def test_without_a_trace_none_is_made_up(worker: Worker) -> None:
    """A call from outside of handlers carries no trace of ours."""
    message = prepare(worker._ends, None, "f", 1, None, None, None, None).message
    assert "traceparent" not in message and "baggage" not in message
