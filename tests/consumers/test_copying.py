"""Bytes as bytes: copying, hashing, wrapping, packing; and what only descriptors can do."""

from __future__ import annotations

import base64
import codecs
import hashlib
import io
import mmap
import pickle
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ..support.threads import in_thread
from .corpus import SIZE, Corpus, blob, objects
from .remote import WAIT, Remote, sha256

COPY = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"


def test_copyfileobj_out_of_a_channel(remote: Remote, corpus: Corpus, tmp_path: Path) -> None:
    """A stream becomes a file."""
    with (tmp_path / "copy").open("wb") as target:
        shutil.copyfileobj(remote.send(corpus.blob), target)
    assert sha256(tmp_path / "copy") == sha256(corpus.blob)


def test_copyfileobj_into_a_channel(remote: Remote, corpus: Corpus) -> None:
    """A file becomes a stream."""
    received = remote.receive()
    with received.writer as f, corpus.blob.open("rb") as source:
        shutil.copyfileobj(source, f)
    assert sha256(received.whole()) == sha256(corpus.blob)


def test_copyfileobj_from_channel_to_channel(remote: Remote, corpus: Corpus) -> None:
    """A relay: what one process sends another receives."""
    received = remote.receive()
    with received.writer as f:
        shutil.copyfileobj(remote.send(corpus.blob), f)
    assert sha256(received.whole()) == sha256(corpus.blob)


def test_file_digest(remote: Remote, corpus: Corpus) -> None:
    """hashlib reads into its own buffer."""
    if sys.version_info < (3, 11):
        pytest.skip("hashlib.file_digest came with Python 3.11")
    else:
        digest = hashlib.file_digest(remote.send(corpus.blob), "sha256")
        assert digest.hexdigest() == sha256(corpus.blob)


def test_hash_loop(remote: Remote, corpus: Corpus) -> None:
    """The loop that every program has: read a block until there is none."""
    reader, digest = remote.send(corpus.blob), hashlib.sha256()
    while block := reader.read(100_000):
        digest.update(block)
    assert digest.hexdigest() == sha256(corpus.blob)


def test_readinto_loop(remote: Remote, corpus: Corpus) -> None:
    """The same without an allocation, into buffers of other items than bytes."""
    reader, digest = remote.send(corpus.blob), hashlib.sha256()
    buffer = memoryview(bytearray(80_000)).cast("d")
    while count := reader.readinto(buffer):
        digest.update(buffer.cast("B")[:count])
    assert digest.hexdigest() == sha256(corpus.blob)


def test_struct_records(remote: Remote, tmp_path: Path) -> None:
    """Records of a header and a body: read(n) gives all n bytes, however they arrive."""
    rng, path = random.Random(6), tmp_path / "records"
    bodies = [rng.randbytes(rng.choice([0, 3, 700, 70_000])) for _ in range(500)]
    path.write_bytes(b"".join(struct.pack(">IH", len(body), 7) + body for body in bodies))
    assert path.stat().st_size >= SIZE
    reader, found = remote.send(path), []
    while header := reader.read(6):
        size, kind = struct.unpack(">IH", header)
        assert kind == 7
        found.append(reader.read(size))
    assert found == bodies


def test_struct_records_into_a_channel(remote: Remote) -> None:
    """A hundred thousand small writes, collected by a buffer."""
    received = remote.receive()
    with received.writer as f, io.BufferedWriter(f, 65536) as buffered:
        for number in range(300_000):
            buffered.write(struct.pack(">QQQI", number, number, number, 1))
    data = received.whole(SIZE).read_bytes()
    assert [row[0] for row in struct.iter_unpack(">QQQI", data)] == list(range(300_000))


def test_buffered_reader(remote: Remote, corpus: Corpus) -> None:
    """The standard library's buffer: read, read1, peek, readinto, lines."""
    expected = corpus.jsonl.read_bytes()
    buffered = io.BufferedReader(remote.send(corpus.jsonl))
    found = bytearray(buffered.read(100_001))
    assert buffered.peek(1)
    found += buffered.readline() + buffered.read1(77)
    part = bytearray(300_000)
    assert buffered.readinto(part) == len(part)
    found += part
    found += b"".join(line for _, line in zip(range(1000), buffered))
    found += buffered.read()
    assert found == expected
    assert buffered.read() == b""


