"""Functions: registration, and the threads on which handlers run."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any, Callable

import pytest

from iii_sync import TriggerAction, Worker, errors, register_worker, triggers
from iii_sync.pool import HandlerPool

from .support.threads import in_thread
from .support.waiting import wait_until

WAIT = 30.0

Unique = Callable[[str], str]


def test_a_decorated_function_stays_a_function(worker: Worker, unique: Unique) -> None:
    """It can be called as before, and through the engine when the decorator returns."""
    name = unique("double")

    @worker.function(name, description="doubles")
    def double(data: int) -> int:
        return 2 * data

    assert double(2) == 4
    assert worker.trigger(name, 21) == 42
    assert worker.trigger("engine::functions::info", {"function_id": name})["description"] == "doubles"


def test_unregister_takes_a_function_back(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Afterwards it is not found, and the id is free again."""
    function = peer.register_function(unique("gone"), lambda data: 1)
    assert worker.trigger(function.id) == 1
    function.unregister()
    function.unregister()
    end = time.monotonic() + WAIT
    with pytest.raises(errors.FunctionNotFoundError):
        while time.monotonic() < end:
            worker.trigger(function.id)
    assert worker.register_function(function.id, lambda data: 2)
    assert peer.trigger(function.id) == 2


def test_a_function_is_taken_back_by_its_id_its_handler_or_its_handle(
    worker: Worker, peer: Worker, unique: Unique
) -> None:
    """And may be registered again at once, with another handler; an old handle does not touch the new one."""

    def first(data: Any) -> int:
        return 1

    name = unique("changes")
    old = peer.register_function(name, first)
    peer.unregister_function(first)
    peer.function(name)(lambda data: 2)
    old.unregister()
    assert worker.trigger(name) == 2
    peer.unregister_function(name)
    handle = peer.register_function(name, lambda data: 3, description="third")
    assert worker.trigger(name) == 3
    assert worker.trigger("engine::functions::info", {"function_id": name})["description"] == "third"
    peer.unregister_function(handle)
    with pytest.raises(errors.ConfigurationError, match=f"{name}' is not registered"):
        peer.unregister_function(name)
    with pytest.raises(errors.ConfigurationError, match="not registered"):
        peer.unregister_function(first)
    both = [peer.register_function(unique(word), first) for word in ("one", "two")]
    with pytest.raises(errors.ConfigurationError, match=f"{both[0].id}.*{both[1].id}.*give the id"):
        peer.unregister_function(first)


def test_an_id_is_registered_again_by_whoever_comes_next(worker: Worker, peer: Worker, unique: Unique) -> None:
    """A refused registration leaves nothing behind: once the owner lets go, it works."""
    name = unique("next")
    owner = peer.register_function(name, lambda data: "peer")
    for _ in range(2):
        with pytest.raises(errors.RegistrationRejectedError):
            worker.register_function(name, lambda data: "worker")
    owner.unregister()
    end = time.monotonic() + WAIT
    while True:
        try:
            worker.register_function(name, lambda data: "worker")
            break
        except errors.RegistrationRejectedError:
            assert time.monotonic() < end
    assert peer.trigger(name) == "worker"


def test_an_id_of_another_worker_is_refused(worker: Worker, peer: Worker, unique: Unique) -> None:
    """The error names the id, the code and the owner; the first registration stands."""
    function = peer.register_function(unique("mine"), lambda data: "peer")
    with pytest.raises(errors.RegistrationRejectedError, match=function.id) as caught:
        worker.register_function(function.id, lambda data: "worker")
    assert caught.value.code == "FUNCTION_NAMESPACE_CONFLICT"
    assert caught.value.owner_worker_id == peer.worker_id
    assert worker.trigger(function.id) == "peer"


def test_an_id_twice_on_one_worker_is_refused(worker: Worker, unique: Unique) -> None:
    """Refused here: the engine would silently replace it."""
    function = worker.register_function(unique("twice"), lambda data: 1)
    with pytest.raises(errors.ConfigurationError, match="already"):
        worker.register_function(function.id, lambda data: 2)


