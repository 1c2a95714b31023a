"""Frames in both directions, checked against a small server-side decoder and against websocket-client."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Optional, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websocket import ABNF

from iii_sync.wire import frames, messages
from iii_sync.wire.frames import (
    BINARY,
    CLOSE,
    HEADROOM,
    MAX_FRAME,
    MAX_PIECES,
    PING,
    PONG,
    TEXT,
    CloseReason,
    FrameError,
    FrameParser,
    Piece,
    TextAssembler,
    close_frame,
    encode_frame,
    encode_message,
    header_into,
    parse_close,
)
from iii_sync.wire.mask import masked

from . import recorded
from .feeding import feed_read, implementations
from .recorded import server_frame

CONTINUATION = 0
SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1024 * 1024]


@pytest.fixture(autouse=True, scope="module", params=implementations())
def split(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything with both ways to split binary messages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "split_binary", request.param)
        yield


class ClientFrame(NamedTuple):
    """A frame as a server understands it."""

    end: bool
    opcode: int
    payload: bytes
    key: bytes


def server_decode(data: bytes) -> list[ClientFrame]:
    """Decode client frames as RFC 6455, 5.2 says it, refusing what a server has to refuse."""
    found = []
    at = 0
    while at < len(data):
        first, second = data[at], data[at + 1]
        assert not first & 0x70, "reserved bits"
        assert second & 0x80, "not masked"
        size = second & 0x7F
        at += 2
        if size == 126:
            (size,) = struct.unpack_from(">H", data, at)
            at += 2
            assert size > 125, "length is not minimal"
        elif size == 127:
            (size,) = struct.unpack_from(">Q", data, at)
            at += 8
            assert 0xFFFF < size < 1 << 63, "length is not minimal"
        key = data[at : at + 4]
        at += 4
        body = data[at : at + size]
        assert len(key) == 4
        assert len(body) == size
        at += size
        opcode = first & 0x0F
        assert opcode in (0, 1, 2, 8, 9, 10)
        assert opcode < 8 or (size <= 125 and first & 0x80)
        # Unmask by four strides, not as the client does it.
        plain = bytearray(size)
        for lane in range(4):
            table = bytes(value ^ key[lane] for value in range(256))
            plain[lane::4] = body[lane::4].translate(table)
        found.append(ClientFrame(bool(first & 0x80), opcode, bytes(plain), key))
    return found


def payload_of(size: int) -> bytes:
    """Bytes without a pattern of four."""
    return random.Random(size).randbytes(size)


def messages_of(pieces: Iterable[Piece]) -> list[tuple[int, bytes]]:
    """Join pieces into whole messages; control frames come where they stand."""
    whole: list[tuple[int, bytes]] = []
    parts: list[bytes] = []
    opcode: Optional[int] = None
    for piece in pieces:
        if piece.opcode >= 8:
            assert piece.end
            whole.append((piece.opcode, bytes(piece.payload)))
            continue
        assert opcode in (None, piece.opcode)
        parts.append(bytes(piece.payload))
        opcode = piece.opcode
        if piece.end:
            whole.append((opcode, b"".join(parts)))
            parts, opcode = [], None
    if opcode is not None:
        whole.append((-opcode, b"".join(parts)))  # an unfinished one
    return whole


def feed_all(parser: FrameParser, data: bytes) -> list[Piece]:
    """Feed until everything was taken."""
    pieces: list[Piece] = []
    while True:
        found, used = parser.feed(data)
        assert len(found) <= MAX_PIECES
        assert used <= len(data)
        pieces += found
        data = data[used:]
        if not data:
            return pieces
        assert len(found) == MAX_PIECES


def feed_parts(data: bytes, borders: Iterable[int]) -> tuple[FrameParser, list[Piece]]:
    """Feed a stream cut at the given borders, and once more as a connection does: both mean the same."""
    parser, quick = FrameParser(), FrameParser()
    pieces: list[Piece] = []
    same: list[Piece] = []
    at = 0
    for border in [*sorted(borders), len(data)]:
        pieces += feed_all(parser, data[at:border])
        same += feed_read(quick, data[at:border])
        at = max(at, border)
        assert (quick.left, quick.idle, quick.closed) == (parser.left, parser.idle, parser.closed)
    assert _summary(quick, same) == _summary(parser, pieces)
    return parser, pieces


def cuts_of(*cuts: Iterable[int]) -> tuple[Iterable[int], ...]:
    """Several ways to cut one stream."""
    return cuts


# --- what we send ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [*SIZES, 16384, 16385])
def test_client_frames(size: int, kind: type, opcode: int) -> None:
    """Frames of every size and from every kind of buffer are what a server expects."""
    payload = payload_of(size)
    frame = encode_frame(opcode, kind(payload))
    assert type(frame) is bytes
    ((end, seen, body, _key),) = server_decode(frame)
    assert (end, seen, body) == (True, opcode, payload)


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_client_frames_equal_those_of_websocket_client(size: int, end: bool) -> None:
    """With the same key, websocket-client formats the same bytes."""
    payload = payload_of(size)
    frame = encode_frame(BINARY, payload, end)
    key = server_decode(frame)[0].key
    reference = ABNF.create_frame(payload, ABNF.OPCODE_BINARY, int(end))
    reference.get_mask_key = lambda size: key
    assert frame == reference.format()
    assert frame.endswith(ABNF.mask(key, payload))


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
@pytest.mark.parametrize("size", [0, 2, 125])
def test_control_frames(opcode: int, size: int) -> None:
    """Control frames carry up to 125 bytes."""
    payload = payload_of(size)
    ((end, seen, body, _key),) = server_decode(encode_frame(opcode, payload))
    assert (end, seen, body) == (True, opcode, payload)


def test_every_frame_has_a_key_of_its_own() -> None:
    """The key is fresh for each frame, as RFC 6455, 5.3 demands."""
    keys = {server_decode(encode_frame(BINARY, b"x"))[0].key for _ in range(200)}
    keys |= {server_decode(encode_frame(BINARY, bytes(20_000)))[0].key for _ in range(200)}
    assert len(keys) == 400


@pytest.mark.parametrize("at", [HEADROOM, HEADROOM + 1, 1000])
@pytest.mark.parametrize("size", [size for size in SIZES if size])
def test_header_into(size: int, at: int) -> None:
    """A header is written right in front of its payload, and nothing else is touched."""
    payload, key = payload_of(size), b"\x01\x00\xfe\x80"
    buffer = bytearray(b"\xee" * at) + masked(payload, key)
    before = bytes(buffer)
    start = header_into(buffer, BINARY, size, key, at)
    assert 0 <= at - HEADROOM <= start < at
    ((seen_end, opcode, body, seen_key),) = server_decode(bytes(buffer[start:]))
    assert (seen_end, opcode, body, seen_key) == (True, BINARY, payload, key)
    assert buffer[:start] == before[:start]
    assert buffer[at:] == before[at:]


@pytest.mark.parametrize(
    ("size", "above", "expected"),
    [
        (0, 0, [0]),
        (1, 0, [1]),
        (10, 10, [10]),
        (11, 10, [11]),
        (MAX_FRAME, 10, [MAX_FRAME]),
        (MAX_FRAME + 1, 10, [MAX_FRAME, 1]),
        (MAX_FRAME + 1, MAX_FRAME + 1, [MAX_FRAME + 1]),
        (2 * MAX_FRAME, MAX_FRAME, [MAX_FRAME, MAX_FRAME]),
        (2 * MAX_FRAME + 7, 2 * MAX_FRAME, [MAX_FRAME, MAX_FRAME, 7]),
    ],
)
def test_encode_message(size: int, above: int, expected: list[int]) -> None:
    """Messages above the limit leave in fragments of 1 MiB, others in a single frame."""
    payload = payload_of(size)
    found = server_decode(encode_message(TEXT, payload, above))
    assert [len(frame.payload) for frame in found] == expected
    assert b"".join(frame.payload for frame in found) == payload
    assert [frame.opcode for frame in found] == [TEXT] + [CONTINUATION] * (len(expected) - 1)
    assert [frame.end for frame in found] == [False] * (len(expected) - 1) + [True]


def test_close_frames() -> None:
    """A Close has a status and a reason, or neither; a long reason is cut between two characters."""
    assert server_decode(close_frame(None))[0].payload == b""
    assert server_decode(close_frame())[0].payload == b"\x03\xe8"
    assert server_decode(close_frame(1011, "boom"))[0].payload == b"\x03\xf3boom"
    for letter in ("x", "ä", "€", "😀"):
        for before in range(4):
            payload = server_decode(close_frame(1002, "x" * before + letter * 200))[0].payload
            assert 125 - 3 <= len(payload) <= 125
            reason = parse_close(payload)
            assert reason.code == 1002
            assert ("x" * before + letter * 200).startswith(reason.reason)


# --- what we receive ------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", SIZES)
def test_parse_sizes(size: int, opcode: int) -> None:
    """A message of every size comes out, fed whole or in any two parts around its header."""
    payload = payload_of(size)
    stream = server_frame(opcode, payload)
    for border in [0, *range(1, min(16, len(stream))), len(stream) - 1]:
        parser, pieces = feed_parts(stream, [border])
        assert messages_of(pieces) == [(opcode, payload)]
        assert parser.error is None
        assert parser.idle


@pytest.mark.parametrize("size", [size for size in SIZES if size < 100_000])
def test_parse_byte_by_byte(size: int) -> None:
    """Single bytes are as good as a whole buffer, headers included."""
    payload = payload_of(size)
    stream = server_frame(BINARY, payload) + server_frame(PING, b"p") + server_frame(TEXT, b"t")
    parser, pieces = feed_parts(stream, range(len(stream)))
    assert messages_of(pieces) == [(BINARY, payload), (PING, b"p"), (TEXT, b"t")]
    assert parser.error is None


def test_pieces_are_views_of_what_was_fed() -> None:
    """Data is handed out as it arrives, without a copy."""
    data = server_frame(BINARY, b"x" * 1000)
    ((_, payload, end),) = FrameParser().feed(data)[0]
    assert isinstance(payload, memoryview)
    assert payload.obj is data
    assert end


def test_data_is_handed_out_before_its_message_ends() -> None:
    """Each feed gives what it brought of a data message; a control frame comes whole."""
    parser = FrameParser()
    stream = server_frame(BINARY, b"abcdef")
    assert parser.feed(stream[:4])[0] == [(BINARY, b"ab", False)]
    assert not parser.idle
    assert parser.feed(stream[4:7])[0] == [(BINARY, b"cde", False)]
    assert parser.feed(stream[7:])[0] == [(BINARY, b"f", True)]
    assert parser.idle
    ping = server_frame(PING, b"abcdef")
    assert parser.feed(ping[:5])[0] == []
    assert not parser.idle
    assert parser.feed(ping[5:])[0] == [(PING, b"abcdef", True)]
    assert parser.idle


def test_the_quick_way() -> None:
    """It is taken for reads of nothing but binary data, wherever that begins, and leaves all others alone."""
    parser = FrameParser()
    frame = server_frame(BINARY, b"x" * 200)
    mixed = frame + server_frame(TEXT, b"t") + frame[:50]
    assert parser.feed_binary(bytearray(mixed), 0, len(mixed)) == ([], 0, 0)
    assert len(parser.feed(mixed)[0]) == 3
    rest = bytearray(frame[50:] + frame + frame[:30])
    payloads, messages, position = parser.feed_binary(rest, 0, len(rest))
    assert (list(map(len, payloads)), messages, position) == ([154, 200, 26], 2, len(rest))
    # A header that is cut is the parser's.
    rest = bytearray(frame[30:] + frame[:3])
    assert parser.feed_binary(rest, 0, len(rest)) == ([], 0, 0)
    assert parser.feed(rest) == ([(BINARY, b"x" * 174, True)], len(rest))
    assert parser.feed_binary(bytearray(frame[3:]), 0, len(frame) - 3) == ([], 0, 0)
    assert parser.feed(frame[3:]) == ([(BINARY, b"x" * 200, True)], len(frame) - 3)
    assert parser.feed_binary(bytearray(frame), 0, len(frame))[1:] == (1, len(frame))


def test_idle_between_messages_only() -> None:
    """At no byte within a message, its fragments or a control frame is the parser idle."""
    for frame in (
        server_frame(TEXT, b"abc"),
        server_frame(BINARY, b"x" * 126),
        server_frame(BINARY, b"x" * 65536)[:20],
        server_frame(PING, b"p"),
        server_frame(TEXT, b"a", end=False) + server_frame(PONG) + server_frame(CONTINUATION, b"b"),
        server_frame(BINARY, b"", end=False) + server_frame(CONTINUATION, b"", end=False) + b"\x80\x00",
    ):
        parser = FrameParser()
        assert parser.idle
        for index in range(len(frame)):
            feed_all(parser, frame[index : index + 1])
            assert parser.error is None
            whole = index == len(frame) - 1 and len(frame) != 20
            assert parser.idle is whole, (frame, index)


def test_fragments_with_control_frames_between() -> None:
    """Parts of a message carry its opcode, whatever comes between them."""
    stream = (
        server_frame(TEXT, b"one ", end=False)
        + server_frame(PING, b"!")
        + server_frame(CONTINUATION, b"", end=False)
        + server_frame(PONG)
        + server_frame(CONTINUATION, b"two", end=False)
        + server_frame(PING, b"?" * 125)
        + server_frame(CONTINUATION, b"")
        + server_frame(BINARY, b"", end=False)
        + server_frame(CONTINUATION, b"")
        + server_frame(BINARY, b"last")
    )
    expected = [
        (PING, b"!"),
        (PONG, b""),
        (PING, b"?" * 125),
        (TEXT, b"one two"),
        (BINARY, b""),
        (BINARY, b"last"),
    ]
    for borders in cuts_of([], range(len(stream)), range(0, len(stream), 3)):
        parser, pieces = feed_parts(stream, borders)
        assert messages_of(pieces) == expected
        assert parser.idle
    # An empty piece says that a message ended, and nothing else.
    assert all(piece.payload or piece.end for piece in pieces)


def test_close_inside_a_fragmented_message() -> None:
    """A peer may close in the middle of a message."""
    parser = FrameParser()
    pieces = feed_all(parser, server_frame(TEXT, b"a", end=False) + server_frame(CLOSE, b"\x03\xe8"))
    assert pieces == [(TEXT, b"a", False), (CLOSE, b"\x03\xe8", True)]
    assert parser.closed
    assert parser.error is None
    assert not parser.idle


_frame = st.one_of(
    st.tuples(st.sampled_from([TEXT, BINARY]), st.binary(max_size=200)),
    st.tuples(st.sampled_from([TEXT, BINARY]), st.sampled_from([125, 126, 127, 65535, 65536]).map(bytes)),
    st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)),
)


@settings(deadline=None, max_examples=200)
@given(wanted=st.lists(_frame, max_size=8), data=st.data())
def test_any_stream_in_any_parts(wanted: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """Messages come out as they went in, however they were fragmented and the stream was cut."""
    stream = b""
    expected: list[tuple[int, bytes]] = []
    for opcode, payload in wanted:
        borders = []
        if opcode < 8:
            borders = sorted(data.draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        parts = [payload[start:stop] for start, stop in zip([0, *borders], [*borders, len(payload)])]
        for index, part in enumerate(parts):
            end = index == len(parts) - 1
            stream += server_frame(CONTINUATION if index else opcode, part, end)
            if not end and data.draw(st.booleans()):
                stream += server_frame(PING, b"between")
                expected.append((PING, b"between"))
        expected.append((opcode, payload))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    parser, pieces = feed_parts(stream, cuts)
    assert messages_of(pieces) == expected
    assert parser.error is None
    assert parser.idle
    if len(stream) < 3000:
        assert messages_of(feed_parts(stream, range(len(stream)))[1]) == expected


# --- violations -----------------------------------------------------------------------------------------

VIOLATIONS = {
    "reserved bit 1": (b"\xc1\x00", 1002),
    "reserved bit 2": (b"\xa1\x00", 1002),
    "reserved bit 3": (b"\x91\x00", 1002),
    "reserved bit on a ping": (b"\xc9\x00", 1002),
    "masked": (b"\x82\x81\x01\x02\x03\x04x", 1002),
    "masked and empty": (b"\x82\x80\x01\x02\x03\x04", 1002),
    "masked control": (b"\x89\x80\x01\x02\x03\x04", 1002),
    **{f"opcode {opcode}": (bytes([0x80 | opcode, 0]), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "fragmented ping": (b"\x09\x00", 1002),
    "fragmented pong": (b"\x0a\x00", 1002),
    "fragmented close": (b"\x08\x00", 1002),
    "ping of 126 bytes": (b"\x89\x7e\x00\x7e" + bytes(126), 1002),
    "pong of 65536 bytes": (b"\x8a\x7f" + struct.pack(">Q", 65536), 1002),
    "close of 126 bytes": (b"\x88\x7e\x00\x7e\x03\xe8" + b"x" * 124, 1002),
    "continuation of nothing": (b"\x80\x00", 1002),
    "continuation of nothing, not the last": (b"\x00\x01x", 1002),
    "continuation after a whole message": (b"\x81\x01x\x80\x01y", 1002),
    "text inside text": (b"\x01\x00\x81\x01x", 1002),
    "binary inside text": (b"\x01\x00\x82\x01x", 1002),
    "first fragment inside a message": (b"\x02\x00\x02\x00", 1002),
    "two bytes for 125": (b"\x82\x7e\x00\x7d" + bytes(125), 1002),
    "two bytes for 0": (b"\x82\x7e\x00\x00", 1002),
    "eight bytes for 65535": (b"\x82\x7f" + struct.pack(">Q", 65535) + bytes(65535), 1002),
    "eight bytes for 1": (b"\x82\x7f" + struct.pack(">Q", 1) + b"x", 1002),
    "length 2**63": (b"\x82\x7f" + struct.pack(">Q", 1 << 63), 1002),
    "length 2**64-1": (b"\x82\x7f" + b"\xff" * 8, 1002),
    "close with one byte": (b"\x88\x01\x03", 1002),
    **{
        f"close {code}": (server_frame(8, struct.pack(">H", code)), 1002)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "close with bad UTF-8": (server_frame(8, b"\x03\xe8\xff"), 1007),
    "close with half a character": (server_frame(8, b"\x03\xe8\xe2\x82"), 1007),
    "close with a surrogate": (server_frame(8, b"\x03\xe8\xed\xa0\x80"), 1007),
}
#: Their own first frames are fine; what those give is not lost.
GIVEN_FIRST = {"continuation after a whole message": [(TEXT, b"x")]}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violations(name: str) -> None:
    """Each violation is noted with its close code; what came before stays, what comes after is ignored."""
    bad, code = VIOLATIONS[name]
    before = server_frame(TEXT, b"before") + server_frame(PING, b"p")
    after = server_frame(TEXT, b"after")
    expected = [(TEXT, b"before"), (PING, b"p"), *GIVEN_FIRST.get(name, [])]
    data = before + bad + after

    parser = FrameParser()
    pieces, used = parser.feed(data)
    assert messages_of(pieces) == expected
    assert used == len(data)
    assert isinstance(parser.error, FrameError)
    assert parser.error.code == code
    assert str(parser.error)
    assert not parser.closed
    first = parser.error
    assert parser.feed(after) == ([], len(after))
    assert parser.feed(b"\xff" * 100) == ([], 100)
    assert parser.error is first

    parser, pieces = feed_parts(data, range(len(data)))
    assert messages_of(pieces) == expected
    assert parser.error is not None
    assert parser.error.code == code


def test_a_message_cut_by_a_violation_keeps_its_parts() -> None:
    """The parts of a message that came before the violation are handed out."""
    parser = FrameParser()
    pieces, _ = parser.feed(server_frame(BINARY, b"part", end=False) + b"\x83\x00")
    assert pieces == [(BINARY, b"part", False)]
    assert parser.error is not None


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999])
def test_good_close_codes(code: int) -> None:
    """Every code that may be sent is accepted, with and without a reason."""
    for reason in ("", "bye", "grüße 😀", "x" * 123):
        payload = struct.pack(">H", code) + reason.encode()
        for kind in (bytes, bytearray, memoryview):
            assert parse_close(kind(payload)) == CloseReason(code, reason)
        parser = FrameParser()
        pieces, _ = parser.feed(server_frame(CLOSE, payload))
        assert pieces == [(CLOSE, payload, True)]
        assert parser.closed
        assert parser.error is None


def test_close_without_status() -> None:
    """An empty Close is a Close without a code."""
    assert parse_close(b"") == CloseReason(None, "")
    with pytest.raises(FrameError, match="single byte") as caught:
        parse_close(b"\x03")
    assert caught.value.code == 1002


@pytest.mark.parametrize("after", [server_frame(TEXT, b"late"), b"\xff\xff\xff", server_frame(CLOSE), bytes(50)])
def test_bytes_after_close_are_ignored(after: bytes) -> None:
    """Nothing that follows a Close matters, in the same feed or later, good or bad."""
    stream = server_frame(TEXT, b"x") + server_frame(CLOSE, b"\x03\xe8") + after
    for borders in cuts_of([], range(len(stream))):
        parser, pieces = feed_parts(stream, borders)
        assert messages_of(pieces) == [(TEXT, b"x"), (CLOSE, b"\x03\xe8")]
        assert parser.closed
        assert parser.error is None
        assert parser.feed(after) == ([], len(after))


# --- limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [server_frame(BINARY), server_frame(PING), server_frame(TEXT, b"ab")])
def test_max_pieces(frame: bytes) -> None:
    """One feed gives at most MAX_PIECES pieces and says how many bytes they took; the rest can be fed again."""
    count = 3 * MAX_PIECES + 5
    parser = FrameParser()
    data = frame * count
    sizes = []
    while data:
        pieces, used = parser.feed(data)
        assert used == len(pieces) * len(frame)
        sizes.append(len(pieces))
        data = data[used:]
    assert sizes == [MAX_PIECES] * 3 + [5]
    assert parser.idle


def test_max_pieces_of_both_kinds() -> None:
    """The limit holds where binary messages follow others, and on the quick way."""
    data = server_frame(TEXT, b"t") * 5 + server_frame(BINARY, b"b") * (2 * MAX_PIECES) + server_frame(PING)
    parser, pieces = feed_parts(data, [])
    assert [piece.opcode for piece in pieces] == [TEXT] * 5 + [BINARY] * (2 * MAX_PIECES) + [PING]
    parser, pieces = feed_parts(data[15:], [])
    assert len(pieces) == 2 * MAX_PIECES + 1


def test_max_pieces_then_a_violation() -> None:
    """A violation behind the limit is found by the feed that reaches it."""
    parser = FrameParser()
    data = server_frame(BINARY) * MAX_PIECES + b"\x83\x00"
    pieces, used = parser.feed(data)
    assert (len(pieces), used, parser.error) == (MAX_PIECES, len(data) - 2, None)
    assert parser.feed(data[used:]) == ([], 2)
    assert isinstance(parser.error, FrameError)


def test_empty_fragments_give_no_pieces() -> None:
    """A flood of fragments without bytes is taken in one feed and gives one end."""
    parser = FrameParser()
    data = server_frame(BINARY, end=False) + server_frame(CONTINUATION, end=False) * 10_000
    assert parser.feed(data) == ([], len(data))
    assert parser.feed(server_frame(CONTINUATION))[0] == [(BINARY, b"", True)]


@pytest.mark.parametrize("size", [2**63 - 1, 2**40, 2**32])
def test_huge_announced_lengths_cost_nothing(size: int) -> None:
    """Memory follows what arrives, not what is announced."""
    parser = FrameParser()
    tracemalloc.start()
    try:
        pieces, _ = parser.feed(b"\x82\x7f" + struct.pack(">Q", size) + b"abc")
        for _ in range(100):
            (piece,) = parser.feed(b"x" * 1000)[0]
            assert not piece.end
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pieces == [(BINARY, b"abc", False)]
    assert peak < 100_000


def test_feeding_nothing() -> None:
    """An empty feed changes nothing, at any place of a frame."""
    parser = FrameParser()
    assert parser.feed(b"") == ([], 0)
    stream = server_frame(BINARY, b"x" * 126)
    pieces: list[Piece] = []
    for index in range(len(stream)):
        pieces += parser.feed(stream[index : index + 1])[0]
        if index < len(stream) - 1:
            assert parser.feed(b"") == ([], 0)
    assert messages_of(pieces) == [(BINARY, b"x" * 126)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_fed(kind: type) -> None:
    """Bytes, bytearrays and views are parsed alike."""
    pieces, used = FrameParser().feed(kind(server_frame(TEXT, b"hello")))
    assert pieces == [(TEXT, b"hello", True)]
    assert used == 7


# --- texts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "a", "grüße", "€" * 3, "😀é€a", "\x00", "\ufeffbom", "\U0010ffff"])
def test_texts_cut_anywhere(text: str) -> None:
    """A text may be cut inside its characters, at two places, into any pieces."""
    data = text.encode()
    texts = TextAssembler(1000)
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            assert texts.add(data[:first], False) is None
            assert texts.add(memoryview(data)[first:second], False) is None
            assert texts.add(data[second:], True) == text
            assert texts.oversize == 0
    assert texts.add(memoryview(data), True) == text


@settings(deadline=None)
@given(st.lists(st.text(max_size=60), max_size=5), st.data())
def test_any_texts_in_any_parts(wanted: list[str], data: st.DataObject) -> None:
    """Texts come out as they went in, one after the other."""
    texts = TextAssembler(10_000)
    for text in wanted:
        encoded = text.encode()
        borders = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=6)))
        for start, stop in zip([0, *borders], borders):
            assert texts.add(encoded[start:stop], False) is None
        assert texts.add(encoded[borders[-1] if borders else 0 :], True) == text


BAD_UTF8 = [
    b"\xff",
    b"\xc0\xaf",
    b"\x80",
    b"ok\xfe",
    b"\xf5\x80",
    b"\xf4\x90\x80\x80",
    b"\xed\xa0\x80",
    b"\xe0\x80\x80",
    b"\xe2\x28",
    b"abc\xe2\x82x",
]


@pytest.mark.parametrize("bad", BAD_UTF8)
@pytest.mark.parametrize("limit", [0, 1000])
def test_bad_utf8_is_refused_at_once(bad: bytes, limit: int) -> None:
    """Bad UTF-8 is refused with 1007 as soon as it is there, beyond the limit too."""
    for end in (True, False):
        with pytest.raises(FrameError) as caught:
            TextAssembler(limit).add(bad, end)
        assert caught.value.code == 1007
    texts = TextAssembler(limit)
    assert texts.add(b"fine so far", False) is None
    with pytest.raises(FrameError):
        for byte in bad:
            texts.add(bytes([byte]), False)


@pytest.mark.parametrize("half", [b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98"])
def test_a_text_that_ends_inside_a_character(half: bytes) -> None:
    """Half a character at the end is bad UTF-8; before the end it is not."""
    for parts in ([half], [half, b""], [b"abc", half], [half[:1], half[1:]]):
        texts = TextAssembler(1000)
        for part in parts[:-1]:
            assert texts.add(part, False) is None
        with pytest.raises(FrameError, match="not UTF-8"):
            texts.add(parts[-1], True)


@pytest.mark.parametrize("cuts", [[], [5], [0, 5], [0, 0, 9, 10, 11], list(range(30))])
def test_text_limit(cuts: list[int]) -> None:
    """A message of exactly the limit passes; of one byte more, its beginning and its size are kept."""
    for size in (9, 10, 11, 30):
        data = (b"0123456789" * 3)[:size]
        texts = TextAssembler(10)
        borders = [0, *(cut for cut in cuts if cut <= size)]
        for start, stop in zip(borders, borders[1:]):
            assert texts.add(data[start:stop], False) is None
        text = texts.add(data[borders[-1] :], True)
        assert text is not None
        assert texts.oversize == (size if size > 10 else 0)
        if size <= 10:
            assert text == data.decode()
        else:
            assert len(text) > 10 or size == len(text)
            assert data.decode().startswith(text)
        assert texts.add(b"next", True) == "next"
        assert texts.oversize == 0


def test_an_oversized_text_is_not_kept() -> None:
    """Of 64 MiB beyond the limit only the first bytes stay in memory, and the size is counted."""
    texts = TextAssembler(100_000)
    part = b"0123456789abcdef" * 4096
    tracemalloc.start()
    try:
        for _ in range(1024):
            assert texts.add(part, False) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    start = texts.add(b"\xe2\x82\xac", True)
    assert start == part[: TextAssembler.KEPT].decode()
    assert texts.oversize == 1024 * len(part) + 3
    assert peak < 1_000_000
    for _ in range(2):
        assert texts.add(b"small \xe2\x82", False) is None
        assert texts.oversize == 0
        assert texts.add(b"\xac", True) == "small €"


def test_an_oversized_text_in_one_piece() -> None:
    """A single large piece is treated like many small ones."""
    texts = TextAssembler(10)
    assert texts.add("ä".encode() * 50_000, True) == "ä" * TextAssembler.KEPT
    assert texts.oversize == 100_000
    assert texts.add(b"", True) == ""
    assert texts.oversize == 0


# --- recorded from the real engine ----------------------------------------------------------------------


@pytest.mark.parametrize("index", range(len(recorded.MESSAGES)))
def test_recorded_messages(index: int) -> None:
    """A frame of the engine's control socket is one text message that means what it should."""
    data, meaning = recorded.MESSAGES[index]
    for borders in cuts_of([], range(20), [len(data) - 1]):
        parser, pieces = feed_parts(data, borders)
        texts = TextAssembler(100_000)
        found = [texts.add(piece.payload, piece.end) for piece in pieces]
        assert parser.error is None
        assert parser.idle
        assert found[:-1] == [None] * (len(found) - 1)
        assert found[-1] is not None
        assert messages.decode(found[-1]) == meaning


