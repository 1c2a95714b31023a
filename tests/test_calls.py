"""Calls: trigger, submit, and what becomes of them."""

from __future__ import annotations

import concurrent.futures
import datetime
import logging
import pickle
import queue
import re
import threading
import time
from typing import Any, Callable

import pytest

from iii_sync import Call, FunctionRef, TriggerAction, Worker, errors, register_worker

from .support.exceptions import Untellable
from .support.threads import in_thread

WAIT = 20.0

Unique = Callable[[str], str]


def read(worker: Worker, function_id: str, payload: Any = None, **options: Any) -> Any:
    """The result of a function that writes, opened as a file."""
    with worker.open(function_id, "rb", payload, **options) as file:
        file.read()
    return file.result


def written(worker: Worker, function_id: str, payload: Any = None, **options: Any) -> Any:
    """The result of a function that reads, opened as a file."""
    with worker.open(function_id, "wb", payload, **options) as file:
        file.write(b"x")
    return file.result


#: The forms of a call, each with the function's result.
FORMS: dict[str, Callable[..., Any]] = {
    "trigger": Worker.trigger,
    "submit": lambda *arguments, **options: Worker.submit(*arguments, **options).result(WAIT),
    "map": lambda worker, function_id, payload=None, **options: next(worker.map(function_id, [payload], **options)),
    "open to read": read,
    "open to write": written,
}


@pytest.fixture
def echo(peer: Worker, unique: Unique) -> str:
    """A function on another worker that returns its payload."""
    return peer.register_function(unique("echo"), lambda data: data).id


@pytest.mark.parametrize(
    "payload",
    [
        None,
        True,
        0,
        -(2**63),
        2**64 - 1,
        1.5,
        "",
        "text with \u20ac and \U0001f600 and \x00 and \u2028",
        [],
        {},
        [1, [2, [3]], {"a": None}],
        {"clé": {"深": [True, "x" * 10_000]}},
    ],
)
def test_payloads_arrive_as_they_are(worker: Worker, echo: str, payload: Any) -> None:
    """Every kind of JSON value, both ways."""
    assert worker.trigger(echo, payload) == payload


def test_a_call_as_iiis_dictionary(worker: Worker, echo: str) -> None:
    """The documented form works unchanged."""
    assert worker.trigger({"function_id": echo, "payload": {"a": 1}, "timeout_ms": 5000}) == {"a": 1}
    assert worker.submit({"function_id": echo, "payload": 2}).result(WAIT) == 2


def test_tuples_and_nested_values_are_converted(worker: Worker, echo: str) -> None:
    """A tuple travels as a list."""
    assert worker.trigger(echo, {"a": (1, (2, 3))}) == {"a": [1, [2, 3]]}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (float("nan"), "payload: nan"),
        ({"a": [1, float("inf")]}, r"payload\.a\[1\]: inf"),
        ({"a": "\ud800"}, r"payload\.a: lone surrogate"),
        ({"\udfff": 1}, "surrogate"),
        ({"n": 10**20}, r"payload\.n: 1000.*64 bits"),
        ({1: "a"}, "key 1 is not a string"),
        ({"a": {None: 1}}, r"payload\.a: the key None"),
        (b"bytes", "bytes.*channel"),
        ({"s": {1, 2}}, "set.*sorted|list"),
        (object(), "object"),
        ({"t": datetime.date(2026, 1, 2)}, r"payload\.t: datetime.date is not JSON.*use its isoformat\(\)"),
    ],
)
def test_what_the_engine_would_drop_or_change_is_refused_here(
    worker: Worker, echo: str, payload: Any, said: str
) -> None:
    """The error names the value, its place and the cure; nothing was sent; the worker goes on."""
    for call in (worker.trigger, worker.submit):
        with pytest.raises(errors.InvalidPayloadError, match=said):
            call(echo, payload)
    with pytest.raises(errors.InvalidPayloadError, match="metadata"):
        worker.trigger(echo, 1, metadata={"x": payload} if not isinstance(payload, dict) else payload)
    assert worker.trigger(echo, "still there") == "still there"


