"""makefile: buffered and text files over channel ends."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator
from typing import Any

import pytest

from iii_sync import Channel, Worker, errors
from iii_sync.channels.files import DEFAULT_BUFFER_SIZE

WAIT = 30.0


@pytest.fixture
def channel(worker: Worker) -> Iterator[Channel]:
    channel = worker.create_channel()
    channel.reader.timeout = channel.writer.timeout = WAIT
    yield channel
    channel.reader.abort()
    channel.writer.abort()


def test_text_both_ways(channel: Channel) -> None:
    """Lines and characters, with universal newlines as open() has them."""
    with channel.writer.makefile("w", encoding="utf-16-le", newline="\r\n") as out:
        print("first \u20ac", file=out)
        out.writelines(["second\n", "third"])
    with channel.reader.makefile("r", encoding="utf-16-le") as text:
        assert text.readline() == "first \u20ac\n"
        assert list(text) == ["second\n", "third"]
        assert text.read() == ""
    assert channel.reader.closed


def test_small_writes_are_collected(channel: Channel) -> None:
    """A thousand small writes become few messages; flush sends at once."""
    with channel.writer.makefile("wb") as out:
        for _ in range(1000):
            out.write(b"x" * 100)
        assert channel.writer.tell() == DEFAULT_BUFFER_SIZE // 100 * 100
        assert out.tell() == 100_000
        out.flush()
        assert channel.writer.tell() == 100_000
    assert len(channel.reader.read()) == 100_000
    assert channel.reader._inbox.stream.messages < 20


def test_the_buffer_size_can_be_chosen(channel: Channel) -> None:
    """0 is the writer itself."""
    same: list[Any] = [channel.writer.makefile("wb", 0), channel.reader.makefile("rb", 0)]
    assert same[0] is channel.writer and same[1] is channel.reader
    with channel.writer.makefile("wb", 10) as out:
        out.write(b"1234567")
        assert channel.writer.tell() == 0
        out.write(b"8901234")
        assert channel.writer.tell() > 0
    assert channel.reader.read() == b"12345678901234"


def test_leaving_with_on_an_exception_aborts_binary_and_text(worker: Worker) -> None:
    """What was collected is dropped, the reader sees a cut."""
    modes: list[Any] = ["wb", "w"]
    for mode in modes:
        channel = worker.create_channel()
        channel.reader.timeout = WAIT
        with pytest.raises(KeyError):
            with channel.writer.makefile(mode) as out:
                sent: Any = b"sent" if mode == "wb" else "sent"
                out.write(sent)
                out.flush()
                out.write(sent)
                raise KeyError
        assert out.closed and channel.writer.closed
        with pytest.raises(errors.ChannelTruncatedError):
            assert channel.reader.read() == b"sent"
            channel.reader.read()


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_a_forgotten_file_warns_and_cuts(worker: Worker, mode: Any) -> None:
    """Collected with something in its buffer: a ResourceWarning, and no end of the stream."""
    channel = worker.create_channel()
    channel.reader.timeout = WAIT
    out = channel.writer.makefile(mode)
    out.write(b"first" if mode == "wb" else "first")
    out.flush()
    out.write(b"rest" if mode == "wb" else "rest")
    with pytest.warns(ResourceWarning, match="not closed"):
        del out
        gc.collect()
    with pytest.raises(errors.ChannelTruncatedError):
        assert channel.reader.read() == b"first"
        channel.reader.read()


def test_a_file_that_was_never_used_vanishes_silently(channel: Channel) -> None:
    """Nothing was written, nothing happens."""
    channel.writer.makefile("wb")
    channel.writer.makefile("w")
    channel.reader.makefile("rb")
    channel.reader.makefile("r")
    gc.collect()
    assert "new" in repr(channel.writer) and "new" in repr(channel.reader)


def test_a_timeout_loses_nothing_in_the_binary_file(channel: Channel) -> None:
    """Whatever the call, the next one continues at the same byte."""
    channel.reader.timeout = 0.1
    file = channel.reader.makefile("rb")
    channel.writer.write(b"half")
    for call in (lambda: file.read(8), lambda: file.readline(), lambda: file.readinto(bytearray(8))):
        with pytest.raises(errors.ReadTimeout):
            call()
    channel.writer.write(b" line\n")
    assert file.peek(1)[:1] == b"h"
    assert file.readline() == b"half line\n"


def test_a_text_file_refuses_to_go_on_after_a_timeout(channel: Channel) -> None:
    """As socket.makefile does; the bytes are still there for the reader."""
    channel.reader.timeout = 0.1
    text = channel.reader.makefile("r")
    channel.writer.write(b"half a line")
    with pytest.raises(errors.ReadTimeout):
        text.readline()
    with pytest.raises(OSError, match="timed out"):
        text.readline()


def test_a_failing_flush_on_close_aborts(channel: Channel) -> None:
    """What could not be sent is never vouched for."""
    file = channel.writer.makefile("wb")
    channel.writer.timeout = channel.writer.close_timeout = 0.3
    with pytest.raises(errors.WriteTimeout):
        while True:
            channel.writer.write(bytes(3_000_000))
    file.write(b"more")
    with pytest.raises((errors.ChannelAbortedError, errors.WriteTimeout, errors.CloseTimeout)):
        file.close()
    assert channel.writer.closed
    with pytest.raises(errors.ChannelTruncatedError):
        for _ in channel.reader:
            pass


def test_messages_go_behind_what_was_written(channel: Channel) -> None:
    """send_message flushes first."""
    with channel.writer.makefile("w") as out:
        out.write("before")
        out.send_message("message")
        out.write("after")
    events = list(channel.reader.events())
    assert events == [b"before", "message", b"after"]


@pytest.mark.parametrize("mode", ["", "x", "r+", "rw", "a", "rbt", "wb+", "u", None])
def test_wrong_modes(channel: Channel, mode: Any) -> None:
    """ValueError with what would be right."""
    for end in (channel.reader, channel.writer):
        with pytest.raises(ValueError, match="mode"):
            end.makefile(mode)


def test_wrong_arguments(channel: Channel) -> None:
    """Those that open() refuses."""
    with pytest.raises(ValueError, match="encoding"):
        channel.reader.makefile("rb", encoding="utf-8")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="unbuffered"):
        channel.writer.makefile("w", 0)
    with pytest.raises(ValueError, match="buffering"):
        channel.writer.makefile("wb", -2)
    with pytest.raises(LookupError):
        channel.writer.makefile("w", encoding="no-such-code")
    with pytest.raises(io.UnsupportedOperation):
        channel.reader.makefile("rb").seek(0)
    with pytest.raises(io.UnsupportedOperation):
        channel.writer.makefile("wb").fileno()


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_closing_the_writer_first_loses_nothing(channel: Channel, mode: Any) -> None:
    """What a file has collected belongs to the stream that its writer calls complete."""
    with channel.writer as writer:
        file: Any = writer.makefile(mode)
        file.write(b"collected" if mode == "wb" else "collected")
    assert channel.reader.read() == b"collected"
    assert channel.reader.complete is True
    file.close()


def test_what_cannot_be_flushed_is_not_vouched_for(channel: Channel) -> None:
    """The writer is closed, and its file cannot send what it has collected: the stream is cut."""
    writer = channel.writer
    file = writer.makefile("wb")
    writer.write(b"first")
    file.write(b"collected")
    writer._fail(errors.ChannelAbortedError("on purpose"))
    with pytest.raises(errors.ChannelAbortedError):
        writer.close()
    with pytest.raises(errors.ChannelTruncatedError):
        channel.reader.read()
    file.close()