def test_recorded_control_stream() -> None:
    """All of the control socket in one stream, with the engine's two pongs, up to its Close."""
    stream = recorded.TWO_PONGS + b"".join(data for data, _ in recorded.MESSAGES) + recorded.CLOSE
    for borders in cuts_of([], range(0, len(stream), 1021), range(0, len(stream), 3)):
        parser, pieces = feed_parts(stream, borders)
        found = messages_of(pieces)
        assert found[:2] == [(PONG, b"hi"), (PONG, b"hi")]
        assert [messages.decode(text.decode()) for _, text in found[2:-1]] == [
            meaning for _, meaning in recorded.MESSAGES
        ]
        assert found[-1] == (CLOSE, b"")
        assert parser.closed
        assert parser.error is None


@pytest.mark.parametrize("stream", [recorded.CHANNEL_READER, recorded.CHANNEL_WRITER])
def test_recorded_channels(stream: list[tuple[bytes, int, bytes]]) -> None:
    """What the engine sent on both ends of a channel comes out exactly, fed whole or byte by byte."""
    data = b"".join(frame for frame, _, _ in stream)
    for borders in cuts_of([], range(len(data)), range(0, len(data), 4096)):
        parser, pieces = feed_parts(data, borders)
        assert messages_of(pieces) == [(opcode, payload) for _, opcode, payload in stream]
        assert parser.closed
        assert parser.error is None


