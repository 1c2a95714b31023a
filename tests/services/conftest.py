"""Engines with guarded listeners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from ..support.engines import LOCAL_GUARD, RealEngine


class GuardedEngine(NamedTuple):
    """Where an engine listens, without a guard, with one, and with middleware."""

    url: str
    guarded_url: str
    between_url: str
    """Another engine's, on the local one: it has one guarded listener only."""
    between_own_url: str


@pytest.fixture(scope="session")
def _guarded_local() -> Iterator[GuardedEngine]:
    from iii_sync.engine import Guard, LocalEngine

    between = Guard(middleware_function_id="guard::between")
    with LocalEngine(http_port=0, guard=Guard.from_json(LOCAL_GUARD)) as engine, LocalEngine(guard=between) as other:
        yield GuardedEngine(engine.url, engine.guarded_url, other.guarded_url, other.url)


@pytest.fixture
def guarded_engine(request: pytest.FixtureRequest, engine_kind: str) -> GuardedEngine:
    """An engine with a listener that lets only some in; the test runs once on each kind."""
    if engine_kind == "local":
        local: GuardedEngine = request.getfixturevalue("_guarded_local")
        return local
    real: RealEngine = request.getfixturevalue("_guarded")
    return GuardedEngine(real.url, real.guarded_url, real.between_url, real.url)