def test_a_whole_channel_in_a_payload_is_told_which_end_to_pass(worker: Worker, echo: str) -> None:
    """It has two, and only the caller knows which."""
    channel = worker.create_channel()
    with pytest.raises(errors.InvalidPayloadError, match="payload.c: .*its reader_ref or its writer_ref"):
        worker.trigger(echo, {"c": channel})


def test_depth_is_limited(worker: Worker, echo: str) -> None:
    """120 levels travel, 121 are refused, and so is a value that contains itself."""
    deep: Any = 1
    for _ in range(120):
        deep = [deep]
    assert worker.trigger(echo, deep) == deep
    with pytest.raises(errors.InvalidPayloadError, match="120"):
        worker.trigger(echo, [deep])
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(errors.InvalidPayloadError, match="contains itself"):
        worker.trigger(echo, endless)


def test_a_message_above_the_limit_is_refused(engine_url: str, echo: str) -> None:
    """The error names the size, the limit, the option and the cure."""
    with register_worker(engine_url, max_payload=100_000) as worker:
        with pytest.raises(errors.PayloadTooLargeError, match="max_payload.*100,000.*channel") as caught:
            worker.trigger(echo, "x" * 100_000)
        assert caught.value.code == "payload_too_large"
        assert len(worker.trigger(echo, "x" * 50_000)) == 50_000


def test_a_result_above_the_limit_is_an_error_to_the_caller(worker: Worker, engine_url: str, unique: Unique) -> None:
    """Not a timeout."""
    with register_worker(engine_url, max_payload=100_000) as small:
        function = small.register_function(unique("large"), lambda data: "x" * 200_000)
        with pytest.raises(errors.PayloadTooLargeError, match="200,"):
            worker.trigger(function.id, timeout=WAIT)


def test_fifteen_megabytes_travel(worker: Worker, echo: str) -> None:
    """Below the limit large messages just work."""
    payload = "x" * 15_000_000
    assert worker.trigger(echo, payload) == payload


def test_twenty_megabytes_travel_in_fragments(engine_url: str, unique: Unique) -> None:
    """With the limit raised on both sides; the engine takes fragments (PROTOCOL 13)."""
    limit = 32 * 1024 * 1024
    with register_worker(engine_url, max_payload=limit) as one, register_worker(engine_url, max_payload=limit) as two:
        function = two.register_function(unique("size"), lambda data: len(data))
        assert one.trigger(function.id, "x" * 20_000_000) == 20_000_000


def test_an_oversized_message_is_dropped_and_everything_else_lives(
    engine_url: str, worker: Worker, unique: Unique, caplog: pytest.LogCaptureFixture
) -> None:
    """A call or a result that is too large for its receiver is answered so; the connection goes on."""
    caplog.set_level(logging.CRITICAL, "iii_sync")
    with register_worker(engine_url, max_payload=100_000) as small:
        size = small.register_function(unique("size"), lambda data: len(data))
        with pytest.raises(errors.PayloadTooLargeError):
            worker.trigger(size.id, "x" * 3_000_000, timeout=WAIT)
        large = worker.register_function(unique("large"), lambda data: "x" * 3_000_000)
        with pytest.raises(errors.PayloadTooLargeError):
            small.trigger(large.id, timeout=WAIT)
        assert worker.trigger(size.id, "abc") == 3


def test_an_unknown_function(worker: Worker, unique: Unique) -> None:
    """Its name is in the error, which says where it was looked for."""
    name = unique("nobody")
    with pytest.raises(errors.FunctionNotFoundError, match=name) as caught:
        worker.trigger(name)
    assert caught.value.code == "function_not_found" and caught.value.function_id == name


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("",), errors.ConfigurationError),
        ((7,), TypeError),
        (({"payload": 1},), errors.ConfigurationError),
        (({"function_id": "f", "paylod": 1},), errors.ConfigurationError),
        (({"function_id": "f", "timeout_ms": 0},), errors.ConfigurationError),
    ],
)
def test_wrong_requests(worker: Worker, arguments: Any, error: type[Exception]) -> None:
    """Refused where they are made."""
    with pytest.raises(error):
        worker.trigger(*arguments)
    with pytest.raises(errors.ConfigurationError, match="namespace"):
        worker.trigger("f", namespace=" ")


