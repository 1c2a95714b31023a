"""Joining a growing frame: everything that joins is in it once, whole, and masked; everything else is refused."""

from __future__ import annotations

import array
import gc
import importlib.util
import os
import random
import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iii_sync.wire import growing as module

from ..support.process import run
from ..support.threads import switching_every
from .test_mask import reference

KEY = b"\x01\x80\xff\x5a"
PAUSE = 0.5


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def growing(clock: Clock) -> Any:
    """A new frame of the C extension's, whether that is in use or not."""
    return extension()(clock, PAUSE)


def extension() -> Any:
    if importlib.util.find_spec("iii_sync.wire._mask") is None:
        pytest.skip("the C extension was not built")
    from iii_sync.wire._mask import Growing

    return Growing


@settings(deadline=None)
@given(
    rounds=st.lists(st.lists(st.binary(max_size=70), max_size=8), max_size=4),
    at=st.integers(0, 9),
    before=st.binary(max_size=9),
)
def test_what_joins_is_masked_as_one(rounds: list[list[bytes]], at: int, before: bytes) -> None:
    """Wherever the payload begins, whatever is in there, and however often it is shut in between."""
    growing = extension()(Clock(), PAUSE)
    frame = bytearray(b"\xee" * 4000)
    expected = before
    frame[at : at + len(before)] = reference(before, KEY)
    growing.used = len(before)
    for pieces in rounds:
        growing.open(frame, at, 3000, KEY)
        for piece in pieces:
            assert growing.join(piece) == len(piece)
            expected += piece
        growing.shut()
        assert growing.used == len(expected)
    assert growing.joined == len(expected) - len(before)
    assert frame[at : at + growing.used] == reference(expected, KEY)
    assert set(frame[:at] + frame[at + growing.used :]) <= {0xEE}


def test_any_buffer_joins(growing: Any) -> None:
    """As its bytes, counted in bytes."""
    frame = bytearray(1000)
    growing.open(frame, 0, 1000, bytes(4))
    numbers = array.array("d", [1.5, -2.25])
    rows = memoryview(bytes(range(12))).cast("B", [3, 4])
    buffers = [b"bytes", bytearray(b"array"), memoryview(b"view")[1:3], numbers, rows, memoryview(numbers)]
    for buffer in buffers:
        view: memoryview = memoryview(buffer)  # type: ignore[arg-type]
        assert growing.join(buffer) == view.nbytes
    assert bytes(frame[: growing.used]) == b"".join(memoryview(buffer).tobytes() for buffer in buffers)  # type: ignore[arg-type]


def test_what_is_refused(growing: Any) -> None:
    """Nothing is added, and nothing is raised: the way that such data go will say what is wrong."""
    frame = bytearray(100)
    growing.open(frame, 0, 100, KEY)
    gone = memoryview(b"released")
    gone.release()
    for data in ("text", 5, None, object(), [1], memoryview(b"abcdef")[::2], gone, b"", bytes(101)):
        assert growing.join(data) == 0
    assert growing.join(b"abc") == 3
    assert growing.used == growing.joined == 3
    assert frame == reference(b"abc", KEY) + bytes(97)


def test_the_same_arrays_are_taken_as_by_a_memoryview(growing: Any) -> None:
    """For that is the other way to write them."""
    numpy = pytest.importorskip("numpy")
    growing.open(bytearray(10_000), 0, 10_000, KEY)
    rows = numpy.arange(12.0).reshape(3, 4)
    arrays = [rows, rows.T, rows[::-1], rows[:, :2], rows[1], numpy.float32(1), rows > 3, rows.astype("M8[s]")]
    arrays += [numpy.zeros(0), numpy.zeros((3, 0)), numpy.array([(1, 2.0)], dtype="i4,f8"), numpy.array(["text"])]
    taken = 0
    for values in arrays:
        try:
            view = memoryview(values)
            size = view.nbytes if view.c_contiguous else 0
        except ValueError:
            size = 0
        assert growing.join(values) == size, values
        taken += bool(size)
    assert 4 <= taken <= 8


def test_there_must_be_room(growing: Any) -> None:
    """Up to the limit, or to the end of the memory, and not a byte more."""
    for size, limit in ((20, 10), (12, 100)):
        growing.used = 0
        growing.open(bytearray(size), 2, limit, KEY)
        assert growing.join(bytes(7)) == 7
        assert growing.join(bytes(4)) == 0
        assert growing.join(bytes(3)) == 3
        assert growing.join(b"x") == 0
        growing.shut()
        assert growing.used == 10
    growing.open(bytearray(12), 2, 5, KEY)  # less than is used
    assert growing.join(b"x") == 0


