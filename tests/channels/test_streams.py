"""Streams: whole, empty, cut, slow, and refused, on both engines."""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import pickle
import random
import shutil
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any, Callable

import pytest

import iii_sync.suspicion
from iii_sync import (
    Channel,
    ChannelReader,
    ChannelWriter,
    StreamChannelRef,
    Worker,
    errors,
    extract_channel_refs,
    is_channel_ref,
    register_worker,
)
from iii_sync.net.inbox import Batch, Inbox
from iii_sync.net.waiting import Deadline
from iii_sync.wire import frames
from iii_sync.wire.marks import OPENING

from ..support.threads import in_thread, is_locked
from ..support.waiting import wait_until

WAIT = 30.0

Unique = Callable[[str], str]


@pytest.fixture
def channel(worker: Worker) -> Iterator[Channel]:
    channel = worker.create_channel()
    channel.reader.timeout = channel.writer.timeout = WAIT
    yield channel
    channel.reader.abort()
    channel.writer.abort()


def feed(writer: ChannelWriter, data: bytes, seed: int = 0) -> None:
    """Write ``data`` in pieces of random sizes and close."""
    rng = random.Random(seed)
    with writer:
        position = 0
        while position < len(data):
            size = rng.choice([1, 10, 1000, 65536, 300_000, 1_048_576, 2_500_000])
            writer.write(data[position : position + size])
            position += size


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1_048_576, 1_048_577, 30_000_000])
def test_every_size_arrives_whole(channel: Channel, size: int) -> None:
    """Exact, complete, and ended with b"" for good."""
    data = random.Random(size).randbytes(size)
    read = in_thread(channel.reader.read)
    feed(channel.writer, data, size)
    assert read() == data
    assert channel.reader.complete is True
    assert channel.reader.read() == channel.reader.read1() == channel.reader.read(5) == b""
    assert channel.reader.readinto(bytearray(5)) == 0
    assert channel.writer.closed and not channel.reader.closed
    assert channel.reader.tell() == size


def test_both_ends_on_one_thread_while_it_fits(channel: Channel) -> None:
    """The documentation's order: write, close, then read."""
    with channel.writer as f:
        f.write(b"hello ")
        f.write(b"world")
    assert b"".join(channel.reader) == b"hello world"


def test_chunks_come_as_they_arrive(channel: Channel) -> None:
    """A reader gets each small write at once, without waiting for more."""
    for number in range(20):
        channel.writer.write(b"%d" % number)
        assert next(channel.reader) == b"%d" % number
    channel.writer.close()
    assert list(channel.reader) == []


def test_copyfileobj_both_ways(channel: Channel, tmp_path: Any) -> None:
    """A file into a channel and out of it."""
    source = tmp_path / "source"
    source.write_bytes(random.Random(1).randbytes(5_000_000))

    def send() -> None:
        with channel.writer as f, source.open("rb") as src:
            shutil.copyfileobj(src, f)

    sent = in_thread(send)
    with (tmp_path / "target").open("wb") as dst:
        shutil.copyfileobj(channel.reader, dst)
    sent()
    assert (tmp_path / "target").read_bytes() == source.read_bytes()


def test_text_messages_and_bytes_keep_their_order(channel: Channel) -> None:
    """events() shows both kinds in the order in which they were sent."""
    sent: list[Any] = []
    rng = random.Random(3)
    with channel.writer as f:
        for number in range(40):
            item: Any = f"text {number} \u20ac" if rng.random() < 0.5 else b"data %d" % number
            sent.append(item)
            f.send_message(item) if isinstance(item, str) else f.write(item)
        f.send_message("")
        sent.append("")
    assert join_bytes(channel.reader.events()) == join_bytes(sent)
    assert channel.reader.complete is True


