"""Triggers of a worker: registered, refused, taken back, registered again."""

from __future__ import annotations

import logging
import pickle
import queue
from typing import Any

import pytest

from iii_sync import Worker, errors, register_worker
from iii_sync.triggers import Trigger, cron, log, subscribe

from .support import WAIT, Heard, Hooks, Unique, fire, source


@pytest.fixture
def heard(worker: Worker, unique: Unique) -> Heard:
    """A function of the worker."""
    return Heard(worker, unique("heard"))


def of_function(worker: Worker, function_id: str) -> list[Any]:
    """The triggers that the engine lists for a function."""
    found = worker.trigger("engine::registered-triggers::list", {"function_id": function_id})
    listed: list[Any] = found["registered_triggers"]
    return listed


def test_a_trigger_calls_its_function(worker: Worker, peer: Worker, heard: Heard, unique: Unique) -> None:
    """What is published arrives once the registration has returned, and no more when it is taken back."""
    topic = unique("topic")
    trigger = worker.register_trigger("subscribe", heard.id, {"topic": topic})
    assert (trigger.type, trigger.function_id, trigger.config) == ("subscribe", heard.id, {"topic": topic})
    assert trigger.error is None and trigger.is_active()
    peer.trigger("publish", {"topic": topic, "data": {"n": 1}})
    assert heard.next()[0] == {"n": 1}
    assert [listed["id"] for listed in of_function(peer, heard.id)] == [trigger.id]
    trigger.unregister()
    trigger.unregister()
    assert not trigger.is_active() and of_function(worker, heard.id) == []
    peer.trigger("publish", {"topic": topic, "data": {"n": 2}})
    other = unique("other")
    worker.register_trigger("subscribe", heard.id, {"topic": other})
    peer.trigger("publish", {"topic": other, "data": {"n": 3}})
    assert heard.next()[0] == {"n": 3}


def test_the_forms_of_a_registration(worker: Worker, heard: Heard, unique: Unique) -> None:
    """By name, from a source, and iii's dictionary."""
    topics = [unique(f"topic{number}") for number in range(3)]
    worker.register_trigger("subscribe", heard.id, {"topic": topics[0]})
    worker.register_trigger(subscribe(topics[1]), heard.id)
    trigger = worker.register_trigger(
        {"type": "subscribe", "function_id": heard.id, "config": {"topic": topics[2]}, "id": unique("mine")}
    )
    assert trigger.id.startswith("mine")
    for topic in topics:
        worker.trigger("publish", {"topic": topic, "data": topic})
        assert heard.next()[0] == topic


def test_metadata_goes_with_every_call(worker: Worker, heard: Heard, unique: Unique) -> None:
    """As the handler's ``metadata``."""
    scope = unique("scope")
    worker.register_trigger("state", heard.id, {"scope": scope}, metadata={"shop": 7})
    worker.trigger("state::set", {"scope": scope, "key": "k", "value": 1})
    data, metadata = heard.next()
    assert (data["event_type"], data["new_value"], metadata) == ("state:created", 1, {"shop": 7})


@pytest.mark.parametrize("config", [{"expression": "61 * * * * *"}, {"expression": "x x x x x x"}, {}, 5, ["a"]])
def test_what_the_engine_refuses_raises(worker: Worker, heard: Heard, config: Any) -> None:
    """With its code and words; nothing stays."""
    with pytest.raises(errors.TriggerRegistrationError, match="trigger_registration_failed") as caught:
        worker.register_trigger("cron", heard.id, config, trigger_id="the-id")
    assert caught.value.code == "trigger_registration_failed"
    assert (caught.value.trigger_type, caught.value.function_id) == ("cron", heard.id)
    assert isinstance(caught.value, errors.RegistrationRejectedError)
    assert vars(pickle.loads(pickle.dumps(caught.value))) == vars(caught.value)
    assert worker._registrations.registrations() == [worker._functions.registrations()[0]]
    assert worker.register_trigger(cron("0 0 0 1 1 *"), heard.id, trigger_id="the-id").is_active()


def test_a_refusal_on_a_worker_that_is_shared(worker: Worker, heard: Heard, unique: Unique) -> None:
    """A function that has the trigger's id is not taken for it."""
    with pytest.raises(errors.TriggerRegistrationError):
        worker.register_trigger("cron", heard.id, {"expression": "no"}, trigger_id=heard.id)
    assert worker.trigger(heard.id, 1) is None


