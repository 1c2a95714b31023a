"""State, pub/sub, streams, cron and logging: what both engines do, then what needs a clock."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from iii_sync.engine.cronexpression import next_times
from iii_sync.engine.records import TriggerError

from .clients import Client, Clock
from .peers import Worker, worker


@pytest.fixture
def caller(engine_url: str) -> Iterator[Worker]:
    """The worker that calls."""
    with worker(engine_url) as caller:
        yield caller


@pytest.fixture
def listener(engine_url: str, name: str) -> Iterator[Worker]:
    """The worker whose function, called like the test, is triggered."""
    with worker(engine_url) as listener:
        listener.register(name)
        yield listener


@pytest.fixture
def name() -> str:
    """A scope, topic, stream or function of this test alone."""
    return f"n{uuid.uuid4().hex[:10]}"


def events(listener: Worker, name: str, count: int) -> list[Any]:
    """Return the data of the next invocations, in any order of arrival."""
    return [listener.invoked(name)["data"] for _ in range(count)]


class TestState:
    """``state::*`` and its trigger."""

    def test_values(self, caller: Worker, name: str) -> None:
        """Set, get, list, delete."""
        ask = caller.ask
        assert ask("state::set", {"scope": name, "key": "k", "value": {"a": 1}}) == {
            "old_value": None,
            "new_value": {"a": 1},
        }
        assert ask("state::set", {"scope": name, "key": "k", "data": 2})["old_value"] == {"a": 1}
        assert ask("state::get", {"scope": name, "key": "k"}) == 2
        assert ask("state::get", {"scope": name, "key": "x"}) is None
        assert ask("state::list", {"scope": name}) == [2]
        assert ask("state::list", {"scope": f"{name}-none"}) == []
        assert name in ask("state::list_groups", {})["groups"]
        assert ask("state::delete", {"scope": name, "key": "k"}) == 2
        assert ask("state::delete", {"scope": name, "key": "k"}) is None
        assert ask("state::list", {"scope": name}) == []
        assert name in ask("state::list_groups", {})["groups"]

    @pytest.mark.parametrize(
        ("function_id", "data", "reason"),
        [
            ("state::set", {"scope": "s", "key": "k"}, "missing field `value`"),
            ("state::set", {"scope": "s", "value": 1}, "missing field `key`"),
            ("state::get", {"key": "k"}, "missing field `scope`"),
            ("state::update", {"scope": "s", "key": "k"}, "missing field `ops`"),
            ("state::update", {"scope": "s", "key": "k", "ops": [{"type": "x"}]}, "unknown variant `x`"),
            ("state::list", {}, "missing field `scope`"),
            ("publish", {"topic": "t"}, "missing field `data`"),
            ("stream::set", {"stream_name": "s", "group_id": "g", "item_id": "i"}, "missing field `data`"),
            ("stream::get", {"stream_name": "s", "group_id": "g"}, "missing field `item_id`"),
            ("stream::send", {"stream_name": "s", "group_id": "g", "data": 1}, "missing field `type`"),
            ("engine::baggage::get_all", None, ""),
            ("engine::baggage::get_all", 1, ""),
        ],
    )
    def test_wrong_input(self, caller: Worker, function_id: str, data: Any, reason: str) -> None:
        """The error names the function and the field."""
        error = caller.ask(function_id, data)
        assert error["code"] == "deserialization_error"
        assert error["message"].startswith(f"Failed to deserialize input for {function_id}: {reason}")

    @pytest.mark.parametrize(
        ("old", "ops", "new", "codes"),
        [
            (None, [], {}, []),
            (None, [("set", "a", 1), ("increment", "a", 2), ("decrement", "b", 2)], {"a": 3, "b": -2}, []),
            ({"f": 1.5}, [("increment", "f", 1)], {"f": 2.5}, []),
            (None, [("append", "l", 1), ("append", "l", [2])], {"l": [1, [2]]}, []),
            (None, [("append", "s", "a"), ("append", "s", "b")], {"s": "ab"}, []),
            (None, [("append", None, "x"), ("append", "", "y")], "xy", []),
            (None, [("append", ["a", "b"], 1)], {"a": {"b": [1]}}, []),
            ({"a": 1}, [("merge", None, {"b": 2})], {"a": 1, "b": 2}, []),
            (None, [("merge", ["c", "d"], {"e": 1})], {"c": {"d": {"e": 1}}}, []),
            ({"x.y": {"a": 1}}, [("merge", "x.y", {"b": {"c": 1}})], {"x.y": {"a": 1, "b": {"c": 1}}}, []),
            ({"a": 1}, [("merge", "a", {"b": 2})], {"a": {"b": 2}}, []),
            ({"a": 1, "b": 2}, [("remove", "a"), ("remove", "none")], {"b": 2}, []),
            ({"a": 1}, [("remove", "")], None, []),
            ({"a": 1}, [("set", "", 5)], 5, []),
            (5, [("merge", None, {"a": 1})], 5, []),
            (
                5,
                [("set", "a", 1), ("increment", "a", 1), ("append", "a", 1), ("remove", "a")],
                5,
                [f"{kind}.target_not_object" for kind in ("set", "increment", "append", "remove")],
            ),
            (
                {"l": [], "n": 1, "s": ""},
                [("increment", "l", 1), ("append", "n", 1), ("append", "s", 1), ("merge", None, 3)],
                {"l": [], "n": 1, "s": ""},
                ["increment.not_number", "append.type_mismatch", "append.type_mismatch", "merge.value.not_an_object"],
            ),
            (
                {},
                [
                    ("set", "__proto__", 1),
                    ("merge", ["", "b"], {}),
                    ("merge", ["x" * 257], {}),
                    ("append", ["x"] * 33, 1),
                    ("merge", None, {"constructor": 1}),
                ],
                {},
                [
                    "set.path.proto_polluted",
                    "merge.path.empty_segment",
                    "merge.path.segment_too_long",
                    "append.path.too_deep",
                    "merge.value.proto_polluted",
                ],
            ),
        ],
    )  # fmt: skip
    def test_update(self, caller: Worker, name: str, old: Any, ops: list[Any], new: Any, codes: list[str]) -> None:
        """Each operation is applied or reported."""
        if old is not None:
            caller.ask("state::set", {"scope": name, "key": "k", "value": old})
        sent = []
        for kind, path, *value in ops:
            op = {"type": kind, **({} if path is None else {"path": path})}
            if value:
                op["by" if kind in ("increment", "decrement") else "value"] = value[0]
            sent.append(op)
        result = caller.ask("state::update", {"scope": name, "key": "k", "ops": sent})
        assert [error["code"] for error in result.pop("errors", [])] == codes
        assert result == {"old_value": old, "new_value": new}
        assert caller.ask("state::get", {"scope": name, "key": "k"}) == new

    def test_trigger(self, caller: Worker, listener: Worker, name: str) -> None:
        """Every write fires, for the scope and key that are asked for."""
        listener.trigger("state", name, {"scope": name, "key": "k"}, metadata={"m": 1})
        key = {"scope": name, "key": "k"}
        caller.ask("state::set", {"scope": name, "key": "other", "value": 1})
        caller.ask("state::set", {**key, "value": None})
        call = listener.invoked(name)
        assert call["metadata"] == {"m": 1}
        base = {"type": "state", **key}
        assert call["data"] == {**base, "event_type": "state:created", "old_value": None, "new_value": None}
        caller.ask("state::update", {**key, "ops": []})
        (updated,) = events(listener, name, 1)
        assert updated["event_type"] == "state:updated"
        caller.ask("state::set", {**key, "value": 2})
        assert events(listener, name, 1) == [{**base, "event_type": "state:updated", "old_value": None, "new_value": 2}]
        caller.ask("state::delete", key)
        assert events(listener, name, 1) == [{**base, "event_type": "state:deleted", "old_value": 2, "new_value": None}]

    def test_condition(self, caller: Worker, listener: Worker, name: str) -> None:
        """It is asked first, with the event."""
        condition = f"{name}-condition"
        listener.register(condition)
        listener.trigger("state", name, {"scope": name, "condition_function_id": condition})
        for outcome in (False, True):
            caller.ask("state::set", {"scope": name, "key": "k", "value": outcome})
            question = listener.invoked(condition)
            assert question["data"]["new_value"] is outcome
            listener.answer(question, result=outcome)
        assert events(listener, name, 1)[0]["new_value"] is True

    def test_builtin_that_triggers_itself(self, client: Client, caplog: pytest.LogCaptureFixture) -> None:
        """A trigger may name a builtin; a circle of them ends."""
        trigger = {"type": "registertrigger", "id": "t", "trigger_type": "state", "function_id": "state::delete"}
        assert client.send(**trigger, config={"scope": "s"}) == []
        assert client.call("state::set", {"scope": "s", "key": "k", "value": 1})["new_value"] == 1
        assert client.call("state::get", {"scope": "s", "key": "k"}) is None
        assert "in a circle" in caplog.text

    @pytest.mark.parametrize("config", [None, [], "x"])
    def test_config(self, listener: Worker, name: str, config: Any) -> None:
        """It must be an object."""
        listener.trigger("state", name, config)
        (refusal,) = listener.take()
        assert refusal["error"]["code"] == "trigger_registration_failed"


class TestPubsub:
    """``publish`` and ``subscribe``."""

    def test_publish(self, engine_url: str, caller: Worker, listener: Worker, name: str) -> None:
        """Every subscriber of the topic gets the data as it is."""
        with worker(engine_url) as second:
            other = f"{name}-2"
            second.register(other)
            listener.trigger("subscribe", name, {"topic": name}, metadata={"m": 1})
            listener.trigger("subscribe", name, {"topic": f"not-{name}"})
            second.trigger("subscribe", other, {"topic": name})
            assert caller.ask("publish", {"topic": name, "data": {"x": 1}}) is None
            call = listener.invoked(name)
            assert (call["data"], call.get("metadata")) == ({"x": 1}, None)
            assert events(second, other, 1) == [{"x": 1}]
            caller.ask("publish", {"topic": name, "data": [1]})
            assert events(listener, name, 1) == [[1]]

    def test_no_topic(self, caller: Worker) -> None:
        """A blank topic is an error."""
        error = {"code": "topic_not_set", "message": "Topic is not set"}
        assert caller.ask("publish", {"topic": "", "data": 1}) == error

    def test_unsubscribe(self, caller: Worker, listener: Worker, name: str) -> None:
        """Nothing comes any more."""
        trigger = listener.trigger("subscribe", name, {"topic": name})
        listener.send(type="unregistertrigger", id=trigger)
        listener.sync()
        caller.ask("publish", {"topic": name, "data": 1})
        assert listener.take() == []


class TestStreams:
    """``stream::*`` and its trigger."""

    def test_items(self, caller: Worker, name: str) -> None:
        """Set, get, list, update, delete."""
        ask, item = caller.ask, {"stream_name": name, "group_id": "g", "item_id": "i"}
        assert ask("stream::set", {**item, "data": {"v": 1}}) == {"old_value": None, "new_value": {"v": 1}}
        assert ask("stream::get", item) == {"v": 1}
        update = ask("stream::update", {**item, "ops": [{"type": "increment", "path": "v", "by": 1}]})
        assert update == {"old_value": {"v": 1}, "new_value": {"v": 2}}
        assert ask("stream::list", {"stream_name": name, "group_id": "g"}) == [{"v": 2}]
        assert ask("stream::list", {"stream_name": f"no-{name}", "group_id": "g"}) == []
        assert ask("stream::list_groups", {"stream_name": name}) == ["g"]
        assert ask("stream::list_groups", {"stream_name": f"no-{name}"}) == []
        listed = ask("stream::list_all", {})
        assert {"id": name, "groups": ["g"]} in listed["stream"]
        assert listed["count"] == len(listed["stream"])
        assert ask("stream::delete", item) == {"old_value": {"v": 2}}
        assert ask("stream::delete", item) == {"old_value": None}
        assert ask("stream::get", item) is None

    def test_trigger(self, caller: Worker, listener: Worker, name: str) -> None:
        """Changes and events, of the stream, group and item that are asked for."""
        listener.trigger("stream", name, {"stream_name": name, "group_id": "g"}, metadata={"m": 1})
        item = {"stream_name": name, "group_id": "g", "item_id": "i"}
        caller.ask("stream::set", {**item, "group_id": "other", "data": 0})
        caller.ask("stream::set", {**item, "data": 1})
        call = listener.invoked(name)
        assert call["metadata"] == {"m": 1}
        assert isinstance(call["data"].pop("timestamp"), int)
        base = {"type": "stream", "streamName": name, "groupId": "g"}
        assert call["data"] == {**base, "id": "i", "event": {"type": "create", "data": 1}}
        seen = []
        for function_id, data in [
            ("stream::set", {**item, "data": 2}),
            ("stream::delete", item),
            ("stream::send", {"stream_name": name, "group_id": "g", "type": "t", "data": 3}),
        ]:
            caller.ask(function_id, data)
            (event,) = events(listener, name, 1)
            seen.append((event["id"], event["event"]))
        assert seen == [
            ("i", {"type": "update", "data": 2}),
            ("i", {"type": "delete", "data": 2}),
            (None, {"type": "event", "event": {"type": "t", "data": 3}}),
        ]

    def test_override(self, caller: Worker, listener: Worker, name: str) -> None:
        """A worker may keep a stream itself."""
        function_id = f"stream::get({name})"
        listener.register(function_id)
        pending = caller.invoke("stream::get", {"stream_name": name, "group_id": "g", "item_id": "i"})
        call = listener.invoked(function_id)
        assert (call["data"]["group_id"], call["data"]["item_id"]) == ("g", "i")
        listener.answer(call, result={"mine": 1})
        answer = caller.receive()
        assert (answer["invocation_id"], answer["result"]) == (pending, {"mine": 1})


class TestCron:
    """The trigger ``cron``."""

    def test_fires(self, listener: Worker, name: str) -> None:
        """At a full second, with two times and the metadata."""
        trigger = listener.trigger("cron", name, {"expression": "* * * * * *"}, metadata={"m": 1})
        call = listener.invoked(name)
        assert call["metadata"] == {"m": 1}
        data = call["data"]
        assert (data["trigger"], data["job_id"]) == ("cron", trigger)
        assert data["scheduled_time"].endswith("+00:00")
        assert data["scheduled_time"][:19] <= data["actual_time"][:19]
        listener.send(type="unregistertrigger", id=trigger)

    @pytest.mark.parametrize(
        "expression",
        [
            *(None, "", "nonsense", "* * * * *", "* * * * * * * *", "61 * * * * *", "0 0 0 * * 8", "0 0 0 * * 0"),
            *("*/0 * * * * *", "*/60 * * * * *", "5/90 * * * * *", "0 0 */24 * * *", "0 0 0 1 */13 *", "0 0 0 * * */8"),
            *("5-1 * * * * *", "0 0 0 * * 6-2", "0 0 0 1 nov-feb *", "0 0 0 * * sat-mon", "0 0 0 1 1 * 2030-2020"),
            *("0 0 0 L * *", "0 0 0 15W * *", "0 0 0 * * L5", "0 0 0 * * mon#2", "R * * * * *", "H * * * * *"),
            *("0 0 0 1 jan-3 *", "0 0 0 1 1-mar *", "0 0 0 1 jan/2 *", "0 0 0 1 sept *", "0 0 0 * * thur"),
            *("0 0 0 * * jan", "? * * * * *", "0 0 0 1 1 * ?", "0 0 0 1 1 * 2101", "0 0 0 1 1 * 1969", "+5 * * * * *"),
            *("1,,2 * * * * *", "1-5-7 * * * * *", "\u0665 * * * * *", "@reboot", "@Daily"),
        ],
    )
    def test_refused(self, listener: Worker, name: str, expression: Any) -> None:
        """What is not an expression of six or seven fields, and what other crons know."""
        listener.trigger("cron", name, {} if expression is None else {"expression": expression})
        (refusal,) = listener.take()
        assert refusal["error"]["code"] == "trigger_registration_failed"
        if expression is None:
            assert refusal["error"]["message"] == "Cron expression is required"
        elif expression:
            assert refusal["error"]["message"].startswith(f"Invalid cron expression '{expression}': ")

    @pytest.mark.parametrize(
        "expression",
        [
            *("0 */5 9-17 * * MON-FRI", "0 0 0 1 1 * 2099", "0 0 0 * * 1,7", "0 0 0 ? * 2-6", "*/10 0 0 1-15/2 JAN *"),
            *("0 0 0 1 January *", "0 0 0 1 june-july *", "0 0 0 * * monday", "0 0 0 * * tues,thurs", "0 0 0 * * 1,*"),
            *("0 0 0 ?/2 * *", "0 0 0 1 jan-mar/2 *", "0 0 0 1 1 * */200", "0 0 0 1 1 * 2100", "0 0 0 1, 2 * *"),
            *("@hourly", "@daily", "@weekly", "@monthly", "@yearly"),
        ],
    )
    def test_accepted(self, listener: Worker, name: str, expression: str) -> None:
        """Ranges, steps, names, a year, shorthands."""
        listener.trigger("cron", name, {"expression": expression})
        # Of some of them the time may just have come.
        assert [frame for frame in listener.take() if frame["type"] != "invokefunction"] == []

    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ("* * * * * *", "2023-11-14 22:13:21"),
            ("0 30 9 * * *", "2023-11-15 09:30:00"),
            ("0 0 0 * * 1", "2023-11-19 00:00:00"),
            ("0 0 0 * * 7", "2023-11-18 00:00:00"),
            ("0 0 0 * * SUN-MON", "2023-11-19 00:00:00"),
            ("0 0 0 13 * 6", "2024-09-13 00:00:00"),
            ("0 0 0 1 1 * 2099", "2099-01-01 00:00:00"),
            ("0 0 0 1 1 * 2020", None),
            ("0 0 0 1 1 * 2100", None),
            ("1-1 * * * * *", "2023-11-14 22:14:01"),
            ("0 0 0 1,15 december-december *", "2023-12-01 00:00:00"),
            ("@weekly", "2023-11-19 00:00:00"),
        ],
    )
    def test_next_time(self, expression: str, expected: Any) -> None:
        """Days count from Sunday, 1; a day of the month and one of the week must both fit."""
        start = datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc).timestamp()
        due = next_times(expression)(start)
        if expected is None:
            assert due == float("inf")
        else:
            assert datetime.fromtimestamp(due, timezone.utc).strftime("%Y-%m-%d %H:%M:%S") == expected

    def test_waits_for_its_function(self, client: Client, clock: Clock) -> None:
        """Ticks during a run are skipped; one that was unregistered fires no more."""
        client.register("f")
        trigger = {"type": "registertrigger", "id": "t", "trigger_type": "cron", "function_id": "f"}
        client.send(**trigger, config={"expression": "*/10 * * * * *"})
        clock.advance(15)
        (call,) = client.peer.take()
        clock.advance(60)
        assert client.peer.take() == []
        client.answer(call, result=None)
        clock.advance(10)
        (call,) = client.peer.take()
        client.send(type="unregistertrigger", id="t")
        client.answer(call, result=None)
        assert len(clock) == 0

    def test_distant_times_are_waited_for_in_steps(self, client: Client, clock: Clock) -> None:
        """An hour later it fires once."""
        client.register("f")
        trigger = {"type": "registertrigger", "id": "t", "trigger_type": "cron", "function_id": "f"}
        client.send(**trigger, config={"expression": "0 0 * * * *"})
        clock.advance(3600)
        assert len(client.peer.take()) == 1

    def test_without_a_parser(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says what to install."""
        monkeypatch.setitem(__import__("sys").modules, "croniter", None)
        with pytest.raises(TriggerError, match="pip install"):
            next_times("* * * * * *")