@pytest.mark.parametrize(
    "function_id",
    ["", "  ", None, 3, "\ud800", "engine::channels::create", "engine::x", "state::get", "publish", "stream::set"],
)
def test_ids_that_cannot_be_registered(worker: Worker, function_id: Any) -> None:
    """Blank ones, and those the engine serves itself, which would be gone for everybody (E-16)."""
    with pytest.raises(errors.ConfigurationError):
        worker.register_function(function_id, lambda data: 1)
    with pytest.raises(errors.ConfigurationError):
        worker.function(function_id)


def test_a_decorator_without_its_parentheses_is_refused(worker: Worker) -> None:
    """It would register nothing, and say nothing."""
    with pytest.raises(errors.ConfigurationError, match=r"@worker.function\('hello'\)"):

        @worker.function  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        def hello(data: Any) -> None: ...


def test_handlers_that_cannot_be(worker: Worker, unique: Unique) -> None:
    """Asynchronous ones and what cannot be called at all."""

    async def asynchronous(data: Any) -> None: ...

    class Asynchronous:
        async def __call__(self, data: Any) -> None: ...

    for handler in (asynchronous, Asynchronous(), "text", None):
        with pytest.raises(errors.ConfigurationError, match="handler"):
            worker.register_function(unique("bad"), handler)  # type: ignore[arg-type]


def test_bad_registration_details_are_refused(worker: Worker, unique: Unique) -> None:
    """Values that the engine would drop the whole registration for."""
    with pytest.raises(errors.InvalidPayloadError, match="metadata.*nan"):
        worker.register_function(unique("bad"), print, metadata={"x": float("nan")})
    with pytest.raises(errors.InvalidPayloadError, match="request_format"):
        worker.register_function(unique("bad"), print, request_format={"x": {1}})
    for wrong in (5, "object", ["object"], object(), lambda data: data, Any):
        for name in ("request_format", "response_format"):
            with pytest.raises(errors.ConfigurationError, match=f"{name}=.*give a JSON Schema, which is a dict"):
                worker.register_function(unique("bad"), print, **{name: wrong})  # type: ignore[arg-type]
    with pytest.raises(errors.ConfigurationError, match="request_format: set is nothing that a JSON value can become"):
        worker.register_function(unique("bad"), print, request_format=list[set])  # type: ignore[type-arg]
    with pytest.raises(errors.ConfigurationError, match="request_format: NotThere: NameError"):
        worker.register_function(unique("bad"), print, request_format=list.__class_getitem__("NotThere"))
    with pytest.raises(errors.ConfigurationError, match="request_format='int': give a JSON Schema"):
        worker.register_function(unique("bad"), print, request_format="int")
    for description in (5, ["one line"], b"one line"):
        with pytest.raises(errors.ConfigurationError, match="description=.* must be text"):
            worker.register_function(unique("bad"), print, description=description)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidPayloadError, match="description: lone surrogate"):
        worker.register_function(unique("bad"), print, description="\ud800")
    assert worker._registrations.registrations() == []


@dataclasses.dataclass
class Order:
    """What a format may be."""

    item: str
    pieces: int = 1


def test_formats_may_be_types(worker: Worker, unique: Unique) -> None:
    """Listed as their schema, and nothing is checked against them; ``True`` is a schema as well."""
    name = unique("f")
    worker.register_function(name, lambda data: data, request_format=Order, response_format=list[Order])
    listed = worker.engine.function(name)
    request, response = listed["request_schema"], listed["response_schema"]
    assert (request["type"], request["required"]) == ("object", ["item"])
    assert request["properties"]["pieces"]["default"] == 1
    assert response["type"] == "array" and response["$defs"]["Order"]["required"] == ["item"]
    assert worker.trigger(name, 5) == 5
    open_to_all = worker.register_function(unique("g"), lambda data: data, request_format=True)
    assert worker.engine.function(open_to_all.id)["request_schema"] is True


