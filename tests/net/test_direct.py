"""System calls on sockets: the C extension and the socket's own methods do the same."""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from iii_sync.net import direct

from ..support.process import run

#: A size that keeps the GIL and one that lets go of it.
SMALL, LARGE = 64 * 1024, 64 * 1024 + 1


def implementations() -> list[Any]:
    """Both, where the extension was built."""
    found = [pytest.param(SimpleNamespace(send=direct._send, recv_into=direct._recv_into), id="python")]
    with contextlib.suppress(ImportError):
        found.append(pytest.param(importlib.import_module("iii_sync.net._direct"), id="c"))
    return found


@pytest.fixture(params=implementations())
def calls(request: pytest.FixtureRequest) -> Any:
    """``send`` and ``recv_into``."""
    return request.param


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection, which do not block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


def received(calls: Any, sock: socket.socket, size: int) -> bytes:
    """Receive so much, waiting for it."""
    got = bytearray()
    buffer = bytearray(LARGE)
    sock.setblocking(True)  # to wait by peeking; the calls do not block all the same
    sock.settimeout(10)
    while len(got) < size:
        assert sock.recv(1, socket.MSG_PEEK), "the stream ended early"
        count = calls.recv_into(sock, memoryview(buffer)[: size - len(got)])
        got += buffer[:count]
    return bytes(got)


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, LARGE])
def test_bytes_arrive(calls: Any, pair: tuple[socket.socket, socket.socket], size: int) -> None:
    """What was counted as sent arrives as it was, for a piece of any size."""
    near, far = pair
    data = os.urandom(size)
    sent = calls.send(near, memoryview(data))
    assert 0 <= sent <= size and (sent or not size)
    assert received(calls, far, sent) == data[:sent]


@pytest.mark.parametrize("size", [1, SMALL, LARGE])
def test_full_and_empty(calls: Any, pair: tuple[socket.socket, socket.socket], size: int) -> None:
    """A socket that takes no more, or has nothing, raises at once; and nothing of what it took is lost."""
    near, far = pair
    with pytest.raises(BlockingIOError):
        calls.recv_into(near, bytearray(size))
    data, sent = os.urandom(1 << 20), bytearray()
    with pytest.raises(BlockingIOError):
        while True:
            sent += data[: calls.send(near, data)]
    assert received(calls, far, len(sent)) == bytes(sent)


@pytest.mark.parametrize("size", [1, SMALL, LARGE])
def test_the_end(calls: Any, pair: tuple[socket.socket, socket.socket], size: int) -> None:
    """A peer that went is 0 bytes; sending to it fails with an error, and not with a signal."""
    near, far = pair
    far.close()
    near.setblocking(True)
    assert near.recv(1, socket.MSG_PEEK) == b""
    assert calls.recv_into(near, bytearray(size)) == 0
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(100):
            calls.send(near, bytes(size))
            near.recv(1)


@pytest.mark.parametrize("size", [1, SMALL, LARGE])
def test_a_reset(calls: Any, pair: tuple[socket.socket, socket.socket], size: int) -> None:
    """A connection that was reset says so."""
    near, far = pair
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    assert select.select([near], [], [], 10)[0]
    with pytest.raises(ConnectionResetError):
        calls.recv_into(near, bytearray(size))


def test_a_closed_socket(calls: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    """Closed here: an OSError, whatever has the number by now."""
    near, _ = pair
    near.close()
    with pytest.raises(OSError) as sending:
        calls.send(near, b"x")
    with pytest.raises(OSError) as receiving:
        calls.recv_into(near, bytearray(1))
    assert sending.value.errno == receiving.value.errno == errno.EBADF


def test_what_is_no_buffer(calls: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    """Text, a buffer that cannot be written and one with gaps are refused, and nothing is sent."""
    near, far = pair
    for wrong in ("text", None, 5):
        with pytest.raises(TypeError):
            calls.send(near, wrong)
        with pytest.raises(TypeError):
            calls.recv_into(near, wrong)
    with pytest.raises((TypeError, BufferError)):
        calls.recv_into(near, b"read only")
    with pytest.raises(BufferError):
        calls.send(near, memoryview(bytes(10))[::2])
    with pytest.raises(BlockingIOError):
        far.recv(1)


@pytest.mark.skipif(not direct.in_c, reason="the C extension was not built, or not asked for")
class TestTheExtensionItself:
    """It is called with what Python checks elsewhere, so it checks for itself."""

    def test_arguments(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """Too few, too many, and what is no socket."""
        call: Any
        for call in (direct.send, direct.recv_into):
            for arguments in ((), (pair[0],), (pair[0], bytearray(1), 0), (None, bytearray(1)), ("1", bytearray(1))):
                with pytest.raises(TypeError):
                    call(*arguments)

    @pytest.mark.parametrize("size", [SMALL, LARGE])
    def test_a_blocking_socket_does_not_block(self, pair: tuple[socket.socket, socket.socket], size: int) -> None:
        """The GIL may be kept, so waiting would stop the whole process."""
        near, _ = pair
        near.setblocking(True)
        with pytest.raises(BlockingIOError):
            direct.recv_into(near, bytearray(size))

    def test_large_pieces_from_many_threads_beside_one_that_computes(self) -> None:
        """Whether the GIL is kept or not, each thread's bytes are its own."""
        stop = threading.Event()

        def compute() -> None:
            while not stop.is_set():
                sum(range(1000))

        def transfer(number: int, wrong: list[int]) -> None:
            near, far = socket.socketpair()
            with near, far:
                data = bytes([number]) * (1 << 20)
                buffer = bytearray(1 << 20)
                for _ in range(20):
                    sent = direct.send(near, data)
                    got = 0
                    while got < sent:
                        count = direct.recv_into(far, memoryview(buffer)[got:])
                        wrong += [number] * (buffer[got : got + count] != data[:count])
                        got += count

        wrong: list[int] = []
        busy = threading.Thread(target=compute)
        threads = [threading.Thread(target=transfer, args=(number, wrong)) for number in range(8)]
        for thread in (busy, *threads):
            thread.start()
        for thread in threads:
            thread.join(30)
        stop.set()
        busy.join(10)
        assert not any(thread.is_alive() for thread in (busy, *threads))
        assert not wrong


@pytest.mark.parametrize("wanted", ["c", "numpy", "python", ""])
def test_which_is_picked(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``III_SYNC_ACCELERATOR`` decides, as far as the extension is there; without it that is called."""
    monkeypatch.setenv("III_SYNC_ACCELERATOR", wanted)
    program = run("from iii_sync.net import direct; print(direct.in_c)")
    built = importlib.util.find_spec("iii_sync.net._direct") is not None
    assert program.lines == [str(built and wanted in ("c", ""))]