def test_nothing_joins_what_is_shut(growing: Any) -> None:
    """Nor what was never opened; shutting it twice is as good as once."""
    assert growing.join(b"x") == 0
    growing.shut()
    growing.open(bytearray(10), 0, 10, KEY)
    growing.shut()
    growing.shut()
    assert growing.join(b"x") == 0
    assert growing.used == growing.joined == 0


def test_nothing_joins_behind_a_pause(growing: Any, clock: Clock) -> None:
    """It counts from what joined last, or from the opening."""
    growing.open(bytearray(10), 0, 10, KEY)
    assert growing.last == clock.now
    for _ in range(3):
        clock.now += PAUSE
        assert growing.join(b"x") == 1
        assert growing.last == clock.now
    before = clock.now
    clock.now += PAUSE * 1.01
    assert growing.join(b"x") == 0
    assert growing.last == before
    growing.shut()
    growing.open(bytearray(10), 0, 10, KEY)
    assert growing.join(b"x") == 1


def test_the_end(growing: Any) -> None:
    """Whatever is open stays as it is, and nothing is opened any more."""
    frame = bytearray(10)
    growing.open(frame, 0, 10, bytes(4))
    assert growing.join(b"ab") == 2
    growing.end()
    assert growing.join(b"c") == 0
    growing.shut()
    assert growing.used == 2
    growing.open(frame, 0, 10, bytes(4))
    assert growing.join(b"c") == 0
    frame.extend(b"resized: it was not kept")
    assert frame.startswith(b"ab\0")


def test_its_memory_is_held_while_it_is_open(clock: Clock) -> None:
    """And no longer, also when it goes away."""
    growing = extension()(clock, PAUSE)
    frame = bytearray(10)
    growing.open(frame, 0, 10, KEY)
    with pytest.raises(BufferError):
        frame.append(1)
    growing.shut()
    frame.append(1)
    growing.open(frame, 0, 10, KEY)
    del growing
    gc.collect()
    frame.append(1)


def test_what_its_owner_does_wrong(growing: Any) -> None:
    """Is an error at once, and changes nothing."""
    frame = bytearray(10)
    growing.used = 3
    wrong: list[tuple[Any, ...]] = [
        (frame, 0, 10, b"abc"),
        (frame, 0, 10, b"abcde"),
        (frame, -1, 10, KEY),
        (frame, 11, 10, KEY),
        (frame, 8, 10, KEY),
    ]
    for arguments in wrong:
        with pytest.raises(ValueError):
            growing.open(*arguments)
    for arguments in [(b"read only", 0, 9, KEY), (frame, 0, 10), (frame, "0", 10, KEY), (frame, 0, 10, "text")]:
        with pytest.raises((TypeError, BufferError)):
            growing.open(*arguments)
    frame.append(1)  # nothing holds it
    for used in (-1, 1 << 100):
        with pytest.raises((ValueError, OverflowError)):
            growing.used = used
    with pytest.raises(TypeError):
        growing.used = "3"
    with pytest.raises(ValueError):
        del growing.used
    growing.open(frame, 0, 10, KEY)
    with pytest.raises(ValueError, match="open already"):
        growing.open(bytearray(10), 0, 10, KEY)
    with pytest.raises(ValueError, match="open"):
        growing.used = 0
    assert growing.used == 3
    for name in ("joined", "last"):
        with pytest.raises(AttributeError):
            setattr(growing, name, 1)
    with pytest.raises(TypeError):
        extension()(Clock())


def test_a_clock_that_fails(growing: Any, clock: Clock) -> None:
    """Its error is passed on, and nothing has joined."""
    frame = bytearray(10)
    growing.open(frame, 0, 10, KEY)
    clock.now = "late"  # type: ignore[assignment]
    with pytest.raises(TypeError):
        growing.join(b"x")
    growing.shut()
    with pytest.raises(TypeError):
        growing.open(frame, 0, 10, KEY)
    frame.append(1)
    clock.now = -1.0  # C's way to say that there may be an error
    growing.open(frame, 0, 10, KEY)
    assert growing.join(b"x") == 1


