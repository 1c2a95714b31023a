"""A WebSocket server in a test's own hands: byte-exact, and as badly behaved as the test wants."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any, Callable, Optional

TIMEOUT = 20.0


class RawPeer:
    """One accepted connection; every wait ends after TIMEOUT seconds."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(TIMEOUT)
        self.path = ""
        self.headers: dict[str, str] = {}

    def read_request(self) -> bytes:
        """Read the head of the HTTP request."""
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            byte = self.sock.recv(1)
            if not byte:
                raise EOFError(data)
            data += byte
        lines = data.decode("latin-1").split("\r\n")
        self.path = lines[0].split(" ")[1]
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:] if ": " in line)}
        return data

    def handshake(self, *headers: str) -> None:
        """Answer the upgrade as a server should, and with more headers as it perhaps should not."""
        if not self.headers:
            self.read_request()
        key = self.headers["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key).digest()).decode()
        self.sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: "
            + accept.encode()
            + b"\r\n"
            + "".join(f"{header}\r\n" for header in headers).encode()
            + b"\r\n"
        )

    def recv_exactly(self, size: int) -> bytes:
        """Receive exactly ``size`` bytes."""
        data = bytearray()
        while len(data) < size:
            part = self.sock.recv(size - len(data))
            if not part:
                raise EOFError(bytes(data))
            data += part
        return bytes(data)

    def recv_frame(self) -> tuple[int, bytes]:
        """Receive one masked client frame: opcode and payload."""
        first, second = self.recv_exactly(2)
        assert second & 0x80, "a client frame must be masked"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self.recv_exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.recv_exactly(8))
        key = self.recv_exactly(4)
        payload = self.recv_exactly(size)
        pad = (key * (size // 4 + 1))[:size]
        plain = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big") if size else b""
        return first & 0x0F, plain

    def recv_json(self) -> dict[str, Any]:
        """Receive one text message and decode it; pings are answered on the way."""
        while True:
            opcode, payload = self.recv_frame()
            if opcode == 1:
                message: dict[str, Any] = json.loads(payload)
                return message
            if opcode == 9:
                self.send_frame(10, payload)

    def send_frame(self, opcode: int, payload: bytes = b"", end: bool = True) -> None:
        """Send one server frame."""
        self.sock.sendall(server_frame(opcode, payload, end))

    def send_json(self, message: Any) -> None:
        """Send one text message."""
        self.send_frame(1, json.dumps(message).encode())

    def introduce(self, worker_id: str = "w-1") -> dict[str, Any]:
        """Be an engine: handshake, hello, and the answer to the worker's announcement, which is returned."""
        self.handshake()
        self.send_json({"type": "workerregistered", "worker_id": worker_id, "reattach_token": "token"})
        return self.answer_next({"success": True})

    def answer_next(self, result: Any) -> dict[str, Any]:
        """Answer the next invocation, and return it."""
        message = self.recv_json()
        while message["type"] != "invokefunction":
            message = self.recv_json()
        self.answer(message, result)
        return message

    def answer(self, message: dict[str, Any], result: Any) -> None:
        """Answer an invocation."""
        self.send_json(
            {
                "type": "invocationresult",
                "invocation_id": message["invocation_id"],
                "function_id": message["function_id"],
                "result": result,
            }
        )

    def reset(self) -> None:
        """End with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def server_frame(opcode: int, payload: bytes = b"", end: bool = True) -> bytes:
    """One unmasked frame."""
    first = opcode | (0x80 if end else 0)
    if len(payload) < 126:
        return struct.pack("!BB", first, len(payload)) + payload
    if len(payload) < 65536:
        return struct.pack("!BBH", first, 126, len(payload)) + payload
    return struct.pack("!BBQ", first, 127, len(payload)) + payload


class RawServer:
    """Listens on loopback and runs ``serve(peer)`` on a thread for every connection."""

    def __init__(self, serve: Callable[[RawPeer], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}"
        self.failure: Optional[BaseException] = None
        self._peers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="raw-accept", daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._peers.append(sock)
            thread = threading.Thread(target=self._run, args=(sock,), name="raw-peer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        try:
            self._serve(RawPeer(sock))
        except (EOFError, ConnectionError, BrokenPipeError):
            pass  # the client has left
        except OSError as exc:
            if exc.errno != 9:  # closed at the end of the test
                self.failure = exc
        except BaseException as exc:
            self.failure = exc

    def close(self) -> None:
        """Drop everything; raises what went wrong on the server's side."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(TIMEOUT)  # it may have accepted one just now
        for sock in self._peers:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(TIMEOUT)
        if self.failure is not None:
            raise self.failure


@contextlib.contextmanager
def raw_server(serve: Callable[[RawPeer], None]) -> Iterator[RawServer]:
    """Run a RawServer for the length of a block."""
    server = RawServer(serve)
    try:
        yield server
    finally:
        server.close()
