"""Functions that an engine does not take again after a reconnect."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

import iii_sync.session.registering
from iii_sync import FunctionRef, ReconnectionConfig, Worker, errors, register_worker
from iii_sync.testing import FaultProxy

WAIT = 20.0

Unique = Callable[[str], str]


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Wait for something that happens on another thread, or elsewhere."""
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, f"no sign of {what}"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(iii_sync.session.registering, "_AGAIN_AFTER", 0.05)
    caplog.set_level(logging.INFO, "iii_sync.worker")


@pytest.fixture
def proxy(engine_url: str) -> Iterator[FaultProxy]:
    """What one worker's connection can be broken with."""
    with FaultProxy(engine_url) as proxy:
        yield proxy


@pytest.fixture
def far(proxy: FaultProxy) -> Iterator[Worker]:
    """A worker behind the proxy."""
    with register_worker(proxy.url, reconnection_config=ReconnectionConfig(initial_delay=0.05)) as worker:
        yield worker


def taken(proxy: FaultProxy, far: Worker, other: Worker, function: FunctionRef) -> FunctionRef:
    """Have another worker register the function while the first one is away; returns when that is refused."""
    with proxy.down():
        wait_until(lambda: not other.engine.functions(prefix=function.id), "the engine letting go of the function")
        others = other.register_function(function.id, lambda data: "other")
    wait_until(lambda: function.error is not None, "the refusal")
    return others


def told(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """What was logged at a level."""
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_an_id_that_somebody_took_meanwhile_is_asked_for_until_it_is_free(
    proxy: FaultProxy, far: Worker, worker: Worker, unique: Unique, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once that it is gone, and once that it is back; other functions are back at once."""
    function = far.register_function(unique("contested"), lambda data: "first")
    untouched = far.register_function(unique("untouched"), lambda data: "first")
    assert function.error is None
    others = taken(proxy, far, worker, function)
    assert isinstance(function.error, errors.RegistrationRejectedError)
    assert function.error.code == "FUNCTION_NAMESPACE_CONFLICT"
    assert function.error.owner_worker_id == worker.worker_id
    assert untouched.error is None
    assert worker.trigger(untouched.id) == "first"
    assert worker.trigger(function.id) == "other"
    others.unregister()
    wait_until(lambda: function.error is None, "the registration")
    assert worker.trigger(function.id) == "first"
    wait_until(lambda: f"{function.id} is registered again" in told(caplog, logging.INFO), "the message")
    (said,) = told(caplog, logging.ERROR)
    assert said.startswith(f"{function.id} could not be registered again: ") and str(worker.worker_id) in said


def test_one_that_is_taken_back_is_not_asked_for_any_more(
    proxy: FaultProxy, far: Worker, worker: Worker, unique: Unique
) -> None:
    """And can be registered anew, whatever was said of it before."""
    function = far.register_function(unique("contested"), lambda data: "first")
    last = far.register_function(unique("contested too"), lambda data: "first")
    others = taken(proxy, far, worker, function)
    with proxy.down():
        wait_until(lambda: not worker.engine.functions(prefix=last.id), "the engine letting go of the function")
        others_last = worker.register_function(last.id, lambda data: "other")
    wait_until(lambda: last.error is not None, "the refusal")
    function.unregister()
    for ref in (others, others_last):
        ref.unregister()
    wait_until(lambda: last.error is None, "the registration")  # so the other one was passed by
    assert worker.engine.functions(prefix=function.id) == []
    with pytest.raises(errors.FunctionNotFoundError):
        worker.trigger(function.id)
    far.register_function(function.id, lambda data: "second")
    assert worker.trigger(function.id) == "second"


def test_the_asking_ends(
    proxy: FaultProxy,
    far: Worker,
    worker: Worker,
    unique: Unique,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """That is said, the error stays; the next reconnect begins it again."""
    monkeypatch.setattr(iii_sync.session.registering, "REFUSED_FOR", 0.2)
    function = far.register_function(unique("contested"), lambda data: "first")
    others = taken(proxy, far, worker, function)
    wait_until(lambda: any(said.startswith("still taken") for said in told(caplog, logging.ERROR)), "the end")
    assert function.id in told(caplog, logging.ERROR)[-1]
    others.unregister()
    assert function.error is not None
    proxy.cut()
    wait_until(lambda: function.error is None, "the registration")
    assert worker.trigger(function.id) == "first"


def test_a_worker_that_ends_asks_for_nothing(
    proxy: FaultProxy, far: Worker, worker: Worker, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it would have waited; the test's end looks for threads that are left."""
    monkeypatch.setattr(iii_sync.session.registering, "_AGAIN_AFTER", 3600)
    function = far.register_function(unique("contested"), lambda data: "first")
    others = taken(proxy, far, worker, function)
    far.shutdown()
    others.unregister()
    assert function.error is not None
