"""Forms in parts, read as they arrive."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iii_sync import HttpError, StreamRequest, errors

from .site import Noted, Site, raised

MIB = 1024 * 1024

KIND = "multipart/form-data; boundary=B0und"

FORM = (
    b'--B0und\r\nContent-Disposition: form-data; name="title"\r\n\r\nh\xc3\xa9llo\r\n'
    b'--B0und\r\ncontent-disposition: form-data; name="f\xc3\xa9"; filename="C:\\dir\\a b.bin"\r\n'
    b"Content-Type: application/x-thing\r\nX-More: yes\r\n\r\n\r\n--B0un\r\n-\r\r\n\x00\xff\r\n"
    b'--B0und\r\nContent-Disposition: form-data; name="empty"; filename=""\r\n\r\n\r\n'
    b"--B0und\r\nContent-Disposition: form-data; name=\"e\"; filename*=UTF-8''dir%2F%e2%82%ac.txt\r\n\r\nx\r\n"
    b"--B0und\r\nContent-Disposition: form-data; name=l; FileName* = iso-8859-1'de'%fc.txt\r\n\r\ny\r\n"
    b"--B0und--\r\nan epilogue"
)


def test_fields_and_files(site: Site) -> None:
    """Whatever looks like a boundary and is none belongs to the content."""

    def handler(request: StreamRequest) -> Any:
        return [
            [part.name, part.filename, part.content_type, part.headers.get("X-More"), part.read().decode("latin-1")]
            for part in request.parts()
        ]

    site.serve(handler, "", "POST")
    answer = site.request("", "POST", FORM, Content_Type=KIND)
    assert answer.json == [
        ["title", None, "text/plain", None, "h\xc3\xa9llo"],
        ["f\xe9", "a b.bin", "application/x-thing", "yes", "\r\n--B0un\r\n-\r\r\n\x00\xff"],
        ["empty", "", "text/plain", None, ""],
        ["e", "\u20ac.txt", "text/plain", None, "x"],
        ["l", "\xfc.txt", "text/plain", None, "y"],
    ]


def test_parts_are_files_until_the_next(site: Site) -> None:
    """What is left is passed over; a part of the past is closed."""

    def handler(request: StreamRequest) -> Any:
        parts = request.parts()
        first = next(parts)
        assert first.text() == "h\xe9llo" and first.read() == b""
        second = next(parts)
        assert first.closed
        assert [second.readline(), second.peek(1)[:1], second.read(3)] == [b"\r\n", b"-", b"--B"]
        third = next(parts)
        assert raised(second.read).__class__ is ValueError
        assert (third.name, third.read1(), [part.name for part in parts]) == ("empty", b"", ["e", "l"])
        return request.request_body.complete

    site.serve(handler, "", "POST")
    assert site.request("", "POST", FORM, Content_Type=KIND).json is True


def headed(disposition: bytes) -> bytes:
    return b"--B0und\r\nContent-Disposition: form-data" + disposition + b"\r\n\r\nvalue\r\n--B0und--\r\n"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (FORM, "application/json", 415),
        (FORM, "multipart/mixed; boundary=B0und", 415),
        (FORM, "multipart/form-data", 400),
        (headed(b""), KIND, 400),
        (headed(b"; name=a\r\nX-Long: " + b"x" * 20_000), KIND, 400),
        (b"--B0und\r\nno header\r\n\r\nvalue\r\n--B0und--\r\n", KIND, 400),
        (headed(b"; name=a") + headed(b"; name=b"), KIND, 200),
        (headed(b"; name=a")[:-4] + b"\r\n" + headed(b"; name=b"), KIND, 413),
        (headed(b"; name=a").replace(b"value", b"v" * 2000), KIND, 413),
        (headed(b"; name=a").replace(b"value", b"\xff"), KIND, 400),
    ],
)
def test_bad_forms(site: Site, body: bytes, kind: str, status: int) -> None:
    """Clients hear what is wrong."""

    def handler(request: StreamRequest) -> Any:
        return [part.text(limit=1000) for part in request.parts(limit=1)]

    site.serve(handler, "", "POST")
    assert site.request("", "POST", body, Content_Type=kind).status == status


def test_a_part_without_a_name_is_the_end(site: Site) -> None:
    """Whoever goes on hears of it again: what follows is its content, and no part."""
    told = Noted()

    def handler(request: StreamRequest) -> None:
        parts = request.parts()
        told([raised(lambda: next(parts)) for _ in range(3)])

    site.serve(handler, "", "POST")
    site.request("", "POST", headed(b"").replace(b"--B0und--\r\n", headed(b"; name=b")), Content_Type=KIND)
    assert [(type(error), str(error)) for error in told.get()] == [
        (HttpError, "400 a part of the form has no name")
    ] * 3


@pytest.mark.parametrize("length", ["Content-Length: {}", "Transfer-Encoding: chunked"])
def test_a_cut_form_raises(site: Site, length: str) -> None:
    """On both engines and with any kind of length: the last boundary is missing. It raises again when asked again."""
    begun, told = Noted(), Noted()

    def handler(request: StreamRequest) -> None:
        parts = request.parts()
        title = next(parts).text()
        part = next(parts)
        begun(part.name)
        told((title, raised(part.read), raised(part.read), raised(lambda: next(parts)), raised(lambda: next(parts))))

    site.serve(handler, "", "POST")
    chunked = "chunked" in length
    body = FORM[: FORM.index(b"\x00")]
    head = f"POST BASE HTTP/1.1\nHost: x\nContent-Type: {KIND}\n{length.format(len(FORM))}\n\n"
    with contextlib.closing(site.dial(head, b"%x\r\n%s\r\n" % (len(body), body) if chunked else body)):
        assert begun.get() == "f\xe9"
    title, *failures = told.get()
    assert title == "h\xe9llo"
    assert [type(error) for error in failures] == [errors.ChannelTruncatedError] * 4


def test_a_form_that_lacks_its_last_boundary(site: Site) -> None:
    """Whole by its length, and not a whole form."""
    told = Noted()
    site.serve(lambda request: told(raised(lambda: [part.read() for part in request.parts()])), "", "POST")
    site.request("", "POST", FORM[: FORM.index(b"--B0und--")], Content_Type=KIND)
    assert isinstance(told.get(), errors.ChannelTruncatedError)


#: The worker: digests the files of forms.
WORKER = """
import hashlib, sys
from iii_sync import register_worker

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

