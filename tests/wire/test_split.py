"""Splitting binary messages: the C extension and Python do the same."""

from __future__ import annotations

import array
import gc
import importlib.util
import random
import struct
import sys
from typing import Any

import pytest

from iii_sync.wire import frames
from iii_sync.wire.frames import BINARY, CLOSE, MAX_PIECES, PING, TEXT

from ..support.process import run
from .feeding import implementations
from .recorded import server_frame

SIZES = [1, 2, 125, 126, 127, 65535, 65536, 65537]

#: Room behind a message for the longest header: only then what follows is looked at.
ROOM = bytes(10)


@pytest.fixture(params=implementations())
def split(request: pytest.FixtureRequest) -> Any:
    """``split_binary``."""
    return request.param


def parts(found: tuple[list[memoryview], int, int, int]) -> tuple[list[bytes], int, int, int]:
    """The same with copies of the payloads."""
    payloads, at, left, messages = found
    return [bytes(payload) for payload in payloads], at, left, messages


@pytest.mark.parametrize("size", SIZES)
def test_every_size(split: Any, size: int) -> None:
    """Messages of every kind of header, one behind the other, up to the header that may not be all there."""
    payload = random.Random(size).randbytes(size)
    frame = server_frame(BINARY, payload)
    data = frame * 3 + ROOM
    assert parts(split(data, 0, len(data), 0, 100)) == ([payload] * 3, 3 * len(frame), 0, 3)
    assert parts(split(data, len(frame), len(data), 0, 100)) == ([payload] * 2, 3 * len(frame), 0, 2)
    # What lies behind the stop is never looked at, nor what is before the start.
    for stop in (0, 1, 9, 10, len(frame), len(frame) + 9):
        payloads, at, left, messages = split(data, 0, stop, 0, 100)
        assert at <= stop and b"".join(payloads) == payload[: len(b"".join(payloads))]
        assert at + left in (0, len(frame), 2 * len(frame)) and messages == sum(map(len, payloads)) // size