def test_text_wrapper(remote: Remote, corpus: Corpus) -> None:
    """Text, with characters and line ends cut anywhere; directly on the reader."""
    reader: Any = remote.send(corpus.jsonl)
    text = io.TextIOWrapper(reader, encoding="utf-8")
    assert "".join([text.read(1000), text.readline(), *text]) == corpus.jsonl.read_text("utf-8")


def test_text_wrapper_into_a_channel(remote: Remote, corpus: Corpus) -> None:
    """Text, directly on the writer. (On files that cannot seek io's wrapper writes no byte order mark for "utf-16".)"""
    text, received = corpus.jsonl.read_text("utf-8"), remote.receive()
    writer: Any = received.writer
    with writer as f, io.TextIOWrapper(f, encoding="utf-16-le", newline="\r\n") as wrapper:
        for line in text.splitlines(keepends=True):
            wrapper.write(line)
    assert received.whole(SIZE).read_bytes().decode("utf-16-le") == text.replace("\n", "\r\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-be"])
def test_makefile_text(remote: Remote, tmp_path: Path, encoding: str) -> None:
    """makefile does the same for text in both directions, and says what it is."""
    text = "straße 日本語 🚀\n" * (SIZE // 20)
    path, received = tmp_path / "text", remote.receive()
    path.write_bytes(text.encode(encoding))
    with remote.send(path, to_end=False).makefile("r", encoding=encoding) as source:
        assert source.readable() and not source.writable() and not source.seekable()
        with received.writer.makefile("w", encoding=encoding) as target:
            shutil.copyfileobj(source, target, 100_000)
    assert received.whole(SIZE).read_bytes() == path.read_bytes()


def test_makefile_bytes(remote: Remote, corpus: Corpus) -> None:
    """makefile("rb") and makefile("wb"): iterating gives lines, writing is collected."""
    received = remote.receive()
    with remote.send(corpus.jsonl, to_end=False).makefile("rb") as source, received.writer.makefile("wb") as target:
        for line in source:
            target.write(line)
    assert sha256(received.whole()) == sha256(corpus.jsonl)


def test_lines(remote: Remote, corpus: Corpus) -> None:
    """Loops over lines: iter_lines on the reader, since iterating over the reader itself gives chunks."""
    with corpus.jsonl.open("rb") as file:
        assert list(remote.send(corpus.jsonl).iter_lines()) == list(file)


def test_pickles(remote: Remote, corpus: Corpus) -> None:
    """Many objects, one after the other."""
    found = []
    with remote.send(corpus.pickle).makefile("rb") as file:
        while True:
            try:
                found.append(pickle.load(file))
            except EOFError:
                break
    assert found == objects()


def test_pickle_of_much(remote: Remote, tmp_path: Path) -> None:
    """pickle takes a short readinto for the end of the file: makefile("rb") fills the buffer."""
    path, data = tmp_path / "pickle", [blob(), bytearray(blob()), "text"]
    path.write_bytes(pickle.dumps(data, protocol=5))
    with remote.send(path, to_end=False).makefile("rb") as file:
        assert pickle.load(file) == data


def test_pickles_into_a_channel(remote: Remote) -> None:
    """Protocol 5, straight into the writer, with large buffers in the stream."""
    received, items = remote.receive(), [*objects()[:1000], bytearray(blob())]
    with received.writer as f:
        pickler = pickle.Pickler(f, protocol=5)
        for item in items:
            pickler.dump(item)
    with received.whole(SIZE).open("rb") as file:
        unpickler = pickle.Unpickler(file)
        assert [unpickler.load() for _ in items] == items


def test_pickle_with_buffers_out_of_band(remote: Remote) -> None:
    """Protocol 5's buffers are written as they are, without a copy."""
    received, data = remote.receive(), blob()
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps({"data": pickle.PickleBuffer(data)}, protocol=5, buffer_callback=buffers.append)
    with received.writer as f:
        f.write(head)
        for buffer in buffers:
            f.write(buffer.raw())
    whole = received.whole(SIZE).read_bytes()
    assert pickle.loads(whole[: len(head)], buffers=[whole[len(head) :]]) == {"data": data}


def test_base64(remote: Remote, corpus: Corpus, tmp_path: Path) -> None:
    """base64.encode reads and base64.decode writes a channel."""
    received, encoded = remote.receive(), tmp_path / "base64"
    with encoded.open("wb") as file:
        base64.encode(remote.send(corpus.blob), file)
    with encoded.open("rb") as file, received.writer.makefile("wb") as f:
        base64.decode(file, f)
    assert sha256(received.whole()) == sha256(corpus.blob)


def test_base64_the_other_way(remote: Remote, corpus: Corpus, tmp_path: Path) -> None:
    """base64.decode reads lines from a channel, base64.encode writes them into one."""
    received = remote.receive("encoded")
    with corpus.blob.open("rb") as source, received.writer.makefile("wb") as f:
        base64.encode(source, f)
    with (tmp_path / "decoded").open("wb") as target:
        base64.decode(remote.send(received.whole(SIZE)), target)
    assert sha256(tmp_path / "decoded") == sha256(corpus.blob)


def test_codecs(remote: Remote, corpus: Corpus) -> None:
    """codecs.getreader and codecs.getwriter: the text layer of older programs."""
    received = remote.receive()
    source = codecs.getreader("utf-8")(remote.send(corpus.jsonl))
    with received.writer as f:
        target = codecs.getwriter("utf-16-le")(f)
        while text := source.read(100_000):
            target.write(text)
    assert received.whole(SIZE).read_bytes().decode("utf-16-le") == corpus.jsonl.read_text("utf-8")


def test_codecs_lines(remote: Remote, corpus: Corpus) -> None:
    """Lines of a StreamReader."""
    lines = codecs.iterdecode(remote.send(corpus.csv).iter_lines(), "utf-8")
    assert "".join(lines) == corpus.csv.read_bytes().decode()


def test_mmap(remote: Remote, corpus: Corpus) -> None:
    """A channel cannot be mapped, and says so; spool() makes a file that can."""
    reader = remote.send(corpus.blob)
    with pytest.raises(io.UnsupportedOperation, match=r"descriptor.*spool\(\)"):
        mmap.mmap(reader.fileno(), 0, access=mmap.ACCESS_READ)
    with reader.spool() as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert hashlib.sha256(mapped).hexdigest() == sha256(corpus.blob)


@pytest.mark.parametrize("max_memory", [0, 1_000_000, 100_000_000])
def test_spool(remote: Remote, corpus: Corpus, max_memory: int) -> None:
    """A whole binary file, in memory or on the disk, on every Python."""
    with remote.send(corpus.blob).spool(max_memory) as file:
        rolled = getattr(file, "_rolled", True)
        assert rolled is (max_memory < SIZE)
        assert file.readable() and file.seekable() and file.tell() == 0
        data = file.read()
        assert file.seek(-10, io.SEEK_END) == len(data) - 10 and file.read() == data[-10:]
    assert hashlib.sha256(data).hexdigest() == sha256(corpus.blob)


def test_seek_says_what_to_do(remote: Remote, corpus: Corpus) -> None:
    """Consumers that need to seek end with an error that names spool()."""
    reader, received = remote.send(corpus.blob), remote.receive()
    with pytest.raises(io.UnsupportedOperation, match=r"spool\(\)"):
        reader.seek(0)
    with received.writer as f, pytest.raises(io.UnsupportedOperation, match="temporary file"):
        f.seek(0)
    with reader.spool() as file:
        assert file.seek(SIZE) == SIZE


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_subprocess_needs_a_descriptor(remote: Remote, corpus: Corpus, stream: str) -> None:
    """A channel has none to give to a child process; the error names the loop that works."""
    end: Any = remote.send(corpus.blob, to_end=False) if stream == "stdin" else remote.receive().writer
    with pytest.raises(io.UnsupportedOperation, match=r"shutil\.copyfileobj"):
        subprocess.run([sys.executable, "-c", ""], timeout=WAIT, **{stream: end})


def test_subprocess_through_pipes(remote: Remote, corpus: Corpus) -> None:
    """From a channel through a program into a channel: one copy into its pipe, one out of it."""
    reader, received = remote.send(corpus.blob), remote.receive()
    with subprocess.Popen([sys.executable, "-c", COPY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None

        def feed(stdin: Any = process.stdin) -> None:
            with stdin:
                shutil.copyfileobj(reader, stdin)

        fed = in_thread(feed)
        with received.writer as f:
            shutil.copyfileobj(process.stdout, f)
        fed()
        assert process.wait(WAIT) == 0
    assert sha256(received.whole()) == sha256(corpus.blob)


def test_subprocess_with_a_spooled_file(remote: Remote, corpus: Corpus) -> None:
    """A spooled stream has a descriptor."""
    with remote.send(corpus.blob).spool() as file, tempfile.TemporaryFile() as target:
        subprocess.run([sys.executable, "-c", COPY], stdin=file, stdout=target, check=True, timeout=WAIT)
        target.seek(0)
        assert target.read() == corpus.blob.read_bytes()