with register_worker(sys.argv[1]) as worker:

    def upload(request):
        before, digests = peak(), []
        for part in request.parts():
            digest, size = hashlib.sha256(), 0
            while piece := part.read(65536):
                digest.update(piece)
                size += len(piece)
            digests.append([part.name, size, digest.hexdigest()])
        return {"digests": digests, "grown": peak() - before}

    worker.register_http("POST", sys.argv[2], upload)
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_memory_stays_constant(site: Site, engine_url: str) -> None:
    """A file of more than 100 MiB is digested on the way."""
    piece = bytes(range(256)) * 4096
    count = 110
    head = b'--B0und\r\nContent-Disposition: form-data; name="big"; filename="big"\r\n\r\n'
    end = b"\r\n--B0und--\r\n"

    def pieces() -> Iterator[bytes]:
        yield head
        for _ in range(count):
            yield piece
        yield end

    command = [sys.executable, "-c", WORKER, engine_url, site.base]
    root = Path(__file__).parents[2]
    program = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with program, contextlib.closing(site.connection()) as connection:
        try:
            assert program.stdout is not None and program.stdout.readline() == b"ready\n"
            size = len(head) + count * len(piece) + len(end)
            connection.request("POST", site.base, pieces(), {"content-length": str(size), "content-type": KIND})
            answer = json.loads(connection.getresponse().read())
            digest = hashlib.sha256(piece * count).hexdigest()
            assert answer["digests"] == [["big", count * len(piece), digest]]
            assert answer["grown"] < 24 * MIB
        finally:
            program.communicate(timeout=30)


def test_without_the_library(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    told = Noted()
    monkeypatch.setitem(sys.modules, "python_multipart.multipart", None)
    site.serve(lambda request: told(raised(request.parts)), "", "POST")
    site.request("", "POST", FORM, Content_Type=KIND)
    error = told.get()
    assert isinstance(error, errors.ConfigurationError) and "iii_sync[forms]" in str(error)
    assert not isinstance(error, HttpError)