def join_bytes(items: Any) -> list[Any]:
    """Merge neighbouring chunks: how bytes are cut into chunks is not promised."""
    joined: list[Any] = []
    for item in items:
        if isinstance(item, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += item
        else:
            joined.append(item)
    return joined


def test_messages_are_delivered_at_their_place(channel: Channel) -> None:
    """A callback runs when reading reaches the message, not before and not later."""
    heard: list[str] = []
    channel.reader.on_message(heard.append)
    with channel.writer as f:
        f.send_message("first")
        f.write(b"abc")
        f.send_message("second")
        f.write(b"def")
    assert heard == []
    assert channel.reader.read(3) == b"abc" and heard == ["first"]
    assert channel.reader.read(2) == b"de" and heard == ["first", "second"]
    assert channel.reader.read() == b"f"


def test_messages_without_bytes_are_delivered(channel: Channel) -> None:
    """A stream of text alone reads as empty."""
    heard: list[str] = []
    channel.reader.on_message(heard.append)
    with channel.writer as f:
        f.send_message("only text")
    assert channel.reader.read() == b"" and heard == ["only text"]
    assert channel.reader.complete is True


def test_a_reader_that_stops_blocks_the_writer(channel: Channel) -> None:
    """The writer times out having moved far less than it wants; then the rest flows."""
    block = bytes(100_000)
    channel.writer.timeout = 1.0
    written = 0
    channel.writer.write(b"x")
    assert channel.reader.read(1) == b"x"
    with pytest.raises(errors.WriteTimeout):
        while written < 200_000_000:
            channel.writer.write(block)
            written += len(block)
    assert 1_000_000 < written < 100_000_000
    waiting = channel.reader._inbox._waiting
    assert waiting <= 6 * 1024 * 1024


def test_a_write_that_timed_out_before_its_first_byte_may_be_repeated(channel: Channel) -> None:
    """Or, when a part had left, the stream is broken and the reader is told: never silently short."""
    block = random.Random(5).randbytes(50_000)
    channel.writer.timeout = 0.5
    blocks = 0
    broken = False
    with pytest.raises(errors.WriteTimeout) as caught:
        while True:
            channel.writer.write(block)
            blocks += 1
    broken = "broken" in str(caught.value)
    channel.writer.timeout = WAIT
    read = in_thread(channel.reader.read)
    if broken:
        with pytest.raises(errors.ChannelAbortedError):
            channel.writer.write(block)
        with pytest.raises(errors.ChannelAbortedError):
            channel.writer.close()
        with pytest.raises(errors.ChannelTruncatedError):
            read(), channel.reader.read()
    else:
        channel.writer.write(block)
        channel.writer.close()
        assert read() == block * (blocks + 1)


def test_a_stalled_write_says_once_why(channel: Channel, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log names the cure."""
    from iii_sync.net import connection

    monkeypatch.setattr(connection, "STALL", 0.1)
    channel.writer.timeout = 0.5
    caplog.set_level(logging.WARNING, "iii_sync.channel")
    with pytest.raises(errors.WriteTimeout, match=r"submit\(\)"):
        while True:
            channel.writer.write(bytes(200_000))
    assert sum("submit()" in record.getMessage() for record in caplog.records) == 1


def test_abort_is_seen_as_a_cut(channel: Channel) -> None:
    """Every byte that arrived is handed out, then the error; again and again."""
    channel.writer.write(b"some bytes")
    channel.writer.abort()
    assert channel.reader.read(10) == b"some bytes"
    for _ in range(2):
        with pytest.raises(errors.ChannelTruncatedError, match="10 bytes"):
            channel.reader.read(1)
    assert channel.reader.complete is False
    with pytest.raises(ValueError, match="closed"):
        channel.writer.write(b"more")
    assert isinstance(errors.ChannelTruncatedError("x"), OSError)


def test_read_to_the_end_of_a_cut_stream_raises_at_once(channel: Channel) -> None:
    """read() never returns a part; what did arrive is there for read1."""
    channel.writer.write(b"abc")
    channel.writer.abort()
    for _ in range(2):
        with pytest.raises(errors.ChannelTruncatedError):
            channel.reader.read()
    assert channel.reader.read1() == b"abc"
    with pytest.raises(errors.ChannelTruncatedError):
        channel.reader.read1()


def test_iterating_a_cut_stream_raises_at_its_end(channel: Channel) -> None:
    """A loop over chunks cannot end as if all were well."""
    channel.writer.write(b"abc")
    channel.writer.abort()
    seen: list[bytes] = []
    with pytest.raises(errors.ChannelTruncatedError):
        for chunk in channel.reader:
            seen.append(chunk)
    assert seen == [b"abc"]


def test_abort_before_anything_was_written_is_seen_too(channel: Channel) -> None:
    """Leaving with on an exception, before the first write: the reader does not wait for ever."""
    with pytest.raises(KeyError):
        with channel.writer:
            raise KeyError("early")
    with pytest.raises(errors.ChannelTruncatedError):
        channel.reader.read()


def test_leaving_with_on_an_exception_aborts(channel: Channel) -> None:
    """What was written is not taken for the whole."""
    with pytest.raises(KeyError):
        with channel.writer as f:
            f.write(b"half")
            raise KeyError("oops")
    with pytest.raises(errors.ChannelTruncatedError):
        list(channel.reader)


@pytest.mark.parametrize("what", ["writer", "wb", "w"])
def test_what_is_forgotten_warns_and_cuts(channel: Channel, what: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Collected without close: a ResourceWarning, a line in the log, and the reader sees the cut.

    All that was written to a file waits in it, and its writer has never connected.
    """
    forgotten: Any = channel.writer if what == "writer" else channel.writer.makefile(what)
    forgotten.write("half" if what == "w" else b"half")
    reader = channel.reader
    reader.timeout = 10
    del channel.writer, channel.writer_ref
    with pytest.warns(ResourceWarning, match="not closed"):
        del forgotten
        gc.collect()
    with pytest.raises(errors.ChannelTruncatedError):
        list(reader)
    wait_until(lambda: "was not closed: its stream was cut" in caplog.text, "the line in the log")
    assert caplog.text.count("was not closed") == 1
    channel.writer = reader  # type: ignore[assignment]


def test_a_file_that_is_forgotten_just_before_the_end_cuts(engine_url: str, peer: Worker, unique: Unique) -> None:
    """Shutting down waits for the telling."""

    def read(data: Any) -> None:
        data["reader"].timeout = 10
        data["reader"].read()

    function = peer.register_function(unique("reads"), read)
    with register_worker(engine_url) as worker:
        channel = worker.create_channel()
        call = peer.submit(function.id, {"reader": channel.reader_ref})
        file = channel.writer.makefile("wb")
        file.write(b"half")
        del channel
        worker._loop.call_soon(lambda: time.sleep(0.3))  # it is busy, and comes to the telling late
        with pytest.warns(ResourceWarning, match="not closed"):
            del file
            gc.collect()
    with pytest.raises(errors.HandlerFailedError, match="ChannelTruncatedError"):
        call.result(30)


def test_ends_that_were_never_used_vanish_silently(worker: Worker) -> None:
    """No warning, no connection."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        worker.create_channel()
        gc.collect()
        with worker.create_channel().reader:
            pass


def test_a_stream_without_marks_arrives_but_vouches_for_nothing(worker: Worker) -> None:
    """marks=False: complete is None. Nothing but an empty stream is marked all the same: a cut one must not look so."""
    for data, complete in ((b"data", None), (b"", True)):
        channel = worker.create_channel(marks=False)
        with channel.writer as f:
            f.write(data)
        assert channel.reader.read() == data
        assert channel.reader.complete is complete


@pytest.mark.parametrize("count", range(1, OPENING))
def test_a_part_of_the_opening_mark_is_no_empty_stream(worker: Worker, count: int) -> None:
    """A stream that was cut in it, or that a foreign writer wrote nothing to: an error, unless it is expected."""
    for allowed in (False, True):
        channel = worker.create_channel(marks=False)
        channel.reader.allow_empty = allowed
        channel.writer.send_message("x")  # connects
        connection = channel.writer._connection
        assert connection is not None
        deadline = Deadline(WAIT)
        connection._turn.acquire()
        connection.send(frames.encode_frame(frames.BINARY) * count + frames.close_frame(1000), deadline)
        connection._give_turn_back()
        channel.reader.timeout = WAIT
        if allowed:
            assert channel.reader.read() == b""
            assert channel.reader.complete is None
        else:
            with pytest.raises(errors.ChannelNeverWrittenError, match="empty messages"):
                channel.reader.read()
            assert channel.reader.complete is False
        channel.writer.abort()
        channel.reader.close()


def test_the_option_switches_marks_off(engine_url: str) -> None:
    """For every writer of a worker."""
    with register_worker(engine_url, marks=False) as worker:
        channel = worker.create_channel()
        channel.writer.write(b"data")
        channel.writer.abort()
        channel.reader.timeout = WAIT
        try:
            assert channel.reader.read() == b"data"
            channel.reader.read()
        except errors.ChannelTruncatedError:
            pass  # the local engine says it by itself


def test_a_second_reader_is_an_error_here(worker: Worker) -> None:
    """The reference of an end that this process has used."""
    channel = worker.create_channel()
    with channel.writer as f:
        f.write(b"once")
    assert channel.reader.read() == b"once"
    again = worker.open_ref(channel.reader_ref)
    with pytest.raises(errors.ChannelUsedError):
        again.read()


def test_a_second_reader_elsewhere_is_an_error_too(worker: Worker, peer: Worker) -> None:
    """A Close before any message is never an empty stream."""
    channel = worker.create_channel()
    with channel.writer as f:
        f.write(b"once")
    assert channel.reader.read() == b"once"
    again = peer.open_ref(channel.reader_ref)
    assert isinstance(again, ChannelReader)
    with pytest.raises((errors.ChannelNeverWrittenError, errors.ChannelNotFoundError)):
        again.read()


def test_a_second_writer_is_an_error(worker: Worker, peer: Worker) -> None:
    """Its data is lost, and close() says so; the first stream is unharmed."""
    channel = worker.create_channel()
    channel.writer.write(b"first")
    again = peer.open_ref(channel.writer_ref)
    assert isinstance(again, ChannelWriter)
    with pytest.raises(errors.ChannelError):
        again.write(b"second")
        again.close()
    channel.writer.close()
    assert channel.reader.read() == b"first"


def test_an_unknown_channel(worker: Worker) -> None:
    """404, translated; with the key in no message."""
    ref = {"channel_id": "8d6ac1bc-2b0e-4d5a-a7e8-0a1bb1a5b8aa", "access_key": "hidden", "direction": "read"}
    for direction in ("read", "write"):
        end = worker.open_ref({**ref, "direction": direction})
        with pytest.raises(errors.ChannelNotFoundError) as caught:
            end.read() if isinstance(end, ChannelReader) else end.write(b"x")
        assert "hidden" not in str(caught.value) and "hidden" not in repr(end)


def test_a_closed_end_is_a_closed_file(channel: Channel) -> None:
    """ValueError, as everywhere in io."""
    channel.reader.close()
    channel.writer.write(b"x")
    channel.writer.abort()
    for use in (
        lambda: channel.reader.read(),
        lambda: channel.reader.readline(),
        lambda: next(channel.reader),
        lambda: iter(channel.reader),
        lambda: channel.reader.readable(),
        lambda: channel.writer.write(b"x"),
        lambda: channel.writer.send_message("x"),
        lambda: channel.writer.flush(),
        lambda: channel.writer.tell(),
        lambda: channel.writer.__enter__(),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
    channel.reader.close()
    channel.writer.close()


def test_the_wrong_direction(channel: Channel) -> None:
    """Unsupported, as for any raw file."""
    import io

    for use in (
        lambda: channel.reader.write(b"x"),
        lambda: channel.writer.read(1),
        lambda: channel.writer.readline(),
        lambda: channel.reader.fileno(),
        lambda: channel.reader.seek(0),
        lambda: channel.writer.seek(0),
        lambda: channel.reader.truncate(),
    ):
        with pytest.raises((io.UnsupportedOperation, AttributeError)):
            use()


@pytest.mark.parametrize("bad", ["text", None, 5, [1]])
def test_what_cannot_be_written(channel: Channel, bad: Any) -> None:
    """TypeErrors at once; nothing is connected for it."""
    with pytest.raises(TypeError):
        channel.writer.write(bad)
    with pytest.raises((TypeError, BufferError)):
        channel.writer.write(memoryview(b"abcdef")[::2])
    with pytest.raises(TypeError):
        channel.writer.send_message(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1,048,576"):
        channel.writer.send_message("x" * 1_048_577)
    assert "new" in repr(channel.writer)


def test_close_from_another_thread_wakes_a_blocked_reader(channel: Channel) -> None:
    """With the reason."""
    channel.writer.write(b"x")
    assert channel.reader.read(1) == b"x"
    read = in_thread(lambda: channel.reader.read(1))
    while not is_locked(channel.reader._using):
        time.sleep(0.001)
    channel.reader.close()
    with pytest.raises((errors.ChannelAbortedError, ValueError)):
        read()


def test_close_during_a_write_aborts(channel: Channel) -> None:
    """From another thread: both calls raise, and the reader sees a cut stream."""
    channel.writer.write(b"x")

    def pour() -> None:
        while True:
            channel.writer.write(bytes(1_000_000))

    poured = in_thread(pour)
    while not channel.writer._writing:
        time.sleep(0.001)
    deadline = time.monotonic() + WAIT
    position = -1
    while channel.writer._sent != position and time.monotonic() < deadline:
        position = channel.writer._sent
        time.sleep(0.2)  # until it is blocked: nothing moves any more
    with pytest.raises(errors.ChannelAbortedError):
        channel.writer.close()
    with pytest.raises((errors.ChannelAbortedError, ValueError)):
        poured()
    with pytest.raises(errors.ChannelTruncatedError):
        for _ in channel.reader:
            pass


def test_two_threads_in_one_reader(channel: Channel) -> None:
    """The second one is told."""
    read = in_thread(lambda: channel.reader.read(1))
    while not is_locked(channel.reader._using):
        time.sleep(0.001)
    with pytest.raises(errors.ConcurrencyError):
        channel.reader.read(1)
    channel.writer.write(b"x")
    assert read() == b"x"


def test_concurrent_writes_never_interleave(channel: Channel) -> None:
    """Writes of several frames each, from eight threads."""
    size, threads, each = 1_500_000, 8, 3
    read = in_thread(channel.reader.read)

    def write(mark: int) -> None:
        for _ in range(each):
            channel.writer.write(bytes([mark]) * size)

    writers = [in_thread(lambda mark=mark: write(mark)) for mark in range(threads)]  # type: ignore[misc]
    for writer in writers:
        writer()
    channel.writer.close()
    data = read()
    assert len(data) == size * threads * each
    for start in range(0, len(data), size):
        assert len(set(data[start : start + size])) == 1


def test_small_writes_without_a_buffer(channel: Channel) -> None:
    """From four threads, by the ten thousand: every line is there, whole, and in the order of its thread."""
    threads, each = 4, 10_000
    read = in_thread(channel.reader.read)

    def write(mark: int) -> None:
        for number in range(each):
            channel.writer.write(b"%d %d\n" % (mark, number))

    writers = [in_thread(lambda mark=mark: write(mark)) for mark in range(threads)]  # type: ignore[misc]
    for writer in writers:
        writer()
    written = channel.writer.tell()
    channel.writer.close()
    data = read()
    assert len(data) == written
    numbers = [0] * threads
    for line in data.splitlines():
        mark, number = map(int, line.split())
        assert number == numbers[mark]
        numbers[mark] += 1
    assert numbers == [each] * threads


def test_a_timeout_of_a_read_loses_nothing(channel: Channel) -> None:
    """read(n), readline and read() continue where they were."""
    channel.reader.timeout = 0.1
    channel.writer.write(b"half a line")
    calls: list[Callable[[], bytes]] = [lambda: channel.reader.read(20), channel.reader.readline, channel.reader.read]
    for call in calls:
        with pytest.raises(errors.ReadTimeout) as caught:
            call()
        assert isinstance(caught.value, TimeoutError)
    channel.writer.write(b", and the rest\nnext")
    channel.reader.timeout = WAIT
    assert channel.reader.readline() == b"half a line, and the rest\n"
    channel.writer.close()
    assert channel.reader.read() == b"next"


def test_lines(channel: Channel) -> None:
    """readline, readlines and iter_lines over chunks that are cut anywhere."""
    text = b"".join(b"line %d of the text\n" % number for number in range(2000)) + b"no newline"
    feed_all = in_thread(lambda: feed(channel.writer, text, 9))
    assert channel.reader.readline() == b"line 0 of the text\n"
    assert channel.reader.readline(4) == b"line"
    assert channel.reader.readline() == b" 1 of the text\n"
    assert channel.reader.readlines(30) == [b"line 2 of the text\n", b"line 3 of the text\n"]
    assert list(channel.reader.iter_lines()) == text.splitlines(keepends=True)[4:]
    feed_all()


def test_a_line_in_very_many_pieces(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is searched once, however many came before it."""

    class Counted(deque[Any]):
        """Counts the items that are looked at."""

        looks = 0

        def __getitem__(self, index: Any) -> Any:
            self.looks += 1
            return super().__getitem__(index)

        def __iter__(self) -> Iterator[Any]:
            for item in super().__iter__():
                self.looks += 1
                yield item

    pieces = iter([b"x"] * 2000 + [b"\n"])
    monkeypatch.setattr(Inbox, "get", lambda self, timeout: Batch([next(pieces)], 1, 1))
    channel.reader._items = counted = Counted()
    assert channel.reader.readline() == b"x" * 2000 + b"\n"
    assert counted.looks < 10 * 2000


@pytest.mark.parametrize("called", [False, True])
def test_lines_with_text_messages_between(channel: Channel, monkeypatch: pytest.MonkeyPatch, called: bool) -> None:
    """They are no part of a line, whether somebody wants them or not."""
    batches: Iterator[list[Any]] = iter(
        [["one", b"first ", "two"], ["three"], [b"line", "four", b"\nsecond", "five"], [b" line\nrest"]]
    )

    def get(self: Inbox, timeout: Any) -> Batch:
        items = next(batches)
        return Batch(items, sum(len(item) for item in items if isinstance(item, bytes)), 1)

    monkeypatch.setattr(Inbox, "get", get)
    texts: list[str] = []
    if called:
        channel.reader.on_message(texts.append)
    assert channel.reader.readline() == b"first line\n"
    assert texts == (["one", "two", "three", "four"] if called else [])
    assert channel.reader.readline() == b"second line\n"
    assert texts == (["one", "two", "three", "four", "five"] if called else [])
    assert channel.reader.peek() == b"rest"


def test_references_become_ends_at_any_depth(worker: Worker, peer: Worker, unique: Unique) -> None:
    """Both kinds, the same one twice as the same object, before the handler runs."""

    def handle(data: Any) -> Any:
        reader, writer = data["a"][0]["reader"], data["w"]
        assert reader is data["again"]
        assert isinstance(reader, ChannelReader) and isinstance(writer, ChannelWriter)
        with writer as f:
            shutil.copyfileobj(reader, f)
        return reader.tell()

    function = peer.register_function(unique("copy"), handle)
    one, two = worker.create_channel(), worker.create_channel()
    payload = {"a": [{"reader": one.reader_ref}], "again": one.reader_ref.model_dump(), "w": two.writer}
    call = worker.submit(function.id, payload)
    data = random.Random(7).randbytes(3_000_000)
    sent = in_thread(lambda: feed(one.writer, data))
    assert two.reader.read() == data
    sent()
    assert call.result(WAIT) == len(data)


def test_both_ends_of_a_channel_on_one_worker(worker: Worker, unique: Unique) -> None:
    """Caller and callee share one reader thread; 50 MB pass."""

    def handle(data: Any) -> str:
        digest = hashlib.sha256()
        for chunk in data["reader"]:
            digest.update(chunk)
        return digest.hexdigest()

    function = worker.register_function(unique("digest"), handle)
    channel = worker.create_channel()
    call = worker.submit(function.id, {"reader": channel.reader_ref})
    data = random.Random(8).randbytes(50_000_000)
    feed(channel.writer, data)
    assert call.result(WAIT) == hashlib.sha256(data).hexdigest()


def test_a_call_that_fails_wakes_the_blocked_writer(worker: Worker, peer: Worker, unique: Unique) -> None:
    """The function raises without reading: the write gets that error, not a time of silence."""

    def refuse(data: Any) -> None:
        data["reader"].read(1)
        raise RuntimeError("I do not want it")

    function = peer.register_function(unique("refuse"), refuse)
    channel = worker.create_channel()
    call = worker.submit(function.id, {"reader": channel.reader_ref})
    with pytest.raises(errors.HandlerFailedError, match="do not want"):
        while True:
            channel.writer.write(bytes(1_000_000))
    with pytest.raises(errors.HandlerFailedError):
        call.result(WAIT)
    with pytest.raises(errors.HandlerFailedError):
        channel.writer.close()


def test_a_call_that_fails_wakes_the_blocked_reader(worker: Worker, unique: Unique) -> None:
    """Nobody will ever write: the function does not exist."""
    channel = worker.create_channel()
    read = in_thread(channel.reader.read)
    while not is_locked(channel.reader._using):
        time.sleep(0.001)
    call = worker.submit(unique("nobody"), {"writer": channel.writer_ref})
    with pytest.raises(errors.FunctionNotFoundError):
        call.result(WAIT)
    with pytest.raises(errors.FunctionNotFoundError):
        read()


def test_a_refused_call_gives_the_end_back(worker: Worker, unique: Unique) -> None:
    """The reference never reached anybody: the local end counts as ours again."""
    channel = worker.create_channel()
    with pytest.raises(errors.FunctionNotFoundError):
        worker.trigger(unique("nobody"), {"reader": channel.reader_ref})
    assert not channel.reader._handed_out


def test_a_refused_call_does_not_take_back_what_another_call_has(worker: Worker, unique: Unique) -> None:
    """The reference went to a function that runs; a second call with it finds nobody: the end stays the first one's."""
    gate, seen = threading.Event(), []

    def write(data: Any) -> None:
        gate.wait(WAIT)
        with data["writer"] as f:
            f.write(b"from the function")
        seen.append(True)

    channel = worker.create_channel()
    call = worker.submit(worker.register_function(unique("write"), write).id, {"writer": channel.writer_ref})
    with pytest.raises(errors.FunctionNotFoundError):
        worker.trigger(unique("nobody"), {"writer": channel.writer_ref})
    channel.writer.close()
    gate.set()
    assert channel.reader.read() == b"from the function"
    call.result(WAIT)
    assert seen


def test_closing_an_end_that_was_handed_out_does_nothing(worker: Worker, peer: Worker, unique: Unique) -> None:
    """It belongs to the function; its stream is not ended from here."""
    gate = threading.Event()

    def write(data: Any) -> None:
        gate.wait(WAIT)
        with data["writer"] as f:
            f.write(b"from the function")

    function = peer.register_function(unique("write"), write)
    channel = worker.create_channel()
    call = worker.submit(function.id, {"writer": channel.writer_ref})
    channel.writer.close()
    gate.set()
    assert channel.reader.read() == b"from the function"
    call.result(WAIT)


def test_a_used_end_cannot_be_passed_on(worker: Worker, unique: Unique) -> None:
    """The error says why; nothing is sent."""
    channel = worker.create_channel()
    channel.writer.write(b"x")
    with pytest.raises(errors.InvalidPayloadError, match="used here"):
        worker.trigger(unique("f"), {"w": channel.writer})
    channel.writer.close()
    channel.reader.read()


def test_trigger_with_an_untouched_end_names_the_cure(worker: Worker, peer: Worker, unique: Unique) -> None:
    """The classic mistake: call first, write after; the timeout says what to do."""

    def wait(data: Any) -> None:
        with data["reader"] as reader:
            reader.read()

    function = peer.register_function(unique("wait"), wait)
    channel = worker.create_channel()
    with pytest.raises(errors.CallTimeout, match=r"use submit\(\)"):
        worker.trigger(function.id, {"reader": channel.reader_ref}, timeout=0.3)
    with channel.writer as f:
        f.write(b"12345")


@pytest.mark.parametrize("wrote", [False, True])
def test_waiting_for_a_submitted_call_with_an_open_writer_names_the_cure(
    worker: Worker,
    peer: Worker,
    unique: Unique,
    wrote: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mistake after that: the result is asked for before the writer is closed. Said in time, and in the timeout."""
    monkeypatch.setattr(iii_sync.suspicion, "_AFTER", 0.1)
    function = peer.register_function(unique("sum"), lambda data: sum(map(len, data["reader"])))
    channel = worker.create_channel()
    call = worker.submit(function.id, {"reader": channel.reader_ref})
    if wrote:
        channel.writer.write(b"12345")
    cure = "still open here: close it" if wrote else f"write to channel {channel.writer.channel_id}"
    assert cure not in caplog.text
    with pytest.raises(errors.CallTimeout, match=cure):
        call.result(timeout=0.5)
    wait_until(lambda: f"{function.id} has not answered yet" in caplog.text, "the warning")
    assert cure in caplog.text
    channel.writer.close()
    assert call.result(timeout=WAIT) == (5 if wrote else 0)


def test_references(worker: Worker) -> None:
    """Equal by value, picklable, found at any depth, and silent about their key."""
    channel = worker.create_channel()
    ref = channel.reader_ref
    again = pickle.loads(pickle.dumps(ref))
    assert again == ref == StreamChannelRef(**ref.model_dump()) and hash(again) == hash(ref)
    assert ref != channel.writer_ref
    assert is_channel_ref(ref) and is_channel_ref(ref.model_dump()) and not is_channel_ref({"channel_id": "x"})
    assert ref.access_key not in repr(ref) and ref.access_key not in repr(channel)
    found = extract_channel_refs({"a": [1, {"b": ref.model_dump()}], "c": ref})
    assert found == [("a[1].b", ref), ("c", ref)]
    for end in (channel.reader, channel.writer, channel):
        with pytest.raises(TypeError, match="ref"):
            pickle.dumps(end)


@pytest.mark.parametrize("size", [0, -1, 1025, 1.5, "64", True])
def test_wrong_buffer_sizes(worker: Worker, size: Any) -> None:
    """Named with their limits; the engine would clamp some silently."""
    with pytest.raises(errors.ConfigurationError, match="buffer_size"):
        worker.create_channel(size)


def test_a_larger_buffer_takes_more_before_anybody_reads(worker: Worker) -> None:
    """1,000 messages fit where the default blocks."""
    channel = worker.create_channel(1024)
    channel.writer.timeout = 5
    for _ in range(1000):
        channel.writer.write(b"x" * 100)
    channel.writer.close()
    assert len(channel.reader.read()) == 100_000


def test_shutdown_aborts_open_writers_and_wakes_readers(engine_url: str, peer: Worker) -> None:
    """A stream that was under way is cut, never ended."""
    worker = register_worker(engine_url)
    out, back = worker.create_channel(), worker.create_channel()
    out.writer.write(b"half")
    read = in_thread(back.reader.read)
    while not is_locked(back.reader._using) or back.reader._connection is None:
        time.sleep(0.001)
    other = peer.open_ref(out.reader_ref)
    assert isinstance(other, ChannelReader)
    worker.shutdown()
    with pytest.raises(errors.ChannelAbortedError, match="shut down"):
        read()
    with pytest.raises(errors.ChannelTruncatedError):
        list(other)
    with pytest.raises(errors.ChannelAbortedError):
        out.writer.write(b"more")


def test_an_open_stream_survives_the_loss_of_the_control_connection(engine_url: str) -> None:
    """Ends have sockets of their own."""
    from iii_sync.errors import EngineConnectionError

    with register_worker(engine_url) as worker:
        channel = worker.create_channel()
        channel.writer.write(b"before ")
        assert channel.reader.read(7) == b"before "
        link = worker._session._link
        assert link is not None and link.connection is not None
        link.connection.drop(EngineConnectionError("test"))
        with channel.writer as f:
            f.write(b"after")
        assert channel.reader.read() == b"after"


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_channels_leave_nothing_behind(worker: Worker, count: int) -> None:
    """Many channels opened, used and closed: descriptors, threads and memory as before. Prints the figures."""

    def use() -> None:
        channel = worker.create_channel()
        with channel.writer as f:
            f.write(b"x" * 1000)
        with channel.reader as r:
            assert r.read() == b"x" * 1000

    for _ in range(50):
        use()
    gc.collect()
    descriptors, threads, memory = len(os.listdir("/proc/self/fd")), threading.active_count(), rss()
    for _ in range(count):
        use()
    gc.collect()
    end = time.monotonic() + WAIT
    while len(os.listdir("/proc/self/fd")) > descriptors and time.monotonic() < end:
        time.sleep(0.01)
    now = len(os.listdir("/proc/self/fd"))
    print(
        f"\n{count} channels: descriptors {descriptors} -> {now}, threads {threads} -> {threading.active_count()}, "
        f"RSS {memory / 1e6:.1f} -> {rss() / 1e6:.1f} MB"
    )
    assert now <= descriptors
    assert threading.active_count() <= threads
    assert rss() - memory < 5_000_000
    assert len(worker._loop._watched) == 1 and not worker._ends._open


def rss() -> int:
    """Resident memory of this process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_timeout_for_a_single_call(channel: Channel) -> None:
    """It wins over the end's own, loses nothing, and is checked."""
    channel.reader.timeout = None
    channel.writer.write(b"ab")
    calls: list[Callable[[], bytes]] = [
        lambda: channel.reader.read(3, timeout=0.05),
        lambda: channel.reader.readline(timeout=0),
    ]
    for call in calls:
        with pytest.raises(errors.ReadTimeout):
            call()
    assert channel.reader.read1(timeout=5) == b"ab"
    with pytest.raises(errors.ReadTimeout):
        channel.reader.readinto(bytearray(1), timeout=0.05)
    with pytest.raises(errors.WriteTimeout):
        while True:
            channel.writer.write(bytes(500_000), timeout=0.2)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True])
def test_wrong_timeouts(channel: Channel, timeout: Any) -> None:
    """Refused before anything is read or written."""
    attempts: list[Callable[[], object]] = [
        lambda: channel.reader.read(1, timeout=timeout),
        lambda: channel.reader.read1(timeout=timeout),
        lambda: channel.reader.readinto(bytearray(1), timeout=timeout),
        lambda: channel.reader.readline(timeout=timeout),
        lambda: channel.writer.write(b"x", timeout=timeout),
        lambda: channel.writer.send_message("x", timeout=timeout),
        lambda: setattr(channel.writer, "timeout", timeout),
    ]
    for attempt in attempts:
        with pytest.raises(ValueError, match=f"timeout={timeout!r} must be"):
            attempt()
    channel.writer.write(b"all")
    assert channel.reader.read(3, timeout=5) == b"all"
