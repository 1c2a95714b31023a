"""The pytest plugin: suites of users, each run by a pytest of its own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

#: What a user's pytest runs without.
_PLAIN = ("-p", "no:randomly", "-p", "no:cacheprovider", "-q")


@pytest.fixture(autouse=True)
def _no_engine_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("III_URL", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


def run(pytester: pytest.Pytester, source: str, *arguments: str) -> pytest.RunResult:
    """Run a test file."""
    pytester.makepyfile(source)
    return pytester.runpytest_subprocess(*_PLAIN, "-W", "error", *arguments, timeout=60)


def test_it_costs_nothing_unused(pytester: pytest.Pytester) -> None:
    """Nothing heavy is imported, no thread runs, until a fixture is asked for."""
    result = run(
        pytester,
        """
        import sys, threading

        def test_nothing(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("iii_sync")
            assert "iii_sync.pytest_plugin" in sys.modules
            heavy = ("aiohttp", "websocket", "asyncio", "numpy", "iii_sync.engine", "iii_sync.testing")
            assert not [name for name in sys.modules if name in heavy]
            assert threading.active_count() == 1
        """,
        "-p",
        "no:xdist",
        "-p",
        "no:anyio",
    )
    result.assert_outcomes(passed=1)


#: What every engine can do, by way of each fixture.
_SUITE = """
    import threading
    import uuid

    import pytest

    import iii_sync
    from iii_sync.testing import Connect, EngineHandle, FaultProxy

    seen = []

    def reconnected(worker):
        # Watches from now on for a reconnect; the returned call waits for it.
        lost, back = threading.Event(), threading.Event()
        worker.add_connection_state_listener(
            lambda state: back.set() if state == "connected" and lost.is_set() else lost.set()
        )
        return lambda: back.wait(30)

    @pytest.fixture
    def unique():
        return uuid.uuid4().hex

    def test_a_worker(iii_engine: EngineHandle, iii_worker: iii_sync.Worker, unique) -> None:
        assert iii_worker.get_address() == iii_engine.url
        iii_worker.register_function(unique, lambda data: data + 1)
        assert iii_worker.trigger(unique, 1) == 2
        seen.append(iii_worker)

    def test_it_is_shut_down_and_another_is_made(iii_worker) -> None:
        with pytest.raises(iii_sync.errors.WorkerClosedError):
            seen[0].trigger("anything")
        assert iii_worker is not seen[0]

    def test_more_workers(iii_worker, iii_connect: Connect, unique) -> None:
        peer = iii_connect(worker_name="peer-" + unique)
        assert peer.worker_name == "peer-" + unique
        peer.register_function(unique, lambda data: sum(map(len, data["reader"])))
        with iii_worker.open(unique, "wb") as f:
            f.write(bytes(100000))
        assert f.result == 100000

    def test_the_environment(iii_engine, monkeypatch) -> None:
        monkeypatch.setenv("III_URL", iii_engine.url)
        with iii_sync.register_worker() as worker:
            assert worker.get_address() == iii_engine.url

    def test_the_connection_is_dropped(iii_proxy: FaultProxy, iii_connect, unique) -> None:
        worker = iii_connect(iii_proxy.url)
        worker.register_function(unique, lambda data: "back")
        back = reconnected(worker)
        assert iii_proxy.cut() == 1
        assert back()
        assert worker.trigger(unique) == "back"

    def test_the_engine_goes_away_and_comes_back(iii_proxy, iii_connect, unique) -> None:
        worker = iii_connect(iii_proxy.url)
        worker.register_function(unique, lambda data: "back")
        back = reconnected(worker)
        with iii_proxy.down():
            with pytest.raises((iii_sync.errors.ConnectionLostError, TimeoutError)):
                worker.trigger(unique, timeout=0.3)
        assert back()
        assert worker.trigger(unique) == "back"
"""


def test_a_suite_on_its_own_engine(pytester: pytest.Pytester) -> None:
    """Started by the first fixture, gone with the session."""
    result = run(
        pytester,
        _SUITE
        + """
    def test_it_is_local(iii_engine) -> None:
        assert iii_engine.is_local

    def test_http(iii_engine, iii_worker) -> None:
        import urllib.request

        iii_worker.http("GET", "/hello")(lambda request: "hello")
        with urllib.request.urlopen(iii_engine.http_url + "/hello", timeout=30) as answer:
            assert answer.read() == b"hello"

    def test_a_restart(iii_engine, iii_worker, unique) -> None:
        iii_worker.register_function(unique, lambda data: "again")
        url, http_url = iii_engine.url, iii_engine.http_url
        iii_worker.state.set(unique, "key", 1)
        back = reconnected(iii_worker)
        iii_engine.restart()
        assert back()
        assert (iii_engine.url, iii_engine.http_url) == (url, http_url)
        assert iii_worker.trigger(unique) == "again"
        assert iii_worker.state.get(unique, "key") is None

    def test_it_is_stopped(iii_engine) -> None:
        with iii_engine.stopped():
            with pytest.raises(iii_sync.errors.ConnectFailedError):
                iii_sync.register_worker(iii_engine.url)
        iii_sync.register_worker(iii_engine.url).shutdown()

    def test_the_end(iii_engine) -> None:
        with open("url", "w") as file:
            file.write(iii_engine.url)
    """,
    )
    result.assert_outcomes(passed=11)
    import iii_sync
    import iii_sync.errors

    with pytest.raises(iii_sync.errors.ConnectFailedError):
        iii_sync.register_worker((pytester.path / "url").read_text())


def test_a_suite_on_a_given_engine(pytester: pytest.Pytester, engine_url: str, engine_http_url: str) -> None:
    """The same tests; what needs an engine of their own is skipped with a reason."""
    result = run(
        pytester,
        _SUITE
        + """
    def test_it_is_not_local(iii_engine) -> None:
        assert not iii_engine.is_local

    def test_http(iii_engine) -> None:
        assert iii_engine.http_url.startswith("http://")

    def test_a_restart(iii_engine) -> None:
        iii_engine.restart()
    """,
        f"--iii-url={engine_url}",
        f"--iii-http-url={engine_http_url}",
        "-rs",
    )
    result.assert_outcomes(passed=8, skipped=1)
    result.stdout.fnmatch_lines([f"*the engine at {engine_url} is not ours to stop*"])


def test_which_engine(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line wins over the ini file, that over the environment."""
    source = "def test_url(iii_engine):\n    print('on', iii_engine.url, iii_engine.is_local)"

    def on(*arguments: str) -> str:
        result = run(pytester, source, "-s", *arguments)
        result.assert_outcomes(passed=1)
        return str(result.stdout)

    monkeypatch.setenv("III_URL", "ws://env.test:1")
    assert "on ws://env.test:1 False" in on()
    pytester.makeini("[pytest]\niii_url = ws://ini.test:1?token=secret")
    assert "on ws://ini.test:1?token=secret False" in on()
    assert "on ws://127.0.0.1:" in on("--iii-url=local")


def test_the_header_says_which(pytester: pytest.Pytester) -> None:
    """Without what is secret in it, and nothing where tests start their own."""
    pytester.makepyfile("def test_it(): pass")
    arguments = ("-p", "no:cacheprovider", "-p", "no:xdist", "--collect-only")
    header = str(pytester.runpytest_subprocess(*arguments, "--iii-url=ws://there.test:1?token=secret").stdout)
    assert "iii engine: ws://there.test:1?…" in header and "secret" not in header
    assert "iii engine" not in str(pytester.runpytest_subprocess(*arguments).stdout)


def test_an_address_that_is_none(pytester: pytest.Pytester) -> None:
    """One line that says so."""
    result = run(pytester, "def test_it(iii_worker): pass", "--iii-url=http://there.test")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["iii_engine: not an address of an engine: http://there.test*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_without_the_extra(pytester: pytest.Pytester) -> None:
    """One line that says what to install; a given engine needs no extra."""
    pytester.makeconftest("import sys\nsys.modules['aiohttp'] = None")
    result = run(pytester, "def test_it(iii_worker): pass", "-p", "no:xdist")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(['iii_engine: *pip install "iii_sync[[]pytest]"*'])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_given_engine_needs_no_extra(pytester: pytest.Pytester, local_engine_url: str) -> None:
    """Workers, and the proxy."""
    pytester.makeconftest("import sys\nsys.modules['aiohttp'] = None")
    source = "def test_it(iii_proxy, iii_connect): iii_connect(iii_proxy.url)"
    run(pytester, source, f"--iii-url={local_engine_url}").assert_outcomes(passed=1)


def test_an_open_writer_is_an_error(pytester: pytest.Pytester, engine_url: str) -> None:
    """Of a test that has passed; that one itself stays passed. One that is ended, aborted, or not begun is none."""
    result = run(
        pytester,
        """
        import pytest

        def begun(worker):
            channel = worker.create_channel()
            channel.writer.write(b"some")
            return channel

        def test_open(iii_worker):
            test_open.kept = begun(iii_worker)

        def test_open_and_failed(iii_worker):
            test_open_and_failed.kept = begun(iii_worker)
            assert False, "itself"

        def test_closed(iii_worker):
            begun(iii_worker).writer.close()

        def test_aborted(iii_worker):
            begun(iii_worker).writer.abort()

        def test_not_begun(iii_worker):
            test_not_begun.kept = iii_worker.create_channel()
        """,
        f"--iii-url={engine_url}",
    )
    result.assert_outcomes(passed=4, failed=1, errors=1)
    result.stdout.fnmatch_lines(["the test has left 1 channel writer open*<iii_sync.ChannelWriter *"])


def test_a_handler_may_end_its_stream(pytester: pytest.Pytester, engine_url: str) -> None:
    """The test is over before the handler is: its writer is not forgotten."""
    source = """
        import threading, uuid

        def test_it(iii_worker):
            function, begun, over = uuid.uuid4().hex, threading.Event(), threading.Event()

            def handler(data):
                with data["writer"] as f:
                    f.write(b"some")
                    begun.set()
                    over.wait(0.5)

            iii_worker.register_function(function, handler)
            channel = iii_worker.create_channel()
            iii_worker.submit(function, {"writer": channel.writer_ref})
            assert begun.wait(30)
        """
    run(pytester, source, f"--iii-url={engine_url}").assert_outcomes(passed=1)


def test_each_process_has_its_own_engine(pytester: pytest.Pytester) -> None:
    """Under pytest-xdist."""
    result = run(
        pytester,
        """
        import time
        from pathlib import Path

        import pytest

        @pytest.mark.parametrize("number", [0, 1])
        def test_it(number, iii_engine, iii_worker, worker_id):
            Path(f"url-{worker_id}").write_text(iii_engine.url)
            end = time.monotonic() + 30  # so that no process takes both
            while len(list(Path().glob("url-*"))) < 2:
                assert time.monotonic() < end
                time.sleep(0.01)
        """,
        "-n",
        "2",
    )
    result.assert_outcomes(passed=2)
    assert len({path.read_text() for path in pytester.path.glob("url-*")}) == 2
