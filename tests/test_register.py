"""Connecting: what works, and every way in which it does not."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import Any, Callable

import pytest

import iii_sync
from iii_sync import InitOptions, Worker, errors, register_worker

from .support.engines import engine_program, free_ports
from .support.rawserver import RawPeer, raw_server

QUICK = 0.5


def refuses(url: str, **options: Any) -> BaseException:
    """What register_worker raises; and it must not take long."""
    started = time.monotonic()
    with pytest.raises(Exception) as caught:
        register_worker(url, **options)
    assert time.monotonic() - started < 10
    return caught.value


def test_a_worker_connects_and_says_who_it_is(engine_url: str) -> None:
    """The engine lists the worker under its name, with its pid."""
    with register_worker(engine_url, worker_name="names-itself", worker_description="one line") as worker:
        assert worker.get_connection_state() == "connected"
        assert worker.get_address() == engine_url
        found = worker.trigger("engine::workers::info", {"name": "names-itself"})["worker"]
        assert found["id"] == worker.worker_id
        assert found["pid"] == os.getpid() and found["runtime"] == "python"
        assert found["description"] == "one line"
    assert worker.get_connection_state() == "disconnected"


def test_the_address_comes_from_the_environment(engine_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument III_URL counts."""
    monkeypatch.setenv("III_URL", engine_url)
    with register_worker() as worker:
        assert worker.get_address() == engine_url


def test_many_workers_of_one_process_get_different_names(engine_url: str) -> None:
    """Default names do not collide."""
    with register_worker(engine_url) as one, register_worker(engine_url) as two:
        assert one.worker_id != two.worker_id


def test_a_taken_name_is_refused(engine_url: str) -> None:
    """The second worker of a name gets an error that names it, its owner and the code."""
    with register_worker(engine_url, worker_name="taken") as worker:
        error = refuses(engine_url, worker_name="taken")
        assert isinstance(error, errors.RegistrationRejectedError)
        assert error.code == "WORKER_NAMESPACE_CONFLICT"
        assert error.owner_worker_id == worker.worker_id
        assert "'taken'" in str(error)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "127.0.0.1:1", "ws://", "", "ws://host:port", "ws://a b:1", "ws://user:pw@host:1"]
)
def test_a_wrong_address_is_a_configuration_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, with what it should look like, and no password."""
    monkeypatch.setenv("III_URL", "nonsense")
    error = refuses(url)
    assert isinstance(error, errors.ConfigurationError) and isinstance(error, ValueError)
    assert "pw" not in str(error)


def test_nothing_listens(unused_url: str) -> None:
    """The error names the address and the reason."""
    error = refuses(unused_url)
    assert isinstance(error, errors.ConnectFailedError) and isinstance(error, ConnectionError)
    assert unused_url in str(error) and "refused" in str(error)


@pytest.fixture
def unused_url() -> str:
    (port,) = free_ports(1)
    return f"ws://127.0.0.1:{port}"


def test_an_unknown_host() -> None:
    """A name that does not resolve."""
    error = refuses("ws://no-such-host.invalid:49134")
    assert isinstance(error, errors.ConnectFailedError)
    assert "no-such-host.invalid" in str(error)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno", 401),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", 404),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200),
        (b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\n\r\n", 302),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", None),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", None),
        (b"", None),
    ],
)
def test_not_a_websocket(answer: bytes, status: object) -> None:
    """Whatever answers instead of an engine: an error that says what came, at once."""

    def serve(peer: RawPeer) -> None:
        peer.read_request()
        peer.sock.sendall(answer)
        peer.sock.close()

    with raw_server(serve) as server:
        error = refuses(server.url)
        assert isinstance(error, errors.HandshakeRejectedError), repr(error)
        assert error.status == status
        assert server.url in str(error)


def test_an_endless_answer_is_cut_off() -> None:
    """A peer that sends headers without end costs neither memory nor patience."""

    def serve(peer: RawPeer) -> None:
        peer.read_request()
        while True:
            peer.sock.sendall(b"X-More: and more\r\n" * 100)

    with raw_server(serve) as server:
        assert isinstance(refuses(server.url), errors.HandshakeRejectedError)


def test_the_connect_timeout_is_for_all_steps_together() -> None:
    """A peer that trickles its answer byte by byte cannot stretch the deadline."""
    stop = threading.Event()

    def serve(peer: RawPeer) -> None:
        peer.read_request()
        for byte in b"HTTP/1.1 101 Switching Protocols\r\n" * 100:
            peer.sock.sendall(bytes([byte]))
            if stop.wait(QUICK / 10):
                return

    with raw_server(serve) as server:
        started = time.monotonic()
        error = refuses(server.url, connect_timeout=QUICK)
        stop.set()
        assert isinstance(error, errors.ConnectTimeout) and isinstance(error, TimeoutError)
        assert QUICK <= time.monotonic() - started < 10


def test_a_peer_that_accepts_and_says_nothing() -> None:
    """No answer to the handshake at all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        error = refuses(f"ws://127.0.0.1:{listener.getsockname()[1]}", connect_timeout=QUICK)
    assert isinstance(error, errors.ConnectTimeout)


