"""The router alone: frames in, effects on recording peers out. No sockets, no clock."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any, Optional

import pytest

from iii_sync.engine.jsontext import JSON, JsonObject
from iii_sync.engine.records import Builtin
from iii_sync.engine.router import Router

from .clients import Client, Peer


class TestLife:
    """Connecting, announcing, reattaching, leaving."""

    def test_hello_comes_first(self, router: Router) -> None:
        """The first frame names the worker and gives it a secret."""
        hello = Client(router, resolved=False).hello
        assert hello["type"] == "workerregistered"
        assert uuid.UUID(hello["worker_id"]) != uuid.UUID(hello["reattach_token"])

    def test_registrations_wait_for_the_namespace(self, router: Router) -> None:
        """What was registered before the announcement lands in the announced namespace."""
        client = Client(router, resolved=False)
        client.register("a")
        client.register("b")
        client.send(type="unregisterfunction", id="b")
        assert not router.functions
        assert client.announce(namespace="shop") == {"success": True}
        assert list(router.functions) == [("shop", "a")]

    def test_grace_pins_the_default_namespace(self, router: Router) -> None:
        """A worker that never announces itself is in ``default``; a later namespace changes nothing."""
        client = Client(router, resolved=False)
        client.register("a")
        router.pin(client.worker)
        assert list(router.functions) == [("default", "a")]
        assert client.announce(namespace="shop") == {"success": True}
        client.register("b")
        assert list(router.functions) == [("default", "a"), ("default", "b")]

    def test_invocations_do_not_wait_for_the_namespace(self, router: Router) -> None:
        """Pings and calls are handled before the announcement."""
        client = Client(router, resolved=False)
        assert client.send(type="ping") == [{"type": "pong"}]
        assert client.call("engine::baggage::get", {"key": "k"}) == {"value": None}

    def test_blank_namespace_is_refused(self, router: Router) -> None:
        """A namespace that was named and left blank is an error."""
        client = Client(router, resolved=False)
        code, _ = client.announce(namespace=" ")
        assert code == "INVALID_NAMESPACE"
        assert client.worker.namespace is None

    @pytest.mark.parametrize("data", [None, 1, {"pid": "x"}, {"pid": -1}, {"pid": 1 << 32}, {"name": 1}])
    def test_announcement_of_wrong_types(self, router: Router, data: Any) -> None:
        """Wrong types are a deserialization error that names the function."""
        code, message = Client(router, resolved=False).call("engine::workers::register", data)
        assert code == "deserialization_error"
        assert message.startswith("Failed to deserialize input for engine::workers::register: ")

    def test_name_conflict_ends_the_later_worker(self, router: Router) -> None:
        """The loser is told, closed, and leaves nothing behind."""
        first, second = Client(router, resolved=False), Client(router, resolved=False)
        first.announce(name="api", namespace="shop")
        second.register("f")
        (frame,) = second.invoke("engine::workers::register", {"name": "api", "namespace": "shop"})
        assert frame == {
            "type": "registrationrejected",
            "code": "WORKER_NAMESPACE_CONFLICT",
            "namespace": "shop",
            "worker_name": "api",
            "owner_worker_id": first.worker.id,
        }
        assert second.peer.closed
        assert not router.functions
        assert second.send(type="ping") == []

    def test_a_name_is_free_again_after_its_worker(self, router: Router) -> None:
        """Names are leased per namespace, idempotently, for as long as their worker lives."""
        first = Client(router, resolved=False)
        assert first.announce(name="api") == {"success": True} == first.announce(name="api")
        assert Client(router, resolved=False).announce(name="api", namespace="x") == {"success": True}
        router.disconnect(first.worker)
        assert Client(router, resolved=False).announce(name="api") == {"success": True}

    def test_labels_are_cleaned(self, router: Router) -> None:
        """Names and descriptions are freed of what people cannot see, and cut."""
        client = Client(router, resolved=False)
        client.announce(name=" a\u202e\n\u2028b ", description="x" * 300)
        assert client.worker.profile.name == "ab"
        assert client.worker.profile.description == "x" * 280
        client.announce(name="\t ")
        assert client.worker.profile.name is None

    def test_reattach_evicts_the_old_connection(self, router: Router) -> None:
        """With the right token the old connection is gone before the next frame is handled."""
        old, new = Client(router, resolved=False), Client(router, resolved=False)
        old.announce(name="api")
        old.register("f")
        new.send(
            type="reattach",
            previous_worker_id=old.worker.id.upper(),
            reattach_token=old.hello["reattach_token"],
        )
        assert old.peer.dropped
        assert new.announce(name="api") == {"success": True}
        assert new.register("f") == []

    @pytest.mark.parametrize("case", ["token", "no token", "id", "self", "unknown"])
    def test_reattach_that_proves_nothing_is_ignored(self, router: Router, case: str) -> None:
        """Wrong, missing or own credentials do nothing."""
        old, new = Client(router), Client(router)
        frame: dict[str, Any] = {
            "previous_worker_id": old.worker.id,
            "reattach_token": old.hello["reattach_token"],
        }
        changes: dict[str, dict[str, Any]] = {
            "token": {"reattach_token": "\u00e4"},
            "no token": {"reattach_token": None},
            "id": {"previous_worker_id": "x"},
            "self": {
                "previous_worker_id": new.worker.id,
                "reattach_token": new.hello["reattach_token"],
            },
            "unknown": {"previous_worker_id": str(uuid.uuid4())},
        }
        frame.update(changes[case])
        assert new.send(type="reattach", **frame) == []
        assert not old.peer.dropped
        assert not new.peer.dropped

    def test_disconnect_twice(self, router: Router, client: Client) -> None:
        """The second clean-up of a worker does nothing."""
        router.disconnect(client.worker)
        router.disconnect(client.worker)
        assert not router.workers


class TestFunctions:
    """Registering functions and what can be in the way."""

    def test_another_worker_owns_the_id(self, client: Client, other: Client) -> None:
        """The later one is refused and told who owns it."""
        assert client.register("f") == []
        assert other.register("f") == [
            {
                "type": "registrationrejected",
                "code": "FUNCTION_NAMESPACE_CONFLICT",
                "namespace": "default",
                "function_id": "f",
                "owner_worker_id": client.worker.id,
            }
        ]

    def test_own_id_again_replaces(self, router: Router, client: Client) -> None:
        """Registering an own id again overwrites it silently."""
        client.register("f", description="old")
        assert client.register("f", description="new") == []
        assert client.call("engine::functions::info", {"function_id": "f"})["description"] == "new"

    def test_same_id_in_two_namespaces(self, router: Router, client: Client) -> None:
        """Namespaces do not share ids."""
        client.register("f")
        assert Client(router, namespace="shop").register("f") == []

    @pytest.mark.parametrize("function_id", ["engine::channels::create", "engine::workers::register"])
    def test_builtins_cannot_be_replaced(self, client: Client, function_id: str) -> None:
        """An id the engine serves is refused: it would be gone for everybody (E-16)."""
        (frame,) = client.register(function_id)
        assert (frame["code"], frame["owner_worker_id"]) == ("FUNCTION_NAMESPACE_CONFLICT", "")
        assert "writer" in client.call("engine::channels::create", {})

    def test_engine_ids_outside_default_are_refused(self, router: Router) -> None:
        """Ids of the engine belong to ``default``."""
        (frame,) = Client(router, namespace="shop").register("engine::queue::enqueue")
        assert (frame["namespace"], frame["owner_worker_id"]) == ("shop", "")

    def test_unregister_is_for_the_owner(self, router: Router, client: Client, other: Client) -> None:
        """Unknown and foreign ids are ignored."""
        client.register("f")
        other.send(type="unregisterfunction", id="f")
        other.send(type="unregisterfunction", id="g")
        assert list(router.functions) == [("default", "f")]
        client.send(type="unregisterfunction", id="f")
        assert not router.functions

    def test_functions_over_http_are_not_kept(self, router: Router, client: Client) -> None:
        """They need a worker the local engine does not have; nothing is answered."""
        assert client.register("f", invocation={"url": "https://example.org"}) == []
        assert not router.functions

    @pytest.mark.parametrize("name", ["namespace", "trigger_namespace"])
    def test_trigger_with_blank_namespace(self, client: Client, name: str) -> None:
        """The only answer a trigger of an unknown type gets."""
        trigger = {
            "type": "registertrigger",
            "id": "t",
            "trigger_type": "x",
            "function_id": "f",
            "config": {},
        }
        assert client.send(**trigger) == []
        (frame,) = client.send(**trigger, **{name: ""})
        assert frame["type"] == "triggerregistrationresult"
        assert frame["error"]["code"] == "INVALID_NAMESPACE"
        assert frame["error"]["message"].startswith(f"`{name}` is empty")


class TestInvocations:
    """Calls between workers."""

    def test_call_and_result(self, client: Client, other: Client) -> None:
        """The callee gets the call with the caller's id and identity; the caller gets the result."""
        other.register("f")
        call_id = str(uuid.uuid4())
        sent = client.invoke(
            "f",
            {"a": 1, "_caller_worker_id": "forged"},
            invocation_id=call_id.upper(),
            metadata={"m": 1},
            traceparent="t",
            baggage="b",
        )
        assert sent == []
        (call,) = other.peer.take()
        assert call == {
            "type": "invokefunction",
            "invocation_id": call_id,
            "function_id": "f",
            "data": {"a": 1, "_caller_worker_id": client.worker.id},
            "metadata": {"m": 1},
            "traceparent": "t",
            "baggage": "b",
        }
        other.answer(call, result={"ok": True})
        assert client.peer.take() == [
            {
                "type": "invocationresult",
                "invocation_id": call_id,
                "function_id": "f",
                "result": {"ok": True},
                "traceparent": "t",
                "baggage": "b",
            }
        ]

    @pytest.mark.parametrize("data", [None, 1, "x", [{}], 1.5, True])
    def test_other_data_is_passed_untouched(self, client: Client, other: Client, data: Any) -> None:
        """Only an object gets the caller's id."""
        other.register("f")
        client.invoke("f", data)
        (call,) = other.peer.take()
        assert call["data"] == data
        assert not {"metadata", "traceparent", "baggage", "action", "namespace"} & set(call)

    @pytest.mark.parametrize("outcome", [{}, {"result": None}])
    def test_null_result_is_left_out(self, client: Client, other: Client, outcome: dict[str, Any]) -> None:
        """Null and no result are the same."""
        other.register("f")
        client.invoke("f")
        other.answer(other.peer.take()[0], **outcome)
        (answer,) = client.peer.take()
        assert set(answer) == {"type", "invocation_id", "function_id"}

    @pytest.mark.parametrize("result", [False, 0, "", [], {}])
    def test_falsy_results_are_results(self, client: Client, other: Client, result: Any) -> None:
        """Only null is left out."""
        other.register("f")
        client.invoke("f")
        other.answer(other.peer.take()[0], result=result)
        assert client.peer.take()[0]["result"] == result

    def test_error_wins_and_is_passed_on(self, client: Client, other: Client) -> None:
        """An error is forwarded as it is, and a result beside it is dropped."""
        other.register("f")
        client.invoke("f")
        error = {"code": "c", "message": "m", "stacktrace": "s"}
        other.answer(other.peer.take()[0], error=error, result=1)
        (answer,) = client.peer.take()
        assert answer["error"] == error
        assert "result" not in answer

    def test_answer_within_the_delivery_counts(self, router: Router, client: Client) -> None:
        """A callee that answers before the caller's frame is done with is heard (E-14)."""

        class Eager(Peer):
            worker: Any = None

            def send(self, frame: JsonObject) -> None:
                if frame["type"] == "invokefunction":
                    answer = {**frame, "type": "invocationresult", "result": 7}
                    router.receive(self.worker, json.dumps(answer))

        peer = Eager()
        peer.worker = router.connect(peer)
        router.pin(peer.worker)
        router.receive(peer.worker, json.dumps({"type": "registerfunction", "id": "f"}))
        assert client.call("f") == 7

    def test_worker_may_call_itself(self, client: Client) -> None:
        """A call to an own function is a call like any other."""
        client.register("f")
        (call,) = client.invoke("f")
        client.router.receive(client.worker, json.dumps({**call, "type": "invocationresult", "result": 1}))
        assert client.peer.take()[0]["result"] == 1

    @pytest.mark.parametrize("keys", [{"invocation_id": None}, {"action": {"type": "void"}}])
    def test_void_calls_get_no_answer(self, client: Client, other: Client, keys: dict[str, Any]) -> None:
        """The callee gets an id all the same; nothing comes back, not even an error."""
        assert client.invoke("missing", **keys) == []
        other.register("f")
        client.invoke("f", **keys)
        (call,) = other.peer.take()
        assert uuid.UUID(call["invocation_id"])
        other.answer(call, result=1)
        assert client.peer.take() == []
        assert client.invoke("engine::baggage::get", {"key": "k"}, **keys) == []

    def test_function_not_found(self, router: Router, client: Client) -> None:
        """The text names the namespace, and those where the id does exist."""
        assert client.call("a::b") == ("function_not_found", "Function a::b not found in namespace default.")
        for namespace in ("y", "x"):
            Client(router, namespace=namespace).register("a::b")
        assert client.call("a::b", namespace="z") == (
            "function_not_found",
            "Function a::b not found in namespace z. It is registered in namespace(s): x, y.",
        )

    def test_builtins_live_in_default(self, client: Client) -> None:
        """Another namespace does not have them."""
        assert client.call("engine::baggage::get", {"key": "k"}, namespace="default") == {"value": None}
        code, message = client.call("engine::baggage::get", {"key": "k"}, namespace="x")
        assert code == "function_not_found"
        assert message.endswith("registered in namespace(s): default.")

    def test_blank_namespace(self, client: Client) -> None:
        """A blank namespace is refused, with a text that names the field."""
        code, message = client.call("f", namespace=" ")
        assert code == "INVALID_NAMESPACE"
        assert message == (
            "`namespace` is empty: it was named and left blank. Give it a name, or omit it to use `default`."
        )

    def test_callee_leaves(self, router: Router, client: Client, other: Client) -> None:
        """Callers of a worker that leaves are told."""
        other.register("f")
        client.invoke("f")
        router.disconnect(other.worker)
        (answer,) = client.peer.take()
        assert answer["error"] == {"code": "invocation_stopped", "message": "Invocation stopped"}

    def test_caller_leaves(self, router: Router, client: Client, other: Client) -> None:
        """The callee is not told, and its late answer goes nowhere."""
        other.register("f")
        client.invoke("f")
        (call,) = other.peer.take()
        router.disconnect(client.worker)
        assert other.peer.take() == []
        other.answer(call, result=1)
        assert client.peer.take() == []

    def test_worker_that_calls_itself_leaves(self, router: Router, client: Client) -> None:
        """Caller and callee in one do not disturb the clean-up."""
        client.register("f")
        client.invoke("f")
        router.disconnect(client.worker)
        assert client.peer.take() == []

    def test_only_the_callee_may_answer(self, client: Client, other: Client, router: Router) -> None:
        """An answer from somebody else, or a second one, is dropped."""
        other.register("f")
        client.invoke("f")
        (call,) = other.peer.take()
        Client(router).answer(call, result="forged")
        assert client.peer.take() == []
        other.answer(call, result=1)
        other.answer(call, result=2)
        assert [answer["result"] for answer in client.peer.take()] == [1]

    def test_id_used_twice(self, router: Router, client: Client, other: Client) -> None:
        """Of two callers with one id the earlier gets an error, the later the result."""
        other.register("f")
        call_id = str(uuid.uuid4())
        client.invoke("f", invocation_id=call_id)
        later = Client(router)
        later.invoke("f", invocation_id=call_id)
        assert client.peer.take()[0]["error"]["code"] == "invocation_error"
        other.answer(other.peer.take()[1], result=1)
        assert later.peer.take()[0]["result"] == 1

    @pytest.mark.parametrize("junk", ["nonsense", '{"type":"x"}', "NaN", "[" * 100_000, b"\xff", ""])
    def test_junk_is_dropped(self, client: Client, junk: str | bytes) -> None:
        """The connection lives on after what does not decode."""
        client.router.receive(client.worker, junk)
        assert client.send(type="ping") == [{"type": "pong"}]


