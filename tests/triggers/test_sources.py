"""The trigger types that come with an engine, as helpers make them, really firing."""

from __future__ import annotations

import json
import queue as queues
import urllib.error
import urllib.request
from typing import Any

import pytest

from iii_sync import Invocation, Worker, current_invocation, errors, register_worker
from iii_sync.triggers import TriggerSource, cron, http, log, queue, state, stream, subscribe

from ..support.waiting import wait_until
from .support import WAIT, Heard, Unique, fire, source, value_of


@pytest.fixture
def heard(worker: Worker, unique: Unique) -> Heard:
    """A function of the worker."""
    return Heard(worker, unique("heard"))


def test_cron(worker: Worker, heard: Heard) -> None:
    """Every second, until it is taken back."""
    trigger = worker.register_trigger(cron("* * * * * *"), heard.id, metadata={"m": 1})
    first, metadata = heard.next()
    second, _ = heard.next()
    trigger.unregister()
    assert (first["trigger"], first["job_id"], metadata) == ("cron", trigger.id, {"m": 1})
    assert first["scheduled_time"] < second["scheduled_time"]


def test_subscribe(worker: Worker, peer: Worker, heard: Heard, unique: Unique) -> None:
    """Every subscriber hears it."""
    topic, other = unique("topic"), Heard(peer, unique("other"))
    worker.register_trigger(subscribe(topic), heard.id)
    peer.register_trigger(subscribe(topic), other.id)
    worker.trigger("publish", {"topic": topic, "data": [1]})
    assert heard.next()[0] == other.next()[0] == [1]


def test_state(worker: Worker, heard: Heard, unique: Unique) -> None:
    """What changes in a scope, of one key or of all."""
    scope, one = unique("scope"), Heard(worker, unique("one"))
    worker.register_trigger(state(scope=scope), heard.id)
    worker.register_trigger(state(scope=scope, key="b"), one.id)
    worker.trigger("state::set", {"scope": scope, "key": "a", "value": 1})
    assert heard.next()[0]["event_type"] == "state:created"
    worker.trigger("state::set", {"scope": scope, "key": "b", "value": 2})
    assert heard.next()[0]["key"] == one.next()[0]["key"] == "b"
    assert one.calls.empty()


def test_stream(worker: Worker, heard: Heard, unique: Unique) -> None:
    """What changes in a stream, of one item or of all."""
    name, one = unique("stream"), Heard(worker, unique("one"))
    worker.register_trigger(stream(name), heard.id)
    worker.register_trigger(stream(name, group_id="g", item_id="b"), one.id)
    for item in "ab":
        worker.trigger("stream::set", {"stream_name": name, "group_id": "g", "item_id": item, "data": {"n": item}})
        event = heard.next()[0]
        assert (event["streamName"], event["id"]) == (name, item)
        assert (event["event"]["type"], event["event"]["data"]) == ("create", {"n": item})
    assert one.next()[0]["id"] == "b" and one.calls.empty()


def test_log(logging_engine_url: str, unique: Unique) -> None:
    """One level alone. The real engine repeats each line as one of its own, with other attributes."""
    body = unique("body")
    with register_worker(logging_engine_url) as worker:
        heard, every = Heard(worker, unique("heard")), Heard(worker, unique("every"))
        worker.register_trigger(log("warn"), heard.id)
        worker.register_trigger(log(), every.id)
        for level in ("info", "warn"):
            worker.trigger(f"engine::log::{level}", {"message": body, "data": {"n": level}})
            while (record := every.next()[0])["attributes"] != {"n": level}:
                pass  # of somebody else
            assert (record["body"], record["severity_text"]) == (body, level.upper())
        while (record := heard.next()[0])["body"] != body:
            pass
        assert record["severity_text"] == "WARN"


def test_queue(worker: Worker, unique: Unique) -> None:
    """A message comes again until it is done."""
    topic, name, tries = unique("topic"), unique("f"), []
    done = Heard(worker, unique("done"))

    def flaky(data: Any) -> None:
        tries.append(data)
        if len(tries) < 2:
            raise ValueError("not yet")
        worker.trigger(done.id, tries)

    worker.register_function(name, flaky)
    worker.register_trigger(queue(topic, queue_config={"maxRetries": 3}), name)
    worker.trigger("iii::durable::publish", {"topic": topic, "data": {"n": 1}})
    assert done.next()[0] == [{"n": 1}, {"n": 1}]


