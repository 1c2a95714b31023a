"""Answers go out twice: an engine that did not listen yet hears the second one."""

from __future__ import annotations

import queue
from typing import Any

import pytest

from iii_sync import Worker, register_worker

from .support.rawengine import Message, Visit, raw_engine

WAIT = 10.0


class Recorder:
    """An engine that calls a function once, and keeps what it is answered."""

    def __init__(self, function_id: str) -> None:
        self.call = {
            "type": "invokefunction",
            "invocation_id": "11111111-2222-4333-8444-555555555555",
            "function_id": function_id,
            "data": 1,
        }
        self.answers: queue.Queue[Any] = queue.Queue()

    def behave(self, visit: Visit) -> None:
        visit.welcome()
        visit.serve(lambda message: self.take(visit, message))

    def take(self, visit: Visit, message: Message) -> bool:
        if message["type"] == "invocationresult":
            self.answers.put(message)
        elif message.get("function_id") == "go":
            visit.peer.send_json(self.call)
        return False


def both(recorder: Recorder) -> tuple[Any, Any]:
    return recorder.answers.get(timeout=WAIT), recorder.answers.get(timeout=WAIT)


@pytest.fixture
def recorder(request: pytest.FixtureRequest) -> Recorder:
    """The function that is called is the test's parameter."""
    return Recorder(request.param)


def offer(worker: Worker) -> None:
    worker.register_function("f::echo", lambda data: data)

    @worker.function("f::fails")
    def fails(data: object) -> None:
        raise ValueError("no")


@pytest.mark.parametrize("recorder", ["f::echo", "f::fails", "f::missing"], indirect=True)
def test_again_a_moment_later(recorder: Recorder) -> None:
    """A result, a handler's error and a refusal."""
    with raw_engine(recorder.behave) as engine, register_worker(engine.url) as worker:
        offer(worker)
        worker.trigger("go")
        first, second = both(recorder)
        assert first == second
        assert first["invocation_id"] == recorder.call["invocation_id"]
        worker.trigger("again?")
        with pytest.raises(queue.Empty):
            recorder.answers.get(timeout=0.3)


def test_again_before_leaving() -> None:
    """A worker that ends right behind its answer does not wait for the moment, and does not leave it out."""
    recorder = Recorder("f::echo")
    with raw_engine(recorder.behave) as engine:
        with register_worker(engine.url) as worker:
            offer(worker)
            worker.trigger("go")
            first = recorder.answers.get(timeout=WAIT)
        assert recorder.answers.get(timeout=WAIT) == first


def test_large_answers_once() -> None:
    """A large one takes the engine longer than it needs to remember the call."""
    recorder = Recorder("f::large")
    with raw_engine(recorder.behave) as engine, register_worker(engine.url) as worker:
        worker.register_function("f::large", lambda data: "x" * 70_000)
        worker.trigger("go")
        recorder.answers.get(timeout=WAIT)
        with pytest.raises(queue.Empty):
            recorder.answers.get(timeout=0.3)


def test_the_caller_hears_one(worker: Worker, peer: Worker, unique: Any) -> None:
    """Also when both answers come to the engine."""
    peer.register_function(unique("echo"), lambda data: data)
    assert [worker.trigger(unique("echo"), number) for number in range(50)] == list(range(50))
