"""wss on both kinds of socket: who is trusted, what is refused and how it says so, and what TLS does underneath."""

from __future__ import annotations

import datetime
import functools
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from iii_sync import errors, register_worker

from ..support.proxy import connect_proxy
from ..support.rawserver import RawPeer, raw_server
from ..support.threads import in_thread
from ..support.tls import TlsRelay, cut, libssl, renegotiate, stall, tls_relay, update_keys
from .hammer import hammer

trustme = pytest.importorskip("trustme")

WAIT = 30.0


@pytest.fixture(scope="module")
def authority() -> Any:
    return trustme.CA()


def server_side(authority: Any, *names: str, **issued: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("localhost",)), **issued).configure_cert(context)
    return context


def client_side(authority: Any) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def relay(engine_url: str, authority: Any) -> Iterator[TlsRelay]:
    with tls_relay(engine_url, server_side(authority)) as relay:
        yield relay


def refused(url: str, **options: Any) -> errors.ConnectFailedError:
    with pytest.raises(errors.ConnectFailedError) as found:
        register_worker(url, **options)
    return found.value


# --- what works -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_kinds_of_socket_by_both_versions(
    relay: TlsRelay, authority: Any, unique: Callable[[str], str], version: ssl.TLSVersion
) -> None:
    """Control and channel sockets go through TLS, and ask for the name in the address."""
    relay.context.maximum_version = version
    with register_worker(f"wss://localhost:{relay.port}", ssl_context=client_side(authority)) as worker:
        echo = worker.register_function(unique("echo"), lambda data: data)
        assert worker.trigger(echo.id, {"a": 1}) == {"a": 1}
        channel = worker.create_channel()
        with channel.writer as writer:
            written = in_thread(lambda: writer.write(b"x" * 100_000))
            assert channel.reader.read(100_000) == b"x" * 100_000
            assert written() == 100_000
        assert channel.reader.read() == b"" and channel.reader.complete
        channel.reader.close()
    assert len(relay.connections) == 3
    assert {connection.server_name for connection in relay.connections} == {"localhost"}
    assert {connection.version for connection in relay.connections} == {version.name.replace("_", ".")}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_ip_address_is_checked_and_asks_for_no_name(local_engine_url: str, authority: Any, host: str) -> None:
    """A certificate can hold addresses; SNI cannot."""
    with tls_relay(local_engine_url, server_side(authority, host), host) as relay:
        shown = f"[{host}]" if ":" in host else host
        with register_worker(f"wss://{shown}:{relay.port}", ssl_context=client_side(authority)) as worker:
            worker.create_channel().writer.close()
    assert [connection.server_name for connection in relay.connections] == [None, None]


def test_a_final_dot_is_not_part_of_the_name(local_engine_url: str, authority: Any) -> None:
    """``engine.example.`` is looked up as it is and verified without the dot."""
    with tls_relay(local_engine_url, server_side(authority, "engine.example")) as relay:
        with connect_proxy(to=("127.0.0.1", relay.port)) as proxy:
            options: Any = {
                "ssl_context": client_side(authority),
                "proxy": f"http://{proxy.address}",
                "headers": {"Host": "localhost"},
            }
            with register_worker("wss://engine.example.", **options):
                pass
    assert relay.connections[0].server_name == "engine.example"
    assert proxy.targets == ["engine.example.:443"]


