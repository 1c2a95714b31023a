"""What ``io`` says, to the letter: a channel end does what a real file or a real pipe does, but for one table."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iii_sync import Channel, Worker, errors, register_worker

from ..support.process import run
from . import operations
from .compare import (
    DATA,
    MODES,
    WAIT,
    Operation,
    Outcome,
    Raised,
    Value,
    agree,
    arguments,
    channel_end,
    outcome,
    outcome_when_closed,
    real_file,
    real_pipe,
)

#: Hypothesis draws the same examples in every run; one worker serves them all.
PROPERTY = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def worker(local_engine_url: str) -> Iterator[Worker]:
    """Nothing here depends on the engine: the local one will do."""
    with register_worker(local_engine_url) as worker:
        yield worker


@pytest.fixture
def channel(worker: Worker) -> Iterator[Channel]:
    """A channel."""
    channel = worker.create_channel()
    channel.reader.timeout = channel.writer.timeout = WAIT
    yield channel
    channel.reader.abort()
    channel.writer.abort()


class Different(NamedTuple):
    """Operations that a channel end answers in its own way, and why.

    Attributes:
        operations: Their names.
        modes: Where.
        when: ``"open"``, ``"closed"`` or ``"both"``.
        expected: What they return, or the exception that they raise.
        reason: Why.
        left: What is left of the data, if that is what differs.
    """

    operations: tuple[str, ...]
    modes: tuple[str, ...]
    when: str
    expected: Any
    reason: str
    left: Optional[type[BaseException]] = None


ENDS = ("rb0", "wb0")
READERS = ("rb0", "rb")
WRITERS = ("wb0", "wb", "w")
DETACHING = tuple(name for name in operations.BUFFERED if name.startswith("detach,") and "repr" not in name)

#: All deliberate differences. (``read(n)`` is full, which a file's is too and a pipe's is not; ``tell`` counts bytes,
#: as a file's does and a pipe's does not.)
DIFFERENCES = [
    Different(("list",), ("rb0",), "open", [DATA], "iterating gives chunks as they arrive, never waits for a newline"),
    Different(("next",), ("rb0",), "open", DATA, "iterating gives chunks"),
    Different(("fileno",), MODES, "open", io.UnsupportedOperation, "there is a socket, but its bytes are frames"),
    Different(("name",), MODES, "both", AttributeError, "it has none; programs take a name for that of a file"),
    Different(("closefd",), ENDS, "both", AttributeError, "there is no descriptor"),
    Different(
        ("with, on an error",),
        WRITERS,
        "open",
        (("kept",), True),
        "leaving on an exception aborts: half a stream never looks complete",
        left=errors.ChannelTruncatedError,
    ),
    Different(("read(2**70)",), READERS, "open", DATA, "no size is too large, for nothing is allocated for it"),
    Different(("readline(2**70)",), READERS, "open", b"first\n", "no size is too large"),
    Different(("read1(None)",), ("rb",), "open", DATA, "None is -1 in every way to read"),
    Different(
        ("detach", "detach twice", *DETACHING),
        ("rb",),
        "open",
        io.UnsupportedOperation,
        "the file is a view of the reader's own buffer: there is nothing to take apart; use .raw",
    ),
    Different(("readline(0)",), ("rb0",), "closed", ValueError, "closed is closed; io forgets to look"),
    Different(
        ("readinto(released memoryview)", "readinto1(released memoryview)"),
        READERS,
        "open",
        ValueError,
        "what the buffer itself says",
    ),
    Different(
        ("write(numpy steps)", "write(numpy columns)"),
        ("wb0",),
        "open",
        BufferError,
        "one error for every buffer with gaps, where a file passes on that of the buffer's class",
    ),
    Different(("write_through",), ("w",), "both", True, "what waits, waits in the buffer below, which can be aborted"),
]

#: On a closed file, or on the wrong end, an argument that is wrong as well may be what the error is about, or not.
EITHER_MISTAKE = (ValueError, TypeError, BufferError)  # io.UnsupportedOperation is a ValueError


def applicable(name: str) -> dict[str, Operation]:
    """The modes in which an operation is tried, and the operation there."""
    tried: dict[str, Operation] = {}
    for mode in MODES:
        table = dict(operations.COMMON)
        if "b" in mode:
            table.update(operations.BUFFERS)
        if not mode.endswith("0"):
            table.update(operations.BUFFERED)
        elif name.startswith("readinto1"):
            continue  # raw files have no such method
        if "b" not in mode:
            table.update(operations.TEXT)
        if name in table:
            tried[mode] = table[name]
    return tried


def wrong_way(name: str, mode: str) -> bool:
    """Whether an operation reads what is open for writing, or the other way round."""
    if name.startswith(("write", "truncate")):
        return "r" in mode
    return name.startswith(("read", "peek")) and "w" in mode


def known(name: str, mode: str, closed: bool) -> Optional[Different]:
    """The entry of the table, if there is one."""
    found = [
        entry
        for entry in DIFFERENCES
        if name in entry.operations and mode in entry.modes and entry.when in ("both", "closed" if closed else "open")
    ]
    assert len(found) <= 1
    return found[0] if found else None


def check(name: str, mode: str, closed: bool, results: list[Outcome]) -> None:
    """Compare the outcomes on a file, on a pipe, and on a channel end."""
    file, pipe, end = results
    same = agree(end, file) or agree(end, pipe)
    if not same and isinstance(end, Raised) and issubclass(end.kind, EITHER_MISTAKE):
        same = (closed or wrong_way(name, mode) or name in ("seek()", "seek('0')")) and isinstance(file, Raised)
    said = f"{name} of {'a closed' if closed else 'an open'} {mode}: file {file}, pipe {pipe}, channel {end}"
    entry = known(name, mode, closed)
    if entry is None:
        assert same, said
        return
    assert not same, f"not different any more, take it out of the table: {said}"
    if isinstance(entry.expected, type):
        assert isinstance(end, Raised) and issubclass(end.kind, entry.expected), said
    else:
        assert isinstance(end, Value) and end.value == entry.expected, said
    if entry.left is not None:
        assert end.left is entry.left


NAMES = list({**operations.COMMON, **operations.BUFFERS, **operations.BUFFERED, **operations.TEXT})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_like_a_file_or_a_pipe(worker: Worker, tmp_path: Path, name: str) -> None:
    """One operation, on open files and on closed ones: the same value or error, and the same data left."""
    if "numpy" in name:
        pytest.importorskip("numpy")
    for mode, operation in applicable(name).items():
        with real_file(mode, tmp_path) as file, real_pipe(mode) as pipe, channel_end(mode, worker) as end:
            check(name, mode, False, [outcome(opened, operation) for opened in (file, pipe, end)])
        with real_file(mode, tmp_path) as file, real_pipe(mode) as pipe, channel_end(mode, worker, None) as end:
            check(name, mode, True, [outcome_when_closed(opened, operation) for opened in (file, pipe, end)])


def test_the_table_names_what_exists() -> None:
    """No difference is listed for an operation that nobody tries."""
    for entry in DIFFERENCES:
        assert entry.reason
        for name in entry.operations:
            assert set(entry.modes) & set(applicable(name)), entry


# --- sequences ---------------------------------------------------------------------------------------------

_sizes = st.sampled_from([-1, 0, 1, 2, 3, 5, 8, 13, 100])
_reads = st.one_of(
    st.tuples(st.sampled_from(["read", "readline"]), _sizes),
    st.tuples(st.sampled_from(["readlines"]), st.sampled_from([-1, 0, 1, 7, 12, 100])),
    st.tuples(st.just("readinto"), st.integers(0, 20)),
    st.tuples(st.sampled_from(["tell", "peek", "next", "readall"]), st.just(0)),
)
_data = st.lists(st.sampled_from([b"\n", b"\r\n", b"ab", b"cde\n", "\u20ac".encode(), b"0123456789"]), max_size=12)


def read(file: Any, name: str, size: int) -> Any:
    """One step of a sequence of reads."""
    if name == "readinto":
        buffer = bytearray(size)
        return file.readinto(buffer), bytes(buffer)
    if name == "next":
        return next(file, None)
    if name in ("tell", "readall"):
        return getattr(file, name)()
    if name == "peek":
        return file.peek(1)[:1]  # how much more it shows is not promised
    return getattr(file, name)(size)


@pytest.mark.parametrize("mode", ["rb0", "rb", "r"])
def test_any_sequence_of_reads(worker: Worker, tmp_path: Path, mode: str) -> None:
    """Whatever is called in whatever order gives what a file gives; chunks cut anywhere make no difference."""
    absent = {"rb0": ("next", "peek"), "rb": ("readall",), "r": ("readinto", "peek", "tell", "readall")}[mode]

    @settings(PROPERTY, max_examples=60)
    @given(pieces=_data, steps=st.lists(_reads.filter(lambda step: step[0] not in absent), max_size=10))
    def property_of_all(pieces: list[bytes], steps: list[tuple[str, int]]) -> None:
        plain, buffering, options = arguments(mode)
        channel = worker.create_channel()
        channel.reader.timeout = WAIT
        with channel.writer:
            for piece in pieces:
                channel.writer.write(piece)
        if mode == "rb0":
            # As much as has arrived: let that be all of it.
            channel.reader.peek()
            steps = [("read" if name == "readinto" else name, size) for name, size in steps]
        with real_file(mode, tmp_path, b"".join(pieces)) as real:
            with channel.reader.makefile(plain, buffering, **options) as file:  # type: ignore[call-overload]
                for step in steps:
                    assert read(file, *step) == read(real.file, *step)
                assert file.read() == real.file.read()

    property_of_all()


_writes = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(["", "a", "b\n", "\u20ac\r\n", "x" * 70_000])),
    st.tuples(st.just("writelines"), st.lists(st.sampled_from(["", "c", "d\n"]), max_size=3)),
    st.tuples(st.sampled_from(["flush", "tell"]), st.none()),
)


@pytest.mark.parametrize("mode", ["wb0", "wb", "w"])
def test_any_sequence_of_writes(worker: Worker, tmp_path: Path, mode: str) -> None:
    """What arrives is what a file would hold."""

    def write(file: Any, name: str, value: Any) -> Any:
        if value is None:
            return getattr(file, name)()
        if "b" in mode:
            value = value.encode() if isinstance(value, str) else [item.encode() for item in value]
        return getattr(file, name)(value)

    @settings(PROPERTY, max_examples=60)
    @given(steps=st.lists(_writes.filter(lambda step: mode != "w" or step[0] != "tell"), max_size=8))
    def property_of_all(steps: list[tuple[str, Any]]) -> None:
        plain, buffering, options = arguments(mode)
        channel = worker.create_channel()
        channel.reader.timeout = channel.writer.timeout = WAIT
        with real_file(mode, tmp_path) as real:
            with channel.writer.makefile(plain, buffering, **options) as file:  # type: ignore[call-overload]
                for step in steps:
                    assert write(file, *step) == write(real.file, *step)
            real.file.close()
            assert channel.reader.read() == real.left()
            assert channel.reader.complete is True

    property_of_all()


@pytest.mark.parametrize("newline", [None, "", "\n", "\r", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1", "utf-8-sig"])
def test_newlines_and_encodings(worker: Worker, tmp_path: Path, newline: Optional[str], encoding: str) -> None:
    """Written as into a file or a pipe (they differ in the byte-order mark of UTF-16), and read as from a file."""
    text = "one\ntwo\r\nthree\rfour \xe9\n\nend"
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe:
        with open(writing, "w", encoding=encoding, newline=newline) as file:
            assert file.write(text) == len(text)
        piped = pipe.read()
    channel = worker.create_channel()
    channel.reader.timeout = WAIT
    with channel.writer.makefile("w", encoding=encoding, newline=newline) as out:
        assert out.write(text) == len(text)
    arrived = channel.reader.read()
    path = tmp_path / "file"
    with open(path, "w", encoding=encoding, newline=newline) as file:
        file.write(text)
    content = path.read_bytes()
    assert arrived in (content, piped)
    again = worker.create_channel()
    again.reader.timeout = WAIT
    with again.writer as end:
        for position in range(0, len(content), 3):
            end.write(content[position : position + 3])
    with open(path, encoding=encoding, newline=newline) as file:
        with again.reader.makefile("r", encoding=encoding, newline=newline) as back:
            assert list(back) == list(file)
            assert back.newlines == file.newlines
            assert (back.encoding, back.errors) == (file.encoding, file.errors)


# --- the wrappers of the standard library --------------------------------------------------------------------


def wrapped(make: Callable[[Any], Any], mode: str) -> Operation:
    """Put a wrapper around an unbuffered file, use it, close it twice, and look at what it is then."""

    def operation(file: Any) -> Any:
        wrapper = make(file)
        used: list[Any] = [isinstance(repr(wrapper), str), wrapper.closed]
        if mode == "rb0":
            used += [wrapper.readable(), wrapper.read(3), wrapper.readline(), wrapper.read()]
        else:
            used += [wrapper.writable(), wrapper.write(TEXT if isinstance(wrapper, io.TextIOBase) else b"abc")]
            used.append(wrapper.flush())
        wrapper.close()
        wrapper.close()
        with pytest.raises(ValueError, match="closed"):
            wrapper.flush()
        return [*used, wrapper.closed, file.closed, isinstance(repr(wrapper), str)]

    return operation


TEXT = "text \u20ac\n"

WRAPPERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "BufferedReader": ("rb0", io.BufferedReader),
    "BufferedReader of 1": ("rb0", lambda raw: io.BufferedReader(raw, 1)),
    "BufferedWriter": ("wb0", io.BufferedWriter),
    "BufferedWriter of 1": ("wb0", lambda raw: io.BufferedWriter(raw, 1)),
    "TextIOWrapper to read": ("rb0", lambda raw: io.TextIOWrapper(io.BufferedReader(raw), "utf-8")),
    "TextIOWrapper to write": ("wb0", lambda raw: io.TextIOWrapper(io.BufferedWriter(raw), "utf-8")),
    "TextIOWrapper of lines": (
        "wb0",
        lambda raw: io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", line_buffering=True),
    ),
    "the wrong way to read": ("wb0", io.BufferedReader),
    "the wrong way to write": ("rb0", io.BufferedWriter),
    "BufferedRandom": ("rb0", io.BufferedRandom),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers(worker: Worker, tmp_path: Path, name: str) -> None:
    """The wrappers of io over an end are like those over a file."""
    mode, make = WRAPPERS[name]
    operation = wrapped(make, mode)
    with real_file(mode, tmp_path) as file, real_pipe(mode) as pipe, channel_end(mode, worker) as end:
        results = [outcome(opened, operation) for opened in (file, pipe, end)]
    assert agree(results[2], results[0]) or agree(results[2], results[1]), results


def test_a_pair(worker: Worker) -> None:
    """BufferedRWPair reads one end and writes the other, and closes both."""
    there, back = worker.create_channel(), worker.create_channel()
    with back.writer as end:
        end.write(b"answer\nmore")
    pair = io.BufferedRWPair(back.reader, there.writer)
    assert pair.readable() and pair.writable() and not pair.seekable() and not pair.isatty()
    assert pair.write(b"question") == 8
    pair.flush()
    assert pair.readline() == b"answer\n" and pair.peek(1)[:1] == b"m" and pair.read1(10) == b"more"
    assert isinstance(repr(pair), str)
    pair.close()
    pair.close()
    assert pair.closed and back.reader.closed and there.writer.closed
    there.reader.timeout = WAIT
    assert there.reader.read() == b"question" and there.reader.complete is True


def test_detached_wrappers_give_the_end_back(channel: Channel) -> None:
    """What a wrapper held is sent, and the end goes on."""
    wrapper = io.BufferedWriter(channel.writer)
    wrapper.write(b"one ")
    assert wrapper.detach() is channel.writer
    file = channel.writer.makefile("wb")
    file.write(b"two ")
    assert file.detach() is channel.writer
    del wrapper, file
    text = channel.writer.makefile("w")
    text.write("three")
    below = text.detach()
    assert isinstance(below, io.BufferedWriter) and below.raw is channel.writer
    del text
    below.close()
    reading = io.BufferedReader(channel.reader)
    assert reading.detach() is channel.reader
    assert channel.reader.read() == b"one two three" and channel.reader.complete is True


def test_modes_are_told(channel: Channel) -> None:
    """gzip and others look at ``mode``, which is that of open()."""
    assert (channel.reader.mode, channel.writer.mode) == ("rb", "wb")
    for mode in ("rb", "r"):
        assert channel.reader.makefile(mode).mode == mode
    for mode in ("wb", "w"):
        assert channel.writer.makefile(mode).mode == mode  # type: ignore[call-overload]


# --- buffers of the caller -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1000, 100_000, 1_048_577, 5_000_000])
@pytest.mark.parametrize("buffered", [False, True])
def test_a_buffer_is_the_callers_again(channel: Channel, size: int, buffered: bool) -> None:
    """Overwritten and resized right after write() has returned: what arrives is what was in it."""
    buffer = bytearray(size)
    expected = bytearray()
    file: Any = channel.writer.makefile("wb") if buffered else channel.writer
    received = bytearray()
    for letter in b"abc":
        buffer[:] = bytes([letter]) * size
        expected += buffer
        file.write(buffer)
        buffer[:] = b"?" * size
        buffer.append(0)  # would raise if anybody still looked at it
        buffer.pop()
        file.flush()
        received += channel.reader.read(size)
    file.close()
    assert received == expected
    assert channel.reader.read() == b"" and channel.reader.complete is True


def test_a_buffer_is_the_callers_after_an_error(worker: Worker, channel: Channel) -> None:
    """Also while the exception is being handled, whose traceback holds every frame."""
    buffer = bytearray(1_000_000)
    channel.writer.timeout = 0.05
    with pytest.raises(errors.WriteTimeout) as caught:
        while True:
            channel.writer.write(buffer)
    buffer.clear()
    assert caught.value is not None
    quiet = bytearray(10)
    silent = worker.create_channel().reader
    silent.timeout = 0.05
    with pytest.raises(errors.ReadTimeout) as silence:
        silent.readinto(quiet)
    silent.close()
    quiet.clear()
    assert silence.value is not None


def test_a_read_that_fails_takes_nothing(channel: Channel) -> None:
    """A buffer that cannot be filled, a size that is none: the data is still there."""
    with channel.writer as end:
        end.write(DATA)
    file = channel.reader.makefile("rb")
    bad: list[Any] = [b"abcd", "abcd", None, memoryview(bytearray(8))[::2]]
    for target in (channel.reader, file):
        for buffer in bad:
            for method in (target.readinto, target.readinto1):
                with pytest.raises(TypeError):
                    method(buffer)
        for size in ("1", 1.5):
            for read_some in (target.read, target.read1, target.readline, target.readlines, target.peek):
                with pytest.raises(TypeError):
                    read_some(size)  # type: ignore[arg-type]
    assert file.read() == DATA


# --- after a fork --------------------------------------------------------------------------------------------

FORKED = """
import io, os, sys, traceback
from iii_sync import register_worker
from iii_sync.errors import ForkedWorkerError

