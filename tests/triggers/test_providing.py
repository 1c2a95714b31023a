"""Trigger types that a worker provides to others."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from iii_sync import Worker, errors, register_worker
from iii_sync.triggers import TriggerConfig

from ..support.exceptions import Untellable
from ..support.waiting import wait_until
from .support import WAIT, Heard, Hooks, Unique, assert_active


@pytest.fixture
def hooks() -> Hooks:
    """A handler."""
    return Hooks()


def test_a_type_across_two_workers(worker: Worker, peer: Worker, hooks: Hooks, unique: Unique) -> None:
    """The provider hears of a trigger, fires it, and hears that it has gone."""
    hook = unique("hook")
    request, call = {"type": "object", "title": "config"}, {"type": "object", "title": "event"}
    kind = peer.register_trigger_type(hook, "d", hooks, trigger_request_format=request, call_request_format=call)
    assert (kind.id, kind.namespace) == (hook, "default")
    listed = worker.trigger("engine::triggers::info", {"id": hook})
    assert (listed["description"], listed["configuration_schema"], listed["request_schema"]) == ("d", request, call)
    heard = Heard(worker, unique("heard"))
    trigger = worker.register_trigger(hook, heard.id, {"url": "/x"}, metadata={"m": 1})
    assert trigger.is_active() and trigger.error is None
    what, config = hooks.next()
    assert (what, config) == ("come", TriggerConfig(trigger.id, heard.id, {"url": "/x"}, {"m": 1}, "default"))
    peer.trigger(config.function_id, "fired", namespace=config.namespace, metadata=config.metadata)
    assert heard.next() == ("fired", {"m": 1})
    trigger.unregister()
    assert hooks.next() == ("gone", config)
    assert hooks.told.empty()


def test_two_functions_are_a_handler(worker: Worker, unique: Unique) -> None:
    """Instead of an object; both sides may be one worker."""
    hook, heard = unique("hook"), Heard(worker, unique("heard"))
    hooks = Hooks()
    kind = worker.register_trigger_type(hook, "d", (hooks.register_trigger, hooks.unregister_trigger))
    trigger = kind.register_trigger(heard.id, metadata=5)
    what, config = hooks.next()
    assert (what, config.id, config.config, config.metadata) == ("come", trigger.id, {}, 5)
    trigger.unregister()
    assert hooks.next()[0] == "gone"


def test_iiis_dictionary_is_a_type(worker: Worker, hooks: Hooks, unique: Unique) -> None:
    """As the official SDK takes it: the handler comes second."""
    hook, space, schema = unique("hook"), unique("space"), {"type": "object", "title": "config"}
    kind = worker.register_trigger_type({"id": hook, "description": "one line"}, hooks)
    assert (kind.id, kind.namespace) == (hook, "default")
    assert kind.register_trigger("f", {"a": 1}).id == hooks.next()[1].id
    formats = {"trigger_request_format": schema, "call_request_format": list[int]}
    spaced = worker.register_trigger_type({"id": hook, "description": "d", "namespace": space, **formats}, hooks)
    known = worker.engine.trigger_type(hook, namespace=spaced.namespace)
    assert (known["namespace"], known["configuration_schema"]) == (space, schema)
    assert known["request_schema"] == {"type": "array", "items": {"type": "integer"}}
    assert worker.engine.trigger_type(hook, namespace="default")["description"] == "one line"


def test_a_function_of_a_type(worker: Worker, hooks: Hooks, unique: Unique) -> None:
    """It is listed with what the type calls it with."""
    schema = {"type": "object", "title": "event"}
    kind = worker.register_trigger_type(unique("hook"), "d", hooks, call_request_format=schema)
    function = kind.register_function(unique("f"), lambda data: None, description="one line")
    listed = worker.trigger("engine::functions::info", {"function_id": function.id})
    assert (listed["request_schema"], listed["description"]) == (schema, "one line")
    with pytest.raises(errors.ConfigurationError, match=f"{function.id}' is registered by this worker already"):
        kind.register_function(function.id, print)
    with pytest.raises(errors.ConfigurationError, match="function id ''"):
        kind.register_function("", print)


def test_a_refusal_reaches_the_one_who_registered(
    worker: Worker, peer: Worker, hooks: Hooks, unique: Unique, caplog: pytest.LogCaptureFixture
) -> None:
    """Later than the registration returns: on the trigger, and in the log. It is not told that it goes."""
    hook, returned = unique("hook"), threading.Event()

    def refuse(config: TriggerConfig[Any]) -> None:
        assert returned.wait(WAIT)
        hooks.register_trigger(config)

    peer.register_trigger_type(hook, "d", (refuse, hooks.unregister_trigger))
    with caplog.at_level(logging.ERROR, "iii_sync.worker"):
        trigger = worker.register_trigger(hook, "f", {"refuse": "no such url"})
        assert trigger.is_active() and trigger.error is None
        returned.set()
        wait_until(lambda: trigger.error is not None, "the refusal")
    assert trigger.error is not None
    assert trigger.error.code == "trigger_registration_failed" and trigger.error.trigger_id == trigger.id
    assert "ValueError: no such url" in str(trigger.error) and "'f'" in str(trigger.error)
    wait_until(lambda: any("no such url" in record.getMessage() for record in caplog.records), "the log")
    assert not trigger.is_active()
    trigger.unregister()
    accepted = worker.register_trigger(hook, "f", {})
    assert [hooks.next()[1].id for _ in range(2)] == [trigger.id, accepted.id]
    assert hooks.told.empty()


@pytest.mark.parametrize(
    ("refusal", "code", "text"),
    [
        (errors.InvocationError("QUOTA", "too many"), "QUOTA", "too many"),
        (errors.CallTimeout("TIMEOUT", "no answer", "f", "id"), "trigger_registration_failed", "CallTimeout: f: no"),
        (Untellable(), "trigger_registration_failed", "Untellable"),
    ],
)
def test_every_refusal_has_a_code(
    worker: Worker, peer: Worker, hooks: Hooks, unique: Unique, refusal: Exception, code: str, text: str
) -> None:
    """The provider's own by an InvocationError that it raises; and later triggers are heard of."""

    def refuse(config: TriggerConfig[Any]) -> None:
        if config.config != "fine":
            raise refusal
        hooks.register_trigger(config)

    hook = unique("hook")
    peer.register_trigger_type(hook, "d", (refuse, lambda config: None))
    try:
        trigger = worker.register_trigger(hook, "f")
        wait_until(lambda: trigger.error is not None, "the refusal")
        error = trigger.error
    except errors.TriggerRegistrationError as exc:  # it came before the engine's answer
        error = exc
    assert error is not None and error.code == code and text in str(error)
    with pytest.raises(errors.InvocationError, match=f"{code}: {text}"):
        worker.trigger("engine::register_trigger", {"trigger_type": hook, "function_id": "f", "config": {}})
    fine = worker.register_trigger(hook, "f", "fine")
    assert hooks.next()[1].id == fine.id