class TestEnqueue:
    """The action that hands a call to a queue provider."""

    ACTION = {"type": "enqueue", "queue": "q"}

    def test_without_provider(self, router: Router, client: Client) -> None:
        """The error names the function that is missing."""
        router.enqueue = None
        code, message = client.call("f", {}, action=self.ACTION)
        assert code == "enqueue_error"
        assert "engine::queue::enqueue" in message
        assert client.invoke("f", {}, action=self.ACTION, invocation_id=None) == []

    @pytest.mark.parametrize("namespace", [None, "default", "shop"])
    def test_with_provider(self, client: Client, other: Client, namespace: Optional[str]) -> None:
        """The provider gets the call as data; the caller gets the receipt."""
        other.register("engine::queue::enqueue")
        assert client.invoke("f", {"a": 1}, action=self.ACTION, namespace=namespace) == []
        (call,) = other.peer.take()
        data = call["data"]
        assert (data["queue"], data["function_id"], data["data"]) == ("q", "f", {"a": 1})
        assert data.get("namespace") == ("shop" if namespace == "shop" else None)
        assert "_caller_worker_id" not in data
        other.answer(call, result=None)
        (answer,) = client.peer.take()
        assert answer["result"] == {"messageReceiptId": data["messageReceiptId"]}
        assert answer["function_id"] == "f"

    def test_provider_fails(self, router: Router, client: Client, other: Client) -> None:
        """Its error is reported inside an ``enqueue_error``; so is its departure."""
        other.register("engine::queue::enqueue")
        client.invoke("f", {}, action=self.ACTION)
        other.answer(other.peer.take()[0], error={"code": "full", "message": "no room"})
        assert client.peer.take()[0]["error"] == {"code": "enqueue_error", "message": "full: no room"}
        client.invoke("f", {}, action=self.ACTION)
        router.disconnect(other.worker)
        assert client.peer.take()[0]["error"]["message"] == "invocation_stopped: Invocation stopped"