def test_an_engine_that_never_says_hello() -> None:
    """A WebSocket without an engine behind it."""

    def serve(peer: RawPeer) -> None:
        peer.handshake()
        peer.recv_frame()

    with raw_server(serve) as server:
        error = refuses(server.url, connect_timeout=QUICK)
        assert isinstance(error, errors.ConnectTimeout)
        assert "hello" in str(error)


def test_an_engine_that_does_not_answer_the_announcement() -> None:
    """Hello, and nothing more."""

    def serve(peer: RawPeer) -> None:
        peer.handshake()
        peer.send_json({"type": "workerregistered", "worker_id": "w"})
        peer.recv_json()
        peer.recv_frame()

    with raw_server(serve) as server:
        error = refuses(server.url, connect_timeout=QUICK)
        assert isinstance(error, errors.ConnectTimeout)
        assert "engine::workers::register" in str(error)


def test_an_authentication_failure_says_so() -> None:
    """The engine's frame for it, which is outside the protocol (PROTOCOL 8.2)."""

    def serve(peer: RawPeer) -> None:
        peer.handshake()
        peer.send_json({"type": "error", "error": {"code": "AUTH_ERROR", "message": "who are you"}})
        peer.send_frame(8)
        peer.recv_frame()

    with raw_server(serve) as server:
        error = refuses(server.url)
        assert isinstance(error, errors.AuthenticationError)
        assert "who are you" in str(error)


