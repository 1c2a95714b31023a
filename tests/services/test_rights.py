"""What an engine lets a worker do: who is let in, what it may call, what it may register."""

from __future__ import annotations

import contextlib
import json
import queue
import time
import uuid
from collections.abc import Iterator
from typing import Any, Callable

import pytest
import websocket

from iii_sync import ReconnectionConfig, TriggerAction, Worker, errors, register_worker
from iii_sync.testing import FaultProxy
from iii_sync.triggers import state, subscribe

from ..engine.peers import ANSWERED_AGAIN
from .conftest import GuardedEngine
from .helpers import HELPERS

WAIT = 20.0

Unique = Callable[[str], str]

#: What the guard says to whom.
RIGHTS: dict[str, Any] = {
    "anybody": {},
    "caller": {"allow_function_registration": False},
    "prefixed": {"function_registration_prefix": "theirs"},
    "without-open": {"forbidden_functions": ["open::forbidden"]},
    "of-shop": {"namespaces": {"shop": ["*"]}},
    "of-a-shelf": {"namespaces": {"shop": ["shelf::*"]}},
    "friend": {"allowed_functions": ["closed::one", "closed::*"], "context": {"who": "friend"}},
    "maker": {"allow_trigger_type_registration": True, "context": {"who": "maker"}},
    "lister": {"allowed_functions": ["engine::functions::list"]},
    "subscriber": {"allowed_trigger_types": ["subscribe"]},
    "watcher": {
        "allowed_trigger_types": ["subscribe"],
        "allowed_functions": ["engine::registered-triggers::info", "engine::triggers::list"],
    },
    "tenant": {
        "allowed_trigger_types": ["subscribe"],
        "function_registration_prefix": "theirs",
        "namespaces": {"default": ["theirs::*"]},
    },
    "one-eyed": {
        "forbidden_functions": ["engine::workers::info"],
        "allowed_functions": ["engine::triggers::list"],
        "allow_trigger_type_registration": True,
    },
    "blind": {
        "forbidden_functions": ["engine::functions::info", "engine::workers::info"],
        "allow_trigger_type_registration": True,
    },
    "a-list": [1],
    "nothing": None,
    "a-number": {"allowed_functions": 3},
}


class Guard:
    """The worker that the engine asks."""

    def __init__(self, engine: GuardedEngine) -> None:
        self.engine = engine
        self.worker = register_worker(engine.url)
        self.asked: list[dict[str, Any]] = []
        self.closed = False
        self.worker.register_function("guard::auth", self.auth)
        self.hooked: queue.Queue[Any] = queue.Queue()
        self.worker.register_function("guard::registering", self.registering)
        self.worker.register_function("guard::binding", self.binding)
        self.worker.register_function("guard::providing", self.providing)

    def auth(self, data: Any) -> Any:
        self.asked.append(data)
        who = str(data["headers"].get("authorization")).partition(" ")[2]
        if self.closed or who not in RIGHTS:
            raise errors.InvocationError("not_you", "who are you?")
        return RIGHTS[who]

    def registering(self, data: Any) -> Any:
        self.hooked.put(data)
        if "refused" in data["function_id"]:
            raise errors.InvocationError("no", "not this one")
        if "listed" in data["function_id"]:
            return ["not an object"]
        if "renamed" in data["function_id"]:
            return {"function_id": f"new-{data['function_id']}", "description": "renamed", "metadata": {"new": True}}
        return {}

    def binding(self, data: Any) -> Any:
        self.hooked.put(data)
        if "refused" in data["function_id"] or "refused" in data["config"].get("topic", ""):
            raise errors.InvocationError("no", "not this one")
        return {"config": {"topic": data["config"]["moved"]}} if "moved" in data["config"] else {}

    def providing(self, data: Any) -> Any:
        self.hooked.put(data)
        if "refused" in data["trigger_type_id"]:
            raise errors.InvocationError("no", "not this one")
        return {}

    def guest(self, who: str, **options: Any) -> Worker:
        """A worker that comes through the guarded listener."""
        return register_worker(self.engine.guarded_url, headers={"Authorization": f"Bearer {who}"}, **options)

    def raw(self, who: str, path: str = "/") -> contextlib.AbstractContextManager[Raw]:
        """A guest without a client of ours."""
        return contextlib.closing(Raw(self.engine.guarded_url + path, who))


