"""Streams that are cut: no consumer takes what it got for the whole, and none that fails ends its own as if it were."""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
import pickle
import shutil
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
from typing import IO, Any, Callable

import pytest

from iii_sync import ChannelReader, ChannelWriter
from iii_sync.errors import ChannelTruncatedError

from .corpus import SIZE, Corpus, blob, member
from .remote import Remote

#: Somewhere in the middle of a stream.
MIDDLE = SIZE // 2 + 77

Consumer = Callable[[Any], Any]


def read_tar(reader: Any) -> list[Any]:
    """Unpack everything into memory."""
    with tarfile.open(fileobj=reader, mode="r|*") as archive:
        return [(item.name, len(extracted.read())) for item in archive if (extracted := archive.extractfile(item))]


def read_zip(reader: ChannelReader) -> Any:
    """Read the directory."""
    with reader.spool() as file, zipfile.ZipFile(file) as archive:
        return archive.namelist()


def read_pandas(reader: Any, **options: Any) -> Any:
    """All the table, or its parts."""
    pandas = pytest.importorskip("pandas")
    frames = pandas.read_csv(reader, **options)
    return list(frames) if "chunksize" in options else frames


def read_pyarrow(reader: Any) -> Any:
    """All batches of a CSV file."""
    arrow = pytest.importorskip("pyarrow.csv")
    with arrow.open_csv(reader, parse_options=arrow.ParseOptions(newlines_in_values=True)) as batches:
        return list(batches)


def read_pickles(reader: ChannelReader) -> list[Any]:
    """All objects."""
    found: list[Any] = []
    with reader.makefile("rb") as file:
        while True:
            try:
                found.append(pickle.load(file))
            except EOFError:
                return found


def digest(file: Any) -> Any:
    """A hash of all of it."""
    if sys.version_info >= (3, 11):
        return hashlib.file_digest(file, "sha256")
    hashed = hashlib.sha256()
    while block := file.read(100_000):
        hashed.update(block)
    return hashed


