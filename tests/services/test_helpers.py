"""The thin helpers: what they return for what is there, for what is missing, and for nonsense."""

from __future__ import annotations

import inspect
import queue
import time
import uuid
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from iii_sync import Worker, errors, register_worker
from iii_sync.services import UpdateOp

from .helpers import HELPERS

WAIT = 20.0

Unique = Callable[[str], str]
Attempts = list[tuple[Callable[[], object], str]]


@pytest.fixture
def far(engine_url: str, unique: Unique) -> Iterator[Worker]:
    """A worker with a namespace of its own, where none of the engine's services live."""
    with register_worker(engine_url, namespace=unique("shop")) as worker:
        yield worker


def subscribe(worker: Worker, kind: str, config: dict[str, Any], unique: Unique) -> queue.Queue[Any]:
    """Have a trigger call a function; its payloads arrive in the queue."""
    seen: queue.Queue[Any] = queue.Queue()
    ref = worker.register_function(unique(f"on-{uuid.uuid4().hex[:6]}"), seen.put)
    made = worker.trigger("engine::register_trigger", {"trigger_type": kind, "function_id": ref.id, "config": config})
    assert made["id"]
    return seen


class TestEvery:
    """What holds for all of them."""

    def test_the_list_of_them_is_whole(self, worker: Worker) -> None:
        """So that none is left out below."""
        services = ("state", "streams", "queues", "engine")
        found = {f"{of}.{name}" for of in services for name in dir(getattr(worker, of)) if not name.startswith("_")}
        assert found | {"publish"} == set(HELPERS)

    @pytest.mark.parametrize("name", [name for name, helper in HELPERS.items() if helper.wrong])
    def test_wrong_arguments(self, worker: Worker, name: str) -> None:
        """Are refused before anything is sent, and named."""
        helper = HELPERS[name]
        with pytest.raises(errors.ConfigurationError, match=helper.said):
            helper._replace(arguments=helper.wrong).call(worker, name)

    @pytest.mark.parametrize("name", HELPERS)
    def test_no_time(self, worker: Worker, name: str) -> None:
        """Is refused before anything is sent."""
        with pytest.raises(errors.ConfigurationError, match="timeout"):
            HELPERS[name].call(worker, name, timeout=0)

    @pytest.mark.parametrize("name", ["functions", "workers", "triggers", "trigger_types"])
    def test_wrong_filters(self, worker: Worker, name: str) -> None:
        """The engine would refuse the call, and not say which."""
        listing: Any = getattr(worker.engine, name)
        for argument in set(inspect.signature(listing).parameters) - {"timeout", "include_internal"}:
            for wrong in (5, ["x"]):
                with pytest.raises(errors.ConfigurationError, match=f"{argument}=.* must be text"):
                    listing(**{argument: wrong})
        if name != "workers":
            with pytest.raises(errors.ConfigurationError, match="include_internal='yes' must be True or False"):
                listing(include_internal="yes")

    @pytest.mark.parametrize("name", ["function", "worker", "trigger_type"])
    def test_a_namespace_that_is_no_text(self, worker: Worker, name: str) -> None:
        """Is refused as well."""
        with pytest.raises(errors.ConfigurationError, match="namespace=5 must be text"):
            getattr(worker.engine, name)("x", namespace=5)

    def test_after_shutdown(self, engine_url: str) -> None:
        """Each says that the worker has ended."""
        worker = register_worker(engine_url)
        worker.shutdown()
        for name, helper in HELPERS.items():
            with pytest.raises(errors.WorkerClosedError):
                helper.call(worker, name)
        with pytest.raises(errors.WorkerClosedError):
            worker.log("too late")


