"""HTTP triggers where the local engine does better than the real one, or is quicker to test."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import websocket

from iii_sync.engine.records import Trigger, TriggerError
from iii_sync.engine.responses import Head, plain
from iii_sync.engine.routes import Routes

from ..support.threads import in_thread
from .peers import TIMEOUT, Worker, connect, end_url, send_close, worker
from .serving import serving_http
from .test_http import Site

MIB = 1024 * 1024


@pytest.fixture
def http_timeout() -> float:
    """How long the engine waits for a response."""
    return TIMEOUT


@pytest.fixture
def owner(http_timeout: float) -> Iterator[Worker]:
    """A worker on an engine of the test's own."""
    with serving_http(http_timeout=http_timeout) as address, worker(address.url, name="owner") as owner:
        owner.http_url = address.http_url  # type: ignore[attr-defined]
        owner.url = address.url  # type: ignore[attr-defined]
        yield owner


@pytest.fixture
def site(owner: Any) -> Site:
    """A site on it."""
    return Site(owner.url, owner.http_url, owner)


class TestTime:
    """What happens when somebody is too slow."""

    @pytest.fixture
    def http_timeout(self) -> float:
        """A short time, in which a busy machine can still do something."""
        return 2.0

    def test_no_response(self, site: Site) -> None:
        """The client gets a 504, nothing is remembered, and who responds afterwards gets nowhere."""
        site.route()
        response = in_thread(site.request)
        call = site.owner.invoked(site.function)
        assert self.active(site) == 1
        answer = response()
        assert (answer.status, answer.body) == (504, b"")
        assert self.active(site) == 0
        site.owner.answer(call, result={"late": 1})
        with pytest.raises(websocket.WebSocketBadStatusException, match="404"):
            websocket.create_connection(end_url(site.url, call["data"]["response"]))

    def active(self, site: Site) -> Any:
        """How many calls the owner of the site is serving."""
        return site.owner.ask("engine::workers::info", {"name": "owner"})["worker"]["active_invocations"]

    def test_null_without_stream(self, site: Site) -> None:
        """A function that returns nothing and writes nothing is a 504 in the end."""
        site.route()
        assert site.answered({"result": None}).status == 504

    def test_slow_middleware(self, site: Site) -> None:
        """It is a 504 that says so."""
        site.route(middleware_function_ids=[site.function])
        answer = site.request()
        assert (answer.status, answer.json["error"]["code"]) == (504, "MIDDLEWARE_TIMEOUT")
        assert self.active(site) == 0

    def test_slow_condition(self, site: Site) -> None:
        """So is this."""
        site.route(condition_function_id=site.function)
        assert site.request().json["error"]["code"] == "CONDITION_TIMEOUT"
        assert self.active(site) == 0

    def test_body_takes_its_time(self, site: Site) -> None:
        """The limit is for the head alone."""
        site.route()
        response = in_thread(site.request)
        call = site.owner.invoked(site.function)
        with connect(end_url(site.url, call["data"]["response"])) as writer:
            writer.send_binary(b"a")
            assert not threading.Event().wait(2.5)
            writer.send_binary(b"b")
            send_close(writer)
            assert response().body == b"ab"


class TestCut:
    """A side that vanishes."""

    def test_writer_vanishes_before_the_first_byte(self, site: Site) -> None:
        """What the function says in the end counts; saying nothing is a 500."""
        site.route()
        for outcome, code in (({"error": {"code": "own", "message": "m"}}, "own"), ({"result": None}, "response_cut")):
            response = in_thread(site.request)
            call = site.owner.invoked(site.function)
            with connect(end_url(site.url, call["data"]["response"])) as writer:
                writer.send(json.dumps({"type": "set_status", "status_code": 206}))
            site.owner.sync()
            site.owner.answer(call, **outcome)
            answer = response()
            assert (answer.status, answer.json["error"]["code"]) == (500, code)

    def test_writer_vanishes_later(self, site: Site) -> None:
        """The client can tell that something is missing."""
        site.route()
        response = in_thread(site.request)
        call = site.owner.invoked(site.function)
        with connect(end_url(site.url, call["data"]["response"])) as writer:
            writer.send_binary(b"abc")
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response()

    def test_body_that_is_too_short(self, site: Site) -> None:
        """The client is not left waiting for the length that was promised."""
        site.route()
        with pytest.raises(http.client.IncompleteRead):
            site.answered({"result": {"headers": {"content-length": "9"}, "body": "hello"}})

    def test_client_of_an_idle_writer_leaves(self, site: Site) -> None:
        """The writer hears of it without writing."""
        site.route()
        with contextlib.closing(site.dial("GET BASE HTTP/1.1\nHost: x\n\n")) as client:
            call = site.owner.invoked(site.function)
            with connect(end_url(site.url, call["data"]["response"])) as writer:
                writer.send_binary(b"abc")
                assert client.recv(10)
                client.close()
                with pytest.raises((ConnectionError, websocket.WebSocketConnectionClosedException)):
                    writer.recv()

    def test_upload_outlives_its_response(self, site: Site) -> None:
        """A function that has responded may still read."""
        site.route(method="POST")
        head = "POST BASE HTTP/1.1\nHost: x\nContent-Length: 6\n\none"
        with contextlib.closing(site.dial(head)) as client:
            call = site.owner.invoked(site.function)
            with connect(end_url(site.url, call["data"]["request_body"])) as reader:
                assert reader.recv() == b"one"
                site.owner.answer(call, result={"body": "done"})
                assert b"200 OK" in client.recv(4096)
                client.sendall(b"two")
                assert reader.recv() == b"two"


