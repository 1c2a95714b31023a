"""The bounds: plain sockets without frames, and what stands in the way of every client that comes near them.

Modes: ``premasked``, frames that were masked beforehand; ``masked``, no frames, but every byte is masked by our C
extension before it leaves; ``threaded``, no frames, but a thread that reads, and one copy for the consumer; ``least``,
both of that through an engine, in frames as large as ours: what any client of our kind has to do, without its errors,
deadlines, limits and marks.
"""

from __future__ import annotations

import queue
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator
from functools import partial
from typing import Union
from urllib.parse import urlsplit

from .. import loops
from ..child import Line, Task


def run(task: Task, line: Line) -> None:
    """Do the task."""
    if task.mode in ("premasked", "least"):
        _run_on_engine(task, line)
    elif task.what == "write":
        writer = partial(_masking_writer, task) if task.mode == "masked" else _plain_writer
        loops.write(task, line, [writer(_dial(task.url)) for _ in task.refs])
    else:
        sockets = [_dial(task.url) for _ in task.refs]
        threaded = task.mode == "threaded"
        loops.read(task, line, _received_by_a_thread(sockets) if threaded else [_received(each) for each in sockets])


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


def _masking_writer(task: Task, sock: socket.socket) -> loops.Writer:
    from iii_sync.wire.mask import mask_into, new_key

    frame = bytearray(task.piece)
    key = bytes(4) if task.check else new_key()  # which leaves what is verified as it is

    def write(piece: bytes) -> None:
        mask_into(frame, 0, piece, key, 0)
        sock.sendall(frame)

    return loops.Writer(write, _plain_writer(sock).close)


def _received_by_a_thread(sockets: list[socket.socket]) -> list[Iterator[loops.Chunk]]:
    """One thread receives for all, as ours does."""
    spare: queue.LifoQueue[bytearray] = queue.LifoQueue()
    for _ in range(4 * len(sockets)):
        spare.put(bytearray(1024 * 1024))
    filled: list[queue.SimpleQueue[tuple[bytearray, int]]] = [queue.SimpleQueue() for _ in sockets]

    def receive() -> None:
        with selectors.DefaultSelector() as selector:
            for each in zip(sockets, filled):
                selector.register(each[0], selectors.EVENT_READ, each)
            while selector.get_map():
                for key, _ in selector.select():
                    sock, target = key.data
                    window = spare.get()
                    count = sock.recv_into(window)
                    target.put((window, count))
                    if not count or _ends(window, count):
                        selector.unregister(sock)

    def consume(source: queue.SimpleQueue[tuple[bytearray, int]]) -> Iterator[loops.Chunk]:
        target = memoryview(bytearray(256 * 1024))
        over = False
        while not over:
            window, count = source.get()
            view = memoryview(window)
            for start in range(0, count, len(target)):
                part = view[start : min(start + len(target), count)]
                target[: len(part)] = part
                yield target[: len(part)]
            over = not count or _ends(window, count)
            spare.put(window)

    threading.Thread(target=receive, daemon=True).start()
    return [consume(each) for each in filled]


def _received(sock: socket.socket) -> Iterator[loops.Chunk]:
    view = memoryview(bytearray(256 * 1024))
    while True:
        size = sock.recv_into(view)
        if not size:
            return
        yield view[:size]


def _run_on_engine(task: Task, line: Line) -> None:
    from iii_sync.net.connect import Address, Route, connect

    address = Address(task.url)

    def open_end(ref: dict[str, str]) -> socket.socket:
        url = address.channel(ref["channel_id"], ref["access_key"], ref["direction"])
        sock = connect(address, url, Route({}, None, ""), 10)
        sock.setblocking(True)
        return sock

    sockets = [open_end(ref) for ref in task.refs]
    if task.what == "read":
        # Frame headers are counted with the payload: ten bytes in 64 KiB or more.
        least = task.mode == "least"
        loops.read(task, line, _received_by_a_thread(sockets) if least else [_until_close(each) for each in sockets])
    else:
        writer = _joining_writer if task.mode == "least" else _premasked_writer
        loops.write(task, line, [writer(task, each) for each in sockets])


def _premasked_writer(task: Task, sock: socket.socket) -> loops.Writer:
    from iii_sync.wire import frames

    frame = frames.encode_frame(frames.BINARY, loops.pieces_of(task)[0])
    return loops.Writer(lambda piece: sock.sendall(frame), partial(_close, sock))


def _joining_writer(task: Task, sock: socket.socket) -> loops.Writer:
    from iii_sync.wire import frames

    at, most, used = 48, max(768 * 1024, task.piece), 0
    frame = memoryview(bytearray(at + most))
    key = frames.new_key()

    def write(piece: bytes) -> None:
        nonlocal used
        frames.mask_into(frame.obj, at + used, piece, key, used)  # type: ignore[arg-type]
        used += len(piece)
        if used + len(piece) > most:
            flush()

    def flush() -> None:
        nonlocal used, key
        if used:
            begin = frames.header_into(frame, frames.BINARY, used, key, at)
            sock.sendall(frame[begin : at + used])
            used, key = 0, frames.new_key()

    def close() -> None:
        flush()
        _close(sock)

    return loops.Writer(write, close, flush)


def _close(sock: socket.socket) -> None:
    from iii_sync.wire import frames

    sock.sendall(frames.close_frame(1000))
    sock.recv(64)


def _until_close(sock: socket.socket) -> Iterator[loops.Chunk]:
    for chunk in _received(sock):
        yield chunk
        if _ends(chunk, len(chunk)):
            return


def _ends(data: Union[loops.Chunk, bytearray], size: int) -> bool:
    """Whether a Close frame comes last: the engine may keep the connection behind it until we answer."""
    tail = bytes(memoryview(data)[max(0, size - 4) : size])
    return tail[:2] == b"\x88\x02" or tail[-2:] == b"\x88\x00"
