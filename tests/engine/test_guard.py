"""Guarded listeners without sockets: filters, configuration, hooks that take their time, limits."""

from __future__ import annotations

import json
from typing import Any, Optional

import pytest

from iii_sync.engine import Exposed, Guard, LocalEngine
from iii_sync.engine.guard import fits
from iii_sync.engine.rights import Rights, granted, unasked
from iii_sync.engine.router import MAX_HELD, Router

from .clients import Client, Peer

GUARD = Guard(
    auth_function_id="auth",
    expose_functions=["open::*", Exposed("engine::functions::info")],
    on_function_registration_function_id="hook",
)


class Guest(Client):
    """A worker behind a guard."""

    def __init__(self, router: Router, rights: Rights) -> None:
        self.router = router
        self.peer = Peer()
        self.worker = router.connect(self.peer, "127.0.0.1", rights)
        self.peer.take()
        assert self.announce() == {"success": True}


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("*", "", True),
        ("a*c", "abbc", True),
        ("a*c", "abcd", False),
        ("a.c", "abc", False),
        ("a*", "a\nb", True),
        ("[a]?", "[a]?", True),
        ("a", "ab", False),
        ("*::b*", "a::b::c", True),
    ],
)
def test_patterns(pattern: str, text: str, expected: bool) -> None:
    """Only the star is special."""
    assert fits(pattern, text) is expected


@pytest.mark.parametrize(
    ("exposed", "metadata", "expected"),
    [
        (Exposed(metadata={"a": 1}), {"a": 1, "b": 2}, True),
        (Exposed(metadata={"a": 1}), {"a": True}, False),
        (Exposed(metadata={"a": None}), {}, False),
        (Exposed(metadata={"a": 'match("x*")'}), {"a": "xy"}, True),
        (Exposed(metadata={"a": "match('x*')"}), {"a": 1}, False),
        (Exposed("f", metadata={"a": 1}), {"a": 1}, True),
        (Exposed("g", metadata={"a": 1}), {"a": 1}, False),
        (Exposed("f"), None, True),
        (Exposed("f", namespace="shop"), None, False),
    ],
)
def test_filters(exposed: Exposed, metadata: Any, expected: bool) -> None:
    """By name, metadata and namespace."""
    assert exposed.covers("f", "default", metadata) is expected


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ([], "must be an object"),
        ({"ports": 1}, "has no ports"),
        ({"port": "1"}, "must be an integer"),
        ({"port": True}, "must be an integer"),
        ({"port": 65536}, "port=65536 is no port: .* 65535"),
        ({"port": -1}, "port=-1 is no port"),
        ({"auth_function_id": 1}, "auth_function_id=1 must be text"),
        ({"expose_functions": "open::*"}, "must be a list"),
        ({"expose_functions": {"match": "a"}}, "must be a list"),
        ({"expose_functions": [1]}, "1 in expose_functions must be text"),
        ({"expose_functions": [{"matches": "a"}]}, "'matches': 'a'} in expose_functions must be text"),
        ({"expose_functions": [{}]}, "needs a pattern"),
        ({"expose_functions": [{"match": 5}]}, "match=5 .* must be text"),
        ({"expose_functions": [{"metadata": [1]}]}, r"metadata=\[1\] .* must be an object"),
        ({"expose_functions": [{"match": "a", "namespace": None}]}, "namespace=None .* must be text"),
    ],
)
def test_configurations_that_make_no_sense(config: Any, reason: str) -> None:
    """Are refused with what is wrong."""
    with pytest.raises(ValueError, match=reason):
        Guard.from_json(config)


def test_configurations_travel() -> None:
    """A guard is the same after its way to another process."""
    guard = Guard(port=1, auth_function_id="a", expose_functions=["b", Exposed("c", {"d": 1}, "e")])
    assert Guard.from_json(json.loads(json.dumps(guard.to_json()))).to_json() == guard.to_json()
    with pytest.raises(TypeError, match="list of patterns"):
        Guard(expose_functions="open::*")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {"allowed_functions": "f"},
        {"forbidden_functions": [1]},
        {"allowed_trigger_types": 3},
        {"namespaces": []},
        {"namespaces": {"a": "b"}},
        {"function_registration_prefix": 1},
        {"allow_function_registration": "yes"},
    ],
)
def test_answers_that_make_no_sense(answer: Any) -> None:
    """Let nobody in."""
    with pytest.raises(ValueError, match="no result|invalid type"):
        granted(GUARD, answer)