def test_headers_and_token_go_with_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given headers, the token of the environment, and no Origin."""
    seen: dict[str, str] = {}

    def serve(peer: RawPeer) -> None:
        peer.introduce()
        seen.update(peer.headers)
        peer.recv_frame()

    monkeypatch.setenv("III_TOKEN", " secret ")
    with raw_server(serve) as server:
        with register_worker(server.url, headers={"X-Team": "blue"}):
            pass
    assert seen["x-team"] == "blue" and seen["authorization"] == "Bearer secret"
    assert "origin" not in seen


def test_proxies_of_the_environment_do_not_take_loopback(engine_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An http_proxy that leads nowhere is not used for 127.0.0.1."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with register_worker(engine_url) as worker:
        assert worker.create_channel().channel_id


def test_an_explicit_proxy_is_used() -> None:
    """CONNECT with credentials, then the handshake through the tunnel."""
    requests: list[bytes] = []

    def serve(peer: RawPeer) -> None:
        requests.append(peer.read_request())
        peer.sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        peer.headers = {}
        peer.introduce()
        peer.recv_frame()

    with raw_server(serve) as proxy:
        address = f"http://us%40er:pass@127.0.0.1:{proxy.port}"
        with register_worker("ws://engine.invalid:49134", proxy=address) as worker:
            assert worker.worker_id == "w-1"
    assert requests[0].startswith(b"CONNECT engine.invalid:49134 HTTP/1.")
    assert b"Proxy-Authorization: Basic dXNAZXI6cGFzcw==\r\n" in requests[0]


def test_a_proxy_that_refuses() -> None:
    """The error names the proxy, not its password."""

    def serve(peer: RawPeer) -> None:
        peer.read_request()
        peer.sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    with raw_server(serve) as proxy:
        error = refuses("ws://engine.invalid:49134", proxy=f"http://user:hidden@127.0.0.1:{proxy.port}")
    assert isinstance(error, errors.ConnectFailedError)
    assert "407" in str(error) and "hidden" not in str(error)


@pytest.mark.parametrize(
    "options",
    [
        {"connect_timeout": 0},
        {"connect_timeout": None},
        {"connect_timeout": "10"},
        {"channel_timeout": -1},
        {"close_timeout": float("nan")},
        {"shutdown_timeout": None},
        {"invocation_timeout": "30"},
        {"max_handlers": True},
        {"max_handlers": 2.5},
        {"max_handlers": 0},
        {"max_payload": 65 * 1024 * 1024},
        {"max_payload": 1.5},
        {"max_payload": None},
        {"worker_name": " "},
        {"worker_name": 5},
        {"worker_name": "\ud800"},
        {"worker_description": 5},
        {"worker_description": "\udfff"},
        {"namespace": ""},
        {"namespace": b"shop"},
        {"proxy": 5},
        {"insecure_skip_tls_verification": "no"},
        {"keep_trying": "no"},
        {"marks": "x"},
        {"marks": None},
        {"tracing": "x"},
        {"trace_payloads": 1},
        {"headers": {"bad name": "x"}},
        {"headers": {"X": "a\r\nInjected: b"}},
        {"reconnection_config": None},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    """Named, before anything is connected."""
    with pytest.raises(errors.ConfigurationError, match=next(iter(options))):
        register_worker("ws://127.0.0.1:1", **options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("initial_delay", 0),
        ("initial_delay", "1"),
        ("max_delay", None),
        ("backoff_multiplier", 0.5),
        ("backoff_multiplier", float("nan")),
        ("backoff_multiplier", "2"),
        ("jitter_factor", 1.5),
        ("jitter_factor", "0"),
        ("max_retries", -1),
        ("max_retries", 1.5),
        ("max_retries", True),
    ],
)
def test_wrong_options_of_reconnecting_are_refused(name: str, value: Any) -> None:
    """Named, too."""
    with pytest.raises(errors.ConfigurationError, match=f"{name}={value!r} "):
        iii_sync.ReconnectionConfig(**{name: value})


def test_options_may_be_an_object_and_keywords(engine_url: str) -> None:
    """Keywords win over the object."""
    options = InitOptions(worker_name="from-object", worker_description="kept")
    with register_worker(engine_url, options, worker_name="from-keyword") as worker:
        found = worker.trigger("engine::workers::info", {"name": "from-keyword"})["worker"]
        assert found["description"] == "kept"


def test_an_unknown_option_is_a_type_error() -> None:
    """Misspelled keywords do not vanish."""
    with pytest.raises(TypeError, match="conect_timeout"):
        register_worker("ws://127.0.0.1:1", conect_timeout=1)  # type: ignore[call-arg]


def test_keep_trying_connects_when_the_engine_comes_up(engine_kind: str) -> None:
    """The worker is there at once; calls made meanwhile wait for the connection."""
    engine = engine_program(engine_kind)
    try:
        with register_worker(engine.url, keep_trying=True) as worker:
            assert worker.get_connection_state() == "reconnecting"
            with pytest.raises(errors.ConnectionLostError) as caught:
                worker.trigger("engine::baggage::get", {"key": "x"}, timeout=0.2)
            assert caught.value.may_have_run is False
            engine.start()
            assert worker.trigger("engine::baggage::get", {"key": "x"}, timeout=20) == {"value": None}
    finally:
        engine.stop()


def test_listeners_that_cannot_be_called(engine_url: str) -> None:
    """They are refused where they are given, not at the first change of the state."""

    async def listen(state: str) -> None: ...

    with register_worker(engine_url) as worker:
        for listener, said in ((5, "listener=5 is not callable"), (None, "not callable"), (listen, "'async def'")):
            with pytest.raises(errors.ConfigurationError, match=said):
                worker.add_connection_state_listener(listener)  # type: ignore[arg-type]


def test_the_states_are_told_once_each(engine_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A listener hears of the end, whatever another one raises; its handle ends the telling."""
    heard: list[str] = []

    def failing(state: str) -> None:
        raise ValueError(f"this one does not like {state}")

    worker = register_worker(engine_url)
    worker.add_connection_state_listener(failing)
    worker.add_connection_state_listener(heard.append)
    worker.add_connection_state_listener(heard.append)()
    worker.shutdown()
    end = time.monotonic() + 20
    while not heard and time.monotonic() < end:
        time.sleep(0.01)
    assert heard == ["disconnected"]
    assert "this one does not like disconnected" in caplog.text