def test_recorded_closes() -> None:
    """The engine's Closes have no status, except the echo of ours."""
    for data in (recorded.CLOSE, recorded.SECOND_READER, recorded.EMPTY_CLOSE_ECHO):
        ((opcode, payload, _),) = FrameParser().feed(data)[0]
        assert opcode == CLOSE
        assert parse_close(payload) == CloseReason(None, "")
    assert parse_close(recorded.CHANNEL_WRITER[-1][2]) == CloseReason(1000, "done")


# --- junk -----------------------------------------------------------------------------------------------


def _mutations() -> list[Callable[[random.Random, bytearray], None]]:
    def flip(rng: random.Random, data: bytearray) -> None:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)

    def overwrite(rng: random.Random, data: bytearray) -> None:
        data[rng.randrange(len(data))] = rng.choice([0, 1, 2, 0x7D, 0x7E, 0x7F, 0x80, 0x81, 0x88, 0xFE, 0xFF])

    def delete(rng: random.Random, data: bytearray) -> None:
        at = rng.randrange(len(data))
        del data[at : at + rng.randint(1, 8)]

    def insert(rng: random.Random, data: bytearray) -> None:
        at = rng.randrange(len(data) + 1)
        data[at:at] = rng.randbytes(rng.randint(1, 8))

    def header(rng: random.Random, data: bytearray) -> None:
        data[: rng.randint(0, 2)] = bytes([rng.choice([0, 1, 2, 0x80, 0x81, 0x82, 0x88, 0x89]), rng.randrange(128)])

    def repeat(rng: random.Random, data: bytearray) -> None:
        at = rng.randrange(len(data))
        data[at:at] = data[at : at + rng.randint(1, 30)] * rng.randint(1, 50)

    return [flip, overwrite, delete, insert, header, repeat]


