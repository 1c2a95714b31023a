"""Text formats: csv, json, xml, mail, logs, SQL scripts, YAML."""

from __future__ import annotations

import codecs
import csv
import email
import email.generator
import email.parser
import email.policy
import io
import json
import logging
import mailbox
import sqlite3
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from .corpus import HEADER, SIZE, Corpus, blob, message, objects, rows, table
from .remote import Remote, sha256


def test_csv(remote: Remote, corpus: Corpus) -> None:
    """As the README has it, with the standard library's wrappers."""
    reader = io.BufferedReader(remote.send(corpus.csv))
    found = list(csv.reader(io.TextIOWrapper(reader, encoding="utf-8", newline="")))
    assert found == [HEADER, *rows()]


def test_csv_with_makefile(remote: Remote, corpus: Corpus) -> None:
    """The same, shorter."""
    with remote.send(corpus.csv).makefile("r", newline="") as file:
        assert list(csv.reader(file)) == [HEADER, *rows()]
        assert file.read() == ""


def test_csv_dictionaries(remote: Remote, corpus: Corpus) -> None:
    """DictReader and DictWriter, from one channel into another."""
    received = remote.receive()
    source = codecs.iterdecode(remote.send(corpus.csv).iter_lines(), "utf-8")
    with received.writer.makefile("w", encoding="utf-8", newline="") as target:
        writer = csv.DictWriter(target, HEADER)
        writer.writeheader()
        writer.writerows(csv.DictReader(source))
    assert sha256(received.whole()) == sha256(corpus.csv)