@pytest.mark.parametrize("timeout", [0, -1, -1.0, float("nan"), -float("inf"), True, "5"])
def test_wrong_timeouts(worker: Worker, timeout: Any) -> None:
    """Refused by whatever takes one, before it does anything."""
    attempts: list[Callable[[], Any]] = [
        lambda: worker.trigger("f", timeout=timeout),
        lambda: worker.submit("f", timeout=timeout),
        lambda: worker.map("f", [], timeout=timeout),
        lambda: worker.open("f", "wb", timeout=timeout),
        lambda: worker.publish("topic", 1, timeout=timeout),
        lambda: worker.state.get("scope", "key", timeout=timeout),
    ]
    if timeout != 0:
        attempts += [lambda: worker.wait(timeout), lambda: worker.shutdown(timeout)]
    for attempt in attempts:
        with pytest.raises(errors.ConfigurationError, match=f"timeout={timeout!r} must be a number"):
            attempt()
    assert worker.wait(0) is False
    assert worker.trigger("engine::baggage::get", {"key": "k"}, timeout=float("inf")) == {"value": None}
    assert worker.submit("engine::baggage::get", {"key": "k"}, timeout=float("inf")).result(WAIT) == {"value": None}


def test_a_call_times_out_as_both_kinds_of_error(worker: Worker, peer: Worker, unique: Unique) -> None:
    """TimeoutError and InvocationError with the code TIMEOUT; the late answer disturbs nobody."""
    release = threading.Event()
    function = peer.register_function(unique("slow"), lambda data: release.wait(WAIT))
    started = time.monotonic()
    with pytest.raises(errors.CallTimeout) as caught:
        worker.trigger(function.id, timeout=0.3)
    assert 0.3 <= time.monotonic() - started < 5
    assert isinstance(caught.value, TimeoutError) and isinstance(caught.value, errors.InvocationError)
    assert caught.value.code == "TIMEOUT" and function.id in str(caught.value)
    release.set()
    assert worker.trigger(function.id, timeout=WAIT) is True


def test_a_submitted_call_has_a_timeout_of_its_own(worker: Worker, peer: Worker, unique: Unique) -> None:
    """submit(timeout=…) fails the call; result(timeout=…) only stops waiting."""
    release = threading.Event()
    function = peer.register_function(unique("slow"), lambda data: release.wait(WAIT))
    expiring, lasting = worker.submit(function.id, timeout=0.2), worker.submit(function.id)
    with pytest.raises(errors.CallTimeout):
        expiring.result(WAIT)
    for timeout in (0.05, 0, -1):  # a future's own way: what is over already is no error of the caller
        with pytest.raises(errors.CallTimeout):
            lasting.result(timeout)
    with pytest.raises(errors.ConfigurationError, match="timeout=nan"):
        lasting.result(float("nan"))
    assert not lasting.done()
    release.set()
    assert lasting.result(WAIT) is True


@pytest.mark.parametrize("seconds", [-1, -0.5, 0])
def test_a_result_for_which_there_is_no_time_left(worker: Worker, peer: Worker, unique: Unique, seconds: float) -> None:
    """``end - time.monotonic()`` is less than nothing at times: that is no wait, as for any future."""
    go_on = threading.Event()
    function = peer.register_function(unique("slow"), lambda data: go_on.wait(WAIT))
    call = worker.submit(function.id)
    try:
        for ask in (call.result, call.exception):
            with pytest.raises(errors.CallTimeout):
                in_thread(lambda ask=ask: ask(seconds), wait=5)()  # type: ignore[misc]
    finally:
        go_on.set()
    assert call.result(WAIT) is True
    assert call.result(seconds) is True


def test_a_call_with_a_timeout_takes_no_thread_when_it_is_answered(engine_url: str, echo: str) -> None:
    """Only the timer is cancelled. (The end of a span takes one: a test before may have imported OpenTelemetry.)"""
    with register_worker(engine_url, tracing=False) as worker:
        assert [worker.submit(echo, number, timeout=WAIT).result(WAIT) for number in range(3)] == [0, 1, 2]
        assert list(worker.map(echo, range(3), timeout=WAIT)) == [0, 1, 2]
        worker._pool.drain(WAIT)
        assert worker._pool.threads == 0


