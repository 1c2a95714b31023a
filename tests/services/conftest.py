"""Engines that keep logs; the real one has a guarded listener besides."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support.engines import RealEngine, real_engine_program


@pytest.fixture(scope="session")
def _guarded() -> Iterator[RealEngine]:
    program = real_engine_program()
    assert program is not None
    engine = RealEngine(program, guarded=True)
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def logging_engine_url(request: pytest.FixtureRequest, engine_kind: str) -> str:
    """The URL of an engine that keeps logs; the test runs once on each kind."""
    if engine_kind == "local":
        url: str = request.getfixturevalue("local_engine_url")
        return url
    guarded: RealEngine = request.getfixturevalue("_guarded")
    return guarded.url


@pytest.fixture
def guarded_engine(request: pytest.FixtureRequest) -> RealEngine:
    """The real engine with a listener that lets only some in; the local one has none."""
    if real_engine_program() is None:
        pytest.skip("the real engine is not installed")
    engine: RealEngine = request.getfixturevalue("_guarded")
    return engine
