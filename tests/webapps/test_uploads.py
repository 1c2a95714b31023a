"""Uploads and downloads of both applications under gunicorn."""

from __future__ import annotations

import hashlib
import http.client
import random
import re
import socket
import struct
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import pytest

from iii_sync import Worker, register_worker

from ..support.engines import free_ports, killable_engine
from ..support.http import Answer
from ..support.process import WAIT
from .client import HEADERS, Slow, ask, upload
from .conftest import Files, Serve, stored_by

pytest.importorskip("gunicorn")
pytest.importorskip("gevent")
pytest.importorskip("flask")
pytest.importorskip("django")

MIB = 1024 * 1024

#: What a process that serves may grow by: a few MiB for each upload under way, of which gevent's have 25 each.
#: Everything that passes through such a process is 250 MiB.
GROWTH = 100 * MIB

KINDS = {
    "sync": ["--workers", "3"],
    "gthread": ["--workers", "2", "--worker-class", "gthread", "--threads", "8"],
    "gevent": ["--workers", "2", "--worker-class", "gevent"],
}

BOTH = pytest.mark.parametrize("application", ["flask", "django"])


@pytest.mark.parametrize(
    ("engine", "kind", "application"),
    [
        ("local", "sync", "flask"),
        ("local", "gthread", "django"),
        ("local", "gevent", "flask"),
        ("real", "sync", "django"),
        ("real", "gthread", "flask"),
        ("real", "gevent", "django"),
    ],
)
def test_fifty_uploads_at_once(
    files: Callable[[str], Files], serve: Serve, engine: str, kind: str, application: str
) -> None:
    """10 MiB each: every digest is right, and no process holds more than what is under way."""
    site = serve(application, files(engine).url, *KINDS[kind])
    content = random.Random(0).randbytes(10 * MIB - 8)
    with ThreadPoolExecutor(50) as pool:
        # Small ones first, so that each process has loaded what it needs and has its worker.
        assert {answer.status for answer in pool.map(lambda n: upload(site, "warm", b"x"), range(50))} == {201}
        before = {pid: memory(pid, "VmRSS") for pid in site.pids()}

        def one(number: int) -> tuple[int, bool]:
            body = number.to_bytes(8, "big") + content
            answer = upload(site, f"{number}.bin", body)
            return answer.status, answer.json["sha256"] == hashlib.sha256(body).hexdigest()

        started = time.monotonic()
        assert set(pool.map(one, range(50))) == {(201, True)}
        took = time.monotonic() - started
    growth = [memory(pid, "VmHWM") - before[pid] for pid in site.pids()]
    print(f"{application} {kind} {engine}: {took:.1f} s, growth {[f'{n / MIB:.1f}' for n in growth]} MiB")
    assert site.stop() < 10
    assert not site.complaints(), site.said()
    assert max(growth) < GROWTH


@BOTH
def test_the_memory_does_not_depend_on_the_size_of_the_file(
    files: Callable[[str], Files], serve: Serve, application: str
) -> None:
    """100 MiB in one upload, and back."""
    site = serve(application, files("local").url, "--workers", "1", "--worker-class", "gthread", "--threads", "2")
    assert upload(site, "warm", bytes(MIB)).status == 201
    (pid,) = site.pids()
    before = memory(pid, "VmRSS")
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=WAIT)
    piece = bytes(MIB)
    connection.request("PUT", "/files?name=large", iter([piece] * 100), {**HEADERS, "Content-Length": str(100 * MIB)})
    answer = Answer(connection.getresponse())
    connection.close()
    assert (answer.status, answer.json["size"]) == (201, 100 * MIB)
    growth = memory(pid, "VmHWM") - before
    print(f"{application}: growth {growth / MIB:.1f} MiB")
    assert growth < 24 * MIB
    assert ask(site, "GET", "/files/" + answer.json["id"]).body == piece * 100
    assert memory(pid, "VmHWM") - before < 48 * MIB


