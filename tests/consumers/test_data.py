"""What people work with data in: pandas, pyarrow, numpy, openpyxl, Pillow, fsspec, and wave."""

from __future__ import annotations

import io
import shutil
import tempfile
import wave
from pathlib import Path
from typing import Any

import pytest

from .corpus import HEADER, SIZE, Corpus, blob, rows
from .remote import Remote, sha256

# --- wave ------------------------------------------------------------------------------------------------


def test_wave(remote: Remote, corpus: Corpus) -> None:
    """Read straight from a channel."""
    reader: Any = remote.send(corpus.wav, to_end=False)
    with wave.open(reader, "rb") as file:
        assert file.getparams()[:3] == (2, 2, 44_100)
        assert file.readframes(file.getnframes()) == blob()


def test_wave_into_a_channel(remote: Remote) -> None:
    """The number of frames stands at the beginning: set it before, and nothing needs to be sought."""
    received = remote.receive()
    target: Any = received.writer
    with received.writer, wave.open(target, "wb") as file:
        file.setparams((2, 2, 44_100, SIZE // 4, "NONE", "not compressed"))
        file.writeframesraw(blob())
    with wave.open(str(received.whole(SIZE)), "rb") as again:
        assert again.readframes(again.getnframes()) == blob()


def test_wave_of_unknown_length_says_what_to_do(remote: Remote) -> None:
    """Else closing it wants to go back to the beginning, which raises, and the stream is cut."""
    received = remote.receive()
    target: Any = received.writer
    with pytest.raises(io.UnsupportedOperation, match="temporary file"):
        with received.writer, wave.open(target, "wb") as file:
            file.setparams((2, 2, 44_100, 0, "NONE", "not compressed"))
            for start in range(0, SIZE, SIZE // 8):
                file.writeframesraw(blob()[start : start + SIZE // 8])
    received.cut()


# --- numpy -----------------------------------------------------------------------------------------------


def test_numpy(remote: Remote) -> None:
    """numpy.save straight into a writer, several arrays in one stream; read_array straight from a reader."""
    numpy = pytest.importorskip("numpy")
    received = remote.receive()
    arrays = [numpy.frombuffer(blob(), dtype="float32").view("int32"), numpy.arange(1000).reshape(10, 100)]
    with received.writer as f:
        for array in arrays:
            numpy.save(f, array)
    reader = remote.send(received.whole(SIZE), to_end=False)
    for array in arrays:
        assert numpy.array_equal(numpy.lib.format.read_array(reader), array)


def test_numpy_load(remote: Remote, tmp_path: Path) -> None:
    """numpy.load looks at the beginning and goes back: the error names spool(), with which it works."""
    numpy = pytest.importorskip("numpy")
    array, path = numpy.frombuffer(blob(), dtype="int32"), tmp_path / "array.npy"
    numpy.save(path, array)
    with pytest.raises(io.UnsupportedOperation, match=r"spool\(\)"):
        numpy.load(remote.send(path, to_end=False))
    with remote.send(path).spool() as file:
        assert numpy.array_equal(numpy.load(file), array)


def test_numpy_archives(remote: Remote) -> None:
    """numpy.savez into a writer; an npz is a zip archive, and read through spool()."""
    numpy = pytest.importorskip("numpy")
    received = remote.receive()
    array = numpy.frombuffer(blob(), dtype="int16")
    with received.writer as f:
        numpy.savez(f, noise=array, small=numpy.arange(10))
    with remote.send(received.whole(SIZE)).spool() as file, numpy.load(file) as archive:
        assert numpy.array_equal(archive["noise"], array) and archive["small"].sum() == 45


def test_numpy_needs_a_descriptor_for_raw_data(remote: Remote, corpus: Corpus) -> None:
    """tofile and fromfile are refused; tobytes, the array itself, and frombuffer do the same."""
    numpy = pytest.importorskip("numpy")
    received, array = remote.receive(), numpy.frombuffer(blob(), dtype="int16")
    with received.writer as f:
        with pytest.raises(io.UnsupportedOperation, match="descriptor"):
            array.tofile(f)
        f.write(array)
    reader = remote.send(received.whole(SIZE))
    with pytest.raises(io.UnsupportedOperation, match="descriptor"):
        numpy.fromfile(reader, dtype="int16")
    assert numpy.array_equal(numpy.frombuffer(reader.read(), dtype="int16"), array)
    target = numpy.empty(SIZE // 2, dtype="int16")
    with remote.send(received.path).makefile("rb") as file:
        assert file.readinto(target) == SIZE and file.read() == b""
    assert numpy.array_equal(target, array)


def test_numpy_text(remote: Remote, tmp_path: Path) -> None:
    """numpy.savetxt into a channel, numpy.loadtxt from one."""
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(500_000).reshape(-1, 10)
    received = remote.receive()
    with received.writer.makefile("wb") as f:
        numpy.savetxt(f, array, fmt="%016d")
    with remote.send(received.whole(SIZE)).makefile("r") as file:
        assert numpy.array_equal(numpy.loadtxt(file, dtype="int64"), array)


# --- pandas ----------------------------------------------------------------------------------------------


def expected_frame() -> Any:
    """The table of the corpus."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows(), columns=HEADER)
    return frame.astype({"number": "int64", "value": "float64"})


def test_pandas_csv(remote: Remote, corpus: Corpus) -> None:
    """read_csv on the reader itself."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(remote.send(corpus.csv), keep_default_na=False)
    pandas.testing.assert_frame_equal(frame, expected_frame(), check_dtype=False)


def test_pandas_csv_in_chunks(remote: Remote, corpus: Corpus) -> None:
    """read_csv(chunksize=…): a table of any size in constant memory."""
    pandas = pytest.importorskip("pandas")
    with pandas.read_csv(remote.send(corpus.csv), keep_default_na=False, chunksize=10_000) as frames:
        assert [len(frame) for frame in frames] == [10_000] * 12 + [5_000]


def test_pandas_csv_into_a_channel(remote: Remote, corpus: Corpus) -> None:
    """to_csv on the writer itself."""
    pandas = pytest.importorskip("pandas")
    received, frame = remote.receive(), pandas.DataFrame(rows(), columns=HEADER)
    with received.writer as f:
        frame.to_csv(f, index=False, lineterminator="\r\n")
    assert sha256(received.whole()) == sha256(corpus.csv)


@pytest.mark.parametrize("compression", ["gzip", "zip"])
def test_pandas_compressed_csv_into_a_channel(remote: Remote, compression: str) -> None:
    """to_csv(compression=…)."""
    pandas = pytest.importorskip("pandas")
    received, frame = remote.receive(), pandas.DataFrame({"noise": [blob().hex()]})
    with received.writer as f:
        frame.to_csv(f, index=False, compression=compression)
    again = pandas.read_csv(received.whole(SIZE), compression=compression)
    assert again["noise"][0] == blob().hex()


def test_pandas_json_lines(remote: Remote, corpus: Corpus) -> None:
    """read_json(lines=True) in chunks, and to_json."""
    pandas = pytest.importorskip("pandas")
    received, frame = remote.receive(), expected_frame()
    with received.writer as f:
        frame.to_json(f, orient="records", lines=True)
    with pandas.read_json(remote.send(received.whole(SIZE)), lines=True, chunksize=25_000) as frames:
        again = pandas.concat(list(frames), ignore_index=True)
    assert again["number"].tolist() == frame["number"].tolist() and again["word"].tolist() == frame["word"].tolist()


def test_pandas_parquet(remote: Remote) -> None:
    """to_parquet on the writer itself, read_parquet through spool()."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    received, frame = remote.receive(), noise_frame()
    with received.writer as f:
        frame.to_parquet(f)
    with remote.send(received.whole(SIZE)).spool() as file:
        pandas.testing.assert_frame_equal(pandas.read_parquet(file), frame)


def test_pandas_parquet_of_a_reader_says_what_to_do(remote: Remote, tmp_path: Path) -> None:
    """Parquet's directory is at its end; the error names spool()."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    noise_frame().to_parquet(tmp_path / "noise.parquet")
    with pytest.raises(Exception, match=r"spool\(\)"):
        pandas.read_parquet(remote.send(tmp_path / "noise.parquet", to_end=False))


def test_pandas_pickle(remote: Remote) -> None:
    """to_pickle on the writer itself, read_pickle through a buffer."""
    pandas = pytest.importorskip("pandas")
    received, frame = remote.receive(), noise_frame()
    with received.writer as f:
        frame.to_pickle(f)
    with remote.send(received.whole(SIZE), to_end=False).makefile("rb") as file:
        pandas.testing.assert_frame_equal(pandas.read_pickle(file), frame)


def test_pandas_excel(remote: Remote) -> None:
    """to_excel into a writer; read_excel through spool()."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("openpyxl")
    received = remote.receive()
    frame = pandas.DataFrame({"text": incompressible_cells()})
    with received.writer as f:
        frame.to_excel(f, index=False)
    with remote.send(received.whole(SIZE)).spool() as file:
        pandas.testing.assert_frame_equal(pandas.read_excel(file), frame)


def noise_frame() -> Any:
    """A table of 8 MiB that cannot be compressed."""
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    noise = numpy.frombuffer(blob(), dtype="int64").reshape(-1, 8)
    return pandas.DataFrame(noise, columns=[f"column {number}" for number in range(8)])


def incompressible_cells() -> list[str]:
    """Texts that are 8 MiB when compressed, as long as the cells of a sheet may be."""
    digits = blob(SIZE + SIZE // 8, 9).hex()
    return [digits[start : start + 32_000] for start in range(0, len(digits), 32_000)]


# --- openpyxl --------------------------------------------------------------------------------------------


def test_openpyxl(remote: Remote) -> None:
    """A workbook saved into a writer; loaded through spool()."""
    openpyxl = pytest.importorskip("openpyxl")
    received, cells = remote.receive(), incompressible_cells()
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("cells")
    for cell in cells:
        sheet.append([cell])
    with received.writer as f:
        book.save(f)
    with remote.send(received.whole(SIZE)).spool() as file:
        again = openpyxl.load_workbook(file, read_only=True)
        assert [row[0] for row in again["cells"].iter_rows(values_only=True)] == cells
        again.close()


# --- pyarrow ---------------------------------------------------------------------------------------------


def test_pyarrow_csv(remote: Remote, corpus: Corpus) -> None:
    """csv.open_csv: record batches as they arrive."""
    csv = pytest.importorskip("pyarrow.csv")
    options = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(remote.send(corpus.csv), parse_options=options) as stream:
        numbers = [number for batch in stream for number in batch.column("number").to_pylist()]
    assert numbers == list(range(len(rows())))


def test_pyarrow_ipc(remote: Remote) -> None:
    """An IPC stream, batch by batch, through both ends."""
    pyarrow = pytest.importorskip("pyarrow")
    received, table = (
        remote.receive(),
        pyarrow.table({"noise": noise_frame()["column 1"], "more": noise_frame()["column 2"]}),
    )
    with received.writer as f, pyarrow.ipc.new_stream(f, table.schema) as stream:
        for _ in range(5):
            stream.write_table(table, max_chunksize=10_000)
    with pyarrow.ipc.open_stream(remote.send(received.whole(SIZE), to_end=False)) as stream:
        assert stream.read_all().equals(pyarrow.concat_tables([table] * 5))


def test_pyarrow_parquet(remote: Remote) -> None:
    """write_table on the writer itself; ParquetFile through spool()."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    received, table = remote.receive(), pyarrow.table({"noise": pyarrow.array([blob(1024, n) for n in range(9_000)])})
    with received.writer as f:
        parquet.write_table(table, f)
    with remote.send(received.whole(SIZE)).spool() as file, parquet.ParquetFile(file) as again:
        assert again.read().equals(table)


# --- Pillow ----------------------------------------------------------------------------------------------


def picture() -> Any:
    """Noise, 8 MiB of it."""
    return pytest.importorskip("PIL.Image").frombytes("RGB", (2048, 1366), blob(2048 * 1366 * 3))


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_pillow(remote: Remote, kind: str) -> None:
    """An image saved into a writer; opened through spool(), and straight from a reader, which takes it all at once."""
    image = pytest.importorskip("PIL.Image")
    received, made = remote.receive(), picture()
    with received.writer as f:
        made.save(f, kind, **({"compress_level": 1} if kind == "PNG" else {}))
    path = received.whole(SIZE)
    with remote.send(path).spool() as file, image.open(file) as again:
        assert again.format == kind and again.tobytes() == made.tobytes()
    with image.open(remote.send(path, to_end=False)) as again:
        assert again.format == kind and again.tobytes() == made.tobytes()


def test_pillow_with_a_format_that_seeks(remote: Remote) -> None:
    """TIFF is written back and forth: the error says so; a temporary file is copied instead."""
    image = pytest.importorskip("PIL.Image")
    refused, received, made = remote.receive("refused"), remote.receive(), picture()
    with pytest.raises(io.UnsupportedOperation, match="temporary file"), refused.writer as f:
        made.save(f, "TIFF")
    refused.cut()
    with tempfile.TemporaryFile() as file, received.writer as f:
        made.save(file, "TIFF")
        file.seek(0)
        shutil.copyfileobj(file, f)
    with image.open(received.whole(SIZE)) as again:
        assert again.tobytes() == made.tobytes()


# --- fsspec ----------------------------------------------------------------------------------------------


def test_fsspec(remote: Remote, corpus: Corpus, tmp_path: Path) -> None:
    """From one file system through a channel into another."""
    fsspec = pytest.importorskip("fsspec")
    memory, local, received = fsspec.filesystem("memory"), fsspec.filesystem("file"), remote.receive()
    with memory.open("/consumers/blob", "wb") as file:
        shutil.copyfileobj(remote.send(corpus.blob), file)
    with received.writer as f, memory.open("/consumers/blob", "rb") as file:
        shutil.copyfileobj(file, f)
    memory.rm("/consumers", recursive=True)
    with local.open(str(tmp_path / "blob"), "wb") as file:
        shutil.copyfileobj(remote.send(received.whole()), file)
    assert sha256(tmp_path / "blob") == sha256(corpus.blob)
