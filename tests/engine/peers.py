"""Raw peers of an engine: websocket-client and plain sockets, nothing of ours in between."""

from __future__ import annotations

import json
import socket
import struct
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional, Union
from urllib.parse import urlsplit

import websocket

Ref = dict[str, str]
Event = Union[bytes, str]
TIMEOUT = 15.0

#: Seconds until an answer is sent again; the engine forgets nobody in that time, and drops the second in silence.
ANSWERED_AGAIN = 0.05


@contextmanager
def connect(url: str, **options: Any) -> Iterator[websocket.WebSocket]:
    """Connect a raw WebSocket; on leaving its TCP connection is closed without a Close frame."""
    peer = websocket.create_connection(url, timeout=TIMEOUT, **options)
    try:
        yield peer
    finally:
        peer.shutdown()  # type: ignore[no-untyped-call]


def raw(peer: websocket.WebSocket) -> socket.socket:
    """Return the TCP socket below a WebSocket."""
    connection = peer.sock
    assert isinstance(connection, socket.socket)
    return connection


def receive_frame(peer: websocket.WebSocket) -> websocket.ABNF:
    """Return the next frame, whatever its kind; fragments are not put together."""
    frame: websocket.ABNF = peer.recv_frame()  # type: ignore[no-untyped-call]
    return frame


class Worker:
    """A worker that was announced."""

    def __init__(self, peer: websocket.WebSocket, **announcement: Any) -> None:
        self.peer = peer
        self._set_aside: deque[dict[str, Any]] = deque()
        self.hello = self.receive()
        self.id: str = self.hello["worker_id"]
        assert self.call("engine::workers::register", announcement)["result"] == {"success": True}

    def send(self, **frame: Any) -> None:
        """Send one frame."""
        self.peer.send(json.dumps(frame))

    def receive(self) -> dict[str, Any]:
        """Return the next frame."""
        if self._set_aside:
            return self._set_aside.popleft()
        frame: dict[str, Any] = json.loads(self.peer.recv())
        return frame

    def invoke(self, function_id: str, data: Any = None, **keys: Any) -> str:
        """Send an invocation and return its id."""
        invocation_id = keys.setdefault("invocation_id", str(uuid.uuid4()))
        self.send(type="invokefunction", function_id=function_id, data=data, **keys)
        return str(invocation_id)

    def call(self, function_id: str, data: Any = None, **keys: Any) -> dict[str, Any]:
        """Invoke a function and return the answer, which is the next frame."""
        invocation_id = self.invoke(function_id, data, **keys)
        answer = self.receive()
        assert answer.get("invocation_id") == invocation_id, answer
        return answer

    def ask(self, function_id: str, data: Any = None, **keys: Any) -> Any:
        """Return the result of a function, or its error as a dict; other frames are set aside."""
        invocation_id = self.invoke(function_id, data, **keys)
        others: list[dict[str, Any]] = []
        while True:
            frame = self.receive()
            if frame.get("invocation_id") == invocation_id and frame["type"] == "invocationresult":
                self._set_aside.extend(others)
                return frame.get("error", frame.get("result"))
            others.append(frame)

    def take(self) -> list[dict[str, Any]]:
        """Return what the engine has sent because of what it has handled so far."""
        self.ask("engine::baggage::get", {"key": "k"})
        frames = list(self._set_aside)
        self._set_aside.clear()
        return frames

    def trigger(self, trigger_type: str, function_id: str, config: Any, **keys: Any) -> str:
        """Register a trigger and return its id; what is sent because of it is set aside."""
        trigger_id = keys.setdefault("id", str(uuid.uuid4()))
        self.send(type="registertrigger", trigger_type=trigger_type, function_id=function_id, config=config, **keys)
        self.ask("engine::baggage::get", {"key": "k"})
        return str(trigger_id)

    def invoked(self, function_id: str) -> dict[str, Any]:
        """Return the next invocation, which must be of that function."""
        frame = self.receive()
        assert (frame["type"], frame["function_id"]) == ("invokefunction", function_id), frame
        return frame

    def answer(self, call: dict[str, Any], **outcome: Any) -> None:
        """Answer an invocation, and again a moment later: the real engine may not be listening yet (PROTOCOL E-14)."""
        keys = {key: call[key] for key in ("invocation_id", "function_id")}
        self.send(type="invocationresult", **keys, **outcome)
        time.sleep(ANSWERED_AGAIN)
        self.send(type="invocationresult", **keys, **outcome)

    def sync(self) -> None:
        """Return when the engine has handled everything sent before."""
        self.call("engine::baggage::get", {"key": "k"})

    def register(self, function_id: str) -> None:
        """Register a function and wait until the engine knows it."""
        self.send(type="registerfunction", id=function_id)
        self.sync()

    def create_channel(self, **data: Any) -> tuple[Ref, Ref]:
        """Return the refs of a new channel: writer, reader."""
        result = self.call("engine::channels::create", data)["result"]
        return result["writer"], result["reader"]