def test_http(worker: Worker, unique: Unique, engine_http_url: str) -> None:
    """A path with a parameter, behind a condition."""
    path, name, condition = unique("/path"), unique("f"), unique("condition")
    worker.register_function(condition, lambda data: data["path_params"]["id"] != "7")
    worker.register_function(name, lambda data: {"status_code": 200, "body": data["path_params"]})
    worker.register_trigger(http(f"{path}/:id", "post", condition_function_id=condition), name)
    request = urllib.request.Request(f"{engine_http_url}{path}/8", data=b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=30) as response:
        assert json.load(response) == {"id": "8"}
    refused = urllib.request.Request(f"{engine_http_url}{path}/7", data=b"{}", method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(refused, timeout=30)
    caught.value.close()
    assert caught.value.code == 422


@pytest.mark.parametrize("kind", ["queue", "state", "stream"])
def test_conditions(worker: Worker, heard: Heard, unique: Unique, kind: str) -> None:
    """Only ``False`` skips the call."""
    name, condition = unique("name"), unique("condition")
    worker.register_function(condition, lambda data: value_of(kind, data)["go"])
    worker.register_trigger(source(kind, name, condition_function_id=condition), heard.id)
    for go in (False, 0, None, True):
        fire(worker, kind, name, {"go": go})
    called = {repr(value_of(kind, heard.next()[0])) for _ in range(3)}
    assert called == {repr({"go": go}) for go in (0, None, True)} and heard.calls.empty()


@pytest.mark.parametrize("kind", ["queue", "state", "stream"])
def test_a_condition_that_fails_skips_the_call(worker: Worker, heard: Heard, unique: Unique, kind: str) -> None:
    """One that raises, and one that is not there; for a message of a queue that is a try that failed."""
    names = [unique("raising"), unique("missing")]
    worker.register_function(names[0], lambda data: data["no such key"])
    for name in names:
        worker.register_trigger(source(kind, name, condition_function_id=name), heard.id)
        fire(worker, kind, name, {"n": 1})
        if kind == "queue":
            wait_until(lambda: worker.queues.stats(name)["dlq_depth"] == 1, "the dead message")  # noqa: B023
        else:
            every = Heard(worker, unique(f"every-{name}"))
            worker.register_trigger(source(kind, name), every.id)
            fire(worker, kind, name, {"n": 2})
            assert value_of(kind, every.next()[0]) == {"n": 2}
    assert heard.calls.empty()


def test_cron_asks_its_condition_every_time(worker: Worker, heard: Heard, unique: Unique) -> None:
    """``False``, an error and a condition that is missing skip the call."""
    times: list[str] = []

    def third(data: Any) -> int:
        times.append(data["scheduled_time"])
        if len(times) == 2:
            raise ValueError("not now")
        return len(times) != 1 and 0

    condition = worker.register_function(unique("condition"), third)
    for asked in (condition.id, unique("missing")):
        worker.register_trigger(cron("* * * * * *", condition_function_id=asked), heard.id, metadata=asked)
    event, metadata = heard.next()
    assert (event["scheduled_time"], metadata) == (times[2], condition.id)


@pytest.mark.parametrize("kind", ["http", "queue", "state", "stream", "subscribe"])
def test_what_is_called_so_is_nobodys_call(
    worker: Worker, peer: Worker, unique: Unique, engine_http_url: str, kind: str
) -> None:
    """Who makes it happen is no caller. Metadata is that of the trigger, and of topics it does not come."""
    name = unique(kind)
    found: queues.Queue[Any] = queues.Queue()

    def tell(data: Any) -> Any:
        found.put((current_invocation(), data))
        return {"status_code": 200}

    peer.register_function(name, tell)
    peer.register_trigger(source(kind, name), name, metadata={"m": 1})
    fire(worker, kind, name, {"n": 1}, engine_http_url)
    invocation, data = found.get(timeout=WAIT)
    assert isinstance(data, dict) and "_caller_worker_id" not in data
    metadata = None if kind in ("queue", "subscribe") else {"m": 1}
    assert invocation == Invocation(name, invocation.invocation_id, None, metadata, None, None)


def test_what_the_helpers_make() -> None:
    """The configs of PROTOCOL 7.2 and 9."""
    assert cron("0 0 3 * * * 2030", condition_function_id="c") == TriggerSource(
        "cron", {"expression": "0 0 3 * * * 2030", "condition_function_id": "c"}
    )
    assert state() == TriggerSource("state")
    assert queue("t", queue_config={"type": "fifo"}, condition_function_id="c") == TriggerSource(
        "durable:subscriber", {"topic": "t", "queue_config": {"type": "fifo"}, "condition_function_id": "c"}
    )
    assert http("a/:b", "patch", middleware_function_ids=["m"]) == TriggerSource(
        "http", {"api_path": "a/:b", "http_method": "PATCH", "middleware_function_ids": ["m"]}
    )
    assert http("/") != http("/", "POST") and repr(log()) == "TriggerSource('log', {'level': 'all'})"


@pytest.mark.parametrize(
    ("make", "arguments", "match"),
    [
        (cron, ("*/5 * * * *",), r"5 fields.*'0 \*/5 \* \* \* \*'"),
        (cron, ("",), "expression=''"),
        (cron, (None,), "expression=None"),
        (cron, ("* * *",), "3 fields"),
        (subscribe, ("",), "topic=''"),
        (subscribe, (5,), "topic=5"),
        (stream, (None,), "stream_name=None"),
        (stream, (" ",), "stream_name=' '"),
        (log, ("warning",), "level='warning' must be one of all, trace"),
        (log, (None,), "level=None"),
        (queue, (None,), "topic=None"),
        (queue, ("t", [1]), r"queue_config=\[1\]"),
        (queue, ("t", {"maxRetires": 3}), r"queue_config\['maxRetires'\]=3.*use type, backoffType, maxRetries"),
        (queue, ("t", {5: 3}), r"queue_config\[5\]=3"),
        (queue, ("t", {"maxRetries": "many"}), r"queue_config\['maxRetries'\]='many' must be an integer, 0 or more"),
        (queue, ("t", {"maxRetries": True}), "=True must be an integer"),
        (queue, ("t", {"visibilityTimeout": -1}), "=-1 must be an integer"),
        (queue, ("t", {"delaySeconds": 1.5}), "=1.5 must be an integer"),
        (queue, ("t", {"concurrency": 0}), "=0 must be an integer, 1 or more"),
        (queue, ("t", {"type": "nonsense"}), r"queue_config\['type'\]='nonsense' must be one of standard, fifo"),
        (queue, ("t", {"type": 5}), r"queue_config\['type'\]=5: give text"),
        (queue, ("t", {"backoffType": ""}), r"queue_config\['backoffType'\]=''"),
        (http, ("",), "api_path=''"),
        (http, (None,), "api_path=None"),
        (http, ("/a/{id}",), "'{id}' cannot be a segment"),
        (http, ("/a/x:id",), "'x:id' cannot be a segment"),
        (http, ("/a/*",), "cannot be a segment"),
        (http, ("/a?b=1",), "a query is no part"),
        (http, ("/a/:",), "':' cannot be a segment"),
        (http, ("/:a/:a",), "two parameters of one name"),
        (http, ("/größe/:a",), r"api_path='/größe/:a' would never match; write '/gr%C3%B6%C3%9Fe/:a'"),
        (http, ("/", "BREW"), "http_method='BREW' must be one of GET"),
        (http, ("/", None), "http_method=None"),
    ],
)
def test_what_the_helpers_refuse(make: Any, arguments: Any, match: str) -> None:
    """Named, with the cure."""
    if make is queue and len(arguments) == 2:
        with pytest.raises(errors.ConfigurationError, match=match):
            queue(arguments[0], queue_config=arguments[1])
        return
    with pytest.raises(errors.ConfigurationError, match=match):
        make(*arguments)


@pytest.mark.parametrize("value", ["", 5, ["f"]])
def test_wrong_names_in_the_helpers(value: Any) -> None:
    """Blank, or not text."""
    with pytest.raises(errors.ConfigurationError, match="condition_function_id="):
        cron("0 * * * * *", condition_function_id=value)
    for name in ("scope", "key"):
        with pytest.raises(errors.ConfigurationError, match=f"{name}="):
            state(**{name: value})
    for name in ("group_id", "item_id"):
        with pytest.raises(errors.ConfigurationError, match=f"{name}="):
            stream("s", **{name: value})
    with pytest.raises(errors.ConfigurationError, match="middleware_function_ids="):
        http("/", middleware_function_ids=[value])
    with pytest.raises(errors.ConfigurationError, match="must be a list"):
        http("/", middleware_function_ids="f")
