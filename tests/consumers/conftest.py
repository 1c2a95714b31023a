"""Fixtures: the peer process, one for each engine and run; and the files that are sent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from iii_sync import Worker

from .corpus import Corpus
from .remote import Remote, running_peer
from .web import Web


@pytest.fixture(scope="session")
def _peers(_engines: Callable[[str], str]) -> Iterator[Callable[[str], None]]:
    """One peer process for each engine, started when first asked for."""
    running: set[str] = set()
    with contextlib.ExitStack() as stack:

        def run_on(url: str) -> None:
            if url not in running:
                stack.enter_context(running_peer(url))
                running.add(url)

        yield run_on


@pytest.fixture
def remote(engine_url: str, worker: Worker, _peers: Callable[[str], None], tmp_path: Path) -> Iterator[Remote]:
    """Sends and receives in another process, on each engine."""
    _peers(engine_url)
    remote = Remote(worker, tmp_path)
    yield remote
    remote.finish()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Real files of 8 MiB and more, each made when first asked for."""
    return Corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def web(tmp_path: Path, corpus: Corpus) -> Iterator[Web]:
    """A plain HTTP server on loopback."""
    with Web(tmp_path, corpus.directory) as web:
        yield web
