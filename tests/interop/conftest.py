"""Fixtures: one peer of each kind on each engine, for the whole run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Callable

import pytest

from ..support.engines import EngineAddress
from .environments import NoEnvironment
from .peers import Peer, running_peer

#: The namespace that a second worker of a peer lives in.
NAMESPACE = "interop-elsewhere"

PeerOf = Callable[[str], Peer]


@pytest.fixture(scope="session")
def _peers(_engines: Callable[[str], EngineAddress]) -> Iterator[Callable[[str, str], Peer]]:
    peers: dict[tuple[str, str], Peer] = {}
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:

        def peer_of(engine: str, name: str) -> Peer:
            if name in missing:
                pytest.skip(missing[name])
            known = peers.get((engine, name))
            # One that has died or was killed has failed its test; the others get a new one.
            if known is None or not known.is_alive():
                try:
                    peer = stack.enter_context(running_peer(name, _engines(engine).url, f"interop::{name}", NAMESPACE))
                except NoEnvironment as exc:
                    missing[name] = str(exc)
                    pytest.skip(str(exc))
                peer.may_lose_answers = engine == "real"
                peers[engine, name] = peer
            return peers[engine, name]

        yield peer_of


@pytest.fixture
def peer_of(engine_kind: str, _peers: Callable[[str, str], Peer]) -> PeerOf:
    """The peer of that name on the engine; the test is skipped where its SDK cannot be had."""
    return lambda name: _peers(engine_kind, name)
