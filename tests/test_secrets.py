"""Tokens, keys and passwords stay out of logs, representations, errors and output, whatever goes wrong."""

from __future__ import annotations

import contextlib
import logging
import pickle
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import websocket

from iii_sync import InitOptions, ReconnectionConfig, StreamChannelRef, register_worker
from iii_sync.cli.main import main
from iii_sync.engine import LocalEngine

from .support.proxy import connect_proxy
from .support.rawserver import RawPeer, raw_server
from .support.tls import tls_relay

TOKEN = "s3cr3t-token"
HEADER = "s3cr3t-header"
PASSWORD = "s3cr3t-password"
QUERY = "s3cr3t-query"
KEY = "s3cr3t-key"
SECRET = "s3cr3t"


class Everything:
    """Collects whatever the package says."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.secrets = {SECRET}

    def note(self, *values: object) -> None:
        """Keep ``str`` and ``repr``; of exceptions everything that led to them, too."""
        for value in values:
            self.said += [str(value), repr(value)]
            if isinstance(value, BaseException):
                self.said += traceback.format_exception(type(value), value, value.__traceback__)
                if value.__cause__ is not None:
                    self.note(value.__cause__)
                if value.__context__ is not None and value.__context__ is not value.__cause__:
                    self.note(value.__context__)

    @contextlib.contextmanager
    def failing(self, *kinds: type[BaseException]) -> Iterator[None]:
        """A block that has to raise."""
        with pytest.raises(kinds or (Exception,)) as found:
            yield
        self.note(found.value)

    def leaks(self) -> list[str]:
        return [text for text in self.said for secret in self.secrets if secret in text]


class _Keeper(logging.Handler):
    def __init__(self, everything: Everything) -> None:
        super().__init__(logging.DEBUG)
        self._everything = everything
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        self._everything.said += [self.format(record), repr(record.args)]


@pytest.fixture
def everything() -> Iterator[Everything]:
    everything = Everything()
    keeper = _Keeper(everything)
    root = logging.getLogger()
    before = root.level
    root.addHandler(keeper)
    root.setLevel(logging.DEBUG)
    websocket.enableTrace(True, keeper)
    try:
        yield everything
    finally:
        websocket.enableTrace(False)
        root.setLevel(before)
        root.removeHandler(keeper)
    assert keeper.count
    assert everything.leaks() == []


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("III_TOKEN", TOKEN)
    return {"headers": {"X-Secret": HEADER}, "connect_timeout": 3.0}


def test_while_all_is_well(engine_url: str, everything: Everything, options: dict[str, Any]) -> None:
    """Calls, channels, their ends and references, on an engine of each kind."""
    with register_worker(f"{engine_url}/?token={QUERY}", **options) as worker:
        channel = worker.create_channel()
        everything.secrets |= {channel.writer_ref.access_key, channel.reader_ref.access_key}
        function = worker.register_function(f"echo-{worker.worker_id}", lambda data: "done")
        call = worker.submit(function.id, {"reader": channel.reader_ref})
        call.result(10)
        everything.note(worker, worker.get_address(), function, call, channel, channel.reader, channel.writer)
        everything.note(channel.reader_ref, channel.writer_ref, InitOptions(**options), worker._session.address)
        other = worker.create_channel()
        everything.secrets |= {other.writer_ref.access_key, other.reader_ref.access_key}
        other.writer.write(b"x" * 10)
        everything.note(other.writer)
        assert other.reader.read(10) == b"x" * 10
        reader_ref = other.reader_ref
        other.writer.abort()
        with everything.failing(OSError):
            other.reader.read(1)
        other.reader.abort()
        again = worker.open_ref(reader_ref)
        with everything.failing(OSError):
            again.read(1)
        again.abort()
        lost = worker.open_ref(StreamChannelRef("unknown", KEY, "read"))
        with everything.failing(OSError):
            lost.read(1)
        lost.abort()
        with everything.failing(Exception):
            worker.trigger(function.id, {"reader": channel.reader_ref, "bad": {1, 2}})
        with everything.failing(TypeError):
            pickle.dumps(channel)
        assert KEY in pickle.loads(pickle.dumps(StreamChannelRef("a", KEY, "read"))).access_key


def _echo(peer: RawPeer) -> None:
    peer.sock.sendall(peer.read_request())


def _refuse(peer: RawPeer) -> None:
    request = peer.read_request()
    peer.sock.sendall(b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%s" % (len(request), request))


def _redirect(peer: RawPeer) -> None:
    peer.read_request()
    peer.sock.sendall(f"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/?token={QUERY}\r\n\r\n".encode())


def _leave(peer: RawPeer) -> None:
    peer.read_request()
    peer.reset()


def _greet(peer: RawPeer) -> None:
    peer.handshake()
    peer.send_frame(3, b"nonsense")


@pytest.mark.parametrize("serve", [_leave, _greet])
def test_peers_that_fail(everything: Everything, options: dict[str, Any], serve: Callable[[RawPeer], None]) -> None:
    """Whatever an engine does instead of being one; also in the background."""
    with raw_server(serve) as server:
        with everything.failing():
            register_worker(f"{server.url}/?token={QUERY}", **options)
        worker = register_worker(
            f"{server.url}/?token={QUERY}",
            keep_trying=True,
            **options,
            reconnection_config=ReconnectionConfig(max_retries=1, initial_delay=0.01),
        )
        with worker:
            with everything.failing():
                worker.trigger("some::function", timeout=5)
            everything.note(worker)


@pytest.mark.parametrize("serve", [_echo, _refuse, _redirect])
def test_peers_that_quote_the_request(
    everything: Everything, options: dict[str, Any], serve: Callable[[RawPeer], None]
) -> None:
    """Its text is in no error. (The trace of ``websocket`` logs what a peer says, word by word: it is off here.)"""
    websocket.enableTrace(False)
    logging.getLogger("test").debug("on")
    with raw_server(serve) as server:
        with everything.failing():
            register_worker(f"{server.url}/?token={QUERY}", **options)


def test_nothing_there_and_proxies(everything: Everything, options: dict[str, Any]) -> None:
    """Refused connections, and proxies of every mood."""
    with everything.failing():
        register_worker(f"ws://127.0.0.1:1/?token={QUERY}", **options)
    with everything.failing():
        register_worker(f"ws://127.0.0.1:1/?token={QUERY}", proxy=f"http://user:{PASSWORD}@127.0.0.1:1", **options)
    for answer in (None, b"HTTP/1.1 502 Bad\r\n\r\n", f"{PASSWORD}\r\n\r\n".encode()):
        with connect_proxy("user:other", answer=answer) as proxy:
            with everything.failing():
                url = f"http://user:{PASSWORD}@{proxy.address}"
                register_worker(f"wss://engine.example/?token={QUERY}", proxy=url, **options)
    everything.note(InitOptions(proxy=f"http://user:{PASSWORD}@proxy", **options))
    for wrong in (f"ws://user:{PASSWORD}@host", f"ws://host:x?token={QUERY}", f"ws://h/#{QUERY}", f"{PASSWORD}@host"):
        with everything.failing(ValueError):
            register_worker(wrong, **options)
        with everything.failing(ValueError):
            register_worker("ws://127.0.0.1:1", proxy=f"socks5://user:{PASSWORD}@host:1", **options)


def test_tls(local_engine_url: str, everything: Everything, options: dict[str, Any]) -> None:
    """Certificates refused, and not looked at."""
    trustme = pytest.importorskip("trustme")
    import ssl

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(server)
    with tls_relay(local_engine_url, server) as relay:
        url = f"wss://localhost:{relay.port}/?token={QUERY}"
        with everything.failing():
            register_worker(url, **options)
        with register_worker(url, insecure_skip_tls_verification=True, **options) as worker:
            everything.note(worker)
            worker.create_channel().writer.close()
        assert relay.connections[-1].header("authorization") == f"Bearer {TOKEN}"


def test_an_engine_that_goes_away(everything: Everything, options: dict[str, Any]) -> None:
    """Under a call and an open stream; and the log of the engine itself."""
    engine = LocalEngine()
    engine.start()
    with register_worker(f"{engine.url}/?token={QUERY}", **options) as worker:
        channel = worker.create_channel()
        everything.secrets |= {channel.writer_ref.access_key, channel.reader_ref.access_key}
        channel.writer.write(b"x")
        assert channel.reader.read(1) == b"x"
        engine.stop()
        with everything.failing(OSError):
            channel.reader.read(1)
        with everything.failing():
            worker.trigger("some::function", timeout=0.3)
        everything.note(worker, channel.reader, channel.writer)
        channel.writer.abort()
        channel.reader.abort()


#: What ``iii-sync serve`` runs here: a worker that ends soon after it is waited for.
SERVED = """
import threading
from iii_sync import register_worker