def test_a_worker_does_not_pickle_and_its_repr_holds_no_secret(engine_url: str) -> None:
    """The query of the address may be a token."""
    import pickle

    with register_worker(engine_url + "/?token=secret") as worker:
        assert "secret" not in repr(worker) and "secret" not in worker.get_address()
        with pytest.raises(TypeError, match="register|made|make"):
            pickle.dumps(worker)


def test_after_shutdown_every_call_says_so(engine_url: str, unique: Callable[[str], str]) -> None:
    """And a second shutdown does nothing."""
    worker = register_worker(engine_url)
    ref = worker.create_channel().reader_ref
    assert worker.wait(0.01) is False
    worker.shutdown()
    worker.shutdown()
    attempts: list[Callable[[], object]] = [
        lambda: worker.trigger("x"),
        lambda: worker.submit("x"),
        lambda: list(worker.map("x", [1])),
        lambda: worker.register_function(unique("f"), print),
        lambda: worker.function(unique("f"))(print),
        lambda: worker.unregister_function(unique("f")),
        lambda: worker.register_http("GET", "/x", lambda request: None),
        lambda: worker.http("GET", "/x")(lambda request: None),
        lambda: worker.register_trigger("subscribe", unique("f"), {"topic": "t"}),
        lambda: worker.register_trigger_type(unique("type"), "one", (print, print)),
        lambda: worker.create_channel(),
        lambda: worker.open("x"),
        lambda: worker.open_ref(ref),
        lambda: worker.__enter__(),
    ]
    for use in attempts:
        with pytest.raises(errors.WorkerClosedError):
            use()
    assert worker.wait(1) is True
    assert worker.get_connection_state() == "disconnected"


@pytest.mark.parametrize("ref", [None, "id", 3, {}, {"channel_id": "c"}, {"channel_id": "c", "access_key": 1}])
def test_references_that_are_none(worker: Worker, ref: Any) -> None:
    """They are refused at once, and what they held is not in the error."""
    with pytest.raises(errors.ConfigurationError, match="not a channel reference: it needs channel_id"):
        worker.open_ref(ref)


def test_references_that_are_objects_or_json(worker: Worker) -> None:
    """An end of either kind of reference is the channel's."""
    channel = worker.create_channel()
    with worker.open_ref(channel.writer_ref.model_dump()) as writer:
        assert isinstance(writer, iii_sync.ChannelWriter)
        writer.write(b"there")
        reader = worker.open_ref(channel.reader_ref, timeout=20)
        assert isinstance(reader, iii_sync.ChannelReader) and reader.timeout == 20
    assert reader.read() == b"there"


def test_reconnects_when_the_engine_drops_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """A call under way fails at once as unknown; the next one goes over the new connection, after a reattach."""
    caplog.set_level(logging.CRITICAL, "iii_sync")
    seen: list[dict[str, Any]] = []
    connections: list[RawPeer] = []

    def serve(peer: RawPeer) -> None:
        connections.append(peer)
        if len(connections) == 1:
            peer.introduce()
            peer.recv_json()
            peer.reset()
            return
        peer.handshake()
        peer.send_json({"type": "workerregistered", "worker_id": "w-2", "reattach_token": "token-2"})
        while True:
            message = peer.recv_json()
            seen.append(message)
            if message["type"] == "invokefunction":
                peer.answer(message, {"value": message["function_id"]})

    with raw_server(serve) as server, register_worker(server.url) as worker:
        with pytest.raises(errors.ConnectionLostError) as caught:
            worker.trigger("first", timeout=10)
        assert caught.value.may_have_run is True
        assert worker.trigger("second", timeout=10) == {"value": "second"}
        assert worker.worker_id == "w-2"
    assert seen[0] == {"type": "reattach", "previous_worker_id": "w-1", "reattach_token": "token"}
    assert seen[1]["function_id"] == "engine::workers::register"


def test_listeners_hear_the_states_in_their_order(engine_url: str) -> None:
    """However quickly they follow each other, and although a listener fails."""
    for _ in range(20):
        heard: list[str] = []
        worker = register_worker(engine_url)
        session = worker._session
        worker.add_connection_state_listener(heard.append)
        states = ["reconnecting", "connecting"] * 10
        for state in states:
            session._set_state(state)
        worker.shutdown()
        end = time.monotonic() + 10
        while len(heard) < len(states) + 1 and time.monotonic() < end:
            time.sleep(0.001)
        assert heard == [*states, "disconnected"]