class Raw:
    """A plain WebSocket, to see every frame."""

    def __init__(self, url: str, who: str) -> None:
        self._socket = websocket.create_connection(url, timeout=WAIT, header={"Authorization": f"Bearer {who}"})

    def send(self, kind: str, **keys: Any) -> None:
        """Send a frame."""
        self._socket.send(json.dumps({"type": kind, **keys}))

    def next(self) -> Any:
        """The next frame, or the status of a Close."""
        opcode, data = self._socket.recv_data()
        return f"closed {data!r}" if opcode == websocket.ABNF.OPCODE_CLOSE else json.loads(data)

    def until(self, **keys: Any) -> Any:
        """The next frame with these keys."""
        while True:
            frame = self.next()
            if all(frame.get(key) == value for key, value in keys.items()):
                return frame

    def settled(self) -> None:
        """Wait until the engine has handled everything that was sent."""
        number = str(uuid.uuid4())
        self.send("invokefunction", function_id="engine::workers::register", data={}, invocation_id=number)
        self.until(invocation_id=number)

    def close(self) -> None:
        """Hang up."""
        self._socket.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def guard(guarded_engine: GuardedEngine) -> Iterator[Guard]:
    """Somebody to ask."""
    guard = Guard(guarded_engine)
    with guard.worker:
        yield guard