def test_what_is_open_without_a_filter() -> None:
    """Everything, unless somebody is asked about something; middleware alone closes nothing."""
    assert unasked(Guard(middleware_function_id="m")).refusal("f", "default", None) is None
    hook = Guard(on_trigger_registration_function_id="t")
    for guard in (Guard(auth_function_id="a"), hook, Guard(expose_functions=[])):
        assert unasked(guard).refusal("f", "default", None) is not None


class TestHooks:
    """A function that is asked about registrations, and takes its time."""

    @pytest.fixture
    def owner(self, router: Router) -> Client:
        owner = Client(router)
        owner.register("hook")
        return owner

    @pytest.fixture
    def guest(self, router: Router) -> Guest:
        return Guest(router, granted(GUARD, {"allow_trigger_type_registration": True}))

    def asked(self, owner: Client, function_id: Optional[str]) -> Any:
        """The question that has come, the only one."""
        frames = [frame for frame in owner.peer.take() if frame["type"] == "invokefunction"]
        assert [frame["data"]["function_id"] for frame in frames] == ([] if function_id is None else [function_id])
        return frames[0] if frames else None

    def answer(self, owner: Client, question: dict[str, Any], **outcome: Any) -> None:
        """Answer, and leave what comes of it where it is."""
        frame = {"type": "invocationresult", "function_id": "hook", "invocation_id": question["invocation_id"]}
        owner.router.receive(owner.worker, json.dumps({**frame, **outcome}))

    def test_the_next_frames_wait(self, owner: Client, guest: Guest) -> None:
        """In their order; answers do not."""
        guest.register("open::a")
        first = self.asked(owner, "open::a")
        guest.register("b")
        assert guest.invoke("engine::functions::info", {"function_id": "open::a"}) == []
        assert guest.send(type="ping") == [{"type": "pong"}]
        self.asked(owner, None)
        assert "open::a" not in {name for _, name in guest.router.functions}
        self.answer(owner, first, result={})
        second = self.asked(owner, "b")
        assert "open::a" in {name for _, name in guest.router.functions}
        assert guest.peer.take() == []
        self.answer(owner, second, error={"code": "no", "message": "not b"})
        (answer,) = guest.peer.take()
        assert answer["result"]["function_id"] == "open::a"
        assert "b" not in {name for _, name in guest.router.functions}

    def test_one_that_leaves(self, owner: Client, guest: Guest) -> None:
        """Refuses; a guest that has left registers nothing."""
        guest.register("a")
        guest.register("b")
        owner.router.disconnect(owner.worker)
        assert not guest.router.functions
        owner = Client(guest.router)
        owner.register("hook")
        guest.register("c")
        question = self.asked(owner, "c")
        guest.router.disconnect(guest.worker)
        self.answer(owner, question, result={})
        assert {name for _, name in owner.router.functions} == {"hook"}

    def test_its_own(self, router: Router) -> None:
        """A guest may serve the hook that is asked about it: its answers are not held."""
        guest = Guest(router, Rights(Guard(on_function_registration_function_id="hook")))
        guest.register("early")
        assert not router.functions  # nobody was there to ask
        guest.worker.rights = None
        guest.register("hook")
        guest.worker.rights = Rights(Guard(on_function_registration_function_id="hook"))
        (question,) = guest.register("mine")
        guest.answer(question, result={})
        assert {name for _, name in router.functions} == {"hook", "mine"}

    def test_a_guest_that_does_not_wait(self, owner: Client, guest: Guest) -> None:
        """Is dropped before it fills the memory."""
        guest.register("a")
        for number in range(MAX_HELD):
            guest.register(f"f{number}")
        assert not guest.peer.dropped
        guest.register("one more")
        assert guest.peer.dropped and guest.worker.gone
        self.asked(owner, "a")
        assert owner.call("engine::functions::info", {"function_id": "hook"})["function_id"] == "hook"


@pytest.mark.parametrize("in_process", [True, False])
def test_a_guard_in_a_thread_and_in_a_process(in_process: bool) -> None:
    """Both have one, or say that they have none."""
    with LocalEngine(guard=Guard(auth_function_id="a"), in_process=in_process) as engine:
        assert engine.guarded_url != engine.url
    with LocalEngine(in_process=in_process) as engine, pytest.raises(RuntimeError, match="no guarded listener"):
        engine.guarded_url  # noqa: B018