def test_a_refusal_that_cannot_be_sent_costs_no_other_trigger(
    engine_url: str, worker: Worker, hooks: Hooks, unique: Unique
) -> None:
    """One that is larger than a message may be."""

    def refuse(config: TriggerConfig[Any]) -> None:
        hooks.register_trigger(config)
        raise ValueError("x" * 20_000)

    hook = unique("hook")
    with register_worker(engine_url, max_payload=10_000) as provider:
        provider.register_trigger_type(hook, "d", (refuse, hooks.unregister_trigger))
        ids = [worker.register_trigger(hook, "f").id for _ in range(2)]
        assert [hooks.next()[1].id for _ in range(2)] == ids


def test_a_handler_that_fails_when_a_trigger_goes(
    worker: Worker, peer: Worker, hooks: Hooks, unique: Unique, caplog: pytest.LogCaptureFixture
) -> None:
    """That is logged; the trigger has gone, and the handler hears of all others."""

    def fail(config: TriggerConfig[Any]) -> None:
        hooks.unregister_trigger(config)
        raise ValueError("it stays")

    hook = unique("hook")
    peer.register_trigger_type(hook, "d", (hooks.register_trigger, fail))
    ids = []
    with caplog.at_level(logging.ERROR, "iii_sync.worker"):
        for _ in range(2):
            trigger = worker.register_trigger(hook, "f")
            trigger.unregister()
            ids.append(trigger.id)
        heard = [hooks.next() for _ in range(4)]
        later = worker.register_trigger(hook, "f")
        assert hooks.next()[1].id == later.id  # so the other tasks have ended
    assert [(what, config.id) for what, config in heard] == [(what, one) for one in ids for what in ("come", "gone")]
    logged = [record for record in caplog.records if "unregister_trigger" in record.getMessage()]
    assert [any(one in record.getMessage() for one in ids) for record in logged] == [True, True]
    assert all(record.exc_info is not None and "it stays" in str(record.exc_info[1]) for record in logged)


