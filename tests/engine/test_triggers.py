"""Triggers and trigger types: first on both engines, then what only the pure router shows."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from iii_sync.engine.builtins import PROVIDER_PATIENCE
from iii_sync.engine.events import POLL
from iii_sync.engine.records import Trigger, TriggerError
from iii_sync.engine.router import Router

from .clients import Client, Clock
from .peers import Worker, worker


def forwarded(trigger_id: str, hook: str, **keys: Any) -> dict[str, Any]:
    """What a provider gets of a trigger."""
    return {"type": "registertrigger", "id": trigger_id, "trigger_type": hook, "function_id": "f", **keys}


class TestOnBothEngines:
    """A worker that provides a type, and one that uses it."""

    @pytest.fixture
    def hook(self) -> str:
        """A trigger type of this test alone."""
        return f"hook-{uuid.uuid4().hex[:10]}"

    @pytest.fixture
    def user(self, engine_url: str) -> Iterator[Worker]:
        """The worker that registers triggers."""
        with worker(engine_url) as user:
            yield user

    @pytest.fixture
    def provider(self, engine_url: str, hook: str) -> Iterator[Worker]:
        """The worker that provides the type."""
        with worker(engine_url, name=f"provider-of-{hook}") as provider:
            yield provider

    def provide(self, provider: Worker, hook: str, **keys: Any) -> None:
        """Register the type."""
        provider.send(type="registertriggertype", id=hook, description="d", **keys)
        provider.ask("engine::baggage::get", {"key": "k"})

    def test_forwarded_verbatim(self, user: Worker, provider: Worker, hook: str) -> None:
        """Config and metadata reach the provider; the user hears nothing."""
        self.provide(provider, hook)
        name = user.trigger(hook, "f", {"a": [1]}, metadata={"m": 1}, namespace="default")
        assert provider.receive() == forwarded(name, hook, config={"a": [1]}, metadata={"m": 1})
        provider.send(type="triggerregistrationresult", id=name, trigger_type=hook, function_id="f")
        provider.sync()
        assert user.take() == []
        user.send(type="unregistertrigger", id=name)
        assert provider.receive() == {"type": "unregistertrigger", "id": name, "trigger_type": hook}

    def test_parked_until_the_type_is_there(self, user: Worker, provider: Worker, hook: str) -> None:
        """A trigger of an unknown type waits unseen; one that was unregistered meanwhile is gone."""
        name, gone = user.trigger(hook, "f", None), user.trigger(hook, "f", None)
        durable = user.ask("engine::register_trigger", {"trigger_type": hook, "function_id": "f"})["id"]
        user.send(type="unregistertrigger", id=gone)
        assert user.ask("engine::registered-triggers::list", {"trigger_type": hook}) == {"registered_triggers": []}
        assert user.ask("engine::triggers::info", {"id": hook}) == {
            "code": "NOT_FOUND",
            "message": f"Trigger type '{hook}' is not registered in namespace 'default'.",
        }
        self.provide(provider, hook)
        assert {frame["id"] for frame in provider.take()} == {name, durable}

    def test_late_refusal(self, user: Worker, provider: Worker, hook: str) -> None:
        """The error of the provider is forwarded; the trigger is parked and offered again."""
        self.provide(provider, hook)
        name = user.trigger(hook, "f", {})
        assert provider.receive()["id"] == name
        error = {"code": "bad", "message": "no", "stacktrace": "s"}
        told = {"type": "triggerregistrationresult", "id": name, "trigger_type": hook, "function_id": "f"}
        user.send(**told, error=error)  # not the provider's to say
        assert user.take() == []
        provider.send(**told, error=error)
        assert user.receive() == {**told, "error": error}
        assert user.ask("engine::registered-triggers::info", {"id": name})["code"] == "NOT_FOUND"
        self.provide(provider, hook)
        assert [frame["id"] for frame in provider.take()] == [name]

    def test_provider_leaves_and_returns(self, engine_url: str, user: Worker, hook: str) -> None:
        """Its triggers are parked, and sent to the next one."""
        with worker(engine_url) as first:
            self.provide(first, hook)
            name = user.trigger(hook, "f", {"a": 1})
            assert first.receive()["id"] == name
        with worker(engine_url) as second:
            for kind, gone in (("triggers", hook), ("registered-triggers", name)):
                while "code" not in user.ask(f"engine::{kind}::info", {"id": gone}):
                    pass  # until the engine has noticed
            self.provide(second, hook)
            assert second.receive() == forwarded(name, hook, config={"a": 1})

    def test_user_leaves(self, engine_url: str, provider: Worker, hook: str) -> None:
        """Its triggers go with it, the durable ones stay."""
        self.provide(provider, hook)
        with worker(engine_url) as leaver:
            name = leaver.trigger(hook, "f", {})
            assert provider.receive()["id"] == name
            pending = leaver.invoke("engine::register_trigger", {"trigger_type": hook, "function_id": "f"})
            durable = provider.receive()
            provider.send(**{**durable, "type": "triggerregistrationresult"})
            assert leaver.receive()["invocation_id"] == pending
        assert provider.receive() == {"type": "unregistertrigger", "id": name, "trigger_type": hook}
        assert provider.ask("engine::unregister_trigger", {"id": durable["id"]}) == {"removed": True}
        assert provider.receive()["type"] == "unregistertrigger"
        assert provider.ask("engine::unregister_trigger", {"id": durable["id"]}) == {"removed": False}

    def test_function_waits_for_the_provider(self, user: Worker, provider: Worker, hook: str) -> None:
        """``engine::register_trigger`` fails with what the provider says."""
        self.provide(provider, hook)
        pending = user.invoke(
            "engine::register_trigger", {"trigger_type": hook, "function_id": "f", "config": {"z": 1}}
        )
        frame = provider.receive()
        assert (frame["config"], frame["function_id"]) == ({"z": 1}, "f")
        error = {"code": "bad", "message": "no"}
        provider.send(**{**frame, "type": "triggerregistrationresult"}, error=error)
        answer = user.receive()
        assert answer["invocation_id"] == pending
        assert answer["error"] == {"code": "trigger_registration_failed", "message": "bad: no"}

    def test_namespaces(self, engine_url: str, provider: Worker, hook: str) -> None:
        """The worker's own namespace first, then ``default``; a trigger moves to the better one."""
        shop = f"shop-{hook}"
        self.provide(provider, hook)
        with worker(engine_url, namespace=shop) as user, worker(engine_url, namespace=shop) as near:
            moving = user.trigger(hook, "f", {}, namespace=shop)
            fixed = user.trigger(hook, "f", {}, trigger_namespace="default")
            assert provider.receive() == forwarded(moving, hook, config={}, namespace=shop)
            assert provider.receive() == forwarded(fixed, hook, config={})
            self.provide(near, hook)
            assert near.receive() == forwarded(moving, hook, config={}, namespace=shop, trigger_namespace=shop)
            assert provider.receive() == {"type": "unregistertrigger", "id": moving, "trigger_type": hook}
            elsewhere = user.trigger(hook, "f", {}, trigger_namespace=f"no-{shop}")
            assert elsewhere not in str(near.take() + provider.take())

    def test_same_id_replaces(self, user: Worker, provider: Worker, hook: str) -> None:
        """The provider gets the new one under the old id."""
        self.provide(provider, hook)
        name = user.trigger(hook, "f", 1)
        user.trigger(hook, "f", 2, id=name)
        assert [frame["config"] for frame in provider.take()] == [1, 2]
        listed = user.ask("engine::registered-triggers::list", {"trigger_type": hook})["registered_triggers"]
        assert [trigger["config"] for trigger in listed] == [2]

    def test_listings(self, user: Worker, provider: Worker, hook: str) -> None:
        """Types, triggers and functions tell of each other."""
        self.provide(provider, hook, trigger_request_format={"t": 1}, call_request_format={"c": 1})
        function_id = f"{hook}::f"
        user.register(function_id)
        config = {"text": "x" * 100}
        name = user.trigger(hook, function_id, config, metadata={"m": 1})
        kind = {
            "id": hook,
            "namespace": "default",
            "worker_name": f"provider-of-{hook}",
            "description": "d",
        }
        assert user.ask("engine::triggers::list", {"search": hook}) == {"triggers": [kind]}
        assert user.ask("engine::triggers::list", {"worker": kind["worker_name"]}) == {"triggers": [kind]}
        detail = {**kind, "configuration_schema": {"t": 1}, "request_schema": {"c": 1}, "instance_count": 1}
        assert user.ask("engine::triggers::info", {"id": hook}) == detail
        summary = {
            "id": name,
            "trigger_type": hook,
            "function_id": function_id,
            "worker_name": hook,
            "config": config,
            "config_summary": ('{"text":"' + "x" * 100)[:80] + "\u2026",
        }
        for query in ({"trigger_type": hook}, {"function_id": function_id}, {"worker": hook}, {"search": function_id}):
            listed = user.ask("engine::registered-triggers::list", query)
            assert listed == {"registered_triggers": [summary]}, query
        info = user.ask("engine::registered-triggers::info", {"id": name})
        assert (info["trigger"], info["metadata"]) == (detail, {"m": 1})
        bound = [{"id": name, "trigger_type": hook, "config": config}]
        assert info["function"]["registered_triggers"] == bound
        function = user.ask("engine::functions::info", {"function_id": function_id})
        assert function["registered_triggers"] == bound

    def test_page_of_a_worker(self, engine_url: str, user: Worker, provider: Worker, hook: str) -> None:
        """It shows the types that it provides and the triggers of its functions, whoever registered them."""
        self.provide(provider, hook)
        shop, page = f"shop-{hook}", {"name": f"provider-of-{hook}"}
        with worker(engine_url, **page, namespace=shop) as twin:
            for owner in (provider, twin):
                owner.register("f-of-the-page")
            foreign = user.trigger(hook, "f-of-the-page", {})
            provider.trigger(hook, f"{hook}::nobody's", {})
            elsewhere = provider.trigger(hook, "f-of-the-page", {}, namespace=shop)
            for namespace, kinds, triggers in (("default", [hook], [foreign]), (shop, [], [elsewhere])):
                about = user.ask("engine::workers::info", {**page, "namespace": namespace})
                assert [kind["id"] for kind in about["trigger_types"]] == kinds
                assert [trigger["id"] for trigger in about["registered_triggers"]] == triggers

    def test_workers_come_and_go(self, engine_url: str, user: Worker, hook: str) -> None:
        """``engine::workers-available`` fires for each step in the life of another worker, in whatever order."""
        user.register(hook)
        user.trigger("engine::workers-available", hook, {})
        user.take()
        steps = ["worker_connected", "worker_disconnected", "worker_metadata_updated"]
        seen: list[str] = []

        def await_steps(count: int) -> None:
            # The real engine tells each step by a task of its own, so that one can overtake another; and other
            # workers come and go.
            while len(seen) < count:
                event = user.invoked(hook)["data"]
                if event["worker_id"] == visitor.id:
                    seen.append(event["event"])

        with worker(engine_url) as visitor:
            await_steps(2)
        await_steps(3)
        assert sorted(seen[:2]) == ["worker_connected", "worker_metadata_updated"]
        assert sorted(seen) == steps


