"""Configurations: values with a schema, on both engines."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from iii_sync import Worker, errors, register_worker
from iii_sync.engine.validation import complaints

WAIT = 20.0

Unique = Callable[[str], str]

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1}, "s": {"type": "string"}},
    "required": ["n"],
}


class Changes:
    """What is told about one configuration."""

    def __init__(self, worker: Worker, name: str, **config: Any) -> None:
        self.seen: queue.Queue[Any] = queue.Queue()
        ref = worker.register_function(f"on-{name}-{len(config)}", self.seen.put)
        call = {"function_id": ref.id, "config": {"configuration_id": name, **config}}
        self.id = worker.trigger("engine::register_trigger", {"trigger_type": "configuration", **call})["id"]

    def next(self) -> Any:
        """What was told next, and how it was before and after."""
        event = self.seen.get(timeout=WAIT)
        assert event["type"] == "configuration"
        return event["event_type"], event["old_value"], event["new_value"]


@pytest.fixture
def name(unique: Unique) -> str:
    """An id that no other test uses."""
    return unique("conf")


@pytest.fixture
def changes(worker: Worker, name: str) -> Iterator[Changes]:
    """Somebody who is told about the configuration."""
    changes = Changes(worker, name)
    yield changes
    worker.trigger("engine::unregister_trigger", {"id": changes.id})


def register(worker: Worker, config_id: str, **keys: Any) -> Any:
    """Describe a configuration."""
    call = {"id": config_id, "name": "A name", "description": "d", "schema": SCHEMA, **keys}
    return worker.trigger("configuration::register", call)


def refused(worker: Worker, function_id: str, **data: Any) -> str:
    """The code of the error of a call."""
    with pytest.raises(errors.InvocationError) as caught:
        worker.trigger(f"configuration::{function_id}", data)
    return str(caught.value.code)


def test_life(worker: Worker, name: str, changes: Changes) -> None:
    """Registered, set, read, described, listed, registered again."""
    described = {"id": name, "name": "A name", "description": "d", "schema": SCHEMA}
    assert register(worker, name) == {**described, "value": None}
    assert changes.next() == ("configuration:registered", None, None)
    assert worker.trigger("configuration::set", {"id": name, "value": {"n": 1}}) == {
        "old_value": None,
        "new_value": {"n": 1},
    }
    assert changes.next() == ("configuration:updated", None, {"n": 1})
    assert worker.trigger("configuration::get", {"id": name}) == {"id": name, "value": {"n": 1}}
    assert worker.trigger("configuration::schema", {"id": name}) == described
    assert described in worker.trigger("configuration::list", {})["configurations"]
    again = register(worker, name, name="Other", metadata={"m": 1})
    assert again == {**described, "name": "Other", "metadata": {"m": 1}, "value": {"n": 1}}
    assert changes.next() == ("configuration:updated", {"n": 1}, {"n": 1})
    assert register(worker, name, initial_value={"n": 2})["value"] == {"n": 2}
    assert changes.next() == ("configuration:updated", {"n": 1}, {"n": 2})


def test_variables_of_the_environment(worker: Worker, name: str, changes: Changes) -> None:
    """Are put in when the value is read, from the engine's own environment."""
    value = {"n": 1, "s": "${PATH}", "d": "<${III_NOT_SET:other}>"}
    register(worker, name, initial_value=value)
    kind, _, told = changes.next()
    found = worker.trigger("configuration::get", {"id": name})["value"]
    assert kind == "configuration:registered" and told == found
    assert found["d"] == "<other>" and found["s"] and "$" not in found["s"]
    assert worker.trigger("configuration::get", {"id": name, "raw": True})["value"] == value
    worker.trigger("configuration::set", {"id": name, "value": {"n": 1, "s": "${III_NOT_SET}"}})
    assert changes.next()[2] == {"n": 1, "s": "${III_NOT_SET}"}
    assert refused(worker, "get", id=name) == "EXPAND_FAILED"


