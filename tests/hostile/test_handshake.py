"""Answers to the opening handshake that no engine should give, on the control socket and on channels."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from websocket._handshake import CookieJar

import iii_sync
from iii_sync import errors

from ..support.rawserver import RawPeer, raw_server
from ..support.threads import in_thread
from .engine import WAIT, HostileEngine, hostile_engine, ref, victim
from .memory import MiB, bounded

SECRET = "III-SECRET-TOKEN"

UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"

ANSWERS: dict[str, bytes] = {
    "200": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "400 with a terabyte": b"HTTP/1.1 400 No\r\nContent-Length: 1099511627776\r\n\r\n" + b"x" * MiB,
    "500 with a length of nonsense": b"HTTP/1.1 500 No\r\nContent-Length: -5x\r\n\r\n",
    "status of 5000 digits": b"HTTP/1.1 " + b"1" * 5000 + b" OK\r\n\r\n",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n",
    "no accept": UPGRADE + b"\r\n",
    "wrong accept": UPGRADE + b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
    "garbage": bytes(range(256)) * 10 + b"\r\n\r\n",
    "no lines": b"\xff" * (300 * 1024),
    "one endless header": b"HTTP/1.1 101 OK\r\nX: " + b"x" * (8 * MiB),
    "endless headers": b"HTTP/1.1 101 OK\r\n" + b"X: y\r\n" * (MiB),
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x28",
    "nothing": b"",
    "frames at once": b"\x81\x02{}\x88\x00",
}


class Answering:
    """Answers every upgrade with the same bytes, keeps what was asked, and hangs up."""

    def __init__(self, answer: Callable[[RawPeer], None]) -> None:
        self.answer = answer
        self.requests: list[bytes] = []

    def __call__(self, peer: RawPeer) -> None:
        self.requests.append(peer.read_request())
        self.answer(peer)
        with contextlib.suppress(OSError):
            peer.sock.shutdown(socket.SHUT_WR)


def refusal(url: str, **options: object) -> errors.IIISyncError:
    """What ``register_worker`` raises."""
    with pytest.raises(errors.IIISyncError) as caught:
        iii_sync.register_worker(url, headers={"Authorization": SECRET}, **options)  # type: ignore[arg-type]
    text = f"{caught.value!r} {caught.value}"
    assert SECRET not in text and len(text) < 1500 and str(caught.value).isprintable(), text
    return caught.value


def in_pieces(data: bytes) -> Callable[[RawPeer], None]:
    """Send it; a victim that has hung up is fine."""

    def send(peer: RawPeer) -> None:
        with contextlib.suppress(OSError):
            peer.sock.sendall(data)

    return send


@pytest.mark.parametrize("name", list(ANSWERS))
def test_control_socket(name: str) -> None:
    """An error of the package, soon, short, and without secrets; one request and no second try."""
    serve = Answering(in_pieces(ANSWERS[name]))
    with raw_server(serve) as server, bounded(32 * MiB):
        error = refusal(server.url, connect_timeout=WAIT)
        assert isinstance(error, errors.EngineConnectionError), error
        assert len(serve.requests) == 1


@pytest.mark.parametrize("name", list(ANSWERS))
def test_channel_socket(name: str) -> None:
    """The end says so; the control connection and another channel go on."""
    with answering_engine(in_pieces(ANSWERS[name])) as engine, victim(engine) as worker:
        reader = worker.worker.open_ref(ref("attacked"))
        assert isinstance(reader, iii_sync.ChannelReader)
        with pytest.raises((errors.EngineConnectionError, errors.ChannelError)) as caught:
            reader.read()
        assert len(str(caught.value)) < 500
        worker.check_bystander()
        worker.check_calls()


@contextlib.contextmanager
def answering_engine(answer: Callable[[RawPeer], None]) -> Iterator[HostileEngine]:
    """An engine that answers the channel ``attacked`` in its own way."""
    with hostile_engine() as engine:
        polite = engine.serve_channel

        def serve_channel(peer: RawPeer, name: str) -> None:
            if name == "attacked":
                answer(peer)
                with contextlib.suppress(OSError):
                    peer.sock.shutdown(socket.SHUT_WR)
            else:
                polite(peer, name)

        engine.serve_channel = serve_channel  # type: ignore[method-assign,assignment]
        yield engine


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 399])
def test_redirects_are_not_followed(status: int) -> None:
    """Neither the token nor anything else goes to where a redirect leads, and the error names the status."""
    asked: list[bytes] = []
    with raw_server(lambda peer: asked.append(peer.read_request())) as other:
        answer = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {other.url}/\r\nContent-Length: 0\r\n\r\n".encode()
        with raw_server(Answering(in_pieces(answer))) as server:
            error = refusal(server.url)
            assert isinstance(error, errors.HandshakeRejectedError) and error.status == status
    assert not asked


@pytest.mark.parametrize(
    "header",
    ["Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: mqtt", "sec-websocket-EXTENSIONS: x"],
)
def test_what_was_not_asked_for_is_refused(header: str) -> None:
    """An extension would change the meaning of every frame."""

    def serve(peer: RawPeer) -> None:
        peer.handshake(header)

    with raw_server(serve) as server:
        assert isinstance(refusal(server.url), errors.HandshakeRejectedError)


def test_cookies_are_not_kept() -> None:
    """A cookie of one engine reaches no other host, nor this one again, and injects no header anywhere."""
    seen: list[bytes] = []
    cookie = 'Set-Cookie: a="\\015\\012X-Evil: 1"; Domain=127.0.0.1\r\nset-cookie : b=2; domain=127.0.0.1'

    def serve(peer: RawPeer) -> None:
        seen.append(peer.read_request())
        peer.handshake(cookie)

    with raw_server(serve) as server:
        for _ in range(2):
            with pytest.raises(errors.IIISyncError):
                iii_sync.register_worker(server.url, connect_timeout=0.3)
    assert len(seen) == 2 and all(b"evil" not in request.lower() for request in seen)
    assert all(b"cookie" not in request.lower() for request in seen)
    assert not any(CookieJar.get("127.0.0.1"))


@pytest.mark.parametrize("what", ["silence", "bytes", "headers"])
def test_slow_answers_end_at_the_deadline(what: str) -> None:
    """A peer that trickles does not stretch ``connect_timeout``."""
    over = threading.Event()

    def trickle(peer: RawPeer) -> None:
        part = {"silence": b"", "bytes": b"x", "headers": b"X: y\r\n"}[what]
        peer.sock.sendall(b"HTTP/1.1 ")
        if what == "headers":
            peer.sock.sendall(b"101 OK\r\n")
        with contextlib.suppress(OSError):
            while not over.wait(0.02):
                peer.sock.sendall(part)

    with raw_server(Answering(trickle)) as server:
        started = time.monotonic()
        try:
            assert isinstance(refusal(server.url, connect_timeout=0.7), errors.ConnectTimeout)
        finally:
            over.set()
        assert 0.6 < time.monotonic() - started < 5


def test_the_body_of_a_refusal_is_not_waited_for() -> None:
    """The status says it all."""
    with (
        answering_engine(
            lambda peer: peer.sock.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 100000\r\n\r\n")
        ) as engine,
        victim(engine) as worker,
    ):
        reader = worker.worker.open_ref(ref("attacked"))
        assert isinstance(reader, iii_sync.ChannelReader)
        with pytest.raises(errors.ChannelNotFoundError):
            reader.read()


def test_interrupted_by_shutdown() -> None:
    """A channel end that hangs in its handshake ends with its own deadline; shutdown does not wait for it."""
    over = threading.Event()
    asked = threading.Event()

    def hang(peer: RawPeer) -> None:
        asked.set()
        over.wait(WAIT)

    with answering_engine(hang) as engine:
        with victim(engine, connect_timeout=2.0) as worker:
            reader = worker.worker.open_ref(ref("attacked"))
            assert isinstance(reader, iii_sync.ChannelReader)
            blocked = in_thread(lambda: reader.read())
            assert asked.wait(WAIT)
        try:
            with pytest.raises(errors.IIISyncError):
                blocked()
        finally:
            over.set()
