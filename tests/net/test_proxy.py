"""Proxies: which one is taken, the tunnel through it, and what is said when it does not come about."""

from __future__ import annotations

import ssl
import time
from typing import Any, Optional

import pytest

from iii_sync import errors, register_worker
from iii_sync.net.proxy import Proxy, proxy_for

from ..support.proxy import connect_proxy
from ..support.rawserver import RawPeer, raw_server
from ..support.tls import tls_relay

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def target_of(url: str) -> tuple[str, int]:
    return "127.0.0.1", int(url.rpartition(":")[2])


#: The local engine answers to names of this machine only.
LOCAL: dict[str, Any] = {"headers": {"Host": "localhost"}}


def test_every_socket_goes_through_the_proxy(engine_url: str) -> None:
    """Control and channel; user and password come percent-encoded in the URL."""
    with connect_proxy("us@er:p/a:ss%", to=target_of(engine_url)) as proxy:
        url = f"http://us%40er:p%2Fa:ss%25@{proxy.address}"
        with register_worker("ws://engine.example:49134", proxy=url, **LOCAL) as worker:
            worker.create_channel().writer.close()
    assert proxy.targets == ["engine.example:49134"] * 2


def test_tls_through_the_proxy(local_engine_url: str) -> None:
    """CONNECT first, then TLS with the engine, whose name is checked."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("engine.example").configure_cert(server)
    authority.configure_trust(client)
    with tls_relay(local_engine_url, server) as relay, connect_proxy(to=("127.0.0.1", relay.port)) as proxy:
        options: Any = {"proxy": f"http://{proxy.address}", "ssl_context": client, **LOCAL}
        with register_worker("wss://engine.example", **options) as worker:
            worker.create_channel().writer.close()
        with pytest.raises(errors.ConnectFailedError, match=r"certificate of other\.example is refused"):
            register_worker("wss://other.example", **options)
    assert [connection.server_name for connection in relay.connections] == ["engine.example"] * 2 + ["other.example"]
    assert proxy.targets == ["engine.example:443"] * 2 + ["other.example:443"]


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_the_proxy_of_the_environment(local_engine_url: str, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Taken for hosts elsewhere; addresses in brackets."""
    with connect_proxy(to=target_of(local_engine_url)) as proxy:
        monkeypatch.setenv(variable, f"http://{proxy.address}")
        with register_worker("ws://[2001:db8::1]:49134", **LOCAL):
            pass
        assert proxy.targets == ["[2001:db8::1]:49134"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "a.localhost"])
def test_this_machine_is_reached_directly_unless_asked(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the environment, but the explicit one."""
    monkeypatch.setenv("all_proxy", "http://proxy.example:3128")
    assert proxy_for(host, 1, False, None) is None
    assert proxy_for(host, 1, False, "http://other:1") == Proxy("other", 1, None)
    assert proxy_for("127.evil.example", 1, False, None) is not None


def test_an_explicit_proxy_takes_loopback(local_engine_url: str) -> None:
    """Whoever names a proxy means it."""
    with connect_proxy() as proxy:
        with register_worker(local_engine_url, proxy=proxy.address):
            pass
    assert proxy.targets == [local_engine_url.partition("//")[2]]


@pytest.mark.parametrize(
    ("no_proxy", "host", "exempt"),
    [
        ("example.com", "example.com", True),
        ("example.com", "a.example.com", True),
        (".example.com", "a.example.com", True),
        ("*.example.com", "a.example.com", True),
        ("example.com", "badexample.com", False),
        ("Example.COM", "a.example.com.", True),
        ("other, example.com:49134", "example.com", True),
        ("example.com:1", "example.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:1", "10.1.2.3", False),
        ("[2001:db8::1]:49134", "2001:db8::1", True),
        ("2001:db8::/32", "2001:db8::1", True),
        ("*", "anything", True),
        ("", "anything", False),
    ],
)
def test_no_proxy(monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, exempt: bool) -> None:
    """Names with all below them, addresses, networks; with or without a port."""
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    found: Optional[Proxy] = None if exempt else Proxy("proxy.example", 3128, None)
    assert proxy_for(host, 49134, True, None) == found
    assert proxy_for("elsewhere", 49134, False, None) is None
    assert proxy_for(host, 49134, True, "") is None


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"HTTP/1.1 502 hidden\r\n\r\n", "502 Bad Gateway; it cannot reach engine.example:49134"),
        (b"HTTP/1.1 403 hidden\r\n\r\n", "403 Forbidden"),
        (b"HTTP/1.1 799 hidden\r\n\r\n", "799"),
        (b"hidden\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: hidden\r\n" * 30_000, "larger than"),
    ],
)
def test_a_proxy_that_refuses(answer: bytes, match: str) -> None:
    """The error names the proxy, what it answered, and nothing that it was told."""
    with connect_proxy(answer=answer) as proxy:
        with pytest.raises(errors.ConnectFailedError, match=match) as found:
            register_worker("ws://engine.example:49134", proxy=f"http://user:hidden@{proxy.address}")
        assert proxy.address in str(found.value) and "hidden" not in str(found.value)


@pytest.mark.parametrize(("credentials", "cure"), [("", "give it a user and password"), ("user:hidden@", "not accept")])
def test_a_proxy_that_wants_a_password(credentials: str, cure: str) -> None:
    """407 says whether there was none, or the wrong one."""
    with connect_proxy("user:right") as proxy:
        with pytest.raises(errors.ConnectFailedError, match=f"407.*{cure}") as found:
            register_worker("ws://engine.example:49134", proxy=f"http://{credentials}{proxy.address}")
        assert proxy.address in str(found.value) and "hidden" not in str(found.value)


def test_a_proxy_that_stalls() -> None:
    """The deadline is for the proxy, too, and the error names it; a trickle does not stretch it."""

    def serve(peer: RawPeer) -> None:
        peer.read_request()
        while True:
            peer.sock.sendall(b"HTTP/1.1 200 OK"[:1])
            time.sleep(0.05)

    with raw_server(serve) as proxy:
        started = time.monotonic()
        with pytest.raises(errors.ConnectTimeout, match=f"the proxy 127.0.0.1:{proxy.port}"):
            register_worker("ws://engine.example:1", proxy=f"http://127.0.0.1:{proxy.port}", connect_timeout=0.4)
        assert 0.4 <= time.monotonic() - started < 5


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://user:hidden@proxy.example:1080",
        "https://user:hidden@proxy.example",
        "http://user:hid/hidden@proxy.example",
        "http://user:hidden@proxy.example:port",
        "http://proxy.example:1/path?hidden",
        "http://proxy.example\r\nX: hidden",
        "http://",
        b"http://hidden",
    ],
)
def test_a_proxy_that_cannot_be_used(proxy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused at once, wherever it comes from, without its password."""
    with pytest.raises(errors.ConfigurationError, match="proxy: .*only http") as found:
        register_worker("ws://engine.example:1", proxy=proxy)
    assert "hid" not in str(found.value)
    if isinstance(proxy, str):
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(errors.ConfigurationError, match='http_proxy in the environment: .*proxy=""') as found:
            register_worker("ws://engine.example:1")
        assert "hid" not in str(found.value)
