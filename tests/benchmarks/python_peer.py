"""The fast peer in Python, for TLS and for machines without a C compiler; see ``fast_peer.c`` for what it says.

Large ``recv_into`` and ``sendall`` of frames made beforehand: what it costs is OpenSSL's and the kernel's.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import re
import socket
import ssl
import sys
import threading
import time
import zlib
from dataclasses import dataclass
from typing import Optional

_WINDOW = 1024 * 1024
_CLOSE = b"\x88\x02\x03\xe8"


@dataclass
class Tally:
    """What one connection has seen."""

    payload: int = 0
    messages: int = 0
    first: float = 0.0
    last: float = 0.0
    crc: int = 0


class Peer:
    """Serves connections as the options say."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._raw = options.mode.startswith("raw")
        self._going = threading.Event()
        self._context: Optional[ssl.SSLContext] = None
        if options.certificate:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(options.certificate)

    def run(self) -> None:
        """Serve as many connections as were asked for."""
        threads = []
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            print(listener.getsockname()[1], flush=True)
            threading.Thread(target=self._await_go, daemon=True).start()
            for _ in range(self._options.connections):
                threads.append(threading.Thread(target=self._serve, args=(listener.accept()[0],)))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _await_go(self) -> None:
        if sys.stdin.readline():
            self._going.set()

    def _serve(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            sock = self._context.wrap_socket(sock, server_side=True)
        tally = Tally()
        if not self._raw:
            _handshake(sock)
        print("ready", flush=True)
        try:
            if "source" in self._options.mode:
                self._give(sock, tally)
            else:
                self._take(sock, tally)
        except OSError:
            pass  # it left without a goodbye; what was seen counts
        if isinstance(sock, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                sock.unwrap()
        sock.close()
        print(f"end {tally.payload} {tally.messages} {tally.first} {tally.last} {tally.crc} 0", flush=True)

    def _give(self, sock: socket.socket, tally: Tally) -> None:
        size = self._options.frame
        payload = bytes((j * 31 + (j >> 8)) & 0xFF for j in range(size))
        count = max(1, _WINDOW // size)
        batch = ((b"" if self._raw else _header(size)) + payload) * count
        sock.sendall(batch[: len(batch) // count])  # so that the reader knows it is connected
        tally.payload += size
        tally.messages += 1
        self._going.wait()
        tally.first = tally.last = time.monotonic()
        while tally.last < tally.first + self._options.seconds:
            sock.sendall(batch)
            tally.payload += size * count
            tally.messages += count
            tally.last = time.monotonic()
        if not self._raw:
            sock.sendall(_CLOSE)
        if isinstance(sock, ssl.SSLSocket):
            sock.unwrap()
        else:
            sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass

    def _take(self, sock: socket.socket, tally: Tally) -> None:
        window = memoryview(bytearray(_WINDOW))
        head = bytearray()
        left = at = 0
        while True:
            size = sock.recv_into(window)
            if not size:
                return
            data, before = window[:size], tally.payload
            if self._raw:
                self._count(tally, data, b"\0\0\0\0", 0)
            while data and not self._raw:
                if left:
                    piece = data[:left]
                    self._count(tally, piece, bytes(head[-4:]), at)
                    left, at, data = left - len(piece), at + len(piece), data[len(piece) :]
                    if not left:
                        head.clear()
                    continue
                take = _head_size(head) - len(head)
                head += data[:take]
                data = data[take:]
                if len(head) < _head_size(head):
                    continue
                if head[0] & 15 == 8:
                    sock.sendall(_CLOSE)
                    sock.shutdown(socket.SHUT_WR)
                    return
                left, at = _length(head), 0
                if left:
                    tally.messages += 1
                else:
                    head.clear()
            if tally.payload != before:
                tally.last = time.monotonic()
                tally.first = tally.first or tally.last

    def _count(self, tally: Tally, data: memoryview, key: bytes, at: int) -> None:
        tally.payload += len(data)
        if self._options.check:
            plain = bytes(byte ^ key[(at + index) & 3] for index, byte in enumerate(data))
            tally.crc = zlib.crc32(plain, tally.crc)


def _head_size(head: bytearray) -> int:
    """Return how many bytes the header has, as far as its beginning tells."""
    if len(head) < 2:
        return 2
    return 2 + {126: 2, 127: 8}.get(head[1] & 127, 0) + (4 if head[1] & 128 else 0)


def _length(head: bytearray) -> int:
    short = head[1] & 127
    return short if short < 126 else int.from_bytes(head[2 : 4 if short == 126 else 10], "big")


def _header(size: int) -> bytes:
    if size < 126:
        return bytes((0x82, size))
    return b"\x82\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x82\x7f" + size.to_bytes(8, "big")


def _handshake(sock: socket.socket) -> None:
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)  # what follows the request is not ours
        if not byte:
            raise ConnectionError("left in the handshake")
        request += byte
    found = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)
    assert found is not None
    digest = hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate")
    parser.add_argument("mode")
    parser.add_argument("frame", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("connections", type=int)
    parser.add_argument("check", type=int)
    Peer(parser.parse_args()).run()


if __name__ == "__main__":
    main()