class TestState:
    """``worker.state``."""

    def test_values(self, worker: Worker, unique: Unique) -> None:
        """Set, get, list, delete; missing is ``None``, and nothing is an error."""
        state, scope = worker.state, unique("scope")
        assert state.get(scope, "k") is None
        assert state.delete(scope, "k") is None
        assert state.list(scope) == []
        assert scope not in state.list_groups()
        assert state.set(scope, "k", {"a": 1}) == {"old_value": None, "new_value": {"a": 1}}
        assert state.set(scope, "k", [1]) == {"old_value": {"a": 1}, "new_value": [1]}
        assert state.get(scope, "k") == [1]
        state.set(scope, "none", None)
        assert state.get(scope, "none") is None
        assert sorted(state.list(scope), key=str) == sorted([None, [1]], key=str)
        assert scope in state.list_groups()
        assert state.delete(scope, "k") == [1]
        assert state.get(scope, "k") is None

    def test_updates(self, worker: Worker, unique: Unique) -> None:
        """Every operation, in order, in one step."""
        scope = unique("scope")
        result: Any = worker.state.update(
            scope,
            "k",
            [
                UpdateOp.set("a.b", 1),
                UpdateOp.increment("n"),
                UpdateOp.increment("n", 5),
                UpdateOp.decrement("n", 2),
                UpdateOp.merge({"x": 1}),
                UpdateOp.merge({"deep": True}, ["one", "two"]),
                UpdateOp.append("item", "list"),
                UpdateOp.append(2, ("one", "more")),
                UpdateOp.set("gone", None),
                UpdateOp.remove("gone"),
            ],
        )
        value = {"a.b": 1, "n": 4, "x": 1, "one": {"two": {"deep": True}, "more": [2]}, "list": "item"}
        assert result == {"old_value": None, "new_value": value, "errors": []}
        assert worker.state.get(scope, "k") == value

    def test_an_operation_that_does_not_fit_is_told(self, worker: Worker, unique: Unique) -> None:
        """The others are applied, as documented."""
        scope = unique("scope")
        worker.state.set(scope, "k", {"text": "x"})
        result = worker.state.update(scope, "k", [UpdateOp.increment("text"), UpdateOp.set("b", 1)])
        assert [(error["op_index"], error["code"]) for error in result["errors"]] == [(0, "increment.not_number")]
        assert result["new_value"] == {"text": "x", "b": 1}

    def test_concurrent_updates_are_all_there(self, worker: Worker, unique: Unique) -> None:
        """An increment loses nothing."""
        scope = unique("scope")
        calls = [
            worker.submit("state::update", {"scope": scope, "key": "k", "ops": [UpdateOp.increment("n")]})
            for _ in range(100)
        ]
        for call in calls:
            call.result(WAIT)
        assert worker.state.get(scope, "k") == {"n": 100}

    def test_nonsense(self, worker: Worker) -> None:
        """Refused here where it can be seen, else by the engine; each says what."""
        state: Any = worker.state
        attempts: Attempts = [
            (lambda: state.get(1, "k"), "scope=1 must be text"),
            (lambda: state.set("s", None, 1), "key=None must be text"),
            (lambda: state.list(b"s"), "scope=b's' must be text"),
            (lambda: state.update("s", "k", UpdateOp.remove("a")), "single operation"),
            (lambda: state.update("s", "k", 5), "ops=5 must be a list of what UpdateOp makes"),
            (lambda: state.update("s", "k", "ab"), r"ops\[0\]='a' is no operation"),
            (lambda: state.update("s", "k", [UpdateOp.remove("a"), None]), r"ops\[1\]=None is no operation"),
            (lambda: UpdateOp.increment("a", "1"), "by='1' must be an integer"),  # type: ignore[arg-type]
            (lambda: UpdateOp.increment("a", True), "by=True must be an integer"),
            (lambda: UpdateOp.set(1, 2), "path=1 must be text"),  # type: ignore[arg-type]
            (lambda: UpdateOp.merge([1]), "give a dictionary"),  # type: ignore[arg-type]
            (lambda: UpdateOp.append(1, 2), "path=2"),  # type: ignore[arg-type]
            (lambda: UpdateOp.append(1, [2]), "path=2 must be text"),  # type: ignore[list-item]
        ]
        for attempt, said in attempts:
            with pytest.raises(errors.ConfigurationError, match=said):
                attempt()
        with pytest.raises(errors.InvalidPayloadError, match="bytes"):
            state.set("s", "k", b"x")
        with pytest.raises(errors.InvocationError) as caught:
            state.update("s", "k", [{"type": "explode"}])
        assert caught.value.code == "deserialization_error"
        with pytest.raises(errors.ConfigurationError, match="timeout"):
            state.get("s", "k", timeout=0)

    def test_a_worker_elsewhere_reaches_the_same_values(self, worker: Worker, far: Worker, unique: Unique) -> None:
        """Whatever its namespace is."""
        scope = unique("scope")
        far.state.set(scope, "k", 1)
        assert worker.state.get(scope, "k") == 1
        with pytest.raises(errors.FunctionNotFoundError, match="registered in namespace"):
            far.trigger("state::get", {"scope": scope, "key": "k"})

    def test_a_change_calls_a_trigger(self, worker: Worker, unique: Unique) -> None:
        """What is set here arrives there."""
        scope = unique("scope")
        seen = subscribe(worker, "state", {"scope": scope}, unique)
        worker.state.set(scope, "k", 1)
        assert seen.get(timeout=WAIT)["new_value"] == 1