@pytest.mark.parametrize("metadata", [0, "text", [1], False, {"a": None}])
def test_metadata_is_any_json(worker: Worker, unique: Unique, metadata: Any) -> None:
    """And listed as it is."""
    function = worker.register_function(unique("f"), print, metadata=metadata)
    assert worker.engine.function(function.id)["metadata"] == metadata


def test_five_hundred_nested_calls_on_one_worker(worker: Worker, unique: Unique) -> None:
    """Each handler waits for the next: the pool grows and nothing deadlocks."""
    name = unique("nest")

    @worker.function(name)
    def nest(depth: int) -> int:
        return 0 if depth == 0 else 1 + int(worker.trigger(name, depth - 1, timeout=60))

    assert worker.trigger(name, 500, timeout=60) == 500


def test_three_hundred_slow_calls_and_their_threads_retire(engine_url: str, worker: Worker, unique: Unique) -> None:
    """All run at once; afterwards the threads end by themselves."""
    with register_worker(engine_url) as busy:
        busy._pool._idle_timeout = 0.2
        together = threading.Barrier(301)
        function = busy.register_function(unique("slow"), lambda data: together.wait(WAIT) >= 0)
        calls = [worker.submit(function.id) for _ in range(300)]
        together.wait(WAIT)
        assert all(call.result(WAIT) for call in calls)
        end = time.monotonic() + WAIT
        while busy._pool.threads:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert busy._pool.threads == 0
        assert busy.trigger(busy.register_function(unique("after"), lambda data: 1).id) == 1


def test_calls_beyond_max_handlers_are_answered_at_once(engine_url: str, worker: Worker, unique: Unique) -> None:
    """Not queued, not hung: the caller hears of it, and the worker stays reachable."""
    with register_worker(engine_url, max_handlers=3) as small:
        release = threading.Event()
        running = threading.Semaphore(0)

        def slow(data: Any) -> str:
            running.release()
            release.wait(WAIT)
            return "done"

        function = small.register_function(unique("slow"), slow)
        calls = [worker.submit(function.id) for _ in range(3)]
        for _ in range(3):
            assert running.acquire(timeout=WAIT)
        with pytest.raises(errors.OverloadedError, match="3 handlers"):
            worker.trigger(function.id, timeout=WAIT)
        release.set()
        assert [call.result(WAIT) for call in calls] == ["done"] * 3


def test_twenty_thousand_void_calls_at_once(engine_url: str, worker: Worker, unique: Unique) -> None:
    """The worker takes what it may, refuses the rest, and answers the next call."""
    with register_worker(engine_url, max_handlers=50) as busy:
        release = threading.Event()
        function = busy.register_function(unique("flood"), lambda data: release.wait(WAIT))
        for number in range(20_000):
            worker.trigger(function.id, number, action=TriggerAction.Void())
        release.set()
        echo = busy.register_function(unique("echo"), lambda data: data)
        end = time.monotonic() + WAIT
        while True:
            try:
                assert worker.trigger(echo.id, "still there", timeout=WAIT) == "still there"
                break
            except errors.OverloadedError:
                assert time.monotonic() < end
        assert busy._pool.threads <= 50


def test_handlers_answer_before_shutdown_ends(engine_url: str, worker: Worker, unique: Unique) -> None:
    """A handler that is running when its worker is shut down still answers."""
    running = threading.Event()

    def slow(data: Any) -> str:
        running.set()
        time.sleep(0.3)
        return "finished"

    other = register_worker(engine_url)
    call = worker.submit(other.register_function(unique("slow"), slow).id)
    assert running.wait(WAIT)
    other.shutdown()
    assert call.result(WAIT) == "finished"


def test_a_handler_may_shut_its_worker_down(engine_url: str, unique: Unique) -> None:
    """From a thread of the pool that shutdown waits for."""
    other = register_worker(engine_url)
    other.trigger(other.register_function(unique("end"), lambda data: other.shutdown()).id, action={"type": "void"})
    assert other.wait(WAIT) is True