def test_large_json_keeps_nobody_waiting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is read the engine does what others ask for."""
    begun, others = threading.Event(), threading.Event()

    def slowly(data: bytes) -> Any:
        begun.set()
        others.wait(TIMEOUT)
        return json.loads(data)

    monkeypatch.setattr("iii_sync.engine.http.decode", slowly)
    site.route(method="POST")
    text = "x" * MIB
    response = in_thread(lambda: site.request("", "POST", json.dumps(text), Content_Type="application/json"))
    assert begun.wait(TIMEOUT)
    site.owner.sync()
    assert not others.is_set()
    others.set()
    call = site.owner.invoked(site.function)
    site.owner.answer(call, result={})
    assert (response().status, call["data"]["body"]) == (200, text)


def test_engine_stops_under_a_request() -> None:
    """It does not wait for a function that never answers."""
    with contextlib.ExitStack() as later:
        with serving_http() as address:
            owner = later.enter_context(worker(address.url))
            site = Site(address.url, address.http_url, owner)
            site.route()
            response = in_thread(site.request)
            owner.invoked(site.function)
        # Its worker was dropped first, so there may still have been an answer.
        with contextlib.suppress(http.client.RemoteDisconnected, ConnectionError):
            assert response().status == 500


@pytest.mark.parametrize("path", ["/a/*", "/a/*rest", "/{a}", "/a{b", "/:", "/:a/:a"])
def test_paths_that_cannot_be(path: str) -> None:
    """They are refused: the real engine breaks on some of them."""
    with pytest.raises(TriggerError, match="not a valid path"):
        Routes().bind(Trigger("t", "http", "f", {"api_path": path}))


def test_routes_go_back() -> None:
    """A literal that leads nowhere does not hide a parameter; what is released leaves nothing."""
    routes = Routes()
    triggers = [Trigger(path, "http", "f", {"api_path": path}) for path in ("/a/:x/z", "a/b/c", "/")]
    for trigger in triggers:
        routes.bind(trigger)
    found = routes.find("/a/b/z")
    assert found is not None
    assert found.params == {"x": "b"}
    assert routes.find("/a/b") is None
    assert routes.find("*") is None
    for trigger in triggers:
        routes.release(trigger)
    assert all(routes.find(path) is None for path in ("/a/b/z", "/a/b/c", "/"))
    routes.bind(Trigger("t", "http", "f", {"api_path": "/a/:other/z"}))


def test_headers_of_the_connection_are_the_servers() -> None:
    """A function cannot break the framing of its response."""
    head, _ = plain({"headers": {"Transfer-Encoding": "chunked", "Connection": "x"}})
    assert head.headers == [("content-type", "application/json")]
    head = Head()
    for value in ("-1", "1 ", "\u0661", 5, "9" * 5000):
        head.add("content-length", value)
    assert head.headers == []
    head.add("content-length", "1")
    head.add("Content-Length", "2")
    assert head.headers == [("Content-Length", "2")]


SCRIPT = """
import sys
from iii_sync.engine.main import run
status = run("127.0.0.1", 0, http_port=0)
# Not getrusage(): that counts what the parent had at the fork, too.
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory as Linux counts it")
@pytest.mark.parametrize("direction", ["upload", "download"])
@pytest.mark.timeout(600)
def test_a_gibibyte_in_constant_memory(direction: str) -> None:
    """The engine holds no more than its channels do."""
    home = str(Path(__file__).resolve().parents[2])
    engine = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": home},
        universal_newlines=True,
    )
    assert engine.stdout is not None
    line = engine.stdout.readline()
    url, http_url = (word.strip(",") for word in line.split() if "://" in word)
    block = os.urandom(MIB)
    with worker(url) as owner:
        site = Site(url, http_url, owner)
        site.route(method="POST")
        if direction == "upload":
            response = in_thread(lambda: site.request("", "POST", (block for _ in range(1024))), wait=300)
            call = owner.invoked(site.function)
            received = 0
            with connect(end_url(url, call["data"]["request_body"])) as reader:
                while received < 1024 * MIB:
                    received += len(reader.recv())
            owner.answer(call, result={"body": received})
            assert response().json == 1024 * MIB
        else:
            address = urlsplit(http_url)
            connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT)
            with contextlib.closing(connection):
                connection.request("POST", site.base)
                call = owner.invoked(site.function)

                def write() -> None:
                    with connect(end_url(url, call["data"]["response"])) as writer:
                        for _ in range(1024):
                            writer.send_binary(block)
                        send_close(writer)

                written = in_thread(write, wait=300)
                answer = connection.getresponse()
                received = 0
                while True:
                    data = answer.read(MIB)
                    if not data:
                        break
                    received += len(data)
                written()
                assert received == 1024 * MIB
    engine.terminate()
    peak = int(engine.communicate(timeout=30)[0])
    assert peak < 150 * 1024, f"{peak} KiB"
