"""Fixtures: an engine and the process that stores files, shared by tests that leave them as they are; sites on them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, NamedTuple, Protocol

import pytest

from ..support.engines import REAL_ENGINE_VARIABLE, killable_engine, real_engine_program
from ..support.gunicorn import Gunicorn
from ..support.process import ROOT, WAIT

EXAMPLES = ROOT / "examples"

#: Where an application is, and how gunicorn is to name it.
APPLICATIONS = {
    "flask": (EXAMPLES / "flask_upload", "flask_app:app"),
    "django": (EXAMPLES / "django_upload", "django_app:application"),
}


@contextlib.contextmanager
def stored_by(url: str, store: Path, **variables: str) -> Iterator[None]:
    """Run the process that stores files."""
    environment = dict(os.environ, III_URL=url, PYTHONPATH=str(ROOT), PYTHONWARNINGS="error", FILES_STORE=str(store))
    environment.update(variables)
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "file_store" / "files.py")],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        alarm = threading.Timer(WAIT, process.kill)
        alarm.start()
        assert process.stdout.readline().startswith("storing files in ")
        alarm.cancel()
        yield
        process.terminate()
        assert process.wait(WAIT) == 0
    finally:
        process.kill()
        process.wait(WAIT)
        if process.stdout is not None:
            process.stdout.close()


class Files(NamedTuple):
    """An engine, and where the process on it stores files."""

    url: str
    store: Path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Files]]:
    """Gives an engine of a kind in a process of its own, with files.py beside it; each is started once."""
    running: dict[str, Files] = {}
    with contextlib.ExitStack() as stack:

        def of(kind: str) -> Files:
            if kind == "real" and real_engine_program() is None:
                pytest.skip(f"the real engine is not installed: no `iii`, and {REAL_ENGINE_VARIABLE} is not set")
            if kind not in running:
                url = stack.enter_context(killable_engine(kind)).url
                store = tmp_path_factory.mktemp(f"store-{kind}")
                stack.enter_context(stored_by(url, store))
                running[kind] = Files(url, store)
            return running[kind]

        yield of


class Serve(Protocol):
    """Starts an application under gunicorn."""

    def __call__(self, name: str, url: str, *arguments: str, **variables: str) -> Gunicorn: ...


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts an application; one that the test has not stopped is killed after it."""
    sites: list[Gunicorn] = []

    def serve(name: str, url: str, *arguments: str, **variables: str) -> Gunicorn:
        folder, application = APPLICATIONS[name]
        directory = tmp_path / f"site-{len(sites)}"
        directory.mkdir()
        site = Gunicorn(application, directory, {"III_URL": url, **variables}, "--pythonpath", str(folder), *arguments)
        sites.append(site)
        site.wait_until_listening()
        return site

    yield serve
    for site in sites:
        site.kill()
