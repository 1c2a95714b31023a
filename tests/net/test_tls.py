"""wss: both kinds of socket through TLS, read and written at once by several threads."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from iii_sync import errors, register_worker

trustme = pytest.importorskip("trustme")

WAIT = 30.0


class TlsFront:
    """Terminates TLS in front of an engine."""

    def __init__(self, target: tuple[str, int], context: ssl.SSLContext) -> None:
        self._target = target
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, plain)

    def _serve(self, plain: socket.socket) -> None:
        self._sockets.append(plain)
        try:
            tls = self._context.wrap_socket(plain, server_side=True)
        except OSError:
            plain.close()
            return
        behind = socket.create_connection(self._target)
        self._sockets += [tls, behind]
        # This side obeys the rule it helps to test: one thread at a time inside OpenSSL.
        lock = threading.Lock()
        tls.setblocking(False)
        behind.setblocking(False)
        import selectors

        try:
            with selectors.DefaultSelector() as selector:
                selector.register(tls, selectors.EVENT_READ)
                selector.register(behind, selectors.EVENT_READ)
                while True:
                    selector.select(0 if tls.pending() else WAIT)
                    for source, sink in ((tls, behind), (behind, tls)):
                        try:
                            with lock:
                                data = source.recv(65536)
                        except (BlockingIOError, ssl.SSLWantReadError):
                            continue
                        if not data:
                            return
                        self._send(sink, data)
        except OSError:
            pass
        finally:
            for sock in (tls, behind):
                sock.close()

    def _send(self, sink: socket.socket, data: bytes) -> None:
        from iii_sync.net.waiting import wait_for_socket

        view = memoryview(data)
        while view:
            try:
                view = view[sink.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                wait_for_socket(sink, WAIT, write=True)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            try:
                sock.close()
            except OSError:
                pass
        for thread in self._threads:
            thread.join(WAIT)


@pytest.fixture(scope="module")
def authority() -> Any:
    return trustme.CA()


@pytest.fixture
def front(engine_url: str, authority: Any) -> Iterator[TlsFront]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    front = TlsFront(("127.0.0.1", int(engine_url.rpartition(":")[2])), context)
    yield front
    front.close()


def test_calls_and_streams_in_both_directions_at_once(front: TlsFront, authority: Any) -> None:
    """Sixteen threads call while four channels of 8 MB run: exact, and no error."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    data = random.Random(1).randbytes(8_000_000)
    failures: list[BaseException] = []
    with register_worker(f"wss://localhost:{front.port}", ssl_context=context) as worker:
        echo = worker.register_function(f"echo-{worker.worker_id}", lambda d: d).id

        def call(number: int) -> None:
            try:
                for index in range(40):
                    payload = [number, index, "x" * (index * 300)]
                    assert worker.trigger(echo, payload) == payload
            except BaseException as exc:
                failures.append(exc)

        def stream() -> None:
            try:
                channel = worker.create_channel()
                writer = threading.Thread(target=write, args=(channel,))
                writer.start()
                assert channel.reader.read() == data and channel.reader.complete
                writer.join(WAIT)
            except BaseException as exc:
                failures.append(exc)

        def write(channel: object) -> None:
            try:
                with channel.writer as f:  # type: ignore[attr-defined]
                    for start in range(0, len(data), 300_000):
                        f.write(data[start : start + 300_000])
            except BaseException as exc:
                failures.append(exc)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
        threads += [threading.Thread(target=stream) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT * 2)
        assert not any(thread.is_alive() for thread in threads)
    assert failures == []


def test_an_unknown_authority_is_refused(front: TlsFront) -> None:
    """Verification is on unless a context says otherwise."""
    with pytest.raises(errors.ConnectFailedError, match="(?i)certificate"):
        register_worker(f"wss://localhost:{front.port}")


def test_the_name_is_checked(front: TlsFront, authority: Any) -> None:
    """A certificate for another host is not enough."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with pytest.raises(errors.ConnectFailedError, match="(?i)certificate|hostname"):
        register_worker(f"wss://127.0.0.1:{front.port}", ssl_context=context)


def test_a_plain_server_behind_a_wss_address(engine_url: str) -> None:
    """The TLS handshake meets plain HTTP: an error, not a hang."""
    with pytest.raises((errors.ConnectFailedError, errors.HandshakeRejectedError, errors.ConnectTimeout)):
        register_worker("wss" + engine_url[2:], connect_timeout=3)
