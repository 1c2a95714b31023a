"""Functions opened as files, worker.open(): the same consumers on top of them, and the function's result."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from iii_sync import Worker
from iii_sync.errors import ChannelTruncatedError

from .corpus import HEADER, SIZE, Corpus, members, objects, rows
from .remote import sha256

pytestmark = pytest.mark.usefixtures("remote")


def sending(path: Path, **options: Any) -> dict[str, Any]:
    """What the peer's sending function takes."""
    return {"path": str(path), "cut": None, "seed": 2, **options}


def test_copyfileobj_out_of_a_function(worker: Worker, corpus: Corpus, tmp_path: Path) -> None:
    """worker.open(…, "rb") and a file."""
    with worker.open("consumers::send", "rb", sending(corpus.blob)) as f, (tmp_path / "copy").open("wb") as target:
        shutil.copyfileobj(f, target)
    assert f.result == {"outcome": "whole", "sent": corpus.blob.stat().st_size}
    assert sha256(tmp_path / "copy") == sha256(corpus.blob)


def test_copyfileobj_into_a_function(worker: Worker, corpus: Corpus, tmp_path: Path) -> None:
    """worker.open(…, "wb") and a file."""
    target = {"path": str(tmp_path / "copy")}
    with worker.open("consumers::receive", "wb", target) as f, corpus.blob.open("rb") as source:
        shutil.copyfileobj(source, f)
    assert f.result["sha256"] == sha256(corpus.blob) and f.result["complete"] is True


def test_csv_in_both_directions(worker: Worker, corpus: Corpus, tmp_path: Path) -> None:
    """worker.open(…, "r") and worker.open(…, "w")."""
    with worker.open("consumers::send", "r", sending(corpus.csv), newline="") as source:
        assert list(csv.reader(source)) == [HEADER, *rows()]
    with worker.open("consumers::receive", "w", {"path": str(tmp_path / "copy")}, newline="") as target:
        csv.writer(target).writerows([HEADER, *rows()])
    assert target.result["sha256"] == sha256(corpus.csv)


def test_json_in_both_directions(worker: Worker, corpus: Corpus, tmp_path: Path) -> None:
    """json.load and json.dump."""
    with worker.open("consumers::send", "rb", sending(corpus.json)) as source:
        assert json.load(source) == objects()
    with worker.open("consumers::receive", "w", {"path": str(tmp_path / "copy")}) as target:
        json.dump(objects()[:5000], target, indent=50)
    assert target.result["size"] >= SIZE // 4
    assert json.loads((tmp_path / "copy").read_bytes()) == objects()[:5000]


def test_archives_in_both_directions(worker: Worker, corpus: Corpus, tmp_path: Path) -> None:
    """tarfile reads, gzip and zipfile write."""
    found = []
    with worker.open("consumers::send", "rb", sending(corpus.tar_gz)) as source:
        with tarfile.open(fileobj=source, mode="r|*") as archive:
            for item in archive:
                content = archive.extractfile(item)
                assert content is not None
                found.append((item.name, content.read()))
        assert source.read().strip(b"\0") == b""
    assert found == members()
    with worker.open("consumers::receive", "wb", {"path": str(tmp_path / "copy")}) as target:
        with zipfile.ZipFile(target, "w") as zipped, zipped.open("blob.gz", "w") as stored:
            with gzip.open(stored, "wb", 1) as compressed, corpus.blob.open("rb") as source_file:
                shutil.copyfileobj(source_file, compressed)
    assert target.result["complete"] is True
    with zipfile.ZipFile(tmp_path / "copy") as zipped:
        assert zipped.testzip() is None


def test_a_function_that_is_cut(worker: Worker, corpus: Corpus) -> None:
    """The stream's error leaves the consumer and the block."""
    with pytest.raises(ChannelTruncatedError):
        with worker.open("consumers::send", "r", sending(corpus.csv, cut=SIZE // 2), newline="") as source:
            list(csv.reader(source))


def test_a_writer_that_fails(worker: Worker, corpus: Corpus, tmp_path: Path) -> None:
    """The function learns that the stream was cut."""
    with pytest.raises(KeyError):
        with worker.open("consumers::receive", "wb", {"path": str(tmp_path / "copy")}) as target:
            with gzip.open(target, "wb", 1) as compressed:
                compressed.write(corpus.blob.read_bytes())
                raise KeyError
    assert worker.trigger("consumers::received", {"path": str(tmp_path / "copy")})["error"] == "ChannelTruncatedError"