def test_a_call_is_a_future(worker: Worker, echo: str) -> None:
    """wait, as_completed, callbacks off the reader thread, exception, done."""
    calls = [worker.submit(echo, number) for number in range(50)]
    assert isinstance(calls[0], concurrent.futures.Future)
    done = concurrent.futures.as_completed(calls, timeout=WAIT)
    assert sorted(call.result() for call in done) == list(range(50))
    threads: list[str] = []
    called = threading.Event()

    def callback(call: Call) -> None:
        threads.append(threading.current_thread().name)
        called.set()

    release = threading.Event()
    waiting = worker.submit(worker.register_function(echo + "-waits", lambda data: release.wait(WAIT)).id)
    waiting.add_done_callback(callback)
    release.set()
    assert called.wait(WAIT)
    assert threads[0].startswith("iii-handler")
    assert waiting.exception(WAIT) is None and waiting.done()


def test_cancel_stops_the_waiting(worker: Worker, peer: Worker, unique: Unique) -> None:
    """The waiter is released; the function goes on and its answer is dropped."""
    release, finished = threading.Event(), threading.Event()

    def slow(data: Any) -> None:
        release.wait(WAIT)
        finished.set()

    call = worker.submit(peer.register_function(unique("slow"), slow).id)
    waiting: list[BaseException] = []

    def wait() -> None:
        try:
            call.result(WAIT)
        except BaseException as exc:
            waiting.append(exc)

    thread = threading.Thread(target=wait)
    thread.start()
    assert call.cancel() and call.cancelled()
    thread.join(WAIT)
    assert isinstance(waiting[0], concurrent.futures.CancelledError)
    said = f"{call.function_id} was cancelled: nobody waits.* may still run"
    assert re.search(said, str(waiting[0]))
    for ask in (call.result, call.exception):
        with pytest.raises(concurrent.futures.CancelledError, match=said) as caught:
            ask(WAIT)
        assert caught.value.__suppress_context__
    release.set()
    assert finished.wait(WAIT)
    assert not worker._session._pending
    done = worker.submit(peer.register_function(unique("quick"), lambda data: data).id, 3)
    assert done.result(WAIT) == 3
    assert not done.cancel() and done.result(WAIT) == 3


def test_a_cancelled_call_is_done_for_whoever_waits_for_several(worker: Worker, peer: Worker, unique: Unique) -> None:
    """wait() and as_completed() return it, wherever and however often it was cancelled."""
    release = threading.Event()
    function = peer.register_function(unique("slow"), lambda data: release.wait(WAIT))
    early, late = worker.submit(function.id), worker.submit(function.id)
    assert early.cancel() and early.cancel()
    threading.Timer(0.1, late.cancel).start()
    done, pending = concurrent.futures.wait([early, late], WAIT)
    assert done == {early, late} and not pending
    assert list(concurrent.futures.as_completed([early], 1)) == [early]
    release.set()