worker = register_worker(sys.argv[1])
one, two, three, four = (worker.create_channel() for _ in range(4))
one.writer.write(b"some data")
assert one.reader.read(4) == b"some"
file, text = two.writer.makefile("wb"), three.writer.makefile("w")
file.write(b"kept")
text.write("kept")
reading = two.reader.makefile("rb")
uses = {
    "read": lambda: one.reader.read(1), "read all": one.reader.read, "read1": lambda: one.reader.read1(1),
    "readinto": lambda: one.reader.readinto(bytearray(1)), "readline": one.reader.readline,
    "readlines": one.reader.readlines, "next": lambda: next(one.reader), "peek": one.reader.peek,
    "events": lambda: next(one.reader.events()), "spool": one.reader.spool, "file": lambda: reading.read(1),
    "lines": lambda: next(one.reader.iter_lines()),
    "text": lambda: four.reader.makefile("r").read(),
    "wrapper": lambda: io.BufferedReader(four.reader).read(1),
    "write": lambda: one.writer.write(b"x"), "write nothing": lambda: one.writer.write(b""),
    "writelines": lambda: one.writer.writelines([b"x"]), "send_message": lambda: one.writer.send_message("x"),
    "never used": lambda: four.writer.write(b"x"), "flush": file.flush, "text flush": text.flush,
    "large": lambda: file.write(bytes(1_000_000)),
}
child = os.fork()
if not child:
    try:
        for name, use in uses.items():
            try:
                use()
            except ForkedWorkerError:
                continue
            print("no error:", name)
        for end in (one.reader, one.writer, file, text, reading, four.reader, four.writer):
            end.close()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
assert os.waitpid(child, 0)[1] == 0
one.writer.write(b", and more")
one.writer.close()
assert one.reader.read() == b" data, and more" and one.reader.complete is True
file.close()
text.close()
assert reading.read() == b"kept" and three.reader.read() == b"kept"
worker.shutdown()
print("done")
"""


def test_use_after_a_fork(local_engine_url: str) -> None:
    """Every use of the copy raises ForkedWorkerError, closing it is silent, and the parent's streams go on."""
    assert run(FORKED, local_engine_url).lines == ["done"]