def test_an_unknown_type_waits_and_is_told(
    worker: Worker, heard: Heard, unique: Unique, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names the type, the function, and what it may have been meant to be."""
    with caplog.at_level(logging.WARNING, "iii_sync.worker"):
        trigger = worker.register_trigger("corn", heard.id, {"expression": "* * * * * *"})
    assert not trigger.is_active()
    (told,) = [record.getMessage() for record in caplog.records if record.name == "iii_sync.worker"]
    assert "'corn'" in told and heard.id in told and "Did you mean 'cron'?" in told


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("", "f"), "trigger type"),
        ((" ", "f"), "trigger type"),
        ((None, "f"), "trigger type"),
        (("cron",), "function_id=None"),
        (("cron", ""), "function_id=''"),
        (("cron", 5), "function_id=5"),
        (("cron", "\ud800"), "surrogate"),
        ((cron("0 * * * * *"), "f", {"expression": "1 * * * * *"}), "leave one"),
        (({"type": "cron", "function_id": "f", "conf": {}},), "unknown keys.*conf"),
        (({"function_id": "f"},), "trigger type"),
        (({"type": "cron"},), "function_id=None"),
        (("cron", "f", {"x": float("nan")}), r"config\.x: nan"),
        (("cron", "f", {"x": b""}), r"config\.x: bytes"),
        (("stream", "f", {}), "stream_name=None"),
        (("stream", "f", None), "stream_name=None"),
        (("stream", "f", {"stream_name": 5}), "stream_name=5"),
        (("subscribe", "f", {}), "topic=None"),
        (("subscribe", "f", ["t"]), "topic=None"),
        (("durable:subscriber", "f", {"topic": 5}), "topic=5"),
        (("durable:subscriber", "f", {"topic": "t", "queue_config": 5}), "queue_config=5"),
        (("durable:subscriber", "f", {"topic": "t", "queue_config": {"maxRetires": 3}}), "maxRetires.*no such option"),
        (("subscribe", "f", {"topic": "t", "condition_function_id": "c"}), "condition_function_id='c'.*never asked"),
        (("log", "f", {"level": "warning"}), "level='warning'"),
        (("cron", "f", {"expression": "* * * * * *", "condition_function_id": 5}), "condition_function_id=5"),
        (("http", "f", {}), "api_path=None"),
        (("http", "f", {"api_path": "/a b"}), "a b"),
        (("http", "f", {"api_path": "/a", "http_method": "BREW"}), "BREW"),
    ],
)
def test_what_is_refused_here(worker: Worker, arguments: Any, match: str) -> None:
    """Named, before anything is sent."""
    with pytest.raises((errors.ConfigurationError, errors.InvalidPayloadError), match=match):
        worker.register_trigger(*arguments)
    assert worker._registrations.registrations() == []


@pytest.mark.parametrize("name", ["namespace", "trigger_namespace", "trigger_id"])
def test_blank_names_are_refused(worker: Worker, name: str) -> None:
    """The engine would refuse them later, or take them at their word."""
    with pytest.raises(errors.ConfigurationError, match=f"{name}=' '"):
        worker.register_trigger("cron", "f", {}, **{name: " "})


def test_an_id_or_a_route_twice_is_refused(worker: Worker, heard: Heard, unique: Unique) -> None:
    """The engine would silently replace the first, which stands."""
    path = unique("/path")
    first = worker.register_trigger("http", heard.id, {"api_path": f"{path}/:id"}, trigger_id=unique("id"))
    with pytest.raises(errors.ConfigurationError, match="already"):
        worker.register_trigger("cron", heard.id, {"expression": "0 0 0 1 1 *"}, trigger_id=first.id)
    with pytest.raises(errors.ConfigurationError, match="already"):
        worker.register_trigger("http", heard.id, {"api_path": f"{path[1:]}/:name", "http_method": "get"})
    assert first.is_active()
    worker.register_trigger("http", heard.id, {"api_path": f"{path}/:id", "http_method": "POST"})
    first.unregister()
    assert worker.register_trigger("http", heard.id, {"api_path": f"{path}/:id"}, trigger_id=first.id).is_active()


@pytest.mark.parametrize("kind", ["cron", "http", "queue", "state", "stream", "subscribe"])
def test_triggers_of_a_worker_with_a_namespace(
    engine_url: str, engine_http_url: str, worker: Worker, unique: Unique, kind: str
) -> None:
    """The function and its condition are its own by default; the engine's types are found all the same."""
    name, condition, asked = unique("f"), unique("condition"), []
    options = {} if kind == "subscribe" else {"condition_function_id": condition}
    with register_worker(engine_url, namespace=unique("space")) as spaced:
        heard = [Heard(there, name, {"status_code": 200}) for there in (spaced, worker)]
        spaced.register_function(condition, lambda data: asked.append("own"))
        worker.register_function(condition, lambda data: asked.append("other"))
        for key, one, namespace in (("own", heard[0], None), ("other", heard[1], "default")):
            about = unique(key)
            trigger = spaced.register_trigger(source(kind, about, **options), name, namespace=namespace)
            fire(spaced, kind, about, {"key": key}, engine_http_url)
            one.next()
            trigger.unregister()
    assert kind == "cron" or all(one.calls.empty() for one in heard)
    assert set(asked) == ({"own", "other"} if options else set())


def test_a_log_trigger_of_a_worker_with_a_namespace(engine_url: str, worker: Worker, unique: Unique) -> None:
    """The engine would call the function in ``default``, where it is not."""
    with register_worker(engine_url, namespace=unique("space")) as spaced:
        for trigger in (log("warn"), "log"):
            with pytest.raises(errors.ConfigurationError, match="namespace='space.*in 'default' only"):
                spaced.register_trigger(trigger, "f")
        with pytest.raises(errors.ConfigurationError, match="namespace='space"):
            worker.register_trigger(log(), "f", namespace=unique("space"))
        with pytest.raises(errors.ConfigurationError, match="namespace='space"):
            spaced.register_function("f", print, trigger=log())
        assert spaced._registrations.registrations() == worker._registrations.registrations() == []
        spaced.register_trigger(log(), "f", namespace="default").unregister()
        hooks = Hooks()
        spaced.register_trigger_type("log", "our own", hooks)  # another type of that name
        spaced.register_trigger("log", "f", {"level": "strange"}, trigger_namespace=unique("space"))
        assert hooks.next()[1].config == {"level": "strange"}


def test_after_shutdown(engine_url: str) -> None:
    """Registering is refused, taking back does nothing."""
    with register_worker(engine_url) as worker:
        trigger: Trigger = worker.register_trigger("subscribe", "f", {"topic": "t"})
    trigger.unregister()
    with pytest.raises(errors.WorkerClosedError):
        worker.register_trigger("subscribe", "f", {"topic": "t"})


def test_a_function_with_its_triggers(worker: Worker, peer: Worker, unique: Unique) -> None:
    """They come with it and go with it."""
    topics = [unique("one"), unique("two")]
    calls: queue.Queue[Any] = queue.Queue()
    name = unique("f")
    function = worker.register_function(name, calls.put, trigger=[subscribe(topic) for topic in topics])
    for topic in topics:
        peer.trigger("publish", {"topic": topic, "data": topic})
        assert calls.get(timeout=WAIT) == topic
    function.unregister()
    function.unregister()
    assert of_function(worker, name) == [] and worker._registrations.registrations() == []

    @worker.function(name, trigger=subscribe(topics[0]))
    def again(data: Any) -> None:
        calls.put(data)

    peer.trigger("publish", {"topic": topics[0], "data": 3})
    assert calls.get(timeout=WAIT) == 3


def test_a_function_whose_trigger_is_refused(worker: Worker, unique: Unique) -> None:
    """Is not registered either, nor are its other triggers."""
    name = unique("f")
    with pytest.raises(errors.TriggerRegistrationError):
        worker.register_function(name, print, trigger=[subscribe(unique("t")), cron("99 * * * * *")])
    for wrong in ("cron", {"type": "cron"}, 5, [None]):
        with pytest.raises(errors.ConfigurationError, match=r"give cron\(\.\.\.\)"):
            worker.register_function(name, print, trigger=wrong)  # type: ignore[arg-type]
    assert worker._registrations.registrations() == [] and of_function(worker, name) == []
    with pytest.raises(errors.FunctionNotFoundError):
        worker.trigger(name)