def test_a_late_provider(engine_kind: str, worker: Worker, peer: Worker, hooks: Hooks, unique: Unique) -> None:
    """A trigger waits for it; one that was taken back meanwhile is not told."""
    hook = unique("hook")
    trigger, gone = worker.register_trigger(hook, "f", {"a": 1}), worker.register_trigger(hook, "f")
    assert not trigger.is_active()
    gone.unregister()
    worker.trigger("engine::baggage::get", {"key": "k"})  # answered when that has been taken
    peer.register_trigger_type(hook, "d", hooks)
    what, config = hooks.next()
    assert (what, config.id, config.config) == ("come", trigger.id, {"a": 1})
    assert_active(trigger, engine_kind)
    assert hooks.told.empty()


def test_a_provider_that_leaves(engine_kind: str, engine_url: str, worker: Worker, unique: Unique) -> None:
    """It is told that its triggers go, before its shutdown returns; the next one gets them."""
    hook = unique("hook")
    first, second = Hooks(), Hooks()

    def slow(config: TriggerConfig[Any]) -> None:
        time.sleep(0.3)
        first.unregister_trigger(config)

    with register_worker(engine_url) as provider:
        provider.register_trigger_type(hook, "d", (first.register_trigger, slow))
        trigger = worker.register_trigger(hook, "f", {"a": 1})
        assert first.next()[0] == "come"
    assert first.told.get_nowait() == ("gone", TriggerConfig(trigger.id, "f", {"a": 1}))
    wait_until(lambda: not trigger.is_active(), "the provider's end")
    with register_worker(engine_url) as provider:
        provider.register_trigger_type(hook, "d", second)
        assert second.next()[1].id == trigger.id
        assert_active(trigger, engine_kind)


def test_a_user_that_leaves(engine_url: str, worker: Worker, hooks: Hooks, unique: Unique) -> None:
    """Its triggers go with it."""
    hook = unique("hook")
    worker.register_trigger_type(hook, "d", hooks)
    with register_worker(engine_url) as user:
        user.register_trigger(hook, "f", {"a": 1})
        assert hooks.next()[0] == "come"
    assert hooks.next()[0] == "gone"


def test_unregister_ends_a_type(worker: Worker, peer: Worker, hooks: Hooks, unique: Unique) -> None:
    """Its triggers go, later ones are refused or wait, and it may be provided again."""
    hook = unique("hook")
    kind = peer.register_trigger_type(hook, "d", hooks)
    worker.register_trigger(hook, "f", {"n": 1})
    assert hooks.next()[0] == "come"
    kind.unregister()
    kind.unregister()
    assert hooks.next()[0] == "gone"
    assert hooks.told.empty()
    peer.register_trigger_type(hook, "d", hooks)
    later = worker.register_trigger(hook, "f", {"n": 2})
    while hooks.next()[1] != TriggerConfig(later.id, "f", {"n": 2}):
        pass  # the first one may be offered again
    assert later.is_active()


def test_a_type_that_is_gone_refuses(worker: Worker, peer: Worker, hooks: Hooks, unique: Unique) -> None:
    """An engine that has not heard of it goes on sending triggers (E-29)."""
    hook = unique("hook")
    kind = peer.register_trigger_type(hook, "d", hooks)
    # As it is for engines before 0.25, which ignore the message.
    providers = peer._registrations._trigger_tables().providers
    assert providers.remove(next(iter(providers._table.values())))
    try:
        trigger = worker.register_trigger(hook, "f")
        wait_until(lambda: trigger.error is not None, "the refusal")
        error = trigger.error
    except errors.TriggerRegistrationError as exc:
        error = exc
    assert error is not None and error.code == "trigger_type_not_found" and hook in str(error)
    kind.unregister()