class TestStreams:
    """``worker.streams``."""

    def test_items(self, worker: Worker, unique: Unique) -> None:
        """As with state, and the listings of groups."""
        streams, name = worker.streams, unique("stream")
        assert streams.get(name, "g", "i") is None
        assert streams.delete(name, "g", "i") is None
        assert (streams.list(name, "g"), streams.list_groups(name)) == ([], [])
        assert streams.set(name, "g", "i", {"n": 1}) == {"old_value": None, "new_value": {"n": 1}}
        result: Any = streams.update(name, "g", "i", [UpdateOp.increment("n")])
        assert result == {"old_value": {"n": 1}, "new_value": {"n": 2}, "errors": []}
        assert streams.get(name, "g", "i") == {"n": 2}
        assert (streams.list(name, "g"), streams.list_groups(name)) == ([{"n": 2}], ["g"])
        assert {"id": name, "groups": ["g"]} in streams.list_all()
        assert streams.delete(name, "g", "i") == {"n": 2}
        assert streams.get(name, "g", "i") is None

    def test_events(self, worker: Worker, far: Worker, unique: Unique) -> None:
        """Changes and events reach those who follow."""
        name = unique("stream")
        seen = subscribe(worker, "stream", {"stream_name": name}, unique)
        far.streams.set(name, "g", "i", 1)
        assert seen.get(timeout=WAIT)["event"] == {"type": "create", "data": 1}
        far.streams.send(name, "g", "note", None, item="i")
        event = seen.get(timeout=WAIT)
        assert (event["id"], event["event"]) == ("i", {"type": "event", "event": {"type": "note", "data": None}})

    def test_nonsense(self, worker: Worker) -> None:
        """Every part of a name must be text."""
        streams: Any = worker.streams
        attempts: Attempts = [
            (lambda: streams.get(1, "g", "i"), "stream=1"),
            (lambda: streams.set("s", 2, "i", 0), "group=2"),
            (lambda: streams.delete("s", "g", None), "item=None"),
            (lambda: streams.send("s", "g", 3, 0), "kind=3"),
        ]
        for attempt, said in attempts:
            with pytest.raises(errors.ConfigurationError, match=said):
                attempt()


