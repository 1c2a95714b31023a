"""Fixtures of the tests that need no sockets."""

from __future__ import annotations

import pytest

from iii_sync.engine.hub import Hub
from iii_sync.engine.router import Router
from iii_sync.engine.services import install

from .clients import Client, Clock


@pytest.fixture
def clock() -> Clock:
    """The time of the router."""
    return Clock()


@pytest.fixture
def router(clock: Clock) -> Router:
    """A router with all services."""
    router = Router(now=clock.time, later=clock.later)
    install(router, Hub(now=lambda: 0.0))
    return router


@pytest.fixture
def client(router: Router) -> Client:
    """A worker in ``default``."""
    return Client(router)


@pytest.fixture
def other(router: Router) -> Client:
    """Another worker in ``default``."""
    return Client(router)