@pytest.mark.parametrize(
    ("name", "consume"),
    [
        pytest.param("blob", lambda reader: shutil.copyfileobj(reader, io.BytesIO()), id="copyfileobj"),
        pytest.param("blob", digest, id="file_digest"),
        pytest.param("blob", list, id="chunks"),
        pytest.param("blob", ChannelReader.spool, id="spool"),
        pytest.param("blob", lambda reader: reader.read(), id="read"),
        pytest.param("blob", lambda reader: reader.readall(), id="readall"),
        pytest.param("blob", lambda reader: reader.makefile("rb").read(), id="makefile"),
        pytest.param("blob", lambda reader: io.BufferedReader(reader).read(), id="BufferedReader"),
        pytest.param("jsonl", lambda reader: list(reader.iter_lines()), id="iter_lines"),
        pytest.param("jsonl", lambda reader: reader.readlines(), id="readlines"),
        pytest.param("jsonl", lambda reader: reader.makefile("r", errors="replace").read(), id="makefile-text"),
        pytest.param("jsonl", lambda reader: io.TextIOWrapper(reader, errors="replace").read(), id="TextIOWrapper"),
        pytest.param("csv", lambda reader: list(csv.reader(reader.makefile("r", newline=""))), id="csv"),
        pytest.param("csv", lambda reader: list(csv.DictReader(reader.makefile("r", newline=""))), id="csv-dicts"),
        pytest.param("csv", read_pandas, id="pandas"),
        pytest.param("csv", lambda reader: read_pandas(reader, chunksize=10_000), id="pandas-chunks"),
        pytest.param("csv", lambda reader: read_pandas(reader, engine="python"), id="pandas-python"),
        pytest.param("csv", read_pyarrow, id="pyarrow"),
        pytest.param("json", json.load, id="json"),
        pytest.param("json", lambda reader: json.load(reader.makefile("r", errors="replace")), id="json-text"),
        pytest.param("xml", lambda reader: list(ET.iterparse(reader)), id="xml"),
        pytest.param("gz", lambda reader: gzip.open(reader).read(), id="gzip"),
        pytest.param("bz2", lambda reader: bz2.open(reader).read(), id="bz2"),
        pytest.param("xz", lambda reader: lzma.open(reader).read(), id="lzma"),
        pytest.param("tar", read_tar, id="tar"),
        pytest.param("tar_gz", read_tar, id="tar-gz"),
        pytest.param("zip", read_zip, id="zip"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # files that the consumers leave to the garbage collector
def test_a_cut_stream_raises(remote: Remote, corpus: Corpus, name: str, consume: Consumer) -> None:
    """The consumer raises the reader's error, and never returns what it got."""
    reader = remote.send(getattr(corpus, name), cut=MIDDLE)
    with pytest.raises(ChannelTruncatedError, match=r"[\d,]+ bytes"):
        consume(reader)
    assert reader.complete is False


def test_a_cut_pickle_raises(remote: Remote, corpus: Corpus) -> None:
    """pickle has an error of its own when it gets less than it asked for."""
    with pytest.raises((ChannelTruncatedError, pickle.UnpicklingError)):
        read_pickles(remote.send(corpus.pickle, cut=MIDDLE))


def test_a_bounded_read_of_a_cut_stream(remote: Remote, corpus: Corpus) -> None:
    """read(n) hands out every good byte first; a loop that reads until there is nothing gets the error then."""
    reader, found = remote.send(corpus.blob, cut=MIDDLE), b""
    with pytest.raises(ChannelTruncatedError):
        while block := reader.read(1_000_000):
            found += block
    # An abort does not wait for what was written last.
    assert found and corpus.blob.read_bytes()[:MIDDLE].startswith(found)


def test_a_stream_cut_between_two_documents_raises(remote: Remote, tmp_path: Path) -> None:
    """What is well-formed so far is not whole: a cut is not the end of the lines, of the archive, of the members."""
    line = b'{"id": 1, "text": "%s"}\n' % (b"x" * 1000)
    lines = tmp_path / "lines"
    lines.write_bytes(line * (SIZE // len(line) + 1))
    for consume in (
        lambda reader: [json.loads(item) for item in reader.iter_lines()],
        lambda reader: json.loads(b"[" + reader.read().replace(b"}\n{", b"},{") + b"]"),
        lambda reader: list(csv.reader(reader.makefile("r"))),
        read_pandas,
        read_pyarrow,
    ):
        with pytest.raises(ChannelTruncatedError):
            consume(remote.send(lines, cut=len(line) * 1000))


def test_gzip_cut_between_two_members_raises(remote: Remote, tmp_path: Path) -> None:
    """gzip would take the end of a member for the end of the file."""
    first, path = gzip.compress(blob(), 1), tmp_path / "two.gz"
    path.write_bytes(first + gzip.compress(b"more"))
    with pytest.raises(ChannelTruncatedError), gzip.open(remote.send(path, cut=len(first))) as file:
        file.read()


def test_a_number_cut_in_the_middle_raises(remote: Remote, tmp_path: Path) -> None:
    """json.load reads everything at once; 12 of 1234 is a document too."""
    path = tmp_path / "number.json"
    path.write_bytes(b"1234")
    with pytest.raises(ChannelTruncatedError):
        json.load(remote.send(path, cut=2))
    with pytest.raises(ChannelTruncatedError):
        json.load(remote.send(path, cut=2).makefile("r"))


class Failure(Exception):
    """What goes wrong in the middle of writing."""


def fail_in_gzip(f: IO[bytes]) -> None:
    """GzipFile writes its trailer and leaves the file below open."""
    with gzip.open(f, "wb", 1) as file:
        file.write(blob())
        raise Failure


def fail_in_gzip_text(f: Any) -> None:
    """The same below a text layer."""
    with gzip.open(f, "wt", 1) as file:
        file.write("text")
        raise Failure


def fail_in_bz2(f: IO[bytes]) -> None:
    """The same with bz2."""
    with bz2.open(f, "wb", 1) as file:
        file.write(blob(SIZE // 4))
        raise Failure


def fail_in_lzma(f: Any) -> None:
    """The same with lzma."""
    with lzma.open(f, "wb", preset=0) as file:
        file.write(blob(SIZE // 8))
        raise Failure


def fail_in_tar(f: Any) -> None:
    """tarfile writes no end on an exception."""
    with tarfile.open(fileobj=f, mode="w|gz") as archive:
        archive.addfile(member("blob", blob()), io.BytesIO(blob()))
        raise Failure


def fail_in_zip(f: Any) -> None:
    """zipfile writes the directory."""
    with zipfile.ZipFile(f, "w") as archive:
        archive.writestr("blob", blob())
        raise Failure


def fail_in_csv(f: Any) -> None:
    """A text file of makefile's."""
    with f.makefile("w", newline="") as file:
        csv.writer(file).writerows([["x" * 1000]] * 5000)
        raise Failure


def fail_in_makefile(f: Any) -> None:
    """A binary file of makefile's."""
    with f.makefile("wb") as file:
        file.write(blob())
        raise Failure


def fail_in_gzip_on_makefile(f: ChannelWriter) -> None:
    """Two layers."""
    with f.makefile("wb") as file, gzip.open(file, "wb", 1) as compressed:
        compressed.write(blob())
        raise Failure


def fail_in_zstandard(f: Any) -> None:
    """closefd=False leaves the file below open."""
    zstandard = pytest.importorskip("zstandard")
    with zstandard.ZstdCompressor(1).stream_writer(f, closefd=False) as file:
        file.write(blob())
        raise Failure


def fail_in_arrow(f: Any) -> None:
    """An IPC stream is ended by its ``with``, the file below is not."""
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"noise": [blob()]})
    with pyarrow.ipc.new_stream(f, table.schema) as stream:
        stream.write_table(table)
        raise Failure


def fail_in_parquet(f: Any) -> None:
    """A Parquet file likewise."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"noise": [blob()]})
    with parquet.ParquetWriter(f, table.schema) as writer:
        writer.write_table(table)
        raise Failure


def fail_in_lz4(f: Any) -> None:
    """lz4 writes the end of its frame."""
    with pytest.importorskip("lz4.frame").open(f, "wb") as file:
        file.write(blob())
        raise Failure


def fail_in_pandas(f: Any) -> None:
    """After a table that was written."""
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"text": ["x" * 1000] * 5000}).to_csv(f)
    raise Failure


@pytest.mark.parametrize(
    "fail",
    [
        fail_in_gzip,
        fail_in_gzip_text,
        fail_in_bz2,
        fail_in_lzma,
        fail_in_tar,
        fail_in_zip,
        fail_in_csv,
        fail_in_makefile,
        fail_in_gzip_on_makefile,
        fail_in_zstandard,
        fail_in_pandas,
        fail_in_arrow,
        fail_in_parquet,
        fail_in_lz4,
    ],
)
def test_a_failing_writer_cuts_the_stream(remote: Remote, fail: Consumer) -> None:
    """The writer in the outer ``with``, the wrapper in the inner one: whatever the wrapper does, the reader knows."""
    received = remote.receive()
    with pytest.raises(Failure), received.writer as f:
        fail(f)
    received.cut()


@pytest.mark.parametrize("wrapper", [io.BufferedWriter, io.TextIOWrapper])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # collected after the stream was cut
def test_a_failing_writer_below_wrappers_that_close(remote: Remote, wrapper: Callable[[Any], Any]) -> None:
    """io's own wrappers end the stream when *their* ``with`` is left: only the writer gets one, as the README says."""
    received = remote.receive()
    with pytest.raises(Failure), received.writer as f:
        file = wrapper(f)
        file.write("x" * SIZE if wrapper is io.TextIOWrapper else blob())
        raise Failure
    received.cut()


def test_what_a_cut_stream_left_is_not_kept(remote: Remote, corpus: Corpus, tmp_path: Path) -> None:
    """The pattern for files: copy into a temporary one, rename at the end; the error comes before."""
    target = tmp_path / "target"
    with pytest.raises(ChannelTruncatedError), tempfile.NamedTemporaryFile(dir=tmp_path) as file:
        shutil.copyfileobj(remote.send(corpus.blob, cut=MIDDLE), file)
        shutil.copyfile(file.name, target)
    assert not target.exists()