def make():
    worker = register_worker()
    wait = worker.wait

    def wait_a_moment():
        threading.Timer(0.1, worker.shutdown).start()
        return wait()

    worker.wait = wait_a_moment
    return worker
"""

#: Every command that connects or names the engine, and its exit code where all is well.
COMMANDS = {
    "demo --size 1MB": 0,
    "call -v secrets::fail": 1,
    "send -v secrets::read sent": 0,
    "get -v secrets::write": 0,
    "serve -v served_secrets:make": 0,
    "functions -v --all --json": 0,
    "info": 0,
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("address", ["there", "no address", "nobody there"])
def test_the_command_line(
    local_engine_url: str,
    everything: Everything,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    command: str,
    address: str,
) -> None:
    """What commands print: about an engine that is there, about none, and about an address that has a password."""
    host = "127.0.0.1:1" if address == "nobody there" else local_engine_url[5:]
    user = f"user:{PASSWORD}@" if address == "no address" else ""
    monkeypatch.setenv("III_URL", f"ws://{user}{host}/?token={QUERY}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "served_secrets", raising=False)
    (tmp_path / "served_secrets.py").write_text(SERVED)
    (tmp_path / "sent").write_text("a line")
    with register_worker(local_engine_url) as worker:

        @worker.function("secrets::fail")
        def fail(data: Any) -> None:
            raise ValueError("no")

        worker.register_function("secrets::read", lambda data: len(data["reader"].read()))

        @worker.function("secrets::write")
        def write(data: Any) -> None:
            with data["writer"] as f:
                f.write(b"a line")

        status = main(command.split())
    # info shows whatever is wrong among the rest.
    expected = {"there": COMMANDS[command], "no address": 1, "nobody there": 69}[address]
    assert status == (0 if command == "info" else expected)
    out, err = capfd.readouterr()
    assert out or err
    everything.said += [out, err]
    logging.getLogger("test").debug("on")
