"""LocalEngine's life: starting, stopping, failing, forking; in a thread and in a child process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket

from iii_sync import errors, register_worker
from iii_sync.engine import LocalEngine
from iii_sync.engine.main import run

from ..support.engines import free_ports
from .peers import connect, end_url, raw, receive_frame, worker

HOME = str(Path(__file__).resolve().parents[2])
BROKEN = (ConnectionError, websocket.WebSocketException)
posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and fork")


@pytest.fixture(params=["thread", "process"])
def engine(request: pytest.FixtureRequest) -> Iterator[LocalEngine]:
    """An engine of either kind that was not started yet."""
    engine = LocalEngine(in_process=request.param == "thread", timeout=30)
    yield engine
    engine.stop()


class TestHttpPort:
    """A second port, for HTTP triggers."""

    @pytest.mark.parametrize("in_process", [True, False])
    def test_serves_http(self, in_process: bool) -> None:
        """Its address is known once the engine runs."""
        with LocalEngine(http_port=0, in_process=in_process, timeout=30) as engine:
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{engine.http_url}/nowhere", timeout=30)
        with pytest.raises(RuntimeError, match="not running"):
            _ = engine.http_url

    def test_none_by_default(self, engine: LocalEngine) -> None:
        """Without one there is no address, and the error says how to get one."""
        with engine.start(), pytest.raises(RuntimeError, match="http_port=0"):
            _ = engine.http_url

    @pytest.mark.parametrize("in_process", [True, False])
    def test_busy(self, in_process: bool, busy_port: int) -> None:
        """A port that is taken is an error of the start, and the other one is free again."""
        (port,) = free_ports(1)
        engine = LocalEngine(port=port, http_port=busy_port, in_process=in_process, timeout=30)
        with pytest.raises(OSError, match=str(busy_port)):
            engine.start()
        socket.create_server(("127.0.0.1", port)).close()


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def script(source: str, *options: str) -> subprocess.Popen[str]:
    """Start a script that finds the package, with warnings as errors."""
    environment = {**os.environ, "PYTHONPATH": HOME}
    return subprocess.Popen(
        [sys.executable, "-W", "error", *options, "-c", textwrap.dedent(source)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )


@pytest.mark.parametrize("name", ["port", "http_port", "stream_port"])
@pytest.mark.parametrize("port", [65536, 99999, -1, "1", 1.0, True])
def test_ports_that_are_none(name: str, port: Any) -> None:
    """Are refused, not taken modulo 65,536."""
    with pytest.raises((TypeError, ValueError), match=f"^{name}={port!r} (is no port|must be an integer)"):
        LocalEngine(**{name: port})


class TestLife:
    """Both kinds behave the same."""

    def test_serves_between_start_and_stop(self, engine: LocalEngine) -> None:
        """A worker can connect while it runs and not after."""
        assert not engine.running
        with engine as entered:
            assert entered is engine
            assert engine.running
            assert engine.url == f"ws://127.0.0.1:{engine.port}"
            assert engine.url in repr(engine)
            with worker(engine.url) as client:
                client.sync()
            url = engine.url
        assert not engine.running
        assert "not running" in repr(engine)
        with pytest.raises(ConnectionRefusedError):
            websocket.create_connection(url, timeout=5)
        with pytest.raises(RuntimeError, match="not running"):
            _ = engine.url

    def test_starting_and_stopping_again(self, engine: LocalEngine) -> None:
        """Twice in a row does nothing; a stopped engine can be started again."""
        engine.stop()
        port = engine.start().port
        assert engine.start().port == port
        engine.stop()
        engine.stop()
        with engine, worker(engine.url) as client:
            client.sync()

    def test_port_in_use(self, engine: LocalEngine, busy_port: int) -> None:
        """The error names host and port, and the engine is as if it was never started."""
        taken = LocalEngine(port=busy_port, in_process="thread" in repr(engine), timeout=30)
        with pytest.raises(OSError, match=f"127.0.0.1 port {busy_port}"):
            taken.start()
        assert not taken.running
        taken.stop()

    def test_stop_with_open_connections(self, engine: LocalEngine) -> None:
        """Workers, waiting readers and blocked writers are dropped, and nothing hangs."""
        engine.start()
        url = engine.url
        with worker(url) as client:
            writer_ref, _ = client.create_channel()
            _, reader_ref = client.create_channel()
            with connect(end_url(url, reader_ref)) as reader, connect(end_url(url, writer_ref)) as writer:
                raw(writer).settimeout(0.5)
                with pytest.raises((TimeoutError, socket.timeout, websocket.WebSocketTimeoutException)):
                    while True:
                        writer.send_binary(bytes(1 << 20))
                started = time.monotonic()
                engine.stop()
                assert time.monotonic() - started < 10
                for peer in (client.peer, reader):
                    with pytest.raises(BROKEN):
                        receive_frame(peer)


class TestThread:
    """What only an engine in a thread has."""

    def test_thread_is_named_and_ends(self) -> None:
        """The thread says what it is, does not keep the process alive, and ends with the engine."""
        with LocalEngine() as engine:
            name = f"iii-engine-{engine.port}"
            (thread,) = [thread for thread in threading.enumerate() if thread.name == name]
            assert thread.daemon
        assert not thread.is_alive()

    def test_several_at_once(self) -> None:
        """Engines do not know of each other."""
        with LocalEngine() as one, LocalEngine() as two:
            assert one.port != two.port
            with worker(one.url, name="same") as first, worker(two.url, name="same") as second:
                first.sync()
                second.sync()

    def test_same_port_again(self) -> None:
        """A port can be used again as soon as the engine has stopped, even after connections."""
        (port,) = free_ports(1)
        with LocalEngine(port=port) as engine, worker(engine.url) as client:
            client.sync()
        with LocalEngine(port=port) as again:
            assert again.port == port

    def test_foreign_address(self) -> None:
        """An address that is not ours is refused with its name."""
        with pytest.raises(OSError, match=r"192\.0\.2\.1"):
            LocalEngine("192.0.2.1").start()

    def test_every_address_must_be_asked_for(self) -> None:
        """By name one can listen everywhere; the URL is one that can be connected to."""
        with LocalEngine("0.0.0.0") as engine:
            assert engine.url == f"ws://127.0.0.1:{engine.port}"
            with worker(engine.url) as client:
                client.sync()

    def test_another_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A worker that comes by a name the engine does not know hears of the name, and what to do."""
        look_up = socket.getaddrinfo

        def resolve(name: Any, *more: Any, **options: Any) -> Any:
            return look_up("127.0.0.1" if name in ("engine.example", b"engine.example") else name, *more, **options)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        with LocalEngine("0.0.0.0") as engine:
            with pytest.raises(errors.HandshakeRejectedError, match="--host engine.example") as caught:
                register_worker(f"ws://engine.example:{engine.port}")
            assert (type(caught.value), caught.value.status) == (errors.HandshakeRejectedError, 421)
        with LocalEngine("engine.example") as engine:
            register_worker(engine.url).shutdown()

    @posix_only
    def test_fork(self) -> None:
        """The child's copy counts as not started; its own engine works, and the parent's goes on."""
        process = script(
            """
            import os, warnings
            warnings.simplefilter("ignore", DeprecationWarning)  # of fork in a threaded process
            from iii_sync.engine import LocalEngine
            import websocket
            engine = LocalEngine().start()
            child = os.fork()
            if child == 0:
                assert not engine.running
                engine.stop()
                with LocalEngine() as own:
                    websocket.create_connection(own.url, timeout=10).close()
                assert engine.start().running
                engine.stop()
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            websocket.create_connection(engine.url, timeout=10).close()
            engine.stop()
            print("done")
            """
        )
        out, err = process.communicate(timeout=60)
        assert (out, err, process.returncode) == ("done\n", "", 0)

    def test_exit_without_stop(self) -> None:
        """A script that forgets to stop the engine ends quietly."""
        process = script(
            """
            from iii_sync.engine import LocalEngine
            import websocket
            engine = LocalEngine().start()
            peer = websocket.create_connection(engine.url, timeout=10)
            peer.recv()
            peer.shutdown()
            """
        )
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0