def test_the_pool_reuses_the_thread_that_was_used_last() -> None:
    """So that the others can become idle and end."""
    pool = HandlerPool("test-pool", 10)
    names: list[str] = []
    for _ in range(20):
        done = threading.Event()

        def task(done: threading.Event = done) -> None:
            names.append(threading.current_thread().name)
            done.set()

        assert pool.try_run(task)
        assert done.wait(WAIT)
        assert pool.drain(WAIT)
    assert len(set(names)) <= 2
    pool.stop()


def test_a_pool_that_is_full_keeps_callbacks_for_later() -> None:
    """run_soon never loses a task; try_run says no."""
    pool = HandlerPool("test-pool", 1)
    release, ran = threading.Event(), threading.Event()
    assert pool.try_run(lambda: None if release.wait(WAIT) else None)
    assert not pool.try_run(lambda: None)
    pool.run_soon(ran.set)
    assert not ran.is_set()
    release.set()
    assert ran.wait(WAIT)
    pool.stop()


def test_a_handler_that_forgets_its_writer_does_not_keep_it_alive(worker: Worker, unique: Unique) -> None:
    """The thread that ran it waits for more work, but holds nothing of it: the reader learns of the cut at once."""

    def forgetful(data: Any) -> None:
        data["writer"].write(b"no with")

    function = worker.register_function(unique("forgetful"), forgetful)
    for _ in range(8):
        channel = worker.create_channel()
        channel.reader.timeout = 3  # less than a thread waits for work
        with pytest.warns(ResourceWarning, match="not closed"):
            worker.trigger(function.id, {"writer": channel.writer_ref})
            with pytest.raises(errors.ChannelTruncatedError):
                channel.reader.read()


def test_a_handlers_own_error_is_logged_where_it_happened(
    worker: Worker, unique: Unique, caplog: pytest.LogCaptureFixture
) -> None:
    """With its traceback, by the worker that ran it."""

    def buggy(data: Any) -> Any:
        return dict[str, Any]()["nokey"]

    with pytest.raises(errors.HandlerFailedError):
        worker.trigger(worker.register_function(unique("buggy"), buggy).id)
    assert "buggy" in caplog.text and "KeyError: 'nokey'" in caplog.text and "line" in caplog.text


def test_a_registration_above_the_limit_is_refused(engine_url: str, worker: Worker, unique: Unique) -> None:
    """With the size and the limit; nothing stays of it."""
    large, name = "x" * 10_000, unique("f")
    with register_worker(engine_url, max_payload=5_000) as small:
        attempts: list[Callable[[], object]] = [
            lambda: small.register_function(name, print, metadata=large),
            lambda: small.register_function(name, print, trigger=triggers.subscribe(large)),
            lambda: small.register_http("GET", f"/{name}", lambda request: None, description=large),
            lambda: small.register_trigger("subscribe", name, {"topic": large}),
            lambda: small.register_trigger_type(unique("hook"), large, (print, print)),
        ]
        for attempt in attempts:
            with pytest.raises(errors.PayloadTooLargeError, match="10,.* bytes, the limit max_payload is 5,000"):
                attempt()
            assert small._registrations.registrations() == []
        small.register_function(name, lambda data: data)
        assert worker.trigger(name, 1) == 1


def test_calls_during_a_shutdown_are_refused(engine_url: str, worker: Worker, unique: Unique) -> None:
    """While those that run may still end."""
    running, release = threading.Event(), threading.Event()

    def slow(data: Any) -> bool:
        running.set()
        return release.wait(WAIT)

    with register_worker(engine_url, shutdown_timeout=WAIT) as leaving:
        function = leaving.register_function(unique("slow"), slow)
        call = worker.submit(function.id)
        assert running.wait(WAIT)
        ended = in_thread(leaving.shutdown)
        wait_until(lambda: leaving._functions.closed, "the shutdown")
        with pytest.raises(errors.InvocationError, match="the worker is shutting down") as caught:
            worker.trigger(function.id)
        assert caught.value.code == "SHUTDOWN"
        release.set()
        assert call.result(WAIT) is True
        ended()