def test_calls_of_a_handler_come_one_at_a_time_in_order(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Whatever the number of threads; a handler may use its worker meanwhile."""
    inside, most, order = [0], [0], []
    done = threading.Event()

    def note(what: str, config: TriggerConfig[Any]) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        peer.trigger("engine::baggage::get", {"key": "k"})
        order.append((what, config.id))
        inside[0] -= 1
        if len(order) == 40:
            done.set()

    hook = unique("hook")
    peer.register_trigger_type(hook, "d", (lambda one: note("come", one), lambda one: note("gone", one)))
    ids = []
    for _ in range(20):
        trigger = worker.register_trigger(hook, "f")
        ids.append(trigger.id)
        trigger.unregister()
    assert done.wait(WAIT)
    assert most == [1] and order == [(what, one) for one in ids for what in ("come", "gone")]


def test_types_in_namespaces(engine_url: str, worker: Worker, unique: Unique) -> None:
    """Each is provided in its own; a trigger finds its worker's first, or the one it names."""
    hook, space = unique("hook"), unique("space")
    plain, spaced = Hooks(), Hooks()
    worker.register_trigger_type(hook, "d", plain)
    kind = worker.register_trigger_type(hook, "d", spaced, namespace=space)
    with register_worker(engine_url, namespace=space) as user:
        own = user.register_trigger(hook, "f", {"n": 1})
        assert spaced.next()[1] == TriggerConfig(own.id, "f", {"n": 1}, None, space)
        other = user.register_trigger(hook, "f", {"n": 2}, namespace="default", trigger_namespace="default")
        assert plain.next()[1] == TriggerConfig(other.id, "f", {"n": 2}, None, "default")
        through = kind.register_trigger("g")
        assert spaced.next()[1] == TriggerConfig(through.id, "g", {}, None, "default")
        own.unregister()
        assert spaced.next() == ("gone", TriggerConfig(own.id, "f", {"n": 1}, None, space))
    assert plain.next()[0] == "gone"
    through.unregister()
    assert spaced.next()[1].id == through.id


class Half:
    """A handler without a second method."""

    def register_trigger(self, config: Any) -> None: ...


class Asynchronous(Half):
    """A handler that does not run on threads."""

    async def unregister_trigger(self, config: Any) -> None: ...


class Greedy(Half):
    """A handler with a wrong signature."""

    def unregister_trigger(self, config: Any, more: Any) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("", "d", Hooks()), "trigger type=''"),
        ((None, "d", Hooks()), "trigger type=None"),
        (("engine::x", "d", Hooks()), "served by the engine itself"),
        (("x", None, Hooks()), "description=None"),
        (("x", "\ud800", Hooks()), "description: lone surrogate"),
        (("x", "d", None), r"has no register_trigger\(config\)"),
        (("x", "d", Half()), r"has no unregister_trigger\(config\)"),
        (("x", "d", Hooks), r"not <class"),
        (("x", "d", Asynchronous()), "async def"),
        (("x", "d", Greedy()), r"must take one argument.*\(config.*more"),
        (("x", "d", (print,)), "has no register_trigger"),
        (("x", "d", (print, 5)), "has no unregister_trigger"),
        (({"description": "d"}, Hooks()), "trigger type=None"),
        (({"id": "x"}, Hooks()), "description=None"),
        (
            ({"id": "x", "description": "d", "desc": "e", 5: 6}, Hooks()),
            r"unknown keys \['5', 'desc'\]; it takes call_",
        ),
        (({"id": "x", "description": "d", "namespace": " "}, Hooks()), "namespace=' '"),
        (({"id": "x", "description": "d", "call_request_format": "x"}, Hooks()), "call_request_format='x'"),
        (({"id": "x", "description": "d"},), r"has no register_trigger\(config\)"),
        (("x", "d"), r"has no register_trigger\(config\)"),
    ],
)
def test_what_is_refused_here(worker: Worker, arguments: Any, match: str) -> None:
    """Named, before anything is sent."""
    with pytest.raises((errors.ConfigurationError, errors.InvalidPayloadError), match=match):
        worker.register_trigger_type(*arguments)
    assert worker._registrations.registrations() == []


def test_more_that_is_refused_here(worker: Worker, hooks: Hooks, unique: Unique) -> None:
    """A blank namespace, formats that cannot travel, and a type twice."""
    hook = unique("hook")
    with pytest.raises(errors.ConfigurationError, match="namespace=''"):
        worker.register_trigger_type(hook, "d", hooks, namespace="")
    with pytest.raises(errors.InvalidPayloadError, match="call_request_format"):
        worker.register_trigger_type(hook, "d", hooks, call_request_format={1: 2})
    worker.register_trigger_type(hook, "d", hooks)
    with pytest.raises(errors.ConfigurationError, match="already"):
        worker.register_trigger_type(hook, "d", hooks)


@pytest.mark.parametrize("type_id", ["cron", "state", "subscribe", "stream", "durable:subscriber"])
def test_a_type_of_the_engine_is_refused(worker: Worker, hooks: Hooks, unique: Unique, type_id: str) -> None:
    """It would be gone for everybody when the worker leaves (E-16); another namespace is nobody's."""
    with pytest.raises(errors.ConfigurationError, match=f"'{type_id}' is served by the engine itself"):
        worker.register_trigger_type(type_id, "d", hooks)
    assert worker._registrations.registrations() == []
    kind = worker.register_trigger_type(type_id, "d", hooks, namespace=unique("space"))
    trigger = kind.register_trigger("f", {"whatever": "it takes"})
    assert hooks.next()[1].id == trigger.id