class TestPublishing:
    """``worker.publish`` and ``worker.queues``."""

    def test_publish(self, worker: Worker, far: Worker, unique: Unique) -> None:
        """Subscribers get it; nobody need be there; a blank topic is an error."""
        topic = unique("topic")
        worker.publish(topic, "nobody hears this")
        seen = subscribe(worker, "subscribe", {"topic": topic}, unique)
        far.publish(topic, {"n": 1})
        assert seen.get(timeout=WAIT) == {"n": 1}
        with pytest.raises(errors.InvocationError) as caught:
            worker.publish("", 1)
        assert caught.value.code == "topic_not_set"

    def test_durable(self, worker: Worker, far: Worker, unique: Unique) -> None:
        """A message is delivered and counted."""
        topic = unique("topic")
        seen = subscribe(worker, "durable:subscriber", {"topic": topic}, unique)
        far.queues.publish(topic, {"n": 1})
        assert seen.get(timeout=WAIT)["n"] == 1
        assert topic in [item["name"] for item in worker.queues.topics()]
        assert worker.queues.stats(topic)["dlq_depth"] == 0
        other = unique("other")
        assert worker.queues.stats(other)["depth"] == worker.queues.redrive(other) == 0
        assert worker.queues.dead_messages(other) == []
        assert other not in [item["name"] for item in worker.queues.topics()]  # asking makes none
        dead = {item["topic"]: item["message_count"] for item in worker.queues.dead_topics()}
        assert other not in dead and dead[topic] == 0
        with pytest.raises(errors.InvocationError) as caught:
            worker.queues.publish("", 1)
        assert caught.value.code == "topic_not_set"

    def test_dead_messages(self, worker: Worker, unique: Unique) -> None:
        """They can be seen, delivered again, or removed."""
        topic, failing = unique("topic"), True
        calls: queue.Queue[Any] = queue.Queue()

        def handler(data: Any) -> None:
            calls.put(data)
            if failing:
                raise errors.InvocationError("not_now", "not now")

        ref = worker.register_function(unique("consume"), handler)
        worker.trigger(
            "engine::register_trigger",
            {
                "trigger_type": "durable:subscriber",
                "function_id": ref.id,
                "config": {"topic": topic, "queue_config": {"maxRetries": 1, "backoffDelayMs": 10}},
            },
        )
        for number in range(3):
            worker.queues.publish(topic, {"number": number})
        dead = self.dead(worker, topic, 3)
        assert topic in [item["topic"] for item in worker.queues.dead_topics()]
        assert worker.queues.dead_messages(topic, limit=1) == dead[:1]
        assert worker.queues.dead_messages(topic, offset=1) == dead[1:]
        assert worker.queues.dead_messages(topic, offset=1, limit=1) == dead[1:2]
        assert worker.queues.discard_message(topic, dead[0]["id"]) is True
        assert worker.queues.discard_message(topic, dead[0]["id"]) is False
        failing = False
        while not calls.empty():
            calls.get()
        assert worker.queues.redrive_message(topic, "no-such-message") is False
        assert worker.queues.redrive_message(topic, dead[1]["id"]) is True
        assert calls.get(timeout=WAIT) == dead[1]["payload"]
        assert worker.queues.redrive_message(topic, dead[1]["id"]) is False
        assert worker.queues.redrive(topic) == 1
        assert calls.get(timeout=WAIT) == dead[2]["payload"]
        assert worker.queues.redrive(topic) == 0

    @staticmethod
    def dead(worker: Worker, topic: str, count: int) -> list[dict[str, Any]]:
        """Wait until so many messages are dead."""
        import time

        end = time.monotonic() + WAIT
        while True:
            dead = worker.queues.dead_messages(topic)
            if len(dead) >= count or time.monotonic() > end:
                assert len(dead) == count
                return dead
            time.sleep(0.02)


