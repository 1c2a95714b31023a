"""Engines over real sockets. With ``engine_url`` a test runs on the local and on the real engine."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from typing import Any, Optional

import pytest
import websocket

from iii_sync.engine.hub import Hub

from .peers import (
    ANSWERED_AGAIN,
    TIMEOUT,
    UPGRADE,
    connect,
    end_url,
    http,
    raw,
    read_to_close,
    receive_frame,
    send_close,
    send_until_broken,
    worker,
)
from .serving import serving


def unique(name: str) -> str:
    """Return an id nobody else uses."""
    return f"{name}::{uuid.uuid4()}"


class TestUpgrade:
    """Status codes, and the order of the checks."""

    @pytest.mark.parametrize(
        ("path", "upgrade", "status"),
        [
            ("/", True, 101),
            ("/otel", True, 101),
            ("/", False, 400),
            ("/nowhere", True, 404),
            ("/ws/channels", True, 404),
            ("/ws/channels/none?key=k&dir=read", True, 404),
            ("/ws/channels/none?key=k&dir=read", False, 400),
            ("/ws/channels/none?key=k&dir=READ", True, 400),
            ("/ws/channels/none?key=k", True, 400),
            ("/ws/channels/none?dir=read", True, 400),
            ("/ws/channels/none", False, 400),
        ],
    )
    def test_status(self, engine_url: str, path: str, upgrade: bool, status: int) -> None:
        """First the path, then the query, then the upgrade headers, then the channel."""
        assert http(engine_url, path, **(UPGRADE if upgrade else {}))[0] == status

    def test_other_methods(self, engine_url: str) -> None:
        """Only GET is allowed."""
        assert http(engine_url, "/", method="POST", **UPGRADE)[0] == 405

    def test_other_version(self, engine_url: str) -> None:
        """Only version 13 of the protocol is spoken."""
        assert http(engine_url, "/", **{**UPGRADE, "Sec-WebSocket-Version": "12"})[0] == 400

    def test_body_of_an_unknown_channel(self, engine_url: str) -> None:
        """The 404 of a channel says what was not found, for an unknown id and for a wrong key."""
        with worker(engine_url) as client:
            ref, _ = client.create_channel()
            for channel_id in ("none", ref["channel_id"]):
                answer = http(engine_url, f"/ws/channels/{channel_id}?key=wrong&dir=read", **UPGRADE)
                assert answer == (404, b"Channel not found")

    def test_no_compression(self, engine_url: str) -> None:
        """Compression is not negotiated."""
        offer = ["Sec-WebSocket-Extensions: permessage-deflate"]
        with connect(engine_url, header=offer) as peer:
            assert "sec-websocket-extensions" not in (peer.getheaders() or {})

    @pytest.mark.parametrize("path", ["/", "/otel", "/ws/channels/x?key=k&dir=read", "/nowhere"])
    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1", ""])
    def test_foreign_origin_is_refused(self, local_engine_url: str, path: str, origin: str) -> None:
        """A web page of another origin gets nothing."""
        assert http(local_engine_url, path, Origin=origin, **UPGRADE)[0] == 403

    @pytest.mark.parametrize("host", ["evil.example", "192.0.2.1:49134", "127.0.0.1.evil.example", "[::", None])
    def test_foreign_host_is_refused(self, local_engine_url: str, host: Optional[str]) -> None:
        """A name that was made to point here gets nothing, even with an origin to match."""
        origin = None if host is None else f"http://{host}"
        status, body = http(local_engine_url, "/", Host=host, Origin=origin, **UPGRADE)
        assert status == 421 or (host is None and status == 400)
        if host == "evil.example":
            assert b"'evil.example'" in body and b"--host evil.example" in body

    @pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "127.0.0.1", "127.1.2.3:80", "[::1]:5"])
    def test_loopback_hosts_are_served(self, local_engine_url: str, host: str) -> None:
        """Every name of this machine is fine, and so is a page of the same origin."""
        assert http(local_engine_url, "/", Host=host, Origin=f"http://{host}", **UPGRADE)[0] == 101


class TestControl:
    """The control socket."""

    def test_hello_without_asking(self, engine_url: str) -> None:
        """The engine speaks first."""
        with connect(engine_url) as peer:
            hello = json.loads(peer.recv())
        assert hello["type"] == "workerregistered"
        assert uuid.UUID(hello["worker_id"]) != uuid.UUID(hello["reattach_token"])

    def test_call_between_workers(self, engine_url: str) -> None:
        """A call travels to another worker and its result comes back, exactly."""
        data = {"text": "\u00e4\U0001f600\u2028", "numbers": [1, -1, 0.1, 1e300, 2**63], "none": None}
        name = unique("echo")
        with worker(engine_url) as callee, worker(engine_url) as caller:
            callee.register(name)
            invocation_id = caller.invoke(name, data, metadata={"m": 1})
            call = callee.receive()
            assert call["data"] == {**data, "_caller_worker_id": caller.id}
            assert call["metadata"] == {"m": 1}
            assert call["invocation_id"] == invocation_id
            assert not {"action", "namespace"} & set(call)
            callee.answer(call, result=data)
            assert caller.receive() == {
                "type": "invocationresult",
                "invocation_id": invocation_id,
                "function_id": name,
                "result": data,
            }

    def test_callee_vanishes(self, engine_url: str) -> None:
        """A call whose callee is dropped fails at once."""
        name = unique("f")
        with worker(engine_url) as caller:
            with worker(engine_url) as callee:
                callee.register(name)
                caller.invoke(name)
                callee.receive()
                time.sleep(ANSWERED_AGAIN)  # else the real engine may not know of the call yet (PROTOCOL E-14)
            assert caller.receive()["error"] == {
                "code": "invocation_stopped",
                "message": "Invocation stopped",
            }

    @pytest.mark.parametrize("namespace", [None, "default", "elsewhere"])
    def test_function_not_found(self, engine_url: str, namespace: Optional[str]) -> None:
        """The text is exact."""
        name = unique("f")
        with worker(engine_url) as caller:
            keys = {} if namespace is None else {"namespace": namespace}
            error = caller.call(name, {}, **keys)["error"]
        assert error["code"] == "function_not_found"
        assert error["message"] == f"Function {name} not found in namespace {namespace or 'default'}."

    def test_void_call(self, engine_url: str) -> None:
        """The callee gets an id, the caller gets nothing."""
        name = unique("f")
        with worker(engine_url) as callee, worker(engine_url) as caller:
            callee.register(name)
            caller.invoke(name, 5, action={"type": "void"})
            call = callee.receive()
            assert uuid.UUID(call["invocation_id"])
            assert call["data"] == 5
            callee.answer(call, result=1)
            callee.sync()
            caller.sync()

    def test_worker_name_conflict(self, engine_url: str) -> None:
        """The second of a name is told, then closed without a status."""
        name = unique("worker")
        with worker(engine_url, name=name) as first, connect(engine_url) as peer:
            peer.recv()
            call = {"type": "invokefunction", "function_id": "engine::workers::register"}
            peer.send(json.dumps({**call, "data": {"name": name}, "invocation_id": str(uuid.uuid4())}))
            (text,), status = read_to_close(peer)
            assert status is None
            frame = json.loads(text)
            assert (frame["code"], frame["owner_worker_id"]) == ("WORKER_NAMESPACE_CONFLICT", first.id)

    def test_function_conflict(self, engine_url: str) -> None:
        """The second of an id is told, and stays."""
        name = unique("f")
        with worker(engine_url) as first, worker(engine_url) as second:
            first.register(name)
            second.send(type="registerfunction", id=name)
            assert second.receive() == {
                "type": "registrationrejected",
                "code": "FUNCTION_NAMESPACE_CONFLICT",
                "namespace": "default",
                "function_id": name,
                "owner_worker_id": first.id,
            }
            second.sync()

    def test_reattach(self, engine_url: str) -> None:
        """The old connection is dropped, and what it held is free."""
        name = unique("f")
        with worker(engine_url, name=name) as old, connect(engine_url) as peer:
            old.register(name)
            peer.recv()
            token = old.hello["reattach_token"]
            peer.send(json.dumps({"type": "reattach", "previous_worker_id": old.id, "reattach_token": token}))
            call = {"type": "invokefunction", "function_id": "engine::workers::register"}
            peer.send(json.dumps({**call, "data": {"name": name}, "invocation_id": str(uuid.uuid4())}))
            assert json.loads(peer.recv())["result"] == {"success": True}
            with pytest.raises((ConnectionError, websocket.WebSocketException)):
                old.peer.recv()

    @pytest.mark.parametrize(
        "junk",
        [
            "nonsense",
            "[]",
            '{"type":"nonsense"}',
            '{"type":"invokefunction","function_id":"f"}',
            '{"type":"invokefunction","function_id":"f","data":NaN}',
            f'{{"type":"invokefunction","function_id":"f","data":"\\ud800","invocation_id":"{uuid.uuid4()}"}}',
            '{"type":"invokefunction","function_id":"f","data":1,"invocation_id":"no"}',
            "[" * 100_000,
            "9" * 100_000,
            " ",
            "",
        ],
        ids=range(11),
    )
    def test_junk_is_dropped(self, engine_url: str, junk: str) -> None:
        """No answer, and the connection lives."""
        with worker(engine_url) as client:
            client.peer.send(junk)
            client.sync()

    def test_pings(self, engine_url: str) -> None:
        """Both kinds of ping are answered."""
        with worker(engine_url) as client:
            client.send(type="ping")
            assert client.receive() == {"type": "pong"}
            client.peer.ping(b"abc")
            frame = receive_frame(client.peer)
            assert (frame.opcode, frame.data) == (websocket.ABNF.OPCODE_PONG, b"abc")

    def test_telemetry_is_ignored(self, engine_url: str) -> None:
        """Telemetry frames are accepted on both sockets and never answered."""
        with worker(engine_url) as client, connect(f"{engine_url}/otel") as telemetry:
            for prefix in (b"OTLP", b"MTRC", b"LOGS"):
                client.peer.send_binary(prefix + b"{}")
                telemetry.send_binary(prefix + b"{}")
            client.sync()
            telemetry.ping(b"x")
            assert receive_frame(telemetry).opcode == websocket.ABNF.OPCODE_PONG

    def test_frame_in_a_binary_message(self, engine_url: str) -> None:
        """Binary messages without a telemetry prefix are frames."""
        with worker(engine_url) as client:
            client.peer.send_binary(b'{"type":"ping"}')
            assert client.receive() == {"type": "pong"}

    @pytest.mark.parametrize("size", [1 << 20, 15 << 20])
    def test_large_call_arrives_in_one_frame(self, engine_url: str, size: int) -> None:
        """What the engine sends is not fragmented."""
        name = unique("f")
        with worker(engine_url) as client:
            client.register(name)
            invocation_id = client.invoke(name, "x" * size)
            frame = receive_frame(client.peer)
            assert frame.fin
            call = json.loads(frame.data)
            assert (call["invocation_id"], len(call["data"])) == (invocation_id, size)

    def test_fragmented_call(self, engine_url: str) -> None:
        """Fragments above 16 MiB in total are put together."""
        name = unique("f")
        with worker(engine_url) as client:
            client.register(name)
            call = {"type": "invokefunction", "function_id": name, "data": "x" * (20 << 20)}
            send_fragments(client.peer, json.dumps(call).encode(), websocket.ABNF.OPCODE_TEXT)
            assert len(client.receive()["data"]) == 20 << 20

    def test_builtins_cannot_be_replaced(self, local_engine_url: str) -> None:
        """Better than the real engine, which would lose the builtin (E-16)."""
        with worker(local_engine_url) as client:
            client.send(type="registerfunction", id="engine::channels::create")
            frame = client.receive()
            assert (frame["code"], frame["owner_worker_id"]) == ("FUNCTION_NAMESPACE_CONFLICT", "")

    def test_many_calls_at_once(self, local_engine_url: str) -> None:
        """Twenty thousand calls, more than any queue holds, all arrive at a worker that reads."""
        name, count = unique("f"), 20_000
        with worker(local_engine_url) as client, worker(local_engine_url) as callee:
            callee.register(name)
            frame = {"type": "invokefunction", "function_id": name, "data": "x" * 500}
            text = json.dumps(frame)
            seen: list[int] = []
            reader = threading.Thread(target=lambda: seen.extend(1 for _ in range(count) if callee.receive()))
            reader.start()
            for _ in range(count):
                client.peer.send(text)
            reader.join()
        assert len(seen) == count


class TestTime:
    """What happens by itself after a while."""

    def test_grace_without_announcement(self) -> None:
        """A worker that never announces itself is in ``default`` in the end."""
        name = unique("f")
        with serving(grace=0.05) as url, connect(url) as peer, worker(url) as client:
            peer.recv()
            peer.send(json.dumps({"type": "registerfunction", "id": name}))
            deadline = time.monotonic() + TIMEOUT
            while "error" in client.call("engine::functions::info", {"function_id": name}):
                assert time.monotonic() < deadline
            client.invoke(name, 1)
            assert json.loads(peer.recv())["data"] == 1

    def test_ends_that_wait_for_nobody(self) -> None:
        """After the TTL a waiting reader is closed, a waiting writer dropped, the channel gone."""
        now = [0.0]
        with serving(hub=Hub(ttl=300, now=lambda: now[0]), sweep_interval=0.05) as url, worker(url) as client:
            writer_ref, reader_ref = client.create_channel()[0], client.create_channel()[1]
            with connect(end_url(url, writer_ref)) as writer, connect(end_url(url, reader_ref)) as reader:
                writer.send_binary(b"x")
                now[0] = 301.0
                assert read_to_close(reader) == ([], None)
                with pytest.raises((ConnectionError, websocket.WebSocketException)):
                    receive_frame(writer)
                for ref in (writer_ref, reader_ref):
                    assert http(url, end_url("", ref), **UPGRADE)[0] == 404


class TestChannels:
    """Both ends of a channel."""

    MESSAGES: tuple[Any, ...] = (b"", b"", b"data", "", "t\u00e4xt", b"x" * 70_000, b"", "y" * 200, b"\x00")

    @pytest.mark.parametrize("writer_first", [True, False])
    @pytest.mark.parametrize("status", [1000, 1001, None])
    def test_messages_are_exact(self, engine_url: str, writer_first: bool, status: Optional[int]) -> None:
        """Boundaries, types and order survive; the end comes without a status, the writer gets its own."""
        with worker(engine_url) as client:
            refs = client.create_channel()
            first, second = refs if writer_first else reversed(refs)
            with connect(end_url(engine_url, first)) as one, connect(end_url(engine_url, second)) as two:
                writer, reader = (one, two) if writer_first else (two, one)
                for message in self.MESSAGES:
                    send(writer, message)
                send_close(writer, status)
                assert read_to_close(reader) == (list(self.MESSAGES), None)
                assert read_to_close(writer) == ([], status)

    def test_large_messages(self, engine_url: str) -> None:
        """A message of 15 MiB passes whole, and so do 32 MiB of fragments."""
        with worker(engine_url) as client:
            writer_ref, reader_ref = client.create_channel()
        with connect(end_url(engine_url, writer_ref)) as writer:
            with connect(end_url(engine_url, reader_ref)) as reader:
                sender = threading.Thread(target=self.send_large, args=(writer,))
                sender.start()
                sizes = [len(message) for message in read_to_close(reader)[0]]
                sender.join()
        assert sizes == [15 << 20, 32 << 20]

    @staticmethod
    def send_large(writer: websocket.WebSocket) -> None:
        """Send one large frame, one large message in fragments, and Close."""
        writer.send_binary(bytes(15 << 20))
        send_fragments(writer, bytes(32 << 20), websocket.ABNF.OPCODE_BINARY)
        send_close(writer)

    def test_second_ends(self, engine_url: str) -> None:
        """A taken end is accepted and closed without a status; the first ones do not notice."""
        with worker(engine_url) as client:
            writer_ref, reader_ref = client.create_channel()
        with connect(end_url(engine_url, writer_ref)) as writer:
            with connect(end_url(engine_url, reader_ref)) as reader:
                # So that both are taken: the real engine takes an end when it has told that it may be had.
                writer.send_binary(b"first")
                assert receive_frame(reader).data == b"first"
                for ref in (writer_ref, reader_ref):
                    with connect(end_url(engine_url, ref)) as again:
                        assert read_to_close(again) == ([], None)
                writer.send_binary(b"x")
                send_close(writer)
                assert read_to_close(reader) == ([b"x"], None)

    def test_direction_is_chosen_by_the_url(self, engine_url: str) -> None:
        """Both refs open both ends."""
        with worker(engine_url) as client:
            writer_ref, reader_ref = client.create_channel()
        with connect(end_url(engine_url, reader_ref, "write")) as writer:
            with connect(end_url(engine_url, writer_ref, "read")) as reader:
                send_close(writer)
                assert read_to_close(reader) == ([], None)

    def test_backpressure_reaches_the_writer(self, engine_url: str) -> None:
        """A writer that nobody reads from is stopped, and goes on when somebody does."""
        message = bytes(65536)
        with worker(engine_url) as client:
            writer_ref, reader_ref = client.create_channel()
        with connect(end_url(engine_url, writer_ref)) as writer:
            sent = write_until_blocked(writer, message)
            assert 64 * len(message) <= sent < 64 << 20
            with connect(end_url(engine_url, reader_ref)) as reader:
                # The rest of the frame that got stuck is what the reader frees the way for.
                received = 0
                while received + len(message) <= sent:
                    received += len(receive_frame(reader).data)
        assert received == sent - sent % len(message)

    def test_close_of_a_writer_while_the_channel_is_full(self, engine_url: str) -> None:
        """Everything is delivered although the writer has long sent its Close and its FIN."""
        count = 80
        with worker(engine_url) as client:
            writer_ref, reader_ref = client.create_channel(buffer_size=4)
        with connect(end_url(engine_url, writer_ref)) as writer:
            for number in range(count):
                writer.send_binary(b"%d" % number)
            send_close(writer)
            raw(writer).shutdown(socket.SHUT_WR)
            with connect(end_url(engine_url, reader_ref)) as reader:
                messages, status = read_to_close(reader)
        assert messages == [b"%d" % number for number in range(count)]
        assert status is None

    def test_worker_that_created_the_channel_may_leave(self, engine_url: str) -> None:
        """A channel belongs to nobody."""
        with worker(engine_url) as client:
            writer_ref, reader_ref = client.create_channel()
        with connect(end_url(engine_url, writer_ref)) as writer:
            send_close(writer)
            with connect(end_url(engine_url, reader_ref)) as reader:
                assert read_to_close(reader) == ([], None)

    @pytest.mark.parametrize("case", ["drop", "status", "utf-8", "opcode", "fragment"])
    def test_cut_stream_ends_with_an_error(self, local_engine_url: str, case: str) -> None:
        """Better than the real engine: what arrived is delivered, then the reader is told."""
        with worker(local_engine_url) as client:
            writer_ref, reader_ref = client.create_channel()
        with connect(end_url(local_engine_url, reader_ref)) as reader:
            with connect(end_url(local_engine_url, writer_ref)) as writer:
                for number in range(100):
                    writer.send_binary(b"%d" % number)
                if case == "status":
                    send_close(writer, 1011)
                    assert read_to_close(writer) == ([], 1011)
                elif case == "utf-8":
                    writer.send(b"\xff", websocket.ABNF.OPCODE_TEXT)
                elif case == "opcode":
                    raw(writer).sendall(b"\x83\x80\0\0\0\0")
                elif case == "fragment":
                    frame = websocket.ABNF(0, 0, 0, 0, websocket.ABNF.OPCODE_BINARY, 1, b"part")
                    writer.send_frame(frame)
            messages, status = read_to_close(reader)
        assert messages == [b"%d" % number for number in range(100)]
        assert status == 1011

    @pytest.mark.parametrize("how", ["close", "drop"])
    @pytest.mark.parametrize("blocked", [True, False])
    def test_writer_notices_a_departing_reader(self, local_engine_url: str, how: str, blocked: bool) -> None:
        """Better than the real engine: at once, whether the writer is idle or blocked."""
        with worker(local_engine_url) as client:
            writer_ref, reader_ref = client.create_channel()
        with connect(end_url(local_engine_url, writer_ref)) as writer:
            if blocked:
                write_until_blocked(writer, bytes(65536))
            with connect(end_url(local_engine_url, reader_ref)) as reader:
                if how == "close":
                    send_close(reader)
                    assert read_to_close(reader)[1] == 1000
            writer.settimeout(15)
            with pytest.raises((ConnectionError, websocket.WebSocketException)):
                receive_frame(writer)
            send_until_broken(writer, b"x")

    def test_ping_on_both_ends(self, local_engine_url: str) -> None:
        """Better than the real engine: the reading end answers too."""
        with worker(local_engine_url) as client:
            for ref in (client.create_channel()[0], client.create_channel()[1]):
                with connect(end_url(local_engine_url, ref)) as peer:
                    peer.ping(b"abc")
                    frame = receive_frame(peer)
                    assert (frame.opcode, frame.data) == (websocket.ABNF.OPCODE_PONG, b"abc")

    def test_finished_channel_is_forgotten(self, local_engine_url: str) -> None:
        """Better than the real engine: nothing stays of a channel whose ends are gone."""
        with worker(local_engine_url) as client:
            writer_ref, reader_ref = client.create_channel()
        with connect(end_url(local_engine_url, writer_ref)) as writer:
            with connect(end_url(local_engine_url, reader_ref)) as reader:
                send_close(writer)
                read_to_close(reader)
                send_close(reader)
                assert raw(reader).recv(1) == b""
        path = end_url("", reader_ref)
        assert http(local_engine_url, path, **UPGRADE)[0] == 404

    def test_hundreds_of_megabytes(self, local_engine_url: str) -> None:
        """A long stream arrives complete."""
        message, count = bytes(range(256)) * 1024, 400
        with worker(local_engine_url) as client:
            writer_ref, reader_ref = client.create_channel()
        with connect(end_url(local_engine_url, writer_ref)) as writer:
            with connect(end_url(local_engine_url, reader_ref)) as reader:

                def write() -> None:
                    for _ in range(count):
                        writer.send_binary(message)
                    send_close(writer)

                sender = threading.Thread(target=write)
                sender.start()
                messages, status = read_to_close(reader)
                sender.join()
        assert status is None
        assert len(messages) == count
        assert all(received == message for received in messages)


def send(peer: websocket.WebSocket, message: Any) -> None:
    """Send a text or a binary message."""
    if isinstance(message, str):
        peer.send(message)
    else:
        peer.send_binary(message)


def send_fragments(peer: websocket.WebSocket, data: bytes, opcode: int, size: int = 1 << 20) -> None:
    """Send one message in frames of at most ``size`` bytes."""
    for start in range(0, len(data), size):
        last = start + size >= len(data)
        peer.send_frame(websocket.ABNF(int(last), 0, 0, 0, 0 if start else opcode, 1, data[start : start + size]))


def write_until_blocked(peer: websocket.WebSocket, message: bytes) -> int:
    """Write copies of a message until the connection takes nothing; return the bytes of whole ones."""
    sent = 0
    frame = websocket.ABNF.create_frame(message, websocket.ABNF.OPCODE_BINARY).format()
    raw(peer).settimeout(1.5)  # longer than an engine on a busy machine stands still
    position = 0
    while True:
        try:
            position += raw(peer).send(frame[position:])
        except (TimeoutError, socket.timeout):
            return sent
        if position == len(frame):
            sent, position = sent + len(message), 0
