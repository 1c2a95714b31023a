"""Archives and compression: zip, tar, gzip, bz2, lzma, zlib, zstandard, lz4."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from .corpus import SIZE, Corpus, blob, member, members
from .remote import Remote, sha256

DIGEST = hashlib.sha256(blob()).hexdigest()


def digest(file: Any) -> str:
    """Read to the end, and hash."""
    hashed = hashlib.sha256()
    while block := file.read(100_000):
        hashed.update(block)
    return hashed.hexdigest()


def test_zip_from_a_spooled_channel(remote: Remote, corpus: Corpus) -> None:
    """A zip archive has its directory at the end: spool() first, then read as any."""
    with remote.send(corpus.zip).spool() as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["blob.bin", "folder/text.txt", "empty"]
        with archive.open("blob.bin") as content:
            assert digest(content) == DIGEST


def test_zip_from_a_channel_says_what_to_do(remote: Remote, corpus: Corpus) -> None:
    """zipfile says "not a zip file" whatever has failed; the error below it, in the same traceback, names spool()."""
    with pytest.raises(zipfile.BadZipFile) as caught:
        zipfile.ZipFile(remote.send(corpus.zip, to_end=False))
    assert "spool()" in str(caught.value.__context__)


def test_zip_into_a_channel(remote: Remote, corpus: Corpus) -> None:
    """Written straight into the writer, members of unknown length too."""
    received = remote.receive()
    with received.writer as f, zipfile.ZipFile(f, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(corpus.csv, "table.csv")
        with archive.open("blob.bin", "w") as content:
            content.write(blob())
    with zipfile.ZipFile(received.whole(SIZE)) as archive:
        assert archive.testzip() is None
        assert archive.read("table.csv") == corpus.csv.read_bytes()
        assert hashlib.sha256(archive.read("blob.bin")).hexdigest() == DIGEST


@pytest.mark.parametrize("kind", ["tar", "tar_gz"])
def test_tar_from_a_channel(remote: Remote, corpus: Corpus, kind: str) -> None:
    """Mode "r|*" reads every kind of archive as a stream."""
    found = []
    with tarfile.open(fileobj=remote.send(getattr(corpus, kind), to_end=False), mode="r|*") as archive:
        for item in archive:
            content = archive.extractfile(item)
            assert content is not None
            found.append((item.name, content.read()))
    assert found == members()


def test_tar_extracted_from_a_channel(remote: Remote, corpus: Corpus, tmp_path: Path) -> None:
    """A whole archive is unpacked as it arrives."""
    with tarfile.open(fileobj=remote.send(corpus.tar_gz, to_end=False), mode="r|gz") as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(tmp_path, filter="data")
        else:
            archive.extractall(tmp_path)
    assert [(tmp_path / name).read_bytes() for name, _ in members()] == [content for _, content in members()]


@pytest.mark.parametrize("mode", ["r", "r:"])
def test_tar_with_another_mode_says_what_to_do(remote: Remote, corpus: Corpus, mode: Any) -> None:
    """The modes that seek end with an error that names spool(), not with wrong data."""
    with pytest.raises((io.UnsupportedOperation, tarfile.TarError), match=r"spool\(\)"):
        with tarfile.open(fileobj=remote.send(corpus.tar, to_end=False), mode=mode) as archive:
            archive.getmembers()


def test_tar_from_a_spooled_channel(remote: Remote, corpus: Corpus) -> None:
    """Any member in any order."""
    with remote.send(corpus.tar).spool() as file, tarfile.open(fileobj=file) as archive:
        for name, content in reversed(members()):
            extracted = archive.extractfile(name)
            assert extracted is not None and extracted.read() == content


@pytest.mark.parametrize("mode", ["w|", "w|gz", "w|bz2", "w|xz", "w", "w:gz"])
def test_tar_into_a_channel(remote: Remote, mode: Any) -> None:
    """Every writing mode, the streaming ones and the others."""
    if mode.endswith(("bz2", "xz")):
        files = [("half", blob(SIZE // 4))]  # these are slow
    else:
        files = members()
    received = remote.receive()
    with received.writer as f, tarfile.open(fileobj=f, mode=mode) as archive:
        for name, content in files:
            archive.addfile(member(name, content), io.BytesIO(content))
    with tarfile.open(received.whole(SIZE // 4)) as archive:
        for name, content in files:
            extracted = archive.extractfile(name)
            assert extracted is not None and extracted.read() == content


def test_gzip(remote: Remote, corpus: Corpus) -> None:
    """Two members, one after the other, as one file."""
    with gzip.open(remote.send(corpus.gz), "rb") as file, gzip.open(corpus.gz, "rb") as expected:
        assert digest(file) == digest(expected)


def test_gzip_into_a_channel(remote: Remote, corpus: Corpus) -> None:
    """Compressed on the way."""
    received = remote.receive()
    with received.writer as f, gzip.open(f, "wb", compresslevel=1) as file, corpus.blob.open("rb") as source:
        shutil.copyfileobj(source, file)
    with gzip.open(received.whole(SIZE), "rb") as file:
        assert digest(file) == sha256(corpus.blob)


def test_gzip_text(remote: Remote, corpus: Corpus) -> None:
    """Text, compressed into a channel, and read back out of another."""
    received = remote.receive()
    with received.writer as f, gzip.open(f, "wt", 1, "utf-8", newline="") as file:
        with corpus.csv.open(encoding="utf-8", newline="") as source:
            shutil.copyfileobj(source, file)
    path = received.whole()
    with gzip.open(remote.send(path), "rt", encoding="utf-8", newline="") as file:
        assert file.read().encode() == corpus.csv.read_bytes()


def test_bz2(remote: Remote, corpus: Corpus) -> None:
    """bz2.open on a reader."""
    with bz2.open(remote.send(corpus.bz2), "rb") as file:
        assert digest(file) == DIGEST


def test_bz2_into_a_channel(remote: Remote) -> None:
    """bz2.open on a writer."""
    received = remote.receive()
    with received.writer as f, bz2.open(f, "wb", compresslevel=1) as file:
        file.write(blob(SIZE // 2))
    with bz2.open(received.whole(SIZE // 2), "rb") as file:
        assert file.read() == blob(SIZE // 2)


def test_lzma(remote: Remote, corpus: Corpus) -> None:
    """lzma.open on a reader."""
    reader: Any = remote.send(corpus.xz)
    with lzma.open(reader, "rb") as file:
        assert digest(file) == DIGEST


def test_lzma_into_a_channel(remote: Remote) -> None:
    """lzma.open on a writer."""
    received = remote.receive()
    writer: Any = received.writer
    with writer as f, lzma.open(f, "wb", preset=0) as file:
        file.write(blob(SIZE // 4))
    with lzma.open(received.whole(SIZE // 4), "rb") as file:
        assert file.read() == blob(SIZE // 4)


def test_zlib_loops(remote: Remote, corpus: Corpus) -> None:
    """Decompress chunk by chunk what was compressed chunk by chunk."""
    received, compressor = remote.receive(), zlib.compressobj(1)
    with received.writer as f:
        for chunk in remote.send(corpus.blob):
            f.write(compressor.compress(chunk))
        f.write(compressor.flush())
    decompressor, hashed = zlib.decompressobj(), hashlib.sha256()
    for chunk in remote.send(received.whole(SIZE)):
        hashed.update(decompressor.decompress(chunk))
    hashed.update(decompressor.flush())
    assert decompressor.eof and hashed.hexdigest() == sha256(corpus.blob)


def test_zstandard(remote: Remote, corpus: Corpus) -> None:
    """stream_writer into a channel, stream_reader out of one."""
    zstandard = pytest.importorskip("zstandard")
    received = remote.receive()
    with received.writer as f, zstandard.ZstdCompressor(1).stream_writer(f, closefd=False) as file:
        with corpus.blob.open("rb") as source:
            shutil.copyfileobj(source, file)
    with zstandard.ZstdDecompressor().stream_reader(remote.send(received.whole(SIZE)), closefd=False) as file:
        assert digest(file) == sha256(corpus.blob)


def test_zstandard_copy_stream(remote: Remote, corpus: Corpus) -> None:
    """copy_stream from a channel into a channel, both ways."""
    zstandard = pytest.importorskip("zstandard")
    received, again = remote.receive("compressed"), remote.receive("again")
    with received.writer as f:
        zstandard.ZstdCompressor(1).copy_stream(remote.send(corpus.blob), f)
    with again.writer as f:
        zstandard.ZstdDecompressor().copy_stream(remote.send(received.whole(SIZE)), f)
    assert sha256(again.whole(SIZE)) == sha256(corpus.blob)


def test_lz4(remote: Remote, corpus: Corpus) -> None:
    """lz4.frame.open on both ends."""
    frame = pytest.importorskip("lz4.frame")
    received = remote.receive()
    with received.writer as f, frame.open(f, "wb") as file, corpus.blob.open("rb") as source:
        shutil.copyfileobj(source, file)
    with frame.open(remote.send(received.whole(SIZE)), "rb") as file:
        assert digest(file) == sha256(corpus.blob)
