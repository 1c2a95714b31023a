"""Real files of 8 MiB and more, made once for the whole run. What they hold is known by a seed."""

from __future__ import annotations

import bz2
import csv
import email.message
import email.policy
import gzip
import io
import json
import lzma
import pickle
import random
import sqlite3
import tarfile
import wave
import zipfile
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Optional

#: What every stream is at least.
SIZE = 8 * 1024 * 1024

_WORDS = ["channel", "straße", "日本語", 'a "quoted" word', "one, two", "emoji 🚀", "", "two\nlines", "x" * 60]


@lru_cache(None)
def blob(size: int = SIZE, seed: int = 1) -> bytes:
    """Bytes that cannot be compressed."""
    return random.Random(seed).randbytes(size)


@lru_cache(None)
def rows() -> list[list[str]]:
    """Rows of a table with everything in it that makes CSV hard."""
    rng, plain = random.Random(2), "plain text in a field"
    return [
        [str(number), rng.choice(_WORDS), repr(rng.random()), rng.choice(_WORDS), plain] for number in range(125_000)
    ]


HEADER = ["number", "word", "value", "other", "comment"]


@lru_cache(None)
def objects() -> list[Any]:
    """Many objects of all sizes for pickle and JSON lines."""
    rng = random.Random(3)
    return [
        {"id": number, "values": [rng.random() for _ in range(rng.randrange(30))], "text": rng.choice(_WORDS) * 8}
        for number in range(32_000)
    ]


def table(connection: sqlite3.Connection) -> None:
    """Fill a database with 8 MiB of text."""
    rng = random.Random(4)
    connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT, amount REAL)")
    connection.executemany(
        "INSERT INTO notes VALUES (?, ?, ?)",
        ((number, f"{rng.choice(_WORDS)}; it's {number}\n" * 24, rng.random()) for number in range(16_000)),
    )
    connection.commit()


class Corpus:
    """The files, each made at its first use."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def file(self, name: str, content: Optional[bytes] = None) -> Path:
        """A path for a file of that name; with ``content``, the file is written."""
        path = self.directory / name
        if content is not None:
            path.write_bytes(content)
            checked(path)
        return path

    @cached_property
    def blob(self) -> Path:
        """Random bytes, of an odd length."""
        return self.file("blob.bin", blob(SIZE + 4321))

    @cached_property
    def csv(self) -> Path:
        """A table with quotes, commas, line ends and non-ASCII text in its fields."""
        path = self.file("table.csv")
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            writer.writerows(rows())
        return checked(path)

    @cached_property
    def json(self) -> Path:
        """One JSON document."""
        return self.file("document.json", json.dumps(objects(), ensure_ascii=False, indent=1).encode())

    @cached_property
    def jsonl(self) -> Path:
        """One JSON document a line."""
        lines = [json.dumps(item, ensure_ascii=False) for item in objects()]
        return self.file("lines.jsonl", "\n".join([*lines, '"no newline at the end"']).encode())

    @cached_property
    def pickle(self) -> Path:
        """Many pickles, one after the other."""
        return self.file("objects.pickle", b"".join(pickle.dumps(item) for item in objects()))

    @cached_property
    def zip(self) -> Path:
        """An archive of stored and deflated members."""
        path = self.file("archive.zip")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("blob.bin", blob(), zipfile.ZIP_STORED)
            archive.writestr("folder/text.txt", "some text\n" * 100_000, zipfile.ZIP_DEFLATED)
            archive.writestr("empty", b"")
        return checked(path)

    @cached_property
    def tar(self) -> Path:
        """A plain tar archive."""
        return self._tar("w")

    @cached_property
    def tar_gz(self) -> Path:
        """A compressed one."""
        return self._tar("w:gz", compresslevel=1)

    def _tar(self, mode: Any, **options: Any) -> Path:
        path = self.file(f"archive.tar{mode[1:].replace(':', '.')}")
        with tarfile.open(path, mode, **options) as archive:
            for name, content in members():
                archive.addfile(member(name, content), io.BytesIO(content))
        return checked(path)

    @cached_property
    def gz(self) -> Path:
        """Two gzip members, one after the other."""
        half = SIZE // 2 + 100
        parts = (blob(half, 5), blob(half, 6))
        return self.file("blob.gz", b"".join(gzip.compress(part, compresslevel=1) for part in parts))

    @cached_property
    def bz2(self) -> Path:
        """Compressed with bz2."""
        return self.file("blob.bz2", bz2.compress(blob(), 1))

    @cached_property
    def xz(self) -> Path:
        """Compressed with lzma."""
        return self.file("blob.xz", lzma.compress(blob(), preset=0))

    @cached_property
    def wav(self) -> Path:
        """Noise, stereo, 16 bits."""
        path = self.file("noise.wav")
        with wave.open(str(path), "wb") as file:
            file.setparams((2, 2, 44_100, 0, "NONE", "not compressed"))
            file.writeframes(blob())
        return checked(path)

    @cached_property
    def xml(self) -> Path:
        """Many small elements."""
        parts = ["<?xml version='1.0' encoding='utf-8'?>\n<items>\n"]
        parts += [f'<item id="{number}"><name>{"näme " * 20}</name></item>\n' for number in range(55_000)]
        return self.file("items.xml", "".join([*parts, "</items>\n"]).encode())

    @cached_property
    def mail(self) -> Path:
        """A message with an attachment."""
        return self.file("message.eml", message().as_bytes())

    @cached_property
    def sql(self) -> Path:
        """A database as a script."""
        connection = sqlite3.connect(":memory:")
        table(connection)
        script = "\n".join(connection.iterdump())
        connection.close()
        return self.file("database.sql", script.encode())


def message() -> email.message.EmailMessage:
    """A message with a text, and with an attachment of 6 MiB, which travels as 8."""
    made = email.message.EmailMessage(policy=email.policy.SMTP)
    made["Subject"] = "Größe: 8 MiB"
    made["From"], made["To"] = "a@example.org", "b@example.org"
    made.set_content("The report is attached.\n")
    made.add_attachment(blob(SIZE * 3 // 4), maintype="application", subtype="x-report", filename="report.bin")
    return made


def members() -> list[tuple[str, bytes]]:
    """What the tar archives hold."""
    return [("blob.bin", blob()), ("folder/empty", b""), ("folder/text.txt", "text é\n".encode() * 1000)]


def member(name: str, content: bytes) -> tarfile.TarInfo:
    """The header of a member."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info


def checked(path: Path) -> Path:
    """Check that the file is as large as it should be."""
    assert path.stat().st_size >= SIZE, (path, path.stat().st_size)
    return path