def test_a_failing_handler_tells_its_caller(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Code, message, function, invocation and the remote traceback; the traceback is not in the text."""

    def explode(data: Any) -> None:
        raise KeyError("missing thing")

    function = peer.register_function(unique("explode"), explode)
    with pytest.raises(errors.HandlerFailedError) as caught:
        worker.trigger(function.id)
    error = caught.value
    assert error.code == "invocation_failed" and "missing thing" in error.message
    assert error.function_id == function.id and error.invocation_id
    assert error.stacktrace is not None and "explode" in error.stacktrace
    assert "Traceback" not in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert again.__dict__ == error.__dict__ and str(again) == str(error)


def test_a_handler_may_choose_the_code(worker: Worker, peer: Worker, unique: Unique) -> None:
    """An InvocationError keeps its code on the way."""

    def refuse(data: Any) -> None:
        raise errors.InvocationError("out_of_stock", "no apples")

    function = peer.register_function(unique("refuse"), refuse)
    with pytest.raises(errors.InvocationError) as caught:
        worker.trigger(function.id)
    assert (caught.value.code, caught.value.message) == ("out_of_stock", "no apples")


@pytest.mark.parametrize("result", [float("nan"), {1, 2}, b"x", {1: 2}, "\ud800", 2**70])
def test_a_result_that_cannot_travel_is_an_error_to_the_caller(
    worker: Worker, peer: Worker, unique: Unique, result: Any
) -> None:
    """Not a timeout."""
    function = peer.register_function(unique("bad"), lambda data: result)
    with pytest.raises(errors.HandlerFailedError, match="result"):
        worker.trigger(function.id, timeout=WAIT)


@pytest.mark.parametrize(("error", "told"), [(SystemExit(3), "SystemExit: 3"), (Untellable(), "Untellable")])
def test_whatever_a_handler_raises_is_an_answer(
    worker: Worker, peer: Worker, unique: Unique, error: BaseException, told: str
) -> None:
    """One that calls sys.exit(), or raises what has no text, does not hang its caller nor lose its thread."""

    def leave(data: Any) -> None:
        raise error

    function = peer.register_function(unique("leave"), leave)
    with pytest.raises(errors.HandlerFailedError) as caught:
        worker.trigger(function.id, timeout=WAIT)
    assert caught.value.message == told


def test_void_calls_return_at_once_and_arrive(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Nothing to wait for, and the function runs."""
    arrived = threading.Event()
    function = peer.register_function(unique("void"), lambda data: arrived.set())
    assert worker.trigger(function.id, {"a": 1}, action=TriggerAction.Void()) is None
    assert arrived.wait(WAIT)
    assert worker.submit(function.id, action=TriggerAction.Void()).result(WAIT) is None


@pytest.mark.parametrize("form", ["trigger", "submit"])
def test_enqueue_without_a_provider(worker: Worker, unique: Unique, engine_kind: str, form: str) -> None:
    """The engine's error comes back; the local engine has a queue of its own, and gives a receipt."""
    if engine_kind == "local":
        assert FORMS[form](worker, unique("later"), {}, action=TriggerAction.Enqueue(unique("q")))["messageReceiptId"]
        return
    with pytest.raises(errors.InvocationError) as caught:
        FORMS[form](worker, unique("later"), {}, action=TriggerAction.Enqueue("q"))
    assert caught.value.code == "enqueue_error"


def no_longer(worker: Worker, function: FunctionRef) -> None:
    """Take a function back, and wait until the engine has noticed."""
    function.unregister()
    worker.engine.workers()


@pytest.mark.parametrize("form", ["trigger", "submit"])
def test_enqueue_gives_a_receipt_and_the_call_comes_later(
    engine_url: str, unique: Unique, engine_kind: str, form: str
) -> None:
    """The receipt is the answer; the function runs afterwards, with the payload.

    The real engine has no queue for this action but that of a worker that provides one, even with ``iii-queue``: there
    the test is the provider, and so sees what such a worker gets.
    """
    arrived: queue.Queue[Any] = queue.Queue()
    asked: queue.Queue[Any] = queue.Queue()
    with register_worker(engine_url) as worker, register_worker(engine_url) as provider:
        function = worker.register_function(unique("later"), arrived.put)
        if engine_kind == "real":
            provides = provider.register_function("engine::queue::enqueue", asked.put)
        name = unique("q")
        receipt = FORMS[form](worker, function.id, {"a": 1}, action=TriggerAction.Enqueue(name))["messageReceiptId"]
        assert isinstance(receipt, str)
        if engine_kind == "real":
            message = asked.get(timeout=WAIT)
            assert message["messageReceiptId"] == receipt
            assert (message["queue"], message["function_id"], message["data"]) == (name, function.id, {"a": 1})
            no_longer(provider, provides)
            provider.trigger(message["function_id"], message["data"], action=TriggerAction.Void())
        assert arrived.get(timeout=WAIT) == {"a": 1}


def test_a_worker_that_provides_queues(engine_url: str, unique: Unique) -> None:
    """Gets what is enqueued, on either engine; its refusal is the caller's error."""
    asked: queue.Queue[Any] = queue.Queue()

    def enqueue(data: Any) -> None:
        asked.put(data)
        if "full" in data["queue"]:
            raise errors.InvocationError("queue_full", "come back later")

    with register_worker(engine_url) as worker, register_worker(engine_url) as provider:
        function = provider.register_function("engine::queue::enqueue", enqueue)
        receipt = worker.trigger("shop::order", {"a": 1}, action=TriggerAction.Enqueue("q"), namespace=unique("shop"))
        message = asked.get(timeout=WAIT)
        for trace in ("traceparent", "baggage"):
            message.pop(trace, None)
        assert message == {
            "queue": "q",
            "function_id": "shop::order",
            "data": {"a": 1},
            "messageReceiptId": receipt["messageReceiptId"],
            "namespace": unique("shop"),
        }
        with pytest.raises(errors.InvocationError, match="queue_full: come back later") as caught:
            worker.trigger("shop::order", {}, action=TriggerAction.Enqueue("full"))
        assert caught.value.code == "enqueue_error"
        no_longer(provider, function)


@pytest.mark.parametrize(
    "action", ["void", {"type": "Void"}, {}, {"type": "enqueue"}, {"type": "enqueue", "queue": " "}, 3]
)
def test_an_action_the_engine_does_not_know_is_refused(worker: Worker, echo: str, action: Any) -> None:
    """The engine would drop the call without a word."""
    with pytest.raises(errors.ConfigurationError, match="TriggerAction|queue="):
        worker.trigger(echo, 1, action=action)


@pytest.mark.parametrize("form", FORMS)
def test_a_call_in_another_namespace(engine_url: str, worker: Worker, unique: Unique, form: str) -> None:
    """It goes to the one that it names, else to the worker's own; with its metadata."""
    space, call = unique("space"), FORMS[form]

    def there(data: Any, metadata: Any = None) -> Any:
        for end in data.values():
            end.close() if end.writable() else end.read()
        return metadata

    with register_worker(engine_url, namespace=space) as home:
        function = home.register_function(unique("f"), there)
        assert call(home, function.id, {}, metadata={"m": 1}) == {"m": 1}
        assert call(worker, function.id, {}, namespace=space, metadata={"m": 2}) == {"m": 2}
        with pytest.raises(errors.FunctionNotFoundError, match=space):
            call(worker, function.id, {})
        if form in ("trigger", "submit"):
            assert call(worker, {"function_id": function.id, "payload": {}, "namespace": space}) is None


@pytest.mark.parametrize(
    "error",
    [
        errors.FunctionNotFoundError("function_not_found", "no", "inner", "id"),
        errors.CallTimeout("TIMEOUT", "no answer", "inner", "id"),
        errors.OverloadedError("overloaded", "busy", "inner", "id"),
        errors.PermissionDeniedError("FORBIDDEN", "no", "inner", "id"),
    ],
)
def test_what_became_of_a_call_that_a_handler_made_is_not_said_of_its_own(
    worker: Worker, peer: Worker, unique: Unique, error: errors.InvocationError
) -> None:
    """The function was there, and it ran: its caller must not take it for a call that never happened."""

    def outer(data: Any) -> None:
        raise error

    function = peer.register_function(unique("outer"), outer)
    with pytest.raises(errors.HandlerFailedError, match=f"inner: .*{error.code}"):
        worker.trigger(function.id)


def test_a_failed_call_in_a_handler_leaves_the_callers_channel_handed_out(
    worker: Worker, peer: Worker, unique: Unique
) -> None:
    """A nested function_not_found: the function has the end, and may go on using it."""
    missing = unique("missing")

    def outer(data: Any) -> None:
        peer.trigger(missing)

    channel = worker.create_channel()
    function = peer.register_function(unique("outer"), outer)
    with pytest.raises(errors.HandlerFailedError, match=missing):
        worker.trigger(function.id, {"reader": channel.reader_ref})
    assert channel.reader._handed_out == 1


def test_map_gives_results_in_order_with_so_many_under_way(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Payloads are taken as they are needed; the first is answered last."""
    lock, running, most = threading.Lock(), 0, 0
    release = threading.Event()

    def slow(data: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if data == 0:
            release.wait(WAIT)
        elif data == 3:
            release.set()
        with lock:
            running -= 1
        return data * data

    taken: list[int] = []

    def payloads() -> Any:
        for number in range(100):
            taken.append(number)
            yield number

    function = peer.register_function(unique("slow"), slow)
    results = worker.map(function.id, payloads(), max_in_flight=4)
    assert not taken
    assert next(results) == 0 and len(taken) == 4
    assert list(results) == [number * number for number in range(1, 100)]
    assert most <= 4


def test_map_ends_at_the_first_error_or_returns_it(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Results before it are given first; what is under way is cancelled. A payload that cannot travel is one too."""

    def picky(data: Any) -> Any:
        if data == 2:
            raise ValueError("two")
        return data

    function = peer.register_function(unique("picky"), picky)
    results = worker.map(function.id, [0, 1, 2, 3, 4], max_in_flight=5)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(errors.HandlerFailedError, match="two"):
        next(results)
    assert list(results) == []
    end = time.monotonic() + WAIT
    while worker._session._pending and time.monotonic() < end:
        time.sleep(0.01)
    assert not worker._session._pending
    found = list(worker.map(function.id, [1, 2, {3}, 4], return_exceptions=True))
    assert found[0] == 1 and found[3] == 4
    assert isinstance(found[1], errors.HandlerFailedError) and isinstance(found[2], errors.InvalidPayloadError)


def test_map_left_early_cancels_what_is_under_way(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Nobody waits for it any more."""
    release = threading.Event()
    function = peer.register_function(unique("slow"), lambda data: data == 0 or release.wait(WAIT))
    results = worker.map(function.id, range(10), max_in_flight=10)
    assert next(results) is True
    results.close()  # type: ignore[attr-defined]
    assert not worker._session._pending
    release.set()
    with pytest.raises(errors.CallTimeout):
        next(worker.map(peer.register_function(unique("never"), lambda data: time.sleep(1)).id, [1], timeout=0.1))
    for wrong in (0, True, 1.5):
        with pytest.raises(errors.ConfigurationError, match="max_in_flight"):
            worker.map(function.id, [], max_in_flight=wrong)  # type: ignore[arg-type]


def test_metadata_reaches_a_handler_that_asks_for_it(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Only handlers with a parameter of that name get it."""

    def wants(data: Any, metadata: Any = None) -> Any:
        return [data, metadata]

    function = peer.register_function(unique("wants"), wants)
    assert worker.trigger(function.id, 1, metadata={"tenant": "t1"}) == [1, {"tenant": "t1"}]


def test_the_engines_own_key_is_not_in_the_payload(worker: Worker, peer: Worker, unique: Unique) -> None:
    """_caller_worker_id is stripped."""
    function = peer.register_function(unique("keys"), lambda data: sorted(data))
    assert worker.trigger(function.id, {"a": 1}) == ["a"]


def test_a_callee_that_leaves_fails_the_call(worker: Worker, engine_url: str, unique: Unique) -> None:
    """invocation_stopped, at once."""
    running = threading.Event()
    release = threading.Event()

    def slow(data: Any) -> None:
        running.set()
        release.wait(WAIT)

    other = register_worker(engine_url, shutdown_timeout=0.4)
    function = other.register_function(unique("slow"), slow)
    call = worker.submit(function.id)
    assert running.wait(WAIT)
    other.shutdown()
    with pytest.raises(errors.InvocationError) as caught:
        call.result(WAIT)
    assert caught.value.code == "invocation_stopped"
    release.set()


def test_shutdown_wakes_those_who_wait(engine_url: str, peer: Worker, unique: Unique) -> None:
    """A blocked trigger in another thread returns with the reason."""
    running, release = threading.Event(), threading.Event()

    def slow(data: Any) -> None:
        running.set()
        release.wait(WAIT)

    function = peer.register_function(unique("slow"), slow)
    worker = register_worker(engine_url)
    failures: list[BaseException] = []

    def call() -> None:
        try:
            worker.trigger(function.id)
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=call)
    thread.start()
    assert running.wait(WAIT)
    worker.shutdown()
    thread.join(WAIT)
    assert isinstance(failures[0], errors.WorkerClosedError)
    release.set()


def test_calls_from_many_threads(worker: Worker, echo: str) -> None:
    """Sixteen threads, every answer goes to its own caller."""

    def ask(number: int) -> list[int]:
        return [worker.trigger(echo, number * 1000 + index) for index in range(50)]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for number, answers in enumerate(pool.map(ask, range(16))):
            assert answers == [number * 1000 + index for index in range(50)]
