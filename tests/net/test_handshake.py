"""What goes with every handshake: headers, the token, the request; and what is refused before it could go."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from iii_sync import ChannelReader, ChannelWriter, InitOptions, StreamChannelRef, errors, register_worker
from iii_sync.net.address import Address

from ..support.rawserver import RawPeer, raw_server

WAIT = 20.0


class Recorder:
    """An engine that records requests, knows one channel, and drops its control connections when told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.seen = threading.Semaphore(0)
        self.drop = threading.Event()

    def serve(self, peer: RawPeer) -> None:
        peer.read_request()
        self.requests.append((peer.path, dict(peer.headers)))
        self.seen.release()
        if "/ws/channels/" in peer.path:
            peer.handshake()
            peer.recv_frame()
            return
        peer.introduce()
        while not self.drop.wait(0.01):
            pass
        self.drop.clear()
        peer.reset()

    def next(self) -> tuple[str, dict[str, str]]:
        assert self.seen.acquire(timeout=WAIT)
        return self.requests[-1]


def reference(direction: str) -> StreamChannelRef:
    return StreamChannelRef("c/1", "k&e=y", direction)


def test_headers_and_token_on_every_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control and both ends; after a reconnect with what III_TOKEN is by then."""
    recorder = Recorder()
    monkeypatch.setenv("III_TOKEN", " first ")
    with raw_server(recorder.serve) as server:
        with register_worker(f"{server.url}/base/?tenant=7", headers={"X-Team": "blué", "Host": "other"}) as worker:
            path, headers = recorder.next()
            assert path == "/base/?tenant=7"
            assert headers["x-team"].encode("latin-1").decode() == "blué" and headers["host"] == "other"
            assert headers["authorization"] == "Bearer first" and "origin" not in headers and "cookie" not in headers
            writer = worker.open_ref(reference("write"))
            assert isinstance(writer, ChannelWriter)
            writer.write(b"x")
            writer.abort()
            path, headers = recorder.next()
            assert path == "/base/ws/channels/c%2F1?tenant=7&key=k%26e%3Dy&dir=write"
            assert headers["authorization"] == "Bearer first" and headers["host"] == "other"
            monkeypatch.setenv("III_TOKEN", "second")
            recorder.drop.set()
            path, headers = recorder.next()
            assert path == "/base/?tenant=7" and headers["authorization"] == "Bearer second"
            reader = worker.open_ref(reference("read"))
            assert isinstance(reader, ChannelReader)
            with pytest.raises(TimeoutError):
                reader.timeout = 0.1
                reader.read(1)
            path, headers = recorder.next()
            assert path == "/base/ws/channels/c%2F1?tenant=7&key=k%26e%3Dy&dir=read"
            assert headers["authorization"] == "Bearer second"
            reader.abort()
            recorder.drop.set()


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
def test_an_authorization_of_the_caller_wins(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """However it is written; there is one."""
    monkeypatch.setenv("III_TOKEN", "unwanted")
    assert InitOptions(headers={name: "Basic eA=="}).all_headers() == {name: "Basic eA=="}
    monkeypatch.setenv("III_TOKEN", "  ")
    assert InitOptions().all_headers() == {}


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nInjected: hidden"},
        {"X": "a\nhidden"},
        {"X": "hidden\0"},
        {"X": "hidden\x85"},
        {"X": "hidden\u2028"},
        {"X": "hidden\udc80"},
        {"X": b"hidden"},
        {"X-A\r\nInjected: hidden": "x"},
        {"Authorization: Bearer hidden": ""},
        {"": "hidden"},
        {"Connection": "hidden"},
        {"sec-websocket-key": "hidden"},
        {"X-A": "hidden", "x-a": "hidden"},
        ["Authorization: hidden"],
        "Authorization: hidden",
    ],
)
def test_headers_that_are_none(headers: Any) -> None:
    """Refused where they are given; the error does not show values."""
    with pytest.raises(errors.ConfigurationError, match="headers") as found:
        InitOptions(headers=headers)
    assert "hidden" not in str(found.value)


@pytest.mark.parametrize("token", ["a\r\nInjected: hidden", "hid\nden", "hidden\x7f", "hidden\udc80"])
def test_a_token_that_is_none(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """Refused by the call that would send it: the worker's, or a channel's."""
    recorder = Recorder()
    with raw_server(recorder.serve) as server:
        with register_worker(server.url) as worker:
            monkeypatch.setenv("III_TOKEN", token)
            writer = worker.open_ref(reference("write"))
            assert isinstance(writer, ChannelWriter)
            with pytest.raises(errors.ConfigurationError, match="III_TOKEN") as found:
                writer.write(b"x")
            assert "hid" not in str(found.value)
            writer.abort()
            recorder.drop.set()
        with pytest.raises(errors.ConfigurationError, match="III_TOKEN"):
            register_worker(server.url)
        assert len(recorder.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "ws://host/\r\nX: hidden",
        "ws://host:1/?token=hid\nden",
        "ws://host/ hidden",
        "ws://host/?token=hidden\udc80",
        "ws://host:port?token=hidden",
        "ws://host:0?token=hidden",
        "ws://host:1#hidden",
        "ws://user:hidden@host",
        "ws://user:hid/den@host",
        "ws://user:hid?den@host",
        "ws://user:hid@hidden@host",
        "ws://[hidden@::1",
        "ws://us\u2100er:hidden@host",
        "user:hidden@host",
        "http://user:hidden@host/?token=hidden",
        "ws:///?token=hidden",
        "ws://a..b?token=hidden",
        b"ws://host?token=hidden",
    ],
)
def test_addresses_that_are_none(url: Any) -> None:
    """Refused by name, without what may be a secret, in the error and in what led to it."""
    with pytest.raises(errors.ConfigurationError) as found:
        Address(url)
    error: Any = found.value
    while error is not None:
        assert "hid" not in str(error)
        error = error.__context__


def test_an_answer_that_echoes_the_request_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the parser quote the peer, and the peer may quote the token."""
    monkeypatch.setenv("III_TOKEN", "hidden")
    answers = iter([b"", b"HTTP/1.1 403 hidden\r\nContent-Length: 6\r\n\r\nhidden", b"HTTP/1.1 hidden\r\n\r\n"])

    def serve(peer: RawPeer) -> None:
        peer.sock.sendall(next(answers) or peer.read_request())
        with peer.sock:
            peer.sock.recv(100_000)

    with raw_server(serve) as server:
        for _ in range(3):
            with pytest.raises(errors.HandshakeRejectedError) as found:
                register_worker(server.url + "/?key=hidden")
            error: Any = found.value
            while error is not None:
                assert "hidden" not in repr(error)
                error = error.__context__


def test_the_representation_of_options_shows_no_secret() -> None:
    """Names of headers, and the host of a proxy."""
    options = InitOptions(
        headers={"Authorization": "Bearer hidden", "X-Key": "hidden"}, proxy="http://user:hidden@proxy.example:1"
    )
    assert "hidden" not in repr(options) and "hidden" not in str(options)
    assert "Authorization" in repr(options) and "proxy.example:1" in repr(options)