@pytest.mark.parametrize("size", SIZES)
def test_a_message_goes_on_in_the_next_read(split: Any, size: int) -> None:
    """Cut anywhere behind its header, and what is left of it may be cut again."""
    payload = random.Random(size).randbytes(size)
    data = server_frame(BINARY, payload) + ROOM
    header = len(data) - size - len(ROOM)
    for cut in {max(10, header), max(10, header + size // 2), max(10, header + size - 1)}:
        begun, at, left, messages = split(data, 0, cut, 0, 100)
        if cut >= header + size:  # a short one, which is all there
            assert (at, left, messages) == (header + size, 0, 1)
            continue
        assert (at, left, messages) == (cut, header + size - cut, 0)
        assert len(begun) == (cut > header)
        rest = data[cut:]
        middle, at, left, messages = split(rest, 0, 1, left, 100)
        assert (len(middle), at) == (1, 1) and messages == (not left)
        tail = [] if not left else split(rest, 1, len(rest), left, 100)[0]
        assert b"".join([*begun, *middle, *tail]) == payload


def test_nothing_has_arrived(split: Any) -> None:
    """Not a byte changes nothing, within a message and between two."""
    for left in (0, 1, 1 << 62):
        assert split(b"", 0, 0, left, 100) == ([], 0, left, 0)
        assert split(bytearray(7), 3, 3, left, 100) == ([], 3, left, 0)


LEFT_TO_THE_PARSER = {
    "text": server_frame(TEXT, b"t"),
    "ping": server_frame(PING, b"p"),
    "close": server_frame(CLOSE),
    "an empty message": server_frame(BINARY),
    "a fragment": server_frame(BINARY, b"x", end=False),
    "a continuation": server_frame(0, b"x"),
    "masked": b"\x82\x81abcdx",
    "masked, 16 bits": b"\x82\xfe\x00\x7eabcd" + bytes(126),
    "masked, 64 bits": b"\x82\xff" + struct.pack(">Q", 65536) + bytes(20),
    "a reserved bit": b"\xc2\x01x",
    "an opcode without a meaning": b"\x83\x01x",
    "16 bits for 125": b"\x82\x7e\x00\x7d" + bytes(125),
    "16 bits for nothing": b"\x82\x7e\x00\x00",
    "64 bits for 65,535": b"\x82\x7f" + struct.pack(">Q", 65535) + bytes(10),
    "64 bits for nothing": b"\x82\x7f" + bytes(8),
    "a length with its highest bit": b"\x82\x7f" + struct.pack(">Q", 1 << 63) + bytes(10),
    "all bits set": b"\x82\x7f" + b"\xff" * 20,
}


@pytest.mark.parametrize("name", LEFT_TO_THE_PARSER)
@pytest.mark.parametrize("before", [0, 1, 7])
def test_whatever_is_special_is_left_to_the_parser(split: Any, name: str, before: int) -> None:
    """And what stands behind it; what came before it is given."""
    frame = server_frame(BINARY, b"before")
    data = frame * before + LEFT_TO_THE_PARSER[name] + frame + ROOM
    assert parts(split(data, 0, len(data), 0, 100)) == ([b"before"] * before, before * len(frame), 0, before)


@pytest.mark.parametrize("size", [1 << 32, 1 << 40, (1 << 63) - 1])
def test_huge_lengths(split: Any, size: int) -> None:
    """They are believed and cost nothing."""
    data = b"\x82\x7f" + struct.pack(">Q", size) + b"abc"
    assert parts(split(data, 0, len(data), 0, 100)) == ([b"abc"], len(data), size - 3, 0)
    assert parts(split(b"defg", 0, 4, size - 3, 100)) == ([b"defg"], 4, size - 7, 0)


@pytest.mark.parametrize("most", [0, 1, 2, MAX_PIECES])
def test_most(split: Any, most: int) -> None:
    """There are so many payloads at most; one that was begun before is always gone on with."""
    data = server_frame(BINARY, b"ab") * (MAX_PIECES + 5) + ROOM
    assert parts(split(data, 0, len(data), 0, most)) == ([b"ab"] * most, 4 * most, 0, most)
    payloads, at, left, messages = split(data, 3, len(data), 1, most)
    assert (len(payloads), at, left, messages) == (max(1, most), 4 * max(1, most), 0, max(1, most))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_payloads_are_views(split: Any, kind: type) -> None:
    """Nothing is copied, and the memory lives as long as they do."""
    data = kind(server_frame(BINARY, b"abc") + ROOM)
    ((payload,), _, _, _) = split(data, 0, len(data), 0, 100)
    assert type(payload) is memoryview and payload.obj is (data.obj if kind is memoryview else data)
    if kind is bytearray:
        data[2] = ord("x")
        assert bytes(payload) == b"xbc"
        with pytest.raises(BufferError):
            data.clear()
        payload.release()
        data.clear()


def test_both_do_the_same() -> None:
    """Ten thousand streams of everything, some of them damaged, from any byte to any other."""
    first, *others = (each.values[0] for each in implementations())
    rng = random.Random(5)
    special = list(LEFT_TO_THE_PARSER.values())
    gave = 0
    for _ in range(10_000):
        data = bytearray()
        for _ in range(rng.randint(1, 6)):
            plain = server_frame(BINARY, bytes(rng.choice([1, 2, 125, 126, 200, 65535, 65536])))
            data += rng.choice(special) if rng.random() < 0.2 else plain
        if rng.random() < 0.2:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        start = rng.randint(0, min(20, len(data)))
        stop = rng.randint(start, len(data))
        left, most = rng.choice([0, 0, start, 5, 70_000, 1 << 40]), rng.choice([1, 3, 100])
        expected = first(data, start, stop, left, most)
        gave += len(expected[0])
        for other in others:
            assert other(data, start, stop, left, most) == expected, (data, start, stop, left, most)
    assert gave > 5_000


class TestTheExtensionItself:
    """It is called with what Python checks elsewhere, so it checks for itself."""

    @pytest.fixture
    def split(self) -> Any:
        """The function of the C extension, whether it is in use or not."""
        return pytest.importorskip("iii_sync.wire._frames").split_binary

    @pytest.mark.parametrize(("start", "stop", "left"), [(-1, 3, 0), (4, 3, 0), (0, 11, 0), (0, 3, -1), (11, 11, 0)])
    def test_what_does_not_fit_is_refused(self, split: Any, start: int, stop: int, left: int) -> None:
        """Nothing outside is read."""
        with pytest.raises(ValueError, match="of 10"):
            split(bytes(10), start, stop, left, 100)

    @pytest.mark.parametrize(
        "buffer", [array.array("H", [0x0182] * 20), memoryview(bytes(40))[::2], memoryview(bytes(40)).cast("B", (5, 8))]
    )
    def test_strange_buffers_are_refused(self, split: Any, buffer: Any) -> None:
        """What is not of single bytes in a row."""
        with pytest.raises(ValueError, match="single bytes"):
            split(buffer, 0, 10, 0, 100)

    def test_wrong_arguments_are_refused(self, split: Any) -> None:
        """Their number, their kinds, and integers that no size can be."""
        with pytest.raises(TypeError, match="5 arguments"):
            split(b"", 0, 0, 0)
        with pytest.raises(TypeError):
            split("text", 0, 0, 0, 100)
        with pytest.raises(TypeError):
            split(b"", 0, 0, None, 100)
        with pytest.raises(OverflowError):
            split(b"", 0, 0, 1 << 70, 100)

    def test_nothing_leaks(self, split: Any) -> None:
        """Neither buffers nor numbers, in success and failure."""
        data = bytearray(server_frame(BINARY, bytes(1000)) * 20)
        references, blocks = sys.getrefcount(data), 0
        for number in range(1100):
            if number == 100:
                gc.collect()
                blocks = sys.getallocatedblocks()
            split(data, 0, len(data), 0, 100)
            with pytest.raises(ValueError):
                split(data, 0, len(data) + 1, 0, 100)
        gc.collect()
        assert sys.getallocatedblocks() < blocks + 500
        assert sys.getrefcount(data) == references
        data.clear()  # no view is left of it


@pytest.mark.parametrize("wanted", ["c", "numpy", "python", ""])
def test_which_is_picked(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``III_SYNC_ACCELERATOR`` decides, as far as the extension is there; without it that is called."""
    monkeypatch.setenv("III_SYNC_ACCELERATOR", wanted)
    program = run("from iii_sync.wire import frames; print(frames.split_in_c)")
    built = importlib.util.find_spec("iii_sync.wire._frames") is not None
    assert program.lines == [str(built and wanted in ("c", ""))]


def test_what_is_in_use_splits() -> None:
    """Whichever it is."""
    data = server_frame(BINARY, b"abc") + ROOM
    assert parts(frames.split_binary(data, 0, len(data), 0, 1)) == ([b"abc"], 5, 0, 1)