class TestProcess:
    """What only an engine in a child process has."""

    def test_ends_when_the_parent_is_killed(self) -> None:
        """Nothing is left behind of a parent that could not clean up."""
        parent = script(
            """
            import sys
            from iii_sync.engine import LocalEngine
            engine = LocalEngine(in_process=False, timeout=30).start()
            print(engine.url, flush=True)
            sys.stdin.read()
            """
        )
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        with connect(url) as peer:
            peer.recv()
            parent.kill()
            parent.communicate(timeout=30)
            with pytest.raises(BROKEN):
                receive_frame(peer)

    def test_another_says_something_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy_port: int
    ) -> None:
        """A module that Python imports at its start may print; what the engine itself says counts."""
        (tmp_path / "sitecustomize.py").write_text("print('hello')\nprint('listening on ws://nowhere:1')\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        with LocalEngine(in_process=False, timeout=30) as engine, worker(engine.url) as client:
            client.sync()
        with pytest.raises(OSError, match=f"^cannot listen on 127.0.0.1 port {busy_port}"):
            LocalEngine(port=busy_port, in_process=False, timeout=30).start()


class TestForeground:
    """``python -m iii_sync engine``."""

    @posix_only
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_ends_cleanly_on_signals(self, number: signal.Signals) -> None:
        """One line at the start, nothing at the end, status 0; open connections do not matter."""
        process = script("import sys; from iii_sync.engine.main import run; sys.exit(run('127.0.0.1', 0))", "-X", "dev")
        assert process.stdout is not None
        line = process.stdout.readline()
        prefix = "iii_sync engine listening on ws://127.0.0.1:"
        assert line.startswith(prefix)
        with connect(line.split()[-1]) as peer:
            peer.recv()
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        assert (out, err, process.returncode) == ("", "", 0)

    def test_port_in_use(self, busy_port: int, capsys: pytest.CaptureFixture[str]) -> None:
        """One line on standard error, status 1."""
        assert run("127.0.0.1", busy_port) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert f"127.0.0.1 port {busy_port}" in err


class TestWithoutAiohttp:
    """The extra is optional."""

    def test_importing_is_cheap(self) -> None:
        """Importing the package imports no aiohttp."""
        process = script(
            """
            import sys
            import iii_sync.engine, iii_sync.engine.main
            print(any(name.partition(".")[0] == "aiohttp" for name in sys.modules))
            """
        )
        assert process.communicate(timeout=60) == ("False\n", "")

    @pytest.mark.parametrize("in_process", [True, False])
    def test_message_names_the_cure(self, in_process: bool) -> None:
        """Starting without aiohttp says what to install."""
        process = script(
            f"""
            import sys
            sys.modules["aiohttp"] = None
            from iii_sync.engine import LocalEngine
            from iii_sync.engine.main import run
            try:
                LocalEngine(in_process={in_process}).start()
            except ImportError as error:
                print(error)
            print(run("127.0.0.1", 0))
            """
        )
        out, err = process.communicate(timeout=60)
        assert 'pip install "iii_sync[engine]"' in out.splitlines()[0]
        assert out.splitlines()[1:] == ["1"]
        assert 'pip install "iii_sync[engine]"' in err