def test_ssl_cert_file_names_a_private_authority(
    relay: TlsRelay, authority: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without any option in the program."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with register_worker(f"wss://localhost:{relay.port}") as worker:
        assert worker.create_channel().channel_id


def test_a_client_certificate(relay: TlsRelay, authority: Any) -> None:
    """Asked for by the relay and shown on every socket."""
    relay.context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(relay.context)
    context = client_side(authority)
    authority.issue_cert("worker.example").configure_cert(context)
    with register_worker(f"wss://localhost:{relay.port}", ssl_context=context) as worker:
        worker.create_channel().writer.close()
    names = [connection.certificate["subjectAltName"] for connection in relay.connections]
    assert names == [(("DNS", "worker.example"),)] * 2


# --- what is refused, and how -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shown", ["none", "of a stranger"])
def test_the_wrong_client_certificate(
    local_engine_url: str, authority: Any, version: ssl.TLSVersion, shown: str
) -> None:
    """The error says that it is about the client's certificate, and where one is loaded."""
    server = server_side(authority)
    server.verify_mode = ssl.CERT_REQUIRED
    server.maximum_version = version
    authority.configure_trust(server)
    context = client_side(authority)
    if shown != "none":
        trustme.CA().issue_cert("worker.example").configure_cert(context)
    with tls_relay(local_engine_url, server) as relay:
        with pytest.raises(errors.EngineConnectionError, match="client certificate.*load_cert_chain") as found:
            register_worker(f"wss://localhost:{relay.port}", ssl_context=context)
    assert "localhost" in str(found.value)


def test_an_unknown_authority(relay: TlsRelay) -> None:
    """Verification is on by default; the error says how to trust a private authority."""
    error = refused(f"wss://localhost:{relay.port}")
    assert "certificate of localhost is refused" in str(error)
    assert "cafile" in str(error) and "SSL_CERT_FILE" in str(error)


def test_another_name(relay: TlsRelay, authority: Any) -> None:
    """A certificate for another host is not enough."""
    error = refused(f"wss://127.0.0.1:{relay.port}", ssl_context=client_side(authority))
    assert "certificate of 127.0.0.1 is refused" in str(error) and "name that the certificate holds" in str(error)


def test_an_expired_certificate(local_engine_url: str, authority: Any) -> None:
    """The error says that it has expired."""
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
    with tls_relay(local_engine_url, server_side(authority, not_after=past)) as relay:
        error = refused(f"wss://localhost:{relay.port}", ssl_context=client_side(authority))
    assert "certificate of localhost is refused" in str(error) and "expired" in str(error)
    assert "needs a new one" in str(error)


def test_no_version_in_common(local_engine_url: str, authority: Any) -> None:
    """The error names the settings."""
    server, client = server_side(authority), client_side(authority)
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    with tls_relay(local_engine_url, server) as relay:
        assert "minimum_version" in str(refused(f"wss://localhost:{relay.port}", ssl_context=client))


def test_a_plain_server_behind_a_wss_address(engine_url: str) -> None:
    """The TLS handshake meets plain HTTP."""
    assert "ws:// address" in str(refused("wss" + engine_url[2:], connect_timeout=3))


def test_a_tls_server_behind_a_ws_address() -> None:
    """The plain handshake meets an alert of TLS."""

    def serve(peer: RawPeer) -> None:
        peer.read_request()
        peer.sock.sendall(b"\x15\x03\x03\0\2\2\x0a" * 9)

    with raw_server(serve) as server:
        with pytest.raises(errors.HandshakeRejectedError, match="wss:// address"):
            register_worker(server.url)


def test_verification_is_left_out_only_by_its_ugly_name(
    relay: TlsRelay, authority: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Then anybody is trusted, and the log says so once."""
    with caplog.at_level(logging.WARNING, "iii_sync"):
        with register_worker(f"wss://127.0.0.1:{relay.port}", insecure_skip_tls_verification=True) as worker:
            worker.create_channel().writer.close()
    assert len(relay.connections) == 2
    assert [record.name for record in caplog.records if "not verified" in record.message] == ["iii_sync.worker"]
    context = ssl.create_default_context()
    context.check_hostname = False
    for _ in range(2):
        with pytest.raises(errors.ConfigurationError, match="insecure_skip_tls_verification=True"):
            register_worker(f"wss://localhost:{relay.port}", ssl_context=context)
        context.verify_mode = ssl.CERT_NONE
    with register_worker(f"wss://127.0.0.1:{relay.port}", ssl_context=context, insecure_skip_tls_verification=True):
        pass


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"ssl_context": ssl.create_default_context()}, "ssl_context is for wss://"),
        ({"insecure_skip_tls_verification": True}, "insecure_skip_tls_verification is for wss://"),
        ({"ssl_context": "ca.pem"}, "ssl_context is a str"),
        ({"ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, "for servers"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], match: str) -> None:
    """Nobody believes to be encrypted who is not."""
    with pytest.raises(errors.ConfigurationError, match=match):
        register_worker("ws://127.0.0.1:1", **options)


def test_a_server_that_stalls_in_the_handshake() -> None:
    """The deadline counts for TLS, too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(errors.ConnectTimeout):
            register_worker(f"wss://127.0.0.1:{listener.getsockname()[1]}", connect_timeout=0.3)


# --- what happens underneath ------------------------------------------------------------------------------


@pytest.mark.parametrize("marks", [True, False])
def test_a_stream_that_is_cut_without_the_goodbye_of_tls(relay: TlsRelay, authority: Any, marks: bool) -> None:
    """TCP ends, as anybody on the way can make it: never the end of the stream."""
    with register_worker(f"wss://localhost:{relay.port}", ssl_context=client_side(authority)) as worker:
        channel = worker.create_channel(marks=marks)
        written = in_thread(lambda: channel.writer.write(b"first"))
        assert channel.reader.read(5) == b"first"
        assert written() == 5
        (reading,) = [connection for connection in relay.connections if "dir=read" in connection.target]
        reading.do(cut)
        with pytest.raises(errors.ChannelError):
            channel.reader.read(1)
        channel.reader.abort()
        channel.writer.abort()


needs_libssl = pytest.mark.skipif(libssl() is None, reason="the OpenSSL of this Python cannot be called")


def both_ways(relay: TlsRelay, authority: Any, meanwhile: Callable[[ssl.SSLSocket], object]) -> None:
    """Two streams and calls, while the relay does something to all connections again and again."""
    data = random.Random(2).randbytes(6_000_000)
    with register_worker(f"wss://localhost:{relay.port}", ssl_context=client_side(authority)) as worker:
        echo = worker.register_function(f"echo-{worker.worker_id}", lambda value: value)
        channels = [worker.create_channel() for _ in range(2)]

        def write(channel: Any) -> None:
            with channel.writer as writer:
                for start in range(0, len(data), 100_000):
                    writer.write(data[start : start + 100_000])

        results = [in_thread(functools.partial(write, channel), WAIT) for channel in channels]
        results += [in_thread(channel.reader.read, WAIT) for channel in channels]
        stop = threading.Event()

        def disturb() -> None:
            while not stop.wait(0.02):
                for connection in list(relay.connections):
                    if connection.version is not None and connection.thread.is_alive():
                        try:
                            connection.do(meanwhile)
                        except OSError:
                            pass  # it has ended meanwhile

        disturbed = in_thread(disturb)
        try:
            for number in range(50):
                assert worker.trigger(echo.id, number) == number
            assert [result() for result in results] == [None, None, data, data]
        finally:
            stop.set()
            disturbed()


@needs_libssl
def test_new_keys_under_way(relay: TlsRelay, authority: Any) -> None:
    """KeyUpdate of TLS 1.3, on every connection again and again; the first one wants an answer.

    A connection that sends much gets that one only: OpenSSL itself gives up (``bad length``) when more of the
    handshake's kind arrives while its answer waits for a record that is half sent.
    """
    count = [0]
    asked: set[ssl.SSLSocket] = set()

    def update(tls: ssl.SSLSocket) -> None:
        sends = any(connection.socket is tls and b"dir=write" in connection.head for connection in relay.connections)
        if not (sends and tls in asked) and update_keys(tls, tls not in asked):
            asked.add(tls)
            count[0] += 1

    both_ways(relay, authority, update)
    assert count[0] > 10


@needs_libssl
def test_a_sender_whom_renegotiation_lets_wait_keeps_its_deadline(local_engine_url: str, authority: Any) -> None:
    """OpenSSL wants to read before it sends, and the peer is silent: the write times out without spinning."""
    server = server_side(authority)
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    with tls_relay(local_engine_url, server) as relay:
        with register_worker(f"wss://localhost:{relay.port}", ssl_context=client_side(authority)) as worker:
            channel = worker.create_channel()
            channel.writer.write(b"connected")
            (writing,) = [connection for connection in relay.connections if "dir=write" in connection.target]
            asked = threading.Event()

            def ask_and_sleep(tls: ssl.SSLSocket) -> None:
                renegotiate(tls)
                asked.set()
                stall(3)(tls)

            writing.do(ask_and_sleep)
            assert asked.wait(WAIT)
            time.sleep(0.2)  # the request arrives; nothing tells when

            def write() -> float:
                channel.writer.timeout = 1.0
                with pytest.raises(errors.WriteTimeout):
                    channel.writer.write(b"x" * 3_000_000)
                return time.thread_time()

            started = time.monotonic()
            assert in_thread(write)() < 0.5
            assert 0.9 < time.monotonic() - started < 2.5
            channel.writer.abort()
            channel.reader.abort()


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
def test_streams_and_calls_in_both_directions_at_once(relay: TlsRelay, authority: Any, seconds: int) -> None:
    """Nine threads stream and four call for some seconds: every digest is exact, and there is no error."""
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    hammer(f"wss://localhost:{relay.port}", client_side(authority), seconds, seed)