class Shelf:
    """A provider inside the engine."""

    def __init__(self) -> None:
        self.bound: list[str] = []

    def bind(self, trigger: Trigger) -> None:
        if trigger.config == "bad":
            raise TriggerError("no good")
        self.bound.append(trigger.id)

    def release(self, trigger: Trigger) -> None:
        self.bound.remove(trigger.id)


@pytest.fixture
def shelf(router: Router) -> Shelf:
    """The provider of the type ``shelf``."""
    shelf = Shelf()
    router.triggers.provide("iii-shelf", "shelf", "d", shelf)
    return shelf


def register(client: Client, name: str, kind: str = "shelf", **keys: Any) -> list[dict[str, Any]]:
    """Register a trigger of a pure client."""
    frame = {"trigger_type": kind, "function_id": "f", "config": {}, **keys}
    return client.send(type="registertrigger", id=name, **frame)


class TestOwnTypes:
    """Types the engine provides itself."""

    def test_refused(self, client: Client, shelf: Shelf) -> None:
        """The owner is told at once; a durable trigger fails."""
        (frame,) = register(client, "t", config="bad")
        assert frame["error"] == {"code": "trigger_registration_failed", "message": "no good"}
        data = {"trigger_type": "shelf", "function_id": "f", "config": "bad"}
        assert client.call("engine::register_trigger", data) == ("trigger_registration_failed", "no good")
        assert client.call("engine::registered-triggers::list", {}) == {"registered_triggers": []}

    def test_registered_and_unregistered(self, router: Router, client: Client, shelf: Shelf) -> None:
        """By message, by function, by the end of the worker."""
        assert register(client, "a") == register(client, "b") == register(client, "a") == []
        assert shelf.bound == ["b", "a"]
        assert client.call("engine::unregister_trigger", {"id": "a"}) == {"removed": True}
        router.disconnect(client.worker)
        assert shelf.bound == []

    def test_taken_over_by_a_worker(self, router: Router, client: Client, other: Client, shelf: Shelf) -> None:
        """It moves to the worker, and back to the engine when the worker leaves."""
        register(client, "a")
        (frame,) = other.send(type="registertriggertype", id="shelf", description="mine")
        assert (frame["id"], shelf.bound) == ("a", [])
        register(client, "b")
        router.disconnect(other.worker)
        assert shelf.bound == ["a", "b"]

    def test_type_unregistered_by_its_worker(self, client: Client, other: Client, shelf: Shelf) -> None:
        """Only the provider may; its triggers are parked, or fall back to the engine."""
        for kind in ("shelf", "mine"):
            other.send(type="registertriggertype", id=kind, description="d")
            register(client, kind, kind)
        other.peer.take()
        client.send(type="unregistertriggertype", id="mine")
        assert client.call("engine::triggers::info", {"id": "mine"})["instance_count"] == 1
        for kind in ("shelf", "mine"):
            other.send(type="unregistertriggertype", id=kind)
        assert shelf.bound == ["shelf"]
        assert client.call("engine::triggers::info", {"id": "mine"})[0] == "NOT_FOUND"