def test_csv_into_a_channel(remote: Remote, corpus: Corpus) -> None:
    """Rows written one by one leave in large pieces."""
    received = remote.receive()
    with received.writer.makefile("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for row in rows():
            writer.writerow(row)
    assert sha256(received.whole()) == sha256(corpus.csv)


def test_csv_of_a_reader_itself_says_what_to_do(remote: Remote, corpus: Corpus) -> None:
    """Chunks are no lines; csv says that it wants text."""
    reader: Any = remote.send(corpus.csv, to_end=False)
    with pytest.raises(csv.Error, match="text mode"):
        next(csv.reader(reader))


def test_json(remote: Remote, corpus: Corpus) -> None:
    """json.load on the reader itself."""
    assert json.load(remote.send(corpus.json)) == objects()


def test_json_into_a_channel(remote: Remote) -> None:
    """json.dump writes tiny pieces of text; makefile collects them."""
    received, items = remote.receive(), objects()[:12_000]
    with received.writer.makefile("w") as file:
        json.dump(items, file, indent=20)
    with received.whole(SIZE).open("rb") as source:
        assert json.load(source) == items


def test_json_lines(remote: Remote, corpus: Corpus) -> None:
    """One document a line: iter_lines, no wrapper."""
    found = [json.loads(line) for line in remote.send(corpus.jsonl).iter_lines()]
    assert found == [*objects(), "no newline at the end"]


def test_xml(remote: Remote, corpus: Corpus) -> None:
    """iterparse on the reader itself, in constant memory."""
    count = 0
    for _, element in ET.iterparse(remote.send(corpus.xml)):
        if element.tag == "item":
            assert element.get("id") == str(count)
            count += 1
            element.clear()
    assert count == 55_000


def test_xml_parsed_at_once(remote: Remote, corpus: Corpus) -> None:
    """ElementTree.parse."""
    assert len(ET.parse(remote.send(corpus.xml)).getroot()) == 55_000


def test_xml_into_a_channel(remote: Remote, corpus: Corpus) -> None:
    """ElementTree.write, through a buffer."""
    received, tree = remote.receive(), ET.parse(corpus.xml)
    with received.writer.makefile("wb") as f:
        tree.write(f, encoding="utf-8", xml_declaration=True)
    again = ET.parse(received.whole()).getroot()
    assert [item.attrib for item in again] == [{"id": str(number)} for number in range(55_000)]


def test_mail(remote: Remote, corpus: Corpus) -> None:
    """BytesParser reads a message with an attachment of 6 MiB."""
    reader: Any = remote.send(corpus.mail)
    found = email.parser.BytesParser(policy=email.policy.SMTP).parse(reader)
    (attachment,) = found.iter_attachments()
    assert found["Subject"] == "Größe: 8 MiB"
    assert attachment.get_content() == blob(SIZE * 3 // 4)


def test_mail_into_a_channel(remote: Remote, corpus: Corpus) -> None:
    """BytesGenerator writes line by line: through a buffer."""
    received, made = remote.receive(), message()
    with received.writer.makefile("wb") as f:
        email.generator.BytesGenerator(f, policy=email.policy.SMTP).flatten(made)
    with received.whole(SIZE).open("rb") as file:
        again = email.message_from_binary_file(file, policy=email.policy.SMTP)
    (attachment,) = again.iter_attachments()
    assert attachment.get_content() == blob(SIZE * 3 // 4)


def test_mailbox(remote: Remote, corpus: Corpus, tmp_path: Path) -> None:
    """A message straight from a channel into a mailbox."""
    box = mailbox.Maildir(tmp_path / "box")
    key = box.add(remote.send(corpus.mail))
    assert box.get_bytes(key).replace(b"\r\n", b"\n") == corpus.mail.read_bytes().replace(b"\r\n", b"\n")
    box.close()


def test_logging(remote: Remote) -> None:
    """A handler writes each record at once."""
    received = remote.receive()
    logger = logging.Logger("consumers")
    with received.writer.makefile("w") as file:
        logger.addHandler(logging.StreamHandler(file))
        for number in range(2_100):
            logger.info("record %d %s", number, "é" * 2_000)
    lines = received.whole(SIZE).read_text("utf-8").splitlines()
    assert [line.split()[1] for line in lines] == [str(number) for number in range(2_100)]


def test_print(remote: Remote) -> None:
    """print(file=…)."""
    received = remote.receive()
    with received.writer.makefile("w") as file:
        for number in range(100_000):
            print(number, "x" * 80, sep="\t", file=file)
    assert received.whole(SIZE).read_bytes().count(b"\n") == 100_000


def test_sqlite_dump_into_a_channel(remote: Remote) -> None:
    """iterdump, line by line; the script makes the same database again."""
    received, connection = remote.receive(), sqlite3.connect(":memory:")
    table(connection)
    with received.writer.makefile("w") as file:
        for line in connection.iterdump():
            file.write(f"{line}\n")
    expected = connection.execute("SELECT * FROM notes").fetchall()
    connection.close()
    again = sqlite3.connect(":memory:")
    again.executescript(received.whole(SIZE).read_text("utf-8"))
    assert again.execute("SELECT * FROM notes").fetchall() == expected
    again.close()


def test_sqlite_script_from_a_channel(remote: Remote, corpus: Corpus) -> None:
    """executescript takes a text: read it all; or statement by statement as they arrive."""
    whole, stepwise = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
    with remote.send(corpus.sql).makefile("r") as file:
        whole.executescript(file.read())
    statement = ""
    with remote.send(corpus.sql).makefile("r") as file:
        for line in file:
            statement += line
            if sqlite3.complete_statement(statement):
                stepwise.execute(statement)
                statement = ""
    query = "SELECT count(*), sum(length(text)), sum(amount) FROM notes"
    assert whole.execute(query).fetchone() == stepwise.execute(query).fetchone()
    whole.close()
    stepwise.close()


def test_yaml(remote: Remote, tmp_path: Path) -> None:
    """PyYAML reads bytes from a reader, and writes them into a writer."""
    yaml = pytest.importorskip("yaml")
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    documents = [{"number": number, "text": f"{number} \u00e9 " + "long text " * 10_000} for number in range(84)]
    received = remote.receive()
    with received.writer.makefile("wb") as f:
        yaml.dump_all(documents, f, dumper, encoding="utf-8", allow_unicode=True)
    assert list(yaml.load_all(remote.send(received.whole(SIZE)), loader)) == documents
