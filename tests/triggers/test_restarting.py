"""Triggers and trigger types when the connection, or the engine, comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iii_sync import register_worker

from ..support.engines import EngineProgram, killable_engine
from ..support.waiting import wait_until
from .support import Heard, Hooks, assert_active


@pytest.fixture
def engine(engine_kind: str) -> Iterator[EngineProgram]:
    """An engine of the test's own."""
    with killable_engine(engine_kind) as engine:
        yield engine


def test_an_engine_is_killed_and_started_again(engine: EngineProgram, engine_kind: str) -> None:
    """The provider hears that triggers go and come again; those taken back meanwhile do not; firing works."""
    hooks = Hooks()
    with register_worker(engine.url) as provider, register_worker(engine.url) as user:
        provider.register_trigger_type("hook", "d", hooks)
        heard = Heard(user, "heard")
        kept = user.register_trigger("hook", "heard", {"a": 1}, metadata={"m": 1}, trigger_id="kept")
        gone = user.register_trigger("hook", "heard", {"a": 2})
        topic = user.register_trigger("subscribe", "heard", {"topic": "t"})
        assert [hooks.next()[0] for _ in range(2)] == ["come", "come"]
        engine.kill()
        assert {hooks.next()[1].id for _ in range(2)} == {kept.id, gone.id}
        wait_until(lambda: user.get_connection_state() == "reconnecting", "the loss")
        gone.unregister()
        engine.start()
        what, config = hooks.next()
        assert (what, config.id, config.config, config.metadata) == ("come", "kept", {"a": 1}, {"m": 1})
        wait_until(lambda: user.get_connection_state() == "connected", "the user")
        assert_active(kept, engine_kind)
        assert topic.is_active() and not gone.is_active()
        provider.trigger(config.function_id, "fired", metadata=config.metadata)
        assert heard.next() == ("fired", {"m": 1})
        provider.trigger("publish", {"topic": "t", "data": "published"})
        assert heard.next()[0] == "published"
        assert hooks.told.empty() and heard.calls.empty()