def test_refused(worker: Worker, name: str) -> None:
    """What has no name, no schema, no entry, or does not fit."""
    assert refused(worker, "get", id=name) == refused(worker, "schema", id=name) == "NOT_FOUND"
    assert refused(worker, "set", id=name, value={"n": 1}) == "NOT_REGISTERED"
    assert refused(worker, "register", id=name) == "deserialization_error"
    keys = {"name": "n", "description": "d", "schema": SCHEMA}
    for wrong in ("Bad", "with space", "", "x" * 65):
        assert refused(worker, "register", id=wrong, **keys) == "INVALID_ID"
    assert refused(worker, "register", id=name, initial_value={"n": "x"}, **keys) == "SCHEMA_INVALID"
    assert refused(worker, "get", id=name) == "NOT_FOUND"
    register(worker, name)
    assert refused(worker, "get", id=name) == "SCHEMA_INVALID"  # no value, and null does not fit
    assert refused(worker, "set", id=name) == "deserialization_error"
    for value in (None, {}, {"n": "x"}, {"n": 0}, {"n": 1, "s": 2}, [1]):
        assert refused(worker, "set", id=name, value=value) == "SCHEMA_INVALID"


def test_which_changes_are_told(worker: Worker, name: str) -> None:
    """Of one configuration, and of some kinds, if the trigger says so."""
    updates = Changes(worker, name, event_types=["configuration:updated"])
    register(worker, name, initial_value={"n": 1})
    register(worker, name + "-other", initial_value={"n": 1})
    worker.trigger("configuration::set", {"id": name + "-other", "value": {"n": 2}})
    worker.trigger("configuration::set", {"id": name, "value": {"n": 3}})
    assert updates.next() == ("configuration:updated", {"n": 1}, {"n": 3})
    worker.trigger("engine::unregister_trigger", {"id": updates.id})
    for config in ({"configuration_id": 3}, {"event_types": "x"}, {"event_types": [1]}):
        call = {"trigger_type": "configuration", "function_id": "f", "config": config}
        with pytest.raises(errors.InvocationError) as caught:
            worker.trigger("engine::register_trigger", call)
        assert caught.value.code == "trigger_registration_failed"


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": ["string", "null"]}, ["", None], [1, [], {}]),
        ({"type": "integer"}, [1, 1.0], [1.5, True, "1"]),
        ({"type": "number"}, [1, 1.5], [True]),
        ({"enum": [1, "a"]}, [1, "a"], [True, "b"]),
        ({"const": {"a": 1}}, [{"a": 1}], [{}]),
        ({"items": {"type": "boolean"}, "minItems": 1, "maxItems": 2}, [[True], "x"], [[], [1], [True] * 3]),
        ({"properties": {"a": {}}, "additionalProperties": False}, [{}, {"a": 1}], [{"b": 1}]),
        ({"additionalProperties": {"type": "string"}}, [{"a": ""}], [{"a": 1}]),
        ({"minLength": 2, "maxLength": 3}, ["ab", 1], ["a", "abcd"]),
        ({"maximum": 3}, [3, "4"], [4]),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1], [0, 3]),
        ({"anyOf": [{"type": "string"}, {"minimum": 1}]}, ["", 1], [0]),
        ({"$ref": "#/definitions/x~1y", "definitions": {"x/y": {"type": "null"}}}, [None], [1]),
        ({"$ref": "#"}, [1], []),
        (False, [], [1]),
        (True, [1], []),
        ({"type": "nonsense"}, [1], []),
    ],
)
def test_schemas(schema: Any, good: list[Any], bad: list[Any]) -> None:
    """Each keyword that is looked at."""
    assert [list(complaints(value, schema)) for value in good] == [[]] * len(good)
    assert all(list(complaints(value, schema)) for value in bad)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, 1),
        ({"anyOf": [{"allOf": [{"$ref": "#"}, {"$ref": "#"}, False]}, {"$ref": "#"}]}, "x" * 1000),
        ({"items": {"allOf": [{"type": "integer"}] * 1000}}, [1] * 10_000),
    ],
)
def test_checks_end(local_engine_url: str, unique: Unique, schema: Any, value: Any) -> None:
    """A schema that would keep the engine busy for ever is refused, and the others hardly wait."""
    with register_worker(local_engine_url, invocation_timeout=WAIT) as worker:
        with pytest.raises(errors.InvocationError, match="takes more than") as caught:
            register(worker, unique("endless"), schema=schema, initial_value=value)
    assert caught.value.code == "SCHEMA_INVALID"


def test_large_values_are_shown_in_part() -> None:
    """Of what is wrong the beginning is shown, and no more is looked at."""
    value: list[Any] = [*["x"] * 100, object()]  # which could not be shown
    (complaint,) = complaints(value, {"type": "null"})
    assert 200 < len(complaint) < 300
