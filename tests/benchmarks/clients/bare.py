"""The bounds: plain sockets without frames, and what stands in the way of every client that comes near them.

Modes: ``premasked``, frames that were masked beforehand; ``masked``, no frames, but every byte is masked by our C
extension before it leaves; ``threaded``, no frames, but a thread that reads, and one copy for the consumer.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from .. import loops
from ..child import Line, Task


def run(task: Task, line: Line) -> None:
    """Do the task."""
    if task.mode == "premasked":
        _run_premasked(task, line)
    elif task.what == "write":
        writer = _masking_writer(task) if task.mode == "masked" else _plain_writer
        loops.write(task, line, [writer(_dial(task.url)) for _ in task.refs])
    else:
        reader = _received_by_a_thread if task.mode == "threaded" else _received
        loops.read(task, line, [reader(_dial(task.url)) for _ in task.refs])


def _dial(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    sock = socket.create_connection((parts.hostname, parts.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if parts.scheme == "wss":
        return ssl.create_default_context().wrap_socket(sock, server_hostname=parts.hostname)
    return sock


def _plain_writer(sock: socket.socket) -> loops.Writer:
    def close() -> None:
        if isinstance(sock, ssl.SSLSocket):
            sock.unwrap()
        else:
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)

    return loops.Writer(sock.sendall, close)


def _masking_writer(task: Task) -> Callable[[socket.socket], loops.Writer]:
    from iii_sync.wire.mask import mask_into, new_key

    frame = bytearray(task.piece)
    key = bytes(4) if task.check else new_key()  # which leaves what is verified as it is

    def make(sock: socket.socket) -> loops.Writer:
        def write(piece: bytes) -> None:
            mask_into(frame, 0, piece, key, 0)
            sock.sendall(frame)

        return loops.Writer(write, _plain_writer(sock).close)

    return make


def _received_by_a_thread(sock: socket.socket) -> Iterator[loops.Chunk]:
    size = 1024 * 1024
    spare: queue.LifoQueue[bytearray] = queue.LifoQueue()
    filled: queue.SimpleQueue[tuple[bytearray, int]] = queue.SimpleQueue()
    for _ in range(4):
        spare.put(bytearray(size))

    def read() -> None:
        count = -1
        while count:
            window = spare.get()
            count = sock.recv_into(window)
            filled.put((window, count))

    threading.Thread(target=read, daemon=True).start()
    target = memoryview(bytearray(256 * 1024))
    while True:
        window, count = filled.get()
        if not count:
            return
        view = memoryview(window)
        for start in range(0, count, len(target)):
            part = view[start : min(start + len(target), count)]
            target[: len(part)] = part
            yield target[: len(part)]
        spare.put(window)


def _received(sock: socket.socket) -> Iterator[loops.Chunk]:
    view = memoryview(bytearray(256 * 1024))
    while True:
        size = sock.recv_into(view)
        if not size:
            return
        yield view[:size]


def _run_premasked(task: Task, line: Line) -> None:
    from iii_sync.net.connect import Address, Route, connect
    from iii_sync.wire import frames

    address = Address(task.url)

    def open_end(ref: dict[str, str]) -> socket.socket:
        url = address.channel(ref["channel_id"], ref["access_key"], ref["direction"])
        sock = connect(address, url, Route({}, None, ""), 10)
        sock.setblocking(True)
        return sock

    sockets = [open_end(ref) for ref in task.refs]
    if task.what == "read":
        # Frame headers are counted with the payload: ten bytes in 64 KiB.
        loops.read(task, line, [_until_close(each) for each in sockets])
        return
    frame = frames.encode_frame(frames.BINARY, loops.pieces_of(task)[0])

    def writer(sock: socket.socket) -> loops.Writer:
        def close() -> None:
            sock.sendall(frames.close_frame(1000))
            sock.recv(64)

        return loops.Writer(lambda piece: sock.sendall(frame), close)

    loops.write(task, line, [writer(each) for each in sockets])


def _until_close(sock: socket.socket) -> Iterator[loops.Chunk]:
    # The engine may keep the connection after its Close until we answer.
    for chunk in _received(sock):
        yield chunk
        if bytes(chunk[-4:-2]) == b"\x88\x02" or bytes(chunk[-2:]) == b"\x88\x00":
            return