def test_data_that_act_when_they_are_asked_for_their_bytes(growing: Any) -> None:
    """They may be Python's (PEP 688), and shut the door behind which they are wanted, or join themselves."""
    if sys.version_info < (3, 12):
        pytest.skip("buffers are C's there")
    actions: list[Any] = []

    class Data:
        def __buffer__(self, flags: int) -> memoryview:
            actions.pop()()
            return memoryview(b"data")

    def fail(kind: type[BaseException]) -> None:
        raise kind

    frame = bytearray(100)
    growing.open(frame, 0, 100, bytes(4))
    actions.append(lambda: growing.join(b"other"))
    assert growing.join(Data()) == 4
    actions.append(lambda: fail(ZeroDivisionError))
    assert growing.join(Data()) == 0
    actions.append(lambda: fail(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        growing.join(Data())
    actions.append(growing.shut)
    assert growing.join(Data()) == 0
    growing.open(frame, 0, 100, bytes(4))
    actions.append(growing.end)
    assert growing.join(Data()) == 0
    assert bytes(frame[: growing.used]) == b"otherdata"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_nothing_joins_in_a_forked_child(growing: Any) -> None:
    """What it would add to is a copy."""
    frame = bytearray(10)
    growing.open(frame, 0, 10, KEY)
    child = os.fork()
    if not child:
        os._exit(7 if growing.join(b"x") == 0 and growing.used == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert growing.join(b"x") == 1


def test_many_threads_and_an_owner() -> None:
    """Records of many sizes from eight threads, while the frame is taken away and opened again all the time."""
    growing = extension()(time.monotonic, 10.0)
    threads, each, at = 8, 3000, 16
    memory = [bytearray(at + 20_000), bytearray(at + 20_000)]
    done = threading.Event()
    taken: list[bytes] = []
    refused = [0]

    def own() -> None:
        turn = 0
        while True:
            last = done.is_set()
            growing.shut()
            size = growing.used
            taken.append(reference_of(memory[turn][at : at + size]))
            growing.used = 0
            if last:
                return
            turn = 1 - turn
            growing.open(memory[turn], at, 20_000, KEY)
            time.sleep(0.0002)

    def reference_of(data: bytearray) -> bytes:
        size = len(data)
        pad = (KEY * (size // 4 + 1))[:size]
        return (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")

    def write(mark: int) -> None:
        source = random.Random(mark)
        for number in range(each):
            record = bytes([mark]) + number.to_bytes(2, "big") + source.choice([b"", b"\xff" * 50, b"\xff" * 997])
            record = len(record).to_bytes(2, "big") + record
            while not growing.join(record):
                refused[0] += 1
                time.sleep(0)

    with switching_every(1e-5):
        owner = threading.Thread(target=own)
        writers = [threading.Thread(target=write, args=[mark]) for mark in range(threads)]
        for thread in (owner, *writers):
            thread.start()
        for thread in writers:
            thread.join(60)
        done.set()
        owner.join(60)
    assert not any(thread.is_alive() for thread in (owner, *writers))
    data, position = b"".join(taken), 0
    numbers: list[int] = [0] * threads
    while position < len(data):
        size = int.from_bytes(data[position : position + 2], "big")
        record = data[position + 2 : position + 2 + size]
        assert len(record) == size and set(record[3:]) <= {0xFF}
        assert int.from_bytes(record[1:3], "big") == numbers[record[0]]
        numbers[record[0]] += 1
        position += 2 + size
    assert numbers == [each] * threads
    assert growing.joined == len(data)
    assert len(taken) > 10


@pytest.mark.parametrize("wanted", ["c", "numpy", "python", ""])
def test_which_is_picked(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``III_SYNC_ACCELERATOR`` decides, as far as the extension is there."""
    monkeypatch.setenv("III_SYNC_ACCELERATOR", wanted)
    program = run("from iii_sync.wire.growing import Growing; print(Growing.__module__)")
    built = importlib.util.find_spec("iii_sync.wire._mask") is not None
    assert program.lines == ["iii_sync.wire._mask" if built and wanted in ("c", "") else "iii_sync.wire.growing"]


def test_without_the_extension_nothing_joins() -> None:
    """And everything else can be called all the same."""
    program = run(
        "import os; os.environ['III_SYNC_ACCELERATOR'] = 'python'\n"
        "from iii_sync.wire.growing import Growing\n"
        "growing = Growing(None, 1.0)\n"
        "growing.used = 3\n"
        "growing.open(bytearray(10), 0, 10, b'abcd')\n"
        "print(growing.join(b'x'), growing.used, growing.joined, growing.last)\n"
        "growing.shut(); growing.end()\n"
    )
    assert program.lines == ["0 3 0 0.0"]


def test_both_have_the_same_members() -> None:
    """What is written for one works with the other."""
    members = {name for name in vars(extension()) if not name.startswith("_")}
    program = run(
        "import os; os.environ['III_SYNC_ACCELERATOR'] = 'python'\n"
        "from iii_sync.wire.growing import Growing\n"
        "print(sorted({*vars(Growing), *vars(Growing(None, 1.0))}))\n"
    )
    assert members == {name for name in eval(program.lines[0]) if not name.startswith("_")}
    assert module.Growing is not None