@pytest.mark.parametrize("data", [{}, []])
def test_baggage(caller: Worker, data: Any) -> None:
    """There is none; an empty list passes for an object."""
    assert caller.ask("engine::baggage::get_all", data) == {"baggage": {}}


def test_log_trigger(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A level means that level alone, no level means all."""
    caplog.set_level(logging.CRITICAL, "iii_sync.engine")
    for number, config in enumerate(({}, {"level": "all"}, {"level": "error"})):
        client.register(f"f{number}")
        trigger = {"type": "registertrigger", "id": f"t{number}", "trigger_type": "log", "function_id": f"f{number}"}
        client.send(**trigger, config=config)
    assert len(client.invoke("engine::log::info", {"message": "m", "data": {"a": 1}}, invocation_id=None)) == 2
    calls = client.invoke("engine::log::error", {"message": "m", "data": 1, "trace_id": "x"}, invocation_id=None)
    assert [call["function_id"] for call in calls] == ["f0", "f1", "f2"]
    data = calls[0]["data"]
    assert (data["severity_text"], data["severity_number"], data["body"]) == ("ERROR", 17, "m")
    assert (data["attributes"], data["trace_id"]) == ({"data": 1}, "x")


class TestQueues:
    """Delivery until it succeeds."""

    def failing(self, listener: Worker, name: str, deliveries: int) -> list[Any]:
        """Fail the next deliveries and return their data."""
        seen = []
        for _ in range(deliveries):
            call = listener.invoked(name)
            listener.answer(call, error={"code": "bad", "message": "no"})
            seen.append(call["data"])
        return seen

    def dead(self, caller: Worker, name: str) -> list[Any]:
        """Wait for a dead message and return all there are."""
        while True:
            messages: list[Any] = caller.ask("engine::queue::dlq_messages", {"topic": name})
            if messages:
                return messages

    def test_topic(self, caller: Worker, listener: Worker, name: str) -> None:
        """Retries, then the dead letters, then once more; the trigger's metadata is not delivered."""
        config = {"topic": name, "queue_config": {"maxRetries": 2}}
        listener.trigger("durable:subscriber", name, config, metadata={"m": 1})
        assert caller.ask("iii::durable::publish", {"topic": name, "data": {"x": 1}}) is None
        assert self.failing(listener, name, 3) == [{"x": 1}] * 3
        (message,) = self.dead(caller, name)
        assert (message["payload"], message["retries"]) == ({"x": 1}, 3)
        assert caller.ask("engine::queue::topic_stats", {"topic": name})["dlq_depth"] == 1
        assert caller.ask("iii::queue::redrive", {"queue": name}) == {"queue": name, "redriven": 1}
        call = listener.invoked(name)
        assert call.get("metadata") is None
        listener.answer(call, result=None)
        while caller.ask("engine::queue::topic_stats", {"topic": name})["dlq_depth"]:
            pass

    def test_pauses(self, caller: Worker, listener: Worker, name: str) -> None:
        """They double from what the subscriber has said; from a second on, the last try would take half a minute."""
        config = {"topic": name, "queue_config": {"maxRetries": 5, "backoffDelayMs": 10, "backoffType": "fixed"}}
        listener.trigger("durable:subscriber", name, config)
        caller.ask("iii::durable::publish", {"topic": name, "data": 1})
        begun = time.monotonic()
        assert self.failing(listener, name, 6) == [1] * 6
        assert time.monotonic() - begun >= 0.31

    def test_discard(self, caller: Worker, listener: Worker, name: str) -> None:
        """A dead message may be forgotten."""
        listener.trigger("durable:subscriber", name, {"topic": name, "queue_config": {"maxRetries": 1}})
        caller.ask("iii::durable::publish", {"topic": name, "data": 1})
        self.failing(listener, name, 2)
        (message,) = self.dead(caller, name)
        key = {"queue": name, "message_id": message["id"]}
        assert caller.ask("iii::queue::discard_message", key) == {**key, "redriven": 1}
        assert caller.ask("engine::queue::dlq_messages", {"topic": name}) == []
        assert caller.ask("iii::queue::discard_message", key) == {**key, "redriven": 0}

    def test_blank_names(self, caller: Worker) -> None:
        """They are errors."""
        assert caller.ask("iii::durable::publish", {"topic": "", "data": 1})["code"] == "topic_not_set"
        assert caller.ask("iii::queue::redrive", {"queue": ""})["code"] == "queue_not_set"
        assert caller.ask("engine::queue::topic_stats", {"topic": ""})["code"] == "topic_required"

    def test_enqueue(self, client: Client, other: Client, clock: Clock) -> None:
        """The caller gets a receipt; the function is called until it succeeds."""
        other.register("f")
        receipt = client.call("f", {"a": 1}, action={"type": "enqueue", "queue": "q"})["messageReceiptId"]
        assert uuid.UUID(receipt)
        for pause in (1, 2):
            (call,) = other.peer.take()
            assert call["data"] == {"a": 1}
            other.answer(call, error={"code": "bad", "message": "no"})
            clock.advance(pause)
        (call,) = other.peer.take()
        other.answer(call, error={"code": "bad", "message": "no"})
        clock.advance(60)
        assert other.peer.take() == []
        (dead,) = client.call("engine::queue::dlq_messages", {"topic": "q"})
        assert (dead["id"], dead["error"]) == (receipt, "bad: no")
        assert client.call("iii::queue::redrive", {"queue": "q"})["redriven"] == 1
        other.answer(other.peer.take()[0], result=None)
        assert client.call("engine::queue::dlq_messages", {"topic": "q"}) == []

    def test_fifo(self, client: Client, other: Client) -> None:
        """One at a time, in order."""
        other.register("f")
        config = {"topic": "q", "queue_config": {"type": "fifo"}}
        other.send(type="registertrigger", id="t", trigger_type="durable:subscriber", function_id="f", config=config)
        for number in range(3):
            client.call("iii::durable::publish", {"topic": "q", "data": number})
        frames = other.peer.take()
        for number in range(3):
            (call,) = frames
            assert call["data"] == number
            frames = other.send(type="invocationresult", function_id="f", invocation_id=call["invocation_id"])
        assert frames == []

    def test_listings(self, client: Client, other: Client) -> None:
        """Queues that calls go through are listed like on the real engine: the engine itself empties them."""
        other.register("f")
        client.call("f", 1, action={"type": "enqueue", "queue": "calls"})
        (topic,) = client.call("engine::queue::list_topics", {})
        assert (topic["name"], topic["subscriber_count"]) == ("calls", 10)
        (dead,) = client.call("engine::queue::dlq_topics", {})
        assert (dead["topic"], dead["message_count"]) == ("calls", 0)
        config = {"topic": "t", "queue_config": {"maxRetries": 0}}
        other.send(type="registertrigger", id="t", trigger_type="durable:subscriber", function_id="x", config=config)
        client.call("iii::durable::publish", {"topic": "t", "data": 1})
        other.send(type="unregistertrigger", id="t")
        assert [topic["name"] for topic in client.call("engine::queue::list_topics", {})] == ["calls"]
        dead = {topic["topic"]: topic["message_count"] for topic in client.call("engine::queue::dlq_topics", {})}
        assert dead == {"calls": 0, "t": 1}

    def test_a_queue_that_nobody_empties(self, client: Client, other: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """It refuses what it cannot keep, whatever its messages wait for, and takes more when one has left."""
        monkeypatch.setattr("iii_sync.engine.queues.MAX_MESSAGES", 3)
        other.register("f")
        for number in range(2):
            config = {"topic": "q", "queue_config": {"concurrency": 1}}
            trigger = {"trigger_type": "durable:subscriber", "function_id": "f", "config": config}
            other.send(type="registertrigger", id=f"t{number}", **trigger)
        assert client.call("iii::durable::publish", {"topic": "q", "data": 1}) is None
        code, message = client.call("iii::durable::publish", {"topic": "q", "data": 2})
        assert code == "queue_full"
        assert "'q' holds 2 messages of at most 3" in message
        enqueue = {"action": {"type": "enqueue", "queue": "q"}}
        assert "messageReceiptId" in client.call("f", 3, **enqueue)
        code, message = client.call("f", 4, **enqueue)
        assert (code, message[:12]) == ("enqueue_error", "queue_full: ")
        (call,) = other.peer.take()
        answer = {"type": "invocationresult", "function_id": "f", "error": {"code": "bad", "message": "no"}}
        (call,) = other.send(invocation_id=call["invocation_id"], **answer)  # the first one has a pause before the next
        assert client.call("f", 5, **enqueue)[0] == "enqueue_error"
        other.answer(call, result=None)
        assert "messageReceiptId" in client.call("f", 6, **enqueue)

    def test_the_oldest_dead_go(
        self, client: Client, other: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """There is a word about it, one."""
        monkeypatch.setattr("iii_sync.engine.queues.MAX_DEAD", 2)
        config = {"topic": "q", "queue_config": {"maxRetries": 0}}
        other.send(type="registertrigger", id="t", trigger_type="durable:subscriber", function_id="f", config=config)
        for number in range(4):
            client.call("iii::durable::publish", {"topic": "q", "data": number})
        dead = client.call("engine::queue::dlq_messages", {"topic": "q"})
        assert [message["payload"] for message in dead] == [2, 3]
        assert caplog.text.count("queue q has more than 2 dead messages") == 1