@contextmanager
def worker(url: str, **announcement: Any) -> Iterator[Worker]:
    """Connect and announce a worker."""
    with connect(url) as peer:
        yield Worker(peer, **announcement)


def end_url(url: str, ref: Ref, direction: Optional[str] = None, key: Optional[str] = None) -> str:
    """Return the address of a channel end."""
    key = key or ref["access_key"]
    return f"{url}/ws/channels/{ref['channel_id']}?key={key}&dir={direction or ref['direction']}"


def read_to_close(peer: websocket.WebSocket) -> tuple[list[Event], Optional[int]]:
    """Read up to the Close frame; return the messages and its status, ``None`` for none."""
    messages: list[Event] = []
    while True:
        frame = receive_frame(peer)
        assert isinstance(frame.data, bytes)
        if frame.opcode == websocket.ABNF.OPCODE_CLOSE:
            return messages, struct.unpack("!H", frame.data[:2])[0] if frame.data else None
        if frame.opcode == websocket.ABNF.OPCODE_TEXT:
            messages.append(frame.data.decode())
        elif frame.opcode == websocket.ABNF.OPCODE_BINARY:
            messages.append(frame.data)


def send_close(peer: websocket.WebSocket, status: Optional[int] = 1000) -> None:
    """Send a Close frame and nothing else."""
    payload = b"" if status is None else struct.pack("!H", status)
    peer.send(payload, websocket.ABNF.OPCODE_CLOSE)


def send_until_broken(peer: websocket.WebSocket, message: bytes = b"x" * 65536) -> None:
    """Write until the connection breaks; fail if it does not within the time limit."""
    peer.settimeout(TIMEOUT)
    try:
        for _ in range(10_000):
            peer.send_binary(message)
    except (ConnectionError, websocket.WebSocketConnectionClosedException):
        return
    raise AssertionError("the connection did not break")


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def http(url: str, path: str, *, method: str = "GET", **headers: Optional[str]) -> tuple[int, bytes]:
    """Send one HTTP request and return its status and body (nothing of a 101).

    Headers named here (with ``_`` for ``-``) are sent, those with ``None`` are left out.
    """
    parts = urlsplit(url)
    sent: dict[str, Optional[str]] = {"Host": parts.netloc, "Content-Length": "0"}
    sent.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in sent.items() if v is not None), "", ""]
    with socket.create_connection((parts.hostname or "", parts.port or 0), TIMEOUT) as connection:
        connection.sendall("\r\n".join(lines).encode())
        with connection.makefile("rb") as stream:
            status = int(stream.readline().split()[1])
            length = 0
            while True:
                name, _, value = stream.readline().decode().partition(":")
                if not value:
                    break
                if name.lower() == "content-length":
                    length = int(value)
            return status, b"" if status == 101 else stream.read(length)