class TestEngine:
    """``worker.engine``."""

    def test_functions(self, worker: Worker, unique: Unique) -> None:
        """Found by prefix, search and worker; described by id."""
        name, none = unique("fn"), unique("none")
        worker.register_function(name, lambda _: None, description="does nothing", metadata={"a": 1})
        engine: Any = worker.engine
        for found in ({"prefix": name}, {"search": name}, {"worker": worker.worker_name}):
            listed = engine.functions(**found)
            assert [(item["function_id"], item["description"], item["metadata"]) for item in listed] == [
                (name, "does nothing", {"a": 1})
            ]
        detail = worker.engine.function(name)
        assert (detail["function_id"], detail["registered_triggers"]) == (name, [])
        for missing in ({"prefix": none}, {"search": none}, {"worker": none}, {"prefix": name, "worker": none}):
            assert engine.functions(**missing) == []
        ids = [item["function_id"] for item in worker.engine.functions(include_internal=True)]
        assert "engine::workers::list" in ids
        assert "engine::workers::list" not in [item["function_id"] for item in worker.engine.functions()]

    def test_workers(self, engine_url: str, worker: Worker, unique: Unique, monkeypatch: pytest.MonkeyPatch) -> None:
        """A worker is listed with everything it said of itself."""
        import os
        import platform

        import iii_sync

        monkeypatch.setenv("III_ISOLATION", " container ")
        name, space = unique("listed"), unique("space")
        with register_worker(engine_url, worker_name=name, worker_description="for a test", namespace=space) as listed:
            (summary,) = worker.engine.workers(search=name)
            assert (summary["id"], summary["name"], summary["namespace"]) == (listed.worker_id, name, space)
            assert (summary["runtime"], summary["version"]) == ("python", iii_sync.__version__)
            assert (summary["description"], summary["isolation"]) == ("for a test", "container")
            assert platform.system() in str(summary["os"])
            assert (summary["status"], summary["ip_address"]) == ("connected", "127.0.0.1")
            assert [item["name"] for item in worker.engine.workers(search=name, runtime="python")] == [name]
            assert worker.engine.workers(search=name, runtime="engine") == []
            detail = worker.engine.worker(name, namespace=space)
            assert (detail["worker"]["pid"], detail["functions"]) == (os.getpid(), [])
        end = time.monotonic() + WAIT
        while worker.engine.workers(search=name):  # the engine hears of the end in its own time
            assert time.monotonic() < end
            time.sleep(0.01)
        for found in (worker.engine.workers(status="available"), worker.engine.workers(runtime="engine")):
            assert {item["runtime"] for item in found} == {"engine"}

    def test_triggers(self, worker: Worker, unique: Unique) -> None:
        """Registered ones, found by type, function, search and worker."""
        name, none = unique("fn"), unique("none")
        worker.register_function(name, lambda _: None)
        config = {"topic": name}
        made = worker.trigger(
            "engine::register_trigger", {"trigger_type": "subscribe", "function_id": name, "config": config}
        )
        engine: Any = worker.engine
        mine = {"worker": worker.worker_name}
        (listed,) = engine.triggers(function_id=name)
        assert (listed["id"], listed["trigger_type"], listed["config"]) == (made["id"], "subscribe", config)
        for found in ({"search": name}, mine, {**mine, "trigger_type": "subscribe"}):
            assert engine.triggers(**found) == [listed]
        for missing in ({"trigger_type": none}, {"search": none}, {"worker": none}, {**mine, "trigger_type": "cron"}):
            assert engine.triggers(**missing) == []
        assert engine.trigger(made["id"])["function_id"] == name

    def test_trigger_types(self, worker: Worker, unique: Unique) -> None:
        """Found by search, prefix and worker; described by id."""
        name, none = unique("hook"), unique("none")
        worker.register_trigger_type(name, "a hook", (print, print))
        engine: Any = worker.engine
        mine = {"worker": worker.worker_name}
        for found in ({"search": name}, {"prefix": name}, mine):
            listed = engine.trigger_types(**found)
            assert [(item["id"], item["worker_name"], item["description"]) for item in listed] == [
                (name, worker.worker_name, "a hook")
            ]
        for missing in ({"search": none}, {"prefix": none}, {"worker": none}, {**mine, "prefix": "cron"}):
            assert engine.trigger_types(**missing) == []
        assert "subscribe" in [item["id"] for item in engine.trigger_types()]
        assert engine.trigger_type(name)["instance_count"] == 0
        worker.register_trigger(name, "f")
        assert engine.trigger_type(name)["instance_count"] == 1

    def test_what_is_not_there(self, worker: Worker, unique: Unique) -> None:
        """Is an error with a code."""
        name, engine = unique("nothing"), worker.engine
        for attempt in (engine.function, engine.worker, engine.trigger, engine.trigger_type):
            with pytest.raises(errors.InvocationError) as caught:
                attempt(name)
            assert caught.value.code == "NOT_FOUND"
            with pytest.raises(errors.ConfigurationError, match="must be text"):
                attempt(1)  # type: ignore[arg-type]


class TestLog:
    """``worker.log``."""

    @pytest.mark.parametrize("level", ["trace", "debug", "info", "warn", "error"])
    def test_a_line_reaches_the_log(self, logging_engine_url: str, unique: Unique, level: str) -> None:
        """Of whatever level, with its data."""
        with register_worker(logging_engine_url) as worker:
            seen = subscribe(worker, "log", {"level": level}, unique)
            text = unique("line")
            worker.log(text, {"a": 1}, level=level)
            while True:
                event = seen.get(timeout=WAIT)
                if event["body"] == text:
                    break
            assert event["severity_text"] == level.upper()

    def test_no_such_level(self, worker: Worker) -> None:
        """The error lists those there are."""
        with pytest.raises(errors.ConfigurationError, match="level='warning' must be one of trace, debug"):
            worker.log("x", level="warning")

    @pytest.mark.parametrize("message", [5, None, {"a": 1}, b"line"])
    def test_a_line_that_is_no_text(self, worker: Worker, message: Any) -> None:
        """The engine would drop it, and nobody would hear of that."""
        with pytest.raises(errors.ConfigurationError, match=r"message=.* must be text.*str\(\) makes it so"):
            worker.log(message)


def test_configuration_lives_in_the_default_namespace(far: Worker) -> None:
    """As ``engine::`` ids do; others are looked for in the worker's own."""
    assert "configurations" in far.trigger("configuration::list", {})
