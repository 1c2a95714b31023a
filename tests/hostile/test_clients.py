"""Clients that mean harm to the local engine, and a normal worker beside them whose calls go on."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Optional
from urllib.parse import urlsplit

import pytest
import websocket

import iii_sync
from iii_sync.engine import control
from iii_sync.engine import http as engine_http
from iii_sync.engine.hub import Hub
from iii_sync.engine.local import LocalEngine

from ..engine.peers import UPGRADE, connect, end_url, http, raw, receive_frame, worker
from ..engine.serving import serving, serving_http
from ..support.rawserver import server_frame
from .memory import MiB, bounded, note, rss
from .test_frames import VIOLATIONS

WAIT = 20.0

AIOHTTP = tuple(int(part) for part in metadata.version("aiohttp").split(".")[:2])


def dial(url: str) -> socket.socket:
    """A bare TCP connection."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), WAIT)


def upgraded(url: str, path: str = "/") -> socket.socket:
    """A TCP connection behind its upgrade."""
    sock = dial(url)
    headers = {"Host": urlsplit(url).netloc, **UPGRADE}
    sock.sendall(f"GET {path} HTTP/1.1\r\n".encode() + b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items()))
    sock.sendall(b"\r\n")
    head = b""
    while b"\r\n\r\n" not in head:
        part = sock.recv(4096)
        assert part, head
        head += part
    assert b" 101 " in head
    return sock


def until_closed(sock: socket.socket, wait: float = WAIT) -> float:
    """Seconds until the engine closed the connection."""
    started = time.monotonic()
    sock.settimeout(wait)
    with contextlib.suppress(ConnectionError):
        while sock.recv(65536):
            assert time.monotonic() - started < wait
    return time.monotonic() - started


class Normal:
    """A worker that calls itself through the engine."""

    def __init__(self, url: str) -> None:
        self.worker = iii_sync.register_worker(url)
        self.name = f"echo-{time.monotonic()}"
        self.worker.register_function(self.name, lambda data: data)

    def slowest(self, calls: int = 50) -> float:
        """Seconds that the slowest of some calls took."""
        found = 0.0
        for number in range(calls):
            started = time.monotonic()
            assert self.worker.trigger(self.name, number, timeout=WAIT) == number
            found = max(found, time.monotonic() - started)
        return found


@contextlib.contextmanager
def normal(url: str) -> Iterator[Normal]:
    """Run one; at the end it must be as well as before."""
    found = Normal(url)
    with found.worker:
        yield found
        assert found.slowest() < 5
        assert found.worker.get_connection_state() == "connected"


