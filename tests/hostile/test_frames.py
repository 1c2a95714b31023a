"""Frames that no engine should send, on the control socket and on a channel."""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Iterator
from typing import Optional

import pytest

import iii_sync
from iii_sync import errors
from iii_sync.net import connection

from ..support.rawserver import RawPeer, server_frame
from ..support.threads import in_thread
from .engine import AT_ONCE, WAIT, hostile_engine, pour, ref, victim
from .memory import MiB, bounded

TIB_HEADER = struct.pack("!BBQ", 0x82, 127, 1 << 40)
TIB_TEXT_HEADER = struct.pack("!BBQ", 0x81, 127, 1 << 40)

VIOLATIONS = {
    "masked": b"\x81\x85\x01\x02\x03\x04iijkn",
    "rsv1": b"\xc1\x01a",
    "rsv2": b"\xa1\x01a",
    "rsv3": b"\x91\x01a",
    "opcode 3": b"\x83\x01a",
    "opcode 15": b"\x8f\x00",
    "large ping": b"\x89\x7e\x00\x7e" + b"p" * 126,
    "fragmented ping": b"\x09\x01p",
    "fragmented close": b"\x08\x02\x03\xe8",
    "continuation of nothing": b"\x80\x01a",
    "message in a message": b"\x01\x01a\x81\x01b",
    "length of 2**63": struct.pack("!BBQ", 0x81, 127, 1 << 63),
    "long length": struct.pack("!BBQ", 0x81, 127, 5) + b"hello",
    "bad UTF-8": server_frame(1, b'{"type":"\xff"}'),
    "bad UTF-8 over fragments": server_frame(1, b"\xe2", False) + server_frame(0, b"\x28\xa1"),
    "half a character": server_frame(1, b"\xe2", False) + server_frame(0, b"\x82"),
    "surrogate in UTF-8": server_frame(1, b"\xed\xa0\x80"),
    "close with one byte": b"\x88\x01\x03",
    "close with 1005": b"\x88\x02\x03\xed",
    "close with 0": b"\x88\x02\x00\x00",
    "close with 65535": b"\x88\x02\xff\xff",
    "close with bad UTF-8": b"\x88\x03\x03\xe8\xff",
}


def read_close(peer: RawPeer) -> int:
    """The code of the Close frame that the victim sends."""
    while True:
        opcode, payload = peer.recv_frame()
        if opcode == 8:
            return int(struct.unpack("!H", payload[:2])[0])