class TestWaiting:
    """What takes time, and what waits."""

    def test_silent_provider(self, client: Client, other: Client, clock: Clock) -> None:
        """After a while silence is consent."""
        other.send(type="registertriggertype", id="hook", description="d")
        data = {"trigger_type": "hook", "function_id": "f"}
        assert client.invoke("engine::register_trigger", data) == []
        clock.advance(PROVIDER_PATIENCE - 1)
        assert client.peer.take() == []
        clock.advance(1)
        (answer,) = client.peer.take()
        assert answer["result"] == {"id": other.peer.take()[0]["id"]}

    def test_provider_leaves_meanwhile(self, router: Router, client: Client, other: Client) -> None:
        """The trigger is parked, which is no failure."""
        other.send(type="registertriggertype", id="hook", description="d")
        client.invoke("engine::register_trigger", {"trigger_type": "hook", "function_id": "f"})
        router.disconnect(other.worker)
        assert "id" in client.peer.take()[0]["result"]

    def test_blank_namespaces(self, client: Client) -> None:
        """They are refused; a type is so silently."""
        data = {"trigger_type": "hook", "function_id": "f", "trigger_namespace": " "}
        assert client.call("engine::register_trigger", data)[0] == "INVALID_NAMESPACE"
        assert client.send(type="registertriggertype", id="hook", description="d", namespace="") == []
        assert client.call("engine::triggers::info", {"id": "hook"})[0] == "NOT_FOUND"

    def test_held_until_the_namespace_is_known(self, router: Router) -> None:
        """Types and triggers land in the namespace their worker declares."""
        client = Client(router, resolved=False)
        client.send(type="registertriggertype", id="hook", description="d")
        register(client, "t", "hook")
        register(client, "u", "hook")
        client.send(type="unregistertrigger", id="u")
        assert not router.triggers.all
        assert client.invoke("engine::workers::register", {"namespace": "shop"})[0]["id"] == "t"
        assert list(router.triggers.types)[-1] == ("shop", "hook")
        assert list(router.triggers.all) == ["t"]

    @pytest.mark.parametrize("change", ["registerfunction", "unregisterfunction"])
    def test_functions_change(self, client: Client, clock: Clock, change: str) -> None:
        """Fires at the next look after the set of functions has changed, and only then."""
        client.register("f")
        if change == "unregisterfunction":
            client.register("g")
        register(client, "t", "engine::functions-available")
        clock.advance(POLL)
        assert client.peer.take() == []
        client.send(type=change, id="g")
        clock.advance(POLL)
        (call,) = client.peer.take()
        assert call["data"]["event"] == "functions_changed"
        ids = [function["function_id"] for function in call["data"]["functions"]]
        assert ("g" in ids) == (change == "registerfunction")
        client.send(type="unregistertrigger", id="t")
        assert len(clock) == 0


def test_condition(client: Client, clock: Clock) -> None:
    """Only a literal false and a failure keep the function from being called."""
    client.register("f")
    client.register("may")
    register(client, "t", "engine::functions-available", config={"condition_function_id": "may"}, metadata=7)

    def ask(**outcome: Any) -> list[dict[str, Any]]:
        client.register(uuid.uuid4().hex)
        clock.advance(POLL)
        (question,) = client.peer.take()
        assert question["function_id"] == "may"
        return client.send(
            type="invocationresult", function_id="may", invocation_id=question["invocation_id"], **outcome
        )

    for outcome in ({}, {"result": True}, {"result": 0}):
        (call,) = ask(**outcome)
        assert (call["function_id"], call["metadata"]) == ("f", 7)
        assert "_caller_worker_id" not in call["data"]
    assert ask(result=False) == []
    assert ask(error={"code": "c", "message": "m"}) == []
    client.send(type="unregisterfunction", id="may")
    client.register("another")
    clock.advance(POLL)
    assert client.peer.take() == []