def memory(pid: int, name: str) -> int:
    """A figure of a process, in bytes."""
    found = re.search(rf"^{name}:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@BOTH
def test_the_function_has_the_first_bytes_before_the_client_sends_the_last(
    files: Callable[[str], Files], serve: Serve, application: str
) -> None:
    """Half of it is in the other process's file while the client holds the rest back."""
    local = files("local")
    site = serve(application, local.url, *KINDS["gthread"])
    body = random.Random(1).randbytes(4 * MIB)
    slow = Slow(site, "slow.bin", len(body))
    slow.send(body[: 2 * MIB])
    wait_for(lambda: sum(parts(local.store)) > MIB, "the function has nothing yet")
    slow.send(body[2 * MIB :])
    answer = slow.answer()
    assert (answer.status, answer.json["sha256"]) == (201, hashlib.sha256(body).hexdigest())
    assert not parts(local.store)


@BOTH
@pytest.mark.parametrize("how", ["half-closed", "closed", "reset"])
def test_an_upload_that_is_cut_is_not_stored(
    files: Callable[[str], Files], serve: Serve, application: str, how: str
) -> None:
    """The function learns of it, and drops what it has; a client that still listens gets 400."""
    local = files("local")
    site = serve(application, local.url, *KINDS["gthread"])
    stored = set(local.store.iterdir())
    slow = Slow(site, "cut.bin", 4 * MIB)
    slow.send(b"x" * (3 * MIB))
    wait_for(lambda: sum(parts(local.store)) > MIB, "the function has nothing yet")
    if how == "half-closed":
        slow.sock.shutdown(socket.SHUT_WR)
        answer = slow.answer()
        assert (answer.status, answer.json) == (400, {"error": "the upload was cut"})
    elif how == "reset":
        slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    slow.sock.close()
    wait_for(lambda: set(local.store.iterdir()) == stored, "something was stored, or left behind")
    assert upload(site, "next", b"next").status == 201


@pytest.mark.parametrize("whole", [True, False])
def test_an_upload_of_unknown_length(files: Callable[[str], Files], serve: Serve, whole: bool) -> None:
    """Flask takes a chunked body, and one without its end is not whole; Django says that it needs the length."""
    local = files("local")
    stored = set(local.store.iterdir())
    sites = [serve(name, local.url, *KINDS["gthread"]) for name in ("flask", "django")]
    for site, status in zip(sites, (201 if whole else 400, 411)):
        slow = Slow(site, "chunked.bin", None)
        slow.send(b"5\r\nhello\r\n" + (b"0\r\n\r\n" if whole else b""))
        if not whole:
            slow.sock.shutdown(socket.SHUT_WR)
        assert slow.answer().status == status
    wait_for(lambda: whole or set(local.store.iterdir()) == stored, "something was stored, or left behind")


@BOTH
def test_a_download_has_its_headers_and_is_whole(files: Callable[[str], Files], serve: Serve, application: str) -> None:
    """Whatever the name is, and also when the file is empty; HEAD has the same headers."""
    site = serve(application, files("local").url, *KINDS["gthread"])
    names = {
        "report.csv": ("report.csv", "text/csv"),
        "../../etc/passwd": ("passwd", "application/octet-stream"),
        'a"b\r\nX-Evil: 1;ü€.png': ('a"bX-Evil: 1;ü€.png', "image/png"),
    }
    bodies = [b"", b"x", random.Random(2).randbytes(3 * MIB + 7)]
    for (name, (expected, kind)), body in zip(names.items(), bodies):
        about = upload(site, name, body).json
        assert about["name"] == expected
        answer = ask(site, "GET", "/files/" + about["id"])
        head = ask(site, "HEAD", "/files/" + about["id"])
        assert (answer.status, answer.body, head.status, head.body) == (200, body, 200, b"")
        for headers in (answer.headers, head.headers):
            assert headers["Content-Length"] == str(len(body))
            assert headers["Content-Type"].split(";")[0] == kind
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Evil"] is None
            assert headers["Content-Disposition"].startswith("attachment; filename")
            assert file_name(headers["Content-Disposition"]) == expected
    assert not site.complaints(), site.said()


def file_name(disposition: str) -> str:
    """The name that a browser takes from the header."""
    extended = re.search(r"filename\*=(?:UTF-8|utf-8)''([^;]*)$", disposition)
    if extended:
        return urllib.parse.unquote(extended[1])
    found = re.search(r'filename="?([^";]*)"?$', disposition)
    assert found is not None, disposition
    return found[1]


@BOTH
def test_a_download_that_is_left_early_ends_the_function(serve: Serve, application: str) -> None:
    """Its next write raises; nothing is said, for clients come and go."""
    outcome: list[BaseException] = []
    ended = threading.Event()

    def load(data: Any) -> None:
        try:
            with data["writer"] as out:
                while True:
                    out.write(bytes(MIB))
        except BaseException as exc:
            outcome.append(exc)
            ended.set()
            raise

    with killable_engine("local") as engine, register_worker(engine.url) as worker:
        worker.register_function("files::about", lambda data: {"name": "endless", "type": "x/y", "size": 1 << 40})
        worker.register_function("files::load", load)
        site = serve(application, engine.url, *KINDS["gthread"])
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=WAIT)
        connection.request("GET", "/files/0")
        assert len(connection.getresponse().read(5 * MIB)) == 5 * MIB
        connection.close()
        assert ended.wait(WAIT)
        assert isinstance(outcome[0], BrokenPipeError)
        assert ask(site, "HEAD", "/files/0").status == 200
    assert not site.complaints(), site.said()