class TestComingIn:
    """Authentication."""

    def test_refused_at_once(self, guard: Guard) -> None:
        """It is an error that says so, asked for once: no loop."""
        for options in ({}, {"keep_trying": True}):
            guard.asked.clear()
            with pytest.raises(errors.AuthenticationError, match="refused this worker: who are you"):
                guard.guest("nobody", **options)
            assert len(guard.asked) == 1

    def test_the_token_of_the_environment(self, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
        """Opens the door, and a header that is given wins."""
        monkeypatch.setenv("III_TOKEN", " anybody ")
        with register_worker(guard.engine.guarded_url):
            pass
        with pytest.raises(errors.AuthenticationError):
            guard.guest("nobody")

    def test_the_address_of_the_environment(self, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
        """With its query, which the guard sees."""
        monkeypatch.setenv("III_URL", f"{guard.engine.guarded_url}?tenant=a")
        monkeypatch.setenv("III_TOKEN", "anybody")
        with register_worker():
            assert guard.asked[-1]["query_params"] == {"tenant": ["a"]}

    def test_what_the_guard_hears(self, guard: Guard) -> None:
        """Headers by their lower names, every value of the query as it was sent, an address."""
        with guard.raw("anybody", "/?a=b%20c&a=d&e") as guest:
            assert guest.next()["type"] == "workerregistered"
        asked = guard.asked[-1]
        assert asked["query_params"] == {"a": ["b%20c", "d"], "e": [""]}
        assert (asked["headers"]["authorization"], asked["ip_address"]) == ("Bearer anybody", "127.0.0.1")
        assert set(asked) == {"headers", "query_params", "ip_address"}

    @pytest.mark.parametrize("who", ["a-list", "nothing", "a-number", "somebody"])
    @pytest.mark.parametrize("path", ["/", "/otel"])
    def test_the_refusal_on_the_wire(self, guard: Guard, who: str, path: str) -> None:
        """One frame that says why, and a Close without status; also for an answer that makes no sense."""
        with guard.raw(who, path) as guest:
            refusal = guest.next()
            assert refusal["type"] == "error" and refusal["error"]["code"] == "AUTH_ERROR"
            assert refusal["error"]["message"]
            assert guest.next() == "closed b''"

    def test_nobody_to_ask(self, guard: Guard) -> None:
        """The error names the function that is missing."""
        guard.worker.shutdown()
        with pytest.raises(errors.AuthenticationError, match="guard::auth"):
            guard.guest("anybody")

    def test_another_namespace(self, guard: Guard) -> None:
        """Is refused; the permitted one is not."""
        with pytest.raises(errors.PermissionDeniedError, match="not allowed for this session"):
            guard.guest("of-shop")
        with guard.guest("of-shop", namespace="shop") as guest:
            assert guest.get_connection_state() == "connected"

    def test_refused_when_it_comes_back(self, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is tried for a while, then the worker gives up, and every call says why."""
        monkeypatch.setattr("iii_sync.session.reconnecting.REFUSED_FOR", 0.3)
        states: list[str] = []
        with guard.guest("anybody", reconnection_config=ReconnectionConfig(initial_delay=0.05)) as guest:
            guest.add_connection_state_listener(states.append)
            guard.closed = True
            link = guest._session._link
            assert link is not None and link.connection is not None
            link.connection.on_broken(errors.EngineConnectionError("a cable was pulled"))
            with pytest.raises(errors.AuthenticationError):
                guest.wait(WAIT)
            assert guest.get_connection_state() == "failed"
            with pytest.raises(errors.AuthenticationError):
                guest.trigger("open::x")
            end = time.monotonic() + WAIT
            while states != ["reconnecting", "failed"] and time.monotonic() < end:
                time.sleep(0.01)
            assert states == ["reconnecting", "failed"]
            assert len(guard.asked) < 20


class TestCalls:
    """What a worker may call."""

    def test_forbidden_calls_raise(self, guard: Guard, unique: Unique) -> None:
        """Exposed ones do not, and the worker goes on."""
        guard.worker.register_function("open::echo", lambda data: data)
        guard.worker.register_function("open::forbidden", lambda data: data)
        guard.worker.register_function(unique("closed"), lambda data: data)
        with guard.guest("without-open") as guest:
            for attempt in (
                lambda: guest.trigger("open::forbidden"),
                lambda: guest.trigger(unique("closed")),
                lambda: guest.submit(unique("closed")).result(WAIT),
                lambda: guest.state.get("a", "b"),
                lambda: guest.publish("a", "b"),
                lambda: guest.engine.workers(),
            ):
                with pytest.raises(errors.PermissionDeniedError, match="not allowed") as caught:
                    attempt()
                assert caught.value.code == "FORBIDDEN"
            # Nobody waits for the answer of such a call, so nobody hears of it.
            assert guest.trigger(unique("closed"), action=TriggerAction.Void()) is None
            assert guest.trigger("open::echo", 1) == 1

    @pytest.mark.parametrize("name", sorted({*HELPERS} - {"engine.function", "engine.worker"}))
    def test_forbidden_helpers_raise(self, guard: Guard, name: str) -> None:
        """As the calls do that they are; the two left out are exposed here."""
        with guard.guest("anybody") as guest, pytest.raises(errors.PermissionDeniedError, match="not allowed"):
            HELPERS[name].call(guest, name)

    def test_by_metadata_by_name_and_by_namespace(self, guard: Guard, unique: Unique) -> None:
        """What is exposed besides by its id, and what only some may call."""
        public, team = unique("public"), {"public": True, "team": "alpha"}
        guard.worker.register_function(public, lambda _: "public", metadata=team)
        guard.worker.register_function(unique("other"), lambda _: 0, metadata={**team, "team": "beta"})
        guard.worker.register_function(unique("half"), lambda _: 0, metadata={"public": True})
        guard.worker.register_function("closed::one", lambda _: "one")
        guard.worker.register_function("closed::two", lambda _: "two")
        with register_worker(guard.engine.url, namespace="shop") as shop:
            for name in ("in-shop", "shelf::a", "open::in-shop"):
                shop.register_function(name, lambda _: "sold")
            with guard.guest("anybody") as guest:
                assert guest.trigger(public) == "public"
                assert guest.trigger("in-shop", namespace="shop") == "sold"
                for name in (unique("other"), unique("half"), "closed::one", "in-shop"):
                    with pytest.raises(errors.PermissionDeniedError, match="add to rbac.expose_functions"):
                        guest.trigger(name)
                for name in ("open::in-shop", "shelf::a"):
                    with pytest.raises(errors.PermissionDeniedError):
                        guest.trigger(name, namespace="shop")
            with guard.guest("friend") as guest:
                assert guest.trigger("closed::one") == "one"
                with pytest.raises(errors.PermissionDeniedError):
                    guest.trigger("closed::two")  # the list holds names, not patterns
            with guard.guest("of-a-shelf", namespace="shop") as guest:
                assert guest.trigger("shelf::a") == "sold"
                assert guest.trigger("in-shop") == "sold"

    def test_the_refusal_of_a_call_that_wants_no_answer(self, guard: Guard) -> None:
        """Comes all the same, with an id of its own."""
        with guard.raw("anybody") as guest:
            guest.send("invokefunction", function_id="closed::void", data={})
            refusal = guest.until(type="invocationresult")
            assert refusal["error"]["code"] == "FORBIDDEN" and uuid.UUID(refusal["invocation_id"])
            number = str(uuid.uuid4())
            for action in ({"type": "void"}, {"type": "enqueue", "queue": "q"}):
                guest.send("invokefunction", function_id="closed::x", data={}, invocation_id=number, action=action)
                assert guest.until(invocation_id=number)["error"]["code"] == "FORBIDDEN"

    def test_what_it_may_not_call_it_does_not_see(self, guard: Guard, unique: Unique) -> None:
        """Neither in a description nor, where it may list functions, in the list."""
        shown, hidden = unique("open::shown"), unique("hidden")
        for name in (shown, hidden):
            guard.worker.register_function(name, lambda _: None)
        with guard.guest("lister") as guest:
            listed = [item["function_id"] for item in guest.engine.functions()]
            assert shown in listed and hidden not in listed and "state::get" not in listed
            assert guest.engine.function(shown)["function_id"] == shown
            with pytest.raises(errors.PermissionDeniedError, match="not visible to this session"):
                guest.engine.function(hidden)
            several = {"function_ids": [shown, hidden, unique("nothing")]}
            found = guest.trigger("engine::functions::info", several)["functions"]
            assert [item.get("error") for item in found] == [None, "forbidden", "not_found"]

    def test_what_nobody_can_do_without(self, guard: Guard) -> None:
        """Needs no right, but can be forbidden."""
        with guard.guest("anybody") as guest:
            guest.log("a line")
            assert guest.trigger("engine::baggage::get_all", {}) == {"baggage": {}}

    def test_channels_work(self, guard: Guard) -> None:
        """They need no right of their own."""
        with guard.guest("anybody") as guest:
            channel = guest.create_channel()
            with channel.writer.makefile("wb") as writer:
                writer.write(b"through")
            with channel.reader.makefile("rb") as reader:
                assert reader.read() == b"through"


class TestRegistrations:
    """What a worker may offer."""

    def test_allowed(self, guard: Guard, unique: Unique) -> None:
        """Visible to the worker itself or not, with a prefix or not."""
        for who, prefix in (("anybody", ""), ("prefixed", "theirs::")):
            with guard.guest(who) as guest:
                for name in (unique("mine"), unique("open::mine")):
                    guest.register_function(name, lambda data: [data])
                    assert guard.worker.trigger(prefix + name, 1) == [1]

    def test_refused(self, guard: Guard, unique: Unique) -> None:
        """The engine says nothing, the error comes all the same, and the id is free again."""
        for who, name in (("caller", unique("mine")), ("anybody", unique("refused")), ("prefixed", unique("refused"))):
            with guard.guest(who) as guest:
                with pytest.raises(errors.PermissionDeniedError, match="may not register") as caught:
                    guest.register_function(name, lambda data: data)
                assert caught.value.function_id == name
                with pytest.raises(errors.PermissionDeniedError):
                    guest.register_function(name, lambda data: data)
                assert guest.get_connection_state() == "connected"

    @pytest.mark.parametrize("who", ["anybody", "prefixed"])
    def test_taken(self, guard: Guard, unique: Unique, who: str) -> None:
        """The error names who has the id, with the prefix that it has there; once it is free it can be had."""
        there = ("theirs::" if who == "prefixed" else "") + unique("taken")
        owner = guard.worker.register_function(there, lambda data: "owner")
        with guard.guest(who) as guest:
            with pytest.raises(errors.RegistrationRejectedError, match=f"'{there}' is taken") as caught:
                guest.register_function(unique("taken"), lambda data: "guest")
            assert caught.value.code == "FUNCTION_NAMESPACE_CONFLICT"
            assert caught.value.owner_worker_id == guard.worker.worker_id
            assert guard.worker.trigger(there) == "owner"
            owner.unregister()
            guest.register_function(unique("taken"), lambda data: "guest")
            assert guard.worker.trigger(there) == "guest"

    @pytest.mark.parametrize("who", ["anybody", "prefixed"])
    def test_refused_after_a_reconnect(
        self,
        guard: Guard,
        unique: Unique,
        who: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The engine says nothing, the function knows; and what may be there is, whoever may see it."""
        caplog.set_level("INFO", "iii_sync.worker")
        with FaultProxy(guard.engine.guarded_url) as proxy:
            with register_worker(
                proxy.url,
                headers={"Authorization": f"Bearer {who}"},
                reconnection_config=ReconnectionConfig(initial_delay=0.05),
            ) as guest:
                functions = [guest.register_function(unique(name), str) for name in ("mine", "open::mine")]
                states: queue.Queue[str] = queue.Queue()
                guest.add_connection_state_listener(states.put)

                def reconnect() -> None:
                    proxy.cut()
                    while states.get(timeout=WAIT) != "connected":
                        pass

                reconnect()
                assert guest.engine.worker(guest.worker_name)["worker"]["function_count"] == 2
                assert not [record for record in caplog.records if record.levelname == "ERROR"]
                with monkeypatch.context() as patch:
                    patch.setitem(RIGHTS, who, {**RIGHTS[who], "allow_function_registration": False})
                    reconnect()
                    end = time.monotonic() + WAIT
                    while any(function.error is None for function in functions):
                        assert time.monotonic() < end
                        time.sleep(0.01)
                for function in functions:
                    assert isinstance(function.error, errors.PermissionDeniedError)
                    assert function.error.function_id == function.id
                    assert f"{function.id} could not be registered again" in caplog.text
                reconnect()
                end = time.monotonic() + WAIT
                while any(function.error is not None for function in functions):
                    assert time.monotonic() < end
                    time.sleep(0.01)

    def test_the_hook_changes_it(self, guard: Guard, unique: Unique) -> None:
        """Its id, description and metadata; the prefix comes after that, and what is not an object refuses."""
        with guard.raw("prefixed") as guest:
            guest.settled()
            for name in ("listed", "renamed"):
                guest.send("registerfunction", id=unique(name), metadata={"m": 1}, description=None)
            guest.settled()
            assert guard.hooked.get(timeout=WAIT)["function_id"] == unique("listed")
            assert guard.hooked.get(timeout=WAIT) == {
                "function_id": unique("renamed"),
                "description": None,
                "metadata": {"m": 1},
                "namespace": "default",
                "context": {},
            }
            name = f"theirs::new-{unique('renamed')}"
            known = guard.worker.engine.function(name)
            assert (known["description"], known["metadata"]) == ("renamed", {"new": True})
            call = guard.worker.submit(name, [1])
            # The worker hears the id without the prefix.
            asked = guest.until(type="invokefunction", function_id=f"new-{unique('renamed')}")
            answer = {"invocation_id": asked["invocation_id"], "function_id": "x", "result": "done"}
            guest.send("invocationresult", **answer)
            time.sleep(ANSWERED_AGAIN)  # the real engine may not have been listening (PROTOCOL E-14)
            guest.send("invocationresult", **answer)
            assert call.result(WAIT) == "done"
            guest.send("unregisterfunction", id=f"new-{unique('renamed')}")
            guest.settled()
            for gone in (name, f"theirs::{unique('listed')}"):
                with pytest.raises(errors.InvocationError, match="not registered"):
                    guard.worker.engine.function(gone)

    def test_trigger_types(self, guard: Guard, unique: Unique) -> None:
        """Only for those who may; the hook is asked about each."""
        with guard.raw("maker") as maker, guard.raw("anybody") as other:
            for guest in (maker, other):
                guest.settled()
                for name in ("refused", "kind"):
                    guest.send("registertriggertype", id=unique(name), description="d")
                guest.settled()
            kinds = {item["id"]: item for item in guard.worker.engine.trigger_types()}
            assert unique("kind") in kinds and unique("refused") not in kinds
            heard = [guard.hooked.get(timeout=WAIT) for _ in range(2)]
            assert heard[1] == {"trigger_type_id": unique("kind"), "description": "d", "context": {"who": "maker"}}
            assert guard.hooked.empty()

    def test_triggers(self, guard: Guard, unique: Unique) -> None:
        """Of some types, on functions that may be called; what the hook makes of their config counts."""
        fired: queue.Queue[Any] = queue.Queue()
        guard.worker.register_function("open::heard", fired.put)
        bind = {"trigger_type": "subscribe", "function_id": "open::heard"}
        with guard.raw("subscriber") as guest:
            guest.settled()
            triggers: dict[str, dict[str, Any]] = {
                "moved": {"config": {"topic": "x", "moved": unique("moved")}, "metadata": {"m": 1}},
                "other": {"config": {}, "trigger_type": "state"},
                "refused": {"config": {"topic": unique("moved")}, "function_id": "open::refused"},
                "closed": {"config": {"topic": "x"}, "function_id": "closed::x"},
            }
            for name, keys in triggers.items():
                guest.send("registertrigger", **{**bind, "id": unique(name), **keys})
            refusal = guest.until(type="triggerregistrationresult")
            assert (refusal["id"], refusal["error"]["code"]) == (unique("closed"), "FORBIDDEN")
            assert refusal["error"]["message"] == "function 'closed::x' not allowed in namespace 'default'"
            guest.settled()
            assert guard.hooked.get(timeout=WAIT) == {
                "trigger_id": unique("moved"),
                "trigger_type": "subscribe",
                "function_id": "open::heard",
                "config": {"topic": "x", "moved": unique("moved")},
                "metadata": {"m": 1},
                "namespace": "default",
                "context": {},
            }
            (known,) = [
                item
                for item in guard.worker.engine.triggers()
                if item["id"] in map(unique, ("moved", "other", "refused"))
            ]
            assert known["config"] == {"topic": unique("moved")}
            guard.worker.publish(unique("moved"), "news")
            assert fired.get(timeout=WAIT) == "news"

    @pytest.mark.parametrize(
        ("who", "name"), [("anybody", "kind"), ("maker", "refused"), ("one-eyed", "refused"), ("subscriber", "kind")]
    )
    def test_a_trigger_type_that_is_refused(self, guard: Guard, unique: Unique, who: str, name: str) -> None:
        """The engine says nothing, the error comes all the same, and nothing stays."""
        with guard.guest(who) as guest:
            for _ in range(2):
                with pytest.raises(errors.PermissionDeniedError, match=f"type '{unique(name)}'.*may not provide it"):
                    guest.register_trigger_type(unique(name), "d", (print, print))
            assert guest._registrations.registrations() == []
            assert unique(name) not in {item["id"] for item in guard.worker.engine.trigger_types()}

    @pytest.mark.parametrize("who", ["maker", "one-eyed"])
    def test_a_trigger_type_that_is_allowed(
        self, guard: Guard, unique: Unique, who: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whichever way it finds that out."""
        told: queue.Queue[Any] = queue.Queue()
        with guard.guest(who) as guest:
            kind = guest.register_trigger_type(unique("kind"), "d", (told.put, print))
            trigger = guard.worker.register_trigger(kind.id, "open::f")
            assert told.get(timeout=WAIT).id == trigger.id
        assert not caplog.records

    @pytest.mark.parametrize("who", ["subscriber", "watcher", "tenant"])
    def test_a_trigger_that_is_refused(self, guard: Guard, unique: Unique, who: str) -> None:
        """The engine says nothing, the error comes all the same, and nothing stays; others of the worker do."""
        name, topic = unique("open::f"), unique("topic")
        fired: queue.Queue[Any] = queue.Queue()
        with guard.guest(who) as guest:
            guest.register_function(name, fired.put, trigger=subscribe(topic))
            for _ in range(2):
                with pytest.raises(errors.PermissionDeniedError, match="'state' trigger.* may not") as caught:
                    guest.register_trigger(state(scope=topic), name)
                assert caught.value.function_id == name
            for source in (state(scope=topic), subscribe(unique("refused"))):
                with pytest.raises(errors.PermissionDeniedError, match=f"'{source.type}' trigger"):
                    guest.register_function(unique("open::g"), print, trigger=[subscribe(unique("other")), source])
            with pytest.raises(errors.PermissionDeniedError, match="'http' trigger"):
                guest.register_http("GET", unique("/path"), lambda request: {}, function_id=unique("open::page"))
            assert [item["type"] for item in guest._registrations.registrations()] == [
                "registerfunction",
                "registertrigger",
            ]
            guard.worker.publish(topic, 1)
            assert fired.get(timeout=WAIT) == 1

    @pytest.mark.parametrize("who", ["subscriber", "watcher", "tenant"])
    def test_a_trigger_that_is_allowed(
        self, guard: Guard, unique: Unique, who: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is active, and the worker can see so whatever else it may not look at."""
        with guard.guest(who) as guest:
            guest.register_function(unique("open::f"), print)
            trigger = guest.register_trigger(subscribe(unique("topic")), unique("open::f"))
            assert trigger.is_active()
            trigger.unregister()
            assert not trigger.is_active()
        assert not caplog.records

    def test_what_nobody_can_tell(self, guard: Guard, unique: Unique, caplog: pytest.LogCaptureFixture) -> None:
        """One warning for each, which says what the worker would have to look at."""
        with guard.guest("blind") as guest:
            trigger = guest.register_trigger(subscribe(unique("topic")), unique("open::f"))
            with pytest.raises(errors.PermissionDeniedError, match=r"registered-triggers::info.* not allowed"):
                trigger.is_active()
            guest.register_trigger_type(unique("kind"), "d", (print, print))
        with guard.guest("anybody") as guest:
            guest.register_function(unique("open::f"), print)
            guest.register_trigger(unique("later"), unique("open::f"))
        told = [
            (record.levelname, record.getMessage()) for record in caplog.records if record.name == "iii_sync.worker"
        ]
        assert len(told) == 3
        for (level, text), what in zip(told, ("subscribe", unique("kind"), unique("later"))):
            assert level == "WARNING" and f"'{what}'" in text and "may not call engine::" in text

    def test_a_route_that_is_refused(self, guard: Guard, unique: Unique) -> None:
        """Its function may not be called from outside; the function goes, too."""
        with guard.guest("anybody") as guest:
            with pytest.raises(errors.TriggerRegistrationError, match="not allowed") as caught:
                guest.register_http("GET", unique("/path"), lambda request: {})
            assert caught.value.code == "FORBIDDEN"
            assert guest._registrations.registrations() == []


class TestMiddleware:
    """A function that is called in place of every other."""

    def test_it_stands_between(self, guarded_engine: GuardedEngine, unique: Unique) -> None:
        """And answers; the engine's own functions are not hidden by it."""
        told: queue.Queue[Any] = queue.Queue()

        def between(data: Any) -> Any:
            told.put(data)
            if data["payload"] == "fail":
                raise errors.InvocationError("no_way", "not through here")
            return {"instead": data["payload"]}

        with register_worker(guarded_engine.between_own_url) as owner:
            owner.register_function("guard::between", between)
            owner.register_function(unique("f"), lambda data: "never called")
            with register_worker(guarded_engine.between_url) as guest:
                assert guest.trigger(unique("f"), {"a": 1}) == {"instead": {"a": 1}}
                expected = {"function_id": unique("f"), "payload": {"a": 1}, "action": None, "namespace": "default"}
                assert told.get(timeout=WAIT) == {**expected, "context": {}}
                with pytest.raises(errors.InvocationError, match="not through here") as caught:
                    guest.trigger(unique("f"), "fail")
                assert caught.value.code == "no_way"
                told.get(timeout=WAIT)
                guest.trigger(unique("f"), 1, action=TriggerAction.Void())
                assert told.get(timeout=WAIT)["action"] == {"type": "void"}
                guest.trigger(unique("f"), 2, action=TriggerAction.Enqueue("q"))
                assert told.get(timeout=WAIT)["action"] == {"type": "enqueue", "queue": "q"}
                assert guest.state.set("scope", "k", 1) == {"instead": {"scope": "scope", "key": "k", "value": 1}}
                assert guest.engine.function(unique("f"))["function_id"] == unique("f")
            with contextlib.closing(Raw(guarded_engine.between_url, "")) as raw:
                raw.send("invokefunction", function_id=unique("f"), data=3)
                answer = raw.until(type="invocationresult")
                assert answer["result"] == {"instead": 3} and uuid.UUID(answer["invocation_id"])