class TestBuiltins:
    """Functions of the engine itself."""

    @pytest.mark.parametrize("size", [None, 0, 1, 64, 1024, 5000])
    def test_create_channel(self, client: Client, size: Optional[int]) -> None:
        """Both refs hold the same id and key."""
        refs = client.call("engine::channels::create", {"buffer_size": size})
        writer, reader = refs["writer"], refs["reader"]
        assert (writer.pop("direction"), reader.pop("direction")) == ("write", "read")
        assert writer == reader
        assert set(writer) == {"channel_id", "access_key"}

    @pytest.mark.parametrize("data", [None, {"buffer_size": -1}, {"buffer_size": 1.5}, {"buffer_size": "1"}])
    def test_create_channel_with_wrong_input(self, client: Client, data: Any) -> None:
        """The size must be an integer that is not negative, the input an object."""
        assert client.call("engine::channels::create", data)[0] == "deserialization_error"

    def test_baggage_and_health(self, client: Client) -> None:
        """The diagnostic functions answer in the shape of the real ones."""
        assert client.call("engine::baggage::get_all", {}) == {"baggage": {}}
        assert client.call("engine::baggage::set", {"key": "k", "value": "v"})["success"] is True
        assert client.call("engine::baggage::get", {})[0] == "deserialization_error"
        health = client.call("engine::health::check", {})
        assert (health["status"], health["timestamp"]) == ("healthy", 1700000000500)

    @pytest.mark.parametrize("level", ["trace", "debug", "info", "warn", "error"])
    def test_log(self, client: Client, level: str, caplog: pytest.LogCaptureFixture) -> None:
        """A log call ends in the engine's logger and has no result."""
        caplog.set_level("DEBUG", "iii_sync.engine")
        assert client.call(f"engine::log::{level}", {"message": "hello", "service_name": "s"}) is None
        assert "s: hello" in caplog.messages
        assert client.call(f"engine::log::{level}", {})[0] == "deserialization_error"

    def test_one_that_fails(self, router: Router, client: Client, caplog: pytest.LogCaptureFixture) -> None:
        """Costs nobody a connection: its caller is told, and the log has the rest."""

        def fail(*_: Any) -> JSON:
            raise LookupError("a fault of the engine")

        router.add_builtins([Builtin("engine::broken", "", fail)])
        code, message = client.call("engine::broken")
        assert code == "internal_error"
        assert "engine::broken" in message
        assert "LookupError: a fault of the engine" in caplog.text
        assert client.send(type="ping") == [{"type": "pong"}]