@BOTH
def test_errors_have_statuses(serve: Serve, application: str, tmp_path: Path) -> None:
    """Each with an explanation that the page shows, and without the worker's secrets."""
    body = bytes(3 * MIB)
    (nowhere,) = free_ports(1)
    site = serve(application, f"ws://127.0.0.1:{nowhere}", *KINDS["gthread"])
    answer = upload(site, "x", body)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5") and answer.json["error"]
    assert ask(site, "GET", "/files/0").status == 503
    site.stop()
    with killable_engine("local") as engine:
        site = serve(application, engine.url, *KINDS["gthread"], FILES_TIMEOUT="2")
        assert [upload(site, "x", body).status, ask(site, "GET", "/files/0").status] == [503, 503]
        with stored_by(engine.url, tmp_path / "store", FILES_LIMIT="1000000"):
            answer = upload(site, "x", body)
            assert (answer.status, answer.json) == (413, {"error": "a file may have 1,000,000 bytes at most"})
            for wrong in ("0" * 16, "..%2f..%2fetc%2fpasswd", "0" * 15 + "%0a"):
                assert ask(site, "GET", f"/files/{wrong}").status == 404
            assert ask(site, "POST", "/files", b"").status == 405
            assert list((tmp_path / "store").iterdir()) == []
        assert not site.complaints(), site.said()
        with register_worker(engine.url) as worker:
            broken(worker, site, body)


def broken(worker: Worker, site: Any, body: bytes) -> None:
    """Functions that do what they should not."""
    go_on, began = threading.Event(), threading.Event()

    def hang(data: Any) -> None:
        if "reader" in data:
            data["reader"].read()
        go_on.wait(WAIT)

    def fail(data: Any) -> None:
        raise ValueError("a secret")

    def half(data: Any) -> None:
        data["writer"].write(bytes(1000))
        began.wait(WAIT)
        raise ValueError("a secret")

    worker.register_function("files::about", lambda data: {"name": "n", "type": "x/y", "size": 2000})
    for store, load, status in ((hang, hang, 504), (fail, fail, 502)):
        functions = [worker.register_function("files::store", store), worker.register_function("files::load", load)]
        for got in (upload(site, "x", body), ask(site, "GET", "/files/0")):
            assert got.status == status and got.json["error"] and "secret" not in got.json["error"]
        go_on.set()
        for function in functions:
            function.unregister()
    # Too late for a status: the client must see that it is not whole.
    worker.register_function("files::load", half)
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=WAIT)
    connection.request("GET", "/files/0")
    answer = connection.getresponse()
    began.set()
    assert answer.status == 200
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    connection.close()


def parts(store: Path) -> list[int]:
    """The sizes of what is being stored right now."""
    return [path.stat().st_size for path in store.glob("*.part")]


def wait_for(condition: Callable[[], bool], otherwise: str) -> None:
    """Look until it is so."""
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.02)
