"""The pytest plugin: engines, workers and broken networks for the tests of programs that use iii_sync.

pytest loads it by itself where iii_sync is installed; ``-p no:iii_sync`` leaves it out. Until a test asks for one of
its fixtures it does nothing and imports nothing but this file and the client. The local engine needs the extra:
``pip install "iii_sync[pytest]"``.

======================  =========  ===========================================================================
fixture                 scope      what it is
======================  =========  ===========================================================================
``iii_engine``          session    the engine: ``url``, ``http_url``, ``restart()``, ``stopped()``
``iii_worker``          function   a worker on it
``iii_connect``         function   makes more workers: ``iii_connect(worker_name="other")``
``iii_proxy``           function   a way to the engine that can be cut, frozen, slowed down, and taken away
======================  =========  ===========================================================================

The engine is a local one in a child process, one for each process of pytest-xdist, unless ``--iii-url URL``, the ini
option ``iii_url`` or the environment variable ``III_URL`` names one that runs already, in this order; ``--iii-url
local`` means the local one whatever the others say. Tests on an engine that is shared, by processes of pytest-xdist
too, must not use the same function ids.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Optional

import pytest

if TYPE_CHECKING:
    from .testing import Connect, EngineHandle, FaultProxy
    from .worker import Worker

__all__ = ["iii_connect", "iii_engine", "iii_proxy", "iii_worker"]

_LOCAL = "local"

_passed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("iii_sync")
    for name, what in (("url", "the engine that tests use"), ("http_url", "where that engine serves HTTP triggers")):
        more = ", or 'local' to start one (default: III_URL, else local)" if name == "url" else ""
        group.addoption(f"--iii-{name.replace('_', '-')}", metavar="URL", help=what + more)
        parser.addini(f"iii_{name}", what + more, default="")


def pytest_report_header(config: pytest.Config) -> Optional[str]:
    """Say which engine tests would use, if it is not one of their own."""
    url = _engine_url(config)
    if url is None:
        return None
    from .net.address import redacted

    return f"iii engine: {redacted(url)}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Note which tests have passed: of those that failed open writers are no news."""
    report: pytest.TestReport = (yield).get_result()
    if report.when == "call":
        item.stash[_passed] = report.passed


@pytest.fixture(scope="session")
def iii_engine(pytestconfig: pytest.Config) -> Iterator[EngineHandle]:
    """The engine that this process's tests use: an :class:`iii_sync.testing.EngineHandle`.

    A program that calls ``register_worker()`` without an address finds it by the environment::

        def test_program(iii_engine, monkeypatch):
            monkeypatch.setenv("III_URL", iii_engine.url)

    Blocks: Until the local engine listens, at most 30 seconds.
    Threads: Any.
    """
    from .errors import ConfigurationError
    from .testing import EngineHandle

    try:
        engine = EngineHandle(_engine_url(pytestconfig), _option(pytestconfig, "http_url"))
    except ConfigurationError as error:
        pytest.fail(f"iii_engine: {error}", pytrace=False)
    except ImportError as error:
        if error.name != "aiohttp":
            raise
        pytest.fail(
            'iii_engine: the local engine needs aiohttp: pip install "iii_sync[pytest]", or name an engine that runs '
            "already with --iii-url or III_URL",
            pytrace=False,
        )
    yield engine
    engine.close()


@pytest.fixture
def iii_connect(iii_engine: EngineHandle, request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes workers that are shut down after the test: an :class:`iii_sync.testing.Connect`.

    ``iii_connect(**options)`` connects to ``iii_engine``, ``iii_connect(iii_proxy.url)`` through the proxy. A test that
    passed and has left a channel writer of such a worker open is an error: its stream would have been cut.
    """
    from .testing import Connect

    connect = Connect(iii_engine.url)
    yield connect
    left = connect.close()
    if left and request.node.stash.get(_passed, False):
        names = ", ".join(map(repr, left))
        pytest.fail(
            f"the test has left {len(left)} channel writer{'s' * (len(left) > 1)} open, whose readers see a cut "
            f"stream: {names}; leave `with`, close() or abort() them",
            pytrace=False,
        )


@pytest.fixture
def iii_worker(iii_connect: Connect) -> Worker:
    """A worker on ``iii_engine``, shut down after the test; an error if the test has left a writer of its open.

    For a worker with options of its own write a fixture that returns ``iii_connect(worker_name=…, …)``.
    """
    return iii_connect()


@pytest.fixture
def iii_proxy(iii_engine: EngineHandle) -> Iterator[FaultProxy]:
    """A way to ``iii_engine`` that a test can break: an :class:`iii_sync.testing.FaultProxy`.

    Nothing breaks for workers that do not connect through it. Skips the test if the engine is at a ``wss://`` address.
    """
    from .testing import FaultProxy

    if iii_engine.url.startswith("wss:"):
        pytest.skip("iii_proxy cannot stand in front of an engine that speaks TLS")
    with FaultProxy(iii_engine.url) as proxy:
        yield proxy


def _engine_url(config: pytest.Config) -> Optional[str]:
    """Return the address of the engine that runs already, if one is named."""
    url = _option(config, "url") or os.environ.get("III_URL", "").strip()
    return None if url in ("", _LOCAL) else url


def _option(config: pytest.Config, name: str) -> str:
    """Return an option of the command line, else of the ini file, else nothing."""
    return str(config.getoption(f"iii_{name}") or config.getini(f"iii_{name}")).strip()