class TestListings:
    """What the engine tells about itself."""

    @pytest.fixture
    def listed(self, router: Router, client: Client) -> Callable[..., list[str]]:
        """Two named workers with functions; a function that lists ids."""
        api, shop = Client(router, resolved=False), Client(router, resolved=False)
        api.announce(name="api", pid=1)
        shop.announce(name="shop", namespace="shop")
        api.register("b::two", description="second", metadata={"k": 1})
        api.register("a::one", request_format={"type": "object"})
        api.register("c::hidden", metadata={"internal": True})
        shop.register("a::one")
        client.register("lone::f")

        def ids(**data: Any) -> list[str]:
            functions = client.call("engine::functions::list", data)["functions"]
            own = {"iii-state", "iii-stream", "iii-pubsub", "iii-queue", "configuration"}
            return [function["function_id"] for function in functions if function["worker_name"] not in own]

        return ids

    def test_functions_are_filtered_and_sorted(self, listed: Callable[..., list[str]]) -> None:
        """Every filter narrows the list."""
        assert listed() == ["a::one", "a::one", "b::two", "lone::f"]
        assert listed(worker="api") == ["a::one", "b::two"]
        assert listed(workers=["api", "shop"], prefix="a::") == ["a::one", "a::one"]
        assert listed(search="SECOND") == ["b::two"]
        assert listed(worker="lone") == ["lone::f"]
        assert "c::hidden" in listed(include_internal=True)
        assert "engine::channels::create" in listed(prefix="engine::", include_internal=True)

    def test_functions_info(self, client: Client, listed: Callable[..., list[str]]) -> None:
        """One function, several, none."""
        assert client.call("engine::functions::info", {"function_id": "a::one"}) == {
            "function_id": "a::one",
            "namespace": "default",
            "worker_name": "api",
            "request_schema": {"type": "object"},
            "registered_triggers": [],
        }
        batch = client.call("engine::functions::info", {"function_ids": ["b::two", "x", "x"]})["functions"]
        assert batch[0]["metadata"] == {"k": 1}
        assert batch[1:] == [{"function_id": "x", "error": "not_found"}]
        info = client.call("engine::functions::info", {"function_id": "a::one", "namespace": "shop"})
        assert info["worker_name"] == "shop"
        assert client.call("engine::functions::info", {"function_id": "x"})[0] == "NOT_FOUND"
        assert client.call("engine::functions::info", {})[0] == "INVALID_ARGUMENTS"
        both = {"function_id": "x", "function_ids": []}
        assert client.call("engine::functions::info", both)[0] == "INVALID_ARGUMENTS"
        many = {"function_ids": [str(number) for number in range(33)]}
        assert client.call("engine::functions::info", many)[0] == "INVALID_ARGUMENTS"

    def test_ambiguous_id(self, router: Router, client: Client) -> None:
        """An id in several namespaces, none of them ``default``, must be named fully."""
        for namespace in ("x", "y"):
            Client(router, namespace=namespace).register("f")
        code, message = client.call("engine::functions::info", {"function_id": "f"})
        assert code == "NOT_FOUND"
        assert "x, y" in message

    def test_workers(self, client: Client, listed: Callable[..., list[str]]) -> None:
        """A worker without a process id is not listed, but can be asked for."""
        workers = client.call("engine::workers::list", {"status": "connected"})["workers"]
        assert [(worker["name"], worker["function_count"]) for worker in workers] == [("api", 3)]
        about = client.call("engine::workers::info", {"name": "shop"})
        assert about["worker"]["namespace"] == "shop"
        assert "pid" not in about["worker"]
        assert [function["function_id"] for function in about["functions"]] == ["a::one"]
        assert client.call("engine::workers::info", {"name": "x"})[0] == "NOT_FOUND"
        assert client.call("engine::workers::list", {"search": "local engine"})["workers"][0]["runtime"] == "engine"
        assert client.call("engine::workers::info", {"name": "iii-engine-functions"})["worker"]["internal"]