class TestHandshake:
    """Before the upgrade."""

    @pytest.mark.parametrize("port", ["url", "http_url", "stream_url"])
    @pytest.mark.parametrize(
        ("start", "trickle"),
        [
            (b"", b""),
            (b"G", b""),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X"),
            (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\n", b"X"),
        ],
        ids=["silence", "a letter", "headers", "after an answer"],
    )
    def test_slow_loris(self, port: str, start: bytes, trickle: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        """A connection that has not come to the point by the deadline is closed, however it trickles; others are not.

        The point is to be a WebSocket; on the port for HTTP, to ask for something, and again after each answer.
        """
        monkeypatch.setattr(engine_http, "IDLE", 1.0)
        with contextlib.ExitStack() as stack:
            address = stack.enter_context(serving_http(handshake=1.0))
            stack.enter_context(normal(address.url))
            started = time.monotonic()
            sock = stack.enter_context(dial(getattr(address, port)))
            sock.sendall(start)
            sock.settimeout(0.05)
            while True:
                assert time.monotonic() - started < 10, "still open"
                try:
                    if b"" == sock.recv(65536):
                        break
                except socket.timeout:
                    with contextlib.suppress(ConnectionError):
                        sock.sendall(trickle)
                except ConnectionError:
                    break
            assert time.monotonic() - started > 0.8

    def test_what_has_come_to_the_point_takes_its_time(self) -> None:
        """An upload that trickles, a second request, and a consumer that waits outlive a silent connection."""
        with contextlib.ExitStack() as stack:
            address = stack.enter_context(serving_http(handshake=1.0))
            others = stack.enter_context(normal(address.url))
            others.worker.http("POST", "/count")(lambda request: {"bytes": len(request.request_body.read())})
            consumer = stack.enter_context(connect(address.stream_url))
            upload, idle = (stack.enter_context(dial(address.http_url)) for _ in range(2))
            upload.sendall(b"POST /count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\na")
            idle.sendall(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(65536).startswith(b"HTTP/1.1 404")
            silent = stack.enter_context(dial(address.http_url))
            assert until_closed(silent) > 0.2
            upload.sendall(b"bc")
            assert upload.recv(65536).startswith(b"HTTP/1.1 200")
            idle.sendall(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(65536).startswith(b"HTTP/1.1 404")
            consumer.ping()
            assert receive_frame(consumer).opcode == 10

    @pytest.mark.parametrize(
        "junk",
        [
            os.urandom(2000) + b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET " + b"/" * (4 * MiB),
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500_000,
            b"GET / HTTP/1.1\r\nX: " + b"y" * (4 * MiB),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x81\x02{}",
        ],
        ids=["random", "TLS", "HTTP/9.9", "endless path", "endless headers", "endless header", "HTTP/2", "frames"],
    )
    def test_junk_instead_of_http(self, junk: bytes) -> None:
        """It is answered or not, and the connection closed, in bounded memory."""
        with serving(handshake=2.0) as url, normal(url), bounded(48 * MiB), dial(url) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(junk)
            assert until_closed(sock) < 10

    @pytest.mark.parametrize(
        ("host", "origin", "status"),
        [
            ("[::1]:49134", None, 101),
            ("[::1]", "http://[::1]", 101),
            ("[::1]:80", "http://[::1]:81", 403),
            ("[0:0:0:0:0:0:0:1]:5", None, 101),
            ("[::ffff:192.0.2.1]", None, 421),
            ("[2001:db8::1]:49134", "http://[2001:db8::1]:49134", 421),
            ("localhost.evil.example", "http://localhost.evil.example", 421),
            ("127.0.0.1@evil.example", None, 421),
            ("evil.example#127.0.0.1", None, 421),
            ("localhost", "http://localhost@evil.example", 403),
            ("localhost", "https://localhost", 101),
            ("localhost", "file://", 403),
            ("0x7f.1", None, 421),
            ("2130706433", None, 421),
            ("", None, 421),
        ],
    )
    def test_hosts_and_origins(self, local_engine_url: str, host: str, origin: Optional[str], status: int) -> None:
        """Names that merely look like this machine are refused (DNS rebinding), its addresses are served."""
        found = http(local_engine_url, "/", Host=host, Origin=origin, **UPGRADE)[0]
        assert found == status or (status == 421 and found == 400)


class TestFrames:
    """After the upgrade."""

    @pytest.mark.parametrize("name", [name for name in VIOLATIONS if name not in ("masked", "long length")])
    def test_violations(self, local_engine_url: str, name: str) -> None:
        """The connection is closed; nobody else notices."""
        with normal(local_engine_url), upgraded(local_engine_url) as sock:
            sock.sendall(VIOLATIONS[name] + b"\xff" * 50)
            assert until_closed(sock) < 10

    @pytest.mark.skipif(AIOHTTP < (3, 14), reason="aiohttp before 3.14 looks at the size when all of it is there")
    @pytest.mark.parametrize("size", [(64 << 20) + 1, 1 << 40, (1 << 63) - 1, 1 << 63])
    @pytest.mark.parametrize("opcode", [0x81, 0x82])
    def test_oversize(self, local_engine_url: str, size: int, opcode: int) -> None:
        """A message above 64 MiB drops its connection as soon as it is announced."""
        with normal(local_engine_url), bounded(32 * MiB), upgraded(local_engine_url) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(struct.pack("!BBQ4s", opcode, 0xFF, size, b"mask"))
                for _ in range(4):
                    sock.sendall(b"x" * MiB)
            assert until_closed(sock) < 10

    def test_oversize_in_fragments(self, local_engine_url: str) -> None:
        """So does one that comes piece by piece."""
        with normal(local_engine_url), bounded(300 * MiB), upgraded(local_engine_url) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(server_frame(1, b"x" * MiB, False))
                for _ in range(70):
                    sock.sendall(server_frame(0, b"x" * MiB, False))
            assert until_closed(sock) < 10

    def test_json_as_deep_and_large_as_can_be(self, local_engine_url: str) -> None:
        """It is dropped, and the connection lives."""
        with normal(local_engine_url), worker(local_engine_url) as peer:
            for text in (
                "[" * 100_000,
                '{"a":' * 100_000 + "1" + "}" * 100_000,
                '{"type":"invokefunction","function_id":"x","data":' + "9" * 100_000 + "}",
                '{"type":"invokefunction","function_id":"x","data":1e999}',
                '{"type":"invokefunction","function_id":"\\ud800","data":1}',
            ):
                peer.peer.send(text)
            peer.sync()


class TestFloods:
    """Clients that send too much, or read too little."""

    def test_a_client_that_never_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It asks for listings without end: its answers do not pile up, and in the end it is dropped."""
        monkeypatch.setattr(control, "STALL", 1.0)
        with serving() as url, normal(url) as others, bounded(96 * MiB), upgraded(url) as sock:
            ask = json.dumps(
                {
                    "type": "invokefunction",
                    "invocation_id": "00000000-0000-4000-8000-000000000001",
                    "function_id": "engine::functions::list",
                    "data": {},
                }
            )
            batch = server_frame(1, ask.encode()) * 100
            sock.settimeout(WAIT)
            sent = 0
            with pytest.raises(ConnectionError):
                while sent < 400_000:
                    sock.sendall(batch)
                    sent += 100
                    if sent % 2000 == 0:
                        others.slowest(1)

    def test_pings_of_a_client_that_never_reads(self, local_engine_url: str) -> None:
        """It is not read from until it reads."""
        with normal(local_engine_url), bounded(64 * MiB), upgraded(local_engine_url) as sock:
            sock.settimeout(1.0)
            with pytest.raises(socket.timeout):
                for _ in range(2_000):
                    sock.sendall(server_frame(9, b"p" * 100) * 1000)

    def test_a_flood_of_calls(self, local_engine_url: str) -> None:
        """20,000 calls of nothing, and 5,000 registrations, at once: everybody else is served meanwhile."""
        with normal(local_engine_url) as others, worker(local_engine_url) as peer, bounded(96 * MiB):
            peer.peer.settimeout(WAIT)
            call = {"type": "invokefunction", "function_id": "no::such", "data": "x" * 100}
            batch = server_frame(1, json.dumps(call).encode()) * 1000
            slowest = 0.0
            for number in range(20):
                raw(peer.peer).sendall(batch)
                for own in range(250):
                    peer.send(type="registerfunction", id=f"flood-{number}-{own}")
                slowest = max(slowest, others.slowest(2))
            peer.sync()
            assert slowest < 5
            print(f"the slowest call beside the flood took {slowest * 1000:.0f} ms")

    def test_a_reader_that_never_reads(self, local_engine_url: str) -> None:
        """Back-pressure reaches the writer; the memory stays at what a channel holds."""
        with normal(local_engine_url), worker(local_engine_url) as peer, bounded(64 * MiB):
            writer_ref, reader_ref = peer.create_channel()
            with connect(end_url(local_engine_url, reader_ref)), connect(end_url(local_engine_url, writer_ref)) as end:
                end.settimeout(1.0)
                sent = 0
                with pytest.raises((websocket.WebSocketTimeoutException, socket.timeout)):
                    while sent < 400:
                        end.send_binary(b"x" * MiB)
                        sent += 1
                assert sent < 100

    def test_channels_that_nobody_connects(self) -> None:
        """Thousands of them are gone after their time, and so is a reader that waited for a writer."""
        now = [0.0]
        hub = Hub(ttl=300, now=lambda: now[0])
        with serving(hub=hub, sweep_interval=0.1) as url, worker(url) as peer:
            for _ in range(2_000):
                writer_ref, reader_ref = peer.create_channel(buffer_size=1024)
            with connect(end_url(url, reader_ref)) as waiting:
                now[0] = 301.0
                assert receive_frame(waiting).opcode == 8
            end = time.monotonic() + WAIT
            while len(hub):
                assert time.monotonic() < end, f"{len(hub)} channels are left"
                time.sleep(0.05)
            del writer_ref


def crowd(count: int) -> None:
    """Idle connections, half of them upgraded, beside a normal worker on an engine in a process of its own."""
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(LocalEngine(in_process=False))
        others = stack.enter_context(normal(engine.url))
        alone = others.slowest()
        pid = others.worker.trigger(others.name, 0)  # settled: nothing of the start is measured
        assert pid == 0
        process = engine._running._process  # type: ignore[union-attr]
        before = rss(process.pid)
        for number in range(count):
            stack.enter_context(upgraded(engine.url) if number % 2 else dial(engine.url))
        grown = rss(process.pid) - before
        crowded = others.slowest(200)
        note(
            f"the engine grew by {grown / MiB:.1f} MiB for {count:,} connections, {grown / 1024 / count:.1f} KiB each; "
            f"slowest call {crowded * 1000:.0f} ms, alone {alone * 1000:.0f}"
        )
        assert crowded < 3
        assert grown < count * 100 * 1024


def test_a_crowd_of_idle_connections() -> None:
    """300 of them cost little, and calls go on."""
    crowd(300)


@pytest.mark.slow
def test_5000_idle_connections() -> None:
    """And 5,000 hardly more."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 5_500:
        pytest.skip(f"a process may have {hard:,} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (5_500, hard))
    try:
        crowd(5_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