def iter_causes(error: Optional[BaseException]) -> Iterator[BaseException]:
    """An exception, what caused it, what caused that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


@pytest.mark.parametrize("name", list(VIOLATIONS))
def test_violation_on_the_control_socket(name: str) -> None:
    """The call fails and says why, the peer is told, the next connection works, a channel never noticed."""
    with victim() as worker:
        call = worker.worker.submit("any::function", 1)
        worker.peer.sock.sendall(VIOLATIONS[name] + b"garbage")
        assert read_close(worker.peer) in (1002, 1007)
        with pytest.raises(errors.ConnectionLostError, match="broke the protocol"):
            call.result(WAIT)
        worker.check_bystander()
        worker.check_reconnects()
        worker.check_bystander()


@pytest.mark.parametrize("name", list(VIOLATIONS))
def test_violation_on_a_channel(name: str) -> None:
    """The stream is cut with an error of the package, after every byte before it; everything else goes on."""
    with victim() as worker:
        reader = worker.worker.open_ref(ref("attacked"), timeout=WAIT)
        assert isinstance(reader, iii_sync.ChannelReader)
        result = in_thread(lambda: reader.read(4))
        peer = worker.engine.channel("attacked")
        peer.sock.sendall(server_frame(2, b"good") + VIOLATIONS[name] + b"garbage")
        assert result() == b"good"
        with pytest.raises(errors.ChannelTruncatedError) as caught:
            reader.read()
        causes = list(iter_causes(caught.value))
        assert any(isinstance(cause, errors.RemoteProtocolError) for cause in causes), causes
        assert read_close(peer) in (1002, 1007)
        reader.close()
        worker.check_bystander()
        worker.check_calls()


@pytest.mark.parametrize("close", [b"\x88\x00", b"\x88\x02\x03\xe8", b"\x88\x02\x0f\xa0", b"\x88\x05\x03\xf3bye"])
def test_garbage_after_close(close: bytes) -> None:
    """What follows a Close is not looked at, and the answer is a Close like it."""
    with victim() as worker:
        worker.peer.sock.sendall(close + server_frame(1, b'{"type":"ping"}') + bytes(range(256)) * 100)
        opcode, payload = worker.peer.recv_frame()
        assert (opcode, payload) == (8, close[2:4])
        worker.check_reconnects()
        worker.check_bystander()


class TestEndless:
    """What never ends costs no memory and nobody else's time."""

    def test_a_tebibyte_on_the_control_socket(self) -> None:
        """A message of 1 TiB is announced and 96 MiB of it sent: it is drained, not kept."""
        with victim() as worker, bounded(64 * MiB):
            worker.peer.sock.sendall(TIB_TEXT_HEADER + b'{"type":"invocationresult","invocation_id":"')
            sent = pour(worker.peer, b"x" * MiB, 96)
            call = worker.worker.submit("any::function", 1, timeout=1)
            with pytest.raises(errors.CallTimeout):
                call.result(WAIT)
            assert sent() == 96
            worker.check_bystander()

    @pytest.mark.parametrize("header", [TIB_HEADER, TIB_TEXT_HEADER], ids=["binary", "text"])
    def test_a_tebibyte_on_a_channel(self, header: bytes) -> None:
        """Bytes are handed out as they come; a text that large is given up after 64 MiB. A pause stops the peer."""
        with victim() as worker, bounded(160 * MiB):
            reader = worker.worker.open_ref(ref("attacked"), timeout=WAIT)
            assert isinstance(reader, iii_sync.ChannelReader)
            first = in_thread(lambda: reader.read1(1, timeout=2))
            peer = worker.engine.channel("attacked")
            peer.sock.sendall(header)
            sent = pour(peer, b"x" * MiB, 96)
            if header is TIB_HEADER:
                assert first() == b"x"
                assert len(reader.read(32 * MiB)) == 32 * MiB
            else:
                with pytest.raises((errors.ReadTimeout, errors.ChannelError)):
                    first()
            worker.check_bystander()
            worker.check_calls()
            reader.abort()
            assert sent() <= 96

    @pytest.mark.parametrize("payload", [b"x", "ä".encode(), b"xyz", b""], ids=["1", "ä", "3", "empty"])
    def test_fragments_of_a_text_by_the_million(self, payload: bytes) -> None:
        """A text in ever so many pieces costs its bytes, not an object for each piece."""
        batch = server_frame(0, payload, False) * 10_000
        with victim() as worker, bounded(48 * MiB):
            worker.peer.sock.sendall(server_frame(1, b"{", False))
            sent = pour(worker.peer, batch, 100)
            assert sent() == 100
            worker.check_bystander()
            # It still is a message, though no JSON: the next one is taken.
            worker.peer.send_frame(0, b"", True)
            worker.check_calls()

    def test_fragments_of_a_stream_by_the_million(self) -> None:
        """Single bytes arrive exactly, in bounded memory, whether or not somebody reads meanwhile."""
        count = 1_000_000
        with victim() as worker, bounded(48 * MiB):
            reader = worker.worker.open_ref(ref("attacked"), timeout=WAIT)
            assert isinstance(reader, iii_sync.ChannelReader)
            first = in_thread(lambda: reader.read(1))
            peer = worker.engine.channel("attacked")
            peer.sock.sendall(server_frame(2, b"a", False))
            assert first() == b"a"
            sent = pour(peer, server_frame(0, b"b", False) * 10_000, count // 10_000)
            worker.check_bystander()
            total = 0
            while total < count:
                total += len(reader.read1())
            assert sent() == count // 10_000
            reader.abort()

    def test_texts_by_the_million_that_nobody_reads(self) -> None:
        """Short text messages are counted as the memory they take: the peer is stopped soon."""
        with victim() as worker, bounded(48 * MiB):
            reader = worker.worker.open_ref(ref("attacked"), timeout=WAIT)
            assert isinstance(reader, iii_sync.ChannelReader)
            first = in_thread(lambda: reader.read(1))
            peer = worker.engine.channel("attacked")
            peer.sock.settimeout(2)
            peer.send_frame(2, b"a")
            assert first() == b"a"
            sent = pour(peer, server_frame(1, b"") * 100_000, 100)
            assert sent() < 100, "nothing stopped the peer"
            worker.check_bystander()
            reader.abort()

    def test_ping_flood_of_a_peer_that_does_not_read(self) -> None:
        """Pongs do not pile up; when the peer reads at last it gets one for its latest ping."""
        with victim() as worker, bounded(48 * MiB):  # half of which may be the answers
            sent = pour(worker.peer, server_frame(9, b"p" * 100) * 3_000, 100)
            assert sent() == 100
            worker.peer.send_frame(9, b"the last")
            worker.check_bystander()
            answers = bytearray()
            # A pong has 106 bytes here, the last one 14.
            while len(answers) % 106 != 14 or answers[-14:-12] != b"\x8a\x88":
                answers += worker.peer.sock.recv(MiB)
            assert len(answers) < 106 * 250_000
            worker.check_calls()

    def test_json_ping_flood_of_a_peer_that_does_not_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A peer that asks and never listens is hung up on, with the reason."""
        monkeypatch.setattr(connection, "_MAX_OUTBOX", 4 * MiB)
        ping = server_frame(1, b'{"type":"ping"}')
        with victim() as worker, bounded(32 * MiB):
            call = worker.worker.submit("any::function", 1)
            pour(worker.peer, ping * 20_000, 200)()
            with pytest.raises(errors.ConnectionLostError, match="does not read"):
                call.result(WAIT)
            worker.check_bystander()
            worker.check_reconnects()


def test_shutdown_amid_a_flood() -> None:
    """A worker under fire on all of its sockets ends at once."""
    with hostile_engine() as engine:
        with victim(engine) as worker:
            reader = worker.worker.open_ref(ref("attacked"))
            assert isinstance(reader, iii_sync.ChannelReader)
            blocked = in_thread(lambda: reader.read())
            peer = engine.channel("attacked")
            floods = [
                pour(peer, server_frame(2, b"x") * 10_000, 1000),
                pour(worker.peer, server_frame(1, b"{}") * 10_000, 1000),
            ]
            time.sleep(0.3)
            started = time.monotonic()
            worker.worker.shutdown()
            assert time.monotonic() - started < AT_ONCE
            with pytest.raises((errors.ChannelError, errors.WorkerClosedError)):
                blocked()
            for flood in floods:
                flood()


def test_nothing_is_logged_about_a_flood(caplog: pytest.LogCaptureFixture) -> None:
    """Junk by the thousand leaves no line in the log: a peer must not be able to fill a disk."""
    with caplog.at_level(logging.INFO), victim() as worker:
        pour(worker.peer, (server_frame(1, b"junk") + server_frame(2, b"junk") + server_frame(1, b"{}")) * 100, 50)()
        worker.check_calls()
        assert len(caplog.records) < 10
