"""What an engine lets a worker do: who is let in, what it may call, what it may register."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from iii_sync import ReconnectionConfig, TriggerAction, Worker, errors, register_worker

from ..support.engines import RealEngine

WAIT = 20.0

Unique = Callable[[str], str]

#: What the guard says to whom.
RIGHTS: dict[str, dict[str, Any]] = {
    "anybody": {},
    "caller": {"allow_function_registration": False},
    "prefixed": {"function_registration_prefix": "theirs"},
    "without-open": {"forbidden_functions": ["open::forbidden"]},
    "of-shop": {"namespaces": {"shop": ["*"]}},
}


class Guard:
    """The worker that the engine asks."""

    def __init__(self, engine: RealEngine) -> None:
        self.engine = engine
        self.worker = register_worker(engine.url)
        self.asked: list[dict[str, Any]] = []
        self.closed = False
        self.worker.register_function("guard::auth", self.auth)
        self.worker.register_function("guard::registering", self.registering)

    def auth(self, data: Any) -> Any:
        self.asked.append(data)
        who = str(data["headers"].get("authorization")).partition(" ")[2]
        if self.closed or who not in RIGHTS:
            raise errors.InvocationError("not_you", "who are you?")
        return RIGHTS[who]

    def registering(self, data: Any) -> Any:
        if "refused" in data["function_id"]:
            raise errors.InvocationError("no", "not this one")
        return {}

    def guest(self, who: str, **options: Any) -> Worker:
        """A worker that comes through the guarded listener."""
        return register_worker(self.engine.guarded_url, headers={"Authorization": f"Bearer {who}"}, **options)


@pytest.fixture
def guard(guarded_engine: RealEngine) -> Iterator[Guard]:
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
        monkeypatch.setattr("iii_sync.session._REFUSED_FOR", 0.3)
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