def test_fuzzed_frames() -> None:
    """20,000 damaged recordings: no exception leaves the parser, and what it gives is bounded by its input."""
    rng = random.Random(20_000)
    recordings = [data for data, _ in recorded.MESSAGES if len(data) < 1000]
    recordings += [data for data, _, _ in recorded.CHANNEL_READER + recorded.CHANNEL_WRITER if len(data) < 1000]
    recordings += [recorded.TWO_PONGS, server_frame(TEXT, b"ab", end=False) + server_frame(0, b"cd")]
    mutations = _mutations()
    violated = 0
    for _ in range(20_000):
        data = bytearray(b"".join(rng.choices(recordings, k=rng.randint(1, 4))))
        for _ in range(rng.randint(1, 4)):
            if data:
                rng.choice(mutations)(rng, data)
        stream = bytes(data)
        borders = [rng.randint(0, len(stream)) for _ in range(rng.choice([0, 1, 3]))]
        parser, pieces = feed_parts(stream, borders)
        assert sum(len(piece.payload) for piece in pieces) <= len(stream)
        assert len(pieces) <= len(stream) // 2 + len(borders)
        assert all(piece.payload or piece.end for piece in pieces)
        if parser.error is not None:
            violated += 1
            assert parser.error.code in (1002, 1007)
            assert parser.feed(stream) == ([], len(stream))
        texts = TextAssembler(200)
        try:
            for piece in pieces:
                if piece.opcode == TEXT:
                    text = texts.add(piece.payload, piece.end)
                    decoded = messages.decode(text) if text is not None else None
                    assert decoded is None or isinstance(decoded["type"], str)
        except FrameError as exc:
            assert exc.code == 1007
        # However the stream is cut, it means the same.
        again, same = feed_parts(stream, [])
        assert _summary(again, same) == _summary(parser, pieces)
    assert 5_000 < violated < 19_500


def _summary(parser: FrameParser, pieces: list[Piece]) -> tuple[Union[str, None], bool, list[tuple[int, bytes]]]:
    return (str(parser.error) if parser.error else None, parser.closed, messages_of(pieces))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400))
def test_random_bytes(data: bytes) -> None:
    """Bytes without any sense never raise."""
    parser, pieces = feed_parts(data, range(len(data)))
    whole, all_pieces = feed_parts(data, [])
    assert _summary(parser, pieces) == _summary(whole, all_pieces)


def test_public_names_exist() -> None:
    """Every name that the module offers is there."""
    assert all(hasattr(frames, name) for name in frames.__all__)
